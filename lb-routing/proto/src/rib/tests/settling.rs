//! What is chosen and which next hops are reached depend on each other: the table and the resolver together, as the driver
//! has them talk, come to rest, and where does not depend on what was before.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::*;
use crate::config::Decision;
use crate::fib::{
    Fact, Fib, KernelNextHop, KernelRoute, KernelRouteKind, Link, Output, OwnRoute, RouteKey,
};

/// Each level of recursion takes a round, and one more finds nothing to do.
const MAX_ROUNDS: usize = 8;

/// Prefixes that cover most of the next hops.
const PREFIXES: [&str; 8] = [
    "10.1.0.0/16",
    "10.2.0.0/16",
    "10.3.0.0/16",
    "10.1.1.0/24",
    "10.2.1.0/24",
    "10.0.0.2/32",
    "10.9.0.0/16",
    "0.0.0.0/0",
];
const NEXT_HOPS: [&str; 9] = [
    "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.1.0.1", "10.1.1.1", "10.2.0.1", "10.2.1.1", "10.3.0.1",
    "10.9.0.1",
];
/// Where others lead at times.
const OTHERS: [&str; 3] = ["10.9.0.0/24", "10.3.0.0/17", "0.0.0.0/0"];

#[derive(Clone, Debug)]
struct Told {
    next_hop: usize,
    local_pref: u32,
    med: Option<u32>,
    asn: u32,
}

#[derive(Clone, Debug)]
enum Step {
    /// What a neighbour tells of a prefix.
    Path(usize, u8, Option<Told>),
    /// Another's route, at this metric.
    Other(usize, Option<u32>),
    /// All comes to rest.
    Rest,
}

fn step() -> impl Strategy<Value = Step> {
    let told = (0..NEXT_HOPS.len(), 100_u32..103, prop::option::of(0_u32..3), 7_u32..9)
        .prop_map(|(next_hop, local_pref, med, asn)| Told { next_hop, local_pref, med, asn });
    let path = (0..PREFIXES.len(), 0_u8..4, prop::option::weighted(0.85, told));
    let other = (0..OTHERS.len(), prop::option::of(0_u32..3));
    prop_oneof![
        12 => path.prop_map(|(prefix, peer, told)| Step::Path(prefix, peer, told)),
        2 => other.prop_map(|(other, metric)| Step::Other(other, metric)),
        2 => Just(Step::Rest),
    ]
}

struct World {
    rib: Rib,
    fib: Fib,
    installed: BTreeMap<IpNetwork, OwnRoute>,
}

impl World {
    fn new(max_paths: usize) -> Self {
        Self::of(rib(max_paths))
    }

    fn of(rib: Rib) -> Self {
        let mut fib = Fib::new([1, 2]);
        fib.handle(Fact::Link(Link {
            ifindex: 1,
            name: "eth1".into(),
            mac: [1; 6],
            mtu: 1500,
            up: true,
            ethernet: true,
            controller: None,
            vlan: None,
        }));
        let mut world = Self { rib, fib, installed: BTreeMap::new() };
        world.other("10.0.0.0/24", Some(0), None);
        world
    }

    fn other(&mut self, text: &str, metric: Option<u32>, gateway: Option<IpAddr>) {
        for metric in 0..3 {
            let key = RouteKey { prefix: prefix(text), metric, tos: 0, source: None, local: false };
            self.fib.handle(Fact::KernelRouteGone(key));
        }
        if let Some(metric) = metric {
            let hop = KernelNextHop { ifindex: 1, gateway, weight: 1, mtu: None };
            let key = RouteKey { prefix: prefix(text), metric, tos: 0, source: None, local: false };
            let kind = KernelRouteKind::Unicast(vec![hop]);
            self.fib.handle(Fact::KernelRoute(KernelRoute { key, kind }));
        }
    }

    fn path(&mut self, prefix: &IpNetwork, peer: u8, told: Option<&Told>) {
        let source = Source::of(peer.into());
        let Some(Told { next_hop, local_pref, med, asn }) = told else {
            self.rib.remove(prefix, (source, 0));
            return;
        };
        let attributes = Attributes {
            as_path: AsPath::sequence(&[*asn]),
            local_pref: Some(*local_pref),
            med: *med,
            ..Attributes::default()
        };
        let next_hop = NEXT_HOPS[*next_hop].parse().ok();
        let attributes = self.rib.intern(&attributes, next_hop, source);
        let (received, stale, usage) = (attributes, false, Usage::Both);
        let path = PathEntry { received, attributes, path_id: 0, source, stale, usage };
        self.rib.insert(prefix, path);
        self.rib.release(attributes);
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Path(place, peer, told) => {
                self.path(&prefix(PREFIXES[*place]), *peer, told.as_ref());
            }
            Step::Other(place, metric) => self.other(OTHERS[*place], *metric, Some(hop(9))),
            Step::Rest => self.rest()?,
        }
        Ok(())
    }

    fn rest(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..MAX_ROUNDS {
            self.speak();
            if !self.resolve() {
                return Ok(());
            }
        }
        Err(TestCaseError::fail("it does not come to rest"))
    }

    fn speak(&mut self) {
        loop {
            let mut more = false;
            while let Some((next_hop, wanted)) = self.rib.next_hop_news() {
                if wanted {
                    let reach = self.fib.watch(next_hop);
                    self.rib.set_reach(next_hop, reach);
                } else {
                    self.fib.unwatch(next_hop);
                }
            }
            more |= self.rib.look_again();
            while let Some(change) = self.rib.next_change() {
                more = true;
                if let Some((prefix, next_hops, install)) = change.news {
                    self.fib.handle(Fact::Bgp { prefix, next_hops, install });
                }
            }
            while let Some((prefix, by_level)) = self.rib.next_lower() {
                self.fib.handle(Fact::Leading { prefix, by_level });
                more = true;
            }
            if !more {
                return;
            }
        }
    }

    /// Says whether a next hop is nearer or farther than before.
    fn resolve(&mut self) -> bool {
        let mut costs_changed = false;
        while let Some(output) = self.fib.poll_output() {
            match output {
                Output::NextHop { next_hop, reach } => {
                    self.rib.set_reach(next_hop, reach);
                    costs_changed = true;
                }
                Output::Install { prefix, route, .. } => match route {
                    Some(route) => drop(self.installed.insert(prefix, route)),
                    None => drop(self.installed.remove(&prefix)),
                },
                Output::Update(_) | Output::Resolve { .. } | Output::Busy => {}
            }
        }
        costs_changed
    }

    fn chosen(&self) -> BTreeMap<IpNetwork, Arc<[IpAddr]>> {
        self.rib.published().map(|(prefix, next_hops, _)| (prefix, next_hops)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn choice_and_reachability_come_to_rest_where_only_what_is_told_leads(
        steps in prop::collection::vec(step(), 1..60), max_paths in 1_usize..3,
    ) {
        let mut world = World::new(max_paths);
        let (mut paths, mut others) = (BTreeMap::new(), BTreeMap::new());
        for step in &steps {
            world.take(step)?;
            match step {
                Step::Path(place, peer, _) => drop(paths.insert((*place, *peer), step)),
                Step::Other(place, metric) => drop(others.insert(*place, (*metric, step))),
                Step::Rest => {}
            }
        }
        world.rest()?;
        // Whatever came before what holds now.
        let mut again = World::new(max_paths);
        for step in paths.values().rev().copied().chain(others.values().map(|(_, step)| *step)) {
            again.take(step)?;
        }
        again.rest()?;
        prop_assert_eq!(world.chosen(), again.chosen());
        prop_assert_eq!(&world.installed, &again.installed);
        // What is chosen can be forwarded, by neighbours on the link.
        let link = prefix("10.0.0.0/24");
        for chosen in world.chosen().keys() {
            let is_others = |(place, (metric, _)): (&usize, &(Option<u32>, _))| {
                metric.is_some() && prefix(OTHERS[*place]) == *chosen
            };
            let Some(OwnRoute::Via(hops)) = world.installed.get(chosen) else {
                prop_assert!(others.iter().any(is_others), "{} leads nowhere", chosen);
                continue;
            };
            prop_assert!(hops.iter().all(|hop| hop.gateway.is_some_and(|it| link.contains(it))));
        }
    }
}

/// Where the path that was there first stays, history counts, but all comes to rest as well.
fn where_the_first_path_stays() -> World {
    let decision = Decision { compare_router_id: false, ..Decision::USUAL };
    World::of(rib_by(decision, 1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn choice_and_reachability_come_to_rest_where_the_path_that_was_first_stays(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = where_the_first_path_stays();
        for step in &steps {
            world.take(step)?;
        }
        world.rest()?;
    }
}

#[test]
fn prefixes_that_lead_to_the_next_hops_of_each_others_better_paths_come_to_rest() {
    let mut world = World::new(1);
    let path = |prefix, peer, next_hop, local_pref| {
        Step::Path(prefix, peer, Some(Told { next_hop, local_pref, med: None, asn: 7 }))
    };
    // By neighbours on the link, and, better, by each other.
    let steps = [path(0, 0, 0, 100), path(0, 1, 5, 101), path(1, 0, 2, 100), path(1, 1, 3, 101)];
    for step in &steps {
        world.take(step).unwrap();
    }
    world.rest().unwrap();
    let first = world.chosen();
    let hops = |text: &str| first[&prefix(text)].to_vec();
    assert_eq!(hops("10.1.0.0/16"), ["10.2.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(hops("10.2.0.0/16"), ["10.1.0.1".parse::<IpAddr>().unwrap()]);
    // One of the neighbours goes: the other one carries both.
    world.take(&Step::Path(0, 0, None)).unwrap();
    world.rest().unwrap();
    let by = |world: &World, text: &str| match world.installed.get(&prefix(text)) {
        Some(OwnRoute::Via(hops)) => hops[0].gateway,
        Some(OwnRoute::Blackhole | OwnRoute::Unreachable | OwnRoute::Prohibit) | None => None,
    };
    for text in ["10.1.0.0/16", "10.2.0.0/16"] {
        assert_eq!(by(&world, text), Some(hop(3)), "{text}");
    }
    world.take(&Step::Path(1, 0, None)).unwrap();
    world.rest().unwrap();
    assert!(world.chosen().is_empty() && world.installed.is_empty());
}

#[test]
fn a_path_that_is_reached_at_a_lower_level_only_counts_there() {
    let mut world = where_the_first_path_stays();
    let path = |prefix, peer, next_hop| {
        Step::Path(prefix, peer, Some(Told { next_hop, local_pref: 100, med: None, asn: 7 }))
    };
    // Two networks, each by a neighbour on the link, and, better, by a longer prefix that leads into the other one. Once one
    // of them takes the better way, the longer prefix inside it leads nowhere in the end; yet the other one's way rests on it.
    let steps = [
        path(3, 0, 0),
        path(0, 1, 0),
        Step::Rest,
        path(1, 2, 0),
        path(1, 0, 6),
        path(4, 0, 3),
        path(3, 0, 5),
        path(0, 0, 4),
    ];
    for step in &steps {
        world.take(step).unwrap();
    }
    world.rest().unwrap();
}
