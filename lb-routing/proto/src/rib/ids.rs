//! Sets of prefix numbers: a bit each, and a bit for each word of them, so that an almost empty set of
//! a million is walked in a few steps.

/// A set of dense numbers. 1.02 bits per number up to the largest ever in it.
#[derive(Debug, Default)]
pub(crate) struct IdSet {
    words: Vec<u64>,
    /// Which words are not zero.
    summary: Vec<u64>,
    len: usize,
    /// Where [`IdSet::pop`] looks first: everybody's turn comes, however many are added behind it.
    next: u32,
}

impl IdSet {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a number; says whether it is new.
    pub(crate) fn insert(&mut self, id: u32) -> bool {
        let word = id as usize / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
            self.summary.resize(word / 64 + 1, 0);
        }
        let new = self.words[word] & bit(id as usize) == 0;
        self.words[word] |= bit(id as usize);
        self.summary[word / 64] |= bit(word);
        self.len += usize::from(new);
        new
    }

    pub(crate) fn contains(&self, id: u32) -> bool {
        self.words.get(id as usize / 64).is_some_and(|bits| bits & bit(id as usize) != 0)
    }

    /// Takes a number out; says whether it was there.
    pub(crate) fn remove(&mut self, id: u32) -> bool {
        let word = id as usize / 64;
        let Some(bits) = self.words.get_mut(word) else { return false };
        let there = *bits & bit(id as usize) != 0;
        *bits &= !bit(id as usize);
        if *bits == 0 {
            self.summary[word / 64] &= !bit(word);
        }
        self.len -= usize::from(there);
        there
    }

    pub(crate) fn extend(&mut self, ids: impl Iterator<Item = u32>) {
        for id in ids {
            self.insert(id);
        }
    }

    /// Every number, the least first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        let words = (0..).zip(&self.words).filter(|(_, bits)| **bits != 0);
        words.flat_map(|(word, &bits)| {
            (0..64_u32)
                .filter(move |place| bits >> place & 1 != 0)
                .map(move |place| word * 64 + place)
        })
    }

    /// Takes one out: the least from where the last call stopped, then from the beginning.
    pub(crate) fn pop(&mut self) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        let id = self.first_from(self.next).or_else(|| self.first_from(0))?;
        self.next = id + 1;
        self.remove(id);
        Some(id)
    }

    fn first_from(&self, start: u32) -> Option<u32> {
        let start = start as usize;
        let word = start / 64;
        let here = self.words.get(word)? & (u64::MAX << (start % 64));
        if here != 0 {
            return number(word, here);
        }
        let after = word + 1;
        let mut mask = u64::MAX << (after % 64);
        for (place, &bits) in self.summary.iter().enumerate().skip(after / 64) {
            if bits & mask != 0 {
                let word = place * 64 + (bits & mask).trailing_zeros() as usize;
                return number(word, self.words[word]);
            }
            mask = u64::MAX;
        }
        None
    }
}

const fn bit(place: usize) -> u64 {
    1 << (place % 64)
}

fn number(word: usize, bits: u64) -> Option<u32> {
    u32::try_from(word * 64 + bits.trailing_zeros() as usize).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_of_bits_is_a_set(steps in prop::collection::vec((0_u8..4, 0_u32..20_000), 0..300)) {
            let (mut set, mut model) = (IdSet::default(), BTreeSet::new());
            for (step, id) in steps {
                match step {
                    0 | 1 => prop_assert_eq!(set.insert(id), model.insert(id)),
                    2 => prop_assert_eq!(set.remove(id), model.remove(&id)),
                    _ => {
                        let after = model.range(set.next..).next().or(model.first()).copied();
                        prop_assert_eq!(set.pop(), after);
                        model.remove(&after.unwrap_or_default());
                    }
                }
                prop_assert_eq!(set.len, model.len());
            }
            prop_assert!(set.iter().eq(model.iter().copied()));
            let rest: BTreeSet<_> = std::iter::from_fn(|| set.pop()).collect();
            prop_assert_eq!(rest, model);
        }
    }
}
