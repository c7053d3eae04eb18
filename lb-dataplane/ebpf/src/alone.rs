//! What is known of backends whose answers need no flow.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use lb_dataplane_common::flow::ticks_since;
use lb_dataplane_common::service::VipKey;

use crate::atomic;

/// The backend that is alone at an address and port.
#[map]
static ALONE: HashMap<VipKey, u32> = HashMap::with_max_entries(64, BPF_F_NO_PREALLOC);
/// By backend: the tick until which what comes from there may answer a packet that went on without a flow.
#[map]
static WITHOUT_FLOW: Array<u32> = Array::with_max_entries(64, 0);
/// The latest of them.
#[map]
static WITHOUT_FLOW_UNTIL: Array<u64> = Array::with_max_entries(1, 0);

/// The backend that is alone at an address and port.
#[inline(always)]
pub fn at(key: &VipKey) -> Option<u32> {
    let backend = ALONE.get_ptr(key)?;
    // SAFETY: an entry that is reused meanwhile is another backend's, which says whose its answers are.
    Some(unsafe { *backend })
}

/// The tick until which any backend's packets may be such answers.
#[inline(always)]
pub fn until() -> u32 {
    WITHOUT_FLOW_UNTIL.get(0).map_or(0, |until| *until as u32)
}

/// The tick until which a backend's may.
#[inline(always)]
pub fn until_of(backend: u32) -> u32 {
    WITHOUT_FLOW.get(backend).copied().unwrap_or(0)
}

/// Notes a packet to a backend. Each word is written once a tick, since all CPUs read it.
#[inline(always)]
pub fn note(backend: u32, until: u32) {
    if let Some(of_backend) = WITHOUT_FLOW.get_ptr_mut(backend) {
        // SAFETY: an aligned word, of which any value that a CPU wrote will do.
        unsafe {
            if *of_backend != until {
                *of_backend = until;
            }
        }
    }
    if let Some(of_all) = WITHOUT_FLOW_UNTIL.get_ptr_mut(0) {
        // SAFETY: the element is aligned to 8 bytes; volatile, since other CPUs write it.
        unsafe {
            let latest = of_all.read_volatile();
            if ticks_since(latest as u32, until) != 0 {
                // Who was first on another CPU may have been earlier: the next packet looks again.
                atomic::compare_exchange(of_all, latest, u64::from(until));
            }
        }
    }
}
