//! Packs prefixes into UPDATEs, as many as a message takes, one message after the other in one buffer.
//!
//! IPv4 prefixes go into the classic fields, IPv6 prefixes, and IPv4 ones with IPv6 next hops (RFC 8950),
//! into MP_REACH_NLRI and MP_UNREACH_NLRI, which stand first; no UPDATE carries more than one of the four fields (RFC 7606 §5.1).

use std::net::Ipv6Addr;

use ipnetwork::IpNetwork;

use super::attributes::{EXTENDED_LENGTH, MP_REACH_NLRI, MP_UNREACH_NLRI, OPTIONAL};
use super::{
    Family, HEADER_LEN, PathId, PathIds, REFRESH_BEGINS, REFRESH_ENDS, frame, nlri, route_refresh,
};

/// Octets of an UPDATE's body without attributes and prefixes: the two length fields.
const LENGTH_FIELDS: usize = 4;
/// Octets of the longest prefixes, path identifiers apart.
const MAX_IPV4_PREFIX: usize = 5;
const MAX_IPV6_PREFIX: usize = 17;
/// Octets of MP_REACH_NLRI with an IPv6 next hop before its prefixes: attribute header with extended length,
/// family, next hop with its length, reserved octet.
const MP_REACH_OVERHEAD: usize = 4 + 3 + 1 + 16 + 1;

/// Octets of attributes beside which a prefix still fits into a message of so many, without MP_REACH_NLRI; `ipv6`:
/// beside it.
pub(crate) const fn max_attributes(ipv6: bool, ids: PathIds, limit: usize) -> usize {
    let id = if ids.any() { nlri::PATH_ID_LEN } else { 0 };
    let content = limit - HEADER_LEN - LENGTH_FIELDS - id;
    if ipv6 { content - MP_REACH_OVERHEAD - MAX_IPV6_PREFIX } else { content - MAX_IPV4_PREFIX }
}

/// Messages, one after the other.
#[derive(Debug)]
pub(crate) struct Packer {
    ids: PathIds,
    bytes: Vec<u8>,
    messages: u64,
    /// Octets of a message at most.
    limit: usize,
}

/// What an UPDATE says of its prefixes.
#[derive(Clone, Copy, Debug)]
enum Saying<'a> {
    WithdrawV4,
    WithdrawV6,
    AnnounceV4(&'a [u8]),
    /// Of this family, with an IPv6 next hop.
    Reach(Family, &'a [u8], Ipv6Addr),
}

impl Packer {
    /// For messages of so many octets at most; prefixes of these families have path identifiers before them.
    pub(crate) const fn new(ids: PathIds, limit: usize) -> Self {
        Self { ids, bytes: Vec::new(), messages: 0, limit }
    }

    /// The messages, and how many UPDATEs they are.
    pub(crate) fn finish(self) -> (Vec<u8>, u64) {
        (self.bytes, self.messages)
    }

    /// Withdraws prefixes, all of them of one family.
    pub(crate) fn withdraw(
        &mut self,
        ipv6: bool,
        prefixes: impl Iterator<Item = (PathId, IpNetwork)>,
    ) {
        self.say(if ipv6 { Saying::WithdrawV6 } else { Saying::WithdrawV4 }, prefixes);
    }

    /// Announces IPv4 prefixes; NEXT_HOP is among the attributes, which are at most
    /// [`max_attributes`] octets.
    pub(crate) fn announce_ipv4(
        &mut self,
        attributes: &[u8],
        prefixes: impl Iterator<Item = (PathId, IpNetwork)>,
    ) {
        self.say(Saying::AnnounceV4(attributes), prefixes);
    }

    /// Announces prefixes of one family with an IPv6 next hop; the attributes are at most [`max_attributes`] octets.
    pub(crate) fn announce_by_ipv6(
        &mut self,
        family: Family,
        attributes: &[u8],
        next_hop: Ipv6Addr,
        prefixes: impl Iterator<Item = (PathId, IpNetwork)>,
    ) {
        self.say(Saying::Reach(family, attributes, next_hop), prefixes);
    }

    /// Marks the end of a family's initial routes (RFC 4724 §2).
    pub(crate) fn end_of_rib(&mut self, family: Family) {
        self.messages += 1;
        self.bytes.extend(super::encode_end_of_rib(family));
    }

    /// All of a family is told again from here on (RFC 7313 §3.2).
    pub(crate) fn refresh_begins(&mut self, family: Family) {
        self.bytes.extend(route_refresh::encode(family, REFRESH_BEGINS));
    }

    /// All of it has been told.
    pub(crate) fn refresh_ends(&mut self, family: Family) {
        self.bytes.extend(route_refresh::encode(family, REFRESH_ENDS));
    }

    fn say(&mut self, saying: Saying<'_>, prefixes: impl Iterator<Item = (PathId, IpNetwork)>) {
        let mut prefixes = prefixes.peekable();
        let before = if self.ids.has(saying.is_ipv6()) { nlri::PATH_ID_LEN } else { 0 };
        while prefixes.peek().is_some() {
            let start = self.bytes.len();
            self.bytes.extend([0xff; HEADER_LEN]);
            // A withdrawn routes field, then an attributes field: one of them is empty at least.
            let counted = self.open(saying);
            let end = start + self.limit - saying.trailer();
            while let Some((path, prefix)) = prefixes.peek()
                && self.bytes.len() + before + nlri::encoded_len(prefix) <= end
            {
                if before > 0 {
                    self.bytes.extend(path.to_be_bytes());
                }
                nlri::encode(prefix, &mut self.bytes);
                prefixes.next();
            }
            self.close(saying, counted);
            self.seal(start);
        }
    }

    /// Writes what stands before the prefixes; returns where the lengths are that they count in.
    fn open(&mut self, saying: Saying<'_>) -> usize {
        let place = self.bytes.len();
        match saying {
            Saying::WithdrawV4 => self.bytes.extend([0; 2]),
            Saying::WithdrawV6 => {
                self.bytes.extend([0; 4]);
                self.attribute(MP_UNREACH_NLRI, Family::IPV6_UNICAST);
            }
            Saying::AnnounceV4(attributes) => {
                let [high, low] = length(attributes.len());
                self.bytes.extend([0, 0, high, low]);
                self.bytes.extend(attributes);
            }
            Saying::Reach(family, _, next_hop) => {
                self.bytes.extend([0; 4]);
                self.attribute(MP_REACH_NLRI, family);
                self.bytes.push(16);
                self.bytes.extend(next_hop.octets());
                self.bytes.push(0);
            }
        }
        place
    }

    /// The beginning of a multiprotocol attribute, up to and with its family.
    fn attribute(&mut self, code: u8, Family { afi, safi }: Family) {
        let [high, low] = afi.to_be_bytes();
        self.bytes.extend([OPTIONAL | EXTENDED_LENGTH, code, 0, 0, high, low, safi]);
    }

    /// Writes what stands after the prefixes, and the lengths.
    fn close(&mut self, saying: Saying<'_>, place: usize) {
        let counted = |from: usize, bytes: &[u8]| length(bytes.len() - from);
        match saying {
            Saying::WithdrawV4 => {
                let octets = counted(place + 2, &self.bytes);
                self.bytes[place..place + 2].copy_from_slice(&octets);
                self.bytes.extend([0; 2]);
            }
            Saying::AnnounceV4(_) => {}
            Saying::WithdrawV6 | Saying::Reach(..) => {
                // Withdrawn routes length, attributes length, flags, code, the attribute's length.
                let octets = counted(place + 8, &self.bytes);
                self.bytes[place + 6..place + 8].copy_from_slice(&octets);
                if octets[0] == 0 {
                    // RFC 4271 §4.3: the length is extended only where it must be.
                    self.bytes[place + 4] &= !EXTENDED_LENGTH;
                    self.bytes.remove(place + 6);
                }
                if let Saying::Reach(_, attributes, _) = saying {
                    self.bytes.extend(attributes);
                }
                let octets = counted(place + 4, &self.bytes);
                self.bytes[place + 2..place + 4].copy_from_slice(&octets);
            }
        }
    }

    fn seal(&mut self, start: usize) {
        let len = length(self.bytes.len() - start);
        frame::write_header(&mut self.bytes[start..start + HEADER_LEN], len);
        self.messages += 1;
    }
}

impl Saying<'_> {
    fn is_ipv6(self) -> bool {
        match self {
            Self::WithdrawV6 => true,
            Self::Reach(family, ..) => family == Family::IPV6_UNICAST,
            Self::WithdrawV4 | Self::AnnounceV4(_) => false,
        }
    }

    /// Octets after the prefixes.
    const fn trailer(self) -> usize {
        match self {
            Self::WithdrawV4 => 2,
            Self::Reach(_, attributes, _) => attributes.len(),
            Self::WithdrawV6 | Self::AnnounceV4(_) => 0,
        }
    }
}

/// A length; messages keep it within two octets.
fn length(octets: usize) -> [u8; 2] {
    u16::try_from(octets).unwrap_or(u16::MAX).to_be_bytes()
}
