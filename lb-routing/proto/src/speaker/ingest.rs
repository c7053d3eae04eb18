//! From a neighbour's UPDATE into the RIB.

use std::net::IpAddr;
use std::time::Instant;

use ipnetwork::IpNetwork;
use smallvec::SmallVec;

use super::Speaker;
use crate::fib::Install;
use crate::policy::{self, Importer, Rejection};
use crate::rib::{AttributesId, Insertion, Key, PathEntry, PeerIndex, Source, Usage};
use crate::wire::{
    self, Block, Context, Family, Field, Notification, Parts, PathId, PathIds, error,
};

/// Prefixes that an UPDATE announces with one next hop, and their attribute set.
struct Announced<'a> {
    attributes: AttributesId,
    prefixes: Field<'a>,
}

/// Which refusals are counted: each route once for each time that it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// It is told now.
    All,
    /// It was told before, and was not refused then.
    New,
    /// It is told again soon.
    None,
}

/// What policy makes of a route: its attributes, its next hop, and which tables are to have it.
type Judged = (AttributesId, IpAddr, Install);

impl Speaker {
    /// Takes an UPDATE's body.
    pub(super) fn ingest(&mut self, index: PeerIndex, body: &[u8], now: Instant) {
        // The session may have ended by an earlier message of the same read.
        let Some(channel) = self.channel(index) else { return };
        let (context, ids) = (channel.up.negotiated.context, channel.up.negotiated.ids_received);
        let taken = self.try_ingest(index, body, (context, ids));
        if let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) {
            // However many faults it has.
            let faulty = std::mem::take(&mut neighbour.faulty) || taken.is_err();
            neighbour.malformed += u64::from(faulty);
        }
        if let Err(notification) = taken {
            self.complain(index, || {
                let octets = wire::hexadecimal(body);
                format!("{notification}, session reset; the UPDATE was {octets}")
            });
            self.end_session(index, notification, now);
        }
        self.watch_limit(index, now);
        self.enforce_bounds(index, now);
    }

    fn try_ingest(
        &mut self,
        index: PeerIndex,
        body: &[u8],
        (context, ids): (Context, PathIds),
    ) -> Result<(), Notification> {
        let parts = Parts::new(body, ids)?;
        let mut announced = SmallVec::<[Announced<'_>; 2]>::new();
        if let Some((next_hop, prefixes)) = parts.reach()
            && next_hop.is_ipv6()
            && prefixes.family() == Family::IPV4_UNICAST
            && !self.leads_by_ipv6(index)
        {
            // RFC 7606 §7.11: a next hop of no valid length.
            let octets = parts.reach_octets();
            return Err(Notification::with_data(error::OPTIONAL_ATTRIBUTE_ERROR, octets));
        }
        let classic = Some((None, parts.nlri));
        let multi = parts.reach().map(|(next_hop, prefixes)| (Some(next_hop), prefixes));
        let fields = classic.into_iter().chain(multi);
        for (reach, prefixes) in fields.filter(|(_, prefixes)| !prefixes.is_empty()) {
            let attributes = self.attributes(index, &parts.block, context, reach)?;
            announced.push(Announced { attributes, prefixes });
        }
        let judgement = match announced.first() {
            Some(first) => parts.judge(self.rib.verdict(first.attributes), context),
            None => parts.judge(&Block::new(&parts.block, context)?.verdict, context),
        };
        let taken = judgement.map(|judgement| {
            for fault in &judgement.faults {
                self.malformed(index, || parts.shown(fault));
            }
            for field in [Some(parts.withdrawn), parts.unreach()].into_iter().flatten() {
                self.withdraw_all(index, field);
            }
            if judgement.withdraw {
                announced.iter().for_each(|it| self.withdraw_all(index, it.prefixes));
            } else {
                self.announce(index, &announced);
            }
        });
        announced.iter().for_each(|it| self.rib.release(it.attributes));
        if let Some(family) = parts.end_of_rib {
            self.end_of_rib(index, family);
        }
        taken
    }

    /// The set that a block of attributes is, read only where it is new; with a reference.
    fn attributes(
        &mut self,
        index: PeerIndex,
        block: &[u8],
        context: Context,
        reach: Option<IpAddr>,
    ) -> Result<AttributesId, Notification> {
        let reach = reach.map(|next_hop| self.rib.next_hop_id(next_hop));
        let judge = self.neighbours.get(usize::from(index)).map_or(0, |peer| peer.judge);
        let key = Key { context, judge, reach, block };
        let known = match self.rib.known(&key) {
            Some(known) => Ok(known),
            None => Block::new(block, context).map(|read| {
                let judge = self.judges.get(usize::from(judge));
                let rejection = judge.and_then(|judge| judge.check(&read.attributes).err());
                self.rib.learn_attributes(&key, index, (&read, rejection))
            }),
        };
        if let Some(reach) = reach {
            self.rib.forget_next_hop(reach);
        }
        known
    }

    fn announce(&mut self, index: PeerIndex, announced: &[Announced<'_>]) {
        let Some(neighbour) = self.neighbours.get(usize::from(index)) else { return };
        let importer = Importer::new(&self.config, neighbour.session.config());
        let mut rejected = None;
        for announced in announced {
            if self.speaks(index, announced.prefixes.family()) {
                let Announced { attributes, prefixes } = announced;
                let paths = prefixes.paths();
                let received = (*attributes, false);
                rejected = self.take(index, &importer, received, paths, Count::All).or(rejected);
            }
        }
        // One line per UPDATE, whatever it holds.
        if let Some(words) = rejected.and_then(Rejection::fault) {
            self.malformed(index, || words.to_owned());
        }
    }

    /// Takes what policy lets in, marked where it is left of an earlier session; says why something was not, if so.
    pub(super) fn take(
        &mut self,
        index: PeerIndex,
        importer: &Importer,
        (attributes, stale): (AttributesId, bool),
        paths: impl Iterator<Item = (PathId, IpNetwork)>,
        count: Count,
    ) -> Option<Rejection> {
        let usable = self.usable(index, attributes);
        let as_it_is = importer.takes_as_it_is(self.rib.is_shut(attributes));
        let mut values = None;
        let mut shared = None;
        let mut rejected = None;
        for (path_id, prefix) in paths {
            let judged = shared.take().unwrap_or_else(|| {
                let next_hop = usable?;
                if as_it_is {
                    self.rib.retain(attributes);
                    return Ok((attributes, next_hop, importer.install()));
                }
                let values = values.get_or_insert_with(|| self.rib.attributes(attributes));
                let imported = importer.judge(&prefix, next_hop, values)?;
                if imported.next_hop != next_hop {
                    policy::check_next_hop(imported.next_hop, |hop| self.is_ours(hop))?;
                }
                let changed = imported.attributes.as_ref().unwrap_or(values);
                let source = Source::of(index);
                let left = self.rib.intern(changed, Some(imported.next_hop), source);
                Ok((left, imported.next_hop, imported.install))
            });
            let checked = judged.and_then(|(left, next_hop, install)| {
                policy::check_prefix(&prefix, next_hop)?;
                let discards = self.discards(index, &prefix, path_id);
                if discards { Err(Rejection::OverLimit) } else { Ok((left, install)) }
            });
            match checked {
                Ok((left, install)) => {
                    let path = PathEntry {
                        received: attributes,
                        attributes: left,
                        path_id,
                        source: Source::of(index),
                        stale,
                        usage: install.into(),
                    };
                    rejected = self.learn(index, &prefix, path).or(rejected);
                }
                // A route replaces its predecessor even where it is no use itself (RFC 4271
                // §9.1.2, RFC 7606 §2).
                Err(rejection) => {
                    let received = (attributes, stale);
                    let counts = self.counts(index, (path_id, &prefix), count);
                    self.keep_rejected(index, (path_id, prefix), received, (rejection, counts));
                    rejected = Some(rejection);
                }
            }
            if importer.is_per_prefix() {
                self.forget(judged);
            } else {
                shared = Some(judged);
            }
        }
        shared.into_iter().for_each(|judged| self.forget(judged));
        rejected
    }

    /// The next hop of a set that routes can have.
    fn usable(&self, index: PeerIndex, attributes: AttributesId) -> Result<IpAddr, Rejection> {
        if let Some(rejection) = self.rib.rejection(attributes) {
            return Err(rejection);
        }
        let neighbour = self.neighbours.get(usize::from(index));
        let config = neighbour.map(|neighbour| neighbour.session.config());
        // Who may have one of several AS numbers is judged without knowing it.
        if let Some(config) =
            config.filter(|it| !it.asns.is_empty() && it.is_external(&self.config))
            && self.rib.first_as(attributes) != config.asn
        {
            return Err(Rejection::FirstAs);
        }
        let next_hop = self.rib.next_hop_of(attributes).ok_or(Rejection::NextHop)?;
        policy::check_next_hop(next_hop, |hop| self.is_ours(hop))?;
        Ok(next_hop)
    }

    fn forget(&mut self, judged: Result<Judged, Rejection>) {
        if let Ok((left, ..)) = judged {
            self.rib.release(left);
        }
    }

    fn learn(
        &mut self,
        index: PeerIndex,
        prefix: &IpNetwork,
        path: PathEntry,
    ) -> Option<Rejection> {
        if self.insert(index, prefix, path) {
            return None;
        }
        self.neighbours.get_mut(usize::from(index))?.overflowed = true;
        Some(Rejection::TooManyPaths)
    }

    /// Says whether there was room.
    fn insert(&mut self, index: PeerIndex, prefix: &IpNetwork, path: PathEntry) -> bool {
        let inserted = self.rib.insert(prefix, path);
        let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) else { return false };
        let accepted = |path: &PathEntry| u64::from(path.rejected().is_none());
        match inserted {
            Insertion::Added => neighbour.received += 1,
            Insertion::Replaced(old) => neighbour.accepted -= accepted(&old),
            Insertion::Refused => return false,
        }
        neighbour.accepted += accepted(&path);
        true
    }

    fn counts(
        &self,
        index: PeerIndex,
        (path_id, prefix): (PathId, &IpNetwork),
        count: Count,
    ) -> bool {
        match count {
            Count::All => true,
            Count::New => self.rib.has(prefix, (Source::of(index), path_id)),
            Count::None => false,
        }
    }

    /// A route that is no use replaces its predecessor, and stays to be shown where that is wanted.
    fn keep_rejected(
        &mut self,
        index: PeerIndex,
        (path_id, prefix): (PathId, IpNetwork),
        (received, stale): (AttributesId, bool),
        (rejection, counts): (Rejection, bool),
    ) {
        let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) else { return };
        neighbour.refused += u64::from(counts);
        let keeps = neighbour.keeps_refused() && rejection != Rejection::Prefix;
        let room = neighbour.received - neighbour.accepted < self.max_refused;
        let lost = (keeps && !room) || neighbour.keeps_no_more;
        neighbour.not_kept += u64::from(counts && lost);
        if !keeps || !room {
            neighbour.misses_some |= rejection != Rejection::Prefix;
            return self.withdraw(index, (path_id, prefix));
        }
        let source = Source::of(index);
        let path = PathEntry {
            received,
            attributes: received,
            path_id,
            source,
            stale,
            usage: Usage::Rejected(rejection),
        };
        if !self.insert(index, &prefix, path) {
            self.withdraw(index, (path_id, prefix));
            if let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) {
                neighbour.not_kept += u64::from(counts);
                neighbour.misses_some = true;
            }
        }
    }

    fn withdraw_all(&mut self, index: PeerIndex, prefixes: Field<'_>) {
        for path in prefixes.paths() {
            self.withdraw(index, path);
        }
    }

    fn withdraw(&mut self, index: PeerIndex, (path_id, prefix): (PathId, IpNetwork)) {
        if let Some(path) = self.rib.remove(&prefix, (Source::of(index), path_id))
            && let Some(neighbour) = self.neighbours.get_mut(usize::from(index))
        {
            neighbour.received -= 1;
            neighbour.accepted -= u64::from(path.rejected().is_none());
        }
    }

    pub(super) fn enforce_bounds(&mut self, index: PeerIndex, now: Instant) {
        let widened = 1 + u8::from(self.is_rejudged(index));
        let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) else { return };
        let overflowed = std::mem::take(&mut neighbour.overflowed);
        if overflowed || neighbour.accepted > self.max_prefixes * u64::from(widened) {
            let cease = Notification::new(error::MAXIMUM_NUMBER_OF_PREFIXES_REACHED);
            return self.end_session(index, cease, now);
        }
        let room = self.max_attribute_bytes * usize::from(widened);
        let is_full = |speaker: &Self| speaker.rib.attribute_bytes_of(index) > room;
        if is_full(self) {
            // What is only kept to be shown ends no session; once, since it is a walk over all records.
            let gone = self.forget_refused(index);
            if let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) {
                neighbour.not_kept += gone;
                neighbour.keeps_no_more = true;
                neighbour.misses_some |= gone > 0;
            }
            if is_full(self) {
                self.end_session(index, Notification::new(error::OUT_OF_RESOURCES), now);
            }
        }
    }

    /// What is only kept to be shown goes; says how many paths these were.
    pub(super) fn forget_refused(&mut self, index: PeerIndex) -> u64 {
        let kept = |it: &super::Neighbour| it.received > it.accepted;
        if !self.neighbours.get(usize::from(index)).is_some_and(kept) {
            return 0;
        }
        let gone = self.rib.remove_refused(index);
        if let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) {
            neighbour.received -= gone;
            neighbour.misses_some |= gone > 0;
        }
        gone
    }

    pub(super) fn end_session(&mut self, index: PeerIndex, why: Notification, now: Instant) {
        self.with_session(index, now, |session, now, out| session.end(why, now, out));
    }

    fn is_ours(&self, next_hop: IpAddr) -> bool {
        self.locals.contains_key(&next_hop) || self.rib.originates_host(next_hop)
    }

    pub(super) fn speaks(&self, index: PeerIndex, family: Family) -> bool {
        let channel = self.neighbours.get(usize::from(index)).and_then(|it| it.channel.as_ref());
        channel.is_some_and(|channel| channel.up.negotiated.families.contains(&family))
    }

    /// Its IPv4 routes may have IPv6 next hops (RFC 8950).
    fn leads_by_ipv6(&self, index: PeerIndex) -> bool {
        let channel = self.neighbours.get(usize::from(index)).and_then(|it| it.channel.as_ref());
        channel.is_some_and(|channel| channel.up.negotiated.ipv4_by_ipv6)
    }

    fn malformed(&mut self, index: PeerIndex, what: impl FnOnce() -> String) {
        if let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) {
            neighbour.faulty = true;
        }
        self.complain(index, what);
    }
}
