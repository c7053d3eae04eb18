//! What clients see, on both hooks.

use std::net::TcpStream;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use integration::wait::eventually;
use integration::{demo, traffic};
use lb_api_types::config::Hook;
use lb_api_types::vip::{Algorithm, HealthCheckKind, Nat, NatMode, Protocol, Vip, VipSpec};
use nix::sys::signal::Signal;

use crate::hello::{Hello, Holds, INTERFACES, PODS, SOON, VIP, address};

const REQUESTS: u32 = 300;
/// Where flows of a full-NAT VIP come from.
const POOL: &str = "203.0.113.200";
/// An address of lbd's own that no route chooses by itself.
const LOCAL: &str = "10.255.0.1";
/// A request is at least this many packets through the balancer: handshake, question, answer, both ways.
const PACKETS_PER_REQUEST: u64 = 8;

macro_rules! on_both_hooks {
    ($($scenario:ident),* $(,)?) => {
        mod tc {
            $(#[test] fn $scenario() { super::$scenario(lb_api_types::config::Hook::Tc); })*
        }
        mod xdp {
            $(#[test] fn $scenario() { super::$scenario(lb_api_types::config::Hook::Xdp); })*
        }
    };
}

on_both_hooks!(
    vip_is_reachable_and_spread_over_all_backends,
    vip_is_withdrawn_when_the_last_backend_fails_and_returns,
    vips_survive_a_restart_of_lbd,
    an_established_transfer_survives_kill_9_of_lbd,
    expired_neighbours_cause_no_reset,
    a_bulk_transfer_arrives_whole,
    a_transfer_finds_its_way_through_smaller_mtus,
    datagrams_come_back_and_their_errors_too,
    backends_see_the_source_that_the_mode_says_and_need_no_way_back_to_the_client,
    flows_go_by_weight_by_load_and_by_client,
    a_range_of_ports_is_served_and_no_more_flows_than_there_may_be,
);

fn vip_is_reachable_and_spread_over_all_backends(hook: Hook) {
    let (hello, mut vip) = Hello::up_with_vip(hook);
    for (algorithm, least, most) in [(Algorithm::RoundRobin, 99, 101), (Algorithm::Maglev, 60, 140)]
    {
        vip.spec.algorithm = algorithm;
        hello.api.put_vip(&vip).holds();
        demo::all_healthy(&hello.api, &vip).holds();

        let fast = hello.packets_of_the_fast_path();
        let kernel = hello.packets_forwarded_by_the_kernel();
        let client = hello.lab.netns("client").holds();
        let spread = traffic::requests(client, address(&vip), REQUESTS).holds();

        spread.expect(PODS.len(), least, most).holds();
        let fast = hello.packets_of_the_fast_path() - fast;
        assert!(fast >= u64::from(REQUESTS) * PACKETS_PER_REQUEST, "only {fast} on the fast path");
        let kernel = hello.packets_forwarded_by_the_kernel() - kernel;
        assert_eq!(kernel, 0, "the kernel forwarded packets that are the fast path's");
    }
}

fn flows_go_by_weight_by_load_and_by_client(hook: Hook) {
    let (hello, vip) = Hello::up_with_vip(hook);
    choices_are_by_weight_by_load_and_by_client(&hello, vip, PODS);
}

/// Of backends that are these pods.
pub(crate) fn choices_are_by_weight_by_load_and_by_client<const N: usize>(
    hello: &Hello,
    mut vip: Vip,
    pods: [&str; N],
) {
    let to = address(&vip);
    let mut sixty = |change: &mut dyn FnMut(&mut VipSpec)| {
        change(&mut vip.spec);
        hello.api.put_vip(&vip).holds();
        demo::all_healthy(&hello.api, &vip).holds();
        let client = hello.lab.netns("client").holds();
        let spread = traffic::requests(client, address(&vip), 60).holds();
        assert!(spread.failures.is_empty(), "{spread}");
        pods.map(|pod| spread.pods.get(pod).copied().unwrap_or(0))
    };
    let weigh = |spec: &mut VipSpec, weights: [u8; N]| {
        spec.backends.iter_mut().zip(weights).for_each(|(backend, weight)| backend.weight = weight);
    };
    // The first the most, the last one.
    let weights: [u8; N] = std::array::from_fn(|place| (N - place) as u8);
    let all: u8 = weights.iter().sum();
    let shares = |of: u32| weights.map(|weight| of * u32::from(weight) / u32::from(all));
    let by_turns = sixty(&mut |spec| {
        spec.algorithm = Algorithm::RoundRobin;
        weigh(spec, weights);
    });
    assert_eq!(by_turns, shares(60));
    // Whole rounds of connections that stay: what is closed is nobody's load.
    let client = hello.lab.netns("client").holds();
    let connect =
        || client.within(|| TcpStream::connect_timeout(&to, SOON)).holds().expect("it connects");
    let held: Vec<TcpStream> = (0..12).map(|_| connect()).collect();
    let by_load = sixty(&mut |spec| {
        spec.algorithm = Algorithm::LeastConnections;
        weigh(spec, [1; N]);
    });
    let stay = shares(12).map(u64::from);
    assert!(by_load[N - 1] > 2 * by_load[0], "{by_load:?} beside {stay:?} that stay");
    eventually("each backend has the connections that stay, and no others", SOON, || {
        let status = hello.api.vip("web")?.status.context("a VIP has a status")?;
        let active: Vec<u64> = status.backends.iter().map(|b| b.active_flows).collect();
        ensure!(active == stay, "{active:?}");
        Ok(())
    })
    .holds();
    drop(held);
    let one_pod = |spread: [u32; N]| {
        assert!(spread.contains(&60), "{spread:?}");
    };
    one_pod(sixty(&mut |spec| spec.algorithm = Algorithm::SourceHash));
    one_pod(sixty(&mut |spec| {
        spec.algorithm = Algorithm::RoundRobin;
        spec.affinity_secs = Some(600);
    }));
}

fn a_range_of_ports_is_served_and_no_more_flows_than_there_may_be(hook: Hook) {
    let (hello, vip) = Hello::up_with_vip(hook);
    ranges_are_served_and_bounds_hold(&hello, vip);
}

pub(crate) fn ranges_are_served_and_bounds_hold(hello: &Hello, mut vip: Vip) {
    let client = hello.lab.netns("client").holds();
    let (port, pods) = (vip.spec.port, vip.spec.backends.len());
    // From nine ports below: the backends' one port is the tenth.
    vip.spec.algorithm = Algorithm::RoundRobin;
    (vip.spec.port, vip.spec.last_port) = (port - 9, Some(port + 10));
    for backend in &mut vip.spec.backends {
        vip.spec.health_check.port = Some(backend.port);
        backend.port -= 9;
    }
    let at = |port| std::net::SocketAddr::new(vip.spec.address, port);
    let put = |vip: &Vip| {
        hello.api.put_vip(vip).holds();
        demo::all_healthy(&hello.api, vip).holds();
    };
    put(&vip);
    let kernel = hello.packets_forwarded_by_the_kernel();
    let each = 30 / pods as u32;
    traffic::requests(client, at(port), 30).holds().expect(pods, each - 1, each + 1).holds();
    assert_eq!(hello.packets_forwarded_by_the_kernel(), kernel);
    // Nobody listens behind this one: the backend itself refuses.
    let refused =
        format!("{:#}", traffic::request(client, at(port + 1)).expect_err("nobody listens"));
    assert!(refused.contains("refused"), "{refused}");

    for (bound, reason) in
        [("service", "service-full"), ("client", "client-full"), ("backends", "backends-full")]
    {
        let before = hello.packets_that_ended(reason);
        let mut bounded = vip.clone();
        match bound {
            "service" => bounded.spec.max_flows = Some(1),
            "client" => bounded.spec.max_flows_per_client = Some(1),
            _ => bounded.spec.backends.iter_mut().for_each(|of| of.max_flows = Some(1)),
        }
        put(&bounded);
        // What is closed does not count, so as many are held open as there may be.
        let most = if bound == "backends" { pods } else { 1 };
        let connect = |time| client.within(|| TcpStream::connect_timeout(&at(port), time)).holds();
        let held: Vec<_> = (0..most).map(|_| connect(SOON).expect("there is room")).collect();
        connect(Duration::from_secs(1)).expect_err("there is no more room");
        assert!(hello.packets_that_ended(reason) > before, "{reason}");
        drop(held);
    }
    put(&vip);
    traffic::request(client, at(port)).holds();
}

fn vip_is_withdrawn_when_the_last_backend_fails_and_returns(hook: Hook) {
    let (mut hello, vip) = Hello::up_with_vip(hook);
    hello.is_answered(&vip);

    hello.stop("pod1", Signal::SIGKILL);
    hello.stop("pod2", Signal::SIGKILL);
    eventually("only the last pod is given requests", SOON, || {
        for _ in 0..6 {
            let pod = hello.request(&vip)?;
            ensure!(pod == "pod3", "{pod} answered");
        }
        Ok(())
    })
    .holds();
    hello.upstream_routes_the_vip();

    hello.stop("pod3", Signal::SIGKILL);
    hello.upstream_has_no_route_to_the_vip();
    let status = hello.api.vip("web").holds().status.expect("a VIP has a status");
    assert!(!status.advertised && !status.message.is_empty(), "{status:?}");

    PODS.iter().for_each(|pod| hello.start(pod));
    hello.upstream_routes_the_vip();
    demo::all_healthy(&hello.api, &vip).holds();
    let client = hello.lab.netns("client").holds();
    traffic::requests(client, address(&vip), 30).holds().expect(PODS.len(), 9, 11).holds();
}

fn vips_survive_a_restart_of_lbd(hook: Hook) {
    let (mut hello, vip) = Hello::up_with_vip(hook);
    hello.is_answered(&vip);
    let spec = hello.api.vip("web").holds().spec;

    hello.stop("lbd", Signal::SIGTERM);
    hello.upstream_has_no_route_to_the_vip();
    hello.start("lbd");

    assert_eq!(hello.api.vip("web").holds().spec, spec);
    hello.upstream_routes_the_vip();
    demo::all_healthy(&hello.api, &vip).holds();
    let client = hello.lab.netns("client").holds();
    traffic::requests(client, address(&vip), 30).holds().expect(PODS.len(), 9, 11).holds();
}

/// A transfer in the background that lasts as long as `act` does, and how far it is.
pub(crate) fn while_transferring(
    hello: &mut Hello,
    vip: &Vip,
    act: impl FnOnce(&mut Hello, &AtomicUsize),
) {
    while_transferring_at(500, hello, vip, act);
}

/// The same with so many blocks a second.
pub(crate) fn while_transferring_at(
    blocks_per_second: usize,
    hello: &mut Hello,
    vip: &Vip,
    act: impl FnOnce(&mut Hello, &AtomicUsize),
) {
    /// Minutes however fast, which only a test that fails reaches.
    const BLOCKS: usize = 50_000_000;
    let client = hello.lab.netns("client").holds().clone();
    let (arrived, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let transfer = scope.spawn(|| {
            traffic::transfer(&client, address(vip), BLOCKS, blocks_per_second, |blocks| {
                arrived.store(blocks, Ordering::Relaxed);
                if over.load(Ordering::Relaxed) {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })
        });
        let ends = SetOnDrop(&over);
        goes_on(&arrived, "the transfer has begun");
        act(hello, &arrived);
        drop(ends);
        transfer.join().expect("the transfer's thread does not panic").holds();
    });
    assert!(arrived.load(Ordering::Relaxed) < BLOCKS, "the transfer was over before the test was");
}

/// Set also when a test panics, since the scope waits for the transfer.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits until another part of the transfer has come.
pub(crate) fn goes_on(arrived: &AtomicUsize, what: &str) {
    const PART: usize = 200;
    let before = arrived.load(Ordering::Relaxed);
    eventually(what, SOON, || {
        let now = arrived.load(Ordering::Relaxed);
        ensure!(now >= before + PART, "{} blocks came", now - before);
        Ok(())
    })
    .holds();
}

fn an_established_transfer_survives_kill_9_of_lbd(hook: Hook) {
    let (mut hello, vip) = Hello::up_with_vip(hook);
    // The upstream router's way while no BGP session tells it one.
    hello.lab.run("upstream", &format!("ip route add {VIP} via 192.0.2.2 metric 500")).holds();
    while_transferring(&mut hello, &vip, |hello, arrived| {
        hello.stop("lbd", Signal::SIGKILL);
        goes_on(arrived, "the transfer goes on without lbd");
        hello.start("lbd");
        goes_on(arrived, "the transfer goes on after lbd's restart");
    });
    hello.sessions_are_established();
    hello.lab.run("upstream", &format!("ip route del {VIP} via 192.0.2.2 metric 500")).holds();
    hello.upstream_routes_the_vip();
    hello.is_answered(&vip);
}

fn expired_neighbours_cause_no_reset(hook: Hook) {
    let (mut hello, vip) = Hello::up_with_vip(hook);
    let capture = hello.lab.capture_at("client", "eth1").holds();
    while_transferring(&mut hello, &vip, |hello, arrived| {
        for _ in 0..4 {
            let before = hello.packets_without_neighbour();
            // Unanswered for a moment: otherwise the entries are back before a packet needs them.
            hello.answer_arp(false);
            for interface in INTERFACES {
                hello.lab.run("lbd", &format!("ip neigh flush dev {interface}")).holds();
            }
            eventually("the fast path meets a flow's packet without a neighbour", SOON, || {
                ensure!(hello.packets_without_neighbour() > before, "none came");
                Ok(())
            })
            .holds();
            hello.answer_arp(true);
            goes_on(arrived, "the transfer goes on");
        }
        // Before the client breaks the transfer off, which is a reset of its own.
        hello.lab.stop_one("client", "tcpdump-eth1", Signal::SIGINT).holds();
    });
    let seen = |filter: &str| hello.lab.captured(&capture, filter).holds();
    let of_the_vip = seen(&format!("tcp and src host {VIP}"));
    assert!(of_the_vip.len() > 100, "the capture holds too little: {}", of_the_vip.len());
    let resets = seen("tcp[tcpflags] & tcp-rst != 0");
    assert!(resets.is_empty(), "resets: {resets:#?}");
    let leaked = seen("net 10.0.0.0/8");
    assert!(leaked.is_empty(), "backend addresses at the client: {leaked:#?}");
    hello.is_answered(&vip);
}

/// As fast as it goes: hosts hand over merged segments with partial checksums wherever their interfaces let them.
fn a_bulk_transfer_arrives_whole(hook: Hook) {
    const BLOCKS: usize = 32 * 1024;
    let (hello, vip) = Hello::up_with_vip(hook);
    let client = hello.lab.netns("client").holds();
    let kernel = hello.packets_forwarded_by_the_kernel();
    traffic::transfer(client, address(&vip), BLOCKS, usize::MAX, |_| ControlFlow::Continue(()))
        .holds();
    let kernel = hello.packets_forwarded_by_the_kernel() - kernel;
    assert_eq!(kernel, 0, "the kernel forwarded packets that are the fast path's");
}

/// Senders hear of a smaller MTU, once from lbd about its own way out, and once from a router behind it about the VIP.
fn a_transfer_finds_its_way_through_smaller_mtus(hook: Hook) {
    const BLOCKS: usize = 1024;
    const HOPS: [(&str, u16, &str); 2] =
        [("lbd", 1400, "flow-too-big"), ("upstream", 1300, "error-to-backend")];
    let (hello, vip) = Hello::up_with_vip(hook);
    let client = hello.lab.netns("client").holds();
    for (node, mtu, reason) in HOPS {
        let before = hello.packets_that_ended(reason);
        // Only this end: the other one would make the client's TCP ask for smaller segments.
        hello.lab.run(node, &format!("ip link set eth1 mtu {mtu}")).holds();
        for pod in PODS {
            // What they learned of the hop before.
            hello.lab.run(pod, "ip route flush cache").holds();
        }
        eventually(&format!("a sender hears of an MTU of {mtu}"), SOON, || {
            // The router's tables may take a moment to hear of it.
            traffic::transfer(client, address(&vip), BLOCKS, usize::MAX, |_| {
                ControlFlow::Continue(())
            })?;
            ensure!(hello.packets_that_ended(reason) > before, "no packet ended as {reason}");
            Ok(())
        })
        .holds();
        hello.lab.run(node, "ip link set eth1 mtu 1500").holds();
    }
}

/// Small ones, and such that cross each link in fragments; of a port where nobody listens the client hears at once.
fn datagrams_come_back_and_their_errors_too(hook: Hook) {
    let (mut hello, mut vip) = Hello::up_with_vip(hook);
    vip.metadata.name = "datagrams".to_owned();
    vip.spec.protocol = Protocol::Udp;
    vip.spec.health_check.kind = HealthCheckKind::None;
    hello.api.put_vip(&vip).holds();
    demo::all_healthy(&hello.api, &vip).holds();
    let client = hello.lab.netns("client").holds();
    for len in [1, 100, 1472, 1473, 4000, 20_000] {
        let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
        for _ in 0..PODS.len() {
            traffic::echo(client, address(&vip), &payload)
                .unwrap_or_else(|error| panic!("{len} bytes: {error:#}"));
        }
    }
    fragments_that_overtake_their_first_come_through(&hello, &vip);
    so_do_those_of_backends(&mut hello, &vip, false);
    let client = hello.lab.netns("client").holds();

    vip.spec.backends.iter_mut().for_each(|backend| backend.port = 9);
    hello.api.put_vip(&vip).holds();
    demo::all_healthy(&hello.api, &vip).holds();
    let refused = traffic::echo(client, address(&vip), b"is anybody there?");
    let refused = refused.expect_err("nobody listens there");
    let refused = refused.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    assert_eq!(refused, Some(std::io::ErrorKind::ConnectionRefused));
    let pinged = hello.lab.run("client", &format!("ping -c 3 -i 0.2 -W 10 {VIP}")).holds();
    assert!(pinged.contains(" 0% packet loss"), "{pinged}");
    pings_reach_backends(&hello, &vip);
}

/// Short ones and such in fragments, once there is a VIP for them: before that lbd answers itself.
pub(crate) fn pings_reach_backends(hello: &Hello, vip: &Vip) {
    let mut pings = vip.clone();
    pings.metadata.name = "pings".to_owned();
    (pings.spec.protocol, pings.spec.port) = (Protocol::Icmp, 0);
    pings.spec.backends.iter_mut().for_each(|backend| backend.port = 0);
    hello.api.put_vip(&pings).holds();
    demo::all_healthy(&hello.api, &pings).holds();
    let answered = hello.packets_that_ended("echo-answered");
    for len in [56, 4000] {
        let ping = format!("ping -c 3 -i 0.2 -W 10 -s {len} {}", vip.spec.address);
        let pinged = hello.lab.run("client", &ping).holds();
        assert!(pinged.contains(" 0% packet loss"), "{len}: {pinged}");
    }
    assert_eq!(hello.packets_that_ended("echo-answered"), answered);
}

const OVERTAKEN: &str =
    concat!("python3 ", env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/overtaken.py");

/// Three fragments, the last one first.
pub(crate) fn fragments_that_overtake_their_first_come_through(hello: &Hello, vip: &Vip) {
    let kept = hello.packets_that_ended("fragment-kept");
    let ask = format!("{OVERTAKEN} {} {}", vip.spec.address, vip.spec.port);
    hello.lab.run("client", &ask).holds();
    assert_eq!(hello.packets_that_ended("fragment-kept"), kept + 2);
}

/// The same of what backends of this family answer.
pub(crate) fn so_do_those_of_backends(hello: &mut Hello, vip: &Vip, is_v6: bool) {
    const PORT: u16 = 4242;
    let mut vip = vip.clone();
    let family = if is_v6 { 6 } else { 4 };
    let answer = format!("{OVERTAKEN} answer {family} {PORT}");
    hello.lab.spawn(PODS[0], &format!("overtaken{family}"), &answer).holds();
    // Of that pod alone: once it has answered, it is there.
    vip.spec.backends.truncate(1);
    vip.spec.backends[0].port = PORT;
    hello.api.put_vip(&vip).holds();
    demo::all_healthy(&hello.api, &vip).holds();
    let client = hello.lab.netns("client").holds();
    let payload: Vec<u8> = (0..4000).map(|n| n as u8).collect();
    eventually("an answer comes back whose fragments overtook its first", SOON, || {
        traffic::echo(client, address(&vip), &payload)
    })
    .holds();
    let kept = hello.packets_that_ended("fragment-kept");
    traffic::echo(client, address(&vip), &payload).holds();
    assert_eq!(hello.packets_that_ended("fragment-kept"), kept + 2);
}

fn backends_see_the_source_that_the_mode_says_and_need_no_way_back_to_the_client(hook: Hook) {
    let (hello, mut vip) = Hello::up_with_vip(hook);
    let client = hello.lab.netns("client").holds();
    // Nodes know lbd's network, the VIP and the pool, and nothing beyond: only a source of ours can be answered.
    for (node, lbd) in [("node1", "10.0.1.1"), ("node2", "10.0.2.1")] {
        hello.lab.run(node, "ip route del default").holds();
        for source in [VIP, POOL, LOCAL] {
            hello.lab.run(node, &format!("ip route replace {source} via {lbd}")).holds();
        }
    }
    hello.lab.run("lbd", &format!("ip addr add {LOCAL}/32 dev lo")).holds();
    let pool = vec![POOL.parse().expect("an address")];
    let local = vec![LOCAL.parse().expect("an address")];
    for (mode, source_addresses, seen) in [
        (NatMode::FullNat, vec![], &[VIP][..]),
        (NatMode::FullNat, pool, &[POOL]),
        (NatMode::OneArm, vec![], &["10.0.1.1", "10.0.2.1"]),
        (NatMode::OneArm, local, &[LOCAL]),
    ] {
        vip.spec.nat = Nat { mode, source_addresses, ..Nat::default() };
        hello.api.put_vip(&vip).holds();
        demo::all_healthy(&hello.api, &vip).holds();
        let kernel = hello.packets_forwarded_by_the_kernel();
        traffic::requests(client, address(&vip), 30).holds().expect(PODS.len(), 9, 11).holds();
        for _ in 0..PODS.len() {
            let source = traffic::seen_as(client, address(&vip)).holds();
            assert!(seen.contains(&source.as_str()), "{mode:?}: a pod saw {source}");
        }
        assert_eq!(hello.packets_forwarded_by_the_kernel(), kernel, "{mode:?}");
    }
    vip.spec.nat = Nat::default();
    hello.api.put_vip(&vip).holds();
    demo::all_healthy(&hello.api, &vip).holds();
    hello.request(&vip).expect_err("with DNAT the pods' answers have no way back");
}
