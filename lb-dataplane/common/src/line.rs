//! Lines: where what is a backend's is counted.
//!
//! Each CPU counts what is a backend's in a line of its cache. Were that found by the backend's id, the lines of ten thousand busy
//! backends among a million would be in ten thousand pages, and each packet would wait for the processor to translate an address. So
//! a backend is given the number of a line with its first flow, the next one that nobody has, and its flows name that number: those
//! that are busy are close to one another, whatever their ids are.
//!
//! A number stays its id's for as long as the tables live, also when the id is given to another backend. Who gives one and finds that
//! another CPU was first keeps it for the next backend that has none: so there are never more numbers than ids, and one for each CPU
//! ([`lines`]).

/// The line of nobody. No flow names it.
pub const NONE: u32 = 0;

/// Value of the array `LINES`, by line. The backend is written before any flow names the line, and never changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct LineEntry {
    /// Whose line it is.
    pub backend: u32,
    /// How many open flows that backend has; below zero for a moment where one ends before it is counted.
    pub open: u32,
}

/// Lines that are given out at most, [`NONE`] among them.
#[must_use]
pub const fn lines(backends: u32, cpus: u32) -> u32 {
    backends.saturating_add(cpus).saturating_add(1)
}

/// Where lines are given out. Each method is one access; other CPUs may come in between.
pub trait Lines {
    /// The line that an id has, or [`NONE`].
    fn line(&self, backend: u32) -> u32;
    /// Gives an id a line if it has none; the one that it had.
    fn give(&self, backend: u32, line: u32) -> u32;
    /// The number that this CPU keeps, or [`NONE`].
    fn kept(&self) -> u32;
    /// Has this CPU keep a number, or [`NONE`].
    fn keep(&self, line: u32);
    /// The next number, from 1 on.
    fn next(&self) -> u32;
    /// Notes whose a line is to be; whether there is such a line.
    fn note(&self, line: u32, backend: u32) -> bool;
}

/// The line of a backend, which it is given where it has none.
#[inline(always)]
pub fn line_of(lines: &impl Lines, backend: u32) -> u32 {
    match lines.line(backend) {
        NONE => give(lines, backend),
        line => line,
    }
}

#[inline(always)]
fn give(lines: &impl Lines, backend: u32) -> u32 {
    let kept = lines.kept();
    let mine = if kept == NONE { lines.next() } else { kept };
    // Before anybody can find the line at the backend.
    let is_noted = lines.note(mine, backend);
    let had = if is_noted { lines.give(backend, mine) } else { NONE };
    match (is_noted, had) {
        (false, _) => NONE,
        (true, NONE) => {
            lines.keep(NONE);
            mine
        }
        (true, had) => {
            lines.keep(mine);
            had
        }
    }
}

const _: () = assert!(size_of::<LineEntry>() == 8);

#[cfg(test)]
mod tests;
