//! The end of a connection, and what the session does next.

use std::time::{Duration, Instant};

use super::collision::Side;
use super::dialer::Dialer;
use super::link::{Link, Phase};
use super::{Effect, Session, close, graceful};
use crate::speaker::State;
use crate::wire::{Message, Notification, error};

/// Why a connection ends.
#[derive(Clone, Debug)]
pub(crate) enum Loss {
    /// We end it with this NOTIFICATION.
    Sent(Notification),
    /// The neighbour ended it with this NOTIFICATION.
    Received(Notification),
    /// TCP ended.
    Closed(String),
    /// The neighbour opened another one, so it no longer knows of this one (RFC 4724 §5).
    Superseded,
    /// The session is stopped.
    Stopped(Notification),
}

/// What a session without a connection does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// It connects at once, which it gave up for the connection that is lost.
    Connect,
    /// It listens, and connects when the ConnectRetryTimer fires.
    Listen,
    /// It rests in Idle.
    Rest,
}

impl Loss {
    fn describe(&self) -> String {
        match self {
            Self::Sent(notification) => format!("sent {}", notification.describe()),
            Self::Received(notification) => format!("received {}", notification.describe()),
            Self::Closed(error) => format!("connection closed: {error}"),
            Self::Superseded => "the neighbour connected anew: it has restarted".to_owned(),
            Self::Stopped(notification) => format!("stopped: {}", notification.describe()),
        }
    }

    /// What a session without another connection does next.
    fn next(&self, link: &Link) -> Next {
        let state = link.state();
        let harmless = self.is_harmless(state);
        let undoes = link.instead && state == State::OpenConfirm;
        if undoes && (harmless || matches!(self, Self::Closed(_))) {
            Next::Connect
        } else if harmless {
            Next::Listen
        } else {
            Next::Rest
        }
    }

    /// One end told the other one why.
    const fn is_told(&self) -> bool {
        match self {
            Self::Sent(_) | Self::Received(_) | Self::Stopped(_) => true,
            Self::Closed(_) | Self::Superseded => false,
        }
    }

    /// Nobody misbehaved.
    fn is_harmless(&self, state: State) -> bool {
        match self {
            // RFC 4271 §8.2.2, OpenSent, Event 18.
            Self::Closed(_) => matches!(state, State::Active | State::OpenSent),
            // BIRD 1.6 gives no reason where it closes one of two connections.
            Self::Received(cease) => {
                let collision = [error::CONNECTION_COLLISION_RESOLUTION, error::CEASE];
                collision.contains(&(cease.code, cease.subcode)) && state != State::Established
            }
            Self::Superseded => true,
            Self::Sent(_) | Self::Stopped(_) => false,
        }
    }
}

impl Session {
    /// A connection ends; the session goes on with the other one, with its connect, or from Idle.
    pub(super) fn lose(&mut self, side: Side, loss: Loss, now: Instant, out: &mut Vec<Effect>) {
        let Some(link) = self.slot(side).take() else { return };
        let cause = loss.describe();
        match &loss {
            Loss::Sent(notification) | Loss::Stopped(notification) => {
                self.say_goodbye(&link, notification, out);
            }
            Loss::Received(_) | Loss::Superseded => close(link.conn, out),
            Loss::Closed(_) => {}
        }
        let uptime = self.uptime(&link, now);
        if uptime.is_some() {
            out.push(Effect::Down(graceful::kept(&link, &loss)));
        }
        if loss.is_told() {
            self.notified = Some(cause.clone());
            self.last_error.clone_from(&cause);
        } else {
            self.note_error(&cause);
        }
        if !matches!(loss, Loss::Stopped(_)) {
            self.go_on(side, loss.next(&link), uptime, now, out);
        }
        self.report(&cause, now, out);
    }

    /// Something went wrong that no NOTIFICATION says.
    pub(super) fn note_error(&mut self, cause: &str) {
        self.last_error = match &self.notified {
            Some(notified) => format!("{notified}; since then {cause}"),
            None => cause.to_owned(),
        };
    }

    /// Ends the Established session with a NOTIFICATION.
    pub(crate) fn end(&mut self, why: Notification, now: Instant, out: &mut Vec<Effect>) {
        for side in Side::BOTH {
            self.lose(side, Loss::Sent(why.clone()), now, out);
        }
    }

    /// Ends the Established session with a NOTIFICATION, and rests so long; without a time until [`Session::wake`].
    pub(crate) fn end_for(
        &mut self,
        why: Notification,
        rest: Option<Duration>,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        self.end(why, now, out);
        if let Dialer::Idle { until } = &mut self.dialer {
            *until = rest.map(|rest| now + rest);
        }
    }

    /// Rests no longer, unless it is shut down.
    pub(crate) fn wake(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if let Dialer::Idle { .. } = self.dialer {
            self.start(now, out);
        }
    }

    /// Closes a connection in favour of another one; the session is not set back.
    pub(super) fn close_link(&mut self, side: Side, cease: &Notification, out: &mut Vec<Effect>) {
        if let Some(link) = self.slot(side).take() {
            self.say_goodbye(&link, cease, out);
        }
    }

    fn say_goodbye(&mut self, link: &Link, notification: &Notification, out: &mut Vec<Effect>) {
        // RFC 4271 §8.1.2: not without an OPEN before it.
        if link.open_at().is_none() {
            let told = graceful::told(link, notification);
            self.send(link.conn, &Message::Notification(told), out);
        }
        close(link.conn, out);
    }

    fn uptime(&self, link: &Link, now: Instant) -> Option<Duration> {
        match link.phase {
            Phase::Established { .. } => Some(now.saturating_duration_since(self.since)),
            Phase::Delayed { .. } | Phase::OpenSent | Phase::OpenConfirm { .. } => None,
        }
    }

    fn go_on(
        &mut self,
        lost: Side,
        next: Next,
        uptime: Option<Duration>,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        if let Some(rest) = self.link(lost.other()) {
            // The winner of a collision is gone: the loser need not wait any longer.
            if matches!(rest.phase, Phase::OpenConfirm { confirmed: true, .. }) {
                self.establish(lost.other(), now, out);
            } else {
                self.speak_up(lost.other(), now, out);
            }
            return;
        }
        if let Dialer::Connect { .. } = self.dialer {
            return;
        }
        match next {
            Next::Connect => self.dial(now, out),
            Next::Listen => {
                let retry_at = (!self.peer.passive).then(|| self.retry_at(now));
                self.dialer = Dialer::Active { retry_at };
            }
            Next::Rest => {
                let rest = self.damping.rest(self.peer.idle_hold, uptime);
                self.dialer = Dialer::Idle { until: Some(now + self.jitter.of(rest)) };
            }
        }
    }
}
