//! A dataplane of a test's own, on a bpffs of its own, with a small network around it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZero;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use aya::maps::{HashMap, Map};
use aya::programs::{Program, TestRun, TestRunOptions};
use lb_dataplane::fib::{Action, FibUpdate, Member};
use lb_dataplane::flow_table::{Entry, FlowTable, bytes_of};
use lb_dataplane::table::{
    Access, Algorithm, Backend, BackendState, Mode, Protocol, Service, ServiceKey, Source, Table,
};
use lb_dataplane::{
    Answer, ClientPrefixes, Dataplane, Hook, Kind, Options, Reason, Sizes, Timeouts,
};
use lb_dataplane_common::family::{Family, V4, V6};
use lb_dataplane_common::flow::FlowKey;
use lb_dataplane_common::flow_table::{Key as _, SLOTS, buckets_for};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::frame::Frame;
use crate::spare::{self, Home};

pub(crate) const BOTH: [Hook; 2] = [Hook::Tc, Hook::Xdp];

/// Towards the client: interface 7.
pub(crate) const CLIENT_SIDE: Member = Member {
    ifindex: 7,
    source_mac: [2, 0, 0, 0, 0, 7],
    destination_mac: Some([2, 0, 0, 0, 0, 70]),
    gateway: None,
    mtu: 1500,
    weight: 1,
};
/// Towards the backends: interface 8.
pub(crate) const BACKEND_SIDE: Member = Member {
    ifindex: 8,
    source_mac: [2, 0, 0, 0, 0, 8],
    destination_mac: Some([2, 0, 0, 0, 0, 80]),
    gateway: None,
    mtu: 1500,
    weight: 1,
};

/// A dataplane under test.
pub(crate) struct Scene {
    pub(crate) dataplane: Option<Dataplane>,
    pub(crate) options: Options,
    /// Where flows to backends come from.
    pub(crate) sources: Vec<Source>,
    /// Who may come.
    pub(crate) access: Vec<Access>,
    /// Whether packets go on where there is no room for a flow.
    pub(crate) hashes_when_full: bool,
    /// How packets reach backends.
    pub(crate) mode: Mode,
    /// Flows at most of a service, of a client and of a backend; 0 for no bound.
    pub(crate) bounds: [u32; 3],
    /// How many ports follow each VIP's own.
    pub(crate) more_ports: u16,
    /// What else services say.
    pub(crate) template: Service,
    /// Ticks for which a client stays with a backend.
    pub(crate) affinity: Option<NonZero<u32>>,
    // Dropped last: the bpffs.
    home: Option<Home>,
}

/// How a packet ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) reason: Reason,
    /// The hook's return code in words.
    pub(crate) code: &'static str,
    pub(crate) ifindex: u32,
    /// Whom the kernel is to look for where it has a neighbour of IPv4, and of IPv6.
    pub(crate) resolve: Ipv4Addr,
    pub(crate) resolve6: Ipv6Addr,
    bytes: Vec<u8>,
}

impl Ended {
    /// The packet as it came out, every checksum verified.
    pub(crate) fn frame(&self) -> Frame {
        Frame::parse(&self.bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Entries that a flow table takes at most that was to have room for so many, if each of its slots is taken.
pub(crate) fn room(entries: u32) -> u32 {
    buckets_for(entries) * SLOTS
}

pub(crate) fn small() -> Sizes {
    Sizes {
        flow_entries: 4096,
        flow_entries6: 4096,
        services: 64,
        backends: 64,
        sources: 64,
        access: 64,
        counted_clients: 1024,
        affinities: 1024,
        ring_pages: 256,
        fib_second_level_pages: 16,
        fib6_pages: 16,
        fib_group_pages: 1,
        fib_bucket_pages: 1,
        fib_members: 1024,
        early_fragments: 256,
    }
}

/// Sizes with so many places for half-open flows on each CPU, however many of those there may be.
pub(crate) fn with_half_open(places: u32) -> Sizes {
    let cpus = u32::try_from(aya::util::nr_cpus().unwrap()).unwrap();
    let entries = 8 * places * cpus;
    Sizes { flow_entries: entries, flow_entries6: entries, ..small() }
}

impl Scene {
    /// Clients at 10.1.0.0/16, backends at 10.2.0.0/16.
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(crate) fn with_sizes(sizes: Sizes) -> Self {
        Self::with(|options| options.sizes = sizes)
    }

    pub(crate) fn with(change: impl FnOnce(&mut Options)) -> Self {
        Self::at(spare::take, change)
    }

    /// One that no other scene was before: no program is loaded.
    pub(crate) fn untouched() -> Self {
        let home = |options: &mut Options| {
            let home = Home::new();
            options.pin_dir = home.pin_dir();
            home
        };
        Self::at(home, |_| ())
    }

    fn at(home: impl FnOnce(&mut Options) -> Home, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options {
            pin_dir: PathBuf::new(),
            sizes: small(),
            timeouts: Timeouts::default(),
            client_prefixes: ClientPrefixes::default(),
            early_fragments_for: Duration::from_secs(2),
            sample_every: 0,
            redirect_to_peer: Vec::new(),
            record: true,
        };
        change(&mut options);
        let home = home(&mut options);
        let mut scene = Self {
            dataplane: None,
            options,
            sources: Vec::new(),
            affinity: None,
            more_ports: 0,
            mode: Mode::Nat,
            hashes_when_full: false,
            bounds: [0; 3],
            access: Vec::new(),
            template: Service::default(),
            home: Some(home),
        };
        scene.open();
        scene.get().fib_apply(&routes()).unwrap();
        let mut macs: HashMap<_, u32, [u8; 8]> =
            scene.get().map_mut("IFACES").unwrap().try_into().unwrap();
        macs.insert(1, [0; 8], 0).unwrap();
        scene
    }

    /// Opens the dataplane (again).
    pub(crate) fn open(&mut self) {
        self.dataplane = None;
        self.dataplane = Some(Dataplane::open(&self.options).unwrap());
    }

    pub(crate) fn get(&mut self) -> &mut Dataplane {
        self.dataplane.as_mut().unwrap()
    }

    /// Serves one VIP.
    pub(crate) fn serve(
        &mut self,
        vip: &str,
        protocol: Protocol,
        algorithm: Algorithm,
        backends: &[&str],
    ) {
        self.apply(&[(vip, protocol, algorithm, backends)]);
    }

    /// Serves these VIPs and nothing else; `draining 10.2.0.1:80` is a backend that takes no new flows, `failed 10.2.0.1:80`
    /// one whose checks fail, `3x 10.2.0.1:80` one with a weight of 3.
    pub(crate) fn apply(&mut self, vips: &[(&str, Protocol, Algorithm, &[&str])]) {
        let services = self.services(vips);
        self.get().apply(&Table { services }).unwrap();
    }

    /// Serves VIPs whose flows keep their clients' addresses, and others whose flows come from these sources.
    pub(crate) fn apply_with(
        &mut self,
        vips: &[(&str, Protocol, Algorithm, &[&str])],
        translated: &[(&str, Protocol, Algorithm, &[&str])],
        sources: &[Source],
    ) {
        let mut services = self.services(vips);
        self.sources = sources.to_vec();
        services.extend(self.services(translated));
        self.get().apply(&Table { services }).unwrap();
    }

    pub(crate) fn services(
        &self,
        vips: &[(&str, Protocol, Algorithm, &[&str])],
    ) -> BTreeMap<ServiceKey, Service> {
        let sources: Arc<[Source]> = self.sources.iter().copied().collect();
        let bounds = self.bounds.map(NonZero::new);
        let mut services = BTreeMap::new();
        for (vip, protocol, algorithm, backends) in vips {
            let vip: std::net::SocketAddr = vip.parse().unwrap();
            let backends = backends
                .iter()
                .map(|b| match b.split_once(' ') {
                    Some(("draining", b)) => (b, BackendState::Draining, 1),
                    Some(("failed", b)) => (b, BackendState::Failed, 1),
                    Some((weight, b)) => {
                        let weight = weight.strip_suffix('x').unwrap().parse().unwrap();
                        (b, BackendState::Active, weight)
                    }
                    None => (*b, BackendState::Active, 1),
                })
                .map(|(b, state, weight)| {
                    let b: std::net::SocketAddr = b.parse().unwrap();
                    let of_family = |s: &&Source| s.address.is_ipv4() == b.is_ipv4();
                    let sources: Arc<[Source]> =
                        sources.iter().filter(of_family).copied().collect();
                    let max_flows = bounds[2];
                    Backend { address: b.ip(), port: b.port(), weight, state, max_flows, sources }
                })
                .collect();
            services.insert(
                ServiceKey { address: vip.ip(), port: vip.port(), protocol: *protocol },
                Service {
                    algorithm: *algorithm,
                    affinity: self.affinity,
                    access: self.access.iter().copied().collect(),
                    backends,
                    more_ports: self.more_ports,
                    mode: self.mode,
                    hashes_when_full: self.hashes_when_full,
                    max_flows: bounds[0],
                    max_flows_per_client: bounds[1],
                    ..self.template.clone()
                },
            );
        }
        services
    }

    /// Sends a packet through the program of a hook.
    pub(crate) fn send(&mut self, hook: Hook, frame: &Frame) -> Ended {
        self.send_bytes(hook, &frame.bytes(), None)
    }

    pub(crate) fn send_bytes(&mut self, hook: Hook, bytes: &[u8], context: Option<&[u8]>) -> Ended {
        let dataplane = self.get();
        let before = dataplane.record().unwrap().packets;
        let mut out = vec![0; bytes.len() + 64];
        let options = TestRunOptions {
            data_in: Some(bytes),
            data_out: Some(&mut out),
            ctx_in: context,
            ..TestRunOptions::new()
        };
        let result = match dataplane.program(hook).unwrap() {
            Program::SchedClassifier(program) => program.test_run(options),
            Program::Xdp(program) => program.test_run(options),
            other => panic!("{other:?}"),
        }
        .unwrap();
        out.truncate(result.data_size_out as usize);
        let record = dataplane.record().unwrap();
        assert_eq!(record.packets, before + 1, "one record for one packet");
        let reason = Reason::from_index(record.reason).unwrap();
        let code = code(hook, result.return_value);
        assert_eq!(code, expected_code(hook, reason.kind()), "return code for {reason:?}");
        Ended {
            reason,
            code,
            ifindex: record.ifindex,
            resolve: Ipv4Addr::from(record.resolve[0].to_ne_bytes()),
            resolve6: octets(record.resolve).into(),
            bytes: out,
        }
    }

    /// Sends a packet through TC of which a device has made the sum (`CHECKSUM_COMPLETE`). The kernel compares it with that of
    /// what comes out, and fails the run if it is another. How it ended.
    pub(crate) fn send_summed(&mut self, bytes: &[u8]) -> Reason {
        let dataplane = self.get();
        let fd = dataplane.program(Hook::Tc).unwrap().fd().unwrap().as_fd().as_raw_fd();
        let mut run = Run {
            program: fd.cast_unsigned(),
            len_in: u32::try_from(bytes.len()).unwrap(),
            data_in: bytes.as_ptr() as u64,
            repeat: 1,
            flags: SUMMED,
            ..Run::default()
        };
        if let Err(error) = spare::bpf(TEST_RUN, &mut run) {
            panic!("{error}: {:?}", Reason::from_index(dataplane.record().unwrap().reason));
        }
        Reason::from_index(dataplane.record().unwrap().reason).unwrap()
    }

    /// Sends packets through the program of a hook from several CPUs at a time, each its own in order; the packets that came out.
    pub(crate) fn send_at_once(&mut self, hook: Hook, threads: &[Vec<Frame>]) -> Vec<Frame> {
        let fd = self.get().program(hook).unwrap().fd().unwrap().as_fd().as_raw_fd();
        let begin = Barrier::new(threads.len());
        let cpus = std::thread::available_parallelism().unwrap().get();
        let send = |n: usize, frames: &[Frame]| {
            let mut cpu = CpuSet::new();
            cpu.set(n % cpus).unwrap();
            sched_setaffinity(Pid::from_raw(0), &cpu).unwrap();
            let packets: Vec<_> = frames.iter().map(Frame::bytes).collect();
            let mut sent: Vec<_> =
                packets.iter().map(|bytes| vec![0_u8; bytes.len() + 64]).collect();
            begin.wait();
            for (bytes, out) in packets.iter().zip(&mut sent) {
                let mut run = Run {
                    program: fd.cast_unsigned(),
                    len_in: u32::try_from(bytes.len()).unwrap(),
                    data_in: bytes.as_ptr() as u64,
                    len_out: u32::try_from(out.len()).unwrap(),
                    data_out: out.as_mut_ptr() as u64,
                    repeat: 1,
                    ..Run::default()
                };
                spare::bpf(TEST_RUN, &mut run).unwrap();
                out.truncate(run.len_out as usize);
            }
            sent.iter().map(|bytes| Frame::parse(bytes)).collect::<Vec<_>>()
        };
        std::thread::scope(|scope| {
            let threads = threads.iter().enumerate();
            let threads: Vec<_> =
                threads.map(|(n, frames)| scope.spawn(move || send(n, frames))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        })
    }

    /// The flow table.
    pub(crate) fn flows(&mut self) -> FlowTable<V4> {
        flow_table(self.get().map_mut("FLOWS").unwrap())
    }

    /// The same of IPv6.
    pub(crate) fn flows6(&mut self) -> FlowTable<V6> {
        flow_table(self.get().map_mut("FLOWS6").unwrap())
    }

    /// All entries of the flow table of IPv6.
    pub(crate) fn entries6(&mut self) -> Vec<([u8; 40], [u8; 64])> {
        bytes(self.flows6().entries())
    }

    /// Makes it so that every packet was `ticks` earlier than it was.
    pub(crate) fn let_pass(&mut self, ticks: u32) {
        const LAST_SEEN: std::ops::Range<usize> = 56..60;
        let earlier = |value: &mut [u8; 64], at: std::ops::Range<usize>| {
            let seen = u32::from_ne_bytes(value[at.clone()].try_into().unwrap());
            value[at].copy_from_slice(&seen.wrapping_sub(ticks).to_ne_bytes());
        };
        self.flows().change(|value| earlier(value, LAST_SEEN));
        self.flows6().change(|value| earlier(value, LAST_SEEN));
    }

    /// A whole scan: flows removed, and what their sides are to hear.
    pub(crate) fn age(&mut self) -> (u32, Vec<Answer>) {
        let (mut removed, mut resets) = (0, Vec::new());
        loop {
            let aged = self.get().age().unwrap();
            removed += aged.removed;
            resets.extend(aged.resets);
            if aged.wrapped {
                return (removed, resets);
            }
        }
    }

    /// All entries of the flow table.
    pub(crate) fn entries(&mut self) -> Vec<([u8; 16], [u8; 64])> {
        bytes(self.flows().entries())
    }

    /// The pins of the programs that were loaded, by name.
    pub(crate) fn programs(&self) -> Vec<PathBuf> {
        self.of_builds("programs")
    }

    /// Where they lead on to.
    pub(crate) fn arrays(&self) -> Vec<PathBuf> {
        self.of_builds("arrays")
    }

    fn of_builds(&self, kind: &str) -> Vec<PathBuf> {
        let is_such = |path: &PathBuf| {
            path.parent().and_then(Path::parent).is_some_and(|of| of.ends_with(kind))
        };
        let mut all: Vec<_> = self.pins().into_iter().filter(is_such).collect();
        all.sort();
        all
    }

    /// Everything that is pinned.
    pub(crate) fn pins(&self) -> Vec<PathBuf> {
        fn below(folder: &Path) -> Vec<PathBuf> {
            let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            entries.flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] }).collect()
        }
        below(&self.options.pin_dir)
    }

    pub(crate) fn count(&mut self, reason: Reason) -> u64 {
        let counts = self.get().reasons().unwrap();
        counts.iter().find(|c| c.reason == reason).unwrap().packets
    }
}

const TEST_RUN: i64 = 10;
/// `BPF_F_TEST_SKB_CHECKSUM_COMPLETE`.
const SUMMED: u32 = 1 << 2;

/// What the kernel asks of a test run.
#[repr(C)]
#[derive(Default)]
struct Run {
    program: u32,
    result: u32,
    len_in: u32,
    len_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_len_in: u32,
    context_len_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    pad: u32,
}

impl Drop for Scene {
    fn drop(&mut self) {
        let is_whole = self.dataplane.take().is_some() && !std::thread::panicking();
        if let Some(home) = self.home.take_if(|_| is_whole) {
            spare::keep(&self.options, home);
        }
    }
}

/// An address as maps have it.
fn octets(words: [u32; 4]) -> [u8; 16] {
    let bytes = words.map(u32::to_ne_bytes).concat();
    bytes.try_into().unwrap()
}

fn routes() -> Vec<FibUpdate> {
    let group = |id, action| FibUpdate::Group { id, action };
    let route =
        |prefix: [u8; 4], len, group| FibUpdate::Route { prefix: prefix.into(), len, group };
    let route6 = |group: u16| {
        let prefix = Ipv6Addr::new(0x2001, 0xdb8, group, 0, 0, 0, 0, 0).into();
        FibUpdate::Route { prefix, len: 48, group: group.into() }
    };
    vec![
        group(1, Action::Forward(vec![CLIENT_SIDE])),
        group(2, Action::Forward(vec![BACKEND_SIDE])),
        group(3, Action::Kernel),
        group(4, Action::Blackhole),
        group(5, Action::Forward(vec![Member { destination_mac: None, ..BACKEND_SIDE }])),
        group(
            6,
            Action::Forward(vec![Member {
                destination_mac: None,
                gateway: Some(Ipv4Addr::new(10, 2, 0, 254).into()),
                ..BACKEND_SIDE
            }]),
        ),
        route([10, 1, 0, 0], 16, 1),
        route([10, 2, 0, 0], 16, 2),
        route([10, 3, 0, 0], 16, 3),
        route([10, 4, 0, 0], 16, 4),
        route([10, 5, 0, 0], 16, 5),
        route([10, 6, 0, 0], 16, 6),
        route6(1),
        route6(2),
        route6(3),
        route6(4),
        route6(5),
        route6(6),
    ]
}

fn code(hook: Hook, value: u32) -> &'static str {
    match (hook, value) {
        (Hook::Tc, u32::MAX) => "next",
        (Hook::Tc, 2) => "shot",
        (Hook::Tc, 7) => "redirect",
        (Hook::Xdp, 1) => "drop",
        (Hook::Xdp, 2) => "pass",
        (Hook::Xdp, 4) => "redirect",
        other => panic!("return code {other:?}"),
    }
}

fn expected_code(hook: Hook, kind: Kind) -> &'static str {
    match (hook, kind) {
        (_, Kind::Forward | Kind::Reply) => "redirect",
        (Hook::Tc, Kind::Pass) => "next",
        (Hook::Tc, Kind::Drop) => "shot",
        (Hook::Xdp | Hook::GenericXdp, Kind::Pass) => "pass",
        (Hook::Xdp | Hook::GenericXdp, Kind::Drop) => "drop",
    }
}

fn flow_table<A: Family>(map: &Map) -> FlowTable<A> {
    let Map::Array(array) = map else { panic!("{map:?}") };
    FlowTable::map(array.fd(), array.info().unwrap().max_entries()).unwrap()
}

/// Entries as they are in memory.
fn bytes<A: Family, const N: usize>(entries: Vec<Entry<A>>) -> Vec<([u8; N], [u8; 64])> {
    let key = |key: FlowKey<A>| {
        let words = (0..FlowKey::<A>::WORDS).map(|n| key.word(n));
        words.flat_map(u64::to_ne_bytes).collect::<Vec<_>>().try_into().unwrap()
    };
    entries.into_iter().map(|(of, entry)| (key(of), bytes_of(&entry))).collect()
}
