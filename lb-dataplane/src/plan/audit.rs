//! Whether the maps hold what is served, entry by entry, and the steps that write again what does not.
//!
//! Packets write none of these maps, and neither does anybody but us: a difference is somebody else's write, or a defect.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::net::IpAddr;

use lb_dataplane_common::list::List;
use lb_dataplane_common::service::{
    BACKEND_IN_USE, BackendEntry, ServiceEntry, SourceEntry, VipKey,
};

use super::access::{self, Listed};
use super::entries::{address, address_entry, address_key, address_of, gone_entry, service_key};
use super::order::{self, Late};
use super::ranges::PortPrefix;
use super::ring::{self, Digest};
use super::{Served, Step};

/// Differences that are told one by one; the rest is counted.
const MAX_TOLD: usize = 20;

/// What the maps hold.
#[derive(Debug)]
pub struct Found<R, S, L> {
    /// `SERVICES`.
    pub services: Vec<(VipKey, ServiceEntry)>,
    /// `BACKENDS`, by id.
    pub backends: Vec<(u32, BackendEntry)>,
    /// A word of `RINGS`.
    pub ring_word: R,
    /// An entry of `SOURCES`.
    pub source: S,
    /// `ACCESS_LISTS`: by service those that are there.
    pub lists: Vec<(u32, List)>,
    /// A word of `ACCESS_NODES`.
    pub list_word: L,
    /// `RANGES`: the first port.
    pub ranges: Vec<(PortPrefix, u16)>,
}

/// What an audit of the service maps found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Services that were compared.
    pub services: usize,
    /// Backends that were compared.
    pub backends: usize,
    /// Entries of `SERVICES` that differ, are missing, or are there beyond what is served.
    pub wrong_services: usize,
    /// Entries of `BACKENDS` that differ, or are in use beyond what is served.
    pub wrong_backends: usize,
    /// Services whose ring differs.
    pub wrong_rings: usize,
    /// Lists of source addresses that differ.
    pub wrong_sources: usize,
    /// Access lists, and prefixes of port ranges, that differ, are missing, or are there beyond what is served.
    pub wrong_prefixes: usize,
    /// The first differences, a sentence each.
    pub told: Vec<String>,
    /// What makes the maps hold what is served, in an order that is safe for packets.
    pub steps: Vec<Step>,
}

impl Audit {
    /// How many differences there are.
    #[must_use]
    pub fn differences(&self) -> usize {
        let Self { wrong_services, wrong_backends, wrong_rings, .. } = *self;
        wrong_services + wrong_backends + wrong_rings + self.wrong_sources + self.wrong_prefixes
    }

    fn tell(&mut self, what: impl Display, how: &str, step: Step) {
        if self.told.len() < MAX_TOLD {
            self.told.push(format!("{what} {how}"));
        }
        self.steps.push(step);
    }
}

const OTHER: &str = "is not as written";
const MISSING: &str = "is missing";
const BEYOND: &str = "is there, and nobody asked for it";

impl Served {
    /// Compares what the maps hold with what is served.
    pub fn audit<R, S, L>(&self, found: &Found<R, S, L>) -> Audit
    where
        R: Fn(u32) -> Option<u32>,
        S: Fn(u32) -> Option<SourceEntry>,
        L: Fn(u32) -> Option<u64>,
    {
        let mut audit = Audit { services: self.services.len(), ..Audit::default() };
        self.audit_services(&found.services, &mut audit);
        self.audit_backends(&found.backends, &mut audit);
        self.audit_rings(&found.ring_word, &mut audit);
        for (base, entries) in self.sources.written() {
            if !(base..).zip(&entries).all(|(at, wanted)| (found.source)(at) == Some(*wanted)) {
                audit.wrong_sources += 1;
                let what = format!("the list of source addresses at {base}");
                audit.tell(what, OTHER, Step::WriteSources { base, entries });
            }
        }
        self.audit_lists(&found.lists, &found.list_word, &mut audit);
        self.audit_ranges(&found.ranges, &mut audit);
        order::sort(&mut audit.steps, &Late::default());
        audit
    }

    fn audit_services(&self, found: &[(VipKey, ServiceEntry)], audit: &mut Audit) {
        let services = self.services.iter().map(|(key, held)| (service_key(key), held.entry));
        let used = self.addresses.iter().filter(|(_, services)| **services > 0);
        let addresses = used.map(|(address, _)| (address_key(*address), address_entry()));
        let mut left: HashMap<VipKey, ServiceEntry> = found.iter().copied().collect();
        for (key, entry) in services.chain(addresses) {
            let there = left.remove(&key);
            if there != Some(entry) {
                audit.wrong_services += 1;
                let how = there.map_or(MISSING, |_| OTHER);
                audit.tell(named(&key), how, Step::PutService { key, entry });
            }
        }
        for key in left.into_keys() {
            audit.wrong_services += 1;
            audit.tell(named(&key), BEYOND, Step::RemoveService { key });
        }
    }

    fn audit_backends(&self, found: &[(u32, BackendEntry)], audit: &mut Audit) {
        let used = found.iter().filter(|(_, entry)| entry.flags & BACKEND_IN_USE != 0);
        let mut beyond: HashMap<u32, BackendEntry> = used.copied().collect();
        let there: HashMap<u32, BackendEntry> = found.iter().copied().collect();
        for (key, held) in &self.services {
            for ((address, port), place) in &held.backends {
                audit.backends += 1;
                beyond.remove(&place.id);
                if there.get(&place.id) != Some(&place.entry) {
                    audit.wrong_backends += 1;
                    let vip = named(&service_key(key));
                    let what = format!("the backend {} of {vip}", socket(*address, *port));
                    audit.tell(what, OTHER, Step::PutBackend { id: place.id, entry: place.entry });
                }
            }
        }
        for (id, entry) in beyond {
            audit.wrong_backends += 1;
            let name = (address(entry.address), u16::from_be_bytes(entry.port));
            let what = format!("a backend {} at {id}", socket(name.0, name.1));
            audit.tell(what, BEYOND, Step::PutBackend { id, entry: gone_entry(name) });
        }
    }

    fn audit_rings(&self, word: &impl Fn(u32) -> Option<u32>, audit: &mut Audit) {
        for (key, held) in &self.services {
            let base = held.entry.ring_base;
            let there: Vec<u32> = (base..).take(held.ring.len as usize).map_while(word).collect();
            if Digest::of(&there) != held.ring {
                audit.wrong_rings += 1;
                let what = format!("the ring of {}", named(&service_key(key)));
                // Of one that was adopted and not asked for since nobody knows another ring.
                let words = held.wanted.as_ref().map(|of| ring::whole(of, &held.backends).0);
                audit.tell(what, OTHER, Step::WriteRing { base, words: words.unwrap_or(there) });
            }
        }
    }

    fn audit_lists(
        &self,
        found: &[(u32, List)],
        word: &impl Fn(u32) -> Option<u64>,
        audit: &mut Audit,
    ) {
        let mut beyond: HashMap<u32, List> = found.iter().copied().collect();
        for (key, held) in &self.services {
            let Some(Listed { list, digest }) = held.listed else { continue };
            let place = beyond.remove(&held.entry.id);
            let there = access::there(list, word);
            if place == Some(list) && Digest::of(&there) == digest {
                continue;
            }
            audit.wrong_prefixes += 1;
            let what = format!("the list of who may use {}", named(&service_key(key)));
            let how = place.map_or(MISSING, |_| OTHER);
            // Of one that was adopted and not asked for since nobody knows another list.
            let words = held.wanted.as_ref().map(|of| access::words(&of.access));
            let words = words.unwrap_or(there);
            audit.tell(what, how, Step::WriteList { first: list.first, words });
            audit.steps.push(Step::PutList { service: held.entry.id, list });
        }
        for service in beyond.into_keys() {
            audit.wrong_prefixes += 1;
            audit.tell("a list of who may use a service", BEYOND, Step::RemoveList { service });
        }
    }

    fn audit_ranges(&self, found: &[(PortPrefix, u16)], audit: &mut Audit) {
        let mut ranges: BTreeMap<PortPrefix, u16> = found.iter().copied().collect();
        for (key, held) in &self.services {
            for &prefix in &held.ranges {
                let there = ranges.remove(&prefix);
                if there != Some(key.port) {
                    audit.wrong_prefixes += 1;
                    let what = format!("a prefix of the ports of {}", named(&service_key(key)));
                    let how = there.map_or(MISSING, |_| OTHER);
                    audit.tell(what, how, Step::PutRange { prefix, first_port: key.port });
                }
            }
        }
        for prefix in ranges.into_keys() {
            audit.wrong_prefixes += 1;
            audit.tell("a prefix of ports", BEYOND, Step::RemoveRange { prefix });
        }
    }
}

/// A key of `SERVICES` as people know it.
fn named(key: &VipKey) -> String {
    let address = address_of(key.address);
    let socket = socket(address, u16::from_be_bytes(key.port));
    match key.protocol {
        0 => format!("the address {address}"),
        6 => format!("the service tcp {socket}"),
        17 => format!("the service udp {socket}"),
        number => format!("the service {number} {socket}"),
    }
}

fn socket(address: IpAddr, port: u16) -> std::net::SocketAddr {
    (address, port).into()
}
