//! The short way: packets of established flows, of which nothing is to be decided but what their entry and the FIB say.
//!
//! It takes what most packets are: whole and without options, of TCP without SYN, FIN and RST or of UDP, of a confirmed flow that
//! is translated, into the other family too, to a next hop whose MAC is known, in a plain frame; and the two segments that [open](opening)
//! a connection. What it takes ends as it would have ended in the programs that follow; what it does not take it leaves as it was, and
//! what it has read and found is in the scratch, so that they need not look for it again. The first segment of a connection it reads,
//! too: where that has no flow, the next program is the one in which flows begin.
//!
//! It is a program of its own, in which nothing is a subprogram: the return of one costs more than most of them do.

mod across;
mod opening;

use super::life::note_acknowledgement;
use super::{
    Arrived, KNOWN_FLOW, KNOWN_HEADERS, KNOWN_NO_FLOW, KNOWN_NOTHING, Next, Outcome, Scratch, Way,
};
use crate::encapsulation::Encapsulation;
use crate::family::{Family, V4, V6, word};
use crate::fib::{MEMBER_RESOLVED, MEMBER_TO_PEER, MEMBER_WITHOUT_XDP, MemberEntry, Route};
use crate::flow::{
    DIRECTION_TO_BACKEND, Flow, FlowKey, STATE_ACROSS, STATE_BITS, STATE_CLIENT_COUNTED,
    STATE_CONFIRMED, STATE_MODE, STATE_REPLIED, STATE_RESETS, TCP, Translation, UDP, mode_of,
};
use crate::hash::FlowHash;
use crate::packet::Packet;
use crate::parse::{
    ETHERNET_LEN, Ip, Kind, LEAST_TCP_WORDS, TCP_FIN, TCP_RST, TCP_SYN, Transport, Version,
    is_answer_to_first, is_first_of_connection, plain_ethernet,
};
use crate::reason::Reason;
use crate::rewrite;
use crate::service::{MODE_ACROSS, MODE_NAT};
use crate::tables::{FamilyTables, Tables, TablesOf};

/// The state of a flow that no packet changes but one that begins its end: not closing, and not watched.
const ESTABLISHED: u32 = STATE_REPLIED | STATE_CONFIRMED;
/// Bits of a state that may have any value then.
const ANY: u32 = !STATE_BITS | STATE_CLIENT_COUNTED | STATE_RESETS | STATE_MODE | STATE_ACROSS;

/// A packet that may be of an established flow: all that the short way reads of it.
struct Segment<A, P: Packet> {
    /// Its IP header but for the addresses, which the key has.
    header: Ip<()>,
    /// All of its headers but TCP's options.
    near: P::Near,
    key: FlowKey<A>,
    /// TCP's flags, and its acknowledgement number in network byte order; 0 for UDP.
    flags: u8,
    acknowledged: u32,
}

impl<A: Family, P: Packet> Segment<A, P> {
    /// Its IP header. The addresses are in one place only, since the stack has little room.
    #[inline(always)]
    fn ip(&self) -> Ip<A> {
        self.header.with_addresses(self.key.source, self.key.destination)
    }
}

/// Sends a packet on, counted, if it is one of those that go the short way; else says where it goes on.
///
/// # Errors
///
/// The next program.
#[inline(always)]
pub fn forward_established<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
) -> Result<Outcome, Next> {
    match plain_ethernet(packet) {
        Some(Version::V4) => forward::<V4, P, T>(packet, tables),
        Some(Version::V6) => forward::<V6, P, T>(packet, tables),
        None => {
            know_nothing(tables);
            Err(Next::Find)
        }
    }
}

/// The end of a packet for which the next program is not there, counted: a fault of the table that leads to it.
#[inline(always)]
pub fn end_without_next<P: Packet, T: Tables>(packet: &P, tables: &T) -> Outcome {
    let reason = Reason::TableFault;
    tables.count(packet.interface_place(), reason, packet.frame_len());
    Outcome { reason, way: Way::default() }
}

/// Has the next program begin from the start, whatever that finds the frame to be.
#[inline(always)]
pub(super) fn know_nothing<T: Tables>(tables: &T) {
    tables.with_scratch(|scratch: &mut Scratch<V4>| scratch.arrival.known = KNOWN_NOTHING);
    tables.with_scratch(|scratch: &mut Scratch<V6>| scratch.arrival.known = KNOWN_NOTHING);
}

#[inline(always)]
fn forward<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &mut P,
    tables: &T,
) -> Result<Outcome, Next> {
    let sent = match A::plain_header(packet) {
        Some(ip) if ip.protocol == TCP => forward_segment::<A, P, T, true>(packet, tables, ip),
        Some(ip) if ip.protocol == UDP => forward_segment::<A, P, T, false>(packet, tables, ip),
        Some(_) | None => Err(Unread),
    };
    sent.unwrap_or_else(|_| {
        leave(tables, Next::Find, |scratch: &mut Scratch<A>| {
            scratch.arrival.known = KNOWN_NOTHING;
        })
    })
}

/// Nothing has been read that is of use to the next program.
struct Unread;

/// For each protocol by itself: told apart again further on, the verifier would have one at the place of the other.
#[inline(always)]
fn forward_segment<A: Family, P: Packet, T: TablesOf<A>, const IS_TCP: bool>(
    packet: &mut P,
    tables: &T,
    ip: Ip<A>,
) -> Result<Result<Outcome, Next>, Unread> {
    let segment = read::<A, P, IS_TCP>(packet, ip).ok_or(Unread)?;
    let key = &segment.key;
    let entry = FamilyTables::<A>::flow_at_once(tables, key);
    // One that has a flow has the addresses of the packet that began it, or goes back to a client, who may be on its own link only.
    let is_odd = match entry {
        None => A::check_addresses(key.source, key.destination).is_err(),
        Some(_) => key.destination.is_link_local(),
    };
    if is_odd {
        return Err(Unread);
    }
    Ok(forward_by_flow::<A, P, T, IS_TCP>(packet, tables, &segment, entry))
}

#[inline(always)]
fn forward_by_flow<A: Family, P: Packet, T: TablesOf<A>, const IS_TCP: bool>(
    packet: &mut P,
    tables: &T,
    segment: &Segment<A, P>,
    entry: Option<T::Flow>,
) -> Result<Outcome, Next> {
    let hand_over = hand_over::<A, P, IS_TCP>;
    let Some(entry) = entry else {
        let bytes = packet.frame_len();
        let arrived = Arrived { place: packet.interface_place().into(), tags: 0 };
        return leave(tables, Next::begin::<A>(), |scratch| {
            scratch.came.note(packet, &arrived, bytes);
            hand_over(packet, segment, scratch, KNOWN_NO_FLOW);
        });
    };
    let state = entry.seen();
    if state & !ANY != ESTABLISHED || segment.flags & TCP_SYN != 0 {
        if IS_TCP && let Some(outcome) = opening::forward(packet, tables, segment, &entry) {
            return Ok(outcome);
        }
        return leave(tables, Next::Find, |scratch| {
            hand_over(packet, segment, scratch, KNOWN_HEADERS);
        });
    }
    let sent = match mode_of(state) {
        MODE_NAT => translate::<A, P, T, IS_TCP>(packet, tables, segment, &entry, || true),
        MODE_ACROSS => across::translate::<A, P, T, IS_TCP>(packet, tables, segment, &entry),
        _ => None,
    };
    if let Some(outcome) = sent {
        return Ok(outcome);
    }
    leave(tables, Next::Find, |scratch| {
        scratch.step.follow(&entry, state);
        let (counts, direction) = (tables.counts(entry.line()), entry.direction());
        let Some(counts) = counts.filter(|_| entry.is_same()) else {
            return hand_over(packet, segment, scratch, KNOWN_HEADERS);
        };
        note(packet, tables, segment, &entry, (counts, direction));
        scratch.step.direction = direction;
        scratch.step.is_flow = true;
        scratch.step.begins = false;
        scratch.step.is_new = false;
        hand_over(packet, segment, scratch, KNOWN_FLOW);
    })
}

/// Sends a packet on by its flow's entry, unless that asks for more than a rewrite, or what else is to be noted of it cannot be; then the
/// packet is as it was.
#[inline(always)]
fn translate<A: Family, P: Packet, T: TablesOf<A>, const IS_TCP: bool>(
    packet: &mut P,
    tables: &T,
    segment: &Segment<A, P>,
    entry: &T::Flow,
    note_more: impl FnOnce() -> bool,
) -> Option<Outcome> {
    let Segment { header, key, .. } = segment;
    let to: Translation<A> = entry.translation();
    let counted @ (_, direction) = (tables.counts(entry.line())?, entry.direction());
    let sent = (tables.end_of_flow(packet.interface_place(), direction)?, direction);
    let route = A::route(tables, to.destination, || FlowHash::of(key).for_route());
    let Route::Forward(member) = route else { return None };
    if !is_plain::<P>(&member)
        || header.ttl <= 1
        || header.total_len > u32::from(member.mtu)
        || !entry.is_same()
        || !note_more()
    {
        return None;
    }
    note(packet, tables, segment, entry, counted);
    let is_written = write::<A, P, IS_TCP>(packet, segment, &to, &member).is_some();
    let reason = end_as(packet, tables, is_written, sent, packet.frame_len());
    Some(Outcome { reason, way: way_by(&member) })
}

/// Counts how a packet of a flow ended: sent on, where that is counted, if it was written.
#[inline(always)]
fn end_as<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    is_written: bool,
    sent: (T::End, u8),
    bytes: u32,
) -> Reason {
    let (end, direction) = sent;
    if !is_written {
        tables.count(packet.interface_place(), Reason::WriteFault, bytes);
        return Reason::WriteFault;
    }
    tables.count_end(end, bytes);
    if direction == DIRECTION_TO_BACKEND {
        Reason::ForwardedToBackend
    } else {
        Reason::ForwardedToClient
    }
}

/// The way out by a plain member.
#[inline(always)]
fn way_by(member: &MemberEntry) -> Way {
    let resolve = u32::from(member.flags & MEMBER_TO_PEER);
    Way { ifindex: member.ifindex, resolve, ..Way::default() }
}

/// Bytes of a transport's header, without TCP's options.
const fn header_len(is_tcp: bool) -> u32 {
    if is_tcp { 20 } else { 8 }
}

/// What a packet's transport says, if that is nothing of its flow's end; it is in reach then.
#[inline(always)]
fn read<A: Family, P: Packet, const IS_TCP: bool>(packet: &P, ip: Ip<A>) -> Option<Segment<A, P>> {
    let at = ETHERNET_LEN + A::HEADER_LEN;
    let len = header_len(IS_TCP);
    if A::HEADER_LEN + len > ip.total_len {
        return None;
    }
    let near = packet.reach(at + len)?;
    let (mut flags, mut acknowledged) = (0, 0);
    if IS_TCP {
        let [a, b, offset_and_flags] = packet.load(near, at + 8);
        let [offset, all] = offset_and_flags.to_ne_bytes();
        let begins = is_first_of_connection(all) || is_answer_to_first(all);
        let says_more = all & (TCP_SYN | TCP_FIN | TCP_RST) != 0 && !begins;
        if offset >> 4 < LEAST_TCP_WORDS || says_more {
            return None;
        }
        (flags, acknowledged) = (all, word([a, b]));
    }
    let [source_port, destination_port] = packet.load(near, at);
    let key = FlowKey {
        source: ip.source,
        destination: ip.destination,
        source_port,
        destination_port,
        protocol: u16::from(if IS_TCP { TCP } else { UDP }),
        pad: 0,
    };
    Some(Segment { header: ip.with_addresses((), ()), near, key, flags, acknowledged })
}

/// Notes a packet of a flow, and counts it for its backend.
#[inline(always)]
fn note<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &P,
    tables: &T,
    segment: &Segment<A, P>,
    entry: &T::Flow,
    (counts, direction): (T::Counts, u8),
) {
    entry.touch(tables.now());
    note_acknowledgement(segment.flags, segment.acknowledged, entry, entry.seen());
    tables.count_flow_packet(counts, direction, packet.frame_len());
}

/// Whether frames go out by a member as they are, to a MAC that is known.
#[inline(always)]
fn is_plain<P: Packet>(member: &MemberEntry) -> bool {
    let minded = if P::RESOLVES_NEIGHBOURS { 0 } else { MEMBER_WITHOUT_XDP };
    member.flags & (MEMBER_RESOLVED | minded) == MEMBER_RESOLVED
        && Encapsulation::decode(member.encapsulation) == Encapsulation::None
}

#[inline(always)]
fn write<A: Family, P: Packet, const IS_TCP: bool>(
    packet: &mut P,
    segment: &Segment<A, P>,
    to: &Translation<A>,
    member: &MemberEntry,
) -> Option<()> {
    let (ip, near) = (&segment.ip(), segment.near);
    let at = ETHERNET_LEN + A::HEADER_LEN;
    let end = ETHERNET_LEN + ip.total_len;
    let change = rewrite::transport_change(ip, at, to, IS_TCP, end);
    let near = packet.renew_checksum(near, change, at + header_len(IS_TCP))?;
    packet.store(near, at, [to.source_port, to.destination_port]);
    A::write_hop(packet, near, ip, to);
    packet.store(near, 0, rewrite::mac_words(member.destination_mac, member.source_mac));
    Some(())
}

/// Leaves a packet to the next program, and what is known of it in the scratch.
#[inline(always)]
fn leave<A: Family, T: TablesOf<A>>(
    tables: &T,
    next: Next,
    tell: impl FnOnce(&mut Scratch<A>),
) -> Result<Outcome, Next> {
    FamilyTables::<A>::with_scratch(tables, tell);
    Err(next)
}

/// Puts the headers into the scratch, and what is known beside them.
#[inline(always)]
fn hand_over<A: Family, P: Packet, const IS_TCP: bool>(
    packet: &P,
    segment: &Segment<A, P>,
    scratch: &mut Scratch<A>,
    known: u8,
) {
    let Segment { near, key, flags, acknowledged, .. } = segment;
    let (mut kind, mut header_len, mut sequence) = (Kind::Udp, header_len(false), 0);
    if IS_TCP {
        let [a, b, _, _, offset_and_flags] = packet.load(*near, ETHERNET_LEN + A::HEADER_LEN + 4);
        let [offset, _] = offset_and_flags.to_ne_bytes();
        (kind, header_len, sequence) = (Kind::Tcp, u32::from(offset >> 4) * 4, word([a, b]));
    }
    scratch.ip = segment.ip();
    scratch.transport = Transport {
        kind,
        flags: *flags,
        header_len,
        sequence,
        acknowledged: *acknowledged,
        source_port: key.source_port,
        destination_port: key.destination_port,
    };
    scratch.arrival.known = known;
}
