//! Hundreds of ends in one thread, each with little to do.

use std::io::Read;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::sink::Counter;
use super::{Heard, Session};

/// Longer than any message.
const BUFFER: usize = 16 * 1024;
/// Between two KEEPALIVEs of an end, where there are any.
const KEEPALIVE: Duration = Duration::from_secs(3);

/// Ends that count until the crowd is dropped: then all their connections close at once.
pub(crate) struct Crowd {
    pub(crate) heard: Arc<Vec<Heard>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Crowd {
    pub(crate) fn start(sessions: Vec<Session>, keep_alive: bool) -> Self {
        let heard: Arc<Vec<Heard>> = Arc::new(sessions.iter().map(|_| Heard::default()).collect());
        let stop = Arc::new(AtomicBool::new(false));
        let (counting, stopped) = (Arc::clone(&heard), Arc::clone(&stop));
        let thread = thread::spawn(move || count(sessions, keep_alive, &counting, &stopped));
        Self { heard, stop, thread: Some(thread) }
    }

    /// Whether each has heard of so many prefixes.
    pub(crate) fn all_heard(&self, prefixes: u64) -> bool {
        self.heard.iter().all(|heard| heard.announced() >= prefixes)
    }

    /// Ends it; an error says what went wrong meanwhile.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.take().context("it was stopped before")?;
        thread.join().ok().context("the crowd panicked")?
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

fn count(
    mut sessions: Vec<Session>,
    keep_alive: bool,
    heard: &[Heard],
    stop: &AtomicBool,
) -> Result<()> {
    let since = Instant::now();
    let mut counters: Vec<_> = sessions.iter().map(|_| Counter::new(BUFFER, since)).collect();
    let total = u32::try_from(sessions.len())?;
    let mut kept_alive = 0;
    while !stop.load(Ordering::Acquire) {
        let mut fds: Vec<_> =
            sessions.iter().map(|it| PollFd::new(it.0.as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut fds, PollTimeout::from(5_u8))?;
        let ready: Vec<_> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        drop(fds);
        for (place, _) in ready.iter().enumerate().filter(|(_, ready)| **ready) {
            let (session, counter) = (&mut sessions[place], &mut counters[place]);
            let read = session.0.read(counter.room())?;
            ensure!(read > 0, "the peer under test hung up on an end");
            counter.take(read, &heard[place]);
        }
        // They take turns, so that each says one every `KEEPALIVE`.
        let due = since.elapsed().as_micros() * u128::from(total) / KEEPALIVE.as_micros();
        while keep_alive && kept_alive < due {
            let place = usize::try_from(kept_alive % u128::from(total))?;
            sessions[place].keep_alive()?;
            kept_alive += 1;
        }
    }
    Ok(())
}
