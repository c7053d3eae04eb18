//! Route reflection inside an AS (RFC 4456).

use super::*;

const INSIDE: Context = Context { four_octet_as: true, external: false };

/// A neighbour in our AS.
fn inside(number: u8, client: bool) -> PeerConfig {
    let peer = peer(number, Import::All, Export::All);
    PeerConfig { asn: US, route_reflector_client: client, ..peer }
}

impl Rig {
    /// A session with a neighbour in our AS that has this identifier, Established.
    fn establish_inside(&mut self, number: u8, router_id: [u8; 4]) -> ConnId {
        self.establish_inside_at(ourselves(number), number, router_id)
    }

    /// The same, at this end of ours.
    fn establish_inside_at(&mut self, local: IpAddr, number: u8, router_id: [u8; 4]) -> ConnId {
        let conn = self.accept(neighbour(number), local);
        let router_id = router_id.into();
        let capabilities = vec![Capability::FourOctetAs(US)];
        let open = Open { asn: US, hold_time_secs: 90, router_id, capabilities };
        self.hear(conn, &Message::Open(open));
        self.hear(conn, &Message::Keepalive);
        conn
    }

    fn announce_inside(&mut self, conn: ConnId, text: &str) {
        self.announce_inside_via(conn, text, [10, 0, 99, 9].into());
    }

    fn announce_inside_via(&mut self, conn: ConnId, text: &str, hop: IpAddr) {
        let mut messages = Vec::new();
        let attributes = Attributes { local_pref: Some(100), ..attributes(&[65999]) };
        wire::encode_updates(&attributes, hop, &[prefix(text)], INSIDE, &mut messages).unwrap();
        self.receive(conn, &messages.concat());
    }
}

/// What is heard on a connection of reflected routes: originator and clusters; nothing of one that is withdrawn.
fn reflected(outputs: &[Output], on: ConnId) -> Vec<Option<(Ipv4Addr, Vec<Ipv4Addr>)>> {
    let mut heard = Vec::new();
    for output in outputs {
        let Output::Send { conn, bytes } = output else { continue };
        let mut rest = bytes.to_vec();
        while let Some(len) = wire::frame(&rest).unwrap().filter(|_| *conn == on) {
            let after = rest.split_off(len);
            if let Message::Update(update) = wire::decode(&rest, INSIDE).unwrap() {
                heard.extend(update.withdrawn.iter().map(|_| None));
                heard.extend(update.attributes.map(|a| Some((a.originator_id?, a.cluster_list))));
            }
            rest = after;
        }
    }
    heard
}

const OUR_CLUSTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

#[test]
fn a_client_s_routes_reach_everybody_and_those_of_others_reach_clients() {
    let mut rig = Rig::new(vec![inside(1, true), inside(2, false), inside(3, false)]);
    let conns = [1, 2, 3].map(|number| rig.establish_inside(number, [1, 1, 1, number]));
    rig.outputs();
    let mut hears = |from: usize| {
        rig.announce_inside(conns[from], &format!("10.{from}.0.0/16"));
        let outputs = rig.outputs();
        conns.map(|conn| reflected(&outputs, conn))
    };
    let by = |id: u8| vec![Some((Ipv4Addr::new(1, 1, 1, id), vec![OUR_CLUSTER]))];
    assert_eq!(hears(0), [vec![], by(1), by(1)]);
    assert_eq!(hears(1), [by(2), vec![], vec![]]);
}

#[test]
fn who_becomes_a_client_or_is_none_any_more_changes_what_others_hear_at_once() {
    let mut rig = Rig::new(vec![inside(1, false), inside(2, false)]);
    let (one, two) = (rig.establish_inside(1, [1, 1, 1, 1]), rig.establish_inside(2, [1, 1, 1, 2]));
    rig.announce_inside(one, "10.1.0.0/16");
    assert_eq!(reflected(&rig.outputs(), two), []);
    rig.speaker.configure(vec![inside(1, true), inside(2, false)], rig.now).unwrap();
    let outputs = rig.outputs();
    assert_eq!(reflected(&outputs, two), [Some(([1, 1, 1, 1].into(), vec![OUR_CLUSTER]))]);
    assert_eq!(reflected(&outputs, one), []);
    rig.speaker.configure(vec![inside(1, false), inside(2, false)], rig.now).unwrap();
    assert_eq!(reflected(&rig.outputs(), two), [None]);
}

#[test]
fn a_neighbour_that_returns_with_another_identifier_is_the_originator_under_that_one() {
    let mut rig = Rig::new(vec![inside(1, true), inside(2, true), inside(3, true)]);
    let [one, two, three] = [1, 2, 3].map(|n| rig.establish_inside(n, [1, 1, 1, n]));
    // The same attributes from another one: they are known while the first one is away.
    rig.announce_inside(two, "10.2.0.0/16");
    rig.announce_inside(one, "10.1.0.0/16");
    rig.outputs();
    rig.speaker.handle(Input::Closed { conn: one, error: "end of file".into() }, rig.now);
    assert_eq!(reflected(&rig.outputs(), three), [None]);
    rig.wait();
    let one = rig.establish_inside(1, [7, 7, 7, 7]);
    rig.announce_inside(one, "10.1.0.0/16");
    let heard = reflected(&rig.outputs(), three);
    assert_eq!(heard, [Some(([7, 7, 7, 7].into(), vec![OUR_CLUSTER]))]);
}

#[test]
fn what_went_through_our_cluster_does_not_come_back_in() {
    let mut rig = Rig::new(vec![inside(1, true)]);
    let one = rig.establish_inside(1, [1, 1, 1, 1]);
    let looped = Attributes {
        local_pref: Some(100),
        cluster_list: vec![[8, 8, 8, 8].into(), OUR_CLUSTER],
        ..attributes(&[65999])
    };
    let (hop, prefixes) = ([10, 0, 99, 9].into(), [prefix("10.1.0.0/16")]);
    let mut messages = Vec::new();
    wire::encode_updates(&looped, hop, &prefixes, INSIDE, &mut messages).unwrap();
    rig.receive(one, &messages.concat());
    assert!(rig.speaker.routes().is_empty());
    assert_eq!(rig.state(0), State::Established);
}

#[test]
fn a_second_best_path_goes_from_who_hears_of_several_when_its_neighbour_is_no_client_any_more() {
    use crate::wire::{AddPath, Parts, PathIds};
    let hearer = PeerConfig { add_path_send: 2, ..inside(3, false) };
    let peers = |client| vec![inside(1, client), inside(2, true), hearer.clone()];
    let mut rig = Rig::new(peers(true));
    let [one, two] = [1, 2].map(|n| rig.establish_inside(n, [1, 1, 1, 3 - n]));
    let entry = AddPath { family: Family::IPV4_UNICAST, receive: true, send: false };
    let three = rig.accept(neighbour(3), ourselves(3));
    let capabilities = vec![Capability::FourOctetAs(US), Capability::AddPath(vec![entry])];
    let router_id = [1, 1, 1, 3].into();
    let open = Open { asn: US, hold_time_secs: 90, router_id, capabilities };
    rig.hear(three, &Message::Open(open));
    rig.hear(three, &Message::Keepalive);
    rig.announce_inside(one, "10.1.0.0/16");
    rig.announce_inside(two, "10.1.0.0/16");
    rig.outputs();
    // Announced and withdrawn.
    let mut change = |client| {
        rig.speaker.configure(peers(client), rig.now).unwrap();
        let outputs = rig.outputs();
        let mut counts = (0, 0);
        for output in &outputs {
            let Output::Send { conn, bytes } = output else { continue };
            if let Some(body) = wire::update_body(bytes).filter(|_| *conn == three) {
                let parts = Parts::new(body, PathIds { ipv4: true, ipv6: false }).unwrap();
                counts.0 += parts.nlri.paths().count();
                counts.1 += parts.withdrawn.paths().count();
            }
        }
        counts
    };
    assert_eq!(change(false), (0, 1));
    assert_eq!(change(true), (1, 0));
}

#[test]
fn a_reflector_encodes_a_client_s_route_once_for_all_others() {
    const CLIENTS: u8 = 100;
    let mut rig = Rig::new((1..=CLIENTS).map(|number| inside(number, true)).collect());
    let loopback = IpAddr::from([10, 0, 0, 1]);
    let conns: Vec<_> =
        (1..=CLIENTS).map(|n| rig.establish_inside_at(loopback, n, [1, 1, 1, n])).collect();
    rig.outputs();
    assert_eq!(rig.speaker.groups.iter().flatten().count(), 1);
    // Each leads to itself, as usual; the last one to another client, which is not told (RFC 4271 §5.1.3).
    for (from, via, deaf) in [(1_u8, 1, vec![1]), (100, 100, vec![100]), (7, 8, vec![7, 8])] {
        let conn = conns[usize::from(from) - 1];
        rig.announce_inside_via(conn, &format!("10.{from}.0.0/16"), neighbour(via));
        let outputs = rig.outputs();
        let mut places = std::collections::BTreeSet::new();
        let mut told = Vec::new();
        for output in &outputs {
            let Output::Send { conn, bytes } = output else { continue };
            places.insert(bytes.as_ptr());
            told.extend((1..=CLIENTS).filter(|n| conns[usize::from(*n) - 1] == *conn));
        }
        told.sort_unstable();
        let others: Vec<_> = (1..=CLIENTS).filter(|number| !deaf.contains(number)).collect();
        assert_eq!((told, places.len()), (others, 1), "from {from}");
    }
    let advertised: Vec<_> = rig.speaker.peers().iter().map(|it| it.prefixes_advertised).collect();
    let own = |number: u8| u64::from([1, 7, 8, 100].contains(&number));
    assert_eq!(advertised, (1..=CLIENTS).map(|number| 3 - own(number)).collect::<Vec<_>>());
    let explained = rig.speaker.explain(Destination::Prefix(prefix("10.7.0.0/16")));
    let why = explained.neighbours[7].withheld.as_deref();
    assert_eq!(why, Some("the next hop that it would be told is its own address"));
}
