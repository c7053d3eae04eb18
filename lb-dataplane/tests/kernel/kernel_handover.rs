//! What is routed, what the kernel gets, and what it looks like then.

use std::net::IpAddr;

use aya::maps::Array;
use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Protocol::Tcp;
use lb_dataplane::{Hook, Reason};
use lb_dataplane_common::fib::MEMBER_WITHOUT_XDP;

use crate::family::{FAMILIES, Family, each};
use crate::frame::{Carries, ECHO, ECHO6, Frame, SYN, UDP, packet};
use crate::routed::routed;
use crate::scene::{BACKEND_SIDE, BOTH, Scene};

const CLIENT: &str = "10.1.0.5:40000";

#[test]
fn a_packet_of_no_service_is_routed() {
    for (hook, family) in each() {
        let mut scene = Scene::new();
        let echo = if family == Family::V4 { ECHO } else { ECHO6 };
        for (carries, port) in [(SYN, 53), (UDP, 53), (echo, 0)] {
            let frame = packet(carries, &family.at(1, 5, 40_000), &family.at(2, 3, port));
            let ended = scene.send(hook, &frame);
            assert_eq!((ended.reason, ended.ifindex), (Reason::Forwarded, 8), "{hook:?}");
            assert_eq!(ended.frame(), routed(&frame, &BACKEND_SIDE), "{hook:?} {family:?}");
        }
    }
}

#[test]
fn what_is_not_ours_goes_to_the_kernel_as_it_came() {
    let cases: [(Frame, Reason); 15] = [
        (packet(UDP, CLIENT, "10.3.0.1:53"), Reason::RoutedByKernel),
        (packet(UDP, CLIENT, "10.3.0.1:53").ttl(1), Reason::RoutedByKernel),
        (packet(UDP, CLIENT, "172.16.0.1:53"), Reason::NoRoute),
        (packet(UDP, CLIENT, "10.2.0.3:53").ttl(1), Reason::TtlExpired),
        (packet(UDP, CLIENT, "10.2.0.3:53").payload(1473), Reason::TooBig),
        (packet(UDP, CLIENT, "224.0.0.5:53"), Reason::SpecialDestination),
        (packet(UDP, CLIENT, "255.255.255.255:67"), Reason::SpecialDestination),
        (packet(UDP, "0.0.0.0:68", "255.255.255.255:67"), Reason::SpecialDestination),
        (packet(UDP, CLIENT, "169.254.1.1:53"), Reason::SpecialDestination),
        (packet(UDP, CLIENT, "127.0.0.1:53"), Reason::SpecialDestination),
        (packet(UDP, "169.254.1.1:9", "10.2.0.3:53"), Reason::LinkLocalSource),
        (packet(Carries::Other(47), CLIENT, "10.3.0.1:0"), Reason::RoutedByKernel),
        (packet(Carries::Other(50), CLIENT, "10.2.0.3:0").ttl(1), Reason::TtlExpired),
        (packet(Carries::Other(50), CLIENT, "10.2.0.3:0").payload(1481), Reason::TooBig),
        (
            Frame { destination_mac: [0xff; 6], ..packet(UDP, CLIENT, "10.2.0.3:53") },
            Reason::NotForUs,
        ),
    ];
    for hook in BOTH {
        let mut scene = Scene::new();
        for (frame, reason) in &cases {
            let ended = scene.send(hook, frame);
            assert_eq!(ended.reason, *reason, "{hook:?} {frame:?}");
            assert_eq!(ended.bytes(), frame.bytes(), "{hook:?} {reason:?}: unchanged");
            assert_eq!(ended.ifindex, 0);
        }
    }
}

#[test]
fn frames_that_are_no_plain_ip_go_to_the_kernel() {
    for (hook, family) in each() {
        let mut scene = Scene::new();
        let plain = packet(UDP, &family.at(1, 5, 40_000), &family.at(2, 3, 53)).bytes();
        // ARP's type in place of IP's, and the tags of a VLAN that is nobody's before it.
        for (replaced, by, reason) in [
            (12..14, &[0x08, 0x06][..], Reason::NotIp),
            (12..12, &[0x81, 0x00, 0, 6], Reason::VlanTagged),
            (12..12, &[0x88, 0xa8, 0, 6], Reason::VlanTagged),
        ] {
            let mut bytes = plain.clone();
            bytes.splice(replaced, by.iter().copied());
            let ended = scene.send_bytes(hook, &bytes, None);
            // The kernel takes a VLAN tag off before TC sees the frame; a test run does not.
            assert_eq!(ended.reason, reason, "{hook:?} {family:?} {by:02x?}");
            assert_eq!(ended.bytes(), bytes);
        }
    }
}

#[test]
fn what_contradicts_itself_or_comes_from_nowhere_is_dropped() {
    for hook in BOTH {
        let mut scene = Scene::new();
        let good = packet(UDP, CLIENT, "10.2.0.3:53").bytes();
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            bytes
        };
        for (what, bytes) in [
            ("version 6", with(14, 0x65)),
            ("header of 16 bytes", with(14, 0x44)),
            ("header longer than the packet", with(17, 19)),
            ("packet longer than the frame", with(16, 5)),
            ("options beyond the frame", {
                let mut bytes = good[..14 + 24].to_vec();
                bytes[14] = 0x4f;
                bytes[17] = 24;
                bytes
            }),
            ("no room for UDP", {
                let mut bytes = good[..14 + 24].to_vec();
                bytes[17] = 24;
                bytes
            }),
        ] {
            let ended = scene.send_bytes(hook, &bytes, None);
            assert_eq!(ended.reason, Reason::Malformed, "{hook:?} {what}");
        }
        for source in ["127.0.0.1:9", "0.1.2.3:9", "224.0.0.1:9", "255.255.255.255:9"] {
            let ended = scene.send(hook, &packet(UDP, source, "10.2.0.3:53"));
            assert_eq!(ended.reason, Reason::MartianSource, "{hook:?} {source}");
        }
        let ended = scene.send(hook, &packet(UDP, CLIENT, "10.4.0.1:53"));
        assert_eq!(ended.reason, Reason::Blackhole, "{hook:?}");
    }
}

#[test]
fn a_vip_without_this_service_is_left_to_the_kernels_unreachable_route() {
    for (hook, family) in each() {
        let mut scene = Scene::new();
        // A reply to an echo, and an error.
        let icmp = if family == Family::V4 { [(0, 0), (3, 1)] } else { [(129, 0), (1, 4)] };
        let client = &family.at(1, 5, 40_000);
        let vip = |port| family.at(2, 1, port);
        scene.serve(&vip(80), Tcp, Maglev, &[&family.at(2, 9, 8080)]);
        let icmp = icmp.map(|(kind, code)| packet(Carries::Icmp { kind, code }, client, &vip(0)));
        let others = [
            packet(SYN, client, &vip(81)),
            packet(UDP, client, &vip(80)),
            packet(Carries::Other(47), client, &vip(0)),
        ];
        for frame in others.iter().chain(&icmp) {
            let ended = scene.send(hook, frame);
            assert_eq!(ended.reason, Reason::VipWithoutService, "{hook:?} {frame:?}");
            assert_eq!(ended.bytes(), frame.bytes(), "not routed although there is a route");
        }
    }
}

#[test]
fn a_flow_that_the_fib_cannot_send_goes_to_the_kernel_rewritten() {
    for (hook, family) in each() {
        let [vip, client, _] = &family.ends();
        for (network, reason) in
            [(3, Reason::FlowRoutedByKernel), (99, Reason::FlowNoRoute), (4, Reason::FlowBlackhole)]
        {
            let backend = family.at(network, 9, 8080);
            let mut scene = Scene::new();
            scene.serve(vip, Tcp, Maglev, &[&backend]);
            let frame = packet(SYN, client, vip);
            let ended = scene.send(hook, &frame);
            assert_eq!(ended.reason, reason, "{hook:?} {family:?}");
            if reason != Reason::FlowBlackhole {
                // The kernel's own forwarding counts the hop and writes the MACs.
                let expected = Frame { to: backend.parse().unwrap(), ..frame };
                assert_eq!(ended.frame(), expected, "{hook:?} {reason:?}");
            }
        }
    }
}

#[test]
fn a_way_out_that_takes_no_frames_from_xdp_is_the_kernels_business_there() {
    for (hook, family) in each() {
        let [vip, client, backend] = &family.ends();
        let other = &family.at(2, 3, 53);
        let mut scene = Scene::new();
        scene.serve(vip, Tcp, Maglev, &[backend]);
        leave_without_xdp(&mut scene, BACKEND_SIDE.ifindex);
        let plain = packet(UDP, client, other);
        let of_flow = packet(SYN, client, vip);
        let ended = [&plain, &of_flow].map(|frame| scene.send(hook, frame));
        let reasons = [ended[0].reason, ended[1].reason];
        if hook == Hook::Tc {
            assert_eq!(reasons, [Reason::Forwarded, Reason::ForwardedToBackend], "{family:?}");
            continue;
        }
        let expected = [Reason::WayOutWithoutXdp, Reason::FlowWayOutWithoutXdp];
        assert_eq!(reasons, expected, "{family:?}");
        assert_eq!(ended[0].bytes(), plain.bytes(), "as it came");
        let expected = Frame { to: backend.parse().unwrap(), ..of_flow };
        assert_eq!(ended[1].frame(), expected, "rewritten");
        let back = scene.send(hook, &packet(UDP, other, client));
        assert_eq!(back.reason, Reason::Forwarded, "other ways out are as before");
    }
}

/// As the loader says it of an interface whose driver has no `ndo_xdp_xmit`.
pub(crate) fn without_xdp(member: &mut [u8; 48]) {
    member[4] |= MEMBER_WITHOUT_XDP as u8;
}

fn leave_without_xdp(scene: &mut Scene, ifindex: u32) {
    let mut members: Array<_, [u8; 48]> =
        scene.get().map_mut("FIB_MEMBERS").unwrap().try_into().unwrap();
    for index in 0..members.len() {
        let mut member = members.get(&index, 0).unwrap();
        if member[..4] == ifindex.to_ne_bytes() {
            without_xdp(&mut member);
            members.set(index, member, 0).unwrap();
        }
    }
}

#[test]
fn an_unresolved_neighbour_is_the_kernels_business_with_the_packet_rewritten() {
    for family in FAMILIES {
        let [vip, client, _] = &family.ends();
        // The host itself, and its gateway, which is of IPv4 for both families (RFC 5549).
        let gateway = IpAddr::from([10, 2, 0, 254]);
        for (network, next_hop) in [(5, family.host(5, 9)), (6, gateway)] {
            let backend = family.at(network, 9, 80);
            let frame = packet(SYN, client, vip);
            let mut scene = Scene::new();
            scene.serve(vip, Tcp, Maglev, &[&backend]);

            let ended = scene.send(Hook::Tc, &frame);
            assert_eq!((ended.reason, ended.ifindex), (Reason::FlowThroughNeighbour, 8));
            match next_hop {
                IpAddr::V4(next_hop) => assert_eq!(ended.resolve, next_hop, "{family:?}"),
                IpAddr::V6(next_hop) => assert_eq!(ended.resolve6, next_hop, "{family:?}"),
            }
            let expected = Frame { to: backend.parse().unwrap(), ttl: 63, ..frame.clone() };
            assert_eq!(ended.frame(), expected);

            let ended = scene.send(Hook::Xdp, &frame);
            assert_eq!((ended.reason, ended.ifindex), (Reason::FlowNextHopUnresolved, 0));
            let expected = Frame { to: backend.parse().unwrap(), ..frame };
            assert_eq!(ended.frame(), expected);
        }
        let mut scene = Scene::new();
        let frame = packet(UDP, client, &family.at(6, 1, 53));
        let ended = scene.send(Hook::Tc, &frame);
        assert_eq!((ended.reason, ended.code), (Reason::ThroughNeighbour, "redirect"));
        let ended = scene.send(Hook::Xdp, &frame);
        assert_eq!(ended.reason, Reason::NextHopUnresolved);
        assert_eq!(ended.bytes(), frame.bytes());
    }
}
