//! A neighbour may do anything at any time: the speaker comes to rest after each of its doings, writes only messages that
//! can be read, to it and to the neighbour that hears of its routes, and that other session never ends.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::framed;
use crate::config::{Export, Import, PeerConfig, SpeakerConfig};
use crate::speaker::{ConnId, Input, Output, Seeds, Speaker};
use crate::wire::{
    Capability, Context, Family, Framer, GracefulRestart, MAX_MESSAGE_LEN, Message, Open, decode,
    encode,
};

const US: u32 = 65001;
const WILD_AS: u32 = 65100;
/// The neighbour that does anything.
const WILD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 2));
/// The neighbour that behaves, and hears of the routes of the other one.
const TAME: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2));
const OURSELVES: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
/// The tame neighbour's connection.
const TAME_CONN: ConnId = ConnId(1);
/// Outputs after one input at most: more is a loop.
const MAX_OUTPUTS: usize = 10_000;
/// A step of time; shorter than a third of the tame neighbour's hold time.
const STEP: Duration = Duration::from_secs(20);
const CONTEXT: Context = Context { four_octet_as: true, external: true };

/// Reads the bytes as doings of a neighbour, from `now` on.
pub fn session(bytes: &[u8], now: Instant) {
    let mut play = Play::new(now);
    let mut script = Script(bytes);
    while let Some(doing) = script.octet() {
        play.act(doing, &mut script);
    }
}

/// What is left of the bytes.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn octet(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// As many bytes as the next two say, or all that are left.
    fn bytes(&mut self) -> &'a [u8] {
        let len = [self.octet(), self.octet()].map(Option::unwrap_or_default);
        let len = usize::from(u16::from_be_bytes(len)) % MAX_MESSAGE_LEN;
        let (now, later) = self.0.split_at(len.min(self.0.len()));
        self.0 = later;
        now
    }
}

struct Play {
    speaker: Speaker,
    now: Instant,
    /// Connections that are open, and what the speaker has written to each.
    open: BTreeMap<ConnId, Framer>,
    last: u64,
}

impl Play {
    fn new(now: Instant) -> Self {
        let config =
            SpeakerConfig { max_paths: 4, ..SpeakerConfig::new(US, Ipv4Addr::new(10, 0, 0, 1)) };
        let peers = [WILD, TAME].map(|address| PeerConfig {
            passive: address == TAME,
            connect_retry: Duration::from_secs(120),
            import: Import::All,
            export: Export::All,
            next_hop_self: true,
            ..PeerConfig::new(address, if address == WILD { WILD_AS } else { 65200 })
        });
        let speaker =
            Speaker::new(config, peers.to_vec(), Seeds::of(1), now).expect("the peers are valid");
        let mut play = Self { speaker, now, open: BTreeMap::new(), last: TAME_CONN.0 };
        play.open.insert(TAME_CONN, Framer::new());
        play.give(Input::Accepted { peer: TAME, conn: TAME_CONN, local: OURSELVES });
        play.tell(TAME_CONN, &open(65200, 2));
        play.tell(TAME_CONN, &Message::Keepalive);
        play
    }

    fn act(&mut self, doing: u8, script: &mut Script<'_>) {
        // The high bits choose among the wild neighbour's connections.
        let wild = self.open.keys().copied().filter(|conn| *conn != TAME_CONN);
        let wild: Vec<ConnId> = wild.collect();
        let conn = wild.get(usize::from(doing >> 4) % wild.len().max(1)).copied();
        match (doing % 8, conn) {
            (0, _) => self.accept(),
            (1, Some(conn)) => self.tell(conn, &open(WILD_AS, 1)),
            (2, Some(conn)) => self.tell(conn, &Message::Keepalive),
            (3, Some(conn)) => self.hear(conn, &framed(2, script.bytes())),
            (4, Some(conn)) => self.hear(conn, &framed(doing >> 4, script.bytes())),
            (5, Some(conn)) => self.hear(conn, script.bytes()),
            (6, Some(conn)) => {
                self.open.remove(&conn);
                self.give(Input::Closed { conn, error: "end of file".into() });
            }
            (_, _) => self.wait(),
        }
    }

    fn accept(&mut self) {
        self.last += 1;
        let conn = ConnId(self.last);
        self.open.insert(conn, Framer::new());
        self.give(Input::Accepted { peer: WILD, conn, local: OURSELVES });
    }

    fn tell(&mut self, conn: ConnId, message: &Message) {
        self.hear(conn, &encode(message, CONTEXT));
    }

    fn hear(&mut self, conn: ConnId, bytes: &[u8]) {
        self.give(Input::Received { conn, bytes });
    }

    /// Time passes; the tame neighbour goes on living.
    fn wait(&mut self) {
        self.tell(TAME_CONN, &Message::Keepalive);
        let until = self.now + STEP;
        for _ in 0..MAX_OUTPUTS {
            let Some(due) = self.speaker.poll_timeout() else { break };
            if due > until {
                break;
            }
            self.now = self.now.max(due);
            self.give(Input::Tick);
        }
        self.now = until;
        self.give(Input::Tick);
    }

    fn give(&mut self, input: Input<'_>) {
        self.speaker.handle(input, self.now);
        for _ in 0..MAX_OUTPUTS {
            let Some(output) = self.speaker.poll_output() else { return };
            self.carry_out(output);
        }
        panic!("the speaker does not come to rest");
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Send { conn, bytes } => {
                let framer = self.open.get_mut(&conn).expect("it writes to open connections");
                framer.push(&bytes);
                while let Some(message) = framer.next_message().expect("it writes whole messages") {
                    // What the wild one negotiated, nobody here knows.
                    if conn == TAME_CONN {
                        decode(message, CONTEXT).expect("it writes what can be read");
                    }
                }
            }
            Output::Close { conn } => {
                assert_ne!(conn, TAME_CONN, "who behaves is never cut off");
                self.open.remove(&conn).expect("it closes open connections, once");
            }
            Output::Connect { .. }
            | Output::AbortConnect { .. }
            | Output::Routes(_)
            | Output::Event(_)
            | Output::NextHop { .. }
            | Output::Leading { .. }
            | Output::Busy => {}
        }
    }
}

/// The wild one has every extension.
fn open(asn: u32, id: u8) -> Message {
    let families = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];
    let mut capabilities: Vec<_> = families.map(Capability::Multiprotocol).into();
    capabilities.extend([Capability::RouteRefresh, Capability::FourOctetAs(asn)]);
    if asn == WILD_AS {
        capabilities.extend([
            Capability::EnhancedRouteRefresh,
            Capability::ExtendedMessage,
            Capability::ExtendedNextHop(vec![(Family::IPV4_UNICAST, 2)]),
            Capability::GracefulRestart(GracefulRestart {
                restarted: false,
                notifications: true,
                time_secs: 30,
                families: families.map(|family| (family, true)).into(),
            }),
        ]);
    }
    let router_id = Ipv4Addr::new(1, 1, 1, id);
    Message::Open(Open { asn, hold_time_secs: 90, router_id, capabilities })
}
