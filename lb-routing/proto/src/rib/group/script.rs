//! What is to be said of some prefixes, to whom, and the bytes of it.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::out::{Hearer, Out, OutId, Outs};
use crate::rib::PeerIndex;
use crate::rib::prefixes::{PrefixId, PrefixTable};
use crate::wire::{Family, Packer, PathId, PathIds};

/// Members of a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Audience {
    All,
    /// All but these.
    Except(Deaf),
    Only(PeerIndex),
}

/// Members that must not hear of a path, sorted: where it comes from, and where it leads.
pub(super) type Deaf = SmallVec<[PeerIndex; 4]>;

impl Audience {
    pub(super) fn has(&self, peer: PeerIndex) -> bool {
        match self {
            Self::All => true,
            Self::Except(deaf) => !deaf.contains(&peer),
            Self::Only(only) => peer == *only,
        }
    }
}

/// What is said of a path of a prefix, by number: attributes, or (none) that it is withdrawn. The number is 0 where there is
/// one path only.
pub(super) type Line = (OutId, PrefixId, u8);

/// Lines by audience.
#[derive(Debug, Default)]
pub(super) struct Script {
    all: Vec<Line>,
    some: BTreeMap<Audience, Vec<Line>>,
}

impl Script {
    pub(super) fn say(&mut self, to: Audience, line: Line) {
        match to {
            Audience::All => self.all.push(line),
            Audience::Except(..) | Audience::Only(_) => {
                self.some.entry(to).or_default().push(line);
            }
        }
    }

    /// What the members hear when the attributes of a path change from one to the other; `deaf` says who must not hear of
    /// some.
    pub(super) fn change(
        &mut self,
        (id, number): (PrefixId, u8),
        (old, new): (OutId, OutId),
        outs: &Outs,
        deaf: impl Fn(&Out) -> Deaf,
    ) {
        let [before, after] = [old, new].map(|out| outs.get(out));
        let [were, are] = [before, after].map(|out| out.map(&deaf).unwrap_or_default());
        let same = match (before, after) {
            (Some(before), Some(after)) => before.says_the_same(after),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !same {
            let mut all = were.clone();
            all.extend(are.iter().copied());
            all.sort_unstable();
            all.dedup();
            let audience = if all.is_empty() { Audience::All } else { Audience::Except(all) };
            self.say(audience, (new, id, number));
        }
        if after.is_some() {
            for &peer in were.iter().filter(|peer| !are.contains(peer)) {
                self.say(Audience::Only(peer), (new, id, number));
            }
        }
        if before.is_some() {
            for &peer in are.iter().filter(|peer| !were.contains(peer)) {
                self.say(Audience::Only(peer), (OutId::NONE, id, number));
            }
        }
    }

    /// The messages for each audience.
    pub(super) fn encode(
        self,
        outs: &Outs,
        prefixes: &PrefixTable,
        ids: PathIds,
        limit: usize,
    ) -> impl Iterator<Item = (Audience, Packer)> {
        let all = (Audience::All, self.all);
        let scripts = std::iter::once(all).chain(self.some).filter(|(_, lines)| !lines.is_empty());
        scripts.map(move |(audience, mut lines)| {
            let mut packer = Packer::new(ids, limit);
            pack(&mut lines, outs, prefixes, &mut packer);
            (audience, packer)
        })
    }
}

/// Packs lines: what is withdrawn first, then prefixes with the same attributes together.
pub(super) fn pack(lines: &mut [Line], outs: &Outs, prefixes: &PrefixTable, packer: &mut Packer) {
    lines.sort_unstable();
    for run in lines.chunk_by(|one, other| one.0 == other.0) {
        let Some(&(out, ..)) = run.first() else { continue };
        let ids = |ipv6| {
            let of_family = move |line: &&Line| prefixes.is_ipv6(line.1) == ipv6;
            let path = |&(_, id, number): &Line| (PathId::from(number) + 1, prefixes.prefix(id));
            run.iter().filter(of_family).map(path)
        };
        let Some(out) = outs.get(out) else {
            packer.withdraw(false, ids(false));
            packer.withdraw(true, ids(true));
            continue;
        };
        match out.reach {
            None => packer.announce_ipv4(&out.attributes, ids(false)),
            Some(next_hop) => {
                for (family, ipv6) in [(Family::IPV4_UNICAST, false), (Family::IPV6_UNICAST, true)]
                {
                    packer.announce_by_ipv6(family, &out.attributes, next_hop, ids(ipv6));
                }
            }
        }
    }
}

/// What a member knows of a prefix that its group has said this of.
pub(super) fn view(hearer: Hearer, out: OutId, outs: &Outs) -> OutId {
    if outs.get(out).is_some_and(|out| out.is_for(hearer)) { out } else { OutId::NONE }
}
