//! BGP-4 messages as values, and their wire format (RFC 4271 §4).
//!
//! ```text
//! bytes -> Framer / frame -> decode  -> Message
//! Message                 -> encode  -> bytes
//! attributes + prefixes   -> encode_updates, encode_withdrawals, encode_end_of_rib -> messages
//! ```
//!
//! Invariant: every function here is total. Bad input is a [`Notification`] to send, a [`Fault`] to
//! report or an [`EncodeError`]; nothing panics, and a decoded message holds at most
//! [`MAX_EXPANSION`] bytes of heap per byte received.

mod as_path;
mod attributes;
mod encode;
mod frame;
mod nlri;
mod notification;
mod open;
mod pack;
mod route_refresh;
mod update;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

pub(crate) use attributes::hexadecimal;
pub use encode::{EncodeError, encode, encode_end_of_rib, encode_updates, encode_withdrawals};
pub(crate) use encode::{encode_attributes, encode_block};
pub use frame::{Framer, HEADER_LEN, MAX_EXTENDED_LEN, MAX_MESSAGE_LEN, frame};
pub(crate) use nlri::Field;
pub use notification::error;
pub(crate) use pack::Packer;
pub(crate) use update::{Block, Parts, Verdict};

use ipnetwork::IpNetwork;

/// A BGP message (RFC 4271 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// OPEN.
    Open(Open),
    /// UPDATE.
    Update(Update),
    /// NOTIFICATION.
    Notification(Notification),
    /// KEEPALIVE.
    Keepalive,
    /// ROUTE-REFRESH (RFC 2918).
    RouteRefresh(Family),
    /// ROUTE-REFRESH with a subtype (RFC 7313 §3.2): [`REFRESH_BEGINS`], [`REFRESH_ENDS`], or one that nobody knows.
    /// Where that was not agreed on, it is a reserved octet and the message an ordinary one.
    RefreshMark(Family, u8),
}

/// The neighbour tells all of a family again (RFC 7313 §3.2, BoRR).
pub const REFRESH_BEGINS: u8 = 1;
/// It has told all of it (EoRR).
pub const REFRESH_ENDS: u8 = 2;

/// An address family and its kind of routes (RFC 4760).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Family {
    /// Address family identifier.
    pub afi: u16,
    /// Subsequent address family identifier.
    pub safi: u8,
}

impl Family {
    /// The family of unicast routes to a prefix.
    #[must_use]
    pub const fn of(prefix: &IpNetwork) -> Self {
        match prefix {
            IpNetwork::V4(_) => Self::IPV4_UNICAST,
            IpNetwork::V6(_) => Self::IPV6_UNICAST,
        }
    }

    /// The family of unicast routes to an address.
    #[must_use]
    pub const fn of_address(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::IPV4_UNICAST } else { Self::IPV6_UNICAST }
    }

    /// IPv4 unicast.
    pub const IPV4_UNICAST: Self = Self { afi: 1, safi: 1 };
    /// IPv6 unicast.
    pub const IPV6_UNICAST: Self = Self { afi: 2, safi: 1 };
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::IPV4_UNICAST => f.write_str("IPv4 unicast"),
            Self::IPV6_UNICAST => f.write_str("IPv6 unicast"),
            Self { afi, safi } => write!(f, "AFI {afi} SAFI {safi}"),
        }
    }
}

/// OPEN (RFC 4271 §4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The AS number: that of the four-octet capability where it is there (RFC 6793), else the header's.
    pub asn: u32,
    /// Proposed hold time.
    pub hold_time_secs: u16,
    /// BGP identifier.
    pub router_id: Ipv4Addr,
    /// Capabilities in wire order (RFC 5492).
    pub capabilities: Vec<Capability>,
}

/// A capability (RFC 5492).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Multiprotocol extensions (RFC 4760 §8).
    Multiprotocol(Family),
    /// Route refresh (RFC 2918).
    RouteRefresh,
    /// IPv6 next hops for routes of these families (RFC 8950 §4), each with the AFI of the next hop.
    ExtendedNextHop(Vec<(Family, u16)>),
    /// Messages of up to [`MAX_EXTENDED_LEN`] octets (RFC 8654).
    ExtendedMessage,
    /// Enhanced route refresh (RFC 7313).
    EnhancedRouteRefresh,
    /// Four-octet AS number (RFC 6793).
    FourOctetAs(u32),
    /// Several paths of a prefix (RFC 7911 §4), by family.
    AddPath(Vec<AddPath>),
    /// Graceful restart (RFC 4724 §3).
    GracefulRestart(GracefulRestart),
    /// Any other: kept, not used.
    Unknown {
        /// Its code.
        code: u8,
        /// Its value.
        value: Vec<u8>,
    },
}

/// What a speaker does with several paths of a prefix of a family (RFC 7911 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddPath {
    /// The family.
    pub family: Family,
    /// It takes them.
    pub receive: bool,
    /// It tells them.
    pub send: bool,
}

/// What a speaker says of its restarts (RFC 4724 §3, RFC 8538 §2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R: it has restarted, and waits for nobody's routes but those of neighbours that have not.
    pub restarted: bool,
    /// N: it keeps routes also where a NOTIFICATION or the HoldTimer ends the session.
    pub notifications: bool,
    /// How long it takes to come back, 4095 s at most.
    pub time_secs: u16,
    /// Families whose routes are to be kept, and F: whether it forwarded by them all the while.
    pub families: Vec<(Family, bool)>,
}

/// UPDATE (RFC 4271 §4.3), IPv4 unicast and multiprotocol parts together, after RFC 7606:
/// prefixes of a treat-as-withdraw UPDATE stand in `withdrawn`. Withdraw before announcing: a prefix
/// in both is announced (RFC 4271 §4.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Prefixes withdrawn, of either family.
    pub withdrawn: Vec<IpNetwork>,
    /// Prefixes announced, per next hop.
    pub announced: Vec<Announced>,
    /// The attributes that all announced prefixes share; `None` where nothing is announced.
    pub attributes: Option<Attributes>,
    /// This UPDATE marks the end of the initial routes of a family (RFC 4724 §2).
    pub end_of_rib: Option<Family>,
    /// Attributes that were malformed, and what was done.
    pub faults: Vec<Fault>,
}

/// Prefixes with one next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The next hop: NEXT_HOP, or that of MP_REACH_NLRI (the global address where there are two).
    pub next_hop: IpAddr,
    /// The prefixes.
    pub prefixes: Vec<IpNetwork>,
}

/// Path attributes apart from the next hop, which stands with the prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH, with four-octet numbers; AS4_PATH is merged in (RFC 6793 §4.2.3).
    pub as_path: AsPath,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE is there.
    pub atomic_aggregate: bool,
    /// AGGREGATOR.
    pub aggregator: Option<(u32, Ipv4Addr)>,
    /// COMMUNITIES (RFC 1997).
    pub communities: Vec<u32>,
    /// ORIGINATOR_ID (RFC 4456).
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST (RFC 4456).
    pub cluster_list: Vec<Ipv4Addr>,
    /// Others: transitive ones are passed on with the partial bit, the rest is dropped on export.
    pub other: Vec<RawAttribute>,
}

/// ORIGIN, best first (RFC 4271 §5.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// From an interior protocol.
    #[default]
    Igp,
    /// From EGP.
    Egp,
    /// Otherwise.
    Incomplete,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Igp => "igp",
            Self::Egp => "egp",
            Self::Incomplete => "incomplete",
        })
    }
}

/// AS_PATH (RFC 4271 §4.3). Displayed as people write it: `64512 {64513}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AsPath {
    /// Its segments, nearest first.
    pub segments: Vec<Segment>,
}

/// A segment of an AS_PATH.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// AS_SEQUENCE: counts each.
    Sequence(Vec<u32>),
    /// AS_SET: counts one.
    Set(Vec<u32>),
    /// AS_CONFED_SEQUENCE (RFC 5065): counts none.
    ConfedSequence(Vec<u32>),
    /// AS_CONFED_SET (RFC 5065): counts none.
    ConfedSet(Vec<u32>),
}

/// An attribute that this speaker does not interpret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RawAttribute {
    /// Attribute flags: optional 0x80, transitive 0x40, partial 0x20, extended length 0x10.
    pub flags: u8,
    /// Attribute type code.
    pub code: u8,
    /// Its value.
    pub value: Vec<u8>,
}

/// NOTIFICATION (RFC 4271 §4.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Error code.
    pub code: u8,
    /// Error subcode.
    pub subcode: u8,
    /// Data.
    pub data: Vec<u8>,
}

/// A malformed attribute and what RFC 7606 does about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Attribute type code.
    pub code: u8,
    /// What was done.
    pub disposition: Disposition,
    /// What is wrong, in words.
    pub what: &'static str,
}

/// What RFC 7606 §2 does about a malformed attribute, mildest first; session reset is an `Err` of the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disposition {
    /// The attribute is discarded, the routes stay.
    AttributeDiscard,
    /// The UPDATE's routes are withdrawn.
    TreatAsWithdraw,
}

/// How an UPDATE is read and written on one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// AS numbers have four octets in AS_PATH and AGGREGATOR (both sides sent the capability, RFC 6793).
    pub four_octet_as: bool,
    /// The neighbour is external: LOCAL_PREF, ORIGINATOR_ID and CLUSTER_LIST from it are discarded (RFC 7606 §7).
    pub external: bool,
}

/// Which families' prefixes have path identifiers before them on a session, one way (RFC 7911 §3). [`Context`] is apart from
/// it: attributes mean the same with and without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PathIds {
    pub(crate) ipv4: bool,
    pub(crate) ipv6: bool,
}

impl PathIds {
    /// No identifiers.
    pub(crate) const NONE: Self = Self { ipv4: false, ipv6: false };

    pub(crate) const fn any(self) -> bool {
        self.ipv4 || self.ipv6
    }

    pub(crate) const fn has(self, ipv6: bool) -> bool {
        if ipv6 { self.ipv6 } else { self.ipv4 }
    }
}

/// A path's identifier (RFC 7911 §3): tells apart what a neighbour says of one prefix. 0 where the session has none.
pub(crate) type PathId = u32;

/// Heap bytes that a decoded message takes at most per byte of its frame: the worst case is a field
/// of one-byte prefixes (`0.0.0.0/0`), each an 18-byte value in a vector that doubled.
pub const MAX_EXPANSION: usize = 64;

/// Reads one whole message, as [`frame()`] or [`Framer`] delimits it.
///
/// # Errors
///
/// The NOTIFICATION that ends the session; a received NOTIFICATION never causes one (RFC 4271 §6.4).
pub fn decode(bytes: &[u8], context: Context) -> Result<Message, Notification> {
    let (kind, body) = frame::split(bytes)?;
    match kind {
        frame::Kind::Open => open::decode(body).map(Message::Open),
        frame::Kind::Update => update::decode(body, context).map(Message::Update),
        frame::Kind::Notification => Ok(Message::Notification(notification::decode(body))),
        frame::Kind::Keepalive => Ok(Message::Keepalive),
        frame::Kind::RouteRefresh => route_refresh::decode(bytes, body),
    }
}

/// The body of an UPDATE, for [`Parts`]; `None` of any other message.
pub(crate) fn update_body(bytes: &[u8]) -> Option<&[u8]> {
    frame::update_body(bytes)
}

#[cfg(test)]
mod tests;
