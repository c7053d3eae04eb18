//! Schemathesis asks a live lbd for whatever the served description allows and for what it does not.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use lb_api_types::config::Hook;
use serde_json::Value;

use crate::hello::{Hello, Holds};

/// Where the project's set-up installs it.
const PROGRAM: &str = "/usr/local/lib/lbd-test/schemathesis/bin/schemathesis";
/// What it looks at: everything that says something of an answer.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance";
/// Requests of each operation in each of its phases, about.
const EXAMPLES: &str = "10";

#[test]
fn schemathesis_finds_no_server_error_and_no_answer_beside_the_description() {
    let hello = Hello::up(Hook::Tc);
    let relay = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = relay.local_addr().expect("it is bound");
    let socket = hello.api.socket().to_owned();
    // It knows no Unix sockets, and over TCP it would spend its time on guessing tokens.
    thread::spawn(move || serve(&relay, &socket));
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/schemathesis"));
    let report = hello.lab.folder().join("schemathesis.json");
    let run = Command::new(PROGRAM)
        .env("NO_COLOR", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONPATH", &folder)
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .current_dir(hello.lab.folder())
        .arg("--config-file")
        .arg(folder.join("schemathesis.toml"))
        .args(["run", &format!("http://{address}/api/v1/openapi.json"), "--checks", CHECKS])
        .args(["--max-examples", EXAMPLES, "--seed", "1", "--no-shrink", "--continue-on-failure"])
        .args(["--suppress-health-check", "all", "--request-timeout", "20"])
        // lbd closes a connection that says nothing for a while, maybe while the next request is on its way.
        .args(["--request-retries", "3"])
        .args(["--report", "ndjson", "--report-ndjson-path"])
        .arg(&report)
        .output()
        .expect("`cargo xtask setup` installs schemathesis");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    let document: Value =
        serde_json::from_str(&hello.api.get_text("openapi.json").holds()).expect("it is JSON");
    let paths = document["paths"].as_object().expect("there are paths").iter();
    // It leaves out where it has the description from.
    let paths = paths.filter(|(path, _)| !path.ends_with("/openapi.json"));
    let operations: usize = paths.filter_map(|(_, path)| Some(path.as_object()?.len())).sum();
    assert!(said.contains(&format!("Tested: {operations}")), "{said}");
    // It would mean little if nothing had been let through.
    let audit = fs::read_to_string(hello.api.socket().with_file_name("state").join("audit.log"))
        .expect("changes are written down");
    let done: BTreeSet<String> = audit.lines().filter_map(done).collect();
    for what in [
        "PUT vips",
        "PATCH vips",
        "DELETE vips",
        "PUT vips backends",
        "PUT pools",
        "PUT health-checks",
        "PUT nodes",
        "PUT static-routes",
        "PUT bgp/peers",
        "PUT bgp/peer-groups",
        "PUT bgp/policies",
        "PUT bgp/sets",
        "POST tokens",
        "POST fib/repair",
        "POST services/repair",
    ] {
        assert!(done.contains(what), "{what} never succeeded: {done:?}");
    }
    // The file's neighbours are nobody's to change.
    hello.sessions_are_established();
}

/// Hands connections over to a Unix socket.
fn serve(relay: &TcpListener, socket: &Path) {
    for client in relay.incoming() {
        let (Ok(client), Ok(server)) = (client, UnixStream::connect(socket)) else { continue };
        thread::spawn(move || hand_over(&client, &server));
    }
}

fn hand_over(client: &TcpStream, server: &UnixStream) -> io::Result<()> {
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let copied = io::copy(&mut from, &mut to);
        let _gone_already = to.shutdown(std::net::Shutdown::Write);
        copied
    });
    let (mut from, mut to) = (server, client);
    let copied = io::copy(&mut from, &mut to).map(drop);
    let _gone_already = client.shutdown(std::net::Shutdown::Both);
    copied
}

/// What a line of the audit log says was done: the method and the kind.
fn done(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    if line["status"].as_u64()? >= 300 {
        return None;
    }
    let (method, path) = line["what"].as_str()?.split_once(' ')?;
    let path = path.strip_prefix("/api/v1/")?.split(['?', ' ']).next()?;
    let parts: Vec<&str> = path.split('/').collect();
    Some(match parts[..] {
        ["vips", _, "backends", ..] => format!("{method} vips backends"),
        ["bgp" | "config" | "fib" | "services", what, ..] => {
            format!("{method} {}/{what}", parts[0])
        }
        [kind, ..] => format!("{method} {kind}"),
        [] => return None,
    })
}
