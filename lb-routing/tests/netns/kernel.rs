//! What the kernel has reaches the FIB, and routes of ours reach the kernel.

use lb_routing::{Action, Member, OWN_METRIC, RTPROT_LBD, Source};

use crate::lab::{Router, alone, eventually, ifindex, in_namespace, ip, kernel_route, veth};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

fn only_member(route: Option<&(Source, Action)>) -> Option<Member> {
    match route {
        Some((_, Action::Forward(members))) if members.len() == 1 => members.first().copied(),
        Some((_, Action::Forward(_) | Action::Kernel | Action::Blackhole)) | None => None,
    }
}

#[test]
fn the_kernels_routes_are_mirrored_and_follow_its_changes() {
    in_namespace(async || {
        veth("lbr0", "10.0.0.1/24");
        ip("route add 172.16.0.0/16 via 10.0.0.2");
        ip("route add blackhole 172.17.0.0/16");
        ip("route add unreachable 172.18.0.0/16");
        let mut router = Router::start(alone()).await;
        router.synced().await;
        let link = ifindex("lbr0");
        let gateway = "10.0.0.2".parse().ok();

        let connected = only_member(router.route("10.0.0.0/24").as_ref()).unwrap();
        assert_eq!((connected.ifindex, connected.gateway, connected.mtu), (link, None, 1500));
        let via = only_member(router.route("172.16.0.0/16").as_ref()).unwrap();
        assert_eq!((via.ifindex, via.gateway, via.destination_mac), (link, gateway, None));
        let black = router.route("172.17.0.0/16");
        assert_eq!(black, Some((Source::Kernel, Action::Blackhole)));
        for local in ["10.0.0.1/32", "10.0.0.255/32", "127.0.0.0/8", "172.18.0.0/16"] {
            assert_eq!(router.route(local), Some((Source::Kernel, Action::Kernel)), "{local}");
        }

        ip("route add 172.19.0.0/16 via 10.0.0.3");
        router.route_is("172.19.0.0/16", |route| route.is_some()).await;
        ip("route del 172.19.0.0/16");
        router.route_is("172.19.0.0/16", |route| route.is_none()).await;
        // The lower metric wins, and the other one is back when it goes.
        ip("route add blackhole 172.20.0.0/16 metric 20");
        ip("route add unreachable 172.20.0.0/16 metric 10");
        let is =
            |action: Action| move |r: Option<&(Source, Action)>| r.is_some_and(|r| r.1 == action);
        router.route_is("172.20.0.0/16", is(Action::Kernel)).await;
        ip("route del unreachable 172.20.0.0/16 metric 10");
        router.route_is("172.20.0.0/16", is(Action::Blackhole)).await;
    });
}

#[test]
fn ipv6_routes_neighbours_and_local_addresses_are_mirrored() {
    in_namespace(async || {
        veth("lbr0", "10.0.0.1/24");
        ip("-6 addr add 2001:db8::1/64 dev lbr0 nodad");
        ip("-6 route add 2001:db8:1::/48 via 2001:db8::2");
        ip("-6 route add default via fe80::2 dev lbr0");
        ip("-6 route add blackhole 2001:db8:2::/48");
        ip("-6 route add unreachable 2001:db8:3::/48");
        ip("route add 172.16.0.0/16 via inet6 fe80::2 dev lbr0");
        let mut router = Router::start(alone()).await;
        router.synced().await;
        let link = ifindex("lbr0");

        let connected = only_member(router.route("2001:db8::/64").as_ref()).unwrap();
        assert_eq!((connected.ifindex, connected.gateway, connected.mtu), (link, None, 1500));
        let via = only_member(router.route("2001:db8:1::/48").as_ref()).unwrap();
        assert_eq!((via.ifindex, via.gateway), (link, "2001:db8::2".parse().ok()));
        for either in ["::/0", "172.16.0.0/16"] {
            let via = only_member(router.route(either).as_ref()).unwrap();
            assert_eq!((via.ifindex, via.gateway), (link, "fe80::2".parse().ok()), "{either}");
        }
        let black = router.route("2001:db8:2::/48");
        assert_eq!(black, Some((Source::Kernel, Action::Blackhole)));
        for local in ["2001:db8::1/128", "::1/128", "2001:db8:3::/48", "fe80::/64"] {
            assert_eq!(router.route(local), Some((Source::Kernel, Action::Kernel)), "{local}");
        }

        // A neighbour completes the members that lead to it, and has a route of its own.
        ip("neigh replace 2001:db8::2 lladdr 02:00:00:00:00:07 dev lbr0 nud permanent");
        let has_mac = |route: Option<&(Source, Action)>| {
            only_member(route).is_some_and(|member| member.destination_mac == Some(MAC))
        };
        router.route_is("2001:db8:1::/48", has_mac).await;
        router.route_is("2001:db8::2/128", has_mac).await;
        ip("-6 route del 2001:db8:1::/48");
        router.route_is("2001:db8:1::/48", |route| route.is_none()).await;
    });
}

#[test]
fn an_ipv6_route_that_loses_one_of_two_next_hops_keeps_the_other() {
    in_namespace(async || {
        veth("lbr0", "10.0.0.1/24");
        ip("-6 addr add 2001:db8::1/64 dev lbr0 nodad");
        ip("-6 route add 2001:db8:1::/48 nexthop via 2001:db8::2 nexthop via 2001:db8::3");
        let mut router = Router::start(alone()).await;
        router.synced().await;
        let Some((_, Action::Forward(both))) = router.route("2001:db8:1::/48") else {
            panic!("no route with two next hops")
        };
        assert_eq!(both.len(), 2);
        ip("-6 route del 2001:db8:1::/48 via 2001:db8::2 dev lbr0");
        let left = |route: Option<&(Source, Action)>| {
            only_member(route).is_some_and(|member| member.gateway == "2001:db8::3".parse().ok())
        };
        router.route_is("2001:db8:1::/48", left).await;
    });
}

#[test]
fn routes_that_the_kernel_drops_without_a_word_leave_the_fib() {
    in_namespace(async || {
        veth("lbr0", "10.0.0.1/24");
        ip("route add 172.16.0.0/16 via 10.0.0.2");
        let mut router = Router::start(alone()).await;
        router.synced().await;
        assert!(router.route("172.16.0.0/16").is_some());
        ip("link set lbr0 down");
        router.route_is("172.16.0.0/16", |route| route.is_none()).await;
        router.route_is("10.0.0.0/24", |route| route.is_none()).await;
    });
}

#[test]
fn after_an_overrun_of_events_the_fib_is_what_the_kernel_has() {
    in_namespace(async || {
        veth("lbr0", "10.0.0.1/24");
        ip("route add 172.16.0.0/16 via 10.0.0.2");
        let mut router = Router::start(alone()).await;
        router.synced().await;
        // Far more events than the socket's buffer holds, while nobody reads: the test and the watcher
        // share a thread. The events that matter are the last ones, so they are lost.
        let folder = tempfile::tempdir().unwrap();
        let batch = folder.path().join("batch");
        let flood =
            (0..40_000).map(|n| format!("route add blackhole 100.64.{}.{}\n", n / 256, n % 256));
        let last = "route del 172.16.0.0/16\nroute add blackhole 172.17.0.0/16\n".to_owned();
        std::fs::write(&batch, flood.chain([last]).collect::<String>()).unwrap();
        ip(&format!("-batch {}", batch.display()));
        router.route_is("172.16.0.0/16", |route| route.is_none()).await;
        router.route_is("172.17.0.0/16", |route| route.is_some()).await;
        router.route_is("100.64.156.63/32", |route| route.is_some()).await;
    });
}

#[test]
fn a_rule_of_policy_routing_hands_every_packet_to_the_kernel_while_it_is_there() {
    in_namespace(async || {
        veth("lbr0", "10.0.0.1/24");
        ip("route add 172.16.0.0/16 via 10.0.0.2");
        // For this host's own packets: of no matter.
        ip("rule add iif lo lookup 7 priority 90");
        let mut router = Router::start(alone()).await;
        router.synced().await;
        assert!(only_member(router.route("172.16.0.0/16").as_ref()).is_some());
        ip("rule add from 192.0.2.0/24 lookup 7 priority 100");
        let is_kernels = |r: Option<&(Source, Action)>| r.is_some_and(|r| r.1 == Action::Kernel);
        router.route_is("172.16.0.0/16", is_kernels).await;
        assert_eq!(router.handle.policy_rules(), ["100: from 192.0.2.0/24 lookup 7"]);
        ip("rule del from 192.0.2.0/24 lookup 7 priority 100");
        router.route_is("172.16.0.0/16", |route| only_member(route).is_some()).await;
        assert!(router.handle.policy_rules().is_empty());
    });
}

#[test]
fn routes_by_next_hop_objects_are_mirrored_and_follow_the_objects() {
    in_namespace(async || {
        veth("lbr0", "10.0.0.1/24");
        ip("nexthop add id 1 via 10.0.0.2 dev lbr0");
        ip("nexthop add id 2 via 10.0.0.3 dev lbr0");
        ip("nexthop add id 10 group 1/2,3");
        ip("route add 172.16.0.0/16 nhid 10");
        ip("route add 172.17.0.0/16 nhid 1");
        let mut router = Router::start(alone()).await;
        router.synced().await;
        let ways = |route: Option<&(Source, Action)>| match route {
            Some((_, Action::Forward(members))) => {
                members.iter().map(|m| (m.gateway.unwrap().to_string(), m.weight)).collect()
            }
            Some((_, Action::Kernel | Action::Blackhole)) | None => Vec::new(),
        };
        let way = |gateway: &str, weight| (gateway.to_owned(), weight);
        let group = router.route("172.16.0.0/16");
        assert_eq!(ways(group.as_ref()), [way("10.0.0.2", 1), way("10.0.0.3", 3)]);
        let single = router.route("172.17.0.0/16");
        assert_eq!(ways(single.as_ref()), [way("10.0.0.2", 1)]);
        ip("nexthop replace id 1 via 10.0.0.4 dev lbr0");
        let follows = [way("10.0.0.4", 1)];
        router.route_is("172.17.0.0/16", |route| ways(route) == follows).await;
        ip("nexthop replace id 10 group 2");
        let follows = [way("10.0.0.3", 1)];
        router.route_is("172.16.0.0/16", |route| ways(route) == follows).await;
    });
}

#[test]
fn a_neighbour_completes_members_and_leaves_them() {
    in_namespace(async || {
        veth("lbr0", "10.0.0.1/24");
        ip("route add 172.16.0.0/16 via 10.0.0.2");
        let mut router = Router::start(alone()).await;
        router.synced().await;
        let mac = |route: Option<&(Source, Action)>| only_member(route)?.destination_mac;

        ip("neigh replace 10.0.0.2 lladdr 02:00:00:00:00:07 dev lbr0 nud reachable");
        router.route_is("172.16.0.0/16", |route| mac(route) == Some(MAC)).await;
        router.route_is("10.0.0.2/32", |route| mac(route) == Some(MAC)).await;
        assert_eq!(router.route("10.0.0.2/32").unwrap().0, Source::Neighbour);

        ip("neigh replace 10.0.0.2 lladdr 02:00:00:00:00:08 dev lbr0 nud reachable");
        let other = [2, 0, 0, 0, 0, 8];
        router.route_is("172.16.0.0/16", |route| mac(route) == Some(other)).await;

        ip("neigh del 10.0.0.2 dev lbr0");
        router.route_is("10.0.0.2/32", |route| route.is_none()).await;
        router.route_is("172.16.0.0/16", |route| mac(route).is_none()).await;
    });
}

#[test]
fn the_kernel_is_asked_for_gateways_without_a_mac() {
    in_namespace(async || {
        veth("lbr0", "10.0.0.1/24");
        ip("route add 172.16.0.0/16 via 10.0.0.2");
        let _router = Router::start(alone()).await;
        // Nobody sends a packet; the entry is there because it was asked for.
        eventually("an entry for the gateway", async || {
            ip("neigh show 10.0.0.2").contains("lbr0").then_some(())
        })
        .await;
    });
}

#[test]
fn vips_have_an_unreachable_route_of_ours_and_others_routes_stay_untouched() {
    in_namespace(async || {
        veth("lbr0", "10.0.0.1/24");
        ip("route add 172.16.0.0/16 via 10.0.0.2 proto static");
        ip(&format!("route add 172.17.0.0/16 via 10.0.0.2 proto bird metric {OWN_METRIC}"));
        let foreign = ["172.16.0.0/16", "172.17.0.0/16"];
        let before = foreign.map(|prefix| ip(&format!("route show {prefix}")));
        let mut router = Router::start(alone()).await;
        let ours = format!("proto {RTPROT_LBD}");

        router.handle.set_vips(vec!["192.0.2.10".parse().unwrap()]).await;
        let unreachable = |printed: &str| printed.starts_with("unreachable 192.0.2.10");
        kernel_route(&ours, unreachable).await;
        router
            .route_is("192.0.2.10/32", |route| route == Some(&(Source::Kernel, Action::Kernel)))
            .await;

        // Somebody else takes it away: it comes back.
        ip(&format!("route flush {ours}"));
        kernel_route(&ours, unreachable).await;

        router.handle.set_vips(vec!["192.0.2.11".parse().unwrap()]).await;
        kernel_route(&ours, |printed| {
            printed.starts_with("unreachable 192.0.2.11") && printed.lines().count() == 1
        })
        .await;

        // An orderly end leaves it; the cleanup takes it.
        router.handle.shutdown().await;
        kernel_route(&ours, |printed| printed.starts_with("unreachable 192.0.2.11")).await;
        assert_eq!(lb_routing::cleanup().await.unwrap(), (1, 0));
        assert_eq!(ip(&format!("route show {ours}")), "");
        assert_eq!(foreign.map(|prefix| ip(&format!("route show {prefix}"))), before);
    });
}

#[test]
fn a_foreign_route_of_our_metric_is_never_replaced() {
    in_namespace(async || {
        ip(&format!("route add blackhole 192.0.2.10 metric {OWN_METRIC}"));
        let router = Router::start(alone()).await;
        router
            .handle
            .set_vips(vec!["192.0.2.10".parse().unwrap(), "192.0.2.11".parse().unwrap()])
            .await;
        // The second one shows that the first one was tried.
        kernel_route("192.0.2.11", |printed| printed.starts_with("unreachable")).await;
        assert!(ip("route show 192.0.2.10").starts_with("blackhole"));
        ip(&format!("route del blackhole 192.0.2.10 metric {OWN_METRIC}"));
        kernel_route("192.0.2.10", |printed| printed.starts_with("unreachable")).await;
    });
}

#[test]
fn what_a_previous_process_left_stays_until_the_vips_are_known() {
    in_namespace(async || {
        veth("lbr0", "10.0.0.1/24");
        let ours = format!("proto {RTPROT_LBD}");
        ip(&format!("route add unreachable 192.0.2.10 {ours} metric {OWN_METRIC}"));
        ip(&format!("route add 172.16.0.0/16 via 10.0.0.2 {ours} metric {OWN_METRIC}"));
        let mut router = Router::start(alone()).await;
        router.synced().await;
        let via = router.route("172.16.0.0/16").unwrap();
        assert_eq!(via.0, Source::Bgp);
        assert!(only_member(Some(&via)).unwrap().gateway.is_some());
        assert_eq!(ip(&format!("route show {ours}")).lines().count(), 2);

        router.handle.set_vips(vec!["192.0.2.10".parse().unwrap()]).await;
        kernel_route(&ours, |printed| {
            printed.starts_with("unreachable 192.0.2.10") && printed.lines().count() == 1
        })
        .await;
        router.route_is("172.16.0.0/16", |route| route.is_none()).await;
    });
}

#[test]
fn links_are_told_as_they_come_and_go() {
    in_namespace(async || {
        let router = Router::start(alone()).await;
        let mut links = router.handle.links();
        veth("lbr0", "10.0.0.1/24");
        links
            .wait_for(|links| links.iter().any(|l| l.name == "lbr0" && l.up && l.ethernet))
            .await
            .unwrap();
        ip("link del lbr0");
        links.wait_for(|links| links.iter().all(|link| link.name != "lbr0")).await.unwrap();
        assert!(links.borrow().iter().any(|link| link.name == "lo" && !link.ethernet));
    });
}

#[test]
fn the_default_router_id_is_the_highest_address_but_loopback() {
    in_namespace(async || {
        assert_eq!(lb_routing::default_router_id().await.unwrap(), None);
        veth("lbr0", "10.0.0.1/24");
        veth("lbr1", "10.0.9.1/24");
        assert_eq!(lb_routing::default_router_id().await.unwrap(), "10.0.9.1".parse().ok());
    });
}
