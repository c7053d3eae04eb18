//! A row per clause of RFC 7606 §3 to §7.

use ipnetwork::IpNetwork;

use super::*;
use crate::wire::{Announced, Message, Segment, Update, decode as decode_message, encode, frame};
use Disposition::{AttributeDiscard, TreatAsWithdraw};

const EXTERNAL: Context = Context { four_octet_as: true, external: true };
const INTERNAL: Context = Context { four_octet_as: true, external: false };
const TWO_OCTETS: Context = Context { four_octet_as: false, external: true };

const ORIGIN_IGP: &[u8] = &[0x40, 1, 1, 0];
const PATH_65001: &[u8] = &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9];
const NEXT_HOP_1: &[u8] = &[0x40, 3, 4, 192, 0, 2, 1];
const LOCAL_PREF_100: &[u8] = &[0x40, 5, 4, 0, 0, 0, 100];
/// 10.0.0.0/8.
const NLRI: &[u8] = &[8, 10];

/// An UPDATE's message.
fn message(withdrawn: &[u8], attributes: &[&[u8]], nlri: &[u8]) -> Vec<u8> {
    let attributes = attributes.concat();
    let mut body = u16::try_from(withdrawn.len()).unwrap().to_be_bytes().to_vec();
    body.extend(withdrawn);
    body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    body.extend(attributes);
    body.extend(nlri);
    frame::seal(frame::Kind::Update, &body)
}

fn read(bytes: &[u8], context: Context) -> Result<Update, Notification> {
    let message = decode_message(bytes, context)?;
    let Message::Update(update) = message else { panic!("{message:?} is no UPDATE") };
    Ok(update)
}

/// An UPDATE for 10.0.0.0/8 with all mandatory attributes and one more.
fn with(attribute: &[u8], context: Context) -> Result<Update, Notification> {
    let mut attributes = vec![ORIGIN_IGP, PATH_65001, NEXT_HOP_1];
    attributes.extend((!context.external).then_some(LOCAL_PREF_100));
    // In the place of a mandatory one of the same code.
    attributes.retain(|known| known[1] != attribute[1]);
    attributes.push(attribute);
    read(&message(&[], &attributes, NLRI), context)
}

fn withdraws(code: u8, update: &Update) -> bool {
    let fault = |fault: &Fault| fault.code == code && fault.disposition == TreatAsWithdraw;
    let prefix: IpNetwork = "10.0.0.0/8".parse().unwrap();
    update.faults.iter().any(fault)
        && update.announced.is_empty()
        && update.attributes.is_none()
        && update.withdrawn == [prefix]
}

#[test]
fn malformed_attributes_withdraw_the_routes() {
    let table: &[(&str, &[u8], Context)] = &[
        ("§7.1 ORIGIN of no octets", &[0x40, 1, 0], EXTERNAL),
        ("§7.1 ORIGIN of two octets", &[0x40, 1, 2, 0, 0], EXTERNAL),
        ("§7.1 ORIGIN 3", &[0x40, 1, 1, 3], EXTERNAL),
        ("§3 c ORIGIN optional", &[0xc0, 1, 1, 0], EXTERNAL),
        ("§3 c ORIGIN not transitive", &[0, 1, 1, 0], EXTERNAL),
        ("§7.2 AS_PATH with type 9", &[0x40, 2, 6, 9, 1, 0, 0, 0, 1], EXTERNAL),
        ("§7.2 AS_PATH overrun", &[0x40, 2, 6, 2, 2, 0, 0, 0, 1], EXTERNAL),
        ("§7.2 AS_PATH underrun", &[0x40, 2, 7, 2, 1, 0, 0, 0, 1, 2], EXTERNAL),
        ("§7.2 AS_PATH with empty segment", &[0x40, 2, 2, 2, 0], EXTERNAL),
        ("RFC 7607 AS_PATH with AS 0", &[0x40, 2, 6, 2, 1, 0, 0, 0, 0], EXTERNAL),
        ("RFC 5065 confederation", &[0x40, 2, 6, 3, 1, 0, 0, 0, 1], EXTERNAL),
        ("§7.3 NEXT_HOP of three octets", &[0x40, 3, 3, 192, 0, 2], EXTERNAL),
        ("§7.3 NEXT_HOP of sixteen octets", &[&[0x40, 3, 16][..], &[1; 16]].concat(), EXTERNAL),
        ("§7.3 NEXT_HOP 0.0.0.0", &[0x40, 3, 4, 0, 0, 0, 0], EXTERNAL),
        ("§7.3 NEXT_HOP 127.0.0.1", &[0x40, 3, 4, 127, 0, 0, 1], EXTERNAL),
        ("§7.3 NEXT_HOP 224.0.0.5", &[0x40, 3, 4, 224, 0, 0, 5], EXTERNAL),
        ("§7.3 NEXT_HOP 255.255.255.255", &[0x40, 3, 4, 255, 255, 255, 255], EXTERNAL),
        ("§7.4 MED of five octets", &[0x80, 4, 5, 0, 0, 0, 0, 1], EXTERNAL),
        ("§3 c MED transitive", &[0xc0, 4, 4, 0, 0, 0, 1], EXTERNAL),
        ("§7.5 LOCAL_PREF of three octets", &[0x40, 5, 3, 0, 0, 1], INTERNAL),
        ("§3 c ATOMIC_AGGREGATE optional", &[0xc0, 6, 0], EXTERNAL),
        ("§3 c AGGREGATOR well-known", &[0x40, 7, 8, 0, 0, 0, 1, 1, 1, 1, 1], EXTERNAL),
        ("§7.8 COMMUNITIES of no octets", &[0xc0, 8, 0], EXTERNAL),
        ("§7.8 COMMUNITIES of six octets", &[0xc0, 8, 6, 0, 0, 0, 1, 0, 0], EXTERNAL),
        ("§7.9 ORIGINATOR_ID of five octets", &[0x80, 9, 5, 1, 2, 3, 4, 5], INTERNAL),
        ("§7.10 CLUSTER_LIST of no octets", &[0x80, 10, 0], INTERNAL),
        ("§7.10 CLUSTER_LIST of five octets", &[0x80, 10, 5, 1, 2, 3, 4, 5], INTERNAL),
        ("§7.14 EXTENDED_COMMUNITIES of four octets", &[0xc0, 16, 4, 0, 2, 0, 0], EXTERNAL),
        ("§7.15 IPv6 ones of eight octets", &[0xc0, 25, 8, 0, 2, 0, 0, 0, 0, 0, 0], EXTERNAL),
        (
            "RFC 8092 §6 LARGE_COMMUNITY of eight octets",
            &[0xc0, 32, 8, 0, 0, 0, 0, 0, 0, 0, 0],
            EXTERNAL,
        ),
        ("§4 beyond the list", &[0xc0, 8, 200, 1, 2, 3, 4], EXTERNAL),
        ("§4 two octets left", &[0xc0, 8], EXTERNAL),
        ("§4 extended length cut", &[0xd0, 8, 0], EXTERNAL),
    ];
    for (what, attribute, context) in table {
        let update = with(attribute, *context).unwrap();
        assert!(withdraws(attribute[1], &update), "{what}: {update:?}");
    }
}

#[test]
fn malformed_attributes_that_matter_little_are_discarded() {
    let table: &[(&str, &[u8], Context)] = &[
        ("§7.5 LOCAL_PREF", &[0x40, 5, 4, 0, 0, 0, 1], EXTERNAL),
        ("§7.5 LOCAL_PREF, malformed too", &[0xc0, 5, 1, 0], EXTERNAL),
        ("§7.6 ATOMIC_AGGREGATE of one octet", &[0x40, 6, 1, 0], EXTERNAL),
        ("§7.7 AGGREGATOR of six octets", &[0xc0, 7, 6, 0, 1, 1, 1, 1, 1], EXTERNAL),
        ("§7.7 AGGREGATOR of eight octets", &[0xc0, 7, 8, 0, 0, 0, 1, 1, 1, 1, 1], TWO_OCTETS),
        ("RFC 7607 AGGREGATOR of AS 0", &[0xc0, 7, 8, 0, 0, 0, 0, 1, 1, 1, 1], EXTERNAL),
        ("§7.9 ORIGINATOR_ID", &[0x80, 9, 4, 1, 2, 3, 4], EXTERNAL),
        ("§7.10 CLUSTER_LIST", &[0x80, 10, 4, 1, 2, 3, 4], EXTERNAL),
        ("RFC 6793 §4.1 AS4_PATH", &[0xc0, 17, 6, 2, 1, 0, 0, 0, 9], EXTERNAL),
        ("RFC 6793 §4.1 AS4_AGGREGATOR", &[0xc0, 18, 8, 0, 0, 0, 1, 1, 1, 1, 1], EXTERNAL),
        ("RFC 6793 §6 AS4_PATH too short", &[0xc0, 17, 2, 2, 0], TWO_OCTETS),
        ("RFC 6793 §6 AS4_PATH overrun", &[0xc0, 17, 6, 2, 2, 0, 0, 0, 9], TWO_OCTETS),
        ("RFC 6793 §6 AS4_AGGREGATOR of six", &[0xc0, 18, 6, 0, 1, 1, 1, 1, 1], TWO_OCTETS),
    ];
    for (what, attribute, context) in table {
        let mut attributes = vec![ORIGIN_IGP, PATH_65001, NEXT_HOP_1, attribute];
        if !context.four_octet_as {
            attributes[1] = &[0x40, 2, 4, 2, 1, 0xfd, 0xe9];
        }
        let update = read(&message(&[], &attributes, NLRI), *context).unwrap();
        let [fault] = update.faults.as_slice() else { panic!("{what}: {update:?}") };
        assert_eq!((fault.code, fault.disposition), (attribute[1], AttributeDiscard), "{what}");
        let expected = Attributes { as_path: AsPath::sequence(&[65001]), ..Attributes::default() };
        assert_eq!(update.attributes, Some(expected), "{what}");
        assert_eq!(update.announced.len(), 1, "{what}");
    }
}

#[test]
fn errors_that_hide_routes_reset_the_session() {
    let mp = |value: &[u8]| [&[0x80, 14, u8::try_from(value.len()).unwrap()], value].concat();
    let v6 =
        |length: u8, rest: &[u8]| [&[0, 2, 1, length], &[0x20; 40][..length.into()], rest].concat();
    let table: Vec<(&str, Vec<u8>, (u8, u8))> = vec![
        ("RFC 4271 §6.3 unknown well-known", vec![0x40, 99, 1, 7], (3, 2)),
        ("§5.3 MP_REACH_NLRI of four octets", mp(&[0, 2, 1, 0]), (3, 9)),
        ("§5.3 MP_REACH_NLRI transitive", [&[0xc0, 14, 5], &[0, 2, 1, 0, 0][..]].concat(), (3, 9)),
        ("§7.11 next hop of four octets", mp(&v6(4, &[0, 8, 0x20])), (3, 9)),
        ("§7.11 next hop beyond the attribute", mp(&[0, 2, 1, 16, 0, 0]), (3, 9)),
        ("§7.11 IPv4 with next hop of 8", mp(&[&[0, 1, 1, 8], &[1; 8][..], &[0]].concat()), (3, 9)),
        ("§5.3 no reserved octet", mp(&v6(16, &[])), (3, 9)),
        ("§5.3 prefix length 129", mp(&v6(16, &[0, 129, 0x20])), (3, 9)),
        ("§5.3 prefix beyond the attribute", mp(&v6(16, &[0, 64, 0x20])), (3, 9)),
        ("§5.3 MP_UNREACH_NLRI of two octets", vec![0x80, 15, 2, 0, 2], (3, 9)),
        ("§5.3 MP_UNREACH_NLRI transitive", vec![0xc0, 15, 3, 0, 2, 1], (3, 9)),
        ("§5.3 withdrawn prefix length 129", vec![0x80, 15, 4, 0, 2, 1, 129], (3, 9)),
    ];
    for (what, attribute, (code, subcode)) in table {
        let expected = Notification { code, subcode, data: attribute.clone() };
        assert_eq!(with(&attribute, EXTERNAL), Err(expected), "{what}");
    }
}

#[test]
fn repeated_attributes_count_once_and_multiprotocol_ones_reset() {
    let twice = [ORIGIN_IGP, PATH_65001, NEXT_HOP_1, &[0x40, 1, 1, 2]];
    let update = read(&message(&[], &twice, NLRI), EXTERNAL).unwrap();
    assert_eq!(update.attributes.unwrap().origin, Origin::Igp);
    assert_eq!((update.faults[0].code, update.faults[0].disposition), (ORIGIN, AttributeDiscard));
    let unreach: &[u8] = &[0x80, 15, 3, 0, 2, 1];
    let refusal = Notification::new(error::MALFORMED_ATTRIBUTE_LIST);
    assert_eq!(read(&message(&[], &[unreach, unreach], &[]), EXTERNAL), Err(refusal));
}

#[test]
fn every_known_attribute_is_read() {
    let attributes: [&[u8]; 9] = [
        &[0x40, 2, 12, 2, 1, 0, 0, 0xfd, 0xe9, 1, 1, 0, 0, 0xfd, 0xea],
        &[0x80, 4, 4, 0, 0, 0, 7],
        &[0x40, 6, 0],
        &[0xc0, 7, 8, 0, 1, 0, 0, 192, 0, 2, 9],
        &[0xe0, 8, 8, 0xff, 0xff, 0xff, 1, 0, 1, 0, 2],
        &[0x80, 9, 4, 192, 0, 2, 8],
        &[0x90, 10, 0, 4, 192, 0, 2, 7],
        &[0xc0, 16, 8, 0, 2, 0, 1, 0, 0, 0, 2],
        &[0xc0, 32, 12, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3],
    ];
    let mut all = vec![ORIGIN_IGP, NEXT_HOP_1, LOCAL_PREF_100];
    all.extend(attributes);
    let update = read(&message(&[], &all, NLRI), INTERNAL).unwrap();
    assert_eq!(update.faults, []);
    let expected = Attributes {
        origin: Origin::Igp,
        as_path: AsPath {
            segments: vec![Segment::Sequence(vec![65001]), Segment::Set(vec![65002])],
        },
        med: Some(7),
        local_pref: Some(100),
        atomic_aggregate: true,
        aggregator: Some((65536, Ipv4Addr::new(192, 0, 2, 9))),
        communities: vec![0xffff_ff01, 0x0001_0002],
        originator_id: Some(Ipv4Addr::new(192, 0, 2, 8)),
        cluster_list: vec![Ipv4Addr::new(192, 0, 2, 7)],
        other: vec![
            RawAttribute { flags: 0xc0, code: 16, value: vec![0, 2, 0, 1, 0, 0, 0, 2] },
            RawAttribute { flags: 0xc0, code: 32, value: vec![0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3] },
        ],
    };
    assert_eq!(update.attributes, Some(expected));
}

#[test]
fn unknown_optional_attributes_are_kept_only_if_transitive() {
    let update = with(&[0xd0, 200, 0, 2, 1, 2], EXTERNAL).unwrap();
    let kept = RawAttribute { flags: 0xc0, code: 200, value: vec![1, 2] };
    assert_eq!(update.attributes.unwrap().other, [kept]);
    let update = with(&[0x80, 200, 2, 1, 2], EXTERNAL).unwrap();
    assert_eq!((update.attributes.unwrap().other, update.faults), (vec![], vec![]));
}

#[test]
fn two_octet_neighbours_are_understood_through_as4_attributes() {
    let attributes: [&[u8]; 6] = [
        ORIGIN_IGP,
        &[0x40, 2, 6, 2, 2, 0xfd, 0xe9, 0x5b, 0xa0],
        NEXT_HOP_1,
        &[0xc0, 7, 6, 0x5b, 0xa0, 192, 0, 2, 9],
        &[0xc0, 17, 6, 2, 1, 0xfa, 0x56, 0xea, 0],
        &[0xc0, 18, 8, 0xfa, 0x56, 0xea, 0, 192, 0, 2, 9],
    ];
    let update = read(&message(&[], &attributes, NLRI), TWO_OCTETS).unwrap();
    let merged = update.attributes.unwrap();
    assert_eq!(merged.as_path, AsPath::sequence(&[65001, 4_200_000_000]));
    assert_eq!(merged.aggregator, Some((4_200_000_000, Ipv4Addr::new(192, 0, 2, 9))));

    // An aggregator that is not AS_TRANS makes both void (RFC 6793 §4.2.3).
    let mut outdated = attributes;
    outdated[3] = &[0xc0, 7, 6, 0xfd, 0xe9, 192, 0, 2, 9];
    let update = read(&message(&[], &outdated, NLRI), TWO_OCTETS).unwrap();
    let kept = update.attributes.unwrap();
    assert_eq!(kept.as_path, AsPath::sequence(&[65001, 23456]));
    assert_eq!(kept.aggregator, Some((65001, Ipv4Addr::new(192, 0, 2, 9))));
}

#[test]
fn an_ipv6_next_hop_may_have_a_link_local_address_behind_it() {
    let global: Ipv6Addr = "2001:db8::1".parse().unwrap();
    let local: Ipv6Addr = "fe80::1".parse().unwrap();
    for octets in [global.octets().to_vec(), [global.octets(), local.octets()].concat()] {
        let length = u8::try_from(octets.len()).unwrap();
        let value = [&[0, 2, 1, length], octets.as_slice(), &[0, 32, 0x20, 1, 0xd, 0xb8]].concat();
        let reach = [&[0x80, 14, u8::try_from(value.len()).unwrap()], value.as_slice()].concat();
        let update = read(&message(&[], &[&reach, ORIGIN_IGP, PATH_65001], &[]), EXTERNAL).unwrap();
        let prefixes = vec!["2001:db8::/32".parse().unwrap()];
        assert_eq!(update.announced, [Announced { next_hop: global.into(), prefixes }]);
        assert_eq!(update.faults, []);
    }
}

#[test]
fn an_ipv6_next_hop_that_is_no_host_withdraws() {
    for next_hop in ["::", "::1", "ff02::1"] {
        let next_hop: Ipv6Addr = next_hop.parse().unwrap();
        let reach = [&[0x80, 14, 23, 0, 2, 1, 16][..], &next_hop.octets(), &[0, 8, 0x20]].concat();
        let update = read(&message(&[], &[&reach, ORIGIN_IGP, PATH_65001], &[]), EXTERNAL).unwrap();
        assert_eq!(update.withdrawn, ["2000::/8".parse::<IpNetwork>().unwrap()]);
        assert!(update.announced.is_empty(), "{next_hop}");
    }
}

#[test]
fn other_families_are_ignored_and_reported() {
    // VPNv4.
    let reach: &[u8] = &[0x80, 14, 6, 0, 1, 128, 0, 0, 77];
    let unreach: &[u8] = &[0x80, 15, 4, 0, 1, 128, 77];
    let bytes = message(&[], &[reach, unreach, ORIGIN_IGP, PATH_65001, NEXT_HOP_1], NLRI);
    let update = read(&bytes, EXTERNAL).unwrap();
    let faults: Vec<_> = update.faults.iter().map(|f| (f.code, f.disposition)).collect();
    assert_eq!(faults, [(14, AttributeDiscard), (15, AttributeDiscard)]);
    assert_eq!(update.announced.len(), 1);
    assert_eq!(
        read(&encode(&Message::Update(update.clone()), EXTERNAL), EXTERNAL).unwrap().announced,
        update.announced
    );
}

#[test]
fn an_attribute_that_is_there_a_thousand_times_is_one_fault() {
    let many = [0x80, 200, 0].repeat(1000);
    let update = read(&message(&[], &[ORIGIN_IGP, PATH_65001, NEXT_HOP_1, &many], NLRI), EXTERNAL);
    assert_eq!(update.unwrap().faults.len(), 1);
}
