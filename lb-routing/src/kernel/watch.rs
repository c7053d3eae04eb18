//! The watcher: tells the router what the kernel has, first all of it, then each change.
//!
//! It hears events before it reads the tables, so nothing falls between. What events cannot tell, it
//! reads again: after an overrun; after a link went down or an address left, when the kernel drops routes without a word; when
//! the router finds that the kernel has something else than it thought.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::rule::RuleMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::mirror::{Event, Mirror};
use super::next_hops::Wire;
use super::socket::{Message, Socket};
use super::{KernelError, encode};

/// Events in one message to the router.
const BATCH: usize = 512;
/// Changes that come together are read together.
const RESYNC_DELAY: Duration = Duration::from_millis(100);
/// Of the time, at most one part in so many goes into reading tables again.
const RESYNC_SHARE: u32 = 10;
/// Events that waited for a reading and are taken with it at most: more than the kernel keeps for us. Others come after it.
const MEANWHILE: usize = 65_536;
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

/// The watcher.
pub(crate) struct Watcher {
    events: Socket,
    tables: Socket,
    out: mpsc::Sender<Vec<Event>>,
    /// The router wants the tables read again.
    again: Arc<Notify>,
    mirror: Mirror,
    /// Events since the tables began to be read, or why there are some that nobody knows.
    meanwhile: io::Result<Vec<Message>>,
    /// When tables are read again.
    resync_at: Option<Instant>,
    /// Events were lost since they were.
    lost: bool,
    /// Not before.
    rest_until: Instant,
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
            mirror: Mirror::new(installer),
            meanwhile: Ok(Vec::new()),
            resync_at: Some(now),
            lost: false,
            rest_until: now,
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
            if self.mirror.wants_reading() {
                self.resync_soon();
            }
            self.flush().await;
        }
    }

    fn heard(&mut self, messages: io::Result<Vec<Message>>) {
        match messages {
            Ok(messages) => messages.into_iter().for_each(|message| self.mirror.hear(message)),
            Err(error) => self.lost_events(&error),
        }
    }

    fn lost_events(&mut self, error: &io::Error) {
        tracing::warn!(%error, "kernel events were lost");
        self.lost = true;
        self.mirror.lost_events();
    }

    fn resync_soon(&mut self) {
        self.resync_at.get_or_insert_with(|| Instant::now() + RESYNC_DELAY);
    }

    /// Reads all tables, and takes the events of that time after them.
    async fn resync(&mut self) {
        let begin = Instant::now();
        self.resync_at = None;
        let lost = std::mem::take(&mut self.lost);
        if lost {
            tracing::info!("reading the kernel's tables again");
        }
        self.mirror.begin_reading();
        let result = self.read_tables().await;
        self.rest_until = Instant::now() + begin.elapsed() * RESYNC_SHARE;
        match result {
            Ok(()) => {
                self.overhear();
                let (messages, error) = match self.take_meanwhile() {
                    Ok(messages) => (messages, None),
                    Err(error) => (Vec::new(), Some(error)),
                };
                self.mirror.end_reading(messages);
                if let Some(error) = error {
                    self.lost_events(&error);
                } else if lost {
                    let ms = begin.elapsed().as_millis();
                    tracing::info!(ms, "the kernel's tables were read again");
                }
            }
            Err((what, error)) => {
                tracing::warn!(%error, "cannot read the kernel's {what}; trying again");
                self.lost |= lost;
                self.rest_until += RESYNC_DELAY * RESYNC_SHARE;
                self.mirror.give_up_reading();
                let meanwhile = self.take_meanwhile();
                self.heard(meanwhile);
            }
        }
    }

    /// Takes what is heard while tables are read: of links and neighbours it counts at once, since packets are lost as long as it
    /// does not and a large table takes seconds, and with all the rest after the reading.
    fn overhear(&mut self) {
        let Ok(waiting) = &mut self.meanwhile else { return };
        match self.events.drain(MEANWHILE.saturating_sub(waiting.len())) {
            Ok(messages) => {
                messages.iter().for_each(|message| self.mirror.overhear(message));
                waiting.extend(messages);
            }
            Err(error) => self.meanwhile = Err(error),
        }
    }

    fn take_meanwhile(&mut self) -> io::Result<Vec<Message>> {
        std::mem::replace(&mut self.meanwhile, Ok(Vec::new()))
    }

    async fn read_tables(&mut self) -> Result<(), (&'static str, io::Error)> {
        let links = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.read_table("links", links).await?;
        let next_hops = self.tables.next_hops().await;
        self.mirror.read_next_hops(next_hops.map_err(|error| ("next-hop objects", error))?);
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
                self.mirror.forget_routes(family);
            }
            attempts = attempts_left;
            for message in messages {
                if let Wire::Known(message) = message {
                    self.mirror.read(message);
                }
            }
            self.overhear();
            self.flush().await;
        }
        Ok(())
    }

    async fn flush(&mut self) {
        let mut events = self.mirror.take_events().into_iter().peekable();
        while events.peek().is_some() {
            let batch: Vec<_> = events.by_ref().take(BATCH).collect();
            if self.out.send(batch).await.is_err() {
                return;
            }
        }
    }
}
