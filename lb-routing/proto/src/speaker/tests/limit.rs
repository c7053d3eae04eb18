//! Neighbours that tell many prefixes.

use super::*;
use crate::config::{BeyondLimit, MaxPrefixes};

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
