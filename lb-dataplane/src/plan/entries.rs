//! Keys and values of the service maps, from addresses and ports.

use std::net::{IpAddr, Ipv4Addr};

use lb_dataplane_common::service::{
    ALGORITHM_LEAST_CONNECTIONS, ALGORITHM_MAGLEV, ALGORITHM_ROUND_ROBIN, ALGORITHM_SOURCE_HASH,
    BACKEND_DRAINING, BACKEND_FAILED, BACKEND_IN_USE, BackendEntry, SERVICE_ANSWER_ECHO,
    ServiceEntry, ServiceKey4,
};

use super::sources::Set;
use super::{NO_ID, PlanError};
use crate::table::{Algorithm, Backend, BackendState, Protocol, ServiceKey};

pub(super) fn v4(address: IpAddr) -> Result<Ipv4Addr, PlanError> {
    match address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => Err(PlanError::Ipv6(address)),
    }
}

pub(super) fn service_key(address: Ipv4Addr, key: &ServiceKey) -> ServiceKey4 {
    let protocol = match key.protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    };
    ServiceKey4 { address: address.octets(), port: key.port.to_be_bytes(), protocol, pad: 0 }
}

/// What stands for the address itself: port 0 of ICMP.
pub(super) fn address_key(address: Ipv4Addr) -> ServiceKey4 {
    ServiceKey4 { address: address.octets(), port: [0; 2], protocol: 1, pad: 0 }
}

pub(super) fn address_entry() -> ServiceEntry {
    let flags = SERVICE_ANSWER_ECHO;
    ServiceEntry {
        id: NO_ID,
        ring_base: 0,
        ring_len: 0,
        algorithm: 0,
        flags,
        pad: [0; 2],
        affinity: 0,
    }
}

/// A backend of a service.
pub(super) fn backend_entry(
    name: (Ipv4Addr, u16),
    backend: &Backend,
    service: u32,
    sources: Set,
) -> BackendEntry {
    BackendEntry {
        flags: BACKEND_IN_USE | backend_flags(backend.state),
        weight: backend.weight.max(1),
        service,
        sources_base: sources.base,
        sources_len: sources.len,
        ..gone_entry(name)
    }
}

/// A backend of no service.
pub(super) fn gone_entry((address, port): (Ipv4Addr, u16)) -> BackendEntry {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&address.octets());
    BackendEntry {
        address: bytes,
        port: port.to_be_bytes(),
        flags: 0,
        weight: 1,
        service: NO_ID,
        sources_base: 0,
        sources_len: 0,
    }
}

fn backend_flags(state: BackendState) -> u8 {
    match state {
        BackendState::Active => 0,
        BackendState::Draining => BACKEND_DRAINING,
        BackendState::Failed => BACKEND_FAILED,
    }
}

pub(super) fn algorithm(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::Maglev => ALGORITHM_MAGLEV,
        Algorithm::RoundRobin => ALGORITHM_ROUND_ROBIN,
        Algorithm::LeastConnections => ALGORITHM_LEAST_CONNECTIONS,
        Algorithm::SourceHash => ALGORITHM_SOURCE_HASH,
    }
}
