//! A hasher with a key of its own: neighbours choose prefixes, so they must not know the buckets, and
//! the simulation needs the same order from the same seed.

use std::hash::{BuildHasher, DefaultHasher, Hasher};

/// SipHash behind a secret first word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keyed(pub(crate) u64);

impl BuildHasher for Keyed {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}
