//! What a packet says of itself, as the reference reads it: whose it is, and what of a connection's life.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::naive::Naive;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SCTP: u8 = 132;

/// Both ends of a packet. An echo's identifier is the port of who asks; who answers has port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ends {
    pub(crate) protocol: u8,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
}

impl Ends {
    pub(crate) fn reversed(self) -> Self {
        Self { from: self.to, to: self.from, ..self }
    }
}

/// What becomes of a connection by a packet, in TCP's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Life {
    /// It asks for one.
    pub(crate) asks: bool,
    /// It may be a part of one that nobody here has seen begin.
    pub(crate) goes_on: bool,
    /// It ends one, or may.
    pub(crate) ends: bool,
    /// TCP's numbers.
    pub(crate) sequence: u32,
    pub(crate) acknowledges: Option<u32>,
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// What all parts have in common.
    pub(crate) of: (IpAddr, IpAddr, u32, u8),
    pub(crate) is_first: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// A packet with ports, or of an echo.
    Ends(Ends, Life),
    /// An echo request.
    Asks(Ends),
    /// A part of a datagram without its beginning.
    Later,
    /// An ICMP error about such a packet.
    Error(Ends),
    /// Something that belongs to no flow.
    Other,
    /// It contradicts itself where it should say whose it is.
    Wrong,
}

/// What a packet says, and which part it is if it is one.
pub(crate) fn read(frame: &[u8], naive: &Naive) -> (Said, Option<Part>) {
    let transport = &frame[naive.transport.clone()];
    let Some((part, offset)) = part(frame, naive) else {
        return (said(naive.from, naive.to, naive.protocol, transport), None);
    };
    if part.is_first {
        return (said(naive.from, naive.to, naive.protocol, transport), Some(part));
    }
    // It would go beyond the longest packet, or write over the flags of TCP (RFC 3128), or over an SCTP chunk's.
    let is_over_header = offset == 8 && [TCP, SCTP].contains(&naive.protocol);
    let is_wrong = offset + transport.len() > 65_535 || is_over_header;
    (if is_wrong { Said::Wrong } else { Said::Later }, Some(part))
}

/// The part that a packet is, and where it begins, in bytes.
fn part(frame: &[u8], naive: &Naive) -> Option<(Part, usize)> {
    if !naive.is_fragment {
        return None;
    }
    let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let (offset, number, protocol) = if frame[12..14] == [8, 0] {
        (usize::from(word(20) & 0x1fff) * 8, u32::from(word(18)), naive.protocol)
    } else {
        let (mut next, mut at) = (frame[20], 54);
        while next != 44 {
            (next, at) = (frame[at], at + 8 + usize::from(frame[at + 1]) * 8);
        }
        let number = u32::from_be_bytes(frame[at + 4..at + 8].try_into().unwrap());
        // Later parts need not say the same protocol (RFC 8200 §4.5).
        (usize::from(word(at + 2) & 0xfff8), number, 0)
    };
    let of = (naive.from, naive.to, number, protocol);
    Some((Part { of, is_first: offset == 0 }, offset))
}

fn said(from: IpAddr, to: IpAddr, protocol: u8, transport: &[u8]) -> Said {
    let icmp = if from.is_ipv4() { 1 } else { 58 };
    let needed = match protocol {
        TCP => 20,
        SCTP => 16,
        UDP => 8,
        protocol if protocol == icmp => 8,
        _ => return Said::Other,
    };
    if transport.len() < needed {
        return Said::Wrong;
    }
    if protocol != icmp {
        let Some(ends) = ends(from, to, protocol, transport) else { return Said::Wrong };
        return life(protocol, transport).map_or(Said::Wrong, |life| Said::Ends(ends, life));
    }
    let is_error = match icmp {
        1 => [3, 11, 12].contains(&transport[0]),
        _ => (1..=4).contains(&transport[0]),
    };
    if is_error {
        return quoted(from, &transport[8..]).map_or(Said::Other, Said::Error);
    }
    match ends(from, to, protocol, transport) {
        Some(ends) if ends.to.port() == 0 => Said::Asks(ends),
        Some(ends) => Said::Ends(ends, Life::default()),
        None => Said::Other,
    }
}

/// The ends of a packet, of which the first eight bytes behind its IP header are enough.
fn ends(from: IpAddr, to: IpAddr, protocol: u8, transport: &[u8]) -> Option<Ends> {
    let word = |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]);
    let (source, destination) = match (protocol, transport[0], transport[1]) {
        (TCP | UDP | SCTP, ..) => (word(0), word(2)),
        (1, 8, 0) | (58, 128, 0) => (word(4), 0),
        (1, 0, 0) | (58, 129, 0) => (0, word(4)),
        _ => return None,
    };
    Some(Ends {
        protocol,
        from: SocketAddr::new(from, source),
        to: SocketAddr::new(to, destination),
    })
}

/// What a packet of a protocol with ports says of a connection; `None` if its header cannot be.
fn life(protocol: u8, transport: &[u8]) -> Option<Life> {
    let long = |at: usize| u32::from_be_bytes(transport[at..at + 4].try_into().unwrap());
    match protocol {
        TCP => {
            if transport[12] >> 4 < 5 {
                return None;
            }
            let has = |flag: u8| transport[13] & flag != 0;
            let (fin, syn, rst, ack) = (has(1), has(2), has(4), has(16));
            Some(Life {
                asks: syn && !(fin || rst || ack),
                goes_on: !syn && !rst,
                ends: fin || rst,
                sequence: long(4),
                acknowledges: (ack && !syn && !rst).then(|| long(8)),
            })
        }
        SCTP => {
            let (chunk, tag) = (transport[12], long(4));
            if [1, 2].contains(&chunk) && transport.len() < 32 {
                return None;
            }
            let asks = chunk == 1 && tag == 0 && long(16) != 0;
            let ends = [6, 7, 8, 14].contains(&chunk);
            let goes_on = ![1, 2, 6, 14].contains(&chunk);
            Some(Life { asks, goes_on, ends, ..Life::default() })
        }
        _ => Some(Life { asks: true, goes_on: true, ..Life::default() }),
    }
}

/// The ends of the packet that an error quotes, if they can be read from it.
pub(crate) fn quoted(receives: IpAddr, bytes: &[u8]) -> Option<Ends> {
    let (from, to, protocol, at) = quoted_header(receives.is_ipv4(), bytes)?;
    ends(from, to, protocol, bytes.get(at..).filter(|transport| transport.len() >= 8)?)
}

/// Addresses and protocol of a quoted packet's header, and where that ends.
pub(crate) fn quoted_header(is_v4: bool, bytes: &[u8]) -> Option<(IpAddr, IpAddr, u8, usize)> {
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    if is_v4 {
        let len = usize::from(bytes.first()? & 15) * 4;
        if bytes.len() < 20 || bytes[0] >> 4 != 4 || len < 20 || word(6) & 0x1fff != 0 {
            return None;
        }
        let address =
            |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap()).into();
        return Some((address(12), address(16), bytes[9], len));
    }
    if bytes.len() < 40 || bytes[0] >> 4 != 6 {
        return None;
    }
    let (mut protocol, mut at) = (bytes[6], 40);
    if protocol == 44 {
        if bytes.len() < 48 || word(42) & 0xfff8 != 0 {
            return None;
        }
        (protocol, at) = (bytes[40], 48);
    }
    let address =
        |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap()).into();
    Some((address(8), address(24), protocol, at))
}

/// Whether options of IPv4 name stops that a packet has still before it (RFC 791 §3.1).
pub(crate) fn has_stops(frame: &[u8]) -> bool {
    if frame[12..14] != [8, 0] {
        return false;
    }
    let mut options = &frame[34..14 + usize::from(frame[14] & 15) * 4];
    while let Some(kind) = options.first() {
        let len = match (kind, options.get(1)) {
            (0, _) => return false,
            (1, _) => 1,
            (_, Some(len)) => usize::from(*len),
            (_, None) => return false,
        };
        if len == 0 || len > options.len() || *kind != 1 && len < 2 {
            return false;
        }
        if [131, 137].contains(kind) && len > 2 && usize::from(options[2]) <= len {
            return true;
        }
        options = &options[len..];
    }
    false
}
