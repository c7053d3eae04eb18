//! Prefixes and what is known of them, by small numbers: records in one array, and an index from
//! prefixes to their places in it.

use std::net::{Ipv4Addr, Ipv6Addr};

use hashbrown::HashTable;
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use smallvec::SmallVec;

use super::PathEntry;
use super::hash::Keyed;
use super::pool::Id;
use crate::fib::Install;

/// A prefix's number: dense, and used again after the prefix is forgotten.
pub(crate) type PrefixId = u32;

/// What is known of a prefix. 40 octets, and paths but one elsewhere.
#[derive(Debug)]
pub(crate) struct Record {
    /// Those that carry traffic first, the best one at the front, refused ones last.
    pub(super) paths: SmallVec<[PathEntry; 1]>,
    /// IPv4: its address. IPv6: where its address stands.
    address: u32,
    /// The next hops that the driver was last told; none: no route.
    pub(super) published: Id,
    /// For which tables it was told them.
    pub(super) install: Install,
    /// How many paths carry traffic.
    pub(super) equal: u16,
    /// Update groups whose members may know the prefix from us.
    pub(super) told: u16,
    length: u8,
    six: bool,
}

const _: () = assert!(size_of::<Record>() == 40, "there are a million");

/// The prefixes.
#[derive(Debug)]
pub(crate) struct PrefixTable {
    records: Vec<Record>,
    /// Numbers to be used again.
    free: Vec<PrefixId>,
    /// Addresses of IPv6 prefixes.
    six: Vec<u128>,
    free_six: Vec<u32>,
    index: HashTable<PrefixId>,
    hash: Keyed,
}

impl PrefixTable {
    pub(super) fn new(hash: Keyed) -> Self {
        Self {
            records: Vec::new(),
            free: Vec::new(),
            six: Vec::new(),
            free_six: Vec::new(),
            index: HashTable::new(),
            hash,
        }
    }

    pub(crate) fn find(&self, prefix: &IpNetwork) -> Option<PrefixId> {
        self.index.find(self.hash.prefix(prefix), |&id| self.prefix(id) == *prefix).copied()
    }

    pub(super) fn find_or_add(&mut self, prefix: &IpNetwork) -> PrefixId {
        self.find(prefix).unwrap_or_else(|| self.add(prefix))
    }

    fn add(&mut self, prefix: &IpNetwork) -> PrefixId {
        let (address, six) = match prefix {
            IpNetwork::V4(network) => (network.ip().to_bits(), false),
            IpNetwork::V6(network) => (self.add_six(network.ip().to_bits()), true),
        };
        let record = Record {
            paths: SmallVec::new(),
            address,
            published: Id::NONE,
            install: Install::Both,
            equal: 0,
            told: 0,
            length: prefix.prefix(),
            six,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.records[id as usize] = record;
                id
            }
            None => {
                self.records.push(record);
                // 40 octets each: memory ends before the numbers do.
                u32::try_from(self.records.len() - 1).unwrap_or(u32::MAX)
            }
        };
        let (records, six, hash) = (&self.records, &self.six, self.hash);
        let rehash = |&id: &PrefixId| hash.prefix(&prefix_of(&records[id as usize], six));
        self.index.insert_unique(hash.prefix(prefix), id, rehash);
        id
    }

    fn add_six(&mut self, bits: u128) -> u32 {
        match self.free_six.pop() {
            Some(place) => {
                self.six[place as usize] = bits;
                place
            }
            None => {
                self.six.push(bits);
                u32::try_from(self.six.len() - 1).unwrap_or(u32::MAX)
            }
        }
    }

    /// Forgets a prefix that has neither paths nor anybody who was told of it.
    pub(super) fn remove(&mut self, id: PrefixId) {
        let prefix = self.prefix(id);
        if let Ok(entry) = self.index.find_entry(self.hash.prefix(&prefix), |&other| other == id) {
            entry.remove();
        }
        let record = &mut self.records[id as usize];
        record.paths = SmallVec::new();
        if record.six {
            self.free_six.push(record.address);
        }
        self.free.push(id);
    }

    /// A prefix by its number.
    pub(crate) fn prefix(&self, id: PrefixId) -> IpNetwork {
        prefix_of(&self.records[id as usize], &self.six)
    }

    pub(crate) fn is_ipv6(&self, id: PrefixId) -> bool {
        self.records[id as usize].six
    }

    pub(super) fn get(&self, id: PrefixId) -> &Record {
        &self.records[id as usize]
    }

    pub(super) fn get_mut(&mut self, id: PrefixId) -> &mut Record {
        &mut self.records[id as usize]
    }

    /// Numbers that may be in use: those below.
    pub(crate) fn end(&self) -> PrefixId {
        u32::try_from(self.records.len()).unwrap_or(u32::MAX)
    }

    /// Prefixes that are known.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }
}

fn prefix_of(record: &Record, six: &[u128]) -> IpNetwork {
    let stored = "the length came from a prefix";
    if record.six {
        let address = Ipv6Addr::from_bits(six[record.address as usize]);
        IpNetwork::V6(Ipv6Network::new(address, record.length).expect(stored))
    } else {
        let address = Ipv4Addr::from_bits(record.address);
        IpNetwork::V4(Ipv4Network::new(address, record.length).expect(stored))
    }
}
