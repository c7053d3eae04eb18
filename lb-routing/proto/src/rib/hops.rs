//! The sets of next hops that routes are published with: each once; and what it costs to reach each next hop.
//!
//! A set of one is a path's next hop. Somebody else says what that costs: who comes and goes stands in [`NextHops::next_news`].

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

use super::hash::Keyed;
use super::pool::{Id, Pool};

/// The sets, sorted and without repeats. [`Id::NONE`] is the empty one.
#[derive(Debug)]
pub(crate) struct NextHops {
    pool: Pool<Arc<[IpAddr]>>,
    /// By number.
    costs: Vec<Option<u32>>,
    /// How many cannot be reached: nearly always none, and then nobody has to look.
    unreached: usize,
    /// Next hops that came (`true`) and went, in order.
    news: VecDeque<(IpAddr, bool)>,
    hash: Keyed,
}

/// The cost of what nobody has said anything of.
const UNKNOWN: Option<u32> = Some(0);

impl NextHops {
    pub(crate) fn new(hash: Keyed) -> Self {
        Self { pool: Pool::default(), costs: Vec::new(), unreached: 0, news: VecDeque::new(), hash }
    }

    /// A set, with one reference more.
    pub(crate) fn intern(&mut self, next_hops: &[IpAddr]) -> Id {
        if next_hops.is_empty() {
            return Id::NONE;
        }
        let keyed = self.hash;
        let known = self.pool.find(keyed.hash_one(next_hops), |known| **known == *next_hops);
        if let Some(known) = known {
            return known;
        }
        let id = self.pool.insert(next_hops.into(), |known| keyed.hash_one(&**known));
        let place = id.0 as usize;
        if self.costs.len() <= place {
            self.costs.resize(place + 1, UNKNOWN);
        }
        if let [next_hop] = *next_hops {
            self.news.push_back((next_hop, true));
        }
        id
    }

    /// The next one that came or went.
    pub(crate) fn next_news(&mut self) -> Option<(IpAddr, bool)> {
        self.news.pop_front()
    }

    /// The interior cost of a next hop (RFC 4271 §9.1.2.2 e), 0 until somebody says it; `None`: it cannot be reached.
    pub(crate) fn cost(&self, id: Id) -> Option<u32> {
        self.costs.get(id.0 as usize).copied().unwrap_or(UNKNOWN)
    }

    /// Every one can be reached, as far as anybody knows.
    pub(crate) const fn are_reached(&self) -> bool {
        self.unreached == 0
    }

    fn note(&mut self, id: Id, cost: Option<u32>) -> Option<u32> {
        let before = std::mem::replace(&mut self.costs[id.0 as usize], cost);
        self.unreached += usize::from(cost.is_none());
        self.unreached -= usize::from(before.is_none());
        before
    }

    /// Notes the cost of one; returns its number where it is there and had another cost.
    pub(crate) fn set_cost(&mut self, next_hop: IpAddr, cost: Option<u32>) -> Option<Id> {
        let hash = self.hash.hash_one(&[next_hop][..]);
        let id = self.pool.find(hash, |known| **known == [next_hop])?;
        let before = self.note(id, cost);
        // Whoever found it has a reference, and needs none.
        self.release(id);
        (before != cost).then_some(id)
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
            let gone = self.pool.release(id, |known| keyed.hash_one(&**known));
            if let Some([next_hop]) = gone.as_deref() {
                self.note(id, UNKNOWN);
                match self.news.back() {
                    // Nobody has heard of it.
                    Some(last) if *last == (*next_hop, true) => drop(self.news.pop_back()),
                    _ => self.news.push_back((*next_hop, false)),
                }
            }
        }
    }
}
