//! Damaged packets by the hundred thousand through both programs, and random ones, beside a reference that is slow and plain: it
//! has services and flows of its own, and says of each packet what may become of it.
//!
//! Services come and go, and all flows end at times. `LBD_PACKETS` says how many packets for each hook, `LBD_LONG` asks for
//! many, and `LBD_SEED` says where chance begins; a failure names both.

mod look;
mod reference;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use lb_dataplane::table::Algorithm::{Maglev, RoundRobin};
use lb_dataplane::table::Protocol::{Icmp, Sctp, Tcp, Udp};
use lb_dataplane::table::{Access, Algorithm, Mode, OnExhaustion, Source, Table};
use lb_dataplane::{Hook, Kind, Punts, Reason, Sizes, seconds};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use self::reference::Reference;
use crate::frame::{ACK, Carries, ECHO, ECHO6, FIN, Frame, RST, SYN, SYN_ACK, UDP, packet, sum};
use crate::naive::Naive;
use crate::said::{self, Ends};
use crate::scene::{BOTH, Ended, Scene, small};

/// Packets for each hook unless `LBD_PACKETS` says otherwise.
const PACKETS: u64 = 100_000;
/// The same where `LBD_LONG` is set, as `cargo xtask test --long` does.
const MANY_PACKETS: u64 = 5_000_000;
const VIP: [&str; 2] = ["192.0.2.1:80", "[2001:db8:f::1]:80"];
const CLIENT: [&str; 2] = ["10.1.0.5:40000", "[2001:db8:1::5]:40000"];
const BACKEND: [&str; 2] = ["10.2.0.9:8080", "[2001:db8:2::9]:8080"];
const OTHER_BACKEND: [&str; 2] = ["10.2.0.10:8080", "[2001:db8:2::a]:8080"];
/// The same backends at the same ports, which see clients' own: they cannot tell flows of both apart.
const TWIN: [&str; 2] = ["192.0.2.9:80", "[2001:db8:f::9]:80"];
/// Flows come from an address of ours; to backends of the same family, and of the other.
const FULL_NAT: [&str; 2] = ["192.0.2.3:80", "[2001:db8:f::3]:80"];
const ACROSS: [&str; 2] = ["192.0.2.4:80", "[2001:db8:f::4]:80"];
/// Backends answer themselves; packets are in others.
const DIRECT: [&str; 2] = ["192.0.2.5:80", "[2001:db8:f::5]:80"];
const TUNNEL: [&str; 2] = ["192.0.2.6:80", "[2001:db8:f::6]:80"];
const GUE: [&str; 2] = ["192.0.2.8:80", "[2001:db8:f::8]:80"];
/// Flows come from our address in the backends' own network.
const ONE_ARM: [&str; 2] = ["192.0.2.7:80", "[2001:db8:f::7]:80"];
const EVERY_VIP: [[&str; 2]; 8] = [VIP, TWIN, FULL_NAT, ACROSS, DIRECT, TUNNEL, GUE, ONE_ARM];
/// Where flows of full NAT come from, and those of one-arm.
const SOURCES: [&str; 2] = ["192.0.2.200", "2001:db8:ff::2"];
const NEAR: [&str; 2] = ["10.2.0.1", "2001:db8:2::1"];
/// Clients that the first VIP admits, and those of them that it does not.
const ADMITTED: [&str; 2] = ["10.1.0.0/16", "2001:db8:1::/48"];
const REFUSED: [&str; 2] = ["10.1.0.128/25", "2001:db8:1:8000::/49"];
/// Ports that follow one-arm's.
const MORE_PORTS: u16 = 3;
/// Packets between two times at which all flows end and other services begin.
const ERA: u64 = 10_000;
/// Of so many frames one is random but for its ethertype.
const RANDOM: usize = 16;
/// Answers to what was forwarded that are kept to be damaged: their ports are of lbd's choice.
const MOST_ANSWERS: usize = 64;

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Packets of conversations, each whole and right.
fn seeds() -> Vec<Vec<u8>> {
    let (mut frames, mut errors) = (Vec::new(), Vec::new());
    for family in [0, 1] {
        let (vip, client, backend) = (VIP[family], CLIENT[family], BACKEND[family]);
        let echo = if family == 0 { ECHO } else { ECHO6 };
        for carries in [SYN, ACK, FIN, RST, UDP, Carries::Udp { checksum: false }, echo] {
            frames.push(packet(carries, client, vip));
            frames.push(Frame { options: vec![1; 8], ..packet(carries, client, vip) });
            frames.push(packet(carries, client, backend).payload(300));
            for vips in &EVERY_VIP[1..] {
                frames.push(packet(carries, client, vips[family]));
            }
        }
        for vips in EVERY_VIP {
            for (chunk, tag) in [(1, 0), (0, 9), (6, 9), (10, 9)] {
                let carries = Carries::Sctp { chunk, flags: 0, tag };
                frames.push(packet(carries, client, vips[family]).payload(40));
            }
        }
        frames.extend([SYN_ACK, ACK, UDP].map(|carries| packet(carries, backend, client)));
        for carries in [ACK, UDP, Carries::Udp { checksum: false }] {
            // What a router towards the client has of an answer.
            errors.extend(error(&packet(carries, vip, client).bytes()[14..], 0));
        }
        for fragment in [0x2000, 0x2010, 0x0020] {
            let carries = if fragment == 0x2000 { UDP } else { Carries::Other(17) };
            frames.push(Frame { fragment, ..packet(carries, client, vip).payload(64) });
        }
    }
    frames.iter().map(Frame::bytes).chain(errors).collect()
}

/// An error about a packet, of which it quotes all but the last bytes, to who sent it.
fn error(packet: &[u8], chance: u64) -> Option<Vec<u8>> {
    let is_v4 = packet[0] >> 4 == 4;
    let (kinds, router) = if is_v4 {
        ([(3, 3), (3, 4), (11, 0), (12, 0)], "10.3.0.254:9")
    } else {
        ([(1, 4), (2, 0), (3, 0), (4, 1)], "[2001:db8:3::fe]:9")
    };
    let (kind, code) = kinds[chance as usize % 4];
    let header = if is_v4 { 20 } else { 40 };
    // As little as there may be, TCP's whole header, or all.
    let len = [header + 8, header + 20, packet.len()][chance as usize / 4 % 3].min(packet.len());
    let to = if is_v4 {
        IpAddr::from(<[u8; 4]>::try_from(packet.get(12..16)?).ok()?)
    } else {
        IpAddr::from(<[u8; 16]>::try_from(packet.get(8..24)?).ok()?)
    };
    let to = SocketAddr::new(to, 0).to_string();
    let error = self::packet(Carries::Icmp { kind, code }, router, &to);
    Some(Frame { payload: packet[..len].to_vec(), ..error }.bytes())
}

/// Damages a frame behind its MACs; then perhaps makes its checksums right again, so that the damage goes deeper.
fn damage(frame: &mut Vec<u8>, chance: &mut Chance) {
    for _ in 0..chance.below(4) {
        let at = 12 + chance.below(frame.len().min(90) - 12);
        match chance.below(8) {
            0 => frame.truncate(at.max(15)),
            1 => frame.extend((0..chance.below(40)).map(|n| n as u8)),
            2 => frame[at] = [0, 1, 0x7f, 0x80, 0xff][chance.below(5)],
            3 => frame[at] ^= 1 << chance.below(8),
            // Fields where lies pay: lengths, fragments, time to live, protocol, addresses.
            4 if frame.len() > 40 => frame[14 + chance.below(26)] = chance.next() as u8,
            _ => frame[at] = chance.next() as u8,
        }
        if frame.len() < 30 {
            return;
        }
    }
    if chance.below(2) == 0 {
        return;
    }
    let Some(naive) = Naive::parse(frame) else { return };
    if frame[12..14] == [8, 0] {
        let header = 14..naive.transport.start;
        frame[24..26].fill(0);
        let checksum = sum(&[&frame[header]]);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    }
    if naive.protocol == 132 && !naive.is_fragment {
        let sum = naive.crc(&frame[naive.transport.clone()]).to_le_bytes();
        let at = naive.transport.start + 8;
        frame[at..at + 4].copy_from_slice(&sum);
    } else if let Some(at) = naive.checksum_at() {
        let at = naive.transport.start + at;
        frame[at..at + 2].fill(0);
        let checksum = naive.sum(&frame[naive.transport.clone()]);
        frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Perhaps another sender's frame, and perhaps for somebody else: another host, all, or some.
fn readdress(frame: &mut [u8], chance: &mut Chance) {
    if chance.below(8) == 0 {
        frame[7 + chance.below(5)] = chance.next() as u8;
    }
    if chance.below(32) == 0 {
        match chance.below(3) {
            0 => frame[..6].fill(0xff),
            1 => frame[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 1]),
            _ => frame[chance.below(6)] ^= 1 << chance.below(8),
        }
    }
}

/// A frame of chance alone behind its MACs and, mostly, the ethertype and version of IP.
fn random(chance: &mut Chance) -> Vec<u8> {
    let mut frame = vec![0; 12];
    let len = 2 + chance.below(120);
    frame.extend((0..len).map(|_| chance.next() as u8));
    let (v4, v6) = ([8, 0, 0x45], [0x86, 0xdd, 0x60]);
    let ethertype = [&v4[..], &v6, &v4[..2], &v6[..2], &[]][chance.below(5)];
    let known = ethertype.len().min(frame.len() - 12);
    frame[12..12 + known].copy_from_slice(&ethertype[..known]);
    // A length that fits, so that it is not known by that alone.
    if let ([8, 0], Some(ip)) =
        ([frame[12], frame[13]], frame.get_mut(14..).filter(|ip| ip.len() > 20))
    {
        let len = (ip.len() as u16).to_be_bytes();
        ip[2..4].copy_from_slice(&len);
    }
    frame
}

/// What a backend would answer: the same the other way. The sums of addresses and ports stay; SCTP's is made anew.
fn answer(out: &[u8]) -> Option<Vec<u8>> {
    let naive = Naive::parse(out)?;
    let at = naive.transport.start;
    let mut frame = out.to_vec();
    frame[..6].fill(0);
    let (addresses, len) = if naive.from.is_ipv4() { (26, 4) } else { (22, 16) };
    let (first, second) = frame[addresses..addresses + 2 * len].split_at_mut(len);
    first.swap_with_slice(second);
    if let (false, 1 | 58) = (naive.is_fragment, naive.protocol) {
        frame[at] = if naive.protocol == 1 { 0 } else { 129 };
        frame[at + 2..at + 4].fill(0);
        let sum = Naive::parse(&frame)?.sum(&frame[naive.transport.clone()]);
        frame[at + 2..at + 4].copy_from_slice(&sum.to_be_bytes());
        return Some(frame);
    }
    if naive.is_fragment || ![6, 17, 132].contains(&naive.protocol) {
        return None;
    }
    let (first, second) = frame[at..at + 4].split_at_mut(2);
    first.swap_with_slice(second);
    if naive.protocol == 132 {
        let sum = naive.crc(&frame[naive.transport.clone()]).to_le_bytes();
        frame[at + 8..at + 12].copy_from_slice(&sum);
    }
    Some(frame)
}

/// A test run at TC takes no frame that is shorter than what its ethertype says.
fn least_at_tc(frame: &[u8]) -> usize {
    match frame[12..14] {
        [8, 0] => 14 + 20,
        [0x86, 0xdd] => 14 + 40,
        _ => 15,
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Services of each way to reach a backend, in both families. In every second era some are not there.
fn table(scene: &mut Scene, era: u64) -> Table {
    let all = |vips: [&'static str; 2], algorithm: Algorithm, backends: [Vec<&'static str>; 2]| {
        let [v4, v6] = backends.map(|backends| &*backends.leak());
        let pairs = [(vips[0], v4), (vips[1], v6)];
        pairs.into_iter().flat_map(move |(vip, backends)| {
            [Tcp, Udp, Sctp].map(|protocol| (vip, protocol, algorithm, backends))
        })
    };
    let without_port = |at: &str| &*format!("{}:0", at.rsplit_once(':').unwrap().0).leak();
    // Echoes to other VIPs are answered.
    let echoes = |vips: [&str; 2]| {
        let backends = BACKEND.map(|backend| &*vec![without_port(backend)].leak());
        [0, 1].map(|n| (without_port(vips[n]), Icmp, Maglev, backends[n]))
    };
    let ([v4, v6], [other4, other6]) = (BACKEND, OTHER_BACKEND);
    let both = || [vec![v4, other4], vec![v6, other6]];
    let same_port = || [vec!["10.2.0.9:80"], vec!["[2001:db8:2::9]:80"]];
    let is_odd = era % 2 == 1;
    let access =
        |(of, is_admitted): (&str, bool)| Access { prefix: of.parse().unwrap(), is_admitted };
    let of_family = |v4: bool| {
        let lists = [(REFUSED, false), (ADMITTED, true)];
        lists.map(|(pair, is_admitted)| access((pair[usize::from(!v4)], is_admitted)))
    };
    let mut services = scene.services(&all(VIP, Maglev, both()).collect::<Vec<_>>());
    services.extend(scene.services(&echoes(VIP)));
    for (key, service) in &mut services {
        service.resets_idle = key.protocol == Tcp;
        service.access = of_family(key.address.is_ipv4()).into();
    }
    services.extend(scene.services(&all(TWIN, Maglev, both()).collect::<Vec<_>>()));
    let source = |address: &str, ports: std::ops::RangeInclusive<u16>| {
        let (first_port, last_port) = ports.into_inner();
        Source { address: address.parse().unwrap(), first_port, last_port }
    };
    scene.sources = NEAR.map(|near| source(near, 2000..=60_000)).to_vec();
    scene.more_ports = MORE_PORTS;
    services.extend(scene.services(&all(ONE_ARM, RoundRobin, both()).collect::<Vec<_>>()));
    scene.more_ports = 0;
    // So few ports that none is free at times.
    scene.sources = SOURCES.map(|ours| source(ours, 2000..=2001)).to_vec();
    scene.template.on_exhaustion = OnExhaustion::Reset;
    let mut full = scene.services(&all(FULL_NAT, RoundRobin, both()).collect::<Vec<_>>());
    full.extend(scene.services(&echoes(FULL_NAT)));
    full.retain(|key, _| !(is_odd && key.protocol == Tcp));
    scene.template.on_exhaustion = OnExhaustion::Drop;
    services.extend(full);
    scene.sources = SOURCES.map(|ours| source(ours, 3000..=60_000)).to_vec();
    services.extend(scene.services(&all(ACROSS, Maglev, [vec![v6], vec![v4]]).collect::<Vec<_>>()));
    for (mode, vips) in [(Mode::IpInIp, TUNNEL), (Mode::Gue, GUE)] {
        scene.mode = mode;
        services.extend(scene.services(&all(vips, Maglev, same_port()).collect::<Vec<_>>()));
    }
    scene.mode = Mode::L2;
    scene.sources.clear();
    let mut direct = scene.services(&all(DIRECT, Maglev, same_port()).collect::<Vec<_>>());
    direct.retain(|key, _| !(is_odd && key.protocol == Udp));
    services.extend(direct);
    scene.mode = Mode::Nat;
    Table { services }
}

/// A dataplane, the reference, and the packets that they are given.
struct Run {
    hook: Hook,
    scene: Scene,
    reference: Reference,
    punts: Punts,
    seeds: Vec<Vec<u8>>,
    /// How many of them were there from the start.
    conversations: usize,
    chance: Chance,
    forwarded: u64,
}

impl Run {
    fn new(hook: Hook, seed: u64) -> Self {
        let sizes = Sizes { backends: 128, services: 128, ..small() };
        let mut scene = Scene::with_sizes(sizes);
        let punts = scene.get().take_punts().unwrap().unwrap();
        let (seeds, reference) = (seeds(), Reference::new(scene.options.sizes.flow_entries));
        let (conversations, chance, forwarded) = (seeds.len(), Chance(seed), 0);
        Self { hook, scene, reference, punts, seeds, conversations, chance, forwarded }
    }

    /// All flows end, and other services begin.
    fn begin_era(&mut self, era: u64) {
        self.scene.let_pass(seconds(1_000_000));
        let (_, resets) = self.scene.age();
        let left = self.scene.entries().len() + self.scene.entries6().len();
        assert_eq!(left, 0, "both directions of all flows are gone");
        let sides =
            |there: Ends, after: Ends| [there.reversed(), Ends { from: there.from, ..after }];
        let ends: HashSet<Ends> =
            self.reference.flows().flat_map(|flow| sides(flow.there, flow.after)).collect();
        for reset in resets {
            let told = told(&reset.packet);
            assert!(ends.contains(&told), "a RST to {told:?}");
            look::check_reset(&reset, told);
        }
        let table = table(&mut self.scene, era);
        self.scene.get().apply(&table).unwrap();
        self.reference.serve(&table);
    }

    fn frame(&mut self) -> Vec<u8> {
        loop {
            let mut frame = if self.chance.below(RANDOM) == 0 {
                random(&mut self.chance)
            } else {
                let mut frame = self.seeds[self.chance.below(self.seeds.len())].clone();
                damage(&mut frame, &mut self.chance);
                frame
            };
            readdress(&mut frame, &mut self.chance);
            if self.hook != Hook::Tc || frame.len() >= least_at_tc(&frame) {
                return frame;
            }
        }
    }

    /// Sends a packet, and others that have to do with it.
    fn send(&mut self, n: u64, frame: &[u8]) {
        let (ended, unclear) = self.send_alone(frame);
        if ended.reason.kind() == Kind::Forward {
            self.forwarded += 1;
        }
        let wants_answer = self.chance.below(3) != 0;
        let answer = match ended.reason {
            Reason::ForwardedToBackend if wants_answer => answer(ended.bytes()),
            Reason::ForwardedToBackend | Reason::ForwardedToClient => {
                error(&ended.bytes()[14..], self.chance.next())
            }
            _ => None,
        };
        if let Some(answer) = answer {
            if self.seeds.len() < self.conversations + MOST_ANSWERS {
                self.seeds.push(answer);
            } else {
                self.seeds[self.conversations + n as usize % MOST_ANSWERS] = answer;
            }
        }
        // A whole one that nothing is wrong with: it goes where the flow does, if there is one.
        if let Some(ends) = unclear {
            self.send_another(whole(ends));
        }
        if ended.reason.kind() == Kind::Forward && self.chance.below(4) == 0 {
            self.go_on(frame, ended.bytes());
        }
    }

    /// Sends an answer to what came out, and what its client says then; or the rest of a datagram.
    fn go_on(&mut self, frame: &[u8], out: &[u8]) {
        let Some(naive) = Naive::parse(frame) else { return };
        match said::read(frame, &naive) {
            (said::Said::Ends(ends, _) | said::Said::Asks(ends), None) => {
                if let Some(answer) = answer(out) {
                    self.send_alone(&answer);
                }
                self.send_another(whole(ends));
                self.send_another(whole(ends));
            }
            (said::Said::Ends(ends, _), Some(part)) if part.is_first && frame[17] != 0 => {
                let carries = Carries::Other(ends.protocol);
                let mut later = packet(carries, &ends.from.to_string(), &ends.to.to_string());
                later.fragment = 9;
                self.send_another(later);
            }
            _ => {}
        }
    }

    fn send_another(&mut self, frame: Frame) {
        self.send_alone(&frame.bytes());
    }

    /// Sends a packet and looks at what became of it; whose flow it may have begun although it died.
    fn send_alone(&mut self, frame: &[u8]) -> (Ended, Option<Ends>) {
        let ended = self.scene.send_bytes(self.hook, frame, None);
        let unclear = look::check(&mut self.reference, &ended, frame);
        while let Some(answer) = self.punts.next_answer(Instant::now()) {
            look::check_answer(&mut self.reference, &answer, frame);
        }
        (ended, unclear)
    }
}

/// The ends of the packet that a RST is, as its receiver sees them.
fn told(packet: &[u8]) -> Ends {
    let ethertype = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    let frame = [&[0; 12][..], &ethertype, packet].concat();
    match said::read(&frame, &Naive::parse(&frame).unwrap()).0 {
        said::Said::Ends(ends, _) => ends,
        other => panic!("a RST that is {other:?}"),
    }
}

/// A packet with these ends that asks for nothing.
fn whole(ends: Ends) -> Frame {
    let carries = match ends.protocol {
        6 => ACK,
        17 => UDP,
        1 => ECHO,
        58 => ECHO6,
        _ => Carries::Sctp { chunk: 0, flags: 0, tag: 9 },
    };
    packet(carries, &ends.from.to_string(), &ends.to.to_string())
}

/// What packets are looked at as, and of how many one is such at least.
const KINDS: [(&str, u64); 15] = [
    ("translated", 4),
    ("of a flow that has to be there", 400),
    ("of a flow that has to begin", 10),
    ("in a frame to a backend", 40),
    ("within another packet", 16),
    ("routed as it is", 16),
    ("routed that has to be", 25),
    ("a later part", 250),
    ("an error about TCP", 100),
    ("another error", 60),
    ("an echo that is answered", 80),
    ("an echo that has to be answered", 100),
    ("for another MAC", 60),
    ("a RST", 10_000),
    ("an ICMP error", 5000),
];

/// How many of them went on.
fn run(hook: Hook, packets: u64, seed: u64) -> u64 {
    let mut run = Run::new(hook, seed);
    for n in 0..packets {
        if n % ERA == 0 {
            run.begin_era(n / ERA);
        }
        let frame = run.frame();
        let send = std::panic::AssertUnwindSafe(|| run.send(n, &frame));
        if let Err(panic) = std::panic::catch_unwind(send) {
            eprintln!("{hook:?}: packet {n} of LBD_SEED={seed}: {frame:02x?}");
            std::panic::resume_unwind(panic);
        }
    }
    println!("{hook:?}: {} of {packets} went on, {:?}", run.forwarded, run.reference.tally);
    for (kind, of) in KINDS {
        let count = run.reference.tally.get(kind).copied().unwrap_or(0);
        assert!(count >= packets / of, "{hook:?}: of {packets} only {count} were {kind}");
    }
    run.forwarded
}

#[test]
fn nothing_damaged_or_random_is_forwarded_that_the_reference_drops_and_no_checksum_goes_wrong() {
    // Each CPU has its own places for half-open flows.
    let mut cpu = CpuSet::new();
    cpu.set(0).unwrap();
    sched_setaffinity(Pid::from_raw(0), &cpu).unwrap();
    let usual = if std::env::var_os("LBD_LONG").is_some() { MANY_PACKETS } else { PACKETS };
    let (packets, seed) = (number("LBD_PACKETS", usual), number("LBD_SEED", 1));
    for hook in BOTH {
        let forwarded = run(hook, packets, seed);
        // It says nothing unless many come through.
        assert!(forwarded > packets / 10, "{hook:?}: {forwarded} of {packets}");
    }
}
