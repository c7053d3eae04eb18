//! Traffic from a client through a balancer to a server, all on this machine: lbd beside plain routing, nftables' DNAT and
//! HAProxy (targets T1 to T4).
//!
//! Everybody has interfaces of his own between the same client and the same server, and takes turns with the others within
//! a round. What lbd's kernel forwarded is counted, so that nothing is measured but its fast path.

mod load;
mod more;
#[path = "../../../lb-dataplane/benches/fib/report.rs"]
mod report;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration::lab::{Lab, Options};
use integration::netns::Netns;
use integration::wait::eventually;
use integration::{demo, traffic};
use lb_api_types::config::Hook;
use lb_api_types::vip::Vip;

use self::report::{Report, Series};

/// Rounds; the median counts.
const ROUNDS: usize = 7;
/// How long one of them measures one thing of one peer.
const TURN: Duration = Duration::from_secs(1);
const READY_WITHIN: Duration = Duration::from_secs(40);
const PORT: u16 = 7000;
/// Packets that lbd's kernel may forward: what comes before the neighbours' MACs are known.
const FEW: u64 = 1000;

const LBD: &str = "lbd";
const ROUTED: &str = "plain routing";
const NFTABLES: &str = "nftables DNAT";
const HAPROXY: &str = "HAProxy TCP";
/// Where the client finds each of them.
const PEERS: [(&str, &str); 4] = [
    (LBD, "203.0.113.1"),
    (ROUTED, "10.2.2.2"),
    (NFTABLES, "203.0.113.3"),
    (HAPROXY, "203.0.113.4"),
];

fn main() -> Result<()> {
    // `cargo test --benches` and `cargo bench -- --list` only ask whether it is there.
    if std::env::args().any(|argument| argument == "--list" || argument == "--test") {
        return Ok(());
    }
    let hook =
        if std::env::args().any(|argument| argument == "xdp") { Hook::Xdp } else { Hook::Tc };
    say("bringing up a client, a server, and lbd, a router, nftables and HAProxy between them");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/traffic/network");
    let topology = folder.join("traffic.clab.yml");
    let mut options = Options::of(&topology.to_string_lossy(), None, None)?;
    options.hook = hook;
    let lab = Lab::up(&options)?;
    load::serve(lab.netns("server")?, PORT)?;
    let text = std::fs::read_to_string(folder.join("web.yaml"))?;
    let vip: Vip = serde_norway::from_str(&text).context("web.yaml")?;
    lab.api().put_vip(&vip)?;
    demo::all_healthy(&lab.api(), &vip)?;

    let client = lab.netns("client")?;
    for (name, at) in PEERS {
        let to = address(at)?;
        eventually(&format!("{name} carries a stream"), READY_WITHIN, || {
            load::stream(client, to, Duration::from_millis(10))
        })?;
    }
    let before = traffic::forwarded_by_kernel(lab.netns("lbd")?)?;
    let mut seen = Seen::default();
    for round in 1..=ROUNDS {
        say(&format!("round {round} of {ROUNDS}"));
        seen.round(client, round)?;
    }
    say("without segmentation offload");
    offload(&lab, "off")?;
    for round in 1..=ROUNDS {
        seen.small_packets(client, round)?;
    }
    let slow = traffic::forwarded_by_kernel(lab.netns("lbd")?)? - before;
    ensure!(slow < FEW, "lbd's kernel forwarded {slow} packets: the fast path was not measured");

    let mut report = Report::new(if hook == Hook::Xdp { "traffic-xdp" } else { "traffic" });
    seen.tell(&mut report);
    println!("\nlbd on {hook:?}; client, server and all peers on the same cores");
    report.write()
}

fn address(host: &str) -> Result<SocketAddr> {
    Ok(SocketAddr::new(host.parse()?, PORT))
}

/// Segmentation offload of every interface: without it, each packet of a stream goes through alone.
fn offload(lab: &Lab, to: &str) -> Result<()> {
    for (node, interfaces) in
        [("client", 4), ("server", 4), ("lbd", 2), ("router", 2), ("nftables", 2), ("haproxy", 2)]
    {
        for number in 1..=interfaces {
            lab.run(node, &format!("ethtool -K eth{number} tso {to} gso {to}"))?;
        }
    }
    Ok(())
}

/// A figure of each peer, by its name.
type Figures = BTreeMap<&'static str, Series>;

/// What was seen of all of them.
#[derive(Default)]
struct Seen {
    stream: Figures,
    small: Figures,
    new: Figures,
    kept: Figures,
    latency: Figures,
}

impl Seen {
    fn round(&mut self, client: &Netns, round: usize) -> Result<()> {
        for (name, to) in turns(round)? {
            let gbits = load::stream(client, to, TURN).context(name)?;
            self.stream.entry(name).or_default().push(gbits);
        }
        for (name, to) in turns(round)? {
            let new = load::new_connections(client, to, TURN).context(name)?;
            self.new.entry(name).or_default().push(new.per_second / 1e3);
        }
        for (name, to) in turns(round)? {
            let kept = load::kept_connections(client, to, TURN).context(name)?;
            self.kept.entry(name).or_default().push(kept.per_second / 1e3);
            self.latency.entry(name).or_default().push(kept.p99);
        }
        Ok(())
    }

    fn small_packets(&mut self, client: &Netns, round: usize) -> Result<()> {
        for (name, to) in turns(round)? {
            let gbits = load::stream(client, to, TURN).context(name)?;
            self.small.entry(name).or_default().push(gbits);
        }
        Ok(())
    }

    fn tell(&self, report: &mut Report) {
        for (name, unit, figures, targets) in [
            ("T1 one stream, GSO", "Gbit/s", &self.stream, [(ROUTED, 0.95), (NFTABLES, 1.0)]),
            ("T3 new connections", "k/s", &self.new, [(NFTABLES, 1.2), (HAPROXY, 1.5)]),
            ("T4 kept connections", "k/s", &self.kept, [(NFTABLES, 1.0), (HAPROXY, 1.6)]),
        ] {
            for (against, target) in targets {
                report.at_least((name, against), unit, &figures[LBD], &figures[against], target);
            }
        }
        let name = "T2 one stream, no GSO";
        let small = &self.small;
        report.at_least((name, NFTABLES), "Gbit/s", &small[LBD], &small[NFTABLES], 1.1);
        let (name, latency) = ("T4 kept connections, p99", &self.latency);
        report.ratio((name, NFTABLES), "us", &latency[LBD], &latency[NFTABLES], 1.0);
        for (what, unit, figures) in [
            ("one stream, GSO", "Gbit/s", &self.stream),
            ("one stream, no GSO", "Gbit/s", &self.small),
            ("new connections", "k/s", &self.new),
            ("kept connections", "k/s", &self.kept),
            ("kept connections, p99", "us", &self.latency),
        ] {
            for (peer, _) in PEERS {
                report.note(&format!("{what}, {peer}"), unit, figures[peer].median());
            }
        }
    }
}

/// The peers in the order of a round: each is the first one in its turn.
fn turns(round: usize) -> Result<Vec<(&'static str, SocketAddr)>> {
    let mut peers = PEERS;
    peers.rotate_left(round % PEERS.len());
    peers.into_iter().map(|(name, at)| Ok((name, address(at)?))).collect()
}

fn say(what: &str) {
    eprintln!("==> {what}");
}
