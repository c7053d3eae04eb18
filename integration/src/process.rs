//! Processes that a lab started, named so that a later command can find and end exactly these.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// How long a process may take to go after SIGKILL.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// A process by number and start time, so that a number that is used again names somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pid: i32,
    /// Clock ticks after boot (field 22 of `/proc/PID/stat`).
    started: u64,
}

impl ProcessId {
    /// Names a process that runs.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let (_, started) = stat(pid).with_context(|| format!("process {pid} is gone"))?;
        Ok(Self { pid: i32::try_from(pid)?, started })
    }

    /// This process.
    pub(crate) fn own() -> Result<Self> {
        Self::of(std::process::id())
    }

    /// Its number.
    pub fn pid(self) -> i32 {
        self.pid
    }

    /// Whether it still runs; a zombie does not.
    pub fn runs(self) -> bool {
        u32::try_from(self.pid)
            .ok()
            .and_then(stat)
            .is_some_and(|(state, started)| started == self.started && state != 'Z' && state != 'X')
    }

    /// Sends a signal, unless it is gone.
    pub fn signal(self, signal: Signal) -> Result<()> {
        if !self.runs() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot signal process {}", self.pid)),
        }
    }

    /// Waits until it is gone.
    pub fn wait(self) -> Result<()> {
        let deadline = Instant::now() + GONE_WITHIN;
        while self.runs() {
            if Instant::now() > deadline {
                bail!("process {} still runs after {GONE_WITHIN:?}", self.pid);
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// State and start time.
fn stat(pid: u32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may itself hold blanks and parentheses.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_known_by_number_and_start_time() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = ProcessId::of(child.id()).unwrap();
        assert!(process.runs());
        let other = ProcessId { started: process.started + 1, ..process };
        assert!(!other.runs());
        other.signal(Signal::SIGKILL).unwrap();
        assert!(process.runs(), "a signal to another process of the same number went to this one");
        process.signal(Signal::SIGKILL).unwrap();
        process.wait().unwrap();
        child.wait().unwrap();
    }
}
