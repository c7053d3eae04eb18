//! ICMP errors about a flow (RFC 792): the packet that they quote is the flow's after its translation, so its sender would not
//! know it. What is quoted is translated back (RFC 5508 §4.2), and the error goes where the flow's own packets go.

use crate::checksum::{self, Delta};
use crate::flow::{DIRECTION_TO_CLIENT, FlowKey, TCP, Translation, UDP, address, words};
use crate::packet::{ChecksumChange, Packet};
use crate::parse::{ETHERNET_LEN, IP_CHECKSUM_AT, Ipv4};

/// Bytes of an ICMP error before what it quotes.
const ERROR_LEN: u32 = 8;
const IPV4_LEN: u32 = 20;
/// What an error quotes of a transport at least: ports, and UDP's checksum.
const QUOTED_TRANSPORT_LEN: u32 = 8;
const ICMP_CHECKSUM_AT: u32 = 2;
const UDP_CHECKSUM_AT: u32 = 6;

/// The packet that an error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Its key.
    pub key: FlowKey,
    /// Where its IP header begins, in the frame.
    pub ip_at: u32,
    /// Where its transport's header begins.
    pub transport_at: u32,
}

/// What an error quotes, if that may be a flow's: TCP or UDP, not a later fragment, and quoted as far as its ports.
#[inline(always)]
pub fn read<P: Packet>(packet: &mut P, ip: &Ipv4) -> Option<Quote> {
    // A header's length is a multiple of 4 below 64, which the verifier has forgotten here.
    let ip_at = ETHERNET_LEN + ((ip.transport_at - ETHERNET_LEN) & 0x3c) + ERROR_LEN;
    let end = ETHERNET_LEN + u32::from(ip.total_len);
    if ip_at + IPV4_LEN + QUOTED_TRANSPORT_LEN > end
        || !packet.pull(ip_at + IPV4_LEN + QUOTED_TRANSPORT_LEN)
    {
        return None;
    }
    let h = packet.read::<10>(ip_at)?;
    let [version_and_len, _] = h[0].to_ne_bytes();
    let header_len = u32::from(version_and_len & 0x0f) * 4;
    let [_, protocol] = h[4].to_ne_bytes();
    let offset = u16::from_be(h[3]) & 0x1fff;
    if version_and_len >> 4 != 4
        || header_len < IPV4_LEN
        || offset != 0
        || !(protocol == TCP || protocol == UDP)
    {
        return None;
    }
    let transport_at = ip_at + header_len;
    if transport_at + QUOTED_TRANSPORT_LEN > end
        || !packet.pull(transport_at + QUOTED_TRANSPORT_LEN)
    {
        return None;
    }
    let [source_port, destination_port] = packet.read::<2>(transport_at)?;
    let key = FlowKey {
        source: address([h[6], h[7]]),
        destination: address([h[8], h[9]]),
        source_port,
        destination_port,
        protocol,
        pad: [0; 3],
    };
    Some(Quote { key, ip_at, transport_at })
}

/// Translates an error by the translation of the packets that answer the quoted one. To a client it comes from the VIP:
/// which router or backend behind it sent it is not for the client to know.
#[inline(always)]
pub fn translate<P: Packet>(
    packet: &mut P,
    ip: &Ipv4,
    quote: &Quote,
    to: &Translation,
    direction: u8,
) -> Option<()> {
    let (old, new) = (quote.key, to.key_after(quote.key.protocol).reversed());
    let addresses = Delta::of(words(old.source), words(new.source))
        .and(Delta::of(words(old.destination), words(new.destination)));
    let ports = Delta::of([old.source_port], [new.source_port])
        .and(Delta::of([old.destination_port], [new.destination_port]));

    let [old_sum] = packet.read::<1>(quote.ip_at + 10)?;
    let new_sum = checksum::update(old_sum, addresses);
    let ([s0, s1], [d0, d1]) = (words(new.source), words(new.destination));
    packet.write(quote.ip_at + 10, [new_sum, s0, s1, d0, d1])?;
    packet.write(quote.transport_at, [new.source_port, new.destination_port])?;
    let mut content = addresses.and(Delta::of([old_sum], [new_sum])).and(ports);
    if old.protocol == UDP {
        let [old_sum] = packet.read::<1>(quote.transport_at + UDP_CHECKSUM_AT)?;
        let new_sum = checksum::update_optional(old_sum, addresses.and(ports));
        packet.write(quote.transport_at + UDP_CHECKSUM_AT, [new_sum])?;
        content = content.and(Delta::of([old_sum], [new_sum]));
    }
    packet.update_transport_checksum(ChecksumChange {
        at: quote.ip_at - ERROR_LEN + ICMP_CHECKSUM_AT,
        pseudo_header: Delta::default(),
        content,
        optional: false,
    })?;

    let source = if direction == DIRECTION_TO_CLIENT { to.source } else { ip.source };
    let outer = Delta::of(words(ip.source), words(source))
        .and(Delta::of(words(ip.destination), words(to.destination)));
    let [sum] = packet.read::<1>(IP_CHECKSUM_AT)?;
    let ([s0, s1], [d0, d1]) = (words(source), words(to.destination));
    packet.write(IP_CHECKSUM_AT, [checksum::update(sum, outer), s0, s1, d0, d1])
}
