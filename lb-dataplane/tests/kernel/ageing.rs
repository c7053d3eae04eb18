//! Flows end by falling silent: both directions at once, and only then.

use aya::maps::HashMap;
use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Protocol::{Tcp, Udp};
use lb_dataplane::{Hook, Reason, Sizes};
use lb_dataplane_common::flow::{STATE_EXPIRING, Timeouts, seconds};

use crate::frame::{ACK, Carries, FIN, RST, RST_ACK, SYN, SYN_ACK, UDP, packet};
use crate::scene::{BOTH, Scene, small};

const VIP: &str = "192.0.2.1:80";
const CLIENT: &str = "10.1.0.5:40000";
const BACKEND: &str = "10.2.0.9:8080";

/// Bytes of `FlowEntry`.
const STATE: std::ops::Range<usize> = 48..52;
const LAST_SEEN: std::ops::Range<usize> = 56..60;
const DIRECTION: usize = 60;
/// Longer than any timeout.
const LONG: u32 = seconds(7441);

fn word(value: &[u8; 64], at: std::ops::Range<usize>) -> u32 {
    u32::from_ne_bytes(value[at].try_into().unwrap())
}

/// Changes every entry of the flow table.
fn change(scene: &mut Scene, how: impl Fn(&mut [u8; 64])) {
    for (key, mut value) in scene.entries() {
        how(&mut value);
        let mut map: HashMap<_, [u8; 16], [u8; 64]> =
            scene.get().map_mut("FLOWS").unwrap().try_into().unwrap();
        map.insert(key, value, 0).unwrap();
    }
}

/// Makes it so that every packet was `ticks` earlier than it was.
fn let_pass(scene: &mut Scene, ticks: u32) {
    scene.let_pass(ticks);
}

/// A whole scan; flows removed.
fn age(scene: &mut Scene) -> u32 {
    scene.age().0
}

fn flow(packets: &[(Carries, &str, &str)]) -> Scene {
    flow_with(Timeouts::default(), packets)
}

fn flow_with(timeouts: Timeouts, packets: &[(Carries, &str, &str)]) -> Scene {
    let mut scene = Scene::with(|options| options.timeouts = timeouts);
    scene.apply(&[(VIP, Tcp, Maglev, &[BACKEND]), (VIP, Udp, Maglev, &[BACKEND])]);
    begin(&mut scene, packets);
    scene
}

/// The only flow.
fn begin(scene: &mut Scene, packets: &[(Carries, &str, &str)]) {
    for (carries, from, to) in packets {
        scene.send(Hook::Tc, &packet(*carries, from, to));
    }
    assert_eq!(scene.entries().len(), 2);
}

#[test]
fn each_state_has_its_timeout() {
    let there = |carries| (carries, CLIENT, VIP);
    let back = |carries| (carries, BACKEND, CLIENT);
    let connected = [there(SYN), back(SYN_ACK), there(ACK)];
    let and = |more: &[_]| [&connected, more].concat();
    // Each its own, and none the default.
    let timeouts = Timeouts {
        tcp_established: seconds(900),
        tcp_transitory: seconds(100),
        tcp_closed: seconds(5),
        half_open: seconds(30),
        udp_answered: seconds(60),
        udp: seconds(200),
        ..Timeouts::default()
    };
    let cases = [
        (vec![there(SYN)], timeouts.half_open),
        (vec![there(SYN), back(SYN_ACK)], timeouts.half_open),
        (vec![there(SYN), back(SYN_ACK), there(SYN)], timeouts.half_open),
        (and(&[]), timeouts.tcp_established),
        (and(&[there(FIN)]), timeouts.tcp_transitory),
        (and(&[there(FIN), back(FIN)]), timeouts.tcp_closed),
        (and(&[back(RST_ACK)]), timeouts.tcp_closed),
        (and(&[back(RST)]), timeouts.tcp_transitory),
        (and(&[there(RST)]), timeouts.tcp_transitory),
        // Somebody else's RST: the client goes on.
        (and(&[there(RST), there(ACK)]), timeouts.tcp_established),
        (vec![there(SYN), back(RST_ACK)], timeouts.tcp_closed),
        // No sooner than with an answer.
        (vec![there(UDP)], timeouts.udp_answered),
        (vec![there(UDP), back(UDP)], timeouts.udp_answered),
        (vec![there(UDP), back(UDP), there(UDP)], timeouts.udp),
    ];
    let (first, _) = &cases[0];
    let mut scene = flow_with(timeouts, first);
    for (packets, timeout) in cases {
        begin(&mut scene, &packets);
        let_pass(&mut scene, timeout - 2);
        assert_eq!(age(&mut scene), 0, "{packets:?}: too early");
        assert_eq!(scene.entries().len(), 2);
        let_pass(&mut scene, 3);
        assert_eq!(age(&mut scene), 1, "{packets:?}: one flow");
        assert_eq!(scene.entries().len(), 0, "{packets:?}: both directions");
    }
}

#[test]
fn a_flow_lives_while_either_direction_does() {
    for direction in [0, 1] {
        let mut scene = flow(&[(SYN, CLIENT, VIP), (SYN_ACK, BACKEND, CLIENT)]);
        change(&mut scene, |value| {
            if value[DIRECTION] == direction {
                let earlier = word(value, LAST_SEEN).wrapping_sub(2 * LONG);
                value[LAST_SEEN].copy_from_slice(&earlier.to_ne_bytes());
            }
        });
        assert_eq!(age(&mut scene), 0);
        assert_eq!(scene.entries().len(), 2);
        let marked = |v: &[u8; 64]| word(v, STATE) & STATE_EXPIRING != 0;
        assert!(!scene.entries().iter().any(|(_, v)| marked(v)));
    }
}

#[test]
fn a_marked_flow_is_neither_used_nor_replaced_and_the_next_scan_settles_it() {
    for hook in BOTH {
        let mut scene = flow(&[(SYN, CLIENT, VIP), (SYN_ACK, BACKEND, CLIENT)]);
        change(&mut scene, |value| {
            let state = word(value, STATE) | STATE_EXPIRING;
            value[STATE].copy_from_slice(&state.to_ne_bytes());
        });
        for (carries, from, to) in [(ACK, CLIENT, VIP), (SYN, CLIENT, VIP), (ACK, BACKEND, CLIENT)]
        {
            let ended = scene.send(hook, &packet(carries, from, to));
            assert_eq!(ended.reason, Reason::FlowExpiring, "{hook:?} {carries:?}");
        }
        // A process died between its two passes. The flow is idle no longer than others: it is let go.
        age(&mut scene);
        let ended = scene.send(hook, &packet(ACK, CLIENT, VIP));
        assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?}");
    }
}

#[test]
fn idle_flows_go_by_the_hundred_and_live_ones_stay() {
    // An eighth of the entries are places for half-open flows.
    let mut scene = Scene::with_sizes(Sizes { flow_entries: 16_384, ..small() });
    scene.serve(VIP, Udp, Maglev, &[BACKEND]);
    for n in 0..500_u32 {
        let from = format!("10.1.{}.{}:999", n / 250, n % 250 + 1);
        let ended = scene.send(Hook::Xdp, &packet(UDP, &from, VIP));
        assert_eq!(ended.reason, Reason::ForwardedToBackend);
    }
    let_pass(&mut scene, seconds(240) + 1);
    for n in 0..50_u32 {
        scene.send(Hook::Xdp, &packet(UDP, &format!("10.1.0.{}:999", n + 1), VIP));
    }
    assert_eq!(age(&mut scene), 450);
    assert_eq!(scene.entries().len(), 100);
}

#[test]
fn a_syn_that_nobody_answered_for_long_chooses_anew() {
    for hook in BOTH {
        let mut scene = flow(&[(SYN, CLIENT, VIP)]);
        scene.serve(VIP, Tcp, Maglev, &["draining 10.2.0.9:8080", "10.2.0.10:8080"]);
        let soon = scene.send(hook, &packet(SYN, CLIENT, VIP)).frame().to;
        assert_eq!(soon.to_string(), BACKEND, "{hook:?}");
        let_pass(&mut scene, 3);
        let later = scene.send(hook, &packet(SYN, CLIENT, VIP)).frame().to;
        assert_eq!(later.to_string(), "10.2.0.10:8080", "{hook:?}");
        assert_eq!(scene.entries().len(), 2);
    }
}

#[test]
fn a_flood_ends_half_open_flows_only() {
    for hook in BOTH {
        let mut scene = flow(&[(SYN, CLIENT, VIP), (SYN_ACK, BACKEND, CLIENT), (ACK, CLIENT, VIP)]);
        let flood = 3000_u32;
        for n in 0..flood {
            let from = format!("10.1.{}.{}:999", n / 250 + 1, n % 250 + 1);
            let ended = scene.send(hook, &packet(SYN, &from, VIP));
            assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?} {n}");
        }
        let half_open = scene.entries().len() as u32 / 2 - 1;
        assert!((16..=small().flow_entries / 8).contains(&half_open), "{hook:?}: {half_open}");
        let count = scene.get().service_counters().unwrap().into_values().find(|c| c.flows > 0);
        assert_eq!(count.unwrap().evicted, u64::from(flood - half_open), "{hook:?}");
        let ended = scene.send(hook, &packet(ACK, BACKEND, CLIENT));
        assert_eq!(ended.reason, Reason::ForwardedToClient, "{hook:?}: the connection stays");
    }
}

#[test]
fn datagrams_go_elsewhere_when_their_backend_fails_or_goes() {
    let other = "10.2.0.10:8080";
    for hook in BOTH {
        let mut scene = flow(&[(UDP, CLIENT, VIP), (UDP, BACKEND, CLIENT), (UDP, CLIENT, VIP)]);
        scene.serve(VIP, Udp, Maglev, &[other]);
        scene.send(hook, &packet(UDP, CLIENT, VIP));
        assert_eq!(age(&mut scene), 1, "{hook:?}");
        let to = scene.send(hook, &packet(UDP, CLIENT, VIP)).frame().to;
        assert_eq!(to.to_string(), other, "{hook:?}");
        assert_eq!(age(&mut scene), 0, "{hook:?}");
        // Also where another process finds it so.
        scene.apply(&[]);
        scene.open();
        assert_eq!(age(&mut scene), 1, "{hook:?}");
    }
}

#[test]
fn a_connection_stays_with_a_backend_that_is_gone_until_its_client_begins_anew() {
    let other = "10.2.0.10:8080";
    for hook in BOTH {
        let mut scene = flow(&[(SYN, CLIENT, VIP), (SYN_ACK, BACKEND, CLIENT), (ACK, CLIENT, VIP)]);
        scene.serve(VIP, Tcp, Maglev, &[other]);
        assert_eq!(age(&mut scene), 0);
        for (carries, backend) in [(ACK, BACKEND), (SYN, other), (ACK, other)] {
            let to = scene.send(hook, &packet(carries, CLIENT, VIP)).frame().to;
            assert_eq!(to.to_string(), backend, "{hook:?} {carries:?}");
        }
    }
}
