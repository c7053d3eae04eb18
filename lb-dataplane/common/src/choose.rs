//! A new flow: which backend, and its two entries.
//!
//! What begins a flow: any UDP datagram; a TCP SYN; and under Maglev any other TCP segment but a RST, since the flow may
//! have begun on another node of the same ring that ECMP has moved it away from. Round robin has no such memory, so there
//! a segment of no flow is dropped, counted.

use crate::flow::{
    DIRECTION_TO_BACKEND, DIRECTION_TO_CLIENT, Flow, FlowEntry, FlowKey, STATE_CLIENT_FIN,
    STATE_CLOSING, STATE_EXPIRING, TCP, Translation,
};
use crate::hash::FlowHash;
use crate::parse::{TCP_FIN, TCP_RST, TCP_SYN};
use crate::pipeline::{Arrival, Step, peer_key};
use crate::reason::Reason;
use crate::service::{ALGORITHM_ROUND_ROBIN, ServiceEntry};
use crate::tables::{InsertError, Tables};

/// Begins a flow; `false` if another CPU has just begun it.
///
/// # Errors
///
/// The reason for which this packet begins none.
#[inline(always)]
pub fn begin<T: Tables>(
    tables: &T,
    arrival: &Arrival,
    service: &ServiceEntry,
    now: u32,
    step: &mut Step,
) -> Result<bool, Reason> {
    let (key, flags) = (&arrival.key, arrival.flags);
    let mut state = 0;
    if key.protocol == TCP && !arrival.is_first_of_connection() {
        if service.algorithm == ALGORITHM_ROUND_ROBIN || flags & (TCP_RST | TCP_SYN) != 0 {
            return Err(Reason::UnknownFlow);
        }
        if flags & TCP_FIN != 0 {
            state = STATE_CLIENT_FIN;
        }
    }
    let id = choose(tables, arrival.hash, service)?;
    let backend = tables.backend(id).ok_or(Reason::TableFault)?;
    let [a, b, c, d, ..] = backend.address;
    let after = FlowKey {
        source: key.source,
        destination: u32::from_ne_bytes([a, b, c, d]),
        source_port: key.source_port,
        destination_port: u16::from_ne_bytes(backend.port),
        protocol: key.protocol,
        pad: [0; 3],
    };
    step.translation = Translation::between(key, &after);
    step.direction = DIRECTION_TO_BACKEND;
    step.is_flow = true;
    let inserted = tables.compose(|entry| {
        *entry = FlowEntry::new(step.translation, service.id, id, state, now);
        let is_new = insert(tables, key, &after, entry, step)?;
        tables.count_flow_packet(entry.service, entry.backend, arrival.bytes);
        Ok(is_new)
    });
    inserted.ok_or(Reason::TableFault)?
}

#[inline(always)]
fn choose<T: Tables>(tables: &T, hash: FlowHash, service: &ServiceEntry) -> Result<u32, Reason> {
    if service.ring_len == 0 {
        return Err(Reason::NoBackend);
    }
    let index = if service.algorithm == ALGORITHM_ROUND_ROBIN {
        let round = tables.next_round(service.id).ok_or(Reason::TableFault)?;
        (round % u64::from(service.ring_len)) as u32
    } else {
        hash.for_backend() % service.ring_len
    };
    tables.ring(service.ring_base.wrapping_add(index)).ok_or(Reason::TableFault)
}

/// Inserts both directions. The one back comes first: an answer that finds none would reach the client from the backend's
/// own address.
#[inline(always)]
fn insert<T: Tables>(
    tables: &T,
    key: &FlowKey,
    after: &FlowKey,
    entry: &mut FlowEntry,
    step: &mut Step,
) -> Result<bool, Reason> {
    let back_key = after.reversed();
    entry.translation = Translation::between(&back_key, &key.reversed());
    entry.direction = DIRECTION_TO_CLIENT;
    insert_back(tables, key, &back_key, entry)?;
    entry.translation = step.translation;
    entry.direction = DIRECTION_TO_BACKEND;
    match tables.insert_flow(key, entry) {
        Ok(()) => {
            tables.count_new_flow(entry.service, entry.backend);
            Ok(true)
        }
        Err(InsertError::Full) => {
            tables.remove_flow(&back_key);
            Err(Reason::FlowTableFull)
        }
        // Another CPU has had a packet of this flow at the same time; its choice stands.
        Err(InsertError::Exists) => {
            let first = tables.flow(key).ok_or(Reason::FlowCollision)?;
            if peer_key(key, &first) != back_key {
                tables.remove_flow(&back_key);
            }
            step.translation = first.translation();
            entry.backend = first.backend();
            Ok(false)
        }
    }
}

/// Inserts the direction to the client. An entry that is there already is this flow's own, what a closing flow left (it
/// makes room), or a live flow of the same client port through another service: two flows that a backend cannot tell
/// apart.
#[inline(always)]
fn insert_back<T: Tables>(
    tables: &T,
    key: &FlowKey,
    back_key: &FlowKey,
    entry: &FlowEntry,
) -> Result<(), Reason> {
    match tables.insert_flow(back_key, entry) {
        Ok(()) => return Ok(()),
        Err(InsertError::Full) => return Err(Reason::FlowTableFull),
        Err(InsertError::Exists) => {}
    }
    if let Some(old) = tables.flow(back_key) {
        let state = old.state();
        if state & STATE_EXPIRING != 0 {
            return Err(Reason::FlowExpiring);
        }
        let old_there = peer_key(back_key, &old);
        if state & STATE_CLOSING == 0 {
            return if old_there == *key { Ok(()) } else { Err(Reason::FlowCollision) };
        }
        tables.remove_flow(&old_there);
        tables.remove_flow(back_key);
    }
    match tables.insert_flow(back_key, entry) {
        Ok(()) => Ok(()),
        Err(InsertError::Full) => Err(Reason::FlowTableFull),
        Err(InsertError::Exists) => Err(Reason::FlowCollision),
    }
}
