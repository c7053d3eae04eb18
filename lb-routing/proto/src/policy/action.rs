//! What a statement does to a route that it matches.

use std::net::IpAddr;

use super::chain::{Change, Facts};
use super::community::{self, Community, CommunityPattern};
use crate::fib::Install;
use crate::wire::Origin;

/// Numbers that a statement puts in front of a path at most.
pub const MAX_PREPEND: u8 = 32;

/// What a statement does to a route that it matches, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC. On export to another AS, the only way to have one.
    pub med: Option<u32>,
    /// ORIGIN.
    pub origin: Option<Origin>,
    /// The next hop.
    pub next_hop: Option<NextHop>,
    /// On import, which tables have it.
    pub install: Option<Install>,
    /// Puts a number (ours if none) in front of the path so many times, [`MAX_PREPEND`] at most.
    pub prepend: Option<(Option<u32>, u8)>,
    /// Replaces all communities by these, of all kinds.
    pub communities: Option<Vec<Community>>,
    /// Removes these.
    pub remove_communities: Vec<CommunityPattern>,
    /// Adds these.
    pub add_communities: Vec<Community>,
}

/// What becomes of the next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// Ourselves (on export).
    Own,
    /// The neighbour's own address (on import).
    Peer,
    /// As it was learned (on export, to other ASes too).
    Unchanged,
    /// This one.
    Address(IpAddr),
}

impl Actions {
    /// Whether it leaves every route as it is.
    pub(super) fn are_none(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn apply(&self, facts: &Facts<'_>, change: &mut Change) {
        let attributes = &mut change.attributes;
        attributes.local_pref = self.local_pref.or(attributes.local_pref);
        if let Some(med) = self.med {
            attributes.med = Some(med);
            change.sets_med = true;
        }
        attributes.origin = self.origin.unwrap_or(attributes.origin);
        change.next_hop = self.next_hop.or(change.next_hop);
        change.install = self.install.or(change.install);
        if let Some((asn, times)) = self.prepend {
            for _ in 0..times.min(MAX_PREPEND) {
                attributes.as_path.prepend(asn.unwrap_or(facts.our_as));
            }
        }
        if let Some(communities) = &self.communities {
            community::retain(attributes, |_| false);
            communities.iter().for_each(|&one| community::add(attributes, one));
        }
        if !self.remove_communities.is_empty() {
            community::retain(attributes, |one| {
                !self.remove_communities.iter().any(|pattern| pattern.matches(one))
            });
        }
        self.add_communities.iter().for_each(|&one| community::add(attributes, one));
    }
}
