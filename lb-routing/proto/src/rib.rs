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
//! `MAX_PATHS_PER_PREFIX`; and as many of a prefix that are refused and only kept to be shown, [`MAX_REFUSED_PER_PEER`] in
//! all. Refused ones count for nothing: they neither mark a prefix nor end a session.

mod attributes;
mod best;
mod choice;
mod entries;
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

use self::attributes::AttributeTable;
pub(crate) use self::attributes::{AttributesId, Key, MAX_ATTRIBUTE_BYTES_PER_PEER};
pub(crate) use self::best::{DEFAULT_LOCAL_PREF, Ranking, Rules, Step};
use self::choice::{Again, Lower};
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
use crate::fib::Install;
use crate::policy::{Rejection, Teller};
use crate::wire::{self, Attributes, Verdict};

/// Paths of one neighbour at most; beyond, its session ends with Cease / Maximum Number of Prefixes
/// Reached (RFC 4486).
pub(crate) const MAX_PREFIXES_PER_PEER: u64 = 4_000_000;

/// Refused paths of one neighbour that are kept at most, some 100 octets each with their attributes; beyond, they are counted
/// and forgotten.
pub(crate) const MAX_REFUSED_PER_PEER: u64 = 1 << 20;

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
    /// Its neighbour has `MAX_PATHS_PER_PREFIX` others of the prefix, of those that can be used or of those that cannot.
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
    again: Again,
    lower: Lower,
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
            again: Again::new(hash),
            lower: Lower::default(),
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

    /// What a neighbour's paths are worth, or what they are told as, may have changed.
    pub(crate) fn touch(&mut self, peer: PeerIndex) {
        for id in 0..self.prefixes.end() {
            let usable = |it: &Shown<'_>| it.path.rejected().is_none();
            if self.paths(id).filter(usable).any(|it| it.path.source == Source::of(peer)) {
                self.reselect(id);
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

    /// What a neighbour said as another judge sees it; to be given back by [`Rib::release`].
    pub(crate) fn judged_by(
        &mut self,
        id: AttributesId,
        judge: u16,
        check: impl FnOnce(&Attributes) -> Option<Rejection>,
    ) -> AttributesId {
        let (judged, new) = self.attributes.judged_by(id, judge, check);
        if new {
            self.next_hops.retain(self.attributes.get(judged).next_hop);
        }
        judged
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

    /// The first AS number of a set's path; 0 where there is none.
    pub(crate) fn first_as(&self, id: AttributesId) -> u32 {
        self.attributes.get(id).rank.neighbour_as()
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
        let known = |&(_, id): &(IpNetwork, PrefixId)| !self.prefixes.get(id).paths.is_empty();
        self.among(0, self.prefixes.end()).filter(known)
    }

    /// Every prefix that has paths, or that a neighbour may know from us, with a number from the first to the one before
    /// the second.
    pub(crate) fn among(
        &self,
        from: PrefixId,
        to: PrefixId,
    ) -> impl Iterator<Item = (IpNetwork, PrefixId)> {
        let numbers = from..to.min(self.prefixes.end());
        numbers.filter(|&id| self.is_known(id)).map(|id| (self.prefixes.prefix(id), id))
    }

    /// Numbers of prefixes are below.
    pub(crate) fn end(&self) -> PrefixId {
        self.prefixes.end()
    }

    /// Whether a number is still, or again, that of a prefix.
    pub(crate) fn is(&self, id: PrefixId, prefix: &IpNetwork) -> bool {
        id < self.prefixes.end() && self.is_known(id) && self.prefixes.prefix(id) == *prefix
    }

    fn is_known(&self, id: PrefixId) -> bool {
        let record = self.prefixes.get(id);
        !record.paths.is_empty() || record.told > 0
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
        self.find_told(prefix).filter(|&id| !self.prefixes.get(id).paths.is_empty())
    }

    /// A prefix's number, if it has paths, or if a neighbour may know it from us.
    pub(crate) fn find_told(&self, prefix: &IpNetwork) -> Option<PrefixId> {
        self.prefixes.find(prefix).filter(|&id| self.is_known(id))
    }

    /// The longest prefix with paths that covers an address.
    pub(crate) fn covering(&self, address: IpAddr) -> Option<IpNetwork> {
        let host = IpNetwork::from(address);
        let all = (0..=host.prefix()).rev().filter_map(|len| IpNetwork::new(address, len).ok());
        all.map(|covering| canonical(&covering)).find(|prefix| self.find(prefix).is_some())
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

    /// What was told of every prefix that has a path that carries traffic: its next hops in order, and which tables are to have
    /// them.
    pub(crate) fn published(
        &self,
    ) -> impl Iterator<Item = (IpNetwork, Arc<[IpAddr]>, Install)> + '_ {
        let ids = 0..self.prefixes.end();
        ids.filter(|id| !self.prefixes.get(*id).published.is_none()).map(|id| {
            let record = self.prefixes.get(id);
            (self.prefixes.prefix(id), self.next_hops.get(record.published), record.install)
        })
    }

    /// The next hops of the paths that carry traffic, with a reference.
    fn next_hops_of(&mut self, id: PrefixId) -> Id {
        let ids = self.carried(id);
        match *ids {
            [] => Id::NONE,
            [one] => {
                self.next_hops.retain(one);
                one
            }
            _ => {
                let hops = self.addresses(&ids);
                self.next_hops.intern(&hops)
            }
        }
    }

    fn reselect(&mut self, id: PrefixId) {
        self.changed.insert(id);
        self.order(id);
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
