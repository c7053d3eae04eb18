//! Seeded randomness for timers (RFC 4271 §10).

use std::time::Duration;

/// A small generator (SplitMix64): the same seed gives the same timers, which is what the simulation
/// needs; nothing secret depends on it.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Three quarters of `time` to all of it, uniformly.
    pub(crate) fn of(&mut self, time: Duration) -> Duration {
        let thousandths = u32::try_from(750 + self.next() % 251).unwrap_or(1000);
        time * thousandths / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_between_three_quarters_and_the_whole_and_varies() {
        let mut jitter = Jitter::new(7);
        let whole = Duration::from_secs(100);
        let times: Vec<_> = (0..1000).map(|_| jitter.of(whole)).collect();
        assert!(times.iter().all(|&time| time >= whole * 3 / 4 && time <= whole));
        assert!(times.iter().any(|&time| time < whole * 80 / 100));
        assert!(times.iter().any(|&time| time > whole * 95 / 100));
    }
}
