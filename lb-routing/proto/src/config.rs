//! What the speaker is told: its identity and its neighbours.

mod check;
mod listen;

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

pub(crate) use self::check::MAX_PEERS;
pub use self::check::{ConfigError, validate};
pub use self::listen::{Listen, ListenError, MAX_DYNAMIC, validate_listens};
use crate::fib::Install;
use crate::policy::Chain;
use crate::wire::Family;

/// Paths of one prefix that a neighbour is told, or that are taken from one, at most (RFC 7911).
pub const MAX_PATHS_PER_PREFIX: u8 = 64;

/// The speaker's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeakerConfig {
    /// Our AS number, never 0 (RFC 7607).
    pub asn: u32,
    /// BGP identifier, never 0.0.0.0 (RFC 6286).
    pub router_id: Ipv4Addr,
    /// Paths that carry traffic together at most (ECMP), 1 to 256.
    pub max_paths: usize,
    /// The cluster that we reflect routes for (RFC 4456 §7), never 0.0.0.0; our identifier if none.
    pub cluster_id: Option<Ipv4Addr>,
    /// How the best path is found.
    pub decision: Decision,
}

/// What the decision process (RFC 4271 §9.1.2.2) leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// MED counts between paths of different neighbouring ASes, too.
    pub always_compare_med: bool,
    /// A missing MED is the worst one, not the best.
    pub med_missing_as_worst: bool,
    /// Between external paths the identifiers decide (RFC 4271); otherwise the one stays that is the best already, so that
    /// routes move less (RFC 5004).
    pub compare_router_id: bool,
    /// Internal paths that carry traffic together at most, 1 to 256; [`SpeakerConfig::max_paths`] if none.
    pub max_paths_internal: Option<usize>,
    /// Internal paths carry traffic beside external ones that are as good up to that step.
    pub mixed_multipath: bool,
}

impl Decision {
    /// As RFC 4271 says.
    pub const USUAL: Self = Self {
        always_compare_med: false,
        med_missing_as_worst: false,
        compare_router_id: true,
        max_paths_internal: None,
        mixed_multipath: false,
    };
}

impl SpeakerConfig {
    /// A speaker with the defaults.
    #[must_use]
    pub const fn new(asn: u32, router_id: Ipv4Addr) -> Self {
        Self { asn, router_id, max_paths: 64, cluster_id: None, decision: Decision::USUAL }
    }

    /// The cluster that we reflect routes for.
    pub(crate) fn cluster_id(&self) -> Ipv4Addr {
        self.cluster_id.unwrap_or(self.router_id)
    }
}

/// The longest rest of a session that fails again and again.
pub const MAX_IDLE_HOLD: Duration = Duration::from_secs(120);

/// Restart Time, unless told otherwise.
pub const RESTART_TIME: Duration = Duration::from_secs(120);

/// A neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// A name for people.
    pub name: String,
    /// Its address: the key; one neighbour per address.
    pub address: IpAddr,
    /// Its TCP port.
    pub port: u16,
    /// The address that we connect from, if it matters.
    pub source: Option<IpAddr>,
    /// Its AS number; ours makes the session internal.
    pub asn: u32,
    /// Where it may have one of several, `asn` among them: it has the one that its OPEN says. Empty: only `asn`.
    pub asns: Vec<RangeInclusive<u32>>,
    /// Never connect, only accept (RFC 4271 §8.1.1, PassiveTcpEstablishment).
    pub passive: bool,
    /// Proposed hold time: zero, or at least 3 s (RFC 4271 §4.2).
    pub hold_time: Duration,
    /// ConnectRetryTime.
    pub connect_retry: Duration,
    /// KeepaliveTime; `None`, or above it: a third of the hold time that both agree on (RFC 4271 §4.4).
    pub keepalive: Option<Duration>,
    /// DelayOpenTime: how long the neighbour may send its OPEN before we send ours (RFC 4271 §8.1.1); zero: it is not
    /// waited for.
    pub delay_open: Duration,
    /// IdleHoldTime after a first failure; it doubles with each, up to [`MAX_IDLE_HOLD`] (RFC 4271 §8.1.1).
    pub idle_hold: Duration,
    /// MinRouteAdvertisementInterval (RFC 4271 §9.2.1.1): changes are told no more often; zero: at once.
    pub advertisement_interval: Duration,
    /// Families that we offer; `None`: IPv4 and IPv6 unicast, whichever the neighbour speaks too.
    pub families: Option<Vec<Family>>,
    /// Graceful restart (RFC 4724): how long we may take to come back, 4095 s at most, while the neighbour keeps our
    /// routes as we keep its own. `None`: routes end with their session, on both sides.
    pub restart_time: Option<Duration>,
    /// What is accepted (RFC 8212: nothing unless said).
    pub import: Import,
    /// What is advertised (RFC 8212: nothing unless said).
    pub export: Export,
    /// Which tables have the routes that it tells us, where its import policies don't say.
    pub install: Install,
    /// Advertise ourselves as next hop of learned routes too.
    pub next_hop_self: bool,
    /// Reflect our AS's routes to it, and its to our AS (RFC 4456): it is in our AS, and need not know the others there.
    pub route_reflector_client: bool,
    /// Take several paths of a prefix from it (RFC 7911), [`MAX_PATHS_PER_PREFIX`] at most.
    pub add_path_receive: bool,
    /// Paths of a prefix that it is told at most (RFC 7911), the best ones; 0 and 1: only the best one.
    pub add_path_send: u8,
    /// Keep what import does not accept, so that it can be shown: a million paths at most.
    pub keep_rejected: bool,
    /// How many prefixes it may tell; without, as many as the table takes from one neighbour.
    pub max_prefixes: Option<MaxPrefixes>,
    /// Our AS number in its eyes, instead of [`SpeakerConfig::asn`]: it alone stands in OPEN and in paths.
    pub local_as: Option<u32>,
    /// Take private AS numbers (RFC 6996) out of the paths that it is told, if it is external.
    pub remove_private_as: bool,
    /// How often our own AS may stand in a path that it tells us.
    pub allow_as_in: u8,
    /// Withdraw routes whose path has an AS_SET (RFC 9774).
    pub reject_as_set: bool,
    /// No session, and what it is told of that (RFC 9003); `None`: a session.
    pub shutdown: Option<String>,
    /// What it is told from us will go soon (RFC 8326).
    pub graceful_shutdown: bool,
}

impl PeerConfig {
    /// A neighbour with the defaults: nothing is accepted from it and nothing advertised to it.
    #[must_use]
    pub fn new(address: IpAddr, asn: u32) -> Self {
        Self {
            name: address.to_string(),
            address,
            port: 179,
            source: None,
            asn,
            asns: Vec::new(),
            passive: false,
            hold_time: Duration::from_secs(90),
            connect_retry: Duration::from_secs(5),
            keepalive: None,
            delay_open: Duration::ZERO,
            idle_hold: Duration::from_secs(1),
            advertisement_interval: Duration::ZERO,
            families: None,
            restart_time: Some(RESTART_TIME),
            import: Import::None,
            export: Export::None,
            install: Install::Both,
            next_hop_self: false,
            route_reflector_client: false,
            add_path_receive: false,
            add_path_send: 0,
            keep_rejected: false,
            max_prefixes: None,
            local_as: None,
            remove_private_as: false,
            allow_as_in: 0,
            reject_as_set: false,
            shutdown: None,
            graceful_shutdown: false,
        }
    }

    /// Whether another session is needed than one under `old`.
    pub(crate) fn connects_otherwise(&self, old: &Self) -> bool {
        let of = |peer: &Self| {
            let add_path = (peer.add_path_receive, peer.add_path_send > 1);
            (peer.asn, peer.local_as, peer.port, peer.source, add_path)
        };
        of(self) != of(old) || self.families != old.families
    }

    /// Whether it may be told something else than under `old`.
    pub(crate) fn exports_otherwise(&self, old: &Self) -> bool {
        let of = |peer: &Self| {
            let reflects = peer.route_reflector_client;
            let paths = peer.add_path_send;
            (peer.next_hop_self, peer.remove_private_as, peer.graceful_shutdown, reflects, paths)
        };
        let interval = |peer: &Self| peer.advertisement_interval;
        self.export != old.export || of(self) != of(old) || interval(self) != interval(old)
    }

    /// Whether something else may be accepted from it than under `old`.
    pub(crate) fn imports_otherwise(&self, old: &Self) -> bool {
        let of = |peer: &Self| (peer.allow_as_in, peer.reject_as_set, peer.install);
        self.import != old.import || of(self) != of(old)
    }

    /// Whether routes of it may be in the dataplane alone.
    #[must_use]
    pub fn may_install_apart(&self) -> bool {
        let by_policy = match &self.import {
            Import::None | Import::All => false,
            Import::Policies(chain) => chain.may_install(Install::Dataplane),
        };
        by_policy || (self.install == Install::Dataplane && self.import != Import::None)
    }

    /// Whether it may have this AS number.
    pub(crate) fn may_be(&self, asn: u32) -> bool {
        let listed = self.asns.iter().any(|range| range.contains(&asn));
        asn == self.asn || (listed && check::check_as(asn).is_ok())
    }

    /// Our AS number on its session.
    pub(crate) fn our_as(&self, speaker: &SpeakerConfig) -> u32 {
        self.local_as.unwrap_or(speaker.asn)
    }

    /// Whether it is in another AS.
    pub(crate) fn is_external(&self, speaker: &SpeakerConfig) -> bool {
        self.asn != self.our_as(speaker)
    }
}

/// How many prefixes a neighbour may tell that import accepts, of all families together. With several paths of a prefix (RFC 7911) each counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPrefixes {
    /// So many are fine, at least 1.
    pub limit: u32,
    /// From so many percent of the limit on a warning is given, 1 to 100.
    pub warn_percent: u8,
    /// What happens beyond the limit.
    pub beyond: BeyondLimit,
}

impl MaxPrefixes {
    /// So many prefixes are worth a warning.
    pub(crate) fn warns_at(&self) -> u64 {
        (u64::from(self.limit) * u64::from(self.warn_percent)).div_ceil(100)
    }
}

/// What happens when a neighbour tells more prefixes than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeyondLimit {
    /// The session ends with Cease / Maximum Number of Prefixes Reached (RFC 4486), and begins again after this time, or
    /// (none) when somebody clears it.
    End(Option<Duration>),
    /// It is said, and they are taken.
    Warn,
    /// It is said, and they are not taken.
    Discard,
}

/// What is accepted from a neighbour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Import {
    /// Nothing.
    #[default]
    None,
    /// Every valid route.
    All,
    /// What policies accept of those.
    Policies(Chain),
}

/// What is advertised to a neighbour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Export {
    /// Nothing.
    #[default]
    None,
    /// Only routes that we originate: VIPs.
    Vips,
    /// Those, and best paths learned from others.
    All,
    /// What policies accept of all those.
    Policies(Chain),
}
