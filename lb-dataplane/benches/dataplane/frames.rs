//! Packets with hardly any payload, every checksum right, and the connections that they belong to.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Ethernet, IPv4 and TCP without options.
pub(crate) const FRAME_LEN: usize = 54;

/// The same with IPv6.
pub(crate) const FRAME6_LEN: usize = 74;

const ETHERNET_LEN: usize = 14;

/// A packet in a frame of one of the two lengths, perhaps with padding behind it.
#[derive(Clone, Copy)]
pub(crate) struct Packet {
    bytes: [u8; FRAME6_LEN],
    len: usize,
}

impl AsRef<[u8]> for Packet {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What a packet carries.
#[derive(Clone, Copy)]
pub(crate) enum Carries {
    Tcp(u8),
    Udp,
    Echo,
    /// The first chunk of SCTP's, and the packet's tag. That of an INIT is 0, and the one of its answer [`TO_CLIENT`].
    Sctp(u8, u32),
}

pub(crate) const SYN: Carries = Carries::Tcp(0x02);
pub(crate) const SYN_ACK: Carries = Carries::Tcp(0x12);
pub(crate) const ACK: Carries = Carries::Tcp(0x10);

/// The tags of SCTP's packets, by where they go.
pub(crate) const TO_CLIENT: u32 = 0x1111_2222;
pub(crate) const TO_BACKEND: u32 = 0x3333_4444;
pub(crate) const INIT: u8 = 1;
pub(crate) const INIT_ACK: u8 = 2;
pub(crate) const HEARTBEAT: u8 = 4;
pub(crate) const COOKIE_ECHO: u8 = 10;
pub(crate) const COOKIE_ACK: u8 = 11;

impl Carries {
    fn protocol(self, is_v6: bool) -> u8 {
        match self {
            Self::Tcp(_) => 6,
            Self::Udp => 17,
            Self::Echo if is_v6 => 58,
            Self::Echo => 1,
            Self::Sctp(..) => 132,
        }
    }

    /// Bytes behind the IP header.
    fn len(self) -> usize {
        if matches!(self, Self::Sctp(INIT | INIT_ACK, _)) { 32 } else { 20 }
    }
}

/// A connection, or what other protocols have for one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    pub(crate) client: SocketAddr,
    pub(crate) vip: SocketAddr,
    /// Where the backend's packets come from.
    pub(crate) backend: SocketAddr,
    /// Where they go to: the client, or an address of the balancer's.
    pub(crate) towards: SocketAddr,
}

impl Connection {
    /// A packet from the client.
    pub(crate) fn there(&self, carries: Carries) -> Packet {
        packet(carries, self.client, self.vip)
    }

    /// A packet from the backend.
    pub(crate) fn back(&self, carries: Carries) -> Packet {
        packet(carries, self.backend, self.towards)
    }
}

/// A packet to the MAC of the loopback interface, all zeroes, through which test runs come in.
pub(crate) fn packet(carries: Carries, from: SocketAddr, to: SocketAddr) -> Packet {
    let is_v6 = from.is_ipv6();
    let (protocol, len) = (carries.protocol(is_v6), carries.len());
    let mut packet = header(protocol, len, from.ip(), to.ip());
    let at = packet.header_len();
    let pseudo = packet.pseudo_header(protocol, len);
    let transport = &mut packet.bytes[at..at + len];
    transport[..2].copy_from_slice(&from.port().to_be_bytes());
    transport[2..4].copy_from_slice(&to.port().to_be_bytes());
    let checksum_at = match carries {
        Carries::Tcp(flags) => {
            transport[7] = 1;
            transport[11] = 2;
            transport[12..16].copy_from_slice(&[0x50, flags, 0xff, 0xff]);
            16
        }
        Carries::Udp => {
            transport[5] = 20;
            6
        }
        Carries::Echo => {
            let request = if is_v6 { 128 } else { 8 };
            let [a, b] = from.port().to_be_bytes();
            transport[..8].copy_from_slice(&[request, 0, 0, 0, a, b, 0, 7]);
            2
        }
        Carries::Sctp(chunk, tag) => {
            transport[4..8].copy_from_slice(&tag.to_be_bytes());
            transport[12..16].copy_from_slice(&[chunk, 0, 0, len as u8 - 12]);
            if len == 32 {
                let tag = if chunk == INIT { TO_CLIENT } else { TO_BACKEND };
                transport[16..20].copy_from_slice(&tag.to_be_bytes());
                transport[20..32].copy_from_slice(&[0, 1, 0, 0, 0, 9, 0, 9, 0, 0, 0, 7]);
            }
            let sum = crc32c(transport);
            transport[8..12].copy_from_slice(&sum.to_le_bytes());
            // An INIT is longer than a short frame, and what runs by turns is of one length.
            packet.len = FRAME6_LEN;
            return packet;
        }
    };
    // ICMP's covers no addresses (RFC 792), ICMPv6's does (RFC 4443 §2.3).
    let pseudo = if protocol == 1 { 0 } else { pseudo };
    let checksum = finish(pseudo + words(transport));
    transport[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
    packet
}

impl Packet {
    /// The same bytes in a frame that says something else of them.
    pub(crate) fn of_arp(mut self) -> Self {
        self.bytes[12..14].copy_from_slice(&[8, 6]);
        self
    }

    fn header_len(&self) -> usize {
        ETHERNET_LEN + if self.bytes[12] == 8 { 20 } else { 40 }
    }

    /// The sum of what the checksums of transports cover beside them (RFC 9293 §3.1, RFC 8200 §8.1).
    fn pseudo_header(&self, protocol: u8, len: usize) -> u32 {
        let addresses = if self.bytes[12] == 8 { 26..34 } else { 22..54 };
        words(&self.bytes[addresses]) + u32::from(protocol) + len as u32
    }
}

/// The datagram's first fragment, with its header, or the one behind it.
pub(crate) fn fragment(is_first: bool, from: SocketAddr, to: SocketAddr) -> Packet {
    if from.is_ipv6() {
        return fragment6(is_first, from, to);
    }
    let mut packet = packet(Carries::Udp, from, to);
    let bytes = &mut packet.bytes;
    // Sixteen bytes of payload: a fragment that is not the last has a multiple of eight.
    bytes[17] = 36;
    bytes[20..22].copy_from_slice(if is_first { &[0x20, 0] } else { &[0, 2] });
    bytes[24..26].fill(0);
    let checksum = finish(words(&bytes[14..34]));
    bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
    packet
}

fn fragment6(is_first: bool, from: SocketAddr, to: SocketAddr) -> Packet {
    let mut packet = header(44, 16, from.ip(), to.ip());
    let bytes = &mut packet.bytes;
    bytes[54..62].copy_from_slice(&[17, 0, 0, if is_first { 1 } else { 8 }, 0, 0, 0x12, 0x34]);
    bytes[62..64].copy_from_slice(&from.port().to_be_bytes());
    bytes[64..66].copy_from_slice(&to.port().to_be_bytes());
    bytes[67] = 16;
    // A checksum of the whole, which nobody here sees.
    bytes[68..70].fill(0xff);
    packet
}

/// An ICMP error, port unreachable, about a packet of IPv4, with padding behind it.
pub(crate) fn error(from: IpAddr, to: IpAddr, about: &Packet) -> Packet {
    let mut packet = header(1, 36, from, to);
    packet.len = FRAME6_LEN;
    let bytes = &mut packet.bytes;
    bytes[34..36].copy_from_slice(&[3, 3]);
    bytes[42..70].copy_from_slice(&about.bytes[14..42]);
    let checksum = finish(words(&bytes[34..70]));
    bytes[36..38].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// A packet with room for so many bytes behind its IP header.
fn header(protocol: u8, len: usize, from: IpAddr, to: IpAddr) -> Packet {
    let mut bytes = [0; FRAME6_LEN];
    bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 99]);
    if let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) {
        bytes[12..24].copy_from_slice(&[
            8,
            0,
            0x45,
            0,
            0,
            20 + len as u8,
            0x12,
            0x34,
            0,
            0,
            64,
            protocol,
        ]);
        bytes[26..30].copy_from_slice(&from.octets());
        bytes[30..34].copy_from_slice(&to.octets());
        let checksum = finish(words(&bytes[14..34]));
        bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
        return Packet { bytes, len: FRAME_LEN };
    }
    bytes[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
    bytes[18..22].copy_from_slice(&[0, len as u8, protocol, 64]);
    bytes[22..38].copy_from_slice(&v6(from).octets());
    bytes[38..54].copy_from_slice(&v6(to).octets());
    Packet { bytes, len: FRAME6_LEN }
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// The sum of bytes of even number, not folded (RFC 1071 §4.1).
fn words(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum()
}

fn finish(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// SCTP's sum (RFC 9260 appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 0 { sum >> 1 } else { sum >> 1 ^ 0x82f6_3b78 };
        }
    }
    !sum
}
