//! Where neighbours reach us.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::{Event, options};
use crate::transport::{Md5Key, Transports};

/// Connections that the kernel holds for us.
const BACKLOG: i32 = 128;
/// After an error of `accept` (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why we cannot listen: where, and what the kernel says.
pub(crate) type Refused = (SocketAddr, io::Error);

/// The sockets that listen, for their options: those who accept own the others.
#[derive(Debug)]
pub(crate) struct Listeners {
    address: SocketAddr,
    sockets: Vec<(SocketAddr, OwnedFd)>,
}

impl Listeners {
    /// Listens at the address; also for IPv6 where it is "any address" and a neighbour has an IPv6 one.
    pub(crate) fn open(
        address: SocketAddr,
        transports: &Transports,
    ) -> Result<(Self, Vec<TcpListener>), Refused> {
        let mut listeners = Self { address, sockets: Vec::new() };
        let opened = listeners.open_missing(transports)?;
        Ok((listeners, opened))
    }

    /// Meets neighbours as `new` says from now on, and no longer as `old`; what is opened for that is to be accepted
    /// from. On an error nothing has changed.
    pub(crate) fn adapt(
        &mut self,
        old: &Transports,
        new: &Transports,
    ) -> Result<Vec<TcpListener>, Refused> {
        let mut done = Vec::new();
        for (at, socket) in &self.sockets {
            for (peer, (before, after)) in other_keys(old, new, at.is_ipv4()) {
                if let Err(error) = options::set_md5(socket, peer, after) {
                    for (socket, peer, before) in done.into_iter().rev() {
                        if let Err(error) = options::set_md5(socket, peer, before) {
                            tracing::warn!(%peer, "its key stays another one: {error}");
                        }
                    }
                    return Err((*at, error));
                }
                done.push((socket, peer, before));
            }
            if let Err(error) = options::keep_syns(socket, new) {
                return Err((*at, error));
            }
        }
        self.open_missing(new)
    }

    fn open_missing(&mut self, transports: &Transports) -> Result<Vec<TcpListener>, Refused> {
        let mut addresses = vec![self.address];
        let with_ipv6 = transports.keys().any(|peer| peer.is_ipv6());
        if with_ipv6 && self.address.is_ipv4() && self.address.ip().is_unspecified() {
            addresses.push(SocketAddr::from((Ipv6Addr::UNSPECIFIED, self.address.port())));
        }
        addresses.retain(|address| self.sockets.iter().all(|(open, _)| open != address));
        let mut opened = Vec::new();
        for address in addresses {
            let refused = |error| (address, error);
            let listener = bind(address, transports).map_err(refused)?;
            let socket = listener.as_fd().try_clone_to_owned().map_err(refused)?;
            self.sockets.push((address, socket));
            opened.push(listener);
        }
        Ok(opened)
    }
}

/// A neighbour's key before and after.
type Keys<'a> = (Option<&'a Md5Key>, Option<&'a Md5Key>);

/// Neighbours of a family whose key is another one, or whether they have one.
fn other_keys<'a>(
    old: &'a Transports,
    new: &'a Transports,
    ipv4: bool,
) -> impl Iterator<Item = (IpAddr, Keys<'a>)> {
    let key = |of: &'a Transports, peer: &IpAddr| of.get(peer)?.md5.as_ref();
    let added = new.keys().filter(|peer| !old.contains_key(*peer));
    let all = old.keys().chain(added).filter(move |peer| peer.is_ipv4() == ipv4);
    all.map(move |peer| (*peer, (key(old, peer), key(new, peer))))
        .filter(|(_, (before, after))| before != after)
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
    transports: watch::Receiver<Arc<Transports>>,
    events: mpsc::Sender<Event>,
) {
    while !events.is_closed() {
        match listener.accept().await {
            Ok((stream, from)) => {
                let peer = from.ip().to_canonical();
                let transport = transports.borrow().get(&peer).cloned();
                let Some(transport) = transport else {
                    tracing::debug!(%peer, "closed a connection: no such neighbour is configured");
                    continue;
                };
                if let Err(error) = options::of_accepted(&stream, peer, &transport) {
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
