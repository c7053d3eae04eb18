//! The two levels of slots, and how long the prefix is that each slot's word comes from.

use std::ops::Range;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, Release};

use lb_dataplane_common::fib::{CHUNK_WORDS, L1_CHUNK, L1_WORDS, NO_GROUP};

use super::pool::Pool;
use crate::mapped::{Mapped, prefetch};

/// The slots. A depth is a prefix length plus one; 0 stands for no route, or for a word of a previous process.
#[derive(Debug)]
pub(super) struct Slots {
    l1: Mapped,
    l2: Mapped,
    depth1: Vec<u8>,
    depth2: Vec<u8>,
    /// Routes longer than /24 in each chunk.
    long_routes: Vec<u32>,
    chunks: Pool,
    /// Words of a previous process may still be there.
    adopting: bool,
}

impl Slots {
    pub(super) fn new(l1: Mapped, l2: Mapped, chunks: Pool) -> Self {
        let words = l2.words().len();
        Self {
            depth1: vec![0; L1_WORDS as usize],
            depth2: vec![0; words],
            long_routes: vec![0; words / CHUNK_WORDS as usize],
            l1,
            l2,
            chunks,
            adopting: true,
        }
    }

    /// Chunks that there are.
    pub(super) fn chunks(&self) -> usize {
        self.long_routes.len()
    }

    /// Fetches what `set` will touch first: random slots in 64 MiB are what filling a table waits for.
    pub(super) fn prefetch(&self, network: u32) {
        let slot = (network >> 8) as usize;
        prefetch(&self.l1.words()[slot]);
        prefetch(&self.depth1[slot]);
    }

    /// Points a prefix's slots to a group, apart from those that a longer prefix owns; `false`: no chunk is left.
    pub(super) fn set(&mut self, network: u32, len: u8, group: u32, is_new: bool) -> bool {
        let depth = len + 1;
        if len <= 24 {
            let first = (network >> 8) as usize;
            self.set_first_level(first..first + (1 << (24 - len)), depth, group);
            return true;
        }
        let Some(chunk) = self.ensure_chunk(network >> 8) else { return false };
        if is_new && let Some(routes) = self.long_routes.get_mut(chunk as usize) {
            *routes += 1;
        }
        let first = (chunk * CHUNK_WORDS + (network & 0xff)) as usize;
        let range = first..first + (1 << (32 - len));
        cover(&self.l2.words()[range.clone()], &mut self.depth2[range], depth, group);
        true
    }

    /// Gives a prefix's slots to the prefix that covers it, or to none.
    pub(super) fn clear(&mut self, network: u32, len: u8, covering: Option<(u8, u32)>) {
        let (depth, group) = covering.map_or((0, NO_GROUP), |(len, group)| (len + 1, group));
        let old = len + 1;
        if len <= 24 {
            let first = network >> 8;
            for slot in first..first + (1 << (24 - len)) {
                match self.chunk_of(slot) {
                    Some(chunk) => {
                        let first = chunk * CHUNK_WORDS;
                        self.replace_second(first, CHUNK_WORDS, old, depth, group);
                    }
                    None => self.replace_first(slot, old, depth, group),
                }
            }
            return;
        }
        let slot = network >> 8;
        let Some(chunk) = self.chunk_of(slot) else { return };
        let first = chunk * CHUNK_WORDS + (network & 0xff);
        self.replace_second(first, 1 << (32 - len), old, depth, group);
        if let Some(routes) = self.long_routes.get_mut(chunk as usize) {
            *routes = routes.saturating_sub(1);
        }
        self.collapse_if_even(slot, chunk);
    }

    /// Clears what a previous process left and nobody renewed.
    pub(super) fn drop_stale(&mut self) {
        self.adopting = false;
        for slot in 0..L1_WORDS {
            match self.chunk_of(slot) {
                Some(chunk) => {
                    let words = chunk * CHUNK_WORDS..(chunk + 1) * CHUNK_WORDS;
                    for index in words.filter(|index| self.depth2[*index as usize] == 0) {
                        self.l2.words()[index as usize].store(NO_GROUP, Relaxed);
                    }
                    self.collapse_if_even(slot, chunk);
                }
                None if self.depth1[slot as usize] == 0 => {
                    let word = &self.l1.words()[slot as usize];
                    if word.load(Relaxed) != NO_GROUP {
                        word.store(NO_GROUP, Relaxed);
                    }
                }
                None => {}
            }
        }
    }

    #[cfg(test)]
    pub(super) fn peek(&self, address: u32) -> Option<u32> {
        let word = match self.chunk_of(address >> 8) {
            Some(chunk) => {
                self.l2.words()[(chunk * CHUNK_WORDS + (address & 0xff)) as usize].load(Relaxed)
            }
            None => self.l1.words()[(address >> 8) as usize].load(Relaxed),
        };
        (word != NO_GROUP).then_some(word)
    }

    fn chunk_of(&self, slot: u32) -> Option<u32> {
        let word = self.l1.words()[slot as usize].load(Relaxed);
        (word & L1_CHUNK != 0).then_some(word & !L1_CHUNK)
    }

    fn ensure_chunk(&mut self, slot: u32) -> Option<u32> {
        if let Some(chunk) = self.chunk_of(slot) {
            return Some(chunk);
        }
        let chunk = self.chunks.take()?;
        let word = self.l1.words()[slot as usize].load(Relaxed);
        let depth = self.depth1[slot as usize];
        let words = (chunk * CHUNK_WORDS) as usize..((chunk + 1) * CHUNK_WORDS) as usize;
        for second in &self.l2.words()[words.clone()] {
            second.store(word, Relaxed);
        }
        self.depth2[words].fill(depth);
        self.long_routes[chunk as usize] = 0;
        self.l1.words()[slot as usize].store(L1_CHUNK | chunk, Release);
        Some(chunk)
    }

    /// Where no route longer than /24 is left, the chunk says 256 times the same.
    fn collapse_if_even(&mut self, slot: u32, chunk: u32) {
        if self.adopting || self.long_routes[chunk as usize] > 0 {
            return;
        }
        let first = (chunk * CHUNK_WORDS) as usize;
        let word = self.l2.words()[first].load(Relaxed);
        self.depth1[slot as usize] = self.depth2[first];
        self.l1.words()[slot as usize].store(word, Relaxed);
        self.chunks.give_back(chunk);
    }

    /// The hot part of filling a table: a short prefix covers thousands of slots.
    fn set_first_level(&mut self, range: Range<usize>, depth: u8, group: u32) {
        let words = &self.l1.words()[range.clone()];
        for (slot, known) in words.iter().zip(&mut self.depth1[range]) {
            let word = slot.load(Relaxed);
            if word & L1_CHUNK != 0 {
                let first = ((word & !L1_CHUNK) * CHUNK_WORDS) as usize;
                let chunk = first..first + CHUNK_WORDS as usize;
                cover(&self.l2.words()[chunk.clone()], &mut self.depth2[chunk], depth, group);
            } else if *known <= depth {
                *known = depth;
                slot.store(group, Relaxed);
            }
        }
    }

    fn replace_first(&mut self, slot: u32, old: u8, depth: u8, group: u32) {
        let known = &mut self.depth1[slot as usize];
        if *known == old {
            *known = depth;
            self.l1.words()[slot as usize].store(group, Relaxed);
        }
    }

    fn replace_second(&mut self, first: u32, count: u32, old: u8, depth: u8, group: u32) {
        for index in (first..first + count).map(|index| index as usize) {
            if self.depth2[index] == old {
                self.depth2[index] = depth;
                self.l2.words()[index].store(group, Relaxed);
            }
        }
    }
}

/// Points words to a group, apart from those of longer prefixes.
fn cover(words: &[AtomicU32], depths: &mut [u8], depth: u8, group: u32) {
    for (word, known) in words.iter().zip(depths) {
        if *known <= depth {
            *known = depth;
            word.store(group, Relaxed);
        }
    }
}
