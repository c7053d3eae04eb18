//! The way of a packet: VLAN tags off, parse, flow, else service and a new flow, rewrite, FIB, frame, tags on.
//!
//! Each hook has two programs. The one that is attached knows the [short way](forward_established), that of established flows,
//! and leaves all other packets to the second one, which knows the [long way](process), that of all packets.
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

mod across;
mod direct;
mod established;
mod forward;
mod fragments;
mod life;
mod neighbour;
mod scratch;
mod vlan;
mod without_flow;

use self::across::{error_across, forward_across};
use self::direct::forward_direct;
pub use self::established::{end_without_long_way, forward_established};
pub use self::forward::{Found, find_way};
use self::forward::{
    find_no_flow, find_quoted, forward_error, forward_flow, forward_flow_apart, forward_plain,
    forward_plain_apart, go_by_addresses, tell_of_exhaustion,
};
use self::fragments::transport;
pub use self::life::hear;
use self::life::{begins_anew, end, may_replace, note_acknowledged, said};
pub(crate) use self::life::{claim, key_to_backend};
pub use self::scratch::{
    Arrival, KNOWN_FLOW, KNOWN_HEADERS, KNOWN_NO_FLOW, KNOWN_NOTHING, Scratch, Step,
};
pub use self::vlan::Arrived;
pub(crate) use self::vlan::behind_tags;
pub(crate) use self::without_flow::note as note_without_flow;
use crate::choose;
use crate::family::{Family, V4, V6};
use crate::fib::MEMBER_TO_PEER;
use crate::flow::{Flow, SCTP, STATE_GOING, STATE_MODE, STATE_SAMPLED};
use crate::half_open;
use crate::mss;
use crate::packet::Packet;
use crate::parse::{self, ETHERNET_LEN, Kind, TCP_SYN, Version};
use crate::reason::Reason;
use crate::rewrite;
use crate::sample;
use crate::sctp;
use crate::service::{MODE_ACROSS, MODE_NAT, SERVICE_ANSWER_ECHO, VipKey};
use crate::source_route;
use crate::tables::{FamilyTables, Tables, TablesOf};
use crate::vlan::Tags;

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
    /// The family of the neighbour whose MAC the kernel is to find: [`NEXT_HOP_V4`], [`NEXT_HOP_V6`]; if the frame is complete,
    /// 0 or [`TO_PEER`].
    pub resolve: u32,
    /// That neighbour's address; an IPv4 one in the first word.
    pub next_hop: V6,
    /// The VLAN tags that the frame gets.
    pub tags: Tags,
}

/// `AF_INET`.
pub const NEXT_HOP_V4: u32 = 2;
/// `AF_INET6`.
pub const NEXT_HOP_V6: u32 = 10;
/// The interface is a veth's, and its other end is handed the frame.
pub const TO_PEER: u32 = MEMBER_TO_PEER as u32;

/// A packet's whole way, counted; from where the short one has left it, if it has begun there.
#[inline(always)]
pub fn process<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Outcome {
    let bytes = packet.frame_len();
    let nothing = P::zero(bytes);
    let mut arrived = Arrived { place: packet.interface_place().into(), tags: nothing };
    // The next hop has no value yet. No zeroes: the compiler would clear it by a call.
    let mut way =
        Way { ifindex: 0, resolve: 0, next_hop: [bytes; 4], tags: Tags::from_bits(nothing as u32) };
    let mut reason = match parse::ethernet(packet, tables, &mut arrived) {
        Ok(Version::V4) => run_v4(packet, tables, &mut way),
        Ok(Version::V6) => run_v6(packet, tables, &mut way),
        Err(reason) => reason,
    };
    let may_ask = matches!(reason, Reason::NotForUs | Reason::NotIp | Reason::ProtocolNotHandled);
    reason = if may_ask { neighbour::answer(packet, tables, reason) } else { reason };
    reason = P::any(reason, nothing);
    if arrived.tags | u64::from(way.tags.bits()) != 0 {
        reason = vlan::leave(packet, reason, &arrived, &way);
    }
    tables.count(arrived.place as u32, reason, bytes);
    Outcome { reason, way }
}

#[inline(always)]
fn run_v4<P: Packet, T: Tables>(packet: &mut P, tables: &T, way: &mut Way) -> Reason {
    let ended = tables.with_scratch(|scratch: &mut Scratch<V4>| run(packet, tables, scratch, way));
    either(ended.unwrap_or(Err(Reason::TableFault)))
}

/// A subprogram, since each family has its own part of the stack.
#[inline(never)]
fn run_v6<P: Packet, T: Tables>(packet: &mut P, tables: &T, way: &mut Way) -> Reason {
    let ended = tables.with_scratch(|scratch: &mut Scratch<V6>| run(packet, tables, scratch, way));
    either(ended.unwrap_or(Err(Reason::TableFault)))
}

/// How it ended, well or not. A subprogram returns a scalar: the verifier minds what is left in the register otherwise.
#[inline(always)]
fn either(ended: Result<Reason, Reason>) -> Reason {
    let (Ok(reason) | Err(reason)) = ended;
    reason
}

#[inline(always)]
fn run<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch<A>,
    way: &mut Way,
) -> Result<Reason, Reason> {
    if scratch.arrival.known == KNOWN_NOTHING {
        read(packet, tables, scratch)?;
    }
    let kind = scratch.transport.kind;
    if kind == Kind::Error {
        find_quoted(packet, tables, scratch)?;
    } else if kind == Kind::Other {
        if packet.segment_payload() != 0 {
            return Err(Reason::MergedSegments);
        }
        if let Err(reason) = find_no_flow(tables, scratch) {
            let is_for_vip = reason == Reason::FragmentToVip;
            if !is_for_vip && reason != Reason::FragmentKept {
                return Err(reason);
            }
            let ended = fragments::keep(packet, tables, scratch, is_for_vip);
            if ended != Reason::Forwarded {
                return Err(ended);
            }
        }
    } else {
        let flags = find_flow(packet, tables, scratch)?;
        if !scratch.step.is_flow && flags != NO_VIP {
            return answer(packet, scratch, flags);
        }
    }
    FamilyTables::<A>::find_way(tables, scratch);
    let mut is_flow = scratch.step.is_flow;
    if !is_flow && tables.without_flow_until() != 0 {
        is_flow = without_flow::answers(tables, scratch) != 0;
    }
    // Here and not there: the verifier knows one state after a subprogram, and many within.
    if scratch.ip.is_first_fragment() {
        fragments::tell_where_awaited(tables, scratch);
    }
    if !is_flow {
        return if A::APART {
            Ok(forward_plain_apart(packet, scratch, way))
        } else {
            forward_plain(packet, scratch, way)
        };
    }
    if scratch.ip.protocol == SCTP {
        sctp::prepare(packet, scratch)?;
    } else if scratch.transport.flags & TCP_SYN != 0 && scratch.step.mss != 0 {
        mss::lower(packet, scratch).ok_or(Reason::WriteFault)?;
    }
    // Read again, so that the verifier knows no more of it than in other cases and goes through `find_way` once for all.
    match (scratch.step.mode, scratch.transport.kind) {
        (MODE_NAT, Kind::Error) => Ok(forward_error(packet, scratch, way)),
        (MODE_NAT, _) if A::APART => Ok(forward_flow_apart(packet, scratch, way)),
        (MODE_NAT, _) => forward_flow(packet, scratch, way),
        (MODE_ACROSS, Kind::Error) => Ok(error_across(packet, scratch, way)),
        (MODE_ACROSS, _) => Ok(forward_across(packet, tables, scratch, way)),
        (_, _) => Ok(forward_direct(packet, scratch, way)),
    }
}

/// Reads what a packet carries, whatever it is.
#[inline(always)]
fn read<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    if A::APART {
        read_header_apart(packet, scratch)?;
        return read_transport_apart(packet, tables, scratch);
    }
    read_header(packet, scratch)?;
    if P::unlinked(scratch.ip.transport_at()) != ETHERNET_LEN + A::HEADER_LEN {
        source_route::check(packet, tables, scratch)?;
    }
    read_transport(packet, tables, scratch)
}

/// The flow that a packet belongs to or begins, in `scratch.step`. If it is of none, the flags of its destination.
#[inline(always)]
fn find_flow<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch<A>,
) -> Result<u32, Reason> {
    note_arrival(scratch, packet.frame_len());
    let mut flags = NOT_ASKED;
    if scratch.arrival.known < KNOWN_NO_FLOW {
        serve(tables, scratch)?;
        if scratch.step.news != 0 {
            FamilyTables::<A>::hear(tables, scratch)?;
        }
    }
    // Read here, so that what follows is the same to the verifier for each kind.
    let may_begin = !matches!(scratch.transport.kind, Kind::LaterFragment | Kind::EchoReply);
    if !scratch.step.is_flow && may_begin {
        scratch.step.vip_flags = NOT_ASKED;
        if let Err(reason) = begin(tables, scratch) {
            if reason == Reason::NoSourcePort {
                tell_of_exhaustion(packet, scratch);
            }
            return Err(reason);
        }
        flags = scratch.step.vip_flags;
    }
    if scratch.step.is_flow {
        if scratch.ip.is_first_fragment() {
            fragments::note(tables, scratch);
        }
        return Ok(flags);
    }
    if flags == NOT_ASKED {
        flags = vip_flags(tables, scratch.ip.destination);
    }
    if scratch.ip.is_fragment() {
        if flags != NO_VIP {
            return Err(Reason::FragmentToVip);
        }
        // Ports are in the first fragment only, and all take one way.
        go_by_addresses(scratch);
    }
    Ok(flags)
}

/// Answers an echo request to a VIP; whatever else is for a VIP's address and of no flow is the kernel's.
#[inline(always)]
fn answer<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &Scratch<A>,
    flags: u32,
) -> Result<Reason, Reason> {
    if scratch.transport.kind != Kind::EchoRequest || flags & u32::from(SERVICE_ANSWER_ECHO) == 0 {
        return Err(Reason::VipWithoutService);
    }
    rewrite::answer_echo(packet, &scratch.ip).ok_or(Reason::WriteFault)?;
    Ok(Reason::EchoAnswered)
}

#[inline(always)]
fn read_header<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    scratch.ip = A::header(packet)?;
    Ok(())
}

#[inline(always)]
fn read_transport<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    scratch.transport = transport(packet, tables, &mut scratch.ip)?;
    Ok(())
}

#[inline(never)]
fn read_header_apart<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    read_header(packet, scratch)
}

#[inline(never)]
fn read_transport_apart<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    read_transport(packet, tables, scratch)
}

/// Notes what the choice of a flow knows of the packet; nothing is decided yet, unless the short way has.
#[inline(always)]
fn note_arrival<A: Family>(scratch: &mut Scratch<A>, bytes: u32) {
    let Scratch { ip, transport, arrival, step, .. } = scratch;
    arrival.key = transport.key(ip);
    arrival.sequence = transport.sequence;
    arrival.acknowledged = transport.acknowledged;
    arrival.bytes = bytes;
    arrival.flags = transport.flags;
    if arrival.known == KNOWN_FLOW {
        return;
    }
    // Field by field, and no padding: the compiler clears longer runs by a call.
    step.direction = 0;
    step.is_flow = false;
    step.begins = false;
    step.is_new = false;
    step.news = 0;
}

/// What [`vip_flags`] says of an address that is no VIP's; no service has all bits.
pub(crate) const NO_VIP: u32 = u32::MAX;
/// What a [`Step`] says of an address that was not looked up.
const NOT_ASKED: u32 = u32::MAX - 1;

/// The flags of a VIP's address.
#[inline(always)]
pub(crate) fn vip_flags<A: Family, T: Tables>(tables: &T, address: A) -> u32 {
    let key = VipKey { address: address.to_v6(), port: [0, 0], protocol: 0, pad: 0 };
    tables.service(&key).map_or(NO_VIP, |service| u32::from(service.flags))
}

/// The flow that a packet belongs to.
#[inline(never)]
fn serve<A: Family, T: TablesOf<A>>(tables: &T, scratch: &mut Scratch<A>) -> Result<(), Reason> {
    let Scratch { arrival, step, .. } = scratch;
    let now = tables.now();
    let key = &arrival.key;
    if let Some(entry) = tables.flow(key) {
        let state = entry.seen();
        if state & STATE_GOING != 0 && !may_replace(&entry, state, arrival) {
            note_acknowledged(arrival, &entry, state);
            return Err(Reason::FlowExpiring);
        }
        if !begins_anew(tables, &entry, state, arrival, now) {
            step.follow(&entry, state);
            step.direction = entry.direction();
            step.is_flow = true;
            if arrival.flags & TCP_SYN != 0 {
                step.mss = entry.mss();
            }
            let backend = entry.backend();
            tables.expect_packet(backend);
            if !entry.is_same() {
                return Err(Reason::FlowExpiring);
            }
            entry.touch(now);
            (step.news, step.seen) = (said(tables, arrival, &entry, state), state);
            // Before its end is told.
            if tables.samples_every() != 0 && state & STATE_SAMPLED != 0 {
                sample::count(tables, arrival, step);
            }
            tables.count_flow_packet(backend, step.direction, arrival.bytes);
            return Ok(());
        }
        end(tables, key, &entry)?;
    }
    Ok(())
}

/// Begins a flow, if the packet is for a service.
#[inline(always)]
fn begin<A: Family, T: TablesOf<A>>(tables: &T, scratch: &mut Scratch<A>) -> Result<(), Reason> {
    let Arrival { key, .. } = &scratch.arrival;
    if key.source == key.destination {
        return Err(Reason::MartianSource);
    }
    choose::backend(tables, scratch)?;
    if scratch.step.begins {
        let made = &scratch.made;
        let is_own_echo = scratch.arrival.key.protocol() == A::ICMP
            && made.sources_len == 0
            && made.entry.state & STATE_MODE == 0;
        let inserted = if is_own_echo {
            choose::insert_back_of_echo(tables, scratch)
        } else {
            choose::insert_back(tables, scratch)
        };
        match inserted {
            Err(Reason::NoSourcePort) => choose::find_port(tables, scratch)?,
            Err(Reason::FlowTableFull) if scratch.made.when_full != 0 => scratch.made.without = 1,
            ended => ended?,
        }
        choose::insert(tables, scratch)?;
        if scratch.step.is_new {
            if tables.samples_every() != 0 && scratch.made.entry.state & STATE_SAMPLED != 0 {
                sample::begin(tables, scratch);
            }
            half_open::enter(tables, &scratch.arrival.key);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
