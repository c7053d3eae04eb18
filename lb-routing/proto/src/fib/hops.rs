//! The next hops of the speaker's paths, each resolved once: by the kernel's routes and the configuration's, and by routes of
//! the speaker that are longer, whose next hops are resolved in turn.
//!
//! ```text
//! level 0     without the speaker's routes
//! level n     by the longest of them that covers the next hop and whose own next hops level n - 1 resolves, if one does
//! ```
//!
//! The last level, [`MAX_RECURSION`], counts. What is found rests on a route of the kernel or of the configuration in the end.
//! None of the speaker's leads to a neighbour on a link of ours, to a link-local address, or to a next hop of its own; nor does
//! a default route of its.
//!
//! Why levels? Which path the speaker chooses depends on which next hops are reached, and that on what it has chosen. So it
//! chooses by level, too (`rib/choice.rs`): a prefix leads to next hops at level n by what it would have chosen if only level
//! n - 1 were known, which [`BgpTable::set_lower`] says where that differs from its choice. Then no level depends on itself or
//! on a higher one, and when facts rest, so does everything after a round for each level, however routes lead to each other.
//!
//! Tracking: a next hop is resolved again when a route that covers it comes, goes or leads elsewhere. A set of next hops knows
//! who looked at it, so a change costs what depends on it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use smallvec::{SmallVec, smallvec};

use super::bgp::{BgpTable, SetId};
use super::book::Book;
use super::select::merge;
use super::ways::{Tables, Way};
use super::{Leg, Reach, bits, prefix, range};

/// Routes of the speaker that lead to a next hop one by the other at most. Where it takes more, the last one counts as though
/// it were not there.
pub(super) const MAX_RECURSION: usize = 4;

/// Next hops, and sets of them, that are looked at in one go.
const LOOKS: usize = 4096;

/// A next hop: of a set, or watched, or both.
#[derive(Debug, Default)]
pub(super) struct Hop {
    resolved: Resolved,
    /// Sets that it is one of.
    pub(super) sets: BTreeSet<SetId>,
    /// What the speaker was told, if it wants to be.
    told: Option<Reach>,
}

/// What leads to a next hop.
#[derive(Debug, Default)]
struct Resolved {
    /// By level; the last one holds for higher levels, too. Empty: it is yet to be resolved.
    levels: SmallVec<[Level; 1]>,
    /// How long a route of the speaker's must be at least to count.
    from: u8,
    /// Sets of the speaker's routes that cover it.
    looks_at: SmallVec<[SetId; 1]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Level {
    way: Way,
    /// The speaker's route that leads there first.
    over: Option<IpNetwork>,
}

impl Level {
    /// Something leads there that can be forwarded by.
    fn is_there(&self) -> bool {
        !self.way.hops.is_empty()
    }
}

impl Hop {
    fn reach(&self) -> Reach {
        self.resolved.reach()
    }

    pub(super) fn is_new(&self) -> bool {
        self.resolved.levels.is_empty()
    }

    fn way(&self, level: usize) -> Option<&Way> {
        let levels = &self.resolved.levels;
        levels.get(level).or(levels.last()).map(|level| &level.way)
    }
}

impl Resolved {
    fn reach(&self) -> Reach {
        Reach::new(self.levels.iter().map(|it| Leg { cost: it.way.cost, over: it.over }))
    }
}

/// A route of the speaker's on the way to a next hop.
struct Learned<'a> {
    prefix: IpNetwork,
    lower: &'a [Option<SetId>],
    set: Option<SetId>,
}

impl Learned<'_> {
    /// What counts of it at a level.
    fn at(&self, level: usize) -> Option<SetId> {
        self.lower.get(level).copied().unwrap_or(self.set)
    }

    fn sets(&self) -> impl Iterator<Item = SetId> {
        self.lower.iter().copied().chain([self.set]).flatten()
    }
}

/// How long the speaker's routes must be at least to count for any next hop of a family: nearly all of a full table are shorter
/// than the network that its next hop is in.
#[derive(Debug)]
pub(super) struct Least {
    /// How many next hops there are of each length.
    counts: [[u32; 130]; 2],
    least: [u8; 2],
}

impl Default for Least {
    fn default() -> Self {
        Self { counts: [[0; 130]; 2], least: [u8::MAX; 2] }
    }
}

impl Least {
    fn of(&self, is_ipv6: bool) -> u8 {
        self.least[usize::from(is_ipv6)]
    }

    fn replace(&mut self, is_ipv6: bool, before: Option<u8>, after: Option<u8>) {
        if before == after {
            return;
        }
        let family = usize::from(is_ipv6);
        let counts = &mut self.counts[family];
        before.into_iter().for_each(|from| counts[usize::from(from)] -= 1);
        after.into_iter().for_each(|from| counts[usize::from(from)] += 1);
        let least = (0_u8..).zip(&*counts).find(|(_, count)| **count > 0);
        self.least[family] = least.map_or(u8::MAX, |(from, _)| from);
    }
}

/// What a next hop is resolved by.
pub(super) type World<'a> = (Tables<'a>, &'a Book);

impl BgpTable {
    /// Others' routes to these addresses have changed.
    pub(super) fn touch(&mut self, addresses: RangeInclusive<IpAddr>) {
        self.dirty.extend(self.hops.range(addresses).map(|(next_hop, _)| *next_hop));
    }

    /// A route of the speaker's has changed. What others' longer routes lead to, it does not concern, nor does a default route
    /// concern any.
    pub(super) fn touch_below(&mut self, prefix: IpNetwork) {
        if prefix.prefix() < self.least.of(prefix.is_ipv6()).max(1) {
            return;
        }
        let inside = self.hops.range(range(prefix));
        // One that is new is to be resolved anyway.
        let concerned = inside.filter(|(_, hop)| prefix.prefix() >= hop.resolved.from);
        self.dirty.extend(concerned.map(|(next_hop, _)| *next_hop));
    }

    /// Whether [`BgpTable::settle`] has something to do.
    pub(super) fn is_unsettled(&self) -> bool {
        !(self.dirty.is_empty() && self.round.is_empty() && self.touched.is_empty())
    }

    /// Resolves some of what was touched again, and once there is nothing left of that, returns some of the sets that lead
    /// elsewhere now.
    pub(super) fn settle(&mut self, world: World<'_>) -> Vec<SetId> {
        for _ in 0..LOOKS {
            if self.round.is_empty() {
                self.round = std::mem::take(&mut self.dirty);
            }
            let Some(next_hop) = self.round.pop_first() else { break };
            if self.renew(world, next_hop) {
                for id in self.hops.get(&next_hop).into_iter().flat_map(|hop| &hop.sets) {
                    self.touched.insert(*id);
                    self.dirty.extend(self.sets.get(id).into_iter().flat_map(|set| &set.asked_by));
                }
            }
        }
        if !(self.dirty.is_empty() && self.round.is_empty()) {
            return Vec::new();
        }
        let some = std::iter::from_fn(|| self.touched.pop_first()).take(LOOKS);
        let mut some: Vec<SetId> = some.collect();
        some.retain(|id| self.renew_set(*id));
        some
    }

    /// Says whether a set leads elsewhere now.
    fn renew_set(&mut self, id: SetId) -> bool {
        let resolved = self.way_of(id, MAX_RECURSION).map(|way| way.hops).unwrap_or_default();
        let Some(set) = self.sets.get_mut(&id) else { return false };
        let before = std::mem::replace(&mut set.resolved, resolved);
        before != set.resolved
    }

    /// Resolves a next hop; says whether it leads elsewhere.
    fn renew(&mut self, world: World<'_>, next_hop: IpAddr) -> bool {
        let resolved = self.resolve(world, next_hop);
        let Some(hop) = self.hops.get_mut(&next_hop) else { return false };
        let was = (!hop.is_new()).then_some(hop.resolved.from);
        self.least.replace(next_hop.is_ipv6(), was, Some(resolved.from));
        if hop.told.is_some() {
            self.news.insert(next_hop);
        }
        let looks_at = resolved.looks_at.clone();
        let before = std::mem::replace(&mut hop.resolved, resolved);
        let changed = before.levels != hop.resolved.levels;
        if before.looks_at != looks_at {
            self.stop_asking(next_hop, &before.looks_at);
            for set in looks_at {
                if let Some(set) = self.sets.get_mut(&set) {
                    set.asked_by.insert(next_hop);
                }
            }
        }
        changed
    }

    fn resolve(&self, (tables, book): World<'_>, next_hop: IpAddr) -> Resolved {
        let (base, mut from) = tables.way(next_hop);
        if matches!(next_hop, IpAddr::V6(address) if address.is_unicast_link_local()) {
            from = bits(next_hop) + 1;
        }
        let covering = self.covering(book, next_hop, from);
        let base = Level { way: base, over: None };
        let mut levels: SmallVec<[Level; 1]> = smallvec![base.clone()];
        // From there on what they lead to stays the same.
        let deepest = covering.iter().map(|learned| self.levels(learned)).max().unwrap_or(0);
        for level in 0..deepest.min(MAX_RECURSION) {
            // What is not reached at a level does not count of a set there.
            let is_there = levels.get(level).or(levels.last()).is_some_and(Level::is_there);
            let is_itself = |set: &SetId| is_there && self.is_in(next_hop, *set);
            let by = |learned: &Learned<'_>| {
                let set = learned.at(level).filter(|set| !is_itself(set))?;
                Some(Level { way: self.way_of(set, level)?, over: Some(learned.prefix) })
            };
            levels.push(covering.iter().find_map(by).unwrap_or_else(|| base.clone()));
        }
        while let [.., before, last] = &levels[..]
            && before == last
        {
            levels.pop();
        }
        let looks_at = covering.iter().flat_map(Learned::sets).collect();
        Resolved { levels, from, looks_at }
    }

    /// Routes that cover an address, so long at least, the longest first, without a default route.
    fn covering<'a>(
        &'a self,
        book: &Book,
        next_hop: IpAddr,
        from: u8,
    ) -> SmallVec<[Learned<'a>; 1]> {
        let lengths = self.lengths.longest_first(next_hop.is_ipv6());
        let learned = lengths.take_while(|len| *len >= from.max(1)).map(|len| {
            let prefix = prefix(next_hop, len);
            let set = book.find(&prefix).and_then(|record| record.bgp).map(|(set, _)| set);
            let lower = self.lower.get(&prefix).map(Vec::as_slice).unwrap_or_default();
            Learned { prefix, lower, set }
        });
        learned.filter(|learned| learned.sets().next().is_some()).collect()
    }

    fn is_in(&self, next_hop: IpAddr, set: SetId) -> bool {
        self.sets.get(&set).is_some_and(|set| set.next_hops.contains(&next_hop))
    }

    /// From this number of levels on a route leads the same way.
    fn levels(&self, learned: &Learned<'_>) -> usize {
        let sets = learned.sets().filter_map(|set| self.sets.get(&set));
        let hops = sets.flat_map(|set| set.next_hops.iter()).filter_map(|it| self.hops.get(it));
        let own = learned.lower.len() + 1;
        hops.map(|hop| hop.resolved.levels.len()).max().unwrap_or(0).max(own)
    }

    /// What leads to a set's next hops at a level, and what the nearest one costs; `None`: nothing that can be forwarded by.
    pub(super) fn way_of(&self, id: SetId, level: usize) -> Option<Way> {
        let next_hops = self.sets.get(&id)?.next_hops.iter();
        let ways = next_hops.filter_map(|next_hop| self.hops.get(next_hop)?.way(level));
        let ways: SmallVec<[&Way; 4]> = ways.filter(|way| !way.hops.is_empty()).collect();
        let cost = ways.iter().filter_map(|way| way.cost).min();
        let hops: Arc<[_]> = merge(ways.iter().flat_map(|way| way.hops.iter().copied()));
        (!hops.is_empty()).then_some(Way { hops, cost })
    }

    /// How far a next hop is, and from now on what changes of that.
    pub(super) fn watch(&mut self, world: World<'_>, next_hop: IpAddr) -> Reach {
        let reach = match self.hops.get(&next_hop).filter(|hop| !hop.is_new()) {
            Some(hop) => hop.reach(),
            None => {
                // To be noted with the rest.
                self.dirty.insert(next_hop);
                self.resolve(world, next_hop).reach()
            }
        };
        self.hops.entry(next_hop).or_default().told = Some(reach.clone());
        reach
    }

    pub(super) fn unwatch(&mut self, next_hop: IpAddr) {
        self.news.remove(&next_hop);
        if let Some(hop) = self.hops.get_mut(&next_hop) {
            hop.told = None;
            self.forget_unused(next_hop);
        }
    }

    /// The next one that is watched and that is farther or nearer than was told.
    pub(super) fn next_news(&mut self) -> Option<(IpAddr, Reach)> {
        while let Some(next_hop) = self.news.pop_first() {
            let Some(hop) = self.hops.get_mut(&next_hop) else { continue };
            let reach = hop.reach();
            if let Some(told) = &mut hop.told
                && *told != reach
            {
                told.clone_from(&reach);
                return Some((next_hop, reach));
            }
        }
        None
    }

    /// A next hop that is in no set and that nobody watches goes.
    pub(super) fn forget_unused(&mut self, next_hop: IpAddr) {
        if self.hops.get(&next_hop).is_some_and(|hop| hop.sets.is_empty() && hop.told.is_none()) {
            let hop = self.hops.remove(&next_hop).unwrap_or_default();
            let was = (!hop.is_new()).then_some(hop.resolved.from);
            self.least.replace(next_hop.is_ipv6(), was, None);
            self.dirty.remove(&next_hop);
            self.round.remove(&next_hop);
            self.stop_asking(next_hop, &hop.resolved.looks_at);
        }
    }

    fn stop_asking(&mut self, next_hop: IpAddr, sets: &[SetId]) {
        for set in sets {
            if let Some(set) = self.sets.get_mut(set) {
                set.asked_by.remove(&next_hop);
            }
        }
    }
}
