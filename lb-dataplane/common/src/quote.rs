//! ICMP errors about a flow (RFC 792, RFC 4443): the packet that they quote is the flow's after its translation, so its sender
//! would not know it. What is quoted is translated back (RFC 5508 §4.2), and the error goes where the flow's own packets go.

use crate::checksum::{self, Delta};
use crate::family::{Family, Header};
use crate::flow::{DIRECTION_TO_CLIENT, FlowKey, SCTP, TCP, Translation, UDP};
use crate::packet::{ChecksumChange, Packet};
use crate::parse::{self, AT_MASK, ETHERNET_LEN, FRAGMENT, Ip, Kind};
use crate::rewrite::IDENTIFIER_AT;

/// Bytes of an ICMP error before what it quotes.
const ERROR_LEN: u32 = 8;
/// What an error quotes of a transport at least: ports, UDP's checksum, SCTP's tag.
const QUOTED_TRANSPORT_LEN: u32 = 8;
const ICMP_CHECKSUM_AT: u32 = 2;
const UDP_CHECKSUM_AT: u32 = 6;
const TCP_CHECKSUM_AT: u32 = 16;

/// The packet that an error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote<A> {
    /// Its key.
    pub key: FlowKey<A>,
    /// Where its IP header begins, in the frame.
    pub ip_at: u32,
    /// Where its transport's header begins.
    pub transport_at: u32,
    /// Where UDP's checksum is, or TCP's if so much is quoted; else 0.
    pub sum_at: u32,
    /// Zero.
    pub pad: u32,
    /// What its header says.
    pub header: Header,
}

/// What an error quotes, if that may be a flow's: TCP, UDP, SCTP or an echo, not a later fragment, quoted as far as its ports
/// or its identifier, and sent by whom the error is for. Anybody else's is about nothing that its receiver has sent.
#[inline(always)]
pub fn read<A: Family, P: Packet>(packet: &mut P, ip: &Ip<A>, quote: &mut Quote<A>) -> Option<()> {
    let ip_at = ip.transport_at() + ERROR_LEN;
    let end = ETHERNET_LEN + ip.total_len;
    let quoted = A::quoted(packet, ip_at, end)?;
    let transport_at = quoted.transport_at();
    if quoted.source != ip.destination
        || quoted.is_later_fragment()
        || !(matches!(quoted.protocol, TCP | UDP | SCTP) || quoted.protocol == A::ICMP)
        || transport_at + QUOTED_TRANSPORT_LEN > end
        || !packet.pull(transport_at + QUOTED_TRANSPORT_LEN)
    {
        return None;
    }
    quote.sum_at = match quoted.protocol {
        UDP => transport_at + UDP_CHECKSUM_AT,
        TCP if transport_at + TCP_CHECKSUM_AT + 2 <= end
            && packet.pull(transport_at + TCP_CHECKSUM_AT + 2) =>
        {
            transport_at + TCP_CHECKSUM_AT
        }
        _ => 0,
    };
    let [first, second, third] = packet.read::<3>(transport_at)?;
    let [source_port, destination_port] = if quoted.protocol == A::ICMP {
        let kind = A::icmp(first)?;
        if !matches!(kind, Kind::EchoRequest | Kind::EchoReply) {
            return None;
        }
        parse::echo_ports(kind, third)
    } else {
        [first, second]
    };
    quote.key = FlowKey {
        source: quoted.source,
        destination: quoted.destination,
        source_port,
        destination_port,
        protocol: u16::from(quoted.protocol),
        pad: 0,
    };
    quote.header = Header {
        payload_len: quoted.total_len.saturating_sub(transport_at - ip_at),
        identification: A::identification(quoted.identification),
        fragment: quoted.fragment & FRAGMENT,
        protocol: quoted.protocol,
        ttl: quoted.ttl,
        class: A::class(packet, ip_at)?,
        may_be_fragmented: false,
        pad: [0; 2],
    };
    quote.ip_at = ip_at;
    quote.transport_at = transport_at;
    Some(())
}

/// Translates what an error quotes by the translation of the packets that answer it: the quoted packet goes the other way.
/// What that does to the sum of what the error carries.
#[inline(always)]
pub fn translate_quoted<A: Family, P: Packet>(
    packet: &mut P,
    quote: &Quote<A>,
    to: &Translation<A>,
) -> Option<Delta> {
    let (old, transport_at) = (&quote.key, quote.transport_at & AT_MASK);
    let addresses = A::delta(old.source, to.destination).and(A::delta(old.destination, to.source));
    let ports = Delta::of([old.source_port], [to.destination_port])
        .and(Delta::of([old.destination_port], [to.source_port]));
    let mut content = ports;
    if old.protocol() == A::ICMP {
        packet.write(transport_at + IDENTIFIER_AT, [to.destination_port | to.source_port])?;
        let covered = if A::ICMP_COVERS_ADDRESSES { addresses.and(ports) } else { ports };
        let [old_sum] = packet.read::<1>(transport_at + ICMP_CHECKSUM_AT)?;
        let new_sum = checksum::update(old_sum, covered);
        packet.write(transport_at + ICMP_CHECKSUM_AT, [new_sum])?;
        content = content.and(Delta::of([old_sum], [new_sum]));
    } else {
        packet.write(transport_at, [to.destination_port, to.source_port])?;
    }
    let sum_at = quote.sum_at & AT_MASK;
    if sum_at != 0 {
        let [old_sum] = packet.read::<1>(sum_at)?;
        let new_sum = update_sum(old.protocol(), old_sum, addresses.and(ports));
        packet.write(sum_at, [new_sum])?;
        content = content.and(Delta::of([old_sum], [new_sum]));
    }
    let ip_at = quote.ip_at & AT_MASK;
    let header = A::write_addresses(packet, ip_at, to.destination, to.source, addresses)?;
    Some(content.and(header))
}

/// A quoted packet's checksum after a change of what it covers. Only UDP's may be missing.
#[inline(always)]
pub(crate) fn update_sum(protocol: u8, sum: u16, change: Delta) -> u16 {
    if protocol == UDP {
        checksum::update_optional(sum, change)
    } else {
        checksum::update(sum, change)
    }
}

/// Translates the error itself, given what has changed in what it carries. To a client it comes from the VIP: which router or
/// backend behind it sent it is not for the client to know.
#[inline(always)]
pub fn translate<A: Family, P: Packet>(
    packet: &mut P,
    ip: &Ip<A>,
    to: &Translation<A>,
    direction: u8,
    content: Delta,
) -> Option<()> {
    let source = if direction == DIRECTION_TO_CLIENT { to.source } else { ip.source };
    let outer = A::delta(ip.source, source).and(A::delta(ip.destination, to.destination));
    packet.update_transport_checksum(ChecksumChange {
        at: ip.transport_at() + ICMP_CHECKSUM_AT,
        pseudo_header: if A::ICMP_COVERS_ADDRESSES { outer } else { Delta::default() },
        content,
        optional: false,
        is_v6: A::IS_V6,
        partial: None,
    })?;
    A::write_addresses(packet, ETHERNET_LEN, source, to.destination, outer)?;
    Some(())
}
