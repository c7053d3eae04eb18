//! `cargo xtask demo`: calico-hello from nothing to spread requests, each claim checked against whoever can tell.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lb_api_types::view::{FibEntry, PeerView, ReasonView};
use lb_api_types::vip::{Algorithm, Vip};
use serde_json::Value;

use crate::api::Api;
use crate::lab::{Lab, Options};
use crate::traffic::{Spread, forwarded_by_kernel, requests};
use crate::wait::eventually;

/// What is brought up.
pub const TOPOLOGY: &str = "calico-hello";

const REQUESTS: u32 = 300;
const CONVERGED_WITHIN: Duration = Duration::from_secs(40);
/// A request is at least this many packets through the balancer: handshake, question, answer, both ways.
const PACKETS_PER_REQUEST: u64 = 8;

/// One node's block of pod addresses, and how lbd gets there.
struct Block {
    node: &'static str,
    prefix: &'static str,
    interface: &'static str,
}

const BLOCKS: [Block; 2] = [
    Block { node: "node1", prefix: "10.244.1.0/26", interface: "eth2" },
    Block { node: "node2", prefix: "10.244.2.0/26", interface: "eth3" },
];

/// Brings the lab up, shows and checks everything; the first thing that is not as it should be is the error.
pub fn run(options: &Options, keep: bool) -> Result<()> {
    progress("Bringing up the topology calico-hello in network namespaces");
    let lab = Lab::up(options)?;
    match show(&lab) {
        Ok(()) if keep => {
            title("How to look around");
            look_around(&lab);
            lab.keep()
        }
        Ok(()) => {
            println!(
                "\nEverything holds. `cargo xtask demo --keep` leaves the lab up to look around."
            );
            Ok(())
        }
        Err(error) => {
            lab.failed(&format!("{error:#}"));
            Err(error)
        }
    }
}

fn show(lab: &Lab) -> Result<()> {
    let api = lab.api();
    progress("Waiting for the BGP sessions with FRR and BIRD, and for the pods' routes");
    sessions(lab, &api)?;
    routes(lab, &api)?;
    progress("Creating a VIP over REST");
    let mut vip = vip(lab)?;
    let address = vip.spec.address;
    api.put_vip(&vip)?;
    println!("    PUT /api/v1/vips/{}: {address}:{}", vip.metadata.name, vip.spec.port);
    advertised(lab, address)?;
    for (algorithm, least, most) in [(Algorithm::RoundRobin, 99, 101), (Algorithm::Maglev, 60, 140)]
    {
        vip.spec.algorithm = algorithm;
        api.put_vip(&vip)?;
        all_healthy(&api, &vip)?;
        spread(lab, &api, &vip, least, most)?;
    }
    Ok(())
}

/// The VIP of the topology, as a user writes it.
pub fn vip(lab: &Lab) -> Result<Vip> {
    let path = lab.topology().folder.join("lbd/web.yaml");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_norway::from_str(&text).with_context(|| path.display().to_string())
}

/// Waits until the daemon finds every backend healthy.
pub fn all_healthy(api: &Api, vip: &Vip) -> Result<()> {
    use lb_api_types::vip::Health;
    eventually("every backend is healthy and the VIP is served", CONVERGED_WITHIN, || {
        let status = api.vip(&vip.metadata.name)?.status.context("the VIP has no status yet")?;
        ensure!(
            status.serving
                && status.backends.len() == vip.spec.backends.len()
                && status.backends.iter().all(|backend| backend.health == Health::Healthy),
            "{status:?}"
        );
        Ok(())
    })
}

fn sessions(lab: &Lab, api: &Api) -> Result<()> {
    let is_up = |peer: &PeerView| peer.state == "Established" && peer.prefixes_received > 0;
    let peers = eventually("all sessions are Established and told", CONVERGED_WITHIN, || {
        let peers = api.peers()?;
        match peers.iter().find(|peer| !is_up(peer)) {
            Some(peer) => bail!(
                "{} is {}, {} prefixes received ({})",
                peer.name,
                peer.state,
                peer.prefixes_received,
                peer.last_error
            ),
            None if peers.is_empty() => bail!("lbd has no peers"),
            None => Ok(peers),
        }
    })?;
    title("BGP sessions, as lbd sees them");
    for peer in peers {
        let kind = if peer.asn == api.status()?.asn { "iBGP" } else { "eBGP" };
        println!(
            "    {:<10} {:<12} AS {:<6} {kind}  {:<12} {} prefixes received, {} advertised",
            peer.name,
            peer.address,
            peer.asn,
            peer.state,
            peer.prefixes_received,
            peer.prefixes_advertised
        );
    }
    title("The same sessions, as FRR and BIRD see them");
    let said = lab.run("upstream", "vtysh -c 'show bgp neighbors 192.0.2.2'")?;
    let line = said.lines().find(|line| line.contains("BGP state")).unwrap_or_default().trim();
    println!("    upstream (FRR)  {line}");
    ensure!(line.contains("Established"), "FRR does not see the session Established");
    for Block { node, .. } in &BLOCKS {
        let said = lab.run(node, "birdc show protocols lbd")?;
        let line = said.lines().last().unwrap_or_default().trim();
        println!("    {node} (BIRD)    {line}");
        ensure!(
            line.contains("Established"),
            "BIRD on {node} does not see the session Established"
        );
    }
    Ok(())
}

fn routes(lab: &Lab, api: &Api) -> Result<()> {
    title("The pods' routes, learned from BIRD, in the eBPF FIB");
    for block in &BLOCKS {
        let mac = mac(lab, block.node, "eth1")?;
        let entry =
            eventually(&format!("{} is in the eBPF FIB", block.prefix), CONVERGED_WITHIN, || {
                in_fib(api, block.prefix, block.interface, &mac)
            })?;
        for member in entry.status.members {
            let gateway = member.gateway.map_or_else(|| "the link".into(), |ip| ip.to_string());
            println!(
                "    {:<16} via {gateway:<10} dev {} mac {}  (from {})",
                entry.spec.prefix,
                member.interface,
                member.mac.as_deref().unwrap_or("unresolved"),
                entry.status.source
            );
        }
    }
    Ok(())
}

/// The FIB's entry of a prefix, if it leads out of this interface to this MAC.
pub fn in_fib(api: &Api, prefix: &str, interface: &str, mac: &str) -> Result<FibEntry> {
    let fib = api.fib()?;
    let entry = fib.into_iter().find(|entry| entry.metadata.name == prefix);
    let entry = entry.with_context(|| format!("{prefix} is not in the FIB"))?;
    let right = |member: &lb_api_types::view::FibMemberView| {
        member.interface == interface
            && member.mac.as_ref().is_some_and(|found| found.eq_ignore_ascii_case(mac))
    };
    ensure!(
        entry.status.action == "forward" && entry.status.members.iter().any(right),
        "{entry:?}"
    );
    Ok(entry)
}

/// The MAC of a node's interface, as the kernel has it.
pub fn mac(lab: &Lab, node: &str, interface: &str) -> Result<String> {
    let text = lab.run(node, &format!("ip -j link show dev {interface}"))?;
    let links: Value = serde_json::from_str(&text)?;
    Ok(links[0]["address"].as_str().context("the interface has no MAC")?.to_owned())
}

fn advertised(lab: &Lab, address: IpAddr) -> Result<()> {
    let command = format!("vtysh -c 'show ip bgp {address}/32'");
    let said = eventually("FRR has the VIP with lbd as next hop", CONVERGED_WITHIN, || {
        let said = lab.run("upstream", &command)?;
        let chosen = said.contains("192.0.2.2 from 192.0.2.2") && said.contains("best #1");
        ensure!(chosen, "FRR says: {}", said.trim());
        // The kernel, which forwards, has the route a moment after bgpd has chosen it.
        let route = lab.run("upstream", &format!("ip route show {address}"))?;
        ensure!(route.contains("via 192.0.2.2"), "the kernel has no route yet: {route:?}");
        Ok(said)
    })?;
    title(&format!("The VIP, as the upstream router (FRR) sees it: show ip bgp {address}/32"));
    said.lines().for_each(|line| println!("    {line}"));
    Ok(())
}

fn spread(lab: &Lab, api: &Api, vip: &Vip, least: u32, most: u32) -> Result<()> {
    let name = vip.spec.algorithm;
    progress(&format!("Sending {REQUESTS} HTTP requests from the client to the VIP, by {name}"));
    let to = SocketAddr::new(vip.spec.address, vip.spec.port);
    let before = (api.status()?.reasons, forwarded_by_kernel(lab.netns("lbd")?)?);
    let seen: Spread = requests(lab.netns("client")?, to, REQUESTS)?;
    let after = (api.status()?.reasons, forwarded_by_kernel(lab.netns("lbd")?)?);
    let kernel = after.1 - before.1;
    let fast = forwarded(&after.0) - forwarded(&before.0);
    title(&format!("{REQUESTS} requests by {name}"));
    println!("    {seen}");
    for reason in &after.0 {
        let earlier = before.0.iter().find(|earlier| earlier.reason == reason.reason);
        let packets = reason.packets - earlier.map_or(0, |earlier| earlier.packets);
        if packets > 0 {
            println!("    fast path: {packets:>6} packets {} ({})", reason.reason, reason.verdict);
        }
    }
    println!("    kernel:    {kernel:>6} packets forwarded (Ip: ForwDatagrams of lbd's namespace)");
    seen.expect(vip.spec.backends.len(), least, most)?;
    ensure!(
        fast >= u64::from(REQUESTS) * PACKETS_PER_REQUEST,
        "the fast path forwarded only {fast} packets"
    );
    ensure!(kernel == 0, "the kernel forwarded {kernel} packets that are the fast path's");
    Ok(())
}

/// Packets that the fast path sent on itself.
pub fn forwarded(reasons: &[ReasonView]) -> u64 {
    reasons.iter().filter(|reason| reason.verdict == "forward").map(|reason| reason.packets).sum()
}

/// Prints the commands that show what a lab does.
pub fn look_around(lab: &Lab) {
    let socket = lab.api().socket().display().to_string();
    let bin = lab.folder().join("lbd/bin/lbctl").display().to_string();
    println!("    {bin} get vips            # the client, with this lab's socket");
    println!("    {bin} get fib -o yaml");
    println!("    curl --unix-socket {socket} http://lbd/api/v1/status");
    let folder = lab.folder();
    for (program, question) in [
        ("upstream/bin/vtysh", "-c 'show ip bgp'"),
        ("upstream/bin/vtysh", "-c 'show bgp ipv6 unicast'"),
        ("node1/bin/birdc", "show protocols"),
    ] {
        let program = folder.join(program);
        if program.exists() {
            println!("    {} {question}", program.display());
        }
    }
    if let Ok(client) = lab.netns("client") {
        let vip = vip(lab).map_or_else(
            |_| "VIP".to_owned(),
            |vip| SocketAddr::new(vip.spec.address, vip.spec.port).to_string(),
        );
        println!("    nsenter --net=/run/netns/{} curl http://{vip}/", client.name());
    }
    println!("    ls {}", lab.logs().display());
    println!("    cargo xtask lab down");
}

fn title(text: &str) {
    println!("\n{text}");
}

fn progress(text: &str) {
    eprintln!("==> {text}");
}
