//! Neighbours that tell many prefixes.

use std::sync::Arc;

use super::*;
use crate::config::{BeyondLimit, MaxPrefixes};
use crate::policy::{Actions, Chain, Condition, Policy, PrefixSet, Statement, Verdict};

fn limited(beyond: BeyondLimit) -> PeerConfig {
    let max_prefixes = Some(MaxPrefixes { limit: 4, warn_percent: 50, beyond });
    PeerConfig { max_prefixes, ..peer(1, Import::All, Export::None) }
}

/// What is said of limits.
fn said(outputs: &[Output]) -> Vec<String> {
    let mut all = Vec::new();
    for output in outputs {
        if let Output::Event(Event::PrefixLimit { what, .. }) = output {
            all.push(what.clone());
        }
    }
    all
}

impl Rig {
    fn tell_one(&mut self, conn: ConnId, number: u8) -> Vec<Output> {
        self.announce(conn, &[65101], neighbour(1), &[&format!("10.{number}.0.0/16")]);
        self.outputs()
    }
}

#[test]
fn a_limit_is_warned_of_once_until_there_are_fewer_again() {
    let mut rig = Rig::new(vec![limited(BeyondLimit::Warn)]);
    let conn = rig.establish(1);
    let heard: Vec<_> = (1..=6).map(|number| said(&rig.tell_one(conn, number))).collect();
    assert_eq!(heard.iter().map(Vec::len).collect::<Vec<_>>(), [0, 1, 0, 0, 1, 0]);
    assert_eq!(heard[1], ["tells 2 prefixes, max_prefixes is 4"]);
    assert_eq!(heard[4], ["tells 5 prefixes, more than max_prefixes 4: they are taken"]);
    assert_eq!(rig.speaker.routes().len(), 6);
    rig.withdraw(
        conn,
        &["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16", "10.5.0.0/16"],
    );
    assert_eq!(said(&rig.tell_one(conn, 1)).len(), 1);
}

#[test]
fn what_is_beyond_a_limit_is_not_taken_while_what_is_there_changes() {
    let mut rig = Rig::new(vec![limited(BeyondLimit::Discard)]);
    let conn = rig.establish(1);
    let times: usize = (1..=7).map(|number| said(&rig.tell_one(conn, number)).len()).sum();
    assert_eq!((times, rig.speaker.routes().len(), rig.state(0)), (2, 4, State::Established));
    rig.announce(conn, &[65101, 7], neighbour(1), &["10.1.0.0/16"]);
    assert_eq!(rig.speaker.routes()[0].attributes.as_path.to_string(), "65101 7");
    rig.withdraw(conn, &["10.1.0.0/16"]);
    rig.tell_one(conn, 9);
    assert_eq!(rig.speaker.routes().len(), 4);
}

#[test]
fn a_session_beyond_its_limit_ends_and_rests_as_long_as_it_was_told() {
    let cease = Notification::new(wire::error::MAXIMUM_NUMBER_OF_PREFIXES_REACHED);
    for rest in [Some(Duration::from_secs(300)), None] {
        let mut rig = Rig::new(vec![limited(BeyondLimit::End(rest))]);
        let conn = rig.establish(1);
        (1..=4).for_each(|number| drop(rig.tell_one(conn, number)));
        let outputs = rig.tell_one(conn, 5);
        assert_eq!(messages(&outputs, conn), [Message::Notification(cease.clone())]);
        assert_eq!((said(&outputs).len(), rig.state(0)), (1, State::Idle));
        assert_eq!(rig.speaker.routes(), []);
        let timer = rig.speaker.poll_timeout().map(|at| at - rig.now);
        assert_eq!(timer, rest);
        // Somebody clears it.
        rig.speaker.clear(neighbour(1), Clear::Session, rig.now);
        assert_eq!(rig.state(0), State::Active);
        rig.establish(1);
        assert_eq!(rig.state(0), State::Established);
    }
}

#[test]
fn another_limit_brings_a_session_back_and_a_lower_one_ends_it() {
    let mut rig = Rig::new(vec![limited(BeyondLimit::End(None))]);
    let conn = rig.establish(1);
    (1..=5).for_each(|number| drop(rig.tell_one(conn, number)));
    assert_eq!(rig.state(0), State::Idle);
    let more = PeerConfig { max_prefixes: None, ..limited(BeyondLimit::Warn) };
    rig.speaker.configure(vec![more], rig.now).unwrap();
    assert_eq!(rig.state(0), State::Active);
    let conn = rig.establish(1);
    (1..=5).for_each(|number| drop(rig.tell_one(conn, number)));
    rig.speaker.configure(vec![limited(BeyondLimit::End(None))], rig.now).unwrap();
    assert_eq!(rig.state(0), State::Idle);
}

/// A limit, and import that accepts one prefix and what is within.
fn only(text: &str, limit: u32, beyond: BeyondLimit) -> PeerConfig {
    let set = PrefixSet::new(vec![format!("{text} le 32").parse().unwrap()]);
    let statement = Statement {
        name: String::new(),
        conditions: vec![Condition::Prefix(Arc::new(set))],
        actions: Actions::default(),
        verdict: Verdict::Accept,
    };
    let statements = vec![statement];
    let policy = Policy { name: "p".into(), statements, otherwise: Verdict::Next };
    let import = Import::Policies(Chain::new(vec![Arc::new(policy)]));
    let max_prefixes = Some(MaxPrefixes { limit, warn_percent: 100, beyond });
    PeerConfig { max_prefixes, ..peer(1, import, Export::None) }
}

#[test]
fn a_policy_that_lets_in_as_many_other_prefixes_as_the_limit_allows_ends_no_session() {
    let told = ["10.2.0.0/24", "10.2.1.0/24", "10.2.2.0/24", "10.3.0.0/24", "10.3.1.0/24"];
    let wanted = ["10.2.0.0/24", "10.2.1.0/24", "10.2.2.0/24"].map(prefix);
    for beyond in [BeyondLimit::End(None), BeyondLimit::Discard] {
        for refreshable in [true, false] {
            let mut rig = Rig::new(vec![only("10.3.0.0/16", 2, beyond)]);
            let conn = match refreshable {
                true => rig.establish_refreshable(1),
                false => rig.establish(1),
            };
            rig.announce(conn, &[65101], neighbour(1), &told);
            rig.outputs();
            assert_eq!(rig.speaker.peers()[0].prefixes_received, 2);
            // One more is let in than before, with room for it.
            rig.speaker.configure(vec![only("10.2.0.0/16", 3, beyond)], rig.now).unwrap();
            let asks = |it: &Message| matches!(it, Message::RouteRefresh(_));
            let asked = messages(&rig.outputs(), conn).iter().any(asks);
            assert_eq!(asked, refreshable, "{beyond:?}");
            if asked {
                rig.announce(conn, &[65101], neighbour(1), &told);
            }
            let outputs = rig.outputs();
            assert_eq!(messages(&outputs, conn), [], "{beyond:?}, {refreshable}");
            let routes: Vec<_> = rig.speaker.routes().iter().map(|route| route.prefix).collect();
            assert_eq!((routes, rig.state(0)), (wanted.to_vec(), State::Established));
        }
    }
}

#[test]
fn a_policy_that_lets_in_more_than_the_limit_ends_the_session_once_all_is_judged() {
    let end = BeyondLimit::End(None);
    let mut rig = Rig::new(vec![only("10.3.0.0/16", 2, end)]);
    let conn = rig.establish(1);
    let told = ["10.2.0.0/24", "10.2.1.0/24", "10.2.2.0/24", "10.3.0.0/24"];
    rig.announce(conn, &[65101], neighbour(1), &told);
    rig.outputs();
    rig.speaker.configure(vec![only("10.2.0.0/16", 2, end)], rig.now).unwrap();
    let cease = Notification::new(wire::error::MAXIMUM_NUMBER_OF_PREFIXES_REACHED);
    assert_eq!(messages(&rig.outputs(), conn), [Message::Notification(cease)]);
    assert_eq!((rig.speaker.routes(), rig.state(0)), (Vec::new(), State::Idle));
}
