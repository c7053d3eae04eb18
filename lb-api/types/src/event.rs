//! What happens, as `GET /api/v1/events` tells it.

use serde::{Deserialize, Serialize};

use crate::resource::Condition;
use crate::view::SeenMetadata;

/// Something that happened; written as an [`EventDocument`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "EventDocument", into = "EventDocument")]
pub struct Event {
    /// Its place.
    pub id: String,
    /// When it was noticed (RFC 3339).
    pub time: String,
    /// What happened.
    pub kind: EventKind,
    /// The VIP, backend, neighbour, interface or resource that it is about; empty where it is about the whole.
    pub name: String,
    /// It in words.
    pub message: String,
    /// Conditions of it that are other than before, of [`EventKind::ConditionChanged`].
    pub conditions: Vec<Condition>,
    /// The flow, of events of flows.
    pub flow: Option<FlowEventView>,
}

/// Something that happened, in the shape that every resource has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = Event))]
pub struct EventDocument {
    /// Its name is its place, for `Last-Event-ID`; only the daemon reads it.
    pub metadata: SeenMetadata,
    /// What happened to whom.
    pub spec: EventSpec,
    /// When and how.
    pub status: EventStatus,
}

/// What happened to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventSpec {
    /// What happened.
    pub kind: EventKind,
    /// The VIP, backend, neighbour, interface or resource that it is about; left out where it is about the whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
}

/// When it happened and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventStatus {
    /// Conditions that are other than before, of `condition-changed`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// When it was noticed: `2026-01-31T12:00:00.000Z` (RFC 3339).
    pub time: String,
    /// It in words.
    pub message: String,
    /// The flow, of events of flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<FlowEventView>,
}

impl From<EventDocument> for Event {
    fn from(document: EventDocument) -> Self {
        let EventDocument { metadata, spec, status } = document;
        let EventStatus { conditions, time, message, flow } = status;
        let EventSpec { kind, about } = spec;
        Self { id: metadata.name, time, kind, name: about, message, conditions, flow }
    }
}

impl From<Event> for EventDocument {
    fn from(event: Event) -> Self {
        let Event { id, time, kind, name, message, conditions, flow } = event;
        Self {
            metadata: SeenMetadata::of(id),
            spec: EventSpec { kind, about: name },
            status: EventStatus { conditions, time, message, flow },
        }
    }
}

/// A flow that is watched, as `GET /api/v1/flows/events` tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FlowEventView {
    /// `tcp`, `udp`, `sctp` or `icmp`.
    pub protocol: String,
    /// Client's address and port, or the identifier of its echoes: `198.51.100.2:40000`.
    pub client: String,
    /// VIP and port.
    pub vip: String,
    /// Whom the backend takes for its client.
    pub source: String,
    /// Backend and port.
    pub backend: String,
    /// At its end, how it ended and what there was of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<FlowEndView>,
}

/// How a flow ended, and what there was of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FlowEndView {
    /// `closed`, `reset`, `expired`, `half-open` or `evicted`.
    pub how: String,
    /// Milliseconds from its first packet to the one that closed it, or to its removal, which comes some time after its last packet.
    pub duration_ms: u64,
    /// Packets to the backend.
    pub packets_to_backend: u64,
    /// Bytes of their frames.
    pub bytes_to_backend: u64,
    /// Packets to the client; none with direct server return.
    pub packets_to_client: u64,
    /// Bytes of their frames.
    pub bytes_to_client: u64,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// Events between the one that the client saw last and the next are no longer kept: read the state anew.
    Missed,
    /// A VIP is new.
    VipCreated,
    /// A VIP is another one than before.
    VipUpdated,
    /// A VIP is gone.
    VipDeleted,
    /// A resource beside VIPs is new; the name is its path below `/api/v1/`.
    ResourceCreated,
    /// A resource beside VIPs is another one than before.
    ResourceUpdated,
    /// A resource beside VIPs is gone.
    ResourceDeleted,
    /// A whole configuration is applied.
    ConfigApplied,
    /// A configuration that waited for it is confirmed.
    ConfigConfirmed,
    /// A configuration was rolled back.
    ConfigRolledBack,
    /// BGP advertises a VIP's address.
    VipAdvertised,
    /// BGP no longer advertises a VIP's address.
    VipWithdrawn,
    /// What checks find of a backend has changed.
    BackendHealth,
    /// A BGP session has entered another state.
    PeerState,
    /// Neighbours that nobody named are refused: there are enough, or their AS number is none of the group's. Told once a minute
    /// at most; the name is the group's.
    PeerRefused,
    /// A neighbour has told or heard another number of prefixes. Told at most every ten seconds, like the two that follow.
    PathsChanged,
    /// The eBPF FIB was changed.
    FibChanged,
    /// Flows began or ended, as a scan of the flow table sees it.
    FlowsChanged,
    /// An interface of the host came, went, or is up or down now.
    InterfaceState,
    /// The fast path is attached to every interface that it is to be on and that is up, and was not before.
    DataplaneAttached,
    /// It is attached to none any more, or one has refused for 15 seconds: no VIP is advertised.
    DataplaneDetached,
    /// The dataplane refuses what it is to serve.
    DataplaneRefuses,
    /// Conditions of a resource hold that did not, or hold no longer; the name is its path below `/api/v1/`.
    ConditionChanged,
    /// Something is to be looked at; it is among the warnings of `status` as long as that is so.
    AlarmRaised,
    /// It is well again.
    AlarmCleared,
    /// A flow that is watched began.
    FlowNew,
    /// A flow that is watched ended.
    FlowEnd,
}

impl EventKind {
    /// Every kind.
    pub const ALL: &[Self] = &[
        Self::Missed,
        Self::VipCreated,
        Self::VipUpdated,
        Self::VipDeleted,
        Self::ResourceCreated,
        Self::ResourceUpdated,
        Self::ResourceDeleted,
        Self::ConfigApplied,
        Self::ConfigConfirmed,
        Self::ConfigRolledBack,
        Self::VipAdvertised,
        Self::VipWithdrawn,
        Self::BackendHealth,
        Self::PeerState,
        Self::PeerRefused,
        Self::PathsChanged,
        Self::FibChanged,
        Self::FlowsChanged,
        Self::InterfaceState,
        Self::DataplaneAttached,
        Self::DataplaneDetached,
        Self::DataplaneRefuses,
        Self::ConditionChanged,
        Self::AlarmRaised,
        Self::AlarmCleared,
        Self::FlowNew,
        Self::FlowEnd,
    ];

    /// Its name, as JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missed => "missed",
            Self::VipCreated => "vip-created",
            Self::VipUpdated => "vip-updated",
            Self::VipDeleted => "vip-deleted",
            Self::ResourceCreated => "resource-created",
            Self::ResourceUpdated => "resource-updated",
            Self::ResourceDeleted => "resource-deleted",
            Self::ConfigApplied => "config-applied",
            Self::ConfigConfirmed => "config-confirmed",
            Self::ConfigRolledBack => "config-rolled-back",
            Self::VipAdvertised => "vip-advertised",
            Self::VipWithdrawn => "vip-withdrawn",
            Self::BackendHealth => "backend-health",
            Self::PeerState => "peer-state",
            Self::PeerRefused => "peer-refused",
            Self::PathsChanged => "paths-changed",
            Self::FibChanged => "fib-changed",
            Self::FlowsChanged => "flows-changed",
            Self::InterfaceState => "interface-state",
            Self::DataplaneAttached => "dataplane-attached",
            Self::DataplaneDetached => "dataplane-detached",
            Self::DataplaneRefuses => "dataplane-refuses",
            Self::ConditionChanged => "condition-changed",
            Self::AlarmRaised => "alarm-raised",
            Self::AlarmCleared => "alarm-cleared",
            Self::FlowNew => "flow-new",
            Self::FlowEnd => "flow-end",
        }
    }
}
