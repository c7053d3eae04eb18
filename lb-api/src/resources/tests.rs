use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::json;

use super::*;
use crate::read::document;

fn pool(addresses: &Value) -> Result<Resource, String> {
    let value = json!({"metadata": {"name": "p"}, "spec": {"addresses": addresses}});
    document(&value, |cursor| Kind::Pool.read(cursor))
        .map_err(|mistakes| format!("{} {}", mistakes[0].path, mistakes[0].message))
}

fn ranges(addresses: &Value) -> Ranges {
    match pool(addresses).unwrap() {
        Resource::Pool(pool) => Ranges::of(&pool.spec),
        Resource::HealthCheck(_)
        | Resource::Node(_)
        | Resource::BgpGlobal(_)
        | Resource::Set(_)
        | Resource::Policy(_)
        | Resource::PeerGroup(_)
        | Resource::Peer(_)
        | Resource::Address(_)
        | Resource::StaticRoute(_) => unreachable!("it is a pool"),
    }
}

fn at(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_pool_gives_its_first_free_address_of_the_family() {
    let ranges = ranges(&json!(["203.0.113.0/31", "203.0.113.8-203.0.113.9", "2001:db8::/64"]));
    assert_eq!(ranges.size(), u64::MAX);
    let mut taken = BTreeSet::from([at("203.0.113.200")]);
    for wanted in ["203.0.113.0", "203.0.113.1", "203.0.113.8", "203.0.113.9"] {
        assert!(ranges.holds(at(wanted)));
        assert_eq!(ranges.free(true, &taken), Some(at(wanted)));
        taken.insert(at(wanted));
    }
    assert_eq!(ranges.free(true, &taken), None, "all are taken");
    taken.remove(&at("203.0.113.1"));
    assert_eq!(ranges.free(true, &taken), Some(at("203.0.113.1")), "a gap is filled");
    assert_eq!(ranges.free(false, &taken), Some(at("2001:db8::")));
    assert!(!ranges.holds(at("203.0.113.7")) && !ranges.holds(at("2001:db8:1::")));
}

#[test]
fn the_last_address_of_a_family_ends_a_pool() {
    let ranges = ranges(&json!(["223.255.255.254-223.255.255.255"]));
    let taken = BTreeSet::from([at("223.255.255.254"), at("223.255.255.255")]);
    assert_eq!((ranges.size(), ranges.free(true, &taken)), (2, None));
}

#[test]
fn what_is_no_pool_is_refused_with_a_remedy() {
    for (addresses, said) in [
        (json!([]), "needs a prefix"),
        (json!(["203.0.113.1"]), "has to be a prefix"),
        (json!(["203.0.113.1/24"]), "did you mean 203.0.113.0/24?"),
        (json!(["203.0.113.9-203.0.113.1"]), "from a lower to a higher"),
        (json!(["203.0.113.9-2001:db8::"]), "of one family"),
        (json!(["127.0.0.0/8"]), "a loopback address"),
        (json!(["203.0.113.0/24", "203.0.113.8-203.0.113.9"]), "overlaps 203.0.113.0/24"),
    ] {
        let refused = pool(&addresses).unwrap_err();
        assert!(refused.contains(said), "{refused}");
    }
}

#[test]
fn a_selector_takes_what_every_term_takes() {
    let labels = BTreeMap::from([("app".to_owned(), "web".to_owned()), ("old".into(), "".into())]);
    for (selector, takes) in [
        ("app=web", true),
        ("app==web", true),
        ("app = web , old", true),
        ("app=db", false),
        ("app!=db", true),
        ("app!=web", false),
        ("tier!=db", true),
        ("app,!tier", true),
        ("!old", false),
        ("old=", true),
    ] {
        assert_eq!(selector.parse::<Selector>().unwrap().takes(&labels), takes, "{selector}");
    }
    for bad in ["", "=web", "app=web,", "a b", "app=w b", "app>1", "!"] {
        assert!(bad.parse::<Selector>().is_err(), "{bad}");
    }
    assert!(Selector::default().takes(&labels));
}

#[test]
fn labels_are_read_and_strange_ones_refused() {
    let read = |labels: Value| {
        let value = json!({"metadata": {"name": "c", "labels": labels, "owner": "ci"}, "spec": {}});
        document(&value, |cursor| Kind::HealthCheck.read(cursor))
    };
    let check = read(json!({"app.kubernetes.io/name": "web", "x": ""})).unwrap();
    assert_eq!(check.metadata().labels.len(), 2);
    assert_eq!(check.metadata().owner.as_deref(), Some("ci"));
    for bad in
        [json!({"a b": "x"}), json!({"a": "x y"}), json!({"": "x"}), json!({"a": 1}), json!([])]
    {
        assert!(read(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn of_what_bgp_has_in_common_each_field_is_the_files_where_it_says_it() {
    let global = |spec: serde_json::Value| {
        let value = json!({"metadata": {"name": "global"}, "spec": spec});
        document(&value, |cursor| Kind::BgpGlobal.read(cursor)).unwrap()
    };
    let file: Resources = [global(json!({"asn": 65001}))].into_iter().collect();
    let kept = [global(json!({"asn": 65002, "decision": {"max_paths": 8}}))].into_iter().collect();
    let started = started(&file, &kept);
    let spec = started.all.global().unwrap().spec;
    assert_eq!((spec.asn, spec.decision().max_paths, spec.router_id), (Some(65001), 8, None));
    assert!(started.of_file.is_empty() && started.shadowed == Resources::default());
}

/// Reads one of a kind, or a VIP, with this spec: where and how it is refused.
fn refusal(kind: Option<Kind>, spec: &Value) -> Option<(String, String)> {
    let value = json!({"metadata": {"name": "x"}, "spec": spec});
    let mistakes = document(&value, |cursor| match kind {
        None => crate::vip::read(cursor).map(drop),
        Some(kind) => kind.read(cursor).map(drop),
    });
    let first = mistakes.err()?.swap_remove(0);
    Some((first.path.pointer(), first.message))
}

#[test]
fn a_list_may_be_as_long_as_its_bound_and_one_more_is_refused_with_both_numbers() {
    let v4 = |n: usize, len: u8| format!("10.{}.{}.{}/{len}", n >> 16 & 255, n >> 8 & 255, n & 255);
    let vip = |field: &str, value: Value| {
        let mut spec = json!({"address": "203.0.113.1", "port": 80, "backends": [{"address": "10.0.0.1", "port": 80}]});
        spec[field] = value;
        spec
    };
    type Specs<'a> = (Option<Kind>, &'a str, usize, &'a dyn Fn(usize) -> Value);
    let cases: [Specs<'_>; 11] = [
        (None, "/spec/access", 16_384, &|n| {
            vip("access", json!({"allow": (0..n).map(|n| v4(n, 32)).collect::<Vec<_>>()}))
        }),
        (None, "/spec/backends", 4096, &|n| {
            let one = |n: usize| json!({"address": "10.0.0.2", "port": n + 1, "weight": 1});
            vip("backends", (0..n).map(one).collect())
        }),
        (None, "/spec/nat/source_addresses", 16, &|n| {
            let all: Vec<_> = (0..n).map(|n| format!("198.51.100.{}", n + 1)).collect();
            vip("nat", json!({"mode": "full-nat", "source_addresses": all}))
        }),
        (
            Some(Kind::Pool),
            "/spec/addresses",
            64,
            &|n| json!({"addresses": (0..n).map(|n| v4(n, 32)).collect::<Vec<_>>()}),
        ),
        (Some(Kind::StaticRoute), "/spec/next_hops", 256, &|n| {
            let one = |n| json!({"address": format!("10.0.{}.{}", n >> 8, n & 255)});
            json!({"prefix": "198.18.0.0/24", "next_hops": (0..n).map(one).collect::<Vec<_>>()})
        }),
        (
            Some(Kind::Set),
            "/spec/prefixes",
            100_000,
            &|n| json!({"prefixes": (0..n).map(|n| v4(n, 32)).collect::<Vec<_>>()}),
        ),
        (
            Some(Kind::Set),
            "/spec/communities",
            100_000,
            &|n| json!({"communities": (0..n).map(|n| format!("{}:{}", n >> 16, n & 65535)).collect::<Vec<_>>()}),
        ),
        (
            Some(Kind::Set),
            "/spec/neighbors",
            100_000,
            &|n| json!({"neighbors": (0..n).map(|n| v4(n, 32)).collect::<Vec<_>>()}),
        ),
        (
            Some(Kind::Policy),
            "/spec/statements",
            1024,
            &|n| json!({"statements": (0..n).map(|_| json!({"action": "accept"})).collect::<Vec<_>>()}),
        ),
        (
            Some(Kind::PeerGroup),
            "/spec/import",
            16,
            &|n| json!({"asn": 65001, "import": (0..n).map(|n| format!("p{n}")).collect::<Vec<_>>()}),
        ),
        (
            Some(Kind::Peer),
            "/spec/export",
            16,
            &|n| json!({"address": "192.0.2.1", "asn": 65001, "export": (0..n).map(|n| format!("p{n}")).collect::<Vec<_>>()}),
        ),
    ];
    for (kind, field, most, spec) in cases {
        assert_eq!(refusal(kind, &spec(most)), None, "{field}: {most}");
        let (at, said) = refusal(kind, &spec(most + 1)).unwrap_or_else(|| panic!("{field}"));
        assert_eq!(at, field, "{said}");
        assert!(said.contains(&most.to_string()), "{field}: {said}");
    }
}
