//! The FIB's maps: pages that user space writes directly, and one aligned 32-bit or 64-bit load per slot here.

use core::mem::transmute;

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use lb_dataplane_common::fib::{FibTables, MemberEntry};
use lb_dataplane_common::fib6::{Fib6Tables, PAGE_UNITS, ROOT6_MAP_WORDS, UNIT_WORDS};

/// Words in a page.
const WORDS: usize = lb_dataplane_common::service::PAGE_WORDS;
/// Words of a member.
const MEMBER_WORDS: usize = size_of::<MemberEntry>() / 8;
/// Groups, and other words of 64 bits, in a page: as many bytes as a page of words.
pub const WIDE_WORDS: usize = WORDS / 2;

#[map]
static FIB4_L1: Array<[u32; WORDS]> = Array::with_max_entries(16_384, BPF_F_MMAPABLE);
#[map]
static FIB4_L2: Array<[u32; WORDS]> = Array::with_max_entries(64, BPF_F_MMAPABLE);
#[map]
static FIB6_ROOT: Array<[u64; WIDE_WORDS]> =
    Array::with_max_entries(ROOT6_MAP_WORDS / WIDE_WORDS as u32, BPF_F_MMAPABLE);
#[map]
static FIB6_NODES: Array<[u64; WIDE_WORDS]> = Array::with_max_entries(64, BPF_F_MMAPABLE);
#[map]
static FIB_GROUPS: Array<[u64; WIDE_WORDS]> = Array::with_max_entries(8, BPF_F_MMAPABLE);
#[map]
static FIB_BUCKETS: Array<[u32; WORDS]> = Array::with_max_entries(8, BPF_F_MMAPABLE);
#[map]
static FIB_MEMBERS: Array<MemberEntry> = Array::with_max_entries(1024, BPF_F_MMAPABLE);

/// The FIB as the kernel has it.
pub struct Fib;

impl FibTables for Fib {
    #[inline(always)]
    fn l1(&self, index: u32) -> Option<u32> {
        word(&FIB4_L1, index)
    }

    #[inline(always)]
    fn l2(&self, index: u32) -> Option<u32> {
        word(&FIB4_L2, index)
    }

    #[inline(always)]
    fn group(&self, index: u32) -> Option<u64> {
        wide_word(&FIB_GROUPS, index)
    }

    #[inline(always)]
    fn bucket(&self, index: u32) -> Option<u32> {
        word(&FIB_BUCKETS, index)
    }

    #[inline(always)]
    fn member(&self, index: u32) -> Option<MemberEntry> {
        let words = FIB_MEMBERS.get_ptr(index)?.cast::<[u64; MEMBER_WORDS]>();
        // Volatile, or the compiler would have a subprogram copy it, byte by byte.
        let word = |place: usize| {
            // SAFETY: the element lives as long as the map, the place is within it, and it is aligned to 8 bytes.
            unsafe { (&raw const (*words)[place]).read_volatile() }
        };
        let words = [word(0), word(1), word(2), word(3), word(4), word(5)];
        // SAFETY: of as many bytes, none of them padding, all bits are a value.
        Some(unsafe { transmute::<[u64; MEMBER_WORDS], MemberEntry>(words) })
    }
}

impl Fib6Tables for Fib {
    type Node = Node6;

    #[inline(always)]
    fn root6(&self, index: u32) -> Option<u64> {
        wide_word(&FIB6_ROOT, index)
    }

    #[inline(always)]
    fn shortcuts6(&self, first: u32) -> Option<[u64; 4]> {
        let page = FIB6_ROOT.get_ptr(first / WIDE_WORDS as u32)?;
        // The first of four: the mask tells the verifier so.
        let place = first as usize % WIDE_WORDS & !3;
        // SAFETY: the page lives as long as the map, the places are within it, and user space writes whole aligned words.
        let word = |way: usize| unsafe { (&raw const (*page)[place + way]).read_volatile() };
        Some([word(0), word(1), word(2), word(3)])
    }

    #[inline(always)]
    fn node6(&self, unit: u32) -> Option<Node6> {
        let page = FIB6_NODES.get_ptr(unit / PAGE_UNITS)?;
        Some(Node6 { page, first: unit % PAGE_UNITS * UNIT_WORDS })
    }

    #[inline(always)]
    fn word6(&self, node: Node6, index: u32) -> u64 {
        let place = (node.first + index) as usize % WIDE_WORDS;
        // SAFETY: the page lives as long as the map, the place is within it, and user space writes whole aligned words.
        unsafe { (&raw const (*node.page)[place]).read_volatile() }
    }
}

/// A node of the IPv6 trie: its page, and where in it the node begins.
#[derive(Clone, Copy)]
pub struct Node6 {
    page: *const [u64; WIDE_WORDS],
    first: u32,
}

/// A word of a map of pages.
#[inline(always)]
pub fn word(map: &Array<[u32; WORDS]>, index: u32) -> Option<u32> {
    let page = map.get_ptr(index / WORDS as u32)?;
    // SAFETY: the page lives as long as the map, the index is within it, and user space writes whole aligned words.
    Some(unsafe { (&raw const (*page)[index as usize % WORDS]).read_volatile() })
}

/// A word of a map of pages of 64-bit words.
#[inline(always)]
pub fn wide_word(map: &Array<[u64; WIDE_WORDS]>, index: u32) -> Option<u64> {
    let page = map.get_ptr(index / WIDE_WORDS as u32)?;
    // SAFETY: as above.
    Some(unsafe { (&raw const (*page)[index as usize % WIDE_WORDS]).read_volatile() })
}
