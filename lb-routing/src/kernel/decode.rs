//! From netlink messages to facts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use lb_routing_proto::fib::{
    Controller, Fact, KernelNextHop, KernelRoute, KernelRouteKind, Link, OwnRoute, RouteKey, Vlan,
};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoPortKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType,
    LinkMessage, VlanProtocol,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop,
    RouteType, RouteVia,
};

use super::RTPROT_LBD;
use super::next_hops::NextHops;
use crate::addresses::AddressKey;

/// The table that the kernel asks first.
const RT_TABLE_LOCAL: u32 = 255;
const RT_TABLE_MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// A route and whether it is ours.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) route: KernelRoute,
    pub(super) ours: bool,
    /// The next-hop object that it names.
    pub(super) object: Option<u32>,
    /// Bytes of a packet at most, as it says itself.
    pub(super) mtu: Option<u32>,
    table: u32,
    refusal: RouteType,
}

impl Route {
    /// The same as one of ours.
    pub(super) fn own(self) -> OwnRoute {
        match (self.route.kind, self.refusal) {
            (KernelRouteKind::Unicast(mut hops), _) => {
                hops.sort_unstable();
                OwnRoute::Via(hops.into())
            }
            (KernelRouteKind::Blackhole, _) => OwnRoute::Blackhole,
            (KernelRouteKind::Reject, RouteType::Prohibit) => OwnRoute::Prohibit,
            (KernelRouteKind::Reject | KernelRouteKind::Kernel, _) => OwnRoute::Unreachable,
        }
    }
}

/// A link; `None`: a message about a bridge's port, not about the link.
pub(super) fn link(message: &LinkMessage) -> Option<Link> {
    let header = &message.header;
    if header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let mut link = Link {
        ifindex: header.index,
        name: String::new(),
        mac: [0; 6],
        mtu: 0,
        up: header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        // Where the kernel resolves no neighbours, only it knows where frames go.
        ethernet: header.link_layer_type == LinkLayerType::Ether
            && !header.flags.contains(LinkFlags::Noarp),
        controller: None,
        vlan: None,
    };
    let (mut is_vrf, mut is_whole, mut below) = (false, true, None);
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            link.name.clone_from(name);
        } else if let LinkAttribute::Address(address) = attribute {
            link.mac = address.as_slice().try_into().unwrap_or_default();
        } else if let LinkAttribute::Mtu(mtu) = attribute {
            link.mtu = *mtu;
        } else if let LinkAttribute::Controller(ifindex @ 1..) = attribute {
            link.controller = Some(Controller { ifindex: *ifindex, is_vrf: false });
        } else if let LinkAttribute::Link(ifindex @ 1..) = attribute {
            below = Some(*ifindex);
        } else if let LinkAttribute::LinkInfo(infos) = attribute {
            is_vrf = infos.contains(&LinkInfo::PortKind(InfoPortKind::Vrf));
            let is_other =
                |info: &LinkInfo| matches!(info, LinkInfo::PortKind(InfoPortKind::Other(_)));
            is_whole = !infos.iter().any(is_other);
            link.vlan = infos.iter().find_map(vlan);
        }
    }
    // The number of an interface in another namespace may be anything's here.
    let is_here = |attribute: &LinkAttribute| !matches!(attribute, LinkAttribute::LinkNetNsId(_));
    let below = below.filter(|_| message.attributes.iter().all(is_here));
    link.vlan = link.vlan.zip(below).map(|(vlan, link)| Vlan { link, ..vlan });
    // What a port of another kind belongs to (Open vSwitch's, say) has neither its addresses nor its packets.
    let controller = link.controller.filter(|_| is_whole);
    link.controller = controller.map(|controller| Controller { is_vrf, ..controller });
    Some(link)
}

/// What is said of a VLAN, without the interface below it.
fn vlan(info: &LinkInfo) -> Option<Vlan> {
    let LinkInfo::Data(InfoData::Vlan(attributes)) = info else { return None };
    let (mut id, mut protocol) = (None, VlanProtocol::Ieee8021Q);
    for attribute in attributes {
        if let InfoVlan::Id(of) = attribute {
            id = Some(*of);
        } else if let InfoVlan::Protocol(of) = attribute {
            protocol = *of;
        }
    }
    let is_service_tag = protocol == VlanProtocol::Ieee8021Ad;
    Some(Vlan { link: 0, is_service_tag, id: id? })
}

/// An address of an interface, and whether it is ours.
pub(super) fn address(message: &AddressMessage) -> Option<(AddressKey, bool)> {
    let header = &message.header;
    let (mut local, mut address, mut ours) = (None, None, false);
    for attribute in &message.attributes {
        if let AddressAttribute::Local(of) = attribute {
            local = Some(*of);
        } else if let AddressAttribute::Address(of) = attribute {
            // Where an interface leads to one other host: that one's.
            address = Some(*of);
        } else if let AddressAttribute::Protocol(protocol) = attribute {
            ours = u8::from(*protocol) == RTPROT_LBD;
        }
    }
    let network = IpNetwork::new(local.or(address)?, header.prefix_len).ok()?;
    Some(((header.index, network), ours))
}

/// A neighbour: link, address and, where it is resolved, its MAC.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<(u32, IpAddr, Option<[u8; 6]>)> {
    let header = &message.header;
    if !has_family(header.family) || header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        if let NeighbourAttribute::Destination(NeighbourAddress::Inet(destination)) = attribute {
            address = Some((*destination).into());
        } else if let NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) = attribute {
            address = Some((*v6).into());
        } else if let NeighbourAttribute::LinkLayerAddress(bytes) = attribute {
            mac = bytes.as_slice().try_into().ok();
        }
    }
    let resolved = matches!(
        header.state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
    );
    Some((header.ifindex, address?, mac.filter(|_| resolved)))
}

/// A route of the main or local table.
pub(super) fn route(message: &RouteMessage, next_hops: &NextHops) -> Option<Route> {
    let route = any_route(message, next_hops)?;
    (route.table == RT_TABLE_MAIN || route.table == RT_TABLE_LOCAL).then_some(route)
}

/// A route of any table.
#[expect(clippy::wildcard_enum_match_arm, reason = "netlink's enums are open")]
pub(super) fn any_route(message: &RouteMessage, next_hops: &NextHops) -> Option<Route> {
    let header = &message.header;
    if !has_family(header.address_family) || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let is_ipv6 = header.address_family == AddressFamily::Inet6;
    let mut parts = Parts { table: u32::from(header.table), ..Parts::default() };
    for attribute in &message.attributes {
        parts.take(attribute);
    }
    let (table, local) = (parts.table, parts.table == RT_TABLE_LOCAL);
    let any = if is_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let destination = parts.destination.unwrap_or(any);
    let prefix = IpNetwork::new(destination, header.destination_prefix_length);
    let source_len = header.source_prefix_length;
    let source = IpNetwork::new(parts.source.unwrap_or(any), source_len).ok();
    let key = RouteKey {
        prefix: prefix.ok()?,
        metric: parts.metric,
        tos: header.tos,
        source: source.filter(|_| source_len > 0),
        local,
    };
    let (object, mtu) = (parts.object, parts.mtu);
    let kind = match header.kind {
        // Every link has one to fe80::/64. Nobody forwards to it.
        RouteType::Unicast if is_link_local(destination) => KernelRouteKind::Kernel,
        RouteType::Unicast => parts.forwarding(next_hops),
        RouteType::BlackHole => KernelRouteKind::Blackhole,
        RouteType::Unreachable | RouteType::Prohibit => KernelRouteKind::Reject,
        _ => KernelRouteKind::Kernel,
    };
    let ours = u8::from(header.protocol) == RTPROT_LBD && !local;
    Some(Route { route: KernelRoute { key, kind }, ours, object, mtu, table, refusal: header.kind })
}

/// The families that the FIB has.
fn has_family(family: AddressFamily) -> bool {
    family == AddressFamily::Inet || family == AddressFamily::Inet6
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "netlink's enums are open")]
fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn mtu(metric: &RouteMetric) -> Option<u32> {
    if let RouteMetric::Mtu(bytes) = metric { Some(*bytes) } else { None }
}

/// A neighbour as a fact.
pub(super) fn neighbour_fact(ifindex: u32, address: IpAddr, mac: Option<[u8; 6]>) -> Fact {
    Fact::Neighbour { ifindex, address, mac }
}

/// What a route's attributes say.
#[derive(Default)]
struct Parts {
    table: u32,
    destination: Option<IpAddr>,
    source: Option<IpAddr>,
    metric: u32,
    mtu: Option<u32>,
    ifindex: Option<u32>,
    gateway: Option<IpAddr>,
    /// A next-hop object; the kernel may say only that.
    object: Option<u32>,
    /// Tunnels, and whatever else a frame to a MAC cannot say.
    special: bool,
    multipath: Vec<KernelNextHop>,
}

impl Parts {
    #[expect(clippy::wildcard_enum_match_arm, reason = "netlink's enums are open")]
    fn take(&mut self, attribute: &RouteAttribute) {
        match attribute {
            RouteAttribute::Table(table) => self.table = *table,
            RouteAttribute::Destination(destination) => self.destination = ip(destination),
            RouteAttribute::Source(source) => self.source = ip(source),
            RouteAttribute::Priority(metric) => self.metric = *metric,
            RouteAttribute::NhId(id) => self.object = Some(*id),
            RouteAttribute::Metrics(metrics) => self.mtu = metrics.iter().find_map(mtu),
            RouteAttribute::Oif(ifindex) => self.ifindex = Some(*ifindex),
            RouteAttribute::Gateway(gateway) => self.gateway = ip(gateway),
            RouteAttribute::Via(RouteVia::Inet(gateway)) => self.gateway = Some((*gateway).into()),
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => self.gateway = Some((*gateway).into()),
            RouteAttribute::Via(_)
            | RouteAttribute::Encap(_)
            | RouteAttribute::EncapType(_)
            | RouteAttribute::NewDestination(_)
            | RouteAttribute::NewDestinationAddress(_) => self.special = true,
            RouteAttribute::MultiPath(hops) => {
                for hop in hops {
                    self.next_hop(hop);
                }
            }
            _ => {}
        }
    }

    fn next_hop(&mut self, hop: &RouteNextHop) {
        let mut own = Self::default();
        for attribute in &hop.attributes {
            own.take(attribute);
        }
        self.special |= own.special;
        let (ifindex, weight) = (hop.interface_index, u16::from(hop.hops) + 1);
        self.multipath.push(KernelNextHop { ifindex, gateway: own.gateway, weight, mtu: None });
    }

    fn forwarding(self, next_hops: &NextHops) -> KernelRouteKind {
        // What the object says now; what else the message says of next hops is a copy, as of when it was made.
        if let Some(kind) = self.object.and_then(|object| next_hops.kind(object)) {
            return limited(kind, self.mtu);
        }
        let mut hops = self.multipath;
        if hops.is_empty() {
            let gateway = self.gateway;
            let single = |ifindex| KernelNextHop { ifindex, gateway, weight: 1, mtu: None };
            hops.extend(self.ifindex.map(single));
        }
        if self.special || hops.is_empty() {
            return KernelRouteKind::Kernel;
        }
        limited(KernelRouteKind::Unicast(hops), self.mtu)
    }
}

/// The same with what the route says of the largest packet.
pub(super) fn limited(mut kind: KernelRouteKind, mtu: Option<u32>) -> KernelRouteKind {
    if let KernelRouteKind::Unicast(hops) = &mut kind {
        let mtu = mtu.filter(|mtu| *mtu > 0);
        hops.iter_mut().for_each(|hop| hop.mtu = mtu);
    }
    kind
}

#[cfg(test)]
mod tests;
