//! The task that owns the VIPs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lb_api_types::bgp::Global;
use lb_api_types::event::EventKind;
use lb_api_types::view::ChangeKind;
use lb_api_types::vip::Vip;
use lb_dataplane::table::{ServiceKey, Table};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::admit;
use super::confirm::Pending;
use super::tell::Known;
use super::{Appliers, Command, Start};
use crate::access::Audit;
use crate::control::{Book, Damping, Unreached};
use crate::delta;
use crate::events::Events;
use crate::health::{Target, Verdict, Verdicts};
use crate::resources::{self, Key, Resources, Started};
use crate::store::{Store, StoreError};

/// How often what time changes (damping) or what failed is looked at again.
const TICK: Duration = Duration::from_secs(1);
/// How often what resources name, and stands elsewhere, is looked at: neighbours' keys.
const LOOK: Duration = Duration::from_secs(5);

/// VIPs by name, as they are to be or as they were: `None` where there is none.
pub(super) type Changed = BTreeMap<String, Option<Vip>>;

pub(super) struct Task<A> {
    /// All that are served.
    pub(super) book: Book,
    /// Names of those that the file says.
    pub(super) from_file: BTreeSet<String>,
    /// Kept VIPs that clash with the file's: not served, and not lost either.
    pub(super) shadowed: Vec<Vip>,
    /// All beside VIPs.
    pub(super) resources: Resources,
    /// Those of them that the file says.
    pub(super) file_resources: BTreeSet<Key>,
    /// What the file says of BGP as a whole.
    pub(super) global: Option<Global>,
    /// Kept ones that the file says, too: they don't count, and are not lost either.
    pub(super) shadowed_resources: Resources,
    /// What the appliers were told of them last.
    pub(super) configured: Option<Resources>,
    /// What is said of VIPs that name what is not there.
    incomplete: BTreeMap<String, String>,
    /// What is said of all of them.
    warnings: watch::Sender<Vec<String>>,
    pub(super) store: Arc<Store>,
    /// The last that was given to a VIP.
    pub(super) revision: u64,
    pub(super) damping: Damping,
    pub(super) attached: watch::Receiver<bool>,
    pub(super) unreached: watch::Receiver<Arc<Unreached>>,
    /// What of that the last reconciliation went by.
    pub(super) heard_unreached: Arc<Unreached>,
    /// What health checks have found.
    pub(super) verdicts: Verdicts,
    pub(super) found: delta::Receiver<Target, Option<Verdict>>,
    /// What is checked.
    pub(super) targets: BTreeSet<Target>,
    pub(super) checks: delta::Sender<Target, bool>,
    commands: mpsc::Receiver<Command>,
    pub(super) appliers: A,
    /// What the dataplane was told last; `None` while that is not known.
    pub(super) applied: Option<Table>,
    /// What of the attachment the last reconciliation went by.
    pub(super) was_attached: bool,
    /// What the dataplane has confirmed.
    pub(super) serving: BTreeSet<ServiceKey>,
    pub(super) announced: BTreeSet<IpAddr>,
    /// It was said that every VIP is judged.
    pub(super) said_judged: bool,
    /// Where addresses are announced on links.
    pub(super) on_links: BTreeMap<IpAddr, BTreeSet<String>>,
    /// What the kernel was told last; `None` at the start, when an earlier process may have told it anything.
    pub(super) routed: Option<BTreeSet<IpAddr>>,
    /// The last failure, so that it is logged once.
    failure: Option<String>,
    /// Why a change that was refused cannot be taken out of the state folder.
    unkept: Option<String>,
    pub(super) events: Events,
    audit: Arc<Audit>,
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
        let global = start.file_resources.global().cloned();
        let Started { all: resources, of_file: file_resources, shadowed: shadowed_resources } =
            resources::started(&start.file_resources, &start.kept_resources);
        let mut book = Book::default();
        let mut from_file = BTreeSet::new();
        for mut vip in start.file {
            let name = vip.metadata.name.clone();
            admit::resume(&mut vip, &resources);
            book.set(&name, Some(vip));
            from_file.insert(name);
        }
        let mut shadowed = Vec::new();
        for mut vip in start.kept {
            let name = vip.metadata.name.clone();
            if book.vips().contains_key(&name)
                || book.clash(&vip).is_some()
                || book.sharing(&vip).next().is_some()
            {
                shadowed.push(vip);
            } else {
                admit::resume(&mut vip, &resources);
                book.set(&name, Some(vip));
            }
        }
        let incomplete = admit::incomplete(book.vips().values(), &resources);
        let (warnings, warned) = watch::channel(said(&shadowed, &incomplete));
        let task = Self {
            book,
            from_file,
            shadowed,
            resources,
            file_resources,
            global,
            shadowed_resources,
            configured: None,
            incomplete,
            warnings,
            store: Arc::new(start.store),
            revision: start.revision,
            damping: Damping::default(),
            attached: start.attached,
            unreached: start.unreached,
            heard_unreached: Arc::default(),
            verdicts: Verdicts::new(),
            found: start.verdicts,
            targets: BTreeSet::new(),
            checks: start.targets,
            commands,
            appliers,
            applied: None,
            was_attached: false,
            serving: BTreeSet::new(),
            announced: BTreeSet::new(),
            said_judged: false,
            on_links: BTreeMap::new(),
            routed: None,
            failure: None,
            unkept: None,
            events: start.events,
            audit: start.audit,
            told: Known::default(),
            pending: None,
        };
        (task, warned)
    }

    /// Until every [`super::Registry`] is gone or told to withdraw, or health or attachments are no longer known.
    pub(super) async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let confirm_until = self.pending.as_ref().map(|pending| pending.until);
            tokio::select! {
                command = self.commands.recv() => match command {
                    None => return,
                    Some(Command::Withdraw(answer)) => {
                        self.withdraw().await;
                        let _gone = answer.send(());
                        return;
                    }
                    Some(command) => self.carry_out(command).await,
                },
                found = self.found.changed() => match found {
                    Ok(()) => self.follow().await,
                    Err(_) => return tracing::error!("health checks have ended"),
                },
                changed = self.unreached.changed() => match changed {
                    Ok(()) => self.follow().await,
                    Err(_) => return tracing::error!("routes to backends are no longer followed"),
                },
                changed = self.attached.changed() => match changed {
                    Ok(()) => self.follow().await,
                    Err(_) => return tracing::error!("interfaces are no longer followed"),
                },
                () = sleep_until(confirm_until.unwrap_or_else(Instant::now)), if confirm_until.is_some() => {
                    self.not_confirmed().await;
                }
                _ = look.tick() => if self.appliers.has_news() {
                    self.configured = None;
                    self.follow().await;
                },
                _ = tick.tick(), if self.is_unsettled() => {
                    if !self.appliers.is_settled() && self.appliers.could_do_more() {
                        self.configured = None;
                    }
                    self.follow().await;
                }
            }
        }
    }

    /// Nobody has asked for this one: it is written down here.
    async fn not_confirmed(&mut self) {
        let why = "it was not confirmed in time";
        let undone = self.revision;
        let changes = self.roll_back(why).await;
        let touched = changes.iter().filter(|it| it.change != ChangeKind::Unchanged).count();
        self.audit.record_own(&format!(
            "configuration of revision {undone} rolled back: {why}; {touched} resources changed"
        ));
    }

    /// Whether time alone may change something.
    fn is_unsettled(&self) -> bool {
        let is_settled = self.damping.is_settled() && !self.store.is_spoilt();
        let is_settled = is_settled && self.appliers.is_settled();
        self.applied.is_none() || self.failure.is_some() || self.unkept.is_some() || !is_settled
    }

    async fn carry_out(&mut self, command: Command) {
        // A caller that did not wait for its answer wants none.
        match command {
            Command::List(answer) => {
                let _gone = answer.send(self.list().await);
            }
            Command::FirstUnserved(answer) => {
                let _gone = answer.send(self.first_unserved());
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
            Command::ListResources(kind, answer) => {
                let _gone = answer.send(self.list_resources(kind));
            }
            Command::GetResource(key, answer) => {
                let _gone = answer.send(self.get_resource(&key));
            }
            Command::PutResource(resource, terms, answer) => {
                let _gone = answer.send(self.put_resource(*resource, terms).await);
            }
            Command::DeleteResource(key, terms, answer) => {
                let _gone = answer.send(self.delete_resource(&key, terms).await);
            }
            Command::Running(answer) => {
                let _gone = answer.send(self.running());
            }
            Command::Apply(documents, terms, answer) => {
                let _gone = answer.send(self.apply(documents, terms).await);
            }
            Command::Confirm(answer) => {
                let _gone = answer.send(self.confirm().await);
            }
            Command::Rollback(to, terms, answer) => {
                let _gone = answer.send(self.rollback(to, terms).await);
            }
            Command::History(answer) => self.history(answer),
            Command::Withdraw(answer) => drop(answer),
            #[cfg(test)]
            Command::Follow(answer) => {
                self.follow().await;
                let _gone = answer.send(());
            }
        }
    }

    /// Takes out of the state folder what was refused and is still there.
    pub(super) async fn mend(&mut self) {
        if !self.store.is_spoilt() && self.unkept.is_none() {
            return;
        }
        let mended = blocking(&self.store, Store::mend).await;
        let unkept = mended.err().map(|why| {
            format!("a change that was refused may be there after a restart: {why}; repair the disk before lbd is stopped")
        });
        if unkept != self.unkept {
            if let Some(said) = &unkept {
                tracing::error!("{said}");
            }
            self.unkept = unkept;
            self.say();
        }
    }

    /// What of the configuration is not carried out, or not kept.
    pub(super) fn said(&self) -> Vec<String> {
        let mut said = said(&self.shadowed, &self.incomplete);
        said.extend(self.unkept.clone());
        said
    }

    fn say(&self) {
        let said = self.said();
        self.warnings.send_if_modified(|old| std::mem::replace(old, said.clone()) != said);
    }

    /// Says what is not served or lacks something, of which these VIPs may be others than they were; all of them where
    /// something else changed.
    pub(super) fn say_shadowed(&mut self, changed: &Changed, all: bool) {
        if all {
            self.incomplete = admit::incomplete(self.book.vips().values(), &self.resources);
        } else {
            for name in changed.keys() {
                self.incomplete.remove(name);
            }
            let vips = changed.keys().filter_map(|name| self.book.vips().get(name));
            self.incomplete.extend(admit::incomplete(vips, &self.resources));
        }
        self.say();
    }

    /// Lets the world follow what changed of itself; a failure is logged once and tried again with every tick.
    pub(super) async fn follow(&mut self) {
        self.mend().await;
        match self.reconcile().await {
            Ok(()) => self.failure = None,
            Err(why) if self.failure.as_ref() == Some(&why) => {}
            Err(why) => {
                tracing::error!(why, "the dataplane refuses the service table");
                self.events.tell(EventKind::DataplaneRefuses, "", why.clone());
                self.failure = Some(why);
            }
        }
        self.tell_of_state(&Changed::new());
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

fn said(shadowed: &[Vip], incomplete: &BTreeMap<String, String>) -> Vec<String> {
    shadows(shadowed).into_iter().chain(incomplete.values().cloned()).collect()
}

/// What is said of kept VIPs that are not served.
fn shadows(shadowed: &[Vip]) -> Vec<String> {
    let sentence = |vip: &Vip| {
        let name = &vip.metadata.name;
        format!(
            "VIP {name} made over REST is not served, because a VIP of the configuration file has its name, its address and port, or a backend that one of both is to have alone: take it out of the file, or the one of REST away with `lbctl delete vip {name}`"
        )
    };
    shadowed.iter().map(sentence).collect()
}
