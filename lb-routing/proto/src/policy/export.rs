//! What a neighbour is told of a path (RFC 4271 §5.1, §9.1.3, RFC 1997).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::action::NextHop;
use super::chain::{Change, Decider, Facts};
use super::community::{self, Community};
use super::condition::Source;
use crate::config::{Export, PeerConfig};
use crate::rib::{DEFAULT_LOCAL_PREF, Path, PeerIndex, Via};
use crate::wire::{Attributes, Family, Segment};

const NO_EXPORT: u32 = 0xffff_ff01;
const NO_ADVERTISE: u32 = 0xffff_ff02;
const NO_EXPORT_SUBCONFED: u32 = 0xffff_ff03;
const BLACKHOLE: u32 = 0xffff_029a;

const FLAG_TRANSITIVE: u8 = 0x40;
const FLAG_PARTIAL: u8 = 0x20;

/// To whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) index: PeerIndex,
    pub(crate) config: &'a PeerConfig,
    /// Our AS on its session.
    pub(crate) our_as: u32,
    /// The cluster that we reflect routes for.
    pub(crate) cluster_id: Ipv4Addr,
    /// Our end of the session.
    pub(crate) local: IpAddr,
    /// What both sides speak.
    pub(crate) families: &'a [Family],
    /// It takes IPv6 next hops for IPv4 prefixes (RFC 8950).
    pub(crate) ipv4_by_ipv6: bool,
}

impl Target<'_> {
    /// Whether it can be told this next hop of a prefix.
    fn takes(&self, next_hop: IpAddr, prefix: &IpNetwork) -> bool {
        next_hop.is_ipv4() == prefix.is_ipv4() || self.ipv4_by_ipv6 && prefix.is_ipv4()
    }

    fn is_external(&self) -> bool {
        self.config.asn != self.our_as
    }
}

/// Who told us of a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Teller {
    /// Its address.
    pub(crate) address: IpAddr,
    /// It is in another AS.
    pub(crate) external: bool,
    /// Its BGP identifier.
    pub(crate) router_id: Ipv4Addr,
    /// We reflect its routes (RFC 4456).
    pub(crate) client: bool,
}

/// Why a neighbour does not hear of a path; displayed for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Withheld<'a> {
    /// RFC 8212.
    NothingListed,
    /// It is learned, and only what we originate is listed.
    OnlyVips,
    /// The neighbour does not speak the family.
    Family,
    /// The neighbour told us.
    ItsOwn,
    /// RFC 4271 §9.2, RFC 4456 §6.
    Internal,
    /// One of the well-known communities, by its name.
    Community(&'static str),
    /// Policy.
    Policy(Decider<'a>),
    /// There is no next hop of the prefix's family that could be said.
    NextHop,
    /// RFC 4271 §5.1.3.
    LeadsToIt,
    /// It does not fit into a message.
    TooLarge,
}

impl std::fmt::Display for Withheld<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NothingListed => "its export lists nothing",
            Self::OnlyVips => "its export lists only VIPs",
            Self::Family => "it does not speak the family",
            Self::ItsOwn => "it told us of the best path",
            Self::Internal => {
                "both it and the best path's neighbour are in our AS, and neither is a route reflector client"
            }
            Self::Community(name) => return write!(f, "the best path has the community {name}"),
            Self::Policy(decider) => return write!(f, "{}", decider.rule()),
            Self::NextHop => {
                "the session's own address is of the other family, so it is no next hop"
            }
            Self::LeadsToIt => "the next hop that it would be told is its own address",
            Self::TooLarge => "its attributes do not fit into a message",
        })
    }
}

/// What the target hears of a path: its attributes and its next hop. `teller`: of a learned one, who told us.
pub(crate) fn told<'a>(
    prefix: &IpNetwork,
    path: &Path,
    teller: Option<Teller>,
    target: &Target<'a>,
) -> Result<(Attributes, IpAddr), Withheld<'a>> {
    check_export(prefix, path, teller, target)?;
    let change = export(prefix, path, teller, target)?;
    let said = change.as_ref().and_then(|change| change.next_hop);
    let next_hop = next_hop(prefix, path, said, target).ok_or(Withheld::NextHop)?;
    let (left, sets_med) = match &change {
        Some(change) => (&change.attributes, change.sets_med),
        None => (&*path.attributes, false),
    };
    Ok((advertised_attributes(left, sets_med, teller, target), next_hop))
}

/// Whether the protocol, and a ready-made export, let the target hear of a path.
fn check_export(
    prefix: &IpNetwork,
    path: &Path,
    teller: Option<Teller>,
    target: &Target<'_>,
) -> Result<(), Withheld<'static>> {
    match target.config.export {
        Export::None => return Err(Withheld::NothingListed),
        Export::Vips if path.via != Via::Local => return Err(Withheld::OnlyVips),
        Export::Vips | Export::All | Export::Policies(_) => {}
    }
    let external = target.is_external();
    if !target.families.contains(&Family::of(prefix)) {
        return Err(Withheld::Family);
    }
    if path.via.peer() == Some(target.index) {
        return Err(Withheld::ItsOwn);
    }
    if let Some(teller) = reflected(teller, target)
        && !(teller.client || target.config.route_reflector_client)
    {
        // RFC 4456 §6: those who are no clients know each other.
        return Err(Withheld::Internal);
    }
    // We are in no confederation: leaving the subconfederation is leaving the AS. What is to be dropped here is of no
    // use further on (RFC 7999 §3.2).
    let stays = [
        (NO_ADVERTISE, true, "no-advertise"),
        (NO_EXPORT, external, "no-export"),
        (NO_EXPORT_SUBCONFED, external, "no-export-subconfed"),
        (BLACKHOLE, external, "blackhole"),
    ];
    let communities = &path.attributes.communities;
    let found = stays.iter().find(|(value, stays, _)| *stays && communities.contains(value));
    found.map_or(Ok(()), |(.., name)| Err(Withheld::Community(name)))
}

/// Who told us of a path that stays in our AS all the way to the target.
fn reflected(teller: Option<Teller>, target: &Target<'_>) -> Option<Teller> {
    teller.filter(|teller| !teller.external && !target.is_external())
}

/// What the target's policies make of a path; `None` where they leave it as it is.
fn export<'a>(
    prefix: &IpNetwork,
    path: &Path,
    teller: Option<Teller>,
    target: &Target<'a>,
) -> Result<Option<Change>, Withheld<'a>> {
    let Export::Policies(chain) = &target.config.export else { return Ok(None) };
    let facts = Facts {
        prefix,
        neighbor: teller.map(|teller| teller.address),
        next_hop: path.via.next_hop(),
        source: match teller {
            None => Source::Local,
            Some(Teller { external: true, .. }) => Source::External,
            Some(Teller { external: false, .. }) => Source::Internal,
        },
        our_as: target.our_as,
    };
    chain.evaluate(&facts, &path.attributes).map_err(Withheld::Policy)
}

/// The next hop that the target hears: what policy says for the prefix's family, ourselves, or inside our AS that of the path (RFC 4271 §5.1.3).
/// `None` where the session's own address is of the other family and would have to be it. The target whose own address it is
/// must not hear of the path at all: it would send what is for itself to us, and we would send it back.
fn next_hop(
    prefix: &IpNetwork,
    path: &Path,
    said: Option<NextHop>,
    target: &Target<'_>,
) -> Option<IpAddr> {
    let learned = path.via.next_hop();
    let kept = match said {
        Some(NextHop::Address(address)) if target.takes(address, prefix) => Some(address),
        Some(NextHop::Unchanged) => learned,
        Some(NextHop::Own) => None,
        Some(NextHop::Address(_) | NextHop::Peer) | None => {
            learned.filter(|_| !target.is_external() && !target.config.next_hop_self)
        }
    };
    let ourselves = match target.local {
        IpAddr::V4(_) => Some(target.local),
        IpAddr::V6(local) => is_global(local).then_some(target.local),
    };
    kept.or(ourselves).filter(|next_hop| target.takes(*next_hop, prefix))
}

fn is_global(address: Ipv6Addr) -> bool {
    !address.is_unicast_link_local() && !address.is_unspecified() && !address.is_multicast()
}

/// The attributes that the target hears. `sets_med`: MED is what policy says, and not only learned.
fn advertised_attributes(
    attributes: &Attributes,
    sets_med: bool,
    teller: Option<Teller>,
    target: &Target<'_>,
) -> Attributes {
    let mut told = attributes.clone();
    told.other.retain(|other| other.flags & FLAG_TRANSITIVE != 0);
    for other in &mut told.other {
        // RFC 4271 §5: passed on by a speaker that does not know it.
        other.flags |= FLAG_PARTIAL;
    }
    if target.is_external() {
        if target.config.remove_private_as {
            remove_private_as(&mut told, target.config.asn);
        }
        told.as_path.prepend(target.our_as);
        // §5.1.4: the MED of one neighbouring AS is not for another; §5.1.5: LOCAL_PREF stays inside.
        told.med = told.med.filter(|_| sets_med);
        told.local_pref = None;
        told.originator_id = None;
        told.cluster_list.clear();
    } else {
        told.local_pref = Some(told.local_pref.unwrap_or(DEFAULT_LOCAL_PREF));
    }
    if let Some(teller) = reflected(teller, target) {
        // RFC 4456 §8.
        told.originator_id.get_or_insert(teller.router_id);
        told.cluster_list.insert(0, target.cluster_id);
    }
    if target.config.graceful_shutdown {
        // RFC 8326 §4.1: the last way to be taken, inside our AS at once.
        community::add(&mut told, Community::GRACEFUL_SHUTDOWN);
        told.local_pref = told.local_pref.map(|_| 0);
    }
    told
}

/// Takes the numbers of RFC 6996 out of a path, wherever they stand, but for the neighbour's own: it has to see its loop.
fn remove_private_as(attributes: &mut Attributes, neighbour: u32) {
    let is_private = |asn| matches!(asn, 64512..=65534 | 4_200_000_000..=4_294_967_294);
    let stays = |asn: &u32| *asn == neighbour || !is_private(*asn);
    let segments = &mut attributes.as_path.segments;
    for segment in &mut *segments {
        match segment {
            Segment::Sequence(asns)
            | Segment::Set(asns)
            | Segment::ConfedSequence(asns)
            | Segment::ConfedSet(asns) => asns.retain(stays),
        }
    }
    segments.retain(|segment| !segment.asns().is_empty());
}

#[cfg(test)]
mod tests;
