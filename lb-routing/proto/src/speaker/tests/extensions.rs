//! Enhanced route refresh (RFC 7313), extended messages (RFC 8654), IPv6 next hops of IPv4 routes (RFC 8950).

use super::*;

const V4: Family = Family::IPV4_UNICAST;
const V6: Family = Family::IPV6_UNICAST;

fn by_ipv6() -> Capability {
    Capability::ExtendedNextHop(vec![(V4, 2)])
}

impl Rig {
    fn establish_extended(&mut self, number: u8, extensions: &[Capability]) -> ConnId {
        let mut capabilities: Vec<_> = [V4, V6].map(Capability::Multiprotocol).into();
        capabilities.extend_from_slice(extensions);
        self.establish_as(number, capabilities)
    }

    fn mark(&mut self, conn: ConnId, family: Family, subtype: u8) {
        self.hear(conn, &Message::RefreshMark(family, subtype));
    }

    /// Prefixes of the RIB.
    fn prefixes(&self) -> Vec<String> {
        self.speaker.routes().iter().map(|path| path.prefix.to_string()).collect()
    }
}

/// What is said on a connection, in words.
fn said(outputs: &[Output], on: ConnId) -> Vec<String> {
    let words = |message: Message| match message {
        Message::RefreshMark(family, subtype) => format!("mark {subtype} of {}", family.afi),
        Message::Update(update) => match update.end_of_rib {
            Some(family) => format!("end of {}", family.afi),
            None => format!("{} routes", update.announced.len()),
        },
        other @ (Message::Open(_)
        | Message::Notification(_)
        | Message::Keepalive
        | Message::RouteRefresh(_)) => format!("{other:?}"),
    };
    messages(outputs, on).into_iter().map(words).collect()
}

#[test]
fn what_is_told_again_stands_between_marks_where_that_was_agreed_on() {
    for (extensions, expected) in [
        (&[Capability::EnhancedRouteRefresh][..], &["mark 1 of 1", "1 routes", "mark 2 of 1"][..]),
        (&[], &["1 routes"]),
    ] {
        let mut rig = Rig::new(vec![peer(1, Import::All, Export::Vips)]);
        let conn = rig.establish_extended(1, extensions);
        rig.originate(&["203.0.113.1/32"]);
        rig.outputs();
        rig.hear(conn, &Message::RouteRefresh(V4));
        assert_eq!(said(&rig.outputs(), conn), expected);
    }
    // Nothing to tell is told, too.
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::Vips)]);
    let conn = rig.establish_extended(1, &[Capability::EnhancedRouteRefresh]);
    rig.outputs();
    rig.hear(conn, &Message::RouteRefresh(V6));
    assert_eq!(said(&rig.outputs(), conn), ["mark 1 of 2", "mark 2 of 2"]);
    // Each is counted as what it is: of UPDATEs there were the two families' End-of-RIB.
    let status = rig.speaker.peers().remove(0);
    let sent = Messages { open: 1, update: 2, keepalive: 1, route_refresh: 2, notification: 0 };
    assert_eq!(status.messages_sent, sent);
    let received = Messages { open: 1, keepalive: 1, route_refresh: 1, ..Messages::default() };
    assert_eq!(status.messages_received, received);
    rig.speaker.handle(Input::Shutdown, rig.now);
    assert_eq!(rig.speaker.peers()[0].messages_sent, Messages { notification: 1, ..sent });
}

#[test]
fn what_a_neighbour_does_not_tell_again_between_its_marks_is_gone() {
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::None)]);
    let conn = rig.establish_extended(1, &[Capability::EnhancedRouteRefresh]);
    rig.announce(conn, &[65101], neighbour(1), &["10.1.0.0/16", "10.2.0.0/16"]);
    rig.announce(conn, &[65101], "2001:db8::2".parse().unwrap(), &["2001:db8:5::/48"]);
    rig.mark(conn, V4, wire::REFRESH_BEGINS);
    rig.announce(conn, &[65101], neighbour(1), &["10.2.0.0/16"]);
    // A subtype that nobody knows is ignored (RFC 7313 §5), and so is an end of what has not begun.
    rig.mark(conn, V4, 9);
    rig.mark(conn, V6, wire::REFRESH_ENDS);
    assert_eq!(rig.prefixes().len(), 3);
    rig.outputs();
    rig.mark(conn, V4, wire::REFRESH_ENDS);
    assert_eq!(rig.prefixes(), ["10.2.0.0/16", "2001:db8:5::/48"]);
    assert_eq!(routes(&rig.outputs()), [change("10.1.0.0/16", &[])]);
    assert_eq!(rig.speaker.peers()[0].prefixes_received, 2);
}

#[test]
fn a_neighbour_has_the_table_walked_for_its_marks_only_so_often() {
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::None)]);
    let conn = rig.establish_extended(1, &[Capability::EnhancedRouteRefresh]);
    let again = |rig: &mut Rig| {
        rig.announce(conn, &[65101], neighbour(1), &["10.1.0.0/16"]);
        rig.mark(conn, V4, wire::REFRESH_BEGINS);
        rig.mark(conn, V4, wire::REFRESH_ENDS);
        rig.prefixes().len()
    };
    let left: Vec<_> = (0..1000).map(|_| again(&mut rig)).collect();
    assert_eq!(left.iter().filter(|left| **left == 0).count(), 16);
    assert_eq!(left[16..], [1; 984]);
    let ignored = |it: &Output| matches!(it, Output::Event(Event::Malformed { what, .. }) if what.contains("ignored (RFC 7313)"));
    assert_eq!(rig.outputs().iter().filter(|it| ignored(it)).count(), 32);
    rig.now += Duration::from_secs(10);
    assert_eq!(again(&mut rig), 0);
}

#[test]
fn a_refresh_that_never_ends_has_a_bound() {
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::None)]);
    let conn = rig.establish_extended(1, &[Capability::EnhancedRouteRefresh]);
    rig.announce(conn, &[65101], neighbour(1), &["10.1.0.0/16"]);
    rig.mark(conn, V4, wire::REFRESH_BEGINS);
    let start = rig.now;
    while rig.prefixes().len() == 1 {
        assert!(rig.now < start + Duration::from_secs(361));
        rig.hear(conn, &Message::Keepalive);
        rig.wait();
    }
    assert!(rig.now >= start + Duration::from_secs(360));
}

#[test]
fn marks_that_were_not_agreed_on_are_ordinary_refreshes() {
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::Vips)]);
    let conn = rig.establish_extended(1, &[]);
    rig.originate(&["203.0.113.1/32"]);
    rig.announce(conn, &[65101], neighbour(1), &["10.1.0.0/16"]);
    rig.outputs();
    rig.mark(conn, V4, wire::REFRESH_BEGINS);
    rig.mark(conn, V4, wire::REFRESH_ENDS);
    assert_eq!(announced(&rig.outputs(), conn).len(), 1);
    assert_eq!(rig.prefixes().len(), 2);
}

#[test]
fn ipv4_routes_have_ipv6_next_hops_both_ways_where_that_was_agreed_on() {
    let hop: IpAddr = "2001:db8::2".parse().unwrap();
    let six = |number: u8| -> IpAddr { format!("2001:db8:{number}::2").parse().unwrap() };
    let peers = [1, 2].map(|number| PeerConfig {
        address: six(number),
        ..peer(number, Import::All, Export::All)
    });
    let mut rig = Rig::new(peers.to_vec());
    let conns = [1, 2].map(|number| {
        let conn = rig.accept(six(number), "2001:db8::1".parse().unwrap());
        let asn = 65100 + u32::from(number);
        let mut capabilities: Vec<_> = [V4, V6].map(Capability::Multiprotocol).into();
        capabilities.extend((number == 1).then(by_ipv6));
        capabilities.push(Capability::FourOctetAs(asn));
        let router_id = Ipv4Addr::new(1, 1, 1, number);
        rig.hear(conn, &Message::Open(Open { asn, hold_time_secs: 90, router_id, capabilities }));
        rig.hear(conn, &Message::Keepalive);
        conn
    });
    rig.originate(&["203.0.113.1/32"]);
    rig.announce(conns[0], &[65101], hop, &["10.1.0.0/16"]);
    let outputs = rig.outputs();
    assert_eq!(routes(&outputs), [change("10.1.0.0/16", &[hop])]);
    let vip = "203.0.113.1/32 via 2001:db8::1 Some([Sequence([65001])])";
    assert_eq!(announced(&outputs, conns[0]), [vip]);
    // The other one cannot be told of either.
    assert_eq!(announced(&outputs, conns[1]), Vec::<String>::new());
    rig.withdraw(conns[0], &["10.1.0.0/16"]);
    assert_eq!(routes(&rig.outputs()), [change("10.1.0.0/16", &[])]);
    // It may not say so either (RFC 7606 §7.11).
    let last = conns[1];
    rig.announce(last, &[65102], hop, &["10.2.0.0/16"]);
    let refusals = messages(&rig.outputs(), last).into_iter().filter_map(|message| {
        let Message::Notification(refusal) = message else { return None };
        Some(((refusal.code, refusal.subcode), refusal.data[..5].to_vec()))
    });
    let attribute = vec![0x80, 14, 24, 0, 1];
    assert_eq!(refusals.collect::<Vec<_>>(), [(wire::error::OPTIONAL_ATTRIBUTE_ERROR, attribute)]);
}

#[test]
fn a_route_whose_attributes_need_an_extended_message_is_told_who_takes_these() {
    let peers = (1..=3).map(|number| peer(number, Import::All, Export::All)).collect();
    let mut rig = Rig::new(peers);
    let teller = rig.establish_extended(1, &[Capability::ExtendedMessage]);
    let taker = rig.establish_extended(2, &[Capability::ExtendedMessage]);
    let other = rig.establish_extended(3, &[]);
    rig.outputs();
    let large = Attributes { communities: vec![7; 3000], ..attributes(&[65101]) };
    let limit = (wire::PathIds::NONE, wire::MAX_EXTENDED_LEN);
    let encoded = wire::encode_attributes(&large, neighbour(1), CONTEXT, limit);
    let mut packer = wire::Packer::new(limit.0, limit.1);
    packer.announce_ipv4(&encoded.unwrap(), [(0, prefix("10.1.0.0/16"))].into_iter());
    rig.receive(teller, &packer.finish().0);
    let outputs = rig.outputs();
    assert_eq!(routes(&outputs), [change("10.1.0.0/16", &[neighbour(1)])]);
    let octets = |on| {
        let of = |output: &Output| {
            let Output::Send { conn, bytes } = output else { return 0 };
            if *conn == on { bytes.len() } else { 0 }
        };
        outputs.iter().map(of).sum::<usize>()
    };
    assert!(octets(taker) > 12_000);
    assert_eq!(octets(other), 0);
}

#[test]
fn who_takes_no_extended_messages_ends_the_session_of_who_sends_one() {
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::All)]);
    let conn = rig.establish_extended(1, &[]);
    rig.outputs();
    let header = [&[0xff; 16][..], &[0x10, 1, 2]].concat();
    rig.receive(conn, &header);
    let refusal = Notification::with_data(wire::error::BAD_MESSAGE_LENGTH, [0x10, 1]);
    assert!(messages(&rig.outputs(), conn).contains(&Message::Notification(refusal)));
}

#[test]
fn changes_are_told_no_more_often_than_the_advertisement_interval_says() {
    let slow = PeerConfig {
        advertisement_interval: Duration::from_secs(30),
        ..peer(1, Import::All, Export::Vips)
    };
    let mut rig = Rig::new(vec![slow, peer(2, Import::All, Export::Vips)]);
    rig.originate(&["203.0.113.1/32"]);
    let conns = [1, 2].map(|number| rig.establish(number));
    let outputs = rig.outputs();
    assert_eq!(said(&outputs, conns[0])[2..], ["1 routes", "end of 1", "end of 2"]);
    // Two changes: one neighbour hears of each at once, the other one of what is left of both after its interval.
    let start = rig.now;
    let mut heard = [0, 0];
    let changes: [&[&str]; 2] = [&["203.0.113.2/32"], &["203.0.113.3/32"]];
    for prefixes in changes {
        rig.originate(prefixes);
        let outputs = rig.outputs();
        heard = [0, 1].map(|place| heard[place] + updates(&outputs, conns[place]).len());
    }
    assert_eq!(heard, [0, 4]);
    let mut said = Vec::new();
    while said.is_empty() {
        rig.wait();
        for conn in conns {
            rig.hear(conn, &Message::Keepalive);
        }
        said = updates(&rig.outputs(), conns[0]);
    }
    assert_eq!(rig.now - start, Duration::from_secs(30));
    assert_eq!(said.iter().map(|update| update.announced.len()).sum::<usize>(), 1);
    assert_eq!(said.iter().map(|update| update.withdrawn.len()).sum::<usize>(), 1);
}
