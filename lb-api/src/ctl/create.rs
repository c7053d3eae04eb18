//! `create`: resources out of the command line's words.

use std::net::SocketAddr;

use lb_api_types::view::{Change, ChangeKind};
use serde_json::{Map, Value, json};

use super::CtlError;
use super::apply::{dry, no_backend, path_of};
use super::arguments::{
    Create, Format, How, Kind as Noun, NewAddress, NewBackend, NewBgpGlobal, NewHealthCheck,
    NewNode, NewPeer, NewPeerGroup, NewPolicy, NewPool, NewSet, NewStaticRoute, NewVip, PeerWords,
};
use super::client::Client;
use super::show::{json as as_json, path_to, yaml};
use crate::resources::Kind;
use crate::resources::bgp::GLOBAL;
use crate::yaml as reader;

/// What was created: what is said of it, and how it is waited for.
pub(super) struct Created {
    pub(super) said: String,
    pub(super) changes: Vec<Change>,
    pub(super) how: How,
}

/// What is to be created.
struct New {
    noun: String,
    name: String,
    path: String,
    body: Value,
    how: How,
}

/// Creates it; lbd says what of it is wrong.
pub(super) async fn create(
    client: &Client,
    what: Create,
    format: Format,
) -> Result<Created, CtlError> {
    let New { noun, name, path, body, how } = new(what)?;
    let made = client.create(&path, &body).await?;
    let said = match format {
        Format::Table | Format::Wide => format!("{noun} {name} created{}\n", dry(how.dry_run)),
        Format::Name => format!("{noun}/{name}\n"),
        Format::Json => as_json(&made),
        Format::Yaml => yaml(&made)?,
    };
    let changes = vec![Change { kind: noun, name, change: ChangeKind::Created }];
    Ok(Created { said, changes, how })
}

fn new(what: Create) -> Result<New, CtlError> {
    Ok(match what {
        Create::Vip(new) => {
            if let (Some(protocol @ ("udp" | "sctp" | "icmp")), None) =
                (new.protocol.as_deref(), &new.health_check)
            {
                let why = "--health-check none";
                let or = ", or tcp where its backends also accept TCP at their port";
                let or = if protocol == "icmp" { "" } else { or };
                return Err(CtlError::Usage(format!("a VIP of {protocol} has to say {why}{or}")));
            }
            let has_ports = new.protocol.as_deref() != Some("icmp");
            if let Some(bare) = new.backend.iter().find(|at| has_ports && at.port() == 0) {
                let why = format!(
                    "--backend {} has no port: it is ADDRESS:PORT, such as 10.0.0.1:8080",
                    bare.ip()
                );
                return Err(CtlError::Usage(why));
            }
            let (name, how) = (new.name.clone(), new.how);
            let path = path_of(None, &name, how.dry_run);
            New { noun: "vip".into(), name, path, body: document(new), how }
        }
        Create::Backend(new) => backend(new)?,
        Create::Pool(NewPool { name, addresses, dry_run }) => {
            resource(Kind::Pool, name, json!({"addresses": addresses}), at_once(dry_run))
        }
        Create::HealthCheck(new) => health_check(new),
        Create::Set(NewSet { name, prefix, as_path, community, neighbor, dry_run }) => {
            let list = |all: Vec<String>| (!all.is_empty()).then(|| json!(all));
            let spec = said([
                ("prefixes", list(prefix)),
                ("as_paths", list(as_path)),
                ("communities", list(community)),
                ("neighbors", list(neighbor)),
            ]);
            resource(Kind::Set, name, spec, at_once(dry_run))
        }
        Create::Address(NewAddress { name, interface, address, dry_run }) => {
            let spec = json!({"interface": interface, "address": address});
            resource(Kind::Address, name, spec, at_once(dry_run))
        }
        Create::StaticRoute(new) => {
            let NewStaticRoute { name, prefix, next_hop, kind, metric, dry_run } = new;
            let hops: Vec<_> = next_hop.iter().map(|text| hop(text)).collect();
            let spec = said([
                ("prefix", Some(prefix.into())),
                ("next_hops", (!hops.is_empty()).then(|| json!(hops))),
                ("kind", kind.map(Value::from)),
                ("metric", metric.map(Value::from)),
            ]);
            resource(Kind::StaticRoute, name, spec, at_once(dry_run))
        }
        Create::Policy(NewPolicy { name, statement, dry_run }) => {
            let all: Vec<_> =
                statement.iter().map(|text| inline(text)).collect::<Result<_, _>>()?;
            resource(Kind::Policy, name, json!({"statements": all}), at_once(dry_run))
        }
        Create::PeerGroup(NewPeerGroup { name, words }) => {
            let how = at_once(words.dry_run);
            resource(Kind::PeerGroup, name, Value::Object(options(words)?), how)
        }
        Create::Peer(NewPeer { name, address, group, wait, timeout, words }) => {
            let how = How { dry_run: words.dry_run, wait, timeout };
            let mut spec = options(words)?;
            spec.insert("address".into(), address.to_string().into());
            group.and_then(|group| spec.insert("group".into(), group.into()));
            resource(Kind::Peer, name, Value::Object(spec), how)
        }
        Create::BgpGlobal(new) => bgp_global(new),
        Create::Node(NewNode { name, drain, withdraw, dry_run }) => {
            let spec = json!({"drain": drain, "withdraw": withdraw});
            resource(Kind::Node, name, spec, at_once(dry_run))
        }
        Create::Token(_) => {
            let why = "a token is made once and shown once: there is no dry run of it";
            return Err(CtlError::Other(why.into()));
        }
    })
}

fn at_once(dry_run: bool) -> How {
    How { dry_run, wait: false, timeout: 0 }
}

fn resource(kind: Kind, name: String, spec: Value, how: How) -> New {
    let path = path_of(Some(kind), &name, how.dry_run);
    let body = json!({"metadata": {"name": name}, "spec": spec});
    New { noun: kind.noun(), name, path, body, how }
}

fn health_check(new: NewHealthCheck) -> New {
    let NewHealthCheck { name, kind, interval, timeout, rise, fall, dry_run } = new;
    let spec = said([
        ("kind", kind.map(Value::from)),
        ("interval_ms", interval.map(Value::from)),
        ("timeout_ms", timeout.map(Value::from)),
        ("rise", rise.map(Value::from)),
        ("fall", fall.map(Value::from)),
    ]);
    resource(Kind::HealthCheck, name, spec, at_once(dry_run))
}

fn bgp_global(new: NewBgpGlobal) -> New {
    let NewBgpGlobal { asn, router_id, cluster_id, max_paths, listen, dry_run } = new;
    let text = |address: Option<std::net::Ipv4Addr>| address.map(|it| it.to_string().into());
    let spec = said([
        ("asn", asn.map(Value::from)),
        ("router_id", text(router_id)),
        ("cluster_id", text(cluster_id)),
        ("decision", max_paths.map(|max_paths| json!({"max_paths": max_paths}))),
        ("listen", listen.map(|listen| listen.to_string().into())),
    ]);
    resource(Kind::BgpGlobal, GLOBAL.into(), spec, at_once(dry_run))
}

/// An address, an interface, or both.
fn hop(text: &str) -> Value {
    match (text.split_once('%'), text.parse::<std::net::IpAddr>()) {
        (Some((address, interface)), _) => json!({"address": address, "interface": interface}),
        (None, Ok(_)) => json!({"address": text}),
        (None, Err(_)) => json!({"interface": text}),
    }
}

/// What was said of these fields.
fn said<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let said = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(said.collect())
}

/// Words that are YAML, as they stand in files.
fn inline(text: &str) -> Result<Value, CtlError> {
    reader::document(text).map_err(|broken| CtlError::Other(format!("`{text}` {broken}")))
}

/// The fields of a neighbour or a group.
fn options(words: PeerWords) -> Result<Map<String, Value>, CtlError> {
    let PeerWords { asn, import, export, set, dry_run: _ } = words;
    let mut fields = Map::new();
    for text in &set {
        let Some((field, value)) = text.split_once('=') else {
            return Err(CtlError::Usage(format!("--set is FIELD=VALUE, not `{text}`")));
        };
        fields.insert(field.to_owned(), inline(value)?);
    }
    asn.and_then(|asn| fields.insert("asn".into(), asn.into()));
    for (field, names) in [("import", import), ("export", export)] {
        if !names.is_empty() {
            fields.insert(field.into(), json!(names));
        }
    }
    Ok(fields)
}

fn backend(new: NewBackend) -> Result<New, CtlError> {
    let NewBackend { name, weight, max_flows, dry_run } = new;
    let at = name.split_once('/').and_then(|(_, at)| at.parse::<SocketAddr>().ok());
    let at = at.ok_or_else(no_backend)?;
    let mut spec = said([
        ("weight", weight.map(Value::from)),
        ("max_flows", max_flows.map(Value::from)),
        ("address", Some(at.ip().to_string().into())),
    ]);
    if at.port() != 0 {
        spec["port"] = at.port().into();
    }
    let query = if dry_run { "?dryRun=true" } else { "" };
    let path = format!("{}{query}", path_to(Noun::Backends, &name)?);
    let body = json!({"metadata": {"name": at.to_string()}, "spec": spec});
    Ok(New { noun: "backend".into(), name, path, body, how: at_once(dry_run) })
}

fn document(new: NewVip) -> Value {
    let backends = new.backend.iter();
    let backend = |b: &SocketAddr| match b.port() {
        0 => json!({"address": b.ip().to_string()}),
        port => json!({"address": b.ip().to_string(), "port": port}),
    };
    let backends: Vec<_> = backends.map(backend).collect();
    let mut spec = Map::new();
    spec.insert("backends".into(), backends.into());
    let mut say = |field: &str, value: Option<Value>| {
        value.and_then(|value| spec.insert(field.into(), value));
    };
    say("address", new.address.map(|address| address.to_string().into()));
    say("pool", new.pool.map(Value::from));
    say("port", new.port.map(|(first, _)| first.into()));
    say("last_port", new.port.and_then(|(_, last)| last).map(Value::from));
    say("protocol", new.protocol.map(Value::from));
    say("algorithm", new.algorithm.map(Value::from));
    say("health_check", new.health_check.map(|kind| json!({"kind": kind})));
    let announce_on = new.announce_on;
    say("announce_on", (!announce_on.is_empty()).then(|| json!(announce_on)));
    say("advertise", new.no_advertise.then_some(Value::Bool(false)));
    let mut metadata = json!({"name": new.name});
    let labels = new.label.iter().map(|label| label.split_once('=').unwrap_or((label, "")));
    let labels: Map<_, _> = labels.map(|(name, value)| (name.to_owned(), value.into())).collect();
    if !labels.is_empty() {
        metadata["labels"] = labels.into();
    }
    json!({"metadata": metadata, "spec": spec})
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::ctl::arguments::{Arguments, Command};

    #[test]
    fn the_command_line_says_what_a_file_would() {
        let line = "lbctl create vip web --address 203.0.113.7 --port 80-89 --backend 10.0.0.1:8080 --backend 10.0.0.2:8081 \
                    --protocol udp --algorithm round-robin --health-check none --no-advertise --announce-on eth1";
        let parsed = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Create { what: Create::Vip(new) } = parsed.command else { unreachable!() };
        let expected = json!({
            "metadata": {"name": "web"},
            "spec": {
                "address": "203.0.113.7", "port": 80, "last_port": 89, "protocol": "udp", "algorithm": "round-robin",
                "backends": [{"address": "10.0.0.1", "port": 8080}, {"address": "10.0.0.2", "port": 8081}],
                "health_check": {"kind": "none"}, "advertise": false,
                "announce_on": ["eth1"],
            },
        });
        assert_eq!(document(new), expected);
    }

    #[test]
    fn other_kinds_are_said_in_words_too() {
        let spec = |line: &str| {
            let words = shlex(line);
            let parsed = Arguments::try_parse_from(words).map_err(|error| error.to_string());
            let Command::Create { what } = parsed.unwrap().command else { unreachable!() };
            new(what).map(|new| new.body["spec"].clone()).map_err(|error| error.to_string())
        };
        assert_eq!(
            spec(
                "lbctl create peer n1 --address 192.0.2.1 --group nodes --import a --import b --set passive=true"
            ),
            Ok(
                json!({"address": "192.0.2.1", "group": "nodes", "import": ["a", "b"], "passive": true})
            )
        );
        assert_eq!(
            spec("lbctl create set pods --prefix '10.244.0.0/16 ge 24'"),
            Ok(json!({"prefixes": ["10.244.0.0/16 ge 24"]}))
        );
        assert_eq!(
            spec("lbctl create policy p --statement '{match: {prefix_set: pods}, action: accept}'"),
            Ok(json!({"statements": [{"match": {"prefix_set": "pods"}, "action": "accept"}]}))
        );
        assert_eq!(
            spec(
                "lbctl create static-route r --prefix 10.0.0.0/8 --next-hop fe80::1%eth0 --next-hop eth1"
            ),
            Ok(json!({"prefix": "10.0.0.0/8",
                "next_hops": [{"address": "fe80::1", "interface": "eth0"}, {"interface": "eth1"}]}))
        );
        assert_eq!(
            spec("lbctl create bgp-global --asn 65001 --max-paths 8 --listen 192.0.2.1:179"),
            Ok(json!({"asn": 65001, "decision": {"max_paths": 8}, "listen": "192.0.2.1:179"}))
        );
        assert_eq!(
            spec("lbctl create node --drain"),
            Ok(json!({"drain": true, "withdraw": false}))
        );
        assert!(
            spec("lbctl create peer-group g --set passive").unwrap_err().contains("FIELD=VALUE")
        );
        assert!(spec("lbctl create policy p --statement '{a: ['").is_err());
        let without_a_check = "lbctl create vip v --address 203.0.113.7 --port 53 --protocol udp --backend 10.0.0.1:53";
        assert!(spec(without_a_check).unwrap_err().contains("--health-check none"));
        assert_eq!(
            spec(
                "lbctl create vip p --address 203.0.113.7 --protocol icmp --health-check none --backend 10.0.0.1"
            ),
            Ok(json!({"address": "203.0.113.7", "protocol": "icmp",
                "health_check": {"kind": "none"}, "backends": [{"address": "10.0.0.1"}]}))
        );
        let without_a_port =
            "lbctl create vip v --address 203.0.113.7 --port 80 --backend 10.0.0.1";
        assert!(spec(without_a_port).unwrap_err().contains("such as 10.0.0.1:8080"));
    }

    /// Words, of which those in single quotes have spaces.
    fn shlex(line: &str) -> Vec<String> {
        let parts = line.split('\'').enumerate();
        let words = parts.flat_map(|(place, part)| match place % 2 {
            1 => vec![part.to_owned()],
            _ => part.split_whitespace().map(str::to_owned).collect(),
        });
        words.collect()
    }

    #[test]
    fn what_is_not_said_is_left_to_lbd() {
        let line = "lbctl create vip web --address 203.0.113.7 --port 80 --backend 10.0.0.1:8080";
        let parsed = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Create { what } = parsed.command else { unreachable!() };
        let fields = new(what).unwrap().body["spec"].as_object().unwrap().len();
        assert_eq!(fields, 3);
    }
}
