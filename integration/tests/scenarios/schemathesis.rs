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
/// What it looks at: everything that says something of an answer, methods that a path does not know, and requests that are wrong
/// on purpose. Deliberately absent: `ignored_auth`, which asks nothing where a token may be left out, as on the Unix socket
/// (`no_operation_is_answered_without_a_token_over_tcp` does that over TCP); `positive_data_acceptance`, since what a request
/// names has to be there, and a schema cannot say so; `use_after_free` and `ensure_resource_availability`, since a dry run,
/// or a PUT of the same name meanwhile, is no mistake.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,unsupported_method,\
                      allow_header_conformance,missing_required_header,negative_data_rejection";
/// Requests of each operation in each of its phases, about.
const EXAMPLES: &str = "10";

#[test]
fn schemathesis_finds_no_server_error_and_no_answer_beside_the_description() {
    // Flows are watched, so that their events can be asked for.
    let hello = Hello::up_with(Hook::Tc, |config| config.dataplane.sample_flows = Some(1));
    let relay = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = relay.local_addr().expect("it is bound");
    let socket = hello.api.socket().to_owned();
    // It knows no Unix sockets, and over TCP it would spend its time on guessing tokens.
    thread::spawn(move || serve(&relay, &socket));
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/schemathesis"));
    let report = hello.lab.folder().join("schemathesis.json");
    let answers = hello.lab.folder().join("answers");
    let run = Command::new(PROGRAM)
        .env("NO_COLOR", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONPATH", &folder)
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("LBD_SERVER", format!("http://{address}"))
        .env("LBD_ANSWERS", &answers)
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
    let operations: BTreeSet<String> = paths
        .flat_map(|(path, of)| {
            let methods = of.as_object().into_iter().flatten().map(|(method, _)| method);
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    assert!(said.contains(&format!("Tested: {}", operations.len())), "{said}");
    // It would mean little if an operation had never been let through.
    let answers = fs::read_to_string(answers).expect("its hooks write them down");
    let done: BTreeSet<String> = answers.lines().filter_map(done).collect();
    let never: Vec<_> = operations.difference(&done).collect();
    assert!(never.is_empty(), "never succeeded: {never:?}");
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

/// The operation of a line of method, path and status, where it succeeded.
fn done(line: &str) -> Option<String> {
    let (operation, status) = line.rsplit_once(' ')?;
    (200..300).contains(&status.parse::<u16>().ok()?).then(|| operation.to_owned())
}
