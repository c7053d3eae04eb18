//! Routes by question: which table, which neighbour, which prefixes, communities or paths, in parts.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::Speaker;
use super::status::{PathKey, PathStatus};
use crate::policy::{AsPathSet, CommunitySet};
use crate::rib::{PeerIndex, PrefixId, Source};

/// Paths that one call looks at most, as sessions wait meanwhile.
const EXAMINED: usize = 20_000;

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
    /// One of these communities.
    pub communities: Option<CommunitySet>,
    /// A path as one of these patterns says.
    pub as_path: Option<AsPathSet>,
}

/// The tables of RFC 4271 §3.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Table {
    /// Every path that can be used, as import policy left it.
    #[default]
    LocRib,
    /// What a neighbour told, as it came, whether import accepts it or not.
    AdjRibIn,
    /// What a neighbour is told.
    AdjRibOut,
}

/// A part of the routes that were asked for.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Routes, sorted by [`PathKey`]: an order that they keep while others come and go.
    pub paths: Vec<PathStatus>,
    /// What was looked at last, where more may follow.
    pub next: Option<PathKey>,
}

impl Speaker {
    /// The next routes after one, `limit` at most; fewer where many were looked at. The others are not copied, since sessions
    /// wait meanwhile.
    pub fn query(&self, query: &Query, after: Option<PathKey>, limit: usize) -> Part {
        let wanted = |&(prefix, _): &(IpNetwork, PrefixId)| {
            after.is_none_or(|(last, ..)| prefix >= last) && query.admits(&prefix)
        };
        let mut entries: Vec<_> = match query.prefix {
            Some(prefix) => {
                let found = self.rib.find(&prefix).map(|id| (prefix, id));
                found.into_iter().filter(wanted).collect()
            }
            None => self.rib.iter().filter(wanted).collect(),
        };
        if EXAMINED < entries.len() {
            entries.select_nth_unstable(EXAMINED);
            entries.truncate(EXAMINED);
        }
        let cut = entries.len() == EXAMINED;
        entries.sort_unstable();
        let mut part = Part::default();
        let (mut examined, mut last) = (0, None);
        for (prefix, id) in entries {
            let mut paths = self.of_table(query, prefix, id);
            paths.sort_unstable_by_key(PathStatus::key);
            // The end of what is looked at is the end of a prefix: cursors then name a path that there was.
            for path in paths {
                examined += 1;
                let key = path.key();
                if after.is_some_and(|after| key <= after) {
                    continue;
                }
                if part.paths.len() == limit {
                    return Part { next: last, ..part };
                }
                last = Some(key);
                if query.holds(&path) {
                    part.paths.push(path);
                }
            }
            last = last.max(Some((prefix, None, 0)));
            if examined >= EXAMINED {
                return Part { next: last, ..part };
            }
        }
        Part { next: last.filter(|_| cut), ..part }
    }

    /// A prefix's paths in the table that is asked for.
    fn of_table(&self, query: &Query, prefix: IpNetwork, id: PrefixId) -> Vec<PathStatus> {
        let neighbour = query.neighbour.map(|address| self.index_of(address));
        let from = |path: &PathStatus| {
            query.neighbour.is_none_or(|it| path.peer.is_some_and(|peer| same(peer, it)))
        };
        match (query.table, neighbour) {
            (Table::LocRib, _) => {
                let usable = |path: &PathStatus| path.rejected.is_none() && from(path);
                self.path_statuses(prefix, id).filter(usable).collect()
            }
            (Table::AdjRibIn, Some(Some(index))) => {
                let paths = self.path_statuses(prefix, id).zip(self.rib.paths(id));
                let theirs = paths.filter(|(_, it)| it.path.source == Source::of(index));
                let received = theirs.map(|(status, it)| PathStatus {
                    next_hop: self.rib.next_hop_of(it.path.received),
                    attributes: self.rib.attributes(it.path.received),
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
        let told = group.map(|group| group.advertises(index, id)).unwrap_or_default();
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
        self.communities.as_ref().is_none_or(|set| set.any(&path.attributes))
            && self.as_path.as_ref().is_none_or(|set| set.contains(&path.attributes.as_path))
    }
}

fn same(one: IpAddr, other: IpAddr) -> bool {
    one.to_canonical() == other.to_canonical()
}
