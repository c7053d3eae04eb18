//! A flow's entry where the map has it.

use core::ptr::NonNull;

use lb_dataplane_common::family::Family;
use lb_dataplane_common::flow::{Flow, FlowEntry, Translation};

use crate::atomic;

/// An entry of `FLOWS` or `FLOWS6` in place, and its state when it was looked up.
///
/// Invariant: an array never frees its elements, so the entry stays valid while the program runs. One that is
/// reused meanwhile is another flow's, which its tag tells.
pub struct FlowPtr {
    place: NonNull<FlowEntry>,
    seen: u32,
}

impl FlowPtr {
    /// What a lookup found, if it still is what was looked for.
    #[inline(always)]
    pub fn of(at: *mut FlowEntry, tag: u32) -> Option<Self> {
        // SAFETY: the invariant; volatile and in this order, since other CPUs write them.
        let (seen, check) = unsafe {
            ((&raw const (*at).state).read_volatile(), (&raw const (*at).check).read_volatile())
        };
        atomic::barrier();
        FlowEntry::bears(tag, seen, check).then(|| Self::from_parts(at, seen))
    }

    /// The state of an entry.
    #[inline(always)]
    pub fn state_at(at: *mut FlowEntry) -> u32 {
        // SAFETY: the invariant; volatile, since other CPUs write it.
        let seen = unsafe { (&raw const (*at).state).read_volatile() };
        atomic::barrier();
        seen
    }

    /// Where it is, and its state when it was looked up: what subprograms are given of it.
    #[inline(always)]
    pub fn parts(&self) -> (*mut FlowEntry, u32) {
        (self.at(), self.seen)
    }

    /// From those.
    #[inline(always)]
    pub fn from_parts(at: *mut FlowEntry, seen: u32) -> Self {
        // SAFETY: a map's element is not at address 0.
        Self { place: unsafe { NonNull::new_unchecked(at) }, seen }
    }

    #[inline(always)]
    fn at(&self) -> *mut FlowEntry {
        self.place.as_ptr()
    }

    #[inline(always)]
    fn state_and_number(&self) -> *mut u64 {
        // SAFETY: the invariant; the two halves of the word are beside one another, aligned to 8 bytes.
        unsafe { (&raw mut (*self.at()).state).cast() }
    }
}

impl Flow for FlowPtr {
    #[inline(always)]
    fn translation<A: Family>(&self) -> Translation<A> {
        // SAFETY: the invariant; of what is not this flow's any more, all bits are a value, and none is used.
        Translation::from_v6(unsafe { &(*self.at()).translation })
    }

    #[inline(always)]
    fn line(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.at()).line }
    }

    #[inline(always)]
    fn counted_as(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.at()).counted_as }
    }

    #[inline(always)]
    fn direction(&self) -> u8 {
        // SAFETY: as above.
        unsafe { (*self.at()).direction }
    }

    #[inline(always)]
    fn mss(&self) -> u16 {
        // SAFETY: as above.
        unsafe { (*self.at()).mss }
    }

    #[inline(always)]
    fn last_seen(&self) -> u32 {
        // SAFETY: the invariant; volatile, since other CPUs write it.
        unsafe { (&raw const (*self.at()).last_seen).read_volatile() }
    }

    #[inline(always)]
    fn set_last_seen(&self, tick: u32) {
        // SAFETY: the invariant; volatile, since other CPUs write it.
        unsafe { (&raw mut (*self.at()).last_seen).write_volatile(tick) }
    }

    #[inline(always)]
    fn seen(&self) -> u32 {
        self.seen
    }

    #[inline(always)]
    fn word(&self) -> u64 {
        // What was read of the entry before is not read after this.
        atomic::barrier();
        // SAFETY: the invariant; volatile, since other CPUs write it.
        unsafe { self.state_and_number().read_volatile() }
    }

    #[inline(always)]
    fn swap_word(&self, old: u64, new: u64) -> bool {
        // SAFETY: the invariant.
        unsafe { atomic::compare_exchange(self.state_and_number(), old, new) == old }
    }
}
