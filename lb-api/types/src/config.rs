//! The daemon's configuration file. Every field has a default; an empty file starts a working daemon.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::access::Role;
use crate::bgp::GlobalSpec;
use crate::peer::{BgpPeer, PeerGroup};
#[cfg(feature = "openapi")]
use crate::peer::{Group, Peer};
use crate::policy::{BgpPolicy, BgpSet};
#[cfg(feature = "openapi")]
use crate::policy::{Policy, Set};
use crate::resource::{NamedHealthCheck, Node, Pool};
use crate::route::{Address, StaticRoute};
use crate::vip::Vip;

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = File))]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The BGP speaker.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Bgp>))]
    pub bgp: Bgp,
    /// The packet path.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Dataplane>))]
    pub dataplane: Dataplane,
    /// Where the REST API listens.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Api>))]
    pub api: Api,
    /// Who the daemon runs as, by name or number, once it is started as root: `lbd` by default, if that user exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where state that survives a restart is kept.
    pub state_dir: StateDir,
    /// Addresses for VIPs made over REST to be given.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<Pool>>))]
    pub pools: Vec<Pool>,
    /// Health checks that VIPs name.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<NamedHealthCheck>>))]
    pub health_checks: Vec<NamedHealthCheck>,
    /// This node, `local`, where the file says something of it.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<Node>>))]
    pub nodes: Vec<Node>,
    /// Addresses that interfaces of this host are to have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<Address>>))]
    pub addresses: Vec<Address>,
    /// Routes beside those of BGP.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<StaticRoute>>))]
    pub static_routes: Vec<StaticRoute>,
    /// VIPs that exist from the start; those made over REST come on top.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<Vip>>))]
    pub vips: Vec<Vip>,
}

/// Where state that survives a restart is kept: `/var/lib/lbd` by default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String))]
#[serde(transparent)]
pub struct StateDir(pub PathBuf);

impl Default for StateDir {
    fn default() -> Self {
        Self("/var/lib/lbd".into())
    }
}

/// How the file writes what BGP names: as every resource is written, or for short.
#[cfg(feature = "openapi")]
#[derive(Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Written<Whole, Short> {
    /// `{metadata: {name: …}, spec: {…}}`
    Whole(Whole),
    /// `{name: …, …}`
    Short(Short),
}

/// The BGP speaker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Bgp {
    /// Our AS number; 64512 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// BGP identifier; by default the highest IPv4 address of this host's interfaces.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub router_id: Option<Ipv4Addr>,
    /// The cluster that we reflect routes for (RFC 4456), where it has several reflectors: they all name the same one. Our
    /// identifier by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub cluster_id: Option<Ipv4Addr>,
    /// How the best path is found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// Where sessions are accepted; `0.0.0.0:179` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub listen: Option<SocketAddr>,
    /// Labels of what BGP has in common for all neighbours.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Sets that policies name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<Written<Set, BgpSet>>>))]
    pub sets: Vec<BgpSet>,
    /// Policies that neighbours name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<Written<Policy, BgpPolicy>>>))]
    pub policies: Vec<BgpPolicy>,
    /// Options that neighbours have in common.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<Written<Group, PeerGroup>>>))]
    pub peer_groups: Vec<PeerGroup>,
    /// The neighbours.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<Written<Peer, BgpPeer>>>))]
    pub peers: Vec<BgpPeer>,
}

impl Bgp {
    /// What it says of all neighbours.
    #[must_use]
    pub fn global(&self) -> GlobalSpec {
        let Self { asn, router_id, cluster_id, decision, listen, .. } = *self;
        GlobalSpec { asn, router_id, cluster_id, decision, listen }
    }

    /// The same with another word on all neighbours.
    #[must_use]
    pub fn with_global(self, said: GlobalSpec) -> Self {
        let GlobalSpec { asn, router_id, cluster_id, decision, listen } = said;
        Self { asn, router_id, cluster_id, decision, listen, ..self }
    }
}

/// How the best path to a prefix is found, and how many carry traffic together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Decision {
    /// MED counts between paths of different neighbouring ASes, too.
    pub always_compare_med: bool,
    /// A missing MED is the worst one, not the best.
    pub med_missing_as_worst: bool,
    /// Between equal external paths the lowest router id wins; otherwise the one that is the best already.
    pub compare_router_id: bool,
    /// Paths that carry traffic together at most (ECMP), 1 to 256; 64 by default.
    pub max_paths: u16,
    /// The same of paths from inside our AS; `max_paths` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_paths_internal: Option<u16>,
    /// Paths from inside our AS carry traffic beside external ones.
    pub mixed_multipath: bool,
}

impl Default for Decision {
    fn default() -> Self {
        Self {
            always_compare_med: false,
            med_missing_as_worst: false,
            compare_router_id: true,
            max_paths: 64,
            max_paths_internal: None,
            mixed_multipath: false,
        }
    }
}

/// The packet path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Dataplane {
    /// Where programs attach.
    pub hook: Hook,
    /// How XDP runs, where the hook is `xdp`.
    pub xdp_mode: XdpMode,
    /// Interfaces to attach to: names, or patterns with `*`. Empty by default: none.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<String>>))]
    pub interfaces: Vec<String>,
    /// Veths whose other end, in another network namespace, TC hands packets to without queueing them on the way, where nothing
    /// would change them there: names, or patterns with `*`. Empty by default: none. Their own end neither counts nor shows
    /// such packets.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<String>>))]
    pub redirect_to_peer: Vec<String>,
    /// A folder on a bpffs, outside `/sys`, where programs, links and maps are pinned; mounted if it is not one.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub pin_dir: PathBuf,
    /// Flow entries, two per flow: so many find room, and up to a third more. 262,144 by default, at most 8,388,608.
    #[cfg_attr(feature = "openapi", schema(minimum = 1024, maximum = 8_388_608))]
    pub max_flow_entries: u32,
    /// The same for flows of IPv6; 131,072 by default.
    #[cfg_attr(feature = "openapi", schema(minimum = 1024, maximum = 8_388_608))]
    pub max_flow_entries_ipv6: u32,
    /// Services: VIPs' ports and protocols; 65,536 by default, at most 65,536.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 65_536))]
    pub max_services: u32,
    /// Backends of all services; 131,072 by default, at most 4,194,304.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 4_194_304))]
    pub max_backends: u32,
    /// Slots in the rings of all services, 4 bytes each; 16,777,216 by default, at most 268,435,456.
    #[cfg_attr(feature = "openapi", schema(minimum = 1024, maximum = 268_435_456))]
    pub max_ring_slots: u32,
    /// Prefixes of IPv4 in the access lists of all services, 32 bytes each, and 64 more per service; 262,144 by default, at most
    /// 16,777,216. One of IPv6 counts as one, or where it is longer than /48 as up to five. A VIP has 16,384 at most.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 16_777_216))]
    pub max_access_prefixes: u32,
    /// Source addresses in all distinct lists of them, which are those of VIPs with `full-nat` and `one-arm`, 24 bytes each; 131,072
    /// by default, at most 1,048,576.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1_048_576))]
    pub max_source_addresses: u32,
    /// Clients whose flows are counted at a time, of VIPs with `max_flows_per_client`, about 80 bytes each while they have flows;
    /// 262,144 by default, at most 8,388,608. Others are refused (`clients-full`): with as many as half of all flow entries it
    /// comes to that never.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 8_388_608))]
    pub max_counted_clients: u32,
    /// Clients whose backend is remembered at a time, of VIPs with `affinity_secs`, 96 bytes each; 65,536 by default, at most
    /// 8,388,608. Beyond, the one that was unseen for longest is forgotten, so that its next flow may go to another backend.
    #[cfg_attr(feature = "openapi", schema(minimum = 1024, maximum = 8_388_608))]
    pub max_affinity_clients: u32,
    /// Blocks of /24 that have routes longer than that, 1 KiB each; 16,384 by default, at most 1,048,576.
    #[cfg_attr(feature = "openapi", schema(minimum = 4, maximum = 1_048_576))]
    pub max_fib_blocks: u32,
    /// Memory for routes of IPv6, in KiB: about 60 bytes each, more where they lie far apart; 32,768 by default, at most
    /// 524,288.
    #[cfg_attr(feature = "openapi", schema(minimum = 64, maximum = 524_288))]
    pub max_fib_ipv6_kib: u32,
    /// Next-hop groups: distinct sets of next hops that routes have; 65,536 by default, at most 1,048,576.
    #[cfg_attr(feature = "openapi", schema(minimum = 512, maximum = 1_048_576))]
    pub max_fib_groups: u32,
    /// Next hops of all groups: distinct pairs of interface and neighbour; 65,536 by default, at most 1,048,576.
    #[cfg_attr(feature = "openapi", schema(minimum = 1024, maximum = 1_048_576))]
    pub max_fib_next_hops: u32,
    /// Places in the tables by which flows are spread over groups of several next hops: 16 to 4,096 a group; 262,144 by
    /// default, at most 16,777,216.
    #[cfg_attr(feature = "openapi", schema(minimum = 4096, maximum = 16_777_216))]
    pub max_fib_buckets: u32,
    /// Fragments that are kept because they came before the first one of their datagram, 2 KiB each at most, an eighth of them of
    /// one sender; 256 by default, at most 65,536.
    #[cfg_attr(feature = "openapi", schema(minimum = 8, maximum = 65_536))]
    pub max_early_fragments: u32,
    /// For how many seconds they are kept, 2 to 30; 2 by default (RFC 6146 section 4, `FRAGMENT_MIN`: at least 2).
    #[cfg_attr(feature = "openapi", schema(minimum = 2, maximum = 30))]
    pub early_fragments_secs: u32,
    /// Bits of a client's IPv4 address that `max_flows_per_client` goes by: 1 to 32, which is the default. Clients that share
    /// them are one.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 32))]
    pub client_prefix_v4: u8,
    /// The same of IPv6: 1 to 128; 64 by default, since a host may take any address of its link.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 128))]
    pub client_prefix_v6: u8,
    /// Of how many new flows one is watched, for `lbctl events --flows`: 1 to 1,000,000; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1_000_000))]
    pub sample_flows: Option<u32>,
    /// How long flows may be silent, in seconds.
    pub timeouts: Timeouts,
}

/// How XDP runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver; an interface whose driver has none is not attached to.
    #[default]
    Native,
    /// Behind the driver, on every interface: slower, and without segmentation offload.
    Generic,
    /// In the driver where it can, behind it elsewhere.
    Auto,
}

/// How long flows may be silent in both directions before they are removed, in seconds: 1 to 604,800.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// TCP, the handshake done, nobody has sent a FIN; 7440 by default (RFC 5382 REQ-5: at least 2 h 4 min).
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 604_800))]
    pub tcp_established: u32,
    /// TCP, one side sent a FIN, or the client a RST; 240 by default (the same: at least 4 min).
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 604_800))]
    pub tcp_transitory: u32,
    /// TCP, both sides sent a FIN, or the backend a RST; 240 by default (the same). Down to 10 while the flow table fills: from
    /// a 32nd to an eighth of its entries.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 604_800))]
    pub tcp_closed: u32,
    /// No backend answered yet, or the handshake of TCP or SCTP is not done; 60 by default (RFC 7857 section 2.1 allows less
    /// than 4 min). One of UDP stays for `udp_answered` at least.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 604_800))]
    pub half_open: u32,
    /// UDP, answered once or not yet; 120 by default (RFC 4787 REQ-5: at least 2 min).
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 604_800))]
    pub udp_answered: u32,
    /// UDP, the client went on after an answer; 300 by default (the same: recommended).
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 604_800))]
    pub udp: u32,
    /// SCTP, the handshake done, nobody has begun to shut down; 7440 by default, as TCP's.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 604_800))]
    pub sctp_established: u32,
    /// SCTP, one side has begun to shut down; 240 by default.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 604_800))]
    pub sctp_shutdown: u32,
    /// SCTP, both sides have agreed to end, or one has ended the association; 10 by default.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 604_800))]
    pub sctp_closed: u32,
    /// Echoes of ICMP that are given to backends; 60 by default (RFC 5508 REQ-1: at least 60).
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 604_800))]
    pub icmp: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_established: 7440,
            tcp_transitory: 240,
            tcp_closed: 240,
            half_open: 60,
            udp_answered: 120,
            udp: 300,
            sctp_established: 7440,
            sctp_shutdown: 240,
            sctp_closed: 10,
            icmp: 60,
        }
    }
}

impl Default for Dataplane {
    fn default() -> Self {
        Self {
            hook: Hook::Auto,
            xdp_mode: XdpMode::Native,
            interfaces: Vec::new(),
            redirect_to_peer: Vec::new(),
            pin_dir: "/run/lbd/bpf".into(),
            max_flow_entries: 262_144,
            max_flow_entries_ipv6: 131_072,
            max_services: 65_536,
            max_backends: 131_072,
            max_ring_slots: 16_777_216,
            max_access_prefixes: 262_144,
            max_source_addresses: 131_072,
            max_counted_clients: 262_144,
            max_affinity_clients: 65_536,
            max_fib_blocks: 16_384,
            max_fib_ipv6_kib: 32_768,
            max_fib_groups: 65_536,
            max_fib_next_hops: 65_536,
            max_fib_buckets: 262_144,
            max_early_fragments: 256,
            early_fragments_secs: 2,
            client_prefix_v4: 32,
            client_prefix_v6: 64,
            sample_flows: None,
            timeouts: Timeouts::default(),
        }
    }
}

/// Which kernel hook carries the fast path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// XDP where the driver supports it natively, TC on veth, bridges and the like.
    #[default]
    Auto,
    /// Native XDP.
    Xdp,
    /// TC (tcx).
    Tc,
}

/// Where the REST API listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// The Unix socket; `/run/lbd/lbd.sock` by default.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub socket: PathBuf,
    /// Users who may use the socket beside root and lbd's own; none by default.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<SocketUser>>))]
    pub users: Vec<SocketUser>,
    /// A TCP listener; none by default. Whoever connects needs a token. Beyond loopback it needs TLS.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub listen: Option<SocketAddr>,
    /// TLS on that listener.
    pub tls: Option<Tls>,
}

/// A user of this host who may use the socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SocketUser {
    /// A name or a number.
    pub user: String,
    /// What they may do.
    pub role: Role,
}

/// The files of TLS, which are followed when they change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate and those that signed it, as PEM.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub certificate_file: PathBuf,
    /// Its private key, as PEM.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub key_file: PathBuf,
    /// Certificates (PEM) of those who sign clients' certificates. Without it, clients bring tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub client_ca_file: Option<PathBuf>,
    /// What clients with certificates may do; one that is not listed brings a token, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<TlsClient>,
}

/// A client with a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TlsClient {
    /// A DNS name of its certificate (subjectAltName).
    pub name: String,
    /// What it may do.
    pub role: Role,
}

impl Default for Api {
    fn default() -> Self {
        Self { socket: "/run/lbd/lbd.sock".into(), users: Vec::new(), listen: None, tls: None }
    }
}
