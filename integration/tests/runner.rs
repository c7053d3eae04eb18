//! The runner itself, over a topology that needs no daemon.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use integration::clab;
use integration::lab::{Lab, Options};
use lb_api_types::config::Hook;

const PAIR: &str = r#"
name: pair
topology:
  nodes:
    a:
      kind: linux
      image: alpine:3
      binds: ["greeting:/etc/greeting"]
      exec: ["ip addr add 192.0.2.1/24 dev eth1"]
    b:
      kind: linux
      image: alpine:3
      cmd: sleep infinity
      exec: ["ip addr add 192.0.2.2/24 dev eth1"]
  links:
    - endpoints: ["a:eth1", "b:eth1"]
"#;

fn pair() -> Options {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::write(folder.join("greeting"), "hello\n").expect("the folder for tests can be written");
    Options {
        topology: clab::parse(PAIR, folder).expect("the topology is right"),
        hook: Hook::Auto,
        lbd: PathBuf::new(),
        lbctl: PathBuf::new(),
        edit: Box::new(|_| {}),
        capture: false,
    }
}

fn namespaces(id: &str) -> BTreeSet<String> {
    let folder = fs::read_dir("/run/netns").expect("a lab makes namespaces");
    let names = folder.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with(&format!("lbd-{id}"))).collect()
}

#[test]
fn labs_go_side_by_side_and_leave_nothing() {
    let first = Lab::up(&pair()).unwrap();
    let second = Lab::up(&pair()).unwrap();
    for lab in [&first, &second] {
        let addresses = lab.run("a", "ip -4 addr show dev eth1; cat /etc/greeting").unwrap();
        assert!(addresses.contains("192.0.2.1/24") && addresses.contains("hello"), "{addresses}");
        assert!(lab.runs("b", "sleep"));
        assert_eq!(namespaces(lab.id()).len(), 2);
    }
    let gone = (first.id().to_owned(), first.folder());
    drop(first);
    assert!(namespaces(&gone.0).is_empty() && !gone.1.exists());
    assert!(second.runs("b", "sleep"), "one lab took the other's process down");
    second.run("a", "ip link show dev eth1").unwrap();
}

#[test]
fn a_failed_bring_up_leaves_nothing_and_says_which_line_failed() {
    let mut options = pair();
    if let Some(node) = options.topology.nodes.get_mut("b") {
        node.exec.push("ip addr add 192.0.2.300/24 dev eth1".to_owned());
    }
    let error = Lab::up(&options).err().expect("the address is wrong");
    let said = format!("{error:#}");
    assert!(said.contains("node `b`, exec `ip addr add 192.0.2.300/24 dev eth1`"), "{said}");
    let own = namespaces(&format!("{:x}", std::process::id()));
    assert!(own.is_empty(), "{own:?}");
}

#[test]
fn silent_loss_is_injected_and_healed() {
    let lab = Lab::up(&pair()).unwrap();
    let end = lab.topology().links[0].ends[1].clone();
    let reaches = || lab.run("a", "ip neigh flush all; curl -sS --max-time 1 http://192.0.2.2:1/");
    for (percent, rule) in [(30, "< 30 drop"), (100, "drop")] {
        lab.lose(&end, percent).unwrap();
        let rules = lab.run("b", "nft list ruleset").unwrap();
        assert_eq!(rules.matches(rule).count(), 2, "both ways: {rules}");
    }
    let said = format!("{:#}", reaches().unwrap_err());
    assert!(said.contains("timed out"), "{said}");
    lab.lose(&end, 0).unwrap();
    // Nobody listens there, and now the other end can say so.
    let said = format!("{:#}", reaches().unwrap_err());
    assert!(said.contains("Couldn't connect"), "{said}");
}

#[test]
fn a_clab_file_with_an_unsupported_kind_is_refused_by_name() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("unsupported.clab.yml");
    fs::write(&path, PAIR.replacen("kind: linux", "kind: nokia_srlinux", 1)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_lab")).arg("up").arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("kind `nokia_srlinux` of node `a`"), "{said}");
    assert!(said.contains("containerlab"), "{said}");
}
