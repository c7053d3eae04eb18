//! The bounds on flows, of a service, each of its clients and each of its backends.
//!
//! They are on flows that [are open](crate::flow::is_open). A packet that would begin one is refused where there is no room for it, and
//! so is the one that would open it, since many may have begun meanwhile: as the last segment of a handshake is by a socket whose
//! queue of connections is full. It finds room when it is sent again.

use super::{check_still_there, service_from};
use crate::family::{Family, V6};
use crate::flow::{Flow, FlowKey, STATE_CLIENT_COUNTED, counted_client};
use crate::hash::FlowHash;
use crate::reason::Reason;
use crate::service::{
    BACKEND_BOUNDED, RangeKey, SERVICE_BOUNDS_FLOWS, ServiceEntry, counted_as, service_of,
};
use crate::tables::{Rounds, Tables};

/// Whether there is room for another open flow, whose packets to its backend have this key; what its state is to say. CPUs that look at
/// the same time may each let one in. One that was open and `goes_on` after it was counted out has to find room only under its client's
/// bound, since others' flows may fill the others: a forged RST would end it there.
pub(crate) fn admit_open<T: Tables>(
    tables: &T,
    key: &FlowKey<V6>,
    to_backend: &impl Flow,
    goes_on: bool,
) -> Result<u32, Reason> {
    let (counted_as, line) = (to_backend.counted_as(), to_backend.line());
    let backend = tables.backend_of(line);
    // What was removed bounds nothing.
    let Some(entry) = tables.backend(backend) else { return Ok(0) };
    if entry.flags & BACKEND_BOUNDED == 0 {
        return Ok(0);
    }
    let is_full = entry.max_flows != 0 && tables.open_flows(backend) >= u64::from(entry.max_flows);
    if is_full && !goes_on {
        return Err(Reason::BackendsFull);
    }
    let mut first_port = key.destination_port;
    let its = match service_from(tables, key, first_port) {
        Some(its) => its,
        None => {
            let Some(first) = tables.range(&RangeKey {
                address: key.destination,
                protocol: [0, key.protocol()],
                port: key.destination_port.to_ne_bytes(),
            }) else {
                return Ok(0);
            };
            first_port = first;
            let Some(its) = service_from(tables, key, first) else { return Ok(0) };
            its
        }
    };
    if its.id != service_of(counted_as) || its.flags & SERVICE_BOUNDS_FLOWS == 0 {
        return Ok(0);
    }
    let generation = its.generation;
    if !goes_on {
        check_service(tables, its)?;
    }
    let bits = admit_client(tables, its, counted_as, key.source)?;
    check_still_there(tables, key, first_port, generation)?;
    Ok(bits)
}

/// Whether a service may have another open flow, and this client, or the network that it counts as, another of it; what the flow's
/// state is to say.
#[inline(always)]
pub(super) fn admit<A: Family, T: Tables>(
    tables: &T,
    service: &ServiceEntry,
    client: A,
) -> Result<u32, Reason> {
    check_service(tables, service)?;
    let counted_as = counted_as(service.id, tables.client_bits(A::IS_V6));
    admit_client(tables, service, counted_as, client.to_v6())
}

#[inline(always)]
fn check_service<T: Tables>(tables: &T, service: &ServiceEntry) -> Result<(), Reason> {
    let most = service.max_flows;
    if most != 0 && tables.open_flows_of_service(service.id) >= u64::from(most) {
        return Err(Reason::ServiceFull);
    }
    Ok(())
}

#[inline(always)]
fn admit_client<T: Tables>(
    tables: &T,
    service: &ServiceEntry,
    counted_as: u32,
    client: V6,
) -> Result<u32, Reason> {
    let most = service.max_flows_per_client;
    if most == 0 {
        return Ok(0);
    }
    if tables.client_flows(&counted_client(counted_as, client)) >= most {
        return Err(Reason::ClientFull);
    }
    Ok(STATE_CLIENT_COUNTED)
}

/// Backends that are looked at, beside the chosen one, for one that may have another flow.
const ROOM_TRIES: u32 = 16;

/// The chosen backend if it may have another flow, or else the first one that may, of as many as are looked at in the list
/// behind the ring. Where that begins is the flow's own, and moves on with each try: who tries again meets others. One that is full
/// only with those that are half-open is taken where none has more room.
#[inline(always)]
pub(super) fn with_room<A: Family, T: Tables>(
    tables: &T,
    service: &ServiceEntry,
    key: &FlowKey<A>,
    chosen: u32,
) -> Result<u32, Reason> {
    let of_chosen = room(tables, chosen);
    if of_chosen == PLENTY {
        return Ok(chosen);
    }
    let list = service.ring_base.wrapping_add(service.ring_len);
    let takers = tables.ring(list).ok_or(Reason::TableFault)?;
    if takers == 0 || service.ring_len == 0 {
        return Err(Reason::BackendsFull);
    }
    let moved = tables.next_number().wrapping_mul(ROOM_TRIES);
    let from = FlowHash::of(key).for_route().wrapping_add(moved);
    let mut search = Search { list, takers, from, least: PLENTY, found: chosen, is_over: 0 };
    tables.repeat(ROOM_TRIES, &mut search);
    if search.is_over == 0 && of_chosen == NONE {
        search.least = IF_FEW_OPEN;
        tables.repeat(ROOM_TRIES, &mut search);
        if search.is_over == 0 {
            return Err(Reason::BackendsFull);
        }
    }
    Ok(search.found)
}

/// Looks for room in a list of backends, at one of them each round.
struct Search {
    /// Where the list's length is.
    list: u32,
    takers: u32,
    /// The place that the first round looks at, around at the end of the list.
    from: u32,
    /// How much room there must be.
    least: u32,
    found: u32,
    /// Not zero once it is found. A word, so that the verifier knows its values.
    is_over: u32,
}

impl<T: Tables> Rounds<T> for Search {
    #[inline(always)]
    fn round(&mut self, tables: &T, number: u32) -> bool {
        if self.takers == 0 {
            return false;
        }
        let place = self.from.wrapping_add(number) % self.takers;
        let Some(id) = tables.ring(self.list.wrapping_add(1).wrapping_add(place)) else {
            return false;
        };
        if room(tables, id) < self.least {
            return true;
        }
        self.found = id;
        self.is_over = 1;
        false
    }
}

/// A backend has as many open flows as it may.
const NONE: u32 = 0;
/// It has as many with those that are half-open.
const IF_FEW_OPEN: u32 = 1;
/// It may have another.
const PLENTY: u32 = 2;

/// How much room a backend has for another flow.
#[inline(always)]
fn room<T: Tables>(tables: &T, id: u32) -> u32 {
    let Some(backend) = tables.backend(id) else { return NONE };
    let most = u64::from(backend.max_flows);
    if most == 0 || tables.load(id) < most {
        PLENTY
    } else if tables.open_flows(id) < most {
        IF_FEW_OPEN
    } else {
        NONE
    }
}
