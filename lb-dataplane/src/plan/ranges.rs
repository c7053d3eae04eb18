//! Which service of several ports a port belongs to: the prefixes in `RANGES`.

use std::collections::{BTreeMap, BTreeSet};

use lb_dataplane_common::service::{MAX_RANGE_PREFIXES, RANGE_KEY_BITS, RangeKey};

use super::entries::{service_key, words};
use super::{Held, PlanError, Step};
use crate::table::{Protocol, Service, ServiceKey};

/// A prefix as `RANGES` has it: its length in bits, and what it is of.
pub type PortPrefix = (u32, RangeKey);

/// The prefixes of a service; none if it has one port only.
pub(super) type Ranges = BTreeSet<PortPrefix>;

const PORT_BITS: u32 = 16;

/// The fewest prefixes that hold exactly the ports of a service.
pub(super) fn prefixes(key: &ServiceKey, more_ports: u16) -> Ranges {
    if more_ports == 0 {
        return Ranges::new();
    }
    let protocol = u16::from(service_key(key).protocol).to_be_bytes();
    let address = words(key.address);
    let mut prefixes = Ranges::new();
    let (mut at, end) = (u32::from(key.port), u32::from(key.port) + u32::from(more_ports) + 1);
    while at < end {
        // As many ports as both their alignment and what is left allow.
        let free_bits = at.trailing_zeros().min((end - at).ilog2());
        let [_, _, high, low] = at.to_be_bytes();
        let bits = RANGE_KEY_BITS + PORT_BITS - free_bits;
        prefixes.insert((bits, RangeKey { address, protocol, port: [high, low] }));
        at += 1 << free_bits;
    }
    prefixes
}

/// Writes what is not there, behind the service's entry.
pub(super) fn write(
    first_port: u16,
    old: &Ranges,
    new: &Ranges,
    in_use: &mut usize,
    steps: &mut Vec<Step>,
) -> Result<(), PlanError> {
    for prefix in new.difference(old) {
        *in_use += 1;
        steps.push(Step::PutRange { prefix: *prefix, first_port });
    }
    if *in_use > MAX_RANGE_PREFIXES as usize { Err(PlanError::RangesFull) } else { Ok(()) }
}

/// Removes what is no more.
pub(super) fn remove(old: &Ranges, new: &Ranges, in_use: &mut usize, steps: &mut Vec<Step>) {
    for prefix in old.difference(new) {
        *in_use = in_use.saturating_sub(1);
        steps.push(Step::RemoveRange { prefix: *prefix });
    }
}

/// How many ports follow the first one, as the prefixes of a service say.
pub(super) fn more_ports(ranges: &Ranges) -> u16 {
    let ports: u32 = ranges.iter().map(|(bits, _)| 1 << (RANGE_KEY_BITS + PORT_BITS - bits)).sum();
    u16::try_from(ports.saturating_sub(1)).unwrap_or(u16::MAX)
}

/// Whether a service's ports are there, at its backends too.
pub(super) fn check(key: &ServiceKey, service: &Service) -> Result<(), PlanError> {
    let ServiceKey { address, port, protocol } = *key;
    if protocol == Protocol::Icmp {
        let mut backends = service.backends.iter();
        let has_none = port == 0 && service.more_ports == 0 && backends.all(|b| b.port == 0);
        return if has_none { Ok(()) } else { Err(PlanError::EchoPort(address)) };
    }
    if port == 0 {
        return Err(PlanError::PortZero(address));
    }
    let firsts = service.backends.iter().map(|backend| backend.port).chain([port]);
    for first in firsts {
        if first.checked_add(service.more_ports).is_none() {
            return Err(PlanError::PortsEnd { address, port, first, more: service.more_ports });
        }
    }
    Ok(())
}

/// Whether no other service has a port of this one. Changes come in the order of ports, so one that gives ports away
/// does so before another takes them.
pub(super) fn check_others(
    key: &ServiceKey,
    service: &Service,
    others: &BTreeMap<ServiceKey, Held>,
) -> Result<(), PlanError> {
    let ServiceKey { address, port, protocol } = *key;
    let last = port.saturating_add(service.more_ports);
    let is_near = |other: &ServiceKey| other.address == address;
    // Of services that do not overlap, the next below is the only one that may reach this one's ports.
    let mut below = others.range(..key).rev().take_while(|(other, _)| is_near(other));
    let below = below.find(|(other, _)| other.protocol == protocol);
    let below = below.filter(|(other, held)| other.port.saturating_add(held.more_ports) >= port);
    let above = others.range(key..).take_while(|(other, _)| is_near(other) && other.port <= last);
    let above = above.into_iter().find(|(other, _)| other.protocol == protocol);
    match below.or(above) {
        Some((other, _)) => Err(PlanError::PortsOverlap { address, port, other: other.port }),
        None => Ok(()),
    }
}

/// Whether a prefix holds a port.
#[cfg(test)]
pub(super) fn holds((bits, key): &PortPrefix, port: u16) -> bool {
    let free = RANGE_KEY_BITS + PORT_BITS - bits;
    u32::from(u16::from_be_bytes(key.port)) >> free == u32::from(port) >> free
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_port_of_a_range_is_in_one_prefix_and_no_other_port_in_any(
            first in 1_u16.., more in 0_u16.., port: u16
        ) {
            let more = more.min(u16::MAX - first);
            let key = ServiceKey { address: [192, 0, 2, 1].into(), port: first, protocol: Protocol::Tcp };
            let prefixes = prefixes(&key, more);
            prop_assert!(prefixes.len() <= 30, "{}", prefixes.len());
            prop_assert_eq!(more_ports(&prefixes), more);
            for port in [port, first, first - 1, first + more, (first + more).saturating_add(1)] {
                let is_in = more > 0 && (first..=first + more).contains(&port);
                let found = prefixes.iter().filter(|prefix| holds(prefix, port)).count();
                prop_assert_eq!(found, usize::from(is_in), "{}", port);
            }
        }
    }
}
