//! Services: what reaches a backend, what comes back, and what begins and ends a flow.

use std::collections::BTreeMap;

use lb_dataplane::table::Algorithm::{Maglev, RoundRobin};
use lb_dataplane::table::Protocol::{Tcp, Udp};
use lb_dataplane::{FlowFilter, FlowPlace, FlowState, Hook, Passed, Reason, Sizes};

use crate::family::{FAMILIES, Family, each};
use crate::frame::{ACK, Carries, ECHO, FIN, Frame, RST, RST_ACK, SYN, SYN_ACK, UDP, packet};
use crate::scene::{BACKEND_SIDE, BOTH, CLIENT_SIDE, Scene, small};

const VIP: &str = "192.0.2.1:80";
const CLIENT: &str = "10.1.0.5:40000";
const BACKEND: &str = "10.2.0.9:8080";

fn one_backend(protocol: lb_dataplane::table::Protocol) -> Scene {
    let mut scene = Scene::new();
    scene.serve(VIP, protocol, Maglev, &[BACKEND]);
    scene
}

#[test]
fn a_connection_is_translated_both_ways() {
    for hook in BOTH {
        let mut scene = one_backend(Tcp);
        let syn = packet(SYN, CLIENT, VIP);
        let sent = scene.send(hook, &syn);
        assert_eq!((sent.reason, sent.ifindex), (Reason::ForwardedToBackend, 8), "{hook:?}");
        let expected = Frame {
            destination_mac: BACKEND_SIDE.destination_mac.unwrap(),
            source_mac: BACKEND_SIDE.source_mac,
            to: BACKEND.parse().unwrap(),
            ttl: 63,
            ..syn
        };
        assert_eq!(sent.frame(), expected, "{hook:?}");

        let answer = packet(SYN_ACK, BACKEND, CLIENT);
        let back = scene.send(hook, &answer);
        assert_eq!((back.reason, back.ifindex), (Reason::ForwardedToClient, 7), "{hook:?}");
        let expected = Frame {
            destination_mac: CLIENT_SIDE.destination_mac.unwrap(),
            source_mac: CLIENT_SIDE.source_mac,
            from: VIP.parse().unwrap(),
            ttl: 63,
            ..answer
        };
        assert_eq!(back.frame(), expected, "{hook:?}");
        assert_eq!(scene.send(hook, &packet(ACK, CLIENT, VIP)).frame().to, expected_backend());
    }
}

fn expected_backend() -> std::net::SocketAddr {
    BACKEND.parse().unwrap()
}

#[test]
fn every_length_and_ip_options_keep_checksums_right() {
    for hook in BOTH {
        let mut scene = one_backend(Tcp);
        for len in [0, 1, 2, 3, 7, 64, 513, 1400, 1440] {
            for options in [vec![], vec![1; 4], vec![1; 20]] {
                let frame = Frame { options, ..packet(ACK, CLIENT, VIP).payload(len) };
                let ended = scene.send(hook, &frame);
                assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?} {len}");
                assert_eq!(ended.frame().options, frame.options);
                assert_eq!(ended.frame().payload, frame.payload);
            }
        }
    }
}

#[test]
fn datagrams_are_translated_and_none_for_a_checksum_stays_none() {
    for hook in BOTH {
        let mut scene = one_backend(Udp);
        for checksum in [true, false] {
            let carries = Carries::Udp { checksum };
            let there = scene.send(hook, &packet(carries, CLIENT, VIP));
            assert_eq!(there.reason, Reason::ForwardedToBackend);
            assert_eq!(there.frame().carries, carries, "{hook:?}");
            assert_eq!(there.frame().to, expected_backend());
            let back = scene.send(hook, &packet(carries, BACKEND, CLIENT));
            assert_eq!(back.reason, Reason::ForwardedToClient);
            assert_eq!(back.frame().carries, carries, "{hook:?}");
        }
    }
}

#[test]
fn a_udp_checksum_that_comes_out_as_zero_is_sent_as_ones() {
    for (hook, family) in each() {
        let [vip, client, backend] = &family.ends();
        let mut scene = Scene::new();
        scene.serve(vip, Udp, Maglev, &[backend]);
        let at = if family == Family::V4 { 14 + 20 + 6 } else { 14 + 40 + 6 };
        // Of 65,536 values of two payload bytes, one makes the translated checksum zero.
        let found = (0..=u16::MAX).find(|n| {
            let payload = n.to_be_bytes().to_vec();
            let after = Frame { payload, ..packet(UDP, client, backend) }.bytes();
            after[at..at + 2] == [0xff, 0xff]
        });
        let payload = found.unwrap().to_be_bytes().to_vec();
        let ended = scene.send(hook, &Frame { payload, ..packet(UDP, client, vip) });
        assert_eq!(ended.bytes()[at..at + 2], [0xff, 0xff], "{hook:?} {family:?}");
    }
}

#[test]
fn round_robin_gives_each_backend_its_turn_and_maglev_remembers() {
    let syn = |family: Family, port| packet(SYN, &family.at(1, 5, port), &family.vip(1));
    let scene = |family: Family, algorithm| {
        let mut scene = Scene::new();
        let backends = [1, 2, 3].map(|last| family.at(2, last, 80));
        let backends = backends.each_ref().map(String::as_str);
        scene.serve(&family.vip(1), Tcp, algorithm, &backends);
        scene
    };
    for (hook, family) in each() {
        let mut scene = scene(family, RoundRobin);
        let mut turns = BTreeMap::new();
        for port in 1000..1300 {
            let syn = syn(family, port);
            let first = scene.send(hook, &syn).frame().to;
            let again = scene.send(hook, &syn).frame().to;
            assert_eq!(first, again, "a retransmitted SYN goes where the first one went");
            *turns.entry(first).or_insert(0) += 1;
        }
        let turns: Vec<_> = turns.values().copied().collect();
        assert_eq!(turns, [100, 100, 100], "{hook:?} {family:?}");
    }

    // The same flow gets the same backend on both hooks of two dataplanes that know nothing of each other.
    for family in FAMILIES {
        let choices = BOTH.map(|hook| {
            let mut scene = scene(family, Maglev);
            let to = |port| scene.send(hook, &syn(family, port)).frame().to;
            (1000..1300).map(to).collect::<Vec<_>>()
        });
        assert_eq!(choices[0], choices[1], "{family:?}");
    }
}

#[test]
fn a_segment_of_no_flow_begins_one_under_maglev_only() {
    let mut scene = Scene::new();
    let mut ports = 41_000..;
    for (hook, family) in each() {
        let [vip, _, backend] = &family.ends();
        for (algorithm, carries, reason) in [
            (Maglev, ACK, Reason::ForwardedToBackend),
            (Maglev, FIN, Reason::ForwardedToBackend),
            (Maglev, RST, Reason::UnknownFlow),
            (Maglev, SYN_ACK, Reason::UnknownFlow),
            (RoundRobin, SYN, Reason::ForwardedToBackend),
            (RoundRobin, ACK, Reason::UnknownFlow),
            (RoundRobin, RST, Reason::UnknownFlow),
        ] {
            scene.serve(vip, Tcp, algorithm, &[backend]);
            let client = family.at(1, 5, ports.next().unwrap());
            let ended = scene.send(hook, &packet(carries, &client, vip));
            assert_eq!(ended.reason, reason, "{hook:?} {family:?} {algorithm:?} {carries:?}");
        }
    }
}

#[test]
fn a_syn_on_a_closed_flow_begins_anew_and_one_on_a_live_flow_does_not() {
    for (hook, family) in each() {
        let [vip, client, backend] = &family.ends();
        let other = &family.at(2, 10, 8080);
        for end in [
            &[(FIN, client, vip), (FIN, backend, client)][..],
            &[(FIN, backend, client), (FIN, client, vip)],
            &[(RST_ACK, backend, client)],
        ] {
            let what = format!("{hook:?} {end:?}");
            let mut scene = Scene::new();
            scene.serve(vip, Tcp, RoundRobin, &[backend]);
            scene.send(hook, &packet(SYN, client, vip));
            scene.send(hook, &packet(SYN_ACK, backend, client));
            scene.serve(vip, Tcp, RoundRobin, &[&format!("draining {backend}"), other]);
            let live = scene.send(hook, &packet(SYN, client, vip));
            assert_eq!(live.frame().to.to_string(), *backend, "{what}: live");
            for (carries, from, to) in end {
                scene.send(hook, &packet(*carries, from, to));
            }
            let anew = scene.send(hook, &packet(SYN, client, vip));
            assert_eq!(anew.frame().to.to_string(), *other, "{what}");
            let entries = scene.entries().len() + scene.entries6().len();
            assert_eq!(entries, 2, "{what}: the old flow's entries are gone");
        }
    }
}

#[test]
fn a_full_table_refuses_new_flows_and_keeps_the_old_ones() {
    for (hook, family) in each() {
        let [vip, _, backend] = &family.ends();
        let sizes = Sizes { flow_entries: 64, flow_entries6: 64, ..small() };
        let mut scene = Scene::with_sizes(sizes);
        scene.serve(vip, Udp, Maglev, &[backend]);
        // A datagram, its answer, and another: none of these flows is half-open.
        let mut talk = |n: u16| {
            let client = family.at(1, 5, 1000 + n);
            let reason = scene.send(hook, &packet(UDP, &client, vip)).reason;
            scene.send(hook, &packet(UDP, backend, &client));
            scene.send(hook, &packet(UDP, &client, vip));
            reason
        };
        assert_eq!(talk(0), Reason::ForwardedToBackend);
        let reasons: Vec<_> = (1..64).map(&mut talk).collect();
        assert!(reasons.contains(&Reason::FlowTableFull), "{hook:?} {family:?}: {reasons:?}");
        assert_eq!(talk(0), Reason::ForwardedToBackend, "{hook:?} {family:?}");
        let entries = scene.entries().len() + scene.entries6().len();
        assert_eq!(entries % 2, 0, "{hook:?} {family:?}: no half flow");
        assert!(scene.count(Reason::FlowTableFull) > 0);
    }
}

#[test]
fn one_client_port_through_two_vips_to_one_backend_collides() {
    for (hook, family) in each() {
        let [vip, client, backend] = &family.ends();
        let (mut scene, other) = (Scene::new(), &family.vip(2));
        scene.apply(&[(vip, Tcp, Maglev, &[backend]), (other, Tcp, Maglev, &[backend])]);
        scene.send(hook, &packet(SYN, client, vip));
        let second = scene.send(hook, &packet(SYN, client, other));
        assert_eq!(second.reason, Reason::FlowCollision, "{hook:?} {family:?}");
        // Anybody may have had the backend say so, and keep its connection.
        scene.send(hook, &packet(RST, backend, client));
        let after = scene.send(hook, &packet(SYN, client, other));
        assert_eq!(after.reason, Reason::FlowCollision, "{hook:?} {family:?}");
        scene.send(hook, &packet(RST_ACK, backend, client));
        let after = scene.send(hook, &packet(SYN, client, other));
        assert_eq!(after.reason, Reason::ForwardedToBackend, "{hook:?}: the first one has closed");
        let back = scene.send(hook, &packet(ACK, backend, client)).frame();
        assert_eq!(back.from.to_string(), *other, "{hook:?} {family:?}");
    }
}

#[test]
fn an_echo_request_to_a_vip_is_answered_in_place() {
    for hook in BOTH {
        let mut scene = one_backend(Tcp);
        let request = packet(ECHO, "10.1.0.5:77", "192.0.2.1:0").ttl(3).payload(57);
        let reply = scene.send(hook, &request);
        assert_eq!(reply.reason, Reason::EchoAnswered, "{hook:?}");
        let expected = Frame {
            destination_mac: request.source_mac,
            source_mac: request.destination_mac,
            from: "192.0.2.1:77".parse().unwrap(),
            to: "10.1.0.5:0".parse().unwrap(),
            carries: Carries::Icmp { kind: 0, code: 0 },
            ttl: 64,
            ..request
        };
        assert_eq!(reply.frame(), expected, "{hook:?}");
    }
}

#[test]
fn nothing_of_a_service_is_passed_on_as_it_came() {
    for hook in BOTH {
        let mut scene = Scene::new();
        scene.serve(VIP, Tcp, Maglev, &[]);
        let ended = scene.send(hook, &packet(SYN, CLIENT, VIP));
        assert_eq!(ended.reason, Reason::NoBackend, "{hook:?}");
        scene.serve(VIP, Tcp, Maglev, &[BACKEND]);
        for (fragment, from) in [(0x2000, "10.1.0.6:0"), (0x00b9, CLIENT), (0x20b9, CLIENT)] {
            let carries = if fragment == 0x2000 { Carries::Other(17) } else { ACK };
            let ended = scene.send(hook, &Frame { fragment, ..packet(carries, from, VIP) });
            let is_first = fragment == 0x2000;
            let expected = if is_first { Reason::FragmentToVip } else { Reason::FragmentKept };
            assert_eq!(ended.reason, expected, "{hook:?}");
        }
        let ended = scene.send(hook, &packet(SYN, CLIENT, VIP).ttl(1));
        assert_eq!(ended.reason, Reason::FlowTtlExpired, "{hook:?}");
        let mut short = packet(SYN, CLIENT, VIP).payload(0).bytes();
        short.truncate(14 + 20 + 12);
        assert_eq!(scene.send_bytes(hook, &short, None).reason, Reason::Malformed, "{hook:?}");
    }
}

#[test]
fn counters_say_what_went_where() {
    for hook in BOTH {
        let mut scene = one_backend(Tcp);
        let frame = packet(SYN, CLIENT, VIP);
        scene.send(hook, &frame);
        let reply = packet(SYN_ACK, BACKEND, CLIENT);
        scene.send(hook, &reply);
        scene.send(hook, &packet(ACK, CLIENT, VIP));
        let counters = scene.get().service_counters().unwrap();
        let (key, count) = counters.into_iter().next().unwrap();
        assert_eq!((key.address.to_string(), key.port), ("192.0.2.1".to_owned(), 80));
        let there = Passed { packets: 2, bytes: 2 * frame.bytes().len() as u64 };
        let back = Passed { packets: 1, bytes: reply.bytes().len() as u64 };
        let counted = (count.to_backend, count.to_client, count.flows);
        assert_eq!(counted, (there, back, 1), "{hook:?}");
        let backend = count.backends[0];
        assert_eq!((backend.to_backend, backend.to_client, backend.flows), (there, back, 1));
        assert_eq!((backend.address.to_string(), backend.port), ("10.2.0.9".to_owned(), 8080));
        assert_eq!(scene.count(Reason::ForwardedToBackend), 2);
        assert_eq!(scene.count(Reason::ForwardedToClient), 1);

        let flows = scene.get().flows(10);
        assert_eq!(flows.len(), 1, "one flow, not one per direction");
        let flow = flows[0];
        assert_eq!(
            (flow.client.to_string(), flow.vip.to_string(), flow.backend.to_string()),
            (CLIENT.to_owned(), VIP.to_owned(), BACKEND.to_owned())
        );
        assert!(flow.idle.as_secs() < 60, "{:?}", flow.idle);
    }
}

#[test]
fn a_list_is_of_the_flows_that_are_asked_for_page_by_page() {
    let other = "192.0.2.2:443";
    let mut scene = Scene::with_sizes(Sizes { flow_entries: 16_384, ..small() });
    let backends: [&[&str]; 2] = [&[BACKEND], &["10.2.0.10:8443"]];
    scene.apply(&[
        (VIP, Tcp, Maglev, backends[0]),
        (VIP, Udp, Maglev, backends[0]),
        (other, Tcp, Maglev, backends[1]),
    ]);
    for number in 0..200 {
        let client = format!("10.1.{}.5:{}", number % 2, 40_000 + number);
        scene.send(Hook::Tc, &packet(SYN, &client, VIP));
        scene.send(Hook::Tc, &packet(UDP, &client, VIP));
        scene.send(Hook::Tc, &packet(SYN, &client.replace(":4", ":5"), other));
        if number < 50 {
            scene.send(Hook::Tc, &packet(SYN_ACK, BACKEND, &client));
            scene.send(Hook::Tc, &packet(ACK, &client, VIP));
        }
        if number < 20 {
            scene.send(Hook::Tc, &packet(FIN, &client, VIP));
        }
    }
    let at = |text: &str, ports| Some((text.parse().unwrap(), ports));
    let all = FlowFilter::default();
    let closing = FlowFilter { state: Some(FlowState::Closing), ..all.clone() };
    let cases = [
        (all.clone(), 600),
        (FlowFilter { client: Some("10.1.1.0/24".parse().unwrap()), ..all.clone() }, 300),
        (FlowFilter { vip: at("192.0.2.2", 1..=65_535), ..all.clone() }, 200),
        (FlowFilter { vip: at("192.0.2.2", 1..=442), ..all.clone() }, 0),
        (FlowFilter { backend: at("10.2.0.9", 8080..=8080), ..all.clone() }, 400),
        (FlowFilter { protocol: Some(Udp), ..all.clone() }, 200),
        (FlowFilter { state: Some(FlowState::Established), ..all.clone() }, 30),
        (FlowFilter { protocol: Some(Udp), ..closing.clone() }, 0),
        (closing, 20),
    ];
    for (filter, count) in cases {
        for limit in [1, 7, 1000] {
            let (mut told, mut place) = (Vec::new(), Some(FlowPlace::default()));
            while let Some(from) = place {
                let (flows, next) = scene.get().flow_page(from, limit, &filter);
                assert!(flows.len() <= limit && flows.iter().all(|flow| filter.takes(flow)));
                told.extend(flows.iter().map(|flow| (flow.client, flow.vip, flow.protocol)));
                place = next;
            }
            told.sort_unstable();
            told.dedup();
            assert_eq!(told.len(), count, "{filter:?}, {limit} a page");
        }
    }
}

#[test]
fn pages_have_each_flow_once_while_others_begin_and_end() {
    let mut scene = one_backend(Tcp);
    let client = |number: u16| format!("10.1.0.5:{}", 40000 + number);
    for number in 0..300 {
        scene.send(Hook::Tc, &packet(SYN, &client(number), VIP));
        scene.send(Hook::Tc, &packet(SYN_ACK, BACKEND, &client(number)));
        scene.send(Hook::Tc, &packet(ACK, &client(number), VIP));
    }
    for limit in [1, 2, 7, 1000] {
        let (mut told, mut place, mut pages) = (Vec::new(), FlowPlace::default(), 0);
        loop {
            let (flows, next) = scene.get().flow_page(place, limit, &FlowFilter::default());
            assert!(flows.len() <= limit && (next.is_none() || !flows.is_empty()));
            told.extend(flows.iter().map(|flow| flow.client.to_string()));
            let Some(next) = next else { break };
            // As a client has it.
            place = next.to_string().parse().unwrap();
            pages += 1;
            // One begins, of which nobody says on which page it is.
            scene.send(Hook::Tc, &packet(SYN, &format!("10.1.0.6:{}", 40000 + pages % 50), VIP));
        }
        told.retain(|client| client.starts_with("10.1.0.5:"));
        told.sort();
        let all: Vec<_> = (0..300).map(client).collect();
        assert_eq!(told, all, "{limit}");
    }
}

#[test]
fn merged_segments_are_measured_by_segment_at_tc() {
    let mut scene = one_backend(Tcp);
    let frame = packet(ACK, CLIENT, VIP).payload(2900).bytes();
    let ended = scene.send_bytes(Hook::Tc, &frame, None);
    assert_eq!(ended.reason, Reason::FlowToBeFragmented, "2,940 bytes in one packet");
    assert_eq!(ended.frame().to, expected_backend(), "rewritten for the kernel");
    // `gso_segs` and `gso_size` of `struct __sk_buff`.
    let mut context = [0_u8; 192];
    context[164..168].copy_from_slice(&2_u32.to_ne_bytes());
    context[176..180].copy_from_slice(&1450_u32.to_ne_bytes());
    let ended = scene.send_bytes(Hook::Tc, &frame, Some(&context));
    assert_eq!(ended.reason, Reason::ForwardedToBackend, "1,490 bytes in each of two");
    assert_eq!(ended.frame().to, expected_backend());
}
