//! What everybody should know, computed the naive way: all nodes tell all, until nothing changes.
//!
//! Shares nothing with the RIB and the policy but the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;

use super::net::Net;
use super::world::{End, World};
use crate::config::{Export, Import, SpeakerConfig};
use crate::speaker::State;
use crate::wire::Segment;

/// Rounds until every chain of speakers has been walked, with room to spare.
const MAX_ROUNDS: usize = 100;

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Route {
    path: Vec<u32>,
    /// Learned over which link; `None`: our own.
    link: Option<usize>,
    next_hop: Option<IpAddr>,
    /// Who brought it into the AS, of a reflected one, and the clusters that reflected it since.
    originator: Option<Ipv4Addr>,
    clusters: Vec<Ipv4Addr>,
}

/// Per node and prefix, every route, the best one first.
type Known = Vec<BTreeMap<IpNetwork, Vec<Route>>>;

/// Compares every speaker with the reference; says how many learned routes were compared, and whether several paths of a
/// prefix came from one neighbour.
pub(super) fn check(net: &Net) -> (usize, bool) {
    let world = &net.world;
    let known = settle(net);
    let (mut compared, mut several) = (0, false);
    for (node, host) in net.nodes.iter().enumerate() {
        let speaker = host.speaker.as_ref().expect("everybody was booted");
        for peer in speaker.peers() {
            let context = format!("node {node}, {}: {}", peer.name, peer.last_error);
            assert_eq!(peer.state, State::Established, "{context}");
        }
        let mut seen: BTreeMap<IpNetwork, Vec<Route>> = BTreeMap::new();
        for path in speaker.routes() {
            let segments = path.attributes.as_path.segments.iter();
            let numbers = segments.flat_map(|segment| match segment {
                Segment::Sequence(numbers) => numbers.clone(),
                other @ (Segment::Set(_) | Segment::ConfedSequence(_) | Segment::ConfedSet(_)) => {
                    panic!("nobody makes {other:?}")
                }
            });
            several |= path.path_id > 1;
            let link = path.peer.map(|peer| link_to(world, node, peer));
            let originator = path.attributes.originator_id;
            let clusters = path.attributes.cluster_list;
            let path_numbers = numbers.collect();
            let route =
                Route { path: path_numbers, link, next_hop: path.next_hop, originator, clusters };
            let routes = seen.entry(path.prefix).or_default();
            assert_eq!(path.best, routes.is_empty(), "node {node}, {}", path.prefix);
            routes.push(route);
        }
        compared += compare(node, &known[node], &seen);
        let expected = installed(world, node, &known[node]);
        assert_eq!(host.installed, expected, "node {node}: what the driver was told");
    }
    (compared, several)
}

fn compare(
    node: usize,
    expected: &BTreeMap<IpNetwork, Vec<Route>>,
    seen: &BTreeMap<IpNetwork, Vec<Route>>,
) -> usize {
    let prefixes: BTreeSet<_> = expected.keys().chain(seen.keys()).collect();
    let mut compared = 0;
    for prefix in prefixes {
        let none = Vec::new();
        let [want, have] = [expected, seen].map(|all| all.get(prefix).unwrap_or(&none));
        assert_eq!(want.first(), have.first(), "node {node}: best route to {prefix}");
        let [want, have] = [want, have].map(|routes| {
            let mut routes = routes.clone();
            routes.sort();
            routes
        });
        assert_eq!(want, have, "node {node}: routes to {prefix}");
        compared += want.iter().filter(|route| route.link.is_some()).count();
    }
    compared
}

fn settle(net: &Net) -> Known {
    let world = &net.world;
    let mut known: Known = vec![BTreeMap::new(); world.nodes.len()];
    for _ in 0..MAX_ROUNDS {
        let mut next: Known = vec![BTreeMap::new(); world.nodes.len()];
        for (node, host) in net.nodes.iter().enumerate() {
            for &prefix in &host.originated {
                let own = Route::default();
                next[node].entry(prefix).or_default().push(own);
            }
            for (link, end) in world.ends_of(node) {
                for (prefix, route) in told(world, &known, link, 1 - end) {
                    next[node].entry(prefix).or_default().push(route);
                }
            }
            for routes in next[node].values_mut() {
                routes.sort_by_key(|route| rank(world, node, route));
            }
        }
        if next == known {
            return known;
        }
        known = next;
    }
    panic!("the reference does not settle");
}

/// What the node at an end of a link tells the other one, as the other one takes it.
fn told(world: &World, known: &Known, link: usize, from: usize) -> Vec<(IpNetwork, Route)> {
    let [teller, hearer] = [from, 1 - from].map(|end| &world.links[link].ends[end]);
    let several = teller.peer.add_path_send > 1 && hearer.peer.add_path_receive;
    let (most, considered) =
        if several { (teller.peer.add_path_send.into(), usize::MAX) } else { (1, 1) };
    let hearing = &world.nodes[hearer.node];
    let mut said = Vec::new();
    for (prefix, routes) in &known[teller.node] {
        let best = routes.iter().take(considered);
        let told =
            best.filter_map(|best| Some((best, tell(world, prefix, best, [teller, hearer])?)));
        // One that came from there, or leads there, takes a place, but is not said.
        let may_hear = |(best, route): &(&Route, Route)| {
            best.link != Some(link) && route.next_hop != Some(hearer.address)
        };
        for (_, mut route) in told.take(most).filter(may_hear) {
            route.link = Some(link);
            let looped = route.path.contains(&hearing.asn)
                || route.originator == Some(hearing.router_id)
                || route.clusters.contains(&cluster_of(hearing));
            if hearer.peer.import == Import::All && !looped {
                said.push((*prefix, route));
            }
        }
    }
    said
}

/// A route as one end tells it to the other one, if it does.
fn tell(
    world: &World,
    prefix: &IpNetwork,
    best: &Route,
    [teller, hearer]: [&End; 2],
) -> Option<Route> {
    match &teller.peer.export {
        Export::Vips if best.link.is_none() => {}
        // Worlds have no policies.
        Export::None | Export::Vips | Export::Policies(_) => return None,
        Export::All => {}
    }
    let [our_as, their_as] = [teller, hearer].map(|end| world.nodes[end.node].asn);
    let internal = our_as == their_as;
    let mut route = Route { originator: None, clusters: Vec::new(), ..best.clone() };
    if !internal {
        route.path.insert(0, our_as);
    }
    if let Some(from) = best.link.filter(|&from| internal && is_internal(world, from)) {
        let clients = [end_at(world, teller.node, from), Some(teller)];
        if !clients.iter().flatten().any(|end| end.peer.route_reflector_client) {
            return None;
        }
        let brought = world.nodes[peer_of(world, teller.node, from)].router_id;
        route.originator = best.originator.or(Some(brought));
        route.clusters.push(cluster_of(&world.nodes[teller.node]));
        route.clusters.extend(&best.clusters);
    }
    let kept = best.next_hop.filter(|_| internal && !teller.peer.next_hop_self);
    let next_hop = kept.unwrap_or(teller.address);
    route.next_hop = Some(next_hop);
    // IPv4 prefixes may have IPv6 next hops (RFC 8950).
    (prefix.is_ipv4() || next_hop.is_ipv6()).then_some(route)
}

type Rank = (bool, usize, bool, Option<Ipv4Addr>, usize, Option<IpAddr>, Said);

/// What decides between a neighbour's own paths.
type Said = (Option<IpAddr>, Vec<u32>, Vec<Ipv4Addr>);

/// Least is best: our own, the shortest path, external before internal, originator or identifier, clusters, address.
fn rank(world: &World, node: usize, route: &Route) -> Rank {
    let Some(link) = route.link else { return Rank::default() };
    let peer = peer_of(world, node, link);
    let id = route.originator.unwrap_or(world.nodes[peer].router_id);
    let ends = world.links[link].ends.iter();
    let address = ends.filter(|end| end.node == peer).map(|end| end.address).next();
    let clusters = route.clusters.len();
    let said = (route.next_hop, route.path.clone(), route.clusters.clone());
    (true, route.path.len(), is_internal(world, link), Some(id), clusters, address, said)
}

fn installed(
    world: &World,
    node: usize,
    known: &BTreeMap<IpNetwork, Vec<Route>>,
) -> BTreeMap<IpNetwork, Vec<IpAddr>> {
    let SpeakerConfig { max_paths, decision, .. } = world.nodes[node];
    let equal = |route: &Route| {
        let (learned, length, internal, ..) = rank(world, node, route);
        (learned, length, internal && !decision.mixed_multipath)
    };
    let internally = decision.max_paths_internal.unwrap_or(max_paths);
    let mut installed = BTreeMap::new();
    for (prefix, routes) in known {
        let equals = routes.iter().filter(|route| equal(route) == equal(&routes[0]));
        let internal = routes[0].link.is_some_and(|link| is_internal(world, link));
        let most = match (decision.mixed_multipath, internal) {
            (true, _) => max_paths.max(internally),
            (false, true) => internally,
            (false, false) => max_paths,
        };
        let mut hops = BTreeSet::new();
        for hop in equals.filter_map(|route| route.next_hop) {
            if hops.len() == most && !hops.contains(&hop) {
                break;
            }
            hops.insert(hop);
        }
        if !hops.is_empty() {
            installed.insert(*prefix, hops.into_iter().collect());
        }
    }
    installed
}

fn is_internal(world: &World, link: usize) -> bool {
    let [left, right] = world.links[link].ends.each_ref().map(|end| world.nodes[end.node].asn);
    left == right
}

fn cluster_of(node: &SpeakerConfig) -> Ipv4Addr {
    node.cluster_id.unwrap_or(node.router_id)
}

/// A node's end of a link.
fn end_at(world: &World, node: usize, link: usize) -> Option<&End> {
    world.links[link].ends.iter().find(|end| end.node == node)
}

fn peer_of(world: &World, node: usize, link: usize) -> usize {
    let ends = &world.links[link].ends;
    if ends[0].node == node { ends[1].node } else { ends[0].node }
}

fn link_to(world: &World, node: usize, peer: IpAddr) -> usize {
    let mut ends = world.ends_of(node);
    let end = ends.find(|&(link, end)| world.links[link].ends[end].peer.address == peer);
    end.expect("paths come from neighbours").0
}
