//! Between IPv4 and IPv6 (RFC 7915): headers, checksums, fragments, errors, and flows whose directions are in two tables.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use lb_dataplane::fib::{Action, FibUpdate, Member};
use lb_dataplane::table::Algorithm::{Maglev, RoundRobin};
use lb_dataplane::table::Protocol::{Tcp, Udp};
use lb_dataplane::table::{Source, Table};
use lb_dataplane::{Hook, Kind, Reason, Sizes, Timeouts, seconds};

use crate::errors::together;
use crate::frame::{ACK, Carries, FIN, Frame, RST, SYN, SYN_ACK, UDP, packet, sum};
use crate::scene::{BACKEND_SIDE, BOTH, CLIENT_SIDE, Scene, small};

const MORE_FRAGMENTS: u16 = 0x2000;
const DONT_FRAGMENT: u16 = 0x4000;

/// One family for clients, the other for backends.
#[derive(Clone, Copy, Debug)]
struct Sides {
    client: &'static str,
    vip: &'static str,
    backend: &'static str,
    /// The address that flows come from.
    source: &'static str,
    /// Bytes that a packet to a backend gets longer.
    longer: i32,
}

const FROM_4_TO_6: Sides = Sides {
    client: "10.1.0.5:40000",
    vip: "192.0.2.1:80",
    backend: "[2001:db8:2::9]:8080",
    source: "2001:db8:ff::2",
    longer: 20,
};
const FROM_6_TO_4: Sides = Sides {
    client: "[2001:db8:1::5]:40000",
    vip: "[2001:db8:ff::1]:80",
    backend: "10.2.0.9:8080",
    source: "203.0.113.2",
    longer: -20,
};
const SIDES: [Sides; 2] = [FROM_4_TO_6, FROM_6_TO_4];

/// Both at both hooks.
fn each() -> impl Iterator<Item = (Hook, Sides)> {
    BOTH.into_iter().flat_map(|hook| SIDES.map(|sides| (hook, sides)))
}

fn scene(sides: Sides) -> Scene {
    serving(Scene::new(), sides)
}

fn serving(mut scene: Scene, sides: Sides) -> Scene {
    let address = sides.source.parse().unwrap();
    scene.sources = vec![Source { address, first_port: 2000, last_port: 2999 }];
    let backends = [sides.backend];
    scene.apply(&[(sides.vip, Tcp, Maglev, &backends), (sides.vip, Udp, Maglev, &backends)]);
    scene
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// What a packet is to be when it comes out, in the frame of one side.
fn expected(sent: &Frame, from: SocketAddr, to: SocketAddr, to_backend: bool) -> Frame {
    let side = if to_backend { BACKEND_SIDE } else { CLIENT_SIDE };
    let whole_in_v4 = to.is_ipv4() && sent.fragment & 0x3fff == 0;
    let len = 20 + sent.bytes().len() - 14 - header_len(sent);
    Frame {
        destination_mac: side.destination_mac.unwrap(),
        source_mac: side.source_mac,
        from,
        to,
        ttl: sent.ttl - 1,
        options: Vec::new(),
        fragment: if whole_in_v4 && len > 1260 { DONT_FRAGMENT } else { sent.fragment & 0x3fff },
        carries: match sent.carries {
            Carries::Udp { checksum: false } if to.is_ipv6() => UDP,
            other => other,
        },
        ..sent.clone()
    }
}

fn header_len(frame: &Frame) -> usize {
    let fixed = if frame.from.is_ipv6() { 40 } else { 20 };
    let fragment = if frame.from.is_ipv6() && frame.fragment & 0x3fff != 0 { 8 } else { 0 };
    fixed + frame.options.len() + fragment
}

#[test]
fn conversations_change_their_family_both_ways() {
    for sides in SIDES {
        let mut scene = scene(sides);
        for hook in BOTH {
            let no_checksum = Carries::Udp { checksum: false };
            for (first, answer) in [(SYN, SYN_ACK), (UDP, UDP), (no_checksum, UDP)] {
                // Only IPv4 has datagrams without a checksum.
                if first == no_checksum && address(sides.client).is_ipv6() {
                    continue;
                }
                for options in [vec![], vec![1; 8], vec![1; 40]] {
                    for len in [0, 1, 2, 3, 17, 504, 511, 512, 513, 1240, 1241, 1400] {
                        let fragment = if len % 2 == 0 { DONT_FRAGMENT } else { 0 };
                        let there = packet(first, sides.client, sides.vip).payload(len);
                        let fragment = if there.from.is_ipv4() { fragment } else { 0 };
                        let there = Frame { options: options.clone(), fragment, ..there };
                        let sent = scene.send(hook, &there);
                        let what = format!("{hook:?} {sides:?} {first:?} {len} {options:?}");
                        assert_eq!(sent.reason, Reason::ForwardedToBackend, "{what}");
                        assert_eq!(sent.ifindex, 8, "{what}");
                        let out = sent.frame();
                        assert_eq!(out.from.ip().to_string(), sides.source, "{what}");
                        let to = address(sides.backend);
                        assert_eq!(out, expected(&there, out.from, to, true), "{what}");

                        let back = packet(answer, sides.backend, sides.vip).payload(len);
                        let back = Frame { to: out.from, options: options.clone(), ..back };
                        let sent = scene.send(hook, &back);
                        assert_eq!(sent.reason, Reason::ForwardedToClient, "{what}");
                        assert_eq!(sent.ifindex, 7, "{what}");
                        let (vip, client) = (address(sides.vip), address(sides.client));
                        assert_eq!(sent.frame(), expected(&back, vip, client, false), "{what}");
                    }
                }
            }
        }
        let flows = scene.get().flows(99);
        assert_eq!(flows.len(), 2, "{sides:?} {flows:?}");
        assert!(flows.iter().all(|flow| flow.client == address(sides.client)));
        assert!(flows.iter().all(|flow| flow.backend == address(sides.backend)));
    }
}

#[test]
fn the_class_of_a_packet_is_kept() {
    for sides in SIDES {
        let mut scene = scene(sides);
        for hook in BOTH {
            let mut bytes = packet(UDP, sides.client, sides.vip).bytes();
            if address(sides.client).is_ipv4() {
                bytes[15] = 0xb9;
                bytes[24..26].fill(0);
                let checksum = sum(&[&bytes[14..34]]);
                bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
            } else {
                bytes[14..18].copy_from_slice(&[0x6b, 0x91, 0x23, 0x45]);
            }
            let out = scene.send_bytes(hook, &bytes, None).bytes().to_vec();
            match out[12..14] {
                [8, 0] => assert_eq!(out[15], 0xb9, "{hook:?}"),
                // The flow label is zero (RFC 7915 §4.1).
                _ => assert_eq!(out[14..18], [0x6b, 0x90, 0, 0], "{hook:?}"),
            }
        }
    }
}

#[test]
fn a_devices_sum_of_the_whole_packet_stays_right() {
    for sides in SIDES {
        let mut scene = scene(sides);
        let no_checksum = Carries::Udp { checksum: false };
        for first in [SYN, UDP, no_checksum] {
            if first == no_checksum && address(sides.client).is_ipv6() {
                continue;
            }
            for (options, fragment, len) in [
                (vec![], 0, 0),
                (vec![], 0, 1401),
                (vec![1; 8], 0, 17),
                (vec![], MORE_FRAGMENTS, 512),
            ] {
                if first != UDP && fragment != 0 {
                    continue;
                }
                let there = packet(first, sides.client, sides.vip).payload(len);
                let there = Frame { options: options.clone(), fragment, ..there };
                let out = scene.send(Hook::Tc, &there).frame();
                let ended = scene.send_summed(&there.bytes());
                assert_eq!(ended, Reason::ForwardedToBackend, "{there:?}");
                let answer = if first == SYN { SYN_ACK } else { UDP };
                let back = packet(answer, sides.backend, sides.vip).payload(len);
                let back = Frame { to: out.from, options: options.clone(), fragment, ..back };
                assert_eq!(scene.send_summed(&back.bytes()), Reason::ForwardedToClient, "{back:?}");
                // What their routers say of them.
                let is_v6 = out.to.is_ipv6();
                let (kind, router) =
                    if is_v6 { ([1, 4], "[2001:db8:2::fe]:9") } else { ([3, 3], "10.2.0.254:9") };
                let to = SocketAddr::new(out.from.ip(), 0).to_string();
                let about = error(kind, 0, router, &to, &Frame { ttl: 64, ..out }, len.max(8));
                assert_eq!(scene.send_summed(&about), Reason::ErrorToClient, "{there:?}");
            }
        }
    }
}

#[test]
fn what_ipv6_has_numbered_may_be_fragmented_as_ipv4() {
    let sides = FROM_6_TO_4;
    let mut scene = scene(sides);
    for hook in BOTH {
        for len in [100, 1300] {
            let mut bytes = packet(UDP, sides.client, sides.vip).payload(len).bytes();
            // A fragment that is the whole packet (RFC 6946).
            bytes.splice(54..54, [17, 0, 0, 0, 0x12, 0x34, 0x56, 0x78]);
            bytes[18..20].copy_from_slice(&u16::try_from(len + 16).unwrap().to_be_bytes());
            bytes[20] = 44;
            let ended = scene.send_bytes(hook, &bytes, None);
            assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?}");
            assert_eq!(ended.frame().payload.len(), len);
            assert_eq!(ended.bytes()[18..22], [0x56, 0x78, 0, 0], "{hook:?} {len}");
        }
    }
}

/// RFC 7915 §5.1 goes by the packets that were on the wire.
#[test]
fn merged_segments_of_ipv6_may_be_fragmented_if_each_is_short() {
    let sides = FROM_6_TO_4;
    let mut scene = scene(sides);
    for (payload, fragment) in [(1232_u32, 0), (1233, DONT_FRAGMENT)] {
        let sent = packet(UDP, sides.client, sides.vip).payload(1440);
        // `gso_segs` and `gso_size` of `struct __sk_buff`.
        let mut context = [0_u8; 192];
        context[164..168].copy_from_slice(&2_u32.to_ne_bytes());
        context[176..180].copy_from_slice(&payload.to_ne_bytes());
        let ended = scene.send_bytes(Hook::Tc, &sent.bytes(), Some(&context));
        assert_eq!(ended.reason, Reason::ForwardedToBackend, "{payload}");
        assert_eq!(ended.frame().fragment, fragment, "{payload}");
    }
}

#[test]
fn what_is_too_big_for_the_other_family_is_told_what_fits() {
    for sides in SIDES {
        let mut scene = scene(sides);
        let mut punts = scene.get().take_punts().unwrap().unwrap();
        for hook in BOTH {
            let out = scene.send(hook, &packet(SYN, sides.client, sides.vip)).frame();
            scene.send(hook, &Frame { to: out.from, ..packet(SYN_ACK, sides.backend, sides.vip) });
            let source = out.from.to_string();
            for (from, to, longer) in
                [(sides.client, sides.vip, sides.longer), (sides.backend, &*source, -sides.longer)]
            {
                let mtu = (1500 - longer) as u16;
                let is_v6 = address(from).is_ipv6();
                let most = usize::from(mtu) - if is_v6 { 60 } else { 40 };
                // Whether a router of IPv4 might fragment it or not.
                for fragment in if is_v6 { vec![0] } else { vec![0, DONT_FRAGMENT] } {
                    let fits = Frame { fragment, ..packet(ACK, from, to).payload(most) };
                    let ended = scene.send(hook, &fits);
                    assert_eq!(ended.reason.kind(), Kind::Forward, "{sides:?}");
                    let big = Frame { fragment, ..packet(ACK, from, to).payload(most + 1) };
                    let ended = scene.send(hook, &big);
                    assert_eq!(ended.reason, Reason::FlowTooBig, "{hook:?} {sides:?}");
                    let answer = punts.next_answer(Instant::now()).expect("its sender is told");
                    assert_eq!(answer.to, big.from.ip());
                    let (told, quoted) = if is_v6 {
                        assert_eq!(answer.packet[..2], [2, 0]);
                        (&answer.packet[6..8], &answer.packet[8..])
                    } else {
                        assert_eq!(answer.packet[20..22], [3, 4]);
                        (&answer.packet[26..28], &answer.packet[28..])
                    };
                    assert_eq!(told, mtu.to_be_bytes(), "{hook:?} {sides:?}");
                    assert!(big.bytes()[14..].starts_with(quoted), "as it was sent");
                }
            }
        }
    }
}

/// RFC 7915 §5.1: every link of IPv6 takes 1,280 bytes, and no sender is told of less.
#[test]
fn what_every_link_of_ipv6_takes_is_left_to_be_fragmented_as_ipv4_where_a_link_is_smaller() {
    for (hook, sides) in each() {
        let what = format!("{hook:?} {sides:?}");
        let mut scene = scene(sides);
        let mut punts = scene.get().take_punts().unwrap().unwrap();
        let out = scene.send(hook, &packet(SYN, sides.client, sides.vip)).frame();
        scene.send(hook, &Frame { to: out.from, ..packet(SYN_ACK, sides.backend, sides.vip) });
        // Whoever sends IPv6, and the way of what becomes of it.
        let source = out.from.to_string();
        let (ends, expected, way, id) = if out.from.is_ipv4() {
            ([sides.client, sides.vip], [&*source, sides.backend], BACKEND_SIDE, 2)
        } else {
            ([sides.backend, &*source], [sides.vip, sides.client], CLIENT_SIDE, 1)
        };
        let action = Action::Forward(vec![Member { mtu: 1200, ..way }]);
        scene.get().fib_apply(&[FibUpdate::Group { id, action }]).unwrap();
        let sent = |len: usize| packet(ACK, ends[0], ends[1]).payload(len - 60);
        for len in [1221, 1280] {
            let ended = scene.send(hook, &sent(len));
            assert_eq!(ended.reason, Reason::FlowToBeFragmented, "{what} {len}");
            // The kernel counts the hop and finds the MACs.
            let [from, to] = expected.map(address);
            assert_eq!(ended.frame(), Frame { from, to, ..sent(len) }, "{what} {len}");
        }
        let fits = scene.send(hook, &sent(1220));
        assert_eq!((fits.reason.kind(), fits.frame().fragment), (Kind::Forward, 0), "{what}");
        assert_eq!(punts.next_answer(Instant::now()), None, "{what}");
        let big = scene.send(hook, &sent(1281));
        assert_eq!(big.reason, Reason::FlowTooBig, "{what}");
        let answer = punts.next_answer(Instant::now()).expect("its sender is told");
        assert_eq!(answer.packet[..8], [2, 0, 0, 0, 0, 0, 5, 0], "{what}: 1,280 bytes");
    }
}

/// A fragment gets a header more than a whole packet.
#[test]
fn fragments_that_are_too_big_for_ipv6_are_told_of_by_their_first() {
    for (hook, sides) in each() {
        let what = format!("{hook:?} {sides:?}");
        let mut scene = scene(sides);
        let mut punts = scene.get().take_punts().unwrap().unwrap();
        let out = scene.send(hook, &packet(UDP, sides.client, sides.vip)).frame();
        // Whoever sends IPv4.
        let source = out.from.to_string();
        let (from, to) = match out.from.is_ipv6() {
            true => (sides.client, sides.vip),
            false => (sides.backend, &*source),
        };
        for (len, is_too_big) in [(1440, true), (1432, false)] {
            let kind = if is_too_big { Kind::Drop } else { Kind::Forward };
            let first = Frame { fragment: MORE_FRAGMENTS, ..packet(UDP, from, to) };
            let first = first.payload(len + 8);
            let ended = scene.send(hook, &first);
            assert_eq!(ended.reason == Reason::FlowTooBig, is_too_big, "{what} {len}");
            assert_eq!(ended.reason.kind(), kind, "{what} {len}");
            let answer = punts.next_answer(Instant::now());
            assert_eq!(answer.is_some(), is_too_big, "{what} {len}");
            if let Some(answer) = answer {
                assert_eq!(answer.to, first.from.ip(), "{what}");
                assert_eq!(answer.packet[20..22], [3, 4], "{what}");
                assert_eq!(answer.packet[26..28], 1472_u16.to_be_bytes(), "{what}");
            }
            let fragment = MORE_FRAGMENTS | 200;
            let later = Frame { fragment, ..packet(Carries::Other(17), from, to) };
            let later = scene.send(hook, &later.payload(len + 16));
            assert_eq!(later.reason, ended.reason, "{what} {len}");
            assert!(punts.next_answer(Instant::now()).is_none(), "{what} {len}: not of it");
        }
    }
}

#[test]
fn a_time_to_live_that_ends_here_is_told() {
    for sides in SIDES {
        let mut scene = scene(sides);
        let mut punts = scene.get().take_punts().unwrap().unwrap();
        for hook in BOTH {
            let dying = packet(SYN, sides.client, sides.vip).ttl(1);
            let ended = scene.send(hook, &dying);
            assert_eq!(ended.reason, Reason::FlowTtlExpired, "{hook:?}");
            let answer = punts.next_answer(Instant::now()).expect("its sender is told");
            assert_eq!(answer.to, dying.from.ip());
        }
    }
}

#[test]
fn fragments_follow_their_first_with_its_number() {
    for sides in SIDES {
        let mut scene = scene(sides);
        for hook in BOTH {
            let first = Frame { fragment: MORE_FRAGMENTS, ..packet(UDP, sides.client, sides.vip) };
            let first = first.payload(1024);
            let sent = scene.send(hook, &first);
            assert_eq!(sent.reason, Reason::ForwardedToBackend, "{hook:?} {sides:?}");
            let numbers = [number(sent.bytes())];
            let out = sent.frame();
            assert_eq!((out.to, out.fragment), (address(sides.backend), MORE_FRAGMENTS));
            assert_eq!(out.payload, first.payload);
            for fragment in [MORE_FRAGMENTS | 129, 258] {
                let later = packet(Carries::Other(17), sides.client, sides.vip).payload(1032);
                let later = Frame { fragment, ..later };
                let sent = scene.send(hook, &later);
                assert_eq!(sent.reason, Reason::ForwardedToBackend, "{hook:?} {sides:?}");
                assert_eq!(number(sent.bytes()), numbers[0]);
                let frame = sent.frame();
                assert_eq!(frame.to.ip(), address(sides.backend).ip());
                assert_eq!(frame.from.ip(), out.from.ip());
                assert_eq!((frame.fragment, frame.payload), (fragment, later.payload));
            }
        }
    }
}

/// The number that a packet's fragments have in common.
fn number(frame: &[u8]) -> u32 {
    match frame[12..14] {
        [8, 0] => u16::from_be_bytes([frame[18], frame[19]]).into(),
        _ => u32::from_be_bytes(frame[58..62].try_into().unwrap()),
    }
}

#[test]
fn the_checksum_of_a_datagram_in_fragments_is_right_for_the_whole() {
    for (hook, sides) in each() {
        let mut scene = scene(sides);
        let whole = packet(UDP, sides.client, sides.vip).payload(2000);
        let header_len = header_len(&whole);
        let datagram = whole.bytes()[14 + header_len..].to_vec();
        let out = [(MORE_FRAGMENTS, 0..1000), (125, 1000..2008)].map(|(fragment, part)| {
            let payload = datagram[part].to_vec();
            let frame = packet(Carries::Other(17), sides.client, sides.vip);
            let ended = scene.send(hook, &Frame { fragment, payload, ..frame });
            assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?} {sides:?}");
            ended.bytes().to_vec()
        });
        assert_eq!(together(&out).payload, whole.payload, "{hook:?} {sides:?}");
    }
}

#[test]
fn what_the_other_family_has_no_form_for_is_dropped() {
    let no_checksum = Carries::Udp { checksum: false };
    let Sides { client, vip, .. } = FROM_4_TO_6;
    let part = Frame { fragment: MORE_FRAGMENTS, ..packet(no_checksum, client, vip) };
    // Destination options behind a fragment's header: the fragment header is put before them.
    let buried = Frame { options: vec![1; 8], ..packet(UDP, FROM_6_TO_4.client, FROM_6_TO_4.vip) };
    let mut buried = buried.bytes();
    let fragment = [60, 0, 0, 1, 0, 0, 0, 7];
    buried.splice(54..54, fragment);
    buried[20] = 44;
    buried[19] += 8;
    let (mut there, mut back) = (scene(FROM_4_TO_6), scene(FROM_6_TO_4));
    for hook in BOTH {
        let ended = there.send(hook, &part);
        assert_eq!(ended.reason, Reason::Untranslatable, "{hook:?}");
        assert_eq!(ended.bytes(), part.bytes());
        let ended = back.send_bytes(hook, &buried, None);
        assert_eq!(ended.reason, Reason::Untranslatable, "{hook:?}");
        assert_eq!(ended.bytes(), buried);
    }
}

/// An error that quotes a packet's headers, and as much of what follows.
fn error(kind: [u8; 2], number: u32, from: &str, to: &str, about: &Frame, after: usize) -> Vec<u8> {
    let quoted = about.bytes()[14..].to_vec();
    let len = (header_len(about) + after).min(quoted.len());
    error_with(kind, number, from, to, quoted[..len].to_vec())
}

fn error_with(kind: [u8; 2], number: u32, from: &str, to: &str, payload: Vec<u8>) -> Vec<u8> {
    let carries = Carries::Icmp { kind: kind[0], code: kind[1] };
    let mut bytes = Frame { payload, ..packet(carries, from, to) }.bytes();
    let at = if bytes[12..14] == [8, 0] { 34 } else { 54 };
    bytes[at + 4..at + 8].copy_from_slice(&number.to_be_bytes());
    let (source, destination) = (address(from).ip(), address(to).ip());
    bytes[at + 2..at + 4].fill(0);
    let len = bytes.len() - at;
    let pseudo = crate::frame::pseudo_header(source, destination, 58, len);
    let parts = [if at == 34 { &[][..] } else { &pseudo }, &bytes[at..]];
    let checksum = sum(&parts);
    bytes[at + 2..at + 4].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// An error of IPv4 as IPv6 has it, each with what follows the checksum.
const PAIRS: [([u8; 2], u32, [u8; 2], u32); 5] = [
    ([3, 3], 0, [1, 4], 0),
    ([3, 1], 0, [1, 0], 0),
    ([3, 4], 1400, [2, 0], 1420),
    ([11, 0], 0, [3, 0], 0),
    ([12, 0], 8 << 24, [4, 0], 7),
];

#[test]
fn errors_about_flows_reach_both_sides_as_errors_of_their_family_about_their_own_packets() {
    for sides in SIDES {
        let mut scene = scene(sides);
        for hook in BOTH {
            for (carries, after) in
                [(SYN, 8), (SYN, 20), (SYN, 600), (UDP, 8), (UDP, 25), (UDP, 600)]
            {
                for (kind4, number4, kind6, number6) in PAIRS {
                    let of = |v6| if v6 { (kind6, number6) } else { (kind4, number4) };
                    let sent = packet(carries, sides.client, sides.vip).payload(600);
                    let there = scene.send(hook, &sent).frame();
                    let translated = Frame { ttl: 64, ..there.clone() };
                    let reply = Frame {
                        to: there.from,
                        ..packet(carries, sides.backend, sides.vip).payload(600)
                    };
                    let what = format!("{hook:?} {sides:?} {carries:?} {kind4:?} {after}");
                    // About the client's packet, from a router before the backend.
                    let (kind, number) = of(there.to.is_ipv6());
                    let router =
                        if there.to.is_ipv6() { "[2001:db8:2::fe]:9" } else { "10.2.0.254:9" };
                    let to = format!("{}", SocketAddr::new(there.from.ip(), 0));
                    let about = error(kind, number, router, &to, &translated, after);
                    let ended = scene.send_bytes(hook, &about, None);
                    assert_eq!((ended.reason, ended.ifindex), (Reason::ErrorToClient, 7), "{what}");
                    let (kind, number) = of(sent.from.is_ipv6());
                    let (vip, client) = (sides.vip, sides.client);
                    let quoted = quoted(&sent, &translated);
                    let expected = error(kind, number, vip, client, &quoted, after);
                    same_error(ended.bytes(), &expected, &what);

                    // About the backend's, from a router before the client.
                    let back = scene.send(hook, &reply).frame();
                    let (kind, number) = of(back.to.is_ipv6());
                    let router =
                        if back.to.is_ipv6() { "[2001:db8:1::fe]:9" } else { "10.1.7.7:9" };
                    let translated = Frame { ttl: 64, ..back };
                    let about = error(kind, number, router, sides.vip, &translated, after);
                    let ended = scene.send_bytes(hook, &about, None);
                    assert_eq!(
                        (ended.reason, ended.ifindex),
                        (Reason::ErrorToBackend, 8),
                        "{what}"
                    );
                    let (kind, number) = of(reply.from.is_ipv6());
                    let source = reply.to.to_string();
                    let quoted = quoted_back(&reply);
                    let expected = error(kind, number, &source, sides.backend, &quoted, after);
                    same_error(ended.bytes(), &expected, &what);
                }
            }
        }
    }
}

/// The packet as its sender sent it, but for what two translations lose: it may be fragmented as IPv4 has it.
fn quoted(sent: &Frame, translated: &Frame) -> Frame {
    Frame { fragment: 0, ttl: translated.ttl, ..sent.clone() }
}

fn quoted_back(reply: &Frame) -> Frame {
    Frame { fragment: 0, ..reply.clone() }
}

/// Whether two errors are the same but for MACs, time to live, and the number of an IPv4 packet and the sums over it.
fn same_error(out: &[u8], expected: &[u8], what: &str) {
    let frame = Frame::parse(out);
    let expected_frame = Frame::parse(expected);
    assert_eq!(
        (frame.carries, frame.from.ip()),
        (expected_frame.carries, expected_frame.from.ip())
    );
    assert_eq!(frame.to.ip(), expected_frame.to.ip(), "{what}");
    let at = if out[12..14] == [8, 0] { 34 } else { 54 };
    assert_eq!(out[at + 4..at + 8], expected[at + 4..at + 8], "{what}: what follows the checksum");
    let plain = |frame: &Frame| {
        let mut quoted = frame.payload.clone();
        if quoted[0] >> 4 == 4 {
            assert_eq!(sum(&[&quoted[..20]]), 0, "{what}: the quoted header's checksum");
            quoted[4..6].fill(0);
            quoted[10..12].fill(0);
        }
        quoted
    };
    assert_eq!(plain(&frame), plain(&expected_frame), "{what}");
}

#[test]
fn an_error_about_a_fragment_names_a_size_with_room_for_the_fragment_header() {
    for (hook, sides) in each() {
        let what = format!("{hook:?} {sides:?}");
        let mut scene = scene(sides);
        let first = Frame { fragment: MORE_FRAGMENTS, ..packet(UDP, sides.client, sides.vip) };
        let there = scene.send(hook, &first.payload(1024)).frame();
        let to = SocketAddr::new(there.from.ip(), 0).to_string();
        let (kind, router, at) = match there.to.is_ipv6() {
            true => ([2, 0], "[2001:db8:2::fe]:9", 34),
            false => ([3, 4], "10.2.0.254:9", 54),
        };
        let about = error(kind, 1400, router, &to, &there, 8);
        let ended = scene.send_bytes(hook, &about, None);
        assert_eq!(ended.reason, Reason::ErrorToClient, "{what}");
        let out = ended.bytes();
        let (says, size) = (&out[at..at + 2], &out[at + 6..at + 8]);
        // Quoted as a fragment.
        if at == 34 {
            assert_eq!((says, size), (&[3, 4][..], &1372_u16.to_be_bytes()[..]), "{what}");
            assert_eq!(out[48..50], MORE_FRAGMENTS.to_be_bytes(), "{what}");
        } else {
            assert_eq!((says, size), (&[2, 0][..], &1428_u16.to_be_bytes()[..]), "{what}");
            assert_eq!((out[54 + 8 + 6], &out[54 + 48..][..4]), (44, &[17, 0, 0, 1][..]), "{what}");
        }
    }
}

#[test]
fn an_error_that_would_be_too_big_in_the_other_family_is_dropped() {
    for (hook, sides) in each() {
        let what = format!("{hook:?} {sides:?}");
        let mut scene = scene(sides);
        let sent = packet(UDP, sides.client, sides.vip).payload(1432);
        let there = scene.send(hook, &sent).frame();
        let reply = Frame { to: there.from, ..packet(UDP, sides.backend, sides.vip).payload(1432) };
        let back = scene.send(hook, &reply).frame();
        // What has become IPv4, and which side hears of it.
        let (about, router, reason) = match there.to.is_ipv4() {
            true => (there, "10.2.0.254:9", Reason::ErrorToClient),
            false => (back, "10.1.7.7:9", Reason::ErrorToBackend),
        };
        let to = SocketAddr::new(about.from.ip(), 0).to_string();
        // In IPv6 two headers are 20 bytes longer each.
        for (after, expected) in [(1412, reason), (1413, Reason::Untranslatable)] {
            let about = error([3, 3], 0, router, &to, &about, after);
            let ended = scene.send_bytes(hook, &about, None);
            assert_eq!(ended.reason, expected, "{what} {after}");
        }
    }
}

#[test]
fn an_error_that_is_damaged_or_has_no_counterpart_is_dropped() {
    for sides in SIDES {
        let mut scene = scene(sides);
        for hook in BOTH {
            let there = scene.send(hook, &packet(UDP, sides.client, sides.vip)).frame();
            let (kind, router) = if there.to.is_ipv6() {
                ([4, 2], "[2001:db8:2::fe]:9")
            } else {
                ([3, 14], "10.2.0.254:9")
            };
            let to = SocketAddr::new(there.from.ip(), 0).to_string();
            let about = error(kind, 0, router, &to, &there, 8);
            let ended = scene.send_bytes(hook, &about, None);
            assert_eq!(ended.reason, Reason::Untranslatable, "{hook:?} {sides:?}");
            let kind = if there.to.is_ipv6() { [1, 4] } else { [3, 3] };
            let mut about = error(kind, 0, router, &to, &there, 17);
            *about.last_mut().unwrap() ^= 1;
            let ended = scene.send_bytes(hook, &about, None);
            assert_eq!(ended.reason, Reason::Malformed, "{hook:?} {sides:?}");
        }
    }
}

#[test]
fn a_flow_ends_in_both_tables_at_once() {
    for (hook, sides) in each() {
        let mut scene = scene(sides);
        let out = scene.send(hook, &packet(SYN, sides.client, sides.vip)).frame();
        let back = |carries| Frame { to: out.from, ..packet(carries, sides.backend, sides.vip) };
        scene.send(hook, &back(SYN_ACK));
        scene.send(hook, &packet(ACK, sides.client, sides.vip));
        // A connection that begins anew comes from another port.
        scene.send(hook, &packet(FIN, sides.client, sides.vip));
        scene.send(hook, &back(FIN));
        let again = scene.send(hook, &packet(SYN, sides.client, sides.vip)).frame();
        assert_ne!(again.from, out.from);
        let ended = scene.send(hook, &back(ACK));
        assert_ne!(ended.reason, Reason::ForwardedToClient, "{hook:?} {sides:?}");
        scene.send(hook, &Frame { to: again.from, ..back(RST) });
        scene.let_pass(seconds(60));
        assert_eq!(scene.age().0, 1, "{hook:?} {sides:?}");
        assert_eq!((scene.entries(), scene.entries6()), (vec![], vec![]), "{hook:?} {sides:?}");
        let ended = scene.send(hook, &Frame { to: again.from, ..back(ACK) });
        assert_ne!(ended.reason, Reason::ForwardedToClient, "{hook:?} {sides:?}");
        let counters = scene.get().service_counters().unwrap();
        assert!(counters.values().flat_map(|s| &s.backends).all(|b| b.active + b.half_open == 0));
    }
}

#[test]
fn both_sides_of_a_silent_flow_hear_a_rst_in_their_own_family() {
    for (hook, sides) in each() {
        let mut scene = Scene::new();
        scene.template.resets_idle = true;
        let mut scene = serving(scene, sides);
        let out = scene.send(hook, &packet(SYN, sides.client, sides.vip)).frame();
        let back = Frame { to: out.from, ..packet(SYN_ACK, sides.backend, sides.vip) };
        scene.send(hook, &back);
        scene.send(hook, &packet(ACK, sides.client, sides.vip));
        scene.let_pass(Timeouts::default().tcp_established + 1);
        let told: Vec<_> = scene.age().1.iter().map(|reset| reset.to).collect();
        assert_eq!(
            told,
            [address(sides.client).ip(), address(sides.backend).ip()],
            "{hook:?} {sides:?}"
        );
    }
}

#[test]
fn ports_of_a_source_are_shared_by_no_two_flows_and_run_out_counted() {
    for (hook, sides) in each() {
        let mut scene = Scene::new();
        let address = sides.source.parse().unwrap();
        scene.sources = vec![Source { address, first_port: 2000, last_port: 2003 }];
        scene.serve(sides.vip, Tcp, RoundRobin, &[sides.backend]);
        let mut seen = BTreeSet::new();
        let mut client: SocketAddr = sides.client.parse().unwrap();
        for port in 40_000..40_004 {
            client.set_port(port);
            let sent = scene.send(hook, &packet(SYN, &client.to_string(), sides.vip)).frame();
            assert!((2000..2004).contains(&sent.from.port()));
            assert!(seen.insert(sent.from), "{hook:?}: {sent:?}");
        }
        client.set_port(41_000);
        let ended = scene.send(hook, &packet(SYN, &client.to_string(), sides.vip));
        assert_eq!(ended.reason, Reason::NoSourcePort, "{hook:?} {sides:?}");
    }
}

#[test]
fn where_one_table_is_full_no_entry_stays_in_the_other() {
    for (hook, sides) in each() {
        // Room for clients' directions only a little.
        let sizes = match address(sides.client).is_ipv4() {
            true => Sizes { flow_entries: 8, ..small() },
            false => Sizes { flow_entries6: 8, ..small() },
        };
        let mut scene = serving(Scene::with_sizes(sizes), sides);
        let mut client: SocketAddr = sides.client.parse().unwrap();
        let mut refused = 0;
        for port in 40_000..40_032 {
            client.set_port(port);
            let ended = scene.send(hook, &packet(SYN, &client.to_string(), sides.vip));
            refused += u32::from(ended.reason == Reason::FlowTableFull);
        }
        let flows = scene.get().flows(99).len();
        let both = [scene.entries().len(), scene.entries6().len()];
        assert_eq!(both, [flows; 2], "{hook:?} {sides:?}, {refused} refused");
    }
}

#[test]
fn a_backend_without_an_address_of_ours_in_its_family_is_refused() {
    for sides in SIDES {
        let mut scene = Scene::new();
        let wrong = if address(sides.backend).is_ipv4() { FROM_4_TO_6 } else { FROM_6_TO_4 };
        for (sources, says) in [(None, "one-arm"), (Some(wrong.source), "addresses of its own")] {
            let mut services = scene.services(&[(sides.vip, Tcp, Maglev, &[sides.backend])]);
            let source =
                |a: &str| Source { address: a.parse().unwrap(), first_port: 2000, last_port: 2999 };
            for backend in services.values_mut().flat_map(|service| &mut service.backends) {
                backend.sources = sources.map(source).into_iter().collect();
            }
            let error = scene.get().apply(&Table { services }).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}

/// RFC 7915 §4.2, §5.2: the length of what is quoted is said anew, in units of 4 bytes or of 8, of 128 bytes at least (RFC 4884).
#[test]
fn extensions_of_errors_are_where_the_error_says_that_they_are() {
    // Two labels of MPLS (RFC 4950), and as much as there may be.
    let labels = vec![0x20, 0, 0xbe, 0xef, 0, 12, 1, 1, 0, 1, 0x41, 1, 0, 2, 0x41, 2];
    let much = [&[0x20, 0, 0xbe, 0xef, 0, 252, 9, 9][..], &[7; 248]].concat();
    for (sides, [kind, said], [new_kind, new_said], len, zeroes) in [
        (FROM_4_TO_6, [[1, 4], [16, 0]], [[3, 3], [0, 32]], 108, 20),
        (FROM_6_TO_4, [[3, 3], [0, 32]], [[1, 4], [19, 0]], 148, 4),
    ] {
        let mut scene = scene(sides);
        let number = |said: [u8; 2]| u32::from_be_bytes([said[0], said[1], 0, 0]);
        for hook in BOTH {
            let what = format!("{hook:?} {sides:?}");
            let sent = packet(UDP, sides.client, sides.vip).payload(600);
            let translated = Frame { ttl: 64, ..scene.send(hook, &sent).frame() };
            let router =
                if translated.to.is_ipv6() { "[2001:db8:2::fe]:9" } else { "10.2.0.254:9" };
            let to = SocketAddr::new(translated.from.ip(), 0).to_string();
            let quoting = translated.bytes()[14..142].to_vec();
            let quoted = quoted(&sent, &translated).bytes()[14..14 + len].to_vec();
            let without = (quoting.clone(), quoted.clone(), [0; 2]);
            let with = [&labels, &much].map(|extensions| {
                let new = [&quoted[..], &vec![0; zeroes], extensions].concat();
                ([&quoting[..], extensions].concat(), new, new_said)
            });
            // Where it is said that there are some, but there are none, nothing is said any more.
            for (old, new, new_said) in with.into_iter().chain([without]) {
                let about = error_with(kind, number(said), router, &to, old);
                let ended = scene.send_bytes(hook, &about, None);
                assert_eq!(ended.reason, Reason::ErrorToClient, "{what}");
                let (vip, client) = (sides.vip, sides.client);
                let expected = error_with(new_kind, number(new_said), vip, client, new);
                same_error(ended.bytes(), &expected, &what);
                assert_eq!(scene.send_summed(&about), Reason::ErrorToClient, "{what}");
            }
        }
    }
}
