//! Routes follow what becomes of the way to their next hops: of the kernel's next-hop objects, also where the kernel says
//! nothing of the routes, and of the routes that lead to a neighbour's next hops, learned ones among them.

use std::net::Ipv4Addr;

use lb_routing::policy::{Actions, Chain, NextHop, Policy, Statement, Verdict};
use lb_routing::{
    Action, Import, PeerConfig, RouterConfig, Source, StaticKind, StaticNextHop, StaticRoute,
    Statics,
};

use crate::far::Far;
use crate::lab::{Router, alone, config, in_namespace, ip, kernel_route, peer, veth};

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

/// A neighbour in this namespace, in AS 64512 as we are, and what it tells: its next hops are its import's business with us.
fn told(number: u8, next_hop: &str) -> (RouterConfig, PeerConfig) {
    let (here, there) = (Ipv4Addr::new(10, 0, 1, 1), Ipv4Addr::new(10, 0, 1, number));
    let to_us = peer(&here.to_string(), 1790, &there.to_string(), 64512);
    let far = config(64512, there, &format!("{there}:1790"), vec![to_us]);
    let actions = Actions {
        next_hop: Some(NextHop::Address(next_hop.parse().unwrap())),
        ..Actions::default()
    };
    let (name, conditions, verdict) = (String::new(), Vec::new(), Verdict::Accept);
    let statements = vec![Statement { name, conditions, actions, verdict }];
    let policy = Policy { name: "p".into(), statements, otherwise: Verdict::Next };
    let import = Import::Policies(Chain::new(vec![policy.into()]));
    let to_them = peer(&there.to_string(), 1790, &here.to_string(), 64512);
    (far, PeerConfig { import, passive: true, ..to_them })
}

#[test]
fn paths_follow_what_it_costs_to_reach_their_next_hops_and_go_where_they_cannot() {
    in_namespace(async || {
        for number in 1..=3 {
            ip(&format!("addr add 10.0.1.{number}/32 dev lo"));
        }
        veth("lbr0", "10.0.0.1/24");
        ip("route add 198.51.100.1/32 via 10.0.0.2 metric 10");
        let ((one, to_one), (two, to_two)) = (told(2, "198.51.100.1"), told(3, "198.51.100.2"));
        let id = Ipv4Addr::new(10, 0, 1, 1);
        let us = config(64512, id, "10.0.1.1:1790", vec![to_one, to_two]);
        let mut router = Router::start(us).await;
        let others = [Router::start(one).await, Router::start(two).await];
        for other in &others {
            other.handle.originate(vec!["172.16.0.0/16".parse().unwrap()]).await;
        }
        router.route_is("172.16.0.0/16", is(&[("10.0.0.2", 1)])).await;

        // A route of the configuration leads to the other one, at less.
        let gateway =
            StaticNextHop { gateway: "10.0.0.3".parse().ok(), interface: None, weight: 1 };
        let kind = StaticKind::Forward(vec![gateway]);
        let route = |metric| StaticRoute {
            prefix: "198.51.100.2/32".parse().unwrap(),
            metric,
            kind: kind.clone(),
        };
        let set = async |router: &Router, routes| {
            router.handle.set_statics(Statics { routes, addresses: Vec::new() }).await;
        };
        set(&router, vec![route(5)]).await;
        router.route_is("172.16.0.0/16", is(&[("10.0.0.3", 1)])).await;
        set(&router, vec![route(10)]).await;
        router.route_is("172.16.0.0/16", is(&[("10.0.0.2", 1), ("10.0.0.3", 1)])).await;
        ip("route add 198.51.100.0/30 dev lbr0");
        ip("route del 198.51.100.1/32");
        router.route_is("172.16.0.0/16", is(&[("198.51.100.1", 1)])).await;
        set(&router, Vec::new()).await;
        let both = [("198.51.100.1", 1), ("198.51.100.2", 1)];
        router.route_is("172.16.0.0/16", is(&both)).await;
        ip("route del 198.51.100.0/30");
        router.route_is("172.16.0.0/16", |route| route.is_none()).await;
        let routes = router.handle.routes().await;
        assert!(routes.iter().all(|route| !route.best), "none is chosen: {routes:?}");
    });
}

/// Tells routes by next hops in other routes that it tells, as a border router without `next-hop-self` does.
const BORDER: &str = r#"
router id 10.0.0.2;
protocol device {}
protocol static far4 { ipv4; route 172.16.0.0/16 blackhole; }
protocol static far6 { ipv6; route 2001:db8:16::/48 blackhole; }
protocol static near4 { ipv4; route 198.51.100.0/24 blackhole; }
protocol static near6 { ipv6; route 2001:db8:9::/48 blackhole; }
protocol bgp lbd {
    local 10.0.0.2 as 64512;
    neighbor 10.0.0.1 port 1790 as 64512;
    connect delay time 1;
    connect retry time 1;
    ipv4 { import none; next hop keep; export filter {
        bgp_next_hop = 10.0.0.2;
        if proto = "far4" then bgp_next_hop = 198.51.100.9;
        accept;
    }; };
    ipv6 { import none; next hop keep; export filter {
        bgp_next_hop = 2001:db8::2;
        if proto = "far6" then bgp_next_hop = 2001:db8:9::9;
        accept;
    }; };
}
"#;

#[test]
fn next_hops_of_bird_that_lie_in_its_own_routes_are_reached_and_go_and_come_with_these() {
    in_namespace(async || {
        veth("lbr0", "10.0.0.1/24");
        ip("-6 addr add 2001:db8::1/64 dev lbr0 nodad");
        let bird = Far::start(
            &["10.0.0.2/24", "2001:db8::2/64"],
            &[("bird.conf", BORDER.to_owned())],
            "exec /usr/sbin/bird -f -c $D/bird.conf -s $D/ctl -P $D/pid",
        );
        let ask = |question: &str| bird.run(&format!("/usr/sbin/birdc -s $D/ctl {question}"));
        let to_bird = peer("10.0.0.2", 179, "10.0.0.1", 64512);
        let us = config(64512, Ipv4Addr::new(10, 0, 0, 1), "10.0.0.1:1790", vec![to_bird]);
        let mut router = Router::start(us).await;
        router.route_is("172.16.0.0/16", is(&[("10.0.0.2", 1)])).await;
        router.route_is("2001:db8:16::/48", is(&[("2001:db8::2", 1)])).await;
        kernel_route("172.16.0.0/16", |shown| shown.contains("via 10.0.0.2 dev lbr0")).await;
        for near in ["near4", "near6"] {
            ask(&format!("disable {near}"));
        }
        router.route_is("172.16.0.0/16", |route| route.is_none()).await;
        router.route_is("2001:db8:16::/48", |route| route.is_none()).await;
        kernel_route("172.16.0.0/16", str::is_empty).await;
        let routes = router.handle.routes().await;
        assert!(routes.iter().all(|route| !route.best), "none is chosen: {routes:?}");
        // What the kernel says of the same prefix counts before what the neighbour says, once it is back, too.
        ip("route add 198.51.100.0/24 via 10.0.0.3");
        router.route_is("172.16.0.0/16", is(&[("10.0.0.3", 1)])).await;
        for near in ["near4", "near6"] {
            ask(&format!("enable {near}"));
        }
        router.route_is("2001:db8:16::/48", is(&[("2001:db8::2", 1)])).await;
        router.route_is("172.16.0.0/16", is(&[("10.0.0.3", 1)])).await;
        ip("route del 198.51.100.0/24");
        router.route_is("172.16.0.0/16", is(&[("10.0.0.2", 1)])).await;
    });
}
