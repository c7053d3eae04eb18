//! The way of a packet: parse, flow, else service and a new flow, rewrite, FIB, frame.
//!
//! An ICMP error about a flow, and a later fragment of its datagrams, find the flow by other means and then go the same way.
//!
//! What goes to the kernel of a flow's packets goes there rewritten, with the time to live that it came with: the kernel's
//! own forwarding counts the hop. Nothing of a service is passed on as it came.
//!
//! For the verifier and for its small stack the way splits: `serve`, `begin` and `route` are subprograms that know no
//! packet, only keys and tables, and hand their results out through a pointer; what touches the packet is inlined into the hook's program.
//! Results that several branches fill are plain structures, all of whose fields have a value from the start, since the
//! verifier refuses to copy what was never written.

mod forward;
mod life;

use self::forward::{forward_error, forward_flow, forward_plain};
pub(crate) use self::life::end;
use self::life::{begins_anew, observe};
use crate::choose::{self, Composed};
use crate::fib::MemberEntry;
use crate::flow::{DIRECTION_TO_BACKEND, Flow, FlowKey, ICMP, STATE_EXPIRING, Translation};
use crate::fragment::FragmentPorts;
use crate::half_open;
use crate::hash::FlowHash;
use crate::packet::Packet;
use crate::parse::{self, Ipv4, Kind, Transport};
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

/// A packet's whole way, counted.
#[inline(always)]
pub fn process<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Outcome {
    let bytes = packet.frame_len();
    let mut way = Way::default();
    let ended = tables.with_scratch(|scratch| run(packet, tables, scratch, &mut way));
    let (Ok(reason) | Err(reason)) = ended.unwrap_or(Err(Reason::TableFault));
    tables.count(reason, bytes);
    Outcome { reason, way }
}

#[inline(always)]
fn run<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch,
    way: &mut Way,
) -> Result<Reason, Reason> {
    let ip = parse::ipv4(packet)?;
    let transport = match transport(packet, tables, &ip) {
        Ok(transport) => transport,
        Err(Reason::ProtocolNotHandled) => return Err(not_handled(tables, &ip)),
        Err(reason) => return Err(reason),
    };
    if transport.kind == Kind::Error {
        return forward_error(packet, tables, scratch, &ip, way);
    }
    let is_echo = matches!(transport.kind, Kind::EchoRequest | Kind::EchoReply);
    let key = transport.key(&ip);
    let hash = FlowHash::of(&key);
    if !is_echo {
        let may_begin = transport.kind != Kind::LaterFragment;
        scratch.arrival = Arrival {
            key,
            hash,
            sequence: transport.sequence,
            acknowledged: transport.acknowledged,
            bytes: packet.frame_len(),
            flags: transport.flags,
            pad: [0; 3],
        };
        scratch.step = Step::default();
        serve(tables, &scratch.arrival, &mut scratch.step)?;
        if !scratch.step.is_flow && may_begin {
            begin(tables, scratch)?;
            if scratch.step.is_new {
                half_open::enter(tables, &scratch.arrival.key);
            }
        }
        if scratch.step.is_flow {
            if ip.is_fragment() && may_begin {
                let (source, destination) = (transport.source_port, transport.destination_port);
                let ports = FragmentPorts { source, destination, seen: tables.now() };
                tables.note_fragment(&ip.fragment_key(), &ports);
            }
            return forward_flow(packet, tables, scratch, &ip, &transport, way);
        }
    }
    let flags = vip_flags(tables, ip.destination);
    if ip.is_fragment() {
        return Err(if flags == NO_VIP { Reason::Fragment } else { Reason::FragmentToVip });
    }
    if flags == NO_VIP {
        return forward_plain(packet, tables, scratch, &ip, &transport, hash, way);
    }
    if transport.kind != Kind::EchoRequest || flags & u32::from(SERVICE_ANSWER_ECHO) == 0 {
        return Err(Reason::VipWithoutService);
    }
    rewrite::answer_echo(packet, &ip).ok_or(Reason::WriteFault)?;
    Ok(Reason::EchoAnswered)
}

/// What a packet carries; of a later fragment, what the first one of its datagram said.
#[inline(always)]
fn transport<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ip: &Ipv4,
) -> Result<Transport, Reason> {
    if !ip.is_later_fragment() {
        return parse::transport(packet, ip);
    }
    match tables.fragment(&ip.fragment_key()) {
        Some(ports) if ports.is_current(tables.now()) => Ok(Transport::of_later_fragment(&ports)),
        Some(_) | None if vip_flags(tables, ip.destination) != NO_VIP => Err(Reason::FragmentToVip),
        Some(_) | None => Err(Reason::Fragment),
    }
}

/// Why a packet that is of no flow, and that carries nothing that is handled here, goes to the kernel.
#[inline(always)]
fn not_handled<T: Tables>(tables: &T, ip: &Ipv4) -> Reason {
    if vip_flags(tables, ip.destination) == NO_VIP {
        Reason::ProtocolNotHandled
    } else {
        Reason::VipWithoutService
    }
}

/// What [`vip_flags`] says of an address that is no VIP's; no service has all bits.
const NO_VIP: u32 = u32::MAX;

/// The flags of a VIP's address.
#[inline(always)]
fn vip_flags<T: Tables>(tables: &T, address: u32) -> u32 {
    let key = ServiceKey4 { address: address.to_ne_bytes(), port: [0, 0], protocol: ICMP, pad: 0 };
    tables.service(&key).map_or(NO_VIP, |service| u32::from(service.flags))
}

/// What a packet's way needs room for: a program's stack is too small for it.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Scratch {
    /// What the choice of a flow knows of the packet.
    pub arrival: Arrival,
    /// What it decides.
    pub step: Step,
    /// The way out.
    pub member: MemberEntry,
    /// A new flow's entries.
    pub made: Composed,
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
    /// Whether it begins one.
    pub is_new: bool,
    /// Zero.
    pub pad: [u8; 5],
}

/// The flow that a packet belongs to.
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
            step.translation = entry.translation();
            step.direction = entry.direction();
            step.is_flow = true;
            entry.touch(now);
            observe(tables, arrival, &entry, state)?;
            if step.direction == DIRECTION_TO_BACKEND {
                tables.count_flow_packet(entry.service(), entry.backend(), arrival.bytes);
            }
            return Ok(());
        }
        end(tables, key, &entry)?;
    }
    Ok(())
}

/// Begins a flow, if the packet is for a service.
#[inline(never)]
fn begin<T: Tables>(tables: &T, scratch: &mut Scratch) -> Result<(), Reason> {
    let key = &scratch.arrival.key;
    let service = tables.service(&ServiceKey4 {
        address: key.destination.to_ne_bytes(),
        port: key.destination_port.to_ne_bytes(),
        protocol: key.protocol,
        pad: 0,
    });
    let Some(service) = service else { return Ok(()) };
    choose::begin(tables, service, scratch)
}

/// The key of a flow's other direction.
#[inline(always)]
pub fn peer_key(key: &FlowKey, entry: &impl Flow) -> FlowKey {
    entry.translation().key_after(key.protocol).reversed()
}

#[cfg(test)]
mod tests;
