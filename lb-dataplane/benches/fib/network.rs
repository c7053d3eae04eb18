//! A network namespace of the benchmark's own: an interface, its neighbours, and the kernel's routes.
//!
//! The process moves into it, and it is gone when the process ends.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};

use crate::routes::{NEXT_HOPS, Route};

const INTERFACE: &str = "bench0";

/// The way out that all next hops share.
pub(crate) struct Network {
    pub(crate) ifindex: u32,
    pub(crate) mac: [u8; 6],
}

impl Network {
    pub(crate) fn new() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        ip("link set lo up")?;
        ip(&format!("link add {INTERFACE} type veth peer name bench1"))?;
        ip("link set bench1 up")?;
        ip(&format!("link set {INTERFACE} up"))?;
        ip(&format!("addr add 10.0.0.1/16 dev {INTERFACE}"))?;
        ip(&format!("addr add fd00::1/64 dev {INTERFACE} nodad"))?;
        // The kernel's lookup refuses to answer for a host that does not forward.
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
        let read = |file: &str| fs::read_to_string(format!("/proc/self/net/{file}"));
        ensure!(read("dev")?.contains(INTERFACE), "{INTERFACE} is not there");
        let mac = link_mac()?;
        let ifindex = nix::net::if_::if_nametoindex(INTERFACE)?;
        batch((0..NEXT_HOPS).map(|next_hop| {
            let mac = next_hop_mac(next_hop).map(|byte| format!("{byte:02x}")).join(":");
            format!("neigh add {} lladdr {mac} dev {INTERFACE} nud permanent", gateway(next_hop))
        }))?;
        batch((0..NEXT_HOPS).map(|next_hop| {
            let mac = next_hop_mac(next_hop).map(|byte| format!("{byte:02x}")).join(":");
            format!("neigh add {} lladdr {mac} dev {INTERFACE} nud permanent", gateway6(next_hop))
        }))?;
        Ok(Self { ifindex, mac })
    }

    /// The same routes in the kernel's own table.
    pub(crate) fn fill(&self, routes: &[Route]) -> Result<()> {
        batch(routes.iter().map(|(network, len, next_hop)| {
            let network = Ipv4Addr::from(*network);
            format!("route add {network}/{len} via {} dev {INTERFACE}", gateway(*next_hop))
        }))
    }

    /// IPv6 routes in the kernel's own table.
    pub(crate) fn fill6(&self, routes: &[(u128, u8, u32)]) -> Result<()> {
        batch(routes.iter().map(|(network, len, next_hop)| {
            let network = Ipv6Addr::from_bits(*network);
            format!("route add {network}/{len} via {} dev {INTERFACE}", gateway6(*next_hop))
        }))
    }
}

/// A next hop's IPv6 address, below fd00::/64.
pub(crate) fn gateway6(next_hop: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits((0xfd00 << 112) + 0x1000 + u128::from(next_hop))
}

/// A next hop's address, below 10.0.16.0/20.
pub(crate) fn gateway(next_hop: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_1000 + next_hop)
}

/// A next hop's MAC, its own.
pub(crate) fn next_hop_mac(next_hop: u32) -> [u8; 6] {
    let [a, b, c, d] = u32::from(gateway(next_hop)).to_be_bytes();
    [2, 0, a, b, c, d]
}

fn link_mac() -> Result<[u8; 6]> {
    let shown = Command::new("ip").args(["-o", "link", "show", INTERFACE]).output()?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let mac = shown.split("link/ether ").nth(1).context("the interface has no MAC")?;
    let mut bytes = mac.split([':', ' ']).map(|byte| u8::from_str_radix(byte, 16));
    let mut next = || bytes.next().context("the MAC is short")?.context("the MAC is no MAC");
    Ok([next()?, next()?, next()?, next()?, next()?, next()?])
}

fn ip(words: &str) -> Result<()> {
    let status = Command::new("ip").args(words.split(' ')).status()?;
    ensure!(status.success(), "`ip {words}` ended with {status}");
    Ok(())
}

fn batch(lines: impl Iterator<Item = String>) -> Result<()> {
    let mut child =
        Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().context("ip")?;
    {
        let stdin = child.stdin.take().context("ip has no standard input")?;
        let mut stdin = std::io::BufWriter::new(stdin);
        for line in lines {
            writeln!(stdin, "{line}")?;
        }
        stdin.flush()?;
    }
    let status = child.wait()?;
    ensure!(status.success(), "`ip -batch` ended with {status}");
    Ok(())
}
