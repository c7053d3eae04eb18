//! The pipeline's tables as BPF maps. Sizes here are the least that is of use; the loader sets those of the configuration.

mod fib;

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray};
use lb_dataplane_common::choose::Composed;
use lb_dataplane_common::early::FirstCame;
use lb_dataplane_common::family::{Family, V4, V6};
use lb_dataplane_common::flow::{FlowEntry, FlowKey, Timeouts};
use lb_dataplane_common::fragment::{FragmentKey, FragmentPorts};
use lb_dataplane_common::pipeline::Scratch;
use lb_dataplane_common::reason::Reason;
use lb_dataplane_common::service::{
    Affinity, AffinityKey, BackendEntry, PAGE_WORDS, RangeKey, ServiceEntry, SourceEntry, VipKey,
};
use lb_dataplane_common::tables::{
    AnswerKey, FamilyTables, FlowTables, InsertError, MAX_ANSWERS, Rounds, Tables,
};
use lb_dataplane_common::vlan::VlanKey;

use crate::counts::{BACKENDS, CountsPtr, EndPtr};
use crate::fib_maps::word;
use crate::flow_ptr::FlowPtr;
use crate::half_open::{HALF_OPEN, HALF_OPEN6, LBD_HALF_OPEN_MASK, LBD_HALF_OPEN_MASK6};
use crate::{
    access, alone, apart, atomic, clients, clock, counts, early, flow_table, half_open, interfaces,
    lines, numbers, rounds, samples,
};

#[map]
static SERVICES: HashMap<VipKey, ServiceEntry> = HashMap::with_max_entries(64, 0);
#[map]
static SOURCES: Array<SourceEntry> = Array::with_max_entries(64, 0);
#[map]
static RINGS: Array<[u32; PAGE_WORDS]> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static ROUND_ROBIN: Array<u64> = Array::with_max_entries(64, 0);
/// Room for a packet's way.
#[map]
static SCRATCH: PerCpuArray<Scratch<V4>> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SCRATCH6: PerCpuArray<Scratch<V6>> = PerCpuArray::with_max_entries(1, 0);
/// What first fragments said.
#[map]
static FRAGMENTS: LruHashMap<FragmentKey<V4>, FragmentPorts> =
    LruHashMap::with_max_entries(8192, 0);
#[map]
static FRAGMENTS6: LruHashMap<FragmentKey<V6>, FragmentPorts> =
    LruHashMap::with_max_entries(8192, 0);
/// Where this node answers who asks for a VIP's MAC.
#[map]
static ANSWERS: HashMap<AnswerKey, u32> = HashMap::with_max_entries(MAX_ANSWERS, BPF_F_NO_PREALLOC);
#[map]
static TIMEOUTS: Array<Timeouts> = Array::with_max_entries(1, 0);

/// The tables as the kernel has them.
pub struct Maps;

impl FlowTables for Maps {
    type Flow = FlowPtr;
}

/// The tables of a family: the same but for the maps.
macro_rules! family_tables {
    (
        $family:ty, $scratch:ident, $fragments:ident, $half_open:ident, $mask:ident, $begun:literal,
        $apart:ident
    ) => {
        impl FamilyTables<$family> for Maps {
            #[inline(always)]
            fn flow(&self, key: &FlowKey<$family>) -> Option<FlowPtr> {
                flow_table::$apart::flow(key)
            }

            #[inline(always)]
            fn flow_at_once(&self, key: &FlowKey<$family>) -> Option<FlowPtr> {
                flow_table::$apart::flow_at_once(key)
            }

            #[inline(always)]
            fn with_scratch<R>(&self, act: impl FnOnce(&mut Scratch<$family>) -> R) -> Option<R> {
                let scratch = $scratch.get_ptr_mut(0)?;
                // SAFETY: this CPU's element, which nothing else uses while the program runs; every bit pattern that a
                // packet leaves is a value of its fields, and zeroes are too.
                Some(act(unsafe { &mut *scratch }))
            }

            #[inline(always)]
            fn insert_flow(
                &self,
                key: &FlowKey<$family>,
                entry: &FlowEntry,
            ) -> Result<(), InsertError> {
                flow_table::$apart::insert(key, entry)
            }

            #[inline(always)]
            fn remove_flow(&self, key: &FlowKey<$family>) -> bool {
                flow_table::$apart::remove(key)
            }

            #[inline(always)]
            fn enter_half_open(&self, flow: &FlowKey<$family>) -> Option<FlowKey<$family>> {
                let place = $half_open.get_ptr_mut(half_open::take($begun, &$mask)?)?;
                Some(half_open::enter(place, flow))
            }

            #[inline(always)]
            fn next_half_open(&self) -> u32 {
                half_open::next($begun, &$mask)
            }

            #[inline(always)]
            fn leave_half_open(&self, number: u32, flow: &FlowKey<$family>) {
                if let Some(place) = $half_open.get_ptr_mut(number.wrapping_sub(1)) {
                    half_open::leave(place, flow);
                }
            }

            #[inline(always)]
            fn fragment(&self, key: &FragmentKey<$family>) -> Option<FragmentPorts> {
                let ports = $fragments.get_ptr(key)?;
                // SAFETY: an entry that is reused meanwhile is another datagram's, but whole.
                Some(unsafe { *ports })
            }

            #[inline(always)]
            fn find_way(&self, scratch: &mut Scratch<$family>) {
                apart::$apart::find_way(scratch);
            }

            #[inline(always)]
            fn hear(&self, scratch: &mut Scratch<$family>) -> Result<(), Reason> {
                apart::$apart::hear(scratch)
            }

            #[inline(always)]
            fn hear_anew(&self, scratch: &mut Scratch<$family>) -> Result<(), Reason> {
                apart::$apart::hear_anew(scratch)
            }

            #[inline(always)]
            fn not_itself(&self, its: &ServiceEntry, key: &FlowKey<$family>, chosen: u32) -> u32 {
                apart::$apart::not_itself(its, key, chosen)
            }

            #[inline(always)]
            fn note_fragment(&self, key: &FragmentKey<$family>, ports: &FragmentPorts) {
                // Fragments of a datagram that is not noted are dropped, counted.
                let _ = $fragments.insert(key, ports, 0);
            }
        }
    };
}

family_tables!(V4, SCRATCH, FRAGMENTS, HALF_OPEN, LBD_HALF_OPEN_MASK, 0, v4);
family_tables!(V6, SCRATCH6, FRAGMENTS6, HALF_OPEN6, LBD_HALF_OPEN_MASK6, 1, v6);

impl Tables for Maps {
    type Counts = CountsPtr;
    type End = EndPtr;

    #[inline(always)]
    fn timeouts(&self) -> Timeouts {
        TIMEOUTS.get(0).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn service(&self, key: &VipKey) -> Option<&ServiceEntry> {
        let entry = SERVICES.get_ptr(key)?;
        // SAFETY: user space replaces an entry by linking a new one, and the old one's memory stays valid, although the next
        // entry that is replaced is written there: who uses it looks again.
        Some(unsafe { &*entry })
    }

    #[inline(always)]
    fn range(&self, key: &RangeKey) -> Option<u16> {
        access::range(key)
    }

    #[inline(always)]
    fn ring(&self, index: u32) -> Option<u32> {
        word(&RINGS, index)
    }

    #[inline(always)]
    fn next_round(&self, service: u32) -> Option<u64> {
        let counter = ROUND_ROBIN.get_ptr_mut(service)?;
        // SAFETY: the element is aligned to 8 bytes, and is only ever accessed atomically.
        Some(unsafe { atomic::fetch_add(counter, 1) })
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<&BackendEntry> {
        BACKENDS.get(id)
    }

    #[inline(always)]
    fn line_of(&self, backend: u32) -> u32 {
        lines::line_of(backend)
    }

    #[inline(always)]
    fn backend_of(&self, line: u32) -> u32 {
        lines::backend_of(line)
    }

    #[inline(always)]
    fn load(&self, backend: u32) -> u64 {
        counts::load(backend)
    }

    #[inline(always)]
    fn open_flows(&self, backend: u32) -> u64 {
        counts::open_flows(backend)
    }

    #[inline(always)]
    fn open_flows_of_service(&self, service: u32) -> u64 {
        counts::open_flows_of_service(service)
    }

    #[inline(always)]
    fn client_bits(&self, is_v6: bool) -> u32 {
        clients::client_bits(is_v6)
    }

    #[inline(always)]
    fn client_flows(&self, client: &AffinityKey) -> u32 {
        clients::client_flows(client)
    }

    #[inline(always)]
    fn count_client(&self, client: &AffinityKey) -> bool {
        clients::count_client(client)
    }

    #[inline(always)]
    fn discount_client(&self, client: &AffinityKey) {
        clients::discount_client(client)
    }

    #[inline(always)]
    fn admits<A: Family>(&self, service: u32, client: A) -> Option<bool> {
        access::admits(service, client)
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        access::affinity(key)
    }

    #[inline(always)]
    fn note_affinity(&self, key: &AffinityKey, affinity: &Affinity) {
        access::note_affinity(key, affinity);
    }

    #[inline(always)]
    fn source(&self, index: u32) -> Option<&SourceEntry> {
        SOURCES.get(index)
    }

    #[inline(always)]
    fn next_number(&self) -> u32 {
        numbers::next()
    }

    #[inline(always)]
    fn jump_numbers(&self) {
        numbers::jump()
    }

    #[inline(always)]
    fn repeat<R: Rounds<Self>>(&self, times: u32, rounds: &mut R) {
        rounds::run(times, rounds);
    }

    #[inline(always)]
    fn draw(&self) -> u32 {
        // SAFETY: a helper without preconditions.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        clock::tick()
    }

    #[inline(always)]
    fn counts(&self, line: u32) -> Option<CountsPtr> {
        counts::expect(line)
    }

    #[inline(always)]
    fn count_flow_packet(&self, counts: CountsPtr, direction: u8, bytes: u32) {
        counts::count_flow_packet(counts, direction, bytes)
    }

    #[inline(always)]
    fn expect_flow(&self, backend: u32) {
        counts::expect_flow(backend)
    }

    #[inline(always)]
    fn count_new_flow(&self, line: u32, backend: u32) {
        counts::count_new_flow(line, backend)
    }

    #[inline(always)]
    fn count_again(&self, line: u32) {
        counts::count_again(line)
    }

    #[inline(always)]
    fn admit(&self, key: &FlowKey<V6>, flow: &FlowPtr, bits: u32) -> Result<u32, Reason> {
        apart::admit(key, flow, bits)
    }

    #[inline(always)]
    fn count_in(&self, key: &FlowKey<V6>, flow: &FlowPtr, bits: u32) -> Result<(), Reason> {
        apart::count_in(key, flow, bits)
    }

    #[inline(always)]
    fn count_out(&self, key: &FlowKey<V6>, flow: &FlowPtr, said: u32, is_silent: bool) -> u32 {
        apart::count_out(key, flow, said, is_silent)
    }

    #[inline(always)]
    fn asked_anew(&self, flow: &FlowPtr, protocol: u8) -> u32 {
        apart::asked_anew(flow, protocol)
    }

    #[inline(always)]
    fn reopen(&self, key: &FlowKey<V6>, flow: &FlowPtr) -> Result<(), Reason> {
        apart::reopen(key, flow)
    }

    #[inline(always)]
    fn count_open_flow(&self, service: u32, line: u32) {
        counts::count_open_flow(service, line)
    }

    #[inline(always)]
    fn discount_open_flow(&self, service: u32, line: u32) {
        counts::discount_open_flow(service, line)
    }

    #[inline(always)]
    fn count_ended_flow(&self, line: u32) {
        counts::count_ended_flow(line)
    }

    #[inline(always)]
    fn count_removed(&self, line: u32) {
        counts::count_removed(line)
    }

    #[inline(always)]
    fn count_evicted(&self, line: u32) {
        counts::count_evicted(line)
    }

    #[inline(always)]
    fn count_exhausted(&self, line: u32) {
        counts::count_exhausted(line)
    }

    #[inline(always)]
    fn samples_every(&self) -> u32 {
        samples::every()
    }

    #[inline(always)]
    fn begin_sample<A: Family>(&self, key: &FlowKey<V6>, made: &Composed<A>, bytes: u32) {
        samples::begin(key, made, bytes)
    }

    #[inline(always)]
    fn count_sample(&self, key: &FlowKey<V6>, direction: u8, bytes: u32) {
        samples::count(key, direction, bytes)
    }

    #[inline(always)]
    fn end_sample(&self, key: &FlowKey<V6>, state: u32) {
        samples::end(key, state)
    }

    #[inline(always)]
    fn answers(&self, key: &AnswerKey) -> bool {
        ANSWERS.get_ptr(key).is_some()
    }

    #[inline(always)]
    fn without_flow_until(&self) -> u32 {
        alone::until()
    }

    #[inline(always)]
    fn without_flow_to_until(&self, backend: u32) -> u32 {
        alone::until_of(backend)
    }

    #[inline(always)]
    fn note_without_flow(&self, backend: u32, until: u32) {
        alone::note(backend, until)
    }

    #[inline(always)]
    fn alone_at(&self, key: &VipKey) -> Option<u32> {
        alone::at(key)
    }

    #[inline(always)]
    fn is_backend(&self, address: &V6) -> bool {
        early::is_backend(address)
    }

    #[inline(always)]
    fn awaited(&self, key: &FragmentKey<V6>) -> Option<u32> {
        early::awaited(key)
    }

    #[inline(always)]
    fn note_awaited(&self, key: &FragmentKey<V6>, now: u32) {
        early::note_awaited(key, now)
    }

    #[inline(always)]
    fn tell_first_came(&self, first: &FirstCame) {
        early::tell_first_came(first)
    }

    #[inline(always)]
    fn vlan(&self, key: &VlanKey) -> Option<u32> {
        interfaces::vlan(key)
    }

    #[inline(always)]
    fn mac(&self, ifindex: u32) -> Option<[u16; 3]> {
        interfaces::mac(ifindex)
    }

    #[inline(always)]
    fn interface_place(&self, ifindex: u32) -> u32 {
        interfaces::place(ifindex)
    }

    #[inline(always)]
    fn count(&self, interface_place: u32, reason: Reason, bytes: u32) {
        counts::count_reason(interface_place, reason, bytes);
    }

    #[inline(always)]
    fn end_of_flow(&self, interface_place: u32, direction: u8) -> Option<EndPtr> {
        counts::end_of_flow(interface_place, direction)
    }

    #[inline(always)]
    fn count_end(&self, end: EndPtr, bytes: u32) {
        counts::count_end(end, bytes);
    }
}
