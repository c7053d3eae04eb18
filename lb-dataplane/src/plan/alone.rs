//! Backends that are to be in one service alone, since what comes from their address and port is to be its answer.

use lb_dataplane_common::service::BACKEND_ANSWERS_ALONE;

use super::{Held, PlanError, Served};
use crate::owners::Ports;
use crate::table::{Protocol, Service, ServiceKey};

impl Served {
    /// Whether, of those that changed, those that are to be alone are, and no other has one of them.
    pub(super) fn check_alone(&self, changed: &[(&ServiceKey, &Service)]) -> Result<(), PlanError> {
        for (key, _) in changed {
            let Some(held) = self.services.get(key) else { continue };
            for ports in held.ports(key.protocol) {
                if let Some(other) = self.owners.in_the_way(key, ports).next() {
                    return Err(PlanError::NotAlone {
                        backend: ports.address,
                        at: ports.first,
                        vips: [(key.address, key.port), (other.address, other.port)],
                    });
                }
            }
        }
        Ok(())
    }

    /// Puts a service where it is found.
    pub(super) fn hold(&mut self, key: ServiceKey, held: Held) {
        self.release(&key);
        held.ports(key.protocol).for_each(|ports| self.owners.add(&key, ports));
        self.services.insert(key, held);
    }

    /// Takes it away from there.
    pub(super) fn release(&mut self, key: &ServiceKey) -> Option<Held> {
        let held = self.services.remove(key)?;
        held.ports(key.protocol).for_each(|ports| self.owners.remove(key, ports));
        Some(held)
    }
}

impl Held {
    /// Those of its backends.
    fn ports(&self, protocol: Protocol) -> impl Iterator<Item = Ports> {
        self.backends.iter().map(move |((address, first), place)| Ports {
            protocol,
            address: *address,
            first: *first,
            last: first.saturating_add(self.more_ports),
            is_alone: place.entry.flags & BACKEND_ANSWERS_ALONE != 0,
        })
    }
}
