//! Forwarding from a client to a server, all on this machine: lbd's FIB beside the kernel's own forwarding.
//!
//! Both have interfaces of their own between the same client and the same server, and take turns within a round. What
//! lbd's kernel forwarded is counted, so that nothing is measured but its fast path.

mod datagrams;
#[path = "../traffic/load.rs"]
mod load;
#[path = "../traffic/more.rs"]
mod more;
#[path = "../../../lb-dataplane/benches/fib/report.rs"]
mod report;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration::lab::{Lab, Options};
use integration::netns::Netns;
use integration::traffic;
use integration::wait::eventually;
use lb_api_types::config::Hook;

use self::report::{Report, Series};

/// Rounds; the median counts.
const ROUNDS: usize = 7;
/// How long one of them measures one thing of one peer.
const TURN: Duration = Duration::from_secs(1);
const READY_WITHIN: Duration = Duration::from_secs(40);
const PORT: u16 = 7000;
/// Packets that lbd's kernel may forward: what comes before the neighbours' MACs are known.
const FEW: u64 = 1000;
/// Where the client finds the server by each: lbd first.
const PEERS: [(&str, &str); 2] = [("lbd", "10.2.1.2"), ("the kernel", "10.2.2.2")];

fn main() -> Result<()> {
    // `cargo test --benches` and `cargo bench -- --list` only ask whether it is there.
    if std::env::args().any(|argument| argument == "--list" || argument == "--test") {
        return Ok(());
    }
    let mut report = Report::new("route");
    for hook in [Hook::Tc, Hook::Xdp] {
        measure(hook, &mut report)?;
    }
    println!("\nclient, server and both routers on the same cores");
    report.write()
}

fn measure(hook: Hook, report: &mut Report) -> Result<()> {
    let name = if hook == Hook::Xdp { "XDP" } else { "TC" };
    say(&format!("{name}: bringing up a client, a server, and lbd and a router between them"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/route/network");
    let mut options = Options::of(&folder.join("route.clab.yml").to_string_lossy(), None, None)?;
    options.hook = hook;
    let lab = Lab::up(&options)?;
    let (client, server) = (lab.netns("client")?, lab.netns("server")?);
    load::serve(server, PORT)?;
    let sink = datagrams::Sink::start(server, PORT)?;
    for (peer, at) in PEERS {
        let to = address(at)?;
        eventually(&format!("{peer} carries a stream"), READY_WITHIN, || {
            load::stream(client, to, Duration::from_millis(10))
        })?;
    }
    let before = traffic::forwarded_by_kernel(lab.netns("lbd")?)?;
    let mut seen = Seen::default();
    for round in 1..=ROUNDS {
        say(&format!("{name}: round {round} of {ROUNDS}"));
        seen.round(client, &sink, round)?;
    }
    let slow = traffic::forwarded_by_kernel(lab.netns("lbd")?)? - before;
    ensure!(slow < FEW, "lbd's kernel forwarded {slow} packets: the fast path was not measured");
    let [streams, datagrams, kept, new, latency] = &seen.0;
    for (what, unit, [lbd, kernel]) in [
        ("one TCP stream", "Gbit/s", streams),
        ("64-byte datagrams that arrive", "k/s", datagrams),
        ("requests on kept connections", "k/s", kept),
        ("new connections", "k/s", new),
    ] {
        let what = format!("{what}, {name}");
        report.at_least((&what, "the kernel"), unit, lbd, kernel, 1.0);
    }
    let [lbd, kernel] = latency;
    let what = format!("requests, p99, {name}");
    report.ratio((&what, "the kernel"), "us", lbd, kernel, 1.0);
    report.note(&format!("packets that lbd's kernel forwarded, {name}"), "", slow as f64);
    Ok(())
}

/// Figures of lbd and of the kernel: streams, datagrams, requests, new connections, and how long requests took.
#[derive(Default)]
struct Seen([[Series; 2]; 5]);

impl Seen {
    fn round(&mut self, client: &Netns, sink: &datagrams::Sink, round: usize) -> Result<()> {
        let Self([streams, datagrams, kept, new, latency]) = self;
        for turn in 0..PEERS.len() {
            // Each is the first one in its turn.
            let place = (turn + round) % PEERS.len();
            let (name, at) = PEERS[place];
            let to = address(at)?;
            streams[place].push(load::stream(client, to, TURN).context(name)?);
            datagrams[place].push(sink.flood(client, to, TURN).context(name)? / 1e3);
            let requests = load::kept_connections(client, to, TURN).context(name)?;
            kept[place].push(requests.per_second / 1e3);
            latency[place].push(requests.p99);
            let requests = load::new_connections(client, to, TURN).context(name)?;
            new[place].push(requests.per_second / 1e3);
        }
        Ok(())
    }
}

fn address(host: &str) -> Result<SocketAddr> {
    Ok(SocketAddr::new(host.parse()?, PORT))
}

fn say(what: &str) {
    eprintln!("==> {what}");
}
