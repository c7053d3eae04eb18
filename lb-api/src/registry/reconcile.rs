//! Making the world match: what was touched is computed anew, and of that what differs is carried out.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use lb_api_types::vip::Vip;
use lb_dataplane::table::{Change, ServiceKey, Table};

use super::task::Task;
use super::{Appliers, Serve};
use crate::control::{self, Facts, Touched};
use crate::health::{Target, Verdicts};

impl<A: Appliers> Task<A> {
    /// Withdraws, then changes the kernel and the dataplane, then advertises.
    pub(super) async fn reconcile(&mut self) -> Result<(), String> {
        if !self.configured.as_ref().is_some_and(|told| told.is_copy_of(&self.resources)) {
            let was_drained = self.configured.take().is_some_and(|told| told.is_drained());
            if was_drained != self.resources.is_drained() {
                self.book.touch_all();
            }
            self.appliers.configure(&self.resources).await?;
            self.configured = Some(self.resources.clone());
        }
        let now = Instant::now();
        self.attached.mark_unchanged();
        let verdicts = self.verdicts.borrow_and_update().clone();
        let Touched { keys, mut addresses, targets } = self.touched(&verdicts);
        // Until the dataplane has taken the change, what is known of backends that it takes away is kept.
        self.check(&targets, |is_wanted, was_wanted| is_wanted || was_wanted);
        addresses.extend(self.observe(&addresses, &verdicts, now));

        let (announced, not) = self.to_announce(&addresses, &verdicts, now);
        self.announce(&announced, &not, false).await;
        self.route(&addresses, false).await;
        self.serve(&keys, &verdicts).await?;
        self.check(&targets, |is_wanted, _| is_wanted);
        self.route(&addresses, true).await;
        let (announced, not) = self.to_announce(&addresses, &verdicts, now);
        self.announce(&announced, &not, true).await;
        Ok(())
    }

    /// What may be other than the world has it; everything, while that is not known.
    fn touched(&mut self, verdicts: &Arc<Verdicts>) -> Touched {
        let attached = *self.attached.borrow();
        let (heard, was_attached) =
            std::mem::replace(&mut self.heard, (verdicts.clone(), attached));
        if self.applied.is_none() || attached != was_attached {
            self.book.touch_all();
        } else if !Arc::ptr_eq(&heard, verdicts) {
            let changed = |target: &&Target| {
                heard.get(*target).map(|v| v.health) != verdicts.get(*target).map(|v| v.health)
            };
            let all = heard.keys().chain(verdicts.keys().filter(|t| !heard.contains_key(*t)));
            all.filter(changed).for_each(|target| self.book.touch(target));
        }
        let mut touched = self.book.take_touched();
        if self.applied.is_none() {
            touched.addresses.extend(&self.announced);
            touched.addresses.extend(self.routed.iter().flatten());
            touched.targets.extend(self.targets.borrow().iter());
        }
        touched
    }

    fn check(&self, targets: &BTreeSet<Target>, wants: impl Fn(bool, bool) -> bool) {
        self.targets.send_if_modified(|all| {
            let differs = |target: &&Target| {
                let was_wanted = all.contains(*target);
                wants(self.book.has_target(target), was_wanted) != was_wanted
            };
            let differing: Vec<Target> = targets.iter().filter(differs).copied().collect();
            if differing.is_empty() {
                return false;
            }
            let all = Arc::make_mut(all);
            for target in differing {
                if !all.remove(&target) {
                    all.insert(target);
                }
            }
            true
        });
    }

    /// Takes the health of addresses in; of those that come back time alone may have changed something.
    fn observe(
        &mut self,
        addresses: &BTreeSet<IpAddr>,
        verdicts: &Verdicts,
        now: Instant,
    ) -> BTreeSet<IpAddr> {
        let health = addresses.iter().map(|address| {
            (*address, control::address_health(self.book.of_address(*address), verdicts))
        });
        self.damping.observe(health, now)
    }

    /// Of these addresses, those that are to be advertised and those that are not.
    fn to_announce(
        &self,
        addresses: &BTreeSet<IpAddr>,
        verdicts: &Verdicts,
        now: Instant,
    ) -> (BTreeSet<IpAddr>, BTreeSet<IpAddr>) {
        let facts = self.facts(verdicts, now);
        let is_announced = |address: &IpAddr| {
            control::is_announced(*address, self.book.of_address(*address), facts)
        };
        addresses.iter().copied().partition(is_announced)
    }

    async fn serve(
        &mut self,
        keys: &BTreeSet<ServiceKey>,
        verdicts: &Verdicts,
    ) -> Result<(), String> {
        let service = |vip: &Vip| control::service(&vip.spec, verdicts);
        let Some(mut applied) = self.applied.take() else {
            let vips = self.book.vips().values();
            let services = vips.map(|vip| (control::key(&vip.spec), service(vip))).collect();
            let table = Table { services };
            // Until the answer is there, only what was served and stays is known to be served.
            self.serving.retain(|key| table.services.contains_key(key));
            self.appliers.serve(Serve::All(table.clone())).await?;
            self.serving = table.services.keys().copied().collect();
            self.applied = Some(table);
            return Ok(());
        };
        let wanted = keys.iter().map(|key| (*key, self.book.at(key).map(service)));
        let services = wanted.filter(|(key, wanted)| applied.services.get(key) != wanted.as_ref());
        let change = Change { services: services.collect() };
        if !change.services.is_empty() {
            for (key, _) in change.services.iter().filter(|(_, service)| service.is_none()) {
                self.serving.remove(key);
            }
            self.appliers.serve(Serve::Change(change.clone())).await?;
            for (key, service) in change.services {
                match service {
                    Some(service) => {
                        self.serving.insert(key);
                        applied.services.insert(key, service);
                    }
                    None => drop(applied.services.remove(&key)),
                }
            }
        }
        self.applied = Some(applied);
        Ok(())
    }

    pub(super) fn facts<'a>(&'a self, verdicts: &'a Verdicts, now: Instant) -> Facts<'a> {
        let Self { book, serving, damping, .. } = self;
        let attached = *self.attached.borrow();
        let drained = self.resources.is_drained();
        Facts { vips: book.vips(), verdicts, attached, drained, serving, damping, now }
    }

    /// Has BGP advertise nothing.
    pub(super) async fn withdraw(&mut self) {
        let all = self.announced.clone();
        self.announce(&BTreeSet::new(), &all, false).await;
    }

    /// Has BGP no longer advertise these, and also advertise those where it is time for it.
    async fn announce(
        &mut self,
        wanted: &BTreeSet<IpAddr>,
        not: &BTreeSet<IpAddr>,
        may_come: bool,
    ) {
        let go: Vec<_> = not.iter().filter(|a| self.announced.contains(a)).collect();
        let come: Vec<_> =
            wanted.iter().filter(|a| may_come && !self.announced.contains(a)).collect();
        for address in &go {
            tracing::info!(%address, "BGP withdraws");
            self.announced.remove(*address);
        }
        for address in &come {
            tracing::info!(%address, "BGP advertises");
            self.announced.insert(**address);
        }
        if !go.is_empty() || !come.is_empty() {
            self.told.stale.extend(go.into_iter().chain(come));
            self.appliers.announce(&self.announced).await;
        }
    }

    /// Has the kernel have a route for each of these addresses that is some VIP's, and none for the others where it is time
    /// for that. What an earlier process may have told the kernel is replaced in any case.
    async fn route(&mut self, addresses: &BTreeSet<IpAddr>, may_go: bool) {
        let is_first = self.routed.is_none();
        let mut routed = self.routed.take().unwrap_or_default();
        let mut changed = false;
        for address in addresses {
            changed |= match self.book.has_address(*address) {
                true => routed.insert(*address),
                false => may_go && routed.remove(address),
            };
        }
        if changed || is_first {
            self.appliers.route(&routed).await;
        }
        self.routed = Some(routed);
    }
}
