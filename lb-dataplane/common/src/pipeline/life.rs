//! A flow's life, as its packets tell it.

use super::Arrival;
use crate::age::has_lost_its_backend;
use crate::family::{Family, V6};
use crate::flow::{
    Counted, DIRECTION_TO_BACKEND, DIRECTION_TO_CLIENT, Flow, FlowKey, SCTP, STATE_BACKEND_FIN,
    STATE_BACKEND_RESET, STATE_CLAIMED, STATE_CLIENT_FIN, STATE_CLIENT_RESET, STATE_CLOSING,
    STATE_CONFIRMED, STATE_GOING, STATE_MODE, STATE_REPLIED, STATE_RESETS, TCP, count_out,
    remove_to_backend,
};
use crate::parse::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};
use crate::peer;
use crate::reason::Reason;
use crate::sctp;
use crate::tables::{Tables, TablesOf};

/// Ticks of silence after which a SYN that no backend answered chooses anew: its backend may have gone.
const UNANSWERED_SYN_TICKS: u32 = 2;

/// Whether a client's SYN ends the flow that it belongs to and begins another: that one was closing, its backend has left
/// the SYNs before it unanswered, or is lost.
#[inline(always)]
pub(super) fn begins_anew<A: Family, T: Tables>(
    tables: &T,
    entry: &impl Flow,
    state: u32,
    arrival: &Arrival<A>,
    now: u32,
) -> bool {
    arrival.is_first_of_connection()
        && entry.direction() == DIRECTION_TO_BACKEND
        && (state & STATE_CLOSING != 0
            || state & STATE_REPLIED == 0 && entry.idle(now) >= UNANSWERED_SYN_TICKS
            || has_lost_its_backend(tables, entry))
}

/// Whether a client's SYN may end a flow that ageing has marked, and begin another: one that was closing. Its ports are free
/// for the client to use again, and dropping the SYN would cost it a second.
#[inline(always)]
pub(super) fn may_replace<A: Family>(entry: &impl Flow, state: u32, arrival: &Arrival<A>) -> bool {
    state & STATE_CLAIMED == 0
        && state & STATE_CLOSING != 0
        && entry.direction() == DIRECTION_TO_BACKEND
        && arrival.is_first_of_connection()
}

/// Ends a flow, the direction to the client first.
#[inline(always)]
pub(super) fn end<A: Family, T: TablesOf<A>>(
    tables: &T,
    to_backend: &FlowKey<A>,
    entry: &T::Flow,
) -> Result<(), Reason> {
    let back = peer::find(tables, to_backend, entry);
    claim(entry)?;
    let counted = Counted::of(entry);
    if let Some(back) = back
        && peer::leads_to(&back, entry, to_backend)
        && back.claim(0)
    {
        peer::remove_to_client(tables, to_backend, entry);
    }
    remove_to_backend(tables, to_backend, counted);
    Ok(())
}

/// Takes it upon this CPU to remove an entry. That to the backend is claimed before that to the client.
#[inline(always)]
pub(crate) fn claim(entry: &impl Flow) -> Result<(), Reason> {
    if entry.claim(0) { Ok(()) } else { Err(Reason::FlowExpiring) }
}

/// Notes in both directions what this packet says of the flow's life. Most packets say nothing new.
#[inline(always)]
pub(super) fn observe<A: Family, T: TablesOf<A>>(
    tables: &T,
    arrival: &Arrival<A>,
    entry: &T::Flow,
    state: u32,
) -> Result<(), Reason> {
    let to_client = entry.direction() == DIRECTION_TO_CLIENT;
    let is_tcp = arrival.key.protocol() == TCP;
    let is_sctp = arrival.key.protocol() == SCTP;
    let flags = if is_tcp {
        arrival.flags
    } else if is_sctp {
        sctp::genuine_flags(tables, arrival, entry) as u8
    } else {
        0
    };
    let has_handshake = is_tcp || is_sctp;
    // Who asks twice says nothing of an answer: echoes stay half-open, and end one another.
    let goes_on = !has_handshake && arrival.key.protocol() != A::ICMP;
    let acknowledges = flags & (TCP_SYN | TCP_ACK) == TCP_ACK;
    let is_direct = state & STATE_MODE != 0;
    let mut bits = match (to_client, flags & TCP_FIN != 0) {
        (true, true) => STATE_REPLIED | STATE_BACKEND_FIN,
        (true, false) => STATE_REPLIED,
        (false, true) => STATE_CLIENT_FIN,
        (false, false) => 0,
    };
    if flags & TCP_RST != 0 {
        bits |= if to_client { STATE_BACKEND_RESET } else { STATE_CLIENT_RESET };
    } else if !to_client {
        if is_direct {
            // What the backend sends is not seen here: a client that goes on has had an answer.
            if goes_on || acknowledges {
                bits |= STATE_REPLIED | STATE_CONFIRMED;
            }
        } else if state & STATE_REPLIED != 0
            && (goes_on || acknowledges && (is_sctp || answers(arrival, entry)))
        {
            bits |= STATE_CONFIRMED;
        }
        // Only TCP's may be forged: an ABORT had the association's tag, and stands.
        if is_tcp && state & STATE_CLIENT_RESET != 0 {
            take_reset_back(tables, arrival, entry);
        }
    }
    note_acknowledged(arrival, entry, state | bits);
    if bits & !state == 0 {
        return Ok(());
    }
    let peer = peer::find(tables, &arrival.key, entry);
    if let Some(peer) = &peer
        && to_client
        && !is_sctp
        && state & STATE_REPLIED == 0
        && !peer.set_first_reply(u32::from_be(arrival.sequence))
    {
        return Err(Reason::FlowExpiring);
    }
    // Another CPU may have taken the flow away since its state was read: then it is not confirmed any more.
    if entry.set_state(bits) & STATE_GOING != 0 {
        return Err(Reason::FlowExpiring);
    }
    if let Some(peer) = &peer {
        peer.set_state(bits);
    }
    // Once both entries say it: of two CPUs that close a side each, one finds both closed in the entry to the backend.
    close(tables, arrival, entry);
    Ok(())
}

/// Forgets a client's RST, since the client goes on. A subprogram, as is the next: the caller's stack has no room.
#[inline(never)]
fn take_reset_back<A: Family, T: TablesOf<A>>(
    tables: &T,
    arrival: &Arrival<A>,
    to_backend: &T::Flow,
) -> u32 {
    to_backend.clear_state(STATE_CLIENT_RESET);
    if let Some(to_client) = peer::find(tables, &arrival.key, to_backend) {
        to_client.clear_state(STATE_CLIENT_RESET);
    }
    0
}

/// Counts the flow out if this packet, or one before, has closed it.
#[inline(never)]
fn close<A: Family, T: TablesOf<A>>(tables: &T, arrival: &Arrival<A>, entry: &T::Flow) -> u32 {
    if entry.state() & STATE_CLOSING == 0 {
        return 0;
    }
    if entry.direction() != DIRECTION_TO_CLIENT {
        return count_out(tables, arrival.key.protocol(), entry, arrival.key.source.to_v6());
    }
    let client = entry.translation::<V6>().destination;
    match peer::find(tables, &arrival.key, entry) {
        Some(to_backend) => count_out(tables, arrival.key.protocol(), &to_backend, client),
        None => 0,
    }
}

/// Notes what a packet acknowledges, if that is the number of a RST to its sender. Also where its flow is about to be removed:
/// the packet is dropped, but its sender expects what it says.
#[inline(always)]
pub(super) fn note_acknowledged<A: Family>(arrival: &Arrival<A>, entry: &impl Flow, state: u32) {
    note_acknowledgement(arrival.flags, arrival.acknowledged, entry, state);
}

/// The same, given what the packet says.
#[inline(always)]
pub(super) fn note_acknowledgement(flags: u8, acknowledged: u32, entry: &impl Flow, state: u32) {
    if state & STATE_RESETS != 0
        && flags & TCP_ACK != 0
        && (entry.direction() == DIRECTION_TO_CLIENT || state & STATE_CONFIRMED != 0)
    {
        entry.note_acknowledged(u32::from_be(acknowledged));
    }
}

/// Whether a client's segment acknowledges what the backend sent first, or thereabouts: then the client has seen it. Who
/// guesses is right once in 2,048 times.
#[inline(always)]
fn answers<A: Family>(arrival: &Arrival<A>, entry: &impl Flow) -> bool {
    const WINDOW: u32 = 1 << 20;
    let ahead = u32::from_be(arrival.acknowledged).wrapping_sub(entry.first_reply());
    ahead.wrapping_add(WINDOW) < 2 * WINDOW
}
