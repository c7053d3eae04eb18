//! Which learned routes can be used at all.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;

use super::action::NextHop;
use super::chain::Facts;
use super::community::Community;
use super::condition::Source;
use crate::config::{Import, PeerConfig, SpeakerConfig};
use crate::fib::Install;
use crate::wire::{Attributes, Segment};

/// Why a route is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// Our AS is in its path (RFC 4271 §9.1.2).
    AsLoop,
    /// We are its originator inside our AS (RFC 4456 §8).
    OriginatorLoop,
    /// Our cluster has reflected it already (RFC 4456 §8).
    ClusterLoop,
    /// Its path does not begin with the neighbour's AS (RFC 4271 §6.3).
    FirstAs,
    /// It has confederation segments, but we are in none (RFC 5065 §5).
    Confederation,
    /// Its next hop is not a unicast address of the prefix's family, or ours.
    NextHop,
    /// Its prefix is not unicast.
    Prefix,
    /// It has an AS_SET, which its neighbour's configuration refuses (RFC 9774).
    AsSet,
    /// Its neighbour tells more paths of the prefix than are taken from one (RFC 7911).
    TooManyPaths,
    /// Its neighbour tells more prefixes than it may; that is said once, not for each.
    OverLimit,
    /// Its neighbour's import lists nothing (RFC 8212).
    NothingListed,
    /// Policy does not accept it.
    Policy,
}

impl Rejection {
    /// Words for a log line; `None` for what happens in every healthy network.
    pub(crate) const fn fault(self) -> Option<&'static str> {
        match self {
            Self::AsLoop
            | Self::OriginatorLoop
            | Self::ClusterLoop
            | Self::OverLimit
            | Self::NothingListed
            | Self::Policy => None,
            Self::AsSet => Some("AS_PATH has an AS_SET, withdrawn"),
            Self::FirstAs => Some("AS_PATH does not begin with the neighbour's AS, withdrawn"),
            Self::Confederation => Some("AS_PATH has confederation segments, withdrawn"),
            Self::NextHop => Some("unusable next hop, withdrawn"),
            Self::TooManyPaths => Some("more than 64 paths of a prefix: the session ends"),
            Self::Prefix => Some("prefix is not unicast, ignored"),
        }
    }
}

impl Rejection {
    /// Words for people who look at a route.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::AsLoop => "our AS is in its path",
            Self::OriginatorLoop => "we are its originator",
            Self::ClusterLoop => "our cluster has reflected it already",
            Self::FirstAs => "its path does not begin with the neighbour's AS",
            Self::Confederation => "it has confederation segments",
            Self::NextHop => "its next hop is not usable: not unicast, of another family, or ours",
            Self::Prefix => "its prefix is not unicast",
            Self::AsSet => "it has an AS_SET (reject_as_set)",
            Self::TooManyPaths => "its neighbour tells too many paths of the prefix",
            Self::OverLimit => "its neighbour tells more than max_prefixes",
            Self::NothingListed => "the neighbour's import lists nothing",
            Self::Policy => "import policy does not accept it",
        }
    }
}

/// What a neighbour's paths are judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Judge {
    /// Our AS, and what the neighbour takes for it.
    our: [u32; 2],
    router_id: Ipv4Addr,
    cluster_id: Ipv4Addr,
    /// The AS of an external neighbour, where the configuration says it; else the speaker looks at the path's first one.
    external: Option<u32>,
    allow_as_in: u8,
    reject_as_set: bool,
}

impl Judge {
    pub(crate) fn new(speaker: &SpeakerConfig, peer: &PeerConfig) -> Self {
        // There are as many judges as settings, not as neighbours make of them.
        let said = peer.asns.is_empty() && peer.is_external(speaker);
        Self {
            our: [speaker.asn, peer.our_as(speaker)],
            router_id: speaker.router_id,
            cluster_id: speaker.cluster_id(),
            external: said.then_some(peer.asn),
            allow_as_in: peer.allow_as_in,
            reject_as_set: peer.reject_as_set,
        }
    }

    /// Checks what all routes of an UPDATE share.
    pub(crate) fn check(&self, attributes: &Attributes) -> Result<(), Rejection> {
        let segments = &attributes.as_path.segments;
        let foreign = |segment: &Segment| {
            matches!(segment, Segment::ConfedSequence(_) | Segment::ConfedSet(_))
        };
        if segments.iter().any(foreign) {
            return Err(Rejection::Confederation);
        }
        if self.external.is_some() && attributes.as_path.first_as() != self.external {
            return Err(Rejection::FirstAs);
        }
        let asns = segments.iter().flat_map(Segment::asns);
        if asns.filter(|asn| self.our.contains(asn)).count() > self.allow_as_in.into() {
            return Err(Rejection::AsLoop);
        }
        if self.reject_as_set && segments.iter().any(|s| matches!(s, Segment::Set(_))) {
            return Err(Rejection::AsSet);
        }
        if attributes.originator_id == Some(self.router_id) {
            return Err(Rejection::OriginatorLoop);
        }
        if attributes.cluster_list.contains(&self.cluster_id) {
            return Err(Rejection::ClusterLoop);
        }
        Ok(())
    }
}

/// A neighbour's import, as it is carried out.
#[derive(Clone, Debug)]
pub(crate) struct Importer {
    import: Import,
    install: Install,
    peer: IpAddr,
    our_as: u32,
    external: bool,
}

/// A route as policy lets it in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Imported {
    /// Where they differ from what was received.
    pub(crate) attributes: Option<Attributes>,
    pub(crate) next_hop: IpAddr,
    pub(crate) install: Install,
}

impl Importer {
    pub(crate) fn new(speaker: &SpeakerConfig, peer: &PeerConfig) -> Self {
        Self {
            import: peer.import.clone(),
            install: peer.install,
            peer: peer.address,
            our_as: peer.our_as(speaker),
            external: peer.is_external(speaker),
        }
    }

    /// Which tables have routes of which policies do not say it.
    pub(crate) const fn install(&self) -> Install {
        self.install
    }

    /// Whether the answer depends on the prefix: where it does not, one answer holds for all prefixes that share
    /// attributes, next hop and family.
    pub(crate) fn is_per_prefix(&self) -> bool {
        match &self.import {
            Import::None | Import::All => false,
            Import::Policies(chain) => chain.is_per_prefix(),
        }
    }

    /// Whether whatever is usable gets in as it is; `shut`: with GRACEFUL_SHUTDOWN.
    pub(crate) fn takes_as_it_is(&self, shut: bool) -> bool {
        self.import == Import::All && !(self.external && shut)
    }

    fn facts<'a>(&self, prefix: &'a IpNetwork, next_hop: IpAddr) -> Facts<'a> {
        let source = if self.external { Source::External } else { Source::Internal };
        let (neighbor, our_as) = (Some(self.peer), self.our_as);
        Facts { prefix, neighbor, next_hop: Some(next_hop), source, our_as }
    }

    /// Which rule of policy does not let a route in, if one does.
    pub(crate) fn refusal(
        &self,
        prefix: &IpNetwork,
        next_hop: IpAddr,
        attributes: &Attributes,
    ) -> Option<String> {
        let Import::Policies(chain) = &self.import else { return None };
        let decided = chain.evaluate(&self.facts(prefix, next_hop), attributes);
        decided.err().map(|decider| decider.rule().to_string())
    }

    /// What becomes of a route that the protocol finds usable.
    pub(crate) fn judge(
        &self,
        prefix: &IpNetwork,
        next_hop: IpAddr,
        attributes: &Attributes,
    ) -> Result<Imported, Rejection> {
        let facts = self.facts(prefix, next_hop);
        let change = match &self.import {
            Import::None => return Err(Rejection::NothingListed),
            Import::All => None,
            Import::Policies(chain) => {
                chain.evaluate(&facts, attributes).map_err(|_decider| Rejection::Policy)?
            }
        };
        let said = match change.as_ref().and_then(|change| change.next_hop) {
            Some(NextHop::Address(address)) => Some(address),
            Some(NextHop::Peer) => Some(self.peer),
            Some(NextHop::Own | NextHop::Unchanged) | None => None,
        };
        // One of the other family says nothing of this prefix.
        let said = said.filter(|said| said.is_ipv4() == prefix.is_ipv4());
        let next_hop = said.unwrap_or(next_hop);
        let install = change.as_ref().and_then(|change| change.install).unwrap_or(self.install);
        let mut changed = change.map(|change| change.attributes);
        // RFC 8326 §4.2: the way out of a neighbour that is about to go is the last one to be taken.
        if self.external && is_shutting_down(changed.as_ref().unwrap_or(attributes)) {
            changed.get_or_insert_with(|| attributes.clone()).local_pref = Some(0);
        }
        Ok(Imported { attributes: changed, next_hop, install })
    }
}

/// RFC 8326.
pub(crate) fn is_shutting_down(attributes: &Attributes) -> bool {
    has(attributes, Community::GRACEFUL_SHUTDOWN)
}

fn has(attributes: &Attributes, community: Community) -> bool {
    matches!(community, Community::Standard(value) if attributes.communities.contains(&value))
}

/// Whether an address can be a next hop: unicast, and reachable by others than its own host or link. A link-local one is
/// of no use: it comes without its link.
#[must_use]
pub fn is_next_hop(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, ..] = address.octets();
            (1..224).contains(&first) && !address.is_loopback()
        }
        IpAddr::V6(address) => {
            !(address.is_unspecified()
                || address.is_loopback()
                || address.is_multicast()
                || address.is_unicast_link_local()
                || address.to_ipv4_mapped().is_some())
        }
    }
}

/// Checks a next hop.
pub(crate) fn check_next_hop(
    next_hop: IpAddr,
    is_ours: impl Fn(IpAddr) -> bool,
) -> Result<(), Rejection> {
    if is_next_hop(next_hop) && !is_ours(next_hop) { Ok(()) } else { Err(Rejection::NextHop) }
}

/// Checks a prefix: unicast, or all of it (the default route).
pub(crate) fn check_prefix(prefix: &IpNetwork, next_hop: IpAddr) -> Result<(), Rejection> {
    if prefix.network().is_multicast() {
        return Err(Rejection::Prefix);
    }
    // The other way round is RFC 8950, and agreed on with whoever says it.
    if prefix.is_ipv4() || next_hop.is_ipv6() { Ok(()) } else { Err(Rejection::NextHop) }
}

#[cfg(test)]
mod tests;
