//! Routes of the configuration: by prefix and metric, resolved against others' routes in the kernel, one level deep.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::kernel::KernelTable;
use super::select::merge;
use super::{
    Fib, KernelNextHop, KernelRouteKind, Link, OwnRoute, Source, StaticKind, StaticNextHop, bits,
    host, inside, normal, prefix,
};

/// Prefix and metric of a route.
pub(super) type StaticKey = (IpNetwork, u32);

/// Every route of the configuration.
#[derive(Debug, Default)]
pub(super) struct StaticTable {
    routes: BTreeMap<StaticKey, Entry>,
    by_gateway: BTreeMap<IpAddr, BTreeSet<StaticKey>>,
    /// Those with a next hop that is a link by itself.
    by_link: BTreeSet<StaticKey>,
}

/// A route.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) kind: StaticKind,
    /// What its next hops resolve to, where it has any.
    pub(super) resolved: Arc<[KernelNextHop]>,
}

impl Entry {
    /// What the kernel is to have of it; nothing while no next hop can be reached.
    pub(super) fn own(&self) -> Option<OwnRoute> {
        match self.kind {
            StaticKind::Forward(_) if self.resolved.is_empty() => None,
            StaticKind::Forward(_) => Some(OwnRoute::via(&self.resolved)),
            StaticKind::Blackhole => Some(OwnRoute::Blackhole),
            StaticKind::Unreachable => Some(OwnRoute::Unreachable),
            StaticKind::Prohibit => Some(OwnRoute::Prohibit),
        }
    }
}

impl StaticTable {
    /// Sets or removes a route; says whether anything changed.
    pub(super) fn set(
        &mut self,
        key: StaticKey,
        kind: Option<StaticKind>,
        resolve: impl Fn(&StaticKind) -> Arc<[KernelNextHop]>,
    ) -> bool {
        if self.routes.get(&key).map(|route| &route.kind) == kind.as_ref() {
            return false;
        }
        if let Some(old) = self.routes.remove(&key) {
            self.unlink(&key, &old.kind);
        }
        if let Some(kind) = kind {
            for hop in hops(&kind) {
                match hop.gateway {
                    Some(gateway) => drop(self.by_gateway.entry(gateway).or_default().insert(key)),
                    None => drop(self.by_link.insert(key)),
                }
            }
            let resolved = resolve(&kind);
            self.routes.insert(key, Entry { kind, resolved });
        }
        true
    }

    fn unlink(&mut self, key: &StaticKey, kind: &StaticKind) {
        self.by_link.remove(key);
        for gateway in hops(kind).iter().filter_map(|hop| hop.gateway) {
            if let Some(keys) = self.by_gateway.get_mut(&gateway) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_gateway.remove(&gateway);
                }
            }
        }
    }

    /// Resolves those with a gateway in the range again, and with `links` those that name links; returns the prefixes of
    /// those that changed.
    pub(super) fn re_resolve(
        &mut self,
        addresses: RangeInclusive<IpAddr>,
        links: bool,
        resolve: impl Fn(&StaticKind) -> Arc<[KernelNextHop]>,
    ) -> Vec<IpNetwork> {
        let by_gateway = self.by_gateway.range(addresses).flat_map(|(_, keys)| keys);
        let by_link = self.by_link.iter().filter(|_| links);
        let touched: BTreeSet<StaticKey> = by_gateway.chain(by_link).copied().collect();
        let mut changed = Vec::new();
        for key in touched {
            let Some(route) = self.routes.get_mut(&key) else { continue };
            let resolved = resolve(&route.kind);
            if resolved != route.resolved {
                route.resolved = resolved;
                changed.push(key.0);
            }
        }
        changed
    }

    /// Every route to a prefix, lowest metric first.
    pub(super) fn of(&self, prefix: &IpNetwork) -> impl Iterator<Item = (u32, &Entry)> {
        let keys = (*prefix, 0)..=(*prefix, u32::MAX);
        self.routes.range(keys).map(|((_, metric), route)| (*metric, route))
    }

    /// The route to a prefix that has the lowest metric of those that can be used.
    pub(super) fn best(&self, prefix: &IpNetwork) -> Option<(u32, &Entry)> {
        self.of(prefix).find(|(_, route)| route.own().is_some())
    }

    /// The route that covers an address, of those that can be used: length, metric, and the route.
    pub(super) fn longest(&self, address: IpAddr) -> Option<(u8, u32, &Entry)> {
        if self.routes.is_empty() {
            return None;
        }
        let mut lengths = (0..=bits(address)).rev();
        lengths.find_map(|len| {
            let (metric, route) = self.best(&prefix(address, len))?;
            Some((len, metric, route))
        })
    }

    /// Prefixes that a prefix covers.
    pub(super) fn inside(&self, outer: IpNetwork) -> impl Iterator<Item = IpNetwork> + '_ {
        let (first, last) = inside(outer).into_inner();
        self.routes.range((first, 0)..=(last, u32::MAX)).map(|((prefix, _), _)| *prefix)
    }
}

fn hops(kind: &StaticKind) -> &[StaticNextHop] {
    match kind {
        StaticKind::Forward(hops) => hops,
        StaticKind::Blackhole | StaticKind::Unreachable | StaticKind::Prohibit => &[],
    }
}

/// What the next hops of a route resolve to.
pub(super) fn resolve(
    kernel: &KernelTable,
    links: &BTreeMap<u32, Link>,
    kind: &StaticKind,
) -> Arc<[KernelNextHop]> {
    merge(hops(kind).iter().flat_map(|hop| ways(kernel, links, hop).unwrap_or_default()))
}

/// The ways to a next hop, or why there is none.
fn ways(
    kernel: &KernelTable,
    links: &BTreeMap<u32, Link>,
    hop: &StaticNextHop,
) -> Result<Vec<KernelNextHop>, String> {
    let StaticNextHop { gateway, interface, weight } = hop;
    let way = |ifindex, gateway| KernelNextHop { ifindex, gateway, weight: *weight, mtu: None };
    if let Some(gateway) = gateway
        && kernel.is_hidden(host(*gateway))
    {
        return Err(format!("{gateway} is an address of this host itself"));
    }
    let Some(name) = interface else {
        let Some(gateway) = gateway else { return Ok(Vec::new()) };
        let found = match kernel.lookup(*gateway) {
            Some(KernelRouteKind::Unicast(hops)) => hops.as_slice(),
            Some(
                KernelRouteKind::Blackhole | KernelRouteKind::Reject | KernelRouteKind::Kernel,
            )
            | None => &[],
        };
        let up = |hop: &&KernelNextHop| links.get(&hop.ifindex).is_some_and(|link| link.up);
        let up = found.iter().filter(up);
        let ways: Vec<_> = up.map(|hop| way(hop.ifindex, hop.gateway.or(Some(*gateway)))).collect();
        return if ways.is_empty() {
            Err(format!(
                "no network of this host leads to {gateway}: give an interface an address in its network, or name another next hop"
            ))
        } else {
            Ok(ways)
        };
    };
    let Some(link) = links.values().find(|link| link.name == *name) else {
        return Err(format!("this host has no interface {name}"));
    };
    if !link.up {
        return Err(format!("interface {name} is down, or has no carrier"));
    }
    match gateway {
        Some(IpAddr::V6(gateway)) if gateway.is_unicast_link_local() => {}
        Some(gateway) if !kernel.is_on_link(*gateway, link.ifindex) => {
            return Err(format!(
                "{gateway} is in no network of interface {name}: give it an address in that network, or name another next hop"
            ));
        }
        Some(_) | None => {}
    }
    Ok(vec![way(link.ifindex, *gateway)])
}

/// How a route of the configuration is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticState {
    /// Packets that no longer route covers take it.
    pub used: bool,
    /// Whom they take instead, where there is a better route to the same prefix.
    pub behind: Option<Source>,
    /// Why next hops cannot be reached, one sentence each.
    pub unreachable: Vec<String>,
}

impl Fib {
    /// How a route of the configuration is; `None`: there is none of this metric.
    pub fn static_state(&self, prefix: IpNetwork, metric: u32) -> Option<StaticState> {
        let prefix = normal(prefix);
        let (_, route) = self.statics.of(&prefix).find(|(of, _)| *of == metric)?;
        let first = self.statics.best(&prefix).is_some_and(|(best, _)| best == metric);
        let bgp = self.book.find(&prefix).and_then(|record| record.bgp);
        let chosen = self.select(prefix, bgp).map(|choice| choice.source);
        let used = first && chosen == Some(Source::Static);
        let behind = chosen.filter(|_| !used && route.own().is_some());
        let unreachable = hops(&route.kind).iter().filter_map(|hop| self.unreachable(hop));
        Some(StaticState { used, behind, unreachable: unreachable.collect() })
    }

    /// Why a next hop cannot be reached, if so.
    pub fn unreachable(&self, hop: &StaticNextHop) -> Option<String> {
        ways(&self.kernel, &self.links, hop).err()
    }
}
