//! The clock of flows, read once for each turn of the scheduler's.

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use lb_dataplane_common::tables::TICK_SHIFT;

/// The tick, as this CPU read it last.
#[map]
static CLOCK: PerCpuArray<Clock> = PerCpuArray::with_max_entries(1, 0);
/// When a CPU read the clock: that of the scheduler costs nothing to read, and turns more often than ticks do.
#[repr(C)]
struct Clock {
    jiffies: u64,
    tick: u64,
}

/// The current tick.
#[inline(always)]
pub fn tick() -> u32 {
    let Some(clock) = CLOCK.get_ptr_mut(0) else { return 0 };
    // SAFETY: helpers without preconditions, the first of which the verifier replaces by a load; this CPU's element, which
    // nothing else uses while the program runs.
    unsafe {
        let jiffies = bpf_jiffies64();
        if (*clock).jiffies != jiffies {
            (*clock).tick = bpf_ktime_get_coarse_ns() >> TICK_SHIFT;
            (*clock).jiffies = jiffies;
        }
        (*clock).tick as u32
    }
}
