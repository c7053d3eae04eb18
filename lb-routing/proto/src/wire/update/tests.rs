use ipnetwork::IpNetwork;

use super::*;
use crate::wire::{AsPath, Origin};

const EXTERNAL: Context = Context { four_octet_as: true, external: true };
const INTERNAL: Context = Context { four_octet_as: true, external: false };

const ORIGIN: &[u8] = &[0x40, 1, 1, 2];
const AS_PATH: &[u8] = &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9];
const NEXT_HOP: &[u8] = &[0x40, 3, 4, 192, 0, 2, 1];
const REACH_V6: &[u8] = &[
    0x80, 14, 23, 0, 2, 1, 16, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 8, 0xfc,
];

fn body(withdrawn: &[u8], attributes: &[&[u8]], nlri: &[u8]) -> Vec<u8> {
    let attributes = attributes.concat();
    let mut body = u16::try_from(withdrawn.len()).unwrap().to_be_bytes().to_vec();
    body.extend(withdrawn);
    body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    body.extend(attributes);
    body.extend(nlri);
    body
}

fn prefixes(texts: &[&str]) -> Vec<IpNetwork> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn both_families_and_withdrawals_are_read_from_one_update() {
    let unreach: &[u8] = &[0x80, 15, 5, 0, 2, 1, 8, 0xfd];
    let bytes = body(&[8, 11], &[unreach, REACH_V6, ORIGIN, AS_PATH, NEXT_HOP], &[8, 10, 0]);
    let update = decode(&bytes, EXTERNAL).unwrap();
    let expected = Update {
        withdrawn: prefixes(&["11.0.0.0/8", "fd00::/8"]),
        announced: vec![
            Announced {
                next_hop: "192.0.2.1".parse().unwrap(),
                prefixes: prefixes(&["10.0.0.0/8", "0.0.0.0/0"]),
            },
            Announced {
                next_hop: "2001:db8::1".parse().unwrap(),
                prefixes: prefixes(&["fc00::/8"]),
            },
        ],
        attributes: Some(Attributes {
            origin: Origin::Incomplete,
            as_path: AsPath::sequence(&[65001]),
            ..Attributes::default()
        }),
        end_of_rib: None,
        faults: vec![],
    };
    assert_eq!(update, expected);
}

#[test]
fn treat_as_withdraw_takes_the_routes_of_both_families() {
    let bad: &[u8] = &[0x80, 4, 1, 0];
    let bytes = body(&[8, 11], &[REACH_V6, ORIGIN, AS_PATH, NEXT_HOP, bad], &[8, 10]);
    let update = decode(&bytes, EXTERNAL).unwrap();
    assert_eq!(update.withdrawn, prefixes(&["11.0.0.0/8", "10.0.0.0/8", "fc00::/8"]));
    assert_eq!((update.announced, update.attributes), (vec![], None));
}

#[test]
fn missing_mandatory_attributes_withdraw() {
    let all = [ORIGIN, AS_PATH, NEXT_HOP];
    for missing in all {
        let rest: Vec<&[u8]> = all.into_iter().filter(|attribute| *attribute != missing).collect();
        let update = decode(&body(&[], &rest, &[8, 10]), EXTERNAL).unwrap();
        assert_eq!(update.withdrawn, prefixes(&["10.0.0.0/8"]));
        let disposition = Disposition::TreatAsWithdraw;
        let fault = Fault { code: missing[1], disposition, what: "attribute is missing" };
        assert_eq!(update.faults, [fault]);
    }
    let update = decode(&body(&[], &all, &[8, 10]), INTERNAL).unwrap();
    assert_eq!(update.faults[0].code, attributes::LOCAL_PREF);
    assert_eq!(update.announced, []);
}

#[test]
fn next_hop_is_not_needed_for_multiprotocol_routes() {
    let update = decode(&body(&[], &[REACH_V6, ORIGIN, AS_PATH], &[]), EXTERNAL).unwrap();
    assert_eq!((update.announced.len(), update.faults), (1, vec![]));
}

#[test]
fn fields_that_do_not_fit_reset_the_session() {
    let table: &[(&str, &[u8], (u8, u8))] = &[
        ("RFC 7606 §3 a, withdrawn routes", &[0, 1, 0, 0], error::MALFORMED_ATTRIBUTE_LIST),
        ("RFC 7606 §3 a, attributes", &[0, 0, 0, 1], error::MALFORMED_ATTRIBUTE_LIST),
        ("RFC 7606 §3 i, length 33", &[0, 1, 33, 0, 0], error::INVALID_NETWORK_FIELD),
        ("RFC 7606 §3 i, overrun", &[0, 1, 8, 0, 0], error::INVALID_NETWORK_FIELD),
        (
            "RFC 7606 §5.3, length 33",
            &[0, 0, 0, 0, 33, 1, 2, 3, 4, 5],
            error::INVALID_NETWORK_FIELD,
        ),
        ("RFC 7606 §5.3, overrun", &[0, 0, 0, 0, 24, 1, 2], error::INVALID_NETWORK_FIELD),
    ];
    for (what, bytes, code) in table {
        assert_eq!(decode(bytes, EXTERNAL), Err(Notification::new(*code)), "{what}");
    }
}

#[test]
fn an_error_without_routes_resets_unless_it_is_discarded() {
    // RFC 7606 §5.2.
    let malformed: &[u8] = &[0x80, 4, 1, 0];
    let refusal = Err(Notification::new(error::MALFORMED_ATTRIBUTE_LIST));
    assert_eq!(decode(&body(&[], &[malformed], &[]), EXTERNAL), refusal);
    assert_eq!(decode(&body(&[8, 10], &[malformed], &[]), EXTERNAL), refusal);
    assert_eq!(decode(&body(&[], &[&[0x80]], &[]), EXTERNAL), refusal);
    let discarded: &[u8] = &[0x40, 6, 1, 0];
    let update = decode(&body(&[8, 10], &[discarded], &[]), EXTERNAL).unwrap();
    assert_eq!(update.withdrawn, prefixes(&["10.0.0.0/8"]));
}

#[test]
fn the_end_of_a_rib_is_recognized_per_family() {
    let v6 = Some(Family::IPV6_UNICAST);
    let table: &[(Vec<u8>, Option<Family>)] = &[
        (vec![0; 4], Some(Family::IPV4_UNICAST)),
        (body(&[], &[&[0x80, 15, 3, 0, 2, 1]], &[]), v6),
        (body(&[], &[&[0x90, 15, 0, 3, 0, 2, 1]], &[]), v6),
        (body(&[], &[&[0x80, 15, 3, 0, 1, 1]], &[]), Some(Family::IPV4_UNICAST)),
        (body(&[], &[&[0x80, 15, 3, 0, 1, 128]], &[]), Some(Family { afi: 1, safi: 128 })),
        (body(&[], &[&[0x80, 15, 4, 0, 2, 1, 0]], &[]), None),
        (body(&[], &[&[0x80, 15, 4, 0, 1, 128, 0]], &[]), None),
        (body(&[0], &[&[0x80, 15, 3, 0, 2, 1]], &[]), None),
        (body(&[0], &[], &[]), None),
        (body(&[], &[ORIGIN], &[]), None),
        (body(&[], &[ORIGIN, &[0x80, 15, 3, 0, 2, 1]], &[]), None),
    ];
    for (bytes, family) in table {
        assert_eq!(decode(bytes, EXTERNAL).unwrap().end_of_rib, *family, "{bytes:?}");
    }
}
