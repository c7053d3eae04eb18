//! Which VIPs have backends in common that one of them is to have alone.

use lb_api_types::vip::{Backend, Vip, VipSpec};
use lb_dataplane::owners::{Owners, Ports};

use super::key;

/// The ports of VIPs' backends, with the VIPs' names.
#[derive(Clone, Debug, Default)]
pub struct Shares(Owners<String>);

impl Shares {
    /// Adds those of a VIP.
    pub fn add(&mut self, vip: &Vip) {
        ports(&vip.spec).for_each(|(_, ports)| self.0.add(&vip.metadata.name, ports));
    }

    /// Takes those of a VIP away that were added so.
    pub fn remove(&mut self, vip: &Vip) {
        ports(&vip.spec).for_each(|(_, ports)| self.0.remove(&vip.metadata.name, ports));
    }

    /// Other VIPs that have a port of a backend of one, where one of both is to have it alone, each with this backend.
    pub fn with<'a>(&'a self, vip: &'a Vip) -> impl Iterator<Item = (&'a String, &'a Backend)> {
        ports(&vip.spec).flat_map(|(backend, ports)| {
            let others = self.0.in_the_way(&vip.metadata.name, ports);
            others.map(move |other| (other, backend))
        })
    }
}

/// A range of ports leads to as many of each backend.
fn ports(spec: &VipSpec) -> impl Iterator<Item = (&Backend, Ports)> {
    let (protocol, is_alone) = (key(spec).protocol, spec.answers_alone());
    let more = spec.last_port().saturating_sub(spec.port);
    spec.backends.iter().map(move |backend| {
        let (address, first) = (backend.address, backend.port);
        let last = first.saturating_add(more);
        (backend, Ports { protocol, address, first, last, is_alone })
    })
}
