//! From operations to netlink messages.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;
use lb_routing_proto::fib::{KernelNextHop, RouteKey};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteProtocol,
    RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{OWN_METRIC, RTPROT_LBD};
use crate::plan::{Op, OwnRoute};

/// A request for every IPv4 route.
pub(super) fn all_routes() -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message
}

/// An operation and its flags. An addition never replaces a route that is there, whoever's.
pub(super) fn op(op: &Op) -> (RouteNetlinkMessage, u16) {
    match op {
        Op::Add(prefix, route) => {
            (RouteNetlinkMessage::NewRoute(own(*prefix, route)), NLM_F_CREATE | NLM_F_EXCL)
        }
        Op::Replace(prefix, route) => {
            (RouteNetlinkMessage::NewRoute(own(*prefix, route)), NLM_F_CREATE | NLM_F_REPLACE)
        }
        Op::Delete(prefix) => {
            let key = RouteKey { prefix: *prefix, metric: OWN_METRIC, tos: 0, local: false };
            (RouteNetlinkMessage::DelRoute(delete(key)), 0)
        }
    }
}

/// Removes a route of ours: the kernel matches the protocol too, so that no other's is meant.
pub(super) fn delete(key: RouteKey) -> RouteMessage {
    let mut message = route(key.prefix);
    message.header.tos = key.tos;
    // Of any scope and type.
    message.header.scope = RouteScope::NoWhere;
    message.header.kind = RouteType::Unspec;
    message.attributes.push(RouteAttribute::Priority(key.metric));
    message
}

/// Asks the kernel to find a neighbour, or to check that a known one is still there.
pub(super) fn resolve(ifindex: u32, address: Ipv4Addr) -> (RouteNetlinkMessage, u16) {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = ifindex;
    message.header.state = NeighbourState::None;
    message.header.flags = NeighbourFlags::Use;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    (RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE)
}

fn own(prefix: Ipv4Network, own: &OwnRoute) -> RouteMessage {
    let mut message = route(prefix);
    message.attributes.push(RouteAttribute::Priority(OWN_METRIC));
    match own {
        OwnRoute::Unreachable => message.header.kind = RouteType::Unreachable,
        OwnRoute::Via(hops) => {
            message.header.kind = RouteType::Unicast;
            if let [hop] = &hops[..] {
                message.attributes.extend(gateway(hop));
                message.attributes.push(RouteAttribute::Oif(hop.ifindex));
            } else {
                let hops = hops.iter().map(next_hop).collect();
                message.attributes.push(RouteAttribute::MultiPath(hops));
            }
        }
    }
    message
}

fn route(prefix: Ipv4Network) -> RouteMessage {
    let mut message = all_routes();
    message.header.destination_prefix_length = prefix.prefix();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(RTPROT_LBD);
    message.header.scope = RouteScope::Universe;
    let destination = RouteAddress::Inet(prefix.network());
    message.attributes.push(RouteAttribute::Destination(destination));
    message
}

fn gateway(hop: &KernelNextHop) -> Option<RouteAttribute> {
    hop.gateway.map(|gateway| RouteAttribute::Gateway(RouteAddress::Inet(gateway)))
}

fn next_hop(hop: &KernelNextHop) -> RouteNextHop {
    let mut next_hop = RouteNextHop::default();
    next_hop.interface_index = hop.ifindex;
    next_hop.hops = u8::try_from(hop.weight.saturating_sub(1)).unwrap_or(u8::MAX);
    next_hop.attributes.extend(gateway(hop));
    next_hop
}
