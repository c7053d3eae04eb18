//! What people see of the VIPs.

use std::time::Instant;

use lb_api_types::resource::{Condition, ConditionStatus};
use lb_api_types::vip::{BackendStatus, Vip, VipStatus};
use lb_dataplane::{BackendCount, ServiceCounters};

use super::Appliers;
use super::task::Task;
use crate::control::{self, Reasons};
use crate::health::Verdicts;

/// What is said of a backend that gets no new flows although it may be healthy.
const UNREACHED: &str = "no packet reaches it as the VIP's nat.mode needs it, so it gets no new flows: look at the route to it, and with source \
    addresses of this host's own at net.ipv4.ip_local_port_range";

impl<A: Appliers> Task<A> {
    /// Every VIP with its status.
    pub(super) async fn list(&mut self) -> Vec<Vip> {
        let counters = self.appliers.counters().await;
        let vips = self.book.vips().values();
        let facts = self.facts(Instant::now());
        let reasons = Reasons::new(facts, &self.announced, vips.clone());
        vips.map(|vip| self.with_status(vip, &reasons, &counters)).collect()
    }

    pub(super) fn first_unserved(&self) -> Option<String> {
        let is_served = |vip: &&Vip| self.serving.contains(&control::key(&vip.spec));
        let attached = *self.attached.borrow();
        let unserved = self.book.vips().values().find(|vip| !attached || !is_served(vip));
        unserved.map(|vip| vip.metadata.name.clone())
    }

    /// One VIP with its status.
    pub(super) async fn get(&mut self, name: &str) -> Option<Vip> {
        let key = control::key(&self.book.vips().get(name)?.spec);
        let counters = self.appliers.counters_of(key).await;
        let vip = self.book.vips().get(name)?;
        let here = self.book.of_address(vip.spec.address);
        let facts = self.facts(Instant::now());
        let reasons = Reasons::new(facts, &self.announced, here);
        Some(self.with_status(vip, &reasons, &counters))
    }

    fn with_status(&self, vip: &Vip, reasons: &Reasons<'_>, counters: &ServiceCounters) -> Vip {
        let verdicts = &self.verdicts;
        let key = control::key(&vip.spec);
        let count = counters.get(&key).cloned().unwrap_or_default();
        let backends = vip.spec.backends.iter().map(|backend| {
            let mut verdict = control::verdict(&vip.spec, backend, verdicts);
            if self.heard_unreached.contains(&(key, backend.address)) {
                verdict.message = UNREACHED.into();
            }
            let here = |count: &&BackendCount| {
                (count.address, count.port) == (backend.address, backend.port)
            };
            let count = count.backends.iter().find(here);
            BackendStatus {
                address: backend.address,
                port: backend.port,
                health: verdict.health,
                message: verdict.message,
                packets: count.map_or(0, |count| count.to_backend.packets),
                bytes: count.map_or(0, |count| count.to_backend.bytes),
                reply_packets: count.map_or(0, |count| count.to_client.packets),
                reply_bytes: count.map_or(0, |count| count.to_client.bytes),
                flows: count.map_or(0, |count| count.flows),
                active_flows: count.map_or(0, |count| count.active),
                half_open_flows: count.map_or(0, |count| count.half_open),
                exhausted_flows: count.map_or(0, |count| count.exhausted),
            }
        });
        let advertised = self.announced.contains(&vip.spec.address);
        let serving = *self.attached.borrow() && self.serving.contains(&key);
        let status = VipStatus {
            conditions: conditions(
                vip,
                serving,
                advertised,
                self.resources.is_withdrawn(),
                reasons,
                verdicts,
            ),
            serving,
            advertised,
            message: reasons.message(vip),
            backends: backends.collect(),
            packets: count.to_backend.packets,
            bytes: count.to_backend.bytes,
            reply_packets: count.to_client.packets,
            reply_bytes: count.to_client.bytes,
            flows: count.flows,
            evicted_flows: count.evicted,
            exhausted_flows: count.exhausted,
        };
        Vip { status: Some(status), ..vip.clone() }
    }
}

/// The status for programs.
fn conditions(
    vip: &Vip,
    serving: bool,
    advertised: bool,
    withdrawn: bool,
    reasons: &Reasons<'_>,
    verdicts: &Verdicts,
) -> Vec<Condition> {
    let healthy = backends_healthy(vip, verdicts);
    let condition = |kind: &str, status, reason: &str, message: String| Condition {
        kind: kind.into(),
        status,
        reason: reason.into(),
        message,
    };
    let served = match serving {
        true => ("Served", "the fast path serves it"),
        false => ("NotServed", "the fast path does not serve it: `lbctl doctor` says why"),
    };
    let why = match (vip.spec.advertise, serving, healthy.status, advertised) {
        (_, _, _, true) => "Advertised",
        (false, ..) => "NotAsked",
        (true, false, ..) => "NotServed",
        (true, true, ConditionStatus::True, false) => "Damped",
        (true, true, ConditionStatus::False | ConditionStatus::Unknown, false) => &healthy.reason,
    };
    vec![
        condition("Serving", serving.into(), served.0, served.1.into()),
        condition(
            "Advertised",
            advertised.into(),
            if withdrawn && !advertised { "NodeWithdrawn" } else { why },
            reasons.message(vip),
        ),
        healthy,
    ]
}

/// Whether one can take flows, as far as checks say.
pub(super) fn backends_healthy(vip: &Vip, verdicts: &Verdicts) -> Condition {
    let tally = control::tally(&vip.spec, verdicts);
    let (status, reason) = match (tally.healthy, tally.unknown) {
        (1.., _) => (ConditionStatus::True, "HealthyBackend"),
        (0, 1..) => (ConditionStatus::Unknown, "NotChecked"),
        (0, 0) => (ConditionStatus::False, "NoHealthyBackend"),
    };
    let counted = format!("{} of {} backends are healthy", tally.healthy, vip.spec.backends.len());
    Condition::new("BackendsHealthy", status, reason, counted)
}
