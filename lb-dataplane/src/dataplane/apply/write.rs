//! Steps of one kind, written.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering::Relaxed;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapError};
use aya::sys::SyscallError;
use lb_dataplane_common::family::V6;
use lb_dataplane_common::list::NODE_WORDS;
use lb_dataplane_common::service::{RangeKey, ServiceEntry, SourceEntry, VipKey};
use lb_dataplane_common::tables::KeptCounts;

use crate::dataplane::memory::{COUNTS, Memory};
use crate::error::ApplyError;
use crate::held::address;
use crate::plan::{AloneAt, Step, words};
use crate::pod::Raw;
use crate::sys;

/// The generation of the next service entry, around at its end: in the time of one packet no 65,536 are written.
pub(super) static GENERATION: AtomicU16 = AtomicU16::new(1);

/// The map of backends' addresses.
const ADDRESSES: &str = "BACKEND_ADDRESSES";
/// That of backends whose answers need no flow.
const ALONE: &str = "ALONE";
/// Entries that a system call writes at most.
const BATCH: usize = 4096;

/// What is written in few calls.
#[derive(Default)]
struct Batch {
    new_backends: Vec<u32>,
    new_services: Vec<u32>,
    sources: Vec<(u32, Raw<SourceEntry>)>,
    services: Vec<(Raw<VipKey>, Raw<ServiceEntry>)>,
}

/// Writes steps of one kind, in order.
pub(super) fn write(
    ebpf: &mut Ebpf,
    memory: &mut Memory,
    alike: &[Step],
) -> Result<(), ApplyError> {
    let mut batch = Batch::default();
    for step in alike {
        match step {
            Step::Grace => sys::grace_period().map_err(ApplyError::Grace)?,
            Step::ClearBackend { id } => {
                let cleared = memory.clear_counted(*id);
                cleared.map_err(|e| failed(COUNTS)(MapError::IoError(e)))?;
                batch.new_backends.push(*id);
            }
            Step::ClearService { id } => batch.new_services.push(*id),
            Step::PutBackend { id, entry } => memory.backends.put(*id, entry),
            Step::WriteSources { base, entries } => {
                batch.sources.extend((*base..).zip(entries.iter().map(|entry| Raw(*entry))));
            }
            Step::WriteRing { base, words } => {
                // No packet reads these words before its service's entry names them.
                let places = memory.rings.words().iter().skip(*base as usize);
                places.zip(words).for_each(|(place, word)| place.store(*word, Relaxed));
            }
            Step::WriteList { first, words } => {
                // Nor these before its service leads here.
                let places = memory.list_nodes.wide_words().iter();
                let places = places.skip(*first as usize * NODE_WORDS as usize);
                places.zip(words).for_each(|(place, word)| place.store(*word, Relaxed));
            }
            Step::PutList { service, list } => memory.set_list(*service, list.to_word()),
            Step::RemoveList { service } => memory.set_list(*service, 0),
            Step::PutRange { prefix, first_port } => {
                let mut ranges: LpmTrie<_, Raw<RangeKey>, u32> = open(ebpf, "RANGES")?;
                let key = Key::new(prefix.0, Raw(prefix.1));
                ranges.insert(&key, u32::from(first_port.to_be()), 0).map_err(failed("RANGES"))?;
            }
            Step::RemoveRange { prefix } => {
                let mut ranges: LpmTrie<_, Raw<RangeKey>, u32> = open(ebpf, "RANGES")?;
                gone("RANGES", ranges.remove(&Key::new(prefix.0, Raw(prefix.1))))?;
            }
            Step::PutService { key, entry } => {
                let generation = GENERATION.fetch_add(1, Relaxed);
                let entry = ServiceEntry { generation, ..*entry };
                batch.services.push((Raw(*key), Raw(entry)));
            }
            Step::RemoveService { key } => {
                let mut services: HashMap<_, Raw<VipKey>, Raw<ServiceEntry>> =
                    open(ebpf, "SERVICES")?;
                gone("SERVICES", services.remove(&Raw(*key)))?;
            }
        }
    }
    batch.write(ebpf)
}

impl Batch {
    fn write(self, ebpf: &Ebpf) -> Result<(), ApplyError> {
        put(ebpf, "WITHOUT_FLOW", self.new_backends.iter().map(|id| (*id, 0_u32)))?;
        put(ebpf, "ROUND_ROBIN", self.new_services.iter().map(|id| (*id, 0_u64)))?;
        let nothing = KeptCounts::default();
        put(ebpf, "SERVICE_COUNTS", self.new_services.iter().map(|id| (*id, Raw(nothing))))?;
        put(ebpf, "SOURCES", self.sources.into_iter())?;
        put(ebpf, "SERVICES", self.services.into_iter())
    }
}

/// The addresses that the programs know as backends'.
pub(super) fn addresses(ebpf: &mut Ebpf) -> Result<BTreeSet<IpAddr>, ApplyError> {
    let map: HashMap<_, V6, u32> = open(ebpf, ADDRESSES)?;
    let keys = map.keys().map(|key| key.map(address));
    keys.collect::<Result<_, _>>().map_err(failed(ADDRESSES))
}

pub(super) fn put_addresses(ebpf: &Ebpf, new: &[IpAddr]) -> Result<(), ApplyError> {
    put(ebpf, ADDRESSES, new.iter().map(|address| (words(*address), 1_u32)))
}

pub(super) fn remove_addresses(ebpf: &mut Ebpf, gone_ones: &[IpAddr]) -> Result<(), ApplyError> {
    let mut map: HashMap<_, V6, u32> = open(ebpf, ADDRESSES)?;
    let mut addresses = gone_ones.iter();
    addresses.try_for_each(|address| gone(ADDRESSES, map.remove(&words(*address))))
}

/// Where the programs know of backends that are alone.
pub(super) fn alone(ebpf: &mut Ebpf) -> Result<Vec<AloneAt>, ApplyError> {
    let map: HashMap<_, Raw<VipKey>, u32> = open(ebpf, ALONE)?;
    let at =
        |Raw(key): Raw<VipKey>| (address(key.address), u16::from_be_bytes(key.port), key.protocol);
    map.keys().map(|key| key.map(at)).collect::<Result<_, _>>().map_err(failed(ALONE))
}

pub(super) fn put_alone(ebpf: &Ebpf, new: &[(AloneAt, u32)]) -> Result<(), ApplyError> {
    put(ebpf, ALONE, new.iter().map(|(at, id)| (Raw(key_of(at)), *id)))
}

pub(super) fn remove_alone(ebpf: &mut Ebpf, gone_ones: &[AloneAt]) -> Result<(), ApplyError> {
    let mut map: HashMap<_, Raw<VipKey>, u32> = open(ebpf, ALONE)?;
    let mut gone_ones = gone_ones.iter();
    gone_ones.try_for_each(|at| gone(ALONE, map.remove(&Raw(key_of(at)))))
}

fn key_of((address, port, protocol): &AloneAt) -> VipKey {
    VipKey { address: words(*address), port: port.to_be_bytes(), protocol: *protocol, pad: 0 }
}

/// What is not there is gone, which is what was asked for.
fn gone(map: &'static str, removed: Result<(), MapError>) -> Result<(), ApplyError> {
    match removed {
        Err(MapError::KeyNotFound) | Ok(()) => Ok(()),
        Err(MapError::SyscallError(error)) if is_missing(&error) => Ok(()),
        Err(source) => Err(failed(map)(source)),
    }
}

fn is_missing(error: &SyscallError) -> bool {
    error.io_error.kind() == io::ErrorKind::NotFound
}

fn put<K: aya::Pod, V: aya::Pod>(
    ebpf: &Ebpf,
    name: &'static str,
    entries: impl Iterator<Item = (K, V)>,
) -> Result<(), ApplyError> {
    let (keys, values): (Vec<K>, Vec<V>) = entries.unzip();
    let fd = fd(ebpf, name);
    keys.chunks(BATCH).zip(values.chunks(BATCH)).try_for_each(|(keys, values)| {
        sys::update_batch(fd, keys, values).map_err(|e| failed(name)(MapError::IoError(e)))
    })
}

fn fd<'a>(ebpf: &'a Ebpf, name: &'static str) -> BorrowedFd<'a> {
    let map = ebpf.map(name).expect("the object holds this map");
    let (Map::Array(data) | Map::HashMap(data)) = map else {
        unreachable!("the object declares {name} as an array or a hash map")
    };
    data.fd().as_fd()
}

pub(in crate::dataplane) fn open<'a, M>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<M, ApplyError>
where
    M: TryFrom<&'a mut Map, Error = MapError>,
{
    ebpf.map_mut(name).expect("the object holds this map").try_into().map_err(failed(name))
}

pub(in crate::dataplane) fn failed(map: &'static str) -> impl Fn(MapError) -> ApplyError {
    move |source| ApplyError::Map { map, source }
}
