//! VIPs and other resources made over REST, kept in `vips.json` of the state folder: always one whole version, the old or the new.
//!
//! The files before it stay as `vips.json.previous-1` (the newest) and so on. A damaged file leads to the last good one
//! and a warning, never to an appliance without VIPs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use lb_api_types::vip::Vip;
use serde::Serialize;
use serde_json::{Value, json};

use crate::read::{Cursor, Object, document};
use crate::resources::{Kind, Resource, Resources};
use crate::vip;

const NAME: &str = "vips.json";
/// The form of the file; one that this daemon does not know is never touched.
const VERSION: u64 = 3;
/// Files that are kept, the current one included.
const GENERATIONS: usize = 5;
/// Damaged files that are kept aside at most.
const MAX_DAMAGED: usize = 100;

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file or its folder cannot be read or written.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// Another daemon has the folder.
    #[error("{path} is in use by another lbd: stop that one, or set another state_dir")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The file was written by a later version.
    #[error(
        "{path} has version {found}, and this lbd reads version {VERSION}: start the lbd that wrote it, or move the file away"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// Too many damaged files wait for somebody to look at them.
    #[error("{path} is damaged, and {MAX_DAMAGED} earlier ones are kept beside it: remove them")]
    TooManyDamaged {
        /// The file.
        path: PathBuf,
    },
}

/// What was found at the start.
#[derive(Debug, Default, PartialEq)]
pub struct Loaded {
    /// The last revision that was given to a VIP.
    pub revision: u64,
    /// The VIPs.
    pub vips: Vec<Vip>,
    /// The others.
    pub resources: Resources,
    /// What people should know: a damaged file was or still is kept aside.
    pub warnings: Vec<String>,
}

/// A whole state that is or was kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// The last revision that was given to a VIP then.
    pub revision: u64,
    /// When it was written.
    pub written: SystemTime,
    /// The VIPs.
    pub vips: Vec<Vip>,
    /// The others.
    pub resources: Resources,
}

/// The folder, while this daemon has it.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

/// A new file that waits to take the old one's place.
#[derive(Debug)]
#[must_use]
pub struct Prepared(());

#[derive(Serialize)]
struct Document {
    checksum: String,
    #[serde(flatten)]
    content: Value,
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
        let lock = File::create(&path).map_err(error("open", &path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { folder: folder.to_owned(), _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => Err(StoreError::InUse { path: folder.to_owned() }),
            Err(fs::TryLockError::Error(source)) => {
                Err(StoreError::Io { what: "lock", path, source })
            }
        }
    }

    /// Reads the file. One that is damaged is kept aside under another name, said, and replaced by the last good
    /// generation.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or was written by a later version.
    pub fn load(&self) -> Result<Loaded, StoreError> {
        let path = self.path();
        let mut loaded = match fs::read(&path) {
            Ok(bytes) => match self.parse(&bytes)? {
                Ok(loaded) => loaded,
                Err(why) => self.fall_back(&why)?,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Loaded::default(),
            Err(source) => return Err(StoreError::Io { what: "read", path, source }),
        };
        // A change that a crash left unfinished may have been seen: its revision is not given to another.
        if let Some(unfinished) = self.generation(&self.new_path()) {
            loaded.revision = loaded.revision.max(unfinished.revision);
        }
        for path in self.damaged().filter(|path| path.exists()) {
            loaded.warnings.push(format!(
                "{} is a damaged state file that was kept aside: apply again what is missing from `lbctl get vips`, and remove it",
                path.display()
            ));
        }
        Ok(loaded)
    }

    fn parse(&self, bytes: &[u8]) -> Result<Result<Loaded, String>, StoreError> {
        let value: Value = match serde_json::from_slice(bytes) {
            Ok(value) => value,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let found = value["version"].as_u64().unwrap_or_default();
        // Version 1 had none, and version 2's was of two of its fields.
        let is = match (value.get("checksum"), found) {
            (Some(_), 3..) => checksum(&without_checksum(&value)),
            (Some(_), _) => checksum(&format!("{}{}", value["revision"], value["vips"])),
            (None, _) => String::new(),
        };
        if value.get("checksum").is_some_and(|said| *said != is) {
            return Ok(Err("its checksum is not that of its content; who edits it by hand takes the field checksum out".into()));
        }
        // Only now: a flipped bit of the version is damage like any other.
        if found > VERSION {
            return Err(StoreError::Version { path: self.path(), found });
        }
        Ok(document(&value, read).map_err(|mistakes| {
            let first = mistakes.first().map(|m| format!("{} {}", m.path, m.message));
            first.unwrap_or_default()
        }))
    }

    /// Takes the last good generation in the damaged file's place. A crash leaves the one or the other there.
    fn fall_back(&self, why: &str) -> Result<Loaded, StoreError> {
        let path = self.path();
        let free = self.damaged().find(|path| !path.exists());
        let aside = free.ok_or(StoreError::TooManyDamaged { path: path.clone() })?;
        tracing::error!(file = %path.display(), kept_as = %aside.display(), why, "the state file is damaged");
        let good = self.previous().find_map(|previous| {
            let loaded = self.parse(&fs::read(&previous).ok()?).ok()?.ok()?;
            Some((previous, loaded))
        });
        let replace = || match &good {
            None => fs::rename(&path, &aside),
            Some((previous, _)) => {
                // Second names take no room, so that a full disk does not stand in the way.
                let new = self.new_path();
                link(previous, &new)?;
                File::open(&new)?.sync_all()?;
                link(&path, &aside)?;
                fs::rename(&new, &path)
            }
        };
        let error = |source| StoreError::Io { what: "replace", path: path.clone(), source };
        replace().and_then(|()| self.sync()).map_err(error)?;
        let Some((previous, mut loaded)) = good else { return Ok(Loaded::default()) };
        loaded.warnings.push(format!(
            "the state file was damaged ({why}), so the VIPs are those of {}, and the last change may be missing: compare them with what you applied",
            previous.display()
        ));
        Ok(loaded)
    }

    /// What is kept and what was kept before, the newest first; damaged files are left out.
    pub fn generations(&self) -> Vec<Generation> {
        let all = std::iter::once(self.path()).chain(self.previous());
        all.filter_map(|path| self.generation(&path)).collect()
    }

    fn generation(&self, path: &Path) -> Option<Generation> {
        let written = fs::metadata(path).and_then(|data| data.modified()).ok()?;
        let loaded = self.parse(&fs::read(path).ok()?).ok()?.ok()?;
        let Loaded { revision, vips, resources, .. } = loaded;
        Some(Generation { revision, written, vips, resources })
    }

    /// Replaces the file: when this returns, a crash leaves the new one.
    ///
    /// # Errors
    ///
    /// It cannot be written; the old one is still there.
    pub fn save(
        &self,
        revision: u64,
        vips: &[&Vip],
        resources: &Resources,
    ) -> Result<(), StoreError> {
        self.prepare(revision, vips, resources).and_then(|prepared| self.commit(prepared))
    }

    /// Writes the new file beside the old one, so that a full disk is known before anything changes.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn prepare(
        &self,
        revision: u64,
        vips: &[&Vip],
        resources: &Resources,
    ) -> Result<Prepared, StoreError> {
        let write = || {
            let mut content = json!({"version": VERSION, "revision": revision, "vips": vips});
            if let (Value::Object(all), Value::Object(lists)) =
                (&mut content, resources.to_value()?)
            {
                all.extend(lists);
            }
            let document = Document { checksum: checksum(&content.to_string()), content };
            let mut bytes = serde_json::to_vec_pretty(&document)?;
            bytes.push(b'\n');
            write_whole(&self.new_path(), &bytes)
        };
        write().map_err(|source| StoreError::Io { what: "write", path: self.path(), source })?;
        Ok(Prepared(()))
    }

    /// Has what was prepared last take the old file's place, which becomes the generation before. Whatever moment a
    /// crash comes at, there is a whole file; generations may have a gap then.
    ///
    /// # Errors
    ///
    /// It cannot be renamed; the old one is still there.
    pub fn commit(&self, prepared: Prepared) -> Result<(), StoreError> {
        let Prepared(()) = prepared;
        let all: Vec<_> = self.previous().collect();
        let shift = || {
            for pair in all.windows(2).rev() {
                if let [newer, older] = pair {
                    may_lack(fs::rename(newer, older))?;
                }
            }
            all.first().map_or(Ok(()), |newest| may_lack(link(&self.path(), newest)))?;
            fs::rename(self.new_path(), self.path())?;
            self.sync()
        };
        shift().map_err(|source| StoreError::Io { what: "replace", path: self.path(), source })
    }

    /// Forgets what was prepared last.
    pub fn discard(&self, prepared: Prepared) {
        let Prepared(()) = prepared;
        // What stays there is overwritten by the next one.
        let _gone_already = fs::remove_file(self.new_path());
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    fn path(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    fn new_path(&self) -> PathBuf {
        self.folder.join(format!("{NAME}.new"))
    }

    /// Generations before the file, newest first.
    fn previous(&self) -> impl Iterator<Item = PathBuf> {
        (1..GENERATIONS).map(|n| self.folder.join(format!("{NAME}.previous-{n}")))
    }

    fn damaged(&self) -> impl Iterator<Item = PathBuf> {
        (1..=MAX_DAMAGED).map(|n| self.folder.join(format!("{NAME}.damaged-{n}")))
    }
}

/// What the file says, but for its checksum.
fn without_checksum(value: &Value) -> String {
    let mut content = value.clone();
    if let Value::Object(fields) = &mut content {
        fields.remove("checksum");
    }
    content.to_string()
}

fn read(cursor: &Cursor<'_>) -> Option<Loaded> {
    let fields = ["version", "checksum", "revision", "vips"].into_iter();
    let fields: Vec<_> = fields.chain(Kind::ALL.iter().map(|kind| kind.many())).collect();
    let file = cursor.object(&fields)?;
    file.required("version")?.number(1..=VERSION)?;
    let revision =
        file.field("revision").map_or(Some(0), |revision| revision.number(0..=u64::MAX))?;
    let vips = file.required("vips")?.list(vip::read)?;
    let resources = lists(&file)?.into_iter().collect();
    Some(Loaded { revision, vips, resources, warnings: Vec::new() })
}

/// What a document says of every kind beside VIPs.
pub(crate) fn lists(document: &Object<'_>) -> Option<Vec<Resource>> {
    let lists = Kind::ALL.iter().map(|&kind| match document.field(kind.many()) {
        None => Some(Vec::new()),
        Some(list) => list.list(|cursor| kind.read(cursor)),
    });
    lists.collect::<Option<Vec<_>>>().map(|lists| lists.concat())
}

/// Writes a new file that only its owner reads, and has it on the disk. One that a crash left there may be a second name of
/// a good one: it is not written into.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    may_lack(fs::remove_file(path))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A second name for a file, or a copy where the file system knows no second names.
pub(crate) fn link(from: &Path, to: &Path) -> io::Result<()> {
    may_lack(fs::remove_file(to))?;
    match fs::hard_link(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => fs::copy(from, to).map(drop),
        other => other,
    }
}

pub(crate) fn may_lack(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// CRC-32 (ISO 3309) of what is kept, in its shortest form: finds every flipped bit, also one that leaves the file
/// well-formed.
fn checksum(content: &str) -> String {
    let crc = content.bytes().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    });
    format!("crc32:{:08x}", !crc)
}

#[cfg(test)]
mod tests;
