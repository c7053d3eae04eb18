//! The daemon's command line.

use std::ffi::OsString;
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use lb_api::config::{self, ConfigError};
use lb_api::daemon;
use lb_api_types::config::Config;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tikv_jemallocator::Jemalloc;
use tracing_subscriber::EnvFilter;

/// What a change of everything takes for a moment goes back to the host soon after: glibc's own allocator keeps three times as
/// much as is in use.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Read where no file is named, if it is there.
const DEFAULT_FILE: &str = "/etc/lbd/lbd.yaml";

/// A BGP-speaking router and stateful layer-4 load balancer.
///
/// Without a file it starts with working defaults. Logs go to stderr; LBD_LOG (or RUST_LOG) sets their level, such as
/// `debug` or `lb_routing=debug`. SIGTERM and SIGINT end the BGP sessions; the dataplane goes on forwarding until
/// `lbd clean`, so that a restart loses no flow.
///
/// Exit codes: 0 done, 1 something is missing or wrong (one sentence says what), 2 wrong usage.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  lbd -c /etc/lbd/lbd.yaml\n  lbd check /etc/lbd/lbd.yaml\n  lbd clean"
)]
struct Arguments {
    /// The configuration file; by default /etc/lbd/lbd.yaml, if it is there.
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon (the default).
    Run,
    /// Check a configuration file and report everything that is wrong with it.
    ///
    /// What keeps lbd from starting on this host is said, too, and changes no exit code: the file may be for another one.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Print the JSON Schema of the configuration file, for editors and pipelines.
    Schema,
    /// Take everything of lbd out of the kernel: attachments, programs, flows, tables, routes.
    Clean,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command.unwrap_or(Command::Run) {
        Command::Check { file } => check(file),
        Command::Schema => schema(),
        Command::Run => load(arguments.config, config::load).and_then(run),
        // It needs no keys, and may run where there are none.
        Command::Clean => load(arguments.config, config::read).and_then(clean),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", said(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and what led to it; a cause that it names itself is not said again.
fn said(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| {
        match (said.is_empty(), said.contains(&cause)) {
            (true, _) => cause,
            (false, true) => said,
            (false, false) => format!("{said}: {cause}"),
        }
    })
}

fn load(
    file: Option<PathBuf>,
    read: impl FnOnce(&Path) -> Result<Config, ConfigError>,
) -> Result<Config> {
    let default = || Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.exists());
    Ok(match file.or_else(default) {
        Some(file) => read(&file)?,
        None => Config::default(),
    })
}

fn check(file: PathBuf) -> Result<()> {
    let config = config::load(&file)?;
    println!(
        "{} is right: {} peers, {} interface patterns, {} VIPs",
        file.display(),
        config.bgp.peers.len(),
        config.dataplane.interfaces.len(),
        config.vips.len()
    );
    // The file may be for another host.
    for why in daemon::obstacles() {
        eprintln!("lbd does not start on this host: {why}");
    }
    Ok(())
}

fn schema() -> Result<()> {
    let schema = serde_json::to_string_pretty(&lb_api::http::schema())?;
    match writeln!(std::io::stdout(), "{schema}") {
        // Whoever reads it has had enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

fn run(config: Config) -> Result<()> {
    let filter = EnvFilter::try_from_env("LBD_LOG")
        .or_else(|_| EnvFilter::try_from_default_env())
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = has_colours(std::io::stderr().is_terminal(), std::env::var_os("NO_COLOR"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours);
    log.with_writer(std::io::stderr).init();
    raise_limit_of_files();
    leave_no_core();
    daemon::privileges::drop(&config)?;
    // After the change of user, which decides on it anew.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!("other processes of lbd's user may read its memory: {error}");
    }
    // A thread of its own, which has given up as much as all others.
    if let Err(error) = tikv_jemalloc_ctl::background_thread::write(true) {
        tracing::warn!("memory that is no longer used goes back to the host late: {error}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(daemon::run(config));
    // Threads that wait for the kernel or a neighbour don't hold the end up.
    runtime.shutdown_background();
    outcome
}

/// `NO_COLOR` counts where it says anything (no-color.org).
fn has_colours(is_terminal: bool, no_color: Option<OsString>) -> bool {
    is_terminal && no_color.is_none_or(|said| said.is_empty())
}

/// A health check that finds no free descriptor would say that its backend is down.
fn raise_limit_of_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::warn!("the limit of open files stays as it is: {error}");
    }
}

/// A core would have the keys of neighbours and of TLS in it.
fn leave_no_core() {
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        tracing::warn!("a crash may leave a core with secrets in it: {error}");
    }
}

fn clean(config: Config) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for line in runtime.block_on(daemon::clean(&config))? {
        println!("{line}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let gone = load(Some("/none/lbd.yaml".into()), config::load).unwrap_err();
        assert_eq!(said(&gone).matches("No such file").count(), 1, "{}", said(&gone));
        let below = anyhow::anyhow!("the disk is full").context("cannot start");
        assert_eq!(said(&below), "cannot start: the disk is full");
    }

    #[test]
    fn the_log_has_colours_on_terminals_whose_user_does_not_refuse_them() {
        assert!(has_colours(true, None) && has_colours(true, Some("".into())));
        assert!(!has_colours(true, Some("1".into())) && !has_colours(false, None));
    }
}
