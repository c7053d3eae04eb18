//! Who changed what, and who was not let in: one JSON document a line, only ever appended to.
//!
//! The two have a file each, so that whoever is refused, however often, pushes no change out of the log. Bodies, queries of
//! refused requests and tokens are not written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde::Serialize;

use crate::clock::rfc3339;
use crate::store::may_lack;

/// The log of changes.
pub(super) const CHANGES: &str = "audit.log";
/// The log of who was refused.
pub(super) const REFUSALS: &str = "refused.log";
/// Bytes of what a line says was asked; a longer one is cut.
const MAX_WHAT: usize = 1024;
/// Bytes of a file; a full one is kept as `audit.log.1`, and the one before as `audit.log.2`.
const MAX_BYTES: u64 = 16 << 20;
/// Files that are kept, the current one included.
const FILES: usize = 5;

/// A line.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Entry<'a> {
    /// Who, such as `token ci`; empty where nobody was let in.
    pub(super) who: &'a str,
    /// From where.
    pub(super) from: &'a str,
    /// The request's id, which its answer has, too.
    pub(super) request: &'a str,
    /// What: `PUT /api/v1/vips/web`.
    pub(super) what: &'a str,
    /// The answer's status.
    pub(super) status: u16,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    entry: &'a Entry<'a>,
}

/// The log.
#[derive(Debug)]
pub(super) struct Audit {
    path: PathBuf,
    most: u64,
    open: Mutex<Option<File>>,
}

impl Audit {
    /// With a sentence where it cannot be written: then every line goes to the log of the daemon, and is tried here first.
    pub(super) fn open(folder: &Path, name: &str) -> (Self, Option<String>) {
        Self::with_room(folder, name, MAX_BYTES)
    }

    fn with_room(folder: &Path, name: &str, most: u64) -> (Self, Option<String>) {
        let path = folder.join(name);
        let opened = append(&path);
        let warning = opened.as_ref().err().map(|error| {
            format!(
                "cannot write {}: {error}; what it would say goes to the log of the daemon, until the folder can be written",
                path.display()
            )
        });
        (Self { path, most, open: Mutex::new(opened.ok()) }, warning)
    }

    /// Appends a line; one that cannot be written goes to the log of the daemon.
    pub(super) fn write(&self, entry: &Entry<'_>) {
        let cut = entry.what.floor_char_boundary(MAX_WHAT);
        let entry = &Entry { what: &entry.what[..cut], ..*entry };
        let line = Line { time: rfc3339(SystemTime::now()), entry };
        // Text and numbers only: it has JSON.
        let mut text = serde_json::to_vec(&line).unwrap_or_default();
        text.push(b'\n');
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.append(&mut open, &text) {
            *open = None;
            let Entry { who, from, request, what, status } = entry;
            let file = self.path.display();
            tracing::error!(who, from, request, what, status, "cannot write {file}: {error}");
        }
    }

    fn append(&self, open: &mut Option<File>, text: &[u8]) -> io::Result<()> {
        let mut file = match open.take() {
            Some(file) => file,
            None => append(&self.path)?,
        };
        if file.metadata()?.len() + text.len() as u64 > self.most {
            let older = |n: usize| PathBuf::from(format!("{}.{n}", self.path.display()));
            for n in (1..FILES - 1).rev() {
                may_lack(fs::rename(older(n), older(n + 1)))?;
            }
            fs::rename(&self.path, older(1))?;
            file = append(&self.path)?;
        }
        file.write_all(text)?;
        *open = Some(file);
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(what: &str) -> Entry<'_> {
        Entry { who: "token ci", from: "192.0.2.1:4000", request: "7", what, status: 200 }
    }

    fn lines(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        let what = |line: &str| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(value["time"].as_str().unwrap().ends_with('Z') && value["status"] == 200);
            value["what"].as_str().unwrap().to_owned()
        };
        text.lines().map(what).collect()
    }

    #[test]
    fn lines_are_appended_also_by_the_next_daemon_and_only_the_owner_reads_them() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        Audit::open(folder.path(), CHANGES).0.write(&entry("PUT \"a\"\n"));
        Audit::open(folder.path(), CHANGES).0.write(&entry("DELETE b"));
        let path = folder.path().join(CHANGES);
        assert_eq!(lines(&path), ["PUT \"a\"\n", "DELETE b"]);
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_log_is_bounded_and_keeps_the_newest_files() {
        let folder = tempfile::tempdir().unwrap();
        let (audit, _) = Audit::with_room(folder.path(), CHANGES, 300);
        let all: Vec<_> = (0..30).map(|n| format!("PUT {n:02}")).collect();
        all.iter().for_each(|what| audit.write(&entry(what)));
        let names = ["audit.log.4", "audit.log.3", "audit.log.2", "audit.log.1", "audit.log"];
        let kept: Vec<_> = names.iter().flat_map(|name| lines(&folder.path().join(name))).collect();
        assert_eq!(kept[..], all[all.len() - kept.len()..], "none between is missing");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), FILES);
    }

    #[test]
    fn what_is_long_is_cut_between_characters() {
        let folder = tempfile::tempdir().unwrap();
        let (audit, _) = Audit::open(folder.path(), REFUSALS);
        audit.write(&entry(&format!("x{}", "ä".repeat(MAX_WHAT))));
        let [said] = &lines(&folder.path().join(REFUSALS))[..] else { panic!("one line") };
        assert_eq!(said.len(), MAX_WHAT - 1);
    }
}
