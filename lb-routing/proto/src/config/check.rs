//! What makes a configuration unusable, found before anything starts.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::{Import, MAX_IDLE_HOLD, MAX_PATHS_PER_PREFIX, MaxPrefixes, PeerConfig, SpeakerConfig};
use crate::wire::Family;

/// Neighbours at most.
pub(crate) const MAX_PEERS: usize = 65_534;
/// ECMP members at most.
const MAX_PATHS: usize = 256;
/// The two-octet stand-in for a four-octet AS number; nobody's own (RFC 6793 §9).
const AS_TRANS: u32 = 23456;
/// The shortest hold time but zero (RFC 4271 §4.2).
const MIN_HOLD_TIME: Duration = Duration::from_secs(3);

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// RFC 7607, RFC 6793 §9.
    #[error(
        "AS number {asn} is reserved: use the number assigned to you, or a private one such as 64512"
    )]
    ReservedAs {
        /// The number.
        asn: u32,
    },
    /// Nobody could have one of them, or it is not what the number beside says.
    #[error(
        "peer {name}: AS numbers {first} to {last} are no range that it can be in: use 1 to 4294967294, the lower one first, and have AS {asn} among all"
    )]
    AsRange {
        /// The peer's name.
        name: String,
        /// The first number.
        first: u32,
        /// The last one.
        last: u32,
        /// What the neighbour is thought to have.
        asn: u32,
    },
    /// RFC 6286 §2.1.
    #[error("router id 0.0.0.0 is not valid: use an IPv4 address of this host")]
    RouterIdZero,
    /// It would be no name of a cluster.
    #[error("cluster id 0.0.0.0 is not valid: leave it out, or use an IPv4 address")]
    ClusterIdZero,
    /// Reflection is for the inside of an AS (RFC 4456).
    #[error(
        "peer {name}: route_reflector_client needs a neighbour in our own AS, but it is in AS {asn}: leave it out"
    )]
    ExternalClient {
        /// The peer's name.
        name: String,
        /// Its AS.
        asn: u32,
    },
    /// Out of range.
    #[error("max_paths is {max_paths}: use 1 to {MAX_PATHS}")]
    MaxPaths {
        /// The value.
        max_paths: usize,
    },
    /// More than there are numbers for.
    #[error("{count} peers are too many: use {MAX_PEERS} at most")]
    TooManyPeers {
        /// How many.
        count: usize,
    },
    /// Numbers of them that were are not used again while the speaker runs.
    #[error(
        "the neighbours have had too many different settings since the start: restart to take these"
    )]
    TooManySettings,
    /// Every path from it would be a loop (RFC 4271 §9.1.2).
    #[error(
        "peer {name}: AS {asn} is ours, so with local_as {local_as} each of its paths is a loop: set allow_as_in to 1 or more, or leave local_as out"
    )]
    AlwaysLoops {
        /// The peer's name.
        name: String,
        /// Its AS, and ours.
        asn: u32,
        /// What it takes for ours.
        local_as: u32,
    },
    /// Not an address of a neighbour.
    #[error(
        "peer {name}: {address} is not an address that a neighbour can have: use a unicast address"
    )]
    Address {
        /// The peer's name.
        name: String,
        /// Its address.
        address: IpAddr,
    },
    /// Twice the same.
    #[error("peer {name}: {address} is the address of another peer too: keep one of them")]
    DuplicatePeer {
        /// The second peer's name.
        name: String,
        /// The address of both.
        address: IpAddr,
    },
    /// Port 0.
    #[error("peer {name}: port 0 is not valid: use 1 to 65535, usually 179")]
    PortZero {
        /// The peer's name.
        name: String,
    },
    /// IPv4 to IPv6 or the other way round.
    #[error(
        "peer {name}: source {source_address} and {address} are of different families: use a source of the peer's family"
    )]
    SourceFamily {
        /// The peer's name.
        name: String,
        /// The source.
        source_address: IpAddr,
        /// The peer's address.
        address: IpAddr,
    },
    /// RFC 4271 §4.2.
    #[error("peer {name}: hold time {} s is not valid: use 0 (no keepalives), or 3 to 65535 s", hold_time.as_secs_f64())]
    HoldTime {
        /// The peer's name.
        name: String,
        /// The value.
        hold_time: Duration,
    },
    /// More than there may be of one prefix.
    #[error("peer {name}: add_path_send {paths} is too many: use 2 to {MAX_PATHS_PER_PREFIX}")]
    AddPathSend {
        /// The peer's name.
        name: String,
        /// The value.
        paths: u8,
    },
    /// Every route would be too many, or the warning would never come.
    #[error(
        "peer {name}: max_prefixes {limit} with a warning from {warn_percent} % on is not valid: use a limit of 1 or more, and 1 to 100 %"
    )]
    MaxPrefixes {
        /// The peer's name.
        name: String,
        /// The limit.
        limit: u32,
        /// The warning.
        warn_percent: u8,
    },
    /// It would connect without pause.
    #[error("peer {name}: connect retry time is below 1 s: use 1 s or more, usually 120 s")]
    ConnectRetry {
        /// The peer's name.
        name: String,
    },
    /// Longer than they can be.
    #[error("peer {name}: {timer} {} s is not valid: use {} to {} s", value.as_secs_f64(), range.0.as_secs(), range.1.as_secs())]
    Timer {
        /// The peer's name.
        name: String,
        /// Which one.
        timer: &'static str,
        /// The value.
        value: Duration,
        /// What it may be.
        range: (Duration, Duration),
    },
    /// RFC 4724 §3.
    #[error("peer {name}: restart time {} s is not valid: use 1 to 4095 s, usually 120, or none", restart_time.as_secs_f64())]
    RestartTime {
        /// The peer's name.
        name: String,
        /// The value.
        restart_time: Duration,
    },
    /// There is nothing to talk about.
    #[error(
        "peer {name}: no address family is left to speak: name one of IPv4 and IPv6 unicast at least, each once"
    )]
    Families {
        /// The peer's name.
        name: String,
    },
}

/// Restart Time has twelve bits (RFC 4724 §3).
const MAX_RESTART_TIME: Duration = Duration::from_secs(4095);

/// Checks everything that `Speaker::new` relies on.
pub fn validate(config: &SpeakerConfig, peers: &[PeerConfig]) -> Result<(), ConfigError> {
    check_as(config.asn)?;
    if config.router_id.is_unspecified() {
        return Err(ConfigError::RouterIdZero);
    }
    if config.cluster_id.is_some_and(|id| id.is_unspecified()) {
        return Err(ConfigError::ClusterIdZero);
    }
    for max_paths in [Some(config.max_paths), config.decision.max_paths_internal] {
        if let Some(max_paths) = max_paths.filter(|paths| !(1..=MAX_PATHS).contains(paths)) {
            return Err(ConfigError::MaxPaths { max_paths });
        }
    }
    if peers.len() > MAX_PEERS {
        return Err(ConfigError::TooManyPeers { count: peers.len() });
    }
    let mut addresses = BTreeSet::new();
    for peer in peers {
        check_peer(peer)?;
        let (ours, reflects) = (peer.our_as(config), peer.route_reflector_client);
        let ends = peer.asns.iter().flat_map(|range| [*range.start(), *range.end()]);
        let external = [peer.asn].into_iter().chain(ends).find(|asn| *asn != ours);
        if let Some(asn) = external.filter(|_| reflects) {
            return Err(ConfigError::ExternalClient { name: peer.name.clone(), asn });
        }
        if let Some(local_as) = peer.local_as
            && peer.may_be(config.asn)
            && local_as != config.asn
            && peer.allow_as_in == 0
            && peer.import != Import::None
        {
            let (name, asn) = (peer.name.clone(), config.asn);
            return Err(ConfigError::AlwaysLoops { name, asn, local_as });
        }
        if !addresses.insert(peer.address.to_canonical()) {
            return Err(ConfigError::DuplicatePeer {
                name: peer.name.clone(),
                address: peer.address,
            });
        }
    }
    Ok(())
}

pub(super) fn check_as(asn: u32) -> Result<(), ConfigError> {
    if asn == 0 || asn == AS_TRANS || asn == u32::MAX {
        return Err(ConfigError::ReservedAs { asn });
    }
    Ok(())
}

fn check_peer(peer: &PeerConfig) -> Result<(), ConfigError> {
    let name = || peer.name.clone();
    let address = peer.address.to_canonical();
    check_as(peer.asn)?;
    peer.local_as.map_or(Ok(()), check_as)?;
    let has_its_own = peer.asns.is_empty() || peer.asns.iter().any(|it| it.contains(&peer.asn));
    for range in &peer.asns {
        let (first, last) = (*range.start(), *range.end());
        if first == 0 || first > last || last == u32::MAX || !has_its_own {
            return Err(ConfigError::AsRange { name: name(), first, last, asn: peer.asn });
        }
    }
    if address.is_unspecified() || address.is_multicast() {
        return Err(ConfigError::Address { name: name(), address });
    }
    if peer.port == 0 {
        return Err(ConfigError::PortZero { name: name() });
    }
    if let Some(source) = peer.source
        && source.to_canonical().is_ipv4() != address.is_ipv4()
    {
        return Err(ConfigError::SourceFamily { name: name(), source_address: source, address });
    }
    let hold_time = peer.hold_time;
    let whole = hold_time.subsec_nanos() == 0 && hold_time.as_secs() <= u64::from(u16::MAX);
    if !(hold_time.is_zero() || hold_time >= MIN_HOLD_TIME && whole) {
        return Err(ConfigError::HoldTime { name: name(), hold_time });
    }
    if peer.add_path_send > MAX_PATHS_PER_PREFIX {
        return Err(ConfigError::AddPathSend { name: name(), paths: peer.add_path_send });
    }
    if let Some(MaxPrefixes { limit, warn_percent, .. }) = peer.max_prefixes
        && (limit == 0 || !(1..=100).contains(&warn_percent))
    {
        return Err(ConfigError::MaxPrefixes { name: name(), limit, warn_percent });
    }
    if peer.connect_retry < Duration::from_secs(1) {
        return Err(ConfigError::ConnectRetry { name: name() });
    }
    for (timer, value, (least, most)) in [
        // OPEN has to come before the neighbour's patience ends, 240 s (RFC 4271 §8.2.2).
        ("delay open time", peer.delay_open, (0, 240)),
        ("idle hold time", peer.idle_hold, (1, MAX_IDLE_HOLD.as_secs())),
        ("keepalive time", peer.keepalive.unwrap_or(Duration::from_secs(1)), (1, 21_845)),
        ("advertisement interval", peer.advertisement_interval, (0, 600)),
    ] {
        let range = (Duration::from_secs(least), Duration::from_secs(most));
        if !(range.0..=range.1).contains(&value) {
            return Err(ConfigError::Timer { name: name(), timer, value, range });
        }
    }
    if let Some(restart_time) = peer.restart_time
        && !(Duration::from_secs(1)..=MAX_RESTART_TIME).contains(&restart_time)
    {
        return Err(ConfigError::RestartTime { name: name(), restart_time });
    }
    if peer.families.as_deref().is_some_and(|families| !are_families(families)) {
        return Err(ConfigError::Families { name: name() });
    }
    Ok(())
}

fn are_families(families: &[Family]) -> bool {
    let known = |family: &Family| matches!(*family, Family::IPV4_UNICAST | Family::IPV6_UNICAST);
    let distinct: BTreeSet<_> = families.iter().collect();
    !families.is_empty() && families.iter().all(known) && distinct.len() == families.len()
}
