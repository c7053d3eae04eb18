//! Holds back an address whose health flaps, in the manner of RFC 2439 §4.
//!
//! The rule: each time that the last healthy backend of an address fails costs [`PENALTY`] points, which halve every
//! [`HALF_LIFE`]. Beyond [`SUPPRESS_ABOVE`] the address is held back until the points fall to [`REUSE_BELOW`]. So one
//! or two failures cost nothing; the third in quick succession costs about 20 s, and no number of them more than
//! 60 s after the last.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use lb_api_types::vip::Health;

/// Points of a failure.
const PENALTY: f64 = 1000.0;
/// Points above which an address is held back.
const SUPPRESS_ABOVE: f64 = 2500.0;
/// Points at which it is let go.
const REUSE_BELOW: f64 = 1000.0;
/// Points at most: four half-lives away from being let go.
const CEILING: f64 = 16_000.0;
/// Points that are as good as none: the entry is dropped.
const FORGOTTEN_BELOW: f64 = 100.0;
/// In which points halve.
pub const HALF_LIFE: Duration = Duration::from_secs(15);

/// The points of every address. Bound: an address that is no VIP's is dropped as soon as its points are forgotten.
#[derive(Clone, Debug, Default)]
pub struct Damping {
    flaps: BTreeMap<IpAddr, Flap>,
    /// Those of which time alone changes something.
    restless: BTreeSet<IpAddr>,
}

#[derive(Clone, Copy, Debug)]
struct Flap {
    points: f64,
    at: Instant,
    /// The last definite health.
    up: bool,
    /// Whether it is some VIP's.
    is_wanted: bool,
    held: bool,
}

impl Flap {
    fn decay(&mut self, now: Instant) {
        let halvings = now.saturating_duration_since(self.at).div_duration_f64(HALF_LIFE);
        self.points *= 0.5_f64.powf(halvings);
        self.at = now;
        self.held &= self.points > REUSE_BELOW;
    }

    fn failed(&mut self) {
        self.points = (self.points + PENALTY).min(CEILING);
        self.held |= self.points > SUPPRESS_ABOVE;
    }
}

impl Damping {
    /// Takes in the health of addresses, `None` of one that is no VIP's any more. What is unknown changes nothing: a change
    /// of configuration is no flap. Says of which addresses time alone may have changed something.
    pub fn observe(
        &mut self,
        health: impl IntoIterator<Item = (IpAddr, Option<Health>)>,
        now: Instant,
    ) -> BTreeSet<IpAddr> {
        let before = self.restless.clone();
        for (address, health) in health {
            let fresh = Flap { points: 0.0, at: now, up: false, is_wanted: true, held: false };
            let flap = self.flaps.entry(address).or_insert(fresh);
            flap.decay(now);
            flap.is_wanted = health.is_some();
            match health {
                Some(Health::Healthy) => flap.up = true,
                Some(Health::Unhealthy) if flap.up => {
                    flap.up = false;
                    flap.failed();
                }
                Some(Health::Unhealthy | Health::Unknown) | None => {}
            }
            self.restless.insert(address);
        }
        self.restless.retain(|address| {
            let Some(flap) = self.flaps.get_mut(address) else { return false };
            flap.decay(now);
            let is_restless = flap.held || flap.points > FORGOTTEN_BELOW;
            if !is_restless && !flap.is_wanted {
                self.flaps.remove(address);
            }
            is_restless
        });
        &before | &self.restless
    }

    /// Whether time changes nothing any more.
    pub fn is_settled(&self) -> bool {
        self.restless.is_empty()
    }

    /// Until when an address is held back, if it is.
    pub fn held_until(&self, address: IpAddr, now: Instant) -> Option<Instant> {
        let mut flap = *self.flaps.get(&address)?;
        flap.decay(now);
        let halvings = (flap.points / REUSE_BELOW).log2();
        flap.held.then(|| now + HALF_LIFE.mul_f64(halvings.max(0.0)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 10));
    const SECOND: Duration = Duration::from_secs(1);

    fn observe(damping: &mut Damping, health: Health, now: Instant) {
        damping.observe([(ADDRESS, Some(health))], now);
    }

    fn flap(damping: &mut Damping, now: Instant) {
        observe(damping, Health::Healthy, now);
        observe(damping, Health::Unhealthy, now);
    }

    #[test]
    fn two_failures_cost_nothing_and_the_third_in_a_row_some_seconds() {
        let (mut damping, now) = (Damping::default(), Instant::now());
        for _ in 0..2 {
            flap(&mut damping, now);
            assert_eq!(damping.held_until(ADDRESS, now), None);
        }
        flap(&mut damping, now + SECOND);
        let until = damping.held_until(ADDRESS, now + SECOND).unwrap();
        assert!((15..30).contains(&(until - now).as_secs()), "{:?}", until - now);
        assert_eq!(damping.held_until(ADDRESS, until + SECOND), None);
    }

    #[test]
    fn rare_failures_are_never_held_back() {
        let (mut damping, mut now) = (Damping::default(), Instant::now());
        for _ in 0..100 {
            flap(&mut damping, now);
            assert_eq!(damping.held_until(ADDRESS, now), None);
            now += HALF_LIFE;
        }
    }

    #[test]
    fn what_is_unknown_is_no_flap() {
        let (mut damping, now) = (Damping::default(), Instant::now());
        for _ in 0..10 {
            observe(&mut damping, Health::Healthy, now);
            observe(&mut damping, Health::Unknown, now);
        }
        assert_eq!(damping.held_until(ADDRESS, now), None);
    }

    #[test]
    fn an_address_that_is_gone_is_forgotten_with_its_points() {
        let (mut damping, now) = (Damping::default(), Instant::now());
        flap(&mut damping, now);
        damping.observe([(ADDRESS, None)], now + SECOND);
        assert_eq!(damping.flaps.len(), 1, "removing and creating a VIP does not wash it clean");
        damping.observe([], now + HALF_LIFE * 4);
        assert!(damping.flaps.is_empty());
    }

    proptest! {
        #[test]
        fn a_quiet_address_is_let_go_within_a_minute(steps in prop::collection::vec(0..20_000_u64, 1..200)) {
            let (mut damping, mut now) = (Damping::default(), Instant::now());
            for step in steps {
                now += Duration::from_millis(step);
                flap(&mut damping, now);
                let until = damping.held_until(ADDRESS, now);
                prop_assert!(until.is_none_or(|until| until <= now + HALF_LIFE * 4));
                if let Some(until) = until {
                    prop_assert_eq!(damping.held_until(ADDRESS, until + SECOND), None);
                }
            }
            prop_assert_eq!(damping.held_until(ADDRESS, now + HALF_LIFE * 4 + SECOND), None);
        }
    }
}
