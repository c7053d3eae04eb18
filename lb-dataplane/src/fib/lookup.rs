//! What a packet to an address meets, found in the memory that packets read.

use std::net::IpAddr;

use lb_dataplane_common::fib::{CHUNK_WORDS, FibTables as _, L1_CHUNK, NO_GROUP, SLOT_GROUP};
use lb_dataplane_common::fib6::group6;

use super::memory::Memory;
use super::table::Bits as _;
use super::{Action, Fib, Member};

/// A packet as the choice among a group's members sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes, of the same family.
    pub destination: IpAddr,
    /// The IP protocol's number.
    pub protocol: u8,
    /// The ports, 0 where the protocol has none.
    pub source_port: u16,
    /// As above.
    pub destination_port: u16,
}

/// An answer of [`Fib::lookup`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FibLookup {
    /// The longest route that covers the address, as the writer has it: network address and length.
    pub route: Option<(IpAddr, u8)>,
    /// The group that packets meet, by its place in `FIB_GROUPS`; `None` without a route.
    pub group: Option<u32>,
    /// What the group does; `None` without a route.
    pub action: Option<Action>,
    /// The member that a packet of the hash leaves by.
    pub member: Option<Member>,
    /// Whether a route near it does not fit, so that packets are the kernel's, or dropped.
    pub left_out: bool,
    /// Whether the memory says what the writer has.
    pub intact: bool,
}

impl Fib {
    /// What packets to an address meet, where to have no route is the kernel's business; `None` while routes of a previous
    /// process may still come back.
    pub fn towards(&self, address: IpAddr) -> Option<Action> {
        self.is_synced.then(|| self.lookup(address, 0).action.unwrap_or(Action::Kernel))
    }

    /// What a packet to an address meets; `hash` chooses among a group's members.
    pub fn lookup(&self, destination: IpAddr, hash: u32) -> FibLookup {
        let memory = self.memory();
        let found = match destination {
            IpAddr::V4(address) => group4(memory, address.to_bits()),
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                group6(&memory, [(bits >> 64) as u64, bits as u64]).unwrap_or(NO_GROUP)
            }
        };
        let (len, wanted) = match destination {
            IpAddr::V4(address) => self.routes.covering(&self.groups, address.to_bits(), 0..33),
            IpAddr::V6(address) => self.routes6.covering(&self.groups, address.to_bits(), 0..129),
        }
        .unzip();
        let route = len.map(|len| match destination {
            IpAddr::V4(address) => ((address.to_bits() & u32::mask(len)).into_addr(), len),
            IpAddr::V6(address) => ((address.to_bits() & u128::mask(len)).into_addr(), len),
        });
        let instead = self.left_out.covers(destination);
        let wanted = instead.or(wanted);
        FibLookup {
            route,
            group: (found != NO_GROUP).then_some(found),
            action: (found != NO_GROUP).then(|| self.groups.read_at(found)).flatten(),
            member: self.groups.chosen(found, hash),
            left_out: instead.is_some(),
            intact: found == wanted.unwrap_or(NO_GROUP),
        }
    }

    pub(super) fn memory(&self) -> Memory<'_> {
        Memory { slots: &self.slots, trie: &self.trie, groups: &self.groups }
    }
}

/// The group of an IPv4 address.
pub(super) fn group4(memory: Memory<'_>, address: u32) -> u32 {
    let first = memory.l1(address >> 8).unwrap_or(NO_GROUP);
    let word = if first & L1_CHUNK == 0 {
        Some(first)
    } else {
        (first & !L1_CHUNK)
            .checked_mul(CHUNK_WORDS)
            .and_then(|chunk| memory.l2(chunk + (address & 0xff)))
    };
    word.unwrap_or(NO_GROUP) & SLOT_GROUP
}
