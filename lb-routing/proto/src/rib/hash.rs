//! Hashes with a key of their own: neighbours choose prefixes and attributes, so they must not know
//! the buckets, and the simulation needs the same order from the same seed.

use std::hash::{BuildHasher, DefaultHasher, Hasher};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// A secret key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keyed(pub(crate) u64);

impl BuildHasher for Keyed {
    type Hasher = DefaultHasher;

    /// SipHash behind a secret first word.
    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

impl Keyed {
    /// A prefix's hash, for two multiplications: a table of a million is asked for each route.
    pub(crate) fn prefix(self, prefix: &IpNetwork) -> u64 {
        let length = u64::from(prefix.prefix());
        let bits = match prefix.ip() {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                self.fold((bits >> 64) as u64) ^ (bits as u64).rotate_left(32)
            }
        };
        self.fold(self.fold(bits) ^ length)
    }

    /// Both halves of a 128-bit product, whose factors both depend on the key.
    const fn fold(self, value: u64) -> u64 {
        let product = (value ^ self.0) as u128 * (self.0.rotate_left(29) | 1) as u128;
        (product >> 64) as u64 ^ product as u64
    }
}
