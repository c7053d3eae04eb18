//! Paths of a neighbour that restarts: kept and marked until it has told its routes again (RFC 4724 §4.2).
//!
//! They take part in the decision like any other.

use super::{PathEntry, PeerIndex, Rib, Source};
use crate::wire::Family;

/// Paths that are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) all: u64,
    /// Those that could be used.
    pub(crate) usable: u64,
}

impl Gone {
    fn count(&mut self, path: &PathEntry) {
        self.all += 1;
        self.usable += u64::from(path.rejected().is_none());
    }
}

impl Rib {
    /// Marks the paths of a neighbour that has gone; says how many it has no longer: those of other families, and those
    /// that it had not told again since it was gone before. One walk over the records.
    pub(crate) fn mark_stale(&mut self, peer: PeerIndex, families: &[Family]) -> Gone {
        let (source, mut removed) = (Source::of(peer), Gone::default());
        for id in 0..self.prefixes.end() {
            let kept = families.contains(&self.family(id));
            let goes = |path: &PathEntry| path.source == source && (path.stale || !kept);
            while let Some(path) = self.remove_from(id, goes) {
                removed.count(&path);
            }
            let paths = self.prefixes.get_mut(id).paths.iter_mut();
            paths.filter(|path| path.source == source).for_each(|path| path.stale = true);
        }
        removed
    }

    /// Marks the paths of a neighbour to one family, which it is about to tell again.
    pub(crate) fn mark_again(&mut self, peer: PeerIndex, family: Family) {
        self.each_path(peer, |path_family, path| path.stale |= path_family == family);
    }

    /// Takes all marks off.
    pub(crate) fn unmark(&mut self, peer: PeerIndex) {
        self.each_path(peer, |_, path| path.stale = false);
    }

    fn each_path(&mut self, peer: PeerIndex, change: impl Fn(Family, &mut PathEntry)) {
        for id in 0..self.prefixes.end() {
            let family = self.family(id);
            let paths = self.prefixes.get_mut(id).paths.iter_mut();
            paths
                .filter(|path| path.source == Source::of(peer))
                .for_each(|path| change(family, path));
        }
    }

    /// Removes the marked paths of a neighbour, but for those of some families; says how many.
    pub(crate) fn sweep_stale(&mut self, peer: PeerIndex, kept: &[Family]) -> Gone {
        let (source, mut removed) = (Source::of(peer), Gone::default());
        for id in 0..self.prefixes.end() {
            if kept.contains(&self.family(id)) {
                continue;
            }
            let goes = |path: &PathEntry| path.source == source && path.stale;
            while let Some(path) = self.remove_from(id, goes) {
                removed.count(&path);
            }
        }
        removed
    }

    fn family(&self, id: super::PrefixId) -> Family {
        if self.prefixes.is_ipv6(id) { Family::IPV6_UNICAST } else { Family::IPV4_UNICAST }
    }
}
