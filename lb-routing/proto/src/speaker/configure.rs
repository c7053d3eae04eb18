//! Changes to a running speaker: neighbours come, change and go by difference.
//!
//! Invariant: a neighbour whose configuration is as before notices nothing.

use std::net::IpAddr;
use std::time::Instant;

use super::{Neighbour, Speaker, place, ranking, rules};
use crate::config::{self, ConfigError, PeerConfig, SpeakerConfig};
use crate::policy::Judge;
use crate::rib::{PeerIndex, Ranking};
use crate::session::Session;
use crate::wire::{Notification, error};

/// Ways to judge neighbours' paths at most, from the start on; the last number stands for what no neighbour sent.
const MAX_JUDGES: usize = u16::MAX as usize;

/// What is done to a session by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clear {
    /// Ends it with Cease / Administrative Reset; it comes back by itself.
    Session,
    /// The connection has to be made anew, since its options changed: Cease / Other Configuration Change.
    Connection,
    /// Asks the neighbour for its routes again (RFC 2918), so that import policy sees them again.
    In,
    /// Tells the neighbour all of our routes again.
    Out,
}

impl Speaker {
    /// Has exactly these neighbours from now on, in this order.
    ///
    /// One that is new starts; one that is gone is told Cease / Peer De-configured. Of one that changed, the session
    /// goes on where it can: a change of policy is carried out by what is told anew and by a route refresh, that of a
    /// timer with the next session, and only one of AS numbers, addresses or ports ends it with Cease / Other
    /// Configuration Change.
    ///
    /// # Errors
    ///
    /// The first thing that cannot work; nothing has changed then.
    pub fn configure(&mut self, peers: Vec<PeerConfig>, now: Instant) -> Result<(), ConfigError> {
        self.check(&peers)?;
        let wanted: Vec<_> = peers.iter().map(|peer| peer.address.to_canonical()).collect();
        let dynamic = self.dynamic_ones();
        let goes =
            |(at, index): &(&IpAddr, &PeerIndex)| !wanted.contains(at) && !dynamic.contains(index);
        let gone: Vec<_> = self.by_address.iter().filter(goes).map(|(at, _)| *at).collect();
        for address in gone {
            self.remove(address, Notification::new(error::PEER_DE_CONFIGURED), now);
        }
        self.order = peers
            .into_iter()
            .map(|peer| match self.index_of(peer.address) {
                Some(index) => {
                    self.settle_dynamic(index);
                    self.change(index, peer, now);
                    index
                }
                None => self.add(peer, now),
            })
            .collect();
        self.order.extend(self.dynamic_ones());
        Ok(())
    }

    /// Is somebody else from now on, with these neighbours.
    ///
    /// AS number, identifier and cluster are said in OPEN or in what neighbours know of us: another one ends every session
    /// with Cease / Other Configuration Change, and each begins anew. How the best path is found may change while sessions
    /// go on.
    ///
    /// # Errors
    ///
    /// The first thing that cannot work; nothing has changed then.
    pub fn reconfigure(
        &mut self,
        config: SpeakerConfig,
        peers: Vec<PeerConfig>,
        now: Instant,
    ) -> Result<(), ConfigError> {
        self.check_as(&config, &peers)?;
        let identity = |of: &SpeakerConfig| (of.asn, of.router_id, of.cluster_id());
        if identity(&config) != identity(&self.config) {
            let mut all: Vec<_> = self.by_address.keys().copied().collect();
            all.sort_unstable();
            for address in all {
                self.remove(address, Notification::new(error::OTHER_CONFIGURATION_CHANGE), now);
            }
        }
        self.rib.follow(rules(&config));
        self.config = config;
        self.configure(peers, now)
    }

    /// Whether it could have these neighbours from now on.
    ///
    /// # Errors
    ///
    /// The first thing that cannot work.
    pub fn check(&self, peers: &[PeerConfig]) -> Result<(), ConfigError> {
        self.check_as(&self.config, peers)
    }

    /// Whether it could be this with these neighbours from now on.
    ///
    /// # Errors
    ///
    /// The first thing that cannot work.
    pub fn check_as(
        &self,
        config: &SpeakerConfig,
        peers: &[PeerConfig],
    ) -> Result<(), ConfigError> {
        config::validate(config, peers)?;
        // Attribute sets remember numbers of judges, so that none is given to another one.
        let mut judges = self.judges.clone();
        for peer in peers {
            place(&mut judges, Judge::new(config, peer));
        }
        if judges.len() > MAX_JUDGES { Err(ConfigError::TooManySettings) } else { Ok(()) }
    }

    /// Does something to one neighbour's session; says whether there is such a neighbour.
    pub fn clear(&mut self, peer: IpAddr, what: Clear, now: Instant) -> bool {
        let Some(index) = self.index_of(peer) else { return false };
        match what {
            Clear::Session => {
                self.with_session(index, now, Session::wake);
                self.end_session(index, Notification::new(error::ADMINISTRATIVE_RESET), now);
            }
            Clear::Connection => self.with_session(index, now, Session::reconnect),
            Clear::In => self.ask_again(index, now),
            Clear::Out => {
                let families = self.channel(index).map(|it| it.up.negotiated.families.clone());
                families.into_iter().flatten().for_each(|family| self.refresh(index, family));
            }
        }
        true
    }

    /// A neighbour that is gone keeps its place, empty, until another one takes it: paths and ranks name places.
    pub(super) fn remove(&mut self, address: IpAddr, told: Notification, now: Instant) {
        let Some(index) = self.by_address.remove(&address) else { return };
        self.with_session(index, now, |session, now, out| session.stop(told, now, out));
        self.forget_paths(index);
        self.settle_dynamic(index);
        self.vacant.push(index);
    }

    pub(super) fn add(&mut self, peer: PeerConfig, now: Instant) -> PeerIndex {
        let seed = self.seeds.next();
        let (address, rank) = (peer.address.to_canonical(), ranking(&self.config, &peer));
        let judge = place(&mut self.judges, Judge::new(&self.config, &peer));
        let mut session = Session::new(self.config.clone(), peer, seed, now);
        session.remember(self.past);
        let neighbour = Neighbour::new(session, judge);
        let index = match self.vacant.pop() {
            Some(index) => {
                if let Some(seat) = self.neighbours.get_mut(usize::from(index)) {
                    *seat = neighbour;
                }
                index
            }
            None => {
                self.neighbours.push(neighbour);
                PeerIndex::try_from(self.neighbours.len() - 1).unwrap_or(PeerIndex::MAX)
            }
        };
        self.rib.seat(index, rank);
        self.by_address.insert(address, index);
        self.with_session(index, now, Session::start);
        index
    }

    pub(super) fn change(&mut self, index: PeerIndex, mut new: PeerConfig, now: Instant) {
        let Some(neighbour) = self.neighbours.get(usize::from(index)) else { return };
        let old = neighbour.session.config().clone();
        if new.may_be(old.asn) {
            // The one that its OPEN said.
            new.asn = old.asn;
        }
        if old == new {
            return;
        }
        let (exports, imports) = (new.exports_otherwise(&old), new.imports_otherwise(&old));
        let closed = |config: &PeerConfig| config.import == config::Import::None;
        let closes = closed(&new) && !closed(&old);
        let stays_closed = closed(&new) && closed(&old);
        let keeps = (old.keep_rejected, new.keep_rejected);
        let rank = ranking(&self.config, &new);
        let judge = place(&mut self.judges, Judge::new(&self.config, &new));
        let another = new.connects_otherwise(&old) || new.shutdown.is_some();
        self.with_session(index, now, |session, now, out| session.configure(new, now, out));
        if another || closes {
            self.forget_paths(index);
        }
        let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) else { return };
        neighbour.judge = judge;
        let Some(channel) = &neighbour.channel else {
            // The next session begins with all of it; what is kept until then is judged now, as of whom told it.
            let router_id = self.rib.ranking(index).map_or(rank.router_id, |known| known.router_id);
            self.rib.seat(index, Ranking { router_id, ..rank });
            if imports {
                self.import_anew(index, now);
            }
            return;
        };
        let router_id = channel.up.negotiated.router_id;
        self.introduce(index, router_id);
        if exports {
            self.regroup(index);
        }
        let Some(neighbour) = self.neighbours.get(usize::from(index)) else { return };
        if keeps == (true, false) && !neighbour.keeps_refused() {
            self.forget_refused(index);
        }
        if imports && !closes && !stays_closed {
            self.import_anew(index, now);
        } else if keeps.1 && (closes || !keeps.0) {
            // To be shown only: a session that cannot be asked does not end for that.
            self.with_session(index, now, |session, _, out| _ = session.ask_again(out));
        }
        self.watch_limit(index, now);
    }
}
