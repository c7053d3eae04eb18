//! Which line of the counters is whose backend's.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};
use lb_dataplane_common::line::{self, LineEntry, Lines, NONE};

use crate::atomic;
use crate::counts::BACKENDS;

#[map]
static LINES: Array<LineEntry> = Array::with_max_entries(64, BPF_F_MMAPABLE);
/// How many were given out.
#[map]
static LAST_LINE: Array<u64> = Array::with_max_entries(1, 0);
/// The number that a CPU keeps for the next backend that has none.
#[map]
static KEPT_LINE: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

/// The line of a backend, which it is given where it has none.
#[inline(always)]
pub fn line_of(backend: u32) -> u32 {
    match Here.line(backend) {
        NONE => give_line(backend),
        line => line,
    }
}

/// Apart: the verifier reads it once, and a backend comes here once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn give_line(backend: u32) -> u32 {
    line::line_of(&Here, backend)
}

/// The line of a backend, or [`NONE`].
#[inline(always)]
pub fn has(backend: u32) -> u32 {
    Here.line(backend)
}

/// Whose a line is.
#[inline(always)]
pub fn backend_of(line: u32) -> u32 {
    let Some(entry) = LINES.get_ptr(line) else { return u32::MAX };
    // SAFETY: an element of the array, aligned; it is written once, before what has led here.
    unsafe { (&raw const (*entry).backend).read_volatile() }
}

/// Where a line's open flows are counted.
#[inline(always)]
pub fn open_at(line: u32) -> Option<*mut u32> {
    let entry = LINES.get_ptr_mut(line)?;
    // SAFETY: an element of the array.
    Some(unsafe { &raw mut (*entry).open })
}

/// Lines as this CPU gives them out.
struct Here;

impl Here {
    #[inline(always)]
    fn at(backend: u32) -> Option<*mut u32> {
        let entry = BACKENDS.get_ptr_mut(backend)?;
        // SAFETY: an element of the array.
        Some(unsafe { &raw mut (*entry).line })
    }
}

impl Lines for Here {
    #[inline(always)]
    fn line(&self, backend: u32) -> u32 {
        let Some(line) = Self::at(backend) else { return NONE };
        // SAFETY: the word is aligned; volatile, since other CPUs write it.
        unsafe { line.read_volatile() }
    }

    #[inline(always)]
    fn give(&self, backend: u32, line: u32) -> u32 {
        let Some(place) = Self::at(backend) else { return NONE };
        // SAFETY: the word is aligned to 4 bytes, and reads are single loads.
        unsafe { atomic::compare_exchange_word(place, NONE, line) }
    }

    #[inline(always)]
    fn kept(&self) -> u32 {
        KEPT_LINE.get(0).copied().unwrap_or(NONE)
    }

    #[inline(always)]
    fn keep(&self, line: u32) {
        if let Some(kept) = KEPT_LINE.get_ptr_mut(0) {
            // SAFETY: this CPU's element, which nothing else writes while the program runs.
            unsafe { *kept = line }
        }
    }

    #[inline(always)]
    fn next(&self) -> u32 {
        let Some(last) = LAST_LINE.get_ptr_mut(0) else { return NONE };
        // SAFETY: the element is aligned to 8 bytes, and is only ever accessed atomically.
        unsafe { atomic::fetch_add(last, 1) as u32 }.wrapping_add(1)
    }

    #[inline(always)]
    fn note(&self, line: u32, backend: u32) -> bool {
        let Some(entry) = LINES.get_ptr_mut(line) else { return false };
        // SAFETY: an element of the array, which is nobody's yet; volatile, so that it is written before it is given.
        unsafe { (&raw mut (*entry).backend).write_volatile(backend) };
        line != NONE
    }
}
