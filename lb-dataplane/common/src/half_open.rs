//! The bound on half-open flows: those whose client has not yet answered its backend, so that anybody may have forged it.
//!
//! Every flow begins with a place in a ring of its CPU. Whoever comes when the ring has gone round takes the place of the
//! one that has been there longest, and ends it if it is still half-open. So a flood of forged SYNs or datagrams ends half-open
//! flows only, and takes no more of the flow table than the rings have places. A flow costs one write more than without,
//! and needs no second table to be looked up, moved from or aged.
//!
//! A flow that is confirmed leaves its place, so that who comes to it a round later need not look up, in memory that no cache has,
//! whether it is half-open: that is asked of what has stayed there. An entry says which place it was, where it has room for the number
//! ([`FlowEntry::first_reply`](crate::flow::FlowEntry::first_reply)); others' places are not left, and those flows are looked up.

use crate::family::Family;
use crate::flow::{
    Counted, DIRECTION_TO_BACKEND, Flow, FlowKey, STATE_CONFIRMED, STATE_GOING, remove_to_backend,
};
use crate::peer;
use crate::sample::EVICTED;
use crate::tables::TablesOf;

/// Gives a flow that begins a place, and ends the one whose place it was, however long ago it began: who repeats a SYN or sends
/// another datagram before each time-out stays half-open for as long as that goes on.
#[inline(never)]
pub fn enter<A: Family, T: TablesOf<A>>(tables: &T, key: &FlowKey<A>) {
    let Some(old) = tables.enter_half_open(key) else { return };
    // It may be this flow's own, begun anew.
    if old.protocol != 0 && old != *key {
        end(tables, &old);
    }
}

/// Ends a flow that is half-open. Claimed while it is not confirmed, it is nobody else's: no packet uses, confirms or replaces
/// it. The direction to the client goes first, so that no packet finds a way to the backend without a way back.
#[inline(always)]
fn end<A: Family, T: TablesOf<A>>(tables: &T, key: &FlowKey<A>) {
    let Some(entry) = tables.flow(key) else { return };
    if entry.direction() != DIRECTION_TO_BACKEND
        || entry.seen() & (STATE_CONFIRMED | STATE_GOING) != 0
    {
        return;
    }
    let back = peer::find(tables, key, &entry);
    if !entry.claim(STATE_CONFIRMED) {
        return;
    }
    let mut counted = Counted::of(&entry);
    counted.state |= EVICTED;
    if let Some(back) = back
        && peer::leads_to(&back, &entry, key)
        && back.claim(0)
    {
        peer::remove_to_client(tables, key, &entry);
    }
    remove_to_backend(tables, key, counted);
    tables.count_evicted(counted.line);
}

#[cfg(test)]
mod tests;
