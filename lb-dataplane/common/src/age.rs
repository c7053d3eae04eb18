//! Removing flows that have been silent in both directions, and datagrams' flows whose backend is lost, in two passes.
//! TCP's stay with a backend that was removed or fails: its connections may outlive both.
//!
//! The kernel has no compare-and-delete, so a removal between a check and a packet could take a live flow's one direction
//! away. Therefore the first pass marks both entries, the caller waits until every program has left (a grace period), and
//! the second pass looks again. Between the two no packet changes or refreshes a marked entry: it is dropped, and its
//! sender's retransmission finds either the flow or nothing. Only a client's SYN replaces a marked flow, if it was closing.
//! So that it and the second pass do not both remove, whoever removes claims the entry to the backend first.

use crate::family::Family;
use crate::flow::{
    Counted, DIRECTION_TO_BACKEND, Flow, FlowKey, STATE_EXPIRING, STATE_MODE, UDP,
    remove_to_backend,
};
use crate::pipeline::{claim, peer_key};
use crate::tables::{FamilyTables, Tables};

/// Ticks after which an entry to the client without its counterpart is no insertion in progress.
const HALF_INSERTED_TICKS: u32 = 2;

/// First pass over an entry of either direction: marks the flow if it is over, or if half of it is
/// missing.
#[inline(always)]
pub fn mark<A: Family, T: Tables + FamilyTables<A>>(tables: &T, key: &FlowKey<A>) -> bool {
    let now = tables.now();
    let Some(entry) = tables.flow(key) else { return false };
    if entry.state() & STATE_MODE != 0 {
        let over = is_over(tables, key, &entry, &entry, now);
        if over {
            entry.set_state(STATE_EXPIRING);
        }
        return over;
    }
    let peer_key = peer_key(key, &entry);
    match tables.flow(&peer_key) {
        Some(peer) if crate::pipeline::peer_key(&peer_key, &peer) == *key => {
            let over = is_over(tables, key, &entry, &peer, now);
            if over {
                entry.set_state(STATE_EXPIRING);
                peer.set_state(STATE_EXPIRING);
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

/// Second pass, a grace period later: removes what is still marked and over, and lets go of the rest.
#[inline(always)]
pub fn sweep<A: Family, T: Tables + FamilyTables<A>>(tables: &T, key: &FlowKey<A>) -> bool {
    let now = tables.now();
    let Some(entry) = tables.flow(key) else { return false };
    let marked = entry.state() & STATE_EXPIRING != 0;
    if entry.state() & STATE_MODE != 0 {
        if marked && is_over(tables, key, &entry, &entry, now) {
            if claim(&entry).is_err() {
                return false;
            }
            remove_to_backend(tables, key, Counted::of(&entry));
            return true;
        }
        entry.clear_state(STATE_EXPIRING);
        return false;
    }
    let peer_key = peer_key(key, &entry);
    match tables.flow(&peer_key) {
        Some(peer) if crate::pipeline::peer_key(&peer_key, &peer) == *key => {
            if marked && is_over(tables, key, &entry, &peer, now) {
                let to_backend = entry.direction() == DIRECTION_TO_BACKEND;
                if claim(if to_backend { &entry } else { &peer }).is_err() {
                    return false;
                }
                let (there, back) = if to_backend { (key, &peer_key) } else { (&peer_key, key) };
                remove_to_backend(tables, there, Counted::of(&entry));
                tables.remove_flow(back);
                return true;
            }
            entry.clear_state(STATE_EXPIRING);
            peer.clear_state(STATE_EXPIRING);
            false
        }
        Some(_) | None => {
            if marked && entry.direction() == DIRECTION_TO_BACKEND {
                if claim(&entry).is_err() {
                    return false;
                }
                remove_to_backend(tables, key, Counted::of(&entry));
            } else if marked {
                tables.remove_flow(key);
            }
            marked
        }
    }
}

/// Whether a flow has been silent for too long, or has lost its backend and is one that can go elsewhere at any time.
#[inline(always)]
fn is_over<A: Family, T: Tables>(
    tables: &T,
    key: &FlowKey<A>,
    entry: &impl Flow<A>,
    peer: &impl Flow<A>,
    now: u32,
) -> bool {
    let limit = tables.timeouts().of(key.protocol(), entry.state() | peer.state());
    entry.idle(now) >= limit && peer.idle(now) >= limit
        || key.protocol() == UDP && has_lost_its_backend(tables, entry)
}

/// Whether a flow's backend was removed or fails.
#[inline(always)]
pub fn has_lost_its_backend<A, T: Tables>(tables: &T, entry: &impl Flow<A>) -> bool {
    tables.backend(entry.backend()).is_none_or(|backend| backend.is_lost())
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

/// One pass over one entry; whether it marked or removed it.
#[inline(never)]
pub fn run<A: Family, T: Tables + FamilyTables<A>>(
    tables: &T,
    pass: Pass,
    key: &FlowKey<A>,
) -> bool {
    match pass {
        Pass::Mark => mark(tables, key),
        Pass::Sweep => sweep(tables, key),
    }
}

#[cfg(test)]
mod tests;
