//! Restarts, the neighbours' and our own (RFC 4724 §4, RFC 8538), and refreshes, after which the same holds for what
//! was not told again (RFC 7313).
//!
//! Of a neighbour that went without a goodbye the paths stay, marked: until it is not back in the time that it
//! named, or is back and has said End-of-RIB, or came back without having forwarded meanwhile, or [`STALE_LIMIT`]
//! is over. After a restart of ours nothing is selected, told or installed until the neighbours have said what
//! they know: what is in the FIB of the process before forwards meanwhile.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::{Channel, Event, Output, Speaker};
use crate::config::Import;
use crate::rib::PeerIndex;
use crate::session::{Kept, Past, Session};
use crate::wire::Family;

/// A neighbour that is back has so long to say End-of-RIB.
pub(super) const STALE_LIMIT: Duration = Duration::from_secs(360);
/// Selection_Deferral_Timer (RFC 4724 §4.1): nobody is waited for any longer after a restart of ours.
pub(super) const DEFERRAL_LIMIT: Duration = Duration::from_secs(60);
/// A neighbour without a session by then does not count among those that are waited for: we connect at once, and VIPs wait. Nor
/// do routes of our own, which may be known only when their interfaces and backends are.
pub(super) const ABSENCE_LIMIT: Duration = Duration::from_secs(5);

/// Marked paths of a neighbour.
#[derive(Debug)]
pub(super) struct Stale {
    /// Families that have some.
    families: Vec<Family>,
    /// They go then.
    pub(super) until: Instant,
}

/// After a restart of ours, until routes are selected.
#[derive(Debug)]
pub(super) struct Deferral {
    since: Instant,
    /// Who has told all of a family.
    ended: HashSet<(PeerIndex, Family)>,
}

impl Deferral {
    pub(super) fn timeout(&self, now: Instant) -> Instant {
        let absence = self.since + ABSENCE_LIMIT;
        if now < absence { absence } else { self.since + DEFERRAL_LIMIT }
    }
}

impl Speaker {
    /// The process has restarted and its FIB was never gone: neighbours are told so (RFC 4724 §4.1), and routes are not
    /// selected before they have told theirs. To be called before anything else is.
    pub fn recover(&mut self, now: Instant) {
        self.deferral = Some(Deferral { since: now, ended: HashSet::new() });
        self.remember(Past { restarted: true, preserved: true });
        self.look_at_deferral(now);
    }

    /// Whether routes are not selected yet after [`Speaker::recover`].
    pub const fn is_deferring(&self) -> bool {
        self.deferral.is_some()
    }

    fn remember(&mut self, past: Past) {
        self.past = past;
        self.neighbours.iter_mut().for_each(|neighbour| neighbour.session.remember(past));
    }

    /// The session of a neighbour ended and leaves this, or nothing.
    pub(super) fn keep(&mut self, index: PeerIndex, kept: Option<Kept>, now: Instant) {
        if let Some(deferral) = &mut self.deferral {
            deferral.ended.retain(|(of, _)| *of != index);
        }
        let Some(Kept { families, time }) = kept else { return self.forget_paths(index) };
        let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) else { return };
        if neighbour.again.take().is_some() {
            // What it had yet to tell again is no older than the rest.
            self.rib.unmark(index);
        }
        let removed = self.rib.mark_stale(index, &families);
        neighbour.lose(removed);
        neighbour.stale = (neighbour.received > 0).then(|| Stale { families, until: now + time });
        let (peer, paths) = (neighbour.session.config().address, neighbour.accepted);
        self.ask_no_more(index);
        if paths > 0 {
            self.queue.push_back(Output::Event(Event::Stale { peer, paths, time }));
        }
    }

    /// All paths of a neighbour go.
    pub(super) fn forget_paths(&mut self, index: PeerIndex) {
        self.forget_rejudging(index);
        let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) else { return };
        (neighbour.stale, neighbour.again) = (None, None);
        neighbour.accepted = 0;
        // If it is not asked to tell them again, a later policy has nothing to judge.
        neighbour.misses_some |= neighbour.received > 0;
        let received = std::mem::take(&mut neighbour.received);
        self.rib.remove_peer(index, received);
    }

    /// It is back: what it did not forward by all the while goes at once (RFC 4724 §4.2).
    pub(super) fn back(&mut self, index: PeerIndex, now: Instant) {
        let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) else { return };
        let Some(stale) = &mut neighbour.stale else { return };
        let graceful = neighbour.channel.as_ref().and_then(|it| it.up.negotiated.graceful.as_ref());
        let said = graceful.map_or(&[][..], |graceful| &graceful.families);
        stale.families.retain(|family| said.contains(&(*family, true)));
        stale.until = now + STALE_LIMIT;
        self.sweep(index);
    }

    /// A neighbour has told all that it knows of a family (RFC 4724 §2).
    pub(super) fn end_of_rib(&mut self, index: PeerIndex, family: Family) {
        let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) else { return };
        let peer = neighbour.session.config().address;
        self.queue.push_back(Output::Event(Event::EndOfRib { peer }));
        if let Some(deferral) = &mut self.deferral {
            deferral.ended.insert((index, family));
        }
        if let Some(stale) = &mut neighbour.stale
            && stale.families.contains(&family)
        {
            // Once: it is a walk over the table.
            stale.families.retain(|left| *left != family);
            self.sweep(index);
        }
    }

    /// Time passed for neighbours that restart.
    pub(super) fn expire_stale(&mut self, now: Instant) {
        for (index, _) in (0..).zip(0..self.neighbours.len()) {
            let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) else { return };
            if let Some(stale) = neighbour.stale.as_mut().filter(|stale| stale.until <= now) {
                stale.families.clear();
                self.sweep(index);
            }
            let Some(neighbour) = self.neighbours.get(usize::from(index)) else { return };
            if let Some(again) = neighbour.again.as_ref().filter(|again| again.until <= now) {
                for family in again.families.clone() {
                    self.refresh_ends(index, family);
                }
            }
        }
    }

    /// A neighbour tells all of a family again: what it leaves out is no longer so (RFC 7313 §4). Ignored while it has not
    /// said End-of-RIB after a restart, which ends the same.
    pub(super) fn refresh_begins(&mut self, index: PeerIndex, family: Family, now: Instant) {
        if !self.speaks(index, family) {
            return;
        }
        let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) else { return };
        if neighbour.stale.is_some() || !self.may_mark(index) {
            return;
        }
        let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) else { return };
        self.rib.mark_again(index, family);
        let until = now + STALE_LIMIT;
        let again = neighbour.again.get_or_insert(Stale { families: Vec::new(), until });
        again.until = until;
        if !again.families.contains(&family) {
            again.families.push(family);
        }
    }

    /// It has told all of it, or the time for that is over.
    pub(super) fn refresh_ends(&mut self, index: PeerIndex, family: Family) {
        let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) else { return };
        let Some(again) = neighbour.again.as_mut() else { return };
        if !again.families.contains(&family) {
            return;
        }
        again.families.retain(|left| *left != family);
        let over = again.families.is_empty();
        let gone = self.rib.sweep_stale(index, &again.families);
        neighbour.lose(gone);
        if over {
            neighbour.again = None;
        }
    }

    /// What is marked goes, but for families that are still to be told.
    fn sweep(&mut self, index: PeerIndex) {
        let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) else { return };
        let Some(stale) = neighbour.stale.take() else { return };
        let gone = self.rib.sweep_stale(index, &stale.families);
        neighbour.lose(gone);
        let paths = gone.usable;
        let over = stale.families.is_empty();
        if !over {
            neighbour.stale = Some(stale);
        }
        if paths == 0 && !over {
            return;
        }
        let peer = neighbour.session.config().address;
        self.queue.push_back(Output::Event(Event::StaleOver { peer, paths }));
    }

    /// Ends the deferral where nobody is waited for any more.
    pub(super) fn look_at_deferral(&mut self, now: Instant) {
        let Some(Deferral { since, ended }) = &self.deferral else { return };
        let passed = now.saturating_duration_since(*since);
        let places = self.order.iter();
        let mut neighbours =
            places.filter_map(|&index| Some((index, self.neighbours.get(usize::from(index))?)));
        let all = neighbours.all(|(index, neighbour)| {
            let has_ended = |family: Family| ended.contains(&(index, family));
            match &neighbour.channel {
                None => is_unasked(&neighbour.session) || passed >= ABSENCE_LIMIT,
                Some(channel) => owes_nothing(channel, has_ended),
            }
        });
        // Who comes by itself cannot be waited for by name.
        let may_come = self.awaits_anybody() && passed < ABSENCE_LIMIT;
        // A neighbour that hears End-of-RIB before them forgets our own.
        let own_may_come = !self.own_are_known && passed < ABSENCE_LIMIT;
        if all && !may_come && !own_may_come || passed >= DEFERRAL_LIMIT {
            self.deferral = None;
            self.remember(Past { restarted: false, preserved: true });
        }
    }
}

/// A neighbour without a session from whom nothing is to come.
fn is_unasked(session: &Session) -> bool {
    let config = session.config();
    config.shutdown.is_some() || config.import == Import::None
}

/// It said all that it promised to say; one that restarts itself waits for us (RFC 4724 §4.1).
fn owes_nothing(channel: &Channel, has_ended: impl Fn(Family) -> bool) -> bool {
    let Some(graceful) = &channel.up.negotiated.graceful else { return true };
    graceful.restarted || graceful.families.iter().all(|(family, _)| has_ended(*family))
}
