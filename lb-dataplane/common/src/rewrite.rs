//! Changes to a packet, each with the checksums that it touches.

use crate::checksum::{self, Delta};
use crate::flow::{TCP, Translation, UDP, words};
use crate::packet::{ChecksumChange, Packet};
use crate::parse::{IP_CHECKSUM_AT, Ipv4, TTL_AT};

/// Where a transport's checksum is, counted from its header.
const TCP_CHECKSUM_AT: u32 = 16;
const UDP_CHECKSUM_AT: u32 = 6;
const ICMP_CHECKSUM_AT: u32 = 2;

/// Time to live of packets that begin here (RFC 1700, "IP Option Numbers": 64).
const OWN_TTL: u8 = 64;

/// Gives the packet other addresses and ports.
#[inline(always)]
pub fn translate<P: Packet>(packet: &mut P, ip: &Ipv4, to: &Translation) -> Option<()> {
    let checksum_at = if ip.protocol == TCP { TCP_CHECKSUM_AT } else { UDP_CHECKSUM_AT };
    packet.update_transport_checksum(ChecksumChange {
        at: ip.transport_at + checksum_at,
        pseudo_header: to.addresses,
        content: to.ports,
        optional: ip.protocol == UDP,
    })?;
    packet.write(ip.transport_at, [to.source_port, to.destination_port])?;
    translate_addresses(packet, to)
}

/// Gives the packet other addresses, and leaves what it carries alone.
#[inline(always)]
pub fn translate_addresses<P: Packet>(packet: &mut P, to: &Translation) -> Option<()> {
    let [checksum] = packet.read::<1>(IP_CHECKSUM_AT)?;
    let ([s0, s1], [d0, d1]) = (words(to.source), words(to.destination));
    let checksum = checksum::update(checksum, to.addresses);
    packet.write(IP_CHECKSUM_AT, [checksum, s0, s1, d0, d1])
}

/// Counts one hop.
#[inline(always)]
pub fn decrement_ttl<P: Packet>(packet: &mut P) -> Option<()> {
    let [old, checksum] = packet.read::<2>(TTL_AT)?;
    let [ttl, protocol] = old.to_ne_bytes();
    set_ttl(packet, old, u16::from_ne_bytes([ttl.wrapping_sub(1), protocol]), checksum)
}

/// Addresses the frame anew.
#[inline(always)]
pub fn set_macs<P: Packet>(packet: &mut P, destination: [u8; 6], source: [u8; 6]) -> Option<()> {
    let word = |mac: [u8; 6], at: usize| u16::from_ne_bytes([mac[at], mac[at + 1]]);
    packet.write(
        0,
        [
            word(destination, 0),
            word(destination, 2),
            word(destination, 4),
            word(source, 0),
            word(source, 2),
            word(source, 4),
        ],
    )
}

/// Turns an echo request into its reply (RFC 792).
#[inline(always)]
pub fn answer_echo<P: Packet>(packet: &mut P, ip: &Ipv4) -> Option<()> {
    let [kind_and_code] = packet.read::<1>(ip.transport_at)?;
    packet.update_transport_checksum(ChecksumChange {
        at: ip.transport_at + ICMP_CHECKSUM_AT,
        pseudo_header: Delta::default(),
        content: Delta::of([kind_and_code], [0]),
        optional: false,
    })?;
    packet.write(ip.transport_at, [0])?;
    let [old, checksum] = packet.read::<2>(TTL_AT)?;
    set_ttl(packet, old, u16::from_ne_bytes([OWN_TTL, ip.protocol]), checksum)?;
    // The sum does not change when source and destination change places.
    let ([s0, s1], [d0, d1]) = (words(ip.destination), words(ip.source));
    packet.write(IP_CHECKSUM_AT + 2, [s0, s1, d0, d1])?;
    let [a, b, c, d, e, f] = packet.read::<6>(0)?;
    packet.write(0, [d, e, f, a, b, c])
}

#[inline(always)]
fn set_ttl<P: Packet>(packet: &mut P, old: u16, new: u16, checksum: u16) -> Option<()> {
    packet.write(TTL_AT, [new, checksum::update(checksum, Delta::of([old], [new]))])
}
