//! The attribute sets that paths have: each once, as the octets that it arrived in.
//!
//! A set is known by those octets and by what they mean: who may have sent them in which context, and
//! the next hop. What the decision needs stands beside them, so the values are only read again to be
//! shown, or to be advertised to a new group.
//!
//! Bound: the sets that a neighbour brought, and those that policy made of them, take at most
//! [`MAX_ATTRIBUTE_BYTES_PER_PEER`] octets together; see [`AttributeTable::bytes_of`]. A group's copies
//! of them, as advertised, are at most one for each prefix.

use std::hash::{BuildHasher, Hasher};

use super::best::Rank;
use super::hash::Keyed;
use super::pool::{Id, Pool};
use super::{PeerIndex, Source};
use crate::policy::{self, Rejection};
use crate::wire::{self, Attributes, Context, Verdict};

/// Octets of the attribute sets of one neighbour at most; beyond, its session ends with Cease / Out
/// of Resources (RFC 4486).
pub(crate) const MAX_ATTRIBUTE_BYTES_PER_PEER: usize = 256 << 20;

/// An attribute set.
pub(crate) type AttributesId = Id;

/// How sets that policy made are kept: nothing is lost.
const INSIDE: Context = Context { four_octet_as: true, external: false };

/// The judge of what no neighbour sent.
const NOBODY: u16 = u16::MAX;

/// What a set is known by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key<'a> {
    pub(crate) context: Context,
    /// What the neighbour's paths are judged by, by number.
    pub(crate) judge: u16,
    /// The next hop of MP_REACH_NLRI; none: NEXT_HOP in the block counts.
    pub(crate) reach: Option<Id>,
    pub(crate) block: &'a [u8],
}

/// A set.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    block: Box<[u8]>,
    pub(crate) rank: Rank,
    pub(crate) verdict: Verdict,
    /// Why routes with it are of no use.
    pub(crate) rejection: Option<Rejection>,
    /// The next hop, as a set of one; none of routes that we originate.
    pub(crate) next_hop: Id,
    /// It has the community GRACEFUL_SHUTDOWN (RFC 8326).
    pub(crate) shut: bool,
    by_reach: bool,
    context: Context,
    judge: u16,
    /// Whose octets these are.
    creator: Source,
}

const _: () =
    assert!(size_of::<Entry>() <= 72, "a table has tens of thousands from each neighbour");

impl Entry {
    /// Its octets.
    pub(super) fn block(&self) -> &[u8] {
        &self.block
    }

    fn is(&self, key: &Key<'_>) -> bool {
        *self.block == *key.block
            && self.context == key.context
            && self.judge == key.judge
            && self.by_reach.then_some(self.next_hop) == key.reach
    }

    /// Octets that it takes, apart from its places in the table.
    fn size(&self) -> usize {
        size_of::<Self>() + self.block.len() + size_of_val(self.verdict.faults())
    }

    fn hash(&self, keyed: Keyed) -> u64 {
        hash(keyed, &self.block, self.by_reach.then_some(self.next_hop))
    }
}

fn hash(keyed: Keyed, block: &[u8], reach: Option<Id>) -> u64 {
    let mut hasher = keyed.build_hasher();
    hasher.write(block);
    hasher.write_u32(reach.unwrap_or_default().0);
    hasher.finish()
}

/// The sets.
#[derive(Debug)]
pub(crate) struct AttributeTable {
    pool: Pool<Entry>,
    hash: Keyed,
    /// Octets by who brought them.
    bytes: Vec<usize>,
}

impl AttributeTable {
    pub(crate) fn new(hash: Keyed) -> Self {
        Self { pool: Pool::default(), hash, bytes: Vec::new() }
    }

    /// A set that is known, with one reference more.
    pub(crate) fn find(&mut self, key: &Key<'_>) -> Option<AttributesId> {
        self.pool.find(hash(self.hash, key.block, key.reach), |entry| entry.is(key))
    }

    /// A set that is not, with one reference; it keeps the reference to its next hop.
    pub(crate) fn insert(
        &mut self,
        key: &Key<'_>,
        creator: PeerIndex,
        next_hop: Id,
        (block, rejection): (&wire::Block, Option<Rejection>),
    ) -> AttributesId {
        self.add(Entry {
            block: key.block.into(),
            rank: Rank::of(&block.attributes),
            verdict: block.verdict.clone(),
            rejection,
            next_hop,
            by_reach: key.reach.is_some(),
            shut: policy::is_shutting_down(&block.attributes),
            context: key.context,
            judge: key.judge,
            creator: Source::of(creator),
        })
    }

    /// A set that no neighbour sent, with one reference more, and whether it is new: then it keeps the
    /// reference to its next hop.
    pub(crate) fn intern(
        &mut self,
        attributes: &Attributes,
        next_hop: Id,
        creator: Source,
    ) -> (AttributesId, bool) {
        let block = wire::encode_block(attributes, INSIDE);
        let key = Key { context: INSIDE, judge: NOBODY, reach: Some(next_hop), block: &block };
        if let Some(known) = self.find(&key) {
            return (known, false);
        }
        let entry = Entry {
            rank: Rank::of(attributes),
            verdict: Verdict::default(),
            rejection: None,
            next_hop,
            by_reach: true,
            shut: policy::is_shutting_down(attributes),
            context: INSIDE,
            judge: NOBODY,
            creator,
            block: block.into(),
        };
        (self.add(entry), true)
    }

    /// The same octets as somebody else judges them, with one reference more, and whether that is a new set: then it needs a
    /// reference to its next hop.
    pub(crate) fn judged_by(
        &mut self,
        id: AttributesId,
        judge: u16,
        check: impl FnOnce(&Attributes) -> Option<Rejection>,
    ) -> (AttributesId, bool) {
        let entry = self.get(id);
        if entry.judge == judge {
            self.retain(id);
            return (id, false);
        }
        let entry = Entry { judge, rejection: check(&self.decode(id)), ..entry.clone() };
        let reach = entry.by_reach.then_some(entry.next_hop);
        let key = Key { context: entry.context, judge, reach, block: &entry.block };
        match self.find(&key) {
            Some(known) => (known, false),
            None => (self.add(entry), true),
        }
    }

    fn add(&mut self, entry: Entry) -> AttributesId {
        if let Some(peer) = entry.creator.peer() {
            let peer = usize::from(peer);
            if self.bytes.len() <= peer {
                self.bytes.resize(peer + 1, 0);
            }
            self.bytes[peer] += entry.size();
        }
        let keyed = self.hash;
        self.pool.insert(entry, |entry| entry.hash(keyed))
    }

    /// A set that somebody refers to.
    pub(crate) fn get(&self, id: AttributesId) -> &Entry {
        self.pool.get(id).expect("whoever has an id has a reference")
    }

    /// Its values.
    pub(crate) fn decode(&self, id: AttributesId) -> Attributes {
        let entry = self.get(id);
        // It was read before, and the same octets say the same again.
        wire::Block::new(&entry.block, entry.context)
            .map(|block| block.attributes)
            .unwrap_or_default()
    }

    /// Differs between two sets that had the same id one after the other.
    pub(crate) fn generation(&self, id: AttributesId) -> u32 {
        self.pool.generation(id)
    }

    pub(crate) fn retain(&mut self, id: AttributesId) {
        self.pool.retain(id);
    }

    /// Gives a reference back; returns the next hop of a set that is gone with it.
    pub(crate) fn release(&mut self, id: AttributesId) -> Option<Id> {
        let keyed = self.hash;
        let gone = self.pool.release(id, |entry| entry.hash(keyed))?;
        if let Some(peer) = gone.creator.peer() {
            self.bytes[usize::from(peer)] -= gone.size();
        }
        Some(gone.next_hop)
    }

    /// Octets of the sets that a neighbour brought and that are still in use.
    pub(crate) fn bytes_of(&self, peer: PeerIndex) -> usize {
        self.bytes.get(usize::from(peer)).copied().unwrap_or_default()
    }

    /// Sets in use.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.pool.len()
    }
}
