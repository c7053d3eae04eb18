//! Packets of no service are routed whatever they carry, and all parts of one go one way.

use std::collections::BTreeSet;

use lb_dataplane::fib::{Action, FibUpdate, Member};
use lb_dataplane::{Hook, Reason};

use crate::family::{Family, each};
use crate::frame::{ACK, Carries, ECHO, ECHO6, Frame, UDP, packet, sum};
use crate::scene::{BACKEND_SIDE, BOTH, CLIENT_SIDE, Scene};

const CLIENT: &str = "10.1.0.5:40000";
const CLIENT6: &str = "[2001:db8:1::5]:40000";
const MORE_FRAGMENTS: u16 = 0x2000;
/// GRE, ESP, AH, SCTP, IP in IP, OSPF.
const PROTOCOLS: [u8; 6] = [47, 50, 51, 132, 4, 89];

/// A frame as it leaves by a member.
pub(crate) fn routed(frame: &Frame, by: &Member) -> Frame {
    Frame {
        destination_mac: by.destination_mac.unwrap(),
        source_mac: by.source_mac,
        ttl: frame.ttl - 1,
        ..frame.clone()
    }
}

/// What is neither TCP, UDP nor an echo: other protocols, ICMP errors of no flow, other ICMP, and fragments.
fn others(from: &str, to: &str, errors: [u8; 2]) -> Vec<Frame> {
    let fragment = |fragment, carries| Frame { fragment, ..packet(carries, from, to) };
    let protocols = PROTOCOLS.map(|protocol| packet(Carries::Other(protocol), from, to));
    let icmp = errors.map(|kind| packet(Carries::Icmp { kind, code: 0 }, from, to));
    let fragments = [
        fragment(MORE_FRAGMENTS | 3, Carries::Other(17)),
        fragment(6, Carries::Other(17)),
        fragment(MORE_FRAGMENTS, Carries::Other(47)),
    ];
    protocols.into_iter().chain(icmp).chain(fragments).collect()
}

#[test]
fn whatever_a_packet_of_no_service_carries_it_is_routed_and_nothing_of_it_changes_but_the_hops() {
    for hook in BOTH {
        let mut scene = Scene::new();
        let v4 = others(CLIENT, "10.2.0.3:0", [3, 13]);
        let v6 = others(CLIENT6, "[2001:db8:2::3]:0", [1, 139]);
        for frame in v4.iter().chain(&v6) {
            let ended = scene.send(hook, frame);
            assert_eq!((ended.reason, ended.ifindex), (Reason::Forwarded, 8), "{hook:?} {frame:?}");
            let expected = routed(frame, &BACKEND_SIDE).bytes();
            assert_eq!(ended.bytes(), expected, "{hook:?} {frame:?}");
        }
        // A first fragment has ports, and a sum that no part of the packet has.
        for (from, to) in [(CLIENT, "10.2.0.3:53"), (CLIENT6, "[2001:db8:2::3]:53")] {
            let first = Frame { fragment: MORE_FRAGMENTS, ..packet(UDP, from, to) };
            let ended = scene.send(hook, &first);
            assert_eq!((ended.reason, ended.ifindex), (Reason::Forwarded, 8), "{hook:?}");
            assert_eq!(ended.bytes(), routed(&first, &BACKEND_SIDE).bytes(), "{hook:?}");
        }
    }
}

#[test]
fn extension_headers_that_are_longer_than_their_packet_are_malformed_whatever_follows() {
    for hook in BOTH {
        let mut scene = Scene::new();
        let options = Frame {
            options: vec![1; 8],
            ..packet(Carries::Other(31), CLIENT6, "[2001:db8:2::3]:0")
        };
        assert_eq!(scene.send(hook, &options).reason, Reason::Forwarded, "{hook:?}");
        let mut lies = options.bytes();
        // Destination options of 144 × 8 bytes more than the first eight.
        lies[14 + 40 + 1] = 144;
        assert_eq!(scene.send_bytes(hook, &lies, None).reason, Reason::Malformed, "{hook:?}");
    }
}

/// A scene with two ways to 10.7.0.0/16 and 2001:db8:7::/48.
fn two_ways() -> Scene {
    let mut scene = Scene::new();
    let both = Action::Forward(vec![CLIENT_SIDE, BACKEND_SIDE]);
    let route =
        |prefix: &str, len| FibUpdate::Route { prefix: prefix.parse().unwrap(), len, group: 7 };
    scene
        .get()
        .fib_apply(&[
            FibUpdate::Group { id: 7, action: both },
            route("10.7.0.0", 16),
            route("2001:db8:7::", 48),
        ])
        .unwrap();
    scene
}

#[test]
fn all_fragments_of_a_packet_and_all_packets_of_another_protocol_go_one_way() {
    for hook in BOTH {
        let mut scene = two_ways();
        for (from, network, echo) in [(CLIENT, "10.7.0.", ECHO), (CLIENT6, "[2001:db8:7::", ECHO6)]
        {
            let end = if network.starts_with('[') { "]" } else { "" };
            let mut ways = BTreeSet::new();
            for host in 1..=16 {
                let to = |port: u16| format!("{network}{host}{end}:{port}");
                let fragment = |fragment, carries, port| Frame {
                    fragment,
                    ..packet(carries, from, &to(port))
                };
                let mut way = BTreeSet::new();
                for frame in [
                    fragment(MORE_FRAGMENTS | 3, Carries::Other(17), 0),
                    // The first one, also after another, and of another datagram.
                    fragment(MORE_FRAGMENTS, UDP, 53),
                    fragment(MORE_FRAGMENTS, UDP, 54),
                    fragment(6, Carries::Other(17), 0),
                    fragment(MORE_FRAGMENTS, echo, 0),
                    packet(Carries::Other(47), from, &to(0)),
                    packet(Carries::Other(50), from, &to(0)),
                ] {
                    let ended = scene.send(hook, &frame);
                    assert_eq!(ended.reason, Reason::Forwarded, "{hook:?} {frame:?}");
                    way.insert(ended.ifindex);
                }
                assert_eq!(way.len(), 1, "{hook:?} {host}: {way:?}");
                ways.extend(way);
            }
            assert_eq!(ways, BTreeSet::from([7, 8]), "{hook:?}: addresses spread");
        }
    }
}

#[test]
fn an_icmp_error_of_no_flow_takes_the_way_of_the_packets_that_go_where_it_goes() {
    for (hook, family) in each() {
        let mut scene = two_ways();
        let mut ways = BTreeSet::new();
        let data = Carries::Sctp { chunk: 0, flags: 0, tag: 9 };
        let (kind, header_len) = if family == Family::V4 { (11, 20) } else { (3, 40) };
        for (port, carries) in (1..=16).flat_map(|port| [UDP, ACK, data].map(|it| (port, it))) {
            let (here, there) = (family.at(7, 9, port), family.at(1, 5, 53));
            let answer = scene.send(hook, &packet(carries, &there, &here)).ifindex;
            let payload = packet(carries, &here, &there).bytes()[14..][..header_len + 8].to_vec();
            let error = Carries::Icmp { kind, code: 0 };
            let error = packet(error, &family.at(1, 0x707, 0), &family.at(7, 9, 0));
            let ended = scene.send(hook, &Frame { payload, ..error });
            let seen = (ended.reason, ended.ifindex);
            assert_eq!(seen, (Reason::Forwarded, answer), "{hook:?} {family:?}");
            ways.insert(answer);
        }
        assert_eq!(ways, BTreeSet::from([7, 8]), "{hook:?} {family:?}: ports spread");
    }
}

#[test]
fn merged_segments_of_another_protocol_are_the_kernels_which_knows_how_long_each_is() {
    for (from, to) in [(CLIENT, "10.2.0.3:0"), (CLIENT6, "[2001:db8:2::3]:0")] {
        let mut scene = Scene::new();
        let frame = packet(Carries::Other(47), from, to).payload(2900).bytes();
        // `gso_segs` and `gso_size` of `struct __sk_buff`.
        let mut context = [0_u8; 192];
        context[164..168].copy_from_slice(&2_u32.to_ne_bytes());
        context[176..180].copy_from_slice(&1450_u32.to_ne_bytes());
        let ended = scene.send_bytes(Hook::Tc, &frame, Some(&context));
        assert_eq!(ended.reason, Reason::MergedSegments, "{from}");
        assert_eq!(ended.bytes(), frame);
    }
}

#[test]
fn options_that_routers_mind_are_the_kernels_and_no_jumbogram_comes_as_a_frame() {
    let cases: [(&[(usize, u8)], Reason); 6] = [
        // Destination options.
        (&[], Reason::Forwarded),
        // Hop-by-hop options: padding, and a router alert (RFC 2711).
        (&[(20, 0)], Reason::IpOptions),
        (&[(20, 0), (56, 5), (57, 2), (58, 0), (59, 0), (60, 1), (61, 0)], Reason::IpOptions),
        // A jumbogram's (RFC 2675): no payload, and an option that says how much there is.
        (&[(18, 0), (19, 0), (20, 0), (56, 0xc2), (57, 4), (59, 1)], Reason::Malformed),
        // A routing header of type 0 (RFC 5095): with nothing left it is one like others.
        (&[(20, 43), (56, 0), (57, 0)], Reason::Forwarded),
        (&[(20, 43), (56, 0), (57, 1)], Reason::ExtensionHeaders),
    ];
    for hook in BOTH {
        let mut scene = Scene::new();
        for carries in [UDP, Carries::Other(47)] {
            let frame =
                Frame { options: vec![1; 8], ..packet(carries, CLIENT6, "[2001:db8:2::3]:53") };
            for (changes, reason) in cases {
                let mut bytes = frame.bytes();
                changes.iter().for_each(|(at, byte)| bytes[*at] = *byte);
                let ended = scene.send_bytes(hook, &bytes, None);
                assert_eq!(ended.reason, reason, "{hook:?} {carries:?} {changes:?}");
                if reason != Reason::Forwarded {
                    assert_eq!(ended.bytes(), bytes, "{hook:?} {carries:?} {changes:?}");
                }
            }
        }
    }
}

#[test]
fn dscp_and_ecn_stay_what_they_are() {
    for hook in BOTH {
        let mut scene = Scene::new();
        for (from, to) in [(CLIENT, "10.2.0.3:53"), (CLIENT6, "[2001:db8:2::3]:53")] {
            let marked = |frame: &Frame| {
                let mut bytes = frame.bytes();
                if bytes[12] == 8 {
                    // EF, congestion experienced.
                    bytes[15] = 0xbb;
                    bytes[24..26].fill(0);
                    let checksum = sum(&[&bytes[14..34]]);
                    bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
                } else {
                    bytes[14..16].copy_from_slice(&[0x6b, 0xb0]);
                }
                bytes
            };
            let frame = packet(UDP, from, to);
            let ended = scene.send_bytes(hook, &marked(&frame), None);
            assert_eq!(ended.reason, Reason::Forwarded, "{hook:?} {to}");
            assert_eq!(ended.bytes(), marked(&routed(&frame, &BACKEND_SIDE)), "{hook:?} {to}");
        }
    }
}

#[test]
fn a_lookup_names_the_member_that_the_very_flow_leaves_by() {
    let mut scene = two_ways();
    for (from, network, echo, icmp) in
        [(CLIENT, "10.7.0.", ECHO, 1), (CLIENT6, "[2001:db8:7::", ECHO6, 58)]
    {
        let end = if network.starts_with('[') { "]" } else { "" };
        let mut ways = BTreeSet::new();
        for (host, (carries, protocol)) in (1..=32).flat_map(|host| {
            [(UDP, 17), (ACK, 6), (echo, icmp), (Carries::Other(47), 47)].map(|what| (host, what))
        }) {
            let frame = packet(carries, from, &format!("{network}{host}{end}:{}", 50 + host));
            // An echo's identifier stands in for its source port.
            let to_port = if protocol == icmp { 0 } else { frame.to.port() };
            let found = scene.get().fib_lookup(&lb_dataplane::fib::Packet {
                source: frame.from.ip(),
                destination: frame.to.ip(),
                protocol,
                source_port: frame.from.port(),
                destination_port: to_port,
            });
            let member = found.member.expect("a member").ifindex;
            for hook in BOTH {
                let ended = scene.send(hook, &frame);
                let what = format!("{hook:?} {frame:?}");
                assert_eq!((ended.reason, ended.ifindex), (Reason::Forwarded, member), "{what}");
            }
            ways.insert(member);
        }
        assert_eq!(ways, BTreeSet::from([7, 8]));
    }
}
