//! `cargo xtask bench`: each suite writes `target/bench/SUITE.json` and prints the same as a table.

use std::process::Command;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::preflight;
use crate::setup::{self, Need};
use crate::shell::{cargo, run as run_command, step, target_dir};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// The eBPF FIB beside LPM_TRIE and the kernel's own lookup, a million routes
    Fib,
    /// The dataplane's packets beside a bare lookup in its flow table: established, new, a million flows, ageing
    Dataplane,
    /// The speaker beside BIRD, FRR and GoBGP: full tables of real prefixes, feeders lost, hundreds of neighbours
    Bgp,
    /// Forwarding through namespaces: lbd's FIB beside the kernel's, on TC and on XDP
    Route,
    /// Traffic through namespaces: lbd beside plain routing, nftables' DNAT and HAProxy
    Traffic,
    /// Changes of the configuration, from the API to the maps, with ten thousand VIPs
    Config,
}

pub(crate) fn run(suite: Suite, fib: bool) -> Result<()> {
    ensure!(!fib || suite == Suite::Bgp, "--fib is a part of the suite bgp: say `bench bgp --fib`");
    preflight::check()?;
    let mut needs = vec![Need::Build, Need::Lab];
    if suite == Suite::Traffic {
        needs.push(Need::Peers);
    }
    setup::ensure(&needs)?;
    match suite {
        Suite::Fib => run_command(&mut bench("lb-dataplane", "fib")),
        Suite::Dataplane => run_command(&mut bench("lb-dataplane", "dataplane")),
        Suite::Bgp => {
            step("Fetching the prefixes of a real routing table", || {
                let manifest = "lb-routing/benches/bgp/data/Cargo.toml";
                run_command(cargo().args(["fetch", "--locked", "--manifest-path", manifest]))
            })?;
            let mut bench = bench("lb-routing", "bgp");
            if fib {
                daemon()?;
                bench.args(["--", "--fib"]);
                bench.env("LBD_BIN", target_dir().join("release/lbd"));
            }
            run_command(&mut bench)
        }
        Suite::Traffic | Suite::Config | Suite::Route => {
            let name = match suite {
                Suite::Config => "config",
                Suite::Route => "route",
                Suite::Traffic | Suite::Fib | Suite::Dataplane | Suite::Bgp => "traffic",
            };
            daemon()?;
            let programs = target_dir().join("release");
            run_command(
                bench("integration", name)
                    .env("LBD_BIN", programs.join("lbd"))
                    .env("LBCTL_BIN", programs.join("lbctl")),
            )
        }
    }
}

fn daemon() -> Result<()> {
    step("Building the daemon (some minutes the first time)", || {
        run_command(cargo().args(["build", "--release", "--package", "lb-api", "--bins"]))
    })
}

fn bench(package: &str, name: &str) -> Command {
    let mut command = cargo();
    command.args(["bench", "--package", package, "--bench", name]);
    command
}
