//! What the daemon shows of itself. What there are many of has the shape of every resource; answers to one question are
//! documents of their own.

mod appliance;
mod bgp;
mod configuration;
mod fib;
mod path;
mod seen;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::appliance::{
    Appliance, Check, CheckState, Doctor, EarlyFragmentsView, InterfaceView, Nothing, ReasonView,
    Status,
};
pub use self::bgp::{
    BgpRoute, BgpRouteSpec, BgpRouteStatus, ClearWhat, Explanation, HearerView, ListenView,
    MessageCounts, PeerSettings, PeerView,
};
pub use self::configuration::{
    BgpConfiguration, Configuration, RunningConfig, RunningMetadata, RunningStatus, Version,
    VersionStatus,
};
pub use self::fib::{
    FibAuditView, FibEntry, FibLookupView, FibMemberView, FibSpec, FibStatus, FibToldView,
    FibUsageView, KernelRouteView, ServiceAuditView,
};
pub use self::path::{Flow, FlowSpec, FlowStatus, Interface, InterfaceSpec, InterfaceStatus};
pub use self::seen::SeenMetadata;

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
