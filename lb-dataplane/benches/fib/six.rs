//! F2: the IPv6 trie with 250,000 routes, random and hot destinations, beside `LPM_TRIE` and the kernel's own lookup.

use std::collections::{HashMap, HashSet};
use std::net::Ipv6Addr;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Context, Result, ensure};
use aya::maps::MapData;
use aya::maps::lpm_trie::{Key, LpmTrie};
use lb_dataplane::fib::FibUpdate;

use crate::network::Network;
use crate::programs::{BATCH, Programs};
use crate::report::{Report, Series};
use crate::routes::{NEXT_HOPS, PROBES, Random};
use crate::{FILL_ROUNDS, ROUNDS, say, seconds};

const ROUTES: usize = 250_000;
const FEW_ROUTES: usize = 10;
/// Holders of address space: so many share the routes.
const HOLDERS: u32 = 40_000;

/// A route: network address, length, next hop.
type Route = (u128, u8, u32);

pub(crate) fn measure(network: &Network, report: &mut Report) -> Result<()> {
    say("IPv6: making 250,000 routes and 65,536 destinations, with a naive reference");
    let many = Routes::random();
    let few = many.first(FEW_ROUTES);
    let (mut fib_fill, mut trie_fill) = (Series::default(), Series::default());
    let mut loaded = None;
    for round in 1..=FILL_ROUNDS {
        say(&format!("IPv6: filling, round {round} of {FILL_ROUNDS}"));
        drop(loaded.take());
        let mut programs = Programs::load(network)?;
        fib_fill.push(seconds(|| fill_fib(&mut programs, &many))?);
        trie_fill.push(seconds(|| fill_trie(&mut programs, &many))?);
        loaded = Some(programs);
    }
    let mut many_programs = loaded.context("there is a round")?;
    let mut few_programs = Programs::load(network)?;
    fill_fib(&mut few_programs, &few)?;
    say("IPv6: filling the kernel's own table by netlink");
    let kernel_fill = seconds(|| network.fill6(&many.routes))?;

    let mut costs = Costs::default();
    for round in 1..=ROUNDS {
        say(&format!("IPv6: looking up, round {round} of {ROUNDS}"));
        costs.round([&mut many_programs, &mut few_programs], &many, &few)?;
    }
    costs.report(report);
    report.ratio(("filling 250 k IPv6 routes", "LPM_TRIE"), "s", &fib_fill, &trie_fill, 1.0);
    let (nodes, _) = many_programs.fib.node_bytes();
    report.note("memory of 250 k IPv6 routes' nodes", "MiB", nodes as f64 / f64::from(1 << 20));
    report.note("filling the kernel's IPv6 table (ip -batch)", "s", kernel_fill);
    Ok(())
}

/// Nanoseconds per lookup, the loop taken off.
#[derive(Default)]
struct Costs {
    random: [Series; 3],
    hot: [Series; 3],
    hot_few: Series,
}

impl Costs {
    fn round(
        &mut self,
        [many_programs, few_programs]: [&mut Programs; 2],
        many: &Routes,
        few: &Routes,
    ) -> Result<()> {
        const PEERS: [&str; 3] = ["multibit6", "trie6", "kernel6"];
        aim(many_programs, &many.probes)?;
        let empty = many_programs.run("empty6")?;
        for (series, name) in self.random.iter_mut().zip(PEERS) {
            series.push(many_programs.run(name)? - empty);
        }
        // A destination that every table has, in the way of its neighbours.
        let hot = vec![few.probes[0]; PROBES];
        aim(many_programs, &hot)?;
        aim(few_programs, &hot)?;
        let empty = many_programs.run("empty6")?;
        for (series, name) in self.hot.iter_mut().zip(PEERS) {
            series.push(many_programs.run(name)? - empty);
        }
        self.hot_few.push(few_programs.run("multibit6")? - empty);
        Ok(())
    }

    fn report(&self, report: &mut Report) {
        let third = 1.0 / 3.0;
        let [fib, trie, kernel] = &self.random;
        let lookup = "F2 IPv6 lookup, 250 k routes, random";
        report.ratio((lookup, "bpf_fib_lookup"), "ns", fib, kernel, third);
        report.ratio((lookup, "LPM_TRIE"), "ns", fib, trie, third);
        let [fib, trie, kernel] = &self.hot;
        let lookup = "F2 IPv6 lookup, 250 k routes, hot";
        report.ratio((lookup, "bpf_fib_lookup"), "ns", fib, kernel, third);
        report.ratio((lookup, "LPM_TRIE"), "ns", fib, trie, third);
        report.note("IPv6 lookup, 10 routes, hot", "ns", self.hot_few.median());
    }
}

fn fill_fib(programs: &mut Programs, routes: &Routes) -> Result<()> {
    programs.add_groups()?;
    let mut batch = Vec::with_capacity(BATCH);
    for routes in routes.routes.chunks(BATCH) {
        batch.clear();
        batch.extend(routes.iter().map(|(network, len, group)| FibUpdate::Route {
            prefix: Ipv6Addr::from_bits(*network).into(),
            len: *len,
            group: *group,
        }));
        programs.fib.apply(&batch)?;
    }
    Ok(())
}

/// One syscall a route. Groups lie in the FIB's own table, in the order in which they were made, from 1 on.
fn fill_trie(programs: &mut Programs, routes: &Routes) -> Result<()> {
    let trie = programs.ebpf.map_mut("TRIE6").context("TRIE6")?;
    let mut trie: LpmTrie<&mut MapData, [u64; 2], u32> = trie.try_into()?;
    for (network, len, next_hop) in &routes.routes {
        trie.insert(&Key::new(u32::from(*len), halves(*network).map(u64::to_be)), next_hop + 1, 0)?;
    }
    Ok(())
}

fn aim(programs: &mut Programs, probes: &[(u128, u32)]) -> Result<()> {
    ensure!(probes.len() == PROBES, "{} destinations, not {PROBES}", probes.len());
    programs.expect(probes.iter().map(|(_, next_hop)| *next_hop));
    let words = programs.destinations6.wide_words();
    let destinations = probes.iter().flat_map(|(address, _)| halves(*address));
    words.iter().zip(destinations).for_each(|(word, half)| word.store(half, Relaxed));
    Ok(())
}

fn halves(address: u128) -> [u64; 2] {
    [(address >> 64) as u64, address as u64]
}

struct Routes {
    routes: Vec<Route>,
    /// Destinations with the next hop that each is to find.
    probes: Vec<(u128, u32)>,
}

impl Routes {
    /// Shaped like the Internet's table: holders of a /29 or /32 somewhere in the registries' /12 and /16 blocks, who
    /// announce it and parts of it, and some of those parts' parts; half of all routes are /48.
    fn random() -> Self {
        let mut random = Random(2);
        let mut known = HashSet::with_capacity(ROUTES);
        let mut routes: Vec<Route> = Vec::with_capacity(ROUTES);
        let blocks = [0x2001, 0x2400, 0x2600, 0x2800, 0x2a00, 0x2c00];
        let holders: Vec<u128> = (0..HOLDERS)
            .map(|_| {
                let block: u128 = blocks[random.below(6) as usize];
                let below = if block == 0x2001 { 0xffff } else { 0x000f_ffff };
                block << 112 | u128::from(random.next() as u32 & below) << 96
            })
            .collect();
        while routes.len() < ROUTES {
            let holder = holders[random.below(HOLDERS) as usize];
            let len = match random.below(100) {
                0..=3 => 29 + random.below(3) as u8,
                4..=15 => 32,
                16..=22 => 36,
                23..=33 => 40,
                34..=46 => 44,
                47..=51 => 33 + random.below(15) as u8,
                52..=97 => 48,
                _ => 56 + random.below(9) as u8,
            };
            // Parts lie at the beginning of a holder's space more often than not.
            let spread = if random.below(3) == 0 { u32::MAX } else { 0x00ff_ffff };
            let bits = u128::from(random.next() as u32 & spread) << 64;
            let address = (holder | bits) & mask(len);
            if known.insert((address, len)) {
                routes.push((address, len, random.below(NEXT_HOPS)));
            }
        }
        let reference = Reference::new(&routes);
        let probes = (0..PROBES).map(|_| {
            let (network, len, _) = routes[random.below(ROUTES as u32) as usize];
            let host = u128::from(random.next()) << 64 | u128::from(random.next());
            let destination = network | host & !mask(len);
            (destination, reference.lookup(destination))
        });
        let probes = probes.collect();
        Self { routes, probes }
    }

    /// The first /48 only; every destination hits the first of them.
    fn first(&self, count: usize) -> Self {
        let reference = Reference::new(&self.routes);
        let plain = |route: &&Route| route.1 == 48 && reference.lookup(route.0 | 1) == route.2;
        let routes: Vec<Route> = self.routes.iter().filter(plain).take(count).copied().collect();
        let probes = routes.iter().map(|(network, _, next_hop)| (network | 1, *next_hop)).collect();
        Self { routes, probes }
    }
}

/// Longest match by trying every length: obviously right.
struct Reference(Vec<HashMap<u128, u32>>);

impl Reference {
    fn new(routes: &[Route]) -> Self {
        let mut by_len = vec![HashMap::new(); 129];
        for (network, len, next_hop) in routes {
            by_len[usize::from(*len)].insert(*network, *next_hop);
        }
        Self(by_len)
    }

    fn lookup(&self, destination: u128) -> u32 {
        let hit = (0..=128_u8)
            .rev()
            .find_map(|len| self.0[usize::from(len)].get(&(destination & mask(len))).copied());
        hit.expect("destinations are made from routes")
    }
}

fn mask(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}
