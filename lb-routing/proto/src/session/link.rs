//! One connection of a session: its stream, its timers and its phase from OpenSent on.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::jitter::Jitter;
use super::open::Negotiated;
use crate::speaker::{ConnId, State};
use crate::wire::{self, Context, Framer, Message, Notification};

/// HoldTimer until the neighbour's OPEN is there (RFC 4271 §8.2.2, "a large value").
pub(crate) const OPEN_HOLD_TIME: Duration = Duration::from_secs(240);

/// A connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) conn: ConnId,
    /// Our end.
    pub(crate) local: IpAddr,
    pub(crate) phase: Phase,
    /// Our own connect was given up for it.
    pub(crate) instead: bool,
    /// HoldTimer; none where the negotiated hold time is zero.
    pub(crate) hold_at: Option<Instant>,
    /// KeepaliveTimer.
    pub(crate) keepalive_at: Option<Instant>,
    /// Holds less than one message between two calls.
    framer: Framer,
}

/// What a stream holds.
#[derive(Debug)]
pub(crate) enum Received {
    /// The body of an UPDATE: to be read by whom its routes are for.
    Update(Box<[u8]>),
    /// Any other message.
    Message(Message),
}

/// How far a connection has come.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Their OPEN is awaited before ours goes out (DelayOpenTimer, RFC 4271 §8.1.1).
    Delayed {
        /// Ours goes out then.
        until: Instant,
    },
    /// Our OPEN is sent, theirs awaited.
    OpenSent,
    /// Their OPEN is good, their KEEPALIVE awaited.
    OpenConfirm {
        /// What was agreed.
        negotiated: Negotiated,
        /// Their KEEPALIVE is there, and only the outcome of a collision is awaited.
        confirmed: bool,
        /// Ours waits for that, too.
        silent: bool,
    },
    /// Routes flow.
    Established {
        /// What was agreed.
        negotiated: Negotiated,
    },
}

impl Link {
    pub(crate) fn new(conn: ConnId, local: IpAddr, now: Instant) -> Self {
        let hold_at = Some(now + OPEN_HOLD_TIME);
        let local = local.to_canonical();
        let framer = Framer::new();
        let phase = Phase::OpenSent;
        Self { conn, local, phase, instead: false, hold_at, keepalive_at: None, framer }
    }

    pub(crate) const fn state(&self) -> State {
        match self.phase {
            // RFC 4271 §8.2.2: until OPEN is sent, nothing but a connection is there.
            Phase::Delayed { .. } => State::Active,
            Phase::OpenSent => State::OpenSent,
            Phase::OpenConfirm { .. } => State::OpenConfirm,
            Phase::Established { .. } => State::Established,
        }
    }

    pub(crate) const fn negotiated(&self) -> Option<&Negotiated> {
        match &self.phase {
            Phase::Delayed { .. } | Phase::OpenSent => None,
            Phase::OpenConfirm { negotiated, .. } | Phase::Established { negotiated } => {
                Some(negotiated)
            }
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.framer.push(bytes);
    }

    /// Messages may be longer from now on (RFC 8654).
    pub(crate) const fn extend(&mut self) {
        self.framer.extend();
    }

    /// The next whole message of the stream.
    pub(crate) fn next_message(&mut self) -> Result<Option<Received>, Notification> {
        // Before OPEN nothing that depends on the context is legal.
        let before = Context { four_octet_as: true, external: true };
        let context = self.negotiated().map_or(before, |negotiated| negotiated.context);
        let Some(bytes) = self.framer.next_message()? else { return Ok(None) };
        if let Some(body) = wire::update_body(bytes) {
            return Ok(Some(Received::Update(body.into())));
        }
        wire::decode(bytes, context).map(Received::Message).map(Some)
    }

    /// Restarts the HoldTimer.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.hold_at = self.timed_by(|hold_time| now + hold_time);
    }

    /// Restarts the KeepaliveTimer: a third of the hold time or what is configured, jittered (RFC 4271 §4.4, §10).
    pub(crate) fn kept_alive(
        &mut self,
        configured: Option<Duration>,
        now: Instant,
        jitter: &mut Jitter,
    ) {
        let of = |hold_time: Duration| configured.unwrap_or(hold_time).min(hold_time / 3);
        self.keepalive_at = self.timed_by(|hold_time| now + jitter.of(of(hold_time)));
    }

    /// When OPEN goes out that waits for theirs.
    pub(crate) const fn open_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Delayed { until } => Some(until),
            Phase::OpenSent | Phase::OpenConfirm { .. } | Phase::Established { .. } => None,
        }
    }

    fn timed_by(&self, at: impl FnOnce(Duration) -> Instant) -> Option<Instant> {
        let hold_time = self.negotiated()?.hold_time;
        (!hold_time.is_zero()).then(|| at(hold_time))
    }
}
