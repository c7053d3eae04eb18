//! Which backend a new flow is given: by weight, by load, by client.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::time::{Duration, Instant};

use lb_dataplane::table::Access;
use lb_dataplane::table::Algorithm::{self, LeastConnections, Maglev, RoundRobin, SourceHash};
use lb_dataplane::table::Protocol::Tcp;
use lb_dataplane::{Hook, Reason};

use crate::family::{FAMILIES, Family, each, last};
use crate::frame::{ACK, Carries, RST, SYN, packet};
use crate::scene::{BOTH, Ended, Scene, with_half_open};

/// A client that begins flows through a hook.
struct Clients {
    scene: Scene,
    hook: Hook,
    family: Family,
    vip: String,
}

impl Clients {
    /// Of both families, at both hooks, one after the other: so the next one has the programs of the one before.
    fn each() -> impl Iterator<Item = Self> {
        each().map(|(hook, family)| Self::new(hook, family))
    }

    fn new(hook: Hook, family: Family) -> Self {
        Self { scene: Scene::new(), hook, family, vip: family.vip(1) }
    }

    /// Serves these backends by their last numbers, each behind what a scene reads before an address.
    fn serve(&mut self, algorithm: Algorithm, backends: &[(&str, u16)]) {
        let backends: Vec<String> = backends
            .iter()
            .map(|(what, last)| format!("{what}{}", self.family.at(2, *last, 80)))
            .collect();
        let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
        self.scene.serve(&self.vip, Tcp, algorithm, &backends);
    }

    fn send(&mut self, carries: Carries, client: u16, port: u16) -> Ended {
        let client = self.family.at(1, client, port);
        self.scene.send(self.hook, &packet(carries, &client, &self.vip))
    }

    /// Opens a connection; the last number of its backend's address.
    fn open(&mut self, client: u16, port: u16) -> u8 {
        let sent = self.send(SYN, client, port);
        assert_eq!(sent.reason, Reason::ForwardedToBackend, "{:?} {client}", self.family);
        last(sent.frame().to.ip())
    }

    /// Opens connections from different ports; how many each backend has.
    fn open_many(&mut self, count: u16) -> BTreeMap<u8, u16> {
        let mut shares = BTreeMap::new();
        for port in 0..count {
            *shares.entry(self.open(port / 200 * 256 + 5, 40_000 + port)).or_default() += 1;
        }
        shares
    }

    fn what(&self) -> String {
        format!("{:?} {:?}", self.hook, self.family)
    }
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
    for mut clients in Clients::each() {
        clients.serve(RoundRobin, &[("3x ", 1), ("", 2), ("2x ", 3)]);
        let shares = clients.open_many(120);
        assert_eq!(shares, BTreeMap::from([(1, 60), (2, 20), (3, 40)]), "{}", clients.what());
    }
}

#[test]
fn hashes_follow_the_weights() {
    for mut clients in Clients::each() {
        clients.serve(Maglev, &[("3x ", 1), ("", 2), ("2x ", 3)]);
        let shares = clients.open_many(1800);
        // Six standard deviations of chance.
        for (backend, share) in [(1, 900), (2, 300), (3, 600)] {
            assert!(shares[&backend].abs_diff(share) < 128, "{} {shares:?}", clients.what());
        }
    }
}

#[test]
fn connections_go_where_fewer_are() {
    for mut clients in Clients::each() {
        let backends: Vec<_> = (1..=8).map(|n| ("", n)).collect();
        clients.serve(LeastConnections, &backends);
        // So few that none of these half-open flows has to make room.
        let shares = clients.open_many(120);
        // Two choices keep the fullest within log log n of the average (Mitzenmacher 1996); by hash alone it is 8 off.
        let what = format!("{} {shares:?}", clients.what());
        assert!(shares.values().all(|share| share.abs_diff(15) <= 2), "{what}");
        let counted: Vec<_> = shares.values().map(|n| u64::from(*n)).collect();
        assert_eq!(flows(&mut clients.scene), counted, "{what}");
    }
}

/// What two CPUs know of each other's choices is a connection late at most.
#[test]
fn connections_that_begin_on_two_cpus_at_once_go_where_fewer_are_and_each_counts() {
    const EACH: u16 = 320;
    const BACKENDS: u16 = 32;
    let mut scene = Scene::with_sizes(with_half_open(2048));
    for family in FAMILIES {
        let vip = family.vip(1);
        let backends: Vec<String> = (1..=BACKENDS).map(|n| family.at(2, n, 80)).collect();
        let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
        for (n, hook) in (0..).zip(BOTH) {
            scene.serve(&vip, Tcp, LeastConnections, &backends);
            let syn = |thread: u16, flow: u16| {
                let from = family.at(1, thread * 256 + 5, 20_000 * (n + 1) + flow);
                packet(SYN, &from, &vip)
            };
            let threads = [0, 1].map(|thread| (0..EACH).map(|flow| syn(thread, flow)).collect());
            let before = flows(&mut scene).iter().sum::<u64>();
            let sent = scene.send_at_once(hook, &threads);
            assert!(sent.iter().all(|frame| backends.contains(&&*frame.to.to_string())));
            let loads = flows(&mut scene);
            assert_eq!(loads.iter().sum::<u64>(), before + 2 * u64::from(EACH), "{hook:?} {vip}");
            let average = loads.iter().sum::<u64>() / u64::from(BACKENDS);
            assert!(loads.iter().all(|load| load.abs_diff(average) <= 6), "{hook:?} {loads:?}");
        }
    }
}

#[test]
fn connections_that_end_make_room() {
    for mut clients in Clients::each() {
        clients.serve(LeastConnections, &[("", 1)]);
        clients.open_many(50);
        clients.serve(LeastConnections, &[("", 1), ("", 2)]);
        assert_eq!(flows(&mut clients.scene), [50, 0]);
        for port in 0..50 {
            assert_eq!(clients.open(9 * 256 + 5, 50_000 + port), 2, "{} {port}", clients.what());
        }
        assert_eq!(flows(&mut clients.scene), [50, 50]);
        // A SYN on a connection that its client has reset goes where it was: it is one flow.
        clients.send(RST, 9 * 256 + 5, 50_000);
        clients.open(9 * 256 + 5, 50_000);
        assert_eq!(flows(&mut clients.scene).iter().sum::<u64>(), 100, "{}", clients.what());
    }
}

#[test]
fn loads_follow_the_weights() {
    for mut clients in Clients::each() {
        clients.serve(LeastConnections, &[("3x ", 1), ("", 2)]);
        let shares = clients.open_many(120);
        assert!(shares[&1].abs_diff(90) <= 2, "{} {shares:?}", clients.what());
    }
}

#[test]
fn a_client_stays_where_its_address_leads() {
    for mut clients in Clients::each() {
        clients.serve(SourceHash, &[("", 1), ("", 2), ("", 3), ("", 4)]);
        let mut seen = BTreeMap::new();
        for client in 1..60 {
            let there = clients.open(client, 40_000);
            for port in 40_001..40_006 {
                assert_eq!(clients.open(client, port), there, "{}", clients.what());
            }
            *seen.entry(there).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 4, "{} {seen:?}", clients.what());
        // Any node would choose alike, so a connection of another node goes on here.
        assert_eq!(clients.send(ACK, 1, 50_000).reason, Reason::ForwardedToBackend);
    }
}

#[test]
fn a_client_comes_back_to_its_backend_as_long_as_that_takes_new_flows() {
    for mut clients in Clients::each() {
        clients.scene.affinity = NonZero::new(1000);
        clients.serve(RoundRobin, &[("", 1), ("", 2), ("", 3)]);
        for port in 40_000..40_008 {
            assert_eq!(clients.open(5, port), 1, "{}", clients.what());
            assert_eq!(clients.open(6, port), 2, "{}", clients.what());
        }
        clients.serve(RoundRobin, &[("draining ", 1), ("", 2), ("", 3)]);
        let now = clients.open(5, 41_000);
        assert_ne!(now, 1);
        clients.serve(RoundRobin, &[("", 1), ("", 2), ("", 3)]);
        for port in 42_000..42_008 {
            assert_eq!(clients.open(5, port), now, "{}", clients.what());
            assert_eq!(clients.open(6, port), 2, "{}", clients.what());
        }
        let later = clients.send(ACK, 5, 50_000);
        assert_eq!(later.reason, Reason::UnknownFlow, "another node may remember otherwise");
    }
}

#[test]
fn a_client_is_forgotten_after_a_while() {
    for mut clients in Clients::each() {
        clients.scene.affinity = NonZero::new(1);
        clients.serve(RoundRobin, &[("", 1), ("", 2)]);
        assert_eq!(clients.open(5, 40_000), 1);
        let deadline = Instant::now() + Duration::from_secs(40);
        // Two backends by turns: forgotten at last, the client is given the other one.
        let mut port = 40_001;
        while clients.open(5, port) == 1 {
            assert!(Instant::now() < deadline, "{}: never forgotten", clients.what());
            port = 40_001 + (port - 40_000) % 1000;
            std::thread::yield_now();
        }
    }
}

#[test]
fn the_longest_prefix_of_a_client_says_whether_it_may_begin_flows() {
    for (hook, family) in each() {
        let access = |host: u16, bits: u8, is_admitted| {
            let prefix = format!("{}/{}", family.host(1, host), family.bits(bits));
            Access { prefix: prefix.parse().unwrap(), is_admitted }
        };
        let nested = vec![access(0, 16, true), access(0x600, 24, false), access(0x606, 32, true)];
        let refused = vec![access(0x600, 24, false)];
        // Of the first network's 5, 6.5 and 6.6, and of another one.
        let cases = [(nested, [true, false, true, false]), (refused, [true, false, false, true])];
        for (list, may) in &cases {
            let mut clients = Clients::new(hook, family);
            clients.serve(Maglev, &[("", 1)]);
            clients.open(0x609, 1);
            clients.scene.access = list.clone();
            clients.serve(Maglev, &[("", 1)]);
            for ((network, host), may) in [(1, 5), (1, 0x605), (1, 0x606), (9, 1)].iter().zip(may) {
                let syn = packet(SYN, &family.at(*network, *host, 40_000), &clients.vip);
                let sent = clients.scene.send(clients.hook, &syn);
                let expected =
                    if *may { Reason::ForwardedToBackend } else { Reason::SourceRefused };
                assert_eq!(sent.reason, expected, "{} {network} {host:x}", clients.what());
            }
            // What there is goes on, another process knows the list, and an open service has none.
            clients.scene.open();
            assert_eq!(clients.send(ACK, 0x609, 1).reason, Reason::ForwardedToBackend);
            clients.serve(Maglev, &[("", 1)]);
            assert_eq!(clients.send(SYN, 0x605, 41_000).reason, Reason::SourceRefused);
            clients.scene.access.clear();
            clients.serve(Maglev, &[("", 1)]);
            clients.open(0x605, 42_000);
        }
    }
}
