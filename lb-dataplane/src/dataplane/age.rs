//! Removing flows that are over: a part of the table per call, candidates by a look from here, the decision in the kernel.

use std::io;

use aya::Ebpf;
use aya::maps::Array;
use aya::programs::{TestRun, TestRunOptions, Xdp};
use lb_dataplane_common::age::{KEYS_AT, MAX_KEYS, PASS_AT, Pass, Reset};
use lb_dataplane_common::family::{V4, V6};
use lb_dataplane_common::flow::{
    DIRECTION_TO_BACKEND, FlowKey, STATE_EXPIRING, Timeouts, counts_though_closed, may_be_over,
    ticks_since,
};

use super::Options;
use super::flows::{Table, end as end_of};
use super::memory::Memory;
use super::programs::Programs;
use crate::error::{ApplyError, ReadError};
use crate::flow_table::{Cursor, Entry};
use crate::icmp::Answer;
use crate::plan::Served;
use crate::pod::Raw;
use crate::reset::reset;
use crate::sys;

/// Entries that a call looks at, at most, since others wait meanwhile: 15 µs' work where a scan of two million takes 0.06 s, and there
/// 2 µs more for each flow that ends.
pub const AGE_BATCH: usize = 512;

/// Where the walk over the tables stands, and what it goes by.
#[derive(Debug)]
pub(super) struct Scan {
    cursor: Cursor,
    /// Whether it is in IPv6's table, which comes after IPv4's.
    is_v6: bool,
    /// What the configuration says.
    asked: Timeouts,
    /// What holds while the tables are as full as they are.
    timeouts: Timeouts,
    /// Entries that the tables have room for.
    room: [u64; 2],
    /// Entries that this walk has seen in the table that it is in.
    seen: u64,
    /// Those of each table that the last whole walk has seen.
    taken: [u64; 2],
}

impl Scan {
    pub(super) fn new(options: &Options) -> Self {
        let sizes = &options.sizes;
        Self {
            cursor: Cursor::default(),
            is_v6: false,
            asked: options.timeouts,
            timeouts: options.timeouts,
            room: [sizes.flow_entries, sizes.flow_entries6].map(u64::from),
            seen: 0,
            taken: [0; 2],
        }
    }

    /// So many more are seen, and the walk over a table is over or not: what holds from now on. A walk that sees more than the
    /// last one does not wait for its end, which is later the more there are.
    fn note_seen(&mut self, more: u32, is_end: bool) -> Timeouts {
        let at = usize::from(self.is_v6);
        self.seen += u64::from(more);
        let mut taken = self.taken;
        taken[at] = taken[at].max(self.seen);
        if is_end {
            self.taken[at] = std::mem::take(&mut self.seen);
            taken = self.taken;
        }
        let [v4, v6] = [0, 1].map(|at| self.asked.with_taken(taken[at], self.room[at]));
        Timeouts { tcp_closed: v4.tcp_closed.min(v6.tcp_closed), ..self.asked }
    }
}

fn cannot_write(error: ApplyError) -> ReadError {
    ReadError { map: "TIMEOUTS", source: io::Error::other(error) }
}

/// Tells the ageing program how long flows may be silent.
pub(super) fn set_timeouts(ebpf: &mut Ebpf, timeouts: &Timeouts) -> Result<(), ApplyError> {
    let failed = |source| ApplyError::Map { map: "TIMEOUTS", source };
    let map = ebpf.map_mut("TIMEOUTS").expect("the object holds this map");
    let mut map: Array<_, Raw<Timeouts>> = map.try_into().map_err(failed)?;
    map.set(0, Raw(*timeouts), 0).map_err(failed)
}

/// What a call of `age` did.
#[derive(Debug, Default)]
pub struct Aged {
    /// Entries looked at.
    pub scanned: u32,
    /// Flows removed, both directions each.
    pub removed: u32,
    /// Whether the scan reached the end of the table and begins anew with the next call.
    pub wrapped: bool,
    /// What the sides of removed flows are to hear: two RSTs a flow, at most.
    pub resets: Vec<Answer>,
    /// Why not all that was over could be removed, if so. What is left is due in a later scan.
    pub failed: Option<ReadError>,
}

/// A part of the table in which flows that are over are marked. They are removed once a grace period is over: by then no packet
/// is on its way that had found them before.
#[derive(Debug)]
#[must_use]
pub struct AgePart {
    aged: Aged,
    due: Due,
}

#[derive(Debug)]
enum Due {
    Nothing,
    V4(Vec<Entry<V4>>),
    V6(Vec<Entry<V6>>),
}

impl AgePart {
    /// Whether anything is to be removed.
    #[must_use]
    pub fn waits(&self) -> bool {
        !matches!(self.due, Due::Nothing)
    }

    /// Whether it is the last part of the table: the next one is the first again.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.aged.wrapped
    }
}

pub(super) fn begin(
    ebpf: &mut Ebpf,
    programs: &Programs,
    (served, memory): (&Served, &Memory),
    scan: &mut Scan,
) -> Result<AgePart, ReadError> {
    let mut part = if scan.is_v6 {
        let (aged, due) = mark::<V6>(programs, (served, memory), scan)?;
        AgePart { aged, due: due.map_or(Due::Nothing, Due::V6) }
    } else {
        let (aged, due) = mark::<V4>(programs, (served, memory), scan)?;
        AgePart { aged, due: due.map_or(Due::Nothing, Due::V4) }
    };
    let timeouts = scan.note_seen(part.aged.scanned, part.aged.wrapped);
    if part.aged.wrapped {
        part.aged.wrapped = scan.is_v6;
        scan.is_v6 = !scan.is_v6;
        scan.cursor = Cursor::default();
    }
    if timeouts != scan.timeouts {
        set_timeouts(ebpf, &timeouts).map_err(cannot_write)?;
        scan.timeouts = timeouts;
    }
    Ok(part)
}

/// Removes what is marked; `over` says whether there was a grace period.
pub(super) fn end(programs: &Programs, part: AgePart, over: io::Result<()>) -> Aged {
    let AgePart { mut aged, due } = part;
    let swept = match due {
        Due::Nothing => Ok(()),
        Due::V4(entries) => sweep(programs, &entries, over, &mut aged),
        Due::V6(entries) => sweep(programs, &entries, over, &mut aged),
    };
    aged.failed = swept.err();
    aged
}

fn sweep<A: Table>(
    programs: &Programs,
    entries: &[Entry<A>],
    over: io::Result<()>,
    aged: &mut Aged,
) -> Result<(), ReadError> {
    over.map_err(|source| ReadError { map: A::MAP, source })?;
    run(programs, Pass::Sweep, entries, &mut aged.removed, &mut aged.resets)
}

/// What a part is like, and what of it is to be removed.
type Marked<A> = (Aged, Option<Vec<Entry<A>>>);

/// Marks the flows of a part that are over.
fn mark<A: Table>(
    programs: &Programs,
    (served, memory): (&Served, &Memory),
    scan: &mut Scan,
) -> Result<Marked<A>, ReadError> {
    // A bucket has fewer entries than that.
    let part = A::table(memory).read(&mut scan.cursor, AGE_BATCH);
    let (entries, wrapped) = part.unwrap_or_default();
    let now = sys::tick();
    // What was seen amid a change names no line: the ageing program looks again.
    let life = |line| memory.backend_of(line).map(|id| served.life(id)).unwrap_or_default();
    let is_candidate = |(key, entry): &&Entry<A>| {
        let (protocol, life) = (key.protocol(), life(entry.line));
        // A mark that is there already was left by a process that died between the passes: the second one is due.
        entry.state & STATE_EXPIRING != 0
            || ticks_since(entry.last_seen, now)
                >= scan.timeouts.of_service(protocol, entry.state, life.idle)
            || life.ends(protocol)
            || entry.direction == DIRECTION_TO_BACKEND
                && (counts_though_closed(protocol, entry.state)
                    || may_be_over(entry.state)
                        && ticks_since(entry.last_seen, now) >= scan.timeouts.doubtful())
    };
    let candidates: Vec<Entry<A>> = entries.iter().filter(is_candidate).copied().collect();
    let scanned = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    let mut aged = Aged { scanned, wrapped, ..Aged::default() };
    let marked_before = entries.iter().any(|(_, entry)| entry.state & STATE_EXPIRING != 0);
    let mut marked = 0;
    run(programs, Pass::Mark, &candidates, &mut marked, &mut aged.resets)?;
    Ok((aged, (marked > 0 || marked_before).then_some(candidates)))
}

/// Runs a pass over the entries; adds how many it marked or removed, and the RSTs that are due, also where it does not come
/// to the end.
fn run<A: Table>(
    programs: &Programs,
    pass: Pass,
    entries: &[Entry<A>],
    done: &mut u32,
    resets: &mut Vec<Answer>,
) -> Result<(), ReadError> {
    let failed = |e| ReadError { map: A::MAP, source: io::Error::other(e) };
    let program = programs.loaded(A::AGE).expect("loaded when the dataplane was opened");
    let program: &Xdp = program.try_into().map_err(failed)?;
    for chunk in entries.chunks(MAX_KEYS as usize) {
        let mut input = vec![0_u8; PASS_AT as usize];
        input.extend(pass.to_word().to_ne_bytes());
        input.extend(chunk.iter().flat_map(|(key, _)| A::words(key)).flat_map(u16::to_ne_bytes));
        let mut output = vec![0; input.len()];
        let options = TestRunOptions {
            data_in: Some(&input),
            data_out: Some(&mut output),
            ..TestRunOptions::new()
        };
        *done += program.test_run(options).map_err(failed)?.return_value;
        let places = output[KEYS_AT as usize..].chunks_exact(size_of::<FlowKey<A>>());
        for (entry, place) in chunk.iter().zip(places) {
            resets.extend(place.first_chunk().into_iter().flat_map(|said| resets_of(entry, *said)));
        }
    }
    Ok(())
}

/// The RSTs to both sides of a flow, if the ageing program says so in place of its key.
fn resets_of<A: Table>((key, entry): &Entry<A>, said: [u8; 12]) -> Vec<Answer> {
    let Reset { is_due, to_client, to_backend } = Reset::from_bytes(said);
    if is_due == 0 {
        return Vec::new();
    }
    let after = entry.translation.key_after(key.protocol);
    let key = key.to_v6();
    let (towards, back) = if entry.direction == DIRECTION_TO_BACKEND {
        (key, after)
    } else {
        (after.reversed(), key.reversed())
    };
    let (client, vip) = (
        end_of(towards.source, towards.source_port),
        end_of(towards.destination, towards.destination_port),
    );
    let (source, backend) =
        (end_of(back.source, back.source_port), end_of(back.destination, back.destination_port));
    [reset(vip, client, to_client), reset(source, backend, to_backend)]
        .into_iter()
        .flatten()
        .collect()
}
