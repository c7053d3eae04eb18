//! Carries the checks out: TCP connects, at most [`MAX_CONCURRENT`] at once.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time;

use super::{Checks, FIRST_CHECK_WITHIN, MAX_CONCURRENT, Target, Verdict};
use crate::delta;

/// Within this what the checks found is told: one change at once with those that come with it.
const PUBLISH_WITHIN: Duration = Duration::from_millis(10);

/// A connect that is given up at once would say nothing, and one that hangs is bounded by its timeout.
type Outcome = (Target, Option<String>);

/// Checks the targets that the channel says, until its sender is gone; what is found is told by the answer.
pub fn spawn(targets: delta::Receiver<Target, bool>) -> delta::Receiver<Target, Option<Verdict>> {
    let (found, verdicts) = delta::channel();
    tokio::spawn(run(targets, found));
    verdicts
}

async fn run(
    mut targets: delta::Receiver<Target, bool>,
    found: delta::Sender<Target, Option<Verdict>>,
) {
    let (ended, mut outcomes) = mpsc::channel::<Outcome>(MAX_CONCURRENT);
    let mut checks = Checks::default();
    let mut delays = (0_u64..).map(|n| random_below(FIRST_CHECK_WITHIN, n));
    let mut news: BTreeMap<Target, Option<Verdict>> = BTreeMap::new();
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
                let (gone, new): (Vec<_>, Vec<_>) =
                    targets.take().into_iter().partition(|(_, is_wanted)| !is_wanted);
                let now = Instant::now();
                // What is known of a backend outlives a change of its parameters.
                for (target, _) in new {
                    let delay = delays.next().unwrap_or_default();
                    news.insert(target, Some(checks.add(target, now, delay)));
                }
                for (target, _) in gone {
                    checks.remove(&target);
                    news.insert(target, None);
                }
                found.tell(std::mem::take(&mut news));
            }
            Some(outcome) = outcomes.recv() => {
                // With a thousand backends many end together.
                let mut outcome = Some(outcome);
                while let Some((target, error)) = outcome {
                    let verdict = checks.ended(target, error, Instant::now());
                    news.extend(verdict.map(|verdict| (target, Some(verdict))));
                    outcome = outcomes.try_recv().ok();
                }
                let within = (!news.is_empty()).then(|| Instant::now() + PUBLISH_WITHIN);
                publish_at = publish_at.or(within);
            }
            () = sleep_until(publish_at) => {
                publish_at = None;
                found.tell(std::mem::take(&mut news));
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
        let (wanted, targets) = delta::channel();
        wanted.tell([(up, true), (down, true)]);
        let mut found = spawn(targets);
        let mut spoken = BTreeMap::new();
        let all = async {
            while spoken.len() < 2 {
                found.changed().await.unwrap();
                let judged = found.take().into_iter().filter_map(|(t, v)| Some((t, v?)));
                spoken.extend(judged.filter(|(_, verdict)| verdict.health != Health::Unknown));
            }
        };
        time::timeout(Duration::from_secs(10), all).await.unwrap();
        assert_eq!(spoken[&up].health, Health::Healthy);
        assert_eq!(spoken[&down].health, Health::Unhealthy);
        assert!(spoken[&down].message.contains("refused"), "{:?}", spoken[&down]);
        wanted.tell([(down, false)]);
        let gone = async {
            while found.take().get(&down) != Some(&None) {
                found.changed().await.unwrap();
            }
        };
        time::timeout(Duration::from_secs(10), gone).await.unwrap();
    }
}
