//! Echo requests to a VIP that are given to backends: flows by their identifier.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Protocol::Icmp;
use lb_dataplane::table::{Mode, Source};
use lb_dataplane::{Hook, Reason, seconds};

use crate::frame::{Carries, ECHO, ECHO6, Frame, packet};
use crate::scene::{BOTH, Scene};

const MORE_FRAGMENTS: u16 = 0x2000;
const VIPS: [&str; 2] = ["192.0.2.1:0", "[2001:db8:f::1]:0"];
const CLIENTS: [&str; 2] = ["10.1.0.5", "[2001:db8:1::5]"];
const BACKENDS: [[&str; 2]; 2] =
    [["10.2.0.8:0", "10.2.0.9:0"], ["[2001:db8:2::8]:0", "[2001:db8:2::9]:0"]];
const OURS: [&str; 2] = ["10.2.0.1", "2001:db8:2::1"];
const REQUEST: [Carries; 2] = [ECHO, ECHO6];
const REPLY: [Carries; 2] =
    [Carries::Icmp { kind: 0, code: 0 }, Carries::Icmp { kind: 129, code: 0 }];
const EXPIRED: [Carries; 2] =
    [Carries::Icmp { kind: 11, code: 0 }, Carries::Icmp { kind: 3, code: 0 }];

/// Serves the VIP of a family; with an address of ours flows come from there.
fn serve(scene: &mut Scene, n: usize, is_ours: bool) {
    let address: IpAddr = OURS[n].parse().unwrap();
    let source = Source { address, first_port: 2000, last_port: 2999 };
    scene.sources = if is_ours { vec![source] } else { Vec::new() };
    scene.apply(&[(VIPS[n], Icmp, Maglev, &BACKENDS[n])]);
}

fn request(n: usize, identifier: u16) -> Frame {
    packet(REQUEST[n], &format!("{}:{identifier}", CLIENTS[n]), VIPS[n]).payload(57)
}

fn host(at: &str) -> IpAddr {
    at.parse::<SocketAddr>().unwrap().ip()
}

/// Each case: a family, whether flows come from an address of ours, and a hook.
fn cases() -> impl Iterator<Item = (usize, bool, Hook)> {
    let families = [0, 1].into_iter();
    let with_sources = families.flat_map(|n| [(n, false), (n, true)]);
    with_sources.flat_map(|(n, is_ours)| BOTH.map(|hook| (n, is_ours, hook)))
}

#[test]
fn echoes_go_to_backends_by_their_identifier_and_come_back_from_the_vip_with_it() {
    let mut scene = Scene::new();
    for (n, is_ours, hook) in cases() {
        serve(&mut scene, n, is_ours);
        let (mut seen, mut pairs) = (BTreeSet::new(), BTreeSet::new());
        let first = if hook == Hook::Tc { 0 } else { 100 } + if is_ours { 200 } else { 0 };
        for identifier in first..first + 20 {
            let sent = request(n, identifier);
            let there = scene.send(hook, &sent);
            assert_eq!(there.reason, Reason::ForwardedToBackend, "{hook:?} {n} {is_ours}");
            let out = there.frame();
            let from = if is_ours { OURS[n].parse().unwrap() } else { sent.from.ip() };
            assert_eq!((out.from.ip(), out.ttl), (from, sent.ttl - 1), "{hook:?}");
            assert_eq!((out.carries, &out.payload), (sent.carries, &sent.payload), "{hook:?}");
            assert!(pairs.insert((out.to, out.from)), "{hook:?}: no two flows share one");
            seen.insert(out.to.ip());
            let again = scene.send(hook, &sent).frame();
            assert_eq!((again.from, again.to), (out.from, out.to), "{hook:?}: one flow");

            let backend = SocketAddr::new(out.to.ip(), out.from.port()).to_string();
            let to = SocketAddr::new(out.from.ip(), 0).to_string();
            let reply = packet(REPLY[n], &backend, &to).payload(57);
            let back = scene.send(hook, &reply);
            assert_eq!(back.reason, Reason::ForwardedToClient, "{hook:?} {n} {is_ours}");
            let back = back.frame();
            assert_eq!(back.from, SocketAddr::new(host(VIPS[n]), identifier), "{hook:?}");
            assert_eq!(back.to.ip(), sent.from.ip(), "{hook:?}");
            assert_eq!((back.carries, back.payload), (REPLY[n], reply.payload), "{hook:?}");
        }
        assert_eq!(seen.len(), 2, "{hook:?}: both have some");
        let stray = packet(REPLY[n], &BACKENDS[n][0].replace(":0", ":9"), "10.1.0.77:0");
        if n == 0 {
            assert_eq!(scene.send(hook, &stray).reason, Reason::Forwarded, "{hook:?}: of no flow");
        }
    }
}

#[test]
fn echoes_change_their_family_with_their_flow() {
    let mut scene = Scene::new();
    for (n, m) in [(0, 1), (1, 0)] {
        let address: IpAddr = OURS[m].parse().unwrap();
        scene.sources = vec![Source { address, first_port: 2000, last_port: 2999 }];
        scene.apply(&[(VIPS[n], Icmp, Maglev, &BACKENDS[m])]);
        for (hook, len) in BOTH.into_iter().flat_map(|hook| [0, 57, 1000].map(|len| (hook, len))) {
            let sent = request(n, 77).payload(len);
            let there = scene.send(hook, &sent);
            assert_eq!(there.reason, Reason::ForwardedToBackend, "{hook:?} {n} {len}");
            let out = there.frame();
            assert_eq!((out.from.ip(), out.ttl), (address, sent.ttl - 1), "{hook:?}");
            assert_eq!((out.carries, &out.payload), (REQUEST[m], &sent.payload), "{hook:?}");
            assert_eq!(scene.send_summed(&sent.bytes()), Reason::ForwardedToBackend);

            let backend = SocketAddr::new(out.to.ip(), out.from.port()).to_string();
            let to = SocketAddr::new(out.from.ip(), 0).to_string();
            let reply = packet(REPLY[m], &backend, &to).payload(len);
            let back = scene.send(hook, &reply);
            assert_eq!(back.reason, Reason::ForwardedToClient, "{hook:?} {n} {len}");
            let back = back.frame();
            assert_eq!(back.from, SocketAddr::new(host(VIPS[n]), 77), "{hook:?}");
            assert_eq!(back.to.ip(), sent.from.ip(), "{hook:?}");
            assert_eq!((back.carries, &back.payload), (REPLY[n], &reply.payload), "{hook:?}");
            assert_eq!(scene.send_summed(&reply.bytes()), Reason::ForwardedToClient);

            let quoted = there.bytes()[14..][..[28, 48][m]].to_vec();
            let router = ["10.2.0.254:0", "[2001:db8:2::fe]:0"][m];
            let error = Frame { payload: quoted, ..packet(EXPIRED[m], router, &to) };
            let ended = scene.send(hook, &error);
            assert_eq!(ended.reason, Reason::ErrorToClient, "{hook:?} {n} {len}");
            let out = ended.frame();
            assert_eq!((out.carries, out.from.ip()), (EXPIRED[n], host(VIPS[n])), "{hook:?}");
            let header = [20, 40][n];
            assert_eq!(out.payload[header..], sent.bytes()[14 + header..][..8], "{hook:?}");
            let addresses = [12..20, 8..40][n].clone();
            assert_eq!(out.payload[addresses.clone()], sent.bytes()[14..][addresses], "{hook:?}");
            assert_eq!(scene.send_summed(&error.bytes()), Reason::ErrorToClient);

            let part = Frame { fragment: MORE_FRAGMENTS, ..request(n, 77).payload(64) };
            let ended = scene.send(hook, &part);
            assert_eq!(ended.reason, Reason::Untranslatable, "{hook:?} {n}");
        }
        let flows = scene.get().flows(99);
        // Beside those of the other way round.
        assert_eq!(flows.len(), n + 1, "{flows:?}");
    }
}

/// Some kinds of hosts use one identifier only.
#[test]
fn one_client_with_one_identifier_pings_two_vips_that_share_a_backend() {
    const OTHERS: [&str; 2] = ["192.0.2.2:0", "[2001:db8:f::2]:0"];
    let mut scene = Scene::new();
    for n in [0, 1] {
        let backend = &BACKENDS[n][..1];
        scene.apply(&[(VIPS[n], Icmp, Maglev, backend), (OTHERS[n], Icmp, Maglev, backend)]);
        for hook in BOTH {
            let identifier = if hook == Hook::Tc { 1 } else { 2 };
            let mut seen = Vec::new();
            for vip in [VIPS[n], OTHERS[n]] {
                let sent = Frame { to: vip.parse().unwrap(), ..request(n, identifier) };
                let there = scene.send(hook, &sent);
                assert_eq!(there.reason, Reason::ForwardedToBackend, "{hook:?} {vip}");
                seen.push((vip, there.frame()));
            }
            for (vip, there) in seen {
                let from = SocketAddr::new(there.to.ip(), there.from.port()).to_string();
                let to = SocketAddr::new(there.from.ip(), 0).to_string();
                let back = scene.send(hook, &packet(REPLY[n], &from, &to)).frame();
                assert_eq!(back.from, SocketAddr::new(host(vip), identifier), "{hook:?}");
            }
        }
    }
}

/// Whoever forges a client's address can ask as often as he likes.
#[test]
fn echoes_confirm_no_flow() {
    const CONFIRMED: u32 = 32;
    let mut scene = Scene::new();
    for (n, hook) in [0, 1].into_iter().flat_map(|n| BOTH.map(|hook| (n, hook))) {
        serve(&mut scene, n, false);
        let sent = request(n, 7000);
        let there = scene.send(hook, &sent).frame();
        let from = SocketAddr::new(there.to.ip(), there.from.port()).to_string();
        let reply = packet(REPLY[n], &from, &SocketAddr::new(sent.from.ip(), 0).to_string());
        assert_eq!(scene.send(hook, &reply).reason, Reason::ForwardedToClient, "{hook:?} {n}");
        assert_eq!(scene.send(hook, &sent).reason, Reason::ForwardedToBackend, "{hook:?} {n}");
        let v4 = scene.entries().into_iter().map(|(_, value)| value);
        let values: Vec<_> = v4.chain(scene.entries6().into_iter().map(|(_, v)| v)).collect();
        let state = |value: &[u8; 64]| u32::from_ne_bytes(value[48..52].try_into().unwrap());
        assert_eq!(values.len(), 2 * (n + 1), "{hook:?} {n}");
        assert!(values.iter().all(|value| state(value) & CONFIRMED == 0), "{hook:?} {n}");
    }
}

#[test]
fn an_error_about_an_echo_reaches_the_client_with_the_request_that_it_sent() {
    let mut scene = Scene::new();
    for (n, is_ours, hook) in cases() {
        serve(&mut scene, n, is_ours);
        let sent = request(n, 4000);
        let there = scene.send(hook, &sent);
        let quoted = there.bytes()[14..][..[28, 48][n]].to_vec();
        let router = ["10.2.0.254:0", "[2001:db8:2::fe]:0"][n];
        let to = SocketAddr::new(there.frame().from.ip(), 0).to_string();
        let error = Frame { payload: quoted, ..packet(EXPIRED[n], router, &to) };
        let ended = scene.send(hook, &error);
        assert_eq!(ended.reason, Reason::ErrorToClient, "{hook:?} {n} {is_ours}");
        let out = ended.frame();
        assert_eq!((out.from.ip(), out.to.ip()), (host(VIPS[n]), sent.from.ip()), "{hook:?}");
        let own = Frame { ttl: sent.ttl - 1, ..sent };
        assert_eq!(out.payload, own.bytes()[14..][..[28, 48][n]], "{hook:?} {n} {is_ours}");
    }
}

#[test]
fn long_echoes_come_in_fragments_and_ones_that_expire_here_are_told_of() {
    let mut scene = Scene::new();
    let mut punts = scene.get().take_punts().unwrap().unwrap();
    for (n, is_ours, hook) in cases() {
        serve(&mut scene, n, is_ours);
        let first = Frame { fragment: MORE_FRAGMENTS, ..request(n, 5000) }.payload(1000);
        let icmp = [1, 58][n];
        let later = packet(Carries::Other(icmp), &first.from.to_string(), VIPS[n]).payload(64);
        let later = Frame { fragment: 126, ..later };
        for fragment in [first, later] {
            let ended = scene.send(hook, &fragment);
            assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?} {n} {is_ours}");
        }
        let dying = request(n, 5001).ttl(1);
        assert_eq!(scene.send(hook, &dying).reason, Reason::FlowTtlExpired, "{hook:?}");
        let told = punts.next_answer(Instant::now()).expect("its sender is to be told");
        assert_eq!(told.to, dying.from.ip(), "{hook:?}");
    }
}

#[test]
fn echoes_reach_backends_that_answer_clients_themselves() {
    let mut scene = Scene::new();
    for n in [0, 1] {
        scene.mode = Mode::L2;
        serve(&mut scene, n, false);
        for hook in BOTH {
            let sent = request(n, 6000);
            let ended = scene.send(hook, &sent);
            assert_eq!(ended.reason, Reason::ForwardedDirectly, "{hook:?} {n}");
            let out = ended.frame();
            assert_eq!((out.from, out.to), (sent.from, sent.to), "{hook:?} {n}");
        }
    }
}

#[test]
fn a_flow_of_echoes_ends_a_minute_after_the_last_and_with_its_backend() {
    let mut scene = Scene::new();
    for (n, hook) in [0, 1].into_iter().flat_map(|n| BOTH.map(|hook| (n, hook))) {
        serve(&mut scene, n, false);
        let entries = |scene: &mut Scene| scene.entries().len() + scene.entries6().len();
        scene.send(hook, &request(n, 1));
        scene.let_pass(seconds(60) - 2);
        assert_eq!(scene.age().0, 0, "{hook:?} {n}");
        scene.let_pass(2);
        scene.age();
        assert_eq!(entries(&mut scene), 0, "{hook:?} {n}: it has been silent for a minute");
        scene.send(hook, &request(n, 2));
        assert_eq!(entries(&mut scene), 2, "{hook:?} {n}");
        scene.apply(&[]);
        scene.age();
        assert_eq!(entries(&mut scene), 0, "{hook:?} {n}: its backend is gone");
        // Nobody else has the address now.
        assert_eq!(scene.send(hook, &request(n, 3)).reason.kind(), lb_dataplane::Kind::Pass);
    }
}
