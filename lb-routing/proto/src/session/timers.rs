//! What happens when time passes (RFC 4271 §8.1.3, §10).

use std::time::Instant;

use super::collision::Side;
use super::dialer::Dialer;
use super::link::{Link, Phase};
use super::lose::Loss;
use super::{Effect, Session};
use crate::wire::{Message, Notification, error};

impl Session {
    /// The next timer.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let links = Side::BOTH.into_iter().filter_map(|side| self.link(side));
        let timers = links.flat_map(|link| [link.hold_at, link.keepalive_at, link.open_at()]);
        timers.chain([self.dialer.timer()]).flatten().min()
    }

    /// Fires the timers that are due.
    pub(crate) fn tick(&mut self, now: Instant, out: &mut Vec<Effect>) {
        for side in Side::BOTH {
            self.tick_link(side, now, out);
        }
        if self.dialer.timer().is_some_and(|at| at <= now) {
            self.tick_dialer(now, out);
        }
    }

    fn tick_link(&mut self, side: Side, now: Instant, out: &mut Vec<Effect>) {
        let Some(link) = self.link(side) else { return };
        if link.hold_at.is_some_and(|at| at <= now) {
            let expired = Notification::new(error::HOLD_TIMER_EXPIRED);
            self.lose(side, Loss::Sent(expired), now, out);
        } else if link.keepalive_at.is_some_and(|at| at <= now) {
            self.keep_alive(side, now, out);
        } else if link.open_at().is_some_and(|at| at <= now) {
            self.open(side, out);
            self.report("delay open timer expired", now, out);
        }
    }

    fn tick_dialer(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let cause = match self.dialer {
            Dialer::Idle { .. } => "idle hold timer expired",
            Dialer::Connect { .. } => {
                self.abort_connect(out);
                "connect retry timer expired"
            }
            Dialer::Active { .. } => "connect retry timer expired",
        };
        self.dial(now, out);
        self.report(cause, now, out);
    }

    /// Sends KEEPALIVE and restarts its timer.
    pub(super) fn keep_alive(&mut self, side: Side, now: Instant, out: &mut Vec<Effect>) {
        let Some(conn) = self.link(side).map(|link| link.conn) else { return };
        self.send(conn, &Message::Keepalive, out);
        if let Some(Link { phase: Phase::OpenConfirm { silent, .. }, .. }) = self.slot(side) {
            *silent = false;
        }
        self.keep_alive_later(side, now);
    }

    /// Restarts the timer.
    pub(super) fn keep_alive_later(&mut self, side: Side, now: Instant) {
        let jitter = &mut self.jitter;
        let link = match side {
            Side::Outgoing => &mut self.outgoing,
            Side::Incoming => &mut self.incoming,
        };
        if let Some(link) = link {
            link.kept_alive(self.peer.keepalive, now, jitter);
        }
    }
}
