//! Four million flows in one table, as many as it has room for.

use std::time::Instant;

use anyhow::{Result, ensure};
use lb_dataplane::Sizes;
use lb_dataplane::table::Protocol;

use crate::kinds::{Kind, Side};
use crate::order::Order;
use crate::report::{Report, Series};
use crate::rig::Rig;
use crate::traffic::{Backends, key, shuffle, table, vip};
use crate::{ageing, many, say};

const FLOWS: u32 = 4_000_000;
/// The next power of two above two entries a flow.
const ENTRIES: u32 = 1 << 23;
/// Flows that begin at a time: more at once would be in memory here, too.
const SOME: u32 = 500_000;
/// Flows of which packets come, from all over the table: more than any cache has.
const SEEN: usize = 1_000_000;
const ROUNDS: usize = 5;

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    say("four million flows");
    let backends = Backends::new(100);
    let connections = |numbers: &[u32]| -> Vec<_> {
        numbers.iter().map(|n| backends.connection(vip(0), *n)).collect()
    };
    let mut numbers: Vec<u32> = (0..FLOWS).collect();
    let mut rig = Rig::new(Sizes { flow_entries: ENTRIES, ..Sizes::default() }, SEEN)?;
    rig.apply(&table([(key(vip(0), Protocol::Tcp), backends.service(None, &[]))]))?;
    let start = Instant::now();
    for some in numbers.chunks(SOME as usize) {
        many::begin(&mut rig, &connections(some))?;
    }
    let begun = start.elapsed().as_secs_f64();
    report.note("4 M flows: begun one after the other, packets made and checked", "s", begun);
    report.note("4 M flows: memory of all maps", "GB", rig.memory()? as f64 / 1e9);

    shuffle(&mut numbers);
    let order = connections(&numbers[..SEEN]);
    let (kind, sides) = (Kind::Dnat, &[Side::Client, Side::Backend][..]);
    let flows = FLOWS.to_string();
    let order = Order { kind, flows: &flows, order: &order, sides, rounds: ROUNDS, target: None };
    order.measure(report, &mut rig)?;

    let mut entries = Series::default();
    for _ in 0..3 {
        let scan = ageing::scan(&mut rig)?;
        ensure!(scan.scanned >= 2 * FLOWS as usize, "only {} entries", scan.scanned);
        ensure!(scan.removed == 0, "{} live flows were removed", scan.removed);
        entries.push(scan.cpu * 1e9 / scan.scanned as f64);
    }
    report.note("4 M flows: ageing, CPU for an entry", "ns", entries.median());
    Ok(())
}
