//! ICMP errors about flows, packets that are too big, and fragments.

use std::net::SocketAddr;
use std::time::Instant;

use lb_dataplane::Reason;
use lb_dataplane::table::Algorithm::RoundRobin;
use lb_dataplane::table::Protocol::{Tcp, Udp};

use crate::family::{Family, each};
use crate::frame::{ACK, Carries, Frame, SYN, SYN_ACK, UDP, packet, sum};
use crate::routed::routed;
use crate::scene::{CLIENT_SIDE, Scene};

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;

fn scene(family: Family) -> Scene {
    let [vip, _, backend] = &family.ends();
    let mut scene = Scene::new();
    scene.apply(&[(vip, Tcp, RoundRobin, &[backend]), (vip, Udp, RoundRobin, &[backend])]);
    scene
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Without its port, as ICMP has it.
fn host(text: &str) -> String {
    SocketAddr::new(address(text).ip(), 0).to_string()
}

/// Routers before the clients and before the backends.
fn routers(family: Family) -> [String; 2] {
    [family.at(1, 254, 9), family.at(2, 254, 9)]
}

/// Unreachable, too big, time exceeded, parameter problem.
const fn kinds(family: Family) -> [(u8, u8); 4] {
    match family {
        Family::V4 => [(3, 3), (3, 4), (11, 0), (12, 0)],
        Family::V6 => [(1, 4), (2, 0), (3, 0), (4, 1)],
    }
}

/// An error that quotes a packet's header, and as much of what follows.
fn error(
    (kind, code): (u8, u8),
    from: &str,
    to: &str,
    about: &Frame,
    after_header: usize,
) -> Frame {
    let quoted = about.bytes()[14..].to_vec();
    let header_len = if about.from.is_ipv4() { 20 } else { 40 };
    let len = (header_len + about.options.len() + after_header).min(quoted.len());
    Frame { payload: quoted[..len].to_vec(), ..packet(Carries::Icmp { kind, code }, from, to) }
}

/// An ICMP message as the dataplane has it made: kind and code, the size that fits if it says one, and what it quotes.
fn told(family: Family, packet: &[u8]) -> ([u8; 2], u16, &[u8]) {
    let icmp = if family == Family::V4 { &packet[20..] } else { packet };
    ([icmp[0], icmp[1]], u16::from_be_bytes([icmp[6], icmp[7]]), &icmp[8..])
}

#[test]
fn an_error_about_a_packet_to_the_backend_reaches_the_client_from_the_vip_and_as_its_own() {
    for (hook, family) in each() {
        let [vip, client, backend] = &family.ends();
        let mut scene = scene(family);
        // Of TCP the ports, the header with its checksum, and all.
        for (carries, answer, quoted) in [
            (SYN, SYN_ACK, 8),
            (SYN, SYN_ACK, 20),
            (SYN, SYN_ACK, 37),
            (UDP, UDP, 8),
            (UDP, UDP, 25),
        ] {
            let options = if family == Family::V4 { vec![1; 8] } else { vec![] };
            let sent = Frame { options, ..packet(carries, client, vip) };
            scene.send(hook, &sent);
            scene.send(hook, &packet(answer, backend, client));
            let translated = Frame { to: address(backend), ..sent.clone() };
            for kind in kinds(family) {
                // The backend's own error, or that of a router before it.
                for from in [backend, &routers(family)[1]] {
                    let what = format!("{hook:?} {family:?} {carries:?} {kind:?}");
                    let before = error(kind, from, &host(client), &translated, quoted);
                    let ended = scene.send(hook, &before);
                    let seen = (ended.reason, ended.ifindex);
                    assert_eq!(seen, (Reason::ErrorToClient, 7), "{what}");
                    let frame = ended.frame();
                    let expected = error(kind, &host(vip), &host(client), &sent, quoted);
                    assert_eq!(frame.payload, expected.payload, "{what}");
                    assert_eq!((frame.from.ip(), frame.to), (expected.from.ip(), expected.to));
                    assert_eq!((frame.carries, frame.ttl), (expected.carries, 63), "{what}");
                }
            }
        }
    }
}

#[test]
fn an_error_about_a_packet_to_the_client_reaches_the_backend_as_its_own() {
    for (hook, family) in each() {
        let [vip, client, backend] = &family.ends();
        let mut scene = scene(family);
        for (first, answer, quoted) in
            [(UDP, UDP, 25), (SYN, SYN_ACK, 8), (SYN, SYN_ACK, 20), (SYN, SYN_ACK, 37)]
        {
            scene.send(hook, &packet(first, client, vip));
            let sent = packet(answer, backend, client);
            scene.send(hook, &sent);
            let translated = Frame { from: address(vip), ..sent.clone() };
            let [router, _] = &routers(family);
            for kind in kinds(family) {
                let what = format!("{hook:?} {family:?} {answer:?} {kind:?}");
                let about = error(kind, router, &host(vip), &translated, quoted);
                let ended = scene.send(hook, &about);
                let seen = (ended.reason, ended.ifindex);
                assert_eq!(seen, (Reason::ErrorToBackend, 8), "{what}");
                let expected = error(kind, router, &host(backend), &sent, quoted);
                let frame = ended.frame();
                assert_eq!(frame.payload, expected.payload, "{what}");
                assert_eq!((frame.from, frame.to), (expected.from, expected.to), "{what}");
            }
        }
    }
}

/// A forged one would lead its content to somebody else's client.
#[test]
fn an_error_that_is_not_for_who_sent_what_it_quotes_is_about_no_flow() {
    for (hook, family) in each() {
        let [vip, client, backend] = &family.ends();
        let (mut scene, [kind, ..]) = (scene(family), kinds(family));
        let sent = packet(UDP, client, vip);
        scene.send(hook, &sent);
        let translated = Frame { to: address(backend), ..sent };
        let other = error(kind, backend, &family.at(1, 6, 0), &translated, 8);
        let ended = scene.send(hook, &other);
        assert_eq!(ended.reason, Reason::Forwarded, "{hook:?} {family:?}");
        assert_eq!(ended.frame(), routed(&other, &CLIENT_SIDE), "{hook:?} {family:?}");
        let vips = error(kind, backend, &host(vip), &translated, 8);
        assert_eq!(scene.send(hook, &vips).reason, Reason::VipWithoutService, "{hook:?}");
    }
}

#[test]
fn an_error_about_no_flow_is_routed_as_it_is_or_the_kernels_at_a_vip() {
    for (hook, family) in each() {
        let [vip, client, backend] = &family.ends();
        let mut scene = scene(family);
        let about = packet(UDP, client, backend);
        let fragment = Frame { fragment: 0x00b9, ..about.clone() };
        let inner_tcp = packet(ACK, client, backend);
        for (to, about, quoted, reason) in [
            (client, &about, 8, Reason::Forwarded),
            (client, &fragment, 8, Reason::Forwarded),
            (client, &inner_tcp, 4, Reason::Forwarded),
            (vip, &about, 8, Reason::VipWithoutService),
        ] {
            let [kind, ..] = kinds(family);
            let frame = error(kind, &routers(family)[1], &host(to), about, quoted);
            let ended = scene.send(hook, &frame);
            assert_eq!(ended.reason, reason, "{hook:?} {family:?}");
            if reason == Reason::Forwarded {
                let routed = routed(&frame, &CLIENT_SIDE);
                assert_eq!(ended.frame(), routed, "{hook:?} {family:?}");
            } else {
                assert_eq!(ended.bytes(), frame.bytes(), "{hook:?} {family:?}");
            }
        }
        assert_eq!(scene.entries().len() + scene.entries6().len(), 0);
    }
}

#[test]
fn an_error_neither_prolongs_nor_ends_a_flow() {
    for (hook, family) in each() {
        let [vip, client, backend] = &family.ends();
        let mut scene = scene(family);
        scene.send(hook, &packet(SYN, client, vip));
        let before = (scene.entries(), scene.entries6());
        assert_eq!(before.0.len() + before.1.len(), 2, "{hook:?} {family:?}");
        let about = packet(SYN, client, backend);
        for kind in kinds(family) {
            let about = error(kind, &routers(family)[1], &host(client), &about, 8);
            assert_eq!(scene.send(hook, &about).reason, Reason::ErrorToClient, "{hook:?}");
        }
        assert_eq!((scene.entries(), scene.entries6()), before, "{hook:?} {family:?}");
    }
}

#[test]
fn a_packet_too_big_that_must_stay_whole_is_dropped_and_its_sender_told_with_its_own_packet() {
    for (hook, family) in each() {
        let [vip, client, backend] = &family.ends();
        let what = format!("{hook:?} {family:?}");
        // IPv6 is never fragmented on its way.
        let (kind, most, must_stay_whole) = match family {
            Family::V4 => ([3, 4], 1460, DONT_FRAGMENT),
            Family::V6 => ([2, 0], 1440, 0),
        };
        let mut scene = scene(family);
        scene.send(hook, &packet(SYN, client, vip));
        let mut punts = scene.get().take_punts().unwrap().unwrap();
        while punts.next_answer(Instant::now()).is_some() {}
        for (from, to) in [(client, vip), (backend, client)] {
            let whole = Frame { fragment: must_stay_whole, ..packet(ACK, from, to) };
            let big = whole.clone().payload(most + 1);
            let ended = scene.send(hook, &big);
            assert_eq!(ended.reason, Reason::FlowTooBig, "{what}");
            let answer = punts.next_answer(Instant::now()).expect("its sender is to be told");
            assert_eq!(answer.to, big.from.ip(), "{what}");
            let (says, size, quoted) = told(family, &answer.packet);
            assert_eq!((says, size), (kind, 1500), "{what}");
            assert!(quoted.len() >= 68, "{what}: {} bytes", quoted.len());
            assert!(big.bytes()[14..].starts_with(quoted), "{what}: as it was sent");
            assert_eq!(punts.next_answer(Instant::now()), None, "{what}");

            let fits = scene.send(hook, &whole.payload(most));
            assert_eq!(fits.reason.kind(), lb_dataplane::Kind::Forward, "{what}");
            if family == Family::V4 {
                let may_be_parted = packet(ACK, from, to).payload(most + 1);
                assert_eq!(scene.send(hook, &may_be_parted).reason, Reason::FlowToBeFragmented);
            }
            assert_eq!(punts.next_answer(Instant::now()), None, "{what}");
        }
    }
}

#[test]
fn a_senders_time_to_live_that_ends_here_is_told() {
    for (hook, family) in each() {
        let [vip, client, _] = &family.ends();
        let mut scene = scene(family);
        let mut punts = scene.get().take_punts().unwrap().unwrap();
        let dying = packet(SYN, client, vip).ttl(1);
        assert_eq!(scene.send(hook, &dying).reason, Reason::FlowTtlExpired, "{hook:?} {family:?}");
        let answer = punts.next_answer(Instant::now()).expect("its sender is to be told");
        let (says, _, quoted) = told(family, &answer.packet);
        assert_eq!(says, if family == Family::V4 { [11, 0] } else { [3, 0] }, "{hook:?}");
        assert!(quoted.len() >= 28 && dying.bytes()[14..].starts_with(quoted), "{hook:?}");
    }
}

/// A datagram of 4,008 bytes in three fragments.
pub(crate) fn fragments(from: &str, to: &str) -> [Frame; 3] {
    let whole = packet(UDP, from, to).payload(4000);
    let header = if whole.to.is_ipv4() { 34 } else { 54 };
    let datagram = whole.bytes()[header..].to_vec();
    let part = |offset: usize, len: usize, flags: u16| {
        let end = (offset + len).min(datagram.len());
        let mut frame = packet(Carries::Other(17), from, to);
        frame.payload = datagram[offset..end].to_vec();
        frame.fragment = flags | (offset / 8) as u16;
        frame
    };
    let len = 1400;
    [part(0, len, MORE_FRAGMENTS), part(len, len, MORE_FRAGMENTS), part(2 * len, len, 0)]
}

/// What fragments make together, as the frame that they were.
pub(crate) fn together(fragments: &[Vec<u8>]) -> Frame {
    let is_v4 = fragments[0][12..14] == [8, 0];
    // IPv6 has a header for it.
    let header_len = if is_v4 { 34 } else { 62 };
    let datagram = fragments.iter().flat_map(|fragment| &fragment[header_len..]);
    let datagram: Vec<u8> = datagram.copied().collect();
    let mut header = fragments[0][..if is_v4 { 34 } else { 54 }].to_vec();
    if is_v4 {
        header[16..18].copy_from_slice(&(20 + datagram.len() as u16).to_be_bytes());
        header[20..22].fill(0);
        header[24..26].fill(0);
        let checksum = sum(&[&header[14..]]);
        header[24..26].copy_from_slice(&checksum.to_be_bytes());
    } else {
        header[18..20].copy_from_slice(&(datagram.len() as u16).to_be_bytes());
        header[20] = fragments[0][54];
    }
    Frame::parse(&[header, datagram].concat())
}

#[test]
fn fragments_follow_their_first_both_ways() {
    for (hook, family) in each() {
        let [vip, client, backend] = &family.ends();
        let mut scene = scene(family);
        for (from, to, source, destination, reason) in [
            (client, vip, client, backend, Reason::ForwardedToBackend),
            (backend, client, vip, client, Reason::ForwardedToClient),
        ] {
            let sent = fragments(from, to);
            let bytes: Vec<Vec<u8>> = sent
                .iter()
                .map(|fragment| {
                    let ended = scene.send(hook, fragment);
                    assert_eq!(ended.reason, reason, "{hook:?} {:x}", fragment.fragment);
                    ended.bytes().to_vec()
                })
                .collect();
            let whole = together(&bytes);
            let ends = [whole.from, whole.to].map(|end| end.to_string());
            assert_eq!(ends.each_ref(), [source, destination], "{hook:?} {family:?}");
            assert_eq!(whole.payload, packet(UDP, from, to).payload(4000).payload);
        }
    }
}

#[test]
fn an_error_about_a_flow_that_comes_in_fragments_is_dropped() {
    for (hook, family) in each() {
        let [vip, client, backend] = &family.ends();
        let (mut scene, [kind, ..]) = (scene(family), kinds(family));
        let what = format!("{hook:?} {family:?}");
        let sent = packet(UDP, client, vip);
        scene.send(hook, &sent);
        let translated = Frame { to: address(backend), ..sent };
        let whole = error(kind, backend, &host(client), &translated, 8);
        assert_eq!(scene.send(hook, &whole).reason, Reason::ErrorToClient, "{what}");
        let first = Frame { fragment: MORE_FRAGMENTS, ..whole };
        assert_eq!(scene.send(hook, &first).reason, Reason::Untranslatable, "{what}");
        // What a router says of an answer is for the VIP.
        let answer = packet(UDP, vip, client);
        let [near_client, near_backend] = &routers(family);
        let whole = error(kind, near_client, &host(vip), &answer, 8);
        assert_eq!(scene.send(hook, &whole).reason, Reason::ErrorToBackend, "{what}");
        let first = Frame { fragment: MORE_FRAGMENTS, ..whole };
        assert_eq!(scene.send(hook, &first).reason, Reason::Untranslatable, "{what}");
        // One about no flow goes like other packets.
        let about = packet(UDP, client, &family.at(2, 7, 8080));
        let whole = error(kind, near_backend, &host(client), &about, 8);
        let first = Frame { fragment: MORE_FRAGMENTS, ..whole };
        assert_eq!(scene.send(hook, &first).reason, Reason::Forwarded, "{what}");
    }
}
