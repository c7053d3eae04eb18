//! Fragments: a later one is of the flow that its first one was of.

use super::Scratch;
use crate::family::Family;
use crate::fragment::FragmentPorts;
use crate::packet::Packet;
use crate::parse::{self, Ip, Transport};
use crate::reason::Reason;
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

/// Leaves the ports of a first fragment to the later ones.
#[inline(never)]
pub(super) fn note<A: Family, T: TablesOf<A>>(tables: &T, scratch: &Scratch<A>) {
    let Transport { source_port, destination_port, .. } = scratch.transport;
    let ports =
        FragmentPorts { source: source_port, destination: destination_port, seen: tables.now() };
    tables.note_fragment(&scratch.ip.fragment_key(), &ports);
}
