//! Carrying out a plan: the maps are written in the plan's order, which is safe for packets at every step; steps of one kind
//! that follow one another are one system call.

mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

use aya::Ebpf;
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap};
use lb_dataplane_common::list::{List, PAGE_NODES};
use lb_dataplane_common::service::{PAGE_WORDS, RangeKey, ServiceEntry, SourceEntry, VipKey};

use self::write::GENERATION;
pub(super) use self::write::{failed, open};
use super::memory::Memory;
use super::{Sizes, kept};
use crate::error::ApplyError;
use crate::layout;
use crate::plan::{AloneAt, Audit, Found, Limits, PlanError, Served, Step};
use crate::pod::Raw;

/// Carries out a plan. Where it finds no ids it is made once more, if flows of what is gone have ended.
pub(super) fn carry_out(
    ebpf: &mut Ebpf,
    memory: &mut Memory,
    served: &mut Served,
    plan: impl Fn(&mut Served) -> Result<Vec<Step>, PlanError>,
) -> Result<(), ApplyError> {
    let steps = match plan(served) {
        Err(error) if error.is_of_ids() => {
            kept::free_ids(ebpf, memory, served)?;
            plan(served)?
        }
        planned => planned?,
    };
    write_or_adopt(ebpf, memory, served, &steps)
}

fn write_or_adopt(
    ebpf: &mut Ebpf,
    memory: &mut Memory,
    served: &mut Served,
    steps: &[Step],
) -> Result<(), ApplyError> {
    let mut result = write_all(ebpf, memory, served, steps);
    if result.is_ok() && steps.contains(&Step::Grace) {
        result = kept::settle(ebpf, memory, served);
    }
    if result.is_err() {
        // The maps say what is served now.
        *served = adopt(ebpf, memory, served.limits())?.replaces(served);
        set_backend_addresses(ebpf, served)?;
    }
    result
}

fn write_all(
    ebpf: &mut Ebpf,
    memory: &mut Memory,
    served: &mut Served,
    steps: &[Step],
) -> Result<(), ApplyError> {
    let kind = std::mem::discriminant::<Step>;
    steps.chunk_by(|a, b| kind(a) == kind(b)).try_for_each(|alike| {
        write::write(ebpf, memory, alike)?;
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
    memory: &mut Memory,
    served: &mut Served,
    repair: bool,
) -> Result<Audit, ApplyError> {
    let audit = read(ebpf, memory, served.limits(), |found| served.audit(&found))?;
    if repair {
        // What fails here changes nothing of what is served, unlike a plan that fails half way.
        write_all(ebpf, memory, served, &audit.steps)?;
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
        list_nodes: layout::list_pages(sizes).saturating_mul(PAGE_NODES),
        access: sizes.access,
    }
}

/// What the maps serve.
pub(super) fn adopt(
    ebpf: &mut Ebpf,
    memory: &mut Memory,
    limits: Limits,
) -> Result<Served, ApplyError> {
    let mut served = read(ebpf, memory, limits, |found| Served::adopt(limits, found))?;
    kept::finish(ebpf, memory, &mut served)?;
    Ok(served)
}

/// What the maps hold.
type Everything<'a> = Found<
    &'a dyn Fn(u32) -> Option<u32>,
    &'a dyn Fn(u32) -> Option<SourceEntry>,
    &'a dyn Fn(u32) -> Option<u64>,
>;

/// Reads the maps for somebody. Rings, lists and source addresses are read where they are asked for.
fn read<T>(
    ebpf: &mut Ebpf,
    memory: &Memory,
    limits: Limits,
    with: impl FnOnce(Everything<'_>) -> T,
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
    let backends = (0..limits.backends).map_while(|id| Some((id, memory.backends.get(id)?)));
    let lists = (0..).zip(memory.lists.wide_words());
    let lists = lists.filter_map(|(id, word)| Some((id, List::from_word(word.load(Relaxed))?)));
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
        backends: backends.collect(),
        ring_word: &|index| memory.rings.words().get(index as usize).map(|word| word.load(Relaxed)),
        source: &|index| sources.get(&index, 0).ok().map(|source| source.0),
        lists: lists.collect(),
        list_word: &|index| {
            let word = memory.list_nodes.wide_words().get(index as usize);
            word.map(|word| word.load(Relaxed))
        },
        ranges,
    }))
}
