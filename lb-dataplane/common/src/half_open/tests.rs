use crate::flow::seconds;
use crate::frame::{ACK, Carries, RST, RST_ACK, SYN, SYN_ACK, UDP, packet};
use crate::model::{ModelPacket, ModelTables, process, serving};
use crate::reason::Reason;
use crate::service::{ALGORITHM_MAGLEV, BACKEND_RESETS_IDLE, MODE_L2, MODE_NAT};

const VIP: &str = "192.0.2.1:80";
const BACKEND: &str = "10.2.0.1:8080";
const PLACES: usize = 4;

fn scene() -> ModelTables {
    let tables = serving([192, 0, 2, 1], ALGORITHM_MAGLEV, &[[10, 2, 0, 1]]);
    tables.v4.half_open.borrow_mut().truncate(PLACES);
    ModelTables { capacity: 1000, ..tables }
}

fn send(tables: &ModelTables, carries: Carries, from: &str, to: &str) -> Reason {
    process(&mut ModelPacket::<true>::new(packet(carries, from, to).bytes()), tables).reason
}

fn flood(tables: &ModelTables, carries: Carries, packets: usize) {
    for n in 0..packets {
        let from = format!("10.9.{}.{}:7", n / 250, n % 250 + 1);
        assert_eq!(send(tables, carries, &from, VIP), Reason::ForwardedToBackend);
    }
}

fn connect(tables: &ModelTables, client: &str) {
    send(tables, SYN, client, VIP);
    send(tables, SYN_ACK, BACKEND, client);
    send(tables, ACK, client, VIP);
}

#[test]
fn a_flood_ends_half_open_flows_and_takes_no_more_entries_than_there_are_places() {
    for carries in [SYN, UDP, ACK] {
        let tables = scene();
        connect(&tables, "10.1.0.1:1000");
        flood(&tables, carries, 100);
        assert_eq!(tables.keys().len(), 2 * (1 + PLACES), "{carries:?}");
        assert_eq!(tables.evicted.get() as usize, 100 - PLACES, "{carries:?}");
        assert_eq!(send(&tables, ACK, BACKEND, "10.1.0.1:1000"), Reason::ForwardedToClient);
    }
}

#[test]
fn a_flow_that_is_confirmed_leaves_its_place_and_no_other_one() {
    let occupied = |tables: &ModelTables| {
        let places = tables.v4.half_open.borrow();
        places.iter().filter(|key| key.protocol != 0).count()
    };
    for (carries, next) in [(SYN, ACK), (UDP, UDP)] {
        for is_direct in [false, true] {
            let mut tables = scene();
            let mode = if is_direct { MODE_L2 } else { MODE_NAT };
            tables.services.values_mut().for_each(|service| service.mode = mode as u8);
            for n in 1..PLACES {
                send(&tables, carries, &format!("10.1.0.{n}:1000"), VIP);
                assert_eq!(occupied(&tables), n, "{carries:?}");
            }
            for n in (1..PLACES).rev() {
                let client = format!("10.1.0.{n}:1000");
                send(&tables, if carries == SYN { SYN_ACK } else { UDP }, BACKEND, &client);
                for _ in 0..2 {
                    send(&tables, next, &client, VIP);
                    assert_eq!(occupied(&tables), n - 1, "{carries:?} {is_direct}");
                }
            }
        }
    }
    // Where the number is that of what was acknowledged, the place stays, and the flow is spared.
    let mut tables = scene();
    tables.backends[0].flags |= BACKEND_RESETS_IDLE;
    connect(&tables, "10.1.0.1:1000");
    assert_eq!(occupied(&tables), 1);
    flood(&tables, SYN, PLACES);
    assert_eq!((tables.evicted.get(), tables.keys().len()), (0, 2 * (1 + PLACES)));
}

#[test]
fn an_answer_of_the_backend_alone_confirms_nothing() {
    let tables = scene();
    for client in ["10.1.0.1:1000", "10.1.0.2:1000"] {
        send(&tables, SYN, client, VIP);
        send(&tables, SYN_ACK, BACKEND, client);
        // Nor do these of the client's: a forger may send them without having seen the answer's sequence number.
        send(&tables, SYN, client, VIP);
        send(&tables, RST, client, VIP);
    }
    flood(&tables, SYN, PLACES);
    assert_eq!(tables.evicted.get(), 2);
}

#[test]
fn who_repeats_its_first_packet_beyond_its_time_out_is_ended_like_others() {
    for carries in [SYN, UDP] {
        let tables = scene();
        for _ in 0..10 {
            send(&tables, carries, "10.1.0.1:1000", VIP);
            tables.clock.set(tables.clock.get() + seconds(50));
        }
        flood(&tables, carries, PLACES);
        assert_eq!((tables.evicted.get(), tables.keys().len()), (1, 2 * PLACES), "{carries:?}");
    }
}

#[test]
fn a_connection_that_begins_anew_does_not_end_itself() {
    let tables = scene();
    for _ in 0..=PLACES {
        send(&tables, SYN, "10.1.0.1:1000", VIP);
        send(&tables, RST_ACK, BACKEND, "10.1.0.1:1000");
    }
    assert_eq!(send(&tables, SYN, "10.1.0.1:1000", VIP), Reason::ForwardedToBackend);
    assert_eq!((tables.evicted.get(), tables.keys().len()), (0, 2));
}
