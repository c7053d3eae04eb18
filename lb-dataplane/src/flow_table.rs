//! The flow tables as user space has them: their buckets in memory, which packets change meanwhile.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::marker::PhantomData;
use std::mem::offset_of;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use aya::maps::MapData;
use lb_dataplane_common::family::{Family, V4};
use lb_dataplane_common::flow::{FlowEntry, FlowKey, STATE_CLAIMED, STATE_TAG};
use lb_dataplane_common::flow_table::{
    self, Bucket, Key, STATE, Shared, Slot, Table, find, live, slot_of,
};
use lb_dataplane_common::tables::InsertError;

use crate::mapped::{Mapped, prefetch};
use crate::pod::Raw;

/// Where a walk over a table stands: a bucket, or its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(pub Option<u32>);

impl Cursor {
    /// How many buckets a walk that stood at another place before has passed; none where it is over.
    pub(crate) fn passed(self, before: Self) -> usize {
        let at = |cursor: Self| cursor.0.unwrap_or(0) as usize;
        at(self).saturating_sub(at(before))
    }
}

/// An entry of a flow table with its key.
pub type Entry<A> = (FlowKey<A>, FlowEntry);

/// The buckets of a walk that are looked at for an entry of a part, at most: where there are few entries a part ends before it is full.
const BUCKETS_OF_AN_ENTRY: usize = 4;
/// How many buckets ahead a walk has fetched.
const AHEAD: usize = 8;

/// A family's flow table.
#[derive(Debug)]
pub struct FlowTable<A> {
    words: Mapped,
    buckets: u32,
    family: PhantomData<A>,
}

impl<A: Family> FlowTable<A> {
    const BUCKET_WORDS: usize = size_of::<Bucket<A>>() / 8;
    const AWAY: usize = offset_of!(Bucket<A>, away) / 8;
    const SEED: usize = offset_of!(Bucket<A>, seed) / 8;
    const SLOTS: usize = offset_of!(Bucket<A>, slots) / 8;
    const SLOT_WORDS: usize = size_of::<Slot<A>>() / 8;

    /// The table in an array of so many buckets.
    ///
    /// # Errors
    ///
    /// It cannot be mapped.
    pub fn map(array: impl AsFd, buckets: u32) -> io::Result<Self> {
        let words = Mapped::map(array, buckets as usize * size_of::<Bucket<A>>())?;
        Ok(Self { words, buckets, family: PhantomData })
    }

    fn at(&self, index: u32) -> Option<InMemory<'_, A>> {
        let from = index as usize * Self::BUCKET_WORDS;
        let words = self.words.wide_words().get(from..from + Self::BUCKET_WORDS)?;
        Some(InMemory { words, family: PhantomData })
    }

    /// Says in the table what its hash begins with.
    pub fn set_seed(&self, seed: u64) {
        if let Some(first) = self.at(0).and_then(|first| first.words.get(Self::SEED)) {
            first.store(seed, Relaxed);
        }
    }

    /// What its hash begins with.
    #[must_use]
    pub fn own_seed(&self) -> u64 {
        let seed = self.at(0).and_then(|first| first.words.get(Self::SEED));
        seed.map_or(0, |seed| seed.load(Relaxed))
    }

    /// A flow's entry.
    #[must_use]
    pub fn get(&self, key: &FlowKey<A>) -> Option<FlowEntry> {
        let place = find(&self, key)?;
        let (found, entry) = place.bucket.slot(place.slot)?;
        // What became another flow's meanwhile may be half of each.
        find(&self, key).filter(|again| (again.index, again.slot) == (place.index, place.slot))?;
        (found == *key).then_some(entry)
    }

    /// Puts an entry in the place of a flow's, or adds it: to set a scene, while no packets come.
    ///
    /// # Errors
    ///
    /// There is no room for it.
    pub fn put(&self, key: &FlowKey<A>, entry: &FlowEntry) -> Result<(), InsertError> {
        if let Some(place) = find(&self, key) {
            place.bucket.write(place.slot, key, entry);
            return Ok(());
        }
        flow_table::insert(&self, key, entry)
    }

    /// Removes a flow's entry, whether it did: to set a scene, while no packets come.
    pub fn remove(&self, key: &FlowKey<A>) -> bool {
        flow_table::remove(&self, key)
    }

    /// The entries of the next buckets of a walk, as many as fit, and whether it is over; `None` where the next bucket has more than
    /// that.
    pub(crate) fn read(
        &self,
        cursor: &mut Cursor,
        at_most: usize,
    ) -> Option<(Vec<Entry<A>>, bool)> {
        let first = cursor.0.unwrap_or(0);
        let last = u32::try_from(at_most.saturating_mul(BUCKETS_OF_AN_ENTRY)).unwrap_or(u32::MAX);
        let end = self.buckets.min(first.saturating_add(last.max(1)));
        let mut entries = Vec::with_capacity(at_most);
        for index in first..end {
            self.expect(index as usize + AHEAD);
            let Some(bucket) = self.at(index) else { break };
            let before = entries.len();
            entries.extend(bucket.entries());
            if entries.len() > at_most {
                entries.truncate(before);
                cursor.0 = Some(index);
                return (index > first).then_some((entries, false));
            }
        }
        *cursor = if end < self.buckets { Cursor(Some(end)) } else { Cursor::default() };
        Some((entries, end == self.buckets))
    }

    /// The entries of the bucket that a walk stands at, and whether the walk is over.
    pub(crate) fn read_one(&self, cursor: &mut Cursor) -> (Vec<Entry<A>>, bool) {
        let index = cursor.0.unwrap_or(0);
        let entries = self.at(index).map(|bucket| bucket.entries().collect()).unwrap_or_default();
        let is_last = index.saturating_add(1) >= self.buckets;
        *cursor = if is_last { Cursor::default() } else { Cursor(Some(index + 1)) };
        (entries, is_last)
    }

    fn expect(&self, index: usize) {
        let words = self.words.wide_words();
        if let Some(word) = words.get(index * Self::BUCKET_WORDS) {
            prefetch(word);
        }
    }

    /// Changes all entries as bytes: to set a scene, while no packets come.
    pub fn change(&self, how: impl Fn(&mut [u8; size_of::<FlowEntry>()])) {
        for (key, entry) in self.entries() {
            let mut bytes = bytes_of(&entry);
            how(&mut bytes);
            let words = bytes.as_chunks().0.iter().copied().map(u64::from_ne_bytes);
            if let Some(entry) = Raw::from_words(words) {
                let _there_is_room = self.put(&key, &entry);
            }
        }
    }

    /// All entries: to look at a scene.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry<A>> {
        let buckets = (0..self.buckets).filter_map(|index| self.at(index));
        buckets.flat_map(|bucket| bucket.entries().collect::<Vec<_>>()).collect()
    }
}

impl<'a, A: Family> Table<FlowKey<A>> for &'a FlowTable<A> {
    type Bucket = InMemory<'a, A>;

    fn buckets(&self) -> u32 {
        self.buckets
    }

    fn secret(&self, n: usize) -> u64 {
        flow_table::secret(self.own_seed(), n)
    }

    fn anew(&self, number: u64) -> u64 {
        number
    }

    fn bucket(&self, index: u32) -> Option<InMemory<'a, A>> {
        self.at(index)
    }
}

/// A bucket in memory.
#[derive(Debug)]
pub struct InMemory<'a, A> {
    words: &'a [AtomicU64],
    family: PhantomData<A>,
}

impl<A: Family> InMemory<'_, A> {
    fn slot_words(&self, slot: u32) -> &[AtomicU64] {
        let from = FlowTable::<A>::SLOTS + slot as usize * FlowTable::<A>::SLOT_WORDS;
        &self.words[from..from + FlowTable::<A>::SLOT_WORDS]
    }

    /// What is in a slot, unless it becomes another flow's meanwhile: then its state says so, or it is not there any more.
    fn slot(&self, slot: u32) -> Option<Entry<A>> {
        let words = self.slot_words(slot);
        let Slot { key, entry } = Raw::from_words(words.iter().map(|word| word.load(Acquire)))?;
        let state = words[FlowKey::<A>::WORDS + STATE].load(Acquire) as u32;
        let is_same = (state ^ entry.state) & (STATE_TAG | STATE_CLAIMED) == 0;
        let is_its = FlowEntry::bears(key.tag(), entry.state, entry.check);
        (is_same && is_its).then_some((key, entry))
    }

    fn entries(&self) -> impl Iterator<Item = Entry<A>> {
        let lanes = [0, 1, 2, 3].map(|n| self.word(n));
        let mut bits = live(lanes);
        std::iter::from_fn(move || {
            while bits != 0 {
                let at = bits.trailing_zeros() as usize;
                let found = self.slot(slot_of(bits));
                bits &= bits - 1;
                // What became another flow's meanwhile may be half of each.
                let (word, lane) = (at % 16, at / 16 * 16);
                let is_same = lanes
                    .get(word)
                    .is_some_and(|was| (self.word(word) ^ was) >> lane & 0xffff == 0);
                let found = found.filter(|_| is_same);
                if found.is_some() {
                    return found;
                }
            }
            None
        })
    }
}

impl<A: Family> Shared<FlowKey<A>> for InMemory<'_, A> {
    fn word(&self, n: usize) -> u64 {
        self.words[n].load(Acquire)
    }

    fn swap_word(&self, n: usize, old: u64, new: u64) -> bool {
        self.words[n].compare_exchange(old, new, AcqRel, Acquire).is_ok()
    }

    fn add_word(&self, n: usize, by: u64) {
        self.words[n].fetch_add(by, AcqRel);
    }

    fn away(&self) -> u64 {
        self.words[FlowTable::<A>::AWAY].load(Acquire)
    }

    fn add_away(&self, by: u64) {
        self.words[FlowTable::<A>::AWAY].fetch_add(by, AcqRel);
    }

    fn has_key(&self, slot: u32, key: &FlowKey<A>) -> bool {
        let words = self.slot_words(slot).iter().take(FlowKey::<A>::WORDS);
        words.enumerate().all(|(n, word)| word.load(Acquire) == key.word(n))
    }

    fn write(&self, slot: u32, key: &FlowKey<A>, entry: &FlowEntry) {
        let words = Raw(Slot { key: *key, entry: *entry }).to_words();
        let last = FlowKey::<A>::WORDS + STATE;
        for place in (0..words.len()).filter(|place| *place != last).chain([last]) {
            self.slot_words(slot)[place].store(words[place], Release);
        }
    }
}

/// The most entries that ask for no more than so many buckets ([`flow_table::buckets_for`]), of two at least.
pub(crate) fn entries_for(buckets: u32) -> u32 {
    let slots = u64::from(buckets) * u64::from(flow_table::SLOTS);
    u32::try_from(slots * 3 / 4).unwrap_or(u32::MAX)
}

/// An entry as it is in memory.
#[must_use]
pub fn bytes_of(entry: &FlowEntry) -> [u8; size_of::<FlowEntry>()] {
    let words = Raw(*entry).to_words();
    let mut bytes = [0; size_of::<FlowEntry>()];
    for (place, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
        *place = word.to_ne_bytes();
    }
    bytes
}

/// What the hash of the tables begins with: what one that is pinned has, or else what nobody knows.
///
/// # Errors
///
/// One that is pinned cannot be read: another seed would leave its entries where nobody finds them.
pub(crate) fn seed(pins: &[PathBuf]) -> io::Result<u64> {
    for pin in pins.iter().filter(|pin| pin.exists()) {
        let map = MapData::from_pin(pin).map_err(io::Error::other)?;
        // It is in the first bucket, at the same place in both families'.
        let seed = FlowTable::<V4>::map(map.fd(), 1)?.own_seed();
        if seed != 0 {
            return Ok(seed);
        }
    }
    Ok(RandomState::new().hash_one(0_u8) | 1)
}

#[cfg(test)]
mod tests;
