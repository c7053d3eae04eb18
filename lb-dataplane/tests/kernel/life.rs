//! What services say of their flows' life: how long they may be silent, what becomes of a failed backend's, and who hears of it.

use std::num::NonZero;
use std::time::Instant;

use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Protocol::{Tcp, Udp};
use lb_dataplane::table::{Mode, OnExhaustion, Service, Source, Table, WhenFailed};
use lb_dataplane::{Answer, Hook, Reason, seconds};

use crate::frame::{ACK, Carries, FIN, Frame, RST, RST_ACK, SYN, SYN_ACK, UDP, packet};
use crate::scene::{BOTH, Scene};

/// A VIP, a client, a backend, and a source address of ours, of one family.
const FAMILIES: [[&str; 4]; 2] = [
    ["192.0.2.1:80", "10.1.0.5:40000", "10.2.0.9:8080", "192.0.2.7"],
    ["[2001:db8:ff::1]:80", "[2001:db8:1::5]:40000", "[2001:db8:2::9]:8080", "2001:db8:ff::2"],
];

/// Longer than any usual time-out.
const LONG: u32 = seconds(7441);

/// Both hooks and families.
fn each() -> impl Iterator<Item = (Hook, [&'static str; 4])> {
    BOTH.into_iter().flat_map(|hook| FAMILIES.map(|family| (hook, family)))
}

/// What an answer is: its ends, TCP's flags and both numbers.
fn parsed(answer: &Answer) -> (String, String, u8, u32, u32) {
    assert!(answer.has_header);
    let ethertype: [u8; 2] = if answer.to.is_ipv4() { [8, 0] } else { [0x86, 0xdd] };
    let mut ip = answer.packet.clone();
    if answer.to.is_ipv4() {
        // The kernel fills it in.
        let sum = crate::frame::sum(&[&ip[..20]]);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let frame = Frame::parse(&[&[0; 12][..], &ethertype, &ip].concat());
    let Carries::Tcp { flags } = frame.carries else { panic!("{frame:?}") };
    let tcp = &ip[ip.len() - 20..];
    let number = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
    assert_eq!(frame.to.ip(), answer.to);
    (frame.from.to_string(), frame.to.to_string(), flags, number(4), number(8))
}

/// A packet that acknowledges something.
fn acknowledge(
    scene: &mut Scene,
    hook: Hook,
    carries: Carries,
    [from, to]: [&str; 2],
    number: u32,
) {
    let frame = packet(carries, from, to);
    let mut bytes = frame.bytes();
    let tcp = 14 + if frame.from.is_ipv4() { 20 } else { 40 };
    bytes[tcp + 8..tcp + 12].copy_from_slice(&number.to_be_bytes());
    let reason = scene.send_bytes(hook, &bytes, None).reason;
    assert!(matches!(reason, Reason::ForwardedToBackend | Reason::ForwardedToClient), "{reason:?}");
}

/// An established connection; whom the backend takes for its client. The backend's first number is 1, as all packets' is.
fn connect(scene: &mut Scene, hook: Hook, client: &str, vip: &str) -> String {
    let syn = scene.send(hook, &packet(SYN, client, vip)).frame();
    let (source, backend) = (syn.from.to_string(), syn.to.to_string());
    acknowledge(scene, hook, SYN_ACK, [&backend, &source], 1001);
    acknowledge(scene, hook, ACK, [client, vip], 2);
    source
}

/// What the counters and the list of flows say of the only flow: its backend, and whether its connection is open.
fn only_flow(scene: &mut Scene) -> (String, bool) {
    let flows = scene.get().flows(9);
    let [flow] = &flows[..] else { panic!("{flows:?}") };
    let counters = scene.get().service_counters().unwrap();
    let backends = counters.values().flat_map(|service| &service.backends);
    (flow.backend.to_string(), backends.map(|backend| backend.active).sum::<u64>() == 1)
}

#[test]
fn who_forges_a_sign_of_the_end_and_a_syn_ends_no_flow() {
    for hook in BOTH {
        for [vip, client, backend, source] in FAMILIES {
            for is_full_nat in [false, true] {
                for sign in [FIN, RST] {
                    let what = format!("{hook:?} {vip} {is_full_nat} {sign:?}");
                    let mut scene = Scene::new();
                    if is_full_nat {
                        let address = source.parse().unwrap();
                        scene.sources = vec![Source { address, first_port: 2000, last_port: 2003 }];
                    }
                    scene.serve(vip, Tcp, Maglev, &[backend]);
                    let seen = connect(&mut scene, hook, client, vip);
                    let other = backend.replace('9', "10");
                    scene.serve(vip, Tcp, Maglev, &[&format!("draining {backend}"), &other]);
                    let goes_on = |scene: &mut Scene, carries| {
                        let out = scene.send(hook, &packet(carries, client, vip)).frame();
                        let ends = (out.from.to_string(), out.to.to_string());
                        assert_eq!(ends, (seen.clone(), backend.to_owned()), "{what}: {carries:?}");
                    };
                    goes_on(&mut scene, sign);
                    goes_on(&mut scene, SYN);
                    // The backend has the connection: it says what it waits for (RFC 5961 §4), and the client goes on.
                    acknowledge(&mut scene, hook, ACK, [backend, &seen], 1001);
                    goes_on(&mut scene, ACK);
                    assert_eq!(only_flow(&mut scene), (backend.to_owned(), true), "{what}");

                    // It has none: the SYN that it sends begins one.
                    goes_on(&mut scene, sign);
                    goes_on(&mut scene, SYN);
                    acknowledge(&mut scene, hook, SYN_ACK, [backend, &seen], 1001);
                    assert_eq!(only_flow(&mut scene), (backend.to_owned(), false), "{what}");
                    acknowledge(&mut scene, hook, ACK, [client, vip], 2);
                    assert_eq!(only_flow(&mut scene), (backend.to_owned(), true), "{what}");
                    scene.let_pass(seconds(7000));
                    assert_eq!(scene.age().0, 0, "{what}: it is established, and closes no more");
                    scene.let_pass(seconds(450));
                    assert_eq!(scene.age().0, 1, "{what}");
                }
            }
        }
    }
}

#[test]
fn a_service_may_have_a_time_out_of_its_own() {
    let idle = NonZero::new(20);
    for (hook, [vip, client, backend, _]) in each() {
        let mut scene = Scene::new();
        scene.template = Service { idle, ..Service::default() };
        scene.apply(&[(vip, Tcp, Maglev, &[backend]), (vip, Udp, Maglev, &[backend])]);
        // What loads it takes as long as a few ticks, on a host with other work.
        assert!(scene.get().program(hook).is_ok());
        connect(&mut scene, hook, client, vip);
        for (carries, from, to) in [(UDP, client, vip), (UDP, backend, client), (UDP, client, vip)]
        {
            scene.send(hook, &packet(carries, from, to));
        }
        scene.let_pass(18);
        assert_eq!(scene.age().0, 0, "{hook:?} {vip}: too early");
        scene.let_pass(3);
        assert_eq!(scene.age(), (2, vec![]), "{hook:?} {vip}: and nobody hears of it");
        // Other states end by then, too, but not later than they would.
        scene.send(hook, &packet(SYN, client, vip));
        scene.let_pass(21);
        assert_eq!(scene.age().0, 1, "{hook:?} {vip}: half-open");
        scene.template.idle = NonZero::new(LONG);
        scene.apply(&[(vip, Tcp, Maglev, &[backend])]);
        connect(&mut scene, hook, client, vip);
        scene.send(hook, &packet(FIN, client, vip));
        scene.let_pass(seconds(241));
        assert_eq!(scene.age().0, 1, "{hook:?} {vip}: transitory");
    }
}

#[test]
fn both_sides_of_a_silent_flow_hear_a_reset_with_the_number_that_they_expect() {
    for hook in BOTH {
        for [vip, client, backend, source] in FAMILIES {
            for is_full_nat in [false, true] {
                let mut scene = Scene::new();
                scene.template = Service { resets_idle: true, ..Service::default() };
                if is_full_nat {
                    let address = source.parse().unwrap();
                    scene.sources = vec![Source { address, first_port: 2000, last_port: 2003 }];
                }
                scene.serve(vip, Tcp, Maglev, &[backend]);
                let seen = connect(&mut scene, hook, client, vip);
                assert_eq!(seen == client, !is_full_nat);
                scene.let_pass(LONG);
                let (removed, resets) = scene.age();
                let numbers = |there, back| {
                    [
                        (vip.to_owned(), client.to_owned(), 4, there, 0),
                        (seen.clone(), backend.to_owned(), 4, back, 0),
                    ]
                };
                let said: Vec<_> = resets.iter().map(parsed).collect();
                assert_eq!((removed, &said[..]), (1, &numbers(2, 1001)[..]), "{hook:?} {vip}");
                // They talk on: the last numbers count.
                let seen = connect(&mut scene, hook, client, vip);
                for number in [0x3fff_ffff, 0x7fff_ffff, 0xbfff_ffff, 0xffff_ffff, 5] {
                    acknowledge(&mut scene, hook, ACK, [backend, &seen], number);
                }
                // One that somebody guesses holds until the next genuine one, and one that was overtaken does not count.
                for number in [0x3000_0000, 0xb000_0000, 0x3000_1000, 0x3000_0800] {
                    acknowledge(&mut scene, hook, ACK, [client, vip], number);
                }
                scene.let_pass(LONG);
                let said: Vec<_> = scene.age().1.iter().map(parsed).collect();
                let (to_client, to_backend) = (said[0].3, said[1].3);
                assert_eq!((to_client, to_backend), (0x3000_1000, 5), "{hook:?} {vip}");
            }
        }
    }
}

#[test]
fn nobody_hears_a_reset_who_has_no_connection_any_more_or_none_yet() {
    for (hook, [vip, client, backend, _]) in each() {
        let mut scene = Scene::new();
        scene.template = Service { resets_idle: true, ..Service::default() };
        scene.apply(&[(vip, Tcp, Maglev, &[backend]), (vip, Udp, Maglev, &[backend])]);
        let ends: [&[Carries]; 4] = [&[], &[FIN], &[RST], &[RST_ACK]];
        for more in ends {
            scene.send(hook, &packet(SYN, client, vip));
            if !more.is_empty() {
                scene.send(hook, &packet(SYN_ACK, backend, client));
                scene.send(hook, &packet(ACK, client, vip));
                scene.send(hook, &packet(FIN, client, vip));
            }
            for carries in more {
                scene.send(hook, &packet(*carries, backend, client));
            }
            scene.let_pass(LONG);
            assert_eq!(scene.age(), (1, vec![]), "{hook:?} {vip} {more:?}");
        }
        // Anybody may forge a sign of the end, whose number nobody looks at.
        for forged in [FIN, RST] {
            connect(&mut scene, hook, client, vip);
            scene.send(hook, &packet(forged, client, vip));
            scene.let_pass(LONG);
            assert_eq!(scene.age(), (1, vec![]), "{hook:?} {vip} {forged:?}");
        }
        for (from, to) in [(client, vip), (backend, client), (client, vip)] {
            scene.send(hook, &packet(UDP, from, to));
        }
        scene.let_pass(LONG);
        assert_eq!(scene.age(), (1, vec![]), "{hook:?} {vip}: datagrams know no reset");
    }
}

#[test]
fn flows_of_a_failed_backend_stay_or_end_as_their_service_says() {
    let cases = [
        (None, 0, 0),
        (Some(WhenFailed::Keep), 0, 0),
        (Some(WhenFailed::Drop), 1, 0),
        (Some(WhenFailed::Reset), 1, 2),
    ];
    for hook in BOTH {
        for [vip, client, backend, _] in FAMILIES {
            let mut scene = Scene::new();
            for (when_failed, removed, resets) in cases {
                scene.template.when_failed = when_failed;
                scene.serve(vip, Tcp, Maglev, &[backend]);
                connect(&mut scene, hook, client, vip);
                assert_eq!(scene.age().0, 0, "{when_failed:?}: it is well");
                scene.serve(vip, Tcp, Maglev, &[&format!("failed {backend}")]);
                let (gone, told) = scene.age();
                assert_eq!((gone, told.len()), (removed, resets), "{hook:?} {when_failed:?}");
                if gone == 0 {
                    // The next case begins anew.
                    scene.let_pass(LONG);
                    assert_eq!(scene.age(), (1, vec![]), "silence is another matter");
                }
            }
        }
    }
    for (hook, [vip, client, backend, _]) in each() {
        for (when_failed, removed) in [(None, 1), (Some(WhenFailed::Keep), 0)] {
            let mut scene = Scene::new();
            scene.template.when_failed = when_failed;
            scene.serve(vip, Udp, Maglev, &[backend]);
            scene.send(hook, &packet(UDP, client, vip));
            scene.serve(vip, Udp, Maglev, &[&format!("failed {backend}")]);
            let what = format!("{hook:?} {vip} {when_failed:?}");
            assert_eq!(scene.age().0, removed, "{what}: datagrams go elsewhere by default");
        }
    }
}

#[test]
fn flows_of_a_removed_backend_live_and_end_as_their_service_said_last() {
    for (hook, [vip, client, backend, _]) in each() {
        let mut scene = Scene::new();
        scene.template = Service {
            idle: NonZero::new(20),
            resets_idle: true,
            when_failed: Some(WhenFailed::Reset),
            ..Service::default()
        };
        scene.serve(vip, Tcp, Maglev, &[backend]);
        connect(&mut scene, hook, client, vip);
        scene.serve(vip, Tcp, Maglev, &[]);
        assert_eq!(scene.age().0, 0, "{hook:?} {vip}: a connection may outlive its backend");
        scene.let_pass(21);
        let (removed, resets) = scene.age();
        assert_eq!((removed, resets.len()), (1, 2), "{hook:?} {vip}: silent for too long");

        scene.serve(vip, Tcp, Maglev, &[backend]);
        connect(&mut scene, hook, client, vip);
        scene.serve(vip, Tcp, Maglev, &[&format!("failed {backend}")]);
        scene.serve(vip, Tcp, Maglev, &[]);
        let (removed, resets) = scene.age();
        assert_eq!((removed, resets.len()), (1, 2), "{hook:?} {vip}: failed, then removed");
    }
}

#[test]
fn who_finds_no_source_port_is_counted_and_hears_what_the_service_says() {
    for hook in BOTH {
        for [vip, client, backend, source] in FAMILIES {
            let mut scene = Scene::new();
            let address = source.parse().unwrap();
            scene.sources = vec![Source { address, first_port: 2000, last_port: 2000 }];
            let mut punts = scene.get().take_punts().unwrap().unwrap();
            let mut told = |scene: &mut Scene, on_exhaustion, carries| {
                scene.template.on_exhaustion = on_exhaustion;
                scene.apply(&[(vip, Tcp, Maglev, &[backend]), (vip, Udp, Maglev, &[backend])]);
                scene.send(hook, &packet(carries, client, vip));
                let other = packet(carries, &client.replace(":40000", ":40001"), vip);
                assert_eq!(scene.send(hook, &other).reason, Reason::NoSourcePort, "{hook:?}");
                (punts.next_answer(Instant::now()), other)
            };
            for carries in [SYN, UDP] {
                assert_eq!(told(&mut scene, OnExhaustion::Drop, carries).0, None, "{hook:?} {vip}");
                let (error, other) = told(&mut scene, OnExhaustion::Icmp, carries);
                let error = error.unwrap();
                assert_eq!(error.to, other.from.ip());
                let head = if error.has_header { &error.packet[20..] } else { &error.packet[..] };
                let unreachable = if other.from.is_ipv4() { [3, 1] } else { [1, 3] };
                assert_eq!(head[..2], unreachable, "{hook:?} {vip}");
                assert!(other.bytes()[14..].starts_with(&head[8..]), "it quotes the packet");
            }
            let (reset, other) = told(&mut scene, OnExhaustion::Reset, SYN);
            let next = 1 + 1 + other.payload.len() as u32;
            let expected = (vip.to_owned(), other.from.to_string(), 0x14, 0, next);
            assert_eq!(parsed(&reset.unwrap()), expected, "{hook:?}");
            let counters = scene.get().service_counters().unwrap();
            let exhausted: u64 = counters.values().map(|count| count.exhausted).sum();
            let backends = counters.values().flat_map(|count| &count.backends);
            assert_eq!((exhausted, backends.map(|b| b.exhausted).sum()), (5, 5_u64), "{hook:?}");
        }
    }
}

#[test]
fn connections_outlive_their_vip_both_ways_until_they_are_silent_and_datagrams_end_with_it() {
    let mut scene = Scene::new();
    for hook in BOTH {
        for [vip, client, backend, source] in FAMILIES {
            for (mode, has_source, reason) in [
                (Mode::Nat, false, Reason::ForwardedToBackend),
                (Mode::Nat, true, Reason::ForwardedToBackend),
                (Mode::L2, false, Reason::ForwardedDirectly),
                (Mode::IpInIp, true, Reason::ForwardedByTunnel),
                (Mode::Gue, true, Reason::ForwardedByTunnel),
            ] {
                let what = format!("{hook:?} {vip} {mode:?} {has_source}");
                let is_direct = mode != Mode::Nat;
                let address = source.parse().unwrap();
                let ours = Source { address, first_port: 2000, last_port: 2003 };
                scene.sources = if has_source { vec![ours] } else { vec![] };
                scene.mode = mode;
                let backend =
                    &*if is_direct { backend.replace("8080", "80") } else { backend.into() };
                let all = [(vip, Tcp, Maglev, &[backend][..]), (vip, Udp, Maglev, &[backend])];
                let mut services = scene.services(&all);
                for (key, service) in &mut services {
                    service.resets_idle = key.protocol == Tcp && !is_direct;
                }
                scene.get().apply(&Table { services }).unwrap();
                let seen = if is_direct {
                    scene.send(hook, &packet(SYN, client, vip));
                    client.to_owned()
                } else {
                    connect(&mut scene, hook, client, vip)
                };
                scene.send(hook, &packet(UDP, client, vip));

                scene.apply(&[]);
                let goes_on = |scene: &mut Scene| {
                    let ended = scene.send(hook, &packet(ACK, client, vip));
                    assert_eq!(ended.reason, reason, "{what}");
                };
                goes_on(&mut scene);
                if !is_direct {
                    let back = scene.send(hook, &packet(ACK, backend, &seen));
                    assert_eq!(back.reason, Reason::ForwardedToClient, "{what}");
                    let ends = (back.frame().from.to_string(), back.frame().to.to_string());
                    assert_eq!(ends, (vip.into(), client.into()), "{what}");
                }
                let other = client.replace("40000", "40001");
                let new = scene.send(hook, &packet(SYN, &other, vip));
                assert_eq!(new.reason, Reason::NoRoute, "{what}: no VIP any more");
                assert_eq!(scene.age(), (1, vec![]), "{what}: the datagrams");
                goes_on(&mut scene);

                scene.let_pass(LONG);
                let (removed, resets) = scene.age();
                assert_eq!(removed, 1, "{what}");
                let told: Vec<_> =
                    resets.iter().map(parsed).map(|(from, to, ..)| (from, to)).collect();
                let both = [(vip.into(), client.into()), (seen, backend.into())];
                assert_eq!(told, if is_direct { vec![] } else { both.to_vec() }, "{what}");
                let late = scene.send(hook, &packet(ACK, client, vip));
                assert_eq!(late.reason, Reason::NoRoute, "{what}");
            }
        }
    }
}
