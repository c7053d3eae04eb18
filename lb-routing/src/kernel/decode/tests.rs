//! What of a message counts, and what makes a route the kernel's business.

use netlink_packet_core::Parseable as _;
use netlink_packet_route::link::{InfoKind, LinkHeader};
use netlink_packet_route::route::{RouteLwEnCapType, RouteLwTunnelEncap};

use super::*;

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// A route to 2001:db8:1::/48 in the main table.
fn message(attributes: &[RouteAttribute]) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet6;
    message.header.destination_prefix_length = 48;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.kind = RouteType::Unicast;
    let destination = RouteAddress::Inet6(v6("2001:db8:1::"));
    message.attributes.push(RouteAttribute::Destination(destination));
    message.attributes.extend_from_slice(attributes);
    message
}

fn via() -> [RouteAttribute; 2] {
    [RouteAttribute::Gateway(RouteAddress::Inet6(v6("2001:db8::2"))), RouteAttribute::Oif(3)]
}

fn hop(mtu: Option<u32>) -> KernelNextHop {
    KernelNextHop { ifindex: 3, gateway: Some(v6("2001:db8::2").into()), weight: 1, mtu }
}

#[test]
fn a_route_for_some_sources_is_another_one_than_that_for_all() {
    let mut narrow = message(&via());
    let source = RouteAddress::Inet6(v6("2001:db8:7::"));
    narrow.header.source_prefix_length = 48;
    narrow.attributes.push(RouteAttribute::Source(source));
    let narrow = route(&narrow, &NextHops::default()).unwrap().route.key;
    assert_eq!(narrow.source, Some("2001:db8:7::/48".parse().unwrap()));
    let wide = route(&message(&via()), &NextHops::default()).unwrap().route.key;
    assert_eq!(wide.source, None);
    assert_eq!(RouteKey { source: None, ..narrow }, wide);
}

#[test]
fn the_mtu_of_a_route_is_that_of_each_of_its_next_hops() {
    let kind = |attributes: &[RouteAttribute]| {
        route(&message(attributes), &NextHops::default()).unwrap().route.kind
    };
    let mtu = |bytes| RouteAttribute::Metrics(vec![RouteMetric::Lock(4), RouteMetric::Mtu(bytes)]);
    let [gateway, link] = via();
    assert_eq!(kind(&via()), KernelRouteKind::Unicast(vec![hop(None)]));
    let single = kind(&[gateway.clone(), link, mtu(1300)]);
    assert_eq!(single, KernelRouteKind::Unicast(vec![hop(Some(1300))]));
    let mut way = RouteNextHop::default();
    way.interface_index = 3;
    way.attributes.push(gateway);
    let several = kind(&[RouteAttribute::MultiPath(vec![way.clone(), way]), mtu(1300)]);
    assert_eq!(several, KernelRouteKind::Unicast(vec![hop(Some(1300)); 2]));
}

#[test]
fn what_a_frame_to_a_mac_cannot_say_is_the_kernels() {
    for special in [
        RouteAttribute::EncapType(RouteLwEnCapType::Seg6),
        RouteAttribute::Encap(vec![RouteLwTunnelEncap::Other(
            netlink_packet_core::DefaultNla::new(1, vec![0; 4]),
        )]),
    ] {
        let found =
            route(&message(&[&via()[..], &[special]].concat()), &NextHops::default()).unwrap();
        assert_eq!(found.route.kind, KernelRouteKind::Kernel);
    }
    for (kind, found) in [
        (RouteType::Unreachable, KernelRouteKind::Reject),
        (RouteType::Prohibit, KernelRouteKind::Reject),
        (RouteType::Throw, KernelRouteKind::Kernel),
        (RouteType::Other(99), KernelRouteKind::Kernel),
    ] {
        let mut refusing = message(&[]);
        refusing.header.kind = kind;
        assert_eq!(route(&refusing, &NextHops::default()).unwrap().route.kind, found);
    }
}

#[test]
fn routes_of_other_tables_than_main_and_local_do_not_count() {
    for (table, counts) in [(254, true), (255, true), (253, false), (7, false), (1000, false)] {
        let found = route(
            &message(&[&via()[..], &[RouteAttribute::Table(table)]].concat()),
            &NextHops::default(),
        );
        assert_eq!(found.is_some(), counts, "{table}");
    }
}

#[test]
fn a_link_knows_whether_what_it_is_a_port_of_is_a_vrf() {
    let controller = |attributes: &[LinkAttribute]| {
        let mut message = LinkMessage::default();
        message.header = LinkHeader::default();
        message.attributes = attributes.to_vec();
        link(&message).unwrap().controller
    };
    let port = |kind| {
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::PortKind(kind)])
    };
    let of = LinkAttribute::Controller(7);
    assert_eq!(controller(&[]), None);
    assert_eq!(controller(&[LinkAttribute::Controller(0)]), None);
    let vrf = Some(Controller { ifindex: 7, is_vrf: true });
    assert_eq!(controller(&[of.clone(), port(InfoPortKind::Vrf)]), vrf);
    assert_eq!(controller(&[port(InfoPortKind::Vrf), of.clone()]), vrf);
    let bridge = Some(Controller { ifindex: 7, is_vrf: false });
    assert_eq!(controller(&[of.clone(), port(InfoPortKind::Bridge)]), bridge);
    assert_eq!(controller(&[of, port(InfoPortKind::Other("openvswitch".into()))]), None);
}

/// As the kernel says them of `link add link eth0 name eth0.100 type vlan protocol 802.1ad id 100`, without what does not matter.
#[test]
fn a_vlan_is_known_by_its_number_its_kind_and_the_interface_below() {
    const HEADER: [u8; 16] = [0, 0, 1, 0, 9, 0, 0, 0, 0x43, 0x10, 1, 0, 0, 0, 0, 0];
    const NAME: [u8; 16] = *b"\x0d\0\x03\0eth0.100\0\0\0\0";
    /// `IFLA_LINK` and, of an interface below that is in another namespace, `IFLA_LINK_NETNSID`.
    const BELOW: [u8; 8] = [8, 0, 5, 0, 2, 0, 0, 0];
    const ELSEWHERE: [u8; 8] = [8, 0, 37, 0, 0, 0, 0, 0];
    // `IFLA_LINKINFO` of `IFLA_INFO_KIND` and `IFLA_INFO_DATA`: `IFLA_VLAN_PROTOCOL`, `IFLA_VLAN_ID`, `IFLA_VLAN_FLAGS`.
    const INFO: [u8; 52] = [
        52, 0, 18, 0, 9, 0, 1, 0, b'v', b'l', b'a', b'n', 0, 0, 0, 0, 36, 0, 2, 0, 6, 0, 5, 0,
        0x88, 0xa8, 0, 0, 6, 0, 1, 0, 100, 0, 0, 0, 12, 0, 2, 0, 1, 0, 0, 0, 255, 255, 255, 255, 4,
        0, 3, 0,
    ];
    let read = |parts: &[&[u8]]| {
        let bytes = parts.concat();
        link(&LinkMessage::parse(&bytes).unwrap()).unwrap()
    };
    let known = read(&[&HEADER, &NAME, &BELOW, &INFO]);
    assert_eq!(known.name, "eth0.100");
    assert_eq!(known.vlan, Some(Vlan { link: 2, is_service_tag: true, id: 100 }));
    assert_eq!(read(&[&HEADER, &NAME, &INFO, &BELOW]).vlan, known.vlan);
    let mut other = INFO;
    other[24..26].copy_from_slice(&[0x81, 0]);
    let other = read(&[&HEADER, &NAME, &BELOW, &other]).vlan.unwrap();
    assert!(!other.is_service_tag);
    assert_eq!(read(&[&HEADER, &NAME, &BELOW, &ELSEWHERE, &INFO]).vlan, None);
    assert_eq!(read(&[&HEADER, &NAME, &INFO]).vlan, None);
    assert_eq!(read(&[&HEADER, &NAME, &BELOW]).vlan, None);
}
