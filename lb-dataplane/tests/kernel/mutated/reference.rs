//! A load balancer as one would write it on a napkin: a list of services, and a table of flows that is asked for each packet.
//!
//! It says what may become of a packet. Where several things may, it says why: a flow whose client has not answered its
//! backend makes room for others, so that it may be gone; a packet that died here may have begun a flow, which another one is
//! sent to find out. It chooses no backend and no port, but holds the ones that were chosen against what it knows, and from then
//! on to them.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use lb_dataplane::table::{
    Algorithm, BackendState, Mode, OnExhaustion, Protocol, Service, ServiceKey, Table,
};

use crate::said::{Ends, Life, Part, SCTP, Said, TCP};

/// Which way a packet of a flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    ToBackend,
    ToClient,
}

/// A flow, by its number.
type Id = u64;
/// So many flows that begin have made all others go that are half-open.
const HALF_OPEN_AT_MOST: Id = 2048;
/// More ports than flows begin towards a backend before all end.
const MANY_PORTS: u16 = 20_000;

#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    /// A packet from the client.
    pub(super) there: Ends,
    /// The same where the backend has it; where packets stay as they are, with the backend's address for the VIP's.
    pub(super) after: Ends,
    pub(super) mode: Mode,
    /// The address that packets around its own come from.
    outer: Option<IpAddr>,
    /// What the backend's first packet said.
    first_reply: Option<u32>,
    /// The client has answered the backend: it makes room for nobody.
    is_confirmed: bool,
    /// It is closed, or may be: another may take its place.
    may_be_over: bool,
    /// A packet that died may have begun it anew.
    may_be_another: bool,
    /// What its backend said first died here: nobody can say what confirms it.
    is_murky: bool,
    /// How many others may have begun before.
    begun: u64,
}

impl Flow {
    /// What a packet is that went in this way.
    pub(super) fn leaves(&self, way: Way) -> Ends {
        match way {
            Way::ToBackend => self.after,
            Way::ToClient => self.there.reversed(),
        }
    }

    /// Whether another one may have begun in its place, which comes from a port that nobody has seen yet.
    pub(super) fn may_be_another(&self) -> bool {
        self.may_be_another
    }

    fn is_certain(&self) -> bool {
        self.is_confirmed && !self.may_be_over && !self.may_be_another && !self.is_murky
    }
}

/// What may become of a packet.
#[derive(Debug, Default)]
pub(super) struct Allowed {
    /// It goes on as a packet of one of these.
    pub(super) flows: Vec<(Id, Way)>,
    /// It begins a flow.
    pub(super) begins: bool,
    /// It goes where its addresses say, as it is.
    pub(super) plain: bool,
    /// It is answered.
    pub(super) answered: bool,
    /// It is to go on, if nothing is wrong with it.
    pub(super) must: bool,
    /// It is to be served, if nothing is wrong with it: the service has a backend for it, whatever is chosen.
    pub(super) serves: bool,
}

/// A packet as it came out.
#[derive(Clone, Copy, Debug)]
pub(super) enum Came {
    /// As it went in.
    Plain,
    /// With these ends; of a later fragment their ports mean nothing.
    Translated(Ends),
    /// As it went in, in a frame to a backend.
    Direct,
    /// As it went in, within a packet from here to there.
    Inside(IpAddr, IpAddr),
}

#[derive(Default)]
pub(super) struct Reference {
    services: BTreeMap<ServiceKey, Service>,
    flows: HashMap<Id, Flow>,
    by_ends: HashMap<Ends, (Id, Way)>,
    /// What the first parts of datagrams said; more than one where the last one may not have been noted.
    first_parts: HashMap<(IpAddr, IpAddr, u32, u8), Vec<Ends>>,
    begun: Id,
    /// Which flow was the last one to begin with these ends.
    last: HashMap<Ends, Id>,
    /// Packets of which each may have begun a flow.
    may_have_begun: u64,
    /// Flows that may begin beside one that is not confirmed before that may have made room for another.
    half_open: u64,
    /// How often what has been looked at.
    pub(super) tally: BTreeMap<&'static str, u64>,
    /// The ends of a packet that died and may have begun a flow; the next packet shows it.
    unclear: Option<Ends>,
}

impl Reference {
    /// Without services, beside a table of so many entries.
    pub(super) fn new(flow_entries: u32) -> Self {
        // Half of the places of each CPU.
        let half_open = u64::from(flow_entries) / 8 / aya::util::nr_cpus().unwrap() as u64 / 2;
        Self { half_open, ..Self::default() }
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    /// Another table, and no flows. What first parts said is remembered.
    pub(super) fn serve(&mut self, table: &Table) {
        self.services = table.services.clone();
        self.flows.clear();
        self.by_ends.clear();
    }

    pub(super) fn flow(&self, id: Id) -> &Flow {
        &self.flows[&id]
    }

    pub(super) fn flows(&self) -> impl Iterator<Item = &Flow> {
        self.flows.values()
    }

    pub(super) fn is_vip(&self, address: IpAddr) -> bool {
        self.services.keys().any(|key| key.address == address)
    }

    /// Whether clients of a VIP hear of it where no source port is free.
    pub(super) fn refuses_with_a_reset(&self, ends: &Ends) -> bool {
        self.service(ends).is_some_and(|(_, service)| service.on_exhaustion == OnExhaustion::Reset)
    }

    fn service(&self, ends: &Ends) -> Option<(&ServiceKey, &Service)> {
        let protocol = Protocol::from_number(ends.protocol)?;
        self.services.iter().find(|(key, service)| {
            key.address == ends.to.ip()
                && key.protocol == protocol
                && (key.port..=key.port + service.more_ports).contains(&ends.to.port())
        })
    }

    /// What may become of a packet that says this.
    pub(super) fn judge(&self, said: &Said, part: Option<&Part>, to: IpAddr) -> Allowed {
        let is_vip = self.is_vip(to);
        match said {
            Said::Wrong => Allowed::default(),
            Said::Other => Allowed { plain: !is_vip, ..Allowed::default() },
            Said::Ends(ends, life) => self.judge_ends(ends, life),
            Said::Asks(ends) => {
                let life = Life { asks: true, goes_on: true, ..Life::default() };
                let judged = self.judge_ends(ends, &life);
                // A part of an echo that nobody balances cannot be answered.
                let is_answered = is_vip && self.service(ends).is_none() && part.is_none();
                Allowed { answered: is_answered && ends.from.ip() != to, ..judged }
            }
            Said::Later => {
                let firsts = part.and_then(|part| self.first_parts.get(&part.of));
                let flows = firsts.into_iter().flatten();
                let flows = flows.filter_map(|ends| self.by_ends.get(ends)).copied().collect();
                // What the first part said is kept for a while only.
                Allowed { flows, plain: !is_vip, ..Allowed::default() }
            }
            Said::Error(about) => {
                let mut allowed = Allowed { plain: !is_vip, ..Allowed::default() };
                // It is for who sent what it quotes.
                if let Some((id, way)) = self.by_ends.get(&about.reversed())
                    && about.from.ip() == to
                {
                    // No router fragments an error; its parts could not follow it.
                    allowed.flows = part.map_or_else(|| vec![(*id, *way)], |_| Vec::new());
                    allowed.plain &= !self.flows[id].is_certain();
                }
                allowed
            }
        }
    }

    fn judge_ends(&self, ends: &Ends, life: &Life) -> Allowed {
        let may_begin = self.may_begin(ends, life) || self.unclear == Some(*ends);
        let is_echoed = [1, 58].contains(&ends.protocol) && !life.asks;
        let is_to_itself = ends.from.ip() == ends.to.ip() && !is_echoed;
        let plain = !self.is_vip(ends.to.ip()) && !is_to_itself;
        let serves = self.may_begin(ends, life) && self.has_backend_for(ends);
        let Some((id, way)) = self.by_ends.get(ends) else {
            return Allowed { begins: may_begin, plain, serves, ..Allowed::default() };
        };
        let flow = &self.flows[id];
        let begins_anew = *way == Way::ToBackend && {
            let has_handshake = [TCP, SCTP].contains(&ends.protocol);
            // Gone, closed, or not answered for a while.
            let is_due = !flow.is_certain();
            may_begin
                && is_due
                && (life.asks || !has_handshake || !flow.is_confirmed || flow.is_murky)
                || flow.may_be_another
        };
        Allowed {
            flows: vec![(*id, *way)],
            begins: begins_anew,
            plain: plain && !flow.is_certain(),
            must: flow.is_certain() && !life.asks,
            serves: serves && *way == Way::ToBackend,
            ..Allowed::default()
        }
    }

    /// Whether a flow that begins has a backend, whichever is chosen: one that is well, that is not its own client, at which no
    /// other flow has these ends, and towards which there are many source ports.
    fn has_backend_for(&self, ends: &Ends) -> bool {
        let Some((key, service)) = self.service(ends) else { return false };
        let beyond = ends.to.port() - key.port;
        let mut active =
            service.backends.iter().filter(|b| b.state == BackendState::Active).peekable();
        active.peek().is_some()
            && active.all(|backend| {
                if service.mode == Mode::Nat && !backend.sources.is_empty() {
                    let ports = backend.sources.iter().map(|s| s.last_port - s.first_port);
                    return ports.max() > Some(MANY_PORTS);
                }
                let there = SocketAddr::new(backend.address, backend.port.wrapping_add(beyond));
                let back = Ends { to: there, ..*ends }.reversed();
                let own = self.by_ends.get(ends).map(|(id, _)| id);
                let other = self.by_ends.get(&back).map(|(id, _)| id);
                ends.from.ip() != backend.address
                    && (service.mode != Mode::Nat || other.is_none() || other == own)
            })
    }

    fn may_begin(&self, ends: &Ends, life: &Life) -> bool {
        let Some((_, service)) = self.service(ends) else { return false };
        let client = ends.from.ip();
        let listed = service.access.iter().filter(|access| access.prefix.contains(client));
        let listed = listed.max_by_key(|access| access.prefix.prefix());
        let has_admitting = service.access.iter().any(|access| access.is_admitted);
        let is_admitted = listed.map_or(!has_admitting, |access| access.is_admitted);
        // A flow in the middle: another node would have chosen the same for it.
        let is_known_elsewhere =
            matches!(service.algorithm, Algorithm::Maglev | Algorithm::SourceHash)
                && service.affinity.is_none()
                && service
                    .backends
                    .iter()
                    .all(|b| service.mode != Mode::Nat || b.sources.is_empty());
        let is_to_itself = client == ends.to.ip();
        is_admitted && !is_to_itself && (life.asks || life.goes_on && is_known_elsewhere)
    }

    /// Takes in what became of a packet.
    ///
    /// Panics where that was not allowed.
    pub(super) fn learn(
        &mut self,
        (said, part): (&Said, Option<&Part>),
        allowed: &Allowed,
        came: Option<Came>,
    ) -> Option<(Id, Way)> {
        let ends = match said {
            Said::Ends(ends, _) | Said::Asks(ends) => Some(*ends),
            _ => None,
        };
        self.may_have_begun += u64::from(allowed.begins);
        let died = if came.is_none() && allowed.begins { ends } else { None };
        // What the second one does not show is not there.
        self.unclear = if self.unclear.is_some() { None } else { died };
        let mut is_new = false;
        let found = match came {
            None => {
                for (id, _) in allowed.flows.iter().filter(|_| allowed.begins) {
                    self.flows.get_mut(id).unwrap().may_be_another = true;
                }
                None
            }
            Some(Came::Plain) => {
                assert!(allowed.plain, "as it was: {said:?} {allowed:?}");
                None
            }
            Some(came) => {
                let fits = |(id, way): &&(Id, Way)| self.fits(said, *id, *way, came);
                match allowed.flows.iter().find(fits) {
                    Some(of) => Some(*of),
                    None => {
                        assert!(allowed.begins, "{came:?} of {said:?} {allowed:?}");
                        is_new = true;
                        Some((self.begin(ends.unwrap(), came), Way::ToBackend))
                    }
                }
            }
        };
        if let (Some(part), Some(ends)) = (part.filter(|part| part.is_first), ends) {
            let firsts = self.first_parts.entry(part.of).or_default();
            // One that went on is what counts; one that did not may.
            firsts.retain(|first| found.is_none() && *first != ends);
            firsts.push(ends);
        }
        if let Some((id, way)) = found {
            self.note_life(id, way, said, is_new);
        } else if let Said::Ends(_, life) = said {
            for (id, way) in &allowed.flows {
                let flow = self.flows.get_mut(id).unwrap();
                flow.may_be_over |= life.ends;
                flow.is_murky |= *way == Way::ToClient && flow.first_reply.is_none();
            }
        }
        found
    }

    /// Whether a packet came out as one of a flow.
    fn fits(&self, said: &Said, id: Id, way: Way, came: Came) -> bool {
        let flow = &self.flows[&id];
        match (flow.mode, came) {
            (Mode::Nat, Came::Translated(seen)) => {
                let leaves = flow.leaves(way);
                match said {
                    Said::Later => {
                        (seen.from.ip(), seen.to.ip()) == (leaves.from.ip(), leaves.to.ip())
                    }
                    // Whose it was is looked at with what it quotes.
                    Said::Error(_) => seen.to.ip() == leaves.to.ip(),
                    _ => seen == leaves,
                }
            }
            (Mode::L2, Came::Direct) => true,
            (Mode::IpInIp | Mode::Gue, Came::Inside(from, to)) => {
                flow.outer == Some(from) && flow.after.to.ip() == to
            }
            _ => false,
        }
    }

    /// A flow that begins as it came out; it takes the place of those that it cannot be told from.
    fn begin(&mut self, there: Ends, came: Came) -> Id {
        let (key, service) = self.service(&there).expect("it may not begin otherwise");
        let beyond = there.to.port() - key.port;
        let backends = service.backends.iter().filter(|b| b.state == BackendState::Active);
        let mut choices = backends
            .map(|b| (SocketAddr::new(b.address, b.port.wrapping_add(beyond)), b.sources.clone()));
        let is_echo = [1, 58].contains(&there.protocol);
        let chosen = choices.find_map(|(backend, sources)| {
            let keeps_client = sources.is_empty() || service.mode != Mode::Nat;
            if keeps_client && there.from.ip() == backend.ip() {
                return None;
            }
            let is_source = |from: SocketAddr| {
                let mut sources = sources.iter();
                sources.any(|s| {
                    s.address == from.ip() && (s.first_port..=s.last_port).contains(&from.port())
                })
            };
            match (service.mode, came) {
                (Mode::Nat, Came::Translated(after)) => {
                    let keeps = after.from.ip() == there.from.ip()
                        && (is_echo || after.from.port() == there.from.port());
                    let is_right = after.to == backend
                        && after.protocol == there.protocol
                        && if keeps_client { keeps } else { is_source(after.from) };
                    is_right.then_some((after, None))
                }
                (Mode::L2, Came::Direct) => Some((Ends { to: backend, ..there }, None)),
                (Mode::IpInIp | Mode::Gue, Came::Inside(from, to)) => {
                    let is_right = to == backend.ip() && sources.iter().any(|s| s.address == from);
                    is_right.then_some((Ends { to: backend, ..there }, Some(from)))
                }
                _ => None,
            }
        });
        let Some((after, outer)) = chosen else { panic!("{came:?} is none of {service:?}'s") };
        let mode = service.mode;
        self.forget(&there);
        if mode == Mode::Nat {
            let back = after.reversed();
            if let Some((id, _)) = self.by_ends.get(&back) {
                let other = &self.flows[id];
                assert!(!other.is_certain(), "{there:?} is not to be told from {other:?}");
                self.forget(&back);
            }
        }
        self.begun += 1;
        let id = self.begun;
        // Half-open flows make room by their ends: for an older one of the same this one may have gone meanwhile, and where it
        // would come from is no sign that it is another.
        let last = self.last.insert(there, id);
        let keeps_client = mode != Mode::Nat || after.from == there.from;
        let is_murky = keeps_client && last.is_some_and(|last| id - last < HALF_OPEN_AT_MOST);
        self.by_ends.insert(there, (id, Way::ToBackend));
        if mode == Mode::Nat {
            self.by_ends.insert(after.reversed(), (id, Way::ToClient));
        }
        let flow = Flow {
            there,
            after,
            mode,
            outer,
            first_reply: None,
            is_confirmed: false,
            may_be_over: false,
            may_be_another: false,
            is_murky,
            begun: self.may_have_begun,
        };
        self.flows.insert(id, flow);
        id
    }

    /// Forgets the flow whose packets have these ends.
    fn forget(&mut self, ends: &Ends) {
        let Some((id, _)) = self.by_ends.get(ends).copied() else { return };
        self.flows.remove(&id);
        self.by_ends.retain(|_, (of, _)| *of != id);
    }

    fn note_life(&mut self, id: Id, way: Way, said: &Said, is_new: bool) {
        let Said::Ends(ends, life) = said else { return };
        let flow = self.flows.get_mut(&id).unwrap();
        // It may have been gone meanwhile, and have begun anew.
        flow.is_murky |= !flow.is_confirmed && self.may_have_begun - flow.begun > self.half_open;
        if flow.may_be_another {
            // It is known again where it leads, but not for how long it has been there.
            (flow.may_be_another, flow.is_confirmed, flow.is_murky) = (false, false, true);
        }
        if life.asks && [TCP, SCTP].contains(&ends.protocol) && way == Way::ToBackend {
            // Perhaps another one, which chose the same: what was said before may count, or not.
            flow.is_murky |= flow.first_reply.is_some() || flow.may_be_over;
            return;
        }
        flow.may_be_over |= life.ends;
        let is_tcp = ends.protocol == TCP;
        match way {
            Way::ToClient => {
                flow.first_reply.get_or_insert(life.sequence);
            }
            // Tags are for others to read, and echoes never confirm anything.
            Way::ToBackend if ends.protocol == SCTP || [1, 58].contains(&ends.protocol) => {}
            Way::ToBackend => {
                let answers = flow.first_reply.is_some_and(|first| {
                    !is_tcp
                        || life.acknowledges.is_some_and(|ack| {
                            ack.wrapping_sub(first).wrapping_add(1 << 20) < 1 << 21
                        })
                });
                // Who goes on has been answered, where answers are not seen.
                let goes_on = !is_new && (!is_tcp || life.acknowledges.is_some());
                flow.is_confirmed |= if flow.mode == Mode::Nat { answers } else { goes_on };
            }
        }
    }
}
