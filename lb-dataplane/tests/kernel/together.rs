//! Two CPUs that have packets of the same flows at the same time, each flow's first.

use std::net::SocketAddr;

use lb_dataplane::Reason;
use lb_dataplane::table::{Algorithm::RoundRobin, Protocol::Udp, Source};

use crate::family::each;
use crate::frame::{UDP, packet};
use crate::scene::{Scene, with_half_open};

const FLOWS: u16 = 4000;
/// Packets of all cases that may meet a CPU that is interrupted while it writes an entry.
const INTERRUPTED: u64 = 4;

/// Who is behind meets flows that are there already, which is sooner done, and so catches up. Backends get flows by turns, so that
/// the two choose different ones.
#[test]
fn of_two_packets_that_begin_a_flow_on_two_cpus_none_is_dropped() {
    let mut dropped = 0;
    for is_full in [false, true] {
        for (hook, family) in each() {
            let [vip, _, backend] = &family.ends();
            let other = &family.at(2, 2, 8080);
            let what = format!("{hook:?} {family:?}, full NAT: {is_full}");
            let mut scene = Scene::with_sizes(with_half_open(8192));
            if is_full {
                let address = vip.parse::<SocketAddr>().unwrap().ip();
                scene.sources = vec![Source { address, first_port: 20_000, last_port: 59_999 }];
            }
            scene.serve(vip, Udp, RoundRobin, &[backend, other]);
            let first = |n| packet(UDP, &family.at(1, 5, 1000 + n), vip);
            let frames: Vec<_> = (0..FLOWS).map(first).collect();
            let sent = scene.send_at_once(hook, &[frames.clone(), frames]);
            let (here, there) = sent.split_at(FLOWS.into());
            let mut both = here.iter().zip(there).filter(|(a, b)| a.to.port() == b.to.port());
            assert!(both.all(|(here, there)| here == there), "{what}: each by one flow");

            let collided = scene.count(Reason::FlowCollision);
            let stayed = sent.iter().filter(|frame| frame.to.to_string() == *vip).count();
            assert_eq!(stayed as u64, collided, "{what}: for no other reason");
            let entries = scene.entries().len() + scene.entries6().len();
            let of_nobody = if is_full { 0 } else { collided };
            assert!(entries as u64 <= 2 * u64::from(FLOWS) + of_nobody, "{what}: {entries}");
            dropped += collided;
        }
    }
    assert!(dropped <= INTERRUPTED, "{dropped}");
}
