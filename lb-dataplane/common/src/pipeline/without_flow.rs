//! Answers to packets that went on without a flow: the configuration says whose they are, where a backend's address and port are
//! one VIP's alone.
//!
//! They are looked for only for as long after such a packet as a connection may be silent. Until then what the backend answers to
//! those who come to its own address and port leaves as the VIP's, too; but not what it answers to this host, whose checks are
//! such.

use super::forward::Found;
use super::{Scratch, fragments};
use crate::family::Family;
use crate::flow::{DIRECTION_TO_CLIENT, FlowKey, Translation, ticks_since};
use crate::parse::Kind;
use crate::service::{BACKEND_ANSWERS_ALONE, MODE_NAT, VipKey};
use crate::tables::TablesOf;

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
        || ticks_since(tables.without_flow_since(), tables.now())
            > tables.timeouts().tcp_established
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
    if entry.flags & BACKEND_ANSWERS_ALONE == 0 {
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
    tables.count_flow_packet(entry.service, backend, DIRECTION_TO_CLIENT, arrival.bytes);
    if scratch.ip.is_first_fragment() {
        fragments::note(tables, scratch);
    }
    Some(())
}
