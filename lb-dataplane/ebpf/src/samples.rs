//! Flows that are watched, and what is told of them.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{LruHashMap, PerCpuArray, RingBuf};
use lb_dataplane_common::choose::Composed;
use lb_dataplane_common::family::{Family, V6};
use lb_dataplane_common::flow::{FlowKey, STATE_BITS};
use lb_dataplane_common::sample::{EVENT_END, EVENT_NEW, FlowEvent, Sample};
use lb_dataplane_common::service::service_of;

use crate::atomic;

/// Flows that are watched at once; the one without packets for the longest time makes room.
#[map]
static SAMPLES: LruHashMap<FlowKey<V6>, Sample> = LruHashMap::with_max_entries(4096, 0);
/// What user space is told: 256 KiB, 1,700 events. Where it is full, they are lost and counted.
#[map]
static FLOW_EVENTS: RingBuf = RingBuf::with_byte_size(1 << 18, 0);
/// Events that were lost.
#[map]
static FLOW_EVENTS_LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
/// Room for a new one.
#[map]
static SAMPLE: PerCpuArray<Sample> = PerCpuArray::with_max_entries(1, 0);

/// Of how many new flows one is watched; 0 for none. Set by the loader before the verifier sees it.
#[unsafe(no_mangle)]
static LBD_SAMPLE_EVERY: u32 = 0;

/// Of how many new flows one is watched.
#[inline(always)]
pub fn every() -> u32 {
    // SAFETY: a static of this program; volatile, since the loader changes it in the object.
    unsafe { (&raw const LBD_SAMPLE_EVERY).read_volatile() }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without preconditions.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Begins to watch a flow.
#[inline(always)]
pub fn begin<A: Family>(key: &FlowKey<V6>, made: &Composed<A>, bytes: u32) {
    let Some(sample) = SAMPLE.get_ptr_mut(0) else { return };
    let begun = now();
    // SAFETY: this CPU's element, which nothing else uses while the program runs.
    let sample = unsafe {
        (*sample).begun = begun;
        (*sample).packets = [1, 0];
        (*sample).bytes = [u64::from(bytes), 0];
        (*sample).after = made.after;
        (*sample).service = service_of(made.entry.counted_as);
        (*sample).backend = made.backend;
        &*sample
    };
    if SAMPLES.insert(key, sample, 0).is_err() {
        lose();
        return;
    }
    tell(EVENT_NEW, made.entry.state & STATE_BITS, begun, key, sample);
}

/// Counts a packet.
#[inline(always)]
pub fn count(key: &FlowKey<V6>, direction: u8, bytes: u32) {
    let Some(sample) = SAMPLES.get_ptr_mut(key) else { return };
    let direction = usize::from(direction & 1);
    // SAFETY: the elements are aligned to 8 bytes. An entry that is reused meanwhile is another flow's, which then has a
    // packet more.
    unsafe {
        atomic::add((&raw mut (*sample).packets).cast::<u64>().add(direction), 1);
        atomic::add((&raw mut (*sample).bytes).cast::<u64>().add(direction), u64::from(bytes));
    }
}

/// Ends it.
#[inline(always)]
pub fn end(key: &FlowKey<V6>, state: u32) {
    let Some(sample) = SAMPLES.get_ptr(key) else {
        // It made room for another: nobody knows its counts any more.
        lose();
        return;
    };
    // SAFETY: an entry of the map; what other CPUs still add is left out.
    tell(EVENT_END, state, now(), key, unsafe { &*sample });
    let _was_there = SAMPLES.remove(key);
}

#[inline(always)]
fn tell(kind: u32, state: u32, at: u64, key: &FlowKey<V6>, sample: &Sample) {
    let Some(mut place) = FLOW_EVENTS.reserve::<FlowEvent>(0) else {
        lose();
        return;
    };
    let event: *mut FlowEvent = place.as_mut_ptr();
    // SAFETY: the reservation is as large as an event; all of it is written before it is handed over.
    unsafe {
        (*event).kind = kind;
        (*event).state = state;
        (*event).at = at;
        (*event).key = *key;
        (*event).sample = *sample;
    }
    place.submit(0);
}

#[inline(always)]
fn lose() {
    if let Some(lost) = FLOW_EVENTS_LOST.get_ptr_mut(0) {
        // SAFETY: this CPU's element, which nothing else writes while the program runs.
        unsafe { *lost += 1 };
    }
}
