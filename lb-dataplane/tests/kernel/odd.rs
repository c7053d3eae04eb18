//! Odd packets: wrong checksums, options, lies about lengths, martians, ports of 0. The rules are those of the README's table.

use std::collections::BTreeSet;
use std::time::Instant;

use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Protocol::{Tcp, Udp};
use lb_dataplane::table::Source;
use lb_dataplane::{Hook, Kind, Reason};

use crate::frame::{
    ACK, Carries, ECHO, ECHO6, Frame, SYN, SYN_ACK, UDP, packet, pseudo_header, sum,
};
use crate::scene::{BOTH, Scene};

const MORE_FRAGMENTS: u16 = 0x2000;
/// Client, VIP, backend and a host of no service, of one family.
type Ends = [&'static str; 4];
const V4: Ends = ["10.1.0.5:40000", "192.0.2.1:80", "10.2.0.9:8080", "10.2.0.77:53"];
const V6: Ends =
    ["[2001:db8:1::5]:40000", "[2001:db8:ff::1]:80", "[2001:db8:2::9]:8080", "[2001:db8:2::77]:53"];
/// A VIP of IPv4 with a backend of IPv6, and the other way round.
const FROM_4: &str = "192.0.2.4:80";
const FROM_6: &str = "[2001:db8:ff::6]:80";

/// Where the transport begins in a frame without options.
fn transport_at(ends: Ends) -> usize {
    if ends == V4 { 34 } else { 54 }
}

fn scene() -> Scene {
    let mut scene = Scene::new();
    let source = |address: &str| {
        let address = address.parse().unwrap();
        Source { address, first_port: 2000, last_port: 2999 }
    };
    let (mut services, mut across) = (Vec::new(), Vec::new());
    for protocol in [Tcp, Udp] {
        services.push((V4[1], protocol, Maglev, std::slice::from_ref(&V4[2])));
        services.push((V6[1], protocol, Maglev, std::slice::from_ref(&V6[2])));
        across.push((FROM_4, protocol, Maglev, std::slice::from_ref(&V6[2])));
        across.push((FROM_6, protocol, Maglev, std::slice::from_ref(&V4[2])));
    }
    scene.apply_with(&services, &across, &[source("192.0.2.2"), source("2001:db8:ff::2")]);
    scene
}

/// One scene for all: loading the programs takes longer than all of the packets.
#[test]
fn odd_packets_end_as_the_table_of_rules_says() {
    let mut scene = scene();
    for rule in [
        a_wrong_checksum_goes_on_as_wrong_as_it_came,
        a_damaged_header_of_ipv4_does_not_become_a_good_one_of_ipv6,
        options_are_carried_along_and_stay_behind_between_the_families,
        no_service_is_a_stop_on_a_source_route_and_its_sender_is_told,
        what_only_the_receiver_needs_goes_on_as_it_is,
        who_claims_to_be_the_service_itself_begins_no_flow,
        no_service_has_port_0_and_a_client_may,
        a_time_to_live_of_0_is_one_that_ended,
        fragments_that_no_sender_makes_are_dropped_and_an_atomic_one_is_a_whole_packet,
        a_backend_that_is_its_own_client_is_served_from_an_address_of_ours_only,
    ] {
        rule(&mut scene);
    }
}

/// How far off the checksums of IPv4's header and of the transport are; 0 where they are right.
fn off(frame: &[u8]) -> (u16, u16) {
    let (header, protocol, transport_at, addresses) = match frame[12..14] {
        [8, 0] => {
            let transport_at = 14 + usize::from(frame[14] & 15) * 4;
            let address = |at: usize| <[u8; 4]>::try_from(&frame[at..at + 4]).unwrap().into();
            (sum(&[&frame[14..transport_at]]), frame[23], transport_at, (address(26), address(30)))
        }
        _ => {
            let address = |at: usize| <[u8; 16]>::try_from(&frame[at..at + 16]).unwrap().into();
            (0, frame[20], 54, (address(22), address(38)))
        }
    };
    let transport = &frame[transport_at..];
    let pseudo = pseudo_header(addresses.0, addresses.1, protocol, transport.len());
    let parts = if protocol == 1 { vec![transport] } else { vec![&pseudo[..], transport] };
    (header, sum(&parts))
}

/// With a byte changed.
fn damaged(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes[at] ^= 0x40;
    bytes
}

fn a_wrong_checksum_goes_on_as_wrong_as_it_came(scene: &mut Scene) {
    for hook in BOTH {
        let mut goes_on_wrong = |bytes: Vec<u8>, what: &str| {
            let ended = scene.send_bytes(hook, &bytes, None);
            let kind = ended.reason.kind();
            assert!(matches!(kind, Kind::Forward | Kind::Reply), "{hook:?} {what} {ended:?}");
            assert_ne!(off(&bytes), (0, 0), "{what} is wrong to begin with");
            (off(&bytes), off(ended.bytes()))
        };
        for ends @ [client, vip, backend, elsewhere] in [V4, V6] {
            let at = transport_at(ends);
            let echo = packet(if ends == V4 { ECHO } else { ECHO6 }, client, vip);
            for (frame, len) in [
                (packet(SYN, client, vip), 20),
                (packet(UDP, client, vip), 8),
                (packet(ACK, backend, client), 20),
                (packet(UDP, client, elsewhere), 8),
                (echo, 8),
            ] {
                let (before, after) =
                    goes_on_wrong(damaged(frame.bytes(), at + len + 3), &format!("{frame:?}"));
                assert_eq!(before, after, "{hook:?} {frame:?}");
            }
        }
        for (client, vip, at) in [(V4[0], FROM_4, 34), (V6[0], FROM_6, 54)] {
            for (carries, len) in [(SYN, 20), (UDP, 8)] {
                let bytes = packet(carries, client, vip).bytes();
                let (before, after) = goes_on_wrong(damaged(bytes, at + len + 3), vip);
                assert_eq!(before.1, after.1, "{hook:?} {vip} {carries:?}");
            }
        }
        // A header's checksum.
        let [client, vip, _, elsewhere] = V4;
        for to in [vip, elsewhere] {
            let (before, after) = goes_on_wrong(damaged(packet(UDP, client, to).bytes(), 24), to);
            assert_eq!(before, after, "{hook:?} {to}");
        }
    }
}

fn a_damaged_header_of_ipv4_does_not_become_a_good_one_of_ipv6(scene: &mut Scene) {
    for hook in BOTH {
        for options in [vec![], vec![1; 4], vec![1; 40]] {
            let good = Frame { options, ..packet(UDP, V4[0], FROM_4) };
            assert_eq!(scene.send(hook, &good).reason, Reason::ForwardedToBackend, "{hook:?}");
            // The class, the identification, the checksum, the last of the options.
            for at in [15, 18, 24, 33 + good.options.len()] {
                if at == 33 {
                    continue;
                }
                let bytes = damaged(good.bytes(), at);
                let ended = scene.send_bytes(hook, &bytes, None);
                assert_eq!(ended.reason, Reason::Malformed, "{hook:?} {at}");
            }
        }
    }
}

/// Options of a kind, with three addresses and a pointer, to a multiple of 4.
fn route(kind: u8, pointer: u8) -> Vec<u8> {
    let mut options = vec![1, kind, 15, pointer];
    options.extend([10, 1, 0, 1, 10, 1, 0, 2, 10, 1, 0, 3]);
    options
}

fn options_are_carried_along_and_stay_behind_between_the_families(scene: &mut Scene) {
    const RECORD_ROUTE: u8 = 7;
    for hook in BOTH {
        for options in [
            route(RECORD_ROUTE, 4),
            // Source routes that are behind the packet, the second behind 37 bytes of nothing.
            route(131, 16),
            [vec![1; 37], vec![137, 3, 4]].concat(),
            // A time stamp, a router alert, a reserved kind, and one behind the end.
            vec![68, 8, 5, 0, 0, 0, 0, 0],
            vec![148, 4, 0, 0],
            vec![0x5e, 3, 9, 0],
            [vec![0], route(131, 4)[1..].to_vec()].concat(),
            // What is no option: too short, too long.
            vec![131, 1, 4, 0],
            vec![131, 11, 4, 0],
        ] {
            for (from, to) in [(V4[0], V4[1]), (V4[2], V4[0])] {
                let sent = Frame { options: options.clone(), ..packet(UDP, from, to) };
                let ended = scene.send(hook, &sent);
                assert_eq!(ended.reason.kind(), Kind::Forward, "{hook:?} {options:?}");
                let frame = ended.frame();
                assert_eq!((frame.options, frame.payload), (sent.options, sent.payload));
            }
            let sent = Frame { options: options.clone(), ..packet(UDP, V4[0], FROM_4) };
            let ended = scene.send(hook, &sent);
            assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?} {options:?}");
            assert_eq!(ended.bytes().len(), 14 + 40 + 8 + sent.payload.len());
            assert_eq!(ended.frame().payload, sent.payload);
            // A router minds them, and that is the kernel.
            let sent = Frame { options: options.clone(), ..packet(UDP, V4[0], V4[3]) };
            let ended = scene.send(hook, &sent);
            assert_eq!(ended.reason, Reason::IpOptions, "{hook:?} {options:?}");
            assert_eq!(ended.bytes(), sent.bytes());
        }
    }
}

fn no_service_is_a_stop_on_a_source_route_and_its_sender_is_told(scene: &mut Scene) {
    scene.send(Hook::Tc, &packet(UDP, V4[0], V4[1]));
    let flows = scene.get().flows(99).len();
    let mut punts = scene.get().take_punts().unwrap().unwrap();
    for hook in BOTH {
        for options in [route(131, 4), route(137, 8), [vec![1; 24], route(131, 12)].concat()] {
            for (carries, from, to) in [
                (UDP, V4[0], V4[1]),
                (SYN, V4[0], V4[1]),
                (UDP, V4[2], V4[0]),
                (UDP, V4[0], FROM_4),
                (UDP, V4[0], "192.0.2.1:7"),
            ] {
                let sent = Frame { options: options.clone(), ..packet(carries, from, to) };
                let sent = sent.payload(40);
                let ended = scene.send(hook, &sent);
                assert_eq!(ended.reason, Reason::SourceRouted, "{hook:?} {sent:?}");
                let answer = punts.next_answer(Instant::now()).expect("its sender is told");
                assert_eq!((answer.to, &answer.packet[20..22]), (sent.from.ip(), &[3, 5][..]));
                assert!(sent.bytes()[14..].starts_with(&answer.packet[28..]), "{hook:?}");
                let quoted = answer.packet.len() - 28;
                assert!(quoted >= 20 + sent.options.len() + 8, "{hook:?}: {quoted}");
            }
            // No error about an error or a later fragment.
            for (carries, fragment) in [
                (Carries::Icmp { kind: 3, code: 1 }, 0),
                (ECHO, 0),
                (Carries::Other(17), 9),
                (Carries::Other(47), 0),
            ] {
                let sent = packet(carries, V4[0], V4[1]).payload(40);
                let sent = Frame { options: options.clone(), fragment, ..sent };
                assert_eq!(scene.send(hook, &sent).reason, Reason::SourceRouted, "{hook:?}");
            }
            assert_eq!(punts.next_answer(Instant::now()), None, "{hook:?}");
            let sent = Frame { options: options.clone(), ..packet(UDP, V4[0], V4[3]) };
            assert_eq!(scene.send(hook, &sent).reason, Reason::IpOptions, "{hook:?}");
        }
    }
    assert_eq!(scene.get().flows(99).len(), flows, "none of them began a flow");
}

fn what_only_the_receiver_needs_goes_on_as_it_is(scene: &mut Scene) {
    for hook in BOTH {
        for ends @ [client, vip, backend, _] in [V4, V6] {
            let at = transport_at(ends);
            let with = |carries, changes: &[(usize, u8)]| {
                let mut bytes = packet(carries, client, vip).bytes();
                changes.iter().for_each(|(at, value)| bytes[*at] = *value);
                bytes
            };
            let ended = scene.send_bytes(hook, &with(SYN, &[(at + 12, 0x40)]), None);
            assert_eq!(ended.reason, Reason::Malformed, "{hook:?}: a TCP header of 16 bytes");
            // UDP's own length: longer than the packet, shorter than its header. TCP's header: longer than the packet.
            for bytes in [
                with(UDP, &[(at + 4, 0xff)]),
                with(UDP, &[(at + 5, 7)]),
                with(SYN, &[(at + 12, 0xf0)]),
            ] {
                let ended = scene.send_bytes(hook, &bytes, None);
                assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?} {bytes:02x?}");
                // The ports and checksums apart.
                let out = ended.bytes();
                assert_eq!(out[at + 4..at + 6], bytes[at + 4..at + 6]);
                assert_eq!(out[at + 18..], bytes[at + 18..], "{hook:?}");
            }
            // What pads the frame behind the packet.
            let mut padded = packet(UDP, client, vip).bytes();
            padded.extend([0xaa; 9]);
            let ended = scene.send_bytes(hook, &padded, None);
            assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?}");
            let (out, padding) = ended.bytes().split_at(padded.len() - 9);
            assert_eq!(padding, [0xaa; 9]);
            assert_eq!(Frame::parse(out).to, backend.parse().unwrap(), "{hook:?}");
        }
        // A datagram of IPv6 without a checksum (RFC 6935); between the families it would become a good one.
        let none = Carries::Udp { checksum: false };
        let ended = scene.send(hook, &packet(none, V6[0], V6[1]));
        assert_eq!((ended.reason, ended.frame().carries), (Reason::ForwardedToBackend, none));
        let ended = scene.send(hook, &packet(none, V6[0], FROM_6));
        assert_eq!(ended.reason, Reason::Untranslatable, "{hook:?}");
    }
}

fn who_claims_to_be_the_service_itself_begins_no_flow(scene: &mut Scene) {
    let flows = scene.get().flows(99).len();
    for hook in BOTH {
        for [_, vip, _, _] in [V4, V6] {
            for carries in [SYN, UDP] {
                let land = scene.send(hook, &packet(carries, vip, vip));
                assert_eq!(land.reason, Reason::MartianSource, "{hook:?} {vip}");
            }
        }
    }
    assert_eq!(scene.get().flows(99).len(), flows);
}

fn no_service_has_port_0_and_a_client_may(scene: &mut Scene) {
    for hook in BOTH {
        for [client, vip, _, _] in [V4, V6] {
            let without = |end: &str| format!("{}:0", end.rsplit_once(':').unwrap().0);
            for carries in [SYN, UDP] {
                let to_none = packet(carries, client, &without(vip));
                let ended = scene.send(hook, &to_none);
                assert_eq!(ended.reason, Reason::VipWithoutService, "{hook:?} {vip}");
                assert_eq!(ended.bytes(), to_none.bytes());
                let from_none = packet(carries, &without(client), vip);
                let ended = scene.send(hook, &from_none);
                assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?} {vip}");
                assert_eq!(ended.frame().from, from_none.from);
            }
        }
    }
}

fn a_time_to_live_of_0_is_one_that_ended(scene: &mut Scene) {
    for hook in BOTH {
        for [client, vip, _, elsewhere] in [V4, V6] {
            for ttl in [0, 1] {
                let ended = scene.send(hook, &packet(UDP, client, vip).ttl(ttl));
                assert_eq!(ended.reason, Reason::FlowTtlExpired, "{hook:?} {vip} {ttl}");
                let ended = scene.send(hook, &packet(UDP, client, elsewhere).ttl(ttl));
                assert_eq!(ended.reason, Reason::TtlExpired, "{hook:?} {elsewhere} {ttl}");
            }
        }
    }
}

fn fragments_that_no_sender_makes_are_dropped_and_an_atomic_one_is_a_whole_packet(
    scene: &mut Scene,
) {
    for hook in BOTH {
        for [client, vip, _, elsewhere] in [V4, V6] {
            for to in [vip, elsewhere] {
                let part = |protocol: u8, fragment: u16, len: usize| {
                    let frame = packet(Carries::Other(protocol), client, to).payload(len);
                    Frame { fragment, ..frame }
                };
                for (what, frame) in [
                    ("ports without the rest of the header", part(6, MORE_FRAGMENTS, 16)),
                    ("half of the ports", part(17, MORE_FRAGMENTS, 4)),
                    ("over the flags of TCP", part(6, 1, 32)),
                    ("beyond the longest packet", part(17, 0x1fff, 64)),
                ] {
                    let ended = scene.send(hook, &frame);
                    assert_eq!(ended.reason, Reason::Malformed, "{hook:?} {to} {what}");
                }
            }
        }
        // RFC 6946.
        let whole = packet(UDP, V6[0], V6[1]);
        let mut atomic = whole.bytes();
        atomic.splice(54..54, [17, 0, 0, 0, 0, 0, 0, 9]);
        atomic[20] = 44;
        atomic[19] += 8;
        let ended = scene.send_bytes(hook, &atomic, None);
        assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?}");
        let frame = ended.frame();
        assert_eq!((frame.to, frame.payload), (V6[2].parse().unwrap(), whole.payload));
    }
}

fn a_backend_that_is_its_own_client_is_served_from_an_address_of_ours_only(scene: &mut Scene) {
    let mut full_nat = Scene::new();
    let source = |address: &str| {
        let address = address.parse().unwrap();
        Source { address, first_port: 2000, last_port: 2999 }
    };
    full_nat.sources = vec![source("192.0.2.2"), source("2001:db8:ff::2")];
    let services = [V4, V6].map(|[_, vip, backend, _]| (vip, [backend]));
    let services = services.iter().map(|(vip, backend)| (*vip, Tcp, Maglev, &backend[..]));
    full_nat.apply(&services.collect::<Vec<_>>());
    for hook in BOTH {
        for [_, vip, backend, _] in [V4, V6] {
            let own = format!("{}:3333", backend.rsplit_once(':').unwrap().0);
            let syn = packet(SYN, &own, vip);
            assert_eq!(scene.send(hook, &syn).reason, Reason::OwnBackend, "{hook:?} {vip}");
            let there = full_nat.send(hook, &syn);
            assert_eq!((there.reason, there.ifindex), (Reason::ForwardedToBackend, 8), "{hook:?}");
            let there = there.frame();
            assert_ne!(there.from.ip(), syn.from.ip());
            assert_eq!(there.to, backend.parse().unwrap());
            // Its answer comes in by the link that it leaves by.
            let answer = Frame { from: there.to, to: there.from, ..packet(SYN_ACK, vip, vip) };
            let back = full_nat.send(hook, &answer);
            assert_eq!((back.reason, back.ifindex), (Reason::ForwardedToClient, 8), "{hook:?}");
            let back = back.frame();
            assert_eq!((back.from, back.to), (vip.parse().unwrap(), syn.from));
        }
    }
}

#[test]
fn a_backend_that_is_its_own_client_is_given_to_the_others_where_there_are_some() {
    let near = |backend: &str, last: char| backend.replacen("9", &last.to_string(), 1);
    let mut scene = Scene::new();
    let services =
        [V4, V6].map(|[_, vip, own, _]| (vip, [near(own, '7'), own.into(), near(own, '8')]));
    let lists = services.each_ref().map(|(_, backends)| backends.each_ref().map(String::as_str));
    let served = services.iter().zip(&lists).map(|((vip, _), list)| (*vip, Tcp, Maglev, &list[..]));
    scene.apply(&served.collect::<Vec<_>>());
    for (hook, first) in BOTH.into_iter().zip([3000, 4000]) {
        for (vip, [one, own, other]) in &services {
            let host = own.rsplit_once(':').unwrap().0;
            let mut seen = BTreeSet::new();
            for port in first..first + 32 {
                let there = scene.send(hook, &packet(SYN, &format!("{host}:{port}"), vip));
                assert_eq!(there.reason, Reason::ForwardedToBackend, "{hook:?} {vip} {port}");
                seen.insert(there.frame().to.to_string());
            }
            assert_eq!(seen, BTreeSet::from([one.clone(), other.clone()]), "{hook:?} {vip}");
        }
    }
}
