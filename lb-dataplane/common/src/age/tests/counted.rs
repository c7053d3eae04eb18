//! What is counted of flows, whoever ends them, and in whatever order.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::family::V6;
use crate::flow::{
    DIRECTION_TO_CLIENT, STATE_CLIENT_COUNTED, STATE_COUNTED_OUT, counted_client, is_closed,
    is_open,
};
use crate::model::ModelFlow;
use crate::model::memory;
use crate::service::{ALGORITHM_MAGLEV, MODE_L2};

/// At rest each flow that is not closed counts once, where it is to, and no other does.
pub(super) fn each_flow_counts_once_until_it_is_closed(tables: &ModelTables, what: &str) {
    let mut loads = HashMap::<u32, i64>::new();
    let mut open = HashMap::<u32, i64>::new();
    let (mut clients, mut entries) = (HashMap::new(), HashMap::<u32, u64>::new());
    let mut add = |protocol: u8, client: V6, flow: &ModelFlow| {
        let state = flow.state_now();
        if flow.direction() == DIRECTION_TO_CLIENT {
            return;
        }
        *entries.entry(tables.backend_of(flow.line())).or_default() += 1_u64;
        let is_out = state & STATE_COUNTED_OUT != 0;
        assert!(is_out || !is_closed(protocol, state), "{what}: {state:x}");
        assert!(!is_out || state & STATE_CLOSING != 0, "{what}: {state:x}");
        if is_out {
            return;
        }
        *loads.entry(tables.backend_of(flow.line())).or_default() += 1;
        if !is_open(protocol, state) {
            return;
        }
        *open.entry(tables.backend_of(flow.line())).or_default() += 1;
        if state & STATE_CLIENT_COUNTED != 0 {
            let client = counted_client(flow.counted_as(), client);
            *clients.entry(client).or_default() += 1_u32;
        }
    };
    let (v4, v6) = (tables.v4.flows.borrow(), tables.v6.flows.borrow());
    v4.iter().for_each(|(key, flow)| add(key.protocol(), key.source.to_v6(), flow));
    v6.iter().for_each(|(key, flow)| add(key.protocol(), key.source.to_v6(), flow));

    let of_services: i64 = tables.open_of_services.borrow().values().sum();
    assert_eq!(of_services, open.values().sum(), "{what}");
    for (counted, mut there) in [(&tables.loads, loads), (&tables.open, open)] {
        for (backend, flows) in counted.borrow().iter() {
            assert_eq!(*flows, there.remove(backend).unwrap_or(0), "{what}: backend {backend}");
        }
        assert!(there.is_empty(), "{what}: {there:?}");
    }
    for (backend, begun) in tables.begun.borrow().iter() {
        let removed = tables.removed.borrow().get(backend).copied().unwrap_or(0);
        let there = entries.remove(backend).unwrap_or(0);
        assert_eq!(begun - removed, there, "{what}: entries to backend {backend}");
    }
    for (client, flows) in tables.clients.borrow().iter() {
        assert_eq!(*flows, clients.remove(client).unwrap_or(0), "{what}: {client:?}");
    }
    assert!(clients.is_empty(), "{what}: {clients:?}");
}

/// How many flows the backends have, how many of them are open, and how many the clients have.
fn counts(tables: &ModelTables) -> [i64; 3] {
    let clients = tables.clients.borrow().values().sum::<u32>();
    let of = |counted: &std::cell::RefCell<HashMap<u32, i64>>| counted.borrow().values().sum();
    [of(&tables.loads), of(&tables.open), clients.into()]
}

fn send(tables: &ModelTables, carries: Carries, from: &str, to: &str) -> Reason {
    process(&mut ModelPacket::<true>::new(packet(carries, from, to).bytes()), tables).reason
}

/// Ageing looks at each flow, so much later.
fn pass(tables: &ModelTables, ticks: u32) {
    tables.clock.set(tables.clock.get() + ticks);
    run_all(tables, &[Act::MarkAll, Act::SweepAll]);
}

#[test]
fn a_flow_counts_until_both_sides_have_closed_it_or_the_backend_has_reset_it() {
    let cases: [(&[Act], i64); 12] = [
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
                Act::Backend(1, RST_ACK),
            ],
            0,
        ),
        (&[Act::Backend(1, RST_ACK)], 0),
        // Who hears these may ignore them.
        (&[Act::Backend(1, RST)], 1),
        (&[Act::Client(RST)], 1),
        (&[Act::Client(RST), Act::Client(ACK)], 1),
        (&[Act::Client(RST), Act::Backend(1, RST_ACK), Act::Client(ACK)], 0),
        // It begins anew, and is half-open.
        (&[Act::Client(FIN), Act::Backend(1, FIN), Act::Client(SYN), Act::Client(ACK)], 1),
    ];
    for world in WORLDS {
        for (n, (acts, expected)) in cases.into_iter().enumerate() {
            let tables = world((LIVE, 5, acts), 1);
            let open = if n == cases.len() - 1 { 0 } else { expected };
            assert_eq!(counts(&tables), [expected, open, open], "{acts:?}");
            pass(&tables, LONG);
            assert_eq!(counts(&tables), [0; 3], "{acts:?}");
        }
    }
}

/// A CPU that changes one of a flow's entries before another one can, as often as that tries: the packet is dropped and sent again.
#[test]
fn what_closes_a_flow_counts_it_out_though_not_both_entries_could_be_told_at_once() {
    let sides = [Act::Client(FIN), Act::Backend(1, FIN)];
    for world in WORLDS {
        for [first, last] in [sides, [sides[1], sides[0]]] {
            let mut dropped = 0;
            for swaps in 0..8 {
                for is_first in [true, false] {
                    let tables = world((LIVE, 5, &[]), 1);
                    for (act, is_busy) in [(first, is_first), (last, !is_first)] {
                        if is_busy {
                            memory::busy_after(swaps);
                        }
                        let ended = act.run(&tables).expect("a packet").0;
                        memory::finish();
                        if ended == Reason::FlowExpiring {
                            dropped += 1;
                        }
                        // Who hears nothing of it says it again.
                        let again = act.run(&tables).expect("a packet").0;
                        assert_ne!(again, Reason::FlowExpiring, "{act:?} {swaps}");
                    }
                    // Where its entry says that it is closed and could not say that it is counted out.
                    Act::MarkAll.run(&tables);
                    assert_eq!(counts(&tables), [0; 3], "{first:?} {last:?} {swaps} {is_first}");
                    each_flow_counts_once_until_it_is_closed(&tables, "closed");
                }
            }
            assert!(dropped > 0, "the busy CPU is met");
        }
    }
}

#[test]
fn a_flow_counts_under_bounds_from_when_its_client_has_answered() {
    for world in WORLDS {
        let tables = world((&[], 0, &[]), 1);
        for (act, expected) in [
            (Act::Client(SYN), [1, 0, 0]),
            (Act::Client(SYN), [1, 0, 0]),
            (Act::Backend(1, SYN_ACK), [1, 0, 0]),
            (Act::Client(ACK), [1, 1, 1]),
            (Act::Client(ACK), [1, 1, 1]),
            (Act::Backend(1, ACK), [1, 1, 1]),
        ] {
            act.run(&tables);
            assert_eq!(counts(&tables), expected, "{act:?}");
        }
    }
    // Datagrams have no handshake: that somebody answers is all there is.
    let tables = before((&[], 0, &[]), 1);
    for (act, expected) in [
        (Act::Client(UDP), [1, 0, 0]),
        (Act::Client(UDP), [1, 0, 0]),
        (Act::Backend(1, UDP), [1, 1, 1]),
        (Act::Client(UDP), [1, 1, 1]),
    ] {
        act.run(&tables);
        assert_eq!(counts(&tables), expected, "{act:?}");
    }
}

/// A backend that is asked to go on with a connection that it has not, or not yet, says so by such a RST, and keeps the one that it
/// has: who provokes one gets no place for it.
#[test]
fn a_backends_reset_that_acknowledges_nothing_frees_no_place() {
    for world in WORLDS {
        for (start, goes_on) in [(HALF_OPEN, Act::Client(ACK)), (LIVE, Act::Client(ACK))] {
            let tables = world((start, 0, &[Act::Backend(1, RST)]), 1);
            goes_on.run(&tables);
            assert_eq!(counts(&tables), [1; 3], "{start:?}");
            each_flow_counts_once_until_it_is_closed(&tables, "goes on");
        }
        // Nor has it answered anything: what it sends back is what the client, or who forges it, has sent.
        let tables = world((&[Act::Client(SYN)], 0, &[Act::Backend(1, RST)]), 1);
        Act::Client(ACK).run(&tables);
        assert_eq!(counts(&tables), [1, 0, 0]);
    }
}

#[test]
fn a_flow_that_its_client_resets_counts_until_both_sides_have_been_silent_for_a_while() {
    for world in WORLDS {
        for reset in [Act::Client(RST), Act::Backend(1, RST)] {
            let tables = world((LIVE, 5, &[]), 1);
            reset.run(&tables);
            let entries = tables.keys().len() + tables.keys6().len();
            pass(&tables, seconds(10) - 1);
            assert_eq!(counts(&tables), [1; 3], "{reset:?}");
            Act::Backend(1, ACK).run(&tables);
            pass(&tables, seconds(10) - 1);
            assert_eq!(counts(&tables), [1; 3], "{reset:?}: the backend goes on");
            pass(&tables, 1);
            assert_eq!(counts(&tables), [0; 3], "{reset:?}");
            // It may have been forged: the client finds its flow for as long as ever.
            assert_eq!(tables.keys().len() + tables.keys6().len(), entries);
            Act::Client(ACK).run(&tables);
            assert_eq!(counts(&tables), [1; 3], "{reset:?}");
            pass(&tables, seconds(100));
            assert_eq!(counts(&tables), [1; 3], "{reset:?}: it is taken back");
            each_flow_counts_once_until_it_is_closed(&tables, "taken back");
        }
    }
}

#[test]
fn a_flow_whose_answers_go_another_way_counts_until_its_client_has_closed_and_been_silent() {
    for end in [FIN, RST] {
        let mut tables = before((&[], 0, &[]), 1);
        for service in tables.services.values_mut() {
            service.mode = MODE_L2 as u8;
        }
        run_all(&tables, &[Act::Client(SYN), Act::Client(ACK), Act::Client(end)]);
        for ticks in [0, seconds(10) - 1] {
            pass(&tables, ticks);
            assert_eq!(counts(&tables), [1; 3], "{end:?}");
        }
        pass(&tables, 1);
        assert_eq!((counts(&tables), tables.keys().len()), ([0; 3], 1), "{end:?}");
        run_all(&tables, &[Act::Client(end), Act::Client(end)]);
        assert_eq!(counts(&tables), [0; 3], "{end:?}: said again");
        Act::Client(ACK).run(&tables);
        assert_eq!(counts(&tables), [1; 3], "{end:?}: it goes on");
        each_flow_counts_once_until_it_is_closed(&tables, "direct");
        pass(&tables, LONG);
        assert_eq!(counts(&tables), [0; 3], "{end:?}");
    }
}

#[test]
fn who_goes_on_after_all_counts_again_though_others_have_taken_its_place() {
    for world in WORLDS {
        let mut tables = world((LIVE, 5, &[Act::Client(RST)]), 1);
        let port = more_ports(&mut tables);
        for service in tables.services.values_mut() {
            (service.max_flows, service.max_flows_per_client) = (1, 0);
        }
        tables.backends.iter_mut().for_each(|backend| backend.max_flows = 1);
        pass(&tables, seconds(10));
        let (client, vip) = (port(1001), vip_of(&tables));
        assert_eq!(send(&tables, SYN, &client, vip), Reason::ForwardedToBackend);
        answer(&tables, &client);
        assert_eq!(send(&tables, ACK, &client, vip), Reason::ForwardedToBackend);
        // Anybody may have forged the RST: who goes on is not locked out for that.
        assert_eq!(Act::Client(ACK).run(&tables).expect("a packet").0, Reason::ForwardedToBackend);
        assert_eq!(counts(&tables)[..2], [2; 2]);
        each_flow_counts_once_until_it_is_closed(&tables, "beyond the bound");
        assert_eq!(send(&tables, SYN, &port(1002), vip), Reason::ServiceFull);
    }
}

#[test]
fn who_goes_on_where_no_more_clients_have_a_place_counts_for_none() {
    let mut tables = before((LIVE, 5, &[Act::Client(RST)]), 1);
    tables.most_clients = Some(1);
    pass(&tables, seconds(10));
    let other = "10.1.0.2:1001";
    assert_eq!(send(&tables, SYN, other, VIP), Reason::ForwardedToBackend);
    assert_eq!(send(&tables, SYN_ACK, "10.2.0.1:8080", other), Reason::ForwardedToClient);
    assert_eq!(send(&tables, ACK, other, VIP), Reason::ForwardedToBackend);
    assert_eq!(Act::Client(ACK).run(&tables).expect("a packet").0, Reason::ForwardedToBackend);
    assert_eq!(counts(&tables), [2, 2, 1]);
    each_flow_counts_once_until_it_is_closed(&tables, "no place");
}

#[test]
fn a_client_that_goes_on_after_all_finds_its_own_place_taken() {
    for world in WORLDS {
        let mut tables = world((LIVE, 5, &[Act::Client(RST)]), 1);
        let port = more_ports(&mut tables);
        tables.services.values_mut().for_each(|service| service.max_flows_per_client = 1);
        pass(&tables, seconds(10));
        let (client, vip) = (port(1001), vip_of(&tables));
        assert_eq!(send(&tables, SYN, &client, vip), Reason::ForwardedToBackend);
        answer(&tables, &client);
        assert_eq!(send(&tables, ACK, &client, vip), Reason::ForwardedToBackend);
        assert_eq!(counts(&tables), [1; 3]);
        for _ in 0..3 {
            assert_eq!(Act::Client(ACK).run(&tables).expect("a packet").0, Reason::ClientFull);
        }
        assert_eq!(counts(&tables), [1; 3]);
        each_flow_counts_once_until_it_is_closed(&tables, "in the way");
        // Once there is room again, it goes on.
        send(&tables, RST_ACK, "10.2.0.1:8080", &seen(&tables, 1001));
        assert_eq!(Act::Client(ACK).run(&tables).expect("a packet").0, Reason::ForwardedToBackend);
        assert_eq!(counts(&tables), [1; 3]);
    }
}

/// Room for more flows than one between the families; how a client's port is named.
fn more_ports(tables: &mut ModelTables) -> impl Fn(u16) -> String + use<> {
    let across = !tables.sources.is_empty();
    tables.sources.iter_mut().for_each(|source| source.more_ports = 9);
    move |port| {
        if across { format!("[2001:db8:1::1]:{port}") } else { format!("10.1.0.1:{port}") }
    }
}

fn vip_of(tables: &ModelTables) -> &'static str {
    if tables.sources.is_empty() { VIP } else { VIP6 }
}

/// Whom the backend takes for the client with this port, the second one.
fn seen(tables: &ModelTables, port: u16) -> String {
    if tables.sources.is_empty() {
        return format!("10.1.0.1:{port}");
    }
    let of = |key: &&FlowKey<crate::family::V4>| key.destination_port != 4000_u16.to_be();
    let port = tables.keys().iter().find(of).map(|key| u16::from_be(key.destination_port));
    format!("192.0.2.9:{}", port.expect("it has a flow"))
}

fn answer(tables: &ModelTables, client: &str) {
    let port = client.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let seen = seen(tables, port);
    assert_eq!(send(tables, SYN_ACK, "10.2.0.1:8080", &seen), Reason::ForwardedToClient);
}

/// A service that 3 flows are open of at most.
fn bounded(backends: &[[u8; 4]], of_backend: u32) -> ModelTables {
    let mut tables = serving([192, 0, 2, 1], ALGORITHM_MAGLEV, backends);
    for service in tables.services.values_mut() {
        service.flags |= SERVICE_BOUNDS_FLOWS;
        service.max_flows = if of_backend == 0 { 3 } else { 0 };
        if of_backend != 0 {
            service.flags |= crate::service::SERVICE_BOUNDS_BACKENDS;
        }
    }
    // The list behind the ring.
    let all = tables.rings.clone();
    tables.rings.push(all.len() as u32);
    tables.rings.extend(all);
    for backend in &mut tables.backends {
        backend.flags |= BACKEND_BOUNDED;
        backend.max_flows = of_backend;
    }
    ModelTables { capacity: 1000, ..tables }
}

#[test]
fn what_anybody_may_have_forged_fills_no_bound() {
    for (forged, next, full) in [(SYN, ACK, 0), (UDP, UDP, 0), (SYN, ACK, 3), (UDP, UDP, 3)] {
        let what = format!("{forged:?} {full}");
        let tables = bounded(&[[10, 2, 0, 1]], full);
        let refused = if full == 0 { Reason::ServiceFull } else { Reason::BackendsFull };
        for n in 0..200 {
            let from = format!("10.9.0.{}:7", n % 250 + 1);
            assert_eq!(send(&tables, forged, &from, VIP), Reason::ForwardedToBackend, "{what}");
        }
        let client = |n: usize| format!("10.1.0.{n}:1000");
        let begin = |n| send(&tables, forged, &client(n), VIP);
        // More begin than there is room for.
        (1..=5).for_each(|n| assert_eq!(begin(n), Reason::ForwardedToBackend, "{what}"));
        let open = |n| {
            let answers = if forged == SYN { SYN_ACK } else { UDP };
            let answered = send(&tables, answers, "10.2.0.1:8080", &client(n));
            // Of datagrams the answer is what opens the flow.
            if answered == Reason::ForwardedToClient {
                send(&tables, next, &client(n), VIP)
            } else {
                answered
            }
        };
        for n in 1..=3 {
            assert_eq!(open(n), Reason::ForwardedToBackend, "{what} {n}");
        }
        for n in [4, 5, 4, 5] {
            assert_eq!(open(n), refused, "{what} {n}");
        }
        assert_eq!(begin(6), refused, "{what}");
        assert_eq!(tables.open.borrow().values().sum::<i64>(), 3, "{what}");
        each_flow_counts_once_until_it_is_closed(&tables, &what);
        if forged == SYN {
            send(&tables, RST_ACK, "10.2.0.1:8080", &client(1));
            assert_eq!(open(4), Reason::ForwardedToBackend, "{what}: there is room again");
        }
    }
}

#[test]
fn half_open_flows_go_to_backends_that_have_room_with_them_while_any_has() {
    let backends: Vec<_> = (1..=3).map(|n| [10, 2, 0, n]).collect();
    let tables = bounded(&backends, 4);
    for port in 1..=12 {
        assert_eq!(
            send(&tables, SYN, &format!("10.1.0.1:{port}"), VIP),
            Reason::ForwardedToBackend
        );
    }
    assert!((0..3).all(|id| tables.loads.borrow()[&id] == 4), "{:?}", tables.loads);
    assert_eq!(send(&tables, SYN, "10.1.0.1:13", VIP), Reason::ForwardedToBackend);
}

#[test]
fn a_client_at_its_limit_may_begin_another_connection_once_one_is_closed() {
    for world in WORLDS {
        let mut tables = world((LIVE, 5, &[]), 1);
        for service in tables.services.values_mut() {
            service.max_flows_per_client = 1;
        }
        let port = more_ports(&mut tables);
        let begins = |tables: &ModelTables| send(tables, SYN, &port(1001), vip_of(tables));
        assert_eq!(begins(&tables), Reason::ClientFull);
        run_all(&tables, &[Act::Client(FIN), Act::Backend(1, FIN)]);
        assert_eq!(begins(&tables), Reason::ForwardedToBackend);
        assert_eq!(begins(&tables), Reason::ForwardedToBackend, "the same again");
        assert_eq!(counts(&tables), [1, 0, 0]);
    }
}

#[test]
fn the_end_of_a_flow_is_told_once_by_what_closes_it_or_when_it_is_removed() {
    let closes: [(&[Act], usize); 6] = [
        (&[Act::Client(FIN), Act::Backend(1, FIN)], 1),
        (&[Act::Backend(1, FIN), Act::Client(FIN), Act::Client(ACK), Act::Backend(1, RST_ACK)], 1),
        (&[Act::Backend(1, RST_ACK), Act::Client(RST)], 1),
        (&[Act::Client(FIN)], 0),
        (&[Act::Client(RST)], 0),
        (&[Act::Client(FIN), Act::Backend(1, FIN), Act::Client(SYN)], 1),
    ];
    for world in WORLDS {
        for (acts, at_once) in closes {
            let tables = ModelTables { samples_every: 1, ..world((&[], 0, &[]), 1) };
            run_all(&tables, &[LIVE, acts].concat());
            assert_eq!(tables.ends.borrow().len(), at_once, "{acts:?}");
            if at_once > 0 {
                let (_, _, packets) = tables.ends.borrow()[0];
                // With the last one that it takes.
                let last = acts.iter().position(|act| *act == Act::Client(SYN));
                assert!(
                    packets.is_some_and(|packets| packets >= 4),
                    "{acts:?}: {packets:?} {last:?}"
                );
            }
            pass(&tables, seconds(10));
            assert_eq!(tables.ends.borrow().len(), at_once, "{acts:?}: silence is no end");
            pass(&tables, LONG);
            let begun = 1 + usize::from(acts.contains(&Act::Client(SYN)));
            assert_eq!(tables.ends.borrow().len(), begun, "{acts:?}");
            assert!(tables.ends.borrow().iter().all(|(_, _, packets)| packets.is_some()));
        }
    }
}

#[test]
fn a_client_counts_as_it_did_when_its_flow_began_though_others_are_counted_by_other_prefixes_since()
{
    for world in WORLDS {
        // As half-open and as open as a flow may be, and counted out.
        let starts: [&[Act]; 3] = [HALF_OPEN, LIVE, RESET];
        for start in starts {
            let mut tables = world((start, 5, &[]), 1);
            let port = more_ports(&mut tables);
            pass(&tables, seconds(10));
            tables.fewer_client_bits.set(8);
            let (client, vip) = (port(1001), vip_of(&tables));
            assert_eq!(send(&tables, SYN, &client, vip), Reason::ForwardedToBackend);
            answer(&tables, &client);
            assert_eq!(send(&tables, ACK, &client, vip), Reason::ForwardedToBackend);
            run_all(&tables, &[Act::Client(ACK)]);
            each_flow_counts_once_until_it_is_closed(&tables, "both");
            run_all(&tables, &[Act::Backend(1, RST_ACK)]);
            assert_eq!(counts(&tables), [1; 3], "{start:?}");
            each_flow_counts_once_until_it_is_closed(&tables, "the other");
        }
    }
}

#[test]
fn a_client_that_finds_no_place_opens_no_flow_and_others_go_on() {
    let mut tables = before((LIVE, 5, &[]), 1);
    tables.most_clients = Some(1);
    let opens = |client| {
        send(&tables, SYN, client, VIP);
        send(&tables, SYN_ACK, "10.2.0.1:8080", client);
        send(&tables, ACK, client, VIP)
    };
    assert_eq!(opens("10.1.0.2:1001"), Reason::ClientsFull);
    assert_eq!(counts(&tables), [2, 1, 1]);
    assert_eq!(opens("10.1.0.1:1002"), Reason::ForwardedToBackend, "it has a place");
    // The one without has made room.
    assert_eq!(counts(&tables), [2; 3]);
    each_flow_counts_once_until_it_is_closed(&tables, "no place");
    pass(&tables, LONG);
    assert!(tables.clients.borrow().is_empty());
    assert_eq!(opens("10.1.0.2:1001"), Reason::ForwardedToBackend);
}

proptest! {
    /// Scripts of acts, some of which another CPU's act interrupts.
    #[test]
    fn whatever_ends_a_flow_it_is_counted_out_once(
        across: bool,
        is_watched: bool,
        script in prop::collection::vec((0..ACTS.len(), 0..80_usize, 0..ACTS.len(), 0..400_u32), 0..60),
    ) {
        let tables = WORLDS[usize::from(across)]((&[], 0, &[]), 2);
        let tables = ModelTables { samples_every: u32::from(is_watched), ..tables };
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
        prop_assert_eq!(counts(&tables), [0; 3]);
        // However many flows there were, each end is told once.
        prop_assert!(tables.ends.borrow().iter().all(|(_, _, packets)| packets.is_some()));
        prop_assert!(tables.samples.borrow().is_empty());
    }
}
