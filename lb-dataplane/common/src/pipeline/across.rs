//! Between the families (RFC 7915): the packets of some flows leave with a header of the other one, and ICMP errors about them
//! as that one's errors.
//!
//! Options of IPv4 and extension headers of IPv6 stay behind. Nobody fragments here, also not what IPv4 would allow to be:
//! its sender is told what fits, as if it were not allowed (RFC 7915 §4 asks for fragments). From IPv6 a packet of up to 1,280
//! bytes, which its sender need not make shorter, may be fragmented as IPv4, and the kernel does it.

mod error;

pub(super) use self::error::error_across;
use super::forward::{Found, address_frame, left_to_kernel, packet_len};
use super::{Scratch, Way, either};
use crate::checksum::{self, Delta};
use crate::family::{Family, Header, SHORT, protocol_across};
use crate::fib::{MEMBER_RESOLVED, MemberEntry};
use crate::flow::{DIRECTION_TO_BACKEND, TCP, Translation, UDP};
use crate::packet::{ChecksumChange, Packet};
use crate::parse::{BURIED, ETHERNET_LEN, FRAGMENT, Ip, Kind};
use crate::punt::QUOTED;
use crate::reason::Reason;
use crate::rewrite::partial_sum;
use crate::sctp;
use crate::tables::{Tables, TablesOf};

const TCP_CHECKSUM_AT: u32 = 16;
const UDP_CHECKSUM_AT: u32 = 6;
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
    // The sum of an echo covers the length of all of it in IPv6 (RFC 7915 §1.2).
    if ip.fragment & BURIED != 0 || ip.protocol == A::ICMP && ip.is_fragment() {
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
    header.may_be_fragmented |= A::IS_V6 && len <= SHORT;
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
    header.protocol = protocol_across::<A>(ip.protocol);
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

/// The sum of a whole ICMP message whose checksum is right.
#[inline(always)]
fn sum_of_message<A: Family>(source: A, destination: A, len: u32) -> Delta {
    if A::ICMP_COVERS_ADDRESSES {
        pseudo_header(source, destination, A::ICMP, len).undone()
    } else {
        Delta::default()
    }
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
        icmp if icmp == A::ICMP => return rewrite_echo(packet, scratch),
        // Its sum covers no addresses.
        _ => return sctp::write_ports(packet, at, options.change, to),
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

/// Gives an echo the type, the identifier and the sum that it has in the other family (RFC 7915 §4.2, §5.2).
#[inline(never)]
fn rewrite_echo<A: Family, P: Packet>(packet: &mut P, scratch: &Scratch<A>) -> Option<()> {
    let Scratch { ip, step, header, .. } = scratch;
    let (at, to) = (ip.transport_at(), &step.across);
    let len = header.payload_len;
    let before = sum_of_message(ip.source, ip.destination, len);
    let change = before.undone().and(sum_of_message(to.source, to.destination, len));
    packet.note_change(change);
    write_echo::<A, P>(packet, at, to.source_port | to.destination_port, change)
}

/// Writes the first words of an echo as the other family has them. Its checksum does what all changes of the message, but for it,
/// leave to do for a change of the message's sum.
#[inline(always)]
fn write_echo<A: Family, P: Packet>(
    packet: &mut P,
    at: u32,
    identifier: u16,
    change: Delta,
) -> Option<()> {
    let [old_kind, sum, old_identifier] = packet.read::<3>(at)?;
    let is_request = old_kind == A::ECHO_REQUEST;
    let kind = if is_request {
        <A::Other as Family>::ECHO_REQUEST
    } else {
        <A::Other as Family>::ECHO_REPLY
    };
    let content = Delta::of([old_kind, old_identifier], [kind, identifier]);
    let sum = checksum::update(sum, content.and(change.undone()));
    packet.write(at, [kind, sum, identifier])
}
