//! A change of import policy: what a neighbour told is judged anew, as it came, and its session goes on.
//!
//! A path in the table names its attributes as they came. One that can be asked for its routes (RFC 2918) is asked after what
//! there is was judged: what goes has gone before what comes is counted, and goes also where the neighbour does not answer.
//!
//! Of one that cannot be asked what import refuses is kept, too, as with `keep_rejected` and within the same bounds. Where
//! something is missing, because there was no room or because nothing at all was imported, a new session brings it.
//!
//! Routes that are kept while a neighbour restarts are judged the same way, and go when they would have gone. Without a session
//! what import refuses of them stays with `keep_rejected` only: the neighbour tells it again when it is back.
//!
//! Meanwhile old and new verdicts stand side by side. So limits of prefixes count once all is judged, and the bounds of a
//! neighbour's room are twice as wide until then: no session ends for what only the change itself takes.

use std::time::Instant;

use super::ingest::Count;
use super::{Neighbour, Speaker};
use crate::config::{BeyondLimit, Import};
use crate::policy::{Importer, Rejection};
use crate::rib::{PeerIndex, PrefixId, Source};
use crate::wire::{Notification, error};

/// Records that are looked at in one go.
const LOOKS: PrefixId = 16 * 1024;

impl Neighbour {
    /// What import refuses stays in the table: to be shown, or to be judged anew.
    pub(super) fn keeps_refused(&self) -> bool {
        let config = self.session.config();
        let channel = self.channel.as_ref();
        let cannot_be_asked = channel.is_some_and(|it| !it.up.negotiated.route_refresh);
        let keeps = config.keep_rejected || (cannot_be_asked && config.import != Import::None);
        keeps && !self.keeps_no_more
    }
}

/// A neighbour whose paths are judged anew.
#[derive(Debug)]
pub(super) struct Rejudging {
    index: PeerIndex,
    /// The record to go on with.
    next: PrefixId,
    /// The one to stop before: what comes later is judged when it comes.
    end: PrefixId,
    then: Then,
}

/// What follows once all is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Nothing,
    /// The neighbour is asked for its routes.
    Ask,
    /// Once more: what was beyond the limit of prefixes may have room by then.
    Again,
}

impl Speaker {
    /// Another import policy holds for a neighbour.
    pub(super) fn import_anew(&mut self, index: PeerIndex, now: Instant) {
        let Some(neighbour) = self.neighbours.get(usize::from(index)) else { return };
        match &neighbour.channel {
            Some(channel) if channel.up.negotiated.route_refresh => self.rejudge(index, Then::Ask),
            Some(_) => self.ask_again(index, now),
            None if neighbour.stale.is_some() => self.rejudge(index, Then::Nothing),
            // The next session begins with it.
            None => {}
        }
    }

    /// Its session is over: nobody is asked any more, but what is kept is judged to the end.
    pub(super) fn ask_no_more(&mut self, index: PeerIndex) {
        if self.is_rejudged(index) {
            self.rejudge(index, Then::Nothing);
        }
    }

    /// Has import see its routes again; one that cannot be asked for them has told them.
    pub(super) fn ask_again(&mut self, index: PeerIndex, now: Instant) {
        let mut asked = true;
        self.with_session(index, now, |session, _, out| asked = session.ask_again(out));
        let Some(neighbour) = self.neighbours.get(usize::from(index)).filter(|_| !asked) else {
            return;
        };
        if neighbour.misses_some {
            return self.end_session(
                index,
                Notification::new(error::OTHER_CONFIGURATION_CHANGE),
                now,
            );
        }
        let beyond = neighbour.session.config().max_prefixes.map(|limit| limit.beyond);
        let discards = beyond == Some(BeyondLimit::Discard);
        self.rejudge(index, if discards { Then::Again } else { Then::Nothing });
    }

    fn rejudge(&mut self, index: PeerIndex, then: Then) {
        self.forget_rejudging(index);
        self.rejudging.push_back(Rejudging { index, next: 0, end: self.rib.end(), then });
    }

    pub(super) fn forget_rejudging(&mut self, index: PeerIndex) {
        self.rejudging.retain(|it| it.index != index);
    }

    /// Some of its paths are still as an earlier policy left them.
    pub(super) fn is_rejudged(&self, index: PeerIndex) -> bool {
        self.rejudging.iter().any(|it| it.index == index)
    }

    /// Judges some of what such neighbours told anew; says whether any was to be.
    pub(super) fn judge_again(&mut self) -> bool {
        let Some(Rejudging { index, next, end, then }) = self.rejudging.pop_front() else {
            return false;
        };
        let to = next.saturating_add(LOOKS).min(end);
        if to < end {
            self.rejudging.push_back(Rejudging { index, next: to, end, then });
        }
        let count = if then == Then::Ask { Count::None } else { Count::New };
        self.judge_some(index, (next, to), count);
        let now = self.now;
        if to == end {
            match then {
                Then::Nothing => {}
                Then::Ask => self.ask_again(index, now),
                Then::Again => self.rejudge(index, Then::Nothing),
            }
        }
        self.watch_limit(index, now);
        self.enforce_bounds(index, now);
        true
    }

    fn judge_some(&mut self, index: PeerIndex, (from, to): (PrefixId, PrefixId), count: Count) {
        let Some(neighbour) = self.neighbours.get(usize::from(index)) else { return };
        let importer = Importer::new(&self.config, neighbour.session.config());
        let judge = neighbour.judge;
        let mut told = self.rib.told_by(Source::of(index), from, to);
        told.sort_unstable_by_key(|&(set, _)| set);
        for paths in told.chunk_by(|one, other| one.0 == other.0) {
            let Some(&((received, stale), _)) = paths.first() else { continue };
            let by = self.judges.get(usize::from(judge));
            let check = |attributes: &_| by.and_then(|by| by.check(attributes).err());
            let attributes = self.rib.judged_by(received, judge, check);
            let paths = paths.iter().map(|&(_, path)| path);
            let _said_when_they_came: Option<Rejection> =
                self.take(index, &importer, (attributes, stale), paths, count);
            self.rib.release(attributes);
        }
    }
}
