//! From the file's section `bgp` to the router's configuration, and from its state to what people see.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use lb_api_types::config::{Bgp, BgpPeer};
use lb_api_types::view::{BgpRouteView, PeerSettings, PeerView};
use lb_routing::{
    PathStatus, PeerConfig, PeerStatus, Reach, RouterConfig, SpeakerConfig, State, Transport,
};

use super::policy::Library;
use crate::config::keys;

/// Paths that carry traffic together at most (ECMP).
const MAX_PATHS: usize = 64;

pub(super) async fn config(bgp: &Bgp) -> Result<RouterConfig> {
    let router_id = match bgp.router_id {
        Some(id) => id,
        None => default_router_id(bgp).await?,
    };
    let transports = bgp.peers.iter().map(|peer| Ok((peer.address, transport(bgp, peer)?)));
    let transports = transports.collect::<Result<_>>()?;
    let library = Library::of(bgp)?;
    Ok(RouterConfig {
        speaker: SpeakerConfig { asn: bgp.asn, router_id, max_paths: MAX_PATHS },
        peers: bgp.peers.iter().map(|told| peer(told, &library)).collect::<Result<_>>()?,
        transports,
        listen: bgp.listen,
        forward: true,
    })
}

async fn default_router_id(bgp: &Bgp) -> Result<Ipv4Addr> {
    let highest = lb_routing::default_router_id().await.context("no BGP identifier")?;
    match highest {
        Some(id) => Ok(id),
        // Nobody is told it.
        None if bgp.peers.is_empty() => Ok(Ipv4Addr::LOCALHOST),
        None => bail!("this host has no IPv4 address to be its BGP identifier: set bgp.router_id"),
    }
}

fn peer(peer: &BgpPeer, library: &Library) -> Result<PeerConfig> {
    Ok(PeerConfig {
        name: peer.name.clone().unwrap_or_else(|| peer.address.to_string()),
        address: peer.address,
        port: peer.port,
        source: peer.source,
        asn: peer.asn,
        passive: peer.passive,
        hold_time: Duration::from_secs(peer.hold_time_secs.into()),
        connect_retry: Duration::from_secs(peer.connect_retry_secs.into()),
        import: library.import(&peer.import)?,
        export: library.export(&peer.export)?,
        next_hop_self: peer.next_hop_self,
        local_as: peer.local_as,
        remove_private_as: peer.remove_private_as,
        allow_as_in: peer.allow_as_in,
        reject_as_set: peer.reject_as_set,
    })
}

fn transport(bgp: &Bgp, peer: &BgpPeer) -> Result<Transport> {
    let md5 = peer.md5_key_file.as_deref().map(|file| {
        keys::read(file).map_err(|why| anyhow!("peer {}: md5_key_file {why}", peer.address))
    });
    Ok(Transport {
        reach: match (peer.gtsm_hops, peer.multihop) {
            (Some(hops), _) => Reach::Secured(hops),
            (None, Some(hops)) => Reach::Hops(hops),
            // As every router does: a neighbour in another AS is on the same link unless told otherwise.
            (None, None) if peer.asn != peer.local_as.unwrap_or(bgp.asn) => Reach::Hops(1),
            (None, None) => Reach::Anywhere,
        },
        md5: md5.transpose()?,
        user_timeout: peer.tcp_user_timeout_secs.map(|secs| Duration::from_secs(secs.into())),
        send_hold_time: Duration::from_secs(peer.send_hold_time_secs.into()),
    })
}

/// What the file says of a neighbour, as people see it; a key is only said to be there.
pub(super) fn peer_settings(peer: &BgpPeer) -> PeerSettings {
    PeerSettings {
        port: peer.port,
        source: peer.source,
        passive: peer.passive,
        multihop: peer.multihop,
        gtsm_hops: peer.gtsm_hops,
        md5: peer.md5_key_file.is_some(),
        tcp_user_timeout_secs: peer.tcp_user_timeout_secs,
        send_hold_time_secs: peer.send_hold_time_secs,
        hold_time_secs: peer.hold_time_secs,
        connect_retry_secs: peer.connect_retry_secs,
    }
}

pub(super) fn peer_view(
    peer: PeerStatus,
    settings: Option<PeerSettings>,
    now: Instant,
) -> PeerView {
    PeerView {
        name: peer.name,
        address: peer.address,
        asn: peer.asn,
        state: state(peer.state).into(),
        since_secs: now.saturating_duration_since(peer.since).as_secs(),
        router_id: peer.router_id,
        hold_time_secs: peer.hold_time_secs,
        prefixes_received: peer.prefixes_received,
        prefixes_advertised: peer.prefixes_advertised,
        messages_received: peer.messages_received,
        messages_sent: peer.messages_sent,
        last_error: peer.last_error,
        settings,
    }
}

pub(super) fn state(state: State) -> &'static str {
    match state {
        State::Idle => "Idle",
        State::Connect => "Connect",
        State::Active => "Active",
        State::OpenSent => "OpenSent",
        State::OpenConfirm => "OpenConfirm",
        State::Established => "Established",
    }
}

pub(super) fn route_view(path: PathStatus) -> BgpRouteView {
    BgpRouteView {
        prefix: path.prefix,
        next_hop: path.next_hop,
        peer: path.peer,
        as_path: path.attributes.as_path.to_string(),
        origin: path.attributes.origin.to_string(),
        local_pref: path.attributes.local_pref,
        med: path.attributes.med,
        best: path.best,
        multipath: path.multipath,
    }
}
