//! IPv4: lookups with ten to a million routes, and filling (F1, F3, F4).

use anyhow::{Result, ensure};

use crate::network::Network;
use crate::programs::Programs;
use crate::report::{Report, Series};
use crate::routes::Routes;
use crate::{FEWER_ROUNDS, FILL_ROUNDS, ROUNDS, count, say, seconds};

const ROUTES: usize = 1_000_000;
const FEW_ROUTES: usize = 10;
/// Tables that grow into one another.
const SIZES: [usize; 4] = [FEW_ROUTES, 10_000, 100_000, ROUTES];
/// The FIB, then its peers.
const PEERS: [&str; 3] = ["dir", "trie", "kernel"];
const MIB: f64 = (1 << 20) as f64;

pub(crate) fn measure(network: &Network, report: &mut Report) -> Result<()> {
    say("making a million random routes and 65,536 random destinations, with a naive reference");
    let many = Routes::random(ROUTES, 1);
    let (mut fib_fill, mut trie_fill) = (Series::default(), Series::default());
    for round in 1..=FILL_ROUNDS {
        say(&format!("filling, round {round} of {FILL_ROUNDS}"));
        let mut programs = Programs::load(network)?;
        fib_fill.push(seconds(|| programs.fill_fib(&many.routes))?);
        trie_fill.push(seconds(|| programs.fill_trie(&many.routes))?);
    }

    let mut programs = Programs::load(network)?;
    let (mut filled, mut kernel_fill) = (0, 0.0);
    for size in SIZES {
        let name = count(size);
        say(&format!("{name} routes: filling, the kernel's own table by netlink too"));
        let new = &many.routes[filled..size];
        programs.fill_fib(new)?;
        programs.fill_trie(new)?;
        kernel_fill += seconds(|| network.fill(new))?;
        filled = size;
        report.note(
            &format!("second level of {name} routes"),
            "MiB",
            programs.fib.usage().chunk_bytes.0 as f64 / MIB,
        );
        if size < ROUTES {
            let costs = lookups(&mut programs, &many.prefix(size, 1), FEWER_ROUNDS)?;
            costs.note(report, &name);
        } else {
            let costs = lookups(&mut programs, &many, ROUNDS)?;
            costs.note(report, &name);
            let [dir, trie, kernel] = &costs.random;
            let lookup = "F1 lookup, 1 M routes, random";
            report.ratio((lookup, "bpf_fib_lookup"), "ns", dir, kernel, 1.0 / 4.0);
            report.ratio((lookup, "LPM_TRIE"), "ns", dir, trie, 1.0 / 6.0);
        }
    }
    report.ratio(("F3 filling 1 M routes", "LPM_TRIE"), "s", &fib_fill, &trie_fill, 1.0 / 12.0);
    let mut few_programs = Programs::load(network)?;
    hot(&mut programs, &mut few_programs, &many, report)?;
    report.note("filling the kernel's table by netlink (ip -batch)", "s", kernel_fill);
    Ok(())
}

/// Nanoseconds per lookup, the loop taken off.
#[derive(Default)]
struct Costs {
    random: [Series; 3],
    hot: [Series; 3],
}

impl Costs {
    fn note(&self, report: &mut Report, routes: &str) {
        for (kind, costs) in [("random", &self.random), ("hot", &self.hot)] {
            for (peer, series) in ["FIB", "LPM_TRIE", "bpf_fib_lookup"].iter().zip(costs) {
                let name = format!("{peer}, {routes} routes, {kind} destinations");
                report.note(&name, "ns", series.median());
            }
        }
    }
}

fn lookups(programs: &mut Programs, routes: &Routes, rounds: usize) -> Result<Costs> {
    let mut costs = Costs::default();
    let hot = vec![routes.probes[0]; routes.probes.len()];
    for round in 1..=rounds {
        say(&format!("looking up, round {round} of {rounds}"));
        for (probes, series) in [(&routes.probes, &mut costs.random), (&hot, &mut costs.hot)] {
            programs.aim(probes);
            let empty = programs.run("empty")?;
            for (name, series) in PEERS.iter().zip(series) {
                series.push(programs.run(name)? - empty);
            }
        }
    }
    Ok(costs)
}

/// F4: one destination, which both tables have.
fn hot(
    many_programs: &mut Programs,
    few_programs: &mut Programs,
    many: &Routes,
    report: &mut Report,
) -> Result<()> {
    let few = many.first(FEW_ROUTES);
    few_programs.fill_fib(&few.routes)?;
    let hot = vec![few.probes[0]; many.probes.len()];
    many_programs.aim(&hot);
    few_programs.aim(&hot);
    let (mut of_many, mut of_few, mut empties) = Default::default();
    for _ in 0..ROUNDS {
        let empty = many_programs.run("empty")?;
        // In turn, and the least of four: a few nanoseconds stand against the noise of the machine.
        let (mut least_many, mut least_few) = (f64::MAX, f64::MAX);
        for _ in 0..4 {
            least_many = least_many.min(many_programs.run("dir")? - empty);
            least_few = least_few.min(few_programs.run("dir")? - empty);
        }
        ensure!(
            least_few > 0.0,
            "the hot lookup costs nothing beside its loop: the run is not usable"
        );
        Series::push(&mut of_many, least_many);
        Series::push(&mut of_few, least_few);
        Series::push(&mut empties, empty);
    }
    let name = "F4 lookup, 1 M routes, hot";
    report.ratio((name, "10 routes, hot"), "ns", &of_many, &of_few, 1.2);
    report.note("the loop without a lookup", "ns", empties.median());
    Ok(())
}
