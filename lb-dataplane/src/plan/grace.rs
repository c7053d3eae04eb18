//! Grace periods that somebody waits for beside the changes, so that none of these has to.

use super::Served;

/// Rings, or lists of clients, that wait for one before it is worth the while; a change that finds no space waits for one itself.
const RINGS: usize = 32;
/// Lists of sources in the same way.
const LISTS: usize = 4096;
/// Backends that left their services, whose ids may be free.
const LEFT: u64 = 4096;

/// What waits for a grace period, from a moment on; good for what it was asked from, as long as no plan waited for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    era: u64,
    rings: usize,
    lists: usize,
    sources: usize,
    left: u64,
}

impl Served {
    /// What waits for a grace period, if it is much: once one is over that began after this, tell [`Served::passed`].
    pub fn waiting(&self) -> Option<Waiting> {
        let all = self.all_that_waits();
        // The fewer ids there are for others, the sooner.
        let few = 1 + self.backend_ids.room() / 2;
        let has_left = self.left.waiting() >= LEFT.min(few.into());
        let is_much = all.rings.max(all.lists) >= RINGS || all.sources >= LISTS || has_left;
        is_much.then_some(all)
    }

    /// All that waits for one, be it much or not.
    pub(crate) fn all_that_waits(&self) -> Waiting {
        Waiting {
            era: self.era,
            rings: self.rings.waiting(),
            lists: self.lists.waiting(),
            sources: self.sources.waiting(),
            left: self.left.next(),
        }
    }

    /// A grace period is over that began when this waited. Nothing happens where a plan has waited for one since.
    pub fn passed(&mut self, waited: Waiting) {
        if waited.era != self.era {
            return;
        }
        self.era += 1;
        self.rings.passed(waited.rings);
        self.lists.passed(waited.lists);
        self.sources.passed(waited.sources);
        self.left.passed(waited.left);
    }

    /// Takes the place of another one, for which nobody waits any more.
    pub fn replaces(mut self, other: &Self) -> Self {
        self.era = other.era + 1;
        self
    }
}
