//! How many flows a service, a client and a backend may have.

use lb_dataplane::table::Algorithm::{LeastConnections, Maglev, RoundRobin, SourceHash};
use lb_dataplane::table::Protocol::{Tcp, Udp};
use lb_dataplane::{ClientPrefixes, Hook, Reason, seconds};

use crate::frame::{ACK, FIN, Frame, RST, RST_ACK, SYN, SYN_ACK, UDP, packet};
use crate::scene::{BOTH, Scene};

/// A VIP, clients and backends of one family, without the last number and the port.
const FAMILIES: [[&str; 3]; 2] = [
    ["192.0.2.1:80", "10.1.0.", "10.2.0."],
    ["[2001:db8:f::1]:80", "[2001:db8:1::", "[2001:db8:2::"],
];

/// An address of a family by its beginning, and a port.
fn at(begin: &str, last: u8, port: u16) -> String {
    let end = if begin.starts_with('[') { "]" } else { "" };
    format!("{begin}{last}{end}:{port}")
}

fn begin(scene: &mut Scene, hook: Hook, client: &str, vip: &str) -> (Reason, Frame) {
    let sent = scene.send(hook, &packet(SYN, client, vip));
    (sent.reason, sent.frame())
}

/// Opens a connection, as far as there is room for one.
fn connect(scene: &mut Scene, hook: Hook, client: &str, vip: &str) -> Reason {
    let (begun, there) = begin(scene, hook, client, vip);
    if begun != Reason::ForwardedToBackend {
        return begun;
    }
    scene.send(hook, &packet(SYN_ACK, &there.to.to_string(), client));
    scene.send(hook, &packet(ACK, client, vip)).reason
}

#[test]
fn a_service_has_as_many_flows_as_it_may_and_another_when_one_ends() {
    for hook in BOTH {
        for [vip, clients, backends] in FAMILIES {
            let mut scene = Scene::new();
            scene.bounds = [3, 0, 0];
            let backend = at(backends, 9, 8080);
            scene.serve(vip, Tcp, Maglev, &[&backend]);
            for n in 1..=3 {
                let reason = connect(&mut scene, hook, &at(clients, n, 40_000), vip);
                assert_eq!(reason, Reason::ForwardedToBackend, "{hook:?} {vip} {n}");
            }
            let (reason, _) = begin(&mut scene, hook, &at(clients, 4, 40_000), vip);
            assert_eq!(reason, Reason::ServiceFull, "{hook:?} {vip}");
            let (reason, _) = begin(&mut scene, hook, &at(clients, 1, 40_000), vip);
            assert_eq!(reason, Reason::ForwardedToBackend, "{hook:?}: it has its flow already");
            // A connection that closes and begins anew is the same one flow, while others still find no room.
            let client = at(clients, 1, 40_000);
            scene.send(hook, &packet(FIN, &client, vip));
            assert_eq!(connect(&mut scene, hook, &client, vip), Reason::ForwardedToBackend);
            let (reason, _) = begin(&mut scene, hook, &at(clients, 4, 40_000), vip);
            assert_eq!(reason, Reason::ServiceFull, "{hook:?} {vip}");
            // A higher bound lets in more, and none lets in all.
            scene.bounds = [4, 0, 0];
            scene.serve(vip, Tcp, Maglev, &[&backend]);
            let (reason, _) = begin(&mut scene, hook, &at(clients, 4, 40_000), vip);
            assert_eq!(reason, Reason::ForwardedToBackend, "{hook:?} {vip}");
        }
    }
}

#[test]
fn a_client_has_as_many_flows_as_it_may_and_others_theirs() {
    for hook in BOTH {
        for [vip, clients, backends] in FAMILIES {
            let each = ClientPrefixes { v4: 32, v6: 128 };
            let mut scene = Scene::with(|options| options.client_prefixes = each);
            scene.bounds = [0, 2, 0];
            let backend = at(backends, 9, 8080);
            scene.serve(vip, Tcp, RoundRobin, &[&backend]);
            for n in 1..=3 {
                for port in [40_000, 40_001] {
                    let reason = connect(&mut scene, hook, &at(clients, n, port), vip);
                    assert_eq!(reason, Reason::ForwardedToBackend, "{hook:?} {vip} {n}");
                }
                let (reason, _) = begin(&mut scene, hook, &at(clients, n, 40_002), vip);
                assert_eq!(reason, Reason::ClientFull, "{hook:?} {vip} {n}");
            }
            // A flow that was reset makes room.
            let closed = at(clients, 1, 40_000);
            scene.send(hook, &packet(RST_ACK, &backend, &closed));
            assert_eq!(connect(&mut scene, hook, &closed, vip), Reason::ForwardedToBackend);
            let (reason, _) = begin(&mut scene, hook, &at(clients, 1, 40_003), vip);
            assert_eq!(reason, Reason::ClientFull, "{hook:?} {vip}");
            // The bound goes on with another process.
            scene.open();
            scene.serve(vip, Tcp, RoundRobin, &[&backend]);
            let (reason, _) = begin(&mut scene, hook, &at(clients, 2, 40_003), vip);
            assert_eq!(reason, Reason::ClientFull, "{hook:?} {vip}");
        }
    }
}

#[test]
fn a_connection_counts_nowhere_once_it_is_closed() {
    const BOUNDS: [([u32; 3], Reason); 3] = [
        ([1, 0, 0], Reason::ServiceFull),
        ([0, 1, 0], Reason::ClientFull),
        ([0, 0, 1], Reason::BackendsFull),
    ];
    for hook in BOTH {
        for [vip, clients, backends] in FAMILIES {
            let mut scene = Scene::new();
            let backend = at(backends, 9, 8080);
            let mut port = 40_000;
            for (bounds, refusal) in BOUNDS {
                scene.bounds = bounds;
                scene.serve(vip, Tcp, RoundRobin, &[&backend]);
                for ends in [
                    &[(FIN, true), (FIN, false)][..],
                    &[(FIN, false), (FIN, true)],
                    &[(RST_ACK, false)],
                ] {
                    let what = format!("{hook:?} {vip} {refusal:?} {ends:?}");
                    let [first, second] = [port, port + 1].map(|port| at(clients, 1, port));
                    port += 2;
                    assert_eq!(begin(&mut scene, hook, &first, vip).0, Reason::ForwardedToBackend);
                    scene.send(hook, &packet(SYN_ACK, &backend, &first));
                    scene.send(hook, &packet(ACK, &first, vip));
                    assert_eq!(begin(&mut scene, hook, &second, vip).0, refusal, "{what}");
                    for (carries, is_clients) in ends {
                        let (from, to) = if *is_clients {
                            (first.as_str(), vip)
                        } else {
                            (backend.as_str(), first.as_str())
                        };
                        scene.send(hook, &packet(*carries, from, to));
                    }
                    assert_eq!(active(&mut scene), 0, "{what}");
                    let (reason, _) = begin(&mut scene, hook, &second, vip);
                    assert_eq!(reason, Reason::ForwardedToBackend, "{what}");
                    scene.send(hook, &packet(RST_ACK, &backend, &second));
                }
            }
            // What the client alone says may be forged, or said to have more than its share. So may a RST be provoked that
            // acknowledges nothing.
            let client = at(clients, 2, 40_000);
            connect(&mut scene, hook, &client, vip);
            for (carries, from, to) in
                [(FIN, &client[..], vip), (RST, &backend, &client), (RST, &client, vip)]
            {
                scene.send(hook, &packet(carries, from, to));
                assert_eq!(active(&mut scene), 1, "{hook:?} {vip} {carries:?}");
            }
            let entries = scene.entries().len() + scene.entries6().len();
            scene.let_pass(seconds(10));
            assert_eq!((scene.age().0, active(&mut scene)), (0, 0), "{hook:?} {vip}: silence");
            assert_eq!(scene.entries().len() + scene.entries6().len(), entries);
            // Who goes on nevertheless is not locked out by others, and others are by it.
            let other = at(clients, 3, 40_000);
            assert_eq!(connect(&mut scene, hook, &other, vip), Reason::ForwardedToBackend);
            let late = scene.send(hook, &packet(ACK, &client, vip));
            assert_eq!(late.reason, Reason::ForwardedToBackend, "{hook:?} {vip}");
            assert_eq!(active(&mut scene), 2, "{hook:?} {vip}");
            scene.send(hook, &packet(RST_ACK, &backend, &other));
            let more = begin(&mut scene, hook, &at(clients, 4, 40_000), vip).0;
            assert_eq!(more, Reason::BackendsFull, "{hook:?} {vip}");
            assert_eq!(active(&mut scene), 1, "{hook:?} {vip}");
            scene.let_pass(seconds(8000));
            scene.age();
            assert_eq!((active(&mut scene), scene.entries().len()), (0, 0), "{hook:?} {vip}");
        }
    }
}

/// Flows of all backends.
fn active(scene: &mut Scene) -> u64 {
    let counters = scene.get().service_counters().unwrap();
    counters.values().flat_map(|service| &service.backends).map(|backend| backend.active).sum()
}

#[test]
fn clients_count_as_one_by_the_prefixes_that_are_set() {
    let prefixes = ClientPrefixes { v4: 24, v6: 56 };
    let near = [
        ["10.1.0.5", "10.1.0.77", "10.1.1.5"],
        ["2001:db8:1:300::5", "2001:db8:1:3ff::5", "2001:db8:1:200::5"],
    ];
    for hook in BOTH {
        for ([vip, _, backends], [first, near, far]) in FAMILIES.into_iter().zip(near) {
            let mut scene = Scene::with(|options| options.client_prefixes = prefixes);
            scene.bounds = [0, 1, 0];
            let backend = at(backends, 9, 8080);
            scene.serve(vip, Tcp, Maglev, &[&backend]);
            let client = |address: &str| {
                std::net::SocketAddr::new(address.parse().unwrap(), 40_000).to_string()
            };
            let mut reason = |from: &str| connect(&mut scene, hook, &client(from), vip);
            assert_eq!(reason(first), Reason::ForwardedToBackend, "{hook:?}");
            assert_eq!(reason(near), Reason::ClientFull, "{hook:?} {near}");
            assert_eq!(reason(far), Reason::ForwardedToBackend, "{hook:?} {far}");
            // It is given back to whom it was counted for.
            scene.send(hook, &packet(RST_ACK, &backend, &client(first)));
            scene.let_pass(seconds(3600));
            scene.age();
            assert_eq!(begin(&mut scene, hook, &client(near), vip).0, Reason::ForwardedToBackend);
        }
    }
}

/// How many clients are counted.
fn counted(scene: &mut Scene) -> usize {
    let map = scene.get().map_mut("CLIENT_FLOWS").unwrap();
    let counts: aya::maps::HashMap<_, [u8; 20], u64> = map.try_into().unwrap();
    counts.keys().count()
}

#[test]
fn a_client_is_counted_while_it_has_flows_and_no_other_makes_its_count_be_forgotten() {
    const MOST: u8 = 8;
    for hook in BOTH {
        for [vip, clients, backends] in FAMILIES {
            let mut scene = Scene::with(|options| {
                options.client_prefixes = ClientPrefixes { v4: 32, v6: 128 };
                options.sizes.counted_clients = MOST.into();
            });
            scene.bounds = [0, 2, 0];
            let backend = at(backends, 9, 8080);
            scene.serve(vip, Tcp, Maglev, &[&backend]);
            let begin =
                |scene: &mut Scene, n, port| connect(scene, hook, &at(clients, n, port), vip);
            for n in 1..=MOST {
                assert_eq!(begin(&mut scene, n, 40_000), Reason::ForwardedToBackend, "{hook:?}");
            }
            assert_eq!(begin(&mut scene, 99, 40_000), Reason::ClientsFull, "{hook:?} {vip}");
            assert_eq!(begin(&mut scene, 1, 40_001), Reason::ForwardedToBackend, "{hook:?} {vip}");
            assert_eq!(begin(&mut scene, 1, 40_002), Reason::ClientFull, "{hook:?} {vip}");
            // One flow of two ends, and then the other.
            for (port, left) in [(40_000, MOST), (40_001, MOST - 1)] {
                scene.send(hook, &packet(RST_ACK, &backend, &at(clients, 1, port)));
                assert_eq!(counted(&mut scene), usize::from(left), "{hook:?} {vip} {port}");
            }
            assert_eq!(begin(&mut scene, 99, 40_000), Reason::ForwardedToBackend, "{hook:?} {vip}");
            scene.let_pass(seconds(8000));
            scene.age();
            assert_eq!(counted(&mut scene), 0, "{hook:?} {vip}");
        }
    }
}

#[test]
fn who_was_counted_by_another_prefix_ends_there_and_leaves_others_counts_as_they_are() {
    for hook in BOTH {
        for [vip, clients, backends] in FAMILIES {
            let mut scene = Scene::with(|options| {
                options.client_prefixes = ClientPrefixes { v4: 32, v6: 128 };
            });
            scene.bounds = [0, 1, 0];
            let backend = at(backends, 9, 8080);
            scene.serve(vip, Tcp, Maglev, &[&backend]);
            let connect = |scene: &mut Scene, n| connect(scene, hook, &at(clients, n, 40_000), vip);
            assert_eq!(connect(&mut scene, 1), Reason::ForwardedToBackend);
            // This one is half-open still.
            let late = at(clients, 2, 40_000);
            assert_eq!(begin(&mut scene, hook, &late, vip).0, Reason::ForwardedToBackend);
            scene.send(hook, &packet(SYN_ACK, &backend, &late));
            scene.options.client_prefixes = ClientPrefixes { v4: 24, v6: 64 };
            scene.open();
            scene.serve(vip, Tcp, Maglev, &[&backend]);
            assert_eq!(counted(&mut scene), 1, "{hook:?} {vip}");
            assert_eq!(connect(&mut scene, 3), Reason::ForwardedToBackend);
            assert_eq!(connect(&mut scene, 4), Reason::ClientFull);
            let opened = scene.send(hook, &packet(ACK, &late, vip)).reason;
            assert_eq!(opened, Reason::ForwardedToBackend, "{hook:?} {vip}");
            assert_eq!(counted(&mut scene), 3, "{hook:?} {vip}");
            for n in [1, 2] {
                scene.send(hook, &packet(RST_ACK, &backend, &at(clients, n, 40_000)));
                assert_eq!(connect(&mut scene, 4), Reason::ClientFull, "{hook:?} {vip}");
            }
            assert_eq!(counted(&mut scene), 1, "{hook:?} {vip}");
            scene.send(hook, &packet(RST_ACK, &backend, &at(clients, 3, 40_000)));
            assert_eq!(counted(&mut scene), 0, "{hook:?} {vip}");
            assert_eq!(connect(&mut scene, 4), Reason::ForwardedToBackend);
        }
    }
}

#[test]
fn a_clients_entry_that_was_to_be_removed_and_was_not_is_by_the_next_process() {
    let hook = Hook::Tc;
    let [vip, clients, backends] = FAMILIES[0];
    let mut scene = Scene::new();
    scene.bounds = [0, 1, 0];
    scene.serve(vip, Tcp, Maglev, &[&at(backends, 9, 8080)]);
    let port = |port| at(clients, 3, port);
    assert_eq!(connect(&mut scene, hook, &port(40_000), vip), Reason::ForwardedToBackend);
    let map = scene.get().map_mut("CLIENT_FLOWS").unwrap();
    let mut counts: aya::maps::HashMap<_, [u8; 20], u64> = map.try_into().unwrap();
    let first = counts.keys().next().unwrap().unwrap();
    let word = counts.get(&first, 0).unwrap();
    counts.insert(first, word & !0xffff_ffff | 1 << 31, 0).unwrap();
    assert_eq!(connect(&mut scene, hook, &port(40_001), vip), Reason::ClientsFull);
    scene.open();
    assert_eq!(counted(&mut scene), 0);
    assert_eq!(connect(&mut scene, hook, &port(40_002), vip), Reason::ForwardedToBackend);
}

#[test]
fn a_backend_has_as_many_flows_as_it_may_and_the_others_take_the_rest() {
    for hook in BOTH {
        for [vip, clients, backends] in FAMILIES {
            for algorithm in [Maglev, RoundRobin, LeastConnections, SourceHash] {
                let mut scene = Scene::new();
                scene.bounds = [0, 0, 4];
                let backends: Vec<_> = (1..=3).map(|n| at(backends, n, 8080)).collect();
                let backends: Vec<_> = backends.iter().map(String::as_str).collect();
                scene.serve(vip, Tcp, algorithm, &backends);
                for n in 0..12 {
                    let reason = connect(&mut scene, hook, &at(clients, 5, 40_000 + n), vip);
                    assert_eq!(reason, Reason::ForwardedToBackend, "{hook:?} {algorithm:?} {n}");
                }
                let (reason, _) = begin(&mut scene, hook, &at(clients, 5, 41_000), vip);
                assert_eq!(reason, Reason::BackendsFull, "{hook:?} {vip} {algorithm:?}");
                let counters = scene.get().service_counters().unwrap();
                let active = counters.values().flat_map(|service| &service.backends);
                assert_eq!(
                    active.map(|b| b.active).collect::<Vec<_>>(),
                    [4, 4, 4],
                    "{algorithm:?}"
                );
                let later = scene.send(hook, &packet(ACK, &at(clients, 6, 40_000), vip));
                assert_eq!(later.reason, Reason::UnknownFlow, "another node may count otherwise");
            }
        }
    }
}

#[test]
fn no_flow_is_refused_while_one_of_sixteen_backends_has_room() {
    for hook in BOTH {
        for [vip, clients, backends] in FAMILIES {
            for algorithm in [Maglev, SourceHash] {
                let mut scene = Scene::new();
                scene.bounds = [0, 0, 2];
                let backends: Vec<_> = (1..=16).map(|n| at(backends, n, 8080)).collect();
                let backends: Vec<_> = backends.iter().map(String::as_str).collect();
                scene.serve(vip, Tcp, algorithm, &backends);
                for n in 0..32 {
                    let reason = connect(&mut scene, hook, &at(clients, 5, 40_000 + n), vip);
                    assert_eq!(reason, Reason::ForwardedToBackend, "{hook:?} {algorithm:?} {n}");
                }
                let (reason, _) = begin(&mut scene, hook, &at(clients, 5, 41_000), vip);
                assert_eq!(reason, Reason::BackendsFull, "{hook:?} {vip} {algorithm:?}");
            }
        }
    }
}

#[test]
fn datagrams_flows_count_too_once_a_backend_has_answered() {
    for hook in BOTH {
        for [vip, clients, backends] in FAMILIES {
            let each = ClientPrefixes { v4: 32, v6: 128 };
            let mut scene = Scene::with(|options| options.client_prefixes = each);
            scene.bounds = [0, 1, 0];
            let backend = at(backends, 9, 53);
            scene.serve(vip, Udp, Maglev, &[&backend]);
            let [first, second] = [40_000, 40_001].map(|port| at(clients, 1, port));
            let mut send = |from: &str, to: &str| scene.send(hook, &packet(UDP, from, to)).reason;
            for client in [&first, &second] {
                assert_eq!(
                    send(client, vip),
                    Reason::ForwardedToBackend,
                    "{hook:?} {vip}: not yet"
                );
            }
            for _ in 0..2 {
                assert_eq!(send(&backend, &first), Reason::ForwardedToClient, "{hook:?} {vip}");
                assert_eq!(send(&first, vip), Reason::ForwardedToBackend, "{hook:?} {vip}");
                assert_eq!(send(&backend, &second), Reason::ClientFull, "{hook:?} {vip}");
            }
            assert_eq!(send(&at(clients, 1, 40_002), vip), Reason::ClientFull, "{hook:?} {vip}");
            assert_eq!(
                send(&at(clients, 2, 40_002), vip),
                Reason::ForwardedToBackend,
                "{hook:?} {vip}"
            );
        }
    }
}

/// One of the services has several ports, by which it is found otherwise.
#[test]
fn flows_that_anybody_may_have_forged_fill_no_bound() {
    for hook in BOTH {
        for ([vip, clients, backends], more_ports) in FAMILIES.into_iter().zip([0, 9]) {
            let mut scene = Scene::new();
            scene.bounds = [2, 0, 0];
            scene.more_ports = more_ports;
            let backend = at(backends, 9, 8080);
            scene.serve(vip, Tcp, Maglev, &[&backend]);
            let at_port = vip.replace(":80", &format!(":{}", 80 + more_ports));
            let there = at(backends, 9, 8080 + more_ports);
            for port in 0..20 {
                let (reason, _) = begin(&mut scene, hook, &at(clients, 9, 1000 + port), &at_port);
                assert_eq!(reason, Reason::ForwardedToBackend, "{hook:?} {vip}");
            }
            // All that have begun may be answered, but no more open than there is room for.
            let open: Vec<_> = (0..4)
                .map(|port| {
                    let client = at(clients, 1, 40_000 + port);
                    begin(&mut scene, hook, &client, &at_port);
                    client
                })
                .collect();
            let reasons: Vec<_> = open
                .iter()
                .map(|client| {
                    scene.send(hook, &packet(SYN_ACK, &there, client));
                    scene.send(hook, &packet(ACK, client, &at_port)).reason
                })
                .collect();
            let (yes, no) = (Reason::ForwardedToBackend, Reason::ServiceFull);
            assert_eq!(reasons, [yes, yes, no, no], "{hook:?} {vip}");
            let counters = scene.get().service_counters().unwrap();
            let counts: Vec<_> = counters
                .values()
                .flat_map(|service| &service.backends)
                .map(|backend| (backend.active, backend.half_open))
                .collect();
            assert_eq!(counts, [(2, 22)], "{hook:?} {vip}");
        }
    }
}
