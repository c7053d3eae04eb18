//! The two levels of slots. Each word says which group its packets meet and how long the prefix is that it comes from.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, Release};

use lb_dataplane_common::fib::{
    CHUNK_WORDS, L1_CHUNK, L1_WORDS, NO_GROUP, SLOT_LEN_SHIFT, SLOT_STALE,
};

use super::pool::Pool;
use super::table::Bits as _;
use crate::mapped::{Mapped, prefetch};

/// The length in a word.
const LEN: u32 = 0x3f << SLOT_LEN_SHIFT;

/// The length of a /24 that a longer route of does not fit: none that is shorter takes its place.
const LONGEST: u8 = 32;

/// A route that covers others: its length and its group.
pub(super) type Cover = (u8, u32);

/// The slots.
#[derive(Debug)]
pub(super) struct Slots {
    l1: Mapped,
    l2: Mapped,
    /// Routes longer than /24 in each chunk.
    long_routes: Vec<u32>,
    chunks: Pool,
    /// Words of a previous process may still be there.
    adopting: bool,
}

impl Slots {
    /// Takes over slots whose words are all stale.
    pub(super) fn new(l1: Mapped, l2: Mapped, chunks: Pool) -> Self {
        let count = l2.words().len() / CHUNK_WORDS as usize;
        Self { long_routes: vec![0; count], l1, l2, chunks, adopting: true }
    }

    /// Chunks that there are.
    pub(super) fn chunks(&self) -> usize {
        self.long_routes.len()
    }

    /// Chunks that are in use.
    pub(super) fn used(&self) -> usize {
        self.chunks() - self.chunks.available()
    }

    /// Bytes of the chunks that are in use, and of all.
    pub(super) fn bytes(&self) -> (usize, usize) {
        const CHUNK: usize = CHUNK_WORDS as usize * size_of::<u32>();
        (self.used() * CHUNK, self.chunks() * CHUNK)
    }

    /// Whether there is room for a prefix.
    pub(super) fn has_room(&self, network: u32, len: u8) -> bool {
        len <= 24 || self.chunk_of(network >> 8).is_some() || self.chunks.available() > 0
    }

    /// Fetches what `set` will touch first: random slots in 64 MiB are what filling a table waits for.
    pub(super) fn prefetch(&self, network: u32) {
        prefetch(&self.l1.words()[(network >> 8) as usize]);
    }

    /// Points a prefix's slots to a group, apart from those that a longer prefix owns; `false`: no chunk is left.
    pub(super) fn set(&mut self, network: u32, len: u8, group: u32, is_new: bool) -> bool {
        let word = word(len, group);
        if len > 24 {
            let Some(chunk) = self.ensure_chunk(network >> 8) else { return false };
            self.long_routes[chunk as usize] += u32::from(is_new);
            let first = chunk * CHUNK_WORDS + (network & 0xff);
            cover(words(&self.l2, first, 1 << (32 - len)), word);
            return true;
        }
        // The hot part of filling a table: a short prefix covers thousands of slots.
        for slot in words(&self.l1, network >> 8, 1 << (24 - len)) {
            let old = slot.load(Relaxed);
            if old & L1_CHUNK != 0 {
                cover(words(&self.l2, (old & !L1_CHUNK) * CHUNK_WORDS, CHUNK_WORDS), word);
            } else if old & LEN <= word & LEN {
                slot.store(word, Relaxed);
            }
        }
        true
    }

    /// Gives a prefix's slots to the prefix that covers it, or to none.
    pub(super) fn clear(&mut self, network: u32, len: u8, covering: Option<Cover>) {
        let covering = covering_word(covering);
        if len > 24 {
            let slot = network >> 8;
            let Some(chunk) = self.chunk_of(slot) else { return };
            let first = chunk * CHUNK_WORDS + (network & 0xff);
            replace(words(&self.l2, first, 1 << (32 - len)), len, covering);
            let routes = &mut self.long_routes[chunk as usize];
            *routes = routes.saturating_sub(1);
            self.collapse_if_even(slot, chunk);
            return;
        }
        for slot in words(&self.l1, network >> 8, 1 << (24 - len)) {
            let old = slot.load(Relaxed);
            if old & L1_CHUNK != 0 {
                let chunk = words(&self.l2, (old & !L1_CHUNK) * CHUNK_WORDS, CHUNK_WORDS);
                replace(chunk, len, covering);
            } else {
                replace(std::slice::from_ref(slot), len, covering);
            }
        }
    }

    /// Gives what a previous process left and nobody renewed to the routes that cover it. `covering` names the longest
    /// route that is shorter than a prefix and has it.
    pub(super) fn drop_stale(&mut self, covering: impl Fn(u32, u8) -> Option<Cover>) {
        self.adopting = false;
        // Neighbouring slots come from the same prefix, and so have the same cover.
        let mut last = None;
        let mut renew = |slot: &AtomicU32, address: u32| {
            let old = slot.load(Relaxed);
            if old & SLOT_STALE == 0 {
                return;
            }
            // No route of this process is as long here, or it would have taken the slot.
            let len = len_of(old);
            let network = address & u32::mask(len);
            let cover = match last {
                Some((prefix, cover)) if prefix == (network, len) => cover,
                Some(_) | None => covering_word(covering(network, len)),
            };
            last = Some(((network, len), cover));
            slot.store(cover, Relaxed);
        };
        for slot in 0..L1_WORDS {
            match self.chunk_of(slot) {
                Some(chunk) => {
                    let addresses = slot << 8..=slot << 8 | 0xff;
                    let words = words(&self.l2, chunk * CHUNK_WORDS, CHUNK_WORDS);
                    words.iter().zip(addresses).for_each(|(word, address)| renew(word, address));
                    self.collapse_if_even(slot, chunk);
                }
                None => renew(&self.l1.words()[slot as usize], slot << 8),
            }
        }
    }

    /// Hands a /24 without a chunk over to a group.
    pub(super) fn hand_over(&self, slot: u32, group: u32) {
        self.l1.words()[slot as usize].store(word(LONGEST, group), Relaxed);
    }

    /// Takes a /24 back that was handed over, with all its routes longer than /24 (and their groups) at once; `false`: no
    /// chunk is left.
    pub(super) fn take_back(
        &mut self,
        slot: u32,
        covering: Option<Cover>,
        routes: &[(u32, u8, u32)],
    ) -> bool {
        let (first, base) = (&self.l1.words()[slot as usize], covering_word(covering));
        if routes.is_empty() {
            first.store(base, Relaxed);
            return true;
        }
        let Some(chunk) = self.chunks.take() else { return false };
        let second = words(&self.l2, chunk * CHUNK_WORDS, CHUNK_WORDS);
        second.iter().for_each(|slot| slot.store(base, Relaxed));
        for (network, len, group) in routes {
            let at = chunk * CHUNK_WORDS + (network & 0xff);
            cover(words(&self.l2, at, 1 << (32 - len)), word(*len, *group));
        }
        self.long_routes[chunk as usize] = routes.len() as u32;
        first.store(L1_CHUNK | chunk, Release);
        true
    }

    /// The first and the second level, as packets read them.
    pub(super) fn memory(&self) -> (&Mapped, &Mapped) {
        (&self.l1, &self.l2)
    }

    /// Writes what addresses are to meet over whatever stands there. Where a whole chunk would be needed and none is left,
    /// nothing is written.
    pub(super) fn rewrite(&mut self, first: u32, last: u32, len: u8, group: u32) {
        let word = if group == NO_GROUP { NO_GROUP } else { word(len, group) };
        for slot in first >> 8..=last >> 8 {
            let (from, to) = (first.max(slot << 8), last.min(slot << 8 | 0xff));
            let is_lost = self.chunk_of(slot).is_some_and(|chunk| chunk as usize >= self.chunks());
            let is_whole = to - from == 0xff;
            if is_lost || (is_whole && self.chunk_of(slot).is_none()) {
                self.l1.words()[slot as usize]
                    .store(if is_whole { word } else { NO_GROUP }, Relaxed);
            }
            if is_whole && self.chunk_of(slot).is_none() {
                continue;
            }
            let Some(chunk) = self.ensure_chunk(slot) else { continue };
            let place = chunk * CHUNK_WORDS + (from & 0xff);
            let words = words(&self.l2, place, to - from + 1);
            words.iter().for_each(|slot| slot.store(word, Relaxed));
        }
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
        let slot = &self.l1.words()[slot as usize];
        let word = slot.load(Relaxed);
        for second in words(&self.l2, chunk * CHUNK_WORDS, CHUNK_WORDS) {
            second.store(word, Relaxed);
        }
        self.long_routes[chunk as usize] = 0;
        slot.store(L1_CHUNK | chunk, Release);
        Some(chunk)
    }

    /// Where no route longer than /24 is left, the chunk says 256 times the same.
    fn collapse_if_even(&mut self, slot: u32, chunk: u32) {
        if self.adopting || self.long_routes[chunk as usize] > 0 {
            return;
        }
        let word = self.l2.words()[(chunk * CHUNK_WORDS) as usize].load(Relaxed);
        self.l1.words()[slot as usize].store(word, Relaxed);
        self.chunks.give_back(chunk);
    }
}

fn words(memory: &Mapped, first: u32, count: u32) -> &[AtomicU32] {
    &memory.words()[first as usize..(first + count) as usize]
}

/// The word of a route's slots.
fn word(len: u8, group: u32) -> u32 {
    u32::from(len) << SLOT_LEN_SHIFT | group
}

fn covering_word(covering: Option<Cover>) -> u32 {
    covering.map_or(NO_GROUP, |(len, group)| word(len, group))
}

fn len_of(word: u32) -> u8 {
    ((word & LEN) >> SLOT_LEN_SHIFT) as u8
}

/// Writes a word wherever no longer prefix is. A word of a previous process counts like any other: the route that it comes
/// from may be renewed at any moment, and a shorter one's packets are not its.
fn cover(slots: &[AtomicU32], word: u32) {
    for slot in slots {
        if slot.load(Relaxed) & LEN <= word & LEN {
            slot.store(word, Relaxed);
        }
    }
}

/// Writes a word wherever one of this length is.
fn replace(slots: &[AtomicU32], len: u8, word: u32) {
    for slot in slots {
        let old = slot.load(Relaxed);
        if old != NO_GROUP && old & (LEN | SLOT_STALE) == u32::from(len) << SLOT_LEN_SHIFT {
            slot.store(word, Relaxed);
        }
    }
}
