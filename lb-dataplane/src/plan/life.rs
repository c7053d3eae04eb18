//! What backends' entries say of their flows' life, for whoever looks for flows that are over.

use lb_dataplane_common::flow::{TCP, UDP};
use lb_dataplane_common::service::BackendEntry;

/// What a backend says of the life of its flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLife {
    /// Ticks for which they may be silent; 0 for what holds for all flows.
    pub idle: u32,
    /// Whether those of TCP and SCTP end now.
    pub ends_tcp: bool,
    /// Whether UDP's end now.
    pub ends_udp: bool,
}

impl FlowLife {
    pub(super) fn of(entry: &BackendEntry) -> Self {
        Self { idle: entry.idle, ends_tcp: entry.ends_flows(TCP), ends_udp: entry.ends_flows(UDP) }
    }

    /// Whether flows of a protocol end now.
    pub fn ends(self, protocol: u8) -> bool {
        if protocol == UDP { self.ends_udp } else { self.ends_tcp }
    }
}

/// Of a backend that there never was.
impl Default for FlowLife {
    fn default() -> Self {
        Self { idle: 0, ends_tcp: false, ends_udp: true }
    }
}
