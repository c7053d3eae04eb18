//! Ten thousand updates a second for a minute, beside a full table to ten sinks.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Bench, Feeds};
use crate::light::{STAMP, Session};
use crate::peer::{Kind, Layout, asn_of};
use crate::table::update;

const SINKS: u16 = 10;
const HOLD_TIME_SECS: u16 = 9;
const TICK: Duration = Duration::from_millis(1);
/// Updates in a tick.
const UPDATES: u32 = 10;
/// Routes that they are about.
const ROUTES: u32 = 10_000;
const KEEPALIVE: Duration = Duration::from_secs(3);

/// What a minute was like.
pub(crate) struct Steady {
    /// From the feeder until a sink knows of the update or of a newer one of its route, of 99 in 100.
    pub(crate) propagation: Duration,
    pub(crate) slowest: Duration,
    /// How many in 100 sinks heard of; of the others they heard a newer one.
    pub(crate) heard: f64,
    /// The longest time between two KEEPALIVEs to a sink.
    pub(crate) keepalives: Duration,
}

impl Bench {
    /// The table comes at the beginning, and again, changed, in the middle.
    pub(crate) fn steady(&self, kind: Kind, time: Duration) -> Result<Steady> {
        let Feeds { family, tables, changed, .. } = &self.four;
        let layout = Layout { hold_time_secs: HOLD_TIME_SECS, ..Layout::new(2, SINKS) };
        let mut scene = self.scene(kind, &layout)?;
        let mut steady = scene.feeders.remove(1);
        let mut full = scene.feeders.remove(0);
        let mut kept = std::mem::take(&mut scene.kept);
        let (table, changed) = (tables[0].clone(), changed.clone());
        let start = Instant::now();
        let over = Arc::new(AtomicBool::new(false));
        // Nobody's silence is the ends' fault: a feeder whose peer does not read for a while says nothing by itself.
        let until = Arc::clone(&over);
        let keeping = thread::spawn(move || keep_alive(&mut kept, || until.load(Acquire)));
        let until = Arc::clone(&over);
        let feeding = thread::spawn(move || -> Result<()> {
            full.feed(&table)?;
            let mut alone = [full.twin()?];
            keep_alive(&mut alone, || start.elapsed() >= time / 2)?;
            full.feed(&changed)?;
            keep_alive(&mut alone, || until.load(Acquire))
        });
        let (mut sent, mut ticks, mut kept_alive) = (Vec::new(), 0, start);
        while start.elapsed() < time {
            let mut bytes = Vec::new();
            for _ in 0..UPDATES {
                numbered(u32::try_from(sent.len())?, family.end(402), &mut bytes);
                sent.push(scene.since.elapsed());
            }
            steady.feed(&bytes)?;
            if kept_alive.elapsed() >= KEEPALIVE {
                kept_alive = Instant::now();
                steady.keep_alive()?;
            }
            ticks += 1;
            thread::sleep((TICK * ticks).saturating_sub(start.elapsed()));
        }
        // What is under way arrives.
        scene.peer.settle()?;
        over.store(true, Release);
        for ends in [keeping, feeding] {
            ends.join().ok().context("an end panicked")??;
        }
        summary(scene.heard.iter().map(|heard| heard.take_times()), &sent)
    }
}

/// What became of the updates that were sent at these times, by what each sink heard.
fn summary(
    sinks: impl Iterator<Item = (Vec<(u32, Duration)>, Duration)>,
    sent: &[Duration],
) -> Result<Steady> {
    let (mut ways, mut heard, mut keepalives) = (Vec::new(), 0, Duration::ZERO);
    for (number, (came, longest)) in sinks.enumerate() {
        keepalives = keepalives.max(longest);
        heard += came.len();
        let mut known = vec![false; sent.len()];
        for (update, at) in came {
            // Those of its route before it that were not told count from then on as known.
            let before = (0..=update).rev().step_by(ROUTES as usize);
            for place in before.map(|update| update as usize) {
                if std::mem::replace(&mut known[place], true) {
                    break;
                }
                ways.push(at.saturating_sub(sent[place]));
            }
        }
        let lost = known.iter().filter(|known| !**known).count();
        ensure!(lost == 0, "{lost} of {} updates did not reach sink {number}", sent.len());
    }
    ways.sort_unstable();
    let all = ways.len();
    ensure!(all > 0, "nothing was sent");
    Ok(Steady {
        propagation: ways[all * 99 / 100],
        slowest: ways[all - 1],
        heard: 100.0 * heard as f64 / all as f64,
        keepalives,
    })
}

/// A KEEPALIVE each now and every [`KEEPALIVE`].
fn keep_alive(sessions: &mut [Session], over: impl Fn() -> bool) -> Result<()> {
    let mut due = Instant::now();
    while !over() {
        if due <= Instant::now() {
            sessions.iter_mut().try_for_each(Session::keep_alive)?;
            due += KEEPALIVE;
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Appends an UPDATE for one prefix that has a number.
fn numbered(number: u32, next_hop: IpAddr, bytes: &mut Vec<u8>) {
    let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 6, 2, 1];
    attributes.extend(asn_of(2).to_be_bytes());
    if let IpAddr::V4(next_hop) = next_hop {
        attributes.extend([0x40, 3, 4]);
        attributes.extend(next_hop.octets());
    }
    attributes.extend([0xc0, 8, 8]);
    attributes.extend(STAMP.to_be_bytes());
    attributes.extend(number.to_be_bytes());
    let [_, _, high, low] = (number % ROUTES).to_be_bytes();
    update(&[], &attributes, &[], &[32, 100, 127, high, low], bytes);
}
