//! BGP's TCP connections: listening, connecting, reading and writing.

mod connection;
mod listen;
mod options;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use lb_routing_proto::speaker::ConnId;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

pub(crate) use self::connection::{Connection, GOODBYES, Queued};
pub(crate) use self::listen::{Listeners, accept};
pub(crate) use self::options::of_accepted;
use crate::transport::Transport;

/// A connect that takes longer has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What happens on connections.
#[derive(Debug)]
pub(crate) enum Event {
    /// A neighbour connected to us.
    Accepted {
        /// Its address.
        peer: IpAddr,
        /// The connection.
        stream: TcpStream,
    },
    /// A connect ended, one way or the other.
    Connected {
        /// Whose.
        peer: IpAddr,
        /// Which attempt.
        attempt: u64,
        /// Its end.
        result: io::Result<TcpStream>,
    },
    /// Bytes arrived.
    Received {
        /// Where.
        conn: ConnId,
        /// The bytes.
        bytes: Bytes,
        /// Lets the connection be read on, once they are dealt with.
        turn: OwnedSemaphorePermit,
    },
    /// What was queued to be sent is out, nearly all.
    Drained {
        /// Where.
        conn: ConnId,
    },
    /// A connection ended.
    Closed {
        /// Which.
        conn: ConnId,
        /// Why, in words.
        error: String,
    },
}

/// Connects and says how it went.
pub(crate) async fn connect(
    peer: SocketAddr,
    source: Option<IpAddr>,
    transport: Transport,
    attempt: u64,
    events: mpsc::Sender<Event>,
) {
    let result = match tokio::time::timeout(CONNECT_TIMEOUT, open(peer, source, &transport)).await {
        Ok(result) => result,
        Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
    };
    let event = Event::Connected { peer: peer.ip(), attempt, result };
    if events.send(event).await.is_err() {
        tracing::debug!("connected after the router stopped");
    }
}

async fn open(
    peer: SocketAddr,
    source: Option<IpAddr>,
    transport: &Transport,
) -> io::Result<TcpStream> {
    let socket = if peer.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    options::of_connect(&socket, peer.ip(), transport)?;
    if let Some(source) = source {
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(source, 0)).map_err(|error| {
            let why =
                format!("cannot connect from {source}: {error}; is it an address of this host?");
            io::Error::new(error.kind(), why)
        })?;
    }
    socket.connect(peer).await
}
