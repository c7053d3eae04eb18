//! The speaker and the resolver together, as the driver has them: what is chosen says what next hops lead to, and that says
//! what is chosen.

use super::*;
use crate::fib::{Fact, Fib, KernelNextHop, KernelRoute, KernelRouteKind, Link, RouteKey};

/// More changes than anything that settles takes.
const ENDLESS: usize = 1000;

struct Both {
    rig: Rig,
    fib: Fib,
    /// Changes of routes.
    changes: usize,
}

impl Both {
    /// Two neighbours, at addresses of a network of ours.
    fn new() -> (Self, [ConnId; 2]) {
        let peers = [1, 2].map(|number| peer(number, Import::All, Export::None));
        let mut rig = Rig::new(peers.to_vec());
        let conns = [rig.establish(1), rig.establish(2)];
        let mut both = Self { rig, fib: Fib::new([1, 2]), changes: 0 };
        both.fib.handle(Fact::Link(Link {
            ifindex: 1,
            name: "eth1".into(),
            mac: [1; 6],
            mtu: 1500,
            up: true,
            ethernet: true,
            controller: None,
            vlan: None,
        }));
        both.connected("10.0.0.0/16", true);
        (both, conns)
    }

    fn connected(&mut self, network: &str, present: bool) {
        let prefix = prefix(network);
        let key = RouteKey { prefix, metric: 0, tos: 0, source: None, local: false };
        let hop = KernelNextHop { ifindex: 1, gateway: None, weight: 1, mtu: None };
        let kind = KernelRouteKind::Unicast(vec![hop]);
        self.fib.handle(match present {
            true => Fact::KernelRoute(KernelRoute { key, kind }),
            false => Fact::KernelRouteGone(key),
        });
    }

    /// Until neither has anything more to say.
    fn settle(&mut self) {
        let limit = self.changes + ENDLESS;
        loop {
            let mut idle = true;
            while let Some(output) = self.rig.speaker.poll_output() {
                idle = false;
                self.carry_out(output);
            }
            while let Some(output) = self.fib.poll_output() {
                if let crate::fib::Output::NextHop { next_hop, reach } = output {
                    idle = false;
                    let now = self.rig.now;
                    self.rig.speaker.handle(Input::NextHop { next_hop, reach }, now);
                }
            }
            assert!(self.changes < limit, "it does not settle");
            if idle {
                return;
            }
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Routes(changes) => {
                self.changes += changes.len();
                for RouteChange { prefix, next_hops, install } in changes {
                    self.fib.handle(Fact::Bgp { prefix, next_hops, install });
                }
            }
            Output::NextHop { next_hop, wanted: true } => {
                let reach = self.fib.watch(next_hop);
                self.rig.speaker.handle(Input::NextHop { next_hop, reach }, self.rig.now);
            }
            Output::NextHop { next_hop, wanted: false } => self.fib.unwatch(next_hop),
            Output::Leading { prefix, by_level } => {
                self.fib.handle(Fact::Leading { prefix, by_level });
            }
            Output::Connect { .. }
            | Output::AbortConnect { .. }
            | Output::Send { .. }
            | Output::Close { .. }
            | Output::Event(_)
            | Output::Busy => {}
        }
    }

    /// Who told the best path of a prefix.
    fn best(&self, text: &str) -> Option<IpAddr> {
        let routes = self.rig.speaker.routes();
        routes.into_iter().find(|path| path.best && path.prefix == prefix(text))?.peer
    }
}

#[test]
fn a_path_is_not_chosen_for_the_route_that_takes_its_place() {
    let (mut both, [one, two]) = Both::new();
    let text = "172.16.0.0/12";
    both.connected("172.16.9.0/24", true);
    // The better path leads into the prefix itself, by way of a network of ours.
    both.rig.announce(one, &[65101], "172.16.9.1".parse().unwrap(), &[text]);
    both.rig.announce(two, &[65102, 7], neighbour(2), &[text]);
    both.settle();
    assert_eq!(both.best(text), Some(neighbour(1)));
    // Without that network the other path leads there: to itself, and that is no reason to choose it.
    both.connected("172.16.9.0/24", false);
    let before = both.changes;
    both.settle();
    assert_eq!((both.best(text), both.changes - before), (Some(neighbour(2)), 1));
    both.connected("172.16.9.0/24", true);
    both.settle();
    assert_eq!((both.best(text), both.changes - before), (Some(neighbour(1)), 2));
}

#[test]
fn routes_whose_choice_depends_on_each_other_in_a_ring_come_to_rest() {
    let (mut both, [one, two]) = Both::new();
    // Each one's better path leads into the next one.
    let ring = ["172.16.0.0/16", "172.17.0.0/16", "172.18.0.0/16"];
    both.rig.announce(two, &[65102, 7], neighbour(2), &ring);
    both.settle();
    let before = both.changes;
    for (place, text) in ring.iter().enumerate() {
        let next = ["172.17.0.1", "172.18.0.1", "172.16.0.1"][place];
        both.rig.announce(one, &[65101], next.parse().unwrap(), &[text]);
    }
    both.settle();
    assert_eq!(both.changes - before, 3, "once each");
    assert!(ring.iter().all(|text| both.best(text) == Some(neighbour(1))));
    // They rest on what the second neighbour tells: of one of them that is enough for all, of none it is not.
    both.rig.withdraw(two, &ring[..2]);
    both.settle();
    assert!(ring.iter().all(|text| both.best(text) == Some(neighbour(1))));
    both.rig.withdraw(two, &ring[2..]);
    both.settle();
    assert!(ring.iter().all(|text| both.best(text).is_none()));
}
