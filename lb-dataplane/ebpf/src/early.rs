//! What user space is told of fragments that come before the first one of their datagram.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, LruHashMap, RingBuf};
use lb_dataplane_common::early::{EARLY_BYTES, EarlyFragment, EarlyHead, FirstCame};
use lb_dataplane_common::family::V6;
use lb_dataplane_common::fragment::FragmentKey;

use crate::sum;

/// Fragments for user space to keep: 256 KiB, 124 of them.
#[map]
static EARLY: RingBuf = RingBuf::with_byte_size(1 << 18, 0);

/// Datagrams of which fragments have come before the first one, and when the last of them did: as many as user space knows.
/// The loader sets how many.
#[map]
static AWAITED: LruHashMap<FragmentKey<V6>, u32> = LruHashMap::with_max_entries(1024, 0);

/// Addresses of backends: fragments from there may be answers of theirs.
#[map]
static BACKEND_ADDRESSES: HashMap<V6, u32> = HashMap::with_max_entries(64, BPF_F_NO_PREALLOC);

/// Whether an address is a backend's.
#[inline(always)]
pub fn is_backend(address: &V6) -> bool {
    BACKEND_ADDRESSES.get_ptr(address).is_some()
}

/// When a fragment last came before the first one of its datagram.
#[inline(always)]
pub fn awaited(key: &FragmentKey<V6>) -> Option<u32> {
    let seen = AWAITED.get_ptr(key)?;
    // SAFETY: an entry that is reused meanwhile is another datagram's, but whole.
    Some(unsafe { *seen })
}

/// Notes that one has.
#[inline(always)]
pub fn note_awaited(key: &FragmentKey<V6>, now: u32) {
    // A fragment that is not noted is given up in time.
    let _ = AWAITED.insert(key, now, 0);
}

/// Hands a fragment to user space. `read` copies bytes of it, from its IP header on, and says whether it could.
#[inline(always)]
pub fn keep(head: &EarlyHead, read: impl Fn(*mut u8, u32) -> bool) -> bool {
    const ROOM: u32 = EARLY_BYTES as u32;
    let Some(mut place) = EARLY.reserve::<EarlyFragment>(0) else { return false };
    let kept: *mut EarlyFragment = place.as_mut_ptr();
    let len = sum::bounded::<ROOM>(head.packet_len.wrapping_sub(1)) + 1;
    // SAFETY: the reservation is as large as an `EarlyFragment`, and `len` no more than its room; what is not written is behind
    // the packet's end, where user space does not look.
    let is_read = unsafe {
        (*kept).head = *head;
        read((&raw mut (*kept).bytes).cast(), len)
    };
    if is_read {
        place.submit(0);
    } else {
        place.discard(0);
    }
    is_read
}

/// Tells user space that a datagram's first fragment has come.
#[inline(always)]
pub fn tell_first_came(first: &FirstCame) {
    if let Some(mut place) = EARLY.reserve::<FirstCame>(0) {
        place.write(*first);
        place.submit(0);
    }
}
