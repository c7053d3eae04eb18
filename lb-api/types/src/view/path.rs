//! Where packets go: interfaces and flows.

use serde::{Deserialize, Serialize};

use super::ReasonView;
use super::seen::{SeenMetadata, seen};
use crate::config::Hook;
use crate::resource::Condition;

seen! {
    /// An interface of the host (`GET /api/v1/interfaces`).
    Interface(InterfaceSpec, InterfaceStatus);
    /// A flow through a VIP (`GET /api/v1/flows`). Its name is `tcp/198.51.100.2:40000/203.0.113.7:80`.
    Flow(FlowSpec, FlowStatus);
}

/// What the file's section `dataplane` asks of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InterfaceSpec {
    /// Whether the fast path is to be attached.
    pub attach: bool,
    /// Where.
    pub hook: Hook,
}

/// What holds of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InterfaceStatus {
    /// `Up` and `Attached`.
    pub conditions: Vec<Condition>,
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
    /// What became of the packets that came in through it since it was attached, by reason; none where it is not, or where
    /// 63 others are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<ReasonView>,
}

/// What a flow is known by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FlowSpec {
    /// `tcp`, `udp`, `sctp` or `icmp`.
    pub protocol: String,
    /// Client's address and port, or the identifier of its echoes: `198.51.100.2:40000`.
    pub client: String,
    /// VIP and port.
    pub vip: String,
}

/// What holds of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FlowStatus {
    /// `HasVip`: whether a VIP has its address and port still.
    pub conditions: Vec<Condition>,
    /// Backend and port.
    pub backend: String,
    /// The VIP resource's name, if it still exists.
    pub service: Option<String>,
    /// How far its life is: `half-open`, `established` or `closing`.
    pub state: String,
    /// Seconds since the last packet of either direction.
    pub idle_secs: u64,
}
