//! The arrays as packets read them, for this process' own lookups.

use std::sync::atomic::Ordering::Relaxed;

use lb_dataplane_common::fib::{FibTables, MemberEntry};
use lb_dataplane_common::fib6::{Fib6Tables, UNIT_WORDS};

use super::groups::Groups;
use super::slots::Slots;
use super::trie::Trie;
use crate::mapped::Mapped;

/// All of them.
#[derive(Clone, Copy)]
pub(super) struct Memory<'a> {
    pub(super) slots: &'a Slots,
    pub(super) trie: &'a Trie,
    pub(super) groups: &'a Groups,
}

impl FibTables for Memory<'_> {
    fn l1(&self, index: u32) -> Option<u32> {
        word(self.slots.memory().0, index)
    }

    fn l2(&self, index: u32) -> Option<u32> {
        word(self.slots.memory().1, index)
    }

    fn group(&self, index: u32) -> Option<u64> {
        self.groups.word(index)
    }

    fn bucket(&self, index: u32) -> Option<u32> {
        self.groups.bucket(index)
    }

    fn member(&self, index: u32) -> Option<MemberEntry> {
        self.groups.stored_member(index)
    }
}

impl Fib6Tables for Memory<'_> {
    type Node = u32;

    fn root6(&self, index: u32) -> Option<u64> {
        wide_word(self.trie.memory().0, index)
    }

    fn shortcuts6(&self, first: u32) -> Option<[u64; 4]> {
        let word = |way| wide_word(self.trie.memory().0, first + way);
        Some([word(0)?, word(1)?, word(2)?, word(3)?])
    }

    fn node6(&self, unit: u32) -> Option<u32> {
        let first = unit.checked_mul(UNIT_WORDS)?;
        wide_word(self.trie.memory().1, first).map(|_| first)
    }

    fn word6(&self, node: u32, index: u32) -> u64 {
        wide_word(self.trie.memory().1, node.saturating_add(index)).unwrap_or(0)
    }
}

fn word(memory: &Mapped, index: u32) -> Option<u32> {
    Some(memory.words().get(index as usize)?.load(Relaxed))
}

fn wide_word(memory: &Mapped, index: u32) -> Option<u64> {
    Some(memory.wide_words().get(index as usize)?.load(Relaxed))
}
