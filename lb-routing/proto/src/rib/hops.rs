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

/// For which prefix, where that matters, and at which level somebody asks.
pub(crate) type About = (Option<IpNetwork>, usize);

/// The sets, sorted and without repeats. [`Id::NONE`] is the empty one.
#[derive(Debug)]
pub(crate) struct NextHops {
    pool: Pool<Arc<[IpAddr]>>,
    /// By number.
    costs: Vec<Cost>,
    /// Of those that a route of ours leads to.
    reaches: HashMap<Id, Reach, Keyed>,
    /// How many cannot be reached, for some prefix or at some level: nearly always none, and then nobody has to look.
    unreached: usize,
    /// Next hops that came (`true`) and went, in order.
    news: VecDeque<(IpAddr, bool)>,
    hash: Keyed,
}

/// What a next hop costs in the end.
#[derive(Clone, Copy, Debug)]
struct Cost {
    cost: Option<u32>,
    /// For some prefix or at some level it is another one.
    varies: bool,
}

/// That of what nobody has said anything of.
const UNKNOWN: Cost = Cost { cost: Some(0), varies: false };

impl NextHops {
    pub(crate) fn new(hash: Keyed) -> Self {
        Self {
            pool: Pool::default(),
            costs: Vec::new(),
            reaches: HashMap::with_hasher(hash),
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

    fn cost(&self, id: Id) -> Cost {
        self.costs.get(id.0 as usize).copied().unwrap_or(UNKNOWN)
    }

    /// Every one can be reached, as far as anybody knows.
    pub(crate) const fn are_reached(&self) -> bool {
        self.unreached == 0
    }

    /// The interior cost of a next hop (RFC 4271 §9.1.2.2 e), 0 until somebody says it; `None`: it cannot be reached. At a
    /// level, for paths of a prefix, which has to be named where [`NextHops::vary`] says so.
    pub(crate) fn cost_for(&self, id: Id, (prefix, level): About) -> Option<u32> {
        match self.varying(id) {
            Some(reach) => reach.cost_for(level, prefix.as_ref()),
            None => self.cost(id).cost,
        }
    }

    /// Some cost something else for some prefix or at some level.
    pub(crate) fn vary(&self) -> bool {
        !self.reaches.is_empty()
    }

    /// From this number of levels on the cost stays the same.
    pub(crate) fn levels(&self, id: Id) -> usize {
        self.varying(id).map_or(1, Reach::levels)
    }

    /// How far a next hop is, if that is not one cost: nearly always it is, and nothing is looked up.
    fn varying(&self, id: Id) -> Option<&Reach> {
        if self.cost(id).varies { self.reaches.get(&id) } else { None }
    }

    fn reach_of(&self, id: Id) -> Reach {
        let known = self.reaches.get(&id).cloned();
        known.unwrap_or_else(|| Reach::from(self.cost(id).cost))
    }

    fn note(&mut self, id: Id, reach: Reach) -> Reach {
        let before = self.reach_of(id);
        let is_unreached = |reach: &Reach| reach.leg(0).cost.is_none() || reach.cost().is_none();
        self.unreached += usize::from(is_unreached(&reach));
        self.unreached -= usize::from(is_unreached(&before));
        let varies = reach.levels() > 1;
        self.costs[id.0 as usize] = Cost { cost: reach.cost(), varies };
        if varies {
            self.reaches.insert(id, reach);
        } else {
            self.reaches.remove(&id);
        }
        before
    }

    /// Notes how far one is; returns its number and what was known before, where it is there and that was something else.
    pub(crate) fn set_reach(&mut self, next_hop: IpAddr, reach: &Reach) -> Option<(Id, Reach)> {
        let id = self.find(next_hop)?;
        let before = self.note(id, reach.clone());
        (before != *reach).then_some((id, before))
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
                self.note(id, UNKNOWN.cost.into());
                match self.news.back() {
                    // Nobody has heard of it.
                    Some(last) if *last == (*next_hop, true) => drop(self.news.pop_back()),
                    _ => self.news.push_back((*next_hop, false)),
                }
            }
        }
    }
}
