//! What a VIP has to be: one reader for the file, the REST API and the state that survives a restart.

mod full_table;
mod life;
mod mss;
mod nat;
mod table_size;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_api_types::vip::{
    Access, Algorithm, Backend, HealthCheck, HealthCheckKind, Nat, NatMode, Protocol, Vip, VipSpec,
};

use crate::config;
use crate::read::{Cursor, Object};
use crate::resources::{read_check, read_kind, read_metadata};

/// Backends of a VIP at most.
pub const MAX_BACKENDS: usize = lb_dataplane::MAX_BACKENDS_PER_SERVICE;
/// Source addresses of a VIP at most: a million flows to each backend.
pub const MAX_SOURCE_ADDRESSES: usize = 16;
/// Prefixes of a VIP's access list at most.
pub const MAX_PREFIXES: usize = 16_384;
/// The greatest bound on flows: more than any table holds.
const MAX_FLOWS: u32 = 1_000_000_000;
/// VIPs at most, from file and REST together.
pub const MAX_VIPS: usize = 65_536;

const UDP_CHECK: &str =
    "a udp VIP says `kind: none`, or `kind: tcp` where its backends also accept TCP at their port";
const SCTP_CHECK: &str = "lbd does not check over sctp: a sctp VIP says `kind: none`, or `kind: tcp` where its backends also accept TCP, \
     at their port or at the check's `port`";
const PROTOCOLS: &[(&str, Protocol)] = &[
    ("tcp", Protocol::Tcp),
    ("udp", Protocol::Udp),
    ("sctp", Protocol::Sctp),
    ("icmp", Protocol::Icmp),
];
const ICMP_CHECK: &str = "lbd does not check by echoes: an icmp VIP says `kind: none`, or `kind: tcp` with the `port` that its backends \
     accept TCP at";
const ICMP_PORT: &str = "is said, but echoes have no ports: leave it out";
const MODES: &[(&str, NatMode)] = &[
    ("dnat", NatMode::Dnat),
    ("full-nat", NatMode::FullNat),
    ("one-arm", NatMode::OneArm),
    ("dsr", NatMode::Dsr),
    ("dsr-ipip", NatMode::DsrIpip),
    ("dsr-gue", NatMode::DsrGue),
];
const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("maglev", Algorithm::Maglev),
    ("round-robin", Algorithm::RoundRobin),
    ("least-connections", Algorithm::LeastConnections),
    ("source-hash", Algorithm::SourceHash),
];
/// The address of a VIP that is to be given one of its pool.
pub const UNALLOCATED: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Seconds for which a client is remembered at most.
const MAX_AFFINITY_SECS: u32 = 86_400;

/// Reads a VIP. Its `status`, if there is one, is ignored.
pub fn read(cursor: &Cursor<'_>) -> Option<Vip> {
    let vip = cursor.object(&["metadata", "spec", "status"])?;
    let metadata = vip.required("metadata").and_then(|metadata| read_metadata(&metadata));
    let spec = vip.required("spec").and_then(|spec| read_spec(&spec));
    Some(Vip { metadata: metadata?, spec: spec?, status: None })
}

/// A name: a label of RFC 1123 §2.1 in lower case.
pub(crate) fn name(cursor: &Cursor<'_>) -> Option<String> {
    let text = cursor.text()?;
    if is_name(text) {
        return Some(text.to_owned());
    }
    cursor.wrong(format!(
        "is `{text}`, but has to be 1 to 63 lower-case letters, digits and hyphens with a letter or digit at both ends"
    ))
}

/// Whether a text can name a resource.
pub fn is_name(text: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|&c| plain(c) || c == b'-')
        && bytes.first().zip(bytes.last()).is_some_and(|(&a, &z)| plain(a) && plain(z))
}

/// What a spec may say.
const FIELDS: &[&str] = &[
    "address",
    "pool",
    "port",
    "last_port",
    "protocol",
    "algorithm",
    "affinity_secs",
    "maglev_table_size",
    "max_flows",
    "max_flows_per_client",
    "idle_timeout_secs",
    "reset_on_expiry",
    "on_unhealthy",
    "mss_clamp",
    "access",
    "full_table",
    "nat",
    "backends",
    "health_check",
    "advertise",
    "announce_on",
];

fn read_spec(cursor: &Cursor<'_>) -> Option<VipSpec> {
    let spec = cursor.object(FIELDS)?;
    let pool = match spec.field("pool") {
        None => Some(None),
        Some(pool) => name(&pool).map(Some),
    };
    let said = spec.field("address").map(|address| service_address(&address));
    let address = match (said, &pool) {
        (Some(address), _) => address,
        (None, Some(Some(_)) | None) => Some(UNALLOCATED),
        (None, Some(None)) => {
            spec.missing("address", "say it, or name a `pool` that it comes from")
        }
    };
    let wanted = address;
    // What is not known yet is of either family.
    let address = address.filter(|&address| address != UNALLOCATED);
    let protocol =
        spec.field("protocol").map_or(Some(Protocol::default()), |p| p.one_of(PROTOCOLS));
    let has_ports = protocol != Some(Protocol::Icmp);
    let port = read_port(&spec, has_ports);
    let last_port = match spec.field("last_port") {
        None => Some(None),
        Some(last) if !has_ports => last.wrong(ICMP_PORT),
        Some(last) => last.number(port.unwrap_or(1)..=u16::MAX).map(Some),
    };
    let more_ports = last_port.flatten().zip(port).map_or(0, |(last, port)| last - port);
    let algorithm =
        spec.field("algorithm").map_or(Some(Algorithm::default()), |a| a.one_of(ALGORITHMS));
    let affinity_secs = match spec.field("affinity_secs") {
        None => Some(None),
        Some(seconds) => seconds.number(1..=MAX_AFFINITY_SECS).map(Some),
    };
    let max_flows = bound(&spec, "max_flows");
    let max_flows_per_client = bound(&spec, "max_flows_per_client");
    let access = spec
        .field("access")
        .map_or_else(|| Some(Access::default()), |access| read_access(&access, address));
    let nat =
        spec.field("nat").map_or_else(|| Some(Nat::default()), |nat| nat::read(&nat, protocol));
    let mode = nat.as_ref().map(|nat| nat.mode);
    let life = life::read(&spec, protocol, mode);
    let mss_clamp = mss::read(&spec, protocol, mode);
    let keeps_ports = nat.as_ref().is_some_and(|nat| nat.mode.is_dsr());
    let backends = spec.required("backends").and_then(|cursor| {
        let ports = if has_ports { Ports::More(more_ports) } else { Ports::None };
        let backends = read_backends(&cursor, address, nat.as_ref(), ports)?;
        nat::check_sources(&spec, nat.as_ref(), &backends)?;
        check_backends(&cursor, &backends, port.filter(|_| keeps_ports))?;
        Some(backends)
    });
    let maglev_table_size = table_size::read(&spec, algorithm, backends.as_deref());
    let full_table =
        full_table::read(&spec, protocol, nat.as_ref(), algorithm, backends.as_deref());
    let health_check = read_health_check(&spec, protocol);
    // Pings are no service: that they are answered is no reason to bring clients here, unless somebody says so.
    let advertise = spec.field("advertise").map_or(Some(has_ports), |said| said.boolean());
    let announce_on =
        spec.field("announce_on").map_or_else(|| Some(Vec::new()), |on| config::interfaces(&on));
    let life = life?;
    Some(VipSpec {
        address: wanted?,
        pool: pool?,
        port: port?,
        last_port: last_port?,
        protocol: protocol?,
        algorithm: algorithm?,
        affinity_secs: affinity_secs?,
        maglev_table_size: maglev_table_size?,
        max_flows: max_flows?,
        max_flows_per_client: max_flows_per_client?,
        idle_timeout_secs: life.idle_timeout_secs,
        reset_on_expiry: life.reset_on_expiry,
        on_unhealthy: life.on_unhealthy,
        mss_clamp: mss_clamp?,
        access: access?,
        full_table: full_table?,
        nat: nat?,
        backends: backends?,
        health_check: health_check?,
        advertise: advertise?,
        announce_on: announce_on?,
    })
}

/// Whether backends fit the port that packets keep, if they do.
fn check_backends(cursor: &Cursor<'_>, backends: &[Backend], kept_port: Option<u16>) -> Option<()> {
    let Some(port) = kept_port else { return Some(()) };
    match backends.iter().find(|backend| backend.port != port) {
        None => Some(()),
        Some(other) => cursor.wrong(format!(
            "name {}:{}, but with direct server return packets keep the VIP's port: use {port}, or `nat.mode: dnat`",
            other.address, other.port
        )),
    }
}

/// Whether each backend has its turns in a round.
fn goes_by_turns(algorithm: Algorithm) -> bool {
    match algorithm {
        Algorithm::RoundRobin | Algorithm::LeastConnections => true,
        Algorithm::Maglev | Algorithm::SourceHash => false,
    }
}

fn service_address(cursor: &Cursor<'_>) -> Option<IpAddr> {
    let address = cursor.address()?;
    match unfit(address) {
        None => Some(address),
        Some(what) => cursor.wrong(format!("is {address}, {what}: a VIP needs a unicast address")),
    }
}

/// Why no packets for this address can come or go through a router, if so.
pub(crate) fn unfit(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => unfit_v4(address),
        IpAddr::V6(address) => unfit_v6(address),
    }
}

/// RFC 1122 §3.2.1.3: 0/8 is "this network", 127/8 loopback, 240/4 and above reserved.
fn unfit_v4(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets()[0] {
        0 => Some("an address of \"this network\" (0.0.0.0/8)"),
        127 => Some("a loopback address"),
        224..=239 => Some("a multicast address"),
        240..=255 => Some("a reserved address"),
        _ if address.is_link_local() => Some("a link-local address"),
        _ => None,
    }
}

/// RFC 4291 §2.5 to §2.7.
fn unfit_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_unspecified() {
        Some("the unspecified address")
    } else if address.is_loopback() {
        Some("the loopback address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if address.is_unicast_link_local() {
        Some("a link-local address")
    } else if address.to_ipv4_mapped().is_some() {
        Some("an IPv4 address in IPv6's clothes")
    } else {
        None
    }
}

/// Why an address cannot be on the other side of a VIP's flows, if so.
fn other_family(address: IpAddr, vip: Option<IpAddr>) -> Option<&'static str> {
    match (address, vip?) {
        (IpAddr::V4(_), IpAddr::V6(_)) => Some("IPv6"),
        (IpAddr::V6(_), IpAddr::V4(_)) => Some("IPv4"),
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => None,
    }
}

fn read_access(cursor: &Cursor<'_>, vip: Option<IpAddr>) -> Option<Access> {
    let access = cursor.object(&["allow", "deny"])?;
    let mut seen = BTreeSet::new();
    let mut read = |name| match access.field(name) {
        None => Some(Vec::new()),
        Some(listed) => listed.list(|cursor| {
            let prefix = cursor.prefix()?;
            if let Some(family) = other_family(prefix.ip(), vip) {
                return cursor
                    .wrong(format!("is {prefix}, but clients are of the VIP's family, {family}"));
            }
            if !seen.insert(prefix) {
                return cursor.wrong(format!("repeats the prefix {prefix}: list it once"));
            }
            Some(prefix)
        }),
    };
    let (allow, deny) = (read("allow"), read("deny"));
    let access = Access { allow: allow?, deny: deny? };
    let listed = access.allow.len() + access.deny.len();
    if listed > MAX_PREFIXES {
        return cursor.wrong(format!("lists {listed} prefixes, but {MAX_PREFIXES} are the most"));
    }
    Some(access)
}

/// The ports of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ports {
    /// One, which so many follow.
    More(u16),
    /// None: its VIP's protocol is ICMP.
    None,
    /// One or none: its VIP's protocol is not known here.
    Any,
}

/// A port, or 0 where there is none.
fn read_port(of: &Object<'_>, has_ports: bool) -> Option<u16> {
    match of.field("port") {
        Some(port) if !has_ports => port.wrong(ICMP_PORT),
        None if !has_ports => Some(0),
        Some(_) | None => of.required("port").and_then(|port| port.number(1..=u16::MAX)),
    }
}

fn read_backends(
    cursor: &Cursor<'_>,
    vip: Option<IpAddr>,
    nat: Option<&Nat>,
    ports: Ports,
) -> Option<Vec<Backend>> {
    let mut seen = BTreeSet::new();
    let mut complete = true;
    let backends = cursor.list(|cursor| {
        let backend = read_backend(cursor, vip, nat, ports);
        complete &= backend.is_some();
        let backend = backend?;
        if !seen.insert((backend.address, backend.port)) {
            let Backend { address, port, .. } = backend;
            return cursor.wrong(format!("repeats the backend {address}:{port}: list it once"));
        }
        Some(backend)
    })?;
    if backends.is_empty() && complete {
        return cursor.wrong("is an empty list, but a VIP needs at least one backend");
    }
    if backends.len() > MAX_BACKENDS {
        let listed = backends.len();
        return cursor.wrong(format!("lists {listed} backends, but {MAX_BACKENDS} are the most"));
    }
    Some(backends)
}

/// Reads a backend of a VIP with this address and translation, if those are known, and with these ports.
pub(crate) fn read_backend(
    cursor: &Cursor<'_>,
    vip: Option<IpAddr>,
    nat: Option<&Nat>,
    ports: Ports,
) -> Option<Backend> {
    let backend =
        cursor.object(&["address", "port", "weight", "max_flows", "drain", "disabled"])?;
    let address = backend.required("address").and_then(|cursor| {
        let address = cursor.address()?;
        if Some(address) == vip {
            return cursor
                .wrong(format!("is {address}, the VIP's own address: name the server behind it"));
        }
        if let Some(what) = unfit(address) {
            return cursor.wrong(format!("is {address}, {what}: name the server's own"));
        }
        match vip.zip(nat).and_then(|(vip, nat)| nat::unreachable(address, vip, nat)) {
            None => Some(address),
            Some(why) => cursor.wrong(why),
        }
    });
    let has_ports = match ports {
        Ports::More(_) => true,
        Ports::None => false,
        Ports::Any => backend.field("port").is_some(),
    };
    let port = read_port(&backend, has_ports).and_then(|port| match ports {
        Ports::More(more) if port > u16::MAX - more => backend.field("port")?.wrong(format!(
            "is {port}, but {more} more ports follow the VIP's first, and 65535 is the last port: use {} or less",
            u16::MAX - more
        )),
        Ports::More(_) | Ports::None | Ports::Any => Some(port),
    });
    let weight = backend.field("weight").map_or(Some(1), |weight| weight.number(1..=u8::MAX));
    let max_flows = bound(&backend, "max_flows");
    let drain = backend.field("drain").map_or(Some(false), |drain| drain.boolean());
    let disabled = backend.field("disabled").map_or(Some(false), |disabled| disabled.boolean());
    Some(Backend {
        address: address?,
        port: port?,
        weight: weight?,
        max_flows: max_flows?,
        drain: drain?,
        disabled: disabled?,
    })
}

/// A number of flows at most, if there is one.
fn bound(of: &Object<'_>, name: &'static str) -> Option<Option<u32>> {
    match of.field(name) {
        None => Some(None),
        Some(most) => most.number(1..=MAX_FLOWS).map(Some),
    }
}

/// A UDP service has no check that would fit by default: silence is what healthy and dead servers have in common. One of SCTP
/// has none either.
fn read_health_check(spec: &Object<'_>, protocol: Option<Protocol>) -> Option<HealthCheck> {
    let default = HealthCheck::default();
    let Some(cursor) = spec.field("health_check") else {
        return match no_default_check(protocol) {
            Some(why) => spec.missing("health_check", why),
            None => Some(default),
        };
    };
    let check =
        cursor.object(&["from", "kind", "port", "interval_ms", "timeout_ms", "rise", "fall"])?;
    if let Some(from) = check.field("from") {
        if protocol == Some(Protocol::Icmp) {
            return from.wrong("is said, but an icmp VIP says its check itself: `kind: none`, or `kind: tcp` with a `port`");
        }
        let said = ["kind", "port", "interval_ms", "timeout_ms", "rise", "fall"];
        if let Some(field) = said.iter().find_map(|field| check.field(field)) {
            return field.wrong("is said by the health check of `from`: leave one of the two out");
        }
        // What it says is filled in by the registry, which knows it.
        return Some(HealthCheck { from: Some(name(&from)?), ..default });
    }
    let kind = match read_kind(&check) {
        Some(kind) => kind,
        None => match no_default_check(protocol) {
            Some(why) => check.missing("kind", why),
            None => Some(default.kind),
        },
    };
    let read = read_check(&check, kind).map(HealthCheck::from)?;
    if protocol == Some(Protocol::Icmp) && read.kind != HealthCheckKind::None && read.port.is_none()
    {
        return check.missing("port", ICMP_CHECK);
    }
    Some(read)
}

/// What a VIP is to say whose protocol has no check by default.
fn no_default_check(protocol: Option<Protocol>) -> Option<&'static str> {
    match protocol {
        Some(Protocol::Udp) => Some(UDP_CHECK),
        Some(Protocol::Sctp) => Some(SCTP_CHECK),
        Some(Protocol::Icmp) => Some(ICMP_CHECK),
        Some(Protocol::Tcp) | None => None,
    }
}

#[cfg(test)]
mod tests;
