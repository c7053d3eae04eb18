//! Carries the checks out: TCP connects, at most [`MAX_CONCURRENT`] at once.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time;

use super::{Checks, FIRST_CHECK_WITHIN, MAX_CONCURRENT, Target, Verdicts};

/// Within this what the checks found is told: one change at once with those that come with it.
const PUBLISH_WITHIN: Duration = Duration::from_millis(10);

/// A connect that is given up at once would say nothing, and one that hangs is bounded by its timeout.
type Outcome = (Target, Option<String>);

/// Checks the targets that the channel says, until its sender is gone; what is found stands in the answer.
pub fn spawn(targets: watch::Receiver<Arc<BTreeSet<Target>>>) -> watch::Receiver<Arc<Verdicts>> {
    let (found, verdicts) = watch::channel(Arc::default());
    tokio::spawn(run(targets, found));
    verdicts
}

async fn run(
    mut targets: watch::Receiver<Arc<BTreeSet<Target>>>,
    found: watch::Sender<Arc<Verdicts>>,
) {
    let (ended, mut outcomes) = mpsc::channel::<Outcome>(MAX_CONCURRENT);
    let mut checks = Checks::default();
    let mut delays = (0_u64..).map(|n| random_below(FIRST_CHECK_WITHIN, n));
    let mut delay = || delays.next().unwrap_or_default();
    let wanted = targets.borrow_and_update().clone();
    checks.set_targets(&wanted, Instant::now(), &mut delay);
    found.send_replace(Arc::new(checks.verdicts()));
    let mut publish_at = None;
    loop {
        while let Some(target) = checks.next(Instant::now()) {
            let ended = ended.clone();
            tokio::spawn(async move {
                let error = connect(&target).await;
                // The receiver is gone only when the daemon ends.
                let _gone = ended.send((target, error)).await;
            });
        }
        let due = checks.next_due();
        tokio::select! {
            changed = targets.changed() => {
                if changed.is_err() {
                    return;
                }
                let wanted = targets.borrow_and_update().clone();
                checks.set_targets(&wanted, Instant::now(), &mut delay);
                found.send_replace(Arc::new(checks.verdicts()));
            }
            Some((target, error)) = outcomes.recv() => {
                let mut changed = checks.ended(target, error, Instant::now());
                // With a thousand backends many end together, and each publication is a copy of all.
                while let Ok((target, error)) = outcomes.try_recv() {
                    changed |= checks.ended(target, error, Instant::now());
                }
                publish_at = publish_at.or_else(|| changed.then(|| Instant::now() + PUBLISH_WITHIN));
            }
            () = sleep_until(publish_at) => {
                publish_at = None;
                found.send_replace(Arc::new(checks.verdicts()));
            }
            () = sleep_until(due) => {}
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Connects and closes again; the error in words.
async fn connect(target: &Target) -> Option<String> {
    match time::timeout(target.timeout, TcpStream::connect(target.backend)).await {
        Ok(Ok(_connected)) => None,
        Ok(Err(error)) => Some(format!("connect to {}: {error}", target.backend)),
        Err(_elapsed) => {
            let timeout = target.timeout.as_millis();
            Some(format!("connect to {}: no answer within {timeout} ms", target.backend))
        }
    }
}

/// The hasher's keys are random per process, which is all the randomness that this needs.
fn random_below(bound: Duration, n: u64) -> Duration {
    let share = RandomState::new().hash_one(n) % 1024;
    bound.mul_f64(share as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use lb_api_types::vip::Health;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_listening_backend_becomes_healthy_and_a_closed_one_unhealthy() {
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = |listener: &TcpListener| Target {
            backend: listener.local_addr().unwrap(),
            interval: Duration::from_millis(100),
            timeout: Duration::from_millis(100),
            rise: 1,
            fall: 2,
        };
        let (up, down) = (target(&open), target(&closed));
        drop(closed);
        let (_wanted, targets) = watch::channel(Arc::new(BTreeSet::from([up, down])));
        let mut verdicts = spawn(targets);
        let spoken = verdicts.wait_for(|verdicts| {
            verdicts.len() == 2 && verdicts.values().all(|v| v.health != Health::Unknown)
        });
        let spoken = time::timeout(Duration::from_secs(10), spoken).await.unwrap().unwrap().clone();
        assert_eq!(spoken[&up].health, Health::Healthy);
        assert_eq!(spoken[&down].health, Health::Unhealthy);
        assert!(spoken[&down].message.contains("refused"), "{:?}", spoken[&down]);
    }
}
