//! Fragments that come before the first one of their datagram: elements of the ring buffer `EARLY`, by which user space keeps
//! them until the first one has come.

use crate::family::V6;

/// Bytes of a fragment at most, from its IP header on: more than common links carry at once.
pub const EARLY_BYTES: usize = 2048;

/// What an element is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct EarlyHead {
    /// What the datagram's fragments have in common, IPv4 mapped into IPv6: its source address.
    pub source: V6,
    /// Its destination address.
    pub destination: V6,
    /// Its sender's number of it, as a [`FragmentKey`](crate::fragment::FragmentKey) has it.
    pub identification: u32,
    /// The IP protocol number; 0 with IPv6.
    pub protocol: u32,
    /// Where in the datagram a fragment begins, in bytes.
    pub offset: u32,
    /// How many bytes of the datagram it has.
    pub len: u32,
    /// Bytes of its packet; 0 if this is [`FirstCame`].
    pub packet_len: u32,
    /// Not zero where it is for no VIP, but from a backend: it goes on as it came where nothing says otherwise.
    pub is_routed: u32,
}

/// A fragment that is to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct EarlyFragment {
    /// Whose.
    pub head: EarlyHead,
    /// The packet as it came, from its IP header on.
    pub bytes: [u8; EARLY_BYTES],
}

/// The first fragment of a datagram has come of which others are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FirstCame {
    /// Which.
    pub head: EarlyHead,
    /// The source address that its fragments are to have, or that of the packets around them, IPv4 mapped into IPv6.
    pub to_source: V6,
    /// Their destination address, or the backend's to which they go as they came.
    pub to_destination: V6,
    /// How they go on: one of the `MODE_*` constants of services and flows, or [`MODE_ROUTED`].
    pub mode: u32,
    /// The source port of the datagrams around them, with `MODE_GUE`.
    pub port: u32,
    /// The interface that they leave through; 0 where the kernel is to find the way.
    pub ifindex: u32,
    /// Bytes of a packet at most on that way.
    pub mtu: u32,
    /// The MACs of their frames, the destination's first.
    pub macs: [u16; 6],
}

/// The datagram is of no flow: its fragments are routed as they came.
pub const MODE_ROUTED: u32 = 8;

const _: () = assert!(size_of::<EarlyHead>() == 56);
const _: () = assert!(size_of::<FirstCame>() == 116);
