//! What watchers are told: the difference between what they know and what holds.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use lb_api_types::event::EventKind;
use lb_api_types::vip::{Health, Vip};

use super::change::asks_the_same;
use super::task::Task;
use super::{Appliers, protocol_name};
use crate::control::Vips;
use crate::health::{Verdict, Verdicts};

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Known {
    announced: BTreeSet<IpAddr>,
    verdicts: Arc<Verdicts>,
    attached: bool,
}

impl<A: Appliers> Task<A> {
    /// Tells what became of VIPs of these names.
    pub(super) fn tell_of_vips(&self, before: &Vips, names: &BTreeSet<String>) {
        for name in names {
            let (kind, vip) = match (before.get(name), self.vips.get(name)) {
                (None, Some(vip)) => (EventKind::VipCreated, vip),
                (Some(old), Some(vip)) if !asks_the_same(old, vip) => (EventKind::VipUpdated, vip),
                (Some(vip), None) => (EventKind::VipDeleted, vip),
                (Some(_), Some(_)) | (None, None) => continue,
            };
            self.events.tell(kind, name.clone(), what(vip));
        }
    }

    /// Tells what has changed of itself. Of VIPs that are gone, `before` says which addresses they had.
    pub(super) fn tell_of_state(&mut self, before: &Vips) {
        let attached = *self.attached.borrow();
        match (self.told.attached, attached) {
            (false, true) => {
                let message = "the fast path is attached to an interface";
                self.events.tell(EventKind::DataplaneAttached, "", message);
            }
            (true, false) => {
                let message = "the fast path is attached to no interface: `lbctl doctor` says why";
                self.events.tell(EventKind::DataplaneDetached, "", message);
            }
            (true, true) | (false, false) => {}
        }
        self.told.attached = attached;
        let verdicts = self.verdicts.borrow().clone();
        if !Arc::ptr_eq(&verdicts, &self.told.verdicts) {
            self.tell_of_backends(&verdicts);
            self.told.verdicts = verdicts;
        }
        if self.announced != self.told.announced {
            self.tell_of_addresses(before);
            self.told.announced.clone_from(&self.announced);
        }
    }

    fn tell_of_backends(&self, verdicts: &Verdicts) {
        let unknown = Verdict { health: Health::Unknown, message: String::new() };
        for (target, verdict) in verdicts {
            let old = self.told.verdicts.get(target).unwrap_or(&unknown);
            if old.health == verdict.health {
                continue;
            }
            let message = match verdict.health {
                Health::Healthy => "healthy".into(),
                Health::Unhealthy => format!("unhealthy: {}", verdict.message),
                Health::Unknown => "not judged yet".into(),
            };
            self.events.tell(EventKind::BackendHealth, target.backend.to_string(), message);
        }
    }

    fn tell_of_addresses(&self, before: &Vips) {
        let has = |vip: &Vip, addresses: &BTreeSet<IpAddr>| addresses.contains(&vip.spec.address);
        let gone = before.iter().filter(|(name, _)| !self.vips.contains_key(*name));
        for (name, vip) in self.vips.iter().chain(gone) {
            let address = vip.spec.address;
            match (has(vip, &self.told.announced), has(vip, &self.announced)) {
                (false, true) => {
                    let message = format!("BGP advertises {address}");
                    self.events.tell(EventKind::VipAdvertised, name.clone(), message);
                }
                (true, false) => {
                    let message = format!("BGP no longer advertises {address}");
                    self.events.tell(EventKind::VipWithdrawn, name.clone(), message);
                }
                (true, true) | (false, false) => {}
            }
        }
    }
}

fn what(vip: &Vip) -> String {
    let spec = &vip.spec;
    let (protocol, backends) = (protocol_name(spec.protocol), spec.backends.len());
    format!("{protocol} port {} at {}, {backends} backends", spec.port, spec.address)
}
