//! Several paths of a prefix from one neighbour (RFC 7911).

use super::*;
use crate::wire::{AddPath, Packer, PathIds, encode_attributes};

const IDS: PathIds = PathIds { ipv4: true, ipv6: false };

fn several(number: u8) -> PeerConfig {
    PeerConfig { add_path_receive: true, ..peer(number, Import::All, Export::None) }
}

impl Rig {
    /// A session with a neighbour that tells several paths of IPv4 prefixes.
    fn establish_several(&mut self, number: u8) -> ConnId {
        let entry = AddPath { family: Family::IPV4_UNICAST, receive: false, send: true };
        self.establish_as(number, vec![Capability::AddPath(vec![entry])])
    }

    fn tell(&mut self, conn: ConnId, say: impl FnOnce(&mut Packer)) {
        let mut packer = Packer::new(IDS, wire::MAX_MESSAGE_LEN);
        say(&mut packer);
        self.receive(conn, &packer.finish().0);
    }

    fn announce_path(&mut self, conn: ConnId, id: u32, path: &[u32]) {
        let hop = neighbour(1);
        let octets =
            encode_attributes(&attributes(path), hop, CONTEXT, (IDS, wire::MAX_MESSAGE_LEN))
                .unwrap();
        let prefixes = [(id, prefix("10.1.0.0/16"))];
        self.tell(conn, |packer| packer.announce_ipv4(&octets, prefixes.into_iter()));
    }

    fn paths(&self) -> Vec<(u32, String)> {
        let routes = self.speaker.routes().into_iter();
        routes.map(|path| (path.path_id, path.attributes.as_path.to_string())).collect()
    }
}

#[test]
fn a_neighbour_s_paths_stand_beside_each_other_and_go_one_by_one() {
    let mut rig = Rig::new(vec![several(1)]);
    let conn = rig.establish_several(1);
    rig.announce_path(conn, 7, &[65101, 8, 9]);
    rig.announce_path(conn, 9, &[65101, 8]);
    assert_eq!(rig.paths(), [(9, "65101 8".into()), (7, "65101 8 9".into())]);
    assert_eq!(rig.speaker.peers()[0].prefixes_received, 2);
    // The same identifier again replaces what it named.
    rig.announce_path(conn, 7, &[65101]);
    assert_eq!(rig.paths(), [(7, "65101".into()), (9, "65101 8".into())]);
    let gone = [(7, prefix("10.1.0.0/16"))];
    rig.tell(conn, |packer| packer.withdraw(false, gone.into_iter()));
    assert_eq!(rig.paths(), [(9, "65101 8".into())]);
    rig.speaker.handle(Input::Closed { conn, error: "end of file".into() }, rig.now);
    assert_eq!((rig.paths(), rig.speaker.peers()[0].prefixes_received), (vec![], 0));
}

#[test]
fn more_paths_of_a_prefix_than_are_taken_end_the_session_with_words() {
    let mut rig = Rig::new(vec![several(1)]);
    let conn = rig.establish_several(1);
    // 0 is an identifier like others.
    for id in 0..64 {
        rig.announce_path(conn, id, &[65101, id + 1]);
    }
    assert_eq!(rig.paths().len(), usize::from(config::MAX_PATHS_PER_PREFIX));
    rig.announce_path(conn, 7, &[65101]);
    assert_eq!(rig.state(0), State::Established);
    rig.outputs();
    rig.announce_path(conn, 64, &[65101]);
    let outputs = rig.outputs();
    let said = |it: &Output| matches!(it, Output::Event(Event::Malformed { what, .. }) if what.contains("64 paths"));
    assert_eq!(outputs.iter().filter(|it| said(it)).count(), 1);
    let cease = Notification::new(wire::error::MAXIMUM_NUMBER_OF_PREFIXES_REACHED);
    let last = messages(&outputs, conn).pop();
    assert_eq!(last, Some(Message::Notification(cease)));
}

#[test]
fn identifiers_are_read_only_where_both_sides_said_so() {
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::None)]);
    let conn = rig.establish_several(1);
    rig.announce(conn, &[65101], neighbour(1), &["10.1.0.0/16"]);
    assert_eq!(rig.paths(), [(0, "65101".into())]);
}

#[test]
fn refused_paths_of_a_prefix_end_no_session_and_leave_room_for_others() {
    let mut rig = Rig::new(vec![PeerConfig { keep_rejected: true, ..several(1) }]);
    let conn = rig.establish_several(1);
    for id in 0..65 {
        rig.announce_path(conn, id, &[65101, US]);
    }
    for id in 100..164 {
        rig.announce_path(conn, id, &[65101, id]);
    }
    let status = &rig.speaker.peers()[0];
    assert_eq!((status.prefixes_received, status.prefixes_rejected), (64, 64));
    assert_eq!((status.refused_not_kept, rig.state(0)), (1, State::Established));
    // One that is refused now may be told otherwise, as long as there is room.
    rig.announce_path(conn, 0, &[65101]);
    assert_eq!(rig.state(0), State::Idle);
}

#[test]
fn who_hears_of_another_path_only_is_told_what_keeps_the_best_one() {
    let hearer = PeerConfig { add_path_send: 2, ..peer(3, Import::None, Export::All) };
    let mut rig = Rig::new(vec![several(1), peer(2, Import::All, Export::None), hearer]);
    let (one, two) = (rig.establish_several(1), rig.establish(2));
    let entry = AddPath { family: Family::IPV4_UNICAST, receive: true, send: false };
    let multi = [Family::IPV4_UNICAST, Family::IPV6_UNICAST].map(Capability::Multiprotocol);
    let capabilities = multi.into_iter().chain([Capability::AddPath(vec![entry])]).collect();
    rig.establish_as(3, capabilities);
    let mut messages = Vec::new();
    let stays = Attributes { communities: vec![0xffff_ff01], ..attributes(&[65102]) };
    let prefixes = [prefix("10.1.0.0/16")];
    wire::encode_updates(&stays, neighbour(2), &prefixes, CONTEXT, &mut messages).unwrap();
    rig.receive(two, &messages.concat());
    rig.announce_path(one, 1, &[65101, 7]);
    rig.outputs();
    let explained = rig.speaker.explain(Destination::Prefix(prefix("10.1.0.0/16")));
    let heard = explained.neighbours.last().map(|it| (it.withheld.as_deref(), it.others));
    assert_eq!(heard, Some((Some("the best path has the community no-export"), 1)));
    let query =
        Query { table: Table::AdjRibOut, neighbour: Some(neighbour(3)), ..Query::default() };
    let told = rig.speaker.query(&query, Walk::default(), 9).paths;
    let told: Vec<_> = told.iter().map(|it| (it.prefix.is_ipv4(), it.path_id)).collect();
    assert_eq!(told, [(true, 1)]);
}
