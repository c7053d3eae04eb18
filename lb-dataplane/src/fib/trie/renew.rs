//! The end of adoption: what a previous process left in the trie and nobody renewed goes.

use lb_dataplane_common::fib6::{ROOT6_UNICAST, ROOT6_WORDS, root_index};

use super::{Cover, Place, Trie, cover_route};
use crate::fib::node::{Skip, is_stale, len_of, node_of, with_route};
use crate::fib::table::Bits as _;

impl Trie {
    /// Gives what a previous process left and nobody renewed to the routes that cover it. `covering` names the longest of
    /// the routes shorter than a prefix, and no shorter than a length, that have it.
    pub(in crate::fib) fn drop_stale(&mut self, covering: impl Fn(u128, u8, u8) -> Option<Cover>) {
        self.clear_shortcuts();
        for index in 0..ROOT6_WORDS {
            let place = Place::Root(index as usize);
            let word = self.load(place);
            let address = root_address(index);
            let (_, bits) = root_index((address >> 64) as u64);
            if is_stale(word) {
                // A word that hid others has a length beyond those that end in it.
                let len = len_of(word).min(bits as u8 + 1);
                let cover = covering(address & u128::mask(len), len, 0);
                self.store(place, with_route(word, cover_route(cover, 0)));
            }
            if node_of(word) != 0 {
                self.renew(place, address.to_be_bytes(), bits as usize / 8, &covering);
                self.finish(true);
            }
        }
        self.renew_shortcuts();
    }

    /// The same below a word, whose address has `at` bytes; whether the node there is gone.
    fn renew(
        &mut self,
        place: Place,
        mut address: [u8; 16],
        at: usize,
        covering: &impl Fn(u128, u8, u8) -> Option<Cover>,
    ) -> bool {
        let unit = node_of(self.load(place));
        let skip = Skip::from_head(self.head(unit));
        let byte = at + skip.bytes().len();
        address[at..byte].copy_from_slice(skip.bytes());
        let node = self.read(unit);
        for (word, slot) in node.slots.iter().zip(0_u8..=u8::MAX) {
            if node_of(*word) != 0 {
                address[byte] = slot;
                self.renew(self.run(unit, slot), address, byte + 1, covering);
            }
        }
        let mut node = self.read(unit);
        let before = byte as u8 * 8;
        let mut last = None;
        for (word, slot) in node.slots.iter_mut().zip(0_u8..=u8::MAX) {
            if !is_stale(*word) {
                continue;
            }
            let len = before + len_of(*word);
            address[byte] = slot;
            address[byte + 1..].fill(0);
            let network = u128::from_be_bytes(address) & u128::mask(len);
            let cover = match last {
                Some((prefix, cover)) if prefix == (network, len) => cover,
                Some(_) | None => cover_route(covering(network, len, before + 1), before + 1),
            };
            last = Some(((network, len), cover));
            *word = with_route(*word, cover);
        }
        self.settle(place, &node, &address[..at])
    }
}

/// The first address of a word of the root.
pub(super) fn root_address(index: u32) -> u128 {
    let index = u128::from(index);
    match index.checked_sub(u128::from(ROOT6_UNICAST)) {
        Some(index) => index << 112,
        None => 1 << 125 | index << 104,
    }
}
