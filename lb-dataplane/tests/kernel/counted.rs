//! What services and their backends have counted, whatever becomes of the backends.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use aya::maps::{Array, Map, MapData};
use lb_dataplane::table::Algorithm::{Maglev, RoundRobin};
use lb_dataplane::table::Protocol::{Tcp, Udp};
use lb_dataplane::table::Table;
use lb_dataplane::{Hook, Reason, ServiceCount, seconds};

use lb_dataplane_common::tables::COUNTED_TOGETHER;

use crate::family::{FAMILIES, Family, each};
use crate::frame::{ACK, Carries, RST_ACK, SYN, SYN_ACK, UDP, packet};
use crate::scene::{BOTH, Scene, small};

/// VIPs that come one after the other, and a backend each.
fn turns(family: Family) -> [(String, String); 4] {
    [1, 2, 3, 4].map(|n| (family.vip(n), family.at(2, n, 80)))
}

const VIP: &str = "192.0.2.1:80";

fn counted(scene: &mut Scene, protocol: lb_dataplane::table::Protocol, vip: &str) -> ServiceCount {
    let counters = scene.get().service_counters().unwrap();
    let is_it = |key: &lb_dataplane::table::ServiceKey| {
        key.protocol == protocol && key.address == vip.parse::<SocketAddr>().unwrap().ip()
    };
    counters.into_iter().find(|(key, _)| is_it(key)).unwrap().1
}

fn sends(scene: &mut Scene, carries: Carries, port: u16, vip: &str) {
    let family = if vip.starts_with('[') { Family::V6 } else { Family::V4 };
    let hook = BOTH[usize::from(port % 2)];
    let ended = scene.send(hook, &packet(carries, &family.at(1, 5, port), vip));
    assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?}, port {port}");
}

/// What `SERVICE_COUNTS` has of a service: the words of what it keeps.
fn kept(scene: &mut Scene) -> Array<&mut MapData, [u64; 8]> {
    scene.get().map_mut("SERVICE_COUNTS").unwrap().try_into().unwrap()
}

#[test]
fn a_services_counters_are_exact_though_backends_leave_and_others_get_their_ids() {
    // Twice as many backends as there are ids, one after the other, and at times another process.
    let rounds = 2 * small().backends as u16;
    let talks = [(Tcp, SYN, Some(ACK)), (Udp, UDP, None)];
    for (family, (protocol, first, later)) in
        FAMILIES.into_iter().flat_map(|family| talks.map(|talk| (family, talk)))
    {
        let [(vip, _), (other, _), ..] = &turns(family);
        let (vip, other) = (vip.as_str(), other.as_str());
        let others = [&*family.at(2, 1, 81)];
        let mut scene = Scene::new();
        let mut sent = 0;
        for n in 0..rounds {
            let backend = family.at(2, 2 + n % 200, 80);
            let backends = [backend.as_str()];
            if n % 30 == 29 {
                scene.open();
            }
            if n % 8 == 7 {
                // What is silent is over, and ids are free for others.
                scene.let_pass(seconds(300));
            }
            scene.apply(&[(vip, protocol, Maglev, &backends), (other, Tcp, Maglev, &others)]);
            sends(&mut scene, first, 10_000 + n, vip);
            sent += 1;
            if n == 0 {
                sends(&mut scene, SYN, 9_000, other);
            }
            // A connection to a backend that has left goes on; datagrams' flows end with the backend.
            if let Some(later) = later {
                sends(&mut scene, later, 10_000, vip);
                sent += 1;
            }
            if n % 8 == 7 {
                scene.age();
            }
            let count = counted(&mut scene, protocol, vip);
            let expected = (u64::from(n) + 1, sent);
            assert_eq!((count.flows, count.to_backend.packets), expected, "{family:?} round {n}");
            let bytes = count.to_backend.bytes;
            assert_eq!(bytes % sent, 0, "all are of one length: {bytes}");
            assert_eq!(counted(&mut scene, Tcp, other).flows, 1);
        }
        let keeps = (0..2).map(|id| kept(&mut scene).get(&id, 0).unwrap()[4]);
        assert!(keeps.sum::<u64>() > u64::from(rounds) / 4, "ids went to others");

        // A new service begins at zero, whoever had its id.
        for _ in 0..small().services {
            scene.apply(&[(other, Tcp, Maglev, &others)]);
            let new =
                [(other, Tcp, Maglev, &others[..]), (vip, Udp, Maglev, &[&family.at(2, 9, 80)])];
            scene.apply(&new);
            assert_eq!(counted(&mut scene, Udp, vip).flows, 0);
        }
        assert_eq!(counted(&mut scene, Tcp, other).flows, 1);
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

    // The first backend's id and the service's are 0, and its line is the first. It has written the sum, and not yet that the backend is nobody's.
    let lines: Array<_, [u64; 8]> =
        scene.get().map_mut("BACKEND_COUNTS").unwrap().try_into().unwrap();
    let mut sum = [0_u64; 8];
    for cpu in 0..lines.len() / COUNTED_TOGETHER {
        let line = lines.get(&(cpu * COUNTED_TOGETHER + 1), 0).unwrap();
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

/// By id its line, each of which is its own and says so.
fn lines(scene: &mut Scene) -> Vec<u32> {
    let backends: Array<_, [u32; 16]> =
        scene.get().map_mut("BACKENDS").unwrap().try_into().unwrap();
    let lines: Vec<u32> = backends.iter().map(|entry| entry.unwrap()[14]).collect();
    let whose: Array<_, [u32; 2]> = scene.get().map_mut("LINES").unwrap().try_into().unwrap();
    for (id, line) in (0..).zip(&lines).filter(|(_, line)| **line != 0) {
        assert_eq!(whose.get(line, 0).unwrap()[0], id, "line {line}");
    }
    lines
}

#[test]
fn backends_that_cpus_begin_flows_to_at_once_are_counted_in_a_line_each_that_their_ids_keep() {
    const FLOWS: u16 = 240;
    let cpus = u32::try_from(aya::util::nr_cpus().unwrap()).unwrap();
    for hook in BOTH {
        let mut scene = Scene::new();
        let mut had = vec![0; small().backends as usize];
        for round in 0..4 {
            let backends: Vec<_> = (1..=60).map(|n| format!("10.2.{round}.{n}:80")).collect();
            let backends: Vec<_> = backends.iter().map(String::as_str).collect();
            scene.serve(VIP, Udp, RoundRobin, &backends);
            let before = counted(&mut scene, Udp, VIP);
            assert!(before.backends.iter().all(|of| of.flows + of.to_backend.packets == 0));
            // Of each CPU's turns some are at a backend that the other one is at, too.
            let of = |from: u16| (from..from + FLOWS).map(|port| format!("10.1.0.5:{port}"));
            let frames = |from| of(from).map(|client| packet(UDP, &client, VIP)).collect();
            let first = 10_000 + round * FLOWS;
            let came = scene.send_at_once(hook, &[frames(first), frames(first + 10_000)]);
            if round == 1 {
                scene.open();
            }
            let mut flows = BTreeMap::<_, u64>::new();
            came.iter().for_each(|frame| *flows.entry(frame.to).or_default() += 1);
            let count = counted(&mut scene, Udp, VIP);
            assert_eq!(count.flows, 2 * u64::from(FLOWS), "{hook:?} {round}");
            for of in &count.backends {
                let sent = flows[&(of.address, of.port).into()];
                let told = [of.flows, of.to_backend.packets, of.half_open];
                assert_eq!(told, [sent; 3], "{hook:?} {round} {}", of.address);
            }
            let have = lines(&mut scene);
            for (has, had) in have.iter().zip(&had).filter(|(_, had)| **had != 0) {
                assert_eq!(has, had, "{hook:?} {round}");
            }
            assert!(have.iter().all(|line| *line <= small().backends + cpus), "{have:?}");
            had = have;
            // All ids are free for others.
            scene.apply(&[]);
            scene.let_pass(seconds(300));
            scene.age();
        }
    }
}

/// Has a connection open between a client and a turn's backend.
fn connect(
    scene: &mut Scene,
    hook: Hook,
    client: &str,
    (vip, backend): &(String, String),
) -> Reason {
    let begun = scene.send(hook, &packet(SYN, client, vip)).reason;
    if begun != Reason::ForwardedToBackend {
        return begun;
    }
    scene.send(hook, &packet(SYN_ACK, backend, client));
    scene.send(hook, &packet(ACK, client, vip)).reason
}

#[test]
fn who_comes_inherits_nothing_from_flows_of_who_is_gone_and_waits_for_these_where_all_ids_are_theirs()
 {
    let [services, backends] = [(1, 64, "max_services"), (32, 2, "max_backends")];
    // Each with both hooks and both families.
    for ((hook, family), (services, backends, setting)) in
        each().zip([services, backends, backends, services])
    {
        let (turns, client) = (turns(family), |port| family.at(1, 5, port));
        for bounds in [[1, 0, 0], [0, 1, 0], [0, 0, 1]] {
            let what = format!("{hook:?} {family:?} {setting} {bounds:?}");
            let mut scene = Scene::with(|options| {
                (options.sizes.services, options.sizes.backends) = (services, backends);
            });
            scene.bounds = bounds;
            let serve = |scene: &mut Scene, turn: usize| {
                let (vip, backend) = &turns[turn];
                let services = scene.services(&[(vip, Tcp, Maglev, &[backend])]);
                scene.get().apply(&Table { services }).map_err(|error| error.to_string())
            };
            let connects = |scene: &mut Scene, turn: usize, port: u16| {
                connect(scene, hook, &client(port), &turns[turn]) == Reason::ForwardedToBackend
            };
            // The second one has no flow, and its ids are free once it is gone.
            for (turn, begins) in [(0, true), (1, false), (2, true)] {
                scene.apply(&[]);
                assert_eq!(serve(&mut scene, turn), Ok(()), "{what} {turn}");
                if begins {
                    assert!(connects(&mut scene, turn, 10_000 + turn as u16), "{what} {turn}");
                }
            }
            let refused = serve(&mut scene, 3).unwrap_err();
            assert!(refused.contains(setting) && refused.contains("flows"), "{what}: {refused}");
            assert!(!connects(&mut scene, 2, 10_009), "{what}");
            scene.open();
            assert!(serve(&mut scene, 3).is_err(), "{what}: another process knows");
            let goes_on = scene.send(hook, &packet(ACK, &client(10_000), &turns[0].0)).reason;
            assert_eq!(goes_on, Reason::ForwardedToBackend, "{what}");
            scene.send(hook, &packet(RST_ACK, &turns[0].1, &client(10_000)));
            assert!(serve(&mut scene, 3).is_err(), "{what}: late segments may come");
            scene.let_pass(seconds(300));
            scene.send(hook, &packet(ACK, &client(10_002), &turns[2].0));
            scene.age();
            assert_eq!(serve(&mut scene, 3), Ok(()), "{what}");
            let count = counted(&mut scene, Tcp, &turns[3].0);
            let nothing = ServiceCount { backends: count.backends.clone(), ..Default::default() };
            assert_eq!(count, nothing, "{what}");
            assert!(connects(&mut scene, 3, 10_003), "{what}");
            assert!(!connects(&mut scene, 3, 10_004), "{what}");
        }
    }
}

/// More numbers than there may be are never given out: it would be a fault, and no flow's counts go to another backend's line.
#[test]
fn where_no_line_is_left_a_flow_begins_nowhere_and_those_with_lines_go_on() {
    for (hook, family) in each() {
        let [(vip, backend), (other, its), ..] = &turns(family);
        let mut scene = Scene::new();
        scene.apply(&[(vip, Tcp, Maglev, &[backend]), (other, Tcp, Maglev, &[its])]);
        let client = |port| family.at(1, 5, port);
        let begins = |scene: &mut Scene, port: u16, vip: &str| {
            scene.send(hook, &packet(SYN, &client(port), vip)).reason
        };
        assert_eq!(begins(&mut scene, 10_000, vip), Reason::ForwardedToBackend);
        let have = lines(&mut scene);
        let entries = |scene: &mut Scene| scene.entries().len() + scene.entries6().len();
        // All there are, and all that a number can say.
        let all = scene.get().map_mut("LINES").unwrap();
        let Map::Array(all) = all else { panic!("{all:?}") };
        let all = u64::from(all.info().unwrap().max_entries());
        let before = last_line(&mut scene).get(&0, 0).unwrap();
        for (given, port) in [(all - 1, 10_002), (u64::from(u32::MAX), 10_003)] {
            let what = format!("{hook:?} {family:?} {given}");
            last_line(&mut scene).set(0, given, 0).unwrap();
            let had = entries(&mut scene);
            assert_eq!(begins(&mut scene, 10_001, other), Reason::TableFault, "{what}");
            assert_eq!(lines(&mut scene), have, "{what}");
            assert_eq!(entries(&mut scene), had, "{what}: nothing of it");
            let goes_on = scene.send(hook, &packet(ACK, &client(10_000), vip)).reason;
            assert_eq!(goes_on, Reason::ForwardedToBackend, "{what}");
            assert_eq!(begins(&mut scene, port, vip), Reason::ForwardedToBackend, "{what}");
        }
        last_line(&mut scene).set(0, before, 0).unwrap();
        assert_eq!(begins(&mut scene, 10_001, other), Reason::ForwardedToBackend);
        assert_eq!(counted(&mut scene, Tcp, other).flows, 1, "{hook:?} {family:?}");
        assert_eq!(counted(&mut scene, Tcp, vip).flows, 3, "{hook:?} {family:?}");
    }
}

/// The number that was given out last.
fn last_line(scene: &mut Scene) -> Array<&mut MapData, u64> {
    scene.get().map_mut("LAST_LINE").unwrap().try_into().unwrap()
}
