//! Keys and values of the service maps, from addresses and ports.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZero;

use lb_dataplane_common::family::{Family, V6};
use lb_dataplane_common::mss::MSS_AUTO;
use lb_dataplane_common::service::{
    ALGORITHM_LEAST_CONNECTIONS, ALGORITHM_MAGLEV, ALGORITHM_ROUND_ROBIN, ALGORITHM_SOURCE_HASH,
    BACKEND_ANSWERS_ALONE, BACKEND_BOUNDED, BACKEND_DRAINING, BACKEND_ENDS_FAILED, BACKEND_FAILED,
    BACKEND_IN_USE, BACKEND_RESETS_FAILED, BACKEND_RESETS_IDLE, BackendEntry, EXHAUSTION_DROP,
    EXHAUSTION_ICMP, EXHAUSTION_RESET, MODE_GUE, MODE_IP_IN_IP, MODE_L2, MODE_NAT, NO_SERVICE,
    SERVICE_ANSWER_ECHO, SERVICE_BOUNDS_BACKENDS, SERVICE_BOUNDS_FLOWS, SERVICE_HASHES_WHEN_FULL,
    ServiceEntry, SourceList, VipKey,
};

use super::sources::Set;
use super::{MAX_BACKENDS_PER_SERVICE, NO_ID, PlanError, access, ranges};
use crate::table::{
    Algorithm, Backend, BackendState, Mode, MssClamp, OnExhaustion, Protocol, Service, ServiceKey,
    WhenFailed,
};

/// An address as the maps have it.
pub(super) fn bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// An address as a key has it.
pub(crate) fn words(address: IpAddr) -> V6 {
    V6::from_bytes(bytes(address))
}

/// The address of a key.
pub(super) fn address_of(address: V6) -> IpAddr {
    let [a, b, c, d] = address.map(u32::from_be);
    let bits = u128::from(a) << 96 | u128::from(b) << 64 | u128::from(c) << 32 | u128::from(d);
    Ipv6Addr::from(bits).to_canonical()
}

/// An address from the maps.
pub(super) fn address(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

/// Whether a service can be served, if there is room.
pub(super) fn check(key: &ServiceKey, service: &Service) -> Result<(), PlanError> {
    let ServiceKey { address, port, .. } = *key;
    ranges::check(key, service)?;
    if service.hashes_when_full && !can_hash(key, service) {
        return Err(PlanError::NeedsFlows { address, port });
    }
    let count = service.backends.len();
    if count > MAX_BACKENDS_PER_SERVICE {
        return Err(PlanError::TooManyBackends { address, port, count });
    }
    access::check(key, service)?;
    for backend in &service.backends {
        reachable(key, service, backend)?;
    }
    service.access.iter().try_for_each(|access| of_clients(key, access.prefix.ip()))
}

/// Clients are of the family of the VIP.
fn of_clients(service: &ServiceKey, address: IpAddr) -> Result<(), PlanError> {
    if service.address.is_ipv4() == address.is_ipv4() {
        Ok(())
    } else {
        Err(PlanError::ClientFamily { vip: service.address, address })
    }
}

/// A backend of the other family than the VIP gets flows that are translated, from addresses of its own family.
fn reachable(key: &ServiceKey, service: &Service, backend: &Backend) -> Result<(), PlanError> {
    let (vip, address) = (key.address, backend.address);
    if let Some(source) = backend.sources.iter().find(|s| s.address.is_ipv4() != address.is_ipv4())
    {
        return Err(PlanError::SourceFamily { address, from: source.address });
    }
    let has_source = service.one_arm || !backend.sources.is_empty();
    if vip.is_ipv4() == address.is_ipv4() || service.mode == Mode::Nat && has_source {
        Ok(())
    } else {
        Err(PlanError::Family { vip, address })
    }
}

pub(super) fn service_key(key: &ServiceKey) -> VipKey {
    VipKey {
        address: words(key.address),
        port: key.port.to_be_bytes(),
        protocol: key.protocol.number(key.address.is_ipv4()),
        pad: 0,
    }
}

/// What stands for the address itself.
pub(super) fn address_key(address: IpAddr) -> VipKey {
    VipKey { address: words(address), port: [0; 2], protocol: 0, pad: 0 }
}

pub(super) fn address_entry() -> ServiceEntry {
    let flags = SERVICE_ANSWER_ECHO;
    ServiceEntry {
        id: NO_ID,
        ring_base: 0,
        ring_len: 0,
        algorithm: 0,
        flags,
        mode: 0,
        on_exhaustion: EXHAUSTION_DROP,
        affinity: 0,
        max_flows: 0,
        max_flows_per_client: 0,
        mss: 0,
        generation: 0,
    }
}

/// A backend of a service.
pub(super) fn backend_entry(
    name: (IpAddr, u16),
    backend: &Backend,
    (service, life): (u32, Life),
    sources: Set,
) -> BackendEntry {
    BackendEntry {
        flags: BACKEND_IN_USE | backend_flags(backend.state) | life.flags,
        idle: life.idle,
        weight: backend.weight.max(1),
        service,
        sources: SourceList::new(sources.base, sources.len),
        max_flows: backend.max_flows.map_or(0, NonZero::get),
        vip: life.alone_for.map_or([0; 16], |vip| bytes(vip.address)),
        vip_port: life.alone_for.map_or([0; 2], |vip| vip.port.to_be_bytes()),
        protocol: life.alone_for.map_or(0, |vip| vip.protocol.number(vip.address.is_ipv4())),
        ..gone_entry(name)
    }
}

/// A backend of no service.
pub(super) fn gone_entry((address, port): (IpAddr, u16)) -> BackendEntry {
    BackendEntry {
        address: bytes(address),
        port: port.to_be_bytes(),
        flags: 0,
        weight: 1,
        service: NO_SERVICE,
        sources: SourceList::default(),
        max_flows: 0,
        idle: 0,
        vip: [0; 16],
        vip_port: [0; 2],
        protocol: 0,
        pad: 0,
        line: 0,
        load: 0,
    }
}

/// A backend that its service parts with. It takes no new flows; those that it has live, and end, as the service said last. It
/// names the service still: what is counted of them is the service's, and a new process knows which ids flows may have.
pub(super) fn parted_entry(name: (IpAddr, u16), entry: &BackendEntry) -> BackendEntry {
    let life = BACKEND_FAILED | BACKEND_ENDS_FAILED | BACKEND_RESETS_FAILED | BACKEND_RESETS_IDLE;
    BackendEntry {
        flags: entry.flags & life,
        idle: entry.idle,
        service: entry.service,
        ..gone_entry(name)
    }
}

/// How long a service's flows live, as its backends' entries say it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    flags: u8,
    idle: u32,
    /// The service whose answers need no flow.
    alone_for: Option<ServiceKey>,
}

impl Life {
    pub(super) fn of(key: &ServiceKey, service: &Service) -> Self {
        let usual = match key.protocol {
            Protocol::Tcp | Protocol::Sctp => WhenFailed::Keep,
            Protocol::Udp | Protocol::Icmp => WhenFailed::Drop,
        };
        let when_failed = match service.when_failed.unwrap_or(usual) {
            WhenFailed::Keep => 0,
            WhenFailed::Drop => BACKEND_ENDS_FAILED,
            WhenFailed::Reset => BACKEND_ENDS_FAILED | BACKEND_RESETS_FAILED,
        };
        let when_idle = if service.resets_idle { BACKEND_RESETS_IDLE } else { 0 };
        let alone_for = (service.hashes_when_full && service.mode == Mode::Nat).then_some(*key);
        let when_full = alone_for.map_or(0, |_| BACKEND_ANSWERS_ALONE);
        let when_bounded =
            if bounds(service) & (SERVICE_BOUNDS_FLOWS | SERVICE_BOUNDS_BACKENDS) != 0 {
                BACKEND_BOUNDED
            } else {
                0
            };
        let flags = when_failed | when_idle | when_full | when_bounded;
        Self { flags, idle: service.idle.map_or(0, NonZero::get), alone_for }
    }
}

pub(super) fn mss(clamp: MssClamp) -> u16 {
    match clamp {
        MssClamp::Auto => MSS_AUTO,
        MssClamp::Most(most) => most.get(),
    }
}

pub(super) fn on_exhaustion(on_exhaustion: OnExhaustion) -> u8 {
    match on_exhaustion {
        OnExhaustion::Drop => EXHAUSTION_DROP,
        OnExhaustion::Reset => EXHAUSTION_RESET,
        OnExhaustion::Icmp => EXHAUSTION_ICMP,
    }
}

/// Whether a flow's packets all go to one backend without an entry, and its answers, if they come back here, are known without
/// one.
fn can_hash(key: &ServiceKey, service: &Service) -> bool {
    let keeps_clients = !service.one_arm && service.backends.iter().all(|b| b.sources.is_empty());
    let answers_alone = keeps_clients
        && service.more_ports == 0
        && matches!(key.protocol, Protocol::Tcp | Protocol::Udp);
    (service.mode != Mode::Nat || answers_alone)
        && matches!(service.algorithm, Algorithm::Maglev | Algorithm::SourceHash)
        && service.affinity.is_none()
        && service.backends.iter().all(|backend| backend.max_flows.is_none())
}

/// What a service's entry says of bounds and of a full table.
pub(super) fn bounds(service: &Service) -> u8 {
    let of_flows = service.max_flows.is_some() || service.max_flows_per_client.is_some();
    let of_backends = service.backends.iter().any(|backend| backend.max_flows.is_some());
    (if of_flows { SERVICE_BOUNDS_FLOWS } else { 0 })
        | if of_backends { SERVICE_BOUNDS_BACKENDS } else { 0 }
        | if service.hashes_when_full { SERVICE_HASHES_WHEN_FULL } else { 0 }
}

fn backend_flags(state: BackendState) -> u8 {
    match state {
        BackendState::Active => 0,
        BackendState::Draining => BACKEND_DRAINING,
        BackendState::Failed => BACKEND_FAILED,
    }
}

pub(super) fn mode(mode: Mode) -> u8 {
    (match mode {
        Mode::Nat => MODE_NAT,
        Mode::L2 => MODE_L2,
        Mode::IpInIp => MODE_IP_IN_IP,
        Mode::Gue => MODE_GUE,
    }) as u8
}

pub(super) fn algorithm(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::Maglev => ALGORITHM_MAGLEV,
        Algorithm::RoundRobin => ALGORITHM_ROUND_ROBIN,
        Algorithm::LeastConnections => ALGORITHM_LEAST_CONNECTIONS,
        Algorithm::SourceHash => ALGORITHM_SOURCE_HASH,
    }
}
