//! What a previous process served, read back from the maps, so that ids, rings and counters go on.

use std::collections::{BTreeSet, HashMap};

use lb_dataplane_common::list::List;
use lb_dataplane_common::service::{BACKEND_IN_USE, RangeKey, SourceEntry, VipKey};

use super::access::{self, Listed};
use super::entries::{address, address_of};
use super::ranges::{self, Ranges};
use super::ring::Digest;
use super::{Backends, Found, Held, Limits, Place, Served, ring};
use crate::table::{Protocol, ServiceKey};

impl Served {
    /// Rebuilds what is served. The next [`Served::plan`] compares each service with what is wanted.
    pub fn adopt(
        limits: Limits,
        found: Found<
            impl Fn(u32) -> Option<u32>,
            impl Fn(u32) -> Option<SourceEntry>,
            impl Fn(u32) -> Option<u64>,
        >,
    ) -> Self {
        let Found { services, backends, ring_word, source, lists, list_word, ranges } = found;
        let mut served = Self::new(limits);
        let mut by_service: HashMap<u32, Backends> = HashMap::new();
        let (mut given_out, mut services_given_out) = (0, 0);
        for (id, entry) in backends {
            served.note(id, &entry);
            if entry.address != [0; 16] {
                given_out = given_out.max(id + 1);
                // Of one that nobody asked for: none.
                services_given_out = services_given_out.max(entry.service.wrapping_add(1));
            }
            if entry.flags & BACKEND_IN_USE == 0 {
                continue;
            }
            let name = (address(entry.address), u16::from_be_bytes(entry.port));
            let place = Place { id, entry };
            served.sources.adopt(place.sources(), &source);
            by_service.entry(entry.service).or_default().insert(name, place);
        }
        let mut lists: HashMap<u32, List> = lists.into_iter().collect();
        let mut by_first: HashMap<VipKey, Ranges> = HashMap::new();
        for (prefix, first_port) in ranges {
            served.ranges += 1;
            let RangeKey { address, protocol: [_, protocol], .. } = prefix.1;
            let vip = VipKey { address, port: first_port.to_be_bytes(), protocol, pad: 0 };
            by_first.entry(vip).or_default().insert(prefix);
        }
        for (vip, entry) in services {
            let address = address_of(vip.address);
            let Some(key) = key(&vip) else {
                served.addresses.entry(address).or_insert(0);
                continue;
            };
            let ring = Digest::of(&ring::words(&entry, &ring_word));
            let backends = by_service.remove(&entry.id).unwrap_or_default();
            // One whose entry does not say that it has a list was about to get one, or had one.
            let list = if access::has_list(&entry) { lists.remove(&entry.id) } else { None };
            let listed = list.map(|list| {
                served.lists.reserve(list.first, list.nodes);
                Listed { list, digest: Digest::of(&access::there(list, &list_word)) }
            });
            let ranges = by_first.remove(&vip).unwrap_or_default();
            let more_ports = ranges::more_ports(&ranges);
            served.rings.reserve(entry.ring_base, ring.len);
            *served.addresses.entry(address).or_insert(0) += 1;
            let held = Held { wanted: None, entry, ring, backends, listed, more_ports, ranges };
            served.hold(key, held);
        }
        for (name, place) in by_service.into_values().flatten() {
            served.sources.give_back(place.sources());
            served.orphans.push((name, place));
        }
        served.lost_lists = lists.into_keys().collect();
        served.lost_ranges = by_first.into_values().flatten().collect();
        // What was given back here belongs to no plan.
        served.sources.settle();
        served.has_orphans = true;
        // Flows of backends and services that are gone go on: nobody is to get their ids, and with them what they count.
        let in_use: BTreeSet<u32> = served.services.values().map(|held| held.entry.id).collect();
        let orphans = || served.orphans.iter().map(|(_, place)| (place.id, place.entry.service));
        let left = || served.left.all().chain(orphans());
        let gone = left().map(|(_, service)| service).filter(|id| !in_use.contains(id)).collect();
        served.service_ids.reserve(in_use.iter().copied(), gone);
        let gone = left().map(|(id, _)| id).collect();
        let ids =
            served.services.values().flat_map(|held| held.backends.values().map(|place| place.id));
        served.backend_ids.reserve(ids, gone);
        served.backend_ids.put_behind(given_out);
        served.service_ids.put_behind(services_given_out);
        served
    }
}

/// The service that a key stands for; `None` for that of an address.
fn key(key: &VipKey) -> Option<ServiceKey> {
    let protocol = Protocol::from_number(key.protocol)?;
    let address = address_of(key.address);
    Some(ServiceKey { address, port: u16::from_be_bytes(key.port), protocol })
}
