//! A later fragment as the packet path would have sent it on: it has no ports, and no checksum but that of IPv4's header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Form, SentOn, Way};
use crate::icmp::{OWN_TTL, checksum};

const V4_LEN: usize = 20;
const V6_LEN: usize = 40;
/// Bytes of IPv6's fragment header, and of UDP's.
const FRAGMENT_LEN: usize = 8;
const UDP_LEN: usize = 8;
const FRAGMENT: u8 = 44;
const UDP: u8 = 17;
const IP_IN_IP: u8 = 4;
const IP6_IN_IP6: u8 = 41;
/// The port of GUE (IANA, "gue").
const GUE_PORT: u16 = 6080;
const DONT_FRAGMENT: u16 = 0x4000;
/// Of IPv4: "more fragments", and the offset.
const MORE_AND_OFFSET: u16 = 0x3fff;
const MORE_FRAGMENTS: u16 = 0x2000;

/// A fragment with `len` bytes of its datagram on its way; `None` if it may go no further, or nobody knows where to.
pub(super) fn rewritten(mut packet: Vec<u8>, len: u32, way: &Way) -> Option<SentOn> {
    let is_v4 = is_v4(&packet)?;
    // Nothing damaged becomes whole.
    if is_v4 && checksum(header_of_v4(&packet)?) != 0 {
        return None;
    }
    let ttl = packet.get_mut(if is_v4 { 8 } else { 7 })?;
    *ttl = ttl.checked_sub(1).filter(|left| *left > 0)?;
    let packet = match (way.form, way.source, way.destination) {
        (Form::AsTheyCame, ..) => sealed(packet)?,
        (Form::Translated, IpAddr::V4(source), IpAddr::V4(destination)) if is_v4 => {
            packet.get_mut(12..16)?.copy_from_slice(&source.octets());
            packet.get_mut(16..20)?.copy_from_slice(&destination.octets());
            sealed(packet)?
        }
        (Form::Translated, IpAddr::V6(source), IpAddr::V6(destination)) if !is_v4 => {
            packet.get_mut(8..24)?.copy_from_slice(&source.octets());
            packet.get_mut(24..40)?.copy_from_slice(&destination.octets());
            packet
        }
        (Form::Translated, IpAddr::V6(source), IpAddr::V6(destination)) => {
            into_v6(&packet, source, destination)?
        }
        (Form::Translated, IpAddr::V4(source), IpAddr::V4(destination)) => {
            into_v4(&packet, len as usize, source, destination)?
        }
        (Form::Within, source, destination) => within(&sealed(packet)?, None, source, destination)?,
        (Form::Gue(port), source, destination) => {
            within(&sealed(packet)?, Some(port), source, destination)?
        }
        (Form::Translated, ..) => return None,
    };
    // What is too long the kernel fragments, or says so to itself.
    let link = way.link.filter(|link| packet.len() <= link.mtu as usize);
    // Who is to have it as it came is known by its MAC alone; and a raw socket gives a packet without a number one of its own.
    let is_by_mac = way.form == Form::AsTheyCame && addresses(&packet)?.1 != way.destination;
    let is_inside = matches!(way.form, Form::Within | Form::Gue(_));
    let is_anonymous = !is_inside && way.destination.is_ipv4() && packet.get(4..6)? == [0; 2];
    if link.is_none() && (is_by_mac || is_anonymous) {
        return None;
    }
    Some(SentOn { to: way.destination, packet, link })
}

/// Source and destination of a packet.
pub(super) fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    if is_v4(packet)? {
        let (source, rest) = packet.get(12..20)?.split_first_chunk::<4>()?;
        Some(((*source).into(), <[u8; 4]>::try_from(rest).ok()?.into()))
    } else {
        let (source, rest) = packet.get(8..40)?.split_first_chunk::<16>()?;
        Some(((*source).into(), <[u8; 16]>::try_from(rest).ok()?.into()))
    }
}

fn is_v4(packet: &[u8]) -> Option<bool> {
    match packet.first()? >> 4 {
        4 => Some(true),
        6 => Some(false),
        _ => None,
    }
}

/// IPv4's header, with its options.
fn header_of_v4(packet: &[u8]) -> Option<&[u8]> {
    let len = usize::from(packet.first()? & 0x0f) * 4;
    if len < V4_LEN { None } else { packet.get(..len) }
}

/// A packet whose header has its checksum, if it has one.
fn sealed(mut packet: Vec<u8>) -> Option<Vec<u8>> {
    if is_v4(&packet)? {
        packet.get_mut(10..12)?.fill(0);
        let sum = checksum(header_of_v4(&packet)?);
        packet.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
    }
    Some(packet)
}

fn word(packet: &[u8], at: usize) -> Option<u16> {
    packet.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

/// RFC 7915 §4.1: options stay behind.
fn into_v6(packet: &[u8], source: Ipv6Addr, destination: Ipv6Addr) -> Option<Vec<u8>> {
    let payload = packet.get(header_of_v4(packet)?.len()..)?;
    let (class, number) = (*packet.get(1)?, word(packet, 4)?);
    let (ttl, protocol) = (*packet.get(8)?, *packet.get(9)?);
    let more_and_offset = word(packet, 6)? & MORE_AND_OFFSET;
    let len = u16::try_from(FRAGMENT_LEN + payload.len()).ok()?;
    let mut made = header_of_v6(class, len, FRAGMENT, ttl, source, destination);
    made.extend([protocol, 0]);
    let more = u16::from(more_and_offset & MORE_FRAGMENTS != 0);
    made.extend((more_and_offset << 3 | more).to_be_bytes());
    made.extend(u32::from(number).to_be_bytes());
    made.extend(payload);
    Some(made)
}

/// RFC 7915 §5.1.1: extension headers stay behind, the last of which is the fragment's, and of the sender's number the upper half.
fn into_v4(packet: &[u8], len: usize, source: Ipv4Addr, destination: Ipv4Addr) -> Option<Vec<u8>> {
    let (before, payload) = packet.split_at_checked(packet.len().checked_sub(len)?)?;
    let header = before.get(V6_LEN..)?.last_chunk::<FRAGMENT_LEN>()?;
    let (class, ttl) = ((word(packet, 0)? >> 4) as u8, *packet.get(7)?);
    let (protocol, offset_and_more) = (header[0], word(header, 2)?);
    let number = word(header, 6)?;
    let more = if offset_and_more & 1 == 0 { 0 } else { MORE_FRAGMENTS };
    let ends = (source, destination);
    let mut made = header_of_v4_of(class, payload.len(), number, ttl, protocol, ends)?;
    made.get_mut(6..8)?.copy_from_slice(&(more | offset_and_more >> 3).to_be_bytes());
    made.extend(payload);
    sealed(made)
}

/// A packet within another one of its family: RFC 2003 §3.1, RFC 2473 §6; and within a datagram, from this port, if there is one.
fn within(
    packet: &[u8],
    port: Option<u16>,
    source: IpAddr,
    destination: IpAddr,
) -> Option<Vec<u8>> {
    let len = packet.len() + port.map_or(0, |_| UDP_LEN);
    let mut made = match (is_v4(packet)?, source, destination) {
        (true, IpAddr::V4(source), IpAddr::V4(destination)) => {
            let next = port.map_or(IP_IN_IP, |_| UDP);
            let ends = (source, destination);
            let mut header = header_of_v4_of(*packet.get(1)?, len, 0, OWN_TTL, next, ends)?;
            header.get_mut(6..8)?.copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
            sealed(header)?
        }
        (false, IpAddr::V6(source), IpAddr::V6(destination)) => {
            let next = port.map_or(IP6_IN_IP6, |_| UDP);
            let len = u16::try_from(len).ok()?;
            let mut header = header_of_v6(0, len, next, OWN_TTL, source, destination);
            // Traffic class and flow label are those of what is inside (RFC 6040 §4.1, RFC 6438 §3).
            header.get_mut(..4)?.copy_from_slice(packet.get(..4)?);
            header
        }
        _ => return None,
    };
    if let Some(port) = port {
        for word in [port, GUE_PORT, u16::try_from(len).ok()?, 0] {
            made.extend(word.to_be_bytes());
        }
    }
    made.extend(packet);
    Some(made)
}

fn header_of_v6(
    class: u8,
    len: u16,
    next: u8,
    hops: u8,
    source: Ipv6Addr,
    destination: Ipv6Addr,
) -> Vec<u8> {
    let mut header = Vec::with_capacity(V6_LEN + usize::from(len));
    header.extend((0x6000 | u16::from(class) << 4).to_be_bytes());
    header.extend([0; 2]);
    header.extend(len.to_be_bytes());
    header.extend([next, hops]);
    header.extend(source.octets());
    header.extend(destination.octets());
    header
}

/// A header without its checksum.
fn header_of_v4_of(
    class: u8,
    payload_len: usize,
    number: u16,
    ttl: u8,
    protocol: u8,
    (source, destination): (Ipv4Addr, Ipv4Addr),
) -> Option<Vec<u8>> {
    let len = u16::try_from(V4_LEN + payload_len).ok()?;
    let mut header = Vec::with_capacity(usize::from(len));
    header.extend([0x45, class]);
    header.extend(len.to_be_bytes());
    header.extend(number.to_be_bytes());
    header.extend([0, 0, ttl, protocol, 0, 0]);
    header.extend(source.octets());
    header.extend(destination.octets());
    Some(header)
}
