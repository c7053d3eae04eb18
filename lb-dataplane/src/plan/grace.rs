//! Grace periods that somebody waits for beside the changes, so that none of these has to.

use super::Served;

/// Rings that wait for one before it is worth the while; a change that finds no space waits for one itself.
const RINGS: usize = 32;
/// Backends' and services' ids, and lists of sources, in the same way.
const IDS: usize = 4096;

/// What waits for a grace period, from a moment on; good for what it was asked from, as long as no plan waited for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    era: u64,
    services: usize,
    backends: usize,
    rings: usize,
    sources: usize,
    left: u64,
}

impl Served {
    /// What waits for a grace period, if it is much: once one is over that began after this, tell [`Served::passed`].
    pub fn waiting(&self) -> Option<Waiting> {
        let all = self.all_that_waits();
        let Waiting { services, backends, rings, sources, .. } = all;
        (rings >= RINGS || services.max(backends).max(sources) >= IDS).then_some(all)
    }

    pub(super) fn all_that_waits(&self) -> Waiting {
        Waiting {
            era: self.era,
            services: self.service_ids.waiting(),
            backends: self.backend_ids.waiting(),
            rings: self.rings.waiting(),
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
        self.service_ids.passed(waited.services);
        self.backend_ids.passed(waited.backends);
        self.rings.passed(waited.rings);
        self.sources.passed(waited.sources);
        self.left.passed(waited.left);
    }

    /// Takes the place of another one, for which nobody waits any more.
    pub fn replaces(mut self, other: &Self) -> Self {
        self.era = other.era + 1;
        self
    }
}
