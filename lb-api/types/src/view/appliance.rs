//! The appliance as a whole, and what stands in its way.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::FibUsageView;
use super::seen::{SeenMetadata, seen};
use crate::config::Hook;
use crate::resource::Condition;

seen! {
    /// The appliance as a whole (`GET /api/v1/status`). Its name is `local`, as that of its node.
    Appliance(Nothing, Status);
}

/// What is asked of the appliance as a whole: nothing that no other resource says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Nothing {}

/// What holds of the appliance as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status {
    /// `Attached`: whether the fast path is at every interface that is asked for; `NoWarnings`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
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
    /// Events of flows that are watched which were lost, since nobody read them in time or too many flows were watched.
    #[serde(default)]
    pub flow_events_lost: u64,
    /// What became of fragments to VIPs that came before the first one of their datagram.
    #[serde(default)]
    pub early_fragments: EarlyFragmentsView,
    /// What of the eBPF FIB's memory is in use.
    #[serde(default)]
    pub fib: FibUsageView,
    /// Packets per `Reason` since the maps were made, zeroes left out.
    pub reasons: Vec<ReasonView>,
    /// What somebody should look at, one sentence each; empty when all is well.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Seconds until the first of the API's certificates for TLS expires; below zero once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_expires_secs: Option<i64>,
}

/// Fragments to VIPs and from backends that came before the first one of their datagram, and were kept for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EarlyFragmentsView {
    /// They were sent on after their first one.
    pub released: u64,
    /// Their first one did not come in time: those to VIPs are gone, those from backends went on as they came.
    pub expired: u64,
    /// There was no room for them, or no way: as with `expired`.
    pub refused: u64,
    /// They came twice, or with others that they overlap.
    pub overlapping: u64,
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
