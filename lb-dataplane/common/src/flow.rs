//! What the flow table holds: one entry per direction, each a whole rewrite in one cache line.
//!
//! Invariant: the two directions of a flow are inserted together and removed together. The state bits of both say the
//! same.

use crate::checksum::Delta;

/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMP.
pub const ICMP: u8 = 1;

/// Key of the hash map `FLOWS`: a packet as it arrives. Addresses and ports are in network byte order, loaded as this
/// machine loads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C, align(8))]
pub struct FlowKey {
    /// Source address.
    pub source: u32,
    /// Destination address.
    pub destination: u32,
    /// Source port; an echo's identifier for ICMP.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// Zero.
    pub pad: [u8; 3],
}

impl FlowKey {
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
            pad: [0; 3],
        }
    }

    /// A key's bytes as 16-bit words, as the map has them.
    #[must_use]
    pub fn to_words(&self) -> [u16; 8] {
        let [s0, s1] = words(self.source);
        let [d0, d1] = words(self.destination);
        let protocol = u16::from_ne_bytes([self.protocol, 0]);
        [s0, s1, d0, d1, self.source_port, self.destination_port, protocol, 0]
    }

    /// A key from the map's bytes as 16-bit words.
    #[must_use]
    #[inline(always)]
    pub fn from_words(w: [u16; 8]) -> Self {
        Self {
            source: address([w[0], w[1]]),
            destination: address([w[2], w[3]]),
            source_port: w[4],
            destination_port: w[5],
            protocol: w[6].to_ne_bytes()[0],
            pad: [0; 3],
        }
    }
}

/// An address from its two words, in memory's order.
#[must_use]
#[inline(always)]
pub fn address(words: [u16; 2]) -> u32 {
    if cfg!(target_endian = "little") {
        u32::from(words[0]) | u32::from(words[1]) << 16
    } else {
        u32::from(words[0]) << 16 | u32::from(words[1])
    }
}

/// The two words of an address, in memory's order.
#[must_use]
#[inline(always)]
pub fn words(address: u32) -> [u16; 2] {
    if cfg!(target_endian = "little") {
        [address as u16, (address >> 16) as u16]
    } else {
        [(address >> 16) as u16, address as u16]
    }
}

/// What a packet carries afterwards, and what that does to its checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Translation {
    /// Source address.
    pub source: u32,
    /// Destination address.
    pub destination: u32,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// What the new addresses do to the sum of the IP header and of the pseudo-header.
    pub addresses: Delta,
    /// What the new ports do to the sum of the transport's header.
    pub ports: Delta,
}

impl Translation {
    /// From what a packet carries to what it is to carry.
    #[must_use]
    #[inline(always)]
    pub fn between(old: &FlowKey, new: &FlowKey) -> Self {
        Self {
            source: new.source,
            destination: new.destination,
            source_port: new.source_port,
            destination_port: new.destination_port,
            addresses: Delta::of(words(old.source), words(new.source))
                .and(Delta::of(words(old.destination), words(new.destination))),
            ports: Delta::of([old.source_port], [new.source_port])
                .and(Delta::of([old.destination_port], [new.destination_port])),
        }
    }

    /// The key that a packet has afterwards.
    #[must_use]
    #[inline(always)]
    pub fn key_after(&self, protocol: u8) -> FlowKey {
        FlowKey {
            source: self.source,
            destination: self.destination,
            source_port: self.source_port,
            destination_port: self.destination_port,
            protocol,
            pad: [0; 3],
        }
    }
}

/// Value of `FLOWS`: 64 bytes. `state` and `last_seen` change in place, through [`Flow`]; the rest never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct FlowEntry {
    /// The rewrite.
    pub translation: Translation,
    /// The backend, as `BACKENDS` and `BACKEND_COUNTS` have it.
    pub backend: u32,
    /// The service, as `SERVICE_COUNTS` has it.
    pub service: u32,
    /// Bits of `STATE_*`.
    pub state: u32,
    /// The [tick](crate::tables::TICK_SHIFT) of this direction's last packet; written only when it changes.
    pub last_seen: u32,
    /// One of the `DIRECTION_*` constants.
    pub direction: u8,
    /// Zero. Room for what later rewrites need: next hop, tunnel, sequence offsets, the owner in a cluster.
    pub reserved: [u8; 31],
}

/// A flow entry in the table, which other CPUs see and change too.
pub trait Flow {
    /// The rewrite.
    fn translation(&self) -> Translation;
    /// The backend.
    fn backend(&self) -> u32;
    /// The service.
    fn service(&self) -> u32;
    /// One of the `DIRECTION_*` constants.
    fn direction(&self) -> u8;
    /// The bits of `STATE_*`.
    fn state(&self) -> u32;
    /// Sets bits of the state, atomically.
    fn set_state(&self, bits: u32);
    /// Clears bits of the state, atomically.
    fn clear_state(&self, bits: u32);
    /// The tick of this direction's last packet.
    fn last_seen(&self) -> u32;
    /// Writes the tick of this direction's last packet.
    fn set_last_seen(&self, tick: u32);

    /// Notes a packet of this direction.
    #[inline(always)]
    fn touch(&self, now: u32) {
        // The line stays shared between CPUs while nothing changes.
        if self.last_seen() != now {
            self.set_last_seen(now);
        }
    }

    /// Ticks since this direction's last packet.
    #[inline(always)]
    fn idle(&self, now: u32) -> u32 {
        ticks_since(self.last_seen(), now)
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
/// Either side sent a RST.
pub const STATE_RESET: u32 = 8;
/// The entry is about to be removed; no packet may refresh it.
pub const STATE_EXPIRING: u32 = 16;
/// Any sign of an end.
pub const STATE_CLOSING: u32 = STATE_CLIENT_FIN | STATE_BACKEND_FIN | STATE_RESET;

impl FlowEntry {
    /// A fresh entry towards a backend.
    #[must_use]
    #[inline(always)]
    pub fn new(translation: Translation, service: u32, backend: u32, state: u32, now: u32) -> Self {
        Self {
            translation,
            backend,
            service,
            state,
            last_seen: now,
            direction: DIRECTION_TO_BACKEND,
            reserved: [0; 31],
        }
    }
}

/// How long a flow may be silent in both directions, in [ticks](crate::tables::TICK_SHIFT).
///
/// TCP established 2 h 4 min (RFC 5382 REQ-5), half-open and half-closed 4 min each (the same, "transitory"); UDP 5 min,
/// the recommended value of RFC 4787 REQ-5, once a backend answered. Shorter than these RFCs ask, since both are what a
/// flood leaves behind: what no backend ever answered, and what both sides closed.
#[must_use]
#[inline(always)]
pub fn timeout(protocol: u8, state: u32) -> u32 {
    const BOTH_FIN: u32 = STATE_CLIENT_FIN | STATE_BACKEND_FIN;
    if state & STATE_RESET != 0 || state & BOTH_FIN == BOTH_FIN {
        return TIMEOUT_CLOSED;
    }
    if state & STATE_REPLIED == 0 {
        return TIMEOUT_UNANSWERED;
    }
    match protocol {
        TCP if state & BOTH_FIN != 0 => TIMEOUT_TCP_TRANSITORY,
        TCP => TIMEOUT_TCP_ESTABLISHED,
        _ => TIMEOUT_UDP,
    }
}

/// Both sides sent a FIN, or one a RST.
pub const TIMEOUT_CLOSED: u32 = seconds(10);
/// No backend answered yet.
pub const TIMEOUT_UNANSWERED: u32 = seconds(60);
/// One side sent a FIN.
pub const TIMEOUT_TCP_TRANSITORY: u32 = seconds(240);
/// TCP, both sides have sent something, nobody a FIN.
pub const TIMEOUT_TCP_ESTABLISHED: u32 = seconds(7440);
/// UDP, both sides have sent something.
pub const TIMEOUT_UDP: u32 = seconds(300);

const fn seconds(seconds: u64) -> u32 {
    ((seconds * 1_000_000_000) >> crate::tables::TICK_SHIFT) as u32 + 1
}

const _: () = assert!(size_of::<FlowKey>() == 16);
const _: () = assert!(size_of::<Translation>() == 16);
const _: () = assert!(size_of::<FlowEntry>() == 64);
