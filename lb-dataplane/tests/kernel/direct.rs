//! Direct server return: packets reach a backend as they came, in a frame to its MAC or within another packet.

use std::net::SocketAddr;
use std::time::Instant;

use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Mode::{self, Gue, IpInIp, L2};
use lb_dataplane::table::Protocol::{Tcp, Udp};
use lb_dataplane::table::Source;
use lb_dataplane::{Hook, Reason, Sizes};

use crate::family::{Family, each};
use crate::frame::{ACK, Carries, FIN, Frame, SYN, UDP, packet, sum};
use crate::scene::{BACKEND_SIDE, BOTH, Ended, Scene, room, small};

/// A VIP, a client, a backend and an address of ours of one family, without ports.
const FAMILIES: [[&str; 4]; 2] = [
    ["192.0.2.1", "10.1.0.5", "10.2.0.9", "10.2.0.1"],
    ["[2001:db8:f::1]", "[2001:db8:1::5]", "[2001:db8:2::9]", "[2001:db8:2::1]"],
];

fn at(address: &str, port: u16) -> String {
    format!("{address}:{port}")
}

fn scene(mode: Mode, family: [&str; 4]) -> Scene {
    let mut scene = Scene::new();
    serve(&mut scene, mode, family);
    scene
}

/// Nothing but these services, in this mode.
fn serve(scene: &mut Scene, mode: Mode, [vip, _, backend, ours]: [&str; 4]) {
    scene.mode = mode;
    scene.sources.clear();
    if mode != L2 {
        let address = at(ours, 1).parse::<SocketAddr>().unwrap().ip();
        scene.sources = vec![Source { address, first_port: 1, last_port: 1 }];
    }
    let (vip, backend) = (at(vip, 80), at(backend, 80));
    scene.apply(&[(&vip, Tcp, Maglev, &[&backend]), (&vip, Udp, Maglev, &[&backend])]);
}

/// The packet inside, in the frame around it; the headers around are checked.
fn inside(ended: &Ended, mode: Mode, [_, _, backend, ours]: [&str; 4]) -> Frame {
    let bytes = ended.bytes();
    let (ethernet, ip) = bytes.split_at(14);
    let of = |address: &str| at(address, 0).parse::<SocketAddr>().unwrap().ip();
    let v6 = of(backend).is_ipv6();
    let next = match mode {
        IpInIp if v6 => 41,
        IpInIp => 4,
        Gue => 17,
        Mode::Nat | L2 => return ended.frame(),
    };
    let (header, mut rest) = ip.split_at(if v6 { 40 } else { 20 });
    let octets = |address: &str| match of(address) {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    };
    let addresses = [octets(ours), octets(backend)].concat();
    let word = |bytes: &[u8], n: usize| u16::from_be_bytes([bytes[n], bytes[n + 1]]);
    if v6 {
        assert_eq!((header[0] >> 4, header[6], header[7]), (6, next, 64));
        assert_eq!(usize::from(word(header, 4)), rest.len());
        assert_eq!(header[8..], addresses);
    } else {
        assert_eq!((header[0], header[8], header[9]), (0x45, 64, next));
        assert_eq!(usize::from(word(header, 2)), ip.len());
        assert_eq!(sum(&[header]), 0, "checksum of {header:02x?}");
        assert_eq!(header[12..], addresses);
    }
    if mode == Gue {
        assert!(word(rest, 0) >= 49_152, "source port {}", word(rest, 0));
        assert_eq!((word(rest, 2), word(rest, 6)), (6080, 0));
        assert_eq!(usize::from(word(rest, 4)), rest.len());
        rest = &rest[8..];
    }
    Frame::parse(&[ethernet, rest].concat())
}

fn reason(mode: Mode) -> Reason {
    if mode == L2 { Reason::ForwardedDirectly } else { Reason::ForwardedByTunnel }
}

#[test]
fn packets_reach_the_backend_as_they_came() {
    let mut scene = Scene::new();
    let mut ports = 40_000..;
    for hook in BOTH {
        for mode in [L2, IpInIp, Gue] {
            for family in FAMILIES {
                let [vip, client, ..] = family;
                serve(&mut scene, mode, family);
                let client = at(client, ports.next().unwrap());
                for carries in [SYN, ACK, FIN, UDP, Carries::Udp { checksum: false }] {
                    for len in [0, 1, 33, 1200] {
                        if vip.starts_with('[') && carries == (Carries::Udp { checksum: false }) {
                            continue;
                        }
                        let sent = packet(carries, &client, &at(vip, 80)).payload(len);
                        let ended = scene.send(hook, &sent);
                        let seen = (ended.reason, ended.ifindex);
                        assert_eq!(seen, (reason(mode), 8), "{hook:?} {mode:?} {vip} {carries:?}");
                        let expected = Frame {
                            destination_mac: BACKEND_SIDE.destination_mac.unwrap(),
                            source_mac: BACKEND_SIDE.source_mac,
                            ttl: 63,
                            ..sent
                        };
                        assert_eq!(inside(&ended, mode, family), expected, "{hook:?} {mode:?}");
                    }
                }
                let mut flows = scene.get().flows(99);
                flows.retain(|flow| flow.client == client.parse().unwrap());
                assert_eq!(flows.len(), 2, "{flows:?}");
                assert!(flows.iter().all(|flow| flow.backend.port() == 80), "{flows:?}");
            }
        }
    }
}

#[test]
fn a_flow_stays_with_its_backend_and_is_one_entry() {
    for hook in BOTH {
        for (mode, family) in
            [L2, IpInIp, Gue].into_iter().flat_map(|mode| FAMILIES.map(|of| (mode, of)))
        {
            let [vip, client, backend, _] = family;
            let other = at(&backend.replace('9', "10"), 80);
            let what = format!("{hook:?} {mode:?} {vip}");
            let mut scene = scene(mode, family);
            let (vip, client) = (at(vip, 80), at(client, 40_000));
            scene.send(hook, &packet(SYN, &client, &vip));
            scene.send(hook, &packet(ACK, &client, &vip));
            assert_eq!(scene.entries().len() + scene.entries6().len(), 1, "{what}");
            let draining = format!("draining {}", at(backend, 80));
            scene.serve(&vip, Tcp, Maglev, &[&draining, &other]);
            let old = scene.send(hook, &packet(ACK, &client, &vip));
            inside(&old, mode, family);
            let backends = scene.get().flows(9);
            assert_eq!(backends[0].backend.to_string(), at(backend, 80));
            // A SYN after a sign of the end begins anew, at a backend that takes new flows.
            scene.send(hook, &packet(FIN, &client, &vip));
            scene.send(hook, &packet(SYN, &client, &vip));
            let flows = scene.get().flows(9);
            assert_eq!(flows.len(), 1);
            assert_eq!(flows[0].backend.to_string(), other, "{what}");
            let counters = scene.get().service_counters().unwrap();
            let backends = counters.values().flat_map(|service| &service.backends);
            let flows = backends.map(|backend| backend.active + backend.half_open);
            assert_eq!(flows.sum::<u64>(), 1, "{what}");
        }
    }
}

#[test]
fn a_backend_that_cannot_have_packets_as_they_came_gets_none_unencapsulated() {
    let mut scene = Scene::new();
    let mut ports = 40_000..;
    for (hook, of) in each() {
        // Backends that the kernel has the route to, that are behind a gateway, and whose MAC is not known yet.
        for (network, l2, tunnel) in [
            (3, Reason::DirectUnreachable, Reason::FlowRoutedByKernel),
            (4, Reason::FlowBlackhole, Reason::FlowBlackhole),
            (9, Reason::DirectUnreachable, Reason::FlowNoRoute),
            (6, Reason::DirectUnreachable, Reason::ForwardedByTunnel),
            (5, Reason::ForwardedDirectly, Reason::ForwardedByTunnel),
        ] {
            let backend = of.at(network, 9, 0);
            let backend = backend.strip_suffix(":0").unwrap();
            let [vip, client, _, ours] = FAMILIES[usize::from(of == Family::V6)];
            let family = [vip, client, backend, ours];
            for (mode, expected) in [(L2, l2), (IpInIp, tunnel)] {
                serve(&mut scene, mode, family);
                let client = at(client, ports.next().unwrap());
                let ended = scene.send(hook, &packet(SYN, &client, &at(vip, 80)));
                let expected = match (hook, mode) {
                    (Hook::Xdp, L2) if network == 5 => Reason::DirectUnreachable,
                    (Hook::Xdp, IpInIp) if [5, 6].contains(&network) => {
                        Reason::FlowNextHopUnresolved
                    }
                    _ => expected,
                };
                assert_eq!(ended.reason, expected, "{hook:?} {mode:?} {backend}");
                if mode == IpInIp && expected != Reason::FlowBlackhole {
                    inside(&ended, mode, family);
                }
            }
        }
    }
}

#[test]
fn what_is_too_long_with_the_headers_around_it_is_not_sent() {
    let mut scene = Scene::new();
    let mut punts = scene.get().take_punts().unwrap().unwrap();
    let mut ports = 40_000..;
    for hook in BOTH {
        for family in FAMILIES {
            let [vip, client, ..] = family;
            let header_len = if vip.starts_with('[') { 40 } else { 20 };
            for (mode, overhead) in [(L2, 0), (IpInIp, header_len), (Gue, header_len + 8)] {
                serve(&mut scene, mode, family);
                while punts.next_answer(Instant::now()).is_some() {}
                let most = 1500 - overhead - header_len - 20;
                let sent = packet(ACK, &at(client, ports.next().unwrap()), &at(vip, 80));
                let whole = Frame { fragment: 0x4000, ..sent };
                let fits = scene.send(hook, &whole.clone().payload(most));
                assert_eq!(fits.reason, reason(mode), "{hook:?} {mode:?} {vip}");
                for fragment in [0x4000, 0] {
                    let longer = Frame { fragment, ..whole.clone().payload(most + 1) };
                    let longer = scene.send(hook, &longer);
                    assert_eq!(longer.reason, Reason::FlowTooBig, "{hook:?} {mode:?} {vip}");
                    let answer = punts.next_answer(Instant::now()).expect("its sender is told");
                    let mtu = (1500 - overhead as u16).to_be_bytes();
                    let at = if header_len == 40 { 6 } else { 26 };
                    assert_eq!(answer.packet[at..at + 2], mtu, "{hook:?} {mode:?} {vip}");
                }
                let old = scene.send(hook, &packet(ACK, &at(client, 1), &at(vip, 80)).ttl(1));
                assert_eq!(old.reason, Reason::FlowTtlExpired, "{hook:?} {mode:?} {vip}");
            }
        }
    }
}

#[test]
fn an_error_about_what_the_backend_sent_reaches_it() {
    let mut scene = Scene::new();
    let mut ports = 40_000..;
    // Unreachable, too big, time exceeded.
    let kinds = [[(3, 3), (3, 4), (11, 0)], [(1, 4), (2, 0), (3, 0)]];
    for hook in BOTH {
        for mode in [L2, IpInIp, Gue] {
            for (family, kinds) in FAMILIES.into_iter().zip(kinds) {
                serve(&mut scene, mode, family);
                let [vip, client, ..] = family;
                let router = if vip.starts_with('[') { "[2001:db8:1::fe]:9" } else { "10.1.0.1:9" };
                for (first, answer) in [(UDP, UDP), (SYN, ACK)] {
                    let client = at(client, ports.next().unwrap());
                    scene.send(hook, &packet(first, &client, &at(vip, 80)));
                    let quoted = packet(answer, &at(vip, 80), &client).bytes()[14..].to_vec();
                    for (kind, code) in kinds {
                        let error = packet(Carries::Icmp { kind, code }, router, &at(vip, 0));
                        let error = Frame { payload: quoted.clone(), ..error };
                        let ended = scene.send(hook, &error);
                        let what = format!("{hook:?} {mode:?} {vip} {answer:?} {kind}");
                        assert_eq!((ended.reason, ended.ifindex), (reason(mode), 8), "{what}");
                        let seen = inside(&ended, mode, family);
                        assert_eq!(
                            (&seen.payload, seen.to.ip()),
                            (&quoted, error.to.ip()),
                            "{what}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_full_table_refuses_new_flows_or_sends_them_where_their_hash_says() {
    const ENTRIES: u32 = 64;
    for (hook, of) in each() {
        for mode in [L2, IpInIp, Gue] {
            for hashes in [false, true] {
                let family = FAMILIES[usize::from(of == Family::V6)];
                let [vip, client, _, ours] = family;
                let what = format!("{hook:?} {mode:?} {vip} {hashes}");
                let sizes = Sizes { flow_entries: ENTRIES, flow_entries6: ENTRIES, ..small() };
                let mut scene = Scene::with_sizes(sizes);
                (scene.mode, scene.hashes_when_full) = (mode, hashes);
                let address = at(ours, 1).parse::<SocketAddr>().unwrap().ip();
                scene.sources = vec![Source { address, first_port: 1, last_port: 1 }];
                let vip = at(vip, 80);
                let backends = [8, 9, 10].map(|last| of.at(2, last, 80));
                scene.serve(&vip, Tcp, Maglev, &backends.each_ref().map(String::as_str));
                let outer = if of == Family::V4 { 30..34 } else { 38..54 };
                let mut without = 0;
                for n in 0..200 {
                    let client = at(client, 40_000 + n);
                    let syn = scene.send(hook, &packet(SYN, &client, &vip));
                    // Confirmed, so that none makes room for another.
                    let ack = scene.send(hook, &packet(ACK, &client, &vip));
                    let expected = match (syn.reason, hashes) {
                        (reason, _) if reason == self::reason(mode) => reason,
                        (Reason::FlowTableFull, false) => Reason::FlowTableFull,
                        (Reason::ForwardedWithoutFlow, true) => {
                            without += 1;
                            let there = |ended: &Ended| ended.bytes()[outer.clone()].to_vec();
                            assert_eq!(there(&syn), there(&ack), "{what}: one backend");
                            Reason::ForwardedWithoutFlow
                        }
                        (other, _) => panic!("{what}: {other:?}"),
                    };
                    assert_eq!(ack.reason, expected, "{what}");
                }
                assert_eq!(without > 0, hashes, "{what}");
                let held = (scene.entries().len() + scene.entries6().len()) as u32;
                assert!((ENTRIES..=room(ENTRIES)).contains(&held), "{what}: {held}");
            }
        }
    }
}
