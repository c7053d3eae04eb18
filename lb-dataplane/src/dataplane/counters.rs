//! Reading the counters: each is a sum over CPUs.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use aya::maps::{Array, Map, MapError, PerCpuArray};
use aya::{Ebpf, Pod};
use lb_dataplane_common::reason::{INTERFACE_PLACES, REASON_PLACES, Reason, ReasonCounts};
use lb_dataplane_common::tables::{FlowCounts, Record};

use super::kept;
use super::memory::{COUNTS, Memory};
use super::{BackendCount, ReasonCount, ServiceCount, ServiceCounters};
use crate::error::ReadError;
use crate::plan::{Ident, Served};
use crate::pod::Raw;
use crate::sys;

/// What became of packets, by the place of the interface that they came in through.
pub(super) fn reasons(ebpf: &Ebpf) -> Result<Vec<Vec<ReasonCount>>, ReadError> {
    const MAP: &str = "REASONS";
    const ENTRIES: usize = (INTERFACE_PLACES * REASON_PLACES) as usize;
    let failed = |source| ReadError { map: MAP, source };
    let map = ebpf.map(MAP).expect("the object holds this map");
    let Map::PerCpuArray(data) = map else { unreachable!("the object declares it as such") };
    let cpus = aya::util::nr_cpus().map_err(|(_, source)| failed(source))?;
    let nothing = ReasonCounts::default();
    let (mut keys, mut values) = (vec![0_u32; ENTRIES], vec![Raw(nothing); ENTRIES * cpus]);
    sys::lookup_batch(data.fd().as_fd(), &mut keys, &mut values).map_err(failed)?;
    let sums: Vec<ReasonCounts> = values.chunks(cpus).map(sum).collect();
    let of_place = |counts: &[ReasonCounts]| {
        let of_reason = |(reason, counts): (Reason, &ReasonCounts)| ReasonCount {
            reason,
            kind: reason.kind(),
            packets: counts.packets,
            bytes: counts.bytes,
        };
        Reason::ALL.into_iter().zip(counts).map(of_reason).collect()
    };
    Ok(sums.chunks(REASON_PLACES as usize).map(of_place).collect())
}

fn sum(cpus: &[Raw<ReasonCounts>]) -> ReasonCounts {
    cpus.iter().fold(ReasonCounts::default(), |sum, of_cpu| ReasonCounts {
        packets: sum.packets + of_cpu.0.packets,
        bytes: sum.bytes + of_cpu.0.bytes,
    })
}

/// The same for all places together.
pub(super) fn all_reasons(ebpf: &Ebpf) -> Result<Vec<ReasonCount>, ReadError> {
    let mut places = reasons(ebpf)?.into_iter();
    let mut all = places.next().unwrap_or_default();
    for place in places {
        for (sum, more) in all.iter_mut().zip(place) {
            sum.packets += more.packets;
            sum.bytes += more.bytes;
        }
    }
    Ok(all)
}

/// Of a service that is the sum of its backends', of those that left it, and of what it keeps of others.
pub(super) fn services(
    ebpf: &Ebpf,
    memory: &Memory,
    served: &Served,
    idents: impl IntoIterator<Item = Ident>,
) -> Result<ServiceCounters, ReadError> {
    let mut counters = ServiceCounters::new();
    for ident in idents {
        let mut sum = kept::of(ebpf, ident.id)?;
        for id in served.left().of(ident.id) {
            sum = sum.and(counted(memory, id)?);
        }
        let of_backend = |(address, port, id): (IpAddr, u16, u32)| {
            let counts = counted(memory, id)?;
            sum = sum.and(counts);
            let FlowCounts { passed: [to_backend, to_client], flows, evicted, exhausted } = counts;
            let active = memory.open_flows(id);
            let half_open = memory.backends.load(id).saturating_sub(active);
            Ok(BackendCount {
                address,
                port,
                to_backend,
                to_client,
                flows,
                evicted,
                exhausted,
                active,
                half_open,
            })
        };
        let backends = ident.backends.into_iter().map(of_backend).collect::<Result<_, _>>()?;
        let FlowCounts { passed: [to_backend, to_client], flows, evicted, exhausted } = sum;
        let count = ServiceCount { to_backend, to_client, flows, evicted, exhausted, backends };
        counters.insert(ident.key, count);
    }
    Ok(counters)
}

fn counted(memory: &Memory, id: u32) -> Result<FlowCounts, ReadError> {
    let counted = memory.counted(id).map_err(|source| ReadError { map: COUNTS, source })?;
    Ok(counted.counts)
}

pub(super) fn flow_events_lost(ebpf: &Ebpf) -> Result<u64, ReadError> {
    const MAP: &str = "FLOW_EVENTS_LOST";
    let lost: PerCpu<'_, u64> = per_cpu(ebpf, MAP)?;
    Ok(lost.get(&0, 0).map_err(read_error(MAP))?.iter().sum())
}

pub(super) fn record(ebpf: &Ebpf) -> Result<Record, ReadError> {
    let map = ebpf.map("RECORD").expect("the object holds this map");
    let record: Array<_, Raw<Record>> = map.try_into().map_err(read_error("RECORD"))?;
    record.get(&0, 0).map(|r| r.0).map_err(read_error("RECORD"))
}

type PerCpu<'a, V> = PerCpuArray<&'a aya::maps::MapData, V>;

fn per_cpu<'a, V: Pod>(ebpf: &'a Ebpf, name: &'static str) -> Result<PerCpu<'a, V>, ReadError> {
    let map: &Map = ebpf.map(name).expect("the object holds this map");
    map.try_into().map_err(read_error(name))
}

pub(super) fn read_error(map: &'static str) -> impl Fn(MapError) -> ReadError {
    move |source| ReadError { map, source: io::Error::other(source) }
}
