//! The speaker's paths: prefixes with equal next hops share one set.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::book::{Book, Id, NONE};
use super::hops::{Hop, Least, MAX_RECURSION};
use super::kernel::Lengths;
use super::{Install, KernelNextHop};

/// A set of next hops; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SetId(u64);

/// The sets. Which prefix has which one stands in its record.
#[derive(Debug, Default)]
pub(super) struct BgpTable {
    pub(super) sets: HashMap<SetId, Set>,
    by_next_hops: HashMap<Arc<[IpAddr]>, SetId>,
    pub(super) hops: BTreeMap<IpAddr, Hop>,
    /// What counts at lower levels instead of a prefix's set, where that is something else; `None`: nothing.
    pub(super) lower: BTreeMap<IpNetwork, Vec<Option<SetId>>>,
    /// Next hops to resolve again: those of this round, and of the next one.
    pub(super) round: BTreeSet<IpAddr>,
    pub(super) dirty: BTreeSet<IpAddr>,
    /// Sets that may lead elsewhere since.
    pub(super) touched: BTreeSet<SetId>,
    /// Those of which the speaker may have to be told.
    pub(super) news: BTreeSet<IpAddr>,
    pub(super) least: Least,
    /// Of the prefixes that have paths, and of those above.
    pub(super) lengths: Lengths,
    last: u64,
}

#[derive(Debug)]
pub(super) struct Set {
    pub(super) next_hops: Arc<[IpAddr]>,
    /// Empty: no next hop resolves.
    pub(super) resolved: Arc<[KernelNextHop]>,
    /// The first of the prefixes' records.
    first: Id,
    /// How often it counts at a lower level.
    lower: usize,
    /// Next hops that a prefix with this set covers.
    pub(super) asked_by: BTreeSet<IpAddr>,
}

impl BgpTable {
    /// Gives a prefix next hops (in order, none twice), or (empty) takes them away; says whether anything changed.
    pub(super) fn set(
        &mut self,
        book: &mut Book,
        id: Id,
        (next_hops, install): (Arc<[IpAddr]>, Install),
    ) -> bool {
        let (before, prefix) = (book.get(id).bgp, book.get(id).prefix);
        let after = match next_hops.is_empty() {
            true => None,
            false => Some((self.intern(next_hops), install)),
        };
        if before == after {
            return false;
        }
        book.get_mut(id).bgp = after;
        let set = |bgp: Option<(SetId, Install)>| bgp.map(|(set, _)| set);
        if set(before) != set(after) {
            match (before, after) {
                (None, _) => self.lengths.add(&prefix),
                (_, None) => self.lengths.remove(&prefix),
                (Some(_), Some(_)) => {}
            }
            self.touch_below(prefix);
            if let Some(set) = set(before) {
                self.leave(book, set, id);
            }
            if let Some(set) = set(after).and_then(|set| self.sets.get_mut(&set)) {
                book.link(&mut set.first, id);
            }
        }
        true
    }

    /// Says what counts at lower levels instead of a prefix's next hops.
    pub(super) fn set_lower(&mut self, prefix: IpNetwork, by_level: Vec<Arc<[IpAddr]>>) {
        let mut intern = |hops: Arc<[IpAddr]>| (!hops.is_empty()).then(|| self.intern(hops));
        let after: Vec<Option<SetId>> = by_level.into_iter().map(&mut intern).collect();
        for id in after.iter().flatten() {
            self.sets.entry(*id).and_modify(|set| set.lower += 1);
        }
        let before = match after.is_empty() {
            true => self.lower.remove(&prefix),
            false => self.lower.insert(prefix, after.clone()),
        };
        match (before.is_some(), after.is_empty()) {
            (false, false) => self.lengths.add(&prefix),
            (true, true) => self.lengths.remove(&prefix),
            (true, false) | (false, true) => {}
        }
        let before = before.unwrap_or_default();
        if before != after {
            self.touch_below(prefix);
        }
        for id in before.into_iter().flatten() {
            self.sets.entry(id).and_modify(|set| set.lower -= 1);
            self.forget_unused_set(id);
        }
    }

    /// The set, if a next hop of it resolves, and which tables are to have it.
    pub(super) fn usable(&self, bgp: Option<(SetId, Install)>) -> Option<(SetId, Install)> {
        bgp.filter(|(id, _)| self.sets.get(id).is_some_and(|set| !set.resolved.is_empty()))
    }

    /// What a set's next hops resolve to, if any does.
    pub(super) fn resolved(&self, id: SetId) -> Option<Arc<[KernelNextHop]>> {
        let resolved = &self.sets.get(&id)?.resolved;
        (!resolved.is_empty()).then(|| Arc::clone(resolved))
    }

    /// A set's next hops.
    pub(super) fn next_hops(&self, id: SetId) -> Option<Arc<[IpAddr]>> {
        self.sets.get(&id).map(|set| Arc::clone(&set.next_hops))
    }

    /// Marks the prefixes of a set.
    pub(super) fn mark(&self, book: &mut Book, id: SetId) {
        if let Some(set) = self.sets.get(&id) {
            book.mark_list(set.first);
        }
    }

    fn intern(&mut self, next_hops: Arc<[IpAddr]>) -> SetId {
        if let Some(id) = self.by_next_hops.get(&next_hops) {
            return *id;
        }
        self.last += 1;
        let id = SetId(self.last);
        for address in next_hops.iter() {
            let hop = self.hops.entry(*address).or_default();
            hop.sets.insert(id);
            if hop.is_new() {
                self.dirty.insert(*address);
            }
        }
        self.by_next_hops.insert(Arc::clone(&next_hops), id);
        let resolved = Arc::default();
        let asked_by = BTreeSet::new();
        self.sets.insert(id, Set { next_hops, resolved, first: NONE, lower: 0, asked_by });
        // By what is known of them; the rest follows.
        let known = self.way_of(id, MAX_RECURSION).map(|way| way.hops);
        if let Some(set) = self.sets.get_mut(&id) {
            set.resolved = known.unwrap_or_default();
        }
        id
    }

    fn leave(&mut self, book: &mut Book, id: SetId, prefix: Id) {
        let Some(set) = self.sets.get_mut(&id) else { return };
        book.unlink(&mut set.first, prefix);
        self.forget_unused_set(id);
    }

    fn forget_unused_set(&mut self, id: SetId) {
        let Some(set) = self.sets.get(&id) else { return };
        if set.first != NONE || set.lower > 0 {
            return;
        }
        let next_hops = Arc::clone(&set.next_hops);
        self.sets.remove(&id);
        self.by_next_hops.remove(&next_hops);
        for address in next_hops.iter() {
            if let Some(hop) = self.hops.get_mut(address) {
                hop.sets.remove(&id);
                self.forget_unused(*address);
            }
        }
    }
}
