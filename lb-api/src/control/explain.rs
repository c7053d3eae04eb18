//! Why an address is or is not advertised, in one sentence.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_api_types::vip::Vip;

use super::{Facts, Tally, carries, is_of_use, key, tally};

/// What the sentences are made of.
pub(crate) struct Reasons<'a> {
    facts: Facts<'a>,
    announced: &'a BTreeSet<IpAddr>,
    /// Per address the first VIP that is a reason to advertise it.
    carriers: BTreeMap<IpAddr, &'a str>,
}

impl<'a> Reasons<'a> {
    /// Looks once at each of these VIPs: all of those addresses that sentences are asked for.
    pub(crate) fn new(
        facts: Facts<'a>,
        announced: &'a BTreeSet<IpAddr>,
        vips: impl Iterator<Item = &'a Vip>,
    ) -> Self {
        let mut carriers = BTreeMap::new();
        for vip in vips.filter(|vip| carries(vip, facts)) {
            carriers.entry(vip.spec.address).or_insert(vip.metadata.name.as_str());
        }
        Self { facts, announced, carriers }
    }

    /// The sentence for a VIP.
    pub(crate) fn message(&self, vip: &Vip) -> String {
        match (vip.spec.announce_on.is_empty(), vip.spec.advertise) {
            (true, _) => self.of_bgp(vip),
            (false, true) => format!("{}; {}", self.of_bgp(vip), self.of_links(vip)),
            (false, false) => self.of_links(vip),
        }
    }

    fn of_links(&self, vip: &Vip) -> String {
        let on = vip.spec.announce_on.join(", ");
        match self.facts.damping.held_until(vip.spec.address, self.facts.now) {
            Some(_) => format!("not announced on {on}: its health flapped"),
            None if is_of_use(vip, self.facts) => {
                let healthy = tally(&vip.spec, self.facts.verdicts).healthy;
                let all = vip.spec.backends.len();
                format!("announced on {on}: {healthy} of {all} backends healthy")
            }
            None => format!("not announced on {on}: {}", obstacle(vip, self.facts)),
        }
    }

    fn of_bgp(&self, vip: &Vip) -> String {
        let facts = self.facts;
        let address = vip.spec.address;
        let all = vip.spec.backends.len();
        if self.announced.contains(&address) {
            if carries(vip, facts) {
                let Tally { healthy, drained, .. } = tally(&vip.spec, facts.verdicts);
                let drained = match drained {
                    0 => String::new(),
                    n if n == healthy => ", all of them drained: new flows are refused".into(),
                    n => format!(", {n} of them drained"),
                };
                return format!("advertised: {healthy} of {all} backends healthy{drained}");
            }
            let other = self.carriers.get(&vip.spec.address).unwrap_or(&"another");
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
}

/// What stands in this VIP's way.
fn own_reason(vip: &Vip, facts: Facts<'_>) -> String {
    if vip.spec.advertise { obstacle(vip, facts) } else { "its spec says advertise: false".into() }
}

/// What stands in the way of its clients.
fn obstacle(vip: &Vip, facts: Facts<'_>) -> String {
    let all = vip.spec.backends.len();
    let tally = tally(&vip.spec, facts.verdicts);
    if facts.withdrawn {
        "the node is drained and its VIPs are withdrawn: `lbctl undrain --node` ends that".into()
    } else if !facts.attached {
        "the fast path is not attached to every interface that it is to be on: `lbctl doctor` says why"
            .into()
    } else if !facts.serving.contains(&key(&vip.spec)) {
        "the dataplane does not serve it yet".into()
    } else if tally.healthy > 0 {
        "no packet reaches its healthy backends as its nat.mode needs it: look at the routes to them".into()
    } else if tally.unknown > 0 {
        format!("health checks have not spoken yet of {} of {all} backends", tally.unknown)
    } else {
        format!("all of its {all} backends are unhealthy")
    }
}
