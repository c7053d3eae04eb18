//! Services: what reaches a backend, what comes back, and what begins and ends a flow.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::slice::from_ref;

use ipnetwork::IpNetwork;
use lb_dataplane::table::Algorithm::{Maglev, RoundRobin};
use lb_dataplane::table::Protocol::{self, Tcp, Udp};
use lb_dataplane::{FlowFilter, FlowPlace, FlowState, Hook, Passed, Reason, Sizes, seconds};

use crate::family::{FAMILIES, Family, each};
use crate::frame::{
    ACK, Carries, ECHO, ECHO6, FIN, Frame, RST, RST_ACK, SYN, SYN_ACK, UDP, packet,
};
use crate::routed::routed;
use crate::scene::{BACKEND_SIDE, BOTH, CLIENT_SIDE, Scene, small};

fn one_backend(family: Family, protocol: Protocol) -> Scene {
    let [vip, _, backend] = &family.ends();
    let mut scene = Scene::new();
    scene.serve(vip, protocol, Maglev, &[backend]);
    scene
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn a_connection_is_translated_both_ways() {
    for (hook, family) in each() {
        let [vip, client, backend] = &family.ends();
        let mut scene = one_backend(family, Tcp);
        let syn = packet(SYN, client, vip);
        let sent = scene.send(hook, &syn);
        assert_eq!((sent.reason, sent.ifindex), (Reason::ForwardedToBackend, 8), "{hook:?}");
        let expected = Frame { to: address(backend), ..routed(&syn, &BACKEND_SIDE) };
        assert_eq!(sent.frame(), expected, "{hook:?} {family:?}");

        let answer = packet(SYN_ACK, backend, client);
        let back = scene.send(hook, &answer);
        assert_eq!((back.reason, back.ifindex), (Reason::ForwardedToClient, 7), "{hook:?}");
        let expected = Frame { from: address(vip), ..routed(&answer, &CLIENT_SIDE) };
        assert_eq!(back.frame(), expected, "{hook:?} {family:?}");
        let next = scene.send(hook, &packet(ACK, client, vip)).frame();
        assert_eq!(next.to, address(backend), "{hook:?} {family:?}");
    }
}

#[test]
fn every_length_and_ip_options_keep_checksums_right() {
    for (hook, family) in each() {
        let [vip, client, _] = &family.ends();
        let mut scene = one_backend(family, Tcp);
        for len in [0, 1, 2, 3, 7, 64, 513, 1400, 1420] {
            for options in [vec![], vec![1; 8], vec![1; if family == Family::V4 { 20 } else { 16 }]]
            {
                let frame = Frame { options, ..packet(ACK, client, vip).payload(len) };
                let ended = scene.send(hook, &frame);
                assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?} {family:?} {len}");
                assert_eq!(ended.frame().options, frame.options);
                assert_eq!(ended.frame().payload, frame.payload);
            }
        }
    }
}

#[test]
fn datagrams_are_translated_and_none_for_a_checksum_stays_none() {
    for (hook, family) in each() {
        let [vip, client, backend] = &family.ends();
        let mut scene = one_backend(family, Udp);
        for checksum in [true, false] {
            let carries = Carries::Udp { checksum };
            let there = scene.send(hook, &packet(carries, client, vip));
            assert_eq!(there.reason, Reason::ForwardedToBackend, "{hook:?} {family:?}");
            assert_eq!(there.frame().carries, carries, "{hook:?} {family:?}");
            assert_eq!(there.frame().to, address(backend));
            let back = scene.send(hook, &packet(carries, backend, client));
            assert_eq!(back.reason, Reason::ForwardedToClient, "{hook:?} {family:?}");
            assert_eq!(back.frame().carries, carries, "{hook:?} {family:?}");
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
fn flows_end_and_begin_anew() {
    for (hook, family) in each() {
        let [vip, client, _] = &family.ends();
        let mut scene = Scene::new();
        scene.serve(vip, Tcp, RoundRobin, &[&family.at(2, 1, 80), &family.at(2, 2, 80)]);
        let to = |scene: &mut Scene, carries| scene.send(hook, &packet(carries, client, vip));
        let first = to(&mut scene, SYN).frame().to;
        assert_eq!(to(&mut scene, SYN).frame().to, first, "a retransmission");
        scene.send(hook, &packet(RST_ACK, &first.to_string(), client));
        assert_ne!(to(&mut scene, SYN).frame().to, first, "a new connection has its own turn");
        assert_eq!(to(&mut scene, FIN).reason, Reason::ForwardedToBackend);
        to(&mut scene, RST);
        scene.let_pass(seconds(60));
        assert_eq!(scene.age().0, 1, "{hook:?} {family:?}: both directions as one");
        assert_eq!(scene.entries().len() + scene.entries6().len(), 0, "{hook:?} {family:?}");
        let counters = scene.get().service_counters().unwrap();
        let backends = counters.values().flat_map(|service| &service.backends);
        assert_eq!(backends.map(|backend| backend.active + backend.half_open).sum::<u64>(), 0);
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
    for (hook, family) in each() {
        let (request, reply) = if family == Family::V4 { (ECHO, 0) } else { (ECHO6, 129) };
        let mut scene = one_backend(family, Tcp);
        let vip = family.vip(1).replace(":80", ":0");
        let request = packet(request, &family.at(1, 5, 77), &vip).ttl(3).payload(57);
        let answer = scene.send(hook, &request);
        assert_eq!(answer.reason, Reason::EchoAnswered, "{hook:?} {family:?}");
        let expected = Frame {
            destination_mac: request.source_mac,
            source_mac: request.destination_mac,
            from: SocketAddr::new(request.to.ip(), 77),
            to: SocketAddr::new(request.from.ip(), 0),
            carries: Carries::Icmp { kind: reply, code: 0 },
            ttl: 64,
            ..request
        };
        assert_eq!(answer.frame(), expected, "{hook:?} {family:?}");
    }
}

#[test]
fn nothing_of_a_service_is_passed_on_as_it_came() {
    for (hook, family) in each() {
        let [vip, client, backend] = &family.ends();
        let what = format!("{hook:?} {family:?}");
        let mut scene = Scene::new();
        scene.serve(vip, Tcp, Maglev, &[]);
        let ended = scene.send(hook, &packet(SYN, client, vip));
        assert_eq!(ended.reason, Reason::NoBackend, "{what}");
        scene.serve(vip, Tcp, Maglev, &[backend]);
        let other = &family.at(1, 6, 0);
        for (fragment, from) in [(0x2000, other), (0x00b9, client), (0x20b9, client)] {
            let carries = if fragment == 0x2000 { Carries::Other(17) } else { ACK };
            let ended = scene.send(hook, &Frame { fragment, ..packet(carries, from, vip) });
            let is_first = fragment == 0x2000;
            let expected = if is_first { Reason::FragmentToVip } else { Reason::FragmentKept };
            assert_eq!(ended.reason, expected, "{what}");
        }
        let ended = scene.send(hook, &packet(SYN, client, vip).ttl(1));
        assert_eq!(ended.reason, Reason::FlowTtlExpired, "{what}");
        let mut short = packet(SYN, client, vip).payload(0).bytes();
        short.truncate(short.len() - 8);
        assert_eq!(scene.send_bytes(hook, &short, None).reason, Reason::Malformed, "{what}");
    }
}

#[test]
fn counters_say_what_went_where() {
    for (hook, family) in each() {
        let ends @ [vip, client, backend] = &family.ends();
        let mut scene = one_backend(family, Tcp);
        let frame = packet(SYN, client, vip);
        scene.send(hook, &frame);
        let reply = packet(SYN_ACK, backend, client);
        scene.send(hook, &reply);
        scene.send(hook, &packet(ACK, client, vip));
        let counters = scene.get().service_counters().unwrap();
        let (key, count) = counters.into_iter().next().unwrap();
        assert_eq!(SocketAddr::new(key.address, key.port), address(vip), "{hook:?}");
        let there = Passed { packets: 2, bytes: 2 * frame.bytes().len() as u64 };
        let back = Passed { packets: 1, bytes: reply.bytes().len() as u64 };
        let counted = (count.to_backend, count.to_client, count.flows);
        assert_eq!(counted, (there, back, 1), "{hook:?} {family:?}");
        let of = &count.backends[0];
        assert_eq!((of.to_backend, of.to_client, of.flows), (there, back, 1));
        assert_eq!(SocketAddr::new(of.address, of.port), address(backend), "{hook:?}");
        assert_eq!(scene.count(Reason::ForwardedToBackend), 2);
        assert_eq!(scene.count(Reason::ForwardedToClient), 1);

        let flows = scene.get().flows(10);
        assert_eq!(flows.len(), 1, "one flow, not one per direction");
        let flow = flows[0];
        let told = [flow.vip, flow.client, flow.backend].map(|end| end.to_string());
        assert_eq!(told, *ends, "{hook:?} {family:?}");
        assert!(flow.idle.as_secs() < 60, "{:?}", flow.idle);
    }
}

#[test]
fn a_list_is_of_the_flows_that_are_asked_for_page_by_page() {
    for (hook, family) in each() {
        let [vip, _, backend] = &family.ends();
        let other = &family.vip(2).replace(":80", ":443");
        let sizes = Sizes { flow_entries: 16_384, flow_entries6: 16_384, ..small() };
        let mut scene = Scene::with_sizes(sizes);
        let others: [&str; 1] = [&family.at(2, 10, 8443)];
        scene.apply(&[
            (vip, Tcp, Maglev, &[backend]),
            (vip, Udp, Maglev, &[backend]),
            (other, Tcp, Maglev, &others),
        ]);
        for number in 0..200 {
            let at = |port| family.at(1, number % 2 * 256 + 5, port + number);
            let client = at(40_000);
            scene.send(hook, &packet(SYN, &client, vip));
            scene.send(hook, &packet(UDP, &client, vip));
            scene.send(hook, &packet(SYN, &at(50_000), other));
            if number < 50 {
                scene.send(hook, &packet(SYN_ACK, backend, &client));
                scene.send(hook, &packet(ACK, &client, vip));
            }
            if number < 20 {
                scene.send(hook, &packet(FIN, &client, vip));
            }
        }
        let at = |end: &str, ports| Some((address(end).ip(), ports));
        let near = IpNetwork::new(family.host(1, 256), family.bits(24)).unwrap();
        let all = FlowFilter::default();
        let closing = FlowFilter { state: Some(FlowState::Closing), ..all.clone() };
        let cases = [
            (all.clone(), 600),
            (FlowFilter { client: Some(near), ..all.clone() }, 300),
            (FlowFilter { vip: at(other, 1..=65_535), ..all.clone() }, 200),
            (FlowFilter { vip: at(other, 1..=442), ..all.clone() }, 0),
            (FlowFilter { backend: at(backend, 8080..=8080), ..all.clone() }, 400),
            (FlowFilter { protocol: Some(Udp), ..all.clone() }, 200),
            (FlowFilter { state: Some(FlowState::Established), ..all.clone() }, 30),
            (FlowFilter { protocol: Some(Udp), ..closing.clone() }, 0),
            (closing, 20),
        ];
        for (filter, count) in cases {
            for limit in [1, 7, 1000] {
                let told = told(&mut scene, &filter, limit);
                assert_eq!(told, count, "{hook:?} {family:?} {filter:?}, {limit} a page");
            }
        }
    }
}

/// How many flows pages of so many have for a filter.
fn told(scene: &mut Scene, filter: &FlowFilter, limit: usize) -> usize {
    let (mut told, mut place) = (Vec::new(), Some(FlowPlace::default()));
    while let Some(from) = place {
        let (flows, next) = scene.get().flow_page(from, limit, filter);
        assert!(flows.len() <= limit && flows.iter().all(|flow| filter.takes(flow)));
        told.extend(flows.iter().map(|flow| (flow.client, flow.vip, flow.protocol)));
        place = next;
    }
    told.sort_unstable();
    told.dedup();
    told.len()
}

#[test]
fn pages_of_both_families_have_each_flow_once_while_others_begin_and_end() {
    for hook in BOTH {
        let mut scene = Scene::new();
        let ends = FAMILIES.map(Family::ends);
        let services = ends.each_ref().map(|[vip, _, backend]| [vip.as_str(), backend.as_str()]);
        scene.apply(&services.each_ref().map(|[vip, there]| (*vip, Tcp, Maglev, from_ref(there))));
        let client = |number: u16| FAMILIES[usize::from(number % 2)].at(1, 5, 40_000 + number);
        for number in 0..300 {
            let [vip, _, backend] = &ends[usize::from(number % 2)];
            scene.send(hook, &packet(SYN, &client(number), vip));
            scene.send(hook, &packet(SYN_ACK, backend, &client(number)));
            scene.send(hook, &packet(ACK, &client(number), vip));
        }
        let mut all: Vec<_> = (0..300).map(client).collect();
        all.sort();
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
                let n = usize::from(pages % 2);
                let other = FAMILIES[n].at(1, 6, 40_000 + pages % 50);
                scene.send(hook, &packet(SYN, &other, &ends[n][0]));
            }
            told.retain(|client| all.binary_search(client).is_ok());
            told.sort();
            assert_eq!(told, all, "{hook:?} {limit}");
        }
    }
}

#[test]
fn merged_segments_are_measured_by_segment_at_tc() {
    for (family, one) in FAMILIES.into_iter().zip([Reason::FlowToBeFragmented, Reason::FlowTooBig])
    {
        let [vip, client, backend] = &family.ends();
        let mut scene = one_backend(family, Tcp);
        let frame = packet(ACK, client, vip).payload(2860).bytes();
        let ended = scene.send_bytes(Hook::Tc, &frame, None);
        assert_eq!(ended.reason, one, "one packet");
        if family == Family::V4 {
            assert_eq!(ended.frame().to, address(backend), "rewritten for the kernel");
        }
        // `gso_segs` and `gso_size` of `struct __sk_buff`.
        let mut context = [0_u8; 192];
        context[164..168].copy_from_slice(&2_u32.to_ne_bytes());
        let most = if family == Family::V4 { 1460_u32 } else { 1440 };
        for (size, reason) in [(most, Reason::ForwardedToBackend), (most + 1, one)] {
            context[176..180].copy_from_slice(&size.to_ne_bytes());
            let ended = scene.send_bytes(Hook::Tc, &frame, Some(&context));
            assert_eq!(ended.reason, reason, "{family:?}: {size} bytes in each of two");
            if reason == Reason::ForwardedToBackend {
                assert_eq!(ended.frame().to, address(backend));
            }
        }
    }
}
