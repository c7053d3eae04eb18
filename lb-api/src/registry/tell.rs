//! What watchers are told: the difference between what they know and what holds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_api_types::event::EventKind;
use lb_api_types::resource::ConditionStatus;
use lb_api_types::vip::{Health, Vip};

use super::Appliers;
use super::change::asks_the_same;
use super::status::backends_healthy;
use super::task::{Changed, Task};
use crate::health::Target;

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Known {
    announced: BTreeSet<IpAddr>,
    /// Addresses of which something else may hold now.
    pub(super) stale: BTreeSet<IpAddr>,
    /// Of backends whose health is another since, what it was.
    pub(super) healths: BTreeMap<Target, Health>,
    attached: bool,
    /// Of VIPs whether they have a healthy backend; of others that is not known.
    healthy: BTreeMap<String, ConditionStatus>,
}

impl<A: Appliers> Task<A> {
    /// Tells what became of VIPs that were changed.
    pub(super) fn tell_of_vips(&mut self, before: &Changed) {
        for (name, old) in before {
            if !self.book.vips().contains_key(name) {
                self.told.healthy.remove(name);
            }
            let (kind, vip) = match (old, self.book.vips().get(name)) {
                (None, Some(vip)) => (EventKind::VipCreated, vip),
                (Some(old), Some(vip)) if !asks_the_same(old, vip) => (EventKind::VipUpdated, vip),
                (Some(vip), None) => (EventKind::VipDeleted, vip),
                (Some(_), Some(_)) | (None, None) => continue,
            };
            self.events.tell(kind, name.clone(), what(vip));
            // Other backends may be in another health.
            self.tell_of_health(name.clone());
        }
    }

    /// Tells what has changed of itself. Of VIPs that are gone, `before` says which addresses they had.
    pub(super) fn tell_of_state(&mut self, before: &Changed) {
        let attached = *self.attached.borrow();
        match (self.told.attached, attached) {
            (false, true) => {
                let message = "the fast path is attached to every interface that it is to be on";
                self.events.tell(EventKind::DataplaneAttached, "", message);
            }
            (true, false) => {
                let message = "the fast path is not attached to every interface that it is to be on: `lbctl doctor` says why";
                self.events.tell(EventKind::DataplaneDetached, "", message);
            }
            (true, true) | (false, false) => {}
        }
        self.told.attached = attached;
        self.tell_of_backends();
        let stale = std::mem::take(&mut self.told.stale);
        if stale.is_empty() {
            return;
        }
        let mut gone: BTreeMap<IpAddr, Vec<&Vip>> = BTreeMap::new();
        for old in before.values().flatten() {
            if !self.book.vips().contains_key(&old.metadata.name) {
                gone.entry(old.spec.address).or_default().push(old);
            }
        }
        for address in stale {
            self.tell_of_address(address, gone.get(&address).map_or(&[], Vec::as_slice));
        }
    }

    fn tell_of_backends(&mut self) {
        let mut touched = BTreeSet::new();
        for (target, told) in std::mem::take(&mut self.told.healths) {
            let Some(verdict) = self.verdicts.get(&target) else { continue };
            if told == verdict.health {
                continue;
            }
            touched.extend(self.book.of_target(&target).cloned());
            let message = match verdict.health {
                Health::Healthy => "healthy".into(),
                Health::Unhealthy => format!("unhealthy: {}", verdict.message),
                Health::Unknown => "not judged yet".into(),
            };
            self.events.tell(EventKind::BackendHealth, target.backend.to_string(), message);
        }
        for name in touched {
            self.tell_of_health(name);
        }
    }

    /// Tells of a VIP whether it has a healthy backend, where that is other than before.
    fn tell_of_health(&mut self, name: String) {
        let Some(vip) = self.book.vips().get(&name) else { return };
        let now = backends_healthy(vip, &self.verdicts);
        let path = format!("vips/{name}");
        let before = self.told.healthy.insert(name, now.status);
        if before.unwrap_or(ConditionStatus::Unknown) != now.status {
            self.events.tell_conditions(path, vec![now]);
        }
    }

    /// Tells of an address, and of which VIPs that are gone had it.
    fn tell_of_address(&mut self, address: IpAddr, gone: &[&Vip]) {
        let is_announced = self.announced.contains(&address);
        let was_announced = match is_announced {
            true => !self.told.announced.insert(address),
            false => self.told.announced.remove(&address),
        };
        let (kind, message) = match (was_announced, is_announced) {
            (false, true) => (EventKind::VipAdvertised, format!("BGP advertises {address}")),
            (true, false) => {
                (EventKind::VipWithdrawn, format!("BGP no longer advertises {address}"))
            }
            (true, true) | (false, false) => return,
        };
        for vip in self.book.of_address(address).chain(gone.iter().copied()) {
            self.events.tell(kind, vip.metadata.name.clone(), message.clone());
        }
    }
}

fn what(vip: &Vip) -> String {
    let spec = &vip.spec;
    let (protocol, backends) = (spec.protocol.name(), spec.backends.len());
    format!("{protocol} port {} at {}, {backends} backends", spec.ports(), spec.address)
}
