//! Removing flows that have been silent in both directions, and those that end with their backend, in two passes. TCP's stay
//! with a backend that was removed or, unless its service says otherwise, fails: its connections may outlive both.
//!
//! No table removes an entry by what it says, so a removal between a check and a packet could take a live flow's one direction
//! away. Therefore the first pass marks both entries, the caller waits until every program has left (a grace period), and
//! the second pass looks again. Between the two no packet changes or refreshes a marked entry: it is dropped, and its
//! sender's retransmission finds either the flow or nothing. Only a client's SYN replaces a marked flow, if it was closing.
//! So that it and the second pass do not both remove, whoever removes claims the entry to the backend first.
//!
//! A claim that is still there after a grace period is nobody's: a removal failed. The first pass notes it
//! ([`STATE_STALE`]), the second one takes it over; a flow that another CPU has begun in its place bears no such note.

use crate::family::{Family, words};
use crate::flow::{
    Counted, DIRECTION_TO_BACKEND, Flow, FlowKey, STATE_BACKEND_FIN, STATE_BACKEND_RESET,
    STATE_CLAIMED, STATE_CLIENT_FIN, STATE_CLOSING, STATE_CONFIRMED, STATE_EXPIRING, STATE_MODE,
    STATE_RESETS, STATE_STALE, counts_though_closed, has_handshake, may_be_over, remove_to_backend,
};
use crate::peer;
use crate::pipeline::claim;
use crate::tables::{Tables, TablesOf};

/// Ticks after which an entry to the client without its counterpart is no insertion in progress.
pub(crate) const HALF_INSERTED_TICKS: u32 = 2;

/// What the second pass says of a flow that it removed and whose sides are to hear a RST.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Reset {
    /// Not zero where there is such a flow.
    pub is_due: u32,
    /// The sequence number of the RST to the client.
    pub to_client: u32,
    /// The sequence number of the RST to the backend.
    pub to_backend: u32,
}

impl Reset {
    /// As the words that take the place of the flow's key in the ageing program's input.
    #[must_use]
    #[inline(always)]
    pub fn to_words(self) -> [u16; 6] {
        let ([a, b], [c, d]) = (words(self.is_due), words(self.to_client));
        let [e, f] = words(self.to_backend);
        [a, b, c, d, e, f]
    }

    /// From those words' bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 12]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        Self {
            is_due: u32::from_ne_bytes([a, b, c, d]),
            to_client: u32::from_ne_bytes([e, f, g, h]),
            to_backend: u32::from_ne_bytes([i, j, k, l]),
        }
    }

    /// Notes what a flow's sides are to hear: nothing if it is none of theirs any more, since both have closed what they sent,
    /// or the backend all. Nor where it ends early for a sign of its end, which may be forged (RFC 5961 §3): who sent it
    /// knows, and who did not send it is not to be reset for it.
    #[inline(always)]
    fn note<T: Tables>(
        &mut self,
        tables: &T,
        protocol: u8,
        to_backend: &impl Flow,
        to_client: &impl Flow,
    ) {
        const BOTH_FIN: u32 = STATE_CLIENT_FIN | STATE_BACKEND_FIN;
        const WANTED: u32 = STATE_RESETS | STATE_CONFIRMED;
        let state = to_backend.state() | to_client.state();
        let Some(backend) = tables.backend(tables.backend_of(to_backend.line())) else { return };
        let is_closed = if backend.ends_flows(protocol) {
            state & STATE_BACKEND_RESET != 0 || state & BOTH_FIN == BOTH_FIN
        } else {
            state & STATE_CLOSING != 0
        };
        if state & WANTED == WANTED && !is_closed && backend.resets(protocol) {
            self.is_due = 1;
            self.to_client = to_backend.acknowledged();
            self.to_backend = to_client.acknowledged();
        }
    }
}

/// First pass over an entry of either direction: marks the flow if it is over, or if half of it is
/// missing.
#[inline(always)]
pub fn mark<A: Family, T: TablesOf<A>>(tables: &T, key: &FlowKey<A>) -> bool {
    let now = tables.now();
    let Some(entry) = tables.flow(key) else { return false };
    if entry.seen() & STATE_CLAIMED != 0 {
        entry.set_state(STATE_STALE);
        return true;
    }
    if entry.seen() & STATE_MODE != 0 {
        let over = is_over(tables, key, &entry, &entry, now);
        if over {
            entry.set_state(STATE_EXPIRING);
        } else {
            count_out_if_over(tables, key, &entry, &entry, now);
        }
        return over;
    }
    match peer::find(tables, key, &entry) {
        Some(peer) if peer::leads_to(&peer, &entry, key) => {
            let over = is_over(tables, key, &entry, &peer, now);
            if over {
                entry.set_state(STATE_EXPIRING);
                peer.set_state(STATE_EXPIRING);
            } else {
                count_out_if_over(tables, key, &entry, &peer, now);
            }
            over
        }
        Some(_) | None => {
            let torn =
                entry.direction() == DIRECTION_TO_BACKEND || entry.idle(now) >= HALF_INSERTED_TICKS;
            if torn {
                entry.set_state(STATE_EXPIRING);
            }
            torn
        }
    }
}

/// Has a flow count nowhere that is closed or likely to be over, by its entry to the backend.
#[inline(always)]
fn count_out_if_over<A: Family, T: Tables>(
    tables: &T,
    key: &FlowKey<A>,
    entry: &T::Flow,
    peer: &T::Flow,
    now: u32,
) {
    let least = tables.timeouts().doubtful();
    let is_silent = || entry.idle(now) >= least && peer.idle(now) >= least;
    if entry.direction() == DIRECTION_TO_BACKEND
        && (counts_though_closed(key.protocol(), entry.seen())
            || may_be_over(entry.seen()) && is_silent())
    {
        tables.count_out(&key.to_v6(), entry, 0, true);
    }
}

/// Second pass, a grace period later: removes what is still marked and over, and lets go of the rest.
#[inline(always)]
pub fn sweep<A: Family, T: TablesOf<A>>(tables: &T, key: &FlowKey<A>, reset: &mut Reset) -> bool {
    let now = tables.now();
    let Some(entry) = tables.flow(key) else { return false };
    let marked = entry.seen() & STATE_EXPIRING != 0;
    let stale = entry.seen() & STATE_STALE != 0;
    if entry.seen() & STATE_MODE != 0 {
        if marked && (stale || is_over(tables, key, &entry, &entry, now)) {
            if claim(&entry).is_err() {
                return false;
            }
            remove_to_backend(tables, key, Counted::of(&entry));
            return true;
        }
        entry.clear_state(STATE_EXPIRING);
        return false;
    }
    match peer::find(tables, key, &entry) {
        Some(peer) if peer::leads_to(&peer, &entry, key) => {
            if marked && (stale || is_over(tables, key, &entry, &peer, now)) {
                let is_there = entry.direction() == DIRECTION_TO_BACKEND;
                let (to_backend, to_client) =
                    if is_there { (&entry, &peer) } else { (&peer, &entry) };
                if claim(to_backend).is_err() {
                    return false;
                }
                reset.note(tables, key.protocol(), to_backend, to_client);
                let counted = Counted::of(to_backend);
                // If not, another CPU removes it.
                let has_both = claim(to_client).is_ok();
                // Before the entry that says where it is.
                if has_both || !is_there {
                    peer::remove(tables, key, &entry, counted);
                }
                if is_there {
                    remove_to_backend(tables, key, counted);
                } else if has_both {
                    tables.remove_flow(key);
                }
                return true;
            }
            entry.clear_state(STATE_EXPIRING);
            peer.clear_state(STATE_EXPIRING);
            false
        }
        Some(_) | None => {
            if !marked || claim(&entry).is_err() {
                return false;
            }
            if entry.direction() == DIRECTION_TO_BACKEND {
                remove_to_backend(tables, key, Counted::of(&entry));
            } else {
                tables.remove_flow(key);
            }
            true
        }
    }
}

/// Whether a flow has been silent for too long, or ends with its backend.
#[inline(always)]
fn is_over<A: Family, T: Tables>(
    tables: &T,
    key: &FlowKey<A>,
    entry: &impl Flow,
    peer: &impl Flow,
    now: u32,
) -> bool {
    let protocol = key.protocol();
    let (idle, ends) = match tables.backend(tables.backend_of(entry.line())) {
        Some(backend) => (backend.idle, backend.ends_flows(protocol)),
        None => (0, !has_handshake(protocol)),
    };
    let limit = tables.timeouts().of_service(protocol, entry.state() | peer.state(), idle);
    ends || entry.idle(now) >= limit && peer.idle(now) >= limit
}

/// Which pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// [`mark`].
    Mark,
    /// [`sweep`].
    Sweep,
}

/// Where the ageing program's input names the pass; before it are 14 bytes that a frame must have.
pub const PASS_AT: u32 = 14;
/// Where its keys begin.
pub const KEYS_AT: u32 = 16;
/// How many keys it takes at once.
pub const MAX_KEYS: u32 = 64;

impl Pass {
    /// The pass of an input.
    #[must_use]
    #[inline(always)]
    pub fn from_word(word: u16) -> Option<Self> {
        match word {
            1 => Some(Self::Mark),
            2 => Some(Self::Sweep),
            _ => None,
        }
    }

    /// The word that stands for it.
    #[must_use]
    pub fn to_word(self) -> u16 {
        match self {
            Self::Mark => 1,
            Self::Sweep => 2,
        }
    }
}

/// One pass over one entry; whether it marked or removed it, and what the flow's sides are to hear.
#[inline(never)]
pub fn run<A: Family, T: TablesOf<A>>(
    tables: &T,
    pass: Pass,
    key: &FlowKey<A>,
    reset: &mut Reset,
) -> bool {
    match pass {
        Pass::Mark => mark(tables, key),
        Pass::Sweep => sweep(tables, key, reset),
    }
}

#[cfg(test)]
mod tests;
