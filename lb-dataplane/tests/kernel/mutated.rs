//! Damaged packets by the hundred thousand through both programs, beside a reference that is slow and plain.
//!
//! `LBD_PACKETS` says how many for each hook, `LBD_LONG` asks for many, and `LBD_SEED` says where chance begins; a failure
//! names both.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Protocol::{Tcp, Udp};
use lb_dataplane::{Contract, Hook, Kind};

use crate::frame::{
    ACK, Carries, ECHO, ECHO6, FIN, Frame, RST, SYN, SYN_ACK, UDP, packet, pseudo_header, sum,
};
use crate::scene::{BOTH, Ended, Scene};

/// Packets for each hook unless `LBD_PACKETS` says otherwise.
const PACKETS: u64 = 100_000;
/// The same where `LBD_LONG` is set, as `cargo xtask test --long` does.
const MANY_PACKETS: u64 = 5_000_000;
const VIP: [&str; 2] = ["192.0.2.1:80", "[2001:db8:f::1]:80"];
const CLIENT: [&str; 2] = ["10.1.0.5:40000", "[2001:db8:1::5]:40000"];
const BACKEND: [&str; 2] = ["10.2.0.9:8080", "[2001:db8:2::9]:8080"];

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

/// A packet as the reference reads it: header by header, nothing assumed.
#[derive(Debug)]
struct Naive {
    from: IpAddr,
    to: IpAddr,
    ttl: u8,
    protocol: u8,
    /// Whether IPv4's header checksum is right; IPv6 has none.
    header_is_right: bool,
    is_fragment: bool,
    /// Where the transport begins and where the packet ends, in the frame.
    transport: std::ops::Range<usize>,
}

impl Naive {
    /// `None` where the headers contradict themselves or the frame.
    fn parse(frame: &[u8]) -> Option<Self> {
        let naive = match frame.get(12..14)? {
            [8, 0] => Self::v4(frame)?,
            [0x86, 0xdd] => Self::v6(frame)?,
            _ => return None,
        };
        let needed = match naive.protocol {
            _ if naive.is_fragment => 0,
            6 => 20,
            1 | 17 | 58 => 8,
            _ => 0,
        };
        (naive.transport.len() >= needed).then_some(naive)
    }

    fn v4(frame: &[u8]) -> Option<Self> {
        let ip = frame.get(14..)?;
        let header = ip.get(..usize::from(ip.first()? & 15) * 4).filter(|h| h.len() >= 20)?;
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header[0] >> 4 != 4 || len < header.len() || len > ip.len() {
            return None;
        }
        let address =
            |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
        Some(Self {
            from: address(12).into(),
            to: address(16).into(),
            ttl: header[8],
            protocol: header[9],
            header_is_right: sum(&[header]) == 0,
            is_fragment: (u16::from_be_bytes([header[6], header[7]]) & 0x3fff) != 0,
            transport: 14 + header.len()..14 + len,
        })
    }

    fn v6(frame: &[u8]) -> Option<Self> {
        let ip = frame.get(14..).filter(|ip| ip.len() >= 40 && ip[0] >> 4 == 6)?;
        let end = 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
        let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap());
        let (mut protocol, mut at, mut is_fragment) = (ip[6], 40, false);
        let whole = ip.get(..end)?;
        while matches!(protocol, 0 | 43 | 44 | 60) {
            let header = whole.get(at..at + 8)?;
            let len = if protocol == 44 { 8 } else { 8 + usize::from(header[1]) * 8 };
            let offset_and_more = u16::from_be_bytes([header[2], header[3]]) & 0xfff9;
            let is_later = protocol == 44 && offset_and_more > 7;
            is_fragment |= protocol == 44 && offset_and_more != 0;
            (protocol, at) = (header[0], at + len);
            if is_later {
                break;
            }
        }
        (at <= end).then(|| Self {
            from: address(8).into(),
            to: address(24).into(),
            ttl: ip[7],
            protocol,
            header_is_right: true,
            is_fragment,
            transport: 14 + at..14 + end,
        })
    }

    /// Whether the transport's checksum is right, summed anew; `None` where there is none to check.
    fn transport_is_right(&self, frame: &[u8]) -> Option<bool> {
        let bytes = &frame[self.transport.clone()];
        let checksum_at = self.checksum_at()?;
        if self.protocol == 17 && bytes[checksum_at..checksum_at + 2] == [0, 0] {
            return None;
        }
        Some(self.sum(bytes) == 0)
    }

    fn checksum_at(&self) -> Option<usize> {
        match (self.protocol, self.from) {
            _ if self.is_fragment => None,
            (6, _) => Some(16),
            (17, _) => Some(6),
            (1, IpAddr::V4(_)) | (58, IpAddr::V6(_)) => Some(2),
            _ => None,
        }
    }

    fn sum(&self, transport: &[u8]) -> u16 {
        let pseudo = pseudo_header(self.from, self.to, self.protocol, transport.len());
        if self.protocol == 1 { sum(&[transport]) } else { sum(&[&pseudo, transport]) }
    }

    /// Whether a router may forward it (RFC 1812 §5.3.7, RFC 4291 §2.5 to §2.7).
    fn may_be_forwarded(&self) -> bool {
        let is_never_a_source = |address: IpAddr| match address {
            IpAddr::V4(a) => matches!(a.octets()[0], 0 | 127 | 224..),
            IpAddr::V6(a) => {
                a.is_multicast()
                    || a.is_unspecified()
                    || a.is_loopback()
                    || a.to_ipv4_mapped().is_some()
            }
        };
        let is_link_local = match self.to {
            IpAddr::V4(a) => a.is_link_local(),
            IpAddr::V6(a) => a.is_unicast_link_local(),
        };
        self.ttl > 1
            && !is_never_a_source(self.from)
            && !is_never_a_source(self.to)
            && !is_link_local
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
    if let Some(at) = naive.checksum_at() {
        let at = naive.transport.start + at;
        frame[at..at + 2].fill(0);
        let checksum = naive.sum(&frame[naive.transport.clone()]);
        frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// What became of a packet, beside what the reference says.
fn check(ended: &Ended, frame: &[u8]) {
    let out = ended.bytes();
    let vips = VIP.map(|vip| vip.parse::<std::net::SocketAddr>().unwrap().ip());
    match (ended.reason.kind(), ended.reason.contract()) {
        (Kind::Pass, Contract::Original) => assert_eq!(out, frame, "passed on changed"),
        (Kind::Pass | Kind::Forward, _) => {
            let before = Naive::parse(frame).expect("the reference would not forward it");
            let after = Naive::parse(out).expect("what came out contradicts itself");
            let hops = u8::from(ended.reason.kind() == Kind::Forward);
            assert!(before.may_be_forwarded(), "the reference would not forward {before:?}");
            assert!(!vips.contains(&after.to), "to a VIP still: {after:?}");
            assert_eq!(after.ttl + hops, before.ttl, "the hop is counted once");
            assert_eq!(out.len(), frame.len());
            assert_eq!((after.protocol, &after.transport), (before.protocol, &before.transport));
            assert!(!before.header_is_right || after.header_is_right, "header: {after:?}");
            if before.transport_is_right(frame) == Some(true) {
                assert_eq!(after.transport_is_right(out), Some(true), "{before:?} to {after:?}");
            }
        }
        (Kind::Reply, _) => {
            let (before, after) = (Naive::parse(frame).unwrap(), Naive::parse(out).unwrap());
            assert_eq!((after.from, after.to), (before.to, before.from));
            assert!(vips.contains(&after.from));
        }
        (Kind::Drop, _) => {}
    }
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

/// How many of them went on.
fn run(hook: Hook, packets: u64, seed: u64) -> u64 {
    let mut scene = Scene::new();
    let services = [0, 1].map(|family| (VIP[family], [BACKEND[family]]));
    let services = services.iter().flat_map(|(vip, backends)| {
        [Tcp, Udp].map(|protocol| (*vip, protocol, Maglev, &backends[..]))
    });
    scene.apply(&services.collect::<Vec<_>>());
    let (seeds, mut chance) = (seeds(), Chance(seed));
    let mut forwarded = 0;
    for n in 0..packets {
        let mut frame = seeds[chance.below(seeds.len())].clone();
        damage(&mut frame, &mut chance);
        if hook == Hook::Tc && frame.len() < least_at_tc(&frame) {
            continue;
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let ended = scene.send_bytes(hook, &frame, None);
            check(&ended, &frame);
            ended.reason.kind()
        }));
        match outcome {
            Ok(kind) => forwarded += u64::from(kind == Kind::Forward),
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
