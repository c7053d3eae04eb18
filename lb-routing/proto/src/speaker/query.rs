//! Routes by question: which table, which neighbour, which prefixes, communities or paths, in parts.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::Speaker;
use super::status::{PathKey, PathStatus};
use crate::policy::{AsPathSet, CommunitySet};
use crate::rib::{PeerIndex, PrefixId, Source};

/// What one call looks at, as sessions wait meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Records of prefixes, to find those that come next; a millisecond or two.
    pub(super) scanned: PrefixId,
    /// Prefixes that a walk over all records finds at most: the next ones in order.
    pub(super) found: usize,
    /// Paths that are read.
    pub(super) read: usize,
}

pub(super) const BOUNDS: Bounds = Bounds { scanned: 1 << 16, found: 1 << 14, read: 1 << 10 };

/// Which routes are asked for: all conditions have to hold.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// The table.
    pub table: Table,
    /// Learned from this neighbour; of Adj-RIB-Out, told to it. Adj-RIBs are those of a neighbour: without one they have
    /// nothing.
    pub neighbour: Option<IpAddr>,
    /// This very prefix.
    pub prefix: Option<IpNetwork>,
    /// This prefix and those inside.
    pub within: Option<IpNetwork>,
    /// A community of each of these sets.
    pub communities: Vec<CommunitySet>,
    /// A path as each of these says.
    pub as_paths: Vec<AsPathSet>,
}

/// What is listed: the tables of RFC 4271 §3.2, and what the Loc-RIB is selected from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Table {
    /// Every path that can be used, as import policy left it.
    #[default]
    Usable,
    /// Those that were selected: the best ones, and those that carry traffic beside them.
    LocRib,
    /// What a neighbour told, as it came; what import does not accept, too, where that is kept.
    AdjRibIn,
    /// What a neighbour was told. What it has yet to be told is left out, and what it knows instead until then.
    AdjRibOut,
}

/// How far a listing has come.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    /// What was listed last.
    after: Option<PathKey>,
    /// Records that were looked at to find the prefixes that come next.
    scanned: PrefixId,
    /// Those, while there is more to be looked at in any order, then the next one last.
    found: Vec<(IpNetwork, PrefixId)>,
    sorted: bool,
    /// More prefixes come after those.
    cut: bool,
}

impl Walk {
    /// From what comes after a path on; from the beginning without.
    #[must_use]
    pub fn after(path: Option<PathKey>) -> Self {
        Self { after: path, ..Self::default() }
    }

    /// The next prefixes, of those that were found.
    fn keep(&mut self, count: usize) {
        if self.found.len() > count {
            self.found.select_nth_unstable(count);
            self.found.truncate(count);
            self.cut = true;
        }
    }
}

/// A part of the routes that were asked for.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Routes, sorted by [`PathKey`]: an order that they keep while others come and go.
    pub paths: Vec<PathStatus>,
    /// From where to go on, where more may follow.
    pub next: Option<Walk>,
}

impl Speaker {
    /// The next routes of a listing, `limit` at most; fewer, or none, where much had to be looked at, since sessions wait
    /// meanwhile: ask again for what is `next`.
    pub fn query(&self, query: &Query, walk: Walk, limit: usize) -> Part {
        self.query_within(query, walk, limit, BOUNDS)
    }

    pub(super) fn query_within(
        &self,
        query: &Query,
        mut walk: Walk,
        limit: usize,
        bounds: Bounds,
    ) -> Part {
        let mut paths = Vec::new();
        if !walk.sorted && !self.scan(query, &mut walk, bounds) {
            return Part { paths, next: Some(walk) };
        }
        let mut read = 0;
        while let Some((prefix, id)) = walk.found.pop() {
            // Others may have its number by now.
            if !self.rib.is(id, &prefix) {
                continue;
            }
            let mut all = self.of_table(query, prefix, id);
            all.sort_unstable_by_key(PathStatus::key);
            read += self.rib.paths(id).count().max(1);
            for path in all {
                let key = path.key();
                if walk.after.is_some_and(|after| key <= after) {
                    continue;
                }
                if paths.len() == limit {
                    walk.found.push((prefix, id));
                    return Part { paths, next: Some(walk) };
                }
                walk.after = Some(key);
                if query.holds(&path) {
                    paths.push(path);
                }
            }
            walk.after = walk.after.max(Some((prefix, None, 0)));
            if read >= bounds.read && !walk.found.is_empty() {
                return Part { paths, next: Some(walk) };
            }
        }
        let next = walk.cut.then(|| Walk::after(walk.after));
        Part { paths, next }
    }

    /// Looks for the prefixes that come next; says whether that is done.
    fn scan(&self, query: &Query, walk: &mut Walk, bounds: Bounds) -> bool {
        let after = walk.after;
        let comes = |prefix: &IpNetwork| after.is_none_or(|(last, ..)| *prefix >= last);
        if let Some(prefix) = query.prefix {
            let found = self.rib.find_told(&prefix).map(|id| (prefix, id));
            walk.found =
                found.into_iter().filter(|(it, _)| comes(it) && query.admits(it)).collect();
        } else {
            let end = walk.scanned.saturating_add(bounds.scanned);
            for entry in self.rib.among(walk.scanned, end) {
                if comes(&entry.0) && query.admits(&entry.0) {
                    walk.found.push(entry);
                }
                if walk.found.len() >= 2 * bounds.found {
                    walk.keep(bounds.found);
                }
            }
            walk.scanned = end;
            if end < self.rib.end() {
                return false;
            }
        }
        walk.keep(bounds.found);
        walk.found.sort_unstable_by(|one, other| other.cmp(one));
        walk.sorted = true;
        true
    }

    /// A prefix's paths in the table that is asked for.
    fn of_table(&self, query: &Query, prefix: IpNetwork, id: PrefixId) -> Vec<PathStatus> {
        let neighbour = query.neighbour.map(|address| self.index_of(address));
        let from = |path: &PathStatus| {
            query.neighbour.is_none_or(|it| path.peer.is_some_and(|peer| same(peer, it)))
        };
        match (query.table, neighbour) {
            (Table::Usable, _) => {
                let usable = |path: &PathStatus| path.rejected.is_none() && from(path);
                self.path_statuses(prefix, id).filter(usable).collect()
            }
            (Table::LocRib, _) => {
                let selected = |path: &PathStatus| path.multipath && from(path);
                self.path_statuses(prefix, id).filter(selected).collect()
            }
            (Table::AdjRibIn, Some(Some(index))) => {
                let paths = self.path_statuses(prefix, id).zip(self.rib.paths(id));
                let theirs = paths.filter(|(_, it)| it.path.source == Source::of(index));
                let received = theirs.map(|(status, it)| PathStatus {
                    next_hop: self.rib.next_hop_of(it.path.received),
                    attributes: self.rib.attributes(it.path.received),
                    why: self.refusal(prefix, it.path),
                    ..status
                });
                received.collect()
            }
            (Table::AdjRibOut, Some(Some(index))) => self.told(index, prefix, id),
            (Table::AdjRibIn | Table::AdjRibOut, None | Some(None)) => Vec::new(),
        }
    }

    pub(super) fn told(
        &self,
        index: PeerIndex,
        prefix: IpNetwork,
        id: PrefixId,
    ) -> Vec<PathStatus> {
        let channel = self.neighbours.get(usize::from(index)).and_then(|it| it.channel.as_ref());
        let group = channel.and_then(|channel| self.groups.get(channel.group)?.as_ref());
        let told =
            group.map(|group| group.advertises(index, (id, prefix.is_ipv6()))).unwrap_or_default();
        let status = told.into_iter().map(|it| PathStatus {
            prefix,
            next_hop: it.next_hop,
            peer: it.source.peer().and_then(|peer| Some(self.rib.ranking(peer)?.address)),
            path_id: it.path_id,
            attributes: it.attributes,
            best: false,
            multipath: false,
            stale: false,
            rejected: None,
            why: None,
        });
        status.collect()
    }
}

impl Query {
    fn admits(&self, prefix: &IpNetwork) -> bool {
        let inside = |all: &IpNetwork| {
            all.is_ipv4() == prefix.is_ipv4()
                && all.prefix() <= prefix.prefix()
                && all.contains(prefix.network())
        };
        self.within.as_ref().is_none_or(inside) && self.prefix.is_none_or(|it| it == *prefix)
    }

    fn holds(&self, path: &PathStatus) -> bool {
        self.communities.iter().all(|set| set.any(&path.attributes))
            && self.as_paths.iter().all(|set| set.contains(&path.attributes.as_path))
    }
}

fn same(one: IpAddr, other: IpAddr) -> bool {
    one.to_canonical() == other.to_canonical()
}
