//! What a group's members are told, as it is shown to people.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{Group, script};
use crate::rib::prefixes::PrefixId;
use crate::rib::{PeerIndex, Source};
use crate::wire::{Attributes, Block, EncodeError, PathId};

/// A path as a neighbour is told of it.
#[derive(Debug)]
pub(crate) struct Advertised {
    /// Its identifier (RFC 7911); 0 if none.
    pub(crate) path_id: PathId,
    /// Who told us.
    pub(crate) source: Source,
    pub(crate) next_hop: Option<IpAddr>,
    pub(crate) attributes: Attributes,
}

impl Group {
    /// What a member was told of a prefix last. Nothing where it has yet to be told something else, or anything at all: what
    /// it knows until then is not kept.
    pub(crate) fn advertises(
        &self,
        peer: PeerIndex,
        (id, ipv6): (PrefixId, bool),
    ) -> Vec<Advertised> {
        let Some(member) = self.member(peer) else { return Vec::new() };
        if member.behind.contains(id) {
            return Vec::new();
        }
        let hearer = member.hearer;
        let lines = match &self.several {
            Some(several) => several.lines(id, hearer, &self.outs).into_vec(),
            None => {
                let out = self.sent.get(id as usize).copied().unwrap_or_default();
                vec![(script::view(hearer, out, &self.outs), id, 0)]
            }
        };
        let told = lines.into_iter().filter_map(|(out, _, number)| {
            let out = self.outs.get(out)?;
            // We wrote it.
            let block = Block::new(&out.attributes, self.key.context).ok()?;
            let path_id = if self.key.ids.has(ipv6) { PathId::from(number) + 1 } else { 0 };
            let next_hop = out.reach.map(IpAddr::from);
            let next_hop = next_hop.or(block.verdict.next_hop.map(IpAddr::from));
            Some(Advertised { path_id, source: out.source, next_hop, attributes: block.attributes })
        });
        told.collect()
    }

    /// Routes that turned out too large to be told.
    pub(crate) fn take_oversize(&mut self) -> Vec<(IpNetwork, EncodeError)> {
        std::mem::take(&mut self.oversize)
    }

    /// One of the members.
    pub(crate) fn any_member(&self) -> Option<PeerIndex> {
        self.members.first().map(|member| member.hearer.peer)
    }
}
