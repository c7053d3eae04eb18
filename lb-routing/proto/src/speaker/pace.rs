//! How often a neighbour may have us do what costs more than its few octets: a log line, a walk over the table.

use std::time::{Duration, Instant};

use super::{Event, Output, Speaker};
use crate::rib::PeerIndex;

/// What is bounded is bounded within this time.
const WINDOW: Duration = Duration::from_secs(10);

/// Lines about a neighbour's malformed UPDATEs within [`WINDOW`]; beyond, they are only counted.
pub(super) const LINES: u32 = 32;

/// Walks over the table for a neighbour that begins to tell its routes again (RFC 7313) within [`WINDOW`]; beyond, its marks
/// are ignored, and what it leaves out stays until it tells them again.
pub(super) const MARKS: u32 = 16;

/// How often something happened of late.
#[derive(Debug, Default)]
pub(super) struct Pace {
    since: Option<Instant>,
    count: u32,
}

impl Pace {
    /// Counts another time; says how many there were in this window, this one too.
    pub(super) fn step(&mut self, now: Instant) -> u32 {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            *self = Self { since: Some(now), count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count
    }
}

impl Speaker {
    /// Something is wrong with what a neighbour says; the words are only made where they are said.
    pub(super) fn complain(&mut self, index: PeerIndex, what: impl FnOnce() -> String) {
        let now = self.now;
        let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) else { return };
        let (peer, line) = (neighbour.session.config().address, neighbour.lines.step(now));
        if line > LINES {
            return;
        }
        let mut what = what();
        if line == LINES {
            let seconds = WINDOW.as_secs();
            what += &format!("; more of it within {seconds} s is only counted");
        }
        neighbour.last_malformed.clone_from(&what);
        self.queue.push_back(Output::Event(Event::Malformed { peer, what }));
    }

    /// Whether a neighbour may have the table marked once more.
    pub(super) fn may_mark(&mut self, index: PeerIndex) -> bool {
        let now = self.now;
        let neighbour = self.neighbours.get_mut(usize::from(index));
        let may = neighbour.is_some_and(|neighbour| neighbour.marks.step(now) <= MARKS);
        if !may {
            self.complain(index, || {
                format!("begins to tell its routes again more than {MARKS} times in {} s: ignored (RFC 7313)", WINDOW.as_secs())
            });
        }
        may
    }
}
