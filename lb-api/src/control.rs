//! What is to be served and advertised: a pure function of facts.
//!
//! - A backend takes new flows while it is healthy. While a VIP has no healthy backend, those that have not been judged
//!   yet take them, so that a restart refuses nobody. With none of either, new flows are refused and established ones
//!   live on. One that is drained takes none, and keeps those that it has: its address stays advertised for them.
//! - An address is advertised while the dataplane is attached to every interface that it is to be on, and has confirmed at
//!   least one VIP of it that wants to be advertised and has a healthy backend that packets reach. VIPs that share an address share its /32: one dead port does not take the others' away.
//! - An address whose health flaps is held back for a while ([`Damping`]).

mod book;
mod damping;
mod explain;
mod ports;
mod shares;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Instant;

use ipnetwork::IpNetwork;
use lb_api_types::vip::{self, Backend, Health, MssAuto, MssClamp, NatMode, Vip, VipSpec};
use lb_dataplane::table::{
    self, BackendState, Mode, OnExhaustion, Service, ServiceKey, Source, Table, WhenFailed,
};
use lb_dataplane::{maglev, seconds};

pub use self::book::{Book, Touched};
pub use self::damping::{Damping, HALF_LIFE};
pub(crate) use self::explain::Reasons;
pub use self::ports::Ports;
pub use self::shares::Shares;
use crate::health::{Target, Verdict, Verdicts};

/// Backends that no packet reaches as their VIP's `nat.mode` needs it.
pub type Unreached = BTreeSet<(ServiceKey, IpAddr)>;

/// VIPs by name.
pub type Vips = BTreeMap<String, Vip>;

/// What holds.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The VIPs of file and REST.
    pub vips: &'a Vips,
    /// What health checks found.
    pub verdicts: &'a Verdicts,
    /// Whether the dataplane has confirmed that it is attached to every interface that it is to be on, and to one at least.
    pub attached: bool,
    /// Whether the node's VIPs are withdrawn: BGP is to advertise nothing.
    pub withdrawn: bool,
    /// What the dataplane has confirmed to serve.
    pub serving: &'a BTreeSet<ServiceKey>,
    /// Backends that no packet reaches as their VIP's `nat.mode` needs it.
    pub unreached: &'a Unreached,
    /// Which addresses have flapped.
    pub damping: &'a Damping,
    /// The time.
    pub now: Instant,
}

/// What is to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// What the dataplane serves.
    pub table: Table,
    /// Addresses of VIPs, for which the kernel has an unreachable route.
    pub addresses: BTreeSet<IpAddr>,
    /// Addresses that BGP advertises.
    pub announced: BTreeSet<IpAddr>,
}

/// What is to hold, given what holds.
pub fn desired(facts: Facts<'_>) -> Desired {
    let mut desired = Desired { announced: announced(facts), ..Desired::default() };
    for vip in facts.vips.values() {
        desired.addresses.insert(vip.spec.address);
        desired.table.services.insert(key(&vip.spec), service(&vip.spec, facts.verdicts));
    }
    desired
}

/// What BGP is to advertise, given what holds.
pub fn announced(facts: Facts<'_>) -> BTreeSet<IpAddr> {
    let held = |address| facts.damping.held_until(address, facts.now).is_some();
    let carried = facts.vips.values().filter(|vip| !held(vip.spec.address) && carries(vip, facts));
    carried.map(|vip| vip.spec.address).collect()
}

/// Whether an address is advertised, of which these are the VIPs; the same as [`announced`] says of all.
pub fn is_announced<'a>(
    address: IpAddr,
    mut vips: impl Iterator<Item = &'a Vip>,
    facts: Facts<'_>,
) -> bool {
    vips.any(|vip| carries(vip, facts)) && facts.damping.held_until(address, facts.now).is_none()
}

/// Whether it is known of every VIP if its address is advertised: after a start interfaces are still to be attached to, and
/// backends to be checked for the first time.
pub fn are_judged(facts: Facts<'_>) -> bool {
    let waits = |vip: &Vip| match tally(&vip.spec, facts.verdicts) {
        Tally { healthy: 0, unknown: 1.., .. } => true,
        Tally { healthy: 0, .. } => false,
        Tally { .. } => !facts.attached,
    };
    facts.withdrawn || !facts.vips.values().any(|vip| vip.spec.advertise && waits(vip))
}

/// Patterns of the interfaces on whose links an address is announced, of which these are the VIPs.
pub fn links_of<'a>(
    address: IpAddr,
    vips: impl Iterator<Item = &'a Vip>,
    facts: Facts<'_>,
) -> BTreeSet<String> {
    let vips = vips.filter(|vip| !vip.spec.announce_on.is_empty() && is_of_use(vip, facts));
    let patterns: BTreeSet<_> = vips.flat_map(|vip| &vip.spec.announce_on).cloned().collect();
    match facts.damping.held_until(address, facts.now) {
        Some(_) => BTreeSet::new(),
        None => patterns,
    }
}

/// Whether a VIP is a reason to advertise its address.
fn carries(vip: &Vip, facts: Facts<'_>) -> bool {
    vip.spec.advertise && is_of_use(vip, facts)
}

/// Whether clients who come to a VIP are served.
fn is_of_use(vip: &Vip, facts: Facts<'_>) -> bool {
    facts.attached
        && !facts.withdrawn
        && facts.serving.contains(&key(&vip.spec))
        && has_way_to_healthy(vip, facts)
}

/// Whether packets reach a healthy backend.
fn has_way_to_healthy(vip: &Vip, facts: Facts<'_>) -> bool {
    let key = key(&vip.spec);
    used(&vip.spec).any(|backend| {
        verdict(&vip.spec, backend, facts.verdicts).health == Health::Healthy
            && !facts.unreached.contains(&(key, backend.address))
    })
}

/// What the dataplane calls it.
pub fn key(spec: &VipSpec) -> ServiceKey {
    let protocol = match spec.protocol {
        vip::Protocol::Tcp => table::Protocol::Tcp,
        vip::Protocol::Udp => table::Protocol::Udp,
        vip::Protocol::Sctp => table::Protocol::Sctp,
        vip::Protocol::Icmp => table::Protocol::Icmp,
    };
    ServiceKey { address: spec.address, port: spec.port, protocol }
}

/// What the dataplane is told of it.
pub fn service(spec: &VipSpec, verdicts: &Verdicts) -> Service {
    let Tally { healthy, drained, .. } = tally(spec, verdicts);
    let any_healthy = healthy > drained;
    let algorithm = match spec.algorithm {
        vip::Algorithm::Maglev => table::Algorithm::Maglev,
        vip::Algorithm::RoundRobin => table::Algorithm::RoundRobin,
        vip::Algorithm::LeastConnections => table::Algorithm::LeastConnections,
        vip::Algorithm::SourceHash => table::Algorithm::SourceHash,
    };
    // Disabled backends count, so that it moves no flows to take one out and in again.
    let table_size =
        spec.maglev_table_size.unwrap_or_else(|| maglev::size_for(spec.backends.len()));
    let sources = [true, false].map(|v4| sources(spec, v4));
    let backends = used(spec).map(|backend| table::Backend {
        address: backend.address,
        port: backend.port,
        weight: backend.weight,
        max_flows: backend.max_flows.and_then(NonZero::new),
        sources: sources[usize::from(backend.address.is_ipv6())].clone(),
        state: match verdict(spec, backend, verdicts).health {
            Health::Unhealthy => BackendState::Failed,
            Health::Healthy | Health::Unknown if backend.drain => BackendState::Draining,
            Health::Healthy => BackendState::Active,
            Health::Unknown if any_healthy => BackendState::Draining,
            Health::Unknown => BackendState::Active,
        },
    });
    let one_arm = spec.nat.mode == NatMode::OneArm;
    let affinity = spec.affinity_secs.and_then(|secs| NonZero::new(seconds(secs.into())));
    let listed = |prefixes: &[IpNetwork], is_admitted| {
        let access = |prefix: &IpNetwork| table::Access { prefix: *prefix, is_admitted };
        prefixes.iter().map(access).collect::<Vec<_>>()
    };
    let access = [listed(&spec.access.allow, true), listed(&spec.access.deny, false)].concat();
    Service {
        more_ports: spec.last_port().saturating_sub(spec.port),
        algorithm,
        table_size: NonZero::new(table_size),
        affinity,
        max_flows: spec.max_flows.and_then(NonZero::new),
        max_flows_per_client: spec.max_flows_per_client.and_then(NonZero::new),
        access: access.into(),
        backends: backends.collect(),
        mode: match spec.nat.mode {
            NatMode::Dnat | NatMode::FullNat | NatMode::OneArm => Mode::Nat,
            NatMode::Dsr => Mode::L2,
            NatMode::DsrIpip => Mode::IpInIp,
            NatMode::DsrGue => Mode::Gue,
        },
        hashes_when_full: spec.full_table == vip::FullTable::Hash,
        one_arm,
        idle: spec.idle_timeout_secs.and_then(|secs| NonZero::new(seconds(secs.into()))),
        resets_idle: spec.reset_on_expiry,
        mss_clamp: spec.mss_clamp.and_then(mss_clamp),
        when_failed: spec.on_unhealthy.map(|on_unhealthy| match on_unhealthy {
            vip::OnUnhealthy::Keep => WhenFailed::Keep,
            vip::OnUnhealthy::Drop => WhenFailed::Drop,
            vip::OnUnhealthy::Reset => WhenFailed::Reset,
        }),
        on_exhaustion: match spec.nat.on_exhaustion {
            vip::OnExhaustion::Drop => OnExhaustion::Drop,
            vip::OnExhaustion::Reset => OnExhaustion::Reset,
            vip::OnExhaustion::Icmp => OnExhaustion::Icmp,
        },
    }
}

fn mss_clamp(clamp: MssClamp) -> Option<table::MssClamp> {
    match clamp {
        MssClamp::Auto(MssAuto::Auto) => Some(table::MssClamp::Auto),
        MssClamp::Bytes(most) => NonZero::new(most).map(table::MssClamp::Most),
    }
}

/// Backends that are not disabled.
fn used(spec: &VipSpec) -> impl Iterator<Item = &Backend> {
    spec.backends.iter().filter(|backend| !backend.disabled)
}

/// Where flows of a VIP come from that says so, to backends of one family. Ports below 1024 are left alone, since some servers trust
/// them. Of addresses that are this host's own the dataplane knows which ports are free.
fn sources(spec: &VipSpec, v4: bool) -> Arc<[Source]> {
    let own = [spec.address];
    let addresses: &[IpAddr] = match spec.nat.mode {
        NatMode::FullNat if spec.nat.source_addresses.is_empty() => &own,
        NatMode::FullNat | NatMode::OneArm => &spec.nat.source_addresses[..],
        NatMode::Dnat | NatMode::Dsr | NatMode::DsrIpip | NatMode::DsrGue => &[],
    };
    let source =
        |address: &IpAddr| Source { address: *address, first_port: 1024, last_port: u16::MAX };
    addresses.iter().filter(|address| address.is_ipv4() == v4).map(source).collect()
}

/// What is known of a VIP's backend.
pub fn verdict(spec: &VipSpec, backend: &Backend, verdicts: &Verdicts) -> Verdict {
    match Target::of(backend, &spec.health_check) {
        None => Verdict { health: Health::Healthy, message: String::new() },
        Some(target) => verdicts
            .get(&target)
            .cloned()
            .unwrap_or(Verdict { health: Health::Unknown, message: String::new() }),
    }
}

/// How many backends of a VIP are what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) healthy: usize,
    pub(crate) unknown: usize,
    pub(crate) unhealthy: usize,
    /// Healthy ones that take no new flows.
    pub(crate) drained: usize,
}

pub(crate) fn tally(spec: &VipSpec, verdicts: &Verdicts) -> Tally {
    let mut tally = Tally::default();
    for backend in used(spec) {
        match verdict(spec, backend, verdicts).health {
            Health::Healthy => {
                tally.healthy += 1;
                tally.drained += usize::from(backend.drain);
            }
            Health::Unknown => tally.unknown += 1,
            Health::Unhealthy => tally.unhealthy += 1,
        }
    }
    tally
}

/// Everything that is to be checked.
pub fn targets(vips: &Vips) -> BTreeSet<Target> {
    vips.values().flat_map(|vip| targets_of(&vip.spec)).collect()
}

/// What a VIP has checked.
fn targets_of(spec: &VipSpec) -> impl Iterator<Item = Target> {
    used(spec).filter_map(|backend| Target::of(backend, &spec.health_check))
}

/// The health of an address as a whole, for [`Damping::observe`]; none where none of its VIPs is to be advertised
/// or announced on a link.
pub fn address_health<'a>(
    vips: impl Iterator<Item = &'a Vip>,
    verdicts: &Verdicts,
) -> Option<Health> {
    let of = |vip: &Vip| {
        let tally = tally(&vip.spec, verdicts);
        match (tally.healthy, tally.unknown) {
            (1.., _) => Health::Healthy,
            (0, 1..) => Health::Unknown,
            (0, 0) => Health::Unhealthy,
        }
    };
    let is_told = |vip: &&Vip| vip.spec.advertise || !vip.spec.announce_on.is_empty();
    vips.filter(is_told).map(of).reduce(|a, b| match (a, b) {
        (Health::Healthy, _) | (_, Health::Healthy) => Health::Healthy,
        (Health::Unknown, _) | (_, Health::Unknown) => Health::Unknown,
        (Health::Unhealthy, Health::Unhealthy) => Health::Unhealthy,
    })
}

#[cfg(test)]
mod tests;
