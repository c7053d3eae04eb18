//! Who changed what, and who was not let in: one JSON document a line, only ever appended to.
//!
//! The two have a file each, so that whoever is refused, however often, pushes no change out of the log. Bodies, queries of
//! refused requests and tokens are not written.
//!
//! A log that cannot be written keeps nobody from anything: what has the same disk refuses changes of the configuration by
//! itself, and what is left (a session that is cleared, tables that are repaired) is what a host in trouble needs. Its lines go
//! to the log of the daemon, wait here until the file takes them, and an alarm says so.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::Serialize;

use super::tokens::PREFIX;
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

/// Lines that wait at most; of more, only their number does.
const MAX_WAITING: usize = 1024;

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
    /// The answer's status; what lbd does by itself has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    entry: &'a Entry<'a>,
}

/// The log.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    most: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: Option<File>,
    /// Lines that the file did not take yet.
    waiting: VecDeque<Vec<u8>>,
    /// Lines beyond them.
    lost: u64,
    /// Why the file took nothing when it was tried last.
    why: Option<String>,
}

impl Audit {
    /// One that cannot be written is tried again with every line, and whenever it is asked whether it is well.
    pub(crate) fn open(folder: &Path, name: &str) -> Self {
        Self::with_room(folder, name, MAX_BYTES)
    }

    fn with_room(folder: &Path, name: &str, most: u64) -> Self {
        let audit = Self { path: folder.join(name), most, state: Mutex::default() };
        audit.catch_up(&mut audit.lock());
        audit
    }

    /// Writes down what lbd does that nobody has asked for.
    pub fn record_own(&self, what: &str) {
        self.write(&Entry { who: "lbd", from: "", request: "", what, status: None });
    }

    /// Appends a line; one that cannot be written waits, and goes to the log of the daemon.
    pub(super) fn write(&self, entry: &Entry<'_>) {
        let entry = &Entry { what: &without_tokens(entry.what), ..*entry };
        let text = line(entry);
        let mut state = self.lock();
        self.catch_up(&mut state);
        if state.why.is_none() {
            state.why = self.append(&mut state.open, &text).err().map(|why| why.to_string());
        }
        let Some(why) = &state.why else { return };
        let Entry { who, from, request, what, status } = entry;
        let file = self.path.display();
        tracing::error!(who, from, request, what, status, "cannot write {file}: {why}");
        match state.waiting.len() < MAX_WAITING {
            true => state.waiting.push_back(text),
            false => state.lost += 1,
        }
    }

    /// What is to be said while it cannot be written, which is tried.
    pub(super) fn unwell(&self) -> Option<String> {
        let mut state = self.lock();
        if state.why.is_some() {
            self.catch_up(&mut state);
        }
        let why = state.why.as_ref()?;
        Some(format!(
            "cannot write {}: {why}; what it would say is in the log of the daemon, and comes here when it can be written: free or repair the disk",
            self.path.display()
        ))
    }

    /// Writes what waits.
    fn catch_up(&self, state: &mut State) {
        state.why = self.write_waiting(state).err().map(|error| error.to_string());
    }

    fn write_waiting(&self, state: &mut State) -> io::Result<()> {
        if state.open.is_none() {
            state.open = Some(append(&self.path)?);
        }
        while let Some(text) = state.waiting.front() {
            self.append(&mut state.open, text)?;
            state.waiting.pop_front();
        }
        if state.lost > 0 {
            let what = &format!("{} more lines are in the log of the daemon only", state.lost);
            let lost = Entry { who: "lbd", from: "", request: "", what, status: None };
            self.append(&mut state.open, &line(&lost))?;
            state.lost = 0;
        }
        Ok(())
    }

    /// Appends to the file that is open, which stays so only where that goes well.
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever takes a token for its name writes it into a path: it goes no further than to here.
fn without_tokens(what: &str) -> Cow<'_, str> {
    match what.split_once(PREFIX) {
        Some((before, _)) => Cow::Owned(format!("{before}{PREFIX}…")),
        None => Cow::Borrowed(what),
    }
}

fn line(entry: &Entry<'_>) -> Vec<u8> {
    let cut = entry.what.floor_char_boundary(MAX_WHAT);
    let entry = &Entry { what: &entry.what[..cut], ..*entry };
    let line = Line { time: rfc3339(SystemTime::now()), entry };
    // Text and numbers only: it has JSON.
    let mut text = serde_json::to_vec(&line).unwrap_or_default();
    text.push(b'\n');
    text
}

/// Opens a file to append to. What a full disk or a crash left of a line ends there.
fn append(path: &Path) -> io::Result<File> {
    let options = OpenOptions::new().read(true).append(true).create(true).mode(0o600).clone();
    let mut file = options.open(path)?;
    let len = file.metadata()?.len();
    let mut last = [b'\n'];
    if len > 0 {
        file.read_exact_at(&mut last, len - 1)?;
    }
    if last != [b'\n'] {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use nix::mount::MsFlags;
    use serde_json::Value;

    use super::*;
    use crate::small_disk::{on_a_small_disk, remount};
    use crate::store::tests::crash::{MOST_CALLS, WRITER, Writer, wait_until_told};

    fn entry(what: &str) -> Entry<'_> {
        Entry { who: "token ci", from: "192.0.2.1:4000", request: "7", what, status: Some(200) }
    }

    fn lines(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        let what = |line: &str| {
            let value: Value = serde_json::from_str(line).unwrap();
            assert!(value["time"].as_str().unwrap().ends_with('Z') && value["status"] == 200);
            value["what"].as_str().unwrap().to_owned()
        };
        text.lines().map(what).collect()
    }

    #[test]
    fn lines_are_appended_also_by_the_next_daemon_and_only_the_owner_reads_them() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        Audit::open(folder.path(), CHANGES).write(&entry("PUT \"a\"\n"));
        Audit::open(folder.path(), CHANGES).write(&entry("DELETE b"));
        let path = folder.path().join(CHANGES);
        assert_eq!(lines(&path), ["PUT \"a\"\n", "DELETE b"]);
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_log_is_bounded_and_keeps_the_newest_files() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::with_room(folder.path(), CHANGES, 300);
        let all: Vec<_> = (0..30).map(|n| format!("PUT {n:02}")).collect();
        all.iter().for_each(|what| audit.write(&entry(what)));
        let names = ["audit.log.4", "audit.log.3", "audit.log.2", "audit.log.1", "audit.log"];
        let kept: Vec<_> = names.iter().flat_map(|name| lines(&folder.path().join(name))).collect();
        assert_eq!(kept[..], all[all.len() - kept.len()..], "none between is missing");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), FILES);
    }

    #[test]
    fn a_full_disk_is_said_and_when_there_is_room_again_no_line_is_missing_or_torn() {
        on_a_small_disk("16k", |folder| {
            let audit = Audit::open(folder, CHANGES);
            audit.write(&entry("PUT first"));
            assert_eq!(audit.unwell(), None);
            let rest = folder.join("rest");
            let _full = fs::write(&rest, vec![0; 64 << 10]);
            let all: Vec<_> = (0..60).map(|n| format!("PUT {n:0100}")).collect();
            all.iter().for_each(|what| audit.write(&entry(what)));
            let said = audit.unwell().unwrap();
            assert!(said.contains("audit.log: No space left on device"), "{said}");
            fs::remove_file(rest).unwrap();
            assert_eq!(audit.unwell(), None, "it is tried again");
            let path = folder.join(CHANGES);
            let text = fs::read_to_string(&path).unwrap();
            let whole: Vec<_> =
                text.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).collect();
            assert!(text.lines().count() <= whole.len() + 1, "one line was torn at most");
            fs::write(&path, whole.join("\n")).unwrap();
            let expected: Vec<_> = ["PUT first".to_owned()].into_iter().chain(all).collect();
            assert_eq!(lines(&path), expected);
        });
    }

    #[test]
    fn a_log_in_a_folder_that_cannot_be_written_begins_when_it_can() {
        on_a_small_disk("512k", |folder| {
            remount(folder, MsFlags::MS_RDONLY);
            let audit = Audit::open(folder, CHANGES);
            assert!(audit.unwell().unwrap().contains("Read-only file system"));
            audit.write(&entry("PUT a"));
            audit.state.lock().unwrap().waiting.resize(MAX_WAITING, line(&entry("PUT a")));
            audit.write(&entry("PUT b"));
            assert!(audit.unwell().is_some());
            remount(folder, MsFlags::empty());
            assert_eq!(audit.unwell(), None);
            let text = fs::read_to_string(folder.join(CHANGES)).unwrap();
            assert_eq!(text.lines().count(), MAX_WAITING + 1);
            assert!(text.lines().last().unwrap().contains("1 more lines"), "{text}");
        });
    }

    #[test]
    fn what_a_crash_left_of_a_line_is_a_line_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CHANGES);
        fs::write(&path, "{\"time\":").unwrap();
        Audit::open(folder.path(), CHANGES).write(&entry("PUT a"));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("{\"time\":\n{") && text.ends_with("}\n"), "{text}");
    }

    #[test]
    fn a_kill_at_any_system_call_of_a_line_loses_none_before_it_also_where_a_full_file_is_moved() {
        let open = |folder: &Path| Audit::with_room(folder, CHANGES, 300);
        if let Some(folder) = std::env::var_os(WRITER) {
            wait_until_told();
            return open(Path::new(&folder)).write(&entry("PUT new"));
        }
        let mut ends = Vec::new();
        for call in 0..MOST_CALLS {
            let folder = tempfile::tempdir_in("/dev/shm").unwrap();
            let before = ["PUT 1", "PUT 2", "PUT 3", "PUT 4"];
            before.iter().for_each(|what| open(folder.path()).write(&entry(what)));
            let was_killed = Writer::start(folder.path()).killed_at(call);
            open(folder.path()).write(&entry("PUT next"));
            let names = ["audit.log.3", "audit.log.2", "audit.log.1", "audit.log"];
            let paths = names.map(|name| folder.path().join(name));
            let all: Vec<_> =
                paths.iter().filter(|it| it.exists()).flat_map(|it| lines(it)).collect();
            let is_new = all.len() > before.len() + 1;
            let more: &[&str] = if is_new { &["PUT new", "PUT next"] } else { &["PUT next"] };
            assert_eq!(all, [&before[..], more].concat(), "call {call}");
            ends.push(is_new);
            if !was_killed {
                break;
            }
        }
        let first = ends.iter().position(|is_new| *is_new).expect("it was seen to end");
        assert!(first > 2 && ends[first..].iter().all(|is_new| *is_new), "{ends:?}");
    }

    #[test]
    fn what_is_long_is_cut_between_characters() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(folder.path(), REFUSALS);
        audit.write(&entry(&format!("x{}", "ä".repeat(MAX_WHAT))));
        let [said] = &lines(&folder.path().join(REFUSALS))[..] else { panic!("one line") };
        assert_eq!(said.len(), MAX_WHAT - 1);
    }
}
