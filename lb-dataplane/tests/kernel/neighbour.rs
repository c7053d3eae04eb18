//! Who asks a link for a VIP's MAC is answered where this node answers for it, and nowhere else.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Protocol::Tcp;
use lb_dataplane::{Hook, Reason};

use crate::frame::sum;
use crate::scene::{BOTH, Ended, Scene};

/// Test runs come in through the loopback interface, whose MAC is known as this.
const LOOPBACK: u32 = 1;
const OWN: [u8; 6] = [0; 6];
const ASKS: [u8; 6] = [2, 0, 0, 0, 0, 99];
const VIP: [u8; 4] = [192, 0, 2, 1];
const CLIENT: [u8; 4] = [192, 0, 2, 9];
const VIP6: &str = "2001:db8:f::1";

fn scene() -> Scene {
    let mut scene = Scene::new();
    let vip6 = format!("[{VIP6}]:80");
    scene.apply(&[
        ("192.0.2.1:80", Tcp, Maglev, &["10.2.0.9:80"]),
        (&vip6, Tcp, Maglev, &["[2001:db8:2::9]:80"]),
    ]);
    scene
}

/// Both VIPs on the loopback interface's link, and one on another's.
pub(crate) fn answers(scene: &mut Scene, exactly: bool) {
    let vips = [IpAddr::from(VIP), VIP6.parse().unwrap()];
    let here = vips.map(|vip| (LOOPBACK, vip));
    let all: BTreeSet<_> = here.into_iter().chain([(7, IpAddr::from([192, 0, 2, 2]))]).collect();
    scene.get().answer_for(&all, exactly).unwrap();
}

fn arp(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let head = [8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
    [&[0xff; 6][..], &ASKS, &head, &ASKS, &sender, &[0; 6], &target, &[0; 18]].concat()
}

fn send(scene: &mut Scene, hook: Hook, bytes: &[u8]) -> Ended {
    scene.send_bytes(hook, bytes, None)
}

#[test]
fn an_arp_request_for_a_vip_is_answered_where_it_is_announced() {
    let mut scene = scene();
    for hook in BOTH {
        let ask = arp(CLIENT, VIP);
        assert_eq!(send(&mut scene, hook, &ask).reason, Reason::NotForUs, "{hook:?}: nobody said");
        answers(&mut scene, true);
        let answer = send(&mut scene, hook, &ask);
        assert_eq!((answer.reason, answer.code), (Reason::NeighbourAnswered, "redirect"));
        let head = [8, 6, 0, 1, 8, 0, 6, 4, 0, 2];
        let expected = [&ASKS[..], &OWN, &head, &OWN, &VIP, &ASKS, &CLIENT, &[0; 18]].concat();
        assert_eq!(answer.bytes(), expected, "{hook:?}");
        // A probe (RFC 5227 §2.1.1) comes from nobody yet.
        let probe = send(&mut scene, hook, &arp([0; 4], VIP));
        assert_eq!(probe.reason, Reason::NeighbourAnswered, "{hook:?}");
        // A question to this MAC alone, as who wants to know whether it still holds asks.
        let mut own = ask.clone();
        own[..6].copy_from_slice(&OWN);
        assert_eq!(send(&mut scene, hook, &own).reason, Reason::NeighbourAnswered, "{hook:?}");
        scene.get().answer_for(&BTreeSet::new(), false).unwrap();
        assert_eq!(send(&mut scene, hook, &ask).reason, Reason::NeighbourAnswered, "{hook:?}");
        scene.get().answer_for(&BTreeSet::new(), true).unwrap();
        assert_eq!(send(&mut scene, hook, &ask).reason, Reason::NotForUs, "{hook:?}: over");
    }
}

#[test]
fn what_else_arp_says_is_the_kernels() {
    let mut scene = scene();
    answers(&mut scene, true);
    for hook in BOTH {
        let at = |place: usize, byte: u8| {
            let mut bytes = arp(CLIENT, VIP);
            bytes[place] = byte;
            bytes
        };
        for (what, bytes) in [
            ("a reply", at(21, 2)),
            ("another hardware", at(15, 6)),
            ("another protocol", at(16, 0x86)),
            ("longer addresses", at(18, 8)),
            ("a VIP on another link", arp(CLIENT, [192, 0, 2, 2])),
            ("no VIP", arp(CLIENT, [192, 0, 2, 3])),
            ("somebody who has it, too", arp(VIP, VIP)),
            ("half a question", arp(CLIENT, VIP)[..40].to_vec()),
        ] {
            let ended = send(&mut scene, hook, &bytes);
            assert_eq!(ended.reason, Reason::NotForUs, "{hook:?} {what}");
            assert_eq!(ended.bytes(), bytes, "{hook:?} {what}");
        }
    }
}

/// A question of neighbour discovery, with these options behind it.
fn solicitation(source: &str, to: &str, target: &str, options: &[u8]) -> Vec<u8> {
    let octets = |address: &str| address.parse::<Ipv6Addr>().unwrap().octets();
    let (source, to, target) = (octets(source), octets(to), octets(target));
    let mut icmp = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target, options].concat();
    let len = (icmp.len() as u16).to_be_bytes();
    let pseudo = [&source[..], &to, &[0, 0], &len, &[0, 0, 0, 58]].concat();
    let checksum = sum(&[&pseudo, &icmp]);
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mac = if to[0] == 0xff { [0x33, 0x33, to[12], to[13], to[14], to[15]] } else { OWN };
    let head = [&mac[..], &ASKS, &[0x86, 0xdd, 0x60, 0, 0, 0], &len, &[58, 255]].concat();
    [&head[..], &source, &to, &icmp].concat()
}

/// A question for the VIP of a family.
pub(crate) fn question(is_v6: bool) -> Vec<u8> {
    if is_v6 { solicitation("2001:db8:f::9", VIP6, VIP6, &[]) } else { arp(CLIENT, VIP) }
}

/// The advertisement in a frame: who it is for, its flags, and whether it names the MAC; all else is checked.
fn advertisement(ended: &Ended) -> ([u8; 6], Ipv6Addr, u8, bool) {
    let bytes = ended.bytes();
    assert_eq!(ended.reason, Reason::NeighbourAnswered);
    assert_eq!((&bytes[6..12], &bytes[12..14]), (&OWN[..], &[0x86, 0xdd][..]));
    let vip = VIP6.parse::<Ipv6Addr>().unwrap().octets();
    assert_eq!(
        (&bytes[20..22], &bytes[22..38], &bytes[62..78]),
        (&[58, 255][..], &vip[..], &vip[..])
    );
    assert_eq!((&bytes[54..56], &bytes[59..62]), (&[136, 0][..], &[0; 3][..]));
    let len = u16::from_be_bytes([bytes[18], bytes[19]]);
    let pseudo = [&bytes[22..54], &[0, 0], &len.to_be_bytes(), &[0, 0, 0, 58]].concat();
    assert_eq!(sum(&[&pseudo, &bytes[54..54 + usize::from(len)]]), 0, "checksum of {bytes:02x?}");
    let has_mac = len == 32;
    assert!(has_mac || len == 24, "{len}");
    assert!(!has_mac || bytes[78..86] == [&[2, 1][..], &OWN].concat());
    let to: [u8; 16] = bytes[38..54].try_into().unwrap();
    (bytes[..6].try_into().unwrap(), to.into(), bytes[58], has_mac)
}

#[test]
fn a_solicitation_for_a_vip_is_answered_where_it_is_announced() {
    const GROUP: &str = "ff02::1:ff00:1";
    let mac = [&[1, 1][..], &ASKS].concat();
    let nonce = [&[14, 1][..], &[7; 6]].concat();
    let mut scene = scene();
    answers(&mut scene, true);
    for hook in BOTH {
        // From a global and a link-local address, to all who may have it and to this node alone, with options and without.
        for (source, to, options, has_mac) in [
            ("2001:db8:f::9", GROUP, mac.clone(), true),
            ("fe80::9", GROUP, mac.clone(), true),
            ("2001:db8:f::9", VIP6, mac.clone(), true),
            ("2001:db8:f::9", GROUP, [&mac[..], &nonce].concat(), true),
            ("2001:db8:f::9", VIP6, vec![], false),
        ] {
            let ended = send(&mut scene, hook, &solicitation(source, to, VIP6, &options));
            let expected = (ASKS, source.parse().unwrap(), 0x60, has_mac);
            assert_eq!(advertisement(&ended), expected, "{hook:?} {source} {to}");
        }
        // Who looks whether somebody has the address already hears it with all others.
        let all = ([0x33, 0x33, 0, 0, 0, 1], "ff02::1".parse().unwrap());
        for (options, has_mac) in [(vec![], false), (nonce.clone(), true)] {
            let ended = send(&mut scene, hook, &solicitation("::", GROUP, VIP6, &options));
            assert_eq!(advertisement(&ended), (all.0, all.1, 0x20, has_mac), "{hook:?}");
        }
        // Nobody asks so (RFC 4861 §7.1.1).
        let ended = send(&mut scene, hook, &solicitation("::", VIP6, VIP6, &[]));
        assert_ne!(ended.reason, Reason::NeighbourAnswered, "{hook:?}");
    }
}

#[test]
fn what_else_neighbour_discovery_says_is_the_kernels() {
    const GROUP: &str = "ff02::1:ff00:1";
    let mut scene = scene();
    answers(&mut scene, true);
    for hook in BOTH {
        let good = solicitation("2001:db8:f::9", GROUP, VIP6, &[]);
        let at = |place: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[place] = byte;
            bytes
        };
        for (what, bytes) in [
            ("no VIP", solicitation("2001:db8:f::9", GROUP, "2001:db8:f::2", &[])),
            ("through a router", at(21, 254)),
            ("a wrong checksum", at(56, !good[56])),
            ("an advertisement", at(54, 136)),
            ("a code", at(55, 1)),
            ("an extension header", at(20, 0)),
            ("a length that lies", at(19, 200)),
            ("half a question", good[..70].to_vec()),
        ] {
            let ended = send(&mut scene, hook, &bytes);
            assert_eq!(ended.reason, Reason::NotForUs, "{hook:?} {what}");
            assert_eq!(ended.bytes(), bytes, "{hook:?} {what}");
        }
    }
}
