//! Our OPEN, and what theirs makes of the session (RFC 4271 §6.2, RFC 5492, RFC 6286, RFC 6793).

use std::net::Ipv4Addr;
use std::time::Duration;

use super::graceful::{self, Graceful, Past};
use crate::config::{PeerConfig, SpeakerConfig};
use crate::wire::{
    AddPath, Capability, Context, Family, MAX_EXTENDED_LEN, MAX_MESSAGE_LEN, Notification, Open,
    PathIds, error,
};

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
    /// Either marks where it tells all of a family again (RFC 7313).
    pub(crate) enhanced_refresh: bool,
    /// Messages may be longer than 4096 octets (RFC 8654).
    pub(crate) extended_messages: bool,
    /// IPv4 routes may have IPv6 next hops (RFC 8950).
    pub(crate) ipv4_by_ipv6: bool,
    /// What happens where one of the two restarts; none: its routes are gone.
    pub(crate) graceful: Option<Graceful>,
}

impl Negotiated {
    /// Octets of a message at most.
    pub(crate) const fn message_limit(&self) -> usize {
        if self.extended_messages { MAX_EXTENDED_LEN } else { MAX_MESSAGE_LEN }
    }
}

const FAMILIES: [Family; 2] = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];

/// IPv4 unicast with IPv6 next hops (RFC 8950 §4).
const IPV4_BY_IPV6: (Family, u16) = (Family::IPV4_UNICAST, Family::IPV6_UNICAST.afi);

/// Families that we offer.
fn offered(peer: &PeerConfig) -> &[Family] {
    peer.families.as_deref().unwrap_or(&FAMILIES)
}

/// `before`: families of the session before this one.
pub(crate) fn ours(
    local: &SpeakerConfig,
    peer: &PeerConfig,
    past: Past,
    before: Option<&[Family]>,
) -> Open {
    let families = offered(peer).iter().copied();
    let mut capabilities: Vec<_> = families.map(Capability::Multiprotocol).collect();
    capabilities.push(Capability::RouteRefresh);
    if offered(peer).contains(&Family::IPV4_UNICAST) {
        capabilities.push(Capability::ExtendedNextHop(vec![IPV4_BY_IPV6]));
    }
    capabilities.extend([
        Capability::ExtendedMessage,
        Capability::EnhancedRouteRefresh,
        Capability::FourOctetAs(peer.our_as(local)),
    ]);
    let (receive, send) = (peer.add_path_receive, peer.add_path_send > 1);
    if receive || send {
        let entry = |&family: &Family| AddPath { family, receive, send };
        capabilities.push(Capability::AddPath(offered(peer).iter().map(entry).collect()));
    }
    capabilities.extend(graceful::ours(peer, past, before));
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
        return Err(Notification::with_data(error::BAD_PEER_AS, open.asn.to_be_bytes()));
    }
    let external = peer.is_external(local);
    // RFC 6286 §2.2: inside an AS identifiers are unique; between ASes equal ones are fine.
    if open.router_id.is_unspecified() || !external && open.router_id == local.router_id {
        let identifier = open.router_id.octets();
        return Err(Notification::with_data(error::BAD_BGP_IDENTIFIER, identifier));
    }
    if matches!(open.hold_time_secs, 1 | 2) {
        let hold_time = open.hold_time_secs.to_be_bytes();
        return Err(Notification::with_data(error::UNACCEPTABLE_HOLD_TIME, hold_time));
    }
    let hold_time = peer.hold_time.min(Duration::from_secs(open.hold_time_secs.into()));
    let four_octet_as =
        open.capabilities.iter().any(|theirs| matches!(theirs, Capability::FourOctetAs(_)));
    let families = families(peer, open);
    let says = |capability| open.capabilities.contains(capability);
    Ok(Negotiated {
        graceful: graceful::negotiate(peer, open, &families),
        router_id: open.router_id,
        hold_time,
        context: Context { four_octet_as, external },
        ids_received: path_ids(open, |theirs| peer.add_path_receive && theirs.send),
        ids_sent: path_ids(open, |theirs| peer.add_path_send > 1 && theirs.receive),
        ipv4_by_ipv6: families.contains(&Family::IPV4_UNICAST) && leads_by_ipv6(open),
        families,
        route_refresh: says(&Capability::RouteRefresh),
        enhanced_refresh: says(&Capability::EnhancedRouteRefresh),
        extended_messages: says(&Capability::ExtendedMessage),
    })
}

fn leads_by_ipv6(open: &Open) -> bool {
    open.capabilities.iter().any(|theirs| {
        matches!(theirs, Capability::ExtendedNextHop(families) if families.contains(&IPV4_BY_IPV6))
    })
}

/// A neighbour without the multiprotocol capability speaks IPv4 unicast only (RFC 4760 §8).
fn families(peer: &PeerConfig, open: &Open) -> Vec<Family> {
    let says = |family| open.capabilities.contains(&Capability::Multiprotocol(family));
    let silent =
        !open.capabilities.iter().any(|theirs| matches!(theirs, Capability::Multiprotocol(_)));
    let spoken = |family| says(family) || silent && family == Family::IPV4_UNICAST;
    offered(peer).iter().copied().filter(|&family| spoken(family)).collect()
}

impl Negotiated {
    /// What was agreed on, in words.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        words.extend(self.families.iter().map(Family::to_string));
        let mut say = |holds: bool, what: &str| words.extend(holds.then(|| what.to_owned()));
        say(self.context.four_octet_as, "four-octet AS numbers");
        say(self.route_refresh, "route refresh");
        say(self.enhanced_refresh, "enhanced route refresh");
        say(self.extended_messages, "extended messages");
        say(self.ipv4_by_ipv6, "IPv4 with IPv6 next hops");
        say(self.graceful.is_some(), "graceful restart");
        for (way, ids) in [("receives", self.ids_received), ("sends", self.ids_sent)] {
            say(ids.ipv4, &format!("add-path, IPv4: lbd {way}"));
            say(ids.ipv6, &format!("add-path, IPv6: lbd {way}"));
        }
        words
    }
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
