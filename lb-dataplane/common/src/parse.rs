//! From a frame to what the pipeline decides by: Ethernet, IP, TCP, UDP, SCTP and ICMP echo.
//!
//! Headers are copied out field by field; nothing here writes. IPv4's header checksum is not verified, although RFC 1812
//! §5.2.2 asks a router to: every change to it is incremental, so a wrong one stays wrong and meets its end at the next
//! hop. Where a packet gets a header of the other family, it is.

use crate::family::{Family, word};
use crate::flow::{FlowKey, SCTP, TCP, UDP};
use crate::fragment::{FragmentKey, FragmentPorts};
use crate::packet::Packet;
use crate::pipeline::{Arrived, behind_tags};
use crate::reason::Reason;
use crate::sctp;
use crate::tables::Tables;
use crate::vlan::is_tag;

/// Bytes of an Ethernet header.
pub const ETHERNET_LEN: u32 = 14;

/// FIN of TCP's flags.
pub const TCP_FIN: u8 = 1;
/// SYN of TCP's flags.
pub const TCP_SYN: u8 = 2;
/// RST of TCP's flags.
pub const TCP_RST: u8 = 4;
/// ACK of TCP's flags.
pub const TCP_ACK: u8 = 16;

/// Words of four bytes that TCP's header has at least.
pub(crate) const LEAST_TCP_WORDS: u8 = 5;

const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
const ETHERTYPE_IPV6: u16 = 0x86dd_u16.to_be();

/// An IP header, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// The transport's protocol number.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// [`DONT_FRAGMENT`], [`MORE_FRAGMENTS`] and the offset in units of 8 bytes, as IPv4 has them; and [`BURIED`].
    pub fragment: u16,
    /// The sender's number of the packet, in network byte order.
    pub identification: u32,
    /// Bytes of the packet as the header says.
    pub total_len: u32,
    /// Where the transport's header begins, in the frame; below 4096.
    pub transport_at: u32,
}

/// The bits of where something is in a frame.
pub const AT_MASK: u32 = 0x0fff;

/// The bits of a fragment: "more fragments" and the offset.
pub const FRAGMENT: u16 = MORE_FRAGMENTS | OFFSET;
/// Where in its packet a fragment begins, in units of 8 bytes.
pub const OFFSET: u16 = 0x1fff;
/// Other fragments follow this one.
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// No router may fragment it.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// Extension headers of IPv6 follow a fragment's: they are a part of what is in fragments.
pub const BURIED: u16 = 0x8000;

impl<A> Ip<A> {
    /// The same with other addresses.
    #[inline(always)]
    pub(crate) fn with_addresses<B>(&self, source: B, destination: B) -> Ip<B> {
        let Self { protocol, ttl, fragment, identification, total_len, transport_at, .. } = *self;
        Ip { source, destination, protocol, ttl, fragment, identification, total_len, transport_at }
    }
}

impl<A: Family> Ip<A> {
    /// Whether it is a part of a packet only.
    #[must_use]
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        self.fragment & FRAGMENT != 0
    }

    /// Whether it is a part of a packet without its beginning.
    #[must_use]
    #[inline(always)]
    pub fn is_later_fragment(&self) -> bool {
        self.fragment & OFFSET != 0
    }

    /// Whether it is the beginning of a packet only.
    #[must_use]
    #[inline(always)]
    pub fn is_first_fragment(&self) -> bool {
        self.fragment & FRAGMENT == MORE_FRAGMENTS
    }

    /// Whether a packet without its beginning may be a part of a whole one: it ends where a packet may end (RFC 791 §3.1),
    /// and does not write over the flags of a TCP header (RFC 3128), or over what SCTP's first fragment has at least.
    #[must_use]
    #[inline(never)]
    pub fn is_plausible_later_fragment(&self) -> bool {
        let offset = u32::from(self.fragment & OFFSET);
        let len = self.total_len.wrapping_sub(self.transport_at() - ETHERNET_LEN);
        offset * 8 + len <= u32::from(u16::MAX)
            && !(offset == 1 && (self.protocol == TCP || self.protocol == SCTP))
    }

    /// Whether no router may fragment it.
    #[must_use]
    #[inline(always)]
    pub fn must_stay_whole(&self) -> bool {
        self.fragment & DONT_FRAGMENT != 0
    }

    /// Where the transport's header begins: the verifier forgets the bound of what was stored.
    #[must_use]
    #[inline(always)]
    pub fn transport_at(&self) -> u32 {
        self.transport_at & AT_MASK
    }

    /// What the fragments of this packet have in common. Not the protocol with IPv6, whose later ones need not say it (RFC 8200
    /// §4.5).
    #[must_use]
    #[inline(always)]
    pub fn fragment_key(&self) -> FragmentKey<A> {
        FragmentKey {
            source: self.source,
            destination: self.destination,
            identification: self.identification,
            protocol: if A::IS_V6 { 0 } else { self.protocol },
            pad: [0; 3],
        }
    }
}

/// The ethertype of a family, in network byte order.
#[must_use]
#[inline(always)]
pub const fn ethertype(is_v6: bool) -> u16 {
    if is_v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 }
}

/// What an Ethernet frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP segment.
    Tcp,
    /// A UDP datagram.
    Udp,
    /// An SCTP packet.
    Sctp,
    /// An ICMP echo request.
    EchoRequest,
    /// An ICMP echo reply.
    EchoReply,
    /// An ICMP error.
    Error,
    /// A fragment without its packet's beginning, where the ports of that are known.
    LaterFragment,
    /// Whatever belongs to no flow: another protocol, other ICMP, a fragment of which only the addresses are known.
    Other,
}

/// A transport's header, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Whose header it is.
    pub kind: Kind,
    /// TCP's flags, and of SCTP those that mean the same; 0 for others.
    pub flags: u8,
    /// Bytes of the header.
    pub header_len: u32,
    /// TCP's sequence number, or the tag that SCTP's INIT or INIT ACK gives its receiver, in network byte order; 0 for others.
    pub sequence: u32,
    /// TCP's acknowledgement number, or SCTP's tag, in network byte order; 0 for others.
    pub acknowledged: u32,
    /// Source port, or the identifier of an echo request; in network byte order.
    pub source_port: u16,
    /// Destination port, or the identifier of an echo reply; in network byte order.
    pub destination_port: u16,
}

/// What the frame carries, behind VLAN tags that are taken off.
///
/// # Errors
///
/// The reason for which the frame's way ends here.
#[inline(always)]
pub fn ethernet<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    arrived: &mut Arrived,
) -> Result<Version, Reason> {
    if !packet.pull(ETHERNET_LEN) {
        return Err(Reason::Malformed);
    }
    let [a, b, c, _, _, _, mut ethertype] = packet.read::<7>(0).ok_or(Reason::Malformed)?;
    // Asked of frames with tags too, which ask again of their VLAN: what the question leaves on the stack is then the same for
    // both, and the verifier goes through all that follows once.
    let is_here = packet.is_addressed_here([a, b, c]);
    if packet.has_tag_aside() || is_tag(ethertype) {
        ethertype = behind_tags(packet, tables, arrived)?;
    } else if !is_here {
        return Err(Reason::NotForUs);
    }
    version_of(ethertype).ok_or(Reason::NotIp)
}

/// What a frame carries that has no VLAN tags and is addressed to the interface that it came in through; `None` of any other.
#[inline(always)]
pub(crate) fn plain_ethernet<P: Packet>(packet: &P) -> Option<Version> {
    let near = packet.reach(ETHERNET_LEN)?;
    let [a, b, c, _, _, _, ethertype] = packet.load(near, 0);
    if packet.has_tag_aside() || !packet.is_addressed_here([a, b, c]) {
        return None;
    }
    version_of(ethertype)
}

#[inline(always)]
fn version_of(ethertype: u16) -> Option<Version> {
    match ethertype {
        ETHERTYPE_IPV4 => Some(Version::V4),
        ETHERTYPE_IPV6 => Some(Version::V6),
        _ => None,
    }
}

/// What a packet that is no fragment carries.
///
/// # Errors
///
/// The reason for which the frame's way ends here.
#[inline(always)]
pub fn transport<A: Family, P: Packet>(packet: &mut P, ip: &Ip<A>) -> Result<Transport, Reason> {
    let at = ip.transport_at();
    let needed = match ip.protocol {
        TCP => 20,
        SCTP => sctp::LEAST_LEN,
        UDP => 8,
        icmp if icmp == A::ICMP => 8,
        _ => return Ok(Transport::OTHER),
    };
    let end = match packet.segment_payload() {
        0 => ETHERNET_LEN + ip.total_len,
        _ => packet.frame_len(),
    };
    if at + needed > end || !packet.pull(at + needed) {
        return Err(Reason::Malformed);
    }
    if ip.protocol == TCP {
        let h = packet.read::<7>(at).ok_or(Reason::Malformed)?;
        let [offset, flags] = h[6].to_ne_bytes();
        if offset >> 4 < LEAST_TCP_WORDS {
            return Err(Reason::Malformed);
        }
        return Ok(Transport {
            kind: Kind::Tcp,
            flags,
            header_len: u32::from(offset >> 4) * 4,
            sequence: word([h[2], h[3]]),
            acknowledged: word([h[4], h[5]]),
            source_port: h[0],
            destination_port: h[1],
        });
    }
    if ip.protocol == SCTP {
        return sctp::transport(packet, at, end);
    }
    let [first, second, third] = packet.read::<3>(at).ok_or(Reason::Malformed)?;
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
    let kind = A::icmp(first).ok_or(Reason::ProtocolNotHandled)?;
    let [source_port, destination_port] = echo_ports(kind, third);
    Ok(Transport {
        kind,
        flags: 0,
        header_len: 8,
        sequence: 0,
        acknowledged: 0,
        source_port,
        destination_port,
    })
}

/// What stands for the ports of an echo with this identifier, the source's first.
#[must_use]
#[inline(always)]
pub fn echo_ports(kind: Kind, identifier: u16) -> [u16; 2] {
    if kind == Kind::EchoReply { [0, identifier] } else { [identifier, 0] }
}

/// Whether TCP flags are those of a connection's first segment.
#[must_use]
#[inline(always)]
pub fn is_first_of_connection(flags: u8) -> bool {
    flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN) == TCP_SYN
}

/// Whether they are those of the segment that answers it.
#[must_use]
#[inline(always)]
pub fn is_answer_to_first(flags: u8) -> bool {
    flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN) == TCP_SYN | TCP_ACK
}

impl Transport {
    /// That of a packet whose addresses alone matter.
    pub const OTHER: Self = Self {
        kind: Kind::Other,
        flags: 0,
        header_len: 0,
        sequence: 0,
        acknowledged: 0,
        source_port: 0,
        destination_port: 0,
    };

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
    pub fn key<A: Family>(&self, ip: &Ip<A>) -> FlowKey<A> {
        FlowKey {
            source: ip.source,
            destination: ip.destination,
            source_port: self.source_port,
            destination_port: self.destination_port,
            protocol: u16::from(ip.protocol),
            pad: 0,
        }
    }
}
