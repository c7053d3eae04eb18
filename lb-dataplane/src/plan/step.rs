//! The writes of a plan, and why there may be none.

use std::net::IpAddr;

use lb_dataplane_common::list::{List, MAX_PREFIXES};
use lb_dataplane_common::service::{
    BackendEntry, MAX_SOURCES_OF_BACKEND, ServiceEntry, SourceEntry, VipKey,
};

use super::MAX_BACKENDS_PER_SERVICE;
use super::ranges::PortPrefix;

/// A write. Carried out in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait until no packet reads what earlier steps, of this plan or before, unlinked.
    Grace,
    /// Begin a backend's counters at zero.
    ClearBackend {
        /// Its index in `BACKENDS`.
        id: u32,
    },
    /// Write a backend.
    PutBackend {
        /// Its index in `BACKENDS`.
        id: u32,
        /// What to write.
        entry: BackendEntry,
    },
    /// Write a ring.
    WriteRing {
        /// First word in `RINGS`.
        base: u32,
        /// Backend ids.
        words: Vec<u32>,
    },
    /// Write a list of source addresses.
    WriteSources {
        /// First entry in `SOURCES`.
        base: u32,
        /// What to write.
        entries: Vec<SourceEntry>,
    },
    /// Begin a service's counters at zero, its round robin too.
    ClearService {
        /// Its id.
        id: u32,
    },
    /// Write a list of clients.
    WriteList {
        /// First node in `ACCESS_NODES`.
        first: u32,
        /// The words of its nodes.
        words: Vec<u64>,
    },
    /// Give a service a list of clients, or another one.
    PutList {
        /// The service's id.
        service: u32,
        /// The list.
        list: List,
    },
    /// Take its list from a service that does not say any more that it has one.
    RemoveList {
        /// The service's id.
        service: u32,
    },
    /// Say to which service of several ports the ports of a prefix belong.
    PutRange {
        /// The prefix.
        prefix: PortPrefix,
        /// The first port of the service.
        first_port: u16,
    },
    /// Say nothing of a prefix of ports any more.
    RemoveRange {
        /// The prefix.
        prefix: PortPrefix,
    },
    /// Add or replace a service.
    PutService {
        /// Its key.
        key: VipKey,
        /// Its value.
        entry: ServiceEntry,
    },
    /// Remove a service.
    RemoveService {
        /// Its key.
        key: VipKey,
    },
}

/// Why a table cannot be served. Nothing is changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A backend of the other family than the VIP, in a mode that does not lead there.
    #[error(
        "the backend {address} is not of the family of its VIP {vip}: only flows that come from an address of ours go from one \
         to the other, so use full NAT with source addresses of the backend's family, or one-arm"
    )]
    Family {
        /// The VIP.
        vip: IpAddr,
        /// The backend.
        address: IpAddr,
    },
    /// Echoes have no ports.
    #[error("a port of the service of echoes at {0}, or of a backend of it, is not 0")]
    EchoPort(IpAddr),
    /// Where flows to a backend come from is of the other family.
    #[error(
        "{from} is not of the family of the backend {address}: flows come from addresses of its own"
    )]
    SourceFamily {
        /// The backend.
        address: IpAddr,
        /// The source address.
        from: IpAddr,
    },
    /// An access list names addresses that no client has.
    #[error("{address} is not of the family of its VIP {vip}: no client comes from there")]
    ClientFamily {
        /// The VIP.
        vip: IpAddr,
        /// What is of the other family.
        address: IpAddr,
    },
    /// Port 0 stands for the address itself.
    #[error("port 0 at {0}: a service has a port from 1 to 65535")]
    PortZero(IpAddr),
    /// Ports that do not exist.
    #[error(
        "port {first} and {more} more at the service {address}:{port}: 65535 is the last port, so begin lower or take fewer"
    )]
    PortsEnd {
        /// The VIP.
        address: IpAddr,
        /// Its first port.
        port: u16,
        /// The first port, of the VIP or of a backend.
        first: u16,
        /// How many follow.
        more: u16,
    },
    /// A service whose packets cannot go on without a flow.
    #[error(
        "the service {address}:{port} needs its flows: only where a hash alone chooses among backends that answer clients \
         themselves, or that see clients' own addresses at one port of TCP or UDP, can packets go on without"
    )]
    NeedsFlows {
        /// The VIP.
        address: IpAddr,
        /// Its first port.
        port: u16,
    },
    /// A backend of a service whose answers need no flow is in another one, too.
    #[error(
        "the backend {backend}:{at} is in the services {}:{} and {}:{}, of which one goes on without flows when the table is \
         full: what comes from there would be answers of either, so take another port or backend, or `drop`",
        vips[0].0, vips[0].1, vips[1].0, vips[1].1
    )]
    NotAlone {
        /// The backend's address.
        backend: IpAddr,
        /// Its port.
        at: u16,
        /// Both VIPs.
        vips: [(IpAddr, u16); 2],
    },
    /// Two services with a port in common.
    #[error("the ports at {address} from {port} on and those from {other} on overlap")]
    PortsOverlap {
        /// The VIP.
        address: IpAddr,
        /// The first port of one.
        port: u16,
        /// The first port of the other.
        other: u16,
    },
    /// Ranges of ports find no room.
    #[error(
        "all {max} entries for ranges of ports are in use: give fewer VIPs ranges, or such as begin at a multiple of their \
         length",
        max = lb_dataplane_common::service::MAX_RANGE_PREFIXES
    )]
    RangesFull,
    /// Too many services.
    #[error("{wanted} services, {limit} at most: remove some, or raise dataplane.max_services")]
    TooManyServices {
        /// Asked for.
        wanted: usize,
        /// Possible.
        limit: u32,
    },
    /// The ids of services are in use.
    #[error(
        "all ids of services are in use, which are twice as many as dataplane.max_services says, {0}, and 65,536 at most: also by VIPs \
         that are gone and whose flows are not: wait until these have ended, or raise dataplane.max_services"
    )]
    ServicesHeld(u32),
    /// Too many backends of one service.
    #[error("{count} backends at {address}:{port}, {MAX_BACKENDS_PER_SERVICE} at most")]
    TooManyBackends {
        /// The VIP.
        address: IpAddr,
        /// Its port.
        port: u16,
        /// Asked for.
        count: usize,
    },
    /// A list of clients that is too long.
    #[error(
        "{count} prefixes of clients at {address}:{port}, {MAX_PREFIXES} at most: give shorter ones that hold several"
    )]
    TooManyPrefixes {
        /// The VIP.
        address: IpAddr,
        /// Its port.
        port: u16,
        /// Asked for.
        count: usize,
    },
    /// All backends together are too many.
    #[error(
        "all {0} entries for backends are in use, also by those that go, and by those that are gone and whose flows are not: remove \
         some first, wait until flows have ended, or raise dataplane.max_backends"
    )]
    BackendsFull(u32),
    /// A list of source addresses that is too long.
    #[error("{count} source addresses of a backend, {MAX_SOURCES_OF_BACKEND} at most")]
    TooManySources {
        /// Asked for.
        count: usize,
    },
    /// A list of source addresses finds no room.
    #[error(
        "all {0} entries for source addresses are in use: give VIPs fewer of them, or the same ones, or raise \
         dataplane.max_source_addresses"
    )]
    SourcesFull(u32),
    /// An access list finds no room beside the one that it takes the place of.
    #[error(
        "the memory for the prefixes of access lists, {0} of IPv4, is in use: give VIPs fewer, or shorter ones, or raise \
         dataplane.max_access_prefixes"
    )]
    AccessFull(u32),
    /// A range of ports that is none.
    #[error(
        "ports {first_port} to {last_port}: a range goes from 1 or more to a port that is not below"
    )]
    Ports {
        /// The first port.
        first_port: u16,
        /// The last port.
        last_port: u16,
    },
    /// The rings are full.
    #[error(
        "of all {slots} slots for the choice among backends no {wanted} in a row are free: raise dataplane.max_ring_slots, or \
         give VIPs of maglev or source-hash a smaller maglev_table_size"
    )]
    RingsFull {
        /// Slots that a service needs; also while its old ones serve.
        wanted: u32,
        /// Those of all services.
        slots: u32,
    },
}

impl PlanError {
    /// Whether what is gone has ids that may be free by now.
    pub fn is_of_ids(&self) -> bool {
        matches!(self, Self::ServicesHeld(_) | Self::BackendsFull(_))
    }
}
