//! Timers: hold, keepalive, connect retry, idle hold.

use super::*;

fn seconds(bench: &Bench, since: Instant) -> f64 {
    (bench.session.next_timeout().expect("a timer runs") - since).as_secs_f64()
}

#[test]
fn a_silent_neighbour_is_given_up_after_the_smaller_hold_time() {
    let mut bench = Bench::in_state(State::OpenSent);
    let open = wire::Open { hold_time_secs: 30, ..their_open() };
    bench.hear(CONN, &Message::Open(open));
    bench.hear(CONN, &Message::Keepalive);
    let start = bench.now;
    bench.said();
    let mut keepalives = 0;
    while bench.session.state() == State::Established {
        bench.expire();
        keepalives += bench.said().iter().filter(|said| *said == "KEEPALIVE to 1").count();
    }
    assert_eq!(bench.now - start, Duration::from_secs(30));
    assert_eq!(bench.session.last_error(), "sent Hold Timer Expired");
    // A third of it, less a quarter by jitter: 7.5 s to 10 s.
    assert!((2..=3).contains(&keepalives), "{keepalives}");
}

#[test]
fn keepalives_from_the_neighbour_keep_the_session_up() {
    let mut bench = Bench::in_state(State::Established);
    let end = bench.now + Duration::from_secs(1000);
    while bench.now < end {
        bench.expire();
        bench.hear(CONN, &Message::Keepalive);
        assert_eq!(bench.session.state(), State::Established);
    }
}

#[test]
fn a_hold_time_of_zero_runs_no_timers() {
    let mut bench = Bench::in_state(State::OpenSent);
    let open = wire::Open { hold_time_secs: 0, ..their_open() };
    bench.hear(CONN, &Message::Open(open));
    bench.hear(CONN, &Message::Keepalive);
    assert_eq!(bench.session.state(), State::Established);
    assert_eq!(bench.session.next_timeout(), None);
}

#[test]
fn an_open_is_awaited_for_four_minutes() {
    let bench = Bench::in_state(State::OpenSent);
    assert!((seconds(&bench, bench.now) - 240.0).abs() < f64::EPSILON);
}

#[test]
fn connects_are_retried_at_the_configured_pace_with_jitter() {
    let mut bench = Bench::new();
    bench.start();
    for _ in 0..5 {
        let started = bench.now;
        bench.session.connect_failed("refused", started, &mut bench.effects);
        assert!((90.0..=120.0).contains(&seconds(&bench, started)));
        bench.said();
        bench.expire();
        assert_eq!(bench.said(), ["connect"]);
    }
}

#[test]
fn a_flapping_neighbour_is_met_with_longer_and_longer_rests_up_to_a_bound() {
    let mut bench = Bench::in_state(State::Established);
    let mut conn = CONN;
    let mut rests = Vec::new();
    for _ in 0..10 {
        bench.session.closed(conn, "reset", bench.now, &mut bench.effects);
        assert_eq!(bench.session.state(), State::Idle);
        rests.push(seconds(&bench, bench.now));
        bench.expire();
        conn = ConnId(conn.0 + 1);
        bench.connect(conn);
        bench.hear(conn, &Message::Open(their_open()));
        bench.hear(conn, &Message::Keepalive);
        assert_eq!(bench.session.state(), State::Established);
    }
    assert!(rests[0] <= 1.0 && rests[3] >= 6.0, "{rests:?}");
    assert!(rests.iter().all(|&rest| rest <= 120.0), "{rests:?}");
    assert!(rests[9] >= 90.0, "{rests:?}");
}

#[test]
fn a_passive_session_never_connects() {
    let mut bench = Bench::with(local(), PeerConfig { passive: true, ..peer() });
    bench.start();
    assert_eq!(bench.session.state(), State::Active);
    assert_eq!(bench.session.next_timeout(), None);
    bench.accept(CONN);
    bench.hear(CONN, &Message::Open(their_open()));
    bench.hear(CONN, &Message::Keepalive);
    assert_eq!(bench.session.state(), State::Established);
    bench.session.closed(CONN, "reset", bench.now, &mut bench.effects);
    bench.expire();
    assert_eq!(bench.session.state(), State::Active);
    assert!(!bench.said().contains(&"connect".to_owned()));
}
