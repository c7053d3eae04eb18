//! SCTP (RFC 9260): flows, tags, sums, and the addresses that an INIT lists.

use std::net::SocketAddr;

use lb_dataplane::table::Algorithm::{Maglev, RoundRobin};
use lb_dataplane::table::Protocol::{Sctp, Udp};
use lb_dataplane::table::{Mode, Source};
use lb_dataplane::{FlowState, Hook, Reason, Timeouts};

use crate::frame::{Carries, Frame, crc32c, packet};
use crate::routed::routed;
use crate::scene::{BACKEND_SIDE, BOTH, CLIENT_SIDE, Scene};

const V4: [&str; 3] = ["10.1.0.5:40000", "192.0.2.1:80", "10.2.0.9:8080"];
const V6: [&str; 3] = ["[2001:db8:1::5]:40000", "[2001:db8:f::1]:80", "[2001:db8:2::9]:8080"];
/// To a backend of the other family.
const ACROSS: [[&str; 3]; 2] = [
    ["10.1.0.5:40000", "192.0.2.64:80", "[2001:db8:2::9]:8080"],
    ["[2001:db8:1::5]:40000", "[2001:db8:f::46]:80", "10.2.0.9:8080"],
];
const MORE_FRAGMENTS: u16 = 0x2000;

/// Both families at both hooks.
fn each() -> impl Iterator<Item = (Hook, [&'static str; 3])> {
    BOTH.into_iter().flat_map(|hook| [V4, V6].map(|ends| (hook, ends)))
}

/// The tags of packets to the client and to the backend.
const MINE: u32 = 0x1111_2222;
const ITS: u32 = 0x3333_4444;

const DATA: u8 = 0;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;

const fn chunk(chunk: u8, tag: u32) -> Carries {
    Carries::Sctp { chunk, flags: 0, tag }
}

/// Of a sender that knows no association.
const fn reflected(chunk: u8, tag: u32) -> Carries {
    Carries::Sctp { chunk, flags: 1, tag }
}

/// An INIT, or its answer where `tag` is not 0, with these parameters.
fn init(from: &str, to: &str, tag: u32, initiate_tag: u32, parameters: &[u8]) -> Frame {
    let fixed = [&initiate_tag.to_be_bytes()[..], &[0, 1, 0, 0, 0, 9, 0, 9, 0, 0, 0, 7]].concat();
    let carries = chunk(if tag == 0 { 1 } else { 2 }, tag);
    Frame { payload: [&fixed, parameters].concat(), ..packet(carries, from, to) }
}

/// What the four messages of a handshake are, in a flow that keeps its client's address.
fn handshake([client, vip, backend]: [&str; 3]) -> [Frame; 4] {
    [
        init(client, vip, 0, MINE, &[]),
        init(backend, client, MINE, ITS, &[0, 7, 0, 8, 1, 2, 3, 4]),
        packet(chunk(COOKIE_ECHO, ITS), client, vip),
        packet(chunk(COOKIE_ACK, MINE), backend, client),
    ]
}

fn scene() -> Scene {
    let mut scene = Scene::new();
    scene.apply(&[V4, V6].map(|[_, vip, backend]| (vip, Sctp, RoundRobin, leaked(backend))));
    scene
}

fn leaked(backend: &str) -> &'static [&'static str] {
    vec![&*backend.to_owned().leak()].leak()
}

/// Flows come from an address of ours.
fn full_nat() -> Scene {
    let mut scene = Scene::new();
    let source = |address: &str| {
        let address = address.parse().unwrap();
        Source { address, first_port: 2000, last_port: 2999 }
    };
    scene.sources = vec![source("192.0.2.2"), source("2001:db8:ff::2")];
    let all = [V4, V6, ACROSS[0], ACROSS[1]];
    scene.apply(&all.map(|[_, vip, backend]| (vip, Sctp, Maglev, leaked(backend))));
    scene
}

/// That of a client's flow.
fn state(scene: &mut Scene, client: &str) -> Option<FlowState> {
    let flows = scene.get().flows(99);
    let mut flows = flows.iter().filter(|flow| flow.client == address(client));
    let state = flows.next().map(|flow| {
        assert_eq!(flow.protocol, Sctp);
        flow.state
    });
    assert!(flows.next().is_none(), "one flow");
    state
}

/// Other ports of a client, so that tests share what is loaded.
fn clients(ends: [&'static str; 3]) -> impl Iterator<Item = [&'static str; 3]> {
    let [client, vip, backend] = ends;
    let address = client.strip_suffix("40000").unwrap();
    (41_000..).map(move |port| [&*format!("{address}{port}").leak(), vip, backend])
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn an_association_goes_through_like_a_connection_and_both_sides_see_the_vip() {
    let mut scene = scene();
    for (hook, ports) in BOTH.into_iter().zip(0..) {
        for ends in [V4, V6] {
            let ends @ [client, vip, backend] = clients(ends).nth(ports).unwrap();
            let mut states = Vec::new();
            for sent in handshake(ends) {
                let ended = scene.send(hook, &sent);
                let (side, reason, from, to) = if sent.to == address(vip) {
                    (BACKEND_SIDE, Reason::ForwardedToBackend, client, backend)
                } else {
                    (CLIENT_SIDE, Reason::ForwardedToClient, vip, client)
                };
                assert_eq!((ended.reason, ended.ifindex), (reason, side.ifindex), "{hook:?}");
                let expected = Frame { from: address(from), to: address(to), ..sent.clone() };
                assert_eq!(ended.frame(), routed(&expected, &side), "{hook:?}");
                states.push(state(&mut scene, client).unwrap());
            }
            let expected = [
                FlowState::HalfOpen,
                FlowState::HalfOpen,
                FlowState::Established,
                FlowState::Established,
            ];
            assert_eq!(states, expected, "{hook:?} {vip}");
        }
    }
}

#[test]
fn a_sum_is_right_behind_a_change_of_ports_whatever_the_length_and_a_wrong_one_stays_as_wrong() {
    let all = [V4, V6, ACROSS[0], ACROSS[1]];
    let mut scene = full_nat();
    for hook in BOTH {
        for ends @ [client, vip, backend] in all {
            scene.send(hook, &init(client, vip, 0, MINE, &[]));
            for len in (0..40).chain([200, 1000, 1403]) {
                let sent = packet(chunk(DATA, ITS), client, vip).payload(len);
                let there = scene.send(hook, &sent);
                assert_eq!(there.reason, Reason::ForwardedToBackend, "{hook:?} {vip} {len}");
                let there = there.frame();
                assert_ne!(there.from.port(), sent.from.port(), "its port is one of ours");
                assert_eq!((there.to, &there.payload), (address(backend), &sent.payload));
                let back = Frame { from: there.to, to: there.from, ..sent.clone() };
                let back = scene.send(hook, &back);
                assert_eq!(back.reason, Reason::ForwardedToClient, "{hook:?} {vip} {len}");
                let back = back.frame();
                assert_eq!((back.from, back.to), (address(vip), address(client)));
            }
            for wrong in [1, 0x8000_0000_u32, 0xdead_beef] {
                let mut bytes = packet(chunk(DATA, ITS), client, vip).bytes();
                let at = transport_at(&bytes);
                let sum = of_sum(&bytes, at) ^ wrong;
                bytes[at + 8..at + 12].copy_from_slice(&sum.to_le_bytes());
                let ended = scene.send_bytes(hook, &bytes, None);
                assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?} {ends:?}");
                let out = ended.bytes();
                let at = transport_at(out);
                assert_eq!(of_sum(out, at) ^ summed(&out[at..]), wrong, "{hook:?} {ends:?}");
            }
            // None, as RFC 9653 allows and as a sender leaves it whose device makes it.
            let mut bytes = packet(chunk(DATA, ITS), client, vip).bytes();
            let at = transport_at(&bytes);
            bytes[at + 8..at + 12].fill(0);
            let ended = scene.send_bytes(hook, &bytes, None);
            let out = ended.bytes();
            assert_eq!(of_sum(out, transport_at(out)), 0, "{hook:?} {ends:?}");
        }
    }
}

fn transport_at(frame: &[u8]) -> usize {
    if frame[12] == 8 { 34 } else { 54 }
}

fn of_sum(frame: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(frame[at + 8..at + 12].try_into().unwrap())
}

fn summed(transport: &[u8]) -> u32 {
    crc32c(&[&transport[..8], &[0; 4], &transport[12..]])
}

/// What is sent, and the state that an association has then.
fn guesses(ends: [&'static str; 3]) -> Vec<(&'static str, Vec<Frame>, FlowState)> {
    let [client, vip, backend] = ends;
    let there = |carries| packet(carries, client, vip);
    let back = |carries| packet(carries, backend, client);
    let [first, answer, echo, _] = handshake(ends);
    use FlowState::{Closing, Established, HalfOpen};
    let open = vec![first.clone(), answer.clone(), echo];
    let and = |more: &[Frame]| [&open, more].concat();
    let anew = vec![init(client, vip, 0, 9, &[]), init(backend, client, 9, 10, &[])];
    let agreed = [there(chunk(COOKIE_ECHO, 10)), back(chunk(COOKIE_ACK, 9))];
    let good = [&agreed[..], &[there(chunk(DATA, 10))]].concat();
    vec![
        (
            "a guessed cookie",
            vec![first.clone(), answer.clone(), there(chunk(COOKIE_ECHO, 7))],
            HalfOpen,
        ),
        (
            "a cookie before its answer",
            vec![first.clone(), there(chunk(COOKIE_ECHO, ITS))],
            HalfOpen,
        ),
        ("a guessed ABORT", and(&[there(chunk(ABORT, 7))]), Established),
        ("one with the tag of the other way", and(&[there(chunk(ABORT, MINE))]), Established),
        ("the same said to be so", and(&[there(reflected(ABORT, MINE))]), Closing),
        ("one without a tag", and(&[back(chunk(ABORT, 0))]), Established),
        ("the client's", and(&[there(chunk(ABORT, ITS))]), Closing),
        ("one and then a guess", and(&[there(chunk(ABORT, ITS)), there(chunk(DATA, 7))]), Closing),
        ("the backend's", and(&[back(chunk(ABORT, MINE))]), Closing),
        ("of a backend that has forgotten", and(&[back(reflected(ABORT, ITS))]), Closing),
        ("a guess that is said to be so", and(&[back(reflected(ABORT, 7))]), Established),
        ("the beginning of an end", and(&[there(chunk(SHUTDOWN, ITS))]), Closing),
        ("a guessed one", and(&[back(chunk(SHUTDOWN, ITS))]), Established),
        ("the end alone", and(&[back(chunk(SHUTDOWN_COMPLETE, MINE))]), Established),
        ("the client's", and(&[there(chunk(SHUTDOWN_COMPLETE, ITS))]), Established),
        // Whoever's INIT changes nothing, answered or not, until a cookie was good: then both sides have new tags.
        ("an INIT", and(&[init(client, vip, 0, 9, &[]), there(chunk(ABORT, ITS))]), Closing),
        (
            "an answered one",
            and(&[anew.clone(), vec![there(reflected(ABORT, 9))]].concat()),
            Established,
        ),
        (
            "the end of what was not restarted",
            and(&[anew.clone(), vec![there(chunk(ABORT, ITS))]].concat()),
            Closing,
        ),
        (
            "a restart",
            and(&[
                anew.clone(),
                good.clone(),
                vec![there(chunk(ABORT, ITS)), back(chunk(ABORT, MINE))],
            ]
            .concat()),
            Established,
        ),
        (
            "the end of what was restarted",
            and(&[anew, good, vec![there(chunk(ABORT, 10))]].concat()),
            Closing,
        ),
        (
            "an INIT that came twice, of whose answers the first counts",
            vec![
                first.clone(),
                answer.clone(),
                init(backend, client, MINE, 77, &[]),
                there(chunk(COOKIE_ECHO, ITS)),
                back(chunk(COOKIE_ACK, MINE)),
                there(chunk(DATA, ITS)),
            ],
            Established,
        ),
    ]
}

#[test]
fn only_who_knows_the_tags_confirms_or_ends_an_association() {
    let mut scene = scene();
    for (ends, mut all) in [V4, V6].map(|ends| (ends, clients(ends))) {
        for (what, packets, expected) in guesses(ends) {
            for hook in BOTH {
                let [own, ..] = all.next().unwrap();
                for packet in &packets {
                    let with = |end| if end == address(ends[0]) { address(own) } else { end };
                    let packet =
                        Frame { from: with(packet.from), to: with(packet.to), ..packet.clone() };
                    let ended = scene.send(hook, &packet);
                    assert!(
                        matches!(
                            ended.reason,
                            Reason::ForwardedToBackend | Reason::ForwardedToClient
                        ),
                        "{hook:?} {what}: {ended:?}"
                    );
                }
                assert_eq!(state(&mut scene, own), Some(expected), "{hook:?} {own} {what}");
            }
        }
    }
}

#[test]
fn each_state_of_an_association_has_its_timeout() {
    let timeouts = Timeouts {
        half_open: 30,
        sctp_established: 900,
        sctp_shutdown: 100,
        sctp_closed: 5,
        ..Timeouts::default()
    };
    let mut scene = Scene::with(|options| options.timeouts = timeouts);
    for (hook, ends) in each() {
        let [client, vip, backend] = ends;
        let there = |carries| packet(carries, client, vip);
        let back = |carries| packet(carries, backend, client);
        let [first, answer, echo, _] = handshake(ends);
        let open = vec![first.clone(), answer.clone(), echo];
        let and = |more: &[Frame]| [&open, more].concat();
        scene.serve(vip, Sctp, RoundRobin, &[backend]);
        for (packets, timeout) in [
            (vec![first.clone()], timeouts.half_open),
            (vec![first, answer], timeouts.half_open),
            (and(&[]), timeouts.sctp_established),
            (and(&[there(chunk(SHUTDOWN, ITS))]), timeouts.sctp_shutdown),
            (
                and(&[there(chunk(SHUTDOWN, ITS)), back(chunk(SHUTDOWN_ACK, MINE))]),
                timeouts.sctp_closed,
            ),
            (and(&[there(chunk(ABORT, ITS))]), timeouts.sctp_closed),
            (and(&[back(chunk(ABORT, MINE))]), timeouts.sctp_closed),
        ] {
            packets.iter().for_each(|packet| drop(scene.send(hook, packet)));
            scene.let_pass(timeout - 2);
            assert_eq!(scene.age().0, 0, "{hook:?} {vip} {timeout}: too early");
            scene.let_pass(3);
            assert_eq!(scene.age().0, 1, "{hook:?} {vip} {timeout}: one flow");
            assert_eq!(
                scene.entries().len() + scene.entries6().len(),
                0,
                "{hook:?} {vip} {timeout}: both directions"
            );
        }
    }
}

#[test]
fn an_init_begins_anew_where_an_association_was_closing_and_what_belongs_to_none_begins_none() {
    let mut scene = scene();
    // Where every node chooses alike, another one may have had it.
    let mut alike = Scene::new();
    alike.apply(&[V4, V6].map(|[_, vip, backend]| (vip, Sctp, Maglev, leaked(backend))));
    for (hook, ends) in each() {
        let ends = clients(ends).nth(hook as usize).unwrap();
        let [client, vip, backend] = ends;
        let there = |carries| packet(carries, client, vip);
        let bad_init = |tag: u32, initiate_tag: u32| {
            let frame = init(client, vip, 0, initiate_tag, &[]);
            Frame { carries: chunk(1, tag), ..frame }
        };
        for (what, sent) in [
            ("DATA", there(chunk(DATA, ITS))),
            ("an ABORT", there(chunk(ABORT, ITS))),
            ("an INIT ACK", init(client, vip, 7, 8, &[])),
            ("an INIT with a tag", bad_init(7, 8)),
            ("an INIT that gives none", bad_init(0, 0)),
        ] {
            assert_eq!(
                scene.send(hook, &sent).reason,
                Reason::UnknownFlow,
                "{hook:?} {vip} {what}"
            );
        }
        assert_eq!(state(&mut scene, client), None);
        for sent in handshake(ends) {
            scene.send(hook, &sent);
        }
        scene.send(hook, &there(chunk(ABORT, ITS)));
        assert_eq!(state(&mut scene, client), Some(FlowState::Closing), "{hook:?} {vip}");
        scene.send(hook, &init(client, vip, 0, 77, &[]));
        assert_eq!(state(&mut scene, client), Some(FlowState::HalfOpen), "{hook:?}: a new one");

        // Its tags are those that its packets have.
        let scene = &mut alike;
        let ended = scene.send(hook, &there(chunk(DATA, ITS)));
        assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?}");
        scene.send(hook, &packet(chunk(DATA, MINE), backend, client));
        scene.send(hook, &there(chunk(DATA, ITS)));
        assert_eq!(state(scene, client), Some(FlowState::Established), "{hook:?} {vip}");
        scene.send(hook, &there(chunk(ABORT, 7)));
        assert_eq!(state(scene, client), Some(FlowState::Established), "{hook:?} {vip}");
        scene.send(hook, &packet(chunk(ABORT, MINE), backend, client));
        assert_eq!(state(scene, client), Some(FlowState::Closing), "{hook:?} {vip}");
    }
}

/// Addresses, a cookie of an odd length between them, and what Linux says beside.
fn parameters(hidden: u8) -> Vec<u8> {
    let mut all = vec![hidden, 5, 0, 8, 10, 9, 9, 9, 0, 12, 0, 6, 0, 5, 0, 0];
    all.extend([0, 7, 0, 7, 0, 5, 0, 0]);
    all.extend([hidden, 6, 0, 20, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    all.extend([0x80, 0, 0, 4, 0xc0, 0, 0, 4, hidden, 5, 0, 8, 10, 9, 9, 8]);
    all
}

#[test]
fn addresses_that_an_init_lists_are_hidden_from_the_other_side_and_all_else_is_left() {
    for (mut scene, all) in
        [(scene(), vec![V4, V6]), (full_nat(), vec![V4, V6, ACROSS[0], ACROSS[1]])]
    {
        for hook in BOTH {
            for &[client, vip, _] in &all {
                let ended = scene.send(hook, &init(client, vip, 0, MINE, &parameters(0)));
                assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?} {vip}");
                let there = ended.frame();
                assert_eq!(there.payload[16..], parameters(0x80), "{hook:?} {vip}");
                let answer = init("10.2.0.9:1", "10.1.0.5:1", MINE, ITS, &parameters(0));
                let answer = Frame { from: there.to, to: there.from, ..answer };
                let ended = scene.send(hook, &answer);
                assert_eq!(ended.reason, Reason::ForwardedToClient, "{hook:?} {vip}");
                assert_eq!(ended.frame().payload[16..], parameters(0x80), "{hook:?} {vip}");
            }
        }
    }
}

#[test]
fn an_init_that_cannot_be_looked_through_is_dropped_and_one_that_lies_is_its_receivers() {
    let mut scene = scene();
    for (hook, [client, vip, _]) in each() {
        // 24 parameters are looked at, and the 24th must be the last.
        for (many, reason) in [(23, Reason::ForwardedToBackend), (24, Reason::Untranslatable)] {
            let parameters = [[0x80, 0, 0, 4].repeat(many - 1), vec![0, 5, 0, 8, 1, 2, 3, 4]];
            let ended = scene.send(hook, &init(client, vip, 0, MINE, &parameters.concat()));
            assert_eq!(ended.reason, reason, "{hook:?} {vip} {many}");
            if reason == Reason::ForwardedToBackend {
                assert_eq!(ended.frame().payload[16 + (many - 1) * 4], 0x80, "{hook:?}");
            }
        }
        let fragment =
            Frame { fragment: MORE_FRAGMENTS, ..init(client, vip, 0, MINE, &parameters(0)) };
        assert_eq!(scene.send(hook, &fragment).reason, Reason::Untranslatable, "{hook:?}");
        // A length of 3, one beyond the packet, a chunk longer than the packet.
        for lie in [vec![0, 9, 0, 3, 0, 5, 0, 8, 1, 2, 3, 4], vec![0, 9, 0xff, 0xff]] {
            let sent = init(client, vip, 0, MINE, &lie);
            let ended = scene.send(hook, &sent);
            assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?} {lie:?}");
            assert_eq!(ended.frame().payload, sent.payload, "{hook:?} {lie:?}");
        }
        let mut bytes = init(client, vip, 0, MINE, &parameters(0)).bytes();
        let at = transport_at(&bytes);
        bytes[at + 14] = 0xff;
        let ended = scene.send_bytes(hook, &bytes, None);
        assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?}");
        assert_eq!(ended.bytes()[at + 32], 0x80, "{hook:?}: as far as the packet goes");
    }
}

#[test]
fn a_backend_that_answers_clients_itself_gets_what_they_sent() {
    for (mode, ends) in [Mode::L2, Mode::IpInIp].into_iter().flat_map(|m| [V4, V6].map(|e| (m, e)))
    {
        let [_, vip, backend] = ends;
        let mut scene = Scene::new();
        scene.mode = mode;
        let ours = SocketAddr::new(address(backend).ip(), 1).to_string().replace('9', "1");
        let address = address(&ours).ip();
        scene.sources = vec![Source { address, first_port: 1, last_port: 1 }];
        scene.serve(vip, Sctp, Maglev, &[&backend.replace("8080", "80")]);
        for (hook, [client, ..]) in BOTH.into_iter().zip(clients(ends)) {
            let what = format!("{hook:?} {mode:?} {vip}");
            let sent = init(client, vip, 0, MINE, &parameters(0));
            let bytes = scene.send(hook, &sent).bytes().to_vec();
            let at = transport_at(&sent.bytes());
            assert!(bytes.ends_with(&sent.bytes()[at..]), "{what}");
            for (carries, expected) in [
                (chunk(COOKIE_ECHO, ITS), FlowState::Established),
                (chunk(ABORT, 7), FlowState::Established),
                (chunk(ABORT, ITS), FlowState::Closing),
            ] {
                scene.send(hook, &packet(carries, client, vip));
                assert_eq!(state(&mut scene, client), Some(expected), "{what} {carries:?}");
            }
        }
    }
}

#[test]
fn fragments_pass_where_ports_stay_and_are_dropped_where_the_sum_would_have_to_change() {
    // The same port at the backend.
    let mut same = Scene::new();
    same.apply(
        &[V4, V6]
            .map(|[_, vip, backend]| (vip, Sctp, Maglev, leaked(&backend.replace("8080", "80")))),
    );
    let mut other = full_nat();
    for hook in BOTH {
        for [client, vip, _] in [V4, V6] {
            let first = packet(chunk(DATA, ITS), client, vip).payload(48);
            let first = Frame { fragment: MORE_FRAGMENTS, ..first };
            let later = packet(Carries::Other(132), client, vip).payload(64);
            let later = Frame { fragment: 8, ..later };
            for sent in [&first, &later] {
                let ended = same.send(hook, sent);
                assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?} {vip}");
                assert_eq!(ended.frame().payload, sent.payload, "{hook:?} {vip}");
                let at = sent.bytes().len() - 64;
                assert_eq!(ended.bytes()[at..], sent.bytes()[at..], "{hook:?}: sum and all");
            }
            other.send(hook, &init(client, vip, 0, MINE, &[]));
            for sent in [&first, &later] {
                let ended = other.send(hook, sent);
                assert_eq!(ended.reason, Reason::Untranslatable, "{hook:?} {vip}");
            }
            // Over what the first one has at least.
            let over = Frame { fragment: 1, ..later.clone() };
            assert_eq!(same.send(hook, &over).reason, Reason::Malformed, "{hook:?} {vip}");
        }
    }
}

#[test]
fn a_packet_without_a_whole_chunk_header_or_a_whole_init_is_dropped() {
    let mut scene = scene();
    for hook in BOTH {
        for [client, vip, _] in [V4, V6] {
            let whole = init(client, vip, 0, MINE, &[]).bytes();
            let at = transport_at(&whole);
            for len in [0, 4, 8, 12, 15, 16, 31] {
                let mut bytes = whole[..at + len].to_vec();
                let in_ip = (len + if at == 34 { 20 } else { 0 }) as u16;
                let len_at = if at == 34 { 16 } else { 18 };
                bytes[len_at..len_at + 2].copy_from_slice(&in_ip.to_be_bytes());
                let ended = scene.send_bytes(hook, &bytes, None);
                assert_eq!(ended.reason, Reason::Malformed, "{hook:?} {vip} {len}");
            }
        }
    }
}

#[test]
fn errors_about_an_association_reach_the_side_that_knows_the_packet() {
    let all = [V4, V6, ACROSS[0], ACROSS[1]];
    let mut scene = full_nat();
    for hook in BOTH {
        for [client, vip, _] in all {
            let sent = packet(chunk(DATA, ITS), client, vip);
            scene.send(hook, &init(client, vip, 0, MINE, &[]));
            let there = scene.send(hook, &sent).frame();
            let (kind, back_kind) = (error_kind(&there), error_kind(&sent));
            let router = if there.to.is_ipv4() { "10.2.0.254:0" } else { "[2001:db8:2::fe]:0" };
            let quoted = there.bytes()[14..].to_vec();
            let error = Carries::Icmp { kind, code: 0 };
            let error = Frame { payload: quoted, to: there.from, ..packet(error, router, router) };
            let ended = scene.send(hook, &error);
            assert_eq!(ended.reason, Reason::ErrorToClient, "{hook:?} {vip}");
            let frame = ended.frame();
            assert_eq!(frame.carries, Carries::Icmp { kind: back_kind, code: 0 });
            assert_eq!((frame.from.ip(), frame.to.ip()), (address(vip).ip(), address(client).ip()));
            // Ports and tag, behind the header of the client's family.
            let header_len = if sent.to.is_ipv4() { 20 } else { 40 };
            let original = &sent.bytes()[14 + header_len..][..8];
            assert_eq!(frame.payload[header_len..][..8], *original, "{hook:?} {vip}");
        }
    }
}

/// Time exceeded.
fn error_kind(about: &Frame) -> u8 {
    if about.to.is_ipv4() { 11 } else { 3 }
}

#[test]
fn a_service_of_sctp_is_not_one_of_another_protocol_and_has_ranges_too() {
    let mut scene = Scene::new();
    scene.more_ports = 9;
    for (hook, [client, vip, backend]) in each() {
        let of_udp = [&*backend.replace("::9", "::7").replace(".9:", ".7:")];
        scene.apply(&[(vip, Sctp, Maglev, &[backend]), (vip, Udp, Maglev, &of_udp)]);
        let port = |port: &str| vip.replace(":80", port);
        let ended = scene.send(hook, &init(client, &port(":83"), 0, MINE, &[]));
        let there = address(&backend.replace("8080", "8083"));
        let seen = (ended.reason, ended.frame().to);
        assert_eq!(seen, (Reason::ForwardedToBackend, there), "{hook:?} {vip}");
        for other in
            [packet(crate::frame::SYN, client, vip), init(client, &port(":99"), 0, MINE, &[])]
        {
            let ended = scene.send(hook, &other);
            assert_eq!(ended.reason, Reason::VipWithoutService, "{hook:?} {vip}");
        }
    }
}

#[test]
fn merged_packets_go_on_merged_where_nothing_but_addresses_and_ports_changes() {
    // `gso_segs` and `gso_size` of `struct __sk_buff`: the latter as the kernel has it where each is as long as it is.
    let mut context = [0_u8; 192];
    context[164..168].copy_from_slice(&2_u32.to_ne_bytes());
    context[176..180].copy_from_slice(&0xffff_u32.to_ne_bytes());
    let mut scene = full_nat();
    for ([client, vip, _], reason) in [
        (V4, Reason::ForwardedToBackend),
        (V6, Reason::ForwardedToBackend),
        (ACROSS[0], Reason::Untranslatable),
        (["10.1.0.5:40000", "10.2.0.3:9", ""], Reason::MergedSegments),
    ] {
        scene.send(Hook::Tc, &init(client, vip, 0, MINE, &[]));
        let bytes = packet(chunk(DATA, ITS), client, vip).payload(2900).bytes();
        let ended = scene.send_bytes(Hook::Tc, &bytes, Some(&context));
        assert_eq!(ended.reason, reason, "{vip}");
    }
}

/// Who knows its tags might say that an association is over which its receiver goes on with, and open another one meanwhile.
#[test]
fn an_association_makes_room_for_another_once_it_was_closed_in_order() {
    for hook in BOTH {
        for [client, vip, backend] in [V4, V6] {
            let mut scene = Scene::new();
            scene.bounds = [1, 0, 0];
            scene.serve(vip, Sctp, RoundRobin, &[backend]);
            for sent in handshake([client, vip, backend]) {
                scene.send(hook, &sent);
            }
            let other = client.replace(":40000", ":40001");
            let open =
                |scene: &mut Scene| scene.send(hook, &init(&other, vip, 0, MINE, &[])).reason;
            let there = |carries| packet(carries, client, vip);
            let back = |carries| packet(carries, backend, client);
            for early in [
                there(chunk(SHUTDOWN_COMPLETE, ITS)),
                there(chunk(SHUTDOWN_COMPLETE, 7)),
                there(reflected(SHUTDOWN_COMPLETE, MINE)),
                there(chunk(SHUTDOWN_ACK, 7)),
                there(chunk(SHUTDOWN, ITS)),
                back(chunk(SHUTDOWN_ACK, ITS)),
            ] {
                scene.send(hook, &early);
                assert_eq!(open(&mut scene), Reason::ServiceFull, "{hook:?} {vip} {early:?}");
            }
            scene.send(hook, &back(chunk(SHUTDOWN_ACK, MINE)));
            assert_eq!(open(&mut scene), Reason::ForwardedToBackend, "{hook:?} {vip}");
            let last = scene.send(hook, &there(chunk(SHUTDOWN_COMPLETE, ITS)));
            assert_eq!(last.reason, Reason::ForwardedToBackend, "{hook:?} {vip}");
        }
    }
}
