//! What is drained.

use std::net::{IpAddr, SocketAddr};

use clap::{ArgGroup, Args};

#[derive(Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true).args(["backend", "vip", "node"]))]
pub(in crate::ctl) struct Drained {
    /// A backend: ADDRESS:PORT, or ADDRESS for all of its ports.
    #[arg(value_parser = backends)]
    pub(in crate::ctl) backend: Option<Backends>,
    /// In this VIP only; without a backend, all of its backends.
    #[arg(long)]
    pub(in crate::ctl) vip: Option<String>,
    /// This node: until it is undrained, also after a restart, BGP says that it is about to go (GRACEFUL_SHUTDOWN).
    #[arg(long, conflicts_with_all = ["backend", "vip"])]
    pub(in crate::ctl) node: bool,
    /// With --node: BGP also advertises no VIP; once traffic has moved.
    #[arg(long, requires = "node")]
    pub(in crate::ctl) withdraw: bool,
    /// Only say what would be changed.
    #[arg(long)]
    pub(in crate::ctl) dry_run: bool,
}

/// Backends at an address, or the one at a port of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ctl) struct Backends {
    pub(in crate::ctl) address: IpAddr,
    pub(in crate::ctl) port: Option<u16>,
}

fn backends(text: &str) -> Result<Backends, String> {
    let socket = text.parse::<SocketAddr>();
    let socket = socket.map(|at| Backends { address: at.ip(), port: Some(at.port()) });
    socket
        .or_else(|_| text.parse().map(|address| Backends { address, port: None }))
        .map_err(|_| "a backend is ADDRESS:PORT, or ADDRESS for all of its ports".into())
}
