//! The rings of half-open flows.

use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};
use lb_dataplane_common::family::{V4, V6};
use lb_dataplane_common::flow::FlowKey;

/// The rings of half-open flows, one after the other, a CPU's each.
#[map]
pub static HALF_OPEN: Array<FlowKey<V4>> = Array::with_max_entries(64, 0);
#[map]
pub static HALF_OPEN6: Array<FlowKey<V6>> = Array::with_max_entries(64, 0);
/// How many flows of each family this CPU has begun.
#[map]
static HALF_OPEN_NEXT: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);

/// Places of a CPU's ring of half-open flows less one: a power of two less one. Set by the loader.
#[unsafe(no_mangle)]
pub static LBD_HALF_OPEN_MASK: u32 = 0;
/// The same of IPv6.
#[unsafe(no_mangle)]
pub static LBD_HALF_OPEN_MASK6: u32 = 0;

/// The next place of this CPU's ring of a family, in the map.
#[inline(always)]
pub fn place(family: u32, mask: u32) -> Option<u32> {
    let next = HALF_OPEN_NEXT.get_ptr_mut(family)?;
    // SAFETY: this CPU's element, which nothing else writes while the program runs.
    let place = unsafe {
        *next += 1;
        *next as u32 & mask
    };
    // SAFETY: a helper without preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    Some(cpu * (mask + 1) + place)
}
