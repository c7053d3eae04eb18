//! Whose the ports of backends are, where what comes from some of them is to be one owner's answer alone.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::table::Protocol;

/// Ports of a backend that an owner has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Their protocol.
    pub protocol: Protocol,
    /// The backend's address.
    pub address: IpAddr,
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
    /// Whether nobody else is to have one of them.
    pub is_alone: bool,
}

/// The ports of all owners: a look-up costs what it finds.
#[derive(Clone, Debug)]
pub struct Owners<K> {
    alone: Ends<K>,
    others: Ends<K>,
}

impl<K> Default for Owners<K> {
    fn default() -> Self {
        Self { alone: Ends::default(), others: Ends::default() }
    }
}

impl<K: Clone + Ord> Owners<K> {
    /// Has an owner have ports.
    pub fn add(&mut self, owner: &K, ports: Ports) {
        let ends = if ports.is_alone { &mut self.alone } else { &mut self.others };
        *ends.widths.entry(ports.last.saturating_sub(ports.first)).or_default() += 1;
        let old = ends.last.insert(at(ports, ports.first.into(), Some(owner)), ports.last);
        ends.forget(ports.first, old);
    }

    /// Takes ports away that were added so.
    pub fn remove(&mut self, owner: &K, ports: Ports) {
        let ends = if ports.is_alone { &mut self.alone } else { &mut self.others };
        let old = ends.last.remove(&at(ports, ports.first.into(), Some(owner)));
        ends.forget(ports.first, old);
    }

    /// Others that have one of these ports, where they or this owner are to have it alone.
    pub fn in_the_way<'a>(&'a self, owner: &'a K, ports: Ports) -> impl Iterator<Item = &'a K> {
        let others = ports.is_alone.then(|| self.others.with(ports));
        let found = self.alone.with(ports).chain(others.into_iter().flatten());
        found.filter(move |other| *other != owner)
    }
}

/// By protocol, address, first port (one more than a port has to end a range with) and owner.
type At<K> = (Protocol, IpAddr, u32, Option<K>);

fn at<K: Clone>(ports: Ports, first: u32, owner: Option<&K>) -> At<K> {
    (ports.protocol, ports.address, first, owner.cloned())
}

/// Ports, by the first: which the last is.
#[derive(Clone, Debug)]
struct Ends<K> {
    last: BTreeMap<At<K>, u16>,
    /// How far behind the first one the last one is, and how often so.
    widths: BTreeMap<u16, usize>,
}

impl<K> Default for Ends<K> {
    fn default() -> Self {
        Self { last: BTreeMap::new(), widths: BTreeMap::new() }
    }
}

impl<K: Clone + Ord> Ends<K> {
    /// Who has one of these ports: none begins further below than the widest reaches.
    fn with(&self, ports: Ports) -> impl Iterator<Item = &K> {
        let widest = self.widths.last_key_value().map_or(0, |(width, _)| *width);
        let below = at(ports, ports.first.saturating_sub(widest).into(), None);
        let end = at(ports, u32::from(ports.last) + 1, None);
        let found = self.last.range(below..end).filter(move |(_, last)| **last >= ports.first);
        found.filter_map(|((.., owner), _)| owner.as_ref())
    }

    /// Ports that there were are not there any more.
    fn forget(&mut self, first: u16, last: Option<u16>) {
        let Some(width) = last.map(|last| last.saturating_sub(first)) else { return };
        if let Some(count) = self.widths.get_mut(&width) {
            *count -= 1;
            if *count == 0 {
                self.widths.remove(&width);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn any_ports()(
            tcp: bool, host in 0_u8..2, first in prop_oneof![0_u16..12, 65_530..=u16::MAX], more in 0_u16..4, is_alone: bool
        ) -> Ports {
            Ports {
                protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
                address: IpAddr::from([10, 0, 0, host]),
                first,
                last: first.saturating_add(more),
                is_alone,
            }
        }
    }

    fn are_in_the_way(one: Ports, other: Ports) -> bool {
        (one.protocol, one.address) == (other.protocol, other.address)
            && one.first <= other.last
            && other.first <= one.last
            && (one.is_alone || other.is_alone)
    }

    proptest! {
        #[test]
        fn who_is_in_the_way_has_a_port_that_one_of_both_is_to_have_alone(
            all in prop::collection::vec((0_u8..6, any_ports()), 1..16),
            gone in 0_usize..16,
            of in 0_u8..6,
            asked in any_ports(),
        ) {
            let mut owners = Owners::default();
            let mut there: Vec<(u8, Ports)> = Vec::new();
            for (owner, ports) in all {
                // An owner has each first port of a backend once.
                let begins = |p: Ports| (p.protocol, p.address, p.first, p.is_alone);
                if there.iter().any(|(o, p)| *o == owner && begins(*p) == begins(ports)) {
                    continue;
                }
                owners.add(&owner, ports);
                there.push((owner, ports));
            }
            if gone < there.len() {
                let (owner, ports) = there.remove(gone);
                owners.remove(&owner, ports);
            }
            let mut found: Vec<u8> = owners.in_the_way(&of, asked).copied().collect();
            let expected = there.iter().filter(|(o, p)| *o != of && are_in_the_way(*p, asked));
            let mut expected: Vec<u8> = expected.map(|(o, _)| *o).collect();
            found.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
