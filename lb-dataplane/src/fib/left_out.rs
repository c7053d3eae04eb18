//! What there is no room for, and how its packets are kept off shorter routes.
//!
//! A route that does not fit belongs to a block: the /24 whose second level it would need, or the root's word that its nodes
//! would hang on. The block says "no route" to packets, which is the kernel's business, until all that is left out of it
//! fits, or is gone. A group whose members do not fit, or are more than one can have, is the kernel's as well. The kernel
//! goes by its own routes: those that were never told it are missing there, and a shorter one of its own takes their place.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_dataplane_common::fib6::root_index;

use super::table::Bits as _;
use super::{Action, Fib, FibError, Network, Trie};

/// Routes of a block, with their groups.
type Routes<A> = BTreeMap<(A, u8), u32>;

/// What is left out.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    /// By the first 24 bits of the /24.
    four: BTreeMap<u32, Routes<u32>>,
    /// By the root's word.
    six: BTreeMap<u32, Routes<u128>>,
    groups: BTreeMap<u32, Action>,
    /// How much had been given back of groups and members when they were tried last.
    tried: u64,
}

impl LeftOut {
    /// Routes and groups.
    pub(super) fn len(&self) -> usize {
        let four = self.four.values().map(BTreeMap::len);
        let six = self.six.values().map(BTreeMap::len);
        four.chain(six).sum::<usize>() + self.groups.len()
    }

    /// Whether a route belongs to a block that is left out.
    pub(super) fn has_block(&self, network: Network, len: u8) -> bool {
        match network {
            Network::V4(network) => len > 24 && self.four.contains_key(&(network >> 8)),
            Network::V6(network) => {
                let (index, bits) = root_of(network);
                len > bits && self.six.contains_key(&index)
            }
        }
    }

    /// Whether all packets of a route are the kernel's because of what is left out.
    pub(super) fn has_all_of(&self, prefix: IpAddr, len: u8) -> bool {
        let bits = match prefix {
            IpAddr::V4(_) => 24,
            IpAddr::V6(prefix) => root_of(prefix.to_bits()).1,
        };
        len >= bits && self.covers(prefix)
    }

    /// Whether packets to an address are the kernel's because of what is left out.
    pub(super) fn covers(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.four.contains_key(&(address.to_bits() >> 8)),
            IpAddr::V6(address) => self.six.contains_key(&root_of(address.to_bits()).0),
        }
    }

    /// First and last address of each block of a family, in order.
    pub(super) fn blocks4(&self) -> Vec<(u128, u128)> {
        self.four.keys().map(|slot| (u128::from(slot << 8), u128::from(slot << 8 | 0xff))).collect()
    }

    /// As above.
    pub(super) fn blocks6(&self) -> Vec<(u128, u128)> {
        let range = |index: &u32| {
            let (first, bits) = Trie::root_prefix(*index);
            (first, first | !u128::mask(bits))
        };
        let mut blocks: Vec<_> = self.six.keys().map(range).collect();
        blocks.sort_unstable();
        blocks
    }

    pub(super) fn forget_group(&mut self, id: u32) {
        self.groups.remove(&id);
    }

    fn add(&mut self, network: Network, len: u8, group: u32) {
        match network {
            Network::V4(network) => {
                self.four.entry(network >> 8).or_default().insert((network, len), group);
            }
            Network::V6(network) => {
                let (index, _) = root_of(network);
                self.six.entry(index).or_default().insert((network, len), group);
            }
        }
    }
}

impl Fib {
    /// Creates a group or swaps what it does. Where there is no room for its members, it is the kernel's.
    pub(super) fn put(&mut self, id: u32, action: &Action, like: u32) -> Result<(), FibError> {
        if self.try_put(id, action, like)? {
            self.follow_groups(&BTreeSet::from([id]));
        }
        Ok(())
    }

    /// The same; says whether routes that name it have to follow it to another place.
    fn try_put(&mut self, id: u32, action: &Action, like: u32) -> Result<bool, FibError> {
        self.left_out.groups.remove(&id);
        self.groups.put(id, action, like).map_err(|source| {
            if source.is_for_want_of_room() {
                self.groups.leave_to_kernel(id);
                self.left_out.groups.insert(id, action.clone());
            }
            FibError::Group { id, source }
        })
    }

    /// Hands a route's block over to the kernel.
    pub(super) fn leave_out(&mut self, network: Network, len: u8, group: u32) {
        match network {
            Network::V4(network) => self.slots.hand_over(network >> 8),
            Network::V6(network) => self.trie.hide(root_of(network).0),
        }
        self.left_out.add(network, len, group);
    }

    /// A route of a block that is left out comes or changes: with it the block may fit.
    pub(super) fn insert_in_block(
        &mut self,
        network: Network,
        len: u8,
        group: u32,
    ) -> Result<(), FibError> {
        let prefix = network.into_addr();
        let index = self.groups.used(group);
        let index = index.ok_or(FibError::UnknownGroup { prefix, len, group })?;
        if let Network::V6(network) = network
            && self.trie.set(network, len, index)
        {
            if let Some(old) = self.routes6.insert(network, len, group) {
                self.groups.unused(old);
            }
            self.not_left_out(Network::V6(network), len);
            return Ok(());
        }
        self.groups.unused(group);
        self.left_out.add(network, len, group);
        match network {
            Network::V4(network) if self.readmit4(network >> 8) => Ok(()),
            Network::V4(_) | Network::V6(_) => Err(self.full(prefix, len)),
        }
    }

    /// A route is left out no longer: it is gone, or it fits.
    pub(super) fn not_left_out(&mut self, network: Network, len: u8) {
        match network {
            Network::V4(network) => {
                let slot = network >> 8;
                let Some(block) = self.left_out.four.get_mut(&slot) else { return };
                block.remove(&(network, len));
                if block.is_empty() {
                    self.readmit4(slot);
                }
            }
            Network::V6(network) => {
                let (index, _) = root_of(network);
                let Some(block) = self.left_out.six.get_mut(&index) else { return };
                block.remove(&(network, len));
                if block.is_empty() {
                    self.left_out.six.remove(&index);
                    self.trie.show(index);
                }
            }
        }
    }

    /// Takes back what fits by now.
    pub(super) fn readmit(&mut self) {
        let given_back = self.groups.given_back();
        if !self.left_out.groups.is_empty() && self.left_out.tried != given_back {
            let mut moved = BTreeSet::new();
            for (id, action) in self.left_out.groups.clone() {
                // What does not fit is left out again.
                if matches!(self.try_put(id, &action, id), Ok(true)) {
                    moved.insert(id);
                }
            }
            self.follow_groups(&moved);
            self.left_out.tried = self.groups.given_back();
        }
        while let Some(slot) = self.left_out.four.keys().next().copied() {
            if !self.readmit4(slot) {
                break;
            }
        }
        while !self.left_out.six.is_empty() && self.trie.has_room() {
            let first = self.left_out.six.values().find_map(|block| block.first_key_value());
            let Some((&(network, len), &group)) = first else { break };
            if self.insert_in_block(Network::V6(network), len, group).is_err() {
                break;
            }
        }
    }

    /// Takes a /24 back with all its routes at once; `false`: no chunk is left.
    fn readmit4(&mut self, slot: u32) -> bool {
        let Some(block) = self.left_out.four.get(&slot) else { return true };
        let routes: Vec<(u32, u8, u32)> = block
            .iter()
            .filter_map(|((network, len), group)| {
                Some((*network, *len, self.groups.index(*group)?))
            })
            .collect();
        let cover = self.routes.covering(&self.groups, slot << 8, 0..25);
        if !self.slots.take_back(slot, cover, &routes) {
            return false;
        }
        for ((network, len), group) in self.left_out.four.remove(&slot).unwrap_or_default() {
            if self.groups.used(group).is_some() {
                self.routes.insert(network, len, group);
            }
        }
        true
    }

    /// Groups that were the kernel's with others have places of their own now.
    fn follow_groups(&mut self, ids: &BTreeSet<u32>) {
        if ids.is_empty() {
            return;
        }
        let named: Vec<_> = self.table().filter(|(.., group)| ids.contains(group)).collect();
        for (prefix, len, group) in named {
            // It is there, so that it needs no room.
            let _done = self.insert(prefix, len, group);
        }
    }
}

/// The root's word of an address, and the bits that lead to it.
fn root_of(network: u128) -> (u32, u8) {
    let (index, bits) = root_index((network >> 64) as u64);
    (index, bits as u8)
}
