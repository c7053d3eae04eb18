//! Routes and addresses that this host is to have, beside what BGP learns.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::resource::{Condition, Metadata};

/// The metric of static routes that say none.
pub const DEFAULT_METRIC: u32 = 20;

/// A route that this host is to have in the eBPF FIB and in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StaticRoute {
    /// Its name.
    pub metadata: Metadata,
    /// What the operator asks for.
    pub spec: StaticRouteSpec,
    /// What holds now; ignored in requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<RouteStatus>,
}

/// Where packets go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StaticRouteSpec {
    /// The destination, without host bits: `192.0.2.0/24`, `::/0`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub prefix: IpNetwork,
    /// What becomes of packets; `unicast` by default.
    #[serde(default)]
    pub kind: RouteKind,
    /// Where they go, 1 to 256 of them, if the kind is `unicast`; several share the flows by their weights. Those that
    /// cannot be reached are left out for as long.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(max_items = 256))]
    pub next_hops: Vec<NextHop>,
    /// Of routes to one destination the one with the lowest metric counts, whoever's they are; 20 by default. Routes of BGP
    /// have 4271: a static route with a higher one stands behind them.
    #[serde(default = "default_metric")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub metric: u32,
}

const fn default_metric() -> u32 {
    DEFAULT_METRIC
}

/// What becomes of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum RouteKind {
    /// They go to the next hops.
    #[default]
    Unicast,
    /// They are dropped without a word.
    Blackhole,
    /// They are dropped, and the sender is told that there is no way.
    Unreachable,
    /// They are dropped, and the sender is told that it is forbidden.
    Prohibit,
}

/// A next hop: an address, an interface, or an address on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NextHop {
    /// The gateway, in a network of this host; an IPv6 one can carry IPv4, too. Without it, the destinations themselves are
    /// on the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub address: Option<IpAddr>,
    /// The interface; without it, the one whose network the gateway is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 15))]
    pub interface: Option<String>,
    /// Its share of the flows, 1 to 256; 1 by default.
    #[serde(default = "default_weight")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 256))]
    pub weight: u16,
}

const fn default_weight() -> u16 {
    1
}

/// What holds of a static route or of an address now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RouteStatus {
    /// Of a route `Reachable`, `Installed` and `Used`; of an address `Present`.
    pub conditions: Vec<Condition>,
}

/// An address that an interface of this host is to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// Its name.
    pub metadata: Metadata,
    /// What the operator asks for.
    pub spec: AddressSpec,
    /// What holds now; ignored in requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<RouteStatus>,
}

/// Which address, and whose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AddressSpec {
    /// The interface's name; where there is none of it, the address waits for it.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 15))]
    pub interface: String,
    /// The address and the length of its network: `192.0.2.1/24`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub address: IpNetwork,
}
