//! What the speaker is told: its identity and its neighbours.

mod check;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

pub use self::check::{ConfigError, validate};

/// The speaker's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeakerConfig {
    /// Our AS number, never 0 (RFC 7607).
    pub asn: u32,
    /// BGP identifier, never 0.0.0.0 (RFC 6286).
    pub router_id: Ipv4Addr,
    /// Paths that carry traffic together at most (ECMP), 1 to 256.
    pub max_paths: usize,
}

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
    /// Never connect, only accept (RFC 4271 §8.1.1, PassiveTcpEstablishment).
    pub passive: bool,
    /// Proposed hold time: zero, or at least 3 s (RFC 4271 §4.2).
    pub hold_time: Duration,
    /// ConnectRetryTime.
    pub connect_retry: Duration,
    /// What is accepted (RFC 8212: nothing unless said).
    pub import: Import,
    /// What is advertised (RFC 8212: nothing unless said).
    pub export: Export,
    /// Advertise ourselves as next hop of learned routes too.
    pub next_hop_self: bool,
}

/// What is accepted from a neighbour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Import {
    /// Nothing.
    #[default]
    None,
    /// Every valid route.
    All,
}

/// What is advertised to a neighbour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Export {
    /// Nothing.
    #[default]
    None,
    /// Only routes that we originate: VIPs.
    Vips,
    /// Those, and best paths learned from others.
    All,
}
