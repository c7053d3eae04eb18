//! IPv6 (RFC 8200).

use super::{Family, Header, OUTER_TTL, UDP_LEN, V4, V6, across, is_mapped, word, words};
use crate::checksum::Delta;
use crate::fib::Route;
use crate::fib6;
use crate::flow::{Translation, UDP};
use crate::packet::Packet;
use crate::parse::{BURIED, DONT_FRAGMENT, ETHERNET_LEN, Ip, Kind, MORE_FRAGMENTS};
use crate::pipeline::NEXT_HOP_V6;
use crate::reason::Reason;
use crate::tables::Tables;

/// What one hop less does to a sum over the header, as long as there was one left.
const ONE_HOP: Delta = Delta(!u16::from_ne_bytes([0, 1]));
const HEADER_LEN: u32 = 40;
/// Where the next header and the hop limit are, in the frame.
const NEXT_AT: u32 = ETHERNET_LEN + 6;
/// Where the addresses are, in the header.
const ADDRESSES_AT: u32 = 8;

const HOP_BY_HOP: u8 = 0;
/// Where a header says what follows it.
const NEXT_HEADER_AT: u32 = 6;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// Extension headers of a packet at most; longer chains are the kernel's.
const MAX_EXTENSIONS: u32 = 4;
/// The least that an extension header has.
const EXTENSION_LEN: u32 = 8;
/// Bytes that all of a packet's extension headers may have: an offset beyond is the kernel's, too.
const MAX_EXTENSIONS_LEN: u32 = 1024;

/// The protocol number of IPv6 within IP.
const IP6_IN_IP6: u8 = 41;
const UNREACHABLE: u8 = 1;
const TIME_EXCEEDED: u8 = 3;
const PARAMETER_PROBLEM: u8 = 4;
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;
/// The first and the last of neighbour discovery (RFC 4861 §4).
const ROUTER_SOLICITATION: u8 = 133;
const REDIRECT: u8 = 137;

impl Family for V6 {
    type Other = V4;

    const APART: bool = true;
    const IS_V6: bool = true;
    const HEADER_LEN: u32 = HEADER_LEN;
    const ICMP: u8 = 58;
    const ECHO_REQUEST: u16 = u16::from_ne_bytes([ECHO_REQUEST, 0]);
    const ECHO_REPLY: u16 = u16::from_ne_bytes([ECHO_REPLY, 0]);
    const ICMP_COVERS_ADDRESSES: bool = true;
    const ADDRESS_WORDS: usize = 4;
    const NEXT_HOP: u32 = NEXT_HOP_V6;
    const QUOTED_SHORT: usize = 48;
    const QUOTED_TCP: usize = 60;
    const QUOTED_LEN_BIT: u32 = 24;
    const QUOTED_UNIT: u32 = 8;

    #[inline(always)]
    fn address_word([a, b, c, d]: Self, [e, f, g, h]: Self, n: usize) -> u64 {
        let (low, high) = match n {
            0 => (a, b),
            1 => (c, d),
            2 => (e, f),
            _ => (g, h),
        };
        u64::from(low) | u64::from(high) << 32
    }

    #[inline(always)]
    fn wide_sum(self) -> u64 {
        let [a, b, c, d] = self.map(u64::from);
        a + b + c + d
    }

    #[inline(always)]
    fn delta(old: Self, new: Self) -> Delta {
        Delta::of(all_words(old), all_words(new))
    }

    #[inline(always)]
    fn fold(source: Self, destination: Self) -> u64 {
        let half = |a: u32, b: u32| u64::from(u32::from_be(a)) << 32 | u64::from(u32::from_be(b));
        let [a, b, c, d] = source;
        let [e, f, g, h] = destination;
        // Each half by an odd number of its own, so that equal halves do not cancel.
        half(a, b).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ half(c, d).rotate_left(32).wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
            ^ half(e, f).wrapping_mul(0x1656_67b1_9e37_79f9).rotate_left(31)
            ^ half(g, h).wrapping_mul(0x27d4_eb2f_1656_67c5).rotate_left(17)
    }

    #[inline(always)]
    fn to_v6(self) -> V6 {
        self
    }

    #[inline(always)]
    fn from_v6(address: V6) -> Self {
        address
    }

    #[inline(always)]
    fn from_bytes(bytes: [u8; 16]) -> Self {
        let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3] = bytes;
        [[a0, a1, a2, a3], [b0, b1, b2, b3], [c0, c1, c2, c3], [d0, d1, d2, d3]]
            .map(u32::from_ne_bytes)
    }

    #[inline(always)]
    fn to_next_hop(self) -> V6 {
        self
    }

    /// RFC 4291 §2.5.6.
    #[inline(always)]
    fn is_link_local(self) -> bool {
        u32::from_be(self[0]) >> 22 == 0xfe80 >> 6
    }

    /// Hop-by-hop options, which come first: a router alert (RFC 2711), and whatever the kernel knows.
    #[inline(always)]
    fn has_options_for_routers<P: Packet>(packet: &P) -> bool {
        let next_and_hops = packet.read::<1>(ETHERNET_LEN + NEXT_HEADER_AT);
        next_and_hops.is_none_or(|[word]| word.to_ne_bytes()[0] == HOP_BY_HOP)
    }

    #[inline(always)]
    fn header<P: Packet>(packet: &mut P) -> Result<Ip<Self>, Reason> {
        if !packet.pull(ETHERNET_LEN + HEADER_LEN) {
            return Err(Reason::Malformed);
        }
        let h = packet.read::<20>(ETHERNET_LEN).ok_or(Reason::Malformed)?;
        let payload_len = u32::from(u16::from_be(h[2]));
        // Merged segments may be longer than the field can say; the kernel then leaves it zero.
        let announced = if packet.segment_payload() == 0 { payload_len } else { 0 };
        if h[0].to_ne_bytes()[0] >> 4 != 6
            || ETHERNET_LEN + HEADER_LEN + announced > packet.frame_len()
        {
            return Err(Reason::Malformed);
        }
        let mut ip = ip(&h, ETHERNET_LEN + HEADER_LEN);
        Self::check_addresses(ip.source, ip.destination)?;
        follow(packet, &mut ip)?;
        Ok(ip)
    }

    /// Multicast, `::`, `::1`, and IPv4 addresses in IPv6's clothes.
    #[inline(always)]
    fn is_never_a_source(self) -> bool {
        let [a, b, c, d] = self;
        let is_low = a == 0 && b == 0;
        a.to_ne_bytes()[0] == 0xff || is_low && c == 0 && u32::from_be(d) <= 1 || is_mapped(self)
    }

    #[inline(always)]
    fn plain_header<P: Packet>(packet: &P) -> Option<Ip<Self>> {
        let near = packet.reach(ETHERNET_LEN + HEADER_LEN)?;
        let h = packet.load::<20>(near, ETHERNET_LEN);
        let ip = ip(&h, ETHERNET_LEN + HEADER_LEN);
        // A transport that has a flow is no extension header.
        let is_plain = h[0].to_ne_bytes()[0] >> 4 == 6
            && packet.segment_payload() == 0
            && ETHERNET_LEN + ip.total_len <= packet.frame_len();
        is_plain.then_some(ip)
    }

    #[inline(always)]
    fn quoted<P: Packet>(packet: &mut P, at: u32, end: u32) -> Option<Ip<Self>> {
        if at + HEADER_LEN > end || !packet.pull(at + HEADER_LEN) {
            return None;
        }
        let h = packet.read::<20>(at)?;
        if h[0].to_ne_bytes()[0] >> 4 != 6 {
            return None;
        }
        let mut ip = ip(&h, at + HEADER_LEN);
        // A packet of a flow that came with other extension headers is quoted behind them, and not recognised.
        if ip.protocol == FRAGMENT {
            let behind = at + HEADER_LEN + EXTENSION_LEN;
            if behind > end || !packet.pull(behind) {
                return None;
            }
            let [first, second, third, fourth] = packet.read::<4>(at + HEADER_LEN)?;
            note_fragment(&mut ip, second, word([third, fourth]));
            ip.protocol = first.to_ne_bytes()[0];
            ip.transport_at = behind;
        }
        Some(ip)
    }

    #[inline(always)]
    fn icmp(first: u16) -> Option<Kind> {
        match first.to_ne_bytes() {
            [ECHO_REQUEST, 0] => Some(Kind::EchoRequest),
            [ECHO_REPLY, 0] => Some(Kind::EchoReply),
            [UNREACHABLE..=PARAMETER_PROBLEM, _] => Some(Kind::Error),
            [ROUTER_SOLICITATION..=REDIRECT, _] => None,
            _ => Some(Kind::Other),
        }
    }

    #[inline(always)]
    fn write_addresses<P: Packet>(
        packet: &mut P,
        at: u32,
        source: Self,
        destination: Self,
        change: Delta,
    ) -> Option<Delta> {
        packet.write(at + ADDRESSES_AT, all_words(source))?;
        packet.write(at + ADDRESSES_AT + 16, all_words(destination))?;
        Some(change)
    }

    /// RFC 2473 §6, with the inner header's traffic class and flow label (RFC 6040 §4.1, RFC 6438 §3).
    #[inline(always)]
    fn write_outer<P: Packet>(
        packet: &mut P,
        source: Self,
        destination: Self,
        len: u32,
        has_udp: bool,
    ) -> Option<()> {
        let inner_at = ETHERNET_LEN + HEADER_LEN + if has_udp { UDP_LEN } else { 0 };
        if !packet.pull(inner_at + HEADER_LEN) {
            return None;
        }
        let [class, label] = packet.read::<2>(inner_at)?;
        let next = if has_udp { UDP } else { IP6_IN_IP6 };
        let payload_len = ((len - HEADER_LEN) as u16).to_be();
        let next_and_hops = u16::from_ne_bytes([next, OUTER_TTL]);
        let first = [class, label, payload_len, next_and_hops];
        packet.write(ETHERNET_LEN, first)?;
        packet.write(ETHERNET_LEN + ADDRESSES_AT, all_words(source))?;
        packet.write(ETHERNET_LEN + ADDRESSES_AT + 16, all_words(destination))?;
        // No checksum makes up for it.
        packet.note_change(sum_of_words(first, source, destination));
        Some(())
    }

    #[inline(always)]
    fn header_len(header: &Header) -> u32 {
        HEADER_LEN + if header.is_fragment() { EXTENSION_LEN } else { 0 }
    }

    /// RFC 7915 §4.1.
    #[inline(always)]
    fn write_header<P: Packet>(
        packet: &mut P,
        at: u32,
        source: Self,
        destination: Self,
        header: &Header,
    ) -> Option<Delta> {
        let is_fragment = header.is_fragment();
        let len = header.payload_len + if is_fragment { EXTENSION_LEN } else { 0 };
        let next = if is_fragment { FRAGMENT } else { header.protocol };
        let first = first_words(header, next, len);
        packet.write(at, first)?;
        packet.write(at + ADDRESSES_AT, all_words(source))?;
        packet.write(at + ADDRESSES_AT + 16, all_words(destination))?;
        let sum = sum_of_words(first, source, destination);
        if !is_fragment {
            return Some(sum);
        }
        let more = u16::from(header.fragment & MORE_FRAGMENTS != 0);
        let [high, low] = words(header.identification.to_be());
        let protocol = u16::from_ne_bytes([header.protocol, 0]);
        let extension = [protocol, (header.fragment << 3 | more).to_be(), high, low];
        packet.write(at + HEADER_LEN, extension)?;
        Some(sum.and(Delta::of([0; 4], extension)))
    }

    #[inline(always)]
    fn is_header_right<P: Packet>(_: &P) -> bool {
        true
    }

    #[inline(always)]
    fn sum_of_header<P: Packet>(packet: &P) -> Option<Delta> {
        let first = Delta::of([0; 10], packet.read::<10>(ETHERNET_LEN)?);
        Some(first.and(Delta::of([0; 10], packet.read::<10>(ETHERNET_LEN + 20)?)))
    }

    #[inline(always)]
    fn store_header<P: Packet>(
        packet: &mut P,
        near: P::Near,
        source: Self,
        destination: Self,
        header: &Header,
    ) -> Delta {
        let first = first_words(header, header.protocol, header.payload_len);
        packet.store(near, ETHERNET_LEN, first);
        packet.store(near, ETHERNET_LEN + ADDRESSES_AT, all_words(source));
        packet.store(near, ETHERNET_LEN + ADDRESSES_AT + 16, all_words(destination));
        sum_of_words(first, source, destination)
    }

    #[inline(always)]
    fn is_header_in_reach_right<P: Packet>(_: &P, _: P::Near) -> bool {
        true
    }

    #[inline(always)]
    fn sum_of_last_bytes(ip: &Ip<Self>) -> Delta {
        let [.., last] = ip.source;
        Delta::between(0, last.sum() + ip.destination.sum())
    }

    #[inline(always)]
    fn class_in(first: u16) -> u8 {
        (u16::from_be(first) >> 4) as u8
    }

    #[inline(always)]
    fn identification(as_loaded: u32) -> u32 {
        u32::from_be(as_loaded)
    }

    #[inline(always)]
    fn error_across(first: u16, number: u32, shorter: i32, _: u32) -> Option<(u16, u32)> {
        across::v6_to_v4(first.to_ne_bytes(), number, shorter)
    }

    #[inline(always)]
    fn says_quoted_len(first: u16) -> bool {
        matches!(first.to_ne_bytes()[0], UNREACHABLE | TIME_EXCEEDED)
    }

    #[inline(always)]
    fn write_ttl<P: Packet>(packet: &mut P, ttl: u8) -> Option<()> {
        let [old] = packet.read::<1>(NEXT_AT)?;
        let [next, _] = old.to_ne_bytes();
        let new = u16::from_ne_bytes([next, ttl]);
        packet.write(NEXT_AT, [new])?;
        // No checksum of a header makes up for it.
        packet.note_change(Delta::of([old], [new]));
        Some(())
    }

    #[inline(always)]
    fn write_hop<P: Packet>(packet: &mut P, near: P::Near, ip: &Ip<Self>, to: &Translation<Self>) {
        packet.store(near, NEXT_AT, [u16::from_ne_bytes([ip.protocol, ip.ttl.wrapping_sub(1)])]);
        packet.store(near, ETHERNET_LEN + ADDRESSES_AT, all_words(to.source));
        packet.store(near, ETHERNET_LEN + ADDRESSES_AT + 16, all_words(to.destination));
        // No checksum of a header makes up for it.
        packet.note_change(ONE_HOP);
    }

    #[inline(always)]
    fn route<T: Tables>(tables: &T, destination: Self, hash: impl FnOnce() -> u32) -> Route {
        let [a, b, c, d] = destination.map(|word| u64::from(u32::from_be(word)));
        fib6::lookup6(tables, [a << 32 | b, c << 32 | d], hash)
    }
}

/// What a header begins with, before its addresses.
#[inline(always)]
fn first_words(header: &Header, next: u8, len: u32) -> [u16; 4] {
    // Merged segments may be longer than the field can say; the kernel then leaves it zero.
    let len = if len > u32::from(u16::MAX) { 0 } else { len };
    let class = (0x6000 | u16::from(header.class) << 4).to_be();
    [class, 0, (len as u16).to_be(), u16::from_ne_bytes([next, header.ttl])]
}

/// The sum of a header that begins with these words.
#[inline(always)]
fn sum_of_words(first: [u16; 4], source: V6, destination: V6) -> Delta {
    Delta::of([0; 4], first).and(Delta::between(0, source.sum() + destination.sum()))
}

#[inline(always)]
fn all_words(address: V6) -> [u16; 8] {
    let [[a, b], [c, d], [e, f], [g, h]] = address.map(words);
    [a, b, c, d, e, f, g, h]
}

#[inline(always)]
fn ip(h: &[u16; 20], transport_at: u32) -> Ip<V6> {
    let address = |at: usize| {
        [
            word([h[at], h[at + 1]]),
            word([h[at + 2], h[at + 3]]),
            word([h[at + 4], h[at + 5]]),
            word([h[at + 6], h[at + 7]]),
        ]
    };
    let [protocol, ttl] = h[3].to_ne_bytes();
    Ip {
        source: address(4),
        destination: address(12),
        protocol,
        ttl,
        // Only senders fragment (RFC 8200 §4.5).
        fragment: DONT_FRAGMENT,
        identification: 0,
        total_len: HEADER_LEN + u32::from(u16::from_be(h[2])),
        transport_at,
    }
}

/// Follows the extension headers to the transport (RFC 8200 §4). Options are for hosts, and hop-by-hop ones for routers: the kernel
/// minds those of routed packets, nobody those of flows, as routers may do (RFC 9673).
#[inline(always)]
fn follow<P: Packet>(packet: &mut P, ip: &mut Ip<V6>) -> Result<(), Reason> {
    let mut extensions = 0;
    while extensions < MAX_EXTENSIONS {
        extensions += 1;
        if !matches!(ip.protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS) {
            return Ok(());
        }
        let at = ip.transport_at;
        if at > ETHERNET_LEN + HEADER_LEN + MAX_EXTENSIONS_LEN {
            return Err(Reason::ExtensionHeaders);
        }
        if at + EXTENSION_LEN > ETHERNET_LEN + ip.total_len && packet.segment_payload() == 0
            || !packet.pull(at + EXTENSION_LEN)
        {
            return Err(Reason::Malformed);
        }
        let [first, second, third, fourth] = packet.read::<4>(at).ok_or(Reason::Malformed)?;
        let [next, len] = first.to_ne_bytes();
        if ip.protocol == FRAGMENT {
            note_fragment(ip, second, word([third, fourth]));
            ip.protocol = next;
            ip.transport_at = at + EXTENSION_LEN;
            if ip.is_later_fragment() {
                return Ok(());
            }
            continue;
        }
        if ip.is_fragment() {
            ip.fragment |= BURIED;
        }
        // Whom a routing header is still to lead on is a matter of policy (RFC 5095, RFC 8754).
        if ip.protocol == ROUTING && second.to_ne_bytes()[1] != 0 {
            return Err(Reason::ExtensionHeaders);
        }
        ip.protocol = next;
        ip.transport_at = at + EXTENSION_LEN + u32::from(len) * 8;
    }
    Err(Reason::ExtensionHeaders)
}

/// Notes what a fragment header says (RFC 8200 §4.5).
#[inline(always)]
fn note_fragment(ip: &mut Ip<V6>, offset_and_more: u16, identification: u32) {
    let offset_and_more = u16::from_be(offset_and_more);
    let more = if offset_and_more & 1 == 0 { 0 } else { MORE_FRAGMENTS };
    ip.fragment = DONT_FRAGMENT | more | offset_and_more >> 3;
    ip.identification = identification;
}
