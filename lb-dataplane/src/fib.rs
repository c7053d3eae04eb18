//! The eBPF FIB's writer: DIR-24-8 for IPv4 (Gupta, Lin, McKeown, INFOCOM 1998) and a multibit trie for IPv6, over next-hop
//! groups of both, in memory-mapped arrays.
//!
//! Readers are packets on every CPU, and nothing here stops them. What makes that safe:
//!
//! - A slot is one aligned word, stored at once. A prefix shorter than /24 changes slot by slot.
//! - A group is one aligned word that names a member or a range of buckets. Members and ranges are written before a group
//!   names them, and reused only after a grace period in which every CPU has left the program.
//! - A chunk of the second level is filled before a first-level slot names it, and reused after a grace period too.
//! - A node of the trie is written before a word leads to it, and reused after a grace period. An IPv6 route longer than
//!   the root's words (/24 below 2000::/3, /16 elsewhere) thus comes, changes and goes with one store. Only where the last
//!   unit of memory is in use it changes word by word, and shorter ones always do.
//! - What belongs to a slot is in its word: the group, the prefix length, and whether a previous process wrote it. There is
//!   nothing beside it that could differ, and nothing to lose with the process.
//!
//! A group's word changes in place, so a gateway's new MAC is one store, whatever the number of routes.
//!
//! A table that is full refuses a route before anything is written, and never sends its packets by a shorter one: the block
//! that it is in goes to the kernel as a whole until there is room, or is dropped where the kernel has none of its routes
//! (`left_out`).

mod adopt;
mod audit;
mod buckets;
mod error;
mod groups;
mod left_out;
mod lookup;
mod memory;
mod node;
mod pool;
mod slots;
mod space;
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests6;
mod trie;
mod update;

use std::net::IpAddr;

pub use self::audit::{Audit, Difference};
pub use self::error::FibError;
pub use self::groups::GroupError;
use self::groups::Groups;
use self::left_out::LeftOut;
pub use self::lookup::{FibLookup, Packet};
use self::slots::Slots;
use self::table::{Bits, Table};
use self::trie::Trie;
pub use self::update::{Action, FibUpdate, Member};
use crate::mapped::Mapped;
use crate::sys;

/// A route as the mapped memory holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FibRoute {
    /// Network address.
    pub prefix: IpAddr,
    /// Its length.
    pub len: u8,
    /// What its packets meet, read back from the tables that packets read.
    pub action: Action,
}

/// What of the FIB's memory is in use, and what was done to it since this process took it over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FibUsage {
    /// Routes of IPv4 and of IPv6.
    pub routes: [usize; 2],
    /// Next-hop groups.
    pub groups: usize,
    /// Ways out that groups name.
    pub members: usize,
    /// Chunks of the IPv4 second level: /24 blocks with longer routes.
    pub chunks: usize,
    /// Chunks that there are.
    pub chunks_max: usize,
    /// Their bytes: in use, and all that there are.
    pub chunk_bytes: (usize, usize),
    /// Bytes of IPv6 nodes: in use, and all that there are.
    pub node_bytes: (usize, usize),
    /// Changes made.
    pub updates: u64,
    /// Changes refused: a table was full.
    pub refused: u64,
    /// Routes that there is no room for, and groups whose members there is none for: their packets go to the kernel, or are
    /// dropped.
    pub left_out: usize,
    /// Those of them whose packets are dropped, since the kernel has no such route.
    pub dropped: usize,
}

/// The arrays of the FIB.
#[derive(Debug)]
pub struct Arrays {
    /// `FIB4_L1`: one word per /24.
    pub l1: Mapped,
    /// `FIB4_L2`: chunks of 256 words.
    pub l2: Mapped,
    /// `FIB6_ROOT`: one 64-bit word per /24 below 2000::/3, and per /16 elsewhere; then the shortcuts.
    pub root6: Mapped,
    /// `FIB6_NODES`: 64-bit words of nodes.
    pub nodes6: Mapped,
    /// `FIB_GROUPS`: one 64-bit word per group.
    pub groups: Mapped,
    /// `FIB_BUCKETS`: members' indices.
    pub buckets: Mapped,
    /// `FIB_MEMBERS`: 48 bytes a member.
    pub members: Mapped,
}

/// Waits until no packet reads what was unlinked before: a grace period.
pub type Grace = fn();

/// The grace period of programs that run in this host's kernel.
pub fn grace_period() {
    // Without grace periods an index could be reused while a packet still reads it, for some microseconds: the packet
    // would take a wrong way, and nothing worse. The service tables, where it matters more, refuse to go on.
    if let Err(error) = sys::grace_period() {
        tracing::warn!(%error, "cannot wait for running programs (membarrier)");
    }
}

/// How many updates ahead slots are fetched: about as many as one memory access takes time for.
const AHEAD: usize = 8;

/// The writer. One at a time per set of arrays.
#[derive(Debug)]
pub struct Fib {
    slots: Slots,
    trie: Trie,
    groups: Groups,
    routes: Table<u32>,
    routes6: Table<u128>,
    left_out: LeftOut,
    updates: u64,
    refused: u64,
    is_synced: bool,
}

impl Fib {
    /// Takes over arrays. What they hold goes on carrying packets until [`Fib::synced`] is called, or a route of this process
    /// takes its place: one that is as long or longer. In whatever order routes come back, a packet thus never leaves by a
    /// shorter prefix than before.
    pub fn adopt(arrays: Arrays, grace: Grace) -> Self {
        let Arrays { l1, l2, root6, nodes6, groups, buckets, members } = arrays;
        let (slots, mut live) = adopt::slots(l1, l2, grace);
        let (trie, mut live6) = adopt::trie(root6, nodes6, grace);
        live.append(&mut live6);
        let groups = adopt::groups(groups, buckets, members, &live, grace);
        Self {
            slots,
            trie,
            groups,
            routes: Table::new(),
            routes6: Table::new(),
            left_out: LeftOut::default(),
            updates: 0,
            refused: 0,
            is_synced: false,
        }
    }

    /// Makes changes in order: all that can be made, whatever becomes of the others.
    ///
    /// # Errors
    ///
    /// The first that was refused.
    pub fn apply(&mut self, updates: &[FibUpdate]) -> Result<(), FibError> {
        let mut first = Ok(());
        for (place, update) in updates.iter().enumerate() {
            match updates.get(place + AHEAD) {
                Some(FibUpdate::Route { prefix: IpAddr::V4(prefix), .. }) => {
                    self.slots.prefetch(prefix.to_bits());
                }
                Some(FibUpdate::Route { prefix: IpAddr::V6(prefix), .. }) => {
                    self.trie.prefetch(prefix.to_bits());
                }
                Some(_) | None => {}
            }
            let done = self.counted(update);
            if first.is_ok() {
                first = done;
            }
        }
        self.readmit();
        first
    }

    /// Makes one change.
    ///
    /// # Errors
    ///
    /// What cannot be done is refused as a whole: the tables are as before, but that packets of a route or a group that does
    /// not fit go to the kernel, or are dropped where it has no such route, until it does.
    pub fn update(&mut self, update: &FibUpdate) -> Result<(), FibError> {
        let done = self.counted(update);
        self.readmit();
        done
    }

    fn counted(&mut self, update: &FibUpdate) -> Result<(), FibError> {
        let done = self.carry_out(update);
        self.updates += u64::from(done.is_ok());
        self.refused += u64::from(done.is_err());
        done
    }

    fn carry_out(&mut self, update: &FibUpdate) -> Result<(), FibError> {
        match update {
            FibUpdate::Group { id, action } => self.put(*id, action, *id, false),
            FibUpdate::GroupWith { id, action, like, is_apart } => {
                self.put(*id, action, like.unwrap_or(*id), *is_apart)
            }
            FibUpdate::GroupRemoved { id } => {
                self.left_out.forget_group(*id);
                self.groups.remove(*id).map_err(|source| FibError::Group { id: *id, source })
            }
            FibUpdate::Route { prefix, len, group } => self.insert(*prefix, *len, *group),
            FibUpdate::RouteRemoved { prefix, len } => self.remove(*prefix, *len),
        }
    }

    /// Whether there is room for one route more, to somewhere new; where there is not, that counts as a refusal.
    ///
    /// # Errors
    ///
    /// What is full, or that this is no prefix.
    pub fn room_for(&mut self, prefix: IpAddr, len: u8) -> Result<(), FibError> {
        let has_room = self.has_room(prefix, len);
        self.refused += u64::from(has_room.is_err());
        has_room
    }

    fn has_room(&self, prefix: IpAddr, len: u8) -> Result<(), FibError> {
        let fits = match Network::new(prefix, len)? {
            Network::V4(network) => {
                self.routes.has(network, len) || self.slots.has_room(network, len)
            }
            Network::V6(network) => self.routes6.has(network, len) || self.trie.has_room(),
        };
        if !fits {
            return Err(self.full(prefix, len));
        }
        self.groups.has_room().map_err(|source| FibError::NoGroup { prefix, len, source })
    }

    /// Ends adoption: what the previous process left and nobody renewed falls to the routes that cover it, or is gone.
    pub fn synced(&mut self) {
        let Self { slots, trie, groups, routes, routes6, is_synced, .. } = self;
        *is_synced = true;
        slots.drop_stale(|network, len| routes.covering(groups, network, 0..len));
        trie.drop_stale(|network, len, floor| routes6.covering(groups, network, floor..len));
        groups.drop_stale();
        self.readmit();
    }

    /// Every route with its group, in no particular order.
    pub fn table(&self) -> impl Iterator<Item = (IpAddr, u8, u32)> + '_ {
        self.routes.all().chain(self.routes6.all())
    }

    /// What of the memory is in use.
    pub fn usage(&self) -> FibUsage {
        FibUsage {
            routes: [self.routes.len(), self.routes6.len()],
            groups: self.groups.len(),
            members: self.groups.members(),
            chunks: self.slots.used(),
            chunks_max: self.slots.chunks(),
            chunk_bytes: self.slots.bytes(),
            node_bytes: self.trie.bytes(),
            updates: self.updates,
            refused: self.refused,
            left_out: self.left_out.len(),
            dropped: self.count_dropped(),
        }
    }

    /// Routes and groups that there is no room for.
    pub fn left_out(&self) -> usize {
        self.left_out.len()
    }

    /// Number of routes.
    pub fn len(&self) -> usize {
        self.routes.len() + self.routes6.len()
    }

    /// Whether there are no routes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every group.
    pub fn groups(&self) -> impl Iterator<Item = u32> + '_ {
        self.groups.names()
    }

    /// What the mapped memory says that packets to a group meet.
    pub fn action(&self, group: u32) -> Option<Action> {
        self.groups.read(group)
    }

    /// The routes in order of their prefixes, those after one at most `limit`, with what the mapped memory says of each.
    pub fn routes(&self, after: Option<(IpAddr, u8)>, limit: usize) -> Vec<FibRoute> {
        let (v4, after6) = match after {
            None => (self.routes.page(None, limit), None),
            Some((IpAddr::V4(prefix), len)) => {
                (self.routes.page(Some((prefix.to_bits(), len)), limit), None)
            }
            Some((IpAddr::V6(prefix), len)) => (Vec::new(), Some((prefix.to_bits(), len))),
        };
        let v6 = self.routes6.page(after6, limit - v4.len());
        let v4 = v4.into_iter().map(|(n, len, group)| (n.into_addr(), len, group));
        let v6 = v6.into_iter().map(|(n, len, group)| (n.into_addr(), len, group));
        v4.chain(v6)
            .filter_map(|(prefix, len, group)| {
                let action = match self.left_out.has_all_of(prefix, len) {
                    Some(place) => self.groups.read_at(place)?,
                    None => self.groups.read(group)?,
                };
                Some(FibRoute { prefix, len, action })
            })
            .collect()
    }

    fn insert(&mut self, prefix: IpAddr, len: u8, group: u32) -> Result<(), FibError> {
        let network = Network::new(prefix, len)?;
        if self.left_out.has_block(network, len) {
            return self.insert_in_block(network, len, group);
        }
        let index = self.groups.used(group);
        let index = index.ok_or(FibError::UnknownGroup { prefix, len, group })?;
        let old = match network {
            Network::V4(network) => self.routes.insert(network, len, group),
            Network::V6(network) => self.routes6.insert(network, len, group),
        };
        let done = match network {
            Network::V4(network) => self.slots.set(network, len, index, old.is_none()),
            Network::V6(network) => self.trie.set(network, len, index),
        };
        if !done {
            // Only a route that was not there needs room: there is no old one to put back.
            self.forget(network, len);
            self.groups.unused(group);
            self.leave_out(network, len, group);
            return Err(self.full(prefix, len));
        }
        if let Some(old) = old {
            self.forget_kernels6(network, len, old);
            self.groups.unused(old);
        }
        self.note_kernels6(network, len, group);
        Ok(())
    }

    fn remove(&mut self, prefix: IpAddr, len: u8) -> Result<(), FibError> {
        let network = Network::new(prefix, len)?;
        let Some(group) = self.forget(network, len) else {
            self.not_left_out(network, len);
            return Ok(());
        };
        match network {
            Network::V4(network) => {
                let covering = self.routes.covering(&self.groups, network, 0..len);
                self.slots.clear(network, len, covering);
            }
            Network::V6(network) => {
                let lens = Trie::floor(network, len)..len;
                let covering = self.routes6.covering(&self.groups, network, lens);
                self.trie.clear(network, len, covering);
            }
        }
        self.forget_kernels6(network, len, group);
        self.groups.unused(group);
        self.restate(network, len);
        Ok(())
    }

    fn forget(&mut self, network: Network, len: u8) -> Option<u32> {
        match network {
            Network::V4(network) => self.routes.remove(network, len),
            Network::V6(network) => self.routes6.remove(network, len),
        }
    }

    fn full(&self, prefix: IpAddr, len: u8) -> FibError {
        if prefix.is_ipv4() {
            return FibError::ChunksFull { prefix, len, chunks: self.slots.chunks() };
        }
        let (_, bytes) = self.trie.bytes();
        FibError::NodesFull { prefix, len, kibibytes: bytes / 1024 }
    }
}

/// A network address as a number.
#[derive(Clone, Copy, Debug)]
enum Network {
    V4(u32),
    V6(u128),
}

impl Network {
    /// The network address, if it is one.
    fn new(prefix: IpAddr, len: u8) -> Result<Self, FibError> {
        let (network, is_one) = match prefix {
            IpAddr::V4(address) => {
                (Self::V4(address.to_bits()), is_network(address.to_bits(), len))
            }
            IpAddr::V6(address) => {
                (Self::V6(address.to_bits()), is_network(address.to_bits(), len))
            }
        };
        if is_one { Ok(network) } else { Err(FibError::BadPrefix { prefix, len }) }
    }

    fn into_addr(self) -> IpAddr {
        match self {
            Self::V4(network) => network.into_addr(),
            Self::V6(network) => network.into_addr(),
        }
    }
}

fn is_network<A: Bits>(address: A, len: u8) -> bool {
    len <= A::LEN && address & A::mask(len) == address
}
