//! What `netgauze-bgp-pkt` sees. It leaves joining AS_PATH and AS4_PATH to its caller.

use std::collections::HashMap;

use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::path_attribute::{
    Aggregator, AsPath as TheirPath, AsPathSegmentType, MpReach, MpUnreach, PathAttributeValue,
};
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput;

use super::*;

pub(super) fn see(message: &[u8]) -> Seen {
    let nothing = HashMap::new();
    let mut strict = BgpParsingContext::new(true, HashMap::new(), nothing, true, true, true, true);
    let read = BgpMessage::parse(&mut SliceReader::new(message), &mut strict);
    let BgpMessage::Update(update) = read.expect("they read it") else { panic!("an UPDATE") };
    let text =
        |route: &netgauze_bgp_pkt::nlri::Ipv4UnicastAddress| route.network().address().to_string();
    let mut seen = Seen {
        withdrawn: update.withdraw_routes().iter().map(text).collect(),
        announced: update.nlri().iter().map(text).collect(),
        ..Seen::default()
    };
    update.path_attributes().iter().for_each(|attribute| note(attribute.value(), &mut seen));
    seen
}

#[expect(clippy::wildcard_enum_match_arm, reason = "their enum is larger than what we compare")]
fn note(value: &PathAttributeValue, seen: &mut Seen) {
    use PathAttributeValue as Theirs;
    match value {
        Theirs::Origin(origin) => seen.origin = Some(*origin as u8),
        Theirs::AsPath(path) => seen.as_path = as_path(path),
        Theirs::NextHop(hop) => seen.next_hop = Some(hop.next_hop().into()),
        Theirs::MultiExitDiscriminator(med) => seen.med = Some(med.metric()),
        Theirs::LocalPreference(local_pref) => seen.local_pref = Some(local_pref.metric()),
        Theirs::AtomicAggregate(_) => seen.atomic_aggregate = true,
        Theirs::Aggregator(Aggregator::As4Aggregator(four)) => {
            seen.aggregator = Some((*four.asn(), four.origin()));
        }
        Theirs::Communities(list) => {
            seen.communities = list.communities().iter().map(|value| value.value()).collect();
        }
        Theirs::Originator(originator) => seen.originator_id = Some(originator.id()),
        Theirs::ClusterList(list) => {
            seen.cluster_list = list.cluster_list().iter().map(|cluster| cluster.id()).collect();
        }
        Theirs::MpReach(MpReach::Ipv6Unicast { next_hop_global, nlri, .. }) => {
            seen.next_hop = Some((*next_hop_global).into());
            seen.announced = nlri.iter().map(|n| n.network().address().to_string()).collect();
        }
        Theirs::MpUnreach(MpUnreach::Ipv6Unicast { nlri }) => {
            seen.withdrawn = nlri.iter().map(|n| n.network().address().to_string()).collect();
        }
        // Kept by both, compared by the round trip.
        _ => {}
    }
}

fn as_path(path: &TheirPath) -> String {
    let TheirPath::As4PathSegments(segments) = path else { panic!("four octets: {path:?}") };
    let segments = segments.iter().map(|segment| {
        let asns = segment.as_numbers().to_vec();
        match segment.segment_type() {
            AsPathSegmentType::AsSequence => Segment::Sequence(asns),
            AsPathSegmentType::AsSet => Segment::Set(asns),
        }
    });
    AsPath { segments: segments.collect() }.to_string()
}
