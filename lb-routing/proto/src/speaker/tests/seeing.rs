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
        let paths = self.listed(query, 99).into_iter();
        paths.map(|it| (it.prefix.to_string(), it.attributes.local_pref, it.rejected)).collect()
    }

    /// A listing with so little in each part that everything takes several.
    fn listed(&self, query: &Query, limit: usize) -> Vec<PathStatus> {
        let bounds = super::super::query::Bounds { scanned: 3, found: 2, read: 1 };
        let (mut paths, mut next) = (Vec::new(), Some(Walk::default()));
        while let Some(walk) = next {
            let part = self.speaker.query_within(query, walk, limit, bounds);
            assert!(part.paths.len() <= limit);
            paths.extend(part.paths);
            next = part.next;
        }
        paths
    }

    fn listed_prefixes(&self, query: &Query) -> Vec<String> {
        self.seen(query).into_iter().map(|(prefix, ..)| prefix).collect()
    }
}

#[test]
fn a_route_that_a_new_policy_refuses_is_counted_once_whether_it_is_told_again_or_not() {
    let prefixes = ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"];
    for (can_be_asked, at_once) in [(true, 0), (false, 2)] {
        let mut rig = Rig::new(vec![peer(1, Import::All, Export::None)]);
        let one = if can_be_asked { rig.establish_refreshable(1) } else { rig.establish(1) };
        rig.announce(one, &[65101], neighbour(1), &prefixes);
        let refused = |rig: &mut Rig| {
            rig.outputs();
            rig.speaker.peers()[0].routes_refused
        };
        assert_eq!(refused(&mut rig), 0);
        rig.speaker.configure(vec![peer(1, some(), Export::None)], rig.now).unwrap();
        assert_eq!(refused(&mut rig), at_once);
        if can_be_asked {
            rig.announce(one, &[65101], neighbour(1), &prefixes);
        }
        assert_eq!((refused(&mut rig), rig.speaker.peers()[0].prefixes_received), (2, 1));
        // Another policy that refuses the same ones refuses nothing more.
        let other = PeerConfig { reject_as_set: true, ..peer(1, some(), Export::None) };
        rig.speaker.configure(vec![other], rig.now).unwrap();
        assert_eq!(refused(&mut rig), 2);
    }
}

/// Its neighbour's refused routes are kept.
fn keeping(peer: PeerConfig) -> PeerConfig {
    PeerConfig { keep_rejected: true, ..peer }
}

fn of(table: Table, number: u8) -> Query {
    Query { table, neighbour: Some(neighbour(number)), ..Query::default() }
}

#[test]
fn what_a_neighbour_told_is_seen_as_it_came_and_as_policy_left_it() {
    let peers = [peer(1, some(), Export::None), peer(2, Import::None, Export::All)];
    let mut rig = Rig::new(peers.map(keeping).to_vec());
    let (one, two) = (rig.establish(1), rig.establish(2));
    rig.announce(one, &[65101], neighbour(1), &["10.1.0.0/16", "10.2.0.0/16"]);
    rig.announce(two, &[65102], neighbour(2), &["10.3.0.0/16"]);
    rig.outputs();
    let refused = Some("import policy does not accept it");
    let received = [("10.1.0.0/16".into(), None, None), ("10.2.0.0/16".into(), None, refused)];
    assert_eq!(rig.seen(&of(Table::AdjRibIn, 1)), received);
    for table in [Table::Usable, Table::LocRib] {
        assert_eq!(rig.seen(&of(table, 1)), [("10.1.0.0/16".into(), Some(7), None)]);
    }
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
fn refused_routes_are_counted_and_only_kept_where_that_is_wanted_and_there_is_room() {
    for (keeps, kept, not_kept) in [(false, 0, 0), (true, 2, 1)] {
        let config = PeerConfig { keep_rejected: keeps, ..peer(1, some(), Export::None) };
        let mut rig = Rig::new(vec![config]);
        rig.speaker.max_refused = 2;
        let one = rig.establish_refreshable(1);
        let prefixes = ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16"];
        rig.announce(one, &[65101], neighbour(1), &prefixes);
        let status = &rig.speaker.peers()[0];
        assert_eq!((status.prefixes_received, status.prefixes_rejected), (1, kept));
        assert_eq!((status.routes_refused, status.refused_not_kept), (3, not_kept));
        assert_eq!(rig.state(0), State::Established);
    }
}

#[test]
fn attributes_of_refused_routes_end_no_session() {
    let mut rig = Rig::new(vec![keeping(peer(1, some(), Export::None))]);
    rig.speaker.max_attribute_bytes = 1000;
    let one = rig.establish(1);
    for number in 1..=60 {
        rig.announce(one, &[65101, number], neighbour(1), &[&format!("10.{number}.0.0/16")]);
    }
    assert_eq!(rig.state(0), State::Established);
    let status = &rig.speaker.peers()[0];
    assert!(status.refused_not_kept > 0 && status.prefixes_received == 1, "{status:?}");
}

#[test]
fn what_is_kept_outlasts_other_changes_and_comes_and_goes_with_the_setting() {
    let closed = keeping(peer(1, Import::None, Export::None));
    let mut rig = Rig::new(vec![closed.clone()]);
    let one = rig.establish_refreshable(1);
    rig.announce(one, &[65101], neighbour(1), &["10.1.0.0/16"]);
    let mut after = |config: &PeerConfig| {
        rig.outputs();
        rig.speaker.configure(vec![config.clone()], rig.now).unwrap();
        let asked = |it: &Message| matches!(it, Message::RouteRefresh(_));
        let asked = messages(&rig.outputs(), one).iter().any(asked);
        let seen = rig.listed_prefixes(&of(Table::AdjRibIn, 1)).len();
        (seen, asked, rig.state(0))
    };
    let named = PeerConfig { name: "upstream".into(), ..closed.clone() };
    assert_eq!(after(&named), (1, false, State::Established));
    let forgetful = PeerConfig { keep_rejected: false, ..named.clone() };
    assert_eq!(after(&forgetful), (0, false, State::Established));
    assert_eq!(after(&named), (0, true, State::Established));
    let open = PeerConfig { import: Import::All, ..named.clone() };
    assert_eq!(after(&open), (0, true, State::Established));
    assert_eq!(after(&named), (0, true, State::Established));
}

#[test]
fn a_neighbour_that_cannot_be_asked_keeps_its_session_where_only_what_is_shown_changes() {
    let open = peer(1, Import::All, Export::None);
    let mut rig = Rig::new(vec![open.clone()]);
    rig.establish(1);
    rig.speaker.configure(vec![keeping(open)], rig.now).unwrap();
    assert_eq!(rig.state(0), State::Established);
}

#[test]
fn a_route_beyond_a_limit_is_shown_as_that_whatever_it_was_refused_for_before() {
    let beyond = crate::config::BeyondLimit::Discard;
    let max_prefixes = Some(crate::config::MaxPrefixes { limit: 1, warn_percent: 100, beyond });
    let config = PeerConfig { max_prefixes, ..peer(1, Import::All, Export::None) };
    let mut rig = Rig::new(vec![keeping(config)]);
    let one = rig.establish(1);
    rig.announce(one, &[65101], neighbour(1), &["10.1.0.0/16"]);
    let mut why = |path: &[u32]| {
        rig.announce(one, path, neighbour(1), &["10.2.0.0/16"]);
        rig.seen(&of(Table::AdjRibIn, 1))[1].2
    };
    assert_eq!(why(&[65101, US]), Some("our AS is in its path"));
    assert_eq!(why(&[65101]), Some("its neighbour tells more than max_prefixes"));
}

#[test]
fn refused_routes_change_nothing_for_others() {
    let slow = PeerConfig {
        advertisement_interval: Duration::from_secs(30),
        ..peer(2, Import::None, Export::All)
    };
    let mut rig = Rig::new(vec![keeping(peer(1, some(), Export::None)), slow]);
    let (one, two) = (rig.establish(1), rig.establish(2));
    rig.outputs();
    for number in 2..9 {
        rig.announce(one, &[65101], neighbour(1), &[&format!("10.{number}.0.0/16")]);
        rig.withdraw(one, &["10.2.0.0/16"]);
        let asks = |it: &Output| matches!(it, Output::NextHop { .. });
        assert!(rig.outputs().iter().all(asks));
    }
    // So a VIP does not wait for an interval in which nothing was said.
    rig.originate(&["203.0.113.1/32"]);
    assert_eq!(updates(&rig.outputs(), two).len(), 1);
}

#[test]
fn what_a_neighbour_was_told_is_listed_until_it_is_told_something_else() {
    let slow = PeerConfig {
        advertisement_interval: Duration::from_secs(30),
        ..peer(2, Import::None, Export::All)
    };
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::None), slow]);
    let (one, two) = (rig.establish(1), rig.establish(2));
    rig.outputs();
    let told = |rig: &Rig| rig.listed_prefixes(&of(Table::AdjRibOut, 2));
    rig.announce(one, &[65101], neighbour(1), &["10.1.0.0/16", "10.2.0.0/16"]);
    assert_eq!(told(&rig), [""; 0]);
    rig.outputs();
    assert_eq!(told(&rig), ["10.1.0.0/16", "10.2.0.0/16"]);
    // Its withdrawal waits for the interval.
    rig.withdraw(one, &["10.1.0.0/16"]);
    rig.outputs();
    assert_eq!(told(&rig), ["10.1.0.0/16", "10.2.0.0/16"]);
    // One that does not read has yet to be told.
    rig.speaker.set_backlog(two, Backlog::Enough);
    rig.speaker.clear(neighbour(2), Clear::Out, rig.now);
    rig.outputs();
    assert_eq!(told(&rig), ["10.1.0.0/16", "10.2.0.0/16"]);
    rig.speaker.handle(Input::Closed { conn: two, error: "end of file".into() }, rig.now);
    assert_eq!(told(&rig), [""; 0]);
}

#[test]
fn the_selected_routes_are_those_that_carry_traffic() {
    let mut rig = Rig::new((1..=3).map(|n| peer(n, Import::All, Export::None)).collect());
    let conns = [1, 2, 3].map(|number| rig.establish(number));
    let paths: [&[u32]; 3] = [&[65101], &[65102], &[65103, 7]];
    for (place, path) in paths.into_iter().enumerate() {
        let hop = neighbour(u8::try_from(place).unwrap() + 1);
        rig.announce(conns[place], path, hop, &["10.1.0.0/16"]);
    }
    let count = |table| rig.listed_prefixes(&Query { table, ..Query::default() }).len();
    assert_eq!((count(Table::Usable), count(Table::LocRib)), (3, 2));
}

#[test]
fn an_address_is_explained_by_the_longest_prefix_that_covers_it() {
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::None)]);
    let one = rig.establish(1);
    rig.announce(one, &[65101], neighbour(1), &["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24"]);
    let explained = |text: &str| {
        let address = Destination::Address(text.parse().unwrap());
        rig.speaker.explain(address).prefix.to_string()
    };
    assert_eq!(explained("10.1.2.3"), "10.1.2.0/24");
    assert_eq!(explained("10.1.3.3"), "10.1.0.0/16");
    assert_eq!(explained("10.255.0.0"), "10.0.0.0/8");
    assert_eq!(explained("11.0.0.0"), "11.0.0.0/32");
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
    let as_paths = vec![AsPathSet::new(vec!["_8$".into()]).unwrap()];
    assert_eq!(names(Query { as_paths, ..Query::default() }), ["10.2.0.0/16"]);
    let set = |text: &str| CommunitySet::new([text.parse().unwrap()]);
    let communities = vec![set("65101:*")];
    assert_eq!(names(Query { communities, ..Query::default() }), ["10.3.0.0/16"]);
    let communities = vec![set("65101:*"), set("65101:6")];
    assert_eq!(names(Query { communities, ..Query::default() }), [""; 0]);
    let nobody = Some(neighbour(9));
    assert_eq!(names(Query { neighbour: nobody, ..Query::default() }), [""; 0]);
}

#[test]
fn an_explanation_says_by_which_step_a_path_won_or_lost() {
    let mut peers: Vec<_> = (1..=4).map(|n| peer(n, Import::All, Export::None)).collect();
    peers.push(peer(5, some(), Export::None));
    let mut rig = Rig::new(peers.into_iter().map(keeping).collect());
    let conns = [1, 2, 3, 4].map(|number| rig.establish(number));
    let five = rig.establish(5);
    rig.announce(five, &[65105], neighbour(5), &["10.9.0.0/16"]);
    let refused =
        rig.speaker.explain(Destination::Prefix(prefix("10.9.0.0/16"))).paths[0].why.clone();
    let words = "import policy does not accept it: no policy accepts it";
    assert_eq!(refused.as_deref(), Some(words));
    let lengths: [&[u32]; 4] = [&[65101], &[65102], &[65103, 7], &[65104, US]];
    for (place, path) in lengths.into_iter().enumerate() {
        let hop = neighbour(u8::try_from(place).unwrap() + 1);
        rig.announce(conns[place], path, hop, &["10.1.0.0/16"]);
    }
    let explained = rig.speaker.explain(Destination::Prefix(prefix("10.1.0.0/16"))).paths;
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
    // ORIGIN 9, and 2 when it comes again; the rest as it should be.
    let path = [0x40, 2, 6, 2, 1, 0, 0, 0xfe, 0x4d];
    let hop = [0x40, 3, 4, 10, 0, 1, 2, 0x40, 1, 1, 2];
    let list = [&[0x40, 1, 1, 9][..], &path, &hop].concat();
    let body = [&[0, 0, 0, list.len() as u8][..], &list, &[8, 10]].concat();
    let header = [&[0xff; 16][..], &[0, 19 + body.len() as u8, 2]].concat();
    rig.receive(conn, &[header, body].concat());
    let outputs = rig.outputs();
    let said = outputs.iter().filter_map(|it| {
        let Output::Event(Event::Malformed { what, .. }) = it else { return None };
        Some(what.as_str())
    });
    let words = [
        "ORIGIN (1): undefined origin, routes withdrawn; it was 40 01 01 09",
        "ORIGIN (1): attribute is there twice, attribute discarded; it was 40 01 01 02",
    ];
    assert_eq!(said.collect::<Vec<_>>(), words);
    assert_eq!(rig.speaker.peers()[0].malformed, 1);
    // A family that is none of ours, and then no UPDATE at all.
    let foreign = [&[0, 0, 0, 9][..], &[0x80, 14, 6, 0, 25, 65, 0, 0, 0]].concat();
    for (body, words) in [
        (foreign, "it was 80 0e 06 00 19 41 00 00 00"),
        (vec![0xff; 4], "Malformed Attribute List, session reset; the UPDATE was ff ff ff ff"),
    ] {
        let header = [&[0xff; 16][..], &[0, 19 + body.len() as u8, 2]].concat();
        rig.receive(conn, &[header, body].concat());
        let outputs = rig.outputs();
        let says = |it: &Output| matches!(it, Output::Event(Event::Malformed { what, .. }) if what.contains(words));
        assert!(outputs.iter().any(says), "{outputs:?}");
        assert!(rig.speaker.peers()[0].last_malformed.contains(words));
    }
    assert_eq!((rig.speaker.peers()[0].malformed, rig.state(0)), (3, State::Idle));
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
    let explained = rig.speaker.explain(Destination::Prefix(prefix("10.1.0.0/16")));
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
