//! What a neighbour is told of a path (RFC 4271 §5.1, §9.1.3, RFC 1997).

use std::net::{IpAddr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::config::{Export, PeerConfig};
use crate::rib::{DEFAULT_LOCAL_PREF, Path, PeerIndex, Via};
use crate::wire::{Attributes, Family, Segment};

const NO_EXPORT: u32 = 0xffff_ff01;
const NO_ADVERTISE: u32 = 0xffff_ff02;
const NO_EXPORT_SUBCONFED: u32 = 0xffff_ff03;

/// Numbers in a segment at most (RFC 4271 §4.3).
const MAX_SEGMENT: usize = 255;

const FLAG_TRANSITIVE: u8 = 0x40;
const FLAG_PARTIAL: u8 = 0x20;

/// To whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) index: PeerIndex,
    pub(crate) config: &'a PeerConfig,
    /// Our AS.
    pub(crate) our_as: u32,
    /// Our end of the session.
    pub(crate) local: IpAddr,
    /// What both sides speak.
    pub(crate) families: &'a [Family],
}

impl Target<'_> {
    fn is_external(&self) -> bool {
        self.config.asn != self.our_as
    }
}

/// Whether policy and protocol let the target hear of a path; `from_internal`: it was learned inside
/// our AS.
pub(crate) fn is_exported(
    prefix: &IpNetwork,
    path: &Path,
    from_internal: bool,
    target: &Target<'_>,
) -> bool {
    let listed = match target.config.export {
        Export::None => false,
        Export::Vips => path.via == Via::Local,
        Export::All => true,
    };
    let has = |community| path.attributes.communities.contains(&community);
    let external = target.is_external();
    listed
        && target.families.contains(&Family::of(prefix))
        && path.via.peer() != Some(target.index)
        // RFC 4271 §9.2: full mesh inside the AS, nothing is reflected.
        && (external || !from_internal)
        && !has(NO_ADVERTISE)
        // We are in no confederation: leaving the subconfederation is leaving the AS.
        && !(external && (has(NO_EXPORT) || has(NO_EXPORT_SUBCONFED)))
}

/// The next hop that the target hears: ourselves, or inside our AS that of the path (RFC 4271 §5.1.3).
/// `None` where the session's own address is of the other family and would have to be it.
pub(crate) fn next_hop(prefix: &IpNetwork, path: &Path, target: &Target<'_>) -> Option<IpAddr> {
    let kept = path.via.next_hop().filter(|&next_hop| {
        // §5.1.3: never the neighbour's own address.
        !target.is_external() && !target.config.next_hop_self && next_hop != target.config.address
    });
    let ourselves = match target.local {
        IpAddr::V4(_) => Some(target.local),
        IpAddr::V6(local) => is_global(local).then_some(target.local),
    };
    kept.or(ourselves).filter(|next_hop| next_hop.is_ipv4() == prefix.is_ipv4())
}

fn is_global(address: Ipv6Addr) -> bool {
    !address.is_unicast_link_local() && !address.is_unspecified() && !address.is_multicast()
}

/// The attributes that the target hears; they depend on nothing but these two.
pub(crate) fn advertised_attributes(attributes: &Attributes, target: &Target<'_>) -> Attributes {
    let mut told = attributes.clone();
    told.other.retain(|other| other.flags & FLAG_TRANSITIVE != 0);
    for other in &mut told.other {
        // RFC 4271 §5: passed on by a speaker that does not know it.
        other.flags |= FLAG_PARTIAL;
    }
    if target.is_external() {
        prepend(&mut told, target.our_as);
        // §5.1.4: the MED of one neighbouring AS is not for another; §5.1.5: LOCAL_PREF stays inside.
        told.med = None;
        told.local_pref = None;
        told.originator_id = None;
        told.cluster_list.clear();
    } else {
        told.local_pref = Some(told.local_pref.unwrap_or(DEFAULT_LOCAL_PREF));
    }
    told
}

/// RFC 4271 §5.1.2.
fn prepend(attributes: &mut Attributes, asn: u32) {
    let segments = &mut attributes.as_path.segments;
    match segments.first_mut() {
        Some(Segment::Sequence(path)) if path.len() < MAX_SEGMENT => path.insert(0, asn),
        _ => segments.insert(0, Segment::Sequence(vec![asn])),
    }
}

#[cfg(test)]
mod tests;
