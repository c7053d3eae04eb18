//! Backends that left their services, whose counters still include theirs, until no flow of theirs is left: then what they have counted
//! is added up where the service keeps it, and their ids go to others.

use std::collections::{BTreeMap, BTreeSet};

use lb_dataplane_common::service::BackendEntry;

/// Them, as the steps that were carried out say.
#[derive(Debug, Default)]
pub(crate) struct Left {
    backends: BTreeMap<u32, Leaver>,
    by_service: BTreeMap<u32, BTreeSet<u32>>,
    /// The number of the next one.
    next: u64,
    /// Those with a number below have waited for a grace period: nothing begins flows to them any more.
    waited: u64,
}

#[derive(Clone, Copy, Debug)]
struct Leaver {
    service: u32,
    number: u64,
    is_quiet: bool,
}

impl Left {
    pub(super) fn note(&mut self, id: u32, entry: &BackendEntry) {
        self.forget(id);
        if let Some(service) = entry.left() {
            let leaver = Leaver { service, number: self.next, is_quiet: false };
            self.next += 1;
            self.backends.insert(id, leaver);
            self.by_service.entry(service).or_default().insert(id);
        }
    }

    /// No service counts this one any more.
    pub(crate) fn forget(&mut self, id: u32) {
        let Some(Leaver { service, .. }) = self.backends.remove(&id) else { return };
        if let Some(ids) = self.by_service.get_mut(&service) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_service.remove(&service);
            }
        }
    }

    /// Whether some left a service.
    pub(super) fn is_any_of(&self, service: u32) -> bool {
        self.by_service.contains_key(&service)
    }

    /// How many wait for a grace period.
    pub(super) fn waiting(&self) -> u64 {
        self.next - self.waited
    }

    /// All, with their services.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.backends.iter().map(|(id, leaver)| (*id, leaver.service))
    }

    /// Those that left a service.
    pub(crate) fn of(&self, service: u32) -> impl Iterator<Item = u32> + '_ {
        self.by_service.get(&service).into_iter().flatten().copied()
    }

    /// What waits for a grace period that begins now.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// A grace period is over that began when this was next.
    pub(super) fn passed(&mut self, next: u64) {
        self.waited = self.waited.max(next);
    }

    /// With another grace period over, those with whose service that is to keep what they have counted: of which `is_quiet` says for
    /// the second time that no entry of a flow to them is left. One that met the last entry may have been about to count.
    pub(crate) fn settle(&mut self, is_quiet: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut over = Vec::new();
        for (id, leaver) in &mut self.backends {
            if leaver.number < self.waited && is_quiet(*id) {
                over.extend(leaver.is_quiet.then_some(*id));
                leaver.is_quiet = true;
            }
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::super::entries::gone_entry;
    use super::*;

    #[test]
    fn a_backend_that_left_is_its_services_until_it_is_quiet() {
        let left_by = |service| BackendEntry { service, ..gone_entry(([10, 2, 0, 1].into(), 80)) };
        let mut left = Left::default();
        let of = |left: &Left, service| left.of(service).collect::<Vec<_>>();
        left.note(4, &left_by(1));
        left.note(3, &left_by(1));
        left.note(5, &left_by(2));
        left.note(6, &gone_entry(([10, 2, 0, 1].into(), 80)));
        assert_eq!((of(&left, 1), of(&left, 2)), (vec![3, 4], vec![5]));
        left.forget(3);
        left.note(5, &left_by(1));
        assert_eq!((of(&left, 1), of(&left, 2)), (vec![4, 5], vec![]));

        assert_eq!(left.settle(|_| true), [0; 0], "no grace period is over");
        let waited = left.next();
        left.note(7, &left_by(2));
        left.passed(waited);
        assert_eq!(
            left.settle(|_| true),
            [0; 0],
            "packets that met the last entry may still count"
        );
        assert_eq!(left.settle(|id| id != 5), [4], "it has flows");
        left.forget(4);
        left.passed(left.next());
        assert_eq!(left.settle(|_| true), [5]);
        assert_eq!(left.settle(|_| true), [5, 7]);
        left.forget(5);
        assert_eq!((of(&left, 1), of(&left, 2)), (vec![], vec![7]));
        assert_eq!(left.settle(|_| true), [7]);
        assert_eq!([1, 2].map(|service| left.is_any_of(service)), [false, true]);
    }
}
