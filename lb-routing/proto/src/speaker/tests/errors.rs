//! What bad neighbours get.

use super::*;

fn keepalive_with(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = wire::encode(&Message::Keepalive, CONTEXT);
    change(&mut bytes);
    bytes
}

#[test]
fn a_bad_header_ends_the_session_with_its_notification_and_the_session_returns() {
    let cases = [
        (keepalive_with(|bytes| bytes[15] = 0), wire::error::CONNECTION_NOT_SYNCHRONIZED),
        (keepalive_with(|bytes| bytes[17] = 18), wire::error::BAD_MESSAGE_LENGTH),
        (keepalive_with(|bytes| bytes[18] = 77), wire::error::BAD_MESSAGE_TYPE),
    ];
    for (bad, code) in cases {
        let mut rig = Rig::new(vec![peer(1, Import::All, Export::None)]);
        let conn = rig.establish(1);
        rig.announce(conn, &[65101], neighbour(1), &["10.9.0.0/16"]);
        assert_eq!(routes(&rig.outputs()), [change("10.9.0.0/16", &[neighbour(1)])]);

        rig.receive(conn, &bad);
        let outputs = rig.outputs();
        let sent = messages(&outputs, conn);
        let [Message::Notification(notification)] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!((notification.code, notification.subcode), code);
        assert!(outputs.contains(&Output::Close { conn }));
        assert_eq!(routes(&outputs), [change("10.9.0.0/16", &[])]);
        assert_eq!(rig.state(0), State::Idle);
        assert!(rig.speaker.routes().is_empty());

        rig.wait();
        assert_eq!(rig.state(0), State::Active);
        rig.establish(1);
        assert_eq!(rig.state(0), State::Established);
    }
}

#[test]
fn a_stranger_is_turned_away() {
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::All)]);
    rig.outputs();
    let conn = rig.accept(neighbour(9), ourselves(1));
    let outputs = rig.outputs();
    let rejected = Notification::new(wire::error::CONNECTION_REJECTED);
    assert_eq!(messages(&outputs, conn), [Message::Notification(rejected)]);
    assert!(outputs.contains(&Output::Close { conn }));
    rig.hear(conn, &Message::Keepalive);
    assert_eq!(rig.outputs(), []);
    assert!(rig.speaker.conns.is_empty());
}

#[test]
fn connections_of_a_neighbour_leave_nothing_behind() {
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::All)]);
    for _ in 0..100 {
        rig.accept(neighbour(1), ourselves(1));
        assert_eq!(rig.speaker.conns.len(), 1);
    }
    let conn = rig.establish(1);
    rig.accept(neighbour(1), ourselves(1));
    assert_eq!(rig.speaker.conns.len(), 1);
    rig.speaker.handle(Input::Closed { conn, error: "reset".into() }, rig.now);
    assert!(rig.speaker.conns.is_empty());
}

#[test]
fn a_malformed_update_is_reported_and_its_routes_are_withdrawn_without_a_reset() {
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::None)]);
    let conn = rig.establish(1);
    rig.announce(conn, &[65101], neighbour(1), &["10.9.0.0/16"]);
    rig.outputs();
    // ORIGIN 7 does not exist (RFC 7606 §7.1).
    let mut update = Vec::new();
    let prefixes = [prefix("10.9.0.0/16")];
    wire::encode_updates(&attributes(&[65101]), neighbour(1), &prefixes, CONTEXT, &mut update)
        .unwrap();
    let mut update = update.concat();
    let origin = update.windows(3).position(|bytes| bytes == [0x40, 1, 1]).unwrap();
    update[origin + 3] = 7;
    rig.receive(conn, &update);
    let outputs = rig.outputs();
    assert_eq!(routes(&outputs), [change("10.9.0.0/16", &[])]);
    let malformed = |output: &&Output| matches!(output, Output::Event(Event::Malformed { .. }));
    assert_eq!(outputs.iter().filter(malformed).count(), 1);
    assert_eq!(rig.state(0), State::Established);
}

#[test]
fn too_many_prefixes_end_the_session() {
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::None)]);
    rig.speaker.max_prefixes = 2;
    let conn = rig.establish(1);
    rig.announce(conn, &[65101], neighbour(1), &["10.1.0.0/16", "10.2.0.0/16"]);
    assert_eq!(rig.state(0), State::Established);
    rig.outputs();
    rig.announce(conn, &[65101], neighbour(1), &["10.3.0.0/16"]);
    let cease = Notification::new(wire::error::MAXIMUM_NUMBER_OF_PREFIXES_REACHED);
    assert_eq!(messages(&rig.outputs(), conn), [Message::Notification(cease)]);
    assert_eq!(rig.state(0), State::Idle);
    assert!(rig.speaker.routes().is_empty());
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let good = || peer(1, Import::None, Export::None);
    let config = |asn, router_id: u8, max_paths| SpeakerConfig {
        max_paths,
        ..SpeakerConfig::new(asn, Ipv4Addr::from([0, 0, 0, router_id]))
    };
    let try_with =
        |config, peers| Speaker::new(config, peers, Seeds::of(1), Instant::now()).map(|_| ());
    assert_eq!(try_with(config(US, 1, 1), vec![good()]), Ok(()));
    assert_eq!(try_with(config(0, 1, 1), vec![]), Err(ConfigError::ReservedAs { asn: 0 }));
    assert_eq!(try_with(config(US, 0, 1), vec![]), Err(ConfigError::RouterIdZero));
    assert_eq!(try_with(config(US, 1, 0), vec![]), Err(ConfigError::MaxPaths { max_paths: 0 }));
    let secs = Duration::from_secs;
    let loops = PeerConfig { asn: US, local_as: Some(7), ..peer(1, Import::All, Export::None) };
    let limit = |limit, warn_percent| {
        let beyond = config::BeyondLimit::Warn;
        Some(config::MaxPrefixes { limit, warn_percent, beyond })
    };
    let bad: [(PeerConfig, &str); 11] = [
        (PeerConfig { max_prefixes: limit(0, 50), ..good() }, "max_prefixes 0"),
        (PeerConfig { max_prefixes: limit(9, 101), ..good() }, "101 %"),
        (PeerConfig { add_path_send: 65, ..good() }, "add_path_send 65"),
        (PeerConfig { route_reflector_client: true, ..good() }, "route_reflector_client needs"),
        (loops, "allow_as_in"),
        (PeerConfig { address: "224.0.0.1".parse().unwrap(), ..good() }, "unicast"),
        (PeerConfig { port: 0, ..good() }, "port 0"),
        (PeerConfig { hold_time: secs(2), ..good() }, "hold time 2 s"),
        (PeerConfig { hold_time: secs(70_000), ..good() }, "hold time 70000 s"),
        (PeerConfig { connect_retry: secs(0), ..good() }, "connect retry"),
        (PeerConfig { source: Some("::1".parse().unwrap()), ..good() }, "families"),
    ];
    for (bad, words) in bad {
        let error = try_with(config(US, 1, 1), vec![bad]).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let mapped = PeerConfig { address: "::ffff:10.0.1.2".parse().unwrap(), ..good() };
    let error = try_with(config(US, 1, 1), vec![good(), mapped]).unwrap_err();
    assert!(matches!(error, ConfigError::DuplicatePeer { .. }));
}

#[test]
fn many_unique_attribute_sets_end_the_session_that_they_came_by_and_no_other() {
    let peers = (1..=2).map(|number| peer(number, Import::All, Export::None)).collect();
    let mut rig = Rig::new(peers);
    rig.speaker.max_attribute_bytes = 10_000;
    let (wild, tame) = (rig.establish(1), rig.establish(2));
    rig.announce(tame, &[65102], neighbour(2), &["10.9.0.0/16"]);
    rig.outputs();
    for number in 1.. {
        let text = format!("10.{number}.0.0/16");
        rig.announce(wild, &[65101, number], neighbour(1), &[&text]);
        if rig.state(0) != State::Established {
            break;
        }
        assert!(number < 200, "its sets take {} octets", rig.speaker.rib.attribute_bytes_of(0));
    }
    let last = messages(&rig.outputs(), wild).pop();
    let resources = Notification::new(wire::error::OUT_OF_RESOURCES);
    assert_eq!(last, Some(Message::Notification(resources)));
    assert_eq!(rig.speaker.rib.attribute_bytes_of(0), 0, "nothing of it is left");
    let left: Vec<_> = rig.speaker.routes().iter().map(|path| path.prefix).collect();
    assert_eq!((left, rig.state(1)), (vec![prefix("10.9.0.0/16")], State::Established));
}

#[test]
fn a_neighbour_whose_updates_are_all_malformed_is_counted_and_fills_no_log() {
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::None)]);
    let conn = rig.establish(1);
    // ORIGIN 9.
    let list = [0x40, 1, 1, 9];
    let body = [&[0, 0, 0, list.len() as u8][..], &list, &[8, 10]].concat();
    let header = [&[0xff; 16][..], &[0, 19 + body.len() as u8, 2]].concat();
    let malformed = [header, body].concat();
    let lines = |rig: &mut Rig| {
        (0..1000).for_each(|_| rig.receive(conn, &malformed));
        let said = |it: Output| {
            let Output::Event(Event::Malformed { what, .. }) = it else { return None };
            Some(what)
        };
        rig.outputs().into_iter().filter_map(said).collect::<Vec<_>>()
    };
    let said = lines(&mut rig);
    assert_eq!((said.len(), rig.speaker.peers()[0].malformed), (32, 1000));
    assert!(said[31].ends_with("; more of it within 10 s is only counted"), "{}", said[31]);
    rig.now += Duration::from_secs(10);
    assert_eq!((lines(&mut rig).len(), rig.state(0)), (32, State::Established));
}
