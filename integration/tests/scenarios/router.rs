//! lbd as a router: static routes over eight next hops carry traffic in eBPF, and follow what becomes of the next hops.

mod full;
mod overrun;
mod steady;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use integration::api::Api;
use integration::lab::{Lab, Options};
use integration::traffic;
use integration::wait::eventually;
use lb_api_types::config::{Config, Hook};
use serde_json::json;

use self::steady::{Arrivals, Steady};
use crate::hello::{Holds as _, SOON};

const HOPS: usize = 8;
/// A source port each.
const FLOWS: u16 = 8000;
const FIRST_PORT: u16 = 20_000;
const DATAGRAMS: u16 = 7000;
const STREAMS: u16 = 7001;
/// Bytes of a stream.
const BODY: usize = 1 << 20;
/// Packets that the kernel may forward: those before the neighbours' MACs are known.
const FEW: u64 = 50;
/// How long packets may be lost on the way by a next hop that is gone. It takes milliseconds where the kernel says at once
/// what happened, and some tenths of a second where its tables have to be read; a busy machine takes longer.
const AWAY: Duration = Duration::from_secs(3);

/// By which next hop each flow came, by source port.
type Ways = BTreeMap<u16, usize>;

struct Router {
    lab: Lab,
    api: Api,
    arrived: Arc<Mutex<Ways>>,
    steadily: Arrivals,
}

impl Router {
    fn up(hook: Hook) -> Self {
        Self::up_with(hook, |_| {})
    }

    /// With lbd's configuration changed.
    fn up_with(hook: Hook, edit: impl Fn(&mut Config) + Send + Sync + 'static) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/router");
        let topology = folder.join("router.clab.yml");
        let mut options = Options::of(&topology.to_string_lossy(), None, None).holds();
        options.hook = hook;
        options.edit = Box::new(edit);
        let lab = Lab::up(&options).holds();
        let api = lab.api();
        let router = Self { lab, api, arrived: Arc::default(), steadily: Arrivals::default() };
        (1..=HOPS).for_each(|hop| router.serve(hop).holds());
        eventually("the fast path is attached to every interface", SOON, || {
            let attached = router.api.status()?.interfaces.len();
            ensure!(attached == HOPS + 1, "{attached} interfaces");
            Ok(())
        })
        .holds();
        router
    }

    /// Notes what comes to a next hop, and gives streams.
    fn serve(&self, hop: usize) -> Result<()> {
        let node = self.lab.netns(&format!("hop{hop}"))?;
        let (datagrams, streams) = node.within(|| {
            let listen = |family: &str| TcpListener::bind(format!("{family}:{STREAMS}"));
            let datagrams = UdpSocket::bind(("10.99.0.1", DATAGRAMS))?;
            std::io::Result::Ok((datagrams, [listen("10.99.0.1")?, listen("[2001:db8:99::1]")?]))
        })??;
        self.steadily.count_at(node)?;
        let arrived = Arc::clone(&self.arrived);
        thread::spawn(move || {
            let mut datagram = [0; 16];
            while let Ok((_, from)) = datagrams.recv_from(&mut datagram) {
                if let Ok(mut arrived) = arrived.lock() {
                    arrived.insert(from.port(), hop);
                }
            }
        });
        for listener in streams {
            thread::spawn(move || {
                while let Ok((mut stream, _)) = listener.accept() {
                    // Whoever went away wants no more.
                    let _gone = stream.write_all(&vec![7; BODY]);
                }
            });
        }
        Ok(())
    }

    /// Has a static route of each family lead to these next hops.
    fn route(&self, hops: &[usize]) -> Result<()> {
        for (name, prefix, network) in
            [("four", "10.99.0.0/24", "10.2."), ("six", "2001:db8:99::/64", "2001:db8:2:")]
        {
            let end = if name == "four" { ".2" } else { "::2" };
            let next_hops: Vec<_> =
                hops.iter().map(|hop| json!({"address": format!("{network}{hop}{end}")})).collect();
            let spec = json!({"prefix": prefix, "next_hops": next_hops});
            let body = json!({"metadata": {"name": name}, "spec": spec}).to_string();
            let answer = self.api.request("PUT", &format!("static-routes/{name}"), Some(&body))?;
            ensure!(answer.status < 300, "{}: {}", answer.status, answer.body);
        }
        Ok(())
    }

    /// Waits until eBPF sends packets of both routes to exactly so many next hops, all of whose MACs are known.
    fn has_ways(&self, count: usize) {
        eventually(&format!("{count} next hops in the eBPF FIB"), SOON, || {
            let fib = self.api.fib()?;
            for prefix in ["10.99.0.0/24", "2001:db8:99::/64"] {
                let entry = fib.iter().find(|entry| entry.metadata.name == prefix);
                let members = &entry.with_context(|| format!("no {prefix}"))?.status.members;
                let known = members.iter().filter(|member| member.mac.is_some()).count();
                ensure!((known, members.len()) == (count, count), "{prefix}: {members:?}");
            }
            Ok(())
        })
        .holds();
    }

    /// Sends a datagram of every flow, again where it is lost, until each has arrived.
    fn flows(&self) -> Result<Ways> {
        if let Ok(mut arrived) = self.arrived.lock() {
            arrived.clear();
        }
        let to: SocketAddr = ([10, 99, 0, 1], DATAGRAMS).into();
        eventually("every flow arrives", SOON, || {
            let arrived = self.arrived.lock().map_or_else(|_| Ways::new(), |ways| ways.clone());
            let ports = FIRST_PORT..FIRST_PORT + FLOWS;
            let missing: Vec<u16> = ports.filter(|port| !arrived.contains_key(port)).collect();
            if missing.is_empty() {
                return Ok(arrived);
            }
            self.lab.netns("client")?.within(|| {
                for port in &missing {
                    let socket = UdpSocket::bind(("10.1.0.2", *port))?;
                    // A route that is just changing may refuse one; it is sent again.
                    let _lost = socket.send_to(b"flow", to);
                }
                std::io::Result::Ok(())
            })??;
            bail!("{} of {FLOWS} flows were missing", missing.len())
        })
    }

    /// A next hop goes by what `happens`, while packets flow: the others keep their flows, and few packets are lost.
    fn loses(&self, gone: usize, before: &Ways, happens: impl FnOnce()) -> Ways {
        let steady = Steady::begin(&self.lab, &self.steadily).holds();
        let since = Instant::now();
        happens();
        let after = eventually("no flow comes by the next hop that is gone", SOON, || {
            let ways = self.flows()?;
            ensure!(ways.values().all(|hop| *hop != gone), "hop{gone} still gets flows");
            Ok(ways)
        })
        .holds();
        let elapsed = since.elapsed();
        let lost = steady.end().holds();
        let away = lost.away(HOPS);
        println!(
            "hop{gone} gone: {lost}, so its flows were away {away:?}; all moved in {elapsed:?}"
        );
        assert!(away < AWAY, "hop{gone} gone: {lost}");
        let others = || before.iter().filter(|(_, hop)| **hop != gone);
        let moved = others().filter(|(port, hop)| after[port] != **hop).count();
        let all = others().count();
        assert!(moved * 50 < all, "{moved} of {all} flows of other next hops moved");
        after
    }

    fn stream(&self, to: IpAddr) -> Result<()> {
        self.lab.netns("client")?.within(|| {
            let mut stream = TcpStream::connect(SocketAddr::new(to, STREAMS))?;
            stream.set_read_timeout(Some(SOON))?;
            let mut body = Vec::new();
            stream.read_to_end(&mut body)?;
            ensure!(body.len() == BODY && body.iter().all(|byte| *byte == 7), "other bytes");
            Ok(())
        })?
    }

    fn counted(&self) -> Result<(u64, u64)> {
        let reasons = self.api.status()?.reasons.into_iter();
        let fast = reasons.filter(|reason| reason.reason == "forwarded").map(|it| it.packets).sum();
        Ok((fast, traffic::forwarded_by_kernel(self.lab.netns("lbd")?)?))
    }
}

#[test]
fn static_routes_over_eight_next_hops_carry_traffic_in_ebpf_and_follow_what_becomes_of_them() {
    follows(Hook::Tc);
}

#[test]
fn the_same_holds_at_xdp() {
    follows(Hook::Xdp);
}

fn follows(hook: Hook) {
    let router = Router::up(hook);
    let all: Vec<usize> = (1..=HOPS).collect();
    router.route(&all).holds();
    router.has_ways(HOPS);
    let before = carries_traffic(&router);
    for hop in &all {
        let share = before.values().filter(|way| *way == hop).count() * HOPS;
        let even = usize::from(FLOWS);
        assert!((even * 9 / 10..=even * 11 / 10).contains(&share), "hop{hop}: {share} of {even}");
    }
    // A next hop leaves the configuration, and comes back.
    let others: Vec<usize> = all.iter().copied().filter(|hop| *hop != 3).collect();
    router.loses(3, &before, || router.route(&others).holds());
    router.route(&all).holds();
    router.has_ways(HOPS);

    loses_four(&router);
    gets_them_back(&router, hook);
    let since = Instant::now();
    router.has_ways(HOPS);
    let ways = router.flows().holds();
    println!("all next hops are back after {:?}", since.elapsed());
    assert!(all.iter().all(|hop| ways.values().any(|way| way == hop)), "a next hop gets no flow");
    let (_, slow) = router.counted().holds();
    router.flows().holds();
    let (_, now) = router.counted().holds();
    assert!(now - slow < FEW, "the kernel forwarded {} packets", now - slow);
    let said = router.api.request("GET", "static-routes/four", None).holds();
    assert!(said.body.contains("\"Best\""), "{}", said.body);
}

/// Ping, TCP and datagrams of both families, in eBPF; the ways of the datagrams.
fn carries_traffic(router: &Router) -> Ways {
    let (fast, slow) = router.counted().holds();
    for to in ["10.99.0.1", "2001:db8:99::1"] {
        let pinged = router.lab.run("client", &format!("ping -c 20 -i 0.02 -W 10 {to}")).holds();
        assert!(pinged.contains(" 0% packet loss"), "{pinged}");
        router.stream(to.parse().expect("an address")).holds();
    }
    let before = router.flows().holds();
    let (fast, slow) = {
        let now = router.counted().holds();
        (now.0 - fast, now.1 - slow)
    };
    assert!(fast > u64::from(FLOWS), "{fast} packets on the fast path, {slow} by the kernel");
    assert!(slow < FEW, "{fast} packets on the fast path, {slow} by the kernel");
    before
}

/// A link, a neighbour, an address and an interface.
fn loses_four(router: &Router) {
    let run = |node: &str, command: &str| drop(router.lab.run(node, command).holds());
    let before = router.flows().holds();
    let after = router.loses(5, &before, || run("lbd", "ip link set eth6 down"));
    let after = router.loses(1, &after, || {
        run("hop1", "ip addr del 10.2.1.2/24 dev eth1; ip -6 addr del 2001:db8:2:1::2/64 dev eth1");
        // The kernel is told so at once here, where it would find out in some seconds.
        run("lbd", "ip neigh del 10.2.1.2 dev eth2; ip -6 neigh del 2001:db8:2:1::2 dev eth2");
    });
    // With it goes the network that a next hop is in.
    let gone = "ip addr del 10.2.7.1/24 dev eth8; ip -6 addr del 2001:db8:2:7::1/64 dev eth8";
    let after = router.loses(7, &after, || run("lbd", gone));
    router.loses(2, &after, || run("lbd", "ip link del eth3"));
    router.has_ways(HOPS - 4);
}

fn gets_them_back(router: &Router, hook: Hook) {
    // The new interface is attached to like the old one.
    for command in [
        "ip link set eth6 up",
        "ip -6 addr add 2001:db8:2:5::1/64 dev eth6 nodad",
        "ip addr add 10.2.7.1/24 dev eth8",
        "ip -6 addr add 2001:db8:2:7::1/64 dev eth8 nodad",
    ] {
        router.lab.run("lbd", command).holds();
    }
    for command in [
        "ip addr add 10.2.1.2/24 dev eth1",
        "ip -6 addr add 2001:db8:2:1::2/64 dev eth1 nodad",
        "ip route replace default via 10.2.1.1",
        "ip -6 route replace default via 2001:db8:2:1::1",
    ] {
        router.lab.run("hop1", command).holds();
    }
    let far = router.lab.netns("hop2").holds().name();
    let link = format!("ip link add eth3 type veth peer name eth1 netns {far}");
    router.lab.run("lbd", &link).holds();
    for command in [
        "ip link set eth3 up",
        "ip addr add 10.2.2.1/24 dev eth3",
        "ip -6 addr add 2001:db8:2:2::1/64 dev eth3 nodad",
    ] {
        router.lab.run("lbd", command).holds();
    }
    for command in [
        "ip link set eth1 up",
        "ip addr add 10.2.2.2/24 dev eth1",
        "ip -6 addr add 2001:db8:2:2::2/64 dev eth1 nodad",
        "ip route replace default via 10.2.2.1",
        "ip -6 route replace default via 2001:db8:2:2::1",
    ] {
        router.lab.run("hop2", command).holds();
    }
    if hook == Hook::Xdp {
        // As the lab does for its own links: a redirected frame is received by a far end with NAPI only.
        router.lab.run("lbd", "ethtool -K eth3 tx off gro on").holds();
        router.lab.run("hop2", "ethtool -K eth1 tx off gro on").holds();
    }
}
