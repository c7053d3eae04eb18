//! Where a flow counts: under its service, its backend, and, where those are bounded, its client.
//!
//! A flow counts from when it is inserted until it is closed or removed, whichever comes first: a closed one stays for a while,
//! for the segments that are late, and is nobody's load meanwhile.
//!
//! Invariant: each flow is counted out once. The entry to the backend says whether it was: whoever sets
//! [`STATE_COUNTED_OUT`] there counts it out, by a compare-and-swap of a word that says that the flow is closed and that nobody has
//! claimed it. The bit of an entry that is claimed does not change any more, and whoever removes it counts the flow out if the bit is
//! not set.

use super::entry::SWAP_TRIES;
use super::{
    Flow, FlowKey, SCTP, STATE_BACKEND_FIN, STATE_BACKEND_RESET, STATE_BITS, STATE_CLAIMED,
    STATE_CLIENT_COUNTED, STATE_CLIENT_FIN, STATE_CLIENT_RESET, STATE_COUNTED_OUT, STATE_MODE,
    STATE_SAMPLED, STATE_TAG,
};
use crate::family::{Family, V6, is_mapped};
use crate::sample;
use crate::service::AffinityKey;
use crate::tables::{FamilyTables, Tables};

/// Whether a flow is nobody's load any more: both sides have closed what they sent, or the backend has reset all. A client's word
/// alone is not enough, or who is at its limit would send a FIN or RST with a number that the backend ignores: one of TCP's RSTs counts
/// as little, and where what the backend sends is not seen, the flow counts until it is removed. An ABORT of SCTP had its tag.
#[must_use]
#[inline(always)]
pub fn is_closed(protocol: u8, state: u32) -> bool {
    const BOTH_FIN: u32 = STATE_CLIENT_FIN | STATE_BACKEND_FIN;
    let resets = STATE_BACKEND_RESET | if protocol == SCTP { STATE_CLIENT_RESET } else { 0 };
    state & STATE_MODE == 0 && (state & resets != 0 || state & BOTH_FIN == BOTH_FIN)
}

/// Counts a flow out if it is closed and nobody has. `client` is its client's address, read of the flow before.
#[inline(never)]
pub fn count_out<T: Tables>(tables: &T, protocol: u8, to_backend: &impl Flow, client: V6) -> u32 {
    const NOT_OURS: u32 = STATE_CLAIMED | STATE_COUNTED_OUT;
    // Before the swap, which says that it was this flow's.
    let (service, backend) = (to_backend.service(), to_backend.backend());
    let mut tries = 0;
    while tries < SWAP_TRIES {
        tries += 1;
        let word = to_backend.word();
        let state = word as u32;
        let is_another = (state ^ to_backend.seen()) & STATE_TAG != 0;
        if is_another || state & NOT_OURS != 0 || !is_closed(protocol, state) {
            return 0;
        }
        if to_backend.swap_word(word, word | u64::from(STATE_COUNTED_OUT)) {
            tables.count_ended_flow(service, backend);
            if state & STATE_CLIENT_COUNTED != 0 {
                tables.discount_client(&counted_client(tables, service, client));
            }
            return 1;
        }
    }
    // Whoever removes it does.
    0
}

/// Where a flow counts, and how it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The service.
    pub service: u32,
    /// The backend.
    pub backend: u32,
    /// The bits of its state, without the tag.
    pub state: u32,
}

impl Counted {
    /// As the entry to the backend says, which this CPU has claimed: before that it may change.
    #[must_use]
    #[inline(always)]
    pub fn of(to_backend: &impl Flow) -> Self {
        let state = to_backend.state() & STATE_BITS;
        Self { service: to_backend.service(), backend: to_backend.backend(), state }
    }
}

/// Removes the entry towards a flow's backend, which this CPU has claimed, and with it the flow from where it counts.
#[inline(always)]
pub fn remove_to_backend<A: Family, T: Tables + FamilyTables<A>>(
    tables: &T,
    key: &FlowKey<A>,
    counted: Counted,
) {
    if tables.remove_flow(key) {
        tables.count_removed(counted.backend);
        if counted.state & STATE_COUNTED_OUT == 0 {
            tables.count_ended_flow(counted.service, counted.backend);
            if counted.state & STATE_CLIENT_COUNTED != 0 {
                discount_client(tables, key, counted.service);
            }
        }
        if tables.samples_every() != 0 && counted.state & STATE_SAMPLED != 0 {
            sample::end(tables, key, counted.state);
        }
    }
}

/// A subprogram: its key needs room that the callers' stacks have not.
#[inline(never)]
fn discount_client<A: Family, T: Tables>(tables: &T, key: &FlowKey<A>, service: u32) -> u32 {
    tables.discount_client(&counted_client(tables, service, key.source.to_v6()));
    0
}

/// As what a client's flows are counted: the prefix of its address that all clients of a network share, and how long it is: what
/// was counted by other prefixes before counts for nobody.
#[inline(always)]
pub(crate) fn counted_client<T: Tables>(tables: &T, service: u32, client: V6) -> AffinityKey {
    let ([a, b, c, d], [e, f, g, h]) = (client, tables.client_mask(!is_mapped(client)));
    AffinityKey { client: [a & e, b & f, c & g, d & h], service: service | tables.client_bits() }
}
