//! A full table through the speaker, beside BIRD and FRR in the same run.
//!
//! ```text
//!  feeder ─┐                      ┌─ sink
//!  feeder ─┼─▶ peer under test ───┼─ sink      (every end is an external neighbour of its own)
//!  feeder ─┘                      └─ sink
//! ```
//!
//! The ends are light and the same for every peer; what they cost by themselves is the floor. The peers take turns within a
//! round. Nobody has a FIB: BIRD runs without the kernel protocol, FRR without zebra, this router without forwarding.

mod light;
mod network;
mod peer;
#[path = "../../../lb-dataplane/benches/fib/report.rs"]
mod report;
mod serve;
mod table;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use self::light::{Heard, Session};
use self::network::{Network, PEER, end};
use self::peer::{Kind, Peer, asn_of};
use self::report::{Report, Series};
use self::table::Table;

const PREFIXES: usize = 1_000_000;
const ROUNDS: usize = 5;
/// Feeders of P4 and P5; sinks of P2.
const FEEDERS: u8 = 4;
const SINKS: u8 = 10;
const PEERS: [Kind; 3] = [Kind::Lbd, Kind::Bird, Kind::Frr];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut options = Options { prefixes: PREFIXES, rounds: ROUNDS, frr: true };
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let mut number = || -> Result<usize> {
            Ok(words.next().with_context(|| format!("{word} needs a number"))?.parse()?)
        };
        match word {
            // `cargo test --benches` and `cargo bench -- --list` only ask whether it is there.
            "--list" | "--test" => return Ok(()),
            "--bench" => {}
            "--serve" => return serve::run(u8::try_from(number()?)?, u8::try_from(number()?)?),
            "--prefixes" => options.prefixes = number()?,
            "--rounds" => options.rounds = number()?,
            "--without-frr" => options.frr = false,
            _ => {
                bail!("unknown argument {word}; there are --prefixes N, --rounds N, --without-frr")
            }
        }
    }
    ensure!(options.rounds > 0, "--rounds is at least 1");
    bench(&options)
}

struct Options {
    prefixes: usize,
    rounds: usize,
    frr: bool,
}

fn bench(options: &Options) -> Result<()> {
    let table = Table::read(options.prefixes)?;
    let network = Network::new()?;
    let (prefixes, sets) = (table.prefixes(), table.attribute_sets());
    say(&format!("{prefixes} prefixes with {sets} attribute sets"));
    // Feeder 1 has the shortest paths.
    let updates: Vec<_> = (1..=FEEDERS)
        .map(|number| {
            let next_hop = Ipv4Addr::new(10, 99, 2, number);
            table.updates(asn_of(number), next_hop, usize::from(number > 1))
        })
        .collect();
    let bench = Bench { network, updates, prefixes: prefixes as u64 };
    let kinds: Vec<_> =
        PEERS.into_iter().filter(|kind| options.frr || *kind != Kind::Frr).collect();
    let mut floor = Series::default();
    let mut all: Vec<Figures> = kinds.iter().map(|_| Figures::default()).collect();
    for round in 1..=options.rounds {
        floor.push(bench.floor()?);
        for (kind, figures) in kinds.iter().zip(&mut all) {
            say(&format!("{}, round {round} of {}", kind.name(), options.rounds));
            bench.one_feeder(*kind, figures).with_context(|| kind.name())?;
            bench.ten_sinks(*kind, figures).with_context(|| kind.name())?;
            bench.four_feeders(*kind, figures).with_context(|| kind.name())?;
        }
    }
    write(options.rounds, &floor, &kinds, &all)
}

/// One peer's figures, one a round.
#[derive(Default)]
struct Figures {
    one_sink: Series,
    ten_sinks: Series,
    bytes: Series,
    bytes_of_four: Series,
    preferred_lost: Series,
    only_lost: Series,
    peer_cpu: Series,
    ends_cpu: Series,
}

struct Bench {
    network: Network,
    /// What each feeder sends.
    updates: Vec<Vec<u8>>,
    prefixes: u64,
}

impl Bench {
    /// Feeder to sink without a peer between them.
    fn floor(&self) -> Result<f64> {
        let listener = TcpListener::bind((end(1), 0))?;
        let to = listener.local_addr()?;
        let accepting = thread::spawn(move || -> Result<Arc<Heard>> {
            let (stream, _) = listener.accept()?;
            Ok(light::sink(Session::greet(stream, end(1), asn_of(1))?))
        });
        let mut feeder = Session::greet(TcpStream::connect(to)?, end(2), asn_of(2))?;
        let heard = accepting.join().ok().context("the sink panicked")??;
        let start = Instant::now();
        feeder.feed(&self.updates[0])?;
        while heard.announced() < self.prefixes {
            ensure!(start.elapsed().as_secs() < 60, "the floor takes more than a minute");
            thread::yield_now();
        }
        Ok(start.elapsed().as_secs_f64())
    }

    fn one_feeder(&self, kind: Kind, figures: &mut Figures) -> Result<()> {
        let mut scene = self.scene(kind, 1, 1)?;
        let (resident, peer_cpu, ends_cpu) =
            (scene.peer.resident()?, scene.peer.cpu()?, peer::cpu("self")?);
        figures.one_sink.push(self.feed(&mut scene)?);
        figures.peer_cpu.push(scene.peer.cpu()? - peer_cpu);
        figures.ends_cpu.push(peer::cpu("self")? - ends_cpu);
        scene.peer.settle()?;
        figures.bytes.push((scene.peer.resident()? - resident) / self.prefixes as f64);
        scene.lose_first()?;
        let Scene { peer, heard, .. } = &mut scene;
        let gone = || heard.iter().all(|heard| heard.withdrawn() >= self.prefixes);
        figures.only_lost.push(peer.until("every prefix is withdrawn", gone)?);
        Ok(())
    }

    fn ten_sinks(&self, kind: Kind, figures: &mut Figures) -> Result<()> {
        let mut scene = self.scene(kind, 1, SINKS)?;
        figures.ten_sinks.push(self.feed(&mut scene)?);
        Ok(())
    }

    fn four_feeders(&self, kind: Kind, figures: &mut Figures) -> Result<()> {
        let mut scene = self.scene(kind, FEEDERS, 1)?;
        let resident = scene.peer.resident()?;
        self.feed(&mut scene)?;
        for (feeder, updates) in scene.feeders.iter_mut().zip(&self.updates).skip(1) {
            feeder.feed(updates)?;
            scene.peer.settle()?;
        }
        figures.bytes_of_four.push((scene.peer.resident()? - resident) / self.prefixes as f64);
        let before: Vec<u64> = scene.heard.iter().map(|heard| heard.announced()).collect();
        scene.lose_first()?;
        let Scene { peer, heard, .. } = &mut scene;
        let changed = || {
            heard
                .iter()
                .zip(&before)
                .all(|(heard, &before)| heard.announced() >= before + self.prefixes)
        };
        figures.preferred_lost.push(peer.until("every prefix has its next best path", changed)?);
        Ok(())
    }

    /// Everything established, nothing sent.
    fn scene(&self, kind: Kind, feeders: u8, sinks: u8) -> Result<Scene> {
        let mut peer = Peer::start(kind, &self.network, feeders, sinks)?;
        let to = SocketAddr::new(PEER.into(), 179);
        let open = |number| Session::open(end(number), asn_of(number), to);
        let heard = (feeders + 1..=feeders + sinks).map(|number| Ok(light::sink(open(number)?)));
        let heard = heard.collect::<Result<_>>()?;
        let feeders = (1..=feeders).map(open).collect::<Result<_>>()?;
        peer.settle()?;
        Ok(Scene { peer, feeders, heard })
    }

    /// From the first byte of the first feeder to the last prefix at the last sink.
    fn feed(&self, scene: &mut Scene) -> Result<f64> {
        let start = Instant::now();
        scene.feeders[0].feed(&self.updates[0])?;
        let Scene { peer, heard, .. } = scene;
        let all = || heard.iter().all(|heard| heard.announced() >= self.prefixes);
        peer.until("every prefix is announced", all)?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// A peer between its ends.
struct Scene {
    peer: Peer,
    feeders: Vec<Session>,
    heard: Vec<Arc<Heard>>,
}

impl Scene {
    fn lose_first(&mut self) -> Result<()> {
        self.feeders.remove(0).lose()
    }
}

fn write(rounds: usize, floor: &Series, kinds: &[Kind], all: &[Figures]) -> Result<()> {
    let mut report = Report::new("bgp");
    let lbd = &all[0];
    for (kind, peer) in kinds.iter().zip(all).skip(1) {
        let name = kind.name();
        report.ratio(("P1 a table to 1 sink", name), "s", &lbd.one_sink, &peer.one_sink, 0.7);
        report.ratio(("P2 a table to 10 sinks", name), "s", &lbd.ten_sinks, &peer.ten_sinks, 0.33);
        let (ours, theirs) = (&lbd.preferred_lost, &peer.preferred_lost);
        report.ratio(("P5 preferred feeder lost", name), "s", ours, theirs, 0.3);
        report.ratio(("P6 only feeder lost", name), "s", &lbd.only_lost, &peer.only_lost, 1.0);
    }
    for (kind, peer) in kinds.iter().zip(all) {
        let name = kind.name();
        for (what, limit, value) in [
            ("P3 memory per prefix, 1 feeder", 90.0, &peer.bytes),
            ("P4 memory per prefix, 4 feeders", 200.0, &peer.bytes_of_four),
        ] {
            if *kind == Kind::Lbd {
                let mut bound = Series::default();
                (0..rounds).for_each(|_| bound.push(limit));
                report.ratio((what, "the bound"), "B", value, &bound, 1.0);
            } else {
                report.note(&format!("{what}: {name}"), "B", value.median());
            }
        }
        report.note(&format!("CPU of {name}, a table to 1 sink"), "s", peer.peer_cpu.median());
        report.note(&format!("CPU of the ends beside {name}"), "s", peer.ends_cpu.median());
    }
    report.note("the floor: feeder to sink directly", "s", floor.median());
    report.write()
}

fn say(what: &str) {
    eprintln!("==> {what}");
}
