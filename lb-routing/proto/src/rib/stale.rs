//! Paths of a neighbour that restarts: kept and marked until it has told its routes again (RFC 4724 §4.2).
//!
//! They take part in the decision like any other.

use super::{PathEntry, PeerIndex, Rib, Source};
use crate::wire::Family;

impl Rib {
    /// Marks the paths of a neighbour that has gone; says how many it has no longer: those of other families, and those
    /// that it had not told again since it was gone before. One walk over the records.
    pub(crate) fn mark_stale(&mut self, peer: PeerIndex, families: &[Family]) -> u64 {
        let (source, mut removed) = (Source::of(peer), 0);
        for id in 0..self.prefixes.end() {
            let kept = families.contains(&self.family(id));
            while self.remove_from(id, |path| path.source == source && (path.stale || !kept)) {
                removed += 1;
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
    pub(crate) fn sweep_stale(&mut self, peer: PeerIndex, kept: &[Family]) -> u64 {
        let (source, mut removed) = (Source::of(peer), 0);
        for id in 0..self.prefixes.end() {
            if kept.contains(&self.family(id)) {
                continue;
            }
            while self.remove_from(id, |path| path.source == source && path.stale) {
                removed += 1;
            }
        }
        removed
    }

    fn family(&self, id: super::PrefixId) -> Family {
        if self.prefixes.is_ipv6(id) { Family::IPV6_UNICAST } else { Family::IPV4_UNICAST }
    }
}
