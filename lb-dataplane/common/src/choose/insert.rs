//! A new flow's two entries.

use super::{client, overdue};
use crate::checksum::Delta;
use crate::family::{Family, V6};
use crate::flow::{
    self, Counted, DIRECTION_TO_BACKEND, DIRECTION_TO_CLIENT, Flow, FlowEntry, FlowKey,
    STATE_ACROSS, STATE_CLIENT_COUNTED, STATE_CLOSING, STATE_GOING, STATE_MODE, Translation,
    counted_client, remove_to_backend,
};
use crate::hash::FlowHash;
use crate::peer;
use crate::pipeline::{Scratch, claim};
use crate::reason::Reason;
use crate::service::{Affinity, MODE_ACROSS, SourceEntry};
use crate::tables::{FamilyTables, InsertError, Tables, TablesOf};

/// Inserts the direction to the client. `NoSourcePort` is not the last word: [`find_port`] has it.
///
/// # Errors
///
/// The reason for which there is no way back.
#[inline(never)]
pub fn insert_back<A: Family, T: TablesOf<A>>(
    tables: &T,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    let Scratch { arrival, made, .. } = scratch;
    let is_direct = made.entry.state & STATE_MODE != 0;
    let keeps_client = is_direct || made.sources_len == 0;
    if keeps_client && arrival.key.source.to_v6() == made.after.destination {
        return Err(Reason::OwnBackend);
    }
    made.entry.draw(tables);
    if is_direct {
        return Ok(());
    }
    made.entry.direction = DIRECTION_TO_CLIENT;
    if made.sources_len == 0 {
        return insert_back_of_client(tables, &arrival.key, made);
    }
    insert_back_from_rows(tables, scratch, 0, 1)
}

/// What [`insert_back`] does where the first row of ports had no free one: a flow that is as good as over makes room, or there is
/// one elsewhere. No part of it: the verifier counts the room of all that call one another.
///
/// # Errors
///
/// As for [`insert_back`].
#[inline(always)]
pub fn find_port<A: Family, T: TablesOf<A>>(
    tables: &T,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    if make_room(tables, scratch) != 0 && insert_back_there(tables, scratch) != 0 {
        return Ok(());
    }
    match insert_back_elsewhere(tables, scratch) {
        Err(Reason::NoSourcePort) => {}
        ended => return ended,
    }
    if make_room(tables, scratch) != 0 && insert_back_there(tables, scratch) != 0 {
        return Ok(());
    }
    tables.count_exhausted(scratch.made.entry.service, scratch.made.entry.backend);
    Err(Reason::NoSourcePort)
}

/// Has a flow make room for the port that was tried last; not zero if it did.
#[inline(always)]
fn make_room<A: Family, T: TablesOf<A>>(tables: &T, scratch: &Scratch<A>) -> u32 {
    let Scratch { step, made, .. } = scratch;
    if step.mode == MODE_ACROSS {
        overdue::make_room::<A::Other, T>(tables, &made.back_across)
    } else {
        overdue::make_room::<A, T>(tables, &made.back)
    }
}

/// Tries the port again that was tried last; not zero if the entry is there now.
#[inline(never)]
fn insert_back_there<A: Family, T: TablesOf<A>>(tables: &T, scratch: &mut Scratch<A>) -> u32 {
    let Scratch { step, made, .. } = scratch;
    let Composed { entry, back, back_across, .. } = made;
    let inserted = if step.mode == MODE_ACROSS {
        flow::insert(tables, back_across, entry)
    } else {
        flow::insert(tables, back, entry)
    };
    u32::from(inserted.is_ok())
}

#[inline(never)]
fn insert_back_elsewhere<A: Family, T: TablesOf<A>>(
    tables: &T,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    insert_back_from_rows(tables, scratch, 1, ROWS)
}

#[inline(always)]
fn insert_back_from_rows<A: Family, T: TablesOf<A>>(
    tables: &T,
    scratch: &mut Scratch<A>,
    first: u32,
    end: u32,
) -> Result<(), Reason> {
    let Scratch { arrival, step, made, .. } = scratch;
    let key = &arrival.key;
    let sources = Sources {
        base: made.sources_base,
        len: made.sources_len,
        first: FlowHash::of(key).for_route(),
        rows: [first, end],
    };
    let Composed { entry, after, back, back_across, .. } = made;
    if step.mode == MODE_ACROSS {
        insert_back_of_sources(tables, key, sources, after, entry, back_across)
    } else {
        insert_back_of_sources(tables, key, sources, after, entry, back)
    }
}

/// Inserts the direction to the backend, after the one back: an answer that finds none would reach the client from the
/// backend's own address. The flow is not new if another CPU has just begun it.
///
/// # Errors
///
/// The reason for which there is no flow.
#[inline(never)]
pub fn insert<A: Family, T: TablesOf<A>>(
    tables: &T,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    let Scratch { arrival, step, made, .. } = scratch;
    let key = &arrival.key;
    let is_direct = made.entry.state & STATE_MODE != 0;
    if step.mode == MODE_ACROSS {
        step.across = Translation::between(key, &FlowKey::from_v6(&made.after));
        made.entry.translation = step.across.to_v6();
    } else {
        step.translation = Translation::between(key, &FlowKey::from_v6(&made.after));
        if is_direct {
            // No port is 0, so that no entry is ever taken for this one's counterpart.
            step.translation.source_port = 0;
            step.translation.destination_port = 0;
        }
        made.entry.translation = step.translation.to_v6();
    }
    made.entry.direction = DIRECTION_TO_BACKEND;
    made.entry.first_reply = 0;
    match flow::insert(tables, key, &mut made.entry) {
        Ok(()) => {
            tables.count_new_flow(made.entry.service, made.entry.backend);
            step.is_new = true;
            if made.entry.state & STATE_CLIENT_COUNTED != 0 {
                tables.count_client(&counted_client(tables, made.entry.service, key.source));
            }
            if made.affinity != 0 {
                let client = client(made.entry.service, key.source);
                let affinity = Affinity { backend: made.entry.backend, begun: tables.now() };
                tables.note_affinity(&client, &affinity);
            }
        }
        Err(InsertError::Full) => {
            if !is_direct {
                made.take_back(tables);
                return Err(Reason::FlowTableFull);
            }
            if made.when_full == 0 {
                return Err(Reason::FlowTableFull);
            }
        }
        // Another CPU has had a packet of this flow at the same time; its choice stands.
        Err(InsertError::Exists) => {
            let first = tables.flow(key).ok_or(Reason::FlowCollision)?;
            let is_answered = is_direct || made.is_answered_by(&first);
            step.follow(&first, first.seen());
            step.begins = false;
            made.entry.backend = first.backend();
            if first.seen() & STATE_GOING != 0 || !first.is_same() {
                // The direction to the client, if it is of nobody, is ageing's to remove.
                return Err(Reason::FlowExpiring);
            }
            if !is_answered {
                made.take_back(tables);
            }
        }
    }
    step.direction = DIRECTION_TO_BACKEND;
    step.mss = made.entry.mss;
    step.is_flow = true;
    let Composed { entry, .. } = made;
    tables.count_flow_packet(entry.service, entry.backend, DIRECTION_TO_BACKEND, arrival.bytes);
    Ok(())
}

/// Where a new flow's entries are made.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Composed<A: Family> {
    /// The entry, of one direction and then of the other.
    pub entry: FlowEntry,
    /// The key that packets to the backend have behind us, IPv4 mapped into IPv6.
    pub after: FlowKey<V6>,
    /// The key of packets from the backend.
    pub back: FlowKey<A>,
    /// The same if they are of the other family.
    pub back_across: FlowKey<A::Other>,
    /// The key to a backend of a flow that is in the way.
    pub there: FlowKey<A>,
    /// The backend's source addresses, as `BackendEntry` has them.
    pub sources_base: u32,
    /// How many there are.
    pub sources_len: u32,
    /// For how many ticks the service remembers its clients.
    pub affinity: u32,
    /// Not zero where the packet goes on without a flow if there is no room for one.
    pub when_full: u8,
    /// What the client hears if no source port is free, as `ServiceEntry` has it.
    pub on_exhaustion: u8,
    /// Zero.
    pub pad: [u8; 2],
}

impl<A: Family> Composed<A> {
    #[inline(always)]
    fn is_across(&self) -> bool {
        self.entry.state & STATE_ACROSS != 0
    }

    /// Removes the direction to the client.
    #[inline(always)]
    fn take_back<T: TablesOf<A>>(&self, tables: &T) {
        if self.is_across() {
            remove_alone(tables, &self.back_across);
        } else {
            remove_alone(tables, &self.back);
        }
    }

    /// Whether the direction to the client is that of an entry to a backend.
    #[inline(always)]
    fn is_answered_by(&self, entry: &impl Flow) -> bool {
        if self.is_across() {
            entry.seen() & STATE_ACROSS != 0 && peer::leads_back_to(entry, &self.back_across)
        } else {
            entry.seen() & STATE_ACROSS == 0 && peer::leads_back_to(entry, &self.back)
        }
    }
}

/// Removes an entry to the client whose flow has no other, unless another CPU does.
#[inline(always)]
fn remove_alone<A: Family, T: FamilyTables<A>>(tables: &T, key: &FlowKey<A>) {
    if let Some(entry) = tables.flow(key)
        && entry.claim(0)
    {
        tables.remove_flow(key);
    }
}

/// Turns an entry to the direction to the client, whose packets are of a family F.
#[inline(always)]
fn turn_back<A: Family, F: Family>(
    key: &FlowKey<A>,
    after: &FlowKey<V6>,
    entry: &mut FlowEntry,
    back: &mut FlowKey<F>,
) {
    *back = FlowKey::<F>::from_v6(after).reversed();
    entry.translation = Translation::between(back, &key.reversed()).to_v6();
}

/// Rows of ports that are tried for a new flow.
const ROWS: u32 = 16;
/// Ports of a row. 64 in all: with nine of ten in use, chance alone would fail a flow once in a thousand times.
const PORTS_IN_A_ROW: u32 = 4;

/// The addresses that a flow may come from, as `SOURCES` has them.
#[derive(Clone, Copy)]
struct Sources {
    base: u32,
    /// Not zero.
    len: u32,
    /// Which one is tried first, beyond the last one again from the first.
    first: u32,
    /// Which rows of ports are tried: from one on up to another.
    rows: [u32; 2],
}

/// Inserts the direction to the client for a flow that comes from an address of ours: the entry is what reserves the port
/// there, so no two flows to a backend share one. Each CPU begins elsewhere and goes on port by port, so that a port rests for
/// as long as possible before it is used again. A few ports in a row, since another CPU may have used many; then elsewhere,
/// at the next address if there are several.
#[inline(always)]
fn insert_back_of_sources<A: Family, F: Family, T: Tables + FamilyTables<F>>(
    tables: &T,
    key: &FlowKey<A>,
    sources: Sources,
    after: &mut FlowKey<V6>,
    entry: &mut FlowEntry,
    back: &mut FlowKey<F>,
) -> Result<(), Reason> {
    if sources.len == 0 {
        return Err(Reason::TableFault);
    }
    let [mut rows, end] = sources.rows;
    while rows < end {
        // No comparison with the last one: the verifier would walk the rows for each place that it happens at.
        let index = sources.first.wrapping_add(rows) % sources.len;
        rows += 1;
        let source = tables.source(sources.base.wrapping_add(index)).ok_or(Reason::TableFault)?;
        after.source = V6::from_bytes(source.address);
        after.source_port = 0;
        turn_back(key, after, entry, back);
        match insert_back_of_row(tables, source, after, entry, back) {
            Ok(()) => return Ok(()),
            Err(InsertError::Full) => return Err(Reason::FlowTableFull),
            Err(InsertError::Exists) => {}
        }
        tables.jump_numbers();
    }
    Err(Reason::NoSourcePort)
}

#[inline(always)]
fn insert_back_of_row<F: Family, T: Tables + FamilyTables<F>>(
    tables: &T,
    source: &SourceEntry,
    after: &mut FlowKey<V6>,
    entry: &mut FlowEntry,
    back: &mut FlowKey<F>,
) -> Result<(), InsertError> {
    // What the port adds is all that changes from one try to the next.
    let without_port = entry.translation.ports;
    let mut tries = 0;
    while tries < PORTS_IN_A_ROW {
        tries += 1;
        let port = tables.next_number() % (u32::from(source.more_ports) + 1);
        let port = source.first_port.wrapping_add(port as u16).to_be();
        after.source_port = port;
        back.destination_port = port;
        entry.translation.ports = without_port.and(Delta::of([port], [0]));
        match flow::insert(tables, back, entry) {
            Err(InsertError::Exists) => {}
            ended => return ended,
        }
    }
    Err(InsertError::Exists)
}

/// Inserts the direction to the client for a flow that keeps its client's address. An entry that is there already is this
/// flow's own, what a closing flow left (it makes room), or a live flow of the same client port through another service:
/// two flows that a backend cannot tell apart.
#[inline(always)]
fn insert_back_of_client<A: Family, T: TablesOf<A>>(
    tables: &T,
    key: &FlowKey<A>,
    made: &mut Composed<A>,
) -> Result<(), Reason> {
    turn_back(key, &made.after, &mut made.entry, &mut made.back);
    match flow::insert(tables, &made.back, &mut made.entry) {
        Ok(()) => return Ok(()),
        Err(InsertError::Full) => return Err(Reason::FlowTableFull),
        Err(InsertError::Exists) => {}
    }
    if let Some(old) = tables.flow(&made.back) {
        let state = old.seen();
        if state & STATE_GOING != 0 {
            return Err(Reason::FlowExpiring);
        }
        if state & STATE_ACROSS != 0 {
            return Err(Reason::FlowCollision);
        }
        made.there = peer::answers(&old.translation(), made.back.protocol);
        if !old.is_same() {
            return Err(Reason::FlowExpiring);
        }
        if state & STATE_CLOSING == 0 {
            return if made.there == *key { Ok(()) } else { Err(Reason::FlowCollision) };
        }
        match tables.flow(&made.there) {
            Some(there) if peer::leads_back_to(&there, &made.back) => {
                claim(&there)?;
                let counted = Counted::of(&there);
                if old.claim(0) {
                    tables.remove_flow(&made.back);
                }
                remove_to_backend(tables, &made.there, counted);
            }
            // The one back was left alone.
            Some(_) | None => {
                claim(&old)?;
                tables.remove_flow(&made.back);
            }
        }
    }
    match flow::insert(tables, &made.back, &mut made.entry) {
        Ok(()) => Ok(()),
        Err(InsertError::Full) => Err(Reason::FlowTableFull),
        Err(InsertError::Exists) => Err(Reason::FlowCollision),
    }
}
