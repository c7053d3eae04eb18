//! The largest segment size that SYNs announce is lowered where a service says so.

use std::net::SocketAddr;
use std::num::NonZero;

use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Protocol::Tcp;
use lb_dataplane::table::{MssClamp, Source};
use lb_dataplane::{Hook, Reason};

use crate::frame::{ACK, Carries, Frame, SYN, SYN_ACK, packet, pseudo_header, sum};
use crate::scene::{BOTH, Scene};

/// Client, VIP, backend, and where flows come from if that is not the client.
type Sides = (&'static str, &'static str, &'static str, Option<&'static str>);

const SIDES: [Sides; 4] = [
    ("10.1.0.5:40000", "192.0.2.1:80", "10.2.0.9:8080", None),
    ("[2001:db8:1::5]:40000", "[2001:db8:ff::1]:80", "[2001:db8:2::9]:8080", None),
    ("10.1.0.5:40000", "192.0.2.1:80", "[2001:db8:2::9]:8080", Some("2001:db8:ff::2")),
    ("[2001:db8:1::5]:40000", "[2001:db8:ff::1]:80", "10.2.0.9:8080", Some("192.0.2.2")),
];

fn scene((_, vip, backend, source): Sides, clamp: Option<MssClamp>) -> Scene {
    let mut scene = Scene::new();
    let ports = |a: &str| Source { address: a.parse().unwrap(), first_port: 2000, last_port: 2999 };
    scene.sources = source.map(ports).into_iter().collect();
    scene.template.mss_clamp = clamp;
    scene.serve(vip, Tcp, Maglev, &[backend]);
    scene
}

fn most(bytes: u16) -> Option<MssClamp> {
    NonZero::new(bytes).map(MssClamp::Most)
}

/// A segment with these options, every checksum right.
fn segment(carries: Carries, from: &str, to: &str, options: &[u8]) -> Vec<u8> {
    let mut bytes = Frame { payload: options.to_vec(), ..packet(carries, from, to) }.bytes();
    let at = bytes.len() - options.len() - 20;
    bytes[at + 12] = ((20 + options.len()) as u8 / 4) << 4;
    bytes[at + 16..at + 18].fill(0);
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let pseudo = pseudo_header(from.ip(), to.ip(), 6, bytes.len() - at);
    let checksum = sum(&[&pseudo, &bytes[at..]]);
    bytes[at + 16..at + 18].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// Options with a size among them, behind so many that say nothing.
fn options(before: usize, size: u16) -> Vec<u8> {
    let [high, low] = size.to_be_bytes();
    let mut options = [&vec![1; before][..], &[2, 4, high, low]].concat();
    // The window scale, and the end.
    options.extend([3, 3, 7, 0]);
    options.resize(options.len().next_multiple_of(4), 0);
    options
}

/// Sends a SYN and its answer, both with these options; the options of both as they come out.
fn exchange(scene: &mut Scene, hook: Hook, sides: Sides, options: &[u8]) -> [Vec<u8>; 2] {
    let (client, vip, backend, _) = sides;
    let there = scene.send_bytes(hook, &segment(SYN, client, vip, options), None);
    assert_eq!(there.reason, Reason::ForwardedToBackend, "{hook:?} {sides:?} {options:?}");
    let there = there.frame();
    let source = there.from.to_string();
    let back = scene.send_bytes(hook, &segment(SYN_ACK, backend, &source, options), None);
    assert_eq!(back.reason, Reason::ForwardedToClient, "{hook:?} {sides:?} {options:?}");
    [there.payload, back.frame().payload]
}

#[test]
fn a_size_that_is_too_large_is_lowered_both_ways_wherever_it_stands() {
    for sides in SIDES {
        let mut scene = scene(sides, most(1200));
        for hook in BOTH {
            for before in 0..=11 {
                let out = exchange(&mut scene, hook, sides, &options(before, 1460));
                assert_eq!(out, [options(before, 1200), options(before, 1200)], "{before}");
            }
            for size in [0, 536, 1199, 1200] {
                let out = exchange(&mut scene, hook, sides, &options(2, size));
                assert_eq!(out, [options(2, size), options(2, size)], "{hook:?} {sides:?}");
            }
        }
    }
}

#[test]
fn by_itself_it_is_what_fits_through_the_links() {
    for sides in SIDES {
        let mut scene = scene(sides, Some(MssClamp::Auto));
        for hook in BOTH {
            let (client, _, backend, _) = sides;
            // Ways of 1,500 bytes; the link that test runs come in by takes more.
            let fits = |to: &str| if to.starts_with('[') { 1440 } else { 1460 };
            let out = exchange(&mut scene, hook, sides, &options(0, 8960));
            assert_eq!(out, [options(0, fits(backend)), options(0, fits(client))], "{sides:?}");
        }
    }
}

#[test]
fn what_says_no_size_or_lies_goes_on_as_it_came() {
    let odd = [
        vec![],
        vec![1, 1, 1, 0],
        // A length of nothing, one beyond the header, a size of another length, a size behind the end.
        vec![3, 0, 2, 4, 5, 0xb4, 0, 0],
        vec![3, 40, 2, 4, 5, 0xb4, 0, 0],
        vec![2, 6, 5, 0xb4, 0, 0, 0, 0],
        vec![0, 2, 4, 5, 0xb4, 0, 0, 0],
        vec![8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2],
        // Behind more than are looked at.
        options(12, 1460),
    ];
    for sides in [SIDES[0], SIDES[3]] {
        let mut scene = scene(sides, most(1200));
        for hook in BOTH {
            for options in &odd {
                let out = exchange(&mut scene, hook, sides, options);
                assert_eq!(out, [options.clone(), options.clone()], "{hook:?} {sides:?}");
            }
        }
    }
}

#[test]
fn only_syns_of_a_service_that_says_so_are_touched() {
    for (clamp, carries) in [(most(1200), ACK), (None, SYN)] {
        let sides = SIDES[0];
        let mut scene = scene(sides, clamp);
        for hook in BOTH {
            scene.send_bytes(hook, &segment(SYN, sides.0, sides.1, &[]), None);
            let sent = segment(carries, sides.0, sides.1, &options(0, 1460));
            let out = scene.send_bytes(hook, &sent, None);
            assert_eq!(out.reason, Reason::ForwardedToBackend, "{hook:?}");
            assert_eq!(out.frame().payload, options(0, 1460), "{hook:?} {carries:?}");
        }
    }
}
