//! Addresses of this host's interfaces that the configuration asks for. Pure, like the ledger behind it.
//!
//! Invariant: an address that somebody else gave an interface is never removed, also where the configuration asks for the
//! same one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;

use crate::ledger::{Change, Ledger};

/// An address that an interface is to have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterfaceAddress {
    /// The interface's name.
    pub interface: String,
    /// The address, with the length of its network.
    pub address: IpNetwork,
}

/// Index of an interface, and an address of it.
pub(crate) type AddressKey = (u32, IpNetwork);

/// A change of the kernel's addresses.
pub(crate) type AddressOp = Change<AddressKey, ()>;

/// How an address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressState {
    /// The interface has it from us.
    Present,
    /// The interface has it from somebody else.
    Others,
    /// There is no such interface.
    NoInterface,
    /// The kernel is yet to answer.
    Pending,
    /// The kernel refuses it.
    Refused(String),
}

/// The addresses.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    wanted: BTreeSet<InterfaceAddress>,
    /// Whether `set` was called: before, what a previous process left stays.
    known: bool,
    links: BTreeMap<u32, String>,
    others: BTreeSet<AddressKey>,
    ledger: Ledger<AddressKey, ()>,
}

impl Addresses {
    /// Exactly these are to be there.
    pub(crate) fn set(&mut self, wanted: BTreeSet<InterfaceAddress>) {
        let before = std::mem::replace(&mut self.wanted, wanted);
        let changed: Vec<_> = before.symmetric_difference(&self.wanted).cloned().collect();
        for InterfaceAddress { interface, address } in changed {
            if let Some(ifindex) = self.index_of(&interface) {
                self.look_at((ifindex, address));
            }
        }
        if !std::mem::replace(&mut self.known, true) {
            self.ledger.end_of_stale();
        }
    }

    /// What is asked for.
    pub(crate) const fn wanted(&self) -> &BTreeSet<InterfaceAddress> {
        &self.wanted
    }

    /// A link is there, or has another name.
    pub(crate) fn link(&mut self, ifindex: u32, name: &str) {
        let before = self.links.insert(ifindex, name.to_owned());
        if before.as_deref() != Some(name) {
            self.look_at_link(ifindex, before.as_deref());
            self.look_at_link(ifindex, Some(name));
        }
    }

    /// A link is gone, and its addresses with it.
    pub(crate) fn link_gone(&mut self, ifindex: u32) {
        let Some(name) = self.links.remove(&ifindex) else { return };
        let of_it = self.wanted.iter().filter(|wanted| wanted.interface == name);
        for key in of_it.map(|wanted| (ifindex, wanted.address)).collect::<Vec<_>>() {
            self.ledger.lost(key);
            self.ledger.want(key, None);
        }
        self.others.retain(|(on, _)| *on != ifindex);
    }

    /// The kernel has an address.
    pub(crate) fn found(&mut self, key: AddressKey, ours: bool) {
        if !ours {
            if self.others.insert(key) {
                self.ledger.lost(key);
                self.look_at(key);
            }
            return;
        }
        match self.known {
            true => self.ledger.found(key, ()),
            false => self.ledger.left_behind(key, ()),
        }
    }

    /// The kernel no longer has it.
    pub(crate) fn gone(&mut self, key: AddressKey) {
        self.ledger.lost(key);
        if self.others.remove(&key) {
            self.look_at(key);
        }
    }

    /// See [`Ledger::next_batch`].
    pub(crate) fn next_batch(&mut self, max: usize, now: Instant) -> Vec<AddressOp> {
        self.ledger.next_batch(max, now)
    }

    /// See [`Ledger::succeeded`].
    pub(crate) fn succeeded(&mut self, op: AddressOp) {
        self.ledger.succeeded(op);
    }

    /// See [`Ledger::failed`].
    pub(crate) fn failed(&mut self, op: &AddressOp, why: String, now: Instant) -> Duration {
        self.ledger.failed(op.key(), why, now)
    }

    /// See [`Ledger::poll_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.ledger.poll_timeout()
    }

    /// How an address is that was asked for.
    pub(crate) fn state(&self, wanted: &InterfaceAddress) -> AddressState {
        let Some(ifindex) = self.index_of(&wanted.interface) else {
            return AddressState::NoInterface;
        };
        let key = (ifindex, wanted.address);
        match self.ledger.why_not(&key) {
            _ if self.others.contains(&key) => AddressState::Others,
            _ if self.ledger.is_there(&key) => AddressState::Present,
            Some(why) => AddressState::Refused(why.to_owned()),
            None => AddressState::Pending,
        }
    }

    fn index_of(&self, name: &str) -> Option<u32> {
        self.links.iter().find(|(_, link)| *link == name).map(|(ifindex, _)| *ifindex)
    }

    fn look_at_link(&mut self, ifindex: u32, name: Option<&str>) {
        let of_it = self.wanted.iter().filter(|wanted| Some(wanted.interface.as_str()) == name);
        for key in of_it.map(|wanted| (ifindex, wanted.address)).collect::<Vec<_>>() {
            self.look_at(key);
        }
    }

    fn look_at(&mut self, key: AddressKey) {
        let (ifindex, address) = key;
        let interface = self.links.get(&ifindex).cloned();
        let asked = interface.map(|interface| InterfaceAddress { interface, address });
        let wanted = asked.is_some_and(|asked| self.wanted.contains(&asked));
        self.ledger.want(key, (wanted && !self.others.contains(&key)).then_some(()));
    }
}

#[cfg(test)]
mod tests;
