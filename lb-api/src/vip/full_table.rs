//! What a VIP may say of a flow table that is full.

use lb_api_types::vip::{Algorithm, Backend, FullTable, Nat, NatMode, Protocol};

use super::goes_by_turns;
use crate::read::Object;

const FULL_TABLES: &[(&str, FullTable)] = &[("drop", FullTable::Drop), ("hash", FullTable::Hash)];

/// Packets go on without a flow only where a hash alone chooses the backend, and no answer comes back here or its source says
/// whose it is.
pub(super) fn read(
    spec: &Object<'_>,
    protocol: Option<Protocol>,
    nat: Option<&Nat>,
    algorithm: Option<Algorithm>,
    backends: Option<&[Backend]>,
) -> Option<FullTable> {
    let Some(cursor) = spec.field("full_table") else { return Some(FullTable::Drop) };
    let bound = backends.unwrap_or_default().iter().any(|backend| backend.max_flows.is_some());
    let by_more =
        algorithm.is_some_and(goes_by_turns) || spec.field("affinity_secs").is_some() || bound;
    match cursor.one_of(FULL_TABLES)? {
        FullTable::Hash if nat.is_some_and(|nat| matches!(nat.mode, NatMode::FullNat | NatMode::OneArm)) => {
            cursor.wrong(
                "is `hash`, but who comes from a source port of ours is known by the flow alone: use `drop`, or a `nat.mode` of \
                 `dnat` or direct server return",
            )
        }
        FullTable::Hash
            if nat.is_some_and(|nat| !nat.mode.is_dsr())
                && (spec.field("last_port").is_some()
                    || matches!(protocol, Some(Protocol::Sctp | Protocol::Icmp))) =>
        {
            cursor.wrong(
                "is `hash`, but with `dnat` that is for one port of tcp or udp: use `drop`, or a `nat.mode` of direct server return",
            )
        }
        FullTable::Hash if by_more => cursor.wrong(
            "is `hash`, but more than a hash chooses the backend: use `drop`, or `maglev` or `source-hash` without affinity_secs and max_flows of backends",
        ),
        full_table @ (FullTable::Drop | FullTable::Hash) => Some(full_table),
    }
}
