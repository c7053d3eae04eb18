//! How much of the flow table is looked at in a round, so that a walk over all that is in it takes about as many rounds as it
//! may: a table of which little is taken is not walked more often for it.

/// In how many rounds the whole flow table is looked at.
const ROUNDS: usize = 16;
/// Parts of a round at least: a walk over a few flows is cheap, and the sooner they end the better.
const LEAST: usize = 32;

/// Where a walk stands, in parts of the table and in rounds.
#[derive(Debug)]
pub(super) struct Pace {
    /// Parts of a round that a full table asks for.
    full: usize,
    /// Those of the last whole walk.
    last: usize,
    /// Those of this one so far.
    parts: usize,
    rounds: usize,
}

impl Pace {
    /// For a table with room for so many entries, so many of which are a part.
    pub(super) fn new(entries: usize, part: usize) -> Self {
        let full = entries.div_ceil(part * ROUNDS).max(1);
        Self { full, last: full * ROUNDS, parts: 0, rounds: 0 }
    }

    /// A round begins: how many parts it has. More than the last walk asks for, once there is more than that found.
    pub(super) fn round(&mut self) -> usize {
        self.rounds += 1;
        if self.rounds > ROUNDS {
            return self.full;
        }
        self.last.div_ceil(ROUNDS).clamp(LEAST.min(self.full), self.full)
    }

    /// Parts were looked at, the last of the table among them or not.
    pub(super) fn looked_at(&mut self, parts: usize, is_end: bool) {
        self.parts += parts;
        if is_end {
            (self.last, self.parts, self.rounds) = (self.parts, 0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use lb_dataplane::{AGE_BATCH, Timeouts};

    use super::*;

    /// A walk over so many parts: its rounds, and the most parts of one.
    fn walk(pace: &mut Pace, parts: usize) -> (usize, usize) {
        let (mut left, mut rounds, mut most) = (parts, 0, 0);
        while left > 0 {
            let round = pace.round();
            (rounds, most) = (rounds + 1, most.max(round));
            let looked_at = round.min(left);
            left -= looked_at;
            pace.looked_at(looked_at, left == 0);
        }
        (rounds, most)
    }

    #[test]
    fn a_walk_takes_as_many_rounds_as_it_may_however_much_there_is() {
        let mut pace = Pace::new(8 << 20, AGE_BATCH);
        for parts in [16_384, 8000, 2000, 516] {
            walk(&mut pace, parts);
            let (rounds, most) = walk(&mut pace, parts);
            assert!((15..=16).contains(&rounds), "{rounds} rounds over {parts} parts");
            assert_eq!(most, parts.div_ceil(16));
        }
        walk(&mut pace, 3);
        assert_eq!(walk(&mut pace, 3), (1, 32), "few are looked at in every round");
    }

    /// Parts that the walk's place is told by, of about as many entries each.
    const BUCKETS: usize = 128;

    /// The most entries of a table of four million flows while so many connections that are closed at once begin in each of some
    /// seconds: calm, and then a burst.
    fn most_of([calm, burst]: [usize; 2], asked: Timeouts) -> usize {
        let (capacity, part) = (8 << 20, AGE_BATCH);
        let mut pace = Pace::new(capacity, part);
        let mut buckets = vec![VecDeque::<usize>::new(); BUCKETS];
        let (mut next, mut seen, mut found, mut most) = (0, 0, 0, 0);
        for second in 0..400 {
            let flows = if second < 300 { calm } else { burst };
            buckets.iter_mut().for_each(|bucket| bucket.push_front(2 * flows / BUCKETS));
            let taken = buckets.iter().flatten().sum::<usize>();
            most = most.max(taken);
            let mut left = (pace.round() * part) as isize;
            while left > 0 {
                let there = buckets[next].iter().sum::<usize>();
                left -= there.max(1) as isize;
                seen += there;
                let now = asked.with_taken(seen.max(found) as u64, capacity as u64);
                // A tick is a second or so.
                buckets[next].truncate(now.tcp_closed as usize);
                next = (next + 1) % BUCKETS;
                pace.looked_at(there.div_ceil(part), next == 0);
                if next == 0 {
                    found = std::mem::take(&mut seen);
                    break;
                }
            }
        }
        most
    }

    #[test]
    fn a_burst_after_calm_finds_room_though_the_walk_has_gone_slowly() {
        for calm in [0, 500, 5000, 20_000] {
            for burst in [20_000, 50_000, 100_000, 150_000] {
                let most = most_of([calm, burst], Timeouts::default());
                assert!(most <= 8 << 20, "{calm} and then {burst} a second: {most}");
            }
        }
    }

    #[test]
    fn what_comes_while_a_walk_goes_on_makes_it_twice_as_long_at_most() {
        let mut pace = Pace::new(8 << 20, AGE_BATCH);
        walk(&mut pace, 3);
        let (rounds, most) = walk(&mut pace, 16_384);
        assert!(rounds <= 32 && most == 1024, "{rounds} rounds, {most} parts");
        assert_eq!(Pace::new(100, AGE_BATCH).round(), 1, "a small table is one part");
    }
}
