//! The host's packets and tables: what other CPUs do to the tables between two of a program's steps.

mod family;
mod fib;
mod lines;
pub(crate) mod memory;
mod packet;
mod scratch;
mod serving;
mod steps;
mod way;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use self::family::ModelFamily;
pub(crate) use self::family::Modelled;
use self::lines::ModelLines;
use self::memory::Memory;
pub(crate) use self::memory::ModelFlow;
pub(crate) use self::packet::ModelPacket;
use self::scratch::empty_scratch;
pub(crate) use self::serving::{folded, serving, serving_any};
pub(crate) use self::way::{go_on, process};
use crate::choose::{Composed, not_itself};
use crate::early::FirstCame;
use crate::family::{Family, V4, V6};
use crate::fib::MemberEntry;
use crate::flow::{
    DIRECTION_TO_BACKEND, FlowEntry, FlowKey, Timeouts, admit, count_in, count_out, reopen,
};
use crate::fragment::{FragmentKey, FragmentPorts};
use crate::line::line_of;
use crate::pipeline::{Scratch, asked_anew, find_way, hear, hear_anew};
use crate::reason::Reason;
use crate::service::{
    Affinity, AffinityKey, BackendEntry, RangeKey, ServiceEntry, SourceEntry, VipKey,
};
use crate::tables::{AnswerKey, FamilyTables, FlowTables, InsertError, Passed, Rounds, Tables};
use crate::vlan::VlanKey;

/// Whose end was told, in which state, and after how many packets if anybody knows.
type ToldEnd = (FlowKey<V6>, u32, Option<u64>);

/// What another CPU does, and at which of this one's steps.
type Interruption = (usize, Box<dyn FnOnce(&ModelTables)>);

/// The tables, with a FIB that sends everything out through one member.
#[derive(Default)]
pub(crate) struct ModelTables {
    pub(crate) v4: ModelFamily<V4>,
    pub(crate) v6: ModelFamily<V6>,
    pub(crate) capacity: usize,
    pub(crate) services: HashMap<VipKey, ServiceEntry>,
    /// What takes their place, once it does.
    pub(crate) services_after: HashMap<VipKey, ServiceEntry>,
    pub(crate) are_replaced: Cell<bool>,
    /// Protocol, first and last port, whatever the address.
    pub(crate) ranges: Vec<(u8, u16, u16)>,
    pub(crate) rings: Vec<u32>,
    pub(crate) backends: Vec<BackendEntry>,
    pub(crate) lines: ModelLines,
    /// Whether another CPU is at work.
    pub(crate) is_other_cpu: Cell<bool>,
    pub(crate) member: MemberEntry,
    /// The word of every group, if that is not the member's.
    pub(crate) group: Option<u64>,
    pub(crate) vlans: HashMap<VlanKey, u32>,
    pub(crate) clock: Cell<u32>,
    pub(crate) sources: Vec<SourceEntry>,
    pub(crate) numbers: Cell<u32>,
    pub(crate) rounds: Cell<u64>,
    pub(crate) draws: Cell<u32>,
    pub(crate) evicted: Cell<u32>,
    pub(crate) exhausted: Cell<u32>,
    /// Backends whose answers need no flow.
    pub(crate) alone: HashMap<VipKey, u32>,
    /// By backend: until when what comes from there may answer a packet that went on without a flow.
    pub(crate) without_flow: RefCell<HashMap<u32, u32>>,
    /// Of how many new flows one is watched.
    pub(crate) samples_every: u32,
    /// The ends that were told.
    pub(crate) ends: RefCell<Vec<ToldEnd>>,
    /// Packets of flows that are watched.
    pub(crate) samples: RefCell<HashMap<FlowKey<V6>, u64>>,
    /// By backend and direction.
    pub(crate) passed: RefCell<BTreeMap<(u32, u8), Passed>>,
    /// By backend: its flows. Below zero between the end of one on one CPU and the count of its beginning on another.
    pub(crate) loads: RefCell<HashMap<u32, i64>>,
    /// By backend: the entries of flows to it that were removed, and how many flows began.
    pub(crate) removed: RefCell<HashMap<u32, u64>>,
    pub(crate) begun: RefCell<HashMap<u32, u64>>,
    /// Those of the flows that are open, by backend and by service.
    pub(crate) open: RefCell<HashMap<u32, i64>>,
    pub(crate) open_of_services: RefCell<HashMap<u32, i64>>,
    /// By client: its flows, where they are counted.
    pub(crate) clients: RefCell<HashMap<AffinityKey, u32>>,
    /// How many of them there may be, if that is bound.
    pub(crate) most_clients: Option<usize>,
    /// By how many bits fewer than at first clients are counted.
    pub(crate) fewer_client_bits: Cell<u32>,
    /// Clients that no list admits.
    pub(crate) refused: HashSet<V6>,
    pub(crate) affinities: RefCell<HashMap<AffinityKey, Affinity>>,
    /// Where this node answers for VIPs.
    pub(crate) answers: HashSet<AnswerKey>,
    pub(crate) counted: RefCell<Vec<Reason>>,
    /// How many times more this CPU does not find what another one is adding.
    pub(crate) unpublished: Cell<u32>,
    /// How many times more another CPU adds what this one does at the same moment, so that both withdraw.
    pub(crate) withdrawn: Cell<u32>,
    /// For whose entry there is no room, and whether only another CPU finds none or only this one.
    pub(crate) without_room: Cell<Option<(FlowKey<V6>, bool)>>,
    pub(crate) interruption: RefCell<Option<Interruption>>,
}

impl Tables for ModelTables {
    type Counts = u32;
    type End = Reason;

    fn service(&self, key: &VipKey) -> Option<&ServiceEntry> {
        self.step();
        if self.are_replaced.get() { self.services_after.get(key) } else { self.services.get(key) }
    }

    fn range(&self, key: &RangeKey) -> Option<u16> {
        let port = u16::from_be_bytes(key.port);
        let of = |(protocol, first, last): &&(u8, u16, u16)| {
            u16::from_be_bytes(key.protocol) == u16::from(*protocol)
                && (*first..=*last).contains(&port)
        };
        self.ranges.iter().find(of).map(|(_, first, _)| first.to_be())
    }

    fn ring(&self, index: u32) -> Option<u32> {
        self.rings.get(index as usize).copied()
    }

    fn next_round(&self, _: u32) -> Option<u64> {
        Some(self.rounds.replace(self.rounds.get() + 1))
    }

    fn backend(&self, id: u32) -> Option<&BackendEntry> {
        self.backends.get(id as usize)
    }

    fn line_of(&self, backend: u32) -> u32 {
        line_of(self, backend)
    }
    fn backend_of(&self, line: u32) -> u32 {
        self.lines.backend(line)
    }
    fn load(&self, backend: u32) -> u64 {
        self.loads.borrow().get(&backend).map_or(0, |load| (*load).max(0).cast_unsigned())
    }

    fn open_flows(&self, backend: u32) -> u64 {
        self.open.borrow().get(&backend).map_or(0, |flows| (*flows).max(0).cast_unsigned())
    }

    fn open_flows_of_service(&self, service: u32) -> u64 {
        let open = self.open_of_services.borrow();
        open.get(&service).map_or(0, |flows| (*flows).max(0).cast_unsigned())
    }

    fn client_bits(&self, is_v6: bool) -> u32 {
        let bits = if is_v6 { 64 } else { 128 };
        bits - self.fewer_client_bits.get()
    }

    fn client_flows(&self, client: &AffinityKey) -> u32 {
        self.clients.borrow().get(client).copied().unwrap_or(0)
    }

    fn count_client(&self, client: &AffinityKey) -> bool {
        let mut clients = self.clients.borrow_mut();
        let is_room = self.most_clients.is_none_or(|most| clients.len() < most)
            || clients.contains_key(client);
        if is_room {
            *clients.entry(*client).or_default() += 1;
        }
        is_room
    }

    fn discount_client(&self, client: &AffinityKey) {
        let mut clients = self.clients.borrow_mut();
        let flows = clients.get_mut(client).expect("a client that is counted is there");
        *flows -= 1;
        if *flows == 0 {
            clients.remove(client);
        }
    }

    fn admits<A: Family>(&self, _: u32, client: A) -> Option<bool> {
        Some(!self.refused.contains(&client.to_v6()))
    }

    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.affinities.borrow().get(key).copied()
    }

    fn note_affinity(&self, key: &AffinityKey, affinity: &Affinity) {
        self.affinities.borrow_mut().insert(*key, *affinity);
    }

    fn source(&self, index: u32) -> Option<&SourceEntry> {
        self.sources.get(index as usize)
    }

    fn next_number(&self) -> u32 {
        self.step();
        self.numbers.replace(self.numbers.get() + 1)
    }

    fn jump_numbers(&self) {
        self.numbers.set(self.numbers.get() + 7_919);
    }

    fn repeat<R: Rounds<Self>>(&self, times: u32, rounds: &mut R) {
        let _last = (0..times).find(|number| !rounds.round(self, *number));
    }

    fn draw(&self) -> u32 {
        let n = self.draws.replace(self.draws.get() + 1);
        n << 16 | n & 0xffff
    }

    fn now(&self) -> u32 {
        self.clock.get()
    }

    fn counts(&self, line: u32) -> Option<u32> {
        Some(line)
    }
    fn count_flow_packet(&self, line: u32, direction: u8, bytes: u32) {
        let mut passed = self.passed.borrow_mut();
        let passed = passed.entry((self.backend_of(line), direction)).or_default();
        passed.packets += 1;
        passed.bytes += u64::from(bytes);
    }
    fn expect_flow(&self, _: u32) {}
    fn count_new_flow(&self, line: u32, backend: u32) {
        assert_eq!(self.backend_of(line), backend);
        *self.begun.borrow_mut().entry(backend).or_default() += 1;
        self.count_again(line);
    }
    fn count_again(&self, line: u32) {
        *self.loads.borrow_mut().entry(self.backend_of(line)).or_default() += 1;
    }
    fn count_ended_flow(&self, line: u32) {
        *self.loads.borrow_mut().entry(self.backend_of(line)).or_default() -= 1;
    }
    fn admit(&self, key: &FlowKey<V6>, flow: &ModelFlow, bits: u32) -> Result<u32, Reason> {
        admit(self, key, flow, bits)
    }
    fn count_in(&self, key: &FlowKey<V6>, flow: &ModelFlow, bits: u32) -> Result<(), Reason> {
        count_in(self, key, flow, bits)
    }
    fn count_out(&self, key: &FlowKey<V6>, flow: &ModelFlow, said: u32, is_silent: bool) -> u32 {
        count_out(self, key, flow, said, is_silent)
    }
    fn asked_anew(&self, flow: &ModelFlow, protocol: u8) -> u32 {
        asked_anew(self, flow, protocol)
    }
    fn reopen(&self, key: &FlowKey<V6>, flow: &ModelFlow) -> Result<(), Reason> {
        reopen(self, key, flow)
    }
    fn count_open_flow(&self, service: u32, line: u32) {
        *self.open.borrow_mut().entry(self.backend_of(line)).or_default() += 1;
        *self.open_of_services.borrow_mut().entry(service).or_default() += 1;
    }
    fn discount_open_flow(&self, service: u32, line: u32) {
        *self.open.borrow_mut().entry(self.backend_of(line)).or_default() -= 1;
        *self.open_of_services.borrow_mut().entry(service).or_default() -= 1;
    }

    fn timeouts(&self) -> Timeouts {
        Timeouts::default()
    }

    fn count_removed(&self, line: u32) {
        *self.removed.borrow_mut().entry(self.backend_of(line)).or_default() += 1;
    }

    fn count_evicted(&self, _: u32) {
        self.evicted.set(self.evicted.get() + 1);
    }

    fn count_exhausted(&self, _: u32) {
        self.exhausted.set(self.exhausted.get() + 1);
    }

    fn samples_every(&self) -> u32 {
        self.samples_every
    }

    fn begin_sample<A: Family>(&self, key: &FlowKey<V6>, _: &Composed<A>, _: u32) {
        self.samples.borrow_mut().insert(*key, 1);
    }

    fn count_sample(&self, key: &FlowKey<V6>, _: u8, _: u32) {
        // Another CPU may have ended it, or is about to tell that it began.
        if let Some(packets) = self.samples.borrow_mut().get_mut(key) {
            *packets += 1;
        }
    }

    fn end_sample(&self, key: &FlowKey<V6>, state: u32) {
        self.ends.borrow_mut().push((*key, state, self.samples.borrow_mut().remove(key)));
    }

    fn answers(&self, key: &AnswerKey) -> bool {
        self.answers.contains(key)
    }

    fn without_flow_until(&self) -> u32 {
        self.without_flow.borrow().values().copied().max().unwrap_or(0)
    }
    fn without_flow_to_until(&self, backend: u32) -> u32 {
        self.without_flow.borrow().get(&backend).copied().unwrap_or(0)
    }
    fn note_without_flow(&self, backend: u32, until: u32) {
        self.without_flow.borrow_mut().insert(backend, until);
    }
    fn alone_at(&self, key: &VipKey) -> Option<u32> {
        self.alone.get(key).copied()
    }
    fn is_backend(&self, _: &V6) -> bool {
        false
    }

    fn awaited(&self, _: &FragmentKey<V6>) -> Option<u32> {
        None
    }
    fn note_awaited(&self, _: &FragmentKey<V6>, _: u32) {}
    fn tell_first_came(&self, _: &FirstCame) {}

    fn vlan(&self, key: &VlanKey) -> Option<u32> {
        self.vlans.get(key).copied()
    }
    fn mac(&self, _: u32) -> Option<[u16; 3]> {
        Some([0; 3])
    }
    fn interface_place(&self, _: u32) -> u32 {
        0
    }
    fn end_of_flow(&self, _: u32, direction: u8) -> Option<Reason> {
        Some(if direction == DIRECTION_TO_BACKEND {
            Reason::ForwardedToBackend
        } else {
            Reason::ForwardedToClient
        })
    }
    fn count_end(&self, reason: Reason, _: u32) {
        self.counted.borrow_mut().push(reason);
    }
    fn count(&self, _: u32, reason: Reason, _: u32) {
        self.counted.borrow_mut().push(reason);
    }
}
