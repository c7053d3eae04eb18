//! What is counted: how packets end, those of each backend, and how many flows there are of each backend and service.

use core::ptr::NonNull;

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};
use lb_dataplane_common::reason::{
    INTERFACE_PLACES, REASON_PLACES, Reason, ReasonCounts, flow_index, reason_index,
};
use lb_dataplane_common::service::BackendEntry;
use lb_dataplane_common::tables::{CpuCounts, FlowCounts, KeptCounts};

use crate::{atomic, lines};

#[map]
static REASONS: PerCpuArray<ReasonCounts> =
    PerCpuArray::with_max_entries(INTERFACE_PLACES * REASON_PLACES, 0);
/// User space writes it by way of its memory, around the lines and loads.
#[map]
pub static BACKENDS: Array<BackendEntry> = Array::with_max_entries(64, BPF_F_MMAPABLE);
/// How many open flows each service has.
#[map]
static SERVICE_OPEN_FLOWS: Array<u64> = Array::with_max_entries(64, 0);
/// What each CPU has counted of each backend, by its line. No per-CPU array: that is an index of pointers, which are lines of their own, to
/// values that lie across lines, and user space would need a system call for each of them.
#[map]
static BACKEND_COUNTS: Array<CpuCounts> = Array::with_max_entries(64, BPF_F_MMAPABLE);
/// What user space has added up of backends that left their services.
#[map]
static SERVICE_COUNTS: Array<KeptCounts> = Array::with_max_entries(64, 0);

/// Lines of a CPU. Set by the loader.
#[unsafe(no_mangle)]
static LBD_LINES: u32 = 0;

/// Where this CPU counts packets that ended alike.
#[derive(Clone, Copy)]
pub struct EndPtr(NonNull<ReasonCounts>);

/// Where packets of flows are counted that come in through the interface at this place, and are sent on in one of the two directions.
#[inline(always)]
pub fn end_of_flow(interface_place: u32, direction: u8) -> Option<EndPtr> {
    REASONS.get_ptr_mut(flow_index(interface_place, direction)).and_then(NonNull::new).map(EndPtr)
}

/// Counts one of these.
#[inline(always)]
pub fn count_end(end: EndPtr, bytes: u32) {
    // SAFETY: this CPU's element, which nothing else writes while the program runs.
    unsafe {
        let counts = end.0.as_ptr();
        (*counts).packets += 1;
        (*counts).bytes += u64::from(bytes);
    }
}

/// Counts how a packet ended that came in through the interface at this place.
#[inline(always)]
pub fn count_reason(interface_place: u32, reason: Reason, bytes: u32) {
    if let Some(counts) = REASONS.get_ptr_mut(reason_index(interface_place, reason))
        && let Some(counts) = NonNull::new(counts)
    {
        count_end(EndPtr(counts), bytes);
    }
}

/// How many flows a backend has.
#[inline(always)]
pub fn load(backend: u32) -> u64 {
    let Some(load) = load_at(backend) else { return 0 };
    // SAFETY: the word is aligned; volatile, since other CPUs write it.
    let load = unsafe { load.read_volatile() };
    // Another CPU may have ended a flow that is counted only now.
    if load > u32::MAX / 2 { 0 } else { load.into() }
}

/// How many open flows a backend has.
#[inline(always)]
pub fn open_flows(backend: u32) -> u64 {
    let Some(open) = lines::open_at(lines::has(backend)) else { return 0 };
    // SAFETY: the word is aligned; volatile, since other CPUs write it.
    let open = unsafe { open.read_volatile() };
    // As above.
    if open > u32::MAX / 2 { 0 } else { open.into() }
}

/// How many open flows a service has.
#[inline(always)]
pub fn open_flows_of_service(service: u32) -> u64 {
    let Some(flows) = SERVICE_OPEN_FLOWS.get_ptr(service) else { return 0 };
    // SAFETY: the element is aligned; volatile, since other CPUs write it.
    let flows = unsafe { flows.read_volatile() };
    // As above.
    if flows > u64::MAX / 2 { 0 } else { flows }
}

/// This CPU's part of a line.
#[derive(Clone, Copy)]
pub struct CountsPtr(NonNull<CpuCounts>);

/// Counts a packet in its backend's line.
#[inline(always)]
pub fn count_flow_packet(counts: CountsPtr, direction: u8, bytes: u32) {
    // SAFETY: this CPU's element, which nothing else writes while the program runs.
    unsafe {
        let passed = &mut (*counts.0.as_ptr()).counts.passed[usize::from(direction & 1)];
        passed.packets += 1;
        passed.bytes += u64::from(bytes);
    }
}

/// Has the CPU fetch the line that a packet is counted in. Among many backends that is in no cache, and between this and its
/// use are calls, whose returns this kernel lets no load go ahead of.
#[inline(always)]
pub fn expect(line: u32) -> Option<CountsPtr> {
    let counts = NonNull::new(at(line)?)?;
    // SAFETY: the element is aligned; volatile, since what is read is of no use.
    let _ = unsafe { (&raw const (*counts.as_ptr()).removed).read_volatile() };
    Some(CountsPtr(counts))
}

/// The same of a new flow of a backend.
#[inline(always)]
pub fn expect_flow(backend: u32) {
    // The load is beside it.
    let _counts = expect(lines::has(backend));
}

/// Counts a new flow, also in the load.
#[inline(always)]
pub fn count_new_flow(line: u32, backend: u32) {
    add(line, |counts| counts.flows += 1);
    change_load(backend, 1);
}

/// Counts a flow in its backend's load.
#[inline(always)]
pub fn count_again(line: u32) {
    change_load(lines::backend_of(line), 1);
}

/// Counts the end of a flow.
#[inline(always)]
pub fn count_ended_flow(line: u32) {
    change_load(lines::backend_of(line), -1);
}

/// Counts that the entry of a flow is gone.
#[inline(always)]
pub fn count_removed(line: u32) {
    if let Some(line) = at(line) {
        // SAFETY: this CPU's element, which nothing else writes while the program runs.
        unsafe { (*line).removed += 1 }
    }
}

/// Counts an open flow of both.
#[inline(always)]
pub fn count_open_flow(service: u32, line: u32) {
    change_open(line, 1);
    change_open_of_service(service, 1);
}

/// Counts one open flow fewer.
#[inline(always)]
pub fn discount_open_flow(service: u32, line: u32) {
    change_open(line, -1);
    change_open_of_service(service, -1);
}

#[inline(always)]
fn change_open(line: u32, by: i32) {
    if let Some(open) = lines::open_at(line) {
        // SAFETY: the word is aligned to 4 bytes; reads are single loads.
        unsafe { atomic::add_word(open, by as u32) }
    }
}

#[inline(always)]
fn change_open_of_service(service: u32, by: i64) {
    if let Some(flows) = SERVICE_OPEN_FLOWS.get_ptr_mut(service) {
        // SAFETY: the element is aligned to 8 bytes; reads are single loads.
        unsafe { atomic::add(flows, by as u64) }
    }
}

/// Counts a half-open flow that had to make room.
#[inline(always)]
pub fn count_evicted(line: u32) {
    add(line, |counts| counts.evicted += 1);
}

/// Counts a new flow for which no source port was free.
#[inline(always)]
pub fn count_exhausted(line: u32) {
    add(line, |counts| counts.exhausted += 1);
}

#[inline(always)]
fn add(line: u32, more: impl Fn(&mut FlowCounts)) {
    if let Some(line) = at(line) {
        // SAFETY: this CPU's element, which nothing else writes while the program runs.
        unsafe { more(&mut (*line).counts) }
    }
}

/// This CPU's line of a number.
#[inline(always)]
fn at(line: u32) -> Option<*mut CpuCounts> {
    // SAFETY: a static of this program; volatile, since the loader changes it in the object.
    let lines = unsafe { (&raw const LBD_LINES).read_volatile() };
    // SAFETY: a helper without preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    BACKEND_COUNTS.get_ptr_mut(cpu.wrapping_mul(lines).wrapping_add(line))
}

#[inline(always)]
fn load_at(backend: u32) -> Option<*mut u32> {
    let entry = BACKENDS.get_ptr_mut(backend)?;
    // SAFETY: an element of the array.
    Some(unsafe { &raw mut (*entry).load })
}

#[inline(always)]
fn change_load(backend: u32, by: i32) {
    if let Some(load) = load_at(backend) {
        // SAFETY: the word is aligned to 4 bytes; reads are single loads.
        unsafe { atomic::add_word(load, by as u32) }
    }
}
