//! What one neighbour was told, and which prefixes it may have to hear of (RFC 4271 §3.2, Adj-RIB-Out).

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::Keyed;
use crate::wire::{Attributes, Family};

/// Prefixes that are looked at in one go: what one attribute set has among them shares UPDATEs.
const BATCH: usize = 4096;

/// A route as it is advertised.
pub(crate) type Advertised = (Arc<Attributes>, IpAddr);

/// The Adj-RIB-Out of a neighbour.
#[derive(Debug)]
pub(crate) struct AdjRibOut {
    sent: HashMap<IpNetwork, Sent, Keyed>,
    pending: BTreeSet<IpNetwork>,
    /// Families whose initial routes are not complete yet.
    initial: Vec<Family>,
}

#[derive(Debug)]
struct Sent {
    route: Advertised,
    /// The neighbour asked for it again.
    again: bool,
}

/// The next messages' content.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) withdrawn: Vec<IpNetwork>,
    pub(crate) announced: Vec<Group>,
    /// Families that are complete after it.
    pub(crate) end_of_rib: Vec<Family>,
}

/// Prefixes that share attributes and next hop.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) attributes: Arc<Attributes>,
    pub(crate) next_hop: IpAddr,
    pub(crate) prefixes: Vec<IpNetwork>,
}

impl AdjRibOut {
    /// For a new session: `prefixes` are looked at first, then the families' ends are marked.
    pub(crate) fn new(
        prefixes: impl Iterator<Item = IpNetwork>,
        families: Vec<Family>,
        hash: Keyed,
    ) -> Self {
        let sent = HashMap::with_hasher(hash);
        Self { sent, pending: prefixes.collect(), initial: families }
    }

    /// Prefixes that the neighbour knows from us.
    pub(crate) fn len(&self) -> usize {
        self.sent.len()
    }

    /// The route to a prefix may have changed.
    pub(crate) fn mark(&mut self, prefix: IpNetwork) {
        self.pending.insert(prefix);
    }

    /// The neighbour wants a family again (RFC 2918 §4).
    pub(crate) fn refresh(&mut self, family: Family) {
        for (prefix, sent) in &mut self.sent {
            if Family::of(prefix) == family {
                sent.again = true;
                self.pending.insert(*prefix);
            }
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.initial.is_empty()
    }

    /// Takes the differences between what was sent and what `export` says now, of some prefixes.
    pub(crate) fn next_batch(
        &mut self,
        mut export: impl FnMut(&IpNetwork) -> Option<Advertised>,
    ) -> Batch {
        let mut batch = Batch::default();
        let mut places: HashMap<(*const Attributes, IpAddr), usize> = HashMap::new();
        for _ in 0..BATCH {
            let Some(prefix) = self.pending.pop_first() else { break };
            let Some(route) = export(&prefix) else {
                batch.withdrawn.extend(self.sent.remove(&prefix).map(|_| prefix));
                continue;
            };
            if self.sent.get(&prefix).is_some_and(|sent| !sent.again && sent.route == route) {
                continue;
            }
            let place = *places.entry((Arc::as_ptr(&route.0), route.1)).or_insert_with(|| {
                let (attributes, next_hop) = (Arc::clone(&route.0), route.1);
                batch.announced.push(Group { attributes, next_hop, prefixes: Vec::new() });
                batch.announced.len() - 1
            });
            batch.announced[place].prefixes.push(prefix);
            self.sent.insert(prefix, Sent { route, again: false });
        }
        if self.pending.is_empty() {
            batch.end_of_rib = std::mem::take(&mut self.initial);
        }
        batch
    }

    /// These could not be said after all.
    pub(crate) fn forget(&mut self, prefixes: &[IpNetwork]) {
        for prefix in prefixes {
            self.sent.remove(prefix);
        }
    }
}

#[cfg(test)]
mod tests;
