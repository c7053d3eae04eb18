//! Routes by next-hop objects follow what becomes of the objects, also where the kernel says nothing of the routes.

use lb_routing::{Action, Source};

use crate::lab::{Router, alone, in_namespace, ip, veth};

/// Gateways and shares of a route that forwards.
fn ways(route: Option<&(Source, Action)>) -> Vec<(String, u16)> {
    match route {
        Some((_, Action::Forward(members))) => {
            members.iter().map(|m| (m.gateway.unwrap().to_string(), m.weight)).collect()
        }
        Some((_, Action::Kernel | Action::Blackhole)) | None => Vec::new(),
    }
}

fn is(gateways: &[(&str, u16)]) -> impl Fn(Option<&(Source, Action)>) -> bool {
    let wanted: Vec<_> = gateways.iter().map(|(to, share)| ((*to).to_owned(), *share)).collect();
    move |route| ways(route) == wanted
}

/// Two objects, a group of them, and a route of each family by the group and by the first.
fn objects() {
    veth("lbr0", "10.0.0.1/24");
    ip("-6 addr add 2001:db8::1/64 dev lbr0 nodad");
    ip("nexthop add id 1 via 10.0.0.2 dev lbr0");
    ip("nexthop add id 2 via 10.0.0.3 dev lbr0");
    ip("nexthop add id 10 group 1/2,3");
    ip("nexthop add id 6 via 2001:db8::2 dev lbr0");
    ip("route add 172.16.0.0/16 nhid 10");
    ip("route add 172.17.0.0/16 nhid 1");
    ip("-6 route add 2001:db8:6::/48 nhid 6");
}

#[test]
fn an_object_that_is_deleted_takes_its_routes_and_its_place_in_a_group_with_it() {
    in_namespace(async || {
        objects();
        let mut router = Router::start(alone()).await;
        router.synced().await;
        router.route_is("172.16.0.0/16", is(&[("10.0.0.2", 1), ("10.0.0.3", 3)])).await;
        router.route_is("172.17.0.0/16", is(&[("10.0.0.2", 1)])).await;
        router.route_is("2001:db8:6::/48", is(&[("2001:db8::2", 1)])).await;
        ip("nexthop del id 1");
        router.route_is("172.17.0.0/16", |route| route.is_none()).await;
        router.route_is("172.16.0.0/16", is(&[("10.0.0.3", 1)])).await;
        ip("nexthop del id 6");
        router.route_is("2001:db8:6::/48", |route| route.is_none()).await;
        ip("nexthop del id 10");
        router.route_is("172.16.0.0/16", |route| route.is_none()).await;
    });
}

#[test]
fn objects_are_followed_where_the_kernel_tells_nothing_but_their_ids() {
    in_namespace(async || {
        std::fs::write("/proc/sys/net/ipv4/nexthop_compat_mode", "0").unwrap();
        objects();
        assert!(!ip("route show 172.17.0.0/16").contains("via"), "routes say ids only");
        let mut router = Router::start(alone()).await;
        router.synced().await;
        router.route_is("172.16.0.0/16", is(&[("10.0.0.2", 1), ("10.0.0.3", 3)])).await;
        router.route_is("2001:db8:6::/48", is(&[("2001:db8::2", 1)])).await;
        ip("nexthop replace id 1 via 10.0.0.4 dev lbr0");
        router.route_is("172.17.0.0/16", is(&[("10.0.0.4", 1)])).await;
        router.route_is("172.16.0.0/16", is(&[("10.0.0.3", 3), ("10.0.0.4", 1)])).await;
        ip("nexthop replace id 10 group 2");
        router.route_is("172.16.0.0/16", is(&[("10.0.0.3", 1)])).await;
        // An object that is there before its route, and one that drops.
        ip("nexthop add id 3 blackhole");
        ip("route add 172.18.0.0/16 nhid 3");
        router.route_is("172.18.0.0/16", |r| r == Some(&(Source::Kernel, Action::Blackhole))).await;
        ip("nexthop del id 2");
        router.route_is("172.16.0.0/16", |route| route.is_none()).await;
        let answers = lb_routing::ask(&["172.17.0.1".parse().unwrap()]).await.unwrap();
        assert!(format!("{answers:?}").contains("10.0.0.4"), "{answers:?}");
    });
}
