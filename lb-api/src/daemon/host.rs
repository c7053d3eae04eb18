//! What of this host's settings stands in the way. It is said, never changed: sysctls are the operator's.

use std::fs;

/// What somebody should look at, one sentence each.
pub(super) fn warnings() -> Vec<String> {
    let mut all = Vec::new();
    let setting = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
    if setting("ip_forward").is_ok_and(|value| value.trim() == "0") {
        all.push("net.ipv4.ip_forward is 0: the kernel drops packets that the fast path hands over (fragments, unresolved neighbours); set it with `sysctl -w net.ipv4.ip_forward=1`".into());
    }
    if setting("conf/all/rp_filter").is_ok_and(|value| value.trim() == "1") {
        all.push("net.ipv4.conf.all.rp_filter is 1 (strict): the kernel drops packets that come and go by different interfaces; set it to 0 or 2".into());
    }
    all
}
