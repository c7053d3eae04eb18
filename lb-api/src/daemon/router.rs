//! From the file's section `bgp` to the router's configuration, and from its state to what people see.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lb_api_types::config::{self, Bgp, BgpPeer};
use lb_api_types::view::{BgpRouteView, PeerView};
use lb_routing::{
    Export, Import, PathStatus, PeerConfig, PeerStatus, RouterConfig, SpeakerConfig, State,
};

/// Paths that carry traffic together at most (ECMP).
const MAX_PATHS: usize = 64;

pub(super) async fn config(bgp: &Bgp) -> Result<RouterConfig> {
    let router_id = match bgp.router_id {
        Some(id) => id,
        None => default_router_id(bgp).await?,
    };
    Ok(RouterConfig {
        speaker: SpeakerConfig { asn: bgp.asn, router_id, max_paths: MAX_PATHS },
        peers: bgp.peers.iter().map(peer).collect(),
        listen: bgp.listen,
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

fn peer(peer: &BgpPeer) -> PeerConfig {
    PeerConfig {
        name: peer.name.clone().unwrap_or_else(|| peer.address.to_string()),
        address: peer.address,
        port: peer.port,
        source: peer.source,
        asn: peer.asn,
        passive: peer.passive,
        hold_time: Duration::from_secs(peer.hold_time_secs.into()),
        connect_retry: Duration::from_secs(peer.connect_retry_secs.into()),
        import: match peer.import {
            config::Import::None => Import::None,
            config::Import::All => Import::All,
        },
        export: match peer.export {
            config::Export::None => Export::None,
            config::Export::Vips => Export::Vips,
            config::Export::All => Export::All,
        },
        next_hop_self: peer.next_hop_self,
    }
}

pub(super) fn peer_view(peer: PeerStatus, now: Instant) -> PeerView {
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
    }
}

fn state(state: State) -> &'static str {
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
