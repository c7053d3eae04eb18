//! How the last packet ended, for tests.

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use lb_dataplane_common::pipeline::{Outcome, TO_PEER};
use lb_dataplane_common::tables::Record;

#[map]
static RECORD: Array<Record> = Array::with_max_entries(1, 0);

/// Whether `RECORD` is written. The loader sets it before the verifier sees it, which then leaves out the dead code.
#[unsafe(no_mangle)]
static LBD_RECORD: u8 = 0;

/// Writes down how the packet ended, where the loader asked for it.
#[inline(always)]
pub fn record(outcome: &Outcome) {
    // SAFETY: a static of this program; volatile, since the loader changes it in the object.
    if unsafe { (&raw const LBD_RECORD).read_volatile() } == 0 {
        return;
    }
    if let Some(record) = RECORD.get_ptr_mut(0) {
        // SAFETY: the map's one element; tests run one packet at a time.
        unsafe {
            (*record).reason = outcome.reason as u32;
            (*record).ifindex = outcome.way.ifindex;
            // Not an array of zeroes: the compiler would write it by a call.
            let all = 0_u32.wrapping_sub(u32::from(outcome.way.resolve & !TO_PEER != 0));
            (*record).resolve = outcome.way.next_hop.map(|word| word & all);
            (*record).packets += 1;
        }
    }
}
