//! The dataplane's packets, by test runs of the real programs with the real tables (targets D1 to D8).
//!
//! Every packet's end is checked against what it should be, by the dataplane's own counters. What it costs to put a packet
//! back before each repetition is measured in the same round and taken off. Whatever is compared takes turns within a
//! round, so that a change of the machine's speed meets all of it.
//!
//! `cargo bench -p lb-dataplane --bench dataplane -- hot D1` measures one part, and of it what is called so.

mod ageing;
mod bounds;
mod first;
mod frames;
mod fresh;
mod full;
mod hot;
mod kinds;
mod lists;
mod many;
mod order;
#[path = "../fib/report.rs"]
mod report;
mod rig;
mod services;
mod tables;
mod traffic;

use anyhow::{Context, Result};
use lb_dataplane::Sizes;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use self::report::{Report, Series};
use self::rig::Rig;

/// Rounds; the median counts.
const ROUNDS: usize = 11;

fn main() -> Result<()> {
    // `cargo test --benches` and `cargo bench -- --list` only ask whether it is there.
    if std::env::args().any(|argument| argument == "--list" || argument == "--test") {
        return Ok(());
    }
    let mut words = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let (only, named) = (words.next(), words.next().unwrap_or_default());
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    stay_on_one_cpu().context("cannot stay on one CPU")?;
    let mut report = Report::new("dataplane");
    if wanted("hot") {
        hot::measure(&mut report, &named)?;
    }
    if wanted("new") {
        hot::measure_new(&mut report)?;
        first::measure(&mut report)?;
    }
    if wanted("lists") {
        lists::measure(&mut report)?;
    }
    if wanted("many") {
        many::measure(&mut report)?;
    }
    if wanted("ageing") {
        ageing::measure(&mut report)?;
    }
    if wanted("full") {
        full::measure(&mut report)?;
    }
    if wanted("services") {
        services::measure(&mut report)?;
    }
    if wanted("memory") {
        memory(&mut report)?;
    }
    println!("\nnot measured: D7 from the REST API on");
    report.write()
}

/// Per-CPU counters and rings are then always the same ones.
fn stay_on_one_cpu() -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(0)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cpus)?)
}

/// What a larger flow table costs in kernel memory, whichever maps grow with it.
fn memory(report: &mut Report) -> Result<()> {
    let bytes = |sizes| -> Result<u64> { Rig::new(sizes, 1)?.memory() };
    let (small, large) = (1 << 18, 1 << 21);
    let v4 = |flow_entries| Sizes { flow_entries, ..Sizes::default() };
    let v6 = |flow_entries6| Sizes { flow_entries6, ..Sizes::default() };
    let of_a_flow = |more: u64| more as f64 / f64::from((large - small) / 2);
    let mut series = Series::default();
    series.push(of_a_flow(bytes(v4(large))? - bytes(v4(small))?));
    report.bound("D6 memory per flow, both directions", "B", &series, 300.0);
    let v6 = of_a_flow(bytes(v6(large))? - bytes(v6(small))?);
    report.note("memory per IPv6 flow, both directions", "B", v6);
    Ok(())
}

fn say(what: &str) {
    eprintln!("==> {what}");
}
