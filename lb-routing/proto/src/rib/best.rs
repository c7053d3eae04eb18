//! The decision process (RFC 4271 §9.1.2.2, RFC 4456 §9), with equal-cost multipath.
//!
//! Each step strikes candidates out of the whole set. Comparing two at a time would not do: MED counts
//! only between paths of one neighbouring AS, so "better than" is no order.
//!
//! The cost of reaching a next hop (step e) comes from whoever resolves it. With `mixed_multipath` it settles only which of the
//! paths is told: external ones are nearer than internal ones nearly always, and none of these would carry traffic.

use std::cmp::{Ordering, Reverse};
use std::net::{IpAddr, Ipv4Addr};

use crate::config::Decision;
use crate::wire::Attributes;

/// LOCAL_PREF of a path that has none.
pub(crate) const DEFAULT_LOCAL_PREF: u32 = 100;

/// What the decision needs to know of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ranking {
    /// Of another AS.
    pub(crate) external: bool,
    /// We reflect its routes (RFC 4456).
    pub(crate) client: bool,
    /// Its BGP identifier.
    pub(crate) router_id: Ipv4Addr,
    /// Its address.
    pub(crate) address: IpAddr,
}

/// What the decision needs to know of an attribute set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rank {
    local_pref: u32,
    /// 0 where there is none.
    med: u32,
    /// The AS that the path was learned from; 0 for one from inside our own.
    neighbour_as: u32,
    originator_id: Option<Ipv4Addr>,
    /// Step a: sets count one, confederation segments none.
    hops: u16,
    clusters: u16,
    origin: u8,
    has_med: bool,
}

impl Rank {
    /// The AS that the path was learned from; 0 where there is none.
    pub(super) const fn neighbour_as(&self) -> u32 {
        self.neighbour_as
    }

    pub(crate) fn of(attributes: &Attributes) -> Self {
        let count = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
        Self {
            local_pref: attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF),
            med: attributes.med.unwrap_or_default(),
            has_med: attributes.med.is_some(),
            neighbour_as: attributes.as_path.first_as().unwrap_or(0),
            originator_id: attributes.originator_id,
            hops: count(attributes.as_path.hop_count()),
            clusters: count(attributes.cluster_list.len()),
            origin: attributes.origin as u8,
        }
    }
}

/// A path to be chosen or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<P> {
    /// The path itself.
    pub(super) path: P,
    /// From whom; `None` for what we originate.
    pub(super) neighbour: Option<Ranking>,
    /// What it costs to reach its next hop; `None`: it cannot be reached, or policy refuses the path, which is kept to be shown.
    /// It is not chosen.
    pub(super) cost: Option<u32>,
    /// It was the best one until now.
    pub(super) incumbent: bool,
    pub(super) rank: Rank,
}

/// How paths are chosen, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) decision: Decision,
    /// External paths that carry traffic together at most.
    pub(crate) max_paths: usize,
}

/// Brings the paths that are equally good to the front, the best one first, and says how many they are.
/// Those that cannot be chosen come last. `last` decides between paths of one neighbour (RFC 7911), of which no RFC says anything.
pub(super) fn select<P>(
    candidates: &mut [Candidate<P>],
    rules: &Rules,
    last: impl Fn(&P, &P) -> Ordering,
) -> usize {
    let mut left = keep(candidates, |candidate| candidate.cost.is_some());
    if let Some(own) = candidates[..left].iter().position(|it| it.neighbour.is_none()) {
        // What we originate is here: nothing that is learned can be nearer.
        candidates.swap(0, own);
        return 1;
    }
    if left <= 1 {
        return left;
    }
    let decision = &rules.decision;
    left = keep_least(&mut candidates[..left], |it| {
        (Reverse(it.rank.local_pref), it.rank.hops, it.rank.origin)
    });
    left = strike_out_by_med(&mut candidates[..left], decision);
    let internal = |it: &Candidate<P>| !it.neighbour.is_some_and(|of| of.external);
    if !decision.mixed_multipath {
        left = keep_least(&mut candidates[..left], |it| (internal(it), it.cost));
    }
    let stays = |it: &Candidate<P>| !decision.compare_router_id && it.incumbent && !internal(it);
    candidates[..left].sort_by(|one, other| {
        let key = |it: &Candidate<P>| (internal(it), it.cost, !stays(it), tie_break(it));
        key(one).cmp(&key(other)).then_with(|| last(&one.path, &other.path))
    });
    left
}

impl Rules {
    /// Next hops that carry traffic together at most, where this is the best path.
    pub(super) fn most<P>(&self, best: &Candidate<P>) -> usize {
        let internal = !best.neighbour.is_some_and(|of| of.external);
        let internally = self.decision.max_paths_internal.unwrap_or(self.max_paths);
        match (self.decision.mixed_multipath, internal) {
            (true, _) => internally.max(self.max_paths),
            (false, true) => internally,
            (false, false) => self.max_paths,
        }
    }
}

/// The step of the decision process by which a path fell; displayed for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// We originate the prefix.
    Ours,
    LocalPref,
    PathLength,
    Origin,
    Med,
    External,
    Cost,
    /// It is as good as the best one; which is which is settled by what follows.
    Incumbent,
    RouterId,
    ClusterList,
    Address,
    /// Of paths of one neighbour.
    Content,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ours => "we originate the prefix",
            Self::LocalPref => "LOCAL_PREF",
            Self::PathLength => "length of AS_PATH",
            Self::Origin => "ORIGIN",
            Self::Med => "MULTI_EXIT_DISC",
            Self::External => "external before internal",
            Self::Cost => "cost of reaching the next hop",
            Self::Incumbent => "it was the best one before",
            Self::RouterId => "router id, or ORIGINATOR_ID",
            Self::ClusterList => "length of CLUSTER_LIST",
            Self::Address => "neighbour's address",
            Self::Content => "order of the neighbour's own paths",
        })
    }
}

/// What became of each path that can be chosen, the best one first, as [`select`] finds it.
pub(super) fn steps<P: Clone>(
    mut left: Vec<Candidate<P>>,
    rules: &Rules,
    last: impl Fn(&P, &P) -> Ordering,
) -> Vec<(P, Option<Step>)> {
    let usable = keep(&mut left, |it| it.cost.is_some());
    left.truncate(usable);
    let mut fallen = Vec::new();
    let mut fall = |left: &mut Vec<Candidate<P>>, kept: usize, step| {
        fallen.extend(left.drain(kept..).map(|it| (it.path, Some(step))));
    };
    let ours = keep(&mut left, |it| it.neighbour.is_none());
    if ours > 0 {
        fall(&mut left, ours, Step::Ours);
    }
    let kept = keep_least(&mut left, |it| Reverse(it.rank.local_pref));
    fall(&mut left, kept, Step::LocalPref);
    let kept = keep_least(&mut left, |it| it.rank.hops);
    fall(&mut left, kept, Step::PathLength);
    let kept = keep_least(&mut left, |it| it.rank.origin);
    fall(&mut left, kept, Step::Origin);
    let kept = strike_out_by_med(&mut left, &rules.decision);
    fall(&mut left, kept, Step::Med);
    let internal = |it: &Candidate<P>| !it.neighbour.is_some_and(|of| of.external);
    if !rules.decision.mixed_multipath {
        let kept = keep_least(&mut left, internal);
        fall(&mut left, kept, Step::External);
        let kept = keep_least(&mut left, |it| it.cost);
        fall(&mut left, kept, Step::Cost);
    }
    select(&mut left, rules, last);
    let tie = |best: &Candidate<P>, it: &Candidate<P>| {
        let [(id, clusters, address), (this_id, these, this_address)] = [best, it].map(tie_break);
        match () {
            () if internal(best) != internal(it) => Step::External,
            () if best.cost != it.cost => Step::Cost,
            () if best.incumbent && !rules.decision.compare_router_id && !internal(best) => {
                Step::Incumbent
            }
            () if id != this_id => Step::RouterId,
            () if clusters != these => Step::ClusterList,
            () if address != this_address => Step::Address,
            () => Step::Content,
        }
    };
    let told = left
        .iter()
        .enumerate()
        .map(|(place, it)| (it.path.clone(), (place > 0).then(|| tie(&left[0], it))));
    let mut all: Vec<_> = told.collect();
    fallen.reverse();
    all.extend(fallen);
    all
}

/// Moves those with the least key to the front, and counts them.
fn keep_least<P, K: Ord>(
    candidates: &mut [Candidate<P>],
    key: impl Fn(&Candidate<P>) -> K,
) -> usize {
    let Some(least) = candidates.iter().map(&key).min() else { return 0 };
    keep(candidates, |candidate| key(candidate) == least)
}

/// Step c: a path falls to one of the same neighbouring AS with a lower MED.
fn strike_out_by_med<P>(candidates: &mut [Candidate<P>], decision: &Decision) -> usize {
    if candidates.len() <= 1 {
        return candidates.len();
    }
    let missing = if decision.med_missing_as_worst { u32::MAX } else { 0 };
    let med = |it: &Candidate<P>| {
        let asn = if decision.always_compare_med { 0 } else { it.rank.neighbour_as };
        (asn, if it.rank.has_med { it.rank.med } else { missing })
    };
    let mut least: Vec<_> = candidates.iter().map(med).collect();
    least.sort_unstable();
    least.dedup_by_key(|(asn, _)| *asn);
    keep(candidates, |it| least.binary_search(&med(it)).is_ok())
}

fn keep<P>(candidates: &mut [Candidate<P>], survives: impl Fn(&Candidate<P>) -> bool) -> usize {
    let mut kept = 0;
    for place in 0..candidates.len() {
        if survives(&candidates[place]) {
            candidates.swap(kept, place);
            kept += 1;
        }
    }
    kept
}

/// Steps f and g, with ORIGINATOR_ID and CLUSTER_LIST before them (RFC 4456 §9).
fn tie_break<P>(it: &Candidate<P>) -> (Ipv4Addr, u16, Option<IpAddr>) {
    let known = it.neighbour.map_or(Ipv4Addr::UNSPECIFIED, |of| of.router_id);
    let router_id = it.rank.originator_id.unwrap_or(known);
    (router_id, it.rank.clusters, it.neighbour.map(|of| of.address))
}

#[cfg(test)]
mod tests;
