//! The engine: every session, the RIB and the policy behind one `handle`.

use std::net::IpAddr;
use std::time::Instant;

use ipnetwork::IpNetwork;

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
    /// End every session with Cease / Administrative Shutdown (RFC 4486).
    Shutdown,
}

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
        bytes: Vec<u8>,
    },
    /// Close after what was sent is out.
    Close {
        /// Which.
        conn: ConnId,
    },
    /// The paths that carry traffic for a learned prefix are now these (empty: no route any more).
    Route(RouteChange),
    /// Something worth a log line.
    Event(Event),
}

/// The paths that carry traffic for a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteChange {
    /// The destination.
    pub prefix: IpNetwork,
    /// Next hops of the best path and its equals, sorted, without repeats; empty: withdrawn.
    pub next_hops: Vec<IpAddr>,
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
    /// A malformed UPDATE was handled without a reset (RFC 7606).
    Malformed {
        /// Whose.
        peer: IpAddr,
        /// What and what was done, in words.
        what: String,
    },
    /// A family's initial routes are complete (RFC 4724 §2).
    EndOfRib {
        /// Whose.
        peer: IpAddr,
    },
}

/// FSM states (RFC 4271 §8.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Idle.
    Idle,
    /// Connect.
    Connect,
    /// Active.
    Active,
    /// OpenSent.
    OpenSent,
    /// OpenConfirm.
    OpenConfirm,
    /// Established.
    Established,
}

/// A neighbour as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its AS number.
    pub asn: u32,
    /// FSM state.
    pub state: State,
    /// When it was entered.
    pub since: Instant,
    /// Its BGP identifier, once known.
    pub router_id: Option<std::net::Ipv4Addr>,
    /// Negotiated hold time; zero before.
    pub hold_time_secs: u16,
    /// Prefixes accepted.
    pub prefixes_received: u64,
    /// Prefixes advertised.
    pub prefixes_advertised: u64,
    /// Messages received.
    pub messages_received: u64,
    /// Messages sent.
    pub messages_sent: u64,
    /// The last error in words; empty if none.
    pub last_error: String,
}

/// A path as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStatus {
    /// The destination.
    pub prefix: IpNetwork,
    /// Unset for routes that we originate.
    pub next_hop: Option<IpAddr>,
    /// Unset for routes that we originate.
    pub peer: Option<IpAddr>,
    /// Its attributes.
    pub attributes: crate::wire::Attributes,
    /// The best path.
    pub best: bool,
    /// Carries traffic.
    pub multipath: bool,
}
