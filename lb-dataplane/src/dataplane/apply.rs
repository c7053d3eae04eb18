//! Carrying out a plan: the maps are written in the plan's order, which is safe for packets at every step.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapError, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use lb_dataplane_common::service::{
    AccessKey, BackendEntry, PAGE_WORDS, ServiceEntry, SourceEntry, VipKey,
};
use lb_dataplane_common::tables::FlowCounts;

use super::Sizes;
use crate::error::ApplyError;
use crate::plan::{Limits, Served, Step};
use crate::pod::Raw;
use crate::sys::{self, Cursor};
use crate::table::Table;

/// A page of `RINGS`.
type Page = [u32; PAGE_WORDS];

pub(super) fn apply(ebpf: &mut Ebpf, served: &mut Served, table: &Table) -> Result<(), ApplyError> {
    let steps = served.plan(table)?;
    let result = steps.iter().try_for_each(|step| {
        carry_out(ebpf, step)?;
        served.carried_out(step);
        Ok(())
    });
    if result.is_err() {
        // The maps say what is served now.
        *served = adopt(ebpf, served.limits())?;
    }
    result
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

/// What the maps serve.
pub(super) fn adopt(ebpf: &mut Ebpf, limits: Limits) -> Result<Served, ApplyError> {
    let services = {
        let map: HashMap<_, Raw<VipKey>, Raw<ServiceEntry>> = open(ebpf, "SERVICES")?;
        map.iter()
            .map(|item| item.map(|(key, entry)| (key.0, entry.0)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed("SERVICES"))?
    };
    let rings: Array<_, Page> = open(ebpf, "RINGS")?;
    let mut words: BTreeMap<u32, Page> = BTreeMap::new();
    for page in services.iter().flat_map(|(_, entry)| pages(entry.ring_base, entry.ring_len)) {
        if let Entry::Vacant(slot) = words.entry(page) {
            slot.insert(rings.get(&page, 0).map_err(failed("RINGS"))?);
        }
    }
    let ring = |index: u32| {
        let page = words.get(&(index / PAGE_WORDS as u32))?;
        page.get(index as usize % PAGE_WORDS).copied()
    };
    let backends = read_backends(ebpf, limits.backends)
        .map_err(|e| failed("BACKENDS")(MapError::IoError(e)))?;
    let access: LpmTrie<_, Raw<AccessKey>, u32> = open(ebpf, "ACCESS")?;
    let access = access
        .iter()
        .map(|item| item.map(|(key, value)| ((key.prefix_len(), key.data().0), value != 0)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed("ACCESS"))?;
    let sources: Array<_, Raw<SourceEntry>> = open(ebpf, "SOURCES")?;
    let source = |index: u32| sources.get(&index, 0).ok().map(|source| source.0);
    Ok(Served::adopt(limits, services, (0..).zip(backends), ring, source, access))
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
    }
}

/// The pages of `RINGS` that a ring lies in.
fn pages(base: u32, len: u32) -> Range<u32> {
    let page = PAGE_WORDS as u32;
    base / page..(base + len).div_ceil(page)
}

fn carry_out(ebpf: &mut Ebpf, step: &Step) -> Result<(), ApplyError> {
    match step {
        Step::Grace => sys::grace_period().map_err(ApplyError::Grace),
        Step::PutBackend { id, entry } => {
            let mut backends: Array<_, Raw<BackendEntry>> = open(ebpf, "BACKENDS")?;
            backends.set(*id, Raw(*entry), 0).map_err(failed("BACKENDS"))
        }
        Step::ClearBackend { id } => clear(ebpf, "BACKEND_COUNTS", *id),
        Step::WriteSources { base, entries } => {
            let mut sources: Array<_, Raw<SourceEntry>> = open(ebpf, "SOURCES")?;
            (*base..).zip(entries).try_for_each(|(index, entry)| {
                sources.set(index, Raw(*entry), 0).map_err(failed("SOURCES"))
            })
        }
        Step::PutAccess { prefix, is_admitted } => {
            let mut access: LpmTrie<_, Raw<AccessKey>, u32> = open(ebpf, "ACCESS")?;
            let key = Key::new(prefix.0, Raw(prefix.1));
            access.insert(&key, u32::from(*is_admitted), 0).map_err(failed("ACCESS"))
        }
        Step::RemoveAccess { prefix } => {
            let mut access: LpmTrie<_, Raw<AccessKey>, u32> = open(ebpf, "ACCESS")?;
            match access.remove(&Key::new(prefix.0, Raw(prefix.1))) {
                // It is gone, which is what was asked for.
                Err(MapError::KeyNotFound) | Ok(()) => Ok(()),
                Err(source) => Err(failed("ACCESS")(source)),
            }
        }
        Step::WriteRing { base, words } => write_ring(ebpf, *base, words),
        Step::ClearService { id } => {
            let mut rounds: Array<_, u64> = open(ebpf, "ROUND_ROBIN")?;
            rounds.set(*id, 0, 0).map_err(failed("ROUND_ROBIN"))?;
            clear(ebpf, "SERVICE_COUNTS", *id)
        }
        Step::PutService { key, entry } => {
            let mut services: HashMap<_, Raw<VipKey>, Raw<ServiceEntry>> = open(ebpf, "SERVICES")?;
            services.insert(Raw(*key), Raw(*entry), 0).map_err(failed("SERVICES"))
        }
        Step::RemoveService { key } => {
            let mut services: HashMap<_, Raw<VipKey>, Raw<ServiceEntry>> = open(ebpf, "SERVICES")?;
            match services.remove(&Raw(*key)) {
                // It is gone, which is what was asked for.
                Err(MapError::KeyNotFound) | Ok(()) => Ok(()),
                Err(source) => Err(failed("SERVICES")(source)),
            }
        }
    }
}

/// Writes words that lie in one page or several. Words of other rings in these pages are written back as they are: this
/// process is the only writer.
fn write_ring(ebpf: &mut Ebpf, base: u32, words: &[u32]) -> Result<(), ApplyError> {
    let mut rings: Array<_, Page> = open(ebpf, "RINGS")?;
    let mut rest = words;
    let mut at = base;
    while !rest.is_empty() {
        let (page, offset) = (at / PAGE_WORDS as u32, at as usize % PAGE_WORDS);
        let (now, later) = rest.split_at(rest.len().min(PAGE_WORDS - offset));
        let mut content = rings.get(&page, 0).map_err(failed("RINGS"))?;
        content[offset..offset + now.len()].copy_from_slice(now);
        rings.set(page, content, 0).map_err(failed("RINGS"))?;
        at += now.len() as u32;
        rest = later;
    }
    Ok(())
}

fn clear(ebpf: &mut Ebpf, name: &'static str, index: u32) -> Result<(), ApplyError> {
    let mut counts: PerCpuArray<_, Raw<FlowCounts>> = open(ebpf, name)?;
    let cpus = nr_cpus().map_err(|(_, e)| failed(name)(MapError::IoError(e)))?;
    let zeroes = PerCpuValues::try_from(vec![Raw(FlowCounts::default()); cpus])
        .map_err(|e| failed(name)(MapError::IoError(e)))?;
    counts.set(index, zeroes, 0).map_err(failed(name))
}

fn open<'a, M>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<M, ApplyError>
where
    M: TryFrom<&'a mut Map, Error = MapError>,
{
    ebpf.map_mut(name).expect("the object holds this map").try_into().map_err(failed(name))
}

fn failed(map: &'static str) -> impl Fn(MapError) -> ApplyError {
    move |source| ApplyError::Map { map, source }
}
