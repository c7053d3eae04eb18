//! BGP policy as file, REST and command line see it: sets, policies, and which of them a neighbour has.

use serde::{Deserialize, Serialize};

use crate::resource::{Metadata, NamedStatus, Tags};

/// Names of policies in order: those of the configuration, or the ready-made `none`, `all` and (on export) `vips`.
/// Written as a text where it is one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = OneOrMany))]
#[serde(from = "OneOrMany", into = "OneOrMany")]
pub struct Policies(pub Vec<String>);

/// A name, or several.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl From<OneOrMany> for Policies {
    fn from(names: OneOrMany) -> Self {
        match names {
            OneOrMany::One(name) => Self(vec![name]),
            OneOrMany::Many(names) => Self(names),
        }
    }
}

impl From<Policies> for OneOrMany {
    fn from(Policies(mut names): Policies) -> Self {
        match (names.len(), names.pop()) {
            (1, Some(name)) => Self::One(name),
            (_, last) => Self::Many(names.into_iter().chain(last).collect()),
        }
    }
}

impl From<&str> for Policies {
    fn from(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }
}

impl Policies {
    /// Whether it lists nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A set of prefixes, AS paths, communities or neighbours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BgpSet {
    /// Its name.
    pub name: String,
    /// Its labels and its owner.
    #[serde(flatten)]
    pub tags: Tags,
    /// What is in it, under the name of its kind.
    #[serde(flatten)]
    pub members: Members,
}

/// A set of prefixes, AS paths, communities or neighbours (`/api/v1/bgp/sets`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Set {
    /// Its name.
    pub metadata: Metadata,
    /// What is in it.
    pub spec: Members,
    /// Who names it; ignored in requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<NamedStatus>,
}

/// A policy (`/api/v1/bgp/policies`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Policy {
    /// Its name.
    pub metadata: Metadata,
    /// What it says.
    pub spec: PolicySpec,
    /// Who names it; ignored in requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<NamedStatus>,
}

/// What is in a set: exactly one kind of members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Members {
    /// Prefixes, with lengths: `10.0.0.0/8`, `10.0.0.0/8 ge 24 le 28`.
    Prefixes(Vec<String>),
    /// Regular expressions over AS paths, nearest number first; `_` ends a number: `_65001_`, `^65001_`.
    AsPaths(Vec<String>),
    /// Communities of any kind; `*` is any number: `65001:100`, `65001:*`, `65001:1:2`, `rt:65001:100`, `blackhole`.
    Communities(Vec<String>),
    /// Addresses of neighbours, or prefixes that hold them.
    Neighbors(Vec<String>),
}

/// A policy of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BgpPolicy {
    /// Its name.
    pub name: String,
    /// Its labels and its owner.
    #[serde(flatten)]
    pub tags: Tags,
    /// What it says.
    #[serde(flatten)]
    pub spec: PolicySpec,
}

/// Statements, of which the first that accepts or rejects a route decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicySpec {
    /// Its statements, in order.
    #[serde(default)]
    pub statements: Vec<BgpStatement>,
    /// What becomes of a route that no statement decides on; `next` by default: the neighbour's next policy, or, after the
    /// last one, reject.
    #[serde(default = "next")]
    pub otherwise: Action,
}

/// A statement of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BgpStatement {
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What a route has to be for the statement to mean it; every route by default.
    #[serde(default, rename = "match", skip_serializing_if = "Conditions::is_default")]
    pub conditions: Conditions,
    /// What is changed in such a route.
    #[serde(default, skip_serializing_if = "RouteChanges::is_default")]
    pub set: RouteChanges,
    /// What becomes of it.
    pub action: Action,
}

/// What becomes of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It crosses.
    Accept,
    /// It does not.
    Reject,
    /// What follows says.
    Next,
}

/// What a route has to be: all of what is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Conditions {
    /// A set that its prefix is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_set: Option<String>,
    /// A set that its AS path is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_path_set: Option<String>,
    /// How long its AS path is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_path_length: Option<Range>,
    /// A set that it has communities of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub community_set: Option<String>,
    /// How many of that set's communities it has to have: `any` of them by default, or `all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub community_match: Option<CommunityMatch>,
    /// A set that the neighbour is in that told us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neighbor_set: Option<String>,
    /// A set of prefixes, one of which holds its next hop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_hop_set: Option<String>,
    /// Its family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// Its ORIGIN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Its MED; a missing one is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub med: Option<Range>,
    /// Its local preference; a missing one is 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_pref: Option<Range>,
    /// Where it comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

/// A number, or numbers from and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum Range {
    /// This one.
    Exactly(u32),
    /// From `min` (0 by default) to `max` (no bound by default).
    Between {
        /// The least.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min: Option<u32>,
        /// The most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<u32>,
    },
}

/// How many communities of a set a route has to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum CommunityMatch {
    /// One.
    Any,
    /// All.
    All,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4 unicast.
    Ipv4,
    /// IPv6 unicast.
    Ipv6,
}

/// ORIGIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// From an interior protocol.
    Igp,
    /// From EGP.
    Egp,
    /// Otherwise.
    Incomplete,
}

/// Where a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// It is a VIP of ours.
    Vips,
    /// A neighbour in our AS told us.
    Internal,
    /// A neighbour in another AS told us.
    External,
}

/// What is changed in a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RouteChanges {
    /// Local preference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_pref: Option<u32>,
    /// MED.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub med: Option<u32>,
    /// ORIGIN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// An address; on export `self` or `unchanged`, on import `peer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<String>,
    /// On import, which tables have it if it is the best path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub install: Option<Install>,
    /// Puts an AS number in front of the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prepend: Option<Prepend>,
    /// Replaces all communities by these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub communities: Option<Vec<String>>,
    /// Removes these; `*` is any number.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove_communities: Vec<String>,
    /// Adds these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add_communities: Vec<String>,
}

/// Which tables have a route of BGP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Install {
    /// The eBPF FIB and the kernel.
    #[default]
    Both,
    /// The eBPF FIB: for a full table. What the fast path hands over, and what this host itself sends, takes the kernel's
    /// other routes.
    Dataplane,
    /// The kernel, to which the fast path hands its packets over.
    Kernel,
}

/// An AS number in front of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Prepend {
    /// The number; ours by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// How often, 1 to 32.
    pub times: u8,
}

impl Conditions {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl RouteChanges {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn next() -> Action {
    Action::Next
}
