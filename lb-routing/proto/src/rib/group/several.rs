//! Several paths of a prefix (RFC 7911), as a group's members were told of them.
//!
//! Each path has a number, its identifier on the wire less one: the smallest that no other path of the prefix has, and for
//! as long as the path is told. So whoever is behind may know numbers below a small bound, which is kept beside the paths;
//! what is not told any more of those is withdrawn, whether it was ever heard of or not.

use smallvec::SmallVec;

use super::out::{Hearer, OutId, Outs};
use super::script::{Line, view};
use crate::rib::Source;
use crate::rib::prefixes::PrefixId;
use crate::wire::PathId;

/// A path: its origin, and what is said of it.
pub(super) type Known = ((Source, PathId), OutId);

/// What was said of each prefix, by number.
#[derive(Debug, Default)]
pub(super) struct Several(Vec<Paths>);

#[derive(Debug, Default)]
struct Paths {
    told: SmallVec<[Told; 2]>,
    /// Numbers that a member may know: those below.
    end: u8,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    number: u8,
    origin: (Source, PathId),
    out: OutId,
}

/// What became of a prefix.
pub(super) struct Renewed {
    /// Numbers of which something else is said than before: before, and now.
    pub(super) changes: SmallVec<[(u8, OutId, OutId); 4]>,
    /// What was said before, with the references that there were.
    pub(super) before: SmallVec<[OutId; 4]>,
    /// Whether anything is said of it, before and now.
    pub(super) said: (bool, bool),
}

impl Several {
    /// Notes what is said of a prefix from now on. `behind`: some member knows an older state.
    pub(super) fn renew(&mut self, id: PrefixId, new: &[Known], behind: bool) -> Renewed {
        let paths = self.slot(id);
        let old = std::mem::take(&mut paths.told);
        let kept = |origin| old.iter().find(|told| told.origin == origin).map(|told| told.number);
        let mut used = new.iter().filter_map(|(origin, _)| kept(*origin)).fold(0_u64, with);
        for &(origin, out) in new {
            let number = kept(origin).unwrap_or_else(|| free(used));
            used = with(used, number);
            paths.told.push(Told { number, origin, out });
        }
        let after = |told: &[Told]| told.iter().map(|told| told.number + 1).max().unwrap_or(0);
        let still = if behind { paths.end } else { 0 };
        paths.end = after(&old).max(after(&paths.told)).max(still);
        let said = |told: &[Told], number| {
            told.iter().find(|it| it.number == number).map_or(OutId::NONE, |told| told.out)
        };
        let pairs = (0..paths.end).map(|n| (n, said(&old, n), said(&paths.told, n)));
        Renewed {
            changes: pairs.filter(|(_, before, now)| before != now).collect(),
            said: (!old.is_empty(), !paths.told.is_empty()),
            before: old.into_iter().map(|told| told.out).collect(),
        }
    }

    /// Whether anything is said of a prefix.
    pub(super) fn says(&self, id: PrefixId) -> bool {
        self.0.get(id as usize).is_some_and(|paths| !paths.told.is_empty())
    }

    /// Prefixes of which anything is said.
    pub(super) fn said(&self) -> impl Iterator<Item = PrefixId> {
        (0..).zip(&self.0).filter(|(_, paths)| !paths.told.is_empty()).map(|(id, _)| id)
    }

    /// Prefixes that a member in step knows.
    pub(super) fn known_to(&self, hearer: Hearer, outs: &Outs) -> impl Iterator<Item = PrefixId> {
        let hears = move |told: &Told| !view(hearer, told.out, outs).is_none();
        let known = move |(_, paths): &(PrefixId, &Paths)| paths.told.iter().any(hears);
        (0..).zip(&self.0).filter(known).map(|(id, _)| id)
    }

    /// What a member that knows any older state has to hear of a prefix.
    pub(super) fn lines(&self, id: PrefixId, hearer: Hearer, outs: &Outs) -> SmallVec<[Line; 4]> {
        let none = Paths::default();
        let paths = self.0.get(id as usize).unwrap_or(&none);
        let line = |number| {
            let told = paths.told.iter().find(|told| told.number == number);
            (told.map_or(OutId::NONE, |told| view(hearer, told.out, outs)), id, number)
        };
        (0..paths.end.max(1)).map(line).collect()
    }

    /// A member that was of another group may know what that group said.
    pub(super) fn inherit(&mut self, id: PrefixId, before: &Self) {
        let end = before.0.get(id as usize).map_or(0, |paths| paths.end);
        let paths = self.slot(id);
        paths.end = paths.end.max(end);
    }

    /// Nobody can know a prefix any more.
    pub(super) fn forget(&mut self, id: PrefixId) {
        if let Some(paths) = self.0.get_mut(id as usize).filter(|paths| paths.told.is_empty()) {
            paths.end = 0;
        }
    }

    fn slot(&mut self, id: PrefixId) -> &mut Paths {
        let place = id as usize;
        if self.0.len() <= place {
            self.0.resize_with(place + 1, Paths::default);
        }
        &mut self.0[place]
    }
}

/// Numbers as bits: there are 64 paths of a prefix at most.
const fn with(used: u64, number: u8) -> u64 {
    used | 1 << (number % 64)
}

/// The smallest number that is not used.
const fn free(used: u64) -> u8 {
    // 64 at most.
    used.trailing_ones() as u8
}
