//! What a route of the kernel says beside its next hops is obeyed, or makes it the kernel's own.

use lb_routing::{Action, Member, Source};

use crate::lab::{Router, alone, in_namespace, ip, veth};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

fn members(route: Option<&(Source, Action)>) -> &[Member] {
    match route {
        Some((_, Action::Forward(members))) => members,
        Some((_, Action::Kernel | Action::Blackhole)) | None => &[],
    }
}

fn is_kernels(route: Option<&(Source, Action)>) -> bool {
    route.is_some_and(|(_, action)| *action == Action::Kernel)
}

#[test]
fn a_prefix_that_has_a_route_for_some_sources_is_the_kernels_while_it_has_one() {
    in_namespace(async || {
        veth("lbr0", "10.0.0.1/24");
        ip("-6 addr add 2001:db8::1/64 dev lbr0 nodad");
        ip("-6 route add 2001:db8:1::/48 via 2001:db8::2");
        ip("-6 route add 2001:db8:1::/48 from 2001:db8:7::/48 via 2001:db8::3");
        let mut router = Router::start(alone()).await;
        router.synced().await;
        assert!(is_kernels(router.route("2001:db8:1::/48").as_ref()));
        ip("-6 route del 2001:db8:1::/48 from 2001:db8:7::/48 via 2001:db8::3");
        let via = |route: Option<&(Source, Action)>, gateway: &str| {
            members(route).iter().map(|m| m.gateway).eq([gateway.parse().ok()])
        };
        router.route_is("2001:db8:1::/48", |route| via(route, "2001:db8::2")).await;
        ip("-6 route add 2001:db8:1::/48 from 2001:db8:8::/48 via 2001:db8::3");
        router.route_is("2001:db8:1::/48", is_kernels).await;
    });
}

#[test]
fn a_route_for_one_type_of_service_makes_its_prefix_the_kernels() {
    in_namespace(async || {
        veth("lbr0", "10.0.0.1/24");
        ip("route add 172.16.0.0/16 via 10.0.0.2");
        let mut router = Router::start(alone()).await;
        router.synced().await;
        assert_eq!(members(router.route("172.16.0.0/16").as_ref()).len(), 1);
        ip("route add 172.16.0.0/16 tos 0x10 via 10.0.0.3");
        router.route_is("172.16.0.0/16", is_kernels).await;
        ip("route del 172.16.0.0/16 tos 0x10 via 10.0.0.3");
        router.route_is("172.16.0.0/16", |route| members(route).len() == 1).await;
    });
}

#[test]
fn the_mtu_of_a_route_holds_for_its_next_hops_and_for_the_neighbours_that_it_covers() {
    in_namespace(async || {
        veth("lbr0", "10.0.0.1/24");
        ip("route add 172.16.0.0/16 via 10.0.0.2 mtu 1300");
        ip("route add 172.17.0.0/16 via 10.0.0.2 mtu lock 9000");
        ip("route add 10.0.9.0/24 dev lbr0 mtu 1200");
        ip("neigh replace 10.0.9.7 lladdr 02:00:00:00:00:07 dev lbr0 nud permanent");
        let mut router = Router::start(alone()).await;
        router.synced().await;
        for (prefix, mtu) in [
            ("10.0.0.0/24", 1500),
            ("172.16.0.0/16", 1300),
            // No frame is longer than the link takes.
            ("172.17.0.0/16", 1500),
            ("10.0.9.0/24", 1200),
        ] {
            let route = router.route(prefix);
            assert!(members(route.as_ref()).iter().map(|m| m.mtu).eq([mtu]), "{prefix} {route:?}");
        }
        let neighbour = |route: Option<&(Source, Action)>, mtu| {
            members(route).iter().map(|m| (m.destination_mac, m.mtu)).eq([(Some(MAC), mtu)])
        };
        router.route_is("10.0.9.7/32", |route| neighbour(route, 1200)).await;
        ip("route replace 10.0.9.0/24 dev lbr0 mtu 1250");
        router.route_is("10.0.9.7/32", |route| neighbour(route, 1250)).await;
        ip("route replace 172.16.0.0/16 via 10.0.0.2");
        let is_links =
            |route: Option<&(Source, Action)>| members(route).iter().map(|m| m.mtu).eq([1500]);
        router.route_is("172.16.0.0/16", is_links).await;
    });
}

#[test]
fn of_two_ipv4_routes_of_a_prefix_and_metric_the_first_one_counts_and_the_second_one_after_it() {
    in_namespace(async || {
        veth("lbr0", "10.0.0.1/24");
        ip("route add 172.16.0.0/16 via 10.0.0.2");
        ip("route append 172.16.0.0/16 via 10.0.0.3");
        let mut router = Router::start(alone()).await;
        router.synced().await;
        let via = |route: Option<&(Source, Action)>, gateway: &str| {
            members(route).iter().map(|m| m.gateway).eq([gateway.parse().ok()])
        };
        assert!(via(router.route("172.16.0.0/16").as_ref(), "10.0.0.2"));
        ip("route del 172.16.0.0/16 via 10.0.0.2");
        router.route_is("172.16.0.0/16", |route| via(route, "10.0.0.3")).await;
    });
}

#[test]
fn of_two_ipv6_routes_of_a_prefix_and_metric_the_kernel_chooses_while_there_are_two() {
    in_namespace(async || {
        veth("lbr0", "10.0.0.1/24");
        veth("lbr1", "10.1.0.1/24");
        for link in ["lbr0", "lbr1"] {
            ip(&format!("-6 addr add 2001:db8::1{}/64 dev {link} nodad", &link[3..]));
        }
        let mut router = Router::start(alone()).await;
        router.synced().await;
        router.route_is("2001:db8::/64", is_kernels).await;
        ip("-6 addr del 2001:db8::10/64 dev lbr0");
        router.route_is("2001:db8::/64", |route| members(route).len() == 1).await;
        ip("-6 addr add 2001:db8::10/64 dev lbr0 nodad");
        router.route_is("2001:db8::/64", is_kernels).await;
    });
}

#[test]
fn a_route_stays_while_another_of_its_prefix_and_metric_comes_and_goes_beside_it() {
    in_namespace(async || {
        veth("lbr0", "10.0.0.1/24");
        ip("route add 172.16.0.0/16 via 10.0.0.2");
        let mut router = Router::start(alone()).await;
        router.synced().await;
        for (way, marker) in [("append", "172.18.0.0/16"), ("prepend", "172.19.0.0/16")] {
            ip(&format!("route {way} 172.16.0.0/16 via 10.0.0.3"));
            ip("route del 172.16.0.0/16 via 10.0.0.3");
            ip(&format!("route add {marker} via 10.0.0.2"));
            router.route_is(marker, |route| route.is_some()).await;
            let left = router.route("172.16.0.0/16");
            assert!(left.is_some(), "{way}: packets would take a shorter route");
            let first = ["10.0.0.2".parse().ok()];
            let is_first = |route: Option<&(Source, Action)>| {
                members(route).iter().map(|m| m.gateway).eq(first)
            };
            router.route_is("172.16.0.0/16", is_first).await;
        }
    });
}
