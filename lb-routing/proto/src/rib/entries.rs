//! Paths come, are replaced, and go.

use ipnetwork::IpNetwork;
use smallvec::SmallVec;

use super::prefixes::PrefixId;
use super::{AttributesId, Insertion, PathEntry, PeerIndex, Rib, Source};
use crate::config::MAX_PATHS_PER_PREFIX;
use crate::wire::PathId;

fn is_refused(path: &PathEntry) -> bool {
    path.rejected().is_some()
}

impl Rib {
    /// Adds a path, or replaces that of the same origin. The path holds references of its own.
    pub(crate) fn insert(&mut self, prefix: &IpNetwork, path: PathEntry) -> Insertion {
        let id = self.prefixes.find_or_add(prefix);
        let record = self.prefixes.get_mut(id);
        let place = record.paths.iter().position(|old| old.origin() == path.origin());
        let replaced = place.and_then(|place| record.paths.get(place).copied());
        if replaced == Some(path) {
            return Insertion::Replaced(path);
        }
        let refused = is_refused(&path);
        if replaced.is_none_or(|old| is_refused(&old) != refused) {
            // One that restarts may have given its paths other identifiers.
            let alike = |old: &&PathEntry| {
                old.source == path.source && !old.stale && is_refused(old) == refused
            };
            if record.paths.iter().filter(alike).count() >= usize::from(MAX_PATHS_PER_PREFIX) {
                return Insertion::Refused;
            }
        }
        match place.and_then(|place| record.paths.get_mut(place)) {
            Some(old) => *old = path,
            None => record.paths.push(path),
        }
        self.attributes.retain(path.received);
        self.attributes.retain(path.attributes);
        if let Some(old) = replaced {
            self.drop_path(old);
        }
        // A refused one stands last, and says nothing.
        if !refused || replaced.is_some_and(|old| !is_refused(&old)) {
            self.reselect(id);
        }
        replaced.map_or(Insertion::Added, Insertion::Replaced)
    }

    /// Whether there is a path of an origin that can be used.
    pub(crate) fn has(&self, prefix: &IpNetwork, origin: (Source, PathId)) -> bool {
        let paths = self.prefixes.find(prefix).map(|id| &self.prefixes.get(id).paths);
        let is = |path: &PathEntry| path.origin() == origin && !is_refused(path);
        paths.is_some_and(|paths| paths.iter().any(is))
    }

    /// What a neighbour has told of prefixes with a number from the first to the one before the second: attributes as they
    /// came, whether they are marked, identifier and prefix.
    pub(crate) fn told_by(
        &self,
        source: Source,
        from: PrefixId,
        to: PrefixId,
    ) -> Vec<((AttributesId, bool), (PathId, IpNetwork))> {
        let mut told = Vec::new();
        for (prefix, id) in self.among(from, to) {
            let paths = self.prefixes.get(id).paths.iter();
            let theirs = paths.filter(|path| path.source == source);
            told.extend(theirs.map(|it| ((it.received, it.stale), (it.path_id, prefix))));
        }
        told
    }

    /// Removes the path of an origin; returns what there was.
    pub(crate) fn remove(
        &mut self,
        prefix: &IpNetwork,
        origin: (Source, PathId),
    ) -> Option<PathEntry> {
        let id = self.prefixes.find(prefix)?;
        self.remove_from(id, |path| path.origin() == origin)
    }

    /// Removes every path of a neighbour, of which there are so many: one walk over the records.
    pub(crate) fn remove_peer(&mut self, peer: PeerIndex, mut paths: u64) {
        let theirs = |path: &PathEntry| path.source == Source::of(peer);
        for id in 0..self.prefixes.end() {
            if paths == 0 {
                break;
            }
            let record = self.prefixes.get_mut(id);
            let gone: SmallVec<[PathEntry; 1]> =
                record.paths.iter().copied().filter(theirs).collect();
            if gone.is_empty() {
                continue;
            }
            if record.paths.first().is_some_and(theirs) {
                // Nobody inherits its place.
                record.equal = 0;
            }
            record.paths.retain(|path| !theirs(path));
            paths -= gone.len() as u64;
            let silent = gone.iter().all(is_refused);
            gone.into_iter().for_each(|path| self.drop_path(path));
            self.settle(id, silent);
        }
    }

    /// Removes every refused path of a neighbour; says how many.
    pub(crate) fn remove_refused(&mut self, peer: PeerIndex) -> u64 {
        let goes = |path: &PathEntry| path.source == Source::of(peer) && is_refused(path);
        let mut count = 0;
        for id in 0..self.prefixes.end() {
            while self.remove_from(id, goes).is_some() {
                count += 1;
            }
        }
        count
    }

    pub(super) fn remove_from(
        &mut self,
        id: PrefixId,
        is: impl Fn(&PathEntry) -> bool,
    ) -> Option<PathEntry> {
        let record = self.prefixes.get_mut(id);
        let place = record.paths.iter().position(is)?;
        let path = record.paths.remove(place);
        if place == 0 {
            // Nobody inherits its place.
            record.equal = 0;
        }
        self.drop_path(path);
        self.settle(id, is_refused(&path));
        Some(path)
    }

    /// Paths of a prefix are gone; `silent`: refused ones, which nobody missed.
    fn settle(&mut self, id: PrefixId, silent: bool) {
        if silent {
            self.forget_if_unused(id);
        } else {
            self.reselect(id);
        }
    }

    fn drop_path(&mut self, path: PathEntry) {
        self.release(path.received);
        self.release(path.attributes);
    }
}
