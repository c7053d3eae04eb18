//! What the dataplane's FIB should hold, from the kernel's links, addresses, routes and neighbours and the speaker's best paths.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::Ipv4Network;

/// A fact about the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A link is there or changed.
    Link(Link),
    /// A link is gone.
    LinkGone {
        /// Its index.
        ifindex: u32,
    },
    /// A neighbour is resolved, or (`mac: None`) no longer.
    Neighbour {
        /// On which link.
        ifindex: u32,
        /// Whose address.
        address: IpAddr,
        /// Its MAC.
        mac: Option<[u8; 6]>,
    },
    /// The kernel has this route in the main or local table; replaces one of the same prefix and metric.
    KernelRoute(KernelRoute),
    /// The kernel no longer has it.
    KernelRouteGone {
        /// The destination.
        prefix: Ipv4Network,
        /// Its metric.
        metric: u32,
        /// From the local table.
        local: bool,
    },
    /// The speaker's paths for a prefix are these (empty: none).
    Bgp {
        /// The destination.
        prefix: Ipv4Network,
        /// Next hops, resolved against the kernel's routes.
        next_hops: Vec<Ipv4Addr>,
    },
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its MAC; zeroes where it has none.
    pub mac: [u8; 6],
    /// Its MTU.
    pub mtu: u32,
    /// Up, with carrier.
    pub up: bool,
    /// Ethernet: frames can be sent from it by MAC.
    pub ethernet: bool,
}

/// A route of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRoute {
    /// The destination.
    pub prefix: Ipv4Network,
    /// Its metric: the lowest wins.
    pub metric: u32,
    /// From the local table (addresses of this host, broadcast).
    pub local: bool,
    /// What it does.
    pub kind: KernelRouteKind,
}

/// What a kernel route does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelRouteKind {
    /// Forwards; several are multipath.
    Unicast(Vec<KernelNextHop>),
    /// Drops.
    Blackhole,
    /// Anything else: the kernel answers (local, broadcast, unreachable, prohibit, unknown types).
    Kernel,
}

/// A next hop of a kernel route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelNextHop {
    /// Out of which link.
    pub ifindex: u32,
    /// To which gateway; `None`: the destination is on the link.
    pub gateway: Option<Ipv4Addr>,
    /// Share, 1 to 256.
    pub weight: u16,
}
