//! Canaries: keys and tokens that must be found nowhere but where they were put.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use integration::demo;
use integration::lab::{Lab, Options};
use integration::wait::eventually;
use lb_api_types::config::{Config, Hook, Tls};
use lb_api_types::peer::BgpPeer;
use nix::sys::signal::Signal;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::json;

use crate::hello::{Hello, Holds, SOON};

const KEY: &str = "canary-7d1f0c2e9b5a4386";
const PORT: u16 = 8443;

/// A certificate that signs itself, its key, and what of that key must be found nowhere.
struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    canaries: Vec<Vec<u8>>,
}

impl Identity {
    fn new(folder: &Path, name: &str) -> Self {
        let names = [name.to_owned(), "127.0.0.1".into()];
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(names).expect("it has a name");
        let path = |end: &str| folder.join(format!("{name}.{end}"));
        let pem = signing_key.serialize_pem();
        let lines = pem.lines().filter(|line| !line.starts_with("-----"));
        let mut canaries: Vec<Vec<u8>> =
            lines.filter(|line| line.len() > 30).map(|line| line.as_bytes().to_vec()).collect();
        // In PKCS #8 the public key stands last and the secret one in the middle.
        let der = signing_key.serialize_der();
        canaries.push(der[36..60].to_vec());
        fs::write(path("crt"), cert.pem()).expect("there is room");
        fs::write(path("key"), pem).expect("there is room");
        Self { certificate: path("crt"), key: path("key"), canaries }
    }
}

#[test]
fn a_canary_secret_is_found_nowhere() {
    let keys = tempfile::tempdir().expect("there is room");
    let file = keys.path().join("md5.key");
    fs::write(&file, format!("{KEY}\n")).expect("there is room");
    let (server, client) =
        (Identity::new(keys.path(), "lbd.example"), Identity::new(keys.path(), "ci.example"));
    // The daemon is somebody else.
    fs::set_permissions(keys.path(), PermissionsExt::from_mode(0o755)).expect("it is ours");
    let tls = Tls {
        certificate_file: server.certificate.clone(),
        key_file: server.key.clone(),
        client_ca_file: Some(client.certificate.clone()),
        clients: serde_json::from_value(json!([{"name": "ci.example", "role": "viewer"}]))
            .expect("they are clients"),
    };
    let peer = json!({"name": "canary", "address": "10.99.0.1", "asn": 65099, "md5_key_file": "credential:md5.key"});
    let peer: BgpPeer = serde_json::from_value(peer).expect("it is a peer");
    let mut options = Options::of(demo::TOPOLOGY, None, None).holds();
    options.hook = Hook::Tc;
    options.capture = true;
    options.edit = Box::new(move |config: &mut Config| {
        config.bgp.peers.push(peer.clone());
        config.api.listen = Some(SocketAddr::from(([127, 0, 0, 1], PORT)));
        config.api.tls = Some(tls.clone());
    });
    // Whatever it could ever write down.
    let lbd = options.topology.nodes.get_mut("lbd").expect("the topology has it");
    lbd.env.insert("LBD_LOG".into(), "trace".into());
    // As systemd hands them over.
    lbd.env.insert("CREDENTIALS_DIRECTORY".into(), keys.path().display().to_string());
    let lab = Lab::up(&options).holds();
    let mut hello = Hello { api: lab.api(), lab };
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
    // And one of them is taken for a name.
    let mut places = Vec::new();
    for line in [format!("delete token {token}"), format!("get token {token}")] {
        let (text, code) = hello.lbctl(&line).holds();
        assert!(code == 1 && text.contains("no token"), "{code} {text}");
        places.push(("the answer to whoever names a token".to_owned(), text.into_bytes()));
    }
    let over_tls = |request: &str| {
        let (ca, certificate, key) = (&server.certificate, &client.certificate, &client.key);
        let files = format!(
            "--cacert {} --cert {} --key {}",
            ca.display(),
            certificate.display(),
            key.display()
        );
        let url = format!("https://127.0.0.1:{PORT}/api/v1/vips");
        hello
            .lab
            .run(
                "lbd",
                &format!("curl -sS -o /dev/null -w '%{{http_code}}' {files} {request} {url}"),
            )
            .holds()
    };
    assert_eq!(over_tls(""), "200", "the certificate is a viewer's");
    assert_eq!(over_tls("-X DELETE"), "403");

    make_a_peer_with_a_key(&hello, keys.path(), &mut places);
    ask(&hello, &mut places);
    look_into_the_process(&hello, &mut places);
    nobody_else_reads_its_memory(&hello);
    let end = hello.lab.stop_one("lbd", "lbd", Signal::SIGABRT).holds();
    assert!(end.signal() == Some(Signal::SIGABRT as i32) && !end.core_dumped(), "{end:?}");
    read(&hello.lab.folder(), &mut places);
    nothing_is_left_out(&places);
    let words =
        [KEY, &token, token.trim_start_matches("lbd_")].map(|word| word.as_bytes().to_vec());
    let secrets = words.into_iter().chain(server.canaries).chain(client.canaries);
    for secret in secrets {
        for (name, bytes) in &places {
            assert!(!has(bytes, &secret), "{} is in {name}", String::from_utf8_lossy(&secret));
        }
    }
}

/// Each kind of place was looked at, and has something to be found.
fn nothing_is_left_out(places: &[(String, Vec<u8>)]) {
    for file in ["audit.log", "refused.log", "tokens.json", "vips.json", "vips.journal", "lbd.yaml"]
    {
        let found = places.iter().filter(|(name, bytes)| name.ends_with(file) && !bytes.is_empty());
        assert_ne!(found.count(), 0, "{file} is among them");
    }
    let log = |(_, bytes): &&(String, Vec<u8>)| has(bytes, b"TRACE") && has(bytes, b"lbd runs");
    assert!(places.iter().any(|place| log(&place)), "what it logs is among them");
    assert!(places.iter().any(|(name, _)| name.ends_with(".pcap")), "what it sends is among them");
}

fn has(bytes: &[u8], words: &[u8]) -> bool {
    bytes.windows(words.len()).any(|window| window == words)
}

/// A neighbour that is made over REST and signs what it sends, and requests with a key where none belongs.
fn make_a_peer_with_a_key(hello: &Hello, keys: &Path, places: &mut Vec<(String, Vec<u8>)>) {
    let file = keys.join("rest.key");
    fs::write(&file, format!("{KEY}\n")).expect("there is room");
    let far = hello.lab.run("client", "hostname -I; ip -4 -o addr show dev eth1").holds();
    let far = far.split_whitespace().find_map(|word| word.split_once('/')).expect("an address").0;
    let spec = |name: &str, value: serde_json::Value| {
        let mut spec = json!({"address": far, "asn": 65098, "md5_key_file": file});
        spec[name] = value;
        json!({"metadata": {"name": "signed"}, "spec": spec}).to_string()
    };
    let whole = spec("multihop", json!(4));
    for (query, body, status) in [
        ("?dryRun=true", &whole, 201),
        ("", &whole, 201),
        ("", &spec("password", json!(KEY)), 422),
        ("", &spec("md5_key", json!(KEY)), 422),
        ("", &spec("md5_key_file", json!(keys.join("gone"))), 422),
        ("", &spec("md5_key_file", json!(KEY)), 422),
    ] {
        let path = format!("bgp/peers/signed{query}");
        let answer = hello.api.request("PUT", &path, Some(body)).holds();
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        places.push((format!("the answer to {body}"), answer.body.into_bytes()));
    }
    eventually("it is called", SOON, || {
        let peers = hello.api.peers()?;
        let peer = peers.iter().find(|peer| peer.name == "signed").context("it is there")?;
        ensure!(!peer.last_error.is_empty() || peer.state == "Connect", "{peer:?}");
        Ok(())
    })
    .holds();
}

/// What it says to whoever asks.
fn ask(hello: &Hello, places: &mut Vec<(String, Vec<u8>)>) {
    let kinds = [
        "vips",
        "backends web",
        "pools",
        "health-checks",
        "nodes",
        "interfaces",
        "bgp-global",
        "sets",
        "policies",
        "peer-groups",
        "peers",
        "addresses",
        "static-routes",
        "routes",
        "fib",
        "flows",
        "tokens",
        "status",
    ];
    let each = kinds
        .iter()
        .flat_map(|kind| ["yaml", "json", "wide"].map(|how| format!("get {kind} -o {how}")));
    let others = [
        "export",
        "bundle",
        "events",
        "describe peer canary",
        "describe peer signed",
        "describe token canary",
        "show bgp neighbors",
        "show bgp summary",
        "doctor",
        "doctor services",
        "config history",
    ];
    for line in each.chain(others.map(str::to_owned)) {
        let (text, code) = hello.lbctl(&line).holds();
        assert!([0, 4].contains(&code) && !text.is_empty(), "{line}: {code} {text}");
        places.push((line, text.into_bytes()));
    }
    for path in [
        "/api/v1/events?past=true&follow=false",
        "/api/v1/config",
        "/api/v1/config/history",
        "/metrics",
    ] {
        let socket = hello.api.socket().display();
        let curl = format!("curl -sS --fail --unix-socket {socket} 'http://lbd{path}'");
        places.push((path.to_owned(), hello.lab.run("lbd", &curl).holds().into_bytes()));
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
}

/// What its host sees of it.
fn look_into_the_process(hello: &Hello, places: &mut Vec<(String, Vec<u8>)>) {
    let socket = UnixStream::connect(hello.api.socket()).expect("lbd answers");
    let pid = getsockopt(&socket, PeerCredentials).expect("the kernel knows it").pid();
    // Whoever is not root reads nothing of it, and no debugger looks into it.
    let owner = fs::metadata(format!("/proc/{pid}/environ")).expect("it runs");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 0, "it cannot be dumped");
    for name in ["cmdline", "environ", "limits"] {
        let path = format!("/proc/{pid}/{name}");
        places.push((path.clone(), fs::read(&path).expect("it runs")));
    }
    let limits = String::from_utf8_lossy(&places.last().expect("it is the last").1).into_owned();
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    let words: Vec<_> = core.unwrap_or_default().split_whitespace().collect();
    assert_eq!(words.get(4), Some(&"0"), "no core has them: {core:?}");
}

/// A debugger's way into it, and what `gcore` would write: open to root alone, not even to its own user.
fn nobody_else_reads_its_memory(hello: &Hello) {
    let process = hello.lab.process("lbd", "lbd").holds();
    let words = fs::read_to_string(format!("/proc/{}/status", process.pid())).expect("it runs");
    let own = words.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next());
    let own: u32 = own.and_then(|uid| uid.parse().ok()).expect("the kernel says whose it is");
    assert_ne!(own, 0, "it runs as a user of its own");
    for uid in [own, 65_534] {
        for file in ["mem", "maps", "environ", "auxv"] {
            let path = format!("/proc/{}/{file}", process.pid());
            let open = |command: &mut Command| {
                command.args(["-c", &format!("exec 3<{path}")]).output().expect("a shell is there")
            };
            let refused = open(Command::new("sh").uid(uid).gid(uid));
            assert!(!refused.status.success(), "user {uid} opens {path}");
            let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(refused.contains("Permission denied"), "{refused}");
            assert!(open(&mut Command::new("sh")).status.success(), "root opens {path}");
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
