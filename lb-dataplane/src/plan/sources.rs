//! Where flows to backends come from: lists of addresses and ports in `SOURCES`, each there once however many backends use it.

use std::collections::BTreeMap;
use std::sync::Arc;

use lb_dataplane_common::service::{MAX_SOURCES, MAX_SOURCES_OF_BACKEND, SourceEntry};

use super::entries::{address, bytes};
use super::space::Rings;
use super::{PlanError, Step};
use crate::table::Source;

/// A list in `SOURCES`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Set {
    pub(super) base: u32,
    /// 0 for no list.
    pub(super) len: u32,
}

/// The lists that are there.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    by_content: BTreeMap<Arc<[Source]>, Set>,
    /// By first entry: what is there, and how many backends use it.
    in_use: BTreeMap<u32, (Arc<[Source]>, usize)>,
    space: Rings,
    limit: u32,
    /// What the plan that is being made did.
    done: Vec<Done>,
}

#[derive(Clone, Debug)]
enum Done {
    /// One more backend uses the list that begins here.
    Shared(u32),
    Added(Set),
    /// One backend fewer does.
    Left(u32),
    Removed(Set, Arc<[Source]>),
}

impl Sources {
    pub(super) fn new(limit: u32) -> Self {
        let (by_content, in_use) = (BTreeMap::new(), BTreeMap::new());
        Self {
            by_content,
            in_use,
            space: Rings::new(limit.min(MAX_SOURCES)),
            limit,
            done: Vec::new(),
        }
    }

    /// The plan stands.
    pub(super) fn settle(&mut self) {
        self.done.clear();
        self.space.settle();
    }

    /// The plan is refused.
    pub(super) fn undo(&mut self) {
        while let Some(done) = self.done.pop() {
            match done {
                Done::Shared(base) => self.in_use.entry(base).and_modify(|(_, n)| *n -= 1),
                Done::Left(base) => self.in_use.entry(base).and_modify(|(_, n)| *n += 1),
                Done::Added(set) => {
                    if let Some((content, _)) = self.in_use.remove(&set.base) {
                        self.by_content.remove(&content);
                    }
                    continue;
                }
                Done::Removed(set, content) => {
                    self.add(content, set);
                    continue;
                }
            };
        }
        self.space.undo();
    }

    /// How many lists were given back and wait for a grace period.
    pub(super) fn waiting(&self) -> usize {
        self.space.waiting()
    }

    /// The first so many of them have waited long enough.
    pub(super) fn passed(&mut self, count: usize) {
        self.space.passed(count);
    }

    /// The list with this content, for one more backend; written if it is not there.
    pub(super) fn take(
        &mut self,
        wanted: &Arc<[Source]>,
        steps: &mut Vec<Step>,
    ) -> Result<Set, PlanError> {
        if wanted.is_empty() {
            return Ok(Set::default());
        }
        if let Some(set) = self.by_content.get(wanted) {
            if let Some((_, users)) = self.in_use.get_mut(&set.base) {
                *users += 1;
                self.done.push(Done::Shared(set.base));
            }
            return Ok(*set);
        }
        let entries = wanted.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        let full = PlanError::SourcesFull(self.limit);
        let len = u32::try_from(entries.len()).ok().filter(|len| *len <= MAX_SOURCES_OF_BACKEND);
        let len = len.ok_or(PlanError::TooManySources { count: entries.len() })?;
        let base = self.space.take(len, steps).ok_or(full)?;
        steps.push(Step::WriteSources { base, entries });
        self.add(wanted.clone(), Set { base, len });
        self.done.push(Done::Added(Set { base, len }));
        Ok(Set { base, len })
    }

    fn add(&mut self, content: Arc<[Source]>, set: Set) {
        self.by_content.insert(content.clone(), set);
        self.in_use.insert(set.base, (content, 1));
    }

    /// One backend fewer uses a list.
    pub(super) fn give_back(&mut self, set: Set) {
        let Some((content, users)) = self.in_use.get_mut(&set.base).filter(|_| set.len > 0) else {
            return;
        };
        if *users > 1 {
            *users -= 1;
            self.done.push(Done::Left(set.base));
            return;
        }
        let content = content.clone();
        self.by_content.remove(&content);
        self.in_use.remove(&set.base);
        self.done.push(Done::Removed(set, content));
        self.space.give_back(set.base, set.len);
    }

    /// Every list that a backend uses: first entry and entries.
    pub(super) fn written(&self) -> impl Iterator<Item = (u32, Vec<SourceEntry>)> + '_ {
        // Only what has an entry was ever added.
        self.in_use.iter().map(|(base, (content, _))| {
            (*base, content.iter().filter_map(|source| entry(source).ok()).collect())
        })
    }

    /// A list that a previous process wrote, for one more backend.
    pub(super) fn adopt(&mut self, set: Set, read: &impl Fn(u32) -> Option<SourceEntry>) {
        if set.len == 0 {
            return;
        }
        if let Some((_, users)) = self.in_use.get_mut(&set.base) {
            *users += 1;
            return;
        }
        let entries = (set.base..set.base.saturating_add(set.len)).filter_map(read);
        let content = entries.map(|entry| source(&entry)).collect();
        self.space.reserve(set.base, set.len);
        self.add(content, set);
    }
}

fn entry(source: &Source) -> Result<SourceEntry, PlanError> {
    let Source { first_port, last_port, .. } = *source;
    let more_ports = last_port.checked_sub(first_port).filter(|_| first_port > 0);
    let more_ports = more_ports.ok_or(PlanError::Ports { first_port, last_port })?;
    Ok(SourceEntry { address: bytes(source.address), first_port, more_ports, pad: 0 })
}

fn source(entry: &SourceEntry) -> Source {
    Source {
        address: address(entry.address),
        first_port: entry.first_port,
        last_port: entry.first_port.saturating_add(entry.more_ports),
    }
}
