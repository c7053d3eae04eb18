//! The engine: every session, the RIB and the policy behind one `handle`.
//!
//! ```text
//! Input -> Session (FSM, per neighbour) -> ingest -> Rib -> Output::Routes
//!                                                     |
//!                                                     +---> Group (neighbours told the same) -> Output::Send
//! ```
//!
//! Handlers never fail and never block: bad input is an output (a NOTIFICATION, an event). Routes and
//! UPDATEs are made when the driver polls, from marked prefixes, so a prefix that changes a thousand
//! times between two polls costs one output, and what waits is bounded: the queue by one input's
//! effects and one batch of UPDATEs, the marks by the table.

mod advertise;
mod configure;
mod dynamic;
mod explain;
mod graceful;
mod ingest;
mod input;
mod limit;
mod neighbour;
mod output;
mod pace;
mod query;
mod rejudge;
mod status;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

pub use self::configure::Clear;
pub use self::dynamic::ListenStatus;
use self::dynamic::Listening;
pub use self::explain::{Destination, Explanation, Hearer};
use self::graceful::Deferral;
pub use self::input::{ConnId, Input};
use self::neighbour::{Channel, Neighbour};
pub use self::output::{Event, Output, RouteChange};
pub use self::query::{Part, Query, Table, Walk};
use self::rejudge::Rejudging;
pub use self::status::{Messages, PathKey, PathStatus, PeerStatus, State};
use crate::config::{self, ConfigError, PeerConfig, SpeakerConfig};
use crate::policy::Judge;
pub use crate::rib::Backlog;
use crate::rib::{
    Group, Keyed, MAX_ATTRIBUTE_BYTES_PER_PEER, MAX_PREFIXES_PER_PEER, MAX_REFUSED_PER_PEER,
    PeerIndex, Ranking, Rib, Rules,
};
use crate::session::{self, Effect, Jitter, Past, Session};
use crate::wire::{Notification, error};

/// Where all randomness comes from.
#[derive(Clone, Copy, Debug)]
pub struct Seeds {
    /// Timers' jitter, which neighbours can observe.
    pub timers: u64,
    /// The tables' hashes. Secret, and not to be computed from `timers`: neighbours choose what the tables hold.
    pub tables: [u64; 2],
}

impl Seeds {
    /// The same from the same number, for simulations.
    #[must_use]
    pub const fn of(number: u64) -> Self {
        Self { timers: number, tables: [number, number.rotate_left(32)] }
    }
}

/// The engine.
#[derive(Debug)]
pub struct Speaker {
    config: SpeakerConfig,
    neighbours: Vec<Neighbour>,
    by_address: HashMap<IpAddr, PeerIndex>,
    /// Neighbours in the order of the configuration.
    order: Vec<PeerIndex>,
    /// Places of neighbours that are gone.
    vacant: Vec<PeerIndex>,
    /// For the sessions of neighbours that come.
    seeds: Jitter,
    /// Connections that a session has, at most two per neighbour.
    conns: HashMap<ConnId, PeerIndex>,
    rib: Rib,
    hash: Keyed,
    queue: VecDeque<Output>,
    /// Neighbours that are told the same, by the place that their channels name.
    groups: Vec<Option<Group>>,
    /// Which group is asked first for UPDATEs, in turn.
    next_to_flush: usize,
    /// Our ends of the sessions: no next hops of others. How many sessions have each.
    locals: HashMap<IpAddr, usize>,
    /// How neighbours' paths are judged; attribute sets remember by which of these.
    judges: Vec<Judge>,
    /// The time of the last input.
    now: Instant,
    /// Paths of one neighbour that can be used at most, those that cannot, and octets of their attributes.
    max_prefixes: u64,
    max_refused: u64,
    max_attribute_bytes: usize,
    /// After a restart of ours.
    deferral: Option<Deferral>,
    /// All that is to be originated was said.
    own_are_known: bool,
    /// What OPENs say of our own restart, also to those who come later.
    past: Past,
    /// Whose paths are judged anew.
    rejudging: VecDeque<Rejudging>,
    /// For whom we listen.
    listening: Vec<Listening>,
    /// When to look at who came by itself and may have to go.
    dynamic_due: Option<Instant>,
    /// The driver resolves next hops: what is chosen by them may change.
    resolving: bool,
}

impl Speaker {
    /// Checks the configuration and starts every session (ManualStart, RFC 4271 §8.1.2). All
    /// randomness comes from `seeds`.
    ///
    /// # Errors
    ///
    /// The first thing in the configuration that cannot work.
    pub fn new(
        config: SpeakerConfig,
        peers: Vec<PeerConfig>,
        seeds: Seeds,
        now: Instant,
    ) -> Result<Self, ConfigError> {
        config::validate(&config, &peers)?;
        let (hash, mut seeds) = (Keyed::new(seeds.tables), Jitter::new(seeds.timers));
        let rankings = peers.iter().map(|peer| ranking(&config, peer)).collect();
        let rules = rules(&config);
        let rib = Rib::new(rankings, rules, hash);
        let mut by_address = HashMap::new();
        let (mut neighbours, mut judges) = (Vec::new(), Vec::new());
        for (peer, index) in peers.into_iter().zip(0..) {
            by_address.insert(peer.address.to_canonical(), index);
            let judge = place(&mut judges, Judge::new(&config, &peer));
            let session = Session::new(config.clone(), peer, seeds.next(), now);
            neighbours.push(Neighbour::new(session, judge));
        }
        let (conns, queue) = (HashMap::new(), VecDeque::new());
        let mut speaker = Self {
            config,
            order: (0..).zip(&neighbours).map(|(index, _)| index).collect(),
            neighbours,
            vacant: Vec::new(),
            seeds,
            by_address,
            conns,
            rib,
            hash,
            queue,
            groups: Vec::new(),
            next_to_flush: 0,
            locals: HashMap::new(),
            judges,
            now,
            max_prefixes: MAX_PREFIXES_PER_PEER,
            max_refused: MAX_REFUSED_PER_PEER,
            max_attribute_bytes: MAX_ATTRIBUTE_BYTES_PER_PEER,
            deferral: None,
            own_are_known: false,
            past: Past::default(),
            rejudging: VecDeque::new(),
            listening: Vec::new(),
            dynamic_due: None,
            resolving: false,
        };
        speaker.each_session(now, Session::start);
        Ok(speaker)
    }

    /// Who we are.
    pub const fn config(&self) -> &SpeakerConfig {
        &self.config
    }

    /// Takes an input; what follows from it stands in `poll_output`.
    pub fn handle(&mut self, input: Input<'_>, now: Instant) {
        self.now = now;
        match input {
            Input::Connected { peer, conn, local } => match self.index_of(peer) {
                Some(index) => {
                    self.conns.insert(conn, index);
                    self.with_session(index, now, |session, now, out| {
                        session.connected(conn, local, now, out);
                    });
                }
                None => self.queue.push_back(Output::Close { conn }),
            },
            Input::ConnectFailed { peer, error } => {
                if let Some(index) = self.index_of(peer) {
                    self.with_session(index, now, |session, now, out| {
                        session.connect_failed(&error, now, out);
                    });
                }
            }
            Input::Accepted { peer, conn, local } => self.accepted(peer, conn, local, now),
            Input::Received { conn, bytes } => {
                if let Some(&index) = self.conns.get(&conn) {
                    self.with_session(index, now, |session, now, out| {
                        session.received(conn, bytes, now, out);
                    });
                }
            }
            Input::Closed { conn, error } => {
                if let Some(index) = self.conns.remove(&conn) {
                    self.with_session(index, now, |session, now, out| {
                        session.closed(conn, &error, now, out);
                    });
                }
            }
            Input::Tick => {
                self.each_session(now, Session::tick);
                self.expire_stale(now);
            }
            Input::Originate(prefixes) => {
                self.rib.originate(prefixes);
                self.own_are_known = true;
            }
            // Before a restart is known of, too: the kernel is read meanwhile.
            Input::OriginatesAll => self.own_are_known = true,
            Input::ChangeOriginated { come, go } => self.rib.change_originated(come, go),
            Input::NextHop { next_hop, reach } => self.rib.set_reach(next_hop, reach),
            Input::Shutdown => self.each_session(now, |session, now, out| {
                session.stop(Notification::new(error::ADMINISTRATIVE_SHUTDOWN), now, out);
            }),
        }
        self.expire_dynamic(now);
        self.look_at_deferral(now);
    }

    /// What the driver does next; poll until there is nothing left.
    ///
    /// Order: a route is handed to the driver before any neighbour hears of it.
    pub fn poll_output(&mut self) -> Option<Output> {
        loop {
            if let Some(output) = self.queue.pop_front() {
                return Some(output);
            }
            if let Some((next_hop, wanted)) = self.rib.next_hop_news() {
                return Some(Output::NextHop { next_hop, wanted });
            }
            if self.judge_again() {
                return Some(Output::Busy);
            }
            if self.is_deferring() {
                return None;
            }
            let Some(changes) = self.next_changes() else {
                if let Some((prefix, by_level)) = self.rib.next_lower() {
                    return Some(Output::Leading { prefix, by_level });
                }
                if self.flush() {
                    continue;
                }
                return None;
            };
            return Some(if changes.is_empty() { Output::Busy } else { Output::Routes(changes) });
        }
    }

    /// Says how much the driver has to send on a connection. Where it is much, UPDATEs wait as marks,
    /// merged, not as bytes. Lasts until it is said anew, or the session ends.
    pub fn set_backlog(&mut self, conn: ConnId, backlog: Backlog) {
        let Some(&index) = self.conns.get(&conn) else { return };
        let Some(channel) = self.channel(index).filter(|channel| channel.up.conn == conn) else {
            return;
        };
        let place = channel.group;
        if let Some(group) = self.group(place) {
            group.set_backlog(index, backlog);
        }
    }

    /// Says whether next hops are being resolved with routes that were handed out: End-of-RIB waits, since there may be more of
    /// them then (RFC 4724 §4.1).
    pub const fn set_resolving(&mut self, resolving: bool) {
        self.resolving = resolving;
    }

    /// The connection of a neighbour's Established session.
    pub fn connection_of(&self, peer: IpAddr) -> Option<ConnId> {
        let neighbour = self.neighbours.get(usize::from(self.index_of(peer)?))?;
        neighbour.channel.as_ref().map(|channel| channel.up.conn)
    }

    /// When `Input::Tick` is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let each = |it: &Neighbour| {
            let stale = [&it.stale, &it.again].map(|stale| stale.as_ref().map(|it| it.until));
            [it.session.next_timeout(), stale[0], stale[1]]
        };
        let neighbours = self.neighbours.iter().flat_map(each).flatten();
        let groups = self.groups.iter().flatten().filter_map(Group::timeout);
        let deferral = self.deferral.as_ref().map(|it| it.timeout(self.now));
        let others = deferral.into_iter().chain(self.dynamic_due);
        neighbours.chain(groups).chain(others).min()
    }

    fn accepted(&mut self, peer: IpAddr, conn: ConnId, local: IpAddr, now: Instant) {
        let Some(index) = self.index_of(peer).or_else(|| self.admit(peer, now)) else {
            // RFC 4486 §4: not a configured neighbour, or one too many.
            let mut out = Vec::new();
            session::refuse(conn, error::CONNECTION_REJECTED, &mut out);
            return self.queue.extend(out.into_iter().filter_map(output));
        };
        self.conns.insert(conn, index);
        self.with_session(index, now, |session, now, out| {
            session.accepted(conn, local, now, out);
        });
    }

    fn index_of(&self, peer: IpAddr) -> Option<PeerIndex> {
        self.by_address.get(&peer.to_canonical()).copied()
    }

    fn each_session(
        &mut self,
        now: Instant,
        step: impl Fn(&mut Session, Instant, &mut Vec<Effect>),
    ) {
        for (index, _) in (0..).zip(0..self.neighbours.len()) {
            self.with_session(index, now, &step);
        }
    }

    fn with_session(
        &mut self,
        index: PeerIndex,
        now: Instant,
        step: impl FnOnce(&mut Session, Instant, &mut Vec<Effect>),
    ) {
        let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) else { return };
        let mut effects = Vec::new();
        step(&mut neighbour.session, now, &mut effects);
        for effect in effects {
            self.carry_out(index, effect, now);
        }
        self.look_at_dynamic(index, now);
    }

    fn carry_out(&mut self, index: PeerIndex, effect: Effect, now: Instant) {
        match effect {
            Effect::Output(output) => {
                if let Output::Close { conn } = output {
                    self.conns.remove(&conn);
                }
                self.queue.push_back(output);
            }
            Effect::Up(up) => {
                self.up(index, up);
                self.back(index, now);
            }
            Effect::Down(kept) => self.down(index, kept, now),
            Effect::Update(body) => self.ingest(index, &body, now),
            Effect::Refresh(family) => self.refresh(index, family),
            Effect::RefreshBegins(family) => self.refresh_begins(index, family, now),
            Effect::RefreshEnds(family) => self.refresh_ends(index, family),
        }
    }

    fn channel(&mut self, index: PeerIndex) -> Option<&mut Channel> {
        self.neighbours.get_mut(usize::from(index))?.channel.as_mut()
    }

    fn group(&mut self, place: usize) -> Option<&mut Group> {
        self.groups.get_mut(place)?.as_mut()
    }
}

/// What a session's effect asks of the driver directly.
fn output(effect: Effect) -> Option<Output> {
    match effect {
        Effect::Output(output) => Some(output),
        Effect::Up(_)
        | Effect::Down(_)
        | Effect::Update(_)
        | Effect::Refresh(_)
        | Effect::RefreshBegins(_)
        | Effect::RefreshEnds(_) => None,
    }
}

/// The place of a judge among those that there are; `Speaker::check` bounds them.
fn place(judges: &mut Vec<Judge>, judge: Judge) -> u16 {
    let known = judges.iter().position(|known| *known == judge);
    let place = known.unwrap_or_else(|| {
        judges.push(judge);
        judges.len() - 1
    });
    u16::try_from(place).unwrap_or(u16::MAX)
}

/// How the best path is found.
fn rules(config: &SpeakerConfig) -> Rules {
    Rules { decision: config.decision, max_paths: config.max_paths }
}

fn ranking(config: &SpeakerConfig, peer: &PeerConfig) -> Ranking {
    Ranking {
        external: peer.is_external(config),
        client: peer.route_reflector_client,
        router_id: Ipv4Addr::UNSPECIFIED,
        address: peer.address,
    }
}

#[cfg(test)]
mod tests;
