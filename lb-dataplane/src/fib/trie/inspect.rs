//! The trie written down as stretches of addresses, and parts of it made anew.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use lb_dataplane_common::fib::NO_GROUP;
use lb_dataplane_common::fib6::{BITMAP_FRONT, UNIT_WORDS, WORD_NODE_SHIFT, root_index};

use super::renew::root_address;
use super::{Cover, Trie, cover_route};
use crate::fib::audit::{begin, root_in_order};
use crate::fib::node::{Skip, group_of, node_of};
use crate::fib::table::Bits as _;

impl Trie {
    /// What packets meet: the first address of each stretch, and the group. The length is not known here.
    pub(in crate::fib) fn stretches(&self) -> Vec<(u128, u8, u32)> {
        let mut stretches = Vec::new();
        for index in root_in_order() {
            let word = self.root.wide_words()[index as usize].load(Relaxed);
            let address = root_address(index);
            let (_, bits) = root_index((address >> 64) as u64);
            let group = group_of(word);
            note(&mut stretches, address, group);
            self.note_below(word, address, bits as usize / 8, group, &mut stretches);
        }
        stretches
    }

    /// The same below a word, whose address has `at` bytes.
    fn note_below(
        &self,
        word: u64,
        address: u128,
        at: usize,
        covering: u32,
        stretches: &mut Vec<(u128, u8, u32)>,
    ) {
        let unit = node_of(word);
        // Words that nobody wrote may lead anywhere: packets meet what covers them there.
        let first = unit as usize * UNIT_WORDS as usize;
        let is_one = self.nodes.wide_words().get(first..first + BITMAP_FRONT as usize).is_some();
        if unit == 0 || !is_one {
            return;
        }
        let skip = Skip::from_head(self.head(unit));
        let byte = at + skip.bytes().len();
        if byte > 15 {
            return;
        }
        let skipped = skip.bytes().iter().fold(0, |bits, byte| bits << 8 | u128::from(*byte));
        let below = 128 - 8 * byte as u32;
        let address = address | skipped << below;
        let node = self.read(unit);
        let step = 1 << (below - 8);
        for (word, slot) in node.slots.iter().zip(0_u128..) {
            let address = address + slot * step;
            let group = if group_of(*word) == NO_GROUP { covering } else { group_of(*word) };
            note(stretches, address, group);
            // Fewer levels than bytes: a loop in words that nobody wrote ends.
            self.note_below(*word, address, byte + 1, group, stretches);
        }
        if let Some(next) = address.checked_add(step << 8) {
            note(stretches, next, covering);
        }
    }

    /// Makes the trie below the root's words in some ranges of addresses anew from the routes, which are in order. Until that
    /// is done, packets there take shorter prefixes. The memory of what was there is free again after a restart.
    pub(in crate::fib) fn rebuild(
        &mut self,
        ranges: impl Iterator<Item = (u128, u128)>,
        routes: &[(u128, u8, u32)],
        index: impl Fn(u32) -> u32,
        cover: impl Fn(u128, Range<u8>) -> Option<Cover>,
    ) {
        let of = |address: u128| root_index((address >> 64) as u64);
        let mut words = BTreeSet::new();
        for (first, last) in ranges {
            let mut address = first;
            loop {
                let (index, bits) = of(address);
                words.insert((address & u128::mask(bits as u8), index, bits as u8));
                match (address | !u128::mask(bits as u8)).checked_add(1) {
                    Some(next) if next <= last => address = next,
                    Some(_) | None => break,
                }
            }
        }
        for (address, place, bits) in words {
            if let Some(seen) = self.seen_of_hidden(place) {
                self.root.wide_words()[place as usize].store(seen, Relaxed);
                continue;
            }
            let route = cover_route(cover(address, 0..bits + 1), 0);
            self.root.wide_words()[place as usize]
                .store(route & !(u64::MAX << WORD_NODE_SHIFT), Relaxed);
            let from = routes.partition_point(|(network, ..)| *network < address);
            let last = address | !u128::mask(bits);
            for (network, len, group) in &routes[from..] {
                if *network > last {
                    break;
                }
                if *len > bits {
                    self.set(*network, *len, index(*group));
                }
            }
        }
        self.renew_shortcuts();
    }
}

fn note(stretches: &mut Vec<(u128, u8, u32)>, at: u128, group: u32) {
    if stretches.last().is_none_or(|last| last.2 != group || last.0 == at) {
        begin(stretches, at, 0, group);
    }
}
