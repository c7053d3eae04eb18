//! The first convergence, second by second.

use lb_routing_proto::speaker::Messages;

use super::*;

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn status(state: State, prefixes_received: u64) -> PeerStatus {
    PeerStatus {
        name: "peer".into(),
        address: PEER,
        asn: 64512,
        state,
        since: Instant::now(),
        router_id: None,
        hold_time_secs: 0,
        prefixes_received,
        prefixes_rejected: 0,
        dynamic: None,
        routes_refused: 0,
        refused_not_kept: 0,
        malformed: 0,
        last_malformed: String::new(),
        capabilities: Vec::new(),
        prefixes_advertised: 0,
        messages_received: Messages::default(),
        messages_sent: Messages::default(),
        last_error: String::new(),
        stale_until: None,
    }
}

/// The second, from the start, in which it is complete.
fn complete_after(end_of_rib: bool, story: impl Fn(u64) -> PeerStatus) -> Option<u64> {
    let start = Instant::now();
    let mut convergence = Convergence::new(HashSet::from([PEER]), false, start);
    (0..120).find(|second| {
        let peer = story(*second);
        if end_of_rib && peer.state == State::Established {
            convergence.end_of_rib(PEER);
        }
        convergence.is_complete(&[peer], start + Duration::from_secs(*second))
    })
}

#[test]
fn with_end_of_rib_a_second_of_quiet_is_enough() {
    assert_eq!(complete_after(true, |second| status(State::Established, second.min(3))), Some(4));
}

#[test]
fn without_end_of_rib_five_are() {
    assert_eq!(complete_after(false, |second| status(State::Established, second.min(3))), Some(8));
}

#[test]
fn a_session_that_drops_begins_anew() {
    let story = |second| match second {
        0..3 | 5.. => status(State::Established, 7),
        3..5 => status(State::Idle, 0),
    };
    assert_eq!(complete_after(false, story), Some(10));
}

#[test]
fn an_absent_neighbour_is_waited_for_until_the_limit() {
    assert_eq!(complete_after(true, |_| status(State::Active, 0)), None);
    let convergence = Convergence::new(HashSet::from([PEER]), false, Instant::now());
    assert!(!convergence.is_past_limit(convergence.since + STALE_LIMIT - Duration::from_secs(1)));
    assert!(convergence.is_past_limit(convergence.since + STALE_LIMIT));
}

#[test]
fn without_neighbours_there_is_nothing_to_wait_for() {
    let mut convergence = Convergence::new(HashSet::new(), false, Instant::now());
    assert!(convergence.is_complete(&[], Instant::now()));
}

#[test]
fn who_may_come_by_itself_is_waited_for_until_the_limit() {
    let start = Instant::now();
    let mut convergence = Convergence::new(HashSet::new(), true, start);
    assert!(!convergence.is_complete(&[], start + STALE_LIMIT));
}
