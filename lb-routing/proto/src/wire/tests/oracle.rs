//! Other implementations read what we write, and must see the same, whether it was made here or read from damaged bytes.

mod bgpkit;
mod netgauze;
mod rustbgpd;

use bytes::Bytes;
use proptest::prelude::*;
use rustbgpd_wire as other;

use super::*;

/// An UPDATE as the other implementation sees it, in words of ours.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    withdrawn: Vec<String>,
    announced: Vec<String>,
    next_hop: Option<IpAddr>,
    origin: Option<u8>,
    as_path: String,
    med: Option<u32>,
    local_pref: Option<u32>,
    atomic_aggregate: bool,
    aggregator: Option<(u32, Ipv4Addr)>,
    communities: Vec<u32>,
    originator_id: Option<Ipv4Addr>,
    cluster_list: Vec<Ipv4Addr>,
}

fn ours(message: &[u8], context: Context) -> Seen {
    let Ok(Message::Update(update)) = decode(message, context) else { panic!("we read it") };
    let mut seen = Seen {
        withdrawn: update.withdrawn.iter().map(ToString::to_string).collect(),
        ..Seen::default()
    };
    if let [announced] = update.announced.as_slice() {
        seen.next_hop = Some(announced.next_hop);
        seen.announced = announced.prefixes.iter().map(ToString::to_string).collect();
    }
    let Some(attributes) = update.attributes else { return seen };
    Seen {
        origin: Some(attributes.origin as u8),
        as_path: attributes.as_path.to_string(),
        med: attributes.med,
        local_pref: attributes.local_pref,
        atomic_aggregate: attributes.atomic_aggregate,
        aggregator: attributes.aggregator,
        communities: attributes.communities,
        originator_id: attributes.originator_id,
        cluster_list: attributes.cluster_list,
        ..seen
    }
}

/// Attributes that all of them keep as they are: what has a number at IANA and no rule here, one of them may hold to the
/// flags and the form of its own specification.
fn is_alike_to_all(attribute: &RawAttribute) -> bool {
    let is_unassigned = matches!(attribute.code, 64..=127 | 130..=240 | 244..=254);
    attributes::is_kept_raw(attribute.code) || is_unassigned
}

/// Prefixes that all of them take: one refuses those that reach into multicast, another guesses from the zero octet of a
/// default route that path identifiers (RFC 7911) follow.
fn is_plain(prefix: &IpNetwork) -> bool {
    prefix.prefix() > 0
        && match prefix {
            IpNetwork::V4(prefix) => prefix.broadcast().octets()[0] < 224,
            IpNetwork::V6(prefix) => !prefix.network().is_multicast(),
        }
}

proptest! {
    #[test]
    fn another_implementation_reads_our_updates_alike(
        mut attributes in strategy::attributes(),
        (next_hop, prefixes) in strategy::routes(),
        context in context(),
    ) {
        // They obey RFC 9774 and refuse AS_SET.
        attributes.as_path.segments.retain(|segment| matches!(segment, Segment::Sequence(_)));
        let mut messages = Vec::new();
        encode_updates(&attributes, next_hop, &prefixes, context, &mut messages).unwrap();
        encode_withdrawals(&prefixes, context, &mut messages);
        for message in messages {
            prop_assert_eq!(rustbgpd::see(&message, context), ours(&message, context));
        }
    }

    #[test]
    fn two_more_implementations_read_our_updates_alike(
        attributes in strategy::attributes(),
        (next_hop, prefixes) in strategy::routes(),
        external in any::<bool>(),
    ) {
        let context = Context { four_octet_as: true, external };
        let prefixes: Vec<_> = prefixes.into_iter().filter(is_plain).collect();
        let mut messages = Vec::new();
        encode_updates(&attributes, next_hop, &prefixes, context, &mut messages).unwrap();
        encode_withdrawals(&prefixes, context, &mut messages);
        for message in messages {
            let ours = ours(&message, context);
            prop_assert_eq!(bgpkit::see(&message), ours.clone());
            prop_assert_eq!(netgauze::see(&message), ours);
        }
    }

    #[test]
    fn three_implementations_read_alike_what_we_took_from_damaged_updates(
        attributes in strategy::attributes(),
        (next_hop, prefixes) in strategy::routes(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        external in any::<bool>(),
    ) {
        let context = Context { four_octet_as: true, external };
        let mut messages = Vec::new();
        let few = &prefixes[..prefixes.len().min(8)];
        encode_updates(&attributes, next_hop, few, context, &mut messages).unwrap();
        let mut bytes = messages.swap_remove(0);
        for (at, octet) in &damage {
            // The head of the body: lengths, attributes, the first prefixes.
            let body = &mut bytes[HEADER_LEN..];
            let len = body.len().min(200);
            body[at.index(len)] = *octet;
        }
        let Ok(Message::Update(mut taken)) = decode(&bytes, context) else { return Ok(()) };
        taken.withdrawn.retain(is_plain);
        taken.announced.iter_mut().for_each(|announced| announced.prefixes.retain(is_plain));
        // They obey RFC 9774 and RFC 5065 in other ways.
        if let Some(attributes) = &mut taken.attributes {
            let plain = |segment: &Segment| matches!(segment, Segment::Sequence(_));
            attributes.as_path.segments.retain(plain);
            attributes.other.retain(is_alike_to_all);
        }
        let written = encode(&Message::Update(taken), context);
        let mut framer = Framer::new();
        framer.push(&written);
        while let Some(message) = framer.next_message().expect("we write whole messages") {
            let ours = ours(message, context);
            prop_assert_eq!(bgpkit::see(message), ours.clone());
            prop_assert_eq!(netgauze::see(message), ours.clone());
            prop_assert_eq!(rustbgpd::see(message, context), ours);
        }
    }

    #[test]
    fn another_implementation_reads_our_other_messages(message in strategy::other_message()) {
        let context = Context { four_octet_as: true, external: true };
        let written = encode(&message, context);
        let read = other::decode_message(&mut Bytes::copy_from_slice(&written), 4096);
        match (&message, read) {
            (Message::Open(ours), Ok(other::Message::Open(theirs))) => {
                prop_assert_eq!(ours.asn, theirs.four_byte_as());
                prop_assert_eq!(ours.hold_time_secs, theirs.hold_time);
                prop_assert_eq!(ours.router_id, theirs.bgp_identifier);
                prop_assert_eq!(ours.capabilities.len(), theirs.capabilities.len());
            }
            (Message::Notification(_), Ok(other::Message::Notification(_)))
            | (Message::Keepalive, Ok(other::Message::Keepalive))
            | (Message::RouteRefresh(_), Ok(other::Message::RouteRefresh(_))) => {}
            (_, theirs) => prop_assert!(false, "{theirs:?}"),
        }
    }
}
