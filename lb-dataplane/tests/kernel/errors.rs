//! ICMP errors about flows, packets that are too big, and fragments.

use std::time::Instant;

use lb_dataplane::Reason;
use lb_dataplane::table::Algorithm::{Maglev, RoundRobin};
use lb_dataplane::table::Protocol::{Tcp, Udp};

use crate::frame::{ACK, Carries, Frame, SYN, SYN_ACK, UDP, packet};
use crate::routed::routed;
use crate::scene::{BOTH, CLIENT_SIDE, Scene};

const VIP: &str = "192.0.2.1:80";
const CLIENT: &str = "10.1.0.5:40000";
const BACKEND: &str = "10.2.0.9:8080";
const KINDS: [(u8, u8); 4] = [(3, 3), (3, 4), (11, 0), (12, 0)];
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;

fn scene() -> Scene {
    let mut scene = Scene::new();
    scene.apply(&[(VIP, Tcp, RoundRobin, &[BACKEND]), (VIP, Udp, RoundRobin, &[BACKEND])]);
    scene
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
    let len = (20 + about.options.len() + after_header).min(quoted.len());
    Frame { payload: quoted[..len].to_vec(), ..packet(Carries::Icmp { kind, code }, from, to) }
}

#[test]
fn an_error_about_a_packet_to_the_backend_reaches_the_client_from_the_vip_and_as_its_own() {
    let mut scene = scene();
    for hook in BOTH {
        // Of TCP the ports, the header with its checksum, and all.
        for (carries, answer, quoted) in [
            (SYN, SYN_ACK, 8),
            (SYN, SYN_ACK, 20),
            (SYN, SYN_ACK, 37),
            (UDP, UDP, 8),
            (UDP, UDP, 25),
        ] {
            let options = vec![1; 8];
            let sent = Frame { options, ..packet(carries, CLIENT, VIP) };
            scene.send(hook, &sent);
            scene.send(hook, &packet(answer, BACKEND, CLIENT));
            let translated = Frame { to: BACKEND.parse().unwrap(), ..sent.clone() };
            for kind in KINDS {
                // The backend's own error, or that of a router before it.
                for from in ["10.2.0.9:9", "10.2.0.254:9"] {
                    let before = error(kind, from, "10.1.0.5:0", &translated, quoted);
                    let ended = scene.send(hook, &before);
                    assert_eq!((ended.reason, ended.ifindex), (Reason::ErrorToClient, 7));
                    let frame = ended.frame();
                    let expected = error(kind, "192.0.2.1:9", "10.1.0.5:0", &sent, quoted);
                    assert_eq!(frame.payload, expected.payload, "{hook:?} {carries:?} {kind:?}");
                    assert_eq!((frame.from, frame.to), (expected.from, expected.to));
                    assert_eq!((frame.carries, frame.ttl), (expected.carries, 63));
                }
            }
        }
    }
}

#[test]
fn an_error_about_a_packet_to_the_client_reaches_the_backend_as_its_own() {
    for hook in BOTH {
        let mut scene = scene();
        for (first, answer, quoted) in
            [(UDP, UDP, 25), (SYN, SYN_ACK, 8), (SYN, SYN_ACK, 20), (SYN, SYN_ACK, 37)]
        {
            scene.send(hook, &packet(first, CLIENT, VIP));
            let sent = packet(answer, BACKEND, CLIENT);
            scene.send(hook, &sent);
            let translated = Frame { from: VIP.parse().unwrap(), ..sent.clone() };
            for kind in KINDS {
                let about = error(kind, "10.1.7.7:9", "192.0.2.1:0", &translated, quoted);
                let ended = scene.send(hook, &about);
                assert_eq!((ended.reason, ended.ifindex), (Reason::ErrorToBackend, 8), "{hook:?}");
                let expected = error(kind, "10.1.7.7:9", "10.2.0.9:0", &sent, quoted);
                let frame = ended.frame();
                assert_eq!(frame.payload, expected.payload, "{hook:?} {kind:?} {answer:?}");
                assert_eq!((frame.from, frame.to), (expected.from, expected.to));
            }
        }
    }
}

/// A forged one would lead its content to somebody else's client.
#[test]
fn an_error_that_is_not_for_who_sent_what_it_quotes_is_about_no_flow() {
    let mut scene = scene();
    for hook in BOTH {
        let sent = packet(UDP, CLIENT, VIP);
        scene.send(hook, &sent);
        let translated = Frame { to: BACKEND.parse().unwrap(), ..sent };
        let other = error((3, 3), "10.2.0.9:9", "10.1.0.6:0", &translated, 8);
        let ended = scene.send(hook, &other);
        assert_eq!(ended.reason, Reason::Forwarded, "{hook:?}");
        assert_eq!(ended.frame(), routed(&other, &CLIENT_SIDE), "{hook:?}");
        let vips = error((3, 3), "10.2.0.9:9", "192.0.2.1:0", &translated, 8);
        assert_eq!(scene.send(hook, &vips).reason, Reason::VipWithoutService, "{hook:?}");
    }
}

#[test]
fn an_error_about_no_flow_is_routed_as_it_is_or_the_kernels_at_a_vip() {
    for hook in BOTH {
        let mut scene = scene();
        let about = packet(UDP, CLIENT, BACKEND);
        let fragment = Frame { fragment: 0x00b9, ..about.clone() };
        let inner_tcp = packet(ACK, CLIENT, BACKEND);
        for (to, about, quoted, reason) in [
            ("10.1.0.5:0", &about, 8, Reason::Forwarded),
            ("10.1.0.5:0", &fragment, 8, Reason::Forwarded),
            ("10.1.0.5:0", &inner_tcp, 4, Reason::Forwarded),
            ("192.0.2.1:0", &about, 8, Reason::VipWithoutService),
        ] {
            let frame = error((3, 3), "10.2.0.254:9", to, about, quoted);
            let ended = scene.send(hook, &frame);
            assert_eq!(ended.reason, reason, "{hook:?}");
            if reason == Reason::Forwarded {
                let routed = routed(&frame, &CLIENT_SIDE);
                assert_eq!(ended.frame(), routed, "{hook:?}");
            } else {
                assert_eq!(ended.bytes(), frame.bytes());
            }
        }
        assert_eq!(scene.entries().len(), 0);
    }
}

#[test]
fn an_error_neither_prolongs_nor_ends_a_flow() {
    for hook in BOTH {
        let mut scene = scene();
        scene.send(hook, &packet(SYN, CLIENT, VIP));
        let before = scene.entries();
        let about = packet(SYN, CLIENT, BACKEND);
        let ended = scene.send(hook, &error((3, 1), "10.2.0.254:9", "10.1.0.5:0", &about, 8));
        assert_eq!(ended.reason, Reason::ErrorToClient);
        assert_eq!(scene.entries(), before, "{hook:?}");
    }
}

#[test]
fn a_packet_too_big_that_must_stay_whole_is_dropped_and_its_sender_told_with_its_own_packet() {
    for hook in BOTH {
        let mut scene = scene();
        scene.send(hook, &packet(SYN, CLIENT, VIP));
        let mut punts = scene.get().take_punts().unwrap().unwrap();
        while punts.next_answer(Instant::now()).is_some() {}
        for (from, to) in [(CLIENT, VIP), (BACKEND, CLIENT)] {
            let big = Frame { fragment: DONT_FRAGMENT, ..packet(ACK, from, to).payload(1461) };
            let ended = scene.send(hook, &big);
            assert_eq!(ended.reason, Reason::FlowTooBig, "{hook:?}");
            let answer = punts.next_answer(Instant::now()).expect("its sender is to be told");
            assert_eq!(answer.to, big.from.ip());
            assert_eq!(answer.packet[20..22], [3, 4]);
            assert_eq!(answer.packet[26..28], 1500_u16.to_be_bytes());
            assert_eq!(answer.packet[28..], big.bytes()[14..14 + 68], "{hook:?}: as it was sent");
            assert_eq!(punts.next_answer(Instant::now()), None);

            let whole = Frame { fragment: DONT_FRAGMENT, ..packet(ACK, from, to).payload(1460) };
            assert_eq!(scene.send(hook, &whole).reason.kind(), lb_dataplane::Kind::Forward);
            let fits = packet(ACK, from, to).payload(1461);
            assert_eq!(scene.send(hook, &fits).reason, Reason::FlowToBeFragmented);
            assert_eq!(punts.next_answer(Instant::now()), None);
        }
    }
}

#[test]
fn a_senders_time_to_live_that_ends_here_is_told() {
    for hook in BOTH {
        let mut scene = scene();
        let mut punts = scene.get().take_punts().unwrap().unwrap();
        let dying = packet(SYN, CLIENT, VIP).ttl(1);
        assert_eq!(scene.send(hook, &dying).reason, Reason::FlowTtlExpired, "{hook:?}");
        let answer = punts.next_answer(Instant::now()).expect("its sender is to be told");
        assert_eq!(answer.packet[20..22], [11, 0]);
        assert_eq!(answer.packet[28..], dying.bytes()[14..14 + 28]);
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
fn together(fragments: &[Vec<u8>]) -> Frame {
    let mut bytes = fragments[0].clone();
    fragments[1..].iter().for_each(|fragment| bytes.extend(&fragment[34..]));
    let len = (bytes.len() - 14) as u16;
    bytes[16..18].copy_from_slice(&len.to_be_bytes());
    bytes[20..22].fill(0);
    bytes[24..26].fill(0);
    let mut sum: u32 =
        bytes[14..34].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    bytes[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    Frame::parse(&bytes)
}

#[test]
fn fragments_follow_their_first_both_ways() {
    for hook in BOTH {
        let mut scene = Scene::new();
        scene.serve(VIP, Udp, Maglev, &[BACKEND]);
        for (from, to, source, destination, reason) in [
            (CLIENT, VIP, CLIENT, BACKEND, Reason::ForwardedToBackend),
            (BACKEND, CLIENT, VIP, CLIENT, Reason::ForwardedToClient),
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
            assert_eq!(whole.from.to_string(), source, "{hook:?}");
            assert_eq!(whole.to.to_string(), destination, "{hook:?}");
            assert_eq!(whole.payload, packet(UDP, from, to).payload(4000).payload);
        }
    }
}

#[test]
fn an_error_about_a_flow_that_comes_in_fragments_is_dropped() {
    for hook in BOTH {
        let mut scene = scene();
        let sent = packet(UDP, CLIENT, VIP);
        scene.send(hook, &sent);
        let translated = Frame { to: BACKEND.parse().unwrap(), ..sent };
        let whole = error((3, 3), "10.2.0.9:9", "10.1.0.5:0", &translated, 8);
        assert_eq!(scene.send(hook, &whole).reason, Reason::ErrorToClient, "{hook:?}");
        let first = Frame { fragment: MORE_FRAGMENTS, ..whole };
        assert_eq!(scene.send(hook, &first).reason, Reason::Untranslatable, "{hook:?}");
        // What a router says of an answer is for the VIP.
        let answer = packet(UDP, VIP, CLIENT);
        let whole = error((3, 3), "10.1.0.254:9", "192.0.2.1:0", &answer, 8);
        assert_eq!(scene.send(hook, &whole).reason, Reason::ErrorToBackend, "{hook:?}");
        let first = Frame { fragment: MORE_FRAGMENTS, ..whole };
        assert_eq!(scene.send(hook, &first).reason, Reason::Untranslatable, "{hook:?}");
        // One about no flow goes like other packets.
        let about = packet(UDP, CLIENT, "10.2.0.7:8080");
        let whole = error((3, 3), "10.2.0.254:9", "10.1.0.5:0", &about, 8);
        let first = Frame { fragment: MORE_FRAGMENTS, ..whole };
        assert_eq!(scene.send(hook, &first).reason, Reason::Forwarded, "{hook:?}");
    }
}
