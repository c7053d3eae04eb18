//! The ways by the programs of a hook beside one another: nobody can tell which of them a packet took.

use std::collections::BTreeMap;

use super::*;
use crate::encapsulation::Encapsulation;
use crate::fib::{
    GROUP_BLACKHOLE, MEMBER_RESOLVED, MEMBER_TO_PEER, MEMBER_WITHOUT_XDP, group_kind,
};
use crate::flow::FlowKey;
use crate::model::{Modelled, go_on};
use crate::pipeline::{self, Next};
use crate::service::{BACKEND_BOUNDED, BACKEND_RESETS_IDLE, BackendEntry};
use crate::vlan::{Tag, Tags};

/// Clients' ports with an established flow each.
const PORTS: u16 = 4;

fn client(port: u16, v6: bool) -> SocketAddr {
    SocketAddr::new(address([10, 1, 0, 1], v6), 1000 + port)
}

fn between(carries: Carries, from: SocketAddr, to: SocketAddr) -> Frame {
    Frame { from, to, ..packet(carries, "0.0.0.0:0", "0.0.0.0:0") }
}

fn run<const TC: bool>(tables: &ModelTables, frame: &Frame) -> (Reason, Frame) {
    let mut packet = ModelPacket::<TC>::new(frame.bytes());
    let outcome = process(&mut packet, tables);
    (outcome.reason, Frame::parse(&packet.bytes))
}

/// Establishes a flow; where its packets go to and come from behind us.
fn establish(
    tables: &ModelTables,
    port: u16,
    v6: bool,
    all: [Carries; 3],
) -> (SocketAddr, SocketAddr) {
    let [first, answer, last] = all;
    let (reason, out) = run::<true>(tables, &between(first, client(port, v6), vip(v6)));
    assert_eq!(reason, Reason::ForwardedToBackend);
    let back = between(answer, out.to, out.from);
    assert_eq!(run::<true>(tables, &back).0, Reason::ForwardedToClient);
    run::<true>(tables, &between(last, client(port, v6), vip(v6)));
    (out.to, out.from)
}

const TCP_BEGINS: [Carries; 3] = [SYN, SYN_ACK, ACK];
const UDP_BEGINS: [Carries; 3] = [UDP; 3];

/// What the world is that packets go through.
#[derive(Clone, Debug)]
struct Setting {
    v6: bool,
    /// Whether backends are of the other family.
    across: bool,
    algorithm: u8,
    /// How packets reach backends, once the flows between the two are there.
    mode: u32,
    samples_every: u32,
    resets: bool,
    /// Whether backends may have few open flows, once those are there.
    bounded: bool,
    member_flags: u16,
    encapsulation: u64,
    mtu: u16,
    /// The group that the FIB leads to, if that is not the member's.
    group: Option<u64>,
}

fn setting() -> impl Strategy<Value = Setting> {
    let tagged = Encapsulation::Vlan { link: 4, tags: Tags::one(Tag::new(false, 7)) };
    let words = vec![0, 0, 0, tagged.encode(), Encapsulation::Unknown.encode()];
    let flags = vec![
        MEMBER_RESOLVED,
        MEMBER_RESOLVED,
        MEMBER_RESOLVED | MEMBER_TO_PEER,
        MEMBER_RESOLVED | MEMBER_WITHOUT_XDP,
        0,
    ];
    (
        (
            any::<bool>(),
            prop::sample::select(vec![false, false, true]),
            prop::sample::select(vec![ALGORITHM_MAGLEV, ALGORITHM_ROUND_ROBIN]),
        ),
        prop::sample::select(vec![MODE_NAT, MODE_NAT, MODE_NAT, MODE_L2]),
        (prop::sample::select(vec![0, 0, 0, 1]), any::<bool>(), any::<bool>()),
        prop::sample::select(flags),
        prop::sample::select(words),
        prop::sample::select(vec![40_u16, 100, 1500, 1500]),
        prop::sample::select(
            [vec![None; 6], vec![Some(group_kind(GROUP_BLACKHOLE)), Some(0)]].concat(),
        ),
    )
        .prop_map(|(world, mode, watched, member_flags, encapsulation, mtu, group)| {
            let ((v6, across, algorithm), (samples_every, resets, bounded)) = (world, watched);
            let mode = if across { MODE_NAT } else { mode };
            Setting {
                v6,
                across,
                algorithm,
                mode,
                samples_every,
                resets,
                bounded,
                member_flags,
                encapsulation,
                mtu,
                group,
            }
        })
}

impl Setting {
    /// Tables in which every other port of the clients has established flows.
    fn world(&self) -> ModelTables {
        let world = if self.across { across::world } else { world };
        let mut tables = world(self.algorithm, self.v6);
        tables.samples_every = self.samples_every;
        tables.services.values_mut().for_each(|service| service.mode = self.mode as u8);
        if self.resets {
            tables.backends.iter_mut().for_each(|backend| backend.flags |= BACKEND_RESETS_IDLE);
        }
        for port in (0..PORTS).step_by(2).filter(|_| self.mode == MODE_NAT) {
            establish(&tables, port, self.v6, TCP_BEGINS);
            establish(&tables, port, self.v6, UDP_BEGINS);
        }
        if self.bounded {
            tables.backends.iter_mut().for_each(bound);
        }
        tables.member.flags = self.member_flags;
        tables.member.encapsulation = self.encapsulation;
        tables.member.mtu = self.mtu;
        tables.group = self.group;
        tables
    }
}

fn bound(backend: &mut BackendEntry) {
    backend.flags |= BACKEND_BOUNDED;
    backend.max_flows = 5;
}

/// All that packets leave behind in the tables.
fn left(tables: &ModelTables) -> String {
    fn flows<A: Modelled>(tables: &ModelTables) -> BTreeMap<FlowKey<A>, String> {
        let flows = A::of(tables).flows.borrow();
        flows.iter().map(|(key, flow)| (*key, format!("{flow:?}"))).collect()
    }
    let (counted, passed) = (tables.counted.borrow(), tables.passed.borrow());
    let samples: BTreeMap<_, _> = tables.samples.borrow().iter().map(|(k, v)| (*k, *v)).collect();
    let by_number = [&tables.loads, &tables.open, &tables.open_of_services]
        .map(|all| all.borrow().iter().map(|(k, v)| (*k, *v)).collect::<BTreeMap<u32, i64>>());
    let flows = (flows::<V4>(tables), flows::<V6>(tables));
    let half_open = (tables.v4.half_open.borrow(), tables.v6.half_open.borrow());
    format!("{flows:?} {half_open:?} {counted:?} {passed:?} {samples:?} {by_number:?}")
}

fn end_alike<const TC: bool>(
    setting: &Setting,
    packets: &[(Frame, Held, u32)],
) -> Result<(), TestCaseError> {
    let worlds = [setting.world(), setting.world()];
    for (frame, held, ticks) in packets {
        let [all, long] = [true, false].map(|has_short| {
            let tables = &worlds[usize::from(!has_short)];
            tables.clock.set(tables.clock.get() + ticks);
            let mut packet = hold::<TC>(frame, *held);
            let outcome = if has_short {
                process(&mut packet, tables)
            } else {
                pipeline::established::know_nothing(tables);
                go_on(&mut packet, tables, Next::Find)
            };
            let Outcome { reason, way } = outcome;
            // Nobody looks at what is not asked for.
            let next_hop = (way.resolve & !TO_PEER != 0).then_some(way.next_hop);
            let is_sent = reason.kind() == Kind::Forward;
            let way = is_sent.then_some((way.ifindex, way.resolve, next_hop, way.tags));
            (reason, way, packet.bytes, packet.punted)
        });
        prop_assert_eq!(all, long);
        prop_assert_eq!(left(&worlds[0]), left(&worlds[1]));
    }
    Ok(())
}

proptest! {
    #[test]
    fn whatever_goes_the_short_way_ends_as_on_the_long_one(
        (setting, packets) in setting().prop_flat_map(|setting| {
            let packet = if setting.across {
                across::any_packet(setting.v6).boxed()
            } else {
                any_packet(setting.v6).boxed()
            };
            let packet = (packet, held(), 0_u32..2);
            (Just(setting), prop::collection::vec(packet, 1..60))
        }),
    ) {
        end_alike::<true>(&setting, &packets)?;
        end_alike::<false>(&setting, &packets)?;
    }
}

/// Whether a packet goes the short way.
fn is_taken<const TC: bool>(tables: &ModelTables, frame: &Frame) -> bool {
    next::<TC>(tables, frame).is_none()
}

/// The program that the first one leaves a packet to, if it does.
fn next<const TC: bool>(tables: &ModelTables, frame: &Frame) -> Option<Next> {
    let mut packet = ModelPacket::<TC>::new(frame.bytes());
    match forward_established(&mut packet, tables) {
        Ok(outcome) => {
            assert_eq!(outcome.reason.kind(), Kind::Forward, "{outcome:?}");
            None
        }
        Err(next) => {
            assert_eq!(packet.bytes, frame.bytes(), "what is left is left as it was");
            go_on(&mut packet, tables, next);
            Some(next)
        }
    }
}

#[test]
fn packets_of_established_flows_go_the_short_way_both_ways() {
    let worlds = [world, across::world].into_iter();
    let cases = worlds.flat_map(|world| [false, true].map(|v6| (world, v6)));
    for ((world, v6), all) in cases.flat_map(|case| [TCP_BEGINS, UDP_BEGINS].map(|all| (case, all)))
    {
        let tables = world(ALGORITHM_MAGLEV, v6);
        let (backend, towards) = establish(&tables, 0, v6, all);
        let there = between(all[2], client(0, v6), vip(v6));
        let back = between(all[2], backend, towards);
        for frame in [there, back] {
            assert!(is_taken::<true>(&tables, &frame), "{frame:?}");
            assert!(is_taken::<false>(&tables, &frame), "{frame:?}");
        }
    }
}

/// IPv4 by the shortest ways.
const PLAIN: Setting = Setting {
    v6: false,
    across: false,
    algorithm: ALGORITHM_MAGLEV,
    mode: MODE_NAT,
    samples_every: 0,
    resets: false,
    bounded: false,
    member_flags: MEMBER_RESOLVED,
    encapsulation: 0,
    mtu: 1500,
    group: None,
};

#[test]
fn what_has_no_flow_goes_to_the_program_that_begins_them_at_once_if_it_is_plain() {
    for v6 in [false, true] {
        let tables = Setting { v6, ..PLAIN }.world();
        let next = |carries, port| {
            let frame = between(carries, client(port, v6), vip(v6));
            [next::<true>(&tables, &frame), next::<false>(&tables, &frame)]
        };
        let begin = if v6 { Next::Begin6 } else { Next::Begin };
        // The second hook has it found by the flow that the first one began.
        assert_eq!(next(SYN, 1), [Some(begin), Some(Next::Find)]);
        assert_eq!(next(UDP, 1), [Some(begin), Some(Next::Find)]);
        assert_eq!(next(SYN, 0), [Some(Next::Find); 2], "of a flow");
        assert_eq!(next(FIN, 3), [Some(Next::Find); 2], "begins none");
        let routed = between(ACK, vip(v6), client(1, v6));
        assert_eq!(super::established::next::<true>(&tables, &routed), Some(begin));
    }
}

/// The bytes of a segment with these numbers, whose sum nobody looks at.
fn numbered(frame: &Frame, sequence: u32, acknowledged: u32) -> Vec<u8> {
    let (mut bytes, at) = (frame.bytes(), transport_at(frame));
    bytes[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
    bytes[at + 8..at + 12].copy_from_slice(&acknowledged.to_be_bytes());
    bytes
}

/// Whether the backend's answer, the same again, the client's by this number, and the same again go the short way. What they leave
/// behind is what they leave by the long one.
fn opens(v6: bool, change: fn(&mut ModelTables), acknowledged: u32) -> [bool; 4] {
    let worlds = [(); 2].map(|()| {
        let mut tables = Setting { v6, ..PLAIN }.world();
        change(&mut tables);
        let syn = between(SYN, client(1, v6), vip(v6));
        (run::<true>(&tables, &syn).1, tables)
    });
    let begun = &worlds[0].0;
    let answer = numbered(&between(SYN_ACK, begun.to, begun.from), 0x1234_5678, 0);
    let last = numbered(&between(ACK, client(1, v6), vip(v6)), 0, acknowledged);
    [&answer, &answer, &last, &last].map(|bytes| {
        let [mut short, mut long] = [(); 2].map(|()| ModelPacket::<true>::new(bytes.clone()));
        let sent = forward_established(&mut short, &worlds[0].1);
        let is_taken = sent.is_ok();
        let ended = sent.unwrap_or_else(|next| go_on(&mut short, &worlds[0].1, next));
        pipeline::established::know_nothing(&worlds[1].1);
        let expected = go_on(&mut long, &worlds[1].1, Next::Find);
        assert_eq!((ended.reason, ended.way.ifindex), (expected.reason, expected.way.ifindex));
        assert_eq!(short.bytes, long.bytes);
        assert_eq!(left(&worlds[0].1), left(&worlds[1].1));
        is_taken
    })
}

#[test]
fn what_opens_a_connection_goes_the_short_way_if_there_is_no_more_to_it() {
    const RIGHT: u32 = 0x1234_5679;
    for v6 in [false, true] {
        assert_eq!(opens(v6, |_| {}, RIGHT), [true, false, true, true]);
        assert_eq!(opens(v6, |_| {}, RIGHT ^ 1 << 31), [true, false, false, false], "a guess");
        let cases: [(fn(&mut ModelTables), _); 4] = [
            (|tables| tables.samples_every = 1, [false; 4]),
            (
                |tables| tables.services.values_mut().for_each(|service| service.mss = 1200),
                [false, false, true, true],
            ),
            (|tables| tables.backends.iter_mut().for_each(bound), [true, false, false, true]),
            (
                |tables| {
                    let resets = |backend: &mut BackendEntry| backend.flags |= BACKEND_RESETS_IDLE;
                    tables.backends.iter_mut().for_each(resets);
                },
                [false, false, false, true],
            ),
        ];
        for (change, taken) in cases {
            assert_eq!(opens(v6, change, RIGHT), taken);
        }
    }
}

#[test]
fn packets_that_ask_for_more_than_a_rewrite_go_the_long_way() {
    let tables = PLAIN.world();
    let frame = |carries| between(carries, client(0, false), vip(false));
    assert!(is_taken::<true>(&tables, &frame(ACK)));
    for other in [
        frame(ACK).ttl(1),
        Frame { options: vec![1; 4], ..frame(ACK) },
        Frame { payload: vec![0; 1500], ..frame(ACK) },
        between(ACK, client(1, false), vip(false)),
        frame(SYN),
        frame(FIN),
        frame(RST),
        // The flow closes by now.
        frame(ACK),
    ] {
        assert!(!is_taken::<true>(&tables, &other), "{other:?}");
    }
}
