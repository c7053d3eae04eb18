//! Why an address is or is not advertised, in one sentence.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use lb_api_types::vip::Vip;

use super::{Facts, carries, key, tally};

/// The sentence for a VIP.
pub(super) fn message(vip: &Vip, facts: Facts<'_>, announced: &BTreeSet<Ipv4Addr>) -> String {
    let IpAddr::V4(address) = vip.spec.address else {
        return "not served: the dataplane serves IPv4 only".into();
    };
    let all = vip.spec.backends.len();
    let tally = tally(&vip.spec, facts.verdicts);
    if announced.contains(&address) {
        if carries(vip, facts) {
            return format!("advertised: {} of {all} backends healthy", tally.healthy);
        }
        let others = facts
            .vips
            .values()
            .find(|other| other.spec.address == vip.spec.address && carries(other, facts));
        let other = others.map_or("another", |other| &other.metadata.name);
        return format!(
            "advertised because of VIP {other} at the same address: {}",
            own_reason(vip, facts)
        );
    }
    match facts.damping.held_until(address, facts.now) {
        Some(until) if carries(vip, facts) => {
            let seconds = until.saturating_duration_since(facts.now).as_secs() + 1;
            format!("not advertised: its health flapped, held back for another {seconds} s")
        }
        Some(_) | None => format!("not advertised: {}", own_reason(vip, facts)),
    }
}

/// What stands in this VIP's way.
fn own_reason(vip: &Vip, facts: Facts<'_>) -> String {
    let all = vip.spec.backends.len();
    let tally = tally(&vip.spec, facts.verdicts);
    if !vip.spec.advertise {
        "its spec says advertise: false".into()
    } else if !facts.attached {
        "the fast path is attached to no interface".into()
    } else if !facts.serving.contains(&key(&vip.spec)) {
        "the dataplane does not serve it yet".into()
    } else if tally.unknown > 0 {
        format!("health checks have not spoken yet of {} of {all} backends", tally.unknown)
    } else {
        format!("all of its {all} backends are unhealthy")
    }
}
