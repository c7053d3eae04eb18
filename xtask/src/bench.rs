//! `cargo xtask bench`: each suite writes `target/bench/SUITE.json` and prints the same as a table.

use anyhow::Result;
use clap::ValueEnum;

use crate::preflight;
use crate::setup::{self, Need};
use crate::shell::{cargo, run as run_command};

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Suite {
    /// The eBPF FIB beside LPM_TRIE and the kernel's own lookup, a million routes
    Fib,
    /// The dataplane's packets beside a bare lookup in its flow table: established, new, a million flows, ageing
    Dataplane,
}

pub(crate) fn run(suite: Suite) -> Result<()> {
    preflight::check()?;
    setup::ensure(&[Need::Build, Need::Lab])?;
    match suite {
        Suite::Fib => {
            run_command(cargo().args(["bench", "--package", "lb-dataplane", "--bench", "fib"]))
        }
        Suite::Dataplane => run_command(cargo().args([
            "bench",
            "--package",
            "lb-dataplane",
            "--bench",
            "dataplane",
        ])),
    }
}
