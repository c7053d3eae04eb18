//! Neighbours that come by themselves (`Listen`): they are there from their first connection on, and go once they have had
//! no session for a while, or once nobody listens for them any more.
//!
//! Bounds: each `Listen` has its limit, and one that had no session keeps no place beyond the rest that a failure brings, nor
//! one whose connection leads to none. At the limit connections are refused, counted, and said once in [`REFUSAL_REST`]; those
//! that are there stay.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;

use super::{Event, Output, Speaker, State};
use crate::config::{self, Import, Listen, ListenError, SpeakerConfig};
use crate::rib::PeerIndex;
use crate::wire::{Notification, error};

/// A neighbour that had a session keeps its place so long without one.
pub(super) const DYNAMIC_REST: Duration = Duration::from_secs(60);

/// One that has a connection but no session keeps it so long, and DelayOpenTime: the 240 s that RFC 4271 §8.2.2 gives an OPEN
/// would let whoever says nothing keep a place from others.
pub(super) const DYNAMIC_OPENING: Duration = Duration::from_secs(30);

/// That connections are refused is said no more often for one `Listen`, whoever comes and goes.
pub(super) const REFUSAL_REST: Duration = Duration::from_secs(60);

/// For whom we listen.
#[derive(Debug)]
pub(super) struct Listening {
    config: Listen,
    neighbours: u16,
    refused: u64,
    /// When it was said last that there is no room.
    said: Option<Instant>,
    /// OPENs with an AS number that they may not have.
    wrong_as: u64,
}

/// A neighbour that came by itself.
#[derive(Debug)]
pub(super) struct Dynamic {
    /// The place of what was listened for.
    listening: usize,
    /// It had a session.
    was_up: bool,
    /// It is connected, and has to have a session by then.
    opens_by: Option<Instant>,
    /// It goes then.
    until: Option<Instant>,
}

/// For whom we listen, as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenStatus {
    /// Its name.
    pub name: String,
    /// From where neighbours may come.
    pub ranges: Vec<IpNetwork>,
    /// So many at most.
    pub limit: u16,
    /// How many there are.
    pub neighbours: u16,
    /// Connections that were refused as there were enough, since the start.
    pub refused: u64,
    /// AS numbers that they may have.
    pub asns: Vec<RangeInclusive<u32>>,
    /// OPENs that were refused for another one, since the start.
    pub wrong_as: u64,
}

impl Listening {
    /// Nobody may come: who did would keep a place without ever having a session.
    fn is_shut(&self) -> bool {
        self.config.template.shutdown.is_some()
    }
}

impl Speaker {
    /// Has exactly these neighbours come by themselves from now on. Those that are there stay where they still may come, and
    /// change as [`Speaker::configure`] says; the others are told Cease / Peer De-configured.
    ///
    /// # Errors
    ///
    /// The first thing that cannot work; nothing has changed then.
    pub fn listen(&mut self, listens: Vec<Listen>, now: Instant) -> Result<(), ListenError> {
        config::validate_listens(&self.config, &listens)?;
        let before = std::mem::take(&mut self.listening);
        self.listening = listens
            .into_iter()
            .map(|config| {
                let known = before.iter().find(|known| known.config.name == config.name);
                let (refused, wrong_as) = known.map_or((0, 0), |it| (it.refused, it.wrong_as));
                let said = known.and_then(|known| known.said);
                Listening { config, neighbours: 0, refused, said, wrong_as }
            })
            .collect();
        for index in self.dynamic_ones() {
            let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) else { continue };
            let address = neighbour.session.config().address;
            match find(&mut self.listening, address).filter(|(_, it)| !it.is_shut()) {
                Some((place, listening)) => {
                    listening.neighbours = listening.neighbours.saturating_add(1);
                    let new = listening.config.neighbour(address);
                    if let Some(dynamic) = &mut neighbour.dynamic {
                        dynamic.listening = place;
                    }
                    self.change(index, new, now);
                }
                None => {
                    // It is counted nowhere any more.
                    neighbour.dynamic = None;
                    let told = Notification::new(error::PEER_DE_CONFIGURED);
                    self.remove(address.to_canonical(), told, now);
                    self.order.retain(|it| *it != index);
                }
            }
        }
        Ok(())
    }

    /// Whether it could listen for these as somebody.
    ///
    /// # Errors
    ///
    /// The first thing that cannot work.
    pub fn check_listens(
        &self,
        config: &SpeakerConfig,
        listens: &[Listen],
    ) -> Result<(), ListenError> {
        config::validate_listens(config, listens)
    }

    /// For whom we listen.
    pub fn listening(&self) -> Vec<ListenStatus> {
        let each = self.listening.iter().map(|it| ListenStatus {
            name: it.config.name.clone(),
            ranges: it.config.ranges.clone(),
            limit: it.config.limit,
            neighbours: it.neighbours,
            refused: it.refused,
            asns: match it.config.template.asns.as_slice() {
                [] => vec![it.config.template.asn..=it.config.template.asn],
                asns => asns.to_vec(),
            },
            wrong_as: it.wrong_as,
        });
        each.collect()
    }

    /// The name of what a neighbour came by, if it came by itself.
    pub(super) fn came_by(&self, dynamic: Option<&Dynamic>) -> Option<String> {
        self.listening.get(dynamic?.listening).map(|it| it.config.name.clone())
    }

    /// Whether somebody may come by itself from whom something is to come.
    pub(super) fn awaits_anybody(&self) -> bool {
        let mut listening = self.listening.iter();
        listening.any(|it| !it.is_shut() && it.config.template.import != Import::None)
    }

    /// Somebody connects whom nobody named.
    pub(super) fn admit(&mut self, peer: IpAddr, now: Instant) -> Option<PeerIndex> {
        let peer = peer.to_canonical();
        let everybody = self.by_address.len() >= config::MAX_PEERS;
        let (place, listening) = find(&mut self.listening, peer).filter(|(_, it)| !it.is_shut())?;
        if listening.neighbours >= listening.config.limit || everybody {
            listening.refused += 1;
            let rests = |said: Instant| now.saturating_duration_since(said) < REFUSAL_REST;
            if !listening.said.is_some_and(rests) {
                listening.said = Some(now);
                let Listen { name, limit, .. } = &listening.config;
                let why = match everybody {
                    true => format!(
                        "there are {} neighbours, the most that there can be",
                        config::MAX_PEERS
                    ),
                    false => format!("{name} has as many neighbours as its limit {limit} allows"),
                };
                let seconds = REFUSAL_REST.as_secs();
                let what = format!("refused: {why}; this is said once in {seconds} s");
                self.queue.push_back(Output::Event(Event::Refused { peer, what }));
            }
            return None;
        }
        listening.neighbours += 1;
        let config = listening.config.neighbour(peer);
        let index = self.add(config, now);
        if let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) {
            neighbour.dynamic =
                Some(Dynamic { listening: place, was_up: false, opens_by: None, until: None });
        }
        self.order.push(index);
        Some(index)
    }

    /// Looks at a neighbour's session after something happened to it.
    pub(super) fn look_at_dynamic(&mut self, index: PeerIndex, now: Instant) {
        let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) else { return };
        let wrong_as = neighbour.session.take_wrong_as();
        let Some(dynamic) = &mut neighbour.dynamic else { return };
        if let Some(listening) = self.listening.get_mut(dynamic.listening) {
            listening.wrong_as += wrong_as;
        }
        let is_up = neighbour.channel.is_some();
        dynamic.was_up |= is_up;
        let connected = neighbour.session.is_connected();
        let delay = neighbour.session.config().delay_open;
        dynamic.opens_by = (connected && !is_up)
            .then(|| dynamic.opens_by.unwrap_or(now + DYNAMIC_OPENING + delay));
        // One that rests after a failure would begin anew without its rest.
        let resting = neighbour.session.state() == State::Idle;
        let until = match dynamic.opens_by {
            Some(opens_by) => Some(dynamic.until.map_or(opens_by, |until| until.max(opens_by))),
            None if connected || resting => None,
            None if dynamic.was_up => dynamic.until.or(Some(now + DYNAMIC_REST)),
            None => Some(now),
        };
        dynamic.until = until;
        self.dynamic_due = self.dynamic_due.into_iter().chain(until).min();
    }

    /// Neighbours go that have been without a session for long enough.
    pub(super) fn expire_dynamic(&mut self, now: Instant) {
        if self.dynamic_due.is_none_or(|due| due > now) {
            return;
        }
        self.dynamic_due = None;
        for index in self.dynamic_ones() {
            let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) else { continue };
            let Some(dynamic) = &mut neighbour.dynamic else { continue };
            // Its routes may stay longer than itself would (RFC 4724).
            let stale = neighbour.stale.as_ref().map(|stale| stale.until);
            dynamic.until =
                dynamic.until.map(|until| stale.map_or(until, |stale| stale.max(until)));
            match dynamic.until {
                Some(until) if until <= now => {
                    let address = neighbour.session.config().address.to_canonical();
                    let why = match dynamic.opens_by {
                        Some(_) => error::CONNECTION_REJECTED,
                        None => error::PEER_DE_CONFIGURED,
                    };
                    self.remove(address, Notification::new(why), now);
                    self.order.retain(|it| *it != index);
                }
                Some(until) => {
                    self.dynamic_due = Some(self.dynamic_due.map_or(until, |due| due.min(until)));
                }
                None => {}
            }
        }
    }

    /// A neighbour is one that came by itself no longer.
    pub(super) fn settle_dynamic(&mut self, index: PeerIndex) {
        let neighbour = self.neighbours.get_mut(usize::from(index));
        let Some(dynamic) = neighbour.and_then(|it| it.dynamic.take()) else { return };
        if let Some(listening) = self.listening.get_mut(dynamic.listening) {
            listening.neighbours = listening.neighbours.saturating_sub(1);
        }
    }

    pub(super) fn dynamic_ones(&self) -> Vec<PeerIndex> {
        let all = (0..).zip(&self.neighbours);
        all.filter(|(_, it)| it.dynamic.is_some()).map(|(index, _)| index).collect()
    }
}

/// What has the longest range that covers an address.
fn find(listening: &mut [Listening], address: IpAddr) -> Option<(usize, &mut Listening)> {
    let each = listening.iter_mut().enumerate();
    let covering = each.filter_map(|(place, it)| Some((it.config.covers(address)?, place, it)));
    covering.max_by_key(|(length, ..)| *length).map(|(_, place, it)| (place, it))
}
