//! The VIP resource: one address, port and protocol, and the backends behind it.

mod health_check;
mod life;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

pub use self::health_check::{HealthCheck, HealthCheckKind};
pub use self::life::{OnExhaustion, OnUnhealthy};
use crate::resource::Condition;
pub use crate::resource::Metadata;

/// A virtual IP service: what clients connect to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Vip {
    /// Its name.
    pub metadata: Metadata,
    /// What the operator asks for.
    pub spec: VipSpec,
    /// What holds now; ignored in requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<VipStatus>,
}

/// The desired state of a VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct VipSpec {
    /// The address that clients connect to. Where a request leaves it out, it comes from the pool; a VIP that is there
    /// keeps the one that it has.
    #[serde(default = "unspecified")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub address: IpAddr,
    /// The pool that the address is one of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The port that clients connect to, or the first of several; 1 to 65535. Not with `icmp`.
    #[serde(default, skip_serializing_if = "is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 65535))]
    pub port: u16,
    /// The last port of a range that begins with `port`, up to 65535; `port` alone by default. All ports are 1 to 65535.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 65535))]
    pub last_port: Option<u16>,
    /// `tcp` (the default), `udp`, `sctp` or `icmp`.
    #[serde(default)]
    pub protocol: Protocol,
    /// How a backend is chosen for a new flow.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// Seconds after a client's last new flow in which the next one goes to the same backend, if it can: 1 to 86,400; none by
    /// default. lbd remembers 65,536 clients, the longest unseen is forgotten first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 86_400))]
    pub affinity_secs: Option<u32>,
    /// Slots of the table that `maglev` and `source-hash` choose from: 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071, 262139
    /// or 524287. By default as many as backends are listed for, 100 slots each at least: 1021 up to 10 backends, 4093 up to 40,
    /// 16381 up to 163, 65521 up to 655, 262139 up to 2621, and 524287. Another size is another choice for nearly all flows that
    /// are in no flow table: say one where the list of backends will grow beyond such a number. The same on all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1021, maximum = 524_287))]
    pub maglev_table_size: Option<u32>,
    /// Flows at most; beyond, new ones are refused. No bound by default. A connection counts from the end of its handshake until it
    /// is closed, other flows from when a backend has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1_000_000_000))]
    pub max_flows: Option<u32>,
    /// Flows of one client's address at most, of those that begin while this is set; no bound by default. Of
    /// `dataplane.max_counted_clients` clients the flows are counted at a time; more are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1_000_000_000))]
    pub max_flows_per_client: Option<u32>,
    /// Seconds for which a flow may be silent, 1 to 604,800; the configuration's time-outs by default. It takes the place of
    /// those of flows at work, and bounds the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 604_800))]
    pub idle_timeout_secs: Option<u32>,
    /// Whether both sides of a flow that ends for having been silent hear a RST. Only with TCP, and not with direct server
    /// return.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reset_on_expiry: bool,
    /// What becomes of a backend's flows when its health checks fail: by default those of TCP and SCTP stay and UDP's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_unhealthy: Option<OnUnhealthy>,
    /// The largest segment size that TCP's SYNs may announce, both ways: `auto`, what fits through the links here, or 536 to
    /// 65,000 bytes; as they come by default. Only with TCP, and not with direct server return.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mss_clamp: Option<MssClamp>,
    /// Who may begin flows; everybody by default.
    #[serde(default, skip_serializing_if = "Access::is_open")]
    pub access: Access,
    /// What becomes of a new flow that finds no room in the flow table.
    #[serde(default, skip_serializing_if = "FullTable::is_default")]
    pub full_table: FullTable,
    /// Where packets to a backend come from; the client's own address by default.
    #[serde(default)]
    pub nat: Nat,
    /// Where flows go; at least one.
    #[cfg_attr(feature = "openapi", schema(min_items = 1))]
    pub backends: Vec<Backend>,
    /// How each backend is checked; a TCP connect by default.
    #[serde(default)]
    pub health_check: HealthCheck,
    /// Whether BGP advertises the address while the VIP is healthy; true by default, but false with `icmp`.
    #[serde(default = "yes")]
    pub advertise: bool,
    /// Interfaces, by name or pattern (`eth*`), on whose links ARP and neighbour discovery are answered for the address while
    /// the VIP is healthy: where it is of the clients' own network. One node of a link at most; none by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub announce_on: Vec<String>,
}

impl NatMode {
    /// Whether backends answer clients themselves.
    #[must_use]
    pub fn is_dsr(self) -> bool {
        matches!(self, Self::Dsr | Self::DsrIpip | Self::DsrGue)
    }
}

impl VipSpec {
    /// The last port that clients connect to.
    #[must_use]
    pub fn last_port(&self) -> u16 {
        self.last_port.unwrap_or(self.port)
    }

    /// Its ports as people write them: `80`, or `8000-8999`.
    #[must_use]
    pub fn ports(&self) -> String {
        match self.last_port {
            _ if self.port == 0 => "-".to_owned(),
            Some(last) if last > self.port => format!("{}-{last}", self.port),
            Some(_) | None => self.port.to_string(),
        }
    }

    /// Whether what its backends send from their ports is its answer, whoever it is to: they are in no other VIP then.
    #[must_use]
    pub fn answers_alone(&self) -> bool {
        self.full_table == FullTable::Hash && !self.nat.mode.is_dsr()
    }

    /// What of its address it takes, in words: `tcp port 80`, or `icmp`.
    #[must_use]
    pub fn taken(&self) -> String {
        match self.protocol {
            Protocol::Icmp => self.protocol.name().to_owned(),
            Protocol::Tcp | Protocol::Udp | Protocol::Sctp => {
                format!("{} port {}", self.protocol.name(), self.ports())
            }
        }
    }

    /// Whether two VIPs have a port in common, or both take echoes.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.address == other.address
            && self.protocol == other.protocol
            && self.port <= other.last_port()
            && other.port <= self.last_port()
    }
}

/// A transport protocol.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP, by one address of either side: those that an INIT lists are taken out, unless backends answer clients themselves.
    Sctp,
    /// Echo requests to the address (ICMP, or ICMPv6), given to backends; without such a VIP lbd answers them itself. It has
    /// no ports.
    Icmp,
}

impl Protocol {
    /// Its name, as files and requests have it.
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

/// A bound on the segment sizes that SYNs announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum MssClamp {
    /// What fits through the link that a SYN came in by and through its way out.
    Auto(MssAuto),
    /// So many bytes.
    Bytes(u16),
}

/// The word for a bound that follows the links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum MssAuto {
    /// What fits.
    Auto,
}

/// How a backend is chosen for a new flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Consistent hashing of the 5-tuple (Maglev, NSDI 2016): the same choice on every node.
    #[default]
    Maglev,
    /// One backend after the other.
    RoundRobin,
    /// Of two backends that chance names, the one with fewer flows for its weight.
    LeastConnections,
    /// Consistent hashing of the client's address: all of a client's flows go to one backend, on every node.
    SourceHash,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Maglev => "maglev",
            Self::RoundRobin => "round-robin",
            Self::LeastConnections => "least-connections",
            Self::SourceHash => "source-hash",
        })
    }
}

/// Who may begin flows: of the listed prefixes that hold a client's address the longest says whether it may. A client that
/// none holds may, unless `allow` lists any. Flows that there are go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Access {
    /// Clients that may.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub allow: Vec<IpNetwork>,
    /// Clients that may not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub deny: Vec<IpNetwork>,
}

impl Access {
    /// Whether everybody may.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }
}

/// What becomes of a new flow that finds no room in the flow table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum FullTable {
    /// Its packets are dropped.
    #[default]
    Drop,
    /// Its packets go to the backend that their hash names, each by itself, so a change of the backends may move the flow. Only
    /// with `maglev` or `source-hash` without affinity and bounds of backends, and with a mode of direct server return; or with
    /// `dnat`, one port of `tcp` or `udp`, and backends whose address and port no other VIP has. For two hours after the last such packet
    /// (the time-out of established connections) all that comes from there, but for what is to this host, leaves as the VIP's.
    Hash,
}

impl FullTable {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    fn is_default(&self) -> bool {
        *self == Self::Drop
    }
}

/// What a backend sees as the source of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Nat {
    /// `dnat` (the default), `full-nat`, `one-arm`, `dsr`, `dsr-ipip` or `dsr-gue`.
    pub mode: NatMode,
    /// Where flows come from, of the family of the backends. With `full-nat` addresses that are routed to this host, the VIP's own if
    /// there are none; with `one-arm` any that are this host's own, that on the way to the backend if there are none. Of an address
    /// that is this host's own, with either, only ports are used that the kernel gives to no connection of this host:
    /// `net.ipv4.ip_local_port_range` and `ip_local_reserved_ports` say which.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub source_addresses: Vec<IpAddr>,
    /// With `full-nat` and `one-arm`, what a client hears for whom no source port is free: `drop` (nothing, the default),
    /// `reset` or `icmp`.
    #[serde(skip_serializing_if = "OnExhaustion::is_default")]
    pub on_exhaustion: OnExhaustion,
}

/// How packets are translated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum NatMode {
    /// The backend sees the client's address; its answers have to come back this way.
    #[default]
    Dnat,
    /// The backend sees the VIP or one of `source_addresses`.
    FullNat,
    /// The backend sees this host's own address on the way to it, or others of its own that `source_addresses` name.
    OneArm,
    /// The backend gets packets as they came, in frames to its MAC, and answers clients itself: it is on a link of this host
    /// and holds the VIP's address, for which it answers no ARP. Ports stay as they are.
    Dsr,
    /// The backend gets packets as they came within others, IP in IP (RFC 2003) or IPv6 in IPv6 (RFC 2473), and answers clients
    /// itself: it takes them out of an `ipip` or `ip6tnl` device and holds the VIP's address. Ports stay as they are.
    DsrIpip,
    /// The same within datagrams to port 6080 (GUE variant 1), which `ip fou add port 6080 ipproto 4` (41 for IPv6, with
    /// `udp6zerocsumrx` at the device) takes out. Ports stay as they are.
    DsrGue,
}

/// One place where flows of a VIP go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Its address. With `one-arm`, or `full-nat` and source addresses of its family, it may be of the other family than the
    /// VIP's: packets are then translated between IPv4 and IPv6 (RFC 7915).
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub address: IpAddr,
    /// Its port, 1 to 65535. With a range of ports the one that the VIP's first port leads to; the others follow in order. Not
    /// with `icmp`.
    #[serde(default, skip_serializing_if = "is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 65535))]
    pub port: u16,
    /// Its share of new flows beside the others', 1 (the default) to 255.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 255))]
    pub weight: u8,
    /// Flows at most; beyond, new ones go to other backends. No bound by default. With a bound on any backend a connection
    /// that began on another node cannot go on here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1_000_000_000))]
    pub max_flows: Option<u32>,
    /// Whether it is given no new flows; those that it has go on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drain: bool,
    /// Whether it is out of use: no flows, no health checks, as if it were not listed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}

fn one() -> u8 {
    1
}

/// Whether there is no port.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_none(port: &u16) -> bool {
    *port == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_one(weight: &u8) -> bool {
    *weight == 1
}

/// What holds of a VIP now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VipStatus {
    /// `Serving`, `Advertised` and `BackendsHealthy`.
    pub conditions: Vec<Condition>,
    /// Whether the dataplane serves it.
    pub serving: bool,
    /// Whether BGP advertises its address.
    pub advertised: bool,
    /// One sentence: why it is or is not advertised.
    pub message: String,
    /// Its backends, in the spec's order.
    pub backends: Vec<BackendStatus>,
    /// Packets from clients that were sent to a backend.
    pub packets: u64,
    /// Bytes of these packets' frames.
    pub bytes: u64,
    /// Packets from backends that were sent to a client; none where backends answer clients themselves.
    pub reply_packets: u64,
    /// Bytes of these packets' frames.
    pub reply_bytes: u64,
    /// Flows begun.
    pub flows: u64,
    /// Half-open flows that had to make room for others, as in a flood.
    pub evicted_flows: u64,
    /// New flows for which no source port was free.
    pub exhausted_flows: u64,
}

/// What holds of a backend now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackendStatus {
    /// Its address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// What its health check found.
    pub health: Health,
    /// Why, in words: the last check's error; empty when healthy.
    pub message: String,
    /// Packets sent to it.
    pub packets: u64,
    /// Bytes of these packets' frames.
    pub bytes: u64,
    /// Packets from it that were sent to a client; none where it answers clients itself.
    pub reply_packets: u64,
    /// Bytes of these packets' frames.
    pub reply_bytes: u64,
    /// Flows begun to it.
    pub flows: u64,
    /// Open flows: those that bounds go by.
    pub active_flows: u64,
    /// Half-open flows, which are not yet open and may be nobody's; they make room for one another.
    pub half_open_flows: u64,
    /// New flows to it for which no source port was free.
    pub exhausted_flows: u64,
}

/// A backend's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Not enough checks have spoken yet.
    Unknown,
    /// It takes new flows.
    Healthy,
    /// It takes no new flows.
    Unhealthy,
}

fn unspecified() -> IpAddr {
    Ipv4Addr::UNSPECIFIED.into()
}

fn yes() -> bool {
    true
}
