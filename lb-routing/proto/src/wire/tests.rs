//! Properties of the whole codec: what is written is read, whatever is read is survived.

mod oracle;
mod strategy;

use proptest::prelude::*;

use super::*;
use crate::fuzz::survive;

fn context() -> impl Strategy<Value = Context> {
    any::<(bool, bool)>().prop_map(|(four_octet_as, external)| Context { four_octet_as, external })
}

/// The attributes as they arrive at a neighbour.
fn as_received(attributes: &Attributes, context: Context) -> Attributes {
    let mut expected = attributes.clone();
    if context.external {
        expected.local_pref = None;
        expected.originator_id = None;
        expected.cluster_list.clear();
    }
    for raw in &mut expected.other {
        let recognized = matches!(raw.code, 16 | 25 | 32);
        raw.flags |= if recognized { 0 } else { 0x20 };
    }
    expected.other.sort_by_key(|raw| raw.code);
    expected
}

fn updates(messages: &[Vec<u8>], context: Context) -> Vec<Update> {
    let update = |message: &Vec<u8>| match decode(message, context) {
        Ok(Message::Update(update)) => update,
        other => panic!("{other:?}"),
    };
    messages.iter().map(update).collect()
}

proptest! {
    #[test]
    fn announcements_arrive_as_they_were_sent(
        attributes in strategy::attributes(),
        (next_hop, prefixes) in strategy::routes(),
        context in context(),
    ) {
        let mut messages = Vec::new();
        encode_updates(&attributes, next_hop, &prefixes, context, &mut messages).unwrap();
        let mut arrived = Vec::new();
        for mut update in updates(&messages, context) {
            prop_assert_eq!(&update.faults, &[]);
            prop_assert_eq!(update.attributes, Some(as_received(&attributes, context)));
            prop_assert_eq!(update.announced.len(), 1);
            let announced = update.announced.remove(0);
            prop_assert_eq!(announced.next_hop, next_hop);
            arrived.extend(announced.prefixes);
        }
        prop_assert_eq!(arrived, prefixes);
    }

    #[test]
    fn withdrawals_arrive_as_they_were_sent(
        (_, v4) in strategy::routes(),
        (_, v6) in strategy::routes(),
        context in context(),
    ) {
        let mut prefixes = [v4, v6].concat();
        let mut messages = Vec::new();
        encode_withdrawals(&prefixes, context, &mut messages);
        let arrived: Vec<_> =
            updates(&messages, context).into_iter().flat_map(|update| update.withdrawn).collect();
        prefixes.sort_by_key(IpNetwork::is_ipv6);
        prop_assert_eq!(arrived, prefixes);
    }

    #[test]
    fn other_messages_arrive_as_they_were_sent(
        message in strategy::other_message(),
        context in context(),
    ) {
        prop_assert_eq!(decode(&encode(&message, context), context), Ok(message));
    }

    #[test]
    fn arbitrary_bytes_are_survived(
        bytes in prop::collection::vec(any::<u8>(), 0..5000),
        context in context(),
    ) {
        survive(&bytes, context);
        let mut framer = Framer::new();
        framer.push(&bytes);
        while let Ok(Some(message)) = framer.next_message() {
            survive(message, context);
        }
    }

    #[test]
    fn arbitrary_bodies_are_survived(
        bytes in strategy::framed(prop::collection::vec(any::<u8>(), 0..4077)),
        context in context(),
    ) {
        survive(&bytes, context);
    }

    #[test]
    fn arbitrary_attributes_are_survived(
        bytes in strategy::update_of_arbitrary_attributes(),
        context in context(),
    ) {
        survive(&bytes, context);
    }

    #[test]
    fn damaged_updates_are_survived(
        attributes in strategy::attributes(),
        (next_hop, prefixes) in strategy::routes(),
        damage in prop::collection::vec((19_usize..4096, any::<u8>()), 1..6),
        context in context(),
    ) {
        let mut messages = Vec::new();
        encode_updates(&attributes, next_hop, &prefixes, context, &mut messages).unwrap();
        for mut message in messages {
            for (at, octet) in &damage {
                let at = 19 + (at - 19) % (message.len() - 19);
                message[at] = *octet;
            }
            survive(&message, context);
        }
    }
}

#[test]
fn the_worst_messages_stay_within_the_expansion_bound() {
    let context = Context { four_octet_as: false, external: true };
    let update = |attributes: &[u8], nlri: &[u8]| {
        let mut body = vec![0, 0];
        body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
        body.extend(attributes);
        body.extend(nlri);
        frame::seal(frame::Kind::Update, &body)
    };
    let valid = [0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4, 192, 0, 2, 1];
    let mut short_segments = vec![0x50, 2, 0x0f, 0xa0];
    short_segments.extend([1, 1, 0, 9].repeat(1000));
    let path = [&valid[..4], &short_segments, &valid[7..]].concat();
    let table = [
        update(&valid, &[0; 4059]),
        update(&valid[..4], &[0; 4069]),
        update(&[0xc0, 200, 0].repeat(1357), &[]),
        update(&(0..=255).flat_map(|code| [0xc0, code, 0]).collect::<Vec<_>>(), &[0; 3000]),
        update(&path, &[0]),
    ];
    for bytes in table {
        survive(&bytes, context);
    }
}
