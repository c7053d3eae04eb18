//! What is told of events that come while the tables are read.

use netlink_packet_core::{NetlinkHeader, NetlinkMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteType};

use super::*;

const PREFIX: &str = "10.1.0.0/16";

fn route(gateway: u8) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = 16;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.kind = RouteType::Unicast;
    let destination = RouteAddress::Inet([10, 1, 0, 0].into());
    message.attributes.push(RouteAttribute::Destination(destination));
    if gateway > 0 {
        let gateway = RouteAddress::Inet([10, 0, 0, gateway].into());
        message.attributes.push(RouteAttribute::Gateway(gateway));
        message.attributes.push(RouteAttribute::Oif(3));
    }
    message
}

/// A route that says nothing but an object.
fn by_object(id: u32) -> RouteMessage {
    let mut message = route(0);
    message.attributes.push(RouteAttribute::NhId(id));
    message
}

fn message(wire: impl Into<Wire>, flags: u16) -> Message {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    NetlinkMessage::new(header, NetlinkPayload::InnerMessage(wire.into()))
}

fn added(gateway: u8) -> Message {
    message(RouteNetlinkMessage::NewRoute(route(gateway)), 0)
}

fn replaced(gateway: u8) -> Message {
    message(RouteNetlinkMessage::NewRoute(route(gateway)), NLM_F_REPLACE)
}

fn removed(gateway: u8) -> Message {
    message(RouteNetlinkMessage::DelRoute(route(gateway)), 0)
}

fn object(id: u32, gateway: u8) -> Message {
    let gateway = Some([10, 0, 0, gateway].into());
    message(Wire::NextHop(id, Object::Hop { ifindex: 3, gateway }), 0)
}

/// A reading that finds these, while those come.
fn reading(mirror: &mut Mirror, found: &[RouteMessage], meanwhile: Vec<Message>) {
    mirror.begin_reading();
    for route in found {
        mirror.read(RouteNetlinkMessage::NewRoute(route.clone()));
    }
    mirror.end_reading(meanwhile);
}

/// The gateway that is told in the end; 0: the kernel's business; `None`: no route.
fn told(mirror: &mut Mirror, before: Option<u8>) -> Option<u8> {
    mirror.take_events().into_iter().fold(before, |before, event| {
        let Event::Fact(fact) = event else { return before };
        if let Fact::KernelRouteGone(_) = fact {
            return None;
        }
        let Fact::KernelRoute(KernelRoute { key, kind }) = fact else { return before };
        assert_eq!(key.prefix.to_string(), PREFIX);
        Some(match kind {
            KernelRouteKind::Unicast(hops) => match hops[0].gateway {
                Some(IpAddr::V4(gateway)) => gateway.octets()[3],
                Some(IpAddr::V6(_)) | None => panic!("{hops:?}"),
            },
            KernelRouteKind::Kernel | KernelRouteKind::Reject | KernelRouteKind::Blackhole => 0,
        })
    })
}

#[test]
fn a_route_that_changes_while_tables_are_read_is_what_it_is_in_the_end_whatever_the_reading_saw() {
    type Case = (Vec<Message>, Option<u8>);
    let cases: [fn() -> Case; 6] = [
        || (vec![added(2)], Some(2)),
        || (vec![added(2), removed(2)], None),
        || (vec![added(2), replaced(3)], Some(3)),
        || (vec![added(2), removed(2), added(3)], Some(3)),
        || (vec![added(2), replaced(3), replaced(2)], Some(2)),
        || (vec![added(2), replaced(3), removed(3), added(4), removed(4)], None),
    ];
    for (number, case) in cases.iter().enumerate() {
        for seen in [None, Some(2), Some(3), Some(4)] {
            let mut mirror = Mirror::new(7);
            reading(&mut mirror, &[], Vec::new());
            let (meanwhile, wanted) = case();
            let found: Vec<_> = seen.map(route).into_iter().collect();
            reading(&mut mirror, &found, meanwhile);
            assert_eq!(told(&mut mirror, None), wanted, "case {number}, seen {seen:?}");
            assert!(!mirror.wants_reading(), "case {number}, seen {seen:?}");
            // And it is known as that.
            mirror.hear(removed(wanted.unwrap_or(9)));
            assert_eq!(told(&mut mirror, wanted), None, "case {number}, seen {seen:?}");
        }
    }
}

#[test]
fn a_route_that_was_known_before_a_reading_and_changes_meanwhile_is_no_second_one() {
    for seen in [None, Some(2), Some(3)] {
        let mut mirror = Mirror::new(7);
        reading(&mut mirror, &[route(2)], Vec::new());
        let found: Vec<_> = seen.map(route).into_iter().collect();
        reading(&mut mirror, &found, vec![removed(2), added(3)]);
        assert_eq!((told(&mut mirror, None), mirror.wants_reading()), (Some(3), false), "{seen:?}");
        // One beside it is one.
        mirror.hear(added(4));
        assert_eq!((told(&mut mirror, Some(3)), mirror.wants_reading()), (Some(0), true));
    }
}

#[test]
fn an_event_from_before_the_first_reading_is_what_the_reading_found() {
    let mut mirror = Mirror::new(7);
    reading(&mut mirror, &[route(2)], vec![added(2)]);
    assert_eq!((told(&mut mirror, None), mirror.wants_reading()), (Some(2), false));
    // Events were lost: the same. What the reading did not see itself is left to another one.
    mirror.lost_events();
    assert!(mirror.wants_reading());
    reading(&mut mirror, &[route(2)], vec![added(2)]);
    assert_eq!((told(&mut mirror, None), mirror.wants_reading()), (Some(2), false));
    mirror.lost_events();
    reading(&mut mirror, &[route(3)], vec![added(2), removed(2), added(3)]);
    assert_eq!((told(&mut mirror, None), mirror.wants_reading()), (Some(0), true));
    reading(&mut mirror, &[route(3)], Vec::new());
    assert_eq!((told(&mut mirror, None), mirror.wants_reading()), (Some(3), false));
}

#[test]
fn a_route_follows_the_object_that_it_names_at_once_and_goes_with_it() {
    let mut mirror = Mirror::new(7);
    mirror.hear(object(1, 2));
    reading(&mut mirror, &[], Vec::new());
    mirror.hear(object(1, 2));
    mirror.hear(message(RouteNetlinkMessage::NewRoute(by_object(1)), 0));
    assert_eq!(told(&mut mirror, None), Some(2));
    mirror.hear(object(1, 3));
    assert_eq!(told(&mut mirror, Some(2)), Some(3));
    // By a group of it.
    mirror.hear(message(Wire::NextHop(9, Object::Group(vec![(1, 1)])), 0));
    mirror.hear(message(RouteNetlinkMessage::NewRoute(by_object(9)), NLM_F_REPLACE));
    mirror.hear(object(1, 4));
    assert_eq!(told(&mut mirror, Some(3)), Some(4));
    mirror.hear(message(Wire::NextHopGone(9), 0));
    assert_eq!(told(&mut mirror, Some(4)), None);
}

#[test]
fn a_reading_that_fails_takes_nothing_for_gone_and_is_made_again() {
    let mut mirror = Mirror::new(7);
    reading(&mut mirror, &[route(2)], Vec::new());
    mirror.begin_reading();
    mirror.give_up_reading();
    assert_eq!((told(&mut mirror, None), mirror.wants_reading()), (Some(2), true));
    // What a failed one has told goes with the next one.
    mirror.begin_reading();
    mirror.read(RouteNetlinkMessage::NewRoute(route(3)));
    mirror.give_up_reading();
    reading(&mut mirror, &[], Vec::new());
    assert_eq!(told(&mut mirror, None), None);
}

#[test]
fn what_becomes_of_links_and_neighbours_while_tables_are_read_is_told_at_once_and_holds() {
    let link = |flags| {
        let mut message = LinkMessage::default();
        message.header.index = 3;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.header.flags = flags;
        message.attributes.push(LinkAttribute::IfName("eth3".into()));
        RouteNetlinkMessage::NewLink(message)
    };
    let (up, down) = (link(LinkFlags::Up | LinkFlags::LowerUp), link(LinkFlags::Up));
    let neighbour = |state| {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = 3;
        message.header.state = state;
        let address = NeighbourAddress::Inet([10, 0, 0, 2].into());
        message.attributes.push(NeighbourAttribute::Destination(address));
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(vec![2; 6]));
        RouteNetlinkMessage::NewNeighbour(message)
    };
    let (there, silent) = (neighbour(NeighbourState::Reachable), neighbour(NeighbourState::Failed));
    let mut mirror = Mirror::default();
    // Whether the link is up and the neighbour answers, as told last.
    let mut last = (false, false);
    let mut told = |mirror: &mut Mirror| {
        for event in mirror.take_events() {
            if let Event::Fact(Fact::Link(link)) = event {
                last.0 = link.up;
            } else if let Event::Fact(Fact::Neighbour { mac, .. }) = event {
                last.1 = mac.is_some();
            }
        }
        last
    };
    let found = |mirror: &mut Mirror| {
        mirror.read(up.clone());
        mirror.read(there.clone());
    };
    mirror.begin_reading();
    found(&mut mirror);
    mirror.end_reading(Vec::new());
    assert_eq!(told(&mut mirror), (true, true));
    mirror.begin_reading();
    let events = || vec![message(down.clone(), 0), message(silent.clone(), 0)];
    events().iter().for_each(|event| mirror.overhear(event));
    assert_eq!(told(&mut mirror), (false, false), "at once");
    // What the kernel had said before comes after it.
    found(&mut mirror);
    mirror.end_reading(events());
    assert_eq!(told(&mut mirror), (false, false));
}
