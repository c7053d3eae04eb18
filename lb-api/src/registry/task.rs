//! The task that owns the VIPs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_api_types::vip::{BackendStatus, Vip, VipStatus};
use lb_dataplane::ServiceCounters;
use lb_dataplane::table::{ServiceKey, Table};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::{Applied, Appliers, Command, Refusal, Start, clash, protocol_name};
use crate::control::{self, Damping, Desired, Facts, Vips};
use crate::health::{Target, Verdicts};
use crate::store::Store;
use crate::vip::MAX_VIPS;

/// How often what time changes (damping) or what failed is looked at again.
const TICK: Duration = Duration::from_secs(1);

pub(super) struct Task<A> {
    /// All that are served.
    vips: Vips,
    /// Names of those that the file says.
    from_file: BTreeSet<String>,
    /// Kept VIPs that clash with the file's: not served, and not lost either.
    shadowed: Vec<Vip>,
    store: Arc<Store>,
    damping: Damping,
    attached: watch::Receiver<bool>,
    verdicts: watch::Receiver<Arc<Verdicts>>,
    targets: watch::Sender<Arc<BTreeSet<Target>>>,
    commands: mpsc::Receiver<Command>,
    appliers: A,
    /// What the dataplane was told last; `None` while that is not known.
    applied: Option<Table>,
    /// What the dataplane has confirmed.
    serving: BTreeSet<ServiceKey>,
    announced: BTreeSet<Ipv4Addr>,
    /// What the kernel was told last; `None` at the start, when an earlier process may have told it anything.
    routed: Option<BTreeSet<Ipv4Addr>>,
    /// The last failure, so that it is logged once.
    failure: Option<String>,
}

impl<A: Appliers> Task<A> {
    pub(super) fn new(
        start: Start,
        appliers: A,
        commands: mpsc::Receiver<Command>,
    ) -> (Self, Vec<String>) {
        let by_name = |vip: Vip| (vip.metadata.name.clone(), vip);
        let mut vips: Vips = start.file.into_iter().map(by_name).collect();
        let from_file = vips.keys().cloned().collect();
        let (mut shadowed, mut warnings) = (Vec::new(), Vec::new());
        for vip in start.kept {
            let name = &vip.metadata.name;
            let other = vips.get(name).or_else(|| clash(&vips, &vip));
            if let Some(other) = other {
                warnings.push(format!(
                    "VIP {name} made over REST is not served, because VIP {} of the configuration file has its name or its address and port",
                    other.metadata.name
                ));
                shadowed.push(vip);
            } else {
                vips.insert(name.clone(), vip);
            }
        }
        let task = Self {
            vips,
            from_file,
            shadowed,
            store: Arc::new(start.store),
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
        };
        (task, warnings)
    }

    /// Until every [`super::Registry`] is gone or told to withdraw.
    pub(super) async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
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
                Ok(()) = self.verdicts.changed() => self.follow().await,
                Ok(()) = self.attached.changed() => self.follow().await,
                _ = tick.tick() => self.follow().await,
            }
        }
    }

    async fn carry_out(&mut self, command: Command) {
        // A caller that did not wait for its answer wants none.
        match command {
            Command::List(answer) => {
                let _gone = answer.send(self.list().await);
            }
            Command::Get(name, answer) => {
                let found = self.list().await.into_iter().find(|vip| vip.metadata.name == name);
                let _gone = answer.send(found);
            }
            Command::Put(vip, answer) => {
                let _gone = answer.send(self.put(*vip).await);
            }
            Command::Delete(name, answer) => {
                let _gone = answer.send(self.delete(&name).await);
            }
            Command::Withdraw(answer) => drop(answer),
        }
    }

    async fn put(&mut self, vip: Vip) -> Result<Applied, Refusal> {
        let name = vip.metadata.name.clone();
        if self.from_file.contains(&name) {
            return Err(Refusal::FromFile(name));
        }
        if let Some(other) = clash(&self.vips, &vip) {
            return Err(Refusal::Duplicate {
                other: other.metadata.name.clone(),
                address: vip.spec.address,
                port: vip.spec.port,
                protocol: protocol_name(vip.spec.protocol),
            });
        }
        let created = !self.vips.contains_key(&name);
        if created && self.vips.len() >= MAX_VIPS {
            return Err(Refusal::TooMany(self.vips.len()));
        }
        let mut vips = self.vips.clone();
        vips.insert(name.clone(), Vip { status: None, ..vip });
        if vips != self.vips {
            self.change(vips).await?;
            tracing::info!(vip = name, created, "VIP applied");
        }
        let vip = self.list().await.into_iter().find(|vip| vip.metadata.name == name);
        Ok(Applied { vip: vip.ok_or(Refusal::Unknown(name))?, created })
    }

    async fn delete(&mut self, name: &str) -> Result<(), Refusal> {
        if self.from_file.contains(name) {
            return Err(Refusal::FromFile(name.to_owned()));
        }
        let mut vips = self.vips.clone();
        if vips.remove(name).is_none() {
            return Err(Refusal::Unknown(name.to_owned()));
        }
        self.change(vips).await?;
        tracing::info!(vip = name, "VIP removed");
        Ok(())
    }

    /// All or nothing: when the dataplane or the disk refuses, everything is as it was.
    async fn change(&mut self, vips: Vips) -> Result<(), Refusal> {
        let before = std::mem::replace(&mut self.vips, vips);
        let refusal = match self.reconcile().await {
            Err(why) => Refusal::Dataplane(why),
            Ok(()) => match self.save().await {
                Err(why) => Refusal::Store(why),
                Ok(()) => return Ok(()),
            },
        };
        self.vips = before;
        if let Err(why) = self.reconcile().await {
            tracing::error!(why, "the dataplane refuses what it served before");
        }
        Err(refusal)
    }

    async fn save(&mut self) -> Result<(), String> {
        let ours = |(name, _): &(&String, &Vip)| !self.from_file.contains(*name);
        let kept = self.vips.iter().filter(ours).map(|(_, vip)| vip);
        let kept: Vec<Vip> = kept.chain(&self.shadowed).cloned().collect();
        let store = Arc::clone(&self.store);
        let saved = tokio::task::spawn_blocking(move || {
            store.save(&kept.iter().collect::<Vec<_>>()).map_err(|error| error.to_string())
        });
        saved.await.map_err(|error| error.to_string())?
    }

    /// Lets the world follow what changed of itself; a failure is logged once and tried again with every tick.
    async fn follow(&mut self) {
        match self.reconcile().await {
            Ok(()) => self.failure = None,
            Err(why) if self.failure.as_ref() == Some(&why) => {}
            Err(why) => {
                tracing::error!(why, "the dataplane refuses the service table");
                self.failure = Some(why);
            }
        }
    }

    /// Makes the world match: withdraws, then changes the kernel and the dataplane, then advertises.
    pub(super) async fn reconcile(&mut self) -> Result<(), String> {
        let now = Instant::now();
        let wanted = control::targets(&self.vips);
        self.targets.send_if_modified(|targets| {
            let changed = **targets != wanted;
            if changed {
                *targets = Arc::new(wanted);
            }
            changed
        });
        self.attached.mark_unchanged();
        let verdicts = self.verdicts.borrow_and_update().clone();
        self.damping.observe(&control::address_health(&self.vips, &verdicts), now);

        let Desired { table, addresses, announced, .. } = self.desired(&verdicts, now);
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
        self.route(addresses).await;
        let announced = self.desired(&verdicts, now).announced;
        self.announce(announced).await;
        Ok(())
    }

    fn desired(&self, verdicts: &Verdicts, now: Instant) -> Desired {
        let Self { vips, serving, damping, .. } = self;
        let attached = *self.attached.borrow();
        control::desired(Facts { vips, verdicts, attached, serving, damping, now })
    }

    async fn announce(&mut self, addresses: BTreeSet<Ipv4Addr>) {
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

    async fn route(&mut self, addresses: BTreeSet<Ipv4Addr>) {
        if self.routed.as_ref() != Some(&addresses) {
            self.appliers.route(&addresses).await;
            self.routed = Some(addresses);
        }
    }

    async fn list(&mut self) -> Vec<Vip> {
        let counters = self.appliers.counters().await;
        let verdicts = self.verdicts.borrow().clone();
        let messages = self.desired(&verdicts, Instant::now()).messages;
        let with_status = |vip: &Vip| {
            let status = self.status(vip, &messages, &verdicts, &counters);
            Vip { status: Some(status), ..vip.clone() }
        };
        self.vips.values().map(with_status).collect()
    }

    fn status(
        &self,
        vip: &Vip,
        messages: &BTreeMap<String, String>,
        verdicts: &Verdicts,
        counters: &ServiceCounters,
    ) -> VipStatus {
        let key = control::key(&vip.spec);
        let count = counters.get(&key).cloned().unwrap_or_default();
        let backends = vip.spec.backends.iter().map(|backend| {
            let verdict = control::verdict(&vip.spec, backend, verdicts);
            let here = |count: &&lb_dataplane::BackendCount| {
                (count.address, count.port) == (backend.address, backend.port)
            };
            let count = count.backends.iter().find(here);
            BackendStatus {
                address: backend.address,
                port: backend.port,
                health: verdict.health,
                message: verdict.message,
                packets: count.map_or(0, |count| count.packets),
                flows: count.map_or(0, |count| count.flows),
            }
        });
        let advertised =
            self.announced.iter().any(|address| vip.spec.address == std::net::IpAddr::V4(*address));
        VipStatus {
            serving: *self.attached.borrow() && self.serving.contains(&key),
            advertised,
            message: messages.get(&vip.metadata.name).cloned().unwrap_or_default(),
            backends: backends.collect(),
            packets: count.packets,
            bytes: count.bytes,
            flows: count.flows,
        }
    }
}
