//! What is counted of flows, whoever ends them, and in whatever order.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::family::V6;
use crate::flow::{
    DIRECTION_TO_CLIENT, STATE_CLIENT_COUNTED, STATE_COUNTED_OUT, counted_client, is_closed,
};
use crate::model::ModelFlow;
use crate::service::MODE_L2;

/// At rest each flow that is not closed counts once, where it is to, and no other does.
pub(super) fn each_flow_counts_once_until_it_is_closed(tables: &ModelTables, what: &str) {
    let mut loads = HashMap::<u32, i64>::new();
    let (mut clients, mut entries) = (HashMap::new(), HashMap::<u32, u64>::new());
    let mut add = |client: V6, flow: &ModelFlow| {
        let state = flow.state_now();
        if flow.direction() == DIRECTION_TO_CLIENT {
            return;
        }
        *entries.entry(flow.backend()).or_default() += 1_u64;
        assert_eq!(
            state & STATE_COUNTED_OUT != 0,
            is_closed(crate::flow::TCP, state),
            "{what}: {state:x}"
        );
        if is_closed(crate::flow::TCP, state) {
            return;
        }
        *loads.entry(flow.backend()).or_default() += 1;
        if state & STATE_CLIENT_COUNTED != 0 {
            let client = counted_client(tables, flow.service(), client);
            *clients.entry(client).or_default() += 1_u32;
        }
    };
    tables.v4.flows.borrow().iter().for_each(|(key, flow)| add(key.source.to_v6(), flow));
    tables.v6.flows.borrow().iter().for_each(|(key, flow)| add(key.source.to_v6(), flow));

    let all = loads.values().sum();
    for (backend, load) in tables.loads.borrow().iter() {
        assert_eq!(*load, loads.remove(backend).unwrap_or(0), "{what}: backend {backend}");
    }
    assert!(loads.is_empty(), "{what}: {loads:?}");
    for (backend, begun) in tables.begun.borrow().iter() {
        let removed = tables.removed.borrow().get(backend).copied().unwrap_or(0);
        let there = entries.remove(backend).unwrap_or(0);
        assert_eq!(begun - removed, there, "{what}: entries to backend {backend}");
    }
    let of_service = tables.service_loads.borrow().get(&0).copied().unwrap_or(0);
    assert_eq!(of_service, all, "{what}");
    for (client, flows) in tables.clients.borrow().iter() {
        assert_eq!(*flows, clients.remove(client).unwrap_or(0), "{what}: {client:?}");
    }
    assert!(clients.is_empty(), "{what}: {clients:?}");
}

/// How many flows the backends and the client have.
fn counts(tables: &ModelTables) -> [i64; 2] {
    let clients = tables.clients.borrow().values().sum::<u32>();
    [tables.loads.borrow().values().sum(), clients.into()]
}

#[test]
fn a_flow_counts_until_both_sides_have_closed_it_or_the_backend_has_reset_it() {
    let cases: [(&[Act], i64); 11] = [
        (&[], 1),
        (&[Act::Client(FIN)], 1),
        (&[Act::Backend(1, FIN)], 1),
        (&[Act::Client(FIN), Act::Backend(1, FIN)], 0),
        (&[Act::Backend(1, FIN), Act::Client(FIN)], 0),
        (
            &[
                Act::Backend(1, FIN),
                Act::Client(FIN),
                Act::Client(FIN),
                Act::Backend(1, FIN),
                Act::Backend(1, RST),
            ],
            0,
        ),
        (&[Act::Backend(1, RST)], 0),
        // The backend may ignore it.
        (&[Act::Client(RST)], 1),
        (&[Act::Client(RST), Act::Client(ACK)], 1),
        (&[Act::Client(RST), Act::Backend(1, RST), Act::Client(ACK)], 0),
        (&[Act::Client(FIN), Act::Backend(1, FIN), Act::Client(SYN)], 1),
    ];
    for world in WORLDS {
        for (acts, expected) in cases {
            let tables = world((LIVE, 5, acts), 1);
            assert_eq!(counts(&tables), [expected; 2], "{acts:?}");
            tables.clock.set(tables.clock.get() + LONG);
            run_all(&tables, &[Act::MarkAll, Act::SweepAll]);
            assert_eq!(counts(&tables), [0; 2], "{acts:?}");
        }
    }
}

#[test]
fn a_flow_whose_answers_go_another_way_counts_until_it_is_removed() {
    for end in [FIN, RST] {
        let mut tables = before((&[], 0, &[]), 1);
        for service in tables.services.values_mut() {
            service.mode = MODE_L2 as u8;
        }
        run_all(&tables, &[Act::Client(SYN), Act::Client(ACK), Act::Client(end)]);
        assert_eq!(counts(&tables), [1; 2], "{end:?}");
        each_flow_counts_once_until_it_is_closed(&tables, "direct");
        tables.clock.set(tables.clock.get() + LONG);
        run_all(&tables, &[Act::MarkAll, Act::SweepAll]);
        assert_eq!(counts(&tables), [0; 2], "{end:?}");
    }
}

#[test]
fn a_client_at_its_limit_may_begin_another_connection_once_one_is_closed() {
    for world in WORLDS {
        let mut tables = world((LIVE, 5, &[]), 1);
        for service in tables.services.values_mut() {
            service.max_flows_per_client = 1;
        }
        let across = !tables.sources.is_empty();
        if across {
            tables.sources[0].more_ports = 9;
        }
        let (client, vip) =
            if across { ("[2001:db8:1::1]:1001", VIP6) } else { ("10.1.0.1:1001", VIP) };
        let begins = |tables: &ModelTables| {
            let mut packet = ModelPacket::<true>::new(packet(SYN, client, vip).bytes());
            process(&mut packet, tables).reason
        };
        assert_eq!(begins(&tables), Reason::ClientFull);
        run_all(&tables, &[Act::Client(FIN), Act::Backend(1, FIN)]);
        assert_eq!(begins(&tables), Reason::ForwardedToBackend);
        assert_eq!(begins(&tables), Reason::ForwardedToBackend, "the same again");
        assert_eq!(counts(&tables), [1; 2]);
    }
}

#[test]
fn a_client_that_finds_no_place_begins_no_flow_and_leaves_nothing_and_others_go_on() {
    let mut tables = before((LIVE, 5, &[]), 1);
    tables.most_clients = Some(1);
    let begins = |client| {
        let mut packet = ModelPacket::<true>::new(packet(SYN, client, VIP).bytes());
        process(&mut packet, &tables).reason
    };
    let flows = tables.v4.flows.borrow().len();
    assert_eq!(begins("10.1.0.2:1001"), Reason::ClientsFull);
    assert_eq!((counts(&tables), tables.v4.flows.borrow().len()), ([1; 2], flows));
    assert_eq!(begins("10.1.0.1:1002"), Reason::ForwardedToBackend, "it has a place");
    assert_eq!(counts(&tables), [2; 2]);
    tables.clock.set(tables.clock.get() + LONG);
    run_all(&tables, &[Act::MarkAll, Act::SweepAll]);
    assert!(tables.clients.borrow().is_empty());
    assert_eq!(begins("10.1.0.2:1001"), Reason::ForwardedToBackend);
}

proptest! {
    /// Scripts of acts, some of which another CPU's act interrupts.
    #[test]
    fn whatever_ends_a_flow_it_is_counted_out_once(
        across: bool,
        script in prop::collection::vec((0..ACTS.len(), 0..80_usize, 0..ACTS.len(), 0..400_u32), 0..60),
    ) {
        let tables = WORLDS[usize::from(across)]((&[], 0, &[]), 2);
        for (act, steps, other, ticks) in script {
            // Time stands still for two of three acts.
            tables.clock.set(tables.clock.get() + ticks.saturating_sub(266));
            let other_cpu: Box<dyn FnOnce(&ModelTables)> =
                Box::new(move |tables| run_all(tables, &[ACTS[other]]));
            *tables.interruption.borrow_mut() = Some((steps, other_cpu));
            ACTS[act].run(&tables);
            tables.interruption.borrow_mut().take();
        }
        each_flow_counts_once_until_it_is_closed(&tables, "in between");
        tables.clock.set(tables.clock.get() + LONG);
        for _ in 0..2 {
            run_all(&tables, &[Act::MarkAll, Act::SweepAll]);
        }
        prop_assert_eq!(counts(&tables), [0; 2]);
    }
}
