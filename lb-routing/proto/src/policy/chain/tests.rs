use std::ops::RangeInclusive;

use proptest::prelude::*;

use super::*;
use crate::policy::{AsPathSet, Community, CommunitySet, Match, PrefixSet};
use crate::wire::{AsPath, Family, Origin};

fn statement(conditions: Vec<Condition>, actions: Actions, verdict: Verdict) -> Statement {
    Statement { name: String::new(), conditions, actions, verdict }
}

fn policy(name: &str, statements: Vec<Statement>, otherwise: Verdict) -> Arc<Policy> {
    Arc::new(Policy { name: name.into(), statements, otherwise })
}

fn chain(statements: Vec<Statement>) -> Chain {
    Chain::new(vec![policy("p", statements, Verdict::Next)])
}

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn facts(prefix: &IpNetwork) -> Facts<'_> {
    Facts {
        prefix,
        neighbor: Some([192, 0, 2, 1].into()),
        next_hop: Some([10, 0, 0, 9].into()),
        source: Source::External,
        our_as: 65000,
    }
}

fn route() -> Attributes {
    let mut route = Attributes {
        as_path: AsPath::sequence(&[65001, 65002]),
        med: Some(5),
        ..Attributes::default()
    };
    crate::policy::community::add(&mut route, "65001:100".parse().unwrap());
    route
}

/// Whether a chain lets the route 10.1.0.0/16 cross.
fn accepts(chain: &Chain) -> bool {
    chain.evaluate(&facts(&net("10.1.0.0/16")), &route()).is_ok()
}

fn prefixes(text: &str) -> Arc<PrefixSet> {
    Arc::new(PrefixSet::new(vec![text.parse().unwrap()]))
}

#[test]
fn a_next_hop_that_an_earlier_statement_set_is_what_later_ones_see() {
    let elsewhere = "10.7.0.1".parse().unwrap();
    let becomes = |said| {
        let sets = Actions { next_hop: Some(said), ..Actions::default() };
        let asks = Condition::NextHop(prefixes("10.7.0.0/16"));
        accepts(&chain(vec![
            statement(Vec::new(), sets, Verdict::Next),
            statement(vec![asks], Actions::default(), Verdict::Accept),
        ]))
    };
    assert!(becomes(NextHop::Address(elsewhere)));
    assert!(!becomes(NextHop::Unchanged) && !becomes(NextHop::Own) && !becomes(NextHop::Peer));
}

#[test]
fn nothing_crosses_that_no_policy_lists() {
    assert!(!accepts(&Chain::default()));
    assert!(!accepts(&chain(Vec::new())));
    let elsewhere = Condition::Prefix(prefixes("10.2.0.0/16"));
    let only = chain(vec![statement(vec![elsewhere], Actions::default(), Verdict::Accept)]);
    assert!(!accepts(&only));
}

#[test]
fn each_condition_holds_for_what_it_names_and_for_nothing_else() {
    let range = |range: RangeInclusive<u32>| range;
    let path = |text: &str| Arc::new(AsPathSet::new(vec![text.into()]).unwrap());
    let tag = |texts: &[&str]| {
        Arc::new(CommunitySet::new(texts.iter().map(|text| text.parse().unwrap())))
    };
    let cases = [
        (Condition::Prefix(prefixes("10.0.0.0/8 le 16")), true),
        (Condition::Prefix(prefixes("10.0.0.0/8 le 15")), false),
        (Condition::AsPath(path("_65002$")), true),
        (Condition::AsPath(path("^65002_")), false),
        (Condition::AsPathLength(range(2..=2)), true),
        (Condition::AsPathLength(range(3..=9)), false),
        (Condition::Community(tag(&["1:1", "65001:*"]), Match::Any), true),
        (Condition::Community(tag(&["1:1", "65001:*"]), Match::All), false),
        (Condition::Neighbor(prefixes("192.0.2.0/24")), true),
        (Condition::Neighbor(prefixes("192.0.2.2/32")), false),
        (Condition::NextHop(prefixes("10.0.0.0/24")), true),
        (Condition::NextHop(prefixes("10.0.1.0/24")), false),
        (Condition::Family(Family::IPV4_UNICAST), true),
        (Condition::Family(Family::IPV6_UNICAST), false),
        (Condition::Origin(Origin::Igp), true),
        (Condition::Origin(Origin::Incomplete), false),
        (Condition::Med(range(5..=5)), true),
        (Condition::Med(range(0..=4)), false),
        // Missing: 100.
        (Condition::LocalPref(range(100..=100)), true),
        (Condition::LocalPref(range(101..=u32::MAX)), false),
        (Condition::Source(Source::External), true),
        (Condition::Source(Source::Local), false),
    ];
    for (condition, wanted) in cases {
        let shown = format!("{condition:?}");
        let one = chain(vec![statement(vec![condition], Actions::default(), Verdict::Accept)]);
        assert_eq!(accepts(&one), wanted, "{shown}");
    }
}

#[test]
fn all_conditions_of_a_statement_have_to_hold() {
    let (yes, no) = (Condition::Origin(Origin::Igp), Condition::Origin(Origin::Egp));
    for (conditions, wanted) in
        [(vec![], true), (vec![yes.clone(), yes.clone()], true), (vec![yes, no], false)]
    {
        let one = chain(vec![statement(conditions, Actions::default(), Verdict::Accept)]);
        assert_eq!(accepts(&one), wanted);
    }
}

#[test]
fn the_first_that_says_accept_or_reject_decides_and_is_named() {
    let accept = || statement(vec![], Actions::default(), Verdict::Accept);
    let reject = || statement(vec![], Actions::default(), Verdict::Reject);
    let next = || statement(vec![], Actions::default(), Verdict::Next);
    let of = |policies: Vec<Arc<Policy>>| {
        let chain = Chain::new(policies);
        let prefix = net("10.1.0.0/16");
        let judged = chain.evaluate(&facts(&prefix), &route());
        judged.map(drop).map_err(|decider| decider.rule().to_string())
    };
    let p = |statements, otherwise| policy("p", statements, otherwise);
    let cases = [
        (vec![p(vec![accept(), reject()], Verdict::Next)], Ok(())),
        (vec![p(vec![next(), reject(), accept()], Verdict::Next)], Err("policy p, statement 2")),
        (vec![p(vec![next()], Verdict::Accept)], Ok(())),
        (vec![p(vec![next()], Verdict::Reject)], Err("policy p, otherwise")),
        (vec![p(vec![], Verdict::Next), p(vec![accept()], Verdict::Next)], Ok(())),
        (
            vec![p(vec![], Verdict::Reject), p(vec![accept()], Verdict::Next)],
            Err("policy p, otherwise"),
        ),
        (vec![p(vec![next()], Verdict::Next)], Err("no policy accepts it")),
    ];
    for (policies, wanted) in cases {
        assert_eq!(of(policies), wanted.map_err(str::to_owned));
    }
    let named = Statement { name: "bogons".into(), ..reject() };
    let refused = of(vec![p(vec![named], Verdict::Next)]);
    assert_eq!(refused, Err("policy p, statement 1 (bogons)".into()));
}

#[test]
fn statements_change_the_route_for_those_that_follow() {
    let tag: Community = "65000:1".parse().unwrap();
    let actions = Actions {
        local_pref: Some(200),
        med: Some(7),
        origin: Some(Origin::Egp),
        next_hop: Some(NextHop::Peer),
        install: Some(Install::Kernel),
        prepend: Some((None, 2)),
        communities: Some(vec![tag]),
        remove_communities: vec!["65000:*".parse().unwrap()],
        add_communities: vec![Community::NO_EXPORT],
    };
    let sees_it = vec![
        Condition::LocalPref(200..=200),
        Condition::AsPathLength(4..=4),
        Condition::Origin(Origin::Egp),
    ];
    let chain = chain(vec![
        statement(vec![], actions, Verdict::Next),
        statement(sees_it, Actions::default(), Verdict::Accept),
    ]);
    let prefix = net("10.1.0.0/16");
    let change = chain.evaluate(&facts(&prefix), &route()).unwrap().unwrap();
    let attributes = Attributes {
        as_path: AsPath::sequence(&[65000, 65000, 65001, 65002]),
        origin: Origin::Egp,
        med: Some(7),
        local_pref: Some(200),
        communities: vec![0xffff_ff01],
        ..Attributes::default()
    };
    let (next_hop, install) = (Some(NextHop::Peer), Some(Install::Kernel));
    let wanted = Change { attributes, next_hop, install, sets_med: true };
    assert_eq!(change, wanted);
}

#[test]
fn a_route_that_no_statement_changes_is_not_copied() {
    let all = chain(vec![statement(vec![], Actions::default(), Verdict::Accept)]);
    assert_eq!(all.evaluate(&facts(&net("10.1.0.0/16")), &route()), Ok(None));
}

#[test]
fn only_a_prefix_condition_makes_the_answer_depend_on_the_prefix() {
    let of =
        |condition| chain(vec![statement(vec![condition], Actions::default(), Verdict::Accept)]);
    assert!(of(Condition::Prefix(prefixes("10.0.0.0/8"))).is_per_prefix());
    assert!(!of(Condition::NextHop(prefixes("10.0.0.0/8"))).is_per_prefix());
    assert!(!of(Condition::Family(Family::IPV4_UNICAST)).is_per_prefix());
}

/// A random statement that asks nothing of the prefix.
fn any_statement() -> impl Strategy<Value = Statement> {
    let condition = prop_oneof![
        Just(Condition::Origin(Origin::Igp)),
        (0_u32..8, 0_u32..8).prop_map(|(a, b)| Condition::Med(a.min(b)..=a.max(b))),
        (0_u32..300).prop_map(|least| Condition::LocalPref(least..=u32::MAX)),
        (0_u32..6).prop_map(|most| Condition::AsPathLength(0..=most)),
    ];
    let verdict = prop_oneof![Just(Verdict::Accept), Just(Verdict::Reject), Just(Verdict::Next)];
    let actions = (prop::option::of(0_u32..300), prop::option::of(0_u32..8), 0_u8..4).prop_map(
        |(local_pref, med, times)| Actions {
            local_pref,
            med,
            prepend: (times > 0).then_some((None, times)),
            ..Actions::default()
        },
    );
    (prop::collection::vec(condition, 0..3), actions, verdict)
        .prop_map(|(conditions, actions, verdict)| statement(conditions, actions, verdict))
}

proptest! {
    #[test]
    fn without_a_prefix_condition_every_prefix_of_a_family_gets_one_answer(
        statements in prop::collection::vec(any_statement(), 0..6),
        med in 0_u32..8,
        bits: u32,
        len in 0_u8..=32,
    ) {
        let chain = chain(statements);
        prop_assert!(!chain.is_per_prefix());
        let route = Attributes { med: Some(med), ..route() };
        let (one, other) = (net("10.1.0.0/16"), IpNetwork::new(IpAddr::V4(bits.into()), len).unwrap());
        prop_assert_eq!(chain.evaluate(&facts(&one), &route), chain.evaluate(&facts(&other), &route));
    }

    #[test]
    fn a_chain_split_into_policies_says_the_same(
        statements in prop::collection::vec(any_statement(), 0..6),
        at in 0_usize..6,
    ) {
        let (first, second) = statements.split_at(at.min(statements.len()));
        let split = Chain::new(vec![
            policy("a", first.to_vec(), Verdict::Next),
            policy("b", second.to_vec(), Verdict::Next),
        ]);
        let prefix = net("10.1.0.0/16");
        let (whole, split) = (chain(statements.clone()).evaluate(&facts(&prefix), &route()).ok(), split.evaluate(&facts(&prefix), &route()).ok());
        prop_assert_eq!(whole, split);
    }
}
