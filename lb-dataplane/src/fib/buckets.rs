//! Ranges of buckets, and which member each bucket names: resilient hashing.

use std::collections::HashMap;

use lb_dataplane_common::fib::MAX_LOG2_BUCKETS;

use super::Grace;

/// Buckets per member, so that shares come out even.
const BUCKETS_PER_MEMBER: usize = 16;

/// Ranges of `1 << log2` buckets.
#[derive(Debug)]
pub(super) struct Ranges {
    next: u32,
    end: u32,
    /// By binary logarithm of the size.
    free: [Vec<u32>; MAX_LOG2_BUCKETS as usize + 1],
    /// Given back; packets may still read them.
    retired: Vec<(u32, u8)>,
    grace: Grace,
}

impl Ranges {
    /// Ranges out of `start..end`.
    pub(super) fn new(start: u32, end: u32, grace: Grace) -> Self {
        Self { next: start, end, free: Default::default(), retired: Vec::new(), grace }
    }

    /// A range that nobody reads; `None`: there is none of this size.
    pub(super) fn take(&mut self, log2: u8) -> Option<u32> {
        self.find(log2).or_else(|| {
            (!self.retired.is_empty()).then(|| (self.grace)())?;
            for (base, log2) in self.retired.drain(..) {
                self.free[usize::from(log2)].push(base);
            }
            self.find(log2)
        })
    }

    /// Gives a range back: no group names it any more.
    pub(super) fn give_back(&mut self, base: u32, log2: u8) {
        self.retired.push((base, log2));
    }

    fn find(&mut self, log2: u8) -> Option<u32> {
        if let Some(base) = self.free[usize::from(log2)].pop() {
            return Some(base);
        }
        let size = 1 << log2;
        if self.end - self.next.min(self.end) >= size {
            let base = self.next;
            self.next += size;
            return Some(base);
        }
        // Half of a larger one.
        let larger =
            (log2 + 1..=MAX_LOG2_BUCKETS).find(|l| !self.free[usize::from(*l)].is_empty())?;
        let base = self.free[usize::from(larger)].pop()?;
        for half in log2..larger {
            self.free[usize::from(half)].push(base + (1 << half));
        }
        Some(base)
    }
}

/// Buckets that a group of so many members gets, as a binary logarithm.
pub(super) fn log2_for(members: usize) -> u8 {
    let wanted = (members * BUCKETS_PER_MEMBER).next_power_of_two().trailing_zeros();
    u8::try_from(wanted).unwrap_or(MAX_LOG2_BUCKETS).min(MAX_LOG2_BUCKETS)
}

/// Which member each bucket names, so that every member has its share and as few buckets as possible change hands.
///
/// `members` are indices with weights, each once; `old` are the buckets of before, fewer or as many (a power of two).
pub(super) fn assign(members: &[(u32, u16)], old: &[u32], log2: u8) -> Vec<u32> {
    let count = 1_usize << log2;
    let mut left: HashMap<u32, usize> = shares(members, count);
    let mut buckets: Vec<Option<u32>> = Vec::with_capacity(count);
    for place in 0..count {
        // A smaller table repeats itself: the hash's low bits choose in both.
        let before = old.get(place & old.len().wrapping_sub(1)).copied();
        let kept = before.filter(|member| take_one(&mut left, *member));
        buckets.push(kept);
    }
    // The rest goes round, so that neighbours in the table differ.
    let mut turn = members.iter().cycle();
    buckets
        .into_iter()
        .map(|bucket| {
            let mut open = || {
                let mut candidates = turn.by_ref().take(members.len());
                candidates.find_map(|(member, _)| take_one(&mut left, *member).then_some(*member))
            };
            bucket.or_else(&mut open).unwrap_or_else(|| members.first().map_or(0, |(m, _)| *m))
        })
        .collect()
}

/// Buckets per member by weight; what rounding leaves goes to the first ones.
fn shares(members: &[(u32, u16)], count: usize) -> HashMap<u32, usize> {
    let total: usize = members.iter().map(|(_, weight)| usize::from(*weight).max(1)).sum();
    let mut shares: HashMap<u32, usize> = HashMap::new();
    let mut given = 0;
    let mut sum = 0;
    for (member, weight) in members {
        sum += usize::from(*weight).max(1);
        let upto = sum * count / total.max(1);
        shares.insert(*member, upto - given);
        given = upto;
    }
    shares
}

fn take_one(left: &mut HashMap<u32, usize>, member: u32) -> bool {
    match left.get_mut(&member) {
        Some(count) if *count > 0 => {
            *count -= 1;
            true
        }
        Some(_) | None => false,
    }
}
