//! What the maps are to look like, and whether those that are pinned do.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem::offset_of;
use std::path::Path;

use aya::maps::{MapError, MapInfo, MapType};
use aya_obj::{EbpfSectionKind, Object};
use lb_dataplane_common::family::{V4, V6};
use lb_dataplane_common::flow::{FlowEntry, FlowKey, Translation};
use lb_dataplane_common::flow_table::{Bucket, Slot, buckets_for};
use lb_dataplane_common::line;
use lb_dataplane_common::list::{NODE_WORDS, PAGE_NODES};
use lb_dataplane_common::tables::COUNTED_TOGETHER;

use crate::dataplane::Sizes;
use crate::flow_table;
use crate::held::DATAGRAMS;

/// The object with the programs, made by the build script.
pub(crate) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lbd-bpf.bpf.o"));

/// What differs where a map has another size.
const ENTRIES: &str = "number of entries";

/// A map's definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Definition {
    kind: u32,
    key_size: u32,
    value_size: u32,
    pub(crate) max_entries: u32,
    flags: u32,
}

/// What a pinned map has that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) what: &'static str,
    pub(crate) pinned: u32,
    pub(crate) wanted: u32,
}

/// The maps by name, with the sizes of the configuration.
pub(crate) fn maps(sizes: &Sizes) -> Result<BTreeMap<String, Definition>, aya_obj::ParseError> {
    let object = Object::parse(OBJECT)?;
    let mut maps = BTreeMap::new();
    for (name, map) in &object.maps {
        // Variables of the programs (`.rodata`) are a map too, but one of each load's own; so is where a program leads on to.
        if map.section_kind() != EbpfSectionKind::Maps
            || map.map_type() == MapType::ProgramArray as u32
        {
            continue;
        }
        let definition = Definition {
            kind: map.map_type(),
            key_size: map.key_size(),
            value_size: map.value_size(),
            max_entries: entries(name, sizes).unwrap_or(map.max_entries()),
            flags: map.map_flags(),
        };
        maps.insert(name.clone(), definition);
    }
    Ok(maps)
}

fn entries(map: &str, sizes: &Sizes) -> Option<u32> {
    Some(match map {
        "FLOWS" => buckets_for(sizes.flow_entries),
        "FLOWS6" => buckets_for(sizes.flow_entries6),
        "HALF_OPEN" => half_open_places(sizes.flow_entries) * cpus(),
        "HALF_OPEN6" => half_open_places(sizes.flow_entries6) * cpus(),
        "SERVICES" => while_changing(sizes.services),
        "ROUND_ROBIN" | "SERVICE_COUNTS" | "SERVICE_OPEN_FLOWS" | "ACCESS_LISTS" => {
            service_ids(sizes.services)
        }
        "BACKENDS" | "WITHOUT_FLOW" => sizes.backends,
        "LINES" => lines(sizes.backends),
        "BACKEND_COUNTS" => counted_lines(sizes.backends).saturating_mul(cpus()),
        "SOURCES" => sizes.sources,
        "ACCESS_NODES" => list_pages(sizes),
        "CLIENT_FLOWS" => sizes.counted_clients,
        "AFFINITIES" => sizes.affinities,
        "RINGS" => sizes.ring_pages,
        "FIB4_L2" => sizes.fib_second_level_pages,
        "FIB6_NODES" => sizes.fib6_pages,
        "FIB_GROUPS" => sizes.fib_group_pages,
        "FIB_BUCKETS" => sizes.fib_bucket_pages,
        "FIB_MEMBERS" => sizes.fib_members,
        "AWAITED" => sizes.early_fragments.saturating_mul(DATAGRAMS),
        "BACKEND_ADDRESSES" | "ALONE" => while_changing(sizes.backends),
        _ => return None,
    })
}

/// Entries of a map in which what comes stands beside what goes until a plan is carried out (`plan::order`).
pub(crate) fn while_changing(limit: u32) -> u32 {
    limit.saturating_mul(2)
}

/// Ids of services: those that come have theirs beside those that go, whose flows may go on for hours.
pub(crate) fn service_ids(limit: u32) -> u32 {
    while_changing(limit).min(1 << 16)
}

/// Pages of nodes for lists of clients. What a prefix of IPv4 takes in a list of thousands is 18 bytes: there is room for the lists
/// that come beside those that go, for short ones, of which each has a node at least, and for some IPv6.
pub(crate) fn list_pages(sizes: &Sizes) -> u32 {
    let bytes = u64::from(sizes.access) * 32 + u64::from(sizes.services) * 64;
    u32::try_from(bytes.div_ceil(8 * u64::from(NODE_WORDS * PAGE_NODES))).unwrap_or(u32::MAX)
}

/// Places of each CPU's ring of half-open flows, a power of two: all together have as many as an eighth of the flow entries,
/// which is a quarter of the flows, at most, or one each.
pub(crate) fn half_open_places(flow_entries: u32) -> u32 {
    1 << (flow_entries / 8 / cpus()).max(1).ilog2()
}

/// Lines that may be given out for so many backends.
pub(crate) fn lines(backends: u32) -> u32 {
    line::lines(backends, cpus())
}

/// Lines that each CPU has room for.
pub(crate) fn counted_lines(backends: u32) -> u32 {
    lines(backends).div_ceil(COUNTED_TOGETHER).saturating_mul(COUNTED_TOGETHER)
}

/// CPUs that there may be.
pub(crate) fn cpus() -> u32 {
    // What cannot be told is left to the kernel's limit: a place that is not there is a flow without the bound.
    aya::util::nr_cpus().map_or(1, |cpus| u32::try_from(cpus).unwrap_or(u32::MAX))
}

/// The name of the folder that this layout is pinned in: a hash of everything but the sizes, so that a daemon never reads
/// another one's bytes as its own.
pub(crate) fn name(maps: &BTreeMap<String, Definition>) -> String {
    // The hasher has fixed keys: the same in every process of the same build, and a new build of Rust that changes it
    // costs no more than flows.
    let mut hasher = DefaultHasher::new();
    for (name, definition) in maps {
        let sizeless = Definition { max_entries: 0, ..*definition };
        (name, sizeless).hash(&mut hasher);
    }
    for offset in [
        offset_of!(FlowKey<V4>, destination_port),
        offset_of!(FlowKey<V4>, protocol),
        offset_of!(FlowEntry, translation) + offset_of!(Translation<V6>, ports),
        offset_of!(FlowEntry, line),
        offset_of!(FlowEntry, counted_as),
        offset_of!(FlowEntry, state),
        offset_of!(FlowEntry, last_seen),
        offset_of!(FlowEntry, first_reply),
        offset_of!(FlowEntry, direction),
        offset_of!(Slot<V4>, entry),
        offset_of!(Bucket<V4>, away),
        offset_of!(Bucket<V4>, seed),
        offset_of!(Bucket<V4>, slots),
    ] {
        offset.hash(&mut hasher);
    }
    lb_dataplane_common::LAYOUT.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Whether a folder's name can be that of a layout.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

impl Difference {
    /// The same as the configuration says it, where a map counts otherwise: a flow table counts buckets. What is pinned is told as
    /// the most entries that ask for as many.
    pub(crate) fn as_configured(self, map: &str, sizes: &Sizes) -> Self {
        let wanted = match map {
            "FLOWS" => sizes.flow_entries,
            "FLOWS6" => sizes.flow_entries6,
            _ => return self,
        };
        match self.what {
            ENTRIES => Self { pinned: flow_table::entries_for(self.pinned), wanted, ..self },
            _ => self,
        }
    }
}

/// How a pinned map differs from its definition; `None` if it doesn't, or if there is none.
pub(crate) fn compare(path: &Path, wanted: &Definition) -> Result<Option<Difference>, MapError> {
    if !path.exists() {
        return Ok(None);
    }
    let info = MapInfo::from_pin(path)?;
    let pairs = [
        ("type", info.map_type()? as u32, wanted.kind),
        ("key size", info.key_size(), wanted.key_size),
        ("value size", info.value_size(), wanted.value_size),
        (ENTRIES, info.max_entries(), wanted.max_entries),
        ("flags", info.map_flags(), wanted.flags),
    ];
    Ok(pairs
        .into_iter()
        .find(|(_, pinned, wanted)| pinned != wanted)
        .map(|(what, pinned, wanted)| Difference { what, pinned, wanted }))
}
