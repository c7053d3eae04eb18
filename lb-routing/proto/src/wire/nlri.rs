//! Prefixes on the wire (RFC 4271 §4.3, RFC 4760 §5).

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use super::{Family, PathId};

/// The address family of a field of prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V4,
    V6,
}

/// A field of prefixes is syntactically incorrect (RFC 7606 §5.3): a length beyond the family's, or
/// a prefix beyond the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Prefixes as they stand in a message, all of them readable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    octets: &'a [u8],
    version: Version,
    /// Path identifiers stand before the prefixes (RFC 7911 §3).
    ids: bool,
}

/// Octets of a path identifier.
pub(super) const PATH_ID_LEN: usize = 4;

impl<'a> Field<'a> {
    /// Looks at each prefix of a field.
    pub(super) fn new(octets: &'a [u8], version: Version, ids: bool) -> Result<Self, Malformed> {
        let mut rest = octets;
        let before = if ids { PATH_ID_LEN } else { 0 };
        while !rest.is_empty() {
            let (&length, address) =
                rest.get(before..).and_then(<[u8]>::split_first).ok_or(Malformed)?;
            if length > version.max_length() {
                return Err(Malformed);
            }
            rest = address.get(usize::from(length.div_ceil(8))..).ok_or(Malformed)?;
        }
        Ok(Self { octets, version, ids })
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    pub(crate) const fn family(&self) -> Family {
        match self.version {
            Version::V4 => Family::IPV4_UNICAST,
            Version::V6 => Family::IPV6_UNICAST,
        }
    }

    /// The prefixes, host bits cleared.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = IpNetwork> + 'a {
        self.paths().map(|(_, prefix)| prefix)
    }

    /// The prefixes with the identifiers of the paths that are meant.
    pub(crate) fn paths(&self) -> impl Iterator<Item = (PathId, IpNetwork)> + 'a {
        let Self { mut octets, version, ids } = *self;
        std::iter::from_fn(move || {
            let mut id = 0;
            if ids {
                let (bytes, rest) = octets.split_first_chunk::<PATH_ID_LEN>()?;
                (id, octets) = (PathId::from_be_bytes(*bytes), rest);
            }
            let (&length, rest) = octets.split_first()?;
            let (address, rest) = rest.split_at_checked(usize::from(length.div_ceil(8)))?;
            octets = rest;
            Some((id, prefix(address, length, version)?))
        })
    }
}

impl Version {
    const fn max_length(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// `None` where the length is beyond the family's.
fn prefix(address: &[u8], length: u8, version: Version) -> Option<IpNetwork> {
    match version {
        Version::V4 => {
            let bits = u32::from_be_bytes(padded(address)?);
            let mask = u32::MAX.checked_shl(32_u32.checked_sub(length.into())?).unwrap_or(0);
            let network = Ipv4Network::new(Ipv4Addr::from_bits(bits & mask), length).ok()?;
            Some(IpNetwork::V4(network))
        }
        Version::V6 => {
            let bits = u128::from_be_bytes(padded(address)?);
            let mask = u128::MAX.checked_shl(128_u32.checked_sub(length.into())?).unwrap_or(0);
            let network = Ipv6Network::new(Ipv6Addr::from_bits(bits & mask), length).ok()?;
            Some(IpNetwork::V6(network))
        }
    }
}

fn padded<const N: usize>(address: &[u8]) -> Option<[u8; N]> {
    let mut octets = [0; N];
    octets.get_mut(..address.len())?.copy_from_slice(address);
    Some(octets)
}

/// The octets that [`encode`] appends.
pub(super) fn encoded_len(prefix: &IpNetwork) -> usize {
    1 + usize::from(prefix.prefix().div_ceil(8))
}

/// Appends a prefix, host bits cleared.
pub(super) fn encode(prefix: &IpNetwork, field: &mut Vec<u8>) {
    field.push(prefix.prefix());
    let octets = usize::from(prefix.prefix().div_ceil(8));
    match prefix {
        IpNetwork::V4(network) => field.extend(network.network().octets().iter().take(octets)),
        IpNetwork::V6(network) => field.extend(network.network().octets().iter().take(octets)),
    }
}

#[cfg(test)]
mod tests;
