//! What the daemon shows of itself: read-only documents.

mod fib;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::fib::{
    FibAuditView, FibLookupView, FibMemberView, FibToldView, FibUsageView, FibView, KernelRouteView,
};
use crate::config::Hook;
use crate::resource::Condition;

/// A list answer: `{"items": [...]}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct List<T> {
    /// The items, in a stable order.
    pub items: Vec<T>,
    /// Whether there are more than the request's `limit`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// What `cursor` says in a request for the next page; unset on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A BGP neighbour (`GET /api/v1/bgp/peers`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PeerView {
    /// Its name.
    pub name: String,
    /// Its address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub address: IpAddr,
    /// Its AS number.
    pub asn: u32,
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
    /// Prefixes advertised to it.
    pub prefixes_advertised: u64,
    /// Messages received.
    pub messages_received: u64,
    /// Messages sent.
    pub messages_sent: u64,
    /// The last error in words, empty if none: `received NOTIFICATION Cease / Administrative Shutdown`.
    pub last_error: String,
    /// What the configuration says of its connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<PeerSettings>,
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
}

/// A path to a prefix (`GET /api/v1/bgp/routes`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BgpRouteView {
    /// The destination.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub prefix: IpNetwork,
    /// The next hop; unset for our own routes.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub next_hop: Option<IpAddr>,
    /// The neighbour that told us; unset for our own routes.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub peer: Option<IpAddr>,
    /// The AS path as people write it: `64512 {64513}`.
    pub as_path: String,
    /// `igp`, `egp` or `incomplete`.
    pub origin: String,
    /// LOCAL_PREF, if any.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC, if any.
    pub med: Option<u32>,
    /// Whether this is the best path.
    pub best: bool,
    /// Whether it carries traffic: the best path or its equal (ECMP).
    pub multipath: bool,
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
    pub paths: Vec<BgpRouteView>,
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
}

/// One direction of a flow (`GET /api/v1/flows`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FlowView {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Client's address and port: `198.51.100.2:40000`.
    pub client: String,
    /// VIP and port.
    pub vip: String,
    /// Backend and port.
    pub backend: String,
    /// The VIP resource's name, if it still exists.
    pub service: Option<String>,
    /// Seconds since the last packet of either direction.
    pub idle_secs: u64,
}

/// The appliance as a whole (`GET /api/v1/status`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Seconds since the daemon started.
    pub uptime_secs: u64,
    /// BGP identifier in use.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub router_id: Ipv4Addr,
    /// Our AS number.
    pub asn: u32,
    /// Interfaces that the fast path is attached to.
    pub interfaces: Vec<InterfaceView>,
    /// What of the eBPF FIB's memory is in use.
    #[serde(default)]
    pub fib: FibUsageView,
    /// Packets per `Reason` since the maps were made, zeroes left out.
    pub reasons: Vec<ReasonView>,
    /// What somebody should look at, one sentence each; empty when all is well.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// The daemon's version (`GET /api/v1/version`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Version {
    /// The daemon's own.
    pub version: String,
    /// That of its REST API.
    pub api: String,
}

/// An interface of the host (`GET /api/v1/interfaces`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its MAC; unset where it has none.
    pub mac: Option<String>,
    /// Its MTU.
    pub mtu: u32,
    /// Up, with carrier.
    pub up: bool,
    /// Where the fast path is attached; unset where it is not.
    pub hook: Option<Hook>,
    /// `Up` and `Attached`.
    pub conditions: Vec<Condition>,
}

/// What BGP has in common for all neighbours (`GET /api/v1/bgp/global`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BgpGlobal {
    /// Our AS number.
    pub asn: u32,
    /// BGP identifier in use.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub router_id: Ipv4Addr,
    /// Where sessions are accepted.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub listen: SocketAddr,
    /// How many neighbours there are.
    pub peers: usize,
    /// How many of the sessions are Established.
    pub established: usize,
}

/// What would become of a configuration (`POST /api/v1/config/diff`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Differences {
    /// What would be another one than it is, in the order of [`Changes`].
    pub differences: Vec<Difference>,
}

/// A resource that would be another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Difference {
    /// Its kind: `vip`, `pool`, `health-check`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What would become of it.
    pub change: ChangeKind,
    /// As it is, without revision and status; null where it is not there.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub before: Option<Value>,
    /// As it would be; null where it would go.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub after: Option<Value>,
}

/// What became of a configuration (`POST /api/v1/config`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Changes {
    /// In the request's order, what VIPs name before the VIPs, and then what was removed.
    pub changes: Vec<Change>,
    /// Seconds within which it has to be confirmed (`POST /api/v1/config/confirm`), or else it is rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_within_secs: Option<u32>,
}

/// What is and was kept (`GET /api/v1/config/history`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct History {
    /// Seconds until the configuration that holds now is rolled back, where it waits to be confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back_in_secs: Option<u32>,
    /// Whole configurations, the newest first: the first is what a restart finds.
    pub generations: Vec<GenerationView>,
}

/// A whole configuration that is or was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GenerationView {
    /// The last revision that was given to a VIP then; names it in `POST /api/v1/config/rollback?to=`.
    pub revision: u64,
    /// When it was written: `2026-01-31T12:00:00.000Z` (RFC 3339).
    pub written: String,
    /// How many VIPs it has.
    pub vips: usize,
}

/// What became of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Change {
    /// Its kind: `vip`, `pool`, `health-check`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What became of it.
    pub change: ChangeKind,
}

/// What became of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It is new.
    Created,
    /// It is another one than before.
    Updated,
    /// It is as it was.
    Unchanged,
    /// It is gone.
    Deleted,
}

/// What stands in the way (`GET /api/v1/doctor`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Doctor {
    /// Whether every check is `ok`.
    pub healthy: bool,
    /// Everything that was looked at.
    pub checks: Vec<Check>,
}

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Check {
    /// What was looked at: `rp-filter`.
    pub name: String,
    /// The interface, neighbour or VIP, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What was found.
    pub state: CheckState,
    /// It in words.
    pub message: String,
    /// What to do; empty where nothing is to be done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    /// All is well.
    Ok,
    /// The host does not say.
    Unknown,
    /// Some packets are lost or slow.
    Warning,
    /// It does not work.
    Error,
}

/// An attached interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InterfaceView {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// The hook in use: `tc` or `xdp`.
    pub hook: Hook,
}

/// A counter by `Reason`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReasonView {
    /// The reason's name: `forwarded-to-backend`.
    pub reason: String,
    /// `forward`, `pass` (to the kernel), `reply` or `drop`.
    pub verdict: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}
