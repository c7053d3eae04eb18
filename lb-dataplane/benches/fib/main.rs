//! The FIB with ten to a million routes of either family, in the kernel, beside `LPM_TRIE` and the kernel's own lookup with
//! the same routes.
//!
//! Every lookup goes from a destination to the interface and both MACs, and every answer is compared with a naive reference.
//! What the loop around a lookup costs is measured by a program that does nothing in it, in the same round, and taken off.
//! Peers take turns within a round, so that a change of the machine's speed meets all of them.

mod churn;
mod four;
mod network;
mod programs;
mod report;
mod routes;
mod six;
mod whole;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use self::network::Network;
use self::report::Report;

/// Rounds of lookups where a target is; the median counts.
const ROUNDS: usize = 11;
/// The same elsewhere.
const FEWER_ROUNDS: usize = 5;
/// Rounds of filling; `LPM_TRIE` takes seconds for each.
const FILL_ROUNDS: usize = 5;

fn main() -> Result<()> {
    // `cargo test --benches` and `cargo bench -- --list` only ask whether it is there.
    if std::env::args().any(|argument| argument == "--list" || argument == "--test") {
        return Ok(());
    }
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    let network = Network::new().context("cannot make the network namespace")?;
    let mut report = Report::new("fib");
    if wanted("four") {
        four::measure(&network, &mut report)?;
    }
    if wanted("churn") {
        churn::measure(&network, &mut report)?;
    }
    if wanted("six") {
        six::measure(&network, &mut report)?;
    }
    if wanted("whole") {
        whole::measure(&network, &mut report)?;
    }
    report.write()
}

/// A number of routes in words.
fn count(routes: usize) -> String {
    match routes {
        1_000_000.. => format!("{} M", routes / 1_000_000),
        1000.. => format!("{} k", routes / 1000),
        _ => routes.to_string(),
    }
}

fn seconds(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    let elapsed: Duration = start.elapsed();
    Ok(elapsed.as_secs_f64())
}

fn say(what: &str) {
    eprintln!("==> {what}");
}
