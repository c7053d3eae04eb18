//! The routes: every path of every prefix, the best of them, and who has yet to hear of changes.
//!
//! ```text
//! PrefixTable   prefix <-> number, and per number a Record: its paths, what was published
//! AttributeTable, NextHops     what paths share, once each, by number
//! Group         neighbours that are told the same: per prefix number what they were told
//! ```
//!
//! The Adj-RIBs-In and the Loc-RIB of RFC 4271 §3.2 are one table: per prefix the paths of all
//! neighbours, those that carry traffic first. A path names its attributes as they came and as policy
//! left them, so a change of policy needs nothing from the neighbour. A change marks its prefix;
//! [`Rib::next_change`] hands each marked prefix out once, however often it changed.
//!
//! Bounds: a neighbour has at most [`MAX_PREFIXES_PER_PEER`] paths, one per prefix, or with path identifiers (RFC 7911)
//! [`MAX_PATHS_PER_PREFIX`].

mod attributes;
mod best;
mod choice;
mod group;
mod hash;
mod hops;
mod ids;
mod path;
mod pool;
mod prefixes;
mod stale;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use smallvec::SmallVec;

use self::attributes::AttributeTable;
pub(crate) use self::attributes::{AttributesId, Key, MAX_ATTRIBUTE_BYTES_PER_PEER};
pub(crate) use self::best::{DEFAULT_LOCAL_PREF, Ranking, Rules};
pub use self::group::Backlog;
pub(crate) use self::group::{Group, GroupKey, Sending};
pub(crate) use self::hash::Keyed;
use self::hops::NextHops;
use self::ids::IdSet;
pub(crate) use self::path::{Path, PathEntry, PeerIndex, Source, Usage, Via};
use self::pool::Id;
pub(crate) use self::prefixes::PrefixId;
use self::prefixes::{PrefixTable, Record};
pub(crate) use self::stale::Gone;
use crate::config::MAX_PATHS_PER_PREFIX;
use crate::fib::Install;
use crate::policy::{Rejection, Teller};
use crate::wire::{self, Attributes, PathId, Verdict};

/// Paths of one neighbour at most; beyond, its session ends with Cease / Maximum Number of Prefixes
/// Reached (RFC 4486).
pub(crate) const MAX_PREFIXES_PER_PEER: u64 = 4_000_000;

/// A path that carries traffic, or might.
pub(crate) struct Shown<'a> {
    pub(crate) path: &'a PathEntry,
    pub(crate) carries_traffic: bool,
}

/// What became of a path that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Insertion {
    /// It is an additional one.
    Added,
    /// It takes the place of this one of its origin, or is the same.
    Replaced(PathEntry),
    /// Its neighbour has [`MAX_PATHS_PER_PREFIX`] others of the prefix.
    Refused,
}

/// What became of a prefix.
pub(crate) struct Change {
    pub(crate) id: PrefixId,
    /// The prefix, its next hops and which tables are to have them, if the driver has to know them.
    pub(crate) news: Option<(IpNetwork, Arc<[IpAddr]>, Install)>,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Rib {
    prefixes: PrefixTable,
    attributes: AttributeTable,
    next_hops: NextHops,
    rankings: Vec<Ranking>,
    rules: Rules,
    originated: HashSet<IpNetwork, Keyed>,
    /// Prefixes that [`Rib::next_change`] has yet to look at.
    changed: IdSet,
}

impl Rib {
    /// An empty one; `rankings` stand in the order of the neighbours.
    pub(crate) fn new(rankings: Vec<Ranking>, rules: Rules, hash: Keyed) -> Self {
        Self {
            prefixes: PrefixTable::new(hash),
            attributes: AttributeTable::new(hash),
            next_hops: NextHops::new(hash),
            rankings,
            rules,
            originated: HashSet::with_hasher(hash),
            changed: IdSet::default(),
        }
    }

    /// Finds the best paths by these rules from now on.
    pub(crate) fn follow(&mut self, rules: Rules) {
        if std::mem::replace(&mut self.rules, rules) == rules {
            return;
        }
        for id in 0..self.prefixes.end() {
            if self.prefixes.get(id).paths.len() > 1 {
                self.reselect(id);
            }
        }
    }

    pub(crate) fn ranking(&self, peer: PeerIndex) -> Option<&Ranking> {
        self.rankings.get(usize::from(peer))
    }

    /// A neighbour takes a place, the next one or one that is empty; it has no paths yet.
    pub(crate) fn seat(&mut self, peer: PeerIndex, ranking: Ranking) {
        match self.rankings.get_mut(usize::from(peer)) {
            Some(place) => *place = ranking,
            None => self.rankings.push(ranking),
        }
    }

    /// A neighbour's identifier became known, or whether it is our client; says whether that is another one than before.
    /// It does not change while there are paths, unless [`Rib::touch`] follows.
    pub(crate) fn rank(&mut self, peer: PeerIndex, router_id: Ipv4Addr, client: bool) -> bool {
        let Some(ranking) = self.rankings.get_mut(usize::from(peer)) else { return false };
        let known = std::mem::replace(ranking, Ranking { router_id, client, ..*ranking });
        known != *ranking
    }

    /// What a neighbour's paths are told as may have changed.
    pub(crate) fn touch(&mut self, peer: PeerIndex) {
        for id in 0..self.prefixes.end() {
            if self.paths(id).any(|it| it.path.source == Source::of(peer)) {
                self.changed.insert(id);
            }
        }
    }

    /// The number of a next hop, as MP_REACH_NLRI says it; to be given back by
    /// [`Rib::forget_next_hop`].
    pub(crate) fn next_hop_id(&mut self, next_hop: IpAddr) -> Id {
        self.next_hops.intern(&[next_hop])
    }

    pub(crate) fn forget_next_hop(&mut self, id: Id) {
        self.next_hops.release(id);
    }

    /// An attribute set that is known; to be given back by [`Rib::release`].
    pub(crate) fn known(&mut self, key: &Key<'_>) -> Option<AttributesId> {
        self.attributes.find(key)
    }

    /// Takes an attribute set in that was read just now; to be given back by [`Rib::release`].
    pub(crate) fn learn_attributes(
        &mut self,
        key: &Key<'_>,
        creator: PeerIndex,
        (block, rejection): (&wire::Block, Option<Rejection>),
    ) -> AttributesId {
        let next_hop = match (key.reach, block.verdict.next_hop) {
            (Some(reach), _) => {
                self.next_hops.retain(reach);
                reach
            }
            (None, Some(next_hop)) => self.next_hops.intern(&[next_hop.into()]),
            (None, None) => Id::NONE,
        };
        self.attributes.insert(key, creator, next_hop, (block, rejection))
    }

    /// A set with these values, as policy makes them of what `creator` said; to be given back by [`Rib::release`].
    pub(crate) fn intern(
        &mut self,
        attributes: &Attributes,
        next_hop: Option<IpAddr>,
        creator: Source,
    ) -> AttributesId {
        let next_hop = self.next_hops.intern(next_hop.as_slice());
        let (id, new) = self.attributes.intern(attributes, next_hop, creator);
        if !new {
            self.next_hops.release(next_hop);
        }
        id
    }

    /// A reference more; to be given back by [`Rib::release`].
    pub(crate) fn retain(&mut self, id: AttributesId) {
        self.attributes.retain(id);
    }

    pub(crate) fn release(&mut self, id: AttributesId) {
        if let Some(next_hop) = self.attributes.release(id) {
            self.next_hops.release(next_hop);
        }
    }

    /// What RFC 7606 makes of a set.
    pub(crate) fn verdict(&self, id: AttributesId) -> &Verdict {
        &self.attributes.get(id).verdict
    }

    /// Why routes with a set are of no use.
    pub(crate) fn rejection(&self, id: AttributesId) -> Option<Rejection> {
        self.attributes.get(id).rejection
    }

    /// Whether a set has the community GRACEFUL_SHUTDOWN (RFC 8326).
    pub(crate) fn is_shut(&self, id: AttributesId) -> bool {
        self.attributes.get(id).shut
    }

    pub(crate) fn next_hop_of(&self, id: AttributesId) -> Option<IpAddr> {
        self.next_hops.first(self.attributes.get(id).next_hop)
    }

    /// The values of a set.
    pub(crate) fn attributes(&self, id: AttributesId) -> Attributes {
        self.attributes.decode(id)
    }

    /// Octets of attribute sets that a neighbour brought.
    pub(crate) fn attribute_bytes_of(&self, peer: PeerIndex) -> usize {
        self.attributes.bytes_of(peer)
    }

    /// A path with its values.
    pub(crate) fn path(&self, entry: &PathEntry) -> Path {
        let next_hop = self.next_hop_of(entry.attributes);
        let via = match (entry.source.peer(), next_hop) {
            (Some(peer), Some(next_hop)) => Via::Peer { peer, next_hop },
            (None, _) | (_, None) => Via::Local,
        };
        Path { via, attributes: Arc::new(self.attributes(entry.attributes)) }
    }

    /// Who told us of a path.
    pub(crate) fn teller(&self, path: &Path) -> Option<Teller> {
        let source = self.ranking(path.via.peer()?)?;
        let Ranking { address, external, router_id, client } = *source;
        Some(Teller { address, external, router_id, client })
    }

    /// Adds a path, or replaces that of the same origin. The path holds references of its own.
    pub(crate) fn insert(&mut self, prefix: &IpNetwork, path: PathEntry) -> Insertion {
        let id = self.prefixes.find_or_add(prefix);
        let record = self.prefixes.get_mut(id);
        let same = record.paths.iter_mut().find(|old| old.origin() == path.origin());
        let replaced = same.map(|old| std::mem::replace(old, path));
        if replaced == Some(path) {
            return Insertion::Replaced(path);
        }
        if replaced.is_none() {
            // One that restarts may have given its paths other identifiers.
            let others = record.paths.iter().filter(|old| old.source == path.source && !old.stale);
            if others.count() >= usize::from(MAX_PATHS_PER_PREFIX) {
                return Insertion::Refused;
            }
        }
        self.attributes.retain(path.received);
        self.attributes.retain(path.attributes);
        match replaced {
            Some(old) => self.drop_path(old),
            None => self.prefixes.get_mut(id).paths.push(path),
        }
        self.reselect(id);
        replaced.map_or(Insertion::Added, Insertion::Replaced)
    }

    /// Whether there is a path of an origin that can be used.
    pub(crate) fn has(&self, prefix: &IpNetwork, origin: (Source, PathId)) -> bool {
        let paths = self.prefixes.find(prefix).map(|id| &self.prefixes.get(id).paths);
        let is = |path: &PathEntry| path.origin() == origin && path.rejected().is_none();
        paths.is_some_and(|paths| paths.iter().any(is))
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
            gone.into_iter().for_each(|path| self.drop_path(path));
            self.reselect(id);
        }
    }

    fn remove_from(&mut self, id: PrefixId, is: impl Fn(&PathEntry) -> bool) -> Option<PathEntry> {
        let record = self.prefixes.get_mut(id);
        let place = record.paths.iter().position(is)?;
        let path = record.paths.remove(place);
        if place == 0 {
            // Nobody inherits its place.
            record.equal = 0;
        }
        self.drop_path(path);
        self.reselect(id);
        Some(path)
    }

    fn drop_path(&mut self, path: PathEntry) {
        self.release(path.received);
        self.release(path.attributes);
    }

    /// Originates exactly these prefixes.
    pub(crate) fn originate(&mut self, prefixes: &[IpNetwork]) {
        let mut wanted = HashSet::with_hasher(*self.originated.hasher());
        wanted.extend(prefixes.iter().map(canonical));
        let gone: Vec<_> =
            self.originated.iter().filter(|p| !wanted.contains(*p)).copied().collect();
        self.change_originated(prefixes, &gone);
    }

    /// Originates these prefixes, too, and those no longer; costs what changes.
    pub(crate) fn change_originated(&mut self, come: &[IpNetwork], go: &[IpNetwork]) {
        for prefix in go.iter().map(canonical) {
            if self.originated.remove(&prefix) {
                self.remove(&prefix, (Source::LOCAL, 0));
            }
        }
        let attributes = self.intern(&Attributes::default(), None, Source::LOCAL);
        let path = PathEntry {
            received: attributes,
            attributes,
            path_id: 0,
            source: Source::LOCAL,
            stale: false,
            usage: Usage::Both,
        };
        for prefix in come.iter().map(canonical) {
            self.originated.insert(prefix);
            self.insert(&prefix, path);
        }
        self.release(attributes);
    }

    /// Whether we originate this very address as a host route.
    pub(crate) fn originates_host(&self, address: IpAddr) -> bool {
        self.originated.contains(&IpNetwork::from(address))
    }

    /// Every prefix that has paths.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpNetwork, PrefixId)> {
        let known = |&id: &PrefixId| !self.prefixes.get(id).paths.is_empty();
        (0..self.prefixes.end()).filter(known).map(|id| (self.prefixes.prefix(id), id))
    }

    /// The paths of a prefix, those that carry traffic first.
    pub(crate) fn paths(&self, id: PrefixId) -> impl Iterator<Item = Shown<'_>> {
        let Record { paths, equal, .. } = self.prefixes.get(id);
        let carriers = usize::from(*equal);
        let shown = move |(place, path)| Shown { path, carries_traffic: place < carriers };
        paths.iter().enumerate().map(shown)
    }

    /// A prefix's number, if it has paths.
    pub(crate) fn find(&self, prefix: &IpNetwork) -> Option<PrefixId> {
        self.prefixes.find(prefix).filter(|&id| !self.prefixes.get(id).paths.is_empty())
    }

    /// The best path of a prefix.
    pub(crate) fn best(&self, id: PrefixId) -> Option<&PathEntry> {
        let record = self.prefixes.get(id);
        record.paths.first().filter(|_| record.equal > 0)
    }

    /// The next prefix that changed.
    pub(crate) fn next_change(&mut self) -> Option<Change> {
        let id = self.changed.pop()?;
        let next_hops = self.next_hops_of(id);
        let record = self.prefixes.get_mut(id);
        // What paths of equal worth say may differ: the best one's counts for all.
        let best = record.paths.first().filter(|_| record.equal > 0);
        let install = best.and_then(|path| path.usage.install()).unwrap_or_default();
        let before = std::mem::replace(&mut record.published, next_hops);
        let install_before = std::mem::replace(&mut record.install, install);
        let changed = before != next_hops || (!next_hops.is_none() && install_before != install);
        let news =
            changed.then(|| (self.prefixes.prefix(id), self.next_hops.get(next_hops), install));
        self.next_hops.release(before);
        self.forget_if_unused(id);
        Some(Change { id, news })
    }

    /// The next hops of the paths that carry traffic, with a reference.
    fn next_hops_of(&mut self, id: PrefixId) -> Id {
        let record = self.prefixes.get(id);
        let carriers = record.paths.iter().take(usize::from(record.equal));
        let mut ids: SmallVec<[Id; 4]> = carriers
            .map(|path| self.attributes.get(path.attributes).next_hop)
            .filter(|next_hop| !next_hop.is_none())
            .collect();
        ids.sort_unstable();
        ids.dedup();
        match *ids {
            [] => Id::NONE,
            [one] => {
                self.next_hops.retain(one);
                one
            }
            _ => {
                let mut hops: Vec<_> =
                    ids.iter().filter_map(|&id| self.next_hops.first(id)).collect();
                hops.sort_unstable();
                self.next_hops.intern(&hops)
            }
        }
    }

    fn reselect(&mut self, id: PrefixId) {
        self.changed.insert(id);
        let record = self.prefixes.get_mut(id);
        record.equal = match &mut *record.paths {
            [] => 0,
            [only] => u16::from(only.rejected().is_none()),
            paths => {
                let judge = (&*self.rankings, &self.attributes, &self.next_hops);
                let mut candidates: SmallVec<[_; 8]> =
                    paths.iter().map(|path| choice::candidate(judge, path)).collect();
                candidates[0].incumbent = record.equal > 0;
                let equal = best::select(&mut candidates, &self.rules, choice::last(judge));
                let equal = choice::carriers(judge, &candidates[..equal], &self.rules);
                for (path, candidate) in paths.iter_mut().zip(candidates) {
                    *path = candidate.path;
                }
                u16::try_from(equal).unwrap_or(u16::MAX)
            }
        };
    }

    /// A group's members were told of a prefix, or may know it no longer.
    fn set_told(&mut self, id: PrefixId, told: bool) {
        let count = &mut self.prefixes.get_mut(id).told;
        if told {
            *count += 1;
        } else {
            *count -= 1;
            self.forget_if_unused(id);
        }
    }

    fn forget_if_unused(&mut self, id: PrefixId) {
        let record = self.prefixes.get(id);
        let unused = record.paths.is_empty() && record.published.is_none() && record.told == 0;
        if unused && !self.changed.contains(id) {
            self.prefixes.remove(id);
        }
    }
}

/// The prefix without host bits.
fn canonical(prefix: &IpNetwork) -> IpNetwork {
    IpNetwork::new(prefix.network(), prefix.prefix()).unwrap_or(*prefix)
}

#[cfg(test)]
mod tests;
