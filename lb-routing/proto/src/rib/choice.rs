//! Paths as the decision sees them.

use std::cmp::Ordering;

use super::attributes::AttributeTable;
use super::best::{Candidate, Ranking};
use super::hops::NextHops;
use super::path::PathEntry;

/// What the decision looks paths up in.
pub(super) type Tables<'a> = (&'a [Ranking], &'a AttributeTable, &'a NextHops);

pub(super) fn candidate(
    (rankings, attributes, _): Tables<'_>,
    path: &PathEntry,
) -> Candidate<PathEntry> {
    let neighbour = path.source.peer().and_then(|peer| rankings.get(usize::from(peer)).copied());
    let rank = attributes.get(path.attributes).rank;
    Candidate { path: *path, neighbour, rejected: path.install.is_none(), incumbent: false, rank }
}

/// The order of a neighbour's own paths where the decision process has none: by what they say, so that it does not
/// matter which came first.
pub(super) fn last(
    (_, attributes, next_hops): Tables<'_>,
) -> impl Fn(&PathEntry, &PathEntry) -> Ordering {
    move |one, other| {
        let [this, that] = [one, other].map(|path| attributes.get(path.attributes));
        let hop = |id| next_hops.first(id);
        let octets = || this.block().cmp(that.block());
        let hops = || hop(this.next_hop).cmp(&hop(that.next_hop));
        // Next hops first: those of IPv4 stand among the octets, those of IPv6 beside them (RFC 8950).
        hops().then_with(octets).then_with(|| one.path_id.cmp(&other.path_id))
    }
}
