//! The programs of a hook, one after the other.

use super::{ModelPacket, ModelTables};
use crate::family::{V4, V6};
use crate::pipeline::{Next, Outcome, begin, forward_established, forward_found};

/// A packet's whole way, by the programs of a hook.
pub(crate) fn process<const RESOLVES: bool>(
    packet: &mut ModelPacket<RESOLVES>,
    tables: &ModelTables,
) -> Outcome {
    let before = packet.device_sum();
    let outcome =
        forward_established(packet, tables).unwrap_or_else(|next| go_on(packet, tables, next));
    packet.check_device_sum(before, outcome.reason);
    outcome
}

/// The way of a packet that the first of them leaves to the others.
pub(crate) fn go_on<const RESOLVES: bool>(
    packet: &mut ModelPacket<RESOLVES>,
    tables: &ModelTables,
    next: Next,
) -> Outcome {
    match next {
        Next::Find => {
            forward_found(packet, tables).unwrap_or_else(|next| go_on(packet, tables, next))
        }
        Next::Begin => begin::<V4, _, _>(packet, tables),
        Next::Begin6 => begin::<V6, _, _>(packet, tables),
    }
}
