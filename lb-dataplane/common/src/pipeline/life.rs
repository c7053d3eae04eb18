//! A flow's life, as its packets tell it.

use super::{Arrival, Scratch, Step};
use crate::family::{Family, V6};
use crate::flow::{
    Counted, DIRECTION_TO_BACKEND, DIRECTION_TO_CLIENT, Flow, FlowKey, SCTP, STATE_BACKEND_FIN,
    STATE_BACKEND_RESET, STATE_BITS, STATE_CLAIMED, STATE_CLIENT_FIN, STATE_CLIENT_RESET,
    STATE_CLOSING, STATE_CONFIRMED, STATE_COUNTED_OUT, STATE_EXPIRING, STATE_GOING, STATE_MODE,
    STATE_REPLIED, STATE_RESETS, STATE_TAG, TCP, count_client, is_closed, opening,
    remove_to_backend,
};
use crate::parse::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, is_answer_to_first};
use crate::peer;
use crate::reason::Reason;
use crate::sctp;
use crate::service::MODE_ACROSS;
use crate::tables::{FamilyTables, Tables, TablesOf};

/// Ticks of silence after which a SYN that no backend answered chooses anew: its backend may have gone.
const UNANSWERED_SYN_TICKS: u32 = 2;

/// What a client's SYN means for the flow that it belongs to. `BEGINS_ANEW`: the flow is known to be closed, or its backend has left
/// a SYN unanswered, so another one begins. By way of [`Tables::asked_anew`].
///
/// Anybody may have sent a FIN or RST, and the SYN, too. So it goes where the connection may be, whose answer tells
/// (RFC 5961 §4): an acknowledgement, and the flow lives on; or a SYN, and the flow [begins again](crate::flow::reopen).
///
/// Where that answer is not seen, nothing is ever known to be closed. The backend sees it all the same, and takes a new connection or
/// keeps its old one; but if it takes no new ones, a sign of the end has to do, or clients would keep it busy that use their ports again.
#[inline(always)]
pub fn asked_anew<T: Tables>(tables: &T, entry: &impl Flow, protocol: u8) -> u32 {
    let state = entry.seen();
    let is_direct = state & STATE_MODE != 0;
    let is_closing = state & STATE_CLOSING != 0;
    let backend = tables.backend(tables.backend_of(entry.line()));
    let is_lost = backend.is_none_or(|backend| backend.is_lost());
    // What ageing has marked it has found silent for as long as may be; SCTP's signs had their association's tag.
    let is_over =
        state & STATE_EXPIRING != 0 || is_closed(protocol, state) || is_closing && protocol == SCTP;
    let takes_none = || backend.is_none_or(|backend| !backend.takes_new_flows_of(entry.service()));
    let is_unanswered = state & STATE_REPLIED == 0
        && entry.idle(tables.now()) >= UNANSWERED_SYN_TICKS
        && (!is_direct || state & STATE_CONFIRMED == 0 || is_lost);
    if is_over || is_unanswered || is_direct && is_closing && takes_none() {
        BEGINS_ANEW
    } else if state & STATE_REPLIED != 0 && (is_closing || is_lost) {
        ASKS_ANEW
    } else {
        0
    }
}

/// Whether a client's SYN may end a flow that ageing has marked, and begin another: one that was closing. It has been silent for as long
/// as such a one may be, its ports are free for the client to use again, and dropping the SYN would cost it a second.
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

/// Of what a packet says, beside bits of `STATE_*`: its client goes on with a flow that counts nowhere, or after a sign of its end.
const GOES_ON: u32 = 1 << 16;
const TAKES_BACK: u32 = 1 << 17;
/// Its client asks for a connection where there may be none any more, or the backend answers that with a new one.
const ASKS_ANEW: u32 = 1 << 18;
const ANSWERS_ANEW: u32 = 1 << 19;
pub(super) const ANEW: u32 = ASKS_ANEW | ANSWERS_ANEW;
/// Another flow begins.
pub(super) const BEGINS_ANEW: u32 = 1 << 20;

/// What a packet says of its flow's life, for [`hear`]; 0 if that is nothing new, as with most.
#[inline(always)]
pub(super) fn said<A: Family, T: TablesOf<A>>(
    tables: &T,
    arrival: &Arrival<A>,
    entry: &T::Flow,
    state: u32,
    asks: u32,
) -> u32 {
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
    let mut bits = match (to_client, flags & (TCP_FIN | TCP_RST)) {
        (true, 0) => STATE_REPLIED,
        (true, TCP_FIN) => STATE_REPLIED | STATE_BACKEND_FIN,
        // One that acknowledges nothing says that what it answers was of no connection, which who sent that may have meant.
        (true, _) if is_tcp && flags & TCP_ACK == 0 => STATE_CLIENT_RESET,
        (true, _) => STATE_BACKEND_RESET,
        (false, 0) => 0,
        (false, TCP_FIN) => STATE_CLIENT_FIN,
        (false, _) => STATE_CLIENT_RESET,
    };
    let mut more = asks | answers_anew(entry.direction(), flags, state);
    if flags & (TCP_RST | TCP_SYN) == 0 && !to_client {
        if is_direct {
            // What the backend sends is not seen here: a client that goes on has had an answer.
            if goes_on || acknowledges {
                bits |= STATE_REPLIED | STATE_CONFIRMED;
                // If it was asked for again.
                more |= ((state / STATE_CONFIRMED) & !state & STATE_REPLIED) * ANSWERS_ANEW;
            }
        } else if state & STATE_REPLIED != 0
            && (goes_on || acknowledges && (is_sctp || answers(arrival.acknowledged, entry)))
        {
            bits |= STATE_CONFIRMED;
        }
        if flags & TCP_FIN == 0 && (is_tcp || flags != 0) && state & STATE_COUNTED_OUT != 0 {
            more |= GOES_ON;
        }
        // Only TCP's may be forged: an ABORT had the association's tag, and stands.
        if is_tcp && state & STATE_CLIENT_RESET != 0 {
            more |= TAKES_BACK;
        }
    }
    note_acknowledged(arrival, entry, state | bits);
    if bits & !state | more == 0 { 0 } else { bits | more }
}

/// [`ANSWERS_ANEW`] where a packet of the backend is a SYN, and there was a sign of the end. Without branches, of which the verifier would
/// walk both.
#[inline(always)]
fn answers_anew(direction: u8, flags: u8, state: u32) -> u32 {
    let is_closing = (state / STATE_CLIENT_FIN)
        | (state / STATE_BACKEND_FIN)
        | (state / STATE_BACKEND_RESET)
        | (state / STATE_CLIENT_RESET);
    (u32::from((flags / TCP_SYN) & direction) & is_closing & 1) * ANSWERS_ANEW
}

/// Notes in both directions what a packet has said of its flow's life, as `step.news` has it. By way of
/// [`FamilyTables::hear`].
///
/// # Errors
///
/// The reason for which the flow does not go on by this packet.
#[inline(always)]
pub fn hear<A: Family, T: TablesOf<A>>(tables: &T, scratch: &mut Scratch<A>) -> Result<(), Reason> {
    write_key_to_backend(scratch);
    let Scratch { arrival, step, made, .. } = scratch;
    let key = &made.after;
    let bits = step.news & STATE_BITS;
    let protocol = arrival.key.protocol();
    let to_client = step.direction == DIRECTION_TO_CLIENT;
    // Looked up again: to be handed it would need room that the caller has not.
    let entry = tables.flow(&arrival.key).ok_or(Reason::FlowExpiring)?;
    let state = entry.seen();
    // Its key may be another flow's by now.
    if (state ^ step.seen) & STATE_TAG != 0 {
        return Err(Reason::FlowExpiring);
    }
    let peer = peer::find(tables, &arrival.key, &entry);
    let to_backend = if to_client { peer.as_ref() } else { Some(&entry) };
    let new = bits & !state;
    let opener = opening(protocol);
    let opens = new & opener != 0;
    if let Some(to_backend) = to_backend
        && (opens || step.news & GOES_ON != 0)
    {
        let mut admitted = tables.admit(key, to_backend, bits)?;
        if admitted != 0 && count_client(tables, key, to_backend.counted_as()) == 0 {
            if opens {
                return Err(Reason::ClientsFull);
            }
            // It goes on, and is not its client's: others may have filled the table since it was counted out.
            admitted = 0;
        }
        tables.count_in(key, to_backend, bits | admitted)?;
    }
    if step.news & TAKES_BACK != 0 {
        entry.clear_state(STATE_CLIENT_RESET);
        if let Some(to_client) = &peer {
            to_client.clear_state(STATE_CLIENT_RESET);
        }
    }
    if let Some(to_backend) = &peer
        && to_client
        && protocol != SCTP
        && new & STATE_REPLIED != 0
        && !to_backend.set_first_reply(u32::from_be(arrival.sequence))
    {
        return Err(Reason::FlowExpiring);
    }
    // What opens it the entry to the backend says already, or does not say any more: no bit of that without its count.
    let is_of_backend = 0_u32.wrapping_sub(step.direction.into());
    // Another CPU may have taken the flow away since its state was read: then it is not confirmed any more.
    if entry.set_state(new & !(opener & !is_of_backend)) & STATE_GOING != 0 {
        return Err(Reason::FlowExpiring);
    }
    let before = peer.as_ref().map_or(0, |peer| peer.set_state(new & !(opener & is_of_backend)));
    step.place = peer.as_ref().unwrap_or(&entry).first_reply();
    // Once both entries say it: of two CPUs that close a side each, one finds both closed in the entry to the backend.
    // Where other CPUs have kept one from saying so there, the other entry says it.
    let said = (entry.state() | before) & STATE_CLOSING;
    if let Some(to_backend) = to_backend
        && said != 0
    {
        tables.count_out(key, to_backend, said, false);
    }
    Ok(())
}

/// Has the flow leave its place among the half-open ones, once [`hear`] has it confirmed. Not within that: what it needs room for is not
/// needed by what that calls.
#[inline(never)]
pub(super) fn leave_half_open<A: Family, T: TablesOf<A>>(tables: &T, scratch: &Scratch<A>) -> u32 {
    FamilyTables::<A>::leave_half_open(tables, scratch.step.place, &scratch.arrival.key);
    0
}

/// Notes in both directions what a packet has said of a connection in the place of the flow's, before [`hear`] has the rest of it. By way
/// of [`FamilyTables::hear_anew`].
///
/// # Errors
///
/// As for [`hear`].
#[inline(always)]
pub fn hear_anew<A: Family, T: TablesOf<A>>(
    tables: &T,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    write_key_to_backend(scratch);
    let Scratch { arrival, step, made, .. } = scratch;
    let entry = tables.flow(&arrival.key).ok_or(Reason::FlowExpiring)?;
    if (entry.seen() ^ step.seen) & STATE_TAG != 0 {
        return Err(Reason::FlowExpiring);
    }
    if step.seen & STATE_MODE != 0 {
        let is_asked = step.news & ASKS_ANEW != 0;
        entry.clear_state(if is_asked { STATE_REPLIED } else { STATE_CLIENT_FIN });
        return Ok(());
    }
    let Some(peer) = peer::find(tables, &arrival.key, &entry) else { return Ok(()) };
    if step.news & ASKS_ANEW != 0 {
        // A backend that has just spoken may hold its answer back (RFC 5961 §7): nothing would follow from its silence.
        if peer.idle(tables.now()) >= UNANSWERED_SYN_TICKS {
            entry.clear_state(STATE_REPLIED);
            peer.clear_state(STATE_REPLIED);
        }
        return Ok(());
    }
    if arrival.key.protocol() != TCP || !is_answer_to_first(arrival.flags) {
        return Ok(());
    }
    tables.reopen(&made.after, &peer)?;
    if entry.state() & STATE_CLOSING != 0 {
        entry.clear_state(STATE_CLOSING | STATE_CONFIRMED);
    }
    if peer.set_first_reply(u32::from_be(arrival.sequence)) {
        Ok(())
    } else {
        Err(Reason::FlowExpiring)
    }
}

/// Writes the key of the flow's packets to its backend where nothing is made of it otherwise.
#[inline(never)]
fn write_key_to_backend<A: Family>(scratch: &mut Scratch<A>) -> u32 {
    scratch.made.after = key_to_backend(&scratch.arrival, &scratch.step);
    0
}

/// The key of the flow's packets to its backend.
#[inline(always)]
pub(crate) fn key_to_backend<A: Family>(arrival: &Arrival<A>, step: &Step<A>) -> FlowKey<V6> {
    let protocol = arrival.key.protocol;
    if step.direction == DIRECTION_TO_BACKEND {
        arrival.key.to_v6()
    } else if step.mode == MODE_ACROSS {
        peer::answers_across::<A>(&step.across, protocol).to_v6()
    } else {
        peer::answers(&step.translation, protocol).to_v6()
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

/// Whether a client's segment, given its number, acknowledges what the backend sent first, or thereabouts: then the client has seen it. Who
/// guesses is right once in 2,048 times.
#[inline(always)]
pub(super) fn answers(acknowledged: u32, entry: &impl Flow) -> bool {
    const WINDOW: u32 = 1 << 20;
    let ahead = u32::from_be(acknowledged).wrapping_sub(entry.first_reply());
    ahead.wrapping_add(WINDOW) < 2 * WINDOW
}
