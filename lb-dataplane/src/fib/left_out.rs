//! What there is no room for, and how its packets are kept off shorter routes.
//!
//! A route that does not fit belongs to a block: the /24 whose second level it would need, or the root's word that its nodes
//! would hang on. The block is one word, which leads to the kernel until all that is left out of it fits, or is gone. Where
//! the kernel has none of the routes that the word hides, a shorter one of its own would take their place there: such
//! packets are dropped, and with them those to the block's other addresses, which a shorter route would forward: one word cannot
//! tell them apart, and who lacks packets looks for them, while those of somebody else's go unseen. Where it has one of them, which may be an address of this host, the block is the kernel's. A group
//! whose members do not fit, or are more than one can have, is the kernel's as well, or dropped.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use foldhash::fast::RandomState;
use lb_dataplane_common::fib6::root_index;

use super::table::Bits as _;
use super::{Action, Fib, FibError, Network, Trie};

/// A part of the table that packets meet one group in.
#[derive(Debug)]
struct Block<A> {
    /// What is left out of it, with the groups.
    routes: BTreeMap<(A, u8), u32>,
    /// The place of the group that packets meet instead.
    place: u32,
}

/// What is left out.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    /// By the first 24 bits of the /24.
    four: BTreeMap<u32, Block<u32>>,
    /// By the root's word.
    six: BTreeMap<u32, Block<u128>>,
    groups: BTreeMap<u32, Action>,
    /// How many routes of the trie below each word of the root the kernel has, too.
    kernels6: HashMap<u32, u32, RandomState>,
    /// How much had been given back of groups and members when they were tried last.
    tried: u64,
}

impl LeftOut {
    /// Routes and groups.
    pub(super) fn len(&self) -> usize {
        let four = self.four.values().map(|block| block.routes.len());
        let six = self.six.values().map(|block| block.routes.len());
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

    /// The group's place that all packets of a route meet because of what is left out.
    pub(super) fn has_all_of(&self, prefix: IpAddr, len: u8) -> Option<u32> {
        let bits = match prefix {
            IpAddr::V4(_) => 24,
            IpAddr::V6(prefix) => root_of(prefix.to_bits()).1,
        };
        self.covers(prefix).filter(|_| len >= bits)
    }

    /// The group's place that packets to an address meet because of what is left out.
    pub(super) fn covers(&self, address: IpAddr) -> Option<u32> {
        match address {
            IpAddr::V4(address) => Some(self.four.get(&(address.to_bits() >> 8))?.place),
            IpAddr::V6(address) => Some(self.six.get(&root_of(address.to_bits()).0)?.place),
        }
    }

    /// First and last address of each block of a family, in order, and the group's place that packets meet there.
    pub(super) fn blocks4(&self) -> Vec<(u128, u128, u32)> {
        let range = |(slot, block): (&u32, &Block<u32>)| {
            (u128::from(slot << 8), u128::from(slot << 8 | 0xff), block.place)
        };
        self.four.iter().map(range).collect()
    }

    /// As above.
    pub(super) fn blocks6(&self) -> Vec<(u128, u128, u32)> {
        let range = |(index, block): (&u32, &Block<u128>)| {
            let (first, bits) = Trie::root_prefix(*index);
            (first, first | !u128::mask(bits), block.place)
        };
        let mut blocks: Vec<_> = self.six.iter().map(range).collect();
        blocks.sort_unstable();
        blocks
    }

    pub(super) fn forget_group(&mut self, id: u32) {
        self.groups.remove(&id);
    }

    /// `place`: what packets of a block meet until more is known.
    fn add(&mut self, network: Network, len: u8, group: u32, place: u32) {
        match network {
            Network::V4(network) => {
                let block = self.four.entry(network >> 8);
                let block = block.or_insert_with(|| Block { routes: BTreeMap::new(), place });
                block.routes.insert((network, len), group);
            }
            Network::V6(network) => {
                let block = self.six.entry(root_of(network).0);
                let block = block.or_insert_with(|| Block { routes: BTreeMap::new(), place });
                block.routes.insert((network, len), group);
            }
        }
    }
}

impl Fib {
    /// Creates a group or swaps what it does. Where there is no room for its members, it is the kernel's, or dropped.
    pub(super) fn put(
        &mut self,
        id: u32,
        action: &Action,
        like: u32,
        is_apart: bool,
    ) -> Result<(), FibError> {
        if self.try_put(id, action, like, is_apart)? {
            self.follow_groups(&BTreeSet::from([id]));
        }
        Ok(())
    }

    /// The same; says whether routes that name it have to follow it to another place.
    fn try_put(
        &mut self,
        id: u32,
        action: &Action,
        like: u32,
        is_apart: bool,
    ) -> Result<bool, FibError> {
        self.left_out.groups.remove(&id);
        self.groups.put(id, action, like, is_apart).map_err(|source| {
            if source.is_for_want_of_room() {
                self.groups.leave_out(id, is_apart);
                self.left_out.groups.insert(id, action.clone());
            }
            FibError::Group { id, source }
        })
    }

    /// Routes and groups whose packets are dropped.
    pub(super) fn count_dropped(&self) -> usize {
        let place = self.groups.no_room();
        let LeftOut { four, six, groups, .. } = &self.left_out;
        let four = four.values().filter(|it| it.place == place).map(|it| it.routes.len());
        let six = six.values().filter(|it| it.place == place).map(|it| it.routes.len());
        let groups = groups.keys().filter(|id| self.groups.is_apart(**id)).count();
        four.chain(six).sum::<usize>() + groups
    }

    /// Leaves a route out, and with it its block.
    pub(super) fn leave_out(&mut self, network: Network, len: u8, group: u32) {
        self.left_out.add(network, len, group, self.groups.kernels());
        self.restate(network, len);
    }

    /// Says what packets of a route's block meet, if it is one that something is left out of.
    pub(super) fn restate(&mut self, network: Network, len: u8) {
        if !self.left_out.has_block(network, len) {
            return;
        }
        let (kernels, no_room) = (self.groups.kernels(), self.groups.no_room());
        let is_apart = |group: &u32| self.groups.is_apart(*group);
        match network {
            Network::V4(network) => {
                let slot = network >> 8;
                let Some(block) = self.left_out.four.get_mut(&slot) else { return };
                let is_lost = block.routes.values().all(is_apart);
                block.place = if is_lost { no_room } else { kernels };
                self.slots.hand_over(slot, block.place);
            }
            Network::V6(network) => {
                let (index, _) = root_of(network);
                let LeftOut { six, kernels6, .. } = &mut self.left_out;
                let Some(block) = six.get_mut(&index) else { return };
                let is_lost = !kernels6.contains_key(&index) && block.routes.values().all(is_apart);
                block.place = if is_lost { no_room } else { kernels };
                self.trie.hide(index, block.place);
            }
        }
    }

    /// Notes that the trie has a route to a group.
    pub(super) fn note_kernels6(&mut self, network: Network, len: u8, group: u32) {
        if let Some(index) = self.below_root(network, len, group) {
            *self.left_out.kernels6.entry(index).or_default() += 1;
        }
    }

    /// Notes that it has it no longer.
    pub(super) fn forget_kernels6(&mut self, network: Network, len: u8, group: u32) {
        if let Some(index) = self.below_root(network, len, group)
            && let Some(count) = self.left_out.kernels6.get_mut(&index)
        {
            *count -= 1;
            if *count == 0 {
                self.left_out.kernels6.remove(&index);
            }
        }
    }

    /// The root's word that a route of the kernel, too, is below.
    fn below_root(&self, network: Network, len: u8, group: u32) -> Option<u32> {
        let Network::V6(network) = network else { return None };
        let (index, bits) = root_of(network);
        (len > bits && !self.groups.is_apart(group)).then_some(index)
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
                self.forget_kernels6(Network::V6(network), len, old);
                self.groups.unused(old);
            }
            self.note_kernels6(Network::V6(network), len, group);
            self.not_left_out(Network::V6(network), len);
            return Ok(());
        }
        self.groups.unused(group);
        self.leave_out(network, len, group);
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
                block.routes.remove(&(network, len));
                if block.routes.is_empty() {
                    self.readmit4(slot);
                } else {
                    self.restate(Network::V4(network), len);
                }
            }
            Network::V6(network) => {
                let (index, _) = root_of(network);
                let Some(block) = self.left_out.six.get_mut(&index) else { return };
                block.routes.remove(&(network, len));
                if block.routes.is_empty() {
                    self.left_out.six.remove(&index);
                    self.trie.show(index);
                } else {
                    self.restate(Network::V6(network), len);
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
                let is_apart = self.groups.is_apart(id);
                if matches!(self.try_put(id, &action, id, is_apart), Ok(true)) {
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
            let first = self.left_out.six.values().find_map(|it| it.routes.first_key_value());
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
            .routes
            .iter()
            .filter_map(|((network, len), group)| {
                Some((*network, *len, self.groups.index(*group)?))
            })
            .collect();
        let cover = self.routes.covering(&self.groups, slot << 8, 0..25);
        if !self.slots.take_back(slot, cover, &routes) {
            return false;
        }
        let block = self.left_out.four.remove(&slot);
        for ((network, len), group) in block.into_iter().flat_map(|block| block.routes) {
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
