use super::*;
use crate::policy::{Actions, Chain, Policy, Statement, Verdict};
use crate::wire::AsPath;

const US: (u32, Ipv4Addr) = (65001, Ipv4Addr::new(10, 0, 0, 1));
const THEM: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

fn speaker() -> SpeakerConfig {
    SpeakerConfig { max_paths: 1, ..SpeakerConfig::new(US.0, US.1) }
}

/// A neighbour in another AS, or in ours.
fn peer(external: Option<u32>) -> PeerConfig {
    PeerConfig { import: Import::All, ..PeerConfig::new(THEM, external.unwrap_or(US.0)) }
}

fn check_with(peer: &PeerConfig, segments: Vec<Segment>) -> Result<(), Rejection> {
    let attributes = Attributes { as_path: AsPath { segments }, ..Attributes::default() };
    Judge::new(&speaker(), peer).check(&attributes)
}

fn check(segments: Vec<Segment>, external: Option<u32>) -> Result<(), Rejection> {
    check_with(&peer(external), segments)
}

#[test]
fn our_as_anywhere_in_the_path_is_a_loop() {
    let path = |numbers: &[u32]| Segment::Sequence(numbers.to_vec());
    assert_eq!(check(vec![path(&[7, 8])], Some(7)), Ok(()));
    assert_eq!(check(vec![path(&[7, 65001])], Some(7)), Err(Rejection::AsLoop));
    let set = Segment::Set(vec![9, 65001]);
    assert_eq!(check(vec![path(&[7]), set], Some(7)), Err(Rejection::AsLoop));
}

#[test]
fn our_as_may_be_in_a_path_as_often_as_the_neighbour_s_configuration_allows() {
    let path = |numbers: &[u32]| vec![Segment::Sequence(numbers.to_vec())];
    let lenient = PeerConfig { allow_as_in: 1, ..peer(Some(7)) };
    assert_eq!(check_with(&lenient, path(&[7, 65001])), Ok(()));
    assert_eq!(check_with(&lenient, path(&[7, 65001, 65001])), Err(Rejection::AsLoop));
    // What the neighbour takes for our AS is ours too.
    let other = PeerConfig { local_as: Some(65009), ..peer(Some(7)) };
    for ours in [65001, 65009] {
        assert_eq!(check_with(&other, path(&[7, ours])), Err(Rejection::AsLoop));
    }
}

#[test]
fn an_as_set_is_refused_where_that_is_asked_for() {
    let path = || vec![Segment::Sequence(vec![7]), Segment::Set(vec![8, 9])];
    assert_eq!(check(path(), Some(7)), Ok(()));
    let strict = PeerConfig { reject_as_set: true, ..peer(Some(7)) };
    assert_eq!(check_with(&strict, path()), Err(Rejection::AsSet));
}

#[test]
fn a_route_that_is_about_to_go_is_the_last_to_be_taken() {
    let leaving = Attributes { communities: vec![0xffff_0000], ..Attributes::default() };
    let hop = "10.0.0.9".parse().unwrap();
    let judge = |external, attributes: &Attributes| {
        let importer = Importer::new(&speaker(), &peer(external));
        importer.judge(&"10.1.0.0/16".parse().unwrap(), hop, attributes).unwrap().attributes
    };
    let preference = judge(Some(7), &leaving).map(|changed| changed.local_pref);
    assert_eq!(preference, Some(Some(0)));
    // Inside the AS the border has done that.
    assert_eq!(judge(None, &leaving), None);
    assert_eq!(judge(Some(7), &Attributes::default()), None);
}

#[test]
fn policy_says_which_next_hop_a_route_has() {
    let hop = "10.0.0.9".parse().unwrap();
    let elsewhere = "10.0.0.77".parse().unwrap();
    let other_family = "2001:db8::77".parse().unwrap();
    for (said, wanted) in [
        (None, hop),
        (Some(NextHop::Peer), THEM),
        (Some(NextHop::Address(elsewhere)), elsewhere),
        (Some(NextHop::Address(other_family)), hop),
    ] {
        let statement = Statement {
            name: String::new(),
            conditions: Vec::new(),
            actions: Actions { next_hop: said, ..Actions::default() },
            verdict: Verdict::Accept,
        };
        let statements = vec![statement];
        let policy = Policy { name: "p".into(), statements, otherwise: Verdict::Next };
        let import = Import::Policies(Chain::new(vec![policy.into()]));
        let importer = Importer::new(&speaker(), &PeerConfig { import, ..peer(Some(7)) });
        let judged = importer.judge(&"10.1.0.0/16".parse().unwrap(), hop, &Attributes::default());
        assert_eq!(judged.map(|imported| imported.next_hop), Ok(wanted));
    }
}

#[test]
fn an_external_path_begins_with_the_neighbour() {
    let path = Segment::Sequence(vec![8, 7]);
    assert_eq!(check(vec![path.clone()], Some(7)), Err(Rejection::FirstAs));
    assert_eq!(check(Vec::new(), Some(7)), Err(Rejection::FirstAs));
    assert_eq!(check(vec![path], None), Ok(()));
    assert_eq!(check(Vec::new(), None), Ok(()));
    let confederation = vec![Segment::ConfedSequence(vec![7])];
    assert_eq!(check(confederation, Some(7)), Err(Rejection::Confederation));
}

#[test]
fn our_own_reflected_route_is_a_loop() {
    let attributes = Attributes { originator_id: Some(US.1), ..Attributes::default() };
    assert_eq!(
        Judge::new(&speaker(), &peer(None)).check(&attributes),
        Err(Rejection::OriginatorLoop)
    );
}

#[test]
fn what_our_cluster_reflected_is_a_loop() {
    let attributes =
        |id| Attributes { cluster_list: vec![[8; 4].into(), id], ..Attributes::default() };
    let check =
        |speaker: &SpeakerConfig, id| Judge::new(speaker, &peer(None)).check(&attributes(id));
    assert_eq!(check(&speaker(), US.1), Err(Rejection::ClusterLoop));
    let clustered = SpeakerConfig { cluster_id: Some([9; 4].into()), ..speaker() };
    assert_eq!(check(&clustered, [9; 4].into()), Err(Rejection::ClusterLoop));
    assert_eq!(check(&clustered, US.1), Ok(()));
}

#[test]
fn next_hops_are_unicast_and_not_ours() {
    let check = |text: &str| check_next_hop(text.parse().unwrap(), |hop| hop == IpAddr::from(US.1));
    for good in ["10.0.0.2", "223.255.255.255", "2001:db8::1", "fd00::1"] {
        assert_eq!(check(good), Ok(()), "{good}");
    }
    let bad = ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "255.255.255.255", "10.0.0.1"];
    let bad_v6 = ["::", "::1", "ff02::1", "fe80::1", "::ffff:10.0.0.2"];
    for bad in bad.into_iter().chain(bad_v6) {
        assert_eq!(check(bad), Err(Rejection::NextHop), "{bad}");
    }
}

#[test]
fn prefixes_are_unicast_and_of_their_next_hop_s_family() {
    let check =
        |prefix: &str, hop: &str| check_prefix(&prefix.parse().unwrap(), hop.parse().unwrap());
    assert_eq!(check("0.0.0.0/0", "10.0.0.2"), Ok(()));
    assert_eq!(check("2001:db8::/32", "2001:db8::1"), Ok(()));
    assert_eq!(check("224.0.0.0/4", "10.0.0.2"), Err(Rejection::Prefix));
    assert_eq!(check("ff00::/8", "2001:db8::1"), Err(Rejection::Prefix));
    // RFC 8950, and never the other way round.
    assert_eq!(check("10.0.0.0/8", "2001:db8::1"), Ok(()));
    assert_eq!(check("2001:db8::/32", "10.0.0.2"), Err(Rejection::NextHop));
}
