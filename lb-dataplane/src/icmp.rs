//! What the sender of a dropped packet is told: an ICMP error (RFC 792, RFC 1191, RFC 4443) about the packet as it sent it, or
//! a RST.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use lb_dataplane_common::punt::{Punt, QUOTED};
use lb_dataplane_common::reason::Reason;
use lb_dataplane_common::service::{EXHAUSTION_ICMP, EXHAUSTION_RESET};

use crate::reset;

const IPV4_LEN: usize = 20;
const ICMP_LEN: usize = 8;
const ICMP: u8 = 1;
const UNREACHABLE: u8 = 3;
const HOST_UNREACHABLE: u8 = 1;
const FRAGMENTATION_NEEDED: u8 = 4;
const SOURCE_ROUTE_FAILED: u8 = 5;
const TIME_EXCEEDED: u8 = 11;
const V6_UNREACHABLE: u8 = 1;
const V6_ADDRESS_UNREACHABLE: u8 = 3;
const V6_PACKET_TOO_BIG: u8 = 2;
const V6_TIME_EXCEEDED: u8 = 3;
/// Time to live of packets that begin here (RFC 1700, "IP Option Numbers": 64).
pub(crate) const OWN_TTL: u8 = 64;
/// DSCP CS6, with which routers send ICMP errors (RFC 1812 §4.3.2.5: precedence 6).
const CLASS: u8 = 0xc0;

/// Errors of a kind per second at most, and in one burst (RFC 1812 §4.3.2.8); Linux's own limits are the same. Beyond, senders hear
/// nothing until their next packet.
const PER_SECOND: u32 = 1000;
const BURST: u32 = 50;

/// A packet to send to a side of a flow. Of an ICMP error the kernel fills in the source address, that of the way there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whose it is.
    pub to: IpAddr,
    /// From the IP header on, or else from the ICMPv6 header on, without its checksum.
    pub packet: Vec<u8>,
    /// Whether it begins with its IP header.
    pub has_header: bool,
}

/// What is wrong with a packet, in ICMP's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Error {
    TooBig(u16),
    TimeExceeded,
    /// Of IPv4: no packet is led on from here by its sender.
    SourceRouteFailed,
    /// There is no way to the host: what RFC 6888 REQ-8 asks for where a translator has run out.
    Unreachable,
}

/// The error about a packet; `None` where none is due: RFC 1122 §3.2.2 and RFC 4443 §2.4 name senders that are no single host.
pub(crate) fn answer(punt: &Punt) -> Option<Answer> {
    let reason = Reason::from_index(punt.reason)?;
    let quoted = punt.bytes.get(..usize::from(punt.len).min(QUOTED))?;
    let exhaustion = |kind: u8| reason == Reason::NoSourcePort && punt.detail == u16::from(kind);
    let error = if reason == Reason::FlowTooBig {
        Error::TooBig(punt.detail)
    } else if reason == Reason::FlowTtlExpired {
        Error::TimeExceeded
    } else if reason == Reason::SourceRouted {
        Error::SourceRouteFailed
    } else if exhaustion(EXHAUSTION_ICMP) {
        Error::Unreachable
    } else if exhaustion(EXHAUSTION_RESET) {
        return reset::refusal(quoted);
    } else {
        return None;
    };
    match quoted.first()? >> 4 {
        4 => answer_v4(quoted, error),
        6 => answer_v6(quoted, error),
        _ => None,
    }
}

fn answer_v4(quoted: &[u8], error: Error) -> Option<Answer> {
    let (kind, code, mtu) = match error {
        Error::TooBig(mtu) => (UNREACHABLE, FRAGMENTATION_NEEDED, mtu),
        Error::TimeExceeded => (TIME_EXCEEDED, 0, 0),
        Error::SourceRouteFailed => (UNREACHABLE, SOURCE_ROUTE_FAILED, 0),
        Error::Unreachable => (UNREACHABLE, HOST_UNREACHABLE, 0),
    };
    let to: [u8; 4] = quoted.get(12..16)?.try_into().ok()?;
    let to = Ipv4Addr::from(to);
    if to.is_unspecified() || to.is_loopback() || to.is_multicast() || to.is_broadcast() {
        return None;
    }
    let len = u16::try_from(IPV4_LEN + ICMP_LEN + quoted.len()).ok()?;
    let mut packet = vec![0x45, CLASS];
    packet.extend(len.to_be_bytes());
    // Identification, flags and offset; the header's checksum and the source address are the kernel's to fill in.
    packet.extend([0, 0, 0, 0, OWN_TTL, ICMP, 0, 0]);
    packet.extend([0; 4]);
    packet.extend(to.octets());
    packet.extend([kind, code, 0, 0, 0, 0]);
    packet.extend(mtu.to_be_bytes());
    packet.extend(quoted);
    let checksum = checksum(&packet[IPV4_LEN..]);
    packet[IPV4_LEN + 2..IPV4_LEN + 4].copy_from_slice(&checksum.to_be_bytes());
    Some(Answer { to: to.into(), packet, has_header: true })
}

fn answer_v6(quoted: &[u8], error: Error) -> Option<Answer> {
    let to: [u8; 16] = quoted.get(8..24)?.try_into().ok()?;
    let to = Ipv6Addr::from(to);
    if to.is_unspecified() || to.is_loopback() || to.is_multicast() {
        return None;
    }
    let (kind, code, mtu) = match error {
        Error::TooBig(mtu) => (V6_PACKET_TOO_BIG, 0, mtu),
        Error::TimeExceeded => (V6_TIME_EXCEEDED, 0, 0),
        Error::SourceRouteFailed => return None,
        Error::Unreachable => (V6_UNREACHABLE, V6_ADDRESS_UNREACHABLE, 0),
    };
    let mut packet = vec![kind, code, 0, 0];
    packet.extend(u32::from(mtu).to_be_bytes());
    packet.extend(quoted);
    Some(Answer { to: to.into(), packet, has_header: false })
}

/// RFC 1071.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| match *word {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A token bucket over all errors of a kind.
#[derive(Debug)]
pub(crate) struct Limit {
    tokens: u32,
    filled: Instant,
}

impl Limit {
    pub(crate) fn new(now: Instant) -> Self {
        Self { tokens: BURST, filled: now }
    }

    /// Whether another error may be sent.
    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        let each = Duration::from_secs(1) / PER_SECOND;
        let new = now.saturating_duration_since(self.filled).as_nanos() / each.as_nanos();
        if new > 0 {
            let new = u32::try_from(new).unwrap_or(u32::MAX);
            self.tokens = self.tokens.saturating_add(new).min(BURST);
            self.filled = now;
        }
        self.tokens.checked_sub(1).is_some_and(|left| {
            self.tokens = left;
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn punt(reason: Reason, mtu: u16, source: [u8; 4]) -> Punt {
        let mut bytes = [7; QUOTED];
        bytes[0] = 0x45;
        bytes[12..16].copy_from_slice(&source);
        let len = if mtu == 0 { 28 } else { QUOTED as u16 };
        Punt { reason: reason as u32, detail: mtu, len, bytes }
    }

    #[test]
    fn the_sender_hears_the_mtu_and_sees_its_own_packet() {
        let punt = punt(Reason::FlowTooBig, 1400, [10, 1, 0, 5]);
        let Answer { to, packet, .. } = answer(&punt).expect("an answer is due");
        assert_eq!(to, IpAddr::from([10, 1, 0, 5]));
        assert_eq!(packet[2..4], (packet.len() as u16).to_be_bytes());
        assert_eq!(packet[16..20], [10, 1, 0, 5]);
        assert_eq!(packet[20..22], [3, 4]);
        assert_eq!(packet[26..28], 1400_u16.to_be_bytes());
        assert_eq!(packet[28..], punt.bytes);
        assert_eq!(checksum(&packet[20..]), 0, "the checksum is right");
    }

    #[test]
    fn an_expired_time_to_live_is_named() {
        let Answer { packet, .. } =
            answer(&punt(Reason::FlowTtlExpired, 0, [10, 1, 0, 5])).expect("an answer is due");
        assert_eq!(packet[20..22], [11, 0]);
        assert_eq!(packet.len(), 20 + 8 + 28);
    }

    #[test]
    fn who_finds_no_port_hears_what_the_service_says() {
        let icmp = punt(Reason::NoSourcePort, EXHAUSTION_ICMP.into(), [10, 1, 0, 5]);
        let answer_of = |punt: &Punt| answer(punt).map(|answer| answer.packet);
        assert_eq!(answer_of(&icmp).expect("an error is due")[20..22], [3, 1]);
        let mut reset = punt(Reason::NoSourcePort, EXHAUSTION_RESET.into(), [10, 1, 0, 5]);
        assert_eq!(answer_of(&reset), None, "no TCP");
        reset.bytes[2..10].copy_from_slice(&[0, 40, 0, 0, 0, 0, 64, 6]);
        reset.bytes[32] = 0x50;
        assert_eq!(answer_of(&reset).expect("a RST is due")[33], 0x14);
        assert_eq!(answer_of(&punt(Reason::NoSourcePort, 0, [10, 1, 0, 5])), None);
    }

    #[test]
    fn nobody_in_particular_is_told_nothing() {
        for source in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255]] {
            assert_eq!(answer(&punt(Reason::FlowTooBig, 1400, source)), None, "{source:?}");
        }
        assert_eq!(answer(&punt(Reason::NoBackend, 0, [10, 1, 0, 5])), None);
    }

    #[test]
    fn errors_are_limited_to_a_burst_and_then_to_a_rate() {
        let start = Instant::now();
        let mut limit = Limit::new(start);
        let allowed = |limit: &mut Limit, now| (0..10_000).filter(|_| limit.allows(now)).count();
        assert_eq!(allowed(&mut limit, start), BURST as usize);
        assert_eq!(allowed(&mut limit, start + Duration::from_millis(10)), 10);
        assert_eq!(allowed(&mut limit, start + Duration::from_secs(60)), BURST as usize);
    }
}
