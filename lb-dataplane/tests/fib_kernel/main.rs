//! The FIB as the kernel reads it: what the writer wrote, looked up by a program through `BPF_PROG_TEST_RUN`. Needs root.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod million;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering::Relaxed;

use aya::maps::Map;
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use lb_dataplane::fib::{Action, Arrays, Fib, FibError, FibUpdate, Member};
use lb_dataplane::mapped::Mapped;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lbd-bench.bpf.o"));

/// Lookups in one run of a program, as the programs have them.
const LOOKUPS: usize = 256;
const LOOKUPS6: usize = 16;
const PAGE_BYTES: usize = 4096;
/// What the program writes where a packet goes nowhere.
const MISS: u32 = 0;
const KERNEL: u32 = 1;
const BLACKHOLE: u32 = 2;

/// Addresses of both are numbers of 128 bits here, an IPv4 address the first of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn address(self, bits: u128) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::from_bits((bits >> 96) as u32).into(),
            Self::V6 => Ipv6Addr::from_bits(bits).into(),
        }
    }
}

/// The programs with their maps.
struct Kernel {
    ebpf: Ebpf,
    destinations: Mapped,
    destinations6: Mapped,
    answers: Mapped,
}

impl Kernel {
    fn load() -> Self {
        let mut ebpf = EbpfLoader::new().load(OBJECT).unwrap();
        for name in ["answer", "answer6"] {
            let program: &mut Xdp = ebpf.program_mut(name).unwrap().try_into().unwrap();
            program.load().unwrap();
        }
        let destinations = map(&ebpf, "DESTINATIONS", 64 * PAGE_BYTES);
        let destinations6 = map(&ebpf, "DESTINATIONS6", 256 * PAGE_BYTES);
        let answers = map(&ebpf, "EXPECTED", 64 * PAGE_BYTES);
        Self { ebpf, destinations, destinations6, answers }
    }

    /// A new process' writer.
    fn writer(&self) -> Fib {
        let array = |name, pages: usize| map(&self.ebpf, name, pages * PAGE_BYTES);
        let arrays = Arrays {
            l1: array("FIB4_L1", 16_384),
            l2: array("FIB4_L2", 64),
            root6: array("FIB6_ROOT", 4736),
            nodes6: array("FIB6_NODES", 64),
            groups: array("FIB_GROUPS", 8),
            buckets: array("FIB_BUCKETS", 8),
            members: array("FIB_MEMBERS", 8),
        };
        Fib::adopt(arrays, || {})
    }

    fn answers(&self, family: Family, destinations: &[u128]) -> Vec<u32> {
        let (name, lookups) = match family {
            Family::V4 => ("answer", LOOKUPS),
            Family::V6 => ("answer6", LOOKUPS6),
        };
        let program: &Xdp = self.ebpf.program(name).unwrap().try_into().unwrap();
        let mut answers = Vec::new();
        for batch in destinations.chunks(lookups) {
            for (word, destination) in self.destinations.words().iter().zip(batch) {
                word.store((*destination >> 96) as u32, Relaxed);
            }
            let halves = batch.iter().flat_map(|bits| [(*bits >> 64) as u64, *bits as u64]);
            for (word, half) in self.destinations6.wide_words().iter().zip(halves) {
                word.store(half, Relaxed);
            }
            let options = TestRunOptions { data_in: Some(&[0; 64]), ..TestRunOptions::default() };
            assert_eq!(program.test_run(options).unwrap().return_value, 2, "XDP_PASS");
            let found = self.answers.words().iter().take(batch.len());
            answers.extend(found.map(|word| word.load(Relaxed)));
        }
        answers
    }
}

fn map(ebpf: &Ebpf, name: &str, bytes: usize) -> Mapped {
    let Some(Map::Array(data)) = ebpf.map(name) else { panic!("{name} is no array") };
    Mapped::map(data.fd().as_fd(), bytes).unwrap()
}

fn member(n: u8) -> Member {
    Member {
        ifindex: u32::from(n) + 100,
        source_mac: [2, 0, 0, 0, 1, n],
        destination_mac: Some([2, 0, n, 0, 7, 1]),
        gateway: None,
        mtu: 1500,
        weight: 1,
    }
}

/// What the program writes for a packet that leaves by a member.
fn leaves_by(n: u8) -> u32 {
    let Member { ifindex, source_mac, destination_mac, .. } = member(n);
    let low = |[_, _, a, b, c, d]: [u8; 6]| u32::from_ne_bytes([a, b, c, d]);
    low(source_mac) ^ low(destination_mac.unwrap()) ^ ifindex
}

fn mask(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

/// What a group does: `Ok` names its members.
type Deed = Result<Vec<u8>, u32>;

#[derive(Clone, Debug)]
enum Op {
    Put(u128, u8, u32),
    Remove(u128, u8),
    Group(u32, Deed),
    /// A new process takes over and hears of the routes in this order: all of them, or backwards.
    Restart(bool),
}

/// The table that is obviously right: every length is tried.
#[derive(Default)]
struct Naive {
    routes: BTreeMap<(u128, u8), u32>,
    groups: BTreeMap<u32, Deed>,
}

impl Naive {
    /// What the program may write for a destination.
    fn allowed(&self, address: u128) -> Vec<u32> {
        let hit = (0..=128).rev().find_map(|len| self.routes.get(&(address & mask(len), len)));
        match hit.map(|group| &self.groups[group]) {
            None => vec![MISS],
            Some(Ok(members)) => members.iter().map(|n| leaves_by(*n)).collect(),
            Some(Err(kind)) => vec![*kind],
        }
    }
}

/// The writer under test and the table beside it.
struct Pair<'a> {
    kernel: &'a Kernel,
    family: Family,
    fib: Fib,
    naive: Naive,
}

const GROUPS: std::ops::Range<u32> = 1..7;

impl<'a> Pair<'a> {
    fn new(kernel: &'a Kernel, family: Family) -> Self {
        let mut fib = kernel.writer();
        // What the case before left.
        fib.synced();
        let mut pair = Self { kernel, family, fib, naive: Naive::default() };
        GROUPS.for_each(|id| pair.group(id, Ok(vec![id as u8])));
        pair
    }

    fn group(&mut self, id: u32, deed: Deed) {
        let action = match &deed {
            Ok(members) => Action::Forward(members.iter().map(|n| member(*n)).collect()),
            Err(KERNEL) => Action::Kernel,
            Err(_) => Action::Blackhole,
        };
        self.fib.update(&FibUpdate::Group { id, action }).unwrap();
        self.naive.groups.insert(id, deed);
    }

    fn carry_out(&mut self, op: Op) {
        match op {
            Op::Put(network, len, group) => {
                let prefix = self.family.address(network);
                match self.fib.update(&FibUpdate::Route { prefix, len, group }) {
                    // What there is no room for is left out until there is.
                    Ok(()) | Err(FibError::ChunksFull { .. } | FibError::NodesFull { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
                self.naive.routes.insert((network, len), group);
            }
            Op::Remove(network, len) => {
                let prefix = self.family.address(network);
                let removed = FibUpdate::RouteRemoved { prefix, len };
                self.fib.update(&removed).unwrap();
                self.naive.routes.remove(&(network, len));
            }
            Op::Group(id, deed) => self.group(id, deed),
            Op::Restart(backwards) => self.restart(backwards),
        }
    }

    fn restart(&mut self, backwards: bool) {
        self.fib = self.kernel.writer();
        for (id, deed) in self.naive.groups.clone() {
            self.group(id, deed);
        }
        let mut routes: Vec<_> = self.naive.routes.clone().into_iter().collect();
        if backwards {
            routes.reverse();
        }
        let half = routes.len() / 2;
        for (n, ((network, len), group)) in routes.into_iter().enumerate() {
            if n == half {
                // Half of them are still the other process'.
                self.check();
            }
            self.carry_out(Op::Put(network, len, group));
        }
        self.fib.synced();
    }

    /// What the program may write for a destination: the kernel where its block is left out.
    fn allowed(&self, bits: u128) -> Vec<u32> {
        match self.fib.lookup(self.family.address(bits), 0).left_out {
            true => vec![KERNEL],
            false => self.naive.allowed(bits),
        }
    }

    fn check(&self) {
        let edges = self.naive.routes.keys();
        let mut probes: Vec<u128> = edges
            .flat_map(|(p, len)| {
                [*p, *p | !mask(*len), p.wrapping_sub(1), *p ^ 0x0155 << 96, *p ^ 0x0155 << 64]
            })
            .collect();
        probes.extend([0, 1, u128::MAX, 0x0a00_0001 << 96]);
        for (answer, address) in self.kernel.answers(self.family, &probes).into_iter().zip(&probes)
        {
            let allowed = self.allowed(*address);
            assert!(allowed.contains(&answer), "{address:#034x}: {answer:#x}, not of {allowed:x?}");
        }
    }
}

/// Prefixes in two crowded /16 and everywhere, of all lengths; the default route too.
fn prefix4() -> BoxedStrategy<(u128, u8)> {
    let crowded =
        (any::<u16>(), 10_u32..12).prop_map(|(low, high)| high << 24 | u32::from(low & 0x03ff));
    let address = prop_oneof![4 => crowded, 1 => any::<u32>()];
    let len = prop_oneof![8 => 20_u8..=32, 4 => 8_u8..20, 1 => Just(0_u8)];
    let address = address.prop_map(|address| u128::from(address) << 96);
    (address, len).prop_map(|(address, len)| (address & mask(len), len)).boxed()
}

fn prefix6() -> BoxedStrategy<(u128, u8)> {
    let crowded =
        any::<u32>().prop_map(|bits| 0x2001_0db8 << 96 | u128::from(bits & 0x0303_0303) << 72);
    let hosts = any::<u16>().prop_map(|bits| 0x2001_0db8 << 96 | u128::from(bits & 0x0707));
    let address = prop_oneof![4 => crowded, 2 => hosts, 1 => any::<u128>()];
    let len = prop_oneof![8 => 20_u8..=64, 3 => 65_u8..=128, 1 => 0_u8..20];
    (address, len).prop_map(|(address, len)| (address & mask(len), len)).boxed()
}

fn op(prefix: fn() -> BoxedStrategy<(u128, u8)>) -> impl Strategy<Value = Op> {
    let deed = prop_oneof![
        6 => prop::collection::vec(1_u8..20, 1..6).prop_map(Ok),
        1 => Just(Err(KERNEL)),
        1 => Just(Err(BLACKHOLE)),
    ];
    prop_oneof![
        60 => (prefix(), GROUPS).prop_map(|((p, len), group)| Op::Put(p, len, group)),
        30 => prefix().prop_map(|(p, len)| Op::Remove(p, len)),
        10 => (GROUPS, deed).prop_map(|(id, deed)| Op::Group(id, deed)),
        1 => any::<bool>().prop_map(Op::Restart),
    ]
}

#[test]
fn the_kernel_agrees_with_a_naive_table_through_changes_and_restarts() {
    agree(Family::V4, prefix4);
}

#[test]
fn the_kernel_agrees_with_a_naive_ipv6_table_through_changes_and_restarts() {
    agree(Family::V6, prefix6);
}

fn agree(family: Family, prefix: fn() -> BoxedStrategy<(u128, u8)>) {
    let kernel = Kernel::load();
    let config = ProptestConfig {
        cases: 3,
        max_shrink_iters: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let ops = prop::collection::vec(op(prefix), 40..120);
    let result = TestRunner::new(config).run(&ops, |ops| {
        let mut pair = Pair::new(&kernel, family);
        for (n, op) in ops.into_iter().enumerate() {
            pair.carry_out(op);
            if n % 20 == 0 {
                pair.check();
            }
        }
        pair.check();
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
