//! Two connections to one neighbour (RFC 4271 §6.8).

use std::collections::VecDeque;

use super::*;

#[test]
fn the_connection_of_the_higher_identifier_survives() {
    // Ours is lower: the neighbour's connection wins, whichever OPEN comes first.
    for first in [CONN, RIVAL] {
        let mut bench = Bench::in_state(State::OpenSent);
        bench.accept(RIVAL);
        bench.hear(first, &Message::Open(their_open()));
        bench.said();
        let second = if first == CONN { RIVAL } else { CONN };
        bench.hear(second, &Message::Open(their_open()));
        let said = bench.said();
        assert!(said.contains(&"NOTIFICATION 6/7 [] to 1".to_owned()), "{said:?}");
        assert!(said.contains(&"close 1".to_owned()), "{said:?}");
        bench.hear(RIVAL, &Message::Keepalive);
        assert_eq!(bench.said(), ["up 2"]);
    }
}

#[test]
fn a_confirmed_loser_waits_for_the_winner_only_so_long() {
    let mut bench = Bench::in_state(State::OpenConfirm);
    bench.accept(RIVAL);
    bench.hear(CONN, &Message::Keepalive);
    assert_eq!(bench.session.state(), State::OpenConfirm);
    let start = bench.now;
    bench.said();
    bench.expire();
    assert_eq!(bench.now - start, COLLISION_WAIT);
    assert_eq!(bench.said(), ["NOTIFICATION 4/0 [] to 2", "close 2", "up 1"]);
}

#[test]
fn a_loser_says_no_keepalive_while_the_winner_may_come() {
    let waiting = || {
        let mut bench = Bench::in_state(State::OpenSent);
        bench.accept(RIVAL);
        bench.said();
        bench.hear(CONN, &Message::Open(their_open()));
        assert_eq!(bench.said(), [""; 0]);
        bench
    };
    // It comes.
    let mut bench = waiting();
    bench.hear(RIVAL, &Message::Open(their_open()));
    assert_eq!(bench.said(), ["NOTIFICATION 6/7 [] to 1", "close 1", "KEEPALIVE to 2"]);
    // It goes, before and after the neighbour's KEEPALIVE on the other one.
    for confirmed in [false, true] {
        let mut bench = waiting();
        if confirmed {
            bench.hear(CONN, &Message::Keepalive);
            assert_eq!(bench.said(), [""; 0]);
        }
        bench.session.closed(RIVAL, "end of file", bench.now, &mut bench.effects);
        let up = if confirmed { &["KEEPALIVE to 1", "up 1"][..] } else { &["KEEPALIVE to 1"] };
        assert_eq!(bench.said(), up);
    }
    // Nobody waits for long, however often the neighbour connects.
    let mut bench = waiting();
    let start = bench.now;
    bench.now += COLLISION_WAIT / 2;
    bench.accept(ConnId(3));
    bench.said();
    bench.expire();
    assert_eq!(bench.now - start, COLLISION_WAIT * 3 / 2);
    assert_eq!(bench.said(), ["NOTIFICATION 4/0 [] to 3", "close 3", "KEEPALIVE to 1"]);
}

#[test]
fn a_loser_keeps_its_connection_alive_while_it_waits() {
    let mut bench = Bench::in_state(State::OpenSent);
    bench.accept(RIVAL);
    bench.said();
    bench.hear(CONN, &Message::Open(wire::Open { hold_time_secs: 6, ..their_open() }));
    assert_eq!(bench.said(), [""; 0]);
    let start = bench.now;
    bench.expire();
    assert!(bench.now - start <= Duration::from_secs(2));
    assert_eq!(bench.said(), ["KEEPALIVE to 1"]);
    // From here on the neighbour may use it: which one it closes is not the session.
    bench.hear(RIVAL, &Message::Open(their_open()));
    assert_eq!(bench.said(), [""; 0]);
    bench.session.closed(CONN, "end of file", bench.now, &mut bench.effects);
    assert_eq!(bench.said(), ["KEEPALIVE to 2"]);
}

#[test]
fn a_connect_that_was_given_up_is_begun_again_when_the_connection_that_was_to_stay_is_gone() {
    let waiting = || {
        let mut bench = Bench::in_state(State::Connect);
        bench.accept(RIVAL);
        bench.hear(RIVAL, &Message::Open(their_open()));
        assert_eq!(bench.said(), ["OPEN to 2", "KEEPALIVE to 2", "abort"]);
        bench
    };
    let mut bench = waiting();
    bench.session.closed(RIVAL, "reset", bench.now, &mut bench.effects);
    assert_eq!(bench.said(), ["connect"]);
    let mut bench = waiting();
    let cease = Notification::new(error::CONNECTION_COLLISION_RESOLUTION);
    bench.hear(RIVAL, &Message::Notification(cease));
    assert_eq!(bench.said(), ["close 2", "connect"]);
    // Not where the neighbour refuses us, nor once it was a session.
    let mut bench = waiting();
    bench.hear(RIVAL, &Message::Notification(Notification::new(error::OUT_OF_RESOURCES)));
    assert_eq!((bench.said(), bench.session.state()), (vec!["close 2".to_owned()], State::Idle));
    let mut bench = waiting();
    bench.hear(RIVAL, &Message::Keepalive);
    bench.session.closed(RIVAL, "reset", bench.now, &mut bench.effects);
    assert_eq!(bench.session.state(), State::Idle);
}

#[test]
fn a_neighbour_that_does_not_decide_between_two_connections_loses_the_later_one() {
    let mut bench = Bench::in_state(State::OpenConfirm);
    bench.accept(RIVAL);
    bench.hear(RIVAL, &Message::Open(their_open()));
    assert_eq!(bench.said(), ["OPEN to 2"]);
    bench.hear(CONN, &Message::Keepalive);
    assert_eq!(bench.said(), [""; 0]);
    let start = bench.now;
    bench.expire();
    assert_eq!(bench.now - start, COLLISION_WAIT);
    assert_eq!(bench.said(), ["NOTIFICATION 4/0 [] to 2", "close 2", "up 1"]);
}

#[test]
fn a_confirmed_loser_is_used_at_once_when_the_neighbour_uses_it() {
    let mut bench = Bench::in_state(State::OpenConfirm);
    bench.accept(RIVAL);
    bench.hear(CONN, &Message::Keepalive);
    bench.said();
    bench.hear_bytes(CONN, &wire::encode_end_of_rib(Family::IPV4_UNICAST));
    assert_eq!(bench.said(), ["NOTIFICATION 6/7 [] to 2", "close 2", "up 1", "routes"]);
}

#[test]
fn a_neighbour_that_opens_many_connections_has_at_most_one_of_them() {
    let mut bench = Bench::in_state(State::OpenSent);
    let mut open = 0_i32;
    for conn in 100..300 {
        bench.accept(ConnId(conn));
        for said in bench.said() {
            open += i32::from(said.starts_with("OPEN"));
            open -= i32::from(said.starts_with("close"));
        }
        assert!(open <= 1, "{open} connections are open");
    }
    // Once one of them is in use, further ones are refused.
    bench.hear(ConnId(299), &Message::Open(their_open()));
    bench.said();
    bench.accept(ConnId(300));
    assert_eq!(bench.said(), ["NOTIFICATION 6/5 [] to 300", "close 300"]);
}

impl Bench {
    /// Before every other timer, the neighbour's HoldTimer among them.
    fn is_keepalive_next(&self) -> bool {
        let session = &self.session;
        let links = Side::BOTH.map(|side| session.link(side).and_then(|link| link.keepalive_at));
        links.into_iter().flatten().min().is_some_and(|at| session.next_timeout() == Some(at))
    }
}

/// One end of a pair, and what is on its way to it, per connection and in order.
struct End {
    bench: Bench,
    /// Whether our connect was answered.
    dialled: bool,
    inbound: [VecDeque<Parcel>; 2],
}

#[derive(Clone, Debug)]
enum Parcel {
    Connected,
    Accepted,
    Bytes(Vec<u8>),
    Closed,
}

/// Connection 0 is the one that end 0 opened.
fn conn(connection: usize) -> ConnId {
    ConnId(connection as u64)
}

struct Pair {
    ends: [End; 2],
    random: Jitter,
    /// How often a KeepaliveTimer may fire before what is on its way has come.
    timers: u8,
}

impl Pair {
    fn new(ids: [Ipv4Addr; 2], seed: u64) -> Self {
        let end = |us: usize| {
            let asns = [65001, 65002];
            let local = SpeakerConfig { max_paths: 1, ..SpeakerConfig::new(asns[us], ids[us]) };
            let hold_time = Duration::from_secs(6);
            let peer = PeerConfig { asn: asns[1 - us], hold_time, ..peer() };
            let mut bench = Bench::with(local, peer);
            bench.start();
            End { bench, dialled: false, inbound: [VecDeque::new(), VecDeque::new()] }
        };
        Self { ends: [end(0), end(1)], random: Jitter::new(seed), timers: 0 }
    }

    /// Carries what came out of one end towards the other.
    fn post(&mut self, from: usize) {
        let effects = std::mem::take(&mut self.ends[from].bench.effects);
        for effect in effects {
            match effect {
                Effect::Output(Output::Send { conn, bytes }) => {
                    let lane = usize::try_from(conn.0).unwrap();
                    self.ends[1 - from].inbound[lane].push_back(Parcel::Bytes(bytes.to_vec()));
                }
                Effect::Output(Output::Close { conn }) => {
                    let lane = usize::try_from(conn.0).unwrap();
                    self.ends[1 - from].inbound[lane].push_back(Parcel::Closed);
                }
                Effect::Output(Output::AbortConnect { .. }) => {
                    // The other end may have accepted it already.
                    self.ends[from].inbound[from].clear();
                    if self.ends[from].dialled {
                        self.ends[1 - from].inbound[from].push_back(Parcel::Closed);
                    }
                }
                Effect::Output(_) | Effect::Up(_) | Effect::Down(_) => {}
                Effect::Update(_) | Effect::Refresh(_) => {}
                Effect::RefreshBegins(_) | Effect::RefreshEnds(_) => {}
            }
        }
    }

    /// Everything that may happen next: a connect reaches the other host, or a parcel arrives.
    fn choices(&self) -> Vec<(usize, usize)> {
        let dial = (0..2).filter(|&us| !self.ends[us].dialled && self.wants_to_connect(us));
        let dial = dial.map(|us| (us, 2));
        let arrive = (0..2).flat_map(|us| [(us, 0), (us, 1)]);
        let arrive = arrive.filter(|&(us, lane)| !self.ends[us].inbound[lane].is_empty());
        let timer = self
            .next_timer()
            .filter(|&us| self.timers > 0 && self.ends[us].bench.is_keepalive_next());
        dial.chain(arrive).chain(timer.map(|us| (us, 3))).collect()
    }

    /// Whose timer is next.
    fn next_timer(&self) -> Option<usize> {
        let timeout = |us: usize| Some((self.ends[us].bench.session.next_timeout()?, us));
        (0..2).filter_map(timeout).min().map(|(_, us)| us)
    }

    fn expire(&mut self, us: usize) {
        self.ends[us].bench.expire();
        self.ends[1 - us].bench.now = self.ends[us].bench.now;
        self.post(us);
    }

    fn wants_to_connect(&self, us: usize) -> bool {
        matches!(self.ends[us].bench.session.dialer, Dialer::Connect { .. })
    }

    fn step(&mut self, (us, lane): (usize, usize)) {
        if lane == 3 {
            self.timers -= 1;
            return self.expire(us);
        }
        if lane == 2 {
            self.ends[us].dialled = true;
            self.ends[us].inbound[us].push_back(Parcel::Connected);
            self.ends[1 - us].inbound[us].push_back(Parcel::Accepted);
            return;
        }
        let parcel = self.ends[us].inbound[lane].pop_front().expect("chosen because it is there");
        let End { bench, .. } = &mut self.ends[us];
        match parcel {
            Parcel::Connected => bench.connect(conn(lane)),
            Parcel::Accepted => bench.accept(conn(lane)),
            Parcel::Bytes(bytes) => bench.hear_bytes(conn(lane), &bytes),
            Parcel::Closed => {
                bench.session.closed(conn(lane), "end of file", bench.now, &mut bench.effects);
            }
        }
        self.post(us);
    }

    fn run(&mut self) {
        loop {
            let choices = self.choices();
            if choices.is_empty() {
                return;
            }
            let pick = self.random.next() as usize % choices.len();
            self.step(choices[pick]);
        }
    }
}

#[test]
fn a_collision_ends_in_exactly_one_session_also_where_keepalive_timers_fire_meanwhile() {
    let ids = [Ipv4Addr::new(1, 1, 1, 1), Ipv4Addr::new(2, 2, 2, 2)];
    for seed in 0..5000 {
        let mut pair = Pair::new(ids, seed);
        pair.timers = 2;
        pair.run();
        // Where each leaves it to the other one, the time for that ends.
        let mut left = 30;
        while pair.ends.iter().any(|end| end.bench.session.state() != State::Established) {
            assert!(left > 0, "seed {seed}");
            left -= 1;
            let us = pair.next_timer().expect("a timer runs");
            pair.expire(us);
            pair.run();
        }
        let used = pair.ends.each_ref().map(|end| {
            let session = &end.bench.session;
            Side::BOTH
                .map(|side| session.link(side).map(|link| link.conn))
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
        });
        assert_eq!((used[0].len(), &used[0]), (1, &used[1]), "seed {seed}");
    }
}

#[test]
fn a_collision_ends_in_exactly_one_session_in_every_order_of_events() {
    let ids = [Ipv4Addr::new(1, 1, 1, 1), Ipv4Addr::new(2, 2, 2, 2)];
    for seed in 0..5000 {
        let twins = [ids[0], ids[0]];
        for ids in [ids, [ids[1], ids[0]], twins] {
            let mut pair = Pair::new(ids, seed);
            pair.run();
            let used = pair.ends.each_ref().map(|end| {
                let session = &end.bench.session;
                assert_eq!(session.state(), State::Established, "seed {seed}, {ids:?}");
                let links = Side::BOTH.map(|side| session.link(side).map(|link| link.conn));
                links.into_iter().flatten().collect::<Vec<_>>()
            });
            assert_eq!(used[0].len(), 1, "seed {seed}, {ids:?}");
            assert_eq!(used[0], used[1], "seed {seed}, {ids:?}");
        }
    }
}

/// A neighbour by the letter of RFC 4271 §6.8, as BIRD and FRR are: a KEEPALIVE leads to Established whatever else there is,
/// and a connection whose OPEN comes then is closed, whoever would win.
struct Literal {
    id: Ipv4Addr,
    asn: u32,
    /// It looks for a connection.
    dials: bool,
    dialled: bool,
    links: [Option<State>; 2],
    inbound: [VecDeque<Parcel>; 2],
}

/// We, whose connection is 0, and such a neighbour.
struct Duel {
    us: End,
    them: Literal,
    random: Jitter,
    /// How often our KeepaliveTimer may fire.
    timers: u8,
}

impl Duel {
    fn new(higher: bool, seed: u64) -> Self {
        let ids = [Ipv4Addr::new(1, 1, 1, 1), Ipv4Addr::new(2, 2, 2, 2)];
        let (ours, theirs) = if higher { (ids[0], ids[1]) } else { (ids[1], ids[0]) };
        let mut pair = Pair::new([ours, theirs], seed);
        let [us, _] = &mut pair.ends;
        let dialled = us.dialled;
        let inbound = || [VecDeque::new(), VecDeque::new()];
        let bench = std::mem::replace(&mut us.bench, Bench::new());
        Self {
            us: End { bench, dialled, inbound: inbound() },
            them: Literal {
                id: theirs,
                asn: 65002,
                dials: true,
                dialled: false,
                links: [None; 2],
                inbound: inbound(),
            },
            random: pair.random,
            timers: 2,
        }
    }

    /// Carries what came out of us.
    fn post(&mut self) {
        for effect in std::mem::take(&mut self.us.bench.effects) {
            let lane = |conn: ConnId| usize::try_from(conn.0).unwrap();
            match effect {
                Effect::Output(Output::Send { conn, bytes }) => {
                    self.them.inbound[lane(conn)].push_back(Parcel::Bytes(bytes.to_vec()));
                }
                Effect::Output(Output::Close { conn }) => {
                    self.them.inbound[lane(conn)].push_back(Parcel::Closed);
                }
                Effect::Output(Output::AbortConnect { .. }) => {
                    self.us.inbound[0].clear();
                    if self.us.dialled {
                        self.them.inbound[0].push_back(Parcel::Closed);
                    }
                }
                Effect::Output(_) | Effect::Up(_) | Effect::Down(_) => {}
                Effect::Update(_) | Effect::Refresh(_) => {}
                Effect::RefreshBegins(_) | Effect::RefreshEnds(_) => {}
            }
        }
    }

    fn say(&mut self, lane: usize, message: &Message) {
        self.us.inbound[lane].push_back(Parcel::Bytes(bytes(message)));
    }

    fn hang_up(&mut self, lane: usize) {
        let cease = Notification::new(error::CONNECTION_COLLISION_RESOLUTION);
        self.say(lane, &Message::Notification(cease));
        self.us.inbound[lane].push_back(Parcel::Closed);
        self.them.links[lane] = None;
    }

    fn choices(&self) -> Vec<(usize, usize)> {
        let ours = matches!(self.us.bench.session.dialer, Dialer::Connect { .. });
        let dial = [(0, ours && !self.us.dialled), (1, self.them.dials && !self.them.dialled)];
        let dial = dial.into_iter().filter(|(_, may)| *may).map(|(who, _)| (who, 2));
        let inbound = [&self.us.inbound, &self.them.inbound];
        let arrive = [(0, 0), (0, 1), (1, 0), (1, 1)];
        let arrive = arrive.into_iter().filter(|&(who, lane)| !inbound[who][lane].is_empty());
        let timer = (self.timers > 0 && self.us.bench.is_keepalive_next()).then_some((0, 3));
        dial.chain(arrive).chain(timer).collect()
    }

    fn step(&mut self, choice: (usize, usize)) {
        match choice {
            (0, 2) => {
                self.us.dialled = true;
                self.us.inbound[0].push_back(Parcel::Connected);
                self.them.inbound[0].push_back(Parcel::Accepted);
            }
            (_, 2) => {
                self.them.dialled = true;
                self.them.inbound[1].push_back(Parcel::Connected);
                self.us.inbound[1].push_back(Parcel::Accepted);
            }
            (0, 3) => {
                self.timers -= 1;
                self.us.bench.expire();
                self.post();
            }
            (0, lane) => {
                let parcel = self.us.inbound[lane].pop_front().expect("it is there");
                let bench = &mut self.us.bench;
                match parcel {
                    Parcel::Connected => bench.connect(conn(lane)),
                    Parcel::Accepted => bench.accept(conn(lane)),
                    Parcel::Bytes(bytes) => bench.hear_bytes(conn(lane), &bytes),
                    Parcel::Closed => {
                        let (now, out) = (bench.now, &mut bench.effects);
                        bench.session.closed(conn(lane), "end of file", now, out);
                    }
                }
                self.post();
            }
            (_, lane) => {
                let parcel = self.them.inbound[lane].pop_front().expect("it is there");
                self.they_hear(lane, parcel);
            }
        }
    }

    fn they_hear(&mut self, lane: usize, parcel: Parcel) {
        let other = 1 - lane;
        match parcel {
            Parcel::Connected | Parcel::Accepted => {
                if self.them.links[other] == Some(State::Established) {
                    return self.hang_up(lane);
                }
                self.them.links[lane] = Some(State::OpenSent);
                let (router_id, asn) = (self.them.id, self.them.asn);
                let open = wire::Open { router_id, asn, hold_time_secs: 6, ..their_open() };
                self.say(lane, &Message::Open(open));
            }
            Parcel::Closed => self.them.links[lane] = None,
            Parcel::Bytes(bytes) => {
                let context = wire::Context { four_octet_as: true, external: true };
                match (self.them.links[lane], wire::decode(&bytes, context).unwrap()) {
                    (Some(State::OpenSent), Message::Open(ours)) => self.they_open(lane, &ours),
                    (Some(State::OpenConfirm), Message::Keepalive) => {
                        self.them.links[lane] = Some(State::Established);
                    }
                    (Some(_), Message::Notification(_)) => self.them.links[lane] = None,
                    (_, _) => {}
                }
            }
        }
    }

    fn they_stop_dialling(&mut self) {
        if std::mem::take(&mut self.them.dials) && self.them.dialled {
            self.them.inbound[1].clear();
            self.us.inbound[1].push_back(Parcel::Closed);
        }
    }

    fn they_open(&mut self, lane: usize, ours: &wire::Open) {
        let other = 1 - lane;
        let wins = (self.them.id > ours.router_id) == (lane == 1);
        match self.them.links[other] {
            Some(State::OpenConfirm) if wins => self.hang_up(other),
            Some(State::OpenConfirm | State::Established) => return self.hang_up(lane),
            Some(_) => {}
            None if lane == 0 => self.they_stop_dialling(),
            None => {}
        }
        self.them.links[lane] = Some(State::OpenConfirm);
        self.say(lane, &Message::Keepalive);
    }
}

#[test]
fn a_neighbour_by_the_letter_of_the_rfc_keeps_what_we_keep() {
    let mut neither = [0; 2];
    for seed in 0..5000 {
        for higher in [true, false] {
            let mut duel = Duel::new(higher, seed);
            loop {
                let choices = duel.choices();
                if choices.is_empty() {
                    break;
                }
                let pick = duel.random.next() as usize % choices.len();
                duel.step(choices[pick]);
            }
            let session = &duel.us.bench.session;
            let used = duel.them.links.map(|link| link == Some(State::Established));
            let ours = Side::BOTH.map(|side| session.link(side).is_some());
            if session.state() == State::Established {
                assert_eq!(used, ours, "seed {seed}, {higher}");
            } else {
                neither[usize::from(higher)] += 1;
            }
        }
    }
    assert_eq!(neither, [0, 0], "of 5000, where it is the lower and the higher one");
}
