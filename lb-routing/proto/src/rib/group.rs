//! Update groups: neighbours that are told the same share one Adj-RIB-Out (RFC 4271 §3.2), and what
//! they hear is encoded once.
//!
//! ```text
//!  RIB ─ marks ─▶ pending ─▶ difference to `sent` ─▶ bytes ─┬─▶ members that keep up, the same bytes
//!                                                           └─▶ `behind` of those that do not, as marks
//! ```
//!
//! A member is *in step*, and knows of each prefix what stands in `sent`; or it is *behind*, and knows
//! that of all prefixes but those in its own set. Joining, asking for a family again and reading too
//! slowly are one thing, prefixes in that set: they are told from `sent` when there is room, each once
//! however often it changed, and an empty set is being in step again. So nobody waits for anybody.
//!
//! A path is never told to the neighbour that it came from, nor to the one whose address its next hop is: in what the
//! others hear these two are left out, which is the only difference between members. So all clients of a reflector are one
//! group, though each has its own address.
//!
//! Invariant: a prefix keeps its number while a member may know it: as long as it stands in `sent`,
//! and after it was withdrawn until no member is behind (`ghosts`, at most [`MAX_GHOSTS`]).

mod ask;
mod behind;
mod key;
mod member;
mod out;
mod piece;
mod script;
mod several;
mod told;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;
use ipnetwork::IpNetwork;

pub(crate) use self::key::GroupKey;
use self::member::Member;
use self::out::{OutId, Outs};
use self::piece::{Room, hand_over};
use self::script::Script;
use self::several::{Renewed, Several};
use super::ids::IdSet;
use super::prefixes::PrefixId;
use super::{Keyed, Path, PathEntry, PeerIndex, Rib, Source};
use crate::config::{Export, PeerConfig};
use crate::wire::EncodeError;

/// Prefixes that are looked at in one go: what one attribute set has among them shares UPDATEs.
const BATCH: usize = 16 * 1024;
/// Prefixes that are looked at to find so many.
const LOOKS: usize = 4 * BATCH;
/// Prefixes that are withdrawn but may be known to a member that is behind, at most; beyond, the sessions of those members
/// end with Cease / Out of Resources (RFC 4486).
const MAX_GHOSTS: usize = 1 << 20;
/// Prefixes that a member that is behind is told in one go; these bytes are its own.
const CATCH_UP: usize = 4096;

/// Routes that are too large to be told, of one go, that are said; more would say nothing new.
const MAX_OVERSIZE: usize = 8;

/// How much the driver has to send to a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backlog {
    /// Little: there is room for anything.
    #[default]
    Little,
    /// Some: only what others are told too is added, as their bytes are shared.
    Some,
    /// Enough: nothing is added, what changes is marked.
    Enough,
}

/// Messages for a neighbour.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) peer: PeerIndex,
    pub(crate) bytes: Bytes,
    /// How many UPDATEs, and marks beside them (RFC 7313).
    pub(crate) messages: u64,
    pub(crate) marks: u64,
}

/// A group.
#[derive(Debug)]
pub(crate) struct Group {
    key: GroupKey,
    /// The configuration of any member.
    config: PeerConfig,
    /// Whether policy looks at prefixes.
    per_prefix: bool,
    /// The path that policy was asked about last.
    asked: Option<(PathEntry, u32, Path)>,
    /// What is said of each prefix, by number, where it is one path.
    sent: Vec<OutId>,
    /// What is said of each prefix where it may be several paths.
    several: Option<Several>,
    /// How many paths are said.
    said: usize,
    /// And how many came from each neighbour.
    said_from: Vec<usize>,
    /// And how many lead to each address of another.
    said_via: HashMap<IpAddr, usize, Keyed>,
    outs: Outs,
    /// Routes whose attributes are too large to be told, since that was last asked: [`MAX_OVERSIZE`] at most.
    oversize: Vec<(IpNetwork, EncodeError)>,
    /// Prefixes whose best path may have changed.
    pending: IdSet,
    /// Prefixes that are withdrawn, but that a member that is behind may know.
    ghosts: IdSet,
    max_ghosts: usize,
    /// Those that came with a member of another group: no more than it knew, and nobody's fault.
    inherited: usize,
    members: Vec<Member>,
    /// Their neighbours' numbers.
    who: IdSet,
    /// And by their addresses.
    by_address: HashMap<IpAddr, PeerIndex, Keyed>,
    /// Changes wait until then (MinRouteAdvertisementInterval).
    not_before: Option<Instant>,
    /// Something was said since that was set.
    spoke: bool,
    /// End-of-RIB waits.
    holds_end: bool,
    now: Option<Instant>,
}

impl Group {
    /// A group that looks at everything first.
    pub(crate) fn new(key: GroupKey, config: PeerConfig, hash: Keyed, rib: &Rib) -> Self {
        let per_prefix = match &config.export {
            Export::Policies(chain) => chain.is_per_prefix(),
            Export::None | Export::Vips | Export::All => false,
        };
        let several = key.ids.any().then(Several::default);
        let mut group = Self {
            several,
            key,
            config,
            per_prefix,
            asked: None,
            sent: Vec::new(),
            said: 0,
            said_from: Vec::new(),
            said_via: HashMap::with_hasher(hash),
            outs: Outs::new(hash),
            oversize: Vec::new(),
            pending: IdSet::default(),
            ghosts: IdSet::default(),
            max_ghosts: MAX_GHOSTS,
            inherited: 0,
            members: Vec::new(),
            who: IdSet::default(),
            by_address: HashMap::with_hasher(hash),
            not_before: None,
            spoke: false,
            holds_end: false,
            now: None,
        };
        if group.key.export != Export::None {
            group.pending.extend(rib.iter().map(|(_, id)| id));
        }
        group
    }

    pub(crate) const fn key(&self) -> &GroupKey {
        &self.key
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Gives back what a group without members holds.
    pub(crate) fn dissolve(mut self, rib: &mut Rib) {
        self.lay_ghosts(rib);
        for (id, out) in (0..).zip(self.sent) {
            if !out.is_none() {
                rib.set_told(id, false);
            }
        }
        for id in self.several.iter().flat_map(Several::said) {
            rib.set_told(id, false);
        }
    }

    /// The best path of a prefix may have changed.
    pub(crate) fn mark(&mut self, id: PrefixId) {
        if self.key.export != Export::None {
            self.pending.insert(id);
        }
    }

    /// What a neighbour's attribute sets became is to be asked anew.
    pub(crate) fn forget(&mut self, source: PeerIndex) {
        self.outs.forget(Source::of(source));
    }

    /// Says what time it is; only the MinRouteAdvertisementInterval asks.
    pub(crate) const fn look_at_clock(&mut self, now: Instant) {
        self.now = Some(now);
    }

    /// End-of-RIB waits, or it no longer does: the driver may have more to come.
    pub(crate) const fn hold_end_of_rib(&mut self, hold: bool) {
        self.holds_end = hold;
    }

    /// When changes that wait for their interval are due.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.is_pending())
    }

    fn has_to_wait(&self) -> bool {
        self.not_before.zip(self.now).is_some_and(|(at, now)| now < at)
    }

    /// Whether there is more to be looked at.
    pub(crate) const fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether anything is said of a prefix.
    fn says(&self, id: PrefixId) -> bool {
        self.sent.get(id as usize).is_some_and(|out| !out.is_none())
            || self.several.as_ref().is_some_and(|several| several.says(id))
    }

    /// Makes the next messages: for everybody, else for one that is behind. None: nothing is to be
    /// said, or nobody has room.
    pub(crate) fn flush(&mut self, rib: &mut Rib) -> Option<Vec<Sending>> {
        let enough = self.enough();
        let room = self.members.iter().any(|member| member.backlog < enough);
        if room && !self.pending.is_empty() && !self.has_to_wait() {
            let sendings = self.advance(rib);
            self.spoke |= !sendings.is_empty();
            let interval = Some(self.key.advertisement_interval).filter(|time| !time.is_zero());
            if let Some((now, interval)) = self.now.zip(interval)
                && self.pending.is_empty()
                && std::mem::take(&mut self.spoke)
            {
                self.not_before = Some(now + interval);
            }
            return Some(sendings);
        }
        let pending = self.is_pending() || self.holds_end;
        let waiting = |member: &Member| member.backlog == Backlog::Little && member.waits(pending);
        let place = self.members.iter().position(waiting)?;
        Some(self.catch_up(place, rib))
    }

    /// From what backlog on a member is told nothing: one by itself shares its bytes with nobody.
    const fn enough(&self) -> Backlog {
        if self.members.len() > 1 { Backlog::Enough } else { Backlog::Some }
    }

    /// Tells the members what has changed since the last call, of some prefixes.
    fn advance(&mut self, rib: &mut Rib) -> Vec<Sending> {
        let mut script = Script::default();
        let mut lines: Vec<(PrefixId, OutId)> = Vec::new();
        let mut room = Room::new(self.key.limit);
        let mut looks = 0;
        while looks < LOOKS {
            if lines.len() >= BATCH || room.is_used_up() {
                break;
            }
            let Some(id) = self.pending.pop() else { break };
            looks += 1;
            if self.several.is_some() {
                looks += self.advance_several(id, rib, (&mut script, &mut lines, &mut room));
                continue;
            }
            let new = self.export(id, rib);
            let old = self.say(id, new, rib);
            if old == new {
                self.outs.release(old);
                continue;
            }
            script.change((id, 0), (old, new), &self.outs, |out| self.deaf(out));
            lines.push((id, old));
            room.take(new, self.outs.get(new), rib.prefixes.is_ipv6(id));
        }
        let sendings = self.address(script, &lines, rib);
        for (_, old) in lines {
            self.outs.release(old);
        }
        sendings
    }

    /// The same of a prefix of which members may know several paths; says how many were looked at.
    fn advance_several(
        &mut self,
        id: PrefixId,
        rib: &mut Rib,
        (script, lines, room): (&mut Script, &mut Vec<(PrefixId, OutId)>, &mut Room),
    ) -> usize {
        let (new, looks) = self.export_several(id, rib);
        let behind = self.members.iter().any(|member| !member.behind.is_empty());
        let Some(several) = &mut self.several else { return looks };
        let Renewed { changes, before, said } = several.renew(id, &new, behind);
        for &(number, old, new) in &changes {
            script.change((id, number), (old, new), &self.outs, |out| self.deaf(out));
            room.take(new, self.outs.get(new), rib.prefixes.is_ipv6(id));
        }
        before.iter().for_each(|&old| self.count(old, false));
        new.iter().for_each(|&(_, new)| self.count(new, true));
        self.note(id, said, rib);
        if changes.is_empty() {
            before.into_iter().for_each(|old| self.outs.release(old));
        } else {
            // One line at least, for those that are behind.
            lines.push((id, OutId::NONE));
            lines.extend(before.into_iter().map(|old| (id, old)));
        }
        looks
    }

    /// Notes what is said of a prefix from now on, and returns what was said before.
    fn say(&mut self, id: PrefixId, new: OutId, rib: &mut Rib) -> OutId {
        let place = id as usize;
        if self.sent.len() <= place {
            self.sent.resize(place + 1, OutId::NONE);
        }
        let old = std::mem::replace(&mut self.sent[place], new);
        if old == new {
            return old;
        }
        self.count(old, false);
        self.count(new, true);
        self.note(id, (!old.is_none(), !new.is_none()), rib);
        old
    }

    /// Whether anything was said of a prefix before, and is now.
    fn note(&mut self, id: PrefixId, said: (bool, bool), rib: &mut Rib) {
        match said {
            (false, true) if !self.ghosts.remove(id) => rib.set_told(id, true),
            (true, false) => {
                // Whether a member is behind is only known after this batch.
                self.ghosts.insert(id);
            }
            (true | false, true | false) => {}
        }
    }

    fn count(&mut self, out: OutId, more: bool) {
        let Some(out) = self.outs.get(out) else { return };
        let change = |count: &mut usize| if more { *count += 1 } else { *count -= 1 };
        change(&mut self.said);
        if let Some(peer) = out.source.peer() {
            let peer = usize::from(peer);
            if self.said_from.len() <= peer {
                self.said_from.resize(peer + 1, 0);
            }
            change(&mut self.said_from[peer]);
        }
        if let Some(address) = out.owner {
            let count = self.said_via.entry(address).or_default();
            change(count);
            if *count == 0 {
                self.said_via.remove(&address);
            }
        }
    }

    /// Encodes a script and hands the bytes to those that keep up; the others are marked.
    fn address(
        &mut self,
        script: Script,
        lines: &[(PrefixId, OutId)],
        rib: &mut Rib,
    ) -> Vec<Sending> {
        let enough = self.enough();
        for member in &mut self.members {
            if member.backlog >= enough || !member.behind.is_empty() {
                for &(id, _) in lines {
                    member.behind.insert(id);
                }
            }
        }
        let pieces: Vec<_> = script
            .encode(&self.outs, &rib.prefixes, self.key.ids, self.key.limit)
            .map(|(audience, packer)| {
                let (bytes, messages) = packer.finish();
                (audience, Bytes::from(bytes), messages)
            })
            .collect();
        let mut sendings = Vec::new();
        for member in self.members.iter().filter(|member| member.behind.is_empty()) {
            hand_over(member.hearer.peer, &pieces, &mut sendings);
        }
        self.lay_ghosts(rib);
        sendings
    }

    /// Lets go of what was withdrawn, once no member can know it any more.
    fn lay_ghosts(&mut self, rib: &mut Rib) {
        if self.members.iter().all(|member| member.behind.is_empty()) {
            self.inherited = 0;
            while let Some(id) = self.ghosts.pop() {
                rib.set_told(id, false);
                if let Some(several) = &mut self.several {
                    several.forget(id);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
