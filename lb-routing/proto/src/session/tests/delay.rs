//! DelayOpenTimer and KeepaliveTimer as they are configured (RFC 4271 §8.1.1, §4.4).

use super::*;

fn patient() -> Bench {
    let delay_open = Duration::from_secs(8);
    let mut bench = Bench::with(local(), PeerConfig { delay_open, ..peer() });
    bench.start();
    bench.effects.clear();
    bench
}

#[test]
fn our_open_waits_for_theirs() {
    let mut bench = patient();
    bench.connect(CONN);
    assert_eq!(bench.said(), [""; 0]);
    assert_eq!(bench.session.state(), State::Active);
    bench.hear(CONN, &Message::Open(their_open()));
    assert_eq!(bench.said(), ["OPEN to 1", "KEEPALIVE to 1"]);
    bench.hear(CONN, &Message::Keepalive);
    assert_eq!(bench.said(), ["up 1"]);
}

#[test]
fn our_open_waits_no_longer_than_it_is_told() {
    let mut bench = patient();
    let start = bench.now;
    bench.accept(CONN);
    bench.expire();
    assert_eq!(bench.said(), ["OPEN to 1"]);
    let waited = bench.now - start;
    assert!((Duration::from_secs(6)..=Duration::from_secs(8)).contains(&waited), "{waited:?}");
    assert_eq!(bench.session.state(), State::OpenSent);
}

#[test]
fn what_comes_before_any_open_ends_the_connection() {
    let mut bench = patient();
    bench.connect(CONN);
    bench.hear(CONN, &Message::Keepalive);
    assert_eq!(bench.said(), ["close 1"]);
    // A connection that is gone is no misbehaviour: it is listened and looked for.
    let mut bench = patient();
    bench.connect(CONN);
    bench.session.closed(CONN, "reset", bench.now, &mut bench.effects);
    assert_eq!(bench.session.state(), State::Active);
    // A second connection of theirs replaces the silent one.
    let mut bench = patient();
    bench.accept(CONN);
    bench.accept(RIVAL);
    assert_eq!(bench.said(), ["close 1"]);
    bench.hear(RIVAL, &Message::Open(their_open()));
    assert_eq!(bench.said(), ["OPEN to 2", "KEEPALIVE to 2", "abort"]);
}

#[test]
fn keepalives_come_as_often_as_configured_and_never_less_often_than_the_hold_time_wants() {
    // The hold time is 90 s.
    for (keepalive, most) in [(None, 30), (Some(10), 10), (Some(60), 30)] {
        let keepalive = keepalive.map(Duration::from_secs);
        let mut bench = Bench::with(local(), PeerConfig { keepalive, ..peer() });
        bench.start();
        bench.connect(CONN);
        bench.hear(CONN, &Message::Open(their_open()));
        bench.hear(CONN, &Message::Keepalive);
        bench.effects.clear();
        let start = bench.now;
        bench.expire();
        assert_eq!(bench.said(), ["KEEPALIVE to 1"]);
        let most = Duration::from_secs(most);
        assert!((most * 3 / 4..=most).contains(&(bench.now - start)), "{keepalive:?}");
    }
}
