//! What the service maps hold. Addresses and ports are big-endian bytes, as packets have them; an IPv4 address is mapped into
//! IPv6 (RFC 4291 §2.5.5.2).

use crate::family::{Family as _, V6};
use crate::flow::has_handshake;

/// Key of the hash map `SERVICES`: what clients connect to. A service of several ports is there once, by the first of them.
///
/// Port 0 with protocol 0 stands for the address itself: it is there for every VIP address, and says what happens to an echo
/// request and that nothing else to this address is forwarded as a plain route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, align(4))]
pub struct VipKey {
    /// The virtual address. Words of 32 bits: bytes would be cleared by a call.
    pub address: V6,
    /// The port.
    pub port: [u8; 2],
    /// The IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}

/// What the LPM trie `RANGES` is looked up by, behind the length in bits, where no service has just this port: the prefix of a
/// port, if there is one, belongs to a service of several ports. Its value is the first of them, by which `SERVICES` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(4))]
pub struct RangeKey {
    /// The virtual address.
    pub address: V6,
    /// The IP protocol number, in network byte order.
    pub protocol: [u8; 2],
    /// The port, or a prefix of it.
    pub port: [u8; 2],
}

/// Bits of a [`RangeKey`] before the port.
pub const RANGE_KEY_BITS: u32 = 8 * (size_of::<RangeKey>() as u32 - 2);
/// Prefixes of ports at most, of all services. A range takes 30 of them at most.
pub const MAX_RANGE_PREFIXES: u32 = 1 << 16;

/// Value of `SERVICES`. Replaced as a whole, so that a packet sees either the old service or the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ServiceEntry {
    /// Index into the per-service counters and into `ROUND_ROBIN`.
    pub id: u32,
    /// First word of this service's ring in `RINGS`.
    pub ring_base: u32,
    /// Words in the ring: a prime where it is indexed by a hash, the turns of a round elsewhere, 0 where nothing takes new
    /// flows. Where backends are bounded, the number of backends in it and each of their ids once follow.
    pub ring_len: u32,
    /// One of the `ALGORITHM_*` constants.
    pub algorithm: u8,
    /// Bits of `SERVICE_*`.
    pub flags: u8,
    /// One of the `MODE_*` constants.
    pub mode: u8,
    /// What clients hear for whom no source port is free: one of the `EXHAUSTION_*` constants.
    pub on_exhaustion: u8,
    /// Ticks for which a client is given to the backend of its last flow; 0 for no such memory.
    pub affinity: u32,
    /// Flows at most; 0 for no bound.
    pub max_flows: u32,
    /// Flows of each client's address at most; 0 for no bound.
    pub max_flows_per_client: u32,
    /// The largest segment size that a SYN may announce, or [`MSS_AUTO`](crate::mss::MSS_AUTO); 0 for any.
    pub mss: u16,
    /// Another one than that of the entries that were written before: who has read the entry looks it up again and compares.
    /// Zero in plans; drawn where it is written.
    pub generation: u16,
}

/// The ring is indexed by the flow's hash.
pub const ALGORITHM_MAGLEV: u8 = 0;
/// The ring is indexed by a counter that all CPUs share.
pub const ALGORITHM_ROUND_ROBIN: u8 = 1;
/// Of two places in the ring the one with fewer flows for its weight.
pub const ALGORITHM_LEAST_CONNECTIONS: u8 = 2;
/// The ring is indexed by the hash of the client's address.
pub const ALGORITHM_SOURCE_HASH: u8 = 3;

/// Packets to a backend are translated, and so are those back.
pub const MODE_NAT: u32 = 0;
/// Packets reach a backend as they came, in a frame to its MAC. What it sends goes to the client without us, as with all
/// that follow.
pub const MODE_L2: u32 = 1;
/// Packets reach a backend within others: IP in IP (RFC 2003), or IPv6 in IPv6 (RFC 2473).
pub const MODE_IP_IN_IP: u32 = 2;
/// Packets reach a backend within datagrams (GUE).
pub const MODE_GUE: u32 = 3;
/// Of a flow, not of a service: packets to a backend are translated into the other family, and so are those back.
pub const MODE_ACROSS: u32 = 4;

/// The client hears nothing.
pub const EXHAUSTION_DROP: u8 = 0;
/// The client hears a RST.
pub const EXHAUSTION_RESET: u8 = 1;
/// The client hears that there is no way to the host (RFC 6888 REQ-8, RFC 6146 §3.5.1.1).
pub const EXHAUSTION_ICMP: u8 = 2;

impl ServiceEntry {
    /// Whether every node with the same backends gives a flow to the same one.
    #[must_use]
    #[inline(always)]
    pub fn chooses_alike_everywhere(&self) -> bool {
        self.affinity == 0
            && self.flags & SERVICE_BOUNDS_BACKENDS == 0
            && (self.algorithm == ALGORITHM_MAGLEV || self.algorithm == ALGORITHM_SOURCE_HASH)
    }
}

/// Echo requests to this address are answered here.
pub const SERVICE_ANSWER_ECHO: u8 = 1;

/// A list says which clients may begin flows.
pub const SERVICE_LISTS_CLIENTS: u8 = 2;
/// There is a bound on its flows, or on those of a client.
pub const SERVICE_BOUNDS_FLOWS: u8 = 8;
/// There is a bound on the flows of a backend.
pub const SERVICE_BOUNDS_BACKENDS: u8 = 16;
/// A new flow that finds no room in the flow table is forwarded without an entry. Only where the choice is a hash alone, and no
/// answer comes back here or its backends say whose it is.
pub const SERVICE_HASHES_WHEN_FULL: u8 = 32;

/// Value of the array `BACKENDS`, indexed by the words of a ring: a line of the cache, as the array is aligned to pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct BackendEntry {
    /// The address.
    pub address: [u8; 16],
    /// The port.
    pub port: [u8; 2],
    /// Bits of `BACKEND_*`.
    pub flags: u8,
    /// Its share of new flows beside others', at least 1.
    pub weight: u8,
    /// The service that it belongs to; or, without [`BACKEND_IN_USE`], that it belonged to and whose counters still include
    /// its own, as [`BackendEntry::left`] says.
    pub service: u32,
    /// Its source addresses; with a tunnel that of the packets around. With none its flows keep their clients' addresses and ports.
    pub sources: SourceList,
    /// Flows at most; 0 for no bound.
    pub max_flows: u32,
    /// Ticks for which its flows may be silent; 0 for what holds for all flows.
    pub idle: u32,
    /// With [`BACKEND_ANSWERS_ALONE`] the address of its VIP, else zeroes.
    pub vip: [u8; 16],
    /// Its port.
    pub vip_port: [u8; 2],
    /// The IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
    /// The [line](crate::line) in which is counted what is this entry's; 0 before its first flow. It and the next are what packets
    /// write, and user space does not: zero in plans.
    pub line: u32,
    /// How many flows it has, written each time one begins or ends.
    pub load: u32,
}

/// Entries of `SOURCES` at most.
pub const MAX_SOURCES: u32 = 1 << 24;
/// Source addresses of a backend at most.
pub const MAX_SOURCES_OF_BACKEND: u32 = u32::MAX >> MAX_SOURCES.trailing_zeros();

/// The first of some addresses in `SOURCES`, and how many there are. One word: user space may write another list while a packet reads
/// this one, and the first of one and the number of another are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct SourceList(u32);

impl SourceList {
    /// So many, from the first on.
    #[must_use]
    #[inline(always)]
    pub const fn new(base: u32, len: u32) -> Self {
        Self(base & (MAX_SOURCES - 1) | len << MAX_SOURCES.trailing_zeros())
    }

    /// The first.
    #[must_use]
    #[inline(always)]
    pub const fn base(self) -> u32 {
        self.0 & (MAX_SOURCES - 1)
    }

    /// How many.
    #[must_use]
    #[inline(always)]
    pub const fn len(self) -> u32 {
        self.0 >> MAX_SOURCES.trailing_zeros()
    }

    /// Whether there is none.
    #[must_use]
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

fn bytes(address: V6) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, word) in bytes.chunks_exact_mut(4).zip(address) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// What [`BackendEntry::service`] says where it is none.
pub const NO_SERVICE: u32 = u32::MAX;

/// Value of the array `SOURCES`: an address, and those of its ports, that flows to a backend come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SourceEntry {
    /// The address.
    pub address: [u8; 16],
    /// The first port.
    pub first_port: u16,
    /// How many ports follow one another, less one.
    pub more_ports: u16,
    /// Zero.
    pub pad: u32,
}

/// Key of the hash maps `AFFINITIES` and `CLIENT_FLOWS`: a client of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct AffinityKey {
    /// The client's address; in `CLIENT_FLOWS` the bits of it that clients are counted by.
    pub client: V6,
    /// The service's id, below 65,536; in `CLIENT_FLOWS` with how many bits these are, as [`counted_as`] has both.
    pub service: u32,
}

/// How a service and so many bits of clients' addresses, IPv4 mapped into IPv6, are one word.
#[must_use]
#[inline(always)]
pub const fn counted_as(service: u32, bits: u32) -> u32 {
    service & 0xffff | bits << 16
}

/// The service in such a word.
#[must_use]
#[inline(always)]
pub const fn service_of(counted_as: u32) -> u32 {
    counted_as & 0xffff
}

/// The bits in such a word.
#[must_use]
#[inline(always)]
pub const fn bits_of(counted_as: u32) -> u32 {
    counted_as >> 16
}

/// Of a value of `CLIENT_FLOWS`, which is whose it is and how many flows: its entry is about to be removed.
pub const CLIENT_REMOVED: u32 = 1 << 31;

/// Value of `AFFINITIES`: where a client's last flow went. The least recently used one makes room for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Affinity {
    /// The backend.
    pub backend: u32,
    /// The tick in which the flow began.
    pub begun: u32,
}

/// It belongs to a service. Without this bit the entry is free, or its backend was removed.
pub const BACKEND_IN_USE: u8 = 1;
/// Its health checks fail.
pub const BACKEND_FAILED: u8 = 2;
/// It is given no new flows.
pub const BACKEND_DRAINING: u8 = 4;

/// Its flows end when its health checks fail.
pub const BACKEND_ENDS_FAILED: u8 = 8;
/// Both sides of those flows hear a RST.
pub const BACKEND_RESETS_FAILED: u8 = 16;
/// Both sides of its flows hear a RST where they end for having been silent.
pub const BACKEND_RESETS_IDLE: u8 = 32;
/// Its address and port are in no other service, and packets to it may go on without a flow: what comes from there is the VIP's
/// then.
pub const BACKEND_ANSWERS_ALONE: u8 = 64;

/// There is a bound on its flows, on those of its service or on those of a client.
pub const BACKEND_BOUNDED: u8 = 128;

impl BackendEntry {
    /// The service that it has left, if that still counts what it counted.
    #[must_use]
    pub fn left(&self) -> Option<u32> {
        let is_left = self.flags & BACKEND_IN_USE == 0
            && self.service != NO_SERVICE
            // There was one.
            && self.address != [0; 16];
        is_left.then_some(self.service)
    }

    /// The entry as words of memory, but for what packets write.
    #[must_use]
    pub fn to_words(&self) -> [u32; BACKEND_WORDS] {
        let ([a, b, c, d], [e, f, g, h]) = (V6::from_bytes(self.address), V6::from_bytes(self.vip));
        let ([p0, p1], [v0, v1]) = (self.port, self.vip_port);
        let of_port = u32::from_ne_bytes([p0, p1, self.flags, self.weight]);
        let of_vip = u32::from_ne_bytes([v0, v1, self.protocol, self.pad]);
        let (service, max_flows, idle) = (self.service, self.max_flows, self.idle);
        [a, b, c, d, of_port, service, self.sources.0, max_flows, idle, e, f, g, h, of_vip]
    }

    /// The entry that these words are, without what packets write.
    #[must_use]
    pub fn from_words(words: [u32; BACKEND_WORDS]) -> Self {
        let [a, b, c, d, of_port, service, sources, max_flows, idle, e, f, g, h, of_vip] = words;
        let [p0, p1, flags, weight] = of_port.to_ne_bytes();
        let [v0, v1, protocol, pad] = of_vip.to_ne_bytes();
        Self {
            address: bytes([a, b, c, d]),
            port: [p0, p1],
            flags,
            weight,
            service,
            sources: SourceList(sources),
            max_flows,
            idle,
            vip: bytes([e, f, g, h]),
            vip_port: [v0, v1],
            protocol,
            pad,
            line: 0,
            load: 0,
        }
    }

    /// Whether flows of a protocol end now, however lively: their backend fails and is to lose them, also if it was removed
    /// since, or it was removed and they can go elsewhere at any time, as datagrams and echoes can. TCP's connections may
    /// outlive a backend that was removed.
    #[must_use]
    #[inline(always)]
    pub fn ends_flows(&self, protocol: u8) -> bool {
        const CONDEMNED: u8 = BACKEND_FAILED | BACKEND_ENDS_FAILED;
        self.flags & CONDEMNED == CONDEMNED
            || !has_handshake(protocol) && self.flags & BACKEND_IN_USE == 0
    }

    /// Whether both sides of a flow that ends here are to hear a RST.
    #[must_use]
    #[inline(always)]
    pub fn resets(&self, protocol: u8) -> bool {
        let asked =
            if self.ends_flows(protocol) { BACKEND_RESETS_FAILED } else { BACKEND_RESETS_IDLE };
        self.flags & asked != 0
    }

    /// Whether its flows' ends may ever have to hear one.
    #[must_use]
    #[inline(always)]
    pub fn may_reset(&self) -> bool {
        self.flags & (BACKEND_RESETS_FAILED | BACKEND_RESETS_IDLE) != 0
    }

    /// Whether its flows are better off elsewhere: it was removed, or it fails.
    #[must_use]
    #[inline(always)]
    pub fn is_lost(&self) -> bool {
        self.flags & (BACKEND_IN_USE | BACKEND_FAILED) != BACKEND_IN_USE
    }

    /// Whether it is given new flows of this service.
    #[must_use]
    #[inline(always)]
    pub fn takes_new_flows_of(&self, service: u32) -> bool {
        self.flags & (BACKEND_IN_USE | BACKEND_FAILED | BACKEND_DRAINING) == BACKEND_IN_USE
            && self.service == service
    }
}

/// Words of a backend's entry before those that packets write.
pub const BACKEND_WORDS: usize = core::mem::offset_of!(BackendEntry, line) / 4;

/// Words in a page of the paged arrays: a BPF array rounds each element up to 8 bytes, so words come in pages of 4 KiB.
pub const PAGE_WORDS: usize = 1024;

const _: () = assert!(size_of::<VipKey>() == 20);
const _: () = assert!(size_of::<RangeKey>() == 20);
const _: () = assert!(size_of::<ServiceEntry>() == 32);
const _: () = assert!(size_of::<BackendEntry>() == 64);
const _: () = assert!(BACKEND_WORDS == 14);
const _: () = assert!(size_of::<SourceEntry>() == 24);
