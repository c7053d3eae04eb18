//! The speaker's paths: prefixes with equal next hops share one set, resolved once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::book::{Book, Id, NONE};
use super::{Install, KernelNextHop};

/// A set of next hops; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SetId(u64);

/// The sets. Which prefix has which one stands in its record.
#[derive(Debug, Default)]
pub(super) struct BgpTable {
    sets: HashMap<SetId, Set>,
    by_next_hops: HashMap<Arc<[IpAddr]>, SetId>,
    by_next_hop: BTreeMap<IpAddr, BTreeSet<SetId>>,
    last: u64,
}

#[derive(Debug)]
struct Set {
    next_hops: Arc<[IpAddr]>,
    /// Empty: no next hop resolves.
    resolved: Arc<[KernelNextHop]>,
    /// The first of the prefixes' records.
    first: Id,
}

impl BgpTable {
    /// Gives a prefix next hops (in order, none twice), or (empty) takes them away; says whether anything changed.
    pub(super) fn set(
        &mut self,
        book: &mut Book,
        id: Id,
        (next_hops, install): (Arc<[IpAddr]>, Install),
        resolve: impl Fn(&[IpAddr]) -> Arc<[KernelNextHop]>,
    ) -> bool {
        let before = book.get(id).bgp;
        let after = match next_hops.is_empty() {
            true => None,
            false => Some((self.intern(next_hops, resolve), install)),
        };
        if before == after {
            return false;
        }
        book.get_mut(id).bgp = after;
        let set = |bgp: Option<(SetId, Install)>| bgp.map(|(set, _)| set);
        if set(before) != set(after) {
            if let Some(set) = set(before) {
                self.leave(book, set, id);
            }
            if let Some(set) = set(after).and_then(|set| self.sets.get_mut(&set)) {
                book.link(&mut set.first, id);
            }
        }
        true
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

    /// Resolves the sets with a next hop in the range again; returns those that changed.
    pub(super) fn re_resolve(
        &mut self,
        addresses: RangeInclusive<IpAddr>,
        resolve: impl Fn(&[IpAddr]) -> Arc<[KernelNextHop]>,
    ) -> Vec<SetId> {
        let touched = self.by_next_hop.range(addresses).flat_map(|(_, ids)| ids.iter().copied());
        let mut changed = Vec::new();
        for id in touched.collect::<BTreeSet<_>>() {
            let Some(set) = self.sets.get_mut(&id) else { continue };
            let resolved = resolve(&set.next_hops);
            if resolved != set.resolved {
                set.resolved = resolved;
                changed.push(id);
            }
        }
        changed
    }

    fn intern(
        &mut self,
        next_hops: Arc<[IpAddr]>,
        resolve: impl Fn(&[IpAddr]) -> Arc<[KernelNextHop]>,
    ) -> SetId {
        if let Some(id) = self.by_next_hops.get(&next_hops) {
            return *id;
        }
        self.last += 1;
        let id = SetId(self.last);
        for address in next_hops.iter() {
            self.by_next_hop.entry(*address).or_default().insert(id);
        }
        let resolved = resolve(&next_hops);
        self.by_next_hops.insert(Arc::clone(&next_hops), id);
        self.sets.insert(id, Set { next_hops, resolved, first: NONE });
        id
    }

    fn leave(&mut self, book: &mut Book, id: SetId, prefix: Id) {
        let Some(set) = self.sets.get_mut(&id) else { return };
        book.unlink(&mut set.first, prefix);
        if set.first != NONE {
            return;
        }
        let next_hops = Arc::clone(&set.next_hops);
        self.sets.remove(&id);
        self.by_next_hops.remove(&next_hops);
        for address in next_hops.iter() {
            if let Some(ids) = self.by_next_hop.get_mut(address) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.by_next_hop.remove(address);
                }
            }
        }
    }
}
