//! The flow tables where the programs have them.

use core::arch::asm;
use core::marker::PhantomData;

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use lb_dataplane_common::family::{Family, V4, V6};
use lb_dataplane_common::flow::{FlowEntry, FlowKey};
use lb_dataplane_common::flow_table::{self, Bucket, Key, STATE, Shared, Slot, Table};
use lb_dataplane_common::tables::InsertError;

use crate::atomic;
use crate::flow_ptr::FlowPtr;

/// User space reads them by way of their memory.
#[map]
static FLOWS: Array<Bucket<V4>> = Array::with_max_entries(2, BPF_F_MMAPABLE);
#[map]
static FLOWS6: Array<Bucket<V6>> = Array::with_max_entries(2, BPF_F_MMAPABLE);

/// The secret of both tables' hashes. Set by the loader.
#[unsafe(no_mangle)]
static LBD_FLOW_SECRETS: [u64; flow_table::SECRETS] = [0; flow_table::SECRETS];
/// Buckets of `FLOWS`. Set by the loader.
#[unsafe(no_mangle)]
static LBD_FLOW_BUCKETS: u32 = 0;
/// Buckets of `FLOWS6`. Set by the loader.
#[unsafe(no_mangle)]
static LBD_FLOW_BUCKETS6: u32 = 0;

/// A bucket in place.
pub struct BucketPtr<A>(*mut Bucket<A>);

impl<A> BucketPtr<A> {
    /// A word of a slot below [`SLOTS`](flow_table::SLOTS).
    #[inline(always)]
    fn word_of(&self, slot: u32, n: usize) -> *mut u64 {
        let slots = self.0.cast::<u8>().wrapping_add(core::mem::offset_of!(Bucket<A>, slots));
        slots.wrapping_add(slot as usize * size_of::<Slot<A>>()).wrapping_add(8 * n).cast()
    }
}

impl<A: Family> BucketPtr<A> {
    /// The entry in a slot below [`SLOTS`](flow_table::SLOTS).
    #[inline(always)]
    fn entry_at(&self, slot: u32) -> *mut FlowEntry {
        self.word_of(slot, FlowKey::<A>::WORDS).cast()
    }

    /// The same, if it still is a key's.
    #[inline(always)]
    fn entry(&self, key: &FlowKey<A>, slot: u32) -> Option<FlowPtr> {
        FlowPtr::of(self.entry_at(slot), key.tag())
    }
}

impl<A: Family> Shared<FlowKey<A>> for BucketPtr<A> {
    #[inline(always)]
    fn word(&self, n: usize) -> u64 {
        // SAFETY: an element of the map; volatile, since other CPUs write it.
        unsafe { (&raw const (*self.0).lanes).cast::<u64>().add(n).read_volatile() }
    }

    #[inline(always)]
    fn swap_word(&self, n: usize, old: u64, new: u64) -> bool {
        // SAFETY: as above; aligned to 8 bytes.
        unsafe {
            atomic::compare_exchange((&raw mut (*self.0).lanes).cast::<u64>().add(n), old, new)
                == old
        }
    }

    #[inline(always)]
    fn add_word(&self, n: usize, by: u64) {
        // One that says what was there, since that has all processors see first what was written before.
        // SAFETY: as above.
        unsafe { atomic::fetch_add((&raw mut (*self.0).lanes).cast::<u64>().add(n), by) };
    }

    #[inline(always)]
    fn away(&self) -> u64 {
        // SAFETY: as above.
        unsafe { (&raw const (*self.0).away).read_volatile() }
    }

    #[inline(always)]
    fn add_away(&self, by: u64) {
        // SAFETY: as above.
        unsafe { atomic::fetch_add(&raw mut (*self.0).away, by) };
    }

    #[inline(always)]
    fn has_key(&self, slot: u32, key: &FlowKey<A>) -> bool {
        let mut n = 0;
        while n < FlowKey::<A>::WORDS {
            // SAFETY: a slot of the element, volatile, since other CPUs write it; and a word of the key, which is aligned to 8 bytes:
            // volatile, so that the hash's reading of it takes no room on the stack.
            let (here, wanted) = unsafe {
                (
                    self.word_of(slot, n).read_volatile(),
                    core::ptr::from_ref(key).cast::<u64>().add(n).read_volatile(),
                )
            };
            if here != wanted {
                return false;
            }
            n += 1;
        }
        true
    }

    #[inline(always)]
    fn write(&self, slot: u32, key: &FlowKey<A>, entry: &FlowEntry) {
        const ENTRY: usize = size_of::<FlowEntry>() / 8;
        let mut n = 0;
        while n < FlowKey::<A>::WORDS {
            // SAFETY: as above; nobody else writes a slot whose lane this CPU has taken.
            unsafe { self.word_of(slot, n).write_volatile(key.word(n)) };
            n += 1;
        }
        let from = core::ptr::from_ref(entry).cast::<u64>();
        let copy = |n: usize| {
            // SAFETY: as above; an entry is that many words, aligned to 8 bytes.
            unsafe {
                self.word_of(slot, FlowKey::<A>::WORDS + n).write_volatile(from.add(n).read())
            };
        };
        let mut n = 0;
        while n < ENTRY {
            if n != STATE {
                copy(n);
            }
            n += 1;
        }
        // What it stands for is there.
        atomic::barrier();
        copy(STATE);
    }
}

/// A family's table.
struct Flows<A>(PhantomData<A>);

/// What differs between the families is the map, and what the loader says of it.
macro_rules! flows {
    ($family:ty, $map:ident, $buckets:ident, $module:ident, $find:ident, $insert:ident, $remove:ident) => {
        impl Table<FlowKey<$family>> for Flows<$family> {
            type Bucket = BucketPtr<$family>;

            #[inline(always)]
            fn buckets(&self) -> u32 {
                // SAFETY: a static of this program; volatile, since the loader changes it in the object.
                unsafe { (&raw const $buckets).read_volatile() }
            }

            #[inline(always)]
            fn secret(&self, n: usize) -> u64 {
                // SAFETY: as above; below the bound, as a key's words are.
                unsafe { (&raw const LBD_FLOW_SECRETS).cast::<u64>().add(n).read_volatile() }
            }

            #[inline(always)]
            fn anew(&self, mut number: u64) -> u64 {
                // SAFETY: a register is copied to itself.
                unsafe { asm!("{0} = {0}", inout(reg) number, options(nomem, nostack)) };
                number
            }

            #[inline(always)]
            fn bucket(&self, index: u32) -> Option<BucketPtr<$family>> {
                $map.get_ptr_mut(index).map(BucketPtr)
            }
        }

        pub mod $module {
            use super::*;

            const TABLE: Flows<$family> = Flows(PhantomData);
            /// In a bucket that is not there.
            const NONE: u64 = u64::MAX;
            const EXISTS: u32 = 1;
            const FULL: u32 = 2;

            /// The entry of a key, if it has one.
            #[inline(always)]
            pub fn flow(key: &FlowKey<$family>) -> Option<FlowPtr> {
                let place = $find(key);
                entry(key, (place >> 8) as u32, place as u32 & 15)
            }

            /// The same without a call. It may be another flow's by now, which its state tells.
            #[inline(always)]
            pub fn flow_at_once(key: &FlowKey<$family>) -> Option<FlowPtr> {
                let mut seen = 0;
                let place = flow_table::find_by(&TABLE, key, |bucket, slot| {
                    // Before the key: a flow that comes to this place later writes its key first, and its state last.
                    seen = FlowPtr::state_at(bucket.entry_at(slot));
                    bucket.has_key(slot, key)
                })?;
                Some(FlowPtr::from_parts(place.bucket.entry_at(place.slot), seen))
            }

            #[inline(always)]
            fn entry(key: &FlowKey<$family>, index: u32, slot: u32) -> Option<FlowPtr> {
                BucketPtr($map.get_ptr_mut(index)?).entry(key, slot)
            }

            #[inline(always)]
            pub fn insert(key: &FlowKey<$family>, entry: &FlowEntry) -> Result<(), InsertError> {
                match $insert(key, entry) {
                    0 => Ok(()),
                    EXISTS => Err(InsertError::Exists),
                    _ => Err(InsertError::Full),
                }
            }

            #[inline(always)]
            pub fn remove(key: &FlowKey<$family>) -> bool {
                $remove(key) != 0
            }

            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $find(key: *const FlowKey<$family>) -> u64 {
                // SAFETY: the caller's reference.
                let key = unsafe { key.as_ref() };
                match key.and_then(|key| flow_table::find(&TABLE, key)) {
                    Some(place) => u64::from(place.index) << 8 | u64::from(place.slot),
                    None => NONE,
                }
            }

            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $insert(key: *const FlowKey<$family>, entry: *const FlowEntry) -> u32 {
                // SAFETY: the caller's references.
                let (Some(key), Some(entry)) = (unsafe { (key.as_ref(), entry.as_ref()) }) else {
                    return FULL;
                };
                match flow_table::insert(&TABLE, key, entry) {
                    Ok(()) => 0,
                    Err(InsertError::Exists) => EXISTS,
                    Err(InsertError::Full) => FULL,
                }
            }

            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $remove(key: *const FlowKey<$family>) -> u32 {
                // SAFETY: the caller's reference.
                let key = unsafe { key.as_ref() };
                u32::from(key.is_some_and(|key| flow_table::remove(&TABLE, key)))
            }
        }
    };
}

flows!(V4, FLOWS, LBD_FLOW_BUCKETS, v4, find_flow_v4, insert_flow_v4, remove_flow_v4);
flows!(V6, FLOWS6, LBD_FLOW_BUCKETS6, v6, find_flow_v6, insert_flow_v6, remove_flow_v6);
