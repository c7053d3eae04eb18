//! The IPv4 FIB's layout and lookup: DIR-24-8 (Gupta, Lin, McKeown, INFOCOM 1998) over next-hop groups.
//!
//! ```text
//! destination ─ high 24 bits ─▶ L1 word ─┬─ group ─────────────▶ group word ─┬─ one member ─▶ MemberEntry
//!                                        └─ chunk ─ low 8 bits ─▶ L2 word ───┘└─ buckets ─ hash ─▶ member
//! ```
//!
//! A slot's word also says how long the prefix is that it comes from, and whether a previous process wrote it: so the writer
//! needs no table of its own beside the slots, and the next process knows which routes may take a slot over. Lookups mask
//! both out.
//!
//! A group is one aligned 64-bit word that the writer swaps atomically; buckets and members never change while a word
//! names them. A gateway's new MAC is thus one write, however many routes lead through it.

/// Words of the first level: one per /24.
pub const L1_WORDS: u32 = 1 << 24;
/// Words in a chunk of the second level: one per address of a /24.
pub const CHUNK_WORDS: u32 = 256;
/// Set in a first-level word that names a chunk; the rest is the chunk's number.
pub const L1_CHUNK: u32 = 1 << 31;
/// The group in a word.
pub const SLOT_GROUP: u32 = (1 << SLOT_LEN_SHIFT) - 1;
/// Where in a word the length of the prefix stands that it comes from: six bits, 0 to 32.
pub const SLOT_LEN_SHIFT: u32 = 24;
/// Set in a word that a previous process wrote and this one has not renewed.
pub const SLOT_STALE: u32 = 1 << 30;
/// The word of an address without a route. Groups are counted from 1.
pub const NO_GROUP: u32 = 0;

/// Kinds of a group word (its top byte).
pub const GROUP_KERNEL: u8 = 0;
/// One member: the low 32 bits are its index.
pub const GROUP_MEMBER: u8 = 1;
/// Buckets: bits 32 to 39 are the binary logarithm of their number, the low 32 bits the first one's index.
pub const GROUP_BUCKETS: u8 = 2;
/// Dropped.
pub const GROUP_BLACKHOLE: u8 = 3;
/// Dropped: there is no room for where packets go, and the kernel has no route there either.
pub const GROUP_NO_ROOM: u8 = 4;

/// Buckets of a group at most, as a binary logarithm.
pub const MAX_LOG2_BUCKETS: u8 = 12;

/// The member's destination MAC is known.
pub const MEMBER_RESOLVED: u16 = 1;
/// The member has an IPv4 gateway: its neighbour is not the destination itself.
pub const MEMBER_HAS_GATEWAY: u16 = 2;
/// The member has an IPv6 gateway, for packets of either family.
pub const MEMBER_HAS_GATEWAY6: u16 = 4;

/// XDP can send nothing through the interface: its driver takes no frames from there, or not as it is set up now.
pub const MEMBER_WITHOUT_XDP: u16 = 8;

/// The interface is the end of a veth whose other end, in another network namespace, TC may hand packets to.
pub const MEMBER_TO_PEER: u16 = 16;

/// A way out, as the array `FIB_MEMBERS` holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct MemberEntry {
    /// Interface to send from.
    pub ifindex: u32,
    /// Bits of `MEMBER_*`.
    pub flags: u16,
    /// The interface's MTU: bytes of IP packet.
    pub mtu: u16,
    /// The neighbour's MAC, zeroes while it is not known. Both are as frames have them.
    pub destination_mac: [u8; 6],
    /// Our MAC.
    pub source_mac: [u8; 6],
    /// The gateway's IPv4 address, zeroes where there is none.
    pub gateway: [u8; 4],
    /// The gateway's IPv6 address, zeroes where there is none.
    pub gateway6: [u8; 16],
    /// What is put around packets: a word of [`Encapsulation`](crate::encapsulation::Encapsulation).
    pub encapsulation: u64,
}

const _: () = assert!(size_of::<MemberEntry>() == 48);

/// Read access to the tables. `None` is an index out of bounds, which a consistent table never has.
pub trait FibTables {
    /// A first-level word.
    fn l1(&self, index: u32) -> Option<u32>;
    /// A second-level word.
    fn l2(&self, index: u32) -> Option<u32>;
    /// A group word.
    fn group(&self, index: u32) -> Option<u64>;
    /// A bucket: a member's index.
    fn bucket(&self, index: u32) -> Option<u32>;
    /// A member.
    fn member(&self, index: u32) -> Option<MemberEntry>;
}

/// What the FIB says of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Out by this member.
    Forward(MemberEntry),
    /// The kernel's business.
    Kernel,
    /// Dropped.
    Blackhole,
    /// Dropped, for want of room.
    NoRoom,
    /// No route.
    Miss,
}

/// The group word of one member.
pub const fn group_member(member: u32) -> u64 {
    (GROUP_MEMBER as u64) << 56 | member as u64
}

/// The group word of `1 << log2` buckets from `base` on.
pub const fn group_buckets(base: u32, log2: u8) -> u64 {
    (GROUP_BUCKETS as u64) << 56 | (log2 as u64) << 32 | base as u64
}

/// The group word of a kind without members.
pub const fn group_kind(kind: u8) -> u64 {
    (kind as u64) << 56
}

/// Looks up a destination (host byte order); `hash`, which is only asked for then, chooses among a group's members.
#[inline(always)]
pub fn lookup4<T: FibTables>(tables: &T, destination: u32, hash: impl FnOnce() -> u32) -> Route {
    let Some(mut word) = tables.l1(destination >> 8) else { return Route::Miss };
    if word & L1_CHUNK != 0 {
        let index = (word & !L1_CHUNK) * CHUNK_WORDS + (destination & 0xff);
        match tables.l2(index) {
            Some(second) => word = second,
            None => return Route::Miss,
        }
    }
    lookup_group4(tables, word & SLOT_GROUP, hash)
}

/// The second half of a lookup: from a group to a member.
#[inline(always)]
pub fn lookup_group4<T: FibTables>(tables: &T, group: u32, hash: impl FnOnce() -> u32) -> Route {
    if group == NO_GROUP {
        return Route::Miss;
    }
    let Some(group) = tables.group(group) else { return Route::Miss };
    let low = group as u32;
    let index = match (group >> 56) as u8 {
        GROUP_MEMBER => low,
        GROUP_BUCKETS => {
            let mask = (1u32 << ((group >> 32) as u8 & 31)) - 1;
            match tables.bucket(low.wrapping_add(hash() & mask)) {
                Some(member) => member,
                None => return Route::Miss,
            }
        }
        GROUP_BLACKHOLE => return Route::Blackhole,
        GROUP_NO_ROOM => return Route::NoRoom,
        _ => return Route::Kernel,
    };
    match tables.member(index) {
        Some(member) => Route::Forward(member),
        None => Route::Miss,
    }
}
