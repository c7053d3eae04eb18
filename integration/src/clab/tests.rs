//! What is read from a containerlab file, and what is refused.

use super::*;

const SMALL: &str = r#"
name: small
topology:
  nodes:
    a:
      kind: linux
      image: alpine:3
      cmd: sleep infinity
      env: { COUNT: 3, NAME: x }
      exec: ["ip addr add 192.0.2.1/24 dev eth1"]
    b: { kind: linux, image: "alpine:3" }
  links:
    - endpoints: ["a:eth1", "b:eth1"]
"#;

fn refusal(text: &str) -> String {
    format!("{:#}", parse(text, Path::new(".")).unwrap_err())
}

#[test]
fn nodes_and_links_are_read() {
    let topology = parse(SMALL, Path::new(".")).unwrap();
    assert_eq!(topology.nodes["a"].cmd, ["sleep", "infinity"]);
    assert_eq!(topology.nodes["a"].env["COUNT"], "3");
    assert_eq!(topology.nodes["a"].exec.len(), 1);
    assert_eq!(topology.links[0].ends[1].interface, "eth1");
    assert_eq!(topology.links[0].mtu, DEFAULT_MTU);
}

#[test]
fn an_unsupported_kind_is_refused_by_name() {
    let said = refusal(&SMALL.replacen("kind: linux", "kind: nokia_srlinux", 1));
    assert!(said.contains("kind `nokia_srlinux` of node `a`"), "{said}");
    assert!(said.contains("deploy the file with containerlab"), "{said}");
}

#[test]
fn every_unsupported_field_is_named_at_once() {
    let text = SMALL.replacen("cmd:", "startup-config: x\n      cmd:", 1).replacen(
        "name: small",
        "name: small\nmgmt: {}",
        1,
    );
    let said = refusal(&text);
    assert!(said.contains("field `mgmt` of the file"), "{said}");
    assert!(said.contains("field `startup-config` of node `a`"), "{said}");
}

#[test]
fn links_to_nowhere_and_twice_the_same_end_are_refused() {
    let said = refusal(&SMALL.replace("b:eth1\"]", "c:eth1\"]"));
    assert!(said.contains("there is no node `c`"), "{said}");
    let twice = format!("{SMALL}    - endpoints: [\"a:eth1\", \"b:eth2\"]\n");
    assert!(refusal(&twice).contains("two links end at `a:eth1`"));
}

#[test]
fn a_bind_to_a_missing_file_is_refused() {
    let said = refusal(&SMALL.replacen("cmd:", "binds: [\"no/such:/etc/x\"]\n      cmd:", 1));
    assert!(said.contains("there is no ./no/such"), "{said}");
}
