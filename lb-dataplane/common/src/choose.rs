//! A new flow: which backend.
//!
//! What begins a flow: any UDP datagram; a TCP SYN, or SCTP's INIT; and where every node chooses alike, by a hash, any other
//! TCP segment but a RST, or of SCTP what stands for such, since the flow may have begun on another node that ECMP has moved
//! it away from. What goes by turns, by load, by where a client was before or from a source port of ours is known to one node
//! only: there a packet of no flow is dropped, counted.

mod add;
mod bounds;
mod insert;
mod overdue;
mod ports;

#[cfg(test)]
pub(crate) use self::add::MOST_ADDS;
pub(crate) use self::bounds::admit_open;
use self::bounds::{admit, with_room};
pub use self::insert::{Composed, insert, insert_back, insert_back_of_echo};
pub use self::ports::find_port;
use crate::family::{self, Family, V6};
use crate::flow::{
    FlowKey, SCTP, STATE_ACROSS, STATE_CLIENT_FIN, STATE_RESETS, STATE_SAMPLED, TCP, has_handshake,
    mode_of, state_of_mode, ticks_since,
};
use crate::hash::FlowHash;
use crate::line;
use crate::parse::{TCP_FIN, TCP_RST, TCP_SYN};
use crate::pipeline::{Arrival, NO_VIP, Scratch, vip_flags};
use crate::reason::Reason;
use crate::sample;
use crate::sctp;
use crate::service::{
    ALGORITHM_LEAST_CONNECTIONS, ALGORITHM_ROUND_ROBIN, ALGORITHM_SOURCE_HASH, AffinityKey,
    BackendEntry, MODE_L2, MODE_NAT, RangeKey, SERVICE_BOUNDS_BACKENDS, SERVICE_BOUNDS_FLOWS,
    SERVICE_HASHES_WHEN_FULL, SERVICE_LISTS_CLIENTS, ServiceEntry, VipKey, counted_as,
};
use crate::tables::{FamilyTables, Tables, TablesOf};

/// Chooses a backend for the flow that a packet begins, if it is for a service: then `step.begins`.
///
/// # Errors
///
/// The reason for which this packet begins none.
#[inline(never)]
pub fn backend<A: Family, T: TablesOf<A>>(
    tables: &T,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    let Scratch { arrival, step, made, .. } = scratch;
    let (key, flags) = (&arrival.key, arrival.flags);
    let mut first_port = key.destination_port;
    let service = match service_from(tables, key, first_port) {
        Some(service) => service,
        None => {
            step.vip_flags = vip_flags(tables, key.destination);
            let Some(first) = range_of(tables, key, step.vip_flags) else { return Ok(()) };
            first_port = first;
            let Some(service) = service_from(tables, key, first) else { return Ok(()) };
            service
        }
    };
    let generation = service.generation;
    if service.flags & SERVICE_LISTS_CLIENTS != 0 {
        check_access(tables, service, key.source)?;
    }
    let mut state = 0;
    let is_later_segment = has_handshake(key.protocol()) && !arrival.is_first_of_connection();
    if is_later_segment {
        if !service.chooses_alike_everywhere() || flags & (TCP_RST | TCP_SYN) != 0 {
            return Err(Reason::UnknownFlow);
        }
        if flags & TCP_FIN != 0 {
            state = STATE_CLIENT_FIN;
        }
    }
    if service.flags & SERVICE_BOUNDS_FLOWS != 0 {
        admit(tables, service, key.source)?;
    }
    let mut id = match remembered(tables, service, key.source) {
        Some(id) => id,
        None => choose(tables, arrival, service)?,
    };
    id = FamilyTables::<A>::not_itself(tables, service, key, id);
    if service.flags & SERVICE_BOUNDS_BACKENDS != 0 {
        id = with_room(tables, service, key, id)?;
    }
    let backend = tables.backend(id).ok_or(Reason::TableFault)?;
    let is_direct = u32::from(service.mode) != MODE_NAT;
    if is_later_segment && !is_direct && !backend.sources.is_empty() {
        // Its source port is what another node chose.
        return Err(Reason::UnknownFlow);
    }
    if backend.may_reset() && key.protocol() == TCP && !is_direct {
        state |= STATE_RESETS;
    }
    if sample::is_wanted(tables, key) {
        state |= STATE_SAMPLED;
    }
    state |= state_of_mode(service.mode);
    made.after = key.to_v6();
    made.after.destination = V6::from_bytes(backend.address);
    made.after.destination_port = port_there(backend, key.destination_port, first_port);
    (made.backend, made.sources) = (id, backend.sources);
    if is_direct && !backend.sources.is_empty() {
        let source = tables.source(backend.sources.base()).ok_or(Reason::TableFault)?;
        made.after.source = V6::from_bytes(source.address);
    } else if is_direct && u32::from(service.mode) != MODE_L2 {
        // The packets around would claim to be the client's for as long as the flow lasts.
        return Err(Reason::NoBackend);
    }
    if A::IS_V6 == family::is_mapped(made.after.destination) {
        if is_direct || backend.sources.is_empty() {
            // A client has no address in the other family.
            return Err(Reason::NoBackend);
        }
        state |= STATE_ACROSS;
        made.after.protocol = family::protocol_across::<A>(key.protocol()).into();
    }
    step.mode = mode_of(state);
    made.affinity = service.affinity;
    made.when_full = service.flags & SERVICE_HASHES_WHEN_FULL;
    made.on_exhaustion = service.on_exhaustion;
    (made.without, made.shares_way_back) = (0, 0);
    made.entry.line = line_of(tables, id)?;
    made.entry.counted_as = counted_as(service.id, tables.client_bits(A::IS_V6));
    made.entry.state = state;
    made.entry.last_seen = tables.now();
    made.entry.first_reply = first_number(tables, arrival, state);
    made.entry.mss = service.mss;
    step.begins = true;
    check_still_there(tables, key, first_port, generation)
}

/// What stands in the entry to the client, or in that which is alone, before anything else has to: the number of the flow's place among
/// the half-open ones. Of SCTP the tag of packets to the client; what it does not know yet of those to the backend the backend says.
#[inline(always)]
fn first_number<A: Family, T: TablesOf<A>>(tables: &T, arrival: &Arrival<A>, state: u32) -> u32 {
    if arrival.key.protocol() == SCTP {
        sctp::tag_to_client(arrival)
    } else if state & STATE_RESETS != 0 {
        // What is acknowledged is compared with what was.
        0
    } else {
        FamilyTables::<A>::next_half_open(tables)
    }
}

/// The line in which is counted what is a backend's.
#[inline(always)]
fn line_of<T: Tables>(tables: &T, backend: u32) -> Result<u32, Reason> {
    match tables.line_of(backend) {
        line::NONE => Err(Reason::TableFault),
        line => Ok(line),
    }
}

/// Whether the entry that was read is still the service's. If not, it was replaced meanwhile, and another's may have been written
/// where it was, even one of this service again: no two entries that follow one another have the same generation.
#[inline(always)]
fn check_still_there<A: Family, T: Tables>(
    tables: &T,
    key: &FlowKey<A>,
    first_port: u16,
    generation: u16,
) -> Result<(), Reason> {
    let still = service_from(tables, key, first_port);
    if still.is_some_and(|still| still.generation == generation) {
        Ok(())
    } else {
        Err(Reason::ServiceChanging)
    }
}

/// Whether a client may begin flows of a service that lists clients.
#[inline(always)]
fn check_access<A: Family, T: Tables>(
    tables: &T,
    service: &ServiceEntry,
    source: A,
) -> Result<(), Reason> {
    match tables.admits(service.id, source) {
        Some(true) => Ok(()),
        Some(false) => Err(Reason::SourceRefused),
        None => Err(Reason::TableFault),
    }
}

/// The service whose first port this is, at a packet's destination.
#[inline(always)]
fn service_from<'a, A: Family, T: Tables>(
    tables: &'a T,
    key: &FlowKey<A>,
    first_port: u16,
) -> Option<&'a ServiceEntry> {
    tables.service(&VipKey {
        address: key.destination.to_v6(),
        port: first_port.to_ne_bytes(),
        protocol: key.protocol(),
        pad: 0,
    })
}

/// The first port of the service of several ports that a packet to a VIP is for.
#[inline(always)]
fn range_of<A: Family, T: Tables>(tables: &T, key: &FlowKey<A>, vip_flags: u32) -> Option<u16> {
    if vip_flags == NO_VIP {
        return None;
    }
    tables.range(&RangeKey {
        address: key.destination.to_v6(),
        protocol: [0, key.protocol()],
        port: key.destination_port.to_ne_bytes(),
    })
}

/// The port at a backend that a VIP's port leads to: as far from its first as this one is from the VIP's first. The plan
/// lets no range go beyond the last port.
#[inline(always)]
fn port_there(backend: &BackendEntry, port: u16, first_port: u16) -> u16 {
    let beyond = u16::from_be(port).wrapping_sub(u16::from_be(first_port));
    u16::from_be_bytes(backend.port).wrapping_add(beyond).to_be()
}

/// Where a client's last flow went, if that is not too long ago and the backend takes new flows.
#[inline(always)]
fn remembered<A: Family, T: Tables>(tables: &T, service: &ServiceEntry, source: A) -> Option<u32> {
    if service.affinity == 0 {
        return None;
    }
    let last = tables.affinity(&client(service.id, source))?;
    let is_valid = ticks_since(last.begun, tables.now()) < service.affinity
        && tables.backend(last.backend)?.takes_new_flows_of(service.id);
    if is_valid { Some(last.backend) } else { None }
}

#[inline(always)]
fn client<A: Family>(service: u32, source: A) -> AffinityKey {
    AffinityKey { client: source.to_v6(), service }
}

#[inline(always)]
fn choose<A: Family, T: Tables>(
    tables: &T,
    arrival: &Arrival<A>,
    service: &ServiceEntry,
) -> Result<u32, Reason> {
    let len = service.ring_len;
    if len == 0 {
        return Err(Reason::NoBackend);
    }
    let hash = FlowHash::of(&arrival.key);
    let at =
        |index: u32| tables.ring(service.ring_base.wrapping_add(index)).ok_or(Reason::TableFault);
    let index = match service.algorithm {
        ALGORITHM_ROUND_ROBIN => {
            let round = tables.next_round(service.id).ok_or(Reason::TableFault)?;
            (round % u64::from(len)) as u32
        }
        ALGORITHM_SOURCE_HASH => FlowHash::of_source(arrival.key.source).for_backend() % len,
        _ => hash.for_backend() % len,
    };
    let chosen = at(index)?;
    if service.algorithm != ALGORITHM_LEAST_CONNECTIONS || len == 1 {
        return Ok(chosen);
    }
    // Another place, never the same one.
    let step = 1 + hash.for_route() % (len - 1);
    let other = index.wrapping_add(step) % len;
    let other = at(other)?;
    let weight = |id| tables.backend(id).map(|backend| u64::from(backend.weight));
    let (mine, its) = (weight(chosen), weight(other));
    let (mine, its) = (mine.ok_or(Reason::TableFault)?, its.ok_or(Reason::TableFault)?);
    let is_freer = tables.load(other).wrapping_mul(mine) < tables.load(chosen).wrapping_mul(its);
    Ok(if is_freer { other } else { chosen })
}

/// Places of the ring that are looked at for a backend that is not the client itself: with two backends of one weight, all
/// are its own once in 65,536 times.
const OTHER_TRIES: u32 = 16;

/// The chosen backend, or where the flow keeps its client's address and that is the backend's, the one at the next place of
/// the ring that is another's: the same on every node. The chosen one if there is none; that flow is refused. By way of
/// [`FamilyTables::not_itself`].
#[inline(always)]
pub fn not_itself<A: Family, T: Tables>(
    tables: &T,
    service: &ServiceEntry,
    key: &FlowKey<A>,
    chosen: u32,
) -> u32 {
    // The backend is read for the first time here; what its flows are counted in comes at the same time.
    tables.expect_flow(chosen);
    let client = key.source.to_v6();
    let is_client = |id: u32| {
        tables.backend(id).is_some_and(|backend| {
            let keeps_client = u32::from(service.mode) != MODE_NAT || backend.sources.is_empty();
            keeps_client && V6::from_bytes(backend.address) == client
        })
    };
    if !is_client(chosen) || service.ring_len == 0 {
        return chosen;
    }
    let first = FlowHash::of(key).for_backend();
    let mut tries = 0;
    while tries < OTHER_TRIES {
        tries += 1;
        // A remainder, so that the verifier knows no more of one place than of another.
        let place = first.wrapping_add(tries) % service.ring_len;
        match tables.ring(service.ring_base.wrapping_add(place)) {
            Some(id) if !is_client(id) => return id,
            Some(_) => {}
            None => return chosen,
        }
    }
    chosen
}
