//! The eBPF FIB: its entries, what a packet meets there, and whether it is as it should be.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::seen::{SeenMetadata, seen};
use crate::resource::Condition;

seen! {
    /// An entry of the eBPF FIB (`GET /api/v1/fib`). Its name is its prefix.
    FibEntry(FibSpec, FibStatus);
}

/// What an entry is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FibSpec {
    /// The destination.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub prefix: IpNetwork,
}

/// What packets meet there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FibStatus {
    /// `Forwards`: whether packets go on without the kernel.
    pub conditions: Vec<Condition>,
    /// `forward`, `kernel` (handed over), `blackhole`, `no-room` (dropped).
    pub action: String,
    /// Who says so: `kernel`, `bgp`, `neighbour`, or `previous` (an earlier process, until this one has caught up).
    pub source: String,
    /// Where packets go.
    pub members: Vec<FibMemberView>,
}

/// What of the eBPF FIB's memory is in use, and what was done to it since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FibUsageView {
    /// IPv4 routes.
    pub routes_v4: usize,
    /// IPv6 routes.
    pub routes_v6: usize,
    /// Next-hop groups.
    pub groups: usize,
    /// Ways out that groups name.
    pub members: usize,
    /// /24 blocks with longer routes: chunks of the second level.
    pub chunks: usize,
    /// Chunks that there are.
    pub chunks_max: usize,
    /// Bytes of IPv6 nodes in use.
    pub node_bytes: usize,
    /// Bytes of IPv6 nodes that there are.
    pub node_bytes_max: usize,
    /// Changes made.
    pub updates: u64,
    /// Changes refused, since a table was full.
    pub refused: u64,
    /// Routes that there is no room for, and groups whose next hops there is none for: their packets go to the kernel, or
    /// are dropped.
    pub left_out: usize,
    /// Those of them whose packets are dropped (`fib-full`), since the kernel does not have such a route.
    pub dropped: usize,
}

/// What a packet meets in the eBPF FIB (`GET /api/v1/fib/lookup`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FibLookupView {
    /// Where the packet goes.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub destination: IpAddr,
    /// The entry that it meets; `action` is `none` without a route.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub prefix: Option<IpNetwork>,
    /// `forward`, `kernel` (handed over), `blackhole`, `no-room` (dropped), or `none`.
    pub action: String,
    /// The next-hop group's place in the map `FIB_GROUPS`.
    pub group: Option<u32>,
    /// The group's members.
    pub members: Vec<FibMemberView>,
    /// The member that this flow leaves by.
    pub chosen: Option<FibMemberView>,
    /// What the router told the eBPF FIB.
    pub router: Option<FibToldView>,
    /// What the kernel would do with a packet of its own.
    pub kernel: KernelRouteView,
    /// Where eBPF, router and kernel do not agree, one sentence each; empty where they do.
    pub disagreements: Vec<String>,
}

/// A route as the router told it to the eBPF FIB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FibToldView {
    /// The destination.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub prefix: IpNetwork,
    /// `forward`, `kernel` or `blackhole`.
    pub action: String,
    /// Who says so: `kernel`, `bgp` or `neighbour`.
    pub source: String,
}

/// A route as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KernelRouteView {
    /// The route; unset where the kernel sends nothing.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub prefix: Option<IpNetwork>,
    /// Where packets go, each as `via ADDRESS dev NAME`; empty where the address is the kernel's own.
    pub next_hops: Vec<String>,
    /// Why the kernel sends nothing.
    pub refuses: Option<String>,
}

/// An audit of the eBPF FIB (`GET /api/v1/fib/audit`, `POST /api/v1/fib/repair`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FibAuditView {
    /// Whether nothing differs.
    pub intact: bool,
    /// Whether what differed in eBPF's memory was written again; another audit says whether that helped.
    pub repaired: bool,
    /// Routes that were compared, address by address.
    pub routes: usize,
    /// Next-hop groups that were compared.
    pub groups: usize,
    /// Stretches of addresses whose packets meet something else than their route.
    pub wrong_stretches: usize,
    /// Groups whose word, buckets or members are not as written.
    pub wrong_groups: usize,
    /// Sets of the IPv6 trie's shortcuts that are not as the trie has them.
    pub wrong_shortcuts: usize,
    /// Prefixes for which the router has other next hops than BGP selected.
    pub not_as_selected: usize,
    /// Routes that the router told and eBPF lacks, has under another group, or has beyond, and groups that do something else.
    pub not_as_told: usize,
    /// Prefixes to which the kernel has routes: each was compared, both ways.
    pub kernel_routes: usize,
    /// Prefixes for which it does something else than eBPF.
    pub not_as_kernel: usize,
    /// The first differences, one sentence each.
    pub findings: Vec<String>,
}

/// An audit of the eBPF maps of services (`GET /api/v1/services/audit`, `POST /api/v1/services/repair`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceAuditView {
    /// Whether nothing differs.
    pub intact: bool,
    /// Whether what differed was written again; another audit says whether that helped.
    pub repaired: bool,
    /// Services that were compared.
    pub services: usize,
    /// Backends that were compared.
    pub backends: usize,
    /// Services, and addresses of services, that differ, are missing, or are there beyond what is asked for.
    pub wrong_services: usize,
    /// Backends that differ, or are in use beyond what is asked for.
    pub wrong_backends: usize,
    /// Services whose ring differs, by which they choose a backend.
    pub wrong_rings: usize,
    /// Lists of source addresses that differ.
    pub wrong_sources: usize,
    /// Access lists, and prefixes of port ranges, that differ, are missing, or are there beyond what is asked for.
    pub wrong_prefixes: usize,
    /// The first differences, one sentence each.
    pub findings: Vec<String>,
}

/// A member of a next-hop group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FibMemberView {
    /// The gateway; unset where the destination is on the link.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub gateway: Option<IpAddr>,
    /// The interface's name.
    pub interface: String,
    /// Destination MAC; unset while the neighbour is unresolved.
    pub mac: Option<String>,
}
