use std::sync::Arc;

use super::*;
use crate::wire::{AsPath, Origin};

fn rankings() -> Vec<Ranking> {
    let ranking = |number: u8, external| Ranking {
        external,
        router_id: Ipv4Addr::new(1, 1, 1, number),
        address: IpAddr::from([10, 0, 0, number]),
    };
    // Neighbours 0 to 3 are external, 4 and 5 internal.
    (0..6).map(|number| ranking(number, number < 4)).collect()
}

fn path(peer: u32, as_path: &[u32], change: impl FnOnce(&mut Attributes)) -> Path {
    let segments = vec![Segment::Sequence(as_path.to_vec())];
    let mut attributes = Attributes { as_path: AsPath { segments }, ..Attributes::default() };
    change(&mut attributes);
    let next_hop = IpAddr::from([10, 0, 0, u8::try_from(peer).unwrap()]);
    Path { via: Via::Peer { peer, next_hop }, attributes: Arc::new(attributes) }
}

fn plain(peer: u32, as_path: &[u32]) -> Path {
    path(peer, as_path, |_| {})
}

/// Neighbours whose paths carry traffic, best first, whatever order the paths came in.
fn winners(paths: &[Path]) -> Vec<u32> {
    let mut answers = Vec::new();
    for turn in 0..paths.len() {
        let mut paths = paths.to_vec();
        paths.rotate_left(turn);
        let count = select(&mut paths, &rankings());
        answers.push(paths[..count].iter().filter_map(|path| path.via.peer()).collect::<Vec<_>>());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    answers.remove(0)
}

#[test]
fn each_step_decides_before_the_next_one() {
    let pref = |value| move |a: &mut Attributes| a.local_pref = Some(value);
    assert_eq!(winners(&[path(0, &[1, 2, 3], pref(200)), plain(1, &[1])]), [0]);
    assert_eq!(winners(&[path(0, &[1], pref(99)), plain(1, &[1, 2])]), [1]);
    assert_eq!(winners(&[plain(0, &[1, 2]), plain(1, &[3])]), [1]);
    let egp = |a: &mut Attributes| a.origin = Origin::Egp;
    let incomplete = |a: &mut Attributes| a.origin = Origin::Incomplete;
    assert_eq!(winners(&[path(0, &[1], incomplete), path(1, &[3], egp)]), [1]);
    assert_eq!(winners(&[plain(4, &[1]), plain(1, &[3])]), [1]);
}

#[test]
fn paths_that_are_equal_to_the_identifier_share_the_traffic() {
    assert_eq!(winners(&[plain(2, &[7]), plain(0, &[8]), plain(1, &[9])]), [0, 1, 2]);
    assert_eq!(winners(&[plain(5, &[7]), plain(4, &[8])]), [4, 5]);
}

#[test]
fn med_counts_between_paths_of_one_neighbouring_as_only() {
    let med = |value| move |a: &mut Attributes| a.med = Some(value);
    assert_eq!(winners(&[path(0, &[7], med(10)), path(1, &[7], med(5))]), [1]);
    assert_eq!(winners(&[path(0, &[7], med(10)), path(1, &[8], med(5))]), [0, 1]);
    // A missing MED is the lowest.
    assert_eq!(winners(&[path(0, &[7], med(1)), plain(1, &[7])]), [1]);
    // No order of pairwise comparisons gives this one.
    let three = [path(0, &[7], med(10)), path(1, &[8], med(5)), path(2, &[7], med(5))];
    assert_eq!(winners(&three), [1, 2]);
}

#[test]
fn a_set_counts_one_and_confederation_segments_none() {
    let set = |a: &mut Attributes| a.as_path.segments.push(Segment::Set(vec![4, 5, 6]));
    assert_eq!(winners(&[path(0, &[1], set), plain(1, &[2, 3])]), [0, 1]);
    let confed = |a: &mut Attributes| {
        a.as_path.segments.push(Segment::ConfedSequence(vec![4, 5, 6]));
    };
    assert_eq!(winners(&[path(0, &[1], confed), plain(1, &[2])]), [0, 1]);
}

#[test]
fn the_originator_stands_for_the_reflector() {
    let by = |id, clusters: usize| {
        move |a: &mut Attributes| {
            a.originator_id = Some(Ipv4Addr::new(1, 1, 1, id));
            a.cluster_list = vec![Ipv4Addr::new(9, 9, 9, 9); clusters];
        }
    };
    assert_eq!(winners(&[path(4, &[1], by(9, 1)), path(5, &[1], by(8, 1))]), [5, 4]);
    assert_eq!(winners(&[path(4, &[1], by(9, 2)), path(5, &[1], by(9, 1))]), [5, 4]);
}

#[test]
fn what_we_originate_wins_alone() {
    let own = Path { via: Via::Local, attributes: Arc::new(Attributes::default()) };
    let mut paths = [path(0, &[], |a| a.local_pref = Some(u32::MAX)), own.clone()];
    assert_eq!(select(&mut paths, &rankings()), 1);
    assert_eq!(paths[0], own);
}
