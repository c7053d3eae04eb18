//! The eBPF FIB's writer: DIR-24-8 for IPv4 in memory-mapped arrays (Gupta, Lin, McKeown, INFOCOM 1998).
//!
//! Readers are packets on every CPU, and nothing here stops them. What makes that safe:
//!
//! - A slot is one aligned word, stored at once. A prefix shorter than /24 changes slot by slot.
//! - A group is one aligned word that names a member or a range of buckets. Members and ranges are written before a group
//!   names them, and reused only after a grace period in which every CPU has left the program.
//! - A chunk of the second level is filled before a first-level slot names it, and reused after a grace period too.
//!
//! - What belongs to a slot is in its word: the group, the prefix length, and whether a previous process wrote it. There is
//!   nothing beside it that could differ, and nothing to lose with the process.
//!
//! A group's word changes in place, so a gateway's new MAC is one store, whatever the number of routes.

mod adopt;
mod buckets;
mod groups;
mod pool;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::Ipv4Addr;

use foldhash::fast::RandomState;

pub use self::groups::GroupError;
use self::groups::Groups;
use self::slots::{Cover, Slots};
use crate::mapped::Mapped;

/// A change to the FIB. Groups are named by the caller; a route names a group that is there already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FibUpdate {
    /// Creates the group or replaces what it does; routes that name it follow at once.
    Group {
        /// The caller's name for it.
        id: u32,
        /// What packets to it meet.
        action: Action,
    },
    /// Removes a group that no route names any more.
    GroupRemoved {
        /// The caller's name for it.
        id: u32,
    },
    /// Adds the route or points it to another group.
    Route {
        /// Network address, host bits zero.
        prefix: Ipv4Addr,
        /// 0 to 32.
        len: u8,
        /// The group.
        group: u32,
    },
    /// Removes the route; addresses below it fall back to the next shorter prefix.
    RouteRemoved {
        /// Network address, host bits zero.
        prefix: Ipv4Addr,
        /// 0 to 32.
        len: u8,
    },
}

/// What packets to a group meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Forwarded to one of these, chosen by the flow's hash; never empty.
    Forward(Vec<Member>),
    /// Handed to the kernel (a local address, an unreachable route, a type that eBPF can't express).
    Kernel,
    /// Dropped.
    Blackhole,
}

/// A way out: everything that the frame needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Interface to send from.
    pub ifindex: u32,
    /// Its MAC.
    pub source_mac: [u8; 6],
    /// The next hop's MAC; `None` while it is unresolved: packets take the kernel's neighbour path out of this interface.
    pub destination_mac: Option<[u8; 6]>,
    /// The next hop's address, for the kernel's neighbour path; `None` where the destination itself is the neighbour.
    pub gateway: Option<Ipv4Addr>,
    /// MTU of the interface, bytes of IP packet.
    pub mtu: u16,
    /// Share relative to the other members, 1 to 256.
    pub weight: u16,
}

/// A route as the mapped memory holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FibRoute {
    /// Network address.
    pub prefix: Ipv4Addr,
    /// Its length.
    pub len: u8,
    /// What its packets meet, read back from the tables that packets read.
    pub action: Action,
}

/// Why an update was refused. Nothing was written for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FibError {
    /// The prefix is longer than 32 bits or has host bits.
    #[error("{prefix}/{len} is no prefix: it has host bits, or is longer than /32")]
    BadPrefix {
        /// The address.
        prefix: Ipv4Addr,
        /// The length.
        len: u8,
    },
    /// A route names a group that is not there.
    #[error("{prefix}/{len} names group {group}, which is not there: create it first")]
    UnknownGroup {
        /// The address.
        prefix: Ipv4Addr,
        /// The length.
        len: u8,
        /// The group.
        group: u32,
    },
    /// All second-level chunks are in use.
    #[error(
        "no room for {prefix}/{len}: all {chunks} second-level chunks are in use; enlarge fib_second_level_pages"
    )]
    ChunksFull {
        /// The address.
        prefix: Ipv4Addr,
        /// The length.
        len: u8,
        /// Chunks that there are.
        chunks: usize,
    },
    /// The group cannot be had.
    #[error("group {id}: {source}")]
    Group {
        /// The caller's name for it.
        id: u32,
        /// Why.
        source: GroupError,
    },
}

/// The arrays of the FIB.
#[derive(Debug)]
pub struct Arrays {
    /// `FIB4_L1`: one word per /24.
    pub l1: Mapped,
    /// `FIB4_L2`: chunks of 256 words.
    pub l2: Mapped,
    /// `FIB_GROUPS`: one 64-bit word per group.
    pub groups: Mapped,
    /// `FIB_BUCKETS`: members' indices.
    pub buckets: Mapped,
    /// `FIB_MEMBERS`: 32 bytes a member.
    pub members: Mapped,
}

/// Waits until no packet reads what was unlinked before: a grace period.
pub type Grace = fn();

/// How many updates ahead slots are fetched: about as many as one memory access takes time for.
const AHEAD: usize = 8;

/// Routes of one length. Neighbours choose the prefixes, so the hash is seeded.
type Table = HashMap<u32, u32, RandomState>;

/// The writer. One at a time per set of arrays.
#[derive(Debug)]
pub struct Fib {
    slots: Slots,
    groups: Groups,
    /// Routes by length and network address, with the caller's group.
    routes: Vec<Table>,
}

impl Fib {
    /// Takes over arrays. What they hold goes on carrying packets until [`Fib::synced`] is called, or a route of this process
    /// takes its place: one that is as long or longer. In whatever order routes come back, a packet thus never leaves by a
    /// shorter prefix than before.
    pub fn adopt(arrays: Arrays, grace: Grace) -> Self {
        let Arrays { l1, l2, groups, buckets, members } = arrays;
        let (slots, live) = adopt::slots(l1, l2, grace);
        let groups = adopt::groups(groups, buckets, members, &live, grace);
        Self { slots, groups, routes: (0..=32).map(|_| Table::default()).collect() }
    }

    /// Makes changes in order: all that can be made, whatever becomes of the others.
    ///
    /// # Errors
    ///
    /// The first that was refused.
    pub fn apply(&mut self, updates: &[FibUpdate]) -> Result<(), FibError> {
        let mut first = Ok(());
        for (place, update) in updates.iter().enumerate() {
            if let Some(FibUpdate::Route { prefix, .. }) = updates.get(place + AHEAD) {
                self.slots.prefetch(u32::from(*prefix));
            }
            let done = self.update(update);
            if first.is_ok() {
                first = done;
            }
        }
        first
    }

    /// Makes one change.
    ///
    /// # Errors
    ///
    /// What cannot be done is refused as a whole: the tables are as before.
    pub fn update(&mut self, update: &FibUpdate) -> Result<(), FibError> {
        match update {
            FibUpdate::Group { id, action } => {
                self.groups.put(*id, action).map_err(|source| FibError::Group { id: *id, source })
            }
            FibUpdate::GroupRemoved { id } => {
                self.groups.remove(*id).map_err(|source| FibError::Group { id: *id, source })
            }
            FibUpdate::Route { prefix, len, group } => self.insert(*prefix, *len, *group),
            FibUpdate::RouteRemoved { prefix, len } => self.remove(*prefix, *len),
        }
    }

    /// Ends adoption: what the previous process left and nobody renewed falls to the routes that cover it, or is gone.
    pub fn synced(&mut self) {
        let Self { slots, groups, routes } = self;
        slots.drop_stale(|network, len| covering(routes, groups, network, len));
        groups.drop_stale();
    }

    /// Number of routes.
    pub fn len(&self) -> usize {
        self.routes.iter().map(HashMap::len).sum()
    }

    /// Whether there are no routes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The routes in order of their prefixes, at most `limit`, with what the mapped memory says of each.
    pub fn routes(&self, limit: usize) -> Vec<FibRoute> {
        let mut keys: Vec<(u32, u8, u32)> = (0_u8..)
            .zip(&self.routes)
            .flat_map(|(len, routes)| {
                routes.iter().map(move |(prefix, group)| (*prefix, len, *group))
            })
            .collect();
        keys.sort_unstable();
        let routes = keys.into_iter().take(limit);
        routes
            .filter_map(|(prefix, len, group)| {
                let action = self.groups.read(group)?;
                Some(FibRoute { prefix: prefix.into(), len, action })
            })
            .collect()
    }

    fn insert(&mut self, prefix: Ipv4Addr, len: u8, group: u32) -> Result<(), FibError> {
        let network = network(prefix, len)?;
        let index = self.groups.used(group);
        let index = index.ok_or(FibError::UnknownGroup { prefix, len, group })?;
        let old = self.routes[usize::from(len)].insert(network, group);
        if !self.slots.set(network, len, index, old.is_none()) {
            // Only a route that was not there needs a chunk: there is no old one to put back.
            self.routes[usize::from(len)].remove(&network);
            self.groups.unused(group);
            let chunks = self.slots.chunks();
            return Err(FibError::ChunksFull { prefix, len, chunks });
        }
        if let Some(old) = old {
            self.groups.unused(old);
        }
        Ok(())
    }

    fn remove(&mut self, prefix: Ipv4Addr, len: u8) -> Result<(), FibError> {
        let network = network(prefix, len)?;
        let Some(group) = self.routes[usize::from(len)].remove(&network) else { return Ok(()) };
        let covering = covering(&self.routes, &self.groups, network, len);
        self.slots.clear(network, len, covering);
        self.groups.unused(group);
        Ok(())
    }
}

/// The longest route that is shorter than a prefix and has it: its length and its group's index.
fn covering(routes: &[Table], groups: &Groups, network: u32, len: u8) -> Option<Cover> {
    (0..len).rev().find_map(|shorter| {
        let routes = routes.get(usize::from(shorter)).filter(|routes| !routes.is_empty())?;
        Some((shorter, groups.index(*routes.get(&(network & mask(shorter)))?)?))
    })
}

/// The network address as a number, if it is one.
fn network(prefix: Ipv4Addr, len: u8) -> Result<u32, FibError> {
    let address = u32::from(prefix);
    if len > 32 || address & !mask(len) != 0 {
        return Err(FibError::BadPrefix { prefix, len });
    }
    Ok(address)
}

fn mask(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0)
}
