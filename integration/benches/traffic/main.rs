//! Traffic from a client through a balancer to a server, all on this machine: lbd beside plain routing, nftables' DNAT and
//! HAProxy (targets T1 to T4), and beside itself with `redirect_to_peer`.
//!
//! Everybody has interfaces of his own between the same client and the same server, and takes turns with the others within
//! a round. What lbd's kernel forwarded is counted, so that nothing is measured but its fast path.

mod bed;
mod load;
mod more;
#[path = "../../../lb-dataplane/benches/fib/report.rs"]
mod report;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use integration::api::Api;
use integration::demo;
use integration::lab::Lab;
use integration::netns::Netns;
use lb_api_types::config::Hook;
use lb_api_types::vip::Vip;

use self::bed::{Peer, ROUNDS, TURN, on_the_fast_path, say, turns};
use self::report::{Report, Series};

const LBD: &str = "lbd";
const TO_PEERS: &str = "lbd to peers";
const ROUTED: &str = "plain routing";
const NFTABLES: &str = "nftables DNAT";
const HAPROXY: &str = "HAProxy TCP";
/// Where the client finds each of them.
const PEERS: [Peer; 5] = [
    (LBD, "203.0.113.1"),
    (TO_PEERS, "203.0.113.5"),
    (ROUTED, "10.2.2.2"),
    (NFTABLES, "203.0.113.3"),
    (HAPROXY, "203.0.113.4"),
];

/// The nodes that they are, each between the client and the server.
const BETWEEN: [&str; PEERS.len()] = ["lbd", "peers", "router", "nftables", "haproxy"];

/// What can be measured alone.
const PARTS: [&str; 4] = ["stream", "new", "kept", "small"];

fn main() -> Result<()> {
    // `cargo test --benches` and `cargo bench -- --list` only ask whether it is there.
    if std::env::args().any(|argument| argument == "--list" || argument == "--test") {
        return Ok(());
    }
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    words.retain(|word| !word.starts_with("--"));
    let hook = if words.iter().any(|word| word == "xdp") { Hook::Xdp } else { Hook::Tc };
    words.retain(|word| word != "xdp");
    let unknown = words.iter().find(|word| !PARTS.contains(&word.as_str()));
    ensure!(unknown.is_none(), "there is no part {unknown:?}: name some of {PARTS:?}");
    let wanted = |part: &str| words.is_empty() || words.iter().any(|word| word == part);
    say("bringing up a client, a server, and lbd, a router, nftables and HAProxy between them");
    let lab = bed::up("traffic", hook)?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/traffic/network");
    let text = std::fs::read_to_string(folder.join("web.yaml"))?;
    let mut vip: Vip = serde_norway::from_str(&text).context("web.yaml")?;
    serve(&lab.api(), &vip)?;
    vip.spec.address = PEERS[1].1.parse()?;
    vip.spec.backends[0].address = "10.2.5.2".parse()?;
    serve(&Api::new(lab.folder().join("peers/lbd.sock")), &vip)?;

    bed::ready(&lab, &PEERS)?;
    let client = lab.netns("client")?;
    let mut seen = Seen::default();
    on_the_fast_path(&lab, &BETWEEN[..2], || {
        for round in 1..=ROUNDS {
            say(&format!("round {round} of {ROUNDS}"));
            seen.round(client, round, wanted)?;
        }
        if !wanted("small") {
            return Ok(());
        }
        say("without segmentation offload");
        offload(&lab, "off")?;
        (1..=ROUNDS).try_for_each(|round| seen.small_packets(client, round))
    })?;

    let mut report = Report::new(if hook == Hook::Xdp { "traffic-xdp" } else { "traffic" });
    seen.tell(&mut report);
    println!("\nlbd on {hook:?}; client, server and all peers on the same cores");
    report.write()
}

fn serve(api: &Api, vip: &Vip) -> Result<()> {
    api.put_vip(vip)?;
    demo::all_healthy(api, vip)
}

/// Segmentation offload of every interface: without it, each packet of a stream goes through alone.
fn offload(lab: &Lab, to: &str) -> Result<()> {
    for (node, interfaces) in [("client", PEERS.len()), ("server", PEERS.len())]
        .into_iter()
        .chain(BETWEEN.map(|node| (node, 2)))
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
    fn round(&mut self, client: &Netns, round: usize, wanted: impl Fn(&str) -> bool) -> Result<()> {
        let turns = turns(&PEERS, round)?;
        let of = |part| turns.iter().copied().filter(move |_| part);
        for (_, name, to) in of(wanted("stream")) {
            let gbits = load::stream(client, to, TURN).context(name)?;
            self.stream.entry(name).or_default().push(gbits);
        }
        for (_, name, to) in of(wanted("new")) {
            let new = load::new_connections(client, to, TURN).context(name)?;
            self.new.entry(name).or_default().push(new.per_second / 1e3);
        }
        for (_, name, to) in of(wanted("kept")) {
            let kept = load::kept_connections(client, to, TURN).context(name)?;
            self.kept.entry(name).or_default().push(kept.per_second / 1e3);
            self.latency.entry(name).or_default().push(kept.p99);
        }
        Ok(())
    }

    fn small_packets(&mut self, client: &Netns, round: usize) -> Result<()> {
        for (_, name, to) in turns(&PEERS, round)? {
            let gbits = load::stream(client, to, TURN).context(name)?;
            self.small.entry(name).or_default().push(gbits);
        }
        Ok(())
    }

    fn tell(&self, report: &mut Report) {
        for (name, unit, figures, targets) in [
            ("T1 one stream, GSO", "Gbit/s", &self.stream, &[(ROUTED, 0.95), (NFTABLES, 1.0)][..]),
            ("T2 one stream, no GSO", "Gbit/s", &self.small, &[(NFTABLES, 1.1)]),
            ("T3 new connections", "k/s", &self.new, &[(NFTABLES, 1.2), (HAPROXY, 1.5)]),
            ("T4 kept connections", "k/s", &self.kept, &[(NFTABLES, 1.0), (HAPROXY, 1.6)]),
        ] {
            let Some(lbd) = figures.get(LBD) else { continue };
            for (against, target) in targets {
                report.at_least((name, against), unit, lbd, &figures[against], *target);
            }
            // The same as a setting makes it.
            let (to_peers, nftables) = (format!("{name}, to peers"), &figures[NFTABLES]);
            let target =
                targets.iter().find(|(against, _)| *against == NFTABLES).map_or(1.0, |it| it.1);
            report.at_least((&to_peers, NFTABLES), unit, &figures[TO_PEERS], nftables, target);
        }
        if let Some(lbd) = self.latency.get(LBD) {
            let nftables = &self.latency[NFTABLES];
            report.ratio(("T4 kept connections, p99", NFTABLES), "us", lbd, nftables, 1.0);
        }
        for (what, unit, figures) in [
            ("one stream, GSO", "Gbit/s", &self.stream),
            ("one stream, no GSO", "Gbit/s", &self.small),
            ("new connections", "k/s", &self.new),
            ("kept connections", "k/s", &self.kept),
            ("kept connections, p99", "us", &self.latency),
        ] {
            for (peer, figures) in
                PEERS.iter().filter_map(|(peer, _)| Some((peer, figures.get(peer)?)))
            {
                report.note(&format!("{what}, {peer}"), unit, figures.median());
            }
        }
    }
}
