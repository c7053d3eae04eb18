//! Fragments: a later one is of the flow that its first one was of. One that comes before the first is kept by user space, which
//! the first one then tells where the flow's packets go: only where that is a translation within the family, since it sends
//! them itself.

use super::Scratch;
use crate::early::{EARLY_BYTES, EarlyHead};
use crate::family::Family;
use crate::fragment::{FragmentPorts, is_awaited};
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
        Some(ports) if ports.is_current(tables.now()) => Ok(Transport::of_later_fragment(&ports)),
        Some(_) | None => Ok(Transport::OTHER),
    }
}

/// Leaves the ports of a first fragment to the later ones, and tells of it where some are waiting.
#[inline(never)]
pub(super) fn note<A: Family, T: TablesOf<A>>(tables: &T, scratch: &mut Scratch<A>) {
    let Transport { source_port, destination_port, .. } = scratch.transport;
    let now = tables.now();
    let ports = FragmentPorts { source: source_port, destination: destination_port, seen: now };
    let key = scratch.ip.fragment_key();
    // First this, then the look: one that comes early on another CPU just now finds these ports, or is seen here.
    tables.note_fragment(&key, &ports);
    let awaited = tables.awaited(&key.to_v6());
    if awaited.is_some_and(|seen| is_awaited(seen, now)) && scratch.step.mode == MODE_NAT {
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
    // A raw socket gives a packet without an identification one of its own.
    let is_anonymous = !A::IS_V6 && ip.identification == 0;
    if ip.ttl <= 1 || ip.total_len > EARLY_BYTES as u32 || is_anonymous {
        return Reason::FragmentToVip;
    }
    let (key, now) = (ip.fragment_key(), tables.now());
    let awaited = key.to_v6();
    if tables.awaited(&awaited) != Some(now) {
        tables.note_awaited(&awaited, now);
    }
    // The first one came just now: this one is as good as lost.
    if tables.fragment(&key).is_some_and(|first| first.is_current(now)) {
        return Reason::FragmentToVip;
    }
    head(ip, &mut early.head);
    if packet.keep(&early.head) { Reason::FragmentKept } else { Reason::FragmentToVip }
}
