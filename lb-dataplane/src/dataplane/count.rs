//! What is counted.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lb_dataplane_common::reason::{Kind, Reason};
pub use lb_dataplane_common::tables::Passed;

use crate::table::ServiceKey;

/// Packets and bytes that met one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReasonCount {
    /// The end; [`Reason::name`] is its name.
    pub reason: Reason,
    /// What happened to the packets: [`Kind::name`] is its name.
    pub kind: Kind,
    /// Packets.
    pub packets: u64,
    /// Bytes of the frames.
    pub bytes: u64,
}

/// What went through a service since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceCount {
    /// From clients.
    pub to_backend: Passed,
    /// From backends; nothing where they answer clients themselves.
    pub to_client: Passed,
    /// Flows begun.
    pub flows: u64,
    /// Half-open flows that had to make room for others.
    pub evicted: u64,
    /// New flows for which no source port was free.
    pub exhausted: u64,
    /// Its backends.
    pub backends: Vec<BackendCount>,
}

/// What went to a backend, and came from it, since it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendCount {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// From clients.
    pub to_backend: Passed,
    /// From it; nothing where it answers clients itself.
    pub to_client: Passed,
    /// Flows begun.
    pub flows: u64,
    /// Half-open flows that had to make room for others.
    pub evicted: u64,
    /// New flows for which no source port was free.
    pub exhausted: u64,
    /// Flows that are open: what bounds go by.
    pub active: u64,
    /// Flows that are not yet, and may be nobody's.
    pub half_open: u64,
}

/// Counters by service.
pub type ServiceCounters = BTreeMap<ServiceKey, ServiceCount>;
