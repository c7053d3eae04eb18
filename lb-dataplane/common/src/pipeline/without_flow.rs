//! Answers to packets that went on without a flow: the configuration says whose they are, where a backend's address and port are
//! one VIP's alone.
//!
//! They are looked for only for as long after such a packet as the flow that it had no room for might have been silent, and at
//! the backends that such packets went to. Until then what such a backend answers to those who come to its own address and port
//! leaves as the VIP's, too; but not what it answers to this host, whose checks are such.

use super::forward::Found;
use super::{Scratch, fragments};
use crate::family::Family;
use crate::flow::{
    DIRECTION_TO_CLIENT, FlowKey, STATE_CONFIRMED, STATE_REPLIED, Translation, ticks_since,
};
use crate::parse::Kind;
use crate::service::{BACKEND_ANSWERS_ALONE, MODE_NAT, VipKey};
use crate::tables::{Tables, TablesOf};

/// Notes that a packet to a backend goes on without a flow, which answers may follow for as long as they might follow one of an
/// established flow's.
#[inline(never)]
pub(crate) fn note<T: Tables>(tables: &T, backend: u32, protocol: u8) -> u32 {
    let Some(entry) = tables.backend(backend) else { return 0 };
    let usual = tables.timeouts();
    let lasts = usual.of_service(protocol, STATE_REPLIED | STATE_CONFIRMED, entry.idle);
    tables.note_without_flow(backend, tables.now().wrapping_add(lasts));
    0
}

/// Whether a tick is still to come.
#[inline(always)]
fn is_ahead(until: u32, now: u32) -> bool {
    ticks_since(now, until) != 0
}

/// Whether a packet of no flow is such an answer; not zero if it is, and is to go on as one of a flow would.
#[inline(never)]
pub(super) fn answers<A: Family, T: TablesOf<A>>(tables: &T, scratch: &mut Scratch<A>) -> u32 {
    u32::from(translation(tables, scratch).is_some())
}

#[inline(always)]
fn translation<A: Family, T: TablesOf<A>>(tables: &T, scratch: &mut Scratch<A>) -> Option<()> {
    let Scratch { ip, transport, arrival, step, found, .. } = scratch;
    if *found != Found::Member
        || !matches!(transport.kind, Kind::Tcp | Kind::Udp | Kind::LaterFragment)
        || !is_ahead(tables.without_flow_until(), tables.now())
    {
        return None;
    }
    let backend = tables.alone_at(&VipKey {
        address: ip.source.to_v6(),
        port: transport.source_port.to_ne_bytes(),
        protocol: ip.protocol,
        pad: 0,
    })?;
    let entry = tables.backend(backend)?;
    if entry.flags & BACKEND_ANSWERS_ALONE == 0
        || !is_ahead(tables.without_flow_to_until(backend), tables.now())
    {
        return None;
    }
    let came = transport.key(ip);
    let leaves = FlowKey {
        source: A::from_bytes(entry.vip),
        destination: came.destination,
        source_port: u16::from_ne_bytes(entry.vip_port),
        destination_port: came.destination_port,
        protocol: came.protocol,
        pad: 0,
    };
    step.translation = Translation::between(&came, &leaves);
    step.direction = DIRECTION_TO_CLIENT;
    step.mode = MODE_NAT;
    step.mss = 0;
    step.is_flow = true;
    // As one that has not begun a flow.
    step.begins = true;
    step.is_new = false;
    if let Some(counts) = tables.counts(tables.line_of(backend)) {
        tables.count_flow_packet(counts, DIRECTION_TO_CLIENT, arrival.bytes);
    }
    if scratch.ip.is_first_fragment() {
        fragments::note(tables, scratch);
    }
    Some(())
}

#[cfg(test)]
mod tests;
