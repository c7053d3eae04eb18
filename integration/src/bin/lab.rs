//! `lab`: what `cargo xtask demo` and `cargo xtask lab` run.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use integration::lab::{self, Lab, Options};
use integration::{checks, demo};
use lb_api_types::config::Hook;
use nix::sys::signal::{SigSet, Signal};

/// Exit code after Ctrl-C, as shells have it.
const INTERRUPTED: i32 = 130;

#[derive(Parser)]
#[command(about = "Runs containerlab topologies in network namespaces", long_about = None)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Bring up calico-hello, create a VIP, drive traffic through it and show what happened
    Demo {
        /// Leave the lab up afterwards
        #[arg(long)]
        keep: bool,
        #[command(flatten)]
        programs: Programs,
    },
    /// Bring a topology up and leave it up
    Up {
        /// A folder of topologies/, or a .clab.yml file
        topology: String,
        #[command(flatten)]
        programs: Programs,
    },
    /// Bring a topology up, carry out its checks.yaml and take it down
    Check {
        /// A folder of topologies/
        topology: String,
        #[command(flatten)]
        programs: Programs,
    },
    /// Take down what `up`, `demo --keep` or a killed process left
    Down {
        /// Also labs whose process still runs: tests, another demo
        #[arg(long)]
        all: bool,
    },
    /// List what is up
    List,
    /// Run a command in a node of a lab that is up
    Exec {
        /// The lab's id; may be left out while only one is up
        #[arg(long)]
        id: Option<String>,
        /// The node
        node: String,
        /// The command and its arguments
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<String>,
    },
}

#[derive(Args)]
struct Programs {
    /// The daemon; by default `LBD_BIN`, or the one built beside this program
    #[arg(long)]
    lbd: Option<PathBuf>,
    /// Its client; by default `LBCTL_BIN`, or the one built beside this program
    #[arg(long)]
    lbctl: Option<PathBuf>,
    /// Where the fast path attaches
    #[arg(long, value_parser = hook, default_value = "auto")]
    hook: Hook,
}

fn hook(name: &str) -> Result<Hook, String> {
    match name {
        "auto" => Ok(Hook::Auto),
        "tc" => Ok(Hook::Tc),
        "xdp" => Ok(Hook::Xdp),
        other => Err(format!("`{other}` is not auto, tc or xdp")),
    }
}

impl Programs {
    fn options(self, topology: &str) -> Result<Options> {
        let mut options = Options::of(topology, self.lbd, self.lbctl)?;
        options.hook = self.hook;
        Ok(options)
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Demo { keep, programs } => {
            take_down_when_interrupted()?;
            demo::run(&programs.options(demo::TOPOLOGY)?, keep)
        }
        Task::Up { topology, programs } => {
            take_down_when_interrupted()?;
            let lab = Lab::up(&programs.options(&topology)?)?;
            println!("{} is up; what its processes print is in {}", topology, lab.logs().display());
            demo::look_around(&lab);
            lab.keep()
        }
        Task::Check { topology, programs } => {
            take_down_when_interrupted()?;
            let options = programs.options(&topology)?;
            let checks = checks::read(&options.topology.folder.join("checks.yaml"))?;
            let mut lab = Lab::up(&options)?;
            let outcome = checks.carry_out(&mut lab, |words| println!("  {words}"));
            outcome.inspect_err(|error| lab.failed(&format!("{error:#}")))
        }
        Task::Down { all } => {
            let gone = lab::take_down_left(true, all)?;
            match gone.as_slice() {
                [] => println!("no lab was up"),
                gone => println!("taken down: {}", gone.join(", ")),
            }
            Ok(())
        }
        Task::List => list(),
        Task::Exec { id, node, command } => exec(id.as_deref(), &node, &command),
    }
}

fn list() -> Result<()> {
    for lab in lab::list()? {
        let why = if lab.kept {
            "left up"
        } else if lab.owned {
            "in use"
        } else {
            "left by a process that is gone"
        };
        println!("{}  {}  {why}  {}", lab.id, lab.topology, lab.folder.display());
        for namespace in lab.namespaces.values() {
            println!("    {namespace}");
        }
    }
    Ok(())
}

fn exec(id: Option<&str>, node: &str, command: &[String]) -> Result<()> {
    let mut labs = lab::list()?;
    labs.retain(|lab| id.is_none_or(|id| lab.id == id));
    let [lab] = labs.as_slice() else {
        let ids: Vec<_> = labs.iter().map(|lab| lab.id.as_str()).collect();
        anyhow::bail!("{} labs are up ({}): name one with --id", labs.len(), ids.join(", "));
    };
    let mut child = lab.command(node, command)?;
    // Gives up this process: on return it failed.
    Err(child.exec()).with_context(|| format!("cannot run {}", command.join(" ")))
}

/// Ctrl-C and SIGTERM take down what this process has brought up. Must run before any other thread begins.
fn take_down_when_interrupted() -> Result<()> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    signals.thread_block()?;
    thread::spawn(move || {
        if signals.wait().is_ok() {
            eprintln!("interrupted: taking the lab down");
            if let Err(error) = lab::take_down_own() {
                eprintln!("error: {error:#}");
            }
            std::process::exit(INTERRUPTED);
        }
    });
    Ok(())
}
