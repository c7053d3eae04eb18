//! How long flows that are over are looked for among a million, and removed (D8).

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lb_dataplane::host::grace_period;
use lb_dataplane::table::Protocol;
use lb_dataplane::{AgePart, Sizes};

use crate::frames::Connection;
use crate::report::{Report, Series};
use crate::rig::Rig;
use crate::traffic::{Backends, key, table, vip};
use crate::{fresh, many, say};

const FLOWS: usize = 1_000_000;
/// Two entries a flow.
const ENTRIES: u32 = 1 << 21;
/// Parts of the table that wait for one grace period together.
const PARTS: usize = 32;
/// Flows that go at once.
const IDLE: usize = 100_000;

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    say("ageing");
    let mut rig = Rig::new(Sizes { flow_entries: ENTRIES, ..Sizes::default() }, FLOWS)?;
    let backends = Backends::new(100);
    rig.apply(&table([(key(vip(0), Protocol::Tcp), backends.service(None, &[]))]))?;
    let connections: Vec<Connection> =
        (0..FLOWS as u32).map(|n| backends.connection(vip(0), n)).collect();
    many::begin(&mut rig, &connections)?;
    ageing(report, &mut rig, &connections)
}

/// Whole scans: three where nothing is idle, and one each that finds some idle.
fn ageing(report: &mut Report, rig: &mut Rig, connections: &[Connection]) -> Result<()> {
    let (mut quiet, mut ending, mut call) =
        (Series::default(), Series::default(), Series::default());
    for _ in 0..3 {
        let scan = scan(rig)?;
        ensure!(scan.scanned >= 2 * FLOWS, "only {} entries were looked at", scan.scanned);
        ensure!(scan.removed == 0, "{} live flows were removed", scan.removed);
        quiet.push(scan.cpu);
        call.push(scan.longest);
    }
    for idle in connections.chunks(IDLE).take(3) {
        silence(rig, idle)?;
        let scan = scan(rig)?;
        ensure!(scan.removed == IDLE, "{} of {IDLE} idle flows were removed", scan.removed);
        ending.push(scan.cpu - quiet.median());
    }
    report.bound("D8 ageing, CPU of a scan over 1 M flows", "s", &quiet, 1.2);
    report.bound("D8 ageing, CPU of expiring 100 k, above the scan", "s", &ending, 0.5);
    let name = "D8 the longest call of a scan (wall clock)";
    report.bound(name, "ms", &call, 1.0);
    Ok(())
}

pub(crate) struct Scan {
    pub(crate) scanned: usize,
    pub(crate) removed: usize,
    /// Seconds of this thread's CPU time.
    pub(crate) cpu: f64,
    /// Milliseconds of the longest call.
    longest: f64,
}

impl Scan {
    fn timed<R>(&mut self, call: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = call();
        self.longest = self.longest.max(start.elapsed().as_secs_f64() * 1e3);
        result
    }
}

/// As the daemon does it: some parts of the table are marked, a grace period is waited for once, and they are swept.
pub(crate) fn scan(rig: &mut Rig) -> Result<Scan> {
    let start = cpu()?;
    let mut scan = Scan { scanned: 0, removed: 0, cpu: 0.0, longest: 0.0 };
    loop {
        let mut parts = Vec::new();
        while parts.len() < PARTS && !parts.last().is_some_and(AgePart::is_last) {
            let part = scan.timed(|| rig.dataplane.begin_age())?;
            parts.push(part);
        }
        if parts.iter().any(AgePart::waits) {
            grace_period()?;
        }
        for part in parts {
            let aged = scan.timed(|| rig.dataplane.end_age(part, Ok(())));
            aged.failed.map_or(Ok(()), Err)?;
            scan.scanned += aged.scanned as usize;
            scan.removed += aged.removed as usize;
            if aged.wrapped {
                scan.cpu = cpu()? - start;
                return Ok(scan);
            }
        }
    }
}

/// Makes flows look as if they had been silent for long, both ways.
fn silence(rig: &mut Rig, connections: &[Connection]) -> Result<()> {
    const TICKS: u32 = 1_000_000;
    connections.iter().flat_map(fresh::ways).try_for_each(|way| rig.silence(&way, TICKS))
}

/// Seconds of CPU time that this thread has had.
fn cpu() -> Result<f64> {
    let line = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = line.split(' ').next().context("schedstat is empty")?;
    Ok(nanoseconds.parse::<f64>()? / 1e9)
}
