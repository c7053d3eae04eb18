//! The Internet's table as it will be in some years, in the memory that the daemon has by default.

use std::fs;

use anyhow::{Context as _, Result};
use lb_dataplane::Sizes;

use crate::network::Network;
use crate::programs::{Programs, bytes};
use crate::report::Report;
use crate::{routes, say, seconds, six};

const FOUR: usize = 1_200_000;
const SIX: usize = 300_000;
const MIB: f64 = (1 << 20) as f64;

pub(crate) fn measure(network: &Network, report: &mut Report) -> Result<()> {
    say("1.2 M IPv4 and 300 k IPv6 routes in the memory that there is by default");
    let (four, sixes) = (routes::internet(FOUR), six::random_routes(SIX));
    let sizes = Sizes::default();
    let mut programs = Programs::load_sized(network, &sizes)?;
    let before = own_memory()?;
    let fill = seconds(|| programs.fill_fib(&four))?;
    report.note("filling 1.2 M IPv4 routes, default sizes", "s", fill);
    let fill = seconds(|| six::fill_fib(&mut programs, &sixes))?;
    report.note("filling 300 k IPv6 routes, default sizes", "s", fill);
    let usage = programs.fib.usage();
    report.note("maps of the FIB, default sizes", "MiB", bytes(&sizes) as f64 / MIB);
    for (what, (used, all)) in
        [("IPv4's second level", usage.chunk_bytes), ("IPv6's nodes", usage.node_bytes)]
    {
        report.note(&format!("{what}: in use"), "MiB", used as f64 / MIB);
        report.note(&format!("{what}: there are"), "MiB", all as f64 / MIB);
    }
    report.note("the writer's own memory for them", "MiB", (own_memory()? - before) / MIB);
    Ok(())
}

/// Bytes of this process that are in no file and no map.
fn own_memory() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("no RssAnon")?;
    Ok(kib.parse::<f64>()? * 1024.0)
}
