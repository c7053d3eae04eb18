//! Health checks: when each backend is checked, and what the outcomes say of it.
//!
//! [`Checks`] is a pure state machine; [`prober`] connects for it. A backend is checked once per set of parameters, so
//! VIPs that ask for the same share a check, and those that ask for different ones each have their own.

pub mod prober;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lb_api_types::vip::{Backend, Health, HealthCheck, HealthCheckKind};

/// Checks under way at most; those that are due beyond wait for one to end.
pub const MAX_CONCURRENT: usize = 512;
/// The first check of a backend begins within this, at a random moment, so that a thousand do not begin at once.
pub const FIRST_CHECK_WITHIN: Duration = Duration::from_millis(1000);

/// What is checked, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Where a connect goes.
    pub backend: SocketAddr,
    /// Between the starts of two checks.
    pub interval: Duration,
    /// How long a connect may take.
    pub timeout: Duration,
    /// Successes in a row that make it healthy.
    pub rise: u8,
    /// Failures in a row that make it unhealthy.
    pub fall: u8,
}

impl Target {
    /// What a VIP's health check asks for of a backend; `None` where it asks for nothing.
    pub fn of(backend: &Backend, check: &HealthCheck) -> Option<Self> {
        match check.kind {
            HealthCheckKind::None => None,
            HealthCheckKind::Tcp => Some(Self {
                backend: SocketAddr::new(backend.address, check.port.unwrap_or(backend.port)),
                interval: Duration::from_millis(check.interval_ms.into()),
                timeout: Duration::from_millis(check.timeout_ms.into()),
                rise: check.rise,
                fall: check.fall,
            }),
        }
    }
}

/// What the checks found of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Its health.
    pub health: Health,
    /// The last check's error; empty after a success.
    pub message: String,
}

impl Verdict {
    fn unknown() -> Self {
        Self { health: Health::Unknown, message: String::new() }
    }
}

/// What the checks found, by target.
pub type Verdicts = BTreeMap<Target, Verdict>;

/// The checks of all backends.
#[derive(Debug, Default)]
pub struct Checks {
    targets: BTreeMap<Target, Progress>,
    /// Invariant: holds exactly the targets that are not under way.
    due: BTreeSet<(Instant, Target)>,
    /// Checks under way, those of targets that are gone included.
    running: usize,
}

#[derive(Debug)]
struct Progress {
    verdict: Verdict,
    /// Outcomes in a row that speak against the verdict.
    streak: u8,
    /// Whether the streak is of successes; matters while the verdict is unknown.
    streak_of: bool,
    /// When the check that is under way began.
    started: Option<Instant>,
    /// When the next one is due, if none is under way.
    due: Instant,
}

impl Checks {
    /// Checks a target, too. What is known of a backend is kept also where only its parameters changed; a new one's first
    /// check begins after `delay`. Returns what is known of it.
    pub fn add(&mut self, target: Target, now: Instant, delay: Duration) -> Verdict {
        if let Some(progress) = self.targets.get(&target) {
            return progress.verdict.clone();
        }
        let verdict = self.verdict_of(target.backend).unwrap_or_else(Verdict::unknown);
        let due = now + delay.min(FIRST_CHECK_WITHIN);
        let known = verdict.clone();
        let progress = Progress { verdict, streak: 0, streak_of: false, started: None, due };
        self.targets.insert(target, progress);
        self.due.insert((due, target));
        known
    }

    /// Checks a target no longer.
    pub fn remove(&mut self, target: &Target) {
        if let Some(progress) = self.targets.remove(target)
            && progress.started.is_none()
        {
            self.due.remove(&(progress.due, *target));
        }
    }

    fn verdict_of(&self, backend: SocketAddr) -> Option<Verdict> {
        let least =
            Target { backend, interval: Duration::ZERO, timeout: Duration::ZERO, rise: 0, fall: 0 };
        let (target, progress) = self.targets.range(least..).next()?;
        (target.backend == backend).then(|| progress.verdict.clone())
    }

    /// A target whose check begins now, if one is due and there is room.
    pub fn next(&mut self, now: Instant) -> Option<Target> {
        if self.running >= MAX_CONCURRENT {
            return None;
        }
        let (due, target) = *self.due.first()?;
        if due > now {
            return None;
        }
        self.due.pop_first();
        self.running += 1;
        if let Some(progress) = self.targets.get_mut(&target) {
            progress.started = Some(now);
        }
        Some(target)
    }

    /// When `next` may have something; `None` while all room is taken or nothing is to be checked.
    pub fn next_due(&self) -> Option<Instant> {
        if self.running >= MAX_CONCURRENT {
            return None;
        }
        self.due.first().map(|(due, _)| *due)
    }

    /// A check ended: without an error the backend answered. The verdict, where it is another one.
    pub fn ended(
        &mut self,
        target: Target,
        error: Option<String>,
        now: Instant,
    ) -> Option<Verdict> {
        self.running = self.running.saturating_sub(1);
        // The target may have gone, or gone and come back, while its check was under way.
        let progress = self.targets.get_mut(&target)?;
        let started = progress.started.take()?;
        progress.due = (started + target.interval).max(now);
        self.due.insert((progress.due, target));
        progress.judge(&target, error).then(|| progress.verdict.clone())
    }
}

impl Progress {
    fn judge(&mut self, target: &Target, error: Option<String>) -> bool {
        let before = self.verdict.clone();
        let success = error.is_none();
        let message = error.unwrap_or_default();
        let agrees = match self.verdict.health {
            Health::Healthy => success,
            Health::Unhealthy => !success,
            Health::Unknown => false,
        };
        if agrees {
            self.streak = 0;
        } else {
            self.streak = if self.streak_of == success { self.streak.saturating_add(1) } else { 1 };
            self.streak_of = success;
            let enough = if success { target.rise } else { target.fall };
            if self.streak >= enough {
                self.verdict.health = if success { Health::Healthy } else { Health::Unhealthy };
                self.streak = 0;
            }
        }
        self.verdict.message = message;
        self.verdict != before
    }
}

#[cfg(test)]
mod tests;
