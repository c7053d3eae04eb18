mod collision;
mod delay;
mod graceful;
mod table;
mod timing;

use super::*;

pub(super) const CONN: ConnId = ConnId(1);
pub(super) const RIVAL: ConnId = ConnId(2);
pub(super) const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(super) const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub(super) const OUR_AS: u32 = 65001;
pub(super) const THEIR_AS: u32 = 65002;

pub(super) fn local() -> SpeakerConfig {
    SpeakerConfig { max_paths: 8, ..SpeakerConfig::new(OUR_AS, OURS) }
}

pub(super) fn peer() -> PeerConfig {
    PeerConfig {
        connect_retry: Duration::from_secs(120),
        import: crate::config::Import::All,
        export: crate::config::Export::All,
        ..PeerConfig::new(THEIRS.into(), THEIR_AS)
    }
}

pub(super) fn their_open() -> wire::Open {
    let config = SpeakerConfig { max_paths: 8, ..SpeakerConfig::new(THEIR_AS, THEIRS) };
    open::ours(&config, &PeerConfig { restart_time: None, ..peer() }, Past::default(), None)
}

pub(super) fn bytes(message: &Message) -> Vec<u8> {
    wire::encode(message, wire::Context { four_octet_as: true, external: true })
}

/// A session and what came out of it, in words.
pub(super) struct Bench {
    pub(super) session: Session,
    pub(super) now: Instant,
    pub(super) effects: Vec<Effect>,
}

impl Bench {
    pub(super) fn with(local: SpeakerConfig, peer: PeerConfig) -> Self {
        let now = Instant::now();
        Self { session: Session::new(local, peer, 1, now), now, effects: Vec::new() }
    }

    pub(super) fn new() -> Self {
        Self::with(local(), peer())
    }

    /// A session in a state, reached the ordinary way over `CONN`, which we opened.
    pub(super) fn in_state(state: State) -> Self {
        let mut bench = Self::new();
        if state >= State::Connect {
            bench.start();
        }
        if state == State::Active {
            bench.session.connect_failed("refused", bench.now, &mut bench.effects);
        }
        if state >= State::OpenSent {
            bench.connect(CONN);
        }
        if state >= State::OpenConfirm {
            bench.hear(CONN, &Message::Open(their_open()));
        }
        if state == State::Established {
            bench.hear(CONN, &Message::Keepalive);
        }
        assert_eq!(bench.session.state(), state);
        bench.effects.clear();
        bench
    }

    pub(super) fn start(&mut self) {
        self.session.start(self.now, &mut self.effects);
    }

    pub(super) fn connect(&mut self, conn: ConnId) {
        self.session.connected(conn, OURS.into(), self.now, &mut self.effects);
    }

    pub(super) fn accept(&mut self, conn: ConnId) {
        self.session.accepted(conn, OURS.into(), self.now, &mut self.effects);
    }

    pub(super) fn hear(&mut self, conn: ConnId, message: &Message) {
        self.hear_bytes(conn, &bytes(message));
    }

    pub(super) fn hear_bytes(&mut self, conn: ConnId, bytes: &[u8]) {
        self.session.received(conn, bytes, self.now, &mut self.effects);
    }

    /// Time passes to the session's next timer.
    pub(super) fn expire(&mut self) {
        self.now = self.session.next_timeout().expect("a timer runs");
        self.session.tick(self.now, &mut self.effects);
    }

    /// What came out since the last call; state events are left out.
    pub(super) fn said(&mut self) -> Vec<String> {
        self.effects.drain(..).filter_map(|effect| words(&effect)).collect()
    }
}

fn words(effect: &Effect) -> Option<String> {
    let output = match effect {
        Effect::Output(output) => output,
        Effect::Up(up) => return Some(format!("up {}", up.conn.0)),
        Effect::Down(None) => return Some("down".into()),
        Effect::Down(Some(kept)) => {
            return Some(format!("down, kept {} s", kept.time.as_secs()));
        }
        Effect::Update(_) => return Some("routes".into()),
        Effect::Refresh(_) => return Some("refresh".into()),
        Effect::RefreshBegins(_) => return Some("refresh begins".into()),
        Effect::RefreshEnds(_) => return Some("refresh ends".into()),
    };
    Some(match output {
        Output::Connect { .. } => "connect".into(),
        Output::AbortConnect { .. } => "abort".into(),
        Output::Send { conn, bytes } => format!("{} to {}", message_words(bytes), conn.0),
        Output::Close { conn } => format!("close {}", conn.0),
        Output::Event(Event::State { .. }) => return None,
        Output::Event(_)
        | Output::Routes(_)
        | Output::NextHop { .. }
        | Output::Leading { .. }
        | Output::Busy => {
            format!("{output:?}")
        }
    })
}

fn message_words(bytes: &[u8]) -> String {
    let context = wire::Context { four_octet_as: true, external: true };
    match wire::decode(bytes, context).expect("what we send is valid") {
        Message::Open(_) => "OPEN".into(),
        Message::Update(_) => "UPDATE".into(),
        Message::Keepalive => "KEEPALIVE".into(),
        Message::RouteRefresh(_) | Message::RefreshMark(..) => "ROUTE-REFRESH".into(),
        Message::Notification(Notification { code, subcode, data }) => {
            format!("NOTIFICATION {code}/{subcode} {data:?}")
        }
    }
}
