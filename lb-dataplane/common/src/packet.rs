//! What the pipeline asks of a packet: verbs that XDP, TC and the host's model each carry out in their own way.
//!
//! Offsets count from the frame's first byte and are even. Contents are 16-bit words in network byte order, loaded as this
//! machine loads them. `None` means that the frame is too short or that the kernel refused.

use crate::checksum::Delta;
use crate::early::EarlyHead;
use crate::reason::Reason;
use crate::vlan::TagWord;

/// Bytes that may be moved at once.
pub const MOST_MOVED: u32 = 256;
/// More bytes than they are moved by.
pub const MOST_ZEROES: u32 = 32;

/// A frame on its way in.
pub trait Packet {
    /// Whether the hook can have the kernel find a next hop's MAC and send the packet itself.
    const RESOLVES_NEIGHBOURS: bool;
    /// The frame's first bytes, as many as are known to be in place.
    type Near: Copy;
    /// Whether there may be a sum that a device has made of the whole packet.
    const HAS_DEVICE_SUM: bool;

    /// The same number, but another one to the verifier: what a comparison of it says is not taken for a case of its own in all
    /// that follows.
    fn unlinked(n: u32) -> u32;

    /// Zero, of which the verifier knows nothing, given a number of which it does not know anything: it would go through all that
    /// follows once for those that are zero, and once for others.
    fn zero(unknown: u32) -> u64;

    /// The same reason, of which the verifier knows nothing, given such a zero: what follows is the same for all.
    fn any(reason: Reason, zero: u64) -> Reason;

    /// Bytes of the frame; of all of its segments where the kernel merged several.
    fn frame_len(&self) -> u32;

    /// Payload bytes of each segment where the kernel merged several (GSO, GRO), else 0.
    fn segment_payload(&self) -> u32;

    /// The MTU of the link that it came in by; as much as there can be where the kernel does not say.
    fn link_mtu(&self) -> u32;

    /// The place in the counters of the interface that the frame came in through.
    fn interface_place(&self) -> u32;

    /// The index of the interface that the frame came in through: that of its VLAN, once it has [entered](Packet::enter) that.
    fn ifindex(&self) -> u32;

    /// The MAC of that interface, if it is known.
    fn own_mac(&self) -> Option<[u16; 3]>;

    /// Whether the frame is addressed to the interface that it came in through.
    fn is_addressed_here(&self, destination: [u16; 3]) -> bool;

    /// Whether a VLAN tag was taken off the frame and is kept beside it.
    fn has_tag_aside(&self) -> bool;

    /// The frame's outermost VLAN tag, kept beside it or in its place; 0 if there is none.
    fn tag(&self) -> TagWord;

    /// Takes that tag off.
    fn take_tag(&mut self) -> Option<()>;

    /// Puts a tag on, before those that are there.
    fn put_tag(&mut self, tag: TagWord) -> Option<()>;

    /// From here on the frame is one that came in through this VLAN's interface.
    fn enter(&mut self, ifindex: u32);

    /// Makes the first `len` bytes readable and writable in place; `false` if the frame is shorter.
    fn pull(&mut self, len: u32) -> bool;

    /// Copies words out.
    fn read<const N: usize>(&self, at: u32) -> Option<[u16; N]>;

    /// Copies words in. Checksums are the caller's business.
    fn write<const N: usize>(&mut self, at: u32, words: [u16; N]) -> Option<()>;

    /// The first `len` bytes, if they are in place: [`load`](Packet::load) and [`store`](Packet::store) reach them without asking
    /// again, as long as nothing else changes the frame. Who asks for more than that is refused by the verifier.
    fn reach(&self, len: u32) -> Option<Self::Near>;
    /// Copies words out of what is in reach.
    fn load<const N: usize>(&self, near: Self::Near, at: u32) -> [u16; N];
    /// Copies words into what is in reach.
    fn store<const N: usize>(&mut self, near: Self::Near, at: u32, words: [u16; N]);
    /// Does what [`update_transport_checksum`](Packet::update_transport_checksum) does, in the first `len` bytes, which are in reach
    /// from then on by what it returns; the change says what a partial checksum would be.
    fn renew_checksum(
        &mut self,
        near: Self::Near,
        change: ChecksumChange,
        len: u32,
    ) -> Option<Self::Near>;
    /// Makes room for the headers of a packet around this one, between the frame's header and it. What is there is
    /// undefined. Merged segments stay such, of packets with these headers each.
    fn grow(&mut self, outer: Outer) -> Option<()>;

    /// Makes a packet one of the other family: what is between the frame's header and the packet's transport takes `new_len`
    /// bytes in place of `old_len`, and is undefined. Merged segments stay such. The sum that a device has made of the whole
    /// packet, if there is one, stays that of the packet before: [`Packet::note_change`].
    fn change_family(&mut self, old_len: u32, new_len: u32, is_v6: bool) -> Option<()>;

    /// The same of a packet with a plain header, which gets another one, and of which all that is before the transport is
    /// undefined then, the frame's header too; the first `len` bytes are in reach by what is returned. What a device has summed loses as many bytes of
    /// IPv6's header as IPv4's has, the first ones, and gains none.
    fn exchange_header(&mut self, to_v6: bool, len: u32) -> Option<Self::Near>;

    /// Brings that sum up to date with what has changed since, but for what
    /// [`Packet::update_transport_checksum`] was told.
    fn note_change(&mut self, change: Delta);

    /// Puts so many zeroes, an even number below [`MOST_ZEROES`], before what begins at `at`, which is no more than [`MOST_MOVED`]
    /// bytes. To a device's sum they are nothing.
    fn insert_zeroes(&mut self, at: u32, zeroes: u32) -> Option<()>;

    /// The sum of `len` bytes, folded; `None` also if that is more than anything needs that is summed.
    fn sum(&mut self, at: u32, len: u32) -> Option<u16>;

    /// Hands the first `len` bytes of the packet, from its IP header on, to user space, which tells its sender why it was
    /// dropped; lost if user space is behind, or if the packet is shorter. `detail` is that of a [`Punt`](crate::punt::Punt).
    fn punt(&self, reason: Reason, len: usize, detail: u16);

    /// Hands a fragment to user space, which keeps it; whether that could be.
    fn keep(&self, head: &EarlyHead) -> bool;

    /// Brings a transport's checksum up to date with what changed around it.
    ///
    /// Where the sender left the checksum to its device (`CHECKSUM_PARTIAL`), the field holds the pseudo-header's sum
    /// only, so the two differences must be told apart.
    fn update_transport_checksum(&mut self, change: ChecksumChange) -> Option<()>;
}

/// The headers of a packet around another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Whether IP is IPv6, as what is inside then is, too.
    pub is_v6: bool,
    /// Whether a UDP header follows.
    pub has_udp: bool,
}

impl Outer {
    /// Bytes of the headers.
    #[must_use]
    #[inline(always)]
    pub fn bytes(self) -> u32 {
        (if self.is_v6 { 40 } else { 20 }) + if self.has_udp { 8 } else { 0 }
    }
}

/// A change to a transport's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksumChange {
    /// Where the checksum is.
    pub at: u32,
    /// What changed in the pseudo-header.
    pub pseudo_header: Delta,
    /// What changed in the transport's header and payload.
    pub content: Delta,
    /// Whether zero means that there is no checksum (UDP over IPv4).
    pub optional: bool,
    /// Whether the packet is IPv6: no checksum of a header makes up for new addresses in the sum of the whole packet.
    pub is_v6: bool,
    /// What the field holds if the sender left the checksum to its device. `None` leaves it to the kernel, at the cost of a
    /// call, to know whether it did.
    pub partial: Option<u16>,
}
