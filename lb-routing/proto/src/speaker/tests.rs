mod add_path;
mod configure;
mod dynamic;
mod errors;
mod extensions;
mod graceful;
mod limit;
mod next_hops;
mod policies;
mod reflection;
mod routes;
mod seeing;

use std::time::Duration;

use ipnetwork::IpNetwork;

use super::*;
use crate::config::{Export, Import};
use crate::fib::Install;
use crate::wire::{
    self, AsPath, Attributes, Capability, Context, Family, Message, Notification, Open, Segment,
    Update,
};

const US: u32 = 65001;
const CONTEXT: Context = Context { four_octet_as: true, external: true };

fn neighbour(number: u8) -> IpAddr {
    IpAddr::from([10, 0, number, 2])
}

fn ourselves(number: u8) -> IpAddr {
    IpAddr::from([10, 0, number, 1])
}

/// Neighbour `number` has AS 65100 + `number`.
fn peer(number: u8, import: Import, export: Export) -> PeerConfig {
    PeerConfig {
        passive: true,
        connect_retry: Duration::from_secs(120),
        import,
        export,
        ..PeerConfig::new(neighbour(number), 65100 + u32::from(number))
    }
}

/// A speaker whose neighbours are played by hand.
struct Rig {
    speaker: Speaker,
    now: Instant,
    next_conn: u64,
}

impl Rig {
    fn new(peers: Vec<PeerConfig>) -> Self {
        let now = Instant::now();
        let config =
            SpeakerConfig { max_paths: 4, ..SpeakerConfig::new(US, Ipv4Addr::new(10, 0, 0, 1)) };
        let speaker = Speaker::new(config, peers, Seeds::of(1), now).unwrap();
        Self { speaker, now, next_conn: 1 }
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.speaker.poll_output()).collect()
    }

    fn accept(&mut self, peer: IpAddr, local: IpAddr) -> ConnId {
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        self.speaker.handle(Input::Accepted { peer, conn, local }, self.now);
        conn
    }

    fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        self.speaker.handle(Input::Received { conn, bytes }, self.now);
    }

    fn hear(&mut self, conn: ConnId, message: &Message) {
        self.receive(conn, &wire::encode(message, CONTEXT));
    }

    /// A session with a neighbour that speaks these families, Established.
    fn establish_with(&mut self, number: u8, families: &[Family]) -> ConnId {
        let capabilities = families.iter().copied().map(Capability::Multiprotocol);
        self.establish_as(number, capabilities.collect())
    }

    /// A session with a neighbour that says this of itself, Established.
    fn establish_as(&mut self, number: u8, mut capabilities: Vec<Capability>) -> ConnId {
        let conn = self.accept(neighbour(number), ourselves(number));
        let asn = 65100 + u32::from(number);
        capabilities.push(Capability::FourOctetAs(asn));
        let router_id = Ipv4Addr::new(1, 1, 1, number);
        self.hear(conn, &Message::Open(Open { asn, hold_time_secs: 90, router_id, capabilities }));
        self.hear(conn, &Message::Keepalive);
        conn
    }

    fn establish(&mut self, number: u8) -> ConnId {
        self.establish_with(number, &[Family::IPV4_UNICAST, Family::IPV6_UNICAST])
    }

    /// One that tells its routes again when asked.
    fn establish_refreshable(&mut self, number: u8) -> ConnId {
        let families = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];
        let capabilities = families.map(Capability::Multiprotocol).into_iter();
        self.establish_as(number, capabilities.chain([Capability::RouteRefresh]).collect())
    }

    fn announce(&mut self, conn: ConnId, path: &[u32], next_hop: IpAddr, prefixes: &[&str]) {
        let mut messages = Vec::new();
        let prefixes: Vec<_> = prefixes.iter().map(|text| prefix(text)).collect();
        wire::encode_updates(&attributes(path), next_hop, &prefixes, CONTEXT, &mut messages)
            .unwrap();
        self.receive(conn, &messages.concat());
    }

    fn withdraw(&mut self, conn: ConnId, prefixes: &[&str]) {
        let mut messages = Vec::new();
        let prefixes: Vec<_> = prefixes.iter().map(|text| prefix(text)).collect();
        wire::encode_withdrawals(&prefixes, CONTEXT, &mut messages);
        self.receive(conn, &messages.concat());
    }

    fn originate(&mut self, prefixes: &[&str]) {
        let prefixes: Vec<_> = prefixes.iter().map(|text| prefix(text)).collect();
        self.speaker.handle(Input::Originate(&prefixes), self.now);
    }

    fn state(&self, place: usize) -> State {
        self.speaker.peers()[place].state
    }

    /// Time passes to the next timer.
    fn wait(&mut self) {
        self.now = self.speaker.poll_timeout().expect("a timer runs");
        self.speaker.handle(Input::Tick, self.now);
    }
}

fn prefix(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn attributes(path: &[u32]) -> Attributes {
    let segments = vec![Segment::Sequence(path.to_vec())];
    Attributes { as_path: AsPath { segments }, ..Attributes::default() }
}

/// The messages that were sent on a connection.
fn messages(outputs: &[Output], on: ConnId) -> Vec<Message> {
    let mut stream = Vec::new();
    for output in outputs {
        if let Output::Send { conn, bytes } = output
            && *conn == on
        {
            stream.extend(bytes);
        }
    }
    let mut messages = Vec::new();
    while let Some(len) = wire::frame(&stream).unwrap() {
        let rest = stream.split_off(len);
        messages.push(wire::decode(&stream, CONTEXT).unwrap());
        stream = rest;
    }
    assert!(stream.is_empty(), "whole messages only");
    messages
}

fn updates(outputs: &[Output], on: ConnId) -> Vec<Update> {
    let mut updates = Vec::new();
    for message in messages(outputs, on) {
        if let Message::Update(update) = message {
            updates.push(update);
        }
    }
    updates
}

/// Prefixes announced on a connection, in words, with their next hop and AS path.
fn announced(outputs: &[Output], on: ConnId) -> Vec<String> {
    let mut words = Vec::new();
    for update in updates(outputs, on) {
        let path = update.attributes.map(|attributes| attributes.as_path.segments);
        for group in update.announced {
            for prefix in group.prefixes {
                words.push(format!("{prefix} via {} {path:?}", group.next_hop));
            }
        }
    }
    words
}

fn routes(outputs: &[Output]) -> Vec<RouteChange> {
    let mut routes = Vec::new();
    for output in outputs {
        if let Output::Routes(changes) = output {
            routes.extend_from_slice(changes);
        }
    }
    routes
}

fn change(text: &str, next_hops: &[IpAddr]) -> RouteChange {
    RouteChange { prefix: prefix(text), next_hops: next_hops.into(), install: Install::Both }
}
