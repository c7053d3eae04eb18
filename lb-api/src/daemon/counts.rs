//! Tells who watches events how much there is of what comes and goes too often to be told one by one: paths of BGP, entries of
//! the eBPF FIB, flows.
//!
//! Bounded: what has changed after a quiet time is told within a second, and what goes on changing every ten.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use lb_api_types::event::EventKind;
use lb_dataplane::{Aged, fib::FibUsage};
use lb_routing::{PeerStatus, RouterHandle};
use tokio::time::{MissedTickBehavior, interval};

use super::dataplane::DataplaneHandle;
use crate::events::Events;

/// How often paths and FIB are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The least time between two events about the same.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Follows paths and FIB until the dataplane ends.
pub(super) fn spawn(router: RouterHandle, dataplane: DataplaneHandle, events: Events) {
    tokio::spawn(async move {
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut paths, mut fib) = (Paths::default(), Told::default());
        loop {
            tick.tick().await;
            let now = Instant::now();
            for (name, message) in paths.changes(&router.peers().await, now) {
                events.tell(EventKind::PathsChanged, name, message);
            }
            let Ok(usage) = dataplane.with(|owned| owned.dataplane.fib_usage()).await else {
                return;
            };
            if let Some(before) = fib.news(usage.updates, now) {
                events.tell(EventKind::FibChanged, "", fib_sentence(&usage, before));
            }
        }
    });
}

fn fib_sentence(usage: &FibUsage, before: u64) -> String {
    let [v4, v6] = usage.routes;
    let changes = usage.updates.saturating_sub(before);
    format!("{changes} changes; the eBPF FIB has {v4} IPv4 and {v6} IPv6 routes")
}

/// What was told last of something, and when.
#[derive(Debug)]
struct Told<T>(Option<(T, Option<Instant>)>);

impl<T> Default for Told<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Copy + PartialEq> Told<T> {
    /// What was told before, if what there is now is to be told. Nothing is told of what there is at first.
    fn news(&mut self, there: T, now: Instant) -> Option<T> {
        let Some((before, at)) = self.0 else {
            self.0 = Some((there, None));
            return None;
        };
        let is_soon = at.is_some_and(|at| now.duration_since(at) < TELL_EVERY);
        if before == there || is_soon {
            return None;
        }
        self.0 = Some((there, Some(now)));
        Some(before)
    }
}

/// Prefixes that each neighbour has told us, and that we have told it.
#[derive(Debug, Default)]
struct Paths(BTreeMap<IpAddr, Told<(u64, u64)>>);

impl Paths {
    fn changes(&mut self, peers: &[PeerStatus], now: Instant) -> Vec<(String, String)> {
        self.0.retain(|address, _| peers.iter().any(|peer| peer.address == *address));
        let mut changes = Vec::new();
        for peer in peers {
            let (received, advertised) = (peer.prefixes_received, peer.prefixes_advertised);
            let told = self.0.entry(peer.address).or_default();
            if told.news((received, advertised), now).is_some() {
                let message = format!("{received} prefixes received, {advertised} advertised");
                changes.push((peer.name.clone(), message));
            }
        }
        changes
    }
}

/// Flows, as the scan for those that are over sees them.
#[derive(Debug, Default)]
pub(super) struct Flows {
    /// Entries, two a flow, and flows that ended, of this scan so far.
    scan: (u64, u64),
    ended: u64,
    told: Told<(u64, u64)>,
}

impl Flows {
    /// Hears of a part of a scan; what to tell at its end.
    pub(super) fn heard(&mut self, aged: &Aged, now: Instant) -> Option<String> {
        self.scan.0 += u64::from(aged.scanned);
        self.scan.1 += u64::from(aged.removed);
        if !aged.wrapped {
            return None;
        }
        let (entries, ended) = std::mem::take(&mut self.scan);
        self.ended += ended;
        let flows = (entries / 2).saturating_sub(ended);
        let (_, before) = self.told.news((flows, self.ended), now)?;
        Some(format!("{flows} flows; {} were removed", self.ended - before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_change_is_told_at_once_and_those_that_follow_together() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut told = Told::default();
        assert_eq!(told.news(7, at(0)), None, "whoever watches has read that");
        assert_eq!(told.news(7, at(1)), None);
        assert_eq!(told.news(8, at(2)), Some(7));
        assert_eq!(told.news(9, at(3)), None);
        assert_eq!(told.news(10, at(11)), None);
        assert_eq!(told.news(11, at(12)), Some(8));
        assert_eq!(told.news(11, at(99)), None);
    }

    #[test]
    fn flows_are_told_at_the_end_of_a_scan() {
        let start = Instant::now();
        let aged =
            |scanned, removed, wrapped| Aged { scanned, removed, wrapped, ..Aged::default() };
        let mut flows = Flows::default();
        assert_eq!(flows.heard(&aged(0, 0, true), start), None);
        assert_eq!(flows.heard(&aged(40, 2, false), start), None);
        let said = flows.heard(&aged(20, 3, true), start);
        assert_eq!(said.as_deref(), Some("25 flows; 5 were removed"));
        assert_eq!(flows.heard(&aged(50, 1, true), start), None, "it was told just now");
        let later = start + TELL_EVERY;
        let said = flows.heard(&aged(48, 1, true), later);
        assert_eq!(said.as_deref(), Some("23 flows; 2 were removed"));
    }
}
