//! Packets as somebody reads them who is slow and plain: every sum anew. The tests in the kernel hold the programs against it, and
//! those on the host the packet path.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::frame::{crc32c, pseudo_header, sum};

/// A packet as the reference reads it: header by header, nothing assumed.
#[derive(Debug)]
pub(crate) struct Naive {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    /// Whether IPv4's header checksum is right; IPv6 has none.
    pub(crate) header_is_right: bool,
    pub(crate) is_fragment: bool,
    /// Where the transport begins and where the packet ends, in the frame.
    pub(crate) transport: std::ops::Range<usize>,
}

impl Naive {
    /// `None` where the headers contradict themselves or the frame.
    pub(crate) fn parse(frame: &[u8]) -> Option<Self> {
        let naive = match frame.get(12..14)? {
            [8, 0] => Self::v4(frame)?,
            [0x86, 0xdd] => Self::v6(frame)?,
            _ => return None,
        };
        let needed = match (naive.protocol, naive.from) {
            _ if naive.is_fragment => 0,
            (6, _) => 20,
            (132, _) => 16,
            (17, _) | (1, IpAddr::V4(_)) | (58, IpAddr::V6(_)) => 8,
            _ => 0,
        };
        (naive.transport.len() >= needed).then_some(naive)
    }

    fn v4(frame: &[u8]) -> Option<Self> {
        let ip = frame.get(14..)?;
        let header = ip.get(..usize::from(ip.first()? & 15) * 4).filter(|h| h.len() >= 20)?;
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header[0] >> 4 != 4 || len < header.len() || len > ip.len() {
            return None;
        }
        let address =
            |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
        Some(Self {
            from: address(12).into(),
            to: address(16).into(),
            ttl: header[8],
            protocol: header[9],
            header_is_right: sum(&[header]) == 0,
            is_fragment: (u16::from_be_bytes([header[6], header[7]]) & 0x3fff) != 0,
            transport: 14 + header.len()..14 + len,
        })
    }

    fn v6(frame: &[u8]) -> Option<Self> {
        let ip = frame.get(14..).filter(|ip| ip.len() >= 40 && ip[0] >> 4 == 6)?;
        let end = 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
        let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap());
        let (mut protocol, mut at, mut is_fragment) = (ip[6], 40, false);
        let whole = ip.get(..end)?;
        while matches!(protocol, 0 | 43 | 44 | 60) {
            let header = whole.get(at..at + 8)?;
            let len = if protocol == 44 { 8 } else { 8 + usize::from(header[1]) * 8 };
            let offset_and_more = u16::from_be_bytes([header[2], header[3]]) & 0xfff9;
            let is_later = protocol == 44 && offset_and_more > 7;
            is_fragment |= protocol == 44 && offset_and_more != 0;
            (protocol, at) = (header[0], at + len);
            if is_later {
                break;
            }
        }
        (at <= end).then(|| Self {
            from: address(8).into(),
            to: address(24).into(),
            ttl: ip[7],
            protocol,
            header_is_right: true,
            is_fragment,
            transport: 14 + at..14 + end,
        })
    }

    /// Whether the transport's checksum is right, summed anew; `None` where there is none to check.
    pub(crate) fn transport_is_right(&self, frame: &[u8]) -> Option<bool> {
        let bytes = &frame[self.transport.clone()];
        if self.protocol == 132 && !self.is_fragment {
            let sum = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
            return (sum != 0).then(|| sum == self.crc(bytes));
        }
        let checksum_at = self.checksum_at()?;
        if self.protocol == 17 && bytes[checksum_at..checksum_at + 2] == [0, 0] {
            return None;
        }
        Some(self.sum(bytes) == 0)
    }

    pub(crate) fn checksum_at(&self) -> Option<usize> {
        match (self.protocol, self.from) {
            _ if self.is_fragment => None,
            (6, _) => Some(16),
            (17, _) => Some(6),
            (1, IpAddr::V4(_)) | (58, IpAddr::V6(_)) => Some(2),
            _ => None,
        }
    }

    pub(crate) fn crc(&self, transport: &[u8]) -> u32 {
        crc32c(&[&transport[..8], &[0; 4], &transport[12..]])
    }

    pub(crate) fn sum(&self, transport: &[u8]) -> u16 {
        let pseudo = pseudo_header(self.from, self.to, self.protocol, transport.len());
        if self.protocol == 1 { sum(&[transport]) } else { sum(&[&pseudo, transport]) }
    }

    /// Whether a router may forward it.
    pub(crate) fn may_be_forwarded(&self) -> bool {
        self.ttl > 1 && self.is_between_hosts()
    }

    /// Whether its addresses are those of hosts that may be elsewhere (RFC 1812 §5.3.7, RFC 4291 §2.5 to §2.7).
    pub(crate) fn is_between_hosts(&self) -> bool {
        let is_never_a_source = |address: IpAddr| match address {
            IpAddr::V4(a) => matches!(a.octets()[0], 0 | 127 | 224..),
            IpAddr::V6(a) => {
                a.is_multicast()
                    || a.is_unspecified()
                    || a.is_loopback()
                    || a.to_ipv4_mapped().is_some()
            }
        };
        let is_link_local = match self.to {
            IpAddr::V4(a) => a.is_link_local(),
            IpAddr::V6(a) => a.is_unicast_link_local(),
        };
        !is_never_a_source(self.from) && !is_never_a_source(self.to) && !is_link_local
    }
}
