//! Routes and addresses of the configuration.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use lb_routing_proto::fib::{Fact, Source, StaticKind, StaticNextHop, StaticState};

use tokio::sync::oneshot;

use super::task::Task;
use crate::addresses::{AddressState, InterfaceAddress};
use crate::plan::RouteId;

/// A route of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticRoute {
    /// The destination, without host bits.
    pub prefix: IpNetwork,
    /// Its metric in the kernel: of routes to one destination the lowest counts. The speaker's have
    /// [`OWN_METRIC`](crate::OWN_METRIC), which is nobody else's.
    pub metric: u32,
    /// What it does.
    pub kind: StaticKind,
}

/// What the configuration says beside neighbours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statics {
    /// Routes; no two have both destination and metric.
    pub routes: Vec<StaticRoute>,
    /// Addresses of interfaces.
    pub addresses: Vec<InterfaceAddress>,
}

/// How a route of the configuration is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticRouteStatus {
    /// Its destination.
    pub prefix: IpNetwork,
    /// Its metric.
    pub metric: u32,
    /// The kernel has it.
    pub installed: bool,
    /// Packets that no longer route covers take it.
    pub used: bool,
    /// Whom they take instead, where there is a better route to the same destination.
    pub behind: Option<Source>,
    /// Why next hops cannot be reached.
    pub unreachable: Vec<String>,
    /// Why the kernel refuses it.
    pub refused: Option<String>,
}

/// How what the configuration says is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaticsStatus {
    /// Its routes.
    pub routes: Vec<StaticRouteStatus>,
    /// Its addresses.
    pub addresses: Vec<(InterfaceAddress, AddressState)>,
}

/// Next hops, the addresses that interfaces are to have, and whom to tell why a next hop cannot be reached.
pub(super) type Asked =
    (Vec<StaticNextHop>, Vec<InterfaceAddress>, oneshot::Sender<Vec<Option<String>>>);

impl Task {
    pub(super) fn set_statics(&mut self, Statics { routes, addresses }: Statics) {
        self.addresses.set(addresses.into_iter().collect::<BTreeSet<_>>());
        let by_key = |routes: &[StaticRoute]| {
            let pairs = routes.iter().map(|it| ((it.prefix, it.metric), it.kind.clone()));
            pairs.collect::<BTreeMap<_, _>>()
        };
        let before = by_key(self.statics.as_deref().unwrap_or_default());
        let mut wanted = by_key(&routes);
        let gone: Vec<_> = before.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        for (prefix, metric) in gone {
            self.fib.handle(Fact::Static { prefix, metric, kind: None });
        }
        wanted.retain(|key, kind| before.get(key) != Some(kind));
        for ((prefix, metric), kind) in wanted {
            self.fib.handle(Fact::Static { prefix, metric, kind: Some(kind) });
        }
        self.statics = Some(routes);
    }

    /// Answers whoever asks for the ways to next hops, once the kernel's routes are known.
    pub(super) fn tell_unreachable(&mut self) {
        if !self.started {
            return;
        }
        for (hops, addresses, answer) in std::mem::take(&mut self.asked) {
            // An asker that went away needs no answer.
            drop(answer.send(self.unreachable(&hops, &addresses)));
        }
    }

    /// Why each of these next hops cannot be reached, if so, where interfaces are to have these addresses.
    fn unreachable(
        &self,
        hops: &[StaticNextHop],
        addresses: &[InterfaceAddress],
    ) -> Vec<Option<String>> {
        let leads = |hop: &StaticNextHop, to: &InterfaceAddress| {
            let on = self.links.values().find(|link| link.name == to.interface);
            hop.interface.as_ref().is_none_or(|name| *name == to.interface)
                && on.is_some_and(|link| link.up)
                && hop.gateway.is_some_and(|gateway| {
                    to.address.contains(gateway) && to.address.ip() != gateway
                })
        };
        let why = |hop: &StaticNextHop| {
            let soon = addresses.iter().any(|address| leads(hop, address));
            if soon { None } else { self.fib.unreachable(hop) }
        };
        hops.iter().map(why).collect()
    }

    pub(super) fn statics_status(&self) -> StaticsStatus {
        let routes = self.statics.iter().flatten().filter_map(|route| {
            let StaticRoute { prefix, metric, .. } = *route;
            let StaticState { used, behind, unreachable } =
                self.fib.static_state(prefix, metric)?;
            let (id, ledger) = (RouteId { prefix, metric }, &self.plan.ledger);
            let (installed, refused) = (ledger.is_there(&id), ledger.why_not(&id));
            let refused = refused.map(str::to_owned);
            Some(StaticRouteStatus {
                prefix,
                metric,
                installed,
                used,
                behind,
                unreachable,
                refused,
            })
        });
        let addresses = self.addresses.wanted().iter();
        let addresses = addresses.map(|it| (it.clone(), self.addresses.state(it)));
        StaticsStatus { routes: routes.collect(), addresses: addresses.collect() }
    }
}
