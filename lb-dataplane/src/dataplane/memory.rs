//! The arrays of the services that are mapped into memory: rings, lists of clients, backends, and what is counted of these. To
//! read or write them takes no system call.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};

use aya::Ebpf;
use aya::maps::Map;
use lb_dataplane_common::list::{NODE_WORDS, PAGE_NODES};
use lb_dataplane_common::service::{BACKEND_WORDS, BackendEntry, NO_SERVICE, PAGE_WORDS};
use lb_dataplane_common::tables::{COUNTED_TOGETHER, CPU_COUNTS_WORDS, CpuCounts};

use super::Sizes;
use crate::layout;
use crate::mapped::Mapped;

pub(super) struct Memory {
    /// The words of `RINGS`.
    pub(super) rings: Mapped,
    /// Where the services' lists of clients are: `ACCESS_LISTS`.
    pub(super) lists: Mapped,
    /// The words of `ACCESS_NODES`.
    pub(super) list_nodes: Mapped,
    pub(super) backends: Backends,
    /// How many open flows each backend has: `OPEN_FLOWS`.
    open: Mapped,
    pub(super) counts: Counts,
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
            open: map(ebpf, "OPEN_FLOWS", sizes.backends as usize * size_of::<u64>())?,
            counts: Counts {
                array: array(ebpf, "BACKEND_COUNTS")?.try_clone_to_owned()?,
                mapped: Vec::new(),
                cpus: layout::cpus() as usize,
                of_each: layout::counted_backends(sizes.backends) as usize,
            },
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
        // Below zero for the moment in which a flow that ends is not counted as begun.
        let flows = self.open.wide_words().get(id as usize);
        flows.map_or(0, |flows| flows.load(Relaxed).cast_signed().max(0).cast_unsigned())
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
    const WORDS: usize = BACKEND_WORDS + 1;

    /// A backend's entry, as plans have it.
    pub(super) fn get(&self, id: u32) -> Option<BackendEntry> {
        let at = id as usize * Self::WORDS;
        let words = self.0.words().get(at..at + BACKEND_WORDS)?;
        Some(BackendEntry::from_words(std::array::from_fn(|n| words[n].load(Relaxed))))
    }

    /// The last of so many backends whose id was given out.
    pub(super) fn last(&self, backends: u32) -> Option<u32> {
        let is_given_out = |id: &u32| self.get(*id).is_some_and(|entry| entry.address != [0; 16]);
        (0..backends).rev().find(is_given_out)
    }

    /// Writes all of it but the load, which is the packets' to write.
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

    /// How many flows a backend has.
    pub(super) fn load(&self, id: u32) -> u64 {
        let load = self.0.words().get(id as usize * Self::WORDS + BACKEND_WORDS);
        // Below zero for the moment in which a flow that ends is not counted as begun.
        load.map_or(0, |load| load.load(Relaxed).cast_signed().max(0).cast_unsigned().into())
    }
}

/// What the CPUs have counted of backends, a line each: `BACKEND_COUNTS`. Only those of ids that were given out are mapped.
pub(super) struct Counts {
    array: OwnedFd,
    /// Block by block of ids, that of each CPU.
    mapped: Vec<Mapped>,
    cpus: usize,
    /// Backends for which each CPU has room.
    of_each: usize,
}

impl Counts {
    /// Bytes of a block of one CPU.
    const BLOCK: usize = COUNTED_TOGETHER as usize * size_of::<CpuCounts>();

    /// Has a backend's be mapped, and those of all with a smaller id.
    pub(super) fn reach(&mut self, id: u32) -> io::Result<()> {
        let of_one_cpu = self.of_each * size_of::<CpuCounts>();
        while self.mapped.len() < ((id / COUNTED_TOGETHER) as usize + 1) * self.cpus {
            let (block, cpu) = (self.mapped.len() / self.cpus, self.mapped.len() % self.cpus);
            let from = cpu * of_one_cpu + block * Self::BLOCK;
            self.mapped.push(Mapped::map_part(&self.array, from, Self::BLOCK)?);
        }
        Ok(())
    }

    /// What all CPUs have counted of a backend.
    pub(super) fn of(&self, id: u32) -> CpuCounts {
        let lines = self
            .lines_of(id)
            .map(|line| CpuCounts::from_words(std::array::from_fn(|n| line[n].load(Relaxed))));
        lines.fold(CpuCounts::default(), |sum, line| CpuCounts {
            counts: sum.counts.and(line.counts),
            removed: sum.removed.wrapping_add(line.removed),
        })
    }

    /// Begins a backend's at zero.
    pub(super) fn clear(&self, id: u32) {
        self.lines_of(id).flatten().for_each(|word| word.store(0, Relaxed));
    }

    fn lines_of(&self, id: u32) -> impl Iterator<Item = &[AtomicU64]> {
        let (block, place) = (id / COUNTED_TOGETHER, id % COUNTED_TOGETHER);
        let blocks = self.mapped.iter().skip(block as usize * self.cpus).take(self.cpus);
        let at = place as usize * CPU_COUNTS_WORDS;
        blocks.map(move |block| &block.wide_words()[at..at + CPU_COUNTS_WORDS])
    }
}

#[cfg(test)]
mod tests {
    use lb_dataplane_common::service::BACKEND_IN_USE;
    use lb_dataplane_common::tables::FlowCounts;

    use super::*;

    fn entry() -> BackendEntry {
        BackendEntry {
            address: std::array::from_fn(|n| n as u8 + 1),
            port: [17, 18],
            flags: BACKEND_IN_USE,
            weight: 20,
            service: 0x1514_1312,
            sources_base: 22,
            sources_len: 23,
            max_flows: 24,
            idle: 25,
            vip: std::array::from_fn(|n| n as u8 + 26),
            vip_port: [42, 43],
            protocol: 44,
            pad: 0,
            load: 0,
        }
    }

    #[test]
    fn an_entry_is_read_as_it_was_written_and_its_load_is_the_packets() {
        let memory = Mapped::on_heap(3 * 64);
        memory.words()[31].store(7, Relaxed);
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
        assert_eq!(bytes[40..59], std::array::from_fn::<u8, 19, _>(|n| n as u8 + 26));
        backends.take_from_service(1);
        assert_eq!(backends.get(1), Some(entry()), "it has not left");
        let left = BackendEntry { flags: 0, ..entry() };
        backends.put(1, &left);
        backends.take_from_service(1);
        assert_eq!(backends.get(1), Some(BackendEntry { service: NO_SERVICE, ..left }));
        assert_eq!((backends.load(1), backends.get(3)), (7, None));
        backends.put(3, &entry());
    }

    #[test]
    fn what_is_counted_is_the_sum_of_all_cpus_lines() {
        // Two blocks of backends, of two CPUs each.
        let array = std::fs::File::open("/dev/null").expect("it is there").into();
        let mapped = (0..4).map(|_| Mapped::on_heap(Counts::BLOCK)).collect();
        let last = 2 * COUNTED_TOGETHER - 1;
        let counts = Counts { array, mapped, cpus: 2, of_each: last as usize + 1 };
        for cpu in 0..2 {
            for (n, id) in [0, COUNTED_TOGETHER - 1, COUNTED_TOGETHER, last].into_iter().enumerate()
            {
                let line = counts.lines_of(id).nth(cpu).expect("it is mapped");
                line.iter().zip(1..).for_each(|(word, m)| {
                    assert_eq!(word.load(Relaxed), 0, "no line is another one's");
                    word.store((n as u64 + 1) * m * [1, 1000][cpu], Relaxed);
                });
            }
        }
        for (n, id) in [0, COUNTED_TOGETHER - 1, COUNTED_TOGETHER, last].into_iter().enumerate() {
            let CpuCounts { counts: all, removed } = counts.of(id);
            let ([there, back], FlowCounts { flows, evicted, exhausted, .. }) = (all.passed, all);
            let words = [there.packets, there.bytes, back.packets, back.bytes];
            let sum = |m: u64| (n as u64 + 1) * m * 1001;
            assert_eq!(words, [1, 2, 3, 4].map(sum));
            assert_eq!([flows, evicted, exhausted, removed], [5, 6, 7, 8].map(sum));
        }
        counts.clear(COUNTED_TOGETHER);
        assert_eq!(counts.of(COUNTED_TOGETHER), CpuCounts::default());
        assert_ne!(counts.of(COUNTED_TOGETHER - 1), CpuCounts::default());
        assert_ne!(counts.of(last), CpuCounts::default());
        assert_eq!(counts.of(last + 1), CpuCounts::default(), "it is not mapped");
    }
}
