//! The two families of IP: what differs between them, so that all else is written once.

pub(crate) mod across;
mod v4;
mod v6;

use core::fmt::Debug;
use core::hash::Hash;

pub(crate) use self::v4::SHORT;
use crate::checksum::{self, Delta};
use crate::fib::Route;
use crate::flow::Translation;
use crate::packet::Packet;
use crate::parse::{self, Ip, Kind};
use crate::reason::Reason;
use crate::tables::Tables;

/// An IPv4 address in network byte order, loaded as this machine loads it.
pub type V4 = u32;
/// An IPv6 address in network byte order, loaded as this machine loads it.
pub type V6 = [u32; 4];

/// A family, by its addresses.
pub trait Family: Copy + Eq + Ord + Hash + Debug + Default + 'static {
    /// The other one.
    type Other: Family<Other = Self>;
    /// Whether the stages of a packet's way are subprograms: with longer addresses the stack has no room for them all.
    const APART: bool;
    /// Whether it is IPv6.
    const IS_V6: bool;
    /// Bytes of a header without options or extensions.
    const HEADER_LEN: u32;
    /// The protocol number of its ICMP.
    const ICMP: u8;
    /// The first word of an echo request.
    const ECHO_REQUEST: u16;
    /// The first word of an echo reply.
    const ECHO_REPLY: u16;
    /// Whether ICMP's checksum covers the addresses (RFC 4443 §2.3).
    const ICMP_COVERS_ADDRESSES: bool;
    /// Words of 64 bits that two addresses are.
    const ADDRESS_WORDS: usize;
    /// What [`Way`](crate::pipeline::Way) calls it.
    const NEXT_HOP: u32;
    /// Bytes of a short packet that an ICMP error quotes: a header and 8 bytes.
    const QUOTED_SHORT: usize;
    /// Bytes of a header and TCP's, both without options.
    const QUOTED_TCP: usize;
    /// Where an ICMP error that has extensions says how much it quotes before them, in the number behind its checksum: the lowest
    /// bit (RFC 4884 §4).
    const QUOTED_LEN_BIT: u32;
    /// The bytes of a unit of that.
    const QUOTED_UNIT: u32;

    /// The sum of an address's words of 32 bits.
    fn wide_sum(self) -> u64;
    /// The sum of an address, not folded: as much as three words are at most.
    #[inline(always)]
    fn sum(self) -> u32 {
        checksum::narrow(self.wide_sum())
    }
    /// What replacing one address by another does to a sum.
    fn delta(old: Self, new: Self) -> Delta;
    /// Both addresses of a packet in 64 bits, the same on every machine.
    fn fold(source: Self, destination: Self) -> u64;
    /// One of the words of a packet's addresses as they are in memory, one after the other, where that is little-endian.
    fn address_word(source: Self, destination: Self, n: usize) -> u64;
    /// As IPv6 has it, an IPv4 address mapped (RFC 4291 §2.5.5.2).
    fn to_v6(self) -> V6;
    /// From what [`Family::to_v6`] made.
    fn from_v6(address: V6) -> Self;
    /// From the bytes of what [`Family::to_v6`] made.
    fn from_bytes(bytes: [u8; 16]) -> Self;
    /// For [`Way`](crate::pipeline::Way): as IPv6 has it, an IPv4 address in the first word.
    fn to_next_hop(self) -> V6;
    /// Whether it is no host's that may be elsewhere: no router forwards what comes from it, or goes to it.
    fn is_never_a_source(self) -> bool;
    /// Whether it may only speak on its own link.
    fn is_link_local(self) -> bool;

    /// Whether a packet that has more than a plain header has options that routers mind.
    fn has_options_for_routers<P: Packet>(packet: &P) -> bool;

    /// Reads the header of a frame that its Ethernet header says to be of this family.
    ///
    /// # Errors
    ///
    /// The reason for which the frame's way ends here.
    fn header<P: Packet>(packet: &mut P) -> Result<Ip<Self>, Reason>;
    /// Whether a router may forward a packet with these addresses (RFC 1812 §4.2.2.11, §5.3.7; RFC 3927 §7; RFC 4291 §2.5.2, §2.5.3,
    /// §2.5.5.2, §2.5.6, §2.7).
    ///
    /// # Errors
    ///
    /// As for [`Family::header`], which asks the same.
    #[inline(always)]
    fn check_addresses(source: Self, destination: Self) -> Result<(), Reason> {
        if destination.is_never_a_source() || destination.is_link_local() {
            return Err(Reason::SpecialDestination);
        }
        if source.is_never_a_source() {
            return Err(Reason::MartianSource);
        }
        Ok(())
    }
    /// The header of a packet without options and extensions that is no fragment, and whose lengths are what they seem; `None` of any
    /// other. Nobody has asked [`Family::check_addresses`] yet.
    fn plain_header<P: Packet>(packet: &P) -> Option<Ip<Self>>;
    /// Reads the header that an ICMP error quotes: with where its transport begins. `None` if no flow's packet has such.
    fn quoted<P: Packet>(packet: &mut P, at: u32, end: u32) -> Option<Ip<Self>>;
    /// What an ICMP message is, by its first word.
    fn icmp(first: u16) -> Option<Kind>;
    /// Writes the addresses of the header at `at`; what that does to a sum over the header, its checksum included.
    fn write_addresses<P: Packet>(
        packet: &mut P,
        at: u32,
        source: Self,
        destination: Self,
        change: Delta,
    ) -> Option<Delta>;
    /// Writes the header of a packet of this family around another one, behind the Ethernet header; the other one comes next,
    /// or a UDP header first. `len` is the whole packet's.
    fn write_outer<P: Packet>(
        packet: &mut P,
        source: Self,
        destination: Self,
        len: u32,
        has_udp: bool,
    ) -> Option<()>;
    /// Bytes of the header that [`Family::write_header`] writes.
    fn header_len(header: &Header) -> u32;
    /// Writes a whole header at `at`, and that of a fragment if it is one; the sum of what it has written.
    fn write_header<P: Packet>(
        packet: &mut P,
        at: u32,
        source: Self,
        destination: Self,
        header: &Header,
    ) -> Option<Delta>;
    /// Whether the plain header of the frame's packet is as its checksum says, if it has one.
    fn is_header_right<P: Packet>(packet: &P) -> bool;
    /// The sum of the plain header of the frame's packet.
    fn sum_of_header<P: Packet>(packet: &P) -> Option<Delta>;
    /// What [`Family::write_header`] does for a whole packet's header behind the frame's, in reach.
    fn store_header<P: Packet>(
        packet: &mut P,
        near: P::Near,
        source: Self,
        destination: Self,
        header: &Header,
    ) -> Delta;
    /// What [`Family::is_header_right`] says, of a header in reach.
    fn is_header_in_reach_right<P: Packet>(packet: &P, near: P::Near) -> bool;
    /// The sum of as many bytes of a plain header as IPv4's has, the last ones. That of IPv4 is right, so it is none.
    fn sum_of_last_bytes(ip: &Ip<Self>) -> Delta;
    /// The traffic class of the header at `at`.
    #[inline(always)]
    fn class<P: Packet>(packet: &P, at: u32) -> Option<u8> {
        let [first] = packet.read::<1>(at)?;
        Some(Self::class_in(first))
    }
    /// That of the header that begins with this word.
    fn class_in(first: u16) -> u8;
    /// An identification as a number.
    fn identification(as_loaded: u32) -> u32;
    /// The first word of an ICMP error and the number behind its checksum, as the other family has them; `None` if it has no
    /// such error (RFC 7915 §4.2, §5.2). `shorter` is by how much the packet of `len` bytes that is quoted becomes shorter there.
    fn error_across(first: u16, number: u32, shorter: i32, len: u32) -> Option<(u16, u32)>;
    /// Whether an ICMP error that begins with this word says how much it quotes.
    fn says_quoted_len(first: u16) -> bool;
    /// Writes the time to live.
    fn write_ttl<P: Packet>(packet: &mut P, ttl: u8) -> Option<()>;
    /// Gives a plain header that is in reach other addresses, and a time to live that is one less.
    fn write_hop<P: Packet>(packet: &mut P, near: P::Near, ip: &Ip<Self>, to: &Translation<Self>);
    /// Looks a destination up in the FIB.
    fn route<T: Tables>(tables: &T, destination: Self, hash: impl FnOnce() -> u32) -> Route;
}

/// A protocol of A as the other family has it: each has an ICMP of its own.
#[must_use]
#[inline(always)]
pub fn protocol_across<A: Family>(protocol: u8) -> u8 {
    if protocol == A::ICMP { <A::Other as Family>::ICMP } else { protocol }
}

/// Whether an address is one of IPv4, mapped into IPv6.
#[must_use]
#[inline(always)]
pub fn is_mapped([a, b, c, _]: V6) -> bool {
    a == 0 && b == 0 && c == V4::to_be(0xffff)
}

/// Time to live of packets around others (RFC 1700, "IP Option Numbers": 64).
const OUTER_TTL: u8 = 64;
/// Bytes of a UDP header.
const UDP_LEN: u32 = 8;

/// What a header says in either family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Header {
    /// Bytes that follow it, without those of its own options and extensions.
    pub payload_len: u32,
    /// The sender's number of the packet.
    pub identification: u32,
    /// [`MORE_FRAGMENTS`](crate::parse::MORE_FRAGMENTS) and the offset in units of 8 bytes.
    pub fragment: u16,
    /// The protocol number of what follows.
    pub protocol: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Type of service, or traffic class.
    pub class: u8,
    /// Whether a whole packet may be fragmented however long it is: it came as IPv6 with a number (RFC 7915 §5.1.1), or it is
    /// merged from segments that are short enough.
    pub may_be_fragmented: bool,
    /// Zero.
    pub pad: [u8; 2],
}

impl Header {
    /// Whether it is a part of a packet only.
    #[must_use]
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        self.fragment & parse::FRAGMENT != 0
    }
}

/// The two 16-bit words of one of 32 bits, in memory's order.
#[must_use]
#[inline(always)]
pub fn words(word: u32) -> [u16; 2] {
    if cfg!(target_endian = "little") {
        [word as u16, (word >> 16) as u16]
    } else {
        [(word >> 16) as u16, word as u16]
    }
}

/// A word of 32 bits from its two words, in memory's order.
#[must_use]
#[inline(always)]
pub fn word(words: [u16; 2]) -> u32 {
    if cfg!(target_endian = "little") {
        u32::from(words[0]) | u32::from(words[1]) << 16
    } else {
        u32::from(words[0]) << 16 | u32::from(words[1])
    }
}
