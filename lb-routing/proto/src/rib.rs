//! The routes: every path of every prefix, the best of them, and who has yet to hear of changes.
//!
//! Import policy takes all or nothing, so the Adj-RIBs-In and the Loc-RIB of RFC 4271 §3.2 are one
//! table: per prefix the accepted paths of all neighbours, those that carry traffic first. A change
//! marks its prefix; [`Rib::next_change`] hands each marked prefix out once, however often it changed.
//!
//! Bound: a neighbour has at most [`MAX_PREFIXES_PER_PEER`] paths, one per prefix.

mod adj_out;
mod best;
mod hash;
mod intern;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use smallvec::SmallVec;

pub(crate) use self::adj_out::{AdjRibOut, Batch};
pub(crate) use self::best::{DEFAULT_LOCAL_PREF, Ranking};
pub(crate) use self::hash::Keyed;
use self::intern::Interner;
use crate::wire::Attributes;

/// Paths of one neighbour at most; beyond, its session ends with Cease / Maximum Number of Prefixes
/// Reached (RFC 4486).
pub(crate) const MAX_PREFIXES_PER_PEER: u64 = 4_000_000;

/// A neighbour, by its place in the configuration.
pub(crate) type PeerIndex = u32;

/// Where a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// We originate the prefix.
    Local,
    /// Learned.
    Peer {
        /// From whom.
        peer: PeerIndex,
        /// Its next hop.
        next_hop: IpAddr,
    },
}

impl Via {
    pub(crate) const fn peer(self) -> Option<PeerIndex> {
        match self {
            Self::Local => None,
            Self::Peer { peer, .. } => Some(peer),
        }
    }

    pub(crate) const fn next_hop(self) -> Option<IpAddr> {
        match self {
            Self::Local => None,
            Self::Peer { next_hop, .. } => Some(next_hop),
        }
    }
}

/// A path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) via: Via,
    pub(crate) attributes: Arc<Attributes>,
}

/// What is known of a prefix.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// Those that carry traffic first, the best one at the front; one per neighbour. Most prefixes have one.
    paths: SmallVec<[Path; 1]>,
    /// How many of them carry traffic.
    equal: usize,
    /// Waits in `changed`.
    marked: bool,
    /// The next hops that the driver was last told; none: no route.
    published: Option<Arc<[IpAddr]>>,
}

impl Entry {
    pub(crate) fn best(&self) -> Option<&Path> {
        self.paths.first()
    }

    /// Every path, and whether it carries traffic.
    pub(crate) fn paths(&self) -> impl Iterator<Item = (&Path, bool)> {
        self.paths.iter().enumerate().map(|(place, path)| (path, place < self.equal))
    }

    fn next_hops(&self) -> Vec<IpAddr> {
        let carriers = self.paths.iter().take(self.equal);
        let mut hops: Vec<_> = carriers.filter_map(|path| path.via.next_hop()).collect();
        hops.sort_unstable();
        hops.dedup();
        hops
    }
}

/// The table.
#[derive(Debug)]
pub(crate) struct Rib {
    table: HashMap<IpNetwork, Entry, Keyed>,
    choice: Choice,
    originated: HashSet<IpNetwork, Keyed>,
    attributes: Interner<Attributes>,
    next_hops: Interner<[IpAddr]>,
}

/// How the best paths are chosen, and where that has changed something.
#[derive(Debug)]
struct Choice {
    rankings: Vec<Ranking>,
    changed: VecDeque<IpNetwork>,
    max_paths: usize,
}

impl Rib {
    /// An empty one; `rankings` stand in the order of the neighbours.
    pub(crate) fn new(rankings: Vec<Ranking>, max_paths: usize, hash: Keyed) -> Self {
        Self {
            table: HashMap::with_hasher(hash),
            choice: Choice { rankings, changed: VecDeque::new(), max_paths },
            originated: HashSet::with_hasher(hash),
            attributes: Interner::new(hash),
            next_hops: Interner::new(hash),
        }
    }

    pub(crate) fn ranking(&self, peer: PeerIndex) -> Option<&Ranking> {
        self.choice.rankings.get(peer as usize)
    }

    /// A neighbour's identifier became known.
    pub(crate) fn rank(&mut self, peer: PeerIndex, router_id: std::net::Ipv4Addr) {
        if let Some(ranking) = self.choice.rankings.get_mut(peer as usize) {
            ranking.router_id = router_id;
        }
    }

    pub(crate) fn intern(&mut self, attributes: Attributes) -> Arc<Attributes> {
        self.attributes.intern(attributes)
    }

    /// Adds a path, or replaces that of the same source; says whether it is an additional one.
    pub(crate) fn insert(&mut self, prefix: IpNetwork, path: Path) -> bool {
        let entry = self.table.entry(prefix).or_default();
        let same = entry.paths.iter_mut().find(|old| old.via.peer() == path.via.peer());
        let additional = same.is_none();
        match same {
            Some(old) if *old == path => return false,
            Some(old) => *old = path,
            None => entry.paths.push(path),
        }
        self.choice.reselect(prefix, entry);
        additional
    }

    /// Removes the path of a source (`None`: our own); says whether there was one.
    pub(crate) fn remove(&mut self, prefix: IpNetwork, source: Option<PeerIndex>) -> bool {
        let Some(entry) = self.table.get_mut(&prefix) else { return false };
        self.choice.remove(prefix, entry, source)
    }

    /// Removes every path of a neighbour.
    pub(crate) fn remove_peer(&mut self, peer: PeerIndex) {
        for (prefix, entry) in &mut self.table {
            self.choice.remove(*prefix, entry, Some(peer));
        }
    }

    /// Originates exactly these prefixes.
    pub(crate) fn originate(&mut self, prefixes: &[IpNetwork]) {
        let hash = *self.originated.hasher();
        let mut wanted = HashSet::with_hasher(hash);
        wanted.extend(prefixes.iter().map(canonical));
        let previous = std::mem::replace(&mut self.originated, wanted);
        for prefix in previous {
            if !self.originated.contains(&prefix) {
                self.remove(prefix, None);
            }
        }
        let attributes = self.intern(Attributes::default());
        for prefix in prefixes.iter().map(canonical) {
            self.insert(prefix, Path { via: Via::Local, attributes: Arc::clone(&attributes) });
        }
    }

    /// Whether we originate this very address as a host route.
    pub(crate) fn originates_host(&self, address: IpAddr) -> bool {
        self.originated.contains(&IpNetwork::from(address))
    }

    pub(crate) fn get(&self, prefix: &IpNetwork) -> Option<&Entry> {
        self.table.get(prefix)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&IpNetwork, &Entry)> {
        self.table.iter()
    }

    /// The next prefix that changed, and its next hops if the driver has to know them.
    pub(crate) fn next_change(&mut self) -> Option<(IpNetwork, Option<Vec<IpAddr>>)> {
        let prefix = self.choice.changed.pop_front()?;
        let Some(entry) = self.table.get_mut(&prefix) else { return Some((prefix, None)) };
        entry.marked = false;
        let hops = entry.next_hops();
        let news = entry.published.as_deref().unwrap_or_default() != hops.as_slice();
        if news {
            entry.published = (!hops.is_empty()).then(|| self.next_hops.intern(hops.clone()));
        }
        if entry.paths.is_empty() && entry.published.is_none() {
            self.table.remove(&prefix);
        }
        Some((prefix, news.then_some(hops)))
    }
}

impl Choice {
    /// Removes the path of a source from an entry; says whether there was one.
    fn remove(&mut self, prefix: IpNetwork, entry: &mut Entry, source: Option<PeerIndex>) -> bool {
        let before = entry.paths.len();
        entry.paths.retain(|path| path.via.peer() != source);
        let removed = entry.paths.len() < before;
        if removed {
            self.reselect(prefix, entry);
        }
        removed
    }

    fn reselect(&mut self, prefix: IpNetwork, entry: &mut Entry) {
        entry.equal = best::select(&mut entry.paths, &self.rankings).min(self.max_paths);
        if !entry.marked {
            entry.marked = true;
            self.changed.push_back(prefix);
        }
    }
}

/// The prefix without host bits.
fn canonical(prefix: &IpNetwork) -> IpNetwork {
    IpNetwork::new(prefix.network(), prefix.prefix()).unwrap_or(*prefix)
}

#[cfg(test)]
mod tests;
