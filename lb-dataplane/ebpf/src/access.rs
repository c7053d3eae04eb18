//! What is asked of a packet that may begin a flow: of which service it is, whether its client may, and where that one's last went.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use lb_dataplane_common::service::{
    AccessKey, Affinity, AffinityKey, MAX_RANGE_PREFIXES, RangeKey,
};

/// Which service of several ports a port belongs to.
#[map]
static RANGES: LpmTrie<RangeKey, u32> =
    // A plan puts its prefixes before it removes the old ones: room for both, which takes memory only while it is used.
    LpmTrie::with_max_entries(2 * MAX_RANGE_PREFIXES, BPF_F_NO_PREALLOC);
/// Who may begin flows of which service.
#[map]
static ACCESS: LpmTrie<AccessKey, u32> = LpmTrie::with_max_entries(64, BPF_F_NO_PREALLOC);
/// Where clients' last flows went: 96 bytes each.
#[map]
static AFFINITIES: LruHashMap<AffinityKey, Affinity> = LruHashMap::with_max_entries(1024, 0);

/// The first port of the service of several ports that a port belongs to.
#[inline(always)]
pub fn range(key: &RangeKey) -> Option<u16> {
    const BITS: u32 = 8 * size_of::<RangeKey>() as u32;
    RANGES.get(Key::new(BITS, *key)).map(|first_port| *first_port as u16)
}

/// Whether the longest prefix of a client admits it to a service.
#[inline(always)]
pub fn access(key: &AccessKey) -> Option<bool> {
    const BITS: u32 = 8 * size_of::<AccessKey>() as u32;
    ACCESS.get(Key::new(BITS, *key)).map(|admitted| *admitted != 0)
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
