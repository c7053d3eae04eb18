//! Which addresses are backends', whatever services have them: what `BACKEND_ADDRESSES` is to hold.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use lb_dataplane_common::service::{BACKEND_IN_USE, BackendEntry};

use super::entries::address;

/// The addresses, as the backends' entries say them.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    by_id: HashMap<u32, IpAddr>,
    backends: HashMap<IpAddr, u32>,
    /// Addresses that became a backend's, or ceased to be one.
    changed: BTreeSet<IpAddr>,
}

impl Hosts {
    pub(super) fn note(&mut self, id: u32, entry: &BackendEntry) {
        let now = (entry.flags & BACKEND_IN_USE != 0).then(|| address(entry.address));
        if self.by_id.get(&id).copied() == now {
            return;
        }
        if let Some(gone) = self.by_id.remove(&id)
            && let Some(count) = self.backends.get_mut(&gone)
        {
            *count -= 1;
            if *count == 0 {
                self.backends.remove(&gone);
                self.changed.insert(gone);
            }
        }
        if let Some(new) = now {
            self.by_id.insert(id, new);
            let count = self.backends.entry(new).or_insert(0);
            *count += 1;
            if *count == 1 {
                self.changed.insert(new);
            }
        }
    }

    /// All of them; from here on changes are counted.
    pub(crate) fn all(&mut self) -> impl Iterator<Item = IpAddr> + '_ {
        self.changed.clear();
        self.backends.keys().copied()
    }

    /// What has changed since: addresses that are backends' now, and those that are none's.
    pub(crate) fn changes(&mut self) -> (Vec<IpAddr>, Vec<IpAddr>) {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().partition(|address| self.backends.contains_key(address))
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
    }
}
