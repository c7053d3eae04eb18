//! Removing idle flows: a part of the table per call, candidates by a look from here, the decision in the kernel.

use std::io;

use aya::Ebpf;
use aya::maps::Array;
use aya::programs::{TestRun, TestRunOptions, Xdp};
use lb_dataplane_common::age::{MAX_KEYS, PASS_AT, Pass};
use lb_dataplane_common::family::{V4, V6};
use lb_dataplane_common::flow::{FlowKey, STATE_EXPIRING, Timeouts, UDP, ticks_since};

use super::flows::Table;
use super::{Aged, flows};
use crate::error::{ApplyError, ReadError};
use crate::plan::Served;
use crate::pod::Raw;
use crate::sys::{self, Cursor};

/// Entries that a call looks at, at most.
pub const AGE_BATCH: usize = 8192;

/// Where the walk over the tables stands, and what it goes by.
#[derive(Debug)]
pub(super) struct Scan {
    cursor: Cursor,
    /// Whether it is in IPv6's table, which comes after IPv4's.
    is_v6: bool,
    timeouts: Timeouts,
}

impl Scan {
    pub(super) fn new(timeouts: Timeouts) -> Self {
        Self { cursor: Cursor::default(), is_v6: false, timeouts }
    }
}

/// Tells the ageing program how long flows may be silent.
pub(super) fn set_timeouts(ebpf: &mut Ebpf, timeouts: &Timeouts) -> Result<(), ApplyError> {
    let failed = |source| ApplyError::Map { map: "TIMEOUTS", source };
    let map = ebpf.map_mut("TIMEOUTS").expect("the object holds this map");
    let mut map: Array<_, Raw<Timeouts>> = map.try_into().map_err(failed)?;
    map.set(0, Raw(*timeouts), 0).map_err(failed)
}

pub(super) fn age(ebpf: &mut Ebpf, served: &Served, scan: &mut Scan) -> Result<Aged, ReadError> {
    let mut aged =
        if scan.is_v6 { step::<V6>(ebpf, served, scan)? } else { step::<V4>(ebpf, served, scan)? };
    if aged.wrapped {
        aged.wrapped = scan.is_v6;
        scan.is_v6 = !scan.is_v6;
        scan.cursor = Cursor::default();
    }
    Ok(aged)
}

fn step<A: Table>(ebpf: &Ebpf, served: &Served, scan: &mut Scan) -> Result<Aged, ReadError> {
    let (entries, wrapped) = flows::read::<A>(ebpf, &mut scan.cursor, AGE_BATCH)?;
    let now = sys::tick();
    let candidates: Vec<FlowKey<A>> = entries
        .iter()
        .filter(|(key, entry)| {
            // A mark that is there already was left by a process that died between the passes: the second one is due.
            entry.state & STATE_EXPIRING != 0
                || ticks_since(entry.last_seen, now)
                    >= scan.timeouts.of(key.protocol(), entry.state)
                || key.protocol() == UDP && !served.is_well(entry.backend)
        })
        .map(|(key, _)| *key)
        .collect();
    let mut aged =
        Aged { scanned: u32::try_from(entries.len()).unwrap_or(u32::MAX), removed: 0, wrapped };
    let marked_before = entries.iter().any(|(_, entry)| entry.state & STATE_EXPIRING != 0);
    let marked = run(ebpf, Pass::Mark, &candidates)?;
    if marked == 0 && !marked_before {
        return Ok(aged);
    }
    sys::grace_period().map_err(|source| ReadError { map: A::MAP, source })?;
    aged.removed = run(ebpf, Pass::Sweep, &candidates)?;
    Ok(aged)
}

/// Runs a pass over the keys; how many it marked or removed.
fn run<A: Table>(ebpf: &Ebpf, pass: Pass, keys: &[FlowKey<A>]) -> Result<u32, ReadError> {
    let failed = |e| ReadError { map: A::MAP, source: io::Error::other(e) };
    let program: &Xdp =
        ebpf.program(A::AGE).expect("the object holds this program").try_into().map_err(failed)?;
    let mut done = 0;
    for chunk in keys.chunks(MAX_KEYS as usize) {
        let mut input = vec![0_u8; PASS_AT as usize];
        input.extend(pass.to_word().to_ne_bytes());
        input.extend(chunk.iter().flat_map(A::words).flat_map(u16::to_ne_bytes));
        let options = TestRunOptions { data_in: Some(&input), ..TestRunOptions::new() };
        done += program.test_run(options).map_err(failed)?.return_value;
    }
    Ok(done)
}
