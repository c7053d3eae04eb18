//! Where a key belongs. The hash has a secret that each table draws, so that nobody can send flows that all belong into one bucket, or
//! that have another flow's tag: of two keys that differ, the products that it begins with are the same for one secret in four thousand
//! million, whichever keys they are (NH: Black, Halevi, Krawczyk, Krovetz and Rogaway, "UMAC: Fast and Secure Message Authentication",
//! 1999).

use super::{LIVE, Table};
use crate::family::{Family, V6};
use crate::flow::FlowKey;

/// Words of the secret of a hash: as many as IPv6's keys have.
pub const SECRETS: usize = 5;

/// A key as words.
pub trait Key {
    /// How many.
    const WORDS: usize;
    /// One of them.
    fn word(&self, n: usize) -> u64;
}

impl<A: Family> Key for FlowKey<A> {
    const WORDS: usize = A::ADDRESS_WORDS + 1;

    #[inline(always)]
    fn word(&self, n: usize) -> u64 {
        if n < A::ADDRESS_WORDS {
            return A::address_word(self.source, self.destination, n);
        }
        let ports = u64::from(self.source_port) | u64::from(self.destination_port) << 16;
        ports | u64::from(self.protocol) << 32 | u64::from(self.pad) << 48
    }
}

const _: () = assert!(<FlowKey<V6> as Key>::WORDS == SECRETS);

/// A word of the secret that a table's hash has, of the seed that it has drawn (SplitMix64: Steele, Lea and Flood, "Fast Splittable
/// Pseudorandom Number Generators", 2014).
#[must_use]
pub const fn secret(seed: u64, n: usize) -> u64 {
    let z = seed.wrapping_add((n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Where a key belongs.
#[derive(Clone, Copy)]
pub(super) struct Hash(u64);

impl Hash {
    #[inline(always)]
    pub(super) fn of<K: Key, T: Table<K>>(key: &K, table: &T) -> Self {
        let mut sum = 0_u64;
        let mut n = 0;
        while n < K::WORDS {
            let (word, secret) = (key.word(n), table.secret(n));
            let low = (word as u32).wrapping_add(secret as u32);
            let high = ((word >> 32) as u32).wrapping_add((secret >> 32) as u32);
            sum = sum.wrapping_add(u64::from(low).wrapping_mul(high.into()));
            n += 1;
        }
        // Every bit of the sum is to matter for the bucket and for the tag.
        let h = (sum ^ sum >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let h = (h ^ h >> 29).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(h ^ h >> 32)
    }

    /// The same, as [`Table::anew`] has it.
    #[inline(always)]
    pub(super) fn anew<K, T: Table<K>>(self, table: &T) -> Self {
        Self(table.anew(self.0))
    }

    /// 15 bits, of which never all but the lowest are zeroes.
    #[inline(always)]
    pub(super) fn tag(self) -> u16 {
        let tag = self.0 as u16 & !LIVE;
        // Without a branch: what is 0 or 1 becomes 2 or 3.
        tag | ((u32::from(tag).wrapping_sub(2) >> 31) as u16) << 1
    }

    /// The bucket that it may be in unless there is little room.
    #[inline(always)]
    pub(super) fn first(self, buckets: u32) -> u32 {
        ((self.0 >> 32).wrapping_mul(buckets.into()) >> 32) as u32
    }

    /// Another one than the first.
    #[inline(always)]
    pub(super) fn second(self, buckets: u32) -> u32 {
        let further = self.0.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32;
        let further = further.wrapping_mul(u64::from(buckets) - 1) >> 32;
        let at = u64::from(self.first(buckets)) + 1 + further;
        let buckets = u64::from(buckets);
        (if at >= buckets { at - buckets } else { at }) as u32
    }
}
