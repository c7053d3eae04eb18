//! Where a flow counts: in the load of its backend from when it is inserted, and under the bounds of its service, its backend and its
//! client from when it is open. Both until it is closed or removed, whichever comes first: a closed one stays for a while, for the
//! segments that are late, and is nobody's load meanwhile.
//!
//! A flow is open once it is no forgery: with a handshake that is done, or, of datagrams and echoes, once its backend has answered.
//! Until then the places of half-open flows bound it, and nobody else is refused for it.
//!
//! What is not known to be closed, but is likely to be, counts nowhere once it has been silent for a while ([`may_be_over`]). If it goes
//! on after all, it counts again, and its client's bound has to have room for it: so no client exceeds that by saying that it closes
//! flows and not doing so. The bounds that others' flows may have filled meanwhile it exceeds, since what told of its end may have been
//! forged.
//!
//! Invariant: each flow counts once at most. The entry to the backend says where: it is in the load unless
//! [`STATE_COUNTED_OUT`] is set there, and under the bounds if it [is open](is_open), too. Whoever changes that does so by a
//! compare-and-swap of a word that says that nobody has claimed the entry. The word of one that is claimed does not change in this any
//! more, and whoever removes it counts the flow out as it says.

use super::entry::SWAP_TRIES;
use super::{
    Flow, FlowKey, SCTP, STATE_BACKEND_FIN, STATE_BACKEND_RESET, STATE_BITS, STATE_CLAIMED,
    STATE_CLIENT_COUNTED, STATE_CLIENT_FIN, STATE_CLIENT_RESET, STATE_CLOSING, STATE_CONFIRMED,
    STATE_COUNTED_OUT, STATE_GOING, STATE_MODE, STATE_REPLIED, STATE_SAMPLED, STATE_TAG,
    has_handshake,
};
use crate::choose;
use crate::family::{Family, V6};
use crate::reason::Reason;
use crate::sample;
use crate::service::{AffinityKey, bits_of, service_of};
use crate::tables::{FamilyTables, Tables};

/// Whether a flow is nobody's load any more: both sides have closed what they sent, or the backend has reset all. A client's word
/// alone is not enough, or who is at its limit would send a FIN or RST with a number that the backend ignores: one of TCP's RSTs counts
/// as little, and where what the backend sends is not seen, nothing is known. An ABORT of SCTP had its tag.
#[must_use]
#[inline(always)]
pub fn is_closed(protocol: u8, state: u32) -> bool {
    const BOTH_FIN: u32 = STATE_CLIENT_FIN | STATE_BACKEND_FIN;
    let resets = STATE_BACKEND_RESET | if protocol == SCTP { STATE_CLIENT_RESET } else { 0 };
    state & STATE_MODE == 0 && (state & resets != 0 || state & BOTH_FIN == BOTH_FIN)
}

/// Whether a flow is open, or was before it was closed.
#[must_use]
#[inline(always)]
pub fn is_open(protocol: u8, state: u32) -> bool {
    state & opening(protocol) != 0
}

/// The bit that says so.
#[must_use]
#[inline(always)]
pub fn opening(protocol: u8) -> u32 {
    if has_handshake(protocol) { STATE_CONFIRMED } else { STATE_REPLIED }
}

/// Whether a flow that counts is likely to be over, if both sides are silent: a RST came that its receiver may have ignored, or, where
/// what the backend sends is not seen, a FIN. A backend that has ignored a RST amid a transfer sends again within
/// [`Timeouts::doubtful`](super::Timeouts::doubtful).
#[must_use]
#[inline(always)]
pub fn may_be_over(state: u32) -> bool {
    let signs = STATE_CLIENT_RESET | if state & STATE_MODE != 0 { STATE_CLIENT_FIN } else { 0 };
    state & STATE_COUNTED_OUT == 0 && state & signs != 0
}

/// Whether a flow is closed and counts still: whoever closed it could not change its entry, since other CPUs did all the time.
#[must_use]
#[inline(always)]
pub fn counts_though_closed(protocol: u8, state: u32) -> bool {
    state & STATE_COUNTED_OUT == 0 && is_closed(protocol, state)
}

/// Whether there is room for a flow that bits of its state open, or that was counted out and goes on, where it does not count yet; what
/// else its state is to say. `key` is that of its packets to the backend. By way of [`Tables::admit`].
///
/// # Errors
///
/// The bound under which there is none.
#[inline(always)]
pub fn admit<T: Tables>(
    tables: &T,
    key: &FlowKey<V6>,
    to_backend: &impl Flow,
    bits: u32,
) -> Result<u32, Reason> {
    let protocol = key.protocol();
    let before = to_backend.state();
    let counts = is_open(protocol, before) && before & STATE_COUNTED_OUT == 0;
    let after = before | bits;
    if counts || !is_open(protocol, after) || is_closed(protocol, after) {
        return Ok(0);
    }
    let goes_on = is_open(protocol, before);
    choose::admit_open(tables, key, to_backend, goes_on)
}

/// Counts one more flow of a client, whose packets have this key, before the flow's entry says so: once it does, another CPU may count
/// the flow out. Not zero if there was a place for that. A subprogram, like that which follows.
#[inline(never)]
pub fn count_client<T: Tables>(tables: &T, key: &FlowKey<V6>, counted_as: u32) -> u32 {
    tables.count_client(&counted_client(counted_as, key.source)).into()
}

/// Counts such a flow in, and sets these bits; where it does not, its client has one fewer again. By way of [`Tables::count_in`], as the next is by that of [`Tables::count_out`].
///
/// # Errors
///
/// `FlowExpiring`.
#[inline(always)]
pub fn count_in<A: Family, T: Tables>(
    tables: &T,
    key: &FlowKey<A>,
    to_backend: &impl Flow,
    bits: u32,
) -> Result<(), Reason> {
    let protocol = key.protocol();
    // Before the swap, which says that it was this flow's.
    let (counted_as, line) = (to_backend.counted_as(), to_backend.line());
    let service = service_of(counted_as);
    let before = to_backend.state();
    let (was_open, is_out) = (is_open(protocol, before), before & STATE_COUNTED_OUT != 0);
    let opens = is_open(protocol, before | bits);
    let is_needless = if is_out { is_closed(protocol, before | bits) } else { was_open };
    let mut tries = if is_needless || before & STATE_GOING != 0 { SWAP_TRIES } else { 0 };
    let is_tried = tries == 0;
    if is_tried && is_out {
        tables.count_again(line);
    }
    if is_tried && opens {
        tables.count_open_flow(service, line);
    }
    while tries < SWAP_TRIES {
        tries += 1;
        let word = to_backend.word();
        let state = word as u32;
        if (state ^ before) & (STATE_TAG | STATE_COUNTED_OUT) != 0
            || state & STATE_GOING != 0
            || is_open(protocol, state) != was_open
            || is_out && is_closed(protocol, state | bits)
        {
            break;
        }
        let old = u64::from(STATE_COUNTED_OUT | STATE_CLIENT_COUNTED);
        if to_backend.swap_word(word, word & !old | u64::from(bits)) {
            return Ok(());
        }
    }
    // Another CPU was first: it has counted the flow in or out, or removes it.
    if is_tried && is_out {
        tables.count_ended_flow(line);
    }
    if is_tried && opens {
        tables.discount_open_flow(service, line);
    }
    if bits & STATE_CLIENT_COUNTED != 0 {
        tables.discount_client(&counted_client(counted_as, key.source.to_v6()));
    }
    let state = to_backend.state();
    let is_settled = is_open(protocol, state) || state & STATE_COUNTED_OUT != 0 || !opens;
    if is_settled && state & STATE_GOING == 0 { Ok(()) } else { Err(Reason::FlowExpiring) }
}

/// Counts a flow out if it is closed, or may be over where it `is_silent`, and nobody has; and tells of the end of one that is closed
/// and watched. `key` is that of its packets to the backend, and `said` what either of its entries says of its end.
#[inline(always)]
pub fn count_out<T: Tables>(
    tables: &T,
    key: &FlowKey<V6>,
    to_backend: &impl Flow,
    said: u32,
    is_silent: bool,
) -> u32 {
    let (counted_as, line) = (to_backend.counted_as(), to_backend.line());
    let mut tries = 0;
    while tries < SWAP_TRIES {
        tries += 1;
        let word = to_backend.word();
        let state = word as u32 | said;
        let is_another = (state ^ to_backend.seen()) & STATE_TAG != 0;
        let is_closed = is_closed(key.protocol(), state);
        if is_another
            || state & STATE_CLAIMED != 0
            || !(is_closed || is_silent && may_be_over(state))
        {
            return 0;
        }
        let watched = if is_closed { state & STATE_SAMPLED } else { 0 };
        if watched | !state & STATE_COUNTED_OUT == 0 {
            return 0;
        }
        let new = word & !u64::from(watched) | u64::from(said | STATE_COUNTED_OUT);
        if to_backend.swap_word(word, new) {
            let counted = Counted { counted_as, line, state: state & STATE_BITS };
            count_end(tables, key, counted);
            if tables.samples_every() != 0 && watched != 0 {
                tables.end_sample(key, counted.state);
            }
            return 1;
        }
    }
    // Ageing does.
    0
}

/// Has a flow with a sign of its end begin again, half-open, since its backend has answered a SYN as one that has no connection: what
/// there was is over, and what is to be has to find room as any other when it opens. By way of [`Tables::reopen`].
///
/// # Errors
///
/// `FlowExpiring`.
#[inline(always)]
pub fn reopen<T: Tables>(
    tables: &T,
    key: &FlowKey<V6>,
    to_backend: &impl Flow,
) -> Result<(), Reason> {
    const OVER: u32 = STATE_CLOSING | STATE_CONFIRMED | STATE_COUNTED_OUT | STATE_CLIENT_COUNTED;
    let (counted_as, line) = (to_backend.counted_as(), to_backend.line());
    let mut tries = 0;
    while tries < SWAP_TRIES {
        tries += 1;
        let word = to_backend.word();
        let state = word as u32;
        if (state ^ to_backend.seen()) & STATE_TAG != 0 || state & STATE_GOING != 0 {
            break;
        }
        if state & STATE_CLOSING == 0 {
            // Another CPU was first.
            return Ok(());
        }
        if to_backend.swap_word(word, word & !u64::from(OVER)) {
            if state & STATE_COUNTED_OUT != 0 {
                tables.count_again(line);
            } else if is_open(key.protocol(), state) {
                tables.discount_open_flow(service_of(counted_as), line);
                if state & STATE_CLIENT_COUNTED != 0 {
                    discount_client(tables, key, counted_as);
                }
            }
            return Ok(());
        }
    }
    Err(Reason::FlowExpiring)
}

/// Where a flow counts, and how it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The service, and by how many bits of its address its client counts.
    pub counted_as: u32,
    /// The line in which its backend's packets are counted.
    pub line: u32,
    /// The bits of its state, without the tag.
    pub state: u32,
}

impl Counted {
    /// As the entry to the backend says, which this CPU has claimed: before that it may change.
    #[must_use]
    #[inline(always)]
    pub fn of(to_backend: &impl Flow) -> Self {
        let state = to_backend.state() & STATE_BITS;
        Self { counted_as: to_backend.counted_as(), line: to_backend.line(), state }
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
        tables.count_removed(counted.line);
        count_end(tables, key, counted);
        if tables.samples_every() != 0 && counted.state & STATE_SAMPLED != 0 {
            sample::end(tables, key, counted.state);
        }
    }
}

/// Counts a flow out where it counts.
#[inline(always)]
fn count_end<A: Family, T: Tables>(tables: &T, key: &FlowKey<A>, counted: Counted) {
    if counted.state & STATE_COUNTED_OUT != 0 {
        return;
    }
    tables.count_ended_flow(counted.line);
    if !is_open(key.protocol(), counted.state) {
        return;
    }
    tables.discount_open_flow(service_of(counted.counted_as), counted.line);
    if counted.state & STATE_CLIENT_COUNTED != 0 {
        discount_client(tables, key, counted.counted_as);
    }
}

/// A subprogram: its key needs room that the callers' stacks have not.
#[inline(never)]
fn discount_client<A: Family, T: Tables>(tables: &T, key: &FlowKey<A>, counted_as: u32) -> u32 {
    tables.discount_client(&counted_client(counted_as, key.source.to_v6()));
    0
}

/// As what a client's flows are counted: the prefix of its address that all clients of a network share, and how long it is. A flow
/// says that itself, as it was set when it began: so it ends where it was counted, also when clients are counted by others since.
#[inline(always)]
pub(crate) fn counted_client(counted_as: u32, client: V6) -> AffinityKey {
    AffinityKey { client: first_bits(client, bits_of(counted_as)), service: counted_as }
}

/// The first bits of an address.
#[inline(always)]
fn first_bits([a, b, c, d]: V6, bits: u32) -> V6 {
    let of_word = |before: u32| {
        let others = 32 - bits.saturating_sub(before).min(32);
        ((u64::from(u32::MAX) << others) as u32).to_be()
    };
    [a & of_word(0), b & of_word(32), c & of_word(64), d & of_word(96)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::counted_as;

    #[test]
    fn a_client_counts_as_the_prefix_that_its_flow_says() {
        let client = [0x2001_0db8_u32, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff].map(u32::to_be);
        for (bits, expected) in [
            (128, [0x2001_0db8, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff]),
            (120, [0x2001_0db8, 0xffff_ffff, 0xffff_ffff, 0xffff_ff00]),
            (97, [0x2001_0db8, 0xffff_ffff, 0xffff_ffff, 0x8000_0000]),
            (64, [0x2001_0db8, 0xffff_ffff, 0, 0]),
            (57, [0x2001_0db8, 0xffff_ff80, 0, 0]),
            (1, [0; 4]),
        ] {
            let counted = counted_client(counted_as(65_535, bits), client);
            let expected =
                AffinityKey { client: expected.map(u32::to_be), service: bits << 16 | 0xffff };
            assert_eq!(counted, expected, "{bits}");
            assert_eq!(service_of(counted.service), 65_535);
        }
    }
}
