//! Where neighbours reach us.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::{Event, options};
use crate::transport::{Md5Key, Transports};

/// Connections that the kernel holds for us.
const BACKLOG: i32 = 128;
/// After an error of `accept` (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why we cannot listen: where, and what the kernel says.
pub(crate) type Refused = (SocketAddr, io::Error);

/// The sockets that listen. Whoever accepts from one owns another descriptor of it.
#[derive(Debug)]
pub(crate) struct Listeners {
    sockets: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    address: SocketAddr,
    socket: Socket,
    accepting: AbortHandle,
}

impl Listeners {
    /// Listens at the address; also for IPv6 where it is "any address" and a neighbour has an IPv6 one. `accept` has somebody
    /// accept from a listener.
    pub(crate) fn open(
        address: SocketAddr,
        transports: &Transports,
        accept: impl FnMut(TcpListener) -> AbortHandle,
    ) -> Result<Self, Refused> {
        let mut listeners = Self { sockets: Vec::new() };
        listeners.be_at(&addresses(address, transports), transports, accept)?;
        Ok(listeners)
    }

    /// Meets neighbours at the address and as `new` says from now on, and no longer as `old`. On an error nothing has changed.
    pub(crate) fn adapt(
        &mut self,
        address: SocketAddr,
        old: &Transports,
        new: &Transports,
        accept: impl FnMut(TcpListener) -> AbortHandle,
    ) -> Result<(), Refused> {
        self.set_keys(old, new)?;
        self.be_at(&addresses(address, new), new, accept).inspect_err(|_| {
            if let Err((at, error)) = self.set_keys(new, old) {
                tracing::warn!(%at, "neighbours' keys stay other ones: {error}");
            }
        })
    }

    fn set_keys(&mut self, old: &Transports, new: &Transports) -> Result<(), Refused> {
        let mut done = Vec::new();
        for Open { address, socket, .. } in &self.sockets {
            for (peer, (before, after)) in other_keys(old, new, address.is_ipv4()) {
                if let Err(error) = options::set_md5(socket, peer, after) {
                    for (socket, peer, before) in done.into_iter().rev() {
                        if let Err(error) = options::set_md5(socket, peer, before) {
                            tracing::warn!(%peer, "its key stays another one: {error}");
                        }
                    }
                    return Err((*address, error));
                }
                done.push((socket, peer, before));
            }
            options::keep_syns(socket, new).map_err(|error| (*address, error))?;
        }
        Ok(())
    }

    /// Listens at exactly these addresses. A socket that listens at every address keeps others from its port, so those that
    /// are too many stop first, and listen again where a new one is refused.
    fn be_at(
        &mut self,
        addresses: &[SocketAddr],
        transports: &Transports,
        mut accept: impl FnMut(TcpListener) -> AbortHandle,
    ) -> Result<(), Refused> {
        let stay = |open: &mut Open| addresses.contains(&open.address);
        let gone: Vec<Open> = self.sockets.extract_if(.., |open| !stay(open)).collect();
        for Open { socket, .. } in &gone {
            // Its port is free as long as it does not listen.
            let _not_listening_is_what_is_wanted = socket.shutdown(Shutdown::Read);
        }
        let stayed = self.sockets.len();
        for address in addresses {
            if self.sockets.iter().any(|open| open.address == *address) {
                continue;
            }
            let opened = bind(*address, transports)
                .and_then(|listener| Ok((listener.as_fd().try_clone_to_owned()?, listener)));
            match opened {
                Ok((socket, listener)) => self.sockets.push(Open {
                    address: *address,
                    socket: socket.into(),
                    accepting: accept(listener),
                }),
                Err(error) => {
                    self.sockets.drain(stayed..).for_each(|open| open.close());
                    for open in gone {
                        if let Err(error) = open.socket.listen(BACKLOG) {
                            tracing::error!(at = %open.address, "cannot listen any more: {error}");
                        }
                        self.sockets.push(open);
                    }
                    return Err((*address, error));
                }
            }
        }
        gone.into_iter().for_each(Open::close);
        Ok(())
    }
}

impl Open {
    fn close(self) {
        let _not_listening_is_what_is_wanted = self.socket.shutdown(Shutdown::Read);
        self.accepting.abort();
    }
}

/// Where to listen for these neighbours.
fn addresses(address: SocketAddr, transports: &Transports) -> Vec<SocketAddr> {
    let mut addresses = vec![address];
    let with_ipv6 = transports.all().any(|(peer, _)| peer.is_ipv6());
    if with_ipv6 && address.is_ipv4() && address.ip().is_unspecified() {
        addresses.push(SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port())));
    }
    addresses
}

/// Neighbours' key before and after.
type Keys<'a> = (Option<&'a Md5Key>, Option<&'a Md5Key>);

/// Neighbours of a family whose key is another one, or whether they have one. The kernel takes the key of the longest prefix.
fn other_keys<'a>(
    old: &'a Transports,
    new: &'a Transports,
    ipv4: bool,
) -> impl Iterator<Item = (IpNetwork, Keys<'a>)> {
    let key = |of: &'a Transports, peers: &IpNetwork| of.of(peers)?.md5.as_ref();
    let peers = old.all().chain(new.all()).map(|(peers, _)| peers);
    let all: BTreeSet<_> = peers.filter(|peers| peers.is_ipv4() == ipv4).collect();
    all.into_iter()
        .map(move |peers| (peers, (key(old, &peers), key(new, &peers))))
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
                let transport = transports.borrow().get(peer).cloned();
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
                // Where it has just stopped to listen, it is about to be gone.
                if error.kind() != io::ErrorKind::InvalidInput {
                    tracing::warn!(%error, "cannot accept BGP connections; trying again");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
