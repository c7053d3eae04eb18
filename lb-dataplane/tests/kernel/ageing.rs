//! Flows end by falling silent: both directions at once, and only then.

use aya::maps::HashMap;
use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Protocol::{Tcp, Udp};
use lb_dataplane::{Hook, Reason};
use lb_dataplane_common::flow::{
    STATE_EXPIRING, TIMEOUT_CLOSED, TIMEOUT_TCP_ESTABLISHED, TIMEOUT_TCP_TRANSITORY, TIMEOUT_UDP,
    TIMEOUT_UNANSWERED,
};

use crate::frame::{ACK, Carries, FIN, RST, SYN, SYN_ACK, UDP, packet};
use crate::scene::{BOTH, Scene};

const VIP: &str = "192.0.2.1:80";
const CLIENT: &str = "10.1.0.5:40000";
const BACKEND: &str = "10.2.0.9:8080";

/// Bytes of `FlowEntry`.
const STATE: std::ops::Range<usize> = 24..28;
const LAST_SEEN: std::ops::Range<usize> = 28..32;
const DIRECTION: usize = 32;

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
    change(scene, |value| {
        let earlier = word(value, LAST_SEEN).wrapping_sub(ticks);
        value[LAST_SEEN].copy_from_slice(&earlier.to_ne_bytes());
    });
}

/// A whole scan; flows removed.
fn age(scene: &mut Scene) -> u32 {
    let mut removed = 0;
    loop {
        let aged = scene.get().age().unwrap();
        removed += aged.removed;
        if aged.wrapped {
            return removed;
        }
    }
}

fn flow(packets: &[(Carries, &str, &str)]) -> Scene {
    let mut scene = Scene::new();
    scene.apply(&[(VIP, Tcp, Maglev, &[BACKEND]), (VIP, Udp, Maglev, &[BACKEND])]);
    for (carries, from, to) in packets {
        scene.send(Hook::Tc, &packet(*carries, from, to));
    }
    assert_eq!(scene.entries().len(), 2);
    scene
}

#[test]
fn each_state_has_its_timeout() {
    let there = |carries| (carries, CLIENT, VIP);
    let back = |carries| (carries, BACKEND, CLIENT);
    let cases: [(&[_], u32); 6] = [
        (&[there(SYN)], TIMEOUT_UNANSWERED),
        (&[there(SYN), back(SYN_ACK), there(ACK)], TIMEOUT_TCP_ESTABLISHED),
        (&[there(SYN), back(SYN_ACK), there(FIN)], TIMEOUT_TCP_TRANSITORY),
        (&[there(SYN), back(SYN_ACK), there(FIN), back(FIN)], TIMEOUT_CLOSED),
        (&[there(SYN), back(RST)], TIMEOUT_CLOSED),
        (&[there(UDP), back(UDP)], TIMEOUT_UDP),
    ];
    for (packets, timeout) in cases {
        let mut scene = flow(packets);
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
                let earlier = word(value, LAST_SEEN).wrapping_sub(2 * TIMEOUT_TCP_ESTABLISHED);
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
    let mut scene = Scene::new();
    scene.serve(VIP, Udp, Maglev, &[BACKEND]);
    for n in 0..500_u32 {
        let from = format!("10.1.{}.{}:999", n / 250, n % 250 + 1);
        let ended = scene.send(Hook::Xdp, &packet(UDP, &from, VIP));
        assert_eq!(ended.reason, Reason::ForwardedToBackend);
    }
    let_pass(&mut scene, TIMEOUT_UNANSWERED + 1);
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
        scene.serve(VIP, Tcp, Maglev, &["10.2.0.10:8080"]);
        let soon = scene.send(hook, &packet(SYN, CLIENT, VIP)).frame().to;
        assert_eq!(soon.to_string(), BACKEND, "{hook:?}");
        let_pass(&mut scene, 3);
        let later = scene.send(hook, &packet(SYN, CLIENT, VIP)).frame().to;
        assert_eq!(later.to_string(), "10.2.0.10:8080", "{hook:?}");
        assert_eq!(scene.entries().len(), 2);
    }
}
