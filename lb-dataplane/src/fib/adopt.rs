//! What a previous process left in the arrays: found by a scan, kept until the new process has said what it wants.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

use lb_dataplane_common::fib::{
    CHUNK_WORDS, GROUP_BUCKETS, GROUP_MEMBER, L1_CHUNK, MAX_LOG2_BUCKETS, MemberEntry, NO_GROUP,
    SLOT_GROUP, SLOT_STALE,
};
use lb_dataplane_common::fib6::{BITMAP_FRONT, ROOT6_WORDS, UNIT_WORDS, WORD_STALE};

use super::Grace;
use super::buckets::Ranges;
use super::groups::{Groups, Pools, Stale};
use super::node::{Begins, Skip, front_words, group_of, log2_units, node_of, with_node};
use super::pool::Pool;
use super::slots::Slots;
use super::space::Space;
use super::trie::Trie;
use crate::mapped::Mapped;

/// The slots, now marked stale, and the groups that they name.
pub(super) fn slots(l1: Mapped, l2: Mapped, grace: Grace) -> (Slots, BTreeSet<u32>) {
    let chunk_count = l2.words().len() / CHUNK_WORDS as usize;
    let mut used = vec![false; chunk_count];
    let mut live = Live::default();
    for slot in l1.words() {
        let word = slot.load(Relaxed);
        if word & L1_CHUNK == 0 {
            live.note(slot, word);
            continue;
        }
        let chunk = (word & !L1_CHUNK) as usize;
        let Some(used) = used.get_mut(chunk) else {
            // No such chunk: packets meet a miss there already.
            slot.store(NO_GROUP, Relaxed);
            continue;
        };
        *used = true;
        let first = chunk * CHUNK_WORDS as usize;
        for slot in &l2.words()[first..first + CHUNK_WORDS as usize] {
            live.note(slot, slot.load(Relaxed));
        }
    }
    let mut chunks = Pool::new(0, size(chunk_count), grace);
    chunks.reserve(|chunk| used.get(chunk as usize).copied().unwrap_or(false));
    (Slots::new(l1, l2, chunks), live.groups)
}

/// The trie, its routes now marked stale, and the groups that they name.
pub(super) fn trie(root: Mapped, nodes: Mapped, grace: Grace) -> (Trie, BTreeSet<u32>) {
    let units = size(nodes.wide_words().len()) / UNIT_WORDS;
    let mut scan = Scan { nodes: &nodes, units, live: BTreeSet::new(), used: BTreeSet::new() };
    // Unit 0 is "no node".
    scan.used.insert((0, 0));
    for word in &root.wide_words()[..ROOT6_WORDS as usize] {
        scan.word(word, 0);
    }
    let Scan { live, used, .. } = scan;
    let space = Space::between(&used, units, grace);
    let trie = Trie::new(root, nodes, space);
    trie.renew_shortcuts();
    (trie, live)
}

/// A walk through the trie.
struct Scan<'a> {
    nodes: &'a Mapped,
    units: u32,
    live: BTreeSet<u32>,
    used: BTreeSet<(u32, u8)>,
}

impl Scan<'_> {
    /// Marks a word's route and what is below it. `before` bytes at least lead to the word.
    fn word(&mut self, word: &AtomicU64, before: usize) {
        let old = word.load(Relaxed);
        let mut new = old;
        if group_of(old) != NO_GROUP {
            self.live.insert(group_of(old));
            new |= WORD_STALE;
        }
        let node = node_of(old);
        if node != 0 && !self.node(node, before) {
            new = with_node(new, 0);
        }
        if new != old {
            word.store(new, Relaxed);
        }
    }

    /// Whether a node is one: words of arrays that are not as this code writes them may point anywhere.
    fn node(&mut self, unit: u32, before: usize) -> bool {
        let words = self.nodes.wide_words();
        let first = unit as usize * UNIT_WORDS as usize;
        let Some(front) = words.get(first..first + BITMAP_FRONT as usize) else {
            return false;
        };
        let front: [u64; BITMAP_FRONT as usize] = std::array::from_fn(|n| front[n].load(Relaxed));
        let byte = before + Skip::from_head(front[0]).bytes().len();
        let begins = Begins::from_front(front);
        let log2 = log2_units(begins.count());
        let fits = unit.checked_add(1 << log2).is_some_and(|end| end <= self.units)
            && unit.is_multiple_of(1 << log2);
        if byte > 15 || !begins.at(0) || !fits || !self.used.insert((unit, log2)) {
            return false;
        }
        let runs = first + front_words(begins.count()) as usize;
        for word in &words[runs..runs + begins.count() as usize] {
            self.word(word, byte + 1);
        }
        true
    }
}

/// The groups that slots name.
#[derive(Default)]
struct Live {
    groups: BTreeSet<u32>,
    /// The last one, since neighbours mostly name the same.
    last: u32,
}

impl Live {
    fn note(&mut self, slot: &AtomicU32, word: u32) {
        if word == NO_GROUP {
            return;
        }
        if word & SLOT_STALE == 0 {
            slot.store(word | SLOT_STALE, Relaxed);
        }
        let group = word & SLOT_GROUP;
        if group != NO_GROUP && group != self.last {
            self.groups.insert(group);
            self.last = group;
        }
    }
}

/// The groups, with those in `live` left alone.
pub(super) fn groups(
    words: Mapped,
    buckets: Mapped,
    members: Mapped,
    live: &BTreeSet<u32>,
    grace: Grace,
) -> Groups {
    // The last two are every process's for what there is no place for.
    let group_count = size(words.wide_words().len()).min(SLOT_GROUP) - 2;
    let bucket_count = size(buckets.words().len());
    let member_count = size(members.words().len() * 4 / size_of::<MemberEntry>());
    // Words of arrays that are not as this code writes them may point anywhere: such packets meet a miss already.
    let live: BTreeSet<u32> = live.range(..group_count).copied().collect();
    let mut used_members = BTreeSet::new();
    let mut used_ranges = BTreeSet::new();
    for index in &live {
        let word = words.wide_words()[*index as usize].load(Relaxed);
        let low = (word & 0xffff_ffff) as u32;
        match (word >> 56) as u8 {
            GROUP_MEMBER => {
                used_members.insert(low);
            }
            GROUP_BUCKETS => {
                let log2 = ((word >> 32) as u8).min(MAX_LOG2_BUCKETS);
                let range = low as usize..low as usize + (1 << log2);
                let Some(range) = buckets.words().get(range) else { continue };
                used_ranges.insert((low, log2));
                used_members.extend(range.iter().map(|bucket| bucket.load(Relaxed)));
            }
            _ => {}
        }
    }
    used_members.retain(|member| *member < member_count);
    let mut pools = Pools {
        // Group 0 is "no route".
        groups: Pool::new(NO_GROUP + 1, group_count, grace),
        members: Pool::new(0, member_count, grace),
        ranges: Ranges::between(&used_ranges, bucket_count, grace),
        end: group_count,
    };
    pools.groups.reserve(|index| live.contains(&index));
    pools.members.reserve(|index| used_members.contains(&index));
    let stale = Stale {
        groups: live.into_iter().collect(),
        members: used_members.into_iter().collect(),
        ranges: used_ranges.into_iter().collect(),
    };
    Groups::new([words, buckets, members], pools, stale)
}

fn size(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
