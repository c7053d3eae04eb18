//! What `rustbgpd-wire` sees.

use bytes::Bytes;
use rustbgpd_wire as other;

use super::*;

pub(super) fn see(message: &[u8], context: Context) -> Seen {
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
    parsed.attributes.iter().for_each(|attribute| note(attribute, &mut seen));
    seen
}

#[expect(clippy::wildcard_enum_match_arm, reason = "their enum is larger than what we compare")]
fn note(attribute: &other::attribute::PathAttribute, seen: &mut Seen) {
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
