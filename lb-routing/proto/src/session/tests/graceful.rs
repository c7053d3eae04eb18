//! How a session ends, and what stays (RFC 4724, RFC 8538).

use super::*;
use crate::wire::{Capability, GracefulRestart};

const V4: Family = Family::IPV4_UNICAST;

fn restart(notifications: bool) -> GracefulRestart {
    let families = vec![(V4, true), (Family { afi: 25, safi: 65 }, true)];
    GracefulRestart { restarted: false, notifications, time_secs: 30, families }
}

/// An Established session with a neighbour that says this of its restarts.
fn established(peer: PeerConfig, theirs: Option<GracefulRestart>) -> Bench {
    let mut bench = Bench::with(local(), peer);
    bench.start();
    bench.connect(CONN);
    let mut open = their_open();
    open.capabilities.extend(theirs.map(Capability::GracefulRestart));
    bench.hear(CONN, &Message::Open(open));
    bench.hear(CONN, &Message::Keepalive);
    assert_eq!(bench.session.state(), State::Established);
    bench.effects.clear();
    bench
}

fn cease(code: (u8, u8)) -> Notification {
    Notification::new(code)
}

/// What OPEN says of our restarts on the next connection.
fn said(bench: &mut Bench) -> GracefulRestart {
    bench.effects.clear();
    bench.accept(RIVAL);
    let open = bench.effects.iter().find_map(|effect| {
        let Effect::Output(Output::Send { bytes, .. }) = effect else { return None };
        Some(bytes.clone())
    });
    let context = wire::Context { four_octet_as: true, external: true };
    let Ok(Message::Open(open)) = wire::decode(&open.unwrap(), context) else { panic!("no OPEN") };
    let said = open.capabilities.into_iter().find_map(|capability| {
        let Capability::GracefulRestart(said) = capability else { return None };
        Some(said)
    });
    said.expect("restarts are spoken of")
}

#[test]
fn routes_stay_where_an_accident_ends_the_session_and_go_where_somebody_meant_it() {
    type Ending = fn(&mut Bench);
    // How it ends; what stays where both know RFC 8538, and where the neighbour knows RFC 4724 only.
    let endings: [(&str, Ending, bool, bool); 8] = [
        ("closed", |b| b.session.closed(CONN, "reset", b.now, &mut b.effects), true, true),
        (
            "hold timer",
            |b| {
                b.now += Duration::from_secs(3600);
                b.session.tick(b.now, &mut b.effects);
            },
            true,
            false,
        ),
        (
            "its error",
            |b| b.hear(CONN, &Message::Notification(cease(error::FINITE_STATE_MACHINE_ERROR))),
            true,
            false,
        ),
        (
            "its shutdown",
            |b| b.hear(CONN, &Message::Notification(cease(error::ADMINISTRATIVE_SHUTDOWN))),
            true,
            false,
        ),
        (
            "its hard reset",
            |b| {
                let hard = cease(error::ADMINISTRATIVE_SHUTDOWN).hardened();
                b.hear(CONN, &Message::Notification(hard));
            },
            false,
            false,
        ),
        (
            "our reset",
            |b| b.session.end(cease(error::ADMINISTRATIVE_RESET), b.now, &mut b.effects),
            false,
            false,
        ),
        ("another key", |b| b.session.reconnect(b.now, &mut b.effects), true, false),
        (
            "our shutdown",
            |b| b.session.stop(cease(error::ADMINISTRATIVE_SHUTDOWN), b.now, &mut b.effects),
            false,
            false,
        ),
    ];
    for (name, end, both, old) in endings {
        for (notifications, stays) in [(true, both), (false, old)] {
            let mut bench = established(peer(), Some(restart(notifications)));
            end(&mut bench);
            let down = if stays { "down, kept 30 s" } else { "down" };
            let said = bench.said();
            assert!(said.iter().any(|word| word == down), "{name}, {notifications}: {said:?}");
        }
    }
}

#[test]
fn without_the_capability_on_either_side_nothing_stays() {
    let off = PeerConfig { restart_time: None, ..peer() };
    let foreign =
        GracefulRestart { families: vec![(Family { afi: 25, safi: 65 }, true)], ..restart(true) };
    for (peer, theirs) in [(peer(), None), (off, Some(restart(true))), (peer(), Some(foreign))] {
        let mut bench = established(peer, theirs);
        bench.session.closed(CONN, "reset", bench.now, &mut bench.effects);
        assert_eq!(bench.said()[0], "down");
    }
}

#[test]
fn who_keeps_routes_is_told_of_an_end_for_good_by_a_hard_reset() {
    for (theirs, word) in [
        (Some(restart(true)), "NOTIFICATION 6/9 [6, 4] to 1"),
        (Some(restart(false)), "NOTIFICATION 6/4 [] to 1"),
        (None, "NOTIFICATION 6/4 [] to 1"),
    ] {
        let mut bench = established(peer(), theirs);
        bench.session.end(cease(error::ADMINISTRATIVE_RESET), bench.now, &mut bench.effects);
        assert_eq!(bench.said(), [word, "close 1", "down"]);
    }
    // What is no end for good stays what it is.
    let mut bench = established(peer(), Some(restart(true)));
    bench.session.reconnect(bench.now, &mut bench.effects);
    assert_eq!(bench.said(), ["NOTIFICATION 6/6 [] to 1", "close 1", "down, kept 30 s"]);
}

#[test]
fn a_neighbour_that_connects_anew_has_restarted() {
    let mut bench = established(peer(), Some(restart(false)));
    // So early, it is a collision.
    bench.now += COLLISION_WAIT / 2;
    bench.accept(RIVAL);
    assert_eq!(bench.said(), ["NOTIFICATION 6/7 [] to 2", "close 2"]);
    bench.now += COLLISION_WAIT;
    bench.accept(RIVAL);
    assert_eq!(bench.said(), ["close 1", "down, kept 30 s", "OPEN to 2"]);
    assert_eq!(bench.session.state(), State::OpenSent);
    // One that never spoke of restarts has not.
    let mut bench = established(peer(), None);
    bench.now += COLLISION_WAIT * 2;
    bench.accept(RIVAL);
    assert_eq!(bench.said(), ["NOTIFICATION 6/7 [] to 2", "close 2"]);
}

#[test]
fn we_promise_restarts_only_for_families_that_are_spoken() {
    // Nothing is known: the transport's.
    let mut fresh = Bench::new();
    fresh.start();
    assert_eq!(said(&mut fresh).families, [(V4, false)]);
    // A session spoke both; what we forwarded by is still there.
    let mut bench = established(peer(), Some(restart(true)));
    bench.session.closed(CONN, "reset", bench.now, &mut bench.effects);
    bench.expire();
    assert_eq!(said(&mut bench).families, [(V4, true), (Family::IPV6_UNICAST, true)]);
    // The configuration names them.
    let six = vec![Family::IPV6_UNICAST];
    let mut named = Bench::with(local(), PeerConfig { families: Some(six), ..peer() });
    named.session.remember(Past { restarted: true, preserved: true });
    named.start();
    let said = said(&mut named);
    assert_eq!(said.families, [(Family::IPV6_UNICAST, true)]);
    assert!(said.restarted && said.notifications && said.time_secs == 120);
}

#[test]
fn families_that_the_configuration_leaves_out_are_not_spoken() {
    let peer = PeerConfig { families: Some(vec![V4]), ..peer() };
    let open = open::ours(&local(), &peer, Past::default(), None);
    let offered = open.capabilities.iter().filter(|it| matches!(it, Capability::Multiprotocol(_)));
    assert_eq!(offered.collect::<Vec<_>>(), [&Capability::Multiprotocol(V4)]);
    assert_eq!(open::negotiate(&local(), &peer, &their_open()).unwrap().families, [V4]);
}
