//! Where neighbours reach us.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv6Addr, Shutdown, SocketAddr};
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
    /// accept from a listener. The host may lack the address as yet: what was right once must not keep us from starting.
    pub(crate) fn open(
        address: SocketAddr,
        transports: &Transports,
        accept: impl FnMut(TcpListener) -> AbortHandle,
    ) -> Result<Self, Refused> {
        let mut listeners = Self { sockets: Vec::new() };
        listeners.be_at(&addresses(address, transports), transports, Absent::MayCome, accept)?;
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
        self.be_at(&addresses(address, new), new, Absent::Refused, accept).inspect_err(|_| {
            if let Err((at, error)) = self.set_keys(new, old) {
                tracing::warn!(%at, "neighbours' keys stay other ones: {error}");
            }
        })
    }

    fn set_keys(&mut self, old: &Transports, new: &Transports) -> Result<(), Refused> {
        let mut done = Vec::new();
        let set = self.sockets.iter().try_for_each(|Open { address, socket, .. }| {
            let refused = |error| (*address, error);
            for (peer, (before, after)) in other_keys(old, new, address.is_ipv4()) {
                options::set_md5(socket, peer, after).map_err(refused)?;
                done.push((socket, peer, before));
            }
            options::keep_syns(socket, new).map_err(refused)
        });
        set.inspect_err(|_| {
            for (socket, peer, before) in done.into_iter().rev() {
                if let Err(error) = options::set_md5(socket, peer, before) {
                    tracing::warn!(%peer, "its key stays another one: {error}");
                }
            }
        })
    }

    /// Listens at exactly these addresses. A socket that listens at every address keeps others from its port, so those that
    /// are too many stop first, and listen again where a new one is refused.
    fn be_at(
        &mut self,
        addresses: &[SocketAddr],
        transports: &Transports,
        absent: Absent,
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
            let opened = bind(*address, transports, absent)
                .and_then(|socket| Open::new(*address, socket, &mut accept));
            match opened {
                Ok(open) => self.sockets.push(open),
                Err(error) => {
                    self.sockets.drain(stayed..).for_each(Open::close);
                    self.sockets.extend(
                        gone.into_iter().filter_map(|open| open.again(transports, &mut accept)),
                    );
                    return Err((*address, error));
                }
            }
        }
        gone.into_iter().for_each(Open::close);
        Ok(())
    }
}

/// What becomes of an address that the host does not have.
#[derive(Clone, Copy, Debug)]
enum Absent {
    /// Neighbours reach it once the host has it.
    MayCome,
    Refused,
}

impl Open {
    fn new(
        address: SocketAddr,
        socket: Socket,
        accept: &mut impl FnMut(TcpListener) -> AbortHandle,
    ) -> io::Result<Self> {
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from_std(socket.try_clone()?.into())?;
        Ok(Self { address, socket, accepting: accept(listener) })
    }

    /// Listens there again, after it has stopped, with another socket: whoever accepts may just be looking at the one that
    /// stopped, and would look for ever where it went on.
    fn again(
        self,
        transports: &Transports,
        accept: &mut impl FnMut(TcpListener) -> AbortHandle,
    ) -> Option<Self> {
        let address = self.address;
        self.close();
        bind(address, transports, Absent::MayCome)
            .and_then(|socket| Self::new(address, socket, accept))
            .inspect_err(|error| tracing::error!(at = %address, "cannot listen any more: {error}"))
            .ok()
    }

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

fn bind(address: SocketAddr, transports: &Transports, absent: Absent) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    options::of_listener(&socket, address.is_ipv4(), transports)?;
    let bound = socket.bind(&address.into());
    let lacks = |error: &io::Error| error.kind() == io::ErrorKind::AddrNotAvailable;
    match (bound, absent) {
        (Err(error), Absent::MayCome) if lacks(&error) => {
            tracing::warn!(%address, "bgp.listen is no address of this host: neighbours reach it once it is");
            if address.is_ipv4() {
                socket.set_freebind_v4(true)?;
            } else {
                socket.set_freebind_v6(true)?;
            }
            socket.bind(&address.into())?;
        }
        (bound, Absent::MayCome | Absent::Refused) => bound?,
    }
    Ok(socket)
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
                if transports.borrow().get(peer).is_none() {
                    tracing::debug!(%peer, "closed a connection: no such neighbour is configured");
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

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::sync::mpsc as blocking;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// A runtime whose only worker shows whether something keeps it busy for good.
    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    /// That the worker does what it is asked, and whoever accepts does accept.
    fn goes_on(runtime: &tokio::runtime::Runtime, at: SocketAddr) {
        use std::io::Read;
        let (told, heard) = blocking::channel();
        runtime.spawn(async move { told.send(()) });
        heard.recv_timeout(SOON).expect("the worker has time");
        let mut stranger = TcpStream::connect(at).unwrap();
        stranger.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(stranger.read(&mut [0]).unwrap(), 0, "a stranger is sent away");
    }

    #[test]
    fn a_move_that_is_refused_leaves_the_listener_as_it_was_however_often() {
        let (runtime, none) = (runtime(), Arc::new(Transports::default()));
        let _within = runtime.enter();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = free.local_addr().unwrap();
        drop(free);
        let (events, _heard) = mpsc::channel(1);
        let (_told, transports) = watch::channel(Arc::clone(&none));
        let mut take = |listener| {
            tokio::spawn(accept(listener, transports.clone(), events.clone())).abort_handle()
        };
        let mut listeners = Listeners::open(at, &none, &mut take).unwrap();
        goes_on(&runtime, at);
        for _ in 0..100 {
            let elsewhere = SocketAddr::from(([203, 0, 113, 77], at.port()));
            let (refused, error) = listeners.adapt(elsewhere, &none, &none, &mut take).unwrap_err();
            assert_eq!((refused, error.kind()), (elsewhere, io::ErrorKind::AddrNotAvailable));
            goes_on(&runtime, at);
        }
    }

    #[test]
    fn an_address_that_the_host_does_not_have_yet_keeps_nobody_from_starting() {
        let (runtime, none) = (runtime(), Transports::default());
        let _within = runtime.enter();
        let at = "203.0.113.77:17917".parse().unwrap();
        let take =
            |listener: TcpListener| tokio::spawn(async move { drop(listener) }).abort_handle();
        let listeners = Listeners::open(at, &none, take).unwrap();
        assert_eq!(listeners.sockets[0].socket.local_addr().unwrap().as_socket(), Some(at));
    }
}
