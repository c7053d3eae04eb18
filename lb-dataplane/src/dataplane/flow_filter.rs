//! Flows as a list has them, and which ones it is of.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnetwork::IpNetwork;
use lb_dataplane_common::flow::{STATE_CLOSING, STATE_CONFIRMED, STATE_REPLIED};

use crate::table::Protocol;

/// A flow: one client's connection through a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The transport.
    pub protocol: Protocol,
    /// Client's address and port, or its identifier of echoes.
    pub client: SocketAddr,
    /// VIP and port.
    pub vip: SocketAddr,
    /// Backend and port.
    pub backend: SocketAddr,
    /// How far its life is.
    pub state: FlowState,
    /// Since the last packet of either direction, to about a second.
    pub idle: Duration,
}

/// How far a flow's life is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowState {
    /// Its backend has not answered yet or, with TCP and SCTP, the handshake is not done.
    HalfOpen,
    /// It is at work.
    Established,
    /// A side has sent a FIN or a RST, or what means the same in SCTP.
    Closing,
}

impl FlowState {
    pub(super) fn of(protocol: Protocol, state: u32) -> Self {
        let is_open = match protocol {
            Protocol::Tcp | Protocol::Sctp => state & STATE_CONFIRMED != 0,
            Protocol::Udp | Protocol::Icmp => state & STATE_REPLIED != 0,
        };
        if state & STATE_CLOSING != 0 {
            Self::Closing
        } else if is_open {
            Self::Established
        } else {
            Self::HalfOpen
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HalfOpen => "half-open",
            Self::Established => "established",
            Self::Closing => "closing",
        }
    }
}

/// Which flows are asked for: those of which all that is said holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowFilter {
    /// The client's address is one of these.
    pub client: Option<IpNetwork>,
    /// The VIP's address and ports.
    pub vip: Option<(IpAddr, RangeInclusive<u16>)>,
    /// The backend's address and ports.
    pub backend: Option<(IpAddr, RangeInclusive<u16>)>,
    /// The transport.
    pub protocol: Option<Protocol>,
    /// How far its life is.
    pub state: Option<FlowState>,
}

impl FlowFilter {
    /// Whether every flow is asked for.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a flow is asked for.
    #[must_use]
    pub fn takes(&self, flow: &Flow) -> bool {
        let is_at = |wanted: &Option<(IpAddr, RangeInclusive<u16>)>, is: SocketAddr| {
            wanted
                .as_ref()
                .is_none_or(|(address, ports)| *address == is.ip() && ports.contains(&is.port()))
        };
        self.client.is_none_or(|clients| clients.contains(flow.client.ip()))
            && is_at(&self.vip, flow.vip)
            && is_at(&self.backend, flow.backend)
            && self.protocol.is_none_or(|protocol| protocol == flow.protocol)
            && self.state.is_none_or(|state| state == flow.state)
    }
}
