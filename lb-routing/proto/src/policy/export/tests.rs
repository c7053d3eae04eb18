use std::sync::Arc;

use super::*;
use crate::config::Import;
use crate::wire::{AsPath, RawAttribute};

const OUR_AS: u32 = 65001;
const BOTH: [Family; 2] = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];

fn peer(asn: u32, export: Export) -> PeerConfig {
    PeerConfig { export, ..PeerConfig::new("10.0.0.9".parse().unwrap(), asn) }
}

fn target<'a>(config: &'a PeerConfig, local: &str) -> Target<'a> {
    let local = local.parse().unwrap();
    let cluster_id = Ipv4Addr::new(9, 9, 9, 9);
    Target {
        index: 9,
        config,
        our_as: OUR_AS,
        cluster_id,
        local,
        families: &BOTH,
        ipv4_by_ipv6: false,
    }
}

const fn teller(external: bool, client: bool) -> Option<Teller> {
    let id = Ipv4Addr::new(10, 0, 0, 2);
    Some(Teller { address: IpAddr::V4(id), external, router_id: id, client })
}

const OUTSIDE: Option<Teller> = teller(true, false);
const INSIDE: Option<Teller> = teller(false, false);
const CLIENT: Option<Teller> = teller(false, true);

fn is_told(prefix: &IpNetwork, path: &Path, teller: Option<Teller>, target: &Target<'_>) -> bool {
    check_export(prefix, path, teller, target).is_ok()
}

fn own() -> Path {
    Path { via: Via::Local, attributes: Arc::new(Attributes::default()) }
}

fn learned(next_hop: &str, communities: &[u32]) -> Path {
    let communities = communities.to_vec();
    let attributes = Attributes { communities, ..Attributes::default() };
    let via = Via::Peer { peer: 1, next_hop: next_hop.parse().unwrap() };
    Path { via, attributes: Arc::new(attributes) }
}

fn v4() -> IpNetwork {
    "10.1.0.0/24".parse().unwrap()
}

#[test]
fn an_ipv6_next_hop_is_told_of_an_ipv4_prefix_where_that_was_agreed_on() {
    let (inside, outside) = (peer(OUR_AS, Export::All), peer(65002, Export::All));
    let (six, four) = ("2001:db8::1", "10.0.0.1");
    let v6: IpNetwork = "2001:db8:1::/48".parse().unwrap();
    let by_six = learned("2001:db8::2", &[]);
    let by_four = learned("10.0.0.2", &[]);
    // To whom, from which end, of which path, whether it was agreed on: what is told of an IPv4 prefix.
    for (config, local, path, agreed, told) in [
        (&outside, six, &by_four, true, Some(six)),
        (&outside, six, &by_four, false, None),
        (&outside, four, &by_six, false, Some(four)),
        (&inside, four, &by_six, true, Some("2001:db8::2")),
        (&inside, four, &by_six, false, None),
        (&inside, six, &by_four, false, Some("10.0.0.2")),
    ] {
        let target = Target { ipv4_by_ipv6: agreed, ..target(config, local) };
        let told = told.map(|hop| hop.parse().unwrap());
        assert_eq!(next_hop(&v4(), path, None, &target), told, "{local} {agreed}");
    }
    // Never the other way round.
    let target = Target { ipv4_by_ipv6: true, ..target(&outside, four) };
    assert_eq!(next_hop(&v6, &by_six, None, &target), None);
}

#[test]
fn nothing_is_exported_unless_policy_lists_it() {
    let learned = learned("10.0.0.2", &[]);
    let cases =
        [(Export::None, false, false), (Export::Vips, true, false), (Export::All, true, true)];
    for (export, vip, other) in cases {
        let config = peer(65002, export.clone());
        let target = target(&config, "10.0.0.1");
        assert_eq!(is_told(&v4(), &own(), None, &target), vip, "{export:?}");
        assert_eq!(is_told(&v4(), &learned, OUTSIDE, &target), other, "{export:?}");
    }
    assert_eq!(Export::default(), Export::None);
    assert_eq!(Import::default(), Import::None);
}

#[test]
fn a_route_does_not_go_back_nor_from_one_internal_neighbour_to_another() {
    let internal = peer(OUR_AS, Export::All);
    let external = peer(65002, Export::All);
    let path = learned("10.0.0.2", &[]);
    assert!(!is_told(&v4(), &path, INSIDE, &target(&internal, "10.0.0.1")));
    assert!(is_told(&v4(), &path, INSIDE, &target(&external, "10.0.0.1")));
    assert!(is_told(&v4(), &path, OUTSIDE, &target(&internal, "10.0.0.1")));
    let back = Target { index: 1, ..target(&external, "10.0.0.1") };
    assert!(!is_told(&v4(), &path, OUTSIDE, &back));
}

#[test]
fn routes_of_our_as_are_reflected_to_clients_and_those_of_clients_to_everybody() {
    let other = peer(OUR_AS, Export::All);
    let client = PeerConfig { route_reflector_client: true, ..other.clone() };
    let outside = peer(65002, Export::All);
    let cases = [
        (INSIDE, [false, true, true]),
        (CLIENT, [true, true, true]),
        (OUTSIDE, [true, true, true]),
        (None, [true, true, true]),
    ];
    for (teller, told) in cases {
        let hears =
            |config| is_told(&v4(), &learned("10.0.0.2", &[]), teller, &target(config, "10.0.0.1"));
        assert_eq!([&other, &client, &outside].map(hears), told, "{teller:?}");
    }
}

#[test]
fn a_reflected_route_names_its_originator_and_our_cluster_and_stays_as_it_is_otherwise() {
    let config = PeerConfig { route_reflector_client: true, ..peer(OUR_AS, Export::All) };
    let target = target(&config, "10.0.0.1");
    let before = Attributes { med: Some(7), local_pref: Some(u32::MAX), ..Attributes::default() };
    let told = advertised_attributes(&before, false, INSIDE, &target);
    let (originator_id, cluster_list) = (Some(Ipv4Addr::new(10, 0, 0, 2)), vec![target.cluster_id]);
    assert_eq!(told, Attributes { originator_id, cluster_list, ..before.clone() });
    // It keeps its first originator, and the clusters stand in the order of the way back.
    let again = Attributes {
        originator_id: Some(Ipv4Addr::new(1, 1, 1, 1)),
        cluster_list: vec![Ipv4Addr::new(8, 8, 8, 8)],
        ..Attributes::default()
    };
    let told = advertised_attributes(&again, false, CLIENT, &target);
    assert_eq!(told.originator_id, again.originator_id);
    assert_eq!(told.cluster_list, [target.cluster_id, Ipv4Addr::new(8, 8, 8, 8)]);
    // What comes from outside, or from ourselves, is not reflected.
    for teller in [OUTSIDE, None] {
        let told = advertised_attributes(&Attributes::default(), false, teller, &target);
        assert_eq!((told.originator_id, told.cluster_list), (None, vec![]));
    }
}

#[test]
fn well_known_communities_are_honoured() {
    let internal = peer(OUR_AS, Export::All);
    let external = peer(65002, Export::All);
    let cases = [(NO_EXPORT, true, false), (NO_ADVERTISE, false, false)];
    for (community, inside, outside) in
        cases.into_iter().chain([(NO_EXPORT_SUBCONFED, true, false)])
    {
        let path = learned("10.0.0.2", &[community]);
        let told = |config| is_told(&v4(), &path, OUTSIDE, &target(config, "10.0.0.1"));
        assert_eq!((told(&internal), told(&external)), (inside, outside), "{community:x}");
    }
}

#[test]
fn a_family_that_was_not_agreed_on_is_not_exported() {
    let config = peer(65002, Export::All);
    let target = Target { families: &BOTH[1..], ..target(&config, "10.0.0.1") };
    assert!(!is_told(&v4(), &own(), None, &target));
}

#[test]
fn next_hops_are_ourselves_outside_and_kept_inside() {
    let hop = |config: &PeerConfig, local: &str, prefix: &str, path: &Path| {
        let prefix = prefix.parse().unwrap();
        next_hop(&prefix, path, None, &target(config, local)).map(|hop| hop.to_string())
    };
    let external = peer(65002, Export::All);
    let internal = peer(OUR_AS, Export::All);
    let ourselves = PeerConfig { next_hop_self: true, ..internal.clone() };
    let path = learned("10.0.0.2", &[]);
    let self_v4 = Some("10.0.0.1".to_owned());
    assert_eq!(hop(&external, "10.0.0.1", "10.1.0.0/24", &path), self_v4);
    assert_eq!(hop(&internal, "10.0.0.1", "10.1.0.0/24", &path), Some("10.0.0.2".into()));
    assert_eq!(hop(&ourselves, "10.0.0.1", "10.1.0.0/24", &path), self_v4);
    assert_eq!(hop(&internal, "10.0.0.1", "10.1.0.0/24", &own()), self_v4);
}

#[test]
fn a_next_hop_that_policy_sets_is_for_its_own_family() {
    let external = peer(65002, Export::All);
    let said = Some(NextHop::Address("10.0.0.77".parse().unwrap()));
    let hop = |local: &str, prefix: &str| {
        let target = target(&external, local);
        next_hop(&prefix.parse().unwrap(), &own(), said, &target).map(|hop| hop.to_string())
    };
    assert_eq!(hop("2001:db8::1", "10.1.0.0/24"), Some("10.0.0.77".into()));
    assert_eq!(hop("2001:db8::1", "2001:db8:1::/48"), Some("2001:db8::1".into()));
}

#[test]
fn a_family_without_a_usable_next_hop_is_not_advertised() {
    let external = peer(65002, Export::All);
    let hop = |local: &str, prefix: &str| {
        next_hop(&prefix.parse().unwrap(), &own(), None, &target(&external, local)).is_some()
    };
    assert!(!hop("10.0.0.1", "2001:db8::/32"));
    assert!(!hop("fe80::1", "2001:db8::/32"));
    assert!(!hop("2001:db8::1", "10.1.0.0/24"));
    assert!(hop("2001:db8::1", "2001:db8::/32"));
}

#[test]
fn attributes_change_at_the_border_of_the_as() {
    let learned = Attributes {
        as_path: AsPath { segments: vec![Segment::Sequence(vec![7, 8])] },
        med: Some(5),
        local_pref: Some(300),
        originator_id: Some("1.1.1.1".parse().unwrap()),
        cluster_list: vec!["2.2.2.2".parse().unwrap()],
        communities: vec![42],
        other: vec![
            RawAttribute { flags: 0xc0, code: 200, value: vec![1] },
            RawAttribute { flags: 0x80, code: 201, value: vec![2] },
        ],
        ..Attributes::default()
    };
    let external = peer(65002, Export::All);
    let outside = advertised_attributes(&learned, false, None, &target(&external, "10.0.0.1"));
    let other = vec![RawAttribute { flags: 0xe0, code: 200, value: vec![1] }];
    let expected = Attributes {
        as_path: AsPath { segments: vec![Segment::Sequence(vec![OUR_AS, 7, 8])] },
        communities: vec![42],
        other: other.clone(),
        ..Attributes::default()
    };
    assert_eq!(outside, expected);

    let internal = peer(OUR_AS, Export::All);
    let inside = advertised_attributes(&learned, false, None, &target(&internal, "10.0.0.1"));
    assert_eq!(inside, Attributes { other, ..learned });
    let own =
        advertised_attributes(&Attributes::default(), false, None, &target(&internal, "10.0.0.1"));
    assert_eq!((own.local_pref, own.as_path), (Some(100), AsPath::default()));
}

#[test]
fn a_full_segment_is_not_prolonged() {
    let config = peer(65002, Export::All);
    let set = Segment::Set(vec![1]);
    for first in [Segment::Sequence(vec![7; 255]), set] {
        let segments = vec![first.clone()];
        let learned = Attributes { as_path: AsPath { segments }, ..Attributes::default() };
        let told = advertised_attributes(&learned, false, None, &target(&config, "10.0.0.1"));
        assert_eq!(told.as_path.segments, [Segment::Sequence(vec![OUR_AS]), first]);
    }
}
