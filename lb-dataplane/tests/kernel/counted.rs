//! What services and their backends have counted, whatever becomes of the backends.

use aya::maps::Array;
use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Protocol::{Tcp, Udp};
use lb_dataplane::{Hook, Reason, ServiceCount};

use lb_dataplane_common::tables::COUNTED_TOGETHER;

use crate::frame::{ACK, Carries, SYN, UDP, packet};
use crate::scene::{BOTH, Scene, small};

const VIP: &str = "192.0.2.1:80";
const OTHER: &str = "192.0.2.2:80";
const OTHERS: [&str; 1] = ["10.2.0.1:81"];

fn counted(scene: &mut Scene, protocol: lb_dataplane::table::Protocol, vip: &str) -> ServiceCount {
    let counters = scene.get().service_counters().unwrap();
    let is_it = |key: &lb_dataplane::table::ServiceKey| {
        key.protocol == protocol && vip.starts_with(&key.address.to_string())
    };
    counters.into_iter().find(|(key, _)| is_it(key)).unwrap().1
}

fn sends(scene: &mut Scene, carries: Carries, port: u16, vip: &str) {
    let hook = BOTH[usize::from(port % 2)];
    let ended = scene.send(hook, &packet(carries, &format!("10.1.0.5:{port}"), vip));
    assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?}, port {port}");
}

/// What `SERVICE_COUNTS` has of a service: the words of what it keeps.
fn kept(scene: &mut Scene) -> Array<&mut aya::maps::MapData, [u64; 8]> {
    scene.get().map_mut("SERVICE_COUNTS").unwrap().try_into().unwrap()
}

#[test]
fn a_services_counters_are_exact_though_backends_leave_and_others_get_their_ids() {
    // Twice as many backends as there are ids, one after the other, and at times another process.
    let rounds = 2 * small().backends as u16;
    for (protocol, first, later) in [(Tcp, SYN, Some(ACK)), (Udp, UDP, None)] {
        let mut scene = Scene::new();
        let mut sent = 0;
        for n in 0..rounds {
            let backend = format!("10.2.0.{}:80", 2 + n % 200);
            let backends = [backend.as_str()];
            if n % 30 == 29 {
                scene.open();
            }
            scene.apply(&[(VIP, protocol, Maglev, &backends), (OTHER, Tcp, Maglev, &OTHERS)]);
            sends(&mut scene, first, 10_000 + n, VIP);
            sent += 1;
            if n == 0 {
                sends(&mut scene, SYN, 9_000, OTHER);
            }
            // A connection to a backend that has left goes on; datagrams' flows end with the backend.
            if let Some(later) = later {
                sends(&mut scene, later, 10_000, VIP);
                sent += 1;
            }
            if n % 8 == 7 {
                scene.age();
            }
            let count = counted(&mut scene, protocol, VIP);
            let expected = (u64::from(n) + 1, sent);
            assert_eq!((count.flows, count.to_backend.packets), expected, "round {n}");
            let bytes = count.to_backend.bytes;
            assert_eq!(bytes % sent, 0, "all are of one length: {bytes}");
            assert_eq!(counted(&mut scene, Tcp, OTHER).flows, 1);
        }
        let keeps = (0..2).map(|id| kept(&mut scene).get(&id, 0).unwrap()[4]);
        assert!(keeps.sum::<u64>() > u64::from(rounds) / 4, "ids went to others");

        // A new service begins at zero, whoever had its id.
        for _ in 0..small().services {
            scene.apply(&[(OTHER, Tcp, Maglev, &OTHERS)]);
            let new = [(OTHER, Tcp, Maglev, &OTHERS[..]), (VIP, Udp, Maglev, &["10.2.0.9:80"])];
            scene.apply(&new);
            assert_eq!(counted(&mut scene, Udp, VIP).flows, 0);
        }
        assert_eq!(counted(&mut scene, Tcp, OTHER).flows, 1);
    }
}

#[test]
fn a_process_that_ends_while_it_takes_a_backends_counters_over_has_them_counted_once() {
    let mut scene = Scene::new();
    scene.serve(VIP, Tcp, Maglev, &["10.2.0.1:80"]);
    sends(&mut scene, SYN, 10_000, VIP);
    scene.serve(VIP, Tcp, Maglev, &["10.2.0.2:80"]);
    sends(&mut scene, SYN, 10_001, VIP);
    let whole = counted(&mut scene, Tcp, VIP);
    assert_eq!(whole.flows, 2);

    // The first backend's id and the service's are 0. It has written the sum, and not yet that the backend is nobody's.
    let lines: Array<_, [u64; 8]> =
        scene.get().map_mut("BACKEND_COUNTS").unwrap().try_into().unwrap();
    let mut sum = [0_u64; 8];
    for cpu in 0..lines.len() / COUNTED_TOGETHER {
        let line = lines.get(&(cpu * COUNTED_TOGETHER), 0).unwrap();
        sum.iter_mut().zip(line).for_each(|(sum, word)| *sum += word);
    }
    assert_eq!(sum[4], 1, "the flow");
    sum[7] = 1;
    kept(&mut scene).set(0, sum, 0).unwrap();
    assert_eq!(counted(&mut scene, Tcp, VIP).flows, 3, "it is in between");
    scene.open();
    assert_eq!(counted(&mut scene, Tcp, VIP).to_backend, whole.to_backend);
    assert_eq!(counted(&mut scene, Tcp, VIP).flows, 2);
    assert_eq!(kept(&mut scene).get(&0, 0).unwrap()[7], 0);
    scene.open();
    assert_eq!(counted(&mut scene, Tcp, VIP).flows, 2);
    for hook in [Hook::Tc, Hook::Xdp] {
        assert_eq!(
            scene.send(hook, &packet(ACK, "10.1.0.5:10001", VIP)).reason,
            Reason::ForwardedToBackend
        );
    }
    assert_eq!(counted(&mut scene, Tcp, VIP).to_backend.packets, 4);
}
