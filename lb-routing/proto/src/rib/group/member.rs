//! Who is of a group, and what each has yet to hear.

use std::net::IpAddr;

use super::out::{Hearer, Out};
use super::script::{self, Deaf};
use super::{Backlog, Group, OutId};
use crate::rib::ids::IdSet;
use crate::rib::prefixes::PrefixId;
use crate::rib::{PeerIndex, Rib};
use crate::wire::Family;

#[derive(Debug)]
pub(super) struct Member {
    pub(super) hearer: Hearer,
    pub(super) behind: IdSet,
    pub(super) backlog: Backlog,
    /// Families whose initial routes are not complete yet.
    pub(super) initial: Vec<Family>,
    /// Families that it wants again, once it is in step.
    pub(super) again: Vec<Family>,
    /// Families that it is told again, and that an end of that is to follow.
    pub(super) ending: Vec<Family>,
}

impl Member {
    /// `pending`: there are changes to come, and the end of what is told first waits for them.
    pub(super) fn waits(&self, pending: bool) -> bool {
        if self.initial.is_empty() {
            !(self.behind.is_empty() && self.again.is_empty() && self.ending.is_empty())
        } else {
            !self.behind.is_empty() || !pending
        }
    }
}

impl Group {
    /// Takes a neighbour in: it is behind by all that was said, and End-of-RIB follows.
    pub(crate) fn join(&mut self, peer: PeerIndex, address: IpAddr) {
        let hearer = Hearer { peer, address: address.to_canonical() };
        let mut behind = IdSet::default();
        behind.extend(self.known_to(hearer));
        let initial = self.key.families.clone();
        self.admit(Member {
            hearer,
            behind,
            backlog: Backlog::Little,
            initial,
            again: Vec::new(),
            ending: Vec::new(),
        });
    }

    /// Takes a neighbour over from another group, which it is still in: what it may know from there is said anew, or
    /// withdrawn.
    pub(crate) fn adopt(&mut self, peer: PeerIndex, before: &Self, rib: &mut Rib) {
        let Some(member) = before.member(peer) else { return };
        let hearer = member.hearer;
        let mut behind = IdSet::default();
        behind.extend(self.known_to(hearer));
        for id in before.known_to(hearer).chain(member.behind.iter()) {
            behind.insert(id);
            if let (Some(several), Some(before)) = (&mut self.several, &before.several) {
                several.inherit(id, before);
            }
            let said = self.says(id);
            // Its number lasts until it is withdrawn.
            if !said && self.ghosts.insert(id) {
                rib.set_told(id, true);
                self.inherited += 1;
            }
        }
        let Member { backlog, initial, again, ending, .. } = member;
        let (backlog, initial) = (*backlog, initial.clone());
        let (again, ending) = (again.clone(), ending.clone());
        self.admit(Member { hearer, behind, backlog, initial, again, ending });
    }

    fn admit(&mut self, member: Member) {
        let Hearer { peer, address } = member.hearer;
        self.who.insert(peer.into());
        self.by_address.insert(address, peer);
        self.members.push(member);
    }

    pub(super) fn member(&self, peer: PeerIndex) -> Option<&Member> {
        self.members.iter().find(|member| member.hearer.peer == peer)
    }

    fn member_mut(&mut self, peer: PeerIndex) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.hearer.peer == peer)
    }

    pub(super) fn hearer(&self, peer: PeerIndex) -> Option<Hearer> {
        self.member(peer).map(|member| member.hearer)
    }

    /// Members that must not hear of a path: where it comes from, and where it leads.
    pub(super) fn deaf(&self, out: &Out) -> Deaf {
        let source = out.source.peer().filter(|&peer| self.who.contains(peer.into()));
        let owner = out.owner.and_then(|address| self.by_address.get(&address).copied());
        source.into_iter().chain(owner).collect()
    }

    pub(crate) fn leave(&mut self, peer: PeerIndex, rib: &mut Rib) {
        self.members.retain(|member| member.hearer.peer != peer);
        self.who.remove(peer.into());
        self.by_address.retain(|_, of| *of != peer);
        self.lay_ghosts(rib);
    }

    /// What a member in step knows.
    pub(super) fn known_to(&self, hearer: Hearer) -> impl Iterator<Item = PrefixId> {
        let known =
            move |&(_, &out): &(PrefixId, &OutId)| !script::view(hearer, out, &self.outs).is_none();
        let one = (0..).zip(&self.sent).filter(known).map(|(id, _)| id);
        let several = self.several.iter();
        one.chain(several.flat_map(move |several| several.known_to(hearer, &self.outs)))
    }

    /// A member wants a family again; one that the session does not have is ignored (RFC 2918 §4).
    pub(crate) fn refresh(&mut self, peer: PeerIndex, family: Family) {
        if !self.key.families.contains(&family) {
            return;
        }
        if let Some(member) = self.member_mut(peer)
            && !member.again.contains(&family)
        {
            member.again.push(family);
        }
    }

    /// Members that are behind while too much waits for them.
    pub(crate) fn overdue(&self) -> Vec<PeerIndex> {
        if self.ghosts.len() <= self.max_ghosts + self.inherited {
            return Vec::new();
        }
        let behind = self.members.iter().filter(|member| !member.behind.is_empty());
        behind.map(|member| member.hearer.peer).collect()
    }

    /// What the driver has to send to a member.
    pub(crate) fn set_backlog(&mut self, peer: PeerIndex, backlog: Backlog) {
        if let Some(member) = self.member_mut(peer) {
            member.backlog = backlog;
        }
    }

    /// Paths that a member knows from us, or will.
    pub(crate) fn advertised(&self, peer: PeerIndex) -> usize {
        let from = self.said_from.get(usize::from(peer)).copied().unwrap_or_default();
        let via = self.hearer(peer).and_then(|hearer| self.said_via.get(&hearer.address).copied());
        self.said - from - via.unwrap_or_default()
    }
}
