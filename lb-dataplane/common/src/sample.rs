//! Flows that are watched, one in so many: their packets are counted, and their beginning and end told.
//!
//! Whether any are is a constant of the loaded programs, and a flow's state says whether it is one: packets of others pay
//! nothing where none are, and one test where some are.

use crate::family::{Family, V6};
use crate::flow::FlowKey;
use crate::hash::FlowHash;
use crate::pipeline::{Arrival, Scratch, Step, key_to_backend};
use crate::tables::Tables;

/// Value of the LRU hash `SAMPLES`, by the key of a flow's packets to its backend, an IPv4 one's addresses mapped into IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Sample {
    /// When it began: nanoseconds of the kernel's monotonic clock.
    pub begun: u64,
    /// Packets by `DIRECTION_*`.
    pub packets: [u64; 2],
    /// Bytes of their frames.
    pub bytes: [u64; 2],
    /// What a packet to the backend carries behind us.
    pub after: FlowKey<V6>,
    /// The service.
    pub service: u32,
    /// The backend.
    pub backend: u32,
}

/// An element of the ring buffer `FLOW_EVENTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FlowEvent {
    /// One of the `EVENT_*` constants.
    pub kind: u32,
    /// At the end: the bits of `STATE_*` that it had, and perhaps [`EVICTED`].
    pub state: u32,
    /// When: as in [`Sample::begun`].
    pub at: u64,
    /// The key of its packets to the backend, as they arrive.
    pub key: FlowKey<V6>,
    /// What was counted.
    pub sample: Sample,
}

/// A flow began.
pub const EVENT_NEW: u32 = 1;
/// A flow ended.
pub const EVENT_END: u32 = 2;
/// Beside the state: it was half-open and had to make room for another.
pub const EVICTED: u32 = 1 << 31;

/// Whether a new flow is to be watched: by its hash, so that nothing is shared between CPUs, and by the hash's high bits, since
/// its low ones choose next hops and source addresses: a sample is to have flows of each.
#[inline(always)]
pub fn is_wanted<A: Family, T: Tables>(tables: &T, key: &FlowKey<A>) -> bool {
    let every = tables.samples_every();
    every != 0 && FlowHash::of(key).for_route() <= u32::MAX / every
}

/// Tells of a flow that this packet has begun.
#[inline(never)]
pub fn begin<A: Family, T: Tables>(tables: &T, scratch: &Scratch<A>) -> u32 {
    tables.begin_sample(&scratch.arrival.key.to_v6(), &scratch.made, scratch.arrival.bytes);
    0
}

/// Counts a packet of a flow that is watched.
#[inline(never)]
pub fn count<A: Family, T: Tables>(tables: &T, arrival: &Arrival<A>, step: &Step<A>) -> u32 {
    tables.count_sample(&key_to_backend(arrival, step), step.direction, arrival.bytes);
    0
}

/// Tells of a flow that has ended.
#[inline(never)]
pub fn end<A: Family, T: Tables>(tables: &T, key: &FlowKey<A>, state: u32) -> u32 {
    tables.end_sample(&key.to_v6(), state);
    0
}

const _: () = assert!(size_of::<Sample>() == 88);
const _: () = assert!(size_of::<FlowEvent>() == 144);
