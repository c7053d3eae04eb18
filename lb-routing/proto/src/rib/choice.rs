//! Paths as the decision sees them, and what it chooses at which level.
//!
//! Whether a next hop is reached, and at what cost, may depend on what is chosen. So there are levels (`fib/hops.rs`): the last
//! one is what counts, is told and carries traffic; what is chosen at a lower one leads to next hops at the next. Where that
//! follows from what counts, by leaving out what is not reached at that level, nothing is kept of it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use smallvec::SmallVec;

use super::attributes::AttributeTable;
use super::best::{self, Candidate, Ranking, Rules, Step};
use super::hash::Keyed;
use super::hops::{About, NextHops};
use super::path::PathEntry;
use super::pool::Id;
use super::{PrefixId, Rib};
use crate::fib::Reach;

/// What the decision looks paths up in, and about what.
pub(super) type Tables<'a> = (&'a [Ranking], &'a AttributeTable, &'a NextHops, About);

pub(super) fn candidate(
    (rankings, attributes, next_hops, about): Tables<'_>,
    path: &PathEntry,
) -> Candidate<PathEntry> {
    let neighbour = path.source.peer().and_then(|peer| rankings.get(usize::from(peer)).copied());
    let set = attributes.get(path.attributes);
    let cost = next_hops.cost_for(set.next_hop, about).filter(|_| path.rejected().is_none());
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

/// What prefixes lead to next hops by at lower levels (see above): sets of next hops by level, from 0 on. One entry at most for
/// each prefix that has several paths.
#[derive(Debug, Default)]
pub(super) struct Lower {
    by_prefix: BTreeMap<IpNetwork, Vec<Arc<[IpAddr]>>>,
    /// Those of which that has changed.
    news: BTreeSet<IpNetwork>,
}

impl Lower {
    fn set(&mut self, prefix: IpNetwork, by_level: Vec<Arc<[IpAddr]>>) {
        let is_empty = by_level.is_empty();
        let changed = self.by_prefix.get(&prefix).map_or(!is_empty, |known| *known != by_level);
        if changed {
            self.news.insert(prefix);
        }
        if is_empty {
            self.by_prefix.remove(&prefix);
        } else if changed {
            self.by_prefix.insert(prefix, by_level);
        }
    }
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
        let Some((id, before)) = self.next_hops.set_reach(next_hop, &reach) else { return };
        let levels = 0..before.levels().max(reach.levels());
        let legs = levels.map(|level| (before.leg(level), reach.leg(level)));
        if legs.clone().any(|(before, now)| before.cost != now.cost) {
            self.again.hops.insert(id);
            self.again.left = self.prefixes.end();
            return;
        }
        // For these prefixes alone.
        for prefix in legs.flat_map(|(before, now)| [before.over, now.over]).flatten() {
            if let Some(id) = self.prefixes.find(&prefix)
                && self.order(id)
            {
                self.changed.insert(id);
            }
        }
    }

    /// The next prefix that leads to next hops by something else at lower levels: sets of next hops by level, none: by what
    /// was published at all of them.
    pub(crate) fn next_lower(&mut self) -> Option<(IpNetwork, Vec<Arc<[IpAddr]>>)> {
        let prefix = self.lower.news.pop_first()?;
        let by_level = self.lower.by_prefix.get(&prefix).cloned().unwrap_or_default();
        Some((prefix, by_level))
    }

    /// The interior cost of the next hop of a path of a prefix; `None`: it cannot be reached.
    pub(crate) fn cost(&self, id: PrefixId, path: &PathEntry) -> Option<u32> {
        self.next_hops.cost_for(self.hop(path), self.about(id, Reach::LAST))
    }

    fn hop(&self, path: &PathEntry) -> Id {
        self.attributes.get(path.attributes).next_hop
    }

    /// The prefix that is decided on, where costs depend on it, and at which level.
    fn about(&self, id: PrefixId, level: usize) -> About {
        (self.next_hops.vary().then(|| self.prefixes.prefix(id)), level)
    }

    fn judge(&self, id: PrefixId, level: usize) -> Tables<'_> {
        (&*self.rankings, &self.attributes, &self.next_hops, self.about(id, level))
    }

    /// Chooses some prefixes' paths anew by what their next hops cost now; says whether there are more. However often costs
    /// change, a round looks at each record once.
    pub(crate) fn look_again(&mut self) -> bool {
        let end = self.prefixes.end();
        for _ in 0..LOOKS.min(self.again.left) {
            let id = if self.again.at < end { self.again.at } else { 0 };
            (self.again.at, self.again.left) = (id + 1, self.again.left - 1);
            let mut paths = self.prefixes.get(id).paths.iter();
            if paths.any(|path| self.again.hops.contains(&self.hop(path))) && self.order(id) {
                self.changed.insert(id);
            }
        }
        if self.again.left == 0 {
            self.again.hops.clear();
        }
        self.again.left > 0
    }

    /// Whether the path that is chosen may count for more than one that is as good: not where a next hop has several levels. At
    /// the lower ones no path is the chosen one, and which levels there are would depend on what was chosen before.
    fn incumbent_stays(&self, id: PrefixId) -> bool {
        let is_one = |path| self.next_hops.levels(self.hop(path)) == 1;
        !self.next_hops.vary() || self.prefixes.get(id).paths.iter().all(is_one)
    }

    /// Orders the paths of a prefix, those that carry traffic first; says whether that changes anything.
    pub(super) fn order(&mut self, id: PrefixId) -> bool {
        let about = self.about(id, Reach::LAST);
        let stays = self.incumbent_stays(id);
        let judge = (&*self.rankings, &self.attributes, &self.next_hops, about);
        let record = self.prefixes.get_mut(id);
        let (before, mut moved) = (record.equal, false);
        record.equal = match &mut *record.paths {
            [] => 0,
            [only] if only.rejected().is_some() => 0,
            [_] if self.next_hops.are_reached() => 1,
            [only] => {
                let hop = self.attributes.get(only.attributes).next_hop;
                u16::from(self.next_hops.cost_for(hop, about).is_some())
            }
            paths => {
                let mut candidates: SmallVec<[_; 8]> =
                    paths.iter().map(|path| candidate(judge, path)).collect();
                candidates[0].incumbent = before > 0 && stays;
                let equal = best::select(&mut candidates, &self.rules, last(judge));
                let equal = carriers(judge, &candidates[..equal], &self.rules);
                for (path, candidate) in paths.iter_mut().zip(candidates) {
                    moved |= *path != candidate.path;
                    *path = candidate.path;
                }
                u16::try_from(equal).unwrap_or(u16::MAX)
            }
        };
        let changed = moved || record.equal != before;
        // Nearly always no next hop has more levels than one.
        if self.next_hops.vary() || !self.lower.by_prefix.is_empty() {
            self.order_lower(id);
        }
        changed
    }

    /// Chooses at the lower levels.
    fn order_lower(&mut self, id: PrefixId) {
        let record = self.prefixes.get(id);
        let paths = &record.paths;
        // A path by itself leads there wherever its next hop is reached, if it counts in the end.
        let varies = (paths.len() > 1 || record.equal == 0) && self.next_hops.vary();
        let levels = paths.iter().map(|path| self.next_hops.levels(self.hop(path))).max();
        let lower = 0..levels.filter(|_| varies).unwrap_or(1) - 1;
        let differs = |level| {
            let mut left = self.carried(id);
            left.retain(|hop| self.next_hops.cost_for(*hop, (None, level)).is_some());
            left != self.chosen_at(id, level)
        };
        let by_level = if lower.clone().any(differs) {
            lower.map(|level| self.addresses(&self.chosen_at(id, level))).collect()
        } else {
            Vec::new()
        };
        self.lower.set(self.prefixes.prefix(id), by_level);
    }

    /// The next hops of the paths that would carry traffic if no more than a level were known.
    fn chosen_at(&self, id: PrefixId, level: usize) -> SmallVec<[Id; 4]> {
        let judge = self.judge(id, level);
        let paths = self.prefixes.get(id).paths.iter();
        let mut candidates: SmallVec<[_; 8]> = paths.map(|path| candidate(judge, path)).collect();
        let equal = best::select(&mut candidates, &self.rules, last(judge));
        let equal = carriers(judge, &candidates[..equal], &self.rules);
        self.hops_of(candidates[..equal].iter().map(|it| &it.path))
    }

    /// The next hops of the paths that carry traffic.
    pub(super) fn carried(&self, id: PrefixId) -> SmallVec<[Id; 4]> {
        let record = self.prefixes.get(id);
        self.hops_of(record.paths.iter().take(usize::from(record.equal)))
    }

    /// The next hops of some paths, by number.
    fn hops_of<'a>(&self, paths: impl Iterator<Item = &'a PathEntry>) -> SmallVec<[Id; 4]> {
        let mut ids: SmallVec<[Id; 4]> =
            paths.map(|path| self.hop(path)).filter(|next_hop| !next_hop.is_none()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Addresses of next hops, in order.
    pub(super) fn addresses(&self, ids: &[Id]) -> Arc<[IpAddr]> {
        let mut hops: Vec<_> = ids.iter().filter_map(|&id| self.next_hops.first(id)).collect();
        hops.sort_unstable();
        hops.into()
    }

    /// Each usable path of a prefix, and the step of the decision process by which it fell; none: it did not.
    pub(crate) fn steps(&self, id: PrefixId) -> Vec<(PathEntry, Option<Step>)> {
        let record = self.prefixes.get(id);
        let judge = self.judge(id, Reach::LAST);
        let mut candidates: Vec<_> =
            record.paths.iter().map(|path| candidate(judge, path)).collect();
        if let Some(first) = candidates.first_mut() {
            first.incumbent = record.equal > 0 && self.incumbent_stays(id);
        }
        best::steps(candidates, &self.rules, last(judge))
    }

    /// Shows the usable paths of a prefix in order (the best one, the best one of the others, and so on) until `enough`.
    pub(crate) fn ranked(&self, id: PrefixId, mut enough: impl FnMut(&PathEntry) -> bool) {
        let record = self.prefixes.get(id);
        let judge = self.judge(id, Reach::LAST);
        let mut candidates: SmallVec<[_; 8]> =
            record.paths.iter().map(|path| candidate(judge, path)).collect();
        if let Some(first) = candidates.first_mut() {
            first.incumbent = record.equal > 0 && self.incumbent_stays(id);
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
