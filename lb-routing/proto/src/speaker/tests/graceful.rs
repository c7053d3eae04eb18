//! Neighbours that restart, and restarts of ours.

use super::policies::{chain, prefixes, statement};
use super::*;
use crate::policy::{Actions, Verdict};
use crate::speaker::graceful::{ABSENCE_LIMIT, DEFERRAL_LIMIT, STALE_LIMIT};
use crate::wire::GracefulRestart;

const V4: Family = Family::IPV4_UNICAST;
const V6: Family = Family::IPV6_UNICAST;
const SIX: &str = "2001:db8:5::/48";

impl Rig {
    /// A session with a neighbour that restarts gracefully, for 60 s at most.
    fn establish_graceful(
        &mut self,
        number: u8,
        restarted: bool,
        kept: &[(Family, bool)],
    ) -> ConnId {
        let restart = GracefulRestart {
            restarted,
            notifications: true,
            time_secs: 60,
            families: kept.to_vec(),
        };
        let mut capabilities: Vec<_> = [V4, V6].map(Capability::Multiprotocol).into();
        capabilities.push(Capability::GracefulRestart(restart));
        self.establish_as(number, capabilities)
    }

    fn announce_both(&mut self, conn: ConnId, number: u8) {
        let asn = 65100 + u32::from(number);
        self.announce(conn, &[asn], neighbour(number), &["10.5.0.0/16", "10.6.0.0/16"]);
        self.announce(conn, &[asn], "2001:db8::2".parse().unwrap(), &[SIX]);
    }

    fn lose(&mut self, conn: ConnId) {
        self.speaker.handle(Input::Closed { conn, error: "reset".into() }, self.now);
    }

    /// Passes time, with its timers on the way.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.speaker.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.speaker.handle(Input::Tick, self.now);
        }
        self.now = until;
        self.speaker.handle(Input::Tick, self.now);
    }

    fn end_of_rib(&mut self, conn: ConnId, family: Family) {
        self.receive(conn, &wire::encode_end_of_rib(family));
    }

    /// Prefixes of the RIB, those that are marked with a star.
    fn known(&self) -> Vec<String> {
        let mark = |stale: bool| if stale { "*" } else { "" };
        let routes = self.speaker.routes();
        routes.iter().map(|path| format!("{}{}", path.prefix, mark(path.stale))).collect()
    }
}

/// Two neighbours: the first one restarts, the second one hears all.
fn pair() -> (Rig, ConnId, ConnId) {
    let peers = vec![peer(1, Import::All, Export::None), peer(2, Import::All, Export::All)];
    let mut rig = Rig::new(peers);
    let hearer = rig.establish(2);
    let conn = rig.establish_graceful(1, false, &[(V4, false), (V6, false)]);
    rig.announce_both(conn, 1);
    rig.end_of_rib(conn, V4);
    rig.end_of_rib(conn, V6);
    rig.outputs();
    (rig, conn, hearer)
}

#[test]
fn routes_of_a_neighbour_that_restarts_stay_and_nobody_notices() {
    let (mut rig, conn, hearer) = pair();
    rig.lose(conn);
    let outputs = rig.outputs();
    assert_eq!(routes(&outputs), []);
    assert_eq!(updates(&outputs, hearer), []);
    assert_eq!(rig.known(), ["10.5.0.0/16*", "10.6.0.0/16*", "2001:db8:5::/48*"]);
    assert!(rig.speaker.peers()[0].stale_until.is_some());

    rig.pass(Duration::from_secs(30));
    let conn = rig.establish_graceful(1, true, &[(V4, true), (V6, true)]);
    rig.announce(conn, &[65101], neighbour(1), &["10.5.0.0/16"]);
    assert_eq!(rig.known(), ["10.5.0.0/16", "10.6.0.0/16*", "2001:db8:5::/48*"]);
    assert_eq!(routes(&rig.outputs()), []);
    // What it does not tell again goes with its family's End-of-RIB.
    rig.end_of_rib(conn, V4);
    let outputs = rig.outputs();
    assert_eq!(routes(&outputs), [change("10.6.0.0/16", &[])]);
    assert_eq!(updates(&outputs, hearer)[0].withdrawn, [prefix("10.6.0.0/16")]);
    assert_eq!(rig.known(), ["10.5.0.0/16", "2001:db8:5::/48*"]);
    rig.end_of_rib(conn, V6);
    assert_eq!(rig.known(), ["10.5.0.0/16"]);
    assert_eq!(rig.speaker.peers()[0].prefixes_received, 1);
    assert_eq!(rig.speaker.peers()[0].stale_until, None);
}

#[test]
fn a_neighbour_that_is_not_back_in_its_time_loses_its_routes() {
    let (mut rig, conn, _) = pair();
    rig.lose(conn);
    rig.pass(Duration::from_secs(59));
    assert_eq!(rig.known().len(), 3);
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.known().len(), 0);
    assert_eq!(routes(&rig.outputs()).len(), 3);
    assert_eq!(rig.speaker.peers()[0].prefixes_received, 0);
}

#[test]
fn a_neighbour_that_is_back_and_never_ends_has_a_bound_of_its_own() {
    let (mut rig, conn, _) = pair();
    rig.lose(conn);
    rig.pass(Duration::from_secs(30));
    let conn = rig.establish_graceful(1, true, &[(V4, true), (V6, true)]);
    let mut passed = Duration::ZERO;
    while passed + Duration::from_secs(30) < STALE_LIMIT {
        rig.pass(Duration::from_secs(30));
        rig.hear(conn, &Message::Keepalive);
        passed += Duration::from_secs(30);
    }
    assert_eq!(rig.known().len(), 3);
    rig.pass(Duration::from_secs(30));
    assert_eq!(rig.known().len(), 0);
}

#[test]
fn what_a_neighbour_did_not_forward_by_meanwhile_goes_as_soon_as_it_is_back() {
    // What it says when it is back, and what is left then.
    let both = ["10.5.0.0/16*", "10.6.0.0/16*", "2001:db8:5::/48*"];
    type Case<'a> = (&'a [(Family, bool)], &'a [&'a str]);
    let cases: [Case<'_>; 4] = [
        (&[(V4, true), (V6, true)], &both),
        (&[(V4, true), (V6, false)], &both[..2]),
        (&[(V6, true)], &both[2..]),
        (&[], &[]),
    ];
    for (said, left) in cases {
        let (mut rig, conn, _) = pair();
        rig.lose(conn);
        rig.pass(Duration::from_secs(10));
        rig.establish_graceful(1, true, said);
        assert_eq!(rig.known(), left, "{said:?}");
    }
}

#[test]
fn routes_that_were_not_told_between_two_restarts_go_with_the_second() {
    let (mut rig, conn, _) = pair();
    rig.lose(conn);
    rig.pass(Duration::from_secs(10));
    let conn = rig.establish_graceful(1, true, &[(V4, true), (V6, true)]);
    rig.announce(conn, &[65101], neighbour(1), &["10.6.0.0/16"]);
    rig.lose(conn);
    assert_eq!(rig.known(), ["10.6.0.0/16*"]);
}

#[test]
fn an_end_that_was_meant_and_a_neighbour_that_is_gone_from_the_configuration_leave_nothing() {
    let (mut rig, conn, _) = pair();
    rig.speaker.clear(neighbour(1), Clear::Session, rig.now);
    assert_eq!(rig.known().len(), 0);
    assert!(messages(&rig.outputs(), conn).iter().any(|said| matches!(said,
        Message::Notification(told) if (told.code, told.subcode) == wire::error::HARD_RESET)));

    let changes: [fn(&mut Vec<PeerConfig>); 3] = [
        |peers| drop(peers.remove(0)),
        |peers| peers[0].shutdown = Some(String::new()),
        |peers| peers[0].import = Import::None,
    ];
    for change in changes {
        let (mut rig, conn, _) = pair();
        rig.lose(conn);
        assert_eq!(rig.known().len(), 3);
        let mut peers = vec![peer(1, Import::All, Export::None), peer(2, Import::All, Export::All)];
        change(&mut peers);
        rig.speaker.configure(peers, rig.now).unwrap();
        assert_eq!(rig.known().len(), 0);
    }
}

/// The first one's import accepts one of its routes only.
fn only_six(rig: &mut Rig) {
    let six = statement(vec![prefixes("10.6.0.0/16")], Actions::default(), Verdict::Accept);
    let import = Import::Policies(chain(vec![six]));
    let peers = vec![peer(1, import, Export::None), peer(2, Import::All, Export::All)];
    rig.speaker.configure(peers, rig.now).unwrap();
}

/// What import lets in, and whether it is marked.
fn usable(rig: &Rig) -> Vec<(IpNetwork, bool)> {
    let shown = rig.speaker.routes().into_iter().filter(|path| path.rejected.is_none());
    shown.map(|path| (path.prefix, path.stale)).collect()
}

#[test]
fn what_is_kept_of_a_neighbour_that_restarts_is_judged_by_a_new_import_policy_and_still_swept() {
    // Before it is back, and then before End-of-RIB.
    for back in [false, true] {
        let (mut rig, mut conn, _) = pair();
        rig.lose(conn);
        rig.pass(Duration::from_secs(10));
        if back {
            conn = rig.establish_graceful(1, true, &[(V4, true), (V6, true)]);
        }
        only_six(&mut rig);
        assert_eq!(routes(&rig.outputs()).len(), 2, "{back}");
        assert_eq!(usable(&rig), [(prefix("10.6.0.0/16"), true)], "{back}");
        if !back {
            conn = rig.establish_graceful(1, true, &[(V4, true), (V6, true)]);
        }
        rig.end_of_rib(conn, V4);
        rig.end_of_rib(conn, V6);
        assert_eq!(rig.known().len(), 0, "{back}");
    }
}

#[test]
fn a_new_import_policy_holds_also_where_the_session_is_lost_before_all_is_judged() {
    let (mut rig, conn, _) = pair();
    only_six(&mut rig);
    rig.lose(conn);
    assert_eq!(rig.known().len(), 3, "nothing is judged yet");
    rig.outputs();
    assert_eq!(usable(&rig), [(prefix("10.6.0.0/16"), true)]);
}

/// Two neighbours whose paths differ by their identifiers alone; that of the first one, which restarts, is the higher one.
fn tied(first: u8) -> (Rig, [ConnId; 2], [PeerConfig; 2]) {
    let peers = [1, 2].map(|number| peer(number, Import::All, Export::None));
    let mut rig = Rig::new(peers.to_vec());
    let config = SpeakerConfig { max_paths: 1, ..rig.speaker.config().clone() };
    rig.speaker.reconfigure(config, peers.to_vec(), rig.now).unwrap();
    let two = rig.establish(2);
    let one = rig.come_back_as(first);
    for conn in [two, one] {
        let number = if conn == one { 1 } else { 2 };
        rig.announce(conn, &[65100 + u32::from(number)], neighbour(number), &["10.5.0.0/16"]);
    }
    (rig, [one, two], peers)
}

impl Rig {
    fn come_back_as(&mut self, last: u8) -> ConnId {
        let conn = self.accept(neighbour(1), ourselves(1));
        let restart = GracefulRestart {
            restarted: false,
            notifications: true,
            time_secs: 60,
            families: vec![(V4, true)],
        };
        let capabilities = vec![
            Capability::Multiprotocol(V4),
            Capability::GracefulRestart(restart),
            Capability::FourOctetAs(65101),
        ];
        let router_id = Ipv4Addr::new(1, 1, 1, last);
        let open = Open { asn: 65101, hold_time_secs: 90, router_id, capabilities };
        self.hear(conn, &Message::Open(open));
        self.hear(conn, &Message::Keepalive);
        conn
    }
}

#[test]
fn who_restarts_stays_who_it_was_and_is_judged_as_another_one_once_it_comes_back_as_that() {
    let (mut rig, [one, _], [first, second]) = tied(9);
    let winner = |rig: &mut Rig| {
        rig.outputs();
        let routes = rig.speaker.routes();
        routes.into_iter().find(|path| path.best).and_then(|path| path.peer)
    };
    assert_eq!(winner(&mut rig), Some(neighbour(2)));
    rig.lose(one);
    // Another setting of it, which has nothing to do with who it is.
    let changed = PeerConfig { hold_time: Duration::from_secs(30), allow_as_in: 1, ..first };
    rig.speaker.configure(vec![changed, second], rig.now).unwrap();
    assert_eq!(winner(&mut rig), Some(neighbour(2)), "it has the higher identifier still");
    // It is back with a lower one, and has told nothing yet.
    rig.pass(Duration::from_secs(30));
    rig.come_back_as(1);
    assert_eq!(winner(&mut rig), Some(neighbour(1)));
}

#[test]
fn after_a_restart_of_ours_nothing_is_selected_before_the_neighbours_have_told_all() {
    let peers = vec![peer(1, Import::All, Export::All), peer(2, Import::All, Export::All)];
    let mut rig = Rig::new(peers);
    rig.speaker.recover(rig.now);
    rig.originate(&["203.0.113.1/32"]);
    let one = rig.establish_graceful(1, false, &[(V4, true), (V6, true)]);
    let open = messages(&rig.outputs(), one).into_iter().find_map(|message| {
        let Message::Open(open) = message else { return None };
        Some(open)
    });
    let restart = open.unwrap().capabilities.into_iter().find_map(|capability| {
        let Capability::GracefulRestart(restart) = capability else { return None };
        Some(restart)
    });
    let restart = restart.unwrap();
    assert!(restart.restarted);
    assert_eq!(restart.families, [(V4, true)]);

    let two = rig.establish_graceful(2, false, &[(V4, true)]);
    rig.announce_both(one, 1);
    rig.end_of_rib(one, V4);
    rig.end_of_rib(one, V6);
    let outputs = rig.outputs();
    assert_eq!(
        (routes(&outputs), updates(&outputs, one), updates(&outputs, two)),
        (vec![], vec![], vec![])
    );
    assert!(rig.speaker.is_deferring());
    rig.end_of_rib(two, V4);
    assert!(!rig.speaker.is_deferring());
    let outputs = rig.outputs();
    assert_eq!(routes(&outputs).len(), 3);
    assert_eq!(announced(&outputs, two).len(), 3);
    let ends = updates(&outputs, two).iter().filter(|update| update.end_of_rib.is_some()).count();
    assert_eq!(ends, 2);
}

#[test]
fn after_a_restart_of_ours_no_neighbour_hears_of_an_end_before_our_own_routes() {
    let restarted = || {
        let mut rig = Rig::new(vec![peer(1, Import::All, Export::All)]);
        rig.speaker.recover(rig.now);
        // It restarts itself, and waits for us.
        let conn = rig.establish_graceful(1, true, &[(V4, true)]);
        rig.outputs();
        (rig, conn)
    };
    let (mut rig, conn) = restarted();
    rig.pass(ABSENCE_LIMIT - Duration::from_secs(1));
    // One is known, and others may follow, until it is said that these are all.
    for number in 1..=2 {
        let come = [prefix(&format!("203.0.113.{number}/32"))];
        rig.speaker.handle(Input::ChangeOriginated { come: &come, go: &[] }, rig.now);
        assert!(updates(&rig.outputs(), conn).is_empty());
    }
    rig.speaker.handle(Input::OriginatesAll, rig.now);
    let outputs = rig.outputs();
    assert_eq!(announced(&outputs, conn).len(), 2);
    let told = updates(&outputs, conn);
    assert!(told.last().unwrap().end_of_rib.is_some() && told.len() > 1, "{told:?}");

    // It may be said before the kernel's routes are read.
    let mut early = Rig::new(vec![peer(1, Import::None, Export::All)]);
    early.speaker.handle(Input::OriginatesAll, early.now);
    early.speaker.recover(early.now);
    assert!(!early.speaker.is_deferring());

    let (mut rig, conn) = restarted();
    rig.pass(ABSENCE_LIMIT);
    let told = updates(&rig.outputs(), conn);
    assert!(told.iter().all(|update| update.end_of_rib.is_some()) && !told.is_empty(), "none came");
}

#[test]
fn after_a_restart_of_ours_nobody_waits_longer_than_the_bounds() {
    // A neighbour that never comes; one that restarts too, or knows no graceful restart; one that never ends.
    let rig = |import| {
        let mut rig = Rig::new(vec![peer(1, import, Export::All)]);
        rig.speaker.recover(rig.now);
        rig.originate(&["203.0.113.1/32"]);
        rig
    };
    let mut absent = rig(Import::All);
    absent.pass(ABSENCE_LIMIT - Duration::from_secs(1));
    assert!(absent.speaker.is_deferring());
    absent.pass(Duration::from_secs(1));
    assert!(!absent.speaker.is_deferring());

    assert!(!rig(Import::None).speaker.is_deferring(), "nothing is to come");
    let mut plain = rig(Import::All);
    plain.establish(1);
    assert!(!plain.speaker.is_deferring());
    let mut restarting = rig(Import::All);
    restarting.establish_graceful(1, true, &[(V4, true)]);
    assert!(!restarting.speaker.is_deferring());

    let mut endless = rig(Import::All);
    endless.establish_graceful(1, false, &[(V4, true)]);
    endless.pass(DEFERRAL_LIMIT - Duration::from_secs(1));
    assert!(endless.speaker.is_deferring());
    endless.pass(Duration::from_secs(1));
    assert!(!endless.speaker.is_deferring());
}

#[test]
fn end_of_rib_waits_while_next_hops_are_being_resolved() {
    let mut rig = Rig::new(vec![peer(1, Import::All, Export::All)]);
    rig.speaker.set_resolving(true);
    let conn = rig.establish(1);
    let ends = |outputs: &[Output]| {
        let updates = updates(outputs, conn);
        updates.iter().filter(|update| update.end_of_rib.is_some()).count()
    };
    assert_eq!(ends(&rig.outputs()), 0);
    rig.speaker.set_resolving(false);
    assert_eq!(ends(&rig.outputs()), 2, "one of each family");
    assert_eq!(ends(&rig.outputs()), 0, "once");
}
