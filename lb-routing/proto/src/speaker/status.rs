//! Neighbours and paths as people see them.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use ipnetwork::IpNetwork;

use super::{Neighbour, Speaker};
use crate::policy::Rejection;
use crate::rib::{PeerIndex, PrefixId};
use crate::session::Negotiated;
use crate::wire::{Attributes, Message};

/// FSM states (RFC 4271 §8.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Idle.
    Idle,
    /// Connect.
    Connect,
    /// Active.
    Active,
    /// OpenSent.
    OpenSent,
    /// OpenConfirm.
    OpenConfirm,
    /// Established.
    Established,
}

/// How many messages of each type there were since the start (RFC 4271 §4.1, RFC 2918).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// OPEN.
    pub open: u64,
    /// UPDATE.
    pub update: u64,
    /// NOTIFICATION.
    pub notification: u64,
    /// KEEPALIVE.
    pub keepalive: u64,
    /// ROUTE-REFRESH, with the marks of RFC 7313.
    pub route_refresh: u64,
}

impl Messages {
    /// Of all types.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.open + self.update + self.notification + self.keepalive + self.route_refresh
    }

    /// Another one.
    pub(crate) const fn count(&mut self, message: &Message) {
        let of = match message {
            Message::Open(_) => &mut self.open,
            Message::Update(_) => &mut self.update,
            Message::Notification(_) => &mut self.notification,
            Message::Keepalive => &mut self.keepalive,
            Message::RouteRefresh(_) | Message::RefreshMark(..) => &mut self.route_refresh,
        };
        *of += 1;
    }
}

/// A neighbour as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its AS number.
    pub asn: u32,
    /// It came by itself: by which [`Listen`](crate::config::Listen), by its name.
    pub dynamic: Option<String>,
    /// FSM state.
    pub state: State,
    /// When it was entered.
    pub since: Instant,
    /// Its BGP identifier, once known.
    pub router_id: Option<Ipv4Addr>,
    /// Negotiated hold time; zero before.
    pub hold_time_secs: u16,
    /// Paths accepted.
    pub prefixes_received: u64,
    /// Paths that are kept though import does not accept them.
    pub prefixes_rejected: u64,
    /// Routes that import refused, since the start, kept or not.
    pub routes_refused: u64,
    /// Those of them that were to be kept, for which there was no room, since the start.
    pub refused_not_kept: u64,
    /// UPDATEs that were malformed or of no use, since the start; however many faults one had.
    pub malformed: u64,
    /// What was said last of that, with the octets that it is about; empty if nothing was.
    pub last_malformed: String,
    /// What both sides agreed on, in words; empty without a session.
    pub capabilities: Vec<String>,
    /// Prefixes advertised.
    pub prefixes_advertised: u64,
    /// Messages received.
    pub messages_received: Messages,
    /// Messages sent.
    pub messages_sent: Messages,
    /// The last error in words; empty if none.
    pub last_error: String,
    /// It restarts, and its paths stay until then at most (RFC 4724).
    pub stale_until: Option<Instant>,
}

/// A path as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStatus {
    /// The destination.
    pub prefix: IpNetwork,
    /// Unset for routes that we originate.
    pub next_hop: Option<IpAddr>,
    /// Unset for routes that we originate.
    pub peer: Option<IpAddr>,
    /// What tells it apart from others of its neighbour (RFC 7911); 0 where there are none.
    pub path_id: u32,
    /// Its attributes.
    pub attributes: Attributes,
    /// The best path.
    pub best: bool,
    /// Carries traffic.
    pub multipath: bool,
    /// Its neighbour restarts and has not told it again (RFC 4724).
    pub stale: bool,
    /// Why import does not let it in, in words; unset: it does.
    pub rejected: Option<&'static str>,
    /// Why it is where it is, in words, where that was asked for.
    pub why: Option<String>,
}

impl PathStatus {
    /// What it is known by.
    #[must_use]
    pub const fn key(&self) -> PathKey {
        (self.prefix, self.peer, self.path_id)
    }
}

/// What a path is known by: its destination, the neighbour that told us (unset for routes that we originate), and what tells
/// it apart from the neighbour's others.
pub type PathKey = (IpNetwork, Option<IpAddr>, u32);

impl Speaker {
    /// Every neighbour, in the order of the configuration.
    pub fn peers(&self) -> Vec<PeerStatus> {
        let places = self.order.iter();
        let neighbours =
            places.filter_map(|&index| Some((index, self.neighbours.get(usize::from(index))?)));
        neighbours.map(|it| self.peer_status(it)).collect()
    }

    /// Every path of every prefix that can be used, sorted by prefix, the best path first.
    pub fn routes(&self) -> Vec<PathStatus> {
        let mut entries: Vec<_> = self.rib.iter().collect();
        entries.sort_unstable();
        let paths = entries.into_iter().flat_map(|(prefix, id)| self.path_statuses(prefix, id));
        paths.filter(|path| path.rejected.is_none()).collect()
    }

    pub(super) fn path_statuses(
        &self,
        prefix: IpNetwork,
        id: PrefixId,
    ) -> impl Iterator<Item = PathStatus> + '_ {
        self.rib.paths(id).enumerate().map(move |(place, shown)| PathStatus {
            prefix,
            next_hop: self.rib.next_hop_of(shown.path.attributes),
            peer: shown.path.source.peer().and_then(|peer| Some(self.rib.ranking(peer)?.address)),
            path_id: shown.path.path_id,
            attributes: self.rib.attributes(shown.path.attributes),
            best: place == 0 && shown.carries_traffic,
            multipath: shown.carries_traffic,
            stale: shown.path.stale,
            rejected: shown.path.rejected().map(Rejection::words),
            why: None,
        })
    }

    fn peer_status(&self, (index, neighbour): (PeerIndex, &Neighbour)) -> PeerStatus {
        let session = &neighbour.session;
        let negotiated = session.negotiated();
        let hold_time = negotiated.map_or(0, |negotiated| negotiated.hold_time.as_secs());
        let group = neighbour.channel.as_ref().and_then(|it| self.groups.get(it.group)?.as_ref());
        let advertised = group.map_or(0, |group| group.advertised(index));
        let (messages_received, messages_sent) = session.messages();
        PeerStatus {
            name: session.config().name.clone(),
            address: session.config().address,
            asn: session.config().asn,
            dynamic: self.came_by(neighbour.dynamic.as_ref()),
            state: session.state(),
            since: session.since(),
            router_id: negotiated.map(|negotiated| negotiated.router_id),
            hold_time_secs: u16::try_from(hold_time).unwrap_or(u16::MAX),
            prefixes_received: neighbour.accepted,
            prefixes_rejected: neighbour.received - neighbour.accepted,
            routes_refused: neighbour.refused,
            refused_not_kept: neighbour.not_kept,
            malformed: neighbour.malformed,
            last_malformed: neighbour.last_malformed.clone(),
            capabilities: negotiated.map(Negotiated::words).unwrap_or_default(),
            prefixes_advertised: advertised as u64,
            messages_received,
            messages_sent,
            last_error: session.last_error().to_owned(),
            stale_until: neighbour.stale.as_ref().map(|stale| stale.until),
        }
    }
}
