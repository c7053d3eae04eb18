//! What people see of routes and sessions.

use super::*;
use crate::policy::{
    AsPathSet, Chain, CommunitySet, Condition, Policy, PrefixSet, Statement, Verdict,
};

/// Lets in what is inside 10.1.0.0/16.
fn some() -> Import {
    let set = PrefixSet::new(vec!["10.1.0.0/16 le 32".parse().unwrap()]);
    let statement = Statement {
        name: String::new(),
        conditions: vec![Condition::Prefix(std::sync::Arc::new(set))],
        actions: crate::policy::Actions { local_pref: Some(7), ..Default::default() },
        verdict: Verdict::Accept,
    };
    let statements = vec![statement];
    let policy = Policy { name: "p".into(), statements, otherwise: Verdict::Next };
    Import::Policies(Chain::new(vec![policy.into()]))
}

impl Rig {
    fn seen(&self, query: &Query) -> Vec<(String, Option<u32>, Option<&'static str>)> {
        let paths = self.speaker.query(query, None, 99).paths.into_iter();
        paths.map(|it| (it.prefix.to_string(), it.attributes.local_pref, it.rejected)).collect()
    }
}

#[test]
fn what_a_neighbour_told_is_seen_as_it_came_and_as_policy_left_it() {
    let mut rig = Rig::new(vec![peer(1, some(), Export::None), peer(2, Import::None, Export::All)]);
    let (one, two) = (rig.establish(1), rig.establish(2));
    rig.announce(one, &[65101], neighbour(1), &["10.1.0.0/16", "10.2.0.0/16"]);
    rig.announce(two, &[65102], neighbour(2), &["10.3.0.0/16"]);
    rig.outputs();
    let of =
        |table, number| Query { table, neighbour: Some(neighbour(number)), ..Query::default() };
    let refused = Some("import policy does not accept it");
    let received = [("10.1.0.0/16".into(), None, None), ("10.2.0.0/16".into(), None, refused)];
    assert_eq!(rig.seen(&of(Table::AdjRibIn, 1)), received);
    assert_eq!(rig.seen(&of(Table::LocRib, 1)), [("10.1.0.0/16".into(), Some(7), None)]);
    let closed = Some("the neighbour's import lists nothing");
    assert_eq!(rig.seen(&of(Table::AdjRibIn, 2)), [("10.3.0.0/16".into(), None, closed)]);
    assert_eq!(rig.seen(&of(Table::AdjRibOut, 2)), [("10.1.0.0/16".into(), None, None)]);
    assert_eq!(rig.seen(&of(Table::AdjRibOut, 1)), []);
    assert_eq!(rig.speaker.routes().len(), 1);
    let peers = rig.speaker.peers();
    assert_eq!((peers[0].prefixes_received, peers[0].prefixes_rejected), (1, 1));
    assert_eq!((peers[1].prefixes_received, peers[1].prefixes_rejected), (0, 1));
    // What is refused later takes the place of what was let in, and goes with the session.
    rig.announce(one, &[65101, US], neighbour(1), &["10.1.0.0/16"]);
    let looped = Some("our AS is in its path");
    assert_eq!(rig.seen(&of(Table::AdjRibIn, 1))[0], ("10.1.0.0/16".into(), None, looped));
    rig.withdraw(one, &["10.2.0.0/16"]);
    assert_eq!(rig.seen(&of(Table::AdjRibIn, 1)).len(), 1);
    rig.speaker.handle(Input::Closed { conn: one, error: "end of file".into() }, rig.now);
    assert_eq!(rig.seen(&of(Table::AdjRibIn, 1)), []);
}

#[test]
fn rejected_routes_are_not_kept_where_that_is_not_wanted() {
    let forgetful = PeerConfig { keep_rejected: false, ..peer(1, some(), Export::None) };
    let mut rig = Rig::new(vec![forgetful]);
    let one = rig.establish(1);
    rig.announce(one, &[65101], neighbour(1), &["10.1.0.0/16", "10.2.0.0/16"]);
    assert_eq!(rig.speaker.peers()[0].prefixes_rejected, 0);
}

#[test]
fn routes_are_found_by_prefix_path_and_community() {
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::None)]);
    let one = rig.establish(1);
    rig.announce(one, &[65101, 7], neighbour(1), &["10.1.0.0/16", "10.1.2.0/24"]);
    rig.announce(one, &[65101, 8], neighbour(1), &["10.2.0.0/16"]);
    let mut messages = Vec::new();
    let tagged = Attributes { communities: vec![(65101 << 16) + 5], ..attributes(&[65101]) };
    let prefixes = [prefix("10.3.0.0/16")];
    wire::encode_updates(&tagged, neighbour(1), &prefixes, CONTEXT, &mut messages).unwrap();
    rig.receive(one, &messages.concat());
    let names =
        |query: Query| rig.seen(&query).into_iter().map(|(prefix, ..)| prefix).collect::<Vec<_>>();
    let within = Some(prefix("10.1.0.0/16"));
    assert_eq!(names(Query { within, ..Query::default() }), ["10.1.0.0/16", "10.1.2.0/24"]);
    assert_eq!(names(Query { prefix: within, ..Query::default() }), ["10.1.0.0/16"]);
    let as_path = Some(AsPathSet::new(vec!["_8$".into()]).unwrap());
    assert_eq!(names(Query { as_path, ..Query::default() }), ["10.2.0.0/16"]);
    let communities = Some(CommunitySet::new(["65101:*".parse().unwrap()]));
    assert_eq!(names(Query { communities, ..Query::default() }), ["10.3.0.0/16"]);
    let nobody = Some(neighbour(9));
    assert_eq!(names(Query { neighbour: nobody, ..Query::default() }), [""; 0]);
}

#[test]
fn an_explanation_says_by_which_step_a_path_won_or_lost() {
    let mut rig = Rig::new((1..=4).map(|n| peer(n, Import::All, Export::None)).collect());
    let conns = [1, 2, 3, 4].map(|number| rig.establish(number));
    let lengths: [&[u32]; 4] = [&[65101], &[65102], &[65103, 7], &[65104, US]];
    for (place, path) in lengths.into_iter().enumerate() {
        let hop = neighbour(u8::try_from(place).unwrap() + 1);
        rig.announce(conns[place], path, hop, &["10.1.0.0/16"]);
    }
    let explained = rig.speaker.explain(&prefix("10.1.0.0/16")).paths;
    let why: Vec<_> = explained.into_iter().map(|path| path.why.unwrap()).collect();
    let expected = [
        "won over the next one by: router id, or ORIGINATOR_ID",
        "as good as the best one, carries traffic; not the best by: router id, or ORIGINATOR_ID",
        "lost by: length of AS_PATH",
        "our AS is in its path",
    ];
    assert_eq!(why, expected);
}

#[test]
fn what_was_malformed_is_shown_with_its_octets_and_counted() {
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::None)]);
    let conn = rig.establish(1);
    // ORIGIN 9, the rest as it should be.
    let path = [0x40, 2, 6, 2, 1, 0, 0, 0xfe, 0x4d];
    let list = [&[0x40, 1, 1, 9][..], &path, &[0x40, 3, 4, 10, 0, 1, 2]].concat();
    let body = [&[0, 0, 0, list.len() as u8][..], &list, &[8, 10]].concat();
    let header = [&[0xff; 16][..], &[0, 19 + body.len() as u8, 2]].concat();
    rig.receive(conn, &[header, body].concat());
    let outputs = rig.outputs();
    let said = outputs.iter().find_map(|it| {
        let Output::Event(Event::Malformed { what, .. }) = it else { return None };
        Some(what.as_str())
    });
    let words = "ORIGIN (1): undefined origin, routes withdrawn; it was 40 01 01 09";
    assert_eq!(said, Some(words));
    assert_eq!(rig.speaker.peers()[0].malformed, 1);
}

#[test]
fn a_route_that_is_too_large_to_be_told_is_said_and_explained() {
    let mut rig =
        Rig::new(vec![peer(1, Import::All, Export::None), peer(2, Import::None, Export::All)]);
    let one = rig.establish(1);
    rig.establish(2);
    let long: Vec<u32> = std::iter::once(65101).chain(1..=1010).collect();
    rig.announce(one, &long, neighbour(1), &["10.1.0.0/16"]);
    let outputs = rig.outputs();
    let said = |it: &Output| matches!(it, Output::Event(Event::Oversize { peer, what }) if *peer == neighbour(2) && what.contains("AS_PATH"));
    assert_eq!(outputs.iter().filter(|it| said(it)).count(), 1);
    let explained = rig.speaker.explain(&prefix("10.1.0.0/16"));
    let why = explained.neighbours[1].withheld.as_deref();
    assert_eq!(why, Some("its attributes do not fit into a message"));
}

#[test]
fn a_session_says_what_both_sides_agreed_on() {
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::None)]);
    assert_eq!(rig.speaker.peers()[0].capabilities, [""; 0]);
    rig.establish_refreshable(1);
    let expected = ["IPv4 unicast", "IPv6 unicast", "four-octet AS numbers", "route refresh"];
    assert_eq!(rig.speaker.peers()[0].capabilities, expected);
}
