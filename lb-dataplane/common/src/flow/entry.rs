//! An entry of the flow tables, in memory that may be another flow's at any time.
//!
//! Nothing is freed: the memory of an entry that was removed is that of the next one that is inserted, at once, and
//! a CPU that had looked the old one up still holds it. So that no packet goes by a stranger's or half a stranger's
//! rewrite, and none ends or marks a stranger:
//!
//! - The state is tagged: 12 bits of its key's hash, 8 more in [`FlowEntry::check`], and 4 that are drawn for each flow, so that a
//!   flow of the same key that comes later differs, too. A lookup whose entry has another tag has found nothing. Once in a
//!   million times such a race goes unnoticed. The short way does not compare with the key's hash: it reads the state before the
//!   key, of which the one is written last and the other first, so that what it goes by later is the flow's whose key it has
//!   found, or was claimed when it was read, or has another tag.
//! - No entry is removed that was not claimed before ([`STATE_CLAIMED`]). So whoever reads the rest of an entry and finds it
//!   unclaimed and with its tag *afterwards* ([`Flow::is_same`]) has read what was that flow's: whatever was written over it
//!   was written after the claim. That holds where loads are not reordered, as on x86-64.
//! - State and number are changed by a compare-and-swap of both with the tag. The time of the last packet is not: a stranger
//!   that was seen now by mistake lives on for no longer than since its own last packet.

use super::{
    DIRECTION_TO_BACKEND, FlowKey, STATE_BITS, STATE_CLAIMED, STATE_EXPIRING, STATE_GENERATION,
    STATE_GOING, STATE_KEY, STATE_REPLIED, STATE_STALE, STATE_TAG, Translation, ticks_since,
};
use crate::family::{Family, V6};
use crate::service::service_of;
use crate::tables::{FamilyTables, InsertError, Tables};

/// Value of `FLOWS` and `FLOWS6`: 64 bytes. `state`, `first_reply` and `last_seen` change in place, through [`Flow`]; the rest
/// never does while the entry is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct FlowEntry {
    /// The rewrite, IPv4 mapped into IPv6.
    pub translation: Translation<V6>,
    /// The [line](crate::line) in which its backend's packets are counted, of which `LINES` says whose it is.
    pub line: u32,
    /// The service, as `SERVICE_OPEN_FLOWS` has it, and by how many bits of its address its client counts, as `CLIENT_FLOWS` has both.
    pub counted_as: u32,
    /// Bits of `STATE_*`. With the number that follows it is one word of 64 bits, the state its low half.
    pub state: u32,
    /// Towards the backend, until the client has answered it: TCP's sequence number of the first segment that came back.
    /// Else, where [`STATE_RESETS`](super::STATE_RESETS) asks for it, this direction's last acknowledgement number; where it does not,
    /// towards the client and where the entry is alone, the number of the flow's place among the half-open ones.
    /// With SCTP the tag of this direction's packets, or 0 while it is not known.
    pub first_reply: u32,
    /// The [tick](crate::tables::TICK_SHIFT) of this direction's last packet; written only when it changes.
    pub last_seen: u32,
    /// One of the `DIRECTION_*` constants.
    pub direction: u8,
    /// The rest of the tag.
    pub check: u8,
    /// The largest segment size that a SYN may announce, or [`MSS_AUTO`](crate::mss::MSS_AUTO); 0 for any.
    pub mss: u16,
}

impl FlowEntry {
    /// A fresh entry towards a backend.
    #[must_use]
    #[inline(always)]
    pub fn new(
        translation: Translation<V6>,
        counted_as: u32,
        line: u32,
        state: u32,
        now: u32,
    ) -> Self {
        Self {
            translation,
            line,
            counted_as,
            state,
            first_reply: 0,
            last_seen: now,
            direction: DIRECTION_TO_BACKEND,
            check: 0,
            mss: 0,
        }
    }

    /// Draws what tells the flow that begins from one of the same key.
    #[inline(always)]
    pub fn draw<T: Tables>(&mut self, tables: &T) {
        self.state = self.state & STATE_BITS | tables.draw() & STATE_GENERATION;
    }

    /// Whether a state and a check are those of an entry with this tag.
    #[must_use]
    #[inline(always)]
    pub fn bears(tag: u32, state: u32, check: u8) -> bool {
        (state ^ tag) & STATE_KEY == 0 && check == tag as u8
    }
}

/// Inserts an entry, tagged for its key.
///
/// # Errors
///
/// Why it is not there.
#[inline(always)]
pub fn insert<A: Family, T: FamilyTables<A>>(
    tables: &T,
    key: &FlowKey<A>,
    entry: &mut FlowEntry,
) -> Result<(), InsertError> {
    let tag = key.tag();
    entry.state = entry.state & !STATE_KEY | tag & STATE_KEY;
    entry.check = tag as u8;
    tables.insert_flow(key, entry)
}

/// How often a change is tried while other CPUs change the same entry. A flow's state changes a few times in its life, so
/// whoever fails as often as this has met a storm: the packet is dropped as one of a flow that is going.
pub(crate) const SWAP_TRIES: u32 = 2;

/// A flow entry that was looked up, which other CPUs see and change too.
pub trait Flow {
    /// The rewrite.
    fn translation<A: Family>(&self) -> Translation<A>;
    /// The line in which its backend's packets are counted.
    fn line(&self) -> u32;
    /// The service, and by how many bits of its address its client counts.
    fn counted_as(&self) -> u32;
    /// One of the `DIRECTION_*` constants.
    fn direction(&self) -> u8;
    /// The largest segment size that a SYN may announce.
    fn mss(&self) -> u16;
    /// The tick of this direction's last packet.
    fn last_seen(&self) -> u32;
    /// Writes the tick of this direction's last packet.
    fn set_last_seen(&self, tick: u32);
    /// The state as the lookup found it.
    fn seen(&self) -> u32;
    /// State and number as they stand, whoever's they are.
    fn word(&self) -> u64;
    /// Puts another state and number in the place of these, atomically; whether it did.
    fn swap_word(&self, old: u64, new: u64) -> bool;

    /// The service.
    #[inline(always)]
    fn service(&self) -> u32 {
        service_of(self.counted_as())
    }

    /// Whether what was read since the lookup was this flow's.
    #[inline(always)]
    fn is_same(&self) -> bool {
        (self.word() as u32 ^ self.seen()) & (STATE_TAG | STATE_CLAIMED) == 0
    }

    /// The bits of `STATE_*` now. A flow that is not there any more is going.
    #[inline(always)]
    fn state(&self) -> u32 {
        let state = self.word() as u32;
        if (state ^ self.seen()) & STATE_TAG == 0 { state } else { STATE_GOING }
    }

    /// Sets bits of the state; the state before.
    #[inline(always)]
    fn set_state(&self, bits: u32) -> u32 {
        let mut tries = 0;
        while tries < SWAP_TRIES {
            let word = self.word();
            if (word as u32 ^ self.seen()) & STATE_TAG != 0 {
                return STATE_GOING;
            }
            if self.swap_word(word, word | u64::from(bits)) {
                return word as u32;
            }
            tries += 1;
        }
        STATE_GOING
    }

    /// Clears bits of the state, unless somebody removes the flow.
    #[inline(always)]
    fn clear_state(&self, bits: u32) {
        let mut tries = 0;
        while tries < SWAP_TRIES {
            let word = self.word();
            let state = word as u32;
            if (state ^ self.seen()) & STATE_TAG != 0 || state & STATE_CLAIMED != 0 {
                return;
            }
            if self.swap_word(word, word & !u64::from(bits)) {
                return;
            }
            tries += 1;
        }
    }

    /// Takes it upon this CPU to remove the entry, if it has none of the bits: whoever claims it first does, for all others
    /// the flow is over. A mark that was seen must still be there; a claim that nobody carries out any more is taken over.
    #[inline(always)]
    fn claim(&self, unless: u32) -> bool {
        let seen = self.seen();
        let stale = seen & STATE_STALE;
        // As it was seen: the tag, the marks, and, but for a stale one, no claim.
        let fixed = STATE_TAG | STATE_CLAIMED | STATE_STALE | seen & STATE_EXPIRING;
        if stale == 0 && seen & STATE_CLAIMED != 0 {
            return false;
        }
        let mut tries = 0;
        while tries < SWAP_TRIES {
            let word = self.word();
            let state = word as u32;
            if (state ^ seen) & fixed != 0 || state & unless != 0 {
                return false;
            }
            if self.swap_word(word, (word | u64::from(STATE_GOING)) & !u64::from(stale)) {
                return true;
            }
            tries += 1;
        }
        false
    }

    /// Gives a claim back that this CPU has taken upon it and does not carry out.
    #[inline(always)]
    fn release(&self) {
        let mut tries = 0;
        while tries < SWAP_TRIES {
            let word = self.word();
            if self.swap_word(word, word & !u64::from(STATE_GOING | STATE_STALE)) {
                return;
            }
            tries += 1;
        }
        // It is found stale then, and taken over.
    }

    /// TCP's sequence number of the first segment that came back, or SCTP's tag.
    #[inline(always)]
    fn first_reply(&self) -> u32 {
        (self.word() >> 32) as u32
    }

    /// Writes the sequence number of the first segment that came back, or a tag; whether it did.
    #[inline(always)]
    fn set_first_reply(&self, number: u32) -> bool {
        let mut tries = 0;
        while tries < SWAP_TRIES {
            let word = self.word();
            if (word as u32 ^ self.seen()) & STATE_TAG != 0 {
                return false;
            }
            if self.swap_word(word, with_number(word, number)) {
                return true;
            }
            tries += 1;
        }
        false
    }

    /// Writes that number into the entry to the backend, and that the backend has answered, at once; whether it did.
    #[inline(always)]
    fn answer(&self, number: u32) -> bool {
        let word = self.word();
        (word as u32 ^ self.seen()) & STATE_TAG == 0
            && word as u32 & STATE_GOING == 0
            && self.swap_word(word, with_number(word | u64::from(STATE_REPLIED), number))
    }

    /// What this direction acknowledged last: the number of the other side's next octet, so that of a RST to this side.
    #[inline(always)]
    fn acknowledged(&self) -> u32 {
        self.first_reply()
    }

    /// Notes what a packet of this direction acknowledges. A segment that was overtaken by as much as is on its way at a time
    /// does not take the number back. Any other one counts: what somebody guesses holds until the next genuine one, and a
    /// connection that begins anew, or comes back after a while elsewhere, is followed at once.
    #[inline(always)]
    fn note_acknowledged(&self, number: u32) {
        const ON_ITS_WAY: u32 = 1 << 24;
        let word = self.word();
        if (word as u32 ^ self.seen()) & STATE_TAG != 0 {
            return;
        }
        let old = (word >> 32) as u32;
        let behind = old.wrapping_sub(number);
        if behind != 0 && (old == 0 || behind > ON_ITS_WAY) {
            // Another CPU that was first had a packet of the same time, or the next one says it.
            let _is_noted = self.swap_word(word, with_number(word, number));
        }
    }

    /// Notes a packet of this direction.
    #[inline(always)]
    fn touch(&self, now: u32) {
        // The line stays shared between CPUs while nothing changes.
        if self.last_seen() != now {
            self.set_last_seen(now);
        }
    }

    /// Ticks since this direction's last packet.
    #[inline(always)]
    fn idle(&self, now: u32) -> u32 {
        ticks_since(self.last_seen(), now)
    }
}

#[inline(always)]
fn with_number(word: u64, number: u32) -> u64 {
    word & u64::from(u32::MAX) | u64::from(number) << 32
}

// The word of state and number is loaded and swapped as one.
const _: () = assert!(core::mem::offset_of!(FlowEntry, state).is_multiple_of(8));
const _: () = assert!(
    core::mem::offset_of!(FlowEntry, first_reply) == core::mem::offset_of!(FlowEntry, state) + 4
);
const _: () = assert!(size_of::<FlowEntry>() == 64);
const _: () = assert!(cfg!(target_endian = "little"), "the state is the word's low half");
