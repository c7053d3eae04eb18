//! Lets aya read and write the layouts of `lb-dataplane-common`.
#![expect(unsafe_code, reason = "aya asks for a promise that a type is plain old data")]

use lb_dataplane_common::family::Family;
use lb_dataplane_common::flow::{FlowEntry, FlowKey, Timeouts};
use lb_dataplane_common::reason::ReasonCounts;
use lb_dataplane_common::service::{
    AffinityKey, BackendEntry, RangeKey, ServiceEntry, SourceEntry, VipKey,
};
use lb_dataplane_common::tables::{AnswerKey, KeptCounts, Record};

/// A key or value of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Raw<T>(pub(crate) T);

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
