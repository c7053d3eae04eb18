//! What backends' entries say of their flows' life, for whoever looks for flows that are over, and of their addresses.

use lb_dataplane_common::flow::{TCP, UDP, has_handshake};
use lb_dataplane_common::service::BackendEntry;

use super::hosts::Hosts;
use super::left::Left;
use super::{Served, Step};

/// What a backend says of the life of its flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLife {
    /// Ticks for which they may be silent; 0 for what holds for all flows.
    pub idle: u32,
    /// Whether those of TCP and SCTP end now.
    pub ends_tcp: bool,
    /// Whether those of UDP and ICMP end now.
    pub ends_udp: bool,
}

impl FlowLife {
    pub(super) fn of(entry: &BackendEntry) -> Self {
        Self { idle: entry.idle, ends_tcp: entry.ends_flows(TCP), ends_udp: entry.ends_flows(UDP) }
    }

    /// Whether flows of a protocol end now.
    pub fn ends(self, protocol: u8) -> bool {
        if has_handshake(protocol) { self.ends_tcp } else { self.ends_udp }
    }
}

/// Of a backend that there never was.
impl Default for FlowLife {
    fn default() -> Self {
        Self { idle: 0, ends_tcp: false, ends_udp: true }
    }
}

impl Served {
    /// What a backend's entry says of its flows' life, as the steps that were carried out say.
    pub fn life(&self, id: u32) -> FlowLife {
        self.lives.get(id as usize).copied().unwrap_or_default()
    }

    /// Hears that a step was carried out.
    pub fn carried_out(&mut self, step: &Step) {
        match step {
            Step::PutBackend { id, entry } => self.note(*id, entry),
            Step::Grace => self.left.passed(self.left.next()),
            Step::ClearBackend { .. }
            | Step::ClearService { .. }
            | Step::WriteRing { .. }
            | Step::WriteSources { .. }
            | Step::WriteList { .. }
            | Step::PutList { .. }
            | Step::RemoveList { .. }
            | Step::PutRange { .. }
            | Step::RemoveRange { .. }
            | Step::PutService { .. }
            | Step::RemoveService { .. } => {}
        }
    }

    pub(super) fn note(&mut self, id: u32, entry: &BackendEntry) {
        if let Some(life) = self.lives.get_mut(id as usize) {
            *life = FlowLife::of(entry);
        }
        self.hosts.note(id, entry);
        self.left.note(id, entry);
    }

    /// The ids of the services.
    pub(crate) fn service_ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.services.values().map(|held| held.entry.id)
    }

    /// Backends that left their services, as the steps that were carried out say.
    pub(crate) fn left(&self) -> &Left {
        &self.left
    }

    /// The same, to say what became of them.
    pub(crate) fn left_mut(&mut self) -> &mut Left {
        &mut self.left
    }

    /// No flow of a backend that left its service is left, and its service keeps what it has counted: its id is free.
    pub(crate) fn settled(&mut self, id: u32) {
        self.left.forget(id);
        self.backend_ids.release(id);
    }

    /// Frees the ids of services that are gone with all of their flows, which are those of backends.
    pub(crate) fn free_services(&mut self) {
        let over = self.service_ids.held().filter(|id| !self.left.is_any_of(*id));
        let over: Vec<u32> = over.collect();
        over.into_iter().for_each(|id| self.service_ids.release(id));
    }

    /// The addresses of backends, as the steps that were carried out say.
    pub(crate) fn hosts(&mut self) -> &mut Hosts {
        &mut self.hosts
    }
}
