//! The project's own commands: `cargo xtask demo`, `test`, `lab`, `bench`, `fuzz`, `sim`, `tidy`, `setup`.

#![forbid(unsafe_code)]

mod bench;
mod fuzz;
mod lab;
mod preflight;
mod setup;
mod shell;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "lbd's own commands", long_about = None)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring up the topology calico-hello, create a VIP, drive traffic through it and show what happened
    Demo {
        /// Leave the lab up afterwards; `cargo xtask lab down` takes it away
        #[arg(long)]
        keep: bool,
    },
    /// Run everything: format, clippy, docs, tidy, licences, unit and packet tests, scenarios
    Test {
        /// Run only tests whose crate or name contains this: `api`, `bgp`, `dataplane`, `lab`, a test's name
        filter: Option<String>,
        /// Repeat storms and the like as often as they are meant to hold, not only a few times
        #[arg(long)]
        long: bool,
    },
    /// Bring a topology up, list what is up, take it down
    #[command(subcommand)]
    Lab(lab::Lab),
    /// Measure, beside peers in the same run, and write target/bench/SUITE.json
    Bench {
        /// What to measure
        suite: bench::Suite,
        /// With `bgp`: the daemon alone, from a full table's last UPDATE to its last route in the eBPF FIB
        #[arg(long)]
        fib: bool,
    },
    /// Feed the fuzz targets for some time
    Fuzz(fuzz::Fuzz),
    /// Run networks of speakers in virtual time, with losses, partitions and restarts, against a reference
    Sim(fuzz::Sim),
    /// Check the layering of the crates and the conventions of the code
    Tidy,
    /// Install what building, testing and the lab need and this machine lacks
    Setup,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One sentence, whatever RUST_BACKTRACE says: what is missing is not a bug of this program.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Demo { keep } => lab::demo(keep),
        Command::Test { filter, long } => test::run(filter.as_deref(), long),
        Command::Lab(command) => lab::run(&command),
        Command::Bench { suite, fib } => bench::run(suite, fib),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Sim(arguments) => fuzz::sim(&arguments),
        Command::Tidy => tidy::run(),
        Command::Setup => setup::run(setup::EVERYTHING),
    }
}
