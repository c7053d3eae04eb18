//! Case by case.

use super::super::select::merge;
use super::super::*;

const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn link(ifindex: u32, up: bool) -> Fact {
    let (name, mac) = (format!("eth{ifindex}"), [1; 6]);
    Fact::Link(Link {
        ifindex,
        name,
        mac,
        mtu: 1500,
        up,
        ethernet: true,
        controller: None,
        vlan: None,
    })
}

fn kernel_route(prefix: &str, ifindex: u32, gateway: Option<IpAddr>) -> Fact {
    let key = RouteKey { prefix: net(prefix), metric: 0, tos: 0, source: None, local: false };
    let kind =
        KernelRouteKind::Unicast(vec![KernelNextHop { ifindex, gateway, weight: 1, mtu: None }]);
    Fact::KernelRoute(KernelRoute { key, kind })
}

fn neighbour(address: IpAddr, mac: Option<[u8; 6]>) -> Fact {
    Fact::Neighbour { ifindex: 1, address, mac }
}

fn bgp(prefix: &str, next_hops: &[IpAddr]) -> Fact {
    Fact::Bgp { prefix: net(prefix), next_hops: next_hops.into(), install: Install::Both }
}

fn installed(prefix: &str, hop: Option<KernelNextHop>) -> Output {
    let route = hop.map(|hop| OwnRoute::Via([hop].into()));
    Output::Install { prefix: net(prefix), metric: BGP_METRIC, route }
}

/// One link with a connected network.
fn connected() -> Fib {
    let mut fib = Fib::new([1, 2]);
    tell(&mut fib, [link(1, true), kernel_route("10.0.0.0/24", 1, None)]);
    fib
}

fn tell(fib: &mut Fib, facts: impl IntoIterator<Item = Fact>) -> Vec<Output> {
    for fact in facts {
        fib.handle(fact);
    }
    std::iter::from_fn(|| fib.poll_output()).collect()
}

#[test]
fn a_new_mac_costs_one_update_however_many_routes_use_it() {
    let mut fib = connected();
    tell(&mut fib, [neighbour(GATEWAY, Some(MAC))]);
    let routes = (0..100).map(|n| bgp(&format!("172.16.{n}.0/24"), &[GATEWAY]));
    let outputs = tell(&mut fib, routes);
    let groups = outputs.iter().filter(|o| matches!(o, Output::Update(Update::Group { .. })));
    assert_eq!(groups.count(), 1);
    let outputs = tell(&mut fib, [neighbour(GATEWAY, Some([9; 6]))]);
    // The gateway's own /32 and the group that the hundred routes share.
    assert_eq!(outputs.len(), 2, "{outputs:?}");
    assert!(outputs.iter().all(|o| matches!(o, Output::Update(Update::Group { .. }))));
}

#[test]
fn a_gateway_without_a_mac_is_asked_for_once_and_again_after_it_was_lost() {
    let mut fib = connected();
    let ask = Output::Resolve { ifindex: 1, address: GATEWAY };
    assert!(tell(&mut fib, [bgp("172.16.0.0/16", &[GATEWAY])]).contains(&ask));
    assert!(!tell(&mut fib, [bgp("172.17.0.0/16", &[GATEWAY])]).contains(&ask));
    assert!(!tell(&mut fib, [neighbour(GATEWAY, Some(MAC))]).contains(&ask));
    assert!(tell(&mut fib, [neighbour(GATEWAY, None)]).contains(&ask));
}

#[test]
fn another_daemons_route_takes_ours_out_of_the_kernel_and_back_in() {
    let mut fib = connected();
    tell(&mut fib, [bgp("172.16.0.0/16", &[GATEWAY])]);
    let other = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3));
    let removed = installed("172.16.0.0/16", None);
    let outputs = tell(&mut fib, [kernel_route("172.16.0.0/16", 1, Some(other))]);
    assert!(outputs.contains(&removed), "{outputs:?}");
    let key =
        RouteKey { prefix: net("172.16.0.0/16"), metric: 0, tos: 0, source: None, local: false };
    let outputs = tell(&mut fib, [Fact::KernelRouteGone(key)]);
    let hop = KernelNextHop { ifindex: 1, gateway: Some(GATEWAY), weight: 1, mtu: None };
    let back = installed("172.16.0.0/16", Some(hop));
    assert!(outputs.contains(&back), "{outputs:?}");
}

#[test]
fn a_next_hop_behind_a_gateway_resolves_to_the_gateway() {
    let mut fib = connected();
    tell(&mut fib, [kernel_route("192.0.2.0/24", 1, Some(GATEWAY))]);
    let outputs = tell(&mut fib, [bgp("172.16.0.0/16", &[Ipv4Addr::new(192, 0, 2, 7).into()])]);
    let hop = KernelNextHop { ifindex: 1, gateway: Some(GATEWAY), weight: 1, mtu: None };
    let install = installed("172.16.0.0/16", Some(hop));
    assert!(outputs.contains(&install), "{outputs:?}");
}

#[test]
fn a_link_that_goes_down_takes_its_members_with_it() {
    let mut fib = connected();
    tell(&mut fib, [link(2, true), kernel_route("10.0.1.0/24", 2, None)]);
    let other = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 2));
    tell(&mut fib, [bgp("172.16.0.0/16", &[GATEWAY, other])]);
    let outputs = tell(&mut fib, [link(2, false)]);
    let left = outputs.iter().find_map(|output| match output {
        Output::Install { route: Some(OwnRoute::Via(next_hops)), .. } => Some(next_hops.to_vec()),
        Output::Install { .. }
        | Output::Update(_)
        | Output::NextHop { .. }
        | Output::Resolve { .. }
        | Output::Busy => None,
    });
    let hop = KernelNextHop { ifindex: 1, gateway: Some(GATEWAY), weight: 1, mtu: None };
    assert_eq!(left, Some(vec![hop]));
    let outputs = tell(&mut fib, [link(1, false)]);
    let removed = Update::RouteRemoved { prefix: net("172.16.0.0/16") };
    assert!(outputs.contains(&Output::Update(removed)), "{outputs:?}");
}

#[test]
fn what_a_previous_process_left_forwards_until_the_speaker_speaks_or_the_time_is_over() {
    let mut fib = connected();
    let hop = KernelNextHop { ifindex: 1, gateway: Some(GATEWAY), weight: 1, mtu: None };
    let kind = KernelRouteKind::Unicast(vec![hop]);
    let left = ["172.16.0.0/16", "172.17.0.0/16"];
    tell(&mut fib, left.map(|prefix| Fact::Stale { prefix: net(prefix), kind: kind.clone() }));
    let removed = |prefix| Output::Update(Update::RouteRemoved { prefix: net(prefix) });
    let outputs = tell(&mut fib, [bgp("172.16.0.0/16", &[GATEWAY])]);
    assert!(!outputs.contains(&removed("172.16.0.0/16")), "{outputs:?}");
    let outputs = tell(&mut fib, [Fact::StaleOver]);
    assert!(outputs.contains(&removed("172.17.0.0/16")), "{outputs:?}");
    assert!(!outputs.contains(&removed("172.16.0.0/16")), "{outputs:?}");
}

#[test]
fn a_vip_on_a_connected_network_is_the_kernels_even_if_a_neighbour_claims_it() {
    let mut fib = connected();
    tell(&mut fib, [neighbour(GATEWAY, Some(MAC))]);
    let outputs = tell(&mut fib, [Fact::Vip { address: GATEWAY, present: true }]);
    let prefix = net("10.0.0.2/32");
    let route = outputs.iter().find_map(|output| match output {
        Output::Update(Update::Route { prefix: p, group, source }) if *p == prefix => {
            Some((*group, *source))
        }
        Output::Update(_)
        | Output::Install { .. }
        | Output::NextHop { .. }
        | Output::Resolve { .. }
        | Output::Busy => None,
    });
    let (group, source) = route.unwrap();
    assert_eq!(source, Source::Kernel);
    let to_kernel = outputs.iter().find_map(|output| match output {
        Output::Update(Update::Group { id, action, .. }) if *id == group => Some(action),
        Output::Update(_)
        | Output::Install { .. }
        | Output::NextHop { .. }
        | Output::Resolve { .. }
        | Output::Busy => None,
    });
    assert_eq!(to_kernel, Some(&Action::Kernel));
}

#[test]
fn a_gateway_carries_routes_of_both_families() {
    let mut fib = connected();
    let gateway: IpAddr = "fe80::2".parse().unwrap();
    let routes = ["2001:db8::/32", "172.16.0.0/16"].map(|p| kernel_route(p, 1, Some(gateway)));
    let outputs = tell(&mut fib, routes.into_iter().chain([neighbour(gateway, Some(MAC))]));
    let members = outputs.iter().find_map(|output| match output {
        Output::Update(Update::Group { action: Action::Forward(members), .. }) => {
            members.iter().find(|member| member.gateway == Some(gateway)).copied()
        }
        Output::Update(_)
        | Output::Install { .. }
        | Output::NextHop { .. }
        | Output::Resolve { .. }
        | Output::Busy => None,
    });
    assert_eq!(members.unwrap().destination_mac, Some(MAC), "{outputs:?}");
    let groups: BTreeSet<u32> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Update(Update::Route { group, .. }) => Some(*group),
            Output::Update(_)
            | Output::Install { .. }
            | Output::NextHop { .. }
            | Output::Resolve { .. }
            | Output::Busy => None,
        })
        .collect();
    assert_eq!(groups.len(), 1, "both routes share one: {outputs:?}");
}

#[test]
fn a_next_hop_resolves_by_routes_of_its_own_family() {
    let mut fib = connected();
    let hop = |text: &str| text.parse::<IpAddr>().unwrap();
    tell(
        &mut fib,
        [kernel_route("2001:db8::/64", 1, None), kernel_route("::/0", 1, Some(hop("fe80::1")))],
    );
    let outputs = tell(&mut fib, [bgp("2001:db8:7::/48", &[hop("2001:db8::7")])]);
    let direct =
        KernelNextHop { ifindex: 1, gateway: Some(hop("2001:db8::7")), weight: 1, mtu: None };
    let install = installed("2001:db8:7::/48", Some(direct));
    assert!(outputs.contains(&install), "{outputs:?}");
    // Only an IPv4 default would resolve this one.
    let outputs = tell(&mut fib, [bgp("172.16.0.0/16", &[hop("192.0.2.1")])]);
    assert_eq!(outputs, []);
}

fn fixed(prefix: &str, metric: u32, gateway: &str, interface: Option<&str>) -> Fact {
    let (gateway, interface) = (gateway.parse().ok(), interface.map(str::to_owned));
    let hop = StaticNextHop { gateway, interface, weight: 1 };
    Fact::Static { prefix: net(prefix), metric, kind: Some(StaticKind::Forward(vec![hop])) }
}

#[test]
fn a_route_of_the_configuration_goes_before_the_speakers_and_one_of_a_high_metric_behind_them() {
    let other = IpAddr::from([10, 0, 0, 3]);
    for (metric, first) in [(20, Source::Static), (BGP_METRIC + 1, Source::Bgp)] {
        let mut fib = connected();
        tell(
            &mut fib,
            [bgp("172.16.0.0/16", &[GATEWAY]), fixed("172.16.0.0/16", metric, "10.0.0.3", None)],
        );
        let told = fib.lookup([172, 16, 0, 1].into()).unwrap();
        assert_eq!(told.source, first);
        let state = fib.static_state(net("172.16.0.0/16"), metric).unwrap();
        assert_eq!((state.used, state.unreachable.len()), (first == Source::Static, 0));
        assert_eq!(state.behind, (first == Source::Bgp).then_some(Source::Bgp));
        // Without the other one, each carries the packets.
        tell(&mut fib, [bgp("172.16.0.0/16", &[])]);
        let Action::Forward(members) = fib.lookup([172, 16, 0, 1].into()).unwrap().action else {
            panic!("it forwards")
        };
        assert_eq!(members[0].gateway, Some(other));
    }
}

#[test]
fn a_next_hop_of_the_configuration_that_cannot_be_reached_says_why_and_its_route_waits() {
    let mut fib = connected();
    tell(&mut fib, [link(2, false)]);
    for (gateway, interface, why) in [
        ("10.9.9.9", None, "no network of this host leads to 10.9.9.9"),
        ("10.0.0.2", Some("eth9"), "this host has no interface eth9"),
        ("10.0.0.2", Some("eth2"), "interface eth2 is down"),
        ("10.9.9.9", Some("eth1"), "10.9.9.9 is in no network of interface eth1"),
    ] {
        let outputs = tell(&mut fib, [fixed("172.16.0.0/16", 20, gateway, interface)]);
        assert_eq!(outputs, [], "{gateway} {interface:?}");
        let state = fib.static_state(net("172.16.0.0/16"), 20).unwrap();
        assert!(!state.used && state.unreachable[0].starts_with(why), "{state:?}");
    }
    // With its network comes its route.
    let outputs = tell(&mut fib, [kernel_route("10.9.9.0/24", 1, None)]);
    assert!(outputs.iter().any(|o| matches!(o, Output::Install { metric: 20, .. })), "{outputs:?}");
}

#[test]
fn a_route_of_the_speaker_goes_to_the_tables_that_it_is_for() {
    for (install, in_kernel, forwards) in [
        (Install::Both, true, true),
        (Install::Dataplane, false, true),
        (Install::Kernel, true, false),
    ] {
        let mut fib = connected();
        let fact = Fact::Bgp { prefix: net("172.16.0.0/16"), next_hops: [GATEWAY].into(), install };
        let outputs = tell(&mut fib, [fact]);
        let installs = outputs.iter().filter(|o| matches!(o, Output::Install { .. })).count();
        assert_eq!(installs == 1, in_kernel, "{install:?}");
        let action = fib.lookup([172, 16, 0, 1].into()).unwrap().action;
        assert_eq!(matches!(action, Action::Forward(_)), forwards, "{install:?}");
        // From each to each.
        tell(&mut fib, [bgp("172.16.0.0/16", &[GATEWAY])]);
        assert!(matches!(fib.lookup([172, 16, 0, 1].into()).unwrap().action, Action::Forward(_)));
    }
}

#[test]
fn a_group_says_whether_the_kernel_has_its_routes() {
    for (install, apart) in
        [(Install::Both, false), (Install::Dataplane, true), (Install::Kernel, false)]
    {
        let mut fib = connected();
        let fact = Fact::Bgp { prefix: net("172.16.0.0/16"), next_hops: [GATEWAY].into(), install };
        let outputs = tell(&mut fib, [fact]);
        let said = outputs.iter().find_map(|output| {
            let Output::Update(Update::Group { is_apart, .. }) = output else { return None };
            Some(*is_apart)
        });
        assert_eq!(said, Some(apart), "{install:?}");
    }
}

#[test]
fn weights_beyond_what_a_route_of_the_kernel_can_say_stay_in_proportion() {
    let hop = |last, weight| KernelNextHop {
        ifindex: 1,
        gateway: Some([10, 0, 0, last].into()),
        weight,
        mtu: None,
    };
    let weights = |hops: &[KernelNextHop]| {
        let OwnRoute::Via(hops) = OwnRoute::via(hops) else { panic!("it forwards") };
        hops.iter().map(|hop| hop.weight).collect::<Vec<_>>()
    };
    for (told, said) in [
        (vec![1, 3], vec![1, 3]),
        (vec![7], vec![1]),
        (vec![1, 256], vec![1, 256]),
        (vec![500, 1000], vec![128, 256]),
        (vec![1, 65_535], vec![1, 256]),
    ] {
        let hops: Vec<_> = (1..).zip(&told).map(|(last, weight)| hop(last, *weight)).collect();
        assert_eq!(weights(&hops), said, "{told:?}");
    }
    // The dataplane has them as they are.
    let merged = merge([hop(1, 60_000), hop(1, 60_000), hop(2, 60_000)].into_iter());
    assert_eq!(merged.iter().map(|hop| hop.weight).collect::<Vec<_>>(), [65_535, 32_768]);
}

#[test]
fn a_gateway_that_does_not_answer_is_left_out_while_another_one_does() {
    let mut fib = connected();
    let other = IpAddr::from([10, 0, 0, 3]);
    tell(&mut fib, [bgp("172.16.0.0/16", &[GATEWAY, other])]);
    let mut ways = |fact: Fact| {
        tell(&mut fib, [fact]);
        let Action::Forward(members) = fib.lookup([172, 16, 0, 1].into()).unwrap().action else {
            panic!("it forwards")
        };
        members.iter().map(|member| member.gateway.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ways(neighbour(GATEWAY, Some(MAC))), [GATEWAY]);
    assert_eq!(ways(neighbour(other, Some(MAC))), [GATEWAY, other]);
    assert_eq!(ways(neighbour(GATEWAY, None)), [other]);
    // Without any, the kernel looks for both.
    assert_eq!(ways(neighbour(other, None)), [GATEWAY, other]);
}

#[test]
fn a_next_hop_that_a_route_of_the_configuration_leads_to_resolves_and_is_watched() {
    let mut fib = connected();
    let far: IpAddr = "192.0.2.9".parse().unwrap();
    assert_eq!(fib.watch(far).cost(), None);
    assert_eq!(fib.watch(GATEWAY).cost(), Some(0), "on a link");
    tell(&mut fib, [bgp("172.16.0.0/16", &[far])]);
    let hops = vec![StaticNextHop { gateway: Some(GATEWAY), interface: None, weight: 1 }];
    let route = |kind| Fact::Static { prefix: net("192.0.2.0/24"), metric: 30, kind };
    let outputs = tell(&mut fib, [route(Some(StaticKind::Forward(hops)))]);
    assert!(outputs.contains(&Output::NextHop { next_hop: far, reach: Reach::from(Some(30)) }));
    let hop = KernelNextHop { ifindex: 1, gateway: Some(GATEWAY), weight: 1, mtu: None };
    assert!(outputs.contains(&installed("172.16.0.0/16", Some(hop))));
    let outputs = tell(&mut fib, [link(1, false)]);
    for next_hop in [far, GATEWAY] {
        assert!(outputs.contains(&Output::NextHop { next_hop, reach: Reach::from(None) }));
    }
    assert!(outputs.contains(&installed("172.16.0.0/16", None)));
    fib.unwatch(far);
    let outputs = tell(&mut fib, [link(1, true), route(None)]);
    let costs = outputs.iter().filter(|it| matches!(it, Output::NextHop { .. }));
    assert_eq!(costs.count(), 1, "that of the gateway");
}

#[test]
fn a_next_hop_that_the_kernel_drops_or_refuses_packets_to_is_not_reached() {
    let (mut fib, far) = (connected(), "192.0.2.9".parse().unwrap());
    assert_eq!(fib.watch(far).cost(), None);
    let route = |kind, metric| {
        let prefix = net("192.0.2.0/24");
        let key = RouteKey { prefix, metric, tos: 0, source: None, local: false };
        Fact::KernelRoute(KernelRoute { key, kind })
    };
    for kind in [KernelRouteKind::Blackhole, KernelRouteKind::Reject] {
        let outputs = tell(&mut fib, [route(kind.clone(), 7)]);
        assert!(!outputs.iter().any(|it| matches!(it, Output::NextHop { .. })), "{outputs:?}");
        assert_eq!(fib.watch(far).cost(), None, "{kind:?}");
    }
    // The kernel knows the way.
    let outputs = tell(&mut fib, [route(KernelRouteKind::Kernel, 7)]);
    assert!(
        outputs.contains(&Output::NextHop { next_hop: far, reach: Reach::from(Some(7)) }),
        "{outputs:?}"
    );
    // A shorter one that leads there does not count.
    let around = kernel_route("0.0.0.0/0", 1, Some(GATEWAY));
    let outputs = tell(&mut fib, [around, route(KernelRouteKind::Reject, 7)]);
    assert!(
        outputs.contains(&Output::NextHop { next_hop: far, reach: Reach::from(None) }),
        "{outputs:?}"
    );
}

/// A way by the gateway on the link.
fn by_gateway() -> KernelNextHop {
    KernelNextHop { ifindex: 1, gateway: Some(GATEWAY), weight: 1, mtu: None }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn distances(outputs: &[Output]) -> Vec<(IpAddr, Option<u32>)> {
    let distance = |it: &Output| match it {
        Output::NextHop { next_hop, reach } => Some((*next_hop, reach.cost())),
        Output::Update(_) | Output::Install { .. } | Output::Resolve { .. } | Output::Busy => None,
    };
    outputs.iter().filter_map(distance).collect()
}

#[test]
fn a_next_hop_that_only_a_learned_route_leads_to_resolves_to_the_gateway_at_the_end() {
    let (mut fib, far) = (connected(), address("192.0.2.9"));
    assert_eq!(fib.watch(far).cost(), None);
    let outputs = tell(&mut fib, [bgp("172.16.0.0/16", &[far])]);
    assert_eq!(outputs, [], "nothing leads there");
    let outputs = tell(&mut fib, [bgp("192.0.2.0/24", &[GATEWAY])]);
    assert!(outputs.contains(&installed("172.16.0.0/16", Some(by_gateway()))), "{outputs:?}");
    let over = Some(net("192.0.2.0/24"));
    let reach = Reach::new([Leg { cost: None, over: None }, Leg { cost: Some(0), over }]);
    assert!(outputs.contains(&Output::NextHop { next_hop: far, reach }), "{outputs:?}");
    // The lower one goes, and comes by another way.
    let outputs = tell(&mut fib, [bgp("192.0.2.0/24", &[])]);
    assert!(outputs.contains(&installed("172.16.0.0/16", None)), "{outputs:?}");
    assert_eq!(distances(&outputs), [(far, None)]);
    let other = address("10.9.0.2");
    let way = kernel_route("10.9.0.0/24", 1, Some(address("10.0.0.9")));
    tell(&mut fib, [way, bgp("192.0.2.0/24", &[other])]);
    let hop = KernelNextHop { gateway: Some(address("10.0.0.9")), ..by_gateway() };
    assert_eq!(fib.watch(far).cost(), Some(0), "of the metric of the kernel's route, which is 0");
    let outputs = tell(&mut fib, [bgp("172.17.0.0/16", &[far])]);
    assert!(outputs.contains(&installed("172.17.0.0/16", Some(hop))), "{outputs:?}");
}

#[test]
fn routes_that_only_lead_to_each_other_lead_nowhere() {
    let mut fib = connected();
    let (one, two) = (address("10.1.0.1"), address("10.2.0.1"));
    assert_eq!(tell(&mut fib, [bgp("10.1.0.0/16", &[one])]), [], "to itself");
    let outputs = tell(&mut fib, [bgp("10.1.0.0/16", &[two]), bgp("10.2.0.0/16", &[one])]);
    assert_eq!(outputs, [], "to each other");
    assert_eq!((fib.watch(one).cost(), fib.watch(two).cost()), (None, None));
    // A default route leads there without them.
    let outputs = tell(&mut fib, [kernel_route("0.0.0.0/0", 1, Some(GATEWAY))]);
    for prefix in ["10.1.0.0/16", "10.2.0.0/16"] {
        assert!(outputs.contains(&installed(prefix, Some(by_gateway()))), "{outputs:?}");
    }
    assert_eq!(fib.watch(one).cost(), Some(u32::MAX), "that is farthest");
}

#[test]
fn a_chain_of_learned_routes_resolves_up_to_its_bound() {
    let mut fib = connected();
    let most = super::super::hops::MAX_RECURSION;
    let hop = |number: usize| address(&format!("10.{number}.0.1"));
    let link = |number: usize| {
        let next_hop = if number == 1 { GATEWAY } else { hop(number - 1) };
        bgp(&format!("10.{number}.0.0/16"), &[next_hop])
    };
    // In the order in which most has to be resolved again.
    let outputs = tell(&mut fib, (1..=most + 2).rev().map(link));
    let resolved = outputs.iter().filter(|it| matches!(it, Output::Install { .. })).count();
    assert_eq!(resolved, most + 1, "the first one takes none, the last one too many");
    assert_eq!(fib.watch(hop(most)).cost(), Some(0));
    assert_eq!(fib.watch(hop(most + 1)).cost(), None);
    let outputs = tell(&mut fib, [bgp("10.1.0.0/16", &[])]);
    let gone = |it: &&Output| matches!(it, Output::Install { route: None, .. });
    assert_eq!(outputs.iter().filter(gone).count(), most + 1);
}

#[test]
fn an_ipv4_route_resolves_by_an_ipv6_next_hop_that_a_learned_route_leads_to() {
    let mut fib = connected();
    let near = address("2001:db8::2");
    tell(&mut fib, [kernel_route("2001:db8::/64", 1, None)]);
    let far = address("2001:db8:9::9");
    let outputs = tell(&mut fib, [bgp("2001:db8:9::/48", &[near]), bgp("172.16.0.0/16", &[far])]);
    let hop = KernelNextHop { gateway: Some(near), ..by_gateway() };
    assert!(outputs.contains(&installed("172.16.0.0/16", Some(hop))), "{outputs:?}");
    // Link-local addresses are not routed to.
    let local = address("fe80::9");
    let outputs = tell(&mut fib, [bgp("::/0", &[near]), bgp("172.17.0.0/16", &[local])]);
    assert!(
        !outputs.iter().any(
            |it| matches!(it, Output::Install { prefix, .. } if *prefix == net("172.17.0.0/16"))
        )
    );
}

#[test]
fn a_vip_or_a_better_route_of_others_stands_before_a_learned_one_on_the_way_to_a_next_hop() {
    let (mut fib, far) = (connected(), address("192.0.2.9"));
    tell(&mut fib, [bgp("192.0.2.9/32", &[GATEWAY]), bgp("172.16.0.0/16", &[far])]);
    assert_eq!(fib.watch(far).cost(), Some(0));
    let vip = |present| Fact::Vip { address: far, present };
    assert_eq!(distances(&tell(&mut fib, [vip(true)])), [(far, None)]);
    assert_eq!(distances(&tell(&mut fib, [vip(false)])), [(far, Some(0))]);
    // The same prefix by the kernel: that is what packets take.
    let key =
        RouteKey { prefix: net("192.0.2.9/32"), metric: 9000, tos: 0, source: None, local: false };
    let kind = KernelRouteKind::Blackhole;
    let outputs = tell(&mut fib, [Fact::KernelRoute(KernelRoute { key, kind })]);
    assert_eq!(distances(&outputs), [(far, None)]);
    assert!(outputs.contains(&installed("172.16.0.0/16", None)), "{outputs:?}");
}

#[test]
fn no_learned_route_leads_to_a_neighbour_on_a_link_nor_does_a_default_route_lead_to_any_next_hop() {
    let (mut fib, third) = (connected(), address("10.0.0.3"));
    fib.watch(GATEWAY);
    tell(&mut fib, [bgp("172.16.0.0/16", &[GATEWAY])]);
    for inside in ["10.0.0.2/32", "10.0.0.0/25"] {
        let outputs = tell(&mut fib, [bgp(inside, &[third])]);
        assert!(!outputs.iter().any(|it| matches!(it, Output::NextHop { .. })), "{outputs:?}");
    }
    let outputs = tell(&mut fib, [bgp("172.17.0.0/16", &[GATEWAY])]);
    assert!(outputs.contains(&installed("172.17.0.0/16", Some(by_gateway()))), "{outputs:?}");
    let far = address("192.0.2.9");
    tell(&mut fib, [bgp("0.0.0.0/0", &[GATEWAY]), bgp("172.18.0.0/16", &[far])]);
    assert_eq!(fib.watch(far).cost(), None);
}

#[test]
fn a_default_route_out_of_a_link_is_no_link_that_next_hops_are_on() {
    let (mut fib, far) = (connected(), address("192.0.2.9"));
    let key = RouteKey { prefix: net("0.0.0.0/0"), metric: 0, tos: 0, source: None, local: false };
    let out = KernelNextHop { ifindex: 2, gateway: None, weight: 1, mtu: None };
    tell(
        &mut fib,
        [Fact::KernelRoute(KernelRoute { key, kind: KernelRouteKind::Unicast(vec![out]) })],
    );
    tell(&mut fib, [bgp("192.0.2.0/24", &[GATEWAY])]);
    let outputs = tell(&mut fib, [bgp("172.16.0.0/16", &[far])]);
    assert!(outputs.contains(&installed("172.16.0.0/16", Some(by_gateway()))), "{outputs:?}");
}

#[test]
fn a_route_leads_to_next_hops_by_what_counts_of_it_at_the_level_below() {
    let (mut fib, far, other) = (connected(), address("192.0.2.9"), address("198.51.100.9"));
    let over = Some(net("192.0.2.0/24"));
    let nowhere = Leg { cost: None, over: None };
    let there = Leg { cost: Some(0), over };
    tell(&mut fib, [bgp("198.51.100.0/24", &[GATEWAY]), bgp("192.0.2.0/24", &[other])]);
    assert_eq!(fib.watch(far), Reach::new([nowhere, nowhere, there]), "by two of them");
    let leading = |by_level: &[Arc<[IpAddr]>]| {
        let by_level = by_level.to_vec();
        Fact::Leading { prefix: net("192.0.2.0/24"), by_level }
    };
    let outputs = tell(&mut fib, [leading(&[[address("10.0.0.3")].into()])]);
    let reach = Reach::new([nowhere, there]);
    assert_eq!(outputs, [Output::NextHop { next_hop: far, reach }]);
    // In the end what is chosen in the end leads there.
    let outputs = tell(&mut fib, [bgp("172.16.0.0/16", &[far])]);
    assert!(outputs.contains(&installed("172.16.0.0/16", Some(by_gateway()))), "{outputs:?}");
    let reach = Reach::new([nowhere, nowhere, there]);
    assert_eq!(tell(&mut fib, [leading(&[])]), [Output::NextHop { next_hop: far, reach }]);
}

#[test]
fn as_many_next_hops_as_a_neighbour_likes_are_resolved_some_at_a_time() {
    let mut fib = Fib::new([1, 2]);
    let hops = (0..10_000_u32).map(|it| IpAddr::from(Ipv4Addr::from_bits(0xc612_0000 + it)));
    for (number, hop) in (0..).zip(hops) {
        let prefix = IpNetwork::from(IpAddr::from(Ipv4Addr::from_bits(0x0b00_0000 + number)));
        fib.handle(Fact::Bgp { prefix, next_hops: [hop].into(), install: Install::Both });
    }
    let outputs = tell(&mut fib, []);
    assert!(outputs.iter().all(|it| *it == Output::Busy), "nothing leads there");
    assert!(outputs.len() >= 2, "{}", outputs.len());
}
