//! Changes to a packet, each with the checksums that it touches.

use crate::checksum::{self, Delta};
use crate::family::Family;
use crate::flow::{SCTP, TCP, Translation};
use crate::packet::{ChecksumChange, Packet};
use crate::parse::{ETHERNET_LEN, Ip};
use crate::sctp;

/// Where a transport's checksum is, counted from its header.
const TCP_CHECKSUM_AT: u32 = 16;
const UDP_CHECKSUM_AT: u32 = 6;
const ICMP_CHECKSUM_AT: u32 = 2;
/// Where an echo's identifier is.
pub(crate) const IDENTIFIER_AT: u32 = 4;

/// Time to live of packets that begin here (RFC 1700, "IP Option Numbers": 64).
const OWN_TTL: u8 = 64;

/// Gives the packet other addresses and ports. `sctp_change` is what the ports do to the sum of SCTP.
#[inline(always)]
pub fn translate<A: Family, P: Packet>(
    packet: &mut P,
    ip: &Ip<A>,
    to: &Translation<A>,
    sctp_change: u32,
) -> Option<()> {
    if ip.protocol == SCTP {
        sctp::write_ports(packet, ip.transport_at(), sctp_change, to)?;
    } else if ip.protocol == A::ICMP {
        translate_echo(packet, ip, to)?;
    } else {
        translate_transport(packet, ip, to)?;
    }
    // The sum of SCTP covers none.
    write_addresses(packet, to, ip.protocol != SCTP)
}

/// Gives TCP or UDP other ports, and a checksum for them and for the addresses that are still to be written.
#[inline(always)]
fn translate_transport<A: Family, P: Packet>(
    packet: &mut P,
    ip: &Ip<A>,
    to: &Translation<A>,
) -> Option<()> {
    let end = end(packet, ip);
    let change = transport_change(ip, ip.transport_at(), to, ip.protocol == TCP, end);
    packet.update_transport_checksum(change)?;
    packet.write(ip.transport_at(), [to.source_port, to.destination_port])
}

/// What new addresses and ports do to the checksum of TCP or UDP, given where its header is, which of the two it is, and where the
/// packet ends.
#[inline(always)]
pub fn transport_change<A: Family, B: Family>(
    ip: &Ip<A>,
    at: u32,
    to: &Translation<B>,
    is_tcp: bool,
    end: u32,
) -> ChecksumChange {
    let checksum_at = if is_tcp { TCP_CHECKSUM_AT } else { UDP_CHECKSUM_AT };
    ChecksumChange {
        at: at + checksum_at,
        pseudo_header: to.addresses,
        content: to.ports,
        optional: !is_tcp,
        is_v6: A::IS_V6 || B::IS_V6,
        partial: Some(sum_of_pseudo_header(ip, end.wrapping_sub(at))),
    }
}

/// What the field of TCP's or UDP's checksum holds that a device is to complete.
#[inline(always)]
pub fn partial_sum<A: Family, P: Packet>(packet: &P, ip: &Ip<A>) -> u16 {
    sum_of_pseudo_header(ip, end(packet, ip).wrapping_sub(ip.transport_at()))
}

/// Where the transport ends in the frame: that of all segments where the kernel merged several.
#[inline(always)]
fn end<A: Family, P: Packet>(packet: &P, ip: &Ip<A>) -> u32 {
    match packet.segment_payload() {
        0 => ETHERNET_LEN + ip.total_len,
        _ => packet.frame_len(),
    }
}

/// RFC 9293 §3.1, RFC 8200 §8.1; the length is that of the transport's header and payload.
#[inline(always)]
fn sum_of_pseudo_header<A: Family>(ip: &Ip<A>, len: u32) -> u16 {
    let rest = u64::from(u16::from(ip.protocol).to_be()) + u64::from(len.to_be());
    checksum::fold(checksum::narrow(ip.source.wide_sum() + ip.destination.wide_sum() + rest))
}

/// Gives an echo another identifier, which of the two ports is the one that is not 0.
#[inline(always)]
fn translate_echo<A: Family, P: Packet>(
    packet: &mut P,
    ip: &Ip<A>,
    to: &Translation<A>,
) -> Option<()> {
    let at = ip.transport_at();
    packet.update_transport_checksum(ChecksumChange {
        at: at + ICMP_CHECKSUM_AT,
        pseudo_header: if A::ICMP_COVERS_ADDRESSES { to.addresses } else { Delta::default() },
        content: to.ports,
        optional: false,
        is_v6: A::IS_V6,
        partial: None,
    })?;
    packet.write(at + IDENTIFIER_AT, [to.source_port | to.destination_port])
}

/// Gives the packet other addresses, and leaves what it carries alone.
#[inline(always)]
pub fn translate_addresses<A: Family, P: Packet>(
    packet: &mut P,
    to: &Translation<A>,
) -> Option<()> {
    write_addresses(packet, to, false)
}

/// Writes addresses, given whether a checksum of what the packet carries makes up for them. In the sum of the whole packet
/// that of IPv4's header does, and of IPv6 nothing else.
#[inline(always)]
fn write_addresses<A: Family, P: Packet>(
    packet: &mut P,
    to: &Translation<A>,
    is_covered: bool,
) -> Option<()> {
    A::write_addresses(packet, ETHERNET_LEN, to.source, to.destination, to.addresses)?;
    if A::IS_V6 && !is_covered {
        packet.note_change(to.addresses);
    }
    Some(())
}

/// Addresses the frame anew.
#[inline(always)]
pub fn set_macs<P: Packet>(packet: &mut P, destination: [u8; 6], source: [u8; 6]) -> Option<()> {
    packet.write(0, mac_words(destination, source))
}

/// The first words of a frame.
#[inline(always)]
pub fn mac_words(destination: [u8; 6], source: [u8; 6]) -> [u16; 6] {
    let word = |mac: [u8; 6], at: usize| u16::from_ne_bytes([mac[at], mac[at + 1]]);
    [
        word(destination, 0),
        word(destination, 2),
        word(destination, 4),
        word(source, 0),
        word(source, 2),
        word(source, 4),
    ]
}

/// Turns an echo request into its reply (RFC 792, RFC 4443 §4.2).
#[inline(always)]
pub fn answer_echo<A: Family, P: Packet>(packet: &mut P, ip: &Ip<A>) -> Option<()> {
    let [kind_and_code] = packet.read::<1>(ip.transport_at())?;
    packet.update_transport_checksum(ChecksumChange {
        at: ip.transport_at() + ICMP_CHECKSUM_AT,
        pseudo_header: Delta::default(),
        content: Delta::of([kind_and_code], [A::ECHO_REPLY]),
        optional: false,
        is_v6: A::IS_V6,
        partial: None,
    })?;
    packet.write(ip.transport_at(), [A::ECHO_REPLY])?;
    A::write_ttl(packet, OWN_TTL)?;
    // The sum does not change when source and destination change places.
    A::write_addresses(packet, ETHERNET_LEN, ip.destination, ip.source, Delta::default())?;
    let [a, b, c, d, e, f] = packet.read::<6>(0)?;
    packet.write(0, [d, e, f, a, b, c])
}
