//! How long flows may be silent.

use super::{
    ICMP, ICMP6, SCTP, STATE_BACKEND_FIN, STATE_BACKEND_RESET, STATE_CLIENT_FIN,
    STATE_CLIENT_RESET, STATE_CLOSING, STATE_CONFIRMED, STATE_REPLIED, TCP,
};

/// How long a flow may be silent in both directions, in [ticks](crate::tables::TICK_SHIFT). The value of `TIMEOUTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Timeouts {
    /// TCP, the handshake done, nobody has sent a FIN.
    pub tcp_established: u32,
    /// TCP, one side sent a FIN, or the client a RST.
    pub tcp_transitory: u32,
    /// TCP, both sides sent a FIN, or the backend a RST.
    pub tcp_closed: u32,
    /// No backend answered yet, or the handshake of TCP or SCTP is not done. One of UDP stays for `udp_answered` at least.
    pub half_open: u32,
    /// UDP, answered once.
    pub udp_answered: u32,
    /// UDP, the client went on after an answer.
    pub udp: u32,
    /// SCTP, the handshake done, nobody has begun to shut down.
    pub sctp_established: u32,
    /// SCTP, one side has begun to shut down.
    pub sctp_shutdown: u32,
    /// SCTP, both sides have agreed to end, or one has ended the association.
    pub sctp_closed: u32,
    /// Echoes with one identifier.
    pub icmp: u32,
}

/// TCP established 2 h 4 min, and 4 min ("transitory") while it closes and once it is closed (RFC 5382 REQ-5, RFC 6146 §4); 1 min while
/// it opens, for which RFC 7857 §2.1 allows less than 4 min for security's sake: the longer each stays, the
/// fewer forged SYNs a second keep a bound of flows full. UDP 5 min, the recommended value of RFC 4787 REQ-5, and 2 min, its least, where an
/// answer was the last word or there was none. No RFC says how long for SCTP: an association at work lives as long as a connection of
/// TCP, since heartbeats (RFC 9260 §8.3) may be off, and its shutdown as long as what TCP has half closed; one that has ended has tags
/// that another one cannot have. Echoes have 1 min, the least that RFC 5508 REQ-1 allows. What is closed makes room sooner where there is
/// little ([`with_taken`](Timeouts::with_taken)).
impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_established: seconds(7440),
            tcp_transitory: seconds(240),
            tcp_closed: seconds(240),
            half_open: seconds(60),
            udp_answered: seconds(120),
            udp: seconds(300),
            sctp_established: seconds(7440),
            sctp_shutdown: seconds(240),
            sctp_closed: seconds(10),
            icmp: seconds(60),
        }
    }
}

/// How long closed connections stay at least while the flow table fills: nothing is lost with them but the wait for segments that
/// are late.
const CLOSED_LEAST: u32 = seconds(10);
/// The part of a table up to which nothing is shortened, and how many such parts later all is.
const ROOM: u64 = 32;
const ROOMS_BEYOND: u64 = 3;

impl Timeouts {
    /// Those while so many of a table's entries are taken. Closed connections stay for as long as they are to until a 32nd is
    /// taken, and from an eighth on no longer than they have to: a busy service has more of them than of any others, and each is
    /// looked at in every walk of ageing.
    #[must_use]
    pub fn with_taken(&self, entries: u64, capacity: u64) -> Self {
        let room = capacity / ROOM;
        let all = ROOMS_BEYOND * room;
        let beyond = entries.saturating_sub(room).min(all);
        let spare = u64::from(self.tcp_closed - CLOSED_LEAST.min(self.tcp_closed));
        let less = u32::try_from(spare * beyond / all.max(1)).unwrap_or(0);
        Self { tcp_closed: self.tcp_closed - less, ..*self }
    }

    /// For how long both sides must be silent after a sign of a flow's end that may be ignored, until it counts nowhere.
    #[must_use]
    #[inline(always)]
    pub fn doubtful(&self) -> u32 {
        self.tcp_closed.min(CLOSED_LEAST)
    }

    /// That of half-open flows of UDP: RFC 4787 REQ-5 has no other one for those without an answer.
    #[must_use]
    #[inline(always)]
    pub fn half_open_udp(&self) -> u32 {
        self.half_open.max(self.udp_answered)
    }

    /// The one of a flow. A client's RST may be forged by whoever knows the ports, so it only makes the flow transitory
    /// until the client sends something else (RFC 6146 §3.5.2.2).
    #[must_use]
    #[inline(always)]
    pub fn of(&self, protocol: u8, state: u32) -> u32 {
        const BOTH_FIN: u32 = STATE_CLIENT_FIN | STATE_BACKEND_FIN;
        if protocol == SCTP {
            return self.of_sctp(state);
        }
        if state & STATE_BACKEND_RESET != 0 || state & BOTH_FIN == BOTH_FIN {
            return self.tcp_closed;
        }
        let is_confirmed = state & STATE_CONFIRMED != 0;
        if protocol == ICMP || protocol == ICMP6 {
            let is_answered = state & STATE_REPLIED != 0;
            return if is_answered { self.icmp } else { self.icmp.min(self.half_open) };
        }
        if protocol != TCP {
            return match (state & STATE_REPLIED != 0, is_confirmed) {
                (false, _) => self.half_open_udp(),
                (true, false) => self.udp_answered,
                (true, true) => self.udp,
            };
        }
        if !is_confirmed {
            // A RST may be forged as the SYN was.
            let is_reset = state & STATE_CLIENT_RESET != 0;
            return if is_reset { self.tcp_closed.min(self.half_open) } else { self.half_open };
        }
        if state & STATE_CLOSING != 0 { self.tcp_transitory } else { self.tcp_established }
    }

    /// An ABORT has its association's tag, which nobody guesses, so either side's counts at once.
    #[inline(always)]
    fn of_sctp(&self, state: u32) -> u32 {
        const RESET: u32 = STATE_CLIENT_RESET | STATE_BACKEND_RESET;
        const BOTH_FIN: u32 = STATE_CLIENT_FIN | STATE_BACKEND_FIN;
        if state & RESET != 0 || state & BOTH_FIN == BOTH_FIN {
            self.sctp_closed
        } else if state & STATE_CONFIRMED == 0 {
            self.half_open
        } else if state & STATE_CLOSING != 0 {
            self.sctp_shutdown
        } else {
            self.sctp_established
        }
    }

    /// That of a flow whose service has one of its own, or 0: it takes the place of the two for flows at work, and is an
    /// upper bound of the others.
    #[must_use]
    #[inline(always)]
    pub fn of_service(&self, protocol: u8, state: u32, idle: u32) -> u32 {
        let usual = self.of(protocol, state);
        let is_at_work = state & STATE_CONFIRMED != 0 && state & STATE_CLOSING == 0;
        if idle != 0 && (is_at_work || idle < usual) { idle } else { usual }
    }
}

/// Ticks that are at least so many seconds: one for what is cut off, and one since the first is over at any time.
#[must_use]
pub const fn seconds(seconds: u64) -> u32 {
    ((seconds * 1_000_000_000) >> crate::tables::TICK_SHIFT) as u32 + 2
}

const _: () = assert!(size_of::<Timeouts>() == 40);

#[cfg(test)]
mod tests;
