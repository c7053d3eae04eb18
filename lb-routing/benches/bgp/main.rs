//! The speaker beside BIRD, FRR and GoBGP in the same run: full tables of real prefixes, and hundreds of neighbours.
//!
//! ```text
//!  feeder ─┐                      ┌─ sink
//!  feeder ─┼─▶ peer under test ───┼─ sink      (every end is an external neighbour of its own)
//!  feeder ─┘                      └─ sink
//! ```
//!
//! The ends are light and the same for every peer; what they cost by themselves is the floor. The peers take turns within a
//! round. Nobody has a FIB: BIRD runs without the kernel protocol, FRR without zebra, this router without forwarding.

mod fib;
mod light;
mod network;
mod peer;
#[path = "../../../lb-dataplane/benches/fib/report.rs"]
mod report;
mod scenes;
mod serve;
mod table;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use self::network::Network;
use self::peer::{Kind, Layout};
use self::report::{Report, Series};
use self::scenes::{Bench, Figures};

const PREFIXES: usize = 1_000_000;
const ROUNDS: usize = 5;
const PEERS: [Kind; 3] = [Kind::Lbd, Kind::Bird, Kind::Frr];
/// How long updates go on and on.
const STEADY: Duration = Duration::from_secs(60);

struct Options {
    prefixes: usize,
    rounds: usize,
    quick: bool,
    /// One scene alone.
    only: Option<String>,
    /// The daemon with its FIB, and nobody else.
    fib: bool,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut options =
        Options { prefixes: PREFIXES, rounds: ROUNDS, quick: false, only: None, fib: false };
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let mut number = || -> Result<usize> {
            Ok(words.next().with_context(|| format!("{word} needs a number"))?.parse()?)
        };
        match word {
            // `cargo test --benches` and `cargo bench -- --list` only ask whether it is there.
            "--list" | "--test" => return Ok(()),
            "--bench" => {}
            "--serve" => {
                let mut next = || Ok::<_, anyhow::Error>(u16::try_from(number()?)?);
                let layout = [next()?, next()?, next()?, next()?, next()?];
                return serve::run(&Layout::from_arguments(layout));
            }
            "--prefixes" => options.prefixes = number()?,
            "--rounds" => options.rounds = number()?,
            "--quick" => (options.rounds, options.quick) = (1, true),
            "--fib" => options.fib = true,
            "--only" => options.only = words.next().map(str::to_owned),
            _ => bail!(
                "unknown argument {word}; there are --prefixes N, --rounds N, --fib (the daemon LBD_BIN with its FIB, and nobody else), --quick (one round, without FRR and GoBGP) \
                 and --only SCENE (table, sinks, feeders, ipv6, many, idle, bounce, steady or gobgp)"
            ),
        }
    }
    ensure!(options.rounds > 0, "--rounds is at least 1");
    bench(&options)
}

fn bench(options: &Options) -> Result<()> {
    if options.fib {
        let network = Network::new()?;
        let (table, prefixes) = scenes::full_table(options.prefixes)?;
        return fib::run(&network, &table, prefixes, options.rounds);
    }
    let bench = Bench::new(Network::new()?, options.prefixes)?;
    let kinds: Vec<_> =
        PEERS.into_iter().filter(|kind| !options.quick || *kind != Kind::Frr).collect();
    let wanted = |scene: &str| options.only.as_deref().is_none_or(|only| only == scene);
    let mut floor = Series::default();
    let mut all: Vec<Figures> = kinds.iter().map(|_| Figures::default()).collect();
    // What is missing of others is told and left out; of ours it is an error, once all that was measured is written.
    let mut complete = true;
    for round in 1..=options.rounds {
        floor.push(bench.floor()?);
        for (kind, figures) in kinds.iter().zip(&mut all) {
            say(&format!("{}, round {round} of {}", kind.name(), options.rounds));
            let failed = bench.round(*kind, figures, wanted);
            complete &= !(failed && *kind == Kind::Lbd);
        }
    }
    let mut report = Report::new("bgp");
    compare(&kinds, &all, &mut report);
    bounds(&kinds, &all, &mut report);
    report.note("the floor: feeder to sink directly", "s", floor.median());
    if wanted("steady") {
        say("updates without end");
        let time = if options.quick { STEADY / 6 } else { STEADY };
        if let Err(error) = steady(&bench, time, &mut report) {
            eprintln!("steady could not be measured: {error:#}");
            complete = false;
        }
    }
    if !options.quick && wanted("gobgp") {
        gobgp(&bench, &mut report);
    }
    report.write()?;
    ensure!(complete, "some of it could not be measured of this speaker: see above");
    Ok(())
}

/// Once, and for two minutes at most.
fn gobgp(bench: &Bench, report: &mut Report) {
    say("GoBGP, once");
    match bench.once(Kind::GoBgp) {
        Ok(seconds) => report.note("P1 a table to 1 sink: GoBGP, once", "s", seconds),
        Err(error) => {
            eprintln!("GoBGP: {error:#}");
            report.note("P1 a table to 1 sink: GoBGP, given up after", "s", 120.0);
        }
    }
}

/// What is measured as a ratio to a peer: its name, what it is, and the target.
const COMPARED: [(&str, &str, f64); 9] = [
    ("P1", "P1 a table to 1 sink", 0.7),
    ("P2", "P2 a table to 10 sinks", 0.33),
    ("P5", "P5 preferred feeder lost", 0.3),
    ("P6", "P6 only feeder lost", 1.0),
    ("P7", "P7 1,000 routes to 200 sinks", 0.35),
    ("IPv6", "IPv6: a table to 1 sink", 0.7),
    ("IPv6 lost", "IPv6: only feeder lost", 1.0),
    ("churn", "every attribute set changes, 1 sink", 0.7),
    ("withdrawal", "every prefix is withdrawn, 1 sink", 1.0),
];

fn compare(kinds: &[Kind], all: &[Figures], report: &mut Report) {
    let ours = &all[0].0;
    for (name, what, target) in COMPARED {
        for (kind, peer) in kinds.iter().zip(all).skip(1) {
            if let (Some(ours), Some(theirs)) = (ours.get(name), peer.0.get(name)) {
                report.ratio((what, kind.name()), "s", ours, theirs, target);
            }
        }
    }
}

/// What has a bound of its own: its name, what it is, its unit and the bound.
const BOUNDED: [(&str, &str, &str, f64); 4] = [
    ("P3", "P3 memory per prefix, 1 feeder", "B", 90.0),
    ("P4", "P4 memory per prefix, 4 feeders", "B", 200.0),
    ("P8", "P8 500 idle neighbours, of a core", "%", 3.0),
    ("P10", "P10 500 neighbours with 3 routes bounce", "s", 5.0),
];

fn bounds(kinds: &[Kind], all: &[Figures], report: &mut Report) {
    for (name, what, unit, limit) in BOUNDED {
        for (kind, figures) in kinds.iter().zip(all) {
            let Some(series) = figures.0.get(name) else { continue };
            if *kind == Kind::Lbd {
                bounded(what, unit, series, limit, report);
            } else {
                report.note(&format!("{what}: {}", kind.name()), unit, series.median());
            }
        }
    }
    for (kind, figures) in kinds.iter().zip(all) {
        for (name, what) in [("CPU", "CPU of"), ("ends' CPU", "CPU of the ends beside")] {
            if let Some(series) = figures.0.get(name) {
                let what = format!("{what} {}, a table to 1 sink", kind.name());
                report.note(&what, "s", series.median());
            }
        }
    }
}

fn bounded(what: &str, unit: &str, series: &Series, limit: f64, report: &mut Report) {
    let bound = Series(series.0.iter().map(|_| limit).collect());
    report.ratio((what, "the bound"), unit, series, &bound, 1.0);
}

fn steady(bench: &Bench, time: Duration, report: &mut Report) -> Result<()> {
    let ours = bench.steady(Kind::Lbd, time)?;
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let propagation = Series(vec![millis(ours.propagation)]);
    let what = "P9 10,000 updates/s: propagation, 99 %";
    bounded(what, "ms", &propagation, 20.0, report);
    // A third of the hold time, and the machine's own delays.
    let keepalives = Series(vec![ours.keepalives.as_secs_f64()]);
    bounded("P9 longest time between keepalives", "s", &keepalives, 3.1, report);
    report.note("P9 the slowest update", "ms", millis(ours.slowest));
    report.note("P9 updates told one by one, the rest merged with newer ones", "%", ours.heard);
    // A peer that does not get through it is no reason to lose the other figures.
    match bench.steady(Kind::Bird, time) {
        Ok(theirs) => {
            report.note("P9 propagation, 99 %: BIRD", "ms", millis(theirs.propagation));
            let keepalives = theirs.keepalives.as_secs_f64();
            report.note("P9 longest time between keepalives: BIRD", "s", keepalives);
            report.note("P9 updates told one by one: BIRD", "%", theirs.heard);
        }
        Err(error) => eprintln!("P9 could not be measured of BIRD: {error:#}"),
    }
    Ok(())
}

fn say(what: &str) {
    eprintln!("==> {what}");
}
