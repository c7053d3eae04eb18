//! Which backend a new flow is given: by weight, by load, by client.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZero;
use std::time::{Duration, Instant};

use lb_dataplane::table::Access;
use lb_dataplane::table::Algorithm::{self, LeastConnections, Maglev, RoundRobin, SourceHash};
use lb_dataplane::table::Protocol::Tcp;
use lb_dataplane::{Hook, Reason};

use crate::frame::{ACK, RST, SYN, packet};
use crate::scene::{BOTH, Scene, with_half_open};

const VIP: &str = "192.0.2.1:80";

/// Opens a connection; the last number of its backend's address.
fn open(scene: &mut Scene, hook: Hook, client: &str) -> u8 {
    let sent = scene.send(hook, &packet(SYN, client, VIP));
    assert_eq!(sent.reason, Reason::ForwardedToBackend, "{client}");
    let IpAddr::V4(backend) = sent.frame().to.ip() else { panic!("of IPv6") };
    backend.octets()[3]
}

/// Opens connections from different ports; how many each backend has.
fn open_many(scene: &mut Scene, hook: Hook, count: u16) -> BTreeMap<u8, u16> {
    let mut shares = BTreeMap::new();
    for port in 0..count {
        let client = format!("10.1.{}.5:{}", port / 200, 40_000 + port);
        *shares.entry(open(scene, hook, &client)).or_default() += 1;
    }
    shares
}

fn serve(scene: &mut Scene, algorithm: Algorithm, backends: &[&str]) {
    scene.serve(VIP, Tcp, algorithm, backends);
}

/// Flows that each backend has, as the counters say, half-open ones among them.
fn flows(scene: &mut Scene) -> Vec<u64> {
    let counters = scene.get().service_counters().unwrap();
    counters
        .values()
        .flat_map(|service| &service.backends)
        .map(|b| b.active + b.half_open)
        .collect()
}

#[test]
fn turns_follow_the_weights_to_the_flow() {
    for hook in BOTH {
        let mut scene = Scene::new();
        serve(&mut scene, RoundRobin, &["3x 10.2.0.1:80", "10.2.0.2:80", "2x 10.2.0.3:80"]);
        let shares = open_many(&mut scene, hook, 120);
        assert_eq!(shares, BTreeMap::from([(1, 60), (2, 20), (3, 40)]), "{hook:?}");
    }
}

#[test]
fn hashes_follow_the_weights() {
    let mut scene = Scene::new();
    serve(&mut scene, Maglev, &["3x 10.2.0.1:80", "10.2.0.2:80", "2x 10.2.0.3:80"]);
    let shares = open_many(&mut scene, Hook::Tc, 1800);
    // Six standard deviations of chance.
    for (backend, share) in [(1, 900), (2, 300), (3, 600)] {
        assert!(shares[&backend].abs_diff(share) < 128, "{shares:?}");
    }
}

#[test]
fn connections_go_where_fewer_are() {
    for hook in BOTH {
        let mut scene = Scene::new();
        let backends: Vec<String> = (1..=8).map(|n| format!("10.2.0.{n}:80")).collect();
        let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
        serve(&mut scene, LeastConnections, &backends);
        // So few that none of these half-open flows has to make room.
        let shares = open_many(&mut scene, hook, 120);
        // Two choices keep the fullest within log log n of the average (Mitzenmacher 1996); by hash alone it is 8 off.
        assert!(shares.values().all(|share| share.abs_diff(15) <= 2), "{hook:?} {shares:?}");
        assert_eq!(flows(&mut scene), shares.values().map(|n| u64::from(*n)).collect::<Vec<_>>());
    }
}

/// What two CPUs know of each other's choices is a connection late at most.
#[test]
fn connections_that_begin_on_two_cpus_at_once_go_where_fewer_are_and_each_counts() {
    const EACH: u16 = 320;
    const BACKENDS: u16 = 32;
    let mut scene = Scene::with_sizes(with_half_open(2048));
    for (vip, clients, backends) in [
        ("192.0.2.1:80", "10.1.", "10.2.0."),
        ("[2001:db8:f::1]:80", "[2001:db8:1::", "[2001:db8:2::"),
    ] {
        let is_v6 = vip.starts_with('[');
        let backends: Vec<String> = (1..=BACKENDS)
            .map(|n| format!("{backends}{n}{}:80", if is_v6 { "]" } else { "" }))
            .collect();
        let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
        for (n, hook) in (0..).zip(BOTH) {
            scene.serve(vip, Tcp, LeastConnections, &backends);
            let syn = |thread: u16, flow: u16| {
                let end = if is_v6 { "]" } else { "" };
                let host = if is_v6 { format!("{}", 1 + thread) } else { format!("{thread}.5") };
                let from = format!("{clients}{host}{end}:{}", 20_000 * (n + 1) + flow);
                packet(SYN, &from, vip)
            };
            let threads = [0, 1].map(|thread| (0..EACH).map(|flow| syn(thread, flow)).collect());
            let before = flows(&mut scene).iter().sum::<u64>();
            let sent = scene.send_at_once(hook, &threads);
            assert!(sent.iter().all(|frame| frame.to.port() == 80 && frame.to.ip() != ip(vip)));
            let loads = flows(&mut scene);
            assert_eq!(loads.iter().sum::<u64>(), before + 2 * u64::from(EACH), "{hook:?} {vip}");
            let average = loads.iter().sum::<u64>() / u64::from(BACKENDS);
            assert!(loads.iter().all(|load| load.abs_diff(average) <= 6), "{hook:?} {loads:?}");
        }
    }
}

fn ip(socket: &str) -> IpAddr {
    socket.parse::<std::net::SocketAddr>().unwrap().ip()
}

#[test]
fn connections_that_end_make_room() {
    let mut scene = Scene::new();
    serve(&mut scene, LeastConnections, &["10.2.0.1:80"]);
    open_many(&mut scene, Hook::Tc, 50);
    serve(&mut scene, LeastConnections, &["10.2.0.1:80", "10.2.0.2:80"]);
    assert_eq!(flows(&mut scene), [50, 0]);
    for port in 0..50 {
        let client = format!("10.1.9.5:{}", 50_000 + port);
        assert_eq!(open(&mut scene, Hook::Tc, &client), 2, "{port}");
    }
    assert_eq!(flows(&mut scene), [50, 50]);
    // A SYN on a connection that was reset begins anew: one ends, one begins.
    let client = "10.1.9.5:50000";
    scene.send(Hook::Tc, &packet(RST, client, VIP));
    open(&mut scene, Hook::Tc, client);
    assert_eq!(flows(&mut scene).iter().sum::<u64>(), 100);
}

#[test]
fn loads_follow_the_weights() {
    let mut scene = Scene::new();
    serve(&mut scene, LeastConnections, &["3x 10.2.0.1:80", "10.2.0.2:80"]);
    let shares = open_many(&mut scene, Hook::Tc, 120);
    assert!(shares[&1].abs_diff(90) <= 2, "{shares:?}");
}

#[test]
fn a_client_stays_where_its_address_leads() {
    for hook in BOTH {
        let mut scene = Scene::new();
        let backends = ["10.2.0.1:80", "10.2.0.2:80", "10.2.0.3:80", "10.2.0.4:80"];
        serve(&mut scene, SourceHash, &backends);
        let mut seen = BTreeMap::new();
        for client in 1..60 {
            let there = open(&mut scene, hook, &format!("10.1.0.{client}:40000"));
            for port in 40_001..40_006 {
                assert_eq!(open(&mut scene, hook, &format!("10.1.0.{client}:{port}")), there);
            }
            *seen.entry(there).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 4, "{seen:?}");
        // Any node would choose alike, so a connection of another node goes on here.
        let later = scene.send(hook, &packet(ACK, "10.1.0.1:50000", VIP));
        assert_eq!(later.reason, Reason::ForwardedToBackend);
    }
}

#[test]
fn a_client_comes_back_to_its_backend_as_long_as_that_takes_new_flows() {
    for hook in BOTH {
        let mut scene = Scene::new();
        scene.affinity = NonZero::new(1000);
        serve(&mut scene, RoundRobin, &["10.2.0.1:80", "10.2.0.2:80", "10.2.0.3:80"]);
        for port in 40_000..40_008 {
            assert_eq!(open(&mut scene, hook, &format!("10.1.0.5:{port}")), 1);
            assert_eq!(open(&mut scene, hook, &format!("10.1.0.6:{port}")), 2);
        }
        serve(&mut scene, RoundRobin, &["draining 10.2.0.1:80", "10.2.0.2:80", "10.2.0.3:80"]);
        let now = open(&mut scene, hook, "10.1.0.5:41000");
        assert_ne!(now, 1);
        serve(&mut scene, RoundRobin, &["10.2.0.1:80", "10.2.0.2:80", "10.2.0.3:80"]);
        for port in 42_000..42_008 {
            assert_eq!(open(&mut scene, hook, &format!("10.1.0.5:{port}")), now);
            assert_eq!(open(&mut scene, hook, &format!("10.1.0.6:{port}")), 2);
        }
        let later = scene.send(hook, &packet(ACK, "10.1.0.5:50000", VIP));
        assert_eq!(later.reason, Reason::UnknownFlow, "another node may remember otherwise");
    }
}

#[test]
fn a_client_is_forgotten_after_a_while() {
    let mut scene = Scene::new();
    scene.affinity = NonZero::new(1);
    serve(&mut scene, RoundRobin, &["10.2.0.1:80", "10.2.0.2:80"]);
    assert_eq!(open(&mut scene, Hook::Tc, "10.1.0.5:40000"), 1);
    let deadline = Instant::now() + Duration::from_secs(40);
    // Two backends by turns: forgotten at last, the client is given the other one.
    let mut port = 40_001;
    while open(&mut scene, Hook::Tc, &format!("10.1.0.5:{port}")) == 1 {
        assert!(Instant::now() < deadline, "never forgotten");
        port = 40_001 + (port - 40_000) % 1000;
        std::thread::yield_now();
    }
}

#[test]
fn the_longest_prefix_of_a_client_says_whether_it_may_begin_flows() {
    let access =
        |prefix: &str, is_admitted| Access { prefix: prefix.parse().unwrap(), is_admitted };
    let nested = vec![
        access("10.1.0.0/16", true),
        access("10.1.6.0/24", false),
        access("10.1.6.6/32", true),
    ];
    let refused = vec![access("10.1.6.0/24", false)];
    // Clients 10.1.0.5, 10.1.6.5, 10.1.6.6 and 10.9.0.1.
    let cases = [(nested, [true, false, true, false]), (refused, [true, false, false, true])];
    for hook in BOTH {
        for (list, may) in &cases {
            let mut scene = Scene::new();
            let backends = ["10.2.0.1:80"];
            serve(&mut scene, Maglev, &backends);
            open(&mut scene, hook, "10.1.6.9:1");
            scene.access = list.clone();
            serve(&mut scene, Maglev, &backends);
            for (client, may) in ["10.1.0.5", "10.1.6.5", "10.1.6.6", "10.9.0.1"].iter().zip(may) {
                let sent = scene.send(hook, &packet(SYN, &format!("{client}:40000"), VIP));
                let expected =
                    if *may { Reason::ForwardedToBackend } else { Reason::SourceRefused };
                assert_eq!(sent.reason, expected, "{hook:?} {client}");
            }
            // What there is goes on, another process knows the list, and an open service has none.
            scene.open();
            let old = scene.send(hook, &packet(ACK, "10.1.6.9:1", VIP));
            assert_eq!(old.reason, Reason::ForwardedToBackend);
            serve(&mut scene, Maglev, &backends);
            let sent = scene.send(hook, &packet(SYN, "10.1.6.5:41000", VIP));
            assert_eq!(sent.reason, Reason::SourceRefused);
            scene.access.clear();
            serve(&mut scene, Maglev, &backends);
            open(&mut scene, hook, "10.1.6.5:42000");
        }
    }
}
