//! The VIPs, and the one task that makes the world match them.
//!
//! ```text
//!   REST ─▶ Registry ─(bounded)─▶ task ── control::desired ──▶ Appliers: dataplane, kernel, BGP
//!                                  ▲  └──▶ Store
//!   health ────────── watch ───────┘
//! ```
//!
//! Invariant: whatever a [`Registry`] call has returned is in the dataplane and on the disk; after an error, neither.

mod apply;
mod confirm;
mod status;
mod task;
mod tell;

use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lb_api_types::view::{Change, History};
use lb_api_types::vip::{Protocol, Vip};
use lb_dataplane::ServiceCounters;
use lb_dataplane::table::Table;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::apply::RefusedAt;
use self::task::Task;
use crate::control::Vips;
use crate::events::Events;
use crate::health::{Target, Verdicts};
use crate::store::Store;

/// Commands that wait at most; beyond, callers wait.
const MAX_COMMANDS: usize = 64;

/// What the desired state is applied to.
pub trait Appliers: Send + 'static {
    /// Has the dataplane serve exactly this; the error says in one sentence why it does not.
    fn serve(&mut self, table: Table) -> impl Future<Output = Result<(), String>> + Send;
    /// Has BGP advertise exactly these addresses.
    fn announce(&mut self, addresses: &BTreeSet<IpAddr>) -> impl Future<Output = ()> + Send;
    /// Has the kernel have an unreachable route for exactly these addresses.
    fn route(&mut self, addresses: &BTreeSet<IpAddr>) -> impl Future<Output = ()> + Send;
    /// What went through the services.
    fn counters(&mut self) -> impl Future<Output = ServiceCounters> + Send;
}

/// Why a change is refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is none of this name.
    #[error("there is no VIP {0}")]
    Unknown(String),
    /// It is the file's.
    #[error(
        "VIP {0} comes from the configuration file, and only the file can change it: edit the file and restart lbd"
    )]
    FromFile(String),
    /// A request has the name more than once.
    #[error("VIP {0} is there twice: leave one of the two out")]
    Twice(String),
    /// Another VIP has the same address, port and protocol.
    #[error(
        "VIP {other} has {protocol} port {port} at {address} already: choose another address or port, or change VIP {other}"
    )]
    Duplicate {
        /// The other one.
        other: String,
        /// The address of both.
        address: IpAddr,
        /// The port of both.
        port: u16,
        /// The protocol of both.
        protocol: &'static str,
    },
    /// It is not what the request expects to be there.
    #[error(
        "VIP {name} has revision {found}, not {expected}: somebody else changed it; read it again and repeat the change"
    )]
    Stale {
        /// The VIP.
        name: String,
        /// Its revision.
        found: u64,
        /// What the request says.
        expected: u64,
    },
    /// The request says that it has to be new.
    #[error("there is a VIP {0} already, and the request asks for a new one: choose another name")]
    Exists(String),
    /// The request says that it has to be there.
    #[error(
        "there is no VIP {0}, and the request only changes one that is there: read the list again"
    )]
    Gone(String),
    /// No room.
    #[error("there are {0} VIPs already, and more are not kept: remove one first")]
    TooMany(usize),
    /// The dataplane cannot serve it.
    #[error("the dataplane refuses: {0}")]
    Dataplane(String),
    /// It cannot be written; nothing was tried.
    #[error("the change cannot be kept: {0}; free or repair the disk")]
    NotWritten(String),
    /// It was written, but cannot take the old one's place.
    #[error("the change cannot be kept: {0}; repair the disk")]
    Store(String),
    /// An applied configuration waits to be confirmed.
    #[error(
        "a configuration waits to be confirmed, and is rolled back in {0} s: confirm it or roll it back first (`lbctl config confirm` or `rollback`)"
    )]
    Unconfirmed(u32),
    /// There is nothing to be confirmed.
    #[error("no configuration waits to be confirmed: it was confirmed or rolled back already")]
    NothingToConfirm,
    /// What is to be gone back to is not kept.
    #[error("{0} is kept to go back to: `lbctl config history` lists what is")]
    NoGeneration(String),
    /// The daemon ends.
    #[error("lbd is stopping: try again when it runs")]
    Stopping,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bulk {
    /// Only say what would become of it.
    pub dry_run: bool,
    /// Remove VIPs made over REST that are not named.
    pub prune: bool,
    /// Roll back unless it is confirmed in time.
    pub confirm_within: Option<Duration>,
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
    Get(String, oneshot::Sender<Option<Vip>>),
    Put(Box<Vip>, Terms, oneshot::Sender<Result<Applied, Refusal>>),
    Delete(String, Terms, oneshot::Sender<Result<(), Refusal>>),
    Apply(Vec<Vip>, Bulk, oneshot::Sender<Result<Vec<Change>, RefusedAt>>),
    Confirm(oneshot::Sender<Result<(), Refusal>>),
    Rollback(Option<u64>, bool, oneshot::Sender<Result<Vec<Change>, Refusal>>),
    History(oneshot::Sender<Result<History, Refusal>>),
    Withdraw(oneshot::Sender<()>),
}

/// What the registry starts with.
#[derive(Debug)]
pub struct Start {
    /// VIPs of the configuration file.
    pub file: Vec<Vip>,
    /// VIPs of the store. Those that clash with the file's are kept, but not served.
    pub kept: Vec<Vip>,
    /// The last revision that the store gave.
    pub revision: u64,
    /// Where changes are kept.
    pub store: Store,
    /// Whether the dataplane is attached to an interface.
    pub attached: watch::Receiver<bool>,
    /// What health checks find.
    pub verdicts: watch::Receiver<Arc<Verdicts>>,
    /// What is to be checked.
    pub targets: watch::Sender<Arc<BTreeSet<Target>>>,
    /// Where it is told what becomes of VIPs and backends.
    pub events: Events,
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
    task.tell_of_state(&Vips::new());
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

    /// A VIP with its status.
    ///
    /// # Errors
    ///
    /// There is none, or the daemon ends.
    pub async fn get(&self, name: &str) -> Result<Vip, Refusal> {
        let found = self.ask(|answer| Command::Get(name.to_owned(), answer)).await;
        found.ok_or(Refusal::Stopping)?.ok_or_else(|| Refusal::Unknown(name.to_owned()))
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

    /// Creates or replaces many VIPs in one change.
    ///
    /// # Errors
    ///
    /// Why not, and the place of the VIP that it is about; nothing has changed then.
    pub async fn apply(&self, vips: Vec<Vip>, terms: Bulk) -> Result<Vec<Change>, RefusedAt> {
        let answer = self.ask(|answer| Command::Apply(vips, terms, answer)).await;
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
    pub async fn rollback(&self, to: Option<u64>, dry_run: bool) -> Result<Vec<Change>, Refusal> {
        let answer = self.ask(|answer| Command::Rollback(to, dry_run, answer)).await;
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

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (sender, answer) = oneshot::channel();
        self.commands.send(command(sender)).await.ok()?;
        answer.await.ok()
    }
}

/// The VIP among these that has a VIP's address, port and protocol.
fn clash<'a>(vips: &'a Vips, vip: &Vip) -> Option<&'a Vip> {
    vips.values().find(|other| {
        other.metadata.name != vip.metadata.name
            && other.spec.address == vip.spec.address
            && other.spec.port == vip.spec.port
            && other.spec.protocol == vip.spec.protocol
    })
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

#[cfg(test)]
pub(crate) mod tests;
