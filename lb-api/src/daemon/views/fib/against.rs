//! Speaker, router, eBPF FIB and the kernel's own tables against each other: the router against what the speaker selected, eBPF
//! against what the router told, and eBPF against the kernel, both ways.
//!
//! What may differ: a next hop that is left out since its link is down or it has no MAC; routes that are for the dataplane
//! alone, and neighbours, which the kernel has no route to; packets that are handed over to the kernel for a reason.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use lb_dataplane::fib::{Action, Member};
use lb_routing::{KernelNextHop, KernelRouteKind, Link, Neighbours, Source, Stray, ToldRoute};

use super::{Names, way};

/// What is held against each other.
pub(super) struct Sides {
    /// Where the router has something else than the speaker selected.
    pub(super) strays: Vec<Stray>,
    /// What the kernel does with packets to each prefix.
    pub(super) kernel: BTreeMap<IpNetwork, KernelRouteKind>,
    /// What the router told.
    pub(super) told: HashMap<IpNetwork, ToldRoute>,
    /// What its groups do.
    pub(super) groups: HashMap<u32, lb_routing::Action>,
    /// What eBPF has: each prefix's group, and what that does.
    pub(super) table: HashMap<IpNetwork, u32>,
    pub(super) actions: HashMap<u32, Action>,
    /// How many routes and groups it has no room for.
    pub(super) left_out: usize,
    pub(super) world: World,
}

/// What differs: one sentence a prefix.
#[derive(Debug, Default)]
pub(super) struct Differences {
    /// Router and speaker.
    pub(super) selected: BTreeMap<IpNetwork, String>,
    /// eBPF and router.
    pub(super) told: BTreeMap<IpNetwork, String>,
    /// eBPF and kernel.
    pub(super) kernel: BTreeMap<IpNetwork, String>,
}

impl Differences {
    pub(super) fn is_empty(&self) -> bool {
        self.selected.is_empty() && self.told.is_empty() && self.kernel.is_empty()
    }

    /// Leaves those that differed before, too.
    pub(super) fn retain(&mut self, before: &Self) {
        self.selected.retain(|prefix, _| before.selected.contains_key(prefix));
        self.told.retain(|prefix, _| before.told.contains_key(prefix));
        self.kernel.retain(|prefix, _| before.kernel.contains_key(prefix));
    }
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
    pub(super) fn differences(&self) -> Differences {
        Differences {
            selected: self.not_as_selected(),
            told: self.not_as_told(),
            kernel: self.not_as_kernel(),
        }
    }

    fn not_as_selected(&self) -> BTreeMap<IpNetwork, String> {
        let list = |hops: &[IpAddr]| match hops {
            [] => "nothing".to_owned(),
            hops => hops.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", "),
        };
        let sentence = |Stray { prefix, selected, has }: &Stray| {
            let (selected, has) = (list(selected), list(has));
            (*prefix, format!("{prefix}: BGP selected {selected}, the router has {has}"))
        };
        self.strays.iter().map(sentence).collect()
    }

    /// Routes that the router told and eBPF lacks or has under another group, those that it has beyond, and groups that do
    /// something else: each by a route that names it.
    fn not_as_told(&self) -> BTreeMap<IpNetwork, String> {
        let mut found = BTreeMap::new();
        let mut wrong = BTreeSet::new();
        for (id, told) in &self.groups {
            // What there is no room for is somebody else's finding.
            let is = self.actions.get(id).filter(|is| {
                !is_as_told(is, told)
                    && (self.left_out == 0 || !matches!(is, Action::Kernel | Action::NoRoom))
            });
            wrong.extend(is.map(|_| *id));
        }
        for ToldRoute { prefix, group, .. } in self.told.values() {
            let why = match self.table.get(prefix) {
                None => "the router told it, eBPF refused it or has yet to take it".to_owned(),
                Some(has) if has != group => "eBPF has yet to take its new next hops".to_owned(),
                Some(_) if wrong.remove(group) => {
                    let ours = self.actions.get(group).map(|action| self.world.ways(action));
                    let ours = ours.unwrap_or_default();
                    format!("eBPF sends its group's packets {ours}, the router told otherwise")
                }
                Some(_) => continue,
            };
            found.insert(*prefix, format!("{prefix}: {why}"));
        }
        for prefix in self.table.keys().filter(|prefix| !self.told.contains_key(*prefix)) {
            found.insert(*prefix, format!("{prefix}: eBPF has it, the router does not"));
        }
        found
    }

    /// Routes that the router told and eBPF lacks are somebody else's finding.
    fn not_as_kernel(&self) -> BTreeMap<IpNetwork, String> {
        let mut found = BTreeMap::new();
        for (prefix, kind) in &self.kernel {
            let told = self.told.get(prefix);
            let why = match (self.action(prefix), told) {
                (None, Some(_)) => None,
                (None, None) => Some("the kernel has it, the router does not".to_owned()),
                (Some(_), Some(told)) if is_for_dataplane_alone(told) => None,
                (Some(action), _) => self.world.differs(kind, action, self.is_handed_over(told)),
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

    /// Whether a route of the speaker is the kernel's by the router's own word: it is for the kernel only.
    fn is_handed_over(&self, told: Option<&ToldRoute>) -> bool {
        told.is_some_and(|told| {
            told.source == Source::Bgp
                && self.groups.get(&told.group) == Some(&lb_routing::Action::Kernel)
        })
    }

    fn action(&self, prefix: &IpNetwork) -> Option<&Action> {
        self.actions.get(self.table.get(prefix)?)
    }
}

/// Whether a group does what the router told. Shares are the buckets' business.
pub(super) fn is_as_told(is: &Action, told: &lb_routing::Action) -> bool {
    let ours = |m: &Member| (m.ifindex, m.gateway, m.source_mac, m.destination_mac, m.mtu);
    let theirs =
        |m: &lb_routing::Member| (m.ifindex, m.gateway, m.source_mac, m.destination_mac, m.mtu);
    match (is, told) {
        (Action::Forward(is), lb_routing::Action::Forward(told)) => {
            let is: BTreeSet<_> = is.iter().map(ours).collect();
            is == told.iter().map(theirs).collect()
        }
        (Action::Kernel, lb_routing::Action::Kernel)
        | (Action::Blackhole, lb_routing::Action::Blackhole) => true,
        (Action::Forward(_) | Action::Kernel | Action::Blackhole | Action::NoRoom, _) => false,
    }
}

/// The kernel may have another route to the same prefix, of a static one that comes after it.
fn is_for_dataplane_alone(told: &ToldRoute) -> bool {
    told.source == Source::Bgp && !told.in_kernel
}

impl World {
    /// Where the kernel would send packets of a route elsewhere. `is_handed_over`: it is to have them.
    pub(super) fn differs(
        &self,
        kind: &KernelRouteKind,
        action: &Action,
        is_handed_over: bool,
    ) -> Option<String> {
        let hops = match (kind, action) {
            // Somebody else's finding.
            (_, Action::NoRoom) => return None,
            (KernelRouteKind::Unicast(hops), _) => hops,
            (
                KernelRouteKind::Kernel | KernelRouteKind::Reject | KernelRouteKind::Blackhole,
                Action::Kernel,
            )
            | (KernelRouteKind::Blackhole, Action::Blackhole) => return None,
            (KernelRouteKind::Kernel, _) => {
                let ours = self.ways(action);
                return Some(format!("eBPF sends packets {ours}, the kernel takes them itself"));
            }
            (KernelRouteKind::Reject, _) => {
                let ours = self.ways(action);
                return Some(format!("eBPF sends packets {ours}, the kernel refuses them"));
            }
            (KernelRouteKind::Blackhole, Action::Forward(_)) => {
                let ours = self.ways(action);
                return Some(format!("eBPF sends packets {ours}, the kernel drops them"));
            }
        };
        let differs = match action {
            Action::Kernel => !is_handed_over && !self.policy_rules && self.can_forward(hops),
            Action::Blackhole | Action::NoRoom => true,
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
            Action::Blackhole | Action::NoRoom => "nowhere".to_owned(),
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
