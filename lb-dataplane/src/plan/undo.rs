//! What a refused plan puts back: the services that it would have changed, and what it took and gave.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Held, Served};
use crate::table::ServiceKey;

/// The state before a plan, of what the plan touches.
pub(super) struct Undo {
    services: Vec<(ServiceKey, Option<Held>)>,
    addresses: BTreeMap<IpAddr, Option<usize>>,
    ranges: usize,
}

impl Undo {
    pub(super) fn of<'a>(served: &Served, keys: impl Iterator<Item = &'a ServiceKey>) -> Self {
        let services: Vec<_> = keys.map(|key| (*key, served.services.get(key).cloned())).collect();
        let addresses = services.iter().map(|(ServiceKey { address, .. }, _)| {
            (*address, served.addresses.get(address).copied())
        });
        let ranges = served.ranges;
        Self { addresses: addresses.collect(), services, ranges }
    }

    pub(super) fn restore(self, served: &mut Served) {
        for (key, held) in self.services {
            match held {
                Some(held) => served.hold(key, held),
                None => drop(served.release(&key)),
            }
        }
        for (address, services) in self.addresses {
            match services {
                Some(services) => served.addresses.insert(address, services),
                None => served.addresses.remove(&address),
            };
        }
        served.ranges = self.ranges;
        served.service_ids.undo();
        served.backend_ids.undo();
        served.rings.undo();
        served.lists.undo();
        served.sources.undo();
    }
}
