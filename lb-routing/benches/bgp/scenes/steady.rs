//! Ten thousand updates a second for a minute, beside a full table to ten sinks.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

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
    /// From the feeder to a sink, of 99 in 100 updates.
    pub(crate) propagation: Duration,
    pub(crate) slowest: Duration,
    /// Updates that reached sinks.
    pub(crate) arrived: usize,
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
        // Nobody's silence is the ends' fault: a feeder whose peer does not read for a while says nothing by itself.
        let keeping = thread::spawn(move || keep_alive(&mut kept, start, time));
        let feeding = thread::spawn(move || -> Result<()> {
            full.feed(&table)?;
            let mut alone = [full.twin()?];
            keep_alive(&mut alone, start, time / 2)?;
            full.feed(&changed)?;
            keep_alive(&mut alone, start, time)
        });
        let (mut sent, mut ticks, mut kept_alive) = (0, 0, start);
        while start.elapsed() < time {
            let mut bytes = Vec::new();
            for _ in 0..UPDATES {
                let stamp = u32::try_from(scene.since.elapsed().as_micros())?;
                stamped(sent % ROUTES, family.end(402), stamp, &mut bytes);
                sent += 1;
            }
            steady.feed(&bytes)?;
            if kept_alive.elapsed() >= KEEPALIVE {
                kept_alive = Instant::now();
                steady.keep_alive()?;
            }
            ticks += 1;
            thread::sleep((TICK * ticks).saturating_sub(start.elapsed()));
        }
        for ends in [keeping, feeding] {
            ends.join().ok().context("an end panicked")??;
        }
        let times: Vec<_> = scene.heard.iter().map(|heard| heard.take_times()).collect();
        let keepalives = times.iter().map(|(_, longest)| *longest).max().unwrap_or_default();
        let mut ways: Vec<_> = times.into_iter().flat_map(|(ways, _)| ways).collect();
        ways.sort_unstable();
        anyhow::ensure!(!ways.is_empty(), "no update has reached a sink");
        Ok(Steady {
            propagation: ways[ways.len() * 99 / 100],
            slowest: ways[ways.len() - 1],
            arrived: ways.len(),
            keepalives,
        })
    }
}

fn keep_alive(sessions: &mut [Session], start: Instant, until: Duration) -> Result<()> {
    while start.elapsed() < until {
        sessions.iter_mut().try_for_each(Session::keep_alive)?;
        thread::sleep(KEEPALIVE.min(until.saturating_sub(start.elapsed())));
    }
    Ok(())
}

/// Appends an UPDATE for one prefix that says when it was sent.
fn stamped(route: u32, next_hop: IpAddr, stamp: u32, bytes: &mut Vec<u8>) {
    let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 6, 2, 1];
    attributes.extend(asn_of(2).to_be_bytes());
    if let IpAddr::V4(next_hop) = next_hop {
        attributes.extend([0x40, 3, 4]);
        attributes.extend(next_hop.octets());
    }
    attributes.extend([0xc0, 8, 8]);
    attributes.extend(STAMP.to_be_bytes());
    attributes.extend(stamp.to_be_bytes());
    let [_, _, high, low] = route.to_be_bytes();
    update(&[], &attributes, &[], &[32, 100, 127, high, low], bytes);
}
