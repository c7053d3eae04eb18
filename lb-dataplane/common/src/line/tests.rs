use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const IDS: u32 = 6;
const CPUS: usize = 3;

/// What CPUs share, with what another one does between two steps of this one.
struct Shared {
    of: RefCell<BTreeMap<u32, u32>>,
    noted: RefCell<BTreeMap<u32, u32>>,
    given: Cell<u32>,
    kept: [Cell<u32>; CPUS],
    /// Which CPUs come in, after how many steps of who is at work, and what they ask for; the next one last.
    comes: RefCell<Vec<(usize, usize, u32)>>,
    most: u32,
}

impl Shared {
    fn new() -> Self {
        Self {
            of: RefCell::default(),
            noted: RefCell::default(),
            given: Cell::new(0),
            kept: [const { Cell::new(NONE) }; CPUS],
            comes: RefCell::default(),
            most: lines(IDS, CPUS as u32),
        }
    }

    /// No line is two ids', no number is lost, and they are no more than there may be.
    fn check(&self) {
        let of = self.of.borrow();
        let used: BTreeSet<u32> = of.values().copied().collect();
        assert_eq!(used.len(), of.len(), "a line for each: {of:?}");
        for (id, line) in of.iter() {
            assert_eq!(self.noted.borrow().get(line), Some(id), "whose it is stands there");
        }
        let kept = self.kept.iter().map(Cell::get).filter(|line| *line != NONE);
        let all: Vec<u32> = used.iter().copied().chain(kept).collect();
        let known: BTreeSet<u32> = all.iter().copied().collect();
        assert_eq!(known.len(), all.len(), "none is kept that is somebody's: {all:?}");
        assert_eq!(known, (1..=self.given.get()).collect(), "none is lost");
        assert!(self.given.get() < self.most);
    }
}

/// A CPU at work.
struct Cpu<'a>(usize, &'a Shared);

impl Cpu<'_> {
    fn step(&self) {
        let next = self.1.comes.borrow_mut().pop();
        match next {
            // A CPU does not come in on itself.
            Some((0, cpu, id)) if cpu != self.0 => {
                let line = line_of(&Cpu(cpu, self.1), id);
                assert_eq!(self.1.noted.borrow().get(&line), Some(&id));
            }
            Some((0, ..)) | None => {}
            Some((steps, cpu, id)) => self.1.comes.borrow_mut().push((steps - 1, cpu, id)),
        }
    }
}

impl Lines for Cpu<'_> {
    fn line(&self, backend: u32) -> u32 {
        self.step();
        self.1.of.borrow().get(&backend).copied().unwrap_or(NONE)
    }
    fn give(&self, backend: u32, line: u32) -> u32 {
        self.step();
        let had = self.1.of.borrow().get(&backend).copied().unwrap_or(NONE);
        if had == NONE {
            self.1.of.borrow_mut().insert(backend, line);
        }
        had
    }
    fn kept(&self) -> u32 {
        self.1.kept[self.0].get()
    }
    fn keep(&self, line: u32) {
        self.1.kept[self.0].set(line);
    }
    fn next(&self) -> u32 {
        self.step();
        self.1.given.set(self.1.given.get() + 1);
        self.1.given.get()
    }
    fn note(&self, line: u32, backend: u32) -> bool {
        self.step();
        if line < self.1.most {
            self.1.noted.borrow_mut().insert(line, backend);
        }
        line < self.1.most
    }
}

#[test]
fn lines_are_given_in_order_and_stay() {
    let shared = Shared::new();
    let cpu = Cpu(0, &shared);
    let asked = [5, 2, 5, 0, 2, 0].map(|id| line_of(&cpu, id));
    assert_eq!(asked, [1, 2, 1, 3, 2, 3]);
    shared.check();
}

#[test]
fn who_is_second_at_a_backend_has_the_firsts_line_and_keeps_its_number_for_the_next() {
    // One step before each access.
    for step in 0..4 {
        let shared = Shared::new();
        shared.comes.borrow_mut().push((step, 1, 4));
        let line = line_of(&Cpu(0, &shared), 4);
        assert_eq!(shared.of.borrow().get(&4), Some(&line), "{step}");
        shared.check();
        assert_eq!(line_of(&Cpu(1, &shared), 4), line);
        // Of two numbers one is kept, whoever was first.
        let is_raced = step > 0;
        assert_eq!(shared.given.get(), 1 + u32::from(is_raced), "{step}");
        assert_eq!(shared.kept[0].get() != NONE, is_raced, "{step}");
        let next = line_of(&Cpu(0, &shared), 3);
        assert_eq!((next != line, next <= 2), (true, true), "{step}");
        assert_eq!(shared.kept[0].get(), NONE);
        shared.check();
    }
}

#[test]
fn where_there_is_no_line_nobody_is_told_of_one() {
    let shared = Shared { most: 2, ..Shared::new() };
    assert_eq!(line_of(&Cpu(0, &shared), 1), 1);
    assert_eq!(line_of(&Cpu(0, &shared), 2), NONE);
    assert_eq!(shared.of.borrow().get(&2), None);
}

proptest! {
    #[test]
    fn no_number_is_lost_and_none_is_anothers_however_cpus_meet(
        asked in prop::collection::vec((0..CPUS, 0..IDS), 1..12),
        comes in prop::collection::vec((0..4_usize, 0..CPUS, 0..IDS), 0..12),
    ) {
        let shared = Shared::new();
        for ((cpu, id), comes) in asked.into_iter().zip(comes.into_iter().map(Some).chain([None; 12])) {
            shared.comes.replace(comes.into_iter().collect());
            let line = line_of(&Cpu(cpu, &shared), id);
            let has = shared.of.borrow().get(&id).copied();
            prop_assert_eq!(has, Some(line));
            shared.comes.borrow_mut().clear();
            shared.check();
        }
    }
}
