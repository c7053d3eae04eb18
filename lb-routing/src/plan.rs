//! Our routes in the kernel: what should be there, what is, and the operations in between.
//!
//! Pure: the installer carries operations out and reports; the watcher reports what the kernel has.
//! At most one operation per prefix is under way. What failed is tried again, later each time.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use lb_routing_proto::fib::KernelNextHop;

/// The first delay after a failure; it doubles.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest delay.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// A route of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OwnRoute {
    /// Stands for a VIP.
    Unreachable,
    /// Learned from neighbours.
    Via(Arc<[KernelNextHop]>),
}

/// A change of the kernel's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Adds a route; fails where one of the same prefix and metric is there.
    Add(IpNetwork, OwnRoute),
    /// Replaces ours, atomically.
    Replace(IpNetwork, OwnRoute),
    /// Removes ours.
    Delete(IpNetwork),
}

impl Op {
    pub(crate) const fn prefix(&self) -> IpNetwork {
        match self {
            Self::Add(prefix, _) | Self::Replace(prefix, _) | Self::Delete(prefix) => *prefix,
        }
    }
}

/// The plan.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    vips: BTreeSet<IpAddr>,
    /// Whether `set_vips` was called.
    vips_known: bool,
    learned: HashMap<IpNetwork, Arc<[KernelNextHop]>>,
    installed: HashMap<IpNetwork, OwnRoute>,
    /// Installed by a previous process, not spoken of since, and kept for now.
    stale: HashSet<IpNetwork>,
    dirty: BTreeSet<IpNetwork>,
    busy: HashSet<IpNetwork>,
    failed: HashMap<IpNetwork, Failure>,
    retries: BTreeSet<(Instant, IpNetwork)>,
    /// While the kernel's table is read: what of ours was there.
    seen: Option<HashSet<IpNetwork>>,
}

#[derive(Debug)]
struct Failure {
    delay: Duration,
    retry_at: Instant,
}

impl Plan {
    /// The routes of the speaker to a prefix (empty: none).
    pub(crate) fn set_learned(&mut self, prefix: IpNetwork, next_hops: Arc<[KernelNextHop]>) {
        if next_hops.is_empty() {
            self.learned.remove(&prefix);
        } else {
            self.learned.insert(prefix, next_hops);
        }
        self.touch(prefix);
    }

    /// Exactly these addresses are VIPs; returns those that come and those that go.
    pub(crate) fn set_vips(&mut self, vips: BTreeSet<IpAddr>) -> (Vec<IpAddr>, Vec<IpAddr>) {
        let come: Vec<_> = vips.difference(&self.vips).copied().collect();
        let go: Vec<_> = self.vips.difference(&vips).copied().collect();
        self.vips_known = true;
        let installed = &self.installed;
        let left = self.stale.iter().filter(|p| installed.get(*p) == Some(&OwnRoute::Unreachable));
        let left: Vec<_> = left.copied().collect();
        self.change_vips(&come, &go);
        for prefix in left {
            self.touch(prefix);
        }
        (come, go)
    }

    /// These addresses are VIPs, too, and those are none any more.
    pub(crate) fn change_vips(&mut self, come: &[IpAddr], go: &[IpAddr]) {
        for vip in go {
            self.vips.remove(vip);
        }
        self.vips.extend(come);
        for vip in come.iter().chain(go) {
            self.touch(IpNetwork::from(*vip));
        }
    }

    pub(crate) const fn vips_known(&self) -> bool {
        self.vips_known
    }

    /// The first reading of the kernel's table found a route that a previous process left.
    pub(crate) fn left_behind(&mut self, prefix: IpNetwork, route: OwnRoute) {
        self.installed.insert(prefix, route);
        if !self.is_wanted(&prefix) {
            self.stale.insert(prefix);
        }
        self.dirty.insert(prefix);
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

    /// The kernel has this route of ours.
    pub(crate) fn found(&mut self, prefix: IpNetwork, route: OwnRoute) {
        if let Some(seen) = &mut self.seen {
            seen.insert(prefix);
        }
        if !self.busy.contains(&prefix) && self.installed.get(&prefix) != Some(&route) {
            self.installed.insert(prefix, route);
            self.dirty.insert(prefix);
        }
    }

    /// The kernel no longer has it, and not by our doing.
    pub(crate) fn lost(&mut self, prefix: IpNetwork) {
        if !self.busy.contains(&prefix) && self.installed.remove(&prefix).is_some() {
            self.stale.remove(&prefix);
            self.dirty.insert(prefix);
        }
    }

    /// The kernel's table was read to its end: what was not found is lost.
    pub(crate) fn read(&mut self) {
        let Some(seen) = self.seen.take() else { return };
        let lost: Vec<_> = self.installed.keys().filter(|p| !seen.contains(*p)).copied().collect();
        for prefix in lost {
            self.lost(prefix);
        }
    }

    /// Operations to carry out now, `max` at most.
    pub(crate) fn next_batch(&mut self, max: usize, now: Instant) -> Vec<Op> {
        while let Some(&(at, prefix)) = self.retries.first().filter(|(at, _)| *at <= now) {
            self.retries.remove(&(at, prefix));
            self.dirty.insert(prefix);
        }
        let mut ops = Vec::new();
        let mut later = Vec::new();
        while ops.len() < max
            && let Some(prefix) = self.dirty.pop_first()
        {
            if self.busy.contains(&prefix) {
                later.push(prefix);
            } else if !self.is_waiting(&prefix, now)
                && let Some(op) = self.op(prefix)
            {
                self.busy.insert(prefix);
                ops.push(op);
            }
        }
        self.dirty.extend(later);
        ops
    }

    /// An operation is in the kernel.
    pub(crate) fn succeeded(&mut self, op: Op) {
        let prefix = op.prefix();
        self.busy.remove(&prefix);
        self.forget_failure(&prefix);
        match op {
            Op::Add(_, route) | Op::Replace(_, route) => {
                if let Some(seen) = &mut self.seen {
                    seen.insert(prefix);
                }
                self.installed.insert(prefix, route);
            }
            Op::Delete(_) => {
                self.installed.remove(&prefix);
            }
        }
        self.dirty.insert(prefix);
    }

    /// The kernel refused an operation; it is tried again after the delay returned.
    pub(crate) fn failed(&mut self, op: &Op, now: Instant) -> Duration {
        let prefix = op.prefix();
        self.busy.remove(&prefix);
        let before = self.forget_failure(&prefix);
        let delay = before.map_or(RETRY_FIRST, |delay| (delay * 2).min(RETRY_MAX));
        let retry_at = now + delay;
        self.failed.insert(prefix, Failure { delay, retry_at });
        self.retries.insert((retry_at, prefix));
        delay
    }

    /// When a failed operation is due again.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.retries.first().map(|(at, _)| *at)
    }

    fn wanted(&self, prefix: &IpNetwork) -> Option<OwnRoute> {
        if *prefix == IpNetwork::from(prefix.network()) && self.vips.contains(&prefix.network()) {
            return Some(OwnRoute::Unreachable);
        }
        self.learned.get(prefix).map(|next_hops| OwnRoute::Via(Arc::clone(next_hops)))
    }

    fn is_wanted(&self, prefix: &IpNetwork) -> bool {
        self.wanted(prefix).is_some()
    }

    fn op(&self, prefix: IpNetwork) -> Option<Op> {
        match (self.wanted(&prefix), self.installed.get(&prefix)) {
            (Some(route), None) => Some(Op::Add(prefix, route)),
            (Some(route), Some(there)) if *there != route => Some(Op::Replace(prefix, route)),
            (None, Some(_)) if !self.stale.contains(&prefix) => Some(Op::Delete(prefix)),
            (Some(_) | None, Some(_)) | (None, None) => None,
        }
    }

    /// Somebody spoke of a prefix: it is no longer stale, and an earlier failure no longer counts.
    fn touch(&mut self, prefix: IpNetwork) {
        self.stale.remove(&prefix);
        self.forget_failure(&prefix);
        self.dirty.insert(prefix);
    }

    fn is_waiting(&self, prefix: &IpNetwork, now: Instant) -> bool {
        self.failed.get(prefix).is_some_and(|failure| failure.retry_at > now)
    }

    fn forget_failure(&mut self, prefix: &IpNetwork) -> Option<Duration> {
        let failure = self.failed.remove(prefix)?;
        self.retries.remove(&(failure.retry_at, *prefix));
        Some(failure.delay)
    }
}

#[cfg(test)]
mod tests;
