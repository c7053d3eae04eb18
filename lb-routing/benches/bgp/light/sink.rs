//! A sink: counts the prefixes of a stream.

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{HEADER, Session};

/// One of two communities of an UPDATE that has a number: the other one.
pub(crate) const STAMP: u32 = 0x2a2a_2a2a;

/// What a sink has heard since it began.
#[derive(Default)]
pub(crate) struct Heard {
    announced: AtomicU64,
    withdrawn: AtomicU64,
    /// UPDATEs with a number, and when they came; the longest time between two KEEPALIVEs.
    times: Mutex<(Vec<(u32, Duration)>, Duration)>,
}

impl Heard {
    pub(crate) fn announced(&self) -> u64 {
        self.announced.load(Ordering::Acquire)
    }

    pub(crate) fn withdrawn(&self) -> u64 {
        self.withdrawn.load(Ordering::Acquire)
    }

    /// Takes what was noted of UPDATEs with a number, in the order in which they came, and of KEEPALIVEs.
    pub(crate) fn take_times(&self) -> (Vec<(u32, Duration)>, Duration) {
        std::mem::take(&mut self.times.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Counts in a thread of its own until the session ends; `since`: what times are relative to.
pub(crate) fn sink(session: Session, since: Instant) -> Arc<Heard> {
    let heard = Arc::new(Heard::default());
    let counting = Arc::clone(&heard);
    thread::spawn(move || {
        // The end of the session ends the count; who waits for more has a deadline.
        let _ended = count(session, &counting, since);
    });
    heard
}

fn count(mut session: Session, heard: &Heard, since: Instant) -> Result<()> {
    session.0.set_read_timeout(None)?;
    let mut reader = Counter::new(256 * 1024, since);
    // Ends: with the stream.
    loop {
        let read = session.0.read(reader.room())?;
        ensure!(read > 0, "the peer under test hung up on its sink");
        reader.take(read, heard);
    }
}

/// The state between two reads of a stream.
pub(super) struct Counter {
    buffer: Vec<u8>,
    filled: usize,
    since: Instant,
    kept_alive: Option<Instant>,
}

impl Counter {
    pub(super) fn new(room: usize, since: Instant) -> Self {
        Self { buffer: vec![0; room], filled: 0, since, kept_alive: None }
    }

    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.filled..]
    }

    /// Counts what was read into the room.
    pub(super) fn take(&mut self, read: usize, heard: &Heard) {
        self.filled += read;
        let (mut at, mut announced, mut withdrawn) = (0, 0, 0);
        let mut came = Vec::new();
        while self.filled - at >= HEADER {
            let message = &self.buffer[at..self.filled];
            let len = usize::from(u16::from_be_bytes([message[16], message[17]]));
            if message.len() < len {
                break;
            }
            match message[18] {
                2 => {
                    let update = Update::of(&message[HEADER..len]);
                    announced += update.announced;
                    withdrawn += update.withdrawn;
                    came.extend(update.number.map(|number| (number, self.since.elapsed())));
                }
                4 => {
                    let now = Instant::now();
                    if let Some(before) = self.kept_alive.replace(now) {
                        let mut times = heard.times.lock().unwrap_or_else(PoisonError::into_inner);
                        times.1 = times.1.max(now - before);
                    }
                }
                _ => {}
            }
            at += len;
        }
        self.buffer.copy_within(at..self.filled, 0);
        self.filled -= at;
        if !came.is_empty() {
            heard.times.lock().unwrap_or_else(PoisonError::into_inner).0.extend(came);
        }
        heard.announced.fetch_add(announced, Ordering::Release);
        heard.withdrawn.fetch_add(withdrawn, Ordering::Release);
    }
}

/// What is counted of an UPDATE.
#[derive(Default)]
struct Update {
    announced: u64,
    withdrawn: u64,
    number: Option<u32>,
}

impl Update {
    fn of(body: &[u8]) -> Self {
        let counted = |at: usize| usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
        let withdrawn = 2 + counted(0);
        let attributes = withdrawn + 2 + counted(withdrawn);
        let mut update = Self {
            announced: entries(&body[attributes..]),
            withdrawn: entries(&body[2..withdrawn]),
            number: None,
        };
        let mut list = &body[withdrawn + 2..attributes];
        while let [flags, code, rest @ ..] = list {
            let (len, rest) = if flags & 0x10 == 0 {
                (usize::from(rest[0]), &rest[1..])
            } else {
                (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..])
            };
            let (value, rest) = rest.split_at(len);
            match code {
                8 if len == 8 => update.number = number(value),
                14 => update.announced += entries(&value[5 + usize::from(value[3])..]),
                15 => update.withdrawn += entries(&value[3..]),
                _ => {}
            }
            list = rest;
        }
        update
    }
}

/// The community beside the stamp; BIRD sorts them.
fn number(communities: &[u8]) -> Option<u32> {
    let (first, second) = communities.split_at(4);
    let other = match STAMP.to_be_bytes() {
        stamp if first == stamp => second,
        stamp if second == stamp => first,
        _ => return None,
    };
    other.try_into().ok().map(u32::from_be_bytes)
}

fn entries(mut field: &[u8]) -> u64 {
    let mut count = 0;
    while let Some((&len, rest)) = field.split_first() {
        field = &rest[usize::from(len).div_ceil(8)..];
        count += 1;
    }
    count
}
