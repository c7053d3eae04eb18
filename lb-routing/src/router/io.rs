//! The router task's ends of channels, connections and other tasks.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use lb_routing_proto::fib::Link;
use lb_routing_proto::speaker::ConnId;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::{Command, FibBatch, RouterConfig, SpawnError};
use crate::kernel::{Event, Installer, Outcomes, Request, Watcher};
use crate::tcp::{self, Connection, GOODBYES, Listeners};
use crate::transport::Transports;

/// Events of all connections that wait at most; beyond, their readers wait.
const CONNECTION_EVENTS: usize = 64;
/// Batches of kernel events that wait at most; beyond, the watcher waits.
const KERNEL_EVENTS: usize = 8;

/// The task's ends of channels, connections and other tasks.
pub(super) struct Io {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) batches: mpsc::Sender<FibBatch>,
    pub(super) links: watch::Sender<Vec<Link>>,
    pub(super) rules: watch::Sender<Vec<String>>,
    pub(super) kernel: mpsc::Receiver<Vec<Event>>,
    pub(super) read_again: Arc<Notify>,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) outcomes: mpsc::Receiver<Outcomes>,
    pub(super) installer_busy: bool,
    pub(super) transports: watch::Sender<Arc<Transports>>,
    pub(super) listeners: Listeners,
    pub(super) events: mpsc::Sender<tcp::Event>,
    pub(super) event_rx: mpsc::Receiver<tcp::Event>,
    pub(super) connections: HashMap<ConnId, Connection>,
    pub(super) last_conn: u64,
    /// Connects under way: which attempt, and how to give it up.
    pub(super) connects: HashMap<IpAddr, (u64, AbortHandle)>,
    pub(super) last_attempt: u64,
    /// Connections and connects: they may finish after the state forgot them.
    pub(super) talking: JoinSet<()>,
    /// Places of connections that never were a session and wait for the neighbour to close, too.
    pub(super) goodbyes: Arc<Semaphore>,
    /// Whoever accepts, watcher, installer: gone with the task.
    pub(super) helpers: JoinSet<()>,
}

/// What is told whoever watches: links, and the kernel's rules that matter.
pub(super) type Told = (watch::Sender<Vec<Link>>, watch::Sender<Vec<String>>);

impl Io {
    pub(super) fn open(
        config: &RouterConfig,
        commands: mpsc::Receiver<Command>,
        batches: mpsc::Sender<FibBatch>,
        (links, rules): Told,
    ) -> Result<Self, SpawnError> {
        let (transports, _) = watch::channel(Arc::new(config.transports()));
        let (requests, request_rx) = mpsc::channel(1);
        let (outcome_tx, outcomes) = mpsc::channel(1);
        let installer = Installer::new(request_rx, outcome_tx)?;
        let read_again = Arc::new(Notify::new());
        let (kernel_tx, kernel) = mpsc::channel(KERNEL_EVENTS);
        let watcher = Watcher::new(kernel_tx, Arc::clone(&read_again), installer.port())?;
        let (events, event_rx) = mpsc::channel(CONNECTION_EVENTS);
        let mut helpers = JoinSet::new();
        helpers.spawn(installer.run());
        helpers.spawn(watcher.run());
        let told = Arc::clone(&transports.borrow());
        let listeners = Listeners::open(config.listen, &told, |listener| {
            helpers.spawn(tcp::accept(listener, transports.subscribe(), events.clone()))
        })
        .map_err(|(address, source)| SpawnError::Listen { address, source })?;
        Ok(Self {
            commands,
            batches,
            links,
            rules,
            kernel,
            read_again,
            requests,
            outcomes,
            installer_busy: false,
            transports,
            listeners,
            events,
            event_rx,
            connections: HashMap::new(),
            last_conn: 0,
            connects: HashMap::new(),
            last_attempt: 0,
            talking: JoinSet::new(),
            goodbyes: Arc::new(Semaphore::new(GOODBYES)),
            helpers,
        })
    }
}
