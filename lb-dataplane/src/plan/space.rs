//! Ids and ring space: given out, given back, and given out again after a grace period.

use std::collections::{BTreeMap, VecDeque};

use super::Step;

/// Ids below a limit. The longest unused is given out first, so that counters of old flows mix late.
#[derive(Clone, Debug)]
pub(super) struct Ids {
    next: u32,
    end: u32,
    free: VecDeque<u32>,
    /// Given back since the last grace period.
    retired: VecDeque<u32>,
}

impl Ids {
    pub(super) fn new(end: u32) -> Self {
        Self { next: 0, end, free: VecDeque::new(), retired: VecDeque::new() }
    }

    pub(super) fn take(&mut self, steps: &mut Vec<Step>) -> Option<u32> {
        if self.next < self.end {
            self.next += 1;
            return Some(self.next - 1);
        }
        if self.free.is_empty() && !self.retired.is_empty() {
            steps.push(Step::Grace);
            self.free.append(&mut self.retired);
        }
        self.free.pop_front()
    }

    pub(super) fn give_back(&mut self, id: u32) {
        self.retired.push_back(id);
    }

    /// Leaves out ids that are in use; before the first `take`.
    pub(super) fn reserve(&mut self, used: impl Iterator<Item = u32>) {
        let mut used: Vec<u32> = used.filter(|id| *id < self.end).collect();
        used.sort_unstable();
        used.dedup();
        for id in used {
            self.free.extend(self.next..id);
            self.next = id + 1;
        }
    }
}

/// Words of the rings.
#[derive(Clone, Debug)]
pub(super) struct Rings {
    /// Free ranges: first word and length, never adjacent.
    free: BTreeMap<u32, u32>,
    /// Given back since the last grace period.
    retired: Vec<(u32, u32)>,
}

impl Rings {
    pub(super) fn new(words: u32) -> Self {
        Self { free: BTreeMap::from([(0, words)]), retired: Vec::new() }
    }

    pub(super) fn take(&mut self, len: u32, steps: &mut Vec<Step>) -> Option<u32> {
        self.find(len).or_else(|| {
            if self.retired.is_empty() {
                return None;
            }
            steps.push(Step::Grace);
            for (base, len) in std::mem::take(&mut self.retired) {
                self.merge(base, len);
            }
            self.find(len)
        })
    }

    pub(super) fn give_back(&mut self, base: u32, len: u32) {
        if len > 0 {
            self.retired.push((base, len));
        }
    }

    /// Takes a range that is in use out of the free ones.
    pub(super) fn reserve(&mut self, base: u32, len: u32) {
        let Some((&start, &size)) = self.free.range(..=base).next_back() else { return };
        if start + size < base + len {
            return;
        }
        self.free.remove(&start);
        if base > start {
            self.free.insert(start, base - start);
        }
        if start + size > base + len {
            self.free.insert(base + len, start + size - base - len);
        }
    }

    fn find(&mut self, len: u32) -> Option<u32> {
        let (&base, &size) = self.free.iter().find(|(_, size)| **size >= len)?;
        self.free.remove(&base);
        if size > len {
            self.free.insert(base + len, size - len);
        }
        Some(base)
    }

    fn merge(&mut self, mut base: u32, mut len: u32) {
        if let Some((&before, &size)) = self.free.range(..base).next_back()
            && before + size == base
        {
            self.free.remove(&before);
            (base, len) = (before, size + len);
        }
        if let Some(size) = self.free.remove(&(base + len)) {
            len += size;
        }
        self.free.insert(base, len);
    }
}
