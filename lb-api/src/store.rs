//! VIPs and other resources made over REST, kept in the state folder: a snapshot of all of them, `vips.json`, and a journal of the changes since,
//! `vips.journal`.
//!
//! A change costs a line of the journal. A journal that has grown long is folded: a new snapshot is written beside the old
//! one, both old files become `….previous-1`, and a new journal begins. Every change names the revision that it comes
//! after, so that journals say what they say whatever snapshot they stand beside: one that is damaged is made up for by the
//! one before it and both journals, and a crash between two renames means nothing.
//!
//! Whatever is damaged leads to the last good state and a warning, never to an appliance without VIPs.

mod error;
mod files;
mod journal;
mod notice;
mod recover;
mod snapshot;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use lb_api_types::vip::Vip;

pub use self::error::StoreError;
pub(crate) use self::files::{Version, link, may_lack, version, write_whole};
use self::journal::Journal;
pub use self::notice::Notice;
use self::recover::Recovered;
use crate::read::{Cursor, Object};
use crate::resources::{Kind, Resource, Resources};

const SNAPSHOT: &str = "vips.json";
const JOURNAL: &str = "vips.journal";
/// Snapshots that are kept beside the current one, with their journals.
const PREVIOUS: usize = 2;
/// States that are kept to go back to, the current one included; each change makes one.
const GENERATIONS: usize = 5;
/// Damaged files that are kept aside at most.
const MAX_DAMAGED: usize = 100;
/// Bytes from which on a journal is folded, or as many as its snapshot has.
const FOLD_AT: usize = 4 << 20;

/// A file that stands for a disk that takes nothing any more.
#[cfg(test)]
pub(crate) const BROKEN: &str = "broken";

/// What was found at the start.
#[derive(Debug, Default, PartialEq)]
pub struct Loaded {
    /// The last revision that was given to a VIP.
    pub revision: u64,
    /// The VIPs.
    pub vips: Vec<Vip>,
    /// The others.
    pub resources: Resources,
    /// The revision of the last change that is kept; a later one was not confirmed, or is lost.
    pub kept_revision: u64,
    /// What people should know: what is damaged, or cannot be written.
    pub notices: Vec<Notice>,
}

impl Loaded {
    /// What people should know, as it is said.
    #[must_use]
    pub fn said(&self) -> Vec<&str> {
        self.notices.iter().map(Notice::said).collect()
    }
}

/// A whole state that is or was kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// The last revision that was given to a VIP then.
    pub revision: u64,
    /// When it was written.
    pub written: SystemTime,
    /// The VIPs.
    pub vips: Vec<Arc<Vip>>,
    /// The others.
    pub resources: Resources,
}

/// The folder, while this daemon has it.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
    state: Mutex<State>,
    /// Held while files take the places of others, and while several are read together.
    folding: Mutex<()>,
}

/// Where changes go, and what they made: what is kept does not have to be read again while it is known.
#[derive(Debug, Default)]
struct State {
    is_loaded: bool,
    vips: BTreeMap<String, Arc<Vip>>,
    resources: Resources,
    /// A revision that was given to something that is not kept.
    reserved: u64,
    /// `None` where what is there is not to be gone on with: the next change is behind a new snapshot.
    journal: Option<Journal>,
    /// Of the last change that is kept.
    revision: u64,
    /// Changes since the snapshot.
    changes: usize,
    /// Bytes of the snapshot.
    snapshot: usize,
}

/// A change: what is put and what goes.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// The revision that it leads to.
    pub revision: u64,
    /// VIPs that are new or other than before.
    pub put: Vec<Vip>,
    /// Names of those that are gone.
    pub removed: Vec<String>,
    /// All other resources, where any of them is other than before.
    pub resources: Option<Resources>,
}

/// A change that has its room on the disk and waits to be kept.
#[derive(Debug)]
#[must_use]
pub struct Prepared {
    change: Change,
    line: Vec<u8>,
}

impl Store {
    /// Makes the folder if it is not there, and takes it.
    ///
    /// # Errors
    ///
    /// The folder cannot be made, or another daemon has it.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let error = |what, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { what, path, source }
        };
        fs::create_dir_all(folder).map_err(error("make", folder))?;
        let path = folder.join("lock");
        let lock = File::create(&path).or_else(|refused| {
            use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
            // What is kept is served from there all the same, so whoever only reads takes the folder itself.
            let may_read = [ReadOnlyFilesystem, PermissionDenied].contains(&refused.kind());
            may_read.then(|| File::open(folder).ok()).flatten().ok_or(refused)
        });
        let lock = lock.map_err(error("open", &path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                folder: folder.to_owned(),
                _lock: lock,
                state: Mutex::default(),
                folding: Mutex::default(),
            }),
            Err(fs::TryLockError::WouldBlock) => Err(StoreError::InUse { path: folder.to_owned() }),
            Err(fs::TryLockError::Error(source)) => {
                Err(StoreError::Io { what: "lock", path, source })
            }
        }
    }

    /// Reads what is kept. A damaged snapshot is kept aside under another name; it and a damaged journal are said, and so is
    /// a folder that takes no changes.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or was written by a later version.
    pub fn load(&self) -> Result<Loaded, StoreError> {
        let mut found = self.recover()?;
        if found.is_damaged {
            let path = self.path(SNAPSHOT, 0);
            match self.keep_aside(&path) {
                Ok(aside) => found.notices.iter_mut().for_each(|known| known.moved(&path, &aside)),
                Err(error) => found.notices.push(Notice::of(&path, error.to_string())),
            }
        }
        let path = self.path(JOURNAL, 0);
        let resumed = found.goes_on_at.map(|end| Journal::resume(&path, end)).transpose();
        // Names, too, may not be on the disk yet.
        let resumed = resumed.and_then(|journal| self.sync().map(|()| journal));
        let journal = resumed.map_err(self.failed("open", JOURNAL)).unwrap_or_else(|error| {
            let said = format!(
                "{error}: what is kept is served, and changes are refused until the folder can be written"
            );
            found.notices.push(Notice::until_written(&self.folder, said));
            None
        });
        let shared = |(name, vip): (&String, &Vip)| (name.clone(), Arc::new(vip.clone()));
        *self.state() = State {
            is_loaded: true,
            vips: found.vips.iter().map(shared).collect(),
            resources: found.resources.clone(),
            reserved: found.reserved,
            journal,
            revision: found.revision,
            changes: found.changes,
            snapshot: found.snapshot_len,
        };
        for path in self.damaged().filter(|path| path.exists()) {
            let said = format!(
                "{} is a damaged state file that was kept aside: apply again what is missing from `lbctl get vips`, and remove it",
                path.display()
            );
            found.notices.push(Notice::until_gone(path, said));
        }
        let Recovered { vips, resources, notices, revision, reserved, .. } = found;
        Ok(Loaded {
            revision: revision.max(reserved),
            vips: vips.into_values().collect(),
            resources,
            kept_revision: revision,
            notices,
        })
    }

    /// Under which name.
    fn keep_aside(&self, path: &Path) -> Result<PathBuf, StoreError> {
        let free = self.damaged().find(|path| !path.exists());
        let aside = free.ok_or_else(|| StoreError::TooManyDamaged { path: path.to_owned() })?;
        tracing::error!(file = %path.display(), kept_as = %aside.display(), "the state file is damaged");
        // Only a name changes, so that a full disk does not stand in the way.
        let renamed = fs::rename(path, &aside).and_then(|()| self.sync());
        renamed.map_err(self.failed("replace", SNAPSHOT)).map(|()| aside)
    }

    /// Keeps a change: when this returns, a crash leaves it.
    ///
    /// # Errors
    ///
    /// It cannot be written; what was there before is still there.
    pub fn save(&self, change: &Change) -> Result<(), StoreError> {
        self.prepare(change).and_then(|prepared| self.commit(prepared))
    }

    /// Makes room for a change, so that a full disk is known before anything changes.
    ///
    /// # Errors
    ///
    /// There is no room.
    pub fn prepare(&self, change: &Change) -> Result<Prepared, StoreError> {
        let after = self.state().revision;
        let line = journal::line(change, after).map_err(self.failed("write", JOURNAL))?;
        drop(self.with_journal(|journal| journal.make_room(line.len()))?);
        Ok(Prepared { change: change.clone(), line })
    }

    /// Keeps what was prepared: when this returns, a crash leaves it.
    ///
    /// # Errors
    ///
    /// It cannot be written; what was there before is still there.
    pub fn commit(&self, prepared: Prepared) -> Result<(), StoreError> {
        let Prepared { change, line } = prepared;
        let mut state = self.with_journal(|journal| journal.add(&line))?;
        state.take(change);
        Ok(())
    }

    /// Has a revision never be given again: people have seen it, though it is not kept yet.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn reserve(&self, revision: u64) -> Result<(), StoreError> {
        let line = journal::reservation(revision).map_err(self.failed("write", JOURNAL))?;
        let mut state = self.with_journal(|journal| journal.add(&line))?;
        state.reserved = state.reserved.max(revision);
        Ok(())
    }

    /// Writes into the journal, behind a new snapshot where it is not to be gone on with.
    fn with_journal(
        &self,
        write: impl FnOnce(&mut Journal) -> io::Result<()>,
    ) -> Result<MutexGuard<'_, State>, StoreError> {
        if self.state().journal.is_none() {
            self.fold()?;
        }
        let mut state = self.state();
        self.heal(&mut state)?;
        let outcome = match &mut state.journal {
            #[cfg(test)]
            Some(_) if self.folder.join(BROKEN).exists() => Err(io::ErrorKind::Other.into()),
            Some(journal) => write(journal),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        if outcome.is_err() {
            // At once, for the daemon may end before the next change; who asks for that tries again.
            let _as_well_as_it_goes = self.heal(&mut state);
        }
        outcome.map_err(self.failed("write", JOURNAL))?;
        Ok(state)
    }

    /// Whether a change that was refused may be found by the next start, since it could not be taken back.
    pub fn is_spoilt(&self) -> bool {
        self.state().journal.as_ref().is_some_and(Journal::is_spoilt)
    }

    /// Tries again to take it back.
    ///
    /// # Errors
    ///
    /// It cannot be.
    pub fn mend(&self) -> Result<(), StoreError> {
        self.heal(&mut self.state())
    }

    /// What was refused and could not be taken back is in no file from here on.
    fn heal(&self, state: &mut State) -> Result<(), StoreError> {
        let Some(journal) = &mut state.journal else { return Ok(()) };
        let (path, new) = (self.path(JOURNAL, 0), self.folder.join(format!("{JOURNAL}.copy")));
        journal.heal(&path, &new, &self.folder).map_err(self.failed("repair", JOURNAL))
    }

    /// Whether the journal has grown so long that it is to be folded.
    pub fn is_long(&self) -> bool {
        let state = self.state();
        let bytes = state.journal.as_ref().map_or(0, Journal::end);
        state.changes >= GENERATIONS && bytes > FOLD_AT.max(state.snapshot)
    }

    /// Folds the journal unless somebody does or has.
    ///
    /// # Errors
    ///
    /// As for [`Store::fold`].
    pub fn fold_if_long(&self) -> Result<(), StoreError> {
        match self.folding.try_lock() {
            Ok(_one_at_a_time) if self.is_long() => self.fold_now(),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Writes a new snapshot, while changes go on, and begins a new journal.
    ///
    /// # Errors
    ///
    /// It cannot be written; what is kept is what it was.
    pub fn fold(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.folding.lock().unwrap_or_else(PoisonError::into_inner);
        self.fold_now()
    }

    fn fold_now(&self) -> Result<(), StoreError> {
        if !self.state().is_loaded {
            self.load()?;
        }
        let (revision, before, bytes) = {
            let state = self.state();
            let (vips, resources) = (state.vips.clone(), state.resources.clone());
            let (revision, before) = (state.revision, state.changes);
            drop(state);
            (
                revision,
                before,
                snapshot::bytes(revision, vips.values().map(Arc::as_ref), &resources),
            )
        };
        let new = self.folder.join(format!("{SNAPSHOT}.new"));
        let bytes = bytes.map_err(io::Error::other).map_err(self.failed("write", SNAPSHOT))?;
        let fresh = self.folder.join(format!("{JOURNAL}.new"));
        let written = write_whole(&new, &bytes).map_err(self.failed("write", SNAPSHOT));
        let begun =
            written.and_then(|()| Journal::begin(&fresh).map_err(self.failed("write", JOURNAL)));
        let begun = begun.inspect_err(|_| {
            // What a full disk left of them would keep the journal from growing.
            let _both = [fs::remove_file(&new), fs::remove_file(&fresh)];
        })?;
        // From here on no change comes between, and the next one waits.
        let mut state = self.state();
        self.heal(&mut state)?;
        let changes = state.changes.saturating_sub(before);
        // Where this ends half-way, the next change begins with what is found then.
        state.journal = None;
        self.shift().map_err(self.failed("replace", SNAPSHOT))?;
        let replaced = fs::rename(&new, self.path(SNAPSHOT, 0)).and_then(|()| self.sync());
        replaced.map_err(self.failed("replace", SNAPSHOT))?;
        let renamed = fs::rename(&fresh, self.path(JOURNAL, 0));
        renamed.map_err(self.failed("replace", JOURNAL))?;
        state.journal = Some(begun);
        if state.reserved > revision {
            let line = journal::reservation(state.reserved);
            let added = line.and_then(|line| match &mut state.journal {
                Some(journal) => journal.add(&line),
                None => Ok(()),
            });
            added.map_err(self.failed("write", JOURNAL))?;
        }
        self.sync().map_err(self.failed("replace", SNAPSHOT))?;
        (state.changes, state.snapshot) = (changes, bytes.len());
        Ok(())
    }

    /// Old files take the places of older ones.
    fn shift(&self) -> io::Result<()> {
        for n in (1..PREVIOUS).rev() {
            for name in [SNAPSHOT, JOURNAL] {
                may_lack(fs::rename(self.path(name, n), self.path(name, n + 1)))?;
            }
        }
        // The snapshot keeps its name until the new one takes it.
        may_lack(link(&self.path(SNAPSHOT, 0), &self.path(SNAPSHOT, 1)))?;
        may_lack(fs::rename(self.path(JOURNAL, 0), self.path(JOURNAL, 1)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, what: &'static str, name: &str) -> impl FnOnce(io::Error) -> StoreError {
        let path = self.path(name, 0);
        move |source| StoreError::Io { what, path, source }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    /// A file, or the one of this name that was there so many times before.
    fn path(&self, name: &str, before: usize) -> PathBuf {
        match before {
            0 => self.folder.join(name),
            n => self.folder.join(format!("{name}.previous-{n}")),
        }
    }

    fn damaged(&self) -> impl Iterator<Item = PathBuf> {
        (1..=MAX_DAMAGED).map(|n| self.folder.join(format!("{SNAPSHOT}.damaged-{n}")))
    }
}

impl State {
    /// Takes in a change that is kept.
    fn take(&mut self, change: Change) {
        for name in &change.removed {
            self.vips.remove(name);
        }
        let named = |vip: Vip| (vip.metadata.name.clone(), Arc::new(vip));
        self.vips.extend(change.put.into_iter().map(named));
        if let Some(resources) = change.resources {
            self.resources = resources;
        }
        self.revision = change.revision;
        self.changes += 1;
    }
}

/// What a document says of every kind beside VIPs.
pub(crate) fn lists(document: &Object<'_>) -> Option<Vec<Resource>> {
    let lists = Kind::ALL.iter().map(|&kind| match document.field(kind.many()) {
        None => Some(Vec::new()),
        Some(list) => list.list(|cursor| kind.read(cursor)),
    });
    lists.collect::<Option<Vec<_>>>().map(|lists| lists.concat())
}

/// A document of these fields and of lists of resources.
fn object_with_lists<'a>(cursor: &Cursor<'a>, fields: &[&'static str]) -> Option<Object<'a>> {
    let kinds = Kind::ALL.iter().map(|kind| kind.many());
    cursor.object(&fields.iter().copied().chain(kinds).collect::<Vec<_>>())
}

/// CRC-32 (ISO 3309): finds every flipped bit, also one that leaves a file well-formed.
fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

#[cfg(test)]
pub(crate) mod tests;
