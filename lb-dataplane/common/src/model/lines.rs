//! The lines in which is counted what is a backend's.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use super::ModelTables;
use crate::line::{Lines, NONE};

/// Whose they are, and the numbers that CPUs keep.
#[derive(Default)]
pub(crate) struct ModelLines {
    /// By backend.
    of: RefCell<HashMap<u32, u32>>,
    /// By line, from 1 on.
    backends: RefCell<HashMap<u32, u32>>,
    last: Cell<u32>,
    /// This CPU's, and another one's.
    kept: [Cell<u32>; 2],
}

impl ModelLines {
    /// Whose a line is.
    pub(crate) fn backend(&self, line: u32) -> u32 {
        assert_ne!(line, NONE, "no flow names it");
        *self.backends.borrow().get(&line).expect("whose a line is stands before a flow names it")
    }
}

impl Lines for ModelTables {
    fn line(&self, backend: u32) -> u32 {
        self.lines.of.borrow().get(&backend).copied().unwrap_or(NONE)
    }

    fn give(&self, backend: u32, line: u32) -> u32 {
        self.step();
        let mut of = self.lines.of.borrow_mut();
        let had = of.get(&backend).copied().unwrap_or(NONE);
        if had == NONE {
            of.insert(backend, line);
        }
        had
    }

    fn kept(&self) -> u32 {
        self.lines.kept[usize::from(self.is_other_cpu.get())].get()
    }

    fn keep(&self, line: u32) {
        self.lines.kept[usize::from(self.is_other_cpu.get())].set(line);
    }

    fn next(&self) -> u32 {
        self.step();
        self.lines.last.set(self.lines.last.get() + 1);
        self.lines.last.get()
    }

    fn note(&self, line: u32, backend: u32) -> bool {
        self.step();
        self.lines.backends.borrow_mut().insert(line, backend);
        true
    }
}
