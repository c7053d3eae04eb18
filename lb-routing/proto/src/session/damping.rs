//! How long a session rests in Idle before it starts again (RFC 4271 §8.1.1, DampPeerOscillations).

use std::time::Duration;

/// IdleHoldTime after a first failure.
pub(crate) const IDLE_HOLD_MIN: Duration = Duration::from_secs(1);
/// IdleHoldTime at most.
pub(crate) const IDLE_HOLD_MAX: Duration = Duration::from_secs(120);
/// A session that was Established this long begins at [`IDLE_HOLD_MIN`] again.
pub(crate) const STABLE: Duration = Duration::from_secs(60);

/// Doubles with every failure, up to a bound.
#[derive(Clone, Debug)]
pub(crate) struct Damping {
    next: Duration,
}

impl Damping {
    pub(crate) const fn new() -> Self {
        Self { next: IDLE_HOLD_MIN }
    }

    /// The time to rest after a failure; `uptime` is how long the session was Established.
    pub(crate) fn rest(&mut self, uptime: Option<Duration>) -> Duration {
        if uptime.is_some_and(|uptime| uptime >= STABLE) {
            self.next = IDLE_HOLD_MIN;
        }
        let rest = self.next;
        self.next = (rest * 2).min(IDLE_HOLD_MAX);
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_doubles_up_to_the_bound_and_starts_over_after_a_stable_session() {
        let mut damping = Damping::new();
        let rests: Vec<_> = (0..9).map(|_| damping.rest(None).as_secs()).collect();
        assert_eq!(rests, [1, 2, 4, 8, 16, 32, 64, 120, 120]);
        assert_eq!(damping.rest(Some(STABLE / 2)), IDLE_HOLD_MAX);
        assert_eq!(damping.rest(Some(STABLE)), IDLE_HOLD_MIN);
    }
}
