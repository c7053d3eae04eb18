//! Carrying out a plan: the maps are written in the plan's order, which is safe for packets at every step; steps of one kind
//! that follow one another are one system call.

mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;

use aya::Ebpf;
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap, Map, MapError};
use lb_dataplane_common::service::{
    AccessKey, BackendEntry, PAGE_WORDS, RangeKey, ServiceEntry, SourceEntry, VipKey,
};

use self::write::GENERATION;
pub(super) use self::write::{failed, open};
use super::Sizes;
use crate::error::ApplyError;
use crate::mapped::Mapped;
use crate::plan::{AloneAt, Audit, Found, Limits, Served, Step};
use crate::pod::Raw;
use crate::sys::{self, Cursor};

/// Carries out steps that `served` has taken.
pub(super) fn carry_out(
    ebpf: &mut Ebpf,
    rings: &Mapped,
    served: &mut Served,
    steps: &[Step],
) -> Result<(), ApplyError> {
    let result = write_all(ebpf, rings, served, steps);
    if result.is_err() {
        // The maps say what is served now.
        *served = adopt(ebpf, rings, served.limits())?.replaces(served);
        set_backend_addresses(ebpf, served)?;
    }
    result
}

fn write_all(
    ebpf: &mut Ebpf,
    rings: &Mapped,
    served: &mut Served,
    steps: &[Step],
) -> Result<(), ApplyError> {
    let kind = std::mem::discriminant::<Step>;
    steps.chunk_by(|a, b| kind(a) == kind(b)).try_for_each(|alike| {
        write::write(ebpf, rings, alike)?;
        alike.iter().for_each(|step| served.carried_out(step));
        let (new, gone) = served.hosts().changes();
        write::put_addresses(ebpf, &new)?;
        write::remove_addresses(ebpf, &gone)?;
        let (new, gone) = served.hosts().changes_alone();
        write::put_alone(ebpf, &new)?;
        write::remove_alone(ebpf, &gone)
    })
}

/// Has the programs know these backends' addresses and no others.
pub(super) fn set_backend_addresses(
    ebpf: &mut Ebpf,
    served: &mut Served,
) -> Result<(), ApplyError> {
    let wanted: BTreeSet<IpAddr> = served.hosts().all().collect();
    let there = write::addresses(ebpf)?;
    write::remove_addresses(ebpf, &there.difference(&wanted).copied().collect::<Vec<_>>())?;
    write::put_addresses(ebpf, &wanted.difference(&there).copied().collect::<Vec<_>>())?;
    let wanted: BTreeMap<AloneAt, u32> = served.hosts().all_alone().collect();
    let gone = write::alone(ebpf)?.into_iter().filter(|at| !wanted.contains_key(at));
    write::remove_alone(ebpf, &gone.collect::<Vec<_>>())?;
    write::put_alone(ebpf, &wanted.into_iter().collect::<Vec<_>>())
}

/// Compares the maps with what is served; with `repair`, what differs is written again.
pub(super) fn audit(
    ebpf: &mut Ebpf,
    rings: &Mapped,
    served: &mut Served,
    repair: bool,
) -> Result<Audit, ApplyError> {
    let audit = read(ebpf, rings, served.limits(), |found| served.audit(&found))?;
    if repair {
        // What fails here changes nothing of what is served, unlike a plan that fails half way.
        write_all(ebpf, rings, served, &audit.steps)?;
    }
    Ok(audit)
}

/// What the maps hold at most.
pub(super) fn limits(sizes: &Sizes) -> Limits {
    Limits {
        services: sizes.services,
        backends: sizes.backends,
        ring_words: sizes.ring_pages.saturating_mul(PAGE_WORDS as u32),
        sources: sizes.sources,
        access: sizes.access,
    }
}

/// The words of all rings.
pub(super) fn map_rings(ebpf: &Ebpf, sizes: &Sizes) -> io::Result<Mapped> {
    let bytes = sizes.ring_pages as usize * PAGE_WORDS * size_of::<u32>();
    match ebpf.map("RINGS") {
        Some(Map::Array(data)) => Mapped::map(data.fd().as_fd(), bytes),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, "RINGS")),
    }
}

/// What the maps serve.
pub(super) fn adopt(ebpf: &mut Ebpf, rings: &Mapped, limits: Limits) -> Result<Served, ApplyError> {
    read(ebpf, rings, limits, |found| Served::adopt(limits, found))
}

/// Reads the maps for somebody. Rings and source addresses are read where they are asked for.
fn read<T>(
    ebpf: &mut Ebpf,
    rings: &Mapped,
    limits: Limits,
    with: impl FnOnce(Found<&dyn Fn(u32) -> Option<u32>, &dyn Fn(u32) -> Option<SourceEntry>>) -> T,
) -> Result<T, ApplyError> {
    let services = {
        let map: HashMap<_, Raw<VipKey>, Raw<ServiceEntry>> = open(ebpf, "SERVICES")?;
        map.iter()
            .map(|item| {
                item.map(|(key, Raw(entry))| {
                    // What an earlier process wrote is followed by others.
                    GENERATION.fetch_max(entry.generation.wrapping_add(1), Relaxed);
                    // As plans have it, which know no generations.
                    (key.0, ServiceEntry { generation: 0, ..entry })
                })
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed("SERVICES"))?
    };
    let backends = read_backends(ebpf, limits.backends)
        .map_err(|e| failed("BACKENDS")(MapError::IoError(e)))?;
    let access: LpmTrie<_, Raw<AccessKey>, u32> = open(ebpf, "ACCESS")?;
    let access = access
        .iter()
        .map(|item| item.map(|(key, value)| ((key.prefix_len(), key.data().0), value != 0)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed("ACCESS"))?;
    let ranges: LpmTrie<_, Raw<RangeKey>, u32> = open(ebpf, "RANGES")?;
    let first = |first: u32| u16::from_be(first as u16);
    let ranges = ranges
        .iter()
        .map(|item| item.map(|(key, port)| ((key.prefix_len(), key.data().0), first(port))))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed("RANGES"))?;
    let sources: Array<_, Raw<SourceEntry>> = open(ebpf, "SOURCES")?;
    Ok(with(Found {
        services,
        backends: (0..).zip(backends).collect(),
        ring_word: &|index| rings.words().get(index as usize).map(|word| word.load(Relaxed)),
        source: &|index| sources.get(&index, 0).ok().map(|source| source.0),
        access,
        ranges,
    }))
}

/// All backends, by id.
fn read_backends(ebpf: &Ebpf, count: u32) -> io::Result<Vec<BackendEntry>> {
    let map = ebpf.map("BACKENDS").expect("the object holds this map");
    let Map::Array(data) = map else { unreachable!("the object declares BACKENDS as an array") };
    let mut keys = vec![0_u32; count as usize];
    let mut values = vec![Raw(backend_entry_of_none()); count as usize];
    let mut cursor = Cursor::default();
    let (read, _) = sys::lookup_batch(data.fd().as_fd(), &mut cursor, &mut keys, &mut values)?;
    Ok(values.into_iter().take(read).map(|value| value.0).collect())
}

fn backend_entry_of_none() -> BackendEntry {
    BackendEntry {
        address: [0; 16],
        port: [0; 2],
        flags: 0,
        weight: 0,
        service: 0,
        sources_base: 0,
        sources_len: 0,
        max_flows: 0,
        idle: 0,
        vip: [0; 16],
        vip_port: [0; 2],
        protocol: 0,
        pad: [0; 5],
    }
}
