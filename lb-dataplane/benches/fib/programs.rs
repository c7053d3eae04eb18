//! The benchmark's eBPF programs with their maps: filled, aimed at destinations, and run.

use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Context, Result, ensure};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Map, MapData};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use lb_dataplane::fib::{Action, Arrays, Fib, FibUpdate, Member};
use lb_dataplane::mapped::Mapped;

use crate::network::{Network, gateway, next_hop_mac};
use crate::routes::{NEXT_HOPS, PROBES, Routes};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lbd-bench.bpf.o"));

/// Lookups in one run of a program, as the programs have it.
const LOOKUPS: u32 = 256;
/// Updates in a batch of the router.
const BATCH: usize = 4096;
const PAGE_BYTES: usize = 4096;
const L2_PAGES: usize = 16_384;
const GROUP_PAGES: usize = 16;
const BUCKET_PAGES: usize = 8;
const MEMBERS: usize = 8192;
const PROGRAMS: [&str; 4] = ["empty", "dir", "trie", "kernel"];

pub(crate) struct Programs {
    ebpf: Ebpf,
    fib: Fib,
    destinations: Mapped,
    expected: Mapped,
    state: Mapped,
    ifindex: u32,
    mac: [u8; 6],
}

impl Programs {
    pub(crate) fn load(network: &Network) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("FIB4_L2", L2_PAGES as u32)
            .map_max_entries("FIB_GROUPS", GROUP_PAGES as u32)
            .map_max_entries("FIB_BUCKETS", BUCKET_PAGES as u32)
            .map_max_entries("FIB_MEMBERS", MEMBERS as u32)
            .load(OBJECT)?;
        for name in PROGRAMS {
            let program: &mut Xdp = ebpf.program_mut(name).context(name)?.try_into()?;
            program.load()?;
        }
        let arrays = Arrays {
            l1: map(&ebpf, "FIB4_L1", 16_384 * PAGE_BYTES)?,
            l2: map(&ebpf, "FIB4_L2", L2_PAGES * PAGE_BYTES)?,
            groups: map(&ebpf, "FIB_GROUPS", GROUP_PAGES * PAGE_BYTES)?,
            buckets: map(&ebpf, "FIB_BUCKETS", BUCKET_PAGES * PAGE_BYTES)?,
            members: map(&ebpf, "FIB_MEMBERS", MEMBERS * 32)?,
        };
        let probe_bytes = PROBES * 4;
        let programs = Self {
            fib: Fib::adopt(arrays, || {}),
            destinations: map(&ebpf, "DESTINATIONS", probe_bytes)?,
            expected: map(&ebpf, "EXPECTED", probe_bytes)?,
            state: map(&ebpf, "STATE", 16)?,
            ebpf,
            ifindex: network.ifindex,
            mac: network.mac,
        };
        programs.state.words()[2].store(network.ifindex, Relaxed);
        Ok(programs)
    }

    /// Through the daemon's own writer, in batches as the router hands them over.
    pub(crate) fn fill_fib(&mut self, routes: &Routes) -> Result<()> {
        let groups = (0..NEXT_HOPS).map(|next_hop| {
            let member = Member {
                ifindex: self.ifindex,
                source_mac: self.mac,
                destination_mac: Some(next_hop_mac(next_hop)),
                gateway: Some(gateway(next_hop)),
                mtu: 1500,
                weight: 1,
            };
            FibUpdate::Group { id: next_hop, action: Action::Forward(vec![member]) }
        });
        let groups: Vec<FibUpdate> = groups.collect();
        self.fib.apply(&groups)?;
        let mut batch = Vec::with_capacity(BATCH);
        for routes in routes.routes.chunks(BATCH) {
            batch.clear();
            batch.extend(routes.iter().map(|(network, len, group)| FibUpdate::Route {
                prefix: Ipv4Addr::from(*network),
                len: *len,
                group: *group,
            }));
            self.fib.apply(&batch)?;
        }
        Ok(())
    }

    /// One syscall a route. Groups lie in the FIB's own table, in the order in which they were made, from 1 on.
    pub(crate) fn fill_trie(&mut self, routes: &Routes) -> Result<()> {
        let trie = self.ebpf.map_mut("TRIE").context("TRIE")?;
        let mut trie: LpmTrie<&mut MapData, u32, u32> = trie.try_into()?;
        for (network, len, next_hop) in &routes.routes {
            trie.insert(&Key::new(u32::from(*len), network.to_be()), next_hop + 1, 0)?;
        }
        Ok(())
    }

    /// Sets the destinations and the answers that they are to find.
    pub(crate) fn aim(&mut self, probes: &[(u32, u32)]) {
        let [_, _, a, b, c, d] = self.mac;
        let out = u32::from_ne_bytes([a, b, c, d]) ^ self.ifindex;
        let words = self.destinations.words().iter().zip(self.expected.words());
        for ((destination, expected), (address, next_hop)) in words.zip(probes) {
            let [_, _, a, b, c, d] = next_hop_mac(*next_hop);
            destination.store(*address, Relaxed);
            expected.store(u32::from_ne_bytes([a, b, c, d]) ^ out, Relaxed);
        }
    }

    /// Looks every destination up once; nanoseconds per lookup, the loop included.
    pub(crate) fn run(&mut self, name: &str) -> Result<f64> {
        let program: &Xdp = self.ebpf.program(name).context("no such program")?.try_into()?;
        let state = self.state.words();
        state[0].store(0, Relaxed);
        state[1].store(0, Relaxed);
        let packet = [0; 64];
        let runs = PROBES as u32 / LOOKUPS;
        let options =
            TestRunOptions { data_in: Some(&packet), repeat: runs, ..TestRunOptions::default() };
        let result = program.test_run(options)?;
        let (done, wrong) = (state[0].load(Relaxed), state[1].load(Relaxed));
        ensure!(
            wrong == 0,
            "{name}: {wrong} of {done} lookups found something else than the reference"
        );
        ensure!(done as usize == PROBES, "{name}: only {done} lookups were made");
        Ok(result.duration.as_nanos() as f64 / f64::from(LOOKUPS))
    }
}

fn map(ebpf: &Ebpf, name: &str, bytes: usize) -> Result<Mapped> {
    let Map::Array(data) = ebpf.map(name).context("no such map")? else {
        anyhow::bail!("{name} is no array");
    };
    Ok(Mapped::map(data.fd().as_fd(), bytes)?)
}
