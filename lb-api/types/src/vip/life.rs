//! What a VIP says of its flows' life: what becomes of them where something runs out.

use serde::{Deserialize, Serialize};

/// What becomes of a backend's flows when its health checks fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum OnUnhealthy {
    /// They stay until they end or fall silent. TCP's default: a check may be wrong about a connection.
    Keep,
    /// They end within some seconds. UDP's default: a client that goes on is given to another backend.
    Drop,
    /// They end so, and both sides hear a RST. Only with TCP, and not with direct server return.
    Reset,
}

/// What a client hears of a new flow for which no source port is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum OnExhaustion {
    /// Nothing.
    #[default]
    Drop,
    /// A RST. Only with TCP.
    Reset,
    /// An ICMP error: no way to the host (RFC 6888 REQ-8, RFC 6146).
    Icmp,
}

impl OnExhaustion {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    pub(super) fn is_default(&self) -> bool {
        *self == Self::Drop
    }
}
