//! Services and flows as somebody plain would keep them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::{BACKENDS, FIRST_PORT, MORE_PORTS, Reached, Serving, address};
use crate::kept::{
    check_content, check_echo, check_headers, check_hop, check_quoted, check_tunnel,
};
use crate::naive::Naive;
use crate::reason::{Contract, Kind, Reason};
use crate::said::{self, Ends, Said, TCP};

/// Whose flow it is: the client's end and the protocol.
type Client = (SocketAddr, u8);

pub(super) struct Napkin {
    serving: Serving,
    v6: bool,
    /// By client: its packets as their backend has them; `None` where the packet that began the flow did not get there, or not
    /// whole.
    flows: BTreeMap<Client, Option<Ends>>,
    /// Backends that take new flows.
    pub(super) takers: BTreeSet<u8>,
    pub(super) reached: Reached,
}

impl Napkin {
    pub(super) fn new(serving: Serving, v6: bool, takers: BTreeSet<u8>) -> Self {
        Self { serving, v6, flows: BTreeMap::new(), takers, reached: Reached::new() }
    }

    pub(super) fn vip(&self) -> SocketAddr {
        SocketAddr::new(address([192, 0, 2, 1], self.v6), 80)
    }

    pub(super) fn backends_are_v6(&self) -> bool {
        self.v6 != (self.serving == Serving::Across)
    }

    pub(super) fn backend(&self, number: u8) -> IpAddr {
        address([10, 2, 0, number], self.backends_are_v6())
    }

    /// The address of ours that flows come from.
    pub(super) fn source(&self) -> IpAddr {
        address([192, 0, 2, 9], self.backends_are_v6())
    }

    /// One of the flows of which all is known, as its client and as its backend has it.
    pub(super) fn known(&self, number: usize) -> Option<(Ends, Ends)> {
        let known = self.flows.iter().filter_map(|(client, after)| Some((*client, (*after)?)));
        let known: Vec<_> = known.collect();
        let (client, after) = *known.get(number.checked_rem(known.len())?)?;
        Some((self.of_client(client), after))
    }

    /// A client's packets as it sends them.
    fn of_client(&self, (from, protocol): Client) -> Ends {
        let port = if is_echo(protocol) { 0 } else { self.vip().port() };
        Ends { protocol, from, to: SocketAddr::new(self.vip().ip(), port) }
    }

    /// A flow that ended is one no more.
    pub(super) fn forget_all_but(&mut self, there: &BTreeSet<Client>) {
        self.flows.retain(|client, _| there.contains(client));
    }

    /// Flows whose first packet ended here.
    pub(super) fn note_unseen(&mut self, there: BTreeSet<Client>) {
        there.into_iter().for_each(|client| {
            self.flows.entry(client).or_insert(None);
        });
    }

    fn count(&mut self, what: &'static str) {
        *self.reached.entry(what).or_default() += 1;
    }

    /// What became of a packet, beside what somebody plain would do.
    pub(super) fn check(&mut self, old: &[u8], reason: Reason, new: &[u8]) {
        match (reason.kind(), reason.contract()) {
            (Kind::Pass, Contract::Original) => assert_eq!(new, old, "passed on changed"),
            (Kind::Forward, _) => self.forwarded(old, reason, new),
            (Kind::Reply, _) => {
                let before = Naive::parse(old).expect("nobody answers what contradicts itself");
                assert_eq!(before.to, self.vip().ip(), "who answers for {before:?}");
                check_echo(&before, old, new);
                self.count("an echo that is answered");
            }
            (Kind::Pass | Kind::Drop, _) => {
                if let Some(before) = Naive::parse(old)
                    && let Said::Ends(ends, _) | Said::Asks(ends) = said::read(old, &before).0
                {
                    self.unseen(&ends);
                }
            }
        }
    }

    /// A packet that may have begun a flow whose backend nobody sees.
    fn unseen(&mut self, ends: &Ends) {
        let known = self.flows.get_mut(&(ends.from, ends.protocol));
        known.into_iter().for_each(|known| *known = None);
    }

    fn forwarded(&mut self, old: &[u8], reason: Reason, new: &[u8]) {
        let before = Naive::parse(old).expect("somebody plain would not forward it");
        assert!(before.may_be_forwarded(), "somebody plain would not forward {before:?}");
        assert!(!said::has_stops(old), "nobody is a stop on a source route");
        let said = said::read(old, &before).0;
        #[expect(clippy::wildcard_enum_match_arm, reason = "what else is forwarded is routed")]
        match reason {
            Reason::ForwardedToBackend
            | Reason::ForwardedToClient
            | Reason::ErrorToBackend
            | Reason::ErrorToClient => self.translated(reason, &said, (&before, old), new),
            Reason::ForwardedDirectly => {
                assert_eq!(self.serving, Serving::Directly);
                check_hop(new, old, &before);
                self.count("in a frame to a backend");
                self.led_as_it_came(&said, (&before, old), None);
            }
            Reason::ForwardedByTunnel => {
                check_tunnel(new, old, &before);
                let outer = Naive::parse(new).expect("what came out contradicts itself");
                assert_eq!(outer.from, self.source(), "who the packet around is from");
                let is_gue = outer.protocol == said::UDP;
                assert_eq!(is_gue, self.serving == Serving::Gue, "{outer:?}");
                self.count("within another packet");
                self.led_as_it_came(&said, (&before, old), Some(outer.to));
            }
            _ => {
                assert_ne!(before.to, self.vip().ip(), "nothing to a VIP is routed");
                check_hop(new, old, &before);
                self.count("routed as it is");
            }
        }
    }

    /// A packet that went on within another one, or in a frame, whose MAC says nothing here.
    fn led_as_it_came(
        &mut self,
        said: &Said,
        (before, old): (&Naive, &[u8]),
        backend: Option<IpAddr>,
    ) {
        assert_eq!(before.to, self.vip().ip(), "{before:?}");
        match *said {
            Said::Ends(ends, _) | Said::Asks(ends) => {
                let port = if backend.is_some() { ends.to.port() } else { 0 };
                let to = SocketAddr::new(backend.unwrap_or(self.vip().ip()), port);
                self.lead(&ends, Ends { to, ..ends }, begins(&ends, before, old));
            }
            Said::Error(about) => {
                let client = (about.to, about.protocol);
                assert!(self.flows.contains_key(&client), "an error about nobody's {about:?}");
                self.count("an error to a backend");
            }
            Said::Later => self.count("a later part"),
            Said::Other | Said::Wrong => panic!("{said:?} is of no flow"),
        }
    }

    fn translated(
        &mut self,
        reason: Reason,
        said: &Said,
        (before, old): (&Naive, &[u8]),
        new: &[u8],
    ) {
        let after = Naive::parse(new).expect("what came out contradicts itself");
        assert_eq!(after.ttl + 1, before.ttl, "the hop is counted once");
        check_headers((before, old), (&after, new));
        let is_there = matches!(reason, Reason::ForwardedToBackend | Reason::ErrorToBackend);
        if let Said::Error(about) = *said {
            let about = self.about(is_there, about, (before.to, &after), new);
            check_quoted((before, old), (&after, new), about, true);
            self.count(if is_there { "an error to a backend" } else { "an error to a client" });
            return;
        }
        check_content((before, old), (&after, new), *said == Said::Later);
        match (*said, said::read(new, &after).0) {
            (Said::Later, _) => {
                self.count("a later part");
                self.follows(is_there, before, &after);
            }
            (Said::Ends(ends, _) | Said::Asks(ends), Said::Ends(out, _) | Said::Asks(out)) => {
                if is_there {
                    self.lead(&ends, out, begins(&ends, before, old));
                    self.count("to a backend");
                } else {
                    self.lead_back(&ends, &out);
                    self.count("to a client");
                }
            }
            other => panic!("{other:?}"),
        }
    }

    /// A client's packet reached a backend.
    fn lead(&mut self, there: &Ends, out: Ends, begins: bool) {
        assert_eq!(*there, self.of_client((there.from, there.protocol)), "of another service");
        let last = (1..=BACKENDS).find(|n| self.backend(*n) == out.to.ip());
        let client = (there.from, there.protocol);
        match self.serving {
            Serving::Nat => {
                assert_eq!(out.from.ip(), there.from.ip(), "{there:?}");
                let same = out.from.port() == there.from.port();
                assert!(same || is_echo(there.protocol), "{there:?} came from {out:?}");
            }
            Serving::FullNat | Serving::Across => {
                assert_eq!(out.from.ip(), self.source(), "{there:?}");
                let ports = FIRST_PORT..=FIRST_PORT + MORE_PORTS;
                assert!(ports.contains(&out.from.port()), "{there:?} came from {out:?}");
            }
            Serving::Directly | Serving::IpInIp | Serving::Gue => {}
        }
        if self.serving.sees_answers() {
            assert_eq!(out.to.port(), if is_echo(there.protocol) { 0 } else { 8080 });
            let others = self.flows.iter().filter(|(other, _)| **other != client);
            let same: Vec<_> = others.filter(|(_, after)| **after == Some(out)).collect();
            assert!(same.is_empty(), "{there:?} is not to be told from {same:?}");
        }
        let known = self.flows.insert(client, Some(out));
        if !matches!(known, Some(None)) && known != Some(Some(out)) {
            assert!(known.is_none() || begins, "{there:?} was led from {known:?} to {out:?}");
            if self.serving != Serving::Directly {
                assert!(last.is_some_and(|n| self.takers.contains(&n)), "{out:?} takes no flows");
            }
        }
    }

    /// A backend's packet reached a client.
    fn lead_back(&mut self, back: &Ends, out: &Ends) {
        let of = self.flows.iter().find(|(_, after)| **after == Some(back.reversed()));
        if let Some((client, _)) = of {
            assert_eq!(*out, self.of_client(*client).reversed(), "an answer to {client:?}");
            return;
        }
        assert_eq!(out.from, self.of_client((out.to, out.protocol)).to, "who answers {out:?}");
        let known = self.flows.get_mut(&(out.to, out.protocol));
        let known = known.expect("nobody asked for an answer");
        assert_eq!(*known, None, "an answer to {out:?} from {back:?}");
        *known = Some(back.reversed());
    }

    /// A part of a datagram goes where a flow between its ends does, if only one that nobody saw.
    fn follows(&self, is_there: bool, before: &Naive, after: &Naive) {
        let (old, new) = ((before.from, before.to), (after.from, after.to));
        let is_its = |(client, led): (&Client, &Option<Ends>)| {
            let there = self.of_client(*client);
            let ips = |ends: Ends| (ends.from.ip(), ends.to.ip());
            match (led, is_there) {
                (None, true) => ips(there) == old,
                (None, false) => ips(there.reversed()) == new,
                (Some(led), true) => (ips(there), ips(*led)) == (old, new),
                (Some(led), false) => (ips(led.reversed()), ips(there.reversed())) == (old, new),
            }
        };
        assert!(self.flows.iter().any(is_its), "of whose datagram is {before:?}: {after:?}");
    }

    /// What an error is to quote where it comes out.
    fn about(
        &self,
        is_there: bool,
        about: Ends,
        (to, after): (IpAddr, &Naive),
        new: &[u8],
    ) -> Ends {
        assert_eq!(to, about.from.ip(), "it is for who sent what it quotes");
        let seen = said::quoted(after.from, &new[after.transport.start + 8..after.transport.end]);
        let seen = seen.expect("it quotes what cannot be read");
        assert_eq!(after.to, seen.from.ip(), "for who sent what it quotes");
        if is_there {
            let led = self.flows.get(&(about.to, about.protocol)).expect("an error about nobody's");
            assert_eq!(about.from, self.of_client((about.to, about.protocol)).to);
            return led.map_or(seen, Ends::reversed);
        }
        assert_eq!(after.from, self.vip().ip(), "who tells of the error");
        let of = self.flows.iter().find(|(_, led)| **led == Some(about));
        match of {
            Some((client, _)) => self.of_client(*client),
            None => {
                let known = self.flows.get(&(seen.from, seen.protocol));
                assert_eq!(known, Some(&None), "an error about {about:?} to {seen:?}");
                seen
            }
        }
    }
}

fn is_echo(protocol: u8) -> bool {
    protocol == 1 || protocol == 58
}

/// SYN without ACK and RST.
fn begins(ends: &Ends, before: &Naive, old: &[u8]) -> bool {
    ends.protocol == TCP && old[before.transport.clone()][13] & 0b1_0110 == 0b10
}
