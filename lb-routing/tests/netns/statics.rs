//! Routes and addresses of the configuration, in the kernel and in the FIB.

use lb_routing::{
    Action, AddressState, InterfaceAddress, RTPROT_LBD, Source, StaticKind, StaticNextHop,
    StaticRoute, Statics,
};

use crate::lab::{Router, alone, eventually, in_namespace, ip, kernel_route, net, veth};

fn hop(gateway: &str, interface: Option<&str>, weight: u16) -> StaticNextHop {
    StaticNextHop { gateway: gateway.parse().ok(), interface: interface.map(Into::into), weight }
}

fn route(prefix: &str, metric: u32, kind: StaticKind) -> StaticRoute {
    StaticRoute { prefix: net(prefix), metric, kind }
}

fn via(prefix: &str, gateway: &str) -> StaticRoute {
    route(prefix, 20, StaticKind::Forward(vec![hop(gateway, None, 1)]))
}

fn address(interface: &str, address: &str) -> InterfaceAddress {
    InterfaceAddress { interface: interface.into(), address: net(address) }
}

fn is_static(route: Option<&(Source, Action)>) -> bool {
    route.is_some_and(|(source, action)| {
        *source == Source::Static && matches!(action, Action::Forward(_))
    })
}

#[test]
fn routes_and_addresses_come_with_the_configuration_and_go_with_it() {
    in_namespace(async || {
        veth("lbr0", "198.51.100.1/24");
        let shown = || ip("route show") + &ip("-6 route show") + &ip("addr show lbr0");
        // Its own address is there some time after the link is up, and is tentative for a while (RFC 4862 §5.4).
        let foreign = eventually("the link as it stays", async || {
            Some(shown()).filter(|it| it.contains("inet6 fe80:") && !it.contains("tentative"))
        })
        .await;
        let mut router = Router::start(alone()).await;
        router.synced().await;
        let both = vec![hop("10.0.0.2", None, 1), hop("10.0.0.3", Some("lbr0"), 3)];
        let routes = vec![
            route("172.16.0.0/16", 20, StaticKind::Forward(both)),
            route("172.17.0.0/16", 20, StaticKind::Blackhole),
            route("172.18.0.0/16", 20, StaticKind::Unreachable),
            route("2001:db8:9::/48", 30, StaticKind::Prohibit),
            via("2001:db8:1::/48", "2001:db8::2"),
            route(
                "2001:db8:2::/48",
                20,
                StaticKind::Forward(vec![hop("fe80::2", Some("lbr0"), 1)]),
            ),
            route("172.19.0.0/16", 20, StaticKind::Forward(vec![hop("", Some("lbr0"), 1)])),
        ];
        let addresses = vec![address("lbr0", "10.0.0.1/24"), address("lbr0", "2001:db8::1/64")];
        router.handle.set_statics(Statics { routes, addresses }).await;

        for prefix in ["172.16.0.0/16", "2001:db8:1::/48", "2001:db8:2::/48", "172.19.0.0/16"] {
            router.route_is(prefix, is_static).await;
        }
        let Some((_, Action::Forward(members))) = router.route("172.16.0.0/16") else { panic!() };
        assert_eq!(members.iter().map(|member| member.weight).collect::<Vec<_>>(), [1, 3]);
        router.route_is("172.17.0.0/16", |r| r == Some(&(Source::Static, Action::Blackhole))).await;
        router.route_is("2001:db8:9::/48", |r| r == Some(&(Source::Static, Action::Kernel))).await;
        kernel_route("172.16.0.0/16 proto 179", |printed| {
            printed.contains("via 10.0.0.2 dev lbr0 weight 1")
                && printed.contains("via 10.0.0.3 dev lbr0 weight 3")
        })
        .await;
        for (printed, start) in [
            ("172.17.0.0/16 proto 179", "blackhole"),
            ("172.18.0.0/16 proto 179", "unreachable"),
            ("172.19.0.0/16 proto 179", "172.19.0.0/16 dev lbr0 scope link metric 20"),
        ] {
            kernel_route(printed, |printed| printed.starts_with(start)).await;
        }
        eventually("IPv6 routes in the kernel", async || {
            let printed = ip("-6 route show proto 179");
            let there = printed.contains("prohibit 2001:db8:9::/48")
                && printed.contains("2001:db8:1::/48 via 2001:db8::2 dev lbr0")
                && printed.contains("2001:db8:2::/48 via fe80::2 dev lbr0");
            there.then_some(())
        })
        .await;
        eventually("every route in use, every address there", async || {
            let status = router.handle.statics().await;
            let routes = status.routes.iter().all(|it| it.installed && it.used);
            let there = status.addresses.iter().all(|(_, state)| *state == AddressState::Present);
            (routes && there && status.routes.len() == 7).then_some(())
        })
        .await;

        router.handle.set_statics(Statics::default()).await;
        router.route_is("172.16.0.0/16", |route| route.is_none()).await;
        eventually("the kernel as it was before", async || (shown() == foreign).then_some(()))
            .await;
    });
}

#[test]
fn whether_next_hops_can_be_reached_is_said_when_the_kernels_routes_are_known() {
    in_namespace(async || {
        veth("lbr0", "10.0.0.1/24");
        let router = Router::start(alone()).await;
        // At once, while the kernel is still being read.
        let hops = vec![hop("10.0.0.2", None, 1), hop("192.0.2.1", None, 1)];
        let why = router.handle.unreachable(hops, Vec::new()).await;
        assert_eq!(why[0], None);
        assert!(why[1].as_ref().is_some_and(|why| why.contains("no network of this host")));
    });
}

#[test]
fn an_interface_that_comes_back_gets_its_address_and_its_routes_again() {
    in_namespace(async || {
        let mut router = Router::start(alone()).await;
        router.synced().await;
        let (routes, addresses) =
            (vec![via("172.16.0.0/16", "10.0.0.2")], vec![address("lbr9", "10.0.0.1/24")]);
        router.handle.set_statics(Statics { routes, addresses }).await;
        let status = router.handle.statics().await;
        assert_eq!(status.addresses[0].1, AddressState::NoInterface);
        assert!(status.routes[0].unreachable[0].contains("no network"), "{status:?}");
        for _ in 0..2 {
            ip("link add lbr9 type veth peer name lbr9-far");
            ip("link set lbr9 up");
            ip("link set lbr9-far up");
            router.route_is("172.16.0.0/16", is_static).await;
            kernel_route("172.16.0.0/16", |printed| printed.contains("via 10.0.0.2 dev lbr9"))
                .await;
            ip("link del lbr9");
            router.route_is("172.16.0.0/16", |route| route.is_none()).await;
        }
    });
}

#[test]
fn somebody_who_takes_a_route_or_an_address_away_sees_it_come_back() {
    in_namespace(async || {
        veth("lbr0", "198.51.100.1/24");
        let mut router = Router::start(alone()).await;
        let (routes, addresses) =
            (vec![via("172.16.0.0/16", "10.0.0.2")], vec![address("lbr0", "10.0.0.1/24")]);
        router.handle.set_statics(Statics { routes, addresses }).await;
        router.route_is("172.16.0.0/16", is_static).await;
        let is_there = |printed: &str| printed.contains("via 10.0.0.2 dev lbr0 metric 20");
        kernel_route("172.16.0.0/16 proto 179", is_there).await;
        ip("addr del 10.0.0.1/24 dev lbr0");
        kernel_route("172.16.0.0/16 proto 179", is_there).await;
        // Another's of the same destination and metric takes its place, and gives it back.
        ip("route replace 172.16.0.0/16 via 198.51.100.2 proto static metric 20");
        router
            .route_is("172.16.0.0/16", |r| r.is_some_and(|(source, _)| *source == Source::Kernel))
            .await;
        ip("route del 172.16.0.0/16 via 198.51.100.2 proto static metric 20");
        kernel_route("172.16.0.0/16 proto 179", is_there).await;
        router.route_is("172.16.0.0/16", is_static).await;
    });
}

#[test]
fn after_a_restart_only_what_is_still_configured_stays() {
    in_namespace(async || {
        veth("lbr0", "198.51.100.1/24");
        let ours = format!("proto {RTPROT_LBD}");
        let before = Router::start(alone()).await;
        let routes = vec![via("172.16.0.0/16", "10.0.0.2"), via("172.17.0.0/16", "10.0.0.2")];
        let addresses = vec![address("lbr0", "10.0.0.1/24"), address("lbr0", "10.0.1.1/24")];
        before.handle.set_statics(Statics { routes, addresses }).await;
        kernel_route(&ours, |printed| printed.lines().count() == 2).await;
        before.handle.shutdown().await;
        drop(before);
        ip("route add 172.18.0.0/16 via 198.51.100.2 proto static metric 20");
        let mut router = Router::start(alone()).await;
        router.synced().await;
        // Until the configuration is known, both forward.
        for prefix in ["172.16.0.0/16", "172.17.0.0/16"] {
            assert!(router.route(prefix).is_some(), "{prefix}");
        }
        let (routes, addresses) =
            (vec![via("172.16.0.0/16", "10.0.0.2")], vec![address("lbr0", "10.0.0.1/24")]);
        router.handle.set_statics(Statics { routes, addresses }).await;
        router.handle.set_vips(Vec::new()).await;
        kernel_route("172.17.0.0/16", str::is_empty).await;
        router.route_is("172.17.0.0/16", |route| route.is_none()).await;
        eventually("the address that nobody asks for gone", async || {
            let printed = ip("addr show lbr0");
            assert!(printed.contains("10.0.0.1/24") && printed.contains("198.51.100.1/24"));
            (!printed.contains("10.0.1.1/24")).then_some(())
        })
        .await;
        kernel_route("172.16.0.0/16", |printed| printed.contains("via 10.0.0.2")).await;
        assert!(ip("route show 172.18.0.0/16").contains("proto static"));
        router.route_is("172.16.0.0/16", is_static).await;

        router.handle.shutdown().await;
        assert_eq!(lb_routing::cleanup().await.unwrap(), (1, 1));
        assert!(!ip("addr show lbr0").contains("10.0.0.1/24"));
        assert_eq!(ip(&format!("route show {ours}")), "");
    });
}
