//! What the kernel says, and what it made of our requests.

use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use lb_routing_proto::fib::{Fact, KernelRoute, KernelRouteKind, OwnRoute, RouteKey};

use super::task::Task;
use crate::kernel::{Event, Outcome, Outcomes};
use crate::plan::RouteId;

/// Failed installations that are logged one by one, of a batch.
const LOGGED_FAILURES: usize = 5;

impl Task {
    pub(super) fn kernel_events(&mut self, events: Vec<Event>) {
        let mut links_changed = false;
        for event in events {
            tracing::trace!(?event, "from the kernel");
            match event {
                Event::Reading => {
                    self.reading.iter_mut().for_each(|(begun, _)| *begun = true);
                    if self.started {
                        self.plan.ledger.reading();
                    }
                }
                Event::Read => {
                    for (_, asker) in self.reading.extract_if(.., |(begun, _)| *begun) {
                        // One that went away needs no answer.
                        let _gone = asker.send(());
                    }
                    self.plan.ledger.read();
                    if self.preserved && !self.started {
                        self.speaker.recover(Instant::now());
                    }
                    self.started = true;
                    self.tell_unreachable();
                }
                Event::Fact(fact) => {
                    links_changed |= self.note_link(&fact);
                    self.note_route(&fact);
                    self.fib.handle(fact);
                }
                Event::Own(id, route) if self.started => self.plan.ledger.found(id, route),
                Event::Own(id, route) => self.left_behind(id, route),
                Event::OwnGone(id) => self.plan.ledger.lost(id),
                Event::Address(key, ours) => self.addresses.found(key, ours),
                Event::AddressGone(key) => self.addresses.gone(key),
                Event::Rules(rules) => {
                    if !rules.is_empty() {
                        tracing::warn!(?rules, "policy routing: every packet goes to the kernel");
                    }
                    self.fib.handle(Fact::PolicyRules { present: !rules.is_empty() });
                    self.io.rules.send_replace(rules.into_iter().collect());
                }
            }
        }
        if links_changed {
            self.io.links.send_replace(self.links.values().cloned().collect());
        }
    }

    fn note_link(&mut self, fact: &Fact) -> bool {
        if let Fact::Link(link) = fact {
            self.addresses.link(link.ifindex, &link.name);
            return self.links.insert(link.ifindex, link.clone()).as_ref() != Some(link);
        }
        if let Fact::LinkGone { ifindex } = fact {
            self.addresses.link_gone(*ifindex);
            return self.links.remove(ifindex).is_some();
        }
        false
    }

    /// Another's route of the destination and metric of ours may have replaced it.
    fn note_route(&self, fact: &Fact) {
        if let Fact::KernelRoute(KernelRoute { key, .. }) = fact
            && let RouteKey { prefix, metric, tos: 0, source: None, local: false } = *key
            && self.plan.ledger.has(&RouteId { prefix, metric })
        {
            self.io.read_again.notify_one();
        }
    }

    /// What a previous process left forwards until somebody speaks of it.
    fn left_behind(&mut self, id: RouteId, route: OwnRoute) {
        let kind = match &route {
            OwnRoute::Via(hops) => KernelRouteKind::Unicast(hops.to_vec()),
            OwnRoute::Blackhole => KernelRouteKind::Blackhole,
            OwnRoute::Unreachable | OwnRoute::Prohibit => KernelRouteKind::Reject,
        };
        self.fib.handle(Fact::Stale { prefix: id.prefix, kind });
        self.plan.ledger.left_behind(id, route);
    }

    pub(super) fn outcomes(&mut self, outcomes: Outcomes, now: Instant) {
        self.io.installer_busy = false;
        let mut failures = Failures::default();
        for Outcome { op, result } in outcomes.addresses {
            tracing::trace!(?op, ?result, "to the kernel");
            match result {
                Ok(()) => self.addresses.succeeded(op),
                Err(error) => {
                    let (why, (_, address)) = (sentence(&error, "address"), op.key());
                    let delay = self.addresses.failed(&op, why.clone(), now);
                    failures.say("address", address, &why, delay);
                    self.doubt(&error);
                }
            }
        }
        for Outcome { op, result } in outcomes.routes {
            tracing::trace!(?op, ?result, "to the kernel");
            match result {
                Ok(()) => self.plan.ledger.succeeded(op),
                Err(error) => {
                    let (why, id) = (sentence(&error, "route"), op.key());
                    let delay = self.plan.ledger.failed(id, why.clone(), now);
                    failures.say("route", id.prefix, &why, delay);
                    self.doubt(&error);
                }
            }
        }
        failures.say_rest();
    }

    /// The kernel has something else than we think, or an answer was lost.
    fn doubt(&self, error: &std::io::Error) {
        if matches!(error.raw_os_error(), Some(libc::EEXIST | libc::ENOENT) | None) {
            self.io.read_again.notify_one();
        }
    }
}

/// Refusals of the kernel: the first ones are logged one by one.
#[derive(Default)]
struct Failures(usize);

impl Failures {
    fn say(&mut self, what: &str, which: IpNetwork, why: &str, delay: Duration) {
        self.0 += 1;
        if self.0 <= LOGGED_FAILURES {
            let delay = delay.as_secs();
            tracing::warn!(
                "the kernel refuses our {what} {which}: {why}; trying again in {delay} s"
            );
        }
    }

    fn say_rest(&self) {
        if let Some(more @ 1..) = self.0.checked_sub(LOGGED_FAILURES) {
            tracing::warn!("the kernel refuses {more} more routes and addresses of ours");
        }
    }
}

/// A refusal, and what to do about the usual ones.
fn sentence(error: &std::io::Error, what: &str) -> String {
    let hint = match error.raw_os_error() {
        Some(libc::EEXIST) if what == "address" => ", the interface has it already".to_owned(),
        Some(libc::EEXIST) => {
            ", another route of the same prefix and metric is there; remove it".to_owned()
        }
        Some(libc::EPERM) => "; run as root or with CAP_NET_ADMIN".to_owned(),
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => {
            ", its gateway is on no connected network".to_owned()
        }
        Some(libc::EACCES) => {
            ", the interface has IPv6 disabled (net.ipv6.conf.*.disable_ipv6)".to_owned()
        }
        _ => String::new(),
    };
    format!("{error}{hint}")
}
