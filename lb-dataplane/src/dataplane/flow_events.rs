//! Reading what the programs tell of flows that are watched.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use lb_dataplane_common::family::V6;
use lb_dataplane_common::flow::{
    FlowKey, STATE_BACKEND_FIN, STATE_BACKEND_RESET, STATE_CLIENT_FIN, STATE_CLIENT_RESET,
    STATE_CONFIRMED, UDP,
};
use lb_dataplane_common::sample::{EVENT_END, EVICTED};

use super::flows::end;
use crate::error::ReadError;
use crate::table::Protocol;

/// The ring of events. Its descriptor is readable when there is one.
pub struct FlowEvents(RingBuf<MapData>);

/// What happened to a flow that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowEvent {
    /// The transport.
    pub protocol: Protocol,
    /// Client's address and port.
    pub client: SocketAddr,
    /// VIP and port.
    pub vip: SocketAddr,
    /// Whom the backend takes for its client.
    pub source: SocketAddr,
    /// Backend and port.
    pub backend: SocketAddr,
    /// How it ended; `None` of one that began.
    pub end: Option<FlowEnd>,
}

/// How a flow ended, and what there was of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowEnd {
    /// How.
    pub how: HowEnded,
    /// From its first packet to the one that closed it, or to its removal.
    pub duration: Duration,
    /// Packets to the backend and to the client.
    pub packets: [u64; 2],
    /// Bytes of their frames.
    pub bytes: [u64; 2],
}

/// How a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HowEnded {
    /// Both sides closed it.
    Closed,
    /// A side reset it.
    Reset,
    /// It was silent for too long, or one side closed and the other never did, or it lost its backend.
    Expired,
    /// Its client never answered its backend.
    HalfOpen,
    /// The same, and it had to make room for another.
    Evicted,
}

impl HowEnded {
    fn of(protocol: u8, state: u32) -> Self {
        const BOTH_FIN: u32 = STATE_CLIENT_FIN | STATE_BACKEND_FIN;
        if state & EVICTED != 0 {
            Self::Evicted
        } else if state & (STATE_BACKEND_RESET | STATE_CLIENT_RESET) != 0 {
            Self::Reset
        } else if state & BOTH_FIN == BOTH_FIN {
            Self::Closed
        } else if protocol != UDP && state & STATE_CONFIRMED == 0 {
            Self::HalfOpen
        } else {
            Self::Expired
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Expired => "expired",
            Self::HalfOpen => "half-open",
            Self::Evicted => "evicted",
        }
    }
}

/// Opens the ring; `None` if it was taken before.
pub(super) fn take(ebpf: &mut Ebpf) -> Result<Option<FlowEvents>, ReadError> {
    let failed = |source| ReadError { map: "FLOW_EVENTS", source: io::Error::other(source) };
    let Some(map) = ebpf.take_map("FLOW_EVENTS") else { return Ok(None) };
    RingBuf::try_from(map).map(|ring| Some(FlowEvents(ring))).map_err(failed)
}

impl FlowEvents {
    /// The next event; `None` when there is nothing more to read.
    pub fn next_event(&mut self) -> Option<FlowEvent> {
        loop {
            // What is no event of this layout is nobody's.
            if let Some(event) = decode(&self.0.next()?) {
                return Some(event);
            }
        }
    }
}

impl AsFd for FlowEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// An element of the ring, by its layout.
fn decode(item: &[u8]) -> Option<FlowEvent> {
    let word = |at: usize| item.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes);
    let long = |at: usize| item.get(at..)?.first_chunk().copied().map(u64::from_ne_bytes);
    let half = |at: usize| item.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes);
    let key = |at: usize| -> Option<FlowKey<V6>> {
        let mut words = [0; 20];
        for (n, to) in words.iter_mut().enumerate() {
            *to = half(at + 2 * n)?;
        }
        Some(FlowKey::<V6>::from_words(words))
    };
    let (kind, state, at, arriving) = (word(0)?, word(4)?, long(8)?, key(16)?);
    let (begun, after) = (long(56)?, key(96)?);
    let ended = || {
        Some(FlowEnd {
            how: HowEnded::of(arriving.protocol(), state),
            duration: Duration::from_nanos(at.saturating_sub(begun)),
            packets: [long(64)?, long(72)?],
            bytes: [long(80)?, long(88)?],
        })
    };
    Some(FlowEvent {
        protocol: Protocol::from_number(arriving.protocol())?,
        client: end(arriving.source, arriving.source_port),
        vip: end(arriving.destination, arriving.destination_port),
        source: end(after.source, after.source_port),
        backend: end(after.destination, after.destination_port),
        end: if kind == EVENT_END { Some(ended()?) } else { None },
    })
}
