//! What the watcher heard and read of the kernel, and what of it is news to the router: no socket, no clock.
//!
//! A reading takes time, and the kernel changes meanwhile. Events of that time wait, and come after it. Of a route that one of
//! them is about, the reading may have seen what was there before it or after: so for such a route counts what was known before
//! the reading, and then the events, in their order. Where that is not known (at the start, and after events were lost), an
//! event that says what the reading found is the same route once more.

mod routes;

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use lb_routing_proto::fib::{Fact, KernelRoute, KernelRouteKind, OwnRoute, RouteKey};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_REPLACE, NetlinkPayload};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use self::routes::{Routes, Seen, print};
use super::next_hops::{NextHops, Object, Wire};
use super::socket::Message;
use super::{decode, rule};
use crate::addresses::AddressKey;
use crate::plan::RouteId;

/// What the kernel has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The tables are about to be read.
    Reading,
    /// A fact.
    Fact(Fact),
    /// A route of ours is there.
    Own(RouteId, OwnRoute),
    /// A route of ours is gone, and not by our doing.
    OwnGone(RouteId),
    /// An interface has an address, and whether it is of ours.
    Address(AddressKey, bool),
    /// An interface has an address no longer.
    AddressGone(AddressKey),
    /// The rules by which forwarded packets may take another table than the main one, as `ip rule` shows them.
    Rules(BTreeSet<String>),
    /// The tables were read to their end.
    Read,
}

/// What is known of the kernel.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    /// Whose events are ours.
    installer: u32,
    known: Known,
    /// During a reading: what of `known` was found.
    found: Option<Known>,
    next_hops: NextHops,
    up: HashSet<u32>,
    /// Routes of which the kernel may take a part away by a message that reads as if it took all: those that had several
    /// next hops, and those of which there are several of one prefix and metric.
    several: HashSet<RouteKey>,
    /// The same before the reading that is under way.
    several_before: HashSet<RouteKey>,
    /// All was read once, and no event was lost since.
    is_in_step: bool,
    /// The events at hand may be about what a reading has found already.
    may_repeat: bool,
    /// Only a reading tells more.
    wants_reading: bool,
    events: Vec<Event>,
}

/// Keys of what was told.
#[derive(Debug, Default)]
struct Known {
    links: HashSet<u32>,
    neighbours: HashSet<(u32, IpAddr)>,
    addresses: HashSet<AddressKey>,
    routes: Routes,
    rules: BTreeSet<String>,
}

impl Mirror {
    /// `installer`: the id by which the kernel names our changes.
    pub(super) fn new(installer: u32) -> Self {
        Self { installer, ..Self::default() }
    }

    /// What is news since this was asked last.
    pub(super) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Whether only a reading tells more, since this was asked last.
    pub(super) fn wants_reading(&mut self) -> bool {
        std::mem::take(&mut self.wants_reading)
    }

    /// Events were lost.
    pub(super) fn lost_events(&mut self) {
        self.is_in_step = false;
        self.wants_reading = true;
    }

    /// The tables are about to be read.
    pub(super) fn begin_reading(&mut self) {
        self.found = Some(Known::default());
        self.several_before = std::mem::take(&mut self.several);
        self.events.push(Event::Reading);
    }

    /// They cannot be read.
    pub(super) fn give_up_reading(&mut self) {
        let found = self.found.take().unwrap_or_default();
        // It was told.
        for (key, seen) in found.routes.seen {
            self.known.routes.insert(key, seen);
        }
        self.several.extend(std::mem::take(&mut self.several_before));
        self.wants_reading = true;
    }

    /// They were read; what was known and is not found is gone. `meanwhile`: every event since before that, which is taken now.
    pub(super) fn end_reading(&mut self, meanwhile: Vec<Message>) {
        let mut found = self.found.take().unwrap_or_default();
        let before = std::mem::take(&mut self.several_before);
        let touched = if self.is_in_step { self.touched(&meanwhile) } else { HashSet::new() };
        for key in touched {
            found.routes.remove(&key);
            self.several.remove(&key);
            if let Some(seen) = self.known.routes.seen.get(&key) {
                found.routes.insert(key, *seen);
            }
            self.several.extend(before.get(&key));
        }
        self.sweep(found);
        self.may_repeat = !self.is_in_step;
        self.is_in_step = true;
        meanwhile.into_iter().for_each(|message| self.hear(message));
        self.may_repeat = false;
        self.events.push(Event::Read);
    }

    /// Others' routes that events are about.
    fn touched(&self, events: &[Message]) -> HashSet<RouteKey> {
        let key = |message: &Message| {
            let NetlinkPayload::InnerMessage(Wire::Known(inner)) = &message.payload else {
                return None;
            };
            let (RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route)) =
                inner
            else {
                return None;
            };
            let route = decode::route(route, &self.next_hops)?;
            (!route.ours).then_some(route.route.key)
        };
        events.iter().filter_map(key).collect()
    }

    /// An event.
    #[expect(clippy::wildcard_enum_match_arm, reason = "netlink's enums are open")]
    pub(super) fn hear(&mut self, message: Message) {
        let by_us = message.header.port_number == self.installer;
        let replaces = message.header.flags & NLM_F_REPLACE != 0;
        let appended = message.header.flags & NLM_F_APPEND != 0;
        let NetlinkPayload::InnerMessage(inner) = message.payload else { return };
        let inner = match inner {
            Wire::Known(inner) => inner,
            Wire::NextHop(id, object) => return self.next_hop(id, object),
            Wire::NextHopGone(id) => return self.next_hop_gone(id),
            Wire::GetNextHops => return,
        };
        match inner {
            RouteNetlinkMessage::NewLink(link) => self.link(&link),
            RouteNetlinkMessage::DelLink(link) => self.link_gone(&link),
            RouteNetlinkMessage::NewNeighbour(neighbour) => self.neighbour(&neighbour, true),
            RouteNetlinkMessage::DelNeighbour(neighbour) => self.neighbour(&neighbour, false),
            RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_) if by_us => {}
            RouteNetlinkMessage::NewRoute(route) if appended => self.beside(&route),
            RouteNetlinkMessage::NewRoute(route) => self.new_route(&route, replaces),
            RouteNetlinkMessage::DelRoute(route) => self.route_gone(&route),
            RouteNetlinkMessage::NewAddress(address) => self.address(&address),
            RouteNetlinkMessage::DelAddress(address) => {
                if let Some((key, _)) = decode::address(&address) {
                    self.known.addresses.remove(&key);
                    self.events.push(Event::AddressGone(key));
                }
                self.wants_reading = true;
            }
            RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => {
                self.wants_reading = true;
            }
            _ => {}
        }
    }

    /// An event that comes while the tables are read, and is heard with the others at the end: what is of links and neighbours
    /// is told at once.
    #[expect(clippy::wildcard_enum_match_arm, reason = "netlink's enums are open")]
    pub(super) fn overhear(&mut self, message: &Message) {
        let NetlinkPayload::InnerMessage(Wire::Known(inner)) = &message.payload else { return };
        match inner {
            RouteNetlinkMessage::NewLink(link) => self.link(link),
            RouteNetlinkMessage::DelLink(link) => self.link_gone(link),
            RouteNetlinkMessage::NewNeighbour(neighbour) => self.neighbour(neighbour, true),
            RouteNetlinkMessage::DelNeighbour(neighbour) => self.neighbour(neighbour, false),
            _ => {}
        }
    }

    /// A message of a table that is being read.
    #[expect(clippy::wildcard_enum_match_arm, reason = "netlink's enums are open")]
    pub(super) fn read(&mut self, message: RouteNetlinkMessage) {
        match message {
            RouteNetlinkMessage::NewLink(link) => self.link(&link),
            RouteNetlinkMessage::NewNeighbour(neighbour) => self.neighbour(&neighbour, true),
            RouteNetlinkMessage::NewAddress(address) => self.address(&address),
            RouteNetlinkMessage::NewRoute(route) => self.route(&route),
            RouteNetlinkMessage::NewRule(rule) => {
                if let (Some(rule), Some(found)) = (rule::foreign(&rule), &mut self.found) {
                    found.rules.insert(rule);
                }
            }
            _ => {}
        }
    }

    /// All next-hop objects were read: before the routes, which name them.
    pub(super) fn read_next_hops(&mut self, next_hops: NextHops) {
        self.next_hops = next_hops;
    }

    /// A table of routes changed while it was read and is read again: what comes now is no second route of a prefix.
    pub(super) fn forget_routes(&mut self, family: AddressFamily) {
        let is_ipv6 = family == AddressFamily::Inet6;
        if let Some(found) = &mut self.found {
            let of_it: Vec<_> = found.routes.seen.keys().copied().collect();
            let of_it = of_it.into_iter().filter(|key| key.prefix.is_ipv6() == is_ipv6);
            of_it.for_each(|key| found.routes.remove(&key));
        }
    }

    fn link(&mut self, message: &LinkMessage) {
        let Some(link) = decode::link(message) else { return };
        if link.up {
            self.up.insert(link.ifindex);
        } else if self.up.remove(&link.ifindex) {
            self.wants_reading = true;
        }
        self.known.links.insert(link.ifindex);
        if let Some(found) = &mut self.found {
            found.links.insert(link.ifindex);
        }
        self.fact(Fact::Link(link));
    }

    fn link_gone(&mut self, message: &LinkMessage) {
        let ifindex = message.header.index;
        if message.header.interface_family == AddressFamily::Unspec
            && self.known.links.remove(&ifindex)
        {
            self.up.remove(&ifindex);
            self.fact(Fact::LinkGone { ifindex });
            self.wants_reading = true;
        }
    }

    fn neighbour(&mut self, message: &NeighbourMessage, there: bool) {
        let Some((ifindex, address, mac)) = decode::neighbour(message) else { return };
        let mac = mac.filter(|_| there);
        let key = (ifindex, address);
        if mac.is_some() {
            self.known.neighbours.insert(key);
            if let Some(found) = &mut self.found {
                found.neighbours.insert(key);
            }
        } else if !self.known.neighbours.remove(&key) {
            return;
        }
        self.fact(decode::neighbour_fact(ifindex, address, mac));
    }

    fn address(&mut self, message: &AddressMessage) {
        let Some((key, ours)) = decode::address(message) else { return };
        self.known.addresses.insert(key);
        if let Some(found) = &mut self.found {
            found.addresses.insert(key);
        }
        self.events.push(Event::Address(key, ours));
    }

    /// What routes that name an object do changes with it, without a word about them.
    fn next_hop(&mut self, id: u32, object: Object) {
        let changed = self.next_hops.set(id, Some(object));
        self.renew(&changed);
    }

    /// Routes go with the object that they name, without a word about them.
    fn next_hop_gone(&mut self, id: u32) {
        let changed = self.next_hops.set(id, None);
        for (key, _) in self.known.routes.of(&[id]) {
            self.known.routes.remove(&key);
            self.fact(Fact::KernelRouteGone(key));
            // Where there were several of the prefix, others may be left.
            self.wants_reading = true;
        }
        self.renew(&changed);
    }

    fn renew(&mut self, objects: &[u32]) {
        for (key, seen) in self.known.routes.of(objects) {
            let kind = seen.object.and_then(|object| self.next_hops.kind(object));
            let kind = decode::limited(kind.unwrap_or(KernelRouteKind::Kernel), seen.mtu);
            self.known.routes.insert(key, Seen { print: print(&kind), ..seen });
            // Of which of several it is said is not known before the next reading.
            let kind = if self.several.contains(&key) { KernelRouteKind::Kernel } else { kind };
            self.fact(Fact::KernelRoute(KernelRoute { key, kind }));
            self.wants_reading = true;
        }
    }

    /// An event; where the kernel has the prefix and metric already and replaces nothing, there are two.
    fn new_route(&mut self, message: &RouteMessage, replaces: bool) {
        let found = decode::route(message, &self.next_hops).filter(|found| !found.ours);
        let is_second = !replaces
            && found.is_some_and(|found| {
                let known = self.known.routes.seen.get(&found.route.key);
                let print = print(&found.route.kind);
                let repeats =
                    |seen: &Seen| self.may_repeat && print.is_some() && seen.print == print;
                known.is_some_and(|seen| !repeats(seen))
            });
        if is_second {
            self.beside(message);
        } else {
            self.route(message);
        }
    }

    /// A second route of the same prefix and metric: only a reading tells which one counts, and the kernel knows until then. So
    /// it does when one of them is gone.
    fn beside(&mut self, message: &RouteMessage) {
        let found = decode::route(message, &self.next_hops);
        if let Some(found) = found.filter(|found| !found.ours) {
            let key = found.route.key;
            self.note_route(key, Seen::of(&found));
            self.several.insert(key);
            let kind = KernelRouteKind::Kernel;
            self.fact(Fact::KernelRoute(KernelRoute { key, kind }));
        }
        self.wants_reading = true;
    }

    fn route(&mut self, message: &RouteMessage) {
        let Some(found) = decode::route(message, &self.next_hops) else { return };
        if found.ours {
            // Others are none that we would install.
            if let RouteKey { prefix, metric, tos: 0, source: None, .. } = found.route.key {
                self.events.push(Event::Own(RouteId { prefix, metric }, found.own()));
            }
            return;
        }
        let seen = Seen::of(&found);
        let mut route = found.route;
        if let KernelRouteKind::Unicast(hops) = &route.kind
            && hops.len() > 1
            && route.key.prefix.is_ipv6()
        {
            self.several.insert(route.key);
        }
        if !self.note_route(route.key, seen) {
            self.several.insert(route.key);
            // Of several IPv4 routes the first counts; of IPv6 ones that are no multipath route, the kernel takes turns.
            if route.key.prefix.is_ipv4() {
                return;
            }
            route.kind = KernelRouteKind::Kernel;
        }
        self.fact(Fact::KernelRoute(route));
    }

    /// Notes a route; whether this reading, if one is under way, has not found it yet.
    fn note_route(&mut self, key: RouteKey, seen: Seen) -> bool {
        match &mut self.found {
            Some(found) => found.routes.insert(key, seen),
            None => {
                self.known.routes.insert(key, seen);
                true
            }
        }
    }

    fn route_gone(&mut self, message: &RouteMessage) {
        let Some(decode::Route { route, ours, .. }) = decode::route(message, &self.next_hops)
        else {
            return;
        };
        if ours {
            let RouteKey { prefix, metric, .. } = route.key;
            self.events.push(Event::OwnGone(RouteId { prefix, metric }));
        } else if self.several.contains(&route.key) {
            // One next hop may be gone, or the route: the kernel says both alike, and knows until the next reading.
            let kind = KernelRouteKind::Kernel;
            self.fact(Fact::KernelRoute(KernelRoute { key: route.key, kind }));
            self.wants_reading = true;
        } else {
            // Also of one that is not known: a reading may have told it.
            self.known.routes.remove(&route.key);
            self.fact(Fact::KernelRouteGone(route.key));
        }
    }

    fn fact(&mut self, fact: Fact) {
        self.events.push(Event::Fact(fact));
    }

    fn sweep(&mut self, found: Known) {
        let known = std::mem::take(&mut self.known);
        for key in known.routes.seen.keys().filter(|key| !found.routes.seen.contains_key(key)) {
            self.fact(Fact::KernelRouteGone(*key));
        }
        for (ifindex, address) in known.neighbours.difference(&found.neighbours) {
            self.fact(decode::neighbour_fact(*ifindex, *address, None));
        }
        for key in known.addresses.difference(&found.addresses) {
            self.events.push(Event::AddressGone(*key));
        }
        for ifindex in known.links.difference(&found.links) {
            self.up.remove(ifindex);
            self.fact(Fact::LinkGone { ifindex: *ifindex });
        }
        if known.rules != found.rules {
            self.events.push(Event::Rules(found.rules.clone()));
        }
        self.known = found;
    }
}

#[cfg(test)]
mod tests;
