//! Ranges of buckets, and which member each bucket names: resilient hashing.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use lb_dataplane_common::fib::MAX_LOG2_BUCKETS;

use super::Grace;

/// Buckets per member, so that shares come out even.
const BUCKETS_PER_MEMBER: usize = 16;
/// Buckets of the member of the lowest weight, as far as a group can have so many: fewer would not tell 1 % from 3 %.
const BUCKETS_OF_LIGHTEST: usize = 4;

/// Ranges of `1 << log2` buckets.
#[derive(Debug)]
pub(super) struct Ranges {
    /// By binary logarithm of the size.
    free: [Vec<u32>; MAX_LOG2_BUCKETS as usize + 1],
    /// Given back; packets may still read them.
    retired: Vec<(u32, u8)>,
    grace: Grace,
}

impl Ranges {
    /// What `used` leaves of `0..end`.
    pub(super) fn between(used: &BTreeSet<(u32, u8)>, end: u32, grace: Grace) -> Self {
        let mut ranges = Self { free: Default::default(), retired: Vec::new(), grace };
        let mut next = 0;
        for (base, log2) in used {
            ranges.carve(next, *base);
            next = next.max(base + (1 << log2));
        }
        ranges.carve(next, end);
        // The lowest come first.
        ranges.free.iter_mut().for_each(|bases| bases.reverse());
        ranges
    }

    /// A range that nobody reads; `None`: there is none of this size.
    pub(super) fn take(&mut self, log2: u8) -> Option<u32> {
        self.find(log2).or_else(|| {
            self.reclaim();
            self.find(log2)
        })
    }

    /// Gives a range back: no group names it any more.
    pub(super) fn give_back(&mut self, base: u32, log2: u8) {
        self.retired.push((base, log2));
    }

    fn find(&mut self, log2: u8) -> Option<u32> {
        let fits = (log2..=MAX_LOG2_BUCKETS).find(|l| !self.free[usize::from(*l)].is_empty())?;
        let base = self.free[usize::from(fits)].pop()?;
        // The half that is not needed stays.
        for half in log2..fits {
            self.free[usize::from(half)].push(base + (1 << half));
        }
        Some(base)
    }

    /// Waits for packets to leave what was given back, and joins free neighbours.
    fn reclaim(&mut self) {
        if !self.retired.is_empty() {
            (self.grace)();
        }
        let sizes = (0..).zip(std::mem::take(&mut self.free));
        let mut free: Vec<(u32, u8)> = sizes
            .flat_map(|(log2, bases)| bases.into_iter().map(move |base| (base, log2)))
            .collect();
        free.append(&mut self.retired);
        free.sort_unstable();
        let mut joined: Option<(u32, u32)> = None;
        for (base, log2) in free {
            let end = base + (1 << log2);
            joined = match joined {
                Some((start, before)) if before == base => Some((start, end)),
                Some((start, before)) => {
                    self.carve(start, before);
                    Some((base, end))
                }
                None => Some((base, end)),
            };
        }
        if let Some((start, end)) = joined {
            self.carve(start, end);
        }
    }

    /// Frees `start..end` in the largest pieces that there are; each begins at a multiple of its size.
    fn carve(&mut self, mut start: u32, end: u32) {
        while let Some(log2) = end.saturating_sub(start).checked_ilog2() {
            let log2 = log2.min(u32::from(MAX_LOG2_BUCKETS)).min(start.trailing_zeros());
            self.free[log2 as usize].push(start);
            start += 1 << log2;
        }
    }
}

/// Buckets that a group of these members (indices with weights) gets, as a binary logarithm.
pub(super) fn log2_for(members: &[(u32, u16)]) -> u8 {
    let weights = || members.iter().map(|(_, weight)| usize::from(*weight).max(1));
    let lightest = weights().min().unwrap_or(1);
    let by_weight = (weights().sum::<usize>() * BUCKETS_OF_LIGHTEST).div_ceil(lightest);
    let wanted = by_weight.max(members.len() * BUCKETS_PER_MEMBER);
    let wanted = wanted.next_power_of_two().trailing_zeros();
    u8::try_from(wanted).unwrap_or(MAX_LOG2_BUCKETS).min(MAX_LOG2_BUCKETS)
}

/// Which member each bucket names, so that every member has its share and as few buckets as possible change hands.
///
/// `members` are indices with weights, each once; `old` are the buckets of before, fewer or as many (a power of two).
pub(super) fn assign(members: &[(u32, u16)], old: &[u32], log2: u8) -> Vec<u32> {
    let count = 1_usize << log2;
    // A smaller table repeats itself: the hash's low bits choose in both.
    let before = |place: usize| old.get(place & old.len().wrapping_sub(1)).copied();
    let mut hold: HashMap<u32, usize> = HashMap::new();
    (0..count).filter_map(before).for_each(|member| *hold.entry(member).or_default() += 1);
    let mut left = shares(members, &hold, count);
    let mut buckets: Vec<Option<u32>> = Vec::with_capacity(count);
    for place in 0..count {
        buckets.push(before(place).filter(|member| take_one(&mut left, *member)));
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

/// Buckets per member by weight. What rounding leaves goes one by one to those that `hold` it already, so that of members of
/// equal weight none loses a bucket when another one leaves; then to those that rounding took most from.
fn shares(members: &[(u32, u16)], hold: &HashMap<u32, usize>, count: usize) -> HashMap<u32, usize> {
    let weight = |weight: u16| usize::from(weight).max(1);
    let total: usize = members.iter().map(|(_, of)| weight(*of)).sum();
    let exact = |of: u16| (weight(of) * count / total.max(1), weight(of) * count % total.max(1));
    let mut shares: HashMap<u32, usize> =
        members.iter().map(|(member, of)| (*member, exact(*of).0)).collect();
    let left = count.saturating_sub(shares.values().sum());
    let mut order: Vec<_> = members
        .iter()
        .map(|(member, of)| {
            let (share, rest) = exact(*of);
            let holds = hold.get(member).is_some_and(|held| *held > share);
            (!holds, Reverse(rest), *member)
        })
        .collect();
    order.sort_unstable();
    for (_, _, member) in order.into_iter().take(left) {
        shares.entry(member).and_modify(|share| *share += 1);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_of_however_many_that_leaves_takes_only_its_own_flows_along() {
        for count in [2_u32, 3, 8, 63, 64, 65, 100, 255, 256] {
            let mut members: Vec<(u32, u16)> = (0..count).map(|n| (n, 1)).collect();
            let mut buckets = assign(&members, &[], MAX_LOG2_BUCKETS);
            // One after the other leaves, first and last ones and others.
            for turn in 0..members.len() - 1 {
                let (gone, _) = members.remove(turn * 7 % members.len());
                let after = assign(&members, &buckets, MAX_LOG2_BUCKETS);
                for (old, new) in buckets.iter().zip(&after) {
                    assert!(*new != gone && (*old == gone || old == new), "{old} to {new}");
                }
                let even = after.len() / members.len();
                for (member, _) in &members {
                    let share = after.iter().filter(|bucket| *bucket == member).count();
                    assert!((even..=even + 1).contains(&share), "{share} of {even}");
                }
                buckets = after;
            }
        }
    }

    #[test]
    fn shares_are_those_of_the_weights_however_far_apart_those_are() {
        for weights in [[1, 1], [1, 3], [1, 99], [1, 256], [100, 65_535], [1, 65_535]] {
            let members = [(0, weights[0]), (1, weights[1])];
            let buckets = assign(&members, &[], log2_for(&members));
            let light = buckets.iter().filter(|bucket| **bucket == 0).count() as f64;
            let total = f64::from(weights[0]) + f64::from(weights[1]);
            let (is, wanted) = (light / buckets.len() as f64, f64::from(weights[0]) / total);
            let step = 1.0 / 4096.0_f64;
            assert!(
                (is - wanted).abs() <= (wanted / 4.0).max(step),
                "{weights:?}: {is} of {wanted}"
            );
        }
    }

    #[test]
    fn a_member_that_comes_back_takes_no_more_than_its_share() {
        let all: Vec<(u32, u16)> = (0..256).map(|n| (n, 1)).collect();
        let first = assign(&all, &[], MAX_LOG2_BUCKETS);
        let without = assign(&all[1..], &first, MAX_LOG2_BUCKETS);
        let back = assign(&all, &without, MAX_LOG2_BUCKETS);
        let moved = without.iter().zip(&back).filter(|(old, new)| old != new).count();
        assert_eq!(moved, back.len() / 256);
    }
}
