//! The memory of a flow table as the programs have it, and what other CPUs do between two reads of it.
//!
//! The memory of an entry that was removed last is that of the next one that is inserted, while whoever had looked the old
//! one up still holds it. And it is written over in an order that nobody knows: half of it may be the new one's for a while.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::family::Family;
use crate::flow::{Flow, FlowEntry, SWAP_TRIES, Translation};

/// Steps that are left, and what happens then.
type Due = (usize, Box<dyn FnOnce()>);

thread_local! {
    /// What happens after so many more steps.
    static DUE: RefCell<Vec<Due>> = const { RefCell::new(Vec::new()) };
    /// Whether another CPU is at work: its steps are not counted.
    static AWAY: Cell<bool> = const { Cell::new(false) };
    /// How the next entry is written that comes into used memory.
    static TORN: Cell<Option<Torn>> = const { Cell::new(None) };
    /// How many swaps succeed, and how many do not then.
    static BUSY: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Which half of an entry is written first, and after how many steps the other one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Torn {
    pub(crate) is_state_first: bool,
    pub(crate) steps: usize,
}

/// Has the next entry that comes into used memory be written in two parts.
pub(crate) fn tear(torn: Option<Torn>) {
    TORN.set(torn);
}

/// Has other CPUs change an entry before this one can, after so many swaps: as often as this one tries.
pub(crate) fn busy_after(swaps: usize) {
    BUSY.set((swaps, SWAP_TRIES as usize));
}

fn is_busy() -> bool {
    match BUSY.get() {
        (0, 0) => false,
        (0, fail) => {
            BUSY.set((0, fail - 1));
            true
        }
        (succeed, fail) => {
            BUSY.set((succeed - 1, fail));
            false
        }
    }
}

/// Has something happen after so many steps.
pub(crate) fn after(steps: usize, act: impl FnOnce() + 'static) {
    DUE.with_borrow_mut(|due| due.push((steps, Box::new(act))));
}

/// Has what is left happen now; whether anything was.
pub(crate) fn finish() -> bool {
    TORN.set(None);
    BUSY.set((0, 0));
    let due = DUE.take();
    let any = !due.is_empty();
    due.into_iter().for_each(|(_, act)| act());
    any
}

/// Between two steps, where other CPUs may come in.
pub(super) fn step() {
    if AWAY.get() {
        return;
    }
    let due = DUE.with_borrow_mut(|due| {
        due.iter_mut().for_each(|(steps, _)| *steps = steps.wrapping_sub(1));
        due.extract_if(.., |(steps, _)| *steps == usize::MAX).collect::<Vec<_>>()
    });
    AWAY.set(true);
    due.into_iter().for_each(|(_, act)| act());
    AWAY.set(false);
}

/// An element of a table.
#[derive(Debug)]
struct Slot {
    entry: Cell<FlowEntry>,
    /// What it is to be, if only half of it is written.
    whole: Cell<Option<FlowEntry>>,
}

impl Slot {
    fn write(self: &Rc<Self>, entry: &FlowEntry) {
        let Some(torn) = TORN.take() else {
            self.entry.set(*entry);
            return;
        };
        let old = self.entry.get();
        self.entry.set(if torn.is_state_first {
            FlowEntry { translation: old.translation, line: old.line, ..*entry }
        } else {
            FlowEntry { translation: entry.translation, line: entry.line, ..old }
        });
        self.whole.set(Some(*entry));
        let slot = Rc::clone(self);
        after(torn.steps, move || slot.complete());
    }

    fn complete(&self) {
        if let Some(entry) = self.whole.take() {
            self.entry.set(entry);
        }
    }
}

/// Elements that were used and are free.
#[derive(Default)]
pub(super) struct Memory(RefCell<Vec<Rc<Slot>>>);

impl Memory {
    pub(super) fn take(&self, entry: &FlowEntry) -> ModelFlow {
        let slot = match self.0.borrow_mut().pop() {
            Some(slot) => {
                slot.write(entry);
                slot
            }
            None => Rc::new(Slot { entry: Cell::new(*entry), whole: Cell::new(None) }),
        };
        ModelFlow { slot, seen: entry.state }
    }

    pub(super) fn free(&self, flow: ModelFlow) {
        flow.slot.complete();
        self.0.borrow_mut().push(flow.slot);
    }
}

/// An entry that others may hold too, and its state when it was looked up.
#[derive(Debug)]
pub(crate) struct ModelFlow {
    slot: Rc<Slot>,
    seen: u32,
}

impl ModelFlow {
    /// As a lookup finds it: who links an entry has written all of it.
    pub(super) fn linked(&self) -> Self {
        self.slot.complete();
        Self { slot: Rc::clone(&self.slot), seen: self.seen }
    }

    /// The same entry, whatever of it is written.
    pub(super) fn held(&self) -> Self {
        Self { slot: Rc::clone(&self.slot), seen: self.seen }
    }

    /// With the state that it has now; no step.
    pub(super) fn read(self) -> Self {
        // A state that is there is written last.
        if self.slot.whole.get().is_some_and(|whole| whole.state == self.state_now()) {
            self.slot.complete();
        }
        let seen = self.state_now();
        Self { seen, ..self }
    }

    /// Whether it is in the same memory.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.slot, &other.slot)
    }

    /// What a lookup found, if it still is what was looked for.
    pub(super) fn found(self, tag: u32) -> Option<Self> {
        let seen = self.get().state;
        let check = self.get().check;
        FlowEntry::bears(tag, seen, check).then_some(Self { seen, ..self })
    }

    /// The state, and no step.
    pub(crate) fn state_now(&self) -> u32 {
        self.slot.entry.get().state
    }

    /// The number, and no step.
    pub(crate) fn number_now(&self) -> u32 {
        self.slot.entry.get().first_reply
    }

    /// The direction, and no step.
    pub(crate) fn direction_now(&self) -> u8 {
        self.slot.entry.get().direction
    }

    fn get(&self) -> FlowEntry {
        step();
        self.slot.entry.get()
    }
}

impl Flow for ModelFlow {
    fn translation<A: Family>(&self) -> Translation<A> {
        Translation::from_v6(&self.get().translation)
    }
    fn line(&self) -> u32 {
        self.get().line
    }
    fn counted_as(&self) -> u32 {
        self.get().counted_as
    }
    fn direction(&self) -> u8 {
        self.get().direction
    }
    fn mss(&self) -> u16 {
        self.get().mss
    }
    fn last_seen(&self) -> u32 {
        self.get().last_seen
    }
    fn set_last_seen(&self, tick: u32) {
        let entry = self.get();
        self.slot.entry.set(FlowEntry { last_seen: tick, ..entry });
    }
    fn seen(&self) -> u32 {
        self.seen
    }
    fn word(&self) -> u64 {
        let entry = self.get();
        u64::from(entry.first_reply) << 32 | u64::from(entry.state)
    }
    fn swap_word(&self, old: u64, new: u64) -> bool {
        let entry = self.get();
        let is_old = u64::from(entry.first_reply) << 32 | u64::from(entry.state) == old;
        if is_busy() {
            return false;
        }
        if is_old {
            let (state, first_reply) = (new as u32, (new >> 32) as u32);
            self.slot.entry.set(FlowEntry { state, first_reply, ..entry });
        }
        is_old
    }
}
