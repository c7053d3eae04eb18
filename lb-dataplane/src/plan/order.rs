//! The order of a plan's writes.
//!
//! Invariant: at every step a port leads to the service that had it before the plan, to the one that has it after, or, if it
//! had or will have none, to none. So what is new is there before prefixes of ports lead to it, and what loses ports to others
//! keeps them until these lead there: it shrinks, or goes, last.
//!
//! Not so where there is no room for both, as the map is full, or the plan has to wait for ids or space: there what goes makes the
//! room for what comes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use lb_dataplane_common::service::{BACKEND_IN_USE, VipKey};

use super::entries::service_key;
use super::ranges::PortPrefix;
use super::{Served, Step};
use crate::layout::while_changing;
use crate::table::{Protocol, Service, ServiceKey};

/// Services whose ports others take over, all or some.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// They go.
    removed: HashSet<VipKey>,
    /// They stay with fewer ports.
    narrowed: HashSet<VipKey>,
}

impl Served {
    /// Those among services that go and that change, before either is carried out.
    pub(super) fn late(&self, gone: &[ServiceKey], changed: &[(&ServiceKey, &Service)]) -> Late {
        let wanted = changed.iter().map(|(key, service)| {
            let last = key.port.saturating_add(service.more_ports);
            ((key.address, key.protocol, key.port), last)
        });
        let wanted: BTreeMap<(IpAddr, Protocol, u16), u16> = wanted.collect();
        let is_taken_over = |key: &&ServiceKey| {
            let Some(held) = self.services.get(key) else { return false };
            let at = |port| (key.address, key.protocol, port);
            let last = key.port.saturating_add(held.more_ports);
            // They do not overlap, so that of all that begin there the last one ends last.
            let new = wanted.range(at(0)..=at(last)).next_back();
            new.is_some_and(|(_, end)| *end >= key.port)
        };
        let is_narrowed = |(key, service): &&(&ServiceKey, &Service)| {
            self.services.get(key).is_some_and(|held| held.more_ports > service.more_ports)
        };
        Late {
            removed: gone.iter().filter(is_taken_over).map(service_key).collect(),
            narrowed: changed.iter().filter(is_narrowed).map(|(key, _)| service_key(key)).collect(),
        }
    }

    /// Whether the map has room for those that go beside all that come, which are held already.
    fn has_room_for(&self, late: &Late) -> bool {
        let there = self.services.len() + self.addresses.len() + late.removed.len();
        there <= while_changing(self.limits.services) as usize
    }

    /// Puts the steps of a plan in order, which is held already.
    pub(super) fn sort(&self, steps: &mut Vec<Step>, mut late: Late) {
        if !self.has_room_for(&late) {
            late.removed.clear();
        }
        sort(steps, &late);
    }
}

/// Puts steps of one kind beside each other, so that they can be carried out together, between one grace period and the next:
/// first what no packet reads yet, then services, then what no service names any more.
///
/// Ids and space that a step frees are taken again only after a grace period, so steps of different services may change
/// places as long as those of one do not.
pub(super) fn sort(steps: &mut Vec<Step>, late: &Late) {
    // What one service loses and another gets is only put.
    let put =
        |step: &Step| if let Step::PutRange { prefix, .. } = step { Some(*prefix) } else { None };
    let put: BTreeSet<PortPrefix> = steps.iter().filter_map(put).collect();
    steps.retain(|step| !matches!(step, Step::RemoveRange { prefix } if put.contains(prefix)));
    for part in steps.split_mut(|step| matches!(step, Step::Grace)) {
        part.sort_by_key(|step| stage(step, late));
    }
    // Whoever was led there a moment ago finds it still.
    let goes =
        |step: &Step| matches!(step, Step::RemoveService { key } if late.removed.contains(key));
    if let Some(at) = steps.iter().position(goes) {
        steps.insert(at, Step::Grace);
    }
}

fn stage(step: &Step, late: &Late) -> u8 {
    match step {
        Step::Grace => 0,
        Step::ClearBackend { .. } => 1,
        Step::ClearService { .. } => 2,
        Step::WriteSources { .. } => 3,
        Step::PutBackend { entry, .. } if entry.flags & BACKEND_IN_USE != 0 => 4,
        Step::WriteRing { .. } | Step::WriteList { .. } => 5,
        // Before the service says that it has one; of one that has, by one store.
        Step::PutList { .. } => 6,
        // Before what comes: the map has room for as many as there may be, and few more.
        Step::RemoveService { key } if !late.removed.contains(key) => 7,
        Step::PutService { key, .. } if !late.narrowed.contains(key) => 8,
        Step::PutRange { .. } => 9,
        // A port that stays has its new prefix before it loses the old one.
        Step::RemoveRange { .. } => 10,
        Step::PutService { .. } => 11,
        Step::RemoveService { .. } => 12,
        Step::PutBackend { .. } => 13,
        Step::RemoveList { .. } => 14,
    }
}
