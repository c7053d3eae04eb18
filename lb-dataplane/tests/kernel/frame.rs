//! Frames as values: built with every checksum right, and taken apart with every checksum summed anew.

use std::net::{Ipv4Addr, SocketAddrV4};

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carries {
    Tcp { flags: u8 },
    Udp { checksum: bool },
    Icmp { kind: u8, code: u8 },
    Other(u8),
}

pub(crate) const SYN: Carries = Carries::Tcp { flags: 0x02 };
pub(crate) const SYN_ACK: Carries = Carries::Tcp { flags: 0x12 };
pub(crate) const ACK: Carries = Carries::Tcp { flags: 0x10 };
pub(crate) const FIN: Carries = Carries::Tcp { flags: 0x11 };
pub(crate) const RST: Carries = Carries::Tcp { flags: 0x04 };
pub(crate) const UDP: Carries = Carries::Udp { checksum: true };
pub(crate) const ECHO: Carries = Carries::Icmp { kind: 8, code: 0 };

/// A packet in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) destination_mac: [u8; 6],
    pub(crate) source_mac: [u8; 6],
    pub(crate) from: SocketAddrV4,
    pub(crate) to: SocketAddrV4,
    pub(crate) carries: Carries,
    pub(crate) ttl: u8,
    /// Bytes of IP options, a multiple of 4.
    pub(crate) options: Vec<u8>,
    /// Flags and fragment offset as the header has them.
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
        let transport = self.transport();
        let mut ip = vec![0x45 + (self.options.len() / 4) as u8, 0];
        ip.extend(((20 + self.options.len() + transport.len()) as u16).to_be_bytes());
        ip.extend([0x12, 0x34]);
        ip.extend(self.fragment.to_be_bytes());
        ip.extend([self.ttl, self.protocol(), 0, 0]);
        ip.extend(self.from.ip().octets());
        ip.extend(self.to.ip().octets());
        ip.extend(&self.options);
        let checksum = sum(&[&ip]);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());

        let mut frame = [&self.destination_mac[..], &self.source_mac, &[8, 0]].concat();
        frame.extend(ip);
        frame.extend(transport);
        frame
    }

    /// Takes a frame apart.
    ///
    /// Panics where a checksum is wrong or the lengths don't fit.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        assert_eq!(bytes[12..14], [8, 0], "ethertype");
        let ip = &bytes[14..];
        let header_len = usize::from(ip[0] & 15) * 4;
        assert_eq!(ip.len(), usize::from(u16::from_be_bytes([ip[2], ip[3]])), "total length");
        assert_eq!(sum(&[&ip[..header_len]]), 0, "IP header checksum of {bytes:02x?}");
        let (header, transport) = ip.split_at(header_len);
        let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
        let word = |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]);
        let pseudo = pseudo_header(address(12), address(16), header[9], transport.len());
        let (carries, ports, len) = match header[9] {
            6 => {
                assert_eq!(sum(&[&pseudo, transport]), 0, "TCP checksum of {bytes:02x?}");
                (Carries::Tcp { flags: transport[13] }, (word(0), word(2)), 20)
            }
            17 => {
                let checksum = word(6) != 0;
                if checksum {
                    assert_eq!(sum(&[&pseudo, transport]), 0, "UDP checksum of {bytes:02x?}");
                }
                (Carries::Udp { checksum }, (word(0), word(2)), 8)
            }
            1 => {
                assert_eq!(sum(&[transport]), 0, "ICMP checksum of {bytes:02x?}");
                (Carries::Icmp { kind: transport[0], code: transport[1] }, (word(4), 0), 8)
            }
            other => (Carries::Other(other), (0, 0), 0),
        };
        Self {
            destination_mac: bytes[..6].try_into().unwrap(),
            source_mac: bytes[6..12].try_into().unwrap(),
            from: SocketAddrV4::new(address(12), ports.0),
            to: SocketAddrV4::new(address(16), ports.1),
            carries,
            ttl: header[8],
            options: header[20..].to_vec(),
            fragment: u16::from_be_bytes([header[6], header[7]]),
            payload: transport[len..].to_vec(),
        }
    }

    fn protocol(&self) -> u8 {
        match self.carries {
            Carries::Tcp { .. } => 6,
            Carries::Udp { .. } => 17,
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
            Carries::Other(_) => (Vec::new(), None),
        };
        bytes.extend(&self.payload);
        if let Some(at) = checksum_at {
            let pseudo =
                pseudo_header(*self.from.ip(), *self.to.ip(), self.protocol(), bytes.len());
            let is_icmp = matches!(self.carries, Carries::Icmp { .. });
            let checksum = match if is_icmp { sum(&[&bytes]) } else { sum(&[&pseudo, &bytes]) } {
                0 if matches!(self.carries, Carries::Udp { .. }) => 0xffff,
                other => other,
            };
            bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        bytes
    }
}

fn pseudo_header(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, len: usize) -> Vec<u8> {
    [&from.octets()[..], &to.octets(), &[0, protocol], &(len as u16).to_be_bytes()].concat()
}

/// RFC 1071 §4.1, from scratch.
fn sum(parts: &[&[u8]]) -> u16 {
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
