//! What is counted of flows: packets, and how many there are of each backend, service and client.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, LruHashMap, PerCpuArray};
use lb_dataplane_common::family::V6;
use lb_dataplane_common::service::AffinityKey;
use lb_dataplane_common::tables::FlowCounts;

use crate::atomic;

/// How many flows each backend has.
#[map]
static LOADS: Array<u64> = Array::with_max_entries(64, 0);
/// How many flows each service has.
#[map]
static SERVICE_LOADS: Array<u64> = Array::with_max_entries(64, 0);
/// How many flows clients have, of services that bound them: 65,536 clients, 6 MiB.
#[map]
static CLIENT_FLOWS: LruHashMap<AffinityKey, u32> = LruHashMap::with_max_entries(1 << 16, 0);
#[map]
static SERVICE_COUNTS: PerCpuArray<FlowCounts> = PerCpuArray::with_max_entries(64, 0);
#[map]
static BACKEND_COUNTS: PerCpuArray<FlowCounts> = PerCpuArray::with_max_entries(64, 0);

/// By which bits clients are counted, as packets have them, IPv4 mapped into IPv6. Set by the loader.
#[unsafe(no_mangle)]
static LBD_CLIENT_MASK: V6 = [u32::MAX; 4];
#[unsafe(no_mangle)]
static LBD_CLIENT_MASK6: V6 = [u32::MAX; 4];

/// The bits of an address by which clients are counted.
#[inline(always)]
pub fn client_mask(is_v6: bool) -> V6 {
    let mask = if is_v6 { &raw const LBD_CLIENT_MASK6 } else { &raw const LBD_CLIENT_MASK };
    // SAFETY: a static of this program; volatile, since the loader changes it in the object.
    unsafe { mask.read_volatile() }
}

/// How many flows a backend has.
#[inline(always)]
pub fn load(backend: u32) -> u64 {
    load_of(&LOADS, backend)
}

/// How many flows a service has.
#[inline(always)]
pub fn service_load(service: u32) -> u64 {
    load_of(&SERVICE_LOADS, service)
}

/// How many flows of a client are counted.
#[inline(always)]
pub fn client_flows(client: &AffinityKey) -> u32 {
    let Some(flows) = CLIENT_FLOWS.get_ptr(client) else { return 0 };
    // SAFETY: the element is aligned; volatile, since other CPUs write it.
    let flows = unsafe { flows.read_volatile() };
    // Two CPUs that end a client's flows at once, fewer of them counted than there are, may go below zero.
    if flows > u32::MAX / 2 { 0 } else { flows }
}

/// Counts one more flow of a client.
#[inline(always)]
pub fn count_client(client: &AffinityKey) {
    // Not a zero that is counted up: the compiler takes that one from a static that the loader changes.
    if CLIENT_FLOWS.get_ptr(client).is_none()
        && CLIENT_FLOWS.insert(client, &1, u64::from(BPF_NOEXIST)).is_ok()
    {
        return;
    }
    // Another CPU may have been first. A client that finds no room is not counted.
    if let Some(flows) = CLIENT_FLOWS.get_ptr_mut(client) {
        // SAFETY: the element is aligned to 4 bytes.
        unsafe { atomic::add_word(flows, 1) }
    }
}

/// Counts one flow fewer of a client.
#[inline(always)]
pub fn discount_client(client: &AffinityKey) {
    let Some(flows) = CLIENT_FLOWS.get_ptr_mut(client) else { return };
    // A client that was forgotten and came again has fewer flows counted than it has.
    // SAFETY: the element is aligned to 4 bytes.
    unsafe {
        if flows.read_volatile() != 0 {
            atomic::add_word(flows, u32::MAX);
        }
    }
}

/// Counts a packet of a service and its backend.
#[inline(always)]
pub fn count_flow_packet(service: u32, backend: u32, direction: u8, bytes: u32) {
    count_passed(&SERVICE_COUNTS, service, direction, bytes);
    count_passed(&BACKEND_COUNTS, backend, direction, bytes);
}

#[inline(always)]
fn count_passed(map: &PerCpuArray<FlowCounts>, index: u32, direction: u8, bytes: u32) {
    if let Some(counts) = map.get_ptr_mut(index) {
        // SAFETY: this CPU's element, which nothing else writes while the program runs.
        unsafe {
            let passed = &mut (*counts).passed[usize::from(direction & 1)];
            passed.packets += 1;
            passed.bytes += u64::from(bytes);
        }
    }
}

/// Has the CPU fetch what a new flow of a backend is counted in. Among many backends none of it is in a cache, and between this and
/// its use are calls, whose returns this kernel lets no load go ahead of.
#[inline(always)]
pub fn expect_flow(backend: u32) {
    // SAFETY: the elements are aligned; volatile, since what is read is of no use.
    unsafe {
        if let Some(load) = LOADS.get_ptr(backend) {
            let _ = load.read_volatile();
        }
        if let Some(counts) = BACKEND_COUNTS.get_ptr(backend) {
            let _ = (&raw const (*counts).flows).read_volatile();
        }
    }
}

/// Counts a new flow of both, also in their loads.
#[inline(always)]
pub fn count_new_flow(service: u32, backend: u32) {
    add(service, backend, |counts| counts.flows += 1);
    change_load(&LOADS, backend, 1);
    change_load(&SERVICE_LOADS, service, 1);
}

/// Counts the end of a flow of both.
#[inline(always)]
pub fn count_ended_flow(service: u32, backend: u32) {
    change_load(&LOADS, backend, 1_u64.wrapping_neg());
    change_load(&SERVICE_LOADS, service, 1_u64.wrapping_neg());
}

/// Counts a half-open flow that had to make room.
#[inline(always)]
pub fn count_evicted(service: u32, backend: u32) {
    add(service, backend, |counts| counts.evicted += 1);
}

/// Counts a new flow for which no source port was free.
#[inline(always)]
pub fn count_exhausted(service: u32, backend: u32) {
    add(service, backend, |counts| counts.exhausted += 1);
}

#[inline(always)]
fn add(service: u32, backend: u32, more: impl Fn(&mut FlowCounts)) {
    for counts in [SERVICE_COUNTS.get_ptr_mut(service), BACKEND_COUNTS.get_ptr_mut(backend)] {
        if let Some(counts) = counts {
            // SAFETY: this CPU's element, which nothing else writes while the program runs.
            unsafe { more(&mut *counts) }
        }
    }
}

#[inline(always)]
fn load_of(map: &Array<u64>, index: u32) -> u64 {
    let Some(load) = map.get_ptr(index) else { return 0 };
    // SAFETY: the element is aligned; volatile, since other CPUs write it.
    let load = unsafe { load.read_volatile() };
    // Another CPU may have ended a flow that is counted only now.
    if load > u64::MAX / 2 { 0 } else { load }
}

#[inline(always)]
fn change_load(map: &Array<u64>, index: u32, by: u64) {
    if let Some(load) = map.get_ptr_mut(index) {
        // SAFETY: the element is aligned to 8 bytes; reads are single loads.
        unsafe { atomic::add(load, by) }
    }
}
