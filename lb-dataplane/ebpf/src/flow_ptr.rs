//! A flow's entry where the map has it.

use lb_dataplane_common::family::Family;
use lb_dataplane_common::flow::{Flow, FlowEntry, Translation};

use crate::atomic;

/// An entry of `FLOWS` or `FLOWS6` in place.
///
/// Invariant: a preallocated hash never frees its elements, so the entry stays valid while the program runs. One that is
/// reused meanwhile is another flow's, but whole.
pub struct FlowPtr(pub *mut FlowEntry);

impl Flow for FlowPtr {
    #[inline(always)]
    fn translation<A: Family>(&self) -> Translation<A> {
        // SAFETY: the invariant; this part never changes in place.
        Translation::from_v6(unsafe { &(*self.0).translation })
    }

    #[inline(always)]
    fn backend(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).backend }
    }

    #[inline(always)]
    fn service(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).service }
    }

    #[inline(always)]
    fn direction(&self) -> u8 {
        // SAFETY: as above.
        unsafe { (*self.0).direction }
    }

    #[inline(always)]
    fn mss(&self) -> u16 {
        // SAFETY: as above.
        unsafe { (*self.0).mss }
    }

    #[inline(always)]
    fn state(&self) -> u32 {
        // SAFETY: the invariant; volatile, since other CPUs write it.
        unsafe { (&raw const (*self.0).state).read_volatile() }
    }

    #[inline(always)]
    fn set_state(&self, bits: u32) -> u32 {
        // SAFETY: the invariant; the word is aligned.
        unsafe { atomic::fetch_or(&raw mut (*self.0).state, bits) }
    }

    #[inline(always)]
    fn clear_state(&self, bits: u32) {
        // SAFETY: the invariant; the word is aligned.
        unsafe { atomic::and(&raw mut (*self.0).state, !bits) }
    }

    #[inline(always)]
    fn last_seen(&self) -> u32 {
        // SAFETY: the invariant; volatile, since other CPUs write it.
        unsafe { (&raw const (*self.0).last_seen).read_volatile() }
    }

    #[inline(always)]
    fn set_last_seen(&self, tick: u32) {
        // SAFETY: the invariant; volatile, since other CPUs write it.
        unsafe { (&raw mut (*self.0).last_seen).write_volatile(tick) }
    }

    #[inline(always)]
    fn first_reply(&self) -> u32 {
        // SAFETY: the invariant; volatile, since other CPUs write it.
        unsafe { (&raw const (*self.0).first_reply).read_volatile() }
    }

    #[inline(always)]
    fn set_first_reply(&self, sequence: u32) {
        // SAFETY: the invariant; volatile, since other CPUs read it.
        unsafe { (&raw mut (*self.0).first_reply).write_volatile(sequence) }
    }
}
