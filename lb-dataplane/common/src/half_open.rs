//! The bound on half-open flows: those whose client has not yet answered its backend, so that anybody may have forged it.
//!
//! Every flow begins with a place in a ring of its CPU. Whoever comes when the ring has gone round takes the place of the
//! one that has been there longest, and ends it if it is still half-open. So a flood of forged SYNs or datagrams ends half-open
//! flows only, and takes no more of the flow table than the rings have places. A flow costs one write more than without,
//! and needs no second table to be looked up, moved from or aged.

use crate::family::{Family, V4};
use crate::flow::{
    Counted, DIRECTION_TO_BACKEND, Flow, FlowKey, STATE_CONFIRMED, STATE_GOING, remove_to_backend,
    ticks_since,
};
use crate::peer;
use crate::sample::EVICTED;
use crate::tables::TablesOf;

/// A place in a ring: value of `HALF_OPEN` and `HALF_OPEN6`. All zeroes is an empty one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct HalfOpen<A> {
    /// The direction to the backend.
    pub key: FlowKey<A>,
    /// The tick in which the flow began.
    pub begun: u32,
    /// Zero.
    pub pad: u32,
}

/// Gives a flow that begins a place, and ends the one whose place it was.
#[inline(never)]
pub fn enter<A: Family, T: TablesOf<A>>(tables: &T, key: &FlowKey<A>) {
    let now = tables.now();
    let Some(old) = tables.enter_half_open(key, now) else { return };
    // It may be this flow's own, begun anew.
    let is_another = old.key.protocol != 0 && old.key != *key;
    // A flow that has been there for longer is not half-open any more, or ageing's to remove.
    if is_another && ticks_since(old.begun, now) <= tables.half_open_timeout() {
        end(tables, &old.key);
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
    tables.count_evicted(counted.service, counted.backend);
}

const _: () = assert!(size_of::<HalfOpen<V4>>() == 24);

#[cfg(test)]
mod tests;
