//! How long a session rests in Idle before it starts again (RFC 4271 §8.1.1, DampPeerOscillations).

use std::time::Duration;

use crate::config::MAX_IDLE_HOLD;

/// A session that was Established this long begins at the first rest again.
pub(crate) const STABLE: Duration = Duration::from_secs(60);

/// Doubles with every failure, up to a bound.
#[derive(Clone, Debug, Default)]
pub(crate) struct Damping {
    /// None: the first one.
    next: Option<Duration>,
}

impl Damping {
    /// The time to rest after a failure; `first` is that after the first one, `uptime` how long the session was
    /// Established.
    pub(crate) fn rest(&mut self, first: Duration, uptime: Option<Duration>) -> Duration {
        if uptime.is_some_and(|uptime| uptime >= STABLE) {
            self.next = None;
        }
        let rest = self.next.unwrap_or(first);
        self.next = Some((rest * 2).min(MAX_IDLE_HOLD));
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_doubles_up_to_the_bound_and_starts_over_after_a_stable_session() {
        let mut damping = Damping::default();
        let first = Duration::from_secs(1);
        let rests: Vec<_> = (0..9).map(|_| damping.rest(first, None).as_secs()).collect();
        assert_eq!(rests, [1, 2, 4, 8, 16, 32, 64, 120, 120]);
        assert_eq!(damping.rest(first, Some(STABLE / 2)), MAX_IDLE_HOLD);
        assert_eq!(damping.rest(first, Some(STABLE)), first);
        let slow = Duration::from_secs(90);
        let mut damping = Damping::default();
        assert_eq!([slow, MAX_IDLE_HOLD], [(); 2].map(|()| damping.rest(slow, None)));
    }
}
