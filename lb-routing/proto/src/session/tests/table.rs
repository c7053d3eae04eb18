//! State x event -> what is said, next state (RFC 4271 §8.2.2).

use State::{Active, Connect, Established, Idle, OpenConfirm, OpenSent};

use super::*;

#[derive(Clone, Copy, Debug)]
enum When {
    Stop,
    Connected,
    ConnectFailed,
    Accepted,
    Closed,
    Timer,
    Open,
    OpenWithBadAs,
    OpenWithBadId,
    OpenWithBadHoldTime,
    OpenWithBadVersion,
    Keepalive,
    Update,
    Refresh,
    Cease,
    CollisionCease,
    BadMarker,
    Short,
    UnknownType,
}

fn happen(bench: &mut Bench, event: When) {
    let now = bench.now;
    let open = |change: fn(&mut wire::Open)| {
        let mut open = their_open();
        change(&mut open);
        bytes(&Message::Open(open))
    };
    let mut keepalive = bytes(&Message::Keepalive);
    let heard = match event {
        When::Stop => {
            let cease = Notification::new(error::ADMINISTRATIVE_SHUTDOWN);
            return bench.session.stop(cease, now, &mut bench.effects);
        }
        When::Connected => return bench.connect(RIVAL),
        When::ConnectFailed => {
            return bench.session.connect_failed("refused", now, &mut bench.effects);
        }
        When::Accepted => return bench.accept(RIVAL),
        When::Closed => return bench.session.closed(CONN, "reset", now, &mut bench.effects),
        When::Timer => return bench.expire(),
        When::Open => open(|_| {}),
        When::OpenWithBadAs => open(|open| {
            open.asn = 65003;
            open.capabilities.pop();
        }),
        When::OpenWithBadId => open(|open| open.router_id = Ipv4Addr::UNSPECIFIED),
        When::OpenWithBadHoldTime => open(|open| open.hold_time_secs = 2),
        When::OpenWithBadVersion => {
            let mut bytes = open(|_| {});
            bytes[19] = 3;
            bytes
        }
        When::Keepalive => keepalive,
        When::Update => wire::encode_end_of_rib(Family::IPV4_UNICAST),
        When::Refresh => bytes(&Message::RouteRefresh(Family::IPV4_UNICAST)),
        When::Cease => {
            bytes(&Message::Notification(Notification::new(error::ADMINISTRATIVE_SHUTDOWN)))
        }
        When::CollisionCease => {
            let code = error::CONNECTION_COLLISION_RESOLUTION;
            bytes(&Message::Notification(Notification::new(code)))
        }
        When::BadMarker => {
            keepalive[3] = 0;
            keepalive
        }
        When::Short => {
            keepalive[17] = 18;
            keepalive
        }
        When::UnknownType => {
            keepalive[18] = 9;
            keepalive
        }
    };
    bench.hear_bytes(CONN, &heard);
}

type Row = (State, When, &'static [&'static str], State);

const COLLISION: &str = "NOTIFICATION 6/7 [] to 2";

const WITHOUT_A_CONNECTION: &[Row] = &[
    (Idle, When::Stop, &[], Idle),
    (Idle, When::Connected, &["close 2"], Idle),
    (Idle, When::ConnectFailed, &[], Idle),
    (Idle, When::Accepted, &["close 2"], Idle),
    (Connect, When::Stop, &["abort"], Idle),
    (Connect, When::Connected, &["OPEN to 2"], OpenSent),
    (Connect, When::ConnectFailed, &[], Active),
    (Connect, When::Accepted, &["OPEN to 2"], OpenSent),
    (Connect, When::Timer, &["abort", "connect"], Connect),
    (Active, When::Stop, &[], Idle),
    (Active, When::Connected, &["close 2"], Active),
    (Active, When::ConnectFailed, &[], Active),
    (Active, When::Accepted, &["OPEN to 2"], OpenSent),
    (Active, When::Timer, &["connect"], Connect),
];

const OPEN_SENT: &[Row] = &[
    (OpenSent, When::Stop, &["NOTIFICATION 6/2 [] to 1", "close 1"], Idle),
    (OpenSent, When::Accepted, &["OPEN to 2"], OpenSent),
    (OpenSent, When::Closed, &[], Active),
    (OpenSent, When::Timer, &["NOTIFICATION 4/0 [] to 1", "close 1"], Idle),
    (OpenSent, When::Open, &["KEEPALIVE to 1"], OpenConfirm),
    (OpenSent, When::OpenWithBadAs, &["NOTIFICATION 2/2 [0, 0, 253, 235] to 1", "close 1"], Idle),
    (OpenSent, When::OpenWithBadId, &["NOTIFICATION 2/3 [0, 0, 0, 0] to 1", "close 1"], Idle),
    (OpenSent, When::OpenWithBadHoldTime, &["NOTIFICATION 2/6 [0, 2] to 1", "close 1"], Idle),
    (OpenSent, When::OpenWithBadVersion, &["NOTIFICATION 2/1 [0, 4] to 1", "close 1"], Idle),
    (OpenSent, When::Keepalive, &["NOTIFICATION 5/1 [4] to 1", "close 1"], Idle),
    (OpenSent, When::Update, &["NOTIFICATION 5/1 [2] to 1", "close 1"], Idle),
    (OpenSent, When::Refresh, &["NOTIFICATION 5/1 [5] to 1", "close 1"], Idle),
    (OpenSent, When::Cease, &["close 1"], Idle),
    (OpenSent, When::CollisionCease, &["close 1"], Active),
    (OpenSent, When::BadMarker, &["NOTIFICATION 1/1 [] to 1", "close 1"], Idle),
    (OpenSent, When::Short, &["NOTIFICATION 1/2 [0, 18] to 1", "close 1"], Idle),
    (OpenSent, When::UnknownType, &["NOTIFICATION 1/3 [9] to 1", "close 1"], Idle),
];

const OPEN_CONFIRM: &[Row] = &[
    (OpenConfirm, When::Stop, &["NOTIFICATION 6/2 [] to 1", "close 1"], Idle),
    (OpenConfirm, When::Accepted, &["OPEN to 2"], OpenConfirm),
    (OpenConfirm, When::Closed, &[], Idle),
    (OpenConfirm, When::Timer, &["KEEPALIVE to 1"], OpenConfirm),
    (OpenConfirm, When::Open, &["NOTIFICATION 5/2 [1] to 1", "close 1"], Idle),
    (OpenConfirm, When::Keepalive, &["up 1"], Established),
    (OpenConfirm, When::Update, &["NOTIFICATION 5/2 [2] to 1", "close 1"], Idle),
    (OpenConfirm, When::Refresh, &["NOTIFICATION 5/2 [5] to 1", "close 1"], Idle),
    (OpenConfirm, When::Cease, &["close 1"], Idle),
    (OpenConfirm, When::CollisionCease, &["close 1"], Active),
    (OpenConfirm, When::BadMarker, &["NOTIFICATION 1/1 [] to 1", "close 1"], Idle),
    (OpenConfirm, When::Short, &["NOTIFICATION 1/2 [0, 18] to 1", "close 1"], Idle),
    (OpenConfirm, When::UnknownType, &["NOTIFICATION 1/3 [9] to 1", "close 1"], Idle),
];

const ESTABLISHED: &[Row] = &[
    (Established, When::Stop, &["NOTIFICATION 6/2 [] to 1", "close 1", "down"], Idle),
    (Established, When::Accepted, &[COLLISION, "close 2"], Established),
    (Established, When::Closed, &["down"], Idle),
    (Established, When::Timer, &["KEEPALIVE to 1"], Established),
    (Established, When::Open, &["NOTIFICATION 5/3 [1] to 1", "close 1", "down"], Idle),
    (Established, When::Keepalive, &[], Established),
    (Established, When::Update, &["routes"], Established),
    (Established, When::Refresh, &["refresh"], Established),
    (Established, When::Cease, &["close 1", "down"], Idle),
    (Established, When::CollisionCease, &["close 1", "down"], Idle),
    (Established, When::BadMarker, &["NOTIFICATION 1/1 [] to 1", "close 1", "down"], Idle),
    (Established, When::Short, &["NOTIFICATION 1/2 [0, 18] to 1", "close 1", "down"], Idle),
    (Established, When::UnknownType, &["NOTIFICATION 1/3 [9] to 1", "close 1", "down"], Idle),
];

#[test]
fn every_event_has_its_answer_in_every_state() {
    for rows in [WITHOUT_A_CONNECTION, OPEN_SENT, OPEN_CONFIRM, ESTABLISHED] {
        for &(state, event, said, next) in rows {
            let mut bench = Bench::in_state(state);
            happen(&mut bench, event);
            let case = format!("{event:?} in {state:?}");
            assert_eq!(bench.said(), said, "{case}");
            assert_eq!(bench.session.state(), next, "{case}");
        }
    }
}

#[test]
fn a_session_that_failed_comes_back_by_itself() {
    let errors = [When::BadMarker, When::Short, When::UnknownType, When::Open, When::Cease];
    for error in errors {
        let mut bench = Bench::in_state(Established);
        happen(&mut bench, error);
        assert_eq!(bench.session.state(), Idle);
        assert!(!bench.session.last_error().is_empty());
        bench.said();
        bench.expire();
        assert_eq!(bench.said(), ["connect"], "{error:?}");
        bench.connect(RIVAL);
        bench.hear(RIVAL, &Message::Open(their_open()));
        bench.hear(RIVAL, &Message::Keepalive);
        assert_eq!(bench.session.state(), Established, "{error:?}");
    }
}

#[test]
fn a_stopped_session_stays_stopped() {
    let mut bench = Bench::in_state(Established);
    happen(&mut bench, When::Stop);
    assert_eq!(bench.session.next_timeout(), None);
    bench.said();
    bench.accept(RIVAL);
    assert_eq!(bench.said(), ["close 2"]);
}

#[test]
fn bytes_of_a_connection_that_is_gone_are_ignored() {
    let mut bench = Bench::in_state(Established);
    let mut bad_then_good = bytes(&Message::Keepalive);
    bad_then_good[0] = 0;
    bad_then_good.extend(wire::encode_end_of_rib(Family::IPV4_UNICAST));
    bench.hear_bytes(CONN, &bad_then_good);
    assert_eq!(bench.said(), ["NOTIFICATION 1/1 [] to 1", "close 1", "down"]);
    bench.hear(CONN, &Message::Keepalive);
    assert_eq!(bench.said(), Vec::<String>::new());
}

#[test]
fn an_internal_neighbour_with_our_identifier_is_refused_and_an_external_one_is_not() {
    for (asn, expected) in [(OUR_AS, Idle), (THEIR_AS, OpenConfirm)] {
        let mut bench = Bench::with(local(), PeerConfig { asn, ..peer() });
        bench.start();
        bench.connect(CONN);
        let twin = SpeakerConfig { max_paths: 1, ..SpeakerConfig::new(asn, OURS) };
        bench.hear(CONN, &Message::Open(open::ours(&twin, &peer(), Past::default(), None)));
        assert_eq!(bench.session.state(), expected, "AS {asn}");
        if expected == Idle {
            assert!(bench.said().contains(&format!("NOTIFICATION 2/3 {:?} to 1", OURS.octets())));
        }
    }
}

#[test]
fn bytes_may_arrive_one_at_a_time() {
    let mut bench = Bench::in_state(OpenSent);
    let mut stream = bytes(&Message::Open(their_open()));
    stream.extend(bytes(&Message::Keepalive));
    for byte in stream {
        bench.hear_bytes(CONN, &[byte]);
    }
    assert_eq!(bench.said(), ["KEEPALIVE to 1", "up 1"]);
}

#[test]
fn our_open_offers_what_we_do_and_nothing_else() {
    let open = open::ours(&local(), &peer(), Past::default(), None);
    assert_eq!(
        open.capabilities,
        [
            wire::Capability::Multiprotocol(Family::IPV4_UNICAST),
            wire::Capability::Multiprotocol(Family::IPV6_UNICAST),
            wire::Capability::RouteRefresh,
            wire::Capability::ExtendedNextHop(vec![(Family::IPV4_UNICAST, 2)]),
            wire::Capability::ExtendedMessage,
            wire::Capability::EnhancedRouteRefresh,
            wire::Capability::FourOctetAs(OUR_AS),
            wire::Capability::GracefulRestart(wire::GracefulRestart {
                restarted: false,
                notifications: true,
                time_secs: 120,
                families: vec![(Family::IPV4_UNICAST, false)],
            }),
        ]
    );
}

#[test]
fn a_neighbour_without_capabilities_speaks_ipv4_with_two_octet_numbers() {
    let open = wire::Open { capabilities: Vec::new(), ..their_open() };
    let negotiated = open::negotiate(&local(), &peer(), &open).unwrap();
    assert_eq!(negotiated.families, [Family::IPV4_UNICAST]);
    assert!(!negotiated.context.four_octet_as);
}

#[test]
fn a_cease_without_a_reason_before_there_is_a_session_is_taken_for_a_collision() {
    for (state, next) in [(OpenSent, Active), (OpenConfirm, Active), (Established, Idle)] {
        let mut bench = Bench::in_state(state);
        bench.hear(CONN, &Message::Notification(Notification::new(error::CEASE)));
        assert_eq!(bench.said()[0], "close 1");
        assert_eq!(bench.session.state(), next, "{state:?}");
    }
}

#[test]
fn a_notification_is_not_hidden_by_connections_that_are_only_closed_after_it() {
    let mut bench = Bench::in_state(OpenSent);
    let mut other = their_open();
    other.asn = 65_009;
    other.capabilities.pop();
    bench.hear(CONN, &Message::Open(other));
    let notified = "sent OPEN Message Error / Bad Peer AS: AS 65009";
    assert_eq!(bench.session.last_error(), notified);
    bench.expire();
    let fail = |bench: &mut Bench, conn| {
        bench.connect(conn);
        bench.session.closed(conn, "reset", bench.now, &mut bench.effects);
        bench.session.last_error().to_owned()
    };
    let both = format!("{notified}; since then connection closed: reset");
    assert_eq!(fail(&mut bench, ConnId(9)), both);
    bench.expire();
    bench.connect(ConnId(10));
    bench.hear(ConnId(10), &Message::Open(their_open()));
    bench.hear(ConnId(10), &Message::Keepalive);
    bench.session.closed(ConnId(10), "reset", bench.now, &mut bench.effects);
    assert_eq!(bench.session.last_error(), "connection closed: reset");
}
