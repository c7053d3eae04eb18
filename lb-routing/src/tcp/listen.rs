//! Where neighbours reach us.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::Event;

/// Connections that the kernel holds for us.
const BACKLOG: i32 = 128;
/// After an error of `accept` (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens at the address; also for IPv6 where it is "any address" and a neighbour has an IPv6 one.
pub(crate) fn listen(
    address: SocketAddr,
    with_ipv6: bool,
) -> Result<Vec<TcpListener>, (SocketAddr, io::Error)> {
    let mut addresses = vec![address];
    if with_ipv6 && address.is_ipv4() && address.ip().is_unspecified() {
        addresses.push(SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port())));
    }
    let listen = |address| bind(address).map_err(|error| (address, error));
    addresses.into_iter().map(listen).collect()
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Hands on connections of neighbours; closes those of others at once.
pub(crate) async fn accept(
    listener: TcpListener,
    neighbours: HashSet<IpAddr>,
    events: mpsc::Sender<Event>,
) {
    while !events.is_closed() {
        match listener.accept().await {
            Ok((stream, from)) => {
                let peer = from.ip().to_canonical();
                if !neighbours.contains(&peer) {
                    tracing::debug!(%peer, "closed a connection: no such neighbour is configured");
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
