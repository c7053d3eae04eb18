//! Each side damaged in turn.

use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn gateway(n: u8) -> IpAddr {
    [10, 0, 0, n].into()
}

fn hop(n: u8) -> KernelNextHop {
    KernelNextHop { ifindex: 1, gateway: Some(gateway(n)), weight: 1, mtu: None }
}

fn member(n: u8) -> Member {
    Member {
        ifindex: 1,
        source_mac: [0; 6],
        destination_mac: Some(MAC),
        gateway: Some(gateway(n)),
        mtu: 1500,
        weight: 1,
    }
}

fn link(ifindex: u32, up: bool, ethernet: bool) -> Link {
    Link {
        ifindex,
        name: format!("eth{ifindex}"),
        mac: [0; 6],
        mtu: 1500,
        up,
        ethernet,
        controller: None,
        vlan: None,
    }
}

/// All sides agree: a route of each kind, and a neighbour.
fn agreeing() -> Sides {
    let told = |prefix: &str, group, source, in_kernel| {
        (net(prefix), ToldRoute { prefix: net(prefix), group, source, in_kernel })
    };
    let told = HashMap::from([
        told("172.16.0.0/16", 1, Source::Kernel, true),
        told("172.17.0.0/16", 1, Source::Bgp, true),
        told("172.18.0.0/16", 1, Source::Bgp, false),
        told("172.19.0.0/16", 2, Source::Static, true),
        told("10.0.0.1/32", 3, Source::Kernel, true),
        told("10.0.0.2/32", 4, Source::Neighbour, false),
    ]);
    let hops = KernelRouteKind::Unicast(vec![hop(2), hop(3)]);
    let neighbour = Member { gateway: None, ..member(2) };
    let theirs = |m: Member| {
        let Member { ifindex, source_mac, destination_mac, gateway, mtu, weight } = m;
        lb_routing::Member { ifindex, source_mac, destination_mac, gateway, mtu, weight }
    };
    Sides {
        strays: Vec::new(),
        groups: HashMap::from([
            (1, lb_routing::Action::Forward([member(2), member(3)].map(theirs).into())),
            (2, lb_routing::Action::Blackhole),
            (3, lb_routing::Action::Kernel),
            (4, lb_routing::Action::Forward(vec![theirs(neighbour)])),
        ]),
        left_out: 0,
        kernel: BTreeMap::from([
            (net("172.16.0.0/16"), hops.clone()),
            (net("172.17.0.0/16"), hops),
            (net("172.19.0.0/16"), KernelRouteKind::Blackhole),
            (net("10.0.0.1/32"), KernelRouteKind::Kernel),
        ]),
        table: told.values().map(|told| (told.prefix, told.group)).collect(),
        told,
        actions: HashMap::from([
            (1, Action::Forward(vec![member(2), member(3)])),
            (2, Action::Blackhole),
            (3, Action::Kernel),
            (4, Action::Forward(vec![neighbour])),
        ]),
        world: World {
            links: vec![link(1, true, true)],
            neighbours: HashMap::from([((1, gateway(2)), MAC), ((1, gateway(3)), MAC)]),
            policy_rules: false,
            names: HashMap::from([(1, "eth1".to_owned())]),
        },
    }
}

/// What differs after a change.
fn differences(change: impl FnOnce(&mut Sides)) -> Differences {
    let mut sides = agreeing();
    change(&mut sides);
    sides.differences()
}

/// What is found of the kernel after a change.
fn found(change: impl FnOnce(&mut Sides)) -> Vec<String> {
    differences(change).kernel.into_values().collect()
}

/// What is found of the router after a change.
fn found_told(change: impl FnOnce(&mut Sides)) -> Vec<String> {
    differences(change).told.into_values().collect()
}

#[test]
fn nothing_is_found_where_all_agree() {
    assert!(differences(|_| ()).is_empty());
}

#[test]
fn what_ebpf_lacks_or_has_beyond_what_the_router_told_is_found() {
    let lacks = found_told(|sides| {
        sides.table.remove(&net("172.18.0.0/16"));
    });
    assert!(
        matches!(&lacks[..], [one] if one.contains("refused it or has yet to take")),
        "{lacks:?}"
    );
    let has = |prefix| {
        move |sides: &mut Sides| {
            sides.table.insert(net(prefix), 2);
        }
    };
    let other = found_told(has("172.18.0.0/16"));
    assert_eq!(other, ["172.18.0.0/16: eBPF has yet to take its new next hops"]);
    let beyond = found_told(has("192.0.2.0/24"));
    assert_eq!(beyond, ["192.0.2.0/24: eBPF has it, the router does not"]);
}

#[test]
fn a_group_that_does_something_else_than_the_router_told_is_found_also_of_routes_for_ebpf_alone() {
    let neighbour = found_told(|sides| drop(sides.actions.insert(4, Action::Kernel)));
    assert!(matches!(&neighbour[..], [one] if one.contains("to the kernel")), "{neighbour:?}");
    let another_mac = found_told(|sides| {
        let wrong = Member { destination_mac: Some([9; 6]), ..member(2) };
        sides.actions.insert(1, Action::Forward(vec![wrong, member(3)]));
    });
    assert_eq!(another_mac.len(), 1, "once for its three routes: {another_mac:?}");
    // What there is no room for is found elsewhere.
    let left_out = found_told(|sides| {
        sides.actions.insert(4, Action::NoRoom);
        sides.left_out = 1;
    });
    assert_eq!(left_out, [""; 0]);
}

#[test]
fn what_the_router_did_not_take_over_from_the_speaker_is_found() {
    let (prefix, selected) = (net("172.17.0.0/16"), vec![gateway(2)]);
    let all = differences(|sides| {
        sides.strays.push(Stray { prefix, selected, has: Vec::new() });
    });
    let found: Vec<_> = all.selected.into_values().collect();
    assert_eq!(found, ["172.17.0.0/16: BGP selected 10.0.0.2, the router has nothing"]);
}

#[test]
fn a_route_that_one_side_alone_has_is_found() {
    let missed = found(|s| drop(s.kernel.insert(net("192.0.2.0/24"), KernelRouteKind::Kernel)));
    assert_eq!(missed, ["192.0.2.0/24: the kernel has it, the router does not"]);
    for prefix in ["172.16.0.0/16", "172.17.0.0/16", "172.19.0.0/16"] {
        let gone = found(|sides| drop(sides.kernel.remove(&net(prefix))));
        assert_eq!(gone, [format!("{prefix}: router and eBPF have it, the kernel does not")]);
    }
    // Told and not there: that is found elsewhere.
    let untold = found(|sides| {
        sides.table.remove(&net("172.16.0.0/16"));
    });
    assert_eq!(untold, [""; 0]);
}

#[test]
fn what_is_for_the_dataplane_alone_need_not_be_in_the_kernel_and_may_be_otherwise_there() {
    let other = found(|sides| {
        sides.kernel.insert(net("172.18.0.0/16"), KernelRouteKind::Blackhole);
    });
    assert_eq!(other, [""; 0]);
}

#[test]
fn a_next_hop_that_is_left_out_is_found_unless_it_cannot_be_used() {
    let left_out = |sides: &mut Sides| {
        sides.actions.insert(1, Action::Forward(vec![member(2)]));
    };
    let both = found(left_out);
    let what = "eBPF sends packets via 10.0.0.2 dev eth1 mac 02:00:00:00:00:02, the kernel via 10.0.0.2 dev eth1, via 10.0.0.3 dev eth1";
    assert_eq!(both, [format!("172.16.0.0/16: {what}"), format!("172.17.0.0/16: {what}")]);
    let silent = found(|sides| {
        left_out(sides);
        sides.world.neighbours.remove(&(1, gateway(3)));
    });
    assert_eq!(silent, [""; 0]);
    for (up, count) in [(false, 0), (true, 2)] {
        let by_another_link = found(|sides| {
            left_out(sides);
            let second = KernelNextHop { ifindex: 2, gateway: None, ..hop(3) };
            for prefix in ["172.16.0.0/16", "172.17.0.0/16"] {
                let hops = KernelRouteKind::Unicast(vec![hop(2), second]);
                sides.kernel.insert(net(prefix), hops);
            }
            sides.world.links.push(link(2, up, true));
        });
        assert_eq!(by_another_link.len(), count, "{by_another_link:?}");
    }
}

#[test]
fn another_next_hop_and_another_mac_are_found() {
    let other = found(|sides| {
        sides.actions.insert(1, Action::Forward(vec![member(2), member(4)]));
    });
    assert_eq!(other.len(), 2, "{other:?}");
    let moved = found(|sides| {
        sides.world.neighbours.insert((1, gateway(2)), [2, 0, 0, 0, 0, 9]);
    });
    assert_eq!(moved.len(), 3, "both routes and the neighbour itself: {moved:?}");
    assert_eq!(
        moved[0],
        "10.0.0.2/32: eBPF sends packets to 02:00:00:00:00:02, the kernel to 02:00:00:00:00:09"
    );
}

#[test]
fn another_kind_of_route_is_found() {
    for (kind, what) in [
        (KernelRouteKind::Kernel, "the kernel takes them itself"),
        (KernelRouteKind::Reject, "the kernel refuses them"),
        (KernelRouteKind::Blackhole, "the kernel drops them"),
    ] {
        let other = found(|sides| drop(sides.kernel.insert(net("172.16.0.0/16"), kind)));
        assert!(matches!(&other[..], [one] if one.ends_with(what)), "{other:?}");
    }
    let dropped = found(|sides| {
        let hops = KernelRouteKind::Unicast(vec![hop(2)]);
        sides.kernel.insert(net("172.19.0.0/16"), hops);
    });
    let what = "172.19.0.0/16: eBPF sends packets nowhere, the kernel via 10.0.0.2 dev eth1";
    assert_eq!(dropped, [what]);
}

#[test]
fn what_is_handed_over_though_ebpf_could_send_it_is_found() {
    let handed = |sides: &mut Sides| {
        sides.table.insert(net("172.16.0.0/16"), 3);
    };
    let one = found(handed);
    assert!(matches!(&one[..], [one] if one.contains("to the kernel, the kernel via")), "{one:?}");
    for excuse in [
        (|sides: &mut Sides| sides.world.policy_rules = true) as fn(&mut Sides),
        |sides| sides.world.links = vec![link(1, true, false)],
        |sides| sides.world.links = vec![link(1, false, true)],
    ] {
        let none = found(|sides| {
            handed(sides);
            excuse(sides);
        });
        assert_eq!(none, [""; 0]);
    }
    // By eBPF alone, also of the speaker's; and by the router, which was told that only the kernel is to have it.
    let of_speaker = |sides: &mut Sides| {
        sides.table.insert(net("172.17.0.0/16"), 3);
    };
    assert_eq!(found(of_speaker).len(), 1);
    let by_wish = found(|sides| {
        of_speaker(sides);
        sides.told.get_mut(&net("172.17.0.0/16")).unwrap().group = 3;
    });
    assert_eq!(by_wish, [""; 0]);
}
