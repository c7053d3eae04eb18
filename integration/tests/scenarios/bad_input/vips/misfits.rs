//! What a VIP may not say of its fields together, or beside others.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::{Bench, RANGED, backend, good, new_vip, set, with};
use crate::hello::VIP;

/// What a VIP says, and the field that does not go with the rest.
type Misfit = (Vec<(&'static str, Value)>, &'static str);

const DSR: [&str; 3] = ["dsr", "dsr-ipip", "dsr-gue"];
/// Modes in which packets come from a port of lbd's.
const FROM_PORTS: [&str; 2] = ["full-nat", "one-arm"];
const WITHOUT_TCP: [&str; 3] = ["udp", "sctp", "icmp"];
const MODE: &str = "/spec/nat/mode";

pub(super) fn are_refused(bench: &Bench<'_>) {
    let all = [of_families(), of_modes(), of_protocols(), of_full_tables(), of_what_is_listed()];
    for (changes, field) in all.concat() {
        bench.refuses_at(&format!("{changes:?}"), &vip(&changes), field);
    }
    ports_that_others_have(bench);
    names_of_nothing(bench);
    bodies_that_cannot_be_read(bench);
    single_backends(bench);
}

/// Of echoes without their ports, and of what has no check by default without one, unless the changes say another.
fn vip(changes: &[(&str, Value)]) -> Value {
    let mut vip = new_vip();
    let protocol = changes.iter().find(|(pointer, _)| *pointer == "/spec/protocol");
    let protocol = protocol.map_or("tcp", |(_, value)| value.as_str().unwrap_or_default());
    if WITHOUT_TCP.contains(&protocol) {
        set(&mut vip, "/spec/health_check/kind", json!("none"));
    }
    if protocol == "icmp" {
        let spec = vip["spec"].as_object_mut().expect("a mapping");
        spec.remove("port");
        spec.insert("backends".to_owned(), json!([{"address": "10.244.1.2"}]));
    }
    changes.iter().for_each(|(pointer, value)| set(&mut vip, pointer, value.clone()));
    vip
}

fn of_families() -> Vec<Misfit> {
    let six = ("/spec/backends/0/address", json!("2001:db8:a::2"));
    let at_it = "/spec/backends/0/address";
    let listed = ("/spec/nat/source_addresses", json!(["2001:db8:f::200"]));
    let mut all = vec![
        (vec![six.clone()], at_it),
        // Nothing that flows could come from.
        (vec![six, (MODE, json!("full-nat"))], at_it),
        (vec![(MODE, json!("one-arm")), listed], "/spec/nat/source_addresses/0"),
        (vec![("/spec/access/allow", json!(["2001:db8::/32"]))], "/spec/access/allow/0"),
        (
            vec![
                ("/spec/address", json!("2001:db8:f::10")),
                ("/spec/backends", json!([backend(2)])),
            ],
            at_it,
        ),
    ];
    for mode in DSR {
        all.push((
            vec![("/spec/backends/0/address", json!("2001:db8:a::2")), (MODE, json!(mode))],
            at_it,
        ));
    }
    all
}

fn of_modes() -> Vec<Misfit> {
    let mut all = Vec::new();
    for mode in DSR {
        let with = |pointer, value: Value| vec![(MODE, json!(mode)), (pointer, value)];
        all.extend([
            (with("/spec/backends/1/port", json!(81)), "/spec/backends"),
            (with("/spec/mss_clamp", json!("auto")), "/spec/mss_clamp"),
            (with("/spec/reset_on_expiry", json!(true)), "/spec/reset_on_expiry"),
            (with("/spec/on_unhealthy", json!("reset")), "/spec/on_unhealthy"),
        ]);
    }
    for mode in DSR.into_iter().chain(["dnat"]) {
        let with = |pointer, value: Value| vec![(MODE, json!(mode)), (pointer, value)];
        let (pool, said) = ("/spec/nat/source_addresses", "/spec/nat/on_exhaustion");
        all.extend([
            (with(pool, json!(["203.0.113.200"])), pool),
            (with(said, json!("reset")), said),
            (with(said, json!("icmp")), said),
        ]);
    }
    for mode in FROM_PORTS {
        let full_table = ("/spec/full_table", json!("hash"));
        all.push((vec![(MODE, json!(mode)), full_table], "/spec/full_table"));
    }
    all
}

fn of_protocols() -> Vec<Misfit> {
    let mut all = Vec::new();
    for protocol in WITHOUT_TCP {
        let with =
            |pointer, value: Value| vec![("/spec/protocol", json!(protocol)), (pointer, value)];
        all.extend([
            (with("/spec/mss_clamp", json!(1400)), "/spec/mss_clamp"),
            (with("/spec/reset_on_expiry", json!(true)), "/spec/reset_on_expiry"),
            (with("/spec/on_unhealthy", json!("reset")), "/spec/on_unhealthy"),
            (with("/spec/health_check", Value::Null), "/spec/health_check"),
        ]);
        let mut exhausted = with("/spec/nat/on_exhaustion", json!("reset"));
        exhausted.push((MODE, json!("full-nat")));
        all.push((exhausted, "/spec/nat/on_exhaustion"));
    }
    let echoes = |pointer, value: Value| vec![("/spec/protocol", json!("icmp")), (pointer, value)];
    for field in ["/spec/port", "/spec/last_port", "/spec/backends/0/port"] {
        all.push((echoes(field, json!(80)), field));
    }
    all.push((echoes("/spec/health_check/kind", json!("tcp")), "/spec/health_check/port"));
    all
}

fn of_full_tables() -> Vec<Misfit> {
    const FIELD: &str = "/spec/full_table";
    let hash = |pointer, value: Value| (vec![(FIELD, json!("hash")), (pointer, value)], FIELD);
    let size = |algorithm: &str| {
        let field = "/spec/maglev_table_size";
        (vec![("/spec/algorithm", json!(algorithm)), (field, json!(1021))], field)
    };
    vec![
        hash("/spec/algorithm", json!("round-robin")),
        hash("/spec/algorithm", json!("least-connections")),
        hash("/spec/affinity_secs", json!(60)),
        hash("/spec/backends/0/max_flows", json!(60)),
        hash("/spec/last_port", json!(89)),
        hash("/spec/protocol", json!("sctp")),
        hash("/spec/protocol", json!("icmp")),
        size("round-robin"),
        size("least-connections"),
    ]
}

fn of_what_is_listed() -> Vec<Misfit> {
    let many: Vec<_> =
        (1..=1022).map(|n| json!({"address": Ipv4Addr::new(10, 244, 1, 2), "port": n})).collect();
    let few_slots = vec![("/spec/maglev_table_size", json!(1021)), ("/spec/backends", json!(many))];
    let ten = ["10.0.0.0/8"];
    vec![
        (few_slots, "/spec/maglev_table_size"),
        (vec![("/spec/backends/1", backend(2))], "/spec/backends/1"),
        (vec![("/spec/backends/1/address", json!("127.0.0.1"))], "/spec/backends/1/address"),
        (vec![("/spec/address", json!("10.244.1.2"))], "/spec/backends/0/address"),
        // The last ports would be beyond the last one.
        (
            vec![("/spec/last_port", json!(89)), ("/spec/backends/1/port", json!(65_530))],
            "/spec/backends/1/port",
        ),
        (vec![("/spec/access", json!({"allow": ten, "deny": ten}))], "/spec/access/deny/0"),
        (vec![("/spec/access/allow", json!(["10.0.0.1/8"]))], "/spec/access/allow/0"),
        (vec![("/spec/colour", json!("red"))], "/spec/colour"),
        (
            vec![("/spec/health_check", json!({"from": "slow", "rise": 1}))],
            "/spec/health_check/rise",
        ),
    ]
}

/// One port in common is enough, on whichever side; beside them, and with another protocol, there is room.
fn ports_that_others_have(bench: &Bench<'_>) {
    let (address, [first, last]) = RANGED;
    let at = |ports: [u16; 2]| {
        let mut vip = good("other", address);
        set(&mut vip, "/spec/port", json!(ports[0]));
        if ports[1] > ports[0] {
            set(&mut vip, "/spec/last_port", json!(ports[1]));
        }
        vip
    };
    for ports in [
        [first, first],
        [last, last],
        [first - 9, first],
        [last, last + 9],
        [first + 9, last - 9],
        [first - 9, last + 9],
    ] {
        let what = format!("ports {ports:?}");
        bench.refuses(&what, &at(ports), 409, "VIP ranged has tcp port 8000-8999");
    }
    bench.would_take("ports below", &at([first - 9, first - 1]));
    bench.would_take("ports above", &at([last + 1, last + 9]));
    let mut datagrams = at([first, last]);
    set(&mut datagrams, "/spec/protocol", json!("udp"));
    set(&mut datagrams, "/spec/health_check/kind", json!("none"));
    bench.would_take("ports of another protocol", &datagrams);

    let mut twice = new_vip();
    set(&mut twice, "/spec/address", json!(VIP));
    bench.refuses("another VIP's port", &twice, 409, "VIP web has tcp port 80");
    // Answers without flows would be of either VIP.
    let backends = json!([{"address": "10.244.1.2", "port": 8080}]);
    let shared = with(&[("/spec/full_table", json!("hash")), ("/spec/backends", backends)]);
    bench.refuses("another VIP's backend", &shared, 409, "VIP web has the backend 10.244.1.2:8080");
}

/// Resources that a VIP names and that are not there.
fn names_of_nothing(bench: &Bench<'_>) {
    for (pointer, what) in
        [("/spec/pool", "pool nothing"), ("/spec/health_check/from", "health check nothing")]
    {
        let vip = with(&[(pointer, json!("nothing"))]);
        let problem =
            bench.refuses(pointer, &vip, 422, &format!("names {what}, which is not there"));
        let at = problem.and_then(|problem| problem.pointer);
        bench.expects(at.as_deref() == Some(pointer), pointer, &at);
    }
}

/// A name in the path that is another one than the body's, and what is no JSON.
fn bodies_that_cannot_be_read(bench: &Bench<'_>) {
    let put = |name: &str, body: &str| {
        let answer = bench.hello.api.request("PUT", &format!("vips/{name}"), Some(body));
        answer.expect("an answer")
    };
    let body = new_vip().to_string();
    let twice = body.replacen(r#""port""#, r#""port":80,"port""#, 1);
    for (what, answer, status, says) in [
        ("another name", put("another", &body), 422, "metadata.name is other"),
        ("half of a body", put("other", &body[..body.len() / 2]), 400, "no well-formed JSON"),
        ("a field twice", put("other", &twice), 400, "the field `port` is there twice"),
    ] {
        bench.is_refused(what, &answer, status, says);
    }
}

/// A part of a VIP is refused as the whole is.
fn single_backends(bench: &Bench<'_>) {
    let put = |at: &str, spec: Value| {
        let body = json!({"metadata": {"name": at}, "spec": spec}).to_string();
        let path = format!("vips/web/backends/{at}");
        bench.hello.api.request("PUT", &path, Some(&body)).expect("an answer")
    };
    let other = |weight: u16| json!({"address": "10.244.1.9", "port": 8080, "weight": weight});
    let six = json!({"address": "2001:db8::9", "port": 8080});
    for (what, answer, says) in [
        ("a backend's weight", put("10.244.1.9:8080", other(256)), "weight is 256"),
        ("a backend's family", put("[2001:db8::9]:8080", six), "clients are of IPv4"),
    ] {
        bench.is_refused(what, &answer, 422, says);
    }
}
