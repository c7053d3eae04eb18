//! Who may begin flows of a service: its list of prefixes, as packets look it up.
//!
//! A list is written down without its nesting: where along all addresses it changes whether clients may begin flows, in order.
//! These bounds are a B+ tree (Comer, The Ubiquitous B-Tree, 1979) whose nodes are lines of the cache: seven bounds, and what
//! holds before, between and behind them. So a lookup takes as many lines as the list has levels, which is 1 for three prefixes
//! and 5 for 10,000, whatever their lengths are and wherever the client is.
//!
//! ```text
//! service ─▶ List ─ first node ─▶ ref │ bound, ref │ … │ bound, ref ─▶ node ─▶ … ─▶ admitted, refused, or
//!                                                                               a tree for the next 48 bits
//! ```
//!
//! A bound has 48 bits of an address, which is all of IPv4's. Where a prefix of IPv6 is longer, what holds within its first 48
//! bits is a tree of its own for the next ones. A list is never changed: the next one is written elsewhere, and takes its place by
//! one store.

use crate::family::Family;

/// Words of a node: a line of the cache.
pub const NODE_WORDS: u32 = 8;
/// Nodes in a page.
pub const PAGE_NODES: u32 = 64;
/// Bits of an address in a bound.
pub const BOUND_BITS: u32 = 48;
/// Where in a word the bound stands; below is the ref of what begins there. A node's first word has a ref alone, as its first bound
/// is below all that come here.
pub const BOUND_SHIFT: u32 = 64 - BOUND_BITS;
/// The ref in a word.
pub const REF: u64 = (1 << BOUND_SHIFT) - 1;
/// A ref of clients who may not begin flows.
pub const REF_REFUSED: u64 = 0;
/// A ref of clients who may. Greater ones name nodes of the list, counted from 1.
pub const REF_ADMITTED: u64 = 1;
/// Set in a node's first word where its refs say what holds: those of nodes lead to trees for the next bits. The refs of other
/// nodes lead to nodes of the same tree.
pub const NODE_LAST: u64 = 1 << 63;
/// A word without a bound: it is behind all addresses.
pub const NO_BOUND: u64 = u64::MAX;
/// Nodes of a list at most, so that each has a ref that is below what an address that is looked for has in its place.
pub const MAX_NODES: u32 = 0xfff0;
/// What stands in the place of a ref in an address that is looked for: above all refs, and below [`NO_BOUND`].
const LOOKED_FOR: u64 = 0xfffc;
/// Prefixes of a service at most.
pub const MAX_PREFIXES: usize = 16_384;
/// Levels of a tree at most: of 8 refs a node, for twice as many bounds as there are prefixes, and one.
const MAX_LEVELS: u32 = 6;
/// Nodes on the way to what holds at most: IPv6 has three times 48 bits.
const MAX_STEPS: u32 = 3 * MAX_LEVELS;

/// Where a list is: a word of `ACCESS_LISTS`, by the service's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List {
    /// Its first node in `ACCESS_NODES`.
    pub first: u32,
    /// How many it has, one at least.
    pub nodes: u32,
}

impl List {
    /// The word.
    #[must_use]
    pub const fn to_word(self) -> u64 {
        self.first as u64 | (self.nodes as u64) << 32
    }

    /// From a word; `None` if there is no list.
    #[must_use]
    #[inline(always)]
    pub const fn from_word(word: u64) -> Option<Self> {
        let (first, nodes) = (word as u32, (word >> 32) as u32);
        if nodes == 0 { None } else { Some(Self { first, nodes }) }
    }
}

/// Read access to the lists. `None` is an index out of bounds, which a consistent table never has.
pub trait ListTables {
    /// A node that was found.
    type Node: Copy;

    /// The word of a service.
    fn list(&self, service: u32) -> Option<u64>;
    /// A node.
    fn list_node(&self, index: u32) -> Option<Self::Node>;
    /// A word of a node, below [`NODE_WORDS`].
    fn list_word(&self, node: Self::Node, place: u32) -> u64;
    /// The same number, of which in the kernel neither the compiler nor the verifier knows anything then.
    fn any(&self, number: u64, _: Self::Node) -> u64 {
        number
    }
}

/// A client's address as lists have it: the bits of IPv4 are the first ones.
#[inline(always)]
pub fn bits<A: Family>(client: A) -> [u64; 2] {
    let [a, b, c, d] = client.to_v6().map(|word| u64::from(u32::from_be(word)));
    if A::IS_V6 { [a << 32 | b, c << 32 | d] } else { [d << 32, 0] }
}

/// Whether a client may begin flows of a service with a list; `None` if the tables are not as they are written.
#[inline(always)]
pub fn admits<T: ListTables>(
    tables: &T,
    service: u32,
    [mut high, mut low]: [u64; 2],
) -> Option<bool> {
    let List { first, .. } = List::from_word(tables.list(service)?)?;
    let mut index = first;
    for _ in 0..MAX_STEPS {
        let node = tables.list_node(index)?;
        // Half of what a word is, so that the difference of two has a sign.
        let wanted = high >> BOUND_SHIFT << (BOUND_SHIFT - 1) | LOOKED_FOR >> 1;
        // A compiler that knew that it has none would make branches of the differences.
        let wanted = tables.any(wanted, node);
        let mut beyond = 0;
        // All are compared: a branch for each would be guessed wrong.
        let mut place = 1;
        while place < NODE_WORDS {
            beyond += wanted.wrapping_sub(tables.list_word(node, place) >> 1) >> 63;
            place += 1;
        }
        let held = tables.list_word(node, NODE_WORDS - 1 - beyond as u32) & REF;
        if tables.list_word(node, 0) & NODE_LAST != 0 {
            if held <= REF_ADMITTED {
                return Some(held == REF_ADMITTED);
            }
            high = tables.any(high << BOUND_BITS | low >> (64 - BOUND_BITS), node);
            low = tables.any(low << BOUND_BITS, node);
        }
        index = first.wrapping_add(held as u32).wrapping_sub(1);
    }
    None
}

const _: () = assert!(MAX_PREFIXES < 8_usize.pow(MAX_LEVELS) / 2);
