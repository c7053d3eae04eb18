//! What this host says of itself, for [`crate::doctor`]. It is said, never changed: sysctls are the operator's.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use lb_api_types::config::Hook;
use lb_dataplane::host::offloads;

use crate::doctor::{Facts, Interface};

/// What can be read at once.
pub(super) fn facts() -> Facts {
    let read = |path: &str| fs::read_to_string(path).ok();
    let status = read("/proc/self/status").unwrap_or_default();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    Facts {
        kernel: read("/proc/sys/kernel/osrelease").unwrap_or_default().trim().into(),
        btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        capabilities: capabilities.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()),
        uid: Some(nix::unistd::geteuid().as_raw()),
        ip_forward: setting("ip_forward").map(|value| value != 0),
        compiled: lb_dataplane::host::compiles_programs(),
        ..Facts::default()
    }
}

/// What is known of an interface, and what it says of itself.
pub(super) fn interface(name: &str, hook: Hook, up: bool) -> Interface {
    let own = setting(&format!("conf/{name}/rp_filter"));
    Interface {
        name: name.into(),
        hook,
        up,
        rp_filter: own.zip(setting("conf/all/rp_filter")).map(|(own, all)| own.max(all)),
        offloads: offloads(name).ok(),
    }
}

fn setting(name: &str) -> Option<u8> {
    fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok()?.trim().parse().ok()
}

/// Which of these addresses the kernel has no unreachable route for, as `/proc/net/route` and `/proc/net/ipv6_route` say it.
pub(super) fn unrouted(addresses: &BTreeSet<IpAddr>) -> Option<Vec<IpAddr>> {
    let v4 = fs::read_to_string("/proc/net/route").ok()?;
    // A kernel without IPv6 has none of it.
    let v6 = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    let rejected = rejected(&v4, &v6);
    Some(addresses.iter().filter(|address| !rejected.contains(address)).copied().collect())
}

/// Those of these addresses that are this host's own, with the interface that has each; none where the kernel does not say.
pub(super) fn own(addresses: &BTreeSet<IpAddr>) -> Vec<(IpAddr, String)> {
    let Ok(all) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let own = all.filter_map(|one| {
        let at = one.address?;
        let v4 = at.as_sockaddr_in().map(|at| IpAddr::from(at.ip()));
        let address = v4.or_else(|| at.as_sockaddr_in6().map(|at| IpAddr::from(at.ip())))?;
        addresses.contains(&address).then_some((address, one.interface_name))
    });
    own.collect()
}

/// Hosts whose packets the kernel rejects (`RTF_REJECT` of linux/route.h). IPv4 is written as a number of this machine.
fn rejected(v4: &str, v6: &str) -> BTreeSet<IpAddr> {
    const REJECT: u32 = 0x200;
    let hex = |text: &str| u32::from_str_radix(text, 16).ok();
    let v4 = v4.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, to, _, flags, _, _, _, mask, ..] = fields[..] else { return None };
        let is_host = hex(mask) == Some(u32::MAX) && hex(flags)? & REJECT != 0;
        is_host.then_some(IpAddr::from(hex(to)?.to_ne_bytes()))
    });
    let v6 = v6.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [to, len, _, _, _, _, _, _, flags, ..] = fields[..] else { return None };
        let is_host = len == "80" && hex(flags)? & REJECT != 0;
        let bits = u128::from_str_radix(to, 16).ok()?;
        is_host.then_some(IpAddr::from(bits.to_be_bytes()))
    });
    v4.chain(v6).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_hosts_are_found_among_the_kernels_routes() {
        let v4 = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
            eth1\t0000000A\t00000000\t0001\t0\t0\t0\tFFFFFF00\t0\t0\t0\n\
            *\t0A7100CB\t00000000\t0205\t0\t0\t4271\tFFFFFFFF\t0\t0\t0\n\
            *\t0B7100CB\t00000000\t0201\t0\t0\t4271\tFFFFFF00\t0\t0\t0\n";
        let v6 = "20010db8000000000000000000000010 80 00000000000000000000000000000000 00 00000000000000000000000000000000 000010af 00000001 00000000 00200200       lo\n\
            20010db8000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth1\n";
        let wanted = ["203.0.113.10", "2001:db8::10"].map(|text| text.parse().unwrap());
        assert_eq!(rejected(v4, v6), wanted.into());
    }
}
