//! The IPv6 FIB's layout and lookup: a multibit trie with strides of 8 bits over the next-hop groups of [`crate::fib`].
//!
//! ```text
//!             root: a word per /24 below 2000::/3, per /16 elsewhere
//! destination ─▶ word ─┬─ group of the longest prefix that ends at this level
//!                      └─ node ─▶ head │ where runs begin │ runs ─▶ word ─┬─ group
//!                                                                        └─ node ─▶ …
//! ```
//!
//! A node stands for one byte of the address. Neighbouring slots that say the same are one run. A node of up to six runs,
//! which most are, is one cache line: a word lists where they begin. In a larger one a bitmap says so, and a rank in it
//! finds the slot's run. A node may skip up to four bytes that all its routes share; its head has them for comparison, so a
//! lone /48 below a /32 costs one node.
//!
//! Most routes are longer than /40, and three nodes lead there. So behind the root's words stands a hash table, a set of four
//! entries to a quarter of a cache line each, that names the node for the sixth byte (or a later one) of addresses by their
//! first five. It only saves steps: where it has no entry, or where the nodes below have no route, the way goes from the root.
//!
//! A word holds a route and a node both, so a longer prefix leaves the shorter one's word alone, and the lookup remembers
//! the last group that it met. Words are replaced as a whole. A node's runs never move: where one is to begin or end, the
//! node is built anew elsewhere, and the word that leads to it is swapped.

use crate::fib::{FibTables, NO_GROUP, Route, lookup_group4};

/// Words of the root for addresses below 2000::/3: one per /24.
pub const ROOT6_UNICAST: u32 = 1 << 21;
/// Words of the root: behind those, one per /16.
pub const ROOT6_WORDS: u32 = ROOT6_UNICAST + (1 << 16);
/// Words of the root's map before the shortcuts: the root itself.
pub const SHORTCUT6_FIRST: u32 = ROOT6_WORDS;
/// Sets of shortcuts.
pub const SHORTCUT6_SETS: u32 = 1 << 16;
/// Shortcuts in a set.
pub const SHORTCUT6_WAYS: u32 = 4;
/// Words of the root's map.
pub const ROOT6_MAP_WORDS: u32 = ROOT6_WORDS + SHORTCUT6_SETS * SHORTCUT6_WAYS;
/// Where in a shortcut the rest of the key stands, 24 bits; below is the node.
pub const SHORTCUT6_TAG_SHIFT: u32 = 32;
/// Where in a shortcut the bytes stand that lead to the node.
pub const SHORTCUT6_AT_SHIFT: u32 = 56;
/// Words in the unit that nodes are counted in: a cache line. Nodes are counted from 1.
pub const UNIT_WORDS: u32 = 8;
/// Units in a page: no node goes beyond one.
pub const PAGE_UNITS: u32 = 64;
/// Runs of a node with a list at most.
pub const LIST_RUNS: u32 = 6;
/// Words of a node with a list before its runs: the head and the list.
pub const LIST_FRONT: u32 = 2;
/// Words of a node with a bitmap before its runs: the head and the bitmap.
pub const BITMAP_FRONT: u32 = 5;
/// Set in the head of a node with a list.
pub const HEAD_LIST: u64 = 1 << 31;
/// Bits of a place in a list: 0 to 256, and one more for the comparison.
pub const LIST_BITS: u32 = 12;
/// A place in a list where no run begins.
pub const LIST_NONE: u64 = 256;
/// 1 in every place of a list.
const LIST_ONES: u64 = 0x0001_0010_0100_1001;
/// Bytes that a node skips at most.
pub const MAX_SKIP: u8 = 4;
/// Nodes on the way from the root to the last byte at most. A count of 64 bits: the verifier follows one of 32 bits only
/// while it is in a register.
pub const MAX_NODES: u64 = 14;

/// The group in a word.
pub const WORD_GROUP: u64 = (1 << WORD_LEN_SHIFT) - 1;
/// Where in a word the length of its route's prefix stands, less the bits before the node: five bits.
pub const WORD_LEN_SHIFT: u32 = 24;
/// Set in a word whose route a previous process wrote and this one has not renewed.
pub const WORD_STALE: u64 = 1 << 30;
/// Where in a word the node stands, counted in units; 0 is none.
pub const WORD_NODE_SHIFT: u32 = 32;

/// Read access to the tables. `None` is an index out of bounds, which a consistent table never has.
pub trait Fib6Tables: FibTables {
    /// A node that was found.
    type Node: Copy;

    /// A word of the root.
    fn root6(&self, index: u32) -> Option<u64>;
    /// A set of shortcuts by its first word's place in the root's map.
    fn shortcuts6(&self, first: u32) -> Option<[u64; SHORTCUT6_WAYS as usize]>;
    /// A node by its first unit.
    fn node6(&self, unit: u32) -> Option<Self::Node>;
    /// A word of a node.
    fn word6(&self, node: Self::Node, index: u32) -> u64;
}

/// The head of a node: the runs that begin in the first one, two and three quarters of its bitmap, if it has one, the bits
/// that it skips, and what they are to be.
pub const fn head(counts: [u8; 3], skip_bits: u8, skipped: u32) -> u64 {
    let [one, two, three] = counts;
    u32::from_le_bytes([one, two, three, skip_bits]) as u64 | (skipped as u64) << 32
}

/// Where in the root an address stands, given its first 64 bits, and how many bits that takes.
#[inline(always)]
pub const fn root_index(high: u64) -> (u32, u32) {
    if high >> 61 == 1 {
        ((high >> 40) as u32 & (ROOT6_UNICAST - 1), 24)
    } else {
        (ROOT6_UNICAST + (high >> 48) as u32, 16)
    }
}

/// Looks up a destination (both halves in host byte order); `hash`, which is only asked for then, chooses among a group's members.
#[inline(always)]
pub fn lookup6<T: Fib6Tables>(
    tables: &T,
    destination: [u64; 2],
    hash: impl FnOnce() -> u32,
) -> Route {
    match group6(tables, destination) {
        Some(group) => lookup_group4(tables, group, hash),
        None => Route::Miss,
    }
}

/// Where the shortcuts of an address stand, given its first 64 bits: the set's first word, and the tag in its place.
#[inline(always)]
pub const fn shortcut_place(high: u64) -> (u32, u64) {
    const KEY: u64 = (1 << 40) - 1;
    // Each step can be undone, so set and tag together are the key.
    let mut key = high >> 24;
    key ^= key >> 21;
    key = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) & KEY;
    key ^= key >> 19;
    let set = (key as u32) & (SHORTCUT6_SETS - 1);
    (SHORTCUT6_FIRST + set * SHORTCUT6_WAYS, key >> 16 << SHORTCUT6_TAG_SHIFT)
}

/// Whether a shortcut has a tag.
#[inline(always)]
pub const fn has_tag(shortcut: u64, tag: u64) -> bool {
    (shortcut ^ tag) << 8 >> (8 + SHORTCUT6_TAG_SHIFT) == 0
}

/// The first half of a lookup: from a destination to a group.
#[inline(always)]
pub fn group6<T: Fib6Tables>(tables: &T, destination: [u64; 2]) -> Option<u32> {
    let [high, low] = destination;
    let (first, tag) = shortcut_place(high);
    let mut hit = 0;
    for shortcut in tables.shortcuts6(first)? {
        // All ones where the tags are the same: a branch would be guessed wrong.
        let difference = (shortcut ^ tag) << 8 >> (8 + SHORTCUT6_TAG_SHIFT);
        hit |= shortcut & (difference.wrapping_sub(1) as i64 >> 63) as u64;
    }
    let node = hit << WORD_NODE_SHIFT;
    if node != 0 {
        let bits = ((hit >> SHORTCUT6_AT_SHIFT) as u32 * 8) & 63;
        let group = walk6(tables, node, high << bits | low >> 1 >> (63 - bits), low << bits)?;
        if group != NO_GROUP {
            return Some(group);
        }
    }
    let (index, bits) = root_index(high);
    let word = tables.root6(index)?;
    walk6(tables, word, high << bits | low >> (64 - bits), low << bits)
}

/// Follows a word to its nodes; `high` and `low` are what is left of the address, the next byte first.
#[inline(always)]
fn walk6<T: Fib6Tables>(tables: &T, mut word: u64, mut high: u64, mut low: u64) -> Option<u32> {
    let mut group = (word & WORD_GROUP) as u32;
    for _ in 0..MAX_NODES {
        let node = (word >> WORD_NODE_SHIFT) as u32;
        if node == 0 {
            break;
        }
        let node = tables.node6(node)?;
        let head = tables.word6(node, 0);
        let skip = (head >> 24) as u32 & 63;
        if ((high ^ head) >> 32) >> ((32 - skip) & 63) != 0 {
            break;
        }
        // Shifted twice, as neither count may be 64.
        high = high << skip | low >> 1 >> (63 - skip);
        low <<= skip;
        let byte = high >> 56;
        high = high << 8 | low >> 56;
        low <<= 8;
        let run = if head & HEAD_LIST != 0 {
            LIST_FRONT + list_rank(tables.word6(node, 1), byte)
        } else {
            let quarter = (byte >> 6) as u32;
            let begins = tables.word6(node, 1 + quarter) << (63 - (byte & 63));
            let before = (head << 8 >> (8 * quarter)) as u32 & 0xff;
            BITMAP_FRONT - 1 + before + begins.count_ones()
        };
        word = tables.word6(node, run);
        let longer = (word & WORD_GROUP) as u32;
        if longer != NO_GROUP {
            group = longer;
        }
    }
    Some(group)
}

/// How many of a list's places are not behind a byte: all are compared at once.
#[inline(always)]
const fn list_rank(list: u64, byte: u64) -> u32 {
    const BORROWS: u64 = LIST_ONES << (LIST_BITS - 1);
    let reached = (((byte * LIST_ONES) | BORROWS) - list) & BORROWS;
    let sums = (reached >> (LIST_BITS - 1)).wrapping_mul(LIST_ONES);
    (sums >> (4 * LIST_BITS)) as u32 & 0xf
}
