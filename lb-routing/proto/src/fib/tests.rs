//! The resolver against a recomputation from all facts, and case by case.

mod cases;
mod model;
mod naive;

use proptest::prelude::*;

use super::*;
use model::Model;
use naive::Facts;

fn address() -> impl Strategy<Value = IpAddr> {
    // Two connected networks of each family, hosts in and beside them.
    (0_u8..3, 0_u8..6, any::<bool>()).prop_map(|(net, host, is_ipv6)| {
        let address = Ipv4Addr::new(10, 0, net, host);
        if is_ipv6 { address.to_ipv6_mapped().into() } else { address.into() }
    })
}

/// The members of an action have no order.
fn in_order(
    mut routes: BTreeMap<IpNetwork, (Source, Action)>,
) -> BTreeMap<IpNetwork, (Source, Action)> {
    for (_, action) in routes.values_mut() {
        if let Action::Forward(members) = action {
            members.sort_unstable();
        }
    }
    routes
}

fn sorted(mut next_hops: Vec<IpAddr>) -> Arc<[IpAddr]> {
    next_hops.sort_unstable();
    next_hops.dedup();
    next_hops.into()
}

fn any_prefix() -> impl Strategy<Value = IpNetwork> {
    let lengths = prop_oneof![Just(0), Just(8), Just(16), Just(24), Just(30), Just(32)];
    // With host bits at times: the resolver clears them.
    (address(), lengths).prop_map(|(address, len)| {
        let len = if address.is_ipv6() && len > 0 { 96 + len } else { len };
        IpNetwork::new(address, len).unwrap()
    })
}

fn ifindex() -> impl Strategy<Value = u32> {
    1_u32..4
}

fn link() -> impl Strategy<Value = Link> {
    let usable = (prop::bool::weighted(0.8), prop::bool::weighted(0.9));
    (ifindex(), 0_u8..2, prop_oneof![Just(1500), Just(70_000)], usable).prop_map(
        |(ifindex, mac, mtu, (up, ethernet))| Link {
            ifindex,
            name: format!("eth{ifindex}"),
            mac: [mac; 6],
            mtu,
            up,
            ethernet,
            controller: None,
            vlan: None,
        },
    )
}

fn hop() -> impl Strategy<Value = KernelNextHop> {
    let mtu = prop::option::weighted(0.1, prop_oneof![Just(1400_u32), Just(9000)]);
    (ifindex(), prop::option::of(address()), 1_u16..3, mtu)
        .prop_map(|(ifindex, gateway, weight, mtu)| KernelNextHop { ifindex, gateway, weight, mtu })
}

fn kind() -> impl Strategy<Value = KernelRouteKind> {
    prop_oneof![
        6 => prop::collection::vec(hop(), 0..3).prop_map(KernelRouteKind::Unicast),
        1 => Just(KernelRouteKind::Blackhole),
        1 => Just(KernelRouteKind::Reject),
        1 => Just(KernelRouteKind::Kernel),
    ]
}

fn key() -> impl Strategy<Value = RouteKey> {
    let tos = prop_oneof![9 => Just(0_u8), 1 => Just(8)];
    let source = prop::option::weighted(0.05, any_prefix());
    (any_prefix(), 0_u32..2, tos, source, prop::bool::weighted(0.1)).prop_map(
        |(prefix, metric, tos, source, local)| RouteKey { prefix, metric, tos, source, local },
    )
}

fn install() -> impl Strategy<Value = Install> {
    prop_oneof![4 => Just(Install::Both), 1 => Just(Install::Dataplane), 1 => Just(Install::Kernel)]
}

/// Around those of the kernel's routes, and behind the speaker's.
fn metric() -> impl Strategy<Value = u32> {
    prop_oneof![0_u32..3, Just(BGP_METRIC + 1)]
}

fn static_kind() -> impl Strategy<Value = StaticKind> {
    let interface = prop::option::of(ifindex().prop_map(|ifindex| format!("eth{ifindex}")));
    let hop = (prop::option::weighted(0.8, address()), interface, 1_u16..3)
        .prop_map(|(gateway, interface, weight)| StaticNextHop { gateway, interface, weight });
    prop_oneof![
        6 => prop::collection::vec(hop, 1..3).prop_map(StaticKind::Forward),
        1 => Just(StaticKind::Blackhole),
        1 => Just(StaticKind::Unreachable),
        1 => Just(StaticKind::Prohibit),
    ]
}

fn fact() -> impl Strategy<Value = Fact> {
    let mac = prop::option::weighted(0.7, (0_u8..3).prop_map(|mac| [mac; 6]));
    prop_oneof![
        4 => link().prop_map(Fact::Link),
        1 => ifindex().prop_map(|ifindex| Fact::LinkGone { ifindex }),
        5 => (ifindex(), address(), mac).prop_map(|(ifindex, address, mac)| {
            Fact::Neighbour { ifindex, address, mac }
        }),
        6 => (key(), kind()).prop_map(|(key, kind)| Fact::KernelRoute(KernelRoute { key, kind })),
        2 => key().prop_map(Fact::KernelRouteGone),
        6 => (any_prefix(), prop::collection::vec(address(), 0..3), install())
            .prop_map(|(prefix, next_hops, install)| Fact::Bgp { prefix, next_hops: sorted(next_hops), install }),
        2 => leading(),
        4 => (any_prefix(), metric(), prop::option::weighted(0.8, static_kind()))
            .prop_map(|(prefix, metric, kind)| Fact::Static { prefix, metric, kind }),
        1 => (address(), any::<bool>()).prop_map(|(address, present)| Fact::Vip { address, present }),
        1 => (any_prefix(), kind()).prop_map(|(prefix, kind)| Fact::Stale { prefix, kind }),
        1 => Just(Fact::StaleOver),
        1 => any::<bool>().prop_map(|present| Fact::PolicyRules { present }),
    ]
}

fn leading() -> impl Strategy<Value = Fact> {
    let hops = prop::collection::vec(address(), 0..3).prop_map(sorted);
    let by_level = prop::collection::vec(hops, 0..4);
    (any_prefix(), by_level).prop_map(|(prefix, by_level)| Fact::Leading { prefix, by_level })
}

/// Facts that mostly are routes of the speaker's which lead to each other's next hops, above one connected network.
fn deep() -> impl Strategy<Value = Fact> {
    let paths = (any_prefix(), prop::collection::vec(address(), 0..3), install());
    let bgp = paths.prop_map(|(prefix, next_hops, install)| Fact::Bgp {
        prefix,
        next_hops: sorted(next_hops),
        install,
    });
    let base = |(up, address): (bool, IpAddr)| {
        let prefix = IpNetwork::new(address, if address.is_ipv4() { 30 } else { 126 }).unwrap();
        let key = RouteKey { prefix, metric: 7, tos: 0, source: None, local: false };
        let hop = KernelNextHop { ifindex: 1, gateway: None, weight: 1, mtu: None };
        let kind = KernelRouteKind::Unicast(vec![hop]);
        if up { Fact::KernelRoute(KernelRoute { key, kind }) } else { Fact::KernelRouteGone(key) }
    };
    prop_oneof![12 => bgp, 3 => leading(), 2 => (prop::bool::weighted(0.8), address()).prop_map(base), 1 => fact()]
}

fn agree(
    facts: Vec<(Fact, bool)>,
    watched: &BTreeSet<IpAddr>,
) -> Result<(), proptest::test_runner::TestCaseError> {
    let (mut fib, mut model, mut all) = (Fib::new([1, 2]), Model::default(), Facts::default());
    let watch = |fib: &mut Fib, next_hop: &IpAddr| (*next_hop, fib.watch(*next_hop));
    model.reached = watched.iter().map(|next_hop| watch(&mut fib, next_hop)).collect();
    let last = facts.len() - 1;
    for (place, (fact, poll)) in facts.into_iter().enumerate() {
        all.note(&fact);
        fib.handle(fact);
        if poll || place == last {
            model.take_all(&mut fib)?;
            all.resolve_all(watched);
            prop_assert_eq!(in_order(model.routes()), in_order(all.routes()));
            prop_assert_eq!(&model.installed, &all.installed());
            let reached = watched.iter().map(|next_hop| (*next_hop, all.reach(*next_hop)));
            prop_assert_eq!(&model.reached, &reached.collect());
            let in_use: BTreeSet<_> = fib.neighbours_in_use(None).collect();
            prop_assert_eq!(&in_use, &all.needs());
            let unknown: BTreeSet<_> =
                in_use.into_iter().filter(|(on, at)| all.mac(*on, *at).is_none()).collect();
            prop_assert_eq!(&fib.asked, &unknown);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn outputs_add_up_to_a_recomputation_from_all_facts(
        facts in prop::collection::vec((fact(), prop::bool::weighted(0.4)), 1..60),
        watched in prop::collection::btree_set(address(), 0..6),
    ) {
        agree(facts, &watched)?;
    }

    #[test]
    fn routes_that_lead_to_each_other_add_up_to_the_same_whatever_the_order(
        link in link(),
        facts in prop::collection::vec((deep(), prop::bool::weighted(0.4)), 1..60),
        watched in prop::collection::btree_set(address(), 0..6),
    ) {
        let up = Fact::Link(Link { ifindex: 1, up: true, ..link });
        agree([(up, false)].into_iter().chain(facts).collect(), &watched)?;
    }

    #[test]
    fn a_fact_told_twice_changes_nothing(
        facts in prop::collection::vec(fact(), 1..40), again in fact(),
    ) {
        let mut fib = Fib::new([1, 2]);
        for fact in facts {
            fib.handle(fact);
        }
        fib.handle(again.clone());
        while fib.poll_output().is_some() {}
        fib.handle(again);
        prop_assert_eq!(fib.poll_output(), None);
    }
}
