//! Full NAT: flows to backends come from addresses and ports of ours.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use lb_dataplane::table::Algorithm::{Maglev, RoundRobin};
use lb_dataplane::table::Protocol::{Tcp, Udp};
use lb_dataplane::table::{Source, Table};
use lb_dataplane::{Hook, Kind, Reason, Sizes, seconds};
use lb_dataplane_common::service::MAX_SOURCES_OF_BACKEND;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::family::{self, FAMILIES, Family};
use crate::frame::{ACK, Carries, FIN, Frame, RST_ACK, SYN, SYN_ACK, UDP, packet};
use crate::scene::{BOTH, CLIENT_SIDE, Scene, small, with_half_open};

/// A VIP, a client and a backend of one family, and two addresses that flows come from.
struct Ends {
    family: Family,
    vip: String,
    client: String,
    backend: String,
    ours: [IpAddr; 2],
}

/// Both families at both hooks.
fn each() -> impl Iterator<Item = (Hook, Ends)> {
    family::each().map(|(hook, family)| (hook, Ends::of(family)))
}

impl Ends {
    fn of(family: Family) -> Self {
        let ours = [1, 7].map(|n| family.vip(n).parse::<SocketAddr>().unwrap().ip());
        let (vip, client) = (family.vip(1), family.at(1, 5, 40_000));
        Self { family, vip, client, backend: family.at(2, 9, 8080), ours }
    }

    fn client(&self, host: u16, port: u16) -> String {
        self.family.at(1, host, port)
    }

    /// TCP and UDP at the VIP, from these sources.
    fn scene(&self, sources: &[Source]) -> Scene {
        let sizes = Sizes { flow_entries: 16_384, flow_entries6: 16_384, ..small() };
        let mut scene = Scene::with_sizes(sizes);
        scene.sources = sources.to_vec();
        let backend = [self.backend.as_str()];
        scene.apply(&[(&self.vip, Tcp, Maglev, &backend), (&self.vip, Udp, Maglev, &backend)]);
        scene
    }
}

fn source(address: IpAddr, first_port: u16, last_port: u16) -> Source {
    Source { address, first_port, last_port }
}

fn entries(scene: &mut Scene) -> usize {
    scene.entries().len() + scene.entries6().len()
}

/// All but a few ports of an address, taken by two CPUs: whoever comes second to one looks on.
#[test]
fn no_two_flows_that_begin_on_two_cpus_at_once_share_a_port() {
    const PORTS: u16 = 1000;
    for (hook, ends) in each() {
        let mut scene = Scene::with_sizes(with_half_open(1024));
        scene.sources = vec![source(ends.ours[0], 5000, 5000 + PORTS - 1)];
        scene.serve(&ends.vip, Udp, Maglev, &[&ends.backend]);
        let first =
            |thread: u16, n| packet(UDP, &ends.client(thread * 256 + 5, 20_000 + n), &ends.vip);
        let each = PORTS / 2 - 20;
        let threads = [0, 1].map(|thread| (0..each).map(|n| first(thread, n)).collect());
        let sent = scene.send_at_once(hook, &threads);
        let there: Vec<_> =
            sent.iter().filter(|frame| frame.to.to_string() == ends.backend).collect();
        let ports: BTreeSet<u16> = there.iter().map(|frame| frame.from.port()).collect();
        assert_eq!(ports.len(), there.len(), "{hook:?}: a port for each");
        // Of the last ones a search of 64 ports may find none, once in a thousand times.
        assert!(there.len() >= usize::from(2 * each) - 10, "{hook:?}: {} found one", there.len());
        assert_eq!(entries(&mut scene), 2 * there.len(), "{hook:?}");
    }
}

#[test]
fn a_flow_is_translated_on_both_sides_both_ways() {
    for (hook, ends) in each() {
        let mut scene = ends.scene(&[source(ends.ours[0], 5000, 5999)]);
        let what = format!("{hook:?} {:?}", ends.family);
        for (first, answer) in [(SYN, SYN_ACK), (UDP, UDP)] {
            let sent = packet(first, &ends.client, &ends.vip).payload(33);
            let there = scene.send(hook, &sent).frame();
            assert_eq!(there.from.ip(), ends.ours[0], "{what}");
            assert!((5000..6000).contains(&there.from.port()), "{what} {there:?}");
            assert_eq!(there.to.to_string(), ends.backend);
            assert_eq!(there.payload, sent.payload);
            // The next one from the same port.
            assert_eq!(scene.send(hook, &sent).frame().from, there.from);

            let reply = packet(answer, &ends.backend, &there.from.to_string());
            let back = scene.send(hook, &reply);
            assert_eq!((back.reason, back.ifindex), (Reason::ForwardedToClient, 7), "{what}");
            let expected = Frame {
                destination_mac: CLIENT_SIDE.destination_mac.unwrap(),
                source_mac: CLIENT_SIDE.source_mac,
                from: sent.to,
                to: sent.from,
                ttl: 63,
                ..reply
            };
            assert_eq!(back.frame(), expected, "{what}");
        }
        assert_eq!(entries(&mut scene), 4, "{what}");
        let flows = scene.get().flows(9);
        assert!(flows.iter().all(|flow| flow.client.to_string() == ends.client), "{flows:?}");
    }
}

#[test]
fn no_two_flows_to_a_backend_share_a_port_and_every_port_is_used() {
    // One CPU goes on port by port. On several, the last free ports would be found by chance.
    let mut cpu = CpuSet::new();
    cpu.set(0).unwrap();
    sched_setaffinity(Pid::from_raw(0), &cpu).unwrap();
    for (hook, ends) in each() {
        let what = format!("{hook:?} {:?}", ends.family);
        let sources = [source(ends.ours[0], 2000, 2499), source(ends.ours[1], 65_036, 65_535)];
        let mut scene = ends.scene(&sources[..1]);
        let mut seen = BTreeSet::new();
        for n in 0..500_u16 {
            let ended = scene.send(hook, &packet(UDP, &ends.client(5, 1000 + n), &ends.vip));
            assert_eq!(ended.reason, Reason::ForwardedToBackend, "{what} {n}");
            assert!(seen.insert(ended.frame().from), "{what}: twice {}", ended.frame().from);
        }
        assert_eq!(seen.iter().map(SocketAddr::port).max(), Some(2499));
        let ended = scene.send(hook, &packet(UDP, &ends.client(6, 1000), &ends.vip));
        assert_eq!(ended.reason, Reason::NoSourcePort, "{what}");
        assert_eq!(scene.count(Reason::NoSourcePort), 1);
        assert_eq!(entries(&mut scene), 1000, "{what}: a refusal leaves nothing");
        // The same ports serve flows of another protocol.
        let syn = packet(SYN, &ends.client, &ends.vip);
        assert_eq!(scene.send(hook, &syn).reason, Reason::ForwardedToBackend);

        // More addresses serve more flows, to the last port.
        scene.sources = sources.to_vec();
        scene.apply(&[(&ends.vip, Udp, Maglev, &[&ends.backend])]);
        let mut from_the_other = BTreeSet::new();
        for n in 0..900_u16 {
            let ended = scene.send(hook, &packet(UDP, &ends.client(7, 1000 + n), &ends.vip));
            if ended.reason == Reason::ForwardedToBackend {
                assert!(from_the_other.insert(ended.frame().from), "{what}");
            }
            let found_all = from_the_other.len() == usize::from(n) + 1;
            assert!(found_all || n > 250, "{what} {n}: the first address has no port any more");
        }
        let ports: BTreeSet<u16> = from_the_other.iter().map(SocketAddr::port).collect();
        assert!(from_the_other.iter().all(|from| from.ip() == ends.ours[1]), "{what}");
        assert!(ports.len() > 480 && ports.iter().all(|port| *port >= 65_036), "{}", ports.len());
    }
}

#[test]
fn a_backend_has_as_many_addresses_as_a_list_may_name_and_each_is_used() {
    const MOST: usize = MAX_SOURCES_OF_BACKEND as usize;
    for (hook, ends) in each() {
        let what = format!("{hook:?} {:?}", ends.family);
        let sizes = Sizes { sources: 512, ..small() };
        let mut scene = Scene::with_sizes(sizes);
        let all: Vec<_> =
            (0..=MOST as u16).map(|n| source(ends.family.host(9, n), 1024, 65_535)).collect();
        scene.sources = all[..MOST].to_vec();
        let (vip, backends) = (&*ends.vip, [&*ends.backend]);
        scene.serve(vip, Udp, Maglev, &backends);
        let mut seen = BTreeSet::new();
        for n in 0..6000 {
            let ended = scene.send(hook, &packet(UDP, &ends.client(n / 1000, 1000 + n), vip));
            assert_eq!(ended.reason, Reason::ForwardedToBackend, "{what} {n}");
            seen.insert(ended.frame().from.ip());
        }
        assert!(seen.iter().copied().eq(all[..MOST].iter().map(|source| source.address)), "{what}");

        // One more is refused, and nothing of the table that asks for it is there.
        let first = scene.sources.clone();
        scene.sources = all;
        let other = &*ends.family.vip(3);
        let services =
            scene.services(&[(vip, Udp, Maglev, &backends), (other, Udp, Maglev, &backends)]);
        let refused = scene.get().apply(&Table { services }).unwrap_err().to_string();
        let says = format!("{} source addresses of a backend, {MOST} at most", MOST + 1);
        assert!(refused.contains(&says), "{what}: {refused}");
        assert_eq!(scene.get().audit(false).unwrap().differences(), 0, "{what}");
        let ended = scene.send(hook, &packet(UDP, &ends.client(7, 1000), other));
        assert_eq!(ended.reason, Reason::NoRoute, "{what}");
        let from = scene.send(hook, &packet(UDP, &ends.client(7, 1000), vip)).frame().from;
        assert!(first.iter().any(|source| source.address == from.ip()), "{what} {from}");
    }
}

#[test]
fn a_port_is_free_again_when_its_flow_is_gone() {
    for (hook, ends) in each() {
        let what = format!("{hook:?} {:?}", ends.family);
        let mut scene = ends.scene(&[source(ends.ours[0], 2000, 2000)]);
        let syn = packet(SYN, &ends.client, &ends.vip);
        let first = scene.send(hook, &syn).frame().from;
        assert_eq!(first, SocketAddr::new(ends.ours[0], 2000), "{what}");
        let other = packet(SYN, &ends.client(6, 40_000), &ends.vip);
        assert_eq!(scene.send(hook, &other).reason, Reason::NoSourcePort, "{what}");
        // The same client again: its old flow makes room.
        scene.send(hook, &packet(SYN_ACK, &ends.backend, &first.to_string()));
        scene.send(hook, &packet(ACK, &ends.client, &ends.vip));
        scene.send(hook, &packet(FIN, &ends.client, &ends.vip));
        scene.send(hook, &packet(FIN, &ends.backend, &first.to_string()));
        assert_eq!(scene.send(hook, &syn).reason, Reason::ForwardedToBackend, "{what}");
        assert_eq!(entries(&mut scene), 2, "{what}");
    }
}

#[test]
fn a_segment_of_no_flow_begins_none() {
    for (hook, ends) in each() {
        for algorithm in [Maglev, RoundRobin] {
            let mut scene = ends.scene(&[source(ends.ours[0], 2000, 2999)]);
            scene.serve(&ends.vip, Tcp, algorithm, &[&ends.backend]);
            let ended = scene.send(hook, &packet(ACK, &ends.client, &ends.vip));
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
        for (family, kinds) in FAMILIES.into_iter().zip(KINDS) {
            let ends = Ends::of(family);
            let (vip, client, backend) = (&*ends.vip, &*ends.client, &*ends.backend);
            let mut scene = ends.scene(&[source(ends.ours[0], 2000, 2999)]);
            let header = if family == Family::V4 { 20 } else { 40 };
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
                let sent = packet(first, client, vip);
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

                    let about = quote(&packet(answer, vip, client), len);
                    let ended = scene.send(hook, &error(client, vip, about));
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
    for (hook, ends) in each() {
        let mut scene = ends.scene(&[source(ends.ours[0], 2000, 2999)]);
        let syn = packet(SYN, &ends.client, &ends.vip);
        let before = scene.send(hook, &syn).frame().from;
        // A SYN that stays unanswered while a slow machine opens anew would begin another flow.
        scene.send(hook, &packet(SYN_ACK, &ends.backend, &before.to_string()));
        scene.open();
        scene.apply(&[(&ends.vip, Tcp, Maglev, &[&ends.backend])]);
        assert_eq!(scene.send(hook, &syn).frame().from, before, "{hook:?}");
        let other = packet(SYN, &ends.client(6, 40_000), &ends.vip);
        let other = scene.send(hook, &other).frame().from;
        assert!(other != before && other.ip() == before.ip(), "{hook:?} {other}");
    }
}

#[test]
fn flows_share_nine_of_ten_ports_without_a_refusal_on_whatever_cpu_they_begin() {
    let cpus = std::thread::available_parallelism().unwrap().get();
    for (hook, ends) in each() {
        let mut scene = ends.scene(&[source(ends.ours[0], 1024, 3023)]);
        let mut seen = BTreeSet::new();
        for n in 0..1800_u16 {
            // Runs of flows on one CPU and then on another: each meets what the other one used in a row.
            let mut cpu = CpuSet::new();
            cpu.set(usize::from(n / 450) % cpus).unwrap();
            sched_setaffinity(Pid::from_raw(0), &cpu).unwrap();
            let client = ends.client(5, 1000 + n);
            let ended = scene.send(hook, &packet(SYN, &client, &ends.vip));
            assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?} {n}");
            assert!(seen.insert(ended.frame().from), "{n}: twice {}", ended.frame().from);
            // Confirmed: half-open flows would make room for one another.
            let reply = packet(SYN_ACK, &ends.backend, &ended.frame().from.to_string());
            scene.send(hook, &reply);
            scene.send(hook, &packet(ACK, &client, &ends.vip));
        }
    }
}

#[test]
fn a_flow_that_is_as_good_as_over_makes_room_where_no_other_port_is_free() {
    let cases: &[(&[Carries], Carries, Option<u64>)] = &[
        (&[SYN, SYN_ACK, ACK], SYN, None),
        (&[SYN, SYN_ACK, ACK, FIN], SYN, None),
        (&[SYN, SYN_ACK, ACK, FIN, BACK_FIN], SYN, Some(10)),
        (&[SYN, SYN_ACK, ACK, BACK_RST], SYN, Some(10)),
        (&[SYN], SYN, Some(60)),
        (&[SYN, SYN_ACK], SYN, Some(60)),
        (&[UDP], UDP, Some(120)),
        (&[UDP, BACK_UDP], UDP, None),
    ];
    for (hook, ends) in each() {
        // A service and a backend for each: a port is free or not towards one backend.
        let both: Vec<_> = (0..cases.len() as u16)
            .map(|n| {
                let vip = SocketAddr::new(ends.ours[0], 80 + n).to_string();
                (vip, [ends.family.at(2, 9, 8080 + n)])
            })
            .collect();
        let lists: Vec<_> = both.iter().map(|(_, there)| [there[0].as_str()]).collect();
        let services = both.iter().zip(&lists).zip(cases).map(|(((vip, _), list), case)| {
            (vip.as_str(), if case.1 == UDP { Udp } else { Tcp }, Maglev, &list[..])
        });
        let mut scene = ends.scene(&[source(ends.ours[0], 2000, 2000)]);
        scene.apply(&services.collect::<Vec<_>>());
        let ours = SocketAddr::new(ends.ours[0], 2000).to_string();
        let other = ends.client(6, 40_000);
        for ((packets, first, rests), (vip, [backend])) in cases.iter().zip(&both) {
            let what = format!("{hook:?} {:?} {packets:?}", ends.family);
            for carries in *packets {
                let from_backend = [SYN_ACK, BACK_FIN, BACK_RST, BACK_UDP].contains(carries);
                let sent = if from_backend {
                    scene.send(hook, &packet(as_sent(*carries), backend, &ours))
                } else {
                    scene.send(hook, &packet(*carries, &ends.client, vip))
                };
                assert!(sent.reason.kind() == Kind::Forward, "{what}: {sent:?}");
            }
            let begins = |scene: &mut Scene| scene.send(hook, &packet(*first, &other, vip)).reason;
            assert_eq!(begins(&mut scene), Reason::NoSourcePort, "{what}: at once");
            scene.let_pass(seconds(rests.unwrap_or(3600)) - 2);
            assert_eq!(begins(&mut scene), Reason::NoSourcePort, "{what}: too early");
            scene.let_pass(2);
            let expected =
                if rests.is_some() { Reason::ForwardedToBackend } else { Reason::NoSourcePort };
            assert_eq!(begins(&mut scene), expected, "{what}");
            let flows = scene.get().flows(99);
            let clients: Vec<_> = flows
                .iter()
                .filter(|flow| flow.vip.to_string() == *vip)
                .map(|flow| flow.client.to_string())
                .collect();
            let client = if rests.is_some() { &other } else { &ends.client };
            assert_eq!(clients, [client.as_str()], "{what}");
        }
        let counters = scene.get().service_counters().unwrap();
        let flows = counters.values().flat_map(|s| &s.backends).map(|b| b.active + b.half_open);
        assert!(flows.eq(cases.iter().map(|_| 1)), "{hook:?}: flows are counted out");
    }
}

/// Begins a connection and closes it; where it came from.
fn open_and_close(scene: &mut Scene, hook: Hook, last: u16, ends: &Ends) -> String {
    let client = &ends.client(last, 40_000);
    let there = scene.send(hook, &packet(SYN, client, &ends.vip)).frame().from.to_string();
    scene.send(hook, &packet(SYN_ACK, &ends.backend, &there));
    scene.send(hook, &packet(ACK, client, &ends.vip));
    scene.send(hook, &packet(FIN, client, &ends.vip));
    scene.send(hook, &packet(FIN, &ends.backend, &there));
    there
}

#[test]
fn a_closed_flow_makes_room_only_where_no_address_has_a_free_port() {
    for (hook, ends) in each() {
        let what = format!("{hook:?} {:?}", ends.family);
        let mut scene = ends.scene(&ends.ours.map(|ours| source(ours, 2000, 2000)));
        let closed = open_and_close(&mut scene, hook, 1, &ends);
        scene.let_pass(seconds(10));
        let mut from = |last| {
            let sent = scene.send(hook, &packet(SYN, &ends.client(last, 40_000), &ends.vip));
            (sent.reason, sent.frame().from.to_string())
        };
        let (reason, free) = from(2);
        assert_eq!(reason, Reason::ForwardedToBackend, "{what}");
        assert_ne!(free, closed, "{what}: the other address has a free port");
        assert_eq!(from(3), (Reason::ForwardedToBackend, closed), "{what}");
        assert_eq!(from(4).0, Reason::NoSourcePort, "{what}");
    }
}

#[test]
fn the_one_closed_flow_of_eight_is_found() {
    for (hook, ends) in each() {
        let what = format!("{hook:?} {:?}", ends.family);
        let mut scene = ends.scene(&[source(ends.ours[0], 2000, 2007)]);
        let mut closed = String::new();
        for last in 1..=8 {
            if last == 4 {
                closed = open_and_close(&mut scene, hook, last, &ends);
                continue;
            }
            let client = ends.client(last, 40_000);
            let there = scene.send(hook, &packet(SYN, &client, &ends.vip)).frame().from;
            scene.send(hook, &packet(SYN_ACK, &ends.backend, &there.to_string()));
            scene.send(hook, &packet(ACK, &client, &ends.vip));
        }
        scene.let_pass(seconds(10));
        let sent = scene.send(hook, &packet(SYN, &ends.client(9, 40_000), &ends.vip));
        assert_eq!(sent.reason, Reason::ForwardedToBackend, "{what}");
        assert_eq!(sent.frame().from.to_string(), closed, "{what}");
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
