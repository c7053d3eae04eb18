//! What the dataplane's FIB and the kernel should hold, from the kernel's links, routes and neighbours and the speaker's paths.
//!
//! ```text
//! Fact ─▶ tables, marks ─▶ Output::Update   groups and routes of the dataplane
//!                          Output::Install  our routes in the kernel
//!                          Output::Resolve  gateways without a MAC
//!                          Output::NextHop  what it costs to reach a next hop of the speaker's paths
//! ```
//!
//! For one prefix the first of these counts: a local address; of others' kernel routes and the configuration's the one
//! with the lowest metric, unless it is the configuration's and higher than [`BGP_METRIC`]; a VIP; the speaker's paths
//! whose next hops resolve; what a previous process left; the configuration's route after all; a neighbour on a connected
//! network (its /32 or /128 carries the MAC). A local route hides longer ones, as the kernel asks the local table first.
//!
//! Next hops of the configuration resolve against kernel routes that are not ours, those of the speaker against these, the
//! configuration's, and the speaker's own (`fib/hops.rs`): what forwards, here and in the kernel, is the gateway at the end.
//!
//! Facts mark what they touch; outputs are made when polled, so a prefix that changes a thousand times
//! between two polls costs one output, and nothing queues but marks, bounded by the tables.

mod bgp;
mod book;
mod fact;
mod groups;
mod hops;
mod kernel;
mod select;
mod statics;
mod update;
mod ways;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnetwork::IpNetwork;

pub use self::fact::{
    Controller, Fact, Install, KernelNextHop, KernelRoute, KernelRouteKind, Link, RouteKey,
    StaticKind, StaticNextHop, Vlan,
};
pub use self::statics::StaticState;
pub use self::update::{
    Action, Leg, Member, Output, OwnRoute, Reach, Source, Told, ToldGroup, ToldRoute, Update,
};

use self::bgp::BgpTable;
use self::book::{Book, Id, Record};
use self::groups::{Groups, Key};
use self::kernel::KernelTable;
use self::select::Choice;
use self::statics::StaticTable;

/// The metric of the speaker's routes in the kernel: RFC 4271. No other daemon's default, so that ours stand beside theirs
/// and never replace them, and worse than theirs, so that the kernel prefers theirs as the FIB does.
pub const BGP_METRIC: u32 = 4271;

/// The resolver.
#[derive(Debug)]
pub struct Fib {
    /// What the speaker has, what the dataplane was told, and what is to be looked at, by prefix.
    book: Book,
    links: BTreeMap<u32, Link>,
    /// MACs by address and link.
    neighbours: BTreeMap<(IpAddr, u32), [u8; 6]>,
    kernel: KernelTable,
    bgp: BgpTable,
    statics: StaticTable,
    vips: BTreeSet<IpAddr>,
    stale: BTreeMap<IpNetwork, KernelRouteKind>,
    groups: Groups,
    /// The kernel looks at more than the destination: groups hand their packets over.
    policy_rules: bool,
    /// What the kernel was told of the speaker's routes, and of the configuration's.
    installed: HashMap<IpNetwork, OwnRoute>,
    fixed: BTreeMap<(IpNetwork, u32), OwnRoute>,
    /// Gateways that `Resolve` went out for.
    asked: BTreeSet<(u32, IpAddr)>,
    /// What one step produced and was not polled yet: a handful.
    queue: VecDeque<Output>,
}

impl Fib {
    /// An empty one, with a secret key of its tables, since neighbours choose the prefixes.
    #[must_use]
    pub fn new(key: [u64; 2]) -> Self {
        Self {
            book: Book::new(key),
            links: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            kernel: KernelTable::default(),
            bgp: BgpTable::default(),
            statics: StaticTable::default(),
            vips: BTreeSet::new(),
            stale: BTreeMap::new(),
            groups: Groups::default(),
            policy_rules: false,
            installed: HashMap::new(),
            fixed: BTreeMap::new(),
            asked: BTreeSet::new(),
            queue: VecDeque::new(),
        }
    }

    /// Takes a fact; what follows from it stands in `poll_output`.
    pub fn handle(&mut self, fact: Fact) {
        match fact {
            Fact::Link(link) => self.link(link.ifindex, Some(link)),
            Fact::LinkGone { ifindex } => self.link(ifindex, None),
            Fact::Neighbour { ifindex, address, mac } => self.neighbour(ifindex, address, mac),
            Fact::KernelRoute(route) => self.kernel_route(route.key, Some(route.kind)),
            Fact::KernelRouteGone(key) => self.kernel_route(key, None),
            Fact::Bgp { prefix, next_hops, install } => {
                self.bgp_paths(normal(prefix), next_hops, install);
            }
            Fact::Leading { prefix, by_level } => self.bgp.set_lower(normal(prefix), by_level),
            Fact::Static { prefix, metric, kind } => {
                let (kernel, links) = (&self.kernel, &self.links);
                let resolve = |kind: &StaticKind| statics::resolve(kernel, links, kind);
                if self.statics.set((normal(prefix), metric), kind, resolve) {
                    self.mark(normal(prefix));
                    self.bgp.touch(range(normal(prefix)));
                }
            }
            Fact::Vip { address, present } => {
                let changed =
                    if present { self.vips.insert(address) } else { self.vips.remove(&address) };
                if changed {
                    self.mark(host(address));
                    self.bgp.touch(address..=address);
                }
            }
            Fact::Stale { prefix, kind } => {
                let prefix = normal(prefix);
                if self.book.find(&prefix).is_none_or(|record| record.bgp.is_none()) {
                    self.stale.entry(prefix).or_insert(kind);
                    self.mark(prefix);
                }
            }
            Fact::PolicyRules { present } => {
                if std::mem::replace(&mut self.policy_rules, present) != present {
                    self.groups.mark_all();
                }
            }
            Fact::StaleOver => {
                for prefix in std::mem::take(&mut self.stale).into_keys() {
                    self.mark(prefix);
                }
            }
        }
    }

    /// The next difference; poll until there is none left.
    ///
    /// Groups come first: a gateway's new MAC does not wait for a million routes.
    pub fn poll_output(&mut self) -> Option<Output> {
        loop {
            if let Some(output) = self.queue.pop_front() {
                return Some(output);
            }
            if self.bgp.is_unsettled() {
                self.settle();
                if self.bgp.is_unsettled() {
                    return Some(Output::Busy);
                }
            } else if let Some(id) = self.groups.pop_dirty() {
                self.refresh_group(id, None);
            } else if let Some((next_hop, reach)) = self.bgp.next_news() {
                return Some(Output::NextHop { next_hop, reach });
            } else if let Some(id) = self.book.pop_marked() {
                self.look_at(id);
                self.book.tidy(id);
            } else {
                return None;
            }
        }
    }

    /// What packets to an address meet, as the dataplane was told.
    pub fn lookup(&self, address: IpAddr) -> Option<Told> {
        let (prefix, group, source) = self.book.lookup(address)?;
        let action = self.groups.action(group)?.clone();
        let in_kernel = self.is_for_kernel(&prefix, source);
        Some(Told { prefix, source, action, in_kernel })
    }

    /// Every route that the dataplane was told, in no particular order.
    pub fn told(&self) -> impl Iterator<Item = ToldRoute> + '_ {
        self.book.told().map(|(prefix, group, source)| {
            let in_kernel = self.is_for_kernel(&prefix, source);
            ToldRoute { prefix, group, source, in_kernel }
        })
    }

    /// Every group that the dataplane was told.
    pub fn groups(&self) -> impl Iterator<Item = ToldGroup> + '_ {
        self.groups.told().map(|(id, key, action)| ToldGroup {
            id,
            action: action.clone(),
            is_apart: key.is_apart(),
        })
    }

    /// What the speaker has of every prefix: next hops in order, and which tables are to have them.
    pub fn learned(&self) -> impl Iterator<Item = (IpNetwork, Arc<[IpAddr]>, Install)> + '_ {
        self.book.all().filter_map(|record| {
            let (set, install) = record.bgp?;
            Some((record.prefix, self.bgp.next_hops(set)?, install))
        })
    }

    /// Works out everything again; differences, which there should be none of, are outputs.
    pub fn look_again(&mut self) {
        self.groups.mark_all();
        self.book.mark_all();
    }

    /// Whether the kernel is to have a route to the prefix as well.
    fn is_for_kernel(&self, prefix: &IpNetwork, source: Source) -> bool {
        match source {
            Source::Kernel | Source::Static => true,
            Source::Neighbour => false,
            // What a previous process left is there.
            Source::Bgp => {
                let usable = self.bgp.usable(self.book.find(prefix).and_then(|record| record.bgp));
                usable.is_none_or(|(_, install)| install != Install::Dataplane)
            }
        }
    }

    /// Link and address of every gateway and connected neighbour that a group forwards to, in order,
    /// from `after` on.
    pub fn neighbours_in_use(
        &self,
        after: Option<(u32, IpAddr)>,
    ) -> impl Iterator<Item = (u32, IpAddr)> + '_ {
        self.groups.needed(after)
    }

    /// How many these are.
    pub fn count_in_use(&self) -> usize {
        self.groups.count_needed()
    }

    fn link(&mut self, ifindex: u32, link: Option<Link>) {
        let before = match link.clone() {
            Some(link) => self.links.insert(ifindex, link),
            None => self.links.remove(&ifindex),
        };
        if before == link {
            return;
        }
        self.groups.mark_all();
        let usable =
            |link: Option<&Link>| link.map(|link| (link.up, link.ethernet, link.name.clone()));
        if usable(before.as_ref()) == usable(link.as_ref()) {
            return;
        }
        self.re_resolve(all_addresses(), true);
        let on_link = self.neighbours.keys().filter(|(_, on)| *on == ifindex);
        let addresses: Vec<_> = on_link.map(|(address, _)| *address).collect();
        for address in addresses {
            self.mark(host(address));
        }
    }

    fn neighbour(&mut self, ifindex: u32, address: IpAddr, mac: Option<[u8; 6]>) {
        let key = (address, ifindex);
        let before = match mac {
            Some(mac) => self.neighbours.insert(key, mac),
            None => self.neighbours.remove(&key),
        };
        if before == mac {
            return;
        }
        self.asked.remove(&(ifindex, address));
        self.groups.mark_needing(ifindex, address);
        if before.is_some() != mac.is_some() {
            self.mark(host(address));
        }
    }

    fn kernel_route(&mut self, key: RouteKey, kind: Option<KernelRouteKind>) {
        let key = RouteKey { prefix: normal(key.prefix), ..key };
        if !self.kernel.set(key, kind) {
            return;
        }
        self.mark(key.prefix);
        if key.local {
            self.mark_inside(key.prefix);
        }
        self.re_resolve(range(key.prefix), false);
    }

    fn bgp_paths(&mut self, prefix: IpNetwork, next_hops: Arc<[IpAddr]>, install: Install) {
        let was_stale = !self.stale.is_empty() && self.stale.remove(&prefix).is_some();
        let Self { bgp, book, .. } = self;
        let id = book.find_or_add(prefix);
        if bgp.set(book, id, (next_hops, install)) || was_stale {
            book.mark_id(id);
        } else {
            book.tidy(id);
        }
    }

    /// Resolves next hops in a range of addresses again, and with `links` those that are links.
    fn re_resolve(&mut self, addresses: RangeInclusive<IpAddr>, links: bool) {
        let resolve = |kind: &StaticKind| statics::resolve(&self.kernel, &self.links, kind);
        let fixed = self.statics.re_resolve(addresses.clone(), links, resolve);
        self.bgp.touch(addresses);
        for prefix in fixed {
            self.mark(prefix);
            self.bgp.touch(range(prefix));
        }
    }

    fn mark(&mut self, prefix: IpNetwork) {
        self.book.mark(prefix);
    }

    /// Marks every longer prefix that something is known of.
    fn mark_inside(&mut self, outer: IpNetwork) {
        self.book.mark_inside(outer);
        let (first, last) = (outer.network(), outer.broadcast());
        let vips = self.vips.range(first..=last).map(|address| host(*address));
        let stale = self.stale.range(inside(outer)).map(|(prefix, _)| *prefix);
        let fixed = self.statics.inside(outer);
        let inside = self.kernel.inside(outer).chain(vips).chain(stale).chain(fixed);
        let inside: Vec<_> = inside.collect();
        inside.into_iter().for_each(|prefix| self.book.mark(prefix));
        self.mark_neighbours(outer);
    }

    /// Neighbours hang on the route that covers them; an address covers itself only.
    fn mark_inside_neighbours(&mut self, outer: IpNetwork) {
        if !is_host(&outer) {
            self.mark_neighbours(outer);
        }
    }

    fn mark_neighbours(&mut self, outer: IpNetwork) {
        let (first, last) = ((outer.network(), 0), (outer.broadcast(), u32::MAX));
        let inside = self.neighbours.range(first..=last).map(|((address, _), _)| host(*address));
        inside.for_each(|address| self.book.mark(address));
    }

    /// Compares what a prefix should be with what the dataplane and the kernel were told.
    fn look_at(&mut self, id: Id) {
        let &Record { prefix, bgp, told: before, .. } = self.book.get(id);
        let choice = self.select(prefix, bgp);
        self.install_learned(prefix, choice.as_ref());
        self.install_fixed(prefix);
        let Some(Choice { source, key, .. }) = choice else {
            if let Some((group, _)) = before {
                self.book.tell(id, None);
                self.update(Update::RouteRemoved { prefix });
                self.release(group);
                self.mark_inside_neighbours(prefix);
            }
            return;
        };
        let (group, new) = self.groups.acquire(key);
        if new {
            self.refresh_group(group, before.map(|(old, _)| old));
        }
        if before == Some((group, source)) {
            self.release(group);
            return;
        }
        self.book.tell(id, Some((group, source)));
        self.update(Update::Route { prefix, group, source });
        if let Some((old, _)) = before {
            self.release(old);
        }
        self.mark_inside_neighbours(prefix);
    }

    /// Tells the kernel's side of a prefix, if it changed: the speaker's paths where they are chosen.
    fn install_learned(&mut self, prefix: IpNetwork, choice: Option<&Choice>) {
        let route = choice.and_then(|choice| choice.learned.clone());
        let before = match &route {
            Some(route) => self.installed.insert(prefix, route.clone()),
            None => self.installed.remove(&prefix),
        };
        if before != route {
            self.queue.push_back(Output::Install { prefix, metric: BGP_METRIC, route });
        }
    }

    /// The same for routes of the configuration: each that can be used, since the kernel chooses by their metrics, too.
    fn install_fixed(&mut self, prefix: IpNetwork) {
        let usable = |(metric, route): (u32, &statics::Entry)| Some((metric, route.own()?));
        let wanted: BTreeMap<u32, OwnRoute> = self.statics.of(&prefix).filter_map(usable).collect();
        let told =
            self.fixed.range((prefix, 0)..=(prefix, u32::MAX)).map(|((_, metric), _)| *metric);
        for metric in told.chain(wanted.keys().copied()).collect::<BTreeSet<_>>() {
            let route = wanted.get(&metric).cloned();
            let before = match &route {
                Some(route) => self.fixed.insert((prefix, metric), route.clone()),
                None => self.fixed.remove(&(prefix, metric)),
            };
            if before != route {
                self.queue.push_back(Output::Install { prefix, metric, route });
            }
        }
    }

    fn release(&mut self, group: u32) {
        if let Some(unneeded) = self.groups.release(group) {
            for neighbour in unneeded {
                self.asked.remove(&neighbour);
            }
            self.update(Update::GroupRemoved { id: group });
        }
    }

    /// Works out again what a group does and says so if it changed; a new one takes the place of another where there is one.
    fn refresh_group(&mut self, id: u32, like: Option<u32>) {
        let Some(key) = self.groups.key(id) else { return };
        let (action, needs) = self.action(&key);
        for (ifindex, address) in &needs {
            let (ifindex, address) = (*ifindex, *address);
            if !self.neighbours.contains_key(&(address, ifindex))
                && self.asked.insert((ifindex, address))
            {
                self.queue.push_back(Output::Resolve { ifindex, address });
            }
        }
        for unneeded in self.groups.set_needs(id, needs) {
            self.asked.remove(&unneeded);
        }
        if self.groups.set_action(id, &action) {
            self.update(Update::Group { id, action, like, is_apart: key.is_apart() });
        }
    }

    fn update(&mut self, update: Update) {
        self.queue.push_back(Output::Update(update));
    }
}

/// Without host bits.
fn normal(network: IpNetwork) -> IpNetwork {
    prefix(network.ip(), network.prefix())
}

fn prefix(address: IpAddr, len: u8) -> IpNetwork {
    let whole = IpNetwork::from(address);
    let network = IpNetwork::new(address, len).unwrap_or(whole);
    IpNetwork::new(network.network(), network.prefix()).unwrap_or(whole)
}

/// Bits of an address.
const fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Whether a prefix is an address.
fn is_host(prefix: &IpNetwork) -> bool {
    prefix.prefix() == bits(prefix.ip())
}

fn all_addresses() -> RangeInclusive<IpAddr> {
    Ipv4Addr::UNSPECIFIED.into()..=Ipv6Addr::from_bits(u128::MAX).into()
}

fn host(address: IpAddr) -> IpNetwork {
    IpNetwork::from(address)
}

fn range(prefix: IpNetwork) -> RangeInclusive<IpAddr> {
    prefix.network()..=prefix.broadcast()
}

/// All that a prefix covers, itself included, as a range of ordered prefixes.
fn inside(outer: IpNetwork) -> RangeInclusive<IpNetwork> {
    outer..=host(outer.broadcast())
}

#[cfg(test)]
mod tests;
