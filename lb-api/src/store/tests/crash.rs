//! Crashes, and disks that are full, broken or read-only: whatever the moment, the next start finds the old state or the new
//! one.

#[cfg(target_arch = "x86_64")]
mod faults;

use std::io::{BufRead, BufReader, Read, Write as _};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, gettid};

use super::*;
use crate::small_disk::{on_a_small_disk, remount};

/// Says to this test's own program that it is the one that crashes, and in which folder.
pub(crate) const WRITER: &str = "LBD_TEST_WRITER";
/// System calls of a write at most; it makes far fewer.
pub(crate) const MOST_CALLS: usize = 2000;

/// What a process does that is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    /// A change, into a journal that is there.
    Change,
    /// A change that begins with a snapshot, as the first one of all or after damage.
    First,
    /// A fold.
    Fold,
    /// A change that waits to be confirmed, and is.
    Confirmed,
    /// One that waits, and is rolled back.
    RolledBack,
}

#[test]
fn a_kill_at_any_system_call_of_a_change_leaves_the_old_state_or_the_new_one() {
    die_everywhere(Write::Change);
}

#[test]
fn a_kill_at_any_system_call_of_a_first_change_leaves_the_old_state_or_the_new_one() {
    die_everywhere(Write::First);
}

#[test]
fn a_kill_at_any_system_call_of_a_fold_leaves_the_state_as_it_is() {
    die_everywhere(Write::Fold);
}

#[test]
fn a_kill_at_any_system_call_of_a_change_that_is_confirmed_leaves_the_old_state_or_the_new_one() {
    die_everywhere(Write::Confirmed);
}

#[test]
fn a_kill_at_any_system_call_of_a_change_that_is_rolled_back_leaves_the_old_state() {
    die_everywhere(Write::RolledBack);
}

fn die_everywhere(write: Write) {
    if let Some(folder) = std::env::var_os(WRITER) {
        return write_when_told(Path::new(&folder), write);
    }
    let mut outcomes = Vec::new();
    for call in 0..MOST_CALLS {
        // In memory, where there are hundreds of writes that are waited for.
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        prepare(folder.path(), write);
        let was_killed = Writer::start(folder.path()).killed_at(call);
        let store = Store::open(folder.path()).unwrap();
        let loaded = store.load().unwrap();
        assert_eq!(loaded.said(), [""; 0], "call {call}: nothing is damaged");
        let found = names(&loaded.vips).join(" ");
        assert!(["old", "new"].contains(&found.as_str()), "call {call}: {found}");
        outcomes.push(found);
        // The next change is not hindered by what the crash left.
        store.save(&change(9, &["old", "new"], &["next"])).unwrap();
        assert_eq!(names(&store.load().unwrap().vips), ["next"], "call {call}");
        for generation in store.generations() {
            assert_eq!(generation.vips.len(), 1, "call {call}: {generation:?}");
        }
        if !was_killed {
            break;
        }
    }
    assert!(outcomes.len() < MOST_CALLS, "the write was also seen to end");
    let olds = outcomes.iter().take_while(|name| *name == "old").count();
    if matches!(write, Write::Fold | Write::RolledBack) {
        assert!(olds > 2 && olds == outcomes.len(), "{outcomes:?}");
        return;
    }
    assert!(olds > 2 && olds < outcomes.len(), "both are seen: {outcomes:?}");
    assert!(outcomes[olds..].iter().all(|name| name == "new"), "there is one moment: {outcomes:?}");
}

/// A folder with the VIP `old`.
fn prepare(folder: &Path, write: Write) {
    let store = Store::open(folder).unwrap();
    store.load().unwrap();
    for revision in 1..=6 {
        store.save(&change(revision, &[], &["old"])).unwrap();
        if write == Write::Fold && revision % 2 == 0 {
            // Every file is there, so that each is moved.
            store.fold().unwrap();
        }
    }
    if write == Write::First {
        drop(store);
        let vip = serde_json::to_value(some_vip("old")).unwrap();
        let text = serde_json::json!({"version": 2, "revision": 6, "vips": [vip]}).to_string();
        fs::write(folder.join(SNAPSHOT), text).unwrap();
    }
}

/// The one that crashes: says which thread it is, waits, and writes.
fn write_when_told(folder: &Path, write: Write) {
    wait_until_told();
    let store = Store::open(folder).unwrap();
    store.load().unwrap();
    carry_out(&store, write).unwrap();
}

/// Says which thread it is that writes, and waits: from then on each of its system calls is seen.
pub(crate) fn wait_until_told() {
    println!("\nthread {}", gettid());
    io::stdin().read_line(&mut String::new()).unwrap();
}

fn carry_out(store: &Store, write: Write) -> Result<(), StoreError> {
    let change = change(7, &["old"], &["new"]);
    match write {
        Write::Change | Write::First => store.save(&change),
        Write::Fold => store.fold(),
        Write::Confirmed | Write::RolledBack => {
            let prepared = store.prepare(&change)?;
            store.reserve(7)?;
            if write == Write::Confirmed { store.commit(prepared) } else { Ok(()) }
        }
    }
}

pub(crate) struct Writer {
    child: Child,
    /// Its thread that writes.
    thread: Pid,
    stdin: ChildStdin,
    /// What it says.
    stdout: BufReader<ChildStdout>,
}

impl Writer {
    pub(crate) fn start(folder: &Path) -> Self {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg0("writer").args(["--exact", &name, "--nocapture", "--test-threads=1"]);
        command.env(WRITER, folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let thread = stdout
            .by_ref()
            .lines()
            .map(Result::unwrap)
            .find_map(|line| line.strip_prefix("thread ")?.parse().ok())
            .expect("it says which thread it is");
        Self { child, thread: Pid::from_raw(thread), stdin, stdout }
    }

    /// Kills it when it begins so many system calls after it was told to write; whether it got that far.
    pub(crate) fn killed_at(mut self, call: usize) -> bool {
        self.tell();
        // A call stops when it begins and when it ends, so these are twice as many.
        let mut stops = 0;
        let mut signal = None;
        while stops <= 2 * call {
            if ptrace::syscall(self.thread, signal.take()).is_err() {
                break;
            }
            match self.wait() {
                Some(WaitStatus::PtraceSyscall(_)) => stops += 1,
                Some(WaitStatus::Stopped(_, sent)) => signal = Some(sent),
                Some(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | None => break,
                Some(
                    WaitStatus::PtraceEvent(..) | WaitStatus::Continued(_) | WaitStatus::StillAlive,
                ) => {}
            }
        }
        let was_killed = stops > 2 * call;
        if was_killed {
            kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGKILL).unwrap();
            while self.wait().is_some_and(|status| {
                !matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..))
            }) {}
        }
        // The whole process is gone, and its lock on the folder with it.
        let status = self.child.wait().unwrap();
        assert!(was_killed || status.success(), "{status}");
        was_killed
    }

    /// Tells it to begin; from here on each of its system calls is seen.
    fn tell(&mut self) {
        ptrace::seize(self.thread, Options::PTRACE_O_TRACESYSGOOD).unwrap();
        ptrace::interrupt(self.thread).unwrap();
        self.wait().unwrap();
        self.stdin.write_all(b"\n").unwrap();
    }

    /// What became of the thread; `None` when it is gone.
    fn wait(&self) -> Option<WaitStatus> {
        match waitpid(self.thread, Some(WaitPidFlag::__WALL)) {
            Ok(status) => Some(status),
            Err(Errno::ECHILD) => None,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_read_only_disk_serves_what_is_kept_says_so_and_refuses_changes_until_it_is_written_again() {
    on_a_small_disk("384k", |folder| {
        prepare(folder, Write::Fold);
        remount(folder, MsFlags::MS_RDONLY);
        let store = Store::open(folder).unwrap();
        let second = Store::open(folder).unwrap_err();
        assert!(matches!(second, StoreError::InUse { .. }), "{second}");
        let loaded = store.load().unwrap();
        assert_eq!((names(&loaded.vips), loaded.revision), (vec!["old"], 6));
        let [warning] = &loaded.said()[..] else { panic!("{:?}", loaded.said()) };
        assert!(warning.contains("Read-only") && warning.contains("refused"), "{warning}");
        let refused = store.save(&change(7, &["old"], &["new"])).unwrap_err().to_string();
        assert!(refused.contains("vips.json") && refused.contains("Read-only"), "{refused}");
        let access = crate::access::Access::open(folder, Default::default(), 0).unwrap();
        let said = access.unwell();
        let logs = ["audit.log", "refused.log"];
        assert!(
            said.iter().zip(logs).filter(|(said, name)| said.contains(name)).count() == 2,
            "{said:?}"
        );
        // Damage, too: it cannot be moved aside, and what is before it is served.
        drop(store);
        remount(folder, MsFlags::empty());
        fs::write(folder.join(SNAPSHOT), "damage").unwrap();
        remount(folder, MsFlags::MS_RDONLY);
        let store = Store::open(folder).unwrap();
        let loaded = store.load().unwrap();
        assert_eq!(names(&loaded.vips), ["old"]);
        assert!(loaded.said().iter().any(|said| said.contains("damaged")), "{loaded:?}");
        assert!(loaded.notices.iter().all(Notice::holds), "{loaded:?}");
        remount(folder, MsFlags::empty());
        store.save(&change(7, &["old"], &["new"])).unwrap();
        assert_eq!(loaded.notices.iter().filter(|notice| notice.holds()).count(), 0, "all is well");
        drop(store);
        assert_eq!(names(&start(folder).vips), ["new"]);
    });
}

#[test]
fn a_full_disk_refuses_the_change_and_keeps_the_state() {
    on_a_small_disk("384k", |folder| {
        let names: Vec<_> = (0..80).map(|n| format!("v{n}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let store = Store::open(folder).unwrap();
        store.load().unwrap();
        store.save(&change(1, &[], &names)).unwrap();
        let (mut refused, mut folds, mut revision) = (0, 0, 1);
        // From a disk without a free page to one with room enough.
        for free in 0..40 {
            fill_but(folder, free);
            match store.save(&change(revision + 1, &[], &names)) {
                Ok(()) => revision += 1,
                Err(error) => refused += is_full(error),
            }
            if free % 8 == 0 {
                folds += store.fold().map_or_else(is_full, |()| 0);
                let new = folder.join(format!("{SNAPSHOT}.new"));
                assert!(!new.exists(), "{free} pages: it would keep the journal from growing");
            }
            let loaded = store.load().unwrap();
            assert_eq!((loaded.vips.len(), &loaded.said()[..]), (80, &[][..]), "{free} pages");
            assert_eq!(store.generations()[0].revision, revision, "{free} pages");
            fs::remove_file(folder.join("filler")).unwrap();
        }
        assert!(refused > 0 && folds > 0 && revision > 2, "{refused}, {folds}, {revision}");
        // Damage and a full disk at once: the last good state all the same.
        fs::write(folder.join(SNAPSHOT), "damage").unwrap();
        fill_but(folder, 0);
        let loaded = store.load().unwrap();
        assert_eq!((loaded.vips.len(), loaded.revision), (80, revision), "{:?}", loaded.said());
        assert!(!loaded.said().is_empty());
    });
}

/// One, for an error that says that the disk is full.
fn is_full(error: StoreError) -> u32 {
    let StoreError::Io { ref source, .. } = error else { panic!("{error}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    1
}

/// Leaves so many pages of the disk free.
fn fill_but(folder: &Path, free: usize) {
    const PAGE: usize = 4096;
    let path = folder.join("filler");
    let mut file = File::create(&path).unwrap();
    let mut pages = 0;
    while file.write_all(&[0; PAGE]).is_ok() {
        pages += 1;
    }
    file.set_len(u64::try_from(PAGE * usize::saturating_sub(pages, free)).unwrap()).unwrap();
}
