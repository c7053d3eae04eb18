//! Frames as values: built with every checksum right, and taken apart with every checksum summed anew.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carries {
    Tcp {
        flags: u8,
    },
    Udp {
        checksum: bool,
    },
    /// A packet of one chunk, whose value is the payload.
    Sctp {
        chunk: u8,
        flags: u8,
        tag: u32,
    },
    Icmp {
        kind: u8,
        code: u8,
    },
    Other(u8),
}

pub(crate) const SYN: Carries = Carries::Tcp { flags: 0x02 };
pub(crate) const SYN_ACK: Carries = Carries::Tcp { flags: 0x12 };
pub(crate) const ACK: Carries = Carries::Tcp { flags: 0x10 };
pub(crate) const FIN: Carries = Carries::Tcp { flags: 0x11 };
pub(crate) const RST: Carries = Carries::Tcp { flags: 0x04 };
/// What a closed socket, or one that closes at once, answers; without ACK it answers what should not have come.
pub(crate) const RST_ACK: Carries = Carries::Tcp { flags: 0x14 };
pub(crate) const UDP: Carries = Carries::Udp { checksum: true };
pub(crate) const ECHO: Carries = Carries::Icmp { kind: 8, code: 0 };
pub(crate) const ECHO6: Carries = Carries::Icmp { kind: 128, code: 0 };

/// A packet in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) destination_mac: [u8; 6],
    pub(crate) source_mac: [u8; 6],
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) carries: Carries,
    pub(crate) ttl: u8,
    /// Bytes of IPv4 options, a multiple of 4; of IPv6 the destination options, a multiple of 8.
    pub(crate) options: Vec<u8>,
    /// Flags and fragment offset as IPv4's header has them.
    pub(crate) fragment: u16,
    pub(crate) payload: Vec<u8>,
}

/// A packet with usual values for all that a test does not care for. The MAC of zeroes is that of the loopback interface,
/// which test runs come in through.
pub(crate) fn packet(carries: Carries, from: &str, to: &str) -> Frame {
    Frame {
        destination_mac: [0; 6],
        source_mac: [2, 0, 0, 0, 0, 99],
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
        carries,
        ttl: 64,
        options: Vec::new(),
        fragment: 0,
        payload: b"seventeen octets!".to_vec(),
    }
}

impl Frame {
    pub(crate) fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    pub(crate) fn payload(self, len: usize) -> Self {
        Self { payload: (0..len).map(|n| n as u8).collect(), ..self }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (ethertype, ip) = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => ([8, 0], self.header_v4(from, to)),
            (IpAddr::V6(from), IpAddr::V6(to)) => ([0x86, 0xdd], self.header_v6(from, to)),
            both => panic!("of two families: {both:?}"),
        };
        let parts = [&self.destination_mac[..], &self.source_mac, &ethertype, &ip];
        [&parts.concat()[..], &self.transport()].concat()
    }

    fn header_v4(&self, from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
        let mut ip = vec![0x45 + (self.options.len() / 4) as u8, 0];
        ip.extend(((20 + self.options.len() + self.transport().len()) as u16).to_be_bytes());
        ip.extend([0x12, 0x34]);
        ip.extend(self.fragment.to_be_bytes());
        ip.extend([self.ttl, self.protocol(), 0, 0]);
        ip.extend(from.octets());
        ip.extend(to.octets());
        ip.extend(&self.options);
        let checksum = sum(&[&ip]);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        ip
    }

    /// RFC 8200: the fixed header, destination options, a fragment header.
    fn header_v6(&self, from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
        let (has_options, is_fragment) = (!self.options.is_empty(), self.fragment & 0x3fff != 0);
        let next = if is_fragment { 44 } else { self.protocol() };
        let mut extensions = Vec::new();
        if has_options {
            extensions.extend([next, (self.options.len() / 8) as u8 - 1]);
            extensions.extend(&self.options[2..]);
        }
        if is_fragment {
            let offset_and_more = self.fragment << 3 | self.fragment >> 13 & 1;
            extensions.extend([self.protocol(), 0]);
            extensions.extend(offset_and_more.to_be_bytes());
            extensions.extend([0, 0, 0x12, 0x34]);
        }
        let mut ip = vec![0x60, 0, 0, 0];
        ip.extend(((extensions.len() + self.transport().len()) as u16).to_be_bytes());
        ip.extend([if has_options { 60 } else { next }, self.ttl]);
        ip.extend(from.octets());
        ip.extend(to.octets());
        ip.extend(extensions);
        ip
    }

    /// Takes a frame apart.
    ///
    /// Panics where a checksum is wrong or the lengths don't fit.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let macs = |at: usize| bytes[at..at + 6].try_into().unwrap();
        let nothing = Self {
            destination_mac: macs(0),
            source_mac: macs(6),
            ..packet(Carries::Other(0), "0.0.0.0:0", "0.0.0.0:0")
        };
        match bytes[12..14] {
            [8, 0] => nothing.parsed_v4(&bytes[14..]),
            [0x86, 0xdd] => nothing.parsed_v6(&bytes[14..]),
            _ => panic!("ethertype of {bytes:02x?}"),
        }
    }

    fn parsed_v4(self, ip: &[u8]) -> Self {
        let header_len = usize::from(ip[0] & 15) * 4;
        assert_eq!(ip.len(), usize::from(u16::from_be_bytes([ip[2], ip[3]])), "total length");
        assert_eq!(sum(&[&ip[..header_len]]), 0, "IP header checksum of {ip:02x?}");
        let (header, transport) = ip.split_at(header_len);
        let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
        let with = Self {
            ttl: header[8],
            options: header[20..].to_vec(),
            fragment: u16::from_be_bytes([header[6], header[7]]),
            ..self
        };
        with.parsed_transport(header[9], address(12).into(), address(16).into(), transport)
    }

    fn parsed_v6(mut self, ip: &[u8]) -> Self {
        assert_eq!(ip[0] >> 4, 6, "version of {ip:02x?}");
        assert_eq!(ip.len(), 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]])), "length");
        let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap());
        let (mut next, mut rest) = (ip[6], &ip[40..]);
        self.ttl = ip[7];
        if next == 60 {
            let (options, behind) = rest.split_at(8 + usize::from(rest[1]) * 8);
            self.options = [&[1, 1], &options[2..]].concat();
            (next, rest) = (options[0], behind);
        }
        if next == 44 {
            let offset_and_more = u16::from_be_bytes([rest[2], rest[3]]);
            self.fragment = offset_and_more >> 3 | (offset_and_more & 1) << 13;
            (next, rest) = (rest[0], &rest[8..]);
        }
        self.parsed_transport(next, address(8).into(), address(24).into(), rest)
    }

    fn parsed_transport(self, protocol: u8, from: IpAddr, to: IpAddr, transport: &[u8]) -> Self {
        let word = |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]);
        let pseudo = pseudo_header(from, to, protocol, transport.len());
        // A part of a packet has no sum of its own.
        let whole = self.fragment & 0x3fff == 0;
        let is_right = |parts: &[&[u8]]| !whole || sum(parts) == 0;
        let (carries, ports, len) = match protocol {
            _ if self.fragment & 0x1fff != 0 => (Carries::Other(protocol), (0, 0), 0),
            6 => {
                assert!(is_right(&[&pseudo, transport]), "TCP checksum of {transport:02x?}");
                (Carries::Tcp { flags: transport[13] }, (word(0), word(2)), 20)
            }
            17 => {
                let checksum = word(6) != 0;
                assert!(
                    !checksum || is_right(&[&pseudo, transport]),
                    "UDP checksum of {transport:02x?}"
                );
                (Carries::Udp { checksum }, (word(0), word(2)), 8)
            }
            132 => {
                let sum = u32::from_le_bytes(transport[8..12].try_into().unwrap());
                let anew = crc32c(&[&transport[..8], &[0; 4], &transport[12..]]);
                assert!(!whole || sum == anew, "CRC32c of {transport:02x?}");
                let tag = u32::from_be_bytes(transport[4..8].try_into().unwrap());
                let carries = Carries::Sctp { chunk: transport[12], flags: transport[13], tag };
                let end = if whole { 12 + usize::from(word(14)) } else { transport.len() };
                let payload = transport[16..end].to_vec();
                return Self { payload, ..self.between(from, to, (word(0), word(2)), carries) };
            }
            1 => {
                assert!(is_right(&[transport]), "ICMP checksum of {transport:02x?}");
                (Carries::Icmp { kind: transport[0], code: transport[1] }, (word(4), 0), 8)
            }
            58 => {
                assert!(is_right(&[&pseudo, transport]), "ICMPv6 checksum of {transport:02x?}");
                (Carries::Icmp { kind: transport[0], code: transport[1] }, (word(4), 0), 8)
            }
            other => (Carries::Other(other), (0, 0), 0),
        };
        let payload = transport[len..].to_vec();
        Self { payload, ..self.between(from, to, ports, carries) }
    }

    fn between(self, from: IpAddr, to: IpAddr, ports: (u16, u16), carries: Carries) -> Self {
        let (from, to) = (SocketAddr::new(from, ports.0), SocketAddr::new(to, ports.1));
        Self { from, to, carries, ..self }
    }

    fn protocol(&self) -> u8 {
        match self.carries {
            Carries::Tcp { .. } => 6,
            Carries::Udp { .. } => 17,
            Carries::Sctp { .. } => 132,
            Carries::Icmp { .. } if self.from.is_ipv6() => 58,
            Carries::Icmp { .. } => 1,
            Carries::Other(protocol) => protocol,
        }
    }

    fn transport(&self) -> Vec<u8> {
        let ports = [self.from.port().to_be_bytes(), self.to.port().to_be_bytes()].concat();
        let (mut bytes, checksum_at) = match self.carries {
            Carries::Tcp { flags } => {
                let rest = [0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
                ([&ports[..], &rest].concat(), Some(16))
            }
            Carries::Udp { checksum } => {
                let len = (8 + self.payload.len()) as u16;
                let bytes = [&ports[..], &len.to_be_bytes(), &[0, 0]].concat();
                (bytes, checksum.then_some(6))
            }
            Carries::Icmp { kind, code } => {
                let id = self.from.port().to_be_bytes();
                (vec![kind, code, 0, 0, id[0], id[1], 0, 7], Some(2))
            }
            Carries::Sctp { chunk, flags, tag } => {
                let len = (4 + self.payload.len()) as u16;
                let rest = [&tag.to_be_bytes()[..], &[0; 4], &[chunk, flags], &len.to_be_bytes()];
                ([&ports[..], &rest.concat()].concat(), None)
            }
            Carries::Other(_) => (Vec::new(), None),
        };
        bytes.extend(&self.payload);
        if let Carries::Sctp { .. } = self.carries {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            let sum = crc32c(&[&bytes]).to_le_bytes();
            bytes[8..12].copy_from_slice(&sum);
        }
        if let Some(at) = checksum_at {
            let pseudo = pseudo_header(self.from.ip(), self.to.ip(), self.protocol(), bytes.len());
            let is_icmp_v4 = self.protocol() == 1;
            let checksum = match if is_icmp_v4 { sum(&[&bytes]) } else { sum(&[&pseudo, &bytes]) } {
                0 if matches!(self.carries, Carries::Udp { .. }) => 0xffff,
                other => other,
            };
            bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        bytes
    }
}

pub(crate) fn pseudo_header(from: IpAddr, to: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let len = (len as u16).to_be_bytes();
            [&from.octets()[..], &to.octets(), &[0, protocol], &len].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let len = (len as u32).to_be_bytes();
            [&from.octets()[..], &to.octets(), &len, &[0, 0, 0, protocol]].concat()
        }
        both => panic!("of two families: {both:?}"),
    }
}

/// RFC 9260 appendix A, from scratch: bit by bit.
pub(crate) fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut sum = u32::MAX;
    for byte in parts.iter().copied().flatten() {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 0 { sum >> 1 } else { sum >> 1 ^ 0x82f6_3b78 };
        }
    }
    !sum
}

/// RFC 1071 §4.1, from scratch.
pub(crate) fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum: u64 = 0;
    for part in parts {
        for word in part.chunks(2) {
            sum += u64::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
