//! What a statement asks of a route.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::as_path_set::AsPathSet;
use super::chain::Facts;
use super::community::CommunitySet;
use super::prefix_set::PrefixSet;
use crate::wire::{Attributes, Family, Origin};

/// What a statement asks of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Its prefix is in the set.
    Prefix(Arc<PrefixSet>),
    /// Its AS path is in the set.
    AsPath(Arc<AsPathSet>),
    /// Its AS path has so many numbers, as route selection counts them.
    AsPathLength(RangeInclusive<u32>),
    /// It has one or all of the set's communities.
    Community(Arc<CommunitySet>, Match),
    /// It was learned from a neighbour whose address is inside one of the prefixes; our own routes never were.
    Neighbor(Arc<PrefixSet>),
    /// Its next hop is inside one of the prefixes; our own routes have none.
    NextHop(Arc<PrefixSet>),
    /// Its family.
    Family(Family),
    /// ORIGIN.
    Origin(Origin),
    /// MULTI_EXIT_DISC; a missing one is 0, as in route selection.
    Med(RangeInclusive<u32>),
    /// LOCAL_PREF; a missing one is 100, as in route selection.
    LocalPref(RangeInclusive<u32>),
    /// Where it comes from.
    Source(Source),
}

/// How many of a set's communities a route has to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Match {
    /// One of them.
    #[default]
    Any,
    /// All of them.
    All,
}

/// Where a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// We originate it: a VIP.
    Local,
    /// A neighbour in our AS.
    Internal,
    /// A neighbour in another AS.
    External,
}

impl Condition {
    /// Whether its answer depends on the prefix: where it does not, routes that share the rest share the answer.
    pub(super) fn is_per_prefix(&self) -> bool {
        matches!(self, Self::Prefix(_))
    }

    /// Whether a route is as it asks. `attributes` are those that earlier statements left.
    pub(super) fn holds(&self, facts: &Facts<'_>, attributes: &Attributes) -> bool {
        let within = |set: &PrefixSet, address: Option<IpAddr>| {
            address.is_some_and(|address| set.covers(address))
        };
        match self {
            Self::Prefix(set) => set.contains(facts.prefix),
            Self::AsPath(set) => set.contains(&attributes.as_path),
            Self::AsPathLength(range) => u32::try_from(attributes.as_path.hop_count())
                .is_ok_and(|length| range.contains(&length)),
            Self::Community(set, Match::Any) => set.any(attributes),
            Self::Community(set, Match::All) => set.all(attributes),
            Self::Neighbor(set) => within(set, facts.neighbor),
            Self::NextHop(set) => within(set, facts.next_hop),
            Self::Family(family) => Family::of(facts.prefix) == *family,
            Self::Origin(origin) => attributes.origin == *origin,
            Self::Med(range) => range.contains(&attributes.med.unwrap_or(0)),
            Self::LocalPref(range) => {
                range.contains(&attributes.local_pref.unwrap_or(crate::rib::DEFAULT_LOCAL_PREF))
            }
            Self::Source(source) => facts.source == *source,
        }
    }
}
