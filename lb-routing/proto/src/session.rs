//! The session with one neighbour: the FSM of RFC 4271 §8 over up to two connections.
//!
//! RFC 4271 §8.2.1 gives every connection an FSM of its own. Here the states without a connection
//! ([`Dialer`]) are one, and each of the two connections that a neighbour can have, the one that we
//! opened and the one that it opened ([`Side`]), is a [`Link`] from OpenSent on:
//!
//! ```text
//! Dialer:  Idle -> Connect <-> Active          Link:  OpenSent -> OpenConfirm -> Established
//!                     |           |                      ^
//!                     +-----------+---- a connection ----+
//! ```
//!
//! Three knowing departures. A connect that fails leads to Active, not to Idle: an absent neighbour
//! is no misbehaving one. Likewise a connection that the neighbour closed as the loser of a
//! collision. And while a connection that would win a collision is in OpenSent, the other one waits
//! in OpenConfirm (at most [`COLLISION_WAIT`]), without a KEEPALIVE, instead of becoming Established:
//! otherwise the two ends can each close the connection that the other one keeps. A neighbour by the
//! letter of RFC 4271 §6.8 goes to Established by our KEEPALIVE and closes the connection that wins by
//! its identifier, while we close the one that it has established. Where that KEEPALIVE was out before
//! the winner came, the neighbour decides by closing one of the two; and where the winner would be ours
//! and is not connected yet, it is given up, and begun again if the neighbour's connection is gone before
//! its KEEPALIVE.
//!
//! A neighbour that restarts gracefully and connects anew ends its Established session by that (RFC 4724
//! §5), unless the session is younger than [`COLLISION_WAIT`]: then it is a collision that comes late.
//!
//! Invariants: two links at most; both in OpenConfirm only while the neighbour decides; beside an
//! Established one, none.

mod collision;
mod damping;
mod dialer;
mod graceful;
mod jitter;
mod link;
mod lose;
mod open;
mod receive;
mod timers;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use self::collision::Side;
use self::damping::Damping;
use self::dialer::Dialer;
pub(crate) use self::graceful::{Kept, Past};
pub(crate) use self::jitter::Jitter;
use self::link::{Link, Phase};
use self::lose::Loss;
pub(crate) use self::open::Negotiated;
use crate::config::{PeerConfig, SpeakerConfig};
use crate::speaker::{ConnId, Event, Messages, Output, State};
use crate::wire::{self, Family, Message, Notification, error};

/// How long a connection that loses a collision waits for the winner's OPEN.
const COLLISION_WAIT: Duration = Duration::from_secs(10);

/// What a session asks of the speaker, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// For the driver.
    Output(Output),
    /// Established: routes may flow.
    Up(Up),
    /// No longer: its routes are gone, but for what is kept.
    Down(Option<Kept>),
    /// The body of an UPDATE.
    Update(Box<[u8]>),
    /// The neighbour wants our routes again (RFC 2918).
    Refresh(Family),
    /// It tells all of a family again from here on (RFC 7313).
    RefreshBegins(Family),
    /// It has told all of it.
    RefreshEnds(Family),
}

/// An Established session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Up {
    pub(crate) conn: ConnId,
    /// Our end.
    pub(crate) local: IpAddr,
    pub(crate) negotiated: Negotiated,
}

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    local: SpeakerConfig,
    peer: PeerConfig,
    dialer: Dialer,
    outgoing: Option<Link>,
    incoming: Option<Link>,
    damping: Damping,
    jitter: Jitter,
    reported: State,
    since: Instant,
    last_error: String,
    /// The NOTIFICATION that ended the last connection, while none became a session since: connections that are only closed
    /// afterwards do not hide it.
    notified: Option<String>,
    messages_received: Messages,
    messages_sent: Messages,
    /// What OPEN says of our restarts.
    past: Past,
    /// Families of the last session.
    families_before: Option<Vec<Family>>,
    /// OPENs with an AS number that it may not have, which nobody has counted yet.
    wrong_as: u64,
}

impl Session {
    pub(crate) fn new(local: SpeakerConfig, peer: PeerConfig, seed: u64, now: Instant) -> Self {
        Self {
            local,
            peer,
            dialer: Dialer::Idle { until: None },
            outgoing: None,
            incoming: None,
            damping: Damping::default(),
            jitter: Jitter::new(seed),
            reported: State::Idle,
            since: now,
            last_error: String::new(),
            notified: None,
            messages_received: Messages::default(),
            messages_sent: Messages::default(),
            past: Past::default(),
            families_before: None,
            wrong_as: 0,
        }
    }

    pub(crate) const fn config(&self) -> &PeerConfig {
        &self.peer
    }

    /// The furthest that any of its connections has come.
    pub(crate) fn state(&self) -> State {
        let links = Side::BOTH.into_iter().filter_map(|side| self.link(side)).map(Link::state);
        links.max().unwrap_or_else(|| self.dialer.state())
    }

    /// Whether there is a connection, with an OPEN on it or not.
    pub(crate) const fn is_connected(&self) -> bool {
        self.outgoing.is_some() || self.incoming.is_some()
    }

    pub(crate) const fn since(&self) -> Instant {
        self.since
    }

    pub(crate) fn last_error(&self) -> &str {
        &self.last_error
    }

    /// Messages received and sent.
    pub(crate) const fn messages(&self) -> (Messages, Messages) {
        (self.messages_received, self.messages_sent)
    }

    /// UPDATEs and marks (RFC 7313) that the speaker sent by itself.
    pub(crate) const fn count_sent(&mut self, updates: u64, marks: u64) {
        self.messages_sent.update += updates;
        self.messages_sent.route_refresh += marks;
    }

    /// OPENs with an AS number that it may not have, since this was asked last.
    pub(crate) const fn take_wrong_as(&mut self) -> u64 {
        std::mem::replace(&mut self.wrong_as, 0)
    }

    /// What the furthest connection agreed on.
    pub(crate) fn negotiated(&self) -> Option<&Negotiated> {
        Side::BOTH.into_iter().find_map(|side| self.link(side)?.negotiated())
    }

    /// What OPENs say of our restarts from now on.
    pub(crate) const fn remember(&mut self, past: Past) {
        self.past = past;
    }

    /// ManualStart, with passive TCP establishment where configured (Events 1 and 4).
    pub(crate) fn start(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.peer.shutdown.is_some() {
            return;
        }
        self.notified = None;
        self.dial(now, out);
        self.report("started", now, out);
    }

    /// ManualStop (Event 2), with a Cease (RFC 4486), and no restart.
    pub(crate) fn stop(&mut self, cease: Notification, now: Instant, out: &mut Vec<Effect>) {
        self.abort_connect(out);
        self.dialer = Dialer::Idle { until: None };
        let cause = format!("stopped: {}", cease.describe());
        for side in Side::BOTH {
            self.lose(side, Loss::Stopped(cease.clone()), now, out);
        }
        self.report(&cause, now, out);
    }

    /// The neighbour is configured otherwise from now on.
    pub(crate) fn configure(&mut self, new: PeerConfig, now: Instant, out: &mut Vec<Effect>) {
        let old = std::mem::replace(&mut self.peer, new);
        let connects_otherwise = self.peer.connects_otherwise(&old);
        match (&old.shutdown, &self.peer.shutdown) {
            (None, Some(message)) => {
                let code = error::ADMINISTRATIVE_SHUTDOWN;
                let cease = Notification::with_communication(code, message);
                return self.stop(cease, now, out);
            }
            (Some(_), None) => return self.start(now, out),
            (Some(_), Some(_)) => return,
            (None, None) => {}
        }
        if connects_otherwise {
            self.end(Notification::new(error::OTHER_CONFIGURATION_CHANGE), now, out);
        }
        if self.peer.max_prefixes != old.max_prefixes {
            // It may rest because of the old limit.
            self.wake(now, out);
        }
        let idle = Side::BOTH.into_iter().all(|side| self.link(side).is_none());
        if idle && (connects_otherwise || self.peer.passive != old.passive) {
            self.abort_connect(out);
            self.notified = None;
            self.dial(now, out);
            self.report("configured otherwise", now, out);
        }
    }

    /// Connections are made otherwise from now on: whatever there is of one ends.
    pub(crate) fn reconnect(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.end(Notification::new(error::OTHER_CONFIGURATION_CHANGE), now, out);
        if let Dialer::Connect { .. } = self.dialer {
            self.abort_connect(out);
            self.dial(now, out);
        }
    }

    /// Asks for the neighbour's routes again (RFC 2918); says whether it can be asked.
    pub(crate) fn ask_again(&mut self, out: &mut Vec<Effect>) -> bool {
        let established = Side::BOTH.into_iter().find_map(|side| {
            let link = self.link(side)?;
            let Phase::Established { negotiated } = &link.phase else { return None };
            Some((link.conn, negotiated.route_refresh, negotiated.families.clone()))
        });
        // Without a session there is nothing to ask for: the next one brings all.
        let Some((conn, can, families)) = established else { return true };
        for family in families.into_iter().filter(|_| can) {
            self.send(conn, &Message::RouteRefresh(family), out);
        }
        can
    }

    /// Our connect succeeded (Event 16).
    pub(crate) fn connected(
        &mut self,
        conn: ConnId,
        local: IpAddr,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        match self.dialer {
            Dialer::Connect { .. } => {}
            // The answer to a connect that was given up meanwhile.
            Dialer::Idle { .. } | Dialer::Active { .. } => return close(conn, out),
        }
        self.adopt(Side::Outgoing, Link::new(conn, local, now), now, out);
        self.report("connected", now, out);
    }

    /// Our connect failed (Event 18).
    pub(crate) fn connect_failed(&mut self, error: &str, now: Instant, out: &mut Vec<Effect>) {
        if let Dialer::Connect { retry_at } = self.dialer {
            // The ConnectRetryTimer runs on: that is the pace of attempts.
            self.dialer = Dialer::Active { retry_at: self.incoming.is_none().then_some(retry_at) };
            let cause = format!("connect failed: {error}");
            self.note_error(&cause);
            self.report(&cause, now, out);
        }
    }

    /// The neighbour connected to us (Event 17).
    pub(crate) fn accepted(
        &mut self,
        conn: ConnId,
        local: IpAddr,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        match (self.state(), &self.incoming) {
            // RFC 4271 §8.2.2: Idle refuses. Without a NOTIFICATION, which would send the
            // neighbour to rest in its turn.
            (State::Idle, _) => return close(conn, out),
            // RFC 4271 §6.8: the new connection loses against an Established one.
            (State::Established, _) if self.has_restarted(now) => {
                for side in Side::BOTH {
                    self.lose(side, Loss::Superseded, now, out);
                }
            }
            (State::Established, _) => {
                return refuse(conn, error::CONNECTION_COLLISION_RESOLUTION, out);
            }
            (_, Some(Link { phase: Phase::OpenSent | Phase::Delayed { .. }, .. })) => {
                // The neighbour opens one connection at a time: it gave up the silent one.
                let cease = Notification::new(error::CONNECTION_COLLISION_RESOLUTION);
                self.close_link(Side::Incoming, &cease, out);
            }
            // The bound: one connection by each side.
            (_, Some(_)) => return refuse(conn, error::CONNECTION_REJECTED, out),
            (_, None) => {}
        }
        self.adopt(Side::Incoming, Link::new(conn, local, now), now, out);
        self.report("accepted a connection", now, out);
    }

    /// Whether a connection beside the Established one means that the neighbour has restarted: it said that it might, and
    /// a collision is over by now.
    fn has_restarted(&self, now: Instant) -> bool {
        let graceful = self.negotiated().and_then(|negotiated| negotiated.graceful.as_ref());
        graceful.is_some_and(|graceful| !graceful.families.is_empty())
            && now.saturating_duration_since(self.since) >= COLLISION_WAIT
    }

    /// A connection ended (Event 18).
    pub(crate) fn closed(
        &mut self,
        conn: ConnId,
        error: &str,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        if let Some(side) = self.side_of(conn) {
            self.lose(side, Loss::Closed(error.to_owned()), now, out);
        }
    }

    /// A connection is there: OPEN goes out, at once or after DelayOpenTime; the ConnectRetryTimer stops where it is not
    /// needed.
    fn adopt(&mut self, side: Side, mut link: Link, now: Instant, out: &mut Vec<Effect>) {
        if self.peer.delay_open.is_zero() {
            self.send_open(link.conn, out);
        } else {
            link.phase = Phase::Delayed { until: now + self.jitter.of(self.peer.delay_open) };
        }
        match (side, self.dialer) {
            // Our own connect goes on beside an accepted connection: a collision decides.
            (Side::Incoming, Dialer::Connect { .. }) => {}
            (Side::Outgoing | Side::Incoming, _) => {
                self.dialer = Dialer::Active { retry_at: None };
            }
        }
        *self.slot(side) = Some(link);
        let waits = |it: &Link| {
            matches!(
                it.phase,
                Phase::OpenConfirm { confirmed: true, .. }
                    | Phase::OpenConfirm { silent: true, .. }
            )
        };
        if self.link(side.other()).is_some_and(waits) {
            self.hurry(side, now);
        }
    }

    fn send_open(&mut self, conn: ConnId, out: &mut Vec<Effect>) {
        let before = self.families_before.as_deref();
        let open = Message::Open(open::ours(&self.local, &self.peer, self.past, before));
        self.send(conn, &open, out);
    }

    /// OPEN goes out on a connection that waited for theirs.
    fn open(&mut self, side: Side, out: &mut Vec<Effect>) {
        let Some(link) = self.slot(side) else { return };
        link.phase = Phase::OpenSent;
        let conn = link.conn;
        self.send_open(conn, out);
    }

    /// Looks for a connection: connects, or where it is passive only listens.
    fn dial(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.peer.passive {
            self.dialer = Dialer::Active { retry_at: None };
            return;
        }
        self.dialer = Dialer::Connect { retry_at: self.retry_at(now) };
        out.push(Effect::Output(Output::Connect {
            peer: self.peer.address,
            port: self.peer.port,
            source: self.peer.source,
        }));
    }

    fn abort_connect(&mut self, out: &mut Vec<Effect>) {
        if let Dialer::Connect { .. } = self.dialer {
            self.dialer = Dialer::Active { retry_at: None };
            out.push(Effect::Output(Output::AbortConnect { peer: self.peer.address }));
        }
    }

    fn retry_at(&mut self, now: Instant) -> Instant {
        now + self.jitter.of(self.peer.connect_retry)
    }

    fn send(&mut self, conn: ConnId, message: &Message, out: &mut Vec<Effect>) {
        self.messages_sent.count(message);
        out.push(Effect::Output(send(conn, message)));
    }

    fn report(&mut self, cause: &str, now: Instant, out: &mut Vec<Effect>) {
        let state = self.state();
        if state != self.reported {
            self.reported = state;
            self.since = now;
            let (peer, cause) = (self.peer.address, cause.to_owned());
            out.push(Effect::Output(Output::Event(Event::State { peer, state, cause })));
        }
    }

    /// What decides a collision on our side.
    fn identity(&self) -> (Ipv4Addr, u32) {
        (self.local.router_id, self.peer.our_as(&self.local))
    }

    fn side_of(&self, conn: ConnId) -> Option<Side> {
        Side::BOTH.into_iter().find(|&side| self.link(side).is_some_and(|link| link.conn == conn))
    }

    const fn link(&self, side: Side) -> Option<&Link> {
        match side {
            Side::Outgoing => self.outgoing.as_ref(),
            Side::Incoming => self.incoming.as_ref(),
        }
    }

    const fn slot(&mut self, side: Side) -> &mut Option<Link> {
        match side {
            Side::Outgoing => &mut self.outgoing,
            Side::Incoming => &mut self.incoming,
        }
    }
}

fn send(conn: ConnId, message: &Message) -> Output {
    // Nothing but an UPDATE depends on it, and UPDATEs go another way.
    let context = wire::Context { four_octet_as: true, external: true };
    Output::Send { conn, bytes: wire::encode(message, context).into() }
}

fn close(conn: ConnId, out: &mut Vec<Effect>) {
    out.push(Effect::Output(Output::Close { conn }));
}

/// Turns a connection away that no session takes, with a Cease (RFC 4486).
pub(crate) fn refuse(conn: ConnId, code: (u8, u8), out: &mut Vec<Effect>) {
    let cease = Message::Notification(Notification::new(code));
    out.push(Effect::Output(send(conn, &cease)));
    close(conn, out);
}

#[cfg(test)]
mod tests;
