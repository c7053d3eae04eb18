//! The command that drives the daemon.

use std::process::ExitCode;

use clap::Parser;
use lb_api::ctl::{self, Arguments};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("lbctl cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(ctl::run(arguments))
}
