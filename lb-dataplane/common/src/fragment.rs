//! Fragments of a flow's datagrams (RFC 791, RFC 8200 §4.5): only the first has ports, so it leaves them for those that come after it.

use crate::family::{Family, V4, V6};
use crate::flow::ticks_since;

/// What the fragments of a datagram have in common: key of the LRU hashes `FRAGMENTS` and `FRAGMENTS6`. The
/// identification is in network byte order, loaded as this machine loads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FragmentKey<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// The sender's number of the datagram.
    pub identification: u32,
    /// IP protocol number; 0 with IPv6.
    pub protocol: u8,
    /// Zero.
    pub pad: [u8; 3],
}

impl<A: Family> FragmentKey<A> {
    /// The key with IPv4 addresses mapped into IPv6.
    #[must_use]
    #[inline(always)]
    pub fn to_v6(&self) -> FragmentKey<V6> {
        FragmentKey {
            source: self.source.to_v6(),
            destination: self.destination.to_v6(),
            identification: self.identification,
            protocol: self.protocol,
            pad: [0; 3],
        }
    }
}

/// What the first fragment said: value of `FRAGMENTS` and `FRAGMENTS6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FragmentPorts {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// The tick in which it came.
    pub seen: u32,
    /// IP protocol number.
    pub protocol: u32,
}

/// Ticks for which a first fragment speaks for the later ones: as long as Linux keeps fragments for reassembly (30 s,
/// `ipfrag_time`). A sender may use an identification again after that (RFC 6864).
const SPEAKS_FOR_TICKS: u32 = 28;
/// Ticks after a fragment that came early in which its first one is told of to user space: longer than that may be set to keep it.
const AWAITED_FOR_TICKS: u32 = SPEAKS_FOR_TICKS + 1;

/// Whether fragments, the last of which came early in a tick, wait for their first one now.
#[must_use]
#[inline(always)]
pub fn is_awaited(seen: u32, now: u32) -> bool {
    ticks_since(seen, now) <= AWAITED_FOR_TICKS
}

impl FragmentPorts {
    /// Whether it is of the same datagram as a fragment that comes now.
    #[must_use]
    #[inline(always)]
    pub fn is_current(&self, now: u32) -> bool {
        ticks_since(self.seen, now) <= SPEAKS_FOR_TICKS
    }
}

const _: () = assert!(size_of::<FragmentKey<V4>>() == 16);
const _: () = assert!(size_of::<FragmentPorts>() == 12);
