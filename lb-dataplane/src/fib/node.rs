//! A node of the IPv6 trie in the writer's hands: all 256 slots, with the runs that its words in memory make of them.

use std::ops::Range;

use lb_dataplane_common::fib6::{
    BITMAP_FRONT, HEAD_LIST, LIST_BITS, LIST_FRONT, LIST_NONE, LIST_RUNS, MAX_SKIP, UNIT_WORDS,
    WORD_GROUP, WORD_LEN_SHIFT, WORD_NODE_SHIFT, WORD_STALE, head,
};

/// Slots of a node: one per value of its byte.
const SLOTS: usize = 256;
/// The length in a word.
const LEN: u64 = 0x1f << WORD_LEN_SHIFT;
/// The route in a word.
const ROUTE: u64 = WORD_GROUP | LEN | WORD_STALE;

/// The node that a word leads to, 0 for none.
pub(super) fn node_of(word: u64) -> u32 {
    (word >> WORD_NODE_SHIFT) as u32
}

/// The same word with another node.
pub(super) fn with_node(word: u64, node: u32) -> u64 {
    word & ROUTE | u64::from(node) << WORD_NODE_SHIFT
}

/// The same word with another route.
pub(super) fn with_route(word: u64, route: u64) -> u64 {
    word & !ROUTE | route
}

/// What a word says of its route: the length is counted from the first bit of the word's level.
pub(super) fn route(len: u8, group: u32) -> u64 {
    u64::from(len) << WORD_LEN_SHIFT | u64::from(group)
}

pub(super) fn group_of(word: u64) -> u32 {
    (word & WORD_GROUP) as u32
}

pub(super) fn len_of(word: u64) -> u8 {
    ((word & LEN) >> WORD_LEN_SHIFT) as u8
}

pub(super) fn is_stale(word: u64) -> bool {
    word & WORD_STALE != 0
}

/// A word once a route covers it, unless a longer one does. A word of a previous process counts like any other.
pub(super) fn covered(word: u64, route: u64) -> u64 {
    if len_of(word) <= len_of(route) { with_route(word, route) } else { word }
}

/// A word once the route of a length is gone from it.
pub(super) fn uncovered(word: u64, len: u8, cover: u64) -> u64 {
    let is_its = group_of(word) != 0 && !is_stale(word) && len_of(word) == len;
    if is_its { with_route(word, cover) } else { word }
}

/// Units that a node takes: the binary logarithm.
pub(super) fn log2_units(runs: u32) -> u8 {
    let units = (front_words(runs) + runs).div_ceil(UNIT_WORDS);
    units.next_power_of_two().trailing_zeros() as u8
}

/// Words before the runs.
pub(super) fn front_words(runs: u32) -> u32 {
    if runs <= LIST_RUNS { LIST_FRONT } else { BITMAP_FRONT }
}

/// Bytes that a node skips.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Skip {
    bytes: [u8; MAX_SKIP as usize],
    len: u8,
}

impl Skip {
    /// At most `MAX_SKIP` bytes.
    pub(super) fn new(skipped: &[u8]) -> Self {
        let mut bytes = [0; MAX_SKIP as usize];
        let len = skipped.len().min(bytes.len());
        bytes[..len].copy_from_slice(&skipped[..len]);
        Self { bytes, len: len as u8 }
    }

    /// From a node's first word.
    pub(super) fn from_head(head: u64) -> Self {
        let [_, _, _, bits, low @ ..] = head.to_le_bytes();
        let bytes = u32::from_le_bytes(low).to_be_bytes();
        Self { bytes, len: (bits % 64 / 8).min(MAX_SKIP) }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) skip: Skip,
    pub(super) slots: [u64; SLOTS],
}

impl Node {
    pub(super) fn new(skipped: &[u8]) -> Self {
        Self { skip: Skip::new(skipped), slots: [0; SLOTS] }
    }

    /// From its head, its bitmap and its runs.
    pub(super) fn decode(head: u64, begins: &Begins, run: impl Fn(u32) -> u64) -> Self {
        let mut slots = [0; SLOTS];
        let mut places = begins.places().map(usize::from).peekable();
        for number in 0.. {
            let Some(first) = places.next() else { break };
            let end = places.peek().copied().unwrap_or(SLOTS);
            slots[first..end].fill(run(number));
        }
        Self { skip: Skip::from_head(head), slots }
    }

    /// Where its runs begin. A run ends where the word changes, and never goes beyond the prefix that its route comes from:
    /// so a route's removal never needs a run more than there were.
    pub(super) fn begins(&self) -> Begins {
        self.begins_after(Begins::default(), 0..SLOTS)
    }

    /// The same, given where they began before the words in a range of slots changed.
    pub(super) fn begins_after(&self, mut begins: Begins, changed: Range<usize>) -> Begins {
        // A slot behind the range may begin a run now, or not any more.
        for place in changed.start..(changed.end + 1).min(SLOTS) {
            let (word, before) = (self.slots[place], place.checked_sub(1));
            let is_first = group_of(word) != 0 && place.trailing_zeros() >= free_bits(word);
            let is_other = before.is_none_or(|before| self.slots[before] != word);
            begins.put(place as u8, is_other || node_of(word) != 0 || is_first);
        }
        begins
    }

    /// The words before the runs, as many as `front_words` says.
    pub(super) fn front(&self, begins: &Begins) -> [u64; BITMAP_FRONT as usize] {
        let skipped = u32::from_be_bytes(self.skip.bytes);
        let skip_bits = self.skip.len * 8;
        if begins.count() <= LIST_RUNS {
            return [head([0; 3], skip_bits, skipped) | HEAD_LIST, begins.list(), 0, 0, 0];
        }
        let mut sum = 0;
        let counts = [0, 1, 2].map(|quarter: usize| {
            sum += begins.0[quarter].count_ones() as u8;
            sum
        });
        let [a, b, c, d] = begins.0;
        [head(counts, skip_bits, skipped), a, b, c, d]
    }

    /// The slots of a prefix that ends in this node: `len` bits of `byte`.
    pub(super) fn range(byte: u8, len: u8) -> Range<usize> {
        let first = usize::from(byte);
        first..first + (1 << (8 - len))
    }

    /// Whether it says nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.iter().all(|word| *word == 0)
    }

    /// The byte and the node below where there is one and nothing else.
    pub(super) fn only_child(&self) -> Option<(u8, u32)> {
        let mut said = self.slots.iter().zip(0_u8..=u8::MAX).filter(|(word, _)| **word != 0);
        let (word, byte) = said.next()?;
        (group_of(*word) == 0 && said.next().is_none()).then(|| (byte, node_of(*word)))
    }
}

/// Bits of the byte that a word's route leaves open.
fn free_bits(word: u64) -> u32 {
    8_u32.saturating_sub(u32::from(len_of(word)))
}

/// A bitmap of slots: those where a run begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Begins(pub(super) [u64; 4]);

impl Begins {
    /// Of a node that says nothing.
    pub(super) fn of_empty() -> Self {
        Self([1, 0, 0, 0])
    }

    /// From a node's first words.
    pub(super) fn from_front([head, words @ ..]: [u64; BITMAP_FRONT as usize]) -> Self {
        if head & HEAD_LIST == 0 {
            return Self(words);
        }
        let mut begins = Self::default();
        begins.set(0);
        let [list, ..] = words;
        for place in 0..LIST_RUNS - 1 {
            let place = list >> (LIST_BITS * place) & ((1 << LIST_BITS) - 1);
            if let Ok(place) = u8::try_from(place) {
                begins.set(place);
            }
        }
        begins
    }

    /// Where runs behind the first one begin, if there are no more than a list has room for.
    fn list(&self) -> u64 {
        let mut places = self.places().skip(1).map(u64::from);
        (0..LIST_RUNS - 1)
            .fold(0, |list, place| list | places.next().unwrap_or(LIST_NONE) << (LIST_BITS * place))
    }

    pub(super) fn at(&self, place: u8) -> bool {
        self.0[usize::from(place >> 6)] >> (place & 63) & 1 != 0
    }

    fn set(&mut self, place: u8) {
        self.put(place, true);
    }

    fn put(&mut self, place: u8, begins: bool) {
        let bits = &mut self.0[usize::from(place >> 6)];
        *bits = *bits & !(1 << (place & 63)) | u64::from(begins) << (place & 63);
    }

    /// The slots where runs begin, in order.
    pub(super) fn places(&self) -> impl Iterator<Item = u8> + '_ {
        (0_u8..).zip(self.0).flat_map(|(quarter, mut bits)| {
            std::iter::from_fn(move || {
                let place = bits.trailing_zeros();
                bits &= bits.wrapping_sub(1);
                (place < 64).then_some(quarter << 6 | place as u8)
            })
        })
    }

    /// How many there are.
    pub(super) fn count(&self) -> u32 {
        self.0.iter().map(|bits| bits.count_ones()).sum()
    }

    /// The run that a slot is in, from 0.
    pub(super) fn run(&self, place: u8) -> u32 {
        let quarter = usize::from(place >> 6);
        let before: u32 = self.0[..quarter].iter().map(|bits| bits.count_ones()).sum();
        let own = self.0[quarter] << (63 - (place & 63));
        (before + own.count_ones()).saturating_sub(1)
    }

    /// Whether a slot is a run of its own.
    pub(super) fn is_alone(&self, place: u8) -> bool {
        self.at(place) && place.checked_add(1).is_none_or(|next| self.at(next))
    }

    /// Whether runs begin nowhere else than in `other`.
    pub(super) fn within(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).all(|(bits, other)| bits & !other == 0)
    }
}
