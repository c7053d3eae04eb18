//! Backends that are to be in one service alone, since what comes from their address and port is to be its answer.

use std::collections::HashMap;
use std::net::IpAddr;

use lb_dataplane_common::service::BACKEND_ANSWERS_ALONE;

use super::{Held, PlanError, Served};
use crate::table::{Mode, Protocol, Service, ServiceKey};

impl Served {
    /// Whether those that are to be alone are. All services are looked at where some have such backends.
    pub(super) fn check_alone(
        &mut self,
        changed: &[(&ServiceKey, &Service)],
    ) -> Result<(), PlanError> {
        let wants = |service: &Service| service.hashes_when_full && service.mode == Mode::Nat;
        self.any_alone |= changed.iter().any(|(_, service)| wants(service));
        if !self.any_alone {
            return Ok(());
        }
        let mut owners: HashMap<(IpAddr, u16, Protocol), &ServiceKey> = HashMap::new();
        for (key, (address, port), alone) in self.users() {
            if alone && let Some(other) = owners.insert((address, port, key.protocol), key) {
                return Err(shared(address, port, key, other));
            }
        }
        for (key, (address, port), alone) in self.users() {
            if !alone && let Some(other) = owners.get(&(address, port, key.protocol)) {
                return Err(shared(address, port, key, other));
            }
        }
        Ok(())
    }

    /// Backends of all services, and whether each is to be alone.
    fn users(&self) -> impl Iterator<Item = (&ServiceKey, (IpAddr, u16), bool)> {
        let of = |held: &Held| {
            let backends = held.backends.iter();
            let alone = |entry: u8| entry & BACKEND_ANSWERS_ALONE != 0;
            backends.map(|(at, place)| (*at, alone(place.entry.flags))).collect::<Vec<_>>()
        };
        self.services.iter().flat_map(move |(key, held)| {
            of(held).into_iter().map(move |(at, alone)| (key, at, alone))
        })
    }
}

fn shared(address: IpAddr, port: u16, one: &ServiceKey, other: &ServiceKey) -> PlanError {
    PlanError::NotAlone {
        backend: address,
        at: port,
        vips: [(one.address, one.port), (other.address, other.port)],
    }
}
