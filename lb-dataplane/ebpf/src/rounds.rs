//! The kernel's own loop, which its verifier reads once: written out, long ones are too much for it.

use core::ffi::{c_long, c_void};

use aya_ebpf::helpers::generated::bpf_loop;
use lb_dataplane_common::tables::Rounds;

use crate::maps::Maps;

/// Goes round so many times at most.
#[inline(always)]
pub fn run<R: Rounds<Maps>>(times: u32, rounds: &mut R) {
    let round: extern "C" fn(u32, *mut R) -> c_long = round::<R>;
    let rounds: *mut R = rounds;
    // SAFETY: the kernel hands these rounds to each call, and makes none after this one.
    unsafe {
        bpf_loop(times, round as *mut c_void, rounds.cast(), 0);
    }
}

/// One round; not zero ends the loop.
extern "C" fn round<R: Rounds<Maps>>(number: u32, rounds: *mut R) -> c_long {
    // SAFETY: `run` has them until the loop is over, and nobody else.
    if unsafe { &mut *rounds }.round(&Maps, number) { 0 } else { 1 }
}
