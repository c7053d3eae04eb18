//! The flow tables: buckets of an array, in which packets on all CPUs find, add and remove entries without a lock, and user space
//! reads beside them.
//!
//! A bucket has [`SLOTS`] slots, and for each a lane of 16 bits that says what is there: nothing, an entry that somebody is writing,
//! or, with the highest bit set, one that is to be found. The rest of a lane is the tag, 15 bits of the key's hash. A key has two buckets that it
//! may be in, and is in the second only where the first had little room; the first counts how many it has sent [away](Bucket::away), so
//! that a lookup of what is not there reads no second bucket for nothing. So a lookup reads one line of lanes, compares all of them at
//! once, and then one key (bucketized tables with tags and two choices: Azar et al., "Balanced Allocations", 1994; Fan et al.,
//! "MemC3", 2013).
//!
//! - No more than two lanes of a bucket have the same tag, or tags that differ in the lowest bit, which the comparison may take for one
//!   another; so there is mostly one key to compare, and never more than two. A third one goes to its second bucket. A lookup or a removal
//!   beside two changes, the removal of one of the two and the addition of a third, may miss the other.
//! - Who adds an entry takes a lane by a compare-and-swap, its tag in it and not live, and only then looks whether any other has come
//!   for the same: of two that do so at the same time each sees the other or is seen, and who sees one withdraws. So both may, never
//!   neither. Who withdraws, or comes before the other's entry is live, finds no entry, and begins again.
//! - Of a slot the key is written first and the entry's state last; so who reads a state and then finds a key beside it has either the
//!   state of that key's entry, or that of another one, which it does not have any more.
//! - A slot's memory is another flow's as soon as its lane is free. Who holds an entry tells by its state ([`crate::flow`]), and who
//!   removes one has claimed it before.

mod hash;
#[cfg(test)]
mod tests;

use self::hash::Hash;
pub use self::hash::{Key, SECRETS, secret};
use crate::family::{V4, V6};
use crate::flow::{FlowEntry, FlowKey};
use crate::tables::InsertError;

/// Slots of a bucket.
pub const SLOTS: u32 = 16;
/// Words of lanes, of four lanes each.
const WORDS: usize = 4;
/// A lane whose entry is to be found.
const LIVE: u16 = 0x8000;
/// The lowest bit of each lane.
const LOW: u64 = 0x0001_0001_0001_0001;
/// The highest one.
const HIGH: u64 = LOW << 15;
/// Taken slots from which on a bucket sends entries away to emptier ones.
const CROWDED: u64 = 12;
/// How often a lane is tried to be changed while other CPUs change others of its word.
const TRIES: u32 = 4;

/// Where in an entry the word is that is written last, and by which who reads tells whose the rest is.
pub const STATE: usize = core::mem::offset_of!(FlowEntry, state) / 8;

/// A key and its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Slot<A> {
    /// The key.
    pub key: FlowKey<A>,
    /// What its packets meet.
    pub entry: FlowEntry,
}

/// Value of `FLOWS` and `FLOWS6`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Bucket<A> {
    /// What is in the slots. Slot [`slot_of`] belongs to the bit that stands for a lane.
    pub lanes: [u64; WORDS],
    /// Entries whose first bucket this is and that are in their second.
    pub away: u64,
    /// In the first bucket of the table: the seed of the hash's [`secret`].
    pub seed: u64,
    /// Zero.
    pub spare: [u64; 2],
    /// The entries.
    pub slots: [Slot<A>; SLOTS as usize],
}

const _: () = assert!(size_of::<Slot<V4>>() == 80 && size_of::<Slot<V6>>() == 104);
const _: () = assert!(size_of::<Bucket<V4>>() == 64 + 16 * 80);
const _: () = assert!(size_of::<Bucket<V6>>() == 64 + 16 * 104);

/// A bucket where it is, which other CPUs change meanwhile.
pub trait Shared<K> {
    /// A word of lanes.
    fn word(&self, n: usize) -> u64;
    /// Puts another one in its place, atomically; whether it did.
    fn swap_word(&self, n: usize, old: u64, new: u64) -> bool;
    /// Adds to one, atomically.
    fn add_word(&self, n: usize, by: u64);
    /// [`Bucket::away`].
    fn away(&self) -> u64;
    /// Adds to it, atomically.
    fn add_away(&self, by: u64);
    /// Whether a slot below [`SLOTS`] has this key.
    fn has_key(&self, slot: u32, key: &K) -> bool;
    /// Writes such a slot: the key first, and the word of the entry's state last.
    fn write(&self, slot: u32, key: &K, entry: &FlowEntry);
}

/// The buckets of a table.
pub trait Table<K> {
    /// One of them.
    type Bucket: Shared<K>;
    /// How many there are; two at least.
    fn buckets(&self) -> u32;
    /// A word of the secret, below [`SECRETS`]: [`secret`] of what the table has drawn.
    fn secret(&self, n: usize) -> u64;
    /// The same number, of which the compiler does not know that it is the same in each round of a loop: what is made of it would be kept
    /// on the stack meanwhile.
    fn anew(&self, number: u64) -> u64;
    /// A bucket below [`Table::buckets`].
    fn bucket(&self, index: u32) -> Option<Self::Bucket>;
}

/// Buckets that a table has so that there is room for so many entries: a third more slots than these, as some buckets are full when
/// others are not. A key finds none once four in five slots of a large table are taken.
#[must_use]
pub fn buckets_for(entries: u32) -> u32 {
    let slots = u64::from(entries) * 4 / 3;
    u32::try_from(slots.div_ceil(SLOTS.into())).unwrap_or(u32::MAX).max(2)
}

/// The slot that belongs to the lowest of these bits, of which bit 16·l + n stands for lane l of word n: a number below [`SLOTS`],
/// without a branch and without a table (the windows of four bits of a product, all of them different, as in Leiserson, Prokop and
/// Randall, "Using de Bruijn Sequences to Index a 1 in a Computer Word", 1998).
#[must_use]
#[inline(always)]
pub fn slot_of(bits: u64) -> u32 {
    ((bits & bits.wrapping_neg()).wrapping_mul(0x0800_9a00_ae00_f000) >> 60) as u32
}

/// The highest bit of each lane that is zero; beyond the lowest of those, bits of lanes that are 1 as well.
#[inline(always)]
fn zeroes(word: u64) -> u64 {
    word.wrapping_sub(LOW) & !word & HIGH
}

/// The lowest bit stands for the lane that is this, if there is one.
#[inline(always)]
fn matching<K>(bucket: &impl Shared<K>, lane: u16) -> u64 {
    let pattern = u64::from(lane).wrapping_mul(LOW);
    let mut bits = 0;
    let mut n = 0;
    while n < WORDS {
        bits |= zeroes(bucket.word(n) ^ pattern) >> (15 - n);
        n += 1;
    }
    bits
}

/// The lanes of a tag but for these bits of it, and those of them that are live. Unlike what [`matching`] says, no other ones; and each as
/// it was at one moment.
#[inline(always)]
fn lanes_of<K>(bucket: &impl Shared<K>, tag: u16, but: u64) -> (u64, u64) {
    let pattern = u64::from(tag).wrapping_mul(LOW);
    let (mut all, mut live) = (0, 0);
    let mut n = 0;
    while n < WORDS {
        let word = bucket.word(n);
        let differs = (word ^ pattern) & !(HIGH | but);
        let are = !((differs | HIGH).wrapping_sub(LOW)) & HIGH;
        all |= are >> (15 - n);
        live |= (are & word) >> (15 - n);
        n += 1;
    }
    (all, live)
}

/// Whether there is more than one of these bits.
#[inline(always)]
fn more_than_one(bits: u64) -> bool {
    bits & bits.wrapping_sub(1) != 0
}

/// The lanes that a lookup of a tag may have to look at: those of the two tags that differ in the lowest bit.
#[inline(always)]
fn kin<K>(bucket: &impl Shared<K>, tag: u16) -> u64 {
    lanes_of(bucket, tag, LOW).0
}

/// The lowest of these bits, which stands for the lane of a key, of two that may; 0 if none does.
#[inline(always)]
fn bit_of<K>(bucket: &impl Shared<K>, bits: u64, key: &K) -> u64 {
    let rest = bits & bits.wrapping_sub(1);
    if bits != 0 && bucket.has_key(slot_of(bits), key) {
        bits ^ rest
    } else if rest != 0 && bucket.has_key(slot_of(rest), key) {
        rest & rest.wrapping_neg()
    } else {
        0
    }
}

/// Whether a bucket has a key.
#[inline(always)]
fn has<K>(bucket: &impl Shared<K>, tag: u16, key: &K) -> bool {
    bit_of(bucket, matching(bucket, tag | LIVE), key) != 0
}

/// Where an entry is.
#[derive(Clone, Copy, Debug)]
pub struct Place<B> {
    /// The number of its bucket.
    pub index: u32,
    /// The bucket.
    pub bucket: B,
    /// The slot in it.
    pub slot: u32,
}

/// Where the entry of a key is, if it has one.
#[inline(always)]
pub fn find<K: Key, T: Table<K>>(table: &T, key: &K) -> Option<Place<T::Bucket>> {
    find_from(table, Hash::of(key, table), 0, &mut |bucket, slot| bucket.has_key(slot, key))
}

/// The same in fewer instructions, but more code, where the entry is the first that may be the key's. Whether a slot below [`SLOTS`] is the
/// key's is asked of `is_its`.
#[inline(always)]
pub fn find_by<K: Key, T: Table<K>>(
    table: &T,
    key: &K,
    mut is_its: impl FnMut(&T::Bucket, u32) -> bool,
) -> Option<Place<T::Bucket>> {
    let hash = Hash::of(key, table);
    let index = hash.first(table.buckets());
    let bucket = table.bucket(index)?;
    let bits = matching(&bucket, hash.tag() | LIVE);
    if bits != 0 && is_its(&bucket, slot_of(bits)) {
        return Some(Place { index, bucket, slot: slot_of(bits) });
    }
    let are_two = more_than_one(bits);
    if !are_two && bucket.away() == 0 {
        return None;
    }
    find_from(table, hash, if are_two { 1 } else { 2 }, &mut is_its)
}

/// One step looks at the first that may be the key's in its first bucket, the next at another one there; and so in the second.
#[inline(always)]
fn find_from<K: Key, T: Table<K>>(
    table: &T,
    hash: Hash,
    mut step: u32,
    is_its: &mut impl FnMut(&T::Bucket, u32) -> bool,
) -> Option<Place<T::Bucket>> {
    loop {
        let (hash, buckets) = (hash.anew(table), table.buckets());
        let index = if step < 2 { hash.first(buckets) } else { hash.second(buckets) };
        let bucket = table.bucket(index)?;
        let bits = matching(&bucket, hash.tag() | LIVE);
        // Of two that there may be the lowest, then the other one; or the one that is left of both by then.
        let rest = bits & bits.wrapping_sub(1);
        let slot = slot_of(if step & 1 != 0 && rest != 0 { rest } else { bits });
        if bits != 0 && is_its(&bucket, slot) {
            return Some(Place { index, bucket, slot });
        }
        if step & 1 == 0 && rest != 0 {
            step += 1;
            continue;
        }
        if step >= 2 || bucket.away() == 0 {
            return None;
        }
        step = 2;
    }
}

/// A lane of a bucket.
#[derive(Clone, Copy)]
struct Lane {
    word: usize,
    /// Its lowest bit.
    unit: u64,
}

impl Lane {
    /// That of the lowest of these bits, as [`slot_of`] has them, without a branch.
    #[inline(always)]
    fn of(bits: u64) -> Self {
        let bit = bits & bits.wrapping_neg();
        let word = (bit | bit >> 16 | bit >> 32 | bit >> 48) & 0xf;
        // Of 1, 2, 4 and 8.
        let word = ((word >> 1) - (word >> 3)) & 3;
        Self { word: word as usize, unit: bit >> word }
    }

    #[inline(always)]
    fn slot(self) -> u32 {
        slot_of(self.unit << self.word)
    }

    /// Lets the entry be found.
    #[inline(always)]
    fn publish<K>(self, bucket: &impl Shared<K>) {
        bucket.add_word(self.word, self.unit << 15);
    }

    /// Gives the lane back.
    #[inline(always)]
    fn withdraw<K>(self, bucket: &impl Shared<K>, tag: u16) {
        bucket.add_word(self.word, self.unit.wrapping_mul(tag.into()).wrapping_neg());
    }
}

/// How many lanes are taken.
#[inline(always)]
fn taken_of<K>(bucket: &impl Shared<K>) -> u64 {
    let mut taken = 0;
    let mut n = 0;
    while n < WORDS {
        let word = bucket.word(n);
        // The highest bit of each lane that is not 0.
        taken += (((word & !HIGH).wrapping_add(!HIGH) | word) & HIGH) >> 15;
        n += 1;
    }
    // The sum of four lanes, four at most each.
    taken.wrapping_mul(LOW) >> 48
}

/// Takes a free lane of a bucket in which no more than one has the tag, or the one that differs in the lowest bit.
#[inline(always)]
fn take<K>(bucket: &impl Shared<K>, tag: u16) -> Option<Lane> {
    if more_than_one(kin(bucket, tag)) {
        return None;
    }
    let mut tries = 0;
    while tries < TRIES {
        let free = matching(bucket, 0);
        if free == 0 {
            break;
        }
        let lane = Lane::of(free);
        let lanes = bucket.word(lane.word);
        let taken = lanes | lane.unit.wrapping_mul(tag.into());
        // As it was seen: the lane may have been taken since.
        if lanes & lane.unit.wrapping_mul(0xffff) == 0 && bucket.swap_word(lane.word, lanes, taken)
        {
            return Some(lane);
        }
        tries += 1;
    }
    None
}

/// Whether a bucket has a key, or is about to, in a lane that is none of these.
#[inline(always)]
fn may_have<K>(bucket: &impl Shared<K>, tag: u16, key: &K, but: u64) -> bool {
    let (all, live) = lanes_of(bucket, tag, 0);
    let (others, live) = ((all ^ live) & !but, live & !but);
    // Words are read one after the other: beside two changes there seem to be three, of which two would be compared.
    let are_three = more_than_one(live & live.wrapping_sub(1));
    others != 0 || are_three || bit_of(bucket, live, key) != 0
}

/// Adds an entry where its key has none.
///
/// # Errors
///
/// Why it is not there. [`InsertError::Exists`] also where another CPU adds one at the same time, or may do so.
#[inline(always)]
pub fn insert<K: Key, T: Table<K>>(
    table: &T,
    key: &K,
    entry: &FlowEntry,
) -> Result<(), InsertError> {
    let hash = Hash::of(key, table);
    let (tag, buckets) = (hash.tag(), table.buckets());
    let first = table.bucket(hash.first(buckets)).ok_or(InsertError::Full)?;
    let second = table.bucket(hash.second(buckets)).ok_or(InsertError::Full)?;
    if has(&first, tag, key) || first.away() != 0 && has(&second, tag, key) {
        return Err(InsertError::Exists);
    }
    let taken = taken_of(&first);
    let mut to_second = taken >= CROWDED && taken_of(&second) < taken;
    let mut tries = 0;
    while tries < 2 {
        let bucket = if to_second { &second } else { &first };
        // Before it may be found there.
        if to_second {
            first.add_away(1);
        }
        if let Some(lane) = take(bucket, tag) {
            let own = lane.unit << lane.word;
            let is_other = more_than_one(kin(bucket, tag) & !own)
                || may_have(bucket, tag, key, own)
                || if to_second {
                    may_have(&first, tag, key, 0)
                } else {
                    first.away() != 0 && may_have(&second, tag, key, 0)
                };
            if !is_other {
                bucket.write(lane.slot(), key, entry);
                lane.publish(bucket);
                return Ok(());
            }
            lane.withdraw(bucket, tag);
            if to_second {
                first.add_away(1_u64.wrapping_neg());
            }
            return Err(InsertError::Exists);
        }
        if to_second {
            first.add_away(1_u64.wrapping_neg());
        }
        to_second = !to_second;
        tries += 1;
    }
    // Another CPU may be about to write it.
    let is_other = may_have(&first, tag, key, 0) || may_have(&second, tag, key, 0);
    Err(if is_other { InsertError::Exists } else { InsertError::Full })
}

/// Removes a key's entry, which the caller has claimed; whether it did.
#[inline(always)]
pub fn remove<K: Key, T: Table<K>>(table: &T, key: &K) -> bool {
    let hash = Hash::of(key, table);
    let (tag, buckets) = (hash.tag(), table.buckets());
    let Some(first) = table.bucket(hash.first(buckets)) else { return false };
    if remove_from(&first, tag, key) {
        return true;
    }
    let is_removed = first.away() != 0
        && table.bucket(hash.second(buckets)).is_some_and(|second| remove_from(&second, tag, key));
    if is_removed {
        first.add_away(1_u64.wrapping_neg());
    }
    is_removed
}

#[inline(always)]
fn remove_from<K>(bucket: &impl Shared<K>, tag: u16, key: &K) -> bool {
    let found = bit_of(bucket, matching(bucket, tag | LIVE), key);
    if found == 0 {
        return false;
    }
    let lane = Lane::of(found);
    let (all, wanted) =
        (lane.unit.wrapping_mul(0xffff), lane.unit.wrapping_mul((tag | LIVE).into()));
    let mut tries = 0;
    while tries < TRIES {
        let lanes = bucket.word(lane.word);
        if lanes & all != wanted {
            return false;
        }
        if bucket.swap_word(lane.word, lanes, lanes & !all) {
            return true;
        }
        tries += 1;
    }
    false
}

/// The bits of the lanes that are live, for [`slot_of`], by which each is taken away in turn.
#[must_use]
pub fn live(lanes: [u64; WORDS]) -> u64 {
    let mut bits = 0;
    for (n, lanes) in lanes.into_iter().enumerate() {
        bits |= (lanes & HIGH) >> (15 - n);
    }
    bits
}
