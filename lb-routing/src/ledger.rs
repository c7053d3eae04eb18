//! What should be in the kernel of ours, what is, and the operations in between.
//!
//! Pure: the installer carries operations out and reports; the watcher reports what the kernel has. At most one operation
//! per key is under way. What failed is tried again, later each time.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// The first delay after a failure; it doubles.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest delay.
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(60);

/// A change of the kernel's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change<K, V> {
    /// Adds one; fails where one of the same key is there.
    Add(K, V),
    /// Replaces ours, atomically.
    Replace(K, V),
    /// Removes ours.
    Delete(K),
}

impl<K: Copy, V> Change<K, V> {
    pub(crate) const fn key(&self) -> K {
        match self {
            Self::Add(key, _) | Self::Replace(key, _) | Self::Delete(key) => *key,
        }
    }
}

/// The ledger of one kind of thing.
#[derive(Debug)]
pub(crate) struct Ledger<K, V> {
    wanted: HashMap<K, V>,
    installed: HashMap<K, V>,
    /// Installed by a previous process, not spoken of since, and kept for now.
    stale: HashSet<K>,
    dirty: BTreeSet<K>,
    busy: HashSet<K>,
    failed: HashMap<K, Failure>,
    retries: BTreeSet<(Instant, K)>,
    /// While the kernel's table is read: what of ours was there.
    seen: Option<HashSet<K>>,
}

#[derive(Debug)]
struct Failure {
    delay: Duration,
    retry_at: Instant,
    why: String,
}

impl<K, V> Default for Ledger<K, V> {
    fn default() -> Self {
        Self {
            wanted: HashMap::new(),
            installed: HashMap::new(),
            stale: HashSet::new(),
            dirty: BTreeSet::new(),
            busy: HashSet::new(),
            failed: HashMap::new(),
            retries: BTreeSet::new(),
            seen: None,
        }
    }
}

impl<K: Copy + Ord + Hash, V: Clone + PartialEq> Ledger<K, V> {
    /// One is to be there as this says, or (`None`) not to be there. It is no longer stale, and an earlier failure no longer
    /// counts.
    pub(crate) fn want(&mut self, key: K, value: Option<V>) {
        match value {
            Some(value) => drop(self.wanted.insert(key, value)),
            None => drop(self.wanted.remove(&key)),
        }
        self.stale.remove(&key);
        self.forget_failure(&key);
        self.dirty.insert(key);
    }

    /// What one is to be.
    pub(crate) fn wanted(&self, key: &K) -> Option<&V> {
        self.wanted.get(key)
    }

    /// The first reading of the kernel's table found one that a previous process left.
    pub(crate) fn left_behind(&mut self, key: K, value: V) {
        self.installed.insert(key, value);
        if !self.wanted.contains_key(&key) {
            self.stale.insert(key);
        }
        self.dirty.insert(key);
    }

    /// What a previous process left and nobody spoke of since, with what it is.
    pub(crate) fn stale(&self) -> impl Iterator<Item = (K, &V)> {
        self.stale.iter().filter_map(|key| Some((*key, self.installed.get(key)?)))
    }

    /// What a previous process left and nobody spoke of since goes; returns how many these are.
    pub(crate) fn end_of_stale(&mut self) -> usize {
        let count = self.stale.len();
        self.dirty.extend(self.stale.drain());
        count
    }

    /// The kernel's table is about to be read.
    pub(crate) fn reading(&mut self) {
        self.seen = Some(HashSet::new());
    }

    /// The kernel has this one of ours.
    pub(crate) fn found(&mut self, key: K, value: V) {
        if let Some(seen) = &mut self.seen {
            seen.insert(key);
        }
        if !self.busy.contains(&key) && self.installed.get(&key) != Some(&value) {
            self.installed.insert(key, value);
            self.dirty.insert(key);
        }
    }

    /// The kernel no longer has it, and not by our doing.
    pub(crate) fn lost(&mut self, key: K) {
        if !self.busy.contains(&key) && self.installed.remove(&key).is_some() {
            self.stale.remove(&key);
            self.dirty.insert(key);
        }
    }

    /// The kernel's table was read to its end: what was not found is lost.
    pub(crate) fn read(&mut self) {
        let Some(seen) = self.seen.take() else { return };
        let lost: Vec<_> =
            self.installed.keys().filter(|key| !seen.contains(*key)).copied().collect();
        for key in lost {
            self.lost(key);
        }
    }

    /// Operations to carry out now, `max` at most.
    pub(crate) fn next_batch(&mut self, max: usize, now: Instant) -> Vec<Change<K, V>> {
        while let Some(&(at, key)) = self.retries.first().filter(|(at, _)| *at <= now) {
            self.retries.remove(&(at, key));
            self.dirty.insert(key);
        }
        let mut changes = Vec::new();
        let mut later = Vec::new();
        while changes.len() < max
            && let Some(key) = self.dirty.pop_first()
        {
            if self.busy.contains(&key) {
                later.push(key);
            } else if !self.is_waiting(&key, now)
                && let Some(change) = self.change(key)
            {
                self.busy.insert(key);
                changes.push(change);
            }
        }
        self.dirty.extend(later);
        changes
    }

    /// An operation is in the kernel.
    pub(crate) fn succeeded(&mut self, change: Change<K, V>) {
        let key = change.key();
        self.busy.remove(&key);
        self.forget_failure(&key);
        match change {
            Change::Add(_, value) | Change::Replace(_, value) => {
                if let Some(seen) = &mut self.seen {
                    seen.insert(key);
                }
                self.installed.insert(key, value);
            }
            Change::Delete(_) => drop(self.installed.remove(&key)),
        }
        self.dirty.insert(key);
    }

    /// The kernel refused an operation; it is tried again after the delay returned.
    pub(crate) fn failed(&mut self, key: K, why: String, now: Instant) -> Duration {
        self.busy.remove(&key);
        let before = self.forget_failure(&key);
        let delay = before.map_or(RETRY_FIRST, |delay| (delay * 2).min(RETRY_MAX));
        let retry_at = now + delay;
        self.failed.insert(key, Failure { delay, retry_at, why });
        self.retries.insert((retry_at, key));
        delay
    }

    /// When a failed operation is due again.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.retries.first().map(|(at, _)| *at)
    }

    /// Whether the kernel has one, and its table is not being read.
    pub(crate) fn has(&self, key: &K) -> bool {
        self.seen.is_none() && self.installed.contains_key(key)
    }

    /// Whether the kernel has it as it is wanted.
    pub(crate) fn is_there(&self, key: &K) -> bool {
        self.installed.get(key).is_some_and(|there| self.wanted.get(key) == Some(there))
    }

    /// Why the kernel refused it last.
    pub(crate) fn why_not(&self, key: &K) -> Option<&str> {
        self.failed.get(key).map(|failure| failure.why.as_str())
    }

    fn change(&self, key: K) -> Option<Change<K, V>> {
        match (self.wanted.get(&key), self.installed.get(&key)) {
            (Some(value), None) => Some(Change::Add(key, value.clone())),
            (Some(value), Some(there)) if there != value => {
                Some(Change::Replace(key, value.clone()))
            }
            (None, Some(_)) if !self.stale.contains(&key) => Some(Change::Delete(key)),
            (Some(_) | None, Some(_)) | (None, None) => None,
        }
    }

    fn is_waiting(&self, key: &K, now: Instant) -> bool {
        self.failed.get(key).is_some_and(|failure| failure.retry_at > now)
    }

    fn forget_failure(&mut self, key: &K) -> Option<Duration> {
        let failure = self.failed.remove(key)?;
        self.retries.remove(&(failure.retry_at, *key));
        Some(failure.delay)
    }
}
