//! Failed logins: each address may fail a few times, and then has to wait.
//!
//! A source's debt is a moment: every failure moves it [`COST`] into the future, and time catches up with it. While it is
//! more than [`PATIENCE`] ahead, the source is not listened to.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// What a failure costs: ten a minute can go on for ever.
const COST: Duration = Duration::from_secs(6);
/// Ten failures at once are forgiven.
const PATIENCE: Duration = Duration::from_secs(54);
/// Sources that are remembered; beyond, the one that is forgiven first gives way.
const MAX_SOURCES: usize = 4096;

/// What is remembered of failed logins.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    debts: HashMap<IpAddr, Instant>,
}

impl Limiter {
    /// How long a source has to wait, if it has to.
    pub(super) fn has_to_wait(&self, source: IpAddr, now: Instant) -> Option<Duration> {
        let debt = self.debts.get(&network(source))?.saturating_duration_since(now);
        debt.checked_sub(PATIENCE).filter(|wait| !wait.is_zero())
    }

    /// A login failed.
    pub(super) fn failed(&mut self, source: IpAddr, now: Instant) {
        let source = network(source);
        if self.debts.len() >= MAX_SOURCES && !self.debts.contains_key(&source) {
            self.debts.retain(|_, debt| *debt > now);
            let first = self.debts.iter().min_by_key(|(_, debt)| **debt).map(|(source, _)| *source);
            if let Some(first) = first.filter(|_| self.debts.len() >= MAX_SOURCES) {
                self.debts.remove(&first);
            }
        }
        let debt = self.debts.entry(source).or_insert(now);
        *debt = (*debt).max(now) + COST;
    }
}

/// Whoever has an IPv6 address has all of its /64.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(last: u16) -> IpAddr {
        let [high, low] = last.to_be_bytes();
        [198, 51, high, low].into()
    }

    #[test]
    fn ten_failures_are_forgiven_the_next_has_to_wait_and_waiting_helps() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        for failure in 1..=10 {
            assert_eq!(limiter.has_to_wait(v4(1), start), None, "{failure}");
            limiter.failed(v4(1), start);
        }
        let wait = limiter.has_to_wait(v4(1), start).unwrap();
        assert_eq!(wait, COST);
        assert_eq!(limiter.has_to_wait(v4(2), start), None, "others are not held back");
        assert_eq!(limiter.has_to_wait(v4(1), start + wait), None);
        limiter.failed(v4(1), start + wait);
        assert!(limiter.has_to_wait(v4(1), start + wait).is_some());
        assert_eq!(limiter.has_to_wait(v4(1), start + Duration::from_secs(3600)), None);
    }

    #[test]
    fn one_ipv6_network_is_one_source() {
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        for host in 0..11 {
            limiter.failed(format!("2001:db8:0:1::{host:x}").parse().unwrap(), now);
        }
        assert!(limiter.has_to_wait("2001:db8:0:1:ffff::".parse().unwrap(), now).is_some());
        assert_eq!(limiter.has_to_wait("2001:db8:0:2::".parse().unwrap(), now), None);
    }

    #[test]
    fn sources_are_bounded_and_the_worst_are_remembered() {
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        (0..20).for_each(|_| limiter.failed(v4(0), now));
        for source in 1..=u16::try_from(MAX_SOURCES * 2).unwrap() {
            limiter.failed(v4(source), now);
        }
        assert_eq!(limiter.debts.len(), MAX_SOURCES);
        assert!(limiter.has_to_wait(v4(0), now).is_some());
    }
}
