//! The source ports of flows that come from addresses of ours.

use super::insert::{Composed, turn_back};
use super::overdue;
use crate::checksum::Delta;
use crate::family::{Family, V6};
use crate::flow::{self, FlowEntry, FlowKey};
use crate::hash::FlowHash;
use crate::pipeline::Scratch;
use crate::reason::Reason;
use crate::service::{MODE_ACROSS, SourceEntry};
use crate::tables::{FamilyTables, InsertError, Rounds, Tables, TablesOf};

/// Addresses of a backend at most of which each is asked for a free port before any flow has to make room: as many as a VIP may
/// have.
const ADDRESSES: u32 = 16;
/// Rows of ports that are tried once each address has been asked: at one address 64 ports in all. With nine of ten in use, chance alone
/// would fail a flow once in a thousand times.
const ROWS: u32 = 15;
/// Ports of a row.
pub(super) const PORTS_IN_A_ROW: u32 = 4;

/// Inserts the direction to the client for a flow that comes from an address of ours: the entry is what reserves the port
/// there, so no two flows to a backend share one. Each CPU begins elsewhere and goes on port by port, so that a port rests for
/// as long as possible before it is used again. A few ports in a row, since another CPU may have used many.
/// What is tried next goes on behind them: where all ports are taken, those that were closed longest ago are there.
#[inline(always)]
pub(super) fn insert_back_of_row<A: Family, F: Family, T: Tables + FamilyTables<F>>(
    tables: &T,
    key: &FlowKey<A>,
    source: &SourceEntry,
    after: &mut FlowKey<V6>,
    entry: &mut FlowEntry,
    back: &mut FlowKey<F>,
) -> Result<(), Reason> {
    let mut tries = 0;
    while tries < PORTS_IN_A_ROW {
        tries += 1;
        turn_back_from(key, source, after, entry, back);
        take_port(tables, source, after, entry, back);
        match flow::insert(tables, back, entry) {
            Ok(()) => return Ok(()),
            Err(InsertError::Full) => return Err(Reason::FlowTableFull),
            Err(InsertError::Exists) => {}
        }
    }
    Err(Reason::NoSourcePort)
}

/// Turns an entry to the direction to the client from an address of ours, whose port is still to be taken.
#[inline(always)]
fn turn_back_from<A: Family, F: Family>(
    key: &FlowKey<A>,
    source: &SourceEntry,
    after: &mut FlowKey<V6>,
    entry: &mut FlowEntry,
    back: &mut FlowKey<F>,
) {
    after.source = V6::from_bytes(source.address);
    after.source_port = 0;
    turn_back(key, after, entry, back);
}

/// Takes the next port of an address, which is all that differs from one try to the next.
#[inline(always)]
fn take_port<F: Family, T: Tables>(
    tables: &T,
    source: &SourceEntry,
    after: &mut FlowKey<V6>,
    entry: &mut FlowEntry,
    back: &mut FlowKey<F>,
) {
    let port = tables.next_number() % (u32::from(source.more_ports) + 1);
    let port = source.first_port.wrapping_add(port as u16).to_be();
    after.source_port = port;
    back.destination_port = port;
    entry.translation.ports = entry.translation.ports.and(Delta::of([port], [0]));
}

/// What [`super::insert::insert_back`] does where the first row of ports had no free one: others are looked for, in two passes. First a
/// row at each other address, for what is free. Then more rows, for what is free or as good as over. A subprogram of its own: the verifier
/// counts the room of all that call one another, and minds ever after what one branch alone has written into a stack.
///
/// # Errors
///
/// As for [`super::insert::insert_back`].
#[inline(never)]
pub fn find_port<A: Family, T: TablesOf<A>>(
    tables: &T,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    let mut search = Search { scratch, ended: GOES_ON };
    tables.repeat((ADDRESSES + ROWS) * PORTS_IN_A_ROW, &mut search);
    match search.ended {
        FOUND => Ok(()),
        FULL => Err(Reason::FlowTableFull),
        GOES_ON => {
            tables.count_exhausted(search.scratch.made.entry.line);
            Err(Reason::NoSourcePort)
        }
        _ => Err(Reason::TableFault),
    }
}

/// Looks for a port, a port each round.
struct Search<'a, A: Family> {
    scratch: &'a mut Scratch<A>,
    /// How it ended. A word, so that the verifier knows its values.
    ended: u32,
}

const GOES_ON: u32 = 0;
const FOUND: u32 = 1;
const FULL: u32 = 2;
const FAULT: u32 = 3;

impl<A: Family, T: TablesOf<A>> Rounds<T> for Search<'_, A> {
    #[inline(always)]
    fn round(&mut self, tables: &T, number: u32) -> bool {
        // The first one has had its row.
        let row = 1 + number / PORTS_IN_A_ROW;
        let addresses = self.scratch.made.sources.len().min(ADDRESSES);
        if row >= addresses + ROWS {
            return false;
        }
        self.ended = try_port(tables, self.scratch, row);
        if self.ended == GOES_ON && row >= addresses && make_room(tables, self.scratch) != 0 {
            self.ended = try_port_again(tables, self.scratch);
        }
        if number % PORTS_IN_A_ROW == PORTS_IN_A_ROW - 1 {
            tables.jump_numbers();
        }
        self.ended == GOES_ON
    }
}

/// Tries the next port of the address whose turn it is in a row. A subprogram, as those that follow: what they need room for is
/// not needed by the next.
#[inline(never)]
fn try_port<A: Family, T: TablesOf<A>>(tables: &T, scratch: &mut Scratch<A>, row: u32) -> u32 {
    let Scratch { arrival, step, made, .. } = scratch;
    if made.sources.is_empty() {
        return FAULT;
    }
    let index = FlowHash::of(&arrival.key).for_route().wrapping_add(row) % made.sources.len();
    let Some(source) = tables.source(made.sources.base().wrapping_add(index)) else { return FAULT };
    let Composed { entry, after, back, back_across, .. } = made;
    if step.mode == MODE_ACROSS {
        turn_back_from(&arrival.key, source, after, entry, back_across);
        take_port(tables, source, after, entry, back_across);
        ended(flow::insert(tables, back_across, entry))
    } else {
        turn_back_from(&arrival.key, source, after, entry, back);
        take_port(tables, source, after, entry, back);
        ended(flow::insert(tables, back, entry))
    }
}

/// Has the flow make room that has the port that was tried; not zero if it did.
#[inline(always)]
fn make_room<A: Family, T: TablesOf<A>>(tables: &T, scratch: &Scratch<A>) -> u32 {
    let Scratch { step, made, .. } = scratch;
    if step.mode == MODE_ACROSS {
        overdue::make_room::<A::Other, T>(tables, &made.back_across)
    } else {
        overdue::make_room::<A, T>(tables, &made.back)
    }
}

/// Tries the port again that was tried last.
#[inline(never)]
fn try_port_again<A: Family, T: TablesOf<A>>(tables: &T, scratch: &mut Scratch<A>) -> u32 {
    let Scratch { step, made, .. } = scratch;
    let Composed { entry, back, back_across, .. } = made;
    ended(if step.mode == MODE_ACROSS {
        flow::insert(tables, back_across, entry)
    } else {
        flow::insert(tables, back, entry)
    })
}

#[inline(always)]
fn ended(inserted: Result<(), InsertError>) -> u32 {
    match inserted {
        Ok(()) => FOUND,
        Err(InsertError::Exists) => GOES_ON,
        Err(InsertError::Full) => FULL,
    }
}
