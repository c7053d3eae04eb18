//! Numbers that each CPU gives out in turn, in a part of its own.

use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;

/// The numbers that each CPU has given out.
#[map]
static NUMBERS: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

/// A distance between numbers after which any few of them lie far apart, whatever they are divided by: 2^32 / phi.
const FAR: u32 = 0x9e37_79b9;

/// The next number.
#[inline(always)]
pub fn next() -> u32 {
    let Some(next) = NUMBERS.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's element, which nothing else writes while the program runs.
    let number = unsafe {
        *next = (*next).wrapping_add(1);
        *next
    };
    // SAFETY: a helper without preconditions.
    number.wrapping_add(unsafe { bpf_get_smp_processor_id() }.wrapping_mul(FAR))
}

/// Goes on elsewhere.
#[inline(always)]
pub fn jump() {
    if let Some(next) = NUMBERS.get_ptr_mut(0) {
        // SAFETY: as above.
        unsafe { *next = (*next).wrapping_add(FAR) };
    }
}
