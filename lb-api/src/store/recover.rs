//! From the files to what they say: the newest whole snapshot, and every change since.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use lb_api_types::vip::Vip;

use super::journal::{self, Contents, Record};
use super::snapshot::{self, Snapshot, Unfit};
use super::{GENERATIONS, Generation, JOURNAL, PREVIOUS, SNAPSHOT, Store, StoreError};

use crate::resources::Resources;

/// What the files say.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub(super) revision: u64,
    pub(super) reserved: u64,
    pub(super) vips: BTreeMap<String, Vip>,
    pub(super) resources: Resources,
    /// Changes behind the snapshot.
    pub(super) changes: usize,
    /// Bytes of the snapshot.
    pub(super) snapshot_len: usize,
    /// Whether the current snapshot is there and damaged.
    pub(super) is_damaged: bool,
    /// Where the current journal goes on; `None` where a new one is to begin.
    pub(super) goes_on_at: Option<usize>,
    pub(super) warnings: Vec<String>,
}

/// A snapshot and when it was written.
type Dated = (Snapshot, SystemTime, usize);

impl Store {
    /// What is kept; of the current journal what is there before `end`, if that is said.
    pub(super) fn recover(&self, end: Option<usize>) -> Result<Recovered, StoreError> {
        let mut found = Recovered::default();
        let mut base = None;
        for n in 0..=PREVIOUS {
            match self.snapshot(n)? {
                None => continue,
                Some(Ok(snapshot)) => base = Some((n, snapshot)),
                Some(Err(why)) => {
                    found.is_damaged |= n == 0;
                    found.warnings.push(self.damaged_snapshot(n, &why));
                    continue;
                }
            }
            break;
        }
        let is_current = base
            .as_ref()
            .is_some_and(|(n, (snapshot, ..))| *n == 0 && snapshot.version == snapshot::VERSION);
        if let Some((_, (snapshot, _, len))) = base {
            (found.revision, found.snapshot_len) = (snapshot.revision, len);
            (found.vips, found.resources) = (by_name(snapshot.vips), snapshot.resources);
        }
        for n in (0..=PREVIOUS).rev() {
            let Some(contents) = self.journal(n, end.filter(|_| n == 0))? else { continue };
            if n == 0 && is_current && contents.damage.is_none() && !contents.is_torn {
                found.goes_on_at = Some(contents.end);
            }
            found.replay(contents, &self.path(JOURNAL, n).display().to_string());
        }
        Ok(found)
    }

    fn damaged_snapshot(&self, n: usize, why: &str) -> String {
        format!(
            "{} was damaged ({why}), so the VIPs are those of the one before it and of the journals, and changes may be missing: compare them with what you applied",
            self.path(SNAPSHOT, n).display()
        )
    }

    /// What is kept and what was kept before, the newest first; what is damaged is left out.
    pub fn generations(&self) -> Vec<Generation> {
        let mut snapshots: VecDeque<Dated> =
            (0..=PREVIOUS).rev().filter_map(|n| self.snapshot(n).ok()??.ok()).collect();
        let journals = (0..=PREVIOUS).rev().filter_map(|n| self.journal(n, None).ok()?);
        let mut all = Past::default();
        for record in journals.flat_map(|contents| contents.records) {
            while let Some((snapshot, written, _)) =
                snapshots.pop_front_if(|(snapshot, ..)| snapshot.revision <= record.after)
            {
                all.begin(snapshot, written);
            }
            all.go_on(record);
        }
        snapshots.into_iter().for_each(|(snapshot, written, _)| all.begin(snapshot, written));
        all.kept.into_iter().rev().map(Kept::generation).collect()
    }

    /// A snapshot, or what is wrong with it; `None` where there is none.
    fn snapshot(&self, n: usize) -> Result<Option<Result<Dated, String>>, StoreError> {
        let path = self.path(SNAPSHOT, n);
        let read = std::fs::read(&path).and_then(|bytes| {
            let written = std::fs::metadata(&path)?.modified()?;
            Ok((bytes, written))
        });
        match read {
            Ok((bytes, written)) => match snapshot::parse(&bytes) {
                Ok(snapshot) => Ok(Some(Ok((snapshot, written, bytes.len())))),
                Err(Unfit::Damaged(why)) => Ok(Some(Err(why))),
                Err(Unfit::Later(found)) => Err(StoreError::Version { path, found }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Io { what: "read", path, source }),
        }
    }

    fn journal(&self, n: usize, end: Option<usize>) -> Result<Option<Contents>, StoreError> {
        let path = self.path(JOURNAL, n);
        match std::fs::read(&path) {
            Ok(mut bytes) => {
                if let Some(end) = end.filter(|end| *end < bytes.len()) {
                    bytes[end..].fill(0);
                }
                Ok(Some(journal::parse(&bytes)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Io { what: "read", path, source }),
        }
    }
}

impl Recovered {
    fn replay(&mut self, contents: Contents, path: &str) {
        self.reserved = self.reserved.max(contents.reserved);
        if let Some(why) = contents.damage {
            self.warnings.push(format!(
                "{path} is damaged ({why}), so changes behind revision {} may be missing: compare the VIPs with what you applied",
                contents.records.last().map_or(self.revision, |record| record.revision)
            ));
        }
        self.changes = 0;
        for record in contents.records {
            self.reserved = self.reserved.max(record.revision);
            if record.revision <= self.revision {
                continue;
            }
            if record.after != self.revision {
                self.warnings.push(format!(
                    "changes between the revisions {} and {} are missing from {path}, so what came later is left out: compare the VIPs with what you applied",
                    self.revision, record.after
                ));
                self.goes_on_at = None;
                return;
            }
            self.changes += 1;
            change(&mut self.vips, record.put, &record.removed);
            if let Some(resources) = record.resources {
                self.resources = resources;
            }
            self.revision = record.revision;
        }
    }
}

fn by_name(vips: Vec<Vip>) -> BTreeMap<String, Vip> {
    vips.into_iter().map(|vip| (vip.metadata.name.clone(), vip)).collect()
}

fn change(vips: &mut BTreeMap<String, Vip>, put: Vec<Vip>, removed: &[String]) {
    for name in removed {
        vips.remove(name);
    }
    vips.extend(by_name(put));
}

/// States as they followed each other, the last few of them.
#[derive(Debug, Default)]
struct Past {
    now: BTreeMap<String, Arc<Vip>>,
    resources: Resources,
    revision: Option<u64>,
    kept: VecDeque<Kept>,
}

#[derive(Debug)]
struct Kept {
    revision: u64,
    written: SystemTime,
    vips: BTreeMap<String, Arc<Vip>>,
    resources: Resources,
}

impl Past {
    /// A snapshot, unless it only says again what is known.
    fn begin(&mut self, snapshot: Snapshot, written: SystemTime) {
        if self.revision.is_none_or(|revision| revision < snapshot.revision) {
            let named = |vip: Vip| (vip.metadata.name.clone(), Arc::new(vip));
            self.now = snapshot.vips.into_iter().map(named).collect();
            self.resources = snapshot.resources;
            self.note(snapshot.revision, written);
        }
    }

    /// A change, unless what it comes after is not known.
    fn go_on(&mut self, record: Record) {
        if self.revision.unwrap_or(0) != record.after {
            return;
        }
        for name in &record.removed {
            self.now.remove(name);
        }
        let named = |vip: Vip| (vip.metadata.name.clone(), Arc::new(vip));
        self.now.extend(record.put.into_iter().map(named));
        if let Some(resources) = record.resources {
            self.resources = resources;
        }
        self.note(record.revision, record.written);
    }

    fn note(&mut self, revision: u64, written: SystemTime) {
        self.revision = Some(revision);
        // What is there before the first change is nothing to go back to.
        if revision == 0 && self.now.is_empty() {
            return;
        }
        let (vips, resources) = (self.now.clone(), self.resources.clone());
        self.kept.push_back(Kept { revision, written, vips, resources });
        if self.kept.len() > GENERATIONS {
            self.kept.pop_front();
        }
    }
}

impl Kept {
    fn generation(self) -> Generation {
        let Self { revision, written, vips, resources } = self;
        let vips = vips.into_values().map(Arc::unwrap_or_clone).collect();
        Generation { revision, written, vips, resources }
    }
}
