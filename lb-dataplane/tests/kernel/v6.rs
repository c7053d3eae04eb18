//! What IPv6 has of its own: extension headers, its special addresses, fragments, and no checksum of the header.

use std::net::SocketAddr;

use lb_dataplane::table::Algorithm::{LeastConnections, Maglev};
use lb_dataplane::table::Protocol::{Tcp, Udp};
use lb_dataplane::table::Source;
use lb_dataplane::{Hook, Reason};

use crate::frame::{ACK, Carries, ECHO6, Frame, SYN, SYN_ACK, UDP, packet};
use crate::scene::{BACKEND_SIDE, BOTH, CLIENT_SIDE, Scene};

const VIP: &str = "[2001:db8:ff::1]:80";
const CLIENT: &str = "[2001:db8:1::5]:40000";
const BACKEND: &str = "[2001:db8:2::9]:8080";
const MORE_FRAGMENTS: u16 = 0x2000;

fn scene() -> Scene {
    let mut scene = Scene::new();
    scene.apply(&[(VIP, Tcp, Maglev, &[BACKEND]), (VIP, Udp, Maglev, &[BACKEND])]);
    scene
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn conversations_are_translated_both_ways_behind_whatever_extension_headers() {
    for hook in BOTH {
        let (mut scene, mut flows) = (scene(), 0);
        for (first, answer) in [(SYN, SYN_ACK), (UDP, UDP)] {
            for options in [vec![], vec![1; 8], vec![1; 64]] {
                for len in [0, 1, 17, 512, 1300] {
                    flows += 1;
                    let client = format!("[2001:db8:1::5]:{}", 40_000 + flows);
                    let there = Frame { options: options.clone(), ..packet(first, &client, VIP) }
                        .payload(len);
                    let sent = scene.send(hook, &there);
                    assert_eq!((sent.reason, sent.ifindex), (Reason::ForwardedToBackend, 8));
                    let expected = Frame {
                        destination_mac: BACKEND_SIDE.destination_mac.unwrap(),
                        source_mac: BACKEND_SIDE.source_mac,
                        to: address(BACKEND),
                        ttl: 63,
                        ..there
                    };
                    assert_eq!(sent.frame(), expected, "{hook:?}");
                    let back = packet(answer, BACKEND, &client).payload(len);
                    let sent = scene.send(hook, &back);
                    assert_eq!((sent.reason, sent.ifindex), (Reason::ForwardedToClient, 7));
                    let expected = Frame {
                        destination_mac: CLIENT_SIDE.destination_mac.unwrap(),
                        source_mac: CLIENT_SIDE.source_mac,
                        from: address(VIP),
                        ttl: 63,
                        ..back
                    };
                    assert_eq!(sent.frame(), expected, "{hook:?}");
                    assert_eq!(scene.get().flows(99).len(), flows);
                }
            }
        }
    }
}

#[test]
fn what_is_for_no_service_is_routed_or_left_to_the_kernel() {
    let there = "[2001:db8:2::3]:53";
    for hook in BOTH {
        let mut scene = scene();
        let unresolved = |tc, xdp| if hook == Hook::Tc { tc } else { xdp };
        let cases = [
            (packet(UDP, CLIENT, there), Reason::Forwarded),
            (packet(Carries::Other(89), CLIENT, there), Reason::Forwarded),
            (packet(Carries::Icmp { kind: 1, code: 4 }, CLIENT, there), Reason::Forwarded),
            (packet(Carries::Icmp { kind: 139, code: 0 }, CLIENT, there), Reason::Forwarded),
            // A neighbour solicitation is for a link, whomever it is sent to.
            (
                packet(Carries::Icmp { kind: 135, code: 0 }, CLIENT, there),
                Reason::ProtocolNotHandled,
            ),
            (packet(UDP, CLIENT, "[2001:db8:3::1]:53"), Reason::RoutedByKernel),
            (packet(UDP, CLIENT, "[2001:db8:4::1]:53"), Reason::Blackhole),
            (
                packet(UDP, CLIENT, "[2001:db8:5::1]:53"),
                unresolved(Reason::ThroughNeighbour, Reason::NextHopUnresolved),
            ),
            (
                packet(UDP, CLIENT, "[2001:db8:6::1]:53"),
                unresolved(Reason::ThroughNeighbour, Reason::NextHopUnresolved),
            ),
            (packet(UDP, CLIENT, "[2001:db9::1]:53"), Reason::NoRoute),
            (packet(UDP, CLIENT, there).ttl(1), Reason::TtlExpired),
            (packet(UDP, CLIENT, there).payload(1453), Reason::TooBig),
            (packet(UDP, CLIENT, "[2001:db8:3::1]:53").ttl(1), Reason::RoutedByKernel),
            (packet(Carries::Other(47), CLIENT, "[2001:db8:3::1]:0"), Reason::RoutedByKernel),
            (packet(Carries::Other(50), CLIENT, there).ttl(1), Reason::TtlExpired),
            (packet(Carries::Other(50), CLIENT, there).payload(1461), Reason::TooBig),
            (Frame { destination_mac: [0xff; 6], ..packet(UDP, CLIENT, there) }, Reason::NotForUs),
            (packet(UDP, "[fe80::1]:1", there), Reason::LinkLocalSource),
            (packet(UDP, CLIENT, "[fe80::1]:1"), Reason::SpecialDestination),
            (packet(UDP, CLIENT, "[ff02::1]:1"), Reason::SpecialDestination),
            (packet(UDP, CLIENT, "[::1]:1"), Reason::SpecialDestination),
            (packet(UDP, CLIENT, "[::ffff:10.2.0.1]:1"), Reason::SpecialDestination),
            (packet(UDP, "[ff02::1]:1", there), Reason::MartianSource),
            (packet(UDP, "[::1]:1", there), Reason::MartianSource),
            (packet(UDP, "[::]:1", there), Reason::MartianSource),
            (packet(UDP, "[::ffff:10.1.0.1]:1", there), Reason::MartianSource),
            (packet(ECHO6, CLIENT, there), Reason::Forwarded),
            (packet(UDP, CLIENT, "[2001:db8:ff::1]:81"), Reason::VipWithoutService),
            (packet(ACK, CLIENT, VIP), Reason::ForwardedToBackend),
        ];
        for (frame, reason) in cases {
            let ended = scene.send(hook, &frame);
            assert_eq!(ended.reason, reason, "{hook:?} {frame:?}");
            if ended.ifindex == 0 {
                assert_eq!(ended.bytes(), frame.bytes(), "{hook:?} {reason:?}: unchanged");
            } else {
                assert_eq!(ended.frame().ttl, 63, "{hook:?} {reason:?}");
            }
        }
    }
}

#[test]
fn headers_that_lie_are_dropped_and_those_that_lead_elsewhere_are_the_kernels() {
    let good = packet(UDP, CLIENT, VIP);
    let long = Frame { options: vec![1; 16], ..good.clone() };
    let with = |frame: &Frame, changes: &[(usize, u8)]| {
        let mut bytes = frame.bytes();
        changes.iter().for_each(|(at, value)| bytes[*at] = *value);
        bytes
    };
    let cut = |frame: &Frame, len: usize| frame.bytes()[..len].to_vec();
    let cases = [
        // The version, and a payload longer than the frame.
        (with(&good, &[(14, 0x50)]), Reason::Malformed),
        (with(&good, &[(18, 0xff)]), Reason::Malformed),
        (cut(&good, 53), Reason::Malformed),
        (cut(&good, 60), Reason::Malformed),
        // UDP's header is not in the packet, an extension header goes beyond it.
        (with(&good, &[(19, 7)]), Reason::Malformed),
        (with(&long, &[(55, 9)]), Reason::Malformed),
        (with(&long, &[(19, 4)]), Reason::Malformed),
        // A routing header with a segment left, and with none.
        (with(&long, &[(20, 43), (57, 1)]), Reason::ExtensionHeaders),
        (with(&long, &[(20, 43), (57, 0)]), Reason::ForwardedToBackend),
        // Hop-by-hop options are passed over.
        (with(&long, &[(20, 0)]), Reason::ForwardedToBackend),
        // Authentication, no next header, another one.
        (with(&long, &[(54, 51)]), Reason::VipWithoutService),
        (with(&long, &[(54, 59)]), Reason::VipWithoutService),
    ];
    for hook in BOTH {
        let mut scene = scene();
        for (bytes, reason) in &cases {
            // A test run at TC takes no frame that is shorter than its IP header.
            if hook == Hook::Tc && bytes.len() < 54 {
                continue;
            }
            let ended = scene.send_bytes(hook, bytes, None);
            assert_eq!(ended.reason, *reason, "{hook:?} {bytes:02x?}");
        }
        // Many small extension headers, one behind the other.
        let mut bytes = Frame { options: vec![1; 40], ..good.clone() }.bytes();
        for n in 0..5 {
            bytes[54 + 8 * n] = if n == 4 { 17 } else { 60 };
            bytes[55 + 8 * n] = 0;
        }
        assert_eq!(scene.send_bytes(hook, &bytes, None).reason, Reason::ExtensionHeaders);
    }
}

#[test]
fn fragments_follow_their_first() {
    for hook in BOTH {
        let mut scene = scene();
        let early = Frame { fragment: 3, ..packet(Carries::Other(17), CLIENT, VIP) };
        assert_eq!(scene.send(hook, &early).reason, Reason::FragmentKept, "{hook:?}");
        // A first fragment's sum is that of the whole datagram, so it is right for no part: what changes is compared.
        let first = Frame { fragment: MORE_FRAGMENTS, ..packet(UDP, CLIENT, VIP) };
        let sent = scene.send(hook, &first);
        assert_eq!(sent.reason, Reason::ForwardedToBackend, "{hook:?}");
        assert_eq!((sent.frame().to, sent.frame().fragment), (address(BACKEND), MORE_FRAGMENTS));
        for fragment in [MORE_FRAGMENTS | 3, 6] {
            let later = Frame { fragment, ..packet(Carries::Other(17), CLIENT, VIP) };
            let sent = scene.send(hook, &later);
            assert_eq!(sent.reason, Reason::ForwardedToBackend, "{hook:?}");
            let frame = sent.frame();
            assert_eq!(frame.to.ip(), address(BACKEND).ip());
            assert_eq!((frame.fragment, frame.payload), (fragment, later.payload));
        }
        let elsewhere = Frame { fragment: 3, ..packet(Carries::Other(17), CLIENT, BACKEND) };
        assert_eq!(scene.send(hook, &elsewhere).reason, Reason::Forwarded, "{hook:?}");
    }
}

/// RFC 8200 §4.5: what follows the fragment header is said by the first one alone.
#[test]
fn a_later_fragment_follows_its_first_whatever_its_header_says_to_come_next() {
    let whole = Frame { options: vec![1; 8], ..packet(UDP, CLIENT, VIP) };
    let mut first = whole.bytes();
    // Destination options behind the fragment header.
    first.splice(54..54, [60, 0, 0, 1, 0, 0, 0x12, 0x34]);
    first[20] = 44;
    first[19] += 8;
    let later = Frame { fragment: 6, ..packet(Carries::Other(60), CLIENT, VIP) };
    for hook in BOTH {
        let mut scene = scene();
        let sent = scene.send_bytes(hook, &first, None);
        assert_eq!(sent.reason, Reason::ForwardedToBackend, "{hook:?}");
        let sent = scene.send(hook, &later);
        assert_eq!(sent.reason, Reason::ForwardedToBackend, "{hook:?}");
        assert_eq!(sent.frame().to.ip(), address(BACKEND).ip(), "{hook:?}");
        assert_eq!(sent.frame().carries, later.carries, "{hook:?}: it says what it said");
    }
}

#[test]
fn flows_come_from_sources_of_ours_and_choices_are_the_same() {
    for hook in BOTH {
        let mut scene = Scene::new();
        scene.sources = vec![Source {
            address: "2001:db8:ff::2".parse().unwrap(),
            first_port: 2000,
            last_port: 2003,
        }];
        let backends = ["[2001:db8:2::1]:80", "[2001:db8:2::2]:80"];
        scene.serve(VIP, Tcp, LeastConnections, &backends);
        let mut seen = std::collections::BTreeSet::new();
        for port in 40_000..40_008 {
            let client = format!("[2001:db8:1::5]:{port}");
            let sent = scene.send(hook, &packet(SYN, &client, VIP)).frame();
            assert_eq!(sent.from.ip().to_string(), "2001:db8:ff::2");
            assert!((2000..2004).contains(&sent.from.port()));
            assert!(seen.insert((sent.from, sent.to)), "{hook:?}: {sent:?}");
            let answer = Frame { from: sent.to, to: sent.from, ..packet(SYN_ACK, VIP, VIP) };
            let back = scene.send(hook, &answer).frame();
            assert_eq!((back.from, back.to), (address(VIP), address(&client)));
        }
        let ended = scene.send(hook, &packet(SYN, "[2001:db8:1::5]:41000", VIP));
        assert_eq!(ended.reason, Reason::NoSourcePort);
    }
}

#[test]
fn a_devices_sum_of_the_whole_packet_stays_right_with_one_hop_less() {
    let mut scene = scene();
    for (first, answer) in [(SYN, SYN_ACK), (UDP, UDP)] {
        let there = packet(first, CLIENT, VIP).payload(17);
        let back = packet(answer, BACKEND, CLIENT).payload(512);
        assert_eq!(scene.send_summed(&there.bytes()), Reason::ForwardedToBackend);
        assert_eq!(scene.send_summed(&back.bytes()), Reason::ForwardedToClient);
        // By the short way.
        let next = if first == SYN { ACK } else { UDP };
        for len in [0, 1, 1300] {
            let there = packet(next, CLIENT, VIP).payload(len);
            assert_eq!(scene.send_summed(&there.bytes()), Reason::ForwardedToBackend);
            let back = packet(next, BACKEND, CLIENT).payload(len);
            assert_eq!(scene.send_summed(&back.bytes()), Reason::ForwardedToClient);
        }
    }
    let routed = packet(UDP, CLIENT, "[2001:db8:2::3]:53").payload(33);
    assert_eq!(scene.send_summed(&routed.bytes()), Reason::Forwarded);
}
