//! The way out: route, rewrite, frame.

use super::{Scratch, Way, not_handled};
use crate::fib::{self, MEMBER_HAS_GATEWAY, MEMBER_RESOLVED, MemberEntry, Route};
use crate::flow::{DIRECTION_TO_BACKEND, Flow};
use crate::hash::FlowHash;
use crate::packet::Packet;
use crate::parse::{self, ETHERNET_LEN, Ipv4, Kind, Transport};
use crate::quote;
use crate::reason::Reason;
use crate::rewrite;
use crate::tables::Tables;

/// What [`route`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Member,
    Kernel,
    Blackhole,
    Nothing,
}

/// Looks a destination up in the FIB; the member is written only if one is found.
#[inline(never)]
fn route<T: Tables>(tables: &T, destination: u32, hash: u32, member: &mut MemberEntry) -> Found {
    match fib::lookup4(tables, u32::from_be(destination), hash) {
        Route::Forward(found) => {
            *member = found;
            Found::Member
        }
        Route::Kernel => Found::Kernel,
        Route::Blackhole => Found::Blackhole,
        Route::Miss => Found::Nothing,
    }
}

#[inline(always)]
pub(super) fn forward_flow<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch,
    ip: &Ipv4,
    transport: &Transport,
    way: &mut Way,
) -> Result<Reason, Reason> {
    let Scratch { arrival, step, member, .. } = scratch;
    // No error is sent about a later fragment (RFC 1122 §3.2.2).
    let may_tell = transport.kind != Kind::LaterFragment;
    if ip.ttl <= 1 {
        if may_tell {
            packet.punt(Reason::FlowTtlExpired, 0);
        }
        return Err(Reason::FlowTtlExpired);
    }
    let destination = step.translation.destination;
    let found = route(tables, destination, arrival.hash.for_route(), member);
    if found == Found::Blackhole {
        return Err(Reason::FlowBlackhole);
    }
    let is_too_big =
        found == Found::Member && packet_len(packet, ip, transport) > u32::from(member.mtu);
    if is_too_big && ip.must_stay_whole() {
        if may_tell {
            packet.punt(Reason::FlowTooBig, member.mtu);
        }
        return Err(Reason::FlowTooBig);
    }
    if transport.kind == Kind::LaterFragment {
        rewrite::translate_addresses(packet, &step.translation).ok_or(Reason::WriteFault)?;
    } else {
        rewrite::translate(packet, ip, &step.translation).ok_or(Reason::WriteFault)?;
    }
    match found {
        Found::Member => {}
        Found::Kernel | Found::Blackhole => return Err(Reason::FlowRoutedByKernel),
        Found::Nothing => return Err(Reason::FlowNoRoute),
    }
    if is_too_big {
        return Err(Reason::FlowToBeFragmented);
    }
    let reason = if member.flags & MEMBER_RESOLVED == 0 {
        if !P::RESOLVES_NEIGHBOURS {
            return Err(Reason::FlowNextHopUnresolved);
        }
        Reason::FlowThroughNeighbour
    } else if step.direction == DIRECTION_TO_BACKEND {
        Reason::ForwardedToBackend
    } else {
        Reason::ForwardedToClient
    };
    send(packet, member, destination, way).ok_or(Reason::WriteFault)?;
    Ok(reason)
}

/// An ICMP error: one about a flow goes to the side that knows the packet, translated. It is no packet of the flow and says
/// nothing of its life. No error is sent about it (RFC 1122 §3.2.2).
#[inline(never)]
pub(super) fn forward_error<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch,
    ip: &Ipv4,
    way: &mut Way,
) -> Result<Reason, Reason> {
    let Some(quote) = quote::read(packet, ip) else { return Err(not_handled(tables, ip)) };
    // What answers the quoted packet has the key of the flow's other direction.
    let key = quote.key.reversed();
    let Some(entry) = tables.flow(&key) else { return Err(not_handled(tables, ip)) };
    if ip.ttl <= 1 {
        return Err(Reason::FlowTtlExpired);
    }
    let (to, direction) = (entry.translation(), entry.direction());
    quote::translate(packet, ip, &quote, &to, direction).ok_or(Reason::WriteFault)?;
    let member = &mut scratch.member;
    match route(tables, to.destination, FlowHash::of(&key).for_route(), member) {
        Found::Member => {}
        Found::Blackhole => return Err(Reason::FlowBlackhole),
        Found::Kernel => return Err(Reason::FlowRoutedByKernel),
        Found::Nothing => return Err(Reason::FlowNoRoute),
    }
    if u32::from(ip.total_len) > u32::from(member.mtu) {
        return Err(Reason::FlowToBeFragmented);
    }
    let reason = if member.flags & MEMBER_RESOLVED == 0 {
        if !P::RESOLVES_NEIGHBOURS {
            return Err(Reason::FlowNextHopUnresolved);
        }
        Reason::FlowThroughNeighbour
    } else if direction == DIRECTION_TO_BACKEND {
        Reason::ErrorToBackend
    } else {
        Reason::ErrorToClient
    };
    send(packet, member, to.destination, way).ok_or(Reason::WriteFault)?;
    Ok(reason)
}

#[inline(always)]
pub(super) fn forward_plain<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch,
    ip: &Ipv4,
    transport: &Transport,
    hash: FlowHash,
    way: &mut Way,
) -> Result<Reason, Reason> {
    let member = &mut scratch.member;
    match route(tables, ip.destination, hash.for_route(), member) {
        Found::Member => {}
        Found::Kernel => return Err(Reason::RoutedByKernel),
        Found::Nothing => return Err(Reason::NoRoute),
        Found::Blackhole => return Err(Reason::Blackhole),
    }
    if parse::is_link_local(ip.source) {
        return Err(Reason::LinkLocalSource);
    }
    if ip.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    if packet_len(packet, ip, transport) > u32::from(member.mtu) {
        return Err(Reason::TooBig);
    }
    let reason = if member.flags & MEMBER_RESOLVED != 0 {
        Reason::Forwarded
    } else if P::RESOLVES_NEIGHBOURS {
        Reason::ThroughNeighbour
    } else {
        return Err(Reason::NextHopUnresolved);
    };
    send(packet, member, ip.destination, way).ok_or(Reason::WriteFault)?;
    Ok(reason)
}

/// Bytes of the packet, or of one segment where the kernel merged several.
#[inline(always)]
fn packet_len<P: Packet>(packet: &P, ip: &Ipv4, transport: &Transport) -> u32 {
    match packet.segment_payload() {
        0 => u32::from(ip.total_len),
        payload => ip.transport_at - ETHERNET_LEN + transport.header_len + payload,
    }
}

#[inline(always)]
fn send<P: Packet>(
    packet: &mut P,
    member: &MemberEntry,
    destination: u32,
    way: &mut Way,
) -> Option<()> {
    rewrite::decrement_ttl(packet)?;
    way.ifindex = member.ifindex;
    if member.flags & MEMBER_RESOLVED != 0 {
        return rewrite::set_macs(packet, member.destination_mac, member.source_mac);
    }
    let has_gateway = member.flags & MEMBER_HAS_GATEWAY != 0;
    way.resolve = if has_gateway { u32::from_ne_bytes(member.gateway) } else { destination };
    Some(())
}
