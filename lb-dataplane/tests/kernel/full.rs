//! 64,000 flows against a table of 1,024 entries, under each policy: whoever is there stays, and the rest is refused or sent on
//! without a flow, each packet counted.

use std::collections::HashMap;

use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Mode::{self, IpInIp, Nat};
use lb_dataplane::table::Protocol::Tcp;
use lb_dataplane::table::Source;
use lb_dataplane::{Reason, Sizes};

use crate::frame::{ACK, SYN, SYN_ACK, packet};
use crate::scene::{BOTH, Scene, small};

const VIP: &str = "192.0.2.1:80";
const FLOWS: u32 = 64_000;
const ENTRIES: u32 = 1024;

fn client(number: u32) -> String {
    format!("10.1.{}.{}:{}", number / 250 % 250, number % 250 + 1, 40_000 + number / 62_500)
}

fn scene(mode: Mode) -> Scene {
    let mut scene = Scene::with_sizes(Sizes { flow_entries: ENTRIES, ..small() });
    scene.mode = mode;
    scene.hashes_when_full = mode != Nat;
    if mode != Nat {
        let address = std::net::IpAddr::from([10, 2, 0, 1]);
        scene.sources = vec![Source { address, first_port: 1, last_port: 1 }];
    }
    scene.serve(VIP, Tcp, Maglev, &["10.2.0.8:80", "10.2.0.9:80", "10.2.0.10:80"]);
    scene
}

#[test]
fn by_drop_as_many_flows_as_have_room_stay_and_others_are_refused() {
    for hook in BOTH {
        let mut scene = scene(Nat);
        let (mut held, mut refused) = (Vec::new(), 0);
        for number in 0..FLOWS {
            let client = client(number);
            let syn = scene.send(hook, &packet(SYN, &client, VIP));
            match syn.reason {
                Reason::ForwardedToBackend => {
                    let backend = syn.frame().to.to_string();
                    scene.send(hook, &packet(SYN_ACK, &backend, &client));
                    let ack = scene.send(hook, &packet(ACK, &client, VIP));
                    assert_eq!(ack.reason, Reason::ForwardedToBackend, "{hook:?} {number}");
                    held.push((client, backend));
                }
                Reason::FlowTableFull => refused += 1,
                other => panic!("{hook:?} {number}: {other:?}"),
            }
        }
        assert!(held.len() as u32 >= ENTRIES / 2 - 8, "{hook:?}: {}", held.len());
        assert_eq!(scene.count(Reason::FlowTableFull), refused);
        assert_eq!(held.len() as u64 + refused, u64::from(FLOWS));
        for (client, backend) in held {
            let ack = scene.send(hook, &packet(ACK, &client, VIP));
            assert_eq!(ack.reason, Reason::ForwardedToBackend, "{hook:?}: who is there stays");
            assert_eq!(ack.frame().to.to_string(), backend);
            let back = scene.send(hook, &packet(ACK, &backend, &client));
            assert_eq!(back.reason, Reason::ForwardedToClient, "{hook:?}");
        }
    }
}

#[test]
fn by_hash_nobody_is_refused_and_each_flow_keeps_to_one_backend() {
    for hook in BOTH {
        let mut scene = scene(IpInIp);
        // The outer packet's destination.
        let mut backends = HashMap::new();
        // The second one confirms the flow, where there is one.
        for talk in [&[SYN, ACK][..], &[ACK]] {
            for (number, carries) in (0..FLOWS).flat_map(|n| talk.iter().map(move |c| (n, *c))) {
                let sent = scene.send(hook, &packet(carries, &client(number), VIP));
                assert!(
                    matches!(sent.reason, Reason::ForwardedByTunnel | Reason::ForwardedWithoutFlow),
                    "{hook:?} {number}: {:?}",
                    sent.reason
                );
                let backend: [u8; 4] = sent.bytes()[30..34].try_into().unwrap();
                let first = *backends.entry(number).or_insert(backend);
                assert_eq!(backend, first, "{hook:?} {number}");
            }
        }
        let without = scene.count(Reason::ForwardedWithoutFlow);
        assert_eq!(without, 3 * u64::from(FLOWS - ENTRIES), "{hook:?}");
        assert_eq!(scene.entries().len() as u32, ENTRIES);
    }
}
