//! The short way between the families (RFC 7915): the same packets with another header, of flows whose other direction is in the
//! other family's table. Theirs have no options, and are no fragments, so a header becomes a plain one of the other family.

use super::{Segment, end_as, header_len, is_plain, note, way_by};
use crate::family::{Family, Header};
use crate::fib::{MemberEntry, Route};
use crate::flow::{Flow, Translation};
use crate::hash::FlowHash;
use crate::packet::Packet;
use crate::parse::{ETHERNET_LEN, ethertype};
use crate::pipeline::Outcome;
use crate::rewrite;
use crate::tables::TablesOf;

/// Where UDP has its checksum.
const UDP_CHECKSUM_AT: u32 = 6;

/// Sends a packet on by its flow's entry, unless that asks for more than another header; then the packet is as it was.
#[inline(always)]
pub(super) fn translate<A: Family, P: Packet, T: TablesOf<A>, const IS_TCP: bool>(
    packet: &mut P,
    tables: &T,
    segment: &Segment<A, P>,
    entry: &T::Flow,
) -> Option<Outcome> {
    let Segment { header: ip, near, key, .. } = segment;
    let to: Translation<A::Other> = entry.translation();
    let counted @ (_, direction) = (tables.counts(entry.line())?, entry.direction());
    let sent = (tables.end_of_flow(packet.interface_place(), direction)?, direction);
    let route = A::Other::route(tables, to.destination, || FlowHash::of(key).for_route());
    let Route::Forward(member) = route else { return None };
    let payload_len = ip.total_len - A::HEADER_LEN;
    if !is_plain::<P>(&member)
        || ip.ttl <= 1
        || payload_len + <A::Other as Family>::HEADER_LEN > u32::from(member.mtu)
        || !A::is_header_in_reach_right(packet, *near)
        || !IS_TCP && packet.load(*near, ETHERNET_LEN + A::HEADER_LEN + UDP_CHECKSUM_AT) == [0]
        || !entry.is_same()
    {
        return None;
    }
    note(packet, tables, segment, entry, counted);
    let bytes = packet.frame_len();
    let [first] = packet.load(*near, ETHERNET_LEN);
    let header = Header {
        payload_len,
        identification: tables.next_number(),
        protocol: ip.protocol,
        ttl: ip.ttl.wrapping_sub(1),
        class: A::class_in(first),
        fragment: 0,
        may_be_fragmented: false,
        pad: [0; 2],
    };
    let is_written = write::<A, P, IS_TCP>(packet, segment, &header, &to, &member).is_some();
    let reason = end_as(packet, tables, is_written, sent, bytes);
    Some(Outcome { reason, way: way_by(&member) })
}

#[inline(always)]
fn write<A: Family, P: Packet, const IS_TCP: bool>(
    packet: &mut P,
    segment: &Segment<A, P>,
    header: &Header,
    to: &Translation<A::Other>,
    member: &MemberEntry,
) -> Option<()> {
    let (ip, near) = (&segment.ip(), segment.near);
    let at = ETHERNET_LEN + A::HEADER_LEN;
    let end = ETHERNET_LEN + ip.total_len;
    let change = rewrite::transport_change(ip, at, to, IS_TCP, end);
    let near = packet.renew_checksum(near, change, at + header_len(IS_TCP))?;
    packet.store(near, at, [to.source_port, to.destination_port]);
    let new_len = <A::Other as Family>::HEADER_LEN;
    let near = packet.exchange_header(<A::Other as Family>::IS_V6, ETHERNET_LEN + new_len)?;
    let [a, b, c, d, e, f] = rewrite::mac_words(member.destination_mac, member.source_mac);
    packet.store(near, 0, [a, b, c, d, e, f, ethertype(<A::Other as Family>::IS_V6)]);
    let sum = <A::Other as Family>::store_header(packet, near, to.source, to.destination, header);
    packet.note_change(sum.and(A::sum_of_last_bytes(ip).and(to.addresses).undone()));
    Some(())
}
