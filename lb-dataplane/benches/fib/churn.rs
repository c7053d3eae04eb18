//! F5: what a lookup costs while 100,000 changes a second are made, beside what it costs while none are.
//!
//! The changes leave every answer as it is, so that each lookup can still be held against the reference: a route moves to
//! another group with the same member and back, an address that is looked up gets a route of its own to the same next hop
//! and loses it, and a short prefix that longer ones cover comes and goes.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use lb_dataplane::fib::{Fib, FibUpdate};

use crate::network::Network;
use crate::programs::{ALIAS, Programs, run};
use crate::report::{Report, Series};
use crate::routes::{Random, Routes};
use crate::{ROUNDS, say, six};

const ROUTES: usize = 1_000_000;
const PER_SECOND: u32 = 100_000;
/// Changes that the writer is handed at once.
const BATCH: u32 = 200;
/// Passes over all destinations on one side of a pair.
const PASSES: usize = 10;

pub(crate) fn measure(network: &Network, report: &mut Report) -> Result<()> {
    say("a million IPv4 routes that change while they are looked up");
    let routes = Routes::random(ROUTES, 1);
    let mut programs = Programs::load(network)?;
    programs.fill_fib(&routes.routes)?;
    programs.fib.synced();
    programs.aim(&routes.probes);
    let v4 = |address: u32| IpAddr::from(Ipv4Addr::from(address));
    let changes = Changes {
        random: Random(3),
        routes: routes.routes.iter().map(|(n, len, hop)| (v4(*n), *len, *hop)).collect(),
        probes: routes.probes.iter().map(|(address, hop)| (v4(*address), *hop)).collect(),
        hosts: routes.routes.iter().filter(|r| r.1 == 32).map(|r| v4(r.0)).collect(),
        undo: Vec::new(),
    };
    let name = "F5 lookup, 100 k changes/s, 1 M routes";
    pairs(&mut programs, ["dir", "empty"], changes, (name, report))?;
    drop(programs);

    say("250,000 IPv6 routes that change while they are looked up");
    let routes = six::random_routes(six::ROUTES);
    let mut programs = Programs::load(network)?;
    six::fill_fib(&mut programs, &routes)?;
    programs.fib.synced();
    let probes = six::probes(&routes);
    six::aim(&mut programs, &probes)?;
    let v6 = |address: u128| IpAddr::from(Ipv6Addr::from_bits(address));
    let changes = Changes {
        random: Random(3),
        routes: routes.iter().map(|(n, len, hop)| (v6(*n), *len, *hop)).collect(),
        probes: probes.iter().map(|(address, hop)| (v6(*address), *hop)).collect(),
        hosts: HashSet::new(),
        undo: Vec::new(),
    };
    let name = "F5 IPv6 lookup, 100 k changes/s, 250 k routes";
    pairs(&mut programs, ["multibit6", "empty6"], changes, (name, report))
}

/// Lookups without and with changes, in turn.
fn pairs(
    programs: &mut Programs,
    [lookup, empty]: [&str; 2],
    mut changes: Changes,
    (name, report): (&str, &mut Report),
) -> Result<()> {
    let (mut quiet, mut busy, mut rate) = Default::default();
    for round in 1..=ROUNDS {
        say(&format!("pair {round} of {ROUNDS}"));
        let Programs { ebpf, fib, state, .. } = programs;
        let pass = || Ok(run(ebpf, state, lookup)? - run(ebpf, state, empty)?);
        Series::push(&mut quiet, passes(pass)?);
        let over = AtomicBool::new(false);
        let (cost, made) = thread::scope(|scope| {
            let writer = scope.spawn(|| changes.make(fib, &over));
            let cost = passes(pass);
            over.store(true, Ordering::Relaxed);
            let made = writer.join().map_err(|_| anyhow!("the writer panicked"))?;
            Ok::<_, anyhow::Error>((cost?, made?))
        })?;
        Series::push(&mut busy, cost);
        Series::push(&mut rate, made);
    }
    let made = rate.median();
    ensure!(
        made > f64::from(PER_SECOND) * 0.95,
        "only {made:.0} changes a second were made: the run is not usable"
    );
    report.ratio((name, "no changes"), "ns", &busy, &quiet, 1.15);
    report.note("changes a second, each lookup checked", "k/s", made / 1e3);
    Ok(())
}

fn passes(pass: impl Fn() -> Result<f64>) -> Result<f64> {
    let mut costs = Series::default();
    for _ in 0..PASSES {
        costs.push(pass()?);
    }
    Ok(costs.median())
}

/// Changes that leave every answer as it is.
struct Changes {
    random: Random,
    routes: Vec<(IpAddr, u8, u32)>,
    /// Destinations with the next hop that each is to find.
    probes: Vec<(IpAddr, u32)>,
    /// Those of the routes that are addresses.
    hosts: HashSet<IpAddr>,
    /// What takes the last changes back.
    undo: Vec<FibUpdate>,
}

impl Changes {
    /// Makes changes at the rate until it is over; how many a second there were.
    fn make(&mut self, fib: &mut Fib, over: &AtomicBool) -> Result<f64> {
        let start = Instant::now();
        let mut made = 0;
        while !over.load(Ordering::Relaxed) {
            let batch = self.batch();
            fib.apply(&batch).context("a change was refused")?;
            made += batch.len();
            let due = Duration::from_secs_f64(made as f64 / f64::from(PER_SECOND));
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
        Ok(made as f64 / start.elapsed().as_secs_f64())
    }

    /// The last batch's changes taken back, then new ones.
    fn batch(&mut self) -> Vec<FibUpdate> {
        let mut batch = std::mem::take(&mut self.undo);
        for place in 0..BATCH / 2 {
            let (change, back) = self.change(place);
            batch.push(change);
            self.undo.push(back);
        }
        batch
    }

    fn change(&mut self, place: u32) -> (FibUpdate, FibUpdate) {
        let Self { random, routes, .. } = self;
        if place == 0 {
            // No route is shorter, so every destination has a longer one.
            let (network, len) = match routes[0].0 {
                IpAddr::V4(_) => (Ipv4Addr::from(random.next() as u32 & 0xffe0_0000).into(), 11),
                IpAddr::V6(_) => {
                    let bits = 0x2000 | random.next() as u16 & 0x1ff0;
                    (Ipv6Addr::new(bits, 0, 0, 0, 0, 0, 0, 0).into(), 12)
                }
            };
            return (add(network, len, 0), remove(network, len));
        }
        if place % 4 == 1 {
            let probe = random.below(self.probes.len() as u32);
            let (address, next_hop) = self.probes[probe as usize];
            if !self.hosts.contains(&address) {
                let len = if address.is_ipv4() { 32 } else { 128 };
                return (add(address, len, next_hop), remove(address, len));
            }
        }
        let route = random.below(routes.len() as u32);
        let (network, len, next_hop) = routes[route as usize];
        (add(network, len, next_hop + ALIAS), add(network, len, next_hop))
    }
}

fn add(prefix: IpAddr, len: u8, group: u32) -> FibUpdate {
    FibUpdate::Route { prefix, len, group }
}

fn remove(prefix: IpAddr, len: u8) -> FibUpdate {
    FibUpdate::RouteRemoved { prefix, len }
}
