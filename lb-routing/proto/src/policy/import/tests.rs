use super::*;
use crate::wire::AsPath;

const US: (u32, Ipv4Addr) = (65001, Ipv4Addr::new(10, 0, 0, 1));

fn check(segments: Vec<Segment>, external: Option<u32>) -> Result<(), Rejection> {
    let attributes = Attributes { as_path: AsPath { segments }, ..Attributes::default() };
    check_attributes(&attributes, US, external)
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
    assert_eq!(check_attributes(&attributes, US, None), Err(Rejection::OriginatorLoop));
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
    assert_eq!(check("10.0.0.0/8", "2001:db8::1"), Err(Rejection::NextHop));
}
