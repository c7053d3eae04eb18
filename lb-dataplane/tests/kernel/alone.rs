//! A full flow table with `hash` where backends answer through here: packets and their answers go on by the configuration alone.

use aya::maps::Array;
use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Protocol::{Tcp, Udp};
use lb_dataplane::table::Table;
use lb_dataplane::{Reason, Sizes};

use crate::errors::fragments;
use crate::frame::{ACK, Frame, SYN, SYN_ACK, UDP, packet};
use crate::scene::{BOTH, Scene, small};

const VIPS: [&str; 2] = ["192.0.2.1:80", "[2001:db8:f::1]:80"];
const BACKENDS: [[&str; 3]; 2] = [
    ["10.2.0.8:8080", "10.2.0.9:8080", "10.2.0.10:8080"],
    ["[2001:db8:2::8]:8080", "[2001:db8:2::9]:8080", "[2001:db8:2::a]:8080"],
];
/// Another VIP that sends packets on without flows, and its backend, with which nobody speaks.
const STRANGERS: [[&str; 2]; 2] =
    [["192.0.2.9:80", "10.2.0.11:8080"], ["[2001:db8:f::9]:80", "[2001:db8:2::b]:8080"]];
/// An address that the FIB leaves to the kernel, as it does those of this host.
const OURS: [&str; 2] = ["10.3.0.1:40000", "[2001:db8:3::1]:40000"];

fn client(n: usize, port: u16) -> String {
    [format!("10.1.0.5:{port}"), format!("[2001:db8:1::5]:{port}")][n].clone()
}

/// Both protocols at a VIP of a family.
fn scene(n: usize) -> Scene {
    let sizes = Sizes { flow_entries: 64, flow_entries6: 64, ..small() };
    let mut scene = Scene::with_sizes(sizes);
    scene.hashes_when_full = true;
    let backends = &BACKENDS[n];
    let [others, another] = STRANGERS[n];
    scene.apply(&[
        (VIPS[n], Tcp, Maglev, backends),
        (VIPS[n], Udp, Maglev, backends),
        (others, Udp, Maglev, &[another]),
    ]);
    scene
}

#[test]
fn without_room_for_a_flow_packets_reach_the_backend_of_their_hash_and_answers_come_from_the_vip() {
    for hook in BOTH {
        for n in [0, 1] {
            let mut scene = scene(n);
            let own = packet(UDP, BACKENDS[n][0], &client(n, 9));
            assert_eq!(scene.send(hook, &own).reason, Reason::Forwarded, "{hook:?}: not yet");
            let mut without = 0;
            for port in 40_000..40_080 {
                let client = client(n, port);
                let syn = scene.send(hook, &packet(SYN, &client, VIPS[n]));
                let is_flow = syn.reason == Reason::ForwardedToBackend;
                assert!(is_flow || syn.reason == Reason::ForwardedWithoutFlow, "{:?}", syn.reason);
                let (there, backend) = (syn.frame(), syn.frame().to.to_string());
                assert_eq!(there.from.to_string(), client, "{hook:?} {n}");
                assert!(BACKENDS[n].contains(&backend.as_str()), "{hook:?}: {backend}");
                let back = scene.send(hook, &packet(SYN_ACK, &backend, &client));
                let expected = if is_flow { Reason::ForwardedToClient } else { syn.reason };
                assert_eq!(back.reason, expected, "{hook:?} {n}");
                let back = back.frame();
                assert_eq!(
                    (back.from.to_string(), back.to.to_string()),
                    (VIPS[n].into(), client.clone())
                );
                let ack = scene.send(hook, &packet(ACK, &client, VIPS[n]));
                assert_eq!(ack.reason, syn.reason, "{hook:?} {n}");
                assert_eq!(ack.frame().to.to_string(), backend, "{hook:?}: one backend");
                without += 3 * u64::from(!is_flow);
            }
            assert!(without > 0, "{hook:?} {n}");
            assert_eq!(scene.count(Reason::ForwardedWithoutFlow), without, "{hook:?} {n}");
            assert_eq!(scene.count(Reason::FlowTableFull), 0, "{hook:?} {n}");

            fragments_both_ways(&mut scene, hook, n);
            others_are_routed(&mut scene, hook, n);
        }
    }
}

/// A datagram in fragments: those there have no flow to follow the first one by, those back are known by what that one said.
fn fragments_both_ways(scene: &mut Scene, hook: lb_dataplane::Hook, n: usize) {
    let asks = client(n, 50_000);
    let [first, second, _] = fragments(&asks, VIPS[n]);
    let there = scene.send(hook, &first);
    assert_eq!(there.reason, Reason::ForwardedWithoutFlow, "{hook:?} {n}");
    assert_eq!(scene.send(hook, &second).reason, Reason::FragmentToVip, "{hook:?} {n}");
    let vip = VIPS[n].parse::<std::net::SocketAddr>().unwrap();
    for fragment in fragments(&there.frame().to.to_string(), &asks) {
        let back = scene.send(hook, &fragment);
        assert_eq!(back.reason, Reason::ForwardedWithoutFlow, "{hook:?} {n}");
        assert_eq!(back.frame().from.ip(), vip.ip(), "{hook:?} {n}");
    }
}

/// What comes from another port, is for this host, comes long after, or when nobody asks for it any more.
fn others_are_routed(scene: &mut Scene, hook: lb_dataplane::Hook, n: usize) {
    let elsewhere = packet(ACK, &BACKENDS[n][0].replace(":8080", ":22"), &client(n, 9));
    assert_eq!(scene.send(hook, &elsewhere).reason, Reason::Forwarded, "{hook:?} {n}");
    let checked = packet(SYN_ACK, BACKENDS[n][0], OURS[n]);
    let ended = scene.send(hook, &checked);
    assert_eq!(ended.reason, Reason::RoutedByKernel, "{hook:?} {n}");
    assert_eq!(ended.bytes(), checked.bytes(), "{hook:?} {n}: as it came");
    let own: Frame = packet(UDP, BACKENDS[n][0], &client(n, 9));
    let asked = (51_000..51_100).any(|port| {
        let there = scene.send(hook, &packet(UDP, &client(n, port), VIPS[n]));
        let is_its = there.frame().to.to_string() == BACKENDS[n][0];
        is_its && there.reason == Reason::ForwardedWithoutFlow
    });
    assert!(asked, "{hook:?} {n}");
    let dying = scene.send(hook, &own.clone().ttl(1));
    assert_eq!(dying.reason, Reason::FlowTtlExpired, "{hook:?} {n}");
    assert_eq!(scene.send(hook, &own).reason, Reason::ForwardedWithoutFlow, "{hook:?} {n}");
    let strangers = packet(UDP, STRANGERS[n][1], &client(n, 9));
    assert_eq!(scene.send(hook, &strangers).reason, Reason::Forwarded, "{hook:?} {n}: another VIP");
    let mut until: Array<_, u32> = scene.get().map_mut("WITHOUT_FLOW").unwrap().try_into().unwrap();
    let before: Vec<u32> = until.iter().map(Result::unwrap).collect();
    (0..until.len()).for_each(|id| until.set(id, 1, 0).unwrap());
    assert_eq!(scene.send(hook, &own).reason, Reason::Forwarded, "{hook:?} {n}: long after");
    let mut until: Array<_, u32> = scene.get().map_mut("WITHOUT_FLOW").unwrap().try_into().unwrap();
    (0..until.len()).zip(before).for_each(|(id, tick)| until.set(id, tick, 0).unwrap());
    scene.hashes_when_full = false;
    scene.apply(&[(VIPS[n], Udp, Maglev, &BACKENDS[n])]);
    assert_eq!(scene.send(hook, &own).reason, Reason::Forwarded, "{hook:?} {n}: with `drop`");
}

#[test]
fn a_backend_that_is_to_be_alone_is_in_no_other_service_whichever_comes_first() {
    let mut scene = scene(0);
    let others = "192.0.2.2:80";
    let first = scene.services(&[(VIPS[0], Tcp, Maglev, &BACKENDS[0][..1])]);
    for hashes in [false, true] {
        scene.hashes_when_full = hashes;
        let mut both = scene.services(&[(others, Tcp, Maglev, &BACKENDS[0])]);
        both.extend(first.clone());
        let refused = scene.get().apply(&Table { services: both }).unwrap_err().to_string();
        assert!(refused.contains("10.2.0.8:8080"), "{refused}");
        // At another port, or with another protocol, it is another one.
        let mut apart = scene.services(&[
            (others, Udp, Maglev, &BACKENDS[0]),
            ("192.0.2.3:80", Tcp, Maglev, &["10.2.0.8:8081"]),
        ]);
        apart.extend(first.clone());
        scene.get().apply(&Table { services: apart }).unwrap();
    }
    scene.hashes_when_full = true;
    scene.more_ports = 3;
    let range = scene.services(&[(VIPS[0], Tcp, Maglev, &BACKENDS[0])]);
    assert!(scene.get().apply(&Table { services: range }).is_err(), "several ports");
}
