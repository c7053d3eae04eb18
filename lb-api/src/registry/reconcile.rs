//! Making the world match: what was touched is computed anew, and of that what differs is carried out.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use lb_api_types::vip::{Health, Vip};
use lb_dataplane::table::{Change, ServiceKey, Table};

use super::task::Task;
use super::{Addresses, Appliers, Serve};
use crate::control::{self, Facts, Touched};
use crate::health::{Target, Verdict};

impl<A: Appliers> Task<A> {
    /// Withdraws, then changes the kernel and the dataplane, then advertises.
    pub(super) async fn reconcile(&mut self) -> Result<(), String> {
        let is_told = self.configured.as_ref().is_some_and(|told| told.is_copy_of(&self.resources));
        if !is_told {
            let was_withdrawn = self.configured.take().is_some_and(|told| told.is_withdrawn());
            if was_withdrawn != self.resources.is_withdrawn() {
                self.book.touch_all();
            }
            self.appliers.configure(&self.resources).await?;
            self.configured = Some(self.resources.clone());
        }
        let now = Instant::now();
        self.attached.mark_unchanged();
        let Touched { keys, mut addresses, targets } = self.touched();
        // Until the dataplane has taken the change, what is known of backends that it takes away is kept.
        self.check(&targets, |is_wanted, was_wanted| is_wanted || was_wanted);
        addresses.extend(self.observe(&addresses, now));

        let (announced, not) = self.to_announce(&addresses, now);
        self.announce(&announced, &not, false).await;
        self.announce_on_links(&addresses, now, false).await;
        self.route(&addresses, false).await;
        self.serve(&keys).await?;
        // Which backends packets reach is known only now.
        addresses.extend(self.hear_unreached());
        self.check(&targets, |is_wanted, _| is_wanted);
        self.route(&addresses, true).await;
        let (announced, not) = self.to_announce(&addresses, now);
        self.announce(&announced, &not, true).await;
        self.announce_on_links(&addresses, now, true).await;
        if !self.said_judged && control::are_judged(self.facts(now)) {
            self.said_judged = true;
            self.appliers.all_are_judged().await;
        }
        Ok(())
    }

    /// What may be other than the world has it; everything, while that is not known.
    fn touched(&mut self) -> Touched {
        let attached = *self.attached.borrow();
        let was_attached = std::mem::replace(&mut self.was_attached, attached);
        self.hear();
        if self.applied.is_none() || attached != was_attached {
            self.book.touch_all();
        }
        let mut touched = self.book.take_touched();
        touched.addresses.extend(self.hear_unreached());
        if self.applied.is_none() {
            touched.addresses.extend(&self.announced);
            touched.addresses.extend(self.on_links.keys());
            touched.addresses.extend(self.routed.iter().flatten());
            touched.targets.extend(&self.targets);
        }
        touched
    }

    /// Takes in which backends no packet reaches; the addresses of the VIPs whose backends these are or were.
    fn hear_unreached(&mut self) -> BTreeSet<IpAddr> {
        let now = self.unreached.borrow_and_update().clone();
        let before = std::mem::replace(&mut self.heard_unreached, now);
        if Arc::ptr_eq(&before, &self.heard_unreached) {
            return BTreeSet::new();
        }
        let differing = before.symmetric_difference(&self.heard_unreached);
        differing.map(|(key, _)| key.address).collect()
    }

    /// Takes in what health checks have found.
    fn hear(&mut self) {
        for (target, verdict) in self.found.take() {
            let health = |verdict: &Verdict| verdict.health;
            let after = verdict.as_ref().map(health);
            let before = match verdict {
                Some(verdict) => self.verdicts.insert(target, verdict),
                None => self.verdicts.remove(&target),
            };
            let before = before.as_ref().map(health);
            if before != after {
                self.told.healths.entry(target).or_insert(before.unwrap_or(Health::Unknown));
                self.book.touch(&target);
            }
        }
    }

    fn check(&mut self, targets: &BTreeSet<Target>, wants: impl Fn(bool, bool) -> bool) {
        let mut changes = Vec::new();
        for target in targets {
            let was_wanted = self.targets.contains(target);
            let is_wanted = wants(self.book.has_target(target), was_wanted);
            if is_wanted != was_wanted {
                changes.push((*target, is_wanted));
            }
        }
        for (target, is_wanted) in &changes {
            match is_wanted {
                true => self.targets.insert(*target),
                false => self.targets.remove(target),
            };
        }
        self.checks.tell(changes);
    }

    /// Takes the health of addresses in; of those that come back time alone may have changed something.
    fn observe(&mut self, addresses: &BTreeSet<IpAddr>, now: Instant) -> BTreeSet<IpAddr> {
        let health = addresses.iter().map(|address| {
            let here = self.book.of_address(*address);
            (*address, control::address_health(here, &self.verdicts))
        });
        self.damping.observe(health, now)
    }

    /// Of these addresses, those that are to be advertised and those that are not.
    fn to_announce(
        &self,
        addresses: &BTreeSet<IpAddr>,
        now: Instant,
    ) -> (BTreeSet<IpAddr>, BTreeSet<IpAddr>) {
        let facts = self.facts(now);
        let is_announced = |address: &IpAddr| {
            control::is_announced(*address, self.book.of_address(*address), facts)
        };
        addresses.iter().copied().partition(is_announced)
    }

    async fn serve(&mut self, keys: &BTreeSet<ServiceKey>) -> Result<(), String> {
        let verdicts = &self.verdicts;
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

    pub(super) fn facts(&self, now: Instant) -> Facts<'_> {
        let Self { book, serving, damping, verdicts, .. } = self;
        let attached = *self.attached.borrow();
        let withdrawn = self.resources.is_withdrawn();
        let unreached = &*self.heard_unreached;
        Facts { vips: book.vips(), verdicts, attached, withdrawn, serving, unreached, damping, now }
    }

    /// Has addresses announced on links where that is to be, and where it is time for it, and no longer elsewhere.
    async fn announce_on_links(
        &mut self,
        addresses: &BTreeSet<IpAddr>,
        now: Instant,
        may_come: bool,
    ) {
        let facts = self.facts(now);
        let wanted = addresses.iter().map(|address| {
            (*address, control::links_of(*address, self.book.of_address(*address), facts))
        });
        for (address, mut wanted) in wanted.collect::<Vec<_>>() {
            let told = self.on_links.remove(&address).unwrap_or_default();
            if !may_come {
                wanted = &wanted & &told;
            }
            if wanted != told {
                let on: Vec<&str> = wanted.iter().map(String::as_str).collect();
                tracing::info!(%address, on = on.join(", "), "announced on links");
                self.appliers.announce_on(address, &wanted).await;
            }
            if !wanted.is_empty() {
                self.on_links.insert(address, wanted);
            }
        }
    }

    /// Has BGP advertise nothing, and links hear of nothing.
    pub(super) async fn withdraw(&mut self) {
        self.mend().await;
        let all = self.announced.clone();
        self.announce(&BTreeSet::new(), &all, false).await;
        for address in std::mem::take(&mut self.on_links).into_keys() {
            self.appliers.announce_on(address, &BTreeSet::new()).await;
        }
    }

    /// Has BGP no longer advertise these, and also advertise those where it is time for it.
    async fn announce(
        &mut self,
        wanted: &BTreeSet<IpAddr>,
        not: &BTreeSet<IpAddr>,
        may_come: bool,
    ) {
        let go: Vec<IpAddr> = not.intersection(&self.announced).copied().collect();
        let come: Vec<IpAddr> = match may_come {
            true => wanted.difference(&self.announced).copied().collect(),
            false => Vec::new(),
        };
        for address in &go {
            tracing::info!(%address, "BGP withdraws");
            self.announced.remove(address);
        }
        for address in &come {
            tracing::info!(%address, "BGP advertises");
            self.announced.insert(*address);
        }
        if !go.is_empty() || !come.is_empty() {
            self.told.stale.extend(go.iter().chain(&come));
            self.appliers.announce(Addresses::Change { come: &come, go: &go }).await;
        }
    }

    /// Has the kernel have a route for each of these addresses that is some VIP's, and none for the others where it is time
    /// for that. What an earlier process may have told the kernel is replaced in any case.
    async fn route(&mut self, addresses: &BTreeSet<IpAddr>, may_go: bool) {
        let is_first = self.routed.is_none();
        let routed = self.routed.get_or_insert_default();
        let (mut come, mut go) = (Vec::new(), Vec::new());
        for address in addresses {
            match self.book.has_address(*address) {
                true if routed.insert(*address) => come.push(*address),
                false if may_go && routed.remove(address) => go.push(*address),
                true | false => {}
            }
        }
        let (come, go) = (&come[..], &go[..]);
        if is_first {
            self.appliers.route(Addresses::All(routed)).await;
        } else if !come.is_empty() || !go.is_empty() {
            self.appliers.route(Addresses::Change { come, go }).await;
        }
    }
}
