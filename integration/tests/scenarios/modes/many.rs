//! As many connections of one client as there are ports, all of them by one source address to one backend.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::wait::eventually;
use lb_api_types::config::Hook;
use lb_api_types::vip::{Nat, NatMode};

use super::put;
use crate::dual_stack::{add_ipv4, of_ipv4, up};
use crate::hello::{Hello, Holds, SOON, address};

const CONNECTIONS: usize = 60_000;
/// The first of the client's ports.
const FIRST_PORT: usize = 2000;
/// Processes at each end: one may have 20,000 descriptors where nobody allowed it more.
const PROCESSES: usize = 4;
/// Where the backend takes them.
const PORT: u16 = 9000;
/// A part of a millisecond each, on a machine that does other things, too.
const ALL_WITHIN: Duration = Duration::from_secs(90);
const MANY: &str =
    concat!("python3 -u ", env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/modes/many.py");

/// Each connection says a number of its own and hears it again, so none meets another one's packets.
pub(super) fn sixty_thousand_connections(hook: Hook, v4: bool) {
    let (mut hello, mut vip) = up(hook);
    if v4 {
        add_ipv4(&hello);
        vip = of_ipv4(&vip);
    }
    let pool: IpAddr = if v4 { "203.0.113.200" } else { "2001:db8:f::200" }.parse().expect("one");
    vip.spec.nat = Nat { mode: NatMode::FullNat, source_addresses: vec![pool], ..Nat::default() };
    vip.spec.health_check.port = Some(vip.spec.backends[0].port);
    vip.spec.backends.truncate(1);
    vip.spec.backends[0].port = PORT;
    put(&hello, &vip);
    let status =
        |hello: &Hello| hello.api.vip(&vip.metadata.name).holds().status.expect("it has a status");
    let before = status(&hello);

    let there = vip.spec.backends[0].address;
    for part in 0..PROCESSES {
        let serve = format!("{MANY} serve {there} {PORT}");
        hello.lab.spawn("pod1", &format!("serve-{part}"), &serve).holds();
    }
    let listening = format!("ss -Htln '( sport = :{PORT} )'");
    eventually("all processes listen", SOON, || {
        let listed = hello.lab.run("pod1", &listening)?.lines().count();
        ensure!(listed == PROCESSES, "{listed} of {PROCESSES}");
        Ok(())
    })
    .holds();
    let (to, share) = (address(&vip), CONNECTIONS / PROCESSES);
    for part in 0..PROCESSES {
        let (ip, port, first) = (to.ip(), to.port(), FIRST_PORT + part * share);
        let connect = format!("{MANY} connect {ip} {port} {first} {share}");
        hello.lab.spawn("client", &format!("connect-{part}"), &connect).holds();
    }
    for part in 0..PROCESSES {
        eventually("a process holds its share", ALL_WITHIN, || holds(&hello, part)).holds();
    }
    let sources = sources(&hello).holds();
    assert_eq!(sources.len(), CONNECTIONS, "each from a port of its own");
    assert!(sources.iter().all(|source| source.ip().to_canonical() == pool), "{pool}");
    let after = status(&hello);
    // With nine of ten ports in use, the search for one fails now and then: whoever is told nothing tries again.
    let exhausted = after.exhausted_flows - before.exhausted_flows;
    assert!(exhausted <= CONNECTIONS as u64 / 1000, "{exhausted} found no port at once");
    assert!(after.flows - before.flows >= CONNECTIONS as u64, "{after:?}");
    assert_eq!(hello.packets_that_ended("flow-collision"), 0);
}

/// Whether a client's process has heard its numbers again; at once if it never will.
fn holds(hello: &Hello, part: usize) -> Result<()> {
    let said = fs::read_to_string(hello.lab.logs().join(format!("client-connect-{part}.log")))?;
    let runs = hello.lab.runs("client", &format!("connect-{part}"));
    assert!(runs, "process {part} has ended: {said}");
    ensure!(said.contains(" held"), "process {part} said {said:?}");
    Ok(())
}

/// Where the backend's connections come from.
fn sources(hello: &Hello) -> Result<BTreeSet<SocketAddr>> {
    let listed =
        hello.lab.run("pod1", &format!("ss -Htn state established '( sport = :{PORT} )'"))?;
    let source = |line: &str| -> Result<SocketAddr> {
        let source = line.split_whitespace().nth(3).context("no such column")?;
        Ok(source.parse()?)
    };
    listed.lines().map(source).collect()
}
