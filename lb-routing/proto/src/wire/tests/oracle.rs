//! Another implementation reads what we write, and must see the same.

use bytes::Bytes;
use proptest::prelude::*;
use rustbgpd_wire as other;

use super::*;

/// An UPDATE as the other implementation sees it, in words of ours.
#[derive(Debug, Default, PartialEq)]
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

fn theirs(message: &[u8], context: Context) -> Seen {
    let mut bytes = Bytes::copy_from_slice(message);
    let read = other::decode_message(&mut bytes, 4096).expect("they read it");
    let other::Message::Update(update) = read else { panic!("{read:?}") };
    let revised = update
        .parse_revised(context.four_octet_as, !context.external, false, &[])
        .expect("they find no fatal error");
    assert!(revised.malformed.is_empty(), "{:?}", revised.malformed);
    let parsed = revised.update;
    let v4 =
        |entry: &other::nlri::Ipv4NlriEntry| format!("{}/{}", entry.prefix.addr, entry.prefix.len);
    let mut seen = Seen {
        withdrawn: parsed.withdrawn.iter().map(v4).collect(),
        announced: parsed.announced.iter().map(v4).collect(),
        ..Seen::default()
    };
    parsed.attributes.iter().for_each(|attribute| see(attribute, &mut seen));
    seen
}

#[expect(clippy::wildcard_enum_match_arm, reason = "their enum is larger than what we compare")]
fn see(attribute: &other::attribute::PathAttribute, seen: &mut Seen) {
    use other::attribute::PathAttribute as Theirs;
    let text = |entry: &other::nlri::NlriEntry| match entry.prefix {
        other::nlri::Prefix::V4(prefix) => format!("{}/{}", prefix.addr, prefix.len),
        other::nlri::Prefix::V6(prefix) => format!("{}/{}", prefix.addr, prefix.len),
    };
    match attribute {
        Theirs::Origin(origin) => seen.origin = Some(*origin as u8),
        Theirs::AsPath(path) => seen.as_path = as_path(path),
        Theirs::NextHop(address) => seen.next_hop = Some((*address).into()),
        Theirs::Med(med) => seen.med = Some(*med),
        Theirs::LocalPref(local_pref) => seen.local_pref = Some(*local_pref),
        Theirs::AtomicAggregate => seen.atomic_aggregate = true,
        Theirs::Aggregator(value) => seen.aggregator = Some((value.asn, value.router_id)),
        Theirs::Communities(list) => seen.communities.clone_from(list),
        Theirs::OriginatorId(id) => seen.originator_id = Some(*id),
        Theirs::ClusterList(list) => seen.cluster_list.clone_from(list),
        Theirs::MpReachNlri(reach) => {
            seen.next_hop = Some(reach.next_hop);
            seen.announced = reach.announced.iter().map(text).collect();
        }
        Theirs::MpUnreachNlri(unreach) => {
            seen.withdrawn = unreach.withdrawn.iter().map(text).collect();
        }
        // Kept by both, compared by the round trip.
        _ => {}
    }
}

fn as_path(path: &other::attribute::AsPath) -> String {
    use other::attribute::AsPathSegment;
    let segments = path.segments.iter().map(|segment| match segment {
        AsPathSegment::AsSequence(asns) => Segment::Sequence(asns.clone()),
        AsPathSegment::AsSet(asns) => Segment::Set(asns.clone()),
    });
    AsPath { segments: segments.collect() }.to_string()
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
            prop_assert_eq!(theirs(&message, context), ours(&message, context));
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
