use super::*;
use crate::wire::{AsPath, Origin, Segment};

fn ranking(number: u32) -> Ranking {
    let last = u8::try_from(number).unwrap();
    Ranking {
        // Neighbours 0 to 3 are external, 4 and 5 internal.
        external: number < 4,
        client: false,
        router_id: Ipv4Addr::new(1, 1, 1, last),
        address: IpAddr::from([10, 0, 0, last]),
    }
}

fn path(peer: u32, as_path: &[u32], change: impl FnOnce(&mut Attributes)) -> Candidate<u32> {
    let mut attributes = Attributes { as_path: AsPath::sequence(as_path), ..Attributes::default() };
    change(&mut attributes);
    let rank = Rank::of(&attributes);
    Candidate { path: peer, neighbour: Some(ranking(peer)), cost: Some(0), incumbent: false, rank }
}

fn plain(peer: u32, as_path: &[u32]) -> Candidate<u32> {
    path(peer, as_path, |_| {})
}

const USUAL: Rules = Rules { decision: Decision::USUAL, max_paths: 8 };

/// Neighbours whose paths carry traffic, best first, whatever order the paths came in.
fn winners(paths: &[Candidate<u32>]) -> Vec<u32> {
    winners_by(USUAL, paths)
}

fn winners_by(rules: Rules, paths: &[Candidate<u32>]) -> Vec<u32> {
    let mut answers = Vec::new();
    for turn in 0..paths.len() {
        let mut paths = paths.to_vec();
        paths.rotate_left(turn);
        let count = select(&mut paths, &rules, u32::cmp);
        let count = paths.first().map_or(0, |best| count.min(rules.most(best)));
        answers.push(paths[..count].iter().map(|it| it.path).collect::<Vec<_>>());
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
    let own = Candidate { neighbour: None, ..plain(9, &[]) };
    let mut paths = [path(0, &[], |a| a.local_pref = Some(u32::MAX)), own];
    assert_eq!(select(&mut paths, &USUAL, u32::cmp), 1);
    assert_eq!(paths[0].path, 9);
}

#[test]
fn what_policy_refuses_is_never_chosen() {
    let refused = |it| Candidate { cost: None, ..it };
    assert_eq!(winners(&[refused(plain(0, &[1])), plain(1, &[1, 2])]), [1]);
    assert_eq!(winners(&[refused(plain(0, &[1])), refused(plain(1, &[1, 2]))]), []);
}

fn by(change: impl FnOnce(&mut Decision)) -> Rules {
    let mut decision = Decision::USUAL;
    change(&mut decision);
    Rules { decision, ..USUAL }
}

#[test]
fn med_counts_between_all_ases_and_a_missing_one_is_the_worst_where_asked_for() {
    let med = |value| move |a: &mut Attributes| a.med = Some(value);
    let always = by(|it| it.always_compare_med = true);
    assert_eq!(winners_by(always, &[path(0, &[7], med(10)), path(1, &[8], med(5))]), [1]);
    assert_eq!(winners_by(always, &[path(0, &[7], med(1)), plain(1, &[8])]), [1]);
    let worst = by(|it| it.med_missing_as_worst = true);
    assert_eq!(winners_by(worst, &[path(0, &[7], med(9)), plain(1, &[7])]), [0]);
    assert_eq!(winners_by(worst, &[path(0, &[7], med(9)), plain(1, &[8])]), [0, 1]);
}

#[test]
fn the_best_external_path_stays_where_identifiers_are_not_compared() {
    let oldest = by(|it| it.compare_router_id = false);
    let incumbent = |it| Candidate { incumbent: true, ..it };
    assert_eq!(winners_by(oldest, &[plain(0, &[7]), incumbent(plain(1, &[8]))]), [1, 0]);
    assert_eq!(winners_by(USUAL, &[plain(0, &[7]), incumbent(plain(1, &[8]))]), [0, 1]);
    // A better one takes its place, and internal ones are compared.
    assert_eq!(winners_by(oldest, &[plain(0, &[7]), incumbent(plain(1, &[8, 9]))]), [0]);
    assert_eq!(winners_by(oldest, &[plain(4, &[7]), incumbent(plain(5, &[8]))]), [4, 5]);
}

#[test]
fn internal_paths_have_a_bound_of_their_own_and_share_with_external_ones_where_asked_for() {
    let all = [plain(0, &[7]), plain(1, &[8]), plain(4, &[7]), plain(5, &[8])];
    assert_eq!(winners(&all), [0, 1]);
    let few = by(|it| it.max_paths_internal = Some(1));
    assert_eq!(winners_by(few, &all), [0, 1]);
    assert_eq!(winners_by(few, &all[2..]), [4]);
    assert_eq!(winners_by(by(|it| it.mixed_multipath = true), &all), [0, 1, 4, 5]);
    let three = Rules { max_paths: 3, ..by(|it| it.mixed_multipath = true) };
    assert_eq!(winners_by(three, &all), [0, 1, 4]);
}

#[test]
fn each_path_is_told_the_step_by_which_it_fell() {
    let med = |value| move |a: &mut Attributes| a.med = Some(value);
    let pref = |value| move |a: &mut Attributes| a.local_pref = Some(value);
    let egp = |a: &mut Attributes| a.origin = Origin::Egp;
    let paths = vec![
        path(10, &[1, 2, 3], |_| {}),
        path(11, &[1, 2], egp),
        path(12, &[7, 2], med(9)),
        path(0, &[7, 2], med(1)),
        plain(1, &[8, 2]),
        path(4, &[9, 2], |_| {}),
        path(2, &[1], pref(50)),
        Candidate { cost: None, ..plain(3, &[1]) },
    ];
    // Numbers from 4 on are internal.
    let paths = paths.into_iter().map(|it| Candidate {
        neighbour: Some(Ranking { external: it.path != 4, ..ranking(it.path) }),
        ..it
    });
    let paths: Vec<_> = paths.collect();
    let expected = [
        (0, None),
        (1, Some(Step::RouterId)),
        (4, Some(Step::External)),
        (12, Some(Step::Med)),
        (11, Some(Step::Origin)),
        (10, Some(Step::PathLength)),
        (2, Some(Step::LocalPref)),
    ];
    for turn in 0..paths.len() {
        let mut paths = paths.clone();
        paths.rotate_left(turn);
        assert_eq!(steps(paths, &USUAL, u32::cmp), expected);
    }
    let own = Candidate { neighbour: None, ..plain(9, &[]) };
    assert_eq!(
        steps(vec![plain(0, &[7]), own], &USUAL, u32::cmp),
        [(9, None), (0, Some(Step::Ours))]
    );
}

#[test]
fn the_nearest_next_hop_counts_after_external_and_before_the_identifier() {
    let at = |cost, it| Candidate { cost: Some(cost), ..it };
    assert_eq!(winners(&[at(20, plain(0, &[1])), at(10, plain(1, &[2]))]), [1]);
    assert_eq!(winners(&[at(10, plain(4, &[1])), at(10, plain(5, &[2]))]), [4, 5]);
    assert_eq!(winners(&[at(0, plain(4, &[1])), at(30, plain(1, &[2]))]), [1], "external first");
    let med = |value| move |a: &mut Attributes| a.med = Some(value);
    assert_eq!(winners(&[at(0, path(0, &[1], med(9))), at(9, path(1, &[1], med(1)))]), [1]);
    let told = steps(vec![at(20, plain(0, &[1])), at(10, plain(1, &[2]))], &USUAL, u32::cmp);
    assert_eq!(told, [(1, None), (0, Some(Step::Cost))]);
}

#[test]
fn where_internal_paths_carry_traffic_beside_external_ones_cost_settles_which_is_told() {
    let mixed = Decision { mixed_multipath: true, ..Decision::USUAL };
    let rules = Rules { decision: mixed, max_paths: 8 };
    let at = |cost, it| Candidate { cost: Some(cost), ..it };
    let paths = [at(20, plain(0, &[1])), at(10, plain(1, &[2])), at(5, plain(4, &[3]))];
    assert_eq!(winners_by(rules, &paths), [1, 0, 4]);
    let told: Vec<_> = steps(paths.to_vec(), &rules, u32::cmp).into_iter().map(|it| it.1).collect();
    assert_eq!(told, [None, Some(Step::Cost), Some(Step::External)]);
}
