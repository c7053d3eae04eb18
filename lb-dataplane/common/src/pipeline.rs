//! The way of a packet: parse, flow, else service and a new flow, rewrite, FIB, frame.
//!
//! What goes to the kernel of a flow's packets goes there rewritten, with the time to live that it came with: the kernel's
//! own forwarding counts the hop. Nothing of a service is passed on as it came.
//!
//! For the verifier the way splits in three: `serve` and `route` are subprograms that know no packet, only keys and
//! tables, and hand their results out through a pointer; what touches the packet is inlined into the hook's program.
//! Results that several branches fill are plain structures, all of whose fields have a value from the start, since the
//! verifier refuses to copy what was never written.

use crate::age::has_lost_its_backend;
use crate::choose;
use crate::fib::{self, MEMBER_HAS_GATEWAY, MEMBER_RESOLVED, MemberEntry, Route};
use crate::flow::{
    DIRECTION_TO_BACKEND, DIRECTION_TO_CLIENT, Flow, FlowKey, ICMP, STATE_BACKEND_FIN,
    STATE_BACKEND_RESET, STATE_CLIENT_FIN, STATE_CLIENT_RESET, STATE_CLOSING, STATE_CONFIRMED,
    STATE_EXPIRING, STATE_REPLIED, TCP, Translation,
};
use crate::hash::FlowHash;
use crate::packet::Packet;
use crate::parse::{self, ETHERNET_LEN, Ipv4, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, Transport};
use crate::reason::Reason;
use crate::rewrite;
use crate::service::{SERVICE_ANSWER_ECHO, ServiceKey4};
use crate::tables::Tables;

/// How a packet's way ended: what the hook is to do is the reason's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why, and by that what.
    pub reason: Reason,
    /// Where to, if it is forwarded.
    pub way: Way,
}

/// A way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// The interface to send through; 0 if the packet is not forwarded.
    pub ifindex: u32,
    /// The neighbour whose MAC the kernel is to find, in network byte order; 0 if the frame is complete.
    pub resolve: u32,
}

/// Ticks of silence after which a SYN that no backend answered chooses anew: its backend may have gone.
const UNANSWERED_SYN_TICKS: u32 = 2;

/// A packet's whole way, counted.
#[inline(always)]
pub fn process<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Outcome {
    let bytes = packet.frame_len();
    let mut way = Way::default();
    let (Ok(reason) | Err(reason)) = run(packet, tables, &mut way);
    tables.count(reason, bytes);
    Outcome { reason, way }
}

#[inline(always)]
fn run<P: Packet, T: Tables>(packet: &mut P, tables: &T, way: &mut Way) -> Result<Reason, Reason> {
    let ip = parse::ipv4(packet)?;
    if ip.is_fragment {
        let to_vip = vip_flags(tables, ip.destination) != NO_VIP;
        return Err(if to_vip { Reason::FragmentToVip } else { Reason::Fragment });
    }
    let transport = match parse::transport(packet, &ip) {
        Ok(transport) => transport,
        Err(Reason::ProtocolNotHandled) if vip_flags(tables, ip.destination) != NO_VIP => {
            return Err(Reason::VipWithoutService);
        }
        Err(reason) => return Err(reason),
    };
    let is_echo = ip.protocol == ICMP;
    let key = transport.key(&ip);
    let hash = FlowHash::of(&key);
    if !is_echo {
        let arrival = Arrival {
            key,
            hash,
            sequence: transport.sequence,
            acknowledged: transport.acknowledged,
            bytes: packet.frame_len(),
            flags: transport.flags,
            pad: [0; 3],
        };
        let mut step = Step::default();
        serve(tables, &arrival, &mut step)?;
        if step.is_flow {
            return forward_flow(packet, tables, &ip, &transport, hash, &step, way);
        }
    }
    let flags = vip_flags(tables, ip.destination);
    if flags == NO_VIP {
        return forward_plain(packet, tables, &ip, &transport, hash, way);
    }
    if transport.kind != parse::Kind::EchoRequest || flags & u32::from(SERVICE_ANSWER_ECHO) == 0 {
        return Err(Reason::VipWithoutService);
    }
    rewrite::answer_echo(packet, &ip).ok_or(Reason::WriteFault)?;
    Ok(Reason::EchoAnswered)
}

/// What [`vip_flags`] says of an address that is no VIP's; no service has all bits.
const NO_VIP: u32 = u32::MAX;

/// The flags of a VIP's address.
#[inline(always)]
fn vip_flags<T: Tables>(tables: &T, address: u32) -> u32 {
    let key = ServiceKey4 { address: address.to_ne_bytes(), port: [0, 0], protocol: ICMP, pad: 0 };
    tables.service(&key).map_or(NO_VIP, |service| u32::from(service.flags))
}

/// What the choice of a flow knows of a packet.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Arrival {
    /// Its flow's key.
    pub key: FlowKey,
    /// The key's hash.
    pub hash: FlowHash,
    /// TCP's sequence number, in network byte order.
    pub sequence: u32,
    /// TCP's acknowledgement number, in network byte order.
    pub acknowledged: u32,
    /// Bytes of its frame.
    pub bytes: u32,
    /// TCP's flags, 0 for others.
    pub flags: u8,
    /// Zero.
    pub pad: [u8; 3],
}

impl Arrival {
    /// Whether this is the first segment of a connection.
    #[inline(always)]
    pub fn is_first_of_connection(&self) -> bool {
        parse::is_first_of_connection(self.flags)
    }
}

/// What the choice of a flow decides.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Step {
    /// The rewrite.
    pub translation: Translation,
    /// One of the `DIRECTION_*` constants.
    pub direction: u8,
    /// Whether the packet belongs to a flow; the rest is of use only then.
    pub is_flow: bool,
    /// Zero.
    pub pad: [u8; 6],
}

/// The flow of a packet: the one that it belongs to, or a new one if it is for a service.
#[inline(never)]
fn serve<T: Tables>(tables: &T, arrival: &Arrival, step: &mut Step) -> Result<(), Reason> {
    let now = tables.now();
    let key = &arrival.key;
    if let Some(entry) = tables.flow(key) {
        let state = entry.state();
        if state & STATE_EXPIRING != 0 {
            return Err(Reason::FlowExpiring);
        }
        if !begins_anew(tables, &entry, state, arrival, now) {
            entry.touch(now);
            observe(tables, arrival, &entry, state)?;
            step.translation = entry.translation();
            step.direction = entry.direction();
            step.is_flow = true;
            if step.direction == DIRECTION_TO_BACKEND {
                tables.count_flow_packet(entry.service(), entry.backend(), arrival.bytes);
            }
            return Ok(());
        }
        tables.remove_flow(&peer_key(key, &entry));
        tables.remove_flow(key);
    }
    let service = tables.service(&ServiceKey4 {
        address: key.destination.to_ne_bytes(),
        port: key.destination_port.to_ne_bytes(),
        protocol: key.protocol,
        pad: 0,
    });
    match service {
        Some(service) => choose::begin(tables, arrival, &service, now, step),
        None => Ok(()),
    }
}

/// The key of a flow's other direction.
#[inline(always)]
pub fn peer_key(key: &FlowKey, entry: &impl Flow) -> FlowKey {
    entry.translation().key_after(key.protocol).reversed()
}

/// Whether a client's SYN ends the flow that it belongs to and begins another: that one was closing, its backend has left
/// the SYNs before it unanswered, or is lost.
#[inline(always)]
fn begins_anew<T: Tables>(
    tables: &T,
    entry: &impl Flow,
    state: u32,
    arrival: &Arrival,
    now: u32,
) -> bool {
    arrival.is_first_of_connection()
        && entry.direction() == DIRECTION_TO_BACKEND
        && (state & STATE_CLOSING != 0
            || state & STATE_REPLIED == 0 && entry.idle(now) >= UNANSWERED_SYN_TICKS
            || has_lost_its_backend(tables, entry))
}

/// Notes in both directions what this packet says of the flow's life. Most packets say nothing new.
#[inline(always)]
fn observe<T: Tables>(
    tables: &T,
    arrival: &Arrival,
    entry: &impl Flow,
    state: u32,
) -> Result<(), Reason> {
    let to_client = entry.direction() == DIRECTION_TO_CLIENT;
    let is_tcp = arrival.key.protocol == TCP;
    let flags = if is_tcp { arrival.flags } else { 0 };
    let mut bits = match (to_client, flags & TCP_FIN != 0) {
        (true, true) => STATE_REPLIED | STATE_BACKEND_FIN,
        (true, false) => STATE_REPLIED,
        (false, true) => STATE_CLIENT_FIN,
        (false, false) => 0,
    };
    if flags & TCP_RST != 0 {
        bits |= if to_client { STATE_BACKEND_RESET } else { STATE_CLIENT_RESET };
    } else if !to_client {
        if state & STATE_REPLIED != 0 && (!is_tcp || answers(arrival, entry)) {
            bits |= STATE_CONFIRMED;
        }
        if state & STATE_CLIENT_RESET != 0 {
            entry.clear_state(STATE_CLIENT_RESET);
            if let Some(peer) = tables.flow(&peer_key(&arrival.key, entry)) {
                peer.clear_state(STATE_CLIENT_RESET);
            }
        }
    }
    if bits & !state == 0 {
        return Ok(());
    }
    // Another CPU may have taken the flow away since its state was read: then it is not confirmed any more.
    if entry.set_state(bits) & STATE_EXPIRING != 0 {
        return Err(Reason::FlowExpiring);
    }
    if let Some(peer) = tables.flow(&peer_key(&arrival.key, entry)) {
        if to_client && state & STATE_REPLIED == 0 {
            peer.set_first_reply(u32::from_be(arrival.sequence));
        }
        peer.set_state(bits);
    }
    Ok(())
}

/// Whether a client's segment acknowledges what the backend sent first, or thereabouts: then the client has seen it. Who
/// guesses is right once in 2,048 times.
#[inline(always)]
fn answers(arrival: &Arrival, entry: &impl Flow) -> bool {
    const WINDOW: u32 = 1 << 20;
    let ahead = u32::from_be(arrival.acknowledged).wrapping_sub(entry.first_reply());
    arrival.flags & (TCP_SYN | TCP_ACK) == TCP_ACK && ahead.wrapping_add(WINDOW) < 2 * WINDOW
}

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
fn forward_flow<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ip: &Ipv4,
    transport: &Transport,
    hash: FlowHash,
    step: &Step,
    way: &mut Way,
) -> Result<Reason, Reason> {
    if ip.ttl <= 1 {
        return Err(Reason::FlowTtlExpired);
    }
    let destination = step.translation.destination;
    let mut member = MemberEntry::default();
    let found = route(tables, destination, hash.for_route(), &mut member);
    if found == Found::Blackhole {
        return Err(Reason::FlowBlackhole);
    }
    rewrite::translate(packet, ip, &step.translation).ok_or(Reason::WriteFault)?;
    match found {
        Found::Member => {}
        Found::Kernel | Found::Blackhole => return Err(Reason::FlowRoutedByKernel),
        Found::Nothing => return Err(Reason::FlowNoRoute),
    }
    if packet_len(packet, ip, transport) > u32::from(member.mtu) {
        return Err(Reason::FlowTooBig);
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
    send(packet, &member, destination, way).ok_or(Reason::WriteFault)?;
    Ok(reason)
}

#[inline(always)]
fn forward_plain<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ip: &Ipv4,
    transport: &Transport,
    hash: FlowHash,
    way: &mut Way,
) -> Result<Reason, Reason> {
    let mut member = MemberEntry::default();
    match route(tables, ip.destination, hash.for_route(), &mut member) {
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
    send(packet, &member, ip.destination, way).ok_or(Reason::WriteFault)?;
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

#[cfg(test)]
mod tests;
