//! The clock of flows, read once for each turn of the scheduler's.

use core::cell::UnsafeCell;

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns};
use lb_dataplane_common::tables::TICK_SHIFT;

/// The tick as it was read last, its low half, and the low half of the scheduler's clock then, which costs nothing to read, and turns
/// more often than ticks do. One word for all CPUs: they read it together, and which of them writes it at a turn does not matter.
#[repr(C, align(64))]
struct Clock(UnsafeCell<u64>);

// SAFETY: an aligned word that is loaded and stored as a whole.
unsafe impl Sync for Clock {}

static CLOCK: Clock = Clock(UnsafeCell::new(0));

/// The current tick.
#[inline(always)]
pub fn tick() -> u32 {
    // SAFETY: helpers without preconditions, the first of which the verifier replaces by a load; volatile, since other CPUs write
    // the word.
    unsafe {
        let turn = bpf_jiffies64() << 32;
        let word = CLOCK.0.get().read_volatile();
        let tick = word as u32;
        // There is none yet while it is zero, as it is in the first second of the host's time.
        if word & !u64::from(u32::MAX) == turn && tick != 0 {
            return tick;
        }
        let tick = (bpf_ktime_get_coarse_ns() >> TICK_SHIFT) as u32;
        CLOCK.0.get().write_volatile(turn | u64::from(tick));
        tick
    }
}
