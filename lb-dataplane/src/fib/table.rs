//! The routes of one family as their owner knows them: by length and network address, with the owner's group.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{BitAnd, Range};

use foldhash::fast::RandomState;

use super::groups::Groups;

/// An address as a number.
pub(super) trait Bits: Copy + Eq + Ord + std::hash::Hash + BitAnd<Output = Self> {
    /// Bits of an address.
    const LEN: u8;

    /// The first bits.
    fn mask(len: u8) -> Self;

    /// The address.
    fn into_addr(self) -> IpAddr;
}

impl Bits for u32 {
    const LEN: u8 = 32;

    fn mask(len: u8) -> Self {
        Self::MAX.checked_shl(u32::from(Self::LEN - len.min(Self::LEN))).unwrap_or(0)
    }

    fn into_addr(self) -> IpAddr {
        Ipv4Addr::from_bits(self).into()
    }
}

impl Bits for u128 {
    const LEN: u8 = 128;

    fn mask(len: u8) -> Self {
        Self::MAX.checked_shl(u32::from(Self::LEN - len.min(Self::LEN))).unwrap_or(0)
    }

    fn into_addr(self) -> IpAddr {
        Ipv6Addr::from_bits(self).into()
    }
}

/// The routes. Neighbours choose the prefixes, so the hashes are seeded.
#[derive(Debug)]
pub(super) struct Table<A>(Vec<HashMap<A, u32, RandomState>>);

impl<A: Bits> Table<A> {
    pub(super) fn new() -> Self {
        Self((0..=A::LEN).map(|_| HashMap::default()).collect())
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(HashMap::len).sum()
    }

    /// Whether there is a route.
    pub(super) fn has(&self, network: A, len: u8) -> bool {
        self.0[usize::from(len)].contains_key(&network)
    }

    /// Notes a route's group; the one before.
    pub(super) fn insert(&mut self, network: A, len: u8, group: u32) -> Option<u32> {
        self.0[usize::from(len)].insert(network, group)
    }

    /// Forgets a route; its group.
    pub(super) fn remove(&mut self, network: A, len: u8) -> Option<u32> {
        self.0[usize::from(len)].remove(&network)
    }

    /// The longest route of some lengths that has a network: its length and its group's index.
    pub(super) fn covering(
        &self,
        groups: &Groups,
        network: A,
        lens: Range<u8>,
    ) -> Option<(u8, u32)> {
        lens.rev().find_map(|len| {
            let routes = self.0.get(usize::from(len)).filter(|routes| !routes.is_empty())?;
            Some((len, groups.index(*routes.get(&(network & A::mask(len)))?)?))
        })
    }

    /// All routes with their groups, in no particular order.
    pub(super) fn all(&self) -> impl Iterator<Item = (IpAddr, u8, u32)> + '_ {
        let by_len = (0_u8..).zip(&self.0);
        by_len.flat_map(|(len, routes)| {
            routes.iter().map(move |(network, group)| (network.into_addr(), len, *group))
        })
    }

    /// The first routes in order after one, at most `limit`: only they are put in order.
    pub(super) fn page(&self, after: Option<(A, u8)>, limit: usize) -> Vec<(A, u8, u32)> {
        let by_len = (0_u8..).zip(&self.0);
        let mut routes: Vec<_> = by_len
            .flat_map(|(len, routes)| {
                routes.iter().map(move |(network, group)| (*network, len, *group))
            })
            .filter(|(network, len, _)| after.is_none_or(|after| (*network, *len) > after))
            .collect();
        if limit < routes.len() {
            routes.select_nth_unstable(limit);
            routes.truncate(limit);
        }
        routes.sort_unstable();
        routes
    }

    /// All routes with their groups, in order.
    pub(super) fn sorted(&self) -> Vec<(A, u8, u32)> {
        let by_len = (0_u8..).zip(&self.0);
        let mut routes: Vec<_> = by_len
            .flat_map(|(len, routes)| {
                routes.iter().map(move |(network, group)| (*network, len, *group))
            })
            .collect();
        routes.sort_unstable();
        routes
    }
}
