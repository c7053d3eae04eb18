//! What the kernel has, read as a whole for whoever holds something else against it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use lb_routing_proto::fib::{KernelRoute, KernelRouteKind};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::next_hops::Wire;
use super::socket::Socket;
use super::{KernelError, decode, encode};

/// MACs of resolved neighbours, by link and address.
pub type Neighbours = HashMap<(u32, IpAddr), [u8; 6]>;

const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// Reads the main and the local table, others' routes and ours: what the kernel does with packets to each prefix that no
/// longer one covers. Where that depends on more than the destination, or a local address covers the prefix, it is
/// [`KernelRouteKind::Kernel`].
///
/// # Errors
///
/// No netlink socket, or no answer.
pub async fn routes() -> Result<BTreeMap<IpNetwork, KernelRouteKind>, KernelError> {
    let mut socket = Socket::open(0).map_err(KernelError::Open)?;
    let error = |source| KernelError::Read { what: "routes", source };
    let next_hops = socket.next_hops().await.map_err(error)?;
    let mut all = Vec::new();
    for family in FAMILIES {
        let mut table = Vec::new();
        let request = RouteNetlinkMessage::GetRoute(encode::all_routes(family));
        socket.begin_dump(request).await.map_err(error)?;
        let mut attempts_left = socket.dump_attempts_left();
        while let Some(messages) = socket.next_of_dump().await.map_err(error)? {
            if attempts_left != socket.dump_attempts_left() {
                // It changed meanwhile, and is read again.
                attempts_left = socket.dump_attempts_left();
                table.clear();
            }
            for message in messages {
                if let Wire::Known(RouteNetlinkMessage::NewRoute(route)) = message {
                    table.extend(decode::route(&route, &next_hops).map(|found| found.route));
                }
            }
        }
        all.append(&mut table);
    }
    Ok(effective(all))
}

/// Reads who is resolved.
///
/// # Errors
///
/// No netlink socket, or no answer.
pub async fn neighbours() -> Result<Neighbours, KernelError> {
    let mut socket = Socket::open(0).map_err(KernelError::Open)?;
    let mut all = Neighbours::new();
    for family in FAMILIES {
        let mut request = NeighbourMessage::default();
        request.header.family = family;
        let table = socket.table(RouteNetlinkMessage::GetNeighbour(request)).await;
        for message in table.map_err(|source| KernelError::Read { what: "neighbours", source })? {
            if let RouteNetlinkMessage::NewNeighbour(neighbour) = message
                && let Some((ifindex, address, Some(mac))) = decode::neighbour(&neighbour)
            {
                all.insert((ifindex, address), mac);
            }
        }
    }
    Ok(all)
}

/// What counts of routes in the order in which the kernel tells them.
fn effective(routes: Vec<KernelRoute>) -> BTreeMap<IpNetwork, KernelRouteKind> {
    let local: BTreeSet<_> =
        routes.iter().filter(|route| route.key.local).map(|route| route.key.prefix).collect();
    let mut found: BTreeMap<IpNetwork, (u32, KernelRouteKind)> = BTreeMap::new();
    let mut kernels: BTreeSet<_> = local.clone();
    for KernelRoute { key, kind } in routes.into_iter().filter(|route| !route.key.local) {
        if key.tos != 0 || key.source.is_some() {
            kernels.insert(key.prefix);
        }
        let best = found.get(&key.prefix).map(|(metric, _)| *metric);
        if best.is_none_or(|best| key.metric < best) {
            found.insert(key.prefix, (key.metric, kind));
        } else if best == Some(key.metric) && key.prefix.is_ipv6() {
            found.insert(key.prefix, (key.metric, KernelRouteKind::Kernel));
        }
    }
    let lengths: BTreeSet<_> = local.iter().map(|prefix| prefix.prefix()).collect();
    let is_hidden = |prefix: &IpNetwork| {
        let mut shorter = lengths.range(..=prefix.prefix());
        shorter.any(|len| {
            IpNetwork::new(prefix.network(), *len)
                .and_then(|outer| IpNetwork::new(outer.network(), *len))
                .is_ok_and(|outer| local.contains(&outer))
        })
    };
    kernels.extend(found.keys().filter(|prefix| is_hidden(prefix)));
    let mut all: BTreeMap<_, _> =
        found.into_iter().map(|(prefix, (_, kind))| (prefix, kind)).collect();
    all.extend(kernels.into_iter().map(|prefix| (prefix, KernelRouteKind::Kernel)));
    all
}

#[cfg(test)]
mod tests {
    use lb_routing_proto::fib::RouteKey;

    use super::*;

    #[test]
    fn what_counts_of_a_prefix_is_what_the_kernel_does_with_its_packets() {
        let key = |prefix: &str| RouteKey {
            prefix: prefix.parse().unwrap(),
            metric: 0,
            tos: 0,
            source: None,
            local: false,
        };
        let drops = |key| KernelRoute { key, kind: KernelRouteKind::Blackhole };
        let refuses = |key| KernelRoute { key, kind: KernelRouteKind::Kernel };
        let of = |routes: &[KernelRoute], prefix: &str| {
            effective(routes.to_vec()).get(&prefix.parse::<IpNetwork>().unwrap()).cloned()
        };
        let (v4, v6) = (key("10.1.0.0/16"), key("2001:db8::/32"));
        let blackhole = Some(KernelRouteKind::Blackhole);
        let kernel = Some(KernelRouteKind::Kernel);
        let worse = RouteKey { metric: 9, ..v4 };
        assert_eq!(of(&[refuses(worse), drops(v4)], "10.1.0.0/16"), blackhole);
        assert_eq!(of(&[drops(v4), refuses(v4)], "10.1.0.0/16"), blackhole, "the first counts");
        assert_eq!(of(&[drops(v6), drops(v6)], "2001:db8::/32"), kernel, "they take turns");
        let by_tos = RouteKey { tos: 16, metric: 9, ..v4 };
        assert_eq!(of(&[drops(v4), drops(by_tos)], "10.1.0.0/16"), kernel);
        let by_source = RouteKey { source: Some(v6.prefix), metric: 9, ..v6 };
        assert_eq!(of(&[drops(v6), drops(by_source)], "2001:db8::/32"), kernel);
        let local = RouteKey { local: true, ..key("10.0.0.0/8") };
        let hidden = [drops(v4), refuses(local)];
        assert_eq!(of(&hidden, "10.1.0.0/16"), kernel);
        assert_eq!(of(&hidden, "10.0.0.0/8"), kernel);
        assert_eq!(of(&hidden, "10.2.0.0/16"), None);
    }
}
