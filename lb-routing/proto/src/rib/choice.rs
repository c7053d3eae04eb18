//! Paths as the decision sees them.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use smallvec::SmallVec;

use super::attributes::AttributeTable;
use super::best::{self, Candidate, Ranking, Rules, Step};
use super::hash::Keyed;
use super::hops::NextHops;
use super::path::PathEntry;
use super::pool::Id;
use super::{PrefixId, Rib};
use crate::fib::Reach;

/// What the decision looks paths up in, and for which prefix, where that matters.
pub(super) type Tables<'a> =
    (&'a [Ranking], &'a AttributeTable, &'a NextHops, &'a Option<IpNetwork>);

pub(super) fn candidate(
    (rankings, attributes, next_hops, prefix): Tables<'_>,
    path: &PathEntry,
) -> Candidate<PathEntry> {
    let neighbour = path.source.peer().and_then(|peer| rankings.get(usize::from(peer)).copied());
    let set = attributes.get(path.attributes);
    let cost =
        next_hops.cost_for(set.next_hop, prefix.as_ref()).filter(|_| path.rejected().is_none());
    Candidate { path: *path, neighbour, cost, incumbent: false, rank: set.rank }
}

/// How many of equally good paths, the first ones, carry traffic: as many as have so many next hops. Two ways to hear of one
/// next hop take one place.
pub(super) fn carriers(
    (_, attributes, ..): Tables<'_>,
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
    (_, attributes, next_hops, _): Tables<'_>,
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

/// Records that are looked at in one go.
const LOOKS: u32 = 16 * 1024;

/// What is looked at again, as it costs something else to reach a next hop.
#[derive(Debug)]
pub(super) struct Again {
    /// Such next hops.
    hops: HashSet<Id, Keyed>,
    /// The record to go on with, and how many are left: around the table.
    at: PrefixId,
    left: u32,
}

impl Again {
    pub(super) fn new(hash: Keyed) -> Self {
        Self { hops: HashSet::with_hasher(hash), at: 0, left: 0 }
    }
}

impl Rib {
    /// The next hop that came (`true`) or went next, whose cost is to be said from now on, or no longer.
    pub(crate) fn next_hop_news(&mut self) -> Option<(IpAddr, bool)> {
        self.next_hops.next_news()
    }

    /// A next hop is so far (RFC 4271 §9.1.2.2 e), or it cannot be reached, and paths by it are not chosen (§9.1.2.1).
    /// [`Rib::look_again`] chooses anew.
    pub(crate) fn set_reach(&mut self, next_hop: IpAddr, reach: Reach) {
        let Some((id, before)) = self.next_hops.set_reach(next_hop, reach) else { return };
        if before.cost != reach.cost {
            self.again.hops.insert(id);
            self.again.left = self.prefixes.end();
            return;
        }
        // For these two prefixes alone.
        for (prefix, _) in [before.over, reach.over].into_iter().flatten() {
            if let Some(id) = self.prefixes.find(&prefix)
                && self.order(id)
            {
                self.changed.insert(id);
            }
        }
    }

    /// How far a next hop is, as was said; `None`: no path has it.
    pub(crate) fn reach(&mut self, next_hop: IpAddr) -> Option<Reach> {
        self.next_hops.reach(next_hop)
    }

    /// The interior cost of the next hop of a path of a prefix; `None`: it cannot be reached.
    pub(crate) fn cost(&self, id: PrefixId, path: &PathEntry) -> Option<u32> {
        let prefix = self.about(id);
        self.next_hops.cost_for(self.attributes.get(path.attributes).next_hop, prefix.as_ref())
    }

    /// The prefix that is decided on, where costs depend on it.
    fn about(&self, id: PrefixId) -> Option<IpNetwork> {
        self.next_hops.depend_on_prefix().then(|| self.prefixes.prefix(id))
    }

    /// Chooses some prefixes' paths anew by what their next hops cost now; says whether there are more. However often costs
    /// change, a round looks at each record once.
    pub(crate) fn look_again(&mut self) -> bool {
        let end = self.prefixes.end();
        for _ in 0..LOOKS.min(self.again.left) {
            let id = if self.again.at < end { self.again.at } else { 0 };
            (self.again.at, self.again.left) = (id + 1, self.again.left - 1);
            let hop = |path: &PathEntry| self.attributes.get(path.attributes).next_hop;
            let mut paths = self.prefixes.get(id).paths.iter();
            if paths.any(|path| self.again.hops.contains(&hop(path))) && self.order(id) {
                self.changed.insert(id);
            }
        }
        if self.again.left == 0 {
            self.again.hops.clear();
        }
        self.again.left > 0
    }

    /// Orders the paths of a prefix, those that carry traffic first; says whether that changes anything.
    pub(super) fn order(&mut self, id: PrefixId) -> bool {
        let about = self.about(id);
        let judge = (&*self.rankings, &self.attributes, &self.next_hops, &about);
        let record = self.prefixes.get_mut(id);
        let (before, mut moved) = (record.equal, false);
        record.equal = match &mut *record.paths {
            [] => 0,
            [only] if only.rejected().is_some() => 0,
            [_] if self.next_hops.are_reached() => 1,
            [only] => u16::from(candidate(judge, only).cost.is_some()),
            paths => {
                let mut candidates: SmallVec<[_; 8]> =
                    paths.iter().map(|path| candidate(judge, path)).collect();
                candidates[0].incumbent = before > 0;
                let equal = best::select(&mut candidates, &self.rules, last(judge));
                let equal = carriers(judge, &candidates[..equal], &self.rules);
                for (path, candidate) in paths.iter_mut().zip(candidates) {
                    moved |= *path != candidate.path;
                    *path = candidate.path;
                }
                u16::try_from(equal).unwrap_or(u16::MAX)
            }
        };
        moved || record.equal != before
    }

    /// Each usable path of a prefix, and the step of the decision process by which it fell; none: it did not.
    pub(crate) fn steps(&self, id: PrefixId) -> Vec<(PathEntry, Option<Step>)> {
        let record = self.prefixes.get(id);
        let about = self.about(id);
        let judge = (&*self.rankings, &self.attributes, &self.next_hops, &about);
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
        let about = self.about(id);
        let judge = (&*self.rankings, &self.attributes, &self.next_hops, &about);
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
