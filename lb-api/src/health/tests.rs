use proptest::prelude::*;

use super::*;

const INTERVAL: Duration = Duration::from_secs(2);

fn target(port: u16, rise: u8, fall: u8) -> Target {
    let backend = SocketAddr::from(([10, 0, 0, 1], port));
    Target { backend, interval: INTERVAL, timeout: Duration::from_secs(1), rise, fall }
}

fn health(checks: &Checks, target: &Target) -> Health {
    checks.targets[target].verdict.health
}

/// Runs one check of the only target.
fn check(checks: &mut Checks, now: &mut Instant, success: bool) -> Health {
    *now = checks.next_due().unwrap().max(*now);
    let target = checks.next(*now).unwrap();
    checks.ended(target, (!success).then(|| "refused".into()), *now);
    health(checks, &target)
}

fn one(rise: u8, fall: u8) -> (Checks, Instant) {
    let now = Instant::now();
    let mut checks = Checks::default();
    checks.add(target(80, rise, fall), now, Duration::ZERO);
    (checks, now)
}

#[test]
fn rise_and_fall_count_outcomes_in_a_row() {
    use Health::{Healthy, Unhealthy, Unknown};
    let (mut checks, mut now) = one(2, 3);
    let outcomes = [
        (true, Unknown),
        (false, Unknown),
        (true, Unknown),
        (true, Healthy),
        (false, Healthy),
        (false, Healthy),
        (true, Healthy),
        (false, Healthy),
        (false, Healthy),
        (false, Unhealthy),
        (true, Unhealthy),
        (false, Unhealthy),
        (true, Unhealthy),
        (true, Healthy),
    ];
    for (place, (success, health)) in outcomes.into_iter().enumerate() {
        assert_eq!(check(&mut checks, &mut now, success), health, "outcome {place}");
    }
}

#[test]
fn checks_start_an_interval_apart_and_never_overlap() {
    let (mut checks, now) = one(1, 1);
    let target = checks.next(now).unwrap();
    assert_eq!(checks.next(now + INTERVAL * 5), None, "the first one is still under way");
    checks.ended(target, None, now + Duration::from_millis(300));
    assert_eq!(checks.next_due(), Some(now + INTERVAL));
    assert_eq!(checks.next(now + INTERVAL - Duration::from_millis(1)), None);
    assert_eq!(checks.next(now + INTERVAL), Some(target));
    // One that ended late is followed at once.
    checks.ended(target, None, now + INTERVAL * 3);
    assert_eq!(checks.next_due(), Some(now + INTERVAL * 3));
}

#[test]
fn what_is_known_of_a_backend_outlives_a_change_of_its_parameters() {
    let (mut checks, mut now) = one(1, 1);
    assert_eq!(check(&mut checks, &mut now, true), Health::Healthy);
    let changed = target(80, 5, 5);
    assert_eq!(checks.add(changed, now, Duration::ZERO).health, Health::Healthy);
    checks.remove(&target(80, 1, 1));
    assert_eq!(checks.add(target(81, 1, 1), now, Duration::ZERO).health, Health::Unknown);
    assert_eq!(health(&checks, &changed), Health::Healthy);
    assert_eq!((checks.targets.len(), checks.due.len()), (2, 2));
    assert_eq!(checks.add(changed, now, Duration::ZERO).health, Health::Healthy);
    assert_eq!((checks.targets.len(), checks.due.len()), (2, 2), "it is there already");
}

#[test]
fn a_target_that_goes_and_comes_back_is_not_judged_by_an_old_check() {
    let (mut checks, now) = one(1, 1);
    let target = checks.next(now).unwrap();
    checks.remove(&target);
    checks.add(target, now, Duration::ZERO);
    assert_eq!(checks.ended(target, Some("refused".into()), now), None);
    assert_eq!(health(&checks, &target), Health::Unknown);
    assert_eq!(checks.next(now), Some(target));
}

#[test]
fn checks_under_way_are_bounded() {
    let now = Instant::now();
    let many: Vec<_> = (1..=2000).map(|port| target(port, 1, 1)).collect();
    let mut checks = Checks::default();
    many.iter().for_each(|target| drop(checks.add(*target, now, Duration::ZERO)));
    let mut running: Vec<_> = std::iter::from_fn(|| checks.next(now)).collect();
    assert_eq!(running.len(), MAX_CONCURRENT);
    assert_eq!(checks.next_due(), None);
    checks.ended(running.pop().unwrap(), None, now);
    assert!(checks.next(now).is_some());
    assert!(checks.next(now).is_none());
}

#[test]
fn first_checks_are_delayed_by_no_more_than_their_bound() {
    let now = Instant::now();
    let mut checks = Checks::default();
    checks.add(target(80, 1, 1), now, Duration::from_secs(3600));
    assert_eq!(checks.next_due(), Some(now + FIRST_CHECK_WITHIN));
}

proptest! {
    #[test]
    fn a_verdict_changes_only_after_enough_outcomes_in_a_row(
        rise in 1..5_u8,
        fall in 1..5_u8,
        outcomes in prop::collection::vec(any::<bool>(), 0..60),
    ) {
        let (mut checks, mut now) = one(rise, fall);
        let mut health = Health::Unknown;
        for end in 0..outcomes.len() {
            let after = check(&mut checks, &mut now, outcomes[end]);
            let last = |count: u8| {
                let from = (end + 1).checked_sub(count.into());
                from.is_some_and(|from| outcomes[from..=end].iter().all(|&o| o == outcomes[end]))
            };
            let enough = last(if outcomes[end] { rise } else { fall });
            let said = if outcomes[end] { Health::Healthy } else { Health::Unhealthy };
            prop_assert_eq!(after, if enough { said } else { health });
            health = after;
        }
    }
}
