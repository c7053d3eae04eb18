//! What is asked of a dataplane when it is opened and attached.

use std::path::PathBuf;

use lb_dataplane_common::flow::Timeouts;

/// Where the dataplane lives and how big it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A folder on a bpffs for maps, programs and links; a bpffs is mounted there if it is not on one.
    pub pin_dir: PathBuf,
    /// Entries of the tables.
    pub sizes: Sizes,
    /// How long flows may be silent.
    pub timeouts: Timeouts,
    /// Of how many new flows one is watched, for [`Dataplane::take_flow_events`](super::Dataplane::take_flow_events); 0 for none.
    pub sample_every: u32,
    /// Whether the programs write down each packet's verdict, for tests.
    pub record: bool,
}

/// Entries of the tables that grow with use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Flow entries, two per flow. Flows whose client has not answered its backend yet take a quarter of them at most:
    /// then the oldest of those ends.
    pub flow_entries: u32,
    /// The same for IPv6.
    pub flow_entries6: u32,
    /// Services: about 250 bytes each, and 32 more per CPU.
    pub services: u32,
    /// Backends of all services: 48 bytes each, and 32 more per CPU.
    pub backends: u32,
    /// Source addresses in all lists of them.
    pub sources: u32,
    /// Prefixes in the access lists of all services.
    pub access: u32,
    /// Pages of 1,024 words for the rings of all services.
    pub ring_pages: u32,
    /// Pages of 1,024 words for prefixes longer than /24; four /24 blocks each.
    pub fib_second_level_pages: u32,
    /// Pages of 512 words for the nodes of the IPv6 trie; a route takes a 64th of one, more or less.
    pub fib6_pages: u32,
    /// Pages of 512 next-hop groups.
    pub fib_group_pages: u32,
    /// Pages of 1,024 buckets for groups of several members.
    pub fib_bucket_pages: u32,
    /// Ways out: interface and MACs.
    pub fib_members: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            flow_entries: 262_144,
            flow_entries6: 131_072,
            services: 65_536,
            backends: 131_072,
            sources: 4096,
            access: 65_536,
            ring_pages: 16_384,
            fib_second_level_pages: 4096,
            fib6_pages: 8192,
            fib_group_pages: 128,
            fib_bucket_pages: 256,
            fib_members: 65_536,
        }
    }
}

/// Which hook is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookChoice {
    /// XDP where the driver supports it natively, TC on veth, bridges and the like.
    Auto,
    /// XDP.
    Xdp(XdpMode),
    /// TC (tcx).
    Tc,
}

/// How XDP runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver, before the kernel makes a buffer of its own.
    Native,
    /// Behind the driver, on the kernel's buffers: on every interface, at the cost of TC and without its offloads.
    Generic,
    /// In the driver where it can, behind it elsewhere.
    Auto,
}
