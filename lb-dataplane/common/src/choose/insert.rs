//! A new flow's two entries.

use super::add::add;
use super::client;
use super::ports::{PORTS_IN_A_ROW, insert_back_of_row};
use crate::age::HALF_INSERTED_TICKS;
use crate::family::{Family, V6};
use crate::flow::{
    self, Counted, DIRECTION_TO_BACKEND, DIRECTION_TO_CLIENT, Flow, FlowEntry, FlowKey, SCTP,
    STATE_ACROSS, STATE_CLOSING, STATE_GENERATION, STATE_GOING, STATE_MODE, STATE_SAMPLED,
    STATE_TAG, Translation, is_closed, remove_to_backend,
};
use crate::hash::FlowHash;
use crate::peer;
use crate::pipeline::{Scratch, claim, note_without_flow};
use crate::reason::Reason;
use crate::service::{Affinity, MODE_ACROSS, SourceList, service_of};
use crate::tables::{FamilyTables, InsertError, TablesOf};

/// Inserts the direction to the client. `NoSourcePort` is not the last word: [`super::ports::find_port`] has it.
///
/// # Errors
///
/// The reason for which there is no way back.
#[inline(never)]
pub fn insert_back<A: Family, T: TablesOf<A>>(
    tables: &T,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    let Scratch { arrival, step, made, .. } = scratch;
    let is_direct = made.entry.state & STATE_MODE != 0;
    let keeps_client = is_direct || made.sources.is_empty();
    if keeps_client && arrival.key.source.to_v6() == made.after.destination {
        return Err(Reason::OwnBackend);
    }
    made.entry.draw(tables);
    if is_direct {
        return Ok(());
    }
    made.entry.direction = DIRECTION_TO_CLIENT;
    if made.sources.is_empty() {
        return insert_back_of_client(tables, &arrival.key, made);
    }
    let index = FlowHash::of(&arrival.key).for_route() % made.sources.len();
    let source =
        tables.source(made.sources.base().wrapping_add(index)).ok_or(Reason::TableFault)?;
    let Composed { entry, after, back, back_across, .. } = made;
    if step.mode == MODE_ACROSS {
        insert_back_of_row(tables, &arrival.key, source, after, entry, back_across)
    } else {
        insert_back_of_row(tables, &arrival.key, source, after, entry, back)
    }
}

/// What [`insert_back`] does for echoes that keep their client's address: they get an identifier of ours, since clients of some kinds
/// all use one, and a client may ask two VIPs that share a backend, or a backend itself.
///
/// # Errors
///
/// As for [`insert_back`]; `FlowCollision` where none of those tried was free.
#[inline(never)]
pub fn insert_back_of_echo<A: Family, T: TablesOf<A>>(
    tables: &T,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    let Scratch { arrival, made, .. } = scratch;
    if arrival.key.source.to_v6() == made.after.destination {
        return Err(Reason::OwnBackend);
    }
    made.entry.draw(tables);
    made.entry.direction = DIRECTION_TO_CLIENT;
    let Composed { entry, after, back, .. } = made;
    let mut tries = 0;
    while tries < PORTS_IN_A_ROW {
        tries += 1;
        after.source_port = tables.draw() as u16;
        turn_back(&arrival.key, after, entry, back);
        match flow::insert(tables, back, entry) {
            Ok(()) => return Ok(()),
            Err(InsertError::Full) => return Err(Reason::FlowTableFull),
            Err(InsertError::Exists) => {}
        }
    }
    Err(Reason::FlowCollision)
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
    if !is_direct || key.protocol() == SCTP {
        made.entry.first_reply = 0;
    }
    // No entry without the one back.
    let added = match made.without {
        0 => add(tables, key, &mut made.entry),
        _ => Err(InsertError::Full),
    };
    match added {
        Ok(None) => {
            tables.count_new_flow(made.entry.line, made.backend);
            // Who has inserted the way back may have taken it back since it was found.
            if made.shares_way_back != 0 && !made.has_way_back(tables, key) {
                end(tables, key, made.entry.state);
                return Err(Reason::FlowExpiring);
            }
            step.is_new = true;
            if made.affinity != 0 {
                let client = client(service_of(made.entry.counted_as), key.source);
                let affinity = Affinity { backend: made.backend, begun: tables.now() };
                tables.note_affinity(&client, &affinity);
            }
        }
        Err(InsertError::Full) => {
            if !is_direct && made.without == 0 && made.shares_way_back == 0 {
                made.take_back(tables, key);
            }
            if made.when_full == 0 {
                return Err(Reason::FlowTableFull);
            }
            if !is_direct {
                note_without_flow(tables, made.backend, key.protocol());
            }
        }
        Err(InsertError::Exists) => {
            if made.has_own_way_back() {
                made.take_back(tables, key);
            }
            return Err(Reason::FlowCollision);
        }
        // Another CPU has had a packet of this flow at the same time; its choice stands.
        Ok(Some(first)) => {
            let is_answered = is_direct || made.is_answered_by(&first);
            step.follow(&first, first.seen());
            step.begins = false;
            made.entry.line = first.line();
            let is_there = first.seen() & STATE_GOING == 0 && first.is_same();
            // What was read of one that is not says nothing.
            let is_ours = made.shares_way_back == 0 && is_there && !is_answered;
            if made.has_own_way_back() || is_ours {
                made.take_back(tables, key);
            }
            if !is_there {
                return Err(Reason::FlowExpiring);
            }
        }
    }
    step.direction = DIRECTION_TO_BACKEND;
    step.mss = made.entry.mss;
    step.is_flow = true;
    if let Some(counts) = tables.counts(made.entry.line) {
        tables.count_flow_packet(counts, DIRECTION_TO_BACKEND, arrival.bytes);
    }
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
    /// The backend.
    pub backend: u32,
    /// Its source addresses.
    pub sources: SourceList,
    /// For how many ticks the service remembers its clients.
    pub affinity: u32,
    /// Not zero where the packet goes on without a flow if there is no room for one.
    pub when_full: u8,
    /// What the client hears if no source port is free, as `ServiceEntry` has it.
    pub on_exhaustion: u8,
    /// Not zero where it does: there was no room for the direction to the client.
    pub without: u8,
    /// Not zero where the direction to the client was there already: another CPU begins the same flow, or nobody goes by it any more.
    pub shares_way_back: u8,
}

impl<A: Family> Composed<A> {
    #[inline(always)]
    fn is_across(&self) -> bool {
        self.entry.state & STATE_ACROSS != 0
    }

    /// Whether the direction to the client has a port or an identifier that was taken for it. If not, it is whoever's who begins the
    /// same flow, and if it is of nobody, ageing's to remove.
    #[inline(always)]
    fn has_own_way_back(&self) -> bool {
        let is_echo = self.back.protocol() == A::ICMP;
        self.entry.state & STATE_MODE == 0 && (!self.sources.is_empty() || is_echo)
    }

    /// Removes the direction to the client, unless another CPU removes it, or has begun the flow by it.
    #[inline(always)]
    fn take_back<T: TablesOf<A>>(&self, tables: &T, key: &FlowKey<A>) {
        // Once the entry is claimed: who begins the flow after that finds it so.
        let is_anothers = || tables.flow(key).is_some_and(|flow| self.is_answered_by(&flow));
        if self.is_across() {
            remove_alone(tables, &self.back_across, self.entry.state, is_anothers);
        } else {
            remove_alone(tables, &self.back, self.entry.state, is_anothers);
        }
    }

    /// Whether the direction to the client is there, and is this flow's, and nobody removes it, where the client keeps its address.
    #[inline(always)]
    fn has_way_back<T: TablesOf<A>>(&mut self, tables: &T, key: &FlowKey<A>) -> bool {
        let Some(back) = tables.flow(&self.back) else { return false };
        self.there = peer::answers(&back.translation(), self.back.protocol);
        back.seen() & STATE_GOING == 0 && self.there == *key && back.is_same()
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

/// Ends a flow of which this CPU has just added the direction to the backend, with this state, and has told nobody. Unless another CPU
/// does.
#[inline(always)]
fn end<A: Family, T: TablesOf<A>>(tables: &T, key: &FlowKey<A>, state: u32) {
    if let Some(entry) = tables.flow(key)
        && (entry.seen() ^ state) & STATE_TAG == 0
        && entry.claim(0)
    {
        let mut counted = Counted::of(&entry);
        counted.state &= !STATE_SAMPLED;
        remove_to_backend(tables, key, counted);
    }
}

/// Removes an entry to the client that was inserted with this state, unless another CPU does, or it turns out to be another's once it is
/// claimed.
#[inline(always)]
fn remove_alone<A: Family, T: FamilyTables<A>>(
    tables: &T,
    key: &FlowKey<A>,
    state: u32,
    is_anothers: impl FnOnce() -> bool,
) {
    if let Some(entry) = tables.flow(key)
        && (entry.seen() ^ state) & STATE_GENERATION == 0
        && entry.claim(0)
    {
        if is_anothers() {
            entry.release();
        } else {
            tables.remove_flow(key);
        }
    }
}

/// Turns an entry to the direction to the client, whose packets are of a family F.
#[inline(always)]
pub(super) fn turn_back<A: Family, F: Family>(
    key: &FlowKey<A>,
    after: &FlowKey<V6>,
    entry: &mut FlowEntry,
    back: &mut FlowKey<F>,
) {
    *back = FlowKey::<F>::from_v6(after).reversed();
    entry.translation = Translation::between(back, &key.reversed()).to_v6();
}

/// Inserts the direction to the client for a flow that keeps its client's address. An entry that is there already is this
/// flow's own, what a closed flow left (it makes room), or a live flow of the same client port through another service:
/// two flows that a backend cannot tell apart.
#[inline(always)]
fn insert_back_of_client<A: Family, T: TablesOf<A>>(
    tables: &T,
    key: &FlowKey<A>,
    made: &mut Composed<A>,
) -> Result<(), Reason> {
    turn_back(key, &made.after, &mut made.entry, &mut made.back);
    match add(tables, &made.back, &mut made.entry) {
        Ok(None) => return Ok(()),
        Err(InsertError::Full) => return Err(Reason::FlowTableFull),
        Err(InsertError::Exists) => return Err(Reason::FlowCollision),
        Ok(Some(old)) if is_own_or_makes_room(tables, key, made, &old)? => {
            made.shares_way_back = 1;
            return Ok(());
        }
        Ok(Some(_)) => {}
    }
    match flow::insert(tables, &made.back, &mut made.entry) {
        Ok(()) => Ok(()),
        Err(InsertError::Full) => Err(Reason::FlowTableFull),
        Err(InsertError::Exists) => Err(Reason::FlowCollision),
    }
}

/// Whether an entry that is there already is of the same flow. If not, it was left by a closed one, and is gone.
///
/// # Errors
///
/// The reason for which it stays.
#[inline(always)]
fn is_own_or_makes_room<A: Family, T: TablesOf<A>>(
    tables: &T,
    key: &FlowKey<A>,
    made: &mut Composed<A>,
    old: &T::Flow,
) -> Result<bool, Reason> {
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
    let is_its_own = made.there == *key;
    if is_its_own && state & STATE_CLOSING == 0 {
        return Ok(true);
    }
    // Who sees that another flow closes may have forged what says so.
    if !is_its_own && !is_closed(key.protocol(), state) {
        return Err(Reason::FlowCollision);
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
        // Another CPU may have inserted it, of a flow that begins with its client's last segment, and be about to add the other direction.
        None if is_its_own && old.idle(tables.now()) < HALF_INSERTED_TICKS => {
            return Err(Reason::FlowExpiring);
        }
        // The one back was left alone.
        Some(_) | None => {
            claim(old)?;
            tables.remove_flow(&made.back);
        }
    }
    Ok(false)
}
