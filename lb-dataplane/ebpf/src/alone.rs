//! What is known of backends whose answers need no flow.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use lb_dataplane_common::service::VipKey;

/// The backend that is alone at an address and port.
#[map]
static ALONE: HashMap<VipKey, u32> = HashMap::with_max_entries(64, BPF_F_NO_PREALLOC);
/// The tick in which a packet last went on without a flow to one.
#[map]
static WITHOUT_FLOW: Array<u32> = Array::with_max_entries(1, 0);

/// The backend that is alone at an address and port.
#[inline(always)]
pub fn at(key: &VipKey) -> Option<u32> {
    let backend = ALONE.get_ptr(key)?;
    // SAFETY: an entry that is reused meanwhile is another backend's, which says whose its answers are.
    Some(unsafe { *backend })
}

/// The tick in which a packet last went on without a flow.
#[inline(always)]
pub fn since() -> u32 {
    WITHOUT_FLOW.get(0).copied().unwrap_or(0)
}

/// Notes that one does. Written once a tick, since all CPUs read it.
#[inline(always)]
pub fn note(now: u32) {
    if let Some(since) = WITHOUT_FLOW.get_ptr_mut(0) {
        // SAFETY: an aligned word, of which any value that a CPU wrote will do.
        unsafe {
            if *since != now {
                *since = now;
            }
        }
    }
}
