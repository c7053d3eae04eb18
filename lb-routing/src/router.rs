//! The router as the rest of the daemon sees it: start it, tell it what to originate, take its FIB.

mod facts;
mod io;
mod pump;
mod statics;
mod task;
mod whole;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnetwork::IpNetwork;
use lb_routing_proto::config::{self, ConfigError, Listen, ListenError, PeerConfig, SpeakerConfig};
use lb_routing_proto::fib::{Link, StaticNextHop, Told, Update};
use lb_routing_proto::speaker::{
    Clear, Destination, Explanation, ListenStatus, Part, PathKey, PathStatus, PeerStatus, Query,
    Walk,
};
use tokio::sync::{mpsc, oneshot, watch};

pub use self::statics::{StaticRoute, StaticRouteStatus, Statics, StaticsStatus};
use self::task::Task;
pub use self::whole::{RouterTable, Stray, Whole};
use crate::addresses::InterfaceAddress;
use crate::kernel::KernelError;
use crate::transport::{Transport, Transports};

/// Commands that wait at most; beyond, callers wait.
const COMMANDS: usize = 64;
/// The longest wait for a reading of the kernel's tables that somebody asked for.
const READING: Duration = Duration::from_secs(30);
/// Batches that wait for the dataplane at most; beyond, changes wait as marks and merge.
const BATCHES: usize = 4;

/// What the router starts with.
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// Who we are.
    pub speaker: SpeakerConfig,
    /// Whom we talk to.
    pub peers: Vec<PeerConfig>,
    /// How connections with them are made, by their address; a neighbour that is not here has the default.
    pub transports: HashMap<IpAddr, Transport>,
    /// Who else may come, and how connections with them are made.
    pub dynamic: Vec<(Listen, Transport)>,
    /// Where neighbours reach us.
    pub listen: SocketAddr,
    /// Carry traffic by learned routes: tell the kernel and the dataplane of them. A route server does not.
    pub forward: bool,
    /// What carries traffic was never gone since the process before: the dataplane has taken over its tables. Neighbours
    /// that keep our routes meanwhile are told so (RFC 4724).
    pub preserved: bool,
}

impl RouterConfig {
    /// Every neighbour's, by its canonical address.
    fn transports(&self) -> Transports {
        transports(&self.peers, &self.transports, &self.dynamic)
    }
}

fn listens(dynamic: &[(Listen, Transport)]) -> Vec<Listen> {
    dynamic.iter().map(|(listen, _)| listen.clone()).collect()
}

fn transports(
    peers: &[PeerConfig],
    told: &HashMap<IpAddr, Transport>,
    dynamic: &[(Listen, Transport)],
) -> Transports {
    let told = |address| told.get(&address).cloned().unwrap_or_default();
    let named = peers.iter().map(|peer| (peer.address.to_canonical(), told(peer.address)));
    let ranges = dynamic
        .iter()
        .flat_map(|(listen, it)| listen.ranges.iter().map(move |range| (*range, it.clone())));
    Transports { named: named.collect(), ranges: ranges.collect() }
}

/// Whom the router talks to from now on, and as whom.
#[derive(Clone, Debug)]
pub struct Peers {
    /// Who we are.
    pub speaker: SpeakerConfig,
    /// The neighbours, in order.
    pub peers: Vec<PeerConfig>,
    /// How connections with them are made, by their address; a neighbour that is not here has the default.
    pub transports: HashMap<IpAddr, Transport>,
    /// Who else may come, and how connections with them are made.
    pub dynamic: Vec<(Listen, Transport)>,
    /// Where neighbours reach us.
    pub listen: SocketAddr,
}

impl From<RouterConfig> for Peers {
    fn from(config: RouterConfig) -> Self {
        let RouterConfig { speaker, peers, transports, dynamic, listen, .. } = config;
        Self { speaker, peers, transports, dynamic, listen }
    }
}

/// Why neighbours cannot be changed. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Neighbours cannot come by themselves so.
    #[error(transparent)]
    Dynamic(#[from] ListenError),
    /// The listener cannot be told, or cannot be there.
    #[error("cannot meet neighbours at {address} so: {source}")]
    Listen {
        /// Where we listen.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// It has stopped.
    #[error("the router has stopped")]
    Stopped,
}

/// Why the router does not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Neighbours cannot come by themselves so.
    #[error(transparent)]
    Dynamic(#[from] ListenError),
    /// The port is taken, or not ours to take.
    #[error("cannot listen on {address}: {source}; stop the other BGP daemon or set bgp.listen")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// No netlink.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// What the dataplane takes, in order.
#[derive(Debug)]
pub enum FibBatch {
    /// Changes; a group comes before the routes that name it.
    Updates(Vec<Update>),
    /// All that the kernel had at the start, and what a previous process left there, has been told: what
    /// the dataplane holds beyond is obsolete. Sent once.
    Synced,
    /// All of it once more, in step with the changes before.
    Whole(Whole),
}

/// A way to the running router. When the last one is dropped, the router shuts down.
#[derive(Clone, Debug)]
pub struct RouterHandle {
    commands: mpsc::Sender<Command>,
    links: watch::Receiver<Vec<Link>>,
    rules: watch::Receiver<Vec<String>>,
}

#[derive(Debug)]
enum Command {
    Originate(Vec<IpNetwork>),
    ChangeOriginated { come: Vec<IpNetwork>, go: Vec<IpNetwork> },
    OriginatesAll,
    SetVips(Vec<IpAddr>),
    ChangeVips { come: Vec<IpAddr>, go: Vec<IpAddr> },
    SetStatics(Box<Statics>),
    Unreachable(Vec<StaticNextHop>, Vec<InterfaceAddress>, oneshot::Sender<Vec<Option<String>>>),
    Statics(oneshot::Sender<StaticsStatus>),
    Peers(oneshot::Sender<Vec<PeerStatus>>),
    Listening(oneshot::Sender<Vec<ListenStatus>>),
    Routes(oneshot::Sender<Vec<PathStatus>>),
    Query(Box<(Query, Walk)>, usize, oneshot::Sender<Part>),
    Configure(Box<Peers>, oneshot::Sender<Result<(), ConfigureError>>),
    Clear(IpAddr, Clear, oneshot::Sender<bool>),
    Explain(Destination, oneshot::Sender<Explanation>),
    Lookup(IpAddr, oneshot::Sender<Option<Told>>),
    Told(oneshot::Sender<RouterTable>),
    TellAgain(oneshot::Sender<()>),
    ReadKernel(oneshot::Sender<()>),
    Shutdown(oneshot::Sender<()>),
}

/// Starts the router on the current tokio runtime.
///
/// Sessions begin when the kernel's routes are known. Routes that a previous process left in the
/// kernel keep forwarding until the neighbours have spoken, at most 60 s.
///
/// The receiver has to be drained: while very much waits in it, routes of the kernel wait too. Dropped,
/// it is no longer waited for.
///
/// # Errors
///
/// A configuration that cannot work, a port that is taken, no access to netlink.
pub async fn spawn(
    config: RouterConfig,
) -> Result<(RouterHandle, mpsc::Receiver<FibBatch>), SpawnError> {
    config::validate(&config.speaker, &config.peers)?;
    config::validate_listens(&config.speaker, &listens(&config.dynamic))?;
    let (commands, command_rx) = mpsc::channel(COMMANDS);
    let (batches, batch_rx) = mpsc::channel(BATCHES);
    let (links_tx, links) = watch::channel(Vec::new());
    let (rules_tx, rules) = watch::channel(Vec::new());
    let task = Task::new(config, command_rx, batches, (links_tx, rules_tx))?;
    tokio::spawn(task.run());
    Ok((RouterHandle { commands, links, rules }, batch_rx))
}

impl RouterHandle {
    /// Advertises exactly these prefixes from now on.
    pub async fn originate(&self, prefixes: Vec<IpNetwork>) {
        self.tell(Command::Originate(prefixes)).await;
    }

    /// Advertises these prefixes, too, and those no longer; costs what changes.
    pub async fn change_originated(&self, come: Vec<IpNetwork>, go: Vec<IpNetwork>) {
        self.tell(Command::ChangeOriginated { come, go }).await;
    }

    /// Whatever is to be advertised was said, as far as it is known now: after a restart neighbours hear End-of-RIB (RFC 4724)
    /// then. So much goes with [`RouterHandle::originate`], too; without either they hear it after 5 s.
    pub async fn originates_all(&self) {
        self.tell(Command::OriginatesAll).await;
    }

    /// Has an `unreachable` route of ours in the kernel for exactly these addresses from now on.
    pub async fn set_vips(&self, vips: Vec<IpAddr>) {
        self.tell(Command::SetVips(vips)).await;
    }

    /// Has such a route for these addresses, too, and none for those; costs what changes.
    pub async fn change_vips(&self, come: Vec<IpAddr>, go: Vec<IpAddr>) {
        self.tell(Command::ChangeVips { come, go }).await;
    }

    /// Has exactly these routes and addresses in the kernel, and the routes in the FIB, from now on. What cannot be there
    /// yet, for want of an interface or of a way to a next hop, follows when it can.
    pub async fn set_statics(&self, statics: Statics) {
        self.tell(Command::SetStatics(Box::new(statics))).await;
    }

    /// Why each of these next hops cannot be reached now, if so, supposed that interfaces have these addresses, too. It takes
    /// until the kernel's routes are known.
    pub async fn unreachable(
        &self,
        hops: Vec<StaticNextHop>,
        addresses: Vec<InterfaceAddress>,
    ) -> Vec<Option<String>> {
        let why = self.ask(|answer| Command::Unreachable(hops, addresses, answer)).await;
        why.unwrap_or_default()
    }

    /// How what [`RouterHandle::set_statics`] said is.
    pub async fn statics(&self) -> StaticsStatus {
        self.ask(Command::Statics).await.unwrap_or_default()
    }

    /// Has exactly these neighbours from now on. Unless we are somebody else then
    /// ([`Speaker::reconfigure`](lb_routing_proto::speaker::Speaker::reconfigure)), only those that changed notice: their
    /// session goes on where it can, as
    /// [`Speaker::configure`](lb_routing_proto::speaker::Speaker::configure) says, and begins anew where its TCP options
    /// (a key, a distance) have changed. Another address to listen at ends none.
    ///
    /// # Errors
    ///
    /// What cannot work, or what the kernel refuses; nothing has changed then.
    pub async fn configure(&self, peers: Peers) -> Result<(), ConfigureError> {
        let done = self.ask(|answer| Command::Configure(Box::new(peers), answer)).await;
        done.unwrap_or(Err(ConfigureError::Stopped))
    }

    /// Does something to one neighbour's session; says whether there is such a neighbour.
    pub async fn clear(&self, peer: IpAddr, what: Clear) -> bool {
        self.ask(|answer| Command::Clear(peer, what, answer)).await.unwrap_or(false)
    }

    /// Which paths a destination has, and what keeps the best one from which neighbour; `None` after a shutdown.
    pub async fn explain(&self, what: Destination) -> Option<Explanation> {
        self.ask(|answer| Command::Explain(what, answer)).await
    }

    /// Every neighbour, in the order of the configuration; none after a shutdown.
    pub async fn peers(&self) -> Vec<PeerStatus> {
        self.ask(Command::Peers).await.unwrap_or_default()
    }

    /// For whom else we listen, and how many of them there are; none after a shutdown.
    pub async fn listening(&self) -> Vec<ListenStatus> {
        self.ask(Command::Listening).await.unwrap_or_default()
    }

    /// Every path of every prefix, sorted by prefix, the best path first; none after a shutdown.
    pub async fn routes(&self) -> Vec<PathStatus> {
        self.ask(Command::Routes).await.unwrap_or_default()
    }

    /// The next routes after one, `limit` at most, in an order that they keep while others come and go:
    /// [`Speaker::query`](lb_routing_proto::speaker::Speaker::query), again and again where much has to be looked at, so that
    /// sessions go on meanwhile.
    pub async fn query(
        &self,
        query: &Query,
        after: Option<PathKey>,
        limit: usize,
    ) -> Vec<PathStatus> {
        let (mut all, mut next) = (Vec::new(), Some(Walk::after(after)));
        // Ends: each turn goes on where the one before stopped.
        while let Some(walk) = next.filter(|_| all.len() < limit) {
            let (asked, rest) = (Box::new((query.clone(), walk)), limit - all.len());
            let part = self.ask(|answer| Command::Query(asked, rest, answer)).await;
            let part = part.unwrap_or_default();
            all.extend(part.paths);
            next = part.next;
        }
        all
    }

    /// The route of the dataplane's FIB that covers an address, as the router has it.
    pub async fn lookup(&self, address: IpAddr) -> Option<Told> {
        self.ask(|answer| Command::Lookup(address, answer)).await.flatten()
    }

    /// All that the dataplane was told; `None` after a shutdown.
    pub async fn told(&self) -> Option<RouterTable> {
        self.ask(Command::Told).await
    }

    /// Takes over again what the speaker selected, and tells the dataplane all again; returns when that has it, or after half a
    /// minute at the latest.
    pub async fn tell_again(&self) {
        // Too late: another audit says what is left.
        let _elapsed = tokio::time::timeout(READING, self.ask(Command::TellAgain)).await;
    }

    /// Reads the kernel's tables again, as after lost events; returns when that is done, or after half a minute at the latest.
    pub async fn read_kernel(&self) {
        // Too late: what was read until then counts.
        let _elapsed = tokio::time::timeout(READING, self.ask(Command::ReadKernel)).await;
    }

    /// The host's links, sorted by index; empty until the kernel told them.
    #[must_use]
    pub fn links(&self) -> watch::Receiver<Vec<Link>> {
        self.links.clone()
    }

    /// The kernel's rules by which forwarded packets may take another table than the main one, as `ip rule` shows them.
    /// While there are any, every packet is the kernel's business.
    #[must_use]
    pub fn policy_rules(&self) -> Vec<String> {
        self.rules.borrow().clone()
    }

    /// Ends every session with Cease (RFC 4486) and stops. Routes stay in the kernel, so that traffic
    /// flows on until the next process takes over; [`crate::cleanup`] removes them.
    pub async fn shutdown(&self) {
        let _stopped_already = self.ask(Command::Shutdown).await;
    }

    async fn tell(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::debug!("the router has stopped; a command to it is dropped");
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (answer_tx, answer) = oneshot::channel();
        self.tell(command(answer_tx)).await;
        answer.await.ok()
    }
}
