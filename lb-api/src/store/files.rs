//! Files that take the places of others.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// What tells one version of a file from another: its inode, its size, and when it was written.
pub(crate) type Version = (u64, u64, i64, i64);

/// The version of a file; none where there is none to be seen.
pub(crate) fn version(path: &Path) -> Option<Version> {
    let data = fs::metadata(path).ok()?;
    Some((data.ino(), data.len(), data.mtime(), data.mtime_nsec()))
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
