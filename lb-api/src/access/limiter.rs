//! What one source may do so often: fail to log in a few times, ask for so much in a second. Then it has to wait.
//!
//! A source's debt is a moment: every deed moves it by its cost into the future, and time catches up with it. While it is
//! further ahead than patience goes, the source is not listened to.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::Peer;

/// Sources that are remembered; beyond, the one that is forgiven first gives way.
const MAX_SOURCES: usize = 4096;

/// What is remembered of deeds of one kind.
#[derive(Debug)]
pub(super) struct Limiter {
    cost: Duration,
    patience: Duration,
    debts: HashMap<Source, Instant>,
}

/// Whose deeds count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// An address, of IPv6 the network that it is in.
    Network(IpAddr),
    /// A user of this host.
    User(u32),
}

impl Source {
    pub(super) fn of(address: IpAddr) -> Self {
        Self::Network(network(address))
    }
}

impl From<Peer> for Source {
    fn from(peer: Peer) -> Self {
        match peer {
            Peer::Tcp(address) => Self::of(address.ip()),
            Peer::Unix { uid, .. } => Self::User(uid),
        }
    }
}

impl Limiter {
    /// Failed logins: ten at once are forgiven, and ten a minute can go on for ever.
    pub(super) fn of_failures() -> Self {
        Self::new(Duration::from_secs(6), Duration::from_secs(54))
    }

    /// Requests: a thousand at once, and 500 a second for ever.
    pub(super) fn of_requests() -> Self {
        Self::new(Duration::from_millis(2), Duration::from_millis(1998))
    }

    /// Lines about refusals: fifty at once, and one a second for ever.
    pub(super) fn of_lines() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(49))
    }

    fn new(cost: Duration, patience: Duration) -> Self {
        Self { cost, patience, debts: HashMap::new() }
    }

    /// How long a source has to wait, if it has to.
    pub(super) fn has_to_wait(&self, source: Source, now: Instant) -> Option<Duration> {
        let debt = self.debts.get(&source)?.saturating_duration_since(now);
        debt.checked_sub(self.patience).filter(|wait| !wait.is_zero())
    }

    /// Counts a deed unless its source has to wait.
    ///
    /// # Errors
    ///
    /// It has to, for so long.
    pub(super) fn take(&mut self, source: Source, now: Instant) -> Result<(), Duration> {
        match self.has_to_wait(source, now) {
            Some(wait) => Err(wait),
            None => {
                self.count(source, now);
                Ok(())
            }
        }
    }

    /// It happened again.
    pub(super) fn count(&mut self, source: Source, now: Instant) {
        if self.debts.len() >= MAX_SOURCES && !self.debts.contains_key(&source) {
            self.debts.retain(|_, debt| *debt > now);
            let first = self.debts.iter().min_by_key(|(_, debt)| **debt).map(|(source, _)| *source);
            if let Some(first) = first.filter(|_| self.debts.len() >= MAX_SOURCES) {
                self.debts.remove(&first);
            }
        }
        let debt = self.debts.entry(source).or_insert(now);
        *debt = (*debt).max(now) + self.cost;
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

    fn v4(last: u16) -> Source {
        let [high, low] = last.to_be_bytes();
        Source::of([198, 51, high, low].into())
    }

    fn v6(text: &str) -> Source {
        Source::of(text.parse().unwrap())
    }

    #[test]
    fn ten_failures_are_forgiven_the_next_has_to_wait_and_waiting_helps() {
        let (mut limiter, start) = (Limiter::of_failures(), Instant::now());
        for failure in 1..=10 {
            assert_eq!(limiter.has_to_wait(v4(1), start), None, "{failure}");
            limiter.count(v4(1), start);
        }
        let wait = limiter.has_to_wait(v4(1), start).unwrap();
        assert_eq!(wait, Duration::from_secs(6));
        assert_eq!(limiter.has_to_wait(v4(2), start), None, "others are not held back");
        assert_eq!(limiter.has_to_wait(v4(1), start + wait), None);
        limiter.count(v4(1), start + wait);
        assert!(limiter.has_to_wait(v4(1), start + wait).is_some());
        assert_eq!(limiter.has_to_wait(v4(1), start + Duration::from_secs(3600)), None);
    }

    #[test]
    fn a_thousand_requests_may_come_at_once_and_500_a_second() {
        let (mut limiter, start) = (Limiter::of_requests(), Instant::now());
        (0..1000).for_each(|_| limiter.count(v4(1), start));
        assert!(limiter.has_to_wait(v4(1), start).is_some());
        for second in 1..5 {
            let now = start + Duration::from_secs(second);
            assert_eq!(limiter.has_to_wait(v4(1), now), None);
            (0..500).for_each(|_| limiter.count(v4(1), now));
        }
    }

    #[test]
    fn one_ipv6_network_is_one_source() {
        let (mut limiter, now) = (Limiter::of_failures(), Instant::now());
        for host in 0..11 {
            limiter.count(v6(&format!("2001:db8:0:1::{host:x}")), now);
        }
        assert!(limiter.has_to_wait(v6("2001:db8:0:1:ffff::"), now).is_some());
        assert_eq!(limiter.has_to_wait(v6("2001:db8:0:2::"), now), None);
    }

    #[test]
    fn sources_are_bounded_and_the_worst_are_remembered() {
        let (mut limiter, now) = (Limiter::of_failures(), Instant::now());
        (0..20).for_each(|_| limiter.count(v4(0), now));
        for source in 1..=u16::try_from(MAX_SOURCES * 2).unwrap() {
            limiter.count(v4(source), now);
        }
        assert_eq!(limiter.debts.len(), MAX_SOURCES);
        assert!(limiter.has_to_wait(v4(0), now).is_some());
    }
}
