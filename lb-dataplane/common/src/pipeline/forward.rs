//! The way out: route, rewrite, frame.

use super::{NEXT_HOP_V4, NEXT_HOP_V6, NO_VIP, Scratch, Way, either, vip_flags};
use crate::checksum::Delta;
use crate::encapsulation::Encapsulation;
use crate::family::{Family, V4};
use crate::fib::{
    MEMBER_HAS_GATEWAY, MEMBER_HAS_GATEWAY6, MEMBER_RESOLVED, MEMBER_TO_PEER, MEMBER_WITHOUT_XDP,
    MemberEntry, Route,
};
use crate::flow::{DIRECTION_TO_BACKEND, Flow, FlowKey};
use crate::hash::FlowHash;
use crate::packet::Packet;
use crate::parse::{ETHERNET_LEN, Ip, Kind, Transport};
use crate::punt::QUOTED;
use crate::quote;
use crate::reason::Reason;
use crate::rewrite;
use crate::service::{EXHAUSTION_DROP, MODE_ACROSS};
use crate::tables::{Tables, TablesOf};

/// What the FIB has for a packet's destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Found {
    /// A way out.
    Member,
    /// The kernel's own routing.
    Kernel,
    /// The end.
    Blackhole,
    /// The end, for want of room.
    NoRoom,
    /// No route.
    Nothing,
}

impl Found {
    /// Why a flow's packet ends here, if it does.
    #[inline(always)]
    pub(super) fn end_of_flow(self) -> Option<Reason> {
        match self {
            Self::Blackhole => Some(Reason::FlowBlackhole),
            Self::NoRoom => Some(Reason::FibFull),
            Self::Member | Self::Kernel | Self::Nothing => None,
        }
    }
}

/// Looks up where a packet goes from here: a flow's by its translation, others by their own destination. By way of
/// [`FamilyTables::find_way`](crate::tables::FamilyTables::find_way): of all that the verifier reads this would be most.
#[inline(always)]
pub fn find_way<A: Family, T: TablesOf<A>>(tables: &T, scratch: &mut Scratch<A>) {
    let Scratch { ip, arrival, step, member, found, .. } = scratch;
    *found = if step.is_flow && step.mode == MODE_ACROSS {
        route(tables, step.across.destination, &arrival.key, member)
    } else {
        let destination = if step.is_flow { step.translation.destination } else { ip.destination };
        route(tables, destination, &arrival.key, member)
    };
}

/// Looks a destination up in the FIB; the member is written only if one is found.
#[inline(always)]
fn route<A: Family, F: Family, T: Tables>(
    tables: &T,
    destination: F,
    key: &FlowKey<A>,
    member: &mut MemberEntry,
) -> Found {
    match F::route(tables, destination, || FlowHash::of(key).for_route()) {
        Route::Forward(found) => {
            *member = found;
            Found::Member
        }
        Route::Kernel => Found::Kernel,
        Route::Blackhole => Found::Blackhole,
        Route::NoRoom => Found::NoRoom,
        Route::Miss => Found::Nothing,
    }
}

/// Why it is left to the kernel to send through a member, if it is: whether of a flow or not.
#[inline(always)]
pub(super) fn left_to_kernel<P: Packet>(member: &MemberEntry, is_flow: bool) -> Option<Reason> {
    const EASY: u16 = MEMBER_RESOLVED;
    if !Encapsulation::is_known(member.encapsulation) {
        return Some(if is_flow {
            Reason::FlowRoutedByKernel
        } else {
            Reason::UnknownEncapsulation
        });
    }
    if P::RESOLVES_NEIGHBOURS || member.flags & (EASY | MEMBER_WITHOUT_XDP) == EASY {
        return None;
    }
    Some(match (member.flags & MEMBER_WITHOUT_XDP != 0, is_flow) {
        (true, true) => Reason::FlowWayOutWithoutXdp,
        (true, false) => Reason::WayOutWithoutXdp,
        (false, true) => Reason::FlowNextHopUnresolved,
        (false, false) => Reason::NextHopUnresolved,
    })
}

#[inline(always)]
pub(super) fn forward_flow<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &mut Scratch<A>,
    way: &mut Way,
) -> Result<Reason, Reason> {
    let Scratch { ip, transport, step, member, found, options, .. } = scratch;
    let found = *found;
    // No error is sent about a later fragment (RFC 1122 §3.2.2).
    let may_tell = transport.kind != Kind::LaterFragment;
    if ip.ttl <= 1 {
        if may_tell {
            packet.punt(Reason::FlowTtlExpired, A::QUOTED_SHORT, 0);
        }
        return Err(Reason::FlowTtlExpired);
    }
    let destination = step.translation.destination;
    if let Some(reason) = found.end_of_flow() {
        return Err(reason);
    }
    let is_too_big =
        found == Found::Member && packet_len(packet, ip, transport) > u32::from(member.mtu);
    if is_too_big && ip.must_stay_whole() {
        if may_tell {
            packet.punt(Reason::FlowTooBig, QUOTED, member.mtu);
        }
        return Err(Reason::FlowTooBig);
    }
    if transport.kind == Kind::LaterFragment {
        rewrite::translate_addresses(packet, &step.translation).ok_or(Reason::WriteFault)?;
    } else {
        rewrite::translate(packet, ip, &step.translation, options.change)
            .ok_or(Reason::WriteFault)?;
    }
    match found {
        Found::Member => {}
        Found::Kernel | Found::Blackhole | Found::NoRoom => return Err(Reason::FlowRoutedByKernel),
        Found::Nothing => return Err(Reason::FlowNoRoute),
    }
    if is_too_big {
        return Err(Reason::FlowToBeFragmented);
    }
    if let Some(reason) = left_to_kernel::<P>(member, true) {
        return Err(reason);
    }
    let reason = if member.flags & MEMBER_RESOLVED == 0 {
        Reason::FlowThroughNeighbour
    } else if step.begins && !step.is_new {
        Reason::ForwardedWithoutFlow
    } else if step.direction == DIRECTION_TO_BACKEND {
        Reason::ForwardedToBackend
    } else {
        Reason::ForwardedToClient
    };
    send(packet, member, ip, destination, way).ok_or(Reason::WriteFault)?;
    Ok(reason)
}

#[inline(never)]
pub(super) fn forward_flow_apart<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &mut Scratch<A>,
    way: &mut Way,
) -> Reason {
    either(forward_flow(packet, scratch, way))
}

#[inline(never)]
pub(super) fn forward_plain_apart<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &mut Scratch<A>,
    way: &mut Way,
) -> Reason {
    either(forward_plain(packet, scratch, way))
}

/// Notes that a packet is of no flow. It is routed by its addresses, unless it is for a VIP or its headers are longer than it; a
/// backend's fragment may be of a flow, as its first one will tell (`FragmentKept`).
#[inline(never)]
pub(super) fn find_no_flow<A: Family, T: TablesOf<A>>(
    tables: &T,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    scratch.step.is_flow = false;
    go_by_addresses(scratch);
    let ip = &scratch.ip;
    if ip.transport_at() > ETHERNET_LEN + ip.total_len {
        return Err(Reason::Malformed);
    }
    let is_later = ip.is_later_fragment();
    if vip_flags(tables, ip.destination) == NO_VIP {
        let may_be_answer = is_later && tables.is_backend(&ip.source.to_v6());
        return if may_be_answer { Err(Reason::FragmentKept) } else { Ok(()) };
    }
    Err(if is_later { Reason::FragmentToVip } else { Reason::VipWithoutService })
}

/// Has a packet choose its way out by its addresses alone.
#[inline(always)]
pub(super) fn go_by_addresses<A: Family>(scratch: &mut Scratch<A>) {
    let Scratch { ip, arrival, .. } = scratch;
    arrival.key.source = ip.source;
    arrival.key.destination = ip.destination;
    arrival.key.source_port = 0;
    arrival.key.destination_port = 0;
    arrival.key.protocol = 0;
    arrival.key.pad = 0;
}

/// The flow that an ICMP error is about, as the quoted packet says. One about no flow is routed unless it is for a VIP; where
/// it quotes ports, by the way of the packets of their flow that go where it goes, as the kernel has it.
#[inline(never)]
pub(super) fn find_quoted<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    scratch.step.is_flow = false;
    go_by_addresses(scratch);
    let Scratch { ip, quote, arrival, step, .. } = scratch;
    if quote::read(packet, ip, quote).is_some() {
        // What answers the quoted packet has the key of the flow's other direction.
        arrival.key = quote.key.reversed();
        if let Some(entry) = tables.flow(&arrival.key) {
            step.follow(&entry, entry.seen());
            step.direction = entry.direction();
            if !entry.is_same() {
                return Err(Reason::FlowExpiring);
            }
            step.is_flow = true;
            // Nobody makes one that is too long for a link (RFC 1812 §4.3.2.3, RFC 4443 §2.4 c), and its other parts, which
            // quote nothing, could not follow it.
            if ip.is_fragment() {
                return Err(Reason::Untranslatable);
            }
            return if ip.ttl <= 1 { Err(Reason::FlowTtlExpired) } else { Ok(()) };
        }
    }
    let is_for_vip = vip_flags(tables, ip.destination) != NO_VIP;
    if is_for_vip { Err(Reason::VipWithoutService) } else { Ok(()) }
}

/// Translates an ICMP error about a flow and sends it on. A subprogram, from which a scalar comes back: the verifier would mind
/// what was on the caller's stack where an `Option` comes to stand, from before all lookups on.
#[inline(never)]
pub(super) fn forward_error<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &mut Scratch<A>,
    way: &mut Way,
) -> Reason {
    let Some(content) = translate_quoted(packet, scratch) else { return Reason::WriteFault };
    match translate_error(packet, scratch, content) {
        Some(()) => send_error(packet, scratch, way),
        None => Reason::WriteFault,
    }
}

/// Translates what an ICMP error about a flow quotes. It is no packet of the flow and says nothing of its life.
#[inline(never)]
fn translate_quoted<A: Family, P: Packet>(packet: &mut P, scratch: &Scratch<A>) -> Option<Delta> {
    quote::translate_quoted(packet, &scratch.quote, &scratch.step.translation)
}

/// Translates an ICMP error about a flow, given what has changed in what it quotes.
#[inline(never)]
fn translate_error<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &Scratch<A>,
    content: Delta,
) -> Option<()> {
    let Scratch { ip, step, .. } = scratch;
    quote::translate(packet, ip, &step.translation, step.direction, content)
}

/// Sends an ICMP error to the side that knows the quoted packet. No error is sent about it (RFC 1122 §3.2.2).
#[inline(never)]
fn send_error<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &mut Scratch<A>,
    way: &mut Way,
) -> Reason {
    let Scratch { ip, step, member, found, .. } = scratch;
    let destination = step.translation.destination;
    match *found {
        Found::Member => {}
        Found::Blackhole => return Reason::FlowBlackhole,
        Found::NoRoom => return Reason::FibFull,
        Found::Kernel => return Reason::FlowRoutedByKernel,
        Found::Nothing => return Reason::FlowNoRoute,
    }
    if ip.total_len > u32::from(member.mtu) {
        return Reason::FlowToBeFragmented;
    }
    if let Some(reason) = left_to_kernel::<P>(member, true) {
        return reason;
    }
    let reason = if member.flags & MEMBER_RESOLVED == 0 {
        Reason::FlowThroughNeighbour
    } else if step.direction == DIRECTION_TO_BACKEND {
        Reason::ErrorToBackend
    } else {
        Reason::ErrorToClient
    };
    match send(packet, member, ip, destination, way) {
        Some(()) => reason,
        None => Reason::WriteFault,
    }
}

#[inline(always)]
pub(super) fn forward_plain<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &mut Scratch<A>,
    way: &mut Way,
) -> Result<Reason, Reason> {
    let Scratch { ip, transport, member, found, .. } = scratch;
    if transport.kind == Kind::Sctp && packet.segment_payload() != 0 {
        return Err(Reason::MergedSegments);
    }
    match *found {
        Found::Member => {}
        Found::Kernel => return Err(Reason::RoutedByKernel),
        Found::Nothing => return Err(Reason::NoRoute),
        Found::Blackhole => return Err(Reason::Blackhole),
        Found::NoRoom => return Err(Reason::FibFull),
    }
    if ip.source.is_link_local() {
        return Err(Reason::LinkLocalSource);
    }
    if ip.transport_at() != ETHERNET_LEN + A::HEADER_LEN && A::has_options_for_routers(packet) {
        return Err(Reason::IpOptions);
    }
    if ip.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    if packet_len(packet, ip, transport) > u32::from(member.mtu) {
        return Err(Reason::TooBig);
    }
    if let Some(reason) = left_to_kernel::<P>(member, false) {
        return Err(reason);
    }
    let reason = if member.flags & MEMBER_RESOLVED != 0 {
        Reason::Forwarded
    } else {
        Reason::ThroughNeighbour
    };
    send(packet, member, ip, ip.destination, way).ok_or(Reason::WriteFault)?;
    Ok(reason)
}

/// What the kernel says of the segments' payload where each is as long as it is (`GSO_BY_FRAGS`): SCTP's.
const MERGED_BY_FRAGMENTS: u32 = 0xffff;

/// Bytes of the packet, or of one segment where the kernel merged several; of SCTP's, whose lengths only the kernel knows, those
/// of the header: their sender has cut them to what fits.
#[inline(always)]
pub(super) fn packet_len<A: Family, P: Packet>(
    packet: &P,
    ip: &Ip<A>,
    transport: &Transport,
) -> u32 {
    match packet.segment_payload() {
        0 => ip.total_len,
        MERGED_BY_FRAGMENTS => ip.transport_at() - ETHERNET_LEN + transport.header_len,
        payload => ip.transport_at() - ETHERNET_LEN + transport.header_len + payload,
    }
}

#[inline(always)]
fn send<A: Family, P: Packet>(
    packet: &mut P,
    member: &MemberEntry,
    ip: &Ip<A>,
    destination: A,
    way: &mut Way,
) -> Option<()> {
    A::write_ttl(packet, ip.ttl.wrapping_sub(1))?;
    address_frame(packet, member, destination, way)
}

/// Has the client of a flow for which no source port was free told, if it is to be.
#[inline(never)]
pub(super) fn tell_of_exhaustion<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &Scratch<A>,
) -> u32 {
    let Scratch { transport, made, .. } = scratch;
    if made.on_exhaustion != EXHAUSTION_DROP {
        let len = if transport.kind == Kind::Tcp { A::QUOTED_TCP } else { A::QUOTED_SHORT };
        packet.punt(Reason::NoSourcePort, len, u16::from(made.on_exhaustion));
    }
    0
}

/// Addresses the frame, or says whose MAC the kernel is to find.
#[inline(always)]
pub(super) fn address_frame<A: Family, P: Packet>(
    packet: &mut P,
    member: &MemberEntry,
    destination: A,
    way: &mut Way,
) -> Option<()> {
    way.ifindex = member.ifindex;
    if member.flags & MEMBER_RESOLVED != 0 {
        match Encapsulation::decode(member.encapsulation) {
            Encapsulation::None => way.resolve = u32::from(member.flags & MEMBER_TO_PEER),
            Encapsulation::Vlan { link, tags } => {
                way.ifindex = link;
                way.tags = tags;
            }
            Encapsulation::Unknown => return None,
        }
        return rewrite::set_macs(packet, member.destination_mac, member.source_mac);
    }
    if member.flags & MEMBER_HAS_GATEWAY != 0 {
        way.resolve = NEXT_HOP_V4;
        way.next_hop = V4::from_ne_bytes(member.gateway).to_next_hop();
    } else if member.flags & MEMBER_HAS_GATEWAY6 != 0 {
        way.resolve = NEXT_HOP_V6;
        way.next_hop = Family::from_bytes(member.gateway6);
    } else {
        way.resolve = A::NEXT_HOP;
        way.next_hop = destination.to_next_hop();
    }
    Some(())
}
