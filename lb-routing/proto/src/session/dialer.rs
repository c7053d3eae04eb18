//! The part of the FSM that has no connection yet: Idle, Connect and Active (RFC 4271 §8.2.2).

use std::time::Instant;

use crate::speaker::State;

/// Where the search for a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialer {
    /// Refuses connections until the IdleHoldTimer fires; without one, stopped for good.
    Idle {
        /// IdleHoldTimer.
        until: Option<Instant>,
    },
    /// A connect is under way.
    Connect {
        /// ConnectRetryTimer.
        retry_at: Instant,
    },
    /// Listens. Without a timer the neighbour is passive to us, or a connection is there already.
    Active {
        /// ConnectRetryTimer.
        retry_at: Option<Instant>,
    },
}

impl Dialer {
    pub(crate) const fn state(self) -> State {
        match self {
            Self::Idle { .. } => State::Idle,
            Self::Connect { .. } => State::Connect,
            Self::Active { .. } => State::Active,
        }
    }

    /// The one timer that runs.
    pub(crate) const fn timer(self) -> Option<Instant> {
        match self {
            Self::Idle { until } => until,
            Self::Connect { retry_at } => Some(retry_at),
            Self::Active { retry_at } => retry_at,
        }
    }
}
