//! Which learned routes can be used at all.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;

use crate::wire::{Attributes, Segment};

/// Why a route is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// Our AS is in its path (RFC 4271 §9.1.2).
    AsLoop,
    /// We are its originator inside our AS (RFC 4456 §8).
    OriginatorLoop,
    /// Its path does not begin with the neighbour's AS (RFC 4271 §6.3).
    FirstAs,
    /// It has confederation segments, but we are in none (RFC 5065 §5).
    Confederation,
    /// Its next hop is not a unicast address of the prefix's family, or ours.
    NextHop,
    /// Its prefix is not unicast.
    Prefix,
}

impl Rejection {
    /// Words for a log line; `None` for what happens in every healthy network.
    pub(crate) const fn fault(self) -> Option<&'static str> {
        match self {
            Self::AsLoop | Self::OriginatorLoop => None,
            Self::FirstAs => Some("AS_PATH does not begin with the neighbour's AS, withdrawn"),
            Self::Confederation => Some("AS_PATH has confederation segments, withdrawn"),
            Self::NextHop => Some("unusable next hop, withdrawn"),
            Self::Prefix => Some("prefix is not unicast, ignored"),
        }
    }
}

/// Checks what all routes of an UPDATE share. `external` is the AS of an external neighbour.
pub(crate) fn check_attributes(
    attributes: &Attributes,
    (our_as, router_id): (u32, Ipv4Addr),
    external: Option<u32>,
) -> Result<(), Rejection> {
    let segments = &attributes.as_path.segments;
    let foreign =
        |segment: &Segment| matches!(segment, Segment::ConfedSequence(_) | Segment::ConfedSet(_));
    if segments.iter().any(foreign) {
        return Err(Rejection::Confederation);
    }
    if let Some(asn) = external
        && !matches!(segments.first(), Some(Segment::Sequence(path)) if path.first() == Some(&asn))
    {
        return Err(Rejection::FirstAs);
    }
    if segments.iter().any(|segment| numbers(segment).contains(&our_as)) {
        return Err(Rejection::AsLoop);
    }
    if attributes.originator_id == Some(router_id) {
        return Err(Rejection::OriginatorLoop);
    }
    Ok(())
}

fn numbers(segment: &Segment) -> &[u32] {
    match segment {
        Segment::Sequence(path)
        | Segment::Set(path)
        | Segment::ConfedSequence(path)
        | Segment::ConfedSet(path) => path,
    }
}

/// Checks a next hop. A link-local one is of no use: it comes without its link.
pub(crate) fn check_next_hop(
    next_hop: IpAddr,
    is_ours: impl Fn(IpAddr) -> bool,
) -> Result<(), Rejection> {
    let usable = match next_hop {
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
    };
    if usable && !is_ours(next_hop) { Ok(()) } else { Err(Rejection::NextHop) }
}

/// Checks a prefix: unicast, or all of it (the default route).
pub(crate) fn check_prefix(prefix: &IpNetwork, next_hop: IpAddr) -> Result<(), Rejection> {
    if prefix.network().is_multicast() {
        return Err(Rejection::Prefix);
    }
    // A next hop of the other family needs a capability that we don't have (RFC 8950).
    if prefix.is_ipv4() == next_hop.is_ipv4() { Ok(()) } else { Err(Rejection::NextHop) }
}

#[cfg(test)]
mod tests;
