//! Why the state cannot be used.

use std::io;
use std::path::PathBuf;

use super::{MAX_DAMAGED, snapshot};

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
        "{path} has version {found}, and this lbd reads version {known}: start the lbd that wrote it, or move the file away",
        known = snapshot::VERSION
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// It says what this version does not know.
    #[error(
        "{path} is whole and says what this lbd does not know ({why}): start the lbd that wrote it, or move the file away"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it says, in words.
        why: String,
    },
    /// Too many damaged files wait for somebody to look at them.
    #[error("{path} is damaged, and {MAX_DAMAGED} earlier ones are kept beside it: remove them")]
    TooManyDamaged {
        /// The file.
        path: PathBuf,
    },
}
