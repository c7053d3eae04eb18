//! Static routes and addresses of interfaces: read, looked at beside one another, and as the router takes them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use lb_api_types::resource::Condition;
use lb_api_types::route::{
    Address, AddressSpec, DEFAULT_METRIC, NextHop, RouteKind, RouteStatus, StaticRoute,
    StaticRouteSpec,
};
use lb_routing::{
    AddressState, InterfaceAddress, OWN_METRIC, Source, StaticKind, StaticNextHop,
    StaticRouteStatus, Statics, StaticsStatus,
};

use super::{Key, Kind, Misfit, Resource, Resources, read_metadata};
use crate::read::{Cursor, Object};
use crate::vip::unfit;

/// Next hops of a route at most: what a group of the eBPF FIB holds.
const MAX_NEXT_HOPS: usize = 256;
/// `IFNAMSIZ` without its closing zero.
const MAX_INTERFACE_NAME: usize = 15;

pub(super) fn read_route(cursor: &Cursor<'_>) -> Option<StaticRoute> {
    let route = cursor.object(&["metadata", "spec", "status"])?;
    let metadata = route.required("metadata").and_then(|metadata| read_metadata(&metadata));
    let spec = route.required("spec").and_then(|spec| read_route_spec(&spec));
    Some(StaticRoute { metadata: metadata?, spec: spec?, status: None })
}

fn read_route_spec(cursor: &Cursor<'_>) -> Option<StaticRouteSpec> {
    const KINDS: [(&str, RouteKind); 4] = [
        ("unicast", RouteKind::Unicast),
        ("blackhole", RouteKind::Blackhole),
        ("unreachable", RouteKind::Unreachable),
        ("prohibit", RouteKind::Prohibit),
    ];
    let spec = cursor.object(&["prefix", "kind", "next_hops", "metric"])?;
    let prefix = spec.required("prefix").and_then(|prefix| read_prefix(&prefix));
    let kind = spec.field("kind").map_or(Some(RouteKind::Unicast), |kind| kind.one_of(&KINDS));
    let metric = spec.field("metric").map_or(Some(DEFAULT_METRIC), |metric| {
        match metric.number(1..=u32::MAX)? {
            OWN_METRIC => metric.wrong(format!(
                "is {OWN_METRIC}, which routes of BGP have: a lower one goes before them, a higher one behind"
            )),
            metric => Some(metric),
        }
    });
    let next_hops = read_next_hops(&spec, kind?, prefix?)?;
    Some(StaticRouteSpec { prefix: prefix?, kind: kind?, next_hops, metric: metric? })
}

fn read_prefix(cursor: &Cursor<'_>) -> Option<IpNetwork> {
    let prefix = cursor.prefix()?;
    // All of it is the default route.
    match unfit(prefix.ip()).filter(|_| prefix.prefix() > 0) {
        Some(what) => cursor.wrong(format!("is {prefix}, {what}: packets for it are not routed")),
        None => Some(prefix),
    }
}

fn read_next_hops(spec: &Object<'_>, kind: RouteKind, prefix: IpNetwork) -> Option<Vec<NextHop>> {
    let Some(list) = spec.field("next_hops") else {
        return match kind {
            RouteKind::Unicast => spec.missing(
                "next_hops",
                "say where packets go, such as [{ address: 192.0.2.1 }], or another kind",
            ),
            RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit => Some(Vec::new()),
        };
    };
    let mut all = true;
    let hops = list.list(|cursor| {
        let hop = read_next_hop(cursor, prefix);
        all &= hop.is_some();
        hop
    })?;
    match (hops.len(), kind) {
        _ if !all => None,
        (1..=MAX_NEXT_HOPS, RouteKind::Unicast) | (0, RouteKind::Blackhole) => Some(hops),
        (0, RouteKind::Unreachable | RouteKind::Prohibit) => Some(hops),
        (0, RouteKind::Unicast) => list.wrong("is empty, but packets have to go somewhere"),
        (many, RouteKind::Unicast) => {
            list.wrong(format!("lists {many} next hops, but {MAX_NEXT_HOPS} are the most"))
        }
        (_, RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit) => {
            list.wrong("says where packets go, but this kind of route drops them: leave it out")
        }
    }
}

fn read_next_hop(cursor: &Cursor<'_>, prefix: IpNetwork) -> Option<NextHop> {
    let hop = cursor.object(&["address", "interface", "weight"])?;
    let interface = hop.field("interface").map(|name| read_interface(&name));
    let weight = hop.field("weight").map_or(Some(1), |weight| weight.number(1..=256));
    let address = hop.field("address").map(|at| read_gateway(&at, prefix, interface.is_some()));
    if address.is_none() && interface.is_none() {
        return cursor.wrong("names neither an address nor an interface: say one of the two");
    }
    let (address, interface) = (lifted(address)?, lifted(interface)?);
    Some(NextHop { address, interface, weight: weight? })
}

/// What was said and could not be read is no absence.
fn lifted<T>(said: Option<Option<T>>) -> Option<Option<T>> {
    match said {
        None => Some(None),
        Some(read) => read.map(Some),
    }
}

fn read_gateway(cursor: &Cursor<'_>, prefix: IpNetwork, on_interface: bool) -> Option<IpAddr> {
    let address = cursor.address()?;
    let is_link_local = matches!(address, IpAddr::V6(six) if six.is_unicast_link_local());
    if is_link_local && !on_interface {
        return cursor
            .wrong(format!("is {address}, which every interface may lead to: name the interface"));
    }
    if let Some(what) = unfit(address).filter(|_| !is_link_local) {
        return cursor.wrong(format!("is {address}, {what}: no next hop has it"));
    }
    if address.is_ipv4() && prefix.is_ipv6() {
        return cursor.wrong(format!(
            "is {address}, but the kernel carries IPv6 by IPv6 next hops only: name one"
        ));
    }
    Some(address)
}

fn read_interface(cursor: &Cursor<'_>) -> Option<String> {
    let name = cursor.text()?;
    let odd = |c: char| c == '/' || c == ':' || !c.is_ascii_graphic();
    if !(1..=MAX_INTERFACE_NAME).contains(&name.len()) || name.contains(odd) {
        return cursor.wrong(format!(
            "is `{name}`, but an interface's name has 1 to {MAX_INTERFACE_NAME} characters, without / and :"
        ));
    }
    Some(name.to_owned())
}

pub(super) fn read_address(cursor: &Cursor<'_>) -> Option<Address> {
    let address = cursor.object(&["metadata", "spec", "status"])?;
    let metadata = address.required("metadata").and_then(|metadata| read_metadata(&metadata));
    let spec = address.required("spec").and_then(|spec| {
        let spec = spec.object(&["interface", "address"])?;
        let interface = spec.required("interface").and_then(|name| read_interface(&name));
        let address = spec.required("address").and_then(|address| read_own_address(&address));
        Some(AddressSpec { interface: interface?, address: address? })
    });
    Some(Address { metadata: metadata?, spec: spec?, status: None })
}

fn read_own_address(cursor: &Cursor<'_>) -> Option<IpNetwork> {
    let text = cursor.text()?;
    let read = text.contains('/').then(|| text.parse::<IpNetwork>().ok()).flatten();
    let Some(network) = read else {
        return cursor.wrong(format!(
            "is `{text}`, but has to be an address and the length of its network, such as 192.0.2.1/24"
        ));
    };
    let address = network.ip();
    if let Some(what) = unfit(address) {
        return cursor.wrong(format!("is {address}, {what}: give the interface a unicast address"));
    }
    if let IpNetwork::V4(four) = network
        && four.prefix() <= 30
        && (four.ip() == four.network() || four.ip() == four.broadcast())
    {
        return cursor.wrong(format!(
            "is {network}, which is its network's first or last address: hosts have those between"
        ));
    }
    Some(network)
}

/// What the router is to have.
pub(crate) fn statics(resources: &Resources) -> Statics {
    let routes = resources.static_routes().map(|route| route_of(&route.spec));
    let addresses = resources.addresses().map(|address| address_of(&address.spec));
    // Of two that are alike, such as one of the file and one that was made when the file did not have it: the first.
    let mut by_key = BTreeMap::new();
    for route in routes {
        by_key.entry((route.prefix, route.metric)).or_insert(route);
    }
    Statics { routes: by_key.into_values().collect(), addresses: addresses.collect() }
}

fn route_of(spec: &StaticRouteSpec) -> lb_routing::StaticRoute {
    let kind = match spec.kind {
        RouteKind::Unicast => StaticKind::Forward(spec.next_hops.iter().map(hop_of).collect()),
        RouteKind::Blackhole => StaticKind::Blackhole,
        RouteKind::Unreachable => StaticKind::Unreachable,
        RouteKind::Prohibit => StaticKind::Prohibit,
    };
    lb_routing::StaticRoute { prefix: spec.prefix, metric: spec.metric, kind }
}

/// A next hop as the router takes it.
pub(crate) fn hop_of(hop: &NextHop) -> StaticNextHop {
    let NextHop { address, interface, weight } = hop;
    StaticNextHop { gateway: *address, interface: interface.clone(), weight: *weight }
}

pub(crate) fn address_of(spec: &AddressSpec) -> InterfaceAddress {
    InterfaceAddress { interface: spec.interface.clone(), address: spec.address }
}

/// The first route or address that another one is like.
pub(crate) fn misfit(resources: &Resources) -> Option<Misfit> {
    let mut routes = BTreeMap::new();
    for route in resources.static_routes() {
        let StaticRouteSpec { prefix, metric, .. } = route.spec;
        if let Some(other) = routes.insert((prefix, metric), &route.metadata.name) {
            let key = Key(Kind::StaticRoute, route.metadata.name.clone());
            let message = format!(
                "{key}: static route {other} leads to {prefix} with metric {metric}, too: give one of the two another metric"
            );
            return Some(Misfit { key, field: "/spec/metric".into(), message });
        }
    }
    let mut addresses = BTreeMap::new();
    for address in resources.addresses() {
        if let Some(other) = addresses.insert(address.spec.address.ip(), &address.metadata.name) {
            let key = Key(Kind::Address, address.metadata.name.clone());
            let ip = address.spec.address.ip();
            let message =
                format!("{key}: address {other} is {ip}, too: an address is on one interface");
            return Some(Misfit { key, field: "/spec/address".into(), message });
        }
    }
    None
}

/// Says of routes and addresses how they are.
pub(crate) fn note(resource: &mut Resource, told: &StaticsStatus) {
    match resource {
        Resource::StaticRoute(route) => {
            let (prefix, metric) = (route.spec.prefix, route.spec.metric);
            let is_it = |it: &&StaticRouteStatus| (it.prefix, it.metric) == (prefix, metric);
            let found = told.routes.iter().find(is_it);
            route.status = found.map(|it| RouteStatus { conditions: route_conditions(it) });
        }
        Resource::Address(address) => {
            let wanted = address_of(&address.spec);
            let found = told.addresses.iter().find(|(it, _)| *it == wanted);
            address.status =
                found.map(|(_, state)| RouteStatus { conditions: vec![present(state)] });
        }
        Resource::Pool(_)
        | Resource::HealthCheck(_)
        | Resource::Node(_)
        | Resource::Set(_)
        | Resource::Policy(_)
        | Resource::PeerGroup(_)
        | Resource::BgpGlobal(_)
        | Resource::Peer(_) => {}
    }
}

fn route_conditions(told: &StaticRouteStatus) -> Vec<Condition> {
    let reachable = match told.unreachable.as_slice() {
        [] => condition("Reachable", true, "Reachable", "every next hop can be reached".into()),
        why => condition("Reachable", false, "NextHopUnreachable", why.join("; ")),
    };
    let installed = match &told.refused {
        _ if told.installed => {
            condition("Installed", true, "Installed", "the kernel has it".into())
        }
        Some(why) => condition("Installed", false, "Refused", format!("the kernel refuses: {why}")),
        None => condition("Installed", false, "Waiting", "no next hop can be reached yet".into()),
    };
    let used = match told.behind {
        _ if told.used => condition("Used", true, "Best", "packets take it".into()),
        Some(better) => {
            let whose = match better {
                Source::Kernel => "of the kernel's (an address, another program's route, or a VIP)",
                Source::Bgp => "of BGP",
                Source::Static => "of the configuration, with a lower metric",
                Source::Neighbour => "to a neighbour itself",
            };
            condition("Used", false, "Behind", format!("packets take a route {whose}"))
        }
        None => condition("Used", false, "Unusable", "no next hop can be reached".into()),
    };
    vec![reachable, installed, used]
}

fn present(state: &AddressState) -> Condition {
    let (holds, reason, message) = match state {
        AddressState::Present => (true, "Present", "the interface has it".to_owned()),
        AddressState::Others => {
            let words = "the interface has it from somebody else: it stays when this goes";
            (true, "Foreign", words.to_owned())
        }
        AddressState::NoInterface => {
            (false, "NoInterface", "there is no such interface: it waits for it".to_owned())
        }
        AddressState::Pending => (false, "Pending", "the kernel is yet to answer".to_owned()),
        AddressState::Refused(why) => (false, "Refused", format!("the kernel refuses: {why}")),
    };
    condition("Present", holds, reason, message)
}

fn condition(kind: &str, holds: bool, reason: &str, message: String) -> Condition {
    Condition { kind: kind.into(), status: holds.into(), reason: reason.into(), message }
}

#[cfg(test)]
mod tests;
