//! What `bgpkit-parser` sees. It leaves joining AS_PATH and AS4_PATH to its caller.

use bgpkit_parser::models::{
    AsPathSegment, AsnLength, AttributeValue, BgpMessage, Community, NetworkPrefix, NextHopAddress,
};
use bgpkit_parser::parser::bgp::messages::parse_bgp_message;
use bytes::Bytes;

use super::*;

pub(super) fn see(message: &[u8]) -> Seen {
    let mut bytes = Bytes::copy_from_slice(message);
    let read = parse_bgp_message(&mut bytes, false, &AsnLength::Bits32).expect("they read it");
    let BgpMessage::Update(update) = read else { panic!("{read:?}") };
    let mut seen = Seen {
        withdrawn: texts(&update.withdrawn_prefixes),
        announced: texts(&update.announced_prefixes),
        ..Seen::default()
    };
    update.attributes.iter().for_each(|attribute| note(attribute, &mut seen));
    seen
}

fn texts(prefixes: &[NetworkPrefix]) -> Vec<String> {
    prefixes.iter().map(|prefix| prefix.prefix.to_string()).collect()
}

#[expect(clippy::wildcard_enum_match_arm, reason = "their enum is larger than what we compare")]
fn note(value: &AttributeValue, seen: &mut Seen) {
    use AttributeValue as Theirs;
    match value {
        Theirs::Origin(origin) => seen.origin = Some(*origin as u8),
        Theirs::AsPath(path) => {
            let segments = path.segments.iter().map(segment).collect();
            seen.as_path = AsPath { segments }.to_string();
        }
        Theirs::NextHop(address) => seen.next_hop = Some(*address),
        Theirs::MultiExitDiscriminator(med) => seen.med = Some(*med),
        Theirs::LocalPreference(local_pref) => seen.local_pref = Some(*local_pref),
        Theirs::AtomicAggregate => seen.atomic_aggregate = true,
        Theirs::Aggregator { asn, id } => seen.aggregator = Some((u32::from(*asn), *id)),
        Theirs::Communities(list) => seen.communities = list.iter().map(community).collect(),
        Theirs::OriginatorId(id) => seen.originator_id = Some(*id),
        Theirs::Clusters(list) => {
            seen.cluster_list = list.iter().copied().map(Ipv4Addr::from_bits).collect();
        }
        Theirs::MpReachNlri(reach) => {
            seen.next_hop = reach.next_hop.map(next_hop);
            seen.announced = texts(&reach.prefixes);
        }
        Theirs::MpUnreachNlri(unreach) => seen.withdrawn = texts(&unreach.prefixes),
        // Kept by both, compared by the round trip.
        _ => {}
    }
}

fn segment(segment: &AsPathSegment) -> Segment {
    let (kind, asns): (fn(Vec<u32>) -> Segment, _) = match segment {
        AsPathSegment::AsSequence(asns) => (Segment::Sequence, asns),
        AsPathSegment::AsSet(asns) => (Segment::Set, asns),
        AsPathSegment::ConfedSequence(asns) => (Segment::ConfedSequence, asns),
        AsPathSegment::ConfedSet(asns) => (Segment::ConfedSet, asns),
    };
    kind(asns.iter().copied().map(u32::from).collect())
}

fn community(community: &Community) -> u32 {
    match community {
        Community::NoExport => 0xffff_ff01,
        Community::NoAdvertise => 0xffff_ff02,
        Community::NoExportSubConfed => 0xffff_ff03,
        Community::Custom(asn, value) => u32::from(*asn) << 16 | u32::from(*value),
    }
}

fn next_hop(address: NextHopAddress) -> IpAddr {
    match address {
        NextHopAddress::Ipv4(address) => address.into(),
        NextHopAddress::Ipv6(address)
        | NextHopAddress::Ipv6LinkLocal(address, _)
        | NextHopAddress::VpnIpv6(_, address)
        | NextHopAddress::VpnIpv6LinkLocal(_, address, _, _) => address.into(),
    }
}
