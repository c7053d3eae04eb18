//! The speaker's paths: prefixes with equal next hops share one set, resolved once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::{Install, KernelNextHop, inside};

/// A set of next hops; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SetId(u64);

/// Every prefix's set.
#[derive(Debug, Default)]
pub(super) struct BgpTable {
    routes: BTreeMap<IpNetwork, (SetId, Install)>,
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
    prefixes: BTreeSet<IpNetwork>,
}

impl BgpTable {
    /// Gives a prefix next hops, or (empty) takes it out; says whether anything changed.
    pub(super) fn set(
        &mut self,
        prefix: IpNetwork,
        (mut next_hops, install): (Vec<IpAddr>, Install),
        resolve: impl Fn(&[IpAddr]) -> Arc<[KernelNextHop]>,
    ) -> bool {
        next_hops.sort_unstable();
        next_hops.dedup();
        let before = self.routes.get(&prefix).copied();
        if next_hops.is_empty() {
            self.routes.remove(&prefix);
        } else {
            let id = self.intern(next_hops, resolve);
            if before == Some((id, install)) {
                return false;
            }
            self.routes.insert(prefix, (id, install));
            if before.is_some_and(|(old, _)| old == id) {
                return true;
            }
            self.sets.entry(id).and_modify(|set| {
                set.prefixes.insert(prefix);
            });
        }
        if let Some((before, _)) = before {
            self.leave(before, prefix);
        }
        before.is_some() || self.routes.contains_key(&prefix)
    }

    pub(super) fn has(&self, prefix: &IpNetwork) -> bool {
        self.routes.contains_key(prefix)
    }

    /// The prefix's set, if a next hop of it resolves, and which tables are to have it.
    pub(super) fn usable(&self, prefix: &IpNetwork) -> Option<(SetId, Install)> {
        let (id, install) = *self.routes.get(prefix)?;
        self.resolved(id).map(|_| (id, install))
    }

    /// What a set's next hops resolve to, if any does.
    pub(super) fn resolved(&self, id: SetId) -> Option<Arc<[KernelNextHop]>> {
        let resolved = &self.sets.get(&id)?.resolved;
        (!resolved.is_empty()).then(|| Arc::clone(resolved))
    }

    pub(super) fn prefixes(&self, id: SetId) -> impl Iterator<Item = IpNetwork> + '_ {
        self.sets.get(&id).into_iter().flat_map(|set| set.prefixes.iter().copied())
    }

    pub(super) fn inside(&self, outer: IpNetwork) -> impl Iterator<Item = IpNetwork> + '_ {
        self.routes.range(inside(outer)).map(|(prefix, _)| *prefix)
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
        next_hops: Vec<IpAddr>,
        resolve: impl Fn(&[IpAddr]) -> Arc<[KernelNextHop]>,
    ) -> SetId {
        if let Some(id) = self.by_next_hops.get(next_hops.as_slice()) {
            return *id;
        }
        self.last += 1;
        let id = SetId(self.last);
        let next_hops: Arc<[IpAddr]> = next_hops.into();
        for address in next_hops.iter() {
            self.by_next_hop.entry(*address).or_default().insert(id);
        }
        let resolved = resolve(&next_hops);
        self.by_next_hops.insert(Arc::clone(&next_hops), id);
        self.sets.insert(id, Set { next_hops, resolved, prefixes: BTreeSet::new() });
        id
    }

    fn leave(&mut self, id: SetId, prefix: IpNetwork) {
        let Some(set) = self.sets.get_mut(&id) else { return };
        set.prefixes.remove(&prefix);
        if !set.prefixes.is_empty() {
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
