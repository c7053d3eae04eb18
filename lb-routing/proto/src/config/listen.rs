//! Neighbours that come by themselves: nobody names them, they connect from where that is allowed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{ConfigError, PeerConfig, SpeakerConfig, validate};

/// Neighbours of one [`Listen`] at most.
pub const MAX_DYNAMIC: u16 = 4096;

/// Who connects from one of some prefixes is a neighbour, for as long as it has a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// A name for people.
    pub name: String,
    /// From where, without host bits. Of all that cover an address the longest one counts, and a neighbour that is named by
    /// its address before them all.
    pub ranges: Vec<IpNetwork>,
    /// So many neighbours at the same time, 1 to [`MAX_DYNAMIC`]; beyond, connections are refused with Cease / Connection
    /// Rejected (RFC 4486) and counted.
    pub limit: u16,
    /// What they are like. Each has its own address, which is its name too, and we never connect to it.
    pub template: PeerConfig,
}

/// Why neighbours cannot come so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// Nobody could come.
    #[error("{name}: there is no range to listen for: name one prefix at least")]
    Nobody {
        /// Whose.
        name: String,
    },
    /// Which addresses are meant?
    #[error("{name}: {range} has host bits: use {}", range.network())]
    HostBits {
        /// Whose.
        name: String,
        /// The range.
        range: IpNetwork,
    },
    /// Which of them counts?
    #[error("{name}: {range} is listened for by {first} too: keep one of them")]
    Twice {
        /// Whose.
        name: String,
        /// The range.
        range: IpNetwork,
        /// Who else.
        first: String,
    },
    /// Out of range.
    #[error("{name}: {limit} neighbours: use 1 to {MAX_DYNAMIC}")]
    Limit {
        /// Whose.
        name: String,
        /// The value.
        limit: u16,
    },
    /// Such a neighbour could not be.
    #[error("{name}: {source}")]
    Neighbour {
        /// Whose.
        name: String,
        /// Why not.
        source: Box<ConfigError>,
    },
}

impl Listen {
    /// The neighbour that it makes of an address.
    #[must_use]
    pub fn neighbour(&self, address: IpAddr) -> PeerConfig {
        PeerConfig { name: address.to_string(), address, passive: true, ..self.template.clone() }
    }

    /// How long the longest range is that covers an address, if one does.
    #[must_use]
    pub fn covers(&self, address: IpAddr) -> Option<u8> {
        let covering = self.ranges.iter().filter(|range| range.contains(address));
        covering.map(IpNetwork::prefix).max()
    }
}

/// Checks everything that `Speaker::listen` relies on.
pub fn validate_listens(config: &SpeakerConfig, listens: &[Listen]) -> Result<(), ListenError> {
    let mut known = BTreeMap::new();
    for listen in listens {
        let name = || listen.name.clone();
        if listen.ranges.is_empty() {
            return Err(ListenError::Nobody { name: name() });
        }
        if !(1..=MAX_DYNAMIC).contains(&listen.limit) {
            return Err(ListenError::Limit { name: name(), limit: listen.limit });
        }
        for &range in &listen.ranges {
            if range.ip() != range.network() {
                return Err(ListenError::HostBits { name: name(), range });
            }
            if let Some(first) = known.insert(range, name()) {
                return Err(ListenError::Twice { name: name(), range, first });
            }
            // Any address of it; the first one may be none that a neighbour can have.
            let anyone = match range.ip() {
                IpAddr::V4(_) => IpAddr::from([192, 0, 2, 1]),
                IpAddr::V6(_) => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
            };
            let template = PeerConfig { name: name(), ..listen.neighbour(anyone) };
            validate(config, &[template]).map_err(|source| ListenError::Neighbour {
                name: name(),
                source: Box::new(source),
            })?;
        }
    }
    Ok(())
}
