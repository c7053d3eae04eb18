//! What the resolver answers.

use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use smallvec::SmallVec;

use super::KernelNextHop;
use super::select::scale;

/// Share of a next hop in a route of the kernel's at most.
const MAX_WEIGHT: u16 = 256;

/// What follows from the facts; only differences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// For the dataplane.
    Update(Update),
    /// For the kernel: our route to the prefix with this metric is this one (`None`: there is none).
    Install {
        /// The destination.
        prefix: IpNetwork,
        /// Its metric: [`BGP_METRIC`](super::BGP_METRIC), or that of a route of the configuration.
        metric: u32,
        /// What it does.
        route: Option<OwnRoute>,
    },
    /// For the speaker: a next hop that it watches is farther or nearer.
    NextHop {
        /// Which one.
        next_hop: IpAddr,
        /// How far it is.
        reach: Reach,
    },
    /// A gateway has no MAC: the kernel should look for it.
    Resolve {
        /// On which link.
        ifindex: u32,
        /// Whose address.
        address: IpAddr,
    },
    /// Many next hops were resolved, and there are more: poll again once others had their turn.
    Busy,
}

/// How far a next hop of the speaker's is, by how many of its own routes may lead there one by the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reach {
    /// By none, by one, and so on; the last one holds for more. Empty: it cannot be reached.
    legs: SmallVec<[Leg; 1]>,
}

/// The same for one number of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Leg {
    /// The interior cost (RFC 4271 §9.1.2.2 e); `None`: it cannot be reached.
    pub cost: Option<u32>,
    /// The route of the speaker's that leads there first, if one does. It counts for paths of other prefixes only.
    pub over: Option<IpNetwork>,
}

impl Reach {
    /// The level that counts in the end.
    pub const LAST: usize = usize::MAX;

    /// By levels, from that without routes of the speaker on.
    pub fn new(legs: impl IntoIterator<Item = Leg>) -> Self {
        let mut legs: SmallVec<[Leg; 1]> = legs.into_iter().collect();
        while let [.., before, last] = &legs[..]
            && before == last
        {
            legs.pop();
        }
        Self { legs }
    }

    /// The interior cost in the end; `None`: it cannot be reached.
    #[must_use]
    pub fn cost(&self) -> Option<u32> {
        self.leg(Self::LAST).cost
    }

    /// At one level.
    #[must_use]
    pub fn leg(&self, level: usize) -> Leg {
        self.legs.get(level).or(self.legs.last()).copied().unwrap_or_default()
    }

    /// From this number of levels on nothing changes: one at least.
    #[must_use]
    pub fn levels(&self) -> usize {
        self.legs.len().max(1)
    }

    /// The cost at one level for paths of a prefix: no route leads to a next hop of its own.
    #[must_use]
    pub fn cost_for(&self, level: usize, prefix: Option<&IpNetwork>) -> Option<u32> {
        let leg = self.leg(level);
        let is_itself = prefix.is_some() && leg.over.as_ref() == prefix;
        if is_itself { self.leg(0).cost } else { leg.cost }
    }
}

impl From<Option<u32>> for Reach {
    fn from(cost: Option<u32>) -> Self {
        Self::new([Leg { cost, over: None }])
    }
}

/// A route of ours in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnRoute {
    /// Forwards: gateways on connected networks, or links; sorted, never empty.
    Via(Arc<[KernelNextHop]>),
    /// Drops.
    Blackhole,
    /// Refuses. Stands for a VIP, too.
    Unreachable,
    /// Refuses.
    Prohibit,
}

impl OwnRoute {
    /// By next hops, as the kernel can have and tell them: the one of several has the share 1, the largest of several 256 at
    /// most (`rtnh_hops` is an octet), and the others theirs in proportion.
    pub(super) fn via(hops: &[KernelNextHop]) -> Self {
        let largest = hops.iter().map(|hop| u32::from(hop.weight)).max().unwrap_or(1);
        let most = if hops.len() == 1 { 1 } else { MAX_WEIGHT };
        let share = |hop: &KernelNextHop| scale(hop.weight.into(), largest, most);
        Self::Via(hops.iter().map(|hop| KernelNextHop { weight: share(hop), ..*hop }).collect())
    }
}

/// A route that the dataplane was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The destination.
    pub prefix: IpNetwork,
    /// Whom it comes from.
    pub source: Source,
    /// What its packets meet.
    pub action: Action,
    /// Whether the kernel is to have a route to the prefix as well.
    pub in_kernel: bool,
}

/// The same, by its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToldRoute {
    /// The destination.
    pub prefix: IpNetwork,
    /// The group.
    pub group: u32,
    /// Whom it comes from.
    pub source: Source,
    /// Whether the kernel is to have a route to the prefix as well.
    pub in_kernel: bool,
}

/// A group that the dataplane was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldGroup {
    /// Its name.
    pub id: u32,
    /// What packets to it meet.
    pub action: Action,
    /// The kernel is to have none of its routes.
    pub is_apart: bool,
}

/// A change of the dataplane's FIB. A group is there before a route names it, and until none does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// Creates the group or replaces what it does.
    Group {
        /// Its name; a removed one is used again.
        id: u32,
        /// What packets to it meet.
        action: Action,
        /// The group whose place a new one takes, and which is there still: flows stay where both lead the same way.
        like: Option<u32>,
        /// The kernel is to have none of its routes: where the dataplane has no room for one, its packets are not handed over.
        is_apart: bool,
    },
    /// Removes a group that no route names any more.
    GroupRemoved {
        /// Its name.
        id: u32,
    },
    /// Adds the route or changes it.
    Route {
        /// The destination.
        prefix: IpNetwork,
        /// The group.
        group: u32,
        /// Whom it comes from.
        source: Source,
    },
    /// Removes the route.
    RouteRemoved {
        /// The destination.
        prefix: IpNetwork,
    },
}

/// Whom a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The kernel's tables: addresses, connected networks, static routes, other daemons, VIPs.
    Kernel,
    /// The speaker, of this process or still of the previous one.
    Bgp,
    /// The configuration.
    Static,
    /// A resolved neighbour on a connected network.
    Neighbour,
}

/// What packets to a group meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Forwarded to one of these, never empty.
    Forward(Vec<Member>),
    /// Handed to the kernel.
    Kernel,
    /// Dropped.
    Blackhole,
}

/// A way out: everything that the frame needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Interface to send from.
    pub ifindex: u32,
    /// Its MAC.
    pub source_mac: [u8; 6],
    /// The next hop's MAC; `None` while it is unresolved.
    pub destination_mac: Option<[u8; 6]>,
    /// The next hop's address; `None` where the destination itself is the neighbour.
    pub gateway: Option<IpAddr>,
    /// MTU of the interface, bytes of IP packet.
    pub mtu: u16,
    /// Share relative to the other members, from 1 on.
    pub weight: u16,
}
