//! What is asked of a packet that may begin a flow: of which service it is, whether its client may, and where that one's last went.

use core::arch::asm;

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, LruHashMap};
use lb_dataplane_common::family::Family;
use lb_dataplane_common::list::{self, ListTables, NODE_WORDS, PAGE_NODES};
use lb_dataplane_common::service::{Affinity, AffinityKey, MAX_RANGE_PREFIXES, RangeKey};

use crate::fib_maps::WIDE_WORDS;

/// Which service of several ports a port belongs to.
#[map]
static RANGES: LpmTrie<RangeKey, u32> =
    // A plan puts its prefixes before it removes the old ones: room for both, which takes memory only while it is used.
    LpmTrie::with_max_entries(2 * MAX_RANGE_PREFIXES, BPF_F_NO_PREALLOC);
/// Where the list of a service is, of those who may begin flows.
#[map]
static ACCESS_LISTS: Array<u64> = Array::with_max_entries(64, BPF_F_MMAPABLE);
#[map]
static ACCESS_NODES: Array<[u64; WIDE_WORDS]> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Where clients' last flows went: 96 bytes each.
#[map]
static AFFINITIES: LruHashMap<AffinityKey, Affinity> = LruHashMap::with_max_entries(1024, 0);

/// The first port of the service of several ports that a port belongs to.
#[inline(always)]
pub fn range(key: &RangeKey) -> Option<u16> {
    const BITS: u32 = 8 * size_of::<RangeKey>() as u32;
    RANGES.get(Key::new(BITS, *key)).map(|first_port| *first_port as u16)
}

/// Whether the list of a service lets a client begin flows.
#[inline(always)]
pub fn admits<A: Family>(service: u32, client: A) -> Option<bool> {
    let [high, low] = list::bits(client);
    match admits_client(service, high, low) {
        REFUSED => Some(false),
        ADMITTED => Some(true),
        _ => None,
    }
}

const REFUSED: u32 = 0;
const ADMITTED: u32 = 1;
const NO_LIST: u32 = 2;

/// Apart, as the verifier would go on from each node at which a way through a list may end.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn admits_client(service: u32, high: u64, low: u64) -> u32 {
    match list::admits(&Lists, service, [high, low]) {
        Some(false) => REFUSED,
        Some(true) => ADMITTED,
        None => NO_LIST,
    }
}

/// The lists as the kernel has them.
struct Lists;

impl ListTables for Lists {
    type Node = *const u64;

    #[inline(always)]
    fn list(&self, service: u32) -> Option<u64> {
        let word = ACCESS_LISTS.get_ptr(service)?;
        // SAFETY: the word lives as long as the map, and user space writes it as a whole.
        Some(unsafe { word.read_volatile() })
    }

    #[inline(always)]
    fn list_node(&self, index: u32) -> Option<*const u64> {
        let page = ACCESS_NODES.get_ptr(index / PAGE_NODES)?;
        let first = index % PAGE_NODES * NODE_WORDS;
        // SAFETY: a page has as many nodes as that.
        Some(unsafe { page.cast::<u64>().add(first as usize) })
    }

    #[inline(always)]
    fn list_word(&self, node: *const u64, place: u32) -> u64 {
        // SAFETY: a word of a node, as the mask tells the verifier too; user space writes whole aligned words.
        unsafe { node.add((place % NODE_WORDS) as usize).read_volatile() }
    }

    #[inline(always)]
    fn any(&self, number: u64, node: *const u64) -> u64 {
        // What maps hold may be anything.
        let anything = self.list_word(node, 0);
        let mut hidden = number ^ anything;
        // SAFETY: adds nothing to a register; without it the compiler would take the two differences for none.
        unsafe { asm!("{v} += 0", v = inout(reg) hidden) };
        hidden ^ anything
    }
}

/// Where a client's last flow went.
#[inline(always)]
pub fn affinity(key: &AffinityKey) -> Option<Affinity> {
    let affinity = AFFINITIES.get_ptr(key)?;
    // SAFETY: an entry that is reused meanwhile is another client's, whose backend is checked before it is used.
    Some(unsafe { *affinity })
}

/// Notes where a client's flow goes.
#[inline(always)]
pub fn note_affinity(key: &AffinityKey, affinity: &Affinity) {
    // A client that is not noted is given to a backend as if it came for the first time.
    let _ = AFFINITIES.insert(key, affinity, 0);
}
