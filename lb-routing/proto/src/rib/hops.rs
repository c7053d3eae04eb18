//! The sets of next hops that routes are published with: each once.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

use super::hash::Keyed;
use super::pool::{Id, Pool};

/// The sets, sorted and without repeats. [`Id::NONE`] is the empty one.
#[derive(Debug)]
pub(crate) struct NextHops {
    pool: Pool<Arc<[IpAddr]>>,
    hash: Keyed,
}

impl NextHops {
    pub(crate) fn new(hash: Keyed) -> Self {
        Self { pool: Pool::default(), hash }
    }

    /// A set, with one reference more.
    pub(crate) fn intern(&mut self, next_hops: &[IpAddr]) -> Id {
        if next_hops.is_empty() {
            return Id::NONE;
        }
        let keyed = self.hash;
        let known = self.pool.find(keyed.hash_one(next_hops), |known| **known == *next_hops);
        known
            .unwrap_or_else(|| self.pool.insert(next_hops.into(), |known| keyed.hash_one(&**known)))
    }

    pub(crate) fn get(&self, id: Id) -> Arc<[IpAddr]> {
        self.pool.get(id).map(Arc::clone).unwrap_or_default()
    }

    /// The one address of a set of one.
    pub(crate) fn first(&self, id: Id) -> Option<IpAddr> {
        self.pool.get(id)?.first().copied()
    }

    pub(crate) fn retain(&mut self, id: Id) {
        if !id.is_none() {
            self.pool.retain(id);
        }
    }

    pub(crate) fn release(&mut self, id: Id) {
        if !id.is_none() {
            let keyed = self.hash;
            self.pool.release(id, |known| keyed.hash_one(&**known));
        }
    }
}
