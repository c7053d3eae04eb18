//! What must hold whatever packets come while the table changes and time passes: the body of the fuzz target in
//! `lb-dataplane/fuzz`. Unit tests run it over the kept corpus and over scripts of chance.
//!
//! A script is a byte that says which world, and steps of eight bytes. Beside the packet path goes a flow table as one would
//! write it on a napkin, which knows nothing of states: who has a flow stays with its backend until a SYN begins another. What
//! comes out is held against what went in byte by byte, every sum made anew.

mod napkin;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use self::napkin::Napkin;
use crate::age::{Reset, mark, sweep};
use crate::family::{Family, V4, V6};
use crate::flow::{Flow as _, FlowKey};
use crate::frame::{ACK, Carries, ECHO, ECHO6, FIN, Frame, RST, SYN, SYN_ACK, UDP, packet};
use crate::model::{ModelPacket, ModelTables, Modelled, process, serving_any};
use crate::said::Ends;
use crate::service::{
    ALGORITHM_MAGLEV, ALGORITHM_ROUND_ROBIN, BackendEntry, MODE_GUE, MODE_IP_IN_IP, MODE_L2,
    MODE_NAT, ServiceEntry, SourceEntry, SourceList, VipKey,
};

/// Bytes of a step.
const STEP: usize = 8;
/// Steps of a script at most: more say no more, and take longer.
const MAX_STEPS: usize = 256;
/// Backends, whose last number is theirs.
const BACKENDS: u8 = 3;
/// First of the ports that flows come from where that is not their clients', and how many follow it: fewer than clients.
const FIRST_PORT: u16 = 2000;
const MORE_PORTS: u16 = 2;
const MORE_FRAGMENTS: u16 = 0x2000;
/// The service of echoes.
const ECHOES: u32 = 1;

/// How many packets came through as what.
pub type Reached = BTreeMap<&'static str, usize>;

/// How packets reach backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Serving {
    /// With their clients' addresses.
    Nat,
    /// From a port of ours.
    FullNat,
    /// The same, in the other family.
    Across,
    /// As they came, in a frame to the backend.
    Directly,
    /// As they came, within another packet.
    IpInIp,
    /// As they came, within a datagram.
    Gue,
}

use Serving::{Across, Directly, FullNat, Gue, IpInIp, Nat};

const ALL: [Serving; 6] = [Nat, FullNat, Across, Directly, IpInIp, Gue];

impl Serving {
    fn mode(self) -> u8 {
        let mode = match self {
            Nat | FullNat | Across => MODE_NAT,
            Directly => MODE_L2,
            IpInIp => MODE_IP_IN_IP,
            Gue => MODE_GUE,
        };
        mode as u8
    }

    /// Whether there is an address of ours before the backends.
    fn has_source(self) -> bool {
        !matches!(self, Nat | Directly)
    }

    /// Whether backends answer clients through here.
    fn sees_answers(self) -> bool {
        matches!(self, Nat | FullNat | Across)
    }
}

/// Runs a script at both hooks.
///
/// # Panics
///
/// Something does not hold.
pub fn script(bytes: &[u8]) -> Reached {
    let mut reached = run::<true>(bytes);
    for (what, count) in run::<false>(bytes) {
        *reached.entry(what).or_default() += count;
    }
    reached
}

fn run<const TC: bool>(bytes: &[u8]) -> Reached {
    let Some((first, steps)) = bytes.split_first() else { return Reached::new() };
    let mut world = World::new(*first);
    for step in steps.as_chunks::<STEP>().0.iter().take(MAX_STEPS) {
        world.step::<TC>(*step);
    }
    world.napkin.reached
}

/// An address, in IPv6 the same behind a prefix.
fn address(v4: [u8; 4], v6: bool) -> IpAddr {
    let [a, b, c, d] = v4;
    if v6 { [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d].into() } else { v4.into() }
}

/// The same as the maps have it.
fn bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

struct World {
    /// Clients are of IPv6.
    v6: bool,
    serving: Serving,
    tables: ModelTables,
    napkin: Napkin,
}

impl World {
    /// Bits: IPv6, by turns, whether backends answer echoes; the rest says how packets reach backends.
    fn new(first: u8) -> Self {
        let [v6, turns, echoes] = [1, 2, 4].map(|bit| first & bit != 0);
        let serving = ALL[usize::from(first >> 3) % ALL.len()];
        let napkin = Napkin::new(serving, v6, (1..=BACKENDS).collect());
        let backends: Vec<_> = (1..=BACKENDS).map(|n| bytes(napkin.backend(n))).collect();
        let vip = bytes(napkin.vip().ip());
        let algorithm = if turns { ALGORITHM_ROUND_ROBIN } else { ALGORITHM_MAGLEV };
        let mut tables = serving_any(vip, algorithm, &backends);
        let services = tables.services.values_mut().filter(|service| service.id == 0);
        let mut of_echoes = None;
        for service in services {
            service.mode = serving.mode();
            of_echoes = Some(*service);
        }
        if let (true, Some(service)) = (echoes, of_echoes) {
            let protocol = if v6 { 58 } else { 1 };
            let key = VipKey { address: V6::from_bytes(vip), port: [0; 2], protocol, pad: 0 };
            let service = ServiceEntry { id: ECHOES, ring_base: u32::from(BACKENDS), ..service };
            tables.services.insert(key, service);
        }
        // The same hosts once more, at no port.
        let of_echoes = tables.backends.iter();
        let of_echoes = of_echoes.map(|b| BackendEntry { port: [0; 2], service: ECHOES, ..*b });
        tables.backends = tables.backends.iter().copied().chain(of_echoes).collect();
        if serving.has_source() {
            let address = bytes(napkin.source());
            let (first_port, more_ports) = (FIRST_PORT, MORE_PORTS);
            tables.sources = vec![SourceEntry { address, first_port, more_ports, pad: 0 }];
            tables.backends.iter_mut().for_each(|backend| backend.sources = SourceList::new(0, 1));
        }
        let mut world = Self { v6, serving, tables, napkin };
        world.give_flows_to((1..=BACKENDS).collect());
        world
    }

    /// Another table: these backends take new flows, the others keep what they have.
    fn give_flows_to(&mut self, takers: BTreeSet<u8>) {
        let ring = |first: u8| {
            let mut ring: Vec<_> = takers.iter().map(|n| u32::from(first + n - 1)).collect();
            ring.resize(BACKENDS.into(), u32::MAX);
            ring
        };
        self.tables.rings = [ring(0), ring(BACKENDS)].concat();
        let services = self.tables.services.values_mut().filter(|s| s.id <= ECHOES);
        services.for_each(|service| service.ring_len = takers.len() as u32);
        self.napkin.takers = takers;
    }

    fn step<const TC: bool>(&mut self, step: [u8; STEP]) {
        let [what, a, b, ..] = step;
        match what % 16 {
            0 => self.give_flows_to((1..=BACKENDS).filter(|n| a & (1 << n) != 0).collect()),
            1 => self.tables.clock.set(self.tables.clock.get() + u32::from(a) * u32::from(b)),
            2 => {
                age(&self.tables, &self.tables.keys());
                age(&self.tables, &self.tables.keys6());
                self.napkin.forget_all_but(&self.there());
            }
            _ => self.packet::<TC>(step),
        }
        self.both_directions_are_there();
    }

    /// Clients that have flows, by the tables.
    fn there(&self) -> BTreeSet<(SocketAddr, u8)> {
        fn of<A: Family>(keys: &[FlowKey<A>]) -> BTreeSet<(SocketAddr, u8)> {
            let client = |key: &FlowKey<A>| {
                let address = std::net::Ipv6Addr::from(
                    <[u8; 16]>::try_from(key.source.to_v6().map(u32::to_ne_bytes).concat())
                        .expect("four words"),
                );
                let port = u16::from_be(key.source_port);
                (SocketAddr::new(address.to_canonical(), port), key.protocol())
            };
            keys.iter().map(client).collect()
        }
        if self.v6 { of(&self.tables.keys6()) } else { of(&self.tables.keys()) }
    }

    /// Both directions of a flow appear and go together.
    fn both_directions_are_there(&self) {
        fn check<A: Modelled>(tables: &ModelTables) {
            let flows = A::of(tables).flows.borrow();
            for (key, flow) in flows.iter() {
                let there = flow.translation::<A>().key_after(key.protocol).reversed();
                assert!(flows.contains_key(&there), "half a flow: {key:?}");
            }
        }
        let counts = (self.tables.keys().len(), self.tables.keys6().len());
        match self.serving {
            Nat | FullNat => {
                check::<V4>(&self.tables);
                check::<V6>(&self.tables);
            }
            Across => assert_eq!(counts.0, counts.1, "each in its own table"),
            // There is one direction only.
            Directly | IpInIp | Gue => {}
        }
    }

    /// A packet that nobody damaged yet.
    fn frame(&self, [what, who, carries, at, _, _, _, len]: [u8; STEP]) -> Frame {
        let client = SocketAddr::new(address([10, 1, 0, 1], self.v6), 1000 + u16::from(who & 3));
        let known = self.napkin.known(usize::from(who));
        let payload: Vec<u8> = (0..len % 64).collect();
        let (from, to) = match (what % 16, known) {
            (3..=8, _) => (client, self.napkin.vip()),
            (9, Some((there, after))) => return self.error(there, after, at, payload),
            (10..=13, Some((_, after))) => (after.to, after.from),
            (9..=14, _) => {
                (SocketAddr::new(self.napkin.backend(1 + (who >> 2) % BACKENDS), 8080), {
                    SocketAddr::new(
                        address([10, 1, 0, 1], self.napkin.backends_are_v6()),
                        client.port(),
                    )
                })
            }
            _ => (client, SocketAddr::new(address([10, 9, 0, 1], self.v6), 53)),
        };
        let echo = if from.is_ipv6() { ECHO6 } else { ECHO };
        let answer = Carries::Icmp { kind: if from.is_ipv6() { 129 } else { 0 }, code: 0 };
        let kinds = [SYN, SYN_ACK, ACK, FIN, RST, UDP, Carries::Udp { checksum: false }, echo];
        let carries = match known {
            // What answers a flow is of its kind.
            Some((_, after)) if what % 16 >= 10 && what % 16 <= 13 => match after.protocol {
                6 => kinds[1 + usize::from(carries) % 4],
                17 => kinds[5 + usize::from(carries) % 2],
                _ => answer,
            },
            _ => kinds[usize::from(carries) % kinds.len()],
        };
        let from = if carries == answer { SocketAddr::new(from.ip(), to.port()) } else { from };
        let options = vec![1; if what & 0x10 != 0 { 8 } else { 0 }];
        let frame =
            Frame { from, to, payload, options, ..packet(carries, "0.0.0.0:0", "0.0.0.0:0") };
        match (what & 0x20 != 0, len & 0x40 != 0) {
            (true, false) => Frame { fragment: MORE_FRAGMENTS, ..frame },
            (true, true) => {
                let carries = Carries::Other(protocol(&frame));
                Frame { carries, fragment: 2 + u16::from(len >> 7), ..frame }
            }
            _ => frame,
        }
    }

    /// A router's error about what a flow's backend was sent, or about an answer to its client.
    fn error(&self, there: Ends, after: Ends, at: u8, payload: Vec<u8>) -> Frame {
        let (about, of) = if at & 1 == 0 && self.serving.sees_answers() {
            (after, after.protocol)
        } else {
            (there.reversed(), there.protocol)
        };
        let v6 = about.from.is_ipv6();
        let carries = match (of, about.to.port()) {
            (6, _) => ACK,
            (17, _) => UDP,
            (_, 0) => {
                if v6 {
                    ECHO6
                } else {
                    ECHO
                }
            }
            _ => Carries::Icmp { kind: if v6 { 129 } else { 0 }, code: 0 },
        };
        // An echo's identifier is where its sender's port would be.
        let from = match about.from.port() {
            0 => SocketAddr::new(about.from.ip(), about.to.port()),
            _ => about.from,
        };
        let quoted =
            Frame { from, to: about.to, payload, ..packet(carries, "0.0.0.0:0", "0.0.0.0:0") };
        let (kinds, header) = if v6 {
            ([(1, 4), (2, 0), (3, 0), (4, 1)], 40)
        } else {
            ([(3, 3), (3, 4), (11, 0), (12, 0)], 20)
        };
        let (kind, code) = kinds[usize::from(at >> 1) % kinds.len()];
        let quoted = quoted.bytes()[14..].to_vec();
        let len = [header + 8, header + 20, quoted.len()][usize::from(at >> 3) % 3];
        let payload = quoted[..len.min(quoted.len())].to_vec();
        let router = SocketAddr::new(address([10, 3, 0, 254], v6), 9);
        let to = SocketAddr::new(about.from.ip(), 0);
        let error = packet(Carries::Icmp { kind, code }, "0.0.0.0:0", "0.0.0.0:0");
        Frame { from: router, to, payload, ..error }
    }

    fn packet<const TC: bool>(&mut self, step: [u8; STEP]) {
        let [what, _, _, at, to, at2, to2, _] = step;
        let mut bytes = self.frame(step).bytes();
        let is_damaged = what & 0x40 != 0;
        if is_damaged {
            for (at, to) in [(at, to), (at2, to2)] {
                // The MACs say whose frame it is.
                let at = 12 + usize::from(at) % (bytes.len() - 12);
                bytes[at] = to;
            }
            if what & 0x80 != 0 {
                bytes.truncate(12 + usize::from(to2) % (bytes.len() - 12));
            }
        }
        let evicted = self.tables.evicted.get();
        let mut held = ModelPacket::<TC>::new(bytes.clone());
        let reason = process(&mut held, &self.tables).reason;
        assert_eq!(self.tables.counted.borrow_mut().pop(), Some(reason), "counted once");
        assert!(self.tables.counted.borrow().is_empty(), "counted once");
        let there = self.there();
        // One that is half-open makes room, and one that is as good as over gives its port to another.
        if self.tables.evicted.get() != evicted || self.serving.has_source() {
            self.napkin.forget_all_but(&there);
        }
        self.napkin.check(&bytes, reason, &held.bytes);
        self.napkin.note_unseen(there);
    }
}

fn protocol(frame: &Frame) -> u8 {
    match frame.carries {
        Carries::Tcp { .. } => 6,
        Carries::Udp { .. } => 17,
        Carries::Sctp { .. } => 132,
        Carries::Icmp { .. } if frame.from.is_ipv6() => 58,
        Carries::Icmp { .. } => 1,
        Carries::Other(protocol) => protocol,
    }
}

/// Ageing's two passes, with nothing in between.
fn age<A: Modelled>(tables: &ModelTables, keys: &[FlowKey<A>])
where
    A::Other: Modelled,
{
    for key in keys {
        mark(tables, key);
    }
    for key in keys {
        sweep(tables, key, &mut Reset::default());
    }
}
