//! The tables of each family.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};

use super::ModelTables;
use super::memory::{Memory, ModelFlow};
use super::scratch::empty_scratch;
use crate::choose::not_itself;
use crate::family::{Family, V4, V6};
use crate::flow::{FlowEntry, FlowKey};
use crate::fragment::{FragmentKey, FragmentPorts};
use crate::pipeline::{Scratch, find_way, hear, hear_anew};
use crate::reason::Reason;
use crate::service::ServiceEntry;
use crate::tables::{FamilyTables, FlowTables, InsertError};

/// Places of the ring of half-open flows: as many as no test fills that does not mean to.
const HALF_OPEN: usize = 32;
/// A key of nobody.
pub(super) fn nobody<A: Family>() -> FlowKey<A> {
    FlowKey {
        source: A::default(),
        destination: A::default(),
        source_port: 0,
        destination_port: 0,
        protocol: 0,
        pad: 0,
    }
}

/// The tables of a family.
pub(crate) struct ModelFamily<A: Family> {
    pub(crate) flows: RefCell<HashMap<FlowKey<A>, ModelFlow>>,
    /// Keys whose entries another CPU has added.
    theirs: RefCell<HashSet<FlowKey<A>>>,
    memory: Memory,
    /// The ring's places, the oldest first.
    pub(crate) half_open: RefCell<VecDeque<FlowKey<A>>>,
    pub(crate) begun: Cell<u32>,
    fragments: RefCell<HashMap<FragmentKey<A>, FragmentPorts>>,
    /// What the packet before left in the room for a packet's way; `None` while one uses it, and before the first.
    scratch: RefCell<Option<Scratch<A>>>,
}

impl<A: Family> Default for ModelFamily<A> {
    fn default() -> Self {
        Self {
            flows: RefCell::default(),
            theirs: RefCell::default(),
            memory: Memory::default(),
            half_open: RefCell::new(VecDeque::from([nobody(); HALF_OPEN])),
            begun: Cell::default(),
            fragments: RefCell::default(),
            scratch: RefCell::default(),
        }
    }
}

/// A family that the model has.
pub(crate) trait Modelled: Family {
    fn of(tables: &ModelTables) -> &ModelFamily<Self>;
}

impl Modelled for V4 {
    fn of(tables: &ModelTables) -> &ModelFamily<Self> {
        &tables.v4
    }
}

impl Modelled for V6 {
    fn of(tables: &ModelTables) -> &ModelFamily<Self> {
        &tables.v6
    }
}

impl FlowTables for ModelTables {
    type Flow = ModelFlow;
}

impl<A: Modelled> FamilyTables<A> for ModelTables
where
    A::Other: Modelled,
{
    fn flow(&self, key: &FlowKey<A>) -> Option<ModelFlow> {
        self.step();
        let linked = A::of(self).flows.borrow().get(key).map(ModelFlow::linked)?;
        if A::of(self).theirs.borrow().contains(key) && self.meets(&self.unpublished) {
            return None;
        }
        linked.found(key.tag())
    }

    /// As the short way does: it has read lanes, then reads a state, then a key, of which the one is written last and the other first.
    fn flow_at_once(&self, key: &FlowKey<A>) -> Option<ModelFlow> {
        // Whose lanes they were, and that they have the key's tag, is left open.
        let live: Vec<_> = A::of(self).flows.borrow().values().map(ModelFlow::held).collect();
        self.step();
        let read: Vec<_> = live.into_iter().map(ModelFlow::read).collect();
        self.step();
        let flows = A::of(self).flows.borrow();
        let flow = flows.get(key)?;
        let is_hidden = A::of(self).theirs.borrow().contains(key) && self.meets(&self.unpublished);
        if is_hidden { None } else { read.into_iter().find(|read| read.is_of(flow)) }
    }

    fn with_scratch<R>(&self, act: impl FnOnce(&mut Scratch<A>) -> R) -> Option<R> {
        let room = &A::of(self).scratch;
        // Another CPU, which comes in between, has its own.
        let mut scratch = room.take().unwrap_or_else(empty_scratch);
        let result = act(&mut scratch);
        room.replace(Some(scratch));
        Some(result)
    }

    fn insert_flow(&self, key: &FlowKey<A>, entry: &FlowEntry) -> Result<(), InsertError> {
        self.step();
        let mut flows = A::of(self).flows.borrow_mut();
        if flows.contains_key(key) || self.meets(&self.withdrawn) {
            return Err(InsertError::Exists);
        }
        let without_room = Some((key.to_v6(), self.is_other_cpu.get()));
        if flows.len() >= self.capacity || self.without_room.get() == without_room {
            return Err(InsertError::Full);
        }
        flows.insert(*key, A::of(self).memory.take(entry));
        if self.is_other_cpu.get() {
            A::of(self).theirs.borrow_mut().insert(*key);
        }
        Ok(())
    }

    fn remove_flow(&self, key: &FlowKey<A>) -> bool {
        self.step();
        let removed = A::of(self).flows.borrow_mut().remove(key);
        removed.is_some_and(|flow| {
            A::of(self).memory.free(flow);
            true
        })
    }

    fn enter_half_open(&self, flow: &FlowKey<A>) -> Option<FlowKey<A>> {
        self.step();
        let mut ring = A::of(self).half_open.borrow_mut();
        ring.push_back(*flow);
        A::of(self).begun.update(|begun| begun + 1);
        ring.pop_front()
    }

    fn next_half_open(&self) -> u32 {
        A::of(self).begun.get() + 1
    }

    fn leave_half_open(&self, number: u32, flow: &FlowKey<A>) {
        self.step();
        let since = A::of(self).begun.get().wrapping_sub(number) as usize;
        let mut ring = A::of(self).half_open.borrow_mut();
        if let Some(place) = ring.iter_mut().rev().nth(since).filter(|place| **place == *flow) {
            *place = nobody();
        }
    }

    fn fragment(&self, key: &FragmentKey<A>) -> Option<FragmentPorts> {
        A::of(self).fragments.borrow().get(key).copied()
    }

    fn find_way(&self, scratch: &mut Scratch<A>) {
        find_way::<A, Self>(self, scratch);
    }

    fn hear(&self, scratch: &mut Scratch<A>) -> Result<(), Reason> {
        hear(self, scratch)
    }

    fn hear_anew(&self, scratch: &mut Scratch<A>) -> Result<(), Reason> {
        hear_anew(self, scratch)
    }

    fn not_itself(&self, service: &ServiceEntry, key: &FlowKey<A>, chosen: u32) -> u32 {
        not_itself(self, service, key, chosen)
    }

    fn note_fragment(&self, key: &FragmentKey<A>, ports: &FragmentPorts) {
        A::of(self).fragments.borrow_mut().insert(*key, *ports);
    }
}
