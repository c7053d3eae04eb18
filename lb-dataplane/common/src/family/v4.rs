//! IPv4 (RFC 791).

use super::{Family, Header, OUTER_TTL, UDP_LEN, V4, V6, across, word, words};
use crate::checksum::{self, Delta};
use crate::fib::{self, Route};
use crate::flow::{Translation, UDP};
use crate::packet::Packet;
use crate::parse::{DONT_FRAGMENT, ETHERNET_LEN, FRAGMENT, Ip, Kind};
use crate::pipeline::NEXT_HOP_V4;
use crate::reason::Reason;
use crate::tables::Tables;

const HEADER_LEN: u32 = 20;
/// The first byte of a header without options.
const PLAIN: u8 = 0x45;
/// The longest packet that IPv6 makes of 1280 bytes, which every sender may send.
pub(crate) const SHORT: u32 = 1260;
/// Where the time to live is, in the frame.
const TTL_AT: u32 = ETHERNET_LEN + 8;
/// Where the header's checksum is, in the header. The addresses follow it.
const CHECKSUM_AT: u32 = 10;
/// What one less to live does to the sum of the header, as long as that was not zero.
const ONE_HOP: Delta = Delta(!u16::from_ne_bytes([1, 0]));
const ECHO_REQUEST: u8 = 8;
/// The protocol number of IPv4 within IP.
const IP_IN_IP: u8 = 4;
const UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

impl Family for V4 {
    type Other = V6;

    const APART: bool = false;
    const IS_V6: bool = false;
    const HEADER_LEN: u32 = HEADER_LEN;
    const ICMP: u8 = 1;
    const ECHO_REQUEST: u16 = u16::from_ne_bytes([ECHO_REQUEST, 0]);
    const ECHO_REPLY: u16 = 0;
    const ICMP_COVERS_ADDRESSES: bool = false;
    const ADDRESS_WORDS: usize = 1;
    const NEXT_HOP: u32 = NEXT_HOP_V4;
    const QUOTED_SHORT: usize = 28;
    const QUOTED_TCP: usize = 40;
    const QUOTED_LEN_BIT: u32 = 16;
    const QUOTED_UNIT: u32 = 4;

    #[inline(always)]
    fn address_word(source: Self, destination: Self, _: usize) -> u64 {
        u64::from(source) | u64::from(destination) << 32
    }

    #[inline(always)]
    fn wide_sum(self) -> u64 {
        self.into()
    }

    #[inline(always)]
    fn delta(old: Self, new: Self) -> Delta {
        Delta::of(words(old), words(new))
    }

    #[inline(always)]
    fn fold(source: Self, destination: Self) -> u64 {
        u64::from(u32::from_be(source)) << 32 | u64::from(u32::from_be(destination))
    }

    #[inline(always)]
    fn to_v6(self) -> V6 {
        [0, 0, 0xffff_u32.to_be(), self]
    }

    #[inline(always)]
    fn from_v6([_, _, _, address]: V6) -> Self {
        address
    }

    #[inline(always)]
    fn from_bytes(bytes: [u8; 16]) -> Self {
        let [_, _, _, _, _, _, _, _, _, _, _, _, a, b, c, d] = bytes;
        u32::from_ne_bytes([a, b, c, d])
    }

    #[inline(always)]
    fn to_next_hop(self) -> V6 {
        [self, 0, 0, 0]
    }

    /// RFC 3927.
    #[inline(always)]
    fn is_link_local(self) -> bool {
        u32::from_be(self) >> 16 == 169 << 8 | 254
    }

    #[inline(always)]
    fn has_options_for_routers<P: Packet>(_: &P) -> bool {
        true
    }

    #[inline(always)]
    fn header<P: Packet>(packet: &mut P) -> Result<Ip<Self>, Reason> {
        if !packet.pull(ETHERNET_LEN + HEADER_LEN) {
            return Err(Reason::Malformed);
        }
        let ip = read(packet).ok_or(Reason::Malformed)?;
        Self::check_addresses(ip.source, ip.destination)?;
        Ok(ip)
    }

    /// 0/8, 127/8, and everything from 224/4 on.
    #[inline(always)]
    fn is_never_a_source(self) -> bool {
        let first = u32::from_be(self) >> 24;
        first == 0 || first == 127 || first >= 224
    }

    #[inline(always)]
    fn plain_header<P: Packet>(packet: &P) -> Option<Ip<Self>> {
        let near = packet.reach(ETHERNET_LEN + HEADER_LEN)?;
        let h = packet.load::<10>(near, ETHERNET_LEN);
        let ip = ip(&h, ETHERNET_LEN + HEADER_LEN);
        let is_plain = h[0].to_ne_bytes()[0] == PLAIN
            && !ip.is_fragment()
            && packet.segment_payload() == 0
            && ip.total_len >= HEADER_LEN
            && ETHERNET_LEN + ip.total_len <= packet.frame_len();
        is_plain.then_some(ip)
    }

    #[inline(always)]
    fn quoted<P: Packet>(packet: &mut P, at: u32, end: u32) -> Option<Ip<Self>> {
        if at + HEADER_LEN > end || !packet.pull(at + HEADER_LEN) {
            return None;
        }
        let h = packet.read::<10>(at)?;
        let [version_and_len, _] = h[0].to_ne_bytes();
        let header_len = u32::from(version_and_len & 0x0f) * 4;
        if version_and_len >> 4 != 4 || header_len < HEADER_LEN {
            return None;
        }
        Some(ip(&h, at + header_len))
    }

    #[inline(always)]
    fn icmp(first: u16) -> Option<Kind> {
        match first.to_ne_bytes() {
            [ECHO_REQUEST, 0] => Some(Kind::EchoRequest),
            [0, 0] => Some(Kind::EchoReply),
            [UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM, _] => Some(Kind::Error),
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
        let [old] = packet.read::<1>(at + CHECKSUM_AT)?;
        let new = checksum::update(old, change);
        let ([s0, s1], [d0, d1]) = (words(source), words(destination));
        packet.write(at + CHECKSUM_AT, [new, s0, s1, d0, d1])?;
        Some(change.and(Delta::of([old], [new])))
    }

    /// RFC 2003 §3.1, with the inner header's DSCP and ECN (RFC 6040 §4.1). It is not to be fragmented, so it needs no
    /// identification (RFC 6864 §4.1).
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
        let [first] = packet.read::<1>(inner_at)?;
        let [_, class] = first.to_ne_bytes();
        let next = if has_udp { UDP } else { IP_IN_IP };
        let ([s0, s1], [d0, d1]) = (words(source), words(destination));
        let mut header = [
            u16::from_ne_bytes([PLAIN, class]),
            (len as u16).to_be(),
            0,
            DONT_FRAGMENT.to_be(),
            u16::from_ne_bytes([OUTER_TTL, next]),
            0,
            s0,
            s1,
            d0,
            d1,
        ];
        // The difference to nothing is the sum.
        header[5] = !Delta::of([0; 10], header).0;
        packet.write(ETHERNET_LEN, header)
    }

    #[inline(always)]
    fn header_len(_: &Header) -> u32 {
        HEADER_LEN
    }

    /// RFC 7915 §5.1: a whole packet that may come from a sender that cannot make it shorter may be fragmented. Of merged
    /// segments the header says whether they are so short.
    #[inline(always)]
    fn write_header<P: Packet>(
        packet: &mut P,
        at: u32,
        source: Self,
        destination: Self,
        header: &Header,
    ) -> Option<Delta> {
        packet.write(at, header_words(source, destination, header))?;
        // Its checksum makes up for all else.
        Some(Delta::default())
    }

    #[inline(always)]
    fn is_header_right<P: Packet>(packet: &P) -> bool {
        // The sum of what is as its checksum says is ones.
        Self::sum_of_header(packet).is_some_and(|sum| sum.0 == 0xffff)
    }

    #[inline(always)]
    fn sum_of_header<P: Packet>(packet: &P) -> Option<Delta> {
        Some(Delta::of([0; 10], packet.read::<10>(ETHERNET_LEN)?))
    }

    #[inline(always)]
    fn store_header<P: Packet>(
        packet: &mut P,
        near: P::Near,
        source: Self,
        destination: Self,
        header: &Header,
    ) -> Delta {
        packet.store(near, ETHERNET_LEN, header_words(source, destination, header));
        Delta::default()
    }

    #[inline(always)]
    fn is_header_in_reach_right<P: Packet>(packet: &P, near: P::Near) -> bool {
        Delta::of([0; 10], packet.load::<10>(near, ETHERNET_LEN)).0 == 0xffff
    }

    #[inline(always)]
    fn sum_of_last_bytes(_: &Ip<Self>) -> Delta {
        Delta::default()
    }

    #[inline(always)]
    fn class_in(first: u16) -> u8 {
        let [_, class] = first.to_ne_bytes();
        class
    }

    #[inline(always)]
    fn identification(as_loaded: u32) -> u32 {
        u32::from(u16::from_be(as_loaded as u16))
    }

    #[inline(always)]
    fn error_across(first: u16, number: u32, shorter: i32, len: u32) -> Option<(u16, u32)> {
        across::v4_to_v6(first.to_ne_bytes(), number, shorter, len)
    }

    #[inline(always)]
    fn says_quoted_len(first: u16) -> bool {
        matches!(first.to_ne_bytes()[0], UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM)
    }

    #[inline(always)]
    fn write_ttl<P: Packet>(packet: &mut P, ttl: u8) -> Option<()> {
        let [old, checksum] = packet.read::<2>(TTL_AT)?;
        let [_, protocol] = old.to_ne_bytes();
        let new = u16::from_ne_bytes([ttl, protocol]);
        packet.write(TTL_AT, [new, checksum::update(checksum, Delta::of([old], [new]))])
    }

    #[inline(always)]
    fn write_hop<P: Packet>(packet: &mut P, near: P::Near, ip: &Ip<Self>, to: &Translation<Self>) {
        let [checksum] = packet.load(near, ETHERNET_LEN + CHECKSUM_AT);
        let new = u16::from_ne_bytes([ip.ttl.wrapping_sub(1), ip.protocol]);
        let checksum = checksum::update_twice(checksum, to.addresses, ONE_HOP);
        let ([s0, s1], [d0, d1]) = (words(to.source), words(to.destination));
        packet.store(near, TTL_AT, [new, checksum, s0, s1, d0, d1]);
    }

    #[inline(always)]
    fn route<T: Tables>(tables: &T, destination: Self, hash: impl FnOnce() -> u32) -> Route {
        fib::lookup4(tables, u32::from_be(destination), hash)
    }
}

/// A whole header.
#[inline(always)]
fn header_words(source: V4, destination: V4, header: &Header) -> [u16; 10] {
    let len = HEADER_LEN + header.payload_len;
    let may_be_fragmented = header.is_fragment() || header.may_be_fragmented;
    let must_stay_whole = !may_be_fragmented && len > SHORT;
    let whole = if must_stay_whole { DONT_FRAGMENT } else { 0 };
    // Merged segments may be longer than the field can say; the kernel then leaves it zero.
    let len = if len > u32::from(u16::MAX) { 0 } else { len };
    let ([s0, s1], [d0, d1]) = (words(source), words(destination));
    let mut written = [
        u16::from_ne_bytes([PLAIN, header.class]),
        (len as u16).to_be(),
        if must_stay_whole { 0 } else { (header.identification as u16).to_be() },
        (header.fragment & FRAGMENT | whole).to_be(),
        u16::from_ne_bytes([header.ttl, header.protocol]),
        0,
        s0,
        s1,
        d0,
        d1,
    ];
    written[5] = !Delta::of([0; 10], written).0;
    written
}

#[inline(always)]
fn read<P: Packet>(packet: &P) -> Option<Ip<V4>> {
    let h = packet.read::<10>(ETHERNET_LEN)?;
    let [version_and_len, _] = h[0].to_ne_bytes();
    let header_len = u32::from(version_and_len & 0x0f) * 4;
    let total_len = u32::from(u16::from_be(h[1]));
    // Merged segments may be longer than the field can say; the kernel then leaves it zero.
    let announced = if packet.segment_payload() == 0 { total_len } else { header_len };
    if version_and_len >> 4 != 4
        || header_len < HEADER_LEN
        || announced < header_len
        || ETHERNET_LEN + announced > packet.frame_len()
    {
        return None;
    }
    Some(ip(&h, ETHERNET_LEN + header_len))
}

#[inline(always)]
fn ip(h: &[u16; 10], transport_at: u32) -> Ip<V4> {
    let [ttl, protocol] = h[4].to_ne_bytes();
    let fragment = u16::from_be(h[3]);
    Ip {
        source: word([h[6], h[7]]),
        destination: word([h[8], h[9]]),
        protocol,
        ttl,
        fragment: fragment & (DONT_FRAGMENT | FRAGMENT),
        identification: u32::from(h[2]),
        total_len: u32::from(u16::from_be(h[1])),
        transport_at,
    }
}
