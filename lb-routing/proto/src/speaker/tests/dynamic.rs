//! Neighbours that come by themselves.

use super::super::dynamic::{DYNAMIC_OPENING, DYNAMIC_REST};
use super::super::graceful::ABSENCE_LIMIT;
use super::*;
use crate::config::{Listen, ListenError};

fn listen(name: &str, ranges: &[&str], limit: u16) -> Listen {
    Listen {
        name: name.into(),
        ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
        limit,
        template: peer(1, Import::All, Export::All),
    }
}

impl Rig {
    fn listening(listens: Vec<Listen>) -> Self {
        let mut rig = Self::new(Vec::new());
        rig.speaker.listen(listens, rig.now).unwrap();
        rig
    }

    /// A neighbour of AS 65101 connects from an address and has a session.
    fn come(&mut self, address: IpAddr) -> ConnId {
        let conn = self.accept(address, ourselves(1));
        let IpAddr::V4(router_id) = address else { panic!("IPv4") };
        let capabilities = vec![Capability::FourOctetAs(65101)];
        let open = Open { asn: 65101, hold_time_secs: 90, router_id, capabilities };
        self.hear(conn, &Message::Open(open));
        self.hear(conn, &Message::Keepalive);
        conn
    }

    fn states(&self) -> Vec<(String, State)> {
        self.speaker.peers().into_iter().map(|peer| (peer.name, peer.state)).collect()
    }

    /// How many are there, and how many were refused.
    fn places(&self) -> Vec<(u16, u64)> {
        self.speaker.listening().into_iter().map(|it| (it.neighbours, it.refused)).collect()
    }

    /// Time passes until nobody is there any more.
    fn empty(&mut self) -> Duration {
        let start = self.now;
        while !self.states().is_empty() {
            self.wait();
        }
        self.now - start
    }
}

fn at(last: u8) -> IpAddr {
    IpAddr::from([10, 1, 0, last])
}

#[test]
fn who_comes_from_a_range_is_a_neighbour_for_as_long_as_it_has_a_session() {
    let mut rig = Rig::listening(vec![listen("nodes", &["10.1.0.0/24"], 9)]);
    let conn = rig.come(at(7));
    rig.announce(conn, &[65101], at(7), &["10.9.0.0/16"]);
    assert_eq!(rig.states(), [("10.1.0.7".to_owned(), State::Established)]);
    assert_eq!(rig.speaker.peers()[0].dynamic.as_deref(), Some("nodes"));
    assert_eq!((rig.speaker.routes().len(), rig.places()), (1, vec![(1, 0)]));
    rig.speaker.handle(Input::Closed { conn, error: "end of file".into() }, rig.now);
    assert!(rig.empty() >= DYNAMIC_REST);
    assert_eq!((rig.speaker.routes().len(), rig.places()), (0, vec![(0, 0)]));
    assert_eq!(rig.speaker.poll_timeout(), None);
    // Its place is free for others.
    rig.come(at(8));
    assert_eq!((rig.states().len(), rig.speaker.neighbours.len()), (1, 1));
}

#[test]
fn who_connects_and_says_nothing_loses_its_place_soon() {
    let mut rig = Rig::listening(vec![listen("nodes", &["10.1.0.0/24"], 1)]);
    let conn = rig.accept(at(7), ourselves(1));
    rig.now += Duration::from_secs(20);
    // Nor does it help to begin anew.
    let again = rig.accept(at(7), ourselves(1));
    rig.outputs();
    assert_eq!(rig.empty(), DYNAMIC_OPENING - Duration::from_secs(20));
    let rejected = Message::Notification(Notification::new(wire::error::CONNECTION_REJECTED));
    let outputs = rig.outputs();
    assert_eq!(messages(&outputs, again), [rejected]);
    assert!(outputs.contains(&Output::Close { conn: again }) && conn != again);
    // Neither does one that had a session and connects again keep it without saying anything.
    let conn = rig.come(at(8));
    rig.speaker.handle(Input::Closed { conn, error: "end of file".into() }, rig.now);
    // It rests first.
    rig.wait();
    rig.accept(at(8), ourselves(1));
    assert_eq!(rig.places(), [(1, 0)]);
    assert!(rig.empty() <= DYNAMIC_REST);
    assert_eq!(rig.places(), [(0, 0)]);
}

#[test]
fn who_is_back_in_time_keeps_its_place() {
    let mut rig = Rig::listening(vec![listen("nodes", &["10.1.0.0/24"], 9)]);
    let conn = rig.come(at(7));
    rig.speaker.handle(Input::Closed { conn, error: "end of file".into() }, rig.now);
    rig.wait();
    rig.come(at(7));
    for _ in 0..9 {
        rig.now += Duration::from_secs(20);
        let conns: Vec<_> = rig.speaker.conns.keys().copied().collect();
        conns.into_iter().for_each(|conn| rig.hear(conn, &Message::Keepalive));
        rig.speaker.handle(Input::Tick, rig.now);
    }
    assert_eq!(rig.states(), [("10.1.0.7".to_owned(), State::Established)]);
}

#[test]
fn beyond_the_limit_connections_are_refused_counted_and_said_once_in_a_while() {
    let mut rig = Rig::listening(vec![listen("nodes", &["10.1.0.0/24"], 2)]);
    let first = rig.come(at(1));
    rig.come(at(2));
    rig.outputs();
    let refuse = |rig: &mut Rig, last: u8| {
        let conn = rig.accept(at(last), ourselves(1));
        let outputs = rig.outputs();
        let rejected = Notification::new(wire::error::CONNECTION_REJECTED);
        assert_eq!(messages(&outputs, conn), [Message::Notification(rejected)]);
        assert!(outputs.contains(&Output::Close { conn }));
        outputs.iter().filter(|it| matches!(it, Output::Event(Event::Refused { .. }))).count()
    };
    assert_eq!((refuse(&mut rig, 3), refuse(&mut rig, 4)), (1, 0));
    assert_eq!(rig.places(), [(2, 2)]);
    // One that is there is not pushed out, and its place is given away once it has gone.
    rig.speaker.handle(Input::Closed { conn: first, error: "end of file".into() }, rig.now);
    assert_eq!(refuse(&mut rig, 3), 0);
    let gone = rig.now + DYNAMIC_REST + Duration::from_secs(3);
    while rig.now < gone {
        rig.wait();
        let conns: Vec<_> = rig.speaker.conns.keys().copied().collect();
        conns.into_iter().for_each(|conn| rig.hear(conn, &Message::Keepalive));
    }
    rig.come(at(3));
    assert_eq!(rig.places(), [(2, 3)]);
    rig.outputs();
    assert_eq!(refuse(&mut rig, 5), 1);
}

#[test]
fn who_never_had_a_session_keeps_no_place() {
    let mut rig = Rig::listening(vec![listen("nodes", &["10.1.0.0/24"], 1)]);
    let conn = rig.accept(at(1), ourselves(1));
    assert_eq!(rig.places(), [(1, 0)]);
    rig.speaker.handle(Input::Closed { conn, error: "end of file".into() }, rig.now);
    assert_eq!(rig.places(), [(0, 0)]);
    // One of another AS rests, as every neighbour does that fails, and goes then.
    let conn = rig.accept(at(1), ourselves(1));
    let router_id = Ipv4Addr::new(1, 1, 1, 1);
    let open = Open { asn: 65999, hold_time_secs: 90, router_id, capabilities: Vec::new() };
    rig.hear(conn, &Message::Open(open));
    assert_eq!(rig.places(), [(1, 0)]);
    assert!(rig.empty() <= Duration::from_secs(2));
}

#[test]
fn the_longest_range_counts_and_a_named_neighbour_before_all() {
    let listens =
        vec![listen("all", &["10.0.0.0/8"], 9), listen("some", &["10.1.0.0/24", "10.2.0.0/16"], 9)];
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::All)]);
    rig.speaker.listen(listens.clone(), rig.now).unwrap();
    for address in [at(1), IpAddr::from([10, 2, 3, 4]), IpAddr::from([10, 7, 0, 1]), neighbour(1)] {
        rig.accept(address, ourselves(1));
    }
    rig.accept(IpAddr::from([11, 0, 0, 1]), ourselves(1));
    assert_eq!(rig.places(), [(1, 0), (2, 0)]);
    // Who is named from now on, and whose range goes: nobody else notices.
    let named = PeerConfig { passive: true, ..PeerConfig::new(at(1), 65101) };
    rig.speaker.configure(vec![named], rig.now).unwrap();
    assert_eq!(rig.places(), [(1, 0), (1, 0)]);
    rig.outputs();
    rig.speaker.listen(listens[..1].to_vec(), rig.now).unwrap();
    assert_eq!(rig.places(), [(2, 0)]);
    rig.speaker.listen(Vec::new(), rig.now).unwrap();
    assert_eq!(rig.states().len(), 1);
}

#[test]
fn another_template_changes_those_that_are_there_as_a_configuration_does() {
    let mut rig = Rig::listening(vec![listen("nodes", &["10.1.0.0/24"], 9)]);
    let conn = rig.come(at(1));
    rig.originate(&["203.0.113.1/32"]);
    assert_eq!(updates(&rig.outputs(), conn).iter().flat_map(|it| &it.announced).count(), 1);
    let mut closed = listen("nodes", &["10.1.0.0/24"], 1);
    closed.template.export = Export::None;
    rig.speaker.listen(vec![closed], rig.now).unwrap();
    assert_eq!(updates(&rig.outputs(), conn)[0].withdrawn.len(), 1);
    assert_eq!(rig.states(), [("10.1.0.1".to_owned(), State::Established)]);
    rig.speaker.listen(Vec::new(), rig.now).unwrap();
    let gone = Notification::new(wire::error::PEER_DE_CONFIGURED);
    assert_eq!(messages(&rig.outputs(), conn), [Message::Notification(gone)]);
    assert_eq!(rig.states(), []);
}

#[test]
fn nobody_comes_or_stays_where_the_template_is_shut_down() {
    let open = listen("nodes", &["10.1.0.0/24"], 1);
    let mut shut = open.clone();
    shut.template.shutdown = Some(String::new());
    let all = listen("all", &["10.0.0.0/8"], 9);
    let mut rig = Rig::listening(vec![open, all.clone()]);
    rig.come(at(1));
    assert_eq!(rig.places(), [(1, 0), (0, 0)]);
    rig.speaker.listen(vec![shut, all], rig.now).unwrap();
    rig.accept(at(2), ourselves(1));
    assert_eq!((rig.states(), rig.places()), (vec![], vec![(0, 0), (0, 0)]));
}

#[test]
fn what_cannot_be_listened_for_is_refused_and_nothing_changes() {
    let good = listen("nodes", &["10.1.0.0/24"], 9);
    let mut rig = Rig::listening(vec![good.clone()]);
    let mut reserved = good.clone();
    reserved.template.asn = 0;
    let (name, range) = ("nodes".to_owned(), "10.1.0.0/24".parse().unwrap());
    for (wrong, words) in [
        (vec![listen("a", &[], 9)], "a: there is no range to listen for"),
        (vec![listen("a", &["10.1.0.1/24"], 9)], "a: 10.1.0.1/24 has host bits: use 10.1.0.0"),
        (vec![listen("a", &["10.1.0.0/24"], 0)], "a: 0 neighbours: use 1 to 4096"),
        (vec![reserved], "nodes: AS number 0 is reserved"),
    ] {
        let error = rig.speaker.listen(wrong, rig.now).unwrap_err().to_string();
        assert!(error.starts_with(words), "{error}");
    }
    let twice = rig.speaker.listen(vec![good.clone(), good], rig.now);
    assert_eq!(twice, Err(ListenError::Twice { first: name.clone(), name, range }));
    assert_eq!(rig.places(), [(0, 0)]);
}

#[test]
fn whoever_comes_after_a_restart_of_ours_hears_of_it_and_is_waited_for() {
    let mut rig = Rig::listening(vec![listen("nodes", &["10.1.0.0/24"], 9)]);
    rig.speaker.recover(rig.now);
    let comes = |rig: &mut Rig, last| {
        let conn = rig.come(at(last));
        let open = messages(&rig.outputs(), conn).into_iter().find_map(|message| {
            let Message::Open(open) = message else { return None };
            Some(open)
        });
        open.unwrap().capabilities.into_iter().find_map(|capability| {
            let Capability::GracefulRestart(told) = capability else { return None };
            Some((told.restarted, told.families))
        })
    };
    let kept = vec![(Family::IPV4_UNICAST, true)];
    assert!(rig.speaker.is_deferring());
    assert_eq!(comes(&mut rig, 7), Some((true, kept.clone())));
    rig.pass(ABSENCE_LIMIT);
    assert!(!rig.speaker.is_deferring());
    assert_eq!(comes(&mut rig, 8), Some((false, kept)), "routes of before are still forwarded by");
}

/// Somebody of an AS connects and says OPEN.
fn open(rig: &mut Rig, address: IpAddr, asn: u32) -> ConnId {
    let conn = rig.accept(address, ourselves(1));
    let IpAddr::V4(router_id) = address else { panic!("IPv4") };
    let capabilities = vec![Capability::FourOctetAs(asn)];
    rig.hear(conn, &Message::Open(Open { asn, hold_time_secs: 90, router_id, capabilities }));
    conn
}

fn among(asns: &[(u32, u32)]) -> Listen {
    let mut listen = listen("nodes", &["10.1.0.0/24"], 9);
    listen.template.asns = asns.iter().map(|(first, last)| *first..=*last).collect();
    listen
}

#[test]
fn each_has_the_as_number_that_it_says_where_it_is_one_of_those_allowed() {
    let asns = [(65101, 65101), (US, US), (65200, 65300)];
    let mut rig = Rig::listening(vec![among(&asns)]);
    let conns = [(1, 65101), (2, 65250), (3, US)].map(|(last, asn)| {
        let conn = open(&mut rig, at(last), asn);
        rig.hear(conn, &Message::Keepalive);
        conn
    });
    let asns = |rig: &Rig| rig.speaker.peers().iter().map(|it| it.asn).collect::<Vec<_>>();
    assert_eq!(asns(&rig), [65101, 65250, US]);
    assert!(rig.states().iter().all(|(_, state)| *state == State::Established));
    // What they tell is judged by it: one inside our AS need not begin its paths with it.
    rig.announce(conns[1], &[65101], at(2), &["10.8.0.0/16"]);
    rig.announce(conns[1], &[65250], at(2), &["10.9.0.0/16"]);
    let inside = Attributes { local_pref: Some(100), ..attributes(&[65999]) };
    let context = Context { external: false, ..CONTEXT };
    let mut update = Vec::new();
    let prefixes = [prefix("10.7.0.0/16")];
    wire::encode_updates(&inside, at(3), &prefixes, context, &mut update).unwrap();
    rig.receive(conns[2], &update.concat());
    let known: Vec<_> = rig.speaker.routes().iter().map(|it| it.prefix.to_string()).collect();
    assert_eq!(known, ["10.7.0.0/16", "10.9.0.0/16"]);
    // Nor does another setting change who they are; where theirs is allowed no longer, they go.
    let mut fewer = among(&[(65101, 65101), (65250, 65250)]);
    rig.speaker.listen(vec![fewer.clone()], rig.now).unwrap();
    assert_eq!(asns(&rig)[..2], [65101, 65250]);
    let states: Vec<_> = rig.states().into_iter().map(|(_, state)| state).collect();
    assert_eq!(states[..2], [State::Established; 2]);
    assert_ne!(states[2], State::Established);
    fewer.template.asns = vec![65101..=65101];
    rig.speaker.listen(vec![fewer], rig.now).unwrap();
    assert!(rig.speaker.routes().is_empty());
}

#[test]
fn who_says_another_as_number_is_refused_and_counted_and_keeps_no_place() {
    let mut rig = Rig::listening(vec![among(&[(65101, 65101), (65200, 4_294_967_294)])]);
    for (count, asn) in [(1, 65102_u32), (2, 23456), (3, 65199)] {
        let conn = open(&mut rig, at(1), asn);
        let bad = Notification::with_data(wire::error::BAD_PEER_AS, asn.to_be_bytes());
        let bad = Message::Notification(bad);
        assert_eq!(messages(&rig.outputs(), conn).last(), Some(&bad), "{asn}");
        assert_eq!(rig.speaker.listening()[0].wrong_as, count);
        rig.empty();
    }
    assert_eq!(rig.places(), [(0, 0)]);
}

#[test]
fn who_comes_again_as_another_as_takes_nothing_along() {
    let mut rig = Rig::listening(vec![among(&[(65101, 65102)])]);
    let conn = rig.come(at(1));
    rig.announce(conn, &[65101], at(1), &["10.9.0.0/16"]);
    rig.speaker.handle(Input::Closed { conn, error: "end of file".into() }, rig.now);
    rig.wait();
    let conn = open(&mut rig, at(1), 65102);
    rig.hear(conn, &Message::Keepalive);
    rig.announce(conn, &[65102], at(1), &["10.8.0.0/16"]);
    let known: Vec<_> = rig.speaker.routes().iter().map(|it| it.prefix.to_string()).collect();
    assert_eq!(known, ["10.8.0.0/16"]);
}

#[test]
fn as_numbers_that_nobody_can_have_are_refused() {
    let mut rig = Rig::new(Vec::new());
    for asns in [&[(0, 9)][..], &[(65101, 65101), (9, 8)], &[(1, u32::MAX)], &[(1, 9)]] {
        let error = rig.speaker.listen(vec![among(asns)], rig.now).unwrap_err().to_string();
        assert!(error.contains("are no range that it can be in"), "{error}");
    }
    let mut client = among(&[(65101, 65101), (US, US)]);
    client.template.asn = US;
    client.template.route_reflector_client = true;
    let error = rig.speaker.listen(vec![client], rig.now).unwrap_err().to_string();
    assert!(error.contains("it is in AS 65101"), "{error}");
}
