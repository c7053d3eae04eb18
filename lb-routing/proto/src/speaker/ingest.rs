//! From a neighbour's UPDATE into the RIB.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnetwork::IpNetwork;

use super::{Event, Output, Speaker};
use crate::policy::{self, Importer, Judge, Rejection};
use crate::rib::{Path, PeerIndex, Via};
use crate::wire::{Announced, Attributes, Family, Notification, Update, error};

impl Speaker {
    pub(super) fn ingest(&mut self, index: PeerIndex, update: Update, now: Instant) {
        // The session may have ended by an earlier message of the same read.
        if self.channel(index).is_none() {
            return;
        }
        for fault in &update.faults {
            self.malformed(index, format!("attribute {}: {}", fault.code, fault.what));
        }
        for prefix in update.withdrawn {
            self.withdraw(index, prefix);
        }
        if let Some(attributes) = update.attributes {
            self.announce(index, attributes, &update.announced);
        }
        if update.end_of_rib.is_some()
            && let Some(peer) = self.address_of(index)
        {
            self.queue.push_back(Output::Event(Event::EndOfRib { peer }));
        }
        self.enforce_bound(index, now);
    }

    fn announce(&mut self, index: PeerIndex, attributes: Attributes, announced: &[Announced]) {
        let Some(neighbour) = self.neighbours.get(index as usize) else { return };
        let peer = neighbour.session.config();
        let importer = Importer::new(&self.config, peer);
        if importer.is_closed() {
            return;
        }
        let judged = Judge::new(&self.config, peer).check(&attributes);
        let attributes = judged.map(|()| self.rib.intern(attributes));
        let mut rejected = None;
        for Announced { next_hop, prefixes } in announced {
            let usable = attributes.clone().and_then(|attributes| {
                policy::check_next_hop(*next_hop, |hop| self.is_ours(hop)).map(|()| attributes)
            });
            let mut shared = None;
            for prefix in prefixes {
                let judged = shared.take().unwrap_or_else(|| {
                    let attributes = usable.as_ref().map_err(|&rejection| rejection)?;
                    self.import(index, &importer, prefix, *next_hop, attributes)
                });
                let path = judged.as_ref().map_err(|&rejection| rejection);
                rejected = self.learn(index, *prefix, path).err().or(rejected);
                shared = (!importer.is_per_prefix()).then_some(judged);
            }
        }
        // One line per UPDATE, whatever it holds.
        if let Some(words) = rejected.and_then(Rejection::fault) {
            self.malformed(index, words.to_owned());
        }
    }

    /// The path as policy lets it in.
    fn import(
        &mut self,
        index: PeerIndex,
        importer: &Importer,
        prefix: &IpNetwork,
        next_hop: IpAddr,
        attributes: &Arc<Attributes>,
    ) -> Result<Path, Rejection> {
        let imported = importer.judge(prefix, next_hop, attributes)?;
        let attributes = match imported.attributes {
            None => Arc::clone(attributes),
            Some(changed) => self.rib.intern(changed),
        };
        Ok(Path { via: Via::Peer { peer: index, next_hop: imported.next_hop }, attributes })
    }

    /// A route replaces its predecessor even where it is no use itself (RFC 4271 §9.1.2, RFC 7606 §2).
    fn learn(
        &mut self,
        index: PeerIndex,
        prefix: IpNetwork,
        judged: Result<&Path, Rejection>,
    ) -> Result<(), Rejection> {
        if !self.speaks(index, Family::of(&prefix)) {
            return Ok(());
        }
        let judged = judged.and_then(|path| {
            let next_hop = path.via.next_hop().ok_or(Rejection::NextHop)?;
            policy::check_prefix(&prefix, next_hop).map(|()| path)
        });
        let path = match judged {
            Ok(path) => Path { via: path.via, attributes: Arc::clone(&path.attributes) },
            Err(rejection) => {
                self.withdraw(index, prefix);
                return Err(rejection);
            }
        };
        if self.rib.insert(prefix, path)
            && let Some(neighbour) = self.neighbours.get_mut(index as usize)
        {
            neighbour.accepted += 1;
        }
        Ok(())
    }

    fn withdraw(&mut self, index: PeerIndex, prefix: IpNetwork) {
        if self.rib.remove(prefix, Some(index))
            && let Some(neighbour) = self.neighbours.get_mut(index as usize)
        {
            neighbour.accepted -= 1;
        }
    }

    fn enforce_bound(&mut self, index: PeerIndex, now: Instant) {
        let accepted = self.neighbours.get(index as usize).map_or(0, |peer| peer.accepted);
        if accepted > self.max_prefixes {
            let cease = Notification::new(error::MAXIMUM_NUMBER_OF_PREFIXES_REACHED);
            self.with_session(index, now, |session, now, out| session.cease(cease, now, out));
        }
    }

    fn is_ours(&self, next_hop: IpAddr) -> bool {
        let channels = self.neighbours.iter().filter_map(|peer| peer.channel.as_ref());
        channels.map(|channel| channel.up.local).any(|local| local == next_hop)
            || self.rib.originates_host(next_hop)
    }

    fn speaks(&self, index: PeerIndex, family: Family) -> bool {
        let channel = self.neighbours.get(index as usize).and_then(|peer| peer.channel.as_ref());
        channel.is_some_and(|channel| channel.up.negotiated.families.contains(&family))
    }

    fn malformed(&mut self, index: PeerIndex, what: String) {
        if let Some(peer) = self.address_of(index) {
            self.queue.push_back(Output::Event(Event::Malformed { peer, what }));
        }
    }

    fn address_of(&self, index: PeerIndex) -> Option<IpAddr> {
        self.neighbours.get(index as usize).map(|peer| peer.session.config().address)
    }
}
