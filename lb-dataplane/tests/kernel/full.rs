//! 64,000 flows against a table of 1,024 entries, under each policy: whoever is there stays, and the rest is refused or sent on
//! without a flow, each packet counted.

use std::collections::HashMap;

use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Mode::{self, IpInIp, Nat};
use lb_dataplane::table::Protocol::Tcp;
use lb_dataplane::table::Source;
use lb_dataplane::{Reason, Sizes};

use crate::family::{Family, each};
use crate::frame::{ACK, SYN, SYN_ACK, packet};
use crate::scene::{Scene, room, small};

const FLOWS: u32 = 64_000;
const ENTRIES: u32 = 1024;

fn client(family: Family, number: u32) -> String {
    let host = number / 250 % 250 * 256 + number % 250 + 1;
    family.at(1, host as u16, 40_000 + (number / 62_500) as u16)
}

fn scene(mode: Mode, family: Family) -> Scene {
    let sizes = Sizes { flow_entries: ENTRIES, flow_entries6: ENTRIES, ..small() };
    let mut scene = Scene::with_sizes(sizes);
    scene.mode = mode;
    scene.hashes_when_full = mode != Nat;
    if mode != Nat {
        scene.sources = vec![Source { address: family.host(2, 1), first_port: 1, last_port: 1 }];
    }
    let backends = [8, 9, 10].map(|last| family.at(2, last, 80));
    scene.serve(&family.vip(1), Tcp, Maglev, &backends.each_ref().map(String::as_str));
    scene
}

#[test]
fn by_drop_as_many_flows_as_have_room_stay_and_others_are_refused() {
    for (hook, family) in each() {
        let what = format!("{hook:?} {family:?}");
        let (mut scene, vip) = (scene(Nat, family), family.vip(1));
        let (mut held, mut refused) = (Vec::new(), 0);
        for number in 0..FLOWS {
            let client = client(family, number);
            let syn = scene.send(hook, &packet(SYN, &client, &vip));
            match syn.reason {
                Reason::ForwardedToBackend => {
                    let backend = syn.frame().to.to_string();
                    scene.send(hook, &packet(SYN_ACK, &backend, &client));
                    let ack = scene.send(hook, &packet(ACK, &client, &vip));
                    assert_eq!(ack.reason, Reason::ForwardedToBackend, "{what} {number}");
                    held.push((client, backend));
                }
                Reason::FlowTableFull => refused += 1,
                other => panic!("{what} {number}: {other:?}"),
            }
        }
        let flows = held.len() as u32;
        assert!((ENTRIES / 2..=room(ENTRIES) / 2).contains(&flows), "{what}: {flows}");
        assert_eq!(scene.count(Reason::FlowTableFull), refused);
        assert_eq!(held.len() as u64 + refused, u64::from(FLOWS));
        for (client, backend) in held {
            let ack = scene.send(hook, &packet(ACK, &client, &vip));
            assert_eq!(ack.reason, Reason::ForwardedToBackend, "{what}: who is there stays");
            assert_eq!(ack.frame().to.to_string(), backend);
            let back = scene.send(hook, &packet(ACK, &backend, &client));
            assert_eq!(back.reason, Reason::ForwardedToClient, "{what}");
        }
    }
}

#[test]
fn by_hash_nobody_is_refused_and_each_flow_keeps_to_one_backend() {
    for (hook, family) in each() {
        let what = format!("{hook:?} {family:?}");
        let (mut scene, vip) = (scene(IpInIp, family), family.vip(1));
        // The outer packet's destination.
        let mut backends = HashMap::new();
        // The second one confirms the flow, where there is one.
        for talk in [&[SYN, ACK][..], &[ACK]] {
            for (number, carries) in (0..FLOWS).flat_map(|n| talk.iter().map(move |c| (n, *c))) {
                let sent = scene.send(hook, &packet(carries, &client(family, number), &vip));
                assert!(
                    matches!(sent.reason, Reason::ForwardedByTunnel | Reason::ForwardedWithoutFlow),
                    "{what} {number}: {:?}",
                    sent.reason
                );
                let outer = if family == Family::V4 { 30..34 } else { 38..54 };
                let backend = sent.bytes()[outer].to_vec();
                let first = backends.entry(number).or_insert_with(|| backend.clone());
                assert_eq!(backend, *first, "{what} {number}");
            }
        }
        let without = scene.count(Reason::ForwardedWithoutFlow);
        let held = (scene.entries().len() + scene.entries6().len()) as u32;
        assert!((ENTRIES..=room(ENTRIES)).contains(&held), "{what}: {held}");
        assert_eq!(without, 3 * u64::from(FLOWS - held), "{what}");
    }
}
