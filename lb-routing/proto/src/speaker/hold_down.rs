//! Next hops that come and go with routes of our own choice wait before they come again.
//!
//! A next hop that a route of ours leads to may depend on what is chosen because of it: routes that lead to each other, by
//! way of third ones maybe, need not settle at all. So the first [`FREE`] times such a next hop becomes nearer count at once,
//! and then each has to wait after the one before, twice as long every time, [`LONGEST`] at most. What makes it farther always
//! counts at once.
//!
//! Bound: an entry for each next hop that became nearer of late.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Event, Output, Speaker};
use crate::fib::Reach;

/// So often a next hop may become nearer without having to wait.
const FREE: u32 = 3;

/// The first wait.
const FIRST: Duration = Duration::from_secs(1);

/// The longest wait; what has been steady for twice as long counts as new.
const LONGEST: Duration = Duration::from_secs(64);

/// A next hop that became nearer of late.
#[derive(Debug)]
struct Unsteady {
    /// When it did so last, as far as that counts, and how often.
    since: Instant,
    times: u32,
    /// It is nearer again, which does not count yet.
    held: Option<Reach>,
    /// That was said since.
    said: bool,
}

impl Unsteady {
    /// It may become nearer from then on.
    fn until(&self) -> Instant {
        let Some(doublings) = self.times.checked_sub(FREE) else { return self.since };
        self.since + LONGEST.min(FIRST * (1 << doublings.min(8)))
    }

    /// When there is something to do for it.
    fn due(&self) -> Instant {
        if self.held.is_some() { self.until() } else { self.since + 2 * LONGEST }
    }

    fn step(&mut self, now: Instant) {
        *self = Self { since: now, times: self.times.saturating_add(1), held: None, said: false };
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct HoldDown {
    unsteady: BTreeMap<IpAddr, Unsteady>,
    /// When to look at them.
    due: Option<Instant>,
}

impl HoldDown {
    pub(super) const fn timeout(&self) -> Option<Instant> {
        self.due
    }

    fn wake_at(&mut self, due: Instant) {
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// A next hop is nearer; says how long that is to wait, if it is, and whether that is new.
    fn nearer(&mut self, next_hop: IpAddr, reach: Reach, now: Instant) -> Option<(Duration, bool)> {
        let new = Unsteady { since: now, times: 0, held: None, said: false };
        let known = self.unsteady.entry(next_hop).or_insert(new);
        let wait = known.until().checked_duration_since(now).filter(|wait| !wait.is_zero());
        match wait {
            Some(_) => known.held = Some(reach),
            None => known.step(now),
        }
        let is_new = !std::mem::replace(&mut known.said, wait.is_some());
        let due = known.due();
        self.wake_at(due);
        wait.map(|wait| (wait, is_new))
    }

    fn forget_held(&mut self, next_hop: IpAddr) {
        if let Some(known) = self.unsteady.get_mut(&next_hop) {
            known.held = None;
        }
    }
}

/// Nothing is farther than what cannot be reached.
fn distance(reach: Reach) -> u64 {
    reach.cost.map_or(u64::MAX, u64::from)
}

impl Speaker {
    /// A next hop is so far.
    pub(super) fn reach(&mut self, next_hop: IpAddr, reach: Reach, now: Instant) {
        let Some(before) = self.rib.reach(next_hop) else { return };
        // What only others' routes say never depends on what we choose.
        let is_ours = before.over.is_some() || reach.over.is_some();
        if is_ours
            && distance(reach) < distance(before)
            && let Some((wait, is_new)) = self.hold_down.nearer(next_hop, reach, now)
        {
            if is_new {
                let seconds = wait.as_secs_f32().ceil();
                let what = format!(
                    "comes and goes with routes that lead to it: routes by it wait for {seconds} s"
                );
                self.queue.push_back(Output::Event(Event::Unsteady { next_hop, what }));
            }
            return;
        }
        self.hold_down.forget_held(next_hop);
        self.rib.set_reach(next_hop, reach);
    }

    /// Time passed: what has waited long enough counts.
    pub(super) fn release_held(&mut self, now: Instant) {
        if self.hold_down.due.is_none_or(|due| due > now) {
            return;
        }
        let rib = &mut self.rib;
        self.hold_down.unsteady.retain(|next_hop, unsteady| {
            if unsteady.due() > now {
                return true;
            }
            let Some(reach) = unsteady.held.take() else { return false };
            unsteady.step(now);
            rib.set_reach(*next_hop, reach);
            true
        });
        // It is a walk over all of them.
        let next = self.hold_down.unsteady.values().map(Unsteady::due).min();
        self.hold_down.due = next.map(|due| due.max(now + FIRST));
    }
}
