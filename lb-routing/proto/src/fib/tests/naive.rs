//! The reference: keeps all facts and works everything out from scratch, the slow and plain way.

use super::super::*;

#[derive(Debug, Default)]
pub(super) struct Facts {
    policy_rules: bool,
    links: BTreeMap<u32, Link>,
    neighbours: BTreeMap<(u32, IpAddr), [u8; 6]>,
    kernel: BTreeMap<RouteKey, KernelRouteKind>,
    bgp: BTreeMap<IpNetwork, (BTreeSet<IpAddr>, Install)>,
    /// What counts at lower levels.
    lower: BTreeMap<IpNetwork, Vec<BTreeSet<IpAddr>>>,
    statics: BTreeMap<(IpNetwork, u32), StaticKind>,
    vips: BTreeSet<IpAddr>,
    stale: BTreeMap<IpNetwork, KernelRouteKind>,
    /// What leads to each next hop, in the end.
    reached: BTreeMap<IpAddr, Reached>,
}

/// What leads to a next hop: by which links that are up, and what it costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Reached {
    hops: Vec<KernelNextHop>,
    leg: Leg,
    /// By all levels, in the end.
    reach: Reach,
}

impl Reached {
    fn new(hops: Vec<KernelNextHop>, cost: Option<u32>) -> Self {
        Self { hops, leg: Leg { cost, over: None }, reach: Reach::default() }
    }
}

/// What a prefix leads to: hops, or an action that needs none.
#[derive(Clone, Debug)]
enum Way {
    Hops(Vec<KernelNextHop>),
    Done(Action),
    /// The kernel says that there is none.
    Rejected,
}

fn clean(prefix: IpNetwork) -> IpNetwork {
    IpNetwork::new(prefix.network(), prefix.prefix()).unwrap()
}

fn covers(outer: &IpNetwork, inner: &IpNetwork) -> bool {
    outer.prefix() <= inner.prefix() && outer.contains(inner.network())
}

/// For some packets to its prefix only.
fn is_narrow(key: &RouteKey) -> bool {
    key.tos != 0 || key.source.is_some()
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
            Fact::Bgp { prefix, next_hops, install } => {
                self.stale.remove(&clean(prefix));
                self.bgp.insert(clean(prefix), (next_hops.iter().copied().collect(), install));
                self.bgp.retain(|_, (hops, _)| !hops.is_empty());
            }
            Fact::Leading { prefix, by_level } => {
                let sets = by_level.iter().map(|hops| hops.iter().copied().collect());
                self.lower.insert(clean(prefix), sets.collect());
            }
            Fact::Static { prefix, metric, kind } => {
                self.statics.remove(&(clean(prefix), metric));
                self.statics.extend(kind.map(|kind| ((clean(prefix), metric), kind)));
            }
            Fact::Vip { address, present: true } => drop(self.vips.insert(address)),
            Fact::Vip { address, present: false } => drop(self.vips.remove(&address)),
            Fact::Stale { prefix, kind } => {
                if !self.bgp.contains_key(&clean(prefix)) {
                    self.stale.entry(clean(prefix)).or_insert(kind);
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

    pub(super) fn installed(&self) -> BTreeMap<(IpNetwork, u32), OwnRoute> {
        let learned = self.bgp.iter().filter(|(prefix, (_, install))| {
            *install != Install::Dataplane
                && !self.local_covers(prefix)
                && self.route(prefix).is_some_and(|(source, _)| source == Source::Bgp)
        });
        let pairs = learned.map(|(prefix, _)| ((*prefix, BGP_METRIC), self.resolve(prefix)));
        let learned = pairs.filter(|(_, hops)| !hops.is_empty());
        let learned = learned.map(|(key, hops)| (key, OwnRoute::via(&hops)));
        let fixed = self.statics.iter().filter_map(|(key, kind)| {
            let route = match (kind, self.fixed_way(kind)?) {
                (_, Way::Hops(hops)) => OwnRoute::via(&hops),
                (StaticKind::Unreachable, _) => OwnRoute::Unreachable,
                (StaticKind::Prohibit, _) => OwnRoute::Prohibit,
                (StaticKind::Blackhole | StaticKind::Forward(_), _) => OwnRoute::Blackhole,
            };
            Some((*key, route))
        });
        learned.chain(fixed).collect()
    }

    /// What a route of the configuration leads to, if it can be used.
    fn fixed_way(&self, kind: &StaticKind) -> Option<Way> {
        let hops = match kind {
            StaticKind::Blackhole => return Some(Way::Done(Action::Blackhole)),
            StaticKind::Unreachable | StaticKind::Prohibit => {
                return Some(Way::Done(Action::Kernel));
            }
            StaticKind::Forward(hops) => hops,
        };
        let mut found = Vec::new();
        for hop in hops {
            if hop.gateway.is_some_and(|gateway| self.local_covers(&one(gateway))) {
                continue;
            }
            let on = |name: &String| self.links.values().find(|link| link.name == *name && link.up);
            match (hop.gateway, &hop.interface) {
                (Some(gateway), None) => {
                    let ways = self.ways(gateway).into_iter();
                    found.extend(ways.map(|way| KernelNextHop { weight: hop.weight, ..way }));
                }
                (gateway, Some(name)) => {
                    let Some(link) = on(name) else { continue };
                    let ifindex = link.ifindex;
                    let on_link = |gateway: IpAddr| {
                        self.kernel.iter().any(|(key, kind)| {
                            !key.local && !is_narrow(key) && key.prefix.contains(gateway)
                                && matches!(kind, KernelRouteKind::Unicast(hops)
                                    if hops.iter().any(|h| h.ifindex == ifindex && h.gateway.is_none()))
                        })
                    };
                    if gateway.is_none_or(on_link) {
                        let weight = hop.weight;
                        found.push(KernelNextHop { ifindex, gateway, weight, mtu: None });
                    }
                }
                (None, None) => {}
            }
        }
        (!found.is_empty()).then(|| Way::Hops(merged(&found)))
    }

    /// The route of the configuration with the lowest metric that can be used.
    fn fixed(&self, prefix: &IpNetwork) -> Option<(u32, Way)> {
        let routes = self.statics.iter().filter(|((of, _), _)| of == prefix);
        let mut ways =
            routes.filter_map(|((_, metric), kind)| Some((*metric, self.fixed_way(kind)?)));
        ways.next()
    }

    /// Neighbours that some route forwards to.
    pub(super) fn needs(&self) -> BTreeSet<(u32, IpAddr)> {
        let mut needs = BTreeSet::new();
        for (prefix, (source, way)) in self.all() {
            // Gateways that do not answer are looked for, too.
            if let (Way::Hops(hops), Action::Forward(_)) = (&way, self.action(way.clone())) {
                let up = hops.iter().filter(|hop| self.is_up(hop.ifindex));
                needs.extend(up.filter_map(|hop| Some((hop.ifindex, hop.gateway?))));
            } else if let (Action::Forward(members), Source::Neighbour) = (self.action(way), source)
            {
                needs.extend(members.iter().map(|member| (member.ifindex, prefix.network())));
            }
        }
        needs
    }

    fn all(&self) -> BTreeMap<IpNetwork, (Source, Way)> {
        let kernel = self.kernel.keys().map(|key| key.prefix);
        let vips = self.vips.iter().map(|vip| one(*vip));
        let fixed = self.statics.keys().map(|(prefix, _)| *prefix);
        let known = kernel.chain(self.bgp.keys().copied()).chain(self.stale.keys().copied());
        let known = known.chain(vips).chain(fixed);
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
            straight.sort_by_key(|hop| (hop.ifindex, hop.mtu.unwrap_or(u32::MAX)));
            let on = straight.into_iter().find(|hop| {
                self.links.get(&hop.ifindex).is_some_and(|link| link.up && link.ethernet)
                    && self.neighbours.contains_key(&(hop.ifindex, *address))
            });
            if let Some(hop) = on.filter(|hop| hop.ifindex == *ifindex) {
                let link = &self.links[ifindex];
                let member = Member {
                    ifindex: *ifindex,
                    source_mac: link.mac,
                    destination_mac: self.mac(*ifindex, *address),
                    gateway: None,
                    mtu: self.mtu(hop),
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
        let way = foreign_way;
        let metrics = self.kernel.keys().filter(|key| !key.local && key.prefix == *prefix);
        let foreign = metrics.map(|key| key.metric).min().unwrap_or(u32::MAX);
        let fixed = self.fixed(prefix).filter(|(metric, _)| *metric < foreign);
        let found = if let Some((_, way)) = fixed.clone().filter(|(metric, _)| *metric < BGP_METRIC)
        {
            (Source::Static, way)
        } else if let Some(kind) = self.main(prefix).filter(|_| fixed.is_none()) {
            (Source::Kernel, way(&kind))
        } else if self.is_vip(prefix) {
            to_kernel.clone()
        } else if let Some((_, install)) = self.bgp.get(prefix)
            && !self.resolve(prefix).is_empty()
        {
            match install {
                Install::Kernel => (Source::Bgp, Way::Done(Action::Kernel)),
                Install::Both | Install::Dataplane => {
                    (Source::Bgp, Way::Hops(self.resolve(prefix)))
                }
            }
        } else if let Some(kind) = self.stale.get(prefix) {
            (Source::Bgp, way(kind))
        } else {
            (Source::Static, fixed?.1)
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
        if routes().any(|(key, _)| is_narrow(key)) {
            return Some(KernelRouteKind::Kernel);
        }
        routes().min_by_key(|(key, _)| key.metric).map(|(_, kind)| kind.clone())
    }

    fn resolve(&self, prefix: &IpNetwork) -> Vec<KernelNextHop> {
        self.by(&self.reached, prefix, usize::MAX).hops
    }

    pub(super) fn reach(&self, next_hop: IpAddr) -> Reach {
        self.reached[&next_hop].reach.clone()
    }

    /// What leads to every next hop: at first without the speaker's routes, then by those whose next hops are known to be led
    /// to, and so on.
    pub(super) fn resolve_all(&mut self, watched: &BTreeSet<IpAddr>) {
        let all = self.bgp.values().flat_map(|(next_hops, _)| next_hops).chain(watched);
        let all = all.chain(self.lower.values().flatten().flatten());
        let all: BTreeSet<IpAddr> = all.copied().collect();
        let without: Vec<_> = all.iter().map(|it| (*it, self.without(*it))).collect();
        let first = without.iter().map(|(next_hop, (_, way))| (*next_hop, way.clone()));
        let mut reached: BTreeMap<_, _> = first.collect();
        let mut legs: BTreeMap<IpAddr, Vec<Leg>> = BTreeMap::new();
        for level in 0..=4 {
            for (next_hop, there) in &reached {
                legs.entry(*next_hop).or_default().push(there.leg);
            }
            if level < 4 {
                let more = without.iter();
                let more = more.map(|(it, alone)| (*it, self.with(&reached, *it, alone, level)));
                reached = more.collect();
            }
        }
        for (next_hop, there) in &mut reached {
            there.reach = Reach::new(legs.remove(next_hop).unwrap());
        }
        self.reached = reached;
    }

    /// What counts of a learned route at a level.
    fn learned(&self, prefix: &IpNetwork, level: usize) -> BTreeSet<IpAddr> {
        let lower = self.lower.get(prefix).and_then(|lower| lower.get(level));
        let last = || self.bgp.get(prefix).map(|(hops, _)| hops);
        lower.or_else(last).cloned().unwrap_or_default()
    }

    /// What the next hops of a learned route lead to.
    fn by(&self, reached: &BTreeMap<IpAddr, Reached>, prefix: &IpNetwork, level: usize) -> Reached {
        let next_hops = self.learned(prefix, level);
        let found: Vec<_> = next_hops.iter().filter_map(|it| reached.get(it)).collect();
        let usable = found.iter().filter(|it| !it.hops.is_empty());
        let cost = usable.filter_map(|it| it.leg.cost).min();
        let hops: Vec<_> = found.iter().flat_map(|it| it.hops.iter().copied()).collect();
        Reached::new(merged(&hops), cost)
    }

    fn with(
        &self,
        reached: &BTreeMap<IpAddr, Reached>,
        next_hop: IpAddr,
        (before, without): &(u8, Reached),
        level: usize,
    ) -> Reached {
        let is_there = reached.get(&next_hop).is_some_and(|it| !it.hops.is_empty());
        let counts = |prefix: &&IpNetwork| {
            prefix.prefix() >= (*before).max(1)
                && prefix.contains(next_hop)
                && !(is_there && self.learned(prefix, level).contains(&next_hop))
        };
        let known: BTreeSet<_> = self.bgp.keys().chain(self.lower.keys()).collect();
        let covering = known.into_iter().filter(counts);
        let leading = covering.map(|prefix| (*prefix, self.by(reached, prefix, level)));
        let leading = leading.filter(|(_, by)| !by.hops.is_empty());
        let Some((over, Reached { hops, leg, .. })) = leading.max_by_key(|(it, _)| it.prefix())
        else {
            return without.clone();
        };
        let leg = Leg { over: Some(over), ..leg };
        Reached { hops, leg, ..Reached::default() }
    }

    /// What leads to a next hop without the speaker's routes, and how long those are at least that count before it.
    fn without(&self, next_hop: IpAddr) -> (u8, Reached) {
        let all = one(next_hop).prefix();
        if self.local_covers(&one(next_hop)) {
            return (all + 1, Reached::new(Vec::new(), Some(0)));
        }
        let lead = self.lead(next_hop);
        let before = lead.as_ref().map_or(0, |(len, is_behind, ..)| len + u8::from(!is_behind));
        if self.vips.contains(&next_hop) && before <= all {
            return (all + 1, Reached::default());
        }
        let Some((.., metric, way)) = lead else { return (0, Reached::default()) };
        let hops = match way {
            Way::Hops(hops) => hops,
            Way::Done(Action::Kernel) => {
                return (before, Reached::new(Vec::new(), Some(metric)));
            }
            Way::Done(_) | Way::Rejected => return (before, Reached::default()),
        };
        let up: Vec<_> = hops.iter().filter(|hop| self.is_up(hop.ifindex)).collect();
        let near = up.iter().any(|hop| hop.gateway.is_none());
        let cost = (!up.is_empty()).then_some(if near { 0 } else { metric });
        let gateway = |hop: &KernelNextHop| Some(hop.gateway.unwrap_or(next_hop));
        let straight =
            |hop: &&KernelNextHop| KernelNextHop { gateway: gateway(hop), mtu: None, ..**hop };
        let before = if near && before > 1 { all + 1 } else { before };
        (before, Reached::new(up.iter().map(straight).collect(), cost))
    }

    /// The longest route that leads the speaker to a next hop without its own: how long it is, whether it stands behind these,
    /// its metric, and what it does.
    fn lead(&self, next_hop: IpAddr) -> Option<(u8, bool, u32, Way)> {
        (0..=one(next_hop).prefix()).rev().find_map(|len| {
            let prefix = clean(IpNetwork::new(next_hop, len).unwrap());
            let keys = self.kernel.keys().filter(|key| !key.local && key.prefix == prefix);
            let foreign = keys.map(|key| key.metric).min();
            let priced = |metric| if len == 0 { u32::MAX } else { metric };
            match self.fixed(&prefix) {
                Some((metric, way)) if foreign.is_none_or(|than| metric < than) => {
                    // What answers that there is no way is no way.
                    let way = match way {
                        Way::Hops(hops) => Way::Hops(hops),
                        Way::Done(_) | Way::Rejected => Way::Rejected,
                    };
                    Some((len, metric >= BGP_METRIC, priced(metric), way))
                }
                _ => Some((len, false, priced(foreign?), foreign_way(&self.main(&prefix)?))),
            }
        })
    }

    /// By which links that are up others' routes lead to an address.
    fn ways(&self, next_hop: IpAddr) -> Vec<KernelNextHop> {
        if self.local_covers(&one(next_hop)) {
            return Vec::new();
        }
        let prefixes = self.kernel.keys().filter(|key| !key.local).map(|key| key.prefix);
        let covering = prefixes.filter(|prefix| prefix.contains(next_hop));
        let longest = covering.max_by_key(|prefix| prefix.prefix());
        let Some(KernelRouteKind::Unicast(hops)) = longest.and_then(|p| self.main(&p)) else {
            return Vec::new();
        };
        let up = hops.iter().filter(|hop| self.is_up(hop.ifindex));
        up.map(|hop| KernelNextHop {
            gateway: Some(hop.gateway.unwrap_or(next_hop)),
            mtu: None,
            ..*hop
        })
        .collect()
    }

    fn is_up(&self, ifindex: u32) -> bool {
        self.links.get(&ifindex).is_some_and(|link| link.up)
    }

    fn mtu(&self, hop: &KernelNextHop) -> u16 {
        let smallest = self.links[&hop.ifindex].mtu.min(hop.mtu.unwrap_or(u32::MAX));
        smallest.min(65_535) as u16
    }

    fn action(&self, way: Way) -> Action {
        if self.policy_rules {
            return Action::Kernel;
        }
        let hops = match way {
            Way::Done(action) => return action,
            Way::Rejected => return Action::Kernel,
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
            mtu: self.mtu(hop),
            weight: hop.weight,
        };
        let members: Vec<Member> = up.iter().map(member).collect();
        let has_mac = |member: &&Member| member.destination_mac.is_some();
        let silent = |member: &Member| member.gateway.is_some() && member.destination_mac.is_none();
        let one_answers = members.iter().any(|member| has_mac(&member));
        let kept = members.into_iter().filter(|member| !(one_answers && silent(member)));
        Action::Forward(kept.collect())
    }
}

fn foreign_way(kind: &KernelRouteKind) -> Way {
    match kind {
        KernelRouteKind::Unicast(hops) => Way::Hops(hops.clone()),
        KernelRouteKind::Blackhole => Way::Done(Action::Blackhole),
        KernelRouteKind::Reject => Way::Rejected,
        KernelRouteKind::Kernel => Way::Done(Action::Kernel),
    }
}

fn merged(hops: &[KernelNextHop]) -> Vec<KernelNextHop> {
    let mut merged: Vec<KernelNextHop> = Vec::new();
    for hop in hops {
        let is_same = |m: &&mut KernelNextHop| {
            (m.ifindex, m.gateway, m.mtu) == (hop.ifindex, hop.gateway, hop.mtu)
        };
        match merged.iter_mut().find(is_same) {
            Some(same) => same.weight += hop.weight,
            None => merged.push(*hop),
        }
    }
    if let [only] = &mut merged[..] {
        only.weight = 1;
    }
    merged.sort();
    merged
}
