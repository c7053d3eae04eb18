//! Every prefix that the speaker has a path to, that the dataplane was told, or that is to be looked at: a record each, named
//! by a small number. A full table is a million of them, so that all of it stands in one place and is found once a change.

use std::collections::VecDeque;
use std::net::IpAddr;

use hashbrown::HashTable;
use ipnetwork::IpNetwork;

use super::bgp::SetId;
use super::kernel::Lengths;
use super::{Install, Source, bits, is_host, prefix};
use crate::rib::Keyed;

/// A record's number: dense, and used again after its prefix is forgotten.
pub(super) type Id = u32;
/// No record.
pub(super) const NONE: Id = Id::MAX;

/// What is known of a prefix.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) prefix: IpNetwork,
    /// The speaker's next hops, and which tables are to have them.
    pub(super) bgp: Option<(SetId, Install)>,
    /// What the dataplane was told: the group, and whom it comes from.
    pub(super) told: Option<(u32, Source)>,
    /// Those with the same next hops before and after this one.
    before: Id,
    after: Id,
    is_marked: bool,
}

/// The records.
#[derive(Debug)]
pub(super) struct Book {
    records: Vec<Record>,
    free: Vec<Id>,
    index: HashTable<Id>,
    hash: Keyed,
    /// Of the prefixes that the dataplane was told.
    lengths: Lengths,
    /// Those to look at, by their prefixes' length: one that covers another comes first.
    marked: Vec<VecDeque<Id>>,
    /// No shorter ones are marked.
    shortest: usize,
}

impl Book {
    /// With a secret key, since neighbours choose the prefixes.
    pub(super) fn new(key: [u64; 2]) -> Self {
        Self {
            records: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hash: Keyed::new(key),
            lengths: Lengths::default(),
            marked: (0..=128).map(|_| VecDeque::new()).collect(),
            shortest: 0,
        }
    }

    pub(super) fn get(&self, id: Id) -> &Record {
        &self.records[id as usize]
    }

    pub(super) fn get_mut(&mut self, id: Id) -> &mut Record {
        &mut self.records[id as usize]
    }

    pub(super) fn find(&self, prefix: &IpNetwork) -> Option<&Record> {
        let is_it = |id: &Id| self.get(*id).prefix == *prefix;
        self.index.find(self.hash.prefix(prefix), is_it).map(|id| self.get(*id))
    }

    pub(super) fn find_or_add(&mut self, prefix: IpNetwork) -> Id {
        let Self { records, index, hash, .. } = self;
        let hash_of = hash.prefix(&prefix);
        if let Some(id) = index.find(hash_of, |id| records[*id as usize].prefix == prefix) {
            return *id;
        }
        let record =
            Record { prefix, bgp: None, told: None, before: NONE, after: NONE, is_marked: false };
        let id = match self.free.pop() {
            Some(id) => {
                records[id as usize] = record;
                id
            }
            None => {
                records.push(record);
                // Tens of octets each: memory ends before the numbers do.
                Id::try_from(records.len() - 1).unwrap_or(NONE)
            }
        };
        index.insert_unique(hash_of, id, |id| hash.prefix(&records[*id as usize].prefix));
        id
    }

    /// Forgets a prefix that nothing is known of any more.
    pub(super) fn tidy(&mut self, id: Id) {
        let record = self.get(id);
        if record.is_marked || record.bgp.is_some() || record.told.is_some() {
            return;
        }
        let hash = self.hash.prefix(&record.prefix);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == id) {
            entry.remove();
            self.free.push(id);
        }
    }

    /// A prefix is to be looked at.
    pub(super) fn mark(&mut self, prefix: IpNetwork) {
        let id = self.find_or_add(prefix);
        self.mark_id(id);
    }

    pub(super) fn mark_id(&mut self, id: Id) {
        let record = &mut self.records[id as usize];
        if !std::mem::replace(&mut record.is_marked, true) {
            let len = usize::from(record.prefix.prefix());
            self.marked[len].push_back(id);
            self.shortest = self.shortest.min(len);
        }
    }

    /// One to look at, none that is marked covers it; its mark is gone.
    pub(super) fn pop_marked(&mut self) -> Option<Id> {
        while let Some(marked) = self.marked.get_mut(self.shortest) {
            if let Some(id) = marked.pop_front() {
                self.get_mut(id).is_marked = false;
                return Some(id);
            }
            self.shortest += 1;
        }
        None
    }

    /// Notes what the dataplane is told.
    pub(super) fn tell(&mut self, id: Id, told: Option<(u32, Source)>) {
        let record = &mut self.records[id as usize];
        let before = std::mem::replace(&mut record.told, told);
        match (before, told) {
            (None, Some(_)) => self.lengths.add(&record.prefix),
            (Some(_), None) => self.lengths.remove(&record.prefix),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }

    /// Every prefix that something is known of.
    pub(super) fn all(&self) -> impl Iterator<Item = &Record> + '_ {
        self.index.iter().map(|id| self.get(*id))
    }

    /// All of them are to be looked at.
    pub(super) fn mark_all(&mut self) {
        let all: Vec<Id> = self.index.iter().copied().collect();
        all.into_iter().for_each(|id| self.mark_id(id));
    }

    /// Every prefix that the dataplane was told, with its group.
    pub(super) fn told(&self) -> impl Iterator<Item = (IpNetwork, u32, Source)> + '_ {
        self.all()
            .filter_map(|record| record.told.map(|(group, source)| (record.prefix, group, source)))
    }

    /// The longest prefix that the dataplane was told and that covers an address, with its group.
    pub(super) fn lookup(&self, address: IpAddr) -> Option<(IpNetwork, u32, Source)> {
        self.longest(address, bits(address))
    }

    /// The group of the longest one that is more than the address.
    pub(super) fn covering(&self, address: IpAddr) -> Option<u32> {
        self.longest(address, bits(address) - 1).map(|(_, group, _)| group)
    }

    fn longest(&self, address: IpAddr, most: u8) -> Option<(IpNetwork, u32, Source)> {
        let lengths = self.lengths.longest_first(address.is_ipv6());
        lengths.filter(|len| *len <= most).find_map(|len| {
            let record = self.find(&prefix(address, len))?;
            record.told.map(|(group, source)| (record.prefix, group, source))
        })
    }

    /// Marks every prefix that a prefix covers, itself included. A million records are read for it, so that the rest costs
    /// less: it is for routes of the kernel's local table, which are addresses but for a few.
    pub(super) fn mark_inside(&mut self, outer: IpNetwork) {
        if is_host(&outer) {
            self.mark(outer);
            return;
        }
        let is_inside = |id: &Id| {
            let inner = self.get(*id).prefix;
            inner.prefix() >= outer.prefix() && outer.contains(inner.network())
        };
        let inside: Vec<Id> = self.index.iter().copied().filter(is_inside).collect();
        inside.into_iter().for_each(|id| self.mark_id(id));
    }

    /// Puts a record at the front of a list of those with the same next hops.
    pub(super) fn link(&mut self, first: &mut Id, id: Id) {
        let after = std::mem::replace(first, id);
        let record = self.get_mut(id);
        (record.before, record.after) = (NONE, after);
        if after != NONE {
            self.get_mut(after).before = id;
        }
    }

    /// Takes one out.
    pub(super) fn unlink(&mut self, first: &mut Id, id: Id) {
        let &Record { before, after, .. } = self.get(id);
        if after != NONE {
            self.get_mut(after).before = before;
        }
        if before == NONE {
            *first = after;
        } else {
            self.get_mut(before).after = after;
        }
    }

    /// Marks a list.
    pub(super) fn mark_list(&mut self, first: Id) {
        let mut next = first;
        while next != NONE {
            self.mark_id(next);
            next = self.get(next).after;
        }
    }
}
