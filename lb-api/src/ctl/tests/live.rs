//! lbctl against the real API, over a world that only writes down what it is told.

use std::path::Path as File;

use lb_api_types::view::Configuration;
use serde_json::json;

use super::*;
use crate::http::tests::Served;
use crate::registry::tests::{Bench, vip};
use crate::{config, daemon};

/// What a command line says, or why it is refused.
pub(crate) async fn lbctl(served: &Served, line: &str) -> Result<String, String> {
    let server = served.server();
    let words = ["lbctl", "--server", &server].into_iter().chain(line.split(' '));
    let arguments = Arguments::try_parse_from(words).map_err(|error| error.to_string())?;
    let client = Client::new(arguments.server, None, None, None).unwrap();
    match carry_out(&client, arguments.command, arguments.output).await {
        Ok(Answer::Yes(text)) => Ok(text),
        Ok(Answer::No(text)) => Err(text),
        Err(error) => Err(error.to_string()),
    }
}

/// One of each kind, with everything that every kind may have.
pub(crate) const ONE_OF_EACH: &str = r#"
kind: Pool
metadata: { name: public, labels: { site: a }, owner: shop }
spec: { addresses: [203.0.113.64/26, "2001:db8:7::/120"] }
---
kind: HealthCheck
metadata: { name: fast, labels: { site: a } }
spec: { interval_ms: 500, timeout_ms: 200 }
---
kind: Node
metadata: { name: local, labels: { rack: r1 } }
spec: { drain: true }
---
kind: BgpGlobal
metadata: { name: global, labels: { site: a }, owner: net }
spec: { asn: 65010, router_id: 192.0.2.9, decision: { max_paths: 8 }, listen: "192.0.2.9:179" }
---
kind: Set
metadata: { name: pods, labels: { site: a }, owner: net }
spec: { prefixes: [10.244.0.0/16 ge 24 le 32] }
---
kind: Policy
metadata: { name: from-nodes, labels: { site: a }, owner: net }
spec: { statements: [{ match: { prefix_set: pods }, set: { local_pref: 200 }, action: accept }] }
---
kind: PeerGroup
metadata: { name: nodes, labels: { site: a }, owner: net }
spec: { asn: 64512, import: from-nodes, listen_ranges: [10.0.3.0/24] }
---
kind: Peer
metadata: { name: node3, labels: { site: a }, owner: net }
spec: { address: 10.0.4.2, group: nodes, max_prefixes: { limit: 9 } }
---
kind: Address
metadata: { name: uplink, labels: { site: a } }
spec: { interface: eth9, address: 198.51.100.2/24 }
---
kind: StaticRoute
metadata: { name: default, labels: { site: a } }
spec: { prefix: 0.0.0.0/0, next_hops: [{ address: 198.51.100.1 }], metric: 20 }
---
metadata: { name: web, labels: { app: web }, owner: shop }
spec:
  pool: public
  port: 80
  backends: [{ address: 10.0.0.1, port: 8080, weight: 3 }, { address: 10.0.0.2, port: 8080, drain: true }]
  health_check: { from: fast }
  access: { allow: [198.51.100.0/24] }
"#;

fn write(folder: &File, name: &str, text: &str) -> String {
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

#[tokio::test]
async fn an_export_is_applied_unchanged_restored_elsewhere_and_a_file_of_lbd() {
    let (served, folder) = (Served::new(vec![]).await, tempfile::tempdir().unwrap());
    let each = write(folder.path(), "each.yaml", ONE_OF_EACH);
    let made = lbctl(&served, &format!("apply -f {each}")).await.unwrap();
    let kinds = crate::resources::Kind::ALL.iter().map(|kind| kind.noun()).chain(["vip".into()]);
    for kind in kinds {
        assert!(made.lines().any(|line| line.starts_with(&format!("{kind} "))), "{kind}: {made}");
    }
    let text = lbctl(&served, "export").await.unwrap();
    let export = write(folder.path(), "export.yaml", &text);

    let again = lbctl(&served, &format!("apply -f {export}")).await.unwrap();
    assert_eq!(again.lines().count(), made.lines().count(), "{again}");
    assert!(again.lines().all(|line| line.ends_with(" unchanged")), "{again}");
    assert_eq!(lbctl(&served, &format!("diff -f {export}")).await, Ok(String::new()));
    let body = |text: &str| text.split_once('\n').unwrap().1.to_owned();

    let elsewhere = Served::new(vec![]).await;
    lbctl(&elsewhere, &format!("apply -f {export}")).await.unwrap();
    assert_eq!(body(&lbctl(&elsewhere, "export").await.unwrap()), body(&text));

    // As lbd's own file: it says the same of every kind, and nothing of it is left to REST.
    let file = config::check("export.yaml", &text).unwrap_or_else(|why| panic!("{why}"));
    let resources = daemon::file_resources(&file);
    let bench = Bench::of(tempfile::tempdir().unwrap(), file.vips, resources).await;
    let started = Served::over(bench).await;
    let nothing = config::check("x", &body(&lbctl(&started, "export").await.unwrap())).unwrap();
    assert_eq!(nothing, lb_api_types::config::Config::default());
    assert_eq!(body(&lbctl(&started, "export --all").await.unwrap()), body(&text));
    let same = lbctl(&started, &format!("apply -f {export}")).await.unwrap();
    assert!(same.lines().all(|line| line.ends_with(" unchanged")), "{same}");
    let other = lbctl(&started, &format!("apply -f {export} --prune --owner other")).await.unwrap();
    assert!(other.lines().all(|line| line.ends_with(" unchanged")), "whose it is: {other}");
}

#[tokio::test]
async fn what_the_file_hides_is_exported_when_asked_for_and_a_restored_export_loses_nothing() {
    let bench = Bench::new(vec![]).await;
    bench.registry.put(vip("web", 1), Default::default()).await.unwrap();
    bench.registry.put(vip("mine", 2), Default::default()).await.unwrap();
    let served = Served::over(bench.restart(vec![vip("file", 1)]).await).await;
    let folder = tempfile::tempdir().unwrap();
    let hidden = async || {
        let config = lbctl(&served, "get config -o json").await.unwrap();
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        config["status"]["hidden"]["vips"][0]["metadata"]["name"].as_str().map(str::to_owned)
    };
    let ways: [(&str, &[&str]); 3] = [
        ("export", &["mine"]),
        ("export --hidden", &["mine", "web"]),
        ("export --all", &["file", "mine"]),
    ];
    for (how, named) in ways {
        let text = lbctl(&served, how).await.unwrap();
        let read = config::check("export.yaml", &text).unwrap_or_else(|why| panic!("{why}"));
        let names: Vec<_> = read.vips.iter().map(|vip| vip.metadata.name.as_str()).collect();
        assert_eq!(names, named, "{how}");
        let export = write(folder.path(), &format!("{how}.yaml").replace(' ', ""), &text);
        let said = lbctl(&served, &format!("apply -f {export} --prune")).await.unwrap();
        let unchanged: String = named.iter().map(|it| format!("vip {it} unchanged\n")).collect();
        assert_eq!(said, unchanged, "{how}");
        assert_eq!(lbctl(&served, &format!("diff -f {export}")).await, Ok(String::new()));
        assert_eq!(hidden().await.as_deref(), Some("web"), "{how}");
    }
    lbctl(&served, "delete vip web").await.unwrap();
    assert_eq!(hidden().await, None);

    // A host that lost its state and has the same file.
    let lost = Served::over(Bench::new(vec![vip("file", 1)]).await).await;
    let restore = async |name: &str| {
        let file = folder.path().join(name);
        lbctl(&lost, &format!("apply -f {} --prune", file.display())).await
    };
    assert_eq!(restore("export.yaml").await.as_deref(), Ok("vip mine created\n"));
    let refused = restore("export--hidden.yaml").await.unwrap_err();
    assert!(refused.contains("file"), "{refused}");
    assert!(lbctl(&lost, "export --all --hidden").await.unwrap_err().contains("cannot be used"));
}

#[tokio::test]
async fn the_forms_of_a_configuration_mean_the_same() {
    let (served, folder) = (Served::new(vec![]).await, tempfile::tempdir().unwrap());
    let short = "bgp:\n  asn: 65010\n  sets: [{ name: pods, prefixes: [10.0.0.0/8] }]\n  peers: [{ name: up, address: 192.0.2.1, asn: 65001 }]\npools:\n- { metadata: { name: p }, spec: { addresses: [203.0.113.0/28] } }\n";
    let short = write(folder.path(), "short.yaml", short);
    lbctl(&served, &format!("apply -f {short}")).await.unwrap();
    let json = lbctl(&served, "get config -o json").await.unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let spec: Configuration = serde_json::from_value(json["spec"].clone()).unwrap();
    assert_eq!((spec.bgp.asn, spec.bgp.sets.len(), spec.pools.len()), (Some(65010), 1, 1));
    // What REST shows is what a file says.
    let rest = write(folder.path(), "rest.json", &json["spec"].to_string());
    let same = lbctl(&served, &format!("apply -f {rest}")).await.unwrap();
    assert!(same.lines().all(|line| line.ends_with(" unchanged")), "{same}");
    let pods = lbctl(&served, "get sets -o yaml").await.unwrap();
    let pods =
        write(folder.path(), "pods.yaml", &pods.replace("metadata:", "kind: Set\n  metadata:"));
    let same = lbctl(&served, &format!("apply -f {pods}")).await.unwrap();
    assert_eq!(same, "set pods unchanged\n");
}

#[tokio::test]
async fn mistakes_of_a_configuration_name_the_resource_and_the_field() {
    let (served, folder) = (Served::new(vec![]).await, tempfile::tempdir().unwrap());
    let cases = [
        ("bgp: { asn: 0 }", "bgp-global global is refused: bgp.asn is 0"),
        ("bgp: { colour: red }", "bgp.colour is an unknown field"),
        ("bgp: { peers: [{ name: up, address: x }] }", "peer up is refused: spec.address is `x`"),
        (
            "bgp: { sets: [{ name: a, prefixes: [10.0.0.0/8] }, { name: b, prefixes: [x] }] }",
            "set b is refused: spec.prefixes[0] is `x`",
        ),
        (
            "bgp: { policies: [{ name: p, statements: [{ match: { prefix_set: none }, action: accept }] }] }",
            "policy p: spec.statements[0].match.prefix_set names",
        ),
        ("pools: [{ metadata: { name: p }, spec: { addresses: [] } }]", "pool p is refused: "),
        ("dataplane: { hook: tc }", "`dataplane` is for lbd's own file"),
        ("pods: []", "nothing has a section `pods`"),
        ("vips: {}", "`vips` is no list"),
    ];
    for (text, said) in cases {
        let file = write(folder.path(), "bad.yaml", text);
        let refused = lbctl(&served, &format!("apply -f {file}")).await.unwrap_err();
        assert!(refused.contains(said), "{text}: {refused}");
    }
    let file = write(folder.path(), "lbd.yaml", include_str!("../../../lbd.example.yaml"));
    let refused = lbctl(&served, &format!("apply -f {file}")).await.unwrap_err();
    assert!(refused.contains("is for lbd's own file"), "{refused}");
}

#[tokio::test]
async fn a_kind_and_a_name_may_be_one_word_and_what_there_is_one_of_needs_none() {
    let (served, folder) = (Served::new(vec![]).await, tempfile::tempdir().unwrap());
    let each = write(folder.path(), "each.yaml", ONE_OF_EACH);
    lbctl(&served, &format!("apply -f {each}")).await.unwrap();
    for kind in Kind::value_variants() {
        let noun = kind.noun();
        if let Some(only) = kind.only() {
            let name = lbctl(&served, &format!("get {noun} -o name")).await.unwrap();
            assert_eq!(name, format!("{noun}/{only}\n"));
            lbctl(&served, &format!("describe {noun}")).await.unwrap();
        } else if let Home::Kept(_) = kind.home() {
            for name in lbctl(&served, &format!("get {noun} -o name")).await.unwrap().lines() {
                let both = name.replacen('/', " ", 1);
                let one = lbctl(&served, &format!("get {name} -o json")).await.unwrap();
                assert_eq!(lbctl(&served, &format!("get {both} -o json")).await.unwrap(), one);
                lbctl(&served, &format!("describe {name}")).await.unwrap();
            }
        }
    }
    let two = lbctl(&served, "get vip/web other").await.unwrap_err();
    assert_eq!(two, "say one name: vip/web or vip other");
    let backend = lbctl(&served, "get backend/web/10.0.0.1:8080 -o json").await.unwrap();
    assert_eq!(backend, lbctl(&served, "get backend web/10.0.0.1:8080 -o json").await.unwrap());
    assert!(lbctl(&served, "version").await.unwrap().contains("\nlbd    0."), "both are said");
    for kind in ["config", "version", "events", "status"] {
        let refused = lbctl(&served, &format!("delete {kind} x")).await.unwrap_err();
        assert!(refused.contains("is only seen, and cannot be deleted: "), "{refused}");
    }
}

#[tokio::test]
async fn draining_a_node_keeps_its_labels() {
    let (served, folder) = (Served::new(vec![]).await, tempfile::tempdir().unwrap());
    let each = write(folder.path(), "each.yaml", ONE_OF_EACH);
    lbctl(&served, &format!("apply -f {each}")).await.unwrap();
    lbctl(&served, "drain --node --withdraw").await.unwrap();
    let node = lbctl(&served, "get node local -o json").await.unwrap();
    let node: serde_json::Value = serde_json::from_str(&node).unwrap();
    assert_eq!(node["spec"], json!({"drain": true, "withdraw": true}));
    assert_eq!(node["metadata"]["labels"], json!({"rack": "r1"}));
    lbctl(&served, "undrain --node").await.unwrap();
    assert!(lbctl(&served, "get node local -o yaml").await.unwrap().contains("rack: r1"));
}

#[tokio::test]
async fn a_neighbour_is_shut_down_drained_and_cleared_by_its_name_or_address() {
    let served = Served::new(vec![]).await;
    let made = "create peer node3 --address 192.0.2.1 --asn 64513 --set hold_time_secs=9";
    lbctl(&served, made).await.unwrap();
    let spec = async || {
        let shown = lbctl(&served, "get peer node3 -o json").await.unwrap();
        serde_json::from_str::<serde_json::Value>(&shown).unwrap()["items"][0]["spec"].clone()
    };
    let before = spec().await;
    for (line, changes) in [
        (
            "bgp shutdown node3 --message optics",
            json!({"shutdown": true, "shutdown_message": "optics"}),
        ),
        ("bgp drain 192.0.2.1", json!({"graceful_shutdown": true})),
        ("bgp start ::ffff:192.0.2.1", json!({"shutdown": false, "shutdown_message": null})),
        ("bgp undrain node3", json!({"graceful_shutdown": false})),
    ] {
        let said = lbctl(&served, line).await.unwrap();
        assert!(said.starts_with("peer node3: "), "{line}: {said}");
        let now = spec().await;
        for (field, value) in changes.as_object().unwrap() {
            assert_eq!(now[field], *value, "{line}");
        }
        assert_eq!(now["hold_time_secs"], before["hold_time_secs"], "{line}");
    }
    lbctl(&served, "clear bgp 192.0.2.1").await.unwrap();
    let unknown = lbctl(&served, "bgp shutdown 192.0.2.9").await.unwrap_err();
    assert!(unknown.contains("no peer 192.0.2.9"), "{unknown}");
}
