//! What the pipeline asks of its tables: BPF maps in the kernel, hash maps in the host's tests.

use crate::choose::Composed;
use crate::early::FirstCame;
use crate::family::{Family, V4, V6};
use crate::fib::FibTables;
use crate::fib6::Fib6Tables;
use crate::flow::{Flow, FlowEntry, FlowKey, Timeouts};
use crate::fragment::{FragmentKey, FragmentPorts};
use crate::pipeline::Scratch;
use crate::reason::Reason;
use crate::service::{
    Affinity, AffinityKey, BackendEntry, RangeKey, ServiceEntry, SourceEntry, VipKey,
};
use crate::vlan::VlanKey;

/// A tick is 2^30 ns, 1.07 s: the kernel's monotonic clock, shifted instead of divided.
pub const TICK_SHIFT: u32 = 30;

/// Why a flow entry was not inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// There is one already.
    Exists,
    /// The table is full.
    Full,
}

/// What the flow tables of both families hold.
pub trait FlowTables {
    /// A flow entry that other CPUs see too.
    type Flow: Flow;
}

/// The tables of a family. Each method is one lookup or one write.
pub trait FamilyTables<A: Family>: FlowTables {
    /// The flow entry of a packet. One whose tag is not the key's has become another flow's meanwhile, and is none.
    fn flow(&self, key: &FlowKey<A>) -> Option<Self::Flow>;
    /// The same without a call, which an established flow's packet has none to spare for. One that has become another flow's meanwhile
    /// may be there, too: then its state is not what was [seen](crate::flow::Flow::is_same).
    fn flow_at_once(&self, key: &FlowKey<A>) -> Option<Self::Flow>;
    /// Lends this CPU's room for a packet's way. What is in it is what the packet before left.
    fn with_scratch<R>(&self, act: impl FnOnce(&mut Scratch<A>) -> R) -> Option<R>;
    /// Adds a flow entry where there is none: what [`insert`](crate::flow::insert) does, once it has tagged it.
    fn insert_flow(&self, key: &FlowKey<A>, entry: &FlowEntry) -> Result<(), InsertError>;
    /// Removes a flow entry that this CPU has claimed; whether it did.
    fn remove_flow(&self, key: &FlowKey<A>) -> bool;
    /// Puts a flow into the next place of this CPU's ring of half-open flows; what was in that place, all zeroes for none.
    fn enter_half_open(&self, flow: &FlowKey<A>) -> Option<FlowKey<A>>;
    /// The number of the place that the next one gets, 0 for none.
    fn next_half_open(&self) -> u32;
    /// Empties the place of a number, if the flow has it.
    fn leave_half_open(&self, number: u32, flow: &FlowKey<A>);
    /// What the first fragment of a datagram said.
    fn fragment(&self, key: &FragmentKey<A>) -> Option<FragmentPorts>;
    /// Does what [`find_way`](crate::pipeline::find_way) does, and what follows likewise: by subprograms of which the verifier
    /// reads each once, whatever leads there.
    fn find_way(&self, scratch: &mut Scratch<A>);
    /// Does what [`hear`](crate::pipeline::hear) does.
    fn hear(&self, scratch: &mut Scratch<A>) -> Result<(), Reason>;
    /// Does what [`hear_anew`](crate::pipeline::hear_anew) does.
    fn hear_anew(&self, scratch: &mut Scratch<A>) -> Result<(), Reason>;
    /// Does what [`not_itself`](crate::choose::not_itself) does.
    fn not_itself(&self, service: &ServiceEntry, key: &FlowKey<A>, chosen: u32) -> u32;
    /// Notes what the first fragment of a datagram says.
    fn note_fragment(&self, key: &FragmentKey<A>, ports: &FragmentPorts);
}

/// The tables as packets of a family meet them: a flow's other direction may be in the other family's table.
pub trait TablesOf<A: Family>: Tables + FamilyTables<A> + FamilyTables<A::Other> {}

impl<A: Family, T: Tables + FamilyTables<A> + FamilyTables<A::Other>> TablesOf<A> for T {}

/// The rounds of a loop.
pub trait Rounds<T> {
    /// The round of a number, from 0 on; whether another one is to follow.
    fn round(&mut self, tables: &T, number: u32) -> bool;
}

/// The tables of the pipeline. Each method is one lookup or one write.
pub trait Tables: FibTables + Fib6Tables + FamilyTables<V4> + FamilyTables<V6> {
    /// What this CPU has counted in a line.
    type Counts: Copy;
    /// What this CPU has counted of packets that ended alike.
    type End: Copy;

    /// How long flows may be silent.
    fn timeouts(&self) -> Timeouts;
    /// The service whose first or only port this is, or the VIP's address itself (port and protocol 0).
    fn service(&self, key: &VipKey) -> Option<&ServiceEntry>;
    /// The first port, in network byte order, of the service of several ports that a port belongs to.
    fn range(&self, key: &RangeKey) -> Option<u16>;
    /// A word of the rings.
    fn ring(&self, index: u32) -> Option<u32>;
    /// The number of new flows of a round robin service before this one.
    fn next_round(&self, service: u32) -> Option<u64>;
    /// A backend.
    fn backend(&self, id: u32) -> Option<&BackendEntry>;
    /// The [line](crate::line) of a backend, which it is given where it has none; [`NONE`](crate::line::NONE) if there is no such backend.
    fn line_of(&self, backend: u32) -> u32;
    /// The backend whose line it is.
    fn backend_of(&self, line: u32) -> u32;
    /// How many flows a backend has, half-open ones among them.
    fn load(&self, backend: u32) -> u64;
    /// How many open flows a backend has.
    fn open_flows(&self, backend: u32) -> u64;
    /// How many open flows a service has.
    fn open_flows_of_service(&self, service: u32) -> u64;
    /// By how many bits of its address a client's flows that begin now are counted, IPv4 mapped into IPv6. A constant.
    fn client_bits(&self, is_v6: bool) -> u32;
    /// How many flows of a client are counted.
    fn client_flows(&self, client: &AffinityKey) -> u32;
    /// Counts one more flow of a client; whether there was a place for it.
    fn count_client(&self, client: &AffinityKey) -> bool;
    /// Counts one flow fewer of a client.
    fn discount_client(&self, client: &AffinityKey);
    /// Whether the list of a service lets a client begin flows; `None` if it has none.
    fn admits<A: Family>(&self, service: u32, client: A) -> Option<bool>;
    /// Where a client's last flow went.
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity>;
    /// Notes where a client's flow goes.
    fn note_affinity(&self, key: &AffinityKey, affinity: &Affinity);
    /// An address that flows to a backend come from.
    fn source(&self, index: u32) -> Option<&SourceEntry>;
    /// A number that no other flow has had for as long as possible; every CPU counts in a part of its own.
    fn next_number(&self) -> u32;
    /// Has this CPU go on counting elsewhere.
    fn jump_numbers(&self);
    /// Goes round so many times at most. In the kernel the loop is its own, of which the verifier reads one round.
    fn repeat<R: Rounds<Self>>(&self, times: u32, rounds: &mut R)
    where
        Self: Sized;
    /// A number that nobody foresees.
    fn draw(&self) -> u32;
    /// The current tick.
    fn now(&self) -> u32;
    /// What this CPU has counted in a line, where a packet is likely to be counted: that may come from memory meanwhile. `None` if there
    /// is no such line.
    fn counts(&self, line: u32) -> Option<Self::Counts>;
    /// Counts a packet in its backend's line, in one of the two directions. What its service counted is the sum.
    fn count_flow_packet(&self, counts: Self::Counts, direction: u8, bytes: u32);
    /// Says that a new flow of a backend is likely to be counted: what for may come from memory meanwhile.
    fn expect_flow(&self, backend: u32);
    /// Counts a new flow in the line of its backend, and in that one's load.
    fn count_new_flow(&self, line: u32, backend: u32);
    /// Counts a flow that goes on in the load of its line's backend again.
    fn count_again(&self, line: u32);
    /// Counts the end of a flow in the load of its line's backend.
    fn count_ended_flow(&self, line: u32);
    /// Counts that the entry of a flow to a backend is gone, after which no packet of it is counted.
    fn count_removed(&self, line: u32);
    /// Does what [`admit`](crate::flow::admit) does. By a subprogram that the verifier reads once, as those do that follow.
    fn admit(&self, key: &FlowKey<V6>, to_backend: &Self::Flow, bits: u32) -> Result<u32, Reason>;
    /// Does what [`count_in`](crate::flow::count_in) does.
    fn count_in(&self, key: &FlowKey<V6>, to_backend: &Self::Flow, bits: u32)
    -> Result<(), Reason>;
    /// Does what [`count_out`](crate::flow::count_out) does.
    fn count_out(
        &self,
        key: &FlowKey<V6>,
        to_backend: &Self::Flow,
        said: u32,
        is_silent: bool,
    ) -> u32;
    /// Does what [`asked_anew`](crate::pipeline::asked_anew) does.
    fn asked_anew(&self, to_backend: &Self::Flow, protocol: u8) -> u32;
    /// Does what [`reopen`](crate::flow::reopen) does.
    fn reopen(&self, key: &FlowKey<V6>, to_backend: &Self::Flow) -> Result<(), Reason>;
    /// Counts an open flow of a service and of its line's backend.
    fn count_open_flow(&self, service: u32, line: u32);
    /// Counts one open flow fewer of both.
    fn discount_open_flow(&self, service: u32, line: u32);
    /// Counts a half-open flow that had to make room.
    fn count_evicted(&self, line: u32);
    /// Counts a new flow for which no source port was free.
    fn count_exhausted(&self, line: u32);
    /// Of how many new flows one is watched; 0 for none. A constant.
    fn samples_every(&self) -> u32;
    /// Begins to watch a flow, and tells of it.
    fn begin_sample<A: Family>(&self, key: &FlowKey<V6>, made: &Composed<A>, bytes: u32);
    /// Counts a packet of a flow that is watched.
    fn count_sample(&self, key: &FlowKey<V6>, direction: u8, bytes: u32);
    /// Tells of the end of a flow that is watched, with the bits of its state.
    fn end_sample(&self, key: &FlowKey<V6>, state: u32);
    /// Whether this node answers who asks a link for the MAC of a VIP.
    fn answers(&self, key: &AnswerKey) -> bool;
    /// The tick until which a packet may answer one that went on without a flow to a backend that answers through here; 0 where
    /// none ever did.
    fn without_flow_until(&self) -> u32;
    /// The same for this backend's packets.
    fn without_flow_to_until(&self, backend: u32) -> u32;
    /// Notes that a packet to a backend goes on without a flow, and until when its answers may come.
    fn note_without_flow(&self, backend: u32, until: u32);
    /// The backend that is alone at an address and port, with [`BACKEND_ANSWERS_ALONE`](crate::service::BACKEND_ANSWERS_ALONE).
    fn alone_at(&self, key: &VipKey) -> Option<u32>;
    /// Whether an address is a backend's.
    fn is_backend(&self, address: &V6) -> bool;
    /// The tick in which a fragment last came before the first one of its datagram.
    fn awaited(&self, key: &FragmentKey<V6>) -> Option<u32>;
    /// Notes that one has come. In a table of its own: a flood of such fragments makes no first one forgotten.
    fn note_awaited(&self, key: &FragmentKey<V6>, now: u32);
    /// Tells user space that the first fragment of a datagram has come, others of which it keeps.
    fn tell_first_came(&self, first: &FirstCame);
    /// The interface of a VLAN.
    fn vlan(&self, key: &VlanKey) -> Option<u32>;
    /// The MAC of an interface that packets are handled of.
    fn mac(&self, ifindex: u32) -> Option<[u16; 3]>;
    /// The place of an interface in the counters.
    fn interface_place(&self, ifindex: u32) -> u32;
    /// What this CPU has counted of packets of flows that came in through the interface at this place, and were sent on in one of the two
    /// directions.
    fn end_of_flow(&self, interface_place: u32, direction: u8) -> Option<Self::End>;
    /// Counts one of these.
    fn count_end(&self, end: Self::End, bytes: u32);
    /// Counts how a packet ended that came in through the interface at this place.
    fn count(&self, interface_place: u32, reason: Reason, bytes: u32);
}

/// Key of the hash map `ANSWERS`: a VIP's address, and the interface to a link on which this node answers ARP and neighbour
/// discovery for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct AnswerKey {
    /// The address.
    pub address: V6,
    /// The interface's index.
    pub ifindex: u32,
}

/// Entries of `ANSWERS` at most; they take memory only while they are there.
pub const MAX_ANSWERS: u32 = 1 << 16;

const _: () = assert!(size_of::<AnswerKey>() == 20);

/// Packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Passed {
    /// Packets; one where the kernel merged segments.
    pub packets: u64,
    /// Bytes of their frames, as they came in.
    pub bytes: u64,
}

/// What is counted of a backend or a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowCounts {
    /// What came from clients, and what from backends: by the `DIRECTION_*` constants.
    pub passed: [Passed; 2],
    /// Flows begun.
    pub flows: u64,
    /// Half-open flows that had to make room for others.
    pub evicted: u64,
    /// New flows for which no source port was free.
    pub exhausted: u64,
}

impl FlowCounts {
    /// Both together.
    #[must_use]
    pub fn and(self, more: Self) -> Self {
        let both = |a: Passed, b: Passed| Passed {
            packets: a.packets.wrapping_add(b.packets),
            bytes: a.bytes.wrapping_add(b.bytes),
        };
        let ([a, b], [c, d]) = (self.passed, more.passed);
        Self {
            passed: [both(a, c), both(b, d)],
            flows: self.flows.wrapping_add(more.flows),
            evicted: self.evicted.wrapping_add(more.evicted),
            exhausted: self.exhausted.wrapping_add(more.exhausted),
        }
    }
}

/// Value of the array `BACKEND_COUNTS`: what one CPU has counted of a backend, a line of its cache that no other CPU writes.
/// First come all [lines](crate::line) of the first CPU, then those of the second, and so on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CpuCounts {
    /// What was counted.
    pub counts: FlowCounts,
    /// Entries of flows to it that were removed: as many as flows begun, and no more packets come.
    pub removed: u64,
}

/// The lines of a CPU are as many as there may be, rounded up to a multiple of this: user space maps so many at once, and only those
/// of backends that it reads.
pub const COUNTED_TOGETHER: u32 = 4096;

/// Words of a [`CpuCounts`].
pub const CPU_COUNTS_WORDS: usize = size_of::<CpuCounts>() / 8;

impl CpuCounts {
    /// The counters that these words are.
    #[must_use]
    pub fn from_words(words: [u64; CPU_COUNTS_WORDS]) -> Self {
        let [packets, bytes, back_packets, back_bytes, flows, evicted, exhausted, removed] = words;
        let there = Passed { packets, bytes };
        let back = Passed { packets: back_packets, bytes: back_bytes };
        let counts = FlowCounts { passed: [there, back], flows, evicted, exhausted };
        Self { counts, removed }
    }
}

/// Value of the array `SERVICE_COUNTS`, which no packet touches: what a service has counted beside what its backends' counters, and
/// those of backends that left it, say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct KeptCounts {
    /// What backends had counted that left it, and whose counters are another one's since.
    pub counts: FlowCounts,
    /// The backend whose counters are being taken over, and one more; 0 for none. They are in the counts already.
    pub taking: u64,
}

const _: () = assert!(size_of::<CpuCounts>() == 64);
const _: () = assert!(size_of::<KeptCounts>() == 64);

/// Value of `RECORD`: how the last packet ended, for tests, since a test run hides where a redirect went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Record {
    /// Index of the [`Reason`].
    pub reason: u32,
    /// The interface that the packet was to leave through; 0 if none.
    pub ifindex: u32,
    /// The neighbour whose MAC the kernel was to find, as [`Way`](crate::pipeline::Way) has it; zero if none.
    pub resolve: [u32; 4],
    /// Packets recorded.
    pub packets: u32,
}
