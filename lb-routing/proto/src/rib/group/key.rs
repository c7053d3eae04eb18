//! Which neighbours are of one group.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::config::{Export, PeerConfig, SpeakerConfig};
use crate::session::Up;
use crate::wire::{Context, Family, PathIds};

/// What makes neighbours hear the same. Whatever policy looks at in a neighbour's configuration
/// stands here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupKey {
    pub(super) context: Context,
    pub(super) families: Vec<Family>,
    /// Families of which they hear several paths of a prefix (RFC 7911).
    pub(super) ids: PathIds,
    /// And how many at most.
    pub(super) paths: u8,
    /// Octets of a message at most (RFC 8654).
    pub(super) limit: usize,
    /// IPv4 prefixes may have IPv6 next hops (RFC 8950).
    pub(super) ipv4_by_ipv6: bool,
    /// What is told again stands between marks (RFC 7313).
    pub(super) enhanced_refresh: bool,
    /// Changes are told no more often.
    pub(super) advertisement_interval: Duration,
    /// Our end of the sessions: the next hop.
    pub(super) local: IpAddr,
    pub(super) export: Export,
    /// Our AS on the sessions.
    pub(super) our_as: u32,
    /// Of those that we reflect routes of our AS to (RFC 4456).
    client: bool,
    pub(super) cluster_id: Ipv4Addr,
    next_hop_self: bool,
    /// Whose number stays where private ones are removed.
    remove_private_as: Option<u32>,
    graceful_shutdown: bool,
}

impl GroupKey {
    pub(crate) fn new(config: &PeerConfig, speaker: &SpeakerConfig, up: &Up) -> Self {
        let context = up.negotiated.context;
        Self {
            context,
            families: up.negotiated.families.clone(),
            ids: up.negotiated.ids_sent,
            paths: if up.negotiated.ids_sent.any() { config.add_path_send } else { 1 },
            limit: up.negotiated.message_limit(),
            ipv4_by_ipv6: up.negotiated.ipv4_by_ipv6,
            enhanced_refresh: up.negotiated.enhanced_refresh,
            advertisement_interval: config.advertisement_interval,
            local: up.local,
            export: config.export.clone(),
            our_as: config.our_as(speaker),
            client: config.route_reflector_client,
            cluster_id: speaker.cluster_id(),
            next_hop_self: config.next_hop_self,
            remove_private_as: config.remove_private_as.then_some(config.asn),
            graceful_shutdown: config.graceful_shutdown,
        }
    }
}
