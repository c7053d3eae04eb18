//! `cargo xtask fuzz`: fuzz targets for some time, over the corpus that is kept, and `cargo xtask sim`: many
//! networks of speakers, each from a seed.

use std::fs;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::preflight;
use crate::setup::{self, Need};
use crate::shell::{cargo, root, run as run_command, step, target_dir};

/// Octets of an input at most: a message and what belongs to it, or some hundred packets.
const MAX_INPUT: &str = "4200";

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subject {
    /// The BGP speaker: its codec, and its sessions
    Bgp,
    /// The packet path: packets, changes of the table and time, beside a plain flow table
    Dataplane,
}

impl Subject {
    /// Where its targets and their corpus lie, and which they are.
    fn targets(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Bgp => ("lb-routing/fuzz", &["codec", "session"]),
            Self::Dataplane => ("lb-dataplane/fuzz", &["dataplane"]),
        }
    }
}

#[derive(Args)]
pub(crate) struct Fuzz {
    /// What to fuzz
    subject: Subject,
    /// Seconds for each target
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Add what this run finds to the kept corpus, as few inputs as cover the same
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(arguments: &Fuzz) -> Result<()> {
    preflight::check()?;
    setup::ensure(&[Need::Fuzz])?;
    let (folder, targets) = arguments.subject.targets();
    for target in targets {
        step(&format!("Fuzzing {target} for {} s", arguments.seconds), || {
            fuzz(folder, target, arguments.seconds)
        })?;
        if arguments.keep {
            step(&format!("Keeping what {target} found"), || keep(folder, target))?;
        }
    }
    eprintln!("Nothing was found.");
    Ok(())
}

fn fuzz(folder: &str, target: &str, seconds: u32) -> Result<()> {
    let found = target_dir().join("fuzz/corpus").join(target);
    fs::create_dir_all(&found)?;
    let limits = [
        format!("-max_total_time={seconds}"),
        format!("-max_len={MAX_INPUT}"),
        "-timeout=10".into(),
        "-rss_limit_mb=2048".into(),
        "-print_final_stats=1".into(),
    ];
    // New inputs go into the first folder; what is kept is only read.
    run_command(
        cargo_fuzz(folder, "run")
            .arg(target)
            .arg(&found)
            .arg(root().join(folder).join("corpus").join(target))
            .arg("--")
            .args(limits),
    )
}

fn keep(folder: &str, target: &str) -> Result<()> {
    let kept = root().join(folder).join("corpus").join(target);
    let found = target_dir().join("fuzz/corpus").join(target);
    run_command(cargo_fuzz(folder, "run").arg(target).arg(kept).arg(found).args(["--", "-merge=1"]))
}

/// The crates have no unsafe code, so no sanitizer is asked for; and without one, this toolchain's compiler serves.
fn cargo_fuzz(folder: &str, what: &str) -> std::process::Command {
    let mut command = cargo();
    command
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["fuzz", what, "--fuzz-dir", folder, "--sanitizer", "none"])
        .arg("--target-dir")
        .arg(target_dir().join("fuzz"));
    command
}

#[derive(Args)]
pub(crate) struct Sim {
    /// How many networks, seeded 0 to this less one
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Only the network of this seed, as a failure named it
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
}

pub(crate) fn sim(arguments: &Sim) -> Result<()> {
    let mut command = cargo();
    command.args(["test", "--release", "--package", "lb-routing-proto", "--lib", "--"]).args([
        "--exact",
        "--nocapture",
        "sim::every_speaker_knows_what_the_reference_says_once_faults_stop",
    ]);
    match arguments.seed {
        Some(seed) => command.env("LBD_SIM_SEED", seed.to_string()),
        None => command.env("LBD_SIM_SEEDS", arguments.seeds.to_string()),
    };
    if run_command(&mut command).is_err() {
        bail!(
            "the simulation failed; `cargo xtask sim --seed N`, with a seed named above, tells it again"
        );
    }
    Ok(())
}
