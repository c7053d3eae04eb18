//! What lbd learns, installs and tells.

use std::time::Duration;

use anyhow::{Context, ensure};
use integration::checks;
use integration::demo;
use integration::lab::{Lab, Options};
use integration::wait::{always, eventually};
use lb_api_types::config::Hook;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::hello::{Hello, Holds, SOON, VIP};

/// Long enough for anything unwanted to show: several health checks and BGP messages.
const A_WHILE: Duration = Duration::from_secs(2);

fn kernel_route(hello: &Hello, prefix: &str) -> anyhow::Result<Option<Value>> {
    let routes = hello.lab.run("lbd", &format!("ip -j -d route show exact {prefix}"))?;
    let routes: Value =
        serde_json::from_str(if routes.trim().is_empty() { "[]" } else { &routes })?;
    Ok(routes.get(0).cloned())
}

#[test]
fn learned_routes_reach_the_ebpf_fib_and_the_kernel() {
    let hello = Hello::up(Hook::Tc);
    for (prefix, gateway, interface, node) in [
        ("10.244.1.0/26", "10.0.1.2", "eth2", "node1"),
        ("10.244.2.0/26", "10.0.2.2", "eth3", "node2"),
    ] {
        hello.is_in_the_fib(prefix, interface, node);
        let route = eventually("the kernel has the route", SOON, || {
            kernel_route(&hello, prefix)?.with_context(|| format!("no route to {prefix}"))
        })
        .holds();
        assert_eq!(route["gateway"], gateway, "{route}");
        assert_eq!(route["dev"], interface, "{route}");
        let protocol = route["protocol"].as_str().unwrap_or_default();
        assert!(!["kernel", "boot", "static"].contains(&protocol), "not marked as ours: {route}");
    }
    // The client's network comes from FRR.
    let mac = demo::mac(&hello.lab, "upstream", "eth2").holds();
    eventually("the client's network is in the eBPF FIB", SOON, || {
        demo::in_fib(&hello.api, "198.51.100.0/24", "eth1", &mac)
    })
    .holds();
}

#[test]
fn routes_leave_fib_and_kernel_when_the_neighbour_leaves() {
    let mut hello = Hello::up(Hook::Tc);
    eventually("the kernel has the route", SOON, || {
        kernel_route(&hello, "10.244.1.0/26")?.context("no route")
    })
    .holds();

    // It says that it leaves; of one that is killed the routes stay, for it may be restarting.
    hello.stop("node1", Signal::SIGTERM);
    hello.has_left_the_fib("10.244.1.0/26");
    eventually("the kernel's route is gone", SOON, || {
        let route = kernel_route(&hello, "10.244.1.0/26")?;
        ensure!(route.is_none(), "{route:?}");
        Ok(())
    })
    .holds();
    hello.is_in_the_fib("10.244.2.0/26", "eth3", "node2");
    assert!(
        kernel_route(&hello, "10.244.2.0/26").holds().is_some(),
        "the other node's route went too"
    );
    assert!(kernel_route(&hello, "10.0.1.0/24").holds().is_some(), "a route that is not ours went");

    hello.start("node1");
    hello.is_in_the_fib("10.244.1.0/26", "eth2", "node1");
}

#[test]
fn a_lookup_says_what_a_packet_meets_and_the_audit_that_all_agree() {
    let hello = Hello::up(Hook::Tc);
    hello.is_in_the_fib("10.244.1.0/26", "eth2", "node1");
    let lookup = "lbctl fib lookup 10.244.1.7 --source 198.51.100.2 --port 8080";
    let text = eventually("eBPF, router and kernel agree", SOON, || {
        hello.lab.run("lbd", &format!("{lookup} 2>&1"))
    })
    .holds();
    for words in ["10.244.1.0/26 forward", "via 10.0.1.2 dev eth2 mac ", "(from bgp)", "agree"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let audit = eventually("the audit finds no difference", SOON, || {
        hello.lab.run("lbd", "lbctl doctor fib 2>&1")
    })
    .holds();
    assert!(audit.contains("as router and kernel have it"), "{audit}");

    // A foreign route of the kernel wins over BGP's, in all three.
    hello.lab.run("lbd", "ip route add 10.244.1.0/26 via 10.0.2.2").holds();
    eventually("the foreign route counts", SOON, || {
        let text = hello.lab.run("lbd", &format!("{lookup} 2>&1"))?;
        ensure!(text.contains("via 10.0.2.2 dev eth3") && text.contains("(from kernel)"), "{text}");
        Ok(())
    })
    .holds();
}

#[test]
fn nothing_is_advertised_that_policy_does_not_list() {
    let (hello, _vip) = Hello::up_with_vip(Hook::Tc);
    always("the upstream router is told of the VIP only, the nodes of nothing", A_WHILE, || {
        // Before its own policy: soft reconfiguration keeps what came.
        let command = "show bgp ipv4 unicast neighbors 192.0.2.2 received-routes json";
        let said: Value =
            serde_json::from_str(&hello.lab.run("upstream", &format!("vtysh -c '{command}'"))?)?;
        let received =
            said["receivedRoutes"].as_object().context("FRR shows no received routes")?;
        let prefixes: Vec<_> = received.keys().map(String::as_str).collect();
        ensure!(prefixes == [format!("{VIP}/32")], "the upstream router was told of {prefixes:?}");
        for node in ["node1", "node2"] {
            let said = hello.lab.run(node, "birdc show route protocol lbd")?;
            ensure!(!said.contains('/'), "{node} was told of {said}");
        }
        Ok(())
    })
    .holds();
    for peer in hello.api.peers().holds() {
        let told = if peer.name == "upstream" { 1 } else { 0 };
        assert_eq!(peer.prefixes_advertised, told, "{peer:?}");
    }
}

#[test]
fn the_checks_of_calico_hello_hold() {
    the_checks_hold(demo::TOPOLOGY);
}

#[test]
fn the_checks_of_dual_stack_hold() {
    the_checks_hold("dual-stack");
}

fn the_checks_hold(topology: &str) {
    let mut options = Options::of(topology, None, None).holds();
    options.capture = true;
    let checks = checks::read(&options.topology.folder.join("checks.yaml")).holds();
    let mut lab = Lab::up(&options).holds();
    checks.carry_out(&mut lab, |words| println!("{words}")).holds();
}
