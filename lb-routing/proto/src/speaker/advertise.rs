//! From the RIB to the driver and to the neighbours.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::{Channel, ConnId, Neighbour, Output, RouteChange, Speaker};
use crate::config::{Export, PeerConfig, SpeakerConfig};
use crate::policy::{self, NextHop, Target, Teller};
use crate::rib::{AdjRibOut, Batch, Path, PeerIndex, Rib};
use crate::session::Up;
use crate::wire::{self, Attributes, Context};

impl Speaker {
    /// A session is Established: everything is looked at once, then End-of-RIB follows.
    pub(super) fn up(&mut self, index: PeerIndex, up: Up) {
        self.rib.rank(index, up.negotiated.router_id);
        let Some(neighbour) = self.neighbours.get_mut(index as usize) else { return };
        let nothing = neighbour.session.config().export == Export::None;
        let prefixes = self.rib.iter().map(|(prefix, _)| *prefix).filter(|_| !nothing);
        let adj_out = AdjRibOut::new(prefixes, up.negotiated.families.clone(), self.hash);
        neighbour.channel = Some(Channel { up, adj_out, congested: false });
    }

    /// A session ended: its routes go with it (RFC 4271 §8.2.2).
    pub(super) fn down(&mut self, index: PeerIndex) {
        if let Some(neighbour) = self.neighbours.get_mut(index as usize) {
            neighbour.channel = None;
            neighbour.accepted = 0;
            self.rib.remove_peer(index);
        }
    }

    /// The next change that the driver has to know; the neighbours' are marked on the way.
    pub(super) fn next_change(&mut self) -> Option<RouteChange> {
        // Ends: each call takes one mark off.
        loop {
            let (prefix, news) = self.rib.next_change()?;
            for neighbour in &mut self.neighbours {
                if neighbour.session.config().export != Export::None
                    && let Some(channel) = &mut neighbour.channel
                {
                    channel.adj_out.mark(prefix);
                }
            }
            if let Some(next_hops) = news {
                return Some(RouteChange { prefix, next_hops });
            }
        }
    }

    /// Queues one batch of UPDATEs of one neighbour; says whether anything was pending.
    pub(super) fn flush(&mut self) -> bool {
        let count = self.neighbours.len();
        for turn in 0..count {
            let place = (self.next_to_flush + turn) % count;
            let pending = self.neighbours.get_mut(place).filter(|peer| {
                let channel = peer.channel.as_ref();
                channel.is_some_and(|channel| !channel.congested && !channel.adj_out.is_idle())
            });
            if let Some(neighbour) = pending {
                self.next_to_flush = place + 1;
                let index = PeerIndex::try_from(place).unwrap_or(PeerIndex::MAX);
                let output = flush_one(index, neighbour, &mut self.rib, &self.config);
                self.queue.extend(output);
                return true;
            }
        }
        false
    }
}

fn flush_one(
    index: PeerIndex,
    neighbour: &mut Neighbour,
    rib: &mut Rib,
    speaker: &SpeakerConfig,
) -> Option<Output> {
    let Channel { up, adj_out, congested: _ } = neighbour.channel.as_mut()?;
    let target = target(index, neighbour.session.config(), speaker, up);
    // Routes that share attributes are told with shared attributes.
    let mut told = Told::new();
    let batch = adj_out.next_batch(|prefix| advertised(prefix, rib, &target, &mut told));
    let messages = encode(&batch, adj_out, up.negotiated.context);
    neighbour.session.count_sent(messages.len() as u64);
    send(up.conn, &messages)
}

pub(super) fn target<'a>(
    index: PeerIndex,
    config: &'a PeerConfig,
    speaker: &SpeakerConfig,
    up: &'a Up,
) -> Target<'a> {
    let (local, families) = (up.local, up.negotiated.families.as_slice());
    Target { index, config, our_as: config.our_as(speaker), local, families }
}

/// Who told us of a path.
pub(super) fn teller(rib: &Rib, path: &Path) -> Option<Teller> {
    let source = rib.ranking(path.via.peer()?)?;
    Some(Teller { address: source.address, external: source.external })
}

/// What becomes of paths that share all that policy looks at: who told us, attributes, next hop, and the prefix's
/// family, or the prefix where a policy asks for it.
type Told = HashMap<Shared, Option<(Arc<Attributes>, Option<NextHop>)>>;
type Shared = (Option<PeerIndex>, *const Attributes, Option<IpAddr>, Scope);

#[derive(PartialEq, Eq, Hash)]
enum Scope {
    Family { ipv4: bool },
    Prefix(IpNetwork),
}

/// The route that the target should know for a prefix.
fn advertised(
    prefix: &IpNetwork,
    rib: &mut Rib,
    target: &Target<'_>,
    told: &mut Told,
) -> Option<(Arc<Attributes>, IpAddr)> {
    let best = rib.get(prefix)?.best()?.clone();
    let teller = teller(rib, &best);
    policy::check_export(prefix, &best, teller, target).ok()?;
    let scope = match &target.config.export {
        Export::Policies(chain) if chain.is_per_prefix() => Scope::Prefix(*prefix),
        Export::None | Export::Vips | Export::All | Export::Policies(_) => {
            Scope::Family { ipv4: prefix.is_ipv4() }
        }
    };
    let shared = (best.via.peer(), Arc::as_ptr(&best.attributes), best.via.next_hop(), scope);
    let (attributes, said) = told
        .entry(shared)
        .or_insert_with(|| {
            let change = policy::export(prefix, &best, teller, target).ok()?;
            let (said, sets_med) =
                change.as_ref().map_or((None, false), |change| (change.next_hop, change.sets_med));
            let changed = change.map(|change| change.attributes);
            let learned = changed.as_ref().unwrap_or(&best.attributes);
            let attributes = policy::advertised_attributes(learned, sets_med, target);
            Some((rib.intern(attributes), said))
        })
        .clone()?;
    let next_hop = policy::next_hop(prefix, &best, said, target)?;
    Some((attributes, next_hop))
}

fn encode(batch: &Batch, adj_out: &mut AdjRibOut, context: Context) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    wire::encode_withdrawals(&batch.withdrawn, context, &mut messages);
    for group in &batch.announced {
        let mut updates = Vec::new();
        let (attributes, prefixes) = (&group.attributes, &group.prefixes);
        match wire::encode_updates(attributes, group.next_hop, prefixes, context, &mut updates) {
            Ok(()) => messages.append(&mut updates),
            Err(_) => {
                // Attributes too large for a message: the neighbour must not keep what it had.
                adj_out.forget(prefixes);
                wire::encode_withdrawals(prefixes, context, &mut messages);
            }
        }
    }
    messages.extend(batch.end_of_rib.iter().map(|family| wire::encode_end_of_rib(*family)));
    messages
}

fn send(conn: ConnId, messages: &[Vec<u8>]) -> Option<Output> {
    (!messages.is_empty()).then(|| Output::Send { conn, bytes: messages.concat() })
}
