//! The arrays of the services that are mapped into memory: rings, lists of clients, backends, and what is counted of these. To
//! read or write them takes no system call.

mod counts;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, Release};

use aya::Ebpf;
use aya::maps::Map;
use lb_dataplane_common::family::{V4, V6};
use lb_dataplane_common::flow_table::buckets_for;
use lb_dataplane_common::line::{LineEntry, NONE};
use lb_dataplane_common::list::{NODE_WORDS, PAGE_NODES};
use lb_dataplane_common::service::{BACKEND_WORDS, BackendEntry, NO_SERVICE, PAGE_WORDS};
use lb_dataplane_common::tables::CpuCounts;

use self::counts::Counts;
use super::Sizes;
use crate::flow_table::FlowTable;
use crate::layout;
use crate::mapped::Mapped;

/// The map of what is counted of backends.
pub(super) const COUNTS: &str = "BACKEND_COUNTS";
/// Words of a line's entry: whose it is, and its open flows.
const LINE_WORDS: usize = size_of::<LineEntry>() / 4;

pub(super) struct Memory {
    /// The words of `RINGS`.
    pub(super) rings: Mapped,
    /// Where the services' lists of clients are: `ACCESS_LISTS`.
    pub(super) lists: Mapped,
    /// The words of `ACCESS_NODES`.
    pub(super) list_nodes: Mapped,
    pub(super) backends: Backends,
    /// The words of `LINES`: whose each line is, and how many open flows that backend has.
    lines: Mapped,
    counts: Counts,
    pub(super) flows: FlowTable<V4>,
    pub(super) flows6: FlowTable<V6>,
}

impl Memory {
    pub(super) fn map(ebpf: &Ebpf, sizes: &Sizes) -> io::Result<Self> {
        let backends = sizes.backends as usize * size_of::<BackendEntry>();
        let rings = sizes.ring_pages as usize * PAGE_WORDS * size_of::<u32>();
        let page = (PAGE_NODES * NODE_WORDS) as usize * size_of::<u64>();
        let lists = layout::service_ids(sizes.services) as usize * size_of::<u64>();
        let nodes = layout::list_pages(sizes) as usize * page;
        Ok(Self {
            rings: map(ebpf, "RINGS", rings)?,
            lists: map(ebpf, "ACCESS_LISTS", lists)?,
            list_nodes: map(ebpf, "ACCESS_NODES", nodes)?,
            backends: Backends(map(ebpf, "BACKENDS", backends)?),
            lines: map(
                ebpf,
                "LINES",
                layout::lines(sizes.backends) as usize * size_of::<LineEntry>(),
            )?,
            counts: Counts::new(
                array(ebpf, COUNTS)?.try_clone_to_owned()?,
                layout::cpus(),
                layout::counted_lines(sizes.backends),
            ),
            flows: FlowTable::map(array(ebpf, "FLOWS")?, buckets_for(sizes.flow_entries))?,
            flows6: FlowTable::map(array(ebpf, "FLOWS6")?, buckets_for(sizes.flow_entries6))?,
        })
    }
}

impl Memory {
    /// Leads a service to its list, with all that was written before.
    pub(super) fn set_list(&self, service: u32, word: u64) {
        if let Some(place) = self.lists.wide_words().get(service as usize) {
            place.store(word, Release);
        }
    }

    /// How many open flows a backend has.
    pub(super) fn open_flows(&self, id: u32) -> u64 {
        count(self.lines.words().get(self.backends.line(id) as usize * LINE_WORDS + 1))
    }

    /// The backend whose line a flow names.
    pub(super) fn backend_of(&self, line: u32) -> Option<u32> {
        let backend = self.lines.words().get(line as usize * LINE_WORDS)?;
        (line != NONE).then(|| backend.load(Relaxed))
    }

    /// What all CPUs have counted of a backend.
    pub(super) fn counted(&self, id: u32) -> io::Result<CpuCounts> {
        self.counts.of(self.backends.line(id))
    }

    /// Begins a backend's counters at zero.
    pub(super) fn clear_counted(&self, id: u32) -> io::Result<()> {
        self.counts.clear(self.backends.line(id))
    }
}

fn map(ebpf: &Ebpf, name: &str, bytes: usize) -> io::Result<Mapped> {
    Mapped::map(array(ebpf, name)?, bytes)
}

fn array<'a>(ebpf: &'a Ebpf, name: &str) -> io::Result<BorrowedFd<'a>> {
    match ebpf.map(name) {
        Some(Map::Array(data)) => Ok(data.fd().as_fd()),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, name)),
    }
}

/// The entries of `BACKENDS`. Packets that read one while it is written may see some words of each, as with any array.
pub(super) struct Backends(Mapped);

impl Backends {
    /// Words of an entry.
    const WORDS: usize = size_of::<BackendEntry>() / 4;

    /// A backend's entry, as plans have it.
    pub(super) fn get(&self, id: u32) -> Option<BackendEntry> {
        let at = id as usize * Self::WORDS;
        let words = self.0.words().get(at..at + BACKEND_WORDS)?;
        Some(BackendEntry::from_words(std::array::from_fn(|n| words[n].load(Relaxed))))
    }

    /// Writes all of it but the line and the load, which are the packets' to write.
    pub(super) fn put(&self, id: u32, entry: &BackendEntry) {
        let places = self.0.words().iter().skip(id as usize * Self::WORDS);
        places.zip(entry.to_words()).for_each(|(place, word)| place.store(word, Relaxed));
    }

    /// Has nobody's counters include those of a backend that has left its service.
    pub(super) fn take_from_service(&self, id: u32) {
        if let Some(entry) = self.get(id).filter(|entry| entry.left().is_some()) {
            self.put(id, &BackendEntry { service: NO_SERVICE, ..entry });
        }
    }

    /// The line of a backend, which keeps it also when the id is given to another one; [`NONE`] before the first flow.
    fn line(&self, id: u32) -> u32 {
        let line = self.0.words().get(id as usize * Self::WORDS + BACKEND_WORDS);
        line.map_or(NONE, |line| line.load(Relaxed))
    }

    /// How many flows a backend has.
    pub(super) fn load(&self, id: u32) -> u64 {
        count(self.0.words().get(id as usize * Self::WORDS + BACKEND_WORDS + 1))
    }
}

/// A count that is below zero for the moment in which a flow that ends is not counted as begun.
fn count(word: Option<&AtomicU32>) -> u64 {
    word.map_or(0, |word| word.load(Relaxed).cast_signed().max(0).cast_unsigned().into())
}

#[cfg(test)]
mod tests {
    use lb_dataplane_common::service::{BACKEND_IN_USE, SourceList};

    use super::*;

    fn entry() -> BackendEntry {
        BackendEntry {
            address: std::array::from_fn(|n| n as u8 + 1),
            port: [17, 18],
            flags: BACKEND_IN_USE,
            weight: 20,
            service: 0x1514_1312,
            sources: SourceList::new(22, 23),
            max_flows: 24,
            idle: 25,
            vip: std::array::from_fn(|n| n as u8 + 26),
            vip_port: [42, 43],
            protocol: 44,
            pad: 0,
            line: 0,
            load: 0,
        }
    }

    #[test]
    fn an_entry_is_read_as_it_was_written_and_its_line_and_load_are_the_packets() {
        let memory = Mapped::on_heap(3 * 64);
        memory.words()[31].store(7, Relaxed);
        memory.words()[30].store(3, Relaxed);
        let backends = Backends(memory);
        backends.put(1, &entry());
        assert_eq!(backends.get(1), Some(entry()));
        assert_eq!((backends.load(0), backends.load(1), backends.load(2)), (0, 7, 0));
        // Byte for byte where the programs' layout has it.
        let bytes: Vec<u8> =
            backends.0.words()[16..32].iter().flat_map(|w| w.load(Relaxed).to_ne_bytes()).collect();
        assert_eq!(
            bytes[..20],
            std::array::from_fn::<u8, 20, _>(|n| [n as u8 + 1, 1][usize::from(n == 18)])
        );
        assert_eq!(bytes[36..55], std::array::from_fn::<u8, 19, _>(|n| n as u8 + 26));
        backends.take_from_service(1);
        assert_eq!(backends.get(1), Some(entry()), "it has not left");
        let left = BackendEntry { flags: 0, ..entry() };
        backends.put(1, &left);
        backends.take_from_service(1);
        assert_eq!(backends.get(1), Some(BackendEntry { service: NO_SERVICE, ..left }));
        assert_eq!((backends.line(1), backends.load(1), backends.get(3)), (3, 7, None));
        backends.put(3, &entry());
    }
}
