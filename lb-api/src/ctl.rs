//! `lbctl`: shows and changes what the daemon has, over its REST API.

mod apply;
mod client;
mod describe;
mod doctor;
mod show;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use lb_api_types::problem::Problem;

use self::client::Client;
pub use self::client::Server;

/// Shows and changes what lbd has, over its REST API.
///
/// Exit codes: 0 done, 1 refused or not found (one sentence says why), 2 wrong usage, 3 no daemon answers, 4 the answer
/// is no (doctor found something).
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  lbctl get vips                       # every VIP: served, advertised, healthy backends
  lbctl describe vip web               # one VIP with its backends and counters
  lbctl apply -f web.yaml              # create or replace VIPs; several documents are separated by ---
  lbctl get vips web -o yaml           # a VIP as apply takes it
  lbctl delete vip web
  lbctl get peers                      # BGP sessions
  lbctl doctor                         # what stands in the way, and what to do about it
  lbctl get fib 10.244.1.0/26          # where the fast path sends packets
  lbctl --server http://127.0.0.1:8080 get status"
)]
pub struct Arguments {
    /// Where lbd answers: unix:PATH or http://HOST:PORT.
    #[arg(
        long,
        global = true,
        env = "LBD_SERVER",
        default_value = "unix:/run/lbd/lbd.sock",
        value_name = "SERVER"
    )]
    server: Server,
    /// How answers are written.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List what there is, or the one with a name.
    Get {
        /// What to list.
        #[arg(value_enum)]
        kind: Kind,
        /// A VIP's or peer's name, a prefix, or a flow's VIP.
        name: Option<String>,
        /// Items of routes, fib and flows at most.
        #[arg(long)]
        limit: Option<u32>,
    },
    /// Show one VIP with everything that is known of it.
    Describe {
        /// What it is.
        #[arg(value_enum)]
        kind: Nameable,
        /// Its name.
        name: String,
    },
    /// Look for what stands in the way: kernel, privileges, settings, interfaces, sessions, VIPs; each with its remedy.
    Doctor,
    /// Create or replace the VIPs of files (YAML or JSON; several documents are separated by ---).
    Apply {
        /// A file; `-` is standard input.
        #[arg(short, long, required = true, value_name = "FILE")]
        file: Vec<PathBuf>,
    },
    /// Remove a VIP, or the VIPs of files.
    Delete {
        /// What it is.
        #[arg(value_enum, requires = "name")]
        kind: Option<Nameable>,
        /// Its name.
        name: Option<String>,
        /// A file; `-` is standard input.
        #[arg(
            short,
            long,
            value_name = "FILE",
            conflicts_with = "kind",
            required_unless_present = "kind"
        )]
        file: Vec<PathBuf>,
    },
}

/// What a command says when it is carried out.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Yes(String),
    /// The command asks something, and the answer is no.
    No(String),
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self::Yes(text)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Virtual IP services.
    #[value(alias = "vip")]
    Vips,
    /// BGP neighbours.
    #[value(alias = "peer")]
    Peers,
    /// BGP paths.
    #[value(alias = "route")]
    Routes,
    /// The eBPF FIB.
    Fib,
    /// Flows through VIPs.
    #[value(alias = "flow")]
    Flows,
    /// The appliance as a whole.
    Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Nameable {
    /// A virtual IP service.
    #[value(alias = "vips")]
    Vip,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Columns for people.
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Why a command is not carried out.
#[derive(Debug, thiserror::Error)]
enum CtlError {
    #[error(
        "lbd does not answer at {server}: {why}; is it running, and is this its address (--server)?"
    )]
    Unreachable { server: String, why: String },
    #[error("{}", words(.0))]
    Refused(Box<Problem>),
    #[error("{0}")]
    Other(String),
}

/// The problem's sentence; the field's name stands in it, or is added.
fn words(problem: &Problem) -> String {
    if !problem.errors.is_empty() {
        let all: Vec<_> = problem.errors.iter().map(|error| error.detail.as_str()).collect();
        return all.join("; ");
    }
    match &problem.pointer {
        Some(pointer)
            if !pointer.rsplit('/').next().is_some_and(|field| problem.detail.contains(field)) =>
        {
            format!("{} ({pointer})", problem.detail)
        }
        Some(_) | None => problem.detail.clone(),
    }
}

/// Carries a command line out.
pub async fn run(arguments: Arguments) -> ExitCode {
    let client = Client::new(arguments.server);
    let format = arguments.output;
    let outcome = match arguments.command {
        Command::Get { kind, name, limit } => {
            show::get(&client, kind, name.as_deref(), limit, format).await.map(Answer::Yes)
        }
        Command::Describe { kind: Nameable::Vip, name } => {
            show::describe(&client, &name, format).await.map(Answer::Yes)
        }
        Command::Doctor => doctor::doctor(&client, format).await,
        Command::Apply { file } => apply::apply(&client, &file).await.map(Answer::Yes),
        Command::Delete { name: Some(name), .. } => {
            apply::delete(&client, &[name]).await.map(Answer::Yes)
        }
        Command::Delete { file, .. } => apply::delete_files(&client, &file).await.map(Answer::Yes),
    };
    match outcome {
        Ok(Answer::Yes(text)) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Ok(Answer::No(text)) => {
            print(&text);
            ExitCode::from(4)
        }
        Err(error) => {
            eprintln!("{error}");
            match error {
                CtlError::Unreachable { .. } => ExitCode::from(3),
                CtlError::Refused(_) | CtlError::Other(_) => ExitCode::FAILURE,
            }
        }
    }
}

/// Writes to stdout; a reader that has gone (`| head`) is no mistake.
fn print(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _gone = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests;
