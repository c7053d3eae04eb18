//! Neighbours come, change and go while others stay as they are.

use std::sync::Arc;

use super::*;
use crate::policy::{Actions, Chain, Condition, Policy, PrefixSet, Statement, Verdict};

const ALL: fn(u8) -> PeerConfig = |number| peer(number, Import::All, Export::All);

fn accepting(text: &str) -> Chain {
    let set = PrefixSet::new(vec![text.parse().unwrap()]);
    let statement = Statement {
        name: String::new(),
        conditions: vec![Condition::Prefix(Arc::new(set))],
        actions: Actions::default(),
        verdict: Verdict::Accept,
    };
    let statements = vec![statement];
    Chain::new(vec![Arc::new(Policy { name: "p".into(), statements, otherwise: Verdict::Next })])
}

/// Codes of the NOTIFICATIONs sent on a connection.
fn notifications(outputs: &[Output], on: ConnId) -> Vec<(u8, u8)> {
    let mut codes = Vec::new();
    for message in messages(outputs, on) {
        if let Message::Notification(notification) = message {
            codes.push((notification.code, notification.subcode));
        }
    }
    codes
}

fn refreshes(outputs: &[Output], on: ConnId) -> usize {
    let asked = |message: &Message| matches!(message, Message::RouteRefresh(_));
    messages(outputs, on).iter().filter(|message| asked(message)).count()
}

impl Rig {
    fn configure(&mut self, peers: Vec<PeerConfig>) {
        self.speaker.configure(peers, self.now).unwrap();
    }
}

#[test]
fn a_neighbour_that_stays_as_it_is_notices_nothing() {
    let mut rig = Rig::new(vec![ALL(1), ALL(2)]);
    let one = rig.establish(1);
    rig.establish(2);
    rig.announce(one, &[65101], neighbour(1), &["10.1.0.0/16"]);
    rig.outputs();
    rig.configure(vec![ALL(2), ALL(1)]);
    assert_eq!(rig.outputs(), []);
    let names: Vec<_> = rig.speaker.peers().into_iter().map(|peer| peer.address).collect();
    assert_eq!(names, [neighbour(2), neighbour(1)]);
}

#[test]
fn a_neighbour_that_is_taken_out_is_told_and_its_routes_go() {
    let mut rig = Rig::new(vec![ALL(1), ALL(2)]);
    let (one, two) = (rig.establish(1), rig.establish(2));
    rig.announce(one, &[65101], neighbour(1), &["10.1.0.0/16"]);
    rig.outputs();
    rig.configure(vec![ALL(2)]);
    let outputs = rig.outputs();
    assert_eq!(notifications(&outputs, one), [error::PEER_DE_CONFIGURED]);
    assert_eq!(notifications(&outputs, two), []);
    assert_eq!(routes(&outputs), [change("10.1.0.0/16", &[])]);
    let gone = updates(&outputs, two).into_iter().flat_map(|update| update.withdrawn);
    assert_eq!(gone.collect::<Vec<_>>(), [prefix("10.1.0.0/16")]);
    assert_eq!(rig.speaker.peers().len(), 1);
    // It is nobody now.
    let conn = rig.accept(neighbour(1), ourselves(1));
    assert_eq!(notifications(&rig.outputs(), conn), [error::CONNECTION_REJECTED]);
}

#[test]
fn a_new_neighbour_takes_an_empty_place_and_not_the_routes_of_whoever_had_it() {
    let mut rig = Rig::new(vec![ALL(1), ALL(2)]);
    let one = rig.establish(1);
    rig.establish(2);
    rig.announce(one, &[65101], neighbour(1), &["10.1.0.0/16"]);
    rig.configure(vec![ALL(2), ALL(3)]);
    let three = rig.establish(3);
    rig.outputs();
    assert_eq!(rig.speaker.routes(), []);
    rig.announce(three, &[65103], neighbour(3), &["10.3.0.0/16"]);
    assert_eq!(routes(&rig.outputs()), [change("10.3.0.0/16", &[neighbour(3)])]);
    assert_eq!(rig.speaker.routes()[0].peer, Some(neighbour(3)));
    let received: Vec<_> =
        rig.speaker.peers().iter().map(|peer| (peer.address, peer.prefixes_received)).collect();
    assert_eq!(received, [(neighbour(2), 0), (neighbour(3), 1)]);
}

#[test]
fn settings_beyond_those_that_can_be_told_apart_are_refused_and_nothing_changes() {
    let mut rig = Rig::new(vec![ALL(1)]);
    let strict = PeerConfig { reject_as_set: true, ..ALL(1) };
    let first = rig.speaker.judges[0];
    rig.speaker.judges.resize(usize::from(u16::MAX), first);
    let refused = rig.speaker.configure(vec![strict, ALL(2)], rig.now);
    assert_eq!(refused, Err(ConfigError::TooManySettings));
    assert_eq!(rig.speaker.peers().len(), 1);
    rig.configure(vec![ALL(1)]);
}

#[test]
fn a_change_of_export_policy_withdraws_what_no_longer_leaves_and_keeps_the_session() {
    let mut rig = Rig::new(vec![ALL(1), ALL(2)]);
    let (one, two) = (rig.establish(1), rig.establish(2));
    rig.announce(one, &[65101], neighbour(1), &["10.1.0.0/16", "10.2.0.0/16"]);
    rig.outputs();
    let export = Export::Policies(accepting("10.1.0.0/16"));
    rig.configure(vec![ALL(1), peer(2, Import::All, export)]);
    let outputs = rig.outputs();
    let gone = updates(&outputs, two).into_iter().flat_map(|update| update.withdrawn);
    assert_eq!(gone.collect::<Vec<_>>(), [prefix("10.2.0.0/16")]);
    rig.configure(vec![ALL(1), peer(2, Import::All, Export::None)]);
    let gone = updates(&rig.outputs(), two).into_iter().flat_map(|update| update.withdrawn);
    assert_eq!(gone.collect::<Vec<_>>(), [prefix("10.1.0.0/16")]);
    rig.configure(vec![ALL(1), ALL(2)]);
    assert_eq!(announced(&rig.outputs(), two).len(), 2);
    assert_eq!(rig.state(1), State::Established);
}

#[test]
fn a_change_of_import_policy_asks_for_the_routes_again_and_keeps_the_session() {
    let mut rig = Rig::new(vec![ALL(1)]);
    let conn = rig.establish_refreshable(1);
    let told = ["10.1.0.0/16", "10.2.0.0/16"];
    rig.announce(conn, &[65101], neighbour(1), &told);
    rig.outputs();
    rig.configure(vec![peer(1, Import::Policies(accepting("10.1.0.0/16")), Export::All)]);
    let outputs = rig.outputs();
    assert_eq!((refreshes(&outputs, conn), notifications(&outputs, conn)), (2, Vec::new()));
    // It does not wait for the answer.
    assert_eq!(routes(&outputs), [change("10.2.0.0/16", &[])]);
    rig.announce(conn, &[65101], neighbour(1), &told);
    assert_eq!(routes(&rig.outputs()), []);
    // Nothing at all: what is there goes at once.
    rig.configure(vec![peer(1, Import::None, Export::All)]);
    assert_eq!(routes(&rig.outputs()), [change("10.1.0.0/16", &[])]);
    assert_eq!(rig.speaker.peers()[0].prefixes_received, 0);
    assert_eq!(rig.state(0), State::Established);
}

#[test]
fn what_a_neighbour_told_that_cannot_be_asked_is_judged_anew_while_its_session_goes_on() {
    let only = |text| Import::Policies(accepting(text));
    let mut rig = Rig::new(vec![peer(1, only("10.1.0.0/16"), Export::All)]);
    let conn = rig.establish(1);
    rig.announce(conn, &[65101], neighbour(1), &["10.1.0.0/16", "10.2.0.0/16"]);
    rig.announce(conn, &[65101, US], neighbour(1), &["10.3.0.0/16"]);
    assert_eq!(routes(&rig.outputs()), [change("10.1.0.0/16", &[neighbour(1)])]);
    rig.configure(vec![peer(1, only("10.2.0.0/16"), Export::All)]);
    let outputs = rig.outputs();
    assert_eq!(notifications(&outputs, conn), []);
    let wanted = [change("10.1.0.0/16", &[]), change("10.2.0.0/16", &[neighbour(1)])];
    assert_eq!(sorted(routes(&outputs)), wanted);
    // Also by what is no policy, and everything.
    rig.configure(vec![PeerConfig { allow_as_in: 1, ..ALL(1) }]);
    let outputs = rig.outputs();
    let back = ["10.1.0.0/16", "10.3.0.0/16"].map(|text| change(text, &[neighbour(1)]));
    assert_eq!(sorted(routes(&outputs)), back);
    rig.configure(vec![ALL(1)]);
    assert_eq!(routes(&rig.outputs()), [change("10.3.0.0/16", &[])]);
    let status = &rig.speaker.peers()[0];
    assert_eq!((status.prefixes_received, status.state), (2, State::Established));
    rig.withdraw(conn, &["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"]);
    assert_eq!(rig.speaker.peers()[0].prefixes_rejected, 0);
}

fn sorted(mut routes: Vec<RouteChange>) -> Vec<RouteChange> {
    routes.sort_by_key(|route| route.prefix);
    routes
}

#[test]
fn a_full_table_is_judged_anew_in_parts_and_by_the_last_policy_only() {
    let mut rig = Rig::new(vec![ALL(1)]);
    let conn = rig.establish(1);
    let all: Vec<_> = (0..40_000_u32).map(|n| format!("10.{}.{}.0/24", n >> 8, n & 255)).collect();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    for some in all.chunks(200) {
        rig.announce(conn, &[65101], neighbour(1), some);
    }
    rig.outputs();
    rig.configure(vec![peer(1, Import::Policies(accepting("10.0.0.0/24")), Export::All)]);
    assert_eq!(rig.speaker.poll_output(), Some(Output::Busy), "a part of it");
    rig.configure(vec![peer(1, Import::Policies(accepting("10.9.9.0/24")), Export::All)]);
    rig.outputs();
    let status = &rig.speaker.peers()[0];
    assert_eq!((status.prefixes_received, status.prefixes_rejected), (1, 39_999));
    assert_eq!(rig.speaker.routes()[0].prefix, prefix("10.9.9.0/24"));
}

/// Accepts everything, with another MED each time.
fn marking(med: u32) -> PeerConfig {
    let statement = Statement {
        name: String::new(),
        conditions: Vec::new(),
        actions: Actions { med: Some(med), ..Actions::default() },
        verdict: Verdict::Accept,
    };
    let policy = Policy { name: "p".into(), statements: vec![statement], otherwise: Verdict::Next };
    peer(1, Import::Policies(Chain::new(vec![Arc::new(policy)])), Export::All)
}

#[test]
fn a_session_does_not_end_for_the_room_that_old_and_new_verdicts_take_together() {
    let mut rig = Rig::new(vec![marking(1)]);
    let conn = rig.establish(1);
    // Each set is among the first records and among the last ones.
    for round in 0..200_u32 {
        let all = (0..100_u32).map(|n| format!("10.{round}.{n}.0/24")).collect::<Vec<_>>();
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        rig.announce(conn, &[65101, 1 + round % 20], neighbour(1), &all);
    }
    rig.outputs();
    let before = rig.speaker.rib.attribute_bytes_of(0);
    rig.speaker.max_attribute_bytes = before + before / 10;
    rig.configure(vec![marking(2)]);
    assert_eq!(rig.speaker.poll_output(), Some(Output::Busy), "a part of it");
    let meanwhile = rig.speaker.rib.attribute_bytes_of(0);
    assert!(meanwhile > rig.speaker.max_attribute_bytes, "{meanwhile} octets, {before} before");
    rig.outputs();
    assert_eq!((rig.state(0), rig.speaker.rib.attribute_bytes_of(0)), (State::Established, before));
    // What is too much afterwards is too much.
    rig.speaker.max_attribute_bytes = before / 2;
    rig.configure(vec![marking(3)]);
    assert_eq!(notifications(&rig.outputs(), conn), [error::OUT_OF_RESOURCES]);
}

#[test]
fn a_neighbour_that_cannot_be_asked_and_whose_routes_were_not_kept_tells_them_in_a_new_session() {
    for (import, room) in [(Import::None, 9), (Import::Policies(accepting("10.1.0.0/16")), 0)] {
        let mut rig = Rig::new(vec![peer(1, import, Export::All)]);
        rig.speaker.max_refused = room;
        let conn = rig.establish(1);
        rig.announce(conn, &[65101], neighbour(1), &["10.2.0.0/16"]);
        rig.outputs();
        rig.configure(vec![ALL(1)]);
        assert_eq!(notifications(&rig.outputs(), conn), [error::OTHER_CONFIGURATION_CHANGE]);
    }
}

#[test]
fn routes_that_were_forgotten_for_a_while_are_told_in_a_new_session() {
    let mut rig = Rig::new(vec![ALL(1)]);
    let conn = rig.establish(1);
    rig.announce(conn, &[65101], neighbour(1), &["10.2.0.0/16"]);
    rig.outputs();
    rig.configure(vec![peer(1, Import::None, Export::All)]);
    assert_eq!(notifications(&rig.outputs(), conn), []);
    assert_eq!(rig.speaker.routes(), []);
    rig.configure(vec![ALL(1)]);
    assert_eq!(notifications(&rig.outputs(), conn), [error::OTHER_CONFIGURATION_CHANGE]);
}

#[test]
fn another_as_number_needs_a_new_session_and_another_hold_time_waits_for_one() {
    let mut rig = Rig::new(vec![ALL(1)]);
    let conn = rig.establish(1);
    rig.outputs();
    let patient = PeerConfig { hold_time: Duration::from_secs(180), ..ALL(1) };
    rig.configure(vec![patient]);
    assert_eq!((rig.outputs(), rig.state(0)), (Vec::new(), State::Established));
    rig.configure(vec![PeerConfig { asn: 65999, ..ALL(1) }]);
    assert_eq!(notifications(&rig.outputs(), conn), [error::OTHER_CONFIGURATION_CHANGE]);
    assert_eq!(rig.speaker.peers()[0].asn, 65999);
}

#[test]
fn a_neighbour_that_is_shut_down_is_told_why_and_rests_until_it_may_run_again() {
    let mut rig = Rig::new(vec![ALL(1)]);
    let conn = rig.establish(1);
    rig.outputs();
    let shut = PeerConfig { shutdown: Some("new optics".into()), ..ALL(1) };
    rig.configure(vec![shut.clone()]);
    let last = messages(&rig.outputs(), conn).pop();
    let Some(Message::Notification(last)) = last else { panic!("{last:?}") };
    assert_eq!(last.communication(), Some("new optics"));
    assert_eq!((rig.state(0), rig.speaker.poll_timeout()), (State::Idle, None));
    // Another text is no reason to do anything.
    rig.configure(vec![PeerConfig { shutdown: Some("soon".into()), ..ALL(1) }]);
    let conn = rig.accept(neighbour(1), ourselves(1));
    assert_eq!(rig.outputs(), [Output::Close { conn }]);
    rig.configure(vec![ALL(1)]);
    rig.establish(1);
    assert_eq!(rig.state(0), State::Established);
    // One that is shut down from the start never connects.
    assert_eq!(Rig::new(vec![PeerConfig { passive: false, ..shut }]).outputs(), []);
}

#[test]
fn a_neighbour_that_is_drained_hears_that_our_routes_will_go() {
    let mut rig = Rig::new(vec![peer(1, Import::None, Export::Vips)]);
    rig.originate(&["203.0.113.1/32"]);
    let conn = rig.establish(1);
    rig.outputs();
    let drained = PeerConfig { graceful_shutdown: true, ..peer(1, Import::None, Export::Vips) };
    rig.configure(vec![drained]);
    let told = updates(&rig.outputs(), conn).into_iter().filter_map(|update| update.attributes);
    let told: Vec<_> = told.map(|attributes| attributes.communities).collect();
    assert_eq!(told, [vec![0xffff_0000]]);
    rig.configure(vec![peer(1, Import::None, Export::Vips)]);
    let told = updates(&rig.outputs(), conn).into_iter().filter_map(|update| update.attributes);
    assert_eq!(told.map(|attributes| attributes.communities).collect::<Vec<_>>(), [Vec::new()]);
    assert_eq!(rig.state(0), State::Established);
}

#[test]
fn sessions_are_cleared_softly_or_at_all() {
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::Vips)]);
    rig.originate(&["203.0.113.1/32"]);
    let conn = rig.establish_refreshable(1);
    rig.outputs();
    assert!(rig.speaker.clear(neighbour(1), Clear::In, rig.now));
    assert_eq!(refreshes(&rig.outputs(), conn), 2);
    assert!(rig.speaker.clear(neighbour(1), Clear::Out, rig.now));
    assert_eq!(announced(&rig.outputs(), conn).len(), 1);
    assert!(rig.speaker.clear(neighbour(1), Clear::Session, rig.now));
    assert_eq!(notifications(&rig.outputs(), conn), [error::ADMINISTRATIVE_RESET]);
    assert!(!rig.speaker.clear(neighbour(2), Clear::In, rig.now));
}

#[test]
fn what_cannot_work_changes_nothing() {
    let mut rig = Rig::new(vec![ALL(1)]);
    rig.establish(1);
    rig.outputs();
    let wrong = vec![ALL(2), PeerConfig { asn: 0, ..ALL(3) }];
    assert!(rig.speaker.configure(wrong, rig.now).is_err());
    assert_eq!((rig.outputs(), rig.state(0)), (Vec::new(), State::Established));
}

impl Rig {
    fn reconfigure(&mut self, change: impl FnOnce(&mut SpeakerConfig), peers: Vec<PeerConfig>) {
        let mut config = self.speaker.config().clone();
        change(&mut config);
        self.speaker.reconfigure(config, peers, self.now).unwrap();
    }
}

#[test]
fn another_identity_ends_every_session_and_the_next_ones_have_it() {
    let id = Ipv4Addr::new(10, 0, 0, 9);
    let mut rig = Rig::new(vec![ALL(1), ALL(2)]);
    let conns = [1, 2].map(|number| rig.establish(number));
    rig.announce(conns[0], &[65101], neighbour(1), &["10.1.0.0/16"]);
    rig.outputs();
    rig.reconfigure(|us| (us.asn, us.router_id) = (65009, id), vec![ALL(1), ALL(2)]);
    let outputs = rig.outputs();
    for conn in conns {
        assert_eq!(notifications(&outputs, conn), [error::OTHER_CONFIGURATION_CHANGE]);
    }
    assert_eq!(routes(&outputs), [change("10.1.0.0/16", &[])]);
    let again = rig.establish(1);
    let opens = messages(&rig.outputs(), again).into_iter().filter_map(|message| {
        if let Message::Open(open) = message { Some((open.asn, open.router_id)) } else { None }
    });
    assert_eq!(opens.collect::<Vec<_>>(), [(65009, id)]);
    let states: Vec<_> = rig.speaker.peers().into_iter().map(|peer| peer.state).collect();
    assert_eq!(states[0], State::Established);
}

#[test]
fn another_number_of_paths_is_carried_out_while_sessions_go_on() {
    let mut rig = Rig::new(vec![ALL(1), ALL(2)]);
    for number in [1, 2] {
        let conn = rig.establish(number);
        let path = [65100 + u32::from(number), 65200];
        rig.announce(conn, &path, neighbour(number), &["10.1.0.0/16"]);
    }
    rig.outputs();
    let carried = |rig: &Rig| rig.speaker.routes().iter().filter(|path| path.multipath).count();
    let wide = carried(&rig);
    rig.reconfigure(|us| us.max_paths = 1, vec![ALL(1), ALL(2)]);
    let outputs = rig.outputs();
    assert_eq!(carried(&rig), 1);
    assert_eq!(routes(&outputs).len(), usize::from(wide > 1), "{outputs:?}");
    assert!(rig.speaker.peers().iter().all(|peer| peer.state == State::Established));
    rig.reconfigure(|us| us.max_paths = 4, vec![ALL(1), ALL(2)]);
    assert_eq!((carried(&rig), wide), (2, 2));
}

#[test]
fn an_identity_that_nobody_may_have_is_refused_and_changes_nothing() {
    let mut rig = Rig::new(vec![ALL(1)]);
    let conn = rig.establish(1);
    rig.outputs();
    let wrong = SpeakerConfig::new(0, Ipv4Addr::new(10, 0, 0, 9));
    assert!(rig.speaker.reconfigure(wrong, vec![ALL(1)], rig.now).is_err());
    assert_eq!(notifications(&rig.outputs(), conn), []);
    assert_eq!(rig.speaker.config().asn, US);
}
