//! The VIPs, and the one task that makes the world match them.
//!
//! ```text
//!   REST ─▶ Registry ─(bounded)─▶ task ── control::desired ──▶ Appliers: dataplane, kernel, BGP
//!                                  ▲  └──▶ Store
//!   health ────────── watch ───────┘
//! ```
//!
//! Invariant: whatever a [`Registry`] call has returned is in the dataplane and on the disk; after an error, neither.

mod admit;
mod apply;
mod change;
mod confirm;
mod reconcile;
mod refusal;
mod resources;
mod running;
mod status;
mod task;
mod tell;

use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lb_api_types::view::{Change, History, RunningConfig};
use lb_api_types::vip::Vip;
use lb_dataplane::ServiceCounters;
use lb_dataplane::table::{self, ServiceKey, Table};
use tokio::sync::{mpsc, oneshot, watch};

pub use self::apply::{Place, RefusedAt};
pub use self::refusal::Refusal;
use self::resources::AppliedResource;
use self::task::{Changed, Task};
use crate::access::Audit;
use crate::control::Unreached;
use crate::delta;
use crate::events::Events;
use crate::health::{Target, Verdict};
use crate::resources::{Key, Kind, Misfit, Resource, Resources};
use crate::store::Store;

/// Commands that wait at most; beyond, callers wait.
const MAX_COMMANDS: usize = 64;

/// What the desired state is applied to.
pub trait Appliers: Send + 'static {
    /// Has the dataplane serve this; the error says in one sentence why it does not.
    fn serve(&mut self, wanted: Serve) -> impl Future<Output = Result<(), String>> + Send;
    /// Has BGP advertise addresses: at first none.
    fn announce(&mut self, addresses: Addresses<'_>) -> impl Future<Output = ()> + Send;
    /// Of every VIP it is known whether its address is advertised; said once.
    fn all_are_judged(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }
    /// Has an address announced on the links of interfaces that fit these patterns, and on no others: at first on none.
    fn announce_on(
        &mut self,
        address: IpAddr,
        interfaces: &BTreeSet<String>,
    ) -> impl Future<Output = ()> + Send;
    /// Has the kernel have an unreachable route for addresses.
    fn route(&mut self, addresses: Addresses<'_>) -> impl Future<Output = ()> + Send;
    /// Whether what is new of these resources can be carried out as things are now.
    fn admit(
        &mut self,
        before: &Resources,
        after: &Resources,
    ) -> impl Future<Output = Result<(), Misfit>> + Send;
    /// Carries out what resources beside VIPs say; the error says in one sentence why not.
    fn configure(
        &mut self,
        resources: &Resources,
    ) -> impl Future<Output = Result<(), String>> + Send;
    /// Whether all that they were told of resources holds; if not, they are asked with every tick whether more can.
    fn is_settled(&self) -> bool {
        true
    }
    /// Whether more of what they were told of resources could hold now: then they are told again.
    fn could_do_more(&self) -> bool {
        false
    }
    /// Whether what resources name, and stands elsewhere, says something else than when they were told: then they are told
    /// again. Asked every few seconds.
    fn has_news(&self) -> bool {
        false
    }
    /// What went through the services.
    fn counters(&mut self) -> impl Future<Output = ServiceCounters> + Send;
    /// What went through one of them.
    fn counters_of(&mut self, key: ServiceKey) -> impl Future<Output = ServiceCounters> + Send;
}

/// What the dataplane is to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Serve {
    /// Exactly this, whatever it served before.
    All(Table),
    /// What it was told before, but for this.
    Change(table::Change),
}

/// Addresses of which something is to hold.
#[derive(Clone, Copy, Debug)]
pub enum Addresses<'a> {
    /// Exactly of these, whatever there was before.
    All(&'a BTreeSet<IpAddr>),
    /// Of these, too, and of those no longer.
    Change {
        /// What is new.
        come: &'a [IpAddr],
        /// What is gone.
        go: &'a [IpAddr],
    },
}

/// What a change expects to find.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// Whatever there is.
    #[default]
    Any,
    /// Nothing of this name (`If-None-Match: *`).
    Nothing,
    /// Something of this name (`If-Match: *`).
    Something,
    /// This revision (`If-Match: "7"`).
    Revision(u64),
}

/// How a change is to be carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// What has to be there.
    pub expected: Expected,
    /// Only say what would become of it.
    pub dry_run: bool,
}

/// How a change of many is to be carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bulk {
    /// Only say what would become of it.
    pub dry_run: bool,
    /// Remove what has this owner, or none where none is said, and is not named; what the file says stays.
    pub prune: bool,
    /// Becomes the owner of what is applied.
    pub owner: Option<String>,
    /// Roll back unless it is confirmed in time.
    pub confirm_within: Option<Duration>,
    /// The last revision that was given, or any.
    pub expected: Expected,
}

/// What a whole configuration says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Documents {
    /// The VIPs.
    pub vips: Vec<Vip>,
    /// The others.
    pub resources: Vec<Resource>,
}

impl From<Vec<Vip>> for Documents {
    fn from(vips: Vec<Vip>) -> Self {
        Self { vips, resources: Vec::new() }
    }
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The VIP as it is now; of a dry run, as it would be, without status.
    pub vip: Vip,
    /// Whether it was not there before.
    pub created: bool,
}

/// A way to the task that owns the VIPs.
#[derive(Clone, Debug)]
pub struct Registry {
    commands: mpsc::Sender<Command>,
}

#[derive(Debug)]
enum Command {
    List(oneshot::Sender<Vec<Vip>>),
    FirstUnserved(oneshot::Sender<Option<String>>),
    Get(String, oneshot::Sender<Option<Vip>>),
    Put(Box<Vip>, Terms, oneshot::Sender<Result<Applied, Refusal>>),
    Delete(String, Terms, oneshot::Sender<Result<(), Refusal>>),
    ListResources(Kind, oneshot::Sender<Vec<Resource>>),
    GetResource(Key, oneshot::Sender<Option<Resource>>),
    PutResource(Box<Resource>, Terms, oneshot::Sender<Result<AppliedResource, Refusal>>),
    DeleteResource(Key, Terms, oneshot::Sender<Result<(), Refusal>>),
    Running(oneshot::Sender<RunningConfig>),
    Apply(Documents, Bulk, oneshot::Sender<Result<Vec<Change>, RefusedAt>>),
    Confirm(oneshot::Sender<Result<(), Refusal>>),
    Rollback(Option<u64>, Terms, oneshot::Sender<Result<Vec<Change>, Refusal>>),
    History(oneshot::Sender<Result<History, Refusal>>),
    Withdraw(oneshot::Sender<()>),
    #[cfg(test)]
    Follow(oneshot::Sender<()>),
}

/// What the registry starts with.
#[derive(Debug)]
pub struct Start {
    /// VIPs of the configuration file.
    pub file: Vec<Vip>,
    /// Other resources of the configuration file.
    pub file_resources: Resources,
    /// Other resources of the store. Those that the file has, too, are kept, but do not count.
    pub kept_resources: Resources,
    /// VIPs of the store. Those that clash with the file's are kept, but not served.
    pub kept: Vec<Vip>,
    /// The last revision that the store gave.
    pub revision: u64,
    /// Where changes are kept.
    pub store: Store,
    /// Whether the dataplane is attached to every interface that it is to be on, and to one at least.
    pub attached: watch::Receiver<bool>,
    /// Backends that no packet reaches as their VIP's `nat.mode` needs it.
    pub unreached: watch::Receiver<Arc<Unreached>>,
    /// What health checks find; nothing of what is checked no longer.
    pub verdicts: delta::Receiver<Target, Option<Verdict>>,
    /// What is to be checked, and what no longer.
    pub targets: delta::Sender<Target, bool>,
    /// Where it is told what becomes of VIPs and backends.
    pub events: Events,
    /// Where it is written down what it changes that nobody has asked for.
    pub audit: Arc<Audit>,
}

/// Starts the task and has the dataplane serve what there is; nothing is advertised before health has spoken.
///
/// With the registry come sentences on kept VIPs that are not served.
///
/// # Errors
///
/// The dataplane cannot serve it; the sentence says why.
pub async fn spawn<A: Appliers>(
    start: Start,
    appliers: A,
) -> Result<(Registry, watch::Receiver<Vec<String>>), String> {
    let (commands, receiver) = mpsc::channel(MAX_COMMANDS);
    let (mut task, warnings) = Task::new(start, appliers, receiver);
    task.reconcile().await?;
    task.tell_of_state(&Changed::new());
    tokio::spawn(task.run());
    Ok((Registry { commands }, warnings))
}

impl Registry {
    /// Every VIP by name, with its status.
    ///
    /// # Errors
    ///
    /// The daemon ends.
    pub async fn list(&self) -> Result<Vec<Vip>, Refusal> {
        self.ask(Command::List).await.ok_or(Refusal::Stopping)
    }

    /// The first VIP by name that the dataplane does not serve; nothing is counted for it.
    ///
    /// # Errors
    ///
    /// The daemon ends.
    pub async fn first_unserved(&self) -> Result<Option<String>, Refusal> {
        self.ask(Command::FirstUnserved).await.ok_or(Refusal::Stopping)
    }

    /// A VIP with its status.
    ///
    /// # Errors
    ///
    /// There is none, or the daemon ends.
    pub async fn get(&self, name: &str) -> Result<Vip, Refusal> {
        let found = self.ask(|answer| Command::Get(name.to_owned(), answer)).await;
        found.ok_or(Refusal::Stopping)?.ok_or_else(|| Refusal::Unknown(label(name)))
    }

    /// Creates or replaces a VIP. A revision in its metadata has to be the one that is replaced.
    ///
    /// # Errors
    ///
    /// Why not; nothing has changed then.
    pub async fn put(&self, vip: Vip, terms: Terms) -> Result<Applied, Refusal> {
        let answer = self.ask(|answer| Command::Put(Box::new(vip), terms, answer)).await;
        answer.unwrap_or(Err(Refusal::Stopping))
    }

    /// Removes a VIP.
    ///
    /// # Errors
    ///
    /// Why not; nothing has changed then.
    pub async fn delete(&self, name: &str, terms: Terms) -> Result<(), Refusal> {
        let answer = self.ask(|answer| Command::Delete(name.to_owned(), terms, answer)).await;
        answer.unwrap_or(Err(Refusal::Stopping))
    }

    /// Every resource of a kind by name, with its status.
    ///
    /// # Errors
    ///
    /// The daemon ends.
    pub async fn list_resources(&self, kind: Kind) -> Result<Vec<Resource>, Refusal> {
        self.ask(|answer| Command::ListResources(kind, answer)).await.ok_or(Refusal::Stopping)
    }

    /// A resource with its status.
    ///
    /// # Errors
    ///
    /// There is none, or the daemon ends.
    pub async fn get_resource(&self, key: &Key) -> Result<Resource, Refusal> {
        let found = self.ask(|answer| Command::GetResource(key.clone(), answer)).await;
        found.ok_or(Refusal::Stopping)?.ok_or_else(|| Refusal::Unknown(key.to_string()))
    }

    /// Creates or replaces a resource: with it comes whether it is new.
    ///
    /// # Errors
    ///
    /// Why not; nothing has changed then.
    pub async fn put_resource(
        &self,
        resource: Resource,
        terms: Terms,
    ) -> Result<(Resource, bool), Refusal> {
        let resource = Box::new(resource);
        let answer = self.ask(|answer| Command::PutResource(resource, terms, answer)).await;
        answer.unwrap_or(Err(Refusal::Stopping))
    }

    /// Removes a resource.
    ///
    /// # Errors
    ///
    /// Why not; nothing has changed then.
    pub async fn delete_resource(&self, key: &Key, terms: Terms) -> Result<(), Refusal> {
        let answer = self.ask(|answer| Command::DeleteResource(key.clone(), terms, answer)).await;
        answer.unwrap_or(Err(Refusal::Stopping))
    }

    /// The configuration that holds.
    ///
    /// # Errors
    ///
    /// The daemon ends.
    pub async fn running(&self) -> Result<RunningConfig, Refusal> {
        self.ask(Command::Running).await.ok_or(Refusal::Stopping)
    }

    /// Creates or replaces many resources in one change.
    ///
    /// # Errors
    ///
    /// Why not, and the place of what it is about; nothing has changed then.
    pub async fn apply(&self, documents: Documents, terms: Bulk) -> Result<Vec<Change>, RefusedAt> {
        let answer = self.ask(|answer| Command::Apply(documents, terms, answer)).await;
        answer.unwrap_or(Err((None, Refusal::Stopping)))
    }

    /// Keeps the configuration that waits for it.
    ///
    /// # Errors
    ///
    /// Nothing waits, or it cannot be kept; then it is rolled back.
    pub async fn confirm(&self) -> Result<(), Refusal> {
        self.ask(Command::Confirm).await.unwrap_or(Err(Refusal::Stopping))
    }

    /// Goes back: from a configuration that is not confirmed to what was before, otherwise to the generation with a
    /// revision or to the one before.
    ///
    /// # Errors
    ///
    /// Why not; nothing has changed then.
    pub async fn rollback(&self, to: Option<u64>, terms: Terms) -> Result<Vec<Change>, Refusal> {
        let answer = self.ask(|answer| Command::Rollback(to, terms, answer)).await;
        answer.unwrap_or(Err(Refusal::Stopping))
    }

    /// What is and was kept.
    ///
    /// # Errors
    ///
    /// The daemon ends.
    pub async fn history(&self) -> Result<History, Refusal> {
        self.ask(Command::History).await.unwrap_or(Err(Refusal::Stopping))
    }

    /// Whether the task has ended.
    pub fn has_ended(&self) -> bool {
        self.commands.is_closed()
    }

    /// Returns when the task has ended.
    pub async fn ended(&self) {
        self.commands.closed().await;
    }

    /// Advertises nothing any more and takes no more changes; what the dataplane serves stays.
    pub async fn withdraw(&self) {
        let _stopped_already = self.ask(Command::Withdraw).await;
    }

    /// Returns when the world follows everything that was said before.
    #[cfg(test)]
    async fn settled(&self) {
        let _ended = self.ask(Command::Follow).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (sender, answer) = oneshot::channel();
        self.commands.send(command(sender)).await.ok()?;
        answer.await.ok()
    }
}

/// What a VIP is called in a sentence.
fn label(name: &str) -> String {
    format!("VIP {name}")
}

#[cfg(test)]
pub(crate) mod tests;
