mod settling;

use std::net::Ipv4Addr;

use super::*;
use crate::fib::{Leg, Reach};
use crate::wire::AsPath;

fn rib(max_paths: usize) -> Rib {
    rib_by(crate::config::Decision::USUAL, max_paths)
}

fn rib_by(decision: crate::config::Decision, max_paths: usize) -> Rib {
    let ranking = |number: u8| Ranking {
        external: true,
        client: false,
        router_id: Ipv4Addr::new(1, 1, 1, number),
        address: hop(number),
    };
    let rules = Rules { decision, max_paths };
    Rib::new((0..4).map(ranking).collect(), rules, Keyed::new([1, 2]))
}

fn hop(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, number])
}

fn prefix(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn learn(rib: &mut Rib, text: &str, peer: u8, as_path: &[u32]) -> bool {
    let as_path = AsPath::sequence(as_path);
    let attributes = rib.intern(
        &Attributes { as_path, ..Attributes::default() },
        Some(hop(peer)),
        Source::of(peer.into()),
    );
    let source = Source::of(peer.into());
    let path = PathEntry {
        received: attributes,
        attributes,
        path_id: 0,
        source,
        stale: false,
        usage: Usage::Both,
    };
    let additional = rib.insert(&prefix(text), path) == Insertion::Added;
    rib.release(attributes);
    additional
}

fn changes(rib: &mut Rib) -> Vec<(String, Vec<IpAddr>)> {
    let mut changes = Vec::new();
    while let Some(change) = rib.next_change() {
        changes.extend(change.news.map(|(prefix, hops, _)| (prefix.to_string(), hops.to_vec())));
    }
    changes
}

#[test]
fn equal_paths_are_published_together_up_to_the_bound() {
    let mut rib = rib(2);
    for peer in 0..4 {
        learn(&mut rib, "10.1.0.0/24", peer, &[7]);
    }
    assert_eq!(changes(&mut rib), [("10.1.0.0/24".into(), vec![hop(0), hop(1)])]);
    rib.remove(&prefix("10.1.0.0/24"), (Source::of(0), 0));
    assert_eq!(changes(&mut rib), [("10.1.0.0/24".into(), vec![hop(1), hop(2)])]);
}

#[test]
fn a_prefix_is_published_once_however_often_it_changed_and_not_at_all_if_it_did_not() {
    let mut rib = rib(1);
    for round in 0..100 {
        learn(&mut rib, "10.1.0.0/24", 0, &[7, round]);
    }
    assert_eq!(changes(&mut rib), [("10.1.0.0/24".into(), vec![hop(0)])]);
    learn(&mut rib, "10.1.0.0/24", 1, &[7, 8, 9]);
    rib.remove(&prefix("10.1.0.0/24"), (Source::of(0), 0));
    learn(&mut rib, "10.1.0.0/24", 0, &[7]);
    assert_eq!(changes(&mut rib), []);
    rib.remove_peer(0, 1);
    rib.remove_peer(1, 1);
    assert_eq!(changes(&mut rib), [("10.1.0.0/24".into(), vec![])]);
    assert_eq!((rib.prefixes.len(), rib.attributes.len()), (0, 0));
}

#[test]
fn an_originated_prefix_hides_learned_paths_until_it_is_given_up() {
    let mut rib = rib(4);
    learn(&mut rib, "203.0.113.1/32", 0, &[7]);
    assert_eq!(changes(&mut rib), [("203.0.113.1/32".into(), vec![hop(0)])]);
    rib.originate(&[prefix("203.0.113.1/32")]);
    assert_eq!(changes(&mut rib), [("203.0.113.1/32".into(), vec![])]);
    rib.originate(&[]);
    assert_eq!(changes(&mut rib), [("203.0.113.1/32".into(), vec![hop(0)])]);
}

#[test]
fn what_is_originated_changes_by_what_comes_and_goes() {
    let mut rib = rib(4);
    let [one, two, three] = ["203.0.113.1/32", "203.0.113.2/32", "203.0.113.3/32"].map(prefix);
    let is_originated = |rib: &Rib| [one, two, three].map(|p| rib.originates_host(p.ip()));
    rib.originate(&[one, two]);
    rib.change_originated(&[three, two], &[one, one]);
    assert_eq!(is_originated(&rib), [false, true, true]);
    // What comes stays, whatever goes with it.
    rib.change_originated(&[two], &[two]);
    rib.originate(&[three]);
    assert_eq!(is_originated(&rib), [false, false, true]);
    rib.change_originated(&[], &[three]);
    assert_eq!(changes(&mut rib), [], "none of it is to be installed");
    assert_eq!((rib.prefixes.len(), rib.attributes.len()), (0, 0));
}

#[test]
fn a_source_has_one_path_per_prefix() {
    let mut rib = rib(4);
    assert!(learn(&mut rib, "10.1.0.0/24", 0, &[7]));
    assert!(!learn(&mut rib, "10.1.0.0/24", 0, &[8]));
    assert!(rib.remove(&prefix("10.1.0.0/24"), (Source::of(0), 0)).is_some());
    assert!(rib.remove(&prefix("10.1.0.0/24"), (Source::of(0), 0)).is_none());
}

#[test]
fn routes_with_equal_attributes_share_them() {
    let mut rib = rib(1);
    learn(&mut rib, "10.1.0.0/24", 0, &[7]);
    learn(&mut rib, "10.2.0.0/24", 0, &[7]);
    learn(&mut rib, "10.3.0.0/24", 1, &[7]);
    // The next hop is part of them.
    assert_eq!(rib.attributes.len(), 2);
}

#[test]
fn the_path_that_came_first_stays_the_best_until_it_goes_where_identifiers_are_not_compared() {
    let mut rib = rib(1);
    rib.rules.decision.compare_router_id = false;
    learn(&mut rib, "10.1.0.0/24", 2, &[7]);
    learn(&mut rib, "10.1.0.0/24", 0, &[7]);
    learn(&mut rib, "10.1.0.0/24", 1, &[7]);
    assert_eq!(changes(&mut rib), [("10.1.0.0/24".into(), vec![hop(2)])]);
    // Told anew it is still the same path.
    learn(&mut rib, "10.1.0.0/24", 2, &[8]);
    assert_eq!(changes(&mut rib), []);
    rib.remove(&prefix("10.1.0.0/24"), (Source::of(2), 0));
    assert_eq!(changes(&mut rib), [("10.1.0.0/24".into(), vec![hop(0)])]);
}

#[test]
fn two_ways_to_hear_of_one_next_hop_take_one_place() {
    let mut rib = rib(2);
    for (peer, path_id) in [(0, 1), (0, 2), (0, 3), (1, 1), (2, 1)] {
        let as_path = AsPath::sequence(&[7, 100 + path_id]);
        let told = Attributes { as_path, ..Attributes::default() };
        let source = Source::of(peer);
        let hop = hop(u8::try_from(peer).unwrap());
        let attributes = rib.intern(&told, Some(hop), source);
        let path = PathEntry {
            received: attributes,
            attributes,
            path_id,
            source,
            stale: false,
            usage: Usage::Both,
        };
        rib.insert(&prefix("10.1.0.0/24"), path);
        rib.release(attributes);
    }
    assert_eq!(changes(&mut rib), [("10.1.0.0/24".into(), vec![hop(0), hop(1)])]);
    rib.remove_peer(0, 3);
    assert_eq!(changes(&mut rib), [("10.1.0.0/24".into(), vec![hop(1), hop(2)])]);
}

/// Looks at all that there is to be looked at again.
fn look_again(rib: &mut Rib) {
    while rib.look_again() {}
}

#[test]
fn paths_move_when_it_costs_something_else_to_reach_their_next_hops() {
    let mut rib = rib(2);
    for peer in 0..2 {
        learn(&mut rib, "10.1.0.0/24", peer, &[7]);
    }
    learn(&mut rib, "10.2.0.0/24", 0, &[7]);
    let news: Vec<_> = std::iter::from_fn(|| rib.next_hop_news()).collect();
    assert_eq!(news, [(hop(0), true), (hop(1), true)]);
    let both = ("10.1.0.0/24".to_string(), vec![hop(0), hop(1)]);
    assert_eq!(changes(&mut rib), [both.clone(), ("10.2.0.0/24".into(), vec![hop(0)])]);
    rib.set_reach(hop(0), Some(10).into());
    look_again(&mut rib);
    assert_eq!(changes(&mut rib), [("10.1.0.0/24".into(), vec![hop(1)])], "the nearer one");
    rib.set_reach(hop(1), Some(10).into());
    look_again(&mut rib);
    assert_eq!(changes(&mut rib), [both]);
    rib.set_reach(hop(0), Reach::default());
    look_again(&mut rib);
    let gone = [("10.1.0.0/24".into(), vec![hop(1)]), ("10.2.0.0/24".into(), vec![])];
    let mut changed = changes(&mut rib);
    changed.sort();
    assert_eq!(changed, gone, "what cannot be reached is not chosen");
    assert!(rib.best(rib.find(&prefix("10.2.0.0/24")).unwrap()).is_none());
    learn(&mut rib, "10.3.0.0/24", 0, &[7]);
    assert_eq!(changes(&mut rib), [], "nor later");
    rib.set_reach(hop(0), Some(0).into());
    look_again(&mut rib);
    assert_eq!(changes(&mut rib).len(), 3);
    rib.remove_peer(0, 3);
    assert_eq!(rib.next_hop_news(), None, "what was published still has it");
    changes(&mut rib);
    assert_eq!(rib.next_hop_news(), Some((hop(0), false)));
}

#[test]
fn a_path_is_no_better_for_the_route_that_it_would_replace() {
    let mut rib = rib(2);
    for (peer, text) in [(0, "10.1.0.0/24"), (1, "10.1.0.0/24"), (0, "10.2.0.0/24")] {
        learn(&mut rib, text, peer, &[7]);
    }
    changes(&mut rib);
    // The second neighbour's path leads to the first one's next hop.
    let over = |without| {
        let over = Some(prefix("10.1.0.0/24"));
        Reach::new([Leg { cost: without, over: None }, Leg { cost: Some(0), over }])
    };
    rib.set_reach(hop(0), over(None));
    look_again(&mut rib);
    assert_eq!(changes(&mut rib), [("10.1.0.0/24".into(), vec![hop(1)])], "others keep theirs");
    rib.set_reach(hop(0), over(Some(5)));
    look_again(&mut rib);
    assert_eq!(changes(&mut rib), [], "it is farther than the other one");
    rib.remove_peer(1, 1);
    assert_eq!(changes(&mut rib), [("10.1.0.0/24".into(), vec![hop(0)])]);
    rib.set_reach(hop(0), over(None));
    look_again(&mut rib);
    assert_eq!(changes(&mut rib), [("10.1.0.0/24".into(), vec![])], "nor to itself");
    rib.set_reach(hop(0), Some(0).into());
    look_again(&mut rib);
    assert_eq!(changes(&mut rib), [("10.1.0.0/24".into(), vec![hop(0)])]);
}

#[test]
fn a_cost_that_changes_while_a_round_is_under_way_reaches_every_record() {
    let mut rib = rib(1);
    let all = 3 * 16 * 1024;
    for number in 0..all {
        let [_, a, b, c] = u32::to_be_bytes(number);
        let text = format!("10.{a}.{b}.{c}/32");
        for peer in 0..2 {
            learn(&mut rib, &text, peer, &[7]);
        }
    }
    changes(&mut rib);
    rib.set_reach(hop(0), Some(10).into());
    assert!(rib.look_again());
    rib.set_reach(hop(1), Some(20).into());
    look_again(&mut rib);
    rib.set_reach(hop(0), Some(30).into());
    look_again(&mut rib);
    let far = |(_, hops): (String, Vec<IpAddr>)| hops == [hop(1)];
    assert_eq!(changes(&mut rib).into_iter().filter(|it| far(it.clone())).count(), all as usize);
}
