//! From the service table that is served to the one that is wanted: a pure difference, as steps in a safe order.
//!
//! A service's new ring is written to free space, its backends before that, and then its entry is replaced as a whole: at
//! no step does a packet see a service whose ring is half written or names a backend that is not there. Space that a step
//! frees is written again only after a [`Step::Grace`].
//!
//! What a backend's entry says of sources goes with the mode, which is in the service's. So a service whose mode changes gets
//! its backends anew, and a packet meets all of the one or of the other.
//!
//! Backend ids belong to one service, whose counters are the sum of its backends'. Flows carry their own rewrite. A backend that goes
//! is marked as gone once no ring names it any more; what it counted, and counts until its last flow ends, stays its service's. Its id,
//! and that of a service that goes, are nobody else's until then: what bounds go by, and what flows live and end by, is theirs.

mod access;
mod adopt;
mod alone;
mod audit;
mod entries;
mod grace;
mod hosts;
mod left;
mod life;
mod order;
mod ranges;
mod ring;
mod sources;
mod space;
mod step;
#[cfg(test)]
mod tests;
mod undo;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZero;

use lb_dataplane_common::service::{BackendEntry, NO_SERVICE, ServiceEntry};

use self::access::Listed;
pub use self::audit::{Audit, Found};
pub(crate) use self::entries::words;
use self::entries::{
    Life, address_entry, address_key, algorithm, backend_entry, bounds, check, mode, mss,
    on_exhaustion, parted_entry, service_key,
};
pub use self::grace::Waiting;
pub(crate) use self::hosts::AloneAt;
use self::hosts::Hosts;
pub(crate) use self::left::Left;
pub use self::life::FlowLife;
pub use self::ranges::PortPrefix;
use self::ranges::Ranges;
use self::ring::Digest;
use self::sources::{Set, Sources};
use self::space::{Ids, Rings};
pub use self::step::{PlanError, Step};
use self::undo::Undo;
use crate::layout::service_ids;
use crate::owners::Owners;
use crate::table::{Backend, Change, Service, ServiceKey, Table};

/// Backends of one service at most.
pub const MAX_BACKENDS_PER_SERVICE: usize = 4096;
/// The id of an entry that stands for a VIP's address: it has no counters.
pub const NO_ID: u32 = NO_SERVICE;

/// How much the maps hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Services; `SERVICES` has as many entries again, for their addresses.
    pub services: u32,
    /// Entries of `BACKENDS`.
    pub backends: u32,
    /// Words of `RINGS`.
    pub ring_words: u32,
    /// Entries of `SOURCES`.
    pub sources: u32,
    /// Nodes in `ACCESS_NODES`.
    pub list_nodes: u32,
    /// Prefixes of all services that there is room for so.
    pub access: u32,
}

/// What is served now.
#[derive(Debug)]
pub struct Served {
    services: BTreeMap<ServiceKey, Held>,
    /// VIP addresses that have an entry of their own.
    addresses: BTreeMap<IpAddr, usize>,
    /// By backend id: what its entry says of its flows' life.
    lives: Vec<FlowLife>,
    /// What they say of addresses.
    hosts: Hosts,
    /// And of services that backends left.
    left: Left,
    /// Whose the backends' ports are.
    owners: Owners<ServiceKey>,
    /// Backends of no service, which a process left that ended between two steps.
    orphans: Vec<((IpAddr, u16), Place)>,
    /// Services that are gone whose lists were left in the same way.
    lost_lists: Vec<u32>,
    /// Prefixes of ports of no service, left in the same way.
    lost_ranges: Vec<PortPrefix>,
    /// Whether there may be such, or addresses without a service.
    has_orphans: bool,
    service_ids: Ids,
    backend_ids: Ids,
    rings: Rings,
    /// Nodes of lists.
    lists: Rings,
    sources: Sources,
    /// Changes with each grace period that what was given back has waited for.
    era: u64,
    /// Prefixes of ports of all services.
    ranges: usize,
    limits: Limits,
}

/// A service as it is served.
#[derive(Clone, Debug)]
struct Held {
    /// As it was asked for; unknown after adoption.
    wanted: Option<Service>,
    entry: ServiceEntry,
    ring: Digest,
    backends: Backends,
    listed: Option<Listed>,
    more_ports: u16,
    ranges: Ranges,
}

impl Held {
    fn ident(&self, key: &ServiceKey) -> Ident {
        let backends = self.backends.iter();
        let backends = backends.map(|((address, port), place)| (*address, *port, place.id));
        Ident { key: *key, id: self.entry.id, backends: backends.collect() }
    }
}

/// Backends of a service, by address and port.
type Backends = BTreeMap<(IpAddr, u16), Place>;

/// Where a backend is in `BACKENDS`, and what is said of it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    id: u32,
    entry: BackendEntry,
}

impl Place {
    fn sources(&self) -> Set {
        Set { base: self.entry.sources.base(), len: self.entry.sources.len() }
    }
}

/// The write with which a service parts with a backend.
fn parted(name: (IpAddr, u16), place: &Place) -> Step {
    Step::PutBackend { id: place.id, entry: parted_entry(name, &place.entry) }
}

/// A service with its ids, for counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ident {
    /// What clients connect to.
    pub key: ServiceKey,
    /// Its id, by which it has counters.
    pub id: u32,
    /// Its backends with the index of their counters.
    pub backends: Vec<(IpAddr, u16, u32)>,
}

impl Served {
    /// Nothing.
    pub fn new(limits: Limits) -> Self {
        Self {
            services: BTreeMap::new(),
            addresses: BTreeMap::new(),
            lives: vec![FlowLife::default(); limits.backends as usize],
            hosts: Hosts::default(),
            left: Left::default(),
            owners: Owners::default(),
            orphans: Vec::new(),
            lost_lists: Vec::new(),
            lost_ranges: Vec::new(),
            has_orphans: false,
            service_ids: Ids::new(service_ids(limits.services)),
            backend_ids: Ids::new(limits.backends),
            rings: Rings::new(limits.ring_words),
            lists: Rings::new(limits.list_nodes),
            sources: Sources::new(limits.sources),
            era: 0,
            ranges: 0,
            limits,
        }
    }

    /// How much the maps hold.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The services with their ids.
    pub fn idents(&self) -> impl Iterator<Item = Ident> + '_ {
        self.services.iter().map(|(key, held)| held.ident(key))
    }

    /// A service with its ids.
    pub fn ident(&self, key: &ServiceKey) -> Option<Ident> {
        self.services.get(key).map(|held| held.ident(key))
    }

    /// Takes the steps that lead to `table`, which is then what is served.
    ///
    /// Services that don't change are compared, and nothing more.
    ///
    /// # Errors
    ///
    /// What cannot be served is refused as a whole: this is as before.
    pub fn plan(&mut self, table: &Table) -> Result<Vec<Step>, PlanError> {
        let gone = self.services.keys().filter(|key| !table.services.contains_key(key));
        let gone: Vec<ServiceKey> = gone.copied().collect();
        let changed = table.services.iter().filter(|(key, service)| self.differs(key, service));
        self.steps(&gone, &changed.collect::<Vec<_>>())
    }

    /// Takes the steps of a change, whose cost is that of what changes.
    ///
    /// # Errors
    ///
    /// As for [`Served::plan`].
    pub fn change(&mut self, change: &Change) -> Result<Vec<Step>, PlanError> {
        let (mut gone, mut changed) = (Vec::new(), Vec::new());
        for (key, service) in &change.services {
            match service {
                None if self.services.contains_key(key) => gone.push(*key),
                Some(service) if self.differs(key, service) => changed.push((key, service)),
                None | Some(_) => {}
            }
        }
        self.steps(&gone, &changed)
    }

    fn differs(&self, key: &ServiceKey, service: &Service) -> bool {
        let held = self.services.get(key);
        held.is_none_or(|held| held.wanted.as_ref() != Some(service))
    }

    fn steps(
        &mut self,
        gone: &[ServiceKey],
        changed: &[(&ServiceKey, &Service)],
    ) -> Result<Vec<Step>, PlanError> {
        self.check_room(gone, changed)?;
        changed.iter().try_for_each(|(key, service)| check(key, service))?;
        let mut steps = Vec::new();
        if !gone.is_empty() || !changed.is_empty() {
            let keys = gone.iter().chain(changed.iter().map(|(key, _)| *key));
            let undo = Undo::of(self, keys);
            let late = self.late(gone, changed);
            let carried = self.carry(gone, changed, &mut steps);
            if let Err(error) = carried.and_then(|()| self.check_alone(changed)) {
                undo.restore(self);
                return Err(error);
            }
            self.service_ids.settle();
            self.backend_ids.settle();
            self.rings.settle();
            self.lists.settle();
            self.sources.settle();
            self.sort(&mut steps, late);
            self.era += u64::from(steps.contains(&Step::Grace));
        }
        self.drop_orphans(&mut steps);
        Ok(steps)
    }

    fn carry(
        &mut self,
        gone: &[ServiceKey],
        changed: &[(&ServiceKey, &Service)],
        steps: &mut Vec<Step>,
    ) -> Result<(), PlanError> {
        // An address that loses one service and gets another is a VIP all the while.
        let stay: BTreeSet<IpAddr> = changed.iter().map(|(key, _)| key.address).collect();
        gone.iter().for_each(|key| self.remove(key, stay.contains(&key.address), steps));
        changed.iter().try_for_each(|(key, service)| self.put(key, service, steps))
    }

    /// What a process left that ended between two steps: backends, lists and prefixes of no service, which go before their places
    /// are taken, and addresses without a service.
    fn drop_orphans(&mut self, steps: &mut Vec<Step>) {
        if !self.has_orphans {
            return;
        }
        self.has_orphans = false;
        self.ranges -= self.lost_ranges.len();
        let backends = self.orphans.drain(..);
        let backends = backends.map(|(name, place)| parted(name, &place));
        let lists = self.lost_lists.drain(..).map(|service| Step::RemoveList { service });
        let ranges = self.lost_ranges.drain(..).map(|prefix| Step::RemoveRange { prefix });
        steps.splice(0..0, backends.chain(lists).chain(ranges).collect::<Vec<_>>());
        let addresses = self.addresses.extract_if(.., |_, services| *services == 0);
        steps.extend(addresses.map(|(a, _)| Step::RemoveService { key: address_key(a) }));
    }

    /// Whether there is room for so many services.
    fn check_room(
        &self,
        gone: &[ServiceKey],
        changed: &[(&ServiceKey, &Service)],
    ) -> Result<(), PlanError> {
        let new = changed.iter().filter(|(key, _)| !self.services.contains_key(key)).count();
        let wanted = self.services.len() - gone.len() + new;
        let limit = self.limits.services;
        if wanted > limit as usize {
            Err(PlanError::TooManyServices { wanted, limit })
        } else {
            Ok(())
        }
    }

    fn put(
        &mut self,
        key: &ServiceKey,
        service: &Service,
        steps: &mut Vec<Step>,
    ) -> Result<(), PlanError> {
        let address = key.address;
        let old = self.release(key);
        ranges::check_others(key, service, &self.services)?;
        let mut known = old.as_ref().map(|held| held.backends.clone()).unwrap_or_default();
        let changes_mode = old.as_ref().is_some_and(|held| held.entry.mode != mode(service.mode));
        let id = match &old {
            Some(held) => held.entry.id,
            None => {
                let full = PlanError::ServicesHeld(self.limits.services);
                let id = self.service_ids.take().ok_or(full)?;
                steps.push(Step::ClearService { id });
                id
            }
        };
        let (mut backends, life) = (BTreeMap::new(), Life::of(key, service));
        for backend in &service.backends {
            let name = (backend.address, backend.port);
            if let Entry::Vacant(slot) = backends.entry(name) {
                let place = if changes_mode { None } else { known.remove(&name) };
                slot.insert(self.place(name, backend, place, (id, life), steps)?);
            }
        }
        let (words, ring_len) = ring::whole(service, &backends);
        let ring = Digest::of(&words);
        let listed = self.list(id, &service.access, old.as_ref(), steps)?;
        let mut entry = self.entry(id, service, (words, ring), old.as_ref(), steps)?;
        entry.ring_len = ring_len;
        entry.flags = access::flags(listed) | bounds(service);
        if old.as_ref().is_none_or(|held| held.entry != entry) {
            self.announce(address, key, entry, old.is_none(), steps);
        }
        let more_ports = service.more_ports;
        let ranges = ranges::prefixes(key, more_ports);
        let none = Ranges::new();
        let old_ranges = old.as_ref().map_or(&none, |held| &held.ranges);
        ranges::write(key.port, old_ranges, &ranges, &mut self.ranges, steps)?;
        ranges::remove(old_ranges, &ranges, &mut self.ranges, steps);
        if let Some(held) = &old
            && held.entry.ring_base != entry.ring_base
        {
            self.rings.give_back(held.entry.ring_base, held.ring.len);
        }
        self.part_with(known, steps);
        self.part_with_list(id, old.as_ref().and_then(|held| held.listed), listed, steps);
        let wanted = Some(service.clone());
        let held = Held { wanted, entry, ring, backends, listed, more_ports, ranges };
        self.hold(*key, held);
        Ok(())
    }

    /// A backend's place, the one that it has or a new one, written.
    fn place(
        &mut self,
        name: (IpAddr, u16),
        backend: &Backend,
        known: Option<Place>,
        service: (u32, Life),
        steps: &mut Vec<Step>,
    ) -> Result<Place, PlanError> {
        let sources = self.sources.take(&backend.sources, steps)?;
        let entry = backend_entry(name, backend, service, sources);
        // A place that is kept has its list already.
        if let Some(place) = known {
            self.sources.give_back(place.sources());
        }
        let id = match known {
            Some(place) if place.entry == entry => return Ok(place),
            Some(place) => place.id,
            None => {
                let full = PlanError::BackendsFull(self.limits.backends);
                let id = self.backend_ids.take().ok_or(full)?;
                steps.push(Step::ClearBackend { id });
                id
            }
        };
        steps.push(Step::PutBackend { id, entry });
        Ok(Place { id, entry })
    }

    /// Marks backends as gone and gives their ids back.
    fn part_with(&mut self, backends: Backends, steps: &mut Vec<Step>) {
        for (name, place) in backends {
            steps.push(parted(name, &place));
            self.sources.give_back(place.sources());
            self.backend_ids.give_back(place.id);
        }
    }

    /// The entry with its ring written; the old ring serves where it says the same.
    fn entry(
        &mut self,
        id: u32,
        service: &Service,
        (words, ring): (Vec<u32>, Digest),
        old: Option<&Held>,
        steps: &mut Vec<Step>,
    ) -> Result<ServiceEntry, PlanError> {
        // Also while no backend takes flows: a ring that never fits is refused when it is asked for, not when health is back.
        if let Some(wanted) = ring::asked(service).filter(|len| *len > self.limits.ring_words) {
            return Err(PlanError::RingsFull { wanted, slots: self.limits.ring_words });
        }
        let ring_base = match old {
            Some(held) if held.ring == ring => held.entry.ring_base,
            _ if words.is_empty() => 0,
            _ => {
                let slots = self.limits.ring_words;
                let full = PlanError::RingsFull { wanted: ring.len, slots };
                let base = self.rings.take(ring.len, steps).ok_or(full)?;
                steps.push(Step::WriteRing { base, words });
                base
            }
        };
        Ok(ServiceEntry {
            id,
            ring_base,
            ring_len: 0,
            algorithm: algorithm(service.algorithm),
            flags: 0,
            mode: mode(service.mode),
            on_exhaustion: on_exhaustion(service.on_exhaustion),
            affinity: service.affinity.map_or(0, NonZero::get),
            max_flows: service.max_flows.map_or(0, NonZero::get),
            max_flows_per_client: service.max_flows_per_client.map_or(0, NonZero::get),
            mss: service.mss_clamp.map_or(0, mss),
            generation: 0,
        })
    }

    fn announce(
        &mut self,
        address: IpAddr,
        key: &ServiceKey,
        entry: ServiceEntry,
        new: bool,
        steps: &mut Vec<Step>,
    ) {
        if new {
            // One that has none stands in the map still.
            let services = self.addresses.entry(address).or_insert_with(|| {
                steps.push(Step::PutService { key: address_key(address), entry: address_entry() });
                0
            });
            *services += 1;
        }
        steps.push(Step::PutService { key: service_key(key), entry });
    }

    fn remove(&mut self, key: &ServiceKey, address_stays: bool, steps: &mut Vec<Step>) {
        let address = key.address;
        let Some(held) = self.release(key) else { return };
        ranges::remove(&held.ranges, &Ranges::new(), &mut self.ranges, steps);
        steps.push(Step::RemoveService { key: service_key(key) });
        if let Some(services) = self.addresses.get_mut(&address) {
            *services -= 1;
            if *services == 0 && !address_stays {
                self.addresses.remove(&address);
                steps.push(Step::RemoveService { key: address_key(address) });
            }
        }
        self.rings.give_back(held.entry.ring_base, held.ring.len);
        self.service_ids.give_back(held.entry.id);
        self.part_with_list(held.entry.id, held.listed, None, steps);
        self.part_with(held.backends, steps);
    }
}
