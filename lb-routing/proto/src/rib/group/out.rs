//! What a group's members hear of attribute sets: encoded once, and known again.

use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, Ipv6Addr};

use crate::rib::hash::Keyed;
use crate::rib::pool::{Id, Pool};
use crate::rib::{AttributesId, PeerIndex, Source};

/// Attributes as they are advertised; none: the prefix is not.
pub(super) type OutId = Id;

/// Attributes as they are advertised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Out {
    /// As they stand in an UPDATE, NEXT_HOP among them where it is IPv4.
    pub(super) attributes: Box<[u8]>,
    /// The next hop for MP_REACH_NLRI.
    pub(super) reach: Option<Ipv6Addr>,
    /// Who is not told: the path came from there (a neighbour of this group or none at all).
    pub(super) source: Source,
    /// Whose address the next hop is, where it is neither ours nor the source's: that neighbour is not told either
    /// (RFC 4271 §5.1.3).
    pub(super) owner: Option<IpAddr>,
}

/// A neighbour that hears of paths, by what it does not hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hearer {
    pub(super) peer: PeerIndex,
    /// Canonical.
    pub(super) address: IpAddr,
}

impl Out {
    /// `near`: our own address, or the source's.
    pub(super) fn new(
        attributes: Vec<u8>,
        next_hop: IpAddr,
        source: Source,
        near: impl Fn(IpAddr) -> bool,
    ) -> Self {
        let reach = match next_hop {
            IpAddr::V4(_) => None,
            IpAddr::V6(next_hop) => Some(next_hop),
        };
        let owner = Some(next_hop).filter(|hop| !near(*hop));
        Self { attributes: attributes.into(), reach, source, owner }
    }

    /// Whether a neighbour may hear it: the path neither came from there nor leads there.
    pub(super) fn is_for(&self, hearer: Hearer) -> bool {
        self.source != Source::of(hearer.peer) && self.owner != Some(hearer.address)
    }

    /// Whether members who may hear both hear the same.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        self.attributes == other.attributes && self.reach == other.reach
    }

    fn hash(&self, keyed: Keyed) -> u64 {
        let mut hasher = keyed.build_hasher();
        hasher.write(&self.attributes);
        hasher.write(&self.reach.unwrap_or(Ipv6Addr::UNSPECIFIED).octets());
        hasher.write_u16(self.source.peer().unwrap_or_default());
        hasher.finish()
    }
}

/// The advertised attributes of a group, and which sets they were made of.
#[derive(Debug)]
pub(super) struct Outs {
    pool: Pool<Out>,
    hash: Keyed,
    /// By address family, then by attribute set.
    memo: [Vec<Memo>; 2],
}

/// What a set became, as long as nothing about it has changed.
#[derive(Clone, Copy, Debug)]
struct Memo {
    generation: u32,
    source: Source,
    out: OutId,
    out_generation: u32,
}

/// 0 is no generation of a value.
const NOTHING: Memo =
    Memo { generation: 0, source: Source::LOCAL, out: Id::NONE, out_generation: 0 };

/// An attribute set of one source for one family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) attributes: AttributesId,
    pub(super) generation: u32,
    pub(super) source: Source,
    pub(super) ipv6: bool,
}

impl Outs {
    pub(super) fn new(hash: Keyed) -> Self {
        Self { pool: Pool::default(), hash, memo: [Vec::new(), Vec::new()] }
    }

    pub(super) fn get(&self, id: OutId) -> Option<&Out> {
        self.pool.get(id)
    }

    /// What a set became before, with a reference more; `None` where that is not known.
    pub(super) fn recall(&mut self, of: &Question) -> Option<OutId> {
        let memo = *self.memo[usize::from(of.ipv6)].get(of.attributes.0 as usize)?;
        if (memo.generation, memo.source) != (of.generation, of.source) {
            return None;
        }
        if !memo.out.is_none() {
            self.pool
                .get(memo.out)
                .filter(|_| self.pool.generation(memo.out) == memo.out_generation)?;
            self.pool.retain(memo.out);
        }
        Some(memo.out)
    }

    /// Remembers what a set became, and gives it with a reference.
    pub(super) fn remember(&mut self, of: &Question, out: Option<Out>) -> OutId {
        let id = self.add(out);
        let out_generation = if id.is_none() { 0 } else { self.pool.generation(id) };
        let memo = &mut self.memo[usize::from(of.ipv6)];
        let place = of.attributes.0 as usize;
        if memo.len() <= place {
            memo.resize(place + 1, NOTHING);
        }
        memo[place] =
            Memo { generation: of.generation, source: of.source, out: id, out_generation };
        id
    }

    /// What this source's sets became does not count any more.
    pub(super) fn forget(&mut self, source: Source) {
        for memo in self.memo.iter_mut().flatten().filter(|memo| memo.source == source) {
            *memo = NOTHING;
        }
    }

    /// Advertised sets that are in use.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.pool.len()
    }

    /// Gives what a set became a number, with a reference.
    pub(super) fn add(&mut self, out: Option<Out>) -> OutId {
        let Some(out) = out else { return OutId::NONE };
        let keyed = self.hash;
        let known = self.pool.find(out.hash(keyed), |known| *known == out);
        known.unwrap_or_else(|| self.pool.insert(out, |out| out.hash(keyed)))
    }

    pub(super) fn release(&mut self, id: OutId) {
        if !id.is_none() {
            let keyed = self.hash;
            self.pool.release(id, |out| out.hash(keyed));
        }
    }
}
