//! The reference: keeps all facts and works everything out from scratch, the slow and plain way.

use super::super::*;

#[derive(Debug, Default)]
pub(super) struct Facts {
    policy_rules: bool,
    links: BTreeMap<u32, Link>,
    neighbours: BTreeMap<(u32, IpAddr), [u8; 6]>,
    kernel: BTreeMap<RouteKey, KernelRouteKind>,
    bgp: BTreeMap<IpNetwork, BTreeSet<IpAddr>>,
    vips: BTreeSet<IpAddr>,
    stale: BTreeMap<IpNetwork, KernelRouteKind>,
}

/// What a prefix leads to: hops, or an action that needs none.
#[derive(Clone, Debug)]
enum Way {
    Hops(Vec<KernelNextHop>),
    Done(Action),
}

fn clean(prefix: IpNetwork) -> IpNetwork {
    IpNetwork::new(prefix.network(), prefix.prefix()).unwrap()
}

fn covers(outer: &IpNetwork, inner: &IpNetwork) -> bool {
    outer.prefix() <= inner.prefix() && outer.contains(inner.network())
}

fn one(address: IpAddr) -> IpNetwork {
    IpNetwork::from(address)
}

impl Facts {
    pub(super) fn note(&mut self, fact: &Fact) {
        match fact.clone() {
            Fact::Link(link) => drop(self.links.insert(link.ifindex, link)),
            Fact::LinkGone { ifindex } => drop(self.links.remove(&ifindex)),
            Fact::Neighbour { ifindex, address, mac } => {
                self.neighbours.remove(&(ifindex, address));
                self.neighbours.extend(mac.map(|mac| ((ifindex, address), mac)));
            }
            Fact::KernelRoute(KernelRoute { key, kind }) => {
                self.kernel.insert(RouteKey { prefix: clean(key.prefix), ..key }, kind);
            }
            Fact::KernelRouteGone(key) => {
                self.kernel.remove(&RouteKey { prefix: clean(key.prefix), ..key });
            }
            Fact::Bgp { prefix, next_hops } => {
                self.stale.remove(&clean(prefix));
                self.bgp.insert(clean(prefix), next_hops.into_iter().collect());
                self.bgp.retain(|_, hops| !hops.is_empty());
            }
            Fact::Vip { address, present: true } => drop(self.vips.insert(address)),
            Fact::Vip { address, present: false } => drop(self.vips.remove(&address)),
            Fact::Stale { prefix, kind } => {
                if !self.bgp.contains_key(&clean(prefix)) {
                    self.stale.insert(clean(prefix), kind);
                }
            }
            Fact::StaleOver => self.stale.clear(),
            Fact::PolicyRules { present } => self.policy_rules = present,
        }
    }

    pub(super) fn mac(&self, ifindex: u32, address: IpAddr) -> Option<[u8; 6]> {
        self.neighbours.get(&(ifindex, address)).copied()
    }

    /// Every route: where it comes from and what it does.
    pub(super) fn routes(&self) -> BTreeMap<IpNetwork, (Source, Action)> {
        self.all()
            .into_iter()
            .map(|(prefix, (source, way))| (prefix, (source, self.action(way))))
            .collect()
    }

    pub(super) fn installed(&self) -> BTreeMap<IpNetwork, Vec<KernelNextHop>> {
        let learned = self.bgp.keys().filter(|prefix| {
            let hidden = self.local_covers(prefix);
            let route = self.main(prefix);
            !hidden && route.is_none() && !self.is_vip(prefix)
        });
        let pairs = learned.map(|prefix| (*prefix, self.resolve(prefix)));
        pairs.filter(|(_, hops)| !hops.is_empty()).collect()
    }

    /// Neighbours that some route forwards to.
    pub(super) fn needs(&self) -> BTreeSet<(u32, IpAddr)> {
        let mut needs = BTreeSet::new();
        for (prefix, (source, way)) in self.all() {
            let Action::Forward(members) = self.action(way) else { continue };
            for member in members {
                let straight = (source == Source::Neighbour).then(|| prefix.network());
                needs.extend(member.gateway.or(straight).map(|at| (member.ifindex, at)));
            }
        }
        needs
    }

    fn all(&self) -> BTreeMap<IpNetwork, (Source, Way)> {
        let kernel = self.kernel.keys().map(|key| key.prefix);
        let vips = self.vips.iter().map(|vip| one(*vip));
        let known =
            kernel.chain(self.bgp.keys().copied()).chain(self.stale.keys().copied()).chain(vips);
        let mut routes: BTreeMap<_, _> = known
            .collect::<BTreeSet<_>>()
            .into_iter()
            .filter_map(|prefix| Some((prefix, self.route(&prefix)?)))
            .collect();
        for (ifindex, address) in self.neighbours.keys() {
            let prefix = one(*address);
            let covering = routes.iter().filter(|(p, _)| **p != prefix && covers(p, &prefix));
            let longest = covering.max_by_key(|(p, _)| p.prefix()).map(|(_, (_, way))| way.clone());
            let Some(Way::Hops(hops)) = longest else { continue };
            if self.local_covers(&prefix)
                || routes.get(&prefix).is_some_and(|(s, _)| *s != Source::Neighbour)
            {
                continue;
            }
            // Of several links that it could be on, the first that knows it and can send.
            let mut straight: Vec<_> = hops.iter().filter(|hop| hop.gateway.is_none()).collect();
            straight.sort();
            let on = straight.into_iter().map(|hop| hop.ifindex).find(|on| {
                self.links.get(on).is_some_and(|link| link.up && link.ethernet)
                    && self.neighbours.contains_key(&(*on, *address))
            });
            if on == Some(*ifindex) {
                let link = &self.links[ifindex];
                let member = Member {
                    ifindex: *ifindex,
                    source_mac: link.mac,
                    destination_mac: self.mac(*ifindex, *address),
                    gateway: None,
                    mtu: link.mtu.min(65_535) as u16,
                    weight: 1,
                };
                let way = Way::Done(Action::Forward(vec![member]));
                routes.insert(prefix, (Source::Neighbour, way));
            }
        }
        routes
    }

    fn route(&self, prefix: &IpNetwork) -> Option<(Source, Way)> {
        let to_kernel = (Source::Kernel, Way::Done(Action::Kernel));
        if self.kernel.keys().any(|key| key.local && key.prefix == *prefix) {
            return Some(to_kernel);
        }
        let way = |kind: &KernelRouteKind| match kind {
            KernelRouteKind::Unicast(hops) => Way::Hops(hops.clone()),
            KernelRouteKind::Blackhole => Way::Done(Action::Blackhole),
            KernelRouteKind::Kernel => Way::Done(Action::Kernel),
        };
        let found = if let Some(kind) = self.main(prefix) {
            (Source::Kernel, way(&kind))
        } else if self.is_vip(prefix) {
            to_kernel.clone()
        } else if self.bgp.contains_key(prefix) && !self.resolve(prefix).is_empty() {
            (Source::Bgp, Way::Hops(self.resolve(prefix)))
        } else {
            (Source::Bgp, way(self.stale.get(prefix)?))
        };
        Some(if self.local_covers(prefix) { to_kernel } else { found })
    }

    fn is_vip(&self, prefix: &IpNetwork) -> bool {
        *prefix == one(prefix.network()) && self.vips.contains(&prefix.network())
    }

    fn local_covers(&self, prefix: &IpNetwork) -> bool {
        self.kernel.keys().any(|key| key.local && covers(&key.prefix, prefix))
    }

    fn main(&self, prefix: &IpNetwork) -> Option<KernelRouteKind> {
        let routes = || self.kernel.iter().filter(|(key, _)| !key.local && key.prefix == *prefix);
        if routes().any(|(key, _)| key.tos != 0) {
            return Some(KernelRouteKind::Kernel);
        }
        routes().min_by_key(|(key, _)| key.metric).map(|(_, kind)| kind.clone())
    }

    fn resolve(&self, prefix: &IpNetwork) -> Vec<KernelNextHop> {
        let mut resolved = Vec::new();
        for next_hop in self.bgp.get(prefix).into_iter().flatten() {
            if self.local_covers(&one(*next_hop)) {
                continue;
            }
            let prefixes = self.kernel.keys().filter(|key| !key.local).map(|key| key.prefix);
            let covering = prefixes.filter(|prefix| prefix.contains(*next_hop));
            let longest = covering.max_by_key(|prefix| prefix.prefix());
            if let Some(KernelRouteKind::Unicast(hops)) = longest.and_then(|p| self.main(&p)) {
                resolved.extend(hops.iter().filter(|hop| self.is_up(hop.ifindex)).map(|hop| {
                    KernelNextHop { gateway: Some(hop.gateway.unwrap_or(*next_hop)), ..*hop }
                }));
            }
        }
        merged(&resolved)
    }

    fn is_up(&self, ifindex: u32) -> bool {
        self.links.get(&ifindex).is_some_and(|link| link.up)
    }

    fn action(&self, way: Way) -> Action {
        if self.policy_rules {
            return Action::Kernel;
        }
        let hops = match way {
            Way::Done(action) => return action,
            Way::Hops(hops) => merged(&hops),
        };
        let up: Vec<_> = hops.into_iter().filter(|hop| self.is_up(hop.ifindex)).collect();
        if up.is_empty() || up.iter().any(|hop| !self.links[&hop.ifindex].ethernet) {
            return Action::Kernel;
        }
        let member = |hop: &KernelNextHop| Member {
            ifindex: hop.ifindex,
            source_mac: self.links[&hop.ifindex].mac,
            destination_mac: hop.gateway.and_then(|gateway| self.mac(hop.ifindex, gateway)),
            gateway: hop.gateway,
            mtu: self.links[&hop.ifindex].mtu.min(65_535) as u16,
            weight: hop.weight,
        };
        Action::Forward(up.iter().map(member).collect())
    }
}

fn merged(hops: &[KernelNextHop]) -> Vec<KernelNextHop> {
    let mut merged: Vec<KernelNextHop> = Vec::new();
    for hop in hops {
        match merged.iter_mut().find(|m| (m.ifindex, m.gateway) == (hop.ifindex, hop.gateway)) {
            Some(same) => same.weight += hop.weight,
            None => merged.push(*hop),
        }
    }
    merged.sort();
    merged
}
