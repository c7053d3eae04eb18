//! What a VIP may say of its flows' life.

use lb_api_types::vip::{NatMode, OnExhaustion, OnUnhealthy, Protocol};

use crate::read::{Cursor, Object};

const ON_UNHEALTHY: &[(&str, OnUnhealthy)] =
    &[("keep", OnUnhealthy::Keep), ("drop", OnUnhealthy::Drop), ("reset", OnUnhealthy::Reset)];
const ON_EXHAUSTION: &[(&str, OnExhaustion)] =
    &[("drop", OnExhaustion::Drop), ("reset", OnExhaustion::Reset), ("icmp", OnExhaustion::Icmp)];
/// Seconds for which a flow may be silent at most: as many as the configuration's own time-outs.
const MAX_IDLE_SECS: u32 = 604_800;

/// How long flows live.
pub(super) struct Life {
    pub(super) idle_timeout_secs: Option<u32>,
    pub(super) reset_on_expiry: bool,
    pub(super) on_unhealthy: Option<OnUnhealthy>,
}

/// Reads what the spec says of it. A RST needs both sides' sequence numbers, so a protocol that has them and packets of both
/// directions.
pub(super) fn read(
    spec: &Object<'_>,
    protocol: Option<Protocol>,
    mode: Option<NatMode>,
) -> Option<Life> {
    let idle_timeout_secs = match spec.field("idle_timeout_secs") {
        None => Some(None),
        Some(seconds) => seconds.number(1..=MAX_IDLE_SECS).map(Some),
    };
    let reset_on_expiry = match spec.field("reset_on_expiry") {
        None => Some(false),
        Some(cursor) => match cursor.boolean() {
            Some(true) => can_reset(&cursor, "is true", protocol, mode).map(|()| true),
            said => said,
        },
    };
    let on_unhealthy = match spec.field("on_unhealthy") {
        None => Some(None),
        Some(cursor) => match cursor.one_of(ON_UNHEALTHY) {
            Some(OnUnhealthy::Reset) => {
                can_reset(&cursor, "is `reset`", protocol, mode).map(|()| Some(OnUnhealthy::Reset))
            }
            said => said.map(Some),
        },
    };
    Some(Life {
        idle_timeout_secs: idle_timeout_secs?,
        reset_on_expiry: reset_on_expiry?,
        on_unhealthy: on_unhealthy?,
    })
}

fn can_reset(
    cursor: &Cursor<'_>,
    said: &str,
    protocol: Option<Protocol>,
    mode: Option<NatMode>,
) -> Option<()> {
    let why = match protocol {
        Some(Protocol::Udp) => "UDP knows no reset",
        Some(Protocol::Sctp) => "lbd ends no association of SCTP for its sides",
        Some(Protocol::Icmp) => "echoes know no reset",
        Some(Protocol::Tcp) | None => "",
    };
    if !why.is_empty() {
        return cursor.wrong(format!("{said}, but {why}: leave it out"));
    }
    if mode.is_some_and(NatMode::is_dsr) {
        return cursor.wrong(format!(
            "{said}, but with direct server return lbd does not see what a reset would have to say: leave it out, or use \
             another `nat.mode`"
        ));
    }
    Some(())
}

/// Reads what clients hear who find no source port.
pub(super) fn on_exhaustion(
    nat: &Object<'_>,
    protocol: Option<Protocol>,
    mode: Option<NatMode>,
) -> Option<OnExhaustion> {
    let Some(cursor) = nat.field("on_exhaustion") else { return Some(OnExhaustion::Drop) };
    let said = cursor.one_of(ON_EXHAUSTION)?;
    if said == OnExhaustion::Drop {
        return Some(said);
    }
    if mode.is_some_and(|mode| !matches!(mode, NatMode::FullNat | NatMode::OneArm)) {
        return cursor.wrong(
            "is for the modes that need source ports, `full-nat` and `one-arm`: set one of them, or leave it out",
        );
    }
    if said == OnExhaustion::Reset {
        match protocol {
            Some(Protocol::Udp) => {
                return cursor.wrong("is `reset`, but UDP knows none: use `icmp` or `drop`");
            }
            Some(Protocol::Sctp) => {
                return cursor
                    .wrong("is `reset`, but lbd sends none of SCTP's: use `icmp` or `drop`");
            }
            Some(Protocol::Icmp) => {
                return cursor.wrong("is `reset`, but echoes know none: use `icmp` or `drop`");
            }
            Some(Protocol::Tcp) | None => {}
        }
    }
    Some(said)
}
