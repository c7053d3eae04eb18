//! The kernel's own answer for a destination: `ip route get fibmatch`.

use std::io;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use lb_routing_proto::fib::{KernelNextHop, KernelRouteKind};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAttribute, RouteFlags};

use super::next_hops::NextHops;
use super::socket::Socket;
use super::{KernelError, decode, encode};

/// What the kernel would do with a packet of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelAnswer {
    /// The route that it found, with its next hops; none of them where the address is its own.
    Route {
        /// The destination.
        prefix: IpNetwork,
        /// Where packets go.
        next_hops: Vec<KernelNextHop>,
    },
    /// It sends nothing there, and why: no route, or one that refuses.
    Refuses(String),
}

/// Asks the kernel for the way to each destination.
///
/// # Errors
///
/// No netlink socket, or no answer.
pub async fn ask(destinations: &[IpAddr]) -> Result<Vec<KernelAnswer>, KernelError> {
    let mut socket = Socket::open(0).map_err(KernelError::Open)?;
    let read_error = |what| move |source| KernelError::Read { what, source };
    let next_hops = socket.next_hops().await.map_err(read_error("next-hop objects"))?;
    let mut answers = Vec::with_capacity(destinations.len());
    for destination in destinations {
        let mut message = encode::all_routes(encode::family(*destination));
        message.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
        message.header.flags = RouteFlags::FibMatch;
        let address = encode::route_address(*destination);
        message.attributes.push(RouteAttribute::Destination(address));
        let answer = socket.ask(RouteNetlinkMessage::GetRoute(message)).await;
        answers.push(read(answer, &next_hops).map_err(read_error("routes"))?);
    }
    Ok(answers)
}

fn read(answer: io::Result<RouteNetlinkMessage>, next_hops: &NextHops) -> io::Result<KernelAnswer> {
    let refused = |why: &str| Ok(KernelAnswer::Refuses(why.to_owned()));
    match answer {
        Ok(RouteNetlinkMessage::NewRoute(message)) => {
            let Some(decode::Route { route, .. }) = decode::any_route(&message, next_hops) else {
                return refused("a route that cannot be read");
            };
            let next_hops = match route.kind {
                KernelRouteKind::Unicast(next_hops) => next_hops,
                KernelRouteKind::Blackhole => return refused("a blackhole route"),
                KernelRouteKind::Reject => return refused("an unreachable or prohibit route"),
                KernelRouteKind::Kernel => Vec::new(),
            };
            Ok(KernelAnswer::Route { prefix: route.key.prefix, next_hops })
        }
        Ok(_) => refused("an answer that cannot be read"),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENETUNREACH) => refused("no route"),
            Some(libc::EHOSTUNREACH) => refused("an unreachable route, or none"),
            Some(libc::EACCES) => refused("a prohibit route"),
            Some(libc::EINVAL) => refused("a blackhole route"),
            _ => Err(error),
        },
    }
}
