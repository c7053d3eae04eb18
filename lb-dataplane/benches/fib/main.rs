//! The FIB with a million IPv4 and 250,000 IPv6 routes, in the kernel, beside `LPM_TRIE` and the kernel's own lookup with the same routes.
//!
//! Every lookup goes from a random destination to the interface and both MACs, and every answer is compared with a naive
//! reference. What the loop around a lookup costs is measured by a program that does nothing in it, in the same round, and
//! taken off. Peers take turns within a round, so that a change of the machine's speed meets all of them.

mod network;
mod programs;
mod report;
mod routes;
mod six;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use self::network::Network;
use self::programs::Programs;
use self::report::{Report, Series};
use self::routes::Routes;

const ROUTES: usize = 1_000_000;
const FEW_ROUTES: usize = 10;
/// Rounds of lookups; the median counts.
const ROUNDS: usize = 11;
/// Rounds of filling; `LPM_TRIE` takes seconds for each.
const FILL_ROUNDS: usize = 5;

fn main() -> Result<()> {
    // `cargo test --benches` and `cargo bench -- --list` only ask whether it is there.
    if std::env::args().any(|argument| argument == "--list" || argument == "--test") {
        return Ok(());
    }
    let network = Network::new().context("cannot make the network namespace")?;
    let mut report = Report::new("fib");
    if !std::env::args().any(|argument| argument == "--six") {
        measure4(&network, &mut report)?;
    }
    six::measure(&network, &mut report)?;
    report.write()
}

fn measure4(network: &Network, report: &mut Report) -> Result<()> {
    say("making a million random routes and 65,536 random destinations, with a naive reference");
    let many = Routes::random(ROUTES, 1);
    let few = many.first(FEW_ROUTES);

    let (mut fib_fill, mut trie_fill) = (Series::default(), Series::default());
    let mut loaded = None;
    for round in 1..=FILL_ROUNDS {
        say(&format!("filling, round {round} of {FILL_ROUNDS}"));
        drop(loaded.take());
        let mut programs = Programs::load(network)?;
        fib_fill.push(seconds(|| programs.fill_fib(&many))?);
        trie_fill.push(seconds(|| programs.fill_trie(&many))?);
        loaded = Some(programs);
    }
    let mut many_programs = loaded.context("there is a round")?;
    let mut few_programs = Programs::load(network)?;
    few_programs.fill_fib(&few)?;
    say("filling the kernel's own table by netlink (a minute or so)");
    let kernel_fill = seconds(|| network.fill(&many))?;

    let mut costs = Costs::default();
    for round in 1..=ROUNDS {
        say(&format!("looking up, round {round} of {ROUNDS}"));
        costs.round(&mut many_programs, &mut few_programs, &many, &few)?;
    }

    let [dir, trie, kernel, hot_many, hot_few] =
        [&costs.dir, &costs.trie, &costs.kernel, &costs.hot_many, &costs.hot_few];
    let lookup = "F1 lookup, 1 M routes, random";
    report.ratio((lookup, "bpf_fib_lookup"), "ns", dir, kernel, 1.0 / 4.0);
    report.ratio((lookup, "LPM_TRIE"), "ns", dir, trie, 1.0 / 6.0);
    report.ratio(("F3 filling 1 M routes", "LPM_TRIE"), "s", &fib_fill, &trie_fill, 1.0 / 12.0);
    let hot = "F4 lookup, 1 M routes, hot";
    report.ratio((hot, "10 routes, hot"), "ns", hot_many, hot_few, 1.2);
    report.note("the loop without a lookup", "ns", costs.empty.median());
    report.note("filling the kernel's table by netlink (ip -batch)", "s", kernel_fill);
    report.note("LPM_TRIE, hot destination, 1 M routes", "ns", costs.hot_trie.median());
    report.note("bpf_fib_lookup, hot destination, 1 M routes", "ns", costs.hot_kernel.median());
    Ok(())
}

/// Nanoseconds per lookup, the loop taken off.
#[derive(Default)]
struct Costs {
    empty: Series,
    dir: Series,
    trie: Series,
    kernel: Series,
    hot_many: Series,
    hot_few: Series,
    hot_trie: Series,
    hot_kernel: Series,
}

impl Costs {
    fn round(
        &mut self,
        many_programs: &mut Programs,
        few_programs: &mut Programs,
        many: &Routes,
        few: &Routes,
    ) -> Result<()> {
        many_programs.aim(&many.probes);
        let empty = many_programs.run("empty")?;
        self.empty.push(empty);
        self.dir.push(many_programs.run("dir")? - empty);
        self.trie.push(many_programs.run("trie")? - empty);
        self.kernel.push(many_programs.run("kernel")? - empty);

        let hot = vec![few.probes[0]; many.probes.len()];
        many_programs.aim(&hot);
        few_programs.aim(&hot);
        let empty = many_programs.run("empty")?;
        // In turn, and the least of four: a few nanoseconds stand against the noise of the machine.
        let (mut of_many, mut of_few) = (f64::MAX, f64::MAX);
        for _ in 0..4 {
            of_many = of_many.min(many_programs.run("dir")? - empty);
            of_few = of_few.min(few_programs.run("dir")? - empty);
        }
        ensure!(
            of_few > 0.0,
            "the hot lookup costs nothing beside its loop: the run is not usable"
        );
        self.hot_many.push(of_many);
        self.hot_few.push(of_few);
        self.hot_trie.push(many_programs.run("trie")? - empty);
        self.hot_kernel.push(many_programs.run("kernel")? - empty);
        Ok(())
    }
}

fn seconds(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    let elapsed: Duration = start.elapsed();
    Ok(elapsed.as_secs_f64())
}

fn say(what: &str) {
    eprintln!("==> {what}");
}
