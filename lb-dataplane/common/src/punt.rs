//! Packets whose sender is to hear of it: the pipeline drops them and hands their head to user space, which answers.

/// Bytes of a packet, from its IP header on, that an answer quotes: the longest header of IPv4 and 8 bytes (RFC 792).
pub const QUOTED: usize = 68;

/// An element of the ring buffer `PUNTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Punt {
    /// Index of the [`Reason`](crate::reason::Reason).
    pub reason: u32,
    /// The next hop's MTU, if the packet was longer; one of the `EXHAUSTION_*` constants, if there was no source port for it.
    pub detail: u16,
    /// How many of the bytes are the packet's.
    pub len: u16,
    /// The packet as it came, from its IP header on.
    pub bytes: [u8; QUOTED],
}

const _: () = assert!(size_of::<Punt>() == 76);
