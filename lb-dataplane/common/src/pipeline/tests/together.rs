//! Two packets that begin one flow at the same time, on two CPUs: both go the same way, by one flow.

use std::cell::{Cell, RefCell};
use std::net::Ipv4Addr;
use std::rc::Rc;

use super::*;
use crate::choose::MOST_ADDS;
use crate::family::{V4, V6};
use crate::flow::FlowKey;
use crate::frame::ECHO;
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
    let port = if carries == ECHO { 0 } else { 80 };
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
            true
        });
    }
}

/// A way back that is there already is taken back by whoever has inserted it, who has found no room.
#[test]
fn no_flow_begins_by_a_way_back_that_goes() {
    let to_backend = FlowKey::<V4>::from_v6(&to_backend(DNAT, SYN));
    let run = |steps| {
        let tables = DNAT.tables(SYN);
        send(&tables, SYN);
        tables.remove_flow(&to_backend);
        let left = tables.keys()[0];
        let came = Rc::new(Cell::new(false));
        let comes = Rc::clone(&came);
        let other_cpu = move |tables: &ModelTables| {
            comes.set(true);
            let back = tables.flow(&left).filter(|back| back.claim(0));
            if let Some(back) = back {
                match tables.flow(&to_backend) {
                    Some(_) => back.release(),
                    None => assert!(tables.remove_flow(&left)),
                }
            }
        };
        *tables.interruption.borrow_mut() = Some((steps, Box::new(other_cpu)));
        let (reason, _) = send(&tables, SYN);
        let entries = entries(&tables);
        let wanted = if reason == Reason::ForwardedToBackend { 2 } else { 0 };
        assert_eq!(entries, wanted, "{reason:?} at step {steps}");
        came.get().then_some(reason)
    };
    let ends: Vec<Reason> = (0..MAX_STEPS).map_while(run).collect();
    assert!(ends.contains(&Reason::FlowExpiring) && ends.contains(&Reason::ForwardedToBackend));
    assert!(
        ends.iter().all(|end| [Reason::FlowExpiring, Reason::ForwardedToBackend].contains(end))
    );
}
