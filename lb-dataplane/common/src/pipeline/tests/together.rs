//! Two packets that begin one flow at the same time, on two CPUs: both go the same way, by one flow.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::rc::Rc;

use super::*;
use crate::choose::MOST_ADDS;
use crate::family::{V4, V6};
use crate::flow::{FlowKey, STATE_GOING};
use crate::frame::ECHO;
use crate::peer;
use crate::service::{SourceEntry, SourceList, VipKey};
use crate::tables::FamilyTables;

/// More steps than a packet has that begins a flow.
const MAX_STEPS: usize = 64;

/// How flows reach backends. These get them by turns, so that two packets choose two of them.
#[derive(Clone, Copy, Debug)]
struct World {
    backends: usize,
    /// Flows come from ports of a source address.
    is_full: bool,
    is_direct: bool,
    /// Backends are of the other family.
    is_across: bool,
}

const DNAT: World = World { backends: 1, is_full: false, is_direct: false, is_across: false };
const WORLDS: [World; 6] = [
    DNAT,
    World { backends: 2, ..DNAT },
    World { is_full: true, ..DNAT },
    World { backends: 2, is_full: true, ..DNAT },
    World { backends: 2, is_direct: true, ..DNAT },
    World { backends: 3, is_full: true, is_across: true, ..DNAT },
];

impl World {
    /// The VIP, for packets that carry this.
    fn tables(self, carries: Carries) -> ModelTables {
        let mut tables = if self.is_across {
            across::world(ALGORITHM_ROUND_ROBIN, false)
        } else {
            serving(VIP, ALGORITHM_ROUND_ROBIN, &BACKENDS[..self.backends])
        };
        if self.is_full && !self.is_across {
            let address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 9];
            tables.sources = vec![SourceEntry { address, first_port: 2000, more_ports: 3, pad: 0 }];
            tables.backends.iter_mut().for_each(|b| b.sources = SourceList::new(0, 1));
        }
        if self.is_direct {
            tables.services.values_mut().for_each(|service| service.mode = MODE_L2 as u8);
        }
        if carries == ECHO {
            tables.backends.iter_mut().for_each(|backend| backend.port = [0; 2]);
        }
        let of_tcp = tables.services.iter().find(|(key, _)| key.protocol == 6);
        let (key, service) = of_tcp.map(|(key, service)| (*key, *service)).expect("it is there");
        let echoes = VipKey { port: [0; 2], protocol: 1, ..key };
        tables.services.insert(echoes, service);
        tables
    }

    /// Entries of a flow.
    fn entries(self) -> usize {
        if self.is_direct { 1 } else { 2 }
    }

    /// Whether nobody else ever has a flow's way back.
    fn has_own_way_back(self, carries: Carries) -> bool {
        self.is_full || carries == ECHO
    }
}

/// How a packet ended, and the frame that left.
type Sent = (Reason, Vec<u8>);

fn send(tables: &ModelTables, carries: Carries) -> Sent {
    send_to(tables, carries, if carries == ECHO { 0 } else { 80 })
}

fn send_to(tables: &ModelTables, carries: Carries, port: u16) -> Sent {
    let frame = packet(carries, "10.1.0.1:1000", &format!("192.0.2.1:{port}"));
    let mut packet = ModelPacket::<true>::new(frame.bytes());
    (process(&mut packet, tables).reason, packet.bytes)
}

/// A packet that another CPU's comes in between, whose entries it does not find for so many times; none if it had fewer steps.
fn together(
    tables: &ModelTables,
    carries: Carries,
    steps: usize,
    unpublished: u32,
) -> Option<[Sent; 2]> {
    let others = Rc::new(RefCell::new(None));
    let sent = Rc::clone(&others);
    let other_cpu = move |tables: &ModelTables| {
        *sent.borrow_mut() = Some(send(tables, carries));
        tables.unpublished.set(unpublished);
    };
    *tables.interruption.borrow_mut() = Some((steps, Box::new(other_cpu)));
    let first = send(tables, carries);
    Some([first, others.take()?])
}

/// Each case: which world, what it carries, and at which step another CPU comes in.
fn each(mut check: impl FnMut(World, Carries, usize) -> bool) {
    for (world, carries) in WORLDS.into_iter().flat_map(|w| [SYN, UDP, ECHO].map(|c| (w, c))) {
        let interrupted = (0..MAX_STEPS).take_while(|steps| check(world, carries, *steps)).count();
        assert!((8..MAX_STEPS).contains(&interrupted), "{world:?} {carries:?}: {interrupted}");
    }
}

fn entries(tables: &ModelTables) -> usize {
    tables.keys().len() + tables.keys6().len()
}

#[test]
fn both_go_by_the_flow_of_whoever_was_first() {
    for unpublished in 0..MOST_ADDS {
        each(|world, carries, steps| {
            let tables = world.tables(carries);
            let Some(sent) = together(&tables, carries, steps, unpublished) else { return false };
            let what = format!("{world:?} {carries:?} at step {steps}, {unpublished}");
            let [(reason, frame), (others, other_frame)] = sent;
            assert_eq!((reason, others.kind()), (others, Kind::Forward), "{what}");
            assert_eq!(frame, other_frame, "{what}");
            assert_eq!(entries(&tables), world.entries(), "{what}");
            assert_eq!(tables.begun.borrow().values().sum::<u64>(), 1, "{what}");
            true
        });
    }
}

#[test]
fn who_never_finds_the_other_ones_entry_leaves_no_port_taken() {
    each(|world, carries, steps| {
        let tables = world.tables(carries);
        let Some(sent) = together(&tables, carries, steps, u32::MAX) else { return false };
        let what = format!("{world:?} {carries:?} at step {steps}");
        let [(reason, _), (others, _)] = sent;
        assert_eq!(others.kind(), Kind::Forward, "{what}");
        let is_first = reason.kind() == Kind::Forward;
        assert!(is_first || reason == Reason::FlowCollision, "{what}: {reason:?}");
        if world.has_own_way_back(carries) {
            assert_eq!(entries(&tables), world.entries(), "{what}");
        }
        true
    });
}

#[test]
fn two_that_both_withdraw_add_again() {
    for (world, carries) in WORLDS.into_iter().flat_map(|w| [SYN, UDP, ECHO].map(|c| (w, c))) {
        // As few as a row has ports: where one is taken for the flow, nobody adds the same.
        for withdrawn in 1..4 {
            let tables = world.tables(carries);
            tables.withdrawn.set(withdrawn);
            let what = format!("{world:?} {carries:?} {withdrawn}");
            assert_eq!(send(&tables, carries).0.kind(), Kind::Forward, "{what}");
            assert_eq!(tables.withdrawn.get(), 0, "{what}");
            assert_eq!(entries(&tables), world.entries(), "{what}");
        }
    }
}

/// The key of a flow's packets to its backend.
fn to_backend(world: World, carries: Carries) -> FlowKey<V6> {
    let tables = world.tables(carries);
    send(&tables, carries);
    let vip = V6::from_bytes(Ipv4Addr::from(VIP).to_ipv6_mapped().octets());
    let mut keys = tables.keys().into_iter().map(|key| key.to_v6());
    keys.find(|key| key.destination == vip).expect("it has begun")
}

/// Only one of the two finds room for the direction to the backend. However the other one ends, no flow is left without its way back.
#[test]
fn who_has_no_room_leaves_the_other_ones_way_back() {
    for is_other in [false, true] {
        each(|world, carries, steps| {
            let tables = world.tables(carries);
            tables.without_room.set(Some((to_backend(world, carries), is_other)));
            let Some(sent) = together(&tables, carries, steps, 0) else { return false };
            tables.without_room.set(None);
            let what = format!("{world:?} {carries:?} at step {steps}: {sent:?}");
            let again = send(&tables, carries);
            assert_eq!(again.0.kind(), Kind::Forward, "{what}");
            for (reason, frame) in sent {
                let refused = matches!(reason, Reason::FlowTableFull | Reason::FlowExpiring);
                assert!(refused || (reason, frame) == again, "{what}");
            }
            assert_eq!(entries(&tables), world.entries(), "{what}");
            if !world.is_direct {
                let key = FlowKey::<V4>::from_v6(&to_backend(world, carries));
                let there = tables.flow(&key).expect(&what);
                let back = peer::find(&tables, &key, &there).expect(&what);
                assert_eq!(back.seen() & STATE_GOING, 0, "{what}");
            }
            true
        });
    }
}

/// How another CPU takes back a way that it has inserted for a flow that it found no room for.
#[derive(Clone, Copy, Debug)]
struct TakesBack {
    back: FlowKey<V4>,
    to_backend: FlowKey<V4>,
    /// Steps for which it is interrupted.
    later: usize,
    /// Between its claim and its look for the flow, or between that and what it does then.
    has_looked: bool,
    /// It begins another flow then that has the same way back.
    begins_another: bool,
}

impl TakesBack {
    fn go(self, tables: &ModelTables) {
        let Some(claimed) = tables.flow(&self.back).filter(|back| back.claim(0)) else { return };
        let looks = move |tables: &ModelTables| tables.flow(&self.to_backend).is_some();
        let has_seen = self.has_looked.then(|| looks(tables));
        let goes_on = move |tables: &ModelTables| {
            if has_seen.unwrap_or_else(|| looks(tables)) {
                claimed.release();
            } else {
                assert!(tables.remove_flow(&self.back));
            }
            if self.begins_another {
                send_to(tables, SYN, 81);
            }
        };
        match self.later.checked_sub(1) {
            Some(later) => *tables.interruption.borrow_mut() = Some((later, Box::new(goes_on))),
            None => goes_on(tables),
        }
    }
}

/// At port 81, with the same backend.
fn with_another_service() -> ModelTables {
    let mut tables = DNAT.tables(SYN);
    let of_tcp = tables.services.iter().find(|(key, _)| key.protocol == 6);
    let (key, service) = of_tcp.map(|(key, service)| (*key, *service)).expect("it is there");
    tables.services.insert(VipKey { port: 81_u16.to_be_bytes(), ..key }, service);
    tables
}

/// A way back that is there already is taken back by whoever has inserted it.
#[test]
fn no_flow_begins_by_a_way_back_that_goes() {
    let to_backend = FlowKey::<V4>::from_v6(&to_backend(DNAT, SYN));
    let run = |steps, later, has_looked, begins_another| {
        let mut tables = with_another_service();
        tables.samples_every = 1;
        send(&tables, SYN);
        let left = tables.keys().into_iter().find(|key| *key != to_backend).expect("it is there");
        tables.remove_flow(&to_backend);
        let takes = TakesBack { back: left, to_backend, later, has_looked, begins_another };
        let came = Rc::new(Cell::new(false));
        let comes = Rc::clone(&came);
        let other_cpu = move |tables: &ModelTables| {
            comes.set(true);
            takes.go(tables);
        };
        *tables.interruption.borrow_mut() = Some((steps, Box::new(other_cpu)));
        let (reason, _) = send(&tables, SYN);
        if !came.get() {
            return None;
        }
        while tables.interruption.borrow().is_some() {
            tables.flow(&left);
        }
        let what = format!("{reason:?} at step {steps}, {takes:?}");
        let there = tables.flow(&to_backend);
        assert_eq!(there.is_some(), reason == Reason::ForwardedToBackend, "{what}");
        if let Some(there) = there {
            let back = peer::find(&tables, &to_backend, &there).expect(&what);
            let is_its_own = peer::answers(&back.translation(), left.protocol) == to_backend;
            assert!(is_its_own && back.seen() & STATE_GOING == 0, "{what}");
        }
        let is_to_backend = |key: &FlowKey<V4>| key.destination == to_backend.destination;
        let flows = tables.keys().into_iter().filter(is_to_backend).count();
        // The one that was there at first was not counted out.
        assert_eq!(tables.loads.borrow().values().sum::<i64>(), 1 + flows as i64, "{what}");
        assert_eq!(tables.ends.borrow().len(), 0, "{what}");
        Some(reason)
    };
    let mut ends = BTreeSet::new();
    for n in 0..4 * 12 {
        let (later, has_looked, begins_another) = (n / 4, n & 1 != 0, n & 2 != 0);
        let runs = (0..MAX_STEPS).map_while(|n| run(n, later, has_looked, begins_another));
        ends.extend(runs);
    }
    let expected = [Reason::ForwardedToBackend, Reason::FlowCollision, Reason::FlowExpiring];
    assert_eq!(ends, expected.into());
}

/// Another CPU has inserted it, and is yet to add the other direction.
#[test]
fn who_goes_by_another_flow_leaves_a_way_back_that_it_has_found() {
    let world = World { backends: 2, ..DNAT };
    let to_backend = FlowKey::<V4>::from_v6(&to_backend(world, SYN));
    let run = |steps| {
        let tables = world.tables(SYN);
        send(&tables, SYN);
        tables.remove_flow(&to_backend);
        tables.rounds.set(0);
        let left = tables.keys();
        let sent = together(&tables, SYN, steps, 0)?;
        assert!(sent.iter().all(|(reason, _)| reason.kind() == Kind::Forward), "at step {steps}");
        assert!(left.iter().all(|key| tables.keys().contains(key)), "at step {steps}");
        Some(entries(&tables))
    };
    let all: BTreeSet<usize> = (0..MAX_STEPS).map_while(run).collect();
    assert_eq!(all, [2, 3].into(), "it is of the flow's backend or of another one");
}

/// The first that a node sees of it, as it began on another one: its way back then closes from the start.
#[test]
fn who_meets_a_flow_that_begins_with_its_end_leaves_its_way_back() {
    let run = |steps, without_room: bool| {
        let tables = serving(VIP, ALGORITHM_MAGLEV, &BACKENDS[..1]);
        let key = FlowKey::<V4>::from_v6(&to_backend(DNAT, SYN));
        let back = {
            let tables = serving(VIP, ALGORITHM_MAGLEV, &BACKENDS[..1]);
            send(&tables, FIN);
            tables.keys().into_iter().find(|other| *other != key).expect("it is there")
        };
        tables.without_room.set(without_room.then_some((back.to_v6(), true)));
        let sent = together(&tables, FIN, steps, 0)?;
        let what = format!("at step {steps}, {without_room}: {sent:?}");
        assert!(sent.iter().any(|(reason, _)| reason.kind() == Kind::Forward), "{what}");
        assert_eq!(entries(&tables), 2, "{what}");
        Some(())
    };
    for without_room in [false, true] {
        assert!((0..MAX_STEPS).map_while(|steps| run(steps, without_room)).count() >= 8);
    }
}

/// What it had inserted was removed, and another flow has begun whose packets come back alike.
#[test]
fn who_has_no_room_leaves_what_has_come_in_the_place_of_its_way_back() {
    let to_backend = to_backend(DNAT, SYN);
    let run = |steps| {
        let tables = with_another_service();
        tables.without_room.set(Some((to_backend, false)));
        let other = Rc::new(Cell::new(None));
        let others = Rc::clone(&other);
        let other_cpu = move |tables: &ModelTables| {
            let left = tables.keys().into_iter().next();
            let is_claimed = |back| tables.flow(&back).is_some_and(|back| back.claim(0));
            let was_left = left.filter(|back| is_claimed(*back));
            was_left.inspect(|back| assert!(tables.remove_flow(back)));
            others.set(Some((was_left.is_some(), send_to(tables, SYN, 81).0)));
        };
        *tables.interruption.borrow_mut() = Some((steps, Box::new(other_cpu)));
        let (reason, _) = send(&tables, SYN);
        let (was_left, others) = other.get()?;
        let refused = matches!(reason, Reason::FlowTableFull | Reason::FlowCollision);
        let what = format!("{reason:?}, {others:?} at step {steps}");
        assert!(refused, "{what}");
        let is_there = others == Reason::ForwardedToBackend;
        assert!(is_there || others == Reason::FlowExpiring, "{what}");
        assert_eq!(entries(&tables), if is_there { 2 } else { 0 }, "{what}");
        Some((was_left, others))
    };
    let all: BTreeSet<(bool, Reason)> = (0..MAX_STEPS).map_while(run).collect();
    assert!(all.contains(&(true, Reason::ForwardedToBackend)), "{all:?}");
}
