//! The sum that a device has made of a whole packet (`CHECKSUM_COMPLETE`). The kernel trusts it, so it has to change with whatever
//! no checksum of the packet's own makes up for.

use std::net::SocketAddr;

use lb_dataplane::Hook;
use lb_dataplane::Reason::{self, ForwardedByTunnel, ForwardedToBackend, ForwardedToClient};
use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Mode::{Gue, IpInIp, L2};
use lb_dataplane::table::Protocol::{Sctp, Tcp, Udp};
use lb_dataplane::table::Source;

use crate::errors::fragments;
use crate::frame::{ACK, Carries, Frame, SYN, UDP, packet};
use crate::scene::Scene;

/// A client, a VIP and a backend each; the last two are of both families.
const V4: [&str; 3] = ["10.1.0.5:40000", "192.0.2.1:80", "10.2.0.9:8080"];
const V6: [&str; 3] = ["[2001:db8:1::5]:40000", "[2001:db8:f::1]:80", "[2001:db8:2::9]:8080"];
const FROM_4_TO_6: [&str; 3] = ["10.1.0.5:40000", "192.0.2.64:80", "[2001:db8:2::9]:8080"];
const FROM_6_TO_4: [&str; 3] = ["[2001:db8:1::5]:40000", "[2001:db8:f::46]:80", "10.2.0.9:8080"];
const NO_CHECKSUM: Carries = Carries::Udp { checksum: false };
const DATA: u8 = 0;

/// Each VIP of its backend; flows come from addresses of ours if `is_full`.
fn scene(all: &[[&str; 3]], is_full: bool) -> Scene {
    let mut scene = Scene::new();
    if is_full {
        let source = |address: &str| Source {
            address: address.parse().unwrap(),
            first_port: 2000,
            last_port: 2999,
        };
        scene.sources = vec![source("192.0.2.2"), source("2001:db8:ff::2")];
    }
    let backends: Vec<_> = all.iter().map(|[_, vip, backend]| (*vip, [*backend])).collect();
    let of = |protocol| backends.iter().map(move |(vip, of)| (*vip, protocol, Maglev, &of[..]));
    scene.apply(&of(Udp).chain(of(Tcp)).chain(of(Sctp)).collect::<Vec<_>>());
    scene
}

/// Sends these there and, from where they come out, the others back.
fn converse(scene: &mut Scene, ends: [&str; 3], there: &[Frame], back: &[Frame]) {
    let [client, vip, backend] = ends.map(|end| end.parse::<SocketAddr>().unwrap());
    let from = scene.send(Hook::Tc, &Frame { from: client, to: vip, ..there[0].clone() });
    let from = from.frame().from;
    for frame in there {
        let sent = Frame { from: client, to: vip, ..frame.clone() };
        let ended = scene.send_summed(&sent.bytes());
        assert_eq!(ended, ForwardedToBackend, "{client} {vip} {:?}", sent.carries);
    }
    for frame in back {
        let sent = Frame { from: backend, to: from, ..frame.clone() };
        let ended = scene.send_summed(&sent.bytes());
        assert_eq!(ended, ForwardedToClient, "{client} {vip} {:?}", sent.carries);
    }
}

#[test]
fn it_stays_right_with_fragments() {
    for is_full in [false, true] {
        let more = if is_full { &[FROM_4_TO_6, FROM_6_TO_4][..] } else { &[] };
        let all = [&[V4, V6], more].concat();
        let mut scene = scene(&all, is_full);
        for [client, vip, backend] in all {
            let sent = fragments(client, vip);
            let from = scene.send(Hook::Tc, &sent[0]).frame().from.to_string();
            for fragment in sent {
                let ended = scene.send_summed(&fragment.bytes());
                assert_eq!(ended, ForwardedToBackend, "{client} {vip}");
            }
            for fragment in fragments(backend, &from) {
                let ended = scene.send_summed(&fragment.bytes());
                assert_eq!(ended, ForwardedToClient, "{client} {vip}");
            }
        }
    }
}

#[test]
fn it_stays_right_with_datagrams_that_have_no_checksum() {
    for is_full in [false, true] {
        let mut scene = scene(&[V4, V6], is_full);
        for ends in [V4, V6] {
            // The later ones go the short way.
            let all =
                [0, 1, 17, 1300].map(|len| packet(NO_CHECKSUM, ends[0], ends[0]).payload(len));
            for _ in 0..2 {
                converse(&mut scene, ends, &all, &all);
            }
        }
    }
}

#[test]
fn it_stays_right_with_sctp() {
    const ADDRESSES: [u8; 16] = [0, 5, 0, 8, 10, 1, 0, 7, 0, 5, 0, 8, 10, 1, 0, 8];
    const FIXED: [u8; 16] = [0, 0, 0, 7, 0, 1, 0, 0, 0, 9, 0, 9, 0, 0, 0, 7];
    for is_full in [false, true] {
        let more = if is_full { &[FROM_4_TO_6, FROM_6_TO_4][..] } else { &[] };
        let all = [&[V4, V6], more].concat();
        let mut scene = scene(&all, is_full);
        for ends in all {
            let chunk =
                |chunk, tag| packet(Carries::Sctp { chunk, flags: 0, tag }, ends[0], ends[0]);
            let offer =
                |kind, tag| Frame { payload: [FIXED, ADDRESSES].concat(), ..chunk(kind, tag) };
            let data = |len| chunk(DATA, 7).payload(len);
            let there = [offer(1, 0), data(0), data(1), data(1300)];
            let back = [offer(2, 7), data(2), data(3), data(1300)];
            converse(&mut scene, ends, &there, &back);
        }
    }
}

#[test]
fn it_stays_right_with_a_packet_around_another() {
    for (mode, reason) in
        [(L2, Reason::ForwardedDirectly), (IpInIp, ForwardedByTunnel), (Gue, ForwardedByTunnel)]
    {
        for ([client, vip, backend], ours) in [(V4, "10.2.0.1"), (V6, "2001:db8:2::1")] {
            let mut scene = Scene::new();
            scene.mode = mode;
            if mode != L2 {
                let address = ours.parse().unwrap();
                scene.sources = vec![Source { address, first_port: 1, last_port: 1 }];
            }
            let backend = backend.replace("8080", "80");
            scene.apply(&[(vip, Tcp, Maglev, &[&backend]), (vip, Udp, Maglev, &[&backend])]);
            for carries in [SYN, ACK, UDP, NO_CHECKSUM] {
                for len in [0, 1, 33, 1200] {
                    let sent = packet(carries, client, vip).payload(len);
                    assert_eq!(scene.send_summed(&sent.bytes()), reason, "{mode:?} {sent:?}");
                }
            }
        }
    }
}
