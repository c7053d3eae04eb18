use serde_json::{Value, json};

use super::*;
use crate::read::document;

fn read(kind: Kind, spec: &Value) -> Result<Resource, String> {
    let value = json!({"metadata": {"name": "r"}, "spec": spec});
    document(&value, |cursor| kind.read(cursor))
        .map_err(|mistakes| format!("{} {}", mistakes[0].path, mistakes[0].message))
}

fn named(name: &str, kind: Kind, spec: Value) -> Resource {
    let mut resource = read(kind, &spec).unwrap();
    resource.metadata_mut().name = name.into();
    resource
}

#[test]
fn what_a_route_leaves_out_has_a_default() {
    let spec = json!({"prefix": "0.0.0.0/0", "next_hops": [{"address": "192.0.2.1"}]});
    let route = read(Kind::StaticRoute, &spec).unwrap();
    let statics = statics(&[route].into_iter().collect());
    let hop = StaticNextHop { gateway: "192.0.2.1".parse().ok(), interface: None, weight: 1 };
    let kind = StaticKind::Forward(vec![hop]);
    let route = lb_routing::StaticRoute { prefix: "0.0.0.0/0".parse().unwrap(), metric: 20, kind };
    assert_eq!(statics.routes, [route]);
}

#[test]
fn what_is_no_route_is_refused_with_a_remedy() {
    let via = |to: &str| json!({"prefix": "192.0.2.0/24", "next_hops": [{"address": to}]});
    let many: Vec<_> = (0..257).map(|_| json!({"address": "198.51.100.1"})).collect();
    for (spec, said) in [
        (json!({"prefix": "192.0.2.1/24", "kind": "blackhole"}), "did you mean 192.0.2.0/24?"),
        (json!({"prefix": "192.0.2.0", "kind": "blackhole"}), "has to be a prefix"),
        (json!({"prefix": "224.0.0.0/4", "kind": "blackhole"}), "a multicast address"),
        (json!({"prefix": "fe80::/64", "kind": "blackhole"}), "a link-local address"),
        (json!({"kind": "blackhole"}), "spec.prefix is missing"),
        (json!({"prefix": "192.0.2.0/24"}), "spec.next_hops is missing: say where packets go"),
        (json!({"prefix": "192.0.2.0/24", "next_hops": []}), "have to go somewhere"),
        (json!({"prefix": "192.0.2.0/24", "next_hops": many}), "256 are the most"),
        (json!({"prefix": "192.0.2.0/24", "next_hops": [{}]}), "neither an address nor"),
        (json!({"prefix": "2001:db8::/32", "next_hops": [{"address": "192.0.2.1"}]}), "by IPv6"),
        (via("fe80::1"), "name the interface"),
        (via("127.0.0.1"), "a loopback address"),
        (via("255.255.255.255"), "a reserved address"),
        (
            json!({"prefix": "192.0.2.0/24", "kind": "blackhole", "next_hops": [{"address": "198.51.100.1"}]}),
            "leave it out",
        ),
        (json!({"prefix": "192.0.2.0/24", "kind": "blackhole", "metric": 4271}), "routes of BGP"),
        (json!({"prefix": "192.0.2.0/24", "kind": "blackhole", "metric": 0}), "from 1 to"),
        (json!({"prefix": "192.0.2.0/24", "kind": "nat"}), "one of unicast, blackhole"),
    ] {
        let refused = read(Kind::StaticRoute, &spec).unwrap_err();
        assert!(refused.contains(said), "{spec}: {refused}");
    }
    let four_by_six = json!({"prefix": "192.0.2.0/24", "next_hops": [{"address": "fe80::1", "interface": "eth0"}]});
    assert!(read(Kind::StaticRoute, &four_by_six).is_ok());
}

#[test]
fn what_is_no_address_of_an_interface_is_refused_with_a_remedy() {
    for (address, said) in [
        ("192.0.2.1", "such as 192.0.2.1/24"),
        ("192.0.2.0/24", "first or last address"),
        ("192.0.2.255/24", "first or last address"),
        ("127.0.0.1/8", "a loopback address"),
        ("ff02::1/64", "a multicast address"),
    ] {
        let spec = json!({"interface": "eth0", "address": address});
        let refused = read(Kind::Address, &spec).unwrap_err();
        assert!(refused.contains(said), "{refused}");
    }
    for interface in ["", "a/b", "an-interface-name-that-is-long", "a b"] {
        let spec = json!({"interface": interface, "address": "192.0.2.1/24"});
        assert!(read(Kind::Address, &spec).is_err(), "{interface}");
    }
    for good in ["192.0.2.0/31", "192.0.2.1/32", "2001:db8::/64"] {
        assert!(read(Kind::Address, &json!({"interface": "eth0", "address": good})).is_ok());
    }
}

#[test]
fn two_that_are_alike_are_refused_and_another_metric_helps() {
    let route = |name, metric: u32| {
        let spec = json!({"prefix": "192.0.2.0/24", "kind": "blackhole", "metric": metric});
        named(name, Kind::StaticRoute, spec)
    };
    let misfit_of = |all: Vec<Resource>| misfit(&all.into_iter().collect());
    assert_eq!(misfit_of(vec![route("a", 1), route("b", 2)]), None);
    let twice = misfit_of(vec![route("a", 1), route("b", 1)]).unwrap();
    assert!(twice.message.contains("give one of the two another metric"), "{twice:?}");
    let address = |name, interface| {
        let spec = json!({"interface": interface, "address": "192.0.2.1/24"});
        named(name, Kind::Address, spec)
    };
    let twice = misfit_of(vec![address("a", "eth0"), address("b", "eth1")]).unwrap();
    assert_eq!((twice.key.1.as_str(), twice.field.as_str()), ("b", "/spec/address"));
}

#[test]
fn a_status_says_in_conditions_how_a_route_is() {
    let spec = json!({"prefix": "192.0.2.0/24", "next_hops": [{"address": "198.51.100.1"}]});
    let mut route = read(Kind::StaticRoute, &spec).unwrap();
    let told = |installed, used, behind, unreachable: &[&str]| StaticsStatus {
        routes: vec![StaticRouteStatus {
            prefix: "192.0.2.0/24".parse().unwrap(),
            metric: DEFAULT_METRIC,
            installed,
            used,
            behind,
            unreachable: unreachable.iter().map(|&why| why.to_owned()).collect(),
            refused: None,
        }],
        addresses: vec![],
    };
    for (told, reasons) in [
        (told(true, true, None, &[]), ["Reachable", "Installed", "Best"]),
        (told(true, false, Some(Source::Bgp), &[]), ["Reachable", "Installed", "Behind"]),
        (told(false, false, None, &["no way"]), ["NextHopUnreachable", "Waiting", "Unusable"]),
    ] {
        note(&mut route, &told);
        let Resource::StaticRoute(route) = &route else { panic!("it is one") };
        let conditions = &route.status.as_ref().unwrap().conditions;
        let found: Vec<_> = conditions.iter().map(|it| it.reason.as_str()).collect();
        assert_eq!(found, reasons);
    }
}
