//! From the RIB to the driver and to the neighbours.

use std::net::Ipv4Addr;
use std::time::Instant;

use ipnetwork::IpNetwork;

use super::limit::LimitSaid;
use super::{Channel, Event, Output, RouteChange, Speaker, ranking};
use crate::rib::{Group, GroupKey, PeerIndex, Sending};
use crate::session::{Kept, Up};
use crate::wire::{EncodeError, Family, Notification, error};

/// Route changes that are handed to the driver in one go.
const ROUTES: usize = 1024;
/// Prefixes that are looked at to find so many.
const LOOKS: usize = 64 * 1024;

impl Speaker {
    /// A session is Established: it joins those that hear the same, and hears everything.
    pub(super) fn up(&mut self, index: PeerIndex, up: Up) {
        self.adopt_as(index);
        self.introduce(index, up.negotiated.router_id);
        let Some(place) = self.group_of(index, &up) else { return };
        *self.locals.entry(up.local).or_default() += 1;
        if let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) {
            neighbour.channel = Some(Channel { up, group: place });
            (neighbour.keeps_no_more, neighbour.misses_some) = (false, false);
        }
        let Some(ranking) = self.rib.ranking(index) else { return };
        let address = ranking.address;
        if let Some(group) = self.group(place) {
            group.join(index, address);
        }
    }

    /// Its AS number is the one that it says: what it told under another one is no longer so.
    fn adopt_as(&mut self, index: PeerIndex) {
        let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) else { return };
        let config = neighbour.session.config();
        let (rank, asn) = (ranking(&self.config, config), config.asn);
        if neighbour.asn.replace(asn).is_some_and(|before| before != asn) {
            self.forget_paths(index);
        }
        if self.rib.ranking(index).is_some_and(|known| known.external != rank.external) {
            self.rib.seat(index, rank);
        }
    }

    /// A neighbour's identifier is this one, and its configuration may say something else of it: what was told of its paths
    /// may be out of date.
    pub(super) fn introduce(&mut self, index: PeerIndex, router_id: Ipv4Addr) {
        let Some(neighbour) = self.neighbours.get(usize::from(index)) else { return };
        let client = neighbour.session.config().route_reflector_client;
        if self.rib.rank(index, router_id, client) {
            self.groups.iter_mut().flatten().for_each(|group| group.forget(index));
            if neighbour.received > 0 {
                self.rib.touch(index);
            }
        }
    }

    /// The place of the group of those that hear the same as a neighbour would now.
    fn group_of(&mut self, index: PeerIndex, up: &Up) -> Option<usize> {
        let config = self.neighbours.get(usize::from(index))?.session.config();
        let key = GroupKey::new(config, &self.config, up);
        let same = |group: &Option<Group>| group.as_ref().is_some_and(|group| *group.key() == key);
        if let Some(place) = self.groups.iter().position(same) {
            return Some(place);
        }
        let group = Group::new(key, config.clone(), self.hash, &self.rib);
        let free = self.groups.iter().position(Option::is_none);
        let place = free.unwrap_or(self.groups.len());
        self.groups.resize_with(self.groups.len().max(place + 1), || None);
        self.groups[place] = Some(group);
        Some(place)
    }

    /// Another export: the neighbour hears what others hear from now on.
    pub(super) fn regroup(&mut self, index: PeerIndex) {
        let channel = self.channel(index).map(|channel| (channel.up.clone(), channel.group));
        let Some((up, old)) = channel else { return };
        let Some(new) = self.group_of(index, &up).filter(|new| *new != old) else { return };
        let Some(mut group) = self.groups.get_mut(new).and_then(Option::take) else { return };
        if let Some(Some(before)) = self.groups.get(old) {
            group.adopt(index, before, &mut self.rib);
        }
        self.groups[new] = Some(group);
        self.leave(index, old);
        if let Some(channel) = self.channel(index) {
            channel.group = new;
        }
    }

    fn leave(&mut self, index: PeerIndex, place: usize) {
        if let Some(slot) = self.groups.get_mut(place)
            && let Some(group) = slot
        {
            group.leave(index, &mut self.rib);
            if let Some(empty) = slot.take_if(|group| group.is_empty()) {
                empty.dissolve(&mut self.rib);
            }
        }
    }

    /// A session ended: its routes go with it (RFC 4271 §8.2.2), but for what is kept.
    pub(super) fn down(&mut self, index: PeerIndex, kept: Option<Kept>, now: Instant) {
        let Some(neighbour) = self.neighbours.get_mut(usize::from(index)) else { return };
        let Some(Channel { up, group: place }) = neighbour.channel.take() else { return };
        neighbour.limit_said = LimitSaid::Nothing;
        if let Some(count) = self.locals.get_mut(&up.local) {
            *count -= 1;
            if *count == 0 {
                self.locals.remove(&up.local);
            }
        }
        self.leave(index, place);
        self.keep(index, kept, now);
    }

    /// The neighbour wants our routes again (RFC 2918 §4).
    pub(super) fn refresh(&mut self, index: PeerIndex, family: Family) {
        let Some(place) = self.channel(index).map(|channel| channel.group) else { return };
        if let Some(group) = self.group(place) {
            group.refresh(index, family);
        }
    }

    /// The next changes that the driver has to know, none of much that was looked at maybe; the groups
    /// are marked on the way. `None`: nothing has changed.
    pub(super) fn next_changes(&mut self) -> Option<Vec<RouteChange>> {
        let more = self.rib.look_again();
        let mut changes = Vec::new();
        for _ in 0..LOOKS {
            let Some(change) = self.rib.next_change() else {
                return (more || !changes.is_empty()).then_some(changes);
            };
            for group in self.groups.iter_mut().flatten() {
                group.mark(change.id);
            }
            let news = change.news.into_iter();
            changes.extend(news.map(|(prefix, next_hops, install)| RouteChange {
                prefix,
                next_hops,
                install,
            }));
            if changes.len() == ROUTES {
                break;
            }
        }
        Some(changes)
    }

    /// Queues one batch of UPDATEs of one group; says whether anything was pending.
    pub(super) fn flush(&mut self) -> bool {
        let count = self.groups.len();
        for turn in 0..count {
            let place = (self.next_to_flush + turn) % count;
            let Some(Some(group)) = self.groups.get_mut(place) else { continue };
            group.look_at_clock(self.now);
            group.hold_end_of_rib(self.resolving);
            let Some(sendings) = group.flush(&mut self.rib) else { continue };
            let overdue = group.overdue();
            let (oversize, member) = (group.take_oversize(), group.any_member());
            if sendings.is_empty() && group.is_pending() {
                self.queue.push_back(Output::Busy);
            }
            self.next_to_flush = place + 1;
            if let Some(peer) = member {
                oversize.into_iter().for_each(|route| self.say_oversize(peer, route));
            }
            sendings.into_iter().for_each(|sending| self.send(sending));
            for peer in overdue {
                self.end_session(peer, Notification::new(error::OUT_OF_RESOURCES), self.now);
            }
            return true;
        }
        false
    }

    fn say_oversize(&mut self, member: PeerIndex, (prefix, error): (IpNetwork, EncodeError)) {
        if let Some(neighbour) = self.neighbours.get(usize::from(member)) {
            let peer = neighbour.session.config().address;
            let what = format!(
                "{prefix}, and what shares its attributes, is not told to it and those that are told the same: {error}"
            );
            self.queue.push_back(Output::Event(Event::Oversize { peer, what }));
        }
    }

    fn send(&mut self, Sending { peer, bytes, messages, marks }: Sending) {
        let Some(neighbour) = self.neighbours.get_mut(usize::from(peer)) else { return };
        if let Some(channel) = &neighbour.channel
            && !bytes.is_empty()
        {
            self.queue.push_back(Output::Send { conn: channel.up.conn, bytes });
            neighbour.session.count_sent(messages, marks);
        }
    }
}
