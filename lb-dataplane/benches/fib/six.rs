//! IPv6: lookups with ten to a million routes, random and hot destinations (F2 with 250,000), and filling, beside `LPM_TRIE` and the kernel's own lookup.

use std::collections::{HashMap, HashSet};
use std::net::Ipv6Addr;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use aya::maps::lpm_trie::{Key, LpmTrie};
use lb_dataplane::fib::FibUpdate;

use crate::network::Network;
use crate::programs::{BATCH, Programs};
use crate::report::{Report, Series};
use crate::routes::{NEXT_HOPS, PROBES, Random};
use crate::{FEWER_ROUNDS, FILL_ROUNDS, ROUNDS, count, say, seconds};

/// What F2 speaks of.
pub(crate) const ROUTES: usize = 250_000;
/// Tables that grow into one another.
const SIZES: [usize; 5] = [10, 10_000, 100_000, ROUTES, 1_000_000];
/// Holders of address space: so many share the routes.
const HOLDERS: u32 = 40_000;
/// The FIB, then its peers.
const PEERS: [&str; 3] = ["multibit6", "trie6", "kernel6"];
const MIB: f64 = (1 << 20) as f64;

/// A route: network address, length, next hop.
type Route = (u128, u8, u32);

pub(crate) fn measure(network: &Network, report: &mut Report) -> Result<()> {
    say("IPv6: making a million routes and 65,536 destinations, with a naive reference");
    let many = random_routes(SIZES[SIZES.len() - 1]);
    let (mut fib_fill, mut trie_fill) = (Series::default(), Series::default());
    for round in 1..=FILL_ROUNDS {
        say(&format!("IPv6: filling, round {round} of {FILL_ROUNDS}"));
        let mut programs = Programs::load(network)?;
        fib_fill.push(seconds(|| fill_fib(&mut programs, &many[..ROUTES]))?);
        trie_fill.push(seconds(|| fill_trie(&mut programs, &many[..ROUTES]))?);
    }
    report.ratio(("filling 250 k IPv6 routes", "LPM_TRIE"), "s", &fib_fill, &trie_fill, 1.0);

    let mut programs = Programs::load(network)?;
    let (mut filled, mut kernel_fill) = (0, 0.0);
    for size in SIZES {
        let name = count(size);
        say(&format!("IPv6, {name} routes: filling, the kernel's own table by netlink too"));
        let new = &many[filled..size];
        fill_fib(&mut programs, new)?;
        fill_trie(&mut programs, new)?;
        kernel_fill += seconds(|| network.fill6(new))?;
        filled = size;
        let (nodes, _) = programs.fib.usage().node_bytes;
        report.note(&format!("nodes of {name} IPv6 routes"), "MiB", nodes as f64 / MIB);
        let rounds = if size == ROUTES { ROUNDS } else { FEWER_ROUNDS };
        let costs = Costs::measure(&mut programs, &probes(&many[..size]), rounds)?;
        costs.note(report, &name);
        if size == ROUTES {
            costs.targets(report);
        }
    }
    report.note("filling the kernel's IPv6 table (ip -batch)", "s", kernel_fill);
    Ok(())
}

/// Nanoseconds per lookup, the loop taken off.
#[derive(Default)]
struct Costs {
    random: [Series; 3],
    hot: [Series; 3],
}

impl Costs {
    fn measure(programs: &mut Programs, random: &[(u128, u32)], rounds: usize) -> Result<Self> {
        let mut costs = Self::default();
        let hot = vec![random[0]; PROBES];
        for round in 1..=rounds {
            say(&format!("IPv6: looking up, round {round} of {rounds}"));
            for (probes, series) in [(random, &mut costs.random), (&hot, &mut costs.hot)] {
                aim(programs, probes)?;
                let empty = programs.run("empty6")?;
                for (name, series) in PEERS.iter().zip(series) {
                    series.push(programs.run(name)? - empty);
                }
            }
        }
        Ok(costs)
    }

    fn note(&self, report: &mut Report, routes: &str) {
        for (kind, costs) in [("random", &self.random), ("hot", &self.hot)] {
            for (peer, series) in ["FIB", "LPM_TRIE", "bpf_fib_lookup"].iter().zip(costs) {
                let name = format!("{peer}, {routes} IPv6 routes, {kind} destinations");
                report.note(&name, "ns", series.median());
            }
        }
    }

    fn targets(&self, report: &mut Report) {
        for (kind, [fib, trie, kernel]) in [("random", &self.random), ("hot", &self.hot)] {
            let lookup = format!("F2 IPv6 lookup, 250 k routes, {kind}");
            report.ratio((&lookup, "bpf_fib_lookup"), "ns", fib, kernel, 1.0 / 3.0);
            report.ratio((&lookup, "LPM_TRIE"), "ns", fib, trie, 1.0 / 3.0);
        }
    }
}

pub(crate) fn fill_fib(programs: &mut Programs, routes: &[Route]) -> Result<()> {
    let mut batch = Vec::with_capacity(BATCH);
    for routes in routes.chunks(BATCH) {
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
fn fill_trie(programs: &mut Programs, routes: &[Route]) -> Result<()> {
    let trie = programs.ebpf.map_mut("TRIE6").context("TRIE6")?;
    let mut trie: LpmTrie<&mut MapData, [u64; 2], u32> = trie.try_into()?;
    for (network, len, next_hop) in routes {
        trie.insert(&Key::new(u32::from(*len), halves(*network).map(u64::to_be)), next_hop + 1, 0)?;
    }
    Ok(())
}

pub(crate) fn aim(programs: &mut Programs, probes: &[(u128, u32)]) -> Result<()> {
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

/// Shaped like the Internet's table: holders of a /29 or /32 somewhere in the registries' /12 and /16 blocks, who announce it
/// and parts of it, and some of those parts' parts; half of all routes are /48.
pub(crate) fn random_routes(count: usize) -> Vec<Route> {
    let mut random = Random(2);
    let mut known = HashSet::with_capacity(count);
    let mut routes: Vec<Route> = Vec::with_capacity(count);
    let blocks = [0x2001, 0x2400, 0x2600, 0x2800, 0x2a00, 0x2c00];
    let holders: Vec<u128> = (0..HOLDERS)
        .map(|_| {
            let block: u128 = blocks[random.below(6) as usize];
            let below = if block == 0x2001 { 0xffff } else { 0x000f_ffff };
            block << 112 | u128::from(random.next() as u32 & below) << 96
        })
        .collect();
    while routes.len() < count {
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
    routes
}

/// Destinations below the routes, with the next hop that each is to find.
pub(crate) fn probes(routes: &[Route]) -> Vec<(u128, u32)> {
    let mut random = Random(4);
    let reference = Reference::new(routes);
    let probes = (0..PROBES).map(|_| {
        let (network, len, _) = routes[random.below(routes.len() as u32) as usize];
        let host = u128::from(random.next()) << 64 | u128::from(random.next());
        let destination = network | host & !mask(len);
        (destination, reference.lookup(destination))
    });
    probes.collect()
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
