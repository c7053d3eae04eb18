//! Whose each port of each address is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lb_api_types::vip::{Protocol, VipSpec};

/// VIPs' ports, no two alike, with something of each VIP.
#[derive(Clone, Debug)]
pub struct Ports<T>(BTreeMap<(IpAddr, Protocol, u16), (u16, T)>);

impl<T> Default for Ports<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Ports<T> {
    /// Adds a VIP's ports.
    ///
    /// # Errors
    ///
    /// What is there of a VIP that has one of them already. Nothing is added then.
    pub fn add(&mut self, spec: &VipSpec, of: T) -> Result<(), &T> {
        let (address, protocol, last) = (spec.address, spec.protocol, spec.last_port());
        // No two overlap, so only the last that begins within or below can.
        let overlaps = self.at(address, protocol, last).is_some_and(|(end, _)| *end >= spec.port);
        if !overlaps {
            self.0.insert((address, protocol, spec.port), (last, of));
            return Ok(());
        }
        self.at(address, protocol, last).map_or(Ok(()), |(_, other)| Err(other))
    }

    /// What is there of the VIP that has a port.
    pub fn of(&self, address: IpAddr, protocol: Protocol, port: u16) -> Option<&T> {
        self.at(address, protocol, port).filter(|(end, _)| *end >= port).map(|(_, of)| of)
    }

    /// The last that begins at a port or below.
    fn at(&self, address: IpAddr, protocol: Protocol, port: u16) -> Option<&(u16, T)> {
        let below = (address, protocol, 0)..=(address, protocol, port);
        self.0.range(below).next_back().map(|(_, found)| found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::registry::tests::vip;

    fn spec(port: u16, last_port: u16, protocol: Protocol) -> VipSpec {
        VipSpec { port, last_port: Some(last_port), protocol, ..vip("web", 1).spec }
    }

    proptest! {
        #[test]
        fn who_is_added_has_no_port_of_another(
            wanted in prop::collection::vec((1_u16..40, 0_u16..6, any::<bool>()), 1..20)
        ) {
            let (mut ports, mut added) = (Ports::default(), Vec::<(usize, VipSpec)>::new());
            for (n, (first, more, tcp)) in wanted.into_iter().enumerate() {
                let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
                let spec = spec(first, first + more, protocol);
                let in_the_way: Vec<_> =
                    added.iter().filter(|(_, other)| other.overlaps(&spec)).map(|(n, _)| *n).collect();
                match ports.add(&spec, n) {
                    Ok(()) => {
                        prop_assert!(in_the_way.is_empty(), "{spec:?} and {in_the_way:?}");
                        added.push((n, spec));
                    }
                    Err(other) => prop_assert!(in_the_way.contains(other), "{spec:?}"),
                }
            }
            for port in 1..50 {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    let one = spec(port, port, protocol);
                    let whose = added.iter().find(|(_, other)| other.overlaps(&one));
                    prop_assert_eq!(ports.of(one.address, protocol, port), whose.map(|(n, _)| n));
                }
            }
        }
    }
}
