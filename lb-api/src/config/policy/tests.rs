use super::super::check;

fn report(text: &str) -> Vec<(String, String)> {
    let report = check("lbd.yaml", text).unwrap_err();
    let mistakes = report.mistakes.into_iter();
    mistakes.map(|(_, mistake)| (mistake.path.to_string(), mistake.message)).collect()
}

const GOOD: &str = "
bgp:
  sets:
    - { name: pods, prefixes: [10.244.0.0/16 ge 26 le 32, '2001:db8::/32'] }
    - { name: customers, as_paths: ['^65001_', '_65010$'] }
    - { name: tagged, communities: ['65001:*', blackhole, 'rt:65001:1', '65001:1:2'] }
    - { name: upstreams, neighbors: [192.0.2.1, 192.0.2.0/24] }
  policies:
    - name: from-upstream
      statements:
        - name: ours
          match: { prefix_set: pods, as_path_set: customers, community_set: tagged, community_match: all, neighbor_set: upstreams,
                   next_hop_set: pods, family: ipv4, origin: igp, med: 5, local_pref: { min: 1 }, as_path_length: { max: 9 }, source: external }
          set: { local_pref: 200, med: 5, origin: egp, next_hop: peer, prepend: { times: 2 }, communities: ['65001:1'],
                 remove_communities: ['65001:*'], add_communities: [no-export] }
          action: next
        - { action: accept }
      otherwise: reject
    - { name: leave, statements: [{ match: { source: vips }, set: { next_hop: self }, action: accept }] }
  peers:
    - { address: 192.0.2.1, asn: 65001, import: from-upstream, export: [leave, vips], local_as: 65009, remove_private_as: true,
        allow_as_in: 1, reject_as_set: true }
";

#[test]
fn policies_are_read_and_written_as_they_are_meant() {
    let config = check("lbd.yaml", GOOD).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!((config.bgp.sets.len(), config.bgp.policies.len()), (4, 2));
    assert_eq!(config.bgp.peers[0].spec.options.export.as_ref().unwrap().0, ["leave", "vips"]);
    let written = serde_norway::to_string(&config).unwrap();
    assert_eq!(
        check("lbd.yaml", &written).unwrap_or_else(|report| panic!("{report}\n{written}")),
        config
    );
}

#[test]
fn what_bgp_names_is_written_as_every_resource_too() {
    let short = "
bgp:
  sets: [{ name: pods, prefixes: [10.244.0.0/16] }]
  policies: [{ name: p, statements: [{ match: { prefix_set: pods }, action: accept }] }]
  peer_groups: [{ name: nodes, asn: 64512, import: p }]
  peers: [{ name: node1, labels: { site: a }, owner: net, address: 192.0.2.1, group: nodes }, { address: 192.0.2.2, asn: 65001 }]
";
    let whole = "
bgp:
  sets: [{ metadata: { name: pods }, spec: { prefixes: [10.244.0.0/16] } }]
  policies: [{ metadata: { name: p }, spec: { statements: [{ match: { prefix_set: pods }, action: accept }] } }]
  peer_groups: [{ metadata: { name: nodes }, spec: { asn: 64512, import: p } }]
  peers: [{ metadata: { name: node1, labels: { site: a }, owner: net }, spec: { address: 192.0.2.1, group: nodes } }, { address: 192.0.2.2, asn: 65001 }]
";
    let [short, whole] = [short, whole]
        .map(|text| check("lbd.yaml", text).unwrap_or_else(|report| panic!("{report}")));
    assert_eq!(short, whole);
    let of = |item: &str| format!("bgp: {{ sets: [{item}] }}");
    one_mistake_each([
        (
            of("{ metadata: { name: a, revision: 7 }, spec: { prefixes: [10.0.0.0/8] } }"),
            "bgp.sets[0].metadata.revision".into(),
            "unknown field",
        ),
        (
            of("{ metadata: {}, spec: { prefixes: [10.0.0.0/8] } }"),
            "bgp.sets[0].metadata.name".into(),
            "is missing",
        ),
    ]);
}

/// Each text has one mistake, at this path, with these words.
fn one_mistake_each(cases: impl IntoIterator<Item = (String, String, &'static str)>) {
    for (text, path, words) in cases {
        let found = report(&text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!(found[0].0, path, "{text}");
        assert!(found[0].1.contains(words), "{text}: {}", found[0].1);
    }
}

#[test]
fn each_mistake_of_a_set_names_its_field_and_a_remedy() {
    let cases = [
        ("prefixes: [10.0.0.1/8]", ".prefixes[0]", "did you mean 10.0.0.0/8?"),
        ("prefixes: [10.0.0.0/8 ge 4]", ".prefixes[0]", "<= ge <="),
        ("as_paths: ['(1']", ".as_paths[0]", "no regular expression"),
        ("communities: ['65536:1']", ".communities[0]", "65001:100"),
        ("neighbors: [node1]", ".neighbors[0]", "an address"),
        ("communities: []", ".communities", "list a member"),
        ("neighbors: [], prefixes: []", "", "exactly one of"),
        ("colours: [], prefixes: ['::/0']", ".colours", "prefixes"),
    ];
    one_mistake_each(cases.map(|(rest, path, words)| {
        (format!("bgp: {{sets: [{{name: s, {rest}}}]}}"), format!("bgp.sets[0]{path}"), words)
    }));
    let twice = "bgp: {sets: [{name: s, prefixes: ['::/0']}, {name: s, as_paths: ['1']}]}";
    one_mistake_each([(twice.to_owned(), "bgp.sets[1].name".to_owned(), "rename")]);
}

#[test]
fn each_mistake_of_a_statement_names_its_field_and_a_remedy() {
    let cases = [
        ("match: {prefix_set: pod}, action: accept", "match.prefix_set", "did you mean `pods`?"),
        ("match: {as_path_set: x}, action: accept", "match.as_path_set", "add a set of as_paths"),
        ("match: {community_set: pods}, action: accept", "match.community_set", "has prefixes"),
        ("match: {community_match: all}, action: accept", "match.community_match", "_set"),
        ("match: {family: ipv5}, action: accept", "match.family", "ipv4, ipv6"),
        ("match: {med: {min: 2, max: 1}}, action: accept", "match.med", "above its `max`"),
        ("set: {prepend: {times: 33}}, action: accept", "set.prepend.times", "1 to 32"),
        ("set: {prepend: {asn: 0, times: 1}}, action: accept", "set.prepend.asn", "RFC 7607"),
        ("set: {add_communities: ['1:*']}, action: accept", "set.add_communities[0]", "65001:1"),
        ("set: {next_hop: me}, action: accept", "set.next_hop", "self or unchanged"),
        ("set: {next_hop: 127.0.0.1}, action: accept", "set.next_hop", "unicast"),
        ("set: {next_hop: 'fe80::1'}, action: accept", "set.next_hop", "link-local"),
        // What is empty by mistake would let everything through.
        ("match: , action: accept", "match", "is empty"),
        ("match: {prefix_set: }, action: accept", "match.prefix_set", "is empty"),
        ("match: {source: }, action: accept", "match.source", "is empty"),
        ("match: {med: }, action: accept", "match.med", "is empty"),
        ("match: {med: {min: }}, action: accept", "match.med.min", "is empty"),
        ("match: {med: {}}, action: accept", "match.med", "neither"),
        ("match: {}", "action", "accept, reject or next"),
    ];
    one_mistake_each(cases.map(|(rest, path, words)| {
        let sets = "sets: [{name: pods, prefixes: [10.0.0.0/8]}]";
        let text = format!("bgp: {{{sets}, policies: [{{name: p, statements: [{{{rest}}}]}}]}}");
        (text, format!("bgp.policies[0].statements[0].{path}"), words)
    }));
}

#[test]
fn each_mistake_of_a_neighbour_s_policies_names_its_field_and_a_remedy() {
    let cases = [
        ("import: q", "", "import", "which is not there"),
        ("import: [p, q]", "", "import[1]", "which is not there"),
        ("import: vips", "", "import", "what is advertised"),
        ("import: p", ", set: {next_hop: self}", "import", "use it in `export`"),
        ("export: p", ", set: {next_hop: peer}", "export", "use it in `import`"),
        ("local_as: 0", "", "local_as", "RFC 7607"),
        ("allow_as_in: 11", "", "allow_as_in", "from 0 to 10"),
    ];
    one_mistake_each(cases.map(|(field, rest, path, words)| {
        let policies = format!("policies: [{{name: p, statements: [{{action: accept{rest}}}]}}]");
        let peers = format!("peers: [{{address: 192.0.2.1, asn: 65001, {field}}}]");
        (format!("bgp: {{{policies}, {peers}}}"), format!("bgp.peers[0].{path}"), words)
    }));
    let named = |name: &str| format!("bgp: {{policies: [{{name: '{name}'}}]}}");
    let path = || "bgp.policies[0].name".to_owned();
    one_mistake_each([(named("all"), path(), "ready-made"), (named("a b"), path(), "letters")]);
}

#[test]
fn what_is_wrong_in_a_set_is_not_said_again_of_the_policies_that_name_it() {
    let text = "bgp: {sets: [{name: s, prefixes: [x]}], policies: [{name: p, statements: [{match: {prefix_set: s}, action: accept}]}]}";
    assert_eq!(report(text).len(), 1);
}
