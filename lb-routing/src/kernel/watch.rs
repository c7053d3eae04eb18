//! The watcher: tells the router what the kernel has, first all of it, then each change.
//!
//! It hears events before it reads the tables, so nothing falls between. What events cannot tell, it
//! reads again: after an overrun; after a link went down, an address left or a next-hop object changed, when the kernel
//! drops or changes routes without a word; when the router finds that the kernel has something else than it thought.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lb_routing_proto::fib::{Fact, KernelRoute, KernelRouteKind, OwnRoute, RouteKey};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_REPLACE, NetlinkPayload};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::RuleMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::next_hops::NextHops;
use super::socket::{Message, Socket};
use super::{KernelError, decode, encode, rule};
use crate::addresses::AddressKey;
use crate::plan::RouteId;

/// Events in one message to the router.
const BATCH: usize = 512;
/// Changes that come together are read together.
const RESYNC_DELAY: Duration = Duration::from_millis(100);
/// Of the time, at most one part in so many goes into reading tables again.
const RESYNC_SHARE: u32 = 10;
/// Links, neighbours, addresses, routes and rules of IPv4, and of IPv6; next-hop objects.
const GROUPS: u32 = 0x1
    | 0x4
    | 0x10
    | 0x40
    | 0x80
    | 0x100
    | 0x400
    | 1 << (RTNLGRP_IPV6_RULE - 1)
    | 1 << (RTNLGRP_NEXTHOP - 1);
/// `linux/rtnetlink.h`; these have no `RTMGRP_` of their own.
const RTNLGRP_IPV6_RULE: u32 = 19;
const RTNLGRP_NEXTHOP: u32 = 32;

/// What the kernel has.
#[derive(Debug)]
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

/// The watcher.
pub(crate) struct Watcher {
    events: Socket,
    tables: Socket,
    out: mpsc::Sender<Vec<Event>>,
    /// The router wants the tables read again.
    again: Arc<Notify>,
    /// Whose events are ours.
    installer: u32,
    known: Known,
    /// During a reading: what of `known` was found.
    found: Option<Known>,
    /// As of the last reading: whatever changes one leads to another.
    next_hops: NextHops,
    batch: Vec<Event>,
    /// When tables are read again.
    resync_at: Option<Instant>,
    /// Events were lost since they were.
    lost: bool,
    /// Not before.
    rest_until: Instant,
    up: HashSet<u32>,
    /// Routes of which the kernel may take a part away by a message that reads as if it took all: those that had several
    /// next hops, and those of which there are several of one prefix and metric.
    several: HashSet<RouteKey>,
}

/// Keys of what was told.
#[derive(Debug, Default)]
struct Known {
    links: HashSet<u32>,
    neighbours: HashSet<(u32, IpAddr)>,
    addresses: HashSet<AddressKey>,
    routes: HashSet<RouteKey>,
    rules: BTreeSet<String>,
}

impl Watcher {
    pub(crate) fn new(
        out: mpsc::Sender<Vec<Event>>,
        again: Arc<Notify>,
        installer: u32,
    ) -> Result<Self, KernelError> {
        let now = Instant::now();
        Ok(Self {
            events: Socket::open(GROUPS).map_err(KernelError::Open)?,
            tables: Socket::open(0).map_err(KernelError::Open)?,
            out,
            again,
            installer,
            known: Known::default(),
            found: None,
            next_hops: NextHops::default(),
            batch: Vec::new(),
            resync_at: Some(now),
            lost: false,
            rest_until: now,
            up: HashSet::new(),
            several: HashSet::new(),
        })
    }

    /// Works until the router is gone.
    pub(crate) async fn run(mut self) {
        let again = Arc::clone(&self.again);
        while !self.out.is_closed() {
            let resync_at = self.resync_at.map(|at| at.max(self.rest_until));
            tokio::select! {
                messages = self.events.receive() => self.heard(messages),
                () = again.notified() => self.resync_soon(),
                () = tokio::time::sleep_until(resync_at.unwrap_or(self.rest_until)),
                    if resync_at.is_some() => self.resync().await,
            }
            self.flush().await;
        }
    }

    fn heard(&mut self, messages: io::Result<Vec<Message>>) {
        match messages {
            Ok(messages) => {
                // Routes go with an object without a word, and change with it without one where routes name only the object;
                // what a route that names one means is not known until they are read again.
                if self.events.heard_of_next_hops() {
                    self.next_hops = NextHops::default();
                    self.resync_soon();
                }
                for message in messages {
                    self.event(message);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "kernel events were lost");
                self.lost = true;
                self.resync_soon();
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "netlink's enums are open")]
    fn event(&mut self, message: Message) {
        let by_us = message.header.port_number == self.installer;
        let replaces = message.header.flags & NLM_F_REPLACE != 0;
        let appended = message.header.flags & NLM_F_APPEND != 0;
        let NetlinkPayload::InnerMessage(inner) = message.payload else { return };
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
                    self.batch.push(Event::AddressGone(key));
                }
                self.resync_soon();
            }
            RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => self.resync_soon(),
            _ => {}
        }
    }

    fn link(&mut self, message: &LinkMessage) {
        let Some(link) = decode::link(message) else { return };
        if link.up {
            self.up.insert(link.ifindex);
        } else if self.up.remove(&link.ifindex) {
            self.resync_soon();
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
            self.resync_soon();
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
        self.batch.push(Event::Address(key, ours));
    }

    /// An event; where the kernel has the prefix and metric already and replaces nothing, there are two.
    fn new_route(&mut self, message: &RouteMessage, replaces: bool) {
        let key = decode::route(message, &self.next_hops)
            .filter(|found| !found.ours)
            .map(|found| found.route.key);
        if !replaces && key.is_some_and(|key| self.known.routes.contains(&key)) {
            self.beside(message);
        } else {
            self.route(message);
        }
    }

    /// A second route of the same prefix and metric: only a reading tells which one counts, and the kernel knows until then. So
    /// it does when one of them is gone.
    fn beside(&mut self, message: &RouteMessage) {
        let found = decode::route(message, &self.next_hops);
        if let Some(decode::Route { route: KernelRoute { key, .. }, ours: false, .. }) = found {
            self.known.routes.insert(key);
            if let Some(found) = &mut self.found {
                found.routes.insert(key);
            }
            self.several.insert(key);
            let kind = KernelRouteKind::Kernel;
            self.fact(Fact::KernelRoute(KernelRoute { key, kind }));
        }
        self.resync_soon();
    }

    fn route(&mut self, message: &RouteMessage) {
        let Some(found) = decode::route(message, &self.next_hops) else { return };
        if found.ours {
            // Others are none that we would install.
            if let RouteKey { prefix, metric, tos: 0, source: None, .. } = found.route.key {
                self.batch.push(Event::Own(RouteId { prefix, metric }, found.own()));
            }
            return;
        }
        let mut route = found.route;
        if let KernelRouteKind::Unicast(hops) = &route.kind
            && hops.len() > 1
            && route.key.prefix.is_ipv6()
        {
            self.several.insert(route.key);
        }
        self.known.routes.insert(route.key);
        let is_new = self.found.as_mut().is_none_or(|found| found.routes.insert(route.key));
        if !is_new {
            self.several.insert(route.key);
            // Of several IPv4 routes the first counts; of IPv6 ones that are no multipath route, the kernel takes turns.
            if route.key.prefix.is_ipv4() {
                return;
            }
            route.kind = KernelRouteKind::Kernel;
        }
        self.fact(Fact::KernelRoute(route));
    }

    fn route_gone(&mut self, message: &RouteMessage) {
        let Some(decode::Route { route, ours, .. }) = decode::route(message, &self.next_hops)
        else {
            return;
        };
        if ours {
            let RouteKey { prefix, metric, .. } = route.key;
            self.batch.push(Event::OwnGone(RouteId { prefix, metric }));
        } else if self.several.contains(&route.key) {
            // One next hop may be gone, or the route: the kernel says both alike, and knows until the next reading.
            let kind = KernelRouteKind::Kernel;
            self.fact(Fact::KernelRoute(KernelRoute { key: route.key, kind }));
            self.resync_soon();
        } else if self.known.routes.remove(&route.key) {
            self.fact(Fact::KernelRouteGone(route.key));
        }
    }

    fn fact(&mut self, fact: Fact) {
        self.batch.push(Event::Fact(fact));
    }

    fn resync_soon(&mut self) {
        self.resync_at.get_or_insert_with(|| Instant::now() + RESYNC_DELAY);
    }

    /// Reads all tables; what was known and is not found is gone.
    async fn resync(&mut self) {
        let begin = Instant::now();
        self.resync_at = None;
        self.found = Some(Known::default());
        let several = std::mem::take(&mut self.several);
        let lost = std::mem::take(&mut self.lost);
        if lost {
            tracing::info!("reading the kernel's tables again");
        }
        self.batch.push(Event::Reading);
        let result = self.read_tables().await;
        let found = self.found.take().unwrap_or_default();
        self.rest_until = Instant::now() + begin.elapsed() * RESYNC_SHARE;
        match result {
            Ok(()) => {
                self.sweep(found);
                self.batch.push(Event::Read);
                if lost {
                    let ms = begin.elapsed().as_millis();
                    tracing::info!(ms, "the kernel's tables were read again");
                }
            }
            Err((what, error)) => {
                tracing::warn!(%error, "cannot read the kernel's {what}; trying again");
                self.lost |= lost;
                self.several.extend(several);
                self.rest_until += RESYNC_DELAY * RESYNC_SHARE;
                self.resync_soon();
            }
        }
    }

    async fn read_tables(&mut self) -> Result<(), (&'static str, io::Error)> {
        let links = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.read_table("links", links).await?;
        let next_hops = self.tables.next_hops().await;
        self.next_hops = next_hops.map_err(|error| ("next-hop objects", error))?;
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut rules = RuleMessage::default();
            rules.header.family = family;
            self.read_table("rules", RouteNetlinkMessage::GetRule(rules)).await?;
            let mut neighbours = NeighbourMessage::default();
            neighbours.header.family = family;
            self.read_table("neighbours", RouteNetlinkMessage::GetNeighbour(neighbours)).await?;
            let mut addresses = AddressMessage::default();
            addresses.header.family = family;
            self.read_table("addresses", RouteNetlinkMessage::GetAddress(addresses)).await?;
            let routes = RouteNetlinkMessage::GetRoute(encode::all_routes(family));
            self.read_table("routes", routes).await?;
        }
        Ok(())
    }

    /// Hands a table on in batches, so that a large one is never in memory as a whole.
    #[expect(clippy::wildcard_enum_match_arm, reason = "netlink's enums are open")]
    async fn read_table(
        &mut self,
        what: &'static str,
        request: RouteNetlinkMessage,
    ) -> Result<(), (&'static str, io::Error)> {
        let error = |error| (what, error);
        let family = match &request {
            RouteNetlinkMessage::GetRoute(routes) => Some(routes.header.address_family),
            _ => None,
        };
        self.tables.begin_dump(request).await.map_err(error)?;
        let mut attempts = self.tables.dump_attempts_left();
        while let Some(messages) = self.tables.next_of_dump().await.map_err(error)? {
            let attempts_left = self.tables.dump_attempts_left();
            if attempts_left != attempts
                && let Some(family) = family
            {
                self.forget_routes(family);
            }
            attempts = attempts_left;
            for message in messages {
                match message {
                    RouteNetlinkMessage::NewLink(link) => self.link(&link),
                    RouteNetlinkMessage::NewNeighbour(neighbour) => {
                        self.neighbour(&neighbour, true)
                    }
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
            self.flush().await;
        }
        Ok(())
    }

    /// The table changed while it was read and is read again: what comes now is no second route of a prefix.
    fn forget_routes(&mut self, family: AddressFamily) {
        let is_ipv6 = family == AddressFamily::Inet6;
        if let Some(found) = &mut self.found {
            found.routes.retain(|key| key.prefix.is_ipv6() != is_ipv6);
        }
    }

    fn sweep(&mut self, found: Known) {
        let known = std::mem::take(&mut self.known);
        for key in known.routes.difference(&found.routes) {
            self.fact(Fact::KernelRouteGone(*key));
        }
        for (ifindex, address) in known.neighbours.difference(&found.neighbours) {
            self.fact(decode::neighbour_fact(*ifindex, *address, None));
        }
        for key in known.addresses.difference(&found.addresses) {
            self.batch.push(Event::AddressGone(*key));
        }
        for ifindex in known.links.difference(&found.links) {
            self.up.remove(ifindex);
            self.fact(Fact::LinkGone { ifindex: *ifindex });
        }
        if known.rules != found.rules {
            self.batch.push(Event::Rules(found.rules.clone()));
        }
        self.known = found;
    }

    async fn flush(&mut self) {
        let events = std::mem::take(&mut self.batch);
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            let batch: Vec<_> = events.by_ref().take(BATCH).collect();
            if self.out.send(batch).await.is_err() {
                return;
            }
        }
    }
}
