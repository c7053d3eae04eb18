//! From a frame to what the pipeline decides by: Ethernet, IPv4 (RFC 791), TCP, UDP and ICMP echo.
//!
//! Headers are copied out field by field; nothing here writes. The header checksum is not verified, although RFC 1812
//! §5.2.2 asks a router to: every change to it is incremental, so a wrong one stays wrong and meets its end at the next
//! hop.

use crate::flow::{FlowKey, ICMP, TCP, UDP, address};
use crate::fragment::{FragmentKey, FragmentPorts};
use crate::packet::Packet;
use crate::reason::Reason;

/// Bytes of an Ethernet header.
pub const ETHERNET_LEN: u32 = 14;
/// Where the time to live is.
pub const TTL_AT: u32 = ETHERNET_LEN + 8;
/// Where the header's checksum is.
pub const IP_CHECKSUM_AT: u32 = ETHERNET_LEN + 10;
const IPV4_LEN: u32 = 20;

/// FIN of TCP's flags.
pub const TCP_FIN: u8 = 1;
/// SYN of TCP's flags.
pub const TCP_SYN: u8 = 2;
/// RST of TCP's flags.
pub const TCP_RST: u8 = 4;
/// ACK of TCP's flags.
pub const TCP_ACK: u8 = 16;

const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
const ETHERTYPE_VLAN: u16 = 0x8100_u16.to_be();
const ETHERTYPE_QINQ: u16 = 0x88a8_u16.to_be();
const ICMP_ECHO_REQUEST: u8 = 8;
const ICMP_ECHO_REPLY: u8 = 0;
const ICMP_UNREACHABLE: u8 = 3;
const ICMP_TIME_EXCEEDED: u8 = 11;
const ICMP_PARAMETER_PROBLEM: u8 = 12;

/// An IPv4 header, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// Source address, in network byte order.
    pub source: u32,
    /// Destination address, in network byte order.
    pub destination: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// Flags and fragment offset.
    pub fragment: u16,
    /// The sender's number of the packet, in network byte order.
    pub identification: u16,
    /// Bytes of the packet as the header says.
    pub total_len: u16,
    /// Where the transport's header begins, in the frame.
    pub transport_at: u32,
}

impl Ipv4 {
    /// Whether it is a part of a packet only: an offset, or the flag "more fragments".
    #[must_use]
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        self.fragment & 0x3fff != 0
    }

    /// Whether it is a part of a packet without its beginning.
    #[must_use]
    #[inline(always)]
    pub fn is_later_fragment(&self) -> bool {
        self.fragment & 0x1fff != 0
    }

    /// The flag "don't fragment".
    #[must_use]
    #[inline(always)]
    pub fn must_stay_whole(&self) -> bool {
        self.fragment & 0x4000 != 0
    }

    /// What the fragments of this packet have in common.
    #[must_use]
    #[inline(always)]
    pub fn fragment_key(&self) -> FragmentKey {
        FragmentKey {
            source: self.source,
            destination: self.destination,
            identification: self.identification,
            protocol: self.protocol,
            pad: 0,
        }
    }
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP segment.
    Tcp,
    /// A UDP datagram.
    Udp,
    /// An ICMP echo request.
    EchoRequest,
    /// An ICMP echo reply.
    EchoReply,
    /// An ICMP error.
    Error,
    /// A fragment without its packet's beginning.
    LaterFragment,
}

/// A transport's header, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Whose header it is.
    pub kind: Kind,
    /// TCP's flags; 0 for others.
    pub flags: u8,
    /// Bytes of the header.
    pub header_len: u32,
    /// TCP's sequence number, in network byte order; 0 for others.
    pub sequence: u32,
    /// TCP's acknowledgement number, in network byte order; 0 for others.
    pub acknowledged: u32,
    /// Source port, or an echo's identifier; in network byte order.
    pub source_port: u16,
    /// Destination port, 0 for an echo; in network byte order.
    pub destination_port: u16,
}

/// The frame's IPv4 header.
///
/// # Errors
///
/// The reason for which the frame's way ends here.
#[inline(always)]
pub fn ipv4<P: Packet>(packet: &mut P) -> Result<Ipv4, Reason> {
    if packet.has_tag_aside() {
        return Err(Reason::VlanTagged);
    }
    if !packet.pull(ETHERNET_LEN) {
        return Err(Reason::Malformed);
    }
    let [a, b, c, _, _, _, ethertype] = packet.read::<7>(0).ok_or(Reason::Malformed)?;
    if !packet.is_addressed_here([a, b, c]) {
        return Err(Reason::NotForUs);
    }
    match ethertype {
        ETHERTYPE_IPV4 => {}
        ETHERTYPE_VLAN | ETHERTYPE_QINQ => return Err(Reason::VlanTagged),
        _ => return Err(Reason::NotIpv4),
    }
    if !packet.pull(ETHERNET_LEN + IPV4_LEN) {
        return Err(Reason::Malformed);
    }
    let ip = read_ipv4(packet).ok_or(Reason::Malformed)?;
    check_addresses(&ip)?;
    Ok(ip)
}

#[inline(always)]
fn read_ipv4<P: Packet>(packet: &P) -> Option<Ipv4> {
    let h = packet.read::<10>(ETHERNET_LEN)?;
    let [version_and_len, _] = h[0].to_ne_bytes();
    let header_len = u32::from(version_and_len & 0x0f) * 4;
    let total_len = u16::from_be(h[1]);
    // Merged segments may be longer than the field can say; the kernel then leaves it zero.
    let announced = if packet.segment_payload() == 0 { u32::from(total_len) } else { header_len };
    if version_and_len >> 4 != 4
        || header_len < IPV4_LEN
        || announced < header_len
        || ETHERNET_LEN + announced > packet.frame_len()
    {
        return None;
    }
    let [ttl, protocol] = h[4].to_ne_bytes();
    Some(Ipv4 {
        source: address([h[6], h[7]]),
        destination: address([h[8], h[9]]),
        protocol,
        ttl,
        fragment: u16::from_be(h[3]),
        identification: h[2],
        total_len,
        transport_at: ETHERNET_LEN + header_len,
    })
}

/// Addresses that no router forwards (RFC 1812 §4.2.2.11, §5.3.7; RFC 3927 §7).
#[inline(always)]
fn check_addresses(ip: &Ipv4) -> Result<(), Reason> {
    let destination = u32::from_be(ip.destination);
    if is_never_a_source(destination) || is_link_local(ip.destination) {
        return Err(Reason::SpecialDestination);
    }
    if is_never_a_source(u32::from_be(ip.source)) {
        return Err(Reason::MartianSource);
    }
    Ok(())
}

/// 0/8, 127/8, and everything from 224/4 on.
#[inline(always)]
fn is_never_a_source(address: u32) -> bool {
    let first = address >> 24;
    first == 0 || first == 127 || first >= 224
}

/// Whether the address, in network byte order, may only speak on its own link (RFC 3927).
#[must_use]
#[inline(always)]
pub fn is_link_local(address: u32) -> bool {
    u32::from_be(address) >> 16 == 169 << 8 | 254
}

/// What a packet that is no fragment carries.
///
/// # Errors
///
/// The reason for which the frame's way ends here.
#[inline(always)]
pub fn transport<P: Packet>(packet: &mut P, ip: &Ipv4) -> Result<Transport, Reason> {
    let needed = match ip.protocol {
        TCP => 20,
        UDP | ICMP => 8,
        _ => return Err(Reason::ProtocolNotHandled),
    };
    let announced = packet.segment_payload() != 0
        || ip.transport_at + needed <= ETHERNET_LEN + u32::from(ip.total_len);
    if !announced || !packet.pull(ip.transport_at + needed) {
        return Err(Reason::Malformed);
    }
    if ip.protocol == TCP {
        let h = packet.read::<7>(ip.transport_at).ok_or(Reason::Malformed)?;
        let [offset, flags] = h[6].to_ne_bytes();
        return Ok(Transport {
            kind: Kind::Tcp,
            flags,
            header_len: u32::from(offset >> 4) * 4,
            sequence: address([h[2], h[3]]),
            acknowledged: address([h[4], h[5]]),
            source_port: h[0],
            destination_port: h[1],
        });
    }
    let [first, second, third] = packet.read::<3>(ip.transport_at).ok_or(Reason::Malformed)?;
    if ip.protocol == UDP {
        return Ok(Transport {
            kind: Kind::Udp,
            flags: 0,
            header_len: 8,
            sequence: 0,
            acknowledged: 0,
            source_port: first,
            destination_port: second,
        });
    }
    let kind = match first.to_ne_bytes() {
        [ICMP_ECHO_REQUEST, 0] => Kind::EchoRequest,
        [ICMP_ECHO_REPLY, 0] => Kind::EchoReply,
        [ICMP_UNREACHABLE | ICMP_TIME_EXCEEDED | ICMP_PARAMETER_PROBLEM, _] => Kind::Error,
        _ => return Err(Reason::ProtocolNotHandled),
    };
    Ok(Transport {
        kind,
        flags: 0,
        header_len: 8,
        sequence: 0,
        acknowledged: 0,
        source_port: third,
        destination_port: 0,
    })
}

/// Whether TCP flags are those of a connection's first segment.
#[must_use]
#[inline(always)]
pub fn is_first_of_connection(flags: u8) -> bool {
    flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN) == TCP_SYN
}

impl Transport {
    /// That of a later fragment, whose first one had these ports.
    #[must_use]
    #[inline(always)]
    pub fn of_later_fragment(ports: &FragmentPorts) -> Self {
        Self {
            kind: Kind::LaterFragment,
            flags: 0,
            header_len: 0,
            sequence: 0,
            acknowledged: 0,
            source_port: ports.source,
            destination_port: ports.destination,
        }
    }

    /// The key of the packet's flow.
    #[must_use]
    #[inline(always)]
    pub fn key(&self, ip: &Ipv4) -> FlowKey {
        FlowKey {
            source: ip.source,
            destination: ip.destination,
            source_port: self.source_port,
            destination_port: self.destination_port,
            protocol: ip.protocol,
            pad: [0; 3],
        }
    }
}
