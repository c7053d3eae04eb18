//! Source ports of flows that are over, but not yet for as long as their time-outs say, which may be set to RFC 5382's four
//! minutes: they give their ports up sooner where a new flow meets no free one.

use crate::family::Family;
use crate::flow::{
    Counted, DIRECTION_TO_CLIENT, Flow, FlowKey, STATE_BACKEND_FIN, STATE_BACKEND_RESET,
    STATE_CLIENT_FIN, STATE_CONFIRMED, STATE_GOING, STATE_REPLIED, TCP, seconds,
};
use crate::peer;
use crate::tables::TablesOf;

/// Ticks that a port rests after both sides have closed what they sent, or the backend has reset it.
const CLOSED_RESTS: u32 = seconds(10);
/// Those of a handshake that does not go on (RFC 7857 §2.1 allows less than four minutes).
const HANDSHAKE_RESTS: u32 = seconds(60);
/// Those of a datagram that no answer came to (RFC 4787 REQ-5: at least 2 minutes).
const UNANSWERED_RESTS: u32 = seconds(120);

/// Ends the flow whose answers have this key, if it is as good as over; not zero if the key is free then.
#[inline(never)]
pub(super) fn make_room<A: Family, T: TablesOf<A>>(tables: &T, back: &FlowKey<A>) -> u32 {
    let Some(to_client) = tables.flow(back) else { return 0 };
    // Most of those that are met are at work: their other direction need not be looked up.
    if to_client.direction() != DIRECTION_TO_CLIENT || to_client.idle(tables.now()) < CLOSED_RESTS {
        return 0;
    }
    let Some(to_backend) = peer::find(tables, back, &to_client) else { return 0 };
    if !peer::leads_to(&to_backend, &to_client, back) {
        return 0;
    }
    let now = tables.now();
    let state = to_client.seen() | to_backend.seen();
    let rests = rests(back.protocol(), state);
    if rests == 0 || to_client.idle(now) < rests || to_backend.idle(now) < rests {
        return 0;
    }
    // What either side says of it meanwhile, on whichever CPU, lets it live.
    let unless = (STATE_CONFIRMED | STATE_REPLIED) & !state;
    // As ageing has it: whoever claims the direction to the backend removes the flow.
    if !to_backend.claim(unless) {
        return 0;
    }
    if !to_client.claim(unless) {
        to_backend.release();
        return 0;
    }
    let counted = Counted::of(&to_backend);
    peer::remove(tables, back, &to_client, counted);
    tables.remove_flow(back);
    1
}

/// For how many ticks a flow must have been silent; 0 if its port is not to be had.
#[inline(always)]
fn rests(protocol: u8, state: u32) -> u32 {
    const BOTH_FIN: u32 = STATE_CLIENT_FIN | STATE_BACKEND_FIN;
    let is_tcp = protocol == TCP;
    if state & STATE_GOING != 0 {
        0
    } else if is_tcp && (state & STATE_BACKEND_RESET != 0 || state & BOTH_FIN == BOTH_FIN) {
        CLOSED_RESTS
    } else if is_tcp && state & STATE_CONFIRMED == 0 {
        HANDSHAKE_RESTS
    } else if !is_tcp && state & STATE_REPLIED == 0 {
        UNANSWERED_RESTS
    } else {
        0
    }
}
