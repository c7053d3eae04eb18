//! Our routes in the kernel: VIPs', the speaker's and the configuration's.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use lb_routing_proto::fib::{BGP_METRIC, OwnRoute};

use crate::ledger::{Change, Ledger};

/// Destination and metric: no two routes of ours have both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RouteId {
    pub(crate) prefix: IpNetwork,
    pub(crate) metric: u32,
}

impl RouteId {
    /// The one of VIPs and of the speaker.
    pub(crate) const fn of(prefix: IpNetwork) -> Self {
        Self { prefix, metric: BGP_METRIC }
    }
}

/// A change of the kernel's routes.
pub(crate) type Op = Change<RouteId, OwnRoute>;

/// The plan.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    vips: BTreeSet<IpAddr>,
    /// Whether `set_vips` was called.
    vips_known: bool,
    /// What stands behind a VIP's route: the speaker's to the same address.
    hidden: HashMap<IpNetwork, OwnRoute>,
    pub(crate) ledger: Ledger<RouteId, OwnRoute>,
}

impl Plan {
    /// The speaker's route to a prefix, or one of the configuration.
    pub(crate) fn set(&mut self, id: RouteId, route: Option<OwnRoute>) {
        if id.metric != BGP_METRIC || !self.is_vip(&id.prefix) {
            return self.ledger.want(id, route);
        }
        match route {
            Some(route) => drop(self.hidden.insert(id.prefix, route)),
            None => drop(self.hidden.remove(&id.prefix)),
        }
    }

    /// Exactly these addresses are VIPs; returns those that come and those that go.
    pub(crate) fn set_vips(&mut self, vips: BTreeSet<IpAddr>) -> (Vec<IpAddr>, Vec<IpAddr>) {
        let come: Vec<_> = vips.difference(&self.vips).copied().collect();
        let go: Vec<_> = self.vips.difference(&vips).copied().collect();
        self.vips_known = true;
        self.change_vips(&come, &go);
        let stands_for_a_vip = |(id, route): &(RouteId, &OwnRoute)| {
            id.metric == BGP_METRIC && **route == OwnRoute::Unreachable
        };
        let left = self.ledger.stale().filter(stands_for_a_vip).map(|(id, _)| id);
        for id in left.collect::<Vec<_>>() {
            self.ledger.want(id, None);
        }
        (come, go)
    }

    /// These addresses are VIPs, too, and those are none any more.
    pub(crate) fn change_vips(&mut self, come: &[IpAddr], go: &[IpAddr]) {
        for vip in come.iter().filter(|vip| self.vips.insert(**vip)) {
            let prefix = IpNetwork::from(*vip);
            if let Some(route) = self.ledger.wanted(&RouteId::of(prefix)) {
                self.hidden.insert(prefix, route.clone());
            }
            self.ledger.want(RouteId::of(prefix), Some(OwnRoute::Unreachable));
        }
        for vip in go.iter().filter(|vip| self.vips.remove(*vip)) {
            let prefix = IpNetwork::from(*vip);
            self.ledger.want(RouteId::of(prefix), self.hidden.remove(&prefix));
        }
    }

    pub(crate) const fn vips_known(&self) -> bool {
        self.vips_known
    }

    fn is_vip(&self, prefix: &IpNetwork) -> bool {
        *prefix == IpNetwork::from(prefix.network()) && self.vips.contains(&prefix.network())
    }
}

#[cfg(test)]
mod tests;
