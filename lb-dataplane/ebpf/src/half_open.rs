//! The rings of half-open flows.

use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};
use lb_dataplane_common::family::{Family, V4, V6};
use lb_dataplane_common::flow::FlowKey;

use crate::atomic;

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

/// Takes the next place of this CPU's ring of a family; where it is in the map.
#[inline(always)]
pub fn take(family: u32, mask: &'static u32) -> Option<u32> {
    let next = HALF_OPEN_NEXT.get_ptr_mut(family)?;
    // SAFETY: this CPU's element, which nothing else writes while the program runs.
    let begun = unsafe {
        *next += 1;
        *next as u32
    };
    Some(of_this_cpu(begun, mask))
}

/// The number of the place that is [taken](take) next: one more than where it is in the map, so that 0 is none.
#[inline(always)]
pub fn next(family: u32, mask: &'static u32) -> u32 {
    let Some(next) = HALF_OPEN_NEXT.get_ptr(family) else { return 0 };
    // SAFETY: as above.
    let begun = unsafe { *next as u32 };
    of_this_cpu(begun.wrapping_add(1), mask) + 1
}

#[inline(always)]
fn of_this_cpu(begun: u32, mask: &'static u32) -> u32 {
    // SAFETY: a static of this program; volatile, since the loader changes it in the object.
    let mask = unsafe { core::ptr::from_ref(mask).read_volatile() };
    // SAFETY: a helper without preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    cpu * (mask + 1) + (begun & mask)
}

/// Writes a flow into a place of this CPU's ring; which flow had it.
#[inline(always)]
pub fn enter<A: Family>(place: *mut FlowKey<A>, flow: &FlowKey<A>) -> FlowKey<A> {
    // SAFETY: an element of the map, in which no other CPU writes a flow; what one empties meanwhile was confirmed, or is written anew.
    unsafe {
        let old = *place;
        *place = *flow;
        old
    }
}

/// Empties a place that a flow has, maybe another CPU's, which may write another flow there meanwhile: what is emptied is the word of
/// ports and protocol, and only where it is still this flow's.
#[inline(always)]
pub fn leave<A: Family>(place: *mut FlowKey<A>, flow: &FlowKey<A>) {
    // SAFETY: an element of the map, and a key as it has them: that word is aligned to 8 bytes in both. Volatile, since another CPU may
    // write the element.
    unsafe {
        let ends = (&raw mut (*place).source_port).cast::<u64>();
        let of_flow = (&raw const flow.source_port).cast::<u64>().read();
        if ends.read_volatile() == of_flow
            && (&raw const (*place).source).read_volatile() == flow.source
            && (&raw const (*place).destination).read_volatile() == flow.destination
        {
            atomic::compare_exchange(ends, of_flow, 0);
        }
    }
}
