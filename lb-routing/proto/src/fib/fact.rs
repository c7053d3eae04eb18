//! What the resolver is told.

use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

/// A fact about the world. Telling one twice changes nothing.
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
    /// The kernel has this route in the main or local table, not installed by us; replaces one of the same key.
    KernelRoute(KernelRoute),
    /// The kernel no longer has it.
    KernelRouteGone(RouteKey),
    /// The speaker's paths for a prefix are these (empty: none).
    Bgp {
        /// The destination.
        prefix: IpNetwork,
        /// Next hops in order, none twice.
        next_hops: Arc<[IpAddr]>,
        /// Which tables are to have them.
        install: Install,
    },
    /// What counts of the speaker's paths for a prefix on the way to next hops, where that is not what they are.
    Leading {
        /// The destination.
        prefix: IpNetwork,
        /// Next hops in order, none twice: by the paths whose next hops are reached without routes of the speaker, then with
        /// one, and so on; beyond the last, the paths as they are.
        by_level: Vec<Arc<[IpAddr]>>,
    },
    /// The configuration has this route, or (`kind: None`) no longer.
    Static {
        /// The destination.
        prefix: IpNetwork,
        /// Its metric, which with the destination makes it unique.
        metric: u32,
        /// What it does.
        kind: Option<StaticKind>,
    },
    /// An address is a VIP, or no longer: packets to it that no service takes are the kernel's.
    Vip {
        /// The address.
        address: IpAddr,
        /// It is one.
        present: bool,
    },
    /// A previous process left this route in the kernel; it forwards until the speaker speaks of the prefix. Of several to
    /// one prefix the first counts: the kernel tells those of lower metrics first.
    Stale {
        /// The destination.
        prefix: IpNetwork,
        /// What it does.
        kind: KernelRouteKind,
    },
    /// What a previous process left no longer counts.
    StaleOver,
    /// Whether the kernel has rules by which forwarded packets may take another table than the main one: then all of them
    /// are its own business.
    PolicyRules {
        /// It has.
        present: bool,
    },
}

/// Which tables have a route of the speaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Install {
    /// The dataplane and the kernel.
    #[default]
    Both,
    /// The dataplane. What it hands over to the kernel, and what this host itself sends, takes the kernel's other routes.
    Dataplane,
    /// The kernel, to which the dataplane hands its packets over.
    Kernel,
}

/// What a route of the configuration does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StaticKind {
    /// Forwards to those of these that can be reached.
    Forward(Vec<StaticNextHop>),
    /// Drops without a word.
    Blackhole,
    /// Drops; the kernel answers with ICMP "host unreachable" (IPv6: "no route").
    Unreachable,
    /// Drops; the kernel answers with ICMP "administratively prohibited".
    Prohibit,
}

/// A next hop of a route of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticNextHop {
    /// To which gateway; `None`: the destinations are on the link.
    pub gateway: Option<IpAddr>,
    /// Out of which link, by name; `None`: the one that the kernel's routes lead to the gateway by.
    pub interface: Option<String>,
    /// Share, 1 to 256.
    pub weight: u16,
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
    /// What it is a port of, if of anything.
    pub controller: Option<Controller>,
    /// The VLAN that it is the interface of, if of one.
    pub vlan: Option<Vlan>,
}

/// The VLAN of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// The index of the interface below.
    pub link: u32,
    /// Its tag is 802.1ad's, not 802.1Q's.
    pub is_service_tag: bool,
    /// Its number.
    pub id: u16,
}

/// What a link is a port of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controller {
    /// Its index.
    pub ifindex: u32,
    /// A VRF: the ports' packets take the routes of its table, not of the main one.
    pub is_vrf: bool,
}

/// A route of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRoute {
    /// Which one.
    pub key: RouteKey,
    /// What it does.
    pub kind: KernelRouteKind,
}

/// What makes a kernel route unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// The destination.
    pub prefix: IpNetwork,
    /// Its metric: the lowest wins.
    pub metric: u32,
    /// Type of service that it is for; zero: all.
    pub tos: u8,
    /// Source addresses that it is for (IPv6 only); `None`: all.
    pub source: Option<IpNetwork>,
    /// From the local table (addresses of this host, broadcast), which the kernel asks first.
    pub local: bool,
}

/// What a kernel route does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelRouteKind {
    /// Forwards; several are multipath.
    Unicast(Vec<KernelNextHop>),
    /// Drops.
    Blackhole,
    /// Drops, and the kernel answers (unreachable, prohibit).
    Reject,
    /// Anything else: the kernel's business (local, broadcast, tunnels, unknown types).
    Kernel,
}

/// A next hop of a kernel route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelNextHop {
    /// Out of which link.
    pub ifindex: u32,
    /// To which gateway; `None`: the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Share, from 1 on.
    pub weight: u16,
    /// Bytes of a packet at most where the route says so (`ip route add ... mtu`), beside the link's MTU.
    pub mtu: Option<u32>,
}
