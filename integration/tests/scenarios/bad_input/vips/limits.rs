//! How much a VIP may say, and how much all of them may.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value, json};

use super::{BACKENDS, Bench, PREFIXES, SERVICES, SLOTS, SOURCES, set, with};
use crate::hello::Holds;

/// VIPs at most, and resources of another kind.
const VIPS: usize = 65_536;
const OF_A_KIND: usize = 4096;

/// A field, what it may just say, and what it may not.
type Limit = (&'static str, Vec<Value>, Vec<Value>);

pub(super) fn are_taken_and_one_more_is_refused(bench: &Bench<'_>) {
    let plain = with(&[("/spec/announce_on", json!(["eth0"]))]);
    let from_a_pool = with(&[("/spec/nat/mode", json!("full-nat"))]);
    for (base, limits) in
        [(&plain, of_values()), (&plain, of_lists()), (&from_a_pool, vec![of_source_addresses()])]
    {
        for (field, taken, refused) in limits {
            let so = |value: &Value| {
                let mut vip = base.clone();
                set(&mut vip, field, value.clone());
                let value = value.to_string();
                (format!("{field}: {value:.60}"), vip)
            };
            for (what, vip) in taken.iter().map(so) {
                bench.would_take(&what, &vip);
            }
            for (what, vip) in refused.iter().map(so) {
                bench.refuses_at(&what, &vip, field);
            }
        }
    }
}

fn values<const N: usize>(of: [u64; N]) -> Vec<Value> {
    of.map(Value::from).into()
}

fn from_to(field: &'static str, least: u64, most: u64) -> Limit {
    (field, values([least, most]), values([least - 1, most + 1]))
}

fn text(field: &'static str, most: usize) -> Limit {
    (field, vec![json!("x".repeat(most))], vec![json!("x".repeat(most + 1))])
}

fn of_values() -> Vec<Limit> {
    const MOST_FLOWS: u64 = 1_000_000_000;
    let unicast = vec![json!("223.255.255.255"), json!("1.0.0.0")];
    let others = vec![json!("224.0.0.0"), json!("0.255.255.255"), json!("127.0.0.1")];
    vec![
        text("/metadata/name", 63),
        text("/metadata/owner", 63),
        text("/metadata/labels/a", 63),
        text("/spec/announce_on/0", 15),
        ("/spec/address", unicast, others),
        from_to("/spec/port", 1, 65_535),
        ("/spec/last_port", values([80, 65_535]), values([79, 65_536])),
        from_to("/spec/affinity_secs", 1, 86_400),
        from_to("/spec/max_flows", 1, MOST_FLOWS),
        from_to("/spec/max_flows_per_client", 1, MOST_FLOWS),
        from_to("/spec/idle_timeout_secs", 1, 604_800),
        from_to("/spec/mss_clamp", 536, 65_000),
        from_to("/spec/backends/1/port", 1, 65_535),
        from_to("/spec/backends/1/weight", 1, 255),
        from_to("/spec/backends/1/max_flows", 1, MOST_FLOWS),
        from_to("/spec/health_check/port", 1, 65_535),
        from_to("/spec/health_check/interval_ms", 100, 3_600_000),
        // By default the interval is two seconds.
        from_to("/spec/health_check/timeout_ms", 10, 2000),
        from_to("/spec/health_check/rise", 1, 100),
        from_to("/spec/health_check/fall", 1, 100),
        // Between the two, some sizes and no others.
        (
            "/spec/maglev_table_size",
            values([1021, 16_381, 524_287]),
            values([1020, 2000, 65_537, 524_288]),
        ),
    ]
}

fn of_lists() -> Vec<Limit> {
    let labels = |n| (0..n).map(|n| (format!("l{n}"), json!("x"))).collect::<Map<_, _>>();
    let interfaces = |n| (0..n).map(|n| json!(format!("eth{n}"))).collect();
    vec![
        ("/spec/backends", vec![backends(4096)], vec![backends(4097), backends(0)]),
        ("/metadata/labels", vec![json!(labels(64))], vec![json!(labels(65))]),
        ("/spec/announce_on", vec![interfaces(256)], vec![interfaces(257)]),
        ("/spec/access", vec![access(16_384)], vec![access(16_385)]),
    ]
}

fn of_source_addresses() -> Limit {
    ("/spec/nat/source_addresses", vec![pool(16)], vec![pool(17)])
}

fn backends(count: u32) -> Value {
    let backend = |n| json!({"address": Ipv4Addr::from_bits(0x0af4_0001 + n), "port": 80});
    (0..count).map(backend).collect()
}

fn pool(count: u32) -> Value {
    (0..count).map(|n| json!(Ipv4Addr::from_bits(0xcb00_7164 + n))).collect()
}

/// So many prefixes, of which every other one may come in.
fn access(prefixes: u32) -> Value {
    let prefix = |n: u32| json!(format!("{}/24", Ipv4Addr::from_bits(0x0b00_0000 + (n << 8))));
    let [allow, deny] =
        [0, 1].map(|odd| (0..prefixes).filter(|n| n % 2 == odd).map(prefix).collect::<Vec<_>>());
    json!({"allow": allow, "deny": deny})
}

/// What the API takes, but the dataplane was given less room for: the sentence says which setting to raise.
pub(super) fn of_the_dataplane_are_said_by_their_names(bench: &Bench<'_>) {
    const SIZE: u32 = 16_381;
    const { assert!(SLOTS < SIZE) };
    let full_nat = ("/spec/nat/mode", json!("full-nat"));
    // With nobody to choose there is no choice to make room for.
    let unchecked = ("/spec/health_check/kind", json!("none"));
    for (setting, vip) in [
        ("max_access_prefixes", with(&[("/spec/access", access(PREFIXES + 1))])),
        ("max_backends", with(&[("/spec/backends", backends(BACKENDS + 1))])),
        ("max_ring_slots", with(&[("/spec/maglev_table_size", json!(SIZE)), unchecked])),
        (
            "max_source_addresses",
            with(&[full_nat, ("/spec/nat/source_addresses", pool(SOURCES + 1))]),
        ),
    ] {
        bench.refuses(setting, &vip, 503, &format!("dataplane.{setting}"));
    }
    // All or none: what would have had room is not there either.
    let vips: Vec<Value> = (0..SERVICES).map(numbered).collect();
    applies_nothing(bench, &json!({"vips": vips}), 503, "dataplane.max_services");
}

/// One of many, each at an address of its own.
fn numbered(n: u32) -> Value {
    with(&[
        ("/metadata/name", json!(format!("v{n}"))),
        ("/spec/address", json!(Ipv4Addr::from_bits(0xc612_0000 + n))),
        ("/spec/algorithm", json!("round-robin")),
    ])
}

fn applies_nothing(bench: &Bench<'_>, body: &Value, status: u16, says: &str) {
    let body = body.to_string();
    let answer = bench.hello.api.request("POST", "config", Some(&body)).holds();
    bench.is_refused(&format!("{body:.60}"), &answer, status, says);
}

/// So many VIPs, and resources of a kind.
pub(super) fn of_the_whole_are_refused(bench: &Bench<'_>) {
    let would_take = |what: &str, body: &Value| {
        let path = "config?dryRun=true";
        let answer = bench.hello.api.request("POST", path, Some(&body.to_string())).holds();
        bench.expects(answer.status == 200, what, &answer);
    };
    // Two are there already.
    let vips = |n: usize| json!({"vips": (2..n as u32).map(numbered).collect::<Vec<_>>()});
    would_take("as many VIPs as there may be", &vips(VIPS));
    applies_nothing(bench, &vips(VIPS + 1), 507, "65537 VIPs, and 65536 are the most");

    let pool = |n: usize| {
        let prefix = format!("{}/128", Ipv6Addr::from_bits(0x2001_0db8 << 96 | n as u128));
        json!({"metadata": {"name": format!("p{n}")}, "spec": {"addresses": [prefix]}})
    };
    let pools = |n: usize| json!({"pools": (0..n).map(pool).collect::<Vec<_>>()});
    would_take("as many pools as there may be", &pools(OF_A_KIND));
    applies_nothing(bench, &pools(OF_A_KIND + 1), 507, "more than 4096 of the kind");
}
