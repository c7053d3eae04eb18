//! This speaker as the peer under test: the router on a runtime like the daemon's, without a FIB.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use lb_routing::{Export, Import, PeerConfig, RouterConfig, SpeakerConfig};

use crate::network::{PEER, end};
use crate::peer::{OUR_AS, asn_of};

/// Runs until it is killed.
pub(crate) fn run(feeders: u8, sinks: u8) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let peers = (1..=feeders + sinks).map(|number| neighbour(number, number > feeders));
        let config = RouterConfig {
            transports: std::collections::HashMap::new(),
            speaker: SpeakerConfig { asn: OUR_AS, router_id: PEER, max_paths: 1 },
            peers: peers.collect(),
            listen: SocketAddr::new(PEER.into(), 179),
            forward: false,
        };
        let (_router, mut batches) = lb_routing::spawn(config).await?;
        while batches.recv().await.is_some() {}
        None.context("the router ended")
    })
}

fn neighbour(number: u8, is_sink: bool) -> PeerConfig {
    PeerConfig {
        passive: true,
        hold_time: Duration::ZERO,
        import: if is_sink { Import::None } else { Import::All },
        export: if is_sink { Export::All } else { Export::None },
        ..PeerConfig::new(end(number).into(), asn_of(number))
    }
}
