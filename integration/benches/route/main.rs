//! Forwarding from a client to a server, all on this machine: lbd's FIB beside the kernel's own forwarding.
//!
//! Both have interfaces of their own between the same client and the same server, and take turns within a round. What
//! lbd's kernel forwarded is counted, so that nothing is measured but its fast path.

#[path = "../traffic/bed.rs"]
mod bed;
mod datagrams;
#[path = "../traffic/load.rs"]
mod load;
#[path = "../traffic/more.rs"]
mod more;
#[path = "../../../lb-dataplane/benches/fib/report.rs"]
mod report;

use anyhow::{Context as _, Result};
use integration::netns::Netns;
use lb_api_types::config::Hook;

use self::bed::{PORT, Peer, ROUNDS, TURN, on_the_fast_path, say, turns};
use self::report::{Report, Series};

/// Where the client finds the server by each: lbd first.
const PEERS: [Peer; 2] = [("lbd", "10.2.1.2"), ("the kernel", "10.2.2.2")];

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
    let lab = bed::up("route", hook)?;
    let sink = datagrams::Sink::start(lab.netns("server")?, PORT)?;
    bed::ready(&lab, &PEERS)?;
    let client = lab.netns("client")?;
    let mut seen = Seen::default();
    let slow = on_the_fast_path(&lab, &["lbd"], || {
        for round in 1..=ROUNDS {
            say(&format!("{name}: round {round} of {ROUNDS}"));
            seen.round(client, &sink, round)?;
        }
        Ok(())
    })?;
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
        for (place, name, to) in turns(&PEERS, round)? {
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
