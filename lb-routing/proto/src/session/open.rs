//! Our OPEN, and what theirs makes of the session (RFC 4271 §6.2, RFC 5492, RFC 6286, RFC 6793).

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::config::{PeerConfig, SpeakerConfig};
use crate::wire::{AddPath, Capability, Context, Family, Notification, Open, PathIds, error};

/// What both sides agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Negotiated {
    /// The neighbour's BGP identifier.
    pub(crate) router_id: Ipv4Addr,
    /// The smaller of the two; zero means no keepalives and no hold timer.
    pub(crate) hold_time: Duration,
    /// How UPDATEs are read and written.
    pub(crate) context: Context,
    /// Families that both sides speak.
    pub(crate) families: Vec<Family>,
    /// The neighbour tells its routes again when asked (RFC 2918).
    pub(crate) route_refresh: bool,
    /// Where several paths of a prefix may come (RFC 7911).
    pub(crate) ids_received: PathIds,
    /// Where several paths of a prefix may be told.
    pub(crate) ids_sent: PathIds,
}

const FAMILIES: [Family; 2] = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];

/// Graceful restart is deliberately absent: a capability is a promise.
pub(crate) fn ours(local: &SpeakerConfig, peer: &PeerConfig) -> Open {
    let mut capabilities: Vec<_> = FAMILIES.map(Capability::Multiprotocol).into();
    capabilities.extend([Capability::RouteRefresh, Capability::FourOctetAs(peer.our_as(local))]);
    let (receive, send) = (peer.add_path_receive, peer.add_path_send > 1);
    if receive || send {
        let entry = |family| AddPath { family, receive, send };
        capabilities.push(Capability::AddPath(FAMILIES.map(entry).into()));
    }
    Open {
        asn: peer.our_as(local),
        hold_time_secs: u16::try_from(peer.hold_time.as_secs()).unwrap_or(u16::MAX),
        router_id: local.router_id,
        capabilities,
    }
}

/// Judges their OPEN.
pub(crate) fn negotiate(
    local: &SpeakerConfig,
    peer: &PeerConfig,
    open: &Open,
) -> Result<Negotiated, Notification> {
    if open.asn != peer.asn {
        return Err(Notification::new(error::BAD_PEER_AS));
    }
    let external = peer.is_external(local);
    // RFC 6286 §2.2: inside an AS identifiers are unique; between ASes equal ones are fine.
    if open.router_id.is_unspecified() || !external && open.router_id == local.router_id {
        return Err(Notification::new(error::BAD_BGP_IDENTIFIER));
    }
    if matches!(open.hold_time_secs, 1 | 2) {
        return Err(Notification::new(error::UNACCEPTABLE_HOLD_TIME));
    }
    let hold_time = peer.hold_time.min(Duration::from_secs(open.hold_time_secs.into()));
    let four_octet_as =
        open.capabilities.iter().any(|theirs| matches!(theirs, Capability::FourOctetAs(_)));
    Ok(Negotiated {
        router_id: open.router_id,
        hold_time,
        context: Context { four_octet_as, external },
        families: families(open),
        ids_received: path_ids(open, |theirs| peer.add_path_receive && theirs.send),
        ids_sent: path_ids(open, |theirs| peer.add_path_send > 1 && theirs.receive),
        route_refresh: open.capabilities.contains(&Capability::RouteRefresh),
    })
}

/// A neighbour without the multiprotocol capability speaks IPv4 unicast only (RFC 4760 §8).
fn families(open: &Open) -> Vec<Family> {
    let says = |family| open.capabilities.contains(&Capability::Multiprotocol(family));
    let silent =
        !open.capabilities.iter().any(|theirs| matches!(theirs, Capability::Multiprotocol(_)));
    let spoken = |family| says(family) || silent && family == Family::IPV4_UNICAST;
    FAMILIES.into_iter().filter(|&family| spoken(family)).collect()
}

/// Families for which one of their entries agrees with us (RFC 7911 §4).
fn path_ids(open: &Open, agrees: impl Fn(&AddPath) -> bool) -> PathIds {
    let says = |family| {
        open.capabilities.iter().any(|theirs| {
            let Capability::AddPath(entries) = theirs else { return false };
            entries.iter().any(|entry| entry.family == family && agrees(entry))
        })
    };
    PathIds { ipv4: says(Family::IPV4_UNICAST), ipv6: says(Family::IPV6_UNICAST) }
}
