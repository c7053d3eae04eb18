//! This speaker as the peer under test: the router on a runtime like the daemon's, without a FIB.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use lb_routing::{Export, Import, PeerConfig, RouterConfig, SpeakerConfig};

use crate::network::PEER;
use crate::peer::{Layout, OUR_AS, Role, asn_of};

/// Runs until it is killed.
pub(crate) fn run(layout: &Layout) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let peers = layout.ends().map(|(number, role)| neighbour(layout, number, role));
        let config = RouterConfig {
            transports: std::collections::HashMap::new(),
            speaker: SpeakerConfig { max_paths: 1, ..SpeakerConfig::new(OUR_AS, PEER) },
            peers: peers.collect(),
            dynamic: Vec::new(),
            listen: SocketAddr::new(layout.family.peer(), 179),
            forward: false,
            preserved: false,
        };
        let (_router, mut batches) = lb_routing::spawn(config).await?;
        while batches.recv().await.is_some() {}
        None.context("the router ended")
    })
}

fn neighbour(layout: &Layout, number: u16, role: Role) -> PeerConfig {
    PeerConfig {
        passive: true,
        hold_time: Duration::from_secs(layout.hold_time_secs.into()),
        import: if role == Role::Sink { Import::None } else { Import::All },
        export: if role == Role::Feeder { Export::None } else { Export::All },
        ..PeerConfig::new(layout.family.end(number), asn_of(number))
    }
}
