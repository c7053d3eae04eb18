//! A megabyte there and back, and datagrams longer than any link on the way, in each mode, while links get smaller under them:
//! whoever sends hears of it, and everything arrives.

use std::net::IpAddr;

use anyhow::{Context, ensure};
use integration::traffic;
use integration::wait::eventually;
use lb_api_types::config::Hook;
use lb_api_types::vip::{HealthCheckKind, Nat, NatMode, Protocol, Vip};

use super::{PODS, put};
use crate::dual_stack::{PODS_V4, add_ipv4, of_ipv4, up};
use crate::hello::{Hello, Holds, SOON, address};

const ECHO: &str =
    concat!("python3 -u ", env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/modes/echo.py");
const PORT: u16 = 7;
/// Bytes of a transfer, and of a datagram.
const TRANSFER: usize = 1 << 20;
const DATAGRAM: usize = 4000;
/// Where flows of full-NAT VIPs come from, by the backends' family.
const POOL_V4: &str = "203.0.113.200";
const POOL_V6: &str = "2001:db8:f::200";

/// Routes of both sides: they ask for segments as long as before also when a link of theirs gets smaller, so that senders have to be
/// told.
const ROUTES: [(&str, &str); 6] = [
    ("client", "ip route replace default via 10.9.0.1 advmss 1460"),
    ("client", "ip -6 route replace default via 2001:db8:100::1 advmss 1440"),
    (PODS[0], "ip route replace default via 10.9.2.1 advmss 1460"),
    (
        PODS[0],
        "ip route change 10.9.2.0/24 dev eth1 proto kernel scope link src 10.9.2.2 advmss 1460",
    ),
    (PODS[0], "ip -6 route replace default via 2001:db8:a::1 advmss 1440"),
    (PODS[0], "ip -6 route change 2001:db8:a::/64 dev eth1 proto kernel metric 256 advmss 1440"),
];

const ERROR: &str = "error-to-backend";

/// A node's interface.
type End = (&'static str, &'static str);

/// Ends of a link that gets smaller, how small, and which reason says that a sender was told.
type Hop = (&'static [End], u16, &'static str);

const HOPS: [Hop; 2] = [
    // Ours with the backend: clients hear of it from us.
    (&[("lbd", "eth2"), (PODS[0], "eth1")], 1400, "flow-too-big"),
    // A router's towards the client: backends hear of it from there, by way of the VIP.
    (&[("upstream", "eth1"), ("client", "eth1")], 1300, ERROR),
];

/// The same pod behind the other one, which is a router then.
const BEHIND_A_ROUTER: [(&str, &str); 9] = [
    (PODS[1], "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1"),
    (PODS[1], "ip link set eth2 up; ip addr add 10.9.4.1/24 dev eth2"),
    (PODS[1], "ip -6 addr add 2001:db8:c::1/64 dev eth2 nodad"),
    (PODS[0], "ip link set eth2 up; ip addr add 10.9.4.2/24 dev eth2"),
    (PODS[0], "ip -6 addr add 2001:db8:c::2/64 dev eth2 nodad"),
    (PODS[0], "ip route replace default via 10.9.4.1 advmss 1460"),
    (PODS[0], "ip -6 route replace default via 2001:db8:c::1 advmss 1440"),
    ("lbd", "ip route add 10.9.4.0/24 via 10.9.3.2"),
    ("lbd", "ip -6 route add 2001:db8:c::/64 via 2001:db8:b::2"),
];
const PODS_BEHIND: [&str; 2] = ["10.9.4.2", "2001:db8:c::2"];
/// The router's with the backend: clients hear of it from the router, as of a smaller link on the way to the VIP.
const HOP_BEHIND: Hop = (&[(PODS[1], "eth2"), (PODS[0], "eth2")], 1300, "error-to-client");

pub(super) fn megabytes_and_long_datagrams_pass_smaller_links(hook: Hook) {
    let (mut hello, six) = up(hook);
    add_ipv4(&hello);
    hello.lab.spawn(PODS[0], "echo", &format!("{ECHO} {PORT}")).holds();
    for (node, route) in ROUTES {
        hello.lab.run(node, route).holds();
    }
    let of_the_port = |vip: &Vip| {
        let mut vip = vip.clone();
        vip.spec.port = PORT;
        vip.spec.backends.truncate(1);
        vip.spec.backends[0].port = PORT;
        vip.spec.health_check.kind = HealthCheckKind::None;
        vip
    };
    let (four, six) = (of_the_port(&of_ipv4(&six)), of_the_port(&six));
    let vips = [&four, &six];
    let backends = [PODS_V4[0].parse().expect("an address"), six.spec.backends[0].address];
    translated(&hello, vips, backends, &HOPS);
    past_a_router(&hello, vips);
    // From here on pods hold the VIPs' addresses.
    super::pods_hold_the_addresses(&mut hello, &[four.clone(), six.clone()]);
    for vip in vips {
        for mode in [NatMode::Dsr, NatMode::DsrIpip, NatMode::DsrGue] {
            everything_arrives(&hello, &behind(vip, vip.spec.backends[0].address, mode), &HOPS);
        }
    }
}

/// In each mode of NAT, within each family and between them.
fn translated(hello: &Hello, vips: [&Vip; 2], backends: [IpAddr; 2], hops: &[Hop]) {
    for vip in vips {
        for backend in backends {
            for mode in [NatMode::Dnat, NatMode::OneArm, NatMode::FullNat] {
                if mode == NatMode::Dnat && backend.is_ipv4() != vip.spec.address.is_ipv4() {
                    continue;
                }
                everything_arrives(hello, &behind(vip, backend, mode), hops);
            }
        }
    }
}

/// With a pod behind a router; it is where it was afterwards.
fn past_a_router(hello: &Hello, vips: [&Vip; 2]) {
    let pod = hello.lab.netns(PODS[0]).holds().name();
    let link = format!("ip link add eth2 type veth peer name eth2 netns {pod}");
    hello.lab.run(PODS[1], &link).holds();
    for (node, command) in BEHIND_A_ROUTER {
        hello.lab.run(node, command).holds();
    }
    let backends = PODS_BEHIND.map(|address| address.parse().expect("an address"));
    translated(hello, vips, backends, &[HOP_BEHIND]);
    hello.lab.run(PODS[1], "ip link del eth2").holds();
    for (node, route) in ROUTES {
        hello.lab.run(node, route).holds();
    }
}

fn behind(vip: &Vip, backend: IpAddr, mode: NatMode) -> Vip {
    let mut vip = vip.clone();
    vip.spec.backends[0].address = backend;
    let pool = if backend.is_ipv4() { POOL_V4 } else { POOL_V6 };
    let pool = (mode == NatMode::FullNat).then(|| pool.parse().expect("an address"));
    vip.spec.nat = Nat { mode, source_addresses: pool.into_iter().collect(), ..Nat::default() };
    vip
}

fn everything_arrives(hello: &Hello, vip: &Vip, hops: &[Hop]) {
    let backend = vip.spec.backends[0].address;
    let what = format!("{} to {backend} with {:?}", vip.spec.address, vip.spec.nat.mode);
    put(hello, vip);
    let mut datagrams = vip.clone();
    datagrams.metadata.name += "-datagrams";
    datagrams.spec.protocol = Protocol::Udp;
    put(hello, &datagrams);
    passes(hello, vip).with_context(|| what.clone()).holds();
    for (ends, mtu, reason) in hops {
        let resize = |mtu: u16| {
            for (node, interface) in *ends {
                hello.lab.run(node, &format!("ip link set {interface} mtu {mtu}")).holds();
            }
        };
        resize(*mtu);
        for sender in ["client", PODS[0]] {
            // What they learned of the hop before.
            hello.lab.run(sender, "ip route flush cache; ip -6 route flush cache").holds();
        }
        let before = hello.packets_that_ended(reason);
        eventually(&format!("{what} past an MTU of {mtu}"), SOON, || {
            passes(hello, vip)?;
            let told = hello.packets_that_ended(reason) - before;
            // With direct server return an error about a backend's packets goes its way as all packets for it do.
            let is_counted = !vip.spec.nat.mode.is_dsr() || *reason != ERROR;
            ensure!(told > 0 || !is_counted, "nobody was told: no packet ended as {reason}");
            Ok(())
        })
        .holds();
        resize(1500);
    }
}

fn passes(hello: &Hello, vip: &Vip) -> anyhow::Result<()> {
    let client = hello.lab.netns("client")?;
    traffic::there_and_back(client, address(vip), TRANSFER).context("a transfer")?;
    let datagram: Vec<u8> = (0..DATAGRAM).map(|n| n as u8).collect();
    // What is too long at first is lost, and who sent it told: the next one comes through.
    eventually("a datagram comes back", SOON, || traffic::echo(client, address(vip), &datagram))
}
