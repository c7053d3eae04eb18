//! What the flow table holds: one entry per direction, each a whole rewrite of as many bytes as a cache line has.
//!
//! Invariant: the two directions of a flow are inserted together and removed together. The state bits of both say the
//! same.

mod counted;
mod entry;
mod timeouts;

pub(crate) use self::counted::counted_client;
pub use self::counted::{
    Counted, admit, count_client, count_in, count_out, counts_though_closed, is_closed, is_open,
    may_be_over, opening, remove_to_backend, reopen,
};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::entry::SWAP_TRIES;
pub use self::entry::{Flow, FlowEntry, insert};
pub use self::timeouts::{Timeouts, seconds};
use crate::checksum::Delta;
use crate::family::{Family, V4, V6, word, words};
use crate::service::MODE_ACROSS;

/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// SCTP.
pub const SCTP: u8 = 132;
/// ICMP, whose echoes are a flow by their identifier: it stands in the place of the port at the side that asks, and the other
/// side's is 0.
pub const ICMP: u8 = 1;
/// The same of IPv6.
pub const ICMP6: u8 = 58;

/// Whether a flow of a protocol begins by an exchange that only who sees both directions can make.
#[must_use]
#[inline(always)]
pub fn has_handshake(protocol: u8) -> bool {
    protocol == TCP || protocol == SCTP
}

/// Key of the flow tables: a packet as it arrives. Ports are in network byte order, loaded as this
/// machine loads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C, align(8))]
pub struct FlowKey<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source port; the identifier of an echo request, and 0 of a reply.
    pub source_port: u16,
    /// Destination port; 0 of an echo request, and the identifier of a reply.
    pub destination_port: u16,
    /// [`TCP`], [`UDP`], [`SCTP`], or [`ICMP`] or [`ICMP6`] of an echo. As wide as the ports: odd fields would be cleared by a
    /// call, which the verifier refuses.
    pub protocol: u16,
    /// Zero.
    pub pad: u16,
}

impl<A: Family> FlowKey<A> {
    /// The IP protocol number.
    #[must_use]
    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        self.protocol as u8
    }

    /// The key with IPv4 addresses mapped into IPv6.
    #[must_use]
    #[inline(always)]
    pub fn to_v6(&self) -> FlowKey<V6> {
        FlowKey {
            source: self.source.to_v6(),
            destination: self.destination.to_v6(),
            source_port: self.source_port,
            destination_port: self.destination_port,
            protocol: self.protocol,
            pad: 0,
        }
    }

    /// From a key whose IPv4 addresses are mapped into IPv6.
    #[must_use]
    #[inline(always)]
    pub fn from_v6(key: &FlowKey<V6>) -> Self {
        Self {
            source: A::from_v6(key.source),
            destination: A::from_v6(key.destination),
            source_port: key.source_port,
            destination_port: key.destination_port,
            protocol: key.protocol,
            pad: 0,
        }
    }

    /// Bits that tell this key's entry from others: those of [`STATE_KEY`], and the lowest eight.
    #[must_use]
    #[inline(always)]
    pub fn tag(&self) -> u32 {
        let ports = u64::from(self.source_port)
            | u64::from(self.destination_port) << 16
            | u64::from(self.protocol) << 32;
        let mut h = A::fold(self.source, self.destination);
        h ^= ports.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        h = (h ^ (h >> 32)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (h >> 32) as u32
    }

    /// The key of packets the other way.
    #[must_use]
    #[inline(always)]
    pub fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
            pad: 0,
        }
    }
}

impl FlowKey<V4> {
    /// A key's bytes as 16-bit words, as the map has them.
    #[must_use]
    pub fn to_words(&self) -> [u16; 8] {
        let [s0, s1] = words(self.source);
        let [d0, d1] = words(self.destination);
        [s0, s1, d0, d1, self.source_port, self.destination_port, self.protocol, 0]
    }

    /// A key from the map's bytes as 16-bit words.
    #[must_use]
    #[inline(always)]
    pub fn from_words(w: [u16; 8]) -> Self {
        Self {
            source: word([w[0], w[1]]),
            destination: word([w[2], w[3]]),
            source_port: w[4],
            destination_port: w[5],
            protocol: w[6],
            pad: 0,
        }
    }
}

impl FlowKey<V6> {
    /// A key's bytes as 16-bit words, as the map has them.
    #[must_use]
    pub fn to_words(&self) -> [u16; 20] {
        let mut all = [0; 20];
        let addresses = self.source.into_iter().chain(self.destination);
        for (to, half) in all.iter_mut().zip(addresses.flat_map(words)) {
            *to = half;
        }
        all[16] = self.source_port;
        all[17] = self.destination_port;
        all[18] = self.protocol;
        all
    }

    /// A key from the map's bytes as 16-bit words.
    #[must_use]
    #[inline(always)]
    pub fn from_words(w: [u16; 20]) -> Self {
        let address = |at: usize| {
            [
                word([w[at], w[at + 1]]),
                word([w[at + 2], w[at + 3]]),
                word([w[at + 4], w[at + 5]]),
                word([w[at + 6], w[at + 7]]),
            ]
        };
        Self {
            source: address(0),
            destination: address(8),
            source_port: w[16],
            destination_port: w[17],
            protocol: w[18],
            pad: 0,
        }
    }
}

/// What a packet carries afterwards, and what that does to its checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Translation<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// What the new addresses do to the sum of the IP header and of the pseudo-header.
    pub addresses: Delta,
    /// What the new ports do to the sum of the transport's header.
    pub ports: Delta,
}

impl<A: Family> Translation<A> {
    /// From what a packet carries, perhaps in the other family, to what it is to carry.
    #[must_use]
    #[inline(always)]
    pub fn between<F: Family>(old: &FlowKey<F>, new: &FlowKey<A>) -> Self {
        Self {
            source: new.source,
            destination: new.destination,
            source_port: new.source_port,
            destination_port: new.destination_port,
            addresses: Delta::between(
                old.source.sum() + old.destination.sum(),
                new.source.sum() + new.destination.sum(),
            ),
            ports: Delta::of([old.source_port], [new.source_port])
                .and(Delta::of([old.destination_port], [new.destination_port])),
        }
    }

    /// As an entry holds it.
    #[must_use]
    #[inline(always)]
    pub fn to_v6(&self) -> Translation<V6> {
        Translation {
            source: self.source.to_v6(),
            destination: self.destination.to_v6(),
            source_port: self.source_port,
            destination_port: self.destination_port,
            addresses: self.addresses,
            ports: self.ports,
        }
    }

    /// From what an entry holds.
    #[must_use]
    #[inline(always)]
    pub fn from_v6(held: &Translation<V6>) -> Self {
        Self {
            source: A::from_v6(held.source),
            destination: A::from_v6(held.destination),
            source_port: held.source_port,
            destination_port: held.destination_port,
            addresses: held.addresses,
            ports: held.ports,
        }
    }

    /// The key that a packet has afterwards.
    #[must_use]
    #[inline(always)]
    pub fn key_after(&self, protocol: u16) -> FlowKey<A> {
        FlowKey {
            source: self.source,
            destination: self.destination,
            source_port: self.source_port,
            destination_port: self.destination_port,
            protocol,
            pad: 0,
        }
    }
}

/// Ticks between a packet and now; none if another CPU's clock was a tick ahead.
#[must_use]
#[inline(always)]
pub fn ticks_since(last_seen: u32, now: u32) -> u32 {
    let ticks = now.wrapping_sub(last_seen);
    if ticks > u32::MAX / 2 { 0 } else { ticks }
}

/// Packets from a client to a VIP.
pub const DIRECTION_TO_BACKEND: u8 = 0;
/// Packets from a backend to a client.
pub const DIRECTION_TO_CLIENT: u8 = 1;

/// The backend sent something.
pub const STATE_REPLIED: u32 = 1;
/// The client sent a FIN.
pub const STATE_CLIENT_FIN: u32 = 2;
/// The backend sent a FIN.
pub const STATE_BACKEND_FIN: u32 = 4;
/// The backend sent a RST that ends the connection for certain.
pub const STATE_BACKEND_RESET: u32 = 8;
/// The entry is about to be removed; no packet may refresh it.
pub const STATE_EXPIRING: u32 = 16;
/// A CPU is removing the entry now, and, if it is the one to the backend, the flow. Whoever sets it removes, nobody else.
pub const STATE_CLAIMED: u32 = 128;
/// The flow is over, or is being decided on.
pub const STATE_GOING: u32 = STATE_EXPIRING | STATE_CLAIMED;
/// The client answered the backend, so its address is no forgery. Before that a flow is half-open.
pub const STATE_CONFIRMED: u32 = 32;
/// The client sent a RST, or its backend one of TCP's that acknowledges nothing, and the client nothing else since.
pub const STATE_CLIENT_RESET: u32 = 64;
/// Of the entry to the backend: it counts among the flows of its client while it counts.
pub const STATE_CLIENT_COUNTED: u32 = 256;
/// Its sides may have to hear a RST when it ends here, so each direction's acknowledgements are noted. Only TCP's, and only
/// where both directions are seen.
pub const STATE_RESETS: u32 = 4096;
/// It is watched: its packets are counted, and its end is told. Once that is, the entry to the backend does not say so any more.
pub const STATE_SAMPLED: u32 = 8192;
/// Claimed so long ago that nobody removes it any more: that failed, as it may while other CPUs change the same lanes again and again.
pub const STATE_STALE: u32 = 1 << 14;
/// Of the entry to the backend: the flow counts nowhere, since it is closed or has been silent after a sign of that.
pub const STATE_COUNTED_OUT: u32 = 1 << 15;
/// The bits that are above, without the tag.
pub const STATE_BITS: u32 = 0xffff;
/// Of the tag: what is drawn for each flow.
pub const STATE_GENERATION: u32 = 0xf << 16;
/// Of the tag: bits of the key's hash.
pub const STATE_KEY: u32 = 0xfff << 20;
/// What tells the entry from others in the same memory.
pub const STATE_TAG: u32 = STATE_GENERATION | STATE_KEY;
/// Any sign of an end.
pub const STATE_CLOSING: u32 =
    STATE_CLIENT_FIN | STATE_BACKEND_FIN | STATE_BACKEND_RESET | STATE_CLIENT_RESET;

/// Where in the state the mode stands, by which packets reach the backend.
const STATE_MODE_SHIFT: u32 = 9;
/// The two bits of modes in which backends answer clients themselves. Not zero: the entry is alone. Then the translation's
/// destination is the backend, its source that of a packet around the flow's packets, and the rest zeroes.
pub const STATE_MODE: u32 = 3 << STATE_MODE_SHIFT;
/// Of `MODE_ACROSS`: packets leave in the other family, in whose table the flow's other direction is.
pub const STATE_ACROSS: u32 = MODE_ACROSS << STATE_MODE_SHIFT;

/// The mode in a state.
#[must_use]
#[inline(always)]
pub fn mode_of(state: u32) -> u32 {
    (state & (STATE_MODE | STATE_ACROSS)) >> STATE_MODE_SHIFT
}

/// The bits of a state for a mode.
#[must_use]
#[inline(always)]
pub fn state_of_mode(mode: u8) -> u32 {
    u32::from(mode) << STATE_MODE_SHIFT & STATE_MODE
}

const _: () = assert!(size_of::<FlowKey<V4>>() == 16);
const _: () = assert!(size_of::<FlowKey<V6>>() == 40);
const _: () = assert!(size_of::<Translation<V4>>() == 16);
const _: () = assert!(size_of::<Translation<V6>>() == 40);
