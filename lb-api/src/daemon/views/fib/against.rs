//! The eBPF FIB against the kernel's own tables, both ways.
//!
//! What may differ: a next hop that is left out since its link is down or it has no MAC; routes that are for the dataplane
//! alone, and neighbours, which the kernel has no route to; packets that are handed over to the kernel for a reason.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use lb_dataplane::fib::{Action, Member};
use lb_routing::{KernelNextHop, KernelRouteKind, Link, Neighbours, Source, ToldRoute};

use super::{Names, way};

/// What is held against each other.
pub(super) struct Sides {
    /// What the kernel does with packets to each prefix.
    pub(super) kernel: BTreeMap<IpNetwork, KernelRouteKind>,
    /// What the router told.
    pub(super) told: HashMap<IpNetwork, ToldRoute>,
    /// What eBPF has: each prefix's group, and what that does.
    pub(super) table: HashMap<IpNetwork, u32>,
    pub(super) actions: HashMap<u32, Action>,
    pub(super) world: World,
}

/// Why a next hop of the kernel's may be left out.
pub(super) struct World {
    pub(super) links: Vec<Link>,
    pub(super) neighbours: Neighbours,
    /// The kernel looks at more than destinations, so it gets every packet.
    pub(super) policy_rules: bool,
    pub(super) names: Names,
}

impl Sides {
    /// One sentence per prefix that differs. Routes that the router told and eBPF lacks are somebody else's finding.
    pub(super) fn differences(&self) -> BTreeMap<IpNetwork, String> {
        let mut found = BTreeMap::new();
        for (prefix, kind) in &self.kernel {
            let told = self.told.get(prefix);
            let why = match (self.action(prefix), told) {
                (None, Some(_)) => None,
                (None, None) => Some("the kernel has it, the router does not".to_owned()),
                (Some(_), Some(told)) if is_for_dataplane_alone(told) => None,
                (Some(action), _) => self.world.differs(kind, action, told),
            };
            found.extend(why.map(|why| (*prefix, format!("{prefix}: {why}"))));
        }
        for (prefix, told) in &self.told {
            let why = match self.action(prefix) {
                Some(Action::Forward(members)) if told.source == Source::Neighbour => {
                    self.world.wrong_neighbour(prefix.network(), members)
                }
                _ if told.in_kernel && !self.kernel.contains_key(prefix) => {
                    Some("router and eBPF have it, the kernel does not".to_owned())
                }
                _ => None,
            };
            found.extend(why.map(|why| (*prefix, format!("{prefix}: {why}"))));
        }
        found
    }

    fn action(&self, prefix: &IpNetwork) -> Option<&Action> {
        self.actions.get(self.table.get(prefix)?)
    }
}

/// The kernel may have another route to the same prefix, of a static one that comes after it.
fn is_for_dataplane_alone(told: &ToldRoute) -> bool {
    told.source == Source::Bgp && !told.in_kernel
}

impl World {
    /// Where the kernel would send packets of a route elsewhere.
    pub(super) fn differs(
        &self,
        kind: &KernelRouteKind,
        action: &Action,
        told: Option<&ToldRoute>,
    ) -> Option<String> {
        let hops = match (kind, action) {
            (KernelRouteKind::Unicast(hops), _) => hops,
            (KernelRouteKind::Kernel | KernelRouteKind::Blackhole, Action::Kernel)
            | (KernelRouteKind::Blackhole, Action::Blackhole) => return None,
            (KernelRouteKind::Kernel, _) => {
                let ours = self.ways(action);
                return Some(format!("eBPF sends packets {ours}, the kernel takes them itself"));
            }
            (KernelRouteKind::Blackhole, Action::Forward(_)) => {
                let ours = self.ways(action);
                return Some(format!("eBPF sends packets {ours}, the kernel drops them"));
            }
        };
        let differs = match action {
            Action::Kernel => {
                let by_wish = told.is_some_and(|told| told.source == Source::Bgp);
                !by_wish && !self.policy_rules && self.can_forward(hops)
            }
            Action::Blackhole => true,
            Action::Forward(members) => !self.is_same(members, hops),
        };
        let (ours, theirs) = (self.ways(action), self.list(hops.iter().map(way_of)));
        differs.then(|| format!("eBPF sends packets {ours}, the kernel {theirs}"))
    }

    /// Whether the members are the next hops, but for those that cannot be used.
    fn is_same(&self, members: &[Member], hops: &[KernelNextHop]) -> bool {
        let ours: BTreeSet<_> = members.iter().map(|m| (m.ifindex, m.gateway)).collect();
        let theirs: BTreeSet<_> = hops.iter().map(way_of).collect();
        let has_mac = |member: &Member| match (member.gateway, member.destination_mac) {
            (Some(gateway), Some(mac)) => {
                self.neighbours.get(&(member.ifindex, gateway)).is_none_or(|known| *known == mac)
            }
            (_, _) => true,
        };
        ours.is_subset(&theirs)
            && theirs.difference(&ours).all(|(ifindex, gateway)| self.is_out(*ifindex, *gateway))
            && members.iter().all(has_mac)
    }

    /// Whether a next hop is left out while another one can be used.
    fn is_out(&self, ifindex: u32, gateway: Option<IpAddr>) -> bool {
        let unresolved =
            gateway.is_some_and(|gateway| !self.neighbours.contains_key(&(ifindex, gateway)));
        unresolved || !self.link(ifindex).is_some_and(|link| link.up)
    }

    /// Whether eBPF can send by these next hops: one is up, and all that are, are Ethernet.
    fn can_forward(&self, hops: &[KernelNextHop]) -> bool {
        let up = hops.iter().filter_map(|hop| self.link(hop.ifindex)).filter(|link| link.up);
        let mut up = up.map(|link| link.ethernet).peekable();
        up.peek().is_some() && up.all(|ethernet| ethernet)
    }

    fn wrong_neighbour(&self, address: IpAddr, members: &[Member]) -> Option<String> {
        let [member] = members else { return Some("a neighbour with several ways".to_owned()) };
        let known = self.neighbours.get(&(member.ifindex, address));
        (known != member.destination_mac.as_ref()).then(|| {
            format!(
                "eBPF sends packets to {}, the kernel to {}",
                member.destination_mac.map_or("nobody".into(), super::super::mac),
                known.copied().map_or("nobody".into(), super::super::mac)
            )
        })
    }

    fn link(&self, ifindex: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.ifindex == ifindex)
    }

    fn ways(&self, action: &Action) -> String {
        match action {
            Action::Kernel => "to the kernel".to_owned(),
            Action::Blackhole => "nowhere".to_owned(),
            Action::Forward(members) => {
                let way = |m: &Member| {
                    let way = way(m.ifindex, m.gateway, &self.names);
                    let mac = m.destination_mac.filter(|_| m.gateway.is_some());
                    mac.map_or(way.clone(), |mac| format!("{way} mac {}", super::super::mac(mac)))
                };
                members.iter().map(way).collect::<Vec<_>>().join(", ")
            }
        }
    }

    fn list(&self, ways: impl Iterator<Item = (u32, Option<IpAddr>)>) -> String {
        let ways: Vec<_> = ways.map(|(link, via)| way(link, via, &self.names)).collect();
        if ways.is_empty() { "nowhere".to_owned() } else { ways.join(", ") }
    }
}

fn way_of(hop: &KernelNextHop) -> (u32, Option<IpAddr>) {
    (hop.ifindex, hop.gateway)
}

#[cfg(test)]
mod tests;
