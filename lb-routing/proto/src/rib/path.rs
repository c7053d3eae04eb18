//! Paths: as they are kept, and as policy and people see them.

use std::net::IpAddr;
use std::sync::Arc;

use super::attributes::AttributesId;
use crate::fib::Install;
use crate::policy::Rejection;
use crate::wire::{Attributes, PathId};

/// A neighbour, by its place in the configuration; 65,535 at most.
pub(crate) type PeerIndex = u16;

/// Who a path is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Source(u16);

impl Source {
    /// We originate the prefix.
    pub(crate) const LOCAL: Self = Self(PeerIndex::MAX);

    /// A neighbour.
    pub(crate) const fn of(peer: PeerIndex) -> Self {
        Self(peer)
    }

    pub(crate) const fn peer(self) -> Option<PeerIndex> {
        if self.0 == Self::LOCAL.0 { None } else { Some(self.0) }
    }
}

/// Which tables have a path if it is the best, or why it is only kept to be shown; in one octet, as `Result` would not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    Both,
    Dataplane,
    Kernel,
    Rejected(Rejection),
}

impl Usage {
    pub(crate) const fn install(self) -> Option<Install> {
        match self {
            Self::Both => Some(Install::Both),
            Self::Dataplane => Some(Install::Dataplane),
            Self::Kernel => Some(Install::Kernel),
            Self::Rejected(_) => None,
        }
    }
}

impl From<Install> for Usage {
    fn from(install: Install) -> Self {
        match install {
            Install::Both => Self::Both,
            Install::Dataplane => Self::Dataplane,
            Install::Kernel => Self::Kernel,
        }
    }
}

/// A path as the table keeps it, in 16 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PathEntry {
    /// As it came: what policy is asked about.
    pub(crate) received: AttributesId,
    /// As policy left it: what counts.
    pub(crate) attributes: AttributesId,
    /// What tells it apart from others of the same source (RFC 7911); 0 where it has only one.
    pub(crate) path_id: PathId,
    pub(crate) source: Source,
    /// Its neighbour restarts and has not told it again.
    pub(crate) stale: bool,
    pub(crate) usage: Usage,
}

const _: () = assert!(size_of::<PathEntry>() == 16, "there are millions");

impl PathEntry {
    /// Who told us, and which one of that neighbour's: one path stands for these.
    pub(crate) const fn origin(&self) -> (Source, PathId) {
        (self.source, self.path_id)
    }

    /// Why it is not used, if it is not.
    pub(crate) const fn rejected(&self) -> Option<Rejection> {
        match self.usage {
            Usage::Rejected(rejection) => Some(rejection),
            Usage::Both | Usage::Dataplane | Usage::Kernel => None,
        }
    }
}

/// Where a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// We originate the prefix.
    Local,
    /// Learned.
    Peer {
        /// From whom.
        peer: PeerIndex,
        /// Its next hop.
        next_hop: IpAddr,
    },
}

impl Via {
    pub(crate) const fn peer(self) -> Option<PeerIndex> {
        match self {
            Self::Local => None,
            Self::Peer { peer, .. } => Some(peer),
        }
    }

    pub(crate) const fn next_hop(self) -> Option<IpAddr> {
        match self {
            Self::Local => None,
            Self::Peer { next_hop, .. } => Some(next_hop),
        }
    }
}

/// A path with its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) via: Via,
    pub(crate) attributes: Arc<Attributes>,
}
