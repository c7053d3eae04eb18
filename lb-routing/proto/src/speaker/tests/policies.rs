//! Policies between neighbours and the table.

use std::sync::Arc;

use super::*;
use crate::policy::{
    Actions, AsPathSet, Chain, Condition, NextHop, Policy, PrefixSet, Source, Statement, Verdict,
};

pub(super) fn statement(
    conditions: Vec<Condition>,
    actions: Actions,
    verdict: Verdict,
) -> Statement {
    Statement { name: String::new(), conditions, actions, verdict }
}

pub(super) fn chain(statements: Vec<Statement>) -> Chain {
    let policy = Policy { name: "p".into(), statements, otherwise: Verdict::Next };
    Chain::new(vec![Arc::new(policy)])
}

pub(super) fn prefixes(text: &str) -> Condition {
    Condition::Prefix(Arc::new(PrefixSet::new(vec![text.parse().unwrap()])))
}

fn path(pattern: &str) -> Condition {
    Condition::AsPath(Arc::new(AsPathSet::new(vec![pattern.into()]).unwrap()))
}

/// The paths in the table: prefix, next hop and local preference.
fn table(rig: &Rig) -> Vec<String> {
    let routes = rig.speaker.routes().into_iter();
    let words = routes.map(|route| {
        let hop = route.next_hop.map_or("us".into(), |hop| hop.to_string());
        format!("{} via {hop} at {:?}", route.prefix, route.attributes.local_pref)
    });
    words.collect()
}

#[test]
fn import_policy_lets_in_what_it_lists_and_changes_it() {
    let preferred = Actions { local_pref: Some(200), ..Actions::default() };
    let import = chain(vec![
        statement(vec![prefixes("10.1.0.0/16 ge 24")], preferred, Verdict::Accept),
        statement(vec![prefixes("10.2.0.0/16")], Actions::default(), Verdict::Accept),
    ]);
    let mut rig = Rig::new(vec![peer(1, Import::Policies(import), Export::None)]);
    let conn = rig.establish(1);
    let told = ["10.1.0.0/16", "10.1.1.0/24", "10.2.0.0/16", "10.3.0.0/16"];
    rig.announce(conn, &[65101], neighbour(1), &told);
    let wanted = ["10.1.1.0/24 via 10.0.1.2 at Some(200)", "10.2.0.0/16 via 10.0.1.2 at None"];
    assert_eq!(table(&rig), wanted);
    assert_eq!(rig.speaker.peers()[0].prefixes_received, 2);
    assert_eq!(routes(&rig.outputs()).len(), 2);
}

#[test]
fn a_route_that_policy_no_longer_accepts_replaces_the_one_before() {
    let import = chain(vec![statement(vec![path("_7$")], Actions::default(), Verdict::Accept)]);
    let mut rig = Rig::new(vec![peer(1, Import::Policies(import), Export::None)]);
    let conn = rig.establish(1);
    rig.announce(conn, &[65101, 7], neighbour(1), &["10.1.0.0/16"]);
    assert_eq!(table(&rig), ["10.1.0.0/16 via 10.0.1.2 at None"]);
    rig.announce(conn, &[65101, 8], neighbour(1), &["10.1.0.0/16"]);
    assert_eq!(table(&rig), Vec::<String>::new());
    assert_eq!(rig.speaker.peers()[0].prefixes_received, 0);
}

#[test]
fn a_next_hop_that_policy_sets_is_where_traffic_goes() {
    let elsewhere: IpAddr = "10.0.1.77".parse().unwrap();
    let actions = Actions { next_hop: Some(NextHop::Address(elsewhere)), ..Actions::default() };
    let import = chain(vec![statement(vec![], actions, Verdict::Accept)]);
    let mut rig = Rig::new(vec![peer(1, Import::Policies(import), Export::None)]);
    let conn = rig.establish(1);
    rig.announce(conn, &[65101], neighbour(1), &["10.1.0.0/16"]);
    assert_eq!(routes(&rig.outputs()), [change("10.1.0.0/16", &[elsewhere])]);
}

#[test]
fn a_next_hop_that_policy_sets_to_ours_makes_the_route_unusable() {
    let ours: IpAddr = "10.0.1.1".parse().unwrap();
    let actions = Actions { next_hop: Some(NextHop::Address(ours)), ..Actions::default() };
    let import = chain(vec![statement(vec![], actions, Verdict::Accept)]);
    let mut rig = Rig::new(vec![peer(1, Import::Policies(import), Export::None)]);
    let conn = rig.establish(1);
    rig.announce(conn, &[65101], neighbour(1), &["10.1.0.0/16"]);
    assert_eq!(table(&rig), Vec::<String>::new());
}

#[test]
fn export_policy_says_what_leaves_with_which_attributes() {
    let tag = Actions {
        med: Some(50),
        prepend: Some((None, 2)),
        add_communities: vec!["65001:1".parse().unwrap()],
        ..Actions::default()
    };
    let export = chain(vec![
        statement(vec![Condition::Source(Source::Local)], tag, Verdict::Accept),
        statement(vec![prefixes("10.1.0.0/16 le 24")], Actions::default(), Verdict::Accept),
    ]);
    let mut rig = Rig::new(vec![
        peer(1, Import::All, Export::None),
        peer(2, Import::None, Export::Policies(export)),
    ]);
    rig.originate(&["203.0.113.1/32"]);
    let from = rig.establish(1);
    let to = rig.establish(2);
    rig.announce(from, &[65101], neighbour(1), &["10.1.1.0/24", "10.2.0.0/16"]);
    let outputs = rig.outputs();
    let mut told = announced(&outputs, to);
    told.sort();
    let learned = "10.1.1.0/24 via 10.0.2.1 Some([Sequence([65001, 65101])])";
    let vip = "203.0.113.1/32 via 10.0.2.1 Some([Sequence([65001, 65001, 65001])])";
    assert_eq!(told, [learned, vip]);
    let tagged = updates(&outputs, to).into_iter().filter_map(|update| update.attributes);
    let tagged: Vec<_> = tagged.filter(|attributes| attributes.med.is_some()).collect();
    assert_eq!(tagged.len(), 1);
    assert_eq!((tagged[0].med, &tagged[0].communities), (Some(50), &vec![65001 << 16 | 1]));
}

#[test]
fn a_learned_med_stays_where_it_was_learned() {
    let all = chain(vec![statement(vec![], Actions::default(), Verdict::Accept)]);
    let peers =
        vec![peer(1, Import::All, Export::None), peer(2, Import::None, Export::Policies(all))];
    let mut rig = Rig::new(peers);
    let (from, to) = (rig.establish(1), rig.establish(2));
    let attributes = Attributes { med: Some(9), ..attributes(&[65101]) };
    let mut messages = Vec::new();
    let prefixes = [prefix("10.1.0.0/16")];
    wire::encode_updates(&attributes, neighbour(1), &prefixes, CONTEXT, &mut messages).unwrap();
    rig.receive(from, &messages.concat());
    let told = updates(&rig.outputs(), to).into_iter().filter_map(|update| update.attributes);
    assert_eq!(told.map(|attributes| attributes.med).collect::<Vec<_>>(), [None]);
}

#[test]
fn private_numbers_are_taken_out_of_paths_where_that_is_asked_for() {
    let public = PeerConfig { remove_private_as: true, ..peer(2, Import::None, Export::All) };
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::None), public]);
    let (from, to) = (rig.establish(1), rig.establish(2));
    rig.announce(from, &[65101, 7, 4_200_000_001, 8], neighbour(1), &["10.1.0.0/16"]);
    let wanted = "10.1.0.0/16 via 10.0.2.1 Some([Sequence([65001, 7, 8])])";
    assert_eq!(announced(&rig.outputs(), to), [wanted]);
    // Without its own number the neighbour would not see the loop.
    rig.announce(from, &[65101, 7, 65102, 8], neighbour(1), &["10.1.0.0/16"]);
    let wanted = "10.1.0.0/16 via 10.0.2.1 Some([Sequence([65001, 7, 65102, 8])])";
    assert_eq!(announced(&rig.outputs(), to), [wanted]);
}

#[test]
fn a_neighbour_sees_the_as_number_that_is_meant_for_it() {
    let told_other = PeerConfig { local_as: Some(64999), ..peer(1, Import::All, Export::Vips) };
    let mut rig = Rig::new(vec![told_other]);
    rig.originate(&["203.0.113.1/32"]);
    let conn = rig.establish(1);
    let outputs = rig.outputs();
    let opens = messages(&outputs, conn).into_iter().filter_map(|message| match message {
        Message::Open(open) => Some(open.asn),
        Message::Update(_)
        | Message::Notification(_)
        | Message::Keepalive
        | Message::RouteRefresh(_)
        | Message::RefreshMark(..) => None,
    });
    assert_eq!(opens.collect::<Vec<_>>(), [64999]);
    let wanted = "203.0.113.1/32 via 10.0.1.1 Some([Sequence([64999])])";
    assert_eq!(announced(&outputs, conn), [wanted]);
}

#[test]
fn an_explanation_names_what_keeps_a_route_from_whom() {
    let reject = Statement {
        name: "bogons".into(),
        ..statement(vec![prefixes("10.0.0.0/8 le 32")], Actions::default(), Verdict::Reject)
    };
    let mut rig = Rig::new(vec![
        peer(1, Import::All, Export::All),
        peer(2, Import::None, Export::None),
        peer(3, Import::None, Export::Vips),
        peer(4, Import::None, Export::Policies(chain(vec![reject]))),
        peer(5, Import::None, Export::All),
        peer(6, Import::None, Export::All),
    ]);
    let from = rig.establish(1);
    for number in 2..=4 {
        rig.establish(number);
    }
    rig.establish_with(5, &[Family::IPV6_UNICAST]);
    rig.establish(6);
    rig.announce(from, &[65101], neighbour(1), &["10.1.0.0/16"]);
    let explained = rig.speaker.explain(Destination::Prefix(prefix("10.1.0.0/16")));
    assert_eq!(explained.paths.len(), 1);
    let words: Vec<_> = explained
        .neighbours
        .into_iter()
        .map(|hearer| hearer.withheld.unwrap_or_default())
        .collect();
    let wanted = [
        "it told us of the best path",
        "its export lists nothing",
        "its export lists only VIPs",
        "policy p, statement 1 (bogons)",
        "it does not speak the family",
        "",
    ];
    assert_eq!(words, wanted);
    let nothing = rig.speaker.explain(Destination::Prefix(prefix("10.2.0.0/16")));
    assert_eq!((nothing.paths.len(), nothing.neighbours.len()), (0, 0));
}

#[test]
fn a_neighbour_says_which_tables_have_its_routes_and_policy_says_otherwise() {
    let elsewhere = Actions { install: Some(Install::Kernel), ..Actions::default() };
    let import = chain(vec![
        statement(vec![prefixes("10.1.0.0/16")], elsewhere, Verdict::Accept),
        statement(vec![], Actions::default(), Verdict::Accept),
    ]);
    let neighbour_of =
        |install| PeerConfig { install, ..peer(1, Import::Policies(import.clone()), Export::None) };
    let mut rig = Rig::new(vec![neighbour_of(Install::Dataplane)]);
    let conn = rig.establish(1);
    let told = |rig: &mut Rig| {
        rig.announce(conn, &[65101], neighbour(1), &["10.1.0.0/16", "10.2.0.0/16"]);
        let changes = routes(&rig.outputs()).into_iter();
        changes.map(|it| (it.prefix.to_string(), it.install)).collect::<Vec<_>>()
    };
    let both = [
        ("10.1.0.0/16".to_owned(), Install::Kernel),
        ("10.2.0.0/16".to_owned(), Install::Dataplane),
    ];
    assert_eq!(told(&mut rig), both);
    // Said again, it is no news.
    assert_eq!(told(&mut rig), []);
}
