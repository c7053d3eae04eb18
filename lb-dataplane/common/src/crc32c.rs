//! CRC32c, SCTP's checksum (RFC 9260 appendix A), changed in place: it is linear, so a changed word changes it by that word's
//! difference, moved by as many bytes as follow. No other byte of the packet is read.
//!
//! A sum is a polynomial over GF(2) whose highest bit is `x^0`, as the sum's bits travel.

/// The generator without its highest power.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// `x^0`.
const ONE: u32 = 1 << 31;
/// Distances that take one table's entry.
const NEAR: usize = 2048;
/// As many times as far: 64 KiB, more than any packet has.
const FAR: usize = 32;
/// What a byte's distance multiplies by: `x^(8 n)`.
static NEAR_POWERS: [u32; NEAR] = powers(ONE >> 8);
/// The same of 2,048 bytes.
static FAR_POWERS: [u32; FAR] = powers(multiply(NEAR_POWERS[NEAR - 1], ONE >> 8));

/// The powers of a polynomial.
const fn powers<const N: usize>(of: u32) -> [u32; N] {
    let mut powers = [ONE; N];
    let mut n = 1;
    while n < N {
        powers[n] = multiply(powers[n - 1], of);
        n += 1;
    }
    powers
}

/// The product of two polynomials, modulo the generator. Without branches, which the verifier would follow each.
#[inline(always)]
const fn multiply(mut a: u32, mut b: u32) -> u32 {
    let (mut product, mut bits) = (0, 0);
    while bits < u32::BITS {
        product ^= b & 0_u32.wrapping_sub(a >> 31);
        a <<= 1;
        b = (b >> 1) ^ (POLYNOMIAL & 0_u32.wrapping_sub(b & 1));
        bits += 1;
    }
    product
}

/// What a word's difference does to the sum of a packet that has `rest` bytes from that word on, itself included.
#[must_use]
#[inline(always)]
pub fn moved(difference: u32, rest: u32) -> u32 {
    let near = multiply(difference, NEAR_POWERS[rest as usize & (NEAR - 1)]);
    multiply(near, FAR_POWERS[(rest as usize / NEAR) & (FAR - 1)])
}

/// [`moved`] of the highest bit of a word's first byte, of a packet with fewer than 2,045 bytes from there on.
#[must_use]
#[inline(always)]
pub fn moved_highest_bit(rest: u32) -> u32 {
    // The bit is `x^24` itself.
    NEAR_POWERS[(rest as usize + 3) & (NEAR - 1)]
}

/// A sum after a change. Zero stays zero: it says that there is none (RFC 9653), or that a device is to make it. A sum that
/// happens to be zero is taken for none; it is one of four thousand million.
#[must_use]
#[inline(always)]
pub fn update(sum: u32, change: u32) -> u32 {
    if sum == 0 { 0 } else { sum ^ change }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::crc32c;

    #[test]
    fn sums_from_scratch_are_those_of_rfc_3720() {
        // RFC 3720 appendix B.4.
        assert_eq!(crc32c(&[&[0; 32]]), 0x8a91_36aa);
        assert_eq!(crc32c(&[&[0xff; 32]]), 0x62a8_ab43);
        let counting: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&[&counting]), 0x46dd_794e);
    }

    proptest! {
        #[test]
        fn an_update_equals_summing_anew(
            mut bytes in prop::collection::vec(any::<u8>(), 4..9000),
            word: [u8; 4],
            at: prop::sample::Index,
        ) {
            let at = at.index(bytes.len() - 3);
            let before = crc32c(&[&bytes]);
            let old: [u8; 4] = bytes[at..at + 4].try_into().expect("four bytes");
            bytes[at..at + 4].copy_from_slice(&word);
            let difference = u32::from_le_bytes(old) ^ u32::from_le_bytes(word);
            let change = moved(difference, (bytes.len() - at) as u32);
            prop_assert_eq!(before ^ change, crc32c(&[&bytes]));
        }

        #[test]
        fn a_sum_follows_a_packet_of_any_length(len in 4_usize..65_536, difference: u32) {
            let mut bytes = vec![0; len];
            let before = crc32c(&[&bytes]);
            bytes[..4].copy_from_slice(&difference.to_le_bytes());
            prop_assert_eq!(before ^ moved(difference, len as u32), crc32c(&[&bytes]));
        }

        #[test]
        fn the_highest_bit_moves_as_any_other(rest in 4_u32..2045) {
            prop_assert_eq!(moved_highest_bit(rest), moved(0x80, rest));
        }
    }

    #[test]
    fn no_sum_stays_none() {
        assert_eq!(update(0, 7), 0);
        assert_eq!(update(8, 7), 15);
    }
}
