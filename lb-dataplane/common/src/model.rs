//! The host's packets and tables: what the kernel does to a packet behind a program's back, and what other CPUs do to the
//! tables between two of its steps.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use crate::checksum::{self, Delta};
use crate::choose::Composed;
use crate::fib::{FibTables, L1_CHUNK, MemberEntry, NO_GROUP, group_member};
use crate::flow::{Flow, FlowEntry, FlowKey, Timeouts, Translation};
use crate::fragment::{FragmentKey, FragmentPorts};
use crate::half_open::HalfOpen;
use crate::hash::FlowHash;
use crate::packet::{ChecksumChange, Packet};
use crate::pipeline::{Arrival, Scratch, Step};
use crate::reason::Reason;
use crate::service::{
    Affinity, AffinityKey, BACKEND_IN_USE, BackendEntry, ServiceEntry, ServiceKey4, SourceEntry,
};
use crate::tables::{InsertError, Tables};

/// A packet at TC (`RESOLVES`) or at XDP.
#[derive(Clone, Debug)]
pub(crate) struct ModelPacket<const RESOLVES: bool> {
    pub(crate) bytes: Vec<u8>,
    /// Bytes that may be read in place; the rest lies in other pages until it is pulled.
    pub(crate) linear: usize,
    /// Payload bytes of each merged segment, or 0.
    pub(crate) segment_payload: u32,
    /// Where the transport's checksum is, if it holds the pseudo-header's sum only (`CHECKSUM_PARTIAL`).
    pub(crate) partial: Option<usize>,
    /// What user space was told.
    pub(crate) punted: Cell<Option<(Reason, u16)>>,
}

impl<const RESOLVES: bool> ModelPacket<RESOLVES> {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let linear = bytes.len();
        Self { linear, bytes, segment_payload: 0, partial: None, punted: Cell::new(None) }
    }

    fn word(&self, at: usize) -> Option<u16> {
        let bytes = self.bytes.get(at..at + 2).filter(|_| at + 2 <= self.linear)?;
        Some(u16::from_ne_bytes([bytes[0], bytes[1]]))
    }
}

impl<const RESOLVES: bool> Packet for ModelPacket<RESOLVES> {
    const RESOLVES_NEIGHBOURS: bool = RESOLVES;

    fn frame_len(&self) -> u32 {
        self.bytes.len() as u32
    }

    fn segment_payload(&self) -> u32 {
        self.segment_payload
    }

    fn is_addressed_here(&self, destination: [u16; 3]) -> bool {
        destination == [0; 3]
    }

    fn has_tag_aside(&self) -> bool {
        false
    }

    fn pull(&mut self, len: u32) -> bool {
        self.linear = self.linear.max((len as usize).min(self.bytes.len()));
        len as usize <= self.bytes.len()
    }

    fn read<const N: usize>(&self, at: u32) -> Option<[u16; N]> {
        assert_eq!(at % 2, 0, "offsets are even");
        let mut words = [0; N];
        for (n, word) in words.iter_mut().enumerate() {
            *word = self.word(at as usize + 2 * n)?;
        }
        Some(words)
    }

    fn write<const N: usize>(&mut self, at: u32, words: [u16; N]) -> Option<()> {
        self.read::<N>(at)?;
        for (n, word) in words.into_iter().enumerate() {
            let at = at as usize + 2 * n;
            self.bytes[at..at + 2].copy_from_slice(&word.to_ne_bytes());
        }
        Some(())
    }

    fn punt(&self, reason: Reason, mtu: u16) {
        self.punted.set(Some((reason, mtu)));
    }

    /// As the kernel's `bpf_l4_csum_replace` does.
    fn update_transport_checksum(&mut self, change: ChecksumChange) -> Option<()> {
        let [old] = self.read(change.at)?;
        if change.optional && old == 0 {
            return Some(());
        }
        let new = match self.partial {
            Some(at) => {
                assert_eq!(at, change.at as usize);
                // The field is a plain sum, not its complement.
                !checksum::update(!old, change.pseudo_header)
            }
            None if change.optional => {
                checksum::update_optional(old, change.pseudo_header.and(change.content))
            }
            None => checksum::update(old, change.pseudo_header.and(change.content)),
        };
        self.write(change.at, [new])
    }
}

/// Places of the ring of half-open flows: as many as no test fills that does not mean to.
const HALF_OPEN: usize = 32;
/// An empty place.
const NOBODY: HalfOpen = HalfOpen {
    key: FlowKey {
        source: 0,
        destination: 0,
        source_port: 0,
        destination_port: 0,
        protocol: 0,
        pad: [0; 3],
    },
    begun: 0,
    pad: 0,
};

/// An entry that others may hold too.
#[derive(Clone, Debug)]
pub(crate) struct ModelFlow(Rc<Cell<FlowEntry>>);

impl ModelFlow {
    fn change(&self, how: impl FnOnce(&mut FlowEntry)) {
        let mut entry = self.0.get();
        how(&mut entry);
        self.0.set(entry);
    }
}

impl Flow for ModelFlow {
    fn translation(&self) -> Translation {
        self.0.get().translation
    }
    fn backend(&self) -> u32 {
        self.0.get().backend
    }
    fn service(&self) -> u32 {
        self.0.get().service
    }
    fn direction(&self) -> u8 {
        self.0.get().direction
    }
    fn state(&self) -> u32 {
        self.0.get().state
    }
    fn set_state(&self, bits: u32) -> u32 {
        let before = self.state();
        self.change(|entry| entry.state |= bits);
        before
    }
    fn clear_state(&self, bits: u32) {
        self.change(|entry| entry.state &= !bits);
    }
    fn last_seen(&self) -> u32 {
        self.0.get().last_seen
    }
    fn set_last_seen(&self, tick: u32) {
        self.change(|entry| entry.last_seen = tick);
    }
    fn first_reply(&self) -> u32 {
        self.0.get().first_reply
    }
    fn set_first_reply(&self, sequence: u32) {
        self.change(|entry| entry.first_reply = sequence);
    }
}

/// What another CPU does, and at which of this one's steps.
type Interruption = (usize, Box<dyn FnOnce(&ModelTables)>);

/// The tables, with a FIB that sends everything out through one member.
#[derive(Default)]
pub(crate) struct ModelTables {
    pub(crate) flows: RefCell<HashMap<FlowKey, ModelFlow>>,
    pub(crate) capacity: usize,
    /// The ring's places, the oldest first.
    pub(crate) half_open: RefCell<VecDeque<HalfOpen>>,
    pub(crate) services: HashMap<ServiceKey4, ServiceEntry>,
    pub(crate) rings: Vec<u32>,
    pub(crate) backends: Vec<BackendEntry>,
    pub(crate) member: MemberEntry,
    pub(crate) clock: Cell<u32>,
    pub(crate) sources: Vec<SourceEntry>,
    pub(crate) numbers: Cell<u32>,
    pub(crate) rounds: Cell<u64>,
    pub(crate) fragments: RefCell<HashMap<FragmentKey, FragmentPorts>>,
    pub(crate) evicted: Cell<u32>,
    /// By backend: its flows. Below zero between the end of one on one CPU and the count of its beginning on another.
    pub(crate) loads: RefCell<HashMap<u32, i64>>,
    pub(crate) affinities: RefCell<HashMap<AffinityKey, Affinity>>,
    pub(crate) counted: RefCell<Vec<Reason>>,
    pub(crate) interruption: RefCell<Option<Interruption>>,
}

impl ModelTables {
    /// Between two steps, where another CPU may come in.
    fn step(&self) {
        let due = {
            let mut slot = self.interruption.borrow_mut();
            match slot.take() {
                Some((0, act)) => Some(act),
                Some((steps, act)) => {
                    *slot = Some((steps - 1, act));
                    None
                }
                None => None,
            }
        };
        if let Some(act) = due {
            act(self);
        }
    }

    pub(crate) fn keys(&self) -> Vec<FlowKey> {
        let mut keys: Vec<FlowKey> = self.flows.borrow().keys().copied().collect();
        keys.sort();
        keys
    }
}

impl FibTables for ModelTables {
    fn l1(&self, index: u32) -> Option<u32> {
        // 203.0.113.0/24 has no route.
        Some(if index == 0x00cb_0071 { NO_GROUP } else { 1 & !L1_CHUNK })
    }
    fn l2(&self, _: u32) -> Option<u32> {
        None
    }
    fn group(&self, _: u32) -> Option<u64> {
        Some(group_member(0))
    }
    fn bucket(&self, _: u32) -> Option<u32> {
        None
    }
    fn member(&self, _: u32) -> Option<MemberEntry> {
        Some(self.member)
    }
}

impl Tables for ModelTables {
    type Flow<'a> = ModelFlow;

    fn flow(&self, key: &FlowKey) -> Option<ModelFlow> {
        self.step();
        self.flows.borrow().get(key).cloned()
    }

    fn with_scratch<R>(&self, act: impl FnOnce(&mut Scratch) -> R) -> Option<R> {
        let nothing = NOBODY.key;
        let entry = FlowEntry::new(Translation::default(), 0, 0, 0, 0);
        Some(act(&mut Scratch {
            arrival: Arrival {
                key: nothing,
                hash: FlowHash::of(&nothing),
                sequence: 0,
                acknowledged: 0,
                bytes: 0,
                flags: 0,
                pad: [0; 3],
            },
            step: Step::default(),
            member: MemberEntry::default(),
            made: Composed { entry, after: nothing, back: nothing },
        }))
    }

    fn insert_flow(&self, key: &FlowKey, entry: &FlowEntry) -> Result<(), InsertError> {
        self.step();
        let mut flows = self.flows.borrow_mut();
        if flows.contains_key(key) {
            return Err(InsertError::Exists);
        }
        if flows.len() >= self.capacity {
            return Err(InsertError::Full);
        }
        flows.insert(*key, ModelFlow(Rc::new(Cell::new(*entry))));
        Ok(())
    }

    fn remove_flow(&self, key: &FlowKey) -> bool {
        self.step();
        self.flows.borrow_mut().remove(key).is_some()
    }

    fn service(&self, key: &ServiceKey4) -> Option<&ServiceEntry> {
        self.step();
        self.services.get(key)
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

    fn load(&self, backend: u32) -> u64 {
        self.loads.borrow().get(&backend).map_or(0, |load| (*load).max(0).cast_unsigned())
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

    fn now(&self) -> u32 {
        self.clock.get()
    }

    fn count_flow_packet(&self, _: u32, _: u32, _: u32) {}

    fn count_new_flow(&self, _: u32, backend: u32) {
        *self.loads.borrow_mut().entry(backend).or_default() += 1;
    }
    fn count_ended_flow(&self, backend: u32) {
        *self.loads.borrow_mut().entry(backend).or_default() -= 1;
    }

    fn half_open_timeout(&self) -> u32 {
        self.timeouts().half_open
    }

    fn enter_half_open(&self, flow: &FlowKey, begun: u32) -> Option<HalfOpen> {
        self.step();
        let mut ring = self.half_open.borrow_mut();
        ring.push_back(HalfOpen { key: *flow, begun, pad: 0 });
        ring.pop_front()
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        self.fragments.borrow().get(key).copied()
    }

    fn note_fragment(&self, key: &FragmentKey, ports: &FragmentPorts) {
        self.fragments.borrow_mut().insert(*key, *ports);
    }

    fn timeouts(&self) -> Timeouts {
        Timeouts::default()
    }

    fn count_evicted(&self, _: u32, _: u32) {
        self.evicted.set(self.evicted.get() + 1);
    }

    fn count(&self, reason: Reason, _: u32) {
        self.counted.borrow_mut().push(reason);
    }
}

/// A VIP with backends, everything sent out through interface 9.
pub(crate) fn serving(vip: [u8; 4], algorithm: u8, backends: &[[u8; 4]]) -> ModelTables {
    let entry = |id: usize| {
        let mut address = [0; 16];
        address[..4].copy_from_slice(&backends[id]);
        BackendEntry {
            address,
            port: 8080_u16.to_be_bytes(),
            flags: BACKEND_IN_USE,
            weight: 1,
            service: 0,
            sources_base: 0,
            sources_len: 0,
        }
    };
    let ring_len = backends.len() as u32;
    let service = ServiceEntry {
        id: 0,
        ring_base: 0,
        ring_len,
        algorithm,
        flags: 0,
        pad: [0; 2],
        affinity: 0,
    };
    let key = |port: u16, protocol| ServiceKey4 {
        address: vip,
        port: port.to_be_bytes(),
        protocol,
        pad: 0,
    };
    let address = ServiceEntry { id: u32::MAX, ring_len: 0, flags: 1, ..service };
    ModelTables {
        capacity: 64,
        services: HashMap::from([
            (key(80, 6), service),
            (key(80, 17), service),
            (key(0, 1), address),
        ]),
        rings: (0..ring_len).collect(),
        backends: (0..backends.len()).map(entry).collect(),
        member: MemberEntry {
            ifindex: 9,
            flags: crate::fib::MEMBER_RESOLVED,
            mtu: 1500,
            source_mac: [2, 0, 0, 0, 0, 8],
            destination_mac: [2, 0, 0, 0, 0, 80],
            ..MemberEntry::default()
        },
        clock: Cell::new(1000),
        half_open: RefCell::new(vec![NOBODY; HALF_OPEN].into()),
        ..ModelTables::default()
    }
}

/// The two forms of zero aside, whether a plain sum (not complemented) stands for these words.
pub(crate) fn folded(words: &[u16]) -> u16 {
    words.iter().fold(Delta::default(), |sum, word| sum.and(Delta(*word))).0
}
