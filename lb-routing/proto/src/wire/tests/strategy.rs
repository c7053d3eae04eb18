//! Values and bytes for the properties.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{Ipv4Network, Ipv6Network};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn asn() -> impl Strategy<Value = u32> {
    prop_oneof![1_u32..=65535, 65536..=u32::MAX]
}

/// Sequences never stand side by side: the merge of AS4_PATH joins them.
fn as_path() -> impl Strategy<Value = AsPath> {
    let segment = (vec(asn(), 1..20), vec(asn(), 1..4));
    (vec(segment, 0..4), vec(asn(), 0..255)).prop_map(|(pairs, tail)| {
        let mut segments: Vec<_> = pairs
            .into_iter()
            .flat_map(|(sequence, set)| [Segment::Sequence(sequence), Segment::Set(set)])
            .collect();
        segments.extend((!tail.is_empty()).then_some(Segment::Sequence(tail)));
        AsPath { segments }
    })
}

fn address() -> impl Strategy<Value = Ipv4Addr> {
    any::<u32>().prop_map(Ipv4Addr::from_bits)
}

fn other() -> impl Strategy<Value = Vec<RawAttribute>> {
    let extended = vec(any::<[u8; 7]>(), 1..4).prop_map(|communities| {
        let value = communities.iter().flat_map(|rest| [&[0], rest.as_slice()].concat()).collect();
        RawAttribute { flags: 0xc0, code: 16, value }
    });
    let large = vec(any::<[u8; 12]>(), 1..4).prop_map(|value| RawAttribute {
        flags: 0xe0,
        code: 32,
        value: value.concat(),
    });
    let unknown = (200_u8.., vec(any::<u8>(), 0..300)).prop_map(|(code, value)| RawAttribute {
        flags: 0xc0,
        code,
        value,
    });
    (option::of(extended), option::of(large), option::of(unknown))
        .prop_map(|(a, b, c)| a.into_iter().chain(b).chain(c).collect())
}

/// Attributes of an UPDATE to an internal neighbour: LOCAL_PREF is always there.
pub(super) fn attributes() -> impl Strategy<Value = Attributes> {
    let origin = prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)];
    let plain = (origin, as_path(), option::of(any::<u32>()), any::<u32>(), any::<bool>());
    let optional = (
        option::of((asn(), address())),
        vec(any::<u32>(), 0..100),
        option::of(address()),
        vec(address(), 0..10),
        other(),
    );
    (plain, optional).prop_map(|(plain, optional)| {
        let (origin, as_path, med, local_pref, atomic_aggregate) = plain;
        let (aggregator, communities, originator_id, cluster_list, other) = optional;
        Attributes {
            origin,
            as_path,
            med,
            local_pref: Some(local_pref),
            atomic_aggregate,
            aggregator,
            communities,
            originator_id,
            cluster_list,
            other,
        }
    })
}

fn ipv4_prefix() -> impl Strategy<Value = IpNetwork> {
    (any::<u32>(), 0_u8..=32).prop_map(|(bits, length)| {
        let prefix = Ipv4Network::new(Ipv4Addr::from_bits(bits), length).unwrap();
        Ipv4Network::new(prefix.network(), length).unwrap().into()
    })
}

fn ipv6_prefix() -> impl Strategy<Value = IpNetwork> {
    (any::<u128>(), 0_u8..=128).prop_map(|(bits, length)| {
        let prefix = Ipv6Network::new(Ipv6Addr::from_bits(bits), length).unwrap();
        Ipv6Network::new(prefix.network(), length).unwrap().into()
    })
}

/// Prefixes of one family with a next hop of the same.
pub(super) fn routes() -> impl Strategy<Value = (IpAddr, Vec<IpNetwork>)> {
    let v4_hop = (1_u8..127, any::<[u8; 3]>())
        .prop_map(|(a, [b, c, d])| IpAddr::V4(Ipv4Addr::new(a, b, c, d)));
    let v6_hop = (0_u128..1 << 120).prop_map(|low| Ipv6Addr::from_bits(low | 0x20 << 120).into());
    prop_oneof![(v4_hop, vec(ipv4_prefix(), 1..2000)), (v6_hop, vec(ipv6_prefix(), 1..700)),]
}

fn add_path() -> impl Strategy<Value = AddPath> {
    (any::<u16>(), any::<u8>(), 1_u8..4).prop_map(|(afi, safi, way)| AddPath {
        family: Family { afi, safi },
        receive: way & 1 != 0,
        send: way & 2 != 0,
    })
}

fn restart() -> impl Strategy<Value = GracefulRestart> {
    let family = (any::<u16>(), any::<u8>()).prop_map(|(afi, safi)| Family { afi, safi });
    let families = vec((family, any::<bool>()), 0..4);
    (any::<[bool; 2]>(), 0_u16..4096, families).prop_map(|(flags, time_secs, families)| {
        let [restarted, notifications] = flags;
        GracefulRestart { restarted, notifications, time_secs, families }
    })
}

fn open() -> impl Strategy<Value = Open> {
    let family = (any::<u16>(), any::<u8>()).prop_map(|(afi, safi)| Family { afi, safi });
    let capability = prop_oneof![
        family.prop_map(Capability::Multiprotocol),
        Just(Capability::RouteRefresh),
        vec(add_path(), 0..4).prop_map(Capability::AddPath),
        restart().prop_map(Capability::GracefulRestart),
        Just(Capability::ExtendedMessage),
        Just(Capability::EnhancedRouteRefresh),
        (71_u8.., vec(any::<u8>(), 0..256))
            .prop_map(|(code, value)| Capability::Unknown { code, value }),
    ];
    let hold_time = prop_oneof![Just(0_u16), 3_u16..];
    (asn(), hold_time, 1_u32.., vec(capability, 0..12)).prop_map(|(asn, hold, id, mut list)| {
        list.push(Capability::FourOctetAs(asn));
        Open { asn, hold_time_secs: hold, router_id: Ipv4Addr::from_bits(id), capabilities: list }
    })
}

/// Any message but UPDATE.
pub(super) fn other_message() -> impl Strategy<Value = Message> {
    let notification =
        (any::<u8>(), any::<u8>(), vec(any::<u8>(), 0..4076)).prop_map(|(code, subcode, data)| {
            Message::Notification(Notification { code, subcode, data })
        });
    prop_oneof![
        4 => open().prop_map(Message::Open),
        2 => notification,
        1 => Just(Message::Keepalive),
        1 => any::<(u16, u8)>()
            .prop_map(|(afi, safi)| Message::RouteRefresh(Family { afi, safi })),
    ]
}

/// Bodies behind a valid header, of any type.
pub(super) fn framed(body: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![
        Just(frame::Kind::Open),
        Just(frame::Kind::Update),
        Just(frame::Kind::Notification),
        Just(frame::Kind::Keepalive),
        Just(frame::Kind::RouteRefresh),
    ];
    (kind, body).prop_map(|(kind, body)| frame::seal(kind, &body))
}

/// An UPDATE whose fields fit, of attributes whose codes are mostly known and whose values are not
/// mostly valid.
pub(super) fn update_of_arbitrary_attributes() -> impl Strategy<Value = Vec<u8>> {
    let flags = prop_oneof![
        3 => prop_oneof![Just(0x40_u8), Just(0x80), Just(0xc0)],
        1 => any::<u8>(),
    ];
    let code = prop_oneof![9 => 1_u8..=33, 1 => any::<u8>()];
    let attribute = (flags, code, vec(0_u8..4, 0..24)).prop_map(|(flags, code, value)| {
        let length = u8::try_from(value.len()).unwrap();
        [&[flags & !0x10, code, length], value.as_slice()].concat()
    });
    let complete = any::<bool>();
    (complete, vec(attribute, 0..12), vec(0_u8..9, 0..8)).prop_map(|(complete, list, nlri)| {
        let valid: &[u8] = &[0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4, 192, 0, 2, 1];
        let attributes = [if complete { valid } else { &[] }, &list.concat()].concat();
        let mut body = vec![0, 0];
        body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
        body.extend(attributes);
        body.extend(nlri);
        frame::seal(frame::Kind::Update, &body)
    })
}
