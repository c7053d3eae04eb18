//! From the pure parts to the world: what they want done is done here, as far as there is room.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lb_routing_proto::fib::{Fact, Output as FibOutput};
use lb_routing_proto::speaker::{Backlog, ConnId, Event, Input, Output, RouteChange, State};

use super::task::{Synced, Task};
use crate::kernel::Request;
use crate::plan::RouteId;
use crate::tcp::{self, Connection, Queued};
use crate::transport::Transport;

/// Outputs of the speaker, and of the resolver, in one go, before the world is looked at again.
const TURN: usize = 2048;
/// Updates that wait for the dataplane at most. At the bound the kernel's routes of ours wait too.
const WAITING: usize = 65_536;
/// Operations in one request to the installer.
const REQUEST: usize = 512;
/// Neighbours that the kernel is asked for in one request.
const RESOLVE: usize = 256;
/// How long End-of-RIB waits at most until there is nothing to resolve: amid changes without end there always is.
const RESOLVING_LIMIT: Duration = Duration::from_secs(60);
/// Neighbours in use that the kernel is asked to check in a second, at least and at most.
const CHECKED: (usize, usize) = (64, 1024);
/// Seconds in which it is asked for each, as far as the bound allows.
const ROUND_SECS: usize = 30;

impl Task {
    /// Does what the pure parts want, up to a bound; says whether there is more.
    pub(super) fn pump(&mut self, now: Instant) -> bool {
        if !self.started {
            return false;
        }
        let speaker_has_more = self.pump_speaker(now);
        let fib_has_more = self.pump_fib(now);
        let is_quiet = !speaker_has_more && fib_has_more == Some(false);
        self.settled = is_quiet && !self.speaker.is_deferring();
        let end_is_due = is_quiet && self.settle();
        if self.resolving.is_some_and(|since| now >= since + RESOLVING_LIMIT) {
            self.speaker.set_resolving(false);
        }
        self.pump_installer(now);
        speaker_has_more || fib_has_more == Some(true) || end_is_due
    }

    fn pump_speaker(&mut self, now: Instant) -> bool {
        for _ in 0..TURN {
            match self.speaker.poll_output() {
                Some(Output::Busy) => return true,
                Some(output) => self.carry_out(output, now),
                None => return false,
            }
        }
        true
    }

    /// Neither the speaker nor the resolver has anything to add to what the other one said: what is chosen by way of next hops
    /// that other routes lead to is there as well. Says whether End-of-RIB may have waited for that.
    fn settle(&mut self) -> bool {
        // Routes that are in the dataplane alone are only there to be kept.
        let waits = self.keeps_dataplane && self.convergence.is_some();
        if self.synced == Synced::NotYet && !waits {
            self.synced = Synced::Due;
        }
        self.speaker.set_resolving(false);
        self.resolving.take().is_some()
    }

    /// Stops where much waits for the dataplane: changes then merge in the resolver. Says whether there is more for this loop
    /// to do, here or in the speaker; `None`: it waits for the dataplane.
    fn pump_fib(&mut self, now: Instant) -> Option<bool> {
        if self.frozen {
            return None;
        }
        // What the speaker makes of it comes in the next go.
        let mut costs_changed = false;
        let mut turns = 0;
        while self.updates.len() < WAITING {
            if turns == TURN {
                return Some(true);
            }
            turns += 1;
            match self.fib.poll_output() {
                Some(FibOutput::Update(update)) => self.updates.push_back(update),
                Some(FibOutput::Install { prefix, metric, route }) => {
                    self.plan.set(RouteId { prefix, metric }, route);
                }
                Some(FibOutput::NextHop { next_hop, reach }) => {
                    self.speaker.handle(Input::NextHop { next_hop, reach }, now);
                    costs_changed = true;
                }
                Some(FibOutput::Resolve { ifindex, address }) => {
                    self.resolve.insert((ifindex, address));
                }
                Some(FibOutput::Busy) => return Some(true),
                None => return Some(costs_changed),
            }
        }
        costs_changed.then_some(true)
    }

    fn pump_installer(&mut self, now: Instant) {
        if self.io.installer_busy || self.frozen {
            return;
        }
        let addresses = self.addresses.next_batch(REQUEST, now);
        let ops = self.plan.ledger.next_batch(REQUEST, now);
        let mut resolve = Vec::new();
        while resolve.len() < RESOLVE
            && let Some(neighbour) = self.resolve.pop_first()
        {
            resolve.push(neighbour);
        }
        if addresses.is_empty() && ops.is_empty() && resolve.is_empty() {
            return;
        }
        // There is room: a request goes only after the outcomes of the one before.
        if self.io.requests.try_send(Request { addresses, ops, resolve }).is_ok() {
            self.io.installer_busy = true;
        }
    }

    /// The fast path's packets do not tell the kernel that a neighbour is in use; this does. The kernel
    /// then checks it when its entry is stale, and finds out when its MAC changed.
    pub(super) fn check_neighbours(&mut self) {
        let count = checked_in_a_second(self.fib.count_in_use());
        let next: Vec<_> = self.fib.neighbours_in_use(self.last_checked).take(count).collect();
        self.last_checked = next.last().copied().filter(|_| next.len() == count);
        self.resolve.extend(next);
    }

    fn carry_out(&mut self, output: Output, now: Instant) {
        match output {
            Output::Connect { peer, port, source } => self.connect(peer, port, source),
            Output::AbortConnect { peer } => {
                if let Some((_, connect)) = self.io.connects.remove(&peer) {
                    connect.abort();
                }
            }
            Output::Send { conn, bytes } => self.send(conn, bytes, now),
            Output::Close { conn } => {
                self.io.connections.remove(&conn);
            }
            Output::Routes(changes) => self.routes(changes, now),
            Output::Leading { prefix, by_level } => {
                if !self.frozen && self.forward {
                    self.fib.handle(Fact::Leading { prefix, by_level });
                    self.resolve_first(now);
                }
            }
            Output::NextHop { next_hop, wanted } => self.next_hop(next_hop, wanted, now),
            Output::Event(event) => {
                self.mark_session(&event);
                self.log(event);
            }
            Output::Busy => {}
        }
    }

    fn connect(&mut self, peer: IpAddr, port: u16, source: Option<IpAddr>) {
        self.io.last_attempt += 1;
        let attempt = self.io.last_attempt;
        let (to, transport) = (SocketAddr::new(peer, port), self.transport(peer));
        let work = tcp::connect(to, source, transport, attempt, self.io.events.clone());
        let handle = self.io.talking.spawn(work);
        if let Some((_, before)) = self.io.connects.insert(peer, (attempt, handle)) {
            before.abort();
        }
    }

    fn transport(&self, peer: IpAddr) -> Transport {
        self.io.transports.borrow().get(peer.to_canonical()).cloned().unwrap_or_default()
    }

    fn send(&mut self, conn: ConnId, bytes: Bytes, now: Instant) {
        let Some(connection) = self.io.connections.get(&conn) else { return };
        match connection.send(bytes) {
            Queued::Well => {}
            Queued::Much(backlog) => self.speaker.set_backlog(conn, backlog),
            Queued::Full => {
                self.io.connections.remove(&conn);
                let error = "the neighbour reads too slowly: its send queue is full".to_owned();
                self.speaker.handle(Input::Closed { conn, error }, now);
            }
        }
    }

    fn routes(&mut self, changes: Vec<RouteChange>, now: Instant) {
        // At the end all stays as it is.
        if self.frozen || !self.forward {
            return;
        }
        for RouteChange { prefix, next_hops, install } in changes {
            self.fib.handle(Fact::Bgp { prefix, next_hops, install });
        }
        self.resolve_first(now);
    }

    /// End-of-RIB waits for what follows from what the resolver was told.
    fn resolve_first(&mut self, now: Instant) {
        let since = *self.resolving.get_or_insert(now);
        self.speaker.set_resolving(now < since + RESOLVING_LIMIT);
    }

    /// Without forwarding nobody resolves next hops, and none is farther than another.
    fn next_hop(&mut self, next_hop: IpAddr, wanted: bool, now: Instant) {
        if !self.forward {
            return;
        }
        if wanted {
            let reach = self.fib.watch(next_hop);
            self.speaker.handle(Input::NextHop { next_hop, reach }, now);
        } else {
            self.fib.unwatch(next_hop);
        }
    }

    /// The connection of a session has time for its last words.
    fn mark_session(&self, event: &Event) {
        if let Event::State { peer, state: State::Established, .. } = event
            && let Some(conn) = self.speaker.connection_of(*peer)
            && let Some(connection) = self.io.connections.get(&conn)
        {
            connection.establish();
        }
    }

    fn log(&mut self, event: Event) {
        match event {
            Event::State { peer, state: State::Established, cause } => {
                tracing::info!(%peer, "session Established: {cause}");
            }
            Event::State { peer, state: State::Idle, cause } => {
                tracing::warn!(%peer, "session Idle: {cause}");
            }
            Event::State { peer, state, cause } => {
                tracing::debug!(%peer, ?state, "{cause}");
            }
            Event::Malformed { peer, what }
            | Event::PrefixLimit { peer, what }
            | Event::Refused { peer, what }
            | Event::Oversize { peer, what } => tracing::warn!(%peer, "{what}"),
            Event::Stale { peer, paths, time } => {
                let seconds = time.as_secs();
                tracing::info!(%peer, "{paths} routes of it stay for {seconds} s while it restarts (RFC 4724)");
            }
            Event::StaleOver { peer, paths: 0 } => {
                tracing::debug!(%peer, "it has told again what was left of its routes");
            }
            Event::StaleOver { peer, paths } => {
                tracing::info!(%peer, "{paths} routes that it has not told again are gone (RFC 4724)");
            }
            Event::EndOfRib { peer } => {
                tracing::debug!(%peer, "End-of-RIB");
                if let Some(convergence) = &mut self.convergence {
                    convergence.end_of_rib(peer);
                }
            }
        }
    }

    pub(super) fn connection_event(&mut self, event: tcp::Event, now: Instant) {
        match event {
            tcp::Event::Accepted { peer, stream } => {
                // By what holds now: it may have waited while that changed.
                if let Err(error) = tcp::of_accepted(&stream, peer, &self.transport(peer)) {
                    tracing::warn!(%peer, "closed a connection: {error}");
                    return;
                }
                let Some((conn, local)) = self.adopt(peer, stream) else { return };
                self.speaker.handle(Input::Accepted { peer, conn, local }, now);
            }
            tcp::Event::Connected { peer, attempt, result } => {
                if self.io.connects.get(&peer).is_none_or(|(current, _)| *current != attempt) {
                    return;
                }
                self.io.connects.remove(&peer);
                let adopted = result.map(|stream| self.adopt(peer, stream));
                let input = match adopted {
                    Ok(Some((conn, local))) => Input::Connected { peer, conn, local },
                    Ok(None) => Input::ConnectFailed { peer, error: "reset at once".to_owned() },
                    Err(error) => Input::ConnectFailed { peer, error: error.to_string() },
                };
                self.speaker.handle(input, now);
            }
            tcp::Event::Received { conn, bytes, turn } => {
                self.speaker.handle(Input::Received { conn, bytes: &bytes }, now);
                drop(turn);
            }
            tcp::Event::Drained { conn } => {
                self.speaker.set_backlog(conn, Backlog::Little);
            }
            tcp::Event::Closed { conn, error } => {
                if self.io.connections.remove(&conn).is_some() {
                    self.speaker.handle(Input::Closed { conn, error }, now);
                }
            }
        }
        while self.io.talking.try_join_next().is_some() {}
    }

    /// Gives a stream a name and its tasks; `None` if it is dead already.
    fn adopt(&mut self, peer: IpAddr, stream: tokio::net::TcpStream) -> Option<(ConnId, IpAddr)> {
        let local = stream.local_addr().ok()?.ip().to_canonical();
        stream.set_nodelay(true).ok()?;
        self.io.last_conn += 1;
        let conn = ConnId(self.io.last_conn);
        let events = self.io.events.clone();
        let patience = self.transport(peer).send_hold_time;
        let all = (&mut self.io.talking, &self.io.goodbyes);
        let connection = Connection::start(conn, stream, patience, events, all);
        self.io.connections.insert(conn, connection);
        Some((conn, local))
    }
}

fn checked_in_a_second(in_use: usize) -> usize {
    let (least, most) = CHECKED;
    in_use.div_ceil(ROUND_SECS).clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_neighbour_in_use_is_checked_twice_a_minute_up_to_a_bound() {
        for (in_use, checked) in
            [(0, 64), (1920, 64), (10_000, 334), (30_720, 1024), (90_000, 1024)]
        {
            assert_eq!(checked_in_a_second(in_use), checked, "{in_use}");
        }
    }
}
