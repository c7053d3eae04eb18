//! From the files to what they say: the newest whole snapshot, and every change since.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use lb_api_types::vip::Vip;

use super::journal::{self, Contents, Record};
use super::snapshot::{self, Snapshot, Unfit};
use super::{GENERATIONS, Generation, JOURNAL, Notice, PREVIOUS, SNAPSHOT, Store, StoreError};

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
    pub(super) notices: Vec<Notice>,
}

/// A snapshot and when it was written.
type Dated = (Snapshot, SystemTime, usize);

impl Store {
    /// What is kept.
    pub(super) fn recover(&self) -> Result<Recovered, StoreError> {
        let mut found = Recovered::default();
        let mut base = None;
        for n in 0..=PREVIOUS {
            match self.snapshot(n)? {
                None => continue,
                Some(Ok(snapshot)) => base = Some((n, snapshot)),
                Some(Err(why)) => {
                    found.is_damaged |= n == 0;
                    found.notices.push(self.damaged_snapshot(n, &why));
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
            let Some(contents) = self.journal(n, found.revision)? else { continue };
            if n == 0 && is_current && contents.damage.is_none() && !contents.is_torn {
                found.goes_on_at = Some(contents.end);
            }
            found.replay(contents, &self.path(JOURNAL, n));
        }
        Ok(found)
    }

    fn damaged_snapshot(&self, n: usize, why: &str) -> Notice {
        let path = self.path(SNAPSHOT, n);
        let said = format!(
            "{} was damaged ({why}), so the VIPs are those of the one before it and of the journals, and changes may be missing: compare them with what you applied",
            path.display()
        );
        Notice::of(&path, said)
    }

    /// What is kept and what was kept before, the newest first; what is damaged is left out.
    pub fn generations(&self) -> Vec<Generation> {
        let (snapshots, journals): (Vec<Dated>, Vec<Contents>) = {
            let _no_file_changes_places =
                self.folding.lock().unwrap_or_else(PoisonError::into_inner);
            let oldest_first = || (0..=PREVIOUS).rev();
            (
                oldest_first().filter_map(|n| self.snapshot(n).ok()??.ok()).collect(),
                oldest_first().filter_map(|n| self.journal(n, 0).ok()?).collect(),
            )
        };
        let mut past = Past::default();
        let mut snapshots = VecDeque::from(snapshots);
        for record in journals.into_iter().flat_map(|contents| contents.records) {
            while let Some((snapshot, written, _)) =
                snapshots.pop_front_if(|(snapshot, ..)| snapshot.revision <= record.after)
            {
                past.begin(snapshot, written);
            }
            past.go_on(record);
        }
        snapshots.into_iter().for_each(|(snapshot, written, _)| past.begin(snapshot, written));
        past.generations()
    }

    /// A snapshot, or what is wrong with it; `None` where there is none. One that the disk does not give is damaged, too.
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
                Err(Unfit::Foreign(why)) => Err(StoreError::Foreign { path, why }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => unreadable(path, n, source).map(|why| Some(Err(why))),
        }
    }

    /// A journal without the changes up to a revision that is known.
    fn journal(&self, n: usize, known: u64) -> Result<Option<Contents>, StoreError> {
        let path = self.path(JOURNAL, n);
        match std::fs::read(&path) {
            Ok(bytes) => match journal::parse_from(&bytes, known) {
                Contents { foreign: Some(why), .. } => Err(StoreError::Foreign { path, why }),
                contents => Ok(Some(contents)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => {
                let damage = Some(unreadable(path, n, source)?);
                Ok(Some(Contents { damage, ..Contents::default() }))
            }
        }
    }
}

/// What is wrong with a file that is there and cannot be read; who may not read the current one has it repaired first.
fn unreadable(path: PathBuf, n: usize, source: io::Error) -> Result<String, StoreError> {
    if n == 0 && source.kind() == io::ErrorKind::PermissionDenied {
        return Err(StoreError::Io { what: "read", path, source });
    }
    Ok(format!("it cannot be read: {source}"))
}

impl Recovered {
    fn notice(&mut self, file: &Path, said: String) {
        self.notices.push(Notice::of(file, said));
    }

    fn replay(&mut self, contents: Contents, file: &Path) {
        let path = file.display();
        self.reserved = self.reserved.max(contents.reserved);
        if let Some(why) = contents.damage {
            self.notice(file, format!(
                "{path} is damaged ({why}), so changes behind revision {} may be missing: compare the VIPs with what you applied",
                contents.records.last().map_or(self.revision, |record| record.revision)
            ));
        }
        if contents.has_holes {
            self.notice(file, format!(
                "the last change in {path} lacks parts and is left out: it was being written when the machine stopped, or the disk has lost it; compare the VIPs with what you applied last"
            ));
        }
        self.changes = 0;
        for record in contents.records {
            self.reserved = self.reserved.max(record.revision);
            if record.revision <= self.revision {
                continue;
            }
            if record.after != self.revision {
                self.notice(file, format!(
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

/// What made each state out of the one before.
#[derive(Debug)]
enum Made {
    Snapshot(Snapshot, SystemTime),
    Record(Record),
}

/// States as they followed each other.
#[derive(Debug, Default)]
struct Past {
    revision: Option<u64>,
    made: Vec<Made>,
}

impl Past {
    /// A snapshot, unless it only says again what is known.
    fn begin(&mut self, snapshot: Snapshot, written: SystemTime) {
        if self.revision.is_none_or(|revision| revision < snapshot.revision) {
            self.revision = Some(snapshot.revision);
            self.made.push(Made::Snapshot(snapshot, written));
        }
    }

    /// A change, unless what it comes after is not known.
    fn go_on(&mut self, record: Record) {
        if self.revision.unwrap_or(0) == record.after {
            self.revision = Some(record.revision);
            self.made.push(Made::Record(record));
        }
    }

    /// The last few of them, the newest first: only these are made.
    fn generations(self) -> Vec<Generation> {
        let from = self.made.len().saturating_sub(GENERATIONS);
        let (mut vips, mut resources) = (BTreeMap::new(), Resources::default());
        let mut generations = Vec::new();
        for (place, made) in self.made.into_iter().enumerate() {
            let named = |vip: Vip| (vip.metadata.name.clone(), Arc::new(vip));
            let (revision, written) = match made {
                Made::Snapshot(snapshot, written) => {
                    vips = snapshot.vips.into_iter().map(named).collect();
                    resources = snapshot.resources;
                    (snapshot.revision, written)
                }
                Made::Record(record) => {
                    record.removed.iter().for_each(|name| drop(vips.remove(name)));
                    vips.extend(record.put.into_iter().map(named));
                    resources = record.resources.unwrap_or(resources);
                    (record.revision, record.written)
                }
            };
            // What is there before the first change is nothing to go back to.
            let is_nothing = revision == 0 && vips.is_empty();
            if place >= from && !is_nothing {
                let (vips, resources) = (vips.values().cloned().collect(), resources.clone());
                generations.push(Generation { revision, written, vips, resources });
            }
        }
        generations.reverse();
        generations
    }
}
