//! Which of a prefix's routes counts, and what its group does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::bgp::SetId;
use super::statics::Entry;
use super::{
    Action, BGP_METRIC, Fib, Install, KernelNextHop, KernelRouteKind, Key, Link, Member, OwnRoute,
    Source, StaticKind, is_host,
};

/// The route that counts.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) source: Source,
    pub(super) key: Key,
    /// What the kernel is to have of it: only of the speaker's routes, which are chosen or not there.
    pub(super) learned: Option<OwnRoute>,
}

impl Choice {
    fn of(source: Source, key: Key) -> Self {
        Self { source, key, learned: None }
    }
}

impl Fib {
    /// `bgp`: what the speaker has of it.
    pub(super) fn select(
        &self,
        prefix: IpNetwork,
        bgp: Option<(SetId, Install)>,
    ) -> Option<Choice> {
        let kernel = Choice::of(Source::Kernel, Key::Kernel);
        if self.kernel.is_local(&prefix) {
            return Some(kernel);
        }
        let choice = self.candidate(prefix, bgp)?;
        Some(if self.kernel.is_hidden(prefix) { kernel } else { choice })
    }

    fn candidate(&self, prefix: IpNetwork, bgp: Option<(SetId, Install)>) -> Option<Choice> {
        let (foreign, fixed) = (self.kernel.main(&prefix), self.statics.best(&prefix));
        // The kernel refuses ours where another's has its metric.
        let fixed = fixed.filter(|(metric, _)| foreign.is_none_or(|(other, _)| *metric < other));
        match (fixed, foreign) {
            (Some((metric, route)), _) if metric < BGP_METRIC => return Some(of_config(route)),
            // Behind the speaker's.
            (Some(_), _) | (None, None) => {}
            (None, Some((_, kind))) => return Some(Choice::of(Source::Kernel, key(kind))),
        }
        let address = is_host(&prefix).then(|| prefix.network());
        if address.is_some_and(|address| self.vips.contains(&address)) {
            return Some(Choice::of(Source::Kernel, Key::Kernel));
        }
        if let Some((set, install)) = self.bgp.usable(bgp) {
            let is_apart = install == Install::Dataplane;
            let is_handed_over = install == Install::Kernel;
            let key = if is_handed_over { Key::Kernel } else { Key::Bgp { set, is_apart } };
            let in_kernel = (!is_apart).then(|| self.bgp.resolved(set));
            let learned = in_kernel.flatten().map(|hops| OwnRoute::via(&hops));
            return Some(Choice { source: Source::Bgp, key, learned });
        }
        if let Some(kind) = self.stale.get(&prefix) {
            return Some(Choice::of(Source::Bgp, key(kind)));
        }
        if let Some((_, route)) = fixed {
            return Some(of_config(route));
        }
        self.connected_neighbour(address?)
    }

    /// A neighbour counts where the route that covers it leads straight to its link; of several ways to it, the one that takes
    /// the smallest packets, which all of them take.
    fn connected_neighbour(&self, address: IpAddr) -> Option<Choice> {
        let group = self.book.covering(address)?;
        let Some(Key::Hops(hops)) = self.groups.key(group) else { return None };
        let straight = hops.iter().filter(|hop| {
            let link = self.links.get(&hop.ifindex);
            hop.gateway.is_none()
                && self.neighbours.contains_key(&(address, hop.ifindex))
                && link.is_some_and(|link| link.up && link.ethernet)
        });
        let hop = straight.min_by_key(|hop| (hop.ifindex, hop.mtu.unwrap_or(u32::MAX)))?;
        let key = Key::Neighbour { ifindex: hop.ifindex, address, mtu: hop.mtu };
        Some(Choice::of(Source::Neighbour, key))
    }

    /// What a group does, and the neighbours that it forwards to.
    pub(super) fn action(&self, key: &Key) -> (Action, BTreeSet<(u32, IpAddr)>) {
        match key {
            Key::Hops(_) | Key::Bgp { .. } | Key::Neighbour { .. } | Key::Blackhole
                if self.policy_rules =>
            {
                (Action::Kernel, BTreeSet::new())
            }
            Key::Hops(hops) => self.forward(hops),
            Key::Bgp { set, .. } => self.forward(&self.bgp.resolved(*set).unwrap_or_default()),
            Key::Neighbour { ifindex, address, mtu } => self.deliver(*ifindex, *address, *mtu),
            Key::Kernel => (Action::Kernel, BTreeSet::new()),
            Key::Blackhole => (Action::Blackhole, BTreeSet::new()),
        }
    }

    /// To gateways and connected networks. The kernel's business where no link is up, or where one is
    /// no Ethernet: leaving that one out would shift its share to the others.
    fn forward(&self, hops: &[KernelNextHop]) -> (Action, BTreeSet<(u32, IpAddr)>) {
        let mut members = Vec::new();
        let mut needs = BTreeSet::new();
        for hop in hops {
            let Some(link) = self.links.get(&hop.ifindex).filter(|link| link.up) else { continue };
            if !link.ethernet {
                return (Action::Kernel, BTreeSet::new());
            }
            needs.extend(hop.gateway.map(|gateway| (hop.ifindex, gateway)));
            let mac = hop.gateway.and_then(|gateway| self.mac(hop.ifindex, gateway));
            members.push(member(link, mac, hop));
        }
        if members.is_empty() {
            return (Action::Kernel, BTreeSet::new());
        }
        // A gateway that does not answer is left out while another one does: flows move to those that do.
        if members.iter().any(|member| member.destination_mac.is_some()) {
            members.retain(|it| it.destination_mac.is_some() || it.gateway.is_none());
        }
        (Action::Forward(members), needs)
    }

    fn deliver(
        &self,
        ifindex: u32,
        address: IpAddr,
        mtu: Option<u32>,
    ) -> (Action, BTreeSet<(u32, IpAddr)>) {
        let link = self.links.get(&ifindex).filter(|link| link.up && link.ethernet);
        let mac = self.mac(ifindex, address);
        match (link, mac) {
            (Some(link), Some(_)) => {
                let needs = BTreeSet::from([(ifindex, address)]);
                let hop = KernelNextHop { ifindex, gateway: None, weight: 1, mtu };
                (Action::Forward(vec![member(link, mac, &hop)]), needs)
            }
            (_, None) | (None, _) => (Action::Kernel, BTreeSet::new()),
        }
    }

    fn mac(&self, ifindex: u32, address: IpAddr) -> Option<[u8; 6]> {
        self.neighbours.get(&(address, ifindex)).copied()
    }
}

fn member(link: &Link, destination_mac: Option<[u8; 6]>, hop: &KernelNextHop) -> Member {
    let mtu = hop.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
    Member {
        ifindex: link.ifindex,
        source_mac: link.mac,
        destination_mac,
        gateway: hop.gateway,
        mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
        weight: hop.weight,
    }
}

fn of_config(route: &Entry) -> Choice {
    let key = match &route.kind {
        StaticKind::Forward(_) => Key::Hops(Arc::clone(&route.resolved)),
        StaticKind::Blackhole => Key::Blackhole,
        // The kernel answers.
        StaticKind::Unreachable | StaticKind::Prohibit => Key::Kernel,
    };
    Choice::of(Source::Static, key)
}

fn key(kind: &KernelRouteKind) -> Key {
    match kind {
        KernelRouteKind::Unicast(hops) if !hops.is_empty() => {
            Key::Hops(merge(hops.iter().copied()))
        }
        KernelRouteKind::Unicast(_) | KernelRouteKind::Reject | KernelRouteKind::Kernel => {
            Key::Kernel
        }
        KernelRouteKind::Blackhole => Key::Blackhole,
    }
}

/// In order, equal ones as one that has the shares of all; where that is the only one, one share.
pub(super) fn merge(hops: impl Iterator<Item = KernelNextHop>) -> Arc<[KernelNextHop]> {
    let mut shares: BTreeMap<_, u32> = BTreeMap::new();
    for hop in hops {
        let share = shares.entry((hop.ifindex, hop.gateway, hop.mtu)).or_default();
        *share = share.saturating_add(u32::from(hop.weight.max(1)));
    }
    let largest = shares.values().copied().max().unwrap_or(1);
    let most = if shares.len() == 1 { 1 } else { u16::MAX };
    let hop = |((ifindex, gateway, mtu), share)| {
        let weight = scale(share, largest, most);
        KernelNextHop { ifindex, gateway, weight, mtu }
    };
    shares.into_iter().map(hop).collect()
}

/// A share of several so that the largest is `most` at most: in proportion, and never none.
pub(super) fn scale(share: u32, largest: u32, most: u16) -> u16 {
    let (share, largest) = (u64::from(share), u64::from(largest.max(1)));
    let most = u64::from(most);
    let scaled = if largest <= most { share } else { (share * most + largest / 2) / largest };
    u16::try_from(scaled.clamp(1, most)).unwrap_or(u16::MAX)
}
