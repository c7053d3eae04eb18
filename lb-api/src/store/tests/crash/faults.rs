//! A disk that fails for a while: whatever was refused is never there, and whatever was kept stays.

use nix::libc;

use super::*;

/// What changes the disk.
const WRITES: &[u64] = &[
    libc::SYS_write as u64,
    libc::SYS_pwrite64 as u64,
    libc::SYS_fsync as u64,
    libc::SYS_fdatasync as u64,
    libc::SYS_ftruncate as u64,
    libc::SYS_rename as u64,
    libc::SYS_renameat as u64,
    libc::SYS_link as u64,
    libc::SYS_linkat as u64,
    libc::SYS_unlink as u64,
    libc::SYS_unlinkat as u64,
];

/// What files are read by.
const READS: &[u64] = &[libc::SYS_read as u64];

#[test]
fn a_change_that_a_failing_disk_refuses_is_never_there_and_the_next_one_is_kept() {
    fail_everywhere(Write::Change);
}

#[test]
fn a_first_change_that_a_failing_disk_refuses_is_never_there_and_the_next_one_is_kept() {
    fail_everywhere(Write::First);
}

#[test]
fn a_fold_that_a_failing_disk_ends_half_way_loses_nothing() {
    fail_everywhere(Write::Fold);
}

#[test]
fn what_a_killed_daemon_left_is_on_the_disk_before_it_is_relied_upon() {
    if let Some(folder) = std::env::var_os(WRITER) {
        let store = Store::open(Path::new(&folder)).unwrap();
        told();
        let loaded = store.load().unwrap();
        assert_eq!(names(&loaded.vips), ["old"]);
        assert!(loaded.said()[0].contains("changes are refused"), "{:?}", loaded.said());
        return;
    }
    // Of the journal, and of the folder.
    for first in 0..2 {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        prepare(folder.path(), Write::Change);
        let (failed, _) = Writer::start(folder.path()).with_faults(WRITES, first, 1);
        assert_eq!(failed, 1, "what is read is synced, {first}");
    }
}

#[test]
fn a_file_that_the_disk_does_not_give_is_made_up_for_by_the_others_and_said() {
    if let Some(folder) = std::env::var_os(WRITER) {
        let store = Store::open(Path::new(&folder)).unwrap();
        told();
        let loaded = store.load();
        nix::unistd::getppid();
        let loaded = loaded.unwrap();
        assert_eq!((names(&loaded.vips), loaded.revision), (vec!["old"], 6));
        println!("\noutcome {}", loaded.said().len());
        return;
    }
    let mut unread = 0;
    for first in 0..MOST_CALLS {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        prepare(folder.path(), Write::Fold);
        let (failed, said) = Writer::start(folder.path()).with_faults(READS, first, 1);
        if failed == 0 {
            break;
        }
        assert_ne!(said, "0", "{first}");
        unread += 1;
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(names(&store.load().unwrap().vips), ["old"], "{first}");
    }
    assert!(unread > 3, "a snapshot and three journals are read: {unread}");
}

#[test]
fn a_change_that_was_refused_is_not_there_after_a_restart_without_another_one() {
    if let Some(folder) = std::env::var_os(WRITER) {
        let store = Store::open(Path::new(&folder)).unwrap();
        store.load().unwrap();
        told();
        let refused = carry_out(&store, Write::Change).is_err();
        nix::unistd::getppid();
        println!("\noutcome {}", if refused { "refused" } else { "kept" });
        return;
    }
    // The write is taken, its sync and the write that takes it back are not.
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    prepare(folder.path(), Write::Change);
    let (failed, said) = Writer::start(folder.path()).with_faults(WRITES, 1, 2);
    assert_eq!((failed, said.as_str()), (2, "refused"));
    assert_eq!(names(&start(folder.path()).vips), ["old"]);
}

fn fail_everywhere(write: Write) {
    if let Some(folder) = std::env::var_os(WRITER) {
        return go_on_in_spite(Path::new(&folder), write);
    }
    for count in 1..=3 {
        for first in 0..MOST_CALLS {
            let folder = tempfile::tempdir_in("/dev/shm").unwrap();
            prepare(folder.path(), write);
            let (failed, said) = Writer::start(folder.path()).with_faults(WRITES, first, count);
            let at = format!("{count} calls from {first} on, {said}");
            let store = Store::open(folder.path()).unwrap();
            let loaded = store.load().unwrap();
            assert_eq!((names(&loaded.vips), &loaded.said()[..]), (vec!["next"], &[][..]), "{at}");
            let was_kept = store.generations().iter().any(|g| g.vips[0].metadata.name == "new");
            assert_eq!(was_kept, said == "kept" && write != Write::Fold, "{at}");
            if failed == 0 {
                assert!(first > 1 && said == "kept", "{at}");
                break;
            }
        }
    }
}

/// The one whose disk fails: tries, says what became of it, and makes another change when the disk is well again.
fn go_on_in_spite(folder: &Path, write: Write) {
    let store = Store::open(folder).unwrap();
    store.load().unwrap();
    told();
    let outcome = carry_out(&store, write);
    // From here on nothing fails.
    nix::unistd::getppid();
    println!("\noutcome {}", if outcome.is_ok() { "kept" } else { "refused" });
    store.save(&change(8, &["old", "new"], &["next"])).unwrap();
}

/// Says which thread it is, and waits. From here on calls fail, until the next one of the kind that stands at the end.
fn told() {
    wait_until_told();
    nix::unistd::getppid();
}

impl Writer {
    /// Lets so many of these of its calls fail, from one on; how many did, and what it says.
    fn with_faults(mut self, which: &[u64], first: usize, count: usize) -> (usize, String) {
        self.tell();
        let (mut seen, mut failed, mut is_failing) = (0, 0, false);
        let (mut marks, mut signal) = (0, None);
        loop {
            let resumed = match marks {
                0 | 1 => ptrace::syscall(self.thread, signal.take()),
                _ => ptrace::cont(self.thread, signal.take()),
            };
            if resumed.is_err() {
                break;
            }
            match self.wait() {
                Some(WaitStatus::PtraceSyscall(_)) => {
                    let mut registers = ptrace::getregs(self.thread).unwrap();
                    let begins = registers.rax == -i64::from(libc::ENOSYS) as u64;
                    let call = registers.orig_rax;
                    marks += usize::from(begins && call == libc::SYS_getppid as u64);
                    if begins && marks == 1 && which.contains(&call) {
                        is_failing = (first..first + count).contains(&seen);
                        seen += 1;
                        if is_failing {
                            // There is no such call, so it does nothing.
                            registers.orig_rax = u64::MAX;
                            failed += 1;
                        }
                    } else if std::mem::take(&mut is_failing) {
                        registers.rax = -i64::from(libc::EIO) as u64;
                    }
                    ptrace::setregs(self.thread, registers).unwrap();
                }
                Some(WaitStatus::Stopped(_, sent)) => signal = Some(sent),
                Some(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | None => break,
                Some(
                    WaitStatus::PtraceEvent(..) | WaitStatus::Continued(_) | WaitStatus::StillAlive,
                ) => {}
            }
        }
        let mut said = String::new();
        self.stdout.read_to_string(&mut said).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{count} calls from {first} on: {status}: {said}");
        let outcome = said.lines().find_map(|line| line.strip_prefix("outcome "));
        (failed, outcome.unwrap_or_default().to_owned())
    }
}
