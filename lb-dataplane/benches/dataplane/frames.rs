//! Packets without payload, every checksum right, and the connections that they belong to.

use std::net::{Ipv4Addr, SocketAddrV4, SocketAddrV6};

/// Ethernet, IPv4 and TCP without options.
pub(crate) const FRAME_LEN: usize = 54;

/// The same with IPv6.
pub(crate) const FRAME6_LEN: usize = 74;

pub(crate) type Frame = [u8; FRAME_LEN];
pub(crate) type Frame6 = [u8; FRAME6_LEN];

/// What a packet carries.
#[derive(Clone, Copy)]
pub(crate) enum Carries {
    Tcp(u8),
    Udp,
    Echo,
}

pub(crate) const SYN: Carries = Carries::Tcp(0x02);
pub(crate) const SYN_ACK: Carries = Carries::Tcp(0x12);
pub(crate) const ACK: Carries = Carries::Tcp(0x10);

/// A connection, or what UDP has for one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    pub(crate) client: SocketAddrV4,
    pub(crate) vip: SocketAddrV4,
    /// Where the backend's packets come from.
    pub(crate) backend: SocketAddrV4,
    /// Where they go to: the client, or an address of the balancer's.
    pub(crate) towards: SocketAddrV4,
}

impl Connection {
    /// A packet from the client.
    pub(crate) fn there(&self, carries: Carries) -> Frame {
        frame(carries, self.client, self.vip)
    }

    /// A packet from the backend.
    pub(crate) fn back(&self, carries: Carries) -> Frame {
        frame(carries, self.backend, self.towards)
    }
}

/// A packet to the MAC of the loopback interface, all zeroes, through which test runs come in.
pub(crate) fn frame(carries: Carries, from: SocketAddrV4, to: SocketAddrV4) -> Frame {
    let mut frame = [0; FRAME_LEN];
    frame[6..14].copy_from_slice(&[2, 0, 0, 0, 0, 99, 8, 0]);
    let (ethernet_and_ip, transport) = frame.split_at_mut(34);
    let ip = &mut ethernet_and_ip[14..];
    let protocol = match carries {
        Carries::Tcp(_) => 6,
        Carries::Udp => 17,
        Carries::Echo => 1,
    };
    ip[..10].copy_from_slice(&[0x45, 0, 0, 40, 0x12, 0x34, 0, 0, 64, protocol]);
    ip[12..16].copy_from_slice(&from.ip().octets());
    ip[16..20].copy_from_slice(&to.ip().octets());
    let checksum = sum(&[ip]);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());

    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    let checksum_at = match carries {
        Carries::Tcp(flags) => {
            transport[..4].copy_from_slice(&ports);
            transport[7] = 1;
            transport[11] = 2;
            transport[12..16].copy_from_slice(&[0x50, flags, 0xff, 0xff]);
            16
        }
        Carries::Udp => {
            transport[..4].copy_from_slice(&ports);
            transport[5] = 20;
            6
        }
        Carries::Echo => {
            transport[..8].copy_from_slice(&[8, 0, 0, 0, ports[0], ports[1], 0, 7]);
            2
        }
    };
    let pseudo = [&from.ip().octets()[..], &to.ip().octets(), &[0, protocol, 0, 20]].concat();
    let pseudo = if protocol == 1 { &[][..] } else { &pseudo };
    let checksum = sum(&[pseudo, transport]);
    transport[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// The datagram's first fragment, with its header, or the one behind it.
pub(crate) fn fragment(is_first: bool, from: SocketAddrV4, to: SocketAddrV4) -> Frame {
    let mut frame = frame(Carries::Udp, from, to);
    // Sixteen bytes of payload: a fragment that is not the last has a multiple of eight.
    frame[17] = 36;
    frame[20..22].copy_from_slice(if is_first { &[0x20, 0] } else { &[0, 2] });
    frame[24..26].fill(0);
    let checksum = sum(&[&frame[14..34]]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// The same of IPv6.
pub(crate) fn fragment6(is_first: bool, from: SocketAddrV6, to: SocketAddrV6) -> Frame6 {
    let mut frame = header6(44, 16, from, to);
    frame[54..62].copy_from_slice(&[17, 0, 0, if is_first { 1 } else { 8 }, 0, 0, 0x12, 0x34]);
    frame[62..64].copy_from_slice(&from.port().to_be_bytes());
    frame[64..66].copy_from_slice(&to.port().to_be_bytes());
    frame[67] = 16;
    // A checksum of the whole, which nobody here sees.
    frame[68..70].fill(0xff);
    frame
}

/// An ICMP error, port unreachable, about a packet, with padding behind it: as long as a packet of IPv6.
pub(crate) fn error(from: Ipv4Addr, to: Ipv4Addr, about: &Frame) -> Frame6 {
    let mut frame = [0; FRAME6_LEN];
    frame[6..14].copy_from_slice(&[2, 0, 0, 0, 0, 99, 8, 0]);
    frame[14..24].copy_from_slice(&[0x45, 0, 0, 56, 0x12, 0x34, 0, 0, 64, 1]);
    frame[26..30].copy_from_slice(&from.octets());
    frame[30..34].copy_from_slice(&to.octets());
    let checksum = sum(&[&frame[14..34]]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame[34..36].copy_from_slice(&[3, 3]);
    frame[42..70].copy_from_slice(&about[14..42]);
    let checksum = sum(&[&frame[34..70]]);
    frame[36..38].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// An echo request of ICMPv6.
pub(crate) fn echo6(from: SocketAddrV6, to: SocketAddrV6) -> Frame6 {
    let mut frame = header6(58, 20, from, to);
    frame[54] = 128;
    frame[61] = 7;
    let checksum = sum(&[&frame[22..54], &[0, 20, 0, 58], &frame[54..]]);
    frame[56..58].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// A packet of IPv6 with nothing behind its header.
fn header6(next: u8, len: u8, from: SocketAddrV6, to: SocketAddrV6) -> Frame6 {
    let mut frame = [0; FRAME6_LEN];
    frame[6..14].copy_from_slice(&[2, 0, 0, 0, 0, 99, 0x86, 0xdd]);
    frame[14] = 0x60;
    frame[18..22].copy_from_slice(&[0, len, next, 64]);
    frame[22..38].copy_from_slice(&from.ip().octets());
    frame[38..54].copy_from_slice(&to.ip().octets());
    frame
}

/// A TCP segment of IPv6, to the same MAC.
pub(crate) fn segment6(flags: u8, from: SocketAddrV6, to: SocketAddrV6) -> Frame6 {
    let mut frame = header6(6, 20, from, to);
    frame[54..56].copy_from_slice(&from.port().to_be_bytes());
    frame[56..58].copy_from_slice(&to.port().to_be_bytes());
    frame[61] = 1;
    frame[65] = 2;
    frame[66..70].copy_from_slice(&[0x50, flags, 0xff, 0xff]);
    // The addresses, and then the rest of the pseudo-header (RFC 8200 §8.1).
    let checksum = sum(&[&frame[22..54], &[0, 20, 0, 6], &frame[54..]]);
    frame[70..72].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// RFC 1071 §4.1; parts of even length.
fn sum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks_exact(2));
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
