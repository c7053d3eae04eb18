//! Hashes with a key of their own: neighbours choose prefixes and attributes, so they must not know
//! the buckets, and the simulation needs the same order from the same seed.

use std::hash::{BuildHasher, DefaultHasher, Hasher};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// A secret key, and the factors that follow from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keyed {
    key: [u64; 2],
    factors: [u128; 4],
}

impl BuildHasher for Keyed {
    type Hasher = DefaultHasher;

    /// SipHash behind two secret words.
    fn build_hasher(&self) -> DefaultHasher {
        keyed(self.key)
    }
}

fn keyed(key: [u64; 2]) -> DefaultHasher {
    let mut hasher = DefaultHasher::new();
    key.into_iter().for_each(|word| hasher.write_u64(word));
    hasher
}

impl Keyed {
    pub(crate) fn new(key: [u64; 2]) -> Self {
        let word = |number: u8| {
            let mut hasher = keyed(key);
            hasher.write_u8(number);
            u128::from(hasher.finish())
        };
        Self { key, factors: [0, 2, 4, 6].map(|number| word(number) << 64 | word(number + 1)) }
    }

    /// A prefix's hash, for three multiplications: a table of a million is asked for each route.
    ///
    /// Multiply-add-shift (Dietzfelbinger 1996) over 128-bit factors is strongly universal: whoever
    /// does not know them finds no two prefixes that fall together more often than by chance.
    pub(crate) fn prefix(self, prefix: &IpNetwork) -> u64 {
        let [high, low, length, sum] = self.factors;
        let bits = match prefix.ip() {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        };
        let hash = high
            .wrapping_mul(bits >> 64)
            .wrapping_add(low.wrapping_mul(bits & u128::from(u64::MAX)))
            .wrapping_add(length.wrapping_mul(prefix.prefix().into()))
            .wrapping_add(sum);
        (hash >> 64) as u64
    }
}
