//! The kernel's side, over netlink: what it has (watcher), and routes of ours in it (installer).

mod ask;
mod decode;
mod encode;
mod install;
mod mirror;
mod next_hops;
mod rule;
mod socket;
mod tables;
mod watch;

use std::net::{IpAddr, Ipv4Addr};

pub use lb_routing_proto::fib::BGP_METRIC as OWN_METRIC;
use lb_routing_proto::fib::RouteKey;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::addresses::AddressOp;

pub use self::ask::{KernelAnswer, ask};
pub(crate) use self::install::{Installer, Outcome, Outcomes, Request};
pub(crate) use self::mirror::Event;
use self::next_hops::NextHops;
use self::socket::Socket;
pub use self::tables::{Neighbours, neighbours, routes as kernel_routes};
pub(crate) use self::watch::Watcher;

/// Our routes' protocol id. Nobody's in `/etc/iproute2/rt_protos` nor in the kernel's headers, apart
/// from FRR's block (186 to 199), and BGP's TCP port, so that people recognise it.
pub const RTPROT_LBD: u8 = 179;

/// What cannot be done with the kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}; run as root or with CAP_NET_ADMIN")]
    Open(#[source] std::io::Error),
    /// A table cannot be read.
    #[error("cannot read the kernel's {what}: {source}; run as root or with CAP_NET_ADMIN")]
    Read {
        /// Which table.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// An address of ours cannot be removed.
    #[error("cannot remove the address {address}: {source}; remove it with `ip address flush`")]
    RemoveAddress {
        /// The address.
        address: ipnetwork::IpNetwork,
        /// Why not.
        source: std::io::Error,
    },
    /// A route of ours cannot be removed.
    #[error(
        "cannot remove the route to {prefix}: {source}; remove it with `ip route flush proto {RTPROT_LBD}`"
    )]
    Remove {
        /// The destination.
        prefix: ipnetwork::IpNetwork,
        /// Why not.
        source: std::io::Error,
    },
}

/// Removes every route of ours from the main table, and every address of ours from its interface, whoever installed it;
/// returns how many of each. Foreign ones stay.
///
/// # Errors
///
/// No netlink, or the kernel refuses.
pub async fn cleanup() -> Result<(usize, usize), KernelError> {
    let mut socket = Socket::open(0).map_err(KernelError::Open)?;
    let mut ours = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let request = RouteNetlinkMessage::GetRoute(encode::all_routes(family));
        let read = |source| KernelError::Read { what: "routes", source };
        for message in socket.table(request).await.map_err(read)? {
            if let RouteNetlinkMessage::NewRoute(route) = message {
                ours.extend(our_key(&route));
            }
        }
    }
    for key in &ours {
        let delete = RouteNetlinkMessage::DelRoute(encode::delete(*key));
        match socket.request(delete, 0).await {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                return Err(KernelError::Remove { prefix: key.prefix, source: error });
            }
            Ok(()) | Err(_) => {}
        }
    }
    let mut addresses = 0;
    let read = |source| KernelError::Read { what: "addresses", source };
    let table = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    for message in socket.table(table).await.map_err(read)? {
        let RouteNetlinkMessage::NewAddress(message) = message else { continue };
        let Some((key, true)) = decode::address(&message) else { continue };
        let (delete, flags) = encode::address(&AddressOp::Delete(key));
        match socket.request(delete, flags).await {
            // It went with another one of its network, or with its interface.
            Err(error) if !is_gone(&error) => {
                return Err(KernelError::RemoveAddress { address: key.1, source: error });
            }
            Ok(()) | Err(_) => addresses += 1,
        }
    }
    Ok((ours.len(), addresses))
}

/// What is to be removed is not there.
fn is_gone(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENODEV))
}

fn our_key(route: &RouteMessage) -> Option<RouteKey> {
    let decoded = decode::route(route, &NextHops::default())?;
    decoded.ours.then_some(decoded.route.key)
}

/// The highest IPv4 address of this host's interfaces, loopback ones apart: what routers commonly take
/// as BGP identifier where none is configured. `None` without any.
///
/// # Errors
///
/// No netlink.
pub async fn default_router_id() -> Result<Option<Ipv4Addr>, KernelError> {
    let mut socket = Socket::open(0).map_err(KernelError::Open)?;
    let mut highest = None;
    let mut request = AddressMessage::default();
    request.header.family = AddressFamily::Inet;
    let read = |source| KernelError::Read { what: "addresses", source };
    let table = socket.table(RouteNetlinkMessage::GetAddress(request)).await.map_err(read)?;
    for message in table {
        let RouteNetlinkMessage::NewAddress(address) = message else { continue };
        for attribute in address.attributes {
            if let AddressAttribute::Local(IpAddr::V4(local)) = attribute
                && !local.is_loopback()
            {
                highest = highest.max(Some(local));
            }
        }
    }
    Ok(highest)
}
