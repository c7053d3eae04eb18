//! Indices that are handed out, given back, and handed out again after a grace period.

use super::Grace;

/// Given-back indices that are worth a grace period, which costs about 10 ms.
const WORTH_WAITING: usize = 1024;

/// A pool of ranges of one size out of `0..end`.
#[derive(Debug)]
pub(super) struct Pool {
    /// Never handed out so far: from here on.
    next: u32,
    end: u32,
    free: Vec<u32>,
    /// Given back; a packet may still read them.
    retired: Vec<u32>,
    grace: Grace,
}

impl Pool {
    pub(super) fn new(start: u32, end: u32, grace: Grace) -> Self {
        Self { next: start, end, free: Vec::new(), retired: Vec::new(), grace }
    }

    /// An index that nobody reads; `None`: all are in use.
    pub(super) fn take(&mut self) -> Option<u32> {
        if self.retired.len() >= WORTH_WAITING || self.is_exhausted() {
            self.reclaim();
        }
        if let Some(index) = self.free.pop() {
            return Some(index);
        }
        let index = self.next;
        (index < self.end).then(|| {
            self.next += 1;
            index
        })
    }

    /// How many `take` can give.
    pub(super) fn available(&self) -> usize {
        self.free.len() + self.retired.len() + (self.end - self.next.min(self.end)) as usize
    }

    /// Gives an index back: nothing names it any more.
    pub(super) fn give_back(&mut self, index: u32) {
        self.retired.push(index);
    }

    /// Leaves out indices that are in use already; before the first `take`.
    pub(super) fn reserve(&mut self, used: impl Fn(u32) -> bool) {
        let top = (self.next..self.end).rev().find(|index| used(*index));
        if let Some(top) = top {
            self.free.extend((self.next..top).filter(|index| !used(*index)));
            self.next = top + 1;
        }
    }

    fn is_exhausted(&self) -> bool {
        self.free.is_empty() && self.next >= self.end && !self.retired.is_empty()
    }

    fn reclaim(&mut self) {
        (self.grace)();
        self.free.append(&mut self.retired);
    }
}
