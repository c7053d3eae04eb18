//! IPv6 from end to end, on both hooks.

use std::net::SocketAddr;
use std::ops::ControlFlow;

use anyhow::{Context, ensure};
use integration::wait::eventually;
use integration::{demo, traffic};
use lb_api_types::config::{Config, Hook};
use lb_api_types::vip::{Algorithm, HealthCheckKind, Nat, NatMode, Protocol, Vip};

use crate::hello::{Hello, Holds, SOON, address};
use crate::operating::a_transfer_outlives_that_its_backend_is_drained;
use crate::traffic::{
    choices_are_by_weight_by_load_and_by_client, fragments_that_overtake_their_first_come_through,
    pings_reach_backends, ranges_are_served_and_bounds_hold, so_do_those_of_backends,
};

const PODS: usize = 2;
const VIP: &str = "2001:db8:f::10";
const VIP_V4: &str = "203.0.113.10";
/// Where flows of a full-NAT VIP come from.
const POOL: &str = "2001:db8:f::200";

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
    an_ipv6_vip_is_reachable_and_spread_over_all_backends,
    ipv6_is_routed_by_the_fast_path,
    ipv6_senders_hear_of_smaller_mtus,
    ipv6_datagrams_come_back_in_fragments_too,
    ipv6_backends_see_the_source_that_the_mode_says,
    backends_on_a_link_answer_clients_themselves,
    ipv6_flows_are_chosen_bounded_and_drained,
);

/// An address of lbd's own that no route chooses by itself.
const LOCAL: &str = "2001:db8:ff::1";

/// The pods' addresses of IPv4.
pub(crate) const PODS_V4: [&str; 2] = ["10.9.2.2", "10.9.3.2"];

/// Adds addresses and routes of IPv4 to the topology's own.
pub(crate) fn add_ipv4(hello: &Hello) {
    for (node, command) in [
        ("client", "ip addr add 10.9.0.2/24 dev eth1"),
        ("client", "ip route add default via 10.9.0.1"),
        ("upstream", "sysctl -qw net.ipv4.ip_forward=1"),
        ("upstream", "ip addr add 10.9.0.1/24 dev eth1; ip addr add 10.9.1.1/24 dev eth2"),
        ("upstream", "ip route add default via 10.9.1.2"),
        ("lbd", "sysctl -qw net.ipv4.ip_forward=1"),
        ("lbd", "ip addr add 10.9.1.2/24 dev eth1; ip route add 10.9.0.0/24 via 10.9.1.1"),
        ("lbd", "ip addr add 10.9.2.1/24 dev eth2; ip addr add 10.9.3.1/24 dev eth3"),
        ("pod1", "ip addr add 10.9.2.2/24 dev eth1; ip route add default via 10.9.2.1"),
        ("pod2", "ip addr add 10.9.3.2/24 dev eth1; ip route add default via 10.9.3.1"),
    ] {
        hello.lab.run(node, command).holds();
    }
}

/// The same VIP in IPv4.
pub(crate) fn of_ipv4(vip: &Vip) -> Vip {
    let mut vip = vip.clone();
    vip.metadata.name = "web4".to_owned();
    vip.spec.address = VIP_V4.parse().expect("an address");
    for (backend, address) in vip.spec.backends.iter_mut().zip(PODS_V4) {
        backend.address = address.parse().expect("an address");
    }
    vip
}

/// Up, with the VIP healthy and at the upstream router.
pub(crate) fn up(hook: Hook) -> (Hello, Vip) {
    up_with(hook, |_| {})
}

/// The same with lbd's configuration changed.
pub(crate) fn up_with(
    hook: Hook,
    edit: impl Fn(&mut Config) + Send + Sync + 'static,
) -> (Hello, Vip) {
    let hello = Hello::of("dual-stack", hook, edit);
    hello.only_this_hook_is_attached(hook);
    let vip = demo::vip(&hello.lab).holds();
    hello.api.put_vip(&vip).holds();
    demo::all_healthy(&hello.api, &vip).holds();
    eventually("the upstream router has the VIP", SOON, || {
        let route = hello.lab.run("upstream", &format!("ip -6 route show {VIP}"))?;
        ensure!(route.contains("dev eth2"), "its kernel has `{}`", route.trim());
        Ok(())
    })
    .holds();
    eventually("the client reaches a pod through the VIP", SOON, || hello.request(&vip)).holds();
    (hello, vip)
}

fn an_ipv6_vip_is_reachable_and_spread_over_all_backends(hook: Hook) {
    let (hello, mut vip) = up(hook);
    let client = hello.lab.netns("client").holds();
    // Least connections evens out what its predecessor left uneven, so it follows the one that leaves nothing.
    for (algorithm, least, most) in [
        (Algorithm::RoundRobin, 49, 51),
        (Algorithm::LeastConnections, 30, 70),
        (Algorithm::Maglev, 20, 80),
    ] {
        vip.spec.algorithm = algorithm;
        hello.api.put_vip(&vip).holds();
        demo::all_healthy(&hello.api, &vip).holds();
        let (fast, kernel) =
            (hello.packets_of_the_fast_path(), hello.packets_forwarded_by_the_kernel());
        let spread = traffic::requests(client, address(&vip), 100).holds();
        spread.expect(PODS, least, most).holds();
        assert!(hello.packets_of_the_fast_path() - fast >= 800, "{algorithm}");
        assert_eq!(hello.packets_forwarded_by_the_kernel(), kernel, "{algorithm}");
    }
    let flows = hello.api.flows().holds();
    assert!(flows.iter().any(|flow| flow.spec.vip.starts_with("[2001:db8:f::10]")), "{flows:?}");
    let pinged = hello.lab.run("client", &format!("ping -c 3 -i 0.2 -W 10 {VIP}")).holds();
    assert!(pinged.contains(" 0% packet loss"), "{pinged}");
}

fn ipv6_is_routed_by_the_fast_path(hook: Hook) {
    let (hello, _) = up(hook);
    let client = hello.lab.netns("client").holds();
    for pods in ["2001:db8:a::/64", "2001:db8:b::/64"] {
        hello.lab.run("upstream", &format!("ip -6 route add {pods} via 2001:db8:200::2")).holds();
    }
    let (before, kernel) =
        (hello.packets_that_ended("forwarded"), hello.packets_forwarded_by_the_kernel());
    let pinged = hello.lab.run("client", "ping -c 5 -i 0.2 -W 10 2001:db8:a::2").holds();
    assert!(pinged.contains(" 0% packet loss"), "{pinged}");
    let pod: SocketAddr = "[2001:db8:b::2]:8080".parse().expect("an address");
    traffic::transfer(client, pod, 1024, usize::MAX, |_| ControlFlow::Continue(())).holds();
    let (fast, kernel) = (
        hello.packets_that_ended("forwarded") - before,
        hello.packets_forwarded_by_the_kernel() - kernel,
    );
    assert!(fast > 40, "{fast} packets on the fast path, {kernel} by the kernel");
    // While a neighbour is not known, its packets are the kernel's.
    assert!(kernel < 10, "{fast} packets on the fast path, {kernel} by the kernel");
    let lost = hello.lab.run("client", "ping -c 1 -W 1 -t 2 2001:db8:a::2; true").holds();
    assert!(lost.contains("Time exceeded"), "{lost}");
}

fn ipv6_senders_hear_of_smaller_mtus(hook: Hook) {
    let (hello, vip) = up(hook);
    let client = hello.lab.netns("client").holds();
    for (node, mtu, reason) in
        [("lbd", 1400, "flow-too-big"), ("upstream", 1300, "error-to-backend")]
    {
        let before = hello.packets_that_ended(reason);
        hello.lab.run(node, &format!("ip link set eth1 mtu {mtu}")).holds();
        for pod in ["pod1", "pod2"] {
            hello.lab.run(pod, "ip -6 route flush cache").holds();
        }
        eventually(&format!("a sender hears of an MTU of {mtu}"), SOON, || {
            traffic::transfer(client, address(&vip), 1024, usize::MAX, |_| {
                ControlFlow::Continue(())
            })?;
            ensure!(hello.packets_that_ended(reason) > before, "no packet ended as {reason}");
            Ok(())
        })
        .holds();
        hello.lab.run(node, "ip link set eth1 mtu 1500").holds();
    }
}

fn ipv6_datagrams_come_back_in_fragments_too(hook: Hook) {
    let (mut hello, mut vip) = up(hook);
    vip.metadata.name = "datagrams".to_owned();
    vip.spec.protocol = Protocol::Udp;
    vip.spec.health_check.kind = HealthCheckKind::None;
    hello.api.put_vip(&vip).holds();
    demo::all_healthy(&hello.api, &vip).holds();
    let client = hello.lab.netns("client").holds();
    for len in [1, 100, 1452, 1453, 4000, 20_000] {
        let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
        for _ in 0..PODS {
            traffic::echo(client, address(&vip), &payload)
                .unwrap_or_else(|error| panic!("{len} bytes: {error:#}"));
        }
    }
    // A host that tracks connections collects the fragments that it sends itself.
    let tracks = "nft add table inet tracks; nft add chain inet tracks out '{ type filter hook output priority 0; }'; \
                  nft add rule inet tracks out ct state new accept";
    hello.lab.run("lbd", tracks).holds();
    fragments_that_overtake_their_first_come_through(&hello, &vip);
    so_do_those_of_backends(&mut hello, &vip, true);
    let client = hello.lab.netns("client").holds();
    vip.spec.backends.iter_mut().for_each(|backend| backend.port = 9);
    hello.api.put_vip(&vip).holds();
    demo::all_healthy(&hello.api, &vip).holds();
    let refused = traffic::echo(client, address(&vip), b"is anybody there?");
    let refused = refused.expect_err("nobody listens there");
    let refused = refused.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    assert_eq!(refused, Some(std::io::ErrorKind::ConnectionRefused));
    pings_reach_backends(&hello, &vip);
}

fn ipv6_backends_see_the_source_that_the_mode_says(hook: Hook) {
    let (hello, mut vip) = up(hook);
    let client = hello.lab.netns("client").holds();
    for (pod, lbd) in [("pod1", "2001:db8:a::1"), ("pod2", "2001:db8:b::1")] {
        hello.lab.run(pod, "ip -6 route del default").holds();
        for source in [VIP, POOL, LOCAL] {
            hello.lab.run(pod, &format!("ip -6 route replace {source} via {lbd}")).holds();
        }
    }
    hello.lab.run("lbd", &format!("ip -6 addr add {LOCAL}/128 dev lo nodad")).holds();
    let pool = vec![POOL.parse().expect("an address")];
    let local = vec![LOCAL.parse().expect("an address")];
    for (mode, source_addresses, seen) in [
        (NatMode::FullNat, vec![], &[VIP][..]),
        (NatMode::FullNat, pool, &[POOL]),
        (NatMode::OneArm, vec![], &["2001:db8:a::1", "2001:db8:b::1"]),
        (NatMode::OneArm, local, &[LOCAL]),
    ] {
        vip.spec.nat = Nat { mode, source_addresses, ..Nat::default() };
        hello.api.put_vip(&vip).holds();
        demo::all_healthy(&hello.api, &vip).holds();
        let spread = traffic::requests(client, address(&vip), 20).holds();
        spread.expect(PODS, 9, 11).with_context(|| format!("{mode:?}")).holds();
        for _ in 0..PODS {
            let source = traffic::seen_as(client, address(&vip)).holds();
            assert!(seen.contains(&source.as_str()), "{mode:?}: a pod saw {source}");
        }
    }
}

/// Weights, load, clients, ranges of ports, bounds and backends that are drained, as with IPv4.
fn ipv6_flows_are_chosen_bounded_and_drained(hook: Hook) {
    let (mut hello, vip) = up(hook);
    choices_are_by_weight_by_load_and_by_client(&hello, vip.clone(), ["pod1", "pod2"]);
    ranges_are_served_and_bounds_hold(&hello, vip.clone());
    hello.api.put_vip(&vip).holds();
    demo::all_healthy(&hello.api, &vip).holds();
    a_transfer_outlives_that_its_backend_is_drained(&mut hello, &vip);
}

/// The backends hold the VIP's address, and get packets for it by their MAC: of both families.
fn backends_on_a_link_answer_clients_themselves(hook: Hook) {
    let (hello, mut vip) = up(hook);
    let client = hello.lab.netns("client").holds();
    add_ipv4(&hello);
    for pod in ["pod1", "pod2"] {
        hello.lab.run(pod, "ip addr add 203.0.113.10/32 dev lo").holds();
        hello.lab.run(pod, "ip -6 addr add 2001:db8:f::10/128 dev lo nodad").holds();
    }
    vip.spec.nat.mode = NatMode::Dsr;
    vip.spec.port = vip.spec.backends[0].port;
    for family in ["IPv6", "IPv4"] {
        if family == "IPv4" {
            vip = of_ipv4(&vip);
        }
        hello.api.put_vip(&vip).holds();
        demo::all_healthy(&hello.api, &vip).holds();
        eventually("a request is answered", SOON, || hello.request(&vip)).holds();
        let before = hello.packets_that_ended("forwarded-directly");
        let spread = traffic::requests(client, address(&vip), 20).holds();
        spread.expect(PODS, 9, 11).with_context(|| family).holds();
        traffic::transfer(client, address(&vip), 1024, usize::MAX, |_| ControlFlow::Continue(()))
            .holds();
        let direct = hello.packets_that_ended("forwarded-directly") - before;
        assert!(direct >= 20 * 4, "{family}: {direct} packets went to a backend's MAC");
        let status = hello.api.vip(&vip.metadata.name).holds().status.expect("there is one");
        assert!(status.backends.iter().all(|backend| backend.flows > 0), "{status:?}");
    }
}
