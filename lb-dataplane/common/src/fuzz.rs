//! What must hold whatever packets come while the table changes and time passes: the body of the fuzz target in
//! `lb-dataplane/fuzz`. Unit tests run it over the kept corpus and over scripts of chance.
//!
//! A script is a byte that says which world, and steps of eight bytes. Beside the packet path goes a flow table as one would
//! write it on a napkin, which knows nothing of states: who has a flow stays with its backend until a SYN begins another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::age::{Reset, mark, sweep};
use crate::family::Family;
use crate::flow::{Flow as _, FlowKey};
use crate::frame::{ACK, Carries, ECHO, ECHO6, FIN, Frame, RST, SYN, SYN_ACK, UDP, packet};
use crate::model::{ModelPacket, ModelTables, Modelled, process, serving_any};
use crate::naive::Naive;
use crate::reason::{Contract, Kind, Reason};
use crate::service::{ALGORITHM_MAGLEV, ALGORITHM_ROUND_ROBIN};

/// Bytes of a step.
const STEP: usize = 8;
/// Steps of a script at most: more say no more, and take longer.
const MAX_STEPS: usize = 256;
/// Backends, whose last number is theirs.
const BACKENDS: u8 = 3;

/// How many packets reached a backend, and how many answers their client.
pub type Reached = [usize; 2];

/// Runs a script at both hooks.
///
/// # Panics
///
/// Something does not hold.
pub fn script(bytes: &[u8]) -> Reached {
    let [tc, xdp] = [run::<true>(bytes), run::<false>(bytes)];
    [tc[0] + xdp[0], tc[1] + xdp[1]]
}

fn run<const TC: bool>(bytes: &[u8]) -> Reached {
    let Some((first, steps)) = bytes.split_first() else { return [0; 2] };
    let mut world = World::new(first & 1 != 0, first & 2 != 0);
    for step in steps.as_chunks::<STEP>().0.iter().take(MAX_STEPS) {
        world.step::<TC>(*step);
    }
    world.reached
}

/// An address, in IPv6 the same behind a prefix.
fn address(v4: [u8; 4], v6: bool) -> IpAddr {
    let [a, b, c, d] = v4;
    if v6 { [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d].into() } else { v4.into() }
}

struct World {
    v6: bool,
    tables: ModelTables,
    /// Client and protocol to backend; `None` where the packet that began it did not get there, or not whole.
    flows: BTreeMap<(SocketAddr, u8), Option<SocketAddr>>,
    /// Backends that take new flows.
    takers: BTreeSet<u8>,
    reached: Reached,
}

impl World {
    fn new(v6: bool, turns: bool) -> Self {
        let bytes = |v4| match address(v4, v6) {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        let backends: Vec<_> = (1..=BACKENDS).map(|n| bytes([10, 2, 0, n])).collect();
        let algorithm = if turns { ALGORITHM_ROUND_ROBIN } else { ALGORITHM_MAGLEV };
        let tables = serving_any(bytes([192, 0, 2, 1]), algorithm, &backends);
        let takers = (1..=BACKENDS).collect();
        Self { v6, tables, flows: BTreeMap::new(), takers, reached: [0; 2] }
    }

    fn vip(&self) -> SocketAddr {
        SocketAddr::new(address([192, 0, 2, 1], self.v6), 80)
    }

    fn step<const TC: bool>(&mut self, step: [u8; STEP]) {
        let [what, a, b, ..] = step;
        match what % 16 {
            // Another table: these backends take new flows, the others keep what they have.
            0 => {
                self.takers = (1..=BACKENDS).filter(|n| a & (1 << n) != 0).collect();
                self.tables.rings = self.takers.iter().map(|n| u32::from(n - 1)).collect();
                let ring_len = self.takers.len() as u32;
                let services = self.tables.services.values_mut();
                services.filter(|s| s.id == 0).for_each(|service| service.ring_len = ring_len);
            }
            1 => self.tables.clock.set(self.tables.clock.get() + u32::from(a) * u32::from(b)),
            2 => {
                let (tables, v6) = (&self.tables, self.v6);
                if v6 {
                    age(tables, &tables.keys6())
                } else {
                    age(tables, &tables.keys())
                }
                self.forget_gone();
            }
            _ => self.packet::<TC>(step),
        }
        self.both_directions_are_there();
    }

    /// A flow that ended is one no more.
    fn forget_gone(&mut self) {
        let there = self.there();
        self.flows.retain(|key, _| there.contains(key));
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
        check::<crate::family::V4>(&self.tables);
        check::<crate::family::V6>(&self.tables);
    }

    fn packet<const TC: bool>(&mut self, [what, who, carries, at, to, at2, to2, len]: [u8; STEP]) {
        let client = SocketAddr::new(address([10, 1, 0, 1], self.v6), 1000 + u16::from(who & 3));
        let (from, destination) = match what % 16 {
            3..=9 => (client, self.vip()),
            10..=14 => {
                let backend = address([10, 2, 0, 1 + (who >> 2) % BACKENDS], self.v6);
                (SocketAddr::new(backend, 8080), client)
            }
            _ => (client, SocketAddr::new(address([10, 9, 0, 1], self.v6), 53)),
        };
        let echo = if self.v6 { ECHO6 } else { ECHO };
        let kinds = [SYN, SYN_ACK, ACK, FIN, RST, UDP, Carries::Udp { checksum: false }, echo];
        let kind = kinds[usize::from(carries) % kinds.len()];
        let frame = packet(kind, "0.0.0.0:0", "0.0.0.0:0");
        let payload = (0..len % 64).collect();
        let mut bytes = Frame { from, to: destination, payload, ..frame }.bytes();
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
        self.check(&bytes, reason, &held.bytes);
        for key in self.there() {
            self.flows.entry(key).or_insert(None);
        }
        if self.tables.evicted.get() != evicted {
            self.forget_gone();
        }
    }

    /// What became of a packet, beside what somebody plain would do.
    fn check(&mut self, before: &[u8], reason: Reason, after: &[u8]) {
        match (reason.kind(), reason.contract()) {
            (Kind::Pass, Contract::Original) => assert_eq!(after, before, "passed on changed"),
            (Kind::Forward, _) => self.forwarded(before, reason, after),
            (Kind::Pass | Kind::Reply | Kind::Drop, _) => {
                if let Some(naive) = Naive::parse(before) {
                    self.unseen(&naive, before);
                }
            }
        }
    }

    /// A packet that may have begun a flow whose backend nobody sees.
    fn unseen(&mut self, naive: &Naive, frame: &[u8]) {
        let known = self.flows.get_mut(&(ends(naive, frame).0, naive.protocol));
        known.into_iter().for_each(|known| *known = None);
    }

    fn forwarded(&mut self, old: &[u8], reason: Reason, new: &[u8]) {
        let before = Naive::parse(old).expect("somebody plain would not forward it");
        assert!(before.may_be_forwarded(), "somebody plain would not forward {before:?}");
        let after = Naive::parse(new).expect("what came out contradicts itself");
        assert_eq!(after.ttl + 1, before.ttl, "the hop is counted once");
        assert_eq!(after.header_is_right, before.header_is_right);
        assert_eq!(after.transport_is_right(new), before.transport_is_right(old), "{before:?}");
        if ![6, 17].contains(&before.protocol) || before.is_fragment {
            return self.unseen(&before, old);
        }
        let ((from, to), (new_from, new_to)) = (ends(&before, old), ends(&after, new));
        let transport = &old[before.transport.clone()];
        #[expect(clippy::wildcard_enum_match_arm, reason = "what else is forwarded is routed")]
        match reason {
            Reason::ForwardedToBackend => {
                self.reached[0] += 1;
                assert_eq!((to, new_from), (self.vip(), from), "{before:?}");
                assert_eq!(new_to.port(), 8080);
                // SYN without ACK and RST.
                let begins = before.protocol == 6 && transport[13] & 0b1_0110 == 0b10;
                let known = self.flows.insert((from, before.protocol), Some(new_to));
                if !matches!(known, Some(None)) && known != Some(Some(new_to)) {
                    assert!(known.is_none() || begins, "{from} was led from {known:?} to {new_to}");
                    let last = |address| match address {
                        IpAddr::V4(address) => address.octets()[3],
                        IpAddr::V6(address) => address.octets()[15],
                    };
                    assert!(self.takers.contains(&last(new_to.ip())), "{new_to} takes no flows");
                }
            }
            Reason::ForwardedToClient => {
                self.reached[1] += 1;
                assert_eq!((new_from, new_to), (self.vip(), to), "{before:?}");
                let known = self.flows.get_mut(&(to, before.protocol));
                let known = known.expect("nobody asked for an answer");
                assert_eq!(*known.get_or_insert(from), from, "an answer to {to}");
            }
            _ => assert_eq!((new_from, new_to), (from, to), "routed: {reason:?} {before:?}"),
        }
    }
}

/// Whom a packet is from and for.
fn ends(naive: &Naive, frame: &[u8]) -> (SocketAddr, SocketAddr) {
    let port = |n: usize| {
        let at = naive.transport.start + n;
        frame.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
    };
    (SocketAddr::new(naive.from, port(0)), SocketAddr::new(naive.to, port(2)))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_comes_a_plain_flow_table_agrees(
            first: u8,
            steps in prop::collection::vec(any::<[u8; STEP]>(), 0..200),
        ) {
            script(&[&[first], steps.as_flattened()].concat());
        }
    }

    /// It says nothing unless many come through.
    #[test]
    fn of_a_script_of_chance_a_tenth_reaches_backends_and_some_answers_clients() {
        let mut chance = 1_u64;
        let mut byte = || {
            // Knuth's MMIX.
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (chance >> 56) as u8
        };
        let (mut packets, mut reached) = (0, [0; 2]);
        for _ in 0..100 {
            let bytes: Vec<u8> = (0..=200 * STEP).map(|_| byte()).collect();
            let [backends, clients] = script(&bytes);
            packets += 2 * 200;
            reached = [reached[0] + backends, reached[1] + clients];
        }
        assert!(
            reached[0] > packets / 10 && reached[1] > packets / 100,
            "{reached:?} of {packets}"
        );
    }

    #[test]
    fn the_kept_corpus_holds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/dataplane");
        let mut scripts = 0;
        for entry in std::fs::read_dir(folder).expect("the corpus is there") {
            let path = entry.expect("an entry").path();
            script(&std::fs::read(&path).expect("a file"));
            scripts += 1;
        }
        assert!(scripts > 10, "{scripts} scripts: is this the corpus?");
    }
}
