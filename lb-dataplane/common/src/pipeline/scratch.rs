//! What a packet's way hands from one stage to the next, and one program to another.

use super::{Arrived, Found};
use crate::choose::Composed;
use crate::early::FirstCame;
use crate::family::{Family, Header};
use crate::fib::MemberEntry;
use crate::flow::{Flow, FlowKey, Translation, mode_of};
use crate::mss::Options;
use crate::packet::Packet;
use crate::parse::{self, Ip, Transport};
use crate::quote::Quote;
use crate::service::MODE_ACROSS;

/// What a packet's way needs room for: a program's stack is too small for it.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Scratch<A: Family> {
    /// Where its frame came from.
    pub came: Came,
    /// The packet's IP header.
    pub ip: Ip<A>,
    /// What it carries.
    pub transport: Transport,
    /// What it quotes, if it is an ICMP error.
    pub quote: Quote<A>,
    /// What the choice of a flow knows of the packet.
    pub arrival: Arrival<A>,
    /// What it decides.
    pub step: Step<A>,
    /// The header of the other family, if the packet leaves with one.
    pub header: Header,
    /// The way out.
    pub member: MemberEntry,
    /// What the FIB has.
    pub found: Found,
    /// Where the walk over a SYN's options stands.
    pub options: Options,
    /// A new flow's entries.
    pub made: Composed<A>,
    /// What user space is told of fragments that come early.
    pub early: FirstCame,
}

/// Nothing of the packet is known.
pub const KNOWN_NOTHING: u8 = 0;
/// Its headers are in the scratch.
pub const KNOWN_HEADERS: u8 = 1;
/// So they are, and so is what its flow has decided: the flow has noted and counted it.
pub const KNOWN_FLOW: u8 = 2;
/// Its headers are in the scratch, and it is of no flow, and may begin one.
pub const KNOWN_NO_FLOW: u8 = 3;
/// Its headers are in the scratch, and what its route is chosen by: it is of no flow, and begins none.
pub const KNOWN_ROUTED: u8 = 4;

/// Where a frame came from that one program has read and another one sends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Came {
    /// The tags that were taken off, as [`Arrived`] has them.
    pub tags: u64,
    /// The place of the interface in the counters.
    pub place: u32,
    /// The interface that it belongs to.
    pub ifindex: u32,
    /// Bytes of the frame as it came.
    pub bytes: u32,
    /// Zero.
    pub pad: u32,
}

impl Came {
    /// Notes it for the next program.
    #[inline(always)]
    pub(super) fn note<P: Packet>(&mut self, packet: &P, arrived: &Arrived, bytes: u32) {
        self.tags = arrived.tags;
        self.place = arrived.place as u32;
        self.ifindex = packet.ifindex();
        self.bytes = bytes;
    }
}

/// What the choice of a flow knows of a packet.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Arrival<A> {
    /// Its flow's key.
    pub key: FlowKey<A>,
    /// TCP's sequence number, or the tag that SCTP's INIT or INIT ACK gives, in network byte order.
    pub sequence: u32,
    /// TCP's acknowledgement number, or SCTP's tag, in network byte order.
    pub acknowledged: u32,
    /// Bytes of its frame.
    pub bytes: u32,
    /// TCP's flags, and of SCTP those that mean the same; 0 for others.
    pub flags: u8,
    /// What the program before has found out: one of the `KNOWN_*` constants.
    pub known: u8,
    /// Zero.
    pub pad: [u8; 2],
}

impl<A> Arrival<A> {
    /// Whether this is the first segment of a connection.
    #[inline(always)]
    pub fn is_first_of_connection(&self) -> bool {
        parse::is_first_of_connection(self.flags)
    }
}

/// What the choice of a flow decides.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Step<A: Family> {
    /// The rewrite.
    pub translation: Translation<A>,
    /// The rewrite if the mode is `MODE_ACROSS`.
    pub across: Translation<A::Other>,
    /// One of the `DIRECTION_*` constants.
    pub direction: u8,
    /// Whether the packet belongs to a flow; the rest is of use only then.
    pub is_flow: bool,
    /// Whether it begins one, as soon as that is inserted; or, where it has not begun one then, goes on without.
    pub begins: bool,
    /// Whether it has begun one.
    pub is_new: bool,
    /// The flags of the destination if it is a VIP's address, where that was asked already.
    pub vip_flags: u32,
    /// How the packet reaches the flow's backend: one of the `MODE_*` constants.
    pub mode: u32,
    /// What it says of its flow's life that is new.
    pub news: u32,
    /// The state that the flow was found in.
    pub seen: u32,
    /// The number of the flow's place among the half-open ones, as an entry has it, where the packet may confirm the flow.
    pub place: u32,
    /// Of a SYN: the largest segment size that it may announce, as a flow's entry has it.
    pub mss: u16,
}

impl<A: Family> Step<A> {
    /// Takes the rewrite of an entry whose state was read.
    #[inline(always)]
    pub fn follow(&mut self, entry: &impl Flow, state: u32) {
        self.mode = mode_of(state);
        if self.mode == MODE_ACROSS {
            self.across = entry.translation();
        } else {
            self.translation = entry.translation();
        }
    }
}
