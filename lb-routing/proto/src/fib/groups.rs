//! Next-hop groups: routes that forward alike share one, named by a small number.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::bgp::SetId;
use super::{Action, KernelNextHop};

/// What makes routes forward alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// The next hops of a kernel route.
    Hops(Arc<[KernelNextHop]>),
    /// The speaker's next hops, by set: what they resolve to may change without touching a route.
    Bgp {
        /// The set.
        set: SetId,
        /// The kernel is not to have the routes.
        is_apart: bool,
    },
    /// A neighbour itself.
    Neighbour {
        /// On which link.
        ifindex: u32,
        /// Its address.
        address: IpAddr,
        /// What the route that covers it says of the largest packet.
        mtu: Option<u32>,
    },
    /// The kernel.
    Kernel,
    /// Nowhere.
    Blackhole,
}

impl Key {
    /// Whether the kernel is to have none of the routes.
    pub(super) fn is_apart(&self) -> bool {
        matches!(self, Self::Bgp { is_apart: true, .. })
    }
}

/// Link and address of a neighbour.
type Need = (u32, IpAddr);

/// The groups.
#[derive(Debug, Default)]
pub(super) struct Groups {
    by_key: HashMap<Key, u32>,
    slots: Vec<Option<Group>>,
    free: BTreeSet<u32>,
    dirty: BTreeSet<u32>,
    /// Which groups forward to a neighbour.
    by_need: BTreeMap<Need, BTreeSet<u32>>,
}

#[derive(Debug)]
struct Group {
    key: Key,
    routes: usize,
    /// What the dataplane was told.
    action: Option<Action>,
    needs: BTreeSet<Need>,
}

impl Groups {
    /// The key's group, with one route more; says whether it is new.
    pub(super) fn acquire(&mut self, key: Key) -> (u32, bool) {
        if let Some(&id) = self.by_key.get(&key) {
            if let Some(group) = self.slot(id) {
                group.routes += 1;
            }
            return (id, false);
        }
        let id = self.free.pop_first().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 distinct next-hop sets")
        });
        self.by_key.insert(key.clone(), id);
        let group = Group { key, routes: 1, action: None, needs: BTreeSet::new() };
        self.slots[id as usize] = Some(group);
        (id, true)
    }

    /// Takes a route off; where it was the last, the group is gone, and the neighbours that nobody
    /// needs any more are returned.
    pub(super) fn release(&mut self, id: u32) -> Option<Vec<Need>> {
        let group = self.slot(id)?;
        group.routes -= 1;
        if group.routes > 0 {
            return None;
        }
        let unneeded = self.set_needs(id, BTreeSet::new());
        let group = self.slots.get_mut(id as usize)?.take()?;
        self.by_key.remove(&group.key);
        self.dirty.remove(&id);
        self.free.insert(id);
        Some(unneeded)
    }

    pub(super) fn key(&self, id: u32) -> Option<Key> {
        Some(self.slots.get(id as usize)?.as_ref()?.key.clone())
    }

    /// What a group does, as the dataplane was told.
    pub(super) fn action(&self, id: u32) -> Option<&Action> {
        self.slots.get(id as usize)?.as_ref()?.action.as_ref()
    }

    /// Every group that the dataplane was told, with what it does.
    pub(super) fn told(&self) -> impl Iterator<Item = (u32, &Key, &Action)> + '_ {
        let groups = (0..).zip(&self.slots);
        groups.filter_map(|(id, slot)| {
            let group = slot.as_ref()?;
            Some((id, &group.key, group.action.as_ref()?))
        })
    }

    /// Notes what a group does; says whether that is new.
    pub(super) fn set_action(&mut self, id: u32, action: &Action) -> bool {
        let Some(group) = self.slot(id) else { return false };
        let changed = group.action.as_ref() != Some(action);
        if changed {
            group.action = Some(action.clone());
        }
        changed
    }

    /// Notes whom a group forwards to; returns those that nobody needs any more.
    pub(super) fn set_needs(&mut self, id: u32, needs: BTreeSet<Need>) -> Vec<Need> {
        let Some(group) = self.slot(id) else { return Vec::new() };
        let before = std::mem::replace(&mut group.needs, needs.clone());
        for need in needs.difference(&before) {
            self.by_need.entry(*need).or_default().insert(id);
        }
        let mut unneeded = Vec::new();
        for need in before.difference(&needs) {
            if let Some(groups) = self.by_need.get_mut(need) {
                groups.remove(&id);
                if groups.is_empty() {
                    self.by_need.remove(need);
                    unneeded.push(*need);
                }
            }
        }
        unneeded
    }

    pub(super) fn needed(&self, after: Option<Need>) -> impl Iterator<Item = Need> + '_ {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_need.range((from, Bound::Unbounded)).map(|(need, _)| *need)
    }

    pub(super) fn count_needed(&self) -> usize {
        self.by_need.len()
    }

    pub(super) fn mark_all(&mut self) {
        let ids = (0..).zip(&self.slots).filter(|(_, slot)| slot.is_some()).map(|(id, _)| id);
        self.dirty.extend(ids);
    }

    pub(super) fn mark_needing(&mut self, ifindex: u32, address: IpAddr) {
        if let Some(ids) = self.by_need.get(&(ifindex, address)) {
            self.dirty.extend(ids);
        }
    }

    pub(super) fn mark_key(&mut self, key: &Key) {
        self.dirty.extend(self.by_key.get(key));
    }

    /// A group to look at again.
    pub(super) fn pop_dirty(&mut self) -> Option<u32> {
        self.dirty.pop_first()
    }

    fn slot(&mut self, id: u32) -> Option<&mut Group> {
        self.slots.get_mut(id as usize)?.as_mut()
    }
}
