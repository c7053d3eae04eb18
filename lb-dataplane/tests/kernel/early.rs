//! Fragments that come before the first one of their datagram: kept by user space, which sends them on as the packet path would
//! have, once the first one has come.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Mode::{self, Gue, IpInIp, L2, Nat};
use lb_dataplane::table::Protocol::Udp;
use lb_dataplane::table::Source;
use lb_dataplane::{EarlyFragments, Hook, Kind, Link, Reason, SentOn};

use crate::errors::fragments;
use crate::frame::{Frame, UDP, packet, sum};
use crate::scene::{BOTH, Scene};

const VIPS: [&str; 2] = ["192.0.2.1:80", "[2001:db8:f::1]:80"];
const BACKENDS: [&str; 2] = ["10.2.0.9:8080", "[2001:db8:2::9]:8080"];
/// Addresses of ours, no VIP's.
const OURS: [&str; 2] = ["10.2.0.1", "2001:db8:2::1"];

/// A frame with another number of its datagram: each is to be new to the programs.
fn numbered(frame: &Frame, number: u8) -> Vec<u8> {
    let mut bytes = frame.bytes();
    if frame.from.is_ipv4() {
        bytes[19] = number;
        bytes[24..26].fill(0);
        let sum = sum(&[&bytes[14..34]]);
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    } else {
        bytes[61] = number;
    }
    bytes
}

/// A client of a family with a port of its own: no flow is another case's.
fn client(n: usize, number: u8) -> String {
    let port = 40_000 + u32::from(number);
    [format!("10.1.0.5:{port}"), format!("[2001:db8:1::5]:{port}")][n].clone()
}

/// A scene whose fragments are ours to keep.
struct Keeper {
    scene: Scene,
    early: EarlyFragments,
    number: u8,
}

impl Keeper {
    fn new() -> Self {
        let mut scene = Scene::new();
        let early = scene.get().take_early_fragments().unwrap().unwrap();
        Self { scene, early, number: 0 }
    }

    fn send(&mut self, hook: Hook, frame: &Frame) -> (Reason, Vec<u8>, u32) {
        let ended = self.scene.send_bytes(hook, &numbered(frame, self.number), None);
        (ended.reason, ended.bytes().to_vec(), ended.ifindex)
    }

    fn sent_on(&mut self) -> Option<Vec<SentOn>> {
        self.early.next_packets(Instant::now())
    }

    /// Sends a datagram's last two fragments and then its first: what is sent of them then is what the programs make of them
    /// from there on.
    fn last_comes_first(&mut self, hook: Hook, from: &str, to: &str, what: &str) -> Reason {
        self.number += 1;
        let [first, second, third] = fragments(from, to);
        for early in [&third, &second] {
            assert_eq!(self.send(hook, early).0, Reason::FragmentKept, "{hook:?} {what}");
            assert_eq!(self.sent_on(), Some(vec![]), "{hook:?} {what}");
        }
        let (reason, ..) = self.send(hook, &first);
        assert_eq!(reason.kind(), Kind::Forward, "{hook:?} {what}: {reason:?}");
        let sent = self.sent_on().expect("the first one has come");
        assert_eq!(self.sent_on(), None, "{hook:?} {what}");
        assert_eq!(sent.len(), 2, "{hook:?} {what}");
        for (sent, early) in sent.iter().zip([&third, &second]) {
            let (again, bytes, ifindex) = self.send(hook, early);
            if reason == Reason::Forwarded {
                // Of no flow, and waits no more: what came, one hop on.
                assert_eq!(again, Reason::Forwarded, "{hook:?} {what}");
                let came = Frame { ttl: early.ttl - 1, ..early.clone() };
                assert_eq!(sent.packet, numbered(&came, self.number)[14..], "{hook:?} {what}");
                continue;
            }
            assert_eq!(again, reason, "{hook:?} {what}");
            assert_eq!(sent.packet, bytes[14..], "{hook:?} {what}");
            let macs = bytes[..12].try_into().unwrap();
            assert_eq!(sent.link, Some(Link { ifindex, macs, mtu: 1500 }), "{hook:?} {what}");
        }
        while self.sent_on().is_some() {}
        reason
    }

    /// Serves a VIP of a family by a backend of one, with sources of these addresses.
    fn serve(&mut self, mode: Mode, vip: usize, backend: usize, sources: &[&str]) {
        self.scene.mode = mode;
        let source = |address: &&str| {
            let address: IpAddr = address.parse().unwrap();
            Source { address, first_port: 2000, last_port: 2999 }
        };
        self.scene.sources = sources.iter().map(source).collect();
        self.scene.apply(&[(VIPS[vip], Udp, Maglev, &[BACKENDS[backend]])]);
    }
}

fn host(address: &str) -> IpAddr {
    address.parse::<SocketAddr>().unwrap().ip()
}

#[test]
fn a_fragment_before_its_first_is_sent_on_after_it_in_every_mode_and_family() {
    let mut keeper = Keeper::new();
    for hook in BOTH {
        for n in [0, 1] {
            let vip = host(VIPS[n]).to_string();
            for (mode, sources, reason) in [
                (Nat, vec![], Reason::ForwardedToBackend),
                (Nat, vec![OURS[n]], Reason::ForwardedToBackend),
                (Nat, vec![&*vip], Reason::ForwardedToBackend),
                (L2, vec![], Reason::ForwardedDirectly),
                (IpInIp, vec![OURS[n]], Reason::ForwardedByTunnel),
                (Gue, vec![OURS[n]], Reason::ForwardedByTunnel),
            ] {
                let what = format!("{mode:?} {sources:?}");
                keeper.serve(mode, n, n, &sources);
                let client = client(n, keeper.number);
                let ended = keeper.last_comes_first(hook, &client, VIPS[n], &what);
                assert_eq!(ended, reason, "{hook:?} {what}");
            }
            keeper.serve(Nat, n, 1 - n, &[OURS[1 - n]]);
            let client = client(n, keeper.number);
            let ended = keeper.last_comes_first(hook, &client, VIPS[n], "across");
            assert_eq!(ended, Reason::ForwardedToBackend, "{hook:?}");
        }
    }
    let counts = keeper.scene.get().held_fragments();
    assert_eq!((counts.released, counts.refused), (2 * 2 * 2 * 7, 0));
}

#[test]
fn so_is_a_backends_to_its_clients_and_to_others_as_it_came() {
    let mut keeper = Keeper::new();
    for hook in BOTH {
        for n in [0, 1] {
            for (backend, sources) in [(n, vec![]), (n, vec![OURS[n]]), (1 - n, vec![OURS[1 - n]])]
            {
                let what = format!("{} {sources:?}", BACKENDS[backend]);
                keeper.serve(Nat, n, backend, &sources);
                let begins = packet(UDP, &client(n, keeper.number), VIPS[n]);
                let there = keeper.scene.send(hook, &begins);
                assert_eq!(there.reason, Reason::ForwardedToBackend, "{hook:?} {what}");
                let seen = there.frame().from.to_string();
                let ended = keeper.last_comes_first(hook, BACKENDS[backend], &seen, &what);
                assert_eq!(ended, Reason::ForwardedToClient, "{hook:?} {what}");
            }
            keeper.serve(Nat, n, n, &[]);
            let (from, to) = (BACKENDS[n], ["10.1.0.99:53", "[2001:db8:1::99]:53"][n]);
            let ended = keeper.last_comes_first(hook, from, to, "its own");
            assert_eq!(ended, Reason::Forwarded, "{hook:?}");
            // In order nothing waits.
            keeper.number += 1;
            for fragment in fragments(from, to) {
                assert_eq!(keeper.send(hook, &fragment).0, Reason::Forwarded, "{hook:?}");
            }
            assert_eq!(keeper.sent_on(), None, "{hook:?}");
            // Without its first one it goes by itself, late.
            keeper.number += 1;
            let [_, second, _] = fragments(from, to);
            assert_eq!(keeper.send(hook, &second).0, Reason::FragmentKept, "{hook:?}");
            assert_eq!(keeper.sent_on(), Some(vec![]), "{hook:?}");
            let until = keeper.early.deadline().expect("something is kept");
            assert!(until > Instant::now() && until < Instant::now() + Duration::from_secs(2));
            let late = keeper.early.overdue(Instant::now() + Duration::from_secs(3));
            assert_eq!(late.len(), 1, "{hook:?}: {late:?}");
            assert_eq!((late[0].to, late[0].link), (host(to), None), "{hook:?}");
            let came = Frame { ttl: second.ttl - 1, ..second };
            assert_eq!(late[0].packet, numbered(&came, keeper.number)[14..], "{hook:?}");
            // A backend's no more.
            keeper.scene.apply(&[]);
            keeper.number += 1;
            let [_, second, _] = fragments(from, to);
            assert_eq!(keeper.send(hook, &second).0, Reason::Forwarded, "{hook:?}");
        }
    }
}

#[test]
fn nothing_is_kept_that_cannot_be_sent_on_or_is_no_vips() {
    let mut keeper = Keeper::new();
    for n in [0, 1] {
        keeper.serve(Nat, n, n, &[]);
        for hook in BOTH {
            keeper.number += 1;
            let elsewhere = ["10.2.0.77:53", "[2001:db8:2::77]:53"][n];
            let [first, second, _] = fragments(&client(n, keeper.number), elsewhere);
            assert_eq!(keeper.send(hook, &second).0, Reason::Forwarded, "{hook:?}");
            assert_eq!(keeper.send(hook, &first).0, Reason::Forwarded, "{hook:?}");
            // What has a hop left only, and what is longer than there is room for.
            let [_, second, _] = fragments(&client(n, keeper.number), VIPS[n]);
            let long = Frame { payload: vec![0; 2048], ..second.clone() };
            for lost in [second.ttl(1), long] {
                assert_eq!(keeper.send(hook, &lost).0, Reason::FragmentToVip, "{hook:?}");
            }
            let [_, second, _] = fragments(BACKENDS[n], &client(n, keeper.number));
            assert_eq!(keeper.send(hook, &second.ttl(1)).0, Reason::TtlExpired, "{hook:?}");
            assert_eq!(keeper.sent_on(), None, "{hook:?}");
        }
    }
}

#[test]
fn without_a_mac_the_kernel_finds_the_way_but_for_what_goes_by_its_mac_alone() {
    const UNRESOLVED: [&str; 2] = ["10.5.0.9:8080", "[2001:db8:5::9]:8080"];
    let mut keeper = Keeper::new();
    for (hook, n) in BOTH.into_iter().flat_map(|hook| [0, 1].map(|n| (hook, n))) {
        for (mode, sent) in [(Nat, 1), (IpInIp, 1), (L2, 0)] {
            keeper.serve(mode, n, n, if mode == IpInIp { &OURS[n..=n] } else { &[] });
            keeper.scene.apply(&[(VIPS[n], Udp, Maglev, &UNRESOLVED[n..=n])]);
            keeper.number += 1;
            let [first, second, _] = fragments(&client(n, keeper.number), VIPS[n]);
            assert_eq!(keeper.send(hook, &second).0, Reason::FragmentKept, "{hook:?} {mode:?}");
            assert_eq!(keeper.sent_on(), Some(vec![]), "{hook:?} {mode:?}");
            keeper.send(hook, &first);
            let packets = keeper.sent_on().expect("the first one has come");
            assert_eq!(packets.len(), sent, "{hook:?} {mode:?}");
            let way = packets.first().map(|packet| (packet.to, packet.link));
            assert_eq!(way, (sent == 1).then(|| (host(UNRESOLVED[n]), None)), "{hook:?} {mode:?}");
        }
    }
}
