//! VIPs made over REST, kept in `vips.json` of the state folder: always one whole version, the old or the new.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use lb_api_types::vip::Vip;
use serde::Serialize;
use serde_json::Value;

use crate::read::{Cursor, document};
use crate::vip;

const NAME: &str = "vips.json";
/// The form of the file; one that this daemon does not know is never touched.
const VERSION: u64 = 1;
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
    /// The VIPs.
    pub vips: Vec<Vip>,
    /// What people should know: a damaged file was or still is kept aside.
    pub warnings: Vec<String>,
}

/// The folder, while this daemon has it.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

#[derive(Serialize)]
struct Document<'a> {
    version: u64,
    vips: &'a [&'a Vip],
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

    /// Reads the file. One that is damaged is kept aside under another name, and said.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or was written by a later version.
    pub fn load(&self) -> Result<Loaded, StoreError> {
        let path = self.path();
        let mut loaded = Loaded::default();
        match fs::read(&path) {
            Ok(bytes) => match self.parse(&bytes)? {
                Ok(vips) => loaded.vips = vips,
                Err(why) => self.keep_aside(&why)?,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(StoreError::Io { what: "read", path, source }),
        }
        for path in self.damaged().filter(|path| path.exists()) {
            loaded.warnings.push(format!(
                "{} is a damaged state file that was kept aside, its VIPs are not served: repair it, or apply them again, and remove it",
                path.display()
            ));
        }
        Ok(loaded)
    }

    fn parse(&self, bytes: &[u8]) -> Result<Result<Vec<Vip>, String>, StoreError> {
        let value: Value = match serde_json::from_slice(bytes) {
            Ok(value) => value,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if let Some(found) = value["version"].as_u64().filter(|&found| found > VERSION) {
            return Err(StoreError::Version { path: self.path(), found });
        }
        Ok(document(&value, read).map_err(|mistakes| {
            let first = mistakes.first().map(|m| format!("{} {}", m.path, m.message));
            first.unwrap_or_default()
        }))
    }

    fn keep_aside(&self, why: &str) -> Result<(), StoreError> {
        let path = self.path();
        let free = self.damaged().find(|path| !path.exists());
        let aside = free.ok_or(StoreError::TooManyDamaged { path: path.clone() })?;
        fs::rename(&path, &aside).map_err(|source| StoreError::Io {
            what: "rename",
            path: path.clone(),
            source,
        })?;
        tracing::error!(file = %path.display(), kept_as = %aside.display(), why, "the state file is damaged");
        Ok(())
    }

    /// Replaces the file: when this returns, a crash leaves the new one.
    ///
    /// # Errors
    ///
    /// It cannot be written; the old one is still there.
    pub fn save(&self, vips: &[&Vip]) -> Result<(), StoreError> {
        let new = self.folder.join(format!("{NAME}.new"));
        let write = || {
            let mut bytes = serde_json::to_vec_pretty(&Document { version: VERSION, vips })?;
            bytes.push(b'\n');
            let mut file = File::create(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&new, self.path())?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|source| StoreError::Io { what: "write", path: self.path(), source })
    }

    fn path(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    fn damaged(&self) -> impl Iterator<Item = PathBuf> {
        (1..=MAX_DAMAGED).map(|n| self.folder.join(format!("{NAME}.damaged-{n}")))
    }
}

fn read(cursor: &Cursor<'_>) -> Option<Vec<Vip>> {
    let file = cursor.object(&["version", "vips"])?;
    file.required("version")?.number(VERSION..=VERSION)?;
    file.required("vips")?.list(vip::read)
}

#[cfg(test)]
mod tests;
