//! The short way of what opens a connection: the backend's answer to its SYN, and the segment by which its client answers that.
//!
//! They say something of their flow's life, which [`hear`](crate::pipeline::hear) notes for any packet. Here it is noted where that
//! is all there is to it: nothing else was said of the flow before, nobody watches it, and it is under no bound.

use super::{Segment, translate};
use crate::family::{Family, word};
use crate::flow::{
    DIRECTION_TO_CLIENT, Flow, STATE_BITS, STATE_CONFIRMED, STATE_GOING, STATE_REPLIED, count_in,
};
use crate::packet::Packet;
use crate::parse::{ETHERNET_LEN, TCP_ACK, TCP_SYN, is_answer_to_first};
use crate::peer;
use crate::pipeline::Outcome;
use crate::pipeline::life::answers;
use crate::service::BACKEND_BOUNDED;
use crate::tables::{FamilyTables, TablesOf};

/// Sends a segment on that opens a connection, or answers the one that began it. Any other one is as it was then.
#[inline(always)]
pub(super) fn forward<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &mut P,
    tables: &T,
    segment: &Segment<A, P>,
    entry: &T::Flow,
) -> Option<Outcome> {
    let (said, flags) = (entry.seen() & STATE_BITS, segment.flags);
    if entry.direction() == DIRECTION_TO_CLIENT {
        // The size that it announces may have to be lowered.
        if said != 0 || !is_answer_to_first(flags) || entry.mss() != 0 {
            return None;
        }
        let sequence = word(packet.load(segment.near, ETHERNET_LEN + A::HEADER_LEN + 4));
        translate::<A, P, T, true>(packet, tables, segment, entry, || {
            answer(tables, segment, entry, u32::from_be(sequence)).is_some()
        })
    } else {
        let acknowledges = flags & (TCP_SYN | TCP_ACK) == TCP_ACK;
        if said != STATE_REPLIED || !acknowledges || !answers(segment.acknowledged, entry) {
            return None;
        }
        translate::<A, P, T, true>(packet, tables, segment, entry, || {
            open(tables, segment, entry).is_some()
        })
    }
}

/// Notes in both directions that the backend has answered, and by which number.
#[inline(always)]
fn answer<A: Family, P: Packet, T: TablesOf<A>>(
    tables: &T,
    segment: &Segment<A, P>,
    to_client: &T::Flow,
    number: u32,
) -> Option<()> {
    let to_backend = peer::find_at_once(tables, &segment.key, to_client)?;
    let is_noted =
        to_backend.answer(number) && to_client.set_state(STATE_REPLIED) & STATE_GOING == 0;
    is_noted.then_some(())
}

/// Notes in both directions that the client has answered, and counts the flow as an open one, unless that may be too many.
#[inline(always)]
fn open<A: Family, P: Packet, T: TablesOf<A>>(
    tables: &T,
    segment: &Segment<A, P>,
    to_backend: &T::Flow,
) -> Option<()> {
    let backend = tables.backend(tables.backend_of(to_backend.line()))?;
    if backend.flags & BACKEND_BOUNDED != 0 {
        return None;
    }
    let to_client = peer::find_at_once(tables, &segment.key, to_backend)?;
    count_in(tables, &segment.key, to_backend, STATE_CONFIRMED).ok()?;
    to_client.set_state(STATE_CONFIRMED);
    FamilyTables::<A>::leave_half_open(tables, to_client.first_reply(), &segment.key);
    Some(())
}
