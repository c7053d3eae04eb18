use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::wire::nlri;
use crate::wire::{Announced, AsPath, Notification, decode};
use crate::wire::{MAX_EXTENDED_LEN, MAX_MESSAGE_LEN};

const EXTERNAL: Context = Context { four_octet_as: true, external: true };

fn prefixes(texts: &[&str]) -> Vec<IpNetwork> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn header(len: u16, kind: u8) -> Vec<u8> {
    let mut bytes = vec![0xff; 16];
    bytes.extend(len.to_be_bytes());
    bytes.push(kind);
    bytes
}

fn attributes() -> Attributes {
    Attributes { as_path: AsPath::sequence(&[65001]), ..Attributes::default() }
}

fn announce(next_hop: &str, prefixes: &[IpNetwork]) -> Result<Vec<Vec<u8>>, EncodeError> {
    let mut messages = Vec::new();
    encode_updates(&attributes(), next_hop.parse().unwrap(), prefixes, EXTERNAL, &mut messages)?;
    Ok(messages)
}

fn read(message: &[u8]) -> Update {
    match decode(message, EXTERNAL) {
        Ok(Message::Update(update)) => update,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_golden_bytes_of_keepalive_and_end_of_rib() {
    assert_eq!(encode(&Message::Keepalive, EXTERNAL), header(19, 4));
    let legacy = [header(23, 2), vec![0; 4]].concat();
    assert_eq!(encode_end_of_rib(Family::IPV4_UNICAST), legacy);
    let v6 = [header(29, 2), vec![0, 0, 0, 6, 0x80, 15, 3, 0, 2, 1]].concat();
    assert_eq!(encode_end_of_rib(Family::IPV6_UNICAST), v6);
}

#[test]
fn the_golden_bytes_of_an_ipv4_announcement() {
    let messages = announce("192.0.2.1", &prefixes(&["10.0.0.0/8", "198.51.100.7/32"])).unwrap();
    let body = [
        &[0, 0, 0, 20][..],
        &[0x40, 1, 1, 0],
        &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9],
        &[0x40, 3, 4, 192, 0, 2, 1],
        &[8, 10, 32, 198, 51, 100, 7],
    ];
    assert_eq!(messages, [[header(50, 2), body.concat()].concat()]);
}

#[test]
fn the_golden_bytes_of_an_ipv6_announcement() {
    let messages = announce("2001:db8::1", &prefixes(&["2001:db8:7::/48"])).unwrap();
    let body = [
        &[0, 0, 0, 45][..],
        &[0x90, 14, 0, 28, 0, 2, 1, 16],
        &[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        &[0, 48, 0x20, 1, 0x0d, 0xb8, 0, 7],
        &[0x40, 1, 1, 0],
        &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9],
    ];
    let mut expected = [header(0, 2), body.concat()].concat();
    // The short form of the length suffices.
    expected.splice(23..27, [0x80, 14, 28]);
    expected[22] = 44;
    expected[17] = u8::try_from(expected.len()).unwrap();
    assert_eq!(messages, [expected]);
}

#[test]
fn the_golden_bytes_of_withdrawals_of_both_families() {
    let mut messages = Vec::new();
    encode_withdrawals(
        &prefixes(&["fc00::/7", "10.0.0.0/8", "0.0.0.0/0"]),
        EXTERNAL,
        &mut messages,
    );
    let v4 = [header(26, 2), vec![0, 3, 8, 10, 0, 0, 0]].concat();
    let v6 = [header(31, 2), vec![0, 0, 0, 8, 0x80, 15, 5, 0, 2, 1, 7, 0xfc]].concat();
    assert_eq!(messages, [v4, v6]);
}

#[test]
fn many_prefixes_fill_messages_without_loss_or_repeats() {
    let v4: Vec<IpNetwork> = (0..3000_u32)
        .map(|n| IpNetwork::new(Ipv4Addr::from_bits(0x0a00_0000 + n).into(), 32).unwrap())
        .collect();
    let v6: Vec<IpNetwork> = (0..900_u128)
        .map(|n| IpNetwork::new(Ipv6Addr::from_bits((0x2001 << 112) + n).into(), 128).unwrap())
        .collect();
    for (next_hop, prefixes, count) in [("192.0.2.1", &v4, 4), ("2001:db8::1", &v6, 4)] {
        let messages = announce(next_hop, prefixes).unwrap();
        assert_eq!(messages.len(), count, "{next_hop}");
        let (last, full) = messages.split_last().unwrap();
        let longest = nlri::encoded_len(&prefixes[0]);
        for message in full {
            assert!((MAX_MESSAGE_LEN - longest + 1..=MAX_MESSAGE_LEN).contains(&message.len()));
        }
        assert!(last.len() <= MAX_MESSAGE_LEN);
        let seen: Vec<_> = messages
            .iter()
            .flat_map(|message| read(message).announced.remove(0).prefixes)
            .collect();
        assert_eq!(&seen, prefixes);

        let mut messages = Vec::new();
        encode_withdrawals(prefixes, EXTERNAL, &mut messages);
        assert!(messages.iter().all(|message| message.len() <= MAX_MESSAGE_LEN));
        let seen: Vec<_> = messages.iter().flat_map(|message| read(message).withdrawn).collect();
        assert_eq!(&seen, prefixes);
    }
}

#[test]
fn extended_messages_are_filled_too() {
    let many: Vec<IpNetwork> = (0..40_000_u32)
        .map(|number| IpNetwork::new(std::net::Ipv4Addr::from(number << 8).into(), 24).unwrap())
        .collect();
    let next_hop = "192.0.2.1".parse().unwrap();
    let encoded =
        encode_attributes(&attributes(), next_hop, EXTERNAL, (PathIds::NONE, MAX_EXTENDED_LEN))
            .unwrap();
    let mut packer = Packer::new(PathIds::NONE, MAX_EXTENDED_LEN);
    packer.announce_ipv4(&encoded, many.iter().map(|&prefix| (0, prefix)));
    let (bytes, messages) = packer.finish();
    assert_eq!(messages, 3);
    let mut framer = crate::wire::Framer::new();
    framer.extend();
    framer.push(&bytes);
    let mut seen = Vec::new();
    let mut lengths = Vec::new();
    while let Some(message) = framer.next_message().unwrap() {
        lengths.push(message.len());
        seen.extend(read(message).announced.remove(0).prefixes);
    }
    assert_eq!(seen, many);
    assert!(lengths[..2].iter().all(|len| (MAX_EXTENDED_LEN - 3..=MAX_EXTENDED_LEN).contains(len)));
    // Attributes that an ordinary message has no room for.
    let large = Attributes { communities: vec![7; 10_000], ..attributes() };
    assert!(
        encode_attributes(&large, next_hop, EXTERNAL, (PathIds::NONE, MAX_MESSAGE_LEN)).is_err()
    );
    assert!(
        encode_attributes(&large, next_hop, EXTERNAL, (PathIds::NONE, MAX_EXTENDED_LEN)).is_ok()
    );
}

#[test]
fn nothing_is_written_for_no_prefixes() {
    assert_eq!(announce("192.0.2.1", &[]), Ok(vec![]));
    let mut messages = Vec::new();
    encode_withdrawals(&[], EXTERNAL, &mut messages);
    assert!(messages.is_empty());
}

#[test]
fn an_ipv4_next_hop_leads_to_no_ipv6_prefix() {
    let mixed = prefixes(&["10.0.0.0/8", "fc00::/7"]);
    let next_hop = "192.0.2.1".parse().unwrap();
    let expected = EncodeError::NextHopFamily { prefix: mixed[1], next_hop };
    assert_eq!(announce("192.0.2.1", &mixed), Err(expected));
}

#[test]
fn an_ipv6_next_hop_leads_to_prefixes_of_both_families() {
    let mixed = prefixes(&["10.0.0.0/8", "fc00::/7"]);
    let messages = announce("2001:db8::1", &mixed).unwrap();
    let next_hop: IpAddr = "2001:db8::1".parse().unwrap();
    // RFC 8950 §3: AFI 1, a next hop of 16 octets, no NEXT_HOP.
    assert_eq!(messages[0][23..31], [0x80, 14, 23, 0, 1, 1, 16, 0x20]);
    let seen = messages.iter().map(|message| read(message).announced);
    let announced = |prefix: IpNetwork| vec![Announced { next_hop, prefixes: vec![prefix] }];
    assert_eq!(seen.collect::<Vec<_>>(), [announced(mixed[0]), announced(mixed[1])]);
}

#[test]
fn attributes_too_large_for_a_message_are_named() {
    for (next_hop, prefix, most) in
        [("192.0.2.1", "10.0.0.0/8", 1011), ("2001:db8::1", "fc00::/7", 1003)]
    {
        let mut messages = Vec::new();
        let mut announce = |communities: usize| {
            let attributes = Attributes { communities: vec![7; communities], ..attributes() };
            let next_hop = next_hop.parse().unwrap();
            encode_updates(&attributes, next_hop, &prefixes(&[prefix]), EXTERNAL, &mut messages)
        };
        assert_eq!(announce(most), Ok(()), "{next_hop}");
        let refusal = announce(most + 1).unwrap_err().to_string();
        assert!(refusal.contains("COMMUNITIES, the largest"), "{refusal}");
        assert!(announce(100_000).is_err());
        assert_eq!(messages.len(), 1);
        assert!(messages[0].len() <= MAX_MESSAGE_LEN);
    }
}

#[test]
fn an_update_that_cannot_be_announced_is_withdrawn() {
    let update = Update {
        announced: vec![Announced {
            next_hop: "192.0.2.1".parse().unwrap(),
            prefixes: prefixes(&["10.0.0.0/8"]),
        }],
        attributes: Some(Attributes { communities: vec![7; 2000], ..attributes() }),
        ..Update::default()
    };
    let bytes = encode(&Message::Update(update), EXTERNAL);
    assert_eq!(read(&bytes).withdrawn, prefixes(&["10.0.0.0/8"]));
}

#[test]
fn a_message_is_never_longer_than_its_bound() {
    let notification = Notification { code: 6, subcode: 2, data: vec![0; 70_000] };
    assert_eq!(encode(&Message::Notification(notification), EXTERNAL).len(), MAX_MESSAGE_LEN);
}

#[test]
fn a_message_is_filled_to_its_last_octet() {
    // A default route is one octet; 23 are header and length fields.
    for (count, lengths) in [(4073, &[4096][..]), (4074, &[4096, 24])] {
        let mut messages = Vec::new();
        encode_withdrawals(&vec![prefixes(&["0.0.0.0/0"])[0]; count], EXTERNAL, &mut messages);
        assert_eq!(messages.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
    }
}
