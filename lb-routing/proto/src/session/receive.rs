//! Bytes from the neighbour: what each message does in each state (RFC 4271 §8.2.2).

use std::time::Instant;

use super::collision::{self, Side};
use super::dialer::Dialer;
use super::link::{Link, Phase, Received};
use super::lose::Loss;
use super::{COLLISION_WAIT, Effect, Session, Up, open};
use crate::speaker::{ConnId, State};
use crate::wire::{self, Family, Message, Notification, Open, error};

impl Session {
    /// Bytes arrived on a connection, in any portions.
    pub(crate) fn received(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        let Some(side) = self.side_of(conn) else { return };
        if let Some(link) = self.slot(side) {
            link.push(bytes);
        }
        // Ends with the stream, or with the connection: each message can close it.
        while let Some(link) = self.slot(side).as_mut().filter(|link| link.conn == conn) {
            match link.next_message() {
                Ok(Some(message)) => {
                    match &message {
                        Received::Update(_) => self.messages_received.update += 1,
                        Received::Message(message) => self.messages_received.count(message),
                    }
                    self.on_message(side, message, now, out);
                }
                Ok(None) => break,
                Err(notification) => self.lose(side, Loss::Sent(notification), now, out),
            }
        }
    }

    fn on_message(&mut self, side: Side, message: Received, now: Instant, out: &mut Vec<Effect>) {
        let Some(link) = self.slot(side) else { return };
        match (&mut link.phase, message) {
            (_, Received::Message(Message::Notification(theirs))) => {
                self.lose(side, Loss::Received(theirs), now, out);
            }
            (Phase::Delayed { .. }, Received::Message(Message::Open(open))) => {
                self.open(side, out);
                self.on_open(side, &open, now, out);
            }
            (Phase::OpenSent, Received::Message(Message::Open(open))) => {
                self.on_open(side, &open, now, out);
            }
            (Phase::OpenConfirm { .. }, Received::Message(Message::Keepalive)) => {
                self.on_confirm(side, now, out);
            }
            // The neighbour resolved a collision before we did.
            (
                Phase::OpenConfirm { confirmed: true, .. },
                routes @ (Received::Update(_)
                | Received::Message(Message::RouteRefresh(_) | Message::RefreshMark(..))),
            ) => {
                self.establish(side, now, out);
                self.on_message(side, routes, now, out);
            }
            (Phase::Established { .. }, Received::Message(Message::Keepalive)) => link.heard(now),
            (Phase::Established { .. }, Received::Update(body)) => {
                link.heard(now);
                out.push(Effect::Update(body));
            }
            (Phase::Established { .. }, Received::Message(Message::RouteRefresh(family))) => {
                link.heard(now);
                out.push(Effect::Refresh(family));
            }
            (
                Phase::Established { negotiated },
                Received::Message(Message::RefreshMark(family, subtype)),
            ) => {
                out.extend(marked(negotiated.enhanced_refresh, family, subtype));
                link.heard(now);
            }
            (
                Phase::Delayed { .. }
                | Phase::OpenSent
                | Phase::OpenConfirm { .. }
                | Phase::Established { .. },
                unexpected,
            ) => {
                let notification = out_of_place(link.state(), &unexpected);
                self.lose(side, Loss::Sent(notification), now, out);
            }
        }
    }

    fn on_open(&mut self, side: Side, theirs: &Open, now: Instant, out: &mut Vec<Effect>) {
        if self.peer.may_be(theirs.asn) {
            self.peer.asn = theirs.asn;
        } else {
            self.wrong_as += 1;
        }
        let negotiated = match open::negotiate(&self.local, &self.peer, theirs) {
            Ok(negotiated) => negotiated,
            Err(notification) => return self.lose(side, Loss::Sent(notification), now, out),
        };
        self.families_before = Some(negotiated.families.clone());
        let rival = side.other();
        let winner = self.winner(theirs);
        let mut theirs_to_decide = false;
        if let Some(Phase::OpenConfirm { silent, .. }) = self.link(rival).map(|link| &link.phase) {
            let cease = Notification::new(error::CONNECTION_COLLISION_RESOLUTION);
            if winner == rival {
                return self.close_link(side, &cease, out);
            }
            theirs_to_decide = !silent;
            if !theirs_to_decide {
                self.close_link(rival, &cease, out);
            }
        }
        let Some(link) = self.slot(side) else { return };
        if negotiated.extended_messages {
            link.extend();
        }
        link.phase = Phase::OpenConfirm { negotiated, confirmed: false, silent: false };
        link.heard(now);
        if theirs_to_decide {
            // By our KEEPALIVE the loser may be its session already: it closes one of the two.
            self.be_silent(side, now);
            self.hurry(side, now);
        } else if winner == rival && self.link(rival).is_some() {
            self.be_silent(side, now);
            self.hurry(rival, now);
        } else {
            self.keep_alive(side, now, out);
            // Ours would win, and come too late.
            self.give_up_connect(side, out);
        }
        self.report("received OPEN", now, out);
    }

    /// Our own connect ends for a connection that has come further.
    fn give_up_connect(&mut self, side: Side, out: &mut Vec<Effect>) {
        let connects = matches!(self.dialer, Dialer::Connect { .. });
        self.abort_connect(out);
        if let Some(link) = self.slot(side) {
            link.instead = connects;
        }
    }

    /// KEEPALIVE in OpenConfirm (Event 26).
    fn on_confirm(&mut self, side: Side, now: Instant, out: &mut Vec<Effect>) {
        let ours = self.identity();
        let asn = self.peer.asn;
        let Some(link) = self.slot(side) else { return };
        link.heard(now);
        let Phase::OpenConfirm { negotiated, confirmed, .. } = &mut link.phase else { return };
        let winner = collision::winner(ours, (negotiated.router_id, asn));
        *confirmed = true;
        match self.link(side.other()) {
            Some(_) if winner != side => self.hurry(side.other(), now),
            Some(_) | None => self.establish(side, now, out),
        }
    }

    /// A connection says no KEEPALIVE while the one that would win against it may come: with it the neighbour would be in
    /// Established, and close the other one, which we keep. Not for longer than until the next one is due, since the
    /// neighbour's HoldTimer runs.
    fn be_silent(&mut self, side: Side, now: Instant) {
        self.keep_alive_later(side, now);
        if let Some(Link { phase: Phase::OpenConfirm { silent, .. }, .. }) = self.slot(side) {
            *silent = true;
        }
    }

    /// A connection that another one waits for has so long to come further.
    pub(super) fn hurry(&mut self, side: Side, now: Instant) {
        if let Some(link) = self.slot(side) {
            let deadline = now + COLLISION_WAIT;
            link.hold_at = Some(link.hold_at.map_or(deadline, |at| at.min(deadline)));
        }
    }

    /// Nothing is waited for any more: what a connection did not say is said now.
    pub(super) fn speak_up(&mut self, side: Side, now: Instant, out: &mut Vec<Effect>) {
        if let Some(Link { phase: Phase::OpenConfirm { silent, .. }, .. }) = self.slot(side)
            && std::mem::take(silent)
        {
            self.keep_alive(side, now, out);
        }
    }

    /// Routes flow from here on; whatever else looked for a connection ends.
    pub(super) fn establish(&mut self, side: Side, now: Instant, out: &mut Vec<Effect>) {
        let cease = Notification::new(error::CONNECTION_COLLISION_RESOLUTION);
        self.close_link(side.other(), &cease, out);
        self.abort_connect(out);
        self.speak_up(side, now, out);
        let Some(link) = self.slot(side) else { return };
        let Some(negotiated) = link.negotiated().cloned() else { return };
        link.phase = Phase::Established { negotiated: negotiated.clone() };
        link.heard(now);
        let (conn, local) = (link.conn, link.local);
        self.past.preserved = true;
        self.notified = None;
        out.push(Effect::Up(Up { conn, local, negotiated }));
        self.report("established", now, out);
    }

    fn winner(&self, theirs: &Open) -> Side {
        collision::winner(self.identity(), (theirs.router_id, theirs.asn))
    }
}

/// What a ROUTE-REFRESH with a subtype says; where that was not agreed on, the octet is reserved (RFC 2918 §3).
const fn marked(enhanced: bool, family: Family, subtype: u8) -> Option<Effect> {
    match (enhanced, subtype) {
        (false, _) => Some(Effect::Refresh(family)),
        (true, wire::REFRESH_BEGINS) => Some(Effect::RefreshBegins(family)),
        (true, wire::REFRESH_ENDS) => Some(Effect::RefreshEnds(family)),
        // RFC 7313 §5: ignored.
        (true, _) => None,
    }
}

/// A message that its state does not allow; the data names its type (RFC 6608 §3).
fn out_of_place(state: State, message: &Received) -> Notification {
    let code = match state {
        State::OpenSent => error::UNEXPECTED_MESSAGE_IN_OPEN_SENT,
        State::OpenConfirm => error::UNEXPECTED_MESSAGE_IN_OPEN_CONFIRM,
        State::Established => error::UNEXPECTED_MESSAGE_IN_ESTABLISHED,
        State::Idle | State::Connect | State::Active => error::FINITE_STATE_MACHINE_ERROR,
    };
    let kind = match message {
        Received::Message(Message::Open(_)) => 1,
        Received::Update(_) | Received::Message(Message::Update(_)) => 2,
        Received::Message(Message::Notification(_)) => 3,
        Received::Message(Message::Keepalive) => 4,
        Received::Message(Message::RouteRefresh(_) | Message::RefreshMark(..)) => 5,
    };
    Notification::with_data(code, [kind])
}
