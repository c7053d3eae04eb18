//! The next hops of the speaker's paths, each resolved once: by the kernel's routes and the configuration's, and by routes of
//! the speaker that are longer, whose next hops are resolved in turn.
//!
//! ```text
//! level 0     without the speaker's routes
//! level n     by the longest of them that covers the next hop and whose own next hops level n - 1 resolves, if one does
//! ```
//!
//! The last level, [`MAX_RECURSION`], counts. So what is found rests on a route of the kernel or of the configuration in the
//! end: routes that only lead to each other lead nowhere. Nor does a route lead to a next hop of its own.
//!
//! Tracking: a next hop is resolved again when a route that covers it comes, goes or leads elsewhere. A set of next hops knows
//! who looked at it, so a change costs what depends on it; each round settles one level
//! more, so there are `MAX_RECURSION + 2` at most, however routes lead to each other.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use smallvec::{SmallVec, smallvec};

use super::bgp::{BgpTable, SetId};
use super::book::Book;
use super::select::merge;
use super::ways::{Tables, Way, priced};
use super::{Reach, prefix, range};

/// Routes of the speaker that lead to a next hop one by the other at most. Where it takes more, the last one counts as though
/// it were not there.
pub(super) const MAX_RECURSION: usize = 8;

/// A next hop: of a set, or watched, or both.
#[derive(Debug, Default)]
pub(super) struct Hop {
    /// What leads there by level; the last one holds for higher levels, too. Empty: it is yet to be resolved.
    ways: SmallVec<[Way; 1]>,
    /// The speaker's route that leads there, and what it costs without that one.
    over: Option<(IpNetwork, Option<u32>)>,
    /// How long a route of the speaker's must be to count.
    from: u8,
    /// Sets of such routes that cover it.
    looks_at: SmallVec<[SetId; 1]>,
    /// Sets that it is one of.
    pub(super) sets: BTreeSet<SetId>,
    /// What the speaker was told, if it wants to be.
    told: Option<Reach>,
}

impl Hop {
    fn reach(&self) -> Reach {
        Reach { cost: self.ways.last().and_then(|way| way.cost), over: self.over }
    }

    pub(super) fn is_new(&self) -> bool {
        self.ways.is_empty()
    }

    fn way(&self, level: usize) -> Option<&Way> {
        self.ways.get(level).or(self.ways.last())
    }
}

/// A next hop, resolved.
struct Resolved {
    ways: SmallVec<[Way; 1]>,
    over: Option<(IpNetwork, Option<u32>)>,
    from: u8,
    looks_at: SmallVec<[SetId; 1]>,
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
    /// Routes to these addresses have changed.
    pub(super) fn touch(&mut self, addresses: RangeInclusive<IpAddr>) {
        self.dirty.extend(self.hops.range(addresses).map(|(next_hop, _)| *next_hop));
    }

    /// A route of the speaker's has changed. What others' longer routes lead to, it does not concern.
    pub(super) fn touch_below(&mut self, prefix: IpNetwork) {
        if prefix.prefix() < self.least.of(prefix.is_ipv6()) {
            return;
        }
        let inside = self.hops.range(range(prefix));
        // One that is new is to be resolved anyway.
        let concerned = inside.filter(|(_, hop)| prefix.prefix() >= hop.from);
        self.dirty.extend(concerned.map(|(next_hop, _)| *next_hop));
    }

    /// Whether [`BgpTable::settle`] has something to do.
    pub(super) fn is_unsettled(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Resolves what was touched again; returns the sets that lead elsewhere now.
    pub(super) fn settle(&mut self, (tables, book): World<'_>) -> Vec<SetId> {
        let mut touched = BTreeSet::new();
        while !self.dirty.is_empty() {
            for next_hop in std::mem::take(&mut self.dirty) {
                if !self.renew((tables, book), next_hop) {
                    continue;
                }
                let sets = self.hops.get(&next_hop).into_iter().flat_map(|hop| &hop.sets);
                for id in sets {
                    touched.insert(*id);
                    self.dirty.extend(self.sets.get(id).into_iter().flat_map(|set| &set.asked_by));
                }
            }
        }
        let changes = |id: &SetId| {
            let resolved = self.way_of(*id, MAX_RECURSION).map(|way| way.hops).unwrap_or_default();
            let Some(set) = self.sets.get_mut(id) else { return false };
            let before = std::mem::replace(&mut set.resolved, resolved);
            before != set.resolved
        };
        let mut touched: Vec<_> = touched.into_iter().collect();
        touched.retain(changes);
        touched
    }

    /// Resolves a next hop; says whether it leads elsewhere.
    fn renew(&mut self, world: World<'_>, next_hop: IpAddr) -> bool {
        let Resolved { ways, over, from, looks_at } = self.resolve(world, next_hop);
        let Some(hop) = self.hops.get_mut(&next_hop) else { return false };
        hop.over = over;
        let was = (!hop.is_new()).then_some(hop.from);
        self.least.replace(next_hop.is_ipv6(), was, Some(from));
        hop.from = from;
        if hop.told.is_some() {
            self.news.insert(next_hop);
        }
        let changed = hop.ways != ways;
        hop.ways = ways;
        let before = std::mem::replace(&mut hop.looks_at, looks_at.clone());
        if before != looks_at {
            self.stop_asking(next_hop, &before);
            for set in looks_at {
                if let Some(set) = self.sets.get_mut(&set) {
                    set.asked_by.insert(next_hop);
                }
            }
        }
        changed
    }

    fn resolve(&self, (tables, book): World<'_>, next_hop: IpAddr) -> Resolved {
        let (base, from) = tables.way(next_hop);
        let covering = self.covering(book, next_hop, from);
        let by = |(prefix, set): &(IpNetwork, SetId), level| {
            let way = self.way_of(*set, level)?;
            let cost = way.cost.map(|cost| priced(prefix.prefix(), cost));
            Some((*prefix, Way { cost, ..way }))
        };
        let mut ways: SmallVec<[Way; 1]> = smallvec![base.clone()];
        let mut over = None;
        if !covering.is_empty() {
            for level in 0..MAX_RECURSION {
                let way = covering.iter().find_map(|it| by(it, level)).map(|(_, way)| way);
                ways.push(way.unwrap_or_else(|| base.clone()));
            }
            let mut leading = covering.iter().filter_map(|it| by(it, MAX_RECURSION - 1));
            over = leading
                .next()
                .map(|(prefix, _)| (prefix, leading.next().map_or(base.cost, |(_, way)| way.cost)));
            while let [.., before, last] = &ways[..]
                && before == last
            {
                ways.pop();
            }
        }
        let looks_at = covering.into_iter().map(|(_, set)| set).collect();
        Resolved { ways, over, from, looks_at }
    }

    /// Routes that cover an address, so long at least, the longest first, without those that name it as a next hop.
    fn covering(
        &self,
        book: &Book,
        next_hop: IpAddr,
        from: u8,
    ) -> SmallVec<[(IpNetwork, SetId); 1]> {
        if matches!(next_hop, IpAddr::V6(address) if address.is_unicast_link_local()) {
            return SmallVec::new();
        }
        let lengths = self.lengths.longest_first(next_hop.is_ipv6()).take_while(|len| *len >= from);
        let records = lengths.filter_map(|len| book.find(&prefix(next_hop, len)));
        let learned = records.filter_map(|record| Some((record.prefix, record.bgp?.0)));
        let is_other = |(_, set): &(IpNetwork, SetId)| {
            self.sets.get(set).is_some_and(|set| !set.next_hops.contains(&next_hop))
        };
        learned.filter(is_other).collect()
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
                let Resolved { ways, over, .. } = self.resolve(world, next_hop);
                // To be noted with the rest.
                self.dirty.insert(next_hop);
                Hop { ways, over, ..Hop::default() }.reach()
            }
        };
        self.hops.entry(next_hop).or_default().told = Some(reach);
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
                && std::mem::replace(told, reach) != reach
            {
                return Some((next_hop, reach));
            }
        }
        None
    }

    /// A next hop that is in no set and that nobody watches goes.
    pub(super) fn forget_unused(&mut self, next_hop: IpAddr) {
        if self.hops.get(&next_hop).is_some_and(|hop| hop.sets.is_empty() && hop.told.is_none()) {
            let hop = self.hops.remove(&next_hop).unwrap_or_default();
            let was = (!hop.is_new()).then_some(hop.from);
            self.least.replace(next_hop.is_ipv6(), was, None);
            self.dirty.remove(&next_hop);
            self.stop_asking(next_hop, &hop.looks_at);
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
