//! Whether the memory that packets read says what the writer has, address by address, and how it is made to.
//!
//! Both sides are written down as stretches: the first address of each, and the group from there on. What the writer has
//! comes from its routes alone, by a sweep over them in order; what packets meet comes from the slots and the trie alone.

use std::net::IpAddr;

use lb_dataplane_common::fib::{CHUNK_WORDS, L1_CHUNK, L1_WORDS, NO_GROUP, SLOT_GROUP};
use lb_dataplane_common::fib6::{ROOT6_UNICAST, ROOT6_WORDS};

use super::Fib;
use super::groups::Groups;
use super::lookup::group4;
use super::memory::Memory;
use super::table::{Bits, Table};

/// Differences that are told one by one; the rest is counted.
const MAX_TOLD: usize = 20;

/// Addresses that meet something else than they should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The first of them.
    pub first: IpAddr,
    /// The last of them.
    pub last: IpAddr,
    /// The group's place in `FIB_GROUPS` that the routes lead to; 0 is no route.
    pub wanted: u32,
    /// The one that packets meet.
    pub found: u32,
}

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Routes that were compared.
    pub routes: usize,
    /// Groups that were compared.
    pub groups: usize,
    /// Stretches of addresses that meet something else than they should.
    pub differences: usize,
    /// The first of them.
    pub told: Vec<Difference>,
    /// Groups whose word, buckets or members are not as written.
    pub wrong_groups: usize,
    /// Sets of the IPv6 trie's shortcuts that are not as the trie has them.
    pub wrong_shortcuts: usize,
}

impl Audit {
    /// Whether all is as it should be.
    pub fn is_clean(&self) -> bool {
        self.differences == 0 && self.wrong_groups == 0 && self.wrong_shortcuts == 0
    }
}

/// A stretch of addresses from this one on: the length of the prefix that it comes from, and the group.
type Stretch = (u128, u8, u32);

impl Fib {
    /// Compares every address' way with the routes. With `repair`, what differs is written again.
    ///
    /// Takes about half a second and 100 MB with a million routes; packets do not notice.
    pub fn audit(&mut self, repair: bool) -> Audit {
        let wrong_groups = self.groups.audit(repair);
        let mut audit = Audit {
            routes: self.len(),
            groups: self.groups.len(),
            wrong_groups,
            wrong_shortcuts: self.trie.wrong_shortcuts(),
            ..Audit::default()
        };
        let wanted = without(wanted(&self.routes, &self.groups), &self.left_out.blocks4());
        let found = found4(self.memory());
        for (first, last, len, group, found) in compare(&wanted, &found, u128::from(u32::MAX)) {
            let (first, last) = (first as u32, last as u32);
            audit.note(first.into_addr(), last.into_addr(), group, found);
            if repair {
                self.slots.rewrite(first, last, len, group);
                let blocks = self.left_out.blocks4().into_iter();
                let slots = blocks.map(|(block, _, place)| (block as u32 >> 8, place));
                let inside = slots.filter(|(slot, _)| (first >> 8..=last >> 8).contains(slot));
                inside.for_each(|(slot, place)| self.slots.hand_over(slot, place));
            }
        }
        let wanted = without(wanted6(&self.routes6, &self.groups), &self.left_out.blocks6());
        let found = self.trie.stretches();
        let differences = compare(&wanted, &found, u128::MAX);
        for (first, last, _, group, found) in &differences {
            audit.note(first.into_addr(), last.into_addr(), *group, *found);
        }
        if repair && (!differences.is_empty() || audit.wrong_shortcuts > 0) {
            let ranges = differences.iter().map(|(first, last, ..)| (*first, *last));
            let routes = self.routes6.sorted();
            let Self { trie, routes6, groups, .. } = self;
            let cover = |network, lens| routes6.covering(groups, network, lens);
            let index = |name| groups.index(name).unwrap_or(NO_GROUP);
            trie.rebuild(ranges, &routes, index, cover);
        }
        audit
    }
}

impl Audit {
    fn note(&mut self, first: IpAddr, last: IpAddr, wanted: u32, found: u32) {
        self.differences += 1;
        if self.told.len() < MAX_TOLD {
            self.told.push(Difference { first, last, wanted, found });
        }
    }
}

fn wanted(routes: &Table<u32>, groups: &Groups) -> Vec<Stretch> {
    let routes = routes.sorted().into_iter();
    sweep(routes.map(|(network, len, group)| {
        let last = network | !u32::mask(len);
        (u128::from(network), u128::from(last), len, groups.index(group).unwrap_or(NO_GROUP))
    }))
}

fn wanted6(routes: &Table<u128>, groups: &Groups) -> Vec<Stretch> {
    let routes = routes.sorted().into_iter();
    sweep(routes.map(|(network, len, group)| {
        let last = network | !u128::mask(len);
        (network, last, len, groups.index(group).unwrap_or(NO_GROUP))
    }))
}

/// From routes in order, first and last address each, to stretches.
fn sweep(routes: impl Iterator<Item = (u128, u128, u8, u32)>) -> Vec<Stretch> {
    let mut stretches = vec![(0, 0, NO_GROUP)];
    // Routes that the sweep is in, each within the one before.
    let mut open: Vec<(u128, u8, u32)> = Vec::new();
    let close = |open: &mut Vec<(u128, u8, u32)>, stretches: &mut Vec<Stretch>, before| {
        while let Some((last, ..)) = open.pop_if(|(last, ..)| before > Some(*last)) {
            let (_, len, group) = open.last().copied().unwrap_or((0, 0, NO_GROUP));
            let Some(next) = last.checked_add(1) else { continue };
            begin(stretches, next, len, group);
        }
    };
    for (first, last, len, group) in routes {
        close(&mut open, &mut stretches, Some(first));
        begin(&mut stretches, first, len, group);
        open.push((last, len, group));
    }
    while let Some((last, ..)) = open.pop() {
        let (_, len, group) = open.last().copied().unwrap_or((0, 0, NO_GROUP));
        if let Some(next) = last.checked_add(1) {
            begin(&mut stretches, next, len, group);
        }
    }
    stretches
}

/// The same, with another group in some blocks (first and last address, in order): something is left out there.
fn without(stretches: Vec<Stretch>, blocks: &[(u128, u128, u32)]) -> Vec<Stretch> {
    let mut left = Vec::with_capacity(stretches.len());
    let mut blocks = blocks.iter().peekable();
    let mut stretches = stretches.into_iter().peekable();
    let mut now = (0, 0, NO_GROUP);
    loop {
        let block = blocks.peek().copied();
        let until = block.map(|(first, ..)| *first);
        while let Some(stretch) = stretches.next_if(|(at, ..)| until.is_none_or(|end| *at < end)) {
            now = stretch;
            left.push(stretch);
        }
        let Some((first, last, place)) = block else { return left };
        begin(&mut left, *first, 0, *place);
        while let Some(stretch) = stretches.next_if(|(at, ..)| at <= last) {
            now = stretch;
        }
        blocks.next();
        let Some(next) = last.checked_add(1) else { return left };
        if stretches.peek().is_none_or(|(at, ..)| *at != next) {
            begin(&mut left, next, now.1, now.2);
        }
    }
}

/// A stretch begins; of two at one address the later counts.
pub(super) fn begin(stretches: &mut Vec<Stretch>, at: u128, len: u8, group: u32) {
    match stretches.last_mut() {
        Some(last) if last.0 == at => *last = (at, len, group),
        Some(_) | None => stretches.push((at, len, group)),
    }
}

/// What packets to IPv4 addresses meet.
fn found4(memory: Memory<'_>) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut note = |address: u32, group: u32| {
        if stretches.last().is_none_or(|last| last.2 != group) {
            stretches.push((u128::from(address), 0, group));
        }
    };
    let (l1, _) = memory.slots.memory();
    for (slot, word) in (0..L1_WORDS).zip(l1.words()) {
        let word = word.load(std::sync::atomic::Ordering::Relaxed);
        if word & L1_CHUNK == 0 {
            note(slot << 8, word & SLOT_GROUP);
            continue;
        }
        for low in 0..CHUNK_WORDS {
            let address = slot << 8 | low;
            note(address, group4(memory, address));
        }
    }
    stretches
}

/// Where two lists of stretches name different groups: first and last address, what the first list says, and what the
/// second one does.
fn compare(wanted: &[Stretch], found: &[Stretch], end: u128) -> Vec<(u128, u128, u8, u32, u32)> {
    let mut differences: Vec<(u128, u128, u8, u32, u32)> = Vec::new();
    let (mut one, mut other) = (0, 0);
    let mut at = 0;
    while let (Some((_, len, group)), Some((_, _, is))) = (wanted.get(one), found.get(other)) {
        let next = |list: &[Stretch], place: usize| list.get(place + 1).map(|next| next.0);
        let (ends, its) = (next(wanted, one), next(found, other));
        let until = ends.into_iter().chain(its).min().filter(|next| *next <= end);
        if group != is {
            let last = until.map_or(end, |next| next - 1);
            differences.push((at, last, *len, *group, *is));
        }
        let Some(until) = until else { break };
        one += usize::from(ends == Some(until));
        other += usize::from(its == Some(until));
        at = until;
    }
    differences
}

/// The words of the root in the order of their addresses.
pub(super) fn root_in_order() -> impl Iterator<Item = u32> {
    let (low, high) = (ROOT6_UNICAST + 0x2000, ROOT6_UNICAST + 0x4000);
    (ROOT6_UNICAST..low).chain(0..ROOT6_UNICAST).chain(high..ROOT6_WORDS)
}

#[cfg(test)]
mod tests;
