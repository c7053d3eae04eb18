//! The configuration as a whole: what `GET /api/v1/config` shows, `POST /api/v1/config` takes, lbd's file says beside its
//! own settings, and `lbctl export` writes.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::SeenMetadata;
use crate::bgp::Global;
use crate::config::Decision;
use crate::peer::{Group, Peer};
use crate::policy::{Policy, Set};
use crate::resource::{Condition, NamedHealthCheck, Node, Pool};
use crate::route::{Address, StaticRoute};
use crate::vip::Vip;

/// Resources of every kind; what there is none of is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Configuration {
    /// BGP.
    #[serde(skip_serializing_if = "BgpConfiguration::is_empty")]
    pub bgp: BgpConfiguration,
    /// Addresses that VIPs are given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<Pool>,
    /// Health checks that VIPs name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub health_checks: Vec<NamedHealthCheck>,
    /// This node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Node>,
    /// Addresses of this host's interfaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Address>,
    /// Routes beside those of BGP.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub static_routes: Vec<StaticRoute>,
    /// The VIPs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vips: Vec<Vip>,
}

impl Configuration {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// BGP in a whole configuration. Where any of the fields before `sets` is there, they are `bgp/global`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct BgpConfiguration {
    /// Our AS number; 64512 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// BGP identifier; by default the highest IPv4 address of this host's interfaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub router_id: Option<Ipv4Addr>,
    /// The cluster that we reflect routes for (RFC 4456).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub cluster_id: Option<Ipv4Addr>,
    /// How the best path is found, and how many carry traffic together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// Where sessions are accepted; `0.0.0.0:179` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub listen: Option<SocketAddr>,
    /// Labels of `bgp/global`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Sets that policies name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<Set>,
    /// Policies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Policy>,
    /// What neighbours have in common.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peer_groups: Vec<Group>,
    /// Neighbours.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Peer>,
}

impl BgpConfiguration {
    /// The names of the fields that are `bgp/global`'s metadata; the others are those of its spec.
    pub const TAGS: [&str; 2] = ["labels", "owner"];

    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Says what BGP has in common for all neighbours.
    pub fn set_global(&mut self, global: Global) {
        let spec = global.spec;
        (self.asn, self.router_id, self.cluster_id) = (spec.asn, spec.router_id, spec.cluster_id);
        (self.decision, self.listen) = (spec.decision, spec.listen);
        (self.labels, self.owner) = (global.metadata.labels, global.metadata.owner);
    }
}

/// The configuration that holds (`GET /api/v1/config`). Its name is `running`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunningConfig {
    /// Its name and its revision.
    pub metadata: RunningMetadata,
    /// Everything that is configured, over REST or by the file, in the form that `POST /api/v1/config` takes. What was made
    /// over REST has a `metadata.revision`, but for what stands in `bgp` itself.
    pub spec: Configuration,
    /// How it is.
    pub status: RunningStatus,
}

/// What the running configuration is known by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunningMetadata {
    /// `running`.
    pub name: String,
    /// The last revision that a change was given, 0 where none was: `If-Match` of `POST /api/v1/config` repeats it in quotes.
    pub revision: u64,
}

/// How the running configuration is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunningStatus {
    /// `Confirmed`: whether it stays, or is rolled back unless somebody confirms it; `Complete`: whether all of it that is kept
    /// is carried out.
    pub conditions: Vec<Condition>,
    /// Seconds until it is rolled back, where it waits to be confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back_in_secs: Option<u32>,
    /// What only the configuration file changes, each as `-o name` writes it: `peer/upstream`.
    pub of_file: Vec<String>,
    /// What was made over REST and is kept, but does not count, since the file has its name, or a VIP's address and port. A
    /// `POST` that says the same of it leaves it as it is, and nothing but a `DELETE` of a VIP takes it away.
    #[serde(default, skip_serializing_if = "Configuration::is_empty")]
    pub hidden: Configuration,
}

/// The daemon's version (`GET /api/v1/version`). Its name is `lbd`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Version {
    /// What it is called.
    pub metadata: SeenMetadata,
    /// Nothing: an upgrade changes it.
    pub spec: super::Nothing,
    /// What it is.
    pub status: VersionStatus,
}

/// What the daemon is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VersionStatus {
    /// `Current`: whether the program that runs is the one that is installed.
    pub conditions: Vec<Condition>,
    /// The daemon's own.
    pub version: String,
    /// That of its REST API.
    pub api: String,
}
