//! The IPv6 trie's writer. What packets read changes by single stores: of a word's route, or of the node that it leads to,
//! which has been built elsewhere before.

mod hidden;
mod inspect;
mod renew;
mod shortcuts;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};

use lb_dataplane_common::fib6::{
    BITMAP_FRONT, MAX_SKIP, PAGE_UNITS, ROOT6_UNICAST, UNIT_WORDS, root_index,
};

use self::hidden::Hidden;
use super::node::{
    Begins, Node, Skip, covered, front_words, len_of, log2_units, node_of, route, uncovered,
    with_node,
};
use super::space::Space;
use super::table::Bits as _;
use crate::mapped::{Mapped, prefetch};

/// A route that covers others: its length and its group.
pub(super) type Cover = (u8, u32);

/// Where a word stands.
#[derive(Clone, Copy, Debug)]
enum Place {
    Root(usize),
    Node(usize),
}

/// A prefix that ends in a node: the address, the byte that it ends in, and the word's route.
#[derive(Debug)]
struct Target {
    address: [u8; 16],
    byte: usize,
    route: u64,
}

impl Target {
    /// Covers its slots of a node, and says which these are.
    fn cover(&self, node: &mut Node) -> Range<usize> {
        let slots = Node::range(self.address[self.byte], len_of(self.route));
        node.slots[slots.clone()].iter_mut().for_each(|word| *word = covered(*word, self.route));
        slots
    }
}

/// The trie.
#[derive(Debug)]
pub(super) struct Trie {
    root: Mapped,
    nodes: Mapped,
    space: Space,
    /// The node that the change at hand has come by: what it writes lies near.
    near: Option<u32>,
    /// Nodes that the change at hand has written.
    fresh: Vec<(u32, u8)>,
    /// Nodes that it has replaced.
    replaced: Vec<(u32, u8)>,
    /// Addresses whose shortcuts may have changed with it.
    touched: Vec<[u8; 16]>,
    /// Words of the root that packets do not see: something below them does not fit.
    hidden: BTreeMap<u32, Hidden>,
}

impl Trie {
    pub(super) fn new(root: Mapped, nodes: Mapped, space: Space) -> Self {
        Self {
            root,
            nodes,
            space,
            near: None,
            fresh: Vec::new(),
            replaced: Vec::new(),
            touched: Vec::new(),
            hidden: BTreeMap::new(),
        }
    }

    /// The root and the nodes, as packets read them.
    pub(super) fn memory(&self) -> (&Mapped, &Mapped) {
        (&self.root, &self.nodes)
    }

    /// Bytes of nodes that are in use, and all that there are.
    pub(super) fn bytes(&self) -> (usize, usize) {
        let all = self.nodes.wide_words().len() * 8;
        let free = self.space.available() * UNIT_WORDS as usize * 8;
        (all.saturating_sub(free), all)
    }

    /// Whether there is surely room for a prefix: it takes a few units, but they have to lie together.
    pub(super) fn has_room(&self) -> bool {
        self.space.available() >= 2 * PAGE_UNITS as usize
    }

    /// Fetches what `set` will touch first.
    pub(super) fn prefetch(&self, network: u128) {
        let (index, _) = root_index((network >> 64) as u64);
        prefetch(&self.root.wide_words()[index as usize]);
    }

    /// The shortest prefix whose route stands in the same words as this one's.
    pub(super) fn floor(network: u128, len: u8) -> u8 {
        let (_, bits) = root_index((network >> 64) as u64);
        if u32::from(len) <= bits { 0 } else { (len - 1) / 8 * 8 + 1 }
    }

    /// Points a prefix's addresses to a group, apart from those that a longer prefix owns; `false`: there is no room, and
    /// nothing has changed.
    pub(super) fn set(&mut self, network: u128, len: u8, group: u32) -> bool {
        let (index, bits) = root_index((network >> 64) as u64);
        if u32::from(len) <= bits {
            let route = route(len, group);
            self.root_words(network, len, |word| covered(word, route));
            return true;
        }
        self.near = None;
        let floor = Self::floor(network, len);
        let route = route(len + 1 - floor, group);
        let byte = usize::from(len - 1) / 8;
        let target = Target { address: network.to_be_bytes(), byte, route };
        self.touched.push(target.address);
        let done = self.insert(Place::Root(index as usize), bits as usize / 8, &target).is_some();
        self.finish(done)
    }

    /// Gives a prefix's addresses to the prefix that covers it in the same words, or to none there.
    pub(super) fn clear(&mut self, network: u128, len: u8, covering: Option<Cover>) {
        let (index, bits) = root_index((network >> 64) as u64);
        let floor = Self::floor(network, len);
        let cover = cover_route(covering, floor);
        if u32::from(len) <= bits {
            self.root_words(network, len, |word| uncovered(word, len, cover));
            return;
        }
        let address = network.to_be_bytes();
        let target = usize::from(len - 1) / 8;
        self.touched.push(address);
        let (mut place, mut at) = (Place::Root(index as usize), bits as usize / 8);
        let mut path = Vec::with_capacity(16);
        loop {
            let unit = node_of(self.load(place));
            if unit == 0 {
                return;
            }
            path.push((place, at));
            let skip = Skip::from_head(self.head(unit));
            if !address[at..].starts_with(skip.bytes()) {
                return;
            }
            at += skip.bytes().len();
            if at >= target {
                break;
            }
            place = self.run(unit, address[at]);
            at += 1;
        }
        let Some((place, before)) = path.pop().filter(|_| at == target) else { return };
        let mut node = self.read(node_of(self.load(place)));
        let len = len + 1 - floor;
        for word in &mut node.slots[Node::range(address[target], len)] {
            *word = uncovered(*word, len, cover);
        }
        let mut emptied = self.settle(place, &node, &address[..before]);
        while let Some((above, before)) = path.pop().filter(|_| emptied) {
            let node = self.read(node_of(self.load(above)));
            emptied = self.settle(above, &node, &address[..before]);
        }
        self.finish(true);
    }

    /// Brings a prefix below a word, whose address has `at` bytes.
    fn insert(&mut self, mut place: Place, mut at: usize, target: &Target) -> Option<()> {
        loop {
            let unit = node_of(self.load(place));
            if unit == 0 {
                let chain = self.chain(at, target)?;
                self.lead(place, chain);
                return Some(());
            }
            self.near = Some(unit);
            let skip = Skip::from_head(self.head(unit));
            let pairs = skip.bytes().iter().zip(&target.address[at..]);
            let common = pairs.take_while(|(one, other)| one == other).count();
            let (split, byte) = ((at + common).min(target.byte), at + skip.bytes().len());
            if split < byte {
                return self.split(place, at, split, target);
            }
            let slot = target.address[byte];
            if byte < target.byte && self.begins(unit).is_alone(slot) {
                place = self.run(unit, slot);
                at = byte + 1;
                continue;
            }
            let mut node = self.read(unit);
            let changed = if byte == target.byte {
                target.cover(&mut node)
            } else {
                let chain = self.chain(byte + 1, target)?;
                let slot = usize::from(slot);
                node.slots[slot] = with_node(node.slots[slot], chain);
                slot..slot + 1
            };
            let begins = node.begins_after(self.begins(unit), changed);
            return self.replace(place, &node, begins);
        }
    }

    /// Nodes that lead to a prefix and to nothing else, the first one's skipped bytes from `at` on.
    fn chain(&mut self, at: usize, target: &Target) -> Option<u32> {
        let above = |byte: usize| at.max(byte.saturating_sub(usize::from(MAX_SKIP)));
        let mut from = above(target.byte);
        let mut node = Node::new(&target.address[from..target.byte]);
        let changed = target.cover(&mut node);
        let mut unit = self.write(&node, &node.begins_after(Begins::of_empty(), changed))?;
        while from > at {
            let byte = from - 1;
            from = above(byte);
            let mut node = Node::new(&target.address[from..byte]);
            let slot = usize::from(target.address[byte]);
            node.slots[slot] = with_node(0, unit);
            unit = self.write(&node, &node.begins_after(Begins::of_empty(), slot..slot + 1))?;
        }
        Some(unit)
    }

    /// Puts a node for byte `split` before the one that a word leads to, which skips that byte.
    fn split(&mut self, place: Place, at: usize, split: usize, target: &Target) -> Option<()> {
        let unit = node_of(self.load(place));
        let mut lower = self.read(unit);
        let skip = lower.skip;
        let (before, after) = skip.bytes().split_at(split - at);
        let (byte, after) = after.split_first()?;
        lower.skip = Skip::new(after);
        self.touch(&target.address[..at], skip.bytes());
        let mut upper = Node::new(before);
        let lower = self.write(&lower, &self.begins(unit))?;
        upper.slots[usize::from(*byte)] = with_node(0, lower);
        if split == target.byte {
            target.cover(&mut upper);
        } else {
            let chain = self.chain(split + 1, target)?;
            upper.slots[usize::from(target.address[split])] = with_node(0, chain);
        }
        let upper = self.write(&upper, &upper.begins())?;
        self.lead(place, upper);
        Some(())
    }

    /// Makes the node that a word leads to say what `node` says, unlinks it if that is nothing, and joins it with its only
    /// child where one node can skip both ways; whether it is unlinked. `path` leads to the word.
    fn settle(&mut self, place: Place, node: &Node, path: &[u8]) -> bool {
        if node.is_empty() {
            self.lead(place, 0);
            return true;
        }
        self.near = Some(node_of(self.load(place)));
        if let Some((byte, below)) = node.only_child() {
            let mut child = self.read(below);
            let joined = [node.skip.bytes(), &[byte], child.skip.bytes()].concat();
            child.skip = Skip::new(&joined);
            if joined.len() <= usize::from(MAX_SKIP)
                && let Some(unit) = self.write(&child, &self.begins(below))
            {
                self.lead(place, unit);
                self.touch(path, &joined);
                self.replaced.push((below, log2_units(self.begins(below).count())));
                return false;
            }
        }
        // Fewer runs than there were: it can be done in place where there is no room.
        let _ = self.replace(place, node, node.begins());
        false
    }

    /// Makes the node that a word leads to say what `node` says: at once, unless there is no room and its runs allow to do
    /// it word by word.
    fn replace(&mut self, place: Place, node: &Node, new: Begins) -> Option<()> {
        let unit = node_of(self.load(place));
        let old = self.begins(unit);
        let in_place = |this: &Self| {
            let mut changed = Vec::new();
            for slot in old.places() {
                let (place, word) = (this.run(unit, slot), node.slots[usize::from(slot)]);
                if this.load(place) != word {
                    changed.push((place, word));
                }
            }
            changed
        };
        if old == new {
            match in_place(self).as_slice() {
                [] => return Some(()),
                [(place, word)] => {
                    self.store(*place, *word);
                    return Some(());
                }
                _ => {}
            }
        }
        if let Some(unit) = self.write(node, &new) {
            self.lead(place, unit);
            return Some(());
        }
        new.within(&old).then(|| {
            in_place(self).into_iter().for_each(|(place, word)| self.store(place, word));
        })
    }

    /// Writes a node where no packet reads.
    fn write(&mut self, node: &Node, begins: &Begins) -> Option<u32> {
        let log2 = log2_units(begins.count());
        let unit = self.space.take(log2, self.near)?;
        self.near = Some(unit);
        self.fresh.push((unit, log2));
        let words = &self.nodes.wide_words()[(unit * UNIT_WORDS) as usize..];
        let (front, runs) = words.split_at(front_words(begins.count()) as usize);
        for (word, value) in front.iter().zip(node.front(begins)) {
            word.store(value, Relaxed);
        }
        for (word, slot) in runs.iter().zip(begins.places()) {
            word.store(node.slots[usize::from(slot)], Relaxed);
        }
        Some(unit)
    }

    /// Gives back what the change replaced, or, where it was not made, what it wrote.
    fn finish(&mut self, done: bool) -> bool {
        self.refresh_shortcuts();
        let unused = if done { &self.replaced } else { &self.fresh };
        unused.iter().for_each(|(unit, log2)| self.space.give_back(*unit, *log2));
        self.fresh.clear();
        self.replaced.clear();
        done
    }

    /// Lets a word lead to another node, with all that was written before.
    fn lead(&mut self, place: Place, unit: u32) {
        let word = self.load(place);
        let old = node_of(word);
        if old != 0 {
            let log2 = log2_units(self.begins(old).count());
            // A node that a split or a join copied is read again before it is given back, and stays as it is until then.
            self.replaced.push((old, log2));
        }
        self.store(place, with_node(word, unit));
    }

    fn read(&self, unit: u32) -> Node {
        let begins = self.begins(unit);
        let first = (unit * UNIT_WORDS + front_words(begins.count())) as usize;
        let run = |run: u32| self.nodes.wide_words()[first + run as usize].load(Relaxed);
        Node::decode(self.head(unit), &begins, run)
    }

    fn head(&self, unit: u32) -> u64 {
        self.nodes.wide_words()[(unit * UNIT_WORDS) as usize].load(Relaxed)
    }

    pub(super) fn begins(&self, unit: u32) -> Begins {
        let first = (unit * UNIT_WORDS) as usize;
        let words = &self.nodes.wide_words()[first..first + BITMAP_FRONT as usize];
        Begins::from_front(std::array::from_fn(|place| words[place].load(Relaxed)))
    }

    /// The word of a slot.
    fn run(&self, unit: u32, slot: u8) -> Place {
        let begins = self.begins(unit);
        let before = front_words(begins.count()) + begins.run(slot);
        Place::Node((unit * UNIT_WORDS + before) as usize)
    }

    fn word(&self, place: Place) -> &AtomicU64 {
        match place {
            Place::Root(index) => self.root_word(index),
            Place::Node(index) => &self.nodes.wide_words()[index],
        }
    }

    fn load(&self, place: Place) -> u64 {
        self.word(place).load(Relaxed)
    }

    fn store(&self, place: Place, word: u64) {
        self.word(place).store(word, Release);
    }

    /// Changes the root's words of a prefix that ends there.
    fn root_words(&self, network: u128, len: u8, change: impl Fn(u64) -> u64) {
        let ranges = root_ranges(network, len).into_iter().flatten();
        for word in ranges.flatten().map(|index| self.root_word(index)) {
            let old = word.load(Relaxed);
            let new = change(old);
            if new != old {
                word.store(new, Relaxed);
            }
        }
    }
}

/// Where in the root a prefix stands: below 2000::/3, and elsewhere.
fn root_ranges(network: u128, len: u8) -> [Option<std::ops::Range<usize>>; 2] {
    const UNICAST: u128 = 0x2000 << 112;
    let first = (network >> 64) as u64;
    let (index, bits) = root_index(first);
    let index = index as usize;
    if bits == 24 && len >= 3 {
        return [Some(index..index + (1 << (24 - len))), None];
    }
    let has_unicast = UNICAST & u128::mask(len) == network;
    let index = ROOT6_UNICAST as usize + (first >> 48) as usize;
    [
        has_unicast.then_some(0..ROOT6_UNICAST as usize),
        Some(index..index + (1 << (16 - len.min(16)))),
    ]
}

/// The route in a word whose level begins at a length, less one.
fn cover_route(covering: Option<Cover>, floor: u8) -> u64 {
    covering.map_or(0, |(len, group)| {
        let before = floor.saturating_sub(1);
        route(len - before, group)
    })
}
