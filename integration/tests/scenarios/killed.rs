//! `kill -9` while a change of the configuration is made over REST, at each system call of the daemon's: what its next start
//! finds is the old configuration or the new one, and the new one where somebody was told so.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use integration::lab::{Lab, Options};
use integration::wait::eventually;
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options as Trace};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::hello::{Holds, SOON};

/// Calls that change nothing beyond the process and its threads: a kill before one of them is a kill before the next one.
const OWN: [i64; 31] = [
    libc::SYS_futex,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_ctl,
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_accept4,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mprotect,
    libc::SYS_brk,
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigprocmask,
    libc::SYS_clock_nanosleep,
    libc::SYS_getsockopt,
    libc::SYS_membarrier,
    libc::SYS_prctl,
    libc::SYS_gettid,
    libc::SYS_restart_syscall,
    libc::SYS_statx,
    libc::SYS_fstat,
];
/// Calls of a change at most; there are far fewer.
const MOST_CALLS: usize = 500;

#[test]
fn a_kill_at_any_system_call_of_a_change_over_rest_leaves_the_old_configuration_or_the_new_one() {
    let topology = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/config/network/config.clab.yml");
    let mut lab = Lab::up(&Options::of(topology, None, None).holds()).holds();
    let mut weight = 1;
    assert_eq!(put(&lab, weight).holds(), 201);
    let (mut olds, mut news, mut calls) = (0, 0, BTreeMap::new());
    let mut kill_during_a_change = |place: Place| {
        let victim = Victim::of(lab.process("lbd", "lbd").holds().pid(), place);
        let answer = put(&lab, weight + 1);
        // It is killed behind its last call, too.
        let killed_at = victim.killed();
        let was_told = matches!(answer, Ok(200));
        assert!(was_told || answer.is_err(), "{place:?}: {answer:?}");
        lab.stop_one("lbd", "lbd", Signal::SIGKILL).holds();
        lab.start("lbd").holds();
        let found = eventually("lbd says what it has", SOON, || whole(&lab)).holds();
        assert!([weight, weight + 1].contains(&found), "{place:?}: {found} after {weight}");
        assert!(!was_told || found == weight + 1, "{place:?}: what was answered 200 is lost");
        if found == weight {
            olds += 1
        } else {
            news += 1
        };
        weight = found;
        killed_at
    };
    for call in 0..MOST_CALLS {
        let Some(number) = kill_during_a_change(Place::Call(call)) else { break };
        *calls.entry(number).or_insert(0) += 1;
    }
    assert!(calls.values().sum::<usize>() < MOST_CALLS, "a change was seen to end: {calls:?}");
    // Which call is which in a change varies with what else lbd does, so that one may not have been met.
    for sync in [libc::SYS_fdatasync, libc::SYS_bpf] {
        let is_met = calls.contains_key(&sync);
        assert!(
            is_met || kill_during_a_change(Place::Before(sync)) == Some(sync),
            "{sync} was among them: {calls:?}"
        );
    }
    assert!(olds > 2 && news > 2, "both are seen: {olds} and {news}, {calls:?}");
    println!("{olds} times the old one and {news} times the new one, killed before {calls:?}");
}

#[test]
fn a_change_that_is_on_its_way_when_lbd_is_stopped_is_answered_and_written_down_before_it_ends() {
    let topology = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/config/network/config.clab.yml");
    let mut lab = Lab::up(&Options::of(topology, None, None).holds()).holds();
    // What connects before it runs is answered by nobody.
    assert_eq!(put(&lab, 1).holds(), 201);
    let mut stream = UnixStream::connect(lab.api().socket()).expect("lbd answers");
    let body = vip(2).to_string();
    let head = format!(
        "PUT /api/v1/vips/web HTTP/1.1\r\nhost: lbd\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let (first, late) = body.split_at(body.len() - 30);
    stream.write_all(head.as_bytes()).expect("it is read");
    // What lbd has not begun to read when it stops is not on its way.
    stream.set_read_timeout(Some(SOON)).expect("a socket");
    let mut go_on = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut go_on).expect("lbd asks for more");
    assert!(go_on.starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&go_on));
    stream.write_all(first.as_bytes()).expect("it is read");
    kill(Pid::from_raw(lab.process("lbd", "lbd").holds().pid()), Signal::SIGTERM).expect("it runs");
    // A byte whenever no answer comes: three seconds in all, in which lbd has everything else ended.
    let wait = |stream: &UnixStream, time| stream.set_read_timeout(Some(time)).expect("a socket");
    wait(&stream, Duration::from_millis(100));
    for byte in late.as_bytes() {
        let early = stream.read(&mut [0]);
        assert!(early.as_ref().is_err_and(|it| it.kind() == ErrorKind::WouldBlock), "{early:?}");
        stream.write_all(&[*byte]).expect("it is read");
    }
    wait(&stream, SOON);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it is answered");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("problem+json"), "{answer}");
    let ended = lab.stop_one("lbd", "lbd", Signal::SIGTERM).holds();
    assert!(ended.success(), "{ended:?}");
    let audit = fs::read_to_string(lab.folder().join("lbd/state/audit.log")).expect("it is kept");
    let told = audit.lines().rfind(|line| line.contains("PUT /api/v1/vips/web"));
    assert!(told.is_some_and(|line| line.contains("\"status\":503")), "{audit}");
    assert!(audit.lines().last().is_some_and(|line| line.contains("end of lbd")), "{audit}");
}

/// Asks for a VIP whose backends have this weight and port; the status.
fn put(lab: &Lab, weight: u64) -> Result<u16> {
    Ok(lab.api().try_put_vip("web", &vip(weight))?.status)
}

fn vip(weight: u64) -> Value {
    let backends: Vec<Value> = (1..=3)
        .map(|n| json!({"address": format!("10.3.0.{n}"), "port": 8000 + weight, "weight": weight}))
        .collect();
    json!({"metadata": {"name": "web"}, "spec": {
        "address": "100.64.0.1", "port": 80, "health_check": {"kind": "none"}, "backends": backends}})
}

/// The weight that all backends have, when the maps are as lbd wrote them and nothing that is kept was damaged.
fn whole(lab: &Lab) -> Result<u64> {
    let vip = lab.api().vip("web")?;
    let first = vip.spec.backends.first().context("it has backends")?;
    let weight = u64::from(first.weight);
    for backend in &vip.spec.backends {
        let is_one =
            u64::from(backend.weight) == weight && u64::from(backend.port) == 8000 + weight;
        assert!(is_one && vip.spec.backends.len() == 3, "half of a change: {vip:?}");
    }
    let audit: Value = serde_json::from_str(&lab.api().get_text("services/audit")?)?;
    assert_eq!(audit["intact"], true, "{audit}");
    let warnings = lab.api().status()?.warnings;
    assert!(warnings.iter().all(|said| !said.contains("damaged")), "{warnings:?}");
    Ok(weight)
}

/// Before which call a process is killed, of those that change something beyond it.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// That of a number, from 0 on.
    Call(usize),
    /// The first of a kind.
    Before(i64),
}

/// A process that is killed before one of its calls.
struct Victim {
    pid: Pid,
    tracer: thread::JoinHandle<Option<i64>>,
}

impl Victim {
    /// Returns when each of its threads is watched.
    fn of(pid: i32, place: Place) -> Self {
        let pid = Pid::from_raw(pid);
        let (watched, is_watched) = mpsc::channel();
        let tracer = thread::spawn(move || kill_at(pid, place, &watched));
        is_watched.recv().expect("the tracer does not panic");
        Self { pid, tracer }
    }

    /// Kills it if it still lives; before which call it was killed, if it got that far.
    fn killed(self) -> Option<i64> {
        let _killed_already = kill(self.pid, Signal::SIGKILL);
        self.tracer.join().expect("the tracer does not panic")
    }
}

/// What is traced belongs to this thread: when it ends, so does that.
fn kill_at(pid: Pid, place: Place, watched: &mpsc::Sender<()>) -> Option<i64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    for thread in threads {
        let id: i32 =
            thread.expect("it is listed").file_name().to_string_lossy().parse().expect("a number");
        let options = Trace::PTRACE_O_TRACESYSGOOD | Trace::PTRACE_O_TRACECLONE;
        match ptrace::seize(Pid::from_raw(id), options)
            .and_then(|()| ptrace::interrupt(Pid::from_raw(id)))
        {
            // It has ended meanwhile.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => panic!("root may trace it: {error}"),
        }
    }
    watched.send(()).expect("somebody waits");
    let mut seen = 0;
    loop {
        // Only what this thread traces, not what others of this process have started; and the process that ends is left to
        // those.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD | WaitPidFlag::WSTOPPED;
        let peek = flags | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        let status = match waitid(Id::All, peek) {
            Ok(WaitStatus::Exited(gone, _) | WaitStatus::Signaled(gone, ..)) => {
                if gone == pid {
                    return None;
                }
                let _status = waitpid(gone, Some(WaitPidFlag::__WALL));
                continue;
            }
            Ok(status) => {
                status.pid().map(|stopped| waitid(Id::Pid(stopped), flags | WaitPidFlag::WNOHANG))
            }
            Err(Errno::ECHILD) => return None,
            Err(error) => panic!("{error}"),
        };
        // One that was killed meanwhile is not stopped any more.
        let Some(Ok(status)) = status else { continue };
        let (stopped, signal) = match status {
            WaitStatus::PtraceSyscall(stopped) => {
                if let Some(number) = begins(stopped).filter(|number| !OWN.contains(number)) {
                    let is_there = match place {
                        Place::Call(call) => seen == call,
                        Place::Before(kind) => number == kind,
                    };
                    if is_there {
                        kill(pid, Signal::SIGKILL).expect("it is ours");
                        return Some(number);
                    }
                    seen += 1;
                }
                (stopped, None)
            }
            WaitStatus::PtraceEvent(stopped, signal, 0) => (stopped, Some(signal)),
            WaitStatus::PtraceEvent(stopped, ..) | WaitStatus::Stopped(stopped, _) => {
                (stopped, None)
            }
            WaitStatus::Exited(..)
            | WaitStatus::Signaled(..)
            | WaitStatus::Continued(_)
            | WaitStatus::StillAlive => continue,
        };
        let _killed = ptrace::syscall(stopped, signal);
    }
}

/// The number of the call that a thread is about to make; `None` at the end of one.
#[expect(unsafe_code, reason = "the kernel's answer is a union")]
fn begins(thread: Pid) -> Option<i64> {
    let info = ptrace::syscall_info(thread).ok()?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: `op` says which part of the union the kernel has filled in.
    i64::try_from(unsafe { info.u.entry.nr }).ok()
}
