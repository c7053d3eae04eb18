//! ICMP errors of one family as the other has them (RFC 7915 §4.2, §5.2).
//!
//! Extensions (RFC 4884) follow what is quoted, which gets longer or shorter: an error says how long it is, in units of its family
//! and 128 bytes at least, so there may have to be zeroes behind it. What extensions say is carried over unread.

use super::Family;
use crate::packet::MOST_ZEROES;

/// What is quoted before extensions at least (RFC 4884 §3).
const LEAST_QUOTED: u32 = 128;
/// The most units of what is quoted that an error can say.
const MOST_UNITS: u32 = 255;

/// What every IPv6 link carries (RFC 8200 §5): nobody is told of less.
const V6_LEAST_MTU: u32 = 1280;

/// Where ICMPv6's "parameter problem" and ICMP's "protocol unreachable" meet: the field that names the protocol.
const NEXT_HEADER_AT: u32 = 6;

/// RFC 7915 §4.2. ICMP has its next hop's MTU in the lower half of the number, its pointer in the highest byte. `len` is that of
/// the packet that is quoted.
#[inline(always)]
pub(super) fn v4_to_v6(
    [kind, code]: [u8; 2],
    number: u32,
    shorter: i32,
    len: u32,
) -> Option<(u16, u32)> {
    let (to, number) = match (kind, code) {
        (3, 2) => ([4, 1], NEXT_HEADER_AT),
        (3, 3) => ([1, 4], 0),
        (3, 4) => {
            let mtu = if number & 0xffff == 0 { plateau_below(len) } else { number & 0xffff };
            ([2, 0], resized(mtu, shorter).max(V6_LEAST_MTU))
        }
        (3, 9 | 10 | 13 | 15) => ([1, 1], 0),
        (3, 0 | 1 | 5..=8 | 11 | 12) => ([1, 0], 0),
        (11, code) => ([3, code], 0),
        (12, 0 | 2) => ([4, 0], v6_field(number >> 24)?),
        _ => return None,
    };
    Some((u16::from_ne_bytes(to), number))
}

/// RFC 7915 §5.2.
#[inline(always)]
pub(super) fn v6_to_v4([kind, code]: [u8; 2], number: u32, shorter: i32) -> Option<(u16, u32)> {
    let (to, number) = match (kind, code) {
        (1, 0 | 2 | 3) => ([3, 1], 0),
        (1, 1) => ([3, 10], 0),
        (1, 4) => ([3, 3], 0),
        (2, _) => ([3, 4], resized(number, shorter).min(0xffff)),
        (3, code) => ([11, code], 0),
        (4, 0) => ([12, 0], v4_field(number)? << 24),
        (4, 1) => ([3, 2], 0),
        _ => return None,
    };
    Some((u16::from_ne_bytes(to), number))
}

/// What probably fits where a router does not say it: the next plateau below what did not (RFC 1191 §7.1).
#[inline(always)]
fn plateau_below(len: u32) -> u32 {
    match len {
        32_001.. => 32_000,
        17_915.. => 17_914,
        8_167.. => 8_166,
        4_353.. => 4_352,
        2_003.. => 2_002,
        1_493.. => 1_492,
        _ => 0,
    }
}

/// An MTU for packets that are so much shorter before they are translated.
#[inline(always)]
fn resized(mtu: u32, shorter: i32) -> u32 {
    mtu.saturating_sub_signed(shorter)
}

/// Where a field of IPv4's header is in IPv6's (RFC 7915 figure 3).
#[inline(always)]
fn v6_field(at: u32) -> Option<u32> {
    match at {
        0 | 1 => Some(at),
        2 | 3 => Some(4),
        8 => Some(7),
        9 => Some(6),
        12..=15 => Some(8),
        16..=19 => Some(24),
        _ => None,
    }
}

/// Where a field of IPv6's header is in IPv4's (RFC 7915 figure 6).
#[inline(always)]
fn v4_field(at: u32) -> Option<u32> {
    match at {
        0 | 1 => Some(at),
        4 | 5 => Some(2),
        6 => Some(9),
        7 => Some(8),
        8..=23 => Some(12),
        24..=39 => Some(16),
        _ => None,
    }
}

/// How much an error quotes before its extensions, given its first word and the number behind its checksum; 0 if it has none.
#[inline(always)]
pub(crate) fn quoted_before_extensions<A: Family>(first: u16, number: u32) -> u32 {
    if A::says_quoted_len(first) {
        (number >> A::QUOTED_LEN_BIT & MOST_UNITS) * A::QUOTED_UNIT
    } else {
        0
    }
}

/// How many zeroes have to be between so much that an error of A quotes and its extensions, and the number behind its checksum with
/// that; `None` if it cannot say it, or so little is said to be quoted that it would be more of them than there may be: then what
/// follows is taken for a part of what is quoted.
#[inline(always)]
pub(crate) fn with_extensions<A: Family>(
    first: u16,
    number: u32,
    quoted: u32,
) -> Option<(u32, u32)> {
    let least = if quoted < LEAST_QUOTED { LEAST_QUOTED } else { quoted };
    let units = least.wrapping_add(A::QUOTED_UNIT - 1) / A::QUOTED_UNIT;
    let zeroes = (units * A::QUOTED_UNIT).wrapping_sub(quoted);
    if !A::says_quoted_len(first) || units > MOST_UNITS || zeroes >= MOST_ZEROES {
        return None;
    }
    Some((zeroes, number | units << A::QUOTED_LEN_BIT))
}

#[cfg(test)]
mod tests {
    use super::super::{V4, V6};
    use super::*;

    #[test]
    fn extensions_are_where_the_error_of_either_family_says() {
        let unreachable = [u16::from_ne_bytes([3, 1]), u16::from_ne_bytes([1, 0])];
        // 128 bytes quoted, the most usual.
        assert_eq!(quoted_before_extensions::<V4>(unreachable[0], 32 << 16 | 7), 128);
        assert_eq!(quoted_before_extensions::<V6>(unreachable[1], 16 << 24 | 7), 128);
        assert_eq!(quoted_before_extensions::<V4>(unreachable[0], 0xff00_ffff), 0);
        // ICMPv6's "packet too big" and "parameter problem" have none, nor has ICMP's redirect.
        for kind in [2, 4] {
            assert_eq!(quoted_before_extensions::<V6>(u16::from_ne_bytes([kind, 0]), u32::MAX), 0);
            assert_eq!(with_extensions::<V6>(u16::from_ne_bytes([kind, 0]), 5, 148), None);
        }
        assert_eq!(quoted_before_extensions::<V4>(u16::from_ne_bytes([5, 0]), u32::MAX), 0);
        for (quoted, expected) in [
            // Somebody said less than 128 bytes.
            (56, None),
            (148, Some((4, 19 << 24))),
            (152, Some((0, 19 << 24))),
            (156, Some((4, 20 << 24))),
            (2040, Some((0, 255 << 24))),
            (2044, None),
        ] {
            assert_eq!(with_extensions::<V6>(unreachable[1], 0, quoted), expected, "{quoted}");
        }
        for (quoted, expected) in [
            (96, None),
            (100, Some((28, 32 << 16))),
            (108, Some((20, 32 << 16))),
            (128, Some((0, 32 << 16))),
            (132, Some((0, 33 << 16))),
            (1020, Some((0, 255 << 16))),
            (1028, None),
        ] {
            assert_eq!(with_extensions::<V4>(unreachable[0], 0, quoted), expected, "{quoted}");
        }
        let problem = u16::from_ne_bytes([12, 0]);
        let number = 8 << 24 | 32 << 16;
        assert_eq!(
            with_extensions::<V4>(problem, 8 << 24, 128),
            Some((0, number)),
            "its pointer stays"
        );
    }

    const fn to(kind: u8, code: u8, number: u32) -> Option<(u16, u32)> {
        Some((u16::from_ne_bytes([kind, code]), number))
    }

    #[test]
    fn errors_of_ipv4_are_those_of_rfc_7915_in_ipv6() {
        for (from, number, expected) in [
            ([3, 0], 0, to(1, 0, 0)),
            ([3, 1], 0, to(1, 0, 0)),
            ([3, 2], 0, to(4, 1, 6)),
            ([3, 3], 0, to(1, 4, 0)),
            ([3, 4], 1400, to(2, 0, 1420)),
            ([3, 4], 576, to(2, 0, 1280)),
            ([3, 4], 0, to(2, 0, 1512)),
            ([3, 4], 0xffff, to(2, 0, 65_555)),
            ([3, 5], 0, to(1, 0, 0)),
            ([3, 9], 0, to(1, 1, 0)),
            ([3, 13], 0, to(1, 1, 0)),
            ([3, 14], 0, None),
            ([11, 0], 0, to(3, 0, 0)),
            ([11, 1], 0, to(3, 1, 0)),
            ([12, 0], 9 << 24, to(4, 0, 6)),
            ([12, 0], 13 << 24, to(4, 0, 8)),
            ([12, 0], 4 << 24, None),
            ([12, 1], 0, None),
            ([5, 0], 0, None),
        ] {
            // What is 20 bytes longer behind us.
            assert_eq!(v4_to_v6(from, number, -20, 1500), expected, "{from:?} {number}");
        }
        // Of a router that does not say what fits: the next plateau that is less.
        for (len, expected) in [(1492, 1280), (1493, 1512), (9000, 8186), (65_535, 32_020)] {
            assert_eq!(v4_to_v6([3, 4], 0, -20, len), to(2, 0, expected), "{len}");
        }
    }

    #[test]
    fn errors_of_ipv6_are_those_of_rfc_7915_in_ipv4() {
        for (from, number, expected) in [
            ([1, 0], 0, to(3, 1, 0)),
            ([1, 1], 0, to(3, 10, 0)),
            ([1, 2], 0, to(3, 1, 0)),
            ([1, 4], 0, to(3, 3, 0)),
            ([1, 5], 0, None),
            ([2, 0], 1400, to(3, 4, 1380)),
            ([2, 0], 1_000_000, to(3, 4, 0xffff)),
            ([3, 0], 0, to(11, 0, 0)),
            ([4, 0], 7, to(12, 0, 8 << 24)),
            ([4, 0], 30, to(12, 0, 16 << 24)),
            ([4, 0], 40, None),
            ([4, 1], 6, to(3, 2, 0)),
            ([4, 2], 0, None),
        ] {
            assert_eq!(v6_to_v4(from, number, 20), expected, "{from:?} {number}");
        }
        // A fragment has a header more in IPv6.
        assert_eq!(v6_to_v4([2, 0], 1400, 28), to(3, 4, 1372));
    }
}
