//! The service table: what the dataplane is to serve, as plain values.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZero;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use lb_dataplane_common::flow::{ICMP, ICMP6, SCTP, TCP, UDP};

/// Everything that is to be served. Applied as a whole; the difference to what is served now is the work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Services by what clients connect to.
    pub services: BTreeMap<ServiceKey, Service>,
}

/// What changes in a [`Table`]. Applied as a whole; what it does not name stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Services as they are to be, and `None` for those that go.
    pub services: BTreeMap<ServiceKey, Option<Service>>,
}

/// What clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The virtual address.
    pub address: IpAddr,
    /// The port, or the first of several; never 0.
    pub port: u16,
    /// The transport.
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP, by one address of either side (RFC 9260).
    Sctp,
    /// Echo requests of ICMP, or of ICMPv6 where the address is of IPv6. Their service has port 0.
    Icmp,
}

impl Protocol {
    /// The IP protocol number in a family.
    #[must_use]
    pub const fn number(self, is_v4: bool) -> u8 {
        match self {
            Self::Tcp => TCP,
            Self::Udp => UDP,
            Self::Sctp => SCTP,
            Self::Icmp if is_v4 => ICMP,
            Self::Icmp => ICMP6,
        }
    }

    /// That of an IP protocol number, if flows have it.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            TCP => Some(Self::Tcp),
            UDP => Some(Self::Udp),
            SCTP => Some(Self::Sctp),
            ICMP | ICMP6 => Some(Self::Icmp),
            _ => None,
        }
    }

    /// Its name in small letters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Icmp => "icmp",
        }
    }
}

/// How a service chooses, and among whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// How many ports follow the first one. Each leads to the port of a backend that is as far from the backend's first.
    pub more_ports: u16,
    /// The choice for a new flow.
    pub algorithm: Algorithm,
    /// Slots of the ring where a hash chooses: a prime, such as those of [`crate::maglev::SIZES`]. As many as there are backends for
    /// by default ([`crate::maglev::size_for`]), whatever their state. Another size is another choice for nearly all flows.
    pub table_size: Option<NonZero<u32>>,
    /// For how many ticks a client is given to the backend of its last flow.
    pub affinity: Option<NonZero<u32>>,
    /// Backends in a stable order. Empty, or none that takes new flows: new flows are refused.
    pub backends: Vec<Backend>,
    /// Who may begin flows: of the prefixes that hold a client's address the longest says whether it may. A client that none
    /// holds may unless some prefix admits.
    pub access: Arc<[Access]>,
    /// Flows at most, those that are not answered yet included; beyond, new ones are refused.
    pub max_flows: Option<NonZero<u32>>,
    /// Flows of a client's address at most.
    pub max_flows_per_client: Option<NonZero<u32>>,
    /// How packets reach a backend.
    pub mode: Mode,
    /// Whether a new flow that finds no room in the flow table is forwarded without being there; else it is refused. Only with
    /// a choice by hash alone, and a mode in which backends answer clients themselves, or see clients' own addresses at one port of
    /// TCP or UDP and are in no other service.
    pub hashes_when_full: bool,
    /// For how many ticks its flows may be silent; what holds for all flows by default.
    pub idle: Option<NonZero<u32>>,
    /// Whether both sides of a flow that ends for having been silent hear a RST. Only TCP's, and only where both directions
    /// are seen.
    pub resets_idle: bool,
    /// What becomes of a failed backend's flows; by default those of TCP and SCTP stay and UDP's end.
    pub when_failed: Option<WhenFailed>,
    /// What the client hears of a new flow for which no source port is free.
    pub on_exhaustion: OnExhaustion,
    /// The largest segment size that TCP's SYNs may announce, both ways; any by default.
    pub mss_clamp: Option<MssClamp>,
    /// Whether flows to a backend come from this host's own addresses, and from ports that its connections do not use: those of
    /// its `sources` that are this host's, or with none the one on the way there.
    pub one_arm: bool,
}

impl Service {
    /// Whether this host's own address on the way to a backend is needed.
    #[must_use]
    pub fn needs_own_address(&self) -> bool {
        self.one_arm || matches!(self.mode, Mode::IpInIp | Mode::Gue)
    }

    /// Whether what its backends get depends on this host's routes and addresses.
    #[must_use]
    pub fn follows_routes(&self) -> bool {
        self.one_arm
            || self.mode != Mode::Nat
            || self.backends.iter().any(|backend| !backend.sources.is_empty())
    }
}

/// A bound on the segment sizes that SYNs announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MssClamp {
    /// What fits through the link that a SYN came in by and through its way out.
    Auto,
    /// This, below 65,535.
    Most(NonZero<u16>),
}

/// What becomes of a backend's flows when its health checks fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFailed {
    /// They stay until they end or fall silent.
    Keep,
    /// They end with the next scan of the flow table.
    Drop,
    /// They end so, and both sides hear a RST. As with `resets_idle`.
    Reset,
}

/// What a client hears of a new flow for which no source port is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExhaustion {
    /// Nothing.
    #[default]
    Drop,
    /// A RST; of a datagram nothing.
    Reset,
    /// An ICMP error.
    Icmp,
}

/// How packets reach a backend, and answers the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Translated, and the answers back.
    #[default]
    Nat,
    /// As they came, in a frame to the backend's MAC; it answers the client itself, as with all that follow.
    L2,
    /// Within other packets: IP in IP (RFC 2003), or IPv6 in IPv6 (RFC 2473).
    IpInIp,
    /// Within datagrams to port 6080 (GUE, variant 1).
    Gue,
}

/// What a service says of the clients in a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Access {
    /// Their addresses.
    pub prefix: IpNetwork,
    /// Whether they may begin flows.
    pub is_admitted: bool,
}

/// How a backend is chosen for a new flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// Maglev hashing (Eisenbud et al., NSDI 2016).
    #[default]
    Maglev,
    /// One after the other.
    RoundRobin,
    /// Of two at random, those with a greater weight more often, the one with fewer flows for its weight.
    LeastConnections,
    /// Maglev hashing of the client's address alone.
    SourceHash,
}

/// Where a flow goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Its address.
    pub address: IpAddr,
    /// Its port, or the first of several.
    pub port: u16,
    /// Its share of new flows beside others', at least 1.
    pub weight: u8,
    /// What flows it is given, and keeps.
    pub state: BackendState,
    /// Flows at most; beyond, new ones go to others.
    pub max_flows: Option<NonZero<u32>>,
    /// Where its new flows come from; with none they keep their clients' addresses and ports. Of an address that is this host's own
    /// only ports are taken that its connections do not use. With a tunnel, where the
    /// packets around theirs come from; with none this host's own address on the way there.
    pub sources: Arc<[Source]>,
}

/// An address of ours that flows to a backend come from, and those of its ports that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// The address.
    pub address: IpAddr,
    /// The first port, never 0.
    pub first_port: u16,
    /// The last port.
    pub last_port: u16,
}

/// What flows a backend is given, and keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BackendState {
    /// New flows, and those that it has.
    Active,
    /// Those that it has.
    Draining,
    /// No new ones. Of those that it has, TCP's stay unless the service says otherwise, since a health check may be wrong
    /// about a connection; UDP's end, and a client that goes on is given to another backend.
    Failed,
}

impl Backend {
    /// Whether it takes new flows.
    #[must_use]
    pub fn takes_new_flows(&self) -> bool {
        self.state == BackendState::Active
    }
}
