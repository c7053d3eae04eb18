//! The VIPs with what they are looked up by, and what was touched since: so that a change costs what it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_api_types::vip::{Backend, Vip, VipSpec};
use lb_dataplane::table::{Protocol, ServiceKey};

use super::{Shares, Vips, key, targets_of};
use crate::health::Target;

/// VIPs by name, of which no two have the same address and protocol and a port in common.
#[derive(Debug, Default)]
pub struct Book {
    vips: Vips,
    by_key: BTreeMap<ServiceKey, String>,
    by_address: BTreeMap<IpAddr, BTreeSet<String>>,
    by_target: BTreeMap<Target, BTreeSet<String>>,
    shares: Shares,
    touched: Touched,
}

/// What may be other than it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Services.
    pub keys: BTreeSet<ServiceKey>,
    /// Addresses of VIPs.
    pub addresses: BTreeSet<IpAddr>,
    /// What is or was checked.
    pub targets: BTreeSet<Target>,
}

impl Book {
    /// All of them.
    pub fn vips(&self) -> &Vips {
        &self.vips
    }

    /// Puts a VIP in the place of the one of this name, or takes that away; returns what was there.
    pub fn set(&mut self, name: &str, vip: Option<Vip>) -> Option<Vip> {
        let old = self.vips.remove(name);
        if let Some(old) = &old {
            let (key, address) = (key(&old.spec), old.spec.address);
            // Of two that change places, the other one may have this one's already.
            if self.by_key.get(&key).is_some_and(|holder| holder == name) {
                self.by_key.remove(&key);
            }
            strike(&mut self.by_address, &address, name);
            self.shares.remove(old);
            for target in targets_of(&old.spec) {
                strike(&mut self.by_target, &target, name);
            }
            self.touch_vip(old);
        }
        if let Some(vip) = vip {
            self.by_key.insert(key(&vip.spec), name.to_owned());
            self.shares.add(&vip);
            self.by_address.entry(vip.spec.address).or_default().insert(name.to_owned());
            for target in targets_of(&vip.spec) {
                self.by_target.entry(target).or_default().insert(name.to_owned());
            }
            self.touch_vip(&vip);
            self.vips.insert(name.to_owned(), vip);
        }
        old
    }

    fn touch_vip(&mut self, vip: &Vip) {
        self.touched.keys.insert(key(&vip.spec));
        self.touched.addresses.insert(vip.spec.address);
        self.touched.targets.extend(targets_of(&vip.spec));
    }

    /// Notes that something else is known of the health of a target.
    pub fn touch(&mut self, target: &Target) {
        for name in self.by_target.get(target).into_iter().flatten() {
            if let Some(vip) = self.vips.get(name) {
                self.touched.keys.insert(key(&vip.spec));
                self.touched.addresses.insert(vip.spec.address);
            }
        }
    }

    /// Notes that something else holds of every VIP.
    pub fn touch_all(&mut self) {
        self.touched.keys.extend(self.by_key.keys());
        self.touched.addresses.extend(self.by_address.keys());
        self.touched.targets.extend(self.by_target.keys());
    }

    /// What was touched since this was asked last.
    pub fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    /// The VIP that is this service.
    pub fn at(&self, key: &ServiceKey) -> Option<&Vip> {
        self.by_key.get(key).and_then(|name| self.vips.get(name))
    }

    /// The VIPs of an address, by name.
    pub fn of_address(&self, address: IpAddr) -> impl Iterator<Item = &Vip> {
        let names = self.by_address.get(&address).into_iter().flatten();
        names.filter_map(|name| self.vips.get(name))
    }

    /// Whether some VIP has this address.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.by_address.contains_key(&address)
    }

    /// The VIPs that have this checked, by name.
    pub fn of_target(&self, target: &Target) -> impl Iterator<Item = &String> {
        self.by_target.get(target).into_iter().flatten()
    }

    /// Whether some VIP has this checked.
    pub fn has_target(&self, target: &Target) -> bool {
        self.by_target.contains_key(target)
    }

    /// The VIPs that have the address and protocol of one and a port in common with it, itself included.
    pub fn overlapping<'a>(&'a self, spec: &'a VipSpec) -> impl Iterator<Item = &'a Vip> {
        let key = key(spec);
        let last = ServiceKey { port: spec.last_port(), protocol: Protocol::Icmp, ..key };
        let is_alike = move |other: &ServiceKey| {
            other.address == key.address && other.protocol == key.protocol
        };
        // Of those that begin below only the last one may reach this one: no two have a port in common.
        let below =
            self.by_key.range(..key).rev().take_while(move |(k, _)| k.address == key.address);
        let below = below.filter(move |(other, _)| is_alike(other)).take(1);
        let within = self.by_key.range(key..=last).filter(move |(other, _)| is_alike(other));
        let vips = below.chain(within).filter_map(|(_, name)| self.vips.get(name));
        vips.filter(move |other| other.spec.overlaps(spec))
    }

    /// Other VIPs that have a port of a backend in common with one, of which one is to have it alone.
    pub fn sharing<'a>(&'a self, vip: &'a Vip) -> impl Iterator<Item = (&'a Vip, &'a Backend)> {
        let others = self.shares.with(vip);
        others.filter_map(|(other, backend)| Some((self.vips.get(other)?, backend)))
    }

    /// Another VIP that has a port in common with one.
    pub fn clash<'a>(&'a self, vip: &'a Vip) -> Option<&'a Vip> {
        self.overlapping(&vip.spec).find(|other| other.metadata.name != vip.metadata.name)
    }
}

fn strike<K: Ord>(index: &mut BTreeMap<K, BTreeSet<String>>, key: &K, name: &str) {
    if let Some(names) = index.get_mut(key) {
        names.remove(name);
        if names.is_empty() {
            index.remove(key);
        }
    }
}
