//! Parts of the trie that packets do not see.
//!
//! Where a route does not fit, packets that it covers must not take a shorter one. A node that would say so needs room,
//! which there is none of, but a word of the root is always there: it leads to another group, and with it all that is below.
//! The trie there goes on changing behind it, and is seen again as a whole. The word's length is longer than that of any
//! route that ends there, so that the next process lets no shorter one take it before it has told all.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};

use lb_dataplane_common::fib6::root_index;

use super::renew::root_address;
use super::{Place, Trie};
use crate::fib::node::{node_of, route};

/// The length in a word that hides others.
const LONGEST: u8 = 31;

/// A word of the root that packets do not see.
#[derive(Debug)]
pub(super) struct Hidden {
    word: AtomicU64,
    /// What they see instead.
    seen: u64,
}

impl Trie {
    /// The addresses of a word of the root: the first one, and the bits that they share.
    pub(in crate::fib) fn root_prefix(index: u32) -> (u128, u8) {
        let address = root_address(index);
        let (_, bits) = root_index((address >> 64) as u64);
        (address, bits as u8)
    }

    /// Hides a word of the root and all that is below it; packets meet a group there.
    pub(in crate::fib) fn hide(&mut self, index: u32, group: u32) {
        let word = &self.root.wide_words()[index as usize];
        let seen = route(LONGEST, group);
        let before = word.swap(seen, Release);
        if let Some(hidden) = self.hidden.get_mut(&index) {
            hidden.seen = seen;
            return;
        }
        self.hidden.insert(index, Hidden { word: AtomicU64::new(before), seen });
        self.below(index, |trie, place, address, at| trie.drop_below(place, address, at));
    }

    /// Shows it again.
    pub(in crate::fib) fn show(&mut self, index: u32) {
        let Some(hidden) = self.hidden.remove(&index) else { return };
        self.root.wide_words()[index as usize].store(hidden.word.load(Relaxed), Release);
        self.below(index, |trie, place, address, at| {
            trie.fill_below(trie.shortcuts(), place, address, at);
        });
    }

    /// Whether packets do not see a word of the root.
    pub(super) fn is_hidden(&self, index: u32) -> bool {
        !self.hidden.is_empty() && self.hidden.contains_key(&index)
    }

    /// What packets see of a word of the root that is hidden.
    pub(super) fn seen_of_hidden(&self, index: u32) -> Option<u64> {
        self.hidden.get(&index).map(|hidden| hidden.seen)
    }

    /// A word of the root, where it is.
    pub(super) fn root_word(&self, index: usize) -> &AtomicU64 {
        let hidden = (!self.hidden.is_empty()).then(|| self.hidden.get(&(index as u32))).flatten();
        hidden.map_or_else(|| &self.root.wide_words()[index], |hidden| &hidden.word)
    }

    fn below(&self, index: u32, work: impl Fn(&Self, Place, [u8; 16], usize)) {
        let place = Place::Root(index as usize);
        if node_of(self.load(place)) != 0 {
            let (address, bits) = Self::root_prefix(index);
            work(self, place, address.to_be_bytes(), usize::from(bits) / 8);
        }
    }
}
