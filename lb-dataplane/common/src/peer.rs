//! A flow's other direction: the entry of the packets that answer those of an entry, in whichever family's table it is.
//!
//! An entry says where its packets go, so the packets that answer them come from there: their key is what the translation
//! makes, the other way round.

use crate::family::{Family, protocol_across};
use crate::flow::{
    Counted, DIRECTION_TO_CLIENT, Flow, FlowKey, STATE_ACROSS, Translation, remove_to_backend,
};
use crate::tables::{FamilyTables, Tables, TablesOf};

/// The entry that is where a flow's other direction is to be, unless the flow is claimed meanwhile; [`leads_to`] says whether it
/// is that.
#[inline(always)]
pub fn find<A: Family, T: TablesOf<A>>(
    tables: &T,
    key: &FlowKey<A>,
    entry: &T::Flow,
) -> Option<T::Flow> {
    find_by::<A, T, false>(tables, key, entry)
}

/// The same without a call.
#[inline(always)]
pub fn find_at_once<A: Family, T: TablesOf<A>>(
    tables: &T,
    key: &FlowKey<A>,
    entry: &T::Flow,
) -> Option<T::Flow> {
    find_by::<A, T, true>(tables, key, entry)
}

#[inline(always)]
fn find_by<A: Family, T: TablesOf<A>, const AT_ONCE: bool>(
    tables: &T,
    key: &FlowKey<A>,
    entry: &T::Flow,
) -> Option<T::Flow> {
    let found = if entry.seen() & STATE_ACROSS == 0 {
        find_in::<A, T, AT_ONCE>(tables, &answers(&entry.translation(), key.protocol))
    } else {
        let peer = answers_across::<A>(&entry.translation(), key.protocol);
        find_in::<A::Other, T, AT_ONCE>(tables, &peer)
    };
    // What was looked for has been read before.
    if entry.is_same() { found } else { None }
}

#[inline(always)]
fn find_in<A: Family, T: FamilyTables<A>, const AT_ONCE: bool>(
    tables: &T,
    key: &FlowKey<A>,
) -> Option<T::Flow> {
    if AT_ONCE { tables.flow_at_once(key) } else { tables.flow(key) }
}

/// Removes a flow's other direction. This CPU has claimed both, and the entry that leads there is still in place. `counted` is
/// of the entry to the backend, whichever this is.
#[inline(always)]
pub fn remove<A: Family, T: TablesOf<A>>(
    tables: &T,
    key: &FlowKey<A>,
    entry: &T::Flow,
    counted: Counted,
) {
    let to_backend = entry.direction() == DIRECTION_TO_CLIENT;
    if entry.seen() & STATE_ACROSS == 0 {
        let peer = answers(&entry.translation(), key.protocol);
        remove_as::<A, T>(tables, &peer, to_backend, counted);
    } else {
        let peer = answers_across::<A>(&entry.translation(), key.protocol);
        remove_as::<A::Other, T>(tables, &peer, to_backend, counted);
    }
}

/// Removes the direction to the client of an entry to the backend: [`remove`] for who knows which one there is.
#[inline(always)]
pub fn remove_to_client<A: Family, T: TablesOf<A>>(tables: &T, key: &FlowKey<A>, entry: &T::Flow) {
    if entry.seen() & STATE_ACROSS == 0 {
        let peer = answers::<A>(&entry.translation(), key.protocol);
        tables.remove_flow(&peer);
    } else {
        let peer = answers_across::<A>(&entry.translation(), key.protocol);
        tables.remove_flow(&peer);
    }
}

#[inline(always)]
fn remove_as<A: Family, T: Tables + FamilyTables<A>>(
    tables: &T,
    key: &FlowKey<A>,
    to_backend: bool,
    counted: Counted,
) {
    if to_backend {
        remove_to_backend(tables, key, counted);
    } else {
        tables.remove_flow(key);
    }
}

/// Whether the packets of an entry's peer are answered by those of the entry's own key.
#[inline(always)]
pub fn leads_to<A: Family>(peer: &impl Flow, entry: &impl Flow, key: &FlowKey<A>) -> bool {
    (peer.seen() ^ entry.seen()) & STATE_ACROSS == 0 && leads_back_to(peer, key)
}

/// Whether the packets of an entry are answered by those of a key, if they are of its family.
#[inline(always)]
pub fn leads_back_to<A: Family>(entry: &impl Flow, back: &FlowKey<A>) -> bool {
    let to: Translation<A> = entry.translation();
    to.source == back.destination
        && to.destination == back.source
        && to.source_port == back.destination_port
        && to.destination_port == back.source_port
}

/// The key of packets that answer translated ones.
#[inline(always)]
pub fn answers<A: Family>(to: &Translation<A>, protocol: u16) -> FlowKey<A> {
    to.key_after(protocol).reversed()
}

/// The same where packets of A are translated to the other family, and `protocol` is theirs.
#[inline(always)]
pub fn answers_across<A: Family>(to: &Translation<A::Other>, protocol: u16) -> FlowKey<A::Other> {
    answers(to, protocol_across::<A>(protocol as u8).into())
}
