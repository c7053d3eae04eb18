//! How TCP connections with a neighbour are made: how far it may be, its key, its patience.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;

/// Octets of a key at most (`TCP_MD5SIG_MAXKEYLEN`).
const MAX_KEY_LEN: usize = 80;

/// A neighbour that takes nothing for so long is gone (RFC 9687 §3).
pub const SEND_HOLD_TIME: Duration = Duration::from_secs(8 * 60);

/// How connections with everybody are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Transports {
    /// With neighbours that are named, by their canonical address.
    pub(crate) named: HashMap<IpAddr, Transport>,
    /// With those that come by themselves, from these prefixes.
    pub(crate) ranges: HashMap<IpNetwork, Transport>,
}

impl Transports {
    /// With whom has an address; none: there is no such neighbour.
    pub(crate) fn get(&self, peer: IpAddr) -> Option<&Transport> {
        let covering = self.ranges.iter().filter(|(range, _)| range.contains(peer));
        let longest = || covering.max_by_key(|(range, _)| range.prefix()).map(|(_, it)| it);
        self.named.get(&peer).or_else(longest)
    }

    /// Everybody's; a neighbour's address is a prefix, too.
    pub(crate) fn all(&self) -> impl Iterator<Item = (IpNetwork, &Transport)> {
        let named = self.named.iter().map(|(peer, transport)| (IpNetwork::from(*peer), transport));
        named.chain(self.ranges.iter().map(|(range, transport)| (*range, transport)))
    }

    /// That of exactly these addresses.
    pub(crate) fn of(&self, range: &IpNetwork) -> Option<&Transport> {
        let is_host = range.prefix() == IpNetwork::from(range.ip()).prefix();
        let named = is_host.then(|| self.named.get(&range.ip())).flatten();
        named.or_else(|| self.ranges.get(range))
    }
}

/// How TCP connections with a neighbour are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transport {
    /// How many hops away the neighbour is.
    pub reach: Reach,
    /// The key that signs every segment (RFC 2385); none: segments are not signed.
    pub md5: Option<Md5Key>,
    /// How long sent data may stay unacknowledged (`TCP_USER_TIMEOUT`, RFC 5482); none: the kernel's
    /// retransmissions decide.
    pub user_timeout: Option<Duration>,
    /// SendHoldTime: how long the neighbour may take nothing of what we send (RFC 9687).
    pub send_hold_time: Duration,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            reach: Reach::Anywhere,
            md5: None,
            user_timeout: None,
            send_hold_time: SEND_HOLD_TIME,
        }
    }
}

/// How many hops away a neighbour is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Our packets live long enough for any way; nothing is asked of theirs.
    #[default]
    Anywhere,
    /// Our packets live for so many hops; nothing is asked of theirs.
    Hops(u8),
    /// GTSM (RFC 5082): our packets start at 255, and theirs have to arrive with what 255 is after so
    /// many hops. 1 is a neighbour on the same link.
    Secured(u8),
}

impl Reach {
    /// What our packets start with, where it matters.
    pub(crate) const fn ttl(self) -> Option<u8> {
        match self {
            Self::Anywhere => None,
            Self::Hops(hops) => Some(hops),
            Self::Secured(_) => Some(u8::MAX),
        }
    }

    /// What their packets have to arrive with at least.
    pub(crate) const fn min_ttl(self) -> Option<u8> {
        match self {
            Self::Anywhere | Self::Hops(_) => None,
            // The first hop takes nothing off.
            Self::Secured(hops) => Some(u8::MAX - hops.saturating_sub(1)),
        }
    }
}

/// A key of TCP MD5 signatures: 1 to 80 octets. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Md5Key(Vec<u8>);

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Md5KeyError {
    /// Nothing in it.
    #[error("is empty: write the key that the neighbour has")]
    Empty,
    /// Beyond what the kernel takes.
    #[error("has {length} octets: use a key of {MAX_KEY_LEN} at most")]
    TooLong {
        /// Its octets.
        length: usize,
    },
    /// Nobody types these; a file of several lines is no key.
    #[error("has a control character or more than one line: write the key alone, on one line")]
    Control,
}

impl Md5Key {
    /// The key in a file's text; the newline that ends it is not part of it.
    ///
    /// # Errors
    ///
    /// The text is empty, too long, or of several lines.
    pub fn from_text(text: &[u8]) -> Result<Self, Md5KeyError> {
        let key = text.strip_suffix(b"\n").unwrap_or(text);
        let key = key.strip_suffix(b"\r").unwrap_or(key);
        if key.is_empty() {
            return Err(Md5KeyError::Empty);
        }
        if key.iter().any(u8::is_ascii_control) {
            return Err(Md5KeyError::Control);
        }
        if key.len() > MAX_KEY_LEN {
            return Err(Md5KeyError::TooLong { length: key.len() });
        }
        Ok(Self(key.to_vec()))
    }

    pub(crate) fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Md5Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5Key(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_within_n_hops_is_one_whose_packets_lost_less_than_n() {
        let cases = [(1, 255), (2, 254), (254, 2), (255, 1)];
        for (hops, min) in cases {
            let reach = Reach::Secured(hops);
            assert_eq!((reach.ttl(), reach.min_ttl()), (Some(255), Some(min)), "{hops}");
        }
        assert_eq!((Reach::Hops(3).ttl(), Reach::Hops(3).min_ttl()), (Some(3), None));
        assert_eq!((Reach::Anywhere.ttl(), Reach::Anywhere.min_ttl()), (None, None));
    }

    #[test]
    fn a_key_is_one_line_of_1_to_80_octets() {
        for text in ["secret", "secret\n", "secret\r\n"] {
            assert_eq!(Md5Key::from_text(text.as_bytes()).unwrap().octets(), b"secret");
        }
        assert!(Md5Key::from_text(&[b'x'; 80]).is_ok());
        let too_long = Md5KeyError::TooLong { length: 81 };
        assert_eq!(Md5Key::from_text(&[b'x'; 81]), Err(too_long));
        for text in ["", "\n", "\r\n"] {
            assert_eq!(Md5Key::from_text(text.as_bytes()), Err(Md5KeyError::Empty));
        }
        assert_eq!(Md5Key::from_text(b"a\nb\n"), Err(Md5KeyError::Control));
    }

    #[test]
    fn a_key_is_never_printed() {
        let key = Md5Key::from_text(b"secret").unwrap();
        let transport = Transport { md5: Some(key), ..Transport::default() };
        assert!(!format!("{transport:?}").contains("secret"));
    }
}
