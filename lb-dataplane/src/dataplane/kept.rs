//! What services keep of backends that left them: `SERVICE_COUNTS`.
//!
//! A backend's counters are its service's, too. When it leaves, they stay that until no flow of its is left: then they are added to what
//! the service keeps, its entry names the service no more, and its id may go to another one, whose counters begin at zero. Whoever ends
//! between the two has left word of it in the same write as the sum, so that nothing is lost and nothing counted twice.

use aya::Ebpf;
use aya::maps::{Array, Map, MapData, MapError};
use lb_dataplane_common::tables::{FlowCounts, KeptCounts};

use super::apply::{failed, open};
use super::counters::read_error;
use super::memory::{COUNTS, Memory};
use crate::error::{ApplyError, ReadError};
use crate::plan::Served;
use crate::pod::Raw;
use crate::sys;

const MAP: &str = "SERVICE_COUNTS";

/// What a service has counted beside its backends, those that left it included.
pub(super) fn of(ebpf: &Ebpf, service: u32) -> Result<FlowCounts, ReadError> {
    let map: &Map = ebpf.map(MAP).expect("the object holds this map");
    let kept: Array<&MapData, Raw<KeptCounts>> = map.try_into().map_err(read_error(MAP))?;
    kept.get(&service, 0).map(|kept| kept.0.counts).map_err(read_error(MAP))
}

/// Has the service that a backend has left keep what that has counted, if it still counts it.
fn take_over(ebpf: &mut Ebpf, memory: &Memory, id: u32) -> Result<(), ApplyError> {
    let left = memory.backends.get(id).and_then(|entry| entry.left());
    let Some(service) = left else { return Ok(()) };
    let mut map: Array<_, Raw<KeptCounts>> = open(ebpf, MAP)?;
    let Raw(kept) = map.get(&service, 0).map_err(failed(MAP))?;
    let counted = memory.counted(id).map_err(|e| failed(COUNTS)(MapError::IoError(e)))?;
    let counts = kept.counts.and(counted.counts);
    let taking = u64::from(id) + 1;
    map.set(service, Raw(KeptCounts { counts, taking }), 0).map_err(failed(MAP))?;
    memory.backends.take_from_service(id);
    map.set(service, Raw(KeptCounts { counts, taking: 0 }), 0).map_err(failed(MAP))
}

/// Does what a process that ended in [`take_over`] has left to do.
pub(super) fn finish(
    ebpf: &mut Ebpf,
    memory: &Memory,
    served: &mut Served,
) -> Result<(), ApplyError> {
    let mut map: Array<_, Raw<KeptCounts>> = open(ebpf, MAP)?;
    for service in served.service_ids().collect::<Vec<_>>() {
        let Raw(kept) = map.get(&service, 0).map_err(failed(MAP))?;
        let Some(id) = kept.taking.checked_sub(1).and_then(|id| u32::try_from(id).ok()) else {
            continue;
        };
        if memory.backends.get(id).and_then(|entry| entry.left()) == Some(service) {
            memory.backends.take_from_service(id);
            served.settled(id);
        }
        map.set(service, Raw(KeptCounts { taking: 0, ..kept }), 0).map_err(failed(MAP))?;
    }
    Ok(())
}

/// After a grace period: has services keep what those that left them have counted of whose flows none is left.
pub(super) fn settle(
    ebpf: &mut Ebpf,
    memory: &Memory,
    served: &mut Served,
) -> Result<(), ApplyError> {
    let is_quiet = |id| {
        let of_backend = memory.counted(id);
        of_backend.is_ok_and(|counted| counted.counts.flows == counted.removed)
    };
    for id in served.left_mut().settle(is_quiet) {
        take_over(ebpf, memory, id)?;
        served.settled(id);
    }
    served.free_services();
    Ok(())
}

/// Waits until what is gone and has no flows any more is known, and frees its ids. Twice, since who is quiet is so for two grace
/// periods.
pub(super) fn free_ids(
    ebpf: &mut Ebpf,
    memory: &Memory,
    served: &mut Served,
) -> Result<(), ApplyError> {
    for _ in 0..2 {
        let waiting = served.all_that_waits();
        sys::grace_period().map_err(ApplyError::Grace)?;
        served.passed(waiting);
        settle(ebpf, memory, served)?;
    }
    Ok(())
}

/// The same where nobody waits for it: what is not added up now is when it is read, and with the next grace period.
pub(super) fn settle_or_say(ebpf: &mut Ebpf, memory: &Memory, served: &mut Served) {
    if let Err(error) = settle(ebpf, memory, served) {
        tracing::warn!(why = ?error, "what backends counted that left their services is not added up");
    }
}
