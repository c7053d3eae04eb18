//! The task that owns the VIPs.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lb_api_types::event::EventKind;
use lb_api_types::vip::Vip;
use lb_dataplane::table::{ServiceKey, Table};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::confirm::Pending;
use super::tell::Known;
use super::{Applied, Appliers, Command, Expected, Refusal, Start, Terms, clash, protocol_name};
use crate::control::{self, Damping, Desired, Facts, Vips};
use crate::events::Events;
use crate::health::{Target, Verdicts};
use crate::store::{Prepared, Store, StoreError};
use crate::vip::MAX_VIPS;

/// How often what time changes (damping) or what failed is looked at again.
const TICK: Duration = Duration::from_secs(1);

pub(super) struct Task<A> {
    /// All that are served.
    pub(super) vips: Vips,
    /// Names of those that the file says.
    pub(super) from_file: BTreeSet<String>,
    /// Kept VIPs that clash with the file's: not served, and not lost either.
    pub(super) shadowed: Vec<Vip>,
    /// What is said of them.
    warnings: watch::Sender<Vec<String>>,
    pub(super) store: Arc<Store>,
    /// The last that was given to a VIP.
    pub(super) revision: u64,
    damping: Damping,
    pub(super) attached: watch::Receiver<bool>,
    pub(super) verdicts: watch::Receiver<Arc<Verdicts>>,
    targets: watch::Sender<Arc<BTreeSet<Target>>>,
    commands: mpsc::Receiver<Command>,
    pub(super) appliers: A,
    /// What the dataplane was told last; `None` while that is not known.
    applied: Option<Table>,
    /// What the dataplane has confirmed.
    pub(super) serving: BTreeSet<ServiceKey>,
    pub(super) announced: BTreeSet<IpAddr>,
    /// What the kernel was told last; `None` at the start, when an earlier process may have told it anything.
    routed: Option<BTreeSet<IpAddr>>,
    /// The last failure, so that it is logged once.
    failure: Option<String>,
    pub(super) events: Events,
    /// What watchers know.
    pub(super) told: Known,
    /// What waits to be confirmed; nothing else changes meanwhile.
    pub(super) pending: Option<Pending>,
}

impl<A: Appliers> Task<A> {
    pub(super) fn new(
        start: Start,
        appliers: A,
        commands: mpsc::Receiver<Command>,
    ) -> (Self, watch::Receiver<Vec<String>>) {
        let by_name = |vip: Vip| (vip.metadata.name.clone(), vip);
        let mut vips: Vips = start.file.into_iter().map(by_name).collect();
        let from_file = vips.keys().cloned().collect();
        let mut shadowed = Vec::new();
        for vip in start.kept {
            let name = &vip.metadata.name;
            if vips.contains_key(name) || clash(&vips, &vip).is_some() {
                shadowed.push(vip);
            } else {
                vips.insert(name.clone(), vip);
            }
        }
        let (warnings, warned) = watch::channel(shadows(&shadowed));
        let task = Self {
            vips,
            from_file,
            shadowed,
            warnings,
            store: Arc::new(start.store),
            revision: start.revision,
            damping: Damping::default(),
            attached: start.attached,
            verdicts: start.verdicts,
            targets: start.targets,
            commands,
            appliers,
            applied: None,
            serving: BTreeSet::new(),
            announced: BTreeSet::new(),
            routed: None,
            failure: None,
            events: start.events,
            told: Known::default(),
            pending: None,
        };
        (task, warned)
    }

    /// Until every [`super::Registry`] is gone or told to withdraw, or health or attachments are no longer known.
    pub(super) async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let confirm_until = self.pending.as_ref().map(|pending| pending.until);
            tokio::select! {
                command = self.commands.recv() => match command {
                    None => return,
                    Some(Command::Withdraw(answer)) => {
                        self.announce(BTreeSet::new()).await;
                        let _gone = answer.send(());
                        return;
                    }
                    Some(command) => self.carry_out(command).await,
                },
                changed = self.verdicts.changed() => match changed {
                    Ok(()) => self.follow().await,
                    Err(_) => return tracing::error!("health checks have ended"),
                },
                changed = self.attached.changed() => match changed {
                    Ok(()) => self.follow().await,
                    Err(_) => return tracing::error!("interfaces are no longer followed"),
                },
                () = sleep_until(confirm_until.unwrap_or_else(Instant::now)), if confirm_until.is_some() => {
                    self.roll_back("it was not confirmed in time").await;
                }
                _ = tick.tick(), if self.is_unsettled() => self.follow().await,
            }
        }
    }

    /// Whether time alone may change something.
    fn is_unsettled(&self) -> bool {
        self.applied.is_none() || self.failure.is_some() || !self.damping.is_settled()
    }

    async fn carry_out(&mut self, command: Command) {
        // A caller that did not wait for its answer wants none.
        match command {
            Command::List(answer) => {
                let _gone = answer.send(self.list().await);
            }
            Command::Get(name, answer) => {
                let _gone = answer.send(self.get(&name).await);
            }
            Command::Put(vip, terms, answer) => {
                let _gone = answer.send(self.put(*vip, terms).await);
            }
            Command::Delete(name, terms, answer) => {
                let _gone = answer.send(self.delete(&name, terms).await);
            }
            Command::Apply(vips, terms, answer) => {
                let _gone = answer.send(self.apply(vips, terms).await);
            }
            Command::Confirm(answer) => {
                let _gone = answer.send(self.confirm().await);
            }
            Command::Rollback(to, dry_run, answer) => {
                let _gone = answer.send(self.rollback(to, dry_run).await);
            }
            Command::History(answer) => {
                let _gone = answer.send(self.history().await);
            }
            Command::Withdraw(answer) => drop(answer),
        }
    }

    async fn put(&mut self, mut vip: Vip, terms: Terms) -> Result<Applied, Refusal> {
        let name = vip.metadata.name.clone();
        if self.from_file.contains(&name) {
            return Err(Refusal::FromFile(name));
        }
        let old = self.vips.get(&name);
        expect(&name, old, terms.expected)?;
        if let Some(revision) = vip.metadata.revision {
            expect(&name, old, Expected::Revision(revision))?;
        }
        if let Some(other) = clash(&self.vips, &vip) {
            return Err(Refusal::Duplicate {
                other: other.metadata.name.clone(),
                address: vip.spec.address,
                port: vip.spec.port,
                protocol: protocol_name(vip.spec.protocol),
            });
        }
        let created = old.is_none();
        if created && self.vips.len() + self.shadowed.len() >= MAX_VIPS {
            return Err(Refusal::TooMany(self.vips.len() + self.shadowed.len()));
        }
        let changed = old.is_none_or(|old| old.spec != vip.spec);
        vip.status = None;
        vip.metadata.revision = match old.filter(|_| !changed) {
            Some(old) => old.metadata.revision,
            None => Some(self.revision + 1),
        };
        if terms.dry_run {
            return Ok(Applied { vip, created });
        }
        if changed {
            let mut vips = self.vips.clone();
            vips.insert(name.clone(), vip);
            self.change(vips, &[name.clone()].into(), None).await?;
            tracing::info!(vip = name, created, "VIP applied");
        }
        let vip = self.get(&name).await;
        Ok(Applied { vip: vip.ok_or(Refusal::Unknown(name))?, created })
    }

    async fn delete(&mut self, name: &str, terms: Terms) -> Result<(), Refusal> {
        if self.from_file.contains(name) {
            return Err(Refusal::FromFile(name.to_owned()));
        }
        let shadowed = self.shadowed.iter().find(|vip| vip.metadata.name == name);
        let Some(old) = self.vips.get(name).or(shadowed) else {
            return Err(Refusal::Unknown(name.to_owned()));
        };
        expect(name, Some(old), terms.expected)?;
        if terms.dry_run {
            return Ok(());
        }
        let mut vips = self.vips.clone();
        vips.remove(name);
        self.change(vips, &[name.to_owned()].into(), None).await?;
        tracing::info!(vip = name, "VIP removed");
        Ok(())
    }

    /// All or nothing: when the dataplane or the disk refuses, everything is as it was. The disk is asked first, so that
    /// a full one disturbs no traffic. Kept VIPs of these names that are not served give way. What has to be confirmed is
    /// not kept until it is: a crash rolls it back, too.
    pub(super) async fn change(
        &mut self,
        vips: Vips,
        names: &BTreeSet<String>,
        confirm_within: Option<Duration>,
    ) -> Result<(), Refusal> {
        self.nothing_waits()?;
        let shadowed = std::mem::take(&mut self.shadowed).into_iter();
        let (go, stay): (Vec<_>, Vec<_>) =
            shadowed.partition(|vip| names.contains(&vip.metadata.name));
        self.shadowed = stay;
        let before = std::mem::replace(&mut self.vips, vips);
        match self.try_change(confirm_within.is_none()).await {
            Ok(prepared) => {
                self.revision += 1;
                self.say_shadowed();
                self.tell_of_vips(&before, names);
                self.tell_of_state(&before);
                if let (Some(prepared), Some(within)) = (prepared, confirm_within) {
                    let until = Instant::now() + within;
                    let names = names.clone();
                    self.pending = Some(Pending { before, shadowed: go, names, prepared, until });
                }
                Ok(())
            }
            Err(refusal) => {
                self.vips = before;
                self.shadowed.extend(go);
                if !matches!(refusal, Refusal::NotWritten(_))
                    && let Err(why) = self.reconcile().await
                {
                    tracing::error!(why, "the dataplane refuses what it served before");
                }
                Err(refusal)
            }
        }
    }

    /// What was prepared comes back unless it is to be kept at once.
    async fn try_change(&mut self, keep: bool) -> Result<Option<Prepared>, Refusal> {
        let ours = |(name, _): &(&String, &Vip)| !self.from_file.contains(*name);
        let kept = self.vips.iter().filter(ours).map(|(_, vip)| vip);
        let kept: Vec<Vip> = kept.chain(&self.shadowed).cloned().collect();
        let revision = self.revision + 1;
        let prepare =
            move |store: &Store| store.prepare(revision, &kept.iter().collect::<Vec<_>>());
        let prepared = blocking(&self.store, prepare).await.map_err(Refusal::NotWritten)?;
        self.reconcile().await.map_err(Refusal::Dataplane)?;
        if !keep {
            return Ok(Some(prepared));
        }
        let commit = move |store: &Store| store.commit(prepared);
        blocking(&self.store, commit).await.map_err(Refusal::Store).map(|()| None)
    }

    pub(super) fn say_shadowed(&self) {
        let said = shadows(&self.shadowed);
        self.warnings.send_if_modified(|old| std::mem::replace(old, said.clone()) != said);
    }

    /// Lets the world follow what changed of itself; a failure is logged once and tried again with every tick.
    pub(super) async fn follow(&mut self) {
        match self.reconcile().await {
            Ok(()) => self.failure = None,
            Err(why) if self.failure.as_ref() == Some(&why) => {}
            Err(why) => {
                tracing::error!(why, "the dataplane refuses the service table");
                self.events.tell(EventKind::DataplaneRefuses, "", why.clone());
                self.failure = Some(why);
            }
        }
        self.tell_of_state(&Vips::new());
    }

    /// Makes the world match: withdraws, then changes the kernel and the dataplane, then advertises.
    pub(super) async fn reconcile(&mut self) -> Result<(), String> {
        let now = std::time::Instant::now();
        let wanted = control::targets(&self.vips);
        // Until the dataplane has taken the change, what is known of backends that it takes away is kept.
        let with_before = wanted.union(&self.targets.borrow()).copied().collect();
        self.check(with_before);
        self.attached.mark_unchanged();
        let verdicts = self.verdicts.borrow_and_update().clone();
        self.damping.observe(&control::address_health(&self.vips, &verdicts), now);

        let Desired { table, addresses, announced } = control::desired(self.facts(&verdicts, now));
        self.announce(self.announced.intersection(&announced).copied().collect()).await;
        let before = self.routed.clone().unwrap_or_default();
        self.route(before.union(&addresses).copied().collect()).await;
        if self.applied.as_ref() != Some(&table) {
            let keys: BTreeSet<_> = table.services.keys().copied().collect();
            // Until the answer is there, only what was served and stays is known to be served.
            self.serving.retain(|key| keys.contains(key));
            self.applied = None;
            self.appliers.serve(table.clone()).await?;
            self.serving = keys;
            self.applied = Some(table);
        }
        self.check(wanted);
        self.route(addresses).await;
        let announced = control::announced(self.facts(&verdicts, now));
        self.announce(announced).await;
        Ok(())
    }

    fn check(&self, wanted: BTreeSet<Target>) {
        self.targets.send_if_modified(|targets| {
            let changed = **targets != wanted;
            if changed {
                *targets = Arc::new(wanted);
            }
            changed
        });
    }

    pub(super) fn facts<'a>(
        &'a self,
        verdicts: &'a Verdicts,
        now: std::time::Instant,
    ) -> Facts<'a> {
        let Self { vips, serving, damping, .. } = self;
        let attached = *self.attached.borrow();
        Facts { vips, verdicts, attached, serving, damping, now }
    }

    async fn announce(&mut self, addresses: BTreeSet<IpAddr>) {
        if addresses == self.announced {
            return;
        }
        for address in self.announced.difference(&addresses) {
            tracing::info!(%address, "BGP withdraws");
        }
        for address in addresses.difference(&self.announced) {
            tracing::info!(%address, "BGP advertises");
        }
        self.appliers.announce(&addresses).await;
        self.announced = addresses;
    }

    async fn route(&mut self, addresses: BTreeSet<IpAddr>) {
        if self.routed.as_ref() != Some(&addresses) {
            self.appliers.route(&addresses).await;
            self.routed = Some(addresses);
        }
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    store: &Arc<Store>,
    work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, String> {
    let store = Arc::clone(store);
    let done = tokio::task::spawn_blocking(move || work(&store));
    let done = done.await.map_err(|error| error.to_string())?;
    done.map_err(|error| error.to_string())
}

pub(super) fn expect(name: &str, old: Option<&Vip>, expected: Expected) -> Result<(), Refusal> {
    let name = || name.to_owned();
    match (expected, old) {
        (Expected::Any, _) | (Expected::Nothing, None) | (Expected::Something, Some(_)) => Ok(()),
        (Expected::Nothing, Some(_)) => Err(Refusal::Exists(name())),
        (Expected::Something | Expected::Revision(_), None) => Err(Refusal::Gone(name())),
        (Expected::Revision(expected), Some(old)) => match old.metadata.revision.unwrap_or(0) {
            found if found == expected => Ok(()),
            found => Err(Refusal::Stale { name: name(), found, expected }),
        },
    }
}

/// What is said of kept VIPs that are not served.
fn shadows(shadowed: &[Vip]) -> Vec<String> {
    let sentence = |vip: &Vip| {
        let name = &vip.metadata.name;
        format!(
            "VIP {name} made over REST is not served, because a VIP of the configuration file has its name or its address and port: take one of the two away"
        )
    };
    shadowed.iter().map(sentence).collect()
}
