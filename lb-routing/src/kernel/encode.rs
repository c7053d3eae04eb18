//! From operations to netlink messages.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;
use lb_routing_proto::fib::{KernelNextHop, OwnRoute, RouteKey};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteProtocol,
    RouteScope, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::RTPROT_LBD;
use crate::addresses::{AddressKey, AddressOp};
use crate::plan::{Op, RouteId};

/// A request for every route of a family.
pub(super) fn all_routes(family: AddressFamily) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet }
}

pub(super) fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

/// An operation and its flags. An addition never replaces a route that is there, whoever's.
pub(super) fn op(op: &Op) -> (RouteNetlinkMessage, u16) {
    match op {
        Op::Add(id, route) => {
            (RouteNetlinkMessage::NewRoute(own(*id, route)), NLM_F_CREATE | NLM_F_EXCL)
        }
        Op::Replace(id, route) => {
            (RouteNetlinkMessage::NewRoute(own(*id, route)), NLM_F_CREATE | NLM_F_REPLACE)
        }
        Op::Delete(RouteId { prefix, metric }) => {
            let (prefix, metric) = (*prefix, *metric);
            let key = RouteKey { prefix, metric, tos: 0, source: None, local: false };
            (RouteNetlinkMessage::DelRoute(delete(key)), 0)
        }
    }
}

/// Removes a route of ours: the kernel matches the protocol too, so that no other's is meant.
pub(super) fn delete(key: RouteKey) -> RouteMessage {
    let mut message = route(key.prefix);
    message.header.tos = key.tos;
    if let Some(source) = key.source {
        message.header.source_prefix_length = source.prefix();
        message.attributes.push(RouteAttribute::Source(route_address(source.network())));
    }
    // Of any scope and type.
    message.header.scope = RouteScope::NoWhere;
    message.header.kind = RouteType::Unspec;
    message.attributes.push(RouteAttribute::Priority(key.metric));
    message
}

/// Asks the kernel to find a neighbour, or to check that a known one is still there.
pub(super) fn resolve(ifindex: u32, address: IpAddr) -> (RouteNetlinkMessage, u16) {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = ifindex;
    message.header.state = NeighbourState::None;
    message.header.flags = NeighbourFlags::Use;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    (RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE)
}

/// An address and its flags. An addition never replaces one that is there, whoever's.
pub(super) fn address(op: &AddressOp) -> (RouteNetlinkMessage, u16) {
    match op {
        AddressOp::Add(key, ()) | AddressOp::Replace(key, ()) => {
            (RouteNetlinkMessage::NewAddress(own_address(*key)), NLM_F_CREATE | NLM_F_EXCL)
        }
        AddressOp::Delete(key) => (RouteNetlinkMessage::DelAddress(own_address(*key)), 0),
    }
}

fn own_address((ifindex, address): AddressKey) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.ip());
    message.header.prefix_len = address.prefix();
    message.header.index = ifindex;
    message.attributes.push(AddressAttribute::Local(address.ip()));
    message.attributes.push(AddressAttribute::Address(address.ip()));
    message.attributes.extend(broadcast(address).map(AddressAttribute::Broadcast));
    message.attributes.push(AddressAttribute::Protocol(RTPROT_LBD.into()));
    message
}

/// A network of two addresses or one has no broadcast address (RFC 3021).
fn broadcast(address: IpNetwork) -> Option<Ipv4Addr> {
    match address {
        IpNetwork::V4(network) if network.prefix() <= 30 => Some(network.broadcast()),
        IpNetwork::V4(_) | IpNetwork::V6(_) => None,
    }
}

fn own(RouteId { prefix, metric }: RouteId, own: &OwnRoute) -> RouteMessage {
    let mut message = route(prefix);
    message.attributes.push(RouteAttribute::Priority(metric));
    match own {
        OwnRoute::Blackhole => message.header.kind = RouteType::BlackHole,
        OwnRoute::Unreachable => message.header.kind = RouteType::Unreachable,
        OwnRoute::Prohibit => message.header.kind = RouteType::Prohibit,
        OwnRoute::Via(hops) => {
            message.header.kind = RouteType::Unicast;
            if hops.iter().all(|hop| hop.gateway.is_none()) && prefix.is_ipv4() {
                message.header.scope = RouteScope::Link;
            }
            if let [hop] = &hops[..] {
                message.attributes.extend(gateway(prefix, hop));
                message.attributes.push(RouteAttribute::Oif(hop.ifindex));
            } else {
                let hops = hops.iter().map(|hop| next_hop(prefix, hop)).collect();
                message.attributes.push(RouteAttribute::MultiPath(hops));
            }
        }
    }
    message
}

fn route(prefix: IpNetwork) -> RouteMessage {
    let mut message = all_routes(family(prefix.ip()));
    message.header.destination_prefix_length = prefix.prefix();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(RTPROT_LBD);
    message.header.scope = RouteScope::Universe;
    let destination = route_address(prefix.network());
    message.attributes.push(RouteAttribute::Destination(destination));
    message
}

/// A gateway of another family than the destination is named as such (RFC 8950's next hops).
fn gateway(prefix: IpNetwork, hop: &KernelNextHop) -> Option<RouteAttribute> {
    hop.gateway.map(|gateway| match gateway {
        IpAddr::V6(gateway) if prefix.is_ipv4() => RouteAttribute::Via(RouteVia::Inet6(gateway)),
        IpAddr::V4(_) | IpAddr::V6(_) => RouteAttribute::Gateway(route_address(gateway)),
    })
}

fn next_hop(prefix: IpNetwork, hop: &KernelNextHop) -> RouteNextHop {
    let mut next_hop = RouteNextHop::default();
    next_hop.interface_index = hop.ifindex;
    next_hop.hops = u8::try_from(hop.weight.saturating_sub(1)).unwrap_or(u8::MAX);
    next_hop.attributes.extend(gateway(prefix, hop));
    next_hop
}
