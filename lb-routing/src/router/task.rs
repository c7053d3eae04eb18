//! The one task that owns the router's state: what it waits for, and what it does about it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_routing_proto::config::{Import, PeerConfig};
use lb_routing_proto::fib::{Fact, Fib, Link, Update};
use lb_routing_proto::speaker::{Clear, Input, PeerStatus, Seeds, Speaker};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::io::{Io, Told};
use super::statics::{Asked, StaticRoute};
use super::{Command, ConfigureError, FibBatch, Peers, RouterConfig, SpawnError};
use crate::addresses::Addresses;
use crate::convergence::Convergence;
use crate::kernel::{self, Outcomes};
use crate::plan::Plan;
use crate::tcp;
use crate::transport::Transport;

/// Updates in one batch for the dataplane.
const BATCH: usize = 2048;
/// How often slow things are looked at: convergence, neighbours to be checked.
const SLOW_TICK: Duration = Duration::from_secs(1);
/// Time for sessions to say goodbye at shutdown.
const GOODBYE: Duration = Duration::from_secs(2);

/// How far `FibBatch::Synced` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Synced {
    /// There is more from the start to be told.
    NotYet,
    /// It goes after the updates that wait.
    Due,
    /// It went.
    Sent,
}

/// What the task was woken for.
enum Wake {
    Command(Option<Command>),
    Connection(tcp::Event),
    Kernel(Vec<kernel::Event>),
    Installed(Outcomes),
    Dataplane,
    Timer,
    More,
}

/// The task.
pub(super) struct Task {
    pub(super) speaker: Speaker,
    pub(super) fib: Fib,
    pub(super) plan: Plan,
    pub(super) addresses: Addresses,
    /// What the configuration says; `None` until it says it.
    pub(super) statics: Option<Vec<StaticRoute>>,
    pub(super) io: Io,
    /// While what a previous process left is kept.
    pub(super) convergence: Option<Convergence>,
    /// The kernel's tables were read once; before, no session begins.
    pub(super) started: bool,
    /// Whoever asked for the ways to next hops before that: told then.
    pub(super) asked: Vec<Asked>,
    /// What the dataplane gets next.
    pub(super) updates: VecDeque<Update>,
    /// Who waits for it to be told all again.
    pub(super) tell_whole: Vec<oneshot::Sender<()>>,
    /// Whether it was told that it has all that was there at the start.
    pub(super) synced: Synced,
    /// Neighbours that the kernel is asked for next.
    pub(super) resolve: BTreeSet<(u32, IpAddr)>,
    pub(super) last_checked: Option<(u32, IpAddr)>,
    /// Shutting down: routes stay as they are.
    pub(super) frozen: bool,
    /// Who waits for a reading of the kernel's tables, and whether it has begun since they asked.
    pub(super) reading: Vec<(bool, oneshot::Sender<()>)>,
    /// Learned routes carry traffic.
    pub(super) forward: bool,
    /// The FIB was never gone since the process before.
    pub(super) preserved: bool,
    /// The speaker has selected its routes, they were taken, and nothing more follows from them.
    pub(super) settled: bool,
    /// Since when nobody could look at that though some were taken.
    pub(super) resolving: Option<Instant>,
    /// Some of them may have been in the dataplane alone: what it holds stays until the neighbours have spoken.
    pub(super) keeps_dataplane: bool,
    pub(super) links: BTreeMap<u32, Link>,
    slow_tick_at: Instant,
}

impl Task {
    pub(super) fn new(
        config: RouterConfig,
        commands: mpsc::Receiver<Command>,
        batches: mpsc::Sender<FibBatch>,
        told: Told,
    ) -> Result<Self, SpawnError> {
        let io = Io::open(&config, commands, batches, told)?;
        let now = Instant::now();
        let importing = config.peers.iter().filter(|peer| peer.import != Import::None);
        let awaited = importing.map(|peer| peer.address).collect();
        let listens = super::listens(&config.dynamic);
        let all = config.peers.iter().chain(listens.iter().map(|listen| &listen.template));
        let keeps_dataplane = all.into_iter().any(PeerConfig::may_install_apart);
        let anybody = listens.iter().any(|listen| listen.template.import != Import::None);
        let mut speaker = Speaker::new(config.speaker, config.peers, seeds(), now)?;
        speaker.listen(listens, now)?;
        Ok(Self {
            speaker,
            fib: Fib::new(seeds().tables),
            plan: Plan::default(),
            addresses: Addresses::default(),
            statics: None,
            io,
            convergence: Some(Convergence::new(awaited, anybody, now)),
            started: false,
            asked: Vec::new(),
            updates: VecDeque::new(),
            tell_whole: Vec::new(),
            synced: Synced::NotYet,
            resolve: BTreeSet::new(),
            last_checked: None,
            frozen: false,
            reading: Vec::new(),
            forward: config.forward,
            preserved: config.preserved,
            settled: false,
            resolving: None,
            keeps_dataplane,
            links: BTreeMap::new(),
            slow_tick_at: now,
        })
    }

    /// Works until told to stop, or until nobody holds a handle any more.
    pub(super) async fn run(mut self) {
        let stopped = loop {
            let more = self.pump(Instant::now());
            let wake = self.wait(more).await;
            let now = Instant::now();
            match wake {
                Wake::Command(command) => {
                    if let Some(stopped) = self.command(command) {
                        break stopped;
                    }
                }
                Wake::Connection(event) => self.connection_event(event, now),
                Wake::Kernel(events) => self.kernel_events(events),
                Wake::Installed(outcomes) => self.outcomes(outcomes, now),
                Wake::Dataplane => self.hand_over(),
                Wake::Timer => self.tick(now),
                Wake::More => {}
            }
        };
        self.say_goodbye().await;
        if let Some(answer) = stopped {
            let _not_awaited = answer.send(());
        }
    }

    /// Waits for the next thing to do; with `more`, only looks whether there is one.
    async fn wait(&mut self, more: bool) -> Wake {
        let timeout = self.next_timeout();
        let to_hand_over = self.has_to_hand_over();
        let io = &mut self.io;
        tokio::select! {
            command = io.commands.recv() => Wake::Command(command),
            Some(event) = io.event_rx.recv() => Wake::Connection(event),
            Some(events) = io.kernel.recv() => Wake::Kernel(events),
            Some(outcomes) = io.outcomes.recv() => Wake::Installed(outcomes),
            _room = io.batches.reserve(), if to_hand_over => Wake::Dataplane,
            () = tokio::time::sleep_until(timeout.into()) => Wake::Timer,
            () = tokio::task::yield_now(), if more => Wake::More,
        }
    }

    /// Gives the dataplane what there is room for; where nobody takes it, it is dropped.
    fn hand_over(&mut self) {
        while self.has_to_hand_over() {
            let permit = match self.io.batches.try_reserve() {
                Ok(permit) => permit,
                Err(TrySendError::Full(())) => return,
                Err(TrySendError::Closed(())) => {
                    self.updates.clear();
                    self.tell_whole.clear();
                    self.synced = Synced::Sent;
                    return;
                }
            };
            if !self.updates.is_empty() {
                let count = self.updates.len().min(BATCH);
                permit.send(FibBatch::Updates(self.updates.drain(..count).collect()));
            } else if self.synced == Synced::Due {
                permit.send(FibBatch::Synced);
                self.synced = Synced::Sent;
            } else if let Some(taken) = self.tell_whole.pop() {
                permit.send(FibBatch::Whole(self.whole(taken)));
            }
        }
    }

    fn has_to_hand_over(&self) -> bool {
        !self.updates.is_empty() || self.synced == Synced::Due || !self.tell_whole.is_empty()
    }

    /// Returns whom to tell when the router has stopped, if it should.
    fn command(&mut self, command: Option<Command>) -> Option<Option<oneshot::Sender<()>>> {
        match command {
            None => return Some(None),
            Some(Command::Shutdown(answer)) => return Some(Some(answer)),
            Some(Command::Originate(prefixes)) => {
                self.speaker.handle(Input::Originate(&prefixes), Instant::now());
            }
            Some(Command::ChangeOriginated { come, go }) => {
                let change = Input::ChangeOriginated { come: &come, go: &go };
                self.speaker.handle(change, Instant::now());
            }
            Some(Command::OriginatesAll) => {
                self.speaker.handle(Input::OriginatesAll, Instant::now());
            }
            Some(Command::SetVips(vips)) => {
                let (come, go) = self.plan.set_vips(vips.into_iter().collect());
                self.tell_of_vips(&come, &go);
            }
            Some(Command::ChangeVips { come, go }) => {
                self.plan.change_vips(&come, &go);
                self.tell_of_vips(&come, &go);
            }
            Some(Command::SetStatics(statics)) => self.set_statics(*statics),
            Some(Command::Unreachable(hops, addresses, answer)) => {
                self.asked.push((hops, addresses, answer));
                self.tell_unreachable();
            }
            Some(Command::Statics(answer)) => drop(answer.send(self.statics_status())),
            Some(Command::Configure(peers, answer)) => drop(answer.send(self.configure(*peers))),
            Some(Command::Clear(peer, what, answer)) => {
                let known = self.speaker.clear(peer, what, Instant::now());
                let _not_awaited = answer.send(known);
            }
            Some(Command::Explain(what, answer)) => drop(answer.send(self.speaker.explain(what))),
            // An asker that went away needs no answer.
            Some(Command::Peers(answer)) => drop(answer.send(self.speaker.peers())),
            Some(Command::Listening(answer)) => drop(answer.send(self.speaker.listening())),
            Some(Command::Lookup(address, answer)) => drop(answer.send(self.fib.lookup(address))),
            Some(Command::Told(answer)) => drop(answer.send(self.table())),
            Some(Command::TellAgain(taken)) => self.tell_again(taken),
            Some(Command::ReadKernel(answer)) => {
                self.reading.push((false, answer));
                self.io.read_again.notify_one();
            }
            Some(Command::Routes(answer)) => drop(answer.send(self.speaker.routes())),
            Some(Command::Query(asked, limit, answer)) => {
                let (query, walk) = *asked;
                drop(answer.send(self.speaker.query(&query, walk, limit)));
            }
        }
        None
    }

    /// Neighbours by difference; on an error nothing has changed.
    fn configure(&mut self, wanted: Peers) -> Result<(), ConfigureError> {
        let Peers { speaker, peers, transports, dynamic, listen } = wanted;
        let listens = super::listens(&dynamic);
        self.speaker.check_as(&speaker, &peers)?;
        self.speaker.check_listens(&speaker, &listens)?;
        let old = Arc::clone(&self.io.transports.borrow());
        let new = Arc::new(super::transports(&peers, &transports, &dynamic));
        let Io { listeners, helpers, transports, events, .. } = &mut self.io;
        let adapted = listeners.adapt(listen, &old, &new, |listener| {
            helpers.spawn(tcp::accept(listener, transports.subscribe(), events.clone()))
        });
        adapted.map_err(|(address, source)| ConfigureError::Listen { address, source })?;
        self.io.transports.send_replace(Arc::clone(&new));
        let now = Instant::now();
        self.speaker.reconfigure(speaker, peers, now)?;
        self.speaker.listen(listens, now)?;
        let of = |transport: &Transport| (transport.reach, transport.md5.clone());
        for PeerStatus { address, .. } in self.speaker.peers() {
            let peer = address.to_canonical();
            let both = old.get(peer).zip(new.get(peer));
            if both.is_some_and(|(before, after)| of(after) != of(before)) {
                self.speaker.clear(address, Clear::Connection, now);
            }
        }
        Ok(())
    }

    fn tell_of_vips(&mut self, come: &[IpAddr], go: &[IpAddr]) {
        let changes = come.iter().map(|vip| (*vip, true)).chain(go.iter().map(|vip| (*vip, false)));
        for (address, present) in changes {
            self.fib.handle(Fact::Vip { address, present });
        }
    }

    fn tick(&mut self, now: Instant) {
        self.speaker.handle(Input::Tick, now);
        if now >= self.slow_tick_at {
            self.slow_tick_at = now + SLOW_TICK;
            self.check_neighbours();
            self.check_convergence(now);
        }
    }

    /// What a previous process left goes once the neighbours have told theirs.
    fn check_convergence(&mut self, now: Instant) {
        let Some(convergence) = &mut self.convergence else { return };
        let limit_is_over = convergence.is_past_limit(now);
        let complete =
            self.plan.vips_known() && convergence.is_complete(&self.speaker.peers(), now);
        if self.started && self.settled && (complete || limit_is_over) {
            self.convergence = None;
            self.fib.handle(Fact::StaleOver);
            let count = self.plan.ledger.end_of_stale();
            if count > 0 {
                tracing::info!(
                    "removing {count} routes of the previous process that nobody announces"
                );
            }
        }
    }

    fn next_timeout(&self) -> Instant {
        let timeouts = [
            self.speaker.poll_timeout().filter(|_| self.started),
            self.plan.ledger.poll_timeout(),
            self.addresses.poll_timeout(),
        ];
        timeouts.into_iter().flatten().chain([self.slow_tick_at]).min().unwrap_or(self.slow_tick_at)
    }

    async fn say_goodbye(&mut self) {
        self.frozen = true;
        self.speaker.handle(Input::Shutdown, Instant::now());
        while self.pump(Instant::now()) {}
        self.io.connections.clear();
        for (_, (_, connect)) in self.io.connects.drain() {
            connect.abort();
        }
        let Io { talking, event_rx, .. } = &mut self.io;
        // Readers that wait for room in the channel must not hold up the goodbye.
        event_rx.close();
        let all = async { while talking.join_next().await.is_some() {} };
        if tokio::time::timeout(GOODBYE, all).await.is_err() {
            tracing::debug!("a neighbour did not take its last message");
        }
    }
}

/// From the operating system's randomness, by a keyed hash that shows nothing of its key.
fn seeds() -> Seeds {
    let random = RandomState::new();
    let word = |number: u8| random.hash_one(number);
    Seeds { timers: word(0), tables: [word(1), word(2)] }
}
