//! The way of packets that have no flow: they begin one, if they are for a service and may, or are routed.
//!
//! It is a program of its own for each family, which is handed what the one before has read. Some of a way's end is in both: where the route leads,
//! what the packet becomes, and how it leaves.

use super::forward::{
    forward_flow, forward_plain, forward_plain_apart, go_by_addresses, tell_of_exhaustion,
};
use super::{
    Came, KNOWN_NO_FLOW, Outcome, Scratch, Way, either, forward, fragments, lower_size,
    note_arrival, vlan, without_flow,
};
use crate::choose;
use crate::family::Family;
use crate::flow::{STATE_MODE, STATE_SAMPLED};
use crate::half_open;
use crate::packet::Packet;
use crate::parse::Kind;
use crate::reason::Reason;
use crate::rewrite;
use crate::sample;
use crate::service::{MODE_NAT, SERVICE_ANSWER_ECHO, VipKey};
use crate::tables::{FamilyTables, Tables, TablesOf};
use crate::vlan::Tags;

/// The way of a packet that has no flow, counted, from where the program before has left it.
#[inline(always)]
pub fn begin<A: Family, P: Packet, T: TablesOf<A>>(packet: &mut P, tables: &T) -> Outcome {
    let bytes = packet.frame_len();
    let nothing = P::zero(bytes);
    let mut came = Came { tags: nothing, place: nothing as u32, ifindex: bytes, bytes, pad: 0 };
    // As where a way begins: no zeroes.
    let mut way =
        Way { ifindex: 0, resolve: 0, next_hop: [bytes; 4], tags: Tags::from_bits(nothing as u32) };
    let ended = FamilyTables::<A>::with_scratch(tables, |scratch| {
        run(packet, tables, scratch, &mut came, &mut way)
    });
    let reason: Reason = either(ended.unwrap_or(Err(Reason::TableFault)));
    let mut reason = P::any(reason, nothing);
    if came.tags | u64::from(way.tags.bits()) != 0 {
        reason = vlan::leave(packet, reason, came.tags, &way);
    }
    tables.count(came.place, reason, came.bytes);
    Outcome { reason, way }
}

#[inline(always)]
fn run<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch<A>,
    came: &mut Came,
    way: &mut Way,
) -> Result<Reason, Reason> {
    *came = scratch.came;
    packet.enter(came.ifindex);
    if scratch.arrival.known == KNOWN_NO_FLOW {
        let flags = begin_flow(packet, tables, scratch)?;
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
    lower_size(packet, scratch)?;
    let mode = scratch.step.mode;
    if !A::APART && mode == MODE_NAT {
        return forward_flow(packet, scratch, way);
    }
    forward(packet, tables, scratch, mode, way)
}

/// The flow that a packet begins, in `scratch.step`. If it begins none, the flags of its destination.
#[inline(always)]
fn begin_flow<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch<A>,
) -> Result<u32, Reason> {
    note_arrival(scratch, packet.frame_len());
    let mut flags = NOT_ASKED;
    // Read here, so that what follows is the same to the verifier for each kind.
    if !matches!(scratch.transport.kind, Kind::LaterFragment | Kind::EchoReply) {
        scratch.step.vip_flags = NOT_ASKED;
        if let Err(reason) = make(tables, scratch) {
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

/// What [`vip_flags`] says of an address that is no VIP's; no service has all bits.
pub(crate) const NO_VIP: u32 = u32::MAX;
/// What a [`Step`](super::Step) says of an address that was not looked up.
const NOT_ASKED: u32 = u32::MAX - 1;

/// The flags of a VIP's address.
#[inline(always)]
pub(crate) fn vip_flags<A: Family, T: Tables>(tables: &T, address: A) -> u32 {
    let key = VipKey { address: address.to_v6(), port: [0, 0], protocol: 0, pad: 0 };
    tables.service(&key).map_or(NO_VIP, |service| u32::from(service.flags))
}

/// Begins a flow, if the packet is for a service.
#[inline(always)]
fn make<A: Family, T: TablesOf<A>>(tables: &T, scratch: &mut Scratch<A>) -> Result<(), Reason> {
    let key = &scratch.arrival.key;
    if key.source == key.destination {
        return Err(Reason::MartianSource);
    }
    choose::backend(tables, scratch)?;
    if scratch.step.begins {
        let made = &scratch.made;
        let is_own_echo = scratch.arrival.key.protocol() == A::ICMP
            && made.sources.is_empty()
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
