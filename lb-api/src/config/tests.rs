mod limits;
mod schema;

use std::fmt::Write;

use lb_api_types::config::Hook;
use lb_api_types::peer::{BgpPeer, PeerGroup, PeerOptions, PeerSpec};
use lb_api_types::policy::Policies;
use lb_api_types::resource::Tags;
use proptest::prelude::*;

use super::*;

fn report(text: &str) -> Vec<(Option<usize>, String)> {
    let report = check("lbd.yaml", text).unwrap_err();
    report.mistakes.into_iter().map(|(line, mistake)| (line, mistake.path.to_string())).collect()
}

#[test]
fn an_empty_file_gives_the_defaults() {
    for text in ["", "\n", "# nothing\n", "---\n", "{}", "bgp:\ndataplane: {}\nvips: []\n"] {
        assert_eq!(check("lbd.yaml", text), Ok(Config::default()), "{text:?}");
    }
}

#[test]
fn the_example_file_says_the_defaults_and_its_commented_lines_are_right_too() {
    let text = include_str!("../../lbd.example.yaml");
    assert_eq!(check("lbd.example.yaml", text), Ok(Config::default()));
    let all = uncommented(text);
    let config = check("lbd.example.yaml", &all).map_err(|report| report.to_string());
    let config = config.unwrap_or_else(|report| panic!("{report}\n{all}"));
    assert_eq!(config.bgp.peers.len(), 2);
    assert_eq!(config.dataplane.interfaces, ["eth*"]);
    assert_eq!(config.vips.len(), 1);
    assert!(config.api.listen.is_some() && config.bgp.router_id.is_some());
    // serde reads what it reads.
    let value: Config = serde_norway::from_str(&all).unwrap();
    assert_eq!(value, config);
}

/// A line that begins with `#` and a lower-case word is an example that a user would uncomment.
fn uncommented(text: &str) -> String {
    let mut all = String::new();
    for line in text.lines() {
        let bare = line.trim_start().strip_prefix('#').filter(|rest| !rest.starts_with(' '));
        match bare {
            Some(rest) => {
                let indent = line.len() - line.trim_start().len();
                writeln!(all, "{:indent$}{rest}", "").unwrap();
            }
            None => writeln!(all, "{line}").unwrap(),
        }
    }
    all
}

#[test]
fn three_mistakes_are_reported_at_once_with_their_lines() {
    let text = "\
bgp:
  asn: 0
  peers:
    - { address: 192.0.2.1, asn: 65001 }
    - address: 192.0.2.2
      asn: 65001
      hold_time_sec: 30
api:
  listen: 0.0.0.0:80
";
    let found = report(text);
    let expected = [(2, "bgp.asn"), (7, "bgp.peers[1].hold_time_sec"), (9, "api.listen")];
    assert_eq!(found, expected.map(|(line, path)| (Some(line), path.to_owned())));
    let words = check("lbd.yaml", text).unwrap_err().to_string();
    assert_eq!(words.lines().count(), 3);
    assert!(words.starts_with("lbd.yaml:2: bgp.asn is 0"), "{words}");
    assert!(words.contains("did you mean `hold_time_secs`?"), "{words}");
    assert!(words.contains("which others reach: say `tls`"), "{words}");
}

#[test]
fn each_mistake_names_its_field() {
    let peer = |rest: &str| format!("bgp: {{peers: [{{address: 192.0.2.1, asn: 65001, {rest}}}]}}");
    let cases = [
        ("bgp: 3".to_owned(), "bgp"),
        ("bgp: {asn: x}".into(), "bgp.asn"),
        ("bgp: {asn: -1}".into(), "bgp.asn"),
        ("bgp: {asn: 4294967296}".into(), "bgp.asn"),
        ("bgp: {asn: 23456}".into(), "bgp.asn"),
        ("bgp: {asn: 65535}".into(), "bgp.asn"),
        ("bgp: {router_id: 0.0.0.0}".into(), "bgp.router_id"),
        ("bgp: {router_id: '::1'}".into(), "bgp.router_id"),
        ("bgp: {listen: 0.0.0.0}".into(), "bgp.listen"),
        ("bgp: {listen: '0.0.0.0:0'}".into(), "bgp.listen"),
        ("bgp: {peers: [{asn: 1}]}".into(), "bgp.peers[0].address"),
        ("bgp: {peers: [{address: 192.0.2.1}]}".into(), "bgp.peers[0].asn"),
        ("bgp: {peers: [{address: 224.0.0.1, asn: 1}]}".into(), "bgp.peers[0].address"),
        ("bgp: {peers: [{address: 'fe80::1', asn: 1}]}".into(), "bgp.peers[0].address"),
        (peer("port: 0"), "bgp.peers[0].port"),
        (peer("hold_time_secs: 2"), "bgp.peers[0].hold_time_secs"),
        (peer("connect_retry_secs: 0"), "bgp.peers[0].connect_retry_secs"),
        (peer("source: '2001:db8::1'"), "bgp.peers[0].source"),
        (peer("multihop: 0"), "bgp.peers[0].multihop"),
        (peer("multihop: 256"), "bgp.peers[0].multihop"),
        (peer("gtsm_hops: 0"), "bgp.peers[0].gtsm_hops"),
        (peer("gtsm_hops: 255"), "bgp.peers[0].gtsm_hops"),
        (peer("gtsm_hops: 1, multihop: 2"), "bgp.peers[0].gtsm_hops"),
        (peer("md5_key_file: key"), "bgp.peers[0].md5_key_file"),
        (peer("md5_key: secret"), "bgp.peers[0].md5_key"),
        (peer("tcp_user_timeout_secs: 0"), "bgp.peers[0].tcp_user_timeout_secs"),
        (peer("send_hold_time_secs: 90"), "bgp.peers[0].send_hold_time_secs"),
        (peer("hold_time_secs: 0, send_hold_time_secs: 9"), "bgp.peers[0].send_hold_time_secs"),
        (peer("passive: 1"), "bgp.peers[0].passive"),
        (peer("import: vips"), "bgp.peers[0].import"),
        (peer("export: everything"), "bgp.peers[0].export"),
        (peer("name: ''"), "bgp.peers[0].name"),
        (peer("group: nodes"), "bgp.peers[0].group"),
        ("bgp: {peer_groups: [{name: g, asn: 0}]}".into(), "bgp.peer_groups[0].asn"),
        ("bgp: {peer_groups: [{name: g}, {name: g}]}".into(), "bgp.peer_groups[1].name"),
        ("bgp: {peer_groups: [{name: g, address: 192.0.2.1}]}".into(), "bgp.peer_groups[0].address"),
        ("bgp: {peer_groups: [{name: g, multihop: 2}], peers: [{address: 192.0.2.1, asn: 1, group: g, gtsm_hops: 1}]}".into(), "bgp.peers[0].gtsm_hops"),
        ("bgp: {peer_groups: [{name: g}], peers: [{address: 192.0.2.1, group: g}]}".into(), "bgp.peers[0].asn"),
        ("bgp: {peers: [{address: 192.0.2.1, asn: 1}, {address: '::ffff:192.0.2.1', asn: 2}]}".into(), "bgp.peers[1]"),
        ("bgp: {peers: [{name: a, address: 192.0.2.1, asn: 1}, {name: a, address: 192.0.2.2, asn: 2}]}".into(), "bgp.peers[1]"),
        ("api: {socket: lbd.sock}".into(), "api.socket"),
        (format!("api: {{socket: /{}}}", "x".repeat(107)), "api.socket"),
        ("api: {listen: '192.0.2.1:80'}".into(), "api.listen"),
        ("api: {listen: '192.0.2.1:80', tls: {certificate_file: /a}}".into(), "api.tls.key_file"),
        ("api: {tls: {certificate_file: /a, key_file: /b}}".into(), "api.listen"),
        ("api: {users: [{user: a, role: root}]}".into(), "api.users[0].role"),
        ("api: {users: [{role: admin}]}".into(), "api.users[0].user"),
        ("state_dir: 3".into(), "state_dir"),
        ("user: root".into(), "user"),
        ("user: ''".into(), "user"),
        ("vips: [{metadata: {name: a}, spec: {address: 203.0.113.1, port: 80, backends: []}}]".into(), "vips[0].spec.backends"),
        ("peers: []".into(), "peers"),
    ];
    for (text, path) in cases {
        assert_eq!(report(&text), [(Some(1), path.to_owned())], "{text}");
    }
}

#[test]
fn each_mistake_about_the_dataplane_names_its_field() {
    let cases = [
        ("dataplane: {hook: generic}", "dataplane.hook"),
        ("dataplane: {xdp_mode: offload}", "dataplane.xdp_mode"),
        ("dataplane: {max_fib_blocks: 1}", "dataplane.max_fib_blocks"),
        ("dataplane: {max_early_fragments: 7}", "dataplane.max_early_fragments"),
        ("dataplane: {max_early_fragments: 65537}", "dataplane.max_early_fragments"),
        ("dataplane: {interfaces: eth0}", "dataplane.interfaces"),
        ("dataplane: {interfaces: ['']}", "dataplane.interfaces[0]"),
        ("dataplane: {interfaces: ['a/b']}", "dataplane.interfaces[0]"),
        ("dataplane: {interfaces: [a234567890123456]}", "dataplane.interfaces[0]"),
        ("dataplane: {redirect_to_peer: true}", "dataplane.redirect_to_peer"),
        ("dataplane: {redirect_to_peer: ['a/b']}", "dataplane.redirect_to_peer[0]"),
        ("dataplane: {pin_dir: /sys/fs/bpf/lbd}", "dataplane.pin_dir"),
        ("dataplane: {pin_dir: run/lbd}", "dataplane.pin_dir"),
        ("dataplane: {max_flow_entries: 8388609}", "dataplane.max_flow_entries"),
        ("dataplane: {max_flow_entries_ipv6: 9}", "dataplane.max_flow_entries_ipv6"),
        ("dataplane: {max_services: 65537}", "dataplane.max_services"),
        ("dataplane: {max_backends: 4194305}", "dataplane.max_backends"),
        ("dataplane: {max_ring_slots: 268435457}", "dataplane.max_ring_slots"),
        ("dataplane: {max_access_prefixes: 16777217}", "dataplane.max_access_prefixes"),
        ("dataplane: {max_counted_clients: 0}", "dataplane.max_counted_clients"),
        ("dataplane: {max_affinity_clients: 1023}", "dataplane.max_affinity_clients"),
        ("dataplane: {early_fragments_secs: 1}", "dataplane.early_fragments_secs"),
        ("dataplane: {timeouts: {udp: 0}}", "dataplane.timeouts.udp"),
        ("dataplane: {timeouts: {tcp: 60}}", "dataplane.timeouts.tcp"),
    ];
    for (text, path) in cases {
        assert_eq!(report(text), [(Some(1), path.to_owned())], "{text}");
    }
}

#[test]
fn each_mistake_about_neighbours_that_come_by_themselves_names_its_field() {
    let group = |rest: &str| format!("bgp: {{peer_groups: [{{name: g, {rest}}}]}}");
    let cases = [
        (group("listen_ranges: [10.0.0.0/24]"), "bgp.peer_groups[0].listen_ranges"),
        (group("asn: 1, listen_ranges: []"), "bgp.peer_groups[0].listen_ranges"),
        (
            group("asn: 1, listen_ranges: [10.0.0.0/24, 10.0.0.0/24]"),
            "bgp.peer_groups[0].listen_ranges",
        ),
        (group("asn: 1, listen_ranges: [10.0.0.1/24]"), "bgp.peer_groups[0].listen_ranges[0]"),
        (group("asn: 1, listen_limit: 9"), "bgp.peer_groups[0].listen_limit"),
        (group("asn: 1, listen_asns: [2]"), "bgp.peer_groups[0].listen_asns"),
        (group("listen_ranges: [10.0.0.0/24], listen_asns: []"), "bgp.peer_groups[0].listen_asns"),
        (
            group("listen_ranges: [10.0.0.0/24], listen_asns: [1, 3-2]"),
            "bgp.peer_groups[0].listen_asns[1]",
        ),
        (
            group("listen_ranges: [10.0.0.0/24], listen_asns: [0-9]"),
            "bgp.peer_groups[0].listen_asns[0]",
        ),
        (
            group("listen_ranges: [10.0.0.0/24], listen_asns: ['23456']"),
            "bgp.peer_groups[0].listen_asns[0]",
        ),
        (
            group("listen_ranges: [10.0.0.0/24], listen_asns: [65535-65540]"),
            "bgp.peer_groups[0].listen_asns[0]",
        ),
        (
            group("listen_ranges: [10.0.0.0/24], listen_asns: [23456]"),
            "bgp.peer_groups[0].listen_asns[0]",
        ),
        (
            "bgp: {peers: [{address: 192.0.2.1, asn: 1, listen_asns: [2]}]}".into(),
            "bgp.peers[0].listen_asns",
        ),
        (
            group("asn: 1, listen_ranges: [10.0.0.0/24], listen_limit: 0"),
            "bgp.peer_groups[0].listen_limit",
        ),
        (
            group(
                "asn: 1, listen_ranges: [10.0.0.0/8]}, {name: h, asn: 1, listen_ranges: [10.0.0.0/8]",
            ),
            "bgp.peer_groups[1].listen_ranges",
        ),
        (
            "bgp: {peers: [{address: 192.0.2.1, asn: 1, listen_ranges: [10.0.0.0/24]}]}".into(),
            "bgp.peers[0].listen_ranges",
        ),
    ];
    for (text, path) in cases {
        assert_eq!(report(&text), [(Some(1), path.to_owned())], "{text}");
    }
}

#[test]
fn each_mistake_in_what_a_session_does_names_its_field() {
    let peer = |rest: &str| format!("bgp: {{peers: [{{address: 192.0.2.1, asn: 65001, {rest}}}]}}");
    let cases = [
        (peer("keepalive_secs: 0"), "bgp.peers[0].keepalive_secs"),
        (peer("delay_open_secs: 241"), "bgp.peers[0].delay_open_secs"),
        (peer("idle_hold_secs: 0"), "bgp.peers[0].idle_hold_secs"),
        (peer("idle_hold_secs: 121"), "bgp.peers[0].idle_hold_secs"),
        (peer("advertisement_interval_secs: 601"), "bgp.peers[0].advertisement_interval_secs"),
        (peer("restart_time_secs: 0"), "bgp.peers[0].restart_time_secs"),
        (peer("restart_time_secs: 4096"), "bgp.peers[0].restart_time_secs"),
        (peer("graceful_restart: false, restart_time_secs: 9"), "bgp.peers[0].restart_time_secs"),
        (peer("graceful_restart: 1"), "bgp.peers[0].graceful_restart"),
        (peer("families: []"), "bgp.peers[0].families"),
        (peer("families: [ipv4, ipv4]"), "bgp.peers[0].families"),
        (peer("families: [ipv4, ipx]"), "bgp.peers[0].families[1]"),
    ];
    for (text, path) in cases {
        assert_eq!(report(&text), [(Some(1), path.to_owned())], "{text}");
    }
}

#[test]
fn vips_of_one_service_or_name_or_of_this_hosts_address_are_refused() {
    let vip = |name: &str, port: u16| {
        format!(
            "  - {{metadata: {{name: {name}}}, spec: {{address: 203.0.113.1, port: {port}, backends: [{{address: 10.0.0.1, port: 1}}]}}}}\n"
        )
    };
    let own =
        "addresses: [{metadata: {name: x}, spec: {interface: eth0, address: 203.0.113.1/24}}]\n";
    let of_host = format!("{own}vips:\n{}", vip("a", 80));
    assert_eq!(report(&of_host), [(Some(3), "vips[0]".to_owned())]);
    let same_name = format!("vips:\n{}{}", vip("a", 80), vip("a", 81));
    assert_eq!(report(&same_name), [(Some(3), "vips[1]".to_owned())]);
    let same_service = format!("vips:\n{}{}", vip("a", 80), vip("b", 80));
    assert_eq!(report(&same_service), [(Some(3), "vips[1]".to_owned())]);
}

#[test]
fn vips_of_a_backend_that_one_is_to_have_alone_are_refused() {
    let vip = |name: &str, more: &str| {
        format!(
            "  - {{metadata: {{name: v{name}}}, spec: {{address: 203.0.113.{name}, port: 80, {more}, algorithm: maglev}}}}\n"
        )
    };
    let hash = "full_table: hash, backends: [{address: 10.0.0.1, port: 8050}]";
    let range = "last_port: 180, backends: [{address: 10.0.0.1, port: 8000}]";
    let apart = "last_port: 120, backends: [{address: 10.0.0.1, port: 8000}]";
    let file = |one, two| format!("vips:\n{}{}", vip("1", one), vip("2", two));
    for (one, two) in [(hash, range), (range, hash), (hash, hash)] {
        assert_eq!(report(&file(one, two)), [(Some(1), "vips".to_owned())], "{one} and {two}");
    }
    for (one, two) in [(hash, apart), (range, apart)] {
        assert!(check("lbd.yaml", &file(one, two)).is_ok(), "{one} and {two}");
    }
}

#[test]
fn broken_yaml_is_one_mistake_with_its_line() {
    for text in ["bgp:\n  asn: [1\n", "bgp:\n\tasn: 1\n", "bgp: {asn: 1}\nbgp: {asn: 2}\n"] {
        let found = check("lbd.yaml", text).unwrap_err();
        assert_eq!(found.mistakes.len(), 1, "{found}");
        assert!(found.mistakes[0].0.is_some(), "{found}");
    }
    assert!(check("lbd.yaml", "just words").is_err());
}

#[test]
fn a_missing_file_is_named() {
    let error = load(FilePath::new("/nonexistent/lbd.yaml")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/lbd.yaml"), "{error}");
}

#[test]
fn a_key_file_is_read_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (file, key) = (at("lbd.yaml"), at("key"));
    let peer = format!("{{ address: 192.0.2.1, asn: 65001, md5_key_file: {} }}", key.display());
    std::fs::write(&file, format!("bgp:\n  peers:\n    - {peer}\n")).unwrap();
    let error = || load(&file).unwrap_err().to_string();

    assert!(error().contains("lbd.yaml:3: bgp.peers[0].md5_key_file names "), "{}", error());
    assert!(error().contains("which cannot be read: No such file"), "{}", error());
    std::fs::write(&key, "\n").unwrap();
    assert!(
        error().ends_with("which is empty: write the key that the neighbour has"),
        "{}",
        error()
    );
    let long = "s3cret".repeat(14);
    std::fs::write(&key, &long).unwrap();
    assert!(error().contains("has 84 octets: use a key of 80 at most"), "{}", error());
    assert!(!error().contains("s3cret"));
    for misplaced in ["s3cret", "credential:a/s3cret", "{ s3cret: 1 }"] {
        let text = format!(
            "bgp: {{ peers: [{{ address: 192.0.2.1, asn: 1, md5_key_file: '{misplaced}' }}] }}"
        );
        let said = check("lbd.yaml", &text).unwrap_err().to_string();
        assert!(!said.contains("s3cret") && said.contains("md5_key_file"), "{said}");
    }
    std::fs::write(&key, "s3cret\n").unwrap();
    let config = load(&file).unwrap();
    assert!(!format!("{config:?}{:?}", keys::read(&key).unwrap()).contains("s3cret"));
}

#[test]
fn certificates_are_looked_at_and_credentials_are_no_mistake_where_there_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lbd.yaml");
    let write = |certificate: &str, key: &str| {
        let tls = format!("{{ certificate_file: {certificate}, key_file: '{key}' }}");
        let peer = "{ address: 192.0.2.1, asn: 65001, md5_key_file: 'credential:up' }";
        let text =
            format!("bgp: {{ peers: [{peer}] }}\napi:\n  listen: 127.0.0.1:1\n  tls: {tls}\n");
        std::fs::write(&file, text).unwrap();
    };
    write("/nonexistent/tls.crt", "/nonexistent/tls.key");
    let error = load(&file).unwrap_err().to_string();
    assert!(error.contains("lbd.yaml:4: api.tls cannot be used: "), "{error}");
    assert!(error.contains("/nonexistent/tls.crt"), "{error}");
    read(&file).expect("whoever cleans up needs none of these files");
    write("/nonexistent/tls.crt", "credential:tls.key");
    let said = load(&file).expect("only the service has them").api.tls.unwrap();
    assert_eq!(said.key_file, FilePath::new("credential:tls.key"), "it is found when it is used");
    let error = crate::http::examine(&said).unwrap_err();
    assert!(error.contains("key_file names credential:tls.key"), "{error}");
    write("/nonexistent/tls.crt", "credential:a/b");
    let error = read(&file).unwrap_err().to_string();
    assert!(error.contains("a credential is credential: and a name"), "{error}");
}

fn any_config() -> impl Strategy<Value = Config> {
    let peer = (any::<[u8; 2]>(), 1..64_000_u32, any::<bool>(), prop::bool::ANY, 10..9_000_u16);
    let peers = prop::collection::btree_map(any::<[u8; 2]>(), peer, 0..5);
    (
        peers,
        prop::option::of(1..u32::MAX),
        prop::sample::select(vec![Hook::Auto, Hook::Xdp, Hook::Tc]),
    )
        .prop_map(|(peers, router_id, hook)| {
            let mut config = Config::default();
            config.bgp.router_id = router_id.map(Into::into);
            config.dataplane.hook = hook;
            let options = PeerOptions { multihop: Some(2), ..PeerOptions::default() };
            config.bgp.peer_groups =
                vec![PeerGroup { name: "all".into(), tags: Tags::default(), options }];
            config.bgp.peers = peers
                .into_iter()
                .filter(|(_, (_, asn, ..))| *asn != 23456)
                .map(|([a, b], (_, asn, passive, named, hold))| BgpPeer {
                    name: named.then(|| format!("peer-{a}-{b}")),
                    tags: Tags::default(),
                    spec: PeerSpec {
                        address: [10, 0, a, b].into(),
                        group: passive.then(|| "all".into()),
                        options: PeerOptions {
                            asn: Some(asn),
                            source: named.then(|| [10, 1, a, b].into()),
                            passive: passive.then_some(true),
                            gtsm_hops: (!passive).then_some(1),
                            md5_key_file: named.then(|| "/etc/lbd/key".into()),
                            tcp_user_timeout_secs: named.then_some(hold),
                            send_hold_time_secs: passive.then_some(hold * 2),
                            hold_time_secs: Some(hold),
                            import: passive.then(|| "all".into()),
                            export: named.then(|| Policies(vec!["vips".into(), "none".into()])),
                            local_as: named.then_some(65009),
                            allow_as_in: Some(a % 3),
                            shutdown: named.then_some(passive),
                            ..PeerOptions::default()
                        },
                    },
                })
                .collect();
            config
        })
}

proptest! {
    #[test]
    fn a_written_configuration_reads_back_the_same(config in any_config()) {
        let text = serde_norway::to_string(&config).unwrap();
        prop_assert_eq!(check("lbd.yaml", &text), Ok(config));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[a-z:\\-\\[\\]{}#'\" \n0-9*&!|>]{0,200}") {
        let _outcome = check("lbd.yaml", &text);
    }
}

#[test]
fn the_file_says_of_its_node_what_rest_says() {
    let said =
        |spec: &str| check("x", &format!("nodes: [{{metadata: {{name: local}}, spec: {spec}}}]"));
    let nodes = said("{drain: true}").unwrap().nodes;
    assert_eq!((nodes.len(), nodes[0].spec.drain), (1, true));
    let wrong = said("{drain: 7}").unwrap_err().to_string();
    assert!(wrong.contains("nodes[0].spec.drain is the number 7"), "{wrong}");
    let other = check("x", "nodes: [{metadata: {name: other}, spec: {}}]").unwrap_err().to_string();
    assert!(other.contains("names the node other, but the one here is local"), "{other}");
}
