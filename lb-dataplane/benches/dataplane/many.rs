//! From one flow to a million in one table, in random order (D2); new ones among them (D4); and their ageing (D8).

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lb_dataplane::table::Protocol;
use lb_dataplane::{Hook, Reason, Sizes};
use lb_dataplane_common::flow::FlowEntry;

use crate::frames::{ACK, Connection, Frame};
use crate::fresh::{self, handshake};
use crate::report::{Report, Series};
use crate::rig::{Rig, Target};
use crate::traffic::{Backends, key, shuffle, table, vip};
use crate::{ROUNDS, say};

const FLOWS: usize = 1_000_000;
/// Two entries a flow, and room for new ones.
const ENTRIES: u32 = 1 << 21;
/// Flows that go at once.
const IDLE: usize = 100_000;
/// Packets in one run, where there are fewer flows.
const REPEAT: usize = 200_000;
/// Rounds over a whole million.
const LONG_ROUNDS: usize = 7;
/// Connections that begin in one run.
const BATCH: usize = 100_000;

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    let sizes = Sizes { flow_entries: ENTRIES, ..Sizes::default() };
    let mut rig = Rig::new(sizes, FLOWS)?;
    let backends = Backends::new(100);
    rig.apply(&table([(key(vip(0), Protocol::Tcp), backends.service(None, &[]))]))?;
    let mut connections: Vec<Connection> = Vec::new();
    for flows in [1, 1000, 100_000, FLOWS] {
        say(&format!("{flows} flows in random order"));
        let numbers = connections.len() as u32..flows as u32;
        let new: Vec<Connection> = numbers.map(|n| backends.connection(vip(0), n)).collect();
        begin(&mut rig, &new)?;
        connections.extend(new);
        random_order(report, &mut rig, &connections)?;
    }
    let mut costs = fresh::Costs::default();
    for round in 1..=ROUNDS {
        say(&format!("new connections among a million flows, round {round} of {ROUNDS}"));
        for hook in [Hook::Tc, Hook::Xdp] {
            costs.round(&mut rig, hook, &backends, vip(0))?;
        }
    }
    costs.tell(report, "among 1 M flows");
    ageing(report, &mut rig, &connections)
}

fn begin(rig: &mut Rig, connections: &[Connection]) -> Result<()> {
    for some in connections.chunks(BATCH) {
        rig.load(some.iter().flat_map(handshake));
        let ends =
            [(Reason::ForwardedToBackend, 2 * some.len()), (Reason::ForwardedToClient, some.len())];
        rig.expect(Hook::Tc, 1, &ends)?;
    }
    Ok(())
}

/// A packet of each flow in turn, in random order, to the backend and back, beside a bare lookup of the same packets.
fn random_order(report: &mut Report, rig: &mut Rig, connections: &[Connection]) -> Result<()> {
    let flows = connections.len();
    let mut order: Vec<&Connection> = connections.iter().collect();
    shuffle(&mut order);
    let there: Vec<Frame> = order.iter().map(|c| c.there(ACK)).collect();
    let back: Vec<Frame> = order.iter().map(|c| c.back(ACK)).collect();
    let times = REPEAT.div_ceil(flows);
    let ways =
        [(there, Reason::ForwardedToBackend, "to"), (back, Reason::ForwardedToClient, "from")];
    for (packets, ends, way) in &ways {
        rig.load(packets.iter().copied());
        for (hook, word) in [(Hook::Tc, "TC"), (Hook::Xdp, "XDP")] {
            let (mut cost, mut lookup) = (Series::default(), Series::default());
            for _ in 0..if flows == FLOWS { LONG_ROUNDS } else { ROUNDS } {
                let floor = rig.run(hook, Target::Nothing, times * flows)?;
                lookup.push(rig.run(hook, Target::Lookup, times * flows)? - floor);
                cost.push(rig.expect(hook, times, &[(*ends, flows)])? - floor);
            }
            let name = format!("D2 {flows} flows, {way} the backend, {word}");
            let against = "a bare lookup of the same packets";
            if flows == FLOWS {
                report.ratio((&name, against), "ns", &cost, &lookup, 1.6);
            } else {
                report.beside((&name, against), "ns", &cost, &lookup);
            }
        }
    }
    Ok(())
}

/// Whole scans: three where nothing is idle, and one each that finds some idle.
fn ageing(report: &mut Report, rig: &mut Rig, connections: &[Connection]) -> Result<()> {
    say("ageing");
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

struct Scan {
    scanned: usize,
    removed: usize,
    /// Seconds of this thread's CPU time.
    cpu: f64,
    /// Milliseconds of the longest call.
    longest: f64,
}

fn scan(rig: &mut Rig) -> Result<Scan> {
    let start = cpu()?;
    let mut scan = Scan { scanned: 0, removed: 0, cpu: 0.0, longest: 0.0 };
    loop {
        let call = Instant::now();
        let aged = rig.dataplane.age()?;
        scan.longest = scan.longest.max(call.elapsed().as_secs_f64() * 1e3);
        scan.scanned += aged.scanned as usize;
        scan.removed += aged.removed as usize;
        if aged.wrapped {
            scan.cpu = cpu()? - start;
            return Ok(scan);
        }
    }
}

/// Makes flows look as if they had been silent for long, both ways.
fn silence(rig: &mut Rig, connections: &[Connection]) -> Result<()> {
    const LAST_SEEN: usize = std::mem::offset_of!(FlowEntry, last_seen);
    const TICKS: u32 = 1_000_000;
    let mut flows = rig.flows()?;
    for key in connections.iter().flat_map(fresh::keys) {
        let mut value = flows.get(&key, 0)?;
        let bytes: &mut [u8; 4] = (&mut value[LAST_SEEN..LAST_SEEN + 4]).try_into()?;
        *bytes = u32::from_ne_bytes(*bytes).wrapping_sub(TICKS).to_ne_bytes();
        flows.insert(key, value, 0)?;
    }
    Ok(())
}

/// Seconds of CPU time that this thread has had.
fn cpu() -> Result<f64> {
    let line = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = line.split(' ').next().context("schedstat is empty")?;
    Ok(nanoseconds.parse::<f64>()? / 1e9)
}
