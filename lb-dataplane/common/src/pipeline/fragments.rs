//! Fragments: a later one is of the flow that its first one was of. One that comes before the first is kept by user space, which
//! the first one then tells where the flow's packets go: only where that is a translation within the family, since it sends
//! them itself.

use super::Scratch;
use crate::early::{EARLY_BYTES, EarlyHead};
use crate::family::Family;
use crate::fragment::FragmentPorts;
use crate::packet::Packet;
use crate::parse::{self, ETHERNET_LEN, Ip, OFFSET, Transport};
use crate::reason::Reason;
use crate::service::MODE_NAT;
use crate::tables::TablesOf;

/// What a packet carries; of a later fragment, what the first one of its datagram said.
#[inline(always)]
pub(super) fn transport<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &mut P,
    tables: &T,
    ip: &Ip<A>,
) -> Result<Transport, Reason> {
    if !ip.is_later_fragment() {
        return parse::transport(packet, ip);
    }
    if !ip.is_plausible_later_fragment() {
        return Err(Reason::Malformed);
    }
    match tables.fragment(&ip.fragment_key()) {
        Some(ports) if ports.is_current(tables.now()) && ports.is_awaited == 0 => {
            Ok(Transport::of_later_fragment(&ports))
        }
        Some(_) | None => Ok(Transport::OTHER),
    }
}

/// Leaves the ports of a first fragment to the later ones, and tells of it where some are waiting.
#[inline(never)]
pub(super) fn note<A: Family, T: TablesOf<A>>(tables: &T, scratch: &mut Scratch<A>) {
    let Transport { source_port, destination_port, .. } = scratch.transport;
    let ports = FragmentPorts {
        source: source_port,
        destination: destination_port,
        seen: tables.now(),
        is_awaited: 0,
    };
    let key = scratch.ip.fragment_key();
    // One that comes on another CPU just now finds these ports, or is seen here.
    if tables.note_unknown_fragment(&key, &ports) {
        return;
    }
    let is_awaited = tables.fragment(&key).is_some_and(|old| old.is_awaited != 0);
    tables.note_fragment(&key, &ports);
    if is_awaited && scratch.step.mode == MODE_NAT {
        tell(tables, scratch);
    }
}

#[inline(never)]
fn tell<A: Family, T: TablesOf<A>>(tables: &T, scratch: &mut Scratch<A>) -> u32 {
    let Scratch { ip, step, early, .. } = scratch;
    head(ip, &mut early.head);
    early.head.packet_len = 0;
    early.to_source = step.translation.source.to_v6();
    early.to_destination = step.translation.destination.to_v6();
    tables.tell_first_came(early);
    0
}

#[inline(always)]
fn head<A: Family>(ip: &Ip<A>, head: &mut EarlyHead) {
    let before = ip.transport_at() - ETHERNET_LEN;
    head.source = ip.source.to_v6();
    head.destination = ip.destination.to_v6();
    head.identification = ip.identification;
    head.protocol = u32::from(ip.protocol);
    head.offset = u32::from(ip.fragment & OFFSET) * 8;
    head.len = ip.total_len.wrapping_sub(before);
    head.packet_len = ip.total_len;
    head.pad = 0;
}

/// Has a fragment to a VIP kept whose first one has not come yet.
#[inline(never)]
pub(super) fn keep<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch<A>,
) -> Reason {
    let Scratch { ip, early, .. } = scratch;
    if ip.ttl <= 1 || ip.total_len > EARLY_BYTES as u32 {
        return Reason::FragmentToVip;
    }
    let key = ip.fragment_key();
    if !tables.note_unknown_fragment(&key, &FragmentPorts::awaited(tables.now())) {
        match tables.fragment(&key) {
            Some(noted) if noted.is_awaited != 0 && noted.is_current(tables.now()) => {}
            // Of another datagram long ago; or the first one came just now, which is as good as lost.
            Some(noted) if noted.is_awaited == 0 && noted.is_current(tables.now()) => {
                return Reason::FragmentToVip;
            }
            Some(_) | None => tables.note_fragment(&key, &FragmentPorts::awaited(tables.now())),
        }
    }
    head(ip, &mut early.head);
    if packet.keep(&early.head) { Reason::FragmentKept } else { Reason::FragmentToVip }
}
