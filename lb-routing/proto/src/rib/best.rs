//! The decision process (RFC 4271 §9.1.2.2, RFC 4456 §9), with equal-cost multipath.
//!
//! Each step strikes paths out of the whole set. Comparing two at a time would not do: MED counts only
//! between paths of one neighbouring AS, so "better than" is no order.
//!
//! The cost of reaching the next hop (step e) is the same for all paths here.

use std::net::{IpAddr, Ipv4Addr};

use super::{Path, Via};
use crate::wire::{Attributes, Segment};

/// LOCAL_PREF of a path that has none.
pub(crate) const DEFAULT_LOCAL_PREF: u32 = 100;

/// What the decision needs to know of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ranking {
    /// Of another AS.
    pub(crate) external: bool,
    /// Its BGP identifier.
    pub(crate) router_id: Ipv4Addr,
    /// Its address.
    pub(crate) address: IpAddr,
}

/// Brings the paths that carry traffic to the front, the best one first, and says how many they are.
pub(super) fn select(paths: &mut [Path], rankings: &[Ranking]) -> usize {
    if let Some(own) = paths.iter().position(|path| path.via == Via::Local) {
        // What we originate is here: nothing that is learned can be nearer.
        paths.swap(0, own);
        return 1;
    }
    let mut left = paths.len();
    if left <= 1 {
        return left;
    }
    left = keep_least(paths, left, |path| {
        u32::MAX - path.attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)
    });
    left = keep_least(paths, left, |path| path_length(&path.attributes));
    left = keep_least(paths, left, |path| path.attributes.origin);
    left = strike_out_by_med(paths, left);
    left = keep_least(paths, left, |path| !ranking(path, rankings).is_some_and(|r| r.external));
    paths[..left].sort_by_key(|path| tie_break(path, rankings));
    left
}

/// Moves the paths with the least key to the front of the first `left`, and counts them.
fn keep_least<K: Ord>(paths: &mut [Path], left: usize, key: impl Fn(&Path) -> K) -> usize {
    let Some(least) = paths[..left].iter().map(&key).min() else { return 0 };
    keep(paths, left, |path| key(path) == least)
}

/// Step c: a path falls to one of the same neighbouring AS with a lower MED; a missing MED is 0.
fn strike_out_by_med(paths: &mut [Path], left: usize) -> usize {
    let meds = paths[..left].iter().map(|path| (neighbour_as(&path.attributes), med(path)));
    let meds: Vec<_> = meds.collect();
    keep(paths, left, |path| {
        let (asn, med) = (neighbour_as(&path.attributes), med(path));
        !meds.iter().any(|&(other_as, other_med)| other_as == asn && other_med < med)
    })
}

fn keep(paths: &mut [Path], left: usize, survives: impl Fn(&Path) -> bool) -> usize {
    let mut kept = 0;
    for place in 0..left {
        if survives(&paths[place]) {
            paths.swap(kept, place);
            kept += 1;
        }
    }
    kept
}

/// Steps f and g, with ORIGINATOR_ID and CLUSTER_LIST before them (RFC 4456 §9).
fn tie_break(path: &Path, rankings: &[Ranking]) -> (Ipv4Addr, usize, Option<IpAddr>) {
    let ranking = ranking(path, rankings);
    let known = ranking.map_or(Ipv4Addr::UNSPECIFIED, |ranking| ranking.router_id);
    let router_id = path.attributes.originator_id.unwrap_or(known);
    (router_id, path.attributes.cluster_list.len(), ranking.map(|ranking| ranking.address))
}

fn ranking<'a>(path: &Path, rankings: &'a [Ranking]) -> Option<&'a Ranking> {
    rankings.get(path.via.peer()? as usize)
}

fn med(path: &Path) -> u32 {
    path.attributes.med.unwrap_or(0)
}

/// The AS that a path was learned from; `None` for one from inside our own.
fn neighbour_as(attributes: &Attributes) -> Option<u32> {
    match attributes.as_path.segments.first()? {
        Segment::Sequence(path) => path.first().copied(),
        Segment::Set(_) | Segment::ConfedSequence(_) | Segment::ConfedSet(_) => None,
    }
}

/// Step a: a set counts one, confederation segments none (RFC 4271 §9.1.2.2, RFC 5065 §5.3).
fn path_length(attributes: &Attributes) -> usize {
    let segments = attributes.as_path.segments.iter();
    segments
        .map(|segment| match segment {
            Segment::Sequence(path) => path.len(),
            Segment::Set(_) => 1,
            Segment::ConfedSequence(_) | Segment::ConfedSet(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests;
