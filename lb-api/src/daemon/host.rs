//! What this host says of itself, for [`crate::doctor`]. It is said, never changed: sysctls are the operator's.

use std::fs;
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
        ip_forward: setting("ip_forward").map(|value| value != 0),
        ..Facts::default()
    }
}

/// What an interface says of itself.
pub(super) fn interface(name: &str, hook: Hook) -> Interface {
    let own = setting(&format!("conf/{name}/rp_filter"));
    let offloads = offloads(name).ok();
    Interface {
        name: name.into(),
        hook,
        rp_filter: own.zip(setting("conf/all/rp_filter")).map(|(own, all)| own.max(all)),
        rx_vlan: offloads.map(|offloads| offloads.rx_vlan),
        lro: offloads.map(|offloads| offloads.lro),
    }
}

fn setting(name: &str) -> Option<u8> {
    fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok()?.trim().parse().ok()
}
