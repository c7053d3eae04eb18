//! `cargo xtask demo` and `cargo xtask lab`: build, then hand over to the lab runner of `integration`.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::Result;
use clap::Subcommand;

use crate::preflight;
use crate::setup::{self, Need};
use crate::shell::{cargo, run as run_command, step, target_dir};

#[derive(Subcommand)]
pub(crate) enum Lab {
    /// Bring up a topology of `topologies/` in network namespaces and leave it up
    Up {
        /// Its name: `calico-hello`
        topology: String,
    },
    /// Take down what `up` or `demo --keep` left
    Down,
    /// List what is up
    List,
}

pub(crate) fn demo(keep: bool) -> Result<()> {
    prepare()?;
    let keep = keep.then_some("--keep");
    lab(["demo"].into_iter().chain(keep))
}

pub(crate) fn run(command: &Lab) -> Result<()> {
    match command {
        Lab::Up { topology } => {
            prepare()?;
            lab(["up", topology])
        }
        Lab::Down => {
            preflight::check()?;
            step("Building the lab runner", || {
                run_command(cargo().args([
                    "build",
                    "--quiet",
                    "--package",
                    "integration",
                    "--bins",
                ]))
            })?;
            lab(["down"])
        }
        Lab::List => {
            preflight::check()?;
            lab(["list"])
        }
    }
}

fn prepare() -> Result<()> {
    preflight::check()?;
    setup::ensure(&[Need::Build, Need::Lab])?;
    step("Building the daemon and the lab runner (some minutes the first time)", || {
        run_command(cargo().args([
            "build",
            "--package",
            "lb-api",
            "--package",
            "integration",
            "--bins",
        ]))
    })
}

fn lab<I: IntoIterator<Item = A>, A: AsRef<OsStr>>(arguments: I) -> Result<()> {
    let programs = target_dir().join("debug");
    let mut command = Command::new(programs.join("lab"));
    command
        .args(arguments)
        .env("LBD_BIN", programs.join("lbd"))
        .env("LBCTL_BIN", programs.join("lbctl"));
    run_command(&mut command)
}
