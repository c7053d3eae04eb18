//! Clients of one family and backends of the other, with real TCP stacks, on both hooks.

use std::net::SocketAddr;
use std::ops::ControlFlow;

use anyhow::{Context, ensure};
use integration::wait::eventually;
use integration::{demo, traffic};
use lb_api_types::config::Hook;
use lb_api_types::vip::{HealthCheckKind, Nat, NatMode, Protocol, Vip};

use crate::dual_stack::{PODS_V4, add_ipv4, up_with};
use crate::hello::{Hello, Holds, SOON, address};
use crate::life::redirect_to_peer;
use crate::traffic::fragments_that_overtake_their_first_come_through;

const PODS: usize = 2;
const VIP_V4: &str = "203.0.113.10";
/// Where flows of full-NAT VIPs come from, by the backends' family.
const POOL_V4: &str = "203.0.113.200";
const POOL_V6: &str = "2001:db8:f::200";
/// Addresses of lbd's own that no route chooses by itself.
const LOCAL_V4: &str = "10.255.0.1";
const LOCAL_V6: &str = "2001:db8:ff::1";

mod tc {
    #[test]
    fn clients_of_one_family_reach_backends_of_the_other() {
        super::clients_of_one_family_reach_backends_of_the_other(super::Hook::Tc);
    }
}
mod xdp {
    #[test]
    fn clients_of_one_family_reach_backends_of_the_other() {
        super::clients_of_one_family_reach_backends_of_the_other(super::Hook::Xdp);
    }
}

fn clients_of_one_family_reach_backends_of_the_other(hook: Hook) {
    let (hello, own) = up_with(hook, redirect_to_peer);
    add_ipv4(&hello);
    let pool = |address: &str| vec![address.parse().expect("an address")];
    let of_lbd_v4 = ["10.9.2.1", "10.9.3.1"];
    let of_lbd_v6 = ["2001:db8:a::1", "2001:db8:b::1"];
    for own in [LOCAL_V4, LOCAL_V6] {
        hello.lab.run("lbd", &format!("ip addr add {own} dev lo")).holds();
    }
    let to_v4 = |vip: &mut Vip| {
        for (backend, address) in vip.spec.backends.iter_mut().zip(PODS_V4) {
            backend.address = address.parse().expect("an address");
        }
    };
    let from_v4 = |vip: &mut Vip| vip.spec.address = VIP_V4.parse().expect("an address");
    for (mode, v6, v4, seen_v4, seen_v6) in [
        (NatMode::OneArm, vec![], vec![], &of_lbd_v4[..], &of_lbd_v6[..]),
        (NatMode::OneArm, pool(LOCAL_V4), pool(LOCAL_V6), &[LOCAL_V4], &[LOCAL_V6]),
        (NatMode::FullNat, pool(POOL_V4), pool(POOL_V6), &[POOL_V4], &[POOL_V6]),
    ] {
        let mut vip = own.clone();
        to_v4(&mut vip);
        vip.spec.nat = Nat { mode, source_addresses: v6, ..Nat::default() };
        conversations(&hello, &vip, seen_v4);

        let mut vip = own.clone();
        vip.metadata.name = "web4".to_owned();
        from_v4(&mut vip);
        vip.spec.nat = Nat { mode, source_addresses: v4, ..Nat::default() };
        conversations(&hello, &vip, seen_v6);
    }
}

/// Everything that a VIP is there for, by its pods' sources and with smaller MTUs on the way.
fn conversations(hello: &Hello, vip: &Vip, seen: &[&str]) {
    let client = hello.lab.netns("client").holds();
    hello.api.put_vip(vip).holds();
    demo::all_healthy(&hello.api, vip).holds();
    let at = address(vip);
    let what = format!("{at} with {:?}", vip.spec.nat.mode);
    eventually("a request is answered", SOON, || hello.request(vip)).holds();
    let kernel = hello.packets_forwarded_by_the_kernel();
    let spread = traffic::requests(client, at, 20).holds();
    spread.expect(PODS, 9, 11).with_context(|| what.clone()).holds();
    for _ in 0..PODS {
        let source = traffic::seen_as(client, at).holds();
        assert!(seen.contains(&source.as_str()), "{what}: a pod saw {source}");
    }
    let transfer =
        || traffic::transfer(client, at, 1024, usize::MAX, |_| ControlFlow::Continue(()));
    transfer().with_context(|| what.clone()).holds();
    let kernel = hello.packets_forwarded_by_the_kernel() - kernel;
    assert!(kernel < 10, "{what}: the kernel forwarded {kernel} packets");

    // The pods' segments do not fit any more: at lbd, and then at a router beyond.
    for (node, mtu, reason) in
        [("lbd", 1400, "flow-too-big"), ("upstream", 1300, "error-to-backend")]
    {
        hello.lab.run(node, &format!("ip link set eth1 mtu {mtu}")).holds();
        for pod in ["pod1", "pod2"] {
            hello.lab.run(pod, "ip route flush cache; ip -6 route flush cache").holds();
        }
        let before = hello.packets_that_ended(reason);
        eventually(&format!("{what}: a pod hears of an MTU of {mtu}"), SOON, || {
            transfer()?;
            ensure!(hello.packets_that_ended(reason) > before, "no packet ended as {reason}");
            Ok(())
        })
        .holds();
        hello.lab.run(node, "ip link set eth1 mtu 1500").holds();
    }
    datagrams(hello, vip, at);
}

/// Datagrams that fit, and such that come and go in fragments.
fn datagrams(hello: &Hello, vip: &Vip, at: SocketAddr) {
    let client = hello.lab.netns("client").holds();
    let mut vip = vip.clone();
    vip.metadata.name += "-datagrams";
    vip.spec.protocol = Protocol::Udp;
    vip.spec.health_check.kind = HealthCheckKind::None;
    hello.api.put_vip(&vip).holds();
    demo::all_healthy(&hello.api, &vip).holds();
    for len in [1, 100, 1400, 4000] {
        let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
        for _ in 0..PODS {
            // What is too long at first is lost, and who sent it told: the next one comes through.
            eventually(&format!("{len} bytes come back from {at}"), SOON, || {
                traffic::echo(client, at, &payload)
            })
            .holds();
        }
    }
    fragments_that_overtake_their_first_come_through(hello, &vip);
    vip.spec.backends.iter_mut().for_each(|backend| backend.port = 9);
    hello.api.put_vip(&vip).holds();
    demo::all_healthy(&hello.api, &vip).holds();
    let refused = traffic::echo(client, at, b"is anybody there?");
    let refused = refused.expect_err("nobody listens there");
    let refused = refused.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    assert_eq!(refused, Some(std::io::ErrorKind::ConnectionRefused), "{at}");
}
