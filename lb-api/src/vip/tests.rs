use lb_api_types::resource::Metadata;
use lb_api_types::vip::{
    FullTable, Health, HealthCheckKind, MssAuto, MssClamp, OnExhaustion, OnUnhealthy,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::read::{Mistake, document};

fn good() -> Value {
    json!({
        "metadata": {"name": "web"},
        "spec": {
            "address": "203.0.113.10", "port": 80,
            "backends": [{"address": "10.0.0.2", "port": 8080}, {"address": "10.0.0.3", "port": 8080}],
        },
    })
}

fn with(pointer: &str, value: Value) -> Value {
    let mut changed = good();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let parent = changed.pointer_mut(parent).unwrap();
    match parent.as_array_mut() {
        Some(members) => members[field.parse::<usize>().unwrap()] = value,
        None => parent[field] = value,
    }
    changed
}

fn mistakes(value: &Value) -> Vec<Mistake> {
    document(value, read).unwrap_err()
}

#[test]
fn what_is_left_out_has_its_default() {
    let vip = document(&good(), read).unwrap();
    assert_eq!(vip.spec.protocol, Protocol::Tcp);
    assert_eq!(vip.spec.algorithm, Algorithm::Maglev);
    assert_eq!(vip.spec.health_check, HealthCheck::default());
    assert!(vip.spec.advertise);
}

#[test]
fn each_mistake_names_its_field() {
    let cases = [
        ("/metadata/name", json!("Web")),
        ("/metadata/name", json!("-web")),
        ("/metadata/name", json!("")),
        ("/metadata/name", json!("x".repeat(64))),
        ("/metadata/colour", json!(1)),
        ("/spec/address", json!("203.0.113.300")),
        ("/spec/address", json!(7)),
        ("/spec/address", json!("127.0.0.1")),
        ("/spec/address", json!("0.0.0.0")),
        ("/spec/address", json!("224.0.0.1")),
        ("/spec/address", json!("255.255.255.255")),
        ("/spec/address", json!("169.254.0.1")),
        ("/spec/address", json!("fe80::1")),
        ("/spec/address", Value::Null),
        ("/spec/port", json!(0)),
        ("/spec/port", json!(65536)),
        ("/spec/port", json!(-1)),
        ("/spec/port", json!(80.5)),
        ("/spec/port", json!("80")),
        ("/spec/last_port", json!(79)),
        ("/spec/last_port", json!(65536)),
        ("/spec/last_port", json!("89")),
        ("/spec/protocol", json!("dccp")),
        ("/spec/algorithm", json!("random")),
        ("/spec/affinity_secs", json!(0)),
        ("/spec/max_flows", json!(0)),
        ("/spec/max_flows", json!(1_000_000_001)),
        ("/spec/max_flows_per_client", json!(0)),
        ("/spec/backends/0/max_flows", json!(0)),
        ("/spec/access", json!(["10.0.0.0/8"])),
        ("/spec/access", json!({"allow": ["10.0.0.0/8"], "deny": ["10.0.0.0/8"]})),
        ("/spec/access", json!({"allow": ["10.0.0.1/8"]})),
        ("/spec/access", json!({"allow": ["2001:db8::/32"]})),
        ("/spec/affinity_secs", json!(86_401)),
        ("/spec/idle_timeout_secs", json!(0)),
        ("/spec/idle_timeout_secs", json!(604_801)),
        ("/spec/reset_on_expiry", json!("yes")),
        ("/spec/on_unhealthy", json!("close")),
        ("/spec/nat", json!("full-nat")),
        ("/spec/advertise", json!("yes")),
        ("/spec/announce_on", json!("eth0")),
        ("/spec/announce_on", json!(["eth 0"])),
        ("/spec/announce_on", json!(["a234567890123456"])),
        ("/spec/colour", json!("red")),
        ("/spec/backends", json!([])),
        ("/spec/backends", json!({})),
        ("/spec/backends/0", json!("10.0.0.2:80")),
        ("/spec/backends/0/address", json!("203.0.113.10")),
        ("/spec/backends/0/address", json!("2001:db8::1")),
        ("/spec/backends/0/port", json!(0)),
        ("/spec/backends/0/weight", json!(0)),
        ("/spec/backends/0/weight", json!(256)),
        ("/spec/backends/1", json!({"address": "10.0.0.2", "port": 8080})),
        ("/spec/health_check", json!(3)),
    ];
    for (pointer, value) in cases {
        let found = mistakes(&with(pointer, value.clone()));
        assert_eq!(found.len(), 1, "{pointer} = {value}: {found:?}");
        let at = found[0].path.pointer();
        let inside = format!("{pointer}/");
        assert!(at == pointer || at.starts_with(&inside), "{value}: {found:?}");
    }
    let check = |field: &str, value: Value| with("/spec/health_check", json!({ field: value }));
    let cases = [
        ("kind", json!("http")),
        ("interval_ms", json!(99)),
        ("timeout_ms", json!(2001)),
        ("timeout_ms", json!(9)),
        ("port", json!(0)),
        ("rise", json!(0)),
        ("fall", json!(101)),
    ];
    for (field, value) in cases {
        let found = mistakes(&check(field, value));
        assert_eq!(found[0].path.pointer(), format!("/spec/health_check/{field}"));
    }
}

#[test]
fn resets_are_for_whom_they_can_be_made() {
    let unchecked = json!({"kind": "none"});
    let spec = |more: &[(&str, Value)]| {
        let mut value = good();
        value["spec"]["backends"][0]["port"] = json!(80);
        value["spec"]["backends"][1]["port"] = json!(80);
        more.iter().for_each(|(name, said)| value["spec"][*name] = said.clone());
        value
    };
    let full_nat = json!({"mode": "full-nat", "on_exhaustion": "reset"});
    let all = spec(&[
        ("idle_timeout_secs", json!(30)),
        ("reset_on_expiry", json!(true)),
        ("on_unhealthy", json!("reset")),
        ("nat", full_nat.clone()),
    ]);
    let read_back = document(&all, read).unwrap().spec;
    assert_eq!((read_back.idle_timeout_secs, read_back.reset_on_expiry), (Some(30), true));
    assert_eq!(read_back.nat.on_exhaustion, OnExhaustion::Reset);
    let of = |protocol: &str, name, said| {
        let check = unchecked.clone();
        spec(&[("protocol", json!(protocol)), ("health_check", check), (name, said)])
    };
    let dsr = |name, said| spec(&[("nat", json!({"mode": "dsr"})), (name, said)]);
    for (value, pointer) in [
        (of("udp", "reset_on_expiry", json!(true)), "/spec/reset_on_expiry"),
        (of("udp", "on_unhealthy", json!("reset")), "/spec/on_unhealthy"),
        (of("udp", "nat", full_nat.clone()), "/spec/nat/on_exhaustion"),
        (of("sctp", "reset_on_expiry", json!(true)), "/spec/reset_on_expiry"),
        (of("sctp", "on_unhealthy", json!("reset")), "/spec/on_unhealthy"),
        (of("sctp", "nat", full_nat), "/spec/nat/on_exhaustion"),
        (dsr("reset_on_expiry", json!(true)), "/spec/reset_on_expiry"),
        (dsr("on_unhealthy", json!("reset")), "/spec/on_unhealthy"),
        (spec(&[("nat", json!({"on_exhaustion": "icmp"}))]), "/spec/nat/on_exhaustion"),
        (spec(&[("nat", json!({"on_exhaustion": "shrug"}))]), "/spec/nat/on_exhaustion"),
    ] {
        let found = mistakes(&value);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].path.pointer(), pointer, "{found:?}");
    }
    for fine in [
        of("udp", "on_unhealthy", json!("keep")),
        of("sctp", "on_unhealthy", json!("drop")),
        of("sctp", "nat", json!({"mode": "full-nat", "on_exhaustion": "icmp"})),
        dsr("on_unhealthy", json!("drop")),
    ] {
        document(&fine, read).unwrap();
    }
}

#[test]
fn backends_of_the_other_family_need_flows_from_an_address_of_theirs() {
    let vip = |nat: Value| {
        let mut vip = with("/spec/address", json!("2001:db8:f::1"));
        vip["spec"]["nat"] = nat;
        vip
    };
    let sources = json!({"mode": "full-nat", "source_addresses": ["192.0.2.7"]});
    for good in [json!({"mode": "one-arm"}), sources] {
        let read = document(&vip(good), read).unwrap();
        assert!(read.spec.backends.iter().all(|backend| backend.address.is_ipv4()));
    }
    for (nat, says) in [
        (json!({"mode": "dnat"}), "`nat.mode: dnat` keeps their addresses"),
        (json!({"mode": "dsr"}), "as they came, of IPv6"),
        (json!({"mode": "dsr-ipip"}), "as they came, of IPv6"),
        (json!({"mode": "full-nat"}), "come from no address of IPv4: list one"),
    ] {
        let found = mistakes(&vip(nat.clone()));
        let pointers: Vec<_> = found.iter().map(|mistake| mistake.path.pointer()).collect();
        assert_eq!(pointers, ["/spec/backends/0/address", "/spec/backends/1/address"], "{nat}");
        assert!(found[0].message.contains(says), "{found:?}");
    }
    let unused = json!({"mode": "full-nat", "source_addresses": ["2001:db8:f::2"]});
    let mut own = vip(unused);
    own["spec"]["backends"] = json!([{"address": "2001:db8:a::2", "port": 80}]);
    document(&own, read).unwrap();
    own["spec"]["backends"][0]["address"] = json!("10.0.0.2");
    assert!(mistakes(&own)[0].message.contains("to the backend 10.0.0.2: list one"));
}

#[test]
fn segment_sizes_are_a_word_or_bytes_and_for_tcp_alone() {
    let spec = |more: &[(&str, Value)]| {
        let mut value = good();
        value["spec"]["backends"][0]["port"] = json!(80);
        value["spec"]["backends"][1]["port"] = json!(80);
        more.iter().for_each(|(name, said)| value["spec"][*name] = said.clone());
        value
    };
    for (said, read_back) in [
        (json!("auto"), MssClamp::Auto(MssAuto::Auto)),
        (json!(536), MssClamp::Bytes(536)),
        (json!(65_000), MssClamp::Bytes(65_000)),
    ] {
        let vip = document(&spec(&[("mss_clamp", said.clone())]), read).unwrap();
        assert_eq!(vip.spec.mss_clamp, Some(read_back));
        assert_eq!(serde_json::to_value(&vip.spec).unwrap()["mss_clamp"], said);
    }
    let (dsr, none) = (json!({"mode": "dsr"}), json!({"kind": "none"}));
    let unclampable = |protocol: &str| {
        let check = ("health_check", none.clone());
        spec(&[("mss_clamp", json!(1220)), ("protocol", json!(protocol)), check])
    };
    for wrong in [
        spec(&[("mss_clamp", json!(535))]),
        spec(&[("mss_clamp", json!(65_001))]),
        spec(&[("mss_clamp", json!("pmtu"))]),
        spec(&[("mss_clamp", json!([1220]))]),
        spec(&[("mss_clamp", json!("auto")), ("nat", dsr)]),
        unclampable("udp"),
        unclampable("sctp"),
    ] {
        let found = mistakes(&wrong);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].path.pointer(), "/spec/mss_clamp", "{found:?}");
    }
}

#[test]
fn source_addresses_are_unicast_few_and_for_full_nat_only() {
    let nat = |mode: &str, addresses: Value| {
        with("/spec/nat", json!({"mode": mode, "source_addresses": addresses}))
    };
    let good = nat("full-nat", json!(["192.0.2.7", "192.0.2.8"]));
    assert_eq!(document(&good, read).unwrap().spec.nat.source_addresses.len(), 2);
    let host = nat("one-arm", json!(["192.0.2.7"]));
    assert_eq!(document(&host, read).unwrap().spec.nat.source_addresses.len(), 1);
    let many: Vec<_> = (0..=MAX_SOURCE_ADDRESSES).map(|n| format!("192.0.2.{n}")).collect();
    for (value, pointer) in [
        (with("/spec/nat", json!({"mode": "full-nat", "source": []})), "/spec/nat/source"),
        (nat("snat", json!([])), "/spec/nat/mode"),
        (nat("dnat", json!(["192.0.2.7"])), "/spec/nat/source_addresses"),
        (nat("one-arm", json!(["2001:db8::1"])), "/spec/nat/source_addresses/0"),
        (nat("full-nat", json!(["2001:db8::1", "2001:db8::2"])), "/spec/nat/source_addresses"),
        (nat("full-nat", json!(["192.0.2.7", "192.0.2.7"])), "/spec/nat/source_addresses/1"),
        (nat("full-nat", json!(["127.0.0.1"])), "/spec/nat/source_addresses/0"),
        (nat("full-nat", json!(many)), "/spec/nat/source_addresses"),
        (nat("full-nat", json!(["192.0.2.7", "2001:db8::1"])), "/spec/nat/source_addresses/1"),
    ] {
        let found = mistakes(&value);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].path.pointer(), pointer, "{found:?}");
    }
}

#[test]
fn a_range_of_ports_ends_at_the_last_port_here_and_at_the_backends() {
    let mut value = with("/spec/last_port", json!(65_535));
    value["spec"]["port"] = json!(1);
    let found = mistakes(&value);
    assert_eq!(found.len(), 2, "one for each backend: {found:?}");
    assert_eq!(found[0].path.pointer(), "/spec/backends/0/port");
    assert!(found[0].message.contains("use 1 or less"), "{}", found[0].message);
    value["spec"]["backends"] = json!([{"address": "10.0.0.2", "port": 1}]);
    let all = document(&value, read).unwrap().spec;
    assert_eq!(all.ports(), "1-65535");
    let alone = document(&with("/spec/last_port", json!(80)), read).unwrap().spec;
    assert_eq!(alone.ports(), "80");
}

#[test]
fn backends_that_answer_clients_themselves_have_the_vips_port() {
    for mode in ["dsr", "dsr-ipip", "dsr-gue"] {
        let mut value = with("/spec/nat", json!({ "mode": mode }));
        let found = mistakes(&value);
        assert_eq!(found[0].path.pointer(), "/spec/backends");
        assert!(found[0].message.contains("use 80, or"), "{}", found[0].message);
        value["spec"]["port"] = json!(8080);
        assert!(document(&value, read).unwrap().spec.nat.mode.is_dsr());
        value["spec"]["nat"]["source_addresses"] = json!(["192.0.2.7"]);
        assert_eq!(mistakes(&value)[0].path.pointer(), "/spec/nat/source_addresses");
    }
}

#[test]
fn a_full_table_forwards_by_hash_only_where_no_flow_is_needed() {
    let mut value = with("/spec/full_table", json!("hash"));
    assert!(document(&value, read).is_ok(), "by one port of tcp, with dnat");
    for (field, more) in [
        ("nat", json!({"mode": "full-nat"})),
        ("nat", json!({"mode": "one-arm"})),
        ("last_port", json!(90)),
        ("protocol", json!("sctp")),
    ] {
        let mut value = value.clone();
        value["spec"][field] = more;
        value["spec"]["health_check"] = json!({"kind": "none"});
        assert!(mistakes(&value)[0].message.contains("direct server return"), "{field}");
    }
    value["spec"]["nat"] = json!({"mode": "dsr"});
    value["spec"]["port"] = json!(8080);
    assert_eq!(document(&value, read).unwrap().spec.full_table, FullTable::Hash);
    for (pointer, more) in [
        ("/spec/algorithm", json!("round-robin")),
        ("/spec/affinity_secs", json!(60)),
        ("/spec/backends/0/max_flows", json!(60)),
    ] {
        let mut value = value.clone();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        value.pointer_mut(parent).unwrap()[field] = more;
        let found = mistakes(&value);
        assert_eq!(found[0].path.pointer(), "/spec/full_table", "{pointer}");
        assert!(found[0].message.contains("more than a hash"), "{found:?}");
    }
    assert_eq!(mistakes(&with("/spec/full_table", json!("evict"))).len(), 1);
}

#[test]
fn too_many_backends_are_refused() {
    let backends: Vec<_> =
        (0..=MAX_BACKENDS).map(|n| json!({"address": "10.0.0.2", "port": n + 1})).collect();
    assert_eq!(
        mistakes(&with("/spec/backends", json!(backends)))[0].path.pointer(),
        "/spec/backends"
    );
}

#[test]
fn the_size_of_a_maglev_table_is_one_of_those_that_are_listed_and_has_a_slot_for_each_backend() {
    let sized = |size: u32, algorithm: &str| {
        let mut value = with("/spec/maglev_table_size", json!(size));
        value["spec"]["algorithm"] = json!(algorithm);
        value
    };
    for algorithm in ["maglev", "source-hash"] {
        for size in lb_dataplane::maglev::SIZES {
            let read = document(&sized(size, algorithm), read).unwrap();
            assert_eq!(read.spec.maglev_table_size, Some(size));
        }
    }
    let backend = |n: usize| json!({"address": "10.0.0.2", "port": n + 1});
    let mut many = sized(1021, "maglev");
    many["spec"]["backends"] = json!((0..1021).map(backend).collect::<Vec<_>>());
    assert!(document(&many, read).is_ok());
    many["spec"]["backends"] = json!((0..1022).map(backend).collect::<Vec<_>>());
    for wrong in [
        sized(1020, "maglev"),
        sized(0, "maglev"),
        sized(65_537, "source-hash"),
        sized(1_048_573, "maglev"),
        sized(1021, "round-robin"),
        sized(1021, "least-connections"),
        many,
    ] {
        let found = mistakes(&wrong);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].path.pointer(), "/spec/maglev_table_size", "{found:?}");
    }
}

#[test]
fn a_vip_of_udp_or_sctp_has_to_say_how_it_is_checked() {
    for protocol in [Protocol::Udp, Protocol::Sctp] {
        let vip = with("/spec/protocol", json!(protocol.name()));
        let found = mistakes(&vip);
        assert_eq!(found[0].path.pointer(), "/spec/health_check");
        assert!(found[0].message.contains(protocol.name()), "{found:?}");
        let mut halfway = vip.clone();
        halfway["spec"]["health_check"] = json!({"rise": 1});
        assert_eq!(mistakes(&halfway)[0].path.pointer(), "/spec/health_check/kind");
        for check in [json!({"kind": "none"}), json!({"kind": "tcp", "port": 8080})] {
            let mut said = vip.clone();
            said["spec"]["health_check"] = check;
            assert_eq!(document(&said, read).unwrap().spec.protocol, protocol);
        }
    }
}

#[test]
fn a_vip_of_icmp_has_no_ports_and_says_its_check() {
    let echoes = json!({
        "metadata": {"name": "pings"},
        "spec": {
            "address": "203.0.113.10", "protocol": "icmp", "health_check": {"kind": "none"},
            "backends": [{"address": "10.0.0.2"}, {"address": "10.0.0.3", "weight": 2}],
        },
    });
    let read_back = document(&echoes, read).unwrap();
    assert_eq!((read_back.spec.port, read_back.spec.backends[0].port), (0, 0));
    assert_eq!(read_back.spec.ports(), "-");
    assert!(!read_back.spec.advertise, "the services behind the address are to carry it");
    let mut alone = echoes.clone();
    alone["spec"]["advertise"] = json!(true);
    assert!(document(&alone, read).unwrap().spec.advertise);
    let written = serde_json::to_value(&read_back).unwrap();
    assert_eq!(document(&written, read).unwrap(), read_back, "{written}");
    for (pointer, field, value) in [
        ("", "port", json!(80)),
        ("", "port", json!(0)),
        ("", "last_port", json!(80)),
        ("/backends/0", "port", json!(80)),
        ("/backends/0", "address", json!("2001:db8::2")),
        ("", "mss_clamp", json!("auto")),
        ("", "reset_on_expiry", json!(true)),
        ("", "on_unhealthy", json!("reset")),
        ("/health_check", "kind", json!("tcp")),
        ("/health_check", "rise", json!(0)),
    ] {
        let mut wrong = echoes.clone();
        wrong["spec"].pointer_mut(pointer).unwrap()[field] = value.clone();
        let found = mistakes(&wrong);
        assert_eq!(found.len(), 1, "{pointer}/{field} = {value}: {found:?}");
        assert!(found[0].path.pointer().starts_with(&format!("/spec{pointer}")), "{found:?}");
    }
    let mut across = echoes.clone();
    across["spec"]["backends"][0]["address"] = json!("2001:db8::2");
    across["spec"]["nat"] = json!({"mode": "one-arm"});
    assert!(document(&across, read).is_ok());
    let mut from = echoes.clone();
    from["spec"]["health_check"] = json!({"from": "slow"});
    assert_eq!(mistakes(&from)[0].path.pointer(), "/spec/health_check/from");
    let mut checked = echoes.clone();
    checked["spec"]["health_check"] = json!({"kind": "tcp", "port": 22});
    assert!(document(&checked, read).is_ok());
    let mut unsaid = echoes;
    unsaid["spec"].as_object_mut().unwrap().remove("health_check");
    assert_eq!(mistakes(&unsaid)[0].path.pointer(), "/spec/health_check");
}

#[test]
fn a_status_in_a_request_is_ignored() {
    let mut value = good();
    value["status"] = json!({"health": Health::Healthy});
    assert_eq!(document(&value, read).unwrap().status, None);
}

fn any_vip() -> impl Strategy<Value = Vip> {
    let backends = prop::collection::btree_set((any::<[u8; 2]>(), 1..=u16::MAX), 1..20);
    let check = (any::<bool>(), 100..=3_600_000_u32, 1..=100_u8, 1..=100_u8);
    ("[a-z]([a-z0-9-]{0,20}[a-z0-9])?", any::<bool>(), 1..=u16::MAX, backends, check, any::<bool>())
        .prop_map(|(name, udp, port, backends, (tcp, interval_ms, rise, fall), advertise)| Vip {
            metadata: Metadata { name, ..Metadata::default() },
            spec: VipSpec {
                pool: None,
                address: [203, 0, 113, 1].into(),
                port,
                last_port: tcp.then_some(port),
                protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
                algorithm: if udp { Algorithm::RoundRobin } else { Algorithm::Maglev },
                affinity_secs: None,
                maglev_table_size: (!udp && advertise).then_some(65_521),
                max_flows: tcp.then_some(interval_ms),
                max_flows_per_client: (!tcp).then_some(interval_ms),
                idle_timeout_secs: tcp.then_some(interval_ms.min(604_800)),
                reset_on_expiry: !udp && rise == 1,
                on_unhealthy: (!udp).then_some(OnUnhealthy::Reset),
                mss_clamp: (!udp).then_some(MssClamp::Bytes(1220)),
                access: Default::default(),
                full_table: Default::default(),
                nat: Default::default(),
                backends: backends
                    .into_iter()
                    .map(|([a, b], port)| Backend {
                        address: [10, 0, a, b].into(),
                        port,
                        weight: 1,
                        max_flows: tcp.then_some(interval_ms),
                        drain: false,
                        disabled: false,
                    })
                    .collect(),
                health_check: HealthCheck {
                    from: None,
                    kind: if tcp { HealthCheckKind::Tcp } else { HealthCheckKind::None },
                    port: tcp.then_some(port),
                    interval_ms,
                    timeout_ms: 10 + interval_ms / 2,
                    rise,
                    fall,
                },
                announce_on: if advertise { Vec::new() } else { vec!["eth*".to_owned()] },
                advertise,
            },
            status: None,
        })
}

proptest! {
    #[test]
    fn a_written_vip_reads_back_the_same(vip in any_vip()) {
        let value = serde_json::to_value(&vip).unwrap();
        prop_assert_eq!(document(&value, read).unwrap(), vip);
    }

    #[test]
    fn whatever_the_reader_accepts_serde_accepts_too(field in "/(metadata|spec)/[a-z_]{3,9}", port in any::<i32>()) {
        let mut value = good();
        let (parent, name) = field.rsplit_once('/').unwrap();
        value.pointer_mut(parent).unwrap()[name] = json!(port);
        if let Ok(vip) = document(&value, read) {
            prop_assert_eq!(serde_json::from_value::<Vip>(value).unwrap(), vip);
        }
    }
}
