use super::*;
use crate::wire::{AsPath, Segment};

const EXTERNAL: Context = Context { four_octet_as: true, external: true };
const INTERNAL: Context = Context { four_octet_as: true, external: false };
const TWO_OCTETS: Context = Context { four_octet_as: false, external: true };

fn full() -> Attributes {
    Attributes {
        origin: Origin::Egp,
        as_path: AsPath { segments: vec![Segment::Sequence(vec![65536]), Segment::Set(vec![2])] },
        med: Some(1),
        local_pref: Some(2),
        atomic_aggregate: true,
        aggregator: Some((65537, Ipv4Addr::new(192, 0, 2, 9))),
        communities: vec![0xffff_ff01],
        originator_id: Some(Ipv4Addr::new(192, 0, 2, 8)),
        cluster_list: vec![Ipv4Addr::new(192, 0, 2, 7)],
        other: vec![],
    }
}

/// What a neighbour gets of an attribute; nothing: it is left out.
fn passed_on(raw: &RawAttribute, context: Context) -> Option<Vec<u8>> {
    let mut list = Vec::new();
    pass_on(raw, context, &mut list);
    (!list.is_empty()).then_some(list)
}

#[test]
fn an_internal_neighbour_gets_all_attributes_in_order() {
    let expected: [&[u8]; 10] = [
        &[0x40, 1, 1, 1],
        &[0x40, 2, 12, 2, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 2],
        &[0x40, 3, 4, 192, 0, 2, 1],
        &[0x80, 4, 4, 0, 0, 0, 1],
        &[0x40, 5, 4, 0, 0, 0, 2],
        &[0x40, 6, 0],
        &[0xc0, 7, 8, 0, 1, 0, 1, 192, 0, 2, 9],
        &[0xc0, 8, 4, 0xff, 0xff, 0xff, 1],
        &[0x80, 9, 4, 192, 0, 2, 8],
        &[0x80, 10, 4, 192, 0, 2, 7],
    ];
    assert_eq!(encode(&full(), Some(Ipv4Addr::new(192, 0, 2, 1)), INTERNAL), expected.concat());
}

#[test]
fn an_external_two_octet_neighbour_gets_as_trans_and_nothing_internal() {
    let expected: [&[u8]; 8] = [
        &[0x40, 1, 1, 1],
        &[0x40, 2, 8, 2, 1, 0x5b, 0xa0, 1, 1, 0, 2],
        &[0x80, 4, 4, 0, 0, 0, 1],
        &[0x40, 6, 0],
        &[0xc0, 7, 6, 0x5b, 0xa0, 192, 0, 2, 9],
        &[0xc0, 8, 4, 0xff, 0xff, 0xff, 1],
        &[0xc0, 17, 12, 2, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 2],
        &[0xc0, 18, 8, 0, 1, 0, 1, 192, 0, 2, 9],
    ];
    assert_eq!(encode(&full(), None, TWO_OCTETS), expected.concat());
}

#[test]
fn as4_attributes_are_left_out_where_two_octets_suffice() {
    let attributes = Attributes {
        as_path: AsPath::sequence(&[65535]),
        aggregator: Some((1, Ipv4Addr::new(192, 0, 2, 9))),
        ..Attributes::default()
    };
    let codes: Vec<u8> =
        decode::lengths(&encode(&attributes, None, TWO_OCTETS)).map(|(code, _)| code).collect();
    assert_eq!(codes, [ORIGIN, AS_PATH, AGGREGATOR]);
}

#[test]
fn unrecognized_attributes_get_the_partial_bit_and_stay_where_they_are_not_transitive() {
    /// Flags, code, value, and what is passed on.
    type Row<'a> = (u8, u8, &'a [u8], Option<Vec<u8>>);
    let table: &[Row] = &[
        (0xc0, 200, &[1], Some(vec![0xe0, 200, 1, 1])),
        (0xf0, 200, &[1], Some(vec![0xe0, 200, 1, 1])),
        (0x80, 200, &[1], None),
        (0x40, 200, &[1], None),
        (0xc0, LARGE_COMMUNITY, &[0; 12], Some([&[0xc0, 32, 12], &[0; 12][..]].concat())),
        // Not among the others: it would stand twice.
        (0xc0, COMMUNITIES, &[0; 4], None),
        (0xc0, AS4_PATH, &[2, 1, 0, 0, 0, 1], None),
    ];
    for (flags, code, value, expected) in table {
        let raw = RawAttribute { flags: *flags, code: *code, value: value.to_vec() };
        assert_eq!(passed_on(&raw, EXTERNAL), *expected, "{raw:?}");
    }
}

#[test]
fn non_transitive_extended_communities_stay_in_the_as() {
    let stays = [0x40, 2, 0, 0, 0, 0, 0, 1];
    let goes = [0x00, 2, 0, 0, 0, 0, 0, 2];
    let raw = |value: Vec<u8>| RawAttribute { flags: 0xc0, code: EXTENDED_COMMUNITIES, value };
    let both = raw([stays, goes].concat());
    let external = [&[0xc0, 16, 8], goes.as_slice()].concat();
    assert_eq!(passed_on(&both, EXTERNAL), Some(external));
    assert_eq!(passed_on(&both, INTERNAL).map(|attribute| attribute[2]), Some(16));
    assert_eq!(passed_on(&raw(stays.to_vec()), EXTERNAL), None);
}

#[test]
fn long_values_have_an_extended_length() {
    let header = |octets: usize| {
        let mut list = Vec::new();
        put(T, COMMUNITIES, &vec![0; octets], &mut list);
        list.truncate(list.len() - octets);
        list
    };
    assert_eq!(header(255), [0xc0, 8, 255]);
    assert_eq!(header(256), [0xd0, 8, 1, 0]);
}

#[test]
fn every_code_stands_once_in_the_table() {
    let mut codes: Vec<u8> = RULES.iter().map(|rule| rule.code).collect();
    codes.dedup();
    assert_eq!(codes.len(), RULES.len());
    assert!(codes.is_sorted());
}
