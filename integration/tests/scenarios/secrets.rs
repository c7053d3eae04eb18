//! A canary: a key and a token that must be found nowhere but where they were put.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use integration::demo;
use lb_api_types::config::Hook;
use lb_api_types::peer::BgpPeer;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use serde_json::json;

use crate::hello::{Hello, Holds};

const KEY: &str = "canary-7d1f0c2e9b5a4386";

#[test]
fn a_canary_secret_is_found_nowhere() {
    let keys = tempfile::tempdir().expect("there is room");
    let file = keys.path().join("md5.key");
    fs::write(&file, format!("{KEY}\n")).expect("there is room");
    let peer =
        json!({"name": "canary", "address": "10.99.0.1", "asn": 65099, "md5_key_file": file});
    let peer: BgpPeer = serde_json::from_value(peer).expect("it is a peer");
    let hello = Hello::of(demo::TOPOLOGY, Hook::Tc, move |config| {
        config.bgp.peers.push(peer.clone());
    });
    hello.only_this_hook_is_attached(Hook::Tc);
    hello.create_vip();
    let (token, code) = hello.lbctl("create token canary --role admin").holds();
    let token = token.lines().last().unwrap_or_default().trim().to_owned();
    assert!(code == 0 && token.len() > 20, "{code} {token}");
    // Both are used, so that each has been where it could leak.
    let token_file = keys.path().join("token");
    fs::write(&token_file, &token).expect("there is room");
    let with = format!("--token-file {}", token_file.display());
    assert_eq!(hello.lbctl(&format!("{with} get tokens")).holds().1, 0);
    fs::write(&token_file, format!("{token}x")).expect("there is room");
    assert_eq!(hello.lbctl(&format!("{with} delete vip web")).holds().1, 1, "a guess is refused");

    let mut places = Vec::new();
    for line in [
        "export",
        "bundle",
        "events",
        "get tokens -o yaml",
        "get peers -o json",
        "get status -o json",
        "describe peer canary",
        "show bgp neighbors",
        "doctor",
        "config history",
    ] {
        places.push((line.to_owned(), hello.lbctl(line).holds().0.into_bytes()));
    }
    let bundle = &places.iter().find(|(name, _)| name == "bundle").expect("it is one of them").1;
    let bundle: serde_json::Value = serde_json::from_slice(bundle).expect("it is JSON");
    assert!(
        bundle["metrics"].as_str().is_some_and(|text| text.contains("lbd_vip_")),
        "it is whole"
    );
    for part in ["status", "doctor", "interfaces", "bgp/peers", "vips", "events", "lbd"] {
        assert!(!bundle[part].is_null() && bundle[part].get("error").is_none(), "{part}");
    }
    let socket = UnixStream::connect(hello.api.socket()).expect("lbd answers");
    let pid = getsockopt(&socket, PeerCredentials).expect("the kernel knows it").pid();
    for name in ["cmdline", "environ", "limits"] {
        let path = format!("/proc/{pid}/{name}");
        places.push((path.clone(), fs::read(&path).expect("it runs")));
    }
    let limits = String::from_utf8_lossy(&places.last().expect("it is the last").1).into_owned();
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    let words: Vec<_> = core.unwrap_or_default().split_whitespace().collect();
    assert_eq!(words.get(4), Some(&"0"), "no core has them: {core:?}");
    read(&hello.lab.folder(), &mut places);
    let files = places.iter().filter(|(name, _)| name.ends_with("audit.log"));
    assert_eq!(files.count(), 1, "the state folder is among them");
    for (name, bytes) in &places {
        for secret in [KEY, &token, token.trim_start_matches("lbd_")] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is in {name}");
        }
    }
}

/// Every file below a folder: logs, captures, configuration, state.
fn read(folder: &Path, places: &mut Vec<(String, Vec<u8>)>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let Ok(kind) = fs::symlink_metadata(&path).map(|data| data.file_type()) else { continue };
        if kind.is_dir() && !path.ends_with("bpf") {
            read(&path, places);
        } else if kind.is_file() {
            places.push((path.display().to_string(), fs::read(&path).unwrap_or_default()));
        }
    }
}
