//! A new flow: which backend, and its two entries.
//!
//! What begins a flow: any UDP datagram; a TCP SYN; and where every node chooses alike, by a hash, any other TCP segment but
//! a RST, since the flow may have begun on another node that ECMP has moved it away from. What goes by turns, by load, by
//! where a client was before or from a source port of ours is known to one node only: there a segment of no flow is
//! dropped, counted.

use crate::flow::{
    DIRECTION_TO_BACKEND, DIRECTION_TO_CLIENT, Flow, FlowEntry, FlowKey, STATE_CLIENT_FIN,
    STATE_CLOSING, STATE_EXPIRING, TCP, Translation, ticks_since,
};
use crate::hash::FlowHash;
use crate::parse::{TCP_FIN, TCP_RST, TCP_SYN};
use crate::pipeline::{Arrival, Scratch, Step, end, peer_key};
use crate::reason::Reason;
use crate::service::{
    ALGORITHM_LEAST_CONNECTIONS, ALGORITHM_ROUND_ROBIN, ALGORITHM_SOURCE_HASH, Affinity,
    AffinityKey, BackendEntry, ServiceEntry,
};
use crate::tables::{InsertError, Tables};

/// Begins a flow; it is not new if another CPU has just begun it.
///
/// # Errors
///
/// The reason for which this packet begins none.
#[inline(always)]
pub fn begin<T: Tables>(
    tables: &T,
    service: &ServiceEntry,
    scratch: &mut Scratch,
) -> Result<(), Reason> {
    let Scratch { arrival, step, made, .. } = scratch;
    let (key, flags) = (&arrival.key, arrival.flags);
    let mut state = 0;
    let is_later_segment = key.protocol == TCP && !arrival.is_first_of_connection();
    if is_later_segment {
        if !service.chooses_alike_everywhere() || flags & (TCP_RST | TCP_SYN) != 0 {
            return Err(Reason::UnknownFlow);
        }
        if flags & TCP_FIN != 0 {
            state = STATE_CLIENT_FIN;
        }
    }
    let client = AffinityKey { client: bytes_of(key.source), service: service.id };
    let id = match remembered(tables, service, &client) {
        Some(id) => id,
        None => choose(tables, arrival, service)?,
    };
    let backend = tables.backend(id).ok_or(Reason::TableFault)?;
    if is_later_segment && backend.sources_len != 0 {
        // Its source port is what another node chose.
        return Err(Reason::UnknownFlow);
    }
    made.after = FlowKey {
        source: key.source,
        destination: ipv4(backend.address),
        source_port: key.source_port,
        destination_port: u16::from_ne_bytes(backend.port),
        protocol: key.protocol,
        pad: [0; 3],
    };
    let untranslated = Translation::default();
    made.entry = FlowEntry::new(untranslated, service.id, id, state, tables.now());
    made.entry.direction = DIRECTION_TO_CLIENT;
    if backend.sources_len == 0 {
        insert_back(tables, key, made)?;
    } else {
        insert_back_from_a_source(tables, arrival, backend, made)?;
    }
    step.is_new = insert(tables, key, made, step)?;
    step.direction = DIRECTION_TO_BACKEND;
    step.is_flow = true;
    if service.affinity != 0 && step.is_new {
        tables.note_affinity(&client, &Affinity { backend: id, begun: tables.now() });
    }
    tables.count_flow_packet(made.entry.service, made.entry.backend, arrival.bytes);
    Ok(())
}

/// The IPv4 address in the first four bytes.
#[inline(always)]
fn ipv4([a, b, c, d, ..]: [u8; 16]) -> u32 {
    u32::from_ne_bytes([a, b, c, d])
}

/// An IPv4 address as the first four bytes.
#[inline(always)]
fn bytes_of(address: u32) -> [u8; 16] {
    let [a, b, c, d] = address.to_ne_bytes();
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// Where a new flow's entries are made.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Composed {
    /// The entry, of one direction and then of the other.
    pub entry: FlowEntry,
    /// The key that packets to the backend have behind us.
    pub after: FlowKey,
    /// The key of packets from the backend.
    pub back: FlowKey,
}

impl Composed {
    /// Turns to the direction to the client.
    #[inline(always)]
    fn turn_back(&mut self, key: &FlowKey) {
        self.back = self.after.reversed();
        self.entry.translation = Translation::between(&self.back, &key.reversed());
    }
}

/// Where a client's last flow went, if that is not too long ago and the backend takes new flows.
#[inline(always)]
fn remembered<T: Tables>(tables: &T, service: &ServiceEntry, client: &AffinityKey) -> Option<u32> {
    if service.affinity == 0 {
        return None;
    }
    let last = tables.affinity(client)?;
    let is_valid = ticks_since(last.begun, tables.now()) < service.affinity
        && tables.backend(last.backend)?.takes_new_flows_of(service.id);
    if is_valid { Some(last.backend) } else { None }
}

#[inline(always)]
fn choose<T: Tables>(tables: &T, arrival: &Arrival, service: &ServiceEntry) -> Result<u32, Reason> {
    let len = service.ring_len;
    if len == 0 {
        return Err(Reason::NoBackend);
    }
    let at =
        |index: u32| tables.ring(service.ring_base.wrapping_add(index)).ok_or(Reason::TableFault);
    let index = match service.algorithm {
        ALGORITHM_ROUND_ROBIN => {
            let round = tables.next_round(service.id).ok_or(Reason::TableFault)?;
            (round % u64::from(len)) as u32
        }
        ALGORITHM_SOURCE_HASH => FlowHash::of_source(arrival.key.source).for_backend() % len,
        _ => arrival.hash.for_backend() % len,
    };
    let chosen = at(index)?;
    if service.algorithm != ALGORITHM_LEAST_CONNECTIONS || len == 1 {
        return Ok(chosen);
    }
    // Another place, never the same one.
    let step = 1 + arrival.hash.for_route() % (len - 1);
    let other = index.wrapping_add(step) % len;
    let other = at(other)?;
    let weight = |id| tables.backend(id).map(|backend| u64::from(backend.weight));
    let (mine, its) = (weight(chosen), weight(other));
    let (mine, its) = (mine.ok_or(Reason::TableFault)?, its.ok_or(Reason::TableFault)?);
    let is_freer = tables.load(other).wrapping_mul(mine) < tables.load(chosen).wrapping_mul(its);
    Ok(if is_freer { other } else { chosen })
}

/// Inserts the direction to the backend, after the one back: an answer that finds none would reach the client from the
/// backend's own address.
#[inline(always)]
fn insert<T: Tables>(
    tables: &T,
    key: &FlowKey,
    made: &mut Composed,
    step: &mut Step,
) -> Result<bool, Reason> {
    made.entry.translation = Translation::between(key, &made.after);
    made.entry.direction = DIRECTION_TO_BACKEND;
    step.translation = made.entry.translation;
    match tables.insert_flow(key, &made.entry) {
        Ok(()) => {
            tables.count_new_flow(made.entry.service, made.entry.backend);
            Ok(true)
        }
        Err(InsertError::Full) => {
            tables.remove_flow(&made.back);
            Err(Reason::FlowTableFull)
        }
        // Another CPU has had a packet of this flow at the same time; its choice stands.
        Err(InsertError::Exists) => {
            let first = tables.flow(key).ok_or(Reason::FlowCollision)?;
            if peer_key(key, &first) != made.back {
                tables.remove_flow(&made.back);
            }
            step.translation = first.translation();
            made.entry.backend = first.backend();
            Ok(false)
        }
    }
}

/// Ports that are tried for a new flow: with nine of ten in use, chance alone would fail it once in a thousand times.
const PORT_TRIES: u32 = 64;
/// Ports in a row that are tried before the search goes on elsewhere: another CPU may have used many in a row.
const PORTS_IN_A_ROW: u32 = 4;

/// Inserts the direction to the client for a flow that comes from an address of ours: the entry is what reserves the port
/// there, so no two flows to a backend share one. Each CPU begins elsewhere and goes on port by port, so that a port rests for
/// as long as possible before it is used again.
#[inline(always)]
fn insert_back_from_a_source<T: Tables>(
    tables: &T,
    arrival: &Arrival,
    backend: &BackendEntry,
    made: &mut Composed,
) -> Result<(), Reason> {
    let index = arrival.hash.for_route() % backend.sources_len;
    let source =
        tables.source(backend.sources_base.wrapping_add(index)).ok_or(Reason::TableFault)?;
    made.after.source = ipv4(source.address);
    let mut tries = 0;
    while tries < PORT_TRIES {
        tries += 1;
        let port = tables.next_number() % (u32::from(source.more_ports) + 1);
        made.after.source_port = source.first_port.wrapping_add(port as u16).to_be();
        made.turn_back(&arrival.key);
        match tables.insert_flow(&made.back, &made.entry) {
            Ok(()) => return Ok(()),
            Err(InsertError::Full) => return Err(Reason::FlowTableFull),
            Err(InsertError::Exists) => {}
        }
        if tries % PORTS_IN_A_ROW == 0 {
            tables.jump_numbers();
        }
    }
    Err(Reason::NoSourcePort)
}

/// Inserts the direction to the client for a flow that keeps its client's address. An entry that is there already is this
/// flow's own, what a closing flow left (it makes room), or a live flow of the same client port through another service:
/// two flows that a backend cannot tell apart.
#[inline(always)]
fn insert_back<T: Tables>(tables: &T, key: &FlowKey, made: &mut Composed) -> Result<(), Reason> {
    made.turn_back(key);
    match tables.insert_flow(&made.back, &made.entry) {
        Ok(()) => return Ok(()),
        Err(InsertError::Full) => return Err(Reason::FlowTableFull),
        Err(InsertError::Exists) => {}
    }
    if let Some(old) = tables.flow(&made.back) {
        let state = old.state();
        if state & STATE_EXPIRING != 0 {
            return Err(Reason::FlowExpiring);
        }
        let old_there = peer_key(&made.back, &old);
        if state & STATE_CLOSING == 0 {
            return if old_there == *key { Ok(()) } else { Err(Reason::FlowCollision) };
        }
        match tables.flow(&old_there) {
            Some(there) if peer_key(&old_there, &there) == made.back => {
                end(tables, &old_there, &there)?;
            }
            // The one back was left alone.
            Some(_) | None => {
                tables.remove_flow(&made.back);
            }
        }
    }
    match tables.insert_flow(&made.back, &made.entry) {
        Ok(()) => Ok(()),
        Err(InsertError::Full) => Err(Reason::FlowTableFull),
        Err(InsertError::Exists) => Err(Reason::FlowCollision),
    }
}
