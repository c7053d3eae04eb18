//! What every kind of resource has in common, and the kinds that VIPs name: pools and health checks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::vip::{Backend, BackendStatus, HealthCheckKind};

/// What every resource carries: its name within its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// 1 to 63 lower-case letters, digits and hyphens, a letter or digit at both ends (RFC 1123 label).
    #[cfg_attr(feature = "openapi", schema(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
    pub name: String,
    /// Words of the operator's own, to select resources by: at most 64, names and values of at most 63 letters, digits
    /// and `-_./`; a value may be empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The set of files that it was applied with, so that `prune` removes what has left these files and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
    pub owner: Option<String>,
    /// Grows with every change made over REST; resources of the file have none. In a request, the revision that is to be
    /// replaced: another one is refused (412).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub revision: Option<u64>,
}

/// What the file says of something that it names, beside the name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Tags {
    /// Its labels, which selectors ask for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

impl Tags {
    /// Those of a resource.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        Self { labels: metadata.labels.clone(), owner: metadata.owner.clone() }
    }

    /// What a resource with them is called.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Metadata {
        let Self { labels, owner } = self;
        Metadata { name: name.into(), labels, owner, revision: None }
    }
}

/// Something that holds of a resource or does not, for programs and in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Condition {
    /// What it is about: `Serving`, `Advertised`, `BackendsHealthy`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, in one word for programs: `NoHealthyBackend`.
    pub reason: String,
    /// Why, in words.
    pub message: String,
}

impl Condition {
    /// One that holds or does not, why in one word, and why in words.
    pub fn new(
        kind: &str,
        status: impl Into<ConditionStatus>,
        reason: &str,
        message: impl Into<String>,
    ) -> Self {
        let (kind, reason) = (kind.to_owned(), reason.to_owned());
        Self { kind, status: status.into(), reason, message: message.into() }
    }
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It cannot be said yet.
    Unknown,
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// Who names a resource that others name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NamedStatus {
    /// `Used`: whether anybody names it.
    pub conditions: Vec<Condition>,
    /// Who does: `policy from-upstream`, `peer node1`.
    pub by: Vec<String>,
}

/// Addresses that VIPs are given where they name the pool instead of an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Its name.
    pub metadata: Metadata,
    /// What the operator asks for.
    pub spec: PoolSpec,
    /// What holds now; ignored in requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<PoolStatus>,
}

/// The addresses of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PoolSpec {
    /// Prefixes (`203.0.113.0/28`) and ranges (`203.0.113.16-203.0.113.31`) of IPv4 and IPv6, in the order in which they are
    /// used; 1 to 64, none of which overlap. Every address of them is given to a VIP, the first and the last too.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 64))]
    pub addresses: Vec<String>,
}

/// What holds of a pool now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolStatus {
    /// `Available`: whether it has an address to give.
    pub conditions: Vec<Condition>,
    /// How many addresses it has; at most 2^64 - 1 are counted.
    pub size: u64,
    /// How many of them no VIP has.
    pub free: u64,
    /// Those that VIPs have, and which VIPs.
    pub allocated: Vec<Allocation>,
}

/// An address of a pool that VIPs have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Allocation {
    /// The address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub address: IpAddr,
    /// The VIPs' names.
    pub vips: Vec<String>,
}

/// A health check with a name, for VIPs that say `health_check: { from: NAME }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NamedHealthCheck {
    /// Its name.
    pub metadata: Metadata,
    /// What the operator asks for.
    pub spec: HealthCheckSpec,
    /// What holds now; ignored in requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<HealthCheckStatus>,
}

/// How backends are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct HealthCheckSpec {
    /// `tcp` connects to the backend; `none` takes every backend for healthy.
    pub kind: HealthCheckKind,
    /// The port that is connected to, 1 to 65535; the backend's own by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 65535))]
    pub port: Option<u16>,
    /// Between the starts of two checks, 100 to 3,600,000 ms.
    #[cfg_attr(feature = "openapi", schema(minimum = 100, maximum = 3_600_000))]
    pub interval_ms: u32,
    /// How long a connect may take, 10 ms to the interval.
    #[cfg_attr(feature = "openapi", schema(minimum = 10, maximum = 3_600_000))]
    pub timeout_ms: u32,
    /// Successes in a row that make an unhealthy backend healthy, 1 to 100.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
    pub rise: u8,
    /// Failures in a row that make a healthy backend unhealthy, 1 to 100.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
    pub fall: u8,
}

impl Default for HealthCheckSpec {
    fn default() -> Self {
        Self {
            kind: HealthCheckKind::Tcp,
            port: None,
            interval_ms: 2000,
            timeout_ms: 1000,
            rise: 2,
            fall: 3,
        }
    }
}

/// What holds of a named health check now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthCheckStatus {
    /// `Used`: whether a VIP names it.
    pub conditions: Vec<Condition>,
    /// VIPs that name it.
    pub vips: Vec<String>,
}

/// This node. There is one, with the name `local`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name: `local`.
    pub metadata: Metadata,
    /// What the operator asks for.
    pub spec: NodeSpec,
    /// What holds now; ignored in requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<NodeStatus>,
}

/// What is asked of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct NodeSpec {
    /// Whether everything that BGP advertises says that this node is about to go (GRACEFUL_SHUTDOWN, RFC 8326), also after a
    /// restart: neighbours that honour it send traffic to other nodes where there are any. What comes all the same is served
    /// as before.
    pub drain: bool,
    /// Whether BGP also advertises no VIP; only with `drain`.
    pub withdraw: bool,
}

/// What holds of a node now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeStatus {
    /// `Drained`: whether neighbours are told that it is about to go; `Withdrawn`: whether no VIP is advertised because of
    /// that.
    pub conditions: Vec<Condition>,
}

/// A backend of a VIP, by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BackendResource {
    /// Its name and its VIP's revision. A request may leave it out: the path says the name.
    #[serde(default)]
    pub metadata: BackendMetadata,
    /// What the operator asks for.
    pub spec: Backend,
    /// What holds now; ignored in requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<BackendResourceStatus>,
}

/// What holds of a backend now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackendResourceStatus {
    /// `Healthy`: whether its checks succeed; `TakesFlows`: whether it is given new flows.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// What its VIP's status says of it.
    #[serde(flatten)]
    pub found: BackendStatus,
}

/// What a backend is known by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BackendMetadata {
    /// Its address and port: `10.0.0.1:8080`, `[2001:db8::1]:8080`.
    pub name: String,
    /// Its VIP's revision. In a request, the one that is to be replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub revision: Option<u64>,
}
