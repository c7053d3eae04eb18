//! What a refused plan puts back: the services that it would have changed, and what was free.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::sources::Sources;
use super::space::{Ids, Rings};
use super::{Held, Served};
use crate::table::ServiceKey;

/// The state before a plan, of what the plan touches.
pub(super) struct Undo {
    services: Vec<(ServiceKey, Option<Held>)>,
    addresses: BTreeMap<IpAddr, usize>,
    service_ids: Ids,
    backend_ids: Ids,
    rings: Rings,
    sources: Sources,
    access: usize,
}

impl Undo {
    pub(super) fn of<'a>(served: &Served, keys: impl Iterator<Item = &'a ServiceKey>) -> Self {
        Self {
            services: keys.map(|key| (*key, served.services.get(key).cloned())).collect(),
            addresses: served.addresses.clone(),
            service_ids: served.service_ids.clone(),
            backend_ids: served.backend_ids.clone(),
            rings: served.rings.clone(),
            sources: served.sources.clone(),
            access: served.access,
        }
    }

    pub(super) fn restore(self, served: &mut Served) {
        for (key, held) in self.services {
            match held {
                Some(held) => served.services.insert(key, held),
                None => served.services.remove(&key),
            };
        }
        served.addresses = self.addresses;
        served.service_ids = self.service_ids;
        served.backend_ids = self.backend_ids;
        served.rings = self.rings;
        served.sources = self.sources;
        served.access = self.access;
    }
}
