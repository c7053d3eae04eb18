//! A change of import policy of a neighbour that cannot be asked for its routes again (it knows no RFC 2918): what it told is
//! judged anew, as it came, and its session goes on.
//!
//! A path in the table names its attributes as they came. Of such a neighbour what import refuses is kept, too, as with
//! `keep_rejected` and within the same bounds, so that nothing is missing. Where something is, because there was no room or
//! because nothing at all was imported, a new session brings it.

use std::time::Instant;

use super::{Neighbour, Speaker};
use crate::config::Import;
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

impl Speaker {
    /// Has import see its routes again; one that cannot be asked for them has told them.
    pub(super) fn ask_again(&mut self, index: PeerIndex, now: Instant) {
        let mut asked = true;
        self.with_session(index, now, |session, _, out| asked = session.ask_again(out));
        let Some(neighbour) = self.neighbours.get(usize::from(index)).filter(|_| !asked) else {
            return;
        };
        if neighbour.misses_some {
            self.end_session(index, Notification::new(error::OTHER_CONFIGURATION_CHANGE), now);
        } else {
            self.forget_rejudging(index);
            self.rejudging.push_back((index, 0));
        }
    }

    pub(super) fn forget_rejudging(&mut self, index: PeerIndex) {
        self.rejudging.retain(|(other, _)| *other != index);
    }

    /// Judges some of what such neighbours told anew; says whether any was to be.
    pub(super) fn judge_again(&mut self) -> bool {
        let Some((index, from)) = self.rejudging.pop_front() else { return false };
        let to = from.saturating_add(LOOKS).min(self.rib.end());
        if to < self.rib.end() {
            self.rejudging.push_back((index, to));
        }
        let Some(neighbour) = self.neighbours.get(usize::from(index)) else { return true };
        let importer = Importer::new(&self.config, neighbour.session.config());
        let (judge, now) = (neighbour.judge, self.now);
        let mut told = self.rib.told_by(Source::of(index), from, to);
        told.sort_unstable_by_key(|&(received, ..)| received);
        for paths in told.chunk_by(|one, other| one.0 == other.0) {
            let Some(&(received, ..)) = paths.first() else { continue };
            let by = self.judges.get(usize::from(judge));
            let check = |attributes: &_| by.and_then(|by| by.check(attributes).err());
            let attributes = self.rib.judged_by(received, judge, check);
            let paths = paths.iter().map(|&(_, path_id, prefix)| (path_id, prefix));
            let _said_when_they_came: Option<Rejection> =
                self.take(index, &importer, attributes, paths);
            self.rib.release(attributes);
        }
        self.watch_limit(index, now);
        self.enforce_bounds(index, now);
        true
    }
}
