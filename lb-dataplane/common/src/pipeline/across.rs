//! Between the families (RFC 7915): the packets of some flows leave with a header of the other one, and ICMP errors about them
//! as that one's errors.
//!
//! Options of IPv4 and extension headers of IPv6 stay behind. Nobody fragments here, also not what IPv4 would allow to be:
//! its sender is told what fits, as if it were not allowed (RFC 7915 §4 asks for fragments). From IPv6 a packet of up to 1,280
//! bytes, which its sender need not make shorter, may be fragmented as IPv4, and the kernel does it.

use super::forward::{Found, address_frame, left_to_kernel, packet_len};
use super::{Scratch, Way, either};
use crate::checksum::{Delta, update_optional};
use crate::family::{Family, Header};
use crate::fib::{MEMBER_RESOLVED, MemberEntry};
use crate::flow::{DIRECTION_TO_BACKEND, TCP, Translation, UDP};
use crate::packet::{ChecksumChange, Packet};
use crate::parse::{AT_MASK, BURIED, ETHERNET_LEN, FRAGMENT, Ip, Kind};
use crate::punt::QUOTED;
use crate::quote::Quote;
use crate::reason::Reason;
use crate::rewrite::partial_sum;
use crate::sctp;
use crate::tables::{Tables, TablesOf};

const TCP_CHECKSUM_AT: u32 = 16;
const UDP_CHECKSUM_AT: u32 = 6;
const ICMP_CHECKSUM_AT: u32 = 2;
/// Bytes of an ICMP error before what it quotes.
const ERROR_LEN: u32 = 8;
/// The longest packet that a sender of IPv6 need not make shorter (RFC 8200 §5).
const V6_LEAST_MTU: u32 = 1280;

/// Sends a packet of a flow on in the other family.
#[inline(never)]
pub(super) fn forward_across<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch<A>,
    way: &mut Way,
) -> Reason {
    either(forward(packet, tables, scratch, way))
}

#[inline(always)]
fn forward<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch<A>,
    way: &mut Way,
) -> Result<Reason, Reason> {
    let Scratch { ip, transport, member, header, found, .. } = scratch;
    let found = *found;
    // No error is sent about a later fragment (RFC 1122 §3.2.2).
    let may_tell = transport.kind != Kind::LaterFragment;
    if ip.ttl <= 1 {
        if may_tell {
            packet.punt(Reason::FlowTtlExpired, A::QUOTED_SHORT, 0);
        }
        return Err(Reason::FlowTtlExpired);
    }
    if let Some(reason) = found.end_of_flow() {
        return Err(reason);
    }
    if ip.fragment & BURIED != 0 {
        return Err(Reason::Untranslatable);
    }
    check_header(packet, ip)?;
    read_header(packet, tables, ip, header)?;
    let old_len = ip.transport_at() - ETHERNET_LEN;
    let new_len = <A::Other as Family>::header_len(header);
    let len = packet_len(packet, ip, transport) + new_len - old_len;
    let is_too_big = found == Found::Member && len > u32::from(member.mtu);
    // Of merged segments each is.
    let may_be_fragmented = A::IS_V6 && packet_len(packet, ip, transport) <= V6_LEAST_MTU;
    if is_too_big && !may_be_fragmented {
        if may_tell {
            let room = (u32::from(member.mtu) + old_len).saturating_sub(new_len);
            packet.punt(Reason::FlowTooBig, QUOTED, room.max(least_mtu::<A>()) as u16);
        }
        return Err(Reason::FlowTooBig);
    }
    let is_datagram = ip.protocol == UDP && may_tell;
    let whole_sum = if is_datagram { missing_sum(packet, scratch) } else { NO_SUM };
    // The verifier goes through what follows once for all.
    let whole_sum = whole_sum | P::zero(packet.frame_len()) as u32;
    if whole_sum > u32::from(u16::MAX) {
        return Err(Reason::Untranslatable);
    }
    let Scratch { ip, step, member, header, .. } = scratch;
    let ends = way_out::<P>(found, is_too_big, member, step.direction);
    // The kernel counts a hop that is its own.
    header.ttl = if ends.is_ok() { ip.ttl.wrapping_sub(1) } else { ip.ttl };
    rewrite_transport(packet, scratch, whole_sum as u16).ok_or(Reason::WriteFault)?;
    let Scratch { step, member, header, .. } = scratch;
    rewrite_header(packet, old_len, new_len, header, &step.across).ok_or(Reason::WriteFault)?;
    let reason = ends?;
    address_frame(packet, member, step.across.destination, way).ok_or(Reason::WriteFault)?;
    Ok(reason)
}

/// The least that a sender may be told to keep to.
#[inline(always)]
fn least_mtu<A: Family>() -> u32 {
    if A::IS_V6 { V6_LEAST_MTU } else { 0 }
}

/// How a packet ends that is rewritten.
#[inline(always)]
fn way_out<P: Packet>(
    found: Found,
    is_too_big: bool,
    member: &MemberEntry,
    direction: u8,
) -> Result<Reason, Reason> {
    if found == Found::Member
        && !is_too_big
        && let Some(reason) = left_to_kernel::<P>(member, true)
    {
        return Err(reason);
    }
    match found {
        Found::Member if is_too_big => Err(Reason::FlowToBeFragmented),
        Found::Member if member.flags & MEMBER_RESOLVED != 0 => {
            Ok(if direction == DIRECTION_TO_BACKEND {
                Reason::ForwardedToBackend
            } else {
                Reason::ForwardedToClient
            })
        }
        Found::Member => Ok(Reason::FlowThroughNeighbour),
        Found::Kernel | Found::Blackhole | Found::NoRoom => Err(Reason::FlowRoutedByKernel),
        Found::Nothing => Err(Reason::FlowNoRoute),
    }
}

/// Whether IPv4's header is as its checksum says: the packet leaves without it.
#[inline(always)]
fn check_header<A: Family, P: Packet>(packet: &mut P, ip: &Ip<A>) -> Result<(), Reason> {
    let len = ip.transport_at() - ETHERNET_LEN;
    let is_right = if len == A::HEADER_LEN {
        A::is_header_right(packet)
    } else {
        A::IS_V6 || sum_of_long_header(packet, len & MOST_OF_V4) == ALL
    };
    if is_right { Ok(()) } else { Err(Reason::Malformed) }
}

/// The bits of how long IPv4's header can be. The verifier minds how long it may be.
const MOST_OF_V4: u32 = 63;
/// The sum of what is as its checksum says.
const ALL: u32 = 0xffff;

/// The sum of a header that is longer than most; [`NO_FORM`] if it is too long.
#[inline(never)]
fn sum_of_long_header<P: Packet>(packet: &mut P, len: u32) -> u32 {
    packet.sum(ETHERNET_LEN, len).map_or(NO_FORM, u32::from)
}

/// The sum of a packet's header. That of IPv4 was checked, so it is none.
#[inline(always)]
fn sum_of_header<A: Family, P: Packet>(packet: &mut P, len: u32) -> Option<Delta> {
    if !A::IS_V6 || !P::HAS_DEVICE_SUM {
        return Some(Delta::default());
    }
    if len == A::HEADER_LEN {
        return A::sum_of_header(packet);
    }
    match sum_of_long_header(packet, len) {
        NO_FORM => None,
        sum => Some(Delta(sum as u16)),
    }
}

/// What the packet's header says.
#[inline(always)]
fn read_header<A: Family, P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    ip: &Ip<A>,
    header: &mut Header,
) -> Result<(), Reason> {
    let old_len = ip.transport_at() - ETHERNET_LEN;
    let len = match packet.segment_payload() {
        0 => ip.total_len,
        _ => packet.frame_len() - ETHERNET_LEN,
    };
    if len < old_len {
        return Err(Reason::Malformed);
    }
    header.payload_len = len - old_len;
    header.fragment = ip.fragment & FRAGMENT;
    header.may_be_fragmented = A::IS_V6 && ip.identification != 0;
    header.identification = if header.is_fragment() || header.may_be_fragmented {
        A::identification(ip.identification)
    } else {
        // Of IPv6 that has none (RFC 7915 §5.1); IPv6 asks for none.
        tables.next_number()
    };
    header.protocol = ip.protocol;
    header.class = A::class(packet, ETHERNET_LEN).ok_or(Reason::Malformed)?;
    Ok(())
}

/// No datagram's sum: it is sent as ones.
const NO_SUM: u32 = 0;
/// A sum that cannot be made.
const NO_FORM: u32 = 1 << 16;

/// The checksum of a datagram that came without one, which IPv6 does not allow (RFC 7915 §4.5). One that came so in IPv6 was
/// for a receiver that allows it (RFC 6935 §5), which is not to be guessed.
#[inline(never)]
fn missing_sum<A: Family, P: Packet>(packet: &mut P, scratch: &Scratch<A>) -> u32 {
    let Scratch { ip, step, header, .. } = scratch;
    let at = ip.transport_at();
    match packet.read::<1>(at + UDP_CHECKSUM_AT) {
        Some([0]) => {}
        Some(_) => return NO_SUM,
        None => return NO_FORM,
    }
    if A::IS_V6 || ip.is_fragment() || packet.segment_payload() != 0 {
        return NO_FORM;
    }
    let (to, len) = (&step.across, header.payload_len);
    let Some(content) = packet.sum(at, len) else { return NO_FORM };
    let sum = Delta(content).and(to.ports).and(pseudo_header(to.source, to.destination, UDP, len));
    // A computed zero is sent as ones (RFC 768).
    u32::from(if sum.0 == 0xffff { 0xffff } else { !sum.0 })
}

/// The sum of a pseudo-header (RFC 793 §3.1, RFC 8200 §8.1).
#[inline(always)]
fn pseudo_header<A: Family>(source: A, destination: A, protocol: u8, len: u32) -> Delta {
    let lengths = u32::from((len as u16).to_be()) + u32::from(u16::from(protocol).to_be());
    Delta::between(0, source.sum() + destination.sum() + lengths)
}

/// Gives a packet a header of the other family.
#[inline(never)]
fn rewrite_header<B: Family, P: Packet>(
    packet: &mut P,
    old_len: u32,
    new_len: u32,
    header: &Header,
    to: &Translation<B>,
) -> Option<()> {
    let before = sum_of_header::<B::Other, P>(packet, old_len)?;
    packet.change_family(old_len, new_len, B::IS_V6)?;
    let after = B::write_header(packet, ETHERNET_LEN, to.source, to.destination, header)?;
    packet.note_change(before.undone().and(after));
    Some(())
}

/// Gives a transport other ports, and a checksum for them and for the addresses that it gets, or `whole_sum` if there is one.
#[inline(never)]
fn rewrite_transport<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &Scratch<A>,
    whole_sum: u16,
) -> Option<()> {
    let Scratch { ip, transport, step, options, .. } = scratch;
    let (at, to) = (ip.transport_at(), &step.across);
    if transport.kind == Kind::LaterFragment {
        return Some(());
    }
    let checksum_at = match ip.protocol {
        TCP => at + TCP_CHECKSUM_AT,
        UDP => at + UDP_CHECKSUM_AT,
        // Its sum covers no addresses.
        _ => {
            return sctp::write_ports(
                packet,
                at,
                options.change,
                to.source_port,
                to.destination_port,
            );
        }
    };
    if u32::from(whole_sum) == NO_SUM {
        let partial = Some(partial_sum(packet, ip));
        packet.update_transport_checksum(ChecksumChange {
            at: checksum_at,
            pseudo_header: to.addresses,
            content: to.ports,
            optional: ip.protocol == UDP,
            is_v6: false,
            partial,
        })?;
    } else {
        packet.write(checksum_at, [whole_sum])?;
        packet.note_change(Delta(whole_sum).and(to.ports));
    }
    packet.write(at, [to.source_port, to.destination_port])
}

/// Sends an ICMP error about a flow on in the other family. To either side it comes from where the packet that it quotes was
/// sent to: the router that sent it has no address there.
#[inline(never)]
pub(super) fn error_across<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &mut Scratch<A>,
    way: &mut Way,
) -> Reason {
    either(error(packet, scratch, way))
}

#[inline(always)]
fn error<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &mut Scratch<A>,
    way: &mut Way,
) -> Result<Reason, Reason> {
    let Scratch { ip, step, member, found, .. } = scratch;
    let found = *found;
    if ip.is_fragment() {
        return Err(Reason::Untranslatable);
    }
    if let Some(reason) = found.end_of_flow() {
        return Err(reason);
    }
    let ends = match way_out::<P>(found, false, member, step.direction) {
        Ok(Reason::ForwardedToBackend) => Ok(Reason::ErrorToBackend),
        Ok(Reason::ForwardedToClient) => Ok(Reason::ErrorToClient),
        other => other,
    };
    check_error(packet, scratch)?;
    let is_sent = ends.is_ok();
    rewrite_error(packet, scratch, is_sent)?;
    let reason = ends?;
    let Scratch { step, member, .. } = scratch;
    address_frame(packet, member, step.across.destination, way).ok_or(Reason::WriteFault)?;
    Ok(reason)
}

/// Whether an error's checksums are right. That of the error is summed anew when the error has its new form, and must not make a damaged
/// one good.
#[inline(never)]
fn check_error<A: Family, P: Packet>(packet: &mut P, scratch: &Scratch<A>) -> Result<(), Reason> {
    let ip = &scratch.ip;
    check_header(packet, ip)?;
    let at = ip.transport_at();
    let len = error_len(ip)?;
    let sum = Delta(packet.sum(at, len).ok_or(Reason::Untranslatable)?);
    let sum = if A::ICMP_COVERS_ADDRESSES {
        sum.and(pseudo_header(ip.source, ip.destination, A::ICMP, len))
    } else {
        sum
    };
    if sum.0 == 0xffff { Ok(()) } else { Err(Reason::Malformed) }
}

/// Bytes of an error from its ICMP header on.
#[inline(always)]
fn error_len<A: Family>(ip: &Ip<A>) -> Result<u32, Reason> {
    let before = ip.transport_at() - ETHERNET_LEN;
    if ip.total_len < before { Err(Reason::Malformed) } else { Ok(ip.total_len - before) }
}

/// Gives an error, and what it quotes, headers of the other family.
#[inline(never)]
fn rewrite_error<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &mut Scratch<A>,
    is_sent: bool,
) -> Result<(), Reason> {
    let Scratch { ip, quote, step, header, .. } = scratch;
    let (to, at) = (&step.across, ip.transport_at());
    let [first, _, high, low] = packet.read::<4>(at).ok_or(Reason::Malformed)?;
    let quoted_at = quote.transport_at & AT_MASK;
    let old_inner = quoted_at.wrapping_sub(at + ERROR_LEN) & AT_MASK;
    let new_inner = <A::Other as Family>::header_len(&quote.header);
    let longer = new_inner.wrapping_sub(old_inner).cast_signed();
    let number = u32::from(u16::from_be(high)) << 16 | u32::from(u16::from_be(low));
    let quoted_len = old_inner + quote.header.payload_len;
    let (first, number) =
        A::error_across(first, number, -longer, quoted_len).ok_or(Reason::Untranslatable)?;
    header.payload_len = error_len(ip)?.wrapping_add_signed(longer);
    header.identification = 0;
    header.fragment = 0;
    header.may_be_fragmented = false;
    header.protocol = <A::Other as Family>::ICMP;
    header.ttl = if is_sent { ip.ttl.wrapping_sub(1) } else { ip.ttl };
    header.class = A::class(packet, ETHERNET_LEN).ok_or(Reason::Malformed)?;
    let before = sum_of_error(packet, ip);
    let new_len = <A::Other as Family>::HEADER_LEN + ERROR_LEN + new_inner;
    packet.change_family(quoted_at - ETHERNET_LEN, new_len, !A::IS_V6).ok_or(Reason::WriteFault)?;
    write_quoted(packet, quote, to).ok_or(Reason::WriteFault)?;
    <A::Other as Family>::write_header(packet, ETHERNET_LEN, to.source, to.destination, header)
        .ok_or(Reason::WriteFault)?;
    let number = [(number >> 16) as u16, number as u16].map(u16::to_be);
    let message = [first, 0, number[0], number[1]];
    write_message(packet, header.payload_len, to, message, before).ok_or(Reason::WriteFault)
}

/// The sum of a packet that is an error, whose checksums are right.
#[inline(never)]
fn sum_of_error<A: Family, P: Packet>(packet: &mut P, ip: &Ip<A>) -> u16 {
    let before = ip.transport_at() - ETHERNET_LEN;
    // One that cannot be summed is not there: the message behind it was summed.
    let header = sum_of_header::<A, P>(packet, before).unwrap_or_default();
    let len = ip.total_len.wrapping_sub(before);
    header.and(sum_of_message(ip.source, ip.destination, len)).0
}

/// The sum of a whole ICMP message whose checksum is right.
#[inline(always)]
fn sum_of_message<A: Family>(source: A, destination: A, len: u32) -> Delta {
    if A::ICMP_COVERS_ADDRESSES {
        pseudo_header(source, destination, A::ICMP, len).undone()
    } else {
        Delta::default()
    }
}

/// Writes what an error of the family B quotes: it goes the other way than the error.
#[inline(never)]
fn write_quoted<B: Family, P: Packet>(
    packet: &mut P,
    quote: &Quote<B::Other>,
    to: &Translation<B>,
) -> Option<()> {
    let ip_at = ETHERNET_LEN + B::HEADER_LEN + ERROR_LEN;
    let at = ip_at + B::header_len(&quote.header);
    if !packet.pull(at + UDP_CHECKSUM_AT + 2) {
        return None;
    }
    B::write_header(packet, ip_at, to.destination, to.source, &quote.header)?;
    let old = &quote.key;
    packet.write(at, [to.destination_port, to.source_port])?;
    if quote.header.protocol == UDP {
        let addresses = Delta::between(
            old.source.sum() + old.destination.sum(),
            to.source.sum() + to.destination.sum(),
        );
        let ports = Delta::of([old.source_port], [to.destination_port])
            .and(Delta::of([old.destination_port], [to.source_port]));
        let [sum] = packet.read::<1>(at + UDP_CHECKSUM_AT)?;
        packet.write(at + UDP_CHECKSUM_AT, [update_optional(sum, addresses.and(ports))])?;
    }
    Some(())
}

/// Writes an error's own header, and the sum over all of it. The packet's sum was `before` in its other form.
#[inline(never)]
fn write_message<B: Family, P: Packet>(
    packet: &mut P,
    len: u32,
    to: &Translation<B>,
    message: [u16; 4],
    before: u16,
) -> Option<()> {
    let at = ETHERNET_LEN + B::HEADER_LEN;
    packet.write(at, message)?;
    let sum = Delta(packet.sum(at, len)?);
    let sum = if B::ICMP_COVERS_ADDRESSES {
        sum.and(pseudo_header(to.source, to.destination, B::ICMP, len))
    } else {
        sum
    };
    packet.write(at + ICMP_CHECKSUM_AT, [!sum.0])?;
    let header = sum_of_header::<B, P>(packet, B::HEADER_LEN)?;
    let after = header.and(sum_of_message(to.source, to.destination, len));
    packet.note_change(Delta(before).undone().and(after));
    Some(())
}
