//! How many prefixes a neighbour may tell, and what happens beyond.

use std::time::Instant;

use ipnetwork::IpNetwork;

use super::{Event, Output, Speaker};
use crate::config::{BeyondLimit, MaxPrefixes};
use crate::rib::{PeerIndex, Source};
use crate::wire::{Notification, PathId, error};

/// What was said of a neighbour's limit since it was last well below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LimitSaid {
    #[default]
    Nothing,
    /// That it comes near.
    Near,
    /// That it is beyond.
    Beyond,
}

impl Speaker {
    /// Whether a path of a neighbour is not taken because it has enough; one that it replaces may always be replaced.
    pub(super) fn discards(
        &mut self,
        index: PeerIndex,
        prefix: &IpNetwork,
        path_id: PathId,
    ) -> bool {
        let Some((limit, accepted)) = self.limit_of(index) else { return false };
        let full = limit.beyond == BeyondLimit::Discard && accepted >= u64::from(limit.limit);
        let discards = full && !self.rib.has(prefix, (Source::of(index), path_id));
        if discards {
            self.say_limit(index, LimitSaid::Beyond, limit, accepted);
        }
        discards
    }

    /// Looks at a neighbour's limit after it told something.
    pub(super) fn watch_limit(&mut self, index: PeerIndex, now: Instant) {
        if self.is_rejudged(index) {
            return;
        }
        let Some((limit, accepted)) = self.limit_of(index) else { return };
        if accepted > limit.limit.into() {
            self.say_limit(index, LimitSaid::Beyond, limit, accepted);
            if let BeyondLimit::End(restart) = limit.beyond {
                let cease = Notification::new(error::MAXIMUM_NUMBER_OF_PREFIXES_REACHED);
                self.with_session(index, now, |session, now, out| {
                    session.end_for(cease, restart, now, out);
                });
            }
        } else if accepted >= limit.warns_at() {
            self.say_limit(index, LimitSaid::Near, limit, accepted);
        } else if let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) {
            neighbour.limit_said = LimitSaid::Nothing;
        }
    }

    fn limit_of(&self, index: PeerIndex) -> Option<(MaxPrefixes, u64)> {
        let neighbour = self.neighbours.get(usize::from(index))?;
        Some((neighbour.session.config().max_prefixes?, neighbour.accepted))
    }

    /// Once each, until it is well below again.
    fn say_limit(
        &mut self,
        index: PeerIndex,
        what: LimitSaid,
        MaxPrefixes { limit, beyond, .. }: MaxPrefixes,
        accepted: u64,
    ) {
        let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) else { return };
        if neighbour.limit_said >= what {
            return;
        }
        neighbour.limit_said = what;
        let peer = neighbour.session.config().address;
        let what = match (what, beyond) {
            (LimitSaid::Nothing, _) => return,
            (LimitSaid::Near, _) => format!("tells {accepted} prefixes, max_prefixes is {limit}"),
            (LimitSaid::Beyond, BeyondLimit::Warn) => {
                format!("tells {accepted} prefixes, more than max_prefixes {limit}: they are taken")
            }
            (LimitSaid::Beyond, BeyondLimit::Discard) => format!(
                "tells more than max_prefixes {limit}: what is beyond is not taken; a soft reset (in) asks for it again"
            ),
            (LimitSaid::Beyond, BeyondLimit::End(None)) => format!(
                "tells more than max_prefixes {limit}: the session ends until it is cleared or the limit changes"
            ),
            (LimitSaid::Beyond, BeyondLimit::End(Some(rest))) => format!(
                "tells more than max_prefixes {limit}: the session ends for {} s",
                rest.as_secs()
            ),
        };
        self.queue.push_back(Output::Event(Event::PrefixLimit { peer, what }));
    }
}
