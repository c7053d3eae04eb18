//! Full NAT: flows to backends come from addresses and ports of ours.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use lb_dataplane::table::Algorithm::{Maglev, RoundRobin};
use lb_dataplane::table::Protocol::{Tcp, Udp};
use lb_dataplane::table::Source;
use lb_dataplane::{Hook, Kind, Reason, seconds};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::frame::{ACK, Carries, FIN, Frame, RST_ACK, SYN, SYN_ACK, UDP, packet};
use crate::scene::{BOTH, CLIENT_SIDE, Scene, small, with_half_open};

const VIP: &str = "192.0.2.1:80";
const CLIENT: &str = "10.1.0.5:40000";
const BACKEND: &str = "10.2.0.9:8080";

fn source(address: [u8; 4], first_port: u16, last_port: u16) -> Source {
    Source { address: IpAddr::from(address), first_port, last_port }
}

fn scene(sources: &[Source]) -> Scene {
    let mut scene = Scene::with_sizes(lb_dataplane::Sizes { flow_entries: 16_384, ..small() });
    scene.sources = sources.to_vec();
    scene.apply(&[(VIP, Tcp, Maglev, &[BACKEND]), (VIP, Udp, Maglev, &[BACKEND])]);
    scene
}

/// All but a few ports of an address, taken by two CPUs: whoever comes second to one looks on.
#[test]
fn no_two_flows_that_begin_on_two_cpus_at_once_share_a_port() {
    const PORTS: u16 = 1000;
    for hook in BOTH {
        let mut scene = Scene::with_sizes(with_half_open(1024));
        scene.sources = vec![source([192, 0, 2, 1], 5000, 5000 + PORTS - 1)];
        scene.serve(VIP, Udp, Maglev, &[BACKEND]);
        let syn = |thread: u16, n| packet(UDP, &format!("10.1.{thread}.5:{}", 20_000 + n), VIP);
        let each = PORTS / 2 - 20;
        let threads = [0, 1].map(|thread| (0..each).map(|n| syn(thread, n)).collect());
        let sent = scene.send_at_once(hook, &threads);
        let there: Vec<_> = sent.iter().filter(|frame| frame.to.to_string() == BACKEND).collect();
        let ports: BTreeSet<u16> = there.iter().map(|frame| frame.from.port()).collect();
        assert_eq!(ports.len(), there.len(), "{hook:?}: a port for each");
        // Of the last ones a search of 64 ports may find none, once in a thousand times.
        assert!(there.len() >= usize::from(2 * each) - 10, "{hook:?}: {} found one", there.len());
        assert_eq!(scene.entries().len(), 2 * there.len(), "{hook:?}");
    }
}

#[test]
fn a_flow_is_translated_on_both_sides_both_ways() {
    for hook in BOTH {
        let mut scene = scene(&[source([192, 0, 2, 1], 5000, 5999)]);
        for (first, answer) in [(SYN, SYN_ACK), (UDP, UDP)] {
            let sent = packet(first, CLIENT, VIP).payload(33);
            let there = scene.send(hook, &sent).frame();
            assert_eq!(there.from.ip(), IpAddr::from([192, 0, 2, 1]), "{hook:?}");
            assert!((5000..6000).contains(&there.from.port()), "{hook:?} {there:?}");
            assert_eq!(there.to.to_string(), BACKEND);
            assert_eq!(there.payload, sent.payload);
            // The next one from the same port.
            assert_eq!(scene.send(hook, &sent).frame().from, there.from);

            let reply = packet(answer, BACKEND, &there.from.to_string());
            let back = scene.send(hook, &reply);
            assert_eq!((back.reason, back.ifindex), (Reason::ForwardedToClient, 7), "{hook:?}");
            let expected = Frame {
                destination_mac: CLIENT_SIDE.destination_mac.unwrap(),
                source_mac: CLIENT_SIDE.source_mac,
                from: VIP.parse().unwrap(),
                to: CLIENT.parse().unwrap(),
                ttl: 63,
                ..reply
            };
            assert_eq!(back.frame(), expected, "{hook:?}");
        }
        assert_eq!(scene.entries().len(), 4);
        let flows = scene.get().flows(9).unwrap();
        assert!(flows.iter().all(|flow| flow.client.to_string() == CLIENT), "{flows:?}");
    }
}

#[test]
fn no_two_flows_to_a_backend_share_a_port_and_every_port_is_used() {
    // One CPU goes on port by port. On several, the last free ports would be found by chance.
    let mut cpu = CpuSet::new();
    cpu.set(0).unwrap();
    sched_setaffinity(Pid::from_raw(0), &cpu).unwrap();
    for hook in BOTH {
        let sources = [source([192, 0, 2, 1], 2000, 2499), source([192, 0, 2, 7], 65_036, 65_535)];
        let mut scene = scene(&sources[..1]);
        let mut seen = BTreeSet::new();
        for n in 0..500_u16 {
            let ended = scene.send(hook, &packet(UDP, &format!("10.1.0.5:{}", 1000 + n), VIP));
            assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?} {n}");
            assert!(seen.insert(ended.frame().from), "{hook:?}: twice {}", ended.frame().from);
        }
        assert_eq!(seen.iter().map(SocketAddr::port).max(), Some(2499));
        let ended = scene.send(hook, &packet(UDP, "10.1.0.6:1000", VIP));
        assert_eq!(ended.reason, Reason::NoSourcePort, "{hook:?}");
        assert_eq!(scene.count(Reason::NoSourcePort), 1);
        assert_eq!(scene.entries().len(), 1000, "a refusal leaves nothing");
        // The same ports serve flows of another protocol.
        assert_eq!(scene.send(hook, &packet(SYN, CLIENT, VIP)).reason, Reason::ForwardedToBackend);

        // More addresses serve more flows, to the last port.
        scene.sources = sources.to_vec();
        scene.apply(&[(VIP, Udp, Maglev, &[BACKEND])]);
        let mut from_the_other = BTreeSet::new();
        for n in 0..900_u16 {
            let ended = scene.send(hook, &packet(UDP, &format!("10.1.0.7:{}", 1000 + n), VIP));
            if ended.reason == Reason::ForwardedToBackend {
                assert!(from_the_other.insert(ended.frame().from), "{hook:?}");
            }
            let found_all = from_the_other.len() == usize::from(n) + 1;
            assert!(found_all || n > 250, "{hook:?} {n}: the first address has no port any more");
        }
        let ports: BTreeSet<u16> = from_the_other.iter().map(SocketAddr::port).collect();
        assert!(from_the_other.iter().all(|from| from.ip() == IpAddr::from([192, 0, 2, 7])));
        assert!(ports.len() > 480 && ports.iter().all(|port| *port >= 65_036), "{}", ports.len());
    }
}

#[test]
fn a_port_is_free_again_when_its_flow_is_gone() {
    for hook in BOTH {
        let mut scene = scene(&[source([192, 0, 2, 1], 2000, 2000)]);
        let first = scene.send(hook, &packet(SYN, CLIENT, VIP)).frame().from.to_string();
        assert_eq!(first, "192.0.2.1:2000");
        let other = "10.1.0.6:40000";
        assert_eq!(scene.send(hook, &packet(SYN, other, VIP)).reason, Reason::NoSourcePort);
        // The same client again: its old flow makes room.
        scene.send(hook, &packet(SYN_ACK, BACKEND, &first));
        scene.send(hook, &packet(ACK, CLIENT, VIP));
        scene.send(hook, &packet(FIN, CLIENT, VIP));
        let again = scene.send(hook, &packet(SYN, CLIENT, VIP));
        assert_eq!(again.reason, Reason::ForwardedToBackend, "{hook:?}");
        assert_eq!(scene.entries().len(), 2);
    }
}

#[test]
fn a_segment_of_no_flow_begins_none() {
    for hook in BOTH {
        for algorithm in [Maglev, RoundRobin] {
            let mut scene = scene(&[source([192, 0, 2, 1], 2000, 2999)]);
            scene.serve(VIP, Tcp, algorithm, &[BACKEND]);
            let ended = scene.send(hook, &packet(ACK, CLIENT, VIP));
            assert_eq!(ended.reason, Reason::UnknownFlow, "{hook:?} {algorithm:?}");
        }
    }
}

#[test]
fn an_error_about_a_flow_finds_both_sides() {
    // Unreachable, too big, time exceeded, parameter problem.
    const KINDS: [[(u8, u8); 4]; 2] =
        [[(3, 3), (3, 4), (11, 0), (12, 0)], [(1, 4), (2, 0), (3, 0), (4, 1)]];
    for hook in BOTH {
        for ([vip, clients, backend, one, _], kinds) in FAMILIES.into_iter().zip(KINDS) {
            let mut scene = Scene::new();
            let address = one.parse().unwrap();
            scene.sources = vec![Source { address, first_port: 2000, last_port: 2999 }];
            scene.apply(&[(vip, Tcp, Maglev, &[backend]), (vip, Udp, Maglev, &[backend])]);
            let client = client(clients, 5);
            let header = if address.is_ipv4() { 20 } else { 40 };
            let quote = |frame: &Frame, len: usize| frame.bytes()[14..][..header + len].to_vec();
            let without_port = |at: &str| format!("{}:0", at.rsplit_once(':').unwrap().0);
            // The ports, TCP's header with its checksum, and all.
            for (first, answer, len) in [
                (UDP, UDP, 8),
                (UDP, UDP, 25),
                (SYN, SYN_ACK, 8),
                (SYN, SYN_ACK, 20),
                (SYN, SYN_ACK, 37),
            ] {
                let sent = packet(first, &client, vip);
                let source = scene.send(hook, &sent).frame().from.to_string();
                let reply = packet(answer, backend, &source);
                scene.send(hook, &reply);
                for (kind, code) in kinds {
                    let error = |from: &str, to: &str, about: Vec<u8>| Frame {
                        payload: about,
                        ..packet(
                            Carries::Icmp { kind, code },
                            &without_port(from),
                            &without_port(to),
                        )
                    };
                    let what = format!("{hook:?} {vip} {first:?} {len} {kind}");
                    let about = quote(&packet(first, &source, backend), len);
                    let ended = scene.send(hook, &error(backend, &source, about));
                    assert_eq!(ended.reason, Reason::ErrorToClient, "{what}");
                    let frame = ended.frame();
                    let ends = (frame.from.ip(), frame.to.ip());
                    assert_eq!(ends, (sent.to.ip(), sent.from.ip()), "{what}");
                    assert_eq!(frame.payload, quote(&sent, len), "{what}: as the client sent it");

                    let about = quote(&packet(answer, vip, &client), len);
                    let ended = scene.send(hook, &error(&client, vip, about));
                    assert_eq!(ended.reason, Reason::ErrorToBackend, "{what}");
                    let frame = ended.frame();
                    let ends = (frame.from.ip(), frame.to.ip());
                    assert_eq!(ends, (sent.from.ip(), reply.from.ip()), "{what}");
                    assert_eq!(frame.payload, quote(&reply, len), "{what}: as the backend sent it");
                }
            }
        }
    }
}

#[test]
fn a_new_process_goes_on_with_the_sources_and_flows() {
    for hook in BOTH {
        let mut scene = scene(&[source([192, 0, 2, 1], 2000, 2999)]);
        let before = scene.send(hook, &packet(SYN, CLIENT, VIP)).frame().from;
        // A SYN that stays unanswered while a slow machine opens anew would begin another flow.
        scene.send(hook, &packet(SYN_ACK, BACKEND, &before.to_string()));
        scene.open();
        scene.apply(&[(VIP, Tcp, Maglev, &[BACKEND])]);
        assert_eq!(scene.send(hook, &packet(SYN, CLIENT, VIP)).frame().from, before);
        let other = scene.send(hook, &packet(SYN, "10.1.0.6:40000", VIP)).frame().from;
        assert!(other != before && other.ip() == before.ip(), "{hook:?} {other}");
    }
}

#[test]
fn flows_share_nine_of_ten_ports_without_a_refusal_on_whatever_cpu_they_begin() {
    let cpus = std::thread::available_parallelism().unwrap().get();
    let mut scene = scene(&[source([192, 0, 2, 1], 1024, 3023)]);
    let mut seen = BTreeSet::new();
    for n in 0..1800_u16 {
        // Runs of flows on one CPU and then on another: each meets what the other one used in a row.
        let mut cpu = CpuSet::new();
        cpu.set(usize::from(n / 450) % cpus).unwrap();
        sched_setaffinity(Pid::from_raw(0), &cpu).unwrap();
        let ended = scene.send(BOTH[0], &packet(SYN, &format!("10.1.0.5:{}", 1000 + n), VIP));
        assert_eq!(ended.reason, Reason::ForwardedToBackend, "{n}");
        assert!(seen.insert(ended.frame().from), "{n}: twice {}", ended.frame().from);
        // Confirmed: half-open flows would make room for one another.
        let reply = packet(SYN_ACK, BACKEND, &ended.frame().from.to_string());
        scene.send(BOTH[0], &reply);
        scene.send(BOTH[0], &packet(ACK, &format!("10.1.0.5:{}", 1000 + n), VIP));
    }
}

#[test]
fn a_flow_that_is_as_good_as_over_makes_room_where_no_other_port_is_free() {
    let other = "10.1.0.6:40000";
    let ports: &[(&[Carries], Carries, Option<u64>)] = &[
        (&[SYN, SYN_ACK, ACK], SYN, None),
        (&[SYN, SYN_ACK, ACK, FIN], SYN, None),
        (&[SYN, SYN_ACK, ACK, FIN, BACK_FIN], SYN, Some(10)),
        (&[SYN, SYN_ACK, ACK, BACK_RST], SYN, Some(10)),
        (&[SYN], SYN, Some(60)),
        (&[SYN, SYN_ACK], SYN, Some(60)),
        (&[UDP], UDP, Some(120)),
        (&[UDP, BACK_UDP], UDP, None),
    ];
    for hook in BOTH {
        // A service and a backend for each: a port is free or not towards one backend.
        let ends: Vec<_> = (0..ports.len() as u16)
            .map(|n| (format!("192.0.2.1:{}", 80 + n), [format!("10.2.0.9:{}", 8080 + n)]))
            .collect();
        let lists: Vec<_> = ends.iter().map(|(_, there)| [there[0].as_str()]).collect();
        let services = ends.iter().zip(&lists).zip(ports).map(|(((vip, _), list), case)| {
            (vip.as_str(), if case.1 == UDP { Udp } else { Tcp }, Maglev, &list[..])
        });
        let mut scene = scene(&[source([192, 0, 2, 1], 2000, 2000)]);
        scene.apply(&services.collect::<Vec<_>>());
        for ((packets, first, rests), (vip, [backend])) in ports.iter().zip(&ends) {
            for carries in *packets {
                let from_backend = [SYN_ACK, BACK_FIN, BACK_RST, BACK_UDP].contains(carries);
                let sent = if from_backend {
                    scene.send(hook, &packet(as_sent(*carries), backend, "192.0.2.1:2000"))
                } else {
                    scene.send(hook, &packet(*carries, CLIENT, vip))
                };
                assert!(sent.reason.kind() == Kind::Forward, "{hook:?} {packets:?}: {sent:?}");
            }
            let begins = |scene: &mut Scene| scene.send(hook, &packet(*first, other, vip)).reason;
            assert_eq!(begins(&mut scene), Reason::NoSourcePort, "{hook:?} {packets:?}: at once");
            scene.let_pass(seconds(rests.unwrap_or(3600)) - 2);
            assert_eq!(begins(&mut scene), Reason::NoSourcePort, "{hook:?} {packets:?}: too early");
            scene.let_pass(2);
            let expected =
                if rests.is_some() { Reason::ForwardedToBackend } else { Reason::NoSourcePort };
            assert_eq!(begins(&mut scene), expected, "{hook:?} {packets:?}");
            let flows = scene.get().flows(99).unwrap();
            let clients: Vec<_> = flows
                .iter()
                .filter(|flow| flow.vip.to_string() == *vip)
                .map(|flow| flow.client.to_string())
                .collect();
            let client = if rests.is_some() { other } else { CLIENT };
            assert_eq!(clients, [client], "{hook:?} {packets:?}");
        }
        let counters = scene.get().service_counters().unwrap();
        let flows = counters.values().flat_map(|s| &s.backends).map(|b| b.active + b.half_open);
        assert!(flows.eq(ports.iter().map(|_| 1)), "{hook:?}: flows are counted out");
    }
}

/// A VIP, a client without its last number and port, a backend, and two addresses that flows come from.
const FAMILIES: [[&str; 5]; 2] = [
    [VIP, "10.1.0.", BACKEND, "192.0.2.1", "192.0.2.7"],
    [
        "[2001:db8:f::1]:80",
        "[2001:db8:1::",
        "[2001:db8:2::9]:8080",
        "2001:db8:f::1",
        "2001:db8:f::7",
    ],
];

fn client(begin: &str, last: u8) -> String {
    format!("{begin}{last}{}:40000", if begin.starts_with('[') { "]" } else { "" })
}

/// Begins a connection and closes it; where it came from.
fn open_and_close(scene: &mut Scene, hook: Hook, client: &str, vip: &str, backend: &str) -> String {
    let there = scene.send(hook, &packet(SYN, client, vip)).frame().from.to_string();
    scene.send(hook, &packet(SYN_ACK, backend, &there));
    scene.send(hook, &packet(ACK, client, vip));
    scene.send(hook, &packet(FIN, client, vip));
    scene.send(hook, &packet(FIN, backend, &there));
    there
}

#[test]
fn a_closed_flow_makes_room_only_where_no_address_has_a_free_port() {
    for hook in BOTH {
        for [vip, clients, backend, one, other] in FAMILIES {
            let mut scene = Scene::new();
            let of = |address: &str| Source {
                address: address.parse().unwrap(),
                first_port: 2000,
                last_port: 2000,
            };
            scene.sources = vec![of(one), of(other)];
            scene.serve(vip, Tcp, Maglev, &[backend]);
            let closed = open_and_close(&mut scene, hook, &client(clients, 1), vip, backend);
            scene.let_pass(seconds(10));
            let mut from = |last| {
                let sent = scene.send(hook, &packet(SYN, &client(clients, last), vip));
                (sent.reason, sent.frame().from.to_string())
            };
            let (reason, free) = from(2);
            assert_eq!(reason, Reason::ForwardedToBackend, "{hook:?} {vip}");
            assert_ne!(free, closed, "{hook:?}: the other address has a free port");
            assert_eq!(from(3), (Reason::ForwardedToBackend, closed), "{hook:?} {vip}");
            assert_eq!(from(4).0, Reason::NoSourcePort, "{hook:?} {vip}");
        }
    }
}

#[test]
fn the_one_closed_flow_of_eight_is_found() {
    for hook in BOTH {
        for [vip, clients, backend, one, _] in FAMILIES {
            let mut scene = Scene::new();
            let address = one.parse().unwrap();
            scene.sources = vec![Source { address, first_port: 2000, last_port: 2007 }];
            scene.serve(vip, Tcp, Maglev, &[backend]);
            let mut closed = String::new();
            for last in 1..=8 {
                let client = client(clients, last);
                if last == 4 {
                    closed = open_and_close(&mut scene, hook, &client, vip, backend);
                    continue;
                }
                let there = scene.send(hook, &packet(SYN, &client, vip)).frame().from.to_string();
                scene.send(hook, &packet(SYN_ACK, backend, &there));
                scene.send(hook, &packet(ACK, &client, vip));
            }
            scene.let_pass(seconds(10));
            let sent = scene.send(hook, &packet(SYN, &client(clients, 9), vip));
            assert_eq!(sent.reason, Reason::ForwardedToBackend, "{hook:?} {vip}");
            assert_eq!(sent.frame().from.to_string(), closed, "{hook:?} {vip}");
        }
    }
}

/// What only backends send, so that a list of packets says whose each is.
const BACK_FIN: Carries = Carries::Other(1);
const BACK_RST: Carries = Carries::Other(2);
const BACK_UDP: Carries = Carries::Other(3);

fn as_sent(carries: Carries) -> Carries {
    match carries {
        BACK_FIN => FIN,
        BACK_RST => RST_ACK,
        BACK_UDP => UDP,
        other => other,
    }
}
