//! Every bound on what a file may list or name: as many are taken, and one more is refused with its field and the bound. The
//! lists of single resources, which REST takes, too, are in `resources/tests.rs`.

use std::net::Ipv4Addr;

use serde_json::json;

use super::*;

fn address(first: [u8; 4], n: usize) -> String {
    Ipv4Addr::from_bits(u32::from_be_bytes(first) + u32::try_from(n).unwrap()).to_string()
}

fn many(n: usize, one: impl Fn(usize) -> Value) -> Value {
    (0..n).map(one).collect()
}

fn named(name: &str, n: usize, spec: Value) -> Value {
    json!({"metadata": {"name": format!("{name}{n}")}, "spec": spec})
}

fn vip(n: usize) -> Value {
    let backends = json!([{"address": "10.0.0.1", "port": 80}]);
    named("v", n, json!({"address": address([198, 18, 0, 0], n), "port": 80, "backends": backends}))
}

/// A file with one VIP, of which something at a pointer is so.
fn of_vip(pointer: &str, value: Value) -> Value {
    let mut all = json!({"vips": [vip(0)]});
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    all["vips"][0].pointer_mut(parent).unwrap()[field] = value;
    all
}

fn of_bgp(list: &str, n: usize, one: impl Fn(usize) -> Value) -> Value {
    json!({"bgp": {list: many(n, one)}})
}

fn of_set(members: &str, n: usize, one: impl Fn(usize) -> Value) -> Value {
    json!({"bgp": {"sets": [{"name": "s", members: many(n, one)}]}})
}

fn of_statement(set: Value) -> Value {
    json!({"bgp": {"policies": [{"name": "p", "statements": [{"set": set, "action": "accept"}]}]}})
}

fn api(section: Value) -> Value {
    json!({"api": section})
}

/// A field, how much it takes, and a file that has so much of it.
type Limit = (&'static str, usize, fn(usize) -> Value);

const OF_VIPS: [Limit; 6] = [
    ("vips", 65_536, |n| json!({"vips": many(n, vip)})),
    ("vips[0].metadata.name", 63, |n| of_vip("/metadata/name", json!("x".repeat(n)))),
    ("vips[0].metadata.labels", 64, |n| {
        let labels: serde_json::Map<_, _> = (0..n).map(|n| (format!("l{n}"), json!("x"))).collect();
        of_vip("/metadata/labels", json!(labels))
    }),
    ("vips[0].metadata.labels.a", 63, |n| of_vip("/metadata/labels", json!({"a": "x".repeat(n)}))),
    ("vips[0].spec.announce_on", 256, |n| {
        of_vip("/spec/announce_on", many(n, |n| json!(format!("eth{n}"))))
    }),
    ("vips[0].spec.announce_on[0]", 15, |n| of_vip("/spec/announce_on", json!(["x".repeat(n)]))),
];

const OF_OTHERS: [Limit; 8] = [
    ("pools", 4096, |n| {
        let range = |n| json!({"addresses": [format!("{}/32", address([10, 0, 0, 0], n))]});
        json!({"pools": many(n, |n| named("p", n, range(n)))})
    }),
    ("health_checks", 4096, |n| json!({"health_checks": many(n, |n| named("c", n, json!({})))})),
    ("addresses", 4096, |n| {
        let spec = |n| json!({"interface": "eth0", "address": format!("{}/32", address([10, 0, 0, 1], n))});
        json!({"addresses": many(n, |n| named("a", n, spec(n)))})
    }),
    ("static_routes", 4096, |n| {
        let spec =
            |n| json!({"prefix": format!("{}/32", address([10, 0, 0, 1], n)), "kind": "blackhole"});
        json!({"static_routes": many(n, |n| named("r", n, spec(n)))})
    }),
    (
        "dataplane.interfaces",
        256,
        |n| json!({"dataplane": {"interfaces": many(n, |n| json!(format!("eth{n}")))}}),
    ),
    ("api.socket", 107, |n| api(json!({"socket": format!("/{}", "x".repeat(n - 1))}))),
    ("api.users", 64, |n| {
        api(json!({"users": many(n, |n| json!({"user": n.to_string(), "role": "viewer"}))}))
    }),
    ("api.tls.clients", 1024, |n| {
        let clients = many(n, |n| json!({"name": format!("c{n}.example"), "role": "viewer"}));
        let tls = json!({"certificate_file": "/a", "key_file": "/b", "client_ca_file": "/c", "clients": clients});
        api(json!({"listen": "127.0.0.1:1", "tls": tls}))
    }),
];

const OF_BGP: [Limit; 9] = [
    ("bgp.peers", 1024, |n| {
        of_bgp("peers", n, |n| json!({"address": address([10, 0, 0, 1], n), "asn": 65001}))
    }),
    ("bgp.peer_groups", 256, |n| of_bgp("peer_groups", n, |n| json!({"name": format!("g{n}")}))),
    ("bgp.sets", 1024, |n| {
        of_bgp("sets", n, |n| json!({"name": format!("s{n}"), "prefixes": ["::/0"]}))
    }),
    ("bgp.policies", 1024, |n| of_bgp("policies", n, |n| json!({"name": format!("p{n}")}))),
    ("bgp.policies[0].statements[0].set.add_communities", 100, |n| {
        of_statement(json!({"add_communities": many(n, |n| json!(format!("65001:{n}")))}))
    }),
    ("bgp.policies[0].statements[0].set.prepend.times", 32, |n| {
        of_statement(json!({"prepend": {"times": n}}))
    }),
    ("bgp.peers[0].shutdown_message", 255, |n| {
        let peer = json!({"address": "10.0.0.1", "asn": 65001, "shutdown": true, "shutdown_message": "x".repeat(n)});
        json!({"bgp": {"peers": [peer]}})
    }),
    ("bgp.sets[0].as_paths", 1000, |n| of_set("as_paths", n, |n| json!(n.to_string()))),
    ("bgp.sets[0].as_paths[0]", 256, |n| of_set("as_paths", 1, |_| json!("1".repeat(n)))),
];

fn as_many_are_taken_and_one_more_is_refused(limits: &[Limit]) {
    for &(field, most, file) in limits {
        let read = |n| document(&file(n), sections::config);
        read(most).unwrap_or_else(|found| panic!("{most} of {field}: {found:?}"));
        let found = read(most + 1).unwrap_err();
        let [mistake] = &found[..] else { panic!("{field}: {found:?}") };
        assert_eq!(mistake.path.to_string(), field);
        let message = &mistake.message;
        assert!(
            message.contains(&most.to_string()) && !message.contains('\n'),
            "{field} {message}"
        );
    }
}

#[test]
fn as_many_vips_and_parts_of_one_are_taken_as_there_may_be_and_one_more_is_refused() {
    as_many_are_taken_and_one_more_is_refused(&OF_VIPS);
}

#[test]
fn as_many_other_resources_and_users_are_taken_as_there_may_be_and_one_more_is_refused() {
    as_many_are_taken_and_one_more_is_refused(&OF_OTHERS);
}

#[test]
fn as_many_neighbours_policies_and_members_are_taken_as_there_may_be_and_one_more_is_refused() {
    as_many_are_taken_and_one_more_is_refused(&OF_BGP);
}
