mod counted;
mod recycled;
mod room;

use super::*;
use crate::flow::{TCP, seconds};
use crate::frame::{ACK, Carries, FIN, RST, RST_ACK, SYN, SYN_ACK, UDP, packet};
use crate::model::{ModelPacket, ModelTables, Modelled, process, serving, serving_any};
use crate::reason::Reason;
use crate::service::{
    ALGORITHM_ROUND_ROBIN, BACKEND_BOUNDED, BACKEND_ENDS_FAILED, BACKEND_FAILED, BACKEND_IN_USE,
    BACKEND_RESETS_IDLE, SERVICE_BOUNDS_FLOWS, SourceEntry, SourceList,
};
use crate::tables::FamilyTables;

const CLIENT: &str = "10.1.0.1:1000";
const VIP: &str = "192.0.2.1:80";
const STRANGER: &str = "10.1.0.9:1000";
const CLIENT6: &str = "[2001:db8:1::1]:1000";
const VIP6: &str = "[2001:db8:f::1]:80";
const STRANGER6: &str = "[2001:db8:1::9]:1000";
/// Where flows between the families come from.
const SOURCE: &str = "192.0.2.9:4000";
/// Longer than any timeout.
const LONG: u32 = seconds(7441);

/// Something that a CPU does to the tables.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Client(Carries),
    /// Takes the client's place among the half-open flows.
    Stranger(Carries),
    Backend(u8, Carries),
    MarkAll,
    SweepAll,
}

impl Act {
    /// Does it; how a packet ended, and what of it left.
    fn run(self, tables: &ModelTables) -> Option<(Reason, Vec<u8>)> {
        let send = |carries, from: &str, to: &str| {
            let mut packet = ModelPacket::<true>::new(packet(carries, from, to).bytes());
            let reason = process(&mut packet, tables).reason;
            Some((reason, packet.bytes))
        };
        let across = !tables.sources.is_empty();
        let (client, stranger, vip) =
            if across { (CLIENT6, STRANGER6, VIP6) } else { (CLIENT, STRANGER, VIP) };
        let seen = if across { SOURCE } else { CLIENT };
        match self {
            Self::Client(carries) => send(carries, client, vip),
            Self::Stranger(carries) => send(carries, stranger, vip),
            Self::Backend(n, carries) => send(carries, &format!("10.2.0.{n}:8080"), seen),
            Self::MarkAll => {
                for key in tables.keys() {
                    mark(tables, &key);
                }
                for key in tables.keys6() {
                    mark(tables, &key);
                }
                None
            }
            Self::SweepAll => {
                for key in tables.keys() {
                    sweep(tables, &key, &mut Reset::default());
                }
                for key in tables.keys6() {
                    sweep(tables, &key, &mut Reset::default());
                }
                None
            }
        }
    }
}

const ACTS: [Act; 12] = [
    Act::Client(SYN),
    Act::Stranger(SYN),
    Act::Client(ACK),
    Act::Client(FIN),
    Act::Client(RST),
    Act::Backend(1, SYN_ACK),
    Act::Backend(2, SYN_ACK),
    Act::Backend(1, FIN),
    Act::Backend(1, RST_ACK),
    Act::Backend(2, FIN),
    Act::MarkAll,
    Act::SweepAll,
];

/// What there was before, how long ago, and what happened just now.
type Before = (&'static [Act], u32, &'static [Act]);

const HALF_OPEN: &[Act] = &[Act::Client(SYN), Act::Backend(1, SYN_ACK)];
const LIVE: &[Act] = &[Act::Client(SYN), Act::Backend(1, SYN_ACK), Act::Client(ACK)];
const CLOSING: &[Act] =
    &[Act::Client(SYN), Act::Backend(1, SYN_ACK), Act::Client(ACK), Act::Client(FIN)];
const RESET: &[Act] =
    &[Act::Client(SYN), Act::Backend(1, SYN_ACK), Act::Client(ACK), Act::Client(RST)];
const BEFORE: [Before; 11] = [
    (&[], 0, &[]),
    (&[Act::Client(SYN)], 0, &[]),
    (HALF_OPEN, 0, &[]),
    (LIVE, 5, &[]),
    (LIVE, LONG, &[]),
    (LIVE, LONG, &[Act::MarkAll]),
    (CLOSING, 5, &[]),
    (CLOSING, LONG, &[]),
    (CLOSING, LONG, &[Act::MarkAll]),
    (CLOSING, 5, &[Act::Backend(1, FIN)]),
    (RESET, 5, &[]),
];

/// More steps than any act has.
const MAX_STEPS: usize = 40;

fn before(start: Before, backends: usize) -> ModelTables {
    let all = [[10, 2, 0, 1], [10, 2, 0, 2]];
    begin(serving([192, 0, 2, 1], ALGORITHM_ROUND_ROBIN, &all[..backends]), start)
}

/// The same with a VIP of IPv6, so that a flow's directions are in two tables.
fn before_across(start: Before, backends: usize) -> ModelTables {
    let mapped = |last| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 2, 0, last];
    let vip = [0x20, 1, 0xd, 0xb8, 0, 0xf, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let all = [mapped(1), mapped(2)];
    let mut tables = serving_any(vip, ALGORITHM_ROUND_ROBIN, &all[..backends]);
    let address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 9];
    tables.sources = vec![SourceEntry { address, first_port: 4000, more_ports: 0, pad: 0 }];
    tables.backends.iter_mut().for_each(|backend| backend.sources = SourceList::new(0, 1));
    begin(tables, start)
}

fn run_all(tables: &ModelTables, acts: &[Act]) {
    for act in acts {
        act.run(tables);
    }
}

fn begin(mut tables: ModelTables, (acts, ticks, now): Before) -> ModelTables {
    for service in tables.services.values_mut() {
        service.flags |= SERVICE_BOUNDS_FLOWS;
        service.max_flows_per_client = 100;
    }
    tables.backends.iter_mut().for_each(|backend| backend.flags |= BACKEND_BOUNDED);
    tables.v4.half_open.borrow_mut().truncate(1);
    tables.v6.half_open.borrow_mut().truncate(1);
    run_all(&tables, acts);
    tables.clock.set(tables.clock.get() + ticks);
    run_all(&tables, now);
    tables
}

/// A packet that finds this entry would leave with the backend's address for the client to see.
fn leaks(tables: &ModelTables) -> bool {
    fn leaks_at<A: Modelled>(tables: &ModelTables, key: &FlowKey<A>) -> bool
    where
        ModelTables: TablesOf<A>,
    {
        let Some(entry) = FamilyTables::<A>::flow(tables, key) else { return false };
        entry.direction() == DIRECTION_TO_BACKEND && peer::find(tables, key, &entry).is_none()
    }
    tables.keys().iter().any(|key| leaks_at(tables, key))
        || tables.keys6().iter().any(|key| leaks_at(tables, key))
}

fn is_any_marked(tables: &ModelTables) -> bool {
    let is_marked = |flow: &crate::model::ModelFlow| flow.state_now() & STATE_EXPIRING != 0;
    tables.v4.flows.borrow().values().any(is_marked)
        || tables.v6.flows.borrow().values().any(is_marked)
}

/// Every act, interrupted at every step by every other act of another CPU. With two backends a flow that begins anew goes
/// elsewhere, with one it meets its own old entries.
#[test]
fn whatever_comes_between_two_steps_no_flow_is_torn_and_none_stays_for_ever() {
    let mut interrupted = 0;
    for (world, backends) in WORLDS.into_iter().flat_map(|world| [(world, 1), (world, 2)]) {
        for start in BEFORE {
            for act in ACTS {
                for other in ACTS {
                    let scene = || world(start, backends);
                    let came_in = |steps: &usize| interrupt(scene(), act, *steps, other);
                    interrupted += (0..MAX_STEPS).take_while(came_in).count();
                }
            }
        }
    }
    assert!(interrupted > 4000, "{interrupted}");
}

const WORLDS: [fn(Before, usize) -> ModelTables; 2] = [before, before_across];

/// Runs one case; whether the act had so many steps.
fn interrupt(tables: ModelTables, act: Act, steps: usize, other: Act) -> bool {
    let start = (tables.keys(), tables.keys6());
    let backends = tables.backends.len();
    let other_cpu: Box<dyn FnOnce(&ModelTables)> =
        Box::new(move |tables| run_all(tables, &[other]));
    *tables.interruption.borrow_mut() = Some((steps, other_cpu));
    act.run(&tables);
    let came_in = tables.interruption.borrow_mut().take().is_none();
    let what = format!("{start:?}, {backends} backends: {act:?}, at step {steps} {other:?}");

    // A grace period has passed: whoever marked sweeps.
    Act::SweepAll.run(&tables);
    assert!(!leaks(&tables), "{what}");
    assert!(!is_any_marked(&tables), "{what}");
    counted::each_flow_counts_once_until_it_is_closed(&tables, &what);

    tables.clock.set(tables.clock.get() + LONG);
    Act::MarkAll.run(&tables);
    Act::SweepAll.run(&tables);
    assert_eq!((tables.keys(), tables.keys6()), (vec![], vec![]), "{what}");
    counted::each_flow_counts_once_until_it_is_closed(&tables, &what);
    came_in
}

#[test]
fn a_live_flow_survives_the_passes() {
    let tables = before((LIVE, 5, &[]), 1);
    Act::MarkAll.run(&tables);
    Act::SweepAll.run(&tables);
    assert_eq!(tables.keys().len(), 2);
}

#[test]
fn a_packet_between_the_passes_neither_revives_nor_replaces_the_flow() {
    let tables = before((LIVE, LONG, &[]), 1);
    Act::MarkAll.run(&tables);
    Act::Client(SYN).run(&tables);
    Act::Backend(1, ACK).run(&tables);
    let last_two: Vec<_> = tables.counted.borrow().iter().rev().take(2).copied().collect();
    assert_eq!(last_two, [crate::reason::Reason::FlowExpiring; 2]);
    Act::SweepAll.run(&tables);
    assert_eq!(tables.keys(), []);
}

#[test]
fn a_syn_between_the_passes_replaces_a_flow_that_was_closing() {
    for backends in [1, 2] {
        let tables = before((CLOSING, LONG, &[Act::MarkAll]), backends);
        Act::Client(SYN).run(&tables);
        let last = tables.counted.borrow().last().copied();
        assert_eq!(last, Some(crate::reason::Reason::ForwardedToBackend), "{backends} backends");
        Act::SweepAll.run(&tables);
        assert_eq!(tables.keys().len(), 2, "{backends} backends");
        assert!(!leaks(&tables), "{backends} backends");
        assert_eq!(tables.loads.borrow().values().sum::<i64>(), 1, "{backends} backends");
    }
}

#[test]
fn the_second_pass_does_not_take_away_what_a_syn_has_just_begun() {
    for backends in [1, 2] {
        let mut begun = 0;
        for steps in 0..MAX_STEPS {
            let tables = before((CLOSING, LONG, &[Act::MarkAll]), backends);
            let other: Box<dyn FnOnce(&ModelTables)> =
                Box::new(|tables| run_all(tables, &[Act::Client(SYN)]));
            *tables.interruption.borrow_mut() = Some((steps, other));
            Act::SweepAll.run(&tables);
            if tables.interruption.borrow_mut().take().is_some() {
                break;
            }
            let last = tables.counted.borrow().last().copied();
            if last == Some(crate::reason::Reason::ForwardedToBackend) {
                assert_eq!(tables.keys().len(), 2, "{backends} backends, at step {steps}");
                begun += 1;
            }
        }
        assert!(begun > 0, "no SYN came before the flow was claimed");
    }
}

#[test]
fn a_datagrams_flow_ends_with_its_backend_and_others_as_it_says() {
    let talk = |tables: &ModelTables, first: Carries, next: Carries| {
        for (carries, from, to) in
            [(first, CLIENT, VIP), (next, "10.2.0.1:8080", CLIENT), (next, CLIENT, VIP)]
        {
            let mut packet = ModelPacket::<true>::new(packet(carries, from, to).bytes());
            process(&mut packet, tables);
        }
    };
    const FAILED: u8 = BACKEND_IN_USE | BACKEND_FAILED;
    for (flags, left) in
        [(0, &[TCP; 2][..]), (FAILED, &[6, 17, 6, 17]), (FAILED | BACKEND_ENDS_FAILED, &[])]
    {
        let mut tables = before((&[], 0, &[]), 1);
        talk(&tables, UDP, UDP);
        talk(&tables, SYN, ACK);
        assert_eq!(tables.keys().len(), 4);
        Act::MarkAll.run(&tables);
        Act::SweepAll.run(&tables);
        assert_eq!(tables.keys().len(), 4, "the backend is well");

        tables.backends[0].flags = flags;
        Act::MarkAll.run(&tables);
        Act::SweepAll.run(&tables);
        let protocols: Vec<u8> = tables.keys().iter().map(|key| key.protocol()).collect();
        assert_eq!(protocols, left, "{flags}");
    }
}

#[test]
fn a_flow_whose_answers_go_another_way_lives_and_ends_alone() {
    let tables = {
        let mut tables = serving([192, 0, 2, 1], ALGORITHM_ROUND_ROBIN, &[[10, 2, 0, 1]]);
        for service in tables.services.values_mut() {
            service.mode = crate::service::MODE_L2 as u8;
        }
        tables
    };
    let passes = |ticks: u32| {
        tables.clock.set(tables.clock.get() + ticks);
        Act::MarkAll.run(&tables);
        Act::SweepAll.run(&tables);
        tables.keys().len()
    };
    Act::Client(SYN).run(&tables);
    assert_eq!(passes(5), 1, "half-open");
    Act::Client(ACK).run(&tables);
    assert_eq!(passes(seconds(600)), 1, "established");
    Act::Client(FIN).run(&tables);
    assert_eq!(passes(seconds(100)), 1, "transitory");
    assert_eq!(passes(seconds(240)), 0);
    assert!(tables.loads.borrow().values().all(|load| *load == 0));
    Act::Client(SYN).run(&tables);
    assert_eq!(passes(seconds(61)), 0, "half-open for too long");
}

#[test]
fn what_comes_between_the_passes_still_says_the_number_of_the_reset() {
    let mut tables = serving([192, 0, 2, 1], ALGORITHM_ROUND_ROBIN, &[[10, 2, 0, 1]]);
    tables.backends[0].flags |= BACKEND_RESETS_IDLE;
    for act in [Act::Client(SYN), Act::Backend(1, SYN_ACK), Act::Client(ACK)] {
        act.run(&tables);
    }
    tables.clock.set(tables.clock.get() + LONG);
    Act::MarkAll.run(&tables);
    let mut late = packet(ACK, CLIENT, VIP).bytes();
    late[42..46].copy_from_slice(&5000_u32.to_be_bytes());
    let outcome = process(&mut ModelPacket::<true>::new(late), &tables);
    assert_eq!(outcome.reason, Reason::FlowExpiring);
    let mut resets = tables.keys().into_iter().filter_map(|key| {
        let mut reset = Reset::default();
        sweep(&tables, &key, &mut reset);
        (reset.is_due != 0).then_some(reset.to_client)
    });
    assert_eq!((resets.next(), resets.next()), (Some(5000), None));
}
