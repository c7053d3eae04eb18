//! Shared values with small numbers: each is held once, and goes when nobody refers to it any more.

use hashbrown::HashTable;

/// A value's place. Never 0, which stands for none; used again after the value is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id(pub(crate) u32);

impl Id {
    /// No value.
    pub(crate) const NONE: Self = Self(0);

    pub(crate) const fn is_none(self) -> bool {
        self.0 == 0
    }

    const fn place(self) -> usize {
        self.0 as usize - 1
    }
}

/// The values. Whoever gets an id from [`Pool::insert`] or [`Pool::retain`]s it, releases it.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    index: HashTable<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    value: Option<T>,
    references: u32,
    /// Counts the values that have been here.
    generation: u32,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), index: HashTable::new() }
    }
}

impl<T> Pool<T> {
    /// Values at present.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// A value that is there already, with one reference more.
    pub(crate) fn find(&mut self, hash: u64, is: impl Fn(&T) -> bool) -> Option<Id> {
        let same = |&place: &u32| self.slots[place as usize].value.as_ref().is_some_and(&is);
        let place = *self.index.find(hash, same)?;
        self.slots[place as usize].references += 1;
        Some(Id(place + 1))
    }

    /// A value that [`Pool::find`] does not know, with one reference; `hash_of` hashes all of them.
    pub(crate) fn insert(&mut self, value: T, hash_of: impl Fn(&T) -> u64) -> Id {
        let hash = hash_of(&value);
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { value: None, references: 0, generation: 0 });
            // A value has a byte at least: memory ends before the numbers do.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let slot = &mut self.slots[place as usize];
        slot.value = Some(value);
        slot.references = 1;
        slot.generation = slot.generation.wrapping_add(1);
        let slots = &self.slots;
        self.index.insert_unique(hash, place, |&place| {
            slots[place as usize].value.as_ref().map_or(0, &hash_of)
        });
        Id(place + 1)
    }

    /// A value that somebody refers to.
    pub(crate) fn get(&self, id: Id) -> Option<&T> {
        self.slots.get(id.0.checked_sub(1)? as usize)?.value.as_ref()
    }

    /// Differs between two values that had the same id one after the other.
    pub(crate) fn generation(&self, id: Id) -> u32 {
        self.slots[id.place()].generation
    }

    /// One reference more.
    pub(crate) fn retain(&mut self, id: Id) {
        self.slots[id.place()].references += 1;
    }

    /// One reference less; returns a value that is gone with it.
    pub(crate) fn release(&mut self, id: Id, hash_of: impl Fn(&T) -> u64) -> Option<T> {
        let slot = &mut self.slots[id.place()];
        slot.references -= 1;
        if slot.references > 0 {
            return None;
        }
        let value = slot.value.take()?;
        let place = id.0 - 1;
        if let Ok(entry) = self.index.find_entry(hash_of(&value), |&other| other == place) {
            entry.remove();
        }
        self.free.push(place);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intern(pool: &mut Pool<u32>, value: u32) -> Id {
        let found = pool.find(u64::from(value % 7), |known| *known == value);
        found.unwrap_or_else(|| pool.insert(value, |known| u64::from(known % 7)))
    }

    #[test]
    fn equal_values_are_one_until_the_last_reference_goes() {
        let mut pool = Pool::default();
        let one = intern(&mut pool, 1);
        assert_eq!(intern(&mut pool, 1), one);
        let other = intern(&mut pool, 8);
        assert_ne!(other, one);
        let hash = |known: &u32| u64::from(known % 7);
        assert_eq!(pool.release(one, hash), None);
        assert_eq!(pool.get(one), Some(&1));
        assert_eq!(pool.release(one, hash), Some(1));
        assert_eq!((pool.get(one), pool.len()), (None, 1));
        let generation = pool.generation(one);
        assert_eq!(intern(&mut pool, 15), one);
        assert_ne!(pool.generation(one), generation);
        assert_eq!(pool.get(other), Some(&8));
        assert_eq!(pool.get(Id::NONE), None);
    }
}
