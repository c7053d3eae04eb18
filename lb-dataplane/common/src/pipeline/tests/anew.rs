//! Who may end a flow: a client's SYN on the addresses and ports of one, after signs of its end that anybody may have forged.

use super::*;
use crate::flow::{
    STATE_CLIENT_COUNTED, STATE_CLOSING, STATE_CONFIRMED, STATE_COUNTED_OUT, STATE_REPLIED,
    Timeouts, seconds,
};
use crate::frame::RST_ACK;
use crate::service::{BACKEND_BOUNDED, BACKEND_DRAINING, BACKEND_FAILED, SERVICE_BOUNDS_FLOWS};

const CLIENT: &str = "10.1.0.1:1000";
const OTHER_VIP: &str = "192.0.2.2:80";

/// A packet, of the client unless it says which backend sends it.
#[derive(Clone, Copy, Debug)]
enum Sent {
    Client(Carries),
    Backend(u8, Carries),
}
use Sent::{Backend, Client};

const LIVE: [Sent; 3] = [Client(SYN), Backend(1, SYN_ACK), Client(ACK)];

/// Two backends that get flows by turns.
fn scene() -> ModelTables {
    let tables = serving(VIP, ALGORITHM_ROUND_ROBIN, &BACKENDS[..2]);
    ModelTables { capacity: 1000, ..tables }
}

fn pass(tables: &ModelTables, ticks: u32) {
    tables.clock.set(tables.clock.get() + ticks);
}

/// How a packet ended, and whom it reached.
fn send(tables: &ModelTables, sent: Sent) -> (Reason, SocketAddr) {
    let backend;
    let (carries, from, to) = match sent {
        Client(carries) => (carries, CLIENT, "192.0.2.1:80"),
        Backend(n, carries) => {
            backend = format!("10.2.0.{n}:8080");
            (carries, &*backend, CLIENT)
        }
    };
    let mut packet = ModelPacket::<true>::new(packet(carries, from, to).bytes());
    let reason = process(&mut packet, tables).reason;
    (reason, Frame::parse(&packet.bytes).to)
}

/// Sends the client's packet; which backend it reached.
fn reaches(tables: &ModelTables, carries: Carries) -> u8 {
    let (_, to) = send(tables, Client(carries));
    let IpAddr::V4(to) = to.ip() else { panic!("{to}") };
    to.octets()[3]
}

fn talk(tables: &ModelTables, all: &[Sent]) {
    for sent in all {
        let (reason, _) = send(tables, *sent);
        assert_eq!(reason.kind(), Kind::Forward, "{sent:?}: {reason:?}");
    }
}

/// The state of the client's entry to its backend.
fn state(tables: &ModelTables) -> u32 {
    let flows = tables.v4.flows.borrow();
    let to_backend = flows.iter().find(|(key, _)| key.destination_port == 80_u16.to_be());
    to_backend.expect("it has a flow").1.state_now()
}

fn begun(tables: &ModelTables) -> u64 {
    tables.begun.borrow().values().sum()
}

/// How many flows the backends have, how many of them are open, and how many the clients have.
fn counts(tables: &ModelTables) -> [i64; 3] {
    let clients = tables.clients.borrow().values().sum::<u32>();
    let loads = tables.loads.borrow().values().sum();
    [loads, tables.open.borrow().values().sum(), clients.into()]
}

/// The first backend takes no new flows any more.
fn lose(tables: &mut ModelTables, flag: u8) {
    tables.backends[0].flags |= flag;
    tables.rings.fill(1);
}

/// Signs of an end that the backend may have ignored.
const SIGNS: [&[Sent]; 5] = [
    &[Client(FIN)],
    &[Client(RST)],
    &[Client(FIN), Client(RST)],
    &[Backend(1, RST)],
    &[Client(RST), Backend(1, RST)],
];

#[test]
fn who_forges_a_sign_of_the_end_and_a_syn_ends_no_flow() {
    for signs in SIGNS {
        let tables = scene();
        talk(&tables, &LIVE);
        // However long both sides have been silent.
        for ticks in [0, 3, seconds(60)] {
            pass(&tables, ticks);
            talk(&tables, signs);
            for _ in 0..3 {
                assert_eq!(reaches(&tables, SYN), 1, "{signs:?}: the backend is asked");
                // It has the connection: a challenge.
                assert_eq!(send(&tables, Backend(1, ACK)).0, Reason::ForwardedToClient);
                pass(&tables, 3);
            }
            assert_eq!(reaches(&tables, ACK), 1, "{signs:?}");
            assert_eq!((begun(&tables), tables.keys().len()), (1, 2), "{signs:?}");
        }
    }
}

#[test]
fn a_connection_that_is_known_to_be_closed_begins_anew_at_once() {
    let ends: [&[Sent]; 4] = [
        &[Client(FIN), Backend(1, FIN), Client(ACK)],
        &[Backend(1, FIN), Client(FIN), Backend(1, ACK)],
        &[Backend(1, RST_ACK)],
        &[Client(FIN), Backend(1, RST_ACK)],
    ];
    for end in ends {
        let tables = scene();
        talk(&tables, &LIVE);
        talk(&tables, end);
        assert_eq!(reaches(&tables, SYN), 2, "{end:?}: a new choice");
        assert_eq!((begun(&tables), tables.keys().len()), (2, 2), "{end:?}");
    }
}

#[test]
fn a_backend_that_answers_a_syn_with_its_own_begins_a_connection_on_the_same_entry() {
    for signs in SIGNS {
        let mut tables = scene();
        bound(&mut tables);
        talk(&tables, &LIVE);
        talk(&tables, signs);
        assert_eq!(counts(&tables), [1; 3], "{signs:?}");
        assert_eq!(reaches(&tables, SYN), 1, "{signs:?}");
        talk(&tables, &[Backend(1, SYN_ACK)]);
        let mut of = STATE_CLOSING | STATE_CONFIRMED | STATE_REPLIED;
        assert_eq!(state(&tables) & of, STATE_REPLIED, "{signs:?}: half-open");
        assert_eq!(counts(&tables), [1, 0, 0], "{signs:?}");
        of |= STATE_CLIENT_COUNTED | STATE_COUNTED_OUT;
        assert_eq!(reaches(&tables, ACK), 1, "{signs:?}");
        let open = STATE_CONFIRMED | STATE_REPLIED | STATE_CLIENT_COUNTED;
        assert_eq!(state(&tables) & of, open, "{signs:?}");
        assert_eq!(counts(&tables), [1; 3], "{signs:?}");
        let usual = Timeouts::default();
        assert_eq!(usual.of(6, state(&tables)), usual.tcp_established, "{signs:?}");
        // The other direction says the same.
        talk(&tables, &[Backend(1, ACK)]);
        let entries = tables.v4.flows.borrow();
        assert!(entries.values().all(|flow| flow.state_now() & STATE_CLOSING == 0), "{signs:?}");
        assert!(entries.values().all(|flow| flow.state_now() & open & !STATE_CLIENT_COUNTED != 0));
    }
}

fn bound(tables: &mut ModelTables) {
    for service in tables.services.values_mut() {
        service.flags |= SERVICE_BOUNDS_FLOWS;
        service.max_flows_per_client = 100;
    }
    tables.backends.iter_mut().for_each(|backend| backend.flags |= BACKEND_BOUNDED);
}

/// Or clients would have more than a bound lets them, by connections that they reset and begin again once others have their place.
#[test]
fn a_connection_that_begins_on_a_flow_that_was_counted_out_has_to_find_room() {
    let mut tables = scene();
    bound(&mut tables);
    for service in tables.services.values_mut() {
        service.max_flows = 1;
    }
    talk(&tables, &LIVE);
    talk(&tables, &[Client(RST)]);
    pass(&tables, seconds(10));
    for key in tables.keys() {
        crate::age::mark(&tables, &key);
    }
    assert_eq!(counts(&tables), [0; 3]);
    let other = |carries, from: &str, to: &str| {
        process(&mut ModelPacket::<true>::new(packet(carries, from, to).bytes()), &tables).reason
    };
    assert_eq!(other(SYN, "10.1.0.2:7", "192.0.2.1:80"), Reason::ForwardedToBackend);
    assert_eq!(other(SYN_ACK, "10.2.0.2:8080", "10.1.0.2:7"), Reason::ForwardedToClient);
    assert_eq!(other(ACK, "10.1.0.2:7", "192.0.2.1:80"), Reason::ForwardedToBackend);
    assert_eq!(counts(&tables), [1; 3]);

    assert_eq!(reaches(&tables, SYN), 1);
    assert_eq!(counts(&tables), [1; 3], "a SYN says nothing");
    talk(&tables, &[Backend(1, SYN_ACK)]);
    assert_eq!(counts(&tables), [2, 1, 1]);
    assert_eq!(send(&tables, Client(ACK)).0, Reason::ServiceFull);
    assert_eq!(counts(&tables), [2, 1, 1]);
}

#[test]
fn a_syn_that_a_lost_backend_leaves_unanswered_is_what_ends_its_flow() {
    for signs in [&[][..], &[Client(RST)]] {
        for answers in [true, false] {
            let mut tables = scene();
            talk(&tables, &LIVE);
            talk(&tables, signs);
            lose(&mut tables, BACKEND_FAILED);
            for ticks in [0, 1, 2, 3, 3, 3] {
                pass(&tables, ticks);
                let to = reaches(&tables, SYN);
                if answers {
                    assert_eq!(to, 1, "{signs:?}: it works");
                    talk(&tables, &[Backend(1, ACK)]);
                } else if to == 2 {
                    talk(&tables, &[Backend(2, SYN_ACK)]);
                }
            }
            assert_eq!(reaches(&tables, SYN), if answers { 1 } else { 2 }, "{signs:?}");
            assert_eq!(begun(&tables), if answers { 1 } else { 2 }, "{signs:?}");
        }
    }
}

/// Backends answer no more than two SYNs of a connection a second (RFC 5961 §7), so who sends more gets silence.
#[test]
fn nothing_follows_from_the_silence_of_a_backend_that_has_just_spoken() {
    let mut tables = scene();
    talk(&tables, &LIVE);
    lose(&mut tables, BACKEND_FAILED);
    for _ in 0..4 {
        pass(&tables, 3);
        assert_eq!(reaches(&tables, SYN), 1);
        talk(&tables, &[Backend(1, ACK)]);
        // This one it does not answer.
        assert_eq!(reaches(&tables, SYN), 1);
    }
    assert_eq!(begun(&tables), 1);
}

#[test]
fn a_flow_whose_answers_are_not_seen_stays_with_its_backend_while_that_takes_new_ones() {
    for (flag, end, then) in [
        (0, FIN, 1),
        (0, RST, 1),
        (BACKEND_DRAINING, FIN, 2),
        (BACKEND_FAILED, FIN, 2),
        // Nothing says that it has ended: as long as somebody answers.
        (BACKEND_DRAINING, ACK, 1),
        (BACKEND_FAILED, ACK, 1),
    ] {
        let what = format!("{flag} {end:?}");
        let mut tables = scene();
        tables.services.values_mut().for_each(|service| service.mode = MODE_L2 as u8);
        talk(&tables, &[Client(SYN), Client(ACK), Client(end)]);
        if flag != 0 {
            lose(&mut tables, flag);
        }
        for _ in 0..3 {
            talk(&tables, &[Client(SYN)]);
            assert_eq!(begun(&tables), then, "{what}");
            talk(&tables, &[Client(ACK)]);
            pass(&tables, 3);
        }
        if then == 1 {
            // The client has had an answer: whichever connection it is, it has not ended.
            let of = STATE_CLOSING | STATE_CONFIRMED | STATE_REPLIED;
            assert_eq!(state(&tables) & of, STATE_CONFIRMED | STATE_REPLIED, "{what}");
        }
        for _ in 0..3 {
            pass(&tables, 3);
            if begun(&tables) == then {
                talk(&tables, &[Client(SYN)]);
            }
        }
        let is_lost = flag == BACKEND_FAILED && then == 1;
        assert_eq!(begun(&tables), then + u64::from(is_lost), "{what}: unanswered");
    }
}

#[test]
fn who_forges_a_sign_of_the_end_takes_no_clients_port_for_another_vip() {
    let mut tables = serving(VIP, ALGORITHM_MAGLEV, &BACKENDS[..1]);
    tables.capacity = 1000;
    for (key, service) in tables.services.clone() {
        let mut key = key;
        let [.., last] = &mut key.address;
        *last = u32::from_ne_bytes([192, 0, 2, 2]);
        tables.services.insert(key, service);
    }
    talk(&tables, &LIVE);
    let begins = || {
        let frame = packet(SYN, CLIENT, OTHER_VIP);
        process(&mut ModelPacket::<true>::new(frame.bytes()), &tables).reason
    };
    for sent in [Client(FIN), Client(RST), Backend(1, RST)] {
        talk(&tables, &[sent]);
        assert_eq!(begins(), Reason::FlowCollision, "{sent:?}");
    }
    assert_eq!(reaches(&tables, ACK), 1);
    talk(&tables, &[Backend(1, RST_ACK)]);
    assert_eq!(begins(), Reason::ForwardedToBackend, "it is known to be closed");
}
