//! When routes that a previous process left are obsolete: the neighbours have told theirs again.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use lb_routing_proto::speaker::{PeerStatus, State};

/// Left routes stay no longer than this after the start.
pub(crate) const STALE_LIMIT: Duration = Duration::from_secs(60);
/// A neighbour that said End-of-RIB (RFC 4724) and no new prefix for so long has told all: it may owe
/// the other family's.
const QUIET_AFTER_END_OF_RIB: Duration = Duration::from_secs(1);
/// The same for a neighbour that does not send End-of-RIB.
const QUIET: Duration = Duration::from_secs(5);

/// Watches the first convergence.
#[derive(Debug)]
pub(crate) struct Convergence {
    since: Instant,
    /// The neighbours from whom routes are accepted.
    awaited: HashSet<IpAddr>,
    /// Others may come by themselves, nobody knows how many: all of the time is theirs.
    anybody: bool,
    ended: HashSet<IpAddr>,
    /// Prefixes of a neighbour, and since when it is so many.
    counts: HashMap<IpAddr, (u64, Instant)>,
}

impl Convergence {
    pub(crate) fn new(awaited: HashSet<IpAddr>, anybody: bool, now: Instant) -> Self {
        Self { since: now, awaited, anybody, ended: HashSet::new(), counts: HashMap::new() }
    }

    /// A neighbour sent End-of-RIB.
    pub(crate) fn end_of_rib(&mut self, peer: IpAddr) {
        self.ended.insert(peer);
    }

    /// The time is over.
    pub(crate) fn is_past_limit(&self, now: Instant) -> bool {
        now >= self.since + STALE_LIMIT
    }

    /// Everything is told.
    pub(crate) fn is_complete(&mut self, peers: &[PeerStatus], now: Instant) -> bool {
        let mut quiet = 0;
        for peer in peers.iter().filter(|peer| self.awaited.contains(&peer.address)) {
            if peer.state != State::Established {
                self.counts.remove(&peer.address);
                self.ended.remove(&peer.address);
                continue;
            }
            let entry = self.counts.entry(peer.address).or_insert((peer.prefixes_received, now));
            if entry.0 != peer.prefixes_received {
                *entry = (peer.prefixes_received, now);
            }
            let ended = self.ended.contains(&peer.address);
            let enough = if ended { QUIET_AFTER_END_OF_RIB } else { QUIET };
            quiet += usize::from(now >= entry.1 + enough);
        }
        quiet == self.awaited.len() && !self.anybody
    }
}

#[cfg(test)]
mod tests;
