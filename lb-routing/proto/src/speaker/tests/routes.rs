//! Routes in, routes out.

use super::*;
use crate::fib::Reach;

fn withdrawn(outputs: &[Output], on: ConnId) -> Vec<String> {
    let updates = updates(outputs, on).into_iter();
    updates.flat_map(|update| update.withdrawn).map(|prefix| prefix.to_string()).collect()
}

fn ends(outputs: &[Output], on: ConnId) -> usize {
    updates(outputs, on).iter().filter(|update| update.end_of_rib.is_some()).count()
}

#[test]
fn nothing_is_accepted_or_advertised_unless_policy_says_so() {
    let mut rig = Rig::new(vec![
        peer(1, Import::All, Export::default()),
        peer(2, Import::default(), Export::Vips),
        peer(3, Import::default(), Export::All),
    ]);
    rig.originate(&["203.0.113.1/32"]);
    let conns = [1, 2, 3].map(|number| rig.establish(number));
    rig.announce(conns[0], &[65101], neighbour(1), &["10.1.0.0/16"]);
    rig.announce(conns[1], &[65102], neighbour(2), &["10.2.0.0/16"]);
    let outputs = rig.outputs();
    assert_eq!(routes(&outputs), [change("10.1.0.0/16", &[neighbour(1)])]);
    assert_eq!(announced(&outputs, conns[0]), Vec::<String>::new());
    let vip = |local: &str| format!("203.0.113.1/32 via {local} Some([Sequence([65001])])");
    assert_eq!(announced(&outputs, conns[1]), [vip("10.0.2.1")]);
    let learned = "10.1.0.0/16 via 10.0.3.1 Some([Sequence([65001, 65101])])".to_owned();
    let mut all = announced(&outputs, conns[2]);
    all.sort();
    assert_eq!(all, [learned, vip("10.0.3.1")]);
    let counts = rig.speaker.peers();
    let counts = counts.iter().map(|peer| (peer.prefixes_received, peer.prefixes_advertised));
    assert_eq!(counts.collect::<Vec<_>>(), [(1, 0), (0, 1), (0, 2)]);
}

#[test]
fn each_family_s_initial_routes_end_with_a_mark() {
    let peers = vec![peer(1, Import::All, Export::Vips), peer(2, Import::All, Export::None)];
    let mut rig = Rig::new(peers);
    let conn = rig.establish(1);
    assert_eq!(ends(&rig.outputs(), conn), 2);
    let conn = rig.establish_with(2, &[]);
    assert_eq!(ends(&rig.outputs(), conn), 1);
    rig.receive(conn, &wire::encode_end_of_rib(Family::IPV4_UNICAST));
    let end = Output::Event(Event::EndOfRib { peer: neighbour(2) });
    assert!(rig.outputs().contains(&end));
}

#[test]
fn only_the_difference_between_two_calls_is_advertised() {
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::Vips)]);
    let conn = rig.establish(1);
    rig.outputs();
    rig.originate(&["203.0.113.1/32", "203.0.113.2/32"]);
    assert_eq!(announced(&rig.outputs(), conn).len(), 2);
    rig.originate(&["203.0.113.2/32", "203.0.113.3/32"]);
    let outputs = rig.outputs();
    assert_eq!(announced(&outputs, conn).len(), 1);
    assert_eq!(withdrawn(&outputs, conn), ["203.0.113.1/32"]);
    rig.originate(&["203.0.113.3/32", "203.0.113.2/32"]);
    assert_eq!(rig.outputs(), []);
    // There and back between two polls: nothing to say.
    rig.originate(&[]);
    rig.originate(&["203.0.113.3/32", "203.0.113.2/32"]);
    assert_eq!(rig.outputs(), []);
}

#[test]
fn the_driver_hears_of_a_route_before_the_neighbours() {
    let mut rig = Rig::new((1..=2).map(|n| peer(n, Import::All, Export::All)).collect());
    let from = rig.establish(1);
    rig.establish(2);
    rig.outputs();
    rig.announce(from, &[65101], neighbour(1), &["10.1.0.0/16"]);
    let outputs = rig.outputs();
    let place = |want: fn(&Output) -> bool| outputs.iter().position(want).unwrap();
    let route = place(|output| matches!(output, Output::Routes(_)));
    let send = place(|output| matches!(output, Output::Send { .. }));
    assert!(route < send, "{outputs:?}");
}

#[test]
fn many_prefixes_share_few_messages() {
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::Vips)]);
    let conn = rig.establish(1);
    rig.outputs();
    let host = |number: u16| {
        let [high, low] = number.to_be_bytes();
        IpNetwork::from(IpAddr::from([203, 0, high, low]))
    };
    let prefixes: Vec<_> = (0..2000).map(host).collect();
    rig.speaker.handle(Input::Originate(&prefixes), rig.now);
    let outputs = rig.outputs();
    assert_eq!(announced(&outputs, conn).len(), 2000);
    assert!(updates(&outputs, conn).len() <= 3);
}

#[test]
fn pages_of_routes_have_each_path_once_while_others_come_and_go() {
    let mut rig =
        Rig::new(vec![peer(1, Import::All, Export::None), peer(2, Import::All, Export::None)]);
    let conns = [1, 2].map(|number| rig.establish(number));
    rig.announce(conns[0], &[65101], neighbour(1), &["10.9.0.0/16", "10.7.0.0/16", "10.8.0.0/16"]);
    rig.announce(conns[1], &[65102], neighbour(2), &["10.7.0.0/16", "10.6.0.0/16"]);
    let keys = |paths: &[PathStatus]| paths.iter().map(PathStatus::key).collect::<Vec<_>>();
    let all = keys(&rig.speaker.query(&Query::default(), Walk::default(), 9).paths);
    let mut sorted = keys(&rig.speaker.routes());
    sorted.sort_unstable();
    assert_eq!((all.len(), &all), (5, &sorted));
    for limit in 1..=6 {
        let (mut told, mut last) = (Vec::new(), None);
        loop {
            let page = keys(&rig.speaker.query(&Query::default(), Walk::after(last), limit).paths);
            assert!(page.len() <= limit);
            let Some(end) = page.last() else { break };
            (last, told) = (Some(*end), [told, page].concat());
        }
        assert_eq!(told, all, "{limit}");
    }
    // The path that a page ended with goes, and a better one for its prefix comes: nothing is left out, nothing told twice.
    let last = all[1];
    assert_eq!(last, ("10.7.0.0/16".parse().unwrap(), Some(neighbour(1)), 0));
    rig.withdraw(conns[0], &["10.7.0.0/16"]);
    rig.announce(conns[1], &[65102], neighbour(2), &["10.5.0.0/16"]);
    assert_eq!(
        keys(&rig.speaker.query(&Query::default(), Walk::after(Some(last)), 9).paths),
        all[2..]
    );
}

#[test]
fn equal_paths_share_and_the_rest_take_over_when_a_session_drops() {
    let mut rig = Rig::new((1..=3).map(|n| peer(n, Import::All, Export::None)).collect());
    let conns = [1, 2, 3].map(|number| rig.establish(number));
    rig.announce(conns[0], &[65101, 7], neighbour(1), &["10.9.0.0/16"]);
    rig.announce(conns[1], &[65102, 7], neighbour(2), &["10.9.0.0/16"]);
    rig.announce(conns[2], &[65103, 8, 7], neighbour(3), &["10.9.0.0/16"]);
    let both = [neighbour(1), neighbour(2)];
    assert_eq!(routes(&rig.outputs()), [change("10.9.0.0/16", &both)]);
    let shown: Vec<_> = rig.speaker.routes().iter().map(|p| (p.best, p.multipath)).collect();
    assert_eq!(shown, [(true, true), (false, true), (false, false)]);
    for (gone, left) in [(0, vec![neighbour(2)]), (1, vec![neighbour(3)]), (2, vec![])] {
        let input = Input::Closed { conn: conns[gone], error: "reset".into() };
        rig.speaker.handle(input, rig.now);
        assert_eq!(routes(&rig.outputs()), [change("10.9.0.0/16", &left)]);
    }
}

#[test]
fn a_useless_replacement_takes_the_route_away() {
    let cases = [
        (vec![65101, US], neighbour(1)),
        (vec![65999], neighbour(1)),
        (vec![65101], ourselves(1)),
        (vec![65101], IpAddr::from([10, 0, 7, 7])),
    ];
    for (path, next_hop) in cases {
        let mut rig = Rig::new(vec![peer(1, Import::All, Export::None)]);
        rig.originate(&["10.0.7.7/32"]);
        let conn = rig.establish(1);
        rig.announce(conn, &[65101], neighbour(1), &["10.9.0.0/16"]);
        rig.outputs();
        rig.announce(conn, &path, next_hop, &["10.9.0.0/16"]);
        assert_eq!(routes(&rig.outputs()), [change("10.9.0.0/16", &[])], "{path:?} {next_hop}");
        assert_eq!(rig.speaker.peers()[0].prefixes_received, 0);
        assert_eq!(rig.state(0), State::Established);
    }
}

#[test]
fn ipv6_routes_are_kept_and_those_of_a_family_not_agreed_on_are_not() {
    let mut rig = Rig::new((1..=2).map(|n| peer(n, Import::All, Export::None)).collect());
    let both = rig.establish(1);
    let only_ipv4 = rig.establish_with(2, &[]);
    let hop: IpAddr = "2001:db8::2".parse().unwrap();
    rig.announce(only_ipv4, &[65102], hop, &["2001:db8:2::/48"]);
    assert_eq!(routes(&rig.outputs()), []);
    rig.announce(both, &[65101], hop, &["2001:db8:1::/48"]);
    assert_eq!(routes(&rig.outputs()), [change("2001:db8:1::/48", &[hop])]);
    rig.withdraw(both, &["2001:db8:1::/48"]);
    assert_eq!(routes(&rig.outputs()), [change("2001:db8:1::/48", &[])]);
}

#[test]
fn a_refresh_repeats_the_family_and_nothing_else() {
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::Vips)]);
    let conn = rig.establish(1);
    rig.originate(&["203.0.113.1/32"]);
    rig.outputs();
    rig.hear(conn, &Message::RouteRefresh(Family::IPV6_UNICAST));
    assert_eq!(rig.outputs(), []);
    rig.hear(conn, &Message::RouteRefresh(Family::IPV4_UNICAST));
    assert_eq!(announced(&rig.outputs(), conn).len(), 1);
}

#[test]
fn a_new_session_hears_everything_again() {
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::Vips)]);
    rig.originate(&["203.0.113.1/32"]);
    let conn = rig.establish(1);
    assert_eq!(announced(&rig.outputs(), conn).len(), 1);
    rig.speaker.handle(Input::Closed { conn, error: "reset".into() }, rig.now);
    rig.wait();
    let conn = rig.establish(1);
    assert_eq!(announced(&rig.outputs(), conn).len(), 1);
}

#[test]
fn shutdown_says_so_to_everybody_and_takes_all_routes_away() {
    let mut rig = Rig::new((1..=2).map(|n| peer(n, Import::All, Export::All)).collect());
    let conns = [1, 2].map(|number| rig.establish(number));
    rig.announce(conns[0], &[65101], neighbour(1), &["10.9.0.0/16"]);
    rig.outputs();
    rig.speaker.handle(Input::Shutdown, rig.now);
    let outputs = rig.outputs();
    let goodbye = Notification::new(wire::error::ADMINISTRATIVE_SHUTDOWN);
    for conn in conns {
        assert_eq!(messages(&outputs, conn), [Message::Notification(goodbye.clone())]);
        assert!(outputs.contains(&Output::Close { conn }));
    }
    assert_eq!(routes(&outputs), [change("10.9.0.0/16", &[])]);
    assert_eq!(rig.speaker.poll_timeout(), None);
}

#[test]
fn a_neighbour_is_known_by_its_mapped_address_too() {
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::Vips)]);
    rig.originate(&["203.0.113.1/32"]);
    let conn = rig.accept("::ffff:10.0.1.2".parse().unwrap(), "::ffff:10.0.1.1".parse().unwrap());
    let capabilities = vec![Capability::FourOctetAs(65101)];
    let router_id = Ipv4Addr::new(1, 1, 1, 1);
    let open = Open { asn: 65101, hold_time_secs: 90, router_id, capabilities };
    rig.hear(conn, &Message::Open(open));
    rig.hear(conn, &Message::Keepalive);
    let vip = "203.0.113.1/32 via 10.0.1.1 Some([Sequence([65001])])";
    assert_eq!(announced(&rig.outputs(), conn), [vip]);
}

#[test]
fn a_path_whose_next_hop_cannot_be_reached_is_neither_taken_nor_told() {
    let both = || (Import::All, Export::All);
    let peers = (1..=3).map(|n| peer(n, both().0, both().1)).collect();
    let mut rig = Rig::new(peers);
    let conns: Vec<_> = (1..=3).map(|n| rig.establish(n)).collect();
    rig.outputs();
    rig.announce(conns[0], &[65101], neighbour(1), &["10.1.0.0/16"]);
    rig.announce(conns[1], &[65102], neighbour(2), &["10.1.0.0/16"]);
    let outputs = rig.outputs();
    let asked = |next_hop| Output::NextHop { next_hop, wanted: true };
    assert!([neighbour(1), neighbour(2)].map(asked).iter().all(|it| outputs.contains(it)));
    let far = |rig: &mut Rig, number, cost| {
        let next_hop = neighbour(number);
        rig.speaker.handle(Input::NextHop { next_hop, reach: Reach::from(cost) }, rig.now);
        rig.outputs()
    };
    let outputs = far(&mut rig, 1, Some(20));
    assert_eq!(routes(&outputs), [change("10.1.0.0/16", &[neighbour(2)])]);
    let why = |rig: &Rig| -> Vec<_> {
        let what = Destination::Prefix(prefix("10.1.0.0/16"));
        rig.speaker.explain(what).paths.into_iter().map(|path| path.why.unwrap()).collect()
    };
    let lost = "lost by: cost of reaching the next hop (20, that of the best one 0)";
    assert_eq!(why(&rig), ["won over the next one by: cost of reaching the next hop", lost]);
    let outputs = far(&mut rig, 2, None);
    assert_eq!(routes(&outputs), [change("10.1.0.0/16", &[neighbour(1)])]);
    let outputs = far(&mut rig, 1, None);
    assert_eq!(routes(&outputs), [change("10.1.0.0/16", &[])]);
    assert_eq!(updates(&outputs, conns[2])[0].withdrawn, [prefix("10.1.0.0/16")]);
    assert!(why(&rig).iter().all(|why| why.contains("cannot be reached")), "{:?}", why(&rig));
    let outputs = far(&mut rig, 2, Some(7));
    assert_eq!(announced(&outputs, conns[2]).len(), 1);
}
