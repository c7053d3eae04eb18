//! VLANs: which interface a tagged frame is of, and the tags that frames leave with. A test run at TC shows no tag that is beside
//! the frame, so what is on the wire there is seen on a real one.

use aya::maps::Array;
use lb_dataplane::fib::{Action, FibUpdate, Member};
use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Mode;
use lb_dataplane::table::Protocol::Tcp;
use lb_dataplane::{Hook, Reason, Vlan};

use crate::frame::{ACK, Carries, ECHO, ECHO6, Frame, SYN, UDP, packet};
use crate::routed::routed;
use crate::scene::{BACKEND_SIDE, BOTH, Ended, Scene};

type Tag = [u8; 4];

/// Of the VLANs that frames come in by, with priorities that are kept where the frame is.
const FIVE: Tag = [0x81, 0x00, 0x70, 0x05];
const OUTER: Tag = [0x88, 0xa8, 0xe0, 0x64];
const INNER: Tag = [0x81, 0x00, 0x20, 0x07];
const PRIORITY: Tag = [0x81, 0x00, 0xa0, 0x00];
const UNKNOWN: Tag = [0x81, 0x00, 0x00, 0x06];
/// Of those that they leave by.
const NINE: Tag = [0x81, 0x00, 0x00, 0x09];
const OUTER_OUT: Tag = [0x88, 0xa8, 0x00, 0xc8];
const INNER_OUT: Tag = [0x81, 0x00, 0x00, 0x03];

/// A VLAN whose interface has a MAC of its own.
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 7, 7];
const ITS_OWN: Tag = [0x81, 0x00, 0x00, 0x0b];

/// A client, and hosts behind a plain link, a VLAN, and a VLAN within another; of both families.
const CLIENT: [&str; 2] = ["10.1.0.5:40000", "[2001:db8:1::5]:40000"];
const PLAIN: [&str; 2] = ["10.2.0.3:53", "[2001:db8:2::3]:53"];
const BEHIND: [&str; 2] = ["10.9.0.3:53", "[2001:db8:9::3]:53"];
const BEHIND_TWO: [&str; 2] = ["10.10.0.3:53", "[2001:db8:10::3]:53"];

fn vlan(ifindex: u32, link: u32, is_service_tag: bool, id: u16) -> Vlan {
    let (mac, mtu, link_mtu) = ([0; 6], 1400, 1500);
    Vlan { ifindex, link, is_service_tag, id, mac, mtu, link_mtu, receives: true }
}

/// A way out through a VLAN's interface.
fn through(ifindex: u32) -> Member {
    Member { ifindex, mtu: 1400, ..BACKEND_SIDE }
}

/// Test runs come in through interface 1.
fn scene() -> Scene {
    let mut scene = Scene::new();
    let out = |vlan: Vlan| Vlan { receives: false, ..vlan };
    scene
        .get()
        .set_vlans(&[
            vlan(20, 1, false, 5),
            vlan(21, 1, true, 100),
            vlan(22, 21, false, 7),
            Vlan { mac: OTHER_MAC, ..vlan(23, 1, false, 11) },
            out(vlan(30, 8, false, 9)),
            out(vlan(31, 8, true, 200)),
            out(vlan(32, 31, false, 3)),
            Vlan { mtu: 1500, ..out(vlan(33, 31, false, 4)) },
        ])
        .unwrap();
    let mut updates = Vec::new();
    for (id, ifindex) in [(9, 30), (10, 32), (11, 33)] {
        updates.push(FibUpdate::Group { id, action: Action::Forward(vec![through(ifindex)]) });
        let mut route = |prefix: String, len| {
            updates.push(FibUpdate::Route { prefix: prefix.parse().unwrap(), len, group: id });
        };
        route(format!("10.{id}.0.0"), 16);
        route(format!("2001:db8:{id}::"), 48);
    }
    scene.get().fib_apply(&updates).unwrap();
    scene
}

fn tagged(bytes: &[u8], tags: &[Tag]) -> Vec<u8> {
    [&bytes[..12], &tags.concat(), &bytes[12..]].concat()
}

/// Asserts what a frame came out as, whose tags were put on anew.
fn assert_left(hook: Hook, ended: &Ended, bytes: &[u8], tags: &[Tag], what: &str) {
    let beside = usize::from(hook == Hook::Tc).min(tags.len());
    assert_eq!(ended.bytes(), tagged(bytes, &tags[beside..]), "{hook:?} {what}");
}

/// One scene for all: loading the programs takes longer than all of the packets.
#[test]
fn vlan_tags_end_as_the_table_of_rules_says() {
    let mut scene = scene();
    for rule in [
        frames_of_a_vlan_are_routed_and_leave_with_the_tags_of_their_way_out,
        a_tag_without_a_vlan_says_a_priority_only,
        frames_of_unknown_vlans_are_the_kernels_as_they_came,
        a_vlans_frames_are_for_its_own_mac,
        what_the_kernel_gets_has_its_tags_again,
        what_comes_in_by_a_vlan_is_counted_there,
        an_unresolved_next_hop_is_found_on_the_vlan,
        the_mtu_is_the_vlans,
        frames_of_full_size_that_xdp_cannot_send_with_two_tags_are_the_kernels_there,
        an_encapsulation_that_nobody_knows_is_the_kernels,
    ] {
        rule(&mut scene);
    }
}

fn frames_of_a_vlan_are_routed_and_leave_with_the_tags_of_their_way_out(scene: &mut Scene) {
    for hook in BOTH {
        for family in [0, 1] {
            for tags in [&[][..], &[FIVE], &[OUTER, INNER]] {
                for (to, out) in
                    [(PLAIN, &[][..]), (BEHIND, &[NINE]), (BEHIND_TWO, &[OUTER_OUT, INNER_OUT])]
                {
                    for carries in [UDP, ACK, Carries::Other(47)] {
                        let frame = packet(carries, CLIENT[family], to[family]);
                        let what = format!("{frame:?} {tags:02x?}");
                        let ended = scene.send_bytes(hook, &tagged(&frame.bytes(), tags), None);
                        let end = (ended.reason, ended.ifindex);
                        assert_eq!(end, (Reason::Forwarded, 8), "{hook:?} {what}");
                        let left = routed(&frame, &BACKEND_SIDE).bytes();
                        assert_left(hook, &ended, &left, out, &what);
                    }
                }
            }
        }
    }
}

fn a_tag_without_a_vlan_says_a_priority_only(scene: &mut Scene) {
    for hook in BOTH {
        let frame = packet(UDP, CLIENT[0], PLAIN[0]);
        for tags in [&[PRIORITY][..], &[PRIORITY, FIVE], &[FIVE, PRIORITY]] {
            let ended = scene.send_bytes(hook, &tagged(&frame.bytes(), tags), None);
            assert_eq!(ended.reason, Reason::Forwarded, "{hook:?} {tags:02x?}");
            assert_eq!(ended.bytes(), routed(&frame, &BACKEND_SIDE).bytes(), "{hook:?}");
        }
    }
}

fn frames_of_unknown_vlans_are_the_kernels_as_they_came(scene: &mut Scene) {
    for hook in BOTH {
        let frame = packet(UDP, CLIENT[0], PLAIN[0]).bytes();
        for (tags, beside) in [
            (&[UNKNOWN][..], 0),
            // Of the same number, but of the other kind.
            (&[[0x88, 0xa8, 0, 5]], 0),
            // The number of a VLAN of another link.
            (&[NINE], 0),
            (&[UNKNOWN, INNER], 0),
            (&[OUTER, UNKNOWN], 1),
            (&[OUTER, INNER, INNER], 2),
            (&[PRIORITY, PRIORITY, PRIORITY], 2),
        ] {
            let bytes = tagged(&frame, tags);
            let ended = scene.send_bytes(hook, &bytes, None);
            assert_eq!(ended.reason, Reason::VlanTagged, "{hook:?} {tags:02x?}");
            if hook == Hook::Xdp || beside == 0 {
                assert_eq!(ended.bytes(), bytes, "{hook:?} {tags:02x?}");
            } else {
                assert_left(hook, &ended, &frame, tags, "as it came");
            }
        }
        // No tag of two, but something else.
        let odd = tagged(&frame, &[[0x91, 0, 0, 5]]);
        assert_eq!(scene.send_bytes(hook, &odd, None).reason, Reason::NotIp, "{hook:?}");
        let cut = &tagged(&frame, &[FIVE])[..16];
        let ended = scene.send_bytes(hook, cut, None);
        assert_ne!(ended.reason.kind(), lb_dataplane::Kind::Forward, "{hook:?} {ended:?}");
    }
}

fn a_vlans_frames_are_for_its_own_mac(scene: &mut Scene) {
    for hook in BOTH {
        let frame = packet(UDP, CLIENT[0], PLAIN[0]);
        let to_its_own = Frame { destination_mac: OTHER_MAC, ..frame.clone() };
        for (frame, tag, reason) in [
            (&to_its_own, ITS_OWN, Reason::Forwarded),
            (&frame, ITS_OWN, Reason::NotForUs),
            (&to_its_own, FIVE, Reason::NotForUs),
        ] {
            let ended = scene.send_bytes(hook, &tagged(&frame.bytes(), &[tag]), None);
            assert_eq!(ended.reason, reason, "{hook:?} {tag:02x?}");
            if reason == Reason::NotForUs {
                assert_left(hook, &ended, &frame.bytes(), &[tag], "as it came");
            }
        }
    }
}

fn what_the_kernel_gets_has_its_tags_again(scene: &mut Scene) {
    for hook in BOTH {
        for tags in [&[FIVE][..], &[OUTER, INNER]] {
            for (frame, reason) in [
                (packet(UDP, CLIENT[0], "10.3.0.3:53"), Reason::RoutedByKernel),
                (packet(UDP, CLIENT[1], PLAIN[1]).ttl(1), Reason::TtlExpired),
                (packet(UDP, CLIENT[0], "192.0.2.77:53"), Reason::NoRoute),
            ] {
                let ended = scene.send_bytes(hook, &tagged(&frame.bytes(), tags), None);
                assert_eq!(ended.reason, reason, "{hook:?} {frame:?}");
                assert_left(hook, &ended, &frame.bytes(), tags, "as it came");
            }
            let mut arp = packet(UDP, CLIENT[0], PLAIN[0]).bytes();
            arp[12..14].copy_from_slice(&[8, 6]);
            let ended = scene.send_bytes(hook, &tagged(&arp, tags), None);
            assert_eq!(ended.reason, Reason::NotIp, "{hook:?}");
            assert_left(hook, &ended, &arp, tags, "as it came");
        }
    }
}

fn what_comes_in_by_a_vlan_is_counted_there(scene: &mut Scene) {
    let here = |scene: &mut Scene, ifindex| {
        let counts = scene.get().interface_reasons().unwrap();
        let of = counts
            .get(&ifindex)
            .map(|all| all.iter().find(|count| count.reason == Reason::Forwarded).unwrap().packets);
        of.unwrap()
    };
    for hook in BOTH {
        let frame = packet(UDP, CLIENT[0], PLAIN[0]).bytes();
        for (tags, ifindex) in [(&[FIVE][..], 20), (&[OUTER, INNER], 22)] {
            let before = here(scene, ifindex);
            scene.send_bytes(hook, &tagged(&frame, tags), None);
            assert_eq!(here(scene, ifindex), before + 1, "{hook:?} {ifindex}");
        }
    }
}

fn an_unresolved_next_hop_is_found_on_the_vlan(scene: &mut Scene) {
    let unresolved = Member { destination_mac: None, ..through(30) };
    let group = |member| FibUpdate::Group { id: 9, action: Action::Forward(vec![member]) };
    scene.get().fib_apply(&[group(unresolved)]).unwrap();
    let frame = packet(UDP, CLIENT[0], BEHIND[0]);
    let ended = scene.send_bytes(Hook::Tc, &tagged(&frame.bytes(), &[FIVE]), None);
    assert_eq!((ended.reason, ended.ifindex), (Reason::ThroughNeighbour, 30));
    assert_eq!(ended.resolve.to_string(), "10.9.0.3");
    let ended = scene.send_bytes(Hook::Xdp, &tagged(&frame.bytes(), &[FIVE]), None);
    assert_eq!(ended.reason, Reason::NextHopUnresolved);
    assert_left(Hook::Xdp, &ended, &frame.bytes(), &[FIVE], "as it came");
    scene.get().fib_apply(&[group(through(30))]).unwrap();
}

fn the_mtu_is_the_vlans(scene: &mut Scene) {
    for hook in BOTH {
        for (payload, reason) in [(1372, Reason::Forwarded), (1373, Reason::TooBig)] {
            let frame = packet(UDP, CLIENT[0], BEHIND[0]).payload(payload);
            let ended = scene.send_bytes(hook, &tagged(&frame.bytes(), &[OUTER, INNER]), None);
            assert_eq!(ended.reason, reason, "{hook:?} {payload}");
        }
    }
}

/// The kernel lets XDP send what is longer than the link's MTU by one tag; with two there is room for them, or for none.
fn frames_of_full_size_that_xdp_cannot_send_with_two_tags_are_the_kernels_there(scene: &mut Scene) {
    for hook in BOTH {
        let roomy = scene.send(hook, &packet(UDP, CLIENT[0], BEHIND_TWO[0]));
        assert_eq!(roomy.reason, Reason::Forwarded, "{hook:?}");
        for to in ["10.11.0.3:53", "[2001:db8:11::3]:53"] {
            let frame = packet(UDP, CLIENT[usize::from(to.starts_with('['))], to);
            let ended = scene.send(hook, &frame);
            if hook == Hook::Tc {
                assert_eq!(ended.reason, Reason::Forwarded);
            } else {
                assert_eq!(ended.reason, Reason::WayOutWithoutXdp);
                assert_eq!(ended.bytes(), frame.bytes());
            }
        }
    }
}

/// What no loader of this build says of a way out.
pub(crate) fn unknown_encapsulation(member: &mut [u8; 48]) {
    member[40..48].copy_from_slice(&(7_u64 << 60 | 1).to_ne_bytes());
}

fn an_encapsulation_that_nobody_knows_is_the_kernels(scene: &mut Scene) {
    let mut members: Array<_, [u8; 48]> =
        scene.get().map_mut("FIB_MEMBERS").unwrap().try_into().unwrap();
    let all: Vec<(u32, [u8; 48])> =
        (0..members.len()).map(|index| (index, members.get(&index, 0).unwrap())).collect();
    for (index, mut member) in all.clone() {
        unknown_encapsulation(&mut member);
        members.set(index, member, 0).unwrap();
    }
    for hook in BOTH {
        for family in [0, 1] {
            let frame = packet(UDP, CLIENT[family], PLAIN[family]);
            let ended = scene.send(hook, &frame);
            assert_eq!(ended.reason, Reason::UnknownEncapsulation, "{hook:?}");
            assert_eq!(ended.bytes(), frame.bytes(), "{hook:?}");
        }
    }
    let mut members: Array<_, [u8; 48]> =
        scene.get().map_mut("FIB_MEMBERS").unwrap().try_into().unwrap();
    for (index, member) in all {
        members.set(index, member, 0).unwrap();
    }
}

#[test]
fn flows_come_in_by_vlans_and_leave_by_others_however_they_reach_their_backends() {
    let mut scene = scene();
    let vips = ["192.0.2.1:80", "[2001:db8:ff::1]:80"];
    let backends = ["10.9.0.9:80", "[2001:db8:9::9]:80"];
    let modes = [(Mode::Nat, false), (Mode::L2, false), (Mode::IpInIp, true)];
    for (port, (mode, longer)) in (1000..).zip(modes) {
        scene.mode = mode;
        scene.sources = ["192.0.2.2", "2001:db8:ff::2"]
            .map(|address| lb_dataplane::table::Source {
                address: address.parse().unwrap(),
                first_port: 2000,
                last_port: 2999,
            })
            .to_vec();
        let clients = [format!("10.1.0.5:{port}"), format!("[2001:db8:1::5]:{port}")];
        if mode != Mode::IpInIp {
            scene.sources.clear();
        }
        let services = [0, 1].map(|n| (vips[n], Tcp, Maglev, std::slice::from_ref(&backends[n])));
        scene.apply(&services);
        for hook in BOTH {
            for n in [0, 1] {
                for tags in [&[FIVE][..], &[OUTER, INNER]] {
                    let what = format!("{mode:?} {n} {tags:02x?}");
                    let syn = packet(SYN, &clients[n], vips[n]);
                    let ended = scene.send_bytes(hook, &tagged(&syn.bytes(), tags), None);
                    assert_eq!(ended.reason.kind(), lb_dataplane::Kind::Forward, "{what}");
                    assert_eq!(ended.ifindex, 8, "{hook:?} {what}");
                    let out: &[Tag] = if hook == Hook::Tc { &[] } else { &[NINE] };
                    let is_tagged = ended.bytes()[12..16] == NINE;
                    assert_eq!(is_tagged, hook == Hook::Xdp, "{hook:?} {what}");
                    let header = if n == 0 { 20 } else { 40 };
                    let len = syn.bytes().len() + 4 * out.len() + if longer { header } else { 0 };
                    assert_eq!(ended.bytes().len(), len, "{hook:?} {what}");
                    if mode == Mode::Nat {
                        let untagged =
                            [&ended.bytes()[..12], &ended.bytes()[12 + 4 * out.len()..]].concat();
                        let left = Frame::parse(&untagged);
                        assert_eq!(left.to.to_string(), backends[n], "{hook:?} {what}");
                        assert_eq!(left.destination_mac, BACKEND_SIDE.destination_mac.unwrap());
                    }
                }
                // A VIP's answer goes back as the question came.
                let echo = if n == 0 { ECHO } else { ECHO6 };
                let question = packet(echo, CLIENT[n], vips[n]);
                let ended =
                    scene.send_bytes(hook, &tagged(&question.bytes(), &[OUTER, INNER]), None);
                assert_eq!(ended.reason, Reason::EchoAnswered, "{hook:?} {mode:?}");
                let first = if hook == Hook::Xdp { OUTER } else { INNER };
                assert_eq!(ended.bytes()[12..16], first, "{hook:?}");
            }
        }
    }
}
