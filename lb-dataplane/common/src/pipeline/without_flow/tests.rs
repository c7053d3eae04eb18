use crate::family::{Family, V6};
use crate::flow::{TCP, UDP as UDP_NUMBER, seconds};
use crate::frame::{ACK, Carries, SYN, UDP, packet};
use crate::model::process;
use crate::model::{ModelPacket, ModelTables, serving};
use crate::reason::Reason;
use crate::service::{ALGORITHM_MAGLEV, BACKEND_ANSWERS_ALONE, SERVICE_HASHES_WHEN_FULL, VipKey};

const CLIENT: &str = "10.1.0.1:1000";

/// Two services whose backends are theirs alone, TCP's and UDP's, and no room for a flow.
fn scene() -> ModelTables {
    let mut tables = serving([192, 0, 2, 1], ALGORITHM_MAGLEV, &[[10, 2, 0, 1], [10, 2, 0, 2]]);
    for (key, service) in &mut tables.services {
        if key.protocol == 0 {
            continue;
        }
        let is_udp = key.protocol == UDP_NUMBER;
        (service.id, service.ring_len) = (u32::from(is_udp), 1);
        service.ring_base = u32::from(is_udp);
        service.flags |= SERVICE_HASHES_WHEN_FULL;
    }
    for (id, (backend, protocol)) in tables.backends.iter_mut().zip([TCP, UDP_NUMBER]).enumerate() {
        backend.service = id as u32;
        backend.flags |= BACKEND_ANSWERS_ALONE;
        (backend.vip, backend.vip_port) = (mapped([192, 0, 2, 1]), 80_u16.to_be_bytes());
        let address = V6::from_bytes(backend.address);
        let at = VipKey { address, port: backend.port, protocol, pad: 0 };
        tables.alone.insert(at, id as u32);
    }
    ModelTables { capacity: 0, ..tables }
}

fn mapped([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

fn send(tables: &ModelTables, carries: Carries, from: &str, to: &str) -> Reason {
    process(&mut ModelPacket::<true>::new(packet(carries, from, to).bytes()), tables).reason
}

/// How what a service's backend sends to a client ends.
fn answer(tables: &ModelTables, carries: Carries) -> Reason {
    let from = if carries == UDP { "10.2.0.2:8080" } else { "10.2.0.1:8080" };
    send(tables, carries, from, CLIENT)
}

const SERVICES: [(Carries, Carries, u64); 2] = [(SYN, ACK, 7440), (UDP, UDP, 300)];

#[test]
fn one_services_packets_without_a_flow_say_nothing_of_anothers_answers() {
    let [(tcp, tcp_answers, _), (udp, udp_answers, _)] = SERVICES;
    for (begins, its, others) in [(tcp, tcp_answers, udp_answers), (udp, udp_answers, tcp_answers)]
    {
        let tables = scene();
        assert_eq!(answer(&tables, its), Reason::Forwarded, "{begins:?}: nobody asked");
        assert_eq!(send(&tables, begins, CLIENT, "192.0.2.1:80"), Reason::ForwardedWithoutFlow);
        assert_eq!(answer(&tables, its), Reason::ForwardedWithoutFlow, "{begins:?}");
        assert_eq!(answer(&tables, others), Reason::Forwarded, "{begins:?}");
    }
}

#[test]
fn answers_without_a_flow_come_from_the_vip_for_as_long_as_a_flow_may_be_silent() {
    for (begins, answers, lasts) in SERVICES {
        let tables = scene();
        let pass = |ticks| tables.clock.set(tables.clock.get() + ticks);
        let ask = || send(&tables, begins, CLIENT, "192.0.2.1:80");
        assert_eq!(ask(), Reason::ForwardedWithoutFlow);
        pass(seconds(lasts) - 1);
        assert_eq!(answer(&tables, answers), Reason::ForwardedWithoutFlow, "{begins:?}");
        // Who goes on has it last longer; what the backend sends has not.
        assert_eq!(ask(), Reason::ForwardedWithoutFlow);
        pass(seconds(lasts) - 1);
        assert_eq!(answer(&tables, answers), Reason::ForwardedWithoutFlow, "{begins:?}");
        pass(1);
        assert_eq!(answer(&tables, answers), Reason::Forwarded, "{begins:?}");
    }
}

#[test]
fn a_services_own_idle_time_out_is_that_of_answers_without_a_flow() {
    let mut tables = scene();
    tables.backends[1].idle = seconds(30);
    assert_eq!(send(&tables, UDP, CLIENT, "192.0.2.1:80"), Reason::ForwardedWithoutFlow);
    tables.clock.set(tables.clock.get() + seconds(30) - 1);
    assert_eq!(answer(&tables, UDP), Reason::ForwardedWithoutFlow);
    tables.clock.set(tables.clock.get() + 1);
    assert_eq!(answer(&tables, UDP), Reason::Forwarded);
}
