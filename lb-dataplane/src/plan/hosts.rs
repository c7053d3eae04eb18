//! Which addresses are backends', whatever services have them, and at which of their ports one service's answers begin: what
//! `BACKEND_ADDRESSES` and `ALONE` are to hold.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use lb_dataplane_common::service::{BACKEND_ANSWERS_ALONE, BACKEND_IN_USE, BackendEntry};

use super::entries::address;

/// A backend's address and port, with the IP protocol number of its service.
pub(crate) type AloneAt = (IpAddr, u16, u8);

/// The addresses, as the backends' entries say them.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    by_id: HashMap<u32, (IpAddr, Option<AloneAt>)>,
    backends: HashMap<IpAddr, u32>,
    /// Those whose answers need no flow.
    alone: HashMap<AloneAt, u32>,
    /// Addresses that became a backend's, or ceased to be one.
    changed: BTreeSet<IpAddr>,
    /// The same of those that are alone.
    changed_alone: BTreeSet<AloneAt>,
}

impl Hosts {
    pub(super) fn note(&mut self, id: u32, entry: &BackendEntry) {
        let now = (entry.flags & BACKEND_IN_USE != 0).then(|| {
            let at = address(entry.address);
            let is_alone = entry.flags & BACKEND_ANSWERS_ALONE != 0;
            (at, is_alone.then(|| (at, u16::from_be_bytes(entry.port), entry.protocol)))
        });
        if self.by_id.get(&id).copied() == now {
            return;
        }
        if let Some((gone, alone)) = self.by_id.remove(&id) {
            self.part_with(id, gone, alone);
        }
        let Some((new, alone)) = now else { return };
        self.by_id.insert(id, (new, alone));
        let count = self.backends.entry(new).or_insert(0);
        *count += 1;
        if *count == 1 {
            self.changed.insert(new);
        }
        if let Some(alone) = alone {
            self.alone.insert(alone, id);
            self.changed_alone.insert(alone);
        }
    }

    fn part_with(&mut self, id: u32, gone: IpAddr, alone: Option<AloneAt>) {
        if let Some(count) = self.backends.get_mut(&gone) {
            *count -= 1;
            if *count == 0 {
                self.backends.remove(&gone);
                self.changed.insert(gone);
            }
        }
        // Another one may have come there already.
        if let Some(alone) = alone.filter(|alone| self.alone.get(alone) == Some(&id)) {
            self.alone.remove(&alone);
            self.changed_alone.insert(alone);
        }
    }

    /// All of them; from here on changes are counted.
    pub(crate) fn all(&mut self) -> impl Iterator<Item = IpAddr> + '_ {
        self.changed.clear();
        self.backends.keys().copied()
    }

    /// The same of those that are alone, with their ids.
    pub(crate) fn all_alone(&mut self) -> impl Iterator<Item = (AloneAt, u32)> + '_ {
        self.changed_alone.clear();
        self.alone.iter().map(|(at, id)| (*at, *id))
    }

    /// What has changed since: addresses that are backends' now, and those that are none's.
    pub(crate) fn changes(&mut self) -> (Vec<IpAddr>, Vec<IpAddr>) {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().partition(|address| self.backends.contains_key(address))
    }

    /// The same of those that are alone.
    pub(crate) fn changes_alone(&mut self) -> (Vec<(AloneAt, u32)>, Vec<AloneAt>) {
        let changed = std::mem::take(&mut self.changed_alone);
        let (there, gone): (Vec<_>, Vec<_>) =
            changed.into_iter().partition(|at| self.alone.contains_key(at));
        let there = there.into_iter().filter_map(|at| Some((at, *self.alone.get(&at)?)));
        (there.collect(), gone)
    }
}

#[cfg(test)]
mod tests {
    use super::super::entries::gone_entry;
    use super::*;

    #[test]
    fn an_address_is_a_backends_for_as_long_as_any_entry_in_use_has_it() {
        let entry = |host: u8, port: u16, flags: u8| BackendEntry {
            flags,
            ..gone_entry(([10, 2, 0, host].into(), port))
        };
        let at = |host: u8| IpAddr::from([10, 2, 0, host]);
        let mut hosts = Hosts::default();
        hosts.note(0, &entry(1, 80, BACKEND_IN_USE));
        hosts.note(1, &entry(1, 81, BACKEND_IN_USE));
        hosts.note(2, &entry(2, 80, 0));
        assert_eq!(hosts.changes(), (vec![at(1)], vec![]));
        hosts.note(0, &entry(1, 80, 0));
        assert_eq!(hosts.changes(), (vec![], vec![]), "another one has it");
        hosts.note(1, &entry(3, 81, BACKEND_IN_USE));
        assert_eq!(hosts.changes(), (vec![at(3)], vec![at(1)]), "its place went to another");
        hosts.note(1, &entry(3, 81, 0));
        hosts.note(0, &entry(3, 81, BACKEND_IN_USE));
        assert_eq!(hosts.changes(), (vec![at(3)], vec![]), "in the end it is there");
        assert_eq!(hosts.all().collect::<Vec<_>>(), [at(3)]);

        let alone = |port: u16| BackendEntry {
            protocol: 6,
            ..entry(3, port, BACKEND_IN_USE | BACKEND_ANSWERS_ALONE)
        };
        hosts.note(0, &alone(81));
        hosts.note(5, &alone(82));
        let both = vec![((at(3), 81, 6), 0), ((at(3), 82, 6), 5)];
        assert_eq!(hosts.changes_alone(), (both, vec![]));
        hosts.note(6, &alone(82));
        hosts.note(5, &entry(3, 82, 0));
        hosts.note(0, &entry(3, 81, BACKEND_IN_USE));
        let moved = vec![((at(3), 82, 6), 6)];
        assert_eq!(hosts.changes_alone(), (moved.clone(), vec![(at(3), 81, 6)]));
        assert_eq!(hosts.all_alone().collect::<Vec<_>>(), moved);
    }
}
