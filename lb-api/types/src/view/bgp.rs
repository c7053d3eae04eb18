//! BGP as it is: sessions, paths, and why they are where they are.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::seen::{SeenMetadata, seen};
use crate::peer::AsRange;
use crate::resource::Condition;

/// A BGP neighbour (`GET /api/v1/bgp/peers`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PeerView {
    /// `Established`: whether there is a session.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// Its name.
    pub name: String,
    /// Its address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub address: IpAddr,
    /// Its AS number.
    pub asn: u32,
    /// The peer group by whose `listen_ranges` it came, if nobody named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dynamic: Option<String>,
    /// FSM state of RFC 4271 §8.2.2 in RFC words: `Idle`, `Connect`, `Active`, `OpenSent`, `OpenConfirm`, `Established`.
    pub state: String,
    /// Seconds since the state was entered.
    pub since_secs: u64,
    /// Its BGP identifier, once known.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub router_id: Option<Ipv4Addr>,
    /// Negotiated hold time.
    pub hold_time_secs: u16,
    /// Prefixes accepted from it.
    pub prefixes_received: u64,
    /// Paths from it that are kept to be shown, though import does not accept them (`keep_rejected`).
    #[serde(default)]
    pub prefixes_rejected: u64,
    /// Routes from it that import did not accept since the start, kept or not.
    #[serde(default)]
    pub routes_refused: u64,
    /// Those of them that were to be kept, for which there was no room.
    #[serde(default)]
    pub refused_not_kept: u64,
    /// Prefixes advertised to it.
    pub prefixes_advertised: u64,
    /// UPDATEs from it that were malformed or of no use since the start; the log says of each what was wrong.
    #[serde(default)]
    pub malformed: u64,
    /// What was wrong with the last of them that was said, with its octets; empty if none was.
    #[serde(default)]
    pub last_malformed: String,
    /// What both sides agreed on, in words; empty without a session.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Messages received.
    pub messages_received: u64,
    /// Messages sent.
    pub messages_sent: u64,
    /// Those received by type.
    #[serde(default)]
    pub received: MessageCounts,
    /// Those sent by type.
    #[serde(default)]
    pub sent: MessageCounts,
    /// The last error in words, empty if none: `received NOTIFICATION Cease / Administrative Shutdown`.
    pub last_error: String,
    /// It restarts: its routes stay for so many seconds more at most (RFC 4724).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_secs: Option<u64>,
    /// What the configuration says of its connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<PeerSettings>,
}

/// Messages since the start, by type (RFC 4271 §4.1, RFC 2918).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MessageCounts {
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

impl MessageCounts {
    /// Each with the name of its type.
    #[must_use]
    pub const fn by_type(&self) -> [(&'static str, u64); 5] {
        let Self { open, update, notification, keepalive, route_refresh } = *self;
        [
            ("open", open),
            ("update", update),
            ("notification", notification),
            ("keepalive", keepalive),
            ("route-refresh", route_refresh),
        ]
    }
}

/// Neighbours that come by themselves, from the `listen_ranges` of a peer group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ListenView {
    /// The group.
    pub group: String,
    /// From where they may come.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub ranges: Vec<IpNetwork>,
    /// How many there may be.
    pub limit: u16,
    /// How many there are.
    pub neighbors: u16,
    /// Connections that were refused since the start, as there were enough.
    pub refused: u64,
    /// AS numbers that they may have.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub asns: Vec<AsRange>,
    /// OPENs that were refused since the start for another AS number.
    #[serde(default)]
    pub wrong_as: u64,
}

/// What the configuration says of a neighbour's connections and timers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PeerSettings {
    /// Its port.
    pub port: u16,
    /// The address that we connect from; the kernel's choice if unset.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub source: Option<IpAddr>,
    /// Whether we wait for it to connect.
    pub passive: bool,
    /// How many hops away it is, if that is said.
    pub multihop: Option<u8>,
    /// GTSM (RFC 5082): from how many hops away its packets may come.
    pub gtsm_hops: Option<u8>,
    /// Whether segments are signed (TCP MD5, RFC 2385). The key is never shown.
    pub md5: bool,
    /// How long sent data may stay unacknowledged; the kernel's choice if unset.
    pub tcp_user_timeout_secs: Option<u16>,
    /// How long it may take nothing of what we send (RFC 9687).
    pub send_hold_time_secs: u16,
    /// Hold time that we propose.
    pub hold_time_secs: u16,
    /// Delay before another connect.
    pub connect_retry_secs: u16,
    /// How long we may take to come back while it keeps our routes (RFC 4724); unset: there is no graceful restart.
    pub restart_time_secs: Option<u16>,
    /// Time between two KEEPALIVEs; unset: a third of the hold time.
    pub keepalive_secs: Option<u16>,
    /// How long its OPEN is waited for before ours is sent.
    pub delay_open_secs: u16,
    /// How long the session rests after a first failure.
    pub idle_hold_secs: u16,
    /// Changes of routes are told no more often.
    pub advertisement_interval_secs: u16,
    /// Whether there is to be no session.
    #[serde(default)]
    pub shutdown: bool,
    /// Whether it is told that our routes will go soon (RFC 8326), also where that is so of the whole node.
    #[serde(default)]
    pub graceful_shutdown: bool,
}

/// Stands for a neighbour where a route is our own.
const OURSELVES: &str = "local";

seen! {
    /// A path to a prefix (`GET /api/v1/bgp/routes`). Its name is `10.0.0.0/8@192.0.2.1`: the prefix and the neighbour, or
    /// `local`.
    BgpRoute(BgpRouteSpec, BgpRouteStatus);
}

/// What a path is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BgpRouteSpec {
    /// The destination.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub prefix: IpNetwork,
    /// The neighbour that told us; unset for our own routes.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub peer: Option<IpAddr>,
    /// What tells it apart from the neighbour's other paths of the prefix (RFC 7911); unset where it has one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_id: Option<u32>,
}

impl fmt::Display for BgpRouteSpec {
    /// As its name is written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => write!(f, "{}@{peer}", self.prefix)?,
            None => write!(f, "{}@{OURSELVES}", self.prefix)?,
        }
        self.path_id.map_or(Ok(()), |id| write!(f, "@{id}"))
    }
}

impl FromStr for BgpRouteSpec {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "it is no path's name, such as 10.0.0.0/8@192.0.2.1";
        let (prefix, peer) = name.split_once('@').ok_or(WRONG)?;
        let (peer, path_id) = match peer.split_once('@') {
            Some((peer, id)) => (peer, Some(id.parse().map_err(|_| WRONG)?)),
            None => (peer, None),
        };
        let peer = match peer {
            OURSELVES => None,
            peer => Some(peer.parse().map_err(|_| WRONG)?),
        };
        Ok(Self { prefix: prefix.parse().map_err(|_| WRONG)?, peer, path_id })
    }
}

/// What holds of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BgpRouteStatus {
    /// `Best`, and `CarriesTraffic`.
    pub conditions: Vec<Condition>,
    /// The next hop; unset for our own routes.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub next_hop: Option<IpAddr>,
    /// The AS path as people write it: `64512 {64513}`.
    pub as_path: String,
    /// `igp`, `egp` or `incomplete`.
    pub origin: String,
    /// LOCAL_PREF, if any.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC, if any.
    pub med: Option<u32>,
    /// Communities of all kinds, as people write them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<String>,
    /// Who brought it into our AS, of a reflected one (RFC 4456).
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub originator_id: Option<Ipv4Addr>,
    /// The clusters that have reflected it, the last one first.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cluster_list: Vec<Ipv4Addr>,
    /// Why it is not used, of one that a neighbour told; unset: it can be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<String>,
    /// By which step of the decision process it won or lost, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Whether this is the best path.
    pub best: bool,
    /// Whether it carries traffic: the best path or its equal (ECMP).
    pub multipath: bool,
    /// Whether its neighbour restarts and has not told it again (RFC 4724).
    #[serde(default)]
    pub stale: bool,
}

/// What is done to a session (`POST /api/v1/bgp/peers/NAME/clear`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ClearWhat {
    /// It ends, and comes back by itself.
    Session,
    /// The neighbour is asked for its routes again (RFC 2918).
    In,
    /// The neighbour is told all of our routes again.
    Out,
}

/// Why a route is where it is (`GET /api/v1/bgp/explain`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explanation {
    /// The destination.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub prefix: IpNetwork,
    /// Its paths, the best one first.
    pub paths: Vec<BgpRoute>,
    /// Each neighbour with a session.
    pub neighbors: Vec<HearerView>,
}

/// Whether a neighbour hears of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HearerView {
    /// Its address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub address: IpAddr,
    /// What keeps the best path from it, in words; unset: it hears of it.
    pub withheld: Option<String>,
    /// How many other paths of the prefix it hears of (RFC 7911).
    #[serde(default)]
    pub others: usize,
}
