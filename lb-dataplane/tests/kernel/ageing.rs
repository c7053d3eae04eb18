//! Flows end by falling silent: both directions at once, and only then.

use aya::maps::Array;
use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Protocol::{Tcp, Udp};
use lb_dataplane::{Hook, Reason, Sizes};
use lb_dataplane_common::flow::{STATE_EXPIRING, Timeouts, seconds};

use crate::family::{Family, each};
use crate::frame::{ACK, Carries, FIN, RST, RST_ACK, SYN, SYN_ACK, UDP, packet};
use crate::scene::{Ended, Scene, small};

/// Bytes of `FlowEntry`.
const STATE: std::ops::Range<usize> = 48..52;
const LAST_SEEN: std::ops::Range<usize> = 56..60;
const DIRECTION: usize = 60;
/// Longer than any timeout.
const LONG: u32 = seconds(7441);

fn word(value: &[u8; 64], at: std::ops::Range<usize>) -> u32 {
    u32::from_ne_bytes(value[at].try_into().unwrap())
}

/// Changes every entry of the flow tables.
fn change(scene: &mut Scene, how: impl Fn(&mut [u8; 64])) {
    scene.flows().change(&how);
    scene.flows6().change(&how);
}

/// As ageing does between its two passes.
pub(crate) fn mark(scene: &mut Scene) {
    change(scene, |value| {
        let state = word(value, STATE) | STATE_EXPIRING;
        value[STATE].copy_from_slice(&state.to_ne_bytes());
    });
}

/// Entries of both tables.
fn entries(scene: &mut Scene) -> Vec<[u8; 64]> {
    let v4 = scene.entries().into_iter().map(|(_, value)| value);
    v4.chain(scene.entries6().into_iter().map(|(_, value)| value)).collect()
}

/// Who speaks to whom: a family, a hook, a client, a VIP, a backend and another.
struct Talk {
    family: Family,
    hook: Hook,
    client: String,
    vip: String,
    backend: String,
    other: String,
}

/// What a side says.
#[derive(Clone, Copy, Debug)]
enum Says {
    There(Carries),
    Back(Carries),
}
use Says::{Back, There};

const CONNECTED: [Says; 3] = [There(SYN), Back(SYN_ACK), There(ACK)];

impl Talk {
    /// Of both families, at both hooks.
    fn each() -> impl Iterator<Item = Self> {
        each().map(|(hook, family)| Self {
            family,
            hook,
            client: family.at(1, 5, 40_000),
            vip: family.vip(1),
            backend: family.at(2, 9, 8080),
            other: family.at(2, 10, 8080),
        })
    }

    fn what(&self) -> String {
        format!("{:?} {:?}", self.hook, self.family)
    }

    /// A scene with what was said.
    fn scene(&self, timeouts: Timeouts, said: &[Says]) -> Scene {
        let mut scene = Scene::with(|options| options.timeouts = timeouts);
        let backend = [self.backend.as_str()];
        scene.apply(&[(&self.vip, Tcp, Maglev, &backend), (&self.vip, Udp, Maglev, &backend)]);
        self.begin(&mut scene, said);
        scene
    }

    /// The only flow.
    fn begin(&self, scene: &mut Scene, said: &[Says]) {
        for says in said {
            self.send(scene, *says);
        }
        assert_eq!(entries(scene).len(), 2, "{}", self.what());
    }

    fn send(&self, scene: &mut Scene, says: Says) -> Ended {
        let frame = match says {
            There(carries) => packet(carries, &self.client, &self.vip),
            Back(carries) => packet(carries, &self.backend, &self.client),
        };
        scene.send(self.hook, &frame)
    }

    /// Where a client's packet is sent to.
    fn led_to(&self, scene: &mut Scene, carries: Carries) -> String {
        self.send(scene, There(carries)).frame().to.to_string()
    }
}

#[test]
fn each_state_has_its_timeout() {
    let and = |more: &[_]| [&CONNECTED, more].concat();
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
        (vec![There(SYN)], timeouts.half_open),
        (vec![There(SYN), Back(SYN_ACK)], timeouts.half_open),
        (vec![There(SYN), Back(SYN_ACK), There(SYN)], timeouts.half_open),
        (and(&[]), timeouts.tcp_established),
        (and(&[There(FIN)]), timeouts.tcp_transitory),
        (and(&[There(FIN), Back(FIN)]), timeouts.tcp_closed),
        (and(&[Back(RST_ACK)]), timeouts.tcp_closed),
        (and(&[Back(RST)]), timeouts.tcp_transitory),
        (and(&[There(RST)]), timeouts.tcp_transitory),
        // Somebody else's RST: the client goes on.
        (and(&[There(RST), There(ACK)]), timeouts.tcp_established),
        (vec![There(SYN), Back(RST_ACK)], timeouts.tcp_closed),
        // No sooner than with an answer.
        (vec![There(UDP)], timeouts.udp_answered),
        (vec![There(UDP), Back(UDP)], timeouts.udp_answered),
        (vec![There(UDP), Back(UDP), There(UDP)], timeouts.udp),
    ];
    for talk in Talk::each() {
        let mut scene = talk.scene(timeouts, &cases[0].0);
        for (said, timeout) in &cases {
            let what = format!("{} {said:?}", talk.what());
            talk.begin(&mut scene, said);
            scene.let_pass(timeout - 2);
            assert_eq!(scene.age().0, 0, "{what}: too early");
            assert_eq!(entries(&mut scene).len(), 2, "{what}");
            scene.let_pass(3);
            assert_eq!(scene.age().0, 1, "{what}: one flow");
            assert_eq!(entries(&mut scene).len(), 0, "{what}: both directions");
        }
    }
}

#[test]
fn a_flow_lives_while_either_direction_does() {
    for talk in Talk::each() {
        for direction in [0, 1] {
            let mut scene = talk.scene(Timeouts::default(), &CONNECTED[..2]);
            change(&mut scene, |value| {
                if value[DIRECTION] == direction {
                    let earlier = word(value, LAST_SEEN).wrapping_sub(2 * LONG);
                    value[LAST_SEEN].copy_from_slice(&earlier.to_ne_bytes());
                }
            });
            assert_eq!(scene.age().0, 0, "{}", talk.what());
            let left = entries(&mut scene);
            assert_eq!(left.len(), 2, "{}", talk.what());
            assert!(!left.iter().any(|value| word(value, STATE) & STATE_EXPIRING != 0));
        }
    }
}

#[test]
fn a_marked_flow_is_neither_used_nor_replaced_and_the_next_scan_settles_it() {
    for talk in Talk::each() {
        let mut scene = talk.scene(Timeouts::default(), &CONNECTED[..2]);
        mark(&mut scene);
        for says in [There(ACK), There(SYN), Back(ACK)] {
            let ended = talk.send(&mut scene, says);
            assert_eq!(ended.reason, Reason::FlowExpiring, "{} {says:?}", talk.what());
        }
        // A process died between its two passes. The flow is idle no longer than others: it is let go.
        scene.age();
        let ended = talk.send(&mut scene, There(ACK));
        assert_eq!(ended.reason, Reason::ForwardedToBackend, "{}", talk.what());
    }
}

#[test]
fn idle_flows_go_by_the_hundred_and_live_ones_stay() {
    for talk in Talk::each() {
        // An eighth of the entries are places for half-open flows.
        let sizes = Sizes { flow_entries: 16_384, flow_entries6: 16_384, ..small() };
        let mut scene = Scene::with_sizes(sizes);
        scene.serve(&talk.vip, Udp, Maglev, &[&talk.backend]);
        let send = |scene: &mut Scene, n: u16| {
            let from = talk.family.at(1, n / 250 * 256 + n % 250 + 1, 999);
            scene.send(talk.hook, &packet(UDP, &from, &talk.vip)).reason
        };
        for n in 0..500 {
            assert_eq!(send(&mut scene, n), Reason::ForwardedToBackend, "{}", talk.what());
        }
        scene.let_pass(seconds(240) + 1);
        for n in 0..50 {
            send(&mut scene, n);
        }
        assert_eq!(scene.age().0, 450, "{}", talk.what());
        assert_eq!(entries(&mut scene).len(), 100, "{}", talk.what());
    }
}

#[test]
fn a_syn_that_nobody_answered_for_long_chooses_anew() {
    for talk in Talk::each() {
        let mut scene = talk.scene(Timeouts::default(), &CONNECTED[..1]);
        let draining = format!("draining {}", talk.backend);
        scene.serve(&talk.vip, Tcp, Maglev, &[&draining, &talk.other]);
        assert_eq!(talk.led_to(&mut scene, SYN), talk.backend, "{}", talk.what());
        scene.let_pass(3);
        assert_eq!(talk.led_to(&mut scene, SYN), talk.other, "{}", talk.what());
        assert_eq!(entries(&mut scene).len(), 2, "{}", talk.what());
    }
}

#[test]
fn a_flood_ends_half_open_flows_only() {
    for talk in Talk::each() {
        let mut scene = talk.scene(Timeouts::default(), &CONNECTED);
        let flood = 3000_u16;
        for n in 0..flood {
            let from = talk.family.at(1, (n / 250 + 1) * 256 + n % 250 + 1, 999);
            let ended = scene.send(talk.hook, &packet(SYN, &from, &talk.vip));
            assert_eq!(ended.reason, Reason::ForwardedToBackend, "{} {n}", talk.what());
        }
        let half_open = entries(&mut scene).len() as u32 / 2 - 1;
        let places = 16..=small().flow_entries / 8;
        assert!(places.contains(&half_open), "{}: {half_open}", talk.what());
        let count = scene.get().service_counters().unwrap().into_values().find(|c| c.flows > 0);
        let evicted = u64::from(u32::from(flood) - half_open);
        assert_eq!(count.unwrap().evicted, evicted, "{}", talk.what());
        let ended = talk.send(&mut scene, Back(ACK));
        assert_eq!(ended.reason, Reason::ForwardedToClient, "{}: it stays", talk.what());
    }
}

/// Places of half-open flows that are taken, of both families.
fn places_taken(scene: &mut Scene) -> usize {
    // Who leaves a place empties its word of ports and protocol.
    let v4: Array<_, [u8; 16]> = scene.get().map_mut("HALF_OPEN").unwrap().try_into().unwrap();
    let taken = v4.iter().filter(|place| place.as_ref().unwrap()[8..] != [0; 8]).count();
    let v6: Array<_, [u8; 40]> = scene.get().map_mut("HALF_OPEN6").unwrap().try_into().unwrap();
    taken + v6.iter().filter(|place| place.as_ref().unwrap()[32..] != [0; 8]).count()
}

#[test]
fn a_connection_that_opens_leaves_its_place_to_others() {
    for talk in Talk::each() {
        let mut scene = talk.scene(Timeouts::default(), &CONNECTED[..1]);
        let from = talk.family.at(1, 9, 999);
        scene.send(talk.hook, &packet(SYN, &from, &talk.vip));
        assert_eq!(places_taken(&mut scene), 2, "{}", talk.what());
        for (said, left) in CONNECTED[1..].iter().zip([2, 1]) {
            talk.send(&mut scene, *said);
            assert_eq!(places_taken(&mut scene), left, "{}", talk.what());
        }
        talk.send(&mut scene, There(ACK));
        assert_eq!(places_taken(&mut scene), 1, "{}", talk.what());
    }
}

#[test]
fn datagrams_go_elsewhere_when_their_backend_fails_or_goes() {
    for talk in Talk::each() {
        let said = [There(UDP), Back(UDP), There(UDP)];
        let mut scene = talk.scene(Timeouts::default(), &said);
        scene.serve(&talk.vip, Udp, Maglev, &[&talk.other]);
        talk.send(&mut scene, There(UDP));
        assert_eq!(scene.age().0, 1, "{}", talk.what());
        assert_eq!(talk.led_to(&mut scene, UDP), talk.other, "{}", talk.what());
        assert_eq!(scene.age().0, 0, "{}", talk.what());
        // Also where another process finds it so.
        scene.apply(&[]);
        scene.open();
        assert_eq!(scene.age().0, 1, "{}", talk.what());
    }
}

#[test]
fn a_connection_stays_with_a_backend_that_is_gone_until_its_client_begins_anew() {
    for talk in Talk::each() {
        let mut scene = talk.scene(Timeouts::default(), &CONNECTED);
        scene.serve(&talk.vip, Tcp, Maglev, &[&talk.other]);
        assert_eq!(scene.age().0, 0);
        for (ticks, carries, backend) in [
            (0, ACK, &talk.backend),
            // It may live: its backend is asked, twice.
            (3, SYN, &talk.backend),
            (3, SYN, &talk.other),
            (0, ACK, &talk.other),
        ] {
            scene.let_pass(ticks);
            let to = talk.led_to(&mut scene, carries);
            assert_eq!(to, *backend, "{} {carries:?}", talk.what());
        }
    }
}
