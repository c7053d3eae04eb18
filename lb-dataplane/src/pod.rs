//! Lets aya read and write the layouts of `lb-dataplane-common`.
#![expect(unsafe_code, reason = "aya asks for a promise that a type is plain old data")]

use std::mem::MaybeUninit;

use lb_dataplane_common::family::Family;
use lb_dataplane_common::flow::{FlowEntry, FlowKey, Timeouts};
use lb_dataplane_common::flow_table::Slot;
use lb_dataplane_common::reason::ReasonCounts;
use lb_dataplane_common::service::{
    AffinityKey, BackendEntry, RangeKey, ServiceEntry, SourceEntry, VipKey,
};
use lb_dataplane_common::tables::{AnswerKey, KeptCounts, Record};

/// A key or value of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Raw<T>(pub(crate) T);

impl<T: Copy> Raw<T>
where
    Self: aya::Pod,
{
    /// How many it has; all of what is read as words consists of whole ones.
    const WORDS: usize = {
        assert!(size_of::<T>().is_multiple_of(size_of::<u64>()));
        size_of::<T>() / size_of::<u64>()
    };

    /// From words in memory's order; `None` where there are fewer than it has.
    pub(crate) fn from_words(words: impl IntoIterator<Item = u64>) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        let mut words = words.into_iter();
        for n in 0..Self::WORDS {
            // SAFETY: a place within the value.
            unsafe { value.as_mut_ptr().cast::<u64>().add(n).write_unaligned(words.next()?) };
        }
        // SAFETY: every word was written, and every bit pattern is a value.
        Some(unsafe { value.assume_init() })
    }

    /// As words in memory's order.
    pub(crate) fn to_words(self) -> Vec<u64> {
        let from = (&raw const self.0).cast::<u64>();
        // SAFETY: every byte is initialised, and there are as many.
        (0..Self::WORDS).map(|n| unsafe { from.add(n).read_unaligned() }).collect()
    }
}

macro_rules! pod {
    ($($layout:ty),+ $(,)?) => {
        $(
            // SAFETY: `repr(C)` of integers and byte arrays without padding between them, so every bit pattern is a
            // value and every byte is initialised.
            unsafe impl aya::Pod for Raw<$layout> {}
        )+
    };
}

// SAFETY: as for the others; of the two families, which fill their layouts without padding, as assertions there say.
unsafe impl<A: Family> aya::Pod for Raw<FlowKey<A>> {}
// SAFETY: as above.
unsafe impl<A: Family> aya::Pod for Raw<Slot<A>> {}

pod!(
    AffinityKey,
    AnswerKey,
    FlowEntry,
    Timeouts,
    KeptCounts,
    ReasonCounts,
    VipKey,
    RangeKey,
    ServiceEntry,
    BackendEntry,
    SourceEntry,
    Record,
);
