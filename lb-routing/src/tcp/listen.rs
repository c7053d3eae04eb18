//! Where neighbours reach us.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::{Event, options};
use crate::transport::Transports;

/// Connections that the kernel holds for us.
const BACKLOG: i32 = 128;
/// After an error of `accept` (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens at the address; also for IPv6 where it is "any address" and a neighbour has an IPv6 one.
pub(crate) fn listen(
    address: SocketAddr,
    transports: &Transports,
) -> Result<Vec<TcpListener>, (SocketAddr, io::Error)> {
    let mut addresses = vec![address];
    let with_ipv6 = transports.keys().any(|peer| peer.is_ipv6());
    if with_ipv6 && address.is_ipv4() && address.ip().is_unspecified() {
        addresses.push(SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port())));
    }
    let listen = |address| bind(address, transports).map_err(|error| (address, error));
    addresses.into_iter().map(listen).collect()
}

fn bind(address: SocketAddr, transports: &Transports) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    options::of_listener(&socket, address.is_ipv4(), transports)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Hands on connections of neighbours; closes those of others at once.
pub(crate) async fn accept(
    listener: TcpListener,
    transports: Arc<Transports>,
    events: mpsc::Sender<Event>,
) {
    while !events.is_closed() {
        match listener.accept().await {
            Ok((stream, from)) => {
                let peer = from.ip().to_canonical();
                let Some(transport) = transports.get(&peer) else {
                    tracing::debug!(%peer, "closed a connection: no such neighbour is configured");
                    continue;
                };
                if let Err(error) = options::of_accepted(&stream, peer, transport) {
                    tracing::warn!(%peer, "closed a connection: {error}");
                    continue;
                }
                if events.send(Event::Accepted { peer, stream }).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept BGP connections; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
