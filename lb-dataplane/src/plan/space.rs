//! Ids and ring space: given out, given back, and given out again: space after a grace period, ids once no flow counts by them.
//!
//! A plan that is refused takes back what it did, in reverse; so a plan costs what it changes, not what there is. What a
//! change gives back of space is reused only when nothing else is free: a grace period takes milliseconds. Mostly somebody has waited
//! for one beside the changes before that ([`super::Served::waiting`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Step;

/// Ids below a limit. One that is given back is held until nothing counts by it any more, and is nobody's meanwhile; of those that are
/// free the longest unused is given out first.
#[derive(Clone, Debug)]
pub(super) struct Ids {
    next: u32,
    end: u32,
    free: VecDeque<u32>,
    /// Given back, and flows may count by them.
    held: BTreeSet<u32>,
    /// What the plan that is being made did.
    done: Vec<IdChange>,
}

#[derive(Clone, Copy, Debug)]
enum IdChange {
    /// The next id was given out for the first time.
    First,
    Again(u32),
    GivenBack(u32),
}

impl Ids {
    pub(super) fn new(end: u32) -> Self {
        let (free, held, done) = (VecDeque::new(), BTreeSet::new(), Vec::new());
        Self { next: 0, end, free, held, done }
    }

    pub(super) fn take(&mut self) -> Option<u32> {
        if self.next < self.end {
            self.next += 1;
            self.done.push(IdChange::First);
            return Some(self.next - 1);
        }
        let id = self.free.pop_front()?;
        self.done.push(IdChange::Again(id));
        Some(id)
    }

    pub(super) fn give_back(&mut self, id: u32) {
        self.done.push(IdChange::GivenBack(id));
        self.held.insert(id);
    }

    /// Those that were given back and not released.
    pub(super) fn held(&self) -> impl Iterator<Item = u32> + '_ {
        self.held.iter().copied()
    }

    /// How many may be given out at once.
    pub(super) fn room(&self) -> u32 {
        self.end - self.next + u32::try_from(self.free.len()).unwrap_or(u32::MAX)
    }

    /// Nothing counts by an id any more. Between two plans.
    pub(super) fn release(&mut self, id: u32) {
        if self.held.remove(&id) {
            self.free.push_back(id);
        }
    }

    /// The plan stands.
    pub(super) fn settle(&mut self) {
        self.done.clear();
    }

    /// The plan is refused.
    pub(super) fn undo(&mut self) {
        while let Some(change) = self.done.pop() {
            match change {
                IdChange::First => self.next -= 1,
                IdChange::Again(id) => self.free.push_front(id),
                IdChange::GivenBack(id) => _ = self.held.remove(&id),
            }
        }
    }

    /// Leaves out ids that are in use, and those that `hold` flows; before the first `take`.
    pub(super) fn reserve(&mut self, used: impl Iterator<Item = u32>, hold: BTreeSet<u32>) {
        let mut used: Vec<u32> = used.chain(hold.iter().copied()).collect();
        used.retain(|id| *id < self.end);
        used.sort_unstable();
        used.dedup();
        for id in used {
            self.free.extend(self.next..id);
            self.next = id + 1;
        }
        self.held = hold;
    }

    /// Has ids below `end` wait until no other ones are left, as they were given out once; after [`Ids::reserve`].
    pub(super) fn put_behind(&mut self, end: u32) {
        let end = end.min(self.end);
        self.free.extend(self.next..end);
        self.next = self.next.max(end);
    }
}

/// Words of the rings.
#[derive(Clone, Debug)]
pub(super) struct Rings {
    free: Ranges,
    /// Given back since the last grace period.
    retired: Vec<(u32, u32)>,
    /// What the plan that is being made did.
    done: Vec<RingChange>,
}

#[derive(Clone, Debug)]
enum RingChange {
    /// The beginning of a range of this size was given out.
    Taken {
        base: u32,
        len: u32,
        size: u32,
    },
    GivenBack,
    /// Retired ranges became free: what there was before. Rare, so that a copy does no harm.
    Freed(Box<(Ranges, Vec<(u32, u32)>)>),
}

/// Ranges, never adjacent: first word and length, and the other way about.
#[derive(Clone, Debug, Default)]
struct Ranges {
    by_base: BTreeMap<u32, u32>,
    by_len: BTreeSet<(u32, u32)>,
}

impl Rings {
    pub(super) fn new(words: u32) -> Self {
        let mut free = Ranges::default();
        free.insert(0, words);
        Self { free, retired: Vec::new(), done: Vec::new() }
    }

    pub(super) fn take(&mut self, len: u32, steps: &mut Vec<Step>) -> Option<u32> {
        self.find(len).or_else(|| {
            if self.retired.is_empty() {
                return None;
            }
            steps.push(Step::Grace);
            let before = (self.free.clone(), std::mem::take(&mut self.retired));
            before.1.iter().for_each(|(base, len)| self.free.merge(*base, *len));
            self.done.push(RingChange::Freed(Box::new(before)));
            self.find(len)
        })
    }

    /// How many ranges were given back and wait for a grace period.
    pub(super) fn waiting(&self) -> usize {
        self.retired.len()
    }

    /// The first so many of them have waited long enough. Between two plans.
    pub(super) fn passed(&mut self, count: usize) {
        let count = count.min(self.retired.len());
        self.retired.drain(..count).for_each(|(base, len)| self.free.merge(base, len));
    }

    pub(super) fn give_back(&mut self, base: u32, len: u32) {
        if len > 0 {
            self.done.push(RingChange::GivenBack);
            self.retired.push((base, len));
        }
    }

    /// The plan stands.
    pub(super) fn settle(&mut self) {
        self.done.clear();
    }

    /// The plan is refused.
    pub(super) fn undo(&mut self) {
        while let Some(change) = self.done.pop() {
            match change {
                RingChange::Taken { base, len, size } => {
                    self.free.remove(base + len);
                    self.free.insert(base, size);
                }
                RingChange::GivenBack => drop(self.retired.pop()),
                RingChange::Freed(before) => (self.free, self.retired) = *before,
            }
        }
    }

    /// Takes a range that is in use out of the free ones.
    pub(super) fn reserve(&mut self, base: u32, len: u32) {
        let Some((&start, &size)) = self.free.by_base.range(..=base).next_back() else { return };
        if start + size < base + len {
            return;
        }
        self.free.remove(start);
        self.free.insert(start, base - start);
        self.free.insert(base + len, start + size - base - len);
    }

    /// The smallest range that is long enough.
    fn find(&mut self, len: u32) -> Option<u32> {
        let &(size, base) = self.free.by_len.range((len, 0)..).next()?;
        self.free.remove(base);
        self.free.insert(base + len, size - len);
        self.done.push(RingChange::Taken { base, len, size });
        Some(base)
    }
}

impl Ranges {
    fn insert(&mut self, base: u32, len: u32) {
        if len > 0 {
            self.by_base.insert(base, len);
            self.by_len.insert((len, base));
        }
    }

    fn remove(&mut self, base: u32) -> Option<u32> {
        let len = self.by_base.remove(&base)?;
        self.by_len.remove(&(len, base));
        Some(len)
    }

    fn merge(&mut self, mut base: u32, mut len: u32) {
        if let Some((&before, &size)) = self.by_base.range(..base).next_back()
            && before + size == base
        {
            self.remove(before);
            (base, len) = (before, size + len);
        }
        if let Some(size) = self.remove(base + len) {
            len += size;
        }
        self.insert(base, len);
    }
}
