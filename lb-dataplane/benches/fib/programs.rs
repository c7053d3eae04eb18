//! The benchmark's eBPF programs with their maps: filled, aimed at destinations, and run.

use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Context, Result, ensure};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Map, MapData};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use lb_dataplane::Sizes;
use lb_dataplane::fib::{Action, Arrays, Fib, FibUpdate, Member, grace_period};
use lb_dataplane::mapped::Mapped;

use crate::network::{Network, gateway, next_hop_mac};
use crate::routes::{NEXT_HOPS, PROBES, Route};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lbd-bench.bpf.o"));

/// Lookups in one run of a program, as the programs have them.
const LOOKUPS: u32 = 256;
const LOOKUPS6: u32 = 16;
/// Updates in a batch of the router.
pub(crate) const BATCH: usize = 4096;
const PAGE_BYTES: usize = 4096;
const L1_PAGES: usize = 16_384;
const ROOT6_PAGES: usize = 4736;
const MEMBER_BYTES: usize = 48;
/// What a group's number differs by from another one's with the same member.
pub(crate) const ALIAS: u32 = NEXT_HOPS;
const PROGRAMS: [&str; 8] =
    ["empty", "dir", "trie", "kernel", "empty6", "multibit6", "trie6", "kernel6"];

pub(crate) struct Programs {
    pub(crate) ebpf: Ebpf,
    pub(crate) fib: Fib,
    destinations: Mapped,
    pub(crate) destinations6: Mapped,
    expected: Mapped,
    pub(crate) state: Mapped,
    ifindex: u32,
    mac: [u8; 6],
}

impl Programs {
    /// With room for random routes, of which many more are longer than /24 than the Internet's are.
    pub(crate) fn load(network: &Network) -> Result<Self> {
        let large =
            Sizes { fib_second_level_pages: 16_384, fib6_pages: 32_768, ..Sizes::default() };
        Self::load_sized(network, &large)
    }

    pub(crate) fn load_sized(network: &Network, sizes: &Sizes) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("FIB4_L2", sizes.fib_second_level_pages)
            .map_max_entries("FIB6_NODES", sizes.fib6_pages)
            .map_max_entries("FIB_GROUPS", sizes.fib_group_pages)
            .map_max_entries("FIB_BUCKETS", sizes.fib_bucket_pages)
            .map_max_entries("FIB_MEMBERS", sizes.fib_members)
            .load(OBJECT)?;
        for name in PROGRAMS {
            let program: &mut Xdp = ebpf.program_mut(name).context(name)?.try_into()?;
            program.load()?;
        }
        let arrays = Arrays {
            l1: map(&ebpf, "FIB4_L1", L1_PAGES * PAGE_BYTES)?,
            l2: map(&ebpf, "FIB4_L2", pages(sizes.fib_second_level_pages))?,
            root6: map(&ebpf, "FIB6_ROOT", ROOT6_PAGES * PAGE_BYTES)?,
            nodes6: map(&ebpf, "FIB6_NODES", pages(sizes.fib6_pages))?,
            groups: map(&ebpf, "FIB_GROUPS", pages(sizes.fib_group_pages))?,
            buckets: map(&ebpf, "FIB_BUCKETS", pages(sizes.fib_bucket_pages))?,
            members: map(&ebpf, "FIB_MEMBERS", sizes.fib_members as usize * MEMBER_BYTES)?,
        };
        let probe_bytes = PROBES * 4;
        let mut programs = Self {
            fib: Fib::adopt(arrays, grace_period),
            destinations: map(&ebpf, "DESTINATIONS", probe_bytes)?,
            destinations6: map(&ebpf, "DESTINATIONS6", PROBES * 16)?,
            expected: map(&ebpf, "EXPECTED", probe_bytes)?,
            state: map(&ebpf, "STATE", 16)?,
            ebpf,
            ifindex: network.ifindex,
            mac: network.mac,
        };
        programs.state.words()[2].store(network.ifindex, Relaxed);
        programs.add_groups()?;
        Ok(programs)
    }

    /// A group for each next hop, by its number, and with `ALIAS` another one that does the same.
    fn add_groups(&mut self) -> Result<()> {
        let groups = (0..2 * NEXT_HOPS).map(|group| {
            let next_hop = group % ALIAS;
            let member = Member {
                ifindex: self.ifindex,
                source_mac: self.mac,
                destination_mac: Some(next_hop_mac(next_hop)),
                gateway: Some(gateway(next_hop).into()),
                mtu: 1500,
                weight: 1,
            };
            FibUpdate::Group { id: group, action: Action::Forward(vec![member]) }
        });
        let groups: Vec<FibUpdate> = groups.collect();
        self.fib.apply(&groups)?;
        Ok(())
    }

    /// Through the daemon's own writer, in batches as the router hands them over.
    pub(crate) fn fill_fib(&mut self, routes: &[Route]) -> Result<()> {
        let mut batch = Vec::with_capacity(BATCH);
        for routes in routes.chunks(BATCH) {
            batch.clear();
            batch.extend(routes.iter().map(|(network, len, group)| FibUpdate::Route {
                prefix: Ipv4Addr::from(*network).into(),
                len: *len,
                group: *group,
            }));
            self.fib.apply(&batch)?;
        }
        Ok(())
    }

    /// One syscall a route. Groups lie in the FIB's own table, in the order in which they were made, from 1 on.
    pub(crate) fn fill_trie(&mut self, routes: &[Route]) -> Result<()> {
        let trie = self.ebpf.map_mut("TRIE").context("TRIE")?;
        let mut trie: LpmTrie<&mut MapData, u32, u32> = trie.try_into()?;
        for (network, len, next_hop) in routes {
            trie.insert(&Key::new(u32::from(*len), network.to_be()), next_hop + 1, 0)?;
        }
        Ok(())
    }

    /// Sets the destinations and the answers that they are to find.
    pub(crate) fn aim(&mut self, probes: &[(u32, u32)]) {
        self.expect(probes.iter().map(|(_, next_hop)| *next_hop));
        for (destination, (address, _)) in self.destinations.words().iter().zip(probes) {
            destination.store(*address, Relaxed);
        }
    }

    /// Sets the answers, as next hops.
    pub(crate) fn expect(&mut self, next_hops: impl Iterator<Item = u32>) {
        let [_, _, a, b, c, d] = self.mac;
        let out = u32::from_ne_bytes([a, b, c, d]) ^ self.ifindex;
        for (expected, next_hop) in self.expected.words().iter().zip(next_hops) {
            let [_, _, a, b, c, d] = next_hop_mac(next_hop);
            expected.store(u32::from_ne_bytes([a, b, c, d]) ^ out, Relaxed);
        }
    }

    /// Looks every destination up once; nanoseconds per lookup, the loop included.
    pub(crate) fn run(&self, name: &str) -> Result<f64> {
        run(&self.ebpf, &self.state, name)
    }
}

/// The same, for those who have the writer elsewhere.
pub(crate) fn run(ebpf: &Ebpf, state: &Mapped, name: &str) -> Result<f64> {
    let program: &Xdp = ebpf.program(name).context("no such program")?.try_into()?;
    let state = state.words();
    state[0].store(0, Relaxed);
    state[1].store(0, Relaxed);
    let packet = [0; 64];
    let lookups = if name.ends_with('6') { LOOKUPS6 } else { LOOKUPS };
    let runs = PROBES as u32 / lookups;
    let options =
        TestRunOptions { data_in: Some(&packet), repeat: runs, ..TestRunOptions::default() };
    let result = program.test_run(options)?;
    let (done, wrong) = (state[0].load(Relaxed), state[1].load(Relaxed));
    ensure!(
        wrong == 0,
        "{name}: {wrong} of {done} lookups found something else than the reference"
    );
    ensure!(done as usize == PROBES, "{name}: only {done} lookups were made");
    Ok(result.duration.as_nanos() as f64 / f64::from(lookups))
}

fn pages(count: u32) -> usize {
    count as usize * PAGE_BYTES
}

/// Bytes of the maps that packets read.
pub(crate) fn bytes(sizes: &Sizes) -> usize {
    let Sizes { fib_second_level_pages, fib6_pages, fib_group_pages, fib_bucket_pages, .. } =
        *sizes;
    let sized = [fib_second_level_pages, fib6_pages, fib_group_pages, fib_bucket_pages].map(pages);
    let fixed = (L1_PAGES + ROOT6_PAGES) * PAGE_BYTES;
    fixed + sized.iter().sum::<usize>() + sizes.fib_members as usize * MEMBER_BYTES
}

fn map(ebpf: &Ebpf, name: &str, bytes: usize) -> Result<Mapped> {
    let Map::Array(data) = ebpf.map(name).context("no such map")? else {
        anyhow::bail!("{name} is no array");
    };
    Ok(Mapped::map(data.fd().as_fd(), bytes)?)
}
