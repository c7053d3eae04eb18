//! What the driver tells the engine.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::fib::Reach;

/// A TCP connection, named by the driver and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// What the driver tells the engine.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A connect that the engine asked for is there; addresses as the socket knows them.
    Connected {
        /// Whose.
        peer: IpAddr,
        /// The connection.
        conn: ConnId,
        /// Our end: the next hop that we advertise.
        local: IpAddr,
    },
    /// A connect that the engine asked for failed.
    ConnectFailed {
        /// Whose.
        peer: IpAddr,
        /// Why, in words.
        error: String,
    },
    /// A neighbour connected to us.
    Accepted {
        /// Its address; an unknown one is refused by `Output::Close`.
        peer: IpAddr,
        /// The connection.
        conn: ConnId,
        /// Our end.
        local: IpAddr,
    },
    /// Bytes arrived, in any portions.
    Received {
        /// Where.
        conn: ConnId,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The connection ended (end of file or an error). Not sent for connections that the engine closed.
    Closed {
        /// Which.
        conn: ConnId,
        /// Why, in words.
        error: String,
    },
    /// Time passed; sent when `poll_timeout` is due.
    Tick,
    /// Originate exactly these prefixes from now on: what is new is advertised, what is gone withdrawn.
    Originate(&'a [IpNetwork]),
    /// Originate some prefixes, too, and others no longer.
    ChangeOriginated {
        /// What is new.
        come: &'a [IpNetwork],
        /// What is gone.
        go: &'a [IpNetwork],
    },
    /// Whatever is to be originated was said, as far as it is known now: after a restart nobody waits for more of it. So much
    /// goes with `Originate`, too.
    OriginatesAll,
    /// How far a next hop is that `Output::NextHop` asked about; until then it costs nothing.
    NextHop {
        /// Which one.
        next_hop: IpAddr,
        /// The interior cost (RFC 4271 §9.1.2.2 e); where it cannot be reached, no path by it is chosen (§9.1.2.1).
        reach: Reach,
    },
    /// End every session with Cease / Administrative Shutdown (RFC 4486).
    Shutdown,
}
