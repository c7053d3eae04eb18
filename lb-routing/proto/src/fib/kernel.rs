//! The kernel's routes that are not ours, and the longest match over them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{KernelRouteKind, RouteKey, inside, prefix};

/// Main and local table.
#[derive(Debug, Default)]
pub(super) struct KernelTable {
    main: Table,
    local: Table,
}

#[derive(Debug, Default)]
struct Table {
    /// By metric, then type of service and source; never empty.
    routes: BTreeMap<IpNetwork, Vec<Entry>>,
    lengths: Lengths,
}

#[derive(Debug)]
struct Entry {
    metric: u32,
    tos: u8,
    source: Option<IpNetwork>,
    kind: KernelRouteKind,
}

impl Entry {
    /// For some packets to the prefix only.
    fn is_narrow(&self) -> bool {
        self.tos != 0 || self.source.is_some()
    }
}

impl KernelTable {
    /// Sets or removes a route; says whether anything changed.
    pub(super) fn set(&mut self, key: RouteKey, kind: Option<KernelRouteKind>) -> bool {
        let table = if key.local { &mut self.local } else { &mut self.main };
        table.set(key, kind)
    }

    /// The main table's route for exactly this prefix, and its metric.
    pub(super) fn main(&self, prefix: &IpNetwork) -> Option<(u32, &KernelRouteKind)> {
        self.main.get(prefix)
    }

    /// Whether a route of the main table, of whatever metric, says that an address is on a link itself.
    pub(super) fn is_on_link(&self, address: IpAddr, ifindex: u32) -> bool {
        let mut lengths = self.main.lengths.longest_first(address.is_ipv6());
        lengths.any(|len| {
            let entries = self.main.routes.get(&prefix(address, len)).into_iter().flatten();
            entries.filter(|entry| !entry.is_narrow()).any(|entry| match &entry.kind {
                KernelRouteKind::Unicast(hops) => {
                    hops.iter().any(|hop| hop.ifindex == ifindex && hop.gateway.is_none())
                }
                KernelRouteKind::Blackhole | KernelRouteKind::Reject | KernelRouteKind::Kernel => {
                    false
                }
            })
        })
    }

    /// The local table has this very prefix.
    pub(super) fn is_local(&self, prefix: &IpNetwork) -> bool {
        self.local.routes.contains_key(prefix)
    }

    /// The local table has this prefix or one that covers it.
    pub(super) fn is_hidden(&self, inner: IpNetwork) -> bool {
        let lengths = self.local.lengths.longest_first(inner.is_ipv6());
        let mut covering = lengths.filter(|len| *len <= inner.prefix());
        covering.any(|len| self.local.routes.contains_key(&prefix(inner.network(), len)))
    }

    /// The kernel's lookup: the local table first, then the longest match in the main table.
    pub(super) fn lookup(&self, address: IpAddr) -> Option<&KernelRouteKind> {
        if self.is_hidden(IpNetwork::from(address)) {
            return Some(&KernelRouteKind::Kernel);
        }
        self.longest(address).map(|(.., kind)| kind)
    }

    /// The main table's route that covers an address: length, metric and what it does.
    pub(super) fn longest(&self, address: IpAddr) -> Option<(u8, u32, &KernelRouteKind)> {
        let mut lengths = self.main.lengths.longest_first(address.is_ipv6());
        lengths.find_map(|len| {
            let (metric, kind) = self.main.get(&prefix(address, len))?;
            Some((len, metric, kind))
        })
    }

    /// Prefixes of the main table that a prefix covers.
    pub(super) fn inside(&self, outer: IpNetwork) -> impl Iterator<Item = IpNetwork> + '_ {
        self.main.routes.range(inside(outer)).map(|(prefix, _)| *prefix)
    }
}

impl Table {
    fn set(&mut self, key: RouteKey, kind: Option<KernelRouteKind>) -> bool {
        let entries = self.routes.entry(key.prefix).or_default();
        if entries.is_empty() {
            self.lengths.add(&key.prefix);
        }
        let order = (key.metric, key.tos, key.source);
        let place = entries.binary_search_by_key(&order, |e| (e.metric, e.tos, e.source));
        let changed = match (place, kind) {
            (Ok(at), Some(kind)) => {
                std::mem::replace(&mut entries[at].kind, kind) != entries[at].kind
            }
            (Ok(at), None) => {
                entries.remove(at);
                true
            }
            (Err(at), Some(kind)) => {
                let RouteKey { metric, tos, source, .. } = key;
                entries.insert(at, Entry { metric, tos, source, kind });
                true
            }
            (Err(_), None) => false,
        };
        if entries.is_empty() {
            self.routes.remove(&key.prefix);
            self.lengths.remove(&key.prefix);
        }
        changed
    }

    /// The route of lowest metric; the kernel's business where it depends on the type of service or on the source.
    fn get(&self, prefix: &IpNetwork) -> Option<(u32, &KernelRouteKind)> {
        let entries = self.routes.get(prefix)?;
        let first = entries.first()?;
        let narrow = entries.iter().any(Entry::is_narrow);
        Some((first.metric, if narrow { &KernelRouteKind::Kernel } else { &first.kind }))
    }
}

/// How many prefixes of each length there are in a family, so that a longest match asks only for those.
#[derive(Debug)]
pub(super) struct Lengths {
    v4: [usize; 33],
    v6: [usize; 129],
}

impl Default for Lengths {
    fn default() -> Self {
        Self { v4: [0; 33], v6: [0; 129] }
    }
}

impl Lengths {
    pub(super) fn add(&mut self, prefix: &IpNetwork) {
        *self.count(prefix) += 1;
    }

    pub(super) fn remove(&mut self, prefix: &IpNetwork) {
        *self.count(prefix) -= 1;
    }

    pub(super) fn longest_first(&self, is_ipv6: bool) -> impl Iterator<Item = u8> + '_ {
        let counts: &[usize] = if is_ipv6 { &self.v6 } else { &self.v4 };
        (0..=128).zip(counts).rev().filter(|(_, count)| **count > 0).map(|(len, _)| len)
    }

    fn count(&mut self, prefix: &IpNetwork) -> &mut usize {
        let counts: &mut [usize] = if prefix.is_ipv6() { &mut self.v6 } else { &mut self.v4 };
        &mut counts[usize::from(prefix.prefix())]
    }
}
