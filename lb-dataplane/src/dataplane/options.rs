//! What is asked of a dataplane when it is opened and attached.

use std::path::PathBuf;
use std::time::Duration;

use lb_dataplane_common::flow::Timeouts;
use lb_dataplane_common::flow_table::{SLOTS, buckets_for};

/// Where the dataplane lives and how big it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A folder on a bpffs for maps, programs and links; a bpffs is mounted there if it is not on one.
    pub pin_dir: PathBuf,
    /// Entries of the tables.
    pub sizes: Sizes,
    /// How long flows may be silent.
    pub timeouts: Timeouts,
    /// As what clients' flows are counted, where a service bounds those of each.
    pub client_prefixes: ClientPrefixes,
    /// How long fragments are kept that came before the first one of their datagram: 2 s at least (RFC 6146 §4, FRAGMENT_MIN), and
    /// 30 s at most, after which a datagram is given up everywhere.
    pub early_fragments_for: Duration,
    /// Of how many new flows one is watched, for [`Dataplane::take_flow_events`](super::Dataplane::take_flow_events); 0 for none.
    pub sample_every: u32,
    /// Veths, by name or by pattern with `*`, whose other ends TC hands packets to, where nothing on the way there would change them.
    pub redirect_to_peer: Vec<String>,
    /// Whether the programs write down each packet's verdict, for tests.
    pub record: bool,
}

/// Bits of a client's address that say whose flows it counts among. Clients that share them are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPrefixes {
    /// Of IPv4: 1 to 32.
    pub v4: u8,
    /// Of IPv6: 1 to 128.
    pub v6: u8,
}

impl Default for ClientPrefixes {
    /// An address of IPv4; a link of IPv6, any of whose addresses a host may take (RFC 4291 §2.5.4).
    fn default() -> Self {
        Self { v4: 32, v6: 64 }
    }
}

impl ClientPrefixes {
    /// Those of IPv4, of an address mapped into IPv6.
    pub(super) fn bits(self) -> u32 {
        96 + u32::from(self.v4.min(32))
    }

    /// Those of IPv6.
    pub(super) fn bits6(self) -> u32 {
        self.v6.min(128).into()
    }
}

/// Entries of the tables that grow with use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Flow entries, two per flow, that the table has room for at least ([`buckets_for`]): 114 bytes each, places of half-open flows
    /// included. Flows whose client has not answered its backend yet take a quarter of them at most: then the oldest of those ends.
    pub flow_entries: u32,
    /// The same for IPv6: 149 bytes each.
    pub flow_entries6: u32,
    /// Services, 65,536 at most: about 400 bytes each.
    pub services: u32,
    /// Backends of all services: 64 bytes each, and 64 more per CPU.
    pub backends: u32,
    /// Source addresses in all lists of them: 24 bytes each.
    pub sources: u32,
    /// Prefixes of IPv4 in the access lists of all services: 32 bytes each, and 64 more per service. One of IPv6 takes as much as 1 to
    /// 5 of them.
    pub access: u32,
    /// Clients whose flows are counted, of services that bound those of each: about 80 bytes each, while they have flows.
    pub counted_clients: u32,
    /// Clients that services with affinity remember: 96 bytes each.
    pub affinities: u32,
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
    /// Fragments that are kept until the first one of their datagram comes; no more than an eighth from one address.
    pub early_fragments: u32,
}

impl Sizes {
    /// Flow entries that there are in both tables where each slot is taken.
    #[must_use]
    pub fn flow_slots(&self) -> usize {
        let buckets = [self.flow_entries, self.flow_entries6].map(|of| buckets_for(of) as usize);
        buckets.into_iter().sum::<usize>() * SLOTS as usize
    }
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            flow_entries: 262_144,
            flow_entries6: 131_072,
            services: 65_536,
            backends: 131_072,
            sources: 131_072,
            access: 1 << 18,
            counted_clients: 262_144,
            affinities: 65_536,
            ring_pages: 16_384,
            fib_second_level_pages: 4096,
            fib6_pages: 8192,
            fib_group_pages: 128,
            fib_bucket_pages: 256,
            fib_members: 65_536,
            early_fragments: 256,
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
