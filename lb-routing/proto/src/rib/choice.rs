//! Paths as the decision sees them.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::attributes::AttributeTable;
use smallvec::SmallVec;

use super::best::{self, Candidate, Ranking, Rules, Step};
use super::hops::NextHops;
use super::path::PathEntry;
use super::{PrefixId, Rib};

/// What the decision looks paths up in.
pub(super) type Tables<'a> = (&'a [Ranking], &'a AttributeTable, &'a NextHops);

pub(super) fn candidate(
    (rankings, attributes, _): Tables<'_>,
    path: &PathEntry,
) -> Candidate<PathEntry> {
    let neighbour = path.source.peer().and_then(|peer| rankings.get(usize::from(peer)).copied());
    let rank = attributes.get(path.attributes).rank;
    Candidate {
        path: *path,
        neighbour,
        rejected: path.rejected().is_some(),
        incumbent: false,
        rank,
    }
}

/// How many of equally good paths, the first ones, carry traffic: as many as have so many next hops. Two ways to hear of one
/// next hop take one place.
pub(super) fn carriers(
    (_, attributes, _): Tables<'_>,
    equal: &[Candidate<PathEntry>],
    rules: &Rules,
) -> usize {
    let Some(best) = equal.first() else { return 0 };
    let most = rules.most(best);
    if equal.len() <= most {
        return equal.len();
    }
    let mut hops = BTreeSet::new();
    let beyond = |it: &Candidate<PathEntry>| {
        hops.insert(attributes.get(it.path.attributes).next_hop) && hops.len() > most
    };
    equal.iter().position(beyond).unwrap_or(equal.len())
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

impl Rib {
    /// Each usable path of a prefix, and the step of the decision process by which it fell; none: it did not.
    pub(crate) fn steps(&self, id: PrefixId) -> Vec<(PathEntry, Option<Step>)> {
        let record = self.prefixes.get(id);
        let judge = (&*self.rankings, &self.attributes, &self.next_hops);
        let mut candidates: Vec<_> =
            record.paths.iter().map(|path| candidate(judge, path)).collect();
        if let Some(first) = candidates.first_mut() {
            first.incumbent = record.equal > 0;
        }
        best::steps(candidates, &self.rules, last(judge))
    }

    /// Shows the usable paths of a prefix in order (the best one, the best one of the others, and so on) until `enough`.
    pub(crate) fn ranked(&self, id: PrefixId, mut enough: impl FnMut(&PathEntry) -> bool) {
        let record = self.prefixes.get(id);
        let judge = (&*self.rankings, &self.attributes, &self.next_hops);
        let mut candidates: SmallVec<[_; 8]> =
            record.paths.iter().map(|path| candidate(judge, path)).collect();
        if let Some(first) = candidates.first_mut() {
            first.incumbent = record.equal > 0;
        }
        let mut done = 0;
        while done < candidates.len() {
            let selected = best::select(&mut candidates[done..], &self.rules, last(judge));
            let mut round = candidates[done..done + selected].iter();
            if selected == 0 || round.any(|it| enough(&it.path)) {
                break;
            }
            done += selected;
        }
    }
}
