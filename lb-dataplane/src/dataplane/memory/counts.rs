//! What the CPUs have counted of backends, a line each: `BACKEND_COUNTS`.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use lb_dataplane_common::line::NONE;
use lb_dataplane_common::tables::{COUNTED_TOGETHER, CPU_COUNTS_WORDS, CpuCounts};

use crate::mapped::Mapped;

/// The lines, block by block. Only blocks that somebody has asked for are mapped: packets give lines out densely, so those of
/// backends that have flows are in the first ones.
pub(in crate::dataplane) struct Counts {
    array: OwnedFd,
    /// Of each block that of each CPU.
    blocks: Vec<OnceLock<Vec<Mapped>>>,
    cpus: usize,
    /// Lines of each CPU.
    of_each: usize,
}

impl Counts {
    /// Bytes of a block of one CPU.
    const BLOCK: usize = COUNTED_TOGETHER as usize * size_of::<CpuCounts>();

    pub(super) fn new(array: OwnedFd, cpus: u32, of_each: u32) -> Self {
        let blocks = (0..of_each.div_ceil(COUNTED_TOGETHER)).map(|_| OnceLock::new()).collect();
        Self { array, blocks, cpus: cpus as usize, of_each: of_each as usize }
    }

    /// What all CPUs have counted in a line; in none nothing.
    pub(super) fn of(&self, line: u32) -> io::Result<CpuCounts> {
        let lines = self
            .lines_of(line)?
            .map(|line| CpuCounts::from_words(std::array::from_fn(|n| line[n].load(Relaxed))));
        Ok(lines.fold(CpuCounts::default(), |sum, line| CpuCounts {
            counts: sum.counts.and(line.counts),
            removed: sum.removed.wrapping_add(line.removed),
        }))
    }

    /// Has a line begin at zero.
    pub(super) fn clear(&self, line: u32) -> io::Result<()> {
        self.lines_of(line)?.flatten().for_each(|word| word.store(0, Relaxed));
        Ok(())
    }

    fn lines_of(&self, line: u32) -> io::Result<impl Iterator<Item = &[AtomicU64]>> {
        let (block, place) = (line / COUNTED_TOGETHER, line % COUNTED_TOGETHER);
        let block = if line == NONE { &[] } else { self.block(block as usize)? };
        let at = place as usize * CPU_COUNTS_WORDS;
        Ok(block.iter().map(move |of_cpu| &of_cpu.wide_words()[at..at + CPU_COUNTS_WORDS]))
    }

    /// A block, mapped.
    fn block(&self, number: usize) -> io::Result<&[Mapped]> {
        let Some(block) = self.blocks.get(number) else {
            return Err(io::Error::other(format!("no CPU has a block {number} of lines")));
        };
        if let Some(mapped) = block.get() {
            return Ok(mapped);
        }
        let of_cpu = |cpu| {
            let from = cpu * self.of_each * size_of::<CpuCounts>() + number * Self::BLOCK;
            Mapped::map_part(&self.array, from, Self::BLOCK)
        };
        let mapped = (0..self.cpus).map(of_cpu).collect::<io::Result<_>>()?;
        Ok(block.get_or_init(|| mapped))
    }
}

#[cfg(test)]
mod tests {
    use lb_dataplane_common::tables::FlowCounts;

    use super::*;

    #[test]
    fn what_is_counted_is_the_sum_of_all_cpus_lines() {
        // Two blocks, of two CPUs each.
        let array = std::fs::File::open("/dev/null").expect("it is there").into();
        let counts = Counts::new(array, 2, 2 * COUNTED_TOGETHER);
        for block in &counts.blocks {
            let of_cpus = (0..2).map(|_| Mapped::on_heap(Counts::BLOCK)).collect();
            block.set(of_cpus).expect("it was not mapped");
        }
        let last = 2 * COUNTED_TOGETHER - 1;
        let of = |line| counts.of(line).expect("it is mapped");
        for cpu in 0..2 {
            for (n, id) in [1, COUNTED_TOGETHER - 1, COUNTED_TOGETHER, last].into_iter().enumerate()
            {
                let mut lines = counts.lines_of(id).expect("it is mapped");
                let line = lines.nth(cpu).expect("of each CPU");
                line.iter().zip(1..).for_each(|(word, m)| {
                    assert_eq!(word.load(Relaxed), 0, "no line is another one's");
                    word.store((n as u64 + 1) * m * [1, 1000][cpu], Relaxed);
                });
            }
        }
        for (n, id) in [1, COUNTED_TOGETHER - 1, COUNTED_TOGETHER, last].into_iter().enumerate() {
            let CpuCounts { counts: all, removed } = of(id);
            let ([there, back], FlowCounts { flows, evicted, exhausted, .. }) = (all.passed, all);
            let words = [there.packets, there.bytes, back.packets, back.bytes];
            let sum = |m: u64| (n as u64 + 1) * m * 1001;
            assert_eq!(words, [1, 2, 3, 4].map(sum));
            assert_eq!([flows, evicted, exhausted, removed], [5, 6, 7, 8].map(sum));
        }
        counts.clear(COUNTED_TOGETHER).expect("it is mapped");
        assert_eq!(of(COUNTED_TOGETHER), CpuCounts::default());
        assert_ne!(of(COUNTED_TOGETHER - 1), CpuCounts::default());
        assert_ne!(of(last), CpuCounts::default());
        assert!(counts.of(last + 1).is_err(), "there is none");
    }

    #[test]
    fn who_has_no_line_has_counted_nothing_and_one_that_cannot_be_mapped_is_an_error() {
        let array = std::fs::File::open("/dev/null").expect("it is there").into();
        let counts = Counts::new(array, 2, COUNTED_TOGETHER);
        assert_eq!(counts.of(NONE).ok(), Some(CpuCounts::default()));
        assert!(counts.clear(NONE).is_ok());
        assert!(counts.of(1).is_err());
        assert!(counts.clear(1).is_err());
    }
}
