//! A network between speakers: connections that keep the order of their own bytes, and nothing else.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::hash::{DefaultHasher, Hash};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;

use super::world::{World, below};
use crate::session::Jitter;
use crate::speaker::{Backlog, Clear, ConnId, Input, Output, RouteChange, Seeds, Speaker};

/// Longest latency.
const MAX_LATENCY_MS: usize = 40;
/// Steps of one run at most: a livelock is a failure, not a hang.
const MAX_STEPS: usize = 2_000_000;

/// The network, its speakers, and what their drivers know.
pub(super) struct Net {
    pub(super) world: World,
    pub(super) nodes: Vec<Node>,
    pub(super) now: Instant,
    /// What happened, summed up.
    pub(super) digest: DefaultHasher,
    start: Instant,
    cut: BTreeSet<usize>,
    conns: Vec<Conn>,
    events: BinaryHeap<Reverse<(Instant, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    /// What waits for a link to heal, in order.
    stalled: Vec<Happening>,
    planned: u64,
    random: Jitter,
    steps: usize,
}

/// A host.
pub(super) struct Node {
    /// `None` while the host is down.
    pub(super) speaker: Option<Speaker>,
    pub(super) originated: Vec<IpNetwork>,
    /// What the driver was told to install.
    pub(super) installed: BTreeMap<IpNetwork, Vec<IpAddr>>,
    /// Connects under way, per link.
    dialling: BTreeMap<usize, u64>,
    /// Open connections that the speaker knows of.
    sockets: BTreeSet<usize>,
}

struct Conn {
    link: usize,
    /// The end that opened it.
    opener: usize,
    /// Whether an end's socket is open.
    open: [bool; 2],
    /// Arrivals so far planned, per end: FIFO.
    last: [Instant; 2],
}

#[derive(Clone, Debug)]
enum Happening {
    /// A connect reaches the other host.
    Syn {
        link: usize,
        end: usize,
        attempt: u64,
    },
    ConnectFailed {
        link: usize,
        end: usize,
        attempt: u64,
    },
    Arrive {
        conn: usize,
        end: usize,
        parcel: Parcel,
    },
}

#[derive(Clone, Debug)]
enum Parcel {
    Connected { attempt: u64 },
    Accepted,
    Bytes(Vec<u8>),
    Closed,
}

impl Net {
    pub(super) fn new(world: World, seed: u64) -> Self {
        let start = Instant::now();
        let nodes = world.nodes.iter().map(|_| Node {
            speaker: None,
            originated: Vec::new(),
            installed: BTreeMap::new(),
            dialling: BTreeMap::new(),
            sockets: BTreeSet::new(),
        });
        Self {
            nodes: nodes.collect(),
            world,
            now: start,
            digest: DefaultHasher::new(),
            start,
            cut: BTreeSet::new(),
            conns: Vec::new(),
            events: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            stalled: Vec::new(),
            random: Jitter::new(seed ^ 0x6e65_7477_6f72_6b21),
            planned: 0,
            steps: 0,
        }
    }

    /// A host starts.
    pub(super) fn boot(&mut self, node: usize) {
        let config = self.world.nodes[node].clone();
        let peers = self.world.peers_of(node);
        let speaker = Speaker::new(config, peers, Seeds::of(self.random.next()), self.now);
        let mut speaker = speaker.expect("worlds are valid");
        if below(&mut self.random, 2) == 0 {
            speaker.recover(self.now);
        }
        self.nodes[node].speaker = Some(speaker);
        let originated = self.nodes[node].originated.clone();
        self.give(node, Input::Originate(&originated));
    }

    /// A host stops without a word; its kernel resets what was open.
    pub(super) fn crash(&mut self, node: usize) {
        let host = &mut self.nodes[node];
        host.speaker = None;
        host.installed.clear();
        host.dialling.clear();
        for conn in 0..self.conns.len() {
            let link = &self.world.links[self.conns[conn].link];
            if let Some(end) = (0..2).find(|&end| link.ends[end].node == node) {
                self.hang_up(conn, end);
            }
        }
    }

    pub(super) fn originate(&mut self, node: usize, prefixes: Vec<IpNetwork>) {
        let before = std::mem::replace(&mut self.nodes[node].originated, prefixes.clone());
        let without = |all: &[IpNetwork], others: &[IpNetwork]| -> Vec<IpNetwork> {
            all.iter().filter(|prefix| !others.contains(prefix)).copied().collect()
        };
        let (come, go) = (without(&prefixes, &before), without(&before, &prefixes));
        self.give(node, Input::ChangeOriginated { come: &come, go: &go });
    }

    /// Somebody changes how a node looks upon one of its neighbours.
    pub(super) fn reconfigure(&mut self, node: usize) {
        let end = self.an_end_of(node);
        self.world.change(end, &mut self.random);
        self.configure(node);
    }

    /// Nobody is shut down any more.
    pub(super) fn open_all(&mut self) {
        for end in self.world.links.iter_mut().flat_map(|link| &mut link.ends) {
            end.peer.shutdown = None;
        }
        (0..self.nodes.len()).for_each(|node| self.configure(node));
    }

    fn configure(&mut self, node: usize) {
        let (peers, now) = (self.world.peers_of(node), self.now);
        self.operate(node, |speaker| speaker.configure(peers, now).expect("worlds are valid"));
    }

    /// Somebody has a session of a node begin anew, or its routes told again.
    pub(super) fn clear(&mut self, node: usize) {
        let (link, end) = self.an_end_of(node);
        let ((_, peer), now) = (self.place(link, end), self.now);
        let all = [Clear::Session, Clear::Connection, Clear::In, Clear::Out];
        let what = all[below(&mut self.random, all.len())];
        self.operate(node, |speaker| assert!(speaker.clear(peer, what, now)));
    }

    fn operate(&mut self, node: usize, act: impl FnOnce(&mut Speaker)) {
        let Some(speaker) = self.nodes[node].speaker.as_mut() else { return };
        act(speaker);
        self.carry_out_all(node);
        self.assert_bound(node);
    }

    fn an_end_of(&mut self, node: usize) -> (usize, usize) {
        let ends: Vec<_> = self.world.ends_of(node).collect();
        ends[below(&mut self.random, ends.len())]
    }

    /// Nothing passes a link any more; what is sent waits.
    pub(super) fn cut(&mut self, link: usize) {
        self.cut.insert(link);
    }

    pub(super) fn heal(&mut self) {
        let mut waiting = std::mem::take(&mut self.stalled);
        // What is still on its way was sent later than what waits.
        let late = |happening: &Happening| self.cut.contains(&self.link_of(happening));
        let late: Vec<_> =
            self.happenings.iter().filter(|(_, h)| late(h)).map(|(id, _)| *id).collect();
        waiting.extend(late.iter().filter_map(|id| self.happenings.remove(id)));
        self.cut.clear();
        for happening in waiting {
            match happening {
                Happening::Arrive { conn, end, parcel } => self.post(conn, end, parcel),
                other @ (Happening::Syn { .. } | Happening::ConnectFailed { .. }) => {
                    self.plan(self.now, other);
                }
            }
        }
    }

    fn link_of(&self, happening: &Happening) -> usize {
        match happening {
            Happening::Syn { link, .. } | Happening::ConnectFailed { link, .. } => *link,
            Happening::Arrive { conn, .. } => self.conns[*conn].link,
        }
    }

    /// A connection dies, and both ends hear of it some time.
    pub(super) fn reset_a_connection(&mut self) {
        let open: Vec<_> =
            (0..self.conns.len()).filter(|&conn| self.conns[conn].open == [true; 2]).collect();
        if let Some(&conn) = open.get(below(&mut self.random, open.len().max(1))) {
            let lost = |happening: &Happening| matches!(happening, Happening::Arrive { conn: of, parcel: Parcel::Bytes(_), .. } if *of == conn);
            self.happenings.retain(|_, happening| !lost(happening));
            self.stalled.retain(|happening| !lost(happening));
            for end in 0..2 {
                self.post(conn, end, Parcel::Closed);
            }
        }
    }

    /// A driver has much to send on one of a node's connections.
    pub(super) fn fill_a_socket(&mut self, node: usize) {
        let host = &mut self.nodes[node];
        let place = below(&mut self.random, host.sockets.len().max(1));
        let backlog = [Backlog::Some, Backlog::Enough][below(&mut self.random, 2)];
        if let (Some(conn), Some(speaker)) = (host.sockets.iter().nth(place), &mut host.speaker) {
            speaker.set_backlog(ConnId(*conn as u64), backlog);
        }
    }

    /// All that was to be sent is out.
    pub(super) fn drain_sockets(&mut self) {
        for node in 0..self.nodes.len() {
            let host = &mut self.nodes[node];
            let Some(speaker) = &mut host.speaker else { continue };
            for conn in &host.sockets {
                speaker.set_backlog(ConnId(*conn as u64), Backlog::Little);
            }
            self.carry_out_all(node);
        }
    }

    /// Lets time pass.
    pub(super) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let timers = self.nodes.iter().enumerate();
            let timers = timers
                .filter_map(|(node, host)| Some((host.speaker.as_ref()?.poll_timeout()?, node)));
            let timer = timers.min();
            let event = self.events.peek().map(|Reverse(event)| *event);
            let timer_first = match (timer, event) {
                (Some((timer, _)), Some((event, _))) => timer < event,
                (timer, _) => timer.is_some(),
            };
            let next = if timer_first { timer.map(|t| t.0) } else { event.map(|e| e.0) };
            let Some(next) = next.filter(|&next| next <= until) else { break };
            self.now = self.now.max(next);
            self.steps += 1;
            assert!(self.steps < MAX_STEPS, "the network never comes to rest");
            if let (true, Some((_, node))) = (timer_first, timer) {
                self.give(node, Input::Tick);
            } else {
                self.events.pop();
                if let Some((_, id)) = event
                    && let Some(happening) = self.happenings.remove(&id)
                {
                    self.happen(happening);
                }
            }
        }
        self.now = until;
    }

    fn happen(&mut self, happening: Happening) {
        if self.cut.contains(&self.link_of(&happening)) {
            return self.stalled.push(happening);
        }
        match happening {
            Happening::Syn { link, end, attempt } => self.syn(link, end, attempt),
            Happening::ConnectFailed { link, end, attempt } => {
                let (node, peer) = self.place(link, end);
                if self.nodes[node].dialling.get(&link) == Some(&attempt) {
                    self.nodes[node].dialling.remove(&link);
                    self.give(node, Input::ConnectFailed { peer, error: "refused".into() });
                }
            }
            Happening::Arrive { conn, end, parcel } => self.arrive(conn, end, parcel),
        }
    }

    fn syn(&mut self, link: usize, end: usize, attempt: u64) {
        let (node, _) = self.place(link, end);
        if self.nodes[node].dialling.get(&link) != Some(&attempt) {
            // Given up before it came through: nobody repeats it.
            return;
        }
        let (other, _) = self.place(link, 1 - end);
        if self.nodes[other].speaker.is_none() {
            let at = self.now + self.latency();
            return self.plan(at, Happening::ConnectFailed { link, end, attempt });
        }
        let conn = self.conns.len();
        self.conns.push(Conn { link, opener: end, open: [true; 2], last: [self.now; 2] });
        self.post(conn, end, Parcel::Connected { attempt });
        self.post(conn, 1 - end, Parcel::Accepted);
    }

    fn arrive(&mut self, conn: usize, end: usize, parcel: Parcel) {
        let link = self.conns[conn].link;
        let (node, peer) = self.place(link, end);
        let local = self.world.links[link].ends[end].address;
        if !self.conns[conn].open[end] {
            return;
        }
        self.nodes[node].sockets.insert(conn);
        let id = ConnId(conn as u64);
        match parcel {
            Parcel::Connected { attempt } => {
                if self.nodes[node].dialling.get(&link) == Some(&attempt) {
                    self.nodes[node].dialling.remove(&link);
                    self.give(node, Input::Connected { peer, conn: id, local });
                } else {
                    self.hang_up(conn, end);
                }
            }
            Parcel::Accepted => self.give(node, Input::Accepted { peer, conn: id, local }),
            Parcel::Bytes(bytes) => self.give(node, Input::Received { conn: id, bytes: &bytes }),
            Parcel::Closed => {
                self.hang_up(conn, end);
                self.give(node, Input::Closed { conn: id, error: "end of file".into() });
            }
        }
    }

    fn give(&mut self, node: usize, input: Input<'_>) {
        let at = self.now.duration_since(self.start).as_micros();
        let now = self.now;
        (at, node).hash(&mut self.digest);
        self.digest_input(&input);
        let Some(speaker) = self.nodes[node].speaker.as_mut() else { return };
        speaker.handle(input, now);
        self.carry_out_all(node);
        self.assert_bound(node);
    }

    fn carry_out_all(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].speaker.as_mut().and_then(Speaker::poll_output) {
            self.carry_out(node, output);
        }
    }

    fn digest_input(&mut self, input: &Input<'_>) {
        match input {
            Input::Received { conn, bytes } => (conn, bytes).hash(&mut self.digest),
            Input::Connected { conn, .. }
            | Input::Accepted { conn, .. }
            | Input::Closed { conn, .. } => conn.hash(&mut self.digest),
            Input::ConnectFailed { peer, .. } => peer.hash(&mut self.digest),
            Input::Originate(prefixes) => prefixes.hash(&mut self.digest),
            Input::ChangeOriginated { come, go } => (come, go).hash(&mut self.digest),
            Input::NextHop { next_hop, reach } => (next_hop, reach).hash(&mut self.digest),
            Input::Tick | Input::OriginatesAll | Input::Shutdown => {}
        }
    }

    fn carry_out(&mut self, node: usize, output: Output) {
        match output {
            Output::Connect { peer, .. } => {
                let (link, end) = self.end_towards(node, peer);
                let attempt = self.random.next();
                self.nodes[node].dialling.insert(link, attempt);
                let at = self.now + self.latency();
                self.plan(at, Happening::Syn { link, end, attempt });
            }
            Output::AbortConnect { peer } => {
                let (link, _) = self.end_towards(node, peer);
                self.nodes[node].dialling.remove(&link);
            }
            Output::Send { conn, bytes } => {
                let (conn, end) = self.end_of_conn(node, conn);
                assert!(self.conns[conn].open[end], "bytes for a connection that is closed");
                let cut = below(&mut self.random, bytes.len());
                for part in [&bytes[..cut], &bytes[cut..]] {
                    self.post(conn, 1 - end, Parcel::Bytes(part.to_vec()));
                }
            }
            Output::Close { conn } => {
                let (conn, end) = self.end_of_conn(node, conn);
                self.hang_up(conn, end);
            }
            Output::Routes(changes) => changes.into_iter().for_each(|it| self.install(node, it)),
            Output::Event(_) | Output::NextHop { .. } | Output::Leading { .. } | Output::Busy => {}
        }
    }

    fn install(&mut self, node: usize, change: RouteChange) {
        let installed = &mut self.nodes[node].installed;
        if change.next_hops.is_empty() {
            let known = installed.remove(&change.prefix);
            assert!(known.is_some(), "a route is taken away that was never given");
        } else {
            installed.insert(change.prefix, change.next_hops.to_vec());
        }
    }

    /// Two connections per neighbour at most, one by each side.
    fn assert_bound(&self, node: usize) {
        let sockets = self.nodes[node].sockets.iter().map(|&conn| &self.conns[conn]);
        let mut seen = BTreeSet::new();
        for conn in sockets {
            assert!(
                seen.insert((conn.link, conn.opener)),
                "node {node} has too many connections: {:?}",
                self.nodes[node]
                    .sockets
                    .iter()
                    .map(|&c| (c, self.conns[c].link, self.conns[c].opener, self.conns[c].open))
                    .collect::<Vec<_>>()
            );
        }
    }

    fn hang_up(&mut self, conn: usize, end: usize) {
        if std::mem::replace(&mut self.conns[conn].open[end], false) {
            let (node, _) = self.place(self.conns[conn].link, end);
            self.nodes[node].sockets.remove(&conn);
            self.post(conn, 1 - end, Parcel::Closed);
        }
    }

    /// Sends something to an end of a connection, after what was sent there before.
    fn post(&mut self, conn: usize, end: usize, parcel: Parcel) {
        let at = (self.now + self.latency()).max(self.conns[conn].last[end]);
        self.conns[conn].last[end] = at;
        self.plan(at, Happening::Arrive { conn, end, parcel });
    }

    fn plan(&mut self, at: Instant, happening: Happening) {
        self.planned += 1;
        let id = self.planned;
        self.happenings.insert(id, happening);
        self.events.push(Reverse((at, id)));
    }

    fn latency(&mut self) -> Duration {
        Duration::from_millis(below(&mut self.random, MAX_LATENCY_MS) as u64)
    }

    /// The node at an end of a link, and the address of its neighbour there.
    fn place(&self, link: usize, end: usize) -> (usize, IpAddr) {
        let end = &self.world.links[link].ends[end];
        (end.node, end.peer.address)
    }

    fn end_towards(&self, node: usize, peer: IpAddr) -> (usize, usize) {
        let mut ends = self.world.ends_of(node);
        ends.find(|&(link, end)| self.world.links[link].ends[end].peer.address == peer)
            .expect("speakers know only their neighbours")
    }

    fn end_of_conn(&self, node: usize, conn: ConnId) -> (usize, usize) {
        let conn = usize::try_from(conn.0).expect("the network numbers connections");
        let link = &self.world.links[self.conns[conn].link];
        let end = (0..2).find(|&end| link.ends[end].node == node).expect("it is an end of it");
        (conn, end)
    }
}
