//! The sets of next hops that routes are published with: each once; and what it costs to reach each next hop.
//!
//! A set of one is a path's next hop. Somebody else says what that costs: who comes and goes stands in [`NextHops::next_news`].

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::hash::Keyed;
use super::pool::{Id, Pool};
use crate::fib::Reach;

/// The sets, sorted and without repeats. [`Id::NONE`] is the empty one.
#[derive(Debug)]
pub(crate) struct NextHops {
    pool: Pool<Arc<[IpAddr]>>,
    /// By number.
    costs: Vec<Option<u32>>,
    /// By number, of those that a route of ours leads to: which one, and what they cost for paths of its own prefix.
    over: HashMap<Id, (IpNetwork, Option<u32>), Keyed>,
    /// How many cannot be reached, for some prefix at least: nearly always none, and then nobody has to look.
    unreached: usize,
    /// Next hops that came (`true`) and went, in order.
    news: VecDeque<(IpAddr, bool)>,
    hash: Keyed,
}

/// The cost of what nobody has said anything of.
const UNKNOWN: Option<u32> = Some(0);

impl NextHops {
    pub(crate) fn new(hash: Keyed) -> Self {
        Self {
            pool: Pool::default(),
            costs: Vec::new(),
            over: HashMap::with_hasher(hash),
            unreached: 0,
            news: VecDeque::new(),
            hash,
        }
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

    /// What it costs for paths of a prefix; the prefix has to be named where [`NextHops::depend_on_prefix`] says so.
    pub(crate) fn cost_for(&self, id: Id, prefix: Option<&IpNetwork>) -> Option<u32> {
        match self.over.get(&id).filter(|_| prefix.is_some()) {
            Some((over, without)) if Some(over) == prefix => *without,
            Some(_) | None => self.cost(id),
        }
    }

    /// For some prefixes some next hops cost something else.
    pub(crate) fn depend_on_prefix(&self) -> bool {
        !self.over.is_empty()
    }

    /// How far a next hop is, as was said; `None`: no path has it.
    pub(crate) fn reach(&mut self, next_hop: IpAddr) -> Option<Reach> {
        self.find(next_hop).map(|id| self.reach_of(id))
    }

    fn reach_of(&self, id: Id) -> Reach {
        Reach { cost: self.cost(id), over: self.over.get(&id).copied() }
    }

    fn note(&mut self, id: Id, reach: Reach) -> Reach {
        let before = self.reach_of(id);
        self.costs[id.0 as usize] = reach.cost;
        match reach.over {
            Some(over) => drop(self.over.insert(id, over)),
            None => drop(self.over.remove(&id)),
        }
        let is_unreached = |reach: Reach| {
            reach.cost.is_none() || reach.over.is_some_and(|(_, without)| without.is_none())
        };
        self.unreached += usize::from(is_unreached(reach));
        self.unreached -= usize::from(is_unreached(before));
        before
    }

    /// Notes how far one is; returns its number and what was known before, where it is there and that was something else.
    pub(crate) fn set_reach(&mut self, next_hop: IpAddr, reach: Reach) -> Option<(Id, Reach)> {
        let id = self.find(next_hop)?;
        let before = self.note(id, reach);
        (before != reach).then_some((id, before))
    }

    fn find(&mut self, next_hop: IpAddr) -> Option<Id> {
        let hash = self.hash.hash_one(&[next_hop][..]);
        let id = self.pool.find(hash, |known| **known == [next_hop])?;
        // Whoever found it has a reference, and needs none.
        self.release(id);
        Some(id)
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
                self.note(id, UNKNOWN.into());
                match self.news.back() {
                    // Nobody has heard of it.
                    Some(last) if *last == (*next_hop, true) => drop(self.news.pop_back()),
                    _ => self.news.push_back((*next_hop, false)),
                }
            }
        }
    }
}
