//! The way of a packet: VLAN tags off, parse, flow, else service and a new flow, rewrite, FIB, frame, tags on.
//!
//! Each hook has three programs. The one that is attached knows the [short way](forward_established), that of established flows. What
//! it knows to be of no flow it leaves to the third one, and all else to the second one. That one [finds the flow](forward_found) of
//! whatever packet, and leaves those of none to the third one, too, which is there for each family: they [begin a flow](begin()) or are
//! routed.
//!
//! An ICMP error about a flow, and a later fragment of its datagrams, find the flow by other means and then go the same way.
//!
//! What goes to the kernel of a flow's packets goes there rewritten, with the time to live that it came with: the kernel's
//! own forwarding counts the hop. Nothing of a service is passed on as it came.
//!
//! For the verifier and for its small stack the way splits: what finds, makes and routes is in subprograms that know no
//! packet, only keys and tables, and hand their results out through a pointer; what touches the packet is inlined into the hook's program.
//! Results that several branches fill are plain structures, all of whose fields have a value from the start, since the
//! verifier refuses to copy what was never written.

mod across;
mod begin;
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
pub use self::begin::begin;
pub(crate) use self::begin::{NO_VIP, vip_flags};
use self::direct::forward_direct;
pub use self::established::{end_without_next, forward_established};
pub use self::forward::{Found, find_way};
use self::forward::{find_no_flow, find_quoted, forward_error, forward_flow_apart};
use self::fragments::transport;
use self::life::{ANEW, BEGINS_ANEW, end, leave_half_open, may_replace, note_acknowledged, said};
pub use self::life::{asked_anew, hear, hear_anew};
pub(crate) use self::life::{claim, key_to_backend};
pub use self::scratch::{
    Arrival, Came, KNOWN_FLOW, KNOWN_HEADERS, KNOWN_NO_FLOW, KNOWN_NOTHING, KNOWN_ROUTED, Scratch,
    Step,
};
pub use self::vlan::Arrived;
pub(crate) use self::vlan::behind_tags;
pub(crate) use self::without_flow::note as note_without_flow;
use crate::family::{Family, V4, V6};
use crate::fib::MEMBER_TO_PEER;
use crate::flow::{DIRECTION_TO_BACKEND, Flow, SCTP, STATE_CONFIRMED, STATE_GOING, STATE_SAMPLED};
use crate::mss;
use crate::packet::Packet;
use crate::parse::{self, ETHERNET_LEN, Kind, TCP_SYN, Version};
use crate::reason::Reason;
use crate::sample;
use crate::sctp;
use crate::service::{MODE_ACROSS, MODE_NAT};
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

/// The program of a hook that a packet goes on in. What is known of it lies in the scratch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The one that finds the flow of whatever packet: [`forward_found`].
    Find,
    /// The one of IPv4 packets that have no flow: [`begin()`].
    Begin,
    /// The same of IPv6.
    Begin6,
}

impl Next {
    /// Where packets of a family go that have no flow.
    #[inline(always)]
    pub(crate) fn begin<A: Family>() -> Self {
        if A::IS_V6 { Self::Begin6 } else { Self::Begin }
    }
}

/// A packet's way, counted, from where the short one has left it, if it is of a flow or ends before one is asked for.
///
/// # Errors
///
/// The next program.
#[inline(always)]
pub fn forward_found<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Result<Outcome, Next> {
    let bytes = packet.frame_len();
    let nothing = P::zero(bytes);
    let mut arrived = Arrived { place: packet.interface_place().into(), tags: nothing };
    // The next hop has no value yet. No zeroes: the compiler would clear it by a call.
    let mut way =
        Way { ifindex: 0, resolve: 0, next_hop: [bytes; 4], tags: Tags::from_bits(nothing as u32) };
    let mut reason = match parse::ethernet(packet, tables, &mut arrived) {
        Ok(Version::V4) => match find_v4(packet, tables, &arrived, bytes, &mut way) {
            Ended::For(reason) => reason,
            Ended::AsError => forward_any_error::<V4, P, T>(packet, tables, &mut way),
            Ended::WithoutFlow => return Err(Next::Begin),
        },
        Ok(Version::V6) => match find_v6(packet, tables, &arrived, bytes, &mut way) {
            Ended::For(reason) => reason,
            Ended::AsError => forward_any_error::<V6, P, T>(packet, tables, &mut way),
            Ended::WithoutFlow => return Err(Next::Begin6),
        },
        Err(reason) => reason,
    };
    let may_ask = matches!(reason, Reason::NotForUs | Reason::NotIp | Reason::ProtocolNotHandled);
    reason = if may_ask { neighbour::answer(packet, tables, reason) } else { reason };
    reason = P::any(reason, P::zero(bytes));
    if arrived.tags | u64::from(way.tags.bits()) != 0 {
        reason = vlan::leave(packet, reason, arrived.tags, &way);
    }
    tables.count(arrived.place as u32, reason, bytes);
    Ok(Outcome { reason, way })
}

/// How it ended to look for a packet's flow. A number: see [`either`].
enum Ended {
    /// So did the packet's way.
    For(Reason),
    /// It has none.
    WithoutFlow,
    /// It is an ICMP error about one.
    AsError,
}

impl From<Reason> for Ended {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self::For(reason)
    }
}

/// Sends an ICMP error about a flow on. Not from within the subprogram that has found the flow, as it needs much room by itself.
#[inline(always)]
fn forward_any_error<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &mut P,
    tables: &T,
    way: &mut Way,
) -> Reason {
    let ended = FamilyTables::<A>::with_scratch(tables, |scratch: &mut Scratch<A>| {
        match scratch.step.mode {
            MODE_NAT => forward_error(packet, scratch, way),
            MODE_ACROSS => error_across(packet, scratch, way),
            _ => forward_direct(packet, scratch, way),
        }
    });
    ended.unwrap_or(Reason::TableFault)
}

/// A subprogram, as that of IPv6: what it needs room for, the other one does not.
#[inline(never)]
fn find_v4<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    arrived: &Arrived,
    bytes: u32,
    way: &mut Way,
) -> Ended {
    let ended = tables.with_scratch(|scratch: &mut Scratch<V4>| {
        find(packet, tables, scratch, arrived, bytes, way)
    });
    either(ended.unwrap_or(Err(Reason::TableFault)))
}

/// A subprogram, since each family has its own part of the stack.
#[inline(never)]
fn find_v6<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    arrived: &Arrived,
    bytes: u32,
    way: &mut Way,
) -> Ended {
    let ended = tables.with_scratch(|scratch: &mut Scratch<V6>| {
        find(packet, tables, scratch, arrived, bytes, way)
    });
    either(ended.unwrap_or(Err(Reason::TableFault)))
}

/// How it ended, well or not. A subprogram returns a scalar: the verifier minds what is left in the register otherwise.
#[inline(always)]
fn either<R: From<Reason>>(ended: Result<R, Reason>) -> R {
    ended.unwrap_or_else(R::from)
}

/// How a packet's way ended, if it is of a flow or ends before one is asked for; if not, what the next program is to know lies in the
/// scratch.
#[inline(always)]
fn find<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch<A>,
    arrived: &Arrived,
    bytes: u32,
    way: &mut Way,
) -> Result<Ended, Reason> {
    if scratch.arrival.known == KNOWN_NOTHING {
        read(packet, tables, scratch)?;
    }
    let kind = scratch.transport.kind;
    if kind == Kind::Error {
        find_quoted(packet, tables, scratch)?;
        scratch.arrival.known = KNOWN_ROUTED;
    } else if kind == Kind::Other {
        find_none(packet, tables, scratch)?;
        scratch.arrival.known = KNOWN_ROUTED;
    } else {
        find_flow(packet, tables, scratch)?;
        scratch.arrival.known = KNOWN_NO_FLOW;
    }
    if !scratch.step.is_flow {
        scratch.came.note(packet, arrived, bytes);
        return Ok(Ended::WithoutFlow);
    }
    FamilyTables::<A>::find_way(tables, scratch);
    // Here and not there: the verifier knows one state after a subprogram, and many within.
    if scratch.ip.is_first_fragment() {
        fragments::tell_where_awaited(tables, scratch);
    }
    lower_size(packet, scratch)?;
    // Read again, so that the verifier knows no more of it than in other cases and goes through `find_way` once for all.
    if scratch.transport.kind == Kind::Error {
        return Ok(Ended::AsError);
    }
    let mode = scratch.step.mode;
    forward(packet, tables, scratch, mode, way).map(Ended::For)
}

/// Lowers the size that a flow's SYN announces, or looks at what an INIT of SCTP says.
#[inline(always)]
fn lower_size<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    if scratch.ip.protocol == SCTP {
        sctp::prepare(packet, scratch)
    } else if scratch.transport.flags & TCP_SYN != 0 && scratch.step.mss != 0 {
        mss::lower(packet, scratch).ok_or(Reason::WriteFault)
    } else {
        Ok(())
    }
}

/// Sends a flow's packet on, which reaches its backend in this way.
#[inline(always)]
fn forward<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch<A>,
    mode: u32,
    way: &mut Way,
) -> Result<Reason, Reason> {
    match mode {
        MODE_NAT => Ok(forward_flow_apart(packet, scratch, way)),
        MODE_ACROSS => Ok(forward_across(packet, tables, scratch, way)),
        _ => Ok(forward_direct(packet, scratch, way)),
    }
}

/// Has a packet routed that belongs to no flow whatever its addresses are, or kept, if it is a fragment that may be of one.
#[inline(always)]
fn find_none<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    if packet.segment_payload() != 0 {
        return Err(Reason::MergedSegments);
    }
    let Err(reason) = find_no_flow(tables, scratch) else { return Ok(()) };
    let is_for_vip = reason == Reason::FragmentToVip;
    if !is_for_vip && reason != Reason::FragmentKept {
        return Err(reason);
    }
    let ended = fragments::keep(packet, tables, scratch, is_for_vip);
    if ended == Reason::Forwarded { Ok(()) } else { Err(ended) }
}

/// Reads what a packet carries, whatever it is.
#[inline(always)]
fn read<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    read_header(packet, scratch)?;
    if !A::IS_V6 && P::unlinked(scratch.ip.transport_at()) != ETHERNET_LEN + A::HEADER_LEN {
        source_route::check(packet, tables, scratch)?;
    }
    read_transport(packet, tables, scratch)
}

/// The flow that a packet belongs to, in `scratch.step`, if it is of one.
#[inline(always)]
fn find_flow<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    note_arrival(scratch, packet.frame_len());
    if scratch.arrival.known != KNOWN_FLOW {
        serve(tables, scratch)?;
        if scratch.step.news & ANEW != 0 {
            FamilyTables::<A>::hear_anew(tables, scratch)?;
        }
        if scratch.step.news != 0 {
            FamilyTables::<A>::hear(tables, scratch)?;
            if scratch.step.news & STATE_CONFIRMED != 0 {
                leave_half_open(tables, scratch);
            }
        }
    }
    if scratch.step.is_flow && scratch.ip.is_first_fragment() {
        fragments::note(tables, scratch);
    }
    Ok(())
}

#[inline(never)]
fn read_header<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    scratch.ip = A::header(packet)?;
    Ok(())
}

#[inline(never)]
fn read_transport<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    scratch.transport = transport(packet, tables, &mut scratch.ip)?;
    Ok(())
}

/// Notes what the choice of a flow knows of the packet; nothing is decided yet, unless the program before has.
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
        let is_first =
            arrival.is_first_of_connection() && entry.direction() == DIRECTION_TO_BACKEND;
        let asks = if is_first { tables.asked_anew(&entry, key.protocol()) } else { 0 };
        if asks & BEGINS_ANEW == 0 {
            step.follow(&entry, state);
            step.direction = entry.direction();
            step.is_flow = true;
            if arrival.flags & TCP_SYN != 0 {
                step.mss = entry.mss();
            }
            let counts = tables.counts(entry.line()).ok_or(Reason::TableFault)?;
            if !entry.is_same() {
                return Err(Reason::FlowExpiring);
            }
            entry.touch(now);
            (step.news, step.seen) = (said(tables, arrival, &entry, state, asks), state);
            // Before its end is told.
            if tables.samples_every() != 0 && state & STATE_SAMPLED != 0 {
                sample::count(tables, arrival, step);
            }
            tables.count_flow_packet(counts, step.direction, arrival.bytes);
            return Ok(());
        }
        end(tables, key, &entry)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
