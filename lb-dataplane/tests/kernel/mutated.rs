//! Damaged packets by the hundred thousand through both programs, beside a reference that is slow and plain.
//!
//! `LBD_PACKETS` says how many for each hook, `LBD_LONG` asks for many, and `LBD_SEED` says where chance begins; a failure
//! names both.

use std::net::IpAddr;

use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Protocol::{Icmp, Sctp, Tcp, Udp};
use lb_dataplane::table::{Mode, Source, Table};
use lb_dataplane::{Contract, Hook, Kind, Reason};

use crate::frame::{ACK, Carries, ECHO, ECHO6, FIN, Frame, RST, SYN, SYN_ACK, UDP, packet, sum};
use crate::naive::Naive;
use crate::scene::{BOTH, Ended, Scene};

/// Packets for each hook unless `LBD_PACKETS` says otherwise.
const PACKETS: u64 = 100_000;
/// The same where `LBD_LONG` is set, as `cargo xtask test --long` does.
const MANY_PACKETS: u64 = 5_000_000;
const VIP: [&str; 2] = ["192.0.2.1:80", "[2001:db8:f::1]:80"];
const CLIENT: [&str; 2] = ["10.1.0.5:40000", "[2001:db8:1::5]:40000"];
const BACKEND: [&str; 2] = ["10.2.0.9:8080", "[2001:db8:2::9]:8080"];
/// Flows come from an address of ours; to backends of the same family, and of the other.
const FULL_NAT: [&str; 2] = ["192.0.2.3:80", "[2001:db8:f::3]:80"];
const ACROSS: [&str; 2] = ["192.0.2.4:80", "[2001:db8:f::4]:80"];
/// Backends answer themselves; packets are in others.
const DIRECT: [&str; 2] = ["192.0.2.5:80", "[2001:db8:f::5]:80"];
const TUNNEL: [&str; 2] = ["192.0.2.6:80", "[2001:db8:f::6]:80"];
const GUE: [&str; 2] = ["192.0.2.8:80", "[2001:db8:f::8]:80"];
/// Flows come from our address in the backends' own network.
const ONE_ARM: [&str; 2] = ["192.0.2.7:80", "[2001:db8:f::7]:80"];
const EVERY_VIP: [[&str; 2]; 7] = [VIP, FULL_NAT, ACROSS, DIRECT, TUNNEL, GUE, ONE_ARM];
/// Where flows of full NAT come from, and those of one-arm.
const SOURCES: [&str; 2] = ["192.0.2.200", "2001:db8:ff::2"];
const NEAR: [&str; 2] = ["10.2.0.1", "2001:db8:2::1"];
/// GUE's port (draft-ietf-intarea-gue).
const GUE_PORT: u16 = 6080;
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
    let mut frames = Vec::new();
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
        let quoted = packet(UDP, backend, client).bytes()[14..].to_vec();
        let kind = if family == 0 { 3 } else { 1 };
        let unreachable = Carries::Icmp { kind, code: 4 };
        frames.push(Frame { payload: quoted, ..packet(unreachable, client, vip) });
        for fragment in [0x2000, 0x2010, 0x0020] {
            let carries = if fragment == 0x2000 { UDP } else { Carries::Other(17) };
            frames.push(Frame { fragment, ..packet(carries, client, vip).payload(64) });
        }
    }
    frames.iter().map(Frame::bytes).collect()
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

fn is_of(vips: [&str; 2], address: IpAddr) -> bool {
    vips.iter().any(|vip| vip.parse::<std::net::SocketAddr>().unwrap().ip() == address)
}

fn is_any_vip(address: IpAddr) -> bool {
    EVERY_VIP.into_iter().any(|vips| is_of(vips, address))
}

/// What became of a packet, beside what the reference says.
fn check(ended: &Ended, frame: &[u8]) {
    let out = ended.bytes();
    match (ended.reason.kind(), ended.reason.contract()) {
        (Kind::Pass, Contract::Original) => assert_eq!(out, frame, "passed on changed"),
        (Kind::Pass | Kind::Forward, _) => {
            let before = Naive::parse(frame).expect("the reference would not forward it");
            assert!(before.may_be_forwarded(), "the reference would not forward {before:?}");
            let hops = u8::from(ended.reason.kind() == Kind::Forward);
            if ended.reason == Reason::ForwardedByTunnel {
                return check_tunnel(out, frame, &before);
            }
            let after = Naive::parse(out).expect("what came out contradicts itself");
            assert_eq!(after.ttl + hops, before.ttl, "the hop is counted once");
            if ended.reason == Reason::ForwardedDirectly {
                assert_eq!((after.from, after.to), (before.from, before.to));
            } else if !is_of(BACKEND, before.from) {
                // A forged client may have the address of another VIP: what it asked for is answered there.
                assert!(!is_any_vip(after.to), "to a VIP still: {after:?}");
            }
            if ended.reason == Reason::ForwardedToBackend {
                let ours = |of: [&str; 2]| of.iter().any(|a| a.parse() == Ok(after.from));
                let is_ours = match before.to {
                    to if is_of(ONE_ARM, to) => ours(NEAR),
                    to if is_of(FULL_NAT, to) || is_of(ACROSS, to) => ours(SOURCES),
                    _ => after.from == before.from,
                };
                assert!(is_ours, "from {} for {before:?}", after.from);
            }
            let is_across = out[12..14] != frame[12..14];
            if is_across {
                assert!(before.header_is_right && after.header_is_right, "{before:?} {after:?}");
            } else {
                assert_eq!(out.len(), frame.len());
                assert_eq!(
                    (after.protocol, &after.transport),
                    (before.protocol, &before.transport)
                );
                assert_eq!(before.header_is_right, after.header_is_right, "header: {after:?}");
            }
            // Right stays right and wrong stays wrong; who had none may get one between the families.
            match (before.transport_is_right(frame), after.transport_is_right(out)) {
                (None, None | Some(true)) => {}
                (before, after) => assert_eq!(before, after, "of {frame:02x?}: {out:02x?}"),
            }
        }
        (Kind::Reply, _) => {
            let (before, after) = (Naive::parse(frame).unwrap(), Naive::parse(out).unwrap());
            assert_eq!((after.from, after.to), (before.to, before.from));
            assert!(is_any_vip(after.from));
        }
        (Kind::Drop, _) => {}
    }
}

/// The packet is in another one, as it came but for a hop.
fn check_tunnel(out: &[u8], frame: &[u8], before: &Naive) {
    let outer = Naive::parse(out).expect("what came out contradicts itself");
    let is_gue = outer.protocol == 17;
    assert!(outer.header_is_right && (is_gue || [4, 41].contains(&outer.protocol)), "{outer:?}");
    // An ICMP error goes the way of what it quotes, whoever it is for.
    let vips = if is_gue { GUE } else { TUNNEL };
    assert!(is_of(vips, before.to) || [1, 58].contains(&before.protocol), "{before:?} {outer:?}");
    let (header, mut inside) = out.split_at(outer.transport.start);
    if is_gue {
        let word = |n: usize| u16::from_be_bytes([inside[n], inside[n + 1]]);
        let expected = (GUE_PORT, outer.transport.len(), 0);
        assert_eq!((word(2), usize::from(word(4)), word(6)), expected);
        inside = &inside[8..];
    }
    assert_eq!(header.len() - 14, if before.from.is_ipv4() { 20 } else { 40 });
    let inner = [&frame[..14], inside].concat();
    let after = Naive::parse(&inner).expect("what is inside contradicts itself");
    assert_eq!((after.from, after.to, after.ttl + 1), (before.from, before.to, before.ttl));
    assert_eq!(after.header_is_right, before.header_is_right);
    assert_eq!(inner[after.transport.clone()], frame[before.transport.clone()]);
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

/// Services of each way to reach a backend, in both families.
fn scene() -> Scene {
    let mut scene = Scene::new();
    let all = |vips: [&'static str; 2], backends: [&'static str; 2]| {
        let pairs = [(vips[0], backends[0]), (vips[1], backends[1])];
        pairs.into_iter().flat_map(|(vip, backend)| {
            [Tcp, Udp, Sctp].map(|protocol| (vip, protocol, Maglev, &*vec![backend].leak()))
        })
    };
    // Echoes to other VIPs are answered.
    let echoes = |vips: [&str; 2]| {
        let without_port = |at: &str| &*format!("{}:0", at.rsplit_once(':').unwrap().0).leak();
        let backends = BACKEND.map(|backend| &*vec![without_port(backend)].leak());
        [0, 1].map(|n| (without_port(vips[n]), Icmp, Maglev, backends[n]))
    };
    let [v4, v6] = BACKEND;
    let mut services = scene.services(&all(VIP, BACKEND).collect::<Vec<_>>());
    services.extend(scene.services(&echoes(VIP)));
    let source = |address: &str| {
        let address = address.parse().unwrap();
        Source { address, first_port: 2000, last_port: 60_000 }
    };
    scene.sources = NEAR.map(source).to_vec();
    services.extend(scene.services(&all(ONE_ARM, BACKEND).collect::<Vec<_>>()));
    scene.sources = SOURCES.map(source).to_vec();
    services.extend(scene.services(&all(FULL_NAT, BACKEND).collect::<Vec<_>>()));
    services.extend(scene.services(&echoes(FULL_NAT)));
    services.extend(scene.services(&all(ACROSS, [v6, v4]).collect::<Vec<_>>()));
    let same_port = ["10.2.0.9:80", "[2001:db8:2::9]:80"];
    for (mode, vips) in [(Mode::IpInIp, TUNNEL), (Mode::Gue, GUE)] {
        scene.mode = mode;
        services.extend(scene.services(&all(vips, same_port).collect::<Vec<_>>()));
    }
    scene.mode = Mode::L2;
    scene.sources.clear();
    services.extend(scene.services(&all(DIRECT, same_port).collect::<Vec<_>>()));
    scene.get().apply(&Table { services }).unwrap();
    scene
}

/// How many of them went on.
fn run(hook: Hook, packets: u64, seed: u64) -> u64 {
    let mut scene = scene();
    let (mut seeds, mut chance) = (seeds(), Chance(seed));
    let (conversations, mut forwarded) = (seeds.len(), 0);
    for n in 0..packets {
        let mut frame = seeds[chance.below(seeds.len())].clone();
        damage(&mut frame, &mut chance);
        if hook == Hook::Tc && frame.len() < least_at_tc(&frame) {
            continue;
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let ended = scene.send_bytes(hook, &frame, None);
            check(&ended, &frame);
            ended
        }));
        match outcome {
            Ok(ended) if ended.reason.kind() == Kind::Forward => {
                forwarded += 1;
                if ended.reason == Reason::ForwardedToBackend
                    && let Some(answer) = answer(ended.bytes())
                {
                    if seeds.len() < conversations + MOST_ANSWERS {
                        seeds.push(answer);
                    } else {
                        seeds[conversations + n as usize % MOST_ANSWERS] = answer;
                    }
                }
            }
            Ok(_) => {}
            Err(panic) => {
                eprintln!("{hook:?}: packet {n} of LBD_SEED={seed}: {frame:02x?}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    forwarded
}

#[test]
fn no_damaged_packet_is_forwarded_that_a_plain_router_would_drop_and_no_checksum_goes_wrong() {
    let usual = if std::env::var_os("LBD_LONG").is_some() { MANY_PACKETS } else { PACKETS };
    let (packets, seed) = (number("LBD_PACKETS", usual), number("LBD_SEED", 1));
    for hook in BOTH {
        let forwarded = run(hook, packets, seed);
        // It says nothing unless many come through.
        assert!(forwarded > packets / 10, "{hook:?}: {forwarded} of {packets}");
    }
}
