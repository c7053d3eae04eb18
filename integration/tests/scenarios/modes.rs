//! What needs more than pods that answer, with real TCP stacks in both families and on both hooks: pods that are clients, tunnels
//! whose far ends take packets out, lists of clients, the tools that people use, and as many connections as ports.

mod many;
mod on_link;
mod sizes;
mod tools;

use std::net::IpAddr;
use std::ops::ControlFlow;

use anyhow::Context;
use integration::wait::eventually;
use integration::{demo, traffic};
use ipnetwork::IpNetwork;
use lb_api_types::config::Hook;
use lb_api_types::vip::{Access, NatMode, Vip};

use crate::dual_stack::{add_ipv4, of_ipv4, up};
use crate::hello::{Hello, Holds, SOON, address};

const PODS: [&str; 2] = ["pod1", "pod2"];
const DECAPSULATE: &str =
    concat!("python3 -u ", env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/modes/decapsulate.py");

mod tc {
    use super::{Hook, conversations, many, sizes};

    #[test]
    fn pods_as_clients_tunnels_lists_of_clients_and_tools_all_work_in_both_families() {
        conversations(Hook::Tc);
    }

    #[test]
    fn megabytes_and_long_datagrams_pass_smaller_links_in_each_mode() {
        sizes::megabytes_and_long_datagrams_pass_smaller_links(Hook::Tc);
    }

    #[test]
    fn sixty_thousand_connections_from_one_address_have_a_source_port_each() {
        many::sixty_thousand_connections(Hook::Tc, true);
    }

    #[test]
    fn sixty_thousand_ipv6_connections_from_one_address_have_a_source_port_each() {
        many::sixty_thousand_connections(Hook::Tc, false);
    }
}

mod xdp {
    use super::{Hook, conversations, many, sizes};

    #[test]
    fn pods_as_clients_tunnels_lists_of_clients_and_tools_all_work_in_both_families() {
        conversations(Hook::Xdp);
    }

    #[test]
    fn megabytes_and_long_datagrams_pass_smaller_links_in_each_mode() {
        sizes::megabytes_and_long_datagrams_pass_smaller_links(Hook::Xdp);
    }

    #[test]
    fn sixty_thousand_connections_from_one_address_have_a_source_port_each() {
        many::sixty_thousand_connections(Hook::Xdp, true);
    }

    #[test]
    fn sixty_thousand_ipv6_connections_from_one_address_have_a_source_port_each() {
        many::sixty_thousand_connections(Hook::Xdp, false);
    }
}

fn conversations(hook: Hook) {
    let (mut hello, mut own) = up(hook);
    add_ipv4(&hello);
    (own.spec.health_check.interval_ms, own.spec.health_check.timeout_ms) = (200, 200);
    let vips = [of_ipv4(&own), own];
    // Each mode with tools in one family at one hook, and in the other one at the other.
    let (there, back) = if hook == Hook::Tc { (0, 1) } else { (1, 0) };
    for vip in &vips {
        pods_are_clients_too(&hello, vip.clone());
        only_listed_clients_come_in(&hello, vip.clone());
        tools::work(&mut hello, vip);
    }
    tools::work(&mut hello, &with_mode(&vips[there], NatMode::FullNat));
    tools::work(&mut hello, &with_mode(&vips[back], NatMode::OneArm));
    // From here on pods hold the VIPs' addresses.
    backends_take_packets_out_of_tunnels(&mut hello, &vips);
    tools::work(&mut hello, &with_mode(&vips[there], NatMode::Dsr));
    tools::work(&mut hello, &with_mode(&vips[back], NatMode::DsrIpip));
    tools::work(&mut hello, &with_mode(&vips[there], NatMode::DsrGue));
    // And from here on lbd has another MAC.
    on_link::vips_are_found_by_who_asks_for_their_mac(&hello, &vips);
}

fn with_mode(vip: &Vip, mode: NatMode) -> Vip {
    let mut vip = vip.clone();
    vip.spec.nat.mode = mode;
    vip
}

fn put(hello: &Hello, vip: &Vip) {
    hello.api.put_vip(vip).holds();
    demo::all_healthy(&hello.api, vip).holds();
}

/// No request is answered, for as long as one takes ten times over, and packets end for this reason.
fn is_refused(hello: &Hello, node: &str, vip: &Vip, reason: &str) {
    let before = hello.packets_that_ended(reason);
    let ask = format!("curl --silent --max-time 0.4 http://{}/", address(vip));
    assert!(hello.lab.run(node, &ask).is_err(), "{reason}: {:?}", vip.spec);
    assert!(hello.packets_that_ended(reason) > before, "{reason}: {:?}", vip.spec);
}

/// A pod reaches itself, in and out by one interface, where flows come from an address of ours. Where they keep its own, it
/// reaches the other one.
fn pods_are_clients_too(hello: &Hello, mut vip: Vip) {
    let pod = hello.lab.netns(PODS[0]).holds();
    let other = vip.spec.backends.pop().expect("there are two");
    for mode in [NatMode::FullNat, NatMode::OneArm] {
        vip.spec.nat.mode = mode;
        put(hello, &vip);
        let what = format!("{} with {mode:?}", address(&vip));
        let kernel = hello.packets_forwarded_by_the_kernel();
        let spread = traffic::requests(pod, address(&vip), 10).holds();
        spread.expect(1, 10, 10).with_context(|| what.clone()).holds();
        let whole = |_| ControlFlow::Continue(());
        traffic::transfer(pod, address(&vip), 1024, usize::MAX, whole)
            .with_context(|| what)
            .holds();
        assert_eq!(hello.packets_forwarded_by_the_kernel(), kernel, "{mode:?}");
    }
    vip.spec.nat.mode = NatMode::Dnat;
    put(hello, &vip);
    is_refused(hello, PODS[0], &vip, "own-backend");
    vip.spec.backends = vec![other];
    put(hello, &vip);
    traffic::requests(pod, address(&vip), 10).holds().expect(1, 10, 10).holds();
}

fn only_listed_clients_come_in(hello: &Hello, mut vip: Vip) {
    let v4 = vip.spec.address.is_ipv4();
    let network = |text: &str| text.parse::<IpNetwork>().expect("a prefix");
    let (clients, client, pods) = if v4 {
        (network("10.9.0.0/24"), network("10.9.0.2/32"), network("10.9.2.0/23"))
    } else {
        (network("2001:db8:100::/64"), network("2001:db8:100::2/128"), network("2001:db8:a::/48"))
    };
    // The longest prefix says it; whom none holds comes in where none allows.
    for (allow, deny, admitted) in [
        (vec![], vec![clients], false),
        (vec![client], vec![clients], true),
        (vec![clients], vec![client], false),
        (vec![pods], vec![], false),
        (vec![], vec![pods], true),
    ] {
        vip.spec.access = Access { allow, deny };
        put(hello, &vip);
        if admitted {
            hello.request(&vip).with_context(|| format!("{:?}", vip.spec.access)).holds();
        } else {
            is_refused(hello, "client", &vip, "source-refused");
        }
    }
    vip.spec.access = Access::default();
    put(hello, &vip);
}

/// Pods hold the VIPs' addresses, and take packets out of tunnels.
fn pods_hold_the_addresses(hello: &mut Hello, vips: &[Vip]) {
    // What takes packets out knows nothing of sums that a device was to make.
    hello.lab.run("client", "ethtool -K eth1 tx off").holds();
    for pod in PODS {
        hello.lab.spawn(pod, "decapsulate", DECAPSULATE).holds();
        for vip in vips {
            let add = match vip.spec.address {
                IpAddr::V4(address) => format!("ip addr add {address}/32 dev lo"),
                IpAddr::V6(address) => format!("ip -6 addr add {address}/128 dev lo nodad"),
            };
            hello.lab.run(pod, &add).holds();
        }
    }
}

/// IP in IP, IPv6 in IPv6 and GUE: pods answer clients from the VIP's address, past the flow.
fn backends_take_packets_out_of_tunnels(hello: &mut Hello, vips: &[Vip]) {
    pods_hold_the_addresses(hello, vips);
    let client = hello.lab.netns("client").holds();
    for vip in vips {
        let mut vip = vip.clone();
        vip.spec.port = vip.spec.backends[0].port;
        for mode in [NatMode::DsrIpip, NatMode::DsrGue] {
            vip.spec.nat.mode = mode;
            put(hello, &vip);
            let what = format!("{} with {mode:?}", address(&vip));
            eventually(&format!("{what} is answered"), SOON, || hello.request(&vip)).holds();
            let before = hello.packets_that_ended("forwarded-by-tunnel");
            let spread = traffic::requests(client, address(&vip), 20).holds();
            spread.expect(PODS.len(), 9, 11).with_context(|| what.clone()).holds();
            let whole = |_| ControlFlow::Continue(());
            traffic::transfer(client, address(&vip), 1024, usize::MAX, whole)
                .with_context(|| what.clone())
                .holds();
            let tunnelled = hello.packets_that_ended("forwarded-by-tunnel") - before;
            assert!(tunnelled >= 20 * 4, "{what}: {tunnelled} packets went through a tunnel");
        }
    }
}
