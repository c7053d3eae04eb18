//! The Internet checksum, changed in place (RFC 1071, RFC 1624).
//!
//! Sums are over 16-bit words as this machine loads them. One's complement addition does not care, as long as everything
//! is loaded alike (RFC 1071 §2 B).

/// A difference between two sums, folded to 16 bits: what was taken out, complemented, plus what was put in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Delta(pub u16);

impl Delta {
    /// The difference that replacing the words `old` by `new` makes.
    #[must_use]
    #[inline(always)]
    pub fn of<const N: usize>(old: [u16; N], new: [u16; N]) -> Self {
        const { assert!(N <= 16, "two folds suffice for 32 words") };
        let mut sum = 0_u32;
        let mut at = 0;
        while at < N {
            sum += u32::from(!old[at]) + u32::from(new[at]);
            at += 1;
        }
        Self(fold(sum))
    }

    /// The difference that replacing words with one sum by words with another makes; sums of 32 words at most, not folded.
    #[must_use]
    #[inline(always)]
    pub fn between(old: u32, new: u32) -> Self {
        Self(fold(u32::from(!fold(old)) + new))
    }

    /// What takes this difference back.
    #[must_use]
    #[inline(always)]
    pub fn undone(self) -> Self {
        Self(!self.0)
    }

    /// Both differences.
    #[must_use]
    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        Self(fold(u32::from(self.0) + u32::from(other.0)))
    }
}

/// A header's checksum after its words changed by `delta`: RFC 1624 equation 3, `HC' = ~(~HC + ~m + m')`.
#[must_use]
#[inline(always)]
pub fn update(checksum: u16, delta: Delta) -> u16 {
    !fold(u32::from(!checksum) + u32::from(delta.0))
}

/// [`update`] for two differences, one after the other: as adding one of them alone, and folding it, leaves a sum as it is, they may
/// be added at once.
#[must_use]
#[inline(always)]
pub fn update_twice(checksum: u16, one: Delta, other: Delta) -> u16 {
    !fold(u32::from(!checksum) + u32::from(one.0) + u32::from(other.0))
}

/// [`update`] for a checksum whose zero means that there is none (UDP over IPv4, RFC 768): zero stays zero, and a sum that
/// comes out as zero is sent as its other form.
#[must_use]
#[inline(always)]
pub fn update_optional(checksum: u16, delta: Delta) -> u16 {
    if checksum == 0 {
        return 0;
    }
    match update(checksum, delta) {
        0 => 0xffff,
        other => other,
    }
}

/// Whether two sums are the same number; there are two forms of zero.
#[must_use]
#[inline(always)]
pub fn is_same(one: u16, other: u16) -> bool {
    // In this order, so that sums that are not are told apart by two comparisons.
    one == other || one ^ other == 0xffff && (one == 0 || other == 0)
}

/// 1 if two sums are the same number, else 0; by arithmetic alone, for programs whose ways are to be few.
#[must_use]
#[inline(always)]
pub fn sameness(one: u16, other: u16) -> u16 {
    // Their difference is one of the two forms of zero.
    let difference = fold(u32::from(!one) + u32::from(other));
    let beyond = u32::from(difference.wrapping_add(1) >> 1);
    (beyond.wrapping_sub(1) >> 31) as u16
}

/// A sum of words of 32 bits, fewer than 65,536, as one of words of 16 bits: three of them.
#[must_use]
#[inline(always)]
pub fn narrow(sum: u64) -> u32 {
    (sum as u32 & 0xffff) + (sum as u32 >> 16) + (sum >> 32) as u32
}

/// A sum of 32 words at most in 16 bits.
#[inline(always)]
pub(crate) fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 §4.1, the textbook way: over big-endian words, from scratch.
    fn full(bytes: &[u8]) -> u16 {
        let mut sum: u64 = bytes.chunks(2).map(|w| u64::from(w[0]) << 8 | u64::from(w[1])).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn an_update_equals_summing_anew(mut bytes: [u8; 20], new: [u8; 4]) {
            // A header is never all zeroes, which is the one case where the two forms of zero differ.
            bytes[0] = 0x45;
            bytes[10..12].fill(0);
            let word = |b: &[u8]| u16::from_ne_bytes([b[0], b[1]]);
            let checksum = full(&bytes).to_be();
            let old = [word(&bytes[12..]), word(&bytes[14..])];
            bytes[12..16].copy_from_slice(&new);
            let updated = update(checksum, Delta::of(old, [word(&new), word(&new[2..])]));
            prop_assert_eq!(updated, full(&bytes).to_be());
        }
    }

    proptest! {
        #[test]
        fn two_updates_at_once_are_two_updates(checksum: u16, one: u16, other: u16) {
            for (checksum, one, other) in [(checksum, one, other), (u16::MAX, one, 0), (checksum, !checksum, 0)] {
                let (one, other) = (Delta(one), Delta(other));
                let expected = update(update(checksum, one), other);
                prop_assert_eq!(update_twice(checksum, one, other), expected);
                prop_assert_eq!(update(checksum, one.and(other)), expected);
            }
        }
    }

    #[test]
    fn the_example_of_rfc_1624_comes_out_right() {
        // RFC 1624 §4: HC = 0xDD2F, m = 0x5555, m' = 0x3285, HC' = 0x0000.
        let delta = Delta::of([0x5555], [0x3285]);
        assert_eq!(update(0xdd2f, delta), 0);
    }

    #[test]
    fn sums_are_the_same_also_in_the_other_form_of_zero() {
        for (one, other, expected) in [
            (0, 0, true),
            (0, 0xffff, true),
            (0xffff, 0, true),
            (7, 7, true),
            (7, 8, false),
            (0, 1, false),
        ] {
            assert_eq!(is_same(one, other), expected, "{one} {other}");
            assert_eq!(sameness(one, other), u16::from(expected), "{one} {other}");
        }
    }

    #[test]
    fn no_checksum_stays_none_and_a_computed_zero_is_sent_as_ones() {
        let delta = Delta::of([0x5555], [0x3285]);
        assert_eq!(update_optional(0, delta), 0);
        assert_eq!(update_optional(0xdd2f, delta), 0xffff);
    }
}
