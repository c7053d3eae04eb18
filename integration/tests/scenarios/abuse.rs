//! Abuse of the API: each kind gets its status, the daemon's memory stays bounded, and BGP does not notice.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration::wait::eventually;
use lb_api_types::config::Hook;
use lb_api_types::view::PeerView;
use nix::sys::resource::{Resource, setrlimit};
use serde_json::{Value, json};

use crate::hello::{Hello, Holds, SOON};

const PORT: u16 = 8080;
/// Connections that are opened at once.
const MANY: usize = 10_000;
/// What the daemon may grow by, whatever is done to it: some MiB are seen, and ten thousand connections that it served would
/// take more.
const GROWTH_KB: u64 = 32 * 1024;
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// The daemon, and what it was like before.
struct Abused {
    hello: Hello,
    before: Vec<PeerView>,
    memory: u64,
}

impl Abused {
    fn up() -> Self {
        let hello = Hello::up_with(Hook::Tc, |config| {
            config.api.listen = Some(SocketAddr::from(([127, 0, 0, 1], PORT)));
        });
        let before = hello.api.peers().holds();
        let mut abused = Self { hello, before, memory: 0 };
        abused.memory = abused.memory_kb();
        abused
    }

    /// Without what it has mapped of the dataplane's maps, which have their size from the start.
    fn memory_kb(&self) -> u64 {
        let pid = self.hello.lab.process("lbd", "lbd").holds().pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kb = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        kb.expect("the kernel says how much memory it has")
    }

    /// Sends bytes over TCP from the daemon's own host; the answer's status and body.
    fn say(&self, bytes: &[u8]) -> Result<(u16, String)> {
        let netns = self.hello.lab.netns("lbd")?;
        netns.within(|| {
            let mut stream = dial()?;
            // A refusal may come before everything is said.
            match stream.write_all(bytes) {
                Err(error) if !is_closed(&error) => return Err(error.into()),
                Err(_) | Ok(()) => {}
            }
            read_answer(&mut stream)
        })?
    }

    /// A request with a token and a body.
    fn ask(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: &[u8],
    ) -> Result<(u16, String)> {
        let token =
            token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{token}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        self.say(&[head.as_bytes(), body].concat())
    }

    /// A new token of a role.
    fn token(&self, name: &str, role: &str, seconds: u64) -> String {
        let wanted =
            json!({"metadata": {"name": name}, "spec": {"role": role, "expires_in_secs": seconds}});
        let answer = self.hello.api.request("POST", "tokens", Some(&wanted.to_string())).holds();
        assert_eq!(answer.status, 201, "{answer:?}");
        let made: Value = serde_json::from_str(&answer.body).expect("an answer is JSON");
        made["status"]["token"].as_str().expect("it has the token").to_owned()
    }

    fn is_unharmed(&self, after: &str) {
        assert!(self.hello.lab.runs("lbd", "lbd"), "lbd has ended after {after}");
        let grown = self.memory_kb().saturating_sub(self.memory);
        assert!(grown < GROWTH_KB, "{after}: it has grown by {grown} kB");
        for peer in self.before.iter().filter(|peer| peer.state == "Established") {
            let now = self.hello.api.peers().holds().into_iter().find(|now| now.name == peer.name);
            let now = now.expect("the neighbour is still there");
            assert_eq!(now.state, "Established", "{after}: {now:?}");
            assert!(now.since_secs >= peer.since_secs, "{after}: its session began anew: {now:?}");
            assert_eq!(now.last_error, peer.last_error, "{after}");
        }
    }
}

fn dial() -> Result<TcpStream> {
    let to = SocketAddr::from(([127, 0, 0, 1], PORT));
    let stream = TcpStream::connect_timeout(&to, ANSWER_WITHIN).context("nobody listens")?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    Ok(stream)
}

fn is_closed(error: &std::io::Error) -> bool {
    [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset].contains(&error.kind())
}

fn read_answer(stream: &mut TcpStream) -> Result<(u16, String)> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if !is_closed(&error) => return Err(error.into()),
        Err(_) | Ok(_) => {}
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.with_context(|| format!("no answer: {text:?}"))?, text))
}

#[test]
fn each_kind_of_abuse_of_the_api_gets_its_status_and_harms_nobody() {
    let abused = Abused::up();
    let admin = abused.token("admin", "admin", 3600);
    let viewer = abused.token("viewer", "viewer", 3600);
    let expired = abused.token("expired", "admin", 1);
    let vip = json!({"metadata": {"name": "x"}, "spec": {
        "address": "203.0.113.77", "port": 80, "backends": [{"address": "10.244.1.9", "port": 80}]}});
    let vip = vip.to_string();
    let path = "/api/v1/vips/x";
    let ask = |method: &str, path: &str, token: Option<&str>, body: &[u8], status: u16| {
        let (found, text) = abused.ask(method, path, token, body).holds();
        assert_eq!(found, status, "{method} {path}: {text}");
        let is_problem = text.contains("application/problem+json");
        assert!(status < 400 || is_problem, "{method} {path}: {text}");
        abused.is_unharmed(&format!("{method} {path} gave {status}"));
    };
    ask("PUT", path, None, vip.as_bytes(), 401);
    ask("PUT", path, Some("nobodys"), vip.as_bytes(), 401);
    ask("PUT", path, Some(&viewer), vip.as_bytes(), 403);
    ask("GET", "/api/v1/tokens", Some(&viewer), b"", 403);
    eventually("the token expires", SOON, || {
        let (status, text) = abused.ask("GET", "/api/v1/vips", Some(&expired), b"")?;
        ensure!(status == 401 && text.contains("expired"), "{text}");
        Ok(())
    })
    .holds();
    // No more than what is read of it is kept.
    ask("PUT", path, Some(&admin), &vec![b' '; 2 << 20], 413);
    let deep = [vec![b'['; 500_000], vec![b']'; 500_000]].concat();
    ask("PUT", path, Some(&admin), &deep, 400);
    ask("PUT", path, Some(&admin), b"{\"metadata\": {\"name\": \"\xff\xfe\"}}", 400);
    ask("PUT", "/api/v1/vips/%ff%fe", Some(&admin), vip.as_bytes(), 400);
    for dots in ["/api/v1/vips/..", "/api/v1/vips/%2e%2e", "/api/v1/../../etc/passwd", "/../x"] {
        let (status, text) = abused.ask("PUT", dots, Some(&admin), vip.as_bytes()).holds();
        assert!((400..500).contains(&status) && !text.contains("root:"), "{dots}: {text}");
    }
    ask("PUT", path, Some(&admin), vip.as_bytes(), 201);
    let revised = |revision: u64| {
        let mut vip: Value = serde_json::from_str(&vip).expect("it is JSON");
        vip["metadata"]["revision"] = json!(revision);
        vip["spec"]["port"] = json!(81);
        vip.to_string()
    };
    ask("PUT", path, Some(&admin), revised(4711).as_bytes(), 412);
    let (status, text) = abused.say(b"\x16\x03\x01 this is no HTTP\r\n\r\n").holds();
    assert_eq!(status, 400, "{text}");
    abused.is_unharmed("nonsense");
}

#[test]
fn a_client_that_is_slow_is_cut_and_others_are_answered_meanwhile() {
    let abused = Abused::up();
    let netns = abused.hello.lab.netns("lbd").holds();
    let admin = abused.token("admin", "admin", 3600);
    let start = Instant::now();
    let slow: Result<(u16, String)> = netns
        .within(|| {
            let mut stream = dial()?;
            write!(stream, "PUT /api/v1/vips/x HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {admin}\r\n")?;
            write!(stream, "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{")?;
            // A byte of the body now and then, which is never whole.
            loop {
                let (status, _) = abused.ask("GET", "/api/v1/vips", Some(&admin), b"")?;
                ensure!(status == 200, "others are answered {status} meanwhile");
                if start.elapsed() > ANSWER_WITHIN || stream.write_all(b" ").is_err() {
                    break;
                }
                stream.set_read_timeout(Some(Duration::from_millis(200)))?;
                match stream.peek(&mut [0]) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) | Ok(_) => break,
                }
            }
            read_answer(&mut stream)
        })
        .holds();
    let (status, text) = slow.holds();
    assert_eq!(status, 408, "{text}");
    assert!(start.elapsed() < ANSWER_WITHIN, "it was cut after {:?}", start.elapsed());
    abused.is_unharmed("a slow client");
}

#[test]
fn ten_thousand_connections_of_one_address_leave_room_for_others_and_the_socket() {
    let abused = Abused::up();
    let netns = abused.hello.lab.netns("lbd").holds();
    let room = MANY as u64 + 1000;
    setrlimit(Resource::RLIMIT_NOFILE, room, room).expect("root may have so many files open");
    let open = |most: usize| {
        netns.within(|| (0..most).map(|_| dial()).collect::<Result<Vec<_>>>()).holds().holds()
    };
    // Half a request each, so that they are served as long as a request may take to come.
    let mut silent = open(128);
    for stream in &mut silent {
        stream.write_all(b"GET /api/v1/vips HTTP/1.1\r\nHost: 127").expect("they are taken");
    }
    silent.extend(open(MANY - 128));
    assert_eq!(silent.len(), MANY);
    let refused = eventually("the address has all that it may have", SOON, || {
        ensure!(abused.ask("GET", "/healthz", None, b"").is_err(), "it is answered");
        Ok(())
    });
    refused.holds();
    let other = "curl -sS --interface 127.0.0.2 http://127.0.0.1:8080/healthz";
    assert_eq!(abused.hello.lab.run("lbd", other).holds().trim(), "ok");
    // The socket has room of its own.
    abused.hello.api.vips().holds();
    abused.is_unharmed("ten thousand connections");
    drop(silent);
    eventually("there is room again", SOON, || {
        let (status, text) = abused.ask("GET", "/healthz", None, b"")?;
        ensure!(status == 200, "{text}");
        Ok(())
    })
    .holds();
    abused.is_unharmed("the end of ten thousand connections");
}
