//! lbd as a router: static routes over eight next hops carry traffic in eBPF, and follow what becomes of the next hops.

mod bridge;
mod full;
mod mac;
mod overrun;
mod reconcile;
mod steady;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use integration::api::Api;
use integration::clab::Endpoint;
use integration::lab::{Lab, Options};
use integration::traffic;
use integration::wait::eventually;
use lb_api_types::config::{Config, Hook};
use serde_json::json;

use self::steady::{Arrivals, Steady};
use crate::hello::{Holds as _, SOON};

const HOPS: usize = 8;
/// A source port each, of either family.
const FLOWS: u16 = 8000;
const FIRST_PORT: u16 = 20_000;
const DATAGRAMS: u16 = 7000;
const STREAMS: u16 = 7001;
/// The client's addresses, and those that are behind every next hop.
const CLIENTS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2)),
];
const DESTINATIONS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 1)),
];
/// Bytes of a stream.
const BODY: usize = 1 << 20;
/// Packets that the kernel may forward: those before the neighbours' MACs are known.
const FEW: u64 = 50;
/// How long packets may be lost on the way by a next hop that is gone, where the kernel says at once what happened. It takes
/// milliseconds; a busy machine takes longer.
const AWAY: Duration = Duration::from_millis(500);
/// The same where a neighbour falls silent. The kernel finds out by the topology's settings within 1.5 s of trust, 1 s until
/// somebody uses the entry, 1 s of delay and 0.3 s of questions; with its own, that is 45 s, 1 s, 5 s and 3 s.
const SILENT: Duration = Duration::from_secs(8);

/// By which next hop each flow came, by family and source port.
type Ways = BTreeMap<(bool, u16), usize>;

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
        router.is_attached();
        router
    }

    /// The fast path is at every interface that there is.
    fn is_attached(&self) {
        eventually("the fast path is attached to every interface", SOON, || {
            let attached = self.api.status()?.interfaces;
            let names: Vec<_> = attached.iter().map(|interface| interface.name.as_str()).collect();
            let all = (1..=HOPS + 1).all(|n| names.contains(&format!("eth{n}").as_str()));
            ensure!(all && names.len() == HOPS + 1, "{names:?}");
            Ok(())
        })
        .holds();
    }

    /// Notes what comes to a next hop, and gives streams.
    fn serve(&self, hop: usize) -> Result<()> {
        let node = self.lab.netns(&format!("hop{hop}"))?;
        let (datagrams, streams) = node.within(|| {
            let listen = |family: &str| TcpListener::bind(format!("{family}:{STREAMS}"));
            let datagrams =
                [(DESTINATIONS[0], DATAGRAMS), (DESTINATIONS[1], DATAGRAMS)].map(UdpSocket::bind);
            std::io::Result::Ok((datagrams, [listen("10.99.0.1")?, listen("[2001:db8:99::1]")?]))
        })??;
        self.steadily.count_at(node)?;
        for datagrams in datagrams {
            let (datagrams, arrived) = (datagrams?, Arc::clone(&self.arrived));
            thread::spawn(move || {
                let mut datagram = [0; 16];
                while let Ok((_, from)) = datagrams.recv_from(&mut datagram) {
                    if let Ok(mut arrived) = arrived.lock() {
                        arrived.insert((from.is_ipv6(), from.port()), hop);
                    }
                }
            });
        }
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
        eventually("every flow arrives", SOON, || {
            let arrived = self.arrived.lock().map_or_else(|_| Ways::new(), |ways| ways.clone());
            let ports = || FIRST_PORT..FIRST_PORT + FLOWS;
            let all = ports().map(|port| (false, port)).chain(ports().map(|port| (true, port)));
            let missing: Vec<_> = all.filter(|flow| !arrived.contains_key(flow)).collect();
            if missing.is_empty() {
                return Ok(arrived);
            }
            self.lab.netns("client")?.within(|| {
                for (is_ipv6, port) in &missing {
                    let family = usize::from(*is_ipv6);
                    let socket = UdpSocket::bind((CLIENTS[family], *port))?;
                    // A route that is just changing may refuse one; it is sent again.
                    let _lost = socket.send_to(b"flow", (DESTINATIONS[family], DATAGRAMS));
                }
                std::io::Result::Ok(())
            })??;
            bail!("{} of {FLOWS} flows of each family were missing", missing.len())
        })
    }

    /// A next hop goes by what `happens`, while packets flow: the others keep their flows, and few packets are lost.
    fn loses(&self, gone: usize, before: &Ways, happens: impl FnOnce()) -> Ways {
        self.loses_within(AWAY, gone, before, happens)
    }

    fn loses_within(
        &self,
        within: Duration,
        gone: usize,
        before: &Ways,
        happens: impl FnOnce(),
    ) -> Ways {
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
        assert!(away < within, "hop{gone} gone: {lost}");
        for is_ipv6 in [false, true] {
            let others =
                || before.iter().filter(|((six, _), hop)| *six == is_ipv6 && **hop != gone);
            let moved = others().filter(|(flow, hop)| after[flow] != **hop).count();
            let all = others().count();
            assert!(moved * 50 < all, "{moved} of {all} flows of other next hops moved");
        }
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
    for (hop, is_ipv6) in all.iter().flat_map(|hop| [(hop, false), (hop, true)]) {
        let its = before.iter().filter(|((six, _), way)| *six == is_ipv6 && *way == hop);
        let (share, even) = (its.count() * HOPS, usize::from(FLOWS));
        assert!((even * 9 / 10..=even * 11 / 10).contains(&share), "hop{hop}: {share} of {even}");
    }
    tells_senders(&router);
    let before = forgets_a_neighbour(&router);
    // A next hop leaves the configuration, and comes back.
    let others: Vec<usize> = all.iter().copied().filter(|hop| *hop != 3).collect();
    router.loses(3, &before, || router.route(&others).holds());
    router.route(&all).holds();
    router.has_ways(HOPS);

    loses_four(&router);
    gets_them_back(&router, hook);
    let since = Instant::now();
    router.is_attached();
    router.has_ways(HOPS);
    let ways = router.flows().holds();
    println!("all next hops are back after {:?}", since.elapsed());
    assert!(all.iter().all(|hop| ways.values().any(|way| way == hop)), "a next hop gets no flow");
    // lbd may have looked at the interface that was made anew before its far end took frames from XDP; it looks again.
    eventually("everything is on the fast path again", SOON, || {
        let before = router.counted()?;
        router.flows()?;
        // What comes in by the interface that was made anew, too.
        for to in CLIENTS {
            let pinged = router.lab.run("hop2", &format!("ping -c 100 -i 0.01 -W 10 {to}"))?;
            ensure!(pinged.contains(" 0% packet loss"), "{pinged}");
        }
        let now = router.counted()?;
        ensure!(now.1 - before.1 < FEW, "the kernel forwarded {} packets", now.1 - before.1);
        ensure!(now.0 - before.0 > 2 * u64::from(FLOWS) + 400 - FEW, "{before:?}, then {now:?}");
        Ok(())
    })
    .holds();
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

/// Senders hear of packets that end on the way, from the router itself.
fn tells_senders(router: &Router) {
    let run = |node: &str, command: &str| router.lab.run(node, command).holds();
    run("lbd", "ip link set eth9 mtu 1400");
    for (what, words) in [
        ("-t 1 10.99.0.1", ["From 10.1.0.1", "Time to live exceeded"]),
        ("-t 1 2001:db8:99::1", ["From 2001:db8:1::1", "Hop limit"]),
        ("-M do -s 1450 10.2.8.2", ["From 10.1.0.1", "mtu = 1400"]),
        ("-M do -s 1450 2001:db8:2:8::2", ["From 2001:db8:1::1", "mtu=1400"]),
    ] {
        eventually(&format!("ping {what} is answered"), SOON, || {
            let said = router.lab.run("client", &format!("ping -c 1 -W 1 {what} 2>&1 || true"))?;
            ensure!(words.iter().all(|words| said.contains(words)), "{said}");
            Ok(())
        })
        .holds();
    }
    run("lbd", "ip link set eth9 mtu 1500");
}

/// Somebody deletes the kernel's entries of a neighbour that is there: it is looked for at once.
fn forgets_a_neighbour(router: &Router) -> Ways {
    let steady = Steady::begin(&router.lab, &router.steadily).holds();
    let since = Instant::now();
    let forget = "ip neigh del 10.2.4.2 dev eth5; ip -6 neigh del 2001:db8:2:4::2 dev eth5";
    router.lab.run("lbd", forget).holds();
    router.flows().holds();
    router.has_ways(HOPS);
    let elapsed = since.elapsed();
    let lost = steady.end().holds();
    let away = lost.away(HOPS);
    println!("hop4 forgotten: {lost}, so its flows were away {away:?}; it was back in {elapsed:?}");
    assert!(away < AWAY, "hop4 forgotten: {lost}");
    // Its flows are others than before.
    router.flows().holds()
}

/// A link, a neighbour, an address and an interface.
fn loses_four(router: &Router) {
    let run = |node: &str, command: &str| drop(router.lab.run(node, command).holds());
    let before = router.flows().holds();
    let after = router.loses(5, &before, || run("lbd", "ip link set eth6 down"));
    // One falls silent: its link is up, and it takes and answers nothing.
    let silent = || router.lab.lose(&far_end("hop1"), 100).holds();
    let after = router.loses_within(SILENT, 1, &after, silent);
    // With it goes the network that a next hop is in.
    let gone = "ip addr del 10.2.7.1/24 dev eth8; ip -6 addr del 2001:db8:2:7::1/64 dev eth8";
    let after = router.loses(7, &after, || run("lbd", gone));
    router.loses(2, &after, || run("lbd", "ip link del eth3"));
    router.has_ways(HOPS - 4);
}

fn far_end(node: &str) -> Endpoint {
    Endpoint { node: node.into(), interface: "eth1".into() }
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
    router.lab.lose(&far_end("hop1"), 0).holds();
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
