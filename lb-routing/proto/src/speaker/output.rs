//! What the engine asks of the driver.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ipnetwork::IpNetwork;

use super::{ConnId, State};
use crate::fib::Install;

/// What the engine asks of the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a TCP connection to the neighbour; answered by `Connected` or `ConnectFailed`.
    Connect {
        /// Whose.
        peer: IpAddr,
        /// Its port.
        port: u16,
        /// From where.
        source: Option<IpAddr>,
    },
    /// Give up a connect that is under way; no answer is wanted.
    AbortConnect {
        /// Whose.
        peer: IpAddr,
    },
    /// Send.
    Send {
        /// Where.
        conn: ConnId,
        /// What.
        bytes: Bytes,
    },
    /// Close after what was sent is out.
    Close {
        /// Which.
        conn: ConnId,
    },
    /// A next hop came or went: what it costs to reach it counts from now on, or no longer. A driver that resolves none says
    /// nothing.
    NextHop {
        /// Which one.
        next_hop: IpAddr,
        /// Its cost is to be said by `Input::NextHop`, now and when it changes.
        wanted: bool,
    },
    /// The paths that carry traffic for these prefixes are now these.
    Routes(Vec<RouteChange>),
    /// What a prefix's routes count as on the way to next hops (`Fact::Leading`). A driver that resolves none leaves it.
    Leading {
        /// The destination.
        prefix: IpNetwork,
        /// Next hops by level; none: what `Routes` says.
        by_level: Vec<Arc<[IpAddr]>>,
    },
    /// Something worth a log line.
    Event(Event),
    /// Much was looked at and nothing came of it yet: poll again once others had their turn.
    Busy,
}

/// The paths that carry traffic for a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteChange {
    /// The destination.
    pub prefix: IpNetwork,
    /// Next hops of the best path and its equals, sorted, without repeats; empty: withdrawn.
    pub next_hops: Arc<[IpAddr]>,
    /// Which tables are to have them.
    pub install: Install,
}

/// Something worth a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session's FSM entered a state.
    State {
        /// Whose.
        peer: IpAddr,
        /// Which.
        state: State,
        /// Why, in words.
        cause: String,
    },
    /// A malformed UPDATE was handled (RFC 7606).
    Malformed {
        /// Whose.
        peer: IpAddr,
        /// What and what was done, in words.
        what: String,
    },
    /// A neighbour tells as many prefixes as it may, or more.
    PrefixLimit {
        /// Whose.
        peer: IpAddr,
        /// What and what is done, in words.
        what: String,
    },
    /// A neighbour has gone without a goodbye: its paths stay for a while (RFC 4724).
    Stale {
        /// Whose.
        peer: IpAddr,
        /// How many.
        paths: u64,
        /// For so long.
        time: Duration,
    },
    /// It is back, or it is not in time: those that it does not tell again are gone.
    StaleOver {
        /// Whose.
        peer: IpAddr,
        /// How many are gone.
        paths: u64,
    },
    /// A route is not told to neighbours, as its attributes are too large for a message.
    Oversize {
        /// One of those neighbours.
        peer: IpAddr,
        /// Which route, how large and what to do, in words.
        what: String,
    },
    /// A connection is refused, since as many neighbours as may have come by themselves.
    Refused {
        /// From where.
        peer: IpAddr,
        /// Whose limit it is, in words.
        what: String,
    },
    /// A family's initial routes are complete (RFC 4724 §2).
    EndOfRib {
        /// Whose.
        peer: IpAddr,
    },
}
