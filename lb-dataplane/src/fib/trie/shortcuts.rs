//! The shortcuts into the trie: by the first five bytes of an address, the node for the sixth or a later one.
//!
//! One follows the node that it names with every change, before that node's units are given back. A set that is full takes
//! no more: lookups then go the long way.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};

use lb_dataplane_common::fib6::{
    ROOT6_WORDS, SHORTCUT6_AT_SHIFT, SHORTCUT6_FIRST, SHORTCUT6_WAYS, has_tag, root_index,
    shortcut_place,
};

use super::renew::root_address;
use super::{Place, Trie};
use crate::fib::node::{Skip, node_of};
use crate::mapped::Mapped;

/// Bytes of an address that name a shortcut.
const KEY: usize = 5;

impl Trie {
    /// The shortcut to what a path and the bytes skipped behind it lead to may have changed.
    pub(super) fn touch(&mut self, path: &[u8], skipped: &[u8]) {
        let mut address = [0; 16];
        let bytes = path.iter().chain(skipped);
        address.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        self.touched.push(address);
    }

    /// Makes the shortcuts of what was touched follow.
    pub(super) fn refresh_shortcuts(&mut self) {
        while let Some(address) = self.touched.pop() {
            set_shortcut(self.shortcuts(), address, self.node_of_key(address));
        }
    }

    /// Lets every lookup go the long way.
    pub(super) fn clear_shortcuts(&self) {
        self.shortcuts().iter().for_each(|word| word.store(0, Relaxed));
    }

    /// Sets with room that do not hold what they should; those without may lack some.
    pub(in crate::fib) fn wrong_shortcuts(&self) -> usize {
        let wanted = Mapped::on_heap(size_of_val(self.shortcuts()));
        self.fill(wanted.wide_words());
        let sets = |words| <[AtomicU64]>::chunks(words, SHORTCUT6_WAYS as usize);
        let sorted = |set: &[AtomicU64]| {
            let mut set: Vec<u64> = set.iter().map(|word| word.load(Relaxed)).collect();
            set.sort_unstable();
            set
        };
        let pairs = sets(wanted.wide_words()).zip(sets(self.shortcuts()));
        let differ = pairs.filter(|(wanted, found)| {
            let wanted = sorted(wanted);
            wanted.contains(&0) && wanted != sorted(found)
        });
        differ.count()
    }

    pub(super) fn shortcuts(&self) -> &[AtomicU64] {
        &self.root.wide_words()[SHORTCUT6_FIRST as usize..]
    }

    /// Makes all shortcuts anew.
    pub(in crate::fib) fn renew_shortcuts(&self) {
        self.clear_shortcuts();
        self.fill(self.shortcuts());
    }

    fn fill(&self, shortcuts: &[AtomicU64]) {
        for index in (0..ROOT6_WORDS).filter(|index| !self.is_hidden(*index)) {
            let place = Place::Root(index as usize);
            if node_of(self.load(place)) != 0 {
                let address = root_address(index);
                let (_, bits) = root_index((address >> 64) as u64);
                self.fill_below(shortcuts, place, address.to_be_bytes(), bits as usize / 8);
            }
        }
    }

    /// Sets the shortcuts to what is below a word, whose address has `at` bytes.
    pub(super) fn fill_below(
        &self,
        shortcuts: &[AtomicU64],
        place: Place,
        address: [u8; 16],
        at: usize,
    ) {
        let set = &|address, node| set_shortcut(shortcuts, address, Some(node));
        self.each_below(place, address, at, set);
    }

    /// Takes them away.
    pub(super) fn drop_below(&self, place: Place, address: [u8; 16], at: usize) {
        let drop = &|address, _| set_shortcut(self.shortcuts(), address, None);
        self.each_below(place, address, at, drop);
    }

    fn each_below(
        &self,
        place: Place,
        mut address: [u8; 16],
        at: usize,
        found: &impl Fn([u8; 16], (u32, usize)),
    ) {
        let unit = node_of(self.load(place));
        let skip = Skip::from_head(self.head(unit));
        let byte = at + skip.bytes().len();
        address[at..byte].copy_from_slice(skip.bytes());
        if byte >= KEY {
            found(address, (unit, at));
            return;
        }
        let begins = self.begins(unit);
        for slot in (0..=u8::MAX).filter(|slot| begins.is_alone(*slot)) {
            let place = self.run(unit, slot);
            if node_of(self.load(place)) != 0 {
                address[byte] = slot;
                self.each_below(place, address, byte + 1, found);
            }
        }
    }

    /// The node for the sixth byte or a later one of addresses that begin with the key, and the bytes that lead to it.
    fn node_of_key(&self, address: [u8; 16]) -> Option<(u32, usize)> {
        let (index, bits) = root_index((u128::from_be_bytes(address) >> 64) as u64);
        if self.is_hidden(index) {
            return None;
        }
        let (mut place, mut at) = (Place::Root(index as usize), bits as usize / 8);
        loop {
            let unit = node_of(self.load(place));
            if unit == 0 {
                return None;
            }
            let skip = Skip::from_head(self.head(unit));
            let byte = at + skip.bytes().len();
            let pairs = skip.bytes().iter().zip(&address[at..KEY.max(at)]);
            if pairs.into_iter().any(|(one, other)| one != other) {
                return None;
            }
            if byte >= KEY {
                return Some((unit, at));
            }
            place = self.run(unit, address[byte]);
            at = byte + 1;
        }
    }
}

fn set_shortcut(shortcuts: &[AtomicU64], address: [u8; 16], node: Option<(u32, usize)>) {
    let (first, tag) = shortcut_place((u128::from_be_bytes(address) >> 64) as u64);
    let first = (first - SHORTCUT6_FIRST) as usize;
    let set = &shortcuts[first..first + SHORTCUT6_WAYS as usize];
    let load = |word: &&AtomicU64| word.load(Relaxed);
    let there = set.iter().find(|word| load(word) != 0 && has_tag(load(word), tag));
    let new =
        node.map_or(0, |(unit, at)| (at as u64) << SHORTCUT6_AT_SHIFT | tag | u64::from(unit));
    let place = match there {
        Some(there) => Some(there),
        None if new != 0 => set.iter().find(|word| load(word) == 0),
        None => None,
    };
    if let Some(place) = place {
        place.store(new, Release);
    }
}
